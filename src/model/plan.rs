//! The memory of a run: sizes from the spec and the limits, before anything is built.

use super::spec::{ModelSpec, NormPlace, Position};
use crate::kernels::{ATTENTION_CHUNK, Kernels};
use crate::kv::{KvCache, KvShape, KvSlot, KvTypes};
use crate::mem::{Arena, MemError, Plan, Slot};
use crate::ops::{Scratch, attention, linear};
use crate::tensor::{Act8, BLOCK, Precision};

/// How finely the input of each kind of linear layer is rounded for quantised weights. Mean KL to 16 bits everywhere on
/// SmolLM2 Q4_1: 2.9e-3 nats with 8 bits, 9.2e-4 with the default, which costs a prompt next to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precisions {
    /// Queries, keys, values.
    pub qkv: Precision,
    /// Attention output.
    pub attention_output: Precision,
    /// Gate and up.
    pub mlp_input: Precision,
    /// Down.
    pub mlp_output: Precision,
    /// Logits.
    pub head: Precision,
}

impl Precisions {
    /// The same for all layers.
    pub const fn all(precision: Precision) -> Self {
        Self {
            qkv: precision,
            attention_output: precision,
            mlp_input: precision,
            mlp_output: precision,
            head: precision,
        }
    }
}

impl Default for Precisions {
    fn default() -> Self {
        Self { head: Precision::Bits16, ..Self::all(Precision::Mixed) }
    }
}

/// What the size of a run depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLimits {
    /// Pages of keys and values, of all layers and of those that see a window.
    pub pages: [usize; 2],
    /// Whether layers that see a window have pages of their own; else all layers share the first kind.
    pub window_apart: bool,
    /// Positions that a column may see at most.
    pub context: usize,
    /// Whether columns may meet what they keep at another distance; see [`super::forward::Batch::turned`].
    pub forgets: bool,
    /// Columns that are computed together.
    pub batch: usize,
    /// Columns whose logits are kept.
    pub logits: usize,
    /// Threads.
    pub workers: usize,
    /// Rounding of activations.
    pub precisions: Precisions,
    /// Storage of keys and values.
    pub kv: KvTypes,
}

impl RunLimits {
    /// Whether a layer's keys and values are in pages of the second kind.
    pub fn is_apart(&self, spec: &ModelSpec, layer: usize) -> bool {
        self.window_apart && spec.layer(layer).window.is_some()
    }

    /// Which of the caches is a layer's, and the layer's place in it.
    pub fn cache(&self, spec: &ModelSpec, layer: usize) -> (usize, usize) {
        let apart = self.is_apart(spec, layer);
        (usize::from(apart), (0..layer).filter(|before| self.is_apart(spec, *before) == apart).count())
    }
}

/// The slots of a run.
#[derive(Debug, Clone, Copy)]
pub struct RunSlots {
    limits: RunLimits,
    scratch_len: usize,
    x: Slot<f32>,
    branch: Slot<f32>,
    values: Slot<f32>,
    hidden: Slot<f32>,
    qkv: Slot<f32>,
    blocks: Slot<Act8>,
    rests: Slot<Act8>,
    frequencies: [Slot<f32>; 2],
    angles: [Slot<f32>; 3],
    scratch: Slot<f32>,
    /// Logits, `[logits][vocab]`.
    pub logits: Slot<f32>,
    /// Keys and values: those of all layers, or of the ones without a window, and those of the ones with one.
    pub kv: [KvSlot; 2],
}

