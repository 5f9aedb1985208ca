#!/usr/bin/env python3
"""Compares Locutor's tokenizer with the references that tools/tokenizer_reference.py made, in both directions.

For every family and every string: the ids with control texts as ordinary text (`tokenize --no-special`), the ids
with control texts as tokens and the tokens that the file wants at the ends (`tokenize`), and what the ids decode to
(`detokenize`). Prints a line for each family; the exit status is 1 if anything differs.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import peers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", nargs="*", help="a name in $LOCUTOR_REFERENCE/tokenizers; all if none")
    parser.add_argument("--show", type=int, default=3, metavar="N", help="print the first N differences of each kind")
    peers.add_tool_argument(parser)
    options = parser.parse_args()
    tool = peers.locutor(options.tool)
    directory = peers.reference_root() / "tokenizers"
    families = options.family or sorted(path.stem for path in directory.glob("*.jsonl"))
    if not families:
        raise SystemExit(f"{directory}: nothing there; run tools/tokenizer_reference.py")
    sys.exit(sum([check(tool, directory, family, options.show) for family in families]) > 0)


def check(tool, directory, family, show):
    """Checks one family and returns the number of differences."""
    with open(directory / f"{family}.jsonl", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    model = directory / f"{family}.gguf"
    before, after = ends(model)
    with tempfile.TemporaryDirectory() as temporary:
        texts, ids = pathlib.Path(temporary, "texts"), pathlib.Path(temporary, "ids")
        texts.write_text("".join(json.dumps(record["text"]) + "\n" for record in records))
        ids.write_text("".join(" ".join(map(str, record["plain"])) + "\n" for record in records))
        plain = run(tool, "tokenize", model, texts, "--no-special")
        special = run(tool, "tokenize", model, texts)
        back = run(tool, "detokenize", model, ids)
    counts = [
        differences("plain", show, records, plain, lambda record: spaced(record["plain"])),
        differences(
            "special", show, records, special, lambda r: spaced(with_ends(r.get("special", r["plain"]), before, after))
        ),
        differences("back", show, records, back, lambda record: record.get("back", record["text"]), json.loads),
    ]
    print(
        f"{family:10} {len(records)} strings; different ids: {counts[0]} plain, {counts[1]} special; different text: {counts[2]}"
    )
    return sum(counts)


def run(tool, command, model, path, *options):
    """The lines that the tool prints, one for each line of the file."""
    return peers.run_locutor(tool, command, "-m", model, "--json-lines", "-f", path, *options).decode().split("\n")[:-1]


def spaced(ids):
    return " ".join(map(str, ids))


def differences(kind, show, records, lines, expected, parse=str.strip):
    """Counts the records whose line is not the expected one; a missing or superfluous line counts."""
    count = abs(len(lines) - len(records))
    for record, line in zip(records, lines):
        want, found = expected(record), parse(line)
        if want != found:
            count += 1
            if count <= show:
                print(f"  {kind} {record['text']!r:.150}\n    expected {want!r:.300}\n    found    {found!r:.300}")
    return count


def with_ends(ids, before, after):
    """The ids with the tokens at the ends; a text that begins with the first of them does not get it twice."""
    return (before if ids[: len(before)] != before else []) + ids + after


def ends(model):
    """The ids that llama.cpp puts before and after a text, by the file's keys and its family's defaults."""
    with peers.Llama(model, vocab_only=True) as llama:
        lib, vocab = llama.lib, llama.vocab
        before = [lib.llama_vocab_bos(vocab)] if lib.llama_vocab_get_add_bos(vocab) else []
        after = [lib.llama_vocab_eos(vocab)] if lib.llama_vocab_get_add_eos(vocab) else []
    return before, after


if __name__ == "__main__":
    main()
