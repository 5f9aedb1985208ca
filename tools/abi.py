#!/usr/bin/env python3
"""Compares what the C header promises, types and functions, with what it promised before (include/locutor.abi).

    abi.py           says how they differ; status 1 if they do
    abi.py update    makes today's header the promise

The description is made by abidw from a library of empty functions that is compiled from the header, so it knows what C
programs know: sizes, offsets, parameters. That the real library has these functions is tested elsewhere (ffi/tests). A
difference that breaks programs asks for a new LOCUTOR_ABI. Needs a C compiler and Debian's abigail-tools.
"""
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "include" / "locutor.abi"
# abidiff's status: 4 is any change, 8 one that breaks programs.
CHANGED, BREAKS = 4, 8


def stub():
    """A C file with an empty body for each function of the header."""
    header = (ROOT / "include" / "locutor.h").read_text()
    code = re.sub(r"/\*.*?\*/", "", header.split('extern "C" {')[1], flags=re.S)
    code = "\n".join(line for line in code.splitlines() if not line.startswith("#"))
    functions = re.findall(r"(?:^|;)\s*((?:const )?\w+ \*?locutor_\w+\([^;]*\))\s*(?=;)", code)
    bodies = (f"{function} {{ {'' if function.startswith('void') else 'return 0;'} }}" for function in functions)
    # The opaque objects, so that they are part of the description.
    objects = "struct locutor_model { int opaque; };\nstruct locutor_session { int opaque; };\n"
    return '#include "locutor.h"\n' + objects + "\n".join(bodies) + "\n", len(functions)


def describe(folder):
    text, count = stub()
    listed = len((ROOT / "include" / "symbols.txt").read_text().split())
    if count != listed:
        sys.exit(f"abi.py: {count} functions in the header, {listed} in symbols.txt")
    (folder / "locutor-stub.c").write_text(text)
    library = folder / "liblocutor-stub.so"
    cc = os.environ.get("CC", "cc")
    # The oldest form of line tables and types: all versions of abigail read it.
    subprocess.run([cc, "-std=c99", "-g", "-gdwarf-4", "-O0", "-w", "-shared", "-fPIC", "-I", ROOT / "include",
                    f"-ffile-prefix-map={ROOT}=.", f"-ffile-prefix-map={folder}=.", folder / "locutor-stub.c", "-o", library],
                   check=True)
    described = folder / "locutor.abi"
    subprocess.run(["abidw", "--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--out-file", described, library],
                   check=True)
    return described


def main(arguments):
    with tempfile.TemporaryDirectory() as folder:
        described = describe(Path(folder))
        if arguments == ["update"]:
            BASELINE.write_text(described.read_text())
            return 0
        status = subprocess.run(["abidiff", "--no-default-suppression", BASELINE, described]).returncode
    if status == 0:
        print("abi: as committed")
        return 0
    if status & BREAKS:
        print("abi.py: this breaks programs: raise LOCUTOR_ABI, add a node to locutor.map, freeze a new header", file=sys.stderr)
    elif status & CHANGED:
        print("abi.py: a change that programs survive, as far as abidiff knows: review it, then run abi.py update", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
