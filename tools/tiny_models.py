"""Tiny transformers models with random weights, and the GGUF files llama.cpp's converter would make of them."""

import dataclasses
import math
from typing import Any, Callable

import gguf
import numpy as np
import torch
import transformers

import tiny_vocab

CONTEXT = 256


@dataclasses.dataclass
class Tiny:
    """One tiny model: how transformers builds it and what its GGUF file says."""

    name: str
    config: Any
    vocab: tiny_vocab.Vocab
    write_metadata: Callable
    tensors: Callable
    seed: int
    extra: dict = dataclasses.field(default_factory=dict)

    def build(self):
        """The model, with the weights that its seed gives."""
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(
            self.config, dtype=torch.float32, attn_implementation="eager"
        )
        randomise(model, np.random.default_rng(self.seed), gemma=self.config.model_type.startswith("gemma"))
        return model.eval()


# --------------------------------------------------------------------------------------------------------------------
# weights


def randomise(model, rng, gemma):
    """Weights under which every part matters: logits and attention scores of a sane spread, no norm or bias trivial."""
    done = set()
    for name, parameter in model.named_parameters():
        if parameter.data_ptr() in done:
            continue
        done.add(parameter.data_ptr())
        values = rng.standard_normal(parameter.shape, dtype=np.float32)
        values = torch.from_numpy(values * np.float32(spread(name, parameter.shape)))
        if name.endswith("weight") and parameter.dim() == 1 and not gemma:
            values += 1
        parameter.data.copy_(values)


def spread(name, shape):
    """The standard deviation for a parameter."""
    if len(shape) == 1:
        return 0.3
    if "wpe" in name:
        return 0.3
    if "embed" in name or "wte" in name or "lm_head" in name:
        return 2 / math.sqrt(shape[1])
    fan_in = shape[0] if ".c_" in name else shape[1]  # GPT-2 keeps its matrices transposed
    return (1.5 if any(part in name for part in ("q_proj", "k_proj", "c_attn")) else 1.0) / math.sqrt(fan_in)


# --------------------------------------------------------------------------------------------------------------------
# GGUF


def write_gguf(path, tiny, model, kind=gguf.GGMLQuantizationType.F32):
    """Writes the file; matrices as `kind`, vectors as F32, which is what the converter does."""
    writer = gguf.GGUFWriter(path, gguf_architecture(tiny.config))
    writer.add_type("model")
    writer.add_name(tiny.name)
    tiny.write_metadata(writer, tiny.config)
    for key, value in tiny.extra.items():
        writer.add_uint32(key, value)
    writer.add_file_type(FILE_TYPES[kind])
    tiny.vocab.write(writer)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for name, tensor in tiny.tensors(model):
        values = np.ascontiguousarray(tensor.detach().numpy())
        use = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, use), raw_dtype=use)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


FILE_TYPES = {
    gguf.GGMLQuantizationType.F32: gguf.LlamaFileType.ALL_F32,
    gguf.GGMLQuantizationType.F16: gguf.LlamaFileType.MOSTLY_F16,
    gguf.GGMLQuantizationType.BF16: gguf.LlamaFileType.MOSTLY_BF16,
    gguf.GGMLQuantizationType.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
}


def gguf_architecture(config):
    return {"gpt2": "gpt2", "llama": "llama", "gemma3_text": "gemma3"}[config.model_type]


def renamed(model, names):
    """Pairs of GGUF name and tensor; `names` maps a parameter's name without its layer to the GGUF name."""
    for name, tensor in model.named_parameters():  # each tied tensor once, under its first name
        stem, _, suffix = name.removeprefix("model.").removeprefix("transformer.").rpartition(".")
        parts = stem.split(".")
        block = f"blk.{parts[1]}." if parts[0] in ("h", "layers") else ""
        stem = ".".join(parts[2:] if block else parts)
        yield f"{block}{names[stem]}.{suffix}", tensor


# GPT-2 -------------------------------------------------------------------------------------------------------------

GPT2_NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "ln_f": "output_norm",
    "lm_head": "output",
}


def gpt2_metadata(writer, config):
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def gpt2_tensors(model):
    for name, tensor in renamed(model, GPT2_NAMES):
        if tensor.dim() == 2 and name.startswith("blk."):
            tensor = tensor.T
        yield name, tensor


# Llama -------------------------------------------------------------------------------------------------------------

LLAMA_NAMES = {
    "embed_tokens": "token_embd",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "norm": "output_norm",
    "lm_head": "output",
}


def llama_metadata(writer, config):
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(config.head_dim)
    if config.rope_parameters["rope_type"] == "llama3":  # files of that age have these, older ones do not
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)


