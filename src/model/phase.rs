//! The names of what a forward pass does, one after the other.

/// One phase of a pass, with its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// x = embedding. A job a column.
    Embed,
    /// Angles of the rotations. A job a column.
    Angles,
    /// values = norm(x), rounded. A job a column.
    AttnNorm(usize),
    /// qkv = Wqkv values. A job a tile of rows.
    Qkv(usize),
    /// K and V of the columns go to the cache. A job a KV head.
    Store(usize),
    /// Partial results of attention. A job a part of what a column sees, and a KV head; see [`attention`](crate::ops::attention).
    Attend(usize),
    /// values = what the partial results come to, rounded. A job a column.
    AttnRound(usize),
    /// x += Wo values, or branch = Wo values where a norm follows. A job a tile of rows.
    AttnOut(usize),
    /// values = norm(x), rounded. A job a column.
    FfnNorm(usize),
    /// hidden = f(Wgate values) * (Wup values). A job a tile of rows.
    FfnIn(usize),
    /// hidden rounded. A job a column.
    FfnRound(usize),
    /// x += Wdown hidden, or branch = Wdown hidden. A job a tile of rows.
    FfnOut(usize),
    /// values = norm(x) of the wanted columns, rounded. A job a wanted column.
    OutNorm,
    /// logits = Whead values. A job a tile of rows.
    Head,
}

impl Phase {
    /// Names of the kinds of phases, in their order.
    pub const NAMES: [&'static str; 14] = [
        "embed",
        "angles",
        "attn_norm",
        "qkv",
        "store",
        "attend",
        "attn_round",
        "attn_out",
        "ffn_norm",
        "ffn_in",
        "ffn_round",
        "ffn_out",
        "out_norm",
        "head",
    ];

    /// Its layer, counted from 0; `None` in front of the first layer and behind the last.
    pub fn layer(self) -> Option<usize> {
        match self {
            Phase::AttnNorm(layer)
            | Phase::Qkv(layer)
            | Phase::Store(layer)
            | Phase::Attend(layer)
            | Phase::AttnRound(layer)
            | Phase::AttnOut(layer)
            | Phase::FfnNorm(layer)
            | Phase::FfnIn(layer)
            | Phase::FfnRound(layer)
            | Phase::FfnOut(layer) => Some(layer),
            Phase::Embed | Phase::Angles | Phase::OutNorm | Phase::Head => None,
        }
    }

    /// The place of its kind in [`Phase::NAMES`].
    pub fn kind(self) -> usize {
        match self {
            Phase::Embed => 0,
            Phase::Angles => 1,
            Phase::AttnNorm(_) => 2,
            Phase::Qkv(_) => 3,
            Phase::Store(_) => 4,
            Phase::Attend(_) => 5,
            Phase::AttnRound(_) => 6,
            Phase::AttnOut(_) => 7,
            Phase::FfnNorm(_) => 8,
            Phase::FfnIn(_) => 9,
            Phase::FfnRound(_) => 10,
            Phase::FfnOut(_) => 11,
            Phase::OutNorm => 12,
            Phase::Head => 13,
        }
    }
}

/// The phases of a layer, in their order.
pub(super) const PER_LAYER: [fn(usize) -> Phase; 10] = [
    Phase::AttnNorm,
    Phase::Qkv,
    Phase::Store,
    Phase::Attend,
    Phase::AttnRound,
    Phase::AttnOut,
    Phase::FfnNorm,
    Phase::FfnIn,
    Phase::FfnRound,
    Phase::FfnOut,
];
