//! Linear layers over tiles of rows, with what follows them done while a tile is in the cache.

use super::Runner;
use super::norm::Inputs;
use crate::kernels::{Activation, Kernels};
use crate::mem::split::{TileMut, Tiles};
use crate::tensor::{Matrix, Precision};

/// Rows of a tile: a multiple of every kernel's row group.
pub const TILE_ROWS: usize = 32;

/// Number of jobs of a linear layer of `rows` rows.
pub fn jobs(rows: usize) -> usize {
    rows.div_ceil(TILE_ROWS)
}

/// Floats of scratch memory of a worker for `columns` columns, beside the kernel's own.
pub fn scratch(columns: usize) -> usize {
    TILE_ROWS * columns
}

/// A matrix with its bias; an empty bias counts as zeros.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'w> {
    /// `[rows][k]`.
    pub weight: Matrix<'w>,
    /// `[rows]`.
    pub bias: &'w [f32],
    /// How finely its input is rounded.
    pub precision: Precision,
}

impl Layer<'_> {
    /// `tile = weight * input + bias`, columns of the input from the tile's first line on.
    fn apply(
        &self,
        kernels: &Kernels,
        inputs: &Inputs<'_>,
        tile: &mut TileMut<'_, f32>,
        scratch: &mut [f32],
    ) {
        let dtype = self.weight.dtype();
        let x = inputs.get(dtype.is_float(), self.precision);
        if let Some(linear) = kernels.linear.get(dtype.index()) {
            linear(&self.weight, &x, tile, scratch);
        }
        let bias = self.bias.get(tile.first()..).unwrap_or_default();
        if !bias.is_empty() {
            for line in 0..tile.lines() {
                (kernels.add)(tile.line(line), bias);
            }
        }
    }
}

/// Several matrices as one row space: `out[column] = (first; second; ...) * input`. A job is a tile of rows.
pub fn stacked(run: Runner<'_>, layers: &[Layer<'_>], inputs: &Inputs<'_>, stride: usize, out: &mut [f32]) {
    let (kernels, columns) = (run.kernels(), out.len() / stride.max(1));
    run.run((Tiles::new(out, stride, stride, TILE_ROWS, columns),), |_, (mut tile,), scratch| {
        let mut start = 0;
        for layer in layers {
            let end = start + layer.weight.rows();
            let (from, to) = (tile.first().max(start), (tile.first() + tile.width()).min(end));
            if from < to {
                let mut part = tile.part(from, to, start);
                layer.apply(kernels, inputs, &mut part, scratch);
            }
            start = end;
        }
    });
}

/// What is done with the result of a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// `out = result`.
    Overwrite,
    /// `out += result`.
    Add,
}

/// One layer: `out (+)= weight * input + bias`. A job is a tile of rows.
pub fn project(run: Runner<'_>, layer: &Layer<'_>, inputs: &Inputs<'_>, into: Into, out: &mut [f32]) {
    let (kernels, stride) = (run.kernels(), layer.weight.rows());
    let columns = out.len() / stride.max(1);
    run.run((Tiles::new(out, stride, stride, TILE_ROWS, columns),), |_, (mut tile,), scratch| {
        if into == Into::Overwrite {
            return layer.apply(kernels, inputs, &mut tile, scratch);
        }
        let Some((result, scratch)) = scratch.split_at_mut_checked(tile.lines() * TILE_ROWS) else { return };
        let mut result = TileMut::at(result, TILE_ROWS, tile.width(), tile.first(), tile.first_line());
        layer.apply(kernels, inputs, &mut result, scratch);
        for line in 0..tile.lines() {
            (kernels.add)(tile.line(line), result.line(line));
        }
    });
}

/// The first half of an MLP: `out = f(gate * input) * (up * input)`, or `f(up * input)` without a gate.
pub fn mlp(
    run: Runner<'_>,
    gate: Option<&Layer<'_>>,
    up: &Layer<'_>,
    f: Activation,
    inputs: &Inputs<'_>,
    out: &mut [f32],
) {
    let (kernels, stride) = (run.kernels(), up.weight.rows());
    let columns = out.len() / stride.max(1);
    run.run((Tiles::new(out, stride, stride, TILE_ROWS, columns),), |_, (mut tile,), scratch| {
        let Some(gate) = gate else {
            up.apply(kernels, inputs, &mut tile, scratch);
            (0..tile.lines()).for_each(|line| (kernels.activate)(f, tile.line(line)));
            return;
        };
        let Some((result, scratch)) = scratch.split_at_mut_checked(tile.lines() * TILE_ROWS) else { return };
        let mut result = TileMut::at(result, TILE_ROWS, tile.width(), tile.first(), tile.first_line());
        up.apply(kernels, inputs, &mut result, scratch);
        gate.apply(kernels, inputs, &mut tile, scratch);
        for line in 0..tile.lines() {
            (kernels.activate_mul)(f, tile.line(line), result.line(line));
        }
    });
}

/// The head: `logits[row] = weight * inputs[first + row]`, scaled and soft-capped.
pub fn head(
    run: Runner<'_>,
    layer: &Layer<'_>,
    inputs: &Inputs<'_>,
    scale: f32,
    softcap: f32,
    logits: &mut [f32],
) {
    let (kernels, stride) = (run.kernels(), layer.weight.rows());
    let columns = logits.len() / stride.max(1);
    run.run((Tiles::new(logits, stride, stride, TILE_ROWS, columns),), |_, (mut tile,), scratch| {
        layer.apply(kernels, inputs, &mut tile, scratch);
        for line in 0..tile.lines() {
            if scale != 1.0 {
                (kernels.scale)(tile.line(line), scale);
            }
            if softcap > 0.0 {
                (kernels.softcap)(tile.line(line), softcap);
            }
        }
    });
}
