//! Norms, and the rounding of a layer's input.

use super::{Runner, column};
use crate::kernels::Kernels;
use crate::mem::split::Chunks;
use crate::tensor::{Act8, Act16, Activations, BLOCK, Precision};

/// A norm with its parameters.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'w> {
    /// Mean and variance instead of the root mean square.
    pub centred: bool,
    /// Empty for ones.
    pub weight: &'w [f32],
    /// Empty for zeros.
    pub bias: &'w [f32],
    /// Added under the root.
    pub eps: f32,
}

impl Norm<'_> {
    /// `out = norm(x)`.
    pub fn apply(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        match self.centred {
            true => (kernels.layer_norm)(x, self.weight, self.bias, self.eps, out),
            false => (kernels.rms_norm)(x, self.weight, self.eps, out),
        }
    }
}

/// The input of linear layers in all forms that their weights may ask for: floats, and rounded blocks.
#[derive(Debug)]
pub struct Inputs<'m> {
    /// `[columns][stride]`.
    pub values: &'m mut [f32],
    /// `[columns][stride / 32]`.
    pub q8: &'m mut [Act8],
    /// `[columns][stride / 32]`.
    pub q16: &'m mut [Act16],
}

impl Inputs<'_> {
    /// What a layer with weights of this kind reads.
    pub fn get(&self, float: bool, precision: Precision) -> Activations<'_> {
        match (float, precision) {
            (true, _) => Activations::F32(self.values),
            (_, Precision::Bits8) => Activations::Q8(self.q8),
            (_, Precision::Bits16) => Activations::Q16(self.q16),
        }
    }
}

/// Rounds one column for quantised weights.
pub(super) fn round(
    kernels: &Kernels,
    precision: Precision,
    values: &[f32],
    q8: &mut [Act8],
    q16: &mut [Act16],
) {
    match precision {
        Precision::Bits8 => (kernels.quantize8)(values, q8),
        Precision::Bits16 => (kernels.quantize16)(values, q16),
    }
}

/// Writes the input of a linear layer, a job a column: adds the pending `branch` to the residual stream `x` (normed by
/// `behind` if there is such a norm), then `values = before(x)`, then rounds it unless `round_to` is `None`.
#[allow(clippy::too_many_arguments)]
pub fn norm_and_round(
    run: Runner<'_>,
    k: usize,
    x: &mut [f32],
    branch: Option<(&[f32], &Norm<'_>)>,
    before: &Norm<'_>,
    round_to: Option<Precision>,
    inputs: &mut Inputs<'_>,
) {
    let kernels = run.kernels();
    let parts = (
        Chunks::new(x, k),
        Chunks::new(inputs.values, k),
        Chunks::new(inputs.q8, k / BLOCK),
        Chunks::new(inputs.q16, k / BLOCK),
    );
    run.run(parts, |job, (x, values, q8, q16), _| {
        if let Some((branch, behind)) = branch {
            behind.apply(kernels, column(branch, job, k), values);
            (kernels.add)(x, values);
        }
        before.apply(kernels, x, values);
        if let Some(precision) = round_to {
            round(kernels, precision, values, q8, q16);
        }
    });
}

/// Rounds columns of `k` values that stand in `inputs.values` already, a job a column.
pub fn round_columns(run: Runner<'_>, k: usize, precision: Precision, inputs: &mut Inputs<'_>) {
    let kernels = run.kernels();
    let values: &[f32] = inputs.values;
    let parts = (Chunks::new(inputs.q8, k / BLOCK), Chunks::new(inputs.q16, k / BLOCK));
    run.run(parts, |job, (q8, q16), _| round(kernels, precision, column(values, job, k), q8, q16));
}
