#!/usr/bin/env python3
"""Writes what the tokenizers of each family make of the corpus of tools/corpus.py.

The vocabularies are the real ones that `tools/reference.sh models vocabs` provides. For each family, into
$LOCUTOR_REFERENCE/tokenizers/:

  FAMILY.gguf     a link to the file with the vocabulary
  FAMILY.jsonl    a line for each string: {"text": …, "plain": [ids], "special": [ids], "back": …}

`plain` takes the texts of control tokens as ordinary text; `special`, which is left out where it is the same, as
the tokens they name; neither has a token added at the ends. `back` is what the ids of `plain` decode to, and is
left out where that is the text again.

The truth for byte-level BPE is Hugging Face `tokenizers`, with the pre-tokenizer each family's own tokenizer.json
has, built from the vocabulary and merges of the GGUF file. The truth for SentencePiece is Google's `sentencepiece`,
with a model built from the pieces and scores of the GGUF file; there each stretch between control tokens is a text
of its own and has its own space put before it, as in Meta's code and in Llama 2's tokenizer.json.

llama.cpp reads the same file and must agree but for what EXPLAINED lists, else the exit status is 1. In each case
listed the truth is the software the model was trained with:

  - llama.cpp makes a control token of any token whose text is that of some model's end of text. So `</s>` in Qwen's
    vocabulary, an ordinary token there, is matched; and in Gemma's, where the user-defined token is HTML's, it is
    not.
  - sentencepiece replaces spaces by U+2581 before it looks for user-defined pieces, so that U+2581 in a text is a
    space. Gemma has user-defined pieces for runs of spaces; llama.cpp finds them in spaces only.

Besides: a GGUF file does not say that Qwen's tokenizer.json normalises to NFC. These ids are those without
normalising, in both programs. Not every vocabulary has a token for every byte (SmolLM2's lacks some control
characters); both programs then drop the byte.
"""

import argparse
import json
import os
import re
import sys

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import gguf
import sentencepiece
import sentencepiece.sentencepiece_model_pb2 as sentencepiece_model
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

