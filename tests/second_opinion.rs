//! Linear layers beside another implementation of the product of matrices: the crate `gemm`, in double precision, over
//! the numbers that stand for the stored weights and the rounded activations.
#![cfg(target_arch = "x86_64")]

use locutor::kernels;
use locutor::mem::aligned::RawBytes;
use locutor::mem::split::TileMut;
use locutor::ops::linear::TILE_ROWS;
use locutor::tensor::dequant::dequantize_row;
use locutor::tensor::{Act8, Activations, BLOCK, Blocks, DType, Matrix, Precision};

/// `[rows][cols]` times `[columns][cols]`, transposed: `[columns][rows]`.
fn product(weights: &[f64], inputs: &[f64], cols: usize) -> Vec<f64> {
    let (rows, columns) = (weights.len() / cols, inputs.len() / cols);
    let mut out = vec![0.0f64; rows * columns];
    let (of_rows, of_cols) = (rows as isize, cols as isize);
    // SAFETY: the strides stay within the slices: `out` is [columns][rows], the others [rows][cols] and [columns][cols].
    unsafe {
        gemm::gemm(
            rows,
            columns,
            cols,
            out.as_mut_ptr(),
            of_rows,
            1,
            false,
            weights.as_ptr(),
            1,
            of_cols,
            inputs.as_ptr(),
            of_cols,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    out
}

/// Numbers from -1 to 1 that look random.
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f32 / (1u64 << 30) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Bytes of weights whose scales are normal f16 numbers of modest size, and floats likewise.
fn weights(dtype: DType, len: usize) -> Vec<u8> {
    if dtype == DType::F32 {
        return numbers(len / 4, 7).into_iter().flat_map(f32::to_le_bytes).collect();
    }
    let noise = numbers(len, 9).into_iter().map(|x| (x * 1e6) as i32 as u8);
    noise.enumerate().map(|(i, byte)| if i % 2 == 1 { 0x28 | byte & 0x87 } else { byte }).collect()
}

fn nmse(ours: &[f32], truth: &[f64]) -> f64 {
    let error: f64 = ours.iter().zip(truth).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    error / truth.iter().map(|x| x * x).sum::<f64>()
}

/// Rounded columns, and what they stand for.
fn integers<'x>(blocks: &'x [Act8], rests: &'x [Act8]) -> (Activations<'x>, Vec<f64>) {
    let values = |block: &Act8| block.q.map(|q| f64::from(block.scale) * f64::from(q));
    let mut all = Vec::new();
    for block in blocks {
        let rest = if block.rest == 0 { [0.0; BLOCK] } else { values(&rests[block.rest as usize - 1]) };
        all.extend(values(block).iter().zip(rest).map(|(value, rest)| value + rest));
    }
    (Activations::Q8(Blocks { blocks, rests }), all)
}

#[test]
fn linear_layers_are_products_of_matrices() {
    const ROWS: usize = 72; // Whole tiles and a part of one.
    const COLS: usize = 768;
    for dtype in DType::ALL {
        let row = dtype.row_bytes(COLS).unwrap();
        let bytes = weights(dtype, row * ROWS);
        let mut values = vec![0.0f32; ROWS * COLS];
        for (values, bytes) in values.chunks_exact_mut(COLS).zip(bytes.chunks_exact(row)) {
            assert_eq!(dequantize_row(dtype, RawBytes::new(bytes), values), COLS);
        }
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        let matrix = Matrix::new(dtype, ROWS, COLS, RawBytes::new(&bytes)).unwrap();
        for columns in [1, 3, 8, 33] {
            let x = numbers(COLS * columns, 3 + columns as u64);
            for table in kernels::available() {
                let mut x = x.clone();
                if dtype != DType::F32 {
                    (table.shorten)(&mut x);
                }
                let rounded = [Precision::Bits8, Precision::Mixed, Precision::Bits16].map(|precision| {
                    let mut blocks = vec![Act8::new(0.0, [0; BLOCK]); x.len() / BLOCK];
                    let mut rests = blocks.clone();
                    (table.quantize)(&x, precision, &mut blocks, &mut rests, 0);
                    (blocks, rests)
                });
                let inputs: Vec<(Activations<'_>, Vec<f64>)> = match dtype.is_float() {
                    true => vec![(Activations::F32(&x), x.iter().copied().map(f64::from).collect())],
                    false => rounded.iter().map(|(blocks, rests)| integers(blocks, rests)).collect(),
                };
                for (x, rounded) in inputs {
                    let truth = product(&values, &rounded, COLS);
                    let mut scratch = vec![0.0; (table.linear_scratch)(COLS)];
                    let mut ours = vec![0.0f32; ROWS * columns];
                    for first in (0..ROWS).step_by(TILE_ROWS) {
                        let width = TILE_ROWS.min(ROWS - first);
                        let mut tile = vec![0.0; width * columns];
                        let mut lines = TileMut::at(&mut tile, width, width, first, 0);
                        (table.linear[dtype.index()])(&matrix, &x, &mut lines, &mut scratch);
                        for (line, tile) in ours.chunks_exact_mut(ROWS).zip(tile.chunks_exact(width)) {
                            line[first..first + width].copy_from_slice(tile);
                        }
                    }
                    let nmse = nmse(&ours, &truth);
                    assert!(nmse < 1e-12, "{} {dtype:?}, {columns} columns: {nmse:.1e}", table.name);
                }
            }
        }
    }
}
