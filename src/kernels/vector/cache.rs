//! How the blocks of a cache are read and written, by the type of their numbers.

#![allow(clippy::needless_range_loop, reason = "arrays of registers are clearer with indices")]

use super::super::{ChunkScores, KV_BLOCK, Span};
use super::elementwise::shorten;
use super::lanes::{LANES, Lanes, narrow};
use super::look::{Keys, Piece, Values, behind, cut, lines, parts, piece, scales_of_strips, span_of};
use crate::tensor::BLOCK;
use crate::tensor::dequant::round_half_away;
use bytemuck::{Pod, try_cast_slice, try_cast_slice_mut};
use core::ops::Range;

const _: () = assert!(KV_BLOCK == LANES && BLOCK.is_multiple_of(LANES));

/// A type of cached numbers. Whatever does not fit a block is left out.
pub(in crate::kernels) trait Stored {
    /// Most heads that share loads from the cache: the more often a type is used, the more code it is worth.
    const MOST: usize = 4;

    /// Whether [`Stored::add`] adds up integers, beside sums of floats, and the weight of what is not seen is 0, so that it
    /// is added like everything else.
    const INTEGERS: bool = false;

    /// Rounds a query to what [`Stored::score`] wants, in its memory, and tells what scores are to be multiplied with.
    fn round_query<L: Lanes>(lanes: L, q: &mut [f32]) -> f32;

    /// Turns the exponentials of some heads into the weights that [`Stored::add`] wants, in their memory: of blocks
    /// `blocks` of a chunk, those of which any of them sees something.
    fn round_weights<L: Lanes>(
        lanes: L,
        scores: &mut [ChunkScores],
        spans: &[Span],
        blocks: &Range<usize>,
        values: &Values<'_>,
    );

    /// The whole sum of a head, of what [`Stored::add`] has added up with its weights.
    #[inline(always)]
    fn weighed<L: Lanes>(_lanes: L, _e: &ChunkScores, sum: L::Floats) -> L::Floats {
        sum
    }

    /// `sum_d(q[d] k[d][p])` of the 16 positions of each of `B` blocks of keys, for `N` heads with queries of one length.
    fn score<L: Lanes, const N: usize, const B: usize>(
        lanes: L,
        q: &[&[f32]; N],
        keys: &Keys<'_, B>,
    ) -> [[L::Floats; B]; N];

    /// Adds `e[p] v[p][d]` of the positions that are seen of a block of values of `dim_at.0` numbers, `p` ascending,
    /// for `N` heads and the `S` strips of 16 numbers from `dim_at.1` on, or, unless `FULL`, the numbers that are left.
    /// `values.1` is where the next block begins.
    fn add<L: Lanes, const N: usize, const S: usize, const FULL: bool>(
        lanes: L,
        e: &[&[f32; LANES]; N],
        values: (&[u8], *const u8),
        dim_at: (usize, usize),
        seen: Range<usize>,
        sums: &mut [[L::Floats; S]; N],
    );

    /// Writes a key to lane `lane` of a block of keys.
    fn store_key<L: Lanes>(lanes: L, k: &[f32], lane: usize, keys: &mut [u8]);

    /// Writes a value to line `line` of a block of values.
    fn store_value<L: Lanes>(lanes: L, v: &[f32], line: usize, values: &mut [u8]);
}

/// A number of the cache.
pub(super) trait Number: Pod + Default {
    /// See [`Stored::MOST`].
    const MOST: usize = 4;

    /// Whether it is short enough for exact products with numbers of 13 bits, so that these are what it is multiplied
    /// with.
    const EXACT: bool;

    /// 16 of them as floats, exactly.
    fn widen<L: Lanes>(lanes: L, line: &[Self; LANES]) -> L::Floats;
}

/// f16 bits.
impl Number for u16 {
    const EXACT: bool = true;

    #[inline(always)]
    fn widen<L: Lanes>(lanes: L, line: &[u16; LANES]) -> L::Floats {
        lanes.widen(line)
    }
}

