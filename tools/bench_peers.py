#!/usr/bin/env python3
"""Speed of Locutor and of llama.cpp on the same file, the same lengths and the same threads, in turns.

Each turn starts both programs afresh, and each warms up once before it measures: a prompt of P tokens from an empty
cache, then N tokens one by one from an empty cache. llama.cpp gets batches of 512 and runs both with and without
flash attention, unless --flash says which; the setting with the better median counts. What is printed is the median over the turns, with the
least and the greatest, and the ratio of the medians.
With a depth both tests begin behind so many tokens, which are not in the figures.

Another engine that has a program like llama.cpp's llama-bench can take llama.cpp's place (--llama-bench), with every
--setting in turns; here too the one with the best median counts.
"""

import argparse
import collections
import json
import pathlib
import shlex
import statistics
import subprocess
import sys
import time

import peers

BATCH = 512
FLASH = {"best": ("off", "on"), "on": ("on",), "off": ("off",)}


def main():
    options = arguments()
    if options.llama_once is not None:
        return llama_once(options)
    tool = peers.locutor(options.tool)
    threads = [int(count) for count in options.threads.split(",")]
    speeds = collections.defaultdict(list)
    for turn in range(options.runs):
        for count in threads:
            for engine, setting, measured in one_turn(tool, options, count):
                for test, speed in measured.items():
                    speeds[engine, setting, test, count].append(speed)
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
    parser.add_argument("--llama-bench", metavar="PROGRAM", help="the peer: a program like llama.cpp's llama-bench")
    parser.add_argument("--setting", action="append", metavar="OPTIONS", help="options of that program; may be repeated")
    parser.add_argument("--map", action="store_true", help="Locutor maps the file too, instead of reading it")
    parser.add_argument("--require", type=float, metavar="RATIO", help="exit status 1 if a ratio is lower")
    parser.add_argument("--json", action="store_true", help="one JSON object a row instead of the table")
    parser.add_argument("--llama-once", choices=("off", "on"), help=argparse.SUPPRESS)
    peers.add_tool_argument(parser)
    options = parser.parse_args()
    if options.llama_bench and options.depth:
        parser.error("--llama-bench knows no depth")
    if options.setting and not options.llama_bench:
        parser.error("--setting belongs to --llama-bench")
    return options


def tests(options):
    """The names of the tests that are asked for: a length of 0 leaves one out."""
    lengths = {f"pp{options.prompt}": options.prompt, f"tg{options.decode}": options.decode}
    return [name for name, length in lengths.items() if length]


def one_turn(tool, options, threads):
    """Engine, its setting, and its tokens per second in each test, every engine in a process of its own."""
    lengths = ["-p", options.prompt, "-n", options.decode, "-d", options.depth, "-t", threads]
    mapped = ["--map"] if options.map else []
    run = peers.run_locutor(tool, "bench", "-m", options.model, *mapped, *lengths, "-r", 1, "--json")
    lines = run.splitlines()
    # Behind @ stands the depth.
    ours = {line["test"].split("@")[0]: line["tokens_per_s_median"] for line in map(json.loads, lines)}
    yield "Locutor", "", ours
    if options.llama_bench:
        for setting in options.setting or [""]:
            yield "peer", setting, llama_bench(options, threads, setting)
        return
    for flash in FLASH[options.flash]:
        yield "peer", flash, peers.run_script(__file__, options.model, *lengths, "--llama-once", flash)


def llama_bench(options, threads, setting):
    """Tokens per second in each test of a program like llama-bench."""
    lengths = map(str, ["-p", options.prompt, "-n", options.decode, "-t", threads, "-r", 1])
    command = [options.llama_bench, "-m", str(options.model), *lengths, "-o", "json", *shlex.split(setting)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    # What stands before the list is chatter.
    results = json.loads(output[output.index(b"[") :])
    return {f"pp{line['n_prompt']}" if line["n_prompt"] else f"tg{line['n_gen']}": line["avg_ts"] for line in results}


def row(speeds, test, threads):
    """The figures of one line of the table."""
    ours = speeds["Locutor", "", test, threads]
    settings = {setting: values for (engine, setting, *rest), values in speeds.items() if engine == "peer" and rest == [test, threads]}
    setting, theirs = max(settings.items(), key=lambda item: statistics.median(item[1]))
    figures = {"test": test, "threads": threads, "runs": len(ours), "peer_setting": setting}
    for name, values in (("locutor", ours), ("peer", theirs)):
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
    peer, what = (pathlib.Path(options.llama_bench).name, "setting") if options.llama_bench else ("llama.cpp", "flash")
    width = max(len(what), *(len(figures["peer_setting"]) for figures in rows))
    print(f"{'test':8} {'threads':>7}   {'Locutor':^28}   {peer:^28}   {what:{width}} {'ratio':>6}")
    for figures in rows:
        spans = "   ".join(span(figures, name) for name in ("locutor", "peer"))
        setting = f"{figures['peer_setting']:{width}}"
        print(f"{figures['test']:8} {figures['threads']:7}   {spans}   {setting} {figures['ratio']:6.3f}")


def span(figures, name):
    median, least, most = (figures[f"{name}_tokens_per_s_{kind}"] for kind in ("median", "min", "max"))
    return f"{median:9.2f} ({least:7.2f} …{most:8.2f})"


# --------------------------------------------------------------------------------------------------------------------
# llama.cpp's part, in a process of its own


def llama_once(options):
    """Prints llama.cpp's tokens per second in each test as JSON."""
    length = options.depth + max(options.prompt, options.decode)
    with peers.Llama(options.model, context=length, threads=int(options.threads), flash=int(options.llama_once == "on")) as llama:
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
