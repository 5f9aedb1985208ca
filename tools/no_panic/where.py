#!/usr/bin/env python3
"""Says where the panics are that `prove.sh` has found: which lines call what ends in the panic handler.

    where.py LIBRARY    a shared library linked without `-z defs`, with line tables

Follows calls and jumps backwards from the handler as long as they stay in functions of Rust's own library; every call
from anywhere else is one place to mend, printed with the lines that were inlined there.
"""
import collections
import re
import subprocess
import sys

FUNCTION = re.compile(r"^([0-9a-f]+) <(.*)>:$")
CALL = re.compile(r"^ *([0-9a-f]+):\s+(?:call|jmp|j[a-z]+)\s+[0-9a-f]+ <(.*)>$")
REFERENCE = re.compile(r"^ *([0-9a-f]+):\s+lea .*# [0-9a-f]+ <(.*)>$")


def lines(*command, text=None):
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout.splitlines()


def main(library):
    callers, function = collections.defaultdict(list), ""
    for line in lines("objdump", "-d", "-C", "--no-show-raw-insn", library):
        if match := FUNCTION.match(line):
            function = match[2]
        elif match := CALL.match(line) or REFERENCE.match(line):
            target = re.sub(r"\+0x[0-9a-f]+$", "", match[2])
            if target != function:
                callers[target].append((function, match[1]))
    open_, seen, places = ["__rustc::rust_begin_unwind"], set(), {}
    while open_:
        target = open_.pop()
        if target in seen:
            continue
        seen.add(target)
        for caller, address in callers[target]:
            if re.match(r"<?(core|alloc|__rustc)::", caller) and "locutor" not in caller:
                open_.append(caller)
            else:
                places[address] = (caller, target)
    addresses = sorted(places, key=lambda address: int(address, 16))
    if not addresses:
        return
    found = collections.Counter()
    for address in addresses:
        stack = []
        for line in lines("addr2line", "-e", library, "-i", "-f", "-C", "0x" + address)[1::2]:
            line = re.sub(r" \(discriminator.*", "", line)
            if "/library/core/" not in line and "/library/alloc/" not in line:
                stack.append("/".join(line.split("/")[-3:]))
        found[(places[address][1], " < ".join(stack[:4]))] += 1
    for (target, stack), count in sorted(found.items(), key=lambda item: item[0][1]):
        print(f"{count:3} {target}\n      {stack}")


if __name__ == "__main__":
    main(*sys.argv[1:])
