//! The tensor registry: for each role its name in the file, its shape as a formula of the spec, and whether it must
//! be there.

use super::error::Name;
use super::spec::{Mlp, ModelSpec, NormKind, NormPlace, Position, QkNorm, QkvLayout, RopeScaling};

/// What a tensor is for. Roles up to [`Role::LAST_GLOBAL`] exist once, the others once a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Role {
    TokenEmbd,
    PositionEmbd,
    OutputNorm,
    OutputNormBias,
    Output,
    RopeFactors,
    AttnNorm,
    AttnNormBias,
    Qkv,
    QkvBias,
    Q,
    QBias,
    K,
    KBias,
    V,
    VBias,
    QNorm,
    KNorm,
    AttnOut,
    AttnOutBias,
    PostAttnNorm,
    FfnNorm,
    FfnNormBias,
    Gate,
    GateBias,
    Up,
    UpBias,
    Down,
    DownBias,
    PostFfnNorm,
}

/// Whether a file must have a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It must.
    Required,
    /// The model does not use it, but some files carry it.
    Ignored,
    /// It must not: the model would mean something else with it.
    Refused,
}

/// One row of the registry.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The role.
    pub role: Role,
    /// Name in a GGUF file; a layer's tensors stand behind `blk.N.`.
    pub gguf: &'static str,
    /// Rows and values of a row; one row makes a vector, which is kept as `f32`.
    pub shape: Shape,
}

/// Shapes as formulas of the spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A matrix of `[rows][values]`.
    Matrix(Length, Length),
    /// A vector.
    Vector(Length),
}

/// Lengths as formulas of the spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Length {
    Vocab,
    Context,
    Embd,
    Q,
    Kv,
    V,
    Qkv,
    Attention,
    Ff,
    HeadK,
    RopeHalf,
}

impl Length {
    /// The number for a model.
    pub fn of(self, spec: &ModelSpec) -> usize {
        let [q, k, v] = spec.qkv_rows();
        match self {
            Length::Vocab => spec.vocab,
            Length::Context => spec.context,
            Length::Embd => spec.embd,
            Length::Q => q,
            Length::Kv => k,
            Length::V => v,
            Length::Qkv => q + k + v,
            Length::Attention => spec.attention_width(),
            Length::Ff => spec.ff,
            Length::HeadK => spec.dim_k,
            Length::RopeHalf => match spec.position {
                Position::Rope { full, .. } => full.dims / 2,
                _ => 0,
            },
        }
    }
}

const fn matrix(role: Role, gguf: &'static str, rows: Length, values: Length) -> Entry {
    Entry { role, gguf, shape: Shape::Matrix(rows, values) }
}

const fn vector(role: Role, gguf: &'static str, len: Length) -> Entry {
    Entry { role, gguf, shape: Shape::Vector(len) }
}

/// All roles, in the order of [`Role`].
pub const REGISTRY: [Entry; 30] = {
    use Length::*;
    [
        matrix(Role::TokenEmbd, "token_embd.weight", Vocab, Embd),
        matrix(Role::PositionEmbd, "position_embd.weight", Context, Embd),
        vector(Role::OutputNorm, "output_norm.weight", Embd),
        vector(Role::OutputNormBias, "output_norm.bias", Embd),
        matrix(Role::Output, "output.weight", Vocab, Embd),
        vector(Role::RopeFactors, "rope_freqs.weight", RopeHalf),
        vector(Role::AttnNorm, "attn_norm.weight", Embd),
        vector(Role::AttnNormBias, "attn_norm.bias", Embd),
        matrix(Role::Qkv, "attn_qkv.weight", Qkv, Embd),
        vector(Role::QkvBias, "attn_qkv.bias", Qkv),
        matrix(Role::Q, "attn_q.weight", Q, Embd),
        vector(Role::QBias, "attn_q.bias", Q),
        matrix(Role::K, "attn_k.weight", Kv, Embd),
        vector(Role::KBias, "attn_k.bias", Kv),
        matrix(Role::V, "attn_v.weight", V, Embd),
        vector(Role::VBias, "attn_v.bias", V),
        vector(Role::QNorm, "attn_q_norm.weight", HeadK),
        vector(Role::KNorm, "attn_k_norm.weight", HeadK),
        matrix(Role::AttnOut, "attn_output.weight", Embd, Attention),
        vector(Role::AttnOutBias, "attn_output.bias", Embd),
        vector(Role::PostAttnNorm, "post_attention_norm.weight", Embd),
        vector(Role::FfnNorm, "ffn_norm.weight", Embd),
        vector(Role::FfnNormBias, "ffn_norm.bias", Embd),
        matrix(Role::Gate, "ffn_gate.weight", Ff, Embd),
        vector(Role::GateBias, "ffn_gate.bias", Ff),
        matrix(Role::Up, "ffn_up.weight", Ff, Embd),
        vector(Role::UpBias, "ffn_up.bias", Ff),
        matrix(Role::Down, "ffn_down.weight", Embd, Ff),
        vector(Role::DownBias, "ffn_down.bias", Embd),
        vector(Role::PostFfnNorm, "post_ffw_norm.weight", Embd),
    ]
};

