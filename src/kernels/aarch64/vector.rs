//! The vector kernels, compiled for NEON.

use super::super::vector::{Lanes, Pair};
use super::super::{Activation, ChunkScores, Kernels, KvBlocks, Linear, RopePairs, Span};
use super::linear::halves;
use crate::mem::split::TileMut;
use crate::tensor::{Act8, DType, Precision};
use core::arch::aarch64::*;
use core::arch::asm;

/// 16 lanes in four registers; a value of this type is the proof that the machine has NEON.
#[derive(Clone, Copy)]
struct Neon(());

impl Neon {
    /// # Safety
    /// The machine has NEON.
    #[inline(always)]
    unsafe fn new() -> Self {
        Self(())
    }
}

/// Methods of one expression on each of the four registers.
macro_rules! on_all {
    ($(fn $name:ident($($arg:ident: Floats),*; $($other:ident: $other_of:ty),*) { $value:expr })*) => { $(
        #[inline(always)]
        fn $name(self, $($other: $other_of,)* $($arg: [float32x4_t; 4]),*) -> [float32x4_t; 4] {
            core::array::from_fn(|i| {
                $(let $arg = $arg[i % 4];)*
                // SAFETY: the value proves that the machine has NEON.
                unsafe { $value }
            })
        }
    )* };
}

impl Lanes for Neon {
    type Floats = [float32x4_t; 4];
    type Integers = [int32x4_t; 4];
    /// First and second numbers of 8 pairs, twice.
    type Pairs = [int16x8x2_t; 2];
    const SUMS: usize = 4;

    #[inline(always)]
    fn zero(self) -> [float32x4_t; 4] {
        // SAFETY: the value proves that the machine has NEON.
        [unsafe { vdupq_n_f32(0.0) }; 4]
    }

    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> [float32x4_t; 4] {
        // SAFETY: the value proves that the machine has NEON; `i % 4` keeps the four floats inside.
        core::array::from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * (i % 4))) })
    }

    #[inline(always)]
    fn widen(self, h: &[u16; 16]) -> [float32x4_t; 4] {
        // SAFETY: the value proves that the machine has NEON. Reads the 32 bytes of `h`. The conversion ignores the
        // bits of FPCR that flush numbers to zero.
        let [low, high] = unsafe { [halves(vld1q_u16(h.as_ptr())), halves(vld1q_u16(h.as_ptr().add(8)))] };
        [low[0], low[1], high[0], high[1]]
    }

    #[inline(always)]
    fn widen_bytes(self, q: &[i8; 16]) -> [float32x4_t; 4] {
        // SAFETY: the value proves that the machine has NEON. Reads the 16 bytes of `q`.
        unsafe {
            let q = vld1q_s8(q.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(q)), vmovl_high_s8(q));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        }
    }

    #[inline(always)]
    fn add_exact(self, sum: [float32x4_t; 4], factor: f32, x: [float32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: the value proves that the machine has NEON.
        core::array::from_fn(|i| unsafe { vfmaq_n_f32(sum[i % 4], x[i % 4], factor) })
    }

    on_all! {
        fn scale(x: Floats; factor: f32) { vmulq_n_f32(x, factor) }
        fn mul(a: Floats, b: Floats;) { vmulq_f32(a, b) }
        fn add(a: Floats, b: Floats;) { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn no_integers(self) -> [int32x4_t; 4] {
        // SAFETY: the value proves that the machine has NEON.
        [unsafe { vdupq_n_s32(0) }; 4]
    }

    #[inline(always)]
    fn pairs(self, x: &[Pair; 16]) -> [int16x8x2_t; 2] {
        let x: *const i16 = x.as_ptr().cast();
        // SAFETY: the value proves that the machine has NEON. Reads the 64 bytes of `x`.
        unsafe { [vld2q_s16(x), vld2q_s16(x.add(16))] }
    }

    #[inline(always)]
    fn add_pairs(self, mut sum: [int32x4_t; 4], factors: Pair, x: [int16x8x2_t; 2]) -> [int32x4_t; 4] {
        let [first, second] = factors;
        for (sum, int16x8x2_t(x, y)) in sum.as_chunks_mut::<2>().0.iter_mut().zip(x) {
            // SAFETY: the value proves that the machine has NEON.
            unsafe {
                sum[0] = vmlal_n_s16(vmlal_n_s16(sum[0], vget_low_s16(x), first), vget_low_s16(y), second);
                sum[1] = vmlal_high_n_s16(vmlal_high_n_s16(sum[1], x, first), y, second);
            }
        }
        sum
    }

    #[inline(always)]
    fn larger_sizes(self, mut sizes: [int32x4_t; 4], x: [float32x4_t; 4]) -> [int32x4_t; 4] {
        for (size, x) in sizes.iter_mut().zip(x) {
            // SAFETY: the value proves that the machine has NEON.
            unsafe { *size = vmaxq_s32(*size, vreinterpretq_s32_f32(vabsq_f32(x))) }
        }
        sizes
    }

    #[inline(always)]
    fn integers(self, x: [int32x4_t; 4]) -> [i32; 16] {
        let mut out = [0; 16];
        for (out, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(x) {
            // SAFETY: the value proves that the machine has NEON; writes the 16 bytes of `out`.
            unsafe { vst1q_s32(out.as_mut_ptr(), x) }
        }
        out
    }

    #[inline(always)]
    fn round(self, x: [float32x4_t; 4]) -> [i16; 16] {
        let mut out = [0; 16];
        for (out, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(x) {
            // SAFETY: the value proves that the machine has NEON; writes the 8 bytes of `out`.
            unsafe { vst1_s16(out.as_mut_ptr(), vmovn_s32(vcvtnq_s32_f32(x))) }
        }
        out
    }

    #[inline(always)]
    fn to_floats(self, x: [int32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: the value proves that the machine has NEON.
        x.map(|x| unsafe { vcvtq_f32_s32(x) })
    }

    #[inline(always)]
    fn to_array(self, x: [float32x4_t; 4]) -> [f32; 16] {
        let mut out = [0.0; 16];
        for (out, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(x) {
            // SAFETY: the value proves that the machine has NEON; writes the 16 bytes of `out`.
            unsafe { vst1q_f32(out.as_mut_ptr(), x) }
        }
        out
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch has no effect that a program can see, whatever the address.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) at, options(nomem, nostack, preserves_flags)) }
    }
}

mod body {
    pub(super) use crate::kernels::vector::{
        activate, activate_mul, add, attention_merge, layer_norm, log_sum_exp, quantize, rms_norm, rope,
        scale, shorten, softcap,
    };

    use super::Neon;
    use crate::kernels::{ChunkScores, KvBlocks, Span, vector};
    use crate::mem::split::TileMut;

    #[inline(always)]
    fn neon() -> Neon {
        // SAFETY: called only by the functions that are stamped below for this feature.
        unsafe { Neon::new() }
    }

    attention_bodies!(neon());
}

for_vector_kernels!(stamp_vector_kernels["neon"]);

#[cfg(test)]
#[test]
fn neon_equals_scalar() {
    let scalar = crate::kernels::SCALAR;
    crate::kernels::testkit_vector::battery(&kernels("neon", scalar.linear, scalar.linear_scratch));
}
