//! Keys and values as 16-bit integers with one scale a position, and products with them in integers.
//!
//! A key `k` is `k[d] = dk K[d]` with `|K[d]| <= 8191`, a query `q[d] = dq Q[d]` with `|Q[d]| <= 4095`; the score is
//! `(float(sum_d Q[d] K[d]) * dk) * (dq * scale)`, where the sum over each 64 numbers is an integer of 32 bits and these
//! are added up as floats, `d` ascending. A value is `v[d] = dv V[d]` with `|V[d]| <= 8191`. The weights of a chunk,
//! `w[p] = e[p] dv[p]`, are `dw W[p]` with `W[p] <= 16383`, and what they add up to is `dw sum_p W[p] V[p][d]`, where the
//! sum over each block of 16 positions is an integer and these are added up as floats, blocks ascending.
//!
//! `64 * 8191 * 4095` and `16 * 8191 * 16383` are below 2^31, so no sum overflows; where a cache holds other numbers than
//! were stored there, sums wrap. The order of additions within a sum of integers cannot be seen.

#![allow(clippy::needless_range_loop, reason = "arrays of registers are clearer with indices")]

use super::super::{ChunkScores, KV_BLOCK, Span, TOGETHER};
use super::cache::{Stored, numbers, numbers_mut};
use super::lanes::{LANES, Lanes};
use super::look::{CHUNK_BLOCKS, Keys, Values, cut, pair_lines, span_of};
use core::ops::Range;

/// Two neighbours of a sum of products: numbers of a key, or positions.
pub(in crate::kernels) type Pair = [i16; 2];

/// Pairs of a block of values, or of the weights of one.
const PAIRS: usize = KV_BLOCK / 2;

/// Pairs of a key whose products with a query are added up in one integer.
const KEY_PAIRS: usize = 32;

/// Greatest number of a key or value.
const STORED: f32 = 8191.0;

/// Greatest number of a query.
const QUERY: f32 = 4095.0;

/// Greatest weight.
const WEIGHT: f32 = 16383.0;

/// Where the factor of the weights of a head lies: behind the pairs of its first block.
const FACTOR: usize = PAIRS;

/// 16-bit integers with one scale a position; see [`KvBlocks`](super::super::KvBlocks) for their order.
pub(in crate::kernels) struct I16;

/// The scale of numbers of which none is larger than `peak`, as bits, so that they become at most `limit`, and its
/// inverse. What is not finite has a scale that is not either and an inverse of 0; so has, with a scale of 0, what is
/// next to nothing.
#[inline(always)]
fn scale_of(peak: u32, limit: f32) -> (f32, f32) {
    let peak = f32::from_bits(peak);
    if peak < f32::from_bits((127 - 100) << 23) {
        return (0.0, 0.0);
    }
    (peak * (1.0 / limit), if peak < f32::INFINITY { limit / peak } else { 0.0 })
}

/// The largest size of any number of some lines, as bits.
#[inline(always)]
fn peak<L: Lanes>(lanes: L, lines: impl Iterator<Item = [f32; LANES]>) -> u32 {
    let mut sizes = lanes.no_integers();
    for line in lines {
        sizes = lanes.larger_sizes(sizes, lanes.load(&line));
    }
    largest(lanes, sizes)
}

#[inline(always)]
fn largest<L: Lanes>(lanes: L, sizes: L::Integers) -> u32 {
    let mut largest = 0;
    for size in lanes.integers(sizes) {
        largest = largest.max(size as u32);
    }
    largest
}

/// Up to 16 floats with zeros behind them.
#[inline(always)]
fn filled(x: &[f32]) -> [f32; LANES] {
    if let Some(x) = x.first_chunk() {
        return *x;
    }
    let mut line = [0.0; LANES];
    for (place, x) in line.iter_mut().zip(x) {
        *place = *x;
    }
    line
}

/// Up to 16 floats as integers: `x * inverse`, rounded to the nearest, ties to even; 0 for NaN.
#[inline(always)]
fn round<L: Lanes>(lanes: L, x: &[f32], inverse: f32) -> [i16; LANES] {
    lanes.round(lanes.scale(inverse, lanes.load(&filled(x))))
}

