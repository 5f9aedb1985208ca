"""Locutor from Python: one file, the standard library alone, nothing to build but the shared library.

    cargo build --release -p locutor-ffi          # target/release/liblocutor.so
    python3 examples/python/locutor.py -m examples/model/story.gguf --seed 42 "Once upon a time"

    import locutor

    with locutor.Model("story.gguf") as model, model.session(context=256) as session:
        session.feed("Once upon a time")
        for piece in session.generate(locutor.Sampler(seed=42), max_tokens=100, stop=["The end"]):
            print(piece, end="", flush=True)
        print(session.finish)

`include/locutor.h` is the contract; this file says the same to `ctypes`, and adds what Python expects: exceptions,
generators, and lifetimes that are right whatever is dropped first. Texts and ids are those of every other host.

Threads. A model may be used by any threads at the same time. A session does one call at a time, and answers another one
with `Busy`; `cancel` alone may be called meanwhile. `ctypes` lets other Python threads run while the library computes.

Which library: `load(path)`, or `$LOCUTOR_LIBRARY`, or the first that is found: beside this file, in `target/release`
above it, where the system looks.
"""

import argparse
import ctypes
import ctypes.util
import os
import sys
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_double, c_float, c_int32
from ctypes import c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Mapping, Optional, Sequence

ABI = 1
NO_TOKEN = 0xFFFFFFFF

# Names of the header's numbers.
POLICIES = {"stop": 0, "shift": 1, "slide": 2}
KV_TYPES = {"f16": 0, "f32": 1, "q8_0": 2, "i16": 3}
PRECISIONS = {"mixed": 0, "8": 8, "16": 16}
FINISHES = {0: None, 1: "end", 2: "stop", 3: "max_tokens"}
_MODEL_MAP, _MODEL_HEADER = 1, 4
_HAS_TOKENIZER, _ADDS_BOS, _IS_MAPPED = 1, 2, 4
_TEXT_MARKUP = 1
_SAVE_SEQUENCE, _SAVE_SESSION = 0, 1
_PENDING, _PIECE, _DONE, _TOKEN = range(4)
_BUFFER = -106

# Python runs signal handlers between two calls of C only, so long calls are cut into slices of so many units, of some
# ten thousand multiplications each: Ctrl-C waits for milliseconds, not for the end of a prompt. No result depends on it.
_SLICE = 2000


# ------------------------------------------------------------------------------------------------------------- errors


