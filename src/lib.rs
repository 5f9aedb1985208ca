//! GPT inference that lives inside another program.
#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

// Floor 0: ground.
pub mod cpu;
pub mod exec;
#[cfg(feature = "std")]
pub mod exec_threads;
pub mod math;
pub mod mem;
pub mod num;
// Floor 1: tensors.
pub mod tensor;
// Floor 2: files, and kernels.
pub mod format;
pub mod kernels;
// Floor 3: operations.
pub mod ops;
// Floors 4 and 5: models and their cache; text; sampling.
pub mod kv;
pub mod model;
pub mod sample;
pub mod text;
// Floor 6: sessions.
pub mod session;
