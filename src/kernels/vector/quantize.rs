//! Activations are rounded to integers, 32 values with one scale.

use crate::tensor::{Act8, BLOCK, Precision, SCALE_BITS, STANDS_OUT, Sums};

/// `1.5 * 2^23`: adding it rounds a small number to an integer (nearest even), which is left in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// Below this peak, `2^-80`, a block counts as zero, and from the other on, `2^100`, as not finite: so the product of its
/// scale, and of that of its rest, with one of weights is a normal number, as long as that is one.
const TINY: u32 = (127 - 80) << 23;
const HUGE: u32 = (127 + 100) << 23;

/// The largest magnitude, with the sign bit clear; infinity or NaN when a value is one.
#[inline(always)]
fn peak(x: &[f32; BLOCK]) -> f32 {
    let mut peak = 0;
    for v in x {
        let size = (v.to_bits() & 0x7fff_ffff) as i32;
        peak = if size > peak { size } else { peak };
    }
    f32::from_bits(peak as u32)
}

/// The products with `factor`, rounded to the nearest integer, ties to even, for products up to `2^22`.
#[inline(always)]
fn rounded(x: &[f32; BLOCK], factor: f32) -> [i32; BLOCK] {
    let mut q = [0; BLOCK];
    for (q, v) in q.iter_mut().zip(x) {
        let bits = (v * factor + ROUNDER).to_bits();
        *q = bits.wrapping_sub(ROUNDER.to_bits()) as i32;
    }
    q
}

/// The sums of a block.
#[inline(always)]
fn sums(scale: f32, q: &[i32; BLOCK]) -> Sums {
    let mut halves = [0i32; 2];
    for (half, q) in halves.iter_mut().zip(q.as_chunks::<{ BLOCK / 2 }>().0) {
        for q in q {
            *half = half.wrapping_add(*q);
        }
    }
    Sums::new(scale, halves[0], halves[1])
}

/// The least number of [`SCALE_BITS`] significant bits that is not below the 127th part of `peak`, or of what its rounding
/// has made of that.
#[inline(always)]
fn scale_of(peak: f32) -> f32 {
    const DROPPED: u32 = (1 << (24 - SCALE_BITS)) - 1;
    f32::from_bits(((peak * (1.0 / 127.0)).to_bits() + DROPPED) & !DROPPED)
}

/// A block without a rest.
#[inline(always)]
fn block(scale: f32, q: &[i32; BLOCK], out: &mut Act8) {
    out.scale = scale;
    out.sums = sums(scale, q);
    out.rest = 0;
    for (byte, q) in out.q.iter_mut().zip(q) {
        *byte = *q as i8;
    }
}

/// Rounds one column; see [`Kernels::quantize`](crate::kernels::Kernels::quantize).
#[inline(always)]
pub(in crate::kernels) fn quantize(
    x: &[f32],
    precision: Precision,
    out: &mut [Act8],
    rests: &mut [Act8],
    first: usize,
) {
    let x = x.as_chunks::<BLOCK>().0;
    let count = x.len().min(out.len());
    let mut squares = 0.0;
    for (x, out) in x.iter().zip(&mut *out) {
        let peak = peak(x);
        // Kept there until what belongs there is known. Divisions take long, so they are begun here.
        (out.scale, out.sums.scaled) = (peak, 1.0 / scale_of(peak));
        squares += peak * peak;
    }
    // `square > STANDS_OUT * mean`.
    let (factor, bound) = match precision {
        Precision::Bits8 => (0.0, 0.0),
        Precision::Mixed => (count as f32, STANDS_OUT as f32 * squares),
        Precision::Bits16 => (1.0, -1.0),
    };
    let (mut rests, mut number) = (rests.iter_mut(), first as u32);
    for (x, out) in x.iter().zip(out) {
        let peak = out.scale;
        if peak.to_bits() < TINY || peak.to_bits() >= HUGE {
            let (scale, rest) = if peak.to_bits() < TINY { (1.0, 0) } else { (f32::NAN, Act8::NOT_FINITE) };
            block(scale, &[0; BLOCK], out);
            out.rest = rest;
            continue;
        }
        let (scale, inverse) = (scale_of(peak), out.sums.scaled);
        let q = rounded(x, inverse);
        block(scale, &q, out);
        if peak * peak * factor > bound
            && let Some(rest) = rests.next()
        {
            let mut left = [0.0; BLOCK];
            for ((left, v), q) in left.iter_mut().zip(x).zip(&q) {
                *left = v * inverse - *q as f32;
            }
            let mut q = rounded(&left, 256.0);
            q.iter_mut().for_each(|q| *q = (*q).clamp(-127, 127));
            block(scale * (1.0 / 256.0), &q, rest);
            number = number.wrapping_add(1);
            out.rest = number;
        }
    }
}
