//! AVX2, F16C and FMA: eight rows side by side, no fused multiply-add. With AVX-VNNI products of bytes are added by fours.
#![allow(clippy::needless_range_loop, reason = "arrays of registers are clearer with indices")]

#[cfg(all(test, feature = "avx512"))]
use super::avx2_products::EncodedFours;
#[cfg(feature = "avxvnni")]
use super::avx2_products::Fours;
use super::avx2_products::{Pairs, Products, dot_bytes, dot_fours, shifted, starts};
use crate::kernels::Linear;
use crate::kernels::floats::{self, FloatWeights, Run, Wide};
use crate::kernels::rows::{self, At, Codes, Lanes, Strip, Weights};
use crate::kernels::scalar_linear::{Bf16, F16, F32};
use crate::mem::split::TileMut;
use crate::tensor::block::{Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
use crate::tensor::{Act8, Activations, Blocks, DType, Matrix};
#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;
use core::marker::PhantomData;

/// The proof that the CPU has AVX2, F16C and FMA, and the instructions of `P`.
#[derive(Clone, Copy)]
pub(super) struct Avx2<P>(PhantomData<P>);

impl<P: Products> Avx2<P> {
    /// # Safety
    /// The CPU has AVX2, F16C and FMA, and what `P` stands for, and the operating system saves their registers.
    #[inline(always)]
    unsafe fn new() -> Self {
        Self(PhantomData)
    }
}

/// Methods of one expression on registers.
macro_rules! on_registers {
    ($(fn $name:ident($($arg:ident: $of:ty),*) -> $to:ty { $value:expr })*) => { $(
        #[inline(always)]
        fn $name(self, $($arg: $of),*) -> $to {
            // SAFETY: a value of `Avx2` exists only where the CPU has these instructions, and they touch no memory.
            unsafe { $value }
        }
    )* };
}

/// 16 bytes from `p` on.
///
/// # Safety
/// They may be read.
#[inline(always)]
unsafe fn load16(p: *const u8) -> __m128i {
    // SAFETY: the caller's promise; no alignment needed.
    unsafe { _mm_loadu_si128(p.cast()) }
}

/// Asks for `bytes` bytes from `start` on, into the second cache.
#[inline(always)]
fn prefetch(start: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        // SAFETY: a prefetch has no effect that a program can see, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(line).cast()) }
    }
}

impl<P: Products> Lanes for Avx2<P> {
    const ROWS: usize = 8;
    const ROOMY: bool = false;
    type Int = __m256i;
    type Float = __m256;

    #[inline(always)]
    fn quads<B>(self, at: At<'_, Self, B>, offset: usize) -> [__m256i; 4] {
        let (p, stride) = at.bytes(offset, 16);
        // SAFETY: `At` answers for 16 bytes at each of the eight addresses.
        let x = unsafe {
            let pair = |row: usize| {
                let (low, high) = (load16(p.add(row * stride)), load16(p.add((row + 4) * stride)));
                _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
            };
            [pair(0), pair(1), pair(2), pair(3)]
        };
        // SAFETY: instructions on registers, which a value of `Avx2` stands for.
        unsafe {
            let (low01, high01) = (_mm256_unpacklo_epi32(x[0], x[1]), _mm256_unpackhi_epi32(x[0], x[1]));
            let (low23, high23) = (_mm256_unpacklo_epi32(x[2], x[3]), _mm256_unpackhi_epi32(x[2], x[3]));
            [
                _mm256_unpacklo_epi64(low01, low23),
                _mm256_unpackhi_epi64(low01, low23),
                _mm256_unpacklo_epi64(high01, high23),
                _mm256_unpackhi_epi64(high01, high23),
            ]
        }
    }

