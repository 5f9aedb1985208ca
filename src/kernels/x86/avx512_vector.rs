//! The vector kernels, compiled for AVX-512.

use super::super::vector::{Lanes, Pair, SIZE};
use super::super::{Activation, ChunkScores, Kernels, KvBlocks, Linear, RopePairs, Span};
use crate::mem::split::TileMut;
use crate::tensor::{Act8, DType, Precision};
use core::arch::asm;
#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// 16 lanes in one register; a value of this type is the proof that the machine has AVX2, F16C and AVX-512 (F, BW, DQ,
/// VL, VNNI).
#[derive(Clone, Copy)]
struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The machine has AVX2, F16C and AVX-512 (F, BW, DQ, VL, VNNI).
    #[inline(always)]
    unsafe fn new() -> Self {
        Self(())
    }
}

impl Lanes for Avx512 {
    type Floats = __m512;
    type Integers = __m512i;
    type Pairs = __m512i;
    const SUMS: usize = 24;

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: the value proves that the machine has AVX-512.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> __m512 {
        // SAFETY: the value proves that the machine has AVX-512. Reads the 64 bytes of `x`, without alignment.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn widen(self, h: &[u16; 16]) -> __m512 {
        // SAFETY: the value proves that the machine has AVX-512. Reads the 32 bytes of `h`, which need no alignment. The
        // conversion ignores the DAZ and FTZ bits.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(h.as_ptr().cast())) }
    }

    #[inline(always)]
    fn widen_bytes(self, q: &[i8; 16]) -> __m512 {
        // SAFETY: the value proves that the machine has AVX-512. Reads the 16 bytes of `q`, which need no alignment.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(q.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn scale(self, factor: f32, x: __m512) -> __m512 {
        // SAFETY: the value proves that the machine has AVX-512.
        unsafe { _mm512_mul_ps(_mm512_set1_ps(factor), x) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the value proves that the machine has AVX-512.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the value proves that the machine has AVX-512.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn add_exact(self, sum: __m512, factor: f32, x: __m512) -> __m512 {
        // SAFETY: the value proves that the machine has AVX-512.
        unsafe { _mm512_fmadd_ps(_mm512_set1_ps(factor), x, sum) }
    }

    #[inline(always)]
    fn no_integers(self) -> __m512i {
        // SAFETY: the value proves that the machine has AVX-512.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn pairs(self, x: &[Pair; 16]) -> __m512i {
        // SAFETY: the value proves that the machine has AVX-512. Reads the 64 bytes of `x`, without alignment.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn add_pairs(self, sum: __m512i, factors: Pair, x: __m512i) -> __m512i {
        // SAFETY: the value proves that the machine has AVX-512 and VNNI.
        unsafe { add_pairs(sum, _mm512_set1_epi32(bytemuck::cast(factors)), x) }
    }

    #[inline(always)]
    fn larger_sizes(self, sizes: __m512i, x: __m512) -> __m512i {
        // SAFETY: the value proves that the machine has AVX-512.
        unsafe {
            let x = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(SIZE as i32));
            _mm512_max_epi32(sizes, x)
        }
    }

    #[inline(always)]
    fn integers(self, x: __m512i) -> [i32; 16] {
        let mut out = [0; 16];
        // SAFETY: the value proves that the machine has AVX-512; writes the 64 bytes of `out`, without alignment.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), x) }
        out
    }

    #[inline(always)]
    fn round(self, x: __m512) -> [i16; 16] {
        let mut out = [0; 16];
        // SAFETY: the value proves that the machine has AVX-512; writes the 32 bytes of `out`, without alignment. NaN
        // becomes -2^31, whose lower half is 0.
        unsafe {
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x)));
        }
        out
    }

    #[inline(always)]
    fn to_floats(self, x: __m512i) -> __m512 {
        // SAFETY: the value proves that the machine has AVX-512.
        unsafe { _mm512_cvtepi32_ps(x) }
    }

    #[inline(always)]
    fn to_array(self, x: __m512) -> [f32; 16] {
        let mut out = [0.0; 16];
        // SAFETY: the value proves that the machine has AVX-512; writes the 64 bytes of `out`, without alignment.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
        out
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch has no effect that a program can see, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}

/// [`_mm512_dpwssd_epi32`], of which LLVM makes two instructions to shorten chains: there are none here.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_pairs(mut sum: __m512i, factors: __m512i, x: __m512i) -> __m512i {
    // SAFETY: the instruction is one of AVX-512 VNNI, and touches nothing but registers.
    unsafe {
        asm!(
            "vpdpwssd {}, {}, {}", inout(zmm_reg) sum, in(zmm_reg) factors, in(zmm_reg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

mod body {
    pub(super) use crate::kernels::vector::{
        activate, activate_mul, add, attention_merge, layer_norm, log_sum_exp, quantize, rms_norm, rope,
        scale, shorten, softcap,
    };

    use super::Avx512;
    use crate::kernels::{ChunkScores, KvBlocks, Span, vector};
    use crate::mem::split::TileMut;

    #[inline(always)]
    fn avx512() -> Avx512 {
        // SAFETY: called only by the functions that are stamped below for these features.
        unsafe { Avx512::new() }
    }

    attention_bodies!(avx512());
}

for_vector_kernels!(stamp_vector_kernels["avx2,f16c,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"]);

#[cfg(test)]
#[test]
fn avx512_equals_scalar() {
    extern crate std;
    if !super::features().includes(super::tables::AVX512_NEEDS) {
        std::eprintln!("no AVX-512 here: not tested");
        return;
    }
    let scalar = crate::kernels::SCALAR;
    crate::kernels::testkit_vector::battery(&kernels("avx512", scalar.linear, scalar.linear_scratch));
}
