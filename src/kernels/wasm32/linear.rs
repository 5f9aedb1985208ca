//! simd128: four rows side by side in a register, no fused multiply-add of floats.

use crate::kernels::Linear;
use crate::kernels::floats::{self, FloatWeights, Run, Wide};
use crate::kernels::rows::{self, At, Codes, Lanes, Strip, Weights};
use crate::kernels::scalar_linear::{Bf16, F16, F32};
use crate::mem::split::TileMut;
use crate::tensor::block::{Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
use crate::tensor::{Act8, Activations, BLOCK, Blocks, DType, Matrix};
use core::arch::wasm32::*;

/// 128-bit vectors, which the whole module is built for.
#[derive(Clone, Copy)]
struct Simd128;

/// Methods of one expression.
macro_rules! on_registers {
    ($(fn $name:ident($($arg:ident: $of:ty),*) -> $to:ty { $value:expr })*) => { $(
        #[inline(always)]
        fn $name(self, $($arg: $of),*) -> $to {
            $value
        }
    )* };
}

/// 16 bytes from `p` on.
///
/// # Safety
/// They may be read.
#[inline(always)]
unsafe fn load16(p: *const u8) -> v128 {
    // SAFETY: the caller's promise; no alignment needed.
    unsafe { v128_load(p.cast()) }
}

/// 16 bytes of a column, from `16 half` on.
#[inline(always)]
fn column(x: &[i8; BLOCK], half: usize) -> v128 {
    // SAFETY: `half % 2` keeps the 16 bytes inside.
    unsafe { load16(x.as_ptr().add(16 * (half % 2)).cast()) }
}

/// The f16 in the low half of each lane as floats, subnormal numbers included; the high halves are zero.
#[inline(always)]
pub(super) fn halves(h: v128) -> v128 {
    let size = i32x4_shl(v128_and(h, i32x4_splat(0x7fff)), 13);
    let sign = i32x4_shl(v128_and(h, i32x4_splat(0x8000)), 16);
    // The exponents differ by 112. As a float, `size` may be a subnormal number; the product is exact.
    let finite = f32x4_mul(size, f32x4_splat(f32::from_bits((127 + 112) << 23)));
    // All exponent bits set: infinite or NaN, and so it stays.
    let special = v128_and(i32x4_gt(size, i32x4_splat((0x7c00 << 13) - 1)), i32x4_splat(0x7f80_0000));
    v128_or(v128_or(finite, special), sign)
}

/// The even and the odd signed bytes as 16-bit numbers.
#[inline(always)]
fn even_odd(v: v128) -> [v128; 2] {
    [i16x8_shr(i16x8_shl(v, 8), 8), i16x8_shr(v, 8)]
}

/// Adds the products of the four bytes of each lane, given as their even and odd ones, with quad `LANE` of `x`.
#[inline(always)]
fn step<const LANE: usize>(sum: v128, w: [v128; 2], x: [v128; 2]) -> v128 {
    let even = i32x4_dot_i16x8(w[0], i32x4_shuffle::<LANE, LANE, LANE, LANE>(x[0], x[0]));
    let odd = i32x4_dot_i16x8(w[1], i32x4_shuffle::<LANE, LANE, LANE, LANE>(x[1], x[1]));
    i32x4_add(sum, i32x4_add(even, odd))
}

impl Lanes for Simd128 {
    const ROWS: usize = 4;
    const ROOMY: bool = false;
    type Int = v128;
    type Float = v128;

    #[inline(always)]
    fn quads<B>(self, at: At<'_, Self, B>, offset: usize) -> [v128; 4] {
        let (p, stride) = at.bytes(offset, 16);
        // SAFETY: `At` answers for 16 bytes at each of the four addresses.
        let row = |row: usize| unsafe { load16(p.add(row * stride)) };
        let x = [row(0), row(1), row(2), row(3)];
        let low = [i32x4_shuffle::<0, 4, 1, 5>(x[0], x[1]), i32x4_shuffle::<0, 4, 1, 5>(x[2], x[3])];
        let high = [i32x4_shuffle::<2, 6, 3, 7>(x[0], x[1]), i32x4_shuffle::<2, 6, 3, 7>(x[2], x[3])];
        [
            i64x2_shuffle::<0, 2>(low[0], low[1]),
            i64x2_shuffle::<1, 3>(low[0], low[1]),
            i64x2_shuffle::<0, 2>(high[0], high[1]),
            i64x2_shuffle::<1, 3>(high[0], high[1]),
        ]
    }

    #[inline(always)]
    fn words<B>(self, at: At<'_, Self, B>, offset: usize) -> v128 {
        let (p, stride) = at.bytes(offset, 4);
        // SAFETY: `At` answers for 4 bytes at each of the four addresses.
        let word = |row: usize| unsafe { p.add(row * stride).cast::<i32>().read_unaligned() };
        i32x4(word(0), word(1), word(2), word(3))
    }

    #[inline(always)]
    fn halves<B>(self, at: At<'_, Self, B>, offset: usize) -> v128 {
        let (p, stride) = at.bytes(offset, 2);
        // SAFETY: `At` answers for 2 bytes at each of the four addresses.
        let half = |row: usize| unsafe { p.add(row * stride).cast::<u16>().read_unaligned() };
        halves(u32x4(half(0).into(), half(1).into(), half(2).into(), half(3).into()))
    }

    #[inline(always)]
    fn half_pair(self, v: v128) -> [v128; 2] {
        [halves(v128_and(v, i32x4_splat(0xffff))), halves(u32x4_shr(v, 16))]
    }

    on_registers! {
        fn bytes(value: u8) -> v128 { u8x16_splat(value) }
        fn and(a: v128, b: v128) -> v128 { v128_and(a, b) }
        fn or(a: v128, b: v128) -> v128 { v128_or(a, b) }
        fn shift(v: v128, by: i32) -> v128 {
            if by >= 0 { i16x8_shl(v, by.unsigned_abs()) } else { u16x8_shr(v, by.unsigned_abs()) }
        }
        fn middle(low: v128, high: v128) -> v128 { v128_or(u32x4_shr(low, 16), i32x4_shl(high, 16)) }
        fn add_sixteens(w: v128, v: v128, g: usize) -> v128 {{
            // The byte with the four bits to all bytes of its lane, then one bit in each byte.
            let own = u32x4(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c);
            let from = u8x16_swizzle(v, u8x16_add(own, u8x16_splat((g / 2) as u8)));
            let bits = u32x4_splat(if g.is_multiple_of(2) { 0x0804_0201 } else { 0x8040_2010 });
            let set = u8x16_eq(v128_and(from, bits), bits);
            v128_or(w, v128_and(set, u8x16_splat(16)))
        }}
        fn byte(v: v128, i: usize) -> v128 {
            f32x4_convert_i32x4(v128_and(u32x4_shr(v, 8 * i as u32), u32x4_splat(255)))
        }
        fn signed_byte(v: v128, i: usize) -> v128 {
            f32x4_convert_i32x4(i32x4_shr(i32x4_shl(v, 24_u32.wrapping_sub(8 * i as u32)), 24))
        }
        fn splat(value: i32) -> v128 { i32x4_splat(value) }
        fn float(v: v128) -> v128 { f32x4_convert_i32x4(v) }
        fn floats(value: f32) -> v128 { f32x4_splat(value) }
        fn add(a: v128, b: v128) -> v128 { f32x4_add(a, b) }
        fn mul(a: v128, b: v128) -> v128 { f32x4_mul(a, b) }
        fn neg(v: v128) -> v128 { f32x4_neg(v) }
    }

    #[inline(always)]
    fn ready(self, _: Codes, w: [v128; 8]) -> [v128; 8] {
        w
    }

    #[inline(always)]
    fn dot<const N: usize>(self, codes: Codes, w: &[v128; 8], x: &[&Act8; N]) -> [[v128; N]; 2] {
        let starts = x.map(|x| codes.starts(&x.sums).map(|start| i32x4_splat(start)));
        let mut sums = [starts.map(|[first, _]| first), starts.map(|[_, second]| second)];
        // Products of 16-bit numbers are exact.
        for (half, w) in w.as_chunks::<4>().0.iter().enumerate() {
            let w = w.map(even_odd);
            let Some(sums) = sums.get_mut(if codes.halves() { half } else { 0 }) else { break };
            for (x, sum) in x.iter().zip(sums) {
                let x = even_odd(column(&x.q, half));
                *sum = step::<0>(*sum, w[0], x);
                *sum = step::<1>(*sum, w[1], x);
                *sum = step::<2>(*sum, w[2], x);
                *sum = step::<3>(*sum, w[3], x);
            }
        }
        sums
    }

    #[inline(always)]
    fn keep(self, v: v128, out: &mut [f32]) {
        if let Some(out) = out.first_chunk_mut::<4>() {
            // SAFETY: 16 bytes that may be written; no alignment needed.
            unsafe { v128_store(out.as_mut_ptr().cast(), v) }
        }
    }

    #[inline(always)]
    fn store(self, v: v128, out: &mut [f32]) {
        self.keep(v, out);
    }

    #[inline(always)]
    fn recall(self, from: &[f32]) -> v128 {
        let Some(from) = from.first_chunk::<4>() else { return i32x4_splat(0) };
        // SAFETY: 16 bytes that may be read.
        unsafe { load16(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> v128 {
        self.recall(from)
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8, _: usize) {}
}

impl Wide for Simd128 {
    const ONE_STREAM: bool = false;
    type Lanes = [v128; 4];

    #[inline(always)]
    fn zero(self) -> [v128; 4] {
        [f32x4_splat(0.0); 4]
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [v128; 4] {
        let p: *const u8 = from.as_ptr().cast();
        // SAFETY: `i % 4` keeps the 16 bytes inside.
        core::array::from_fn(|i| unsafe { load16(p.add(16 * (i % 4))) })
    }

    #[inline(always)]
    fn load_f32(self, from: Run<'_, u32>) -> [v128; 4] {
        let p = from.as_ptr();
        // SAFETY: `Run` answers for 16 elements of four bytes.
        core::array::from_fn(|i| unsafe { load16(p.add(16 * (i % 4))) })
    }

    #[inline(always)]
    fn load_f16(self, from: Run<'_, u16>) -> [v128; 4] {
        let p = from.as_ptr();
        // SAFETY: `Run` answers for 16 elements of two bytes.
        let (low, high) = unsafe { (load16(p), load16(p.wrapping_add(16))) };
        [
            halves(u32x4_extend_low_u16x8(low)),
            halves(u32x4_extend_high_u16x8(low)),
            halves(u32x4_extend_low_u16x8(high)),
            halves(u32x4_extend_high_u16x8(high)),
        ]
    }

    #[inline(always)]
    fn load_bf16(self, from: Run<'_, u16>) -> [v128; 4] {
        let p = from.as_ptr();
        // SAFETY: `Run` answers for 16 elements of two bytes.
        let (low, high) = unsafe { (load16(p), load16(p.wrapping_add(16))) };
        [
            i32x4_shl(u32x4_extend_low_u16x8(low), 16),
            i32x4_shl(u32x4_extend_high_u16x8(low), 16),
            i32x4_shl(u32x4_extend_low_u16x8(high), 16),
            i32x4_shl(u32x4_extend_high_u16x8(high), 16),
        ]
    }

    #[inline(always)]
    fn add_product(self, acc: [v128; 4], w: [v128; 4], x: [v128; 4]) -> [v128; 4] {
        core::array::from_fn(|i| f32x4_add(acc[i % 4], f32x4_mul(w[i % 4], x[i % 4])))
    }

    #[inline(always)]
    fn add_exact(self, acc: [v128; 4], w: [v128; 4], x: [v128; 4]) -> [v128; 4] {
        self.add_product(acc, w, x)
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8, _: usize) {}

    #[inline(always)]
    fn tree(self, v: [v128; 4]) -> f32 {
        let four = f32x4_add(f32x4_add(v[0], v[2]), f32x4_add(v[1], v[3]));
        let two = f32x4_add(four, i64x2_shuffle::<1, 1>(four, four));
        f32x4_extract_lane::<0>(two) + f32x4_extract_lane::<1>(two)
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
    rows::scratch::<Simd128>(cols)
}

/// A layer of float weights.
fn float<T: FloatWeights>(w: &Matrix<'_>, x: &Activations<'_>, out: &mut TileMut<'_, f32>, _: &mut [f32]) {
    floats::linear::<Simd128, T>(Simd128, w, x, out);
}

/// A layer of quantised weights.
fn quantised<T: Weights>(
    w: &Matrix<'_>,
    x: &Activations<'_>,
    out: &mut TileMut<'_, f32>,
    scratch: &mut [f32],
) {
    rows::linear::<Simd128, T>(Simd128, w, x, out, scratch, packed::<T::Alike>);
}

/// Columns of packed weights.
#[inline(never)]
fn packed<T: Weights>(weights: &[f32], x: Blocks<'_>, parts: usize, strip: &mut Strip<'_, '_>) {
    rows::packed::<Simd128, T>(Simd128, weights, x, parts, strip);
}
