#!/usr/bin/env python3
"""Sizes of what is shipped, as a table: the shared library, a C program, the module for browsers, the Cortex-M image, and
builds that leave something out; llama.cpp's libraries beside them. SIZES.md holds its output.

    python3 tools/size_report.py                    builds and measures everything
    python3 tools/size_report.py --quick            only the shared library
    python3 tools/size_report.py --peer FOLDER      FOLDER holds libllama.so and libggml*.so

Exit status 1 if the whole shared library is larger than --most bytes. Everything is stripped. Needs a C compiler, `strip`
and `readelf`; the browser's module and the image need what examples/wasm/run.sh and examples/no_std/run.sh need.
"""

import argparse
import datetime
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
STORY = ROOT / "examples" / "model" / "story.gguf"
SMALL = ["--config", 'profile.embed.opt-level="s"']
SCALAR = ["--no-default-features"]
AVX2 = ["--no-default-features", "--features", "avx2"]


def run(*command, **options):
    result = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True, **options)
    return result.stdout.strip()


def build(options):
    """The folder with the library of the profile for embedders."""
    run("cargo", "build", "--quiet", "--profile", "embed", "-p", "locutor-ffi", *options, cwd=ROOT)
    return TARGET / "embed"


def stripped(path, folder):
    """Bytes of a file without its symbols."""
    copy = Path(folder) / "stripped"
    run("strip", "-o", copy, path)
    return copy.stat().st_size


def program(library, folder):
    """Bytes of examples/generate.c with the library inside."""
    out = Path(folder) / "generate"
    run(os.environ.get("CC", "cc"), "-std=c99", "-Os", "-ffunction-sections", "-Wl,--gc-sections", "-s", "-I",
        ROOT / "include", ROOT / "examples" / "generate.c", library / "liblocutor.a", "-lpthread", "-ldl", "-lm",
        "-o", out)
    return out.stat().st_size


def needed(library):
    """Libraries that a shared library asks for."""
    return re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", library))


def loaded(elf):
    """Bytes that a 32-bit ELF image has in flash, and bytes of its memory, from its program headers."""
    raw = Path(elf).read_bytes()
    start, size, count = struct.unpack_from("<I", raw, 28)[0], *struct.unpack_from("<HH", raw, 42)
    flash = ram = 0
    for i in range(count):
        kind, _, _, physical, in_file, in_memory = struct.unpack_from("<6I", raw, start + i * size)
        if kind == 1:
            flash += in_file
            # What is not where it was loaded to is copied or cleared: memory.
            virtual = struct.unpack_from("<I", raw, start + i * size + 8)[0]
            ram += in_memory if virtual != physical or in_memory > in_file else 0
    return flash, ram


def report(options, folder):
    rows = []

    def row(what, size, note=""):
        rows.append((what, size, note))
        print(f"{what}: {size}", file=sys.stderr)

    library = build([])
    shared = library / "liblocutor.so"
    whole = stripped(shared, folder)
    row("shared library, everything", whole, "needs " + ", ".join(f"`{name}`" for name in needed(shared)))
    if options.quick:
        return whole, rows
    row("C program `examples/generate.c`, library inside", program(library, folder), "needs libc and libm")
    for name, arguments in [("without AVX-512", AVX2), ("plain kernels alone", SCALAR)]:
        library = build(arguments)
        row(f"shared library, {name}", stripped(library / "liblocutor.so", folder), f"`{' '.join(arguments)}`")
    row("C program, plain kernels alone", program(library, folder))
    library = build([*SCALAR, *SMALL])
    row("shared library, plain kernels alone, for size", stripped(library / "liblocutor.so", folder),
        "`opt-level = \"s\"`")
    row("C program, plain kernels alone, for size", program(library, folder))
    model = STORY.stat().st_size
    if not options.no_cross:
        page = Path(run("bash", ROOT / "examples/wasm/run.sh", "build"))
        module = (page / "locutor.wasm").stat().st_size
        row("module for browsers, simd128", module - model, f"and {model} of the model inside")
        flash, _ = loaded(run("bash", ROOT / "examples/no_std/run.sh", "build"))
        row("Cortex-M4F image, flash", flash - model, f"and {model} of the model inside")
    if options.peer:
        peers = sorted(path for path in Path(options.peer).glob("lib*.so") if re.match(r"lib(llama|ggml)", path.name))
        sizes = [stripped(path, folder) for path in peers]
        row("llama.cpp: " + " ".join(f"`{path.name}`" for path in peers), sum(sizes),
            " + ".join(map(str, sizes)))
        row("of these, the CPU and what it needs: `libggml-base.so` `libggml-cpu.so` `libggml.so`",
            sum(size for path, size in zip(peers, sizes) if "ggml" in path.name))
    return whole, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the shared library")
    parser.add_argument("--no-cross", action="store_true", help="nothing for browsers and microcontrollers")
    parser.add_argument("--peer", metavar="FOLDER", help="libraries of llama.cpp")
    parser.add_argument("--most", type=int, default=1_500_000, metavar="BYTES", help="of the shared library")
    options = parser.parse_args()
    if not shutil.which("strip"):
        parser.error("`strip` is missing")
    with tempfile.TemporaryDirectory() as folder:
        whole, rows = report(options, folder)
    rustc = " ".join(run("rustc", "--version").split()[:2])
    print(f"Measured on {datetime.date.today()}, {platform.system()} {platform.machine()}, {rustc}.\n")
    print("| what | bytes | |\n|---|---:|---|")
    for what, size, note in rows:
        print(f"| {what} | {size:,} | {note} |")
    if whole > options.most:
        sys.exit(f"the shared library has {whole} bytes, {options.most} at most are allowed")


if __name__ == "__main__":
    main()
