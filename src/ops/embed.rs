//! Embedding: one row of a table a token.

use super::Runner;
use crate::mem::split::Chunks;
use crate::tensor::{Matrix, dequant};

/// Writes `x[column] = tokens[token] * scale (+ positions[p])`, a job a column. Token ids and positions
/// were checked against the tables.
pub fn embed(
    run: Runner<'_>,
    ids: &[u32],
    tokens: &Matrix<'_>,
    scale: f32,
    positions: Option<(&Matrix<'_>, &[u32])>,
    x: &mut [f32],
) {
    let (stride, kernels) = (tokens.cols(), run.kernels());
    run.run((Chunks::new(x, stride),), |job, (x,), scratch| {
        let id = ids.get(job).map_or(0, |id| *id as usize);
        dequant::dequantize_row(tokens.dtype(), tokens.row(id), x);
        if scale != 1.0 {
            (kernels.scale)(x, scale);
        }
        if let (Some((table, positions)), Some(row)) = (positions, scratch.get_mut(..stride)) {
            let position = positions.get(job).map_or(0, |position| *position as usize);
            dequant::dequantize_row(table.dtype(), table.row(position), row);
            (kernels.add)(x, row);
        }
    });
}
