//! Quantised blocks as they lie in GGUF files, byte for byte, and what they mean.
//!
//! Every type is a scale (and for some a minimum) for each 32 or 16 values and small integers: value =
//! `scale * weight`, or `scale * weight + min`. Kernels and the reference dequantisation read blocks through
//! [`Block`] alone, so the bit layouts are written down once, here. Multi-byte fields are little-endian on every
//! machine; all structs have no padding and may be read from any address as a copy.

use super::{BLOCK, DType};
use bytemuck::{Pod, Zeroable};
use half::f16;

/// A block: [`PARTS`](Block::PARTS) parts of 32 values.
pub trait Block: Pod {
    /// The type whose block this is.
    const DTYPE: DType;
    /// Parts of 32 values in the block.
    const PARTS: usize;

    /// The integer weights of part `part`, in the order of the values.
    fn weights(&self, part: usize) -> [i8; BLOCK];

    /// The scales of the first and of the second 16 values of part `part`; equal but for Q6_K.
    fn scales(&self, part: usize) -> [f32; 2];

    /// What is added to each value of part `part` after scaling; `None` for types without.
    fn min(&self, _part: usize) -> Option<f32> {
        None
    }
}

/// An f16 of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Half(u16);

impl Half {
    /// Rounds to nearest even; beyond the range of f16 to infinity.
    pub fn new(value: f32) -> Self {
        Self(f16::from_f32(value).to_bits().to_le())
    }

    /// The value, exactly.
    #[inline]
    pub fn get(self) -> f32 {
        f16::from_bits(u16::from_le(self.0)).to_f32()
    }
}

/// 32 signed bytes with one scale.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Q8_0 {
    /// Scale.
    pub d: Half,
    /// Weights.
    pub q: [i8; BLOCK],
}

/// 32 values of 4 bits, -8 to 7, with one scale.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Q4_0 {
    /// Scale.
    pub d: Half,
    /// Byte `i`: weight `i` in the low, weight `16 + i` in the high half, each plus 8.
    pub q: [u8; BLOCK / 2],
}

/// 32 values of 4 bits, 0 to 15, with scale and minimum.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Q4_1 {
    /// Scale.
    pub d: Half,
    /// Minimum.
    pub m: Half,
    /// Byte `i`: weight `i` in the low, weight `16 + i` in the high half.
    pub q: [u8; BLOCK / 2],
}

/// 32 values of 5 bits, -16 to 15, with one scale.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Q5_0 {
    /// Scale.
    pub d: Half,
    /// Bit `i`, from the lowest bit of the first byte on: bit 4 of weight `i` plus 16.
    pub high: [u8; 4],
    /// Byte `i`: the low bits of weight `i` in the low, of weight `16 + i` in the high half.
    pub q: [u8; BLOCK / 2],
}

/// 32 values of 5 bits, 0 to 31, with scale and minimum.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Q5_1 {
    /// Scale.
    pub d: Half,
    /// Minimum.
    pub m: Half,
    /// As in [`Q5_0`].
    pub high: [u8; 4],
    /// As in [`Q5_0`].
    pub q: [u8; BLOCK / 2],
}

/// 256 values of 4 bits, 0 to 15; 6-bit scale and minimum for each 32.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Q4_K {
    /// Scale of the scales.
    pub d: Half,
    /// Scale of the minima.
    pub dmin: Half,
    /// Eight 6-bit scales and eight 6-bit minima, see [`scale_and_min`].
    pub scales: [u8; 12],
    /// Byte `32 j + i`: weight `i` of part `2 j` in the low, of part `2 j + 1` in the high half.
    pub q: [u8; 128],
}

/// 256 values of 5 bits, 0 to 31; 6-bit scale and minimum for each 32.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Q5_K {
    /// Scale of the scales.
    pub d: Half,
    /// Scale of the minima.
    pub dmin: Half,
    /// As in [`Q4_K`].
    pub scales: [u8; 12],
    /// Bit `j` of byte `i`: bit 4 of weight `i` of part `j`.
    pub high: [u8; 32],
    /// As in [`Q4_K`].
    pub q: [u8; 128],
}

