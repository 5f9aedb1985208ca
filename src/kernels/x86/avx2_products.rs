//! Products of bytes with AVX2: by pairs, or by fours with AVX-VNNI.
#![allow(clippy::needless_range_loop, reason = "arrays of registers are clearer with indices")]

use super::avx2_linear::Avx2;
use crate::kernels::rows::{Codes, Lanes};
use crate::tensor::{BLOCK, Sums};
#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// How bytes are multiplied.
pub(super) trait Products: Copy {
    /// Whether there is an instruction that adds four products of bytes to a sum.
    const FOURS: bool;

    /// Adds products of the unsigned bytes of `w` with the signed ones of `q`, four to each sum, exactly.
    ///
    /// # Safety
    /// The CPU has the instruction that the type stands for.
    unsafe fn add_fours(sum: __m256i, w: __m256i, q: __m256i) -> __m256i;
}

/// By pairs, with AVX2 alone.
#[derive(Clone, Copy)]
pub(super) struct Pairs;

impl Products for Pairs {
    const FOURS: bool = false;

    /// Never called: there are no [`FOURS`](Products::FOURS).
    #[inline(always)]
    unsafe fn add_fours(sum: __m256i, _: __m256i, _: __m256i) -> __m256i {
        sum
    }
}

/// By fours, with AVX-VNNI.
#[cfg(feature = "avxvnni")]
#[derive(Clone, Copy)]
pub(super) struct Fours;

#[cfg(feature = "avxvnni")]
impl Products for Fours {
    const FOURS: bool = true;

    #[inline(always)]
    unsafe fn add_fours(sum: __m256i, w: __m256i, q: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_dpbusd_avx_epi32(sum, w, q) }
    }
}

/// As [`Fours`], by the same instruction in the encoding of AVX-512: for tests on CPUs that have no AVX-VNNI.
#[cfg(all(test, feature = "avx512"))]
#[derive(Clone, Copy)]
pub(super) struct EncodedFours;

#[cfg(all(test, feature = "avx512"))]
impl Products for EncodedFours {
    const FOURS: bool = true;

    #[inline(always)]
    unsafe fn add_fours(sum: __m256i, w: __m256i, q: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_dpbusd_epi32(sum, w, q) }
    }
}

/// A sum of products with weights as they are stored, made that with the weights as they are meant.
#[inline(always)]
pub(super) fn shifted<P: Products>(isa: Avx2<P>, codes: Codes, sum: __m256i, sums: &Sums) -> __m256i {
    if matches!(codes, Codes::Four | Codes::Five) {
        return sum;
    }
    // SAFETY: instructions on registers, which a value of `Avx2` stands for.
    unsafe { _mm256_add_epi32(sum, isa.splat(codes.starts(sums)[0])) }
}

/// Bytes `4 g` to `4 g + 3` in every lane.
#[inline(always)]
fn quad<P: Products>(_: Avx2<P>, q: &[i8; BLOCK], g: usize) -> __m256i {
    // SAFETY: `g % 8` keeps the four bytes inside; AVX2 is there.
    unsafe { _mm256_set1_epi32(q.as_ptr().add(4 * (g % 8)).cast::<i32>().read_unaligned()) }
}

/// What sums of products with the stored weights start with where products are added by fours: signed bytes are too large
/// by 128 as they are multiplied.
#[inline(always)]
pub(super) fn starts(codes: Codes, sums: &Sums) -> [i32; 2] {
    if codes == Codes::Signed8 { [sums.less[2], 0] } else { codes.starts(sums) }
}

/// Sums of products of bytes by fours, from `starts` on, exact in 32 bits (`vpdpbusd` does not saturate).
#[inline(always)]
pub(super) fn dot_fours<P: Products, const N: usize>(
    isa: Avx2<P>,
    codes: Codes,
    w: &[__m256i; 8],
    x: &[&[i8; BLOCK]; N],
    starts: &[[i32; 2]; N],
) -> [[__m256i; N]; 2] {
    let mut sums = [[isa.splat(0); N]; 2];
    for c in 0..N {
        (sums[0][c], sums[1][c]) = (isa.splat(starts[c][0]), isa.splat(starts[c][1]));
    }
    // A sum waits for the one before it, so the halves are taken apart even where they are one.
    for g in 0..8 {
        for c in 0..N {
            // SAFETY: a value of `Avx2<P>` stands for the instruction.
            sums[g / 4][c] = unsafe { P::add_fours(sums[g / 4][c], w[g], quad(isa, x[c], g)) };
        }
    }
    if !codes.halves() {
        for c in 0..N {
            // SAFETY: instructions on registers, which a value of `Avx2` stands for.
            sums[0][c] = unsafe { _mm256_add_epi32(sums[0][c], sums[1][c]) };
        }
    }
    sums
}

/// Sums of products of bytes.
///
/// `vpmaddubsw` multiplies unsigned by signed bytes and adds pairs in 16 bits. `CHUNK` such registers are added in 16
/// bits before they are widened, which is exact. Activations are -128 to 127, so a pair is at most 2 * 15 * 128 = 3840
/// in size for weights of 4 bits and 7936 for 5; times 8 and 4 that is below 2^15. For signed weights the sign goes to
/// the activation, which then must not be -128: 2 * 32 * 127 = 8128 for 6 bits, times 4, and 2 * 128 * 127 = 32512 for
/// bytes.
#[inline(always)]
pub(super) fn dot_bytes<P: Products, const N: usize, const CHUNK: usize, const SIGNED: bool>(
    isa: Avx2<P>,
    halves: bool,
    w: &[__m256i; 8],
    x: &[&[i8; BLOCK]; N],
) -> [[__m256i; N]; 2] {
    let mut sums = [[isa.splat(0); N]; 2];
    for first in (0..8).step_by(CHUNK) {
        let half = if halves { first / 4 } else { 0 };
        let mut pairs = [isa.splat(0); N];
        for g in first..first + CHUNK {
            for c in 0..N {
                let q = quad(isa, x[c], g);
                // SAFETY: instructions on registers, which a value of `Avx2` stands for.
                unsafe {
                    let pair = if SIGNED {
                        _mm256_maddubs_epi16(_mm256_abs_epi8(w[g]), _mm256_sign_epi8(q, w[g]))
                    } else {
                        _mm256_maddubs_epi16(w[g], q)
                    };
                    pairs[c] = if g == first { pair } else { _mm256_add_epi16(pairs[c], pair) };
                }
            }
        }
        for c in 0..N {
            // SAFETY: instructions on registers, which a value of `Avx2` stands for.
            unsafe {
                let wide = _mm256_madd_epi16(pairs[c], _mm256_set1_epi16(1));
                sums[half][c] = _mm256_add_epi32(sums[half][c], wide);
            }
        }
    }
    sums
}
