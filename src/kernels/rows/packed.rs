//! Weights of a group of rows that are turned once, into scratch memory, and used for many columns.

use super::{Abreast, Dot, LINE, Lanes, Part, Sink, Strip, Weights, columns_apart};
use crate::tensor::{BLOCK, Blocks};
use core::marker::PhantomData;

/// Registers of a part in scratch memory: weights, the scale of the whole or those of its halves, and the minimum.
pub(super) const fn part_registers<L: Lanes, T: Weights>() -> usize {
    8 + if T::CODES.halves() { 2 } else { 1 } * L::SCALES + if T::MIN { 1 } else { 0 }
}

/// Floats of scratch memory for a matrix of `cols` columns.
pub(in crate::kernels) fn scratch<L: Lanes>(cols: usize) -> usize {
    let registers = (if L::ROOMY { 2 } else { 1 }) * (8 + 2 * L::SCALES);
    (cols / BLOCK).saturating_mul(registers * L::ROWS)
}

/// Writes parts to scratch memory.
pub(super) struct Pack<'s, L, T> {
    isa: L,
    rest: &'s mut [f32],
    /// Whether all parts were [usual](Lanes::usual).
    pub usual: bool,
    weights: PhantomData<T>,
}

impl<'s, L, T> Pack<'s, L, T> {
    /// Writes to `scratch` as long as there is room.
    #[inline(always)]
    pub fn new(isa: L, scratch: &'s mut [f32]) -> Self {
        Self { isa, rest: scratch, usual: true, weights: PhantomData }
    }
}

impl<L: Lanes, T: Weights> Sink<L> for Pack<'_, L, T> {
    const LOOP: bool = true;
    // The columns do, which take longer.
    const ASK: bool = false;

    #[inline(always)]
    fn part(&mut self, part: Part<L>) {
        let rest = core::mem::take(&mut self.rest);
        let Some((line, rest)) = rest.split_at_mut_checked(part_registers::<L, T>() * L::ROWS) else {
            return;
        };
        self.rest = rest;
        let (weights, mut rest) = line.split_at_mut_checked(8 * L::ROWS).unwrap_or_default();
        for (w, to) in self.isa.ready(T::CODES, part.w).iter().zip(weights.chunks_exact_mut(L::ROWS)) {
            self.isa.keep(*w, to);
        }
        for d in part.d.iter().take(if T::CODES.halves() { 2 } else { 1 }) {
            let (scales, behind) = rest.split_at_mut_checked(L::SCALES * L::ROWS).unwrap_or_default();
            self.isa.keep_scales(*d, scales);
            rest = behind;
        }
        self.usual &= self.isa.usual(part.d, part.m);
        if T::MIN {
            self.isa.store(part.m, rest);
        }
    }
}

/// A part that [`Pack`] has written: eight registers of weights, by [`Lanes::keep`], what [`Lanes::keep_scales`] has written
/// of the first half or the whole and of the second, if they have scales of their own, and the minimum, if there is one.
pub(in crate::kernels) struct Line<'s, L, T> {
    floats: &'s [f32],
    of: PhantomData<(L, T)>,
}

impl<L, T> Clone for Line<'_, L, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L, T> Copy for Line<'_, L, T> {}

impl<'s, L: Lanes, T: Weights> Line<'s, L, T> {
    /// Floats of a part.
    pub const LEN: usize = part_registers::<L, T>() * L::ROWS;
    /// Where the scales of the first and of the second half begin.
    pub const SCALES: [usize; 2] =
        [8 * L::ROWS, (8 + if T::CODES.halves() { L::SCALES } else { 0 }) * L::ROWS];
    /// Where the minimum is, if there is one.
    pub const MIN: usize = Self::LEN - L::ROWS;

    #[inline(always)]
    pub(super) fn new(floats: &'s [f32]) -> Self {
        Self { floats, of: PhantomData }
    }

    /// All of it.
    #[inline(always)]
    pub fn floats(&self) -> &'s [f32] {
        self.floats
    }

    /// The weights are ready.
    #[inline(always)]
    pub(super) fn weights(&self, isa: L) -> [L::Int; 8] {
        let mut w = [isa.splat(0); 8];
        for (w, from) in w.iter_mut().zip(self.floats().chunks_exact(L::ROWS)) {
            *w = isa.recall(from);
        }
        w
    }

    /// What belongs to the scales of a half.
    #[inline(always)]
    pub(super) fn scales(&self, half: usize) -> &'s [f32] {
        let from = Self::SCALES[half % 2];
        self.floats.get(from..from + L::SCALES * L::ROWS).unwrap_or_default()
    }

    /// Nothing of meaning where there is none.
    #[inline(always)]
    pub(super) fn min(&self, isa: L) -> L::Float {
        isa.load(self.floats.get(Self::MIN..).unwrap_or_default())
    }

    /// Reads back what was written: the weights are ready.
    #[inline(always)]
    pub(super) fn part(&self, isa: L) -> Part<L> {
        let d = [isa.scale(self.scales(0)), isa.scale(self.scales(1))];
        Part { w: self.weights(isa), d, m: self.min(isa) }
    }
}

