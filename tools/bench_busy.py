#!/usr/bin/env python3
"""Decoding beside other programs that want the same processors, in turns.

As many processes as are asked for do nothing but count. Beside them Locutor decodes with each number of threads, and,
for comparison, so does llama.cpp. What is printed is the median over the turns, with the least and the greatest, and
its ratio to that of the first number of threads.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import statistics
import subprocess
import sys

import peers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="a GGUF file with weights")
    parser.add_argument("-b", "--busy", type=int, default=1, metavar="B", help="other processes; default %(default)s")
    parser.add_argument("-n", "--decode", type=int, default=128, metavar="N", help="tokens; default %(default)s")
    parser.add_argument("-t", "--threads", default="1,2", metavar="LIST", help="default %(default)s")
    parser.add_argument("-r", "--runs", type=int, default=5, metavar="R", help="turns; default %(default)s")
    peers.add_tool_argument(parser)
    options = parser.parse_args()
    tool = peers.locutor(options.tool)
    threads = [int(count) for count in options.threads.split(",")]
    speeds = collections.defaultdict(list)
    with busy(options.busy):
        for _ in range(options.runs):
            for count in threads:
                speeds["Locutor", count].append(locutor_once(tool, options, count))
                speeds["llama.cpp", count].append(llama_once(options, count))
    print(f"{options.model.name}, tg{options.decode} beside {options.busy} busy, {options.runs} turns, tokens per second")
    for engine in ("Locutor", "llama.cpp"):
        first = statistics.median(speeds[engine, threads[0]])
        for count in threads:
            runs = speeds[engine, count]
            median = statistics.median(runs)
            print(f"{engine:10} {count:2} threads {median:9.2f} ({min(runs):7.2f} …{max(runs):8.2f}) {median / first:6.3f}")


@contextlib.contextmanager
def busy(count):
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def locutor_once(tool, options, threads):
    lengths = ["-p", 0, "-n", options.decode, "-t", threads, "-r", 1, "--json"]
    return json.loads(peers.run_locutor(tool, "bench", "-m", options.model, *lengths))["tokens_per_s_median"]


def llama_once(options, threads):
    script = pathlib.Path(__file__).with_name("bench_peers.py")
    lengths = ["-p", 0, "-n", options.decode, "-t", threads, "--llama-once", "off"]
    return peers.run_script(script, options.model, *lengths)[f"tg{options.decode}"]


if __name__ == "__main__":
    main()
