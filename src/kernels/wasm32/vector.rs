//! The vector kernels with 128-bit vectors.

use super::super::vector::{Lanes, Pair};
use super::super::{Activation, ChunkScores, Kernels, KvBlocks, Linear, RopePairs, Span};
use super::linear::halves;
use crate::mem::split::TileMut;
use crate::tensor::{Act8, DType, Precision};
use core::arch::wasm32::*;

/// 16 lanes in four registers.
#[derive(Clone, Copy)]
struct Simd128;

/// Methods of one expression on each of the four registers.
macro_rules! on_all {
    ($(fn $name:ident($($arg:ident: Floats),*; $($other:ident: $other_of:ty),*) { $value:expr })*) => { $(
        #[inline(always)]
        fn $name(self, $($other: $other_of,)* $($arg: [v128; 4]),*) -> [v128; 4] {
            core::array::from_fn(|i| {
                $(let $arg = $arg[i % 4];)*
                $value
            })
        }
    )* };
}

impl Lanes for Simd128 {
    type Floats = [v128; 4];
    type Integers = [v128; 4];
    type Pairs = [v128; 4];
    const SUMS: usize = 2;

    #[inline(always)]
    fn zero(self) -> [v128; 4] {
        [f32x4_splat(0.0); 4]
    }

    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> [v128; 4] {
        let p: *const v128 = x.as_ptr().cast();
        // SAFETY: `i % 4` keeps the four floats inside; no alignment needed.
        core::array::from_fn(|i| unsafe { v128_load(p.add(i % 4)) })
    }

    #[inline(always)]
    fn widen(self, h: &[u16; 16]) -> [v128; 4] {
        let p: *const v128 = h.as_ptr().cast();
        // SAFETY: the 32 bytes of `h`; no alignment needed.
        let (low, high) = unsafe { (v128_load(p), v128_load(p.add(1))) };
        [
            halves(u32x4_extend_low_u16x8(low)),
            halves(u32x4_extend_high_u16x8(low)),
            halves(u32x4_extend_low_u16x8(high)),
            halves(u32x4_extend_high_u16x8(high)),
        ]
    }

    #[inline(always)]
    fn widen_bytes(self, q: &[i8; 16]) -> [v128; 4] {
        // SAFETY: the 16 bytes of `q`; no alignment needed.
        let q = unsafe { v128_load(q.as_ptr().cast()) };
        let (low, high) = (i16x8_extend_low_i8x16(q), i16x8_extend_high_i8x16(q));
        [
            f32x4_convert_i32x4(i32x4_extend_low_i16x8(low)),
            f32x4_convert_i32x4(i32x4_extend_high_i16x8(low)),
            f32x4_convert_i32x4(i32x4_extend_low_i16x8(high)),
            f32x4_convert_i32x4(i32x4_extend_high_i16x8(high)),
        ]
    }

    on_all! {
        fn scale(x: Floats; factor: f32) { f32x4_mul(x, f32x4_splat(factor)) }
        fn mul(a: Floats, b: Floats;) { f32x4_mul(a, b) }
        fn add(a: Floats, b: Floats;) { f32x4_add(a, b) }
    }

    #[inline(always)]
    fn no_integers(self) -> [v128; 4] {
        [i32x4_splat(0); 4]
    }

    #[inline(always)]
    fn pairs(self, x: &[Pair; 16]) -> [v128; 4] {
        let p: *const v128 = x.as_ptr().cast();
        // SAFETY: `i % 4` keeps the four pairs inside; no alignment needed.
        core::array::from_fn(|i| unsafe { v128_load(p.add(i % 4)) })
    }

    #[inline(always)]
    fn add_pairs(self, sum: [v128; 4], factors: Pair, x: [v128; 4]) -> [v128; 4] {
        let factors = i32x4_splat(bytemuck::cast(factors));
        core::array::from_fn(|i| i32x4_add(sum[i % 4], i32x4_dot_i16x8(factors, x[i % 4])))
    }

    #[inline(always)]
    fn larger_sizes(self, sizes: [v128; 4], x: [v128; 4]) -> [v128; 4] {
        core::array::from_fn(|i| i32x4_max(sizes[i % 4], f32x4_abs(x[i % 4])))
    }

    #[inline(always)]
    fn integers(self, x: [v128; 4]) -> [i32; 16] {
        let mut out = [0; 16];
        for (out, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(x) {
            // SAFETY: writes the 16 bytes of `out`; no alignment needed.
            unsafe { v128_store(out.as_mut_ptr().cast(), x) }
        }
        out
    }

    #[inline(always)]
    fn round(self, x: [v128; 4]) -> [i16; 16] {
        let mut out = [0; 16];
        let x = x.map(|x| i32x4_trunc_sat_f32x4(f32x4_nearest(x)));
        for (out, x) in out.as_chunks_mut::<8>().0.iter_mut().zip(x.as_chunks().0) {
            let [low, high] = *x;
            // SAFETY: writes the 16 bytes of `out`; no alignment needed.
            unsafe { v128_store(out.as_mut_ptr().cast(), i16x8_narrow_i32x4(low, high)) }
        }
        out
    }

    #[inline(always)]
    fn to_floats(self, x: [v128; 4]) -> [v128; 4] {
        x.map(|x| f32x4_convert_i32x4(x))
    }

    #[inline(always)]
    fn to_array(self, x: [v128; 4]) -> [f32; 16] {
        let mut out = [0.0; 16];
        for (out, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(x) {
            // SAFETY: writes the 16 bytes of `out`; no alignment needed.
            unsafe { v128_store(out.as_mut_ptr().cast(), x) }
        }
        out
    }
}

mod body {
    pub(super) use crate::kernels::vector::{
        activate, activate_mul, add, attention_merge, layer_norm, log_sum_exp, quantize, rms_norm, rope,
        scale, shorten, softcap,
    };

    use super::Simd128;
    use crate::kernels::{ChunkScores, KvBlocks, Span, vector};
    use crate::mem::split::TileMut;

    attention_bodies!(Simd128);
}

for_vector_kernels!(stamp_vector_kernels []);

#[cfg(test)]
#[test]
fn simd128_equals_scalar() {
    let scalar = crate::kernels::SCALAR;
    crate::kernels::testkit_vector::battery(&kernels("simd128", scalar.linear, scalar.linear_scratch));
}
