//! 64-bit Arm. Targets that keep floats out of the vector registers, and big-endian ones, have no table.
#![allow(unsafe_code)]

pub(super) mod float_env;
#[cfg(all(feature = "neon", target_feature = "neon", target_endian = "little"))]
mod linear;
#[cfg(all(feature = "neon", target_feature = "neon", target_endian = "little"))]
mod products;
#[cfg(all(feature = "neon", target_feature = "neon", target_endian = "little"))]
mod tables;
#[cfg(all(feature = "neon", target_feature = "neon", target_endian = "little"))]
mod vector;

#[cfg(all(feature = "neon", target_feature = "neon", target_endian = "little"))]
pub(super) use tables::{TABLES, features};
