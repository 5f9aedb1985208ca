//! Models as data, and the one forward pass.
//!
//! [`spec`] describes, `families` fills the description from metadata, [`names`] knows the tensors, [`weights`] finds
//! them, [`plan`] sizes a run's memory, [`phase`] names the steps of a pass and [`forward`] runs them.

mod error;
mod families;
mod finite;
pub mod forward;
mod header;
pub mod names;
mod open;
#[cfg(feature = "alloc")]
mod owned;
pub mod phase;
pub mod plan;
mod read_spec;
pub mod spec;
mod verify;
pub mod weights;

pub use error::{ModelError, Name};
pub use header::ModelHeader;
pub use open::Model;
pub use spec::ModelSpec;
