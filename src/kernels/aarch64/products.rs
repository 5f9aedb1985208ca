//! Sums of products of signed bytes, by what the CPU has for them: multiplications that widen, dot products of four
//! bytes, or products of small matrices.
//!
//! Weights stand as in [`rows`](crate::kernels::rows): element `g` holds values `4 g` to `4 g + 3` of eight rows. Stable
//! Rust has no intrinsics for the dot products and the matrix products, so these are written as instructions.

use super::linear::Int;
use crate::kernels::rows::Codes;
use crate::tensor::BLOCK;
use core::arch::aarch64::*;
use core::arch::asm;

/// A way to multiply bytes. A value of the type is the proof that the CPU has it.
pub(super) trait Products: Copy {
    /// The weights as [`add`](Self::add) wants them.
    #[inline(always)]
    fn ready(self, w: [Int; 8]) -> [Int; 8] {
        w
    }

    /// Adds the sums of products with `N` columns of bytes to `sums[0]` or, those of the last 16 values, to either
    /// `sums[0]` or `sums[1]`: to this one for certain where [`Codes::halves`].
    fn add<const N: usize>(self, codes: Codes, w: &[Int; 8], x: &[&[i8; BLOCK]; N], sums: &mut [[Int; N]; 2]);
}

/// Methods of one instruction on registers.
macro_rules! instruction {
    ($(#[$doc:meta])* $name:ident$(<$lane:ident>)?, $text:literal) => {
        $(#[$doc])*
        #[inline(always)]
        fn $name$(<const $lane: i32>)?(self, mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
            // SAFETY: a value of this type exists only where the CPU has the instruction, and it touches no memory.
            unsafe {
                asm!(
                    $text, acc = inlateout(vreg) acc, w = in(vreg) w, x = in(vreg) x, $($lane = const $lane,)?
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            acc
        }
    };
}

/// 16 bytes of a column, from `16 half` on.
#[inline(always)]
fn column(x: &[i8; BLOCK], half: usize) -> int8x16_t {
    // SAFETY: `half % 2` keeps the 16 bytes inside, and they need no alignment. Every AArch64 target of this module
    // has NEON.
    unsafe { vld1q_s8(x.as_ptr().add(16 * (half % 2))) }
}

/// The same four bytes in every lane: those of lane `LANE`.
#[inline(always)]
fn quad<const LANE: i32>(x: int8x16_t) -> int8x16_t {
    // SAFETY: an instruction on registers; NEON is there.
    unsafe { vreinterpretq_s8_s32(vdupq_laneq_s32::<LANE>(vreinterpretq_s32_s8(x))) }
}

/// What every AArch64 CPU has: products of bytes as 16 bits.
#[derive(Clone, Copy)]
pub(super) struct Widening(());

impl Widening {
    /// # Safety
    /// The CPU has NEON.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(())
    }

    /// Adds the products of quads `FIRST` to `FIRST + 4 HALVES - 1`. `CHUNK` of them are added up in 16 bits, each sum
    /// one product a quad.
    ///
    /// That is exact: activations are -127 to 127, so for weights of up to 6 bits four products are at most 4 * 63 * 127 =
    /// 32004 in size. Of bytes two are 2 * 128 * 127 = 32512.
    #[inline(always)]
    fn run<const N: usize, const CHUNK: usize, const FIRST: usize, const HALVES: usize>(
        self,
        w: &[Int; 8],
        x: &[&[i8; BLOCK]; N],
        sums: &mut [Int; N],
    ) {
        for (x, sums) in x.iter().zip(sums) {
            // SAFETY: instructions on registers; NEON is there.
            unsafe {
                let mut wide = [[vdupq_n_s32(0); 2]; 2];
                for half in FIRST / 4..FIRST / 4 + HALVES {
                    let x = column(x, half);
                    let quads = [quad::<0>(x), quad::<1>(x), quad::<2>(x), quad::<3>(x)];
                    let mut narrow = [[vdupq_n_s16(0); 2]; 2];
                    for (g, q) in quads.into_iter().enumerate() {
                        let at = 4 * half + g;
                        for (r, narrow) in narrow.iter_mut().enumerate() {
                            let w = vreinterpretq_s8_s32(w[at % 8][r]);
                            *narrow = if g.is_multiple_of(CHUNK) {
                                [vmull_s8(vget_low_s8(w), vget_low_s8(q)), vmull_high_s8(w, q)]
                            } else {
                                [
                                    vmlal_s8(narrow[0], vget_low_s8(w), vget_low_s8(q)),
                                    vmlal_high_s8(narrow[1], w, q),
                                ]
                            };
                        }
                        if (g + 1).is_multiple_of(CHUNK) {
                            for (wide, narrow) in
                                wide.as_flattened_mut().iter_mut().zip(narrow.as_flattened())
                            {
                                *wide = vpadalq_s16(*wide, *narrow);
                            }
                        }
                    }
                }
                for (sum, wide) in sums.iter_mut().zip(wide) {
                    *sum = vaddq_s32(*sum, vpaddq_s32(wide[0], wide[1]));
                }
            }
        }
    }
}

impl Products for Widening {
    #[inline(always)]
    fn add<const N: usize>(
        self,
        codes: Codes,
        w: &[Int; 8],
        x: &[&[i8; BLOCK]; N],
        sums: &mut [[Int; N]; 2],
    ) {
        let [first, second] = sums;
        match codes {
            Codes::SixMinus32 => {
                self.run::<N, 4, 0, 1>(w, x, first);
                self.run::<N, 4, 4, 1>(w, x, second);
            }
            Codes::Signed8 => self.run::<N, 2, 0, 2>(w, x, first),
            _ => self.run::<N, 4, 0, 2>(w, x, first),
        }
    }
}

/// Dot products of four bytes, a lane each.
#[derive(Clone, Copy)]
pub(super) struct Dotprod(());

impl Dotprod {
    /// # Safety
    /// The CPU has NEON and the dot products.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(())
    }

    instruction! {
        /// Adds the products of each lane of `w` with lane `LANE` of `x`.
        sdot_lane<LANE>, "sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[{LANE}]"
    }

    instruction! {
        /// Adds the products of each lane of `w` with the same lane of `x`.
        sdot, "sdot {acc:v}.4s, {w:v}.16b, {x:v}.16b"
    }

    /// Adds the products of quad `4 half + LANE`.
    #[inline(always)]
    fn step<const N: usize, const LANE: i32>(self, w: &Int, x: &[int8x16_t; N], sums: &mut [Int; N]) {
        for (x, sums) in x.iter().zip(sums) {
            for (w, sum) in w.iter().zip(sums) {
                // SAFETY: NEON is there; no instruction.
                let w = unsafe { vreinterpretq_s8_s32(*w) };
                *sum = self.sdot_lane::<LANE>(*sum, w, *x);
            }
        }
    }
}

impl Products for Dotprod {
    #[inline(always)]
    fn add<const N: usize>(
        self,
        codes: Codes,
        w: &[Int; 8],
        x: &[&[i8; BLOCK]; N],
        sums: &mut [[Int; N]; 2],
    ) {
        let [a, b, c, d, e, f, g, h] = w;
        let first = x.map(|x| column(x, 0));
        self.step::<N, 0>(a, &first, &mut sums[0]);
        self.step::<N, 1>(b, &first, &mut sums[0]);
        self.step::<N, 2>(c, &first, &mut sums[0]);
        self.step::<N, 3>(d, &first, &mut sums[0]);
        // A sum waits for the one before it: one column takes the halves apart.
        let half = if codes.halves() || N < 4 { 1 } else { 0 };
        let second = x.map(|x| column(x, 1));
        self.step::<N, 0>(e, &second, &mut sums[half]);
        self.step::<N, 1>(f, &second, &mut sums[half]);
        self.step::<N, 2>(g, &second, &mut sums[half]);
        self.step::<N, 3>(h, &second, &mut sums[half]);
    }
}

/// Products of matrices of two rows of eight bytes.
#[derive(Clone, Copy)]
pub(super) struct I8mm(Dotprod);

impl I8mm {
    /// # Safety
    /// The CPU has NEON, the dot products and the matrix products.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { Dotprod::new() })
    }

    instruction! {
        /// Adds the products of two rows of `w` with two rows of `x`: lane `2 i + j` is that of rows `i` and `j`.
        smmla, "smmla {acc:v}.4s, {w:v}.16b, {x:v}.16b"
    }

    /// Adds the products of 16 values with one column.
    #[inline(always)]
    fn one(self, w: &[Int; 4], x: int8x16_t, sums: &mut Int) {
        for (r, sum) in sums.iter_mut().enumerate() {
            // SAFETY: instructions on registers; NEON is there.
            unsafe {
                let pair = [
                    vdupq_laneq_s64::<0>(vreinterpretq_s64_s8(x)),
                    vdupq_laneq_s64::<1>(vreinterpretq_s64_s8(x)),
                ];
                let mut tiles = [vdupq_n_s32(0); 2];
                for (w, x) in w.as_chunks::<2>().0.iter().zip(pair) {
                    for (tile, w) in tiles.iter_mut().zip(w) {
                        *tile = self.0.sdot(*tile, vreinterpretq_s8_s32(w[r]), vreinterpretq_s8_s64(x));
                    }
                }
                *sum = vaddq_s32(*sum, vpaddq_s32(tiles[0], tiles[1]));
            }
        }
    }

    /// Adds the products of 16 values with two columns.
    #[inline(always)]
    fn two(self, w: &[Int; 4], x: [int8x16_t; 2], sums: &mut [Int; 2]) {
        let [mut first, mut second] = *sums;
        for (r, (first, second)) in first.iter_mut().zip(&mut second).enumerate() {
            // SAFETY: instructions on registers; NEON is there.
            unsafe {
                let x = x.map(|x| vreinterpretq_s64_s8(x));
                let pair = [vzip1q_s64(x[0], x[1]), vzip2q_s64(x[0], x[1])];
                let mut tiles = [vzip1q_s32(*first, *second), vzip2q_s32(*first, *second)];
                for (w, x) in w.as_chunks::<2>().0.iter().zip(pair) {
                    for (tile, w) in tiles.iter_mut().zip(w) {
                        *tile = self.smmla(*tile, vreinterpretq_s8_s32(w[r]), vreinterpretq_s8_s64(x));
                    }
                }
                (*first, *second) = (vuzp1q_s32(tiles[0], tiles[1]), vuzp2q_s32(tiles[0], tiles[1]));
            }
        }
        *sums = [first, second];
    }
}

impl Products for I8mm {
    /// Two quads of four rows become eight bytes of two rows each: element `2 h` has bytes `8 h` to `8 h + 7` of rows 0
    /// and 1 and of rows 4 and 5, element `2 h + 1` those of the others.
    #[inline(always)]
    fn ready(self, mut w: [Int; 8]) -> [Int; 8] {
        for [first, second] in w.as_chunks_mut().0 {
            for (first, second) in first.iter_mut().zip(second) {
                // SAFETY: instructions on registers; NEON is there.
                (*first, *second) = unsafe { (vzip1q_s32(*first, *second), vzip2q_s32(*first, *second)) };
            }
        }
        w
    }

    #[inline(always)]
    fn add<const N: usize>(
        self,
        codes: Codes,
        w: &[Int; 8],
        x: &[&[i8; BLOCK]; N],
        sums: &mut [[Int; N]; 2],
    ) {
        for (half, w) in w.as_chunks::<4>().0.iter().enumerate() {
            let Some(sums) = sums.get_mut(if codes.halves() { half } else { 0 }) else { return };
            let (pairs, last) = x.as_chunks::<2>();
            let (pair_sums, last_sums) = sums.as_chunks_mut::<2>();
            for (x, sums) in pairs.iter().zip(pair_sums) {
                self.two(w, x.map(|x| column(x, half)), sums);
            }
            for (x, sums) in last.iter().zip(last_sums) {
                self.one(w, column(x, half), sums);
            }
        }
    }
}
