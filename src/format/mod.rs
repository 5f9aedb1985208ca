//! Files: bounded reading of GGUF headers, and the byte sources that models come from.
//!
//! Everything in a file is hostile until it has been checked. [`gguf::scan`] checks a header completely, in linear time
//! and without memory; [`Gguf::read`] then builds sorted tables in the caller's arena, whose views borrow the header.
//! Every error names the field and its absolute byte offset. Nothing here panics: the lints below forbid arithmetic
//! that may overflow, indexing and unwrapping outside the tests.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod cursor;
mod error;
mod field;
pub mod gguf;
pub mod limits;
#[cfg(feature = "std")]
pub mod mmap;
mod sort;
pub mod source;

pub use error::{FormatError, Found, Operation, ReadError};
pub use field::{Field, Name, What};
pub use gguf::{Array, Counts, Gguf, GgufSlots, Key, PerLayer, TensorEntry, Value, ValueType};
pub use sort::{find_by, sort_by};
#[cfg(feature = "alloc")]
pub use source::{FileBytes, HeaderBytes};
pub use source::{ModelBytes, read_into};
