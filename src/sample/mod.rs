//! From logits to a token: penalties, cuts, and a draw whose outcome is the same on every machine.
//!
//! ```text
//! logits ─ bias ─ penalties ─┬─ temperature 0: the largest
//!                            └─ top-k ─ top-p ─ min-p ─ temperature ─ softmax ─ draw
//! ```
//!
//! A [`Sampler`] is a plain value: copy it to fork a generation, keep it to repeat one. It holds no memory; the
//! candidates it works on are an array of the caller's, one entry a token of the vocabulary. All of this module is
//! `f64` arithmetic with [`crate::math`], in a fixed order, and a draw takes one number from an integer generator.

mod chain;
mod heap;
mod logprob;
mod params;
mod rng;

pub use chain::{Candidate, Sampler};
pub use logprob::{argmax, log_prob, log_sum_exp, top};
pub use params::{Bias, Params, SampleError};
pub use rng::Rng;

#[cfg(test)]
mod tests;
