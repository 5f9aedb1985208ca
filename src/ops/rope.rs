//! Rotary position embedding (Su et al. 2021): angles of a batch's positions.

use super::Runner;
use crate::math;
use crate::mem::split::Chunks;

/// Fills `frequencies` with `base^(-2i/dims)` divided by `factor` and by `factors[i]` (empty for ones), each rounded
/// once to `f32`.
pub fn frequencies(dims: usize, base: f32, factor: f32, factors: &[f32], frequencies: &mut [f32]) {
    for (i, frequency) in frequencies.iter_mut().enumerate().take(dims / 2) {
        let exponent = -((2 * i) as f64) / dims as f64;
        let exact = math::pow(f64::from(base), exponent) as f32;
        *frequency = exact / factors.get(i).copied().unwrap_or(1.0) / factor;
    }
}

/// Writes cosines and sines of `position * frequency`, `[columns][cos: half, sin: half]`, a job a column.
pub fn angles(run: Runner<'_>, positions: &[u32], frequencies: &[f32], table: &mut [f32]) {
    let half = frequencies.len();
    run.run((Chunks::new(table, 2 * half),), |job, (line,), _| {
        let (cos, sin) = line.split_at_mut(half.min(line.len()));
        let position = positions.get(job).copied().unwrap_or(0) as f32;
        for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(frequencies) {
            (*sin, *cos) = math::sin_cos(position * frequency);
        }
    });
}