/// 256 values of 6 bits, -32 to 31; a signed 8-bit scale for each 16.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Q6_K {
    /// Two halves of 128 values. Byte `64 h + 32 i + l`: the low four bits of weight `l` of part `4 h + i` in the low
    /// half and of part `4 h + i + 2` in the high half, `i` being 0 or 1.
    pub low: [u8; 128],
    /// Byte `32 h + l`, bits `2 i` and `2 i + 1`: bits 4 and 5 of weight `l` of part `4 h + i`, `i` being 0 to 3.
    pub high: [u8; 64],
    /// Scale of each 16 values.
    pub scales: [i8; 16],
    /// Scale of the scales.
    pub d: Half,
}

const _: () = {
    assert!(size_of::<Q8_0>() == DType::Q8_0.block().1 && size_of::<Q4_0>() == DType::Q4_0.block().1);
    assert!(size_of::<Q4_1>() == DType::Q4_1.block().1 && size_of::<Q5_0>() == DType::Q5_0.block().1);
    assert!(size_of::<Q5_1>() == DType::Q5_1.block().1 && size_of::<Q4_K>() == DType::Q4_K.block().1);
    assert!(size_of::<Q5_K>() == DType::Q5_K.block().1 && size_of::<Q6_K>() == DType::Q6_K.block().1);
};

/// Weight `i` of a block of nibbles: the low halves of 16 bytes, then their high halves.
#[inline]
fn nibble(q: &[u8; BLOCK / 2], i: usize) -> u8 {
    let byte = q[i % (BLOCK / 2)];
    if i < BLOCK / 2 { byte & 15 } else { byte >> 4 }
}

/// Bit 4 of weight `i`, in place.
#[inline]
fn fifth_bit(high: [u8; 4], i: usize) -> u8 {
    ((u32::from_le_bytes(high) >> (i % BLOCK)) as u8 & 1) << 4
}

/// The 6-bit scale and minimum of part `part` (0 to 7) of a [`Q4_K`] or [`Q5_K`] block.
///
/// Bytes 0 to 3 hold the scales of parts 0 to 3 in their low 6 bits, bytes 4 to 7 the minima. Parts 4 to 7 have their
/// low four bits in bytes 8 to 11 (the scale in the low, the minimum in the high half) and their two high bits in
/// what is left of bytes 0 to 7.
#[inline]
pub fn scale_and_min(scales: &[u8; 12], part: usize) -> (u8, u8) {
    let i = part % 4;
    let (scale, min, rest) = (scales[i], scales[i + 4], scales[i + 8]);
    if part < 4 {
        return (scale & 63, min & 63);
    }
    (rest & 15 | scale >> 6 << 4, rest >> 4 | min >> 6 << 4)
}

impl Block for Q8_0 {
    const DTYPE: DType = DType::Q8_0;
    const PARTS: usize = 1;

    #[inline]
    fn weights(&self, _part: usize) -> [i8; BLOCK] {
        self.q
    }

    #[inline]
    fn scales(&self, _part: usize) -> [f32; 2] {
        [self.d.get(); 2]
    }
}

impl Block for Q4_0 {
    const DTYPE: DType = DType::Q4_0;
    const PARTS: usize = 1;

    #[inline]
    fn weights(&self, _part: usize) -> [i8; BLOCK] {
        core::array::from_fn(|i| nibble(&self.q, i) as i8 - 8)
    }

    #[inline]
    fn scales(&self, _part: usize) -> [f32; 2] {
        [self.d.get(); 2]
    }
}

impl Block for Q4_1 {
    const DTYPE: DType = DType::Q4_1;
    const PARTS: usize = 1;

    #[inline]
    fn weights(&self, _part: usize) -> [i8; BLOCK] {
        core::array::from_fn(|i| nibble(&self.q, i) as i8)
    }

