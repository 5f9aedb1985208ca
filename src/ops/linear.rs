//! Linear layers over tiles of rows, with what follows them done while a tile is in the cache.

use super::Runner;
use super::norm::Inputs;
use crate::kernels::{Activation, Kernels};
use crate::mem::split::{TileMut, Tiles};
use crate::tensor::Matrix;
use core::ops::Range;

/// Rows of a tile: a multiple of every kernel's row group.
pub const TILE_ROWS: usize = 32;

/// Multiplications of a unit at most, if one column of [`LEAST_ROWS`] rows has no more: about 100 µs on a machine that
/// does 10^9 operations a second.
const UNIT_WORK: usize = 50_000;

/// Fewest rows of a unit: with less, kernels would work on rows of padding.
const LEAST_ROWS: usize = 8;

/// Fewest columns that are a job of their own: with less, turning the weights of a tile costs too much.
const LEAST_COLUMNS: usize = 60;

/// Columns of a job are a multiple of what kernels take at once, six or four.
const COLUMNS_ALIGN: usize = 12;

/// Jobs that each of several threads is to have: one more or less is little then.
const JOBS: usize = 8;

/// Most tiles of rows of a job, counted once for each of its columns: what begins with a call of a kernel serves more rows
/// then, which counts where there are few columns.
const MOST_TILES: usize = 4;

/// Multiplications of a job of several tiles at most: a flag that ends a call is looked at between jobs.
const JOB_WORK: usize = 4 * UNIT_WORK;

/// Floats of scratch memory of a worker for `columns` columns, beside the kernel's own.
pub fn scratch(columns: usize) -> usize {
    TILE_ROWS * columns.max(MOST_TILES)
}

/// A linear layer cut into units, small enough that a step may stop between any two: some rows of some columns. They
/// are numbered row tile by row tile. Whoever runs many neighbouring units runs them as larger [`Rect`]s, so the cut
/// costs nothing where nobody stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    rows: usize,
    columns: usize,
    unit_rows: usize,
    unit_columns: usize,
    k: usize,
}

/// A rectangle of a layer's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rect {
    /// Rows of the matrix.
    pub rows: Range<usize>,
    /// Columns, that is tokens.
    pub columns: Range<usize>,
    /// Multiplications of a row and column.
    k: usize,
    /// Most rows of a job.
    job_rows: usize,
    /// Most columns of a job.
    job_columns: usize,
}

impl Grid {
    /// A layer of `rows` rows with `k` multiplications a row and column, over `columns` columns.
    pub fn new(rows: usize, k: usize, columns: usize) -> Self {
        let k = k.max(1);
        let mut unit_rows = TILE_ROWS;
        while unit_rows > LEAST_ROWS && unit_rows * k > UNIT_WORK {
            unit_rows /= 2;
        }
        Self {
            rows,
            columns,
            unit_rows,
            unit_columns: UNIT_WORK.checked_div(unit_rows * k).unwrap_or(1).max(1),
            k,
        }
    }

    /// Units of one row tile.
    fn across(&self) -> usize {
        self.columns.div_ceil(self.unit_columns.max(1))
    }

    /// Number of units.
    pub fn units(&self) -> usize {
        self.rows.div_ceil(self.unit_rows.max(1)) * self.across()
    }

    /// Multiplications of a unit.
    pub fn work(&self) -> usize {
        self.unit_rows * self.unit_columns.min(self.columns) * self.k
    }

    /// What the given units are together: the end of a row tile, whole row tiles, and the beginning of one, each of
    /// which may be empty.
    pub fn rects(&self, units: Range<usize>) -> [Rect; 3] {
        let across = self.across().max(1);
        let rect = |from: usize, to: usize, first: usize, last: usize| Rect {
            rows: (from * self.unit_rows).min(self.rows)..(to * self.unit_rows).min(self.rows),
            columns: (first * self.unit_columns).min(self.columns)
                ..(last * self.unit_columns).min(self.columns),
            k: self.k,
            job_rows: TILE_ROWS,
            job_columns: usize::MAX,
        };
        let (first, last) = (units.start / across, units.end / across);
        let (begin, end) = (units.start % across, units.end % across);
        if first == last {
            return [rect(first, first + 1, begin, end), rect(0, 0, 0, 0), rect(0, 0, 0, 0)];
        }
        let whole = first + usize::from(begin > 0);
        let head = if begin > 0 { rect(first, first + 1, begin, across) } else { rect(0, 0, 0, 0) };
        let tail = if end > 0 { rect(last, last + 1, 0, end) } else { rect(0, 0, 0, 0) };
        [head, rect(whole, last, 0, across), tail]
    }
}

