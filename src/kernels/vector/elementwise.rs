//! Kernels whose results each depend on one or two values.

use super::super::{Activation, RopePairs};
use super::lanes::{LANES, Lanes, short};
use crate::math::{erf, exp_nonpositive, tanh};
use crate::mem::split::TileMut;

/// `x / (1 + e^-u)`, for negative `u` as `x e^u / (1 + e^u)`: an exponential of what is not positive costs less. What
/// such a one loses is less than `x 2^-126`.
#[inline(always)]
fn weighted(x: f32, u: f32) -> f32 {
    // The smaller of `u` and `-u` by its bits: of a comparison LLVM makes two exponentials, one for each outcome.
    let t = exp_nonpositive(f32::from_bits(u.to_bits() | 0x8000_0000));
    (if u < 0.0 { x * t } else { x }) / (1.0 + t)
}

/// `x / (1 + e^-x)`.
#[inline(always)]
fn silu(x: f32) -> f32 {
    weighted(x, x)
}

/// `0.5 (1 + tanh(u)) = 1 / (1 + e^-2u)`, so this is `x / (1 + e^-2u)` with `u = sqrt(2/pi) (x + 0.044715 x^3)`
/// (Hendrycks and Gimpel 2016).
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const LINEAR: f32 = 1.595_769; // 2 sqrt(2/pi)
    const CUBIC: f32 = 0.071_354_816; // 2 sqrt(2/pi) 0.044715
    let u = x * (CUBIC * (x * x) + LINEAR);
    weighted(x, u)
}

/// `x * (0.5 + 0.5 erf(x / sqrt(2)))`.
#[inline(always)]
fn gelu_erf(x: f32) -> f32 {
    x * (0.5 + 0.5 * erf(x * core::f32::consts::FRAC_1_SQRT_2))
}

/// `max(x, 0)`; NaN gives 0.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x > 0.0 { x } else { 0.0 }
}

/// One loop a function, so that each becomes vector code.
macro_rules! by_activation {
    ($f:expr, |$function:ident| $loop:block) => {
        match $f {
            Activation::GeluTanh => {
                use gelu_tanh as $function;
                $loop
            }
            Activation::GeluErf => {
                use gelu_erf as $function;
                $loop
            }
            Activation::Silu => {
                use silu as $function;
                $loop
            }
            Activation::Relu => {
                use relu as $function;
                $loop
            }
        }
    };
}

/// `x = f(x)`.
#[inline(always)]
pub(in crate::kernels) fn activate(f: Activation, x: &mut [f32]) {
    by_activation!(f, |function| {
        for x in x {
            *x = function(*x);
        }
    });
}

/// `gate = f(gate) * up`.
#[inline(always)]
pub(in crate::kernels) fn activate_mul(f: Activation, gate: &mut [f32], up: &[f32]) {
    by_activation!(f, |function| {
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = function(*gate) * up;
        }
    });
}

/// `x += y`.
#[inline(always)]
pub(in crate::kernels) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Lines of a tile between the one that is added to and the one that is asked for.
const LINES_AHEAD: usize = 24;

/// `to += from`, line by line. The lines of `to` are far apart, and long ago somebody's.
#[inline(always)]
pub(in crate::kernels) fn add_tile<L: Lanes>(
    lanes: L,
    to: &mut TileMut<'_, f32>,
    from: &mut TileMut<'_, f32>,
) {
    for line in 0..to.lines() {
        for ahead in to.line(line + LINES_AHEAD).chunks(LANES) {
            lanes.prefetch(ahead.as_ptr().cast());
        }
        add(to.line(line), from.line(line));
    }
}

/// `x *= factor`.
#[inline(always)]
pub(in crate::kernels) fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

/// Each number's nearest of 13 significant bits; see [`short`].
#[inline(always)]
pub(in crate::kernels) fn shorten(x: &mut [f32]) {
    for x in x {
        *x = short(*x);
    }
}

/// `x = cap * tanh(x / cap)`; a cap of 0 means none.
#[inline(always)]
pub(in crate::kernels) fn softcap(x: &mut [f32], cap: f32) {
    if cap == 0.0 {
        return;
    }
    for x in x {
        *x = cap * tanh(*x / cap);
    }
}

/// `(a, b) = (a cos - b sin, a sin + b cos)` for each pair.
#[inline(always)]
pub(in crate::kernels) fn rope(pairs: RopePairs, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    match pairs {
        RopePairs::Interleaved => {
            for ([a, b], (c, s)) in x.as_chunks_mut::<2>().0.iter_mut().zip(cos.iter().zip(sin)) {
                (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
            }
        }
        RopePairs::Halves => {
            let Some((first, second)) = x.split_at_mut_checked(cos.len()) else { return };
            for ((a, b), (c, s)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
                (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
            }
        }
    }
}
