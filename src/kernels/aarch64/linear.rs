//! NEON: eight rows side by side in two registers, no fused multiply-add of floats.

use super::products::{Dotprod, I8mm, Products, Widening};
use crate::kernels::Linear;
use crate::kernels::floats::{self, FloatWeights, Run, Wide};
use crate::kernels::rows::{self, At, Codes, Lanes, Strip, Weights};
use crate::kernels::scalar_linear::{Bf16, F16, F32};
use crate::mem::split::TileMut;
use crate::tensor::block::{Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
use crate::tensor::{Act8, Activations, Blocks, DType, Matrix, Sums};
use core::arch::aarch64::*;
use core::arch::asm;

/// 32 bits of each of eight rows.
pub(super) type Int = [int32x4_t; 2];

/// One `f32` of each of eight rows.
type Float = [float32x4_t; 2];

/// NEON, and a way to multiply bytes. A value of the type is the proof that the CPU has both.
#[derive(Clone, Copy)]
struct Neon<P>(P);

/// Methods that fill both registers with the same.
macro_rules! filled {
    ($(fn $name:ident($arg:ident: $of:ty) -> $to:ty { $value:expr })*) => { $(
        #[inline(always)]
        fn $name(self, $arg: $of) -> $to {
            // SAFETY: an instruction on registers; NEON is there.
            [unsafe { $value }; 2]
        }
    )* };
}

/// Methods of one expression on each of the two registers.
macro_rules! on_both {
    ($(fn $name:ident($($arg:ident: $of:ty),*; $($other:ident: $other_of:ty),*) -> $to:ty { $value:expr })*) => { $(
        #[inline(always)]
        fn $name(self, $($arg: $of,)* $($other: $other_of),*) -> $to {
            core::array::from_fn(|i| {
                $(let $arg = $arg[i % 2];)*
                // SAFETY: instructions on registers; NEON is there.
                unsafe { $value }
            })
        }
    )* };
}

/// Asks for `bytes` bytes from `start` on, into the second cache.
#[inline(always)]
fn prefetch(start: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        let at = start.wrapping_add(line);
        // SAFETY: a prefetch has no effect that a program can see, whatever the address.
        unsafe { asm!("prfm pldl2keep, [{}]", in(reg) at, options(nomem, nostack, preserves_flags)) }
    }
}

/// Four registers, each a row of four words, turned: result `g` has word `g` of each row.
#[inline(always)]
fn turned(x: [int32x4_t; 4]) -> [int32x4_t; 4] {
    // SAFETY: instructions on registers; NEON is there.
    unsafe {
        let even = [vtrn1q_s32(x[0], x[1]), vtrn1q_s32(x[2], x[3])].map(|v| vreinterpretq_s64_s32(v));
        let odd = [vtrn2q_s32(x[0], x[1]), vtrn2q_s32(x[2], x[3])].map(|v| vreinterpretq_s64_s32(v));
        [
            vreinterpretq_s32_s64(vtrn1q_s64(even[0], even[1])),
            vreinterpretq_s32_s64(vtrn1q_s64(odd[0], odd[1])),
            vreinterpretq_s32_s64(vtrn2q_s64(even[0], even[1])),
            vreinterpretq_s32_s64(vtrn2q_s64(odd[0], odd[1])),
        ]
    }
}

/// Eight f16 as floats. FPCR.AHP, which would change infinities, is off in a `FloatEnv`.
#[inline(always)]
pub(super) fn halves(h: uint16x8_t) -> Float {
    // SAFETY: instructions on registers; NEON is there.
    unsafe {
        let h = vreinterpretq_f16_u16(h);
        [vcvt_f32_f16(vget_low_f16(h)), vcvt_high_f32_f16(h)]
    }
}

impl<P: Products> Neon<P> {
    /// Sums of `N` columns, begun with what makes up for the way the weights are stored.
    #[inline(always)]
    fn starts<const N: usize>(self, codes: Codes, sums: [&Sums; N]) -> [[Int; N]; 2] {
        let starts = sums.map(|sums| codes.starts(sums));
        [starts.map(|[first, _]| self.splat(first)), starts.map(|[_, second]| self.splat(second))]
    }

