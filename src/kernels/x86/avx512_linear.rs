//! AVX-512 with VNNI: linear layers of quantised weights, sixteen rows side by side.
#![allow(clippy::needless_range_loop, reason = "arrays of registers are clearer with indices")]

use super::avx2_products::starts;
use super::avx512_floats::float;
#[cfg(target_arch = "x86_64")]
use super::avx512_six;
use crate::kernels::Linear;
use crate::kernels::rows::{self, At, Codes, Lanes, Strip, Weights};
use crate::kernels::scalar_linear::{Bf16, F16, F32};
use crate::mem::split::TileMut;
use crate::tensor::block::{Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
use crate::tensor::{Act8, Activations, BLOCK, Blocks, DType, Matrix, SCALE_BITS};
use core::arch::asm;
#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// The proof that the CPU has AVX2, F16C, AVX-512 (F, BW, DQ, VL) and AVX-512 VNNI.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The CPU has AVX2, F16C, AVX-512 (F, BW, DQ, VL) and AVX-512 VNNI, and the operating system saves their
    /// registers.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

/// Methods of one expression on registers.
macro_rules! on_registers {
    ($(fn $name:ident($($arg:ident: $of:ty),*) -> $to:ty { $value:expr })*) => { $(
        #[inline(always)]
        fn $name(self, $($arg: $of),*) -> $to {
            // SAFETY: a value of `Avx512` exists only where the CPU has these instructions, and they touch no memory.
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

/// 32 bytes from `p` on.
///
/// # Safety
/// They may be read.
#[inline(always)]
pub(super) unsafe fn load32(p: *const u8) -> __m256i {
    // SAFETY: the caller's promise; no alignment needed.
    unsafe { _mm256_loadu_si256(p.cast()) }
}

/// Asks for `bytes` bytes from `start` on, into the second cache.
#[inline(always)]
pub(super) fn prefetch(start: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        // SAFETY: a prefetch has no effect that a program can see, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(line).cast()) }
    }
}

impl Lanes for Avx512 {
    const ROWS: usize = 16;
    const ROOMY: bool = true;
    type Int = __m512i;
    type Float = __m512;

    #[inline(always)]
    fn quads<B>(self, at: At<'_, Self, B>, offset: usize) -> [__m512i; 4] {
        let (p, stride) = at.bytes(offset, 16);
        let mut x = [self.splat(0); 4];
        for row in 0..4 {
            // SAFETY: `At` answers for 16 bytes at each of the sixteen addresses; the instructions are there.
            unsafe {
                let two = |first: usize| {
                    let (low, high) = (load16(p.add(first * stride)), load16(p.add((first + 4) * stride)));
                    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
                };
                x[row] = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(two(row)), two(row + 8));
            }
        }
        four_by_four(self, x)
    }

    /// Two rows a register: fewer loads than [`quads`](Lanes::quads) needs, and the CPU loads one wide register a cycle.
    #[inline(always)]
    fn eights<B>(self, at: At<'_, Self, B>, offset: usize) -> [__m512i; 8] {
        let (p, stride) = at.bytes(offset, 32);
        let mut turned = [[self.splat(0); 4]; 2];
        for (half, turned) in turned.iter_mut().enumerate() {
            let mut x = [self.splat(0); 4];
            for row in 0..4 {
                let first = 8 * half + row;
                // SAFETY: `At` answers for 32 bytes at each of the sixteen addresses; the instructions are there.
                x[row] = unsafe {
                    let v = _mm512_castsi256_si512(load32(p.add(first * stride)));
                    _mm512_inserti64x4::<1>(v, load32(p.add((first + 4) * stride)))
                };
            }
            *turned = four_by_four(self, x);
        }
        let mut words = [self.splat(0); 8];
        for g in 0..4 {
            let (a, b) = (turned[0][g], turned[1][g]);
            // SAFETY: instructions on registers, which a value of `Avx512` stands for.
            (words[g], words[4 + g]) =
                unsafe { (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b)) };
        }
        words
    }

    #[inline(always)]
    fn words<B>(self, at: At<'_, Self, B>, offset: usize) -> __m512i {
        let (p, stride) = at.bytes(offset, 4);
        let mut words = [0i32; 16];
        for (row, word) in words.iter_mut().enumerate() {
            // SAFETY: `At` answers for 4 bytes at each of the sixteen addresses.
            *word = unsafe { p.add(row * stride).cast::<i32>().read_unaligned() };
        }
        // SAFETY: 64 bytes that may be read, no alignment needed; AVX-512 is there.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[inline(always)]
    fn halves<B>(self, at: At<'_, Self, B>, offset: usize) -> __m512 {
        // In front of nibbles more is read than is needed, which is faster than sixteen small loads.
        if offset == 0 && size_of::<B>() < 32 {
            return self.half_pair(self.quads(at, 0)[0])[0];
        }
        let (p, stride) = at.bytes(offset, 2);
        let mut halves = [0u16; 16];
        for (row, half) in halves.iter_mut().enumerate() {
            // SAFETY: `At` answers for 2 bytes at each of the sixteen addresses.
            *half = unsafe { p.add(row * stride).cast::<u16>().read_unaligned() };
        }
        // SAFETY: 32 bytes that may be read, no alignment needed; AVX-512 is there.
        unsafe { _mm512_cvtph_ps(load32(halves.as_ptr().cast())) }
    }

    #[inline(always)]
    fn half_pair(self, v: __m512i) -> [__m512; 2] {
        // SAFETY: instructions on registers, which a value of `Avx512` stands for.
        unsafe {
            let (low, high) = (_mm512_cvtepi32_epi16(v), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(v)));
            [_mm512_cvtph_ps(low), _mm512_cvtph_ps(high)]
        }
    }

    on_registers! {
        fn bytes(value: u8) -> __m512i { _mm512_set1_epi8(value as i8) }
        fn and(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn or(a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        fn shift(v: __m512i, by: i32) -> __m512i {
            if by >= 0 {
                _mm512_sll_epi16(v, _mm_cvtsi32_si128(by))
            } else {
                _mm512_srl_epi16(v, _mm_cvtsi32_si128(-by))
            }
        }
        fn middle(low: __m512i, high: __m512i) -> __m512i {
            _mm512_or_si512(_mm512_srli_epi32::<16>(low), _mm512_slli_epi32::<16>(high))
        }
        fn add_sixteens(w: __m512i, v: __m512i, g: usize) -> __m512i {{
            // The byte with the four bits to all bytes of its lane, then one bit in each byte.
            let own = _mm512_set4_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0);
            let from = _mm512_add_epi8(own, _mm512_set1_epi8((g / 2) as i8));
            let bits = _mm512_set1_epi32(if g.is_multiple_of(2) { 0x0804_0201 } else { 0x8040_2010_u32 as i32 });
            let set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(v, from), bits);
            _mm512_mask_add_epi8(w, set, w, _mm512_set1_epi8(16))
        }}
        // By products with ones at the place of the byte: one instruction instead of two, and none that moves bits, which
        // turning rows is full of.
        fn byte(v: __m512i, i: usize) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), v, _mm512_set1_epi32(1 << (8 * i))))
        }
        fn signed_byte(v: __m512i, i: usize) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi32(1 << (8 * i)), v))
        }
        fn splat(value: i32) -> __m512i { _mm512_set1_epi32(value) }
        fn float(v: __m512i) -> __m512 { _mm512_cvtepi32_ps(v) }
        fn floats(value: f32) -> __m512 { _mm512_set1_ps(value) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn neg(v: __m512) -> __m512 { _mm512_xor_ps(v, _mm512_set1_ps(-0.0)) }
    }

    #[inline(always)]
    fn ready(self, codes: Codes, mut w: [__m512i; 8]) -> [__m512i; 8] {
        if codes == Codes::Signed8 {
            for w in &mut w {
                // SAFETY: instructions on registers, which a value of `Avx512` stands for.
                *w = unsafe { _mm512_xor_si512(*w, self.bytes(128)) };
            }
        }
        w
    }

    #[inline(always)]
    fn dot<const N: usize>(self, codes: Codes, w: &[__m512i; 8], x: &[&Act8; N]) -> [[__m512i; N]; 2] {
        let mut sums = [[self.splat(0); N]; 2];
        for c in 0..N {
            let [first, second] = starts(codes, &x[c].sums);
            (sums[0][c], sums[1][c]) = (self.splat(first), self.splat(second));
        }
        // A sum waits five cycles for the one before it: fewer than eight columns take the halves apart.
        let apart = codes == Codes::SixMinus32 || N < 8;
        for g in 0..8 {
            let half = if apart { g / 4 } else { 0 };
            for c in 0..N {
                sums[half][c] = products(self, sums[half][c], w[g], &x[c].q, g);
            }
        }
        if apart && codes != Codes::SixMinus32 {
            for c in 0..N {
                sums[0][c] = add(self, sums[0][c], sums[1][c]);
            }
        }
        sums
    }

    /// The high halves of the bytes are left where they are, so their sum is 16 times as large.
    #[inline(always)]
    fn dot_nibbles<const N: usize>(
        self,
        codes: Codes,
        bytes: [__m512i; 4],
        x: &[&Act8; N],
    ) -> [[__m512i; N]; 2] {
        let mut sums = [[self.splat(0); N]; 2];
        for c in 0..N {
            let mut low = self.splat(starts(codes, &x[c].sums)[0]);
            let mut high = self.splat(0);
            for g in 0..4 {
                low = products(self, low, self.and(bytes[g], self.bytes(0x0f)), &x[c].q, g);
                high = products(self, high, self.and(bytes[g], self.bytes(0xf0)), &x[c].q, 4 + g);
            }
            // SAFETY: instructions on registers, which a value of `Avx512` stands for.
            sums[0][c] = add(self, low, unsafe { _mm512_srai_epi32::<4>(high) });
        }
        sums
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn add_both<T: Weights>(
        self,
        sums: [[__m512; rows::BOTH]; 2],
        lines: [rows::Line<'_, Self, T>; 2],
        x: &[&Act8; rows::BOTH],
    ) -> [[__m512; rows::BOTH]; 2] {
        avx512_six::add_both(self, sums, lines, x)
    }

    const SCALES: usize = SIGNIFICANDS;

    /// Products with all significands that a scale of activations may have, less the bits of these: with the bits of a
    /// scale added they are the product with that, and an addition of integers costs no multiplication. That needs
    /// products that are normal numbers.
    #[inline(always)]
    fn keep_scales(self, d: __m512, out: &mut [f32]) {
        for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let one = significand(i);
            // SAFETY: instructions on registers, which a value of `Avx512` stands for; 64 bytes that may be written.
            unsafe {
                let product = _mm512_castps_si512(self.mul(d, self.floats(one)));
                let bits = _mm512_sub_epi32(product, self.splat(one.to_bits() as i32));
                _mm512_storeu_si512(out.as_mut_ptr().cast(), bits);
            }
        }
    }

    #[inline(always)]
    fn usual(self, d: [__m512; 2], m: __m512) -> bool {
        // Scales that are zero, subnormal, infinite or NaN, and minima that are infinite or NaN.
        // SAFETY: instructions on registers, which a value of `Avx512` stands for.
        unsafe {
            let scales = _mm512_fpclass_ps_mask::<0xbf>(d[0]) | _mm512_fpclass_ps_mask::<0xbf>(d[1]);
            scales | _mm512_fpclass_ps_mask::<0x99>(m) == 0
        }
    }

    #[inline(always)]
    fn scale(self, scales: &[f32]) -> __m512 {
        self.times(scales, 1.0)
    }

    #[inline(always)]
    fn times(self, scales: &[f32], da: f32) -> __m512 {
        let Some(scales) = scales.first_chunk::<{ 16 * SIGNIFICANDS }>() else { return self.floats(0.0) };
        let (scales, _) = scales.as_chunks::<16>();
        let Some(scales) = scales.get(significand_of(da)) else { return self.floats(0.0) };
        // SAFETY: 64 bytes that may be read; otherwise instructions on registers, which a value of `Avx512` stands for.
        unsafe {
            let bits = _mm512_loadu_si512(scales.as_ptr().cast());
            _mm512_castsi512_ps(_mm512_add_epi32(bits, self.splat(da.to_bits() as i32)))
        }
    }

    #[inline(always)]
    fn keep(self, v: __m512i, out: &mut [f32]) {
        if let Some(out) = out.first_chunk_mut::<16>() {
            // SAFETY: 64 bytes that may be written; no alignment needed.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) }
        }
    }

    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32]) {
        if let Some(out) = out.first_chunk_mut::<16>() {
            // SAFETY: 64 bytes that may be written; no alignment needed.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
        }
    }

    #[inline(always)]
    fn recall(self, from: &[f32]) -> __m512i {
        let Some(from) = from.first_chunk::<16>() else { return self.splat(0) };
        // SAFETY: 64 bytes that may be read; no alignment needed.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m512 {
        let Some(from) = from.first_chunk::<16>() else { return self.floats(0.0) };
        // SAFETY: 64 bytes that may be read; no alignment needed.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    #[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read or written at the address")]
    fn opaque(self, mut address: *const u8) -> *const u8 {
        // SAFETY: no instruction at all.
        unsafe { asm!("/* {} */", inout(reg) address, options(pure, nomem, nostack, preserves_flags)) }
        address
    }

    #[inline(always)]
    fn prefetch(self, start: *const u8, bytes: usize) {
        prefetch(start, bytes);
    }
}