class LocutorError(Exception):
    """A call that failed. `status` is the number of the header's LOCUTOR_ERR_*; the object is as it was before."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class Busy(LocutorError):
    """The session is in another call."""


class ContextFull(LocutorError):
    """No room for so many tokens: truncate, or choose a policy that forgets."""


class Cancelled(LocutorError):
    """The call was ended by `Session.cancel`."""


class DamagedState(LocutorError):
    """A saved state that is damaged, or of another model or other settings."""


_CLASSES = {
    -204: DamagedState, -205: DamagedState, -400: Busy, -401: ContextFull, -404: ContextFull, -406: Cancelled,
}


# ----------------------------------------------------------------------------------------------- the header's structures


class _Error(Structure):
    _fields_ = [("struct_size", c_uint32), ("code", c_int32), ("text", c_char * 504)]


class _ModelParams(Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("flags", c_uint32), ("path", c_char_p), ("data", c_void_p),
        ("data_len", c_uint64), ("read", c_void_p), ("read_user", c_void_p), ("read_len", c_uint64),
        ("offset", c_uint64), ("len", c_uint64),
        ("fd", c_int32), ("reserved", c_uint32),
    ]


class _ModelInfo(Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("flags", c_uint32), ("vocab", c_uint32), ("context", c_uint32),
        ("layers", c_uint32), ("width", c_uint32), ("bos", c_uint32), ("eos", c_uint32),
        ("file_bytes", c_uint64), ("table_bytes", c_uint64),
        ("architecture", c_void_p), ("architecture_len", c_uint64), ("name", c_void_p), ("name_len", c_uint64),
        ("chat_template", c_void_p), ("chat_template_len", c_uint64),
    ]


class _SessionParams(Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("flags", c_uint32), ("context", c_uint32), ("batch", c_uint32),
        ("logits", c_uint32), ("threads", c_uint32), ("text_bytes", c_uint32), ("stops", c_uint32),
        ("stop_bytes", c_uint32), ("kv_keys", c_uint32), ("kv_values", c_uint32), ("precision", c_uint32),
        ("sequences", c_uint32), ("positions", c_uint32), ("decode_threads", c_uint32), ("policy", c_uint32),
        ("keep", c_uint32), ("isa", c_char_p), ("parallel_for", c_void_p), ("parallel_for_user", c_void_p),
    ]


class _SessionPlan(Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("context", c_uint32), ("bytes", c_uint64), ("kv_bytes", c_uint64),
        ("logits_bytes", c_uint64), ("scratch_bytes", c_uint64),
    ]


class _Bias(Structure):
    _fields_ = [("token", c_uint32), ("bias", c_float)]


class _SamplerParams(Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("temperature", c_float), ("top_k", c_uint32), ("top_p", c_float),
        ("min_p", c_float), ("repeat_penalty", c_float), ("frequency_penalty", c_float),
        ("presence_penalty", c_float), ("penalty_last_n", c_uint32), ("n_logit_bias", c_uint32), ("seed", c_uint64),
        ("logit_bias", POINTER(_Bias)),
    ]


class _Budget(Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("reserved", c_uint32), ("units", c_uint64), ("until", c_uint64),
        ("clock", c_void_p), ("clock_user", c_void_p),
    ]


class _Event(Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("kind", c_int32), ("finish", c_int32), ("token", c_uint32), ("text", c_void_p),
        ("text_len", c_uint64),
    ]


_STRUCTURES = {
    "error": _Error, "model_params": _ModelParams, "model_info": _ModelInfo, "session_params": _SessionParams,
    "session_plan": _SessionPlan, "sampler_params": _SamplerParams, "budget": _Budget, "event": _Event,
}

_SIZE, _TOKENS = POINTER(c_size_t), POINTER(c_uint32)

# Arguments of every function that returns a status. The handles are plain addresses.
_FUNCTIONS = {
    "model_create": [POINTER(_ModelParams), POINTER(c_void_p), POINTER(_Error)],
    "model_get_info": [c_void_p, POINTER(_ModelInfo)],
    "model_tokenize": [c_void_p, c_char_p, c_size_t, c_uint32, c_void_p, c_size_t, _SIZE, POINTER(_Error)],
    "model_detokenize": [c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, _SIZE, POINTER(_Error)],
    "session_get_plan": [c_void_p, POINTER(_SessionParams), POINTER(_SessionPlan), POINTER(_Error)],
    "session_create": [c_void_p, POINTER(_SessionParams), POINTER(c_void_p), POINTER(_Error)],
    "session_get_error": [c_void_p, POINTER(_Error)],
    "session_isa": [c_void_p, POINTER(c_void_p), _SIZE],
    "session_feed_text": [c_void_p, c_char_p, c_size_t, c_uint32, _SIZE],
    "session_feed_tokens": [c_void_p, c_void_p, c_size_t],
    "session_truncate": [c_void_p, c_size_t],
    "session_tokens": [c_void_p, POINTER(_TOKENS), _SIZE],
    "session_position": [c_void_p, _SIZE],
    "session_room": [c_void_p, _SIZE],
    "session_cancel": [c_void_p],
    "session_create_sequence": [c_void_p, POINTER(c_uint64)],
    "session_fork_sequence": [c_void_p, POINTER(c_uint64)],
    "session_select_sequence": [c_void_p, c_uint64],
    "session_selected_sequence": [c_void_p, POINTER(c_uint64)],
    "session_close_sequence": [c_void_p, c_uint64],
    "session_pages": [c_void_p, _SIZE, _SIZE],
    "session_state_hash": [c_void_p, POINTER(c_uint64)],
    "session_save": [c_void_p, c_uint32, c_void_p, c_size_t, _SIZE],
    "session_restore": [c_void_p, c_char_p, c_size_t],
    "session_set_sampler": [c_void_p, POINTER(_SamplerParams)],
    "session_get_rng": [c_void_p, POINTER(c_uint64)],
    "session_set_rng": [c_void_p, c_uint64],
    "session_set_max_tokens": [c_void_p, c_uint64],
    "session_set_ignore_end": [c_void_p, c_int32],
    "session_set_stops": [c_void_p, POINTER(c_char_p), _SIZE, c_size_t],
    "session_step": [c_void_p, POINTER(_Budget), POINTER(_Event)],
    "session_step_token": [c_void_p, POINTER(_Budget), POINTER(_Event)],
    "session_advance": [c_void_p, POINTER(_Budget), POINTER(c_int32)],
    "session_logits": [c_void_p, POINTER(POINTER(c_float)), _SIZE],
    "session_log_prob": [c_void_p, c_void_p, c_size_t, POINTER(c_double), POINTER(c_double)],
}


# ------------------------------------------------------------------------------------------------------------ library


class Library:
    """The shared library, with the types of its functions. Most programs never name it."""

    def __init__(self, path):
        self.path = str(path)
        self._dll = dll = ctypes.CDLL(self.path)
        dll.locutor_version.restype = c_char_p
        dll.locutor_abi.restype = c_uint32
        if dll.locutor_abi() != ABI:
            raise ImportError(f"{path}: ABI {dll.locutor_abi()}, this file is for {ABI}")
        dll.locutor_status_text.restype, dll.locutor_status_text.argtypes = c_char_p, [c_int32]
        for name in ("model_destroy", "session_destroy"):
            function = getattr(dll, f"locutor_{name}")
            function.restype, function.argtypes = None, [c_void_p]
            setattr(self, name, function)
        for name, arguments in _FUNCTIONS.items():
            function = getattr(dll, f"locutor_{name}")
            function.restype, function.argtypes = c_int32, arguments
            setattr(self, name, function)
        for name, structure in _STRUCTURES.items():
            function = getattr(dll, f"locutor_{name}_init")
            function.restype, function.argtypes = c_int32, [POINTER(structure), c_size_t]

    @property
    def version(self) -> str:
        return self._dll.locutor_version().decode()

    def new(self, name: str):
        """A structure with its defaults, by its name in the header."""
        structure = _STRUCTURES[name]()
        self.check(getattr(self._dll, f"locutor_{name}_init")(byref(structure), ctypes.sizeof(structure)))
        return structure

    def check(self, status: int, error: Optional[_Error] = None) -> None:
        """Raises the exception of a status."""
        if status == 0:
            return
        text = error.text if error is not None and error.code == status else self._dll.locutor_status_text(status)
        raise _CLASSES.get(status, LocutorError)(status, text.decode("utf-8", "replace"))


_library: Optional[Library] = None


def load(path=None) -> Library:
    """Loads the library from `path`, or finds it (see the head of this file). Models made later use it."""
    global _library
    if path is not None:
        _library = Library(path)
    elif _library is None:
        _library = Library(_find())
    return _library


def _find() -> str:
    chosen = os.environ.get("LOCUTOR_LIBRARY")
    if chosen:
        return chosen
    name = {"win32": "locutor.dll", "darwin": "liblocutor.dylib"}.get(sys.platform, "liblocutor.so")
    here = Path(__file__).resolve().parent
    places = [here / name] + [folder / "target" / "release" / name for folder in here.parents]
    for place in places:
        if place.is_file():
            return str(place)
    found = ctypes.util.find_library("locutor")
    if found is None:
        raise ImportError(f"{name} is not there; build it with `cargo build --release -p locutor-ffi`")
    return found


# -------------------------------------------------------------------------------------------------------------- model


class Model:
    """A model: weights and tokenizer, shared by any number of sessions and threads.

    path     the file, or
    data     the whole file, as `bytes` (kept, not copied) or a writable buffer (kept; it must not change)
    map      map the file instead of reading it; nobody may change the file as long as the model lives
    header   read the header alone: the model tells what it is, plans and tokenizes, but has no sessions
    offset, length   where the model is inside `path`, such as an asset pack
    """

    def __init__(self, path=None, *, data=None, map: bool = False, header: bool = False, offset: int = 0,
                 length: int = 0, library: Optional[Library] = None):
        self._handle = None
        self._library = library or load()
        params = self._library.new("model_params")
        params.flags = (_MODEL_MAP if map else 0) | (_MODEL_HEADER if header else 0)
        params.offset, params.len = offset, length
        if path is not None:
            params.path = os.fsencode(path) if os.name != "nt" else str(path).encode()
        self._data = None
        if data is not None:
            # What the address points to is kept as long as the model, and a session keeps its model.
            self._data = c_char_p(data) if isinstance(data, bytes) else (c_char * len(data)).from_buffer(data)
            params.data, params.data_len = ctypes.cast(self._data, c_void_p), len(data)
        handle, error = c_void_p(), self._library.new("error")
        self._library.check(self._library.model_create(byref(params), byref(handle), byref(error)), error)
        self._handle = handle
        info = self._library.new("model_info")
        self._library.check(self._library.model_get_info(handle, byref(info)))
        text = lambda start, length: ctypes.string_at(start, length).decode("utf-8", "replace") if start else None
        self.vocab: int = info.vocab
        self.context: int = info.context
        self.layers: int = info.layers
        self.width: int = info.width
        self.bos: Optional[int] = None if info.bos == NO_TOKEN else info.bos
        self.eos: Optional[int] = None if info.eos == NO_TOKEN else info.eos
        self.file_bytes: int = info.file_bytes
        self.has_tokenizer: bool = bool(info.flags & _HAS_TOKENIZER)
        self.adds_bos: bool = bool(info.flags & _ADDS_BOS)
        self.is_mapped: bool = bool(info.flags & _IS_MAPPED)
        self.architecture: str = text(info.architecture, info.architecture_len) or ""
        self.name: str = text(info.name, info.name_len) or ""
        self.chat_template: Optional[str] = text(info.chat_template, info.chat_template_len)

    def tokenize(self, text: str, *, markup: bool = False) -> list:
        """Token ids of a text, without begin or end. With `markup`, texts of control tokens become these tokens."""
        raw, error, n = text.encode(), self._library.new("error"), c_size_t()
        flags, capacity = _TEXT_MARKUP if markup else 0, len(raw) + 16
        while True:
            tokens = (c_uint32 * capacity)()
            status = self._library.model_tokenize(self._open(), raw, len(raw), flags, tokens, capacity, byref(n),
                                                  byref(error))
            if status != _BUFFER:
                self._library.check(status, error)
                return tokens[: n.value]
            capacity = n.value

    def detokenize(self, tokens: Sequence[int]) -> bytes:
        """The text of tokens. Bytes, because it need not be whole characters at its ends."""
        ids, error, n = (c_uint32 * len(tokens))(*tokens), self._library.new("error"), c_size_t()
        capacity = 16 * len(tokens) + 16
        while True:
            text = ctypes.create_string_buffer(capacity)
            status = self._library.model_detokenize(self._open(), ids, len(tokens), text, capacity, byref(n),
                                                    byref(error))
            if status != _BUFFER:
                self._library.check(status, error)
                return text.raw[: n.value]
            capacity = n.value

    def plan(self, **limits) -> dict:
        """Bytes that a session of these limits takes, exactly: `bytes`, and of these `kv_bytes`, `logits_bytes`,
        `scratch_bytes`; and its `context`."""
        params, error = _session_params(self._library, limits), self._library.new("error")
        plan = self._library.new("session_plan")
        status = self._library.session_get_plan(self._open(), byref(params), byref(plan), byref(error))
        self._library.check(status, error)
        return {name: getattr(plan, name) for name, _ in _SessionPlan._fields_ if name != "struct_size"}

    def session(self, **limits) -> "Session":
        """A session; `limits` are the members of locutor_session_params, with names for `policy` ("stop", "shift",
        "slide"), `kv_keys` and `kv_values` or both as `kv` ("i16", "f16", "f32", "q8_0"), `precision` ("mixed", "8", "16")."""
        return Session(self, **limits)

    def close(self) -> None:
        """Ends the model. Its sessions go on working."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._library.model_destroy(handle)

    def _open(self):
        if self._handle is None:
            raise ValueError("the model is closed")
        return self._handle

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()


