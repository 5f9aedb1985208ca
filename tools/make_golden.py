#!/usr/bin/env python3
"""Makes the golden files of tests/golden/: tiny models with the logits of transformers, and blocks of the quantised
types.

tests/golden/README.md describes the files. Everything is a function of fixed seeds. `--check` compares instead of
writing; both ways each model file is also read by llama.cpp and by transformers' own GGUF reader, and the figures
are printed.
"""

import argparse
import pathlib
import struct
import sys
import tempfile

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind

import peers
import tiny_models

N_IDS = 200
STORED_KINDS = [Kind.F16, Kind.BF16, Kind.Q8_0]  # in which the model STORED_MODEL is written as well
STORED_MODEL = "llama-gqa-tied"
STORED_IDS = 32
# By how much llama.cpp may differ from transformers, as a normalised mean squared error. It computes GELU from a table of
# half-precision values and Q8_0 with quantised activations; what is left has only the rounding of another order of sums.
LIMIT = {"gpt2": 1e-5, "gemma3": 1e-5, "llama": 1e-10, Kind.F16: 1e-5, Kind.BF16: 1e-4, Kind.Q8_0: 1e-3}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    peers.quiet_transformers()
    with tempfile.TemporaryDirectory() as temporary:
        made = pathlib.Path(temporary)
        write_quants(made / "quants.bin")
        for tiny in tiny_models.all_models():
            write_model(made, tiny)
        sys.exit(compare(made) if options.check else install(made))


def install(made):
    """Moves the files into place."""
    peers.GOLDEN.mkdir(parents=True, exist_ok=True)
    for path in sorted(made.iterdir()):
        (peers.GOLDEN / path.name).write_bytes(path.read_bytes())
    print(f"{sum(p.stat().st_size for p in made.iterdir()) / 1e6:.2f} MB in {peers.GOLDEN}")
    return 0


def compare(made):
    """1 if a file differs. Logits may differ by rounding, since torch picks its kernels by the machine."""
    different = 0
    for path in sorted(made.iterdir()):
        old, new = (peers.GOLDEN / path.name).read_bytes(), path.read_bytes()
        if old != new and not (path.suffix == ".logits" and nearly_equal(old, new)):
            print(f"{path.name}: differs", file=sys.stderr)
            different = 1
    return different


def nearly_equal(old, new):
    head = 16 + 4 * struct.unpack_from("<I", old, 8)[0]
    if len(old) != len(new) or old[:head] != new[:head]:
        return False
    return peers.nmse(np.frombuffer(old[head:], "<f4"), np.frombuffer(new[head:], "<f4")) < 1e-11


# --------------------------------------------------------------------------------------------------------------------
# models


def write_model(directory, tiny):
    """The model's GGUF file and its logits, and for one model the same in narrower types."""
    model = tiny.build()
    write_pair(directory, tiny, model, tiny.name, Kind.F32, N_IDS)
    if tiny.name == STORED_MODEL:
        for kind in STORED_KINDS:
            model = tiny.build()
            round_matrices(model, kind)
            write_pair(directory, tiny, model, f"{tiny.name}-{kind.name.lower()}", kind, STORED_IDS)


def write_pair(directory, tiny, model, name, kind, count):
    path = directory / f"{name}.gguf"
    tiny_models.write_gguf(path, tiny, model, kind)
    ids = np.random.default_rng(1000 + tiny.seed).integers(0, len(tiny.vocab), count, dtype=np.uint32)
    logits = peers.transformers_logits(model, ids.tolist())
    with open(directory / f"{name}.logits", "wb") as file:
        file.write(b"LCTLOGIT" + struct.pack("<II", *logits.shape))
        file.write(ids.astype("<u4").tobytes() + logits.astype("<f4").tobytes())
    cross_check(path, tiny, ids.tolist(), logits, kind)


def round_matrices(model, kind):
    """What a file of that kind keeps of the weights."""
    for parameter in model.parameters():
        if parameter.dim() == 2:
            stored = gguf.quants.quantize(parameter.detach().numpy(), kind)
            parameter.data.copy_(torch.from_numpy(gguf.quants.dequantize(stored, kind)))


