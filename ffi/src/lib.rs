//! The C ABI of Locutor: `liblocutor.a` and `liblocutor.so`.
//!
//! `include/locutor.h` is its documentation and its contract. There is no logic here: each function checks what C
//! cannot promise, calls the crate, and turns the result into a status. [`handle`] is the only file that touches raw
//! pointers; the others see checked values of its types.
#![deny(unsafe_code)]

mod budget;
mod exec;
mod failure;
mod generate;
mod handle;
mod model;
mod sampler;
mod sequence;
mod session;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod text;
