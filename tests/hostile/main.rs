//! Hostile files and faults: whatever comes in, there is an error that says what and where, or something that works.
//! Nothing panics, hangs, leaks, or takes more memory than was planned.
//!
//! Files are made here, not stored. `ci.sh hostile` shows how many there are.

#[path = "../common/gguf_builder.rs"]
mod gguf_builder;

mod check;
#[cfg(unix)]
mod faults;
mod finish;
mod generated;
mod memory;
mod named;
mod seeds;
mod state;
#[cfg(unix)]
mod weights;
