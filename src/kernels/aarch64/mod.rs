//! 64-bit Arm.
#![allow(unsafe_code)]

pub(super) mod float_env;
