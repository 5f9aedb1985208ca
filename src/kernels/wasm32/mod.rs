//! WebAssembly with 128-bit vectors. A module is built with them or without, so nothing is asked at run time.
#![allow(unsafe_code)]

mod linear;
mod vector;

use super::Kernels;
use crate::cpu::Features;

/// The tables of this build with the features that they need.
pub(super) const TABLES: &[(&Kernels, Features)] = &[(&SIMD128, FEATURES)];

/// 128-bit vectors.
const SIMD128: Kernels = vector::kernels("simd128", linear::LINEAR, linear::scratch);

/// What the machine can do: run this module.
const FEATURES: Features = Features { simd128: true, ..Features::NONE };

/// What the machine can do.
pub(super) fn features() -> Features {
    FEATURES
}