    #[inline(always)]
    fn words<B>(self, at: At<'_, Self, B>, offset: usize) -> __m256i {
        let (p, stride) = at.bytes(offset, 4);
        // SAFETY: `At` answers for 4 bytes at each of the eight addresses.
        unsafe {
            let word = |row: usize| p.add(row * stride).cast::<i32>().read_unaligned();
            _mm256_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7))
        }
    }

    #[inline(always)]
    fn halves<B>(self, at: At<'_, Self, B>, offset: usize) -> __m256 {
        let (p, stride) = at.bytes(offset, 2);
        // SAFETY: `At` answers for 2 bytes at each of the eight addresses.
        unsafe {
            let half = |row: usize| p.add(row * stride).cast::<i16>().read_unaligned();
            let halves =
                _mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7));
            _mm256_cvtph_ps(halves)
        }
    }

    #[inline(always)]
    fn half_pair(self, v: __m256i) -> [__m256; 2] {
        // SAFETY: instructions on registers, which a value of `Avx2` stands for.
        unsafe {
            let low = _mm256_and_si256(v, _mm256_set1_epi32(0xffff));
            let both = _mm256_packus_epi32(low, _mm256_srli_epi32::<16>(v));
            let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(both);
            [
                _mm256_cvtph_ps(_mm256_castsi256_si128(both)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(both)),
            ]
        }
    }

    on_registers! {
        fn bytes(value: u8) -> __m256i { _mm256_set1_epi8(value as i8) }
        fn and(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        fn or(a: __m256i, b: __m256i) -> __m256i { _mm256_or_si256(a, b) }
        fn shift(v: __m256i, by: i32) -> __m256i {
            if by >= 0 {
                _mm256_sll_epi16(v, _mm_cvtsi32_si128(by))
            } else {
                _mm256_srl_epi16(v, _mm_cvtsi32_si128(-by))
            }
        }
        fn middle(low: __m256i, high: __m256i) -> __m256i {
            _mm256_or_si256(_mm256_srli_epi32::<16>(low), _mm256_slli_epi32::<16>(high))
        }
        fn add_sixteens(w: __m256i, v: __m256i, g: usize) -> __m256i {{
            // The byte with the four bits to all bytes of its lane, then one bit in each byte.
            let own = _mm256_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c, 0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c);
            let from = _mm256_add_epi8(own, _mm256_set1_epi8((g / 2) as i8));
            let bits = _mm256_set1_epi32(if g.is_multiple_of(2) { 0x0804_0201 } else { 0x8040_2010_u32 as i32 });
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(v, from), bits), bits);
            _mm256_or_si256(w, _mm256_and_si256(set, _mm256_set1_epi8(16)))
        }}
        fn byte(v: __m256i, i: usize) -> __m256 {{
            let low = _mm256_srl_epi32(v, _mm_cvtsi32_si128(8 * i as i32));
            _mm256_cvtepi32_ps(_mm256_and_si256(low, _mm256_set1_epi32(255)))
        }}
        fn signed_byte(v: __m256i, i: usize) -> __m256 {{
            let high = _mm256_sll_epi32(v, _mm_cvtsi32_si128(24 - 8 * i as i32));
            _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(high))
        }}
        fn splat(value: i32) -> __m256i { _mm256_set1_epi32(value) }
        fn float(v: __m256i) -> __m256 { _mm256_cvtepi32_ps(v) }
        fn floats(value: f32) -> __m256 { _mm256_set1_ps(value) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn neg(v: __m256) -> __m256 { _mm256_xor_ps(v, _mm256_set1_ps(-0.0)) }
    }

    #[inline(always)]
    fn ready(self, codes: Codes, mut w: [__m256i; 8]) -> [__m256i; 8] {
        for w in &mut w {
            // SAFETY: instructions on registers, which a value of `Avx2` stands for.
            *w = unsafe {
                match codes {
                    Codes::SixMinus32 if !P::FOURS => _mm256_sub_epi8(*w, self.bytes(32)),
                    Codes::Signed8 if P::FOURS => _mm256_xor_si256(*w, self.bytes(128)),
                    _ => *w,
                }
            };
        }
        w
    }

    #[inline(always)]
    fn dot<const N: usize>(self, codes: Codes, w: &[__m256i; 8], x: &[&Act8; N]) -> [[__m256i; N]; 2] {
        let mut q = [&x[0].q; N];
        for c in 0..N {
            q[c] = &x[c].q;
        }
        if P::FOURS {
            return dot_fours(self, codes, w, &q, &x.map(|x| starts(codes, &x.sums)));
        }
        let mut sums = match codes {
            Codes::Four | Codes::FourMinus8 => dot_bytes::<P, N, 8, false>(self, false, w, &q),
            Codes::Five | Codes::FiveMinus16 => dot_bytes::<P, N, 4, false>(self, false, w, &q),
            Codes::SixMinus32 => return dot_bytes::<P, N, 4, true>(self, true, w, &q),
            Codes::Signed8 => return dot_bytes::<P, N, 1, true>(self, false, w, &q),
        };
        for c in 0..N {
            sums[0][c] = shifted(self, codes, sums[0][c], &x[c].sums);
        }
        sums
    }

    #[inline(always)]
    fn keep(self, v: __m256i, out: &mut [f32]) {
        if let Some(out) = out.first_chunk_mut::<8>() {
            // SAFETY: 32 bytes that may be written; no alignment needed.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) }
        }
    }

    #[inline(always)]
    fn store(self, v: __m256, out: &mut [f32]) {
        if let Some(out) = out.first_chunk_mut::<8>() {
            // SAFETY: 32 bytes that may be written; no alignment needed.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
        }
    }

    #[inline(always)]
    fn recall(self, from: &[f32]) -> __m256i {
        let Some(from) = from.first_chunk::<8>() else { return self.splat(0) };
        // SAFETY: 32 bytes that may be read; no alignment needed.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m256 {
        let Some(from) = from.first_chunk::<8>() else { return self.floats(0.0) };
        // SAFETY: 32 bytes that may be read; no alignment needed.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn prefetch(self, start: *const u8, bytes: usize) {
        prefetch(start, bytes);
    }
}

