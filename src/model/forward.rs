//! The one forward pass: a flat list of phases, each a number of independent jobs.
//!
//! [`Forward::phase`] names phase `i` of the list, [`Forward::jobs`] counts its jobs, and [`Pass::run`] runs some of
//! them. A session keeps a cursor into the list, so a pass can stop between any two jobs and go on later. Nothing of a
//! pass is visible before its last phase: keys and values beyond the session's length are never read.
//!
//! Shapes: B columns (tokens of this pass), E `embd`, H heads of `dim_k`, F `ff`, V `vocab`.

use super::names::Role;
use super::plan::RunMemory;
use super::spec::{Mlp, ModelSpec, NormKind, NormPlace, Position, QkNorm, QkvLayout, RopeScaling};
use super::weights::Weights;
use crate::kernels::KV_BLOCK;
use crate::kv::pages::{MISSING, Pages};
use crate::ops::attention::{self, Heads, Scores};
use crate::ops::linear::{self, Into, Layer};
use crate::ops::norm::{self, Inputs, Norm};
use crate::ops::{Tools, embed, rope};
use crate::tensor::Precision;
use core::ops::Range;

/// One phase of a pass, with its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// x = embedding. A job a column.
    Embed,
    /// Angles of the rotations. A job a column.
    Angles,
    /// values = norm(x), rounded. A job a column.
    AttnNorm(usize),
    /// qkv = Wqkv values. A job a tile of rows.
    Qkv(usize),
    /// K and V of the columns go to the cache. A job a KV head.
    Store(usize),
    /// values = attention(q, cache). A job a column and KV head.
    Attend(usize),
    /// values rounded. A job a column.
    AttnRound(usize),
    /// x += Wo values, or branch = Wo values where a norm follows. A job a tile of rows.
    AttnOut(usize),
    /// values = norm(x), rounded. A job a column.
    FfnNorm(usize),
    /// hidden = f(Wgate values) * (Wup values). A job a tile of rows.
    FfnIn(usize),
    /// hidden rounded. A job a column.
    FfnRound(usize),
    /// x += Wdown hidden, or branch = Wdown hidden. A job a tile of rows.
    FfnOut(usize),
    /// values = norm(x) of the wanted columns, rounded. A job a wanted column.
    OutNorm,
    /// logits = Whead values. A job a tile of rows.
    Head,
}

const PER_LAYER: [fn(usize) -> Phase; 10] = [
    Phase::AttnNorm,
    Phase::Qkv,
    Phase::Store,
    Phase::Attend,
    Phase::AttnRound,
    Phase::AttnOut,
    Phase::FfnNorm,
    Phase::FfnIn,
    Phase::FfnRound,
    Phase::FfnOut,
];

/// The tokens of a pass, one a column. Columns may belong to several sequences, in any order; only positions matter.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'t> {
    /// Token ids.
    pub ids: &'t [u32],
    /// Their positions.
    pub positions: &'t [u32],
    /// Their sequences, by their place in `pages`.
    pub sequences: &'t [u32],
    /// Columns whose logits are wanted: from this one on to the last.
    pub wanted_from: usize,
    /// Tables of pages.
    pub pages: &'t Pages<'t>,
}

impl<'t> Batch<'t> {
    /// Number of columns whose logits are wanted.
    pub fn wanted(&self) -> usize {
        self.ids.len().saturating_sub(self.wanted_from)
    }

    /// The table of pages of a column's sequence.
    fn table(&self, column: usize) -> &'t [u32] {
        self.pages.table(self.sequences.get(column).map_or(usize::MAX, |sequence| *sequence as usize))
    }

    /// The page of a column's position.
    fn page(&self, column: usize) -> u32 {
        let block = self.positions.get(column).map_or(usize::MAX, |position| *position as usize / KV_BLOCK);
        self.table(column).get(block).copied().unwrap_or(MISSING)
    }
}

/// A model, ready to run.
#[derive(Debug, Clone, Copy)]
pub struct Forward<'w> {
    /// Its descriptor.
    pub spec: &'w ModelSpec,
    /// Its weights.
    pub weights: &'w Weights<'w>,
}