impl Number for f32 {
    // A choice for precision rather than for speed.
    const MOST: usize = 1;
    const EXACT: bool = false;

    #[inline(always)]
    fn widen<L: Lanes>(lanes: L, line: &[f32; LANES]) -> L::Floats {
        lanes.load(line)
    }
}

impl Number for i8 {
    const EXACT: bool = true;

    #[inline(always)]
    fn widen<L: Lanes>(lanes: L, line: &[i8; LANES]) -> L::Floats {
        lanes.widen_bytes(line)
    }
}

/// `sum + factor * x`, where `x` is of numbers of type `T`.
#[inline(always)]
fn add_product<L: Lanes, T: Number>(lanes: L, sum: L::Floats, factor: f32, x: L::Floats) -> L::Floats {
    if T::EXACT { lanes.add_exact(sum, factor, x) } else { lanes.add(sum, lanes.scale(factor, x)) }
}

/// A number that is stored without a scale.
trait Element: Number {
    /// The nearest one, ties to even.
    fn narrow(x: f32) -> Self;
}

impl Element for u16 {
    #[inline(always)]
    fn narrow(x: f32) -> u16 {
        narrow(x)
    }
}

impl Element for f32 {
    #[inline(always)]
    fn narrow(x: f32) -> f32 {
        x
    }
}

/// Bytes as numbers; none if they are not aligned.
#[inline(always)]
pub(super) fn numbers<T: Pod>(bytes: &[u8]) -> &[T] {
    try_cast_slice(bytes).unwrap_or_default()
}

#[inline(always)]
pub(super) fn numbers_mut<T: Pod>(bytes: &mut [u8]) -> &mut [T] {
    try_cast_slice_mut(bytes).unwrap_or_default()
}

impl<T: Element> Stored for T {
    const MOST: usize = <T as Number>::MOST;

    #[inline(always)]
    fn round_query<L: Lanes>(_: L, q: &mut [f32]) -> f32 {
        if T::EXACT {
            shorten(q);
        }
        1.0
    }

    #[inline(always)]
    fn round_weights<L: Lanes>(
        _: L,
        scores: &mut [ChunkScores],
        spans: &[Span],
        _: &Range<usize>,
        _: &Values<'_>,
    ) {
        let heads = scores.len();
        for (head, e) in scores.iter_mut().enumerate().take_while(|_| T::EXACT) {
            let Some(span) = span_of(spans, head, heads) else { return };
            shorten(e.get_mut(span.blocks().1).unwrap_or_default());
        }
    }

    #[inline(always)]
    fn score<L: Lanes, const N: usize, const B: usize>(
        lanes: L,
        q: &[&[f32]; N],
        keys: &Keys<'_, B>,
    ) -> [[L::Floats; B]; N] {
        dots::<L, T, N, B>(lanes, q, lines(&keys.bytes), &keys.ahead)
    }

    #[inline(always)]
    fn add<L: Lanes, const N: usize, const S: usize, const FULL: bool>(
        lanes: L,
        e: &[&[f32; LANES]; N],
        (values, ahead): (&[u8], *const u8),
        (dim, at): (usize, usize),
        seen: Range<usize>,
        sums: &mut [[L::Floats; S]; N],
    ) {
        let weights = [*e; S];
        let numbers = (numbers::<T>(values), ahead.cast());
        add_lines::<L, T, N, S, FULL>(lanes, &weights, numbers, (dim, at), seen, sums);
    }

    #[inline(always)]
    fn store_key<L: Lanes>(_: L, k: &[f32], lane: usize, keys: &mut [u8]) {
        let lane = lane % KV_BLOCK;
        for (line, k) in numbers_mut::<T>(keys).as_chunks_mut::<KV_BLOCK>().0.iter_mut().zip(k) {
            line[lane] = T::narrow(*k);
        }
    }

    #[inline(always)]
    fn store_value<L: Lanes>(_: L, v: &[f32], line: usize, values: &mut [u8]) {
        let from = (line % KV_BLOCK).saturating_mul(v.len());
        let values = numbers_mut::<T>(values).get_mut(from..).unwrap_or_default();
        for (out, v) in values.iter_mut().zip(v) {
            *out = T::narrow(*v);
        }
    }
}

