//! AVX-512: linear layers of float weights, fused multiply-adds where products are exact.

#[cfg(target_arch = "x86_64")]
use super::avx512_eight;
use super::avx512_linear::{Avx512, load32, prefetch};
#[cfg(target_arch = "x86_64")]
use crate::kernels::floats::Tile;
use crate::kernels::floats::{self, FloatWeights, Run, Wide};
use crate::kernels::rows::Lanes;
use crate::mem::split::TileMut;
use crate::tensor::{Activations, Matrix};
#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

impl Wide for Avx512 {
    const ONE_STREAM: bool = true;
    type Lanes = __m512;

    #[inline(always)]
    fn zero(self) -> __m512 {
        self.floats(0.0)
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> __m512 {
        // SAFETY: 64 bytes that may be read, no alignment needed; AVX-512 is there.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn load_f32(self, from: Run<'_, u32>) -> __m512 {
        // SAFETY: `Run` answers for 16 elements, no alignment needed; AVX-512 is there.
        unsafe { _mm512_loadu_ps(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_f16(self, from: Run<'_, u16>) -> __m512 {
        // SAFETY: `Run` answers for 16 elements, no alignment needed; AVX-512 is there.
        unsafe { _mm512_cvtph_ps(load32(from.as_ptr())) }
    }

    #[inline(always)]
    fn load_bf16(self, from: Run<'_, u16>) -> __m512 {
        // SAFETY: `Run` answers for 16 elements, no alignment needed; AVX-512 is there.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load32(from.as_ptr())))) }
    }

    #[inline(always)]
    fn add_product(self, acc: __m512, w: __m512, x: __m512) -> __m512 {
        self.add(acc, self.mul(w, x))
    }

    #[inline(always)]
    fn add_exact(self, acc: __m512, w: __m512, x: __m512) -> __m512 {
        // SAFETY: instructions on registers, which a value of `Avx512` stands for.
        unsafe { _mm512_fmadd_ps(w, x, acc) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn columns<T: FloatWeights>(self, tile: &mut Tile<'_, '_, '_, Self, T>) -> bool {
        avx512_eight::tile(self, tile)
    }

    #[inline(always)]
    fn prefetch(self, start: *const u8, bytes: usize) {
        prefetch(start, bytes);
    }

    #[inline(always)]
    fn tree(self, v: __m512) -> f32 {
        // SAFETY: instructions on registers, which a value of `Avx512` stands for.
        unsafe {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}

/// The root of a layer: everything is inlined here, where the instruction set is on.
///
/// # Safety
/// The CPU has AVX2, F16C, AVX-512 (F, BW, DQ, VL) and AVX-512 VNNI.
#[target_feature(enable = "avx2,f16c,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn float_root<T: FloatWeights>(w: &Matrix<'_>, x: &Activations<'_>, out: &mut TileMut<'_, f32>) {
    // SAFETY: the caller's promise.
    floats::linear::<Avx512, T>(unsafe { Avx512::new() }, w, x, out);
}

/// A layer of float weights.
pub(super) fn float<T: FloatWeights>(
    w: &Matrix<'_>,
    x: &Activations<'_>,
    out: &mut TileMut<'_, f32>,
    _: &mut [f32],
) {
    // SAFETY: this table is only reachable when all features of the root were detected.
    unsafe { float_root::<T>(w, x, out) }
}
