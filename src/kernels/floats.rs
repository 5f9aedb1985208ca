//! Linear layers of float weights along K: 16 lanes an output, some rows and columns at a time.
//!
//! Safe and generic over the instruction set ([`Wide`]); to be inlined into one root a type, as `rows` is.
#![allow(clippy::needless_range_loop, reason = "arrays of registers are clearer with indices")]

use super::scalar_linear::{Bf16, F16, F32, Float};
use crate::mem::aligned::RawBytes;
use crate::mem::split::TileMut;
use crate::tensor::{Activations, Matrix};
use core::marker::PhantomData;

/// Lanes of a sum.
const LANES: usize = 16;

/// An instruction set that holds the 16 lanes of a sum. A value of the type is the proof that the CPU has it.
pub(super) trait Wide: Copy {
    /// Whether there are registers for 16 sums at a time, or for four.
    const ROOMY: bool;
    /// 16 floats.
    type Lanes: Copy;
    /// Zeros.
    fn zero(self) -> Self::Lanes;
    /// 16 activations.
    fn load(self, from: &[f32; LANES]) -> Self::Lanes;
    /// 16 weights.
    fn load_f32(self, from: Run<'_, u32>) -> Self::Lanes;
    /// As [`load_f32`](Self::load_f32).
    fn load_f16(self, from: Run<'_, u16>) -> Self::Lanes;
    /// As [`load_f32`](Self::load_f32).
    fn load_bf16(self, from: Run<'_, u16>) -> Self::Lanes;
    /// `acc + w * x`, each rounded.
    fn add_product(self, acc: Self::Lanes, w: Self::Lanes, x: Self::Lanes) -> Self::Lanes;
    /// Lane `l` takes lane `l + 8`, then `l + 4`, `l + 2`, `l + 1`.
    fn tree(self, v: Self::Lanes) -> f32;
}

/// 16 elements of a row, all inside, at any alignment.
pub(super) struct Run<'w, B> {
    bytes: RawBytes<'w>,
    elements: PhantomData<B>,
}

impl<'w, B> Run<'w, B> {
    #[inline(always)]
    fn new(row: RawBytes<'w>, first: usize) -> Option<Self> {
        let bytes = row.sub(first.checked_mul(size_of::<B>())?, LANES * size_of::<B>())?;
        Some(Self { bytes, elements: PhantomData })
    }

    /// The first element; 16 of them may be read.
    #[inline(always)]
    pub(super) fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }
}

/// A type of float weights as the kernels see it.
pub(super) trait FloatWeights: Float {
    /// 16 weights.
    fn load<W: Wide>(isa: W, from: Run<'_, Self::Bits>) -> W::Lanes;
}

impl FloatWeights for F32 {
    #[inline(always)]
    fn load<W: Wide>(isa: W, from: Run<'_, u32>) -> W::Lanes {
        isa.load_f32(from)
    }
}

impl FloatWeights for F16 {
    #[inline(always)]
    fn load<W: Wide>(isa: W, from: Run<'_, u16>) -> W::Lanes {
        isa.load_f16(from)
    }
}

impl FloatWeights for Bf16 {
    #[inline(always)]
    fn load<W: Wide>(isa: W, from: Run<'_, u16>) -> W::Lanes {
        isa.load_bf16(from)
    }
}

/// A linear layer of type `T`; to be inlined into a root function with the instruction set of `isa`.
#[inline(always)]
pub(super) fn linear<W: Wide, T: FloatWeights>(
    isa: W,
    w: &Matrix<'_>,
    x: &Activations<'_>,
    out: &mut TileMut<'_, f32>,
) {
    let (Activations::F32(x), true) = (x, w.dtype() == T::DTYPE) else { return };
    let cols = w.cols();
    let rows = out.width().min(w.rows().saturating_sub(out.first()));
    let x = x.get(out.first_line().saturating_mul(cols)..).unwrap_or_default();
    let lines = out.lines().min(x.len().checked_div(cols).unwrap_or(0));
    let mut tile = Tile { isa, w, x, rows, lines, out, weights: PhantomData::<T> };
    if lines > 2 && W::ROOMY {
        tile.run::<4, 4>();
    } else if lines > 1 {
        tile.run::<2, 2>();
    } else {
        tile.run::<4, 1>();
    }
}

/// What a tile consists of, cut down to what exists.
struct Tile<'t, 'w, 'p, W, T> {
    isa: W,
    w: &'t Matrix<'w>,
    x: &'t [f32],
    rows: usize,
    lines: usize,
    out: &'t mut TileMut<'p, f32>,
    weights: PhantomData<T>,
}

impl<W: Wide, T: FloatWeights> Tile<'_, '_, '_, W, T> {
    /// All outputs, `R` rows and `C` columns at a time. What is missing at the borders repeats the last row or column,
    /// and its results are dropped.
    #[inline(always)]
    fn run<const R: usize, const C: usize>(&mut self) {
        let cols = self.w.cols();
        for row in (0..self.rows).step_by(R) {
            let mut w = [RawBytes::new(&[]); R];
            for (r, w) in w.iter_mut().enumerate() {
                *w = self.w.row(self.out.first() + (row + r).min(self.rows - 1));
            }
            for line in (0..self.lines).step_by(C) {
                let mut x: [&[f32]; C] = [&[]; C];
                for (c, x) in x.iter_mut().enumerate() {
                    let start = (line + c).min(self.lines - 1) * cols;
                    *x = self.x.get(start..start + cols).unwrap_or_default();
                }
                let sums = dots::<W, T, R, C>(self.isa, &w, &x, cols);
                for (c, sums) in sums.iter().enumerate() {
                    let out = self.out.line(line + c).get_mut(row..self.rows).unwrap_or_default();
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = *sum;
                    }
                }
            }
        }
    }
}

/// The dot products of `R` rows with `C` columns of `cols` values, `[column][row]`.
#[inline(always)]
fn dots<W: Wide, T: FloatWeights, const R: usize, const C: usize>(
    isa: W,
    w: &[RawBytes<'_>; R],
    x: &[&[f32]; C],
    cols: usize,
) -> [[f32; R]; C] {
    let mut acc = [[isa.zero(); R]; C];
    for first in (0..cols).step_by(LANES) {
        let mut weights = [isa.zero(); R];
        for r in 0..R {
            weights[r] = match Run::new(w[r], first) {
                Some(run) => T::load(isa, run),
                None => isa.load(&core::array::from_fn(|i| T::value(w[r].read(first + i)))),
            };
        }
        for c in 0..C {
            let rest = x[c].get(first..).unwrap_or_default();
            let values = match rest.first_chunk::<LANES>() {
                Some(values) => isa.load(values),
                None => isa.load(&core::array::from_fn(|i| rest.get(i).copied().unwrap_or(0.0))),
            };
            for r in 0..R {
                acc[c][r] = isa.add_product(acc[c][r], weights[r], values);
            }
        }
    }
    // Behind the last value stand zeros on both sides. A lane is never -0 (it starts at 0), so adding their product
    // changes nothing.
    let mut sums = [[0.0; R]; C];
    for c in 0..C {
        for r in 0..R {
            sums[c][r] = isa.tree(acc[c][r]);
        }
    }
    sums
}