    /// The sums of 16 and 16 values as [`Lanes::dot`] gives them.
    #[inline(always)]
    fn finished<const N: usize>(self, codes: Codes, mut sums: [[Int; N]; 2]) -> [[Int; N]; 2] {
        if !codes.halves() {
            let [first, second] = &mut sums;
            for (first, second) in first.iter_mut().zip(second) {
                *first = self.plus(*first, *second);
            }
        }
        sums
    }

    on_both! {
        fn plus(a: Int, b: Int;) -> Int { vaddq_s32(a, b) }
    }
}

impl<P: Products> Lanes for Neon<P> {
    const ROWS: usize = 8;
    const ROOMY: bool = false;
    type Int = Int;
    type Float = Float;

    #[inline(always)]
    fn quads<B>(self, at: At<'_, Self, B>, offset: usize) -> [Int; 4] {
        let (p, stride) = at.bytes(offset, 16);
        // SAFETY: `At` answers for 16 bytes at each of the eight addresses, which need no alignment as bytes.
        let row = |row: usize| unsafe { vreinterpretq_s32_u8(vld1q_u8(p.add(row * stride))) };
        let [a, b, c, d] = turned([row(0), row(1), row(2), row(3)]);
        let [e, f, g, h] = turned([row(4), row(5), row(6), row(7)]);
        [[a, e], [b, f], [c, g], [d, h]]
    }

    #[inline(always)]
    fn words<B>(self, at: At<'_, Self, B>, offset: usize) -> Int {
        let (p, stride) = at.bytes(offset, 4);
        // SAFETY: `At` answers for 4 bytes at each of the eight addresses.
        let word = |row: usize| unsafe { p.add(row * stride).cast::<i32>().read_unaligned() };
        let words: [i32; 8] = core::array::from_fn(word);
        // SAFETY: 32 bytes of the array; NEON is there.
        unsafe { [vld1q_s32(words.as_ptr()), vld1q_s32(words.as_ptr().add(4))] }
    }

    #[inline(always)]
    fn halves<B>(self, at: At<'_, Self, B>, offset: usize) -> Float {
        let (p, stride) = at.bytes(offset, 2);
        // SAFETY: `At` answers for 2 bytes at each of the eight addresses.
        let half = |row: usize| unsafe { p.add(row * stride).cast::<u16>().read_unaligned() };
        let all: [u16; 8] = core::array::from_fn(half);
        // SAFETY: 16 bytes of the array; NEON is there.
        halves(unsafe { vld1q_u16(all.as_ptr()) })
    }

    #[inline(always)]
    fn half_pair(self, v: Int) -> [Float; 2] {
        // SAFETY: instructions on registers; NEON is there.
        unsafe {
            let [a, b] = v.map(|v| vreinterpretq_u16_s32(v));
            [halves(vuzp1q_u16(a, b)), halves(vuzp2q_u16(a, b))]
        }
    }

    filled! {
        fn bytes(value: u8) -> Int { vreinterpretq_s32_u8(vdupq_n_u8(value)) }
        fn splat(value: i32) -> Int { vdupq_n_s32(value) }
        fn floats(value: f32) -> Float { vdupq_n_f32(value) }
    }

    on_both! {
        fn and(a: Int, b: Int;) -> Int { vandq_s32(a, b) }
        fn or(a: Int, b: Int;) -> Int { vorrq_s32(a, b) }
        fn shift(v: Int; by: i32) -> Int {
            vreinterpretq_s32_u16(vshlq_u16(vreinterpretq_u16_s32(v), vdupq_n_s16(by as i16)))
        }
        fn middle(low: Int, high: Int;) -> Int { vsriq_n_s32::<16>(vshlq_n_s32::<16>(high), low) }
        fn add_sixteens(w: Int, bits: Int; g: usize) -> Int {{
            // The byte with the four bits to all bytes of its lane, then one bit in each byte.
            let own = vld1q_u8([0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12].as_ptr());
            let from = vaddq_u8(own, vdupq_n_u8((g / 2) as u8));
            let one = if g.is_multiple_of(2) { 0x0804_0201 } else { 0x8040_2010 };
            let one = vreinterpretq_u8_u32(vdupq_n_u32(one));
            let set = vtstq_u8(vqtbl1q_u8(vreinterpretq_u8_s32(bits), from), one);
            vorrq_s32(w, vreinterpretq_s32_u8(vandq_u8(set, vdupq_n_u8(16))))
        }}
        fn byte(v: Int; i: usize) -> Float {{
            let low = vshlq_u32(vreinterpretq_u32_s32(v), vdupq_n_s32(-8 * i as i32));
            vcvtq_f32_u32(vandq_u32(low, vdupq_n_u32(255)))
        }}
        fn signed_byte(v: Int; i: usize) -> Float {{
            let high = vshlq_s32(v, vdupq_n_s32(24 - 8 * i as i32));
            vcvtq_f32_s32(vshrq_n_s32::<24>(high))
        }}
        fn float(v: Int;) -> Float { vcvtq_f32_s32(v) }
        fn add(a: Float, b: Float;) -> Float { vaddq_f32(a, b) }
        fn mul(a: Float, b: Float;) -> Float { vmulq_f32(a, b) }
        fn neg(v: Float;) -> Float { vnegq_f32(v) }
    }

