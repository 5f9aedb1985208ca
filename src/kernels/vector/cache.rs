//! How the blocks of a cache are read and written, by the type of their numbers.

use super::super::KV_BLOCK;
use super::lanes::{LANES, Lanes, narrow};
use crate::tensor::BLOCK;
use crate::tensor::dequant::round_half_away;
use bytemuck::{Pod, try_cast_slice, try_cast_slice_mut};
use core::ops::Range;

const _: () = assert!(KV_BLOCK == LANES && BLOCK.is_multiple_of(LANES));

/// A type of cached numbers. Whatever does not fit a block is left out.
pub(in crate::kernels) trait Stored {
    /// `sum_d(q[d] k[d][p])` of the 16 positions of a block of keys, for `N` heads with queries of one length.
    fn score<L: Lanes, const N: usize>(lanes: L, q: &[&[f32]; N], keys: &[u8]) -> [L::Floats; N];

    /// Adds `e[p] v[p][d]` of the positions that are seen of a block of values of `dim_at.0` numbers, `p` ascending,
    /// for `N` heads and the 16 numbers from `dim_at.1` on, or, unless `FULL`, those that are left.
    fn add<L: Lanes, const N: usize, const FULL: bool>(
        lanes: L,
        e: &[&[f32; LANES]; N],
        values: &[u8],
        dim_at: (usize, usize),
        seen: Range<usize>,
        sums: &mut [L::Floats; N],
    );

    /// Writes a key to lane `lane` of a block of keys.
    fn store_key(k: &[f32], lane: usize, keys: &mut [u8]);

    /// Writes a value to line `line` of a block of values.
    fn store_value(v: &[f32], line: usize, values: &mut [u8]);
}

/// A plain number of the cache.
pub(in crate::kernels) trait Element: Pod + Default {
    /// 16 of them as floats, exactly.
    fn widen<L: Lanes>(lanes: L, line: &[Self; LANES]) -> L::Floats;

    /// The nearest one, ties to even.
    fn narrow(x: f32) -> Self;
}

/// f16 bits.
impl Element for u16 {
    #[inline(always)]
    fn widen<L: Lanes>(lanes: L, line: &[u16; LANES]) -> L::Floats {
        lanes.widen(line)
    }

    #[inline(always)]
    fn narrow(x: f32) -> u16 {
        narrow(x)
    }
}

impl Element for f32 {
    #[inline(always)]
    fn widen<L: Lanes>(lanes: L, line: &[f32; LANES]) -> L::Floats {
        lanes.load(line)
    }

    #[inline(always)]
    fn narrow(x: f32) -> f32 {
        x
    }
}

/// Bytes as numbers; none if they are not aligned.
#[inline(always)]
fn numbers<T: Pod>(bytes: &[u8]) -> &[T] {
    try_cast_slice(bytes).unwrap_or_default()
}

#[inline(always)]
fn numbers_mut<T: Pod>(bytes: &mut [u8]) -> &mut [T] {
    try_cast_slice_mut(bytes).unwrap_or_default()
}

impl<T: Element> Stored for T {
    #[inline(always)]
    fn score<L: Lanes, const N: usize>(lanes: L, q: &[&[f32]; N], keys: &[u8]) -> [L::Floats; N] {
        let lines = numbers::<T>(keys).as_chunks().0;
        dots(lanes, q, lines, |line| T::widen(lanes, line))
    }

    #[inline(always)]
    fn add<L: Lanes, const N: usize, const FULL: bool>(
        lanes: L,
        e: &[&[f32; LANES]; N],
        values: &[u8],
        (dim, at): (usize, usize),
        seen: Range<usize>,
        sums: &mut [L::Floats; N],
    ) {
        let from = seen.start.saturating_mul(dim).saturating_add(at);
        let mut lines = numbers::<T>(values).get(from..).unwrap_or_default();
        for p in seen {
            let line = if FULL {
                let Some(line) = lines.first_chunk() else { break };
                T::widen(lanes, line)
            } else {
                T::widen(lanes, &head(lines, dim - at))
            };
            lines = lines.get(dim..).unwrap_or_default();
            for h in 0..N {
                let e = e[h].get(p).copied().unwrap_or_default();
                sums[h] = lanes.add(sums[h], lanes.scale(e, line));
            }
        }
    }

    #[inline(always)]
    fn store_key(k: &[f32], lane: usize, keys: &mut [u8]) {
        let lane = lane % KV_BLOCK;
        for (line, k) in numbers_mut::<T>(keys).as_chunks_mut::<KV_BLOCK>().0.iter_mut().zip(k) {
            line[lane] = T::narrow(*k);
        }
    }

