#!/usr/bin/env python3
"""From the start of the process to the end of the first token, and the memory that takes, beside llama.cpp.

Both map the file. Locutor's time begins before a process of its tool exists, and ends when the text of the first token
has come out of it. llama.cpp's begins when its library is loaded and Python is ready, and ends when the logits are
there. Peak memory is what the process had resident (VmHWM of Linux, looked at until the process ends, of Locutor in a
process of its own), pages of the mapped file included; of llama.cpp's what Python had before is taken off. The file is
read once before, so that it lies in the system's cache.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import time

import numpy as np
import peers

PROMPT = "Once upon a time"
MIB = 1 << 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="a GGUF file with weights")
    parser.add_argument("-c", "--context", type=int, default=512, metavar="C", help="default %(default)s")
    parser.add_argument("-t", "--threads", type=int, default=1, metavar="N", help="default %(default)s")
    parser.add_argument("-r", "--runs", type=int, default=7, metavar="R", help="turns; default %(default)s")
    parser.add_argument("--llama-once", action="store_true", help=argparse.SUPPRESS)
    peers.add_tool_argument(parser)
    options = parser.parse_args()
    if options.llama_once:
        return llama_once(options)
    tool = peers.locutor(options.tool)
    options.model.read_bytes()
    turns = [(locutor_once(tool, options), llama_process(options)) for _ in range(options.runs)]
    file = options.model.stat().st_size / MIB
    print(f"{options.model.name}, {file:.1f} MiB, context {options.context}, {options.threads} threads, {options.runs} turns")
    print(f"{'':10} {'first token, ms':^26} {'peak memory, MiB':>17} {'beside the file':>16}")
    medians = []
    for name, runs in zip(("Locutor", "llama.cpp"), zip(*turns)):
        times = [1000 * seconds for seconds, _ in runs]
        peak = statistics.median(memory for _, memory in runs) / MIB
        medians.append(statistics.median(times))
        spread = f"{medians[-1]:7.1f} ({min(times):6.1f} …{max(times):7.1f})"
        print(f"{name:10} {spread:26} {peak:17.1f} {peak - file:16.1f}")
    print(f"Locutor takes {medians[0] / medians[1]:.3f} of llama.cpp's time")


def locutor_once(tool, options):
    """Seconds to the first token of one process, and peak bytes of another, which is not hurried by being watched."""
    command = [tool, "generate", "-m", options.model, "-c", options.context, "-t", options.threads]
    command += ["--map", "--greedy", "--no-echo", "--quiet", "-n", 1, PROMPT]
    command = [str(part) for part in command]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    first = process.stdout.read(1)
    seconds = time.perf_counter() - start
    process.communicate()
    if process.returncode or not first.strip():
        sys.exit(f"{command}: no token")
    process, peak = subprocess.Popen(command, stdout=subprocess.DEVNULL), 0
    while process.poll() is None:
        peak = max(peak, resident(process.pid, "VmHWM"))
    return seconds, peak


def resident(process, field):
    """Bytes that a process has resident, or had at most; 0 when it has ended."""
    try:
        status = pathlib.Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def llama_process(options):
    lengths = ["-c", options.context, "-t", options.threads]
    return peers.run_script(__file__, options.model, "--llama-once", *lengths)


def llama_once(options):
    peers.llama_library()
    before = resident("self", "VmRSS")
    start = time.perf_counter()
    with peers.Llama(options.model, context=options.context, threads=options.threads) as llama:
        llama.decode(llama.tokenize(PROMPT))
        logits = llama.lib.llama_get_logits_ith(llama.context, -1)
        int(np.ctypeslib.as_array(logits, shape=(llama.n_vocab,)).argmax())
        seconds = time.perf_counter() - start
    print(json.dumps([seconds, resident("self", "VmHWM") - before]))


if __name__ == "__main__":
    main()
