//! Linear layers of quantised weights with rows side by side: one 32-bit lane a row.
//!
//! Everything here is safe and generic over the instruction set ([`Lanes`]). Some rows are taken together. A part (32
//! values) of each is turned so that register `g` holds the values `4 g` to `4 g + 3` of every row. Four activations
//! in every lane then meet four weights of each row, the integer sums need no step across lanes, and the float steps
//! are those of the specification with one row a lane. Integer sums are exact, so their order is free.
//!
//! A few columns read the weights as they lie in the file. For more, a group of rows is turned once into scratch memory
//! and used for all columns of the tile.
//!
//! All functions are inlined into two roots, which switch the instruction set on: a call in between would be compiled
//! without it. [`linear`] belongs into one a type, [`packed`] into one for all types whose parts are alike.

#![allow(clippy::needless_range_loop, reason = "arrays of registers are clearer with indices")]

mod abreast;
mod dot;
mod packed;
mod types;

use abreast::Abreast;
use dot::{Dot, WithoutRests};
pub(super) use packed::{BOTH, Line, PackedColumns, packed, scratch};
use packed::{Pack, part_registers};
pub(super) use types::Weights;

use super::scalar_linear;
use crate::mem::aligned::RawBytes;
use crate::mem::split::TileMut;
use crate::tensor::{Act8, Activations, BLOCK, Blocks, Matrix, Sums};
use core::marker::PhantomData;

/// An instruction set that holds one row a lane. A value of the type is the proof that the CPU has it.
pub(super) trait Lanes: Copy {
    /// Rows taken together.
    const ROWS: usize;
    /// Whether there are registers for eight columns at once: then so many read the weights as they lie.
    const ROOMY: bool;
    /// 32 bits a row.
    type Int: Copy;
    /// One `f32` a row.
    type Float: Copy;

