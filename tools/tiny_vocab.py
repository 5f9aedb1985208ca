"""Vocabularies of a few hundred tokens that llama.cpp accepts, for models too small to carry a real one."""

import collections
import dataclasses

TEXT = (
    "The quick brown fox jumps over the lazy dog, then the other dogs bark at the fox. "
    "In the morning there is nothing that the thinking of the night has not been there before; and the rest is in it."
)
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


@dataclasses.dataclass
class Vocab:
    """Tokens with their types; either merges (byte-level BPE) or scores (SentencePiece); and the keys about them."""

    tokens: list
    types: list
    keys: dict
    merges: list = None
    scores: list = None
    pre: str = "default"

    def __len__(self):
        return len(self.tokens)

    def with_pre(self, pre):
        return dataclasses.replace(self, pre=pre)

    def for_gemma(self):
        """Gemma's order of the special tokens, and no space put before a text."""
        special = ["<pad>", "</s>", "<s>", "<unk>"]
        tokens = special + [token for token in self.tokens if token not in special]
        kinds = dict(zip(self.tokens, self.types)) | {"<pad>": CONTROL, "<unk>": CONTROL}
        scores = dict(zip(self.tokens, self.scores)) | {"<pad>": 0.0}
        keys = {"bos_token_id": 2, "eos_token_id": 1, "unk_token_id": 3, "pad_token_id": 0}
        keys |= {"add_bos_token": True, "add_eos_token": False, "add_space_prefix": False}
        return Vocab(tokens, [kinds[t] for t in tokens], keys, None, [scores[t] for t in tokens], self.pre)

    def write(self, writer):
        """Adds the tokenizer's keys to a GGUF file."""
        writer.add_tokenizer_model("gpt2" if self.merges is not None else "llama")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        writer.add_token_types(self.types)
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        for key, value in self.keys.items():
            getattr(writer, f"add_{key}")(value)


def byte_level(size, ascii_only=False):
    """A byte-level BPE vocabulary as GPT-2 has it; `ascii_only` leaves the other byte tokens out."""
    letters = byte_letters()
    alphabet = [letters[b] for b in range(256) if not ascii_only or b == 10 or 32 <= b < 127]
    words = [" " + word if i else word for i, word in enumerate(TEXT.split())]
    merges = learn_merges([[letters[b] for b in word.encode()] for word in words], size - len(alphabet) - 1)
    tokens = alphabet + ["".join(pair) for pair in merges] + ["<|endoftext|>"]
    keys = {"bos_token_id": size - 1, "eos_token_id": size - 1, "add_bos_token": False}
    types = [NORMAL] * (size - 1) + [CONTROL]
    return Vocab(tokens, types, keys, merges=[" ".join(pair) for pair in merges], pre="gpt-2")


def sentencepiece(size, fallback=True):
    """A SentencePiece BPE vocabulary as Llama 2 has it: special tokens, bytes (`fallback`), pieces by rank, characters."""
    special = ["<unk>", "<s>", "</s>"]
    fall_back = [f"<0x{b:02X}>" for b in range(256)] if fallback else []
    words = ["\u2581" + word for word in TEXT.split()]
    characters = sorted(set("".join(words)), key="".join(words).count, reverse=True) if fallback else ascii_characters()
    characters = characters[: size - 3 - len(fall_back)]
    merges = learn_merges([list(word) for word in words], size - 3 - len(fall_back) - len(characters))
    pieces = ["".join(pair) for pair in merges] + characters
    tokens = special + fall_back + pieces
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * len(fall_back) + [NORMAL] * len(pieces)
    scores = [0.0] * (3 + len(fall_back)) + [-float(rank) for rank in range(len(pieces))]
    keys = {"bos_token_id": 1, "eos_token_id": 2, "unk_token_id": 0, "add_bos_token": True, "add_eos_token": False}
    return Vocab(tokens, types, keys, scores=scores)


def ascii_characters():
    return ["\u2581", "\n"] + [chr(c) for c in range(33, 127)]


def byte_letters():
    """GPT-2's printable stand-in for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


def learn_merges(words, count):
    """The first `count` merges of plain BPE over `words` (lists of symbols); ties go to the lowest pair."""
    merges = []
    while len(merges) < count:
        pairs = collections.Counter(pair for word in words for pair in zip(word, word[1:]))
        known = {"".join(pair) for pair in merges}
        pair = min((p for p in pairs if "".join(p) not in known), key=lambda p: (-pairs[p], p))
        merges.append(pair)
        words = [apply_merge(word, pair) for word in words]
    return merges


def apply_merge(word, pair):
    """The word with every occurrence of the pair joined, from the left."""
    joined = []
    for symbol in word:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] = "".join(pair)
        else:
            joined.append(symbol)
    return joined