    #[inline]
    fn scales(&self, _part: usize) -> [f32; 2] {
        [self.d.get(); 2]
    }

    #[inline]
    fn min(&self, _part: usize) -> Option<f32> {
        Some(self.m.get())
    }
}

impl Block for Q5_0 {
    const DTYPE: DType = DType::Q5_0;
    const PARTS: usize = 1;

    #[inline]
    fn weights(&self, _part: usize) -> [i8; BLOCK] {
        core::array::from_fn(|i| (nibble(&self.q, i) | fifth_bit(self.high, i)) as i8 - 16)
    }

    #[inline]
    fn scales(&self, _part: usize) -> [f32; 2] {
        [self.d.get(); 2]
    }
}

impl Block for Q5_1 {
    const DTYPE: DType = DType::Q5_1;
    const PARTS: usize = 1;

    #[inline]
    fn weights(&self, _part: usize) -> [i8; BLOCK] {
        core::array::from_fn(|i| (nibble(&self.q, i) | fifth_bit(self.high, i)) as i8)
    }

    #[inline]
    fn scales(&self, _part: usize) -> [f32; 2] {
        [self.d.get(); 2]
    }

    #[inline]
    fn min(&self, _part: usize) -> Option<f32> {
        Some(self.m.get())
    }
}

/// The four bits of weight `i` of part `part`, in the order of [`Q4_K`].
#[inline]
fn nibble_k(q: &[u8; 128], part: usize, i: usize) -> u8 {
    let byte = q[part / 2 % 4 * BLOCK + i % BLOCK];
    if part.is_multiple_of(2) { byte & 15 } else { byte >> 4 }
}

impl Block for Q4_K {
    const DTYPE: DType = DType::Q4_K;
    const PARTS: usize = 8;

    #[inline]
    fn weights(&self, part: usize) -> [i8; BLOCK] {
        core::array::from_fn(|i| nibble_k(&self.q, part, i) as i8)
    }

    #[inline]
    fn scales(&self, part: usize) -> [f32; 2] {
        [self.d.get() * f32::from(scale_and_min(&self.scales, part).0); 2]
    }

    #[inline]
    fn min(&self, part: usize) -> Option<f32> {
        Some(-(self.dmin.get() * f32::from(scale_and_min(&self.scales, part).1)))
    }
}

impl Block for Q5_K {
    const DTYPE: DType = DType::Q5_K;
    const PARTS: usize = 8;

    #[inline]
    fn weights(&self, part: usize) -> [i8; BLOCK] {
        let high = |i: usize| (self.high[i % BLOCK] >> (part % 8) & 1) << 4;
        core::array::from_fn(|i| (nibble_k(&self.q, part, i) | high(i)) as i8)
    }

    #[inline]
    fn scales(&self, part: usize) -> [f32; 2] {
        [self.d.get() * f32::from(scale_and_min(&self.scales, part).0); 2]
    }

    #[inline]
    fn min(&self, part: usize) -> Option<f32> {
        Some(-(self.dmin.get() * f32::from(scale_and_min(&self.scales, part).1)))
    }
}

impl Block for Q6_K {
    const DTYPE: DType = DType::Q6_K;
    const PARTS: usize = 8;

    #[inline]
    fn weights(&self, part: usize) -> [i8; BLOCK] {
        let (half, i) = (part / 4 % 2, part % 4);
        core::array::from_fn(|l| {
            let low = self.low[64 * half + 32 * (i % 2) + l % BLOCK];
            let low = if i < 2 { low & 15 } else { low >> 4 };
            let high = self.high[32 * half + l % BLOCK] >> (2 * i) & 3;
            (low | high << 4) as i8 - 32
        })
    }

    #[inline]
    fn scales(&self, part: usize) -> [f32; 2] {
        let d = self.d.get();
        core::array::from_fn(|h| d * f32::from(self.scales[(2 * part + h) % 16]))
    }
}
