#!/usr/bin/env python3
"""Locutor and llama.cpp in one process: both generate at the same time, and say what each says alone.

    check_neighbours.py MODEL LIBRARY

LIBRARY is Locutor's shared library (tools/install.sh). Needs llama-cpp-python, as tools/reference.sh venv installs it.
"""
import ctypes
import sys
import threading

TOKENS = 24
PROMPT = "The capital of France is"
C = ctypes


class ModelParams(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("path", C.c_char_p), ("rest", C.c_uint64 * 8)]


class SessionParams(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("flags", C.c_uint32), ("context", C.c_uint32), ("rest", C.c_uint32 * 21)]


class SamplerParams(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("temperature", C.c_float), ("rest", C.c_uint32 * 12)]


class Event(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("kind", C.c_int32), ("finish", C.c_int32), ("token", C.c_uint32),
                ("text", C.c_void_p), ("text_len", C.c_uint64)]


DONE = 2


class Locutor:
    def __init__(self, library, path):
        self.library = C.CDLL(library)
        params = self.made(ModelParams, "locutor_model_params_init")
        params.path = path.encode()
        self.model = C.c_void_p()
        self.must("locutor_model_create", C.byref(params), C.byref(self.model), None)

    def must(self, name, *arguments):
        status = getattr(self.library, name)(*arguments)
        if status:
            sys.exit(f"{name}: {status}")

    def made(self, kind, init):
        value = kind()
        self.must(init, C.byref(value), C.c_size_t(C.sizeof(kind)))
        return value

    def tell(self):
        params = self.made(SessionParams, "locutor_session_params_init")
        params.context = 256
        session = C.c_void_p()
        self.must("locutor_session_create", self.model, C.byref(params), C.byref(session), None)
        sampler = self.made(SamplerParams, "locutor_sampler_params_init")
        sampler.temperature = 0.0
        self.must("locutor_session_set_sampler", session, C.byref(sampler))
        self.must("locutor_session_set_max_tokens", session, C.c_uint64(TOKENS))
        prompt = PROMPT.encode()
        self.must("locutor_session_feed_text", session, prompt, C.c_size_t(len(prompt)), 0, None)
        event, text = self.made(Event, "locutor_event_init"), b""
        while event.kind != DONE:
            self.must("locutor_session_step", session, None, C.byref(event))
            text += C.string_at(event.text, event.text_len)
        self.library.locutor_session_destroy(session)
        return text.decode()


class Neighbour:
    def __init__(self, path):
        import llama_cpp

        self.llama = llama_cpp.Llama(path, n_ctx=256, n_threads=1, verbose=False)

    def tell(self):
        self.llama.reset()
        answer = self.llama.create_completion(PROMPT, max_tokens=TOKENS, temperature=0.0)
        return answer["choices"][0]["text"]


def main(path, library):
    hosts = [Locutor(library, path), Neighbour(path)]
    alone = [host.tell() for host in hosts]
    together = [[], []]

    def run(index):
        for _ in range(3):
            together[index].append(hosts[index].tell())

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, text, texts in zip(("locutor", "llama.cpp"), alone, together):
        if not text.strip() or texts != [text] * 3:
            print(f"{name}: alone {text!r}, together {texts!r}")
            return 1
        print(f"{name}: {text!r}, alone and beside the other")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
