"""What the tools share: where things lie, how to run Locutor's tool, and how to run the peers.

Needs the Python that `tools/reference.sh venv` makes.
"""

import contextlib
import ctypes
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = REPOSITORY / "tests" / "golden"


def reference_root():
    """The directory of `tools/reference.sh`."""
    if root := os.environ.get("LOCUTOR_REFERENCE"):
        return pathlib.Path(root)
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "locutor"


# --------------------------------------------------------------------------------------------------------------------
# Locutor


def add_tool_argument(parser):
    """Every script that runs Locutor takes the same option for it."""
    parser.add_argument("--tool", metavar="PROGRAM", help="the built `locutor` tool; built with cargo if not given")


def locutor(program=None):
    """The path of Locutor's command-line tool, built first unless `program` names one."""
    if program:
        found = shutil.which(program)
        if not found:
            raise SystemExit(f"{program}: no such program")
        return pathlib.Path(found).resolve()
    build = ["cargo", "build", "--quiet", "--release", "--example", "locutor"]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    target = os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target"
    return pathlib.Path(target) / "release" / "examples" / "locutor"


def run_locutor(tool, *arguments, **options):
    """Runs the tool and returns its stdout as bytes; a failure ends the script with the tool's own message."""
    command = [str(tool), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:300]}\nexit status {done.returncode}: {done.stderr.decode().strip()}")
    return done.stdout


def run_script(script, *arguments):
    """Runs one of these scripts in a process of its own and returns what it prints, read as JSON. If it fails, or is killed as
    a peer with an illegal instruction is, this one ends and says so."""
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        status = done.returncode
        ended = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        raise SystemExit(f"{' '.join(command)[:300]}\n{ended}: the engine to compare with did not run")
    return json.loads(done.stdout)


# --------------------------------------------------------------------------------------------------------------------
# transformers


def quiet_transformers():
    """No progress bars and no warnings about configurations."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def transformers_model(path, **options):
    """A GGUF file as transformers reads it, its weights dequantised to float32, ready to evaluate."""
    import torch
    import transformers

    quiet_transformers()
    path = pathlib.Path(path)
    with contextlib.redirect_stderr(io.StringIO()):  # it draws a bar for reading a GGUF file whatever it is told
        model = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager", **options
        )
    return model.eval()


def transformers_logits(model, ids):
    """Logits of every position, float32, one row a position."""
    import torch

    with torch.inference_mode():
        return model(torch.tensor([list(ids)])).logits[0].numpy()


# --------------------------------------------------------------------------------------------------------------------
# llama.cpp, through the low-level functions of llama-cpp-python

_LLAMA_QUIET = None


def llama_library():
    """The module of llama.cpp's C functions, started, with its log silenced."""
    global _LLAMA_QUIET
    from llama_cpp import llama_cpp

    if _LLAMA_QUIET is None:
        _LLAMA_QUIET = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(_LLAMA_QUIET, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
    return llama_cpp


class Llama:
    """A model and one context of llama.cpp. Use as a context manager."""

    def __init__(self, path, context=512, threads=1, flash=False, kv_type=None, vocab_only=False):
        self.lib = lib = llama_library()
        parameters = lib.llama_model_default_params()
        parameters.vocab_only = vocab_only
        parameters.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp does not load it")
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.n_vocab = lib.llama_vocab_n_tokens(self.vocab)
        self.context = None if vocab_only else self._new_context(context, threads, flash, kv_type)

    def _new_context(self, length, threads, flash, kv_type):
        parameters = self.lib.llama_context_default_params()
        parameters.n_ctx = length
        parameters.n_batch = parameters.n_ubatch = 512
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = int(flash)
        parameters.no_perf = True
        if kv_type is not None:
            parameters.type_k = parameters.type_v = int(kv_type)
        context = self.lib.llama_init_from_model(self.model, parameters)
        if not context:
            raise SystemExit("llama.cpp does not make a context")
        return context

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.context:
            self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)

    def clear(self):
        """Forgets every position."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def decode(self, ids, start=0, every=False):
        """Evaluates `ids` (at most 512) at positions from `start`, with logits of the last position or of every one."""
        batch = self.lib.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for i, token in enumerate(ids):
                batch.token[i] = token
                batch.pos[i] = start + i
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = every or i == len(ids) - 1
            if status := self.lib.llama_decode(self.context, batch):
                raise SystemExit(f"llama_decode: status {status}")
        finally:
            self.lib.llama_batch_free(batch)

    def logits(self, ids):
        """Logits of every position of a fresh sequence, float32, one row a position."""
        self.clear()
        rows = []
        for start in range(0, len(ids), 512):
            chunk = ids[start : start + 512]
            self.decode(chunk, start, every=True)
            pointer = self.lib.llama_get_logits(self.context)
            rows.append(np.ctypeslib.as_array(pointer, shape=(len(chunk), self.n_vocab)).copy())
        return np.concatenate(rows)

    def tokenize(self, text, special=False):
        """Ids of a text, without the beginning-of-sequence token; `special` says whether the texts of control tokens count."""
        raw = text.encode()
        room = len(raw) + 8
        ids = (self.lib.llama_token * room)()
        count = self.lib.llama_tokenize(self.vocab, raw, len(raw), ids, room, False, special)
        if count < 0:
            raise SystemExit(f"llama_tokenize: {count}")
        return ids[:count]


# --------------------------------------------------------------------------------------------------------------------
# figures


def log_softmax(logits):
    """Natural log-probabilities of each row, in float64."""
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def kl_divergence(truth, other):
    """KL(truth || other) of each row, in nats, from two arrays of log-probabilities."""
    return (np.exp(truth) * (truth - other)).sum(axis=-1)


def nmse(truth, other):
    """Mean squared error over the mean square of `truth`."""
    truth = truth.astype(np.float64)
    return float(((other - truth) ** 2).mean() / (truth**2).mean())
