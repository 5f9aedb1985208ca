//! The descriptor of a model: everything that tells one architecture from another, as data.
//!
//! `super::families` fills it from a file's metadata, [`super::names`] derives every tensor's shape from it, and
//! [`super::forward`] is the one program that runs it. Values that no forward phase exists for yet are refused by
//! [`ModelSpec::check`], with their name; they are here so that a new family is a row of data and a phase, never a
//! second descriptor.

use super::ModelError;
use crate::kernels::{Activation, RopePairs};

/// Architecture families, by their `general.architecture`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// GPT-2 (Radford et al. 2019).
    Gpt2,
    /// Llama 1 to 3, TinyLlama, SmolLM2 (Touvron et al. 2023).
    Llama,
    /// Gemma 3, text only (Gemma Team 2025).
    Gemma3,
}

/// Stacks of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// One causal stack: every GPT.
    Decoder,
    /// An encoder and a decoder with cross-attention (T5).
    EncoderDecoder {
        /// Layers of the encoder; `layers` counts the decoder's.
        encoder_layers: usize,
    },
}

/// What a norm computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square, with a weight.
    Rms,
    /// Mean and variance, with weight and bias.
    Layer,
    /// Mean and variance without parameters (OLMo 1).
    LayerPlain,
}

/// Where a layer's norms stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlace {
    /// Before attention and MLP.
    Before,
    /// Behind attention and MLP, before the residual sum (OLMo 2).
    Behind,
    /// Both (Gemma 2 and 3).
    Around,
}

/// How attention and MLP join the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// One after the other.
    Sequential,
    /// Both from the layer's input; with one norm for both or two (GPT-J, GPT-NeoX, Phi).
    Parallel {
        /// Whether attention and MLP read the same norm.
        one_norm: bool,
    },
}

/// How frequencies of a rotation are changed for contexts beyond the trained one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions divided by a factor.
    Linear(f32),
    /// One divisor a frequency, in the tensor `rope_freqs` (Llama 3).
    Factors,
    /// YaRN (Peng et al. 2023).
    Yarn {
        /// Context extension.
        factor: f32,
        /// Trained context.
        original: usize,
    },
    /// Two tensors of divisors, chosen by the context's length (Phi 3).
    Long {
        /// Trained context.
        original: usize,
    },
}

/// A rotation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Which values make a pair.
    pub pairs: RopePairs,
    /// Rotated values of a head; even, at most the key's.
    pub dims: usize,
    /// Frequency `i` is `base^(-2i/dims)`.
    pub base: f32,
    /// Its change.
    pub scaling: RopeScaling,
}

/// Where positions enter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Position {
    /// A table of embeddings added to the input. The table is a hard limit of the context.
    Learned,
    /// Rotated queries and keys.
    Rope {
        /// Of layers that see the whole context.
        full: Rope,
        /// Of layers that see a window.
        windowed: Rope,
    },
    /// Distance-dependent bias of the scores, by head (ALiBi).
    Alibi,
    /// Learned bias by distance bucket (T5).
    RelativeBias {
        /// Number of buckets.
        buckets: usize,
        /// Distances from here on share the last bucket.
        max_distance: usize,
    },
}

/// Which layers see a window instead of the whole context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// None.
    None,
    /// In every `period` layers all but the last see the last `size` positions.
    Pattern {
        /// Positions seen, the current one included.
        size: usize,
        /// Length of the pattern; 1 would make every layer full.
        period: usize,
    },
}

/// How queries, keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkvLayout {
    /// Three matrices.
    Separate,
    /// One matrix, rows of q, then k, then v.
    Fused,
}

/// Norm of queries and keys before the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// Over each head, one weight for all heads.
    PerHead,
    /// Over the whole vector (OLMo 2).
    Whole,
}

/// Form of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mlp {
    /// `down(f(up(x)))`.
    Plain,
    /// `down(f(gate(x)) * up(x))`.
    Gated,
    /// As `Gated`, with gate and up in one matrix (Phi 3).
    GatedFused,
    /// A router picks `used` of `count` gated MLPs.
    Experts {
        /// Experts of a layer.
        count: usize,
        /// Experts of a token.
        used: usize,
    },
}

/// Which linear layers have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Biases {
    /// Queries, keys, values.
    pub qkv: bool,
    /// Attention output.
    pub output: bool,
    /// MLP.
    pub mlp: bool,
    /// Logits.
    pub head: bool,
}

