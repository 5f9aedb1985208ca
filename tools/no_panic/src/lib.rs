//! Every door of the library that a host without files has, each behind a C function whose arguments nobody knows.
//!
//! The panic handler calls a function that does not exist. When the linker has thrown away what cannot be reached, and
//! still finds no such call, no argument, no file and no state leads to a panic. `prove.sh` does that; it is a statement
//! about one compiler's optimised code, so it is made again for every compiler and every change.
//!
//! Nothing here is ever run. The pointers are trusted, as those of a C host are.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;

mod calls;
mod host;
#[cfg(feature = "alloc")]
mod owned;
