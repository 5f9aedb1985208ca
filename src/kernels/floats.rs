//! Linear layers of float weights along K: 16 lanes an output, some rows and columns at a time.
//!
//! Safe and generic over the instruction set ([`Wide`]); to be inlined into one root a type, as `rows` is.
#![allow(clippy::needless_range_loop, reason = "arrays of registers are clearer with indices")]

use super::scalar_linear::{self, Bf16, F16, F32, Float};
use crate::mem::aligned::RawBytes;
use crate::mem::split::TileMut;
use crate::tensor::{Activations, Matrix};
use core::marker::PhantomData;

/// Lanes of a sum.
pub(super) const LANES: usize = 16;

/// Bytes between what is read for the first time and what is asked for.
pub(super) const AHEAD: usize = 16 << 10;

/// An instruction set that holds the 16 lanes of a sum. A value of the type is the proof that the CPU has it.
pub(super) trait Wide: Copy {
    /// Whether one column takes the rows one after the other: prefetchers follow one stream best, and from memory that
    /// counts for more than what rows can share.
    const ONE_STREAM: bool;
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
    /// The same where no product needs rounding: fused or not.
    fn add_exact(self, acc: Self::Lanes, w: Self::Lanes, x: Self::Lanes) -> Self::Lanes;
    /// Asks for `bytes` bytes of memory from `start` on to be brought near. Any address is allowed.
    fn prefetch(self, start: *const u8, bytes: usize);
    /// All outputs of a tile with several columns; `false` if the matrix has fewer rows than are taken together.
    #[inline(always)]
    fn columns<T: FloatWeights>(self, tile: &mut Tile<'_, '_, '_, Self, T>) -> bool {
        tile.run::<2, 2>()
    }
    /// Lane `l` takes lane `l + 8`, then `l + 4`, `l + 2`, `l + 1`.
    fn tree(self, v: Self::Lanes) -> f32;
}

/// 16 elements of a row, all inside, at any alignment.
pub(super) struct Run<'w, B> {
    start: *const u8,
    elements: PhantomData<&'w B>,
}

impl<B> Run<'_, B> {
    /// The first element; 16 of them may be read.
    #[inline(always)]
    pub(super) fn as_ptr(&self) -> *const u8 {
        self.start
    }
}

/// A type of float weights as the kernels see it.
pub(super) trait FloatWeights: Float {
    /// 16 weights.
    fn load<W: Wide>(isa: W, from: Run<'_, Self::Bits>) -> W::Lanes;

    /// `acc + w * x`.
    #[inline(always)]
    fn add_product<W: Wide>(isa: W, acc: W::Lanes, w: W::Lanes, x: W::Lanes) -> W::Lanes {
        isa.add_product(acc, w, x)
    }
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

    /// The activations are short.
    #[inline(always)]
    fn add_product<W: Wide>(isa: W, acc: W::Lanes, w: W::Lanes, x: W::Lanes) -> W::Lanes {
        isa.add_exact(acc, w, x)
    }
}

impl FloatWeights for Bf16 {
    #[inline(always)]
    fn load<W: Wide>(isa: W, from: Run<'_, u16>) -> W::Lanes {
        isa.load_bf16(from)
    }
}

/// Neighbouring rows, all inside the matrix, cut into runs of 16 elements.
pub(super) struct Panel<'w, T: FloatWeights, const R: usize> {
    bytes: RawBytes<'w>,
    starts: [*const u8; R],
    /// Bytes from a row to the next.
    pub(super) stride: usize,
    weights: PhantomData<T>,
}

impl<'w, T: FloatWeights, const R: usize> Panel<'w, T, R> {
    /// The rows from `first` on, or `None` when they are not all there.
    #[inline(always)]
    pub(super) fn new(w: &Matrix<'w>, first: usize) -> Option<Self> {
        // Where the type of `w` is `T`, as it should be, the bytes of a row; found without looking that up for every one.
        let stride = w.cols().checked_mul(size_of::<T::Bits>())?;
        let bytes = w.bytes().sub(first.checked_mul(stride)?, stride.checked_mul(R)?)?;
        let mut starts = [bytes.as_ptr(); R];
        for r in 0..R {
            starts[r] = bytes.as_ptr().wrapping_add(r * stride);
        }
        Some(Self { bytes, starts, stride, weights: PhantomData })
    }

