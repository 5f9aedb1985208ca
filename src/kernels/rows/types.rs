//! The quantised types with rows side by side: where the weights, scales and minima of a block lie.

use super::{At, Codes, Lanes, Part, Sink};
use crate::tensor::block::{Block, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
use core::mem::offset_of;

/// A quantised type as the kernels see it.
pub(in crate::kernels) trait Weights: Block {
    /// How the weights of [`Part`] are stored.
    const CODES: Codes;
    /// Whether there is a minimum.
    const MIN: bool = false;
    /// A type of the same codes, with a minimum or without as this one: parts of both are alike.
    type Alike: Weights;

    /// Hands the parts of a block to `sink`.
    fn parts<L: Lanes, S: Sink<L>>(isa: L, at: At<'_, L, Self>, sink: &mut S);

    /// Hands the parts of four blocks to `sink`, if there is a faster way than one by one; else does nothing and returns
    /// `false`.
    #[inline(always)]
    fn four<L: Lanes, S: Sink<L>>(_: L, _: At<'_, L, [Self; 4]>, _: &mut S) -> bool {
        false
    }
}

/// How often a loop over the parts of a block runs, hidden from the compiler where it is to stay a loop.
#[inline(always)]
fn times<L: Lanes, S: Sink<L>>(times: usize) -> usize {
    if S::LOOP { core::hint::black_box(times) } else { times }
}

/// The low and the high halves of the bytes.
#[inline(always)]
fn nibbles<L: Lanes>(isa: L, v: L::Int) -> (L::Int, L::Int) {
    let mask = isa.bytes(15);
    (isa.and(v, mask), isa.and(isa.shift(v, -4), mask))
}

/// 16 bytes of nibbles as 32 weights: the low halves, then the high halves.
#[inline(always)]
fn nibble_block<L: Lanes, B>(isa: L, at: At<'_, L, B>, offset: usize) -> [L::Int; 8] {
    split(isa, isa.quads(at, offset))
}

/// The words that begin in the middle of these, but for the last.
#[inline(always)]
fn middles<L: Lanes>(isa: L, [a, b, c, d, e]: [L::Int; 5]) -> [L::Int; 4] {
    [isa.middle(a, b), isa.middle(b, c), isa.middle(c, d), isa.middle(d, e)]
}

/// As [`nibble_block`].
#[inline(always)]
pub(super) fn split<L: Lanes>(isa: L, [a, b, c, d]: [L::Int; 4]) -> [L::Int; 8] {
    let ((a, e), (b, f), (c, g), (d, h)) =
        (nibbles(isa, a), nibbles(isa, b), nibbles(isa, c), nibbles(isa, d));
    [a, b, c, d, e, f, g, h]
}

/// 32 bytes.
#[inline(always)]
pub(super) fn byte_block<L: Lanes, B>(isa: L, at: At<'_, L, B>, offset: usize) -> [L::Int; 8] {
    eight(isa.quads(at, offset), isa.quads(at, offset + 16))
}

/// Two fours side by side.
#[inline(always)]
fn eight<T>([a, b, c, d]: [T; 4], [e, f, g, h]: [T; 4]) -> [T; 8] {
    [a, b, c, d, e, f, g, h]
}

impl Weights for Q8_0 {
    const CODES: Codes = Codes::Signed8;
    type Alike = Q8_0;

    #[inline(always)]
    fn parts<L: Lanes, S: Sink<L>>(isa: L, at: At<'_, L, Self>, sink: &mut S) {
        at.ask::<S>(isa, 0, 4);
        let d = isa.halves(at, offset_of!(Q8_0, d));
        if !S::ASK {
            // Fewer loads, for weights that are at hand.
            return sink.part(Part { w: isa.eights(at, offset_of!(Q8_0, q)), d: [d; 2], m: d });
        }
        at.ask::<S>(isa, 1, 4);
        let low = isa.quads(at, offset_of!(Q8_0, q));
        at.ask::<S>(isa, 2, 4);
        let high = isa.quads(at, offset_of!(Q8_0, q) + 16);
        at.ask::<S>(isa, 3, 4);
        sink.part(Part { w: eight(low, high), d: [d; 2], m: d });
    }
}

impl Weights for Q4_0 {
    const CODES: Codes = Codes::FourMinus8;
    type Alike = Q4_0;

    #[inline(always)]
    fn parts<L: Lanes, S: Sink<L>>(isa: L, at: At<'_, L, Self>, sink: &mut S) {
        at.ask::<S>(isa, 0, 1);
        let d = isa.halves(at, offset_of!(Q4_0, d));
        sink.nibbles(isa, isa.quads(at, offset_of!(Q4_0, q)), d, d);
    }

    /// Four blocks are eighteen words of each row, which are turned by fives of four instead of eights. Only where every
    /// weight is used once: elsewhere turning costs little.
    #[inline(always)]
    fn four<L: Lanes, S: Sink<L>>(isa: L, at: At<'_, L, [Self; 4]>, sink: &mut S) -> bool {
        const { assert!(size_of::<Q4_0>() == 18 && offset_of!(Q4_0, d) == 0 && offset_of!(Q4_0, q) == 2) };
        if S::LOOP {
            return false;
        }
        at.ask::<S>(isa, 0, 8);
        let first = isa.quads(at, 0);
        let second = isa.quads(at, 16);
        at.ask::<S>(isa, 1, 8);
        let [d, _] = isa.half_pair(first[0]);
        let [a, b, c, e] = first;
        sink.nibbles(isa, middles(isa, [a, b, c, e, second[0]]), d, d);
        at.ask::<S>(isa, 2, 8);
        let third = isa.quads(at, 32);
        at.ask::<S>(isa, 3, 8);
        let [_, d] = isa.half_pair(second[0]);
        let w = [second[1], second[2], second[3], third[0]];
        sink.nibbles(isa, w, d, d);
        at.ask::<S>(isa, 4, 8);
        let fourth = isa.quads(at, 48);
        at.ask::<S>(isa, 5, 8);
        let [d, _] = isa.half_pair(third[1]);
        let [_, a, b, c] = third;
        sink.nibbles(isa, middles(isa, [a, b, c, fourth[0], fourth[1]]), d, d);
        at.ask::<S>(isa, 6, 8);
        let [_, d] = isa.half_pair(fourth[1]);
        let w = isa.quads(at, 56);
        at.ask::<S>(isa, 7, 8);
        sink.nibbles(isa, w, d, d);
        true
    }
}

impl Weights for Q4_1 {
    const CODES: Codes = Codes::Four;
    const MIN: bool = true;
    type Alike = Q4_1;

    #[inline(always)]
    fn parts<L: Lanes, S: Sink<L>>(isa: L, at: At<'_, L, Self>, sink: &mut S) {
        at.ask::<S>(isa, 0, 1);
        let [d, m] = isa.half_pair(isa.words(at, offset_of!(Q4_1, d)));
        sink.nibbles(isa, isa.quads(at, offset_of!(Q4_1, q)), d, m);
    }

    /// Four blocks are twenty words of each row, which are turned by fives of four.
    #[inline(always)]
    fn four<L: Lanes, S: Sink<L>>(isa: L, at: At<'_, L, [Self; 4]>, sink: &mut S) -> bool {
        const { assert!(size_of::<Q4_1>() == 20 && offset_of!(Q4_1, d) == 0 && offset_of!(Q4_1, q) == 4) };
        let words = isa.quads(at, 0);
        let words = fourth::<L, S, 0>(isa, at, words, sink);
        let words = fourth::<L, S, 1>(isa, at, words, sink);
        let words = fourth::<L, S, 2>(isa, at, words, sink);
        fourth::<L, S, 3>(isa, at, words, sink);
        true
    }
}

/// Block `B` of four, five words each, of which `words` are words `4 B` to `4 B + 3`. Returns the next four.
#[inline(always)]
fn fourth<L: Lanes, S: Sink<L>, const B: usize>(
    isa: L,
    at: At<'_, L, [Q4_1; 4]>,
    words: [L::Int; 4],
    sink: &mut S,
) -> [L::Int; 4] {
    at.ask::<S>(isa, 2 * B, 8);
    let next = isa.quads(at, 16 * (B + 1));
    at.ask::<S>(isa, 2 * B + 1, 8);
    let words = eight(words, next);
    let [d, m] = isa.half_pair(words[B]);
    sink.nibbles(isa, [words[B + 1], words[B + 2], words[B + 3], words[B + 4]], d, m);
    next
}

/// Adds bit 4 of 32 weights from the 32 bits of each lane.
#[inline(always)]
fn with_fifth_bits<L: Lanes>(isa: L, bits: L::Int, mut w: [L::Int; 8]) -> [L::Int; 8] {
    for (g, w) in w.iter_mut().enumerate() {
        *w = isa.add_sixteens(*w, bits, g);
    }
    w
}

const _: () = assert!(offset_of!(Q5_0, d) == 0 && offset_of!(Q5_0, high) == 2);
const _: () = assert!(offset_of!(Q5_1, d) == 0 && offset_of!(Q5_1, high) == 4);

impl Weights for Q5_0 {
    const CODES: Codes = Codes::FiveMinus16;
    type Alike = Q5_0;

    #[inline(always)]
    fn parts<L: Lanes, S: Sink<L>>(isa: L, at: At<'_, L, Self>, sink: &mut S) {
        at.ask::<S>(isa, 0, 3);
        let [first, second, ..] = isa.quads(at, 0);
        let [d, _] = isa.half_pair(first);
        at.ask::<S>(isa, 1, 3);
        let q = isa.quads(at, offset_of!(Q5_0, q));
        at.ask::<S>(isa, 2, 3);
        fifth(isa, sink, d, isa.middle(first, second), q);
    }

    /// Four blocks are twenty-two words of each row, which are turned by sixes of four instead of eights.
    #[inline(always)]
    fn four<L: Lanes, S: Sink<L>>(isa: L, at: At<'_, L, [Self; 4]>, sink: &mut S) -> bool {
        const { assert!(size_of::<Q5_0>() == 22) };
        if S::LOOP {
            return false;
        }
        let a = isa.quads(at, 0);
        let b = isa.quads(at, 16);
        at.ask::<S>(isa, 0, 4);
        let [d, _] = isa.half_pair(a[0]);
        fifth(isa, sink, d, isa.middle(a[0], a[1]), middles(isa, [a[1], a[2], a[3], b[0], b[1]]));
        let c = isa.quads(at, 32);
        at.ask::<S>(isa, 1, 4);
        let [_, d] = isa.half_pair(b[1]);
        fifth(isa, sink, d, b[2], [b[3], c[0], c[1], c[2]]);
        let e = isa.quads(at, 48);
        let f = isa.quads(at, 64);
        at.ask::<S>(isa, 2, 4);
        let [d, _] = isa.half_pair(c[3]);
        fifth(isa, sink, d, isa.middle(c[3], e[0]), middles(isa, [e[0], e[1], e[2], e[3], f[0]]));
        let [_, d] = isa.half_pair(f[0]);
        let q = isa.quads(at, 72);
        at.ask::<S>(isa, 3, 4);
        fifth(isa, sink, d, f[1], q);
        true
    }
}

/// A part whose weights have a fifth bit in `high` and four in `q`.
#[inline(always)]
fn fifth<L: Lanes>(isa: L, sink: &mut impl Sink<L>, d: L::Float, high: L::Int, q: [L::Int; 4]) {
    sink.part(Part { w: with_fifth_bits(isa, high, split(isa, q)), d: [d; 2], m: d });
}

impl Weights for Q5_1 {
    const CODES: Codes = Codes::Five;
    const MIN: bool = true;
    type Alike = Q5_1;

    #[inline(always)]
    fn parts<L: Lanes, S: Sink<L>>(isa: L, at: At<'_, L, Self>, sink: &mut S) {
        at.ask::<S>(isa, 0, 3);
        let [scales, high, ..] = isa.quads(at, 0);
        let [d, m] = isa.half_pair(scales);
        at.ask::<S>(isa, 1, 3);
        let w = nibble_block(isa, at, offset_of!(Q5_1, q));
        at.ask::<S>(isa, 2, 3);
        sink.part(Part { w: with_fifth_bits(isa, high, w), d: [d; 2], m });
    }
}

/// Scales and minima of a [`Q4_K`] or [`Q5_K`] block.
struct Scales<L: Lanes> {
    d: L::Float,
    dmin: L::Float,
    /// Scales of parts 0 to 3 and 4 to 7, a byte each.
    scales: [L::Int; 2],
    /// Minima likewise.
    mins: [L::Int; 2],
}

impl<L: Lanes> Scales<L> {
    /// Reads `d`, `dmin` and `scales`, which are the first 16 bytes; see [`crate::tensor::block::scale_and_min`].
    #[inline(always)]
    fn new<B>(isa: L, at: At<'_, L, B>) -> Self {
        let [head, scales, mins, rest] = isa.quads(at, 0);
        let [d, dmin] = isa.half_pair(head);
        let (rest_scales, rest_mins) = nibbles(isa, rest);
        let (six, top) = (isa.bytes(63), isa.bytes(48));
        let high_scales = isa.or(rest_scales, isa.and(isa.shift(scales, -2), top));
        let high_mins = isa.or(rest_mins, isa.and(isa.shift(mins, -2), top));
        Self { d, dmin, scales: [isa.and(scales, six), high_scales], mins: [isa.and(mins, six), high_mins] }
    }

    /// Scale and minimum of part `part`.
    #[inline(always)]
    fn get(&self, isa: L, part: usize) -> ([L::Float; 2], L::Float) {
        let (scales, mins) =
            if part < 4 { (self.scales[0], self.mins[0]) } else { (self.scales[1], self.mins[1]) };
        let d = isa.mul(self.d, isa.byte(scales, part % 4));
        ([d; 2], isa.neg(isa.mul(self.dmin, isa.byte(mins, part % 4))))
    }
}

const _: () = assert!(offset_of!(Q4_K, d) == 0 && offset_of!(Q4_K, scales) == 4);
const _: () = assert!(offset_of!(Q5_K, d) == 0 && offset_of!(Q5_K, scales) == 4);

impl Weights for Q4_K {
    const CODES: Codes = Codes::Four;
    const MIN: bool = true;
    type Alike = Q4_1;

    #[inline(always)]
    fn parts<L: Lanes, S: Sink<L>>(isa: L, at: At<'_, L, Self>, sink: &mut S) {
        let scales = Scales::new(isa, at);
        for pair in 0..times::<L, S>(4) {
            at.ask::<S>(isa, 3 * pair, 12);
            let (mut low, mut high) =
                (byte_block(isa, at, offset_of!(Q4_K, q) + 32 * pair), [isa.bytes(0); 8]);
            for (low, high) in low.iter_mut().zip(&mut high) {
                (*low, *high) = nibbles(isa, *low);
            }
            let (d, m) = scales.get(isa, 2 * pair);
            at.ask::<S>(isa, 3 * pair + 1, 12);
            sink.part(Part { w: low, d, m });
            at.ask::<S>(isa, 3 * pair + 2, 12);
            let (d, m) = scales.get(isa, 2 * pair + 1);
            sink.part(Part { w: high, d, m });
        }
    }
}

impl Weights for Q5_K {
    const CODES: Codes = Codes::Five;
    const MIN: bool = true;
    type Alike = Q5_1;

    #[inline(always)]
    fn parts<L: Lanes, S: Sink<L>>(isa: L, at: At<'_, L, Self>, sink: &mut S) {
        let scales = Scales::new(isa, at);
        let mut fifth = byte_block(isa, at, offset_of!(Q5_K, high));
        let bit = isa.bytes(16);
        for pair in 0..times::<L, S>(4) {
            at.ask::<S>(isa, 3 * pair, 12);
            let (mut low, mut high) =
                (byte_block(isa, at, offset_of!(Q5_K, q) + 32 * pair), [isa.bytes(0); 8]);
            // The bits of this pair stand lowest, or where they were.
            let up = if S::LOOP { 4 } else { 4 - 2 * pair as i32 };
            for ((low, high), fifth) in low.iter_mut().zip(&mut high).zip(&mut fifth) {
                (*low, *high) = nibbles(isa, *low);
                *low = isa.or(*low, isa.and(isa.shift(*fifth, up), bit));
                *high = isa.or(*high, isa.and(isa.shift(*fifth, up - 1), bit));
                if S::LOOP {
                    *fifth = isa.shift(*fifth, -2);
                }
            }
            let (d, m) = scales.get(isa, 2 * pair);
            at.ask::<S>(isa, 3 * pair + 1, 12);
            sink.part(Part { w: low, d, m });
            at.ask::<S>(isa, 3 * pair + 2, 12);
            let (d, m) = scales.get(isa, 2 * pair + 1);
            sink.part(Part { w: high, d, m });
        }
    }
}

impl Weights for Q6_K {
    const CODES: Codes = Codes::SixMinus32;
    type Alike = Q6_K;

    #[inline(always)]
    fn parts<L: Lanes, S: Sink<L>>(isa: L, at: At<'_, L, Self>, sink: &mut S) {
        let d = isa.halves(at, offset_of!(Q6_K, d));
        let scales = isa.quads(at, offset_of!(Q6_K, scales));
        // A loop, since its code is long.
        for half in 0..core::hint::black_box(2) {
            let start = offset_of!(Q6_K, low) + 64 * half;
            let high = isa.eights(at, offset_of!(Q6_K, high) + 32 * half);
            let scales = [scales[2 * half % 4], scales[(2 * half + 1) % 4]];
            let six = Sixes { d, high, scales };
            let first = isa.eights(at, start);
            if S::LOOP {
                let low = [first, isa.eights(at, start + 32)];
                for i in 0..times::<L, S>(4) {
                    at.ask_in::<S>(isa, (4 * half + i, 8), 0, 1);
                    sink.part(six.part(isa, &low[i % 2], i));
                }
                continue;
            }
            // The second 32 bytes once the first ones are at work, and memory ahead not beside loads, which would wait.
            sink.part(six.part(isa, &first, 0));
            at.ask_in::<S>(isa, (half, 2), 0, 4);
            let second = isa.eights(at, start + 32);
            sink.part(six.part(isa, &second, 1));
            at.ask_in::<S>(isa, (half, 2), 1, 4);
            sink.part(six.part(isa, &first, 2));
            at.ask_in::<S>(isa, (half, 2), 2, 4);
            sink.part(six.part(isa, &second, 3));
            at.ask_in::<S>(isa, (half, 2), 3, 4);
        }
    }
}

/// Half a [`Q6_K`] block.
struct Sixes<L: Lanes> {
    d: L::Float,
    high: [L::Int; 8],
    /// The scales, a byte for each 16 values.
    scales: [L::Int; 2],
}

impl<L: Lanes> Sixes<L> {
    /// One of the four parts: from the low or the high halves of the bytes of `low`, which are the first 32 for the parts 0
    /// and 2 and the second 32 for 1 and 3, and from two bits of each byte of `high`.
    #[inline(always)]
    fn part(&self, isa: L, low: &[L::Int; 8], i: usize) -> Part<L> {
        // Every second pair of bits: those of the part go to the lowest of a high half, and none above them.
        let pairs = isa.bytes(if i.is_multiple_of(2) { 0x33 } else { 0xcc });
        let mut w = *low;
        for (w, high) in w.iter_mut().zip(&self.high) {
            let four = if i < 2 { *w } else { isa.shift(*w, -4) };
            let two = isa.shift(isa.and(*high, pairs), 4 - 2 * i as i32);
            *w = isa.low_halves(four, two);
        }
        let scales = self.scales[i / 2 % 2];
        let first = isa.mul(self.d, isa.signed_byte(scales, 2 * (i % 2)));
        let second = isa.mul(self.d, isa.signed_byte(scales, 2 * (i % 2) + 1));
        Part { w, d: [first, second], m: self.d }
    }
}
