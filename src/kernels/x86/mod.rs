//! x86 and x86-64.
#![allow(unsafe_code)]

#[cfg_attr(not(test), expect(dead_code, reason = "the tables are assembled when all kernels are there"))]
mod avx2_vector;
#[cfg(target_feature = "sse")]
pub(super) mod float_env;
