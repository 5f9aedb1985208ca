"""Filter the stories, train the tokenizer and write the token arrays that `train.py` reads.

Input: JSON-lines files with a "text" field. Sampled stories (--sampled) go through the quality filter; grammar stories
(--grammar) do not need it. Output in --out: tokenizer.json, {sampled,grammar}.{train,valid}.npy (stories joined by the
end-of-text token, uint16), vocabulary counts and a summary.json with the numbers.
"""

import argparse
import collections
import json
import random
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

EOS = "<|endoftext|>"
PLAIN = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2014": "-", "\u2013": "-"})
META = re.compile(r"(?i)\b(this story|the story|the moral|simple words|our story|readers?|paragraphs?|language|here are|"
                  r"humans?|god|kill\w*|dead|died|blood|guns?|beer|wine|sex\w*)\b|[0-9*#_<>\[\]()/]")
WORDS = re.compile(r"[A-Za-z']+")


def load(paths):
    return [json.loads(line) for path in paths for line in open(path, encoding="utf-8")]


def clean(text):
    """Plain quotes, tidy spaces, and no closing paragraph that talks about the story itself."""
    paragraphs = [re.sub(r"\s+", " ", p).strip() for p in text.translate(PLAIN).split("\n\n")]
    paragraphs = [p for p in paragraphs if p]
    while len(paragraphs) > 2 and META.search(paragraphs[-1]):
        paragraphs.pop()
    return "\n\n".join(paragraphs)


def repeats(words, n=4, limit=0.12):
    """True when too many n-grams of the story occur more than once."""
    grams = collections.Counter(zip(*(words[i:] for i in range(n))))
    extra = sum(c - 1 for c in grams.values())
    return extra > limit * max(1, len(words))


def acceptable(text, common, args):
    words = [w.lower() for w in WORDS.findall(text)]
    rare = sum(w not in common for w in words)
    return (args.min_words <= len(words) <= args.max_words and text.isascii() and not META.search(text)
            and text.count('"') % 2 == 0 and not repeats(words)
            and rare <= args.rare * len(words))


def to_last_sentence(text):
    """Drop the unfinished sentence, and with it an open quote."""
    ends = [m.end() for m in re.finditer(r'[.!?]"?(?=\s|$)', text)]
    while ends and text[: ends[-1]].count('"') % 2:
        ends.pop()
    return text[: ends[-1]] if ends else ""


def filter_sampled(records, args):
    """Keep plain stories that use common words.

    A story cut off by the sampling limit is kept when it is long: it fills a training row, so no end-of-text token
    ever follows its last sentence.
    """
    texts = [clean(r["text"]) for r in records]
    texts = [to_last_sentence(t) for r, t in zip(records, texts) if r["ended"] or len(t.split()) > args.cut_words]
    seen = collections.Counter(w for t in texts for w in {w.lower() for w in WORDS.findall(t)})
    common = {w for w, c in seen.items() if c >= args.common}
    kept = list(dict.fromkeys(t for t in texts if t and acceptable(t, common, args)))
    return kept


def train_tokenizer(texts, size):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[EOS], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(texts, trainer)
    return tok


def save_tokens(tok, texts, path):
    ids = []
    for encoding in tok.encode_batch(texts):
        ids += [tok.token_to_id(EOS)] + encoding.ids
    np.save(path, np.array(ids, dtype=np.uint16))
    return len(ids)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--sampled", type=Path, nargs="*", default=[])
    ap.add_argument("--grammar", type=Path, nargs="*", default=[])
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--tokenizer", type=Path, help="reuse this tokenizer.json")
    ap.add_argument("--vocab", type=int, default=2048)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--min-words", type=int, default=50)
    ap.add_argument("--max-words", type=int, default=280)
    ap.add_argument("--cut-words", type=int, default=195, help="a story that was cut off must have more words than this")
    ap.add_argument("--common", type=int, default=5, help="a word is common when this many sampled stories use it")
    ap.add_argument("--rare", type=float, default=0.04, help="largest share of words that are not common")
    args = ap.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    raw = load(args.sampled)
    sets = {"sampled": filter_sampled(raw, args), "grammar": [r["text"] for r in load(args.grammar)]}
    tok = Tokenizer.from_file(str(args.tokenizer)) if args.tokenizer else train_tokenizer(
        sets["sampled"] * 2 + sets["grammar"][:20000], args.vocab)
    tok.save(str(args.out / "tokenizer.json"))
    summary = {"sampled_raw": len(raw)}
    for name, texts in sets.items():
        random.Random(args.seed).shuffle(texts)
        held = min(200, len(texts) // 10)
        summary[name] = {"stories": len(texts), "valid_stories": held,
                         "train_tokens": save_tokens(tok, texts[held:], args.out / f"{name}.train.npy"),
                         "valid_tokens": save_tokens(tok, texts[:held], args.out / f"{name}.valid.npy")}
        (args.out / f"{name}.txt").write_text(f"\n{EOS}\n".join(texts), encoding="utf-8")
    (args.out / "summary.json").write_text(json.dumps(summary, indent=1))
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
