//! The battery of the linear layers: every table against the scalar one, bit for bit, and the scalar one against
//! sums in `f64`.

extern crate std;

use super::{Kernels, available, by_name, scalar};
use crate::exec::{CancelFlag, Crew, Serial};
use crate::mem::aligned::RawBytes;
use crate::mem::split::{Tiles, for_each_job};
use crate::tensor::dequant::dequantize_row;
use crate::tensor::{Act8, Activations, BLOCK, Blocks, DType, Matrix, Precision, SCALE_BITS};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// About -1 to 1.
    fn float(&mut self) -> f32 {
        self.next() as i32 as f32 / 2147483648.0
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// What kind of numbers to test with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Data {
    /// Finite scales of usual size, any weights.
    Usual,
    /// The largest and the smallest weights and activations only, in all combinations of signs.
    Extreme,
    /// Any bits: infinities and NaN among the scales.
    Anything,
}

const DATA: [Data; 3] = [Data::Usual, Data::Extreme, Data::Anything];

const PRECISIONS: [Precision; 3] = [Precision::Bits8, Precision::Mixed, Precision::Bits16];

/// Scales of [`Data::Extreme`] as f16 bits: zeros, the smallest subnormal numbers, 1, the largest numbers.
const EXTREME_SCALES: [u16; 8] = [0, 0x8000, 1, 0x8001, 0x03ff, 0x3c00, 0x7bff, 0xfbff];

/// Places of the f16 scales in a block.
fn scale_offsets(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => &[],
        DType::Q8_0 | DType::Q4_0 | DType::Q5_0 => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q6_K => &[208],
    }
}

/// 16 of the given values, in half of all cases the same one.
fn extremes<T: Copy>(random: &mut Random, values: &[T]) -> [T; 16] {
    let (one, same) = (random.of(values), random.below(2) == 0);
    core::array::from_fn(|_| if same { one } else { random.of(values) })
}

fn weights(random: &mut Random, dtype: DType, data: Data, rows: usize, cols: usize) -> Vec<u8> {
    let len = dtype.row_bytes(cols).unwrap() * rows;
    let mut bytes: Vec<u8> = match data {
        Data::Extreme => {
            (0..len.div_ceil(16)).flat_map(|_| extremes(random, &[0, 0x80, 0x7f, 0xff, 0x0f, 0xf0])).collect()
        }
        _ => (0..len).map(|_| random.next() as u8).collect(),
    };
    bytes.truncate(len);
    if data == Data::Anything {
        return bytes;
    }
    // With zeros and without.
    let scales = EXTREME_SCALES.get(2 * random.below(2)..).unwrap_or_default();
    let half = |random: &mut Random| match data {
        Data::Usual => half::f16::from_f32(random.float() * 0.1).to_bits(),
        _ => random.of(scales),
    };
    match dtype {
        DType::F32 => {
            let extreme = [0.0, -0.0, 1.0, -1e-45, 1e-38, 3e18, -3e18];
            for to in bytes.as_chunks_mut().0 {
                let v = if data == Data::Usual { random.float() } else { random.of(&extreme) };
                *to = v.to_le_bytes();
            }
        }
        DType::F16 => bytes.as_chunks_mut().0.iter_mut().for_each(|to| *to = half(random).to_le_bytes()),
        DType::BF16 => {
            for to in bytes.as_chunks_mut().0 {
                *to = half::bf16::from_f32(random.float()).to_le_bytes();
            }
        }
        _ => {
            for block in bytes.chunks_mut(dtype.block().1) {
                for offset in scale_offsets(dtype) {
                    block[*offset..offset + 2].copy_from_slice(&half(random).to_le_bytes());
                }
            }
        }
    }
    bytes
}

/// Owned activations.
enum Inputs {
    F32(Vec<f32>),
    Q8 { blocks: Vec<Act8>, rests: Vec<Act8> },
}

