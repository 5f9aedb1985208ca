//! Products of the parts of a group of rows, or of two, with some columns, added up as the specification says.

#![allow(clippy::needless_range_loop, reason = "arrays of registers are clearer with indices")]

use super::abreast::Abreast;
use super::packed::{BOTH, Line};
use super::types::split;
use super::{Codes, Lanes, Part, Sink, Strip, Weights};
use crate::tensor::{Act8, BLOCK, Blocks, Sums};
use core::marker::PhantomData;

/// Adds up the products of parts with `N` columns.
pub(super) struct Dot<'x, L: Lanes, T, const N: usize> {
    isa: L,
    /// The sums so far.
    pub acc: [L::Float; N],
    x: Abreast<'x, Act8, N>,
    /// What the columns are taken from.
    of: Blocks<'x>,
    /// Parts so far.
    at: usize,
    weights: PhantomData<T>,
}

impl<'x, L: Lanes, T: Weights, const N: usize> Sink<L> for Dot<'x, L, T, N> {
    const LOOP: bool = N > 1;

    #[inline(always)]
    fn without_rests<U: Weights>(&self) -> Option<WithoutRests<'x, L, U>> {
        // Where it gains most for the code it takes.
        if N > 1 || !L::ROOMY || !matches!(U::CODES, Codes::Four | Codes::FourMinus8) {
            return None;
        }
        let x = self.x.run(self.at)?;
        let mut rests = 0;
        for x in x {
            rests |= x.rest;
        }
        let acc = *self.acc.first()?;
        (rests == 0).then_some(WithoutRests { isa: self.isa, acc, x, at: 0, weights: PhantomData })
    }

    #[inline(always)]
    fn skip_four(&mut self, sum: L::Float) {
        self.acc[0] = sum;
        self.at += 4;
    }

    #[inline(always)]
    fn part(&mut self, part: Part<L>) {
        let w = self.isa.ready(T::CODES, part.w);
        self.ready_part(&Part { w, ..part });
    }

    #[inline(always)]
    fn nibbles(&mut self, isa: L, bytes: [L::Int; 4], d: L::Float, m: L::Float) {
        if N > 1 {
            return self.part(Part { w: split(isa, bytes), d: [d; 2], m });
        }
        let Some(x) = self.x.get(self.at) else { return };
        let add = |acc, x: &[&Act8; N]| {
            let sums = isa.dot_nibbles(T::CODES, bytes, x);
            scaled::<L, T, N>(isa, acc, sums, |_, da| isa.mul(d, isa.floats(da)), m, x)
        };
        self.acc = add(self.acc, &x);
        if let Some(rest) = x.first().and_then(|x| self.of.rest(x)) {
            self.acc = add(self.acc, &[rest; N]);
        }
        self.at += 1;
    }
}

/// Adds up the products of four parts with one column, none of whose blocks has a rest.
pub(in crate::kernels) struct WithoutRests<'x, L: Lanes, T> {
    isa: L,
    /// The sum so far.
    pub(super) acc: L::Float,
    x: &'x [Act8; 4],
    at: usize,
    weights: PhantomData<T>,
}

impl<L: Lanes, T: Weights> Sink<L> for WithoutRests<'_, L, T> {
    const LOOP: bool = false;

    #[inline(always)]
    fn part(&mut self, part: Part<L>) {
        let Some(x) = self.x.get(self.at) else { return };
        let w = self.isa.ready(T::CODES, part.w);
        [self.acc] = steps::<L, T, 1>(self.isa, [self.acc], &Part { w, ..part }, &[x]);
        self.at += 1;
    }

    #[inline(always)]
    fn nibbles(&mut self, isa: L, bytes: [L::Int; 4], d: L::Float, m: L::Float) {
        let Some(x) = self.x.get(self.at) else { return };
        let sums = isa.dot_nibbles(T::CODES, bytes, &[x]);
        [self.acc] = scaled::<L, T, 1>(isa, [self.acc], sums, |_, da| isa.mul(d, isa.floats(da)), m, &[x]);
        self.at += 1;
    }
}

impl<'x, L: Lanes, T: Weights, const N: usize> Dot<'x, L, T, N> {
    /// Sums of nothing yet.
    #[inline(always)]
    pub fn new(isa: L, x: Abreast<'x, Act8, N>, of: Blocks<'x>) -> Self {
        Self { isa, acc: [isa.floats(0.0); N], x, of, at: 0, weights: PhantomData }
    }

    /// As [`Sink::part`], with weights that are ready.
    #[inline(always)]
    pub fn ready_part(&mut self, part: &Part<L>) {
        let Some(x) = self.x.get(self.at) else { return };
        self.acc = steps::<L, T, N>(self.isa, self.acc, part, &x);
        if any_rest(&x) {
            self.acc = match N {
                1 => {
                    let [acc] = with_rests::<L, T, N, 1>(self.isa, [self.acc], [part], &x, &self.of);
                    acc
                }
                _ => with_rests_by_memory::<L, T, N>(self.isa, self.acc, part, &x, &self.of),
            };
        }
        self.at += 1;
    }

    /// Writes the sums to the lines of `strip` from `line` on, as many as there are.
    #[inline(always)]
    pub fn finish(self, strip: &mut Strip<'_, '_>, line: usize) {
        if N == 1 && strip.rows == L::ROWS {
            return self.isa.store(self.acc[0], strip.place(line));
        }
        let mut sums = [[0.0; 16]; N];
        for c in 0..N {
            self.isa.store(self.acc[c], &mut sums[c]);
        }
        strip.write(line, &sums);
    }
}