/// Columns of weights that are packed: [`packed`], where the instruction set is on.
pub(in crate::kernels) type PackedColumns = fn(&[f32], Blocks<'_>, usize, &mut Strip<'_, '_>);

/// All columns, with the weights that [`Pack`] has written for a type like `T`; to be inlined into a root function with
/// the instruction set of `isa`.
#[inline(always)]
pub(in crate::kernels) fn packed<L: Lanes, T: Weights>(
    isa: L,
    weights: &[f32],
    x: Blocks<'_>,
    parts: usize,
    strip: &mut Strip<'_, '_>,
) {
    let mut line = 0;
    let groups = weights.chunks_exact((part_registers::<L, T>() * L::ROWS * parts).max(1));
    if L::ROOMY
        && let [first, second] = [0, 1].map(|group| groups.clone().nth(group).unwrap_or_default())
        && !second.is_empty()
    {
        // As long as a six is not half empty.
        while matches!(strip.lines - line, 5 | 6 | 9..) {
            both_packed::<L, T>(isa, [first, second], x, parts, line, strip);
            line = strip.lines.min(line + BOTH);
        }
    }
    for (group, weights) in groups.enumerate() {
        for line in (line..strip.lines).step_by(4) {
            some_packed::<L, T, 4>(isa, weights, x, parts, (line, group * L::ROWS), strip);
        }
    }
}

/// What some columns ask for of the weights of the next rows: a line a part, since many at once hold up the loads behind
/// them, and at first what is left then.
struct Ahead {
    start: *const u8,
    bytes: usize,
}

impl Ahead {
    /// For `columns` columns from `line` on.
    #[inline(always)]
    fn new<L: Lanes>(isa: L, strip: &Strip<'_, '_>, parts: usize, line: usize, columns: usize) -> Self {
        let start = strip.ahead.wrapping_add(line.wrapping_mul(strip.share));
        let (all, later) = (columns.wrapping_mul(strip.share), parts.wrapping_mul(LINE));
        let bytes = all.min(later);
        isa.prefetch(start.wrapping_add(bytes), all - bytes);
        Self { start, bytes }
    }

    /// Asks for the line of a part; one line again where there are fewer than parts.
    #[inline(always)]
    fn ask<L: Lanes>(&self, isa: L, part: usize) {
        isa.prefetch(self.start.wrapping_add((part * LINE).min(self.bytes)), 1);
    }
}

/// Columns that two groups of rows take together: every number that is broadcast serves both, where one group loads one
/// for each product, and each sum waits for no other.
pub(in crate::kernels) const BOTH: usize = 6;

/// [`BOTH`] columns from `line` on, or as many as there are, for two groups of rows.
#[inline(always)]
fn both_packed<L: Lanes, T: Weights>(
    isa: L,
    weights: [&[f32]; 2],
    x: Blocks<'_>,
    parts: usize,
    line: usize,
    strip: &mut Strip<'_, '_>,
) {
    let ahead = Ahead::new(isa, strip, parts, line, BOTH);
    let some = BOTH.min(strip.lines - line);
    let dot = || {
        let pieces = match x.blocks.get(line * parts..) {
            Some(x) if some == BOTH => Abreast::cut(x, parts),
            _ => Abreast::new(columns_apart(x.blocks, parts, line, strip.lines)),
        };
        Dot::<L, T, BOTH>::new(isa, pieces, x)
    };
    let mut dots = [dot(), dot()];
    let [first, second] = weights.map(|weights| weights.chunks_exact(part_registers::<L, T>() * L::ROWS));
    for (part, (first, second)) in first.zip(second).enumerate() {
        ahead.ask(isa, part);
        Dot::packed_parts(&mut dots, [first, second]);
    }
    let [first, second] = dots;
    for c in 0..BOTH {
        if c < some {
            let place = strip.place(line + c);
            isa.store(first.acc[c], place);
            isa.store(second.acc[c], place.get_mut(L::ROWS..).unwrap_or_default());
        }
    }
}

/// `N` columns from `line` on, or as many as there are, for the group of rows that begins at row `from` of the strip.
#[inline(always)]
fn some_packed<L: Lanes, T: Weights, const N: usize>(
    isa: L,
    weights: &[f32],
    x: Blocks<'_>,
    parts: usize,
    (line, from): (usize, usize),
    strip: &mut Strip<'_, '_>,
) {
    let ahead = Ahead::new(isa, strip, parts, line, N);
    let some = N.min(strip.lines - line);
    let pieces = match x.blocks.get(line * parts..) {
        Some(x) if some == N => Abreast::cut(x, parts),
        _ => Abreast::new(columns_apart(x.blocks, parts, line, strip.lines)),
    };
    let mut dot = Dot::<L, T, N>::new(isa, pieces, x);
    for (part, weights) in weights.chunks_exact(part_registers::<L, T>() * L::ROWS).enumerate() {
        ahead.ask(isa, part);
        dot.ready_part(&Line::<L, T>::new(weights).part(isa));
    }
    if strip.rows < from + L::ROWS {
        return dot.finish(strip, line);
    }
    // What is done between the columns is not done beside the products, so it is as little as can be.
    for c in 0..N {
        if c < some {
            isa.store(dot.acc[c], strip.place(line + c).get_mut(from..).unwrap_or_default());
        }
    }
}
