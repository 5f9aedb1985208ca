//! The vector kernels, compiled for AVX2 and F16C.

use super::super::vector::Halves;
use super::super::{Activation, Attention, Kernels, Linear, RopePairs};
use crate::tensor::{Act8, Act16, DType};
#[cfg(target_arch = "x86")]
use core::arch::x86::{__m128i, _mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};

/// The F16C conversion; a value of this type is the proof that the machine has it.
#[derive(Clone, Copy)]
struct F16c(());

impl Halves for F16c {
    #[inline(always)]
    fn widen(self, h: &[u16; 16]) -> [f32; 16] {
        let mut out = [0.0; 16];
        // SAFETY: the value proves that the machine has F16C and AVX. Reads the 32 bytes of `h` and writes the 64 of
        // `out`; neither needs an alignment. The instruction ignores the DAZ and FTZ bits.
        unsafe {
            let h: *const __m128i = h.as_ptr().cast();
            _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(h)));
            _mm256_storeu_ps(out.as_mut_ptr().add(8), _mm256_cvtph_ps(_mm_loadu_si128(h.add(1))));
        }
        out
    }
}

mod body {
    pub(super) use crate::kernels::vector::{
        activate, activate_mul, add, layer_norm, log_sum_exp, quantize8, quantize16, rms_norm, rope, scale,
        softcap, store_kv,
    };

    #[inline(always)]
    pub(super) fn attention(args: &crate::kernels::Attention<'_>, out: &mut [f32], scratch: &mut [f32]) {
        // Only the function that is compiled for F16C calls this, so the machine has it.
        crate::kernels::vector::attention(super::F16c(()), args, out, scratch);
    }
}

for_vector_kernels!(stamp_vector_kernels["avx2,f16c"]);

#[cfg(test)]
#[test]
fn avx2_equals_scalar() {
    extern crate std;
    if !std::is_x86_feature_detected!("avx2") || !std::is_x86_feature_detected!("f16c") {
        std::eprintln!("no AVX2 here: not tested");
        return;
    }
    let scalar = crate::kernels::SCALAR;
    crate::kernels::testkit_vector::battery(&kernels("avx2", scalar.linear, scalar.linear_scratch));
}
