//! Reference (de)quantisation: what the bytes of a tensor mean.
//!
//! The order of the float operations is that of GGML's reference code, so every value has the bits that the field's
//! other tools compute from the same file.

use super::block::{Block, Half, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
use super::{BLOCK, DType};
use crate::mem::aligned::RawBytes;
use bytemuck::Pod;
use half::{bf16, f16};

/// The values of a row (or any run of whole blocks) of type `dtype`, to `out`.
///
/// Writes `out.len()` values, or fewer when `bytes` holds fewer; returns how many. Neither allocates nor fails.
pub fn dequantize_row(dtype: DType, bytes: RawBytes<'_>, out: &mut [f32]) -> usize {
    match dtype {
        DType::F32 => floats(bytes, out, |bits: u32| f32::from_bits(u32::from_le(bits))),
        DType::F16 => floats(bytes, out, |bits: u16| f16::from_bits(u16::from_le(bits)).to_f32()),
        DType::BF16 => floats(bytes, out, |bits: u16| bf16::from_bits(u16::from_le(bits)).to_f32()),
        DType::Q8_0 => blocks::<Q8_0>(bytes, out),
        DType::Q4_0 => blocks::<Q4_0>(bytes, out),
        DType::Q4_1 => blocks::<Q4_1>(bytes, out),
        DType::Q5_0 => blocks::<Q5_0>(bytes, out),
        DType::Q5_1 => blocks::<Q5_1>(bytes, out),
        DType::Q4_K => blocks::<Q4_K>(bytes, out),
        DType::Q5_K => blocks::<Q5_K>(bytes, out),
        DType::Q6_K => blocks::<Q6_K>(bytes, out),
    }
}

/// Plain floats, one by one.
fn floats<T: Pod>(bytes: RawBytes<'_>, out: &mut [f32], value: impl Fn(T) -> f32) -> usize {
    let count = out.len().min(bytes.len() / size_of::<T>());
    for (i, out) in out.iter_mut().take(count).enumerate() {
        *out = value(bytes.read(i));
    }
    count
}

/// Quantised values, part by part.
fn blocks<B: Block>(bytes: RawBytes<'_>, out: &mut [f32]) -> usize {
    let values = B::PARTS * BLOCK;
    let whole = bytes.len() / size_of::<B>();
    let count = out.len().min(whole.saturating_mul(values));
    for (index, out) in out.chunks_mut(values).take(whole).enumerate() {
        let block: B = bytes.read(index);
        for (part, out) in out.chunks_mut(BLOCK).enumerate() {
            let (weights, scales, min) = (block.weights(part), block.scales(part), block.min(part));
            for (i, (out, weight)) in out.iter_mut().zip(weights).enumerate() {
                let scaled = scales[i / 16] * f32::from(weight);
                *out = min.map_or(scaled, |min| scaled + min);
            }
        }
    }
    count
}

/// Writes `x` as type `dtype` to `out`, as GGML's reference quantiser does. Returns the number of bytes written.
///
/// `None` for a type that has no quantiser here (all but F32, F16, BF16, Q8_0 and Q4_0), for an `x` that is no whole
/// number of blocks, and for an `out` that is too short. Values that are not finite have no meaning in Q8_0 and Q4_0:
/// their block gets some bytes.
pub fn quantize_row(dtype: DType, x: &[f32], out: &mut [u8]) -> Option<usize> {
    let out = out.get_mut(..dtype.row_bytes(x.len())?)?;
    let written = out.len();
    match dtype {
        DType::F32 => write(x, out, |[x]: &[f32; 1]| x.to_le_bytes()),
        DType::F16 => write(x, out, |[x]: &[f32; 1]| f16::from_f32(*x).to_le_bytes()),
        DType::BF16 => write(x, out, |[x]: &[f32; 1]| bf16::from_f32(*x).to_le_bytes()),
        DType::Q8_0 => write(x, out, quantize_q8_0),
        DType::Q4_0 => write(x, out, quantize_q4_0),
        _ => return None,
    }
    Some(written)
}

/// `N` values to one `T`, again and again.
fn write<const N: usize, T: Pod>(x: &[f32], out: &mut [u8], block: impl Fn(&[f32; N]) -> T) {
    for (x, out) in x.as_chunks::<N>().0.iter().zip(out.chunks_exact_mut(size_of::<T>())) {
        out.copy_from_slice(bytemuck::bytes_of(&block(x)));
    }
}

/// `d = peak / 127`, weights `x * (1 / d)` rounded half away from zero.
fn quantize_q8_0(x: &[f32; BLOCK]) -> Q8_0 {
    let peak = x.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
    let d = peak / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    Q8_0 { d: Half::new(d), q: x.map(|x| round_half_away(x * inverse) as i8) }
}

/// `x` to an integer, half away from zero; for `|x|` below 2^23.
#[inline(always)]
pub(crate) fn round_half_away(x: f32) -> f32 {
    let size = x.abs();
    let floor = size as i32 as f32;
    let rounded = floor + (2.0 * (size - floor)) as i32 as f32;
    if x < 0.0 { -rounded } else { rounded }
}

/// The value of largest size becomes -8: `d = value / -8`, weights `x * (1 / d) + 8.5` cut to an integer of 4 bits.
fn quantize_q4_0(x: &[f32; BLOCK]) -> Q4_0 {
    let peak = x.iter().fold(x[0], |peak, x| if x.abs() > peak.abs() { *x } else { peak });
    let d = peak / -8.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let q = x.map(|x| ((x * inverse + 8.5) as u8).min(15));
    Q4_0 { d: Half::new(d), q: core::array::from_fn(|i| q[i] | q[i + BLOCK / 2] << 4) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q8_0_rounds_half_away_and_keeps_the_peak() {
        let mut x = [0.0f32; 32];
        (x[0], x[1], x[2], x[3]) = (127.0, 2.5, -2.5, -127.0);
        let mut bytes = [0u8; 34];
        assert_eq!(quantize_row(DType::Q8_0, &x, &mut bytes), Some(34));
        let mut back = [1.0f32; 32];
        assert_eq!(dequantize_row(DType::Q8_0, RawBytes::new(&bytes), &mut back), 32);
        assert_eq!(back[..5], [127.0, 3.0, -3.0, -127.0, 0.0]);
    }

    #[test]
    fn q4_0_gives_the_largest_value_the_code_zero() {
        let x: [f32; 32] = core::array::from_fn(|i| 0.5 * i as f32 - 4.0);
        let mut bytes = [0u8; 18];
        assert_eq!(quantize_row(DType::Q4_0, &x, &mut bytes), Some(18));
        let mut back = [0.0f32; 32];
        dequantize_row(DType::Q4_0, RawBytes::new(&bytes), &mut back);
        assert_eq!(back[31], 11.5);
        assert_eq!(back[8], 0.0);
    }

    #[test]
    fn lengths_that_do_not_fit_are_answered_not_exceeded() {
        let mut bytes = [0u8; 34];
        assert_eq!(quantize_row(DType::Q8_0, &[0.0; 33], &mut bytes), None);
        assert_eq!(quantize_row(DType::Q8_0, &[0.0; 64], &mut bytes), None);
        assert_eq!(quantize_row(DType::Q6_K, &[0.0; 256], &mut [0; 210]), None);
        let mut out = [7.0; 40];
        assert_eq!(dequantize_row(DType::Q8_0, RawBytes::new(&bytes), &mut out), 32);
        assert_eq!(out[32], 7.0);
        assert_eq!(dequantize_row(DType::Q6_K, RawBytes::new(&bytes), &mut out), 0);
        assert_eq!(dequantize_row(DType::F16, RawBytes::new(&bytes), &mut out), 17);
        assert_eq!(dequantize_row(DType::Q4_0, RawBytes::new(&bytes), &mut out[..5]), 5);
    }
}
