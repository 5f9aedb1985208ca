//! What the CPU can do, and the tables.

use super::{avx2_linear, avx2_vector};
#[cfg(feature = "avx512")]
use super::{avx512_linear, avx512_vector};
use crate::cpu::Features;
use crate::kernels::Kernels;
#[cfg(target_arch = "x86")]
use core::arch::x86::{__cpuid, __cpuid_count, _xgetbv};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

/// The tables of this build with the features that they need, the best one last.
pub(in crate::kernels) const TABLES: &[(&Kernels, Features)] = &[
    (&AVX2, AVX2_NEEDS),
    #[cfg(feature = "avxvnni")]
    (&AVX_VNNI, AVX_VNNI_NEEDS),
    #[cfg(all(test, feature = "avx512"))]
    (&ENCODED_VNNI, AVX512_NEEDS),
    #[cfg(feature = "avx512")]
    (&AVX512, AVX512_NEEDS),
];

/// What [`AVX2`] needs.
pub(in crate::kernels) const AVX2_NEEDS: Features =
    Features { avx2: true, f16c: true, fma: true, ..Features::NONE };

/// AVX2, F16C and FMA.
pub(in crate::kernels) const AVX2: Kernels =
    avx2_vector::kernels("avx2", avx2_linear::LINEAR, avx2_linear::scratch);

/// What [`AVX_VNNI`] needs.
#[cfg(feature = "avxvnni")]
pub(in crate::kernels) const AVX_VNNI_NEEDS: Features = Features { avx_vnni: true, ..AVX2_NEEDS };

/// As [`AVX2`], with AVX-VNNI for the linear layers.
#[cfg(feature = "avxvnni")]
pub(in crate::kernels) const AVX_VNNI: Kernels =
    avx2_vector::kernels("avxvnni", avx2_linear::LINEAR_VNNI, avx2_linear::scratch);

/// The layers of [`AVX_VNNI`] on CPUs that have their instruction in the encoding of AVX-512 only.
#[cfg(all(test, feature = "avx512"))]
const ENCODED_VNNI: Kernels =
    avx2_vector::kernels("avxvnni by avx512", avx2_linear::LINEAR_ENCODED, avx2_linear::scratch);

/// What [`AVX512`] needs.
#[cfg(feature = "avx512")]
pub(in crate::kernels) const AVX512_NEEDS: Features =
    Features { avx512: true, avx512_vnni: true, ..AVX2_NEEDS };

/// AVX-512, with VNNI for the linear layers.
#[cfg(feature = "avx512")]
pub(in crate::kernels) const AVX512: Kernels =
    avx512_vector::kernels("avx512", avx512_linear::LINEAR, avx512_linear::scratch);

/// Asks the CPU, and the operating system whether it saves the wide registers (Intel SDM volume 1, 14.3 and 15.2).
pub(in crate::kernels) fn features() -> Features {
    if cfg!(miri) || cfg!(target_env = "sgx") || __cpuid(0).eax < 7 {
        return Features::NONE;
    }
    let bit = |register: u32, bit: u32| register >> bit & 1 != 0;
    let (leaf1, leaf7) = (__cpuid(1).ecx, __cpuid_count(7, 0));
    let (osxsave, avx) = (bit(leaf1, 27), bit(leaf1, 28));
    if !osxsave || !avx {
        return Features::NONE;
    }
    // SAFETY: OSXSAVE says that XGETBV may be executed.
    let saved = unsafe { saved_registers() };
    // XMM and YMM; for AVX-512 also the masks and both parts of ZMM.
    let (ymm, zmm) = (saved & 0x06 == 0x06, saved & 0xe6 == 0xe6);
    let avx512 = zmm && [16, 17, 30, 31].into_iter().all(|b| bit(leaf7.ebx, b));
    let leaf7_1 = if leaf7.eax >= 1 { __cpuid_count(7, 1).eax } else { 0 };
    Features {
        avx2: ymm && bit(leaf7.ebx, 5),
        f16c: ymm && bit(leaf1, 29),
        fma: ymm && bit(leaf1, 12),
        avx512,
        avx512_vnni: avx512 && bit(leaf7.ecx, 11),
        avx_vnni: ymm && bit(leaf7_1, 4),
        ..Features::NONE
    }
}

/// The register sets that the operating system saves, as bits of XCR0.
///
/// # Safety
/// CPUID reports OSXSAVE.
#[target_feature(enable = "xsave")]
unsafe fn saved_registers() -> u64 {
    // SAFETY: the caller's promise.
    unsafe { _xgetbv(0) }
}
