//! THE SEAM between what is computed and how: a table of function pointers, chosen once, held as a value.
//!
//! The scalar table is the specification. Every other table returns the same bits for every input; the batteries in
//! `testkit_linear`, `testkit_vector` and `testkit_attention` hold each against it. Nothing above this floor names an
//! instruction set, and nothing in it names a model.
//!
//! # Numerics
//! 1. A block's sum of products of integers is exact. One output has one `f32` accumulator, to which the blocks are
//!    added with K ascending; multiply, then add, never fused unless the product is exact (details at [`Linear`]).
//! 2. Sums over floats use 16 virtual lanes, element `i` in lane `i % 16`, and one fixed tree: lane `l` takes lane
//!    `l + 8`, then `l + 4`, `l + 2`, `l + 1`.
//! 3. Only correctly rounded operations (`+ - * /`, square root, conversions to nearest even) and the functions of
//!    [`crate::math`], which are made of them.
//!
//! Two things are outside the promise: the sign and payload of a NaN, and threads that run kernels without a
//! [`FloatEnv`] although the host changed the rounding mode or flushes subnormal numbers.

mod attention;
mod float_env;
#[cfg(any(
    all(feature = "avx2", any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse2"),
    all(feature = "neon", target_arch = "aarch64", target_feature = "neon", target_endian = "little"),
    all(feature = "simd128", target_arch = "wasm32", target_feature = "simd128")
))]
mod floats;
#[cfg(any(
    all(feature = "avx2", any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse2"),
    all(feature = "neon", target_arch = "aarch64", target_feature = "neon", target_endian = "little"),
    all(feature = "simd128", target_arch = "wasm32", target_feature = "simd128")
))]
mod rows;
mod scalar_linear;
#[cfg(test)]
mod testkit_attention;
#[cfg(test)]
mod testkit_cache;
#[cfg(test)]
mod testkit_linear;
#[cfg(test)]
mod testkit_vector;
#[macro_use]
mod vector;
#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(all(feature = "simd128", target_arch = "wasm32", target_feature = "simd128"))]
mod wasm32;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod x86;

// Whose tables this build has beside the scalar one.
cfg_select! {
    all(feature = "avx2", any(target_arch = "x86", target_arch = "x86_64"), target_feature = "sse2") => {
        use x86 as native;
    }
    all(feature = "neon", target_arch = "aarch64", target_feature = "neon", target_endian = "little") => {
        use aarch64 as native;
    }
    all(feature = "simd128", target_arch = "wasm32", target_feature = "simd128") => {
        use wasm32 as native;
    }
    _ => {
        mod native {
            pub(super) const TABLES: &[(&super::Kernels, super::Features)] = &[];

            pub(super) fn features() -> super::Features {
                super::Features::NONE
            }
        }
    }
}

pub use attention::{
    ATTENTION_CHUNK, Attention, ChunkScores, KV_BLOCK, KvBlocks, KvType, KvTypes, Span, TOGETHER,
    attend_chunk, attention_finish, attention_partial, attention_scratch, queries_together, store_position,
};
pub use float_env::FloatEnv;

use crate::cpu::Features;
use crate::mem::split::TileMut;
use crate::tensor::{Act8, Activations, DType, Matrix, Precision};

/// Elementwise function between two linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * 0.5 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
    /// `x * 0.5 * (1 + erf(x / sqrt(2)))`.
    GeluErf,
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

/// Rotation of pairs of values by an angle a position (RoPE, Su et al. 2021).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairs {
    /// Pairs `(2i, 2i + 1)`: GGML's NORM.
    Interleaved,
    /// Pairs `(i, i + n/2)`: GGML's NEOX.
    Halves,
}