impl Role {
    /// The last role that exists once.
    pub const LAST_GLOBAL: Role = Role::RopeFactors;
    /// Number of roles that exist once.
    pub const GLOBALS: usize = Role::LAST_GLOBAL as usize + 1;
    /// Number of roles of a layer.
    pub const PER_LAYER: usize = REGISTRY.len() - Role::GLOBALS;

    /// Whether each layer has a tensor of this role.
    pub fn is_per_layer(self) -> bool {
        self as usize >= Role::GLOBALS
    }

    /// Whether a model of this spec has it.
    pub fn need(self, spec: &ModelSpec) -> Need {
        let required = |yes| if yes { Need::Required } else { Need::Refused };
        let layer_norm = spec.norm == NormKind::Layer;
        let has_weight = spec.norm != NormKind::LayerPlain;
        let (before, behind) = (spec.norm_place != NormPlace::Behind, spec.norm_place != NormPlace::Before);
        let fused = spec.qkv == QkvLayout::Fused;
        let gated = spec.mlp == Mlp::Gated;
        match self {
            Role::TokenEmbd | Role::AttnOut | Role::Up | Role::Down => Need::Required,
            Role::PositionEmbd => required(spec.position == Position::Learned),
            Role::OutputNorm => required(has_weight),
            Role::OutputNormBias => required(layer_norm),
            Role::Output => required(!spec.tied),
            Role::RopeFactors => match spec.position {
                Position::Rope { full, .. } => required(full.scaling == RopeScaling::Factors),
                _ => Need::Ignored,
            },
            Role::AttnNorm | Role::FfnNorm => required(before && has_weight),
            Role::AttnNormBias | Role::FfnNormBias => required(before && layer_norm),
            Role::Qkv => required(fused),
            Role::QkvBias => required(fused && spec.biases.qkv),
            Role::Q | Role::K | Role::V => required(!fused),
            Role::QBias | Role::KBias | Role::VBias => required(!fused && spec.biases.qkv),
            Role::QNorm | Role::KNorm => required(spec.qk_norm == QkNorm::PerHead),
            Role::AttnOutBias => required(spec.biases.output),
            Role::PostAttnNorm | Role::PostFfnNorm => required(behind),
            Role::Gate => required(gated),
            Role::GateBias => required(gated && spec.biases.mlp),
            Role::UpBias | Role::DownBias => required(spec.biases.mlp),
        }
    }
}

impl Entry {
    /// The tensor's name in a GGUF file.
    pub fn name(&self, layer: usize) -> Name {
        if !self.role.is_per_layer() {
            return Name::new(self.gguf.as_bytes());
        }
        let digits = [layer / 100, layer / 10, layer].map(|n| b'0' + (n % 10) as u8);
        let skip = if layer >= 100 {
            0
        } else if layer >= 10 {
            1
        } else {
            2
        };
        Name::joined(&[b"blk.", digits.get(skip..).unwrap_or_default(), b".", self.gguf.as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_in_the_order_of_the_roles() {
        for (i, entry) in REGISTRY.iter().enumerate() {
            assert_eq!(entry.role as usize, i);
        }
        assert_eq!(REGISTRY[Role::Down as usize].name(17).as_bytes(), b"blk.17.ffn_down.weight");
        assert_eq!(REGISTRY[Role::Output as usize].name(17).as_bytes(), b"output.weight");
    }
}