    /// 16 bytes of each row from byte `offset` of the block on: bytes `4 g` to `4 g + 3` in result `g`.
    fn quads<B>(self, at: At<'_, Self, B>, offset: usize) -> [Self::Int; 4];
    /// 32 bytes of each row likewise, for types whose weights are much work; where they are little, memory counts, and
    /// two halves after each other are no slower.
    #[inline(always)]
    fn eights<B>(self, at: At<'_, Self, B>, offset: usize) -> [Self::Int; 8] {
        types::byte_block(self, at, offset)
    }
    /// 4 bytes of each row.
    fn words<B>(self, at: At<'_, Self, B>, offset: usize) -> Self::Int;
    /// An f16 of each row.
    fn halves<B>(self, at: At<'_, Self, B>, offset: usize) -> Self::Float;
    /// The f16 in the low and that in the high half of each lane.
    fn half_pair(self, v: Self::Int) -> [Self::Float; 2];

    /// The same byte everywhere.
    fn bytes(self, value: u8) -> Self::Int;
    /// Bitwise and.
    fn and(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Bitwise or.
    fn or(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// The low halves of the bytes of `low`, and the high halves of those of `high`.
    #[inline(always)]
    fn low_halves(self, low: Self::Int, high: Self::Int) -> Self::Int {
        self.or(self.and(low, self.bytes(0x0f)), self.and(high, self.bytes(0xf0)))
    }
    /// Bits `by` places up, or down when negative, within 16-bit lanes; what crosses bytes is for the caller to mask.
    fn shift(self, v: Self::Int, by: i32) -> Self::Int;
    /// The high half of each lane of `low`, and above it the low half of that of `high`.
    fn middle(self, low: Self::Int, high: Self::Int) -> Self::Int;
    /// Adds 16 to those of the four bytes of each lane, all below 16, whose bit of bits `4 g` to `4 g + 3` is set.
    fn add_sixteens(self, w: Self::Int, bits: Self::Int, g: usize) -> Self::Int;
    /// Byte `i` of each lane as a number from 0 to 255.
    fn byte(self, v: Self::Int, i: usize) -> Self::Float;
    /// Byte `i` of each lane as a number from -128 to 127.
    fn signed_byte(self, v: Self::Int, i: usize) -> Self::Float;

    /// The same integer in every lane.
    fn splat(self, value: i32) -> Self::Int;
    /// Each integer as a float, rounded to nearest even.
    fn float(self, v: Self::Int) -> Self::Float;
    /// The same float in every lane.
    fn floats(self, value: f32) -> Self::Float;
    /// Sum.
    fn add(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// Product.
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// The float with the other sign.
    fn neg(self, v: Self::Float) -> Self::Float;

    /// The weights as [`dot`](Self::dot) wants them.
    fn ready(self, codes: Codes, w: [Self::Int; 8]) -> [Self::Int; 8];
    /// `sum w q` of `N` columns, exactly: the whole sum in the first place, or, for [`Codes::SixMinus32`], that of the
    /// first 16 and that of the second 16 values. `w` is what [`ready`](Self::ready) has made.
    fn dot<const N: usize>(self, codes: Codes, w: &[Self::Int; 8], x: &[&Act8; N]) -> [[Self::Int; N]; 2];

    /// As [`dot`](Self::dot), of weights in the low and then in the high halves of 16 bytes a row, not ready.
    #[inline(always)]
    fn dot_nibbles<const N: usize>(
        self,
        codes: Codes,
        bytes: [Self::Int; 4],
        x: &[&Act8; N],
    ) -> [[Self::Int; N]; 2] {
        self.dot(codes, &self.ready(codes, types::split(self, bytes)), x)
    }

    /// The sums of two groups of rows with the products of a part of each and the same columns added, as
    /// [`Pack`](packed::Pack) has written it for a type like `T`.
    #[inline(always)]
    fn add_both<T: Weights>(
        self,
        sums: [[Self::Float; BOTH]; 2],
        [a, b]: [Line<'_, Self, T>; 2],
        x: &[&Act8; BOTH],
    ) -> [[Self::Float; BOTH]; 2] {
        [dot::add_packed(self, sums[0], &a, x), dot::add_packed(self, sums[1], &b, x)]
    }

    /// Registers that [`keep_scales`](Self::keep_scales) writes.
    const SCALES: usize = 1;
    /// Writes a scale of each row for [`times`](Self::times).
    #[inline(always)]
    fn keep_scales(self, d: Self::Float, out: &mut [f32]) {
        self.store(d, out);
    }
    /// Whether [`times`](Self::times) will be right for these scales, and this minimum times zero be zero.
    #[inline(always)]
    fn usual(self, _d: [Self::Float; 2], _m: Self::Float) -> bool {
        true
    }
    /// The scales of which [`keep_scales`](Self::keep_scales) has written `scales`.
    #[inline(always)]
    fn scale(self, scales: &[f32]) -> Self::Float {
        self.load(scales)
    }
    /// The product of the scales of which [`keep_scales`](Self::keep_scales) has written `scales` with the scale of an
    /// activation block, unless that is NaN.
    #[inline(always)]
    fn times(self, scales: &[f32], da: f32) -> Self::Float {
        self.mul(self.load(scales), self.floats(da))
    }

    /// The bits of one register, to the first [`ROWS`](Self::ROWS) elements of `out` if there are so many.
    fn keep(self, v: Self::Int, out: &mut [f32]);
    /// As [`keep`](Self::keep).
    fn store(self, v: Self::Float, out: &mut [f32]);
    /// What [`keep`](Self::keep) has written; zeros when `from` is too short.
    fn recall(self, from: &[f32]) -> Self::Int;
    /// What [`store`](Self::store) has written; zeros when `from` is too short.
    fn load(self, from: &[f32]) -> Self::Float;
    /// The same address, of which the compiler knows nothing any more: it is to reckon with distances from this one, and
    /// not to step an address a row.
    #[inline(always)]
    fn opaque(self, address: *const u8) -> *const u8 {
        address
    }
    /// Asks for `bytes` bytes of memory from `start` on to be brought near. Any address is allowed.
    fn prefetch(self, start: *const u8, bytes: usize);
}

/// How the integer weights `w` are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codes {
    /// `w`, 0 to 15.
    Four,
    /// `w + 8`, 0 to 15.
    FourMinus8,
    /// `w`, 0 to 31.
    Five,
    /// `w + 16`, 0 to 31.
    FiveMinus16,
    /// `w + 32`, 0 to 63; each 16 values have a scale of their own.
    SixMinus32,
    /// `w`, -128 to 127.
    Signed8,
}

impl Codes {
    /// Whether each 16 values have a scale of their own.
    pub(super) const fn halves(self) -> bool {
        matches!(self, Codes::SixMinus32)
    }

    /// What sums of products with the stored weights start with so that they end as those with `w`, for weights that
    /// are not negative.
    #[inline(always)]
    pub(super) fn starts(self, sums: &Sums) -> [i32; 2] {
        match self {
            Codes::Four | Codes::Five | Codes::Signed8 => [0; 2],
            Codes::FourMinus8 => [sums.less[0], 0],
            Codes::FiveMinus16 => [sums.less[1], 0],
            Codes::SixMinus32 => sums.less32,
        }
    }
}

/// Rows of a matrix that are taken together: [`Lanes::ROWS`] of them, all inside.
pub(super) struct Rows<'w, L> {
    bytes: RawBytes<'w>,
    stride: usize,
    /// The rows to ask for meanwhile, [`AHEAD`] groups on; behind the last ones the beginning of [`Matrix::then`].
    ahead: *const u8,
    lanes: PhantomData<L>,
}

impl<'w, L: Lanes> Rows<'w, L> {
    /// The rows from `first` on, or `None` when they are not all there.
    #[inline(always)]
    fn new(w: &Matrix<'w>, first: usize) -> Option<Self> {
        let stride = w.row_bytes();
        let bytes = w.bytes().sub(first.checked_mul(stride)?, stride.checked_mul(L::ROWS)?)?;
        let then = w.then();
        let ahead = match (first + AHEAD * L::ROWS).checked_sub(w.rows()) {
            Some(behind) if !then.is_empty() => then.as_ptr().wrapping_add(behind * stride),
            _ => bytes.as_ptr().wrapping_add(AHEAD * bytes.len()),
        };
        Some(Self { bytes, stride, ahead, lanes: PhantomData })
    }

    /// Where as many rows behind these would begin, and the bytes of either.
    #[inline(always)]
    fn behind(&self) -> (*const u8, usize) {
        (self.bytes.as_ptr().wrapping_add(self.bytes.len()), self.bytes.len())
    }

    /// Block `index` of every row.
    #[inline(always)]
    fn block<B>(&self, isa: L, index: usize) -> Option<At<'w, L, B>> {
        if index >= self.stride / size_of::<B>() {
            return None;
        }
        let start = isa.opaque(self.bytes.as_ptr().wrapping_add(index * size_of::<B>()));
        let ahead = self.ahead.wrapping_add(index * L::ROWS * size_of::<B>());
        Some(At { start, stride: self.stride, ahead, rows: PhantomData, block: PhantomData })
    }

    /// Hands all parts of the first `blocks` blocks to `sink`.
    #[inline(always)]
    fn parts<T: Weights, S: Sink<L>>(&self, isa: L, blocks: usize, sink: &mut S) {
        let mut index = 0;
        while index < blocks {
            if blocks - index >= 4 && self.four::<T, S>(isa, index / 4, sink) {
                index += 4;
                continue;
            }
            let Some(at) = self.block::<T>(isa, index) else { return };
            T::parts(isa, at, sink);
            index += 1;
        }
    }

    /// Hands the parts of four blocks to `sink`, if that is faster than one by one.
    #[inline(always)]
    fn four<T: Weights, S: Sink<L>>(&self, isa: L, index: usize, sink: &mut S) -> bool {
        let Some(at) = self.block::<[T; 4]>(isa, index) else { return false };
        let Some(mut four) = sink.without_rests::<T>() else { return T::four(isa, at, sink) };
        let done = T::four(isa, at, &mut four);
        let sum = four.acc;
        if done {
            sink.skip_four(sum);
        }
        done
    }
}

/// The same block `B` of [`Lanes::ROWS`] rows, all inside the matrix.
pub(super) struct At<'w, L, B> {
    start: *const u8,
    stride: usize,
    /// Memory of rows to come, as much as this block of all rows has.
    ahead: *const u8,
    rows: PhantomData<Rows<'w, L>>,
    block: PhantomData<B>,
}

impl<L, B> Clone for At<'_, L, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L, B> Copy for At<'_, L, B> {}

impl<L: Lanes, B> At<'_, L, B> {
    /// The address of byte `offset` of the first row's block, and the distance of the rows. `len` bytes may be read at
    /// this address and at the following `L::ROWS - 1` distances: an `offset` too large is made smaller.
    #[inline(always)]
    pub(super) fn bytes(&self, offset: usize, len: usize) -> (*const u8, usize) {
        const { assert!(size_of::<B>() >= 16) };
        (self.start.wrapping_add(offset.min(size_of::<B>().saturating_sub(len))), self.stride)
    }

    /// Asks for piece `index` of `count` of the memory ahead: a few lines each time, since what waits for more than a CPU
    /// can keep in mind holds up the loads behind it.
    #[inline(always)]
    fn ask<S: Sink<L>>(&self, isa: L, index: usize, count: usize) {
        self.ask_in::<S>(isa, (0, 1), index, count);
    }

    /// As [`ask`](Self::ask), of one of so many shares of the memory: which one need not be known to the compiler, so that
    /// a loop can ask too.
    #[inline(always)]
    fn ask_in<S: Sink<L>>(&self, isa: L, (share, shares): (usize, usize), index: usize, count: usize) {
        if !S::ASK {
            return;
        }
        let lines = (L::ROWS * size_of::<B>()).div_ceil(LINE).div_ceil(shares);
        let (from, to) = (index * lines / count, (index + 1) * lines / count);
        isa.prefetch(self.ahead.wrapping_add((share * lines + from) * LINE), (to - from) * LINE);
    }
}

/// A part (32 values) of the rows.
pub(super) struct Part<L: Lanes> {
    /// Weights `4 g` to `4 g + 3` in element `g`, a signed or unsigned byte each.
    w: [L::Int; 8],
    /// Scale of the first and of the second 16 values.
    d: [L::Float; 2],
    /// Minimum.
    m: L::Float,
}

/// Takes the parts of rows one after the other.
pub(super) trait Sink<L: Lanes> {
    /// Whether a part is so much work, or so seldom, that the code for the parts of a block is a loop. Else it is written
    /// out, which takes as many times the space as a block has parts.
    const LOOP: bool;
    /// Whether memory of rows to come is asked for on the way.
    const ASK: bool = true;

    /// The next part.
    fn part(&mut self, part: Part<L>);
    /// As [`part`](Self::part), of weights as in [`Lanes::dot_nibbles`].
    #[inline(always)]
    fn nibbles(&mut self, isa: L, bytes: [L::Int; 4], d: L::Float, m: L::Float) {
        self.part(Part { w: types::split(isa, bytes), d: [d; 2], m });
    }
    /// A sink for the next four parts that decides nothing between them, if there is one: a CPU begins a part before the end
    /// of the one before it then.
    #[inline(always)]
    fn without_rests<T: Weights>(&self) -> Option<WithoutRests<'_, L, T>> {
        None
    }
    /// [`without_rests`](Self::without_rests) has had the next four parts, with this sum.
    #[inline(always)]
    fn skip_four(&mut self, _sum: L::Float) {}
}

/// `N` columns of `parts` parts from `line` on, the last one again behind it.
#[inline(always)]
fn columns<const N: usize>(x: &[Act8], parts: usize, line: usize, lines: usize) -> [&[Act8]; N] {
    let mut columns = [&[] as &[Act8]; N];
    for c in 0..N {
        let start = (line + c).min(lines.saturating_sub(1)) * parts;
        columns[c] = x.get(start..start + parts).unwrap_or_default();
    }
    columns
}

/// As [`columns`], once for all kernels.
#[inline(never)]
fn columns_apart<const N: usize>(x: &[Act8], parts: usize, line: usize, lines: usize) -> [&[Act8]; N] {
    columns(x, parts, line, lines)
}

/// Groups of rows between the one that is read and the one that is asked for. Rows are short streams that a hardware
/// prefetcher loses; the groups follow one another, so a few ahead is one linear stream.
const AHEAD: usize = 2;

/// Bytes of a line of the caches.
const LINE: usize = 64;

/// A linear layer of type `T`; to be inlined into a root function with the instruction set of `isa`. `columns` are those
/// of [`Weights::Alike`].
#[inline(always)]
pub(super) fn linear<L: Lanes, T: Weights>(
    isa: L,
    w: &Matrix<'_>,
    x: &Activations<'_>,
    out: &mut TileMut<'_, f32>,
    scratch: &mut [f32],
    columns: PackedColumns,
) {
    if w.rows() < L::ROWS || w.dtype() != T::DTYPE {
        return scalar_linear::quantised::<T>(w, x, out, scratch);
    }
    let (parts, asked) = (w.cols() / BLOCK, out.width());
    let rows = asked.min(w.rows().saturating_sub(out.first()));
    // Activations of the lines, and how many have some.
    let from = out.first_line().saturating_mul(parts);
    let Activations::Q8(x) = x else { return };
    let x = Blocks { blocks: x.blocks.get(from..).unwrap_or_default(), ..*x };
    let lines = out.lines().min(x.blocks.len().checked_div(parts).unwrap_or(0));
    let packed = part_registers::<L, T>() * L::ROWS * parts;
    let direct = if L::ROOMY { 8 } else { 1 };
    // Two groups of rows at once, where there is room for them.
    let most = if L::ROOMY && scratch.len() >= 2 * packed { 2 } else { 1 };
    let mut scratch = if lines > direct { scratch.get_mut(..most * packed) } else { None };
    let mut top = 0;
    while top < rows {
        let mut groups = if scratch.is_some() && rows - top >= most * L::ROWS { most } else { 1 };
        // The last rows are taken together with some before them, so that a group never leaves the matrix.
        let wanted = out.first() + top;
        let first = wanted.min(w.rows().saturating_sub(L::ROWS));
        let Some(group) = Rows::<L>::new(w, first) else { return };
        let (mut last, mut usual) = (group.behind(), true);
        if let Some(scratch) = scratch.as_deref_mut() {
            for (number, scratch) in scratch.chunks_exact_mut(packed.max(1)).take(groups).enumerate() {
                let Some(group) = Rows::<L>::new(w, first + number * L::ROWS) else { return };
                let mut pack = Pack::<L, T>::new(isa, scratch);
                group.parts::<T, _>(isa, parts / T::PARTS, &mut pack);
                last = (group.behind().0, groups * group.behind().1);
                usual &= pack.usual;
            }
        }
        if !usual {
            groups = 1;
        }
        let mut strip = Strip {
            out: &mut *out,
            lines,
            top,
            rows: (groups * L::ROWS).min(rows - top),
            skip: wanted - first,
            ahead: last.0,
            share: last.1.div_ceil(lines.max(1)),
        };
        top += groups * L::ROWS;
        let scratch = scratch.as_deref().filter(|_| usual);
        match scratch.map(|scratch| scratch.get(..groups * packed).unwrap_or_default()) {
            Some(weights) => columns(weights, x, parts, &mut strip),
            None => as_they_lie::<L, T>(isa, &group, x, parts, &mut strip),
        }
    }
}

/// All columns, with the weights as they lie.
#[inline(always)]
fn as_they_lie<L: Lanes, T: Weights>(
    isa: L,
    rows: &Rows<'_, L>,
    x: Blocks<'_>,
    parts: usize,
    strip: &mut Strip<'_, '_>,
) {
    let mut line = 0;
    while line < strip.lines {
        line += match strip.lines - line {
            5.. if L::ROOMY => some_as_they_lie::<L, T, 8>(isa, rows, x, parts, line, strip),
            2.. if L::ROOMY => some_as_they_lie::<L, T, 4>(isa, rows, x, parts, line, strip),
            _ => some_as_they_lie::<L, T, 1>(isa, rows, x, parts, line, strip),
        };
    }
}

/// `N` columns from `line` on, or as many as there are.
#[inline(always)]
fn some_as_they_lie<L: Lanes, T: Weights, const N: usize>(
    isa: L,
    rows: &Rows<'_, L>,
    x: Blocks<'_>,
    parts: usize,
    line: usize,
    strip: &mut Strip<'_, '_>,
) -> usize {
    let lines = strip.lines;
    let pieces = match N {
        1 => columns(x.blocks, parts, line, lines),
        _ => columns_apart(x.blocks, parts, line, lines),
    };
    let mut dot = Dot::<L, T, N>::new(isa, Abreast::new(pieces), x);
    rows.parts::<T, _>(isa, parts / T::PARTS, &mut dot);
    dot.finish(strip, line);
    N
}

/// The outputs of a group of rows.
pub(super) struct Strip<'t, 'p> {
    out: &'t mut TileMut<'p, f32>,
    /// Lines that have a column.
    lines: usize,
    /// First row, within the tile.
    top: usize,
    /// How many.
    rows: usize,
    /// Lanes before the first one that is wanted.
    skip: usize,
    /// Where the weights of the next rows begin.
    ahead: *const u8,
    /// How many bytes of them there are for each line.
    share: usize,
}

impl Strip<'_, '_> {
    /// The outputs of one line.
    #[inline(always)]
    fn place(&mut self, line: usize) -> &mut [f32] {
        self.out.line(line).get_mut(self.top..self.top + self.rows).unwrap_or_default()
    }

    /// Writes the lanes that are wanted to the lines from `line` on, as many as there are. Once for all kernels.
    #[inline(never)]
    fn write(&mut self, line: usize, sums: &[[f32; 16]]) {
        let lanes = self.skip..self.skip + self.rows;
        for (c, sums) in sums.iter().enumerate().take(self.lines.saturating_sub(line)) {
            let place = self.place(line + c);
            // Nearly always; of a length that the compiler knows.
            if let (0, Ok(place)) = (lanes.start, <&mut [f32; 16]>::try_from(&mut *place)) {
                *place = *sums;
                continue;
            }
            for (out, sum) in place.iter_mut().zip(sums.get(lanes.clone()).unwrap_or_default()) {
                *out = *sum;
            }
        }
    }
}
