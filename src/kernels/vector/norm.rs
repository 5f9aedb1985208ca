//! Norms and `log_sum_exp`: the kernels that add up a whole row.

use super::lanes::{LANES, maximum, tree};
use crate::math::{exp, ln64, rsqrt};

/// `sum((x - shift)^2)` in lanes.
#[inline(always)]
fn sum_of_squares(x: &[f32], shift: f32) -> f32 {
    let (body, rest) = x.as_chunks::<LANES>();
    let mut sum = [0.0; LANES];
    for v in body {
        for l in 0..LANES {
            let v = v[l] - shift;
            sum[l] += v * v;
        }
    }
    for (sum, v) in sum.iter_mut().zip(rest) {
        let v = v - shift;
        *sum += v * v;
    }
    tree(&sum)
}

/// `sum(x)` in lanes.
#[inline(always)]
fn plain_sum(x: &[f32]) -> f32 {
    let (body, rest) = x.as_chunks::<LANES>();
    let mut sum = [0.0; LANES];
    for v in body {
        for l in 0..LANES {
            sum[l] += v[l];
        }
    }
    for (sum, v) in sum.iter_mut().zip(rest) {
        *sum += v;
    }
    tree(&sum)
}

/// `out = (x * s) * weight` with `s = 1 / sqrt(sum(x^2) / n + eps)`.
#[inline(always)]
pub(in crate::kernels) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    // Subtracting a zero leaves every number as it is.
    let s = rsqrt(sum_of_squares(x, 0.0) / x.len() as f32 + eps);
    if weight.is_empty() {
        for (out, x) in out.iter_mut().zip(x) {
            *out = x * s;
        }
    } else {
        for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
            *out = x * s * w;
        }
    }
}

/// `out = ((x - mean) * s) * weight + bias` with `s = 1 / sqrt(sum((x - mean)^2) / n + eps)`.
#[inline(always)]
pub(in crate::kernels) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mean = plain_sum(x) / n;
    let s = rsqrt(sum_of_squares(x, mean) / n + eps);
    for (out, x) in out.iter_mut().zip(x) {
        *out = (x - mean) * s;
    }
    for (out, w) in out.iter_mut().zip(weight) {
        *out *= w;
    }
    for (out, b) in out.iter_mut().zip(bias) {
        *out += b;
    }
}

/// `max + ln(sum(exp(x - max)))`, the last two steps in `f64`. `-inf` for an empty row or one of `-inf` alone, `inf`
/// when one value is, NaN when one is.
#[inline(always)]
pub(in crate::kernels) fn log_sum_exp(x: &[f32]) -> f32 {
    let max = maximum(x);
    let max = if max.is_finite() { max } else { 0.0 };
    let (body, rest) = x.as_chunks::<LANES>();
    let mut sum = [0.0; LANES];
    for v in body {
        for l in 0..LANES {
            sum[l] += exp(v[l] - max);
        }
    }
    for (sum, v) in sum.iter_mut().zip(rest) {
        *sum += exp(v - max);
    }
    (max as f64 + ln64(tree(&sum) as f64)) as f32
}