/// Signed bytes, and a scale in f16 for 32 numbers of a position: `d = peak / 127`, bytes `x * (1 / d)` rounded half
/// away from zero, as GGML's Q8_0.
///
/// Where a number is not finite, the scale is not either, so whatever is computed from the 32 is not.
pub(in crate::kernels) struct Q8;

/// As [`parts`], to write to.
#[inline(always)]
fn parts_mut(block: &mut [u8], dim: usize) -> (&mut [i8], &mut [[u16; LANES]]) {
    let (bytes, scales) = block.split_at_mut_checked(dim.saturating_mul(KV_BLOCK)).unwrap_or_default();
    (numbers_mut(bytes), numbers_mut(scales).as_chunks_mut().0)
}

impl Stored for Q8 {
    #[inline(always)]
    fn round_query<L: Lanes>(_: L, q: &mut [f32]) -> f32 {
        shorten(q);
        1.0
    }

    #[inline(always)]
    fn round_weights<L: Lanes>(_: L, _: &mut [ChunkScores], _: &[Span], _: &Range<usize>, _: &Values<'_>) {
        // They are rounded with the scales.
    }

    #[inline(always)]
    fn score<L: Lanes, const N: usize, const B: usize>(
        lanes: L,
        q: &[&[f32]; N],
        keys: &Keys<'_, B>,
    ) -> [[L::Floats; B]; N] {
        let dim = q.first().map_or(0, |q| q.len());
        let mut sums = [[lanes.zero(); B]; N];
        for at in 0..dim.div_ceil(BLOCK) {
            let Piece { lines, scales } = piece(&keys.bytes, dim, at);
            let mut ahead = keys.ahead;
            for b in 0..B {
                ahead[b] = ahead[b].wrapping_add(at * BLOCK * LANES);
            }
            let inner = dots(lanes, &behind(q, at * BLOCK), lines, &ahead);
            for b in 0..B {
                let scale = lanes.widen(scales[b]);
                for h in 0..N {
                    sums[h][b] = lanes.add(sums[h][b], lanes.mul(inner[h][b], scale));
                }
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
        seen: Range<usize>,
        sums: &mut [[L::Floats; S]; N],
    ) {
        let (bytes, scales) = parts(values, dim);
        // 32 numbers have one scale a position, which goes into the weights.
        let mut weights = [[[0.0; LANES]; N]; S];
        let Some(scales) = scales_of_strips::<S>(scales, at) else { return };
        for s in 0..S {
            let scale = lanes.widen(scales[s]);
            for h in 0..N {
                weights[s][h] = lanes.to_array(lanes.mul(lanes.load(e[h]), scale));
                shorten(&mut weights[s][h]);
            }
        }
        let mut borrowed = [[&[0.0; LANES]; N]; S];
        for s in 0..S {
            for h in 0..N {
                borrowed[s][h] = &weights[s][h];
            }
        }
        let numbers = (bytes, ahead.cast());
        add_lines::<L, i8, N, S, FULL>(lanes, &borrowed, numbers, (dim, at), seen, sums);
    }

    #[inline(always)]
    fn store_key<L: Lanes>(_: L, k: &[f32], lane: usize, keys: &mut [u8]) {
        let lane = lane % KV_BLOCK;
        let (bytes, scales) = parts_mut(keys, k.len());
        let lines = bytes.as_chunks_mut::<KV_BLOCK>().0.chunks_mut(BLOCK);
        for ((lines, scale), k) in lines.zip(scales).zip(k.chunks(BLOCK)) {
            let (d, inverse) = q8_scale(k);
            scale[lane] = narrow(d);
            for (line, k) in lines.iter_mut().zip(k) {
                line[lane] = round_half_away(k * inverse) as i8;
            }
        }
    }

    #[inline(always)]
    fn store_value<L: Lanes>(_: L, v: &[f32], line: usize, values: &mut [u8]) {
        let line = line % KV_BLOCK;
        let (bytes, scales) = parts_mut(values, v.len());
        let bytes = bytes.get_mut(line.saturating_mul(v.len())..).unwrap_or_default();
        for ((bytes, scale), v) in bytes.chunks_mut(BLOCK).zip(scales).zip(v.chunks(BLOCK)) {
            let (d, inverse) = q8_scale(v);
            scale[line] = narrow(d);
            for (byte, v) in bytes.iter_mut().zip(v) {
                *byte = round_half_away(v * inverse) as i8;
            }
        }
    }
}

/// Scale of up to 32 numbers and its inverse, 0 for a scale of 0.
#[inline(always)]
fn q8_scale(x: &[f32]) -> (f32, f32) {
    // The bits of sizes are ordered as the sizes are, NaN above all.
    let mut peak = 0;
    for x in x {
        let size = x.to_bits() & 0x7fff_ffff;
        peak = if size > peak { size } else { peak };
    }
    let d = f32::from_bits(peak) / 127.0;
    (d, if d == 0.0 { 0.0 } else { 1.0 / d })
}

/// `sum_d(q[d] k[d][p])` over the lines of 16 positions of `B` blocks, all of the same number, for `N` heads.
#[inline(always)]
fn dots<L: Lanes, T: Number, const N: usize, const B: usize>(
    lanes: L,
    q: &[&[f32]; N],
    blocks: [&[[T; LANES]]; B],
    ahead: &[*const u8; B],
) -> [[L::Floats; B]; N] {
    let mut sums = [[lanes.zero(); B]; N];
    let Some((count, rows, lines)) = cut(q, &blocks) else { return sums };
    'lines: for d in 0..count {
        let mut line = [lanes.zero(); B];
        for b in 0..B {
            let Some(numbers) = lines[b].get(d) else { break 'lines };
            line[b] = T::widen(lanes, numbers);
            lanes.prefetch(ahead[b].wrapping_add(d * size_of::<[T; LANES]>()));
        }
        for h in 0..N {
            let Some(q) = rows[h].get(d) else { break 'lines };
            for b in 0..B {
                sums[h][b] = add_product::<L, T>(lanes, sums[h][b], *q, line[b]);
            }
        }
    }
    sums
}

/// Adds `weights[strip][head][p] v[p][d]` of the positions that are seen of a block of values, as [`Stored::add`].
#[inline(always)]
fn add_lines<L: Lanes, T: Number, const N: usize, const S: usize, const FULL: bool>(
    lanes: L,
    weights: &[[&[f32; LANES]; N]; S],
    (values, ahead): (&[T], *const T),
    (dim, at): (usize, usize),
    seen: Range<usize>,
    sums: &mut [[L::Floats; S]; N],
) {
    let from = seen.start.saturating_mul(dim).saturating_add(at);
    let mut lines = values.get(from..).unwrap_or_default();
    let mut ahead = ahead.wrapping_add(from);
    // A copy of their own stays in registers.
    let mut own = *sums;
    for p in seen.start..seen.end.min(LANES) {
        let mut line = [lanes.zero(); S];
        if FULL {
            let Some(strips) = lines.as_chunks().0.first_chunk::<S>() else { break };
            for s in 0..S {
                line[s] = T::widen(lanes, &strips[s]);
                lanes.prefetch(ahead.wrapping_add(s * LANES).cast());
            }
        } else {
            line[0] = T::widen(lanes, &head(lines, dim - at));
        }
        lines = lines.get(dim..).unwrap_or_default();
        ahead = ahead.wrapping_add(dim);
        for h in 0..N {
            for s in 0..S {
                own[h][s] = add_product::<L, T>(lanes, own[h][s], weights[s][h][p], line[s]);
            }
        }
    }
    *sums = own;
}

/// The first `count` values, at most 16, and zeros behind them.
#[inline(always)]
fn head<T: Copy + Default>(values: &[T], count: usize) -> [T; LANES] {
    let mut lanes = [T::default(); LANES];
    for (lane, value) in lanes.iter_mut().zip(values.iter().take(count)) {
        *lane = *value;
    }
    lanes
}