/// The pairs of 16 floats' memory.
#[inline(always)]
fn pairs_of(line: &[f32; LANES]) -> &[Pair; LANES] {
    bytemuck::cast_ref(line)
}

/// Integers and scales of a block of keys; their lines have a pair of each position.
#[inline(always)]
fn key_parts(keys: &mut [u8], dim: usize) -> (&mut [[Pair; LANES]], &mut [f32]) {
    let (integers, scales) = keys.split_at_mut_checked(key_integers(dim)).unwrap_or_default();
    (numbers_mut(integers).as_chunks_mut().0, numbers_mut(scales))
}

/// Bytes of the integers of a block of keys.
#[inline(always)]
pub(super) fn key_integers(dim: usize) -> usize {
    dim.div_ceil(2).saturating_mul(size_of::<[Pair; LANES]>())
}

/// Bytes of the integers of a block of values.
#[inline(always)]
fn value_integers(dim: usize) -> usize {
    dim.saturating_mul(PAIRS * size_of::<Pair>())
}

/// The scales of a block of values; zeros if they are missing.
#[inline(always)]
fn value_scales<'x>(values: &'x [u8], dim: usize) -> &'x [f32; LANES] {
    let scales: &'x [f32] = numbers(values.get(value_integers(dim)..).unwrap_or_default());
    scales.first_chunk().unwrap_or(&[0.0; LANES])
}

impl Stored for I16 {
    const MOST: usize = 6;
    const INTEGERS: bool = true;

    #[inline(always)]
    fn round_query<L: Lanes>(lanes: L, q: &mut [f32]) -> f32 {
        let (scale, inverse) = scale_of(peak(lanes, q.chunks(LANES).map(filled)), QUERY);
        // In place: the pair of two numbers takes the memory of one, which has been read by then.
        for at in (0..q.len()).step_by(LANES) {
            let rounded = round(lanes, q.get(at..).unwrap_or_default(), inverse);
            let places: &mut [Pair] = bytemuck::cast_slice_mut(q);
            let places = places.get_mut(at / 2..).unwrap_or_default();
            // Of a length that the compiler knows, nearly always.
            if let Some(places) = places.first_chunk_mut::<{ LANES / 2 }>() {
                *places = bytemuck::cast(rounded);
                continue;
            }
            for (place, pair) in places.iter_mut().zip(rounded.as_chunks().0) {
                *place = *pair;
            }
        }
        scale
    }

    #[inline(always)]
    fn round_weights<L: Lanes>(
        lanes: L,
        scores: &mut [ChunkScores],
        spans: &[Span],
        blocks: &Range<usize>,
        values: &Values<'_>,
    ) {
        let mut scales = [&[0.0; LANES]; CHUNK_BLOCKS];
        for (scales, block) in scales.iter_mut().zip(&values.blocks) {
            *scales = value_scales(block, values.dim);
        }
        // Step by step, each for many heads: what one head waits for is done beside the others.
        let heads = scores.len();
        for (group, scores) in scores.chunks_mut(TOGETHER).enumerate() {
            let (mut sizes, mut factors) = ([lanes.no_integers(); TOGETHER], [(0.0, 0.0); TOGETHER]);
            for ((head, e), sizes) in scores.iter_mut().enumerate().zip(&mut sizes) {
                let Some(span) = span_of(spans, group * TOGETHER + head, heads) else { return };
                *sizes = weigh(lanes, e, &span.blocks().1, blocks, &scales);
            }
            for (sizes, factors) in sizes.iter().zip(&mut factors).take(scores.len()) {
                *factors = scale_of(largest(lanes, *sizes), WEIGHT);
            }
            for (e, factors) in scores.iter_mut().zip(factors) {
                round_weighed(lanes, e, blocks, factors);
            }
        }
    }

    #[inline(always)]
    fn weighed<L: Lanes>(lanes: L, e: &ChunkScores, sum: L::Floats) -> L::Floats {
        lanes.scale(e[FACTOR], sum)
    }

