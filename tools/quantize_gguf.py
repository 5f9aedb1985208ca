#!/usr/bin/env python3
"""Writes a GGUF file again in another type, by llama.cpp's own quantiser and its mixture of types.

Files quantised twice are worse than their source: they serve to measure speed.
"""

import argparse
import ctypes
import os
import pathlib
import sys

import peers

TYPES = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K_M", "Q5_K_M", "Q6_K")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=pathlib.Path, metavar="IN")
    parser.add_argument("output", type=pathlib.Path, metavar="OUT")
    parser.add_argument("--type", choices=TYPES, required=True, help="the mixture of types")
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count(), help="default %(default)s")
    options = parser.parse_args()
    part = options.output.with_name(options.output.name + ".part")
    lib = peers.llama_library()
    settings = lib.llama_model_quantize_default_params()
    settings.nthread = options.threads
    settings.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{options.type}")
    settings.allow_requantize = True
    if lib.llama_model_quantize(os.fsencode(options.input), os.fsencode(part), ctypes.byref(settings)):
        sys.exit(f"{options.input}: llama.cpp does not quantise it")
    part.rename(options.output)


if __name__ == "__main__":
    main()
