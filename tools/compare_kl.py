#!/usr/bin/env python3
"""How far Locutor and llama.cpp are from the model that a GGUF file holds.

The truth is what transformers computes in float32 with the dequantised weights, on windows of an English text. For
each engine: the mean Kullback-Leibler divergence KL(truth || engine) over the whole vocabulary, in nats; how often
its most likely token is the truth's; and its perplexity. Exit status 1 if Locutor's mean divergence is greater than
llama.cpp's, its agreement lower, or its perplexity more than 0.5 % off the truth's over
4,096 positions; over fewer, by as much more as a mean over fewer values spreads more. With --max-kl that bound takes
the place of the comparison with llama.cpp.

Every window is a sequence of its own, which begins with the token that the file wants there, if any. llama.cpp runs
as it does by default: half-precision keys and values, flash attention where it has it.

The truth is kept in $LOCUTOR_REFERENCE/cache, 4 bytes a position and token of the vocabulary: 0.9 GB for SmolLM2
and 4.8 GB for Gemma 3 with the whole text.
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import sys
import tempfile

import numpy as np

import peers

TEXT = pathlib.Path(__file__).with_name("data") / "english.txt"
ROWS_AT_ONCE = 32  # float64 log-probabilities of a quarter of a million tokens take room
PERPLEXITY_TOLERANCE = 0.005
TOLERANCE_POSITIONS = 4096


def main():
    options = arguments()
    tool = None if options.peers_only else peers.locutor(options.tool)
    scores = {name: Score() for name in ["truth", "llama.cpp"] + ["Locutor"] * (tool is not None)}
    truth = Truth(options.model, use_cache=not options.no_cache)
    with peers.Llama(options.model, context=options.window, threads=options.threads, flash=-1) as llama:
        for number, ids in enumerate(windows(llama, options.text, options.window, options.positions)):
            engines = {"llama.cpp": llama.logits(ids)}
            if tool:
                engines["Locutor"] = locutor_logits(tool, options.model, ids, options.precision)
            add_window(scores, ids, truth.logits(ids), engines)
            print(f"window {number}: {len(ids)} positions", file=sys.stderr, flush=True)
    report(scores, options.json)
    sys.exit(tool is not None and failed(scores, options.max_kl))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="a GGUF file with weights")
    parser.add_argument("--text", type=pathlib.Path, default=TEXT, help="default: %(default)s")
    parser.add_argument("--window", type=int, default=512, metavar="N", help="tokens in a window; default %(default)s")
    parser.add_argument(
        "--positions", type=int, metavar="N", help="stop after so many; default: all whole windows of the text"
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of llama.cpp; default %(default)s")
    parser.add_argument(
        "--precision", default="default", choices=["default", "8", "16"], help="of Locutor's activations"
    )
    parser.add_argument("--max-kl", type=float, metavar="NATS", help="the greatest mean divergence allowed")
    parser.add_argument("--peers-only", action="store_true", help="leave Locutor out")
    parser.add_argument("--no-cache", action="store_true", help="compute the truth again and do not keep it")
    parser.add_argument("--json", action="store_true", help="one JSON object an engine instead of the table")
    peers.add_tool_argument(parser)
    return parser.parse_args()


def windows(llama, text, length, positions):
    """Lists of ids: the whole windows of the text, or as many as make `positions`, the last one cut."""
    lib, vocab = llama.lib, llama.vocab
    first = [lib.llama_vocab_bos(vocab)] if lib.llama_vocab_get_add_bos(vocab) else []
    ids = llama.tokenize(text.read_text(encoding="utf-8"))
    step = length - len(first)
    whole = [first + ids[start : start + step] for start in range(0, len(ids) - step + 1, step)]
    available = sum(map(len, whole))
    if positions and positions > available:
        raise SystemExit(f"{text}: {positions} positions wanted, {available} in whole windows of {length}")
    left = positions or available
    for window in whole:
        if left > 1:
            yield window[:left]
        left -= len(window)


# --------------------------------------------------------------------------------------------------------------------
# engines


class Truth:
    """Logits by transformers, kept in $LOCUTOR_REFERENCE/cache by the file's hash and the ids."""

    def __init__(self, path, use_cache):
        self.path = path
        self.model = None
        self.cache = peers.reference_root() / "cache" if use_cache else None
        with open(path, "rb") as file:
            self.digest = hashlib.file_digest(file, "sha256").hexdigest()

    def logits(self, ids):
        if self.cache is None:
            return self.compute(ids)
        key = hashlib.sha256(f"{self.digest} {ids}".encode()).hexdigest()[:24]
        path = self.cache / f"{self.path.stem}-{key}.npy"
        if not path.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            np.save(path.with_suffix(".part.npy"), self.compute(ids))
            path.with_suffix(".part.npy").rename(path)
        return np.load(path, mmap_mode="r")

    def compute(self, ids):
        if self.model is None:
            self.model = peers.transformers_model(self.path)
        return peers.transformers_logits(self.model, ids)