/// How many significands a scale of activations may have.
pub(super) const SIGNIFICANDS: usize = 1 << (SCALE_BITS - 1);

/// Their numbers are the bits of a float behind the first.
#[inline(always)]
fn significand_of(scale: f32) -> usize {
    (scale.to_bits() >> (24 - SCALE_BITS)) as usize % SIGNIFICANDS
}

/// A number from 1 to 2.
#[inline(always)]
fn significand(number: usize) -> f32 {
    f32::from_bits(1.0f32.to_bits() + ((number as u32) << (24 - SCALE_BITS)))
}

/// In every 128 bits: element `g` of result `r` is element `r` of register `g`.
#[inline(always)]
fn four_by_four(_: Avx512, x: [__m512i; 4]) -> [__m512i; 4] {
    // SAFETY: instructions on registers, which a value of `Avx512` stands for.
    unsafe {
        let (low01, high01) = (_mm512_unpacklo_epi32(x[0], x[1]), _mm512_unpackhi_epi32(x[0], x[1]));
        let (low23, high23) = (_mm512_unpacklo_epi32(x[2], x[3]), _mm512_unpackhi_epi32(x[2], x[3]));
        [
            _mm512_unpacklo_epi64(low01, low23),
            _mm512_unpackhi_epi64(low01, low23),
            _mm512_unpacklo_epi64(high01, high23),
            _mm512_unpackhi_epi64(high01, high23),
        ]
    }
}

