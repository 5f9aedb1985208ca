//! Functions of `f32`.

use core::f32::consts::LOG2_E;

/// `1.5 * 2^23`: adding it rounds a small number to an integer (nearest even), which is left in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// `ln 2` in two parts. The first has 15 significant bits, so `n * LN2_HIGH` is exact for `|n| <= 256`.
const LN2_HIGH: f32 = 22713.0 / 32768.0;
const LN2_LOW: f32 = 1.428_606_8e-6;
/// `p` of `e^f - 1 = f + f^2 p(f)`, lowest power first: a minimax fit on `|f| <= ln 2 / 2` with relative error 1.4e-8.
const EXP: [f32; 5] = [0.499_999_97, 0.166_665_43, 0.041_667_506, 0.008_366_542, 0.001_386_422_2];
/// The largest argument with a finite exponential.
const EXP_MAX: f32 = 88.722_83;
/// Here the exponential is below half the smallest subnormal number.
const EXP_MIN: f32 = -104.0;
/// The least argument whose exponential is a normal number.
const EXP_NORMAL: f32 = -87.336_54;

/// `x = n ln 2 + f` with `|f| <= ln 2 / 2`: returns `n` and `e^f - 1`. For `|x|` up to 104.
#[inline(always)]
fn reduce(x: f32) -> (i32, f32) {
    let z = x * LOG2_E + ROUNDER;
    let n = z - ROUNDER;
    let f = (x - n * LN2_HIGH) - n * LN2_LOW;
    let p = (((EXP[4] * f + EXP[3]) * f + EXP[2]) * f + EXP[1]) * f + EXP[0];
    let n = (z.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    (n, p * (f * f) + f)
}

/// Adds `n` to the exponent of a number.
#[inline(always)]
fn shift_exponent(x: f32, n: i32) -> u32 {
    x.to_bits().wrapping_add((n as u32) << 23)
}

/// `e^x`, at most 1 ulp off, subnormal results included; `exp(-inf) = 0`, infinite from 88.73 on.
///
/// Subnormal results are rounded by integer arithmetic, so flushing them to zero, should the host have asked for it,
/// changes nothing.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let inside = if x > EXP_MAX { EXP_MAX } else { x };
    let inside = if inside < EXP_MIN { EXP_MIN } else { inside };
    let (n, q) = reduce(inside);
    let y = q + 1.0;
    let normal = shift_exponent(y, n);
    // In steps of 2^-149 a subnormal result is an integer below 2^23. Adding 2^23 rounds to that integer, and leaves
    // it in the low bits: the bits of the result.
    let steps = f32::from_bits(shift_exponent(y, (if n < -126 { n } else { -126 }) + 149));
    let subnormal = (steps + 8_388_608.0).to_bits().wrapping_sub(0x4b00_0000);
    let bits = if (normal as i32) < 0x0080_0000 { subnormal } else { normal };
    let result = if x > EXP_MAX { f32::INFINITY } else { f32::from_bits(bits) };
    if x.is_nan() { f32::NAN } else { result }
}

/// `e^x` for `x <= 0`, for softmax: as [`exp`], but 0 where the result would be subnormal. A NaN stays one.
#[inline(always)]
pub fn exp_nonpositive(x: f32) -> f32 {
    let inside = if x < EXP_NORMAL { EXP_NORMAL } else { x };
    let (n, q) = reduce(inside);
    // Exact: a power of two from 2^-126 to 1, or whatever a NaN makes of it.
    let y = (q + 1.0) * f32::from_bits(shift_exponent(1.0, n));
    if x < EXP_NORMAL { 0.0 } else { y }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent, at most 3 ulp off; odd, and exact for zeros and infinities.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    // With m = e^|2x| - 1: tanh |x| = m / (m + 2), which loses nothing near zero.
    let size = f32::from_bits(x.to_bits() & 0x7fff_ffff);
    let double = size + size;
    let double = if double > 40.0 { 40.0 } else { double };
    let (n, q) = reduce(double);
    let power = f32::from_bits(shift_exponent(1.0, n));
    let m = power * q + (power - 1.0);
    f32::from_bits((m / (m + 2.0)).to_bits() | (x.to_bits() & 0x8000_0000))
}

/// `q` of `erf(x) = x + x q(x^2)`, lowest power first: a minimax fit for `|x| <= 1` with relative error 1.5e-9.
const ERF_NEAR: [f32; 7] = [
    0.128_379_17,
    -0.376_126_26,
    0.112_835_83,
    -0.026_853_692,
    0.005_188_074,
    -0.000_800_787_8,
    0.000_078_461_08,
];
/// `g` of `erf(x) = 1 - e^-g(x)`, lowest power first: a minimax fit for `1 <= x <= 4` with relative error 1.1e-9.
const ERF_FAR: [f32; 7] = [
    0.000_341_279_55,
    1.127_090_2,
    0.638_143_06,
    0.103_108_354,
    -0.021_838_86,
    0.002_947_865_8,
    -0.000_186_401_32,
];

/// A polynomial, lowest power first.
#[inline(always)]
fn polynomial(c: &[f32; 7], x: f32) -> f32 {
    (((((c[6] * x + c[5]) * x + c[4]) * x + c[3]) * x + c[2]) * x + c[1]) * x + c[0]
}

/// Error function, at most 2 ulp off; odd, and exact for zeros and infinities.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let size = f32::from_bits(x.to_bits() & 0x7fff_ffff);
    let size = if size > 4.0 { 4.0 } else { size };
    let near = size + size * polynomial(&ERF_NEAR, size * size);
    let far = 1.0 - exp(-polynomial(&ERF_FAR, size));
    let result = if size < 1.0 { near } else { far };
    f32::from_bits(result.to_bits() | (x.to_bits() & 0x8000_0000))
}

/// Natural logarithm, correctly rounded but for the rarest cases; see [`ln64`](super::ln64) for the edges.
#[inline]
pub fn ln(x: f32) -> f32 {
    super::ln64(x as f64) as f32
}

/// Sine and cosine of an angle in radians; see [`sin_cos64`](super::sin_cos64). At most 0.51 ulp off up to `1e6`.
#[inline]
pub fn sin_cos(angle: f32) -> (f32, f32) {
    let (sin, cos) = super::sin_cos64(angle as f64);
    (sin as f32, cos as f32)
}

/// The nearest integer, ties to even; the sign of a zero is kept.
#[inline(always)]
pub fn round_even(x: f32) -> f32 {
    let size = f32::from_bits(x.to_bits() & 0x7fff_ffff);
    // From 2^23 on every float is an integer; NaN fails the comparison too.
    let rounded = if size < 8_388_608.0 { (size + 8_388_608.0) - 8_388_608.0 } else { size };
    f32::from_bits(rounded.to_bits() | (x.to_bits() & 0x8000_0000))
}

/// The largest integer that is not above `x`; the sign of a zero is kept.
#[inline(always)]
pub fn floor(x: f32) -> f32 {
    let nearest = round_even(x);
    if nearest > x { nearest - 1.0 } else { nearest }
}