def llama_tensors(model):
    config = model.config
    for name, tensor in renamed(model, LLAMA_NAMES):
        if ".attn_q." in name:
            tensor = interleave_halves(tensor, config.num_attention_heads)
        elif ".attn_k." in name:
            tensor = interleave_halves(tensor, config.num_key_value_heads)
        yield name, tensor
    if config.rope_parameters["rope_type"] == "llama3":
        yield "rope_freqs.weight", llama3_factors(config)


def interleave_halves(rows, heads):
    """Each head's rows in the order 0, d/2, 1, d/2 + 1, …: the layout of a rotation that pairs neighbours."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(rows.shape)


def llama3_factors(config):
    """By how much Llama 3 divides each rotation frequency: not at all if it turns often within the original context, by
    the full factor if it hardly turns, and in between by what makes the frequency go over smoothly."""
    rope = config.rope_parameters
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    turns = rope["original_max_position_embeddings"] / rope["rope_theta"] ** exponents / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


# Gemma 3 -----------------------------------------------------------------------------------------------------------

GEMMA3_NAMES = LLAMA_NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}


LOCAL_ROPE_DEFAULT = 10000.0


def gemma3_metadata(writer, config):
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    if (local := config.rope_parameters["sliding_attention"]["rope_theta"]) != LOCAL_ROPE_DEFAULT:
        writer.add_rope_freq_base_swa(local)  # older files never have it, newer ones always
    writer.add_sliding_window(config.sliding_window)
    writer.add_head_count_kv(config.num_key_value_heads)


def gemma3_tensors(model):
    for name, tensor in renamed(model, GEMMA3_NAMES):
        yield name, tensor + 1 if name.endswith("norm.weight") else tensor  # transformers multiplies by 1 + weight


# --------------------------------------------------------------------------------------------------------------------
# the models


def gpt2(name, seed, vocab, **shape):
    config = transformers.GPT2Config(vocab_size=len(vocab), n_positions=208, **shape)
    return Tiny(name, config, vocab, gpt2_metadata, gpt2_tensors, seed)


def llama(name, seed, vocab, **shape):
    shape["head_dim"] = shape["hidden_size"] // shape["num_attention_heads"]
    config = transformers.LlamaConfig(vocab_size=len(vocab), max_position_embeddings=CONTEXT, **shape)
    return Tiny(name, config, vocab, llama_metadata, llama_tensors, seed)


def gemma3(name, seed, vocab, extra=None, **shape):
    config = transformers.Gemma3TextConfig(
        vocab_size=len(vocab), max_position_embeddings=CONTEXT, query_pre_attn_scalar=shape["head_dim"], **shape
    )
    return Tiny(name, config, vocab, gemma3_metadata, gemma3_tensors, seed, extra or {})


def all_models():
    """Every model. Sizes are small and awkward on purpose: odd vocabularies, a head dimension of 12, a ragged last tile."""
    ascii_bpe, full_bpe = tiny_vocab.byte_level(139, ascii_only=True), tiny_vocab.byte_level(261)
    ascii_spm, full_spm = tiny_vocab.sentencepiece(133, fallback=False), tiny_vocab.sentencepiece(267)
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    llama3 = {
        "rope_type": "llama3",
        "rope_theta": 2000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    return [
        gpt2("gpt2-tied", 1, full_bpe, n_embd=32, n_layer=2, n_head=4),
        gpt2("gpt2-head", 2, ascii_bpe, n_embd=24, n_layer=3, n_head=2, tie_word_embeddings=False),
        llama(
            "llama-gqa-tied",
            3,
            ascii_bpe.with_pre("smollm"),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            rope_parameters=rope | {"rope_theta": 100000.0},
            rms_norm_eps=1e-5,
        ),
        llama(
            "llama-head",
            4,
            full_spm,
            hidden_size=36,
            intermediate_size=72,
            num_hidden_layers=2,
            num_attention_heads=3,
            num_key_value_heads=1,
            tie_word_embeddings=False,
            rope_parameters=rope,
            rms_norm_eps=1e-6,
        ),
        llama(
            "llama3-rope",
            5,
            ascii_bpe.with_pre("llama-bpe"),
            hidden_size=64,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            rope_parameters=llama3,
            rms_norm_eps=1e-5,
        ),
        gemma3(
            "gemma3",
            6,
            ascii_spm.for_gemma(),
            hidden_size=32,
            intermediate_size=36,
            num_hidden_layers=7,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=12,
            sliding_window=32,
        ),
        gemma3(
            "gemma3-pattern",
            7,
            ascii_spm.for_gemma(),
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            sliding_window=24,
            sliding_window_pattern=2,
            extra={"gemma3.attention.sliding_window_pattern": 2},
            rope_parameters={
                "full_attention": rope | {"rope_theta": 500000.0},
                "sliding_attention": rope | {"rope_theta": 2000.0},
            },
        ),
    ]