    #[inline(always)]
    fn score<L: Lanes, const N: usize, const B: usize>(
        lanes: L,
        q: &[&[f32]; N],
        keys: &Keys<'_, B>,
    ) -> [[L::Floats; B]; N] {
        let mut sums = [[lanes.zero(); B]; N];
        let dim = q.first().map_or(0, |q| q.len());
        // Looked up before there are sums in registers, which a call would have to save.
        let scales = key_scales(&keys.bytes, dim);
        for at in (0..dim.div_ceil(2)).step_by(KEY_PAIRS) {
            let count = KEY_PAIRS.min(dim.div_ceil(2) - at);
            let of = pair_lines(q, &keys.bytes, at..at + count);
            let mut ahead = keys.ahead;
            for b in 0..B {
                ahead[b] = ahead[b].wrapping_add(at * size_of::<[Pair; LANES]>());
            }
            let inner = dots(lanes, &of.rows, &of.lines, &ahead);
            for h in 0..N {
                for b in 0..B {
                    sums[h][b] = lanes.add(sums[h][b], lanes.to_floats(inner[h][b]));
                }
            }
        }
        for b in 0..B {
            let scale = lanes.load(scales[b]);
            for h in 0..N {
                sums[h][b] = lanes.mul(sums[h][b], scale);
            }
        }
        sums
    }

    #[inline(always)]
    fn add<L: Lanes, const N: usize, const S: usize, const FULL: bool>(
        lanes: L,
        e: &[&[f32; LANES]; N],
        (values, ahead): (&[u8], *const u8),
        (dim, at): (usize, usize),
        _seen: Range<usize>,
        sums: &mut [[L::Floats; S]; N],
    ) {
        let pairs: &[Pair] = numbers(values.get(..value_integers(dim)).unwrap_or_default());
        let mut rest = pairs.get(at..).unwrap_or_default();
        let mut ahead = ahead.wrapping_add(at * size_of::<Pair>());
        let mut weights = [&[[0; 2]; LANES]; N];
        for h in 0..N {
            weights[h] = pairs_of(e[h]);
        }
        let mut inner = [[lanes.no_integers(); S]; N];
        for p in 0..PAIRS {
            let mut line = [lanes.no_pairs(); S];
            if FULL {
                let Some(strips) = rest.as_chunks().0.first_chunk::<S>() else { break };
                for s in 0..S {
                    line[s] = lanes.pairs(&strips[s]);
                    lanes.prefetch(ahead.wrapping_add(s * size_of::<[Pair; LANES]>()));
                }
            } else {
                let mut strip = [[0; 2]; LANES];
                for (place, pair) in strip.iter_mut().zip(rest.iter().take(dim - at)) {
                    *place = *pair;
                }
                line[0] = lanes.pairs(&strip);
            }
            rest = rest.get(dim..).unwrap_or_default();
            ahead = ahead.wrapping_add(dim * size_of::<Pair>());
            for h in 0..N {
                for s in 0..S {
                    inner[h][s] = lanes.add_pairs(inner[h][s], weights[h][p], line[s]);
                }
            }
        }
        for h in 0..N {
            for s in 0..S {
                sums[h][s] = lanes.add(sums[h][s], lanes.to_floats(inner[h][s]));
            }
        }
    }

    #[inline(always)]
    fn store_key<L: Lanes>(lanes: L, k: &[f32], lane: usize, keys: &mut [u8]) {
        let lane = lane % KV_BLOCK;
        let (lines, scales) = key_parts(keys, k.len());
        let (scale, inverse) = scale_of(peak(lanes, k.chunks(LANES).map(filled)), STORED);
        if let Some(place) = scales.get_mut(lane) {
            *place = scale;
        }
        for (lines, k) in lines.chunks_mut(PAIRS).zip(k.chunks(LANES)) {
            let rounded = round(lanes, k, inverse);
            for (line, pair) in lines.iter_mut().zip(rounded.as_chunks::<2>().0) {
                line[lane] = *pair;
            }
        }
    }

    #[inline(always)]
    fn store_value<L: Lanes>(lanes: L, v: &[f32], line: usize, values: &mut [u8]) {
        let line = line % KV_BLOCK;
        let (integers, scales) = values.split_at_mut_checked(value_integers(v.len())).unwrap_or_default();
        let (scale, inverse) = scale_of(peak(lanes, v.chunks(LANES).map(filled)), STORED);
        if let Some(place) = numbers_mut::<f32>(scales).get_mut(line) {
            *place = scale;
        }
        let pairs = numbers_mut::<Pair>(integers).chunks_exact_mut(v.len().max(1)).nth(line / 2);
        for (pairs, v) in pairs.unwrap_or_default().chunks_mut(LANES).zip(v.chunks(LANES)) {
            for (pair, v) in pairs.iter_mut().zip(round(lanes, v, inverse)) {
                pair[line % 2] = v;
            }
        }
    }
}