def locutor_logits(tool, model, ids, precision):
    """One run of the tool."""
    with tempfile.TemporaryDirectory() as temporary:
        raw = pathlib.Path(temporary, "logits")
        listed = ",".join(map(str, ids))
        peers.run_locutor(tool, "logits", "-m", model, "--ids", listed, "--all", "--raw", raw, "--precision", precision)
        return np.fromfile(raw, "<f4").reshape(len(ids), -1)


# --------------------------------------------------------------------------------------------------------------------
# figures


@dataclasses.dataclass
class Score:
    """Sums over positions."""

    positions: int = 0
    predictions: int = 0
    divergence: float = 0.0
    greatest: float = 0.0
    agree: int = 0
    nll: float = 0.0

    @property
    def mean_kl(self):
        return self.divergence / self.positions

    @property
    def top1(self):
        return self.agree / self.positions

    @property
    def perplexity(self):
        return float(np.exp(self.nll / self.predictions))

    def add(self, truth, other, following):
        """Adds rows of log-probabilities; `following` are the ids that came next, one fewer than rows at the end of a window."""
        divergence = peers.kl_divergence(truth, other)
        self.positions += len(other)
        self.divergence += divergence.sum()
        self.greatest = max(self.greatest, divergence.max())
        self.agree += int((truth.argmax(-1) == other.argmax(-1)).sum())
        self.predictions += len(following)
        self.nll -= other[np.arange(len(following)), following].sum()


def add_window(scores, ids, truth, engines):
    """Adds one window to the score of the truth and of each engine."""
    for name, logits in engines.items():
        if logits.shape != truth.shape:
            raise SystemExit(f"{name}: logits of shape {logits.shape} where the truth has {truth.shape}")
        if not np.isfinite(logits).all():
            raise SystemExit(f"{name}: logits that are not finite")
    for start in range(0, len(ids), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        following = ids[start + 1 : start + ROWS_AT_ONCE + 1]
        true_rows = peers.log_softmax(truth[rows])
        scores["truth"].add(true_rows, true_rows, following)
        for name, logits in engines.items():
            scores[name].add(true_rows, peers.log_softmax(logits[rows]), following)


def report(scores, as_json):
    if not as_json:
        print(
            f"{'engine':10} {'positions':>9} {'mean KL, nats':>14} {'greatest KL':>12} {'top-1':>8} {'perplexity':>11}"
        )
    for name, score in scores.items():
        if as_json:
            figures = {
                "engine": name,
                "positions": score.positions,
                "mean_kl_nats": score.mean_kl,
                "greatest_kl_nats": score.greatest,
            }
            print(json.dumps(figures | {"top1_agreement": score.top1, "perplexity": score.perplexity}))
        else:
            line = f"{name:10} {score.positions:9} {score.mean_kl:14.3e} {score.greatest:12.3e} {score.top1:8.3%} {score.perplexity:11.4f}"
            print(line)


def failed(scores, max_kl):
    """Prints what is wrong and returns whether anything is."""
    truth, llama, ours = scores["truth"], scores["llama.cpp"], scores["Locutor"]
    wrong = []
    if max_kl is not None:
        if not ours.mean_kl <= max_kl:
            wrong.append(f"mean KL {ours.mean_kl:.3e} is greater than {max_kl:.3e}")
    else:
        if not ours.mean_kl <= llama.mean_kl:
            wrong.append(f"mean KL {ours.mean_kl:.3e} is greater than llama.cpp's {llama.mean_kl:.3e}")
        if not ours.top1 >= llama.top1:
            wrong.append(f"top-1 agreement {ours.top1:.4%} is lower than llama.cpp's {llama.top1:.4%}")
    tolerance = PERPLEXITY_TOLERANCE * max(1.0, TOLERANCE_POSITIONS / truth.positions) ** 0.5
    if not abs(ours.perplexity / truth.perplexity - 1) <= tolerance:
        wrong.append(f"perplexity {ours.perplexity:.4f} is more than {tolerance:.2%} off {truth.perplexity:.4f}")
    for message in wrong:
        print(f"Locutor: {message}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    main()