impl Inputs {
    fn new(
        random: &mut Random,
        dtype: DType,
        precision: Precision,
        data: Data,
        k: usize,
        columns: usize,
    ) -> Self {
        let value = |random: &mut Random| match data {
            Data::Usual => random.float(),
            Data::Extreme => random.of(&[0.0, 1e-45, 1e-38, 1.0, 1e30]),
            Data::Anything => random.of(&[0.0, 1.0, f32::NAN, 0.5, f32::MAX, 1e-40]),
        };
        // Of a few bits, and neither too large nor too small.
        let scale = |random: &mut Random| {
            let significand =
                1.0 + random.below(1 << (SCALE_BITS - 1)) as f32 / (1 << (SCALE_BITS - 1)) as f32;
            significand
                * match data {
                    Data::Usual => random.of(&[0.25, 0.125, 1.0 / 64.0, 1.0 / 1024.0]),
                    Data::Extreme => random.of(&[2f32.powi(-100), 1.0, 2f32.powi(99)]),
                    Data::Anything => random.of(&[2f32.powi(-60), 1.0, f32::NAN, 0.5, 2f32.powi(99)]),
                }
        };
        let block = |random: &mut Random| {
            let scale = scale(random);
            let [first, second]: [[i8; 16]; 2] = core::array::from_fn(|_| match data {
                Data::Extreme => extremes(random, &[127, -127, 0]),
                _ => core::array::from_fn(|_| (random.next() as i8).max(-127)),
            });
            Act8::new(scale, core::array::from_fn(|i| if i < 16 { first[i] } else { second[i - 16] }))
        };
        if dtype.is_float() {
            let mut x: Vec<f32> = (0..k * columns).map(|_| value(random)).collect();
            if dtype == DType::F16 {
                (super::SCALAR.shorten)(&mut x);
            }
            return Self::F32(x);
        }
        let mut blocks: Vec<Act8> = (0..k / BLOCK * columns).map(|_| block(random)).collect();
        let rests: Vec<Act8> =
            (0..blocks.len()).map(|_| block(random)).filter(|rest| !rest.scale.is_nan()).collect();
        // Of all blocks that are finite, of none, or of some; in any order, and numbers that count nothing.
        for (number, block) in (1..).zip(&mut blocks).filter(|(_, block)| !block.scale.is_nan()) {
            block.rest = match precision {
                Precision::Bits8 => 0,
                Precision::Mixed if random.below(3) > 0 => 0,
                Precision::Mixed => {
                    random.of(&[1, number, rests.len() as u32, rests.len() as u32 + 1, u32::MAX])
                }
                Precision::Bits16 => number,
            };
        }
        Self::Q8 { blocks, rests }
    }

    fn view(&self) -> Activations<'_> {
        match self {
            Self::F32(x) => Activations::F32(x),
            Self::Q8 { blocks, rests } => Activations::Q8(Blocks { blocks, rests }),
        }
    }

    /// The terms of value `k` of a column, exactly.
    fn terms(&self, index: usize) -> [f64; 2] {
        let (block, i) = (index / BLOCK, index % BLOCK);
        match self {
            Self::F32(x) => [f64::from(x[index]), 0.0],
            Self::Q8 { blocks, rests } => {
                let rest = (blocks[block].rest as usize).checked_sub(1).and_then(|index| rests.get(index));
                let value = |block: &Act8| f64::from(block.scale) * f64::from(block.q[i]);
                [value(&blocks[block]), rest.map_or(0.0, value)]
            }
        }
    }
}

/// A place that no kernel has written.
const UNTOUCHED: f32 = -12345.678;

/// Size of a layer and of the tiles it is cut into.
#[derive(Debug, Clone, Copy)]
struct Shape {
    rows: usize,
    cols: usize,
    columns: usize,
    tile_width: usize,
    tile_lines: usize,
    /// Whether kernels get the scratch memory they ask for, or none.
    scratch: bool,
}