/// Sums of 32-bit integers.
#[inline(always)]
fn add(_: Avx512, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: instructions on registers, which a value of `Avx512` stands for.
    unsafe { _mm512_add_epi32(a, b) }
}

/// Adds products of unsigned weights with the signed bytes `4 g` to `4 g + 3` of a block, exact in 32 bits (`vpdpbusd`
/// does not saturate).
#[inline(always)]
fn products(_: Avx512, sum: __m512i, w: __m512i, q: &[i8; BLOCK], g: usize) -> __m512i {
    // SAFETY: `g % 8` keeps the four bytes inside; otherwise instructions on registers, which a value of `Avx512`
    // stands for.
    unsafe {
        let quad = q.as_ptr().add(4 * (g % 8)).cast::<i32>().read_unaligned();
        _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(quad))
    }
}

/// One function a type, by [`DType::index`].
pub(super) const LINEAR: [Linear; DType::ALL.len()] = [
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
];

/// Floats of scratch memory for a matrix of `cols` columns.
pub(super) fn scratch(cols: usize) -> usize {
    rows::scratch::<Avx512>(cols)
}

/// The root of a layer: everything is inlined here, where the instruction set is on.
///
/// # Safety
/// The CPU has AVX2, F16C, AVX-512 (F, BW, DQ, VL) and AVX-512 VNNI.
#[target_feature(enable = "avx2,f16c,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn root<T: Weights>(
    w: &Matrix<'_>,
    x: &Activations<'_>,
    out: &mut TileMut<'_, f32>,
    scratch: &mut [f32],
) {
    // SAFETY: the caller's promise.
    rows::linear::<Avx512, T>(unsafe { Avx512::new() }, w, x, out, scratch, packed::<T::Alike>);
}

/// A layer of quantised weights.
fn quantised<T: Weights>(
    w: &Matrix<'_>,
    x: &Activations<'_>,
    out: &mut TileMut<'_, f32>,
    scratch: &mut [f32],
) {
    // SAFETY: this table is only reachable when all features of the root were detected.
    unsafe { root::<T>(w, x, out, scratch) }
}

/// As [`root`], for columns of packed weights.
///
/// # Safety
/// As for [`root`].
#[target_feature(enable = "avx2,f16c,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn packed_root<T: Weights>(weights: &[f32], x: Blocks<'_>, parts: usize, strip: &mut Strip<'_, '_>) {
    // SAFETY: the caller's promise.
    rows::packed::<Avx512, T>(unsafe { Avx512::new() }, weights, x, parts, strip);
}

/// Columns of packed weights.
#[inline(never)]
fn packed<T: Weights>(weights: &[f32], x: Blocks<'_>, parts: usize, strip: &mut Strip<'_, '_>) {
    // SAFETY: as above.
    unsafe { packed_root::<T>(weights, x, parts, strip) }
}
