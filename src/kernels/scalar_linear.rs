//! Linear layers in plain Rust: the specification that every other table equals bit for bit.

use super::Linear;
use crate::mem::split::TileMut;
use crate::tensor::block::{Block, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
use crate::tensor::{Act8, Activations, BLOCK, Blocks, DType, Matrix};
use bytemuck::Pod;
use half::{bf16, f16};

/// One function a type, by [`DType::index`].
pub(super) const LINEAR: [Linear; DType::ALL.len()] = [
    float::<F32>,
    float::<F16>,
    float::<Bf16>,
    quantised::<Q8_0>,
    quantised::<Q4_0>,
    quantised::<Q4_1>,
    quantised::<Q5_0>,
    quantised::<Q5_1>,
    quantised::<Q4_K>,
    quantised::<Q5_K>,
    quantised::<Q6_K>,
];

/// Needs no scratch memory.
pub(super) fn scratch(_cols: usize) -> usize {
    0
}

/// Columns that share one unpacking of the weights.
const COLUMNS: usize = 8;

/// Lanes of a sum over floats.
const LANES: usize = 16;

/// Quantised weights and quantised activations.
pub(super) fn quantised<B: Block>(
    w: &Matrix<'_>,
    x: &Activations<'_>,
    out: &mut TileMut<'_, f32>,
    _: &mut [f32],
) {
    if w.dtype() != B::DTYPE {
        return;
    }
    if let Activations::Q8(x) = x {
        columns(w, x.blocks, BLOCK, out, |w, row, group| dot::<B>(w, row, group, x));
    }
}

/// Float weights and float activations.
pub(super) fn float<T: Float>(
    w: &Matrix<'_>,
    x: &Activations<'_>,
    out: &mut TileMut<'_, f32>,
    _: &mut [f32],
) {
    if let (Activations::F32(x), true) = (x, w.dtype() == T::DTYPE) {
        columns(w, x, 1, out, dot_float::<T>);
    }
}

/// Runs `dot(w, row, columns)` for every row of the tile and every [`COLUMNS`] columns of it. An element of `x` stands
/// for `values` values. Rows and columns that do not exist are left alone.
fn columns<X>(
    w: &Matrix<'_>,
    x: &[X],
    values: usize,
    out: &mut TileMut<'_, f32>,
    dot: impl Fn(&Matrix<'_>, usize, &[&[X]]) -> [f32; COLUMNS],
) {
    let len = w.cols() / values;
    let rows = out.width().min(w.rows().saturating_sub(out.first()));
    let x = x.get(out.first_line().saturating_mul(len)..).unwrap_or_default();
    let lines = out.lines().min(x.len().checked_div(len).unwrap_or(0));
    for first in (0..lines).step_by(COLUMNS) {
        let count = COLUMNS.min(lines - first);
        let mut group: [&[X]; COLUMNS] = [&[]; COLUMNS];
        for (column, x) in group.iter_mut().zip(x.chunks_exact(len.max(1)).skip(first).take(count)) {
            *column = x;
        }
        let group = group.get(..count).unwrap_or_default();
        for row in 0..rows {
            let sums = dot(w, out.first() + row, group);
            for (i, sum) in sums.iter().take(count).enumerate() {
                if let Some(out) = out.line(first + i).get_mut(row) {
                    *out = *sum;
                }
            }
        }
    }
}

/// One row with some columns of `of`: per block of 32 values, and then for its rest, `acc += float(sum w q) * (scale * da)`
/// and, for types with a minimum, `acc += min * (da * float(s))`; for Q6_K the first step once for each 16 values.
fn dot<B: Block>(w: &Matrix<'_>, row: usize, x: &[&[Act8]], of: &Blocks<'_>) -> [f32; COLUMNS] {
    let mut acc = [0.0f32; COLUMNS];
    let row = w.row(row);
    for index in 0..row.len() / size_of::<B>() {
        let block: B = row.read(index);
        for part in 0..B::PARTS {
            let weights = block.weights(part).map(i32::from);
            let (scales, min) = (block.scales(part), block.min(part));
            for (acc, x) in acc.iter_mut().zip(x) {
                let Some(act) = x.get(index * B::PARTS + part) else { continue };
                *acc = step::<B>(*acc, &weights, scales, min, act);
                if let Some(rest) = of.rest(act) {
                    *acc = step::<B>(*acc, &weights, scales, min, rest);
                }
            }
        }
    }
    acc
}

/// `acc` with the products of a block added.
#[inline]
fn step<B: Block>(
    mut acc: f32,
    weights: &[i32; BLOCK],
    scales: [f32; 2],
    min: Option<f32>,
    act: &Act8,
) -> f32 {
    let q = act.q.map(i32::from);
    if B::DTYPE as u32 == DType::Q6_K as u32 {
        for (h, scale) in scales.into_iter().enumerate() {
            let half = 16 * h..16 * h + 16;
            let sum: i32 = weights[half.clone()].iter().zip(&q[half]).map(|(w, q)| w * q).sum();
            acc += sum as f32 * (scale * act.scale);
        }
        return acc;
    }
    let sum: i32 = weights.iter().zip(&q).map(|(w, q)| w * q).sum();
    acc += sum as f32 * (scales[0] * act.scale);
    if let Some(min) = min {
        acc += min * (act.scale * q.iter().sum::<i32>() as f32);
    }
    acc
}

/// A type of float weights.
pub(super) trait Float {
    const DTYPE: DType;
    /// As it is stored.
    type Bits: Pod;
    fn value(bits: Self::Bits) -> f32;
}

/// [`DType::F32`].
pub(super) struct F32;
/// [`DType::F16`].
pub(super) struct F16;
/// [`DType::BF16`].
pub(super) struct Bf16;

impl Float for F32 {
    const DTYPE: DType = DType::F32;
    type Bits = u32;
    #[inline]
    fn value(bits: u32) -> f32 {
        f32::from_bits(u32::from_le(bits))
    }
}

impl Float for F16 {
    const DTYPE: DType = DType::F16;
    type Bits = u16;
    #[inline]
    fn value(bits: u16) -> f32 {
        f16::from_bits(u16::from_le(bits)).to_f32()
    }
}

impl Float for Bf16 {
    const DTYPE: DType = DType::BF16;
    type Bits = u16;
    #[inline]
    fn value(bits: u16) -> f32 {
        bf16::from_bits(u16::from_le(bits)).to_f32()
    }
}

/// One row with some columns: element `k` in lane `k % 16`, K ascending, then the tree.
fn dot_float<T: Float>(w: &Matrix<'_>, row: usize, x: &[&[f32]]) -> [f32; COLUMNS] {
    let row = w.row(row);
    let mut acc = [[0.0f32; LANES]; COLUMNS];
    for first in (0..w.cols()).step_by(LANES) {
        let weights: [f32; LANES] = core::array::from_fn(|i| T::value(row.read(first + i)));
        for (acc, x) in acc.iter_mut().zip(x) {
            let x = x.get(first..).unwrap_or_default();
            for ((acc, w), x) in acc.iter_mut().zip(weights).zip(x) {
                *acc += w * x;
            }
        }
    }
    acc.map(tree)
}

/// Adds up 16 lanes: lane `l` takes lane `l + 8`, then `l + 4`, `l + 2`, `l + 1`.
fn tree(mut lanes: [f32; LANES]) -> f32 {
    for step in [8, 4, 2, 1] {
        for i in 0..step {
            lanes[i] += lanes[i + step];
        }
    }
    lanes[0]
}
