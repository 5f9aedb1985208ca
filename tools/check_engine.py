#!/usr/bin/env python3
"""What the session engine promises of a real model: the cost of small keys and values, and texts longer than a context.

    check_engine.py MODEL [--positions 4096] [--generated 20000] [--context 512]

1. Perplexity of a text with keys and values in f16 and in Q8_0: the difference is at most 0.5 %, and the planned bytes are
   those of 34 to 64.
2. Perplexity of the same text read as one, through a sliding window behind four sinks, in an arena of `--context`
   positions: finite, and at most a tenth above that of windows that begin anew, which see less on the average.
3. As many tokens as asked for, generated in that arena without an error, and the perplexity of a text behind them.

The text is the language reference that comes with Python. Needs nothing but the built tool.
"""

import argparse
import json
import math
import pathlib
import pydoc_data.topics
import tempfile

import peers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="a GGUF file with weights and rotary positions")
    parser.add_argument("--positions", type=int, default=4096, metavar="N", help="default %(default)s")
    parser.add_argument("--generated", type=int, default=20000, metavar="N", help="default %(default)s")
    parser.add_argument("--context", type=int, default=512, metavar="N", help="default %(default)s")
    parser.add_argument("--max-change", type=float, default=0.005, metavar="PART", help="default %(default)s")
    peers.add_tool_argument(parser)
    options = parser.parse_args()
    tool = peers.locutor(options.tool)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        text = folder / "text"
        write_text(tool, options, text)
        small_cache(tool, options, text)
        long_text(tool, options, text)
        long_answer(tool, options, folder)


def write_text(tool, options, path):
    """Writes at least as many tokens as asked for: whole chapters in the order of their names."""
    chapters, tokens = [], 0
    for _, chapter in sorted(pydoc_data.topics.topics.items()):
        path.write_text(chapter)
        chapters.append(chapter)
        tokens += len(peers.run_locutor(tool, "tokenize", "-m", options.model, "-f", path).split())
        if tokens > options.positions:
            path.write_text("".join(chapters))
            return
    raise SystemExit(f"the text has {tokens} tokens, {options.positions} are asked for")


def score(tool, options, text, *arguments):
    line = peers.run_locutor(tool, "score", "-m", options.model, "-f", text, "--json", *arguments)
    return json.loads(line)


def planned(tool, options, kind):
    line = peers.run_locutor(tool, "inspect", "-m", options.model, "--json", "--context", options.context, "--kv", kind)
    return json.loads(line)["plan"]["kv_bytes"]


def small_cache(tool, options, text):
    half, small = [score(tool, options, text, "--kv", kind, "--context", 2048) for kind in ("f16", "q8_0")]
    change = small["perplexity"] / half["perplexity"] - 1
    print(f"perplexity over {half['tokens']} tokens: f16 {half['perplexity']:.4f}, Q8_0 {small['perplexity']:.4f}")
    print(f"  {100 * change:+.3f} % (at most {100 * options.max_change:.1f} %)")
    require(half["tokens"] >= options.positions - 1 and abs(change) <= options.max_change, "Q8_0 costs too much")
    bytes_half, bytes_small = [planned(tool, options, kind) for kind in ("f16", "q8_0")]
    print(f"  keys and values of {options.context} positions: f16 {bytes_half} bytes, Q8_0 {bytes_small} bytes")
    require(bytes_small * 64 == bytes_half * 34, "Q8_0 takes more than its share")


def long_text(tool, options, text):
    arena = ["--context", options.context]
    anew = score(tool, options, text, *arena)
    slid = score(tool, options, text, *arena, "--policy", "slide", "--keep", 4)
    print(f"perplexity in {options.context} positions: windows that begin anew {anew['perplexity']:.4f}, "
          f"one that slides {slid['perplexity']:.4f}")
    require(math.isfinite(slid["perplexity"]), "not finite")
    require(slid["perplexity"] <= 1.1 * anew["perplexity"], "a sliding window loses the thread")


def long_answer(tool, options, folder):
    state = folder / "state"
    common = ["-m", options.model, "--context", options.context, "--policy", "slide", "--keep", 4]
    sampling = ["--temperature", 0.8, "--seed", 1, "--ignore-eos"]
    generate = ["generate", *common, *sampling, "-n", options.generated, "--ids", "--save", state]
    ids = peers.run_locutor(tool, *generate, "The history of the town begins with").split()
    print(f"{len(ids)} tokens generated and read in {options.context} positions, state of {state.stat().st_size} bytes")
    require(len(ids) >= options.generated, "the answer ended early")
    # What the model makes of its own words far behind the context is as sane as at their beginning.
    own = [int(word) for word in ids]
    for name, part in (("first", own[:2000]), ("last", own[-2000:])):
        words = folder / name
        words.write_bytes(peers.run_locutor(tool, "detokenize", "-m", options.model, *part))
        anew = score(tool, options, words, "--context", options.context)["perplexity"]
        print(f"  perplexity of its {name} 2000 tokens, read anew: {anew:.3f}")


def require(holds, words):
    if not holds:
        raise SystemExit(f"check_engine.py: {words}")


if __name__ == "__main__":
    main()