/// `[columns][rows + 3]`: the layer, and three elements that belong to somebody else.
fn run(table: &Kernels, w: &Matrix<'_>, x: &Activations<'_>, shape: Shape) -> Vec<f32> {
    let mut out = vec![UNTOUCHED; shape.columns * (shape.rows + 3)];
    let scratch_len = if shape.scratch { (table.linear_scratch)(shape.cols) } else { 0 };
    let mut scratch = vec![f32::NAN; scratch_len];
    let tiles = Tiles::new(&mut out, shape.rows + 3, shape.rows, shape.tile_width, shape.tile_lines);
    let jobs = tiles.jobs();
    let skipped = CancelFlag::new();
    let crew = Crew::new(&Serial, &skipped);
    for_each_job(crew, 0..jobs, (tiles,), &mut scratch, scratch_len, |_, (mut tile,), scratch| {
        (table.linear[w.dtype().index()])(w, x, &mut tile, scratch);
    });
    out
}

/// Equal bits, or both NaN.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

fn check(table: &Kernels, dtype: DType, precision: Precision, data: Data, shape: Shape, seed: u64) {
    let mut random = Random(seed);
    let bytes = weights(&mut random, dtype, data, shape.rows, shape.cols);
    let w = Matrix::new(dtype, shape.rows, shape.cols, RawBytes::new(&bytes)).unwrap();
    let inputs = Inputs::new(&mut random, dtype, precision, data, shape.cols, shape.columns);
    let whole = Shape { tile_width: usize::MAX, tile_lines: usize::MAX, ..shape };
    let expected = run(scalar(), &w, &inputs.view(), whole);
    let got = run(table, &w, &inputs.view(), shape);
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let (column, row) = (i / (shape.rows + 3), i % (shape.rows + 3));
        assert!(
            same(*got, *expected),
            "{} {dtype} {precision:?} {data:?} {shape:?}: row {row}, column {column} is {got:e}, not {expected:e}",
            table.name
        );
        assert_eq!(row >= shape.rows, expected.to_bits() == UNTOUCHED.to_bits());
    }
}

/// Values of K worth a look: one block, a few, and what real models have.
fn depths(dtype: DType) -> &'static [usize] {
    match dtype.block().0 {
        256 => &[256, 512, 1536],
        32 => &[32, 64, 96, 576],
        _ => &[1, 7, 16, 33, 100, 576],
    }
}