impl Rect {
    /// The same in jobs for so many threads. Few columns take several tiles of rows at a time. Where there are too few
    /// tiles for the threads, columns are shared too: each job turns the weights of its tile for itself, so columns stay
    /// together as long as they can.
    pub fn shared(self, workers: usize) -> Self {
        let tiles = self.rows.len().div_ceil(TILE_ROWS);
        let jobs = workers.saturating_mul(JOBS);
        let enough = if workers > 1 { tiles / jobs.max(1) } else { tiles };
        let tile_work = TILE_ROWS.saturating_mul(self.k).saturating_mul(self.columns.len());
        let work = JOB_WORK / tile_work.max(1);
        let job_tiles = (MOST_TILES / self.columns.len().max(1)).min(enough).min(work).max(1);
        let pieces = jobs.div_ceil(tiles.max(1));
        if workers < 2 || pieces < 2 {
            return Self { job_rows: TILE_ROWS * job_tiles, ..self };
        }
        let columns = self.columns.len().div_ceil(pieces).max(LEAST_COLUMNS);
        Self { job_columns: columns.next_multiple_of(COLUMNS_ALIGN), ..self }
    }

    /// Number of jobs it is cut into: tiles of rows and all columns, or those of one thread.
    pub fn jobs(&self) -> usize {
        self.rows.len().div_ceil(self.job_rows.max(1)) * self.columns.len().div_ceil(self.job_columns.max(1))
    }

    /// The tiles of this rectangle in `out: [columns][stride]`.
    fn tiles<'a>(&self, out: &'a mut [f32], stride: usize) -> Tiles<'a, f32> {
        Tiles::new(out, stride, stride, self.job_rows, self.job_columns.min(self.columns.len()))
            .within(self.rows.clone(), self.columns.clone())
    }
}

/// A matrix with its bias; an empty bias counts as zeros.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'w> {
    /// `[rows][k]`.
    pub weight: Matrix<'w>,
    /// `[rows]`.
    pub bias: &'w [f32],
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
        let x = inputs.get(dtype.is_float());
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

