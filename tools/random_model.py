#!/usr/bin/env python3
"""Writes a GGUF file of a known shape with random weights in F16, and with the tokenizer of another file.

What such a model says means nothing; how fast an engine runs it does not depend on that.
"""

import argparse
import pathlib

import dequantize_gguf
import gguf
import numpy as np

DEVIATION = 0.02


class Gpt2:
    """GPT-2 124M: tied head, learned positions."""

    architecture, layers, width, inner, heads, context = "gpt2", 12, 768, 3072, 12, 1024

    def metadata(self, writer):
        common(writer, self)
        writer.add_head_count(self.heads)
        writer.add_layer_norm_eps(1e-5)

    def tensors(self, vocab):
        yield "token_embd.weight", (vocab, self.width)
        yield "position_embd.weight", (self.context, self.width)
        yield from norm("output_norm", self.width, bias=True)
        for n in range(self.layers):
            for name in ("attn_norm", "ffn_norm"):
                yield from norm(f"blk.{n}.{name}", self.width, bias=True)
            for name, rows, columns in (
                ("attn_qkv", 3 * self.width, self.width),
                ("attn_output", self.width, self.width),
                ("ffn_up", self.inner, self.width),
                ("ffn_down", self.width, self.inner),
            ):
                yield f"blk.{n}.{name}.weight", (rows, columns)
                yield f"blk.{n}.{name}.bias", (rows,)


class Llama:
    """The shape of TinyLlama 1.1B with a vocabulary as large as the tokenizer's; the head is a matrix of its own."""

    architecture, layers, width, inner, heads, groups, context = "llama", 22, 2048, 5632, 32, 4, 2048

    def metadata(self, writer):
        common(writer, self)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.groups)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_dimension_count(self.width // self.heads)
        writer.add_rope_freq_base(10000.0)

    def tensors(self, vocab):
        kv = self.width // self.heads * self.groups
        yield "token_embd.weight", (vocab, self.width)
        yield "output.weight", (vocab, self.width)
        yield from norm("output_norm", self.width)
        for n in range(self.layers):
            for name in ("attn_norm", "ffn_norm"):
                yield from norm(f"blk.{n}.{name}", self.width)
            for name, rows, columns in (
                ("attn_q", self.width, self.width),
                ("attn_k", kv, self.width),
                ("attn_v", kv, self.width),
                ("attn_output", self.width, self.width),
                ("ffn_gate", self.inner, self.width),
                ("ffn_up", self.inner, self.width),
                ("ffn_down", self.width, self.inner),
            ):
                yield f"blk.{n}.{name}.weight", (rows, columns)


SHAPES = {"gpt2-124m": Gpt2, "llama-1.1b": Llama}


def common(writer, shape):
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def norm(name, width, bias=False):
    yield f"{name}.weight", (width,)
    if bias:
        yield f"{name}.bias", (width,)


def values(name, shape, rng):
    """Normally distributed; the weights of norms lie around 1."""
    drawn = rng.standard_normal(shape, dtype=np.float32) * DEVIATION
    if name.endswith("norm.weight"):
        drawn += 1
    return drawn if len(shape) == 1 else drawn.astype(np.float16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("output", type=pathlib.Path, metavar="OUT")
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True, metavar="FILE", help="a GGUF file")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    options = parser.parse_args()
    shape = SHAPES[options.shape]()
    tokenizer = gguf.GGUFReader(options.tokenizer)
    vocab = len(tokenizer.fields["tokenizer.ggml.tokens"].data)
    part = options.output.with_name(options.output.name + ".part")
    writer = gguf.GGUFWriter(part, shape.architecture)
    shape.metadata(writer)
    writer.add_vocab_size(vocab)
    dequantize_gguf.copy_fields(tokenizer, writer, lambda name: name.startswith("tokenizer."))
    tensors = list(shape.tensors(vocab))
    for name, dimensions in tensors:
        element = np.dtype(np.float32 if len(dimensions) == 1 else np.float16)
        writer.add_tensor_info(name, dimensions, element, int(np.prod(dimensions)) * element.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(options.seed)
    for name, dimensions in tensors:
        writer.write_tensor_data(values(name, dimensions, rng))
    writer.close()
    part.rename(options.output)


if __name__ == "__main__":
    main()