/// The arrays of a run; every array of columns is `[batch][...]`.
#[derive(Debug)]
pub struct RunMemory<'m> {
    pub(crate) limits: RunLimits,
    pub(crate) x: &'m mut [f32],
    pub(crate) branch: &'m mut [f32],
    pub(crate) values: &'m mut [f32],
    /// Of the MLP; before it, partial results of attention.
    pub(crate) hidden: &'m mut [f32],
    pub(crate) qkv: &'m mut [f32],
    pub(crate) blocks: &'m mut [Act8],
    pub(crate) rests: &'m mut [Act8],
    pub(crate) frequencies: [&'m mut [f32]; 2],
    /// Of the full and of the windowed rotation, and of queries turned to meet what is kept.
    pub(crate) angles: [&'m mut [f32]; 3],
    pub(crate) scratch: Scratch<'m>,
    pub(crate) logits: &'m mut [f32],
    pub(crate) kv: [KvCache<'m>; 2],
}

/// `a * b`, checked.
fn times(a: usize, b: usize) -> Result<usize, MemError> {
    a.checked_mul(b).ok_or(MemError::Overflow)
}

impl RunSlots {
    /// Adds a run's arrays to `plan`.
    pub fn plan(
        spec: &ModelSpec,
        limits: RunLimits,
        kernels: &Kernels,
        plan: &mut Plan,
    ) -> Result<Self, MemError> {
        let RunLimits { pages, batch, logits, workers, precisions, kv, .. } = limits;
        let [q_rows, k_rows, v_rows] = spec.qkv_rows();
        let widest = spec.embd.max(spec.attention_width());
        let layers = [
            (precisions.qkv, spec.embd),
            (precisions.attention_output, spec.attention_width()),
            (precisions.mlp_input, spec.embd),
            (precisions.mlp_output, spec.ff),
            (precisions.head, spec.embd),
        ];
        let most = |each: fn(&(Precision, usize)) -> usize| layers.iter().map(each).max().unwrap_or(0);
        let blocks = most(|(_, k)| k / BLOCK);
        let rests = most(|(precision, k)| precision.rests(k / BLOCK));
        let rotated = match spec.position {
            Position::Rope { full, windowed } => {
                [full.dims, if windowed == full { 0 } else { windowed.dims }]
            }
            _ => [0, 0],
        };
        let branch = if spec.norm_place == NormPlace::Before { 0 } else { spec.embd };
        let turned = if limits.forgets { rotated[0] } else { 0 };
        let apart = (0..spec.layers).filter(|layer| limits.is_apart(spec, *layer)).count();
        let shape = |layers, pages| KvShape {
            types: kv,
            layers,
            heads: spec.kv_heads,
            dim_k: spec.dim_k,
            dim_v: spec.dim_v,
            pages,
        };
        // Partial results of attention stand where the MLP has its own later.
        let parts = limits.context.div_ceil(ATTENTION_CHUNK) + if limits.forgets { 2 } else { 0 };
        let slots = times(attention::Rounds::slots(batch, parts), heads(spec).slot())?;
        let scratch_len = scratch_len(spec, batch, kernels)?;
        Ok(Self {
            limits,
            scratch_len,
            x: plan.array(times(batch, spec.embd)?)?,
            branch: plan.array(times(batch, branch)?)?,
            values: plan.array(times(batch, widest)?)?,
            hidden: plan.array(times(batch, spec.ff)?.max(slots))?,
            qkv: plan.array(times(batch, q_rows + k_rows + v_rows)?)?,
            blocks: plan.array(times(batch, blocks)?)?,
            rests: plan.array(times(batch, rests)?)?,
            frequencies: [plan.array(rotated[0] / 2)?, plan.array(rotated[1] / 2)?],
            angles: [
                plan.array(times(batch, rotated[0])?)?,
                plan.array(times(batch, rotated[1])?)?,
                plan.array(times(batch, turned)?)?,
            ],
            scratch: plan.array(times(workers.max(1), scratch_len)?)?,
            logits: plan.array(times(logits, spec.vocab)?)?,
            kv: [
                KvCache::plan(shape(spec.layers - apart, pages[0]), plan)?,
                KvCache::plan(shape(apart, pages[1]), plan)?,
            ],
        })
    }

    /// Carves the arrays, in the order of planning.
    pub fn carve<'m>(&self, arena: &mut Arena<'m>) -> Result<RunMemory<'m>, MemError> {
        let [full, windowed] = self.frequencies;
        let [full_angles, windowed_angles, turned_angles] = self.angles;
        let [kv, windowed_kv] = &self.kv;
        Ok(RunMemory {
            limits: self.limits,
            x: arena.carve(self.x)?,
            branch: arena.carve(self.branch)?,
            values: arena.carve(self.values)?,
            hidden: arena.carve(self.hidden)?,
            qkv: arena.carve(self.qkv)?,
            blocks: arena.carve(self.blocks)?,
            rests: arena.carve(self.rests)?,
            frequencies: [arena.carve(full)?, arena.carve(windowed)?],
            angles: [arena.carve(full_angles)?, arena.carve(windowed_angles)?, arena.carve(turned_angles)?],
            scratch: Scratch { floats: arena.carve(self.scratch)?, len: self.scratch_len },
            logits: arena.carve(self.logits)?,
            kv: [KvCache::carve(arena, kv)?, KvCache::carve(arena, windowed_kv)?],
        })
    }
}

/// The heads of a model, without what differs from layer to layer.
pub(super) fn heads<'w>(spec: &ModelSpec) -> attention::Heads<'w> {
    attention::Heads {
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        dim_k: spec.dim_k,
        dim_v: spec.dim_v,
        qk_norm: None,
        rope: None,
        turned: &[],
        positions: &[],
    }
}

/// Floats of scratch memory of one worker: the most that any phase asks for, in whole cache lines.
fn scratch_len(spec: &ModelSpec, batch: usize, kernels: &Kernels) -> Result<usize, MemError> {
    let heads = heads(spec);
    let longest = spec.embd.max(spec.attention_width()).max(spec.ff);
    let linear = times(linear::scratch(1), batch)?.checked_add((kernels.linear_scratch)(longest));
    let most = linear.ok_or(MemError::Overflow)?.max(heads.scratch(batch)).max(spec.embd);
    most.checked_next_multiple_of(16).ok_or(MemError::Overflow)
}
