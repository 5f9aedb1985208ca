"""Write a checkpoint of `train.py` and its tokenizer as one GGUF v3 file (architecture gpt2).

Matrices become Q8_0, the position table F16, norms and biases F32. The head is tied: there is no output.weight.
"""

import argparse
import json
from pathlib import Path

import gguf
import torch
from gguf import GGMLQuantizationType as Type

EOS = "<|endoftext|>"
BLOCK = {"ln1": "attn_norm", "qkv": "attn_qkv", "out": "attn_output", "ln2": "ffn_norm", "up": "ffn_up",
         "down": "ffn_down"}
TOP = {"tok.weight": "token_embd.weight", "pos.weight": "position_embd.weight", "norm.weight": "output_norm.weight",
       "norm.bias": "output_norm.bias"}


def tensor_name(name):
    """blocks.3.qkv.weight -> blk.3.attn_qkv.weight"""
    if name in TOP:
        return TOP[name]
    _, index, part, kind = name.split(".")
    return f"blk.{index}.{BLOCK[part]}.{kind}"


def add_general(writer, args, params):
    writer.add_name(args.name)
    writer.add_description("A small GPT-2 that tells short children's stories in simple English.")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_languages(["en"])
    writer.add_size_label(f"{params / 1e6:.1f}M")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def add_shape(writer, config):
    writer.add_context_length(config["context"])
    writer.add_embedding_length(config["width"])
    writer.add_feed_forward_length(config["ff"])
    writer.add_block_count(config["layers"])
    writer.add_head_count(config["heads"])
    writer.add_layer_norm_eps(config["eps"])


def add_tokenizer(writer, path):
    model = json.loads(Path(path).read_text(encoding="utf-8"))["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    missing = set(gguf_bytes()) - set(tokens)
    if missing:
        raise SystemExit(f"the vocabulary lacks byte symbols: {sorted(missing)}")
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    types = [gguf.TokenType.CONTROL if t == EOS else gguf.TokenType.NORMAL for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index(EOS))
    writer.add_eos_token_id(tokens.index(EOS))
    writer.add_add_bos_token(False)


def gguf_bytes():
    """The 256 printable symbols that stand for bytes in GPT-2 vocabularies."""
    from tokenizers import pre_tokenizers
    return pre_tokenizers.ByteLevel.alphabet()


def tensor_type(name, tensor):
    if name == "pos.weight":
        return Type.F16
    return Type.Q8_0 if tensor.ndim == 2 else Type.F32


def add_tensors(writer, state):
    for name, tensor in state.items():
        kind = tensor_type(name, tensor)
        data = gguf.quants.quantize(tensor.float().numpy(), kind)
        writer.add_tensor(tensor_name(name), data, raw_dtype=kind)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--checkpoint", type=Path, required=True)
    ap.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json of prepare_data.py")
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--name", default="Locutor Story")
    args = ap.parse_args()
    saved = torch.load(args.checkpoint, map_location="cpu")
    params = sum(t.numel() for t in saved["model"].values())
    writer = gguf.GGUFWriter(str(args.out), "gpt2")
    add_general(writer, args, params)
    add_shape(writer, saved["config"])
    add_tokenizer(writer, args.tokenizer)
    add_tensors(writer, saved["model"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{args.out}: {args.out.stat().st_size} bytes, {params} parameters, {json.dumps(saved['info'])}")


if __name__ == "__main__":
    main()