/// `out[c][r] = sum_k w[first_row + r][k] * x[c][k]` for every line `c` of the tile.
///
/// `out.first()` is the first row of `w` and `out.first_line()` the first column of `x` that the tile covers;
/// `out.width()` rows, `out.lines()` columns. `scratch` is the worker's own memory of [`Kernels::linear_scratch`]
/// floats. The sums, for a block of 32 values with activation scale `da`, integer activations `q` and their sum `s`, each
/// step one rounding, in this order; where a block of activations has a [rest](Act8::rest), the same once more with that:
///
/// | type | per block of 32 values |
/// |---|---|
/// | Q8_0 Q4_0 Q5_0 | `acc += float(sum w q) * (d * da)` |
/// | Q4_1 Q5_1 | `acc += float(sum w q) * (d * da)`, then `acc += m * (da * float(s))` |
/// | Q4_K Q5_K | as Q4_1 with `d = d * sc` and `m = -(dmin * mn)` of the sub-block |
/// | Q6_K | for each half of 16 values: `acc += float(sum w q) * ((d * sc) * da)` |
/// | F32 F16 BF16 | 16 lanes over `w * x`, K ascending in each, then the tree |
///
/// With F16 the activations are those that [`Kernels::shorten`] leaves: no product needs rounding, and whether it is fused
/// with the sum cannot be seen.
/// Activations are taken at their word: `s` is the sum of `q`, `q` is not -128, and scales are as [`Act8::scale`] says.
/// Rows of the tile that the matrix does not have, columns that `x` does not have, and everything when the type of
/// `w` or of `x` is not that of the table's entry, are left as they are. With less scratch memory the result is the
/// same, later.
pub type Linear = fn(w: &Matrix<'_>, x: &Activations<'_>, out: &mut TileMut<'_, f32>, scratch: &mut [f32]);

/// Scores of query heads in one chunk; see [`Kernels::attention_scores`].
pub type AttentionScores =
    fn(q: &mut [f32], kv: &KvBlocks<'_>, spans: &[Span], scale: f32, scores: &mut [ChunkScores]);

/// Values of one chunk, summed up by their exponentials; see [`Kernels::attention_values`].
pub type AttentionValues =
    fn(scores: &mut [ChunkScores], kv: &KvBlocks<'_>, spans: &[Span], partial: &mut [f32]);

/// One implementation of every kernel. All functions are total: lengths that do not fit give fewer results, never a
/// panic.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// The instruction set: `scalar`, `avx2`, ...
    pub name: &'static str,
    /// A linear layer, by [`DType::index`] of its weights.
    pub linear: [Linear; DType::ALL.len()],
    /// Floats of scratch memory a worker needs for a matrix of `cols` columns.
    pub linear_scratch: fn(cols: usize) -> usize,
    /// Rounds a column to signed bytes, 32 a block: `q = round_half_even(x * (1 / scale))`, where `scale` is `peak / 127`
    /// rounded up to [`SCALE_BITS`] significant bits; 1 where the peak is below 2^-80, and NaN from 2^100 on. What that
    /// leaves of a block is its rest, `round_half_even((x * (1 / scale) - q) * 256)`, at most 127 in size, with the 256th
    /// part of the scale: of the blocks that `precision` says, one behind the other in `rests`, whose first one has index
    /// `first` in [`Blocks`]; what finds no place there is dropped.
    ///
    /// [`SCALE_BITS`]: crate::tensor::SCALE_BITS
    /// [`Blocks`]: crate::tensor::Blocks
    pub quantize: fn(x: &[f32], precision: Precision, out: &mut [Act8], rests: &mut [Act8], first: usize),
    /// `out = x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019); an empty `weight` counts as ones.
    pub rms_norm: fn(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]),
    /// `out = (x - mean) / sqrt(var + eps) * weight + bias` (Ba et al. 2016); empty `weight`/`bias`: ones, zeros.
    pub layer_norm: fn(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]),
    /// `x = f(x)`.
    pub activate: fn(f: Activation, x: &mut [f32]),
    /// `gate = f(gate) * up`.
    pub activate_mul: fn(f: Activation, gate: &mut [f32], up: &[f32]),
    /// `x += y`.
    pub add: fn(x: &mut [f32], y: &[f32]),
    /// `to += from` for each line of both.
    pub add_tile: fn(to: &mut TileMut<'_, f32>, from: &mut TileMut<'_, f32>),
    /// `x *= factor`.
    pub scale: fn(x: &mut [f32], factor: f32),
    /// `x = cap * tanh(x / cap)`.
    pub softcap: fn(x: &mut [f32], cap: f32),
    /// Rounds to 13 significant bits, ties to even; less than 2^-100 becomes 0, and 2^100 or more infinite. The product of
    /// such a number with an f16 number or a signed byte is exact.
    pub shorten: fn(x: &mut [f32]),
    /// Rotates the first `2 * cos.len()` values of one head.
    pub rope: fn(pairs: RopePairs, x: &mut [f32], cos: &[f32], sin: &[f32]),
    /// Scores of one chunk, by [`KvType::index`] of the keys: `(sum_d q[d] k[d][p]) * scale`, for the heads that `q`,
    /// of `[heads][dim_k]`, and `scores` have room for, in all positions of the blocks of which something is seen by
    /// any of them. One accumulator a position with `d` ascending; for Q8_0 one for 32 numbers, then
    /// `acc += that * scale_of_32`; for I16 `acc += float(integer sum of 64)`, then
    /// `(acc * scale_of_position) * (scale * scale_of_query)`.
    ///
    /// Heads belong to the queries of `spans`, the same number to each; the spans are of one chunk. For F16 and Q8_0 `q`
    /// is first rounded as by [`shorten`](Self::shorten), so that its products with keys are exact; for I16 to integers,
    /// `round_half_even(q * (4095 / peak))` of each head. Either takes the place of `q`.
    pub attention_scores: [AttentionScores; KvType::ALL.len()],
    /// Turns the scores of one chunk into exponentials: the cap, then `e = exp(score - max)`, and an exact 0 where
    /// that would be subnormal or nothing is seen. Writes maximum and sum of each head to its partial.
    pub attention_softmax:
        fn(softcap: f32, spans: &[Span], scores: &mut [ChunkScores], dim_v: usize, partial: &mut [f32]),
    /// Weighted sums of the values of one chunk, by [`KvType::index`] of the values, to the partials:
    /// `sum_p e[p] v[p][d]` with `p` ascending; for Q8_0 the weight is `e[p] * scale_of_32`. For F16 and Q8_0 weights
    /// are rounded as the queries are for the scores. For I16 the weight is `w[p] = e[p] * scale_of_position`, rounded to
    /// `round_half_even(w[p] * (16383 / peak of the chunk))`; the sum of a block of 16 is an integer, `acc += float(that)`,
    /// and the result `acc * (peak * (1 / 16383))`. What `scores` holds afterwards is of no use.
    pub attention_values: [AttentionValues; KvType::ALL.len()],
    /// Merges the partials of a later chunk into those of the chunks before it: `max = larger(m, mc)`, sums and values
    /// `a * exp(m - max) + ac * exp(mc - max)`.
    pub attention_merge: fn(dim_v: usize, running: &mut [f32], partial: &[f32]),
    /// Writes one key of one head to its lane, `position % 16`, of the keys of a block, by [`KvType::index`]: for I16
    /// `round_half_even(k * (8191 / peak))` with the scale `peak * (1 / 8191)`, values alike.
    pub store_key: [fn(k: &[f32], lane: usize, keys: &mut [u8]); KvType::ALL.len()],
    /// Writes one value of one head to its line, `position % 16`, of the values of a block, by [`KvType::index`].
    pub store_value: [fn(v: &[f32], line: usize, values: &mut [u8]); KvType::ALL.len()],
    /// `ln(sum(exp(x)))` of a row of logits, by its maximum, the 16 lanes and the tree.
    pub log_sum_exp: fn(x: &[f32]) -> f32,
}

impl core::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Kernels").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The specification: plain Rust for any machine.
pub const SCALAR: Kernels = vector::scalar::kernels("scalar", scalar_linear::LINEAR, scalar_linear::scratch);

/// What this CPU can do, as far as this build has kernels for it. Asks the CPU each time, which may take some
/// microseconds in a virtual machine.
pub fn features() -> Features {
    native::features()
}

/// The specification, which runs anywhere.
pub fn scalar() -> &'static Kernels {
    &SCALAR
}

/// The tables that this CPU can run, the best one last; the first one is [`scalar`].
pub fn available() -> impl Iterator<Item = &'static Kernels> {
    let cpu = features();
    let native =
        native::TABLES.iter().filter(move |(_, needs)| cpu.includes(*needs)).map(|(table, _)| *table);
    core::iter::once(&SCALAR).chain(native)
}

/// The best table that this CPU can run. Nothing is remembered: call it once and keep the value.
pub fn detect() -> &'static Kernels {
    available().last().unwrap_or(&SCALAR)
}

/// The table called `name`, if this CPU can run it.
pub fn by_name(name: &str) -> Option<&'static Kernels> {
    available().find(|table| table.name == name)
}
