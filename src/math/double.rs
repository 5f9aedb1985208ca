//! Functions of `f64`: for angles, for the few numbers a model is set up with, and for log-probabilities.

use core::f64::consts::{FRAC_2_PI, LOG2_E, SQRT_2};

/// `1.5 * 2^52`: adding it rounds to an integer (nearest even), which is left in the low bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
/// `ln 2` in two parts. The first has 40 significant bits, so its product with an exponent is exact.
const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fefa_2000);
const LN2_LOW: f64 = f64::from_bits(0x3d69_ef35_793c_7673);

/// `1 / n!` for `n` from 13 down to 2.
const INVERSE_FACTORIALS: [f64; 12] = {
    let mut table = [0.0; 12];
    let (mut n, mut factorial) = (2, 1.0);
    while n <= 13 {
        factorial *= n as f64;
        table[13 - n] = 1.0 / factorial;
        n += 1;
    }
    table
};

/// `c[0] x^(k-1) + ... + c[k-1]`.
#[inline(always)]
fn polynomial(c: &[f64], x: f64) -> f64 {
    let mut sum = 0.0;
    for c in c {
        sum = sum * x + c;
    }
    sum
}

/// `2^n` for a normal result.
#[inline(always)]
fn power_of_two(n: i32) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

/// `e^x`, at most 0.6 ulp off where the result is normal.
pub fn exp64(x: f64) -> f64 {
    exp_of_sum(x, 0.0)
}

/// `e^(x + low)` for a `low` far below `x`.
fn exp_of_sum(x: f64, low: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    if x > 709.782_712_893_384 {
        return f64::INFINITY;
    }
    if x < -745.2 {
        return 0.0;
    }
    let z = x * LOG2_E + ROUNDER;
    let n = z - ROUNDER;
    // |f| <= ln 2 / 2; the rounding errors of f and of 1 + f are carried along.
    let (f, f_low) = exact_sum(x - n * LN2_HIGH, low - n * LN2_LOW);
    let (sum, sum_low) = exact_sum(1.0, f);
    let y = sum + (sum_low + (f * f * polynomial(&INVERSE_FACTORIALS, f) + f_low));
    // Two factors, since `2^n` alone may be neither finite nor normal. Only the second one can round.
    let n = n as i32;
    y * power_of_two(n / 2) * power_of_two(n - n / 2)
}

/// `a * b` as an exact sum of two numbers (Dekker 1971), for operands well inside the range.
#[inline(always)]
fn exact_product(a: f64, b: f64) -> (f64, f64) {
    let split = |x: f64| {
        let c = x * 134_217_729.0; // 2^27 + 1
        let high = c - (c - x);
        (high, x - high)
    };
    let ((ah, al), (bh, bl)) = (split(a), split(b));
    let product = a * b;
    (product, ((ah * bh - product) + ah * bl + al * bh) + al * bl)
}

/// `a + b` as an exact sum of two numbers (Knuth).
#[inline(always)]
fn exact_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// `2 / (2k + 3)` for `k` from 10 down to 0: the series of `2 atanh` without its first term.
const ATANH: [f64; 11] = {
    let mut table = [0.0; 11];
    let mut k = 0;
    while k <= 10 {
        table[10 - k] = 2.0 / (2 * k + 3) as f64;
        k += 1;
    }
    table
};

/// The logarithm of a positive finite number as a sum of two, some 10 bits more exact than one `f64`.
fn ln_parts(x: f64) -> (f64, f64) {
    let (x, offset) = if x < f64::MIN_POSITIVE { (x * power_of_two(54), -54) } else { (x, 0) };
    let mut n = (x.to_bits() >> 52) as i32 - 1023;
    let mut m = f64::from_bits(x.to_bits() & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    if m > SQRT_2 {
        m *= 0.5;
        n += 1;
    }
    let n = (n + offset) as f64;
    // ln m = 2 atanh(s) with s = (m - 1) / (m + 1), |s| < 0.172. Only the leading term 2 s needs a second part.
    let f = m - 1.0;
    let (d, d_low) = exact_sum(m, 1.0);
    let s = f / d;
    let (p, p_low) = exact_product(s, d);
    let s_low = (((f - p) - p_low) - s * d_low) / d;
    let rest = s * (s * s) * polynomial(&ATANH, s * s);
    let (high, low) = exact_sum(n * LN2_HIGH, 2.0 * s);
    exact_sum(high, low + (n * LN2_LOW + (2.0 * s_low + rest)))
}

/// Natural logarithm, at most 1 ulp off; `ln(0) = -inf`, NaN for negative numbers.
pub fn ln64(x: f64) -> f64 {
    if x.is_nan() || x <= 0.0 || x == f64::INFINITY {
        return if x == 0.0 {
            f64::NEG_INFINITY
        } else if x < 0.0 {
            f64::NAN
        } else {
            x
        };
    }
    ln_parts(x).0
}

/// `base^exponent` for a positive finite base, relative error below 4e-16; anything else as
/// `exp64(exponent * ln64(base))`. Made for the frequencies `base^(-2i/d)` of RoPE.
pub fn pow(base: f64, exponent: f64) -> f64 {
    let rough = exponent * ln64(base);
    let size = |x: f64| f64::from_bits(x.to_bits() & (u64::MAX >> 1));
    // Outside, and for a base of 1, splitting into parts is neither possible nor needed.
    if !(base > 0.0 && base < f64::INFINITY && size(rough) < 745.0 && size(exponent) < 1e200) {
        return exp64(rough);
    }
    let (high, low) = ln_parts(base);
    let (product, product_low) = exact_product(exponent, high);
    exp_of_sum(product, product_low + exponent * low)
}

/// `pi / 2` in three parts; the first two have 33 bits, so their products with integers below `2^20` are exact.
const HALF_PI: [f64; 3] = [
    f64::from_bits(0x3ff9_21fb_5440_0000),
    f64::from_bits(0x3dd0_b461_1a60_0000),
    2.022_266_248_795_950_7e-21,
];

/// `(-1)^k / (2k + 1)!` for `k` from 8 down to 1.
const SIN: [f64; 8] = alternating(1);
/// `(-1)^k / (2k)!` for `k` from 8 down to 1.
const COS: [f64; 8] = alternating(0);

const fn alternating(odd: usize) -> [f64; 8] {
    let mut table = [0.0; 8];
    let (mut k, mut term) = (1, 1.0);
    while k <= 8 {
        term *= -(((2 * k + odd - 1) * (2 * k + odd)) as f64);
        table[8 - k] = 1.0 / term;
        k += 1;
    }
    table
}

/// Sine and cosine of an angle in radians (Cody and Waite's reduction): absolute error below 3e-16 up to `1e6`, slowly
/// growing from there on; NaN beyond `2^30`, which no position times a frequency reaches.
pub fn sin_cos64(angle: f64) -> (f64, f64) {
    if !(angle < 1_073_741_824.0 && angle > -1_073_741_824.0) {
        return (f64::NAN, f64::NAN);
    }
    let z = angle * FRAC_2_PI + ROUNDER;
    let k = z - ROUNDER;
    let r = ((angle - k * HALF_PI[0]) - k * HALF_PI[1]) - k * HALF_PI[2];
    let square = r * r;
    let sin = r + r * (square * polynomial(&SIN, square));
    let cos = 1.0 + square * polynomial(&COS, square);
    match z.to_bits() & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}