impl<P: Products> Wide for Avx2<P> {
    const ONE_STREAM: bool = true;
    type Lanes = [__m256; 2];

    #[inline(always)]
    fn zero(self) -> [__m256; 2] {
        [self.floats(0.0); 2]
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [__m256; 2] {
        // SAFETY: 64 bytes that may be read, no alignment needed; AVX2 is there.
        unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn load_f32(self, from: Run<'_, u32>) -> [__m256; 2] {
        let p = from.as_ptr().cast::<f32>();
        // SAFETY: `Run` answers for 16 elements, no alignment needed; AVX2 is there.
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.wrapping_add(8))] }
    }

    #[inline(always)]
    fn load_f16(self, from: Run<'_, u16>) -> [__m256; 2] {
        let p = from.as_ptr();
        // SAFETY: `Run` answers for 16 elements, no alignment needed; F16C is there.
        unsafe { [_mm256_cvtph_ps(load16(p)), _mm256_cvtph_ps(load16(p.wrapping_add(16)))] }
    }

    #[inline(always)]
    fn load_bf16(self, from: Run<'_, u16>) -> [__m256; 2] {
        let p = from.as_ptr();
        // SAFETY: `Run` answers for 16 elements, no alignment needed; AVX2 is there.
        unsafe {
            let low = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load16(p)));
            let high = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load16(p.wrapping_add(16))));
            [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
        }
    }

    #[inline(always)]
    fn add_product(self, acc: [__m256; 2], w: [__m256; 2], x: [__m256; 2]) -> [__m256; 2] {
        [self.add(acc[0], self.mul(w[0], x[0])), self.add(acc[1], self.mul(w[1], x[1]))]
    }

    #[inline(always)]
    fn add_exact(self, acc: [__m256; 2], w: [__m256; 2], x: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: instructions on registers, which a value of `Avx2` stands for.
        unsafe { [_mm256_fmadd_ps(w[0], x[0], acc[0]), _mm256_fmadd_ps(w[1], x[1], acc[1])] }
    }

    #[inline(always)]
    fn prefetch(self, start: *const u8, bytes: usize) {
        prefetch(start, bytes);
    }

    #[inline(always)]
    fn tree(self, v: [__m256; 2]) -> f32 {
        // SAFETY: instructions on registers, which a value of `Avx2` stands for.
        unsafe {
            let eight = _mm256_add_ps(v[0], v[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}

/// Floats of scratch memory for a matrix of `cols` columns.
pub(super) fn scratch(cols: usize) -> usize {
    rows::scratch::<Avx2<Pairs>>(cols)
}

/// As the roots of quantised weights, for float weights.
///
/// # Safety
/// The CPU has AVX2, F16C and FMA.
#[target_feature(enable = "avx2,f16c,fma")]
unsafe fn float_root<T: FloatWeights>(w: &Matrix<'_>, x: &Activations<'_>, out: &mut TileMut<'_, f32>) {
    // SAFETY: the caller's promise.
    floats::linear::<Avx2<Pairs>, T>(unsafe { Avx2::new() }, w, x, out);
}

/// A layer of float weights.
fn float<T: FloatWeights>(w: &Matrix<'_>, x: &Activations<'_>, out: &mut TileMut<'_, f32>, _: &mut [f32]) {
    // SAFETY: this table is only reachable when AVX2, F16C and FMA were detected.
    unsafe { float_root::<T>(w, x, out) }
}

/// A table of layers with products by `$products`, which need `$features`.
macro_rules! table {
    ($(#[$attribute:meta])* $name:ident, $products:ty, $features:literal) => {
        /// One function a type, by [`DType::index`].
        $(#[$attribute])*
        pub(super) const $name: [Linear; DType::ALL.len()] = {
            /// The root of a layer: everything is inlined here, where the instruction set is on.
            ///
            /// # Safety
            /// The CPU has these features.
            #[target_feature(enable = $features)]
            unsafe fn root<T: Weights>(
                w: &Matrix<'_>,
                x: &Activations<'_>,
                out: &mut TileMut<'_, f32>,
                scratch: &mut [f32],
            ) {
                // SAFETY: the caller's promise.
                let isa = unsafe { Avx2::<$products>::new() };
                rows::linear::<_, T>(isa, w, x, out, scratch, packed::<T::Alike>);
            }

            /// A layer of quantised weights.
            fn quantised<T: Weights>(
                w: &Matrix<'_>,
                x: &Activations<'_>,
                out: &mut TileMut<'_, f32>,
                scratch: &mut [f32],
            ) {
                // SAFETY: this table is only reachable when the features were detected.
                unsafe { root::<T>(w, x, out, scratch) }
            }

            /// As the root, for columns of packed weights.
            ///
            /// # Safety
            /// The CPU has these features.
            #[target_feature(enable = $features)]
            unsafe fn packed_root<T: Weights>(
                weights: &[f32],
                x: Blocks<'_>,
                parts: usize,
                strip: &mut Strip<'_, '_>,
            ) {
                // SAFETY: the caller's promise.
                rows::packed::<Avx2<$products>, T>(unsafe { Avx2::new() }, weights, x, parts, strip);
            }

            /// Columns of packed weights.
            #[inline(never)]
            fn packed<T: Weights>(
                weights: &[f32],
                x: Blocks<'_>,
                parts: usize,
                strip: &mut Strip<'_, '_>,
            ) {
                // SAFETY: this table is only reachable when the features were detected.
                unsafe { packed_root::<T>(weights, x, parts, strip) }
            }

            [
                float::<F32>,
                float::<F16>,
                float::<Bf16>,
                quantised::<Q8_0>,
                quantised::<Q4_0>,
                quantised::<Q4_1>,
                quantised::<Q5_0>,
                quantised::<Q5_1>,
                quantised::<Q4_K>,
                quantised::<Q5_K>,
                quantised::<Q6_K>,
            ]
        };
    };
}

table!(LINEAR, Pairs, "avx2,f16c,fma");
table!(
    #[cfg(feature = "avxvnni")]
    LINEAR_VNNI,
    Fours,
    "avx2,f16c,fma,avxvnni"
);
table!(
    #[cfg(all(test, feature = "avx512"))]
    LINEAR_ENCODED,
    EncodedFours,
    "avx2,f16c,fma,avx512f,avx512vl,avx512vnni"
);
