//! The 16 virtual lanes, and half-precision numbers.

use super::integers::Pair;

/// Number of virtual lanes.
pub(super) const LANES: usize = 16;

/// Adds up 16 lanes by the one fixed tree: lane `l` takes lane `l + 8`, then `l + 4`, `l + 2`, `l + 1`.
#[inline(always)]
pub(super) fn tree(v: &[f32; LANES]) -> f32 {
    let mut eight = [0.0; 8];
    for l in 0..8 {
        eight[l] = v[l] + v[l + 8];
    }
    let mut four = [0.0; 4];
    for l in 0..4 {
        four[l] = eight[l] + eight[l + 4];
    }
    (four[0] + four[2]) + (four[1] + four[3])
}

/// The larger number; `b` when one is NaN.
#[inline(always)]
pub(super) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The largest of all values, NaN ignored; `-inf` for none. Exact in any order, up to the sign of a zero.
#[inline(always)]
pub(super) fn maximum(x: &[f32]) -> f32 {
    let (body, rest) = x.as_chunks::<LANES>();
    let mut max = [f32::NEG_INFINITY; LANES];
    for v in body {
        for l in 0..LANES {
            max[l] = larger(v[l], max[l]);
        }
    }
    for (m, v) in max.iter_mut().zip(rest) {
        *m = larger(*v, *m);
    }
    let mut eight = [f32::NEG_INFINITY; 8];
    for l in 0..8 {
        eight[l] = larger(max[l], max[l + 8]);
    }
    let mut four = [f32::NEG_INFINITY; 4];
    for l in 0..4 {
        four[l] = larger(eight[l], eight[l + 4]);
    }
    larger(larger(four[0], four[2]), larger(four[1], four[3]))
}

/// All bits of a float but its sign.
pub(in crate::kernels) const SIZE: u32 = 0x7fff_ffff;

/// What the inner loops of attention are made of: 16 lanes in registers. Every implementation gives the same bits (a
/// NaN's aside).
pub(in crate::kernels) trait Lanes: Copy {
    /// 16 floats.
    type Floats: Copy;

    /// Sums that are kept in registers together: enough of them that none waits for the addition before it.
    const SUMS: usize;

    /// Zeros.
    fn zero(self) -> Self::Floats;

    /// Takes floats as they are.
    fn load(self, x: &[f32; LANES]) -> Self::Floats;

    /// Converts f16 bits exactly, subnormal numbers included, whatever the floating-point environment.
    fn widen(self, h: &[u16; LANES]) -> Self::Floats;

    /// Converts signed bytes.
    fn widen_bytes(self, q: &[i8; LANES]) -> Self::Floats;

    /// `factor * x`.
    fn scale(self, factor: f32, x: Self::Floats) -> Self::Floats;

    /// `a * b`.
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;

    /// `a + b`. Never fused with a product.
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;

    /// `sum + factor * x` where no product needs rounding: fused or not, the result is the same.
    #[inline(always)]
    fn add_exact(self, sum: Self::Floats, factor: f32, x: Self::Floats) -> Self::Floats {
        self.add(sum, self.scale(factor, x))
    }

    /// 16 integers.
    type Integers: Copy;

    /// 16 pairs of integers.
    type Pairs: Copy;

    /// Zeros.
    fn no_integers(self) -> Self::Integers;

    /// Zeros.
    #[inline(always)]
    fn no_pairs(self) -> Self::Pairs {
        self.pairs(&[[0; 2]; LANES])
    }

    /// Takes pairs as they are.
    fn pairs(self, x: &[Pair; LANES]) -> Self::Pairs;

    /// `sum + factors[0] * x[0] + factors[1] * x[1]` of each lane's pair, wrapping.
    fn add_pairs(self, sum: Self::Integers, factors: Pair, x: Self::Pairs) -> Self::Integers;

    /// The larger of `sizes` and of the sizes of `x`, as bits: these are ordered as the sizes are, NaN above all.
    fn larger_sizes(self, sizes: Self::Integers, x: Self::Floats) -> Self::Integers;

    /// Lane by lane.
    fn integers(self, x: Self::Integers) -> [i32; LANES];

    /// The nearest integers, ties to even, of numbers between -2^15 and 2^15; 0 for NaN.
    fn round(self, x: Self::Floats) -> [i16; LANES];

    /// The nearest floats, ties to even.
    fn to_floats(self, x: Self::Integers) -> Self::Floats;

    /// Lane by lane.
    fn to_array(self, x: Self::Floats) -> [f32; LANES];

    /// Asks for the memory at `at` to be brought near. Any address is allowed.
    #[inline(always)]
    fn prefetch(self, _at: *const u8) {}
}

