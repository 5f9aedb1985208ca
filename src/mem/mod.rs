//! Memory: plan first, then carve from the caller's block; bytes that other processes may change; disjoint parts.

pub mod aligned;
pub mod arena;
mod copy;
mod digest;
pub mod split;

pub use arena::{Arena, MemError, ObjectSlot, Plan, Slot};
pub use copy::{copy_part, shift_left};
pub use digest::Digest;

/// Alignment in bytes of every block that a caller hands over and of every array inside it: one cache line.
pub const ALIGN: usize = 64;
