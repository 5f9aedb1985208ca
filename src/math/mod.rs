//! Elementary functions that give the same bits on every machine.
//!
//! They are made of correctly rounded operations (`+ - * /` and conversions) and of integer arithmetic on the bits, in
//! one fixed order and never fused, so any IEEE machine agrees on every bit. Two things are outside that promise: the
//! sign and payload of a NaN, and a host that changed the rounding mode or flushes subnormal numbers, which
//! `kernels::FloatEnv` takes care of.
//!
//! The error bounds are in units in the last place (ulp) of the result, measured by the tests against `f64`.
//! [`exp`], [`tanh`], [`erf`] and [`sigmoid`] have no branches, so a loop over them becomes vector code.

mod double;
mod root;
mod single;

pub use double::{exp64, ln64, pow, sin_cos64};
pub use root::{rsqrt, sqrt};
pub use single::{erf, exp, exp_nonpositive, floor, ln, round_even, sigmoid, sin_cos, tanh};

#[cfg(test)]
mod tests;