/// Plain Rust for any machine.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Lanes for Portable {
    type Floats = [f32; LANES];
    type Integers = [i32; LANES];
    type Pairs = [Pair; LANES];
    const SUMS: usize = 1;

    #[inline(always)]
    fn zero(self) -> [f32; LANES] {
        [0.0; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> [f32; LANES] {
        *x
    }

    #[inline(always)]
    fn widen(self, h: &[u16; LANES]) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        for l in 0..LANES {
            out[l] = widen(h[l]);
        }
        out
    }

    #[inline(always)]
    fn widen_bytes(self, q: &[i8; LANES]) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        for l in 0..LANES {
            out[l] = f32::from(q[l]);
        }
        out
    }

    #[inline(always)]
    fn scale(self, factor: f32, mut x: [f32; LANES]) -> [f32; LANES] {
        for x in &mut x {
            *x *= factor;
        }
        x
    }

    #[inline(always)]
    fn mul(self, mut a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        for l in 0..LANES {
            a[l] *= b[l];
        }
        a
    }

    #[inline(always)]
    fn add(self, mut a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        for l in 0..LANES {
            a[l] += b[l];
        }
        a
    }

    #[inline(always)]
    fn no_integers(self) -> [i32; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    fn pairs(self, x: &[Pair; LANES]) -> [Pair; LANES] {
        *x
    }

    #[inline(always)]
    fn add_pairs(self, mut sum: [i32; LANES], factors: Pair, x: [Pair; LANES]) -> [i32; LANES] {
        let [first, second] = factors.map(i32::from);
        for l in 0..LANES {
            let [x, y] = x[l].map(i32::from);
            sum[l] = sum[l].wrapping_add((first * x).wrapping_add(second * y));
        }
        sum
    }

    #[inline(always)]
    fn larger_sizes(self, mut sizes: [i32; LANES], x: [f32; LANES]) -> [i32; LANES] {
        for l in 0..LANES {
            sizes[l] = sizes[l].max((x[l].to_bits() & SIZE) as i32);
        }
        sizes
    }

    #[inline(always)]
    fn integers(self, x: [i32; LANES]) -> [i32; LANES] {
        x
    }

    #[inline(always)]
    fn round(self, x: [f32; LANES]) -> [i16; LANES] {
        // Among numbers of this size there is nothing behind the point.
        const ONES: f32 = 12_582_912.0;
        let mut out = [0; LANES];
        for l in 0..LANES {
            let finite = if x[l].is_nan() { 0.0 } else { x[l] };
            out[l] = (finite + ONES).to_bits().wrapping_sub(ONES.to_bits()) as i16;
        }
        out
    }

    #[inline(always)]
    fn to_floats(self, x: [i32; LANES]) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        for l in 0..LANES {
            out[l] = x[l] as f32;
        }
        out
    }

    #[inline(always)]
    fn to_array(self, x: [f32; LANES]) -> [f32; LANES] {
        x
    }
}

/// One f16 number as a float.
#[inline(always)]
pub(in crate::kernels) fn widen(h: u16) -> f32 {
    const EXPONENT: u32 = 0x7c00 << 13;
    let sign = (h as u32 & 0x8000) << 16;
    let size = (h as u32 & 0x7fff) << 13;
    let exponent = size & EXPONENT;
    let normal = size + (112 << 23);
    // All exponent bits set: infinite or NaN, and so it stays.
    let normal = if exponent == EXPONENT { size + (224 << 23) } else { normal };
    // Subnormal: 2^-14 (1 + f) - 2^-14, all of it normal numbers and exact.
    let subnormal = f32::from_bits(size + (113 << 23)) - f32::from_bits(113 << 23);
    let bits = if exponent == 0 { subnormal.to_bits() } else { normal };
    f32::from_bits(bits | sign)
}

/// The nearest number of 13 significant bits, ties to even; less than 2^-100 becomes 0 and 2^100 or more infinite. A
/// NaN stays one.
///
/// Its product with an f16 number (11 bits) or a byte is exact in 32 bits: it has 24 bits at most, and no size at which
/// bits are lost. So a fused multiply-add gives the same as a product and a sum.
#[inline(always)]
pub(in crate::kernels) fn short(x: f32) -> f32 {
    const DROPPED: u32 = 24 - 13;
    const LEAST: u32 = (127 - 100) << 23;
    const INFINITE: u32 = 0x7f80_0000;
    let sign = x.to_bits() & 0x8000_0000;
    let size = x.to_bits() & 0x7fff_ffff;
    let nearest = (size.wrapping_add((1 << (DROPPED - 1)) - 1 + (size >> DROPPED & 1))) >> DROPPED << DROPPED;
    let kept = if size < LEAST { 0 } else { nearest };
    let large = if size > INFINITE { size } else { INFINITE };
    f32::from_bits(sign | if size < (127 + 100) << 23 { kept } else { large })
}

/// A float as f16 bits, rounded to the nearest, ties to even; a NaN stays one.
#[inline(always)]
pub(super) fn narrow(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16 & 0x8000) as u16;
    let size = x.to_bits() & 0x7fff_ffff;
    // Rounding may carry into the exponent, and from the largest number to infinity, both as it should be.
    let normal = size.wrapping_add(0xfff + (size >> 13 & 1)).wrapping_sub(112 << 23) >> 13;
    // Below 2^-14: adding 0.5, whose last place is 2^-24, rounds to the steps of the subnormal numbers.
    let subnormal = (f32::from_bits(size) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if size < 0x3880_0000 { subnormal } else { normal };
    let special = if size > 0x7f80_0000 { 0x7e00 | (size >> 13 & 0x3ff) } else { 0x7c00 };
    let bits = if size < 0x4780_0000 { finite } else { special };
    bits as u16 | sign
}