    #[inline(always)]
    fn ready(self, _: Codes, w: [Int; 8]) -> [Int; 8] {
        self.0.ready(w)
    }

    #[inline(always)]
    fn dot<const N: usize>(self, codes: Codes, w: &[Int; 8], x: &[&Act8; N]) -> [[Int; N]; 2] {
        let mut sums = self.starts(codes, x.map(|x| &x.sums));
        self.0.add(codes, w, &x.map(|x| &x.q), &mut sums);
        self.finished(codes, sums)
    }

    #[inline(always)]
    fn keep(self, v: Int, out: &mut [f32]) {
        if let Some(out) = out.first_chunk_mut::<8>() {
            let out: *mut i32 = out.as_mut_ptr().cast();
            // SAFETY: 32 bytes that may be written, aligned as floats are; NEON is there.
            unsafe {
                vst1q_s32(out, v[0]);
                vst1q_s32(out.add(4), v[1]);
            }
        }
    }

    #[inline(always)]
    fn store(self, v: Float, out: &mut [f32]) {
        if let Some(out) = out.first_chunk_mut::<8>() {
            // SAFETY: 32 bytes that may be written; NEON is there.
            unsafe {
                vst1q_f32(out.as_mut_ptr(), v[0]);
                vst1q_f32(out.as_mut_ptr().add(4), v[1]);
            }
        }
    }

    #[inline(always)]
    fn recall(self, from: &[f32]) -> Int {
        let Some(from) = from.first_chunk::<8>() else { return self.splat(0) };
        let from: *const i32 = from.as_ptr().cast();
        // SAFETY: 32 bytes that may be read, aligned as floats are; NEON is there.
        unsafe { [vld1q_s32(from), vld1q_s32(from.add(4))] }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> Float {
        let Some(from) = from.first_chunk::<8>() else { return self.floats(0.0) };
        // SAFETY: 32 bytes that may be read; NEON is there.
        unsafe { [vld1q_f32(from.as_ptr()), vld1q_f32(from.as_ptr().add(4))] }
    }

    #[inline(always)]
    fn prefetch(self, start: *const u8, bytes: usize) {
        prefetch(start, bytes);
    }
}

impl<P: Products> Wide for Neon<P> {
    const ONE_STREAM: bool = false;
    type Lanes = [float32x4_t; 4];