import corpus
import peers

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
FAMILIES = {
    "gpt-2": "vocabs/ggml-vocab-gpt-2.gguf",
    "smollm": "models/SmolLM2-135M-Instruct.Q4_1.gguf",
    "llama-bpe": "vocabs/ggml-vocab-llama-bpe.gguf",
    "qwen2": "vocabs/ggml-vocab-qwen2.gguf",
    "llama-spm": "vocabs/ggml-vocab-llama-spm.gguf",
    "gemma3": "models/gemma-3-270m-Q4_K_M.gguf",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", nargs="*", default=list(FAMILIES), help=f"one of {', '.join(FAMILIES)}; all if none")
    parser.add_argument(
        "--differences", type=int, default=0, metavar="N", help="print the first N strings llama.cpp differs on"
    )
    options = parser.parse_args()
    texts = corpus.strings()
    directory = peers.reference_root() / "tokenizers"
    directory.mkdir(parents=True, exist_ok=True)
    unexplained = 0
    for family in options.family:
        source = peers.reference_root() / FAMILIES[family]
        link = directory / f"{family}.gguf"
        link.unlink(missing_ok=True)
        link.symlink_to(source)
        records = reference(family, Fields(source), texts)
        with open(directory / f"{family}.jsonl", "w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(record, ensure_ascii=True, separators=(",", ":")) + "\n" for record in records)
        unexplained += compare_with_llama(family, source, records, options.differences)
    sys.exit(unexplained > 0)


class Fields:
    """The tokenizer's part of a GGUF file's metadata."""

    def __init__(self, path):
        fields = gguf.GGUFReader(path).fields
        get = lambda key, default=None: (
            fields[f"tokenizer.ggml.{key}"].contents() if f"tokenizer.ggml.{key}" in fields else default
        )
        self.model = get("model")
        self.tokens = get("tokens")
        self.types = get("token_type")
        self.scores = get("scores")
        self.merges = get("merges")
        self.unknown = get("unknown_token_id")
        self.space_prefix = get("add_space_prefix", self.model == "llama")

    def of_type(self, *types):
        """Pairs of id and text."""
        return [(i, text) for i, text in enumerate(self.tokens) if self.types[i] in types]


def reference(family, fields, texts):
    """The record of each string."""
    make = SentencePiece if fields.model == "llama" else lambda fields, special: ByteLevel(family, fields, special)
    plain, special = make(fields, False), make(fields, True)
    records = []
    for text in texts:
        record = {"text": text, "plain": plain.encode(text)}
        if (ids := special.encode(text)) != record["plain"]:
            record["special"] = ids
        if (back := plain.decode(record["plain"])) != text:
            record["back"] = back
        records.append(record)
    return records


# --------------------------------------------------------------------------------------------------------------------
# byte-level BPE


class ByteLevel:
    """Hugging Face's tokenizer of a byte-level BPE family."""

    def __init__(self, family, fields, special):
        vocab = {text: i for i, text in enumerate(fields.tokens)}
        merges = [tuple(merge.split(" ")) for merge in fields.merges]
        model = models.BPE(vocab, merges, ignore_merges=family == "llama-bpe")
        self.tokenizer = tokenizers.Tokenizer(model)
        self.tokenizer.pre_tokenizer = pre_tokenizer(family)
        self.tokenizer.decoder = decoders.ByteLevel()
        added = fields.of_type(USER_DEFINED, CONTROL) if special else fields.of_type(USER_DEFINED)
        self.tokenizer.add_tokens([tokenizers.AddedToken(text, normalized=False) for _, text in added])

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False)


def pre_tokenizer(family):
    """As in the family's tokenizer.json."""
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if family == "gpt-2":
        return plain
    if family == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    expression = {"llama-bpe": LLAMA3, "qwen2": LLAMA3.replace("{1,3}", "")}[family]
    split = pre_tokenizers.Split(tokenizers.Regex(expression), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


# --------------------------------------------------------------------------------------------------------------------
# SentencePiece


class SentencePiece:
    """Google's tokenizer with the pieces of a GGUF file."""

    def __init__(self, fields, special):
        model = sentencepiece_model.ModelProto()
        for i, (text, score, kind) in enumerate(zip(fields.tokens, fields.scores, fields.types)):
            if i == fields.unknown:
                kind = UNKNOWN  # exactly one must be; some files call it a control token
            if kind == USER_DEFINED:
                text = text.replace(" ", "\u2581")  # which llama.cpp's converter had undone
            model.pieces.add(piece=text, score=score, type=kind)  # GGUF has taken its numbers from here
        model.trainer_spec.model_type = sentencepiece_model.TrainerSpec.BPE
        model.trainer_spec.byte_fallback = True
        model.trainer_spec.unk_piece = fields.tokens[fields.unknown]
        model.normalizer_spec.name = "identity"
        model.normalizer_spec.add_dummy_prefix = fields.space_prefix
        model.normalizer_spec.remove_extra_whitespaces = False
        model.normalizer_spec.escape_whitespaces = True
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
        self.control = dict(reversed(pair) for pair in fields.of_type(CONTROL, UNKNOWN)) if special else {}
        longest_first = sorted(self.control, key=len, reverse=True)
        self.split = (
            re.compile("(" + "|".join(map(re.escape, longest_first)) + ")").split if special else lambda text: [text]
        )

    def encode(self, text):
        """Each stretch between control tokens is a text of its own, as in Meta's code and in Llama 2's tokenizer.json."""
        ids = []
        for part in self.split(text):
            ids += [self.control[part]] if part in self.control else self.processor.encode(part)
        return ids

    def decode(self, ids):
        return self.processor.decode(ids)


# --------------------------------------------------------------------------------------------------------------------


EXPLAINED = {"qwen2": "</s>", "gemma3": "</s>|[ \u2581]\u2581|\u2581 "}


def compare_with_llama(family, path, records, show):
    """Prints on how many strings llama.cpp differs, and returns how many of them are not explained."""
    explained = re.compile(EXPLAINED.get(family, "(?!)")).search
    counts = {True: 0, False: 0}
    with peers.Llama(path, vocab_only=True) as llama:
        for record in records:
            text = record["text"]
            for mode in ("plain", "special"):
                expected = record.get(mode, record["plain"])
                found = list(llama.tokenize(text, special=mode == "special"))
                if found == expected:
                    continue
                counts[bool(explained(text))] += 1
                if not explained(text) and counts[False] <= show:
                    print(f"  {mode} {text!r:.200}\n    expected  {expected[:40]}\n    llama.cpp {found[:40]}")
    print(
        f"{family:10} {len(records)} strings; llama.cpp differs {counts[True]} times as explained, {counts[False]} times not",
        flush=True,
    )
    return counts[False]


if __name__ == "__main__":
    main()