def cross_check(path, tiny, ids, logits, kind):
    """Two other readers of the file must agree with the model it was made of."""
    with peers.Llama(path, context=256, kv_type=Kind.F32) as llama:
        llama_error = peers.nmse(logits, llama.logits(ids))
    limit = LIMIT.get(kind, LIMIT[tiny_models.gguf_architecture(tiny.config)])
    line = (
        f"{path.name:28} {path.stat().st_size:7} bytes, logits std {logits.std():.2f}, llama.cpp NMSE {llama_error:.1e}"
    )
    wrong = not llama_error < limit
    read_back = peers.transformers_model(path, **not_in_gguf(tiny.config))
    reader_error = peers.nmse(logits, peers.transformers_logits(read_back, ids))
    line += f", transformers' reader NMSE {reader_error:.1e}"
    wrong |= not reader_error < 1e-11
    print(line, flush=True)
    if wrong:
        raise SystemExit(f"{path.name}: the peers do not agree")


def not_in_gguf(config):
    """What transformers' reader takes from its defaults rather than from the file."""
    names = ["vocab_size", "n_positions", "rope_parameters", "layer_types", "query_pre_attn_scalar"]
    return {name: getattr(config, name) for name in names if name in config.to_dict()}


# --------------------------------------------------------------------------------------------------------------------
# quantised types

BLOCKS = 10
ROWS, COLUMNS = 12, 96
# where the half-precision scales lie in a block
SCALES = {
    Kind.Q8_0: [0],
    Kind.Q4_0: [0],
    Kind.Q4_1: [0, 2],
    Kind.Q5_0: [0],
    Kind.Q5_1: [0, 2],
    Kind.Q4_K: [0, 2],
    Kind.Q5_K: [0, 2],
    Kind.Q6_K: [208],
}


def write_quants(path):
    """Every entry of quants.bin."""
    rng = np.random.default_rng(20)
    entries = [(kind, 0, *random_blocks(rng, kind)) for kind in SCALES]
    entries += [(kind, 0, *all_floats(rng, kind)) for kind in (Kind.F16, Kind.BF16)]
    entries += [(kind, 1, *quantised_rows(rng, kind)) for kind in (Kind.Q8_0, Kind.Q4_0)]
    with open(path, "wb") as file:
        file.write(b"LCTQUANT" + struct.pack("<I", len(entries)))
        for kind, direction, data, values in entries:
            data, values = data.tobytes(), values.astype("<f4")
            head = (kind.name.encode(), direction, kind.value, *gguf.GGML_QUANT_SIZES[kind], len(data), values.size)
            file.write(struct.pack("<8sIIIIII", *head) + data + values.tobytes())


def random_blocks(rng, kind):
    """Random bytes but for the scales, which are ordinary numbers, with a few of the extremes that are still finite."""
    size = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for offset in SCALES[kind]:
        scales = rng.standard_normal(BLOCKS).astype(np.float16)
        scales[:6] = [0.0, -0.0, 65504, -65504, 6e-8, 6.1e-5]
        blocks[:, offset : offset + 2] = rng.permutation(scales).view(np.uint8).reshape(BLOCKS, 2)
    return blocks, gguf.quants.dequantize(blocks, kind)


def all_floats(rng, kind):
    """Random 16-bit patterns that are not infinite or NaN."""
    data = rng.integers(0, 65536, 1024, dtype=np.uint16)
    exponent = 0x7C00 if kind == Kind.F16 else 0x7F80
    data = data[(data & exponent) != exponent]
    data[:4] = [0, 0x8000, 1, exponent - 1]
    return data, gguf.quants.dequantize(data.view(np.uint8) if kind == Kind.BF16 else data, kind)


def quantised_rows(rng, kind):
    """Random rows of several magnitudes, and what quantising makes of them."""
    rows = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    rows *= 10.0 ** rng.integers(-4, 4, (ROWS, 1))
    rows[0] = 0
    return gguf.quants.quantize(rows, kind), rows


if __name__ == "__main__":
    main()
