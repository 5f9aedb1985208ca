//! The vector kernels, compiled for AVX2, F16C and FMA.

use super::super::vector::{Lanes, Pair, SIZE};
use super::super::{Activation, ChunkScores, Kernels, KvBlocks, Linear, RopePairs, Span};
use crate::mem::split::TileMut;
use crate::tensor::{Act8, DType, Precision};
#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// 16 lanes in two registers; a value of this type is the proof that the machine has AVX2, F16C and FMA.
#[derive(Clone, Copy)]
struct Avx(());

impl Avx {
    /// # Safety
    /// The machine has AVX2, F16C and FMA.
    #[inline(always)]
    unsafe fn new() -> Self {
        Self(())
    }
}

impl Lanes for Avx {
    type Floats = [__m256; 2];
    type Integers = [__m256i; 2];
    type Pairs = [__m256i; 2];
    const SUMS: usize = 4;

    #[inline(always)]
    fn zero(self) -> [__m256; 2] {
        // SAFETY: the value proves that the machine has AVX.
        unsafe { [_mm256_setzero_ps(); 2] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> [__m256; 2] {
        // SAFETY: the value proves that the machine has AVX. Reads the 64 bytes of `x`, without alignment.
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn widen(self, h: &[u16; 16]) -> [__m256; 2] {
        // SAFETY: the value proves that the machine has F16C. Reads the 32 bytes of `h`, which need no alignment. The
        // conversion ignores the DAZ and FTZ bits.
        unsafe {
            let h: *const __m128i = h.as_ptr().cast();
            [_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h.add(1)))]
        }
    }

    #[inline(always)]
    fn widen_bytes(self, q: &[i8; 16]) -> [__m256; 2] {
        // SAFETY: the value proves that the machine has AVX2. Reads the 16 bytes of `q`, which need no alignment.
        unsafe {
            let q: *const i8 = q.as_ptr();
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(q.cast()))),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(q.add(8).cast()))),
            ]
        }
    }

    #[inline(always)]
    fn scale(self, factor: f32, x: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the value proves that the machine has AVX.
        unsafe {
            let factor = _mm256_set1_ps(factor);
            [_mm256_mul_ps(factor, x[0]), _mm256_mul_ps(factor, x[1])]
        }
    }

    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the value proves that the machine has AVX.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the value proves that the machine has AVX.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn add_exact(self, sum: [__m256; 2], factor: f32, x: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the value proves that the machine has FMA.
        unsafe {
            let factor = _mm256_set1_ps(factor);
            [_mm256_fmadd_ps(factor, x[0], sum[0]), _mm256_fmadd_ps(factor, x[1], sum[1])]
        }
    }

    #[inline(always)]
    fn no_integers(self) -> [__m256i; 2] {
        // SAFETY: the value proves that the machine has AVX.
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    fn pairs(self, x: &[Pair; 16]) -> [__m256i; 2] {
        // SAFETY: the value proves that the machine has AVX. Reads the 64 bytes of `x`, without alignment.
        unsafe {
            let x: *const __m256i = x.as_ptr().cast();
            [_mm256_loadu_si256(x), _mm256_loadu_si256(x.add(1))]
        }
    }

    #[inline(always)]
    fn add_pairs(self, sum: [__m256i; 2], factors: Pair, x: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the value proves that the machine has AVX2.
        unsafe {
            let factors = _mm256_set1_epi32(bytemuck::cast(factors));
            [
                _mm256_add_epi32(sum[0], _mm256_madd_epi16(factors, x[0])),
                _mm256_add_epi32(sum[1], _mm256_madd_epi16(factors, x[1])),
            ]
        }
    }

    #[inline(always)]
    fn larger_sizes(self, sizes: [__m256i; 2], x: [__m256; 2]) -> [__m256i; 2] {
        // SAFETY: the value proves that the machine has AVX2.
        unsafe {
            let size = |x| _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(SIZE as i32));
            [_mm256_max_epi32(sizes[0], size(x[0])), _mm256_max_epi32(sizes[1], size(x[1]))]
        }
    }

    #[inline(always)]
    fn integers(self, x: [__m256i; 2]) -> [i32; 16] {
        let mut out = [0; 16];
        // SAFETY: the value proves that the machine has AVX; writes the 64 bytes of `out`, without alignment.
        unsafe {
            let out: *mut __m256i = out.as_mut_ptr().cast();
            _mm256_storeu_si256(out, x[0]);
            _mm256_storeu_si256(out.add(1), x[1]);
        }
        out
    }

    #[inline(always)]
    fn round(self, x: [__m256; 2]) -> [i16; 16] {
        let mut out = [0; 16];
        // SAFETY: the value proves that the machine has AVX2; writes the 32 bytes of `out`, without alignment. NaN
        // becomes -2^31, whose lower half is 0.
        unsafe {
            let low = |x| _mm256_and_si256(_mm256_cvtps_epi32(x), _mm256_set1_epi32(0xffff));
            let packed = _mm256_packus_epi32(low(x[0]), low(x[1]));
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
        out
    }

    #[inline(always)]
    fn to_floats(self, x: [__m256i; 2]) -> [__m256; 2] {
        // SAFETY: the value proves that the machine has AVX.
        unsafe { [_mm256_cvtepi32_ps(x[0]), _mm256_cvtepi32_ps(x[1])] }
    }

    #[inline(always)]
    fn to_array(self, x: [__m256; 2]) -> [f32; 16] {
        let mut out = [0.0; 16];
        // SAFETY: the value proves that the machine has AVX; writes the 64 bytes of `out`, without alignment.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), x[1]);
        }
        out
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch has no effect that a program can see, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}

mod body {
    pub(super) use crate::kernels::vector::{
        activate, activate_mul, add, attention_merge, layer_norm, log_sum_exp, quantize, rms_norm, rope,
        scale, shorten, softcap,
    };

    use super::Avx;
    use crate::kernels::{ChunkScores, KvBlocks, Span, vector};
    use crate::mem::split::TileMut;

    #[inline(always)]
    fn avx() -> Avx {
        // SAFETY: called only by the functions that are stamped below for these features.
        unsafe { Avx::new() }
    }

    attention_bodies!(avx());
}

for_vector_kernels!(stamp_vector_kernels["avx2,f16c,fma"]);

#[cfg(test)]
#[test]
fn avx2_equals_scalar() {
    extern crate std;
    if !super::features().includes(super::tables::AVX2_NEEDS) {
        std::eprintln!("no AVX2 here: not tested");
        return;
    }
    let scalar = crate::kernels::SCALAR;
    crate::kernels::testkit_vector::battery(&kernels("avx2", scalar.linear, scalar.linear_scratch));
}