    #[inline(always)]
    fn store_value(v: &[f32], line: usize, values: &mut [u8]) {
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

/// Bytes and scales of a block of keys or values of `dim` numbers.
#[inline(always)]
fn parts(block: &[u8], dim: usize) -> (&[i8], &[[u16; LANES]]) {
    let (bytes, scales) = block.split_at_checked(dim.saturating_mul(KV_BLOCK)).unwrap_or_default();
    (numbers(bytes), numbers(scales).as_chunks().0)
}

#[inline(always)]
fn parts_mut(block: &mut [u8], dim: usize) -> (&mut [i8], &mut [[u16; LANES]]) {
    let (bytes, scales) = block.split_at_mut_checked(dim.saturating_mul(KV_BLOCK)).unwrap_or_default();
    (numbers_mut(bytes), numbers_mut(scales).as_chunks_mut().0)
}

impl Stored for Q8 {
    #[inline(always)]
    fn score<L: Lanes, const N: usize>(lanes: L, q: &[&[f32]; N], keys: &[u8]) -> [L::Floats; N] {
        let dim = q.first().map_or(0, |q| q.len());
        let (bytes, scales) = parts(keys, dim);
        let mut sums = [lanes.zero(); N];
        for (b, (lines, scale)) in bytes.as_chunks().0.chunks(BLOCK).zip(scales).enumerate() {
            let mut rows = [&[] as &[f32]; N];
            for (row, q) in rows.iter_mut().zip(q) {
                *row = q.get(b * BLOCK..).unwrap_or_default();
            }
            let inner = dots(lanes, &rows, lines, |line| lanes.widen_bytes(line));
            let scale = lanes.widen(scale);
            for h in 0..N {
                sums[h] = lanes.add(sums[h], lanes.mul(inner[h], scale));
            }
        }
        sums
    }

    #[inline(always)]
    fn add<L: Lanes, const N: usize, const FULL: bool>(
        lanes: L,
        e: &[&[f32; LANES]; N],
        values: &[u8],
        (dim, at): (usize, usize),
        seen: Range<usize>,
        sums: &mut [L::Floats; N],
    ) {
        let (bytes, scales) = parts(values, dim);
        // 16 numbers have one scale a position, which goes into the weights.
        let Some(scale) = scales.get(at / BLOCK) else { return };
        let scale = lanes.widen(scale);
        // Loops, since the closure of `array::map` is not always compiled for the features of this function.
        let mut weights = [[0.0; LANES]; N];
        for h in 0..N {
            weights[h] = lanes.to_array(lanes.mul(lanes.load(e[h]), scale));
        }
        let from = seen.start.saturating_mul(dim).saturating_add(at);
        let mut lines = bytes.get(from..).unwrap_or_default();
        for p in seen {
            let line = if FULL {
                let Some(line) = lines.first_chunk() else { break };
                lanes.widen_bytes(line)
            } else {
                lanes.widen_bytes(&head(lines, dim - at))
            };
            lines = lines.get(dim..).unwrap_or_default();
            for h in 0..N {
                let weight = weights[h].get(p).copied().unwrap_or_default();
                sums[h] = lanes.add(sums[h], lanes.scale(weight, line));
            }
        }
    }

    #[inline(always)]
    fn store_key(k: &[f32], lane: usize, keys: &mut [u8]) {
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
    fn store_value(v: &[f32], line: usize, values: &mut [u8]) {
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

/// `sum_d(q[d] k[d][p])` over the lines of 16 positions that `widen` makes floats of, for `N` heads.
#[inline(always)]
fn dots<L: Lanes, T, const N: usize>(
    lanes: L,
    q: &[&[f32]; N],
    lines: &[[T; LANES]],
    widen: impl Fn(&[T; LANES]) -> L::Floats,
) -> [L::Floats; N] {
    let mut sums = [lanes.zero(); N];
    // Cut to one length in sight of the compiler, so that the loop needs no checks.
    let mut rows = [&[] as &[f32]; N];
    for (row, q) in rows.iter_mut().zip(q) {
        let Some(q) = q.get(..lines.len()) else { return sums };
        *row = q;
    }
    'lines: for d in 0..lines.len() {
        let Some(line) = lines.get(d) else { break };
        let line = widen(line);
        for h in 0..N {
            let Some(q) = rows[h].get(d) else { break 'lines };
            sums[h] = lanes.add(sums[h], lanes.scale(*q, line));
        }
    }
    sums
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
