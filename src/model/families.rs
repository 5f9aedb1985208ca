//! One short function a family: a base, and what differs from it.

use super::ModelError;
use super::read_spec::Keys;
use super::spec::*;
use crate::kernels::{Activation, RopePairs};

impl Family {
    /// All families.
    pub const ALL: [Family; 3] = [Family::Gpt2, Family::Llama, Family::Gemma3];

    /// The name in `general.architecture`, and the prefix of its keys.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Gpt2 => "gpt2",
            Family::Llama => "llama",
            Family::Gemma3 => "gemma3",
        }
    }

    /// Fills the descriptor from the metadata.
    pub(super) fn spec(self, keys: &Keys<'_, '_>) -> Result<ModelSpec, ModelError> {
        match self {
            Family::Gpt2 => gpt2(keys),
            Family::Llama => llama(keys),
            Family::Gemma3 => gemma3(keys),
        }
    }
}

/// What every family has: the sizes, and the plainest choice of everything else.
fn base(keys: &Keys<'_, '_>) -> Result<ModelSpec, ModelError> {
    let embd = keys.length("embedding_length", 1 << 20)?;
    let heads = keys.length("attention.head_count", 1 << 12)?;
    let kv_heads = keys.length_or("attention.head_count_kv", heads, 1 << 12)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(keys.bad(
            "attention.head_count_kv",
            kv_heads as f64,
            "a divisor of attention.head_count",
        ));
    }
    let by_heads = if embd.is_multiple_of(heads) { embd.checked_div(heads).unwrap_or(0) } else { 0 };
    let dim_k = keys.length_or("attention.key_length", by_heads, 1024)?;
    let dim_v = keys.length_or("attention.value_length", by_heads, 1024)?;
    if dim_k == 0 || dim_v == 0 || dim_k > 1024 || dim_v > 1024 {
        return Err(keys.bad(
            "attention.head_count",
            heads as f64,
            "a divisor of embedding_length, heads of at most 1024",
        ));
    }
    Ok(ModelSpec {
        family: keys.family,
        stack: Stack::Decoder,
        vocab: keys.vocab,
        context: keys.length("context_length", 1 << 30)?,
        embd,
        layers: keys.length("block_count", 512)?,
        heads,
        kv_heads,
        dim_k,
        dim_v,
        ff: keys.length("feed_forward_length", 1 << 22)?,
        norm: NormKind::Rms,
        norm_eps: 0.0,
        norm_place: NormPlace::Before,
        embed_norm: false,
        residual: Residual::Sequential,
        position: Position::Learned,
        window: Window::None,
        qkv: QkvLayout::Separate,
        biases: Biases::default(),
        qk_norm: QkNorm::None,
        attention_scale: crate::math::sqrt(1.0 / dim_k as f32),
        attention_softcap: 0.0,
        sinks: false,
        mlp: Mlp::Plain,
        activation: Activation::GeluTanh,
        embed_scale: 1.0,
        logit_scale: 1.0,
        logit_softcap: 0.0,
        tied: keys.tied,
    })
}

/// GPT-2: LayerNorm, a table of positions, fused qkv, biases everywhere but at the head.
fn gpt2(keys: &Keys<'_, '_>) -> Result<ModelSpec, ModelError> {
    Ok(ModelSpec {
        norm: NormKind::Layer,
        norm_eps: keys.epsilon("attention.layer_norm_epsilon")?,
        qkv: QkvLayout::Fused,
        biases: Biases { qkv: true, output: true, mlp: true, head: false },
        ..base(keys)?
    })
}

/// Llama: RMSNorm, rotated interleaved pairs (rows of q and k are permuted by the converter), SwiGLU.
fn llama(keys: &Keys<'_, '_>) -> Result<ModelSpec, ModelError> {
    let base = base(keys)?;
    keys.no_experts()?;
    let mut rope = keys.rope(RopePairs::Interleaved, base.dim_k, 10_000.0)?;
    if keys.has_rope_factors {
        rope.scaling = RopeScaling::Factors;
    }
    Ok(ModelSpec {
        norm_eps: keys.epsilon("attention.layer_norm_rms_epsilon")?,
        position: Position::Rope { full: rope, windowed: rope },
        mlp: Mlp::Gated,
        activation: Activation::Silu,
        ..base
    })
}

/// Gemma 3: norms around, normed queries and keys, GeGLU, scaled embedding; five windowed layers to one full layer,
/// each kind with a rotation of its own.
fn gemma3(keys: &Keys<'_, '_>) -> Result<ModelSpec, ModelError> {
    let base = base(keys)?;
    let full = keys.rope(RopePairs::Halves, base.dim_k, 1_000_000.0)?;
    let local = keys.positive_or("rope.freq_base_swa", 10_000.0)?;
    let size = keys.length_or("attention.sliding_window", 0, 1 << 30)?;
    let period = keys.window_period(base.layers, 6)?;
    // The 27B model scales by the width of its heads' share of the embedding (Gemma 3 report, table 1).
    let scale_dim = if base.layers == 62 { base.embd / base.heads.max(1) } else { base.dim_k };
    Ok(ModelSpec {
        norm_eps: keys.epsilon("attention.layer_norm_rms_epsilon")?,
        norm_place: NormPlace::Around,
        position: Position::Rope { full, windowed: Rope { base: local, scaling: RopeScaling::None, ..full } },
        window: if size == 0 { Window::None } else { Window::Pattern { size, period } },
        qk_norm: QkNorm::PerHead,
        attention_scale: crate::math::sqrt(1.0 / scale_dim as f32),
        attention_softcap: keys.cap("attn_logit_softcapping")?,
        mlp: Mlp::Gated,
        embed_scale: crate::math::sqrt(base.embd as f32),
        logit_softcap: keys.cap("final_logit_softcapping")?,
        ..base
    })
}
