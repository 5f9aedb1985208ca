//! (see kernels)
