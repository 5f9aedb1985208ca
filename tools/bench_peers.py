#!/usr/bin/env python3
"""Speed of Locutor and of llama.cpp on the same file, the same lengths and the same threads, in turns.

Each turn starts both programs afresh, and each warms up once before it measures: a prompt of P tokens from an empty
cache, then N tokens one by one from an empty cache. llama.cpp gets batches of 512 and runs both with and without
flash attention, unless --flash says which; the setting with the better median counts. What is printed is the median over the turns, with the
least and the greatest, and the ratio of the medians.
With a depth both tests begin behind so many tokens, which are not in the figures.
"""

import argparse
import collections
import json
import pathlib
import statistics
import subprocess
import sys
import time

import peers

BATCH = 512
FLASH = {"best": (0, 1), "on": (1,), "off": (0,)}


def main():
    options = arguments()
    if options.llama_once is not None:
        return llama_once(options)
    tool = peers.locutor(options.tool)
    threads = [int(count) for count in options.threads.split(",")]
    speeds = collections.defaultdict(list)
    for turn in range(options.runs):
        for count in threads:
            for engine, measured in one_turn(tool, options, count):
                for test, speed in measured.items():
                    speeds[engine, test, count].append(speed)
        print(f"turn {turn + 1} of {options.runs}", file=sys.stderr, flush=True)
    rows = [row(speeds, test, count) for test in tests(options) for count in threads]
    report(rows, options)
    sys.exit(options.require is not None and min(row["ratio"] for row in rows) < options.require)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="a GGUF file with weights")
    parser.add_argument(
        "-p", "--prompt", type=int, default=512, metavar="P", help="tokens of the prompt; default %(default)s"
    )
    parser.add_argument(
        "-n", "--decode", type=int, default=128, metavar="N", help="tokens one by one; default %(default)s"
    )
    parser.add_argument(
        "-d", "--depth", type=int, default=0, metavar="D", help="tokens before each test; default %(default)s"
    )
    parser.add_argument("-t", "--threads", default="1,2", metavar="LIST", help="default %(default)s")
    parser.add_argument("-r", "--runs", type=int, default=5, metavar="R", help="turns; default %(default)s")
    parser.add_argument("--flash", choices=FLASH, default="best", help="llama.cpp's attention; default %(default)s")
    parser.add_argument("--map", action="store_true", help="Locutor maps the file too, instead of reading it")
    parser.add_argument("--require", type=float, metavar="RATIO", help="exit status 1 if a ratio is lower")
    parser.add_argument("--json", action="store_true", help="one JSON object a row instead of the table")
    parser.add_argument("--llama-once", type=int, metavar="FLASH", help=argparse.SUPPRESS)
    peers.add_tool_argument(parser)
    return parser.parse_args()


def tests(options):
    """The names of the tests that are asked for: a length of 0 leaves one out."""
    lengths = {f"pp{options.prompt}": options.prompt, f"tg{options.decode}": options.decode}
    return [name for name, length in lengths.items() if length]


def one_turn(tool, options, threads):
    """Pairs of engine and its tokens per second in each test, every engine in a process of its own."""
    lengths = ["-p", options.prompt, "-n", options.decode, "-d", options.depth, "-t", threads]
    mapped = ["--map"] if options.map else []
    run = peers.run_locutor(tool, "bench", "-m", options.model, *mapped, *lengths, "-r", 1, "--json")
    lines = run.splitlines()
    # Behind @ stands the depth.
    yield "Locutor", {line["test"].split("@")[0]: line["tokens_per_s_median"] for line in map(json.loads, lines)}
    for flash in FLASH[options.flash]:
        command = [sys.executable, __file__, str(options.model), *map(str, lengths), "--llama-once", str(flash)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        yield ("llama.cpp", flash), json.loads(output)


def row(speeds, test, threads):
    """The figures of one line of the table."""
    ours = speeds["Locutor", test, threads]
    settings = [flash for flash in (0, 1) if speeds[("llama.cpp", flash), test, threads]]
    flash = max(settings, key=lambda flash: statistics.median(speeds[("llama.cpp", flash), test, threads]))
    theirs = speeds[("llama.cpp", flash), test, threads]
    figures = {"test": test, "threads": threads, "runs": len(ours), "llama_flash_attention": bool(flash)}
    for name, values in (("locutor", ours), ("llama", theirs)):
        figures[f"{name}_tokens_per_s_median"] = statistics.median(values)
        figures[f"{name}_tokens_per_s_min"] = min(values)
        figures[f"{name}_tokens_per_s_max"] = max(values)
    return figures | {"ratio": statistics.median(ours) / statistics.median(theirs)}


def report(rows, options):
    if options.json:
        for figures in rows:
            print(json.dumps({"model": options.model.name} | figures))
        return
    print(f"{options.model.name}, {options.runs} turns, tokens per second")
    print(f"{'test':8} {'threads':>7}   {'Locutor':^28}   {'llama.cpp':^28}   {'flash':5} {'ratio':>6}")
    for figures in rows:
        spans = (span(figures, name) for name in ("locutor", "llama"))
        flash = "on" if figures["llama_flash_attention"] else "off"
        print(f"{figures['test']:8} {figures['threads']:7}   {'   '.join(spans)}   {flash:5} {figures['ratio']:6.3f}")


def span(figures, name):
    median, least, most = (figures[f"{name}_tokens_per_s_{kind}"] for kind in ("median", "min", "max"))
    return f"{median:9.2f} ({least:7.2f} …{most:8.2f})"


# --------------------------------------------------------------------------------------------------------------------
# llama.cpp's part, in a process of its own


def llama_once(options):
    """Prints llama.cpp's tokens per second in each test as JSON."""
    length = options.depth + max(options.prompt, options.decode)
    with peers.Llama(options.model, context=length, threads=int(options.threads), flash=options.llama_once) as llama:
        ids = [1 + i * 7919 % (llama.n_vocab - 1) for i in range(length)]
        measured = {}
        for test in tests(options):
            run = process if test.startswith("pp") else generate
            part = ids[options.depth :][: int(test[2:])]
            for _ in range(2):  # the first to warm up
                llama.clear()
                process(llama, ids[: options.depth], 0)
                start = time.perf_counter()
                run(llama, part, options.depth)
                measured[test] = len(part) / (time.perf_counter() - start)
    print(json.dumps(measured))


def process(llama, ids, position):
    """A prompt from a position on, in batches, with logits of the last token."""
    for start in range(0, len(ids), BATCH):
        llama.decode(ids[start : start + BATCH], position + start)
    llama.lib.llama_synchronize(llama.context)


def generate(llama, ids, position):
    """One token after another from a position on, with the logits of each."""
    for i, token in enumerate(ids):
        llama.decode([token], position + i)
        llama.lib.llama_get_logits_ith(llama.context, -1)


if __name__ == "__main__":
    main()