/// Several matrices as one row space: `out[column] = (first; second; ...) * input`, in the rectangle. A job is a tile of
/// rows.
pub fn stacked(
    run: Runner<'_>,
    rect: &Rect,
    layers: &[Layer<'_>],
    inputs: &Inputs<'_>,
    stride: usize,
    out: &mut [f32],
) {
    let kernels = run.kernels();
    run.run((rect.tiles(out, stride),), |_, (mut tile,), scratch| {
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

/// One layer: `out (+)= weight * input + bias`, in the rectangle. A job is a tile of rows.
pub fn project(
    run: Runner<'_>,
    rect: &Rect,
    layer: &Layer<'_>,
    inputs: &Inputs<'_>,
    into: Into,
    out: &mut [f32],
) {
    let (kernels, stride) = (run.kernels(), layer.weight.rows());
    run.run((rect.tiles(out, stride),), |_, (mut tile,), scratch| {
        if into == Into::Overwrite {
            return layer.apply(kernels, inputs, &mut tile, scratch);
        }
        let Some((result, scratch)) = scratch.split_at_mut_checked(tile.lines() * rect.job_rows) else {
            return;
        };
        let mut result = TileMut::at(result, rect.job_rows, tile.width(), tile.first(), tile.first_line());
        layer.apply(kernels, inputs, &mut result, scratch);
        (kernels.add_tile)(&mut tile, &mut result);
    });
}

/// The first half of an MLP: `out = f(gate * input) * (up * input)`, or `f(up * input)` without a gate, in the
/// rectangle. A job is a tile of rows.
pub fn mlp(
    run: Runner<'_>,
    rect: &Rect,
    gate: Option<&Layer<'_>>,
    up: &Layer<'_>,
    f: Activation,
    inputs: &Inputs<'_>,
    out: &mut [f32],
) {
    let (kernels, stride) = (run.kernels(), up.weight.rows());
    run.run((rect.tiles(out, stride),), |_, (mut tile,), scratch| {
        let Some(gate) = gate else {
            up.apply(kernels, inputs, &mut tile, scratch);
            (0..tile.lines()).for_each(|line| (kernels.activate)(f, tile.line(line)));
            return;
        };
        let Some((result, scratch)) = scratch.split_at_mut_checked(tile.lines() * rect.job_rows) else {
            return;
        };
        let mut result = TileMut::at(result, rect.job_rows, tile.width(), tile.first(), tile.first_line());
        up.apply(kernels, inputs, &mut result, scratch);
        gate.apply(kernels, inputs, &mut tile, scratch);
        for line in 0..tile.lines() {
            (kernels.activate_mul)(f, tile.line(line), result.line(line));
        }
    });
}

/// The head: `logits[column] = weight * inputs[column]`, scaled and soft-capped, in the rectangle. A job is a tile of
/// rows.
pub fn head(
    run: Runner<'_>,
    rect: &Rect,
    layer: &Layer<'_>,
    inputs: &Inputs<'_>,
    scale: f32,
    softcap: f32,
    logits: &mut [f32],
) {
    let (kernels, stride) = (run.kernels(), layer.weight.rows());
    run.run((rect.tiles(logits, stride),), |_, (mut tile,), scratch| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_shared_where_tiles_are_few() {
        let rect = |rows, columns| Grid::new(rows, 576, columns).rects(0..usize::MAX / 2)[1].clone();
        for (rows, columns, workers, expected) in [
            (576, 192, 1, usize::MAX),
            (576, 192, 2, usize::MAX),
            (576, 192, 4, 96),
            (576, 192, 8, 60),
            (64, 192, 2, 60),
            (64, 30, 2, 60),
        ] {
            let shared = rect(rows, columns).shared(workers);
            assert_eq!(shared.job_columns, expected, "{rows} rows, {columns} columns, {workers} threads");
            let jobs = rows.div_ceil(TILE_ROWS) * columns.div_ceil(expected);
            assert_eq!(shared.jobs(), jobs);
        }
    }

    #[test]
    fn few_columns_take_several_tiles() {
        for (rows, k, columns, workers, expected) in [
            (576, 576, 1, 1, 128),
            (576, 576, 2, 1, 64),
            (576, 576, 3, 1, 32),
            (576, 576, 1, 2, 32),
            (1536, 576, 1, 2, 96),
            (49152, 576, 1, 2, 128),
            (64, 576, 1, 1, 64),
            (2048, 2048, 1, 1, 96),
            (2048, 5632, 1, 1, 32),
        ] {
            let rect = Grid::new(rows, k, columns).rects(0..usize::MAX / 2)[1].clone().shared(workers);
            assert_eq!(rect.job_rows, expected, "{rows} x {k}, {columns} columns, {workers} threads");
            assert_eq!(rect.jobs(), rows.div_ceil(expected));
            assert!(rect.job_rows * columns <= scratch(columns));
        }
    }

    #[test]
    fn any_cut_of_the_units_covers_every_element_once() {
        extern crate std;
        use std::vec;
        for (rows, k, columns) in [(100, 576, 7), (33, 3000, 2), (8, 40, 5), (64, 6000, 3), (1, 1, 1)] {
            let grid = Grid::new(rows, k, columns);
            for step in [1, 2, 3, 5, grid.units().max(1)] {
                let mut seen = vec![0; rows * columns];
                let mut unit = 0;
                while unit < grid.units() {
                    let next = (unit + step).min(grid.units());
                    for rect in grid.rects(unit..next) {
                        let columns_of = |row: usize| rect.columns.clone().map(move |c| row * columns + c);
                        rect.rows.clone().flat_map(columns_of).for_each(|i| seen[i] += 1);
                    }
                    unit = next;
                }
                assert!(seen.iter().all(|times| *times == 1), "{grid:?} in steps of {step}");
            }
            let all = grid.rects(0..grid.units());
            assert_eq!((&all[1].rows, &all[1].columns), (&(0..rows), &(0..columns)), "all are one rectangle");
            assert!(grid.work() <= UNIT_WORK.max(LEAST_ROWS * k));
        }
    }
}