    /// The first row. Whole runs may be read in all rows.
    #[inline(always)]
    pub(super) fn start(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    /// Whole runs of a row.
    #[inline(always)]
    pub(super) fn runs(&self) -> usize {
        self.stride / (LANES * size_of::<T::Bits>())
    }

    /// What lies behind the whole runs of the rows, made something else, to the beginning of each line.
    #[inline(always)]
    pub(super) fn ends<V>(&self, out: &mut [[V; LANES]; R], value: impl Fn(T::Bits) -> V) {
        last_weights::<T, V>(self.bytes, self.stride, out, value);
    }

    /// Run `index` of row `row`; `None` behind the last whole run.
    #[inline(always)]
    fn run<W: Wide>(&self, isa: W, row: usize, index: usize) -> Option<W::Lanes> {
        if index >= self.runs() {
            return None;
        }
        let start = self.starts.get(row)?.wrapping_add(index * LANES * size_of::<T::Bits>());
        Some(T::load(isa, Run { start, elements: PhantomData }))
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
    let (&Activations::F32(all), true) = (x, w.dtype() == T::DTYPE) else { return };
    let cols = w.cols();
    let rows = out.width().min(w.rows().saturating_sub(out.first()));
    let x = all.get(out.first_line().saturating_mul(cols)..).unwrap_or_default();
    let lines = out.lines().min(x.len().checked_div(cols).unwrap_or(0));
    let mut tile = Tile { isa, w, x, rows, lines, out, weights: PhantomData::<T> };
    let done = match lines {
        2.. => isa.columns(&mut tile),
        _ if W::ONE_STREAM => tile.run::<1, 1>(),
        _ => tile.run::<4, 1>(),
    };
    if !done {
        scalar_linear::float::<T>(w, &Activations::F32(all), out, &mut []);
    }
}

/// What a tile consists of, cut down to what exists.
pub(super) struct Tile<'t, 'w, 'p, W, T> {
    isa: W,
    pub(super) w: &'t Matrix<'w>,
    /// The columns, from that of the first line on.
    pub(super) x: &'t [f32],
    pub(super) rows: usize,
    pub(super) lines: usize,
    pub(super) out: &'t mut TileMut<'p, f32>,
    weights: PhantomData<T>,
}

impl<W: Wide, T: FloatWeights> Tile<'_, '_, '_, W, T> {
    /// All outputs, `R` rows and `C` columns at a time; `false` if the matrix has fewer rows. The last rows are taken together
    /// with some before them, the last columns with the last one again, and what is too much of the results is dropped.
    #[inline(always)]
    fn run<const R: usize, const C: usize>(&mut self) -> bool {
        let cols = self.w.cols();
        let Some(last) = self.w.rows().checked_sub(R) else { return false };
        for row in (0..self.rows).step_by(R) {
            let wanted = self.out.first() + row;
            let first = wanted.min(last);
            let skip = if R > 1 { wanted - first } else { 0 };
            let Some(panel) = Panel::<T, R>::new(self.w, first) else { return false };
            for line in (0..self.lines).step_by(C) {
                let mut x: [&[f32]; C] = [&[]; C];
                for (c, x) in x.iter_mut().enumerate() {
                    let start = (line + c).min(self.lines - 1) * cols;
                    *x = self.x.get(start..start + cols).unwrap_or_default();
                }
                let sums = dots::<W, T, R, C>(self.isa, &panel, &x, cols, line == 0);
                for (c, sums) in sums.iter().enumerate().take(self.lines - line) {
                    let out = self.out.line(line + c).get_mut(row..self.rows).unwrap_or_default();
                    for (out, sum) in out.iter_mut().zip(sums.get(skip..).unwrap_or_default()) {
                        *out = *sum;
                    }
                }
            }
        }
        true
    }
}