impl<'w> Forward<'w> {
    /// Number of phases.
    pub fn phases(&self) -> usize {
        2 + PER_LAYER.len() * self.spec.layers + 2
    }

    /// Phase `index`; `None` behind the last.
    pub fn phase(&self, index: usize) -> Option<Phase> {
        let layers = PER_LAYER.len() * self.spec.layers;
        match index {
            0 => Some(Phase::Embed),
            1 => Some(Phase::Angles),
            _ if index - 2 < layers => {
                let (layer, place) = ((index - 2) / PER_LAYER.len(), (index - 2) % PER_LAYER.len());
                PER_LAYER.get(place).map(|phase| phase(layer))
            }
            _ if index - 2 == layers => Some(Phase::OutNorm),
            _ if index - 2 == layers + 1 => Some(Phase::Head),
            _ => None,
        }
    }

    /// Number of jobs of a phase.
    pub fn jobs(&self, phase: Phase, batch: &Batch<'_>) -> usize {
        let (spec, columns) = (self.spec, batch.ids.len());
        match phase {
            Phase::Embed | Phase::AttnNorm(_) | Phase::FfnNorm(_) => columns,
            Phase::Angles if matches!(spec.position, Position::Rope { .. }) => columns,
            Phase::Angles => 0,
            Phase::Qkv(_) => linear::jobs(spec.qkv_rows().iter().sum()),
            Phase::Store(_) => spec.kv_heads,
            Phase::Attend(_) => columns * spec.kv_heads,
            Phase::AttnRound(layer) if self.float(&[Role::AttnOut], layer) => 0,
            Phase::FfnRound(layer) if self.float(&[Role::Down], layer) => 0,
            Phase::AttnRound(_) | Phase::FfnRound(_) => columns,
            Phase::AttnOut(_) | Phase::FfnOut(_) => linear::jobs(spec.embd),
            Phase::FfnIn(_) => linear::jobs(spec.ff),
            Phase::OutNorm => batch.wanted(),
            Phase::Head if batch.wanted() == 0 => 0,
            Phase::Head => linear::jobs(spec.vocab),
        }
    }

    /// Fills the tables that depend on the model alone. Once, before the first pass.
    pub fn prepare(&self, memory: &mut RunMemory<'_>) {
        let Position::Rope { full, windowed } = self.spec.position else { return };
        for (rope, table) in [full, windowed].into_iter().zip(&mut memory.frequencies) {
            let (factor, factors) = match rope.scaling {
                RopeScaling::Linear(factor) => (factor, &[][..]),
                RopeScaling::Factors => (1.0, self.weights.vector(Role::RopeFactors, 0)),
                _ => (1.0, &[][..]),
            };
            rope::frequencies(rope.dims, rope.base, factor, factors, table);
        }
    }

    /// Whether all of these matrices hold plain floats, which need no rounded input.
    fn float(&self, roles: &[Role], layer: usize) -> bool {
        roles.iter().all(|role| self.weights.matrix(*role, layer).dtype().is_float())
    }

    /// The matrix of a role with its bias.
    fn layer(&self, role: Role, bias: Role, layer: usize, precision: Precision) -> Layer<'w> {
        Layer { weight: self.weights.matrix(role, layer), bias: self.weights.vector(bias, layer), precision }
    }

    /// The norm of two roles; `None` for a place where the model has no norm: nothing is changed there.
    fn norm(&self, weight: Role, bias: Option<Role>, layer: usize) -> Norm<'w> {
        let bias = bias.map_or(&[][..], |bias| self.weights.vector(bias, layer));
        let centred = self.spec.norm != NormKind::Rms;
        Norm { centred, weight: self.weights.vector(weight, layer), bias, eps: self.spec.norm_eps }
    }

    /// The matrix that makes logits.
    fn head_role(&self) -> Role {
        if self.spec.tied { Role::TokenEmbd } else { Role::Output }
    }

    /// The heads of a layer, whose columns have these positions; `angles` of the full and the windowed rotation.
    fn heads<'x>(&self, layer: usize, positions: &'x [u32], angles: [&'x [f32]; 2]) -> Heads<'x>
    where
        'w: 'x,
    {
        let spec = self.spec;
        let weights = self.weights;
        let norm = |role| Norm {
            centred: false,
            weight: weights.vector(role, layer),
            bias: &[],
            eps: spec.norm_eps,
        };
        let normed = spec.qk_norm == QkNorm::PerHead;
        let rope = match (spec.layer(layer).rope, spec.position) {
            (Some(rope), Position::Rope { full, .. }) => {
                let table = if rope == full { angles[0] } else { angles[1] };
                Some((rope.pairs, table, rope.dims / 2))
            }
            _ => None,
        };
        Heads {
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            dim_k: spec.dim_k,
            dim_v: spec.dim_v,
            qk_norm: normed.then(|| (norm(Role::QNorm), norm(Role::KNorm))),
            rope,
            positions,
        }
    }
}

