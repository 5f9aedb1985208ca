//! Activations are rounded to integers, 32 values with one scale.

use crate::tensor::{Act8, Act16, BLOCK, Sums};

/// `1.5 * 2^23`: adding it rounds a small number to an integer (nearest even), which is left in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// Below this peak, `2^-100`, a block counts as zero: `1 / peak` must stay a normal number.
const TINY: u32 = (127 - 100) << 23;

/// Scale and its inverse for values up to `steps`, from the largest magnitude. `(NaN, 0)` when a value is not finite,
/// `(0, 0)` for a block of zeros.
#[inline(always)]
fn scales(x: &[f32; BLOCK], steps: f32) -> (f32, f32) {
    let mut peak = 0;
    for v in x {
        let size = (v.to_bits() & 0x7fff_ffff) as i32;
        peak = if size > peak { size } else { peak };
    }
    let peak = peak as u32;
    if peak >= f32::INFINITY.to_bits() {
        (f32::NAN, 0.0)
    } else if peak < TINY {
        (0.0, 0.0)
    } else {
        let peak = f32::from_bits(peak);
        (peak / steps, steps / peak)
    }
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

/// `q = round_half_even(x * (127 / peak))`, scale `peak / 127`. Values behind the last whole block are left out.
#[inline(always)]
pub(in crate::kernels) fn quantize8(x: &[f32], out: &mut [Act8]) {
    for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out) {
        let (scale, factor) = scales(x, 127.0);
        if factor == 0.0 {
            *out = Act8 { scale, sums: Sums::new(scale, 0, 0), q: [0; BLOCK] };
            continue;
        }
        let q = rounded(x, factor);
        out.scale = scale;
        out.sums = sums(scale, &q);
        for (byte, q) in out.q.iter_mut().zip(&q) {
            *byte = *q as i8;
        }
    }
}

/// `q = round_half_even(x * (32639 / peak))`, scale `peak / 32639`, in two signed bytes: `q = 256 hi + lo`.
#[inline(always)]
pub(in crate::kernels) fn quantize16(x: &[f32], out: &mut [Act16]) {
    for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out) {
        let (scale, factor) = scales(x, 32639.0);
        if factor == 0.0 {
            *out = Act16 { scale, sums: Sums::new(scale, 0, 0), hi: [0; BLOCK], lo: [0; BLOCK] };
            continue;
        }
        let q = rounded(x, factor);
        out.scale = scale;
        out.sums = sums(scale, &q);
        for ((hi, lo), q) in out.hi.iter_mut().zip(&mut out.lo).zip(&q) {
            // The low byte is the nearest to zero; 128 makes up for its sign in the high byte.
            *lo = *q as i8;
            *hi = (q.wrapping_add(128) >> 8) as i8;
        }
    }
}
