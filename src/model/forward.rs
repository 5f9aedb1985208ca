//! The one forward pass: a flat list of phases, each a number of independent jobs.
//!
//! [`Forward::phase`] names phase `i` of the list, [`Pass::units`] counts its units of work, and [`Pass::run`] runs
//! some of them. A session keeps a cursor into the list, so a pass can stop between any two units and go on later; many
//! units at once run as fewer, larger jobs. Nothing of a pass is visible before its last phase: keys and values beyond
//! the session's length are never read.
//!
//! Of the last layer keys and values are all that columns without wanted logits leave behind, so what follows them there is
//! done for the wanted columns alone ([`Pass::first_column`]).
//!
//! Shapes: B columns (tokens of this pass; of the last layer the wanted ones), E `embd`, H heads of `dim_k`, F `ff`, V
//! `vocab`.

use super::names::Role;
use super::phase::{PER_LAYER, Phase};
use super::plan::{self, RunMemory};
use super::spec::{Mlp, ModelSpec, NormKind, NormPlace, Position, QkNorm, QkvLayout, RopeScaling};
use super::weights::Weights;
use crate::kernels::{ATTENTION_CHUNK, KV_BLOCK};
use crate::kv::KvShape;
use crate::kv::pages::{Pages, Table};
use crate::mem::aligned::RawBytes;
use crate::ops::attention::{self, Attending, Heads, RoundJobs, Rounds, Scores, Sight};
use crate::ops::linear::{self, Grid, Into, Layer, Rect};
use crate::ops::norm::{self, Inputs, Norm, Rounding};
use crate::ops::{Tools, embed, rope};
use crate::tensor::Precision;
use core::ops::Range;

/// The tokens of a pass, one a column. Columns may belong to several sequences, in any order; only positions matter.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'t> {
    /// Token ids.
    pub ids: &'t [u32],
    /// Their positions.
    pub positions: &'t [u32],
    /// Their sequences, by their place in `pages`.
    pub sequences: &'t [u32],
    /// First position that each column sees behind what is kept; 0, or nothing, for all.
    pub firsts: &'t [u32],
    /// Where each column's query stands for what is kept, if others are hidden in between.
    pub turned: &'t [u32],
    /// Positions that are kept: seen by all columns.
    pub sinks: usize,
    /// Columns whose logits are wanted: from this one on to the last.
    pub wanted_from: usize,
    /// Tables of pages, of all layers and of those that see a window.
    pub pages: [&'t Pages<'t>; 2],
}

impl<'t> Batch<'t> {
    /// Number of columns whose logits are wanted.
    pub fn wanted(&self) -> usize {
        self.ids.len().saturating_sub(self.wanted_from)
    }

