//! Views: a stored matrix, and the activations that meet it.

use super::DType;
use crate::mem::aligned::RawBytes;
use bytemuck::{Pod, Zeroable};

/// Values of one activation block: every quantised weight type meets activations with one scale for 32 values.
pub const BLOCK: usize = 32;

/// A weight matrix as stored, `[rows][cols]` with whole blocks along `cols`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'w> {
    dtype: DType,
    rows: usize,
    cols: usize,
    bytes: RawBytes<'w>,
    then: RawBytes<'w>,
}

impl<'w> Matrix<'w> {
    /// A matrix over exactly `rows` rows; `None` when `cols` is no whole number of blocks or the bytes do not match.
    pub fn new(dtype: DType, rows: usize, cols: usize, bytes: RawBytes<'w>) -> Option<Self> {
        let needed = dtype.row_bytes(cols)?.checked_mul(rows)?;
        (needed == bytes.len()).then_some(Self { dtype, rows, cols, bytes, then: RawBytes::new(&[]) })
    }

    /// A matrix without rows.
    pub fn empty() -> Self {
        Self { dtype: DType::F32, rows: 0, cols: 0, bytes: RawBytes::new(&[]), then: RawBytes::new(&[]) }
    }

    /// The same matrix, behind which these bytes will be read: a kernel may ask for their beginning when it comes to the
    /// last rows.
    pub fn followed_by(self, then: RawBytes<'w>) -> Self {
        Self { then, ..self }
    }

    /// What will be read behind this matrix; nothing if that is not known.
    pub fn then(&self) -> RawBytes<'w> {
        self.then
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of rows: outputs of a linear layer.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row: inputs of a linear layer.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        let (values, bytes) = self.dtype.block();
        self.cols / values * bytes
    }

    /// All bytes: `rows * row_bytes`.
    pub fn bytes(&self) -> RawBytes<'w> {
        self.bytes
    }

    /// The bytes of row `row`; none beyond the last.
    pub fn row(&self, row: usize) -> RawBytes<'w> {
        let len = self.row_bytes();
        let offset = row.checked_mul(len);
        offset.and_then(|offset| self.bytes.sub(offset, len)).unwrap_or(RawBytes::new(&[]))
    }
}

/// How finely the input of a quantised layer is rounded. It belongs to the layer's role in the plan, never to the
/// batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// One signed byte a value.
    Bits8,
    /// One signed byte a value, and a second one in the few blocks that stand out: those whose peak, squared, is more than
    /// [`STANDS_OUT`] times the mean of that over the column. Some features of a transformer are far larger than the
    /// others (Dettmers et al. 2022), and most of the error of rounding is theirs. In a column of 256 values or fewer
    /// nothing can stand out that far.
    #[default]
    Mixed,
    /// Two signed bytes a value.
    Bits16,
}

/// See [`Precision::Mixed`].
pub const STANDS_OUT: usize = 8;

impl Precision {
    /// Blocks with a second byte, of a column of `blocks` blocks: so many at most. Of numbers that are not negative fewer
    /// than the `n`th part can be more than `n` times their mean.
    pub const fn rests(self, blocks: usize) -> usize {
        match self {
            Precision::Bits8 => 0,
            Precision::Mixed => blocks / STANDS_OUT,
            Precision::Bits16 => blocks,
        }
    }
}

/// Sums over the integers of an activation block, in the forms that kernels use: computed once where the block is made,
/// not for every row of weights that meets it.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Sums {
    /// `scale * sum`, one rounding.
    pub scaled: f32,
    /// -8, -16 and -128 times the sum: a sum of products with weights that are stored too large by 8, 16 or 128 starts
    /// with it and ends right.
    pub less: [i32; 3],
    /// -32 times the sum of the first and of the second 16 integers, likewise.
    pub less32: [i32; 2],
}

impl Sums {
    /// From the sum of the first and that of the second 16 integers. For those of an activation block nothing wraps.
    #[inline(always)]
    pub fn new(scale: f32, first: i32, second: i32) -> Self {
        let all = first.wrapping_add(second);
        Self {
            scaled: scale * all as f32,
            less: [all.wrapping_mul(-8), all.wrapping_mul(-16), all.wrapping_mul(-128)],
            less32: [first.wrapping_mul(-32), second.wrapping_mul(-32)],
        }
    }
}

/// 32 activations as signed bytes: value = `scale * q`, and what the block of its [`rest`](Self::rest) says is added.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Act8 {
    /// Scale: of [`SCALE_BITS`] significant bits, and not less than 2^-100 nor more than 2^100; NaN when a value was not
    /// finite, as [`NOT_FINITE`](Self::NOT_FINITE) says too, but never in a rest.
    pub scale: f32,
    /// Sums of `q`.
    pub sums: Sums,
    /// Which of the [`Blocks::rests`] holds what rounding has left of these values, counted from 1; 0 for none, and
    /// [`NOT_FINITE`](Self::NOT_FINITE).
    pub rest: u32,
    /// Rounded values, -127 to 127.
    pub q: [i8; BLOCK],
}

// A cache line.
const _: () = assert!(size_of::<Act8>() == 64);

/// Significant bits of the scale of an activation block. Its product with a scale of weights, of 19 bits at most, is exact,
/// and there are few enough significands that a kernel may have the products with all of them at hand.
pub const SCALE_BITS: u32 = 4;

impl Act8 {
    /// What [`rest`](Self::rest) is where the scale is NaN.
    pub const NOT_FINITE: u32 = u32::MAX;

    /// A block with its sums, and without a rest.
    pub fn new(scale: f32, q: [i8; BLOCK]) -> Self {
        let (first, second) = q.split_at(BLOCK / 2);
        let sum = |q: &[i8]| q.iter().fold(0i32, |sum, q| sum.wrapping_add(i32::from(*q)));
        let rest = if scale.is_nan() { Self::NOT_FINITE } else { 0 };
        Self { scale, sums: Sums::new(scale, sum(first), sum(second)), rest, q }
    }
}

/// Rounded columns.
#[derive(Debug, Clone, Copy)]
pub struct Blocks<'x> {
    /// `[columns][k / 32]`.
    pub blocks: &'x [Act8],
    /// What [`Act8::rest`] counts; what is not there counts as zeros. Blocks of these have no rest themselves.
    pub rests: &'x [Act8],
}

impl<'x> Blocks<'x> {
    /// The rest of a block of `self`.
    #[inline(always)]
    pub fn rest(&self, block: &Act8) -> Option<&'x Act8> {
        self.rests.get((block.rest as usize).wrapping_sub(1))
    }
}

/// Inputs of a linear layer: some columns of `k` values each, column after column.
#[derive(Debug, Clone, Copy)]
pub enum Activations<'x> {
    /// `[columns][k]` floats, for float weights.
    F32(&'x [f32]),
    /// Integers, for quantised weights.
    Q8(Blocks<'x>),
}