/// A forward pass in its memory, on its threads.
pub struct Pass<'p, 'm> {
    /// The model.
    pub forward: Forward<'p>,
    /// Its tokens.
    pub batch: Batch<'p>,
    /// Arrays.
    pub memory: &'p mut RunMemory<'m>,
    /// Threads and kernels.
    pub tools: Tools<'p>,
}

impl Pass<'_, '_> {
    /// Runs `jobs` of `phase`. Phases run in the order of the list, each with all its jobs before the next one.
    pub fn run(&mut self, phase: Phase, jobs: Range<usize>) {
        match phase {
            Phase::Embed => self.embed(jobs),
            Phase::Angles => self.angles(jobs),
            Phase::AttnNorm(layer) => self.attn_norm(layer, jobs),
            Phase::Qkv(layer) => self.qkv(layer, jobs),
            Phase::Store(layer) => self.store(layer, jobs),
            Phase::Attend(layer) => self.attend(layer, jobs),
            Phase::AttnRound(_) => self.attn_round(jobs),
            Phase::AttnOut(layer) => self.attn_out(layer, jobs),
            Phase::FfnNorm(layer) => self.ffn_norm(layer, jobs),
            Phase::FfnIn(layer) => self.ffn_in(layer, jobs),
            Phase::FfnRound(_) => self.ffn_round(jobs),
            Phase::FfnOut(layer) => self.ffn_out(layer, jobs),
            Phase::OutNorm => self.out_norm(jobs),
            Phase::Head => self.head(jobs),
        }
    }

    fn columns(&self) -> usize {
        self.batch.ids.len()
    }

    /// x = table[id] * embed_scale (+ positions[p])   [B][E]
    fn embed(&mut self, jobs: Range<usize>) {
        let Forward { spec, weights } = self.forward;
        let tokens = weights.matrix(Role::TokenEmbd, 0);
        let positions = weights.matrix(Role::PositionEmbd, 0);
        let positions = (spec.position == Position::Learned).then_some((&positions, self.batch.positions));
        let RunMemory { x, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, jobs);
        embed::embed(run, self.batch.ids, &tokens, spec.embed_scale, positions, x);
    }

    /// angles = cos, sin of position * frequency   [B][dims]
    fn angles(&mut self, jobs: Range<usize>) {
        let RunMemory { frequencies, angles, scratch, .. } = &mut *self.memory;
        for (frequencies, angles) in frequencies.iter().zip(angles) {
            if !frequencies.is_empty() {
                rope::angles(
                    self.tools.runner(scratch, jobs.clone()),
                    self.batch.positions,
                    frequencies,
                    angles,
                );
            }
        }
    }

    /// x += norm(branch) of the layer before; values = norm(x), rounded   [B][E]
    fn attn_norm(&mut self, layer: usize, jobs: Range<usize>) {
        let around = self.forward.spec.norm_place == NormPlace::Around;
        let behind = (around && layer > 0).then(|| (Role::PostFfnNorm, layer - 1));
        let roles: &[Role] = match self.forward.spec.qkv {
            QkvLayout::Fused => &[Role::Qkv],
            QkvLayout::Separate => &[Role::Q, Role::K, Role::V],
        };
        let precision = self.memory.limits.precisions.qkv;
        let round_to = (!self.forward.float(roles, layer)).then_some(precision);
        self.norm_and_round(behind, (Role::AttnNorm, Role::AttnNormBias, layer), round_to, 0, jobs);
    }