/// Turns the exponentials of a head into weights; those of what is not seen into zeros, whatever its scale is. The largest
/// of their sizes, lane by lane.
#[inline(always)]
fn weigh<L: Lanes>(
    lanes: L,
    e: &mut ChunkScores,
    seen: &Range<usize>,
    blocks: &Range<usize>,
    scales: &[&[f32; LANES]; CHUNK_BLOCKS],
) -> L::Integers {
    let whole = seen.start.div_ceil(KV_BLOCK)..seen.end / KV_BLOCK;
    let lines = e.as_chunks_mut::<LANES>().0.get_mut(blocks.clone()).unwrap_or_default();
    let mut sizes = lanes.no_integers();
    for ((b, line), scales) in blocks.clone().zip(lines).zip(scales.iter().skip(blocks.start)) {
        let mut weights = lanes.mul(lanes.load(line), lanes.load(scales));
        if !whole.contains(&b) {
            let inside = |at: usize| at.saturating_sub(b * KV_BLOCK).min(KV_BLOCK);
            let mut array = lanes.to_array(weights);
            array.iter_mut().take(inside(seen.start)).for_each(|weight| *weight = 0.0);
            array.iter_mut().skip(inside(seen.end)).for_each(|weight| *weight = 0.0);
            weights = lanes.load(&array);
        }
        sizes = lanes.larger_sizes(sizes, weights);
        *line = lanes.to_array(weights);
    }
    sizes
}

/// Rounds weights to integers: pairs, each line of 16 in the first half of its memory. The factor of all of them stands at
/// [`FACTOR`].
#[inline(always)]
fn round_weighed<L: Lanes>(
    lanes: L,
    e: &mut ChunkScores,
    blocks: &Range<usize>,
    (scale, inverse): (f32, f32),
) {
    for line in e.as_chunks_mut::<LANES>().0.get_mut(blocks.clone()).unwrap_or_default() {
        let rounded = lanes.round(lanes.scale(inverse, lanes.load(line)));
        let places: &mut [Pair; LANES] = bytemuck::cast_mut(line);
        if let Some(place) = places.first_chunk_mut::<PAIRS>() {
            *place = bytemuck::cast(rounded);
        }
    }
    e[FACTOR] = scale;
}

/// The scales of some blocks of keys; zeros if they are missing.
#[inline(never)]
fn key_scales<'x, const B: usize>(keys: &[&'x [u8]; B], dim: usize) -> [&'x [f32; LANES]; B] {
    keys.map(|keys| {
        let scales: &'x [f32] = numbers(keys.get(key_integers(dim)..).unwrap_or_default());
        scales.first_chunk().unwrap_or(&[0.0; LANES])
    })
}

/// `sum_d Q[d] K[d][p]` over the lines of pairs of 16 positions of `B` blocks, all of the same number, for `N` heads.
#[inline(always)]
fn dots<L: Lanes, const N: usize, const B: usize>(
    lanes: L,
    q: &[&[Pair]; N],
    blocks: &[&[[Pair; LANES]]; B],
    ahead: &[*const u8; B],
) -> [[L::Integers; B]; N] {
    let mut sums = [[lanes.no_integers(); B]; N];
    let Some((count, rows, lines)) = cut(q, blocks) else { return sums };
    'lines: for d in 0..count {
        let mut line = [lanes.no_pairs(); B];
        for b in 0..B {
            let Some(pairs) = lines[b].get(d) else { break 'lines };
            line[b] = lanes.pairs(pairs);
            lanes.prefetch(ahead[b].wrapping_add(d * size_of::<[Pair; LANES]>()));
        }
        for h in 0..N {
            let Some(q) = rows[h].get(d) else { break 'lines };
            for b in 0..B {
                sums[h][b] = lanes.add_pairs(sums[h][b], *q, line[b]);
            }
        }
    }
    sums
}
