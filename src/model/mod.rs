//! Models as data, and the one forward pass.
//!
//! [`spec`] describes, `families` fills the description from metadata, [`names`] knows the tensors, [`weights`] finds
//! them, [`plan`] sizes a run's memory and [`forward`] runs.

mod error;
mod families;
mod finite;
pub mod forward;
mod header;
pub mod names;
mod open;
#[cfg(feature = "alloc")]
mod owned;
pub mod plan;
mod read_spec;
pub mod spec;
mod verify;
pub mod weights;

pub use error::{ModelError, Name};
pub use header::ModelHeader;
pub use open::Model;
pub use spec::ModelSpec;
