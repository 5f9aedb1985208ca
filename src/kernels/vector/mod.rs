//! Everything between the linear layers, written once: the bodies that every instruction set compiles for itself.
//!
//! A body is `#[inline(always)]` and written over 16 virtual lanes. Plain functions around the bodies are the scalar
//! table, the specification; the same bodies inside functions with `#[target_feature]` become vector code. Since the
//! order of all operations is written out and nothing is fused but where no product needs rounding, both give the same bits (the payload and sign of
//! a NaN aside). Tails follow the rule "element `i` is in lane `i % 16`".

mod attention;
mod cache;
mod elementwise;
mod integers;
mod lanes;
mod look;
mod norm;
mod quantize;

pub(super) use attention::{attention_merge, scores, softmax, values};
pub(super) use cache::{Q8, Stored};
pub(super) use elementwise::{activate, activate_mul, add, add_tile, rope, scale, shorten, softcap};
pub(super) use integers::I16;
#[cfg(test)]
pub(super) use lanes::{short, widen};
pub(super) use norm::{layer_norm, log_sum_exp, rms_norm};
pub(super) use quantize::quantize;
#[allow(unused_imports, reason = "the tables of some targets need them")]
pub(super) use {integers::Pair, lanes::Lanes, lanes::SIZE};

/// Hands the signatures of all vector kernels to the macro `$stamp`; behind an `@` an array of kernels, one a type.
macro_rules! for_vector_kernels {
    ($stamp:ident $($option:tt)*) => {
        $stamp! { $($option)*
            quantize(x: &[f32], precision: Precision, out: &mut [Act8], rests: &mut [Act8], first: usize);
            rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
            layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]);
            activate(f: Activation, x: &mut [f32]);
            activate_mul(f: Activation, gate: &mut [f32], up: &[f32]);
            add(x: &mut [f32], y: &[f32]);
            add_tile(to: &mut TileMut<'_, f32>, from: &mut TileMut<'_, f32>);
            scale(x: &mut [f32], factor: f32);
            softcap(x: &mut [f32], cap: f32);
            shorten(x: &mut [f32]);
            rope(pairs: RopePairs, x: &mut [f32], cos: &[f32], sin: &[f32]);
            attention_softmax(
                softcap: f32, spans: &[Span], scores: &mut [ChunkScores], dim_v: usize, partial: &mut [f32]
            );
            attention_merge(dim_v: usize, running: &mut [f32], partial: &[f32]);
            log_sum_exp(x: &[f32]) -> f32;
            @attention_scores
                (q: &mut [f32], kv: &KvBlocks<'_>, spans: &[Span], scale: f32, scores: &mut [ChunkScores])
                [attention_scores_f16, attention_scores_f32, attention_scores_q8_0, attention_scores_i16];
            @attention_values
                (scores: &mut [ChunkScores], kv: &KvBlocks<'_>, spans: &[Span], partial: &mut [f32])
                [attention_values_f16, attention_values_f32, attention_values_q8_0, attention_values_i16];
            @store_key
                (k: &[f32], lane: usize, keys: &mut [u8])
                [store_key_f16, store_key_f32, store_key_q8_0, store_key_i16];
            @store_value
                (v: &[f32], line: usize, values: &mut [u8])
                [store_value_f16, store_value_f32, store_value_q8_0, store_value_i16];
        }
    };
}

/// Defines one function a kernel, and `kernels`, which fills a table with them.
///
/// The bodies are those of the module `body` in scope. With `["features"]` in front they are compiled for these
/// CPU features, with `[]` for those of the target.
macro_rules! stamp_vector_kernels {
    (
        $features:tt
        $($name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;)*
        $(@$array:ident $args:tt [$($entry:ident),*];)*
    ) => {
        $(stamp_vector_kernels! { @function $features $name($($arg: $type),*) $(-> $result)? })*
        $($(stamp_vector_kernels! { @function $features $entry $args })*)*

        /// A table with the vector kernels of this module and the given linear layers.
        pub(in crate::kernels) const fn kernels(
            name: &'static str,
            linear: [Linear; DType::ALL.len()],
            linear_scratch: fn(cols: usize) -> usize,
        ) -> Kernels {
            Kernels { name, linear, linear_scratch, $($name,)* $($array: [$($entry),*]),* }
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

/// Defines the bodies of the kernels that work in `$lanes`, most of them one a type of cached numbers.
macro_rules! attention_bodies {
    ($lanes:expr) => {
        attention_bodies! { @scores $lanes;
            attention_scores_f16: u16, attention_scores_f32: f32, attention_scores_q8_0: vector::Q8,
            attention_scores_i16: vector::I16
        }
        attention_bodies! { @store $lanes;
            store_key_f16, store_value_f16: u16; store_key_f32, store_value_f32: f32;
            store_key_q8_0, store_value_q8_0: vector::Q8; store_key_i16, store_value_i16: vector::I16;
        }
        attention_bodies! { @values $lanes;
            attention_values_f16: u16, attention_values_f32: f32, attention_values_q8_0: vector::Q8,
            attention_values_i16: vector::I16
        }

        #[inline(always)]
        pub(super) fn add_tile(to: &mut TileMut<'_, f32>, from: &mut TileMut<'_, f32>) {
            vector::add_tile($lanes, to, from);
        }

        #[inline(always)]
        pub(super) fn attention_softmax(
            softcap: f32, spans: &[Span], scores: &mut [ChunkScores], dim_v: usize, partial: &mut [f32],
        ) {
            vector::softmax($lanes, softcap, spans, scores, dim_v, partial);
        }
    };
    (@store $lanes:expr; $($key:ident, $value:ident: $stored:ty;)*) => {$(
        #[inline(always)]
        pub(super) fn $key(k: &[f32], lane: usize, keys: &mut [u8]) {
            <$stored as vector::Stored>::store_key($lanes, k, lane, keys);
        }

        #[inline(always)]
        pub(super) fn $value(v: &[f32], line: usize, values: &mut [u8]) {
            <$stored as vector::Stored>::store_value($lanes, v, line, values);
        }
    )*};
    (@scores $lanes:expr; $($name:ident: $stored:ty),*) => {$(
        #[inline(always)]
        pub(super) fn $name(
            q: &mut [f32], kv: &KvBlocks<'_>, spans: &[Span], scale: f32, scores: &mut [ChunkScores],
        ) {
            vector::scores::<_, $stored>($lanes, q, kv, spans, scale, scores);
        }
    )*};
    (@values $lanes:expr; $($name:ident: $stored:ty),*) => {$(
        #[inline(always)]
        pub(super) fn $name(
            scores: &mut [ChunkScores], kv: &KvBlocks<'_>, spans: &[Span], partial: &mut [f32],
        ) {
            vector::values::<_, $stored>($lanes, scores, kv, spans, partial);
        }
    )*};
}

/// The specification: the bodies as the target compiles them by default.
pub(super) mod scalar {
    use super::super::{Activation, ChunkScores, Kernels, KvBlocks, Linear, RopePairs, Span};
    use crate::mem::split::TileMut;
    use crate::tensor::{Act8, DType, Precision};

    mod body {
        pub(super) use super::super::*;
        use crate::kernels::{ChunkScores, KvBlocks, Span, vector};
        use crate::mem::split::TileMut;

        attention_bodies!(vector::lanes::Portable);
    }

    for_vector_kernels!(stamp_vector_kernels []);
}
