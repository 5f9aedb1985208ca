//! Tensors as they are stored: types, blocks, matrices, and the reference (de)quantisation.

pub mod block;
pub mod dequant;
mod dtype;
mod view;

pub use dtype::DType;
pub use view::{Act8, Activations, BLOCK, Blocks, Matrix, Precision, SCALE_BITS, STANDS_OUT, Sums};