    /// x += norm(branch) of the attention; values = norm(x), rounded   [B][E]
    fn ffn_norm(&mut self, layer: usize, jobs: Range<usize>) {
        let around = self.forward.spec.norm_place == NormPlace::Around;
        let behind = around.then_some((Role::PostAttnNorm, layer));
        let gated = self.forward.spec.mlp != Mlp::Plain;
        let roles: &[Role] = if gated { &[Role::Gate, Role::Up] } else { &[Role::Up] };
        let precision = self.memory.limits.precisions.mlp_input;
        let round_to = (!self.forward.float(roles, layer)).then_some(precision);
        self.norm_and_round(behind, (Role::FfnNorm, Role::FfnNormBias, layer), round_to, 0, jobs);
    }

    /// values = norm(x) of the wanted columns, rounded   [wanted][E]
    fn out_norm(&mut self, jobs: Range<usize>) {
        let around = self.forward.spec.norm_place == NormPlace::Around;
        let behind = around.then(|| (Role::PostFfnNorm, self.forward.spec.layers - 1));
        let precision = self.memory.limits.precisions.head;
        let round_to = (!self.forward.float(&[self.forward.head_role()], 0)).then_some(precision);
        let before = (Role::OutputNorm, Role::OutputNormBias, 0);
        self.norm_and_round(behind, before, round_to, self.batch.wanted_from, jobs);
    }

    fn norm_and_round(
        &mut self,
        behind: Option<(Role, usize)>,
        (weight, bias, layer): (Role, Role, usize),
        round_to: Option<Precision>,
        from: usize,
        jobs: Range<usize>,
    ) {
        let forward = self.forward;
        let embd = forward.spec.embd;
        let before = forward.norm(weight, Some(bias), layer);
        let behind = behind.map(|(role, layer)| forward.norm(role, None, layer));
        let RunMemory { x, branch, values, q8, q16, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, jobs);
        let x = x.get_mut(from * embd..).unwrap_or_default();
        let branch = branch.get(from * embd..).unwrap_or_default();
        let branch = behind.as_ref().map(|behind| (branch, behind));
        norm::norm_and_round(run, embd, x, branch, &before, round_to, &mut Inputs { values, q8, q16 });
    }

    /// qkv = Wqkv values + b   [B][(H + 2 KV) dim]
    fn qkv(&mut self, layer: usize, jobs: Range<usize>) {
        let forward = self.forward;
        let precision = self.memory.limits.precisions.qkv;
        let [q, k, v] = forward.spec.qkv_rows();
        let stride = q + k + v;
        let (fused, separate);
        let layers: &[Layer<'_>] = match forward.spec.qkv {
            QkvLayout::Fused => {
                fused = [forward.layer(Role::Qkv, Role::QkvBias, layer, precision)];
                &fused
            }
            QkvLayout::Separate => {
                separate = [(Role::Q, Role::QBias), (Role::K, Role::KBias), (Role::V, Role::VBias)]
                    .map(|(role, bias)| forward.layer(role, bias, layer, precision));
                &separate
            }
        };
        let len = self.columns() * stride;
        let RunMemory { values, q8, q16, qkv, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, jobs);
        linear::stacked(run, layers, &Inputs { values, q8, q16 }, stride, first(qkv, len));
    }

    /// cache[p] = rotate(norm(k)), v   [KV][16 positions a page]
    fn store(&mut self, layer: usize, jobs: Range<usize>) {
        let batch = self.batch;
        let RunMemory { qkv, kv, angles, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, jobs);
        let heads = self.forward.heads(layer, batch.positions, [&*angles[0], &*angles[1]]);
        let page = |column| batch.page(column);
        attention::store(run, &heads, qkv, page, kv.shape().types, kv.layer_mut(layer));
    }