impl<L: Lanes, T: Weights> Dot<'_, L, T, BOTH> {
    /// As [`ready_part`](Self::ready_part), for two groups of rows with the same columns, by what
    /// [`Pack`](super::packed::Pack) has written of each.
    #[inline(always)]
    pub fn packed_parts([a, b]: &mut [Self; 2], lines: [&[f32]; 2]) {
        let Some(x) = a.x.get(a.at) else { return };
        let lines = lines.map(Line::<L, T>::new);
        [a.acc, b.acc] = a.isa.add_both([a.acc, b.acc], lines, &x);
        if any_rest(&x) {
            let (mut rests, mut count) = ([&NOTHING; BOTH], 0);
            for c in 0..BOTH {
                if let Some(rest) = a.of.rest(x[c]) {
                    (rests[c], count) = (rest, count + 1);
                }
            }
            [a.acc, b.acc] = if count > 2 {
                a.isa.add_both([a.acc, b.acc], lines, &rests)
            } else {
                let parts = [&lines[0].part(a.isa), &lines[1].part(a.isa)];
                with_rests::<L, T, BOTH, 2>(a.isa, [a.acc, b.acc], parts, &x, &a.of)
            };
            for c in 0..BOTH {
                // `times` makes a number of it.
                if x[c].scale.is_nan() {
                    let nan = a.isa.floats(x[c].scale);
                    (a.acc[c], b.acc[c]) = (a.isa.add(a.acc[c], nan), b.isa.add(b.acc[c], nan));
                }
            }
        }
        (a.at, b.at) = (a.at + 1, b.at + 1);
    }
}

/// 32 zeros.
const NOTHING: Act8 =
    Act8 { scale: 1.0, sums: Sums { scaled: 0.0, less: [0; 3], less32: [0; 2] }, rest: 0, q: [0; BLOCK] };

/// `acc` with the products of a part and one block of each column added; see [`Lanes::add_both`].
#[inline(always)]
pub(super) fn add_packed<L: Lanes, T: Weights, const N: usize>(
    isa: L,
    acc: [L::Float; N],
    line: &Line<'_, L, T>,
    x: &[&Act8; N],
) -> [L::Float; N] {
    let sums = isa.dot(T::CODES, &line.weights(isa), x);
    scaled::<L, T, N>(isa, acc, sums, |half, da| isa.times(line.scales(half), da), line.min(isa), x)
}

/// Whether one of the blocks has a rest.
#[inline(always)]
fn any_rest<const N: usize>(x: &[&Act8; N]) -> bool {
    let mut rests = 0;
    for c in 0..N {
        rests |= x[c].rest;
    }
    rests != 0
}

/// The sums of `G` groups of rows with the products of the rests of some blocks added: written out, for one column and for
/// two groups, which do most of a prompt.
#[inline(always)]
fn with_rests<L: Lanes, T: Weights, const N: usize, const G: usize>(
    isa: L,
    mut acc: [[L::Float; N]; G],
    parts: [&Part<L>; G],
    x: &[&Act8; N],
    of: &Blocks<'_>,
) -> [[L::Float; N]; G] {
    for c in 0..N {
        if let Some(rest) = of.rest(x[c]) {
            for g in 0..G {
                [acc[g][c]] = steps::<L, T, 1>(isa, [acc[g][c]], parts[g], &[rest]);
            }
        }
    }
    acc
}

/// As [`with_rests`], for one group: few blocks have a rest, and a loop that is written out would be most of all code of a
/// layer, so the sums go through memory.
#[inline(always)]
fn with_rests_by_memory<L: Lanes, T: Weights, const N: usize>(
    isa: L,
    mut acc: [L::Float; N],
    part: &Part<L>,
    x: &[&Act8; N],
    of: &Blocks<'_>,
) -> [L::Float; N] {
    let mut kept = [[0.0; 16]; N];
    for c in 0..N {
        isa.store(acc[c], &mut kept[c]);
    }
    for c in 0..core::hint::black_box(N) {
        let (Some(kept), Some(x)) = (kept.get_mut(c), x.get(c)) else { break };
        let Some(rest) = of.rest(x) else { continue };
        let [sum] = steps::<L, T, 1>(isa, [isa.load(kept)], part, &[rest]);
        isa.store(sum, kept);
    }
    for c in 0..N {
        acc[c] = isa.load(&kept[c]);
    }
    acc
}

/// `acc` with the products of a part and one block of each column added.
#[inline(always)]
fn steps<L: Lanes, T: Weights, const N: usize>(
    isa: L,
    acc: [L::Float; N],
    part: &Part<L>,
    x: &[&Act8; N],
) -> [L::Float; N] {
    let sums = isa.dot(T::CODES, &part.w, x);
    scaled::<L, T, N>(isa, acc, sums, |half, da| isa.mul(part.d[half], isa.floats(da)), part.m, x)
}

/// `acc` with these sums of products added, times the scales of the part and of the columns: `times` gives the product of
/// that of a half of the part and the one of a column.
#[inline(always)]
fn scaled<L: Lanes, T: Weights, const N: usize>(
    isa: L,
    mut acc: [L::Float; N],
    sums: [[L::Int; N]; 2],
    times: impl Fn(usize, f32) -> L::Float,
    m: L::Float,
    x: &[&Act8; N],
) -> [L::Float; N] {
    let step = |acc, sum, factor| isa.add(acc, isa.mul(isa.float(sum), factor));
    for c in 0..N {
        acc[c] = step(acc[c], sums[0][c], times(0, x[c].scale));
        if T::CODES.halves() {
            acc[c] = step(acc[c], sums[1][c], times(1, x[c].scale));
        }
        if T::MIN {
            acc[c] = isa.add(acc[c], isa.mul(m, isa.floats(x[c].sums.scaled)));
        }
    }
    acc
}
