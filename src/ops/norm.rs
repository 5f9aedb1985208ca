//! Norms, and the rounding of a layer's input.

use super::{Runner, column};
use crate::kernels::Kernels;
use crate::mem::split::Chunks;
use crate::tensor::{Act8, Activations, BLOCK, Blocks, DType, Precision};

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
    pub blocks: &'m mut [Act8],
    /// What rounding left of some blocks, `[columns][Precision::rests(stride / 32)]`.
    pub rests: &'m mut [Act8],
}

impl Inputs<'_> {
    /// What a layer with weights of this kind reads.
    pub fn get(&self, float: bool) -> Activations<'_> {
        match float {
            true => Activations::F32(self.values),
            false => Activations::Q8(Blocks { blocks: self.blocks, rests: self.rests }),
        }
    }
}

/// What the types of some layers' weights ask of their common input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rounding {
    /// Blocks of integers, for quantised weights.
    pub blocks: Option<Precision>,
    /// Floats of few bits, for F16. Layers of F32 that share the input get these as well.
    pub short: bool,
}

impl Rounding {
    /// For weights of these types, in layers of this precision.
    pub fn new(types: impl IntoIterator<Item = DType>, precision: Precision) -> Self {
        types.into_iter().fold(Self::default(), |rounding, dtype| match dtype {
            DType::F16 => Self { short: true, ..rounding },
            dtype if dtype.is_float() => rounding,
            _ => Self { blocks: Some(precision), ..rounding },
        })
    }

    /// Whether there is nothing to do.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Rests of a column of `k` values.
    pub(super) fn rests(self, k: usize) -> usize {
        self.blocks.map_or(0, |precision| precision.rests(k / BLOCK))
    }

    /// Rounds column number `column`, whose rests are to stand in `rests`.
    pub(super) fn round(
        self,
        kernels: &Kernels,
        column: usize,
        values: &mut [f32],
        blocks: &mut [Act8],
        rests: &mut [Act8],
    ) {
        if let Some(precision) = self.blocks {
            let first = column.saturating_mul(self.rests(values.len()));
            (kernels.quantize)(values, precision, blocks, rests, first);
        }
        if self.short {
            (kernels.shorten)(values);
        }
    }
}

/// Writes the input of a linear layer, a job a column: adds the pending `branch` to the residual stream `x` (normed by
/// `behind` if there is such a norm), then `values = before(x)`, then rounds it.
#[allow(clippy::too_many_arguments)]
pub fn norm_and_round(
    run: Runner<'_>,
    k: usize,
    x: &mut [f32],
    branch: Option<(&[f32], &Norm<'_>)>,
    before: &Norm<'_>,
    rounding: Rounding,
    inputs: &mut Inputs<'_>,
) {
    let kernels = run.kernels();
    let parts = (
        Chunks::new(x, k),
        Chunks::new(inputs.values, k),
        Chunks::new(inputs.blocks, k / BLOCK),
        Chunks::new(inputs.rests, rounding.rests(k)),
    );
    run.run(parts, |job, (x, values, blocks, rests), _| {
        if let Some((branch, behind)) = branch {
            behind.apply(kernels, column(branch, job, k), values);
            (kernels.add)(x, values);
        }
        before.apply(kernels, x, values);
        rounding.round(kernels, job, values, blocks, rests);
    });
}

/// Rounds columns of `k` values that stand in `inputs.values` already, a job a column.
pub fn round_columns(run: Runner<'_>, k: usize, rounding: Rounding, inputs: &mut Inputs<'_>) {
    let kernels = run.kernels();
    let parts = (
        Chunks::new(inputs.values, k),
        Chunks::new(inputs.blocks, k / BLOCK),
        Chunks::new(inputs.rests, rounding.rests(k)),
    );
    run.run(parts, |job, (values, blocks, rests), _| rounding.round(kernels, job, values, blocks, rests));
}