/// The dot products of `R` rows with `C` columns of `cols` values, `[column][row]`. At the first use of the rows those
/// [`AHEAD`] are asked for.
#[inline(always)]
fn dots<W: Wide, T: FloatWeights, const R: usize, const C: usize>(
    isa: W,
    panel: &Panel<'_, T, R>,
    x: &[&[f32]; C],
    cols: usize,
    first_use: bool,
) -> [[f32; R]; C] {
    let runs = cols / LANES;
    let mut chunks: [&[[f32; LANES]]; C] = [&[]; C];
    for c in 0..C {
        chunks[c] = x[c].as_chunks().0.get(..runs).unwrap_or_default();
    }
    // Touched by constant indices alone, so that they stay in registers.
    let mut sums = [[isa.zero(); R]; C];
    let ahead = panel.start().wrapping_add(AHEAD);
    // None is missing, which the compiler does not know: so it need not look at every one.
    let runs = chunks.iter().fold(runs.min(panel.runs()), |runs, x| runs.min(x.len()));
    let step = R * LANES * size_of::<T::Bits>();
    // It is never left early. To go on with zeros instead would cost registers.
    'runs: for i in 0..runs {
        if first_use {
            isa.prefetch(ahead.wrapping_add(i * step), step);
        }
        let mut weights = [isa.zero(); R];
        for r in 0..R {
            let Some(run) = panel.run(isa, r, i) else { break 'runs };
            weights[r] = run;
        }
        for c in 0..C {
            let Some(values) = chunks[c].get(i) else { break 'runs };
            let values = isa.load(values);
            for r in 0..R {
                sums[c][r] = T::add_product(isa, sums[c][r], weights[r], values);
            }
        }
    }
    let mut acc = sums;
    if !cols.is_multiple_of(LANES) {
        rest::<W, T, R, C>(isa, panel, x, cols / LANES * LANES, &mut acc);
    }
    let mut sums = [[0.0; R]; C];
    for c in 0..C {
        for r in 0..R {
            sums[c][r] = isa.tree(acc[c][r]);
        }
    }
    sums
}

/// The last, incomplete run, from value `first` on.
///
/// Behind the last value stand zeros on both sides. A lane is never -0 (it starts at 0), so adding their product changes
/// nothing.
#[inline(always)]
fn rest<W: Wide, T: FloatWeights, const R: usize, const C: usize>(
    isa: W,
    panel: &Panel<'_, T, R>,
    x: &[&[f32]; C],
    first: usize,
    acc: &mut [[W::Lanes; R]; C],
) {
    let (mut weights, mut values) = ([[0.0; LANES]; R], [[0.0; LANES]; C]);
    panel.ends(&mut weights, T::value);
    last_values(x, first, &mut values);
    for r in 0..R {
        for c in 0..C {
            acc[c][r] = T::add_product(isa, acc[c][r], isa.load(&weights[r]), isa.load(&values[c]));
        }
    }
}

/// The elements behind whole runs of some rows, `stride` bytes long, made something else. Once for all kernels.
#[inline(never)]
fn last_weights<T: Float, V>(
    rows: RawBytes<'_>,
    stride: usize,
    out: &mut [[V; LANES]],
    value: impl Fn(T::Bits) -> V,
) {
    let len = stride / size_of::<T::Bits>();
    for (row, out) in out.iter_mut().enumerate() {
        for (index, out) in (len / LANES * LANES..len).zip(out) {
            *out = value(rows.read(row * len + index));
        }
    }
}

/// The values of some columns from `first` on. Once for all kernels.
#[inline(never)]
fn last_values(columns: &[&[f32]], first: usize, out: &mut [[f32; LANES]]) {
    for (column, out) in columns.iter().zip(out) {
        for (value, out) in column.get(first..).unwrap_or_default().iter().zip(out) {
            *out = *value;
        }
    }
}