    /// values = softmax(q K^T * scale) V   [B][H dim_v]
    fn attend(&mut self, layer: usize, jobs: Range<usize>) {
        let (batch, spec) = (self.batch, self.forward.spec);
        let len = self.columns() * spec.attention_width();
        let scores = Scores {
            scale: spec.attention_scale,
            softcap: spec.attention_softcap,
            window: spec.layer(layer).window,
        };
        let RunMemory { qkv, kv, angles, values, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, jobs);
        let heads = self.forward.heads(layer, batch.positions, [&*angles[0], &*angles[1]]);
        let (out, kv) = (first(values, len), &*kv);
        let cache = |column, head| kv.head(layer, head, batch.table(column));
        attention::attend(run, &heads, &scores, qkv, cache, out);
    }

    /// values, rounded   [B][H dim_v]
    fn attn_round(&mut self, jobs: Range<usize>) {
        let precision = self.memory.limits.precisions.attention_output;
        let RunMemory { values, q8, q16, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, jobs);
        let width = self.forward.spec.attention_width();
        norm::round_columns(run, width, precision, &mut Inputs { values, q8, q16 });
    }

    /// x += Wo values + b, or branch = Wo values + b   [B][E]
    fn attn_out(&mut self, layer: usize, jobs: Range<usize>) {
        let precision = self.memory.limits.precisions.attention_output;
        let output = self.forward.layer(Role::AttnOut, Role::AttnOutBias, layer, precision);
        self.project(&output, false, jobs);
    }

    /// hidden = f(Wgate values) * (Wup values), or f(Wup values + b)   [B][F]
    fn ffn_in(&mut self, layer: usize, jobs: Range<usize>) {
        let (forward, spec) = (self.forward, self.forward.spec);
        let precision = self.memory.limits.precisions.mlp_input;
        let up = forward.layer(Role::Up, Role::UpBias, layer, precision);
        let gate =
            (spec.mlp != Mlp::Plain).then(|| forward.layer(Role::Gate, Role::GateBias, layer, precision));
        let len = self.columns() * spec.ff;
        let RunMemory { values, q8, q16, hidden, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, jobs);
        let inputs = Inputs { values, q8, q16 };
        linear::mlp(run, gate.as_ref(), &up, spec.activation, &inputs, first(hidden, len));
    }

    /// hidden, rounded   [B][F]
    fn ffn_round(&mut self, jobs: Range<usize>) {
        let precision = self.memory.limits.precisions.mlp_output;
        let RunMemory { hidden, q8, q16, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, jobs);
        norm::round_columns(run, self.forward.spec.ff, precision, &mut Inputs { values: hidden, q8, q16 });
    }

    /// x += Wdown hidden + b, or branch = Wdown hidden + b   [B][E]
    fn ffn_out(&mut self, layer: usize, jobs: Range<usize>) {
        let precision = self.memory.limits.precisions.mlp_output;
        let down = self.forward.layer(Role::Down, Role::DownBias, layer, precision);
        self.project(&down, true, jobs);
    }

    fn project(&mut self, layer: &Layer<'_>, from_hidden: bool, jobs: Range<usize>) {
        let len = self.columns() * self.forward.spec.embd;
        let around = self.forward.spec.norm_place == NormPlace::Around;
        let RunMemory { x, branch, values, hidden, q8, q16, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, jobs);
        let inputs = Inputs { values: if from_hidden { hidden } else { values }, q8, q16 };
        let (out, into) = if around { (branch, Into::Overwrite) } else { (x, Into::Add) };
        linear::project(run, layer, &inputs, into, first(out, len));
    }

    /// logits = cap(Whead values * scale)   [wanted][V]
    fn head(&mut self, jobs: Range<usize>) {
        let spec = self.forward.spec;
        let precision = self.memory.limits.precisions.head;
        let weight = self.forward.weights.matrix(self.forward.head_role(), 0);
        let layer = Layer { weight, bias: &[], precision };
        let len = self.batch.wanted() * spec.vocab;
        let RunMemory { values, q8, q16, logits, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, jobs);
        let inputs = Inputs { values, q8, q16 };
        linear::head(run, &layer, &inputs, spec.logit_scale, spec.logit_softcap, first(logits, len));
    }
}

/// The first `len` elements; all of a shorter array.
fn first<T>(array: &mut [T], len: usize) -> &mut [T] {
    let len = len.min(array.len());
    array.get_mut(..len).unwrap_or_default()
}