/// A model's descriptor. Lengths are in values, rows or positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelSpec {
    /// Family it was filled from.
    pub family: Family,
    /// Stacks.
    pub stack: Stack,
    /// Rows of the embedding: token ids are below.
    pub vocab: usize,
    /// Trained context.
    pub context: usize,
    /// Width of the residual stream.
    pub embd: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values of a query and a key of one head.
    pub dim_k: usize,
    /// Values of a value of one head.
    pub dim_v: usize,
    /// Width of the MLP.
    pub ff: usize,
    /// Norms.
    pub norm: NormKind,
    /// Added to the variance under the root.
    pub norm_eps: f32,
    /// Their place.
    pub norm_place: NormPlace,
    /// Whether the embedding is normed.
    pub embed_norm: bool,
    /// Residual form.
    pub residual: Residual,
    /// Positions.
    pub position: Position,
    /// Windows.
    pub window: Window,
    /// Storage of q, k and v.
    pub qkv: QkvLayout,
    /// Biases.
    pub biases: Biases,
    /// Norm of q and k.
    pub qk_norm: QkNorm,
    /// Factor of the scores.
    pub attention_scale: f32,
    /// Soft cap of the scores; 0 for none.
    pub attention_softcap: f32,
    /// Whether each head has a learned sink (gpt-oss).
    pub sinks: bool,
    /// MLP.
    pub mlp: Mlp,
    /// Its function.
    pub activation: Activation,
    /// Factor of the embedding.
    pub embed_scale: f32,
    /// Factor of the logits.
    pub logit_scale: f32,
    /// Soft cap of the logits; 0 for none.
    pub logit_softcap: f32,
    /// Whether the embedding is the head.
    pub tied: bool,
}

/// What differs from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerSpec {
    /// Positions seen, the current one included; `None` for all.
    pub window: Option<usize>,
    /// The rotation of this layer.
    pub rope: Option<Rope>,
}

impl ModelSpec {
    /// The descriptor of layer `layer`.
    pub fn layer(&self, layer: usize) -> LayerSpec {
        let window = match self.window {
            Window::Pattern { size, period } if layer % period.max(1) + 1 != period.max(1) => Some(size),
            _ => None,
        };
        let rope = match self.position {
            Position::Rope { windowed, .. } if window.is_some() => Some(windowed),
            Position::Rope { full, .. } => Some(full),
            _ => None,
        };
        LayerSpec { window, rope }
    }

    /// Query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// Rows of q, of k and of v.
    pub fn qkv_rows(&self) -> [usize; 3] {
        [self.heads * self.dim_k, self.kv_heads * self.dim_k, self.kv_heads * self.dim_v]
    }

    /// Values of the attention's result.
    pub fn attention_width(&self) -> usize {
        self.heads * self.dim_v
    }

    /// The most positions a session can have, if the model sets a hard limit.
    pub fn hard_context(&self) -> Option<usize> {
        matches!(self.position, Position::Learned).then_some(self.context)
    }

    /// Refuses what no phase of [`super::forward`] computes yet.
    pub fn check(&self) -> Result<(), ModelError> {
        let unsupported = |what| Err(ModelError::Unsupported { what });
        if self.stack != Stack::Decoder {
            return unsupported("encoder and decoder");
        }
        if self.norm_place == NormPlace::Behind {
            return unsupported("norms only behind attention and MLP");
        }
        if self.residual != Residual::Sequential {
            return unsupported("parallel residual");
        }
        if matches!(self.position, Position::Alibi | Position::RelativeBias { .. }) {
            return unsupported("positions as a bias of the scores");
        }
        if let Position::Rope { full, windowed } = self.position {
            for rope in [full, windowed] {
                if matches!(rope.scaling, RopeScaling::Yarn { .. } | RopeScaling::Long { .. }) {
                    return unsupported("YaRN and LongRoPE scaling");
                }
            }
        }
        if self.qk_norm == QkNorm::Whole {
            return unsupported("norm over whole queries and keys");
        }
        if matches!(self.mlp, Mlp::GatedFused | Mlp::Experts { .. }) {
            return unsupported("fused gates and experts");
        }
        if self.sinks || self.embed_norm || self.biases.head {
            return unsupported("attention sinks, a norm of the embedding, a bias of the logits");
        }
        Ok(())
    }
}
