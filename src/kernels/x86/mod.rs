//! x86 and x86-64. Without SSE2 (bare-metal targets that keep floats out of the wide registers) there is no table.
#![allow(unsafe_code)]

#[cfg(all(feature = "avx2", target_feature = "sse2"))]
mod avx2_linear;
#[cfg(all(feature = "avx2", target_feature = "sse2"))]
mod avx2_products;
#[cfg(all(feature = "avx2", target_feature = "sse2"))]
mod avx2_vector;
#[cfg(all(feature = "avx512", target_arch = "x86_64", target_feature = "sse2"))]
mod avx512_eight;
#[cfg(all(feature = "avx512", target_feature = "sse2"))]
mod avx512_floats;
#[cfg(all(feature = "avx512", target_feature = "sse2"))]
mod avx512_linear;
#[cfg(all(feature = "avx512", target_arch = "x86_64", target_feature = "sse2"))]
mod avx512_six;
#[cfg(all(feature = "avx512", target_feature = "sse2"))]
mod avx512_vector;
#[cfg(target_feature = "sse")]
pub(super) mod float_env;
#[cfg(all(feature = "avx2", target_feature = "sse2"))]
mod tables;

#[cfg(all(feature = "avx2", target_feature = "sse2"))]
pub(super) use tables::{TABLES, features};