def _session_params(library: Library, limits: Mapping):
    params = library.new("session_params")
    limits = dict(limits)
    if "kv" in limits:
        limits["kv_keys"] = limits["kv_values"] = limits.pop("kv")
    names = {"policy": POLICIES, "kv_keys": KV_TYPES, "kv_values": KV_TYPES, "precision": PRECISIONS}
    hidden = {"struct_size", "flags", "parallel_for", "parallel_for_user"}
    known = {name for name, _ in _SessionParams._fields_} - hidden
    for name, value in limits.items():
        if name not in known:
            raise TypeError(f"no limit is called {name}: {', '.join(sorted(known))}")
        if name in names:
            if value not in names[name]:
                raise ValueError(f"{name}: {value!r} is none of {', '.join(names[name])}")
            value = names[name][value]
        setattr(params, name, value.encode() if isinstance(value, str) else value)
    return params


# ------------------------------------------------------------------------------------------------------------ sampler


@dataclass(frozen=True)
class Sampler:
    """How tokens are chosen; the header says in which order. Temperature 0 takes the most probable token."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    seed: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @staticmethod
    def greedy() -> "Sampler":
        return Sampler(temperature=0.0)


# ------------------------------------------------------------------------------------------------------------ session


class Session:
    """A conversation with a model, in one block of memory that never grows."""

    def __init__(self, model: Model, **limits):
        self._handle = None
        self._library = library = model._library
        params, handle, error = _session_params(library, limits), c_void_p(), library.new("error")
        library.check(library.session_create(model._open(), byref(params), byref(handle), byref(error)), error)
        self._handle, self._model = handle, model
        self._event, self._budget = library.new("event"), library.new("budget")
        self._budget.units = _SLICE
        self._biases = None
        self.finish: Optional[str] = None
        """Why the last `generate` ended: "end", "stop", "max_tokens"; None if it did not."""

    # Text in, text out.

    def feed(self, text: str, *, markup: bool = False) -> int:
        """Adds text behind the last token, and says how many tokens it was. Computes nothing yet. All or nothing."""
        raw, added = text.encode(), c_size_t()
        self._call("feed_text", raw, len(raw), _TEXT_MARKUP if markup else 0, byref(added))
        return added.value

    def feed_tokens(self, tokens: Sequence[int]) -> None:
        """Adds tokens behind the last one. All or nothing."""
        self._call("feed_tokens", (c_uint32 * len(tokens))(*tokens), len(tokens))

    def generate(self, sampler: Optional[Sampler] = None, *, max_tokens: Optional[int] = None,
                 stop: Sequence[str] = (), ignore_end: bool = False) -> Iterator[str]:
        """Yields pieces of text, whole characters, as they become certain; `finish` then says why it ended.

        Ends before a text of `stop`. Without a sampler, the one before goes on with its random numbers. The consumer
        may leave at any piece, feed more, and call again."""
        self._prepare(sampler, max_tokens, stop, ignore_end)
        for event in self._events("step"):
            if event.kind == _PIECE:
                yield ctypes.string_at(event.text, event.text_len).decode()

    def generate_tokens(self, sampler: Optional[Sampler] = None, *, max_tokens: Optional[int] = None,
                        ignore_end: bool = False) -> Iterator[int]:
        """As `generate`, token by token and without stop strings. Use one of the two throughout an answer."""
        self._prepare(sampler, max_tokens, (), ignore_end)
        for event in self._events("step_token"):
            if event.kind == _TOKEN:
                yield event.token

    def set_sampler(self, sampler: Sampler) -> None:
        """Sets how tokens are chosen, and starts the random numbers from the seed."""
        params, biases = self._library.new("sampler_params"), sampler.logit_bias
        for name in ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "frequency_penalty",
                     "presence_penalty", "penalty_last_n", "seed"):
            setattr(params, name, getattr(sampler, name))
        array = (_Bias * max(len(biases), 1))(*(_Bias(token, bias) for token, bias in biases.items()))
        if biases:
            params.logit_bias, params.n_logit_bias = array, len(biases)
        self._call("set_sampler", byref(params))
        # The library keeps the pointer until the next sampler.
        self._biases = array

    def cancel(self) -> None:
        """Ends the call that is computing, or the next one that would, with `Cancelled`. Any thread may call."""
        self._call("cancel")

    # What is there.

    @property
    def tokens(self) -> list:
        """All tokens, given and generated; under a policy that forgets, those that the last one sees."""
        tokens, n = _TOKENS(), c_size_t()
        self._call("tokens", byref(tokens), byref(n))
        return tokens[: n.value]

    @property
    def position(self) -> int:
        """The number of tokens, with those that were forgotten."""
        return self._number("position", c_size_t)

    @property
    def room(self) -> int:
        """The number of tokens that there is still room for."""
        return self._number("room", c_size_t)

    @property
    def isa(self) -> str:
        """The name of the kernels in use."""
        name, n = c_void_p(), c_size_t()
        self._call("isa", byref(name), byref(n))
        return ctypes.string_at(name, n.value).decode()

    def truncate(self, length: int) -> None:
        """Forgets all tokens from a position on."""
        self._call("truncate", length)

    def advance(self) -> None:
        """Computes what was fed, without choosing a token: `logits` are there afterwards."""
        ready = c_int32()
        while not ready.value:
            self._call("advance", byref(self._budget), byref(ready))

    def logits(self) -> list:
        """The logits behind the last token, one a token of the vocabulary; `advance` first."""
        logits, n = POINTER(c_float)(), c_size_t()
        self._call("logits", byref(logits), byref(n))
        return logits[: n.value]

    def log_prob(self, tokens: Sequence[int]) -> list:
        """Feeds tokens, and returns the natural logarithm of each one's probability behind what was there."""
        each, total = (c_double * len(tokens))(), c_double()
        self._call("log_prob", (c_uint32 * len(tokens))(*tokens), len(tokens), each, byref(total))
        return list(each)

    # Sequences: several texts in one session. All other methods work on the selected one.

    def create_sequence(self) -> int:
        """Begins an empty sequence. It is not selected."""
        return self._number("create_sequence", c_uint64)

    def fork_sequence(self) -> int:
        """Begins a sequence with the tokens of the selected one, and shares what is computed. It is not selected."""
        return self._number("fork_sequence", c_uint64)

    @property
    def sequence(self) -> int:
        """The selected sequence; assign to select another."""
        return self._number("selected_sequence", c_uint64)

    @sequence.setter
    def sequence(self, sequence: int) -> None:
        self._call("select_sequence", sequence)

    def close_sequence(self, sequence: int) -> None:
        """Ends a sequence, and frees what it alone holds. The selected one becomes an empty one with another id."""
        self._call("close_sequence", sequence)

    @property
    def pages(self) -> tuple:
        """How many pages of 16 positions are free, and how many there are."""
        free, every = c_size_t(), c_size_t()
        self._call("pages", byref(free), byref(every))
        return free.value, every.value

    # Saved states.

    def save(self, *, whole: bool = False) -> bytes:
        """The selected sequence, or with `whole` the whole session, sampler and random numbers included (not its
        biases): the same bytes on every machine."""
        what, n = _SAVE_SESSION if whole else _SAVE_SEQUENCE, c_size_t()
        status = self._library.session_save(self._open(), what, None, 0, byref(n))
        if status != _BUFFER:
            self._check(status)
        memory = ctypes.create_string_buffer(n.value)
        self._call("save", what, memory, n.value, byref(n))
        return memory.raw[: n.value]

    def restore(self, state: bytes) -> None:
        """Goes on from a saved state. All or nothing."""
        self._call("restore", state, len(state))

    @property
    def state_hash(self) -> int:
        """A number for everything that later results can depend on, but for the sampler."""
        return self._number("state_hash", c_uint64)

    @property
    def rng(self) -> int:
        """Where the random numbers are; assign to go on from there."""
        return self._number("get_rng", c_uint64)

    @rng.setter
    def rng(self, state: int) -> None:
        self._call("set_rng", state)

    def close(self) -> None:
        """Ends the session, and its threads."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._library.session_destroy(handle)

    # Below: how.

    def _prepare(self, sampler, max_tokens, stop, ignore_end):
        if isinstance(stop, str):
            raise TypeError("stop is a list of texts")
        if sampler is not None:
            self.set_sampler(sampler)
        raw = [text.encode() for text in stop]
        self._call("set_stops", (c_char_p * len(raw))(*raw), (c_size_t * len(raw))(*map(len, raw)), len(raw))
        self._call("set_max_tokens", 2**64 - 1 if max_tokens is None else max_tokens)
        self._call("set_ignore_end", int(ignore_end))
        self.finish = None

    def _events(self, step):
        while True:
            self._call(step, byref(self._budget), byref(self._event))
            if self._event.kind == _DONE:
                self.finish = FINISHES.get(self._event.finish)
                return
            if self._event.kind != _PENDING:
                yield self._event

    def _number(self, name, kind):
        number = kind()
        self._call(name, byref(number))
        return number.value

    def _call(self, name, *arguments):
        self._check(getattr(self._library, f"session_{name}")(self._open(), *arguments))

    def _check(self, status):
        if status:
            error = self._library.new("error")
            self._library.session_get_error(self._open(), byref(error))
            self._library.check(status, error)

    def _open(self):
        if self._handle is None:
            raise ValueError("the session is closed")
        return self._handle

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()


# ------------------------------------------------------------------------------------------------------------ program


def main() -> int:
    parser = argparse.ArgumentParser(description="Continues a text, as the tool does with the same options.")
    parser.add_argument("-m", "--model", required=True, metavar="FILE")
    parser.add_argument("-n", type=int, metavar="TOKENS", help="at most so many")
    parser.add_argument("--greedy", action="store_true", help="always take the most probable token")
    parser.add_argument("--temperature", type=float, default=0.7, metavar="T")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text")
    parser.add_argument("--context", type=int, default=0, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--ids", action="store_true", help="print the ids of all tokens instead of text")
    parser.add_argument("prompt")
    options = parser.parse_args()
    sampler = Sampler(temperature=0.0 if options.greedy else options.temperature, min_p=0.0, seed=options.seed)
    try:
        with Model(options.model) as model:
            longest = max([64] + [len(text.encode()) for text in options.stop])
            limits = {"context": options.context, "threads": options.threads, "stop_bytes": longest}
            with model.session(**limits) as session:
                session.feed(options.prompt, markup=True)
                if not options.ids:
                    print(options.prompt, end="", flush=True)
                try:
                    for piece in session.generate(sampler, max_tokens=options.n, stop=options.stop):
                        if not options.ids:
                            print(piece, end="", flush=True)
                except ContextFull:
                    pass
                print(*(session.tokens if options.ids else []))
    except LocutorError as error:
        print(f"locutor.py: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