    /// The pages of a column's sequence, of one kind.
    fn table(&self, kind: usize, column: usize) -> Table<'t> {
        let sequence = self.sequences.get(column).map_or(usize::MAX, |sequence| *sequence as usize);
        let [all, windowed] = self.pages;
        if kind == 0 { all.table(sequence) } else { windowed.table(sequence) }
    }

    /// What a column sees, by the pages of one kind, through a layer's window if it has one. What is kept is not seen
    /// through a window once other positions in between are hidden.
    fn sight(&self, kind: usize, window: Option<usize>, column: usize) -> Sight<'t> {
        let table = self.table(kind, column);
        let (pages, first_block) = table.recent();
        let end = self.positions.get(column).map_or(0, |position| *position as usize + 1);
        let hidden = self.firsts.get(column).map_or(0, |first| *first as usize);
        let first = window.map_or(hidden, |window| hidden.max(end.saturating_sub(window)));
        let sinks = if hidden > 0 && window.is_none() { self.sinks } else { 0 };
        Sight { seen: first..end, pages, first_block, sinks, kept: table.kept() }
    }

    /// The page of a column's position, of one kind.
    fn page(&self, kind: usize, column: usize) -> u32 {
        let block = self.positions.get(column).map_or(usize::MAX, |position| *position as usize / KV_BLOCK);
        self.table(kind, column).page(block)
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

    /// How the common input of these matrices is rounded.
    fn rounding(&self, roles: &[Role], layer: usize, precision: Precision) -> Rounding {
        let types = roles.iter().map(|role| self.weights.matrix(*role, layer).dtype());
        Rounding::new(types, precision)
    }

    /// The matrix of a role with its bias.
    fn layer(&self, role: Role, bias: Role, layer: usize) -> Layer<'w> {
        let weight = self.weights.matrix(role, layer).followed_by(self.behind(role, layer));
        Layer { weight, bias: self.weights.vector(bias, layer) }
    }

    /// The weights that a pass reads behind those of a role.
    fn behind(&self, role: Role, layer: usize) -> RawBytes<'w> {
        let gated = self.spec.mlp != Mlp::Plain;
        let first = if self.spec.qkv == QkvLayout::Fused { Role::Qkv } else { Role::Q };
        let (role, layer) = match role {
            Role::Q => (Role::K, layer),
            Role::K => (Role::V, layer),
            Role::Qkv | Role::V => (Role::AttnOut, layer),
            Role::AttnOut => (if gated { Role::Gate } else { Role::Up }, layer),
            Role::Gate | Role::Up => (Role::Down, layer),
            Role::Down if layer + 1 < self.spec.layers => (first, layer + 1),
            Role::Down => (self.head_role(), 0),
            _ => (first, 0),
        };
        self.weights.matrix(role, layer).bytes()
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

    /// The heads of a layer, whose columns have these positions; `angles` of the full and the windowed rotation, and of
    /// queries turned to meet what is kept.
    fn heads<'x>(&self, layer: usize, positions: &'x [u32], angles: [&'x [f32]; 3]) -> Heads<'x>
    where
        'w: 'x,
    {
        let (spec, weights) = (self.spec, self.weights);
        let norm = |role| {
            let weight = weights.vector(role, layer);
            Norm { centred: false, weight, bias: &[], eps: spec.norm_eps }
        };
        let normed = spec.qk_norm == QkNorm::PerHead;
        let [full_angles, windowed_angles, turned] = angles;
        let rope = match (spec.layer(layer).rope, spec.position) {
            (Some(rope), Position::Rope { full, .. }) => {
                let table = if rope == full { full_angles } else { windowed_angles };
                Some((rope.pairs, table, rope.dims / 2))
            }
            _ => None,
        };
        let qk_norm = normed.then(|| (norm(Role::QNorm), norm(Role::KNorm)));
        Heads { qk_norm, rope, turned, positions, ..plan::heads(spec) }
    }

    /// Floats of the partial results of one column and part.
    fn slot(&self) -> usize {
        plan::heads(self.spec).slot()
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
    /// Runs `units` of `phase`. Phases run in the order of the list, each with all its units before the next one.
    pub fn run(&mut self, phase: Phase, units: Range<usize>) {
        match phase {
            Phase::Embed => self.embed(units),
            Phase::Angles => self.angles(units),
            Phase::AttnNorm(layer) => self.attn_norm(layer, units),
            Phase::Store(layer) => self.store(layer, units),
            Phase::Attend(layer) => self.attention(layer, false, units),
            Phase::AttnRound(layer) => self.attention(layer, true, units),
            Phase::FfnNorm(layer) => self.ffn_norm(layer, units),
            Phase::FfnRound(layer) => self.ffn_round(layer, units),
            Phase::OutNorm => self.out_norm(units),
            Phase::Qkv(_) | Phase::AttnOut(_) | Phase::FfnIn(_) | Phase::FfnOut(_) | Phase::Head => {
                for rect in self.grid(phase).rects(units) {
                    let rect = rect.shared(self.tools.crew.workers);
                    if rect.jobs() > 0 {
                        self.linear(phase, &rect);
                    }
                }
            }
        }
    }

    /// A rectangle of a linear layer's output.
    fn linear(&mut self, phase: Phase, rect: &Rect) {
        match phase {
            Phase::Qkv(layer) => self.qkv(layer, rect),
            Phase::AttnOut(layer) => self.attn_out(layer, rect),
            Phase::FfnIn(layer) => self.ffn_in(layer, rect),
            Phase::FfnOut(layer) => self.ffn_out(layer, rect),
            _ => self.head(rect),
        }
    }

    /// The first column that a phase works on.
    pub fn first_column(&self, phase: Phase) -> usize {
        let last = phase.layer().is_none_or(|layer| layer + 1 == self.forward.spec.layers);
        match last && phase.kind() > Phase::Store(0).kind() {
            true => self.batch.wanted_from.min(self.batch.ids.len()),
            false => 0,
        }
    }

    /// Number of columns that a phase works on.
    fn columns(&self, phase: Phase) -> usize {
        self.batch.ids.len() - self.first_column(phase)
    }

    /// Number of units of work of a phase.
    pub fn units(&self, phase: Phase) -> usize {
        let (spec, columns) = (self.forward.spec, self.columns(phase));
        match phase {
            Phase::Embed | Phase::AttnNorm(_) | Phase::FfnNorm(_) | Phase::AttnRound(_) | Phase::OutNorm => {
                columns
            }
            Phase::Angles if matches!(spec.position, Position::Rope { .. }) => columns,
            Phase::Angles => 0,
            Phase::Store(_) => columns.div_ceil(KV_BLOCK),
            Phase::Attend(layer) => self.rounds(layer).units(),
            Phase::FfnRound(layer) if self.ffn_rounding(layer).is_none() => 0,
            Phase::FfnRound(_) => columns,
            Phase::Qkv(_) | Phase::AttnOut(_) | Phase::FfnIn(_) | Phase::FfnOut(_) | Phase::Head => {
                self.grid(phase).units()
            }
        }
    }

    /// Multiplications of a unit, roughly: how units of different phases compare.
    pub fn work(&self, phase: Phase) -> usize {
        let spec = self.forward.spec;
        match phase {
            Phase::Embed | Phase::Angles => spec.embd,
            Phase::AttnNorm(_) | Phase::FfnNorm(_) | Phase::OutNorm => 8 * spec.embd,
            Phase::AttnRound(_) => 8 * spec.attention_width(),
            Phase::FfnRound(_) => 4 * spec.ff,
            Phase::Store(_) => 4 * KV_BLOCK * spec.kv_heads * (spec.dim_k + spec.dim_v),
            Phase::Attend(_) => ATTENTION_CHUNK * spec.group() * (spec.dim_k + spec.dim_v),
            Phase::Qkv(_) | Phase::AttnOut(_) | Phase::FfnIn(_) | Phase::FfnOut(_) | Phase::Head => {
                self.grid(phase).work()
            }
        }
    }

    /// The units of a linear layer.
    fn grid(&self, phase: Phase) -> Grid {
        let (spec, columns) = (self.forward.spec, self.columns(phase));
        match phase {
            Phase::Qkv(_) => Grid::new(spec.qkv_rows().iter().sum(), spec.embd, columns),
            Phase::AttnOut(_) => Grid::new(spec.embd, spec.attention_width(), columns),
            Phase::FfnIn(_) if spec.mlp == Mlp::Plain => Grid::new(spec.ff, spec.embd, columns),
            Phase::FfnIn(_) => Grid::new(spec.ff, 2 * spec.embd, columns),
            Phase::FfnOut(_) => Grid::new(spec.embd, spec.ff, columns),
            Phase::Head => Grid::new(spec.vocab, spec.embd, columns),
            _ => Grid::new(0, 0, 0),
        }
    }

    /// How the parts of what the columns see share the slots.
    fn rounds(&self, layer: usize) -> Rounds {
        let (spec, limits) = (self.forward.spec, &self.memory.limits);
        let (kind, window) = (limits.cache(spec, layer).0, spec.layer(layer).window);
        let columns = self.first_column(Phase::Attend(layer))..self.batch.ids.len();
        let parts = columns.clone().map(|column| self.batch.sight(kind, window, column).parts()).max();
        let slots = self.memory.hidden.len() / self.forward.slot().max(1);
        Rounds::new(columns.len(), spec.kv_heads, parts.unwrap_or(0), slots)
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
        let RunMemory { frequencies: [full, windowed], angles, scratch, .. } = &mut *self.memory;
        let [full_angles, windowed_angles, turned_angles] = angles;
        let Batch { positions, turned, .. } = self.batch;
        for (positions, frequencies, angles) in [
            (positions, &*full, full_angles),
            (positions, &*windowed, windowed_angles),
            (turned, &*full, turned_angles),
        ] {
            if !frequencies.is_empty() && !angles.is_empty() {
                let run = self.tools.runner(scratch, jobs.clone());
                rope::angles(run, positions, frequencies, angles);
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
        let rounding = self.forward.rounding(roles, layer, self.memory.limits.precisions.qkv);
        let first = self.first_column(Phase::AttnNorm(layer));
        self.norm_and_round(behind, (Role::AttnNorm, Role::AttnNormBias, layer), rounding, first, jobs);
    }

    /// x += norm(branch) of the attention; values = norm(x), rounded   [B][E]
    fn ffn_norm(&mut self, layer: usize, jobs: Range<usize>) {
        let around = self.forward.spec.norm_place == NormPlace::Around;
        let behind = around.then_some((Role::PostAttnNorm, layer));
        let gated = self.forward.spec.mlp != Mlp::Plain;
        let roles: &[Role] = if gated { &[Role::Gate, Role::Up] } else { &[Role::Up] };
        let rounding = self.forward.rounding(roles, layer, self.memory.limits.precisions.mlp_input);
        let first = self.first_column(Phase::FfnNorm(layer));
        self.norm_and_round(behind, (Role::FfnNorm, Role::FfnNormBias, layer), rounding, first, jobs);
    }

    /// values = norm(x) of the wanted columns, rounded   [wanted][E]
    fn out_norm(&mut self, jobs: Range<usize>) {
        let around = self.forward.spec.norm_place == NormPlace::Around;
        let behind = around.then(|| (Role::PostFfnNorm, self.forward.spec.layers - 1));
        let roles = [self.forward.head_role()];
        let rounding = self.forward.rounding(&roles, 0, self.memory.limits.precisions.head);
        let before = (Role::OutputNorm, Role::OutputNormBias, 0);
        self.norm_and_round(behind, before, rounding, self.first_column(Phase::OutNorm), jobs);
    }

    fn norm_and_round(
        &mut self,
        behind: Option<(Role, usize)>,
        (weight, bias, layer): (Role, Role, usize),
        rounding: Rounding,
        from: usize,
        jobs: Range<usize>,
    ) {
        let forward = self.forward;
        let embd = forward.spec.embd;
        let before = forward.norm(weight, Some(bias), layer);
        let behind = behind.map(|(role, layer)| forward.norm(role, None, layer));
        let RunMemory { x, branch, values, blocks, rests, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, jobs);
        let x = x.get_mut(from * embd..).unwrap_or_default();
        let branch = branch.get(from * embd..).unwrap_or_default();
        let branch = behind.as_ref().map(|behind| (branch, behind));
        norm::norm_and_round(run, embd, x, branch, &before, rounding, &mut Inputs { values, blocks, rests });
    }

    /// qkv = Wqkv values + b   [B][(H + 2 KV) dim]
    fn qkv(&mut self, layer: usize, rect: &Rect) {
        let forward = self.forward;
        let [q, k, v] = forward.spec.qkv_rows();
        let stride = q + k + v;
        let (fused, separate);
        let layers: &[Layer<'_>] = match forward.spec.qkv {
            QkvLayout::Fused => {
                fused = [forward.layer(Role::Qkv, Role::QkvBias, layer)];
                &fused
            }
            QkvLayout::Separate => {
                separate = [(Role::Q, Role::QBias), (Role::K, Role::KBias), (Role::V, Role::VBias)]
                    .map(|(role, bias)| forward.layer(role, bias, layer));
                &separate
            }
        };
        let len = self.columns(Phase::Qkv(layer)) * stride;
        let RunMemory { values, blocks, rests, qkv, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, 0..rect.jobs());
        linear::stacked(run, rect, layers, &Inputs { values, blocks, rests }, stride, first(qkv, len));
    }

    /// cache[p] = rotate(norm(k)), v   [KV][16 positions a page]
    fn store(&mut self, layer: usize, units: Range<usize>) {
        let batch = self.batch;
        let (kind, place) = self.memory.limits.cache(self.forward.spec, layer);
        let columns = units.start * KV_BLOCK..(units.end * KV_BLOCK).min(self.columns(Phase::Store(layer)));
        let RunMemory { qkv, kv, angles, scratch, .. } = &mut *self.memory;
        let Some(kv) = kv.get_mut(kind) else { return };
        let run = self.tools.runner(scratch, 0..self.forward.spec.kv_heads);
        let heads = self.forward.heads(layer, batch.positions, angles.each_ref().map(|angles| &**angles));
        let page = |column| batch.page(kind, column);
        let KvShape { types, pages, .. } = kv.shape();
        let (bytes, layer) = kv.layer_mut(place);
        attention::store(run, &heads, columns, qkv, page, types, (bytes, pages, layer));
    }

    /// slots = partial results of softmax(q K^T * scale) V   [B][slots][H (dim_v + 2)], or, to finish, values = what they
    /// come to, rounded   [B][H dim_v]
    fn attention(&mut self, layer: usize, finish: bool, units: Range<usize>) {
        let (forward, batch, rounds, tools) = (self.forward, self.batch, self.rounds(layer), self.tools);
        let spec = forward.spec;
        let (from, batch_limit) = (self.first_column(Phase::Attend(layer)), self.memory.limits.batch);
        let columns = self.columns(Phase::Attend(layer));
        let len = columns * spec.attention_width();
        let precision = self.memory.limits.precisions.attention_output;
        let rounding = forward.rounding(&[Role::AttnOut], layer, precision);
        let (kind, place) = self.memory.limits.cache(spec, layer);
        let RunMemory { qkv, kv, angles, values, hidden: slots, blocks, rests, scratch, .. } =
            &mut *self.memory;
        let Some(kv) = kv.get(kind) else { return };
        let heads = forward.heads(layer, batch.positions, angles.each_ref().map(|angles| &**angles));
        let scores = Scores { scale: spec.attention_scale, softcap: spec.attention_softcap };
        let cache = |head, pages| kv.head(place, head, pages);
        let sight = |column| batch.sight(kind, spec.layer(layer).window, from + column);
        let attending =
            Attending { heads: &heads, scores: &scores, qkv, from, cache: &cache, sight: &sight, rounds };
        if finish {
            let inputs = &mut Inputs { values: first(values, len), blocks, rests };
            return attending.finish(tools.runner(scratch, units), rounding, slots, inputs);
        }
        // Larger jobs only where there are enough of them for all threads.
        let together = heads.together(batch_limit);
        let enough = columns.checked_div(together).unwrap_or(0) * spec.kv_heads >= 4 * tools.crew.workers;
        let together = if enough { together } else { 1 };
        rounds.each(units, |jobs| match jobs {
            RoundJobs::Attend(round, jobs) => {
                for (jobs, together) in rounds.cut(jobs, together) {
                    if !jobs.is_empty() {
                        attending.attend(tools.runner(scratch, jobs), round, together, slots);
                    }
                }
            }
            RoundJobs::Merge(round, jobs) => attending.merge(tools.runner(scratch, jobs), round, slots),
        });
    }

    /// x += Wo values + b, or branch = Wo values + b   [B][E]
    fn attn_out(&mut self, layer: usize, rect: &Rect) {
        let output = self.forward.layer(Role::AttnOut, Role::AttnOutBias, layer);
        self.project(Phase::AttnOut(layer), &output, rect);
    }

    /// hidden = f(Wgate values) * (Wup values), or f(Wup values + b)   [B][F]
    fn ffn_in(&mut self, layer: usize, rect: &Rect) {
        let (forward, spec) = (self.forward, self.forward.spec);
        let up = forward.layer(Role::Up, Role::UpBias, layer);
        let gate = (spec.mlp != Mlp::Plain).then(|| forward.layer(Role::Gate, Role::GateBias, layer));
        let len = self.columns(Phase::FfnIn(layer)) * spec.ff;
        let RunMemory { values, blocks, rests, hidden, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, 0..rect.jobs());
        let inputs = Inputs { values, blocks, rests };
        linear::mlp(run, rect, gate.as_ref(), &up, spec.activation, &inputs, first(hidden, len));
    }

    fn ffn_rounding(&self, layer: usize) -> Rounding {
        self.forward.rounding(&[Role::Down], layer, self.memory.limits.precisions.mlp_output)
    }

    /// hidden, rounded   [B][F]
    fn ffn_round(&mut self, layer: usize, jobs: Range<usize>) {
        let rounding = self.ffn_rounding(layer);
        let RunMemory { hidden, blocks, rests, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, jobs);
        norm::round_columns(
            run,
            self.forward.spec.ff,
            rounding,
            &mut Inputs { values: hidden, blocks, rests },
        );
    }

    /// x += Wdown hidden + b, or branch = Wdown hidden + b   [B][E]
    fn ffn_out(&mut self, layer: usize, rect: &Rect) {
        let down = self.forward.layer(Role::Down, Role::DownBias, layer);
        self.project(Phase::FfnOut(layer), &down, rect);
    }

    fn project(&mut self, phase: Phase, layer: &Layer<'_>, rect: &Rect) {
        let embd = self.forward.spec.embd;
        let (from, len) = (self.first_column(phase) * embd, self.columns(phase) * embd);
        let from_hidden = matches!(phase, Phase::FfnOut(_));
        let around = self.forward.spec.norm_place == NormPlace::Around;
        let RunMemory { x, branch, values, hidden, blocks, rests, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, 0..rect.jobs());
        let inputs = Inputs { values: if from_hidden { hidden } else { values }, blocks, rests };
        let (out, into) = if around { (branch, Into::Overwrite) } else { (x, Into::Add) };
        linear::project(run, rect, layer, &inputs, into, first(out.get_mut(from..).unwrap_or_default(), len));
    }

    /// logits = cap(Whead values * scale)   [wanted][V]
    fn head(&mut self, rect: &Rect) {
        let spec = self.forward.spec;
        let role = self.forward.head_role();
        let weight = self.forward.weights.matrix(role, 0).followed_by(self.forward.behind(role, 0));
        let layer = Layer { weight, bias: &[] };
        let len = self.batch.wanted() * spec.vocab;
        let RunMemory { values, blocks, rests, logits, scratch, .. } = &mut *self.memory;
        let run = self.tools.runner(scratch, 0..rect.jobs());
        let inputs = Inputs { values, blocks, rests };
        linear::head(run, rect, &layer, &inputs, spec.logit_scale, spec.logit_softcap, first(logits, len));
    }
}

/// The first `len` elements; all of a shorter array.
fn first<T>(array: &mut [T], len: usize) -> &mut [T] {
    let len = len.min(array.len());
    array.get_mut(..len).unwrap_or_default()
}
