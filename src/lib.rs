//! GPT inference that lives inside another program.
//!
//! A host hands Locutor weights (a GGUF file, mapped or in memory, or bytes in flash) and one block of memory, and gets
//! text back. The library never aborts the host, allocates nothing behind its back, starts no thread it was not given,
//! and computes the same bits on every machine, for any number of threads, any batch and any budget.
//!
//! Five nouns are enough to get text: a [`Model`], the [`Limits`] that plan its memory, a [`Session`], a [`Sampler`],
//! and steps.
//!
//! # A desktop program
//!
//! ```no_run
//! use locutor::{Limits, Model, Sampler};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::open("story.gguf")?; // or: unsafe { Model::map(path)? }
//! let mut session = model.session(Limits::new().context(512))?; // one block of exactly the planned bytes
//! let mut sampler = Sampler::greedy().temperature(0.7)?.top_k(40).seed(1);
//! session.feed("Once upon a time")?;
//! while let Some(piece) = session.next_piece(&mut sampler)? {
//!     print!("{piece}");
//! }
//! # Ok(()) }
//! ```
//!
//! # A game: two milliseconds a frame
//!
//! ```no_run
//! use locutor::{Budget, Sampler, Session, Step};
//!
//! # fn say(_: &str) {}
//! # fn finish() {}
//! fn frame(session: &mut Session, sampler: &mut Sampler, now: &dyn Fn() -> u64) -> Result<(), locutor::Error> {
//!     match session.step(Budget::Until { clock: now, at: now() + 2_000 }, sampler)? {
//!         Step::Pending | Step::Token(_) => {}
//!         Step::Piece(text) => say(text),
//!         Step::Done(_) => finish(),
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Bare metal: weights in flash, two arrays, no heap, no operating system
//!
//! ```
//! use locutor::mem::aligned::Aligned;
//! use locutor::{Limits, Model, Sampler, Serial, Session};
//!
//! # fn main() -> Result<(), locutor::Error> {
//! static STORY: &[u8] = include_bytes!("../tests/golden/gpt2-tied.gguf");
//! let mut model_memory = Aligned([0; 96 << 10]); // `static mut` on a real machine; `Model::size` tells how much
//! let mut session_memory = Aligned([0; 256 << 10]); // `Session::size` tells how much
//!
//! let model = Model::from_bytes(STORY, &mut model_memory.0)?;
//! let limits = Limits::new().context(32).batch(4);
//! let mut session = Session::new(&model, &limits, &Serial, &mut session_memory.0)?;
//! session.feed_tokens(&[1, 2, 3])?;
//! session.set_ignore_end(true);
//! let id = session.next_token(&mut Sampler::greedy())?;
//! assert!(id.is_some());
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | none | everything that needs `core` alone: models and sessions in the caller's memory |
//! | `alloc` | models and sessions that own one block each |
//! | `std` (default) | files, memory mapping, a small pool of threads; implies `alloc` |
//! | `avx2` (default) | kernels for x86 with AVX2, F16C and FMA, chosen at run time; the same bits, faster |
//! | `avx512` (default) | kernels for x86 with AVX-512 and VNNI as well; implies `avx2` |
//! | `avxvnni` | linear layers for x86 with AVX-VNNI as well, for CPUs without AVX-512; implies `avx2` |
//! | `neon` (default) | kernels for 64-bit Arm, and for its dot and matrix products; chosen at run time with `std` |
//! | `simd128` (default) | kernels for WebAssembly, for builds with this target feature |
//!
//! # Order of the house
//!
//! Modules stand on floors and import from the floors below only; ARCHITECTURE.md has the table.
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
mod steps;
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

pub use exec::{CancelFlag, Exec, Serial};
pub use model::Model;
pub use sample::Sampler;
pub use session::{
    Budget, ContextPolicy, Error, Finish, Limits, Progress, Saved, SequenceId, Session, SessionPlan, Step,
};
