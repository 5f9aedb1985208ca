"""Train the story model: a small GPT-2 with a tied head, on CPU.

Reads the arrays of `prepare_data.py`. Each row of a batch starts at the start of a story and is filled up with further
stories. Matrices are trained with Muon (momentum, made orthogonal by Newton-Schulz), everything else with AdamW. The
rate warms up, stays constant and falls linearly to zero at the end. A running mean of the weights is what gets
validated and saved, so that every checkpoint is usable.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Config:
    vocab: int = 2048
    context: int = 256
    width: int = 192
    layers: int = 5
    heads: int = 6
    ff: int = 768
    eps: float = 1e-5


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c.heads
        self.ln1, self.ln2 = nn.LayerNorm(c.width, eps=c.eps), nn.LayerNorm(c.width, eps=c.eps)
        self.qkv, self.out = nn.Linear(c.width, 3 * c.width), nn.Linear(c.width, c.width)
        self.up, self.down = nn.Linear(c.width, c.ff), nn.Linear(c.ff, c.width)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))


class StoryModel(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config = c
        self.tok, self.pos = nn.Embedding(c.vocab, c.width), nn.Embedding(c.context, c.width)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.width, eps=c.eps)
        for name, p in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(p)
            elif p.ndim == 2:
                scale = 1 / math.sqrt(2 * c.layers) if name.endswith(("out.weight", "down.weight")) else 1
                nn.init.normal_(p, std=0.02 * scale if p.shape[0] in (c.vocab, c.context) else 0.05 * scale)

    def forward(self, ids):
        x = self.tok(ids) + self.pos.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tok.weight)


def orthogonal(g, steps=5):
    """The Newton-Schulz iteration of Muon on a batch of matrices, in bfloat16 as its authors do."""
    x = (g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)).bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Momentum with orthogonal updates for matrices; a fused qkv matrix counts as three."""

    def __init__(self, params, rate, momentum=0.95, decay=0.05):
        self.params, self.rate, self.momentum, self.decay = list(params), rate, momentum, decay
        self.buffers = [torch.zeros_like(p) for p in self.params]

    @torch.no_grad()
    def step(self, scale):
        for p, buf in zip(self.params, self.buffers):
            buf.lerp_(p.grad, 1 - self.momentum)
            g = p.grad.lerp(buf, self.momentum)
            rows, cols = g.shape
            parts = rows // cols if rows == 3 * cols else 1
            update = orthogonal(g.view(parts, rows // parts, cols)).reshape(rows, cols)
            p.mul_(1 - self.rate * scale * self.decay)
            p.sub_(update, alpha=self.rate * scale * max(1, rows // parts / cols) ** 0.5)


class Stories:
    """Rows of stories drawn from several sets, each with its own share."""

    def __init__(self, paths, shares, seed):
        self.rng = np.random.default_rng(seed)
        self.sets, self.shares = [self.split(np.load(p)) for p in paths], np.array(shares) / sum(shares)
        self.queues = [[] for _ in self.sets]

    @staticmethod
    def split(ids):
        """Stories as arrays; each begins with the end-of-text token (id 0)."""
        starts = np.flatnonzero(ids == 0)
        return [ids[a:b].astype(np.int64) for a, b in zip(starts, [*starts[1:], len(ids)])]

    def story(self):
        which = self.rng.choice(len(self.sets), p=self.shares)
        if not self.queues[which]:
            self.queues[which] = list(self.rng.permutation(len(self.sets[which])))
        return self.sets[which][self.queues[which].pop()]

    def row(self, length):
        parts, total, skip = [], 0, int(self.rng.random() < 0.5)
        while total < length + skip:
            parts.append(self.story())
            total += len(parts[-1])
        return np.concatenate([*parts, [0]])[skip : length + skip]

    def batch(self, rows, length):
        ids = torch.from_numpy(np.stack([self.row(length + 1) for _ in range(rows)]))
        return ids[:, :-1], ids[:, 1:]


def loss_of(model, ids, targets, bf16):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logits = model(ids)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


@torch.no_grad()
def validate(model, data_dir, names, context):
    """Mean loss on the held-out stories of each set."""
    losses = {}
    for name in names:
        stories = Stories([data_dir / f"{name}.valid.npy"], [1], 0)
        losses[name] = round(sum(loss_of(model, *stories.batch(16, context), False).item() for _ in range(4)) / 4, 4)
    return losses


def save(path, model, mean, info):
    state = {k: mean[k].clone() for k in model.state_dict()}
    torch.save({"config": asdict(model.config), "model": state, "info": info}, str(path) + ".part")
    Path(str(path) + ".part").replace(path)


def rate_scale(progress, fall, warm=0.01):
    """Up over the first percent, constant, and down to zero over the last part."""
    down = (1 - progress) / fall if fall else 1.0
    return min(1.0, progress / warm, down)


@torch.no_grad()
def validate_mean(model, mean, args, names):
    """Validate the running mean, then put the trained weights back."""
    own = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(mean)
    losses = validate(model, args.data, names, args.context)
    model.load_state_dict(own)
    return losses


def train(args):
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    config = Config(args.vocab, args.context, args.width, args.layers, args.heads, 4 * args.width)
    model = StoryModel(config)
    if args.start:
        model.load_state_dict(torch.load(args.start)["model"])
    names = [n for n, share in (("grammar", args.grammar_share), ("sampled", 1 - args.grammar_share)) if share > 0]
    shares = [args.grammar_share, 1 - args.grammar_share] if len(names) == 2 else [1]
    stories = Stories([args.data / f"{n}.train.npy" for n in names], shares, args.seed)
    matrices = [p for n, p in model.blocks.named_parameters() if p.ndim == 2]
    others = [p for n, p in model.named_parameters() if not (n.startswith("blocks") and p.ndim == 2)]
    muon, adam = Muon(matrices, args.muon_rate), torch.optim.AdamW(others, lr=args.rate, betas=(0.9, 0.95),
                                                                     weight_decay=0.0)
    mean = {k: v.clone() for k, v in model.state_dict().items()}
    print(json.dumps({"params": sum(p.numel() for p in model.parameters()), **asdict(config)}), flush=True)
    fast = torch.compile(model) if args.compile else model
    start, step, running = time.time(), 0, None
    while True:
        elapsed = time.time() - start
        progress = min(1.0, max(step / args.steps, elapsed / (args.minutes * 60)))
        if progress >= 1.0:
            break
        scale = rate_scale(progress + 1e-3, args.fall)
        loss = loss_of(fast, *stories.batch(args.rows, args.context), args.bf16)
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = args.rate * scale
        adam.step()
        muon.step(scale)
        model.zero_grad()
        step += 1
        keep = min(0.995, step / (step + 10))
        for k, v in model.state_dict().items():
            mean[k].lerp_(v, 1 - keep)
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0:
            rate = step * args.rows * args.context / (time.time() - start)
            print(f"step {step} loss {running:.4f} tokens/s {rate:.0f} minutes {elapsed / 60:.1f}", flush=True)
        if step % args.save_every == 0:
            info = {"step": step, "train_loss": running, "valid": validate_mean(model, mean, args, names)}
            print(json.dumps(info), flush=True)
            save(args.out, model, mean, info)
    info = {"step": step, "train_loss": running, "valid": validate_mean(model, mean, args, names), "seed": args.seed}
    save(args.out, model, mean, info)
    print(json.dumps(info), flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True, help="directory written by prepare_data.py")
    ap.add_argument("--out", type=Path, required=True, help="checkpoint file")
    ap.add_argument("--start", type=Path, help="checkpoint to start from")
    ap.add_argument("--steps", type=int, default=100000)
    ap.add_argument("--minutes", type=float, default=60, help="end after this long, whatever --steps says")
    ap.add_argument("--rows", type=int, default=16, help="rows of `context` tokens in a batch")
    ap.add_argument("--grammar-share", type=float, default=0.6)
    ap.add_argument("--save-every", type=int, default=250)
    ap.add_argument("--muon-rate", type=float, default=0.015)
    ap.add_argument("--rate", type=float, default=3e-3)
    ap.add_argument("--fall", type=float, default=0.4, help="part of the run in which the rate falls to zero")
    ap.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    ap.add_argument("--compile", action="store_true", help="torch.compile: a minute or two to start, then faster")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--threads", type=int, default=1)
    for name in ("vocab", "context", "width", "layers", "heads"):
        ap.add_argument(f"--{name}", type=int, default=getattr(Config, name))
    train(ap.parse_args())


if __name__ == "__main__":
    main()
