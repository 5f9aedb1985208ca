//! Operations of a layer over the kernels.