    #[inline(always)]
    fn zero(self) -> Self::Lanes {
        // SAFETY: an instruction on registers; NEON is there.
        [unsafe { vdupq_n_f32(0.0) }; 4]
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> Self::Lanes {
        // SAFETY: `i % 4` keeps the four floats inside; NEON is there.
        core::array::from_fn(|i| unsafe { vld1q_f32(from.as_ptr().add(4 * (i % 4))) })
    }

    #[inline(always)]
    fn load_f32(self, from: Run<'_, u32>) -> Self::Lanes {
        let p = from.as_ptr();
        // SAFETY: `Run` answers for 16 elements of four bytes, which need no alignment as bytes; NEON is there.
        core::array::from_fn(|i| unsafe { vreinterpretq_f32_u8(vld1q_u8(p.add(16 * (i % 4)))) })
    }

    #[inline(always)]
    fn load_f16(self, from: Run<'_, u16>) -> Self::Lanes {
        let p = from.as_ptr();
        // SAFETY: `Run` answers for 16 elements of two bytes, which need no alignment as bytes; NEON is there.
        let (low, high) = unsafe { (vld1q_u8(p), vld1q_u8(p.add(16))) };
        // SAFETY: NEON is there; no instruction.
        let [low, high] = [low, high].map(|v| halves(unsafe { vreinterpretq_u16_u8(v) }));
        [low[0], low[1], high[0], high[1]]
    }

    #[inline(always)]
    fn load_bf16(self, from: Run<'_, u16>) -> Self::Lanes {
        let p = from.as_ptr();
        // SAFETY: `Run` answers for 16 elements of two bytes, which need no alignment as bytes; NEON is there.
        unsafe {
            let zero = vdupq_n_u16(0);
            let (low, high) = (vreinterpretq_u16_u8(vld1q_u8(p)), vreinterpretq_u16_u8(vld1q_u8(p.add(16))));
            [vzip1q_u16(zero, low), vzip2q_u16(zero, low), vzip1q_u16(zero, high), vzip2q_u16(zero, high)]
                .map(|v| vreinterpretq_f32_u16(v))
        }
    }

    #[inline(always)]
    fn add_product(self, acc: Self::Lanes, w: Self::Lanes, x: Self::Lanes) -> Self::Lanes {
        // SAFETY: instructions on registers; NEON is there.
        core::array::from_fn(|i| unsafe { vaddq_f32(acc[i % 4], vmulq_f32(w[i % 4], x[i % 4])) })
    }

    #[inline(always)]
    fn add_exact(self, acc: Self::Lanes, w: Self::Lanes, x: Self::Lanes) -> Self::Lanes {
        // SAFETY: instructions on registers; NEON is there.
        core::array::from_fn(|i| unsafe { vfmaq_f32(acc[i % 4], w[i % 4], x[i % 4]) })
    }

    #[inline(always)]
    fn prefetch(self, start: *const u8, bytes: usize) {
        prefetch(start, bytes);
    }

    #[inline(always)]
    fn tree(self, v: Self::Lanes) -> f32 {
        // SAFETY: instructions on registers; NEON is there.
        unsafe {
            let four = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }
}

/// Floats of scratch memory for a matrix of `cols` columns.
pub(super) fn scratch(cols: usize) -> usize {
    rows::scratch::<Neon<Widening>>(cols)
}

/// As the roots of quantised layers, for float weights: all tables share them.
///
/// # Safety
/// The CPU has NEON.
#[target_feature(enable = "neon")]
unsafe fn float_root<T: FloatWeights>(w: &Matrix<'_>, x: &Activations<'_>, out: &mut TileMut<'_, f32>) {
    // SAFETY: the caller's promise.
    floats::linear::<_, T>(Neon(unsafe { Widening::new() }), w, x, out);
}

/// A layer of float weights.
fn float<T: FloatWeights>(w: &Matrix<'_>, x: &Activations<'_>, out: &mut TileMut<'_, f32>, _: &mut [f32]) {
    // SAFETY: this table is only reachable when NEON was detected.
    unsafe { float_root::<T>(w, x, out) }
}

/// Defines a module with the layers of one table, where the features `$features` are on.
macro_rules! layers {
    ($(#[$doc:meta])* $module:ident, $features:literal, $products:ident) => {
        $(#[$doc])*
        pub(super) mod $module {
            use super::*;

            /// One function a type, by [`DType::index`].
            pub(in super::super) const LINEAR: [Linear; DType::ALL.len()] = [
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
                rows::linear::<_, T>(Neon(unsafe { $products::new() }), w, x, out, scratch, packed::<T::Alike>);
            }

            /// A layer of quantised weights.
            fn quantised<T: Weights>(
                w: &Matrix<'_>,
                x: &Activations<'_>,
                out: &mut TileMut<'_, f32>,
                scratch: &mut [f32],
            ) {
                // SAFETY: this table is only reachable when its features were detected.
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
                rows::packed::<_, T>(Neon(unsafe { $products::new() }), weights, x, parts, strip);
            }

            /// Columns of packed weights.
            #[inline(never)]
            fn packed<T: Weights>(
                weights: &[f32],
                x: Blocks<'_>,
                parts: usize,
                strip: &mut Strip<'_, '_>,
            ) {
                // SAFETY: this table is only reachable when its features were detected.
                unsafe { packed_root::<T>(weights, x, parts, strip) }
            }
        }
    };
}

layers! {
    /// What every CPU of the architecture runs.
    neon, "neon", Widening
}
layers! {
    /// With dot products of bytes.
    dotprod, "neon,dotprod", Dotprod
}
layers! {
    /// With products of matrices of bytes.
    i8mm, "neon,dotprod,i8mm", I8mm
}