#[test]
fn all_tables_equal_the_scalar_one_for_every_number_of_rows_and_columns() {
    for table in available() {
        for dtype in DType::ALL {
            for precision in PRECISIONS {
                for rows in 1..=40 {
                    let columns = 1 + (rows * 7 + dtype.index()) % 9;
                    let cols = depths(dtype)[rows % depths(dtype).len()];
                    let shape = Shape { rows, cols, columns, tile_width: 99, tile_lines: 99, scratch: true };
                    check(table, dtype, precision, DATA[rows % 3], shape, rows as u64);
                }
                for columns in 1..=9 {
                    let cols = depths(dtype)[columns % depths(dtype).len()];
                    let shape =
                        Shape { rows: 19, cols, columns, tile_width: 99, tile_lines: 99, scratch: true };
                    for data in DATA {
                        check(table, dtype, precision, data, shape, columns as u64);
                    }
                }
                // Two groups of rows and one that is left, with every way to cut columns into sixes and fours.
                for columns in 9..=20 {
                    let cols = depths(dtype)[columns % depths(dtype).len()];
                    let shape =
                        Shape { rows: 35, cols, columns, tile_width: 99, tile_lines: 99, scratch: true };
                    check(table, dtype, precision, DATA[columns % 3], shape, columns as u64);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tiles_and_scratch_memory_never_change_a_bit(
        (rows, columns) in (1usize..60, 1usize..14),
        (tile_width, tile_lines) in (1usize..40, 1usize..14),
        (depth, dtype, data) in (0usize..6, 0usize..11, 0usize..3),
        (precision, scratch, seed) in (0usize..3, any::<bool>(), any::<u64>()),
    ) {
        let dtype = DType::ALL[dtype];
        let cols = depths(dtype)[depth % depths(dtype).len()];
        let shape = Shape { rows, cols, columns, tile_width, tile_lines, scratch };
        let precision = PRECISIONS[precision];
        for table in available() {
            check(table, dtype, precision, DATA[data], shape, seed);
        }
    }

    /// The bound: with `A` the sum of the absolute values of all products and `u = 2^-24`, each addition to the
    /// accumulator is off by at most `u A`, and each product passes at most six roundings (the weight's scale, the
    /// weight itself, the integer sum as a float, the product of the scales, the product with it).
    #[test]
    fn the_specification_is_close_to_exact_sums(
        (rows, columns, depth, dtype) in (1usize..6, 1usize..11, 0usize..6, 0usize..11),
        (precision, seed) in (0usize..3, any::<u64>()),
    ) {
        let dtype = DType::ALL[dtype];
        let cols = depths(dtype)[depth % depths(dtype).len()];
        let precision = PRECISIONS[precision];
        let mut random = Random(seed);
        let bytes = weights(&mut random, dtype, Data::Usual, rows, cols);
        let w = Matrix::new(dtype, rows, cols, RawBytes::new(&bytes)).unwrap();
        let inputs = Inputs::new(&mut random, dtype, precision, Data::Usual, cols, columns);
        let shape = Shape { rows, cols, columns, tile_width: 99, tile_lines: 99, scratch: true };
        let got = run(scalar(), &w, &inputs.view(), shape);
        let mut values = vec![0.0; cols];
        for row in 0..rows {
            prop_assert_eq!(dequantize_row(dtype, w.row(row), &mut values), cols);
            let peak = values.iter().fold(0.0f32, |peak, v| peak.max(v.abs()));
            for column in 0..columns {
                let (mut exact, mut size) = (0.0, 0.0);
                for (k, v) in values.iter().enumerate() {
                    let terms = inputs.terms(column * cols + k);
                    exact += f64::from(*v) * (terms[0] + terms[1]);
                    // A minimum may cancel what the scale gives, so the size of a product is not that of the value.
                    size += f64::from(if dtype.is_float() { v.abs() } else { 3.0 * peak }) * (terms[0].abs() + terms[1].abs());
                }
                let additions = if dtype.is_float() { cols / 16 + 5 } else { 4 * cols / BLOCK };
                let bound = size * (additions + 6) as f64 * f64::powi(2.0, -24) + 1e-40;
                let error = (f64::from(got[column * (rows + 3) + row]) - exact).abs();
                prop_assert!(error <= bound, "{} is off by {:e}, more than {:e}", dtype, error, bound);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_left_alone() {
    for table in available() {
        for dtype in DType::ALL {
            let mut random = Random(1);
            let cols = 256;
            let bytes = weights(&mut random, dtype, Data::Usual, 20, cols);
            let w = Matrix::new(dtype, 20, cols, RawBytes::new(&bytes)).unwrap();
            let other = if dtype.is_float() { DType::Q8_0 } else { DType::F32 };
            let wrong = Inputs::new(&mut random, other, Precision::Bits8, Data::Usual, cols, 3);
            let right = Inputs::new(&mut random, dtype, Precision::Bits8, Data::Usual, cols, 3);
            // Five columns and 23 rows are asked for; the inputs have three, the matrix has 20.
            let shape = Shape { rows: 23, cols, columns: 5, tile_width: 9, tile_lines: 2, scratch: true };
            assert!(run(table, &w, &wrong.view(), shape).iter().all(|v| *v == UNTOUCHED));
            let out = run(table, &w, &right.view(), shape);
            for (i, v) in out.iter().enumerate() {
                let (column, row) = (i / 26, i % 26);
                assert_eq!(*v != UNTOUCHED, column < 3 && row < 20, "{} {dtype} {column} {row}", table.name);
            }
            let mut out = [UNTOUCHED; 4];
            let mut tile = crate::mem::split::TileMut::whole(&mut out, 4, 4);
            let next = DType::ALL[(dtype.index() + 1) % 11];
            (table.linear[next.index()])(&w, &right.view(), &mut tile, &mut []);
            assert_eq!(out, [UNTOUCHED; 4], "{next} got {dtype}");
        }
    }
}

#[test]
fn tables_are_found_by_name() {
    let names: Vec<_> = available().map(|table| table.name).collect();
    std::println!("tables: {}", names.join(" "));
    assert_eq!(available().next().map(|table| table.name), Some("scalar"));
    for table in available() {
        assert_eq!(by_name(table.name).map(|found| found.name), Some(table.name));
    }
    assert!(by_name("abacus").is_none());
}
