//! Everything between the linear layers, written once: the bodies that every instruction set compiles for itself.
//!
//! A body is `#[inline(always)]` and written over 16 virtual lanes. Plain functions around the bodies are the scalar
//! table, the specification; the same bodies inside functions with `#[target_feature]` become vector code. Since the
//! order of all operations is written out and nothing is ever fused, both give the same bits (the payload and sign of
//! a NaN aside). Tails follow the rule "element `i` is in lane `i % 16`".

mod attention;
mod elementwise;
mod lanes;
mod norm;
mod quantize;

pub(super) use attention::{GROUP, attention, store_kv, store_kv32};
pub(super) use elementwise::{activate, activate_mul, add, rope, scale, softcap};
#[allow(unused_imports, reason = "the tables of some targets need them")]
pub(super) use lanes::Lanes;
#[cfg(test)]
pub(super) use lanes::widen;
pub(super) use norm::{layer_norm, log_sum_exp, rms_norm};
pub(super) use quantize::{quantize8, quantize16};

/// Hands the signatures of all vector kernels to the macro `$stamp`.
macro_rules! for_vector_kernels {
    ($stamp:ident $($option:tt)*) => {
        $stamp! { $($option)*
            quantize8(x: &[f32], out: &mut [Act8]);
            quantize16(x: &[f32], out: &mut [Act16]);
            rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
            layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]);
            activate(f: Activation, x: &mut [f32]);
            activate_mul(f: Activation, gate: &mut [f32], up: &[f32]);
            add(x: &mut [f32], y: &[f32]);
            scale(x: &mut [f32], factor: f32);
            softcap(x: &mut [f32], cap: f32);
            rope(pairs: RopePairs, x: &mut [f32], cos: &[f32], sin: &[f32]);
            attention(args: &Attention<'_>, out: &mut [f32], scratch: &mut [f32]);
            attention32(args: &Attention<'_, f32>, out: &mut [f32], scratch: &mut [f32]);
            store_kv(k: &[f32], v: &[f32], lane: usize, block: &mut [u16]);
            store_kv32(k: &[f32], v: &[f32], lane: usize, block: &mut [f32]);
            log_sum_exp(x: &[f32]) -> f32;
        }
    };
}

/// Defines one function a kernel, and `kernels`, which fills a table with them.
///
/// The bodies are those of the module `body` in scope. With `["features"]` in front they are compiled for these
/// CPU features, with `[]` for those of the target.
macro_rules! stamp_vector_kernels {
    ($features:tt $($name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(stamp_vector_kernels! { @function $features $name($($arg: $type),*) $(-> $result)? })*

        /// A table with the vector kernels of this module and the given linear layers.
        pub(in crate::kernels) const fn kernels(
            name: &'static str,
            linear: [Linear; DType::ALL.len()],
            linear_scratch: fn(cols: usize) -> usize,
        ) -> Kernels {
            Kernels { name, linear, linear_scratch, $($name),* }
        }
    };
    (@function [] $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        pub(in crate::kernels) fn $name($($arg: $type),*) $(-> $result)? {
            body::$name($($arg),*)
        }
    };
    (@function [$features:literal] $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        pub(in crate::kernels) fn $name($($arg: $type),*) $(-> $result)? {
            #[target_feature(enable = $features)]
            fn stamped($($arg: $type),*) $(-> $result)? {
                body::$name($($arg),*)
            }
            // SAFETY: these functions are reachable through a table only, and a table is given out only when the
            // machine has the features of all its functions.
            unsafe { stamped($($arg),*) }
        }
    };
}

/// The specification: the bodies as the target compiles them by default.
pub(super) mod scalar {
    use super::super::{Activation, Attention, Kernels, Linear, RopePairs};
    use crate::tensor::{Act8, Act16, DType};

    mod body {
        pub(super) use super::super::*;
        use crate::kernels::Attention;

        #[inline(always)]
        pub(super) fn attention(args: &Attention<'_>, out: &mut [f32], scratch: &mut [f32]) {
            super::super::attention(super::super::lanes::Portable, args, out, scratch);
        }

        #[inline(always)]
        pub(super) fn attention32(args: &Attention<'_, f32>, out: &mut [f32], scratch: &mut [f32]) {
            super::super::attention(super::super::lanes::Portable, args, out, scratch);
        }
    }

    for_vector_kernels!(stamp_vector_kernels []);
}
