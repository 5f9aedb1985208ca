//! What the CPU can do, as a value.
//!
//! [`crate::kernels`] reads it from the machine; a value made by hand (all off, or a feature less) chooses another
//! table, for tests and for hosts that want one. Nothing is kept in global state.

/// Instruction sets that some kernel table uses. Everything off is the scalar table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// x86: 256-bit integers, and the operating system saves the registers.
    pub avx2: bool,
    /// x86: conversion of f16.
    pub f16c: bool,
    /// x86: fused multiply-add.
    pub fma: bool,
    /// x86: 512-bit registers, saved by the operating system, with the F, BW, DQ and VL parts.
    pub avx512: bool,
    /// x86: dot products of bytes in 512-bit registers.
    pub avx512_vnni: bool,
    /// x86: dot products of bytes in 256-bit registers, without AVX-512.
    pub avx_vnni: bool,
    /// AArch64: the vector registers. Every program may use them, but for some on bare metal.
    pub neon: bool,
    /// AArch64: dot products of bytes.
    pub dotprod: bool,
    /// AArch64: products of matrices of bytes.
    pub i8mm: bool,
    /// WebAssembly: 128-bit vectors. A module has them or not from when it is built.
    pub simd128: bool,
}

impl Features {
    /// Nothing but plain Rust.
    pub const NONE: Features = Features {
        avx2: false,
        f16c: false,
        fma: false,
        avx512: false,
        avx512_vnni: false,
        avx_vnni: false,
        neon: false,
        dotprod: false,
        i8mm: false,
        simd128: false,
    };

    /// Whether everything in `needed` is there.
    pub const fn includes(self, needed: Features) -> bool {
        (self.avx2 || !needed.avx2)
            && (self.f16c || !needed.f16c)
            && (self.fma || !needed.fma)
            && (self.avx512 || !needed.avx512)
            && (self.avx512_vnni || !needed.avx512_vnni)
            && (self.avx_vnni || !needed.avx_vnni)
            && (self.neon || !needed.neon)
            && (self.dotprod || !needed.dotprod)
            && (self.i8mm || !needed.i8mm)
            && (self.simd128 || !needed.simd128)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_feature_is_missed() {
        let avx2 = Features { avx2: true, ..Features::NONE };
        let both = Features { f16c: true, ..avx2 };
        assert!(both.includes(avx2) && both.includes(both) && both.includes(Features::NONE));
        assert!(!avx2.includes(both) && !Features::NONE.includes(avx2));
        for one in [
            Features { f16c: true, ..Features::NONE },
            Features { fma: true, ..Features::NONE },
            Features { avx512: true, ..Features::NONE },
            Features { avx512_vnni: true, ..Features::NONE },
            Features { avx_vnni: true, ..Features::NONE },
            Features { neon: true, ..Features::NONE },
            Features { dotprod: true, ..Features::NONE },
            Features { i8mm: true, ..Features::NONE },
            Features { simd128: true, ..Features::NONE },
        ] {
            assert!(one.includes(one) && !avx2.includes(one));
        }
    }
}
