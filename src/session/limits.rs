//! What a session may use, and what that costs: exactly, before anything is built.

use super::Error;
use super::policy::{ContextPolicy, Policy, SLACK, View};
use super::sequence::{SequenceState, States};
use super::text::{TextTools, ToolSlots};
use crate::kernels::{self, KV_BLOCK, Kernels};
use crate::kv::pages::{PageLimits, PageSlots};
use crate::kv::{KvSlot, KvType, KvTypes, Pages};
use crate::mem::{Arena, MemError, ObjectSlot, Plan, Slot};
use crate::model::forward::Batch;
use crate::model::plan::{Precisions, RunLimits, RunMemory, RunSlots};
use crate::model::{Model, ModelHeader, ModelSpec};
use crate::sample::Candidate;

/// Limits of a session. They fix its memory; nothing in it grows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub(super) context: usize,
    pub(super) sequences: usize,
    pub(super) positions: usize,
    pub(super) batch: usize,
    pub(super) logits: usize,
    pub(super) threads: usize,
    pub(super) decode_threads: usize,
    pub(super) policy: ContextPolicy,
    pub(super) text_bytes: usize,
    pub(super) stops: (usize, usize),
    pub(super) precisions: Precisions,
    pub(super) kv: KvTypes,
    pub(super) kernels: Option<&'static Kernels>,
}

impl Default for Limits {
    /// The model's context up to [`Limits::DEFAULT_CONTEXT`], batches of [`Limits::DEFAULT_BATCH`], one thread.
    fn default() -> Self {
        Self {
            context: 0,
            sequences: 1,
            positions: 0,
            batch: 0,
            logits: 1,
            threads: 1,
            decode_threads: 0,
            policy: ContextPolicy::Stop,
            text_bytes: 0,
            stops: (8, 64),
            precisions: Precisions::default(),
            kv: KvTypes::default(),
            kernels: None,
        }
    }
}

impl Limits {
    /// The longest context that is chosen without being asked for.
    pub const DEFAULT_CONTEXT: usize = 4096;

    /// Columns computed together if nothing else is said and the context is not shorter: they fit the second cache of a
    /// core, and two threads share them without a rest.
    pub const DEFAULT_BATCH: usize = 192;

    /// The default limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// The least memory for so many positions: one column at a time, texts of one position's bytes at a time, no stop
    /// strings. Everything else works as with more, and gives the same bits, later. A context of 1 is the smallest that
    /// works at all: it reads a token and gives its logits.
    pub fn smallest(context: usize) -> Self {
        Self { context, batch: 1, text_bytes: 4, stops: (0, 0), ..Self::default() }
    }

    /// Sequences that exist at the same time; see [`super::Session::fork`].
    pub fn sequences(self, sequences: usize) -> Self {
        Self { sequences, ..self }
    }

    /// Positions of all sequences together, in pages of 16 that forked sequences share. 0 chooses a whole context for
    /// each sequence.
    pub fn positions(self, positions: usize) -> Self {
        Self { positions, ..self }
    }

    /// Positions of a sequence: prompt and answer together. 0 chooses the model's trained context, at most
    /// [`Limits::DEFAULT_CONTEXT`].
    pub fn context(self, context: usize) -> Self {
        Self { context, ..self }
    }

    /// Tokens of a prompt that are computed together; fewer need less memory and give the same bits. 0 chooses
    /// [`Limits::DEFAULT_BATCH`].
    pub fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// Positions whose logits are kept at a time when the logits of all positions are asked for; 1 is enough to
    /// generate.
    pub fn logits(self, logits: usize) -> Self {
        Self { logits, ..self }
    }

    /// Threads that may take part; results do not depend on it.
    pub fn threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Threads that may take part in a pass of one token a sequence, which memory bounds more than arithmetic. 0 chooses
    /// as many as [`Limits::threads`] says.
    pub fn decode_threads(self, decode_threads: usize) -> Self {
        Self { decode_threads, ..self }
    }

    /// What a sequence does when its context is full: stop, unless another policy is chosen.
    pub fn policy(self, policy: ContextPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Bytes of the longest text that is fed at once. 0 chooses four a position.
    pub fn text_bytes(self, text_bytes: usize) -> Self {
        Self { text_bytes, ..self }
    }

    /// Number of stop strings, and bytes of the longest; 8 and 64 if not given.
    pub fn stops(self, stops: usize, stop_bytes: usize) -> Self {
        Self { stops: (stops, stop_bytes), ..self }
    }

    /// How finely activations are rounded, by the layer's role; if not given, 16 bits for logits, and 8 bits or 16
    /// ([`Precision::Mixed`](crate::tensor::Precision::Mixed)) for the rest.
    pub fn precisions(self, precisions: Precisions) -> Self {
        Self { precisions, ..self }
    }

    /// How keys and values are stored: as 16-bit integers with a scale a position, unless another type is asked for.
    pub fn kv(self, both: KvType) -> Self {
        Self { kv: both.into(), ..self }
    }

    /// As [`Limits::kv`], with one type for the keys and one for the values.
    pub fn kv_types(self, keys: KvType, values: KvType) -> Self {
        Self { kv: KvTypes { keys, values }, ..self }
    }

    /// A kernel table other than the best one of this machine; results do not depend on it.
    pub fn kernels(self, kernels: &'static Kernels) -> Self {
        Self { kernels: Some(kernels), ..self }
    }

    /// The limits with every 0 replaced by what it stands for, checked against a model.
    pub(super) fn resolve(self, spec: &ModelSpec) -> Result<Self, Error> {
        let chosen = |value: usize, default: usize| if value == 0 { default } else { value };
        let context = chosen(self.context, spec.context.min(Self::DEFAULT_CONTEXT));
        if context > 1 << 30 {
            return Err(Error::Limit { what: "context", value: context, rule: "at most 2^30 positions" });
        }
        if let Some(table) = spec.hard_context().filter(|table| context > *table) {
            return Err(Error::ContextBeyondModel { context, table });
        }
        let sequences = self.sequences;
        if sequences == 0 || sequences > 1 << 16 {
            return Err(Error::Limit { what: "sequences", value: sequences, rule: "1 to 65536" });
        }
        let all = sequences.saturating_mul(context.next_multiple_of(KV_BLOCK));
        let positions = chosen(self.positions, all).min(all).max(context.min(KV_BLOCK));
        let threads = self.threads.max(1);
        let batch = chosen(self.batch, Self::DEFAULT_BATCH).min(context.max(sequences));
        let logits = self.logits.max(sequences).min(batch).max(1);
        if threads > 1024 {
            return Err(Error::Limit { what: "threads", value: threads, rule: "at most 1024" });
        }
        let decode_threads = chosen(self.decode_threads, threads);
        if decode_threads > 1024 {
            let rule = "at most 1024";
            return Err(Error::Limit { what: "decode threads", value: decode_threads, rule });
        }
        let text_bytes = chosen(self.text_bytes, 4 * context);
        Ok(Self { context, positions, batch, logits, threads, decode_threads, text_bytes, ..self })
    }

    /// The policy with its numbers, for resolved limits.
    pub(super) fn resolved_policy(&self, spec: &ModelSpec) -> Result<Policy, Error> {
        Policy::new(self.policy, self.context, spec.hard_context().is_some())
    }

    /// The window of the layers whose pages are a class of their own, for resolved limits; `None` where no layer sees so
    /// much less than the context that it would save memory.
    pub(super) fn window(&self, spec: &ModelSpec) -> Option<usize> {
        let window = (0..spec.layers).filter_map(|layer| spec.layer(layer).window).max()?;
        let needed = window.checked_add(2 * SLACK + KV_BLOCK)?;
        (needed < self.context).then_some(window)
    }

    /// Pages of all layers, and those of the layers that see a window.
    fn pages(&self, policy: &Policy, window: Option<usize>) -> [PageLimits; 2] {
        let Self { sequences, positions, batch, .. } = *self;
        let blocks = policy.context().div_ceil(KV_BLOCK);
        let all = PageLimits {
            pages: positions.div_ceil(KV_BLOCK),
            sequences,
            blocks,
            keep: policy.keep / KV_BLOCK,
        };
        // Of a window, the positions of a pass and those in reserve, the first and last page may be used in part.
        let held = window.map_or(0, |window| (window + batch + SLACK).div_ceil(KV_BLOCK) + 1);
        let blocks = held.min(blocks);
        [all, PageLimits { pages: sequences * blocks, sequences, blocks, keep: 0 }]
    }

    /// Most threads of any pass, for resolved limits.
    pub(super) fn workers(&self) -> usize {
        self.threads.max(self.decode_threads)
    }

    pub(super) fn table(&self) -> &'static Kernels {
        self.kernels.unwrap_or_else(kernels::detect)
    }

    /// The memory that a session of `model` needs with these limits.
    ///
    /// # Errors
    /// Limits that the model cannot have; sizes beyond the address space.
    pub fn plan(&self, model: &Model<'_>) -> Result<SessionPlan, Error> {
        self.plan_header(model.header())
    }

    /// As [`Limits::plan`], from a file's header alone, before its weights are there. Exact for the kernels of this
    /// machine, or those of [`Limits::kernels`].
    ///
    /// # Errors
    /// As [`Limits::plan`].
    pub fn plan_header(&self, header: &ModelHeader<'_>) -> Result<SessionPlan, Error> {
        Ok(Slots::plan(header, &self.resolve(header.spec())?)?.0)
    }
}

/// Bytes of a session, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionPlan {
    /// The whole block.
    pub bytes: usize,
    /// Keys and values.
    pub kv_bytes: usize,
    /// Logits and candidates of sampling.
    pub logits_bytes: usize,
    /// Everything else: activations, scratch memory of the threads, tokens, text.
    pub scratch_bytes: usize,
    /// Positions.
    pub context: usize,
    /// Tokens of a prompt computed together.
    pub batch: usize,
}

/// The slots of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots {
    pub(super) run: RunSlots,
    limits: Limits,
    policy: Policy,
    columns: ColumnSlots,
    pages: [PageSlots; 2],
    saved: Slot<f32>,
    candidates: Slot<Candidate>,
    tools: ToolSlots,
    /// Sequences but the first.
    more: ObjectSlot,
    /// Where the parts of the sequences begin; they are planned once more, one after the other, as they are carved.
    sequences_from: Plan,
}

/// The arrays of a session.
#[derive(Debug)]
pub(super) struct SessionMemory<'m> {
    pub(super) run: RunMemory<'m>,
    pub(super) columns: Columns<'m>,
    /// Pages of all layers, or of those without a window; and pages of layers that see a window.
    pub(super) pages: [Pages<'m>; 2],
    /// Logits of each sequence, `[sequences][vocab]`; empty for a single one, whose logits are the first row of a run.
    pub(super) saved: &'m mut [f32],
    pub(super) candidates: &'m mut [Candidate],
    pub(super) tools: TextTools<'m>,
    pub(super) states: States<'m>,
}

/// The slots of [`Columns`].
#[derive(Debug, Clone, Copy)]
struct ColumnSlots {
    ids: Slot<u32>,
    positions: Slot<u32>,
    sequences: Slot<u32>,
    firsts: Slot<u32>,
    turned: Slot<u32>,
}

/// What each column of a pass is.
#[derive(Debug)]
pub(super) struct Columns<'m> {
    ids: &'m mut [u32],
    positions: &'m mut [u32],
    sequences: &'m mut [u32],
    /// First position that is seen. Empty, as the next one, where nothing is ever forgotten.
    firsts: &'m mut [u32],
    /// Where the query stands for what is kept.
    turned: &'m mut [u32],
}

impl<'m> Columns<'m> {
    fn plan(batch: usize, forgets: bool, plan: &mut Plan) -> Result<ColumnSlots, MemError> {
        let views = if forgets { batch } else { 0 };
        Ok(ColumnSlots {
            ids: plan.array(batch)?,
            positions: plan.array(batch)?,
            sequences: plan.array(batch)?,
            firsts: plan.array(views)?,
            turned: plan.array(views)?,
        })
    }

    fn carve(arena: &mut Arena<'m>, slots: &ColumnSlots) -> Result<Self, MemError> {
        Ok(Self {
            ids: arena.carve(slots.ids)?,
            positions: arena.carve(slots.positions)?,
            sequences: arena.carve(slots.sequences)?,
            firsts: arena.carve(slots.firsts)?,
            turned: arena.carve(slots.turned)?,
        })
    }

    /// Fills a column.
    pub(super) fn set(&mut self, column: usize, id: u32, position: usize, sequence: usize, view: View) {
        let values = [
            (&mut *self.ids, id),
            (&mut *self.positions, position as u32),
            (&mut *self.sequences, sequence as u32),
            (&mut *self.firsts, view.first as u32),
            (&mut *self.turned, view.turned as u32),
        ];
        for (array, value) in values {
            if let Some(place) = array.get_mut(column) {
                *place = value;
            }
        }
    }

    /// The first `len` columns as a pass reads them; `sinks` tokens are never hidden.
    pub(super) fn batch<'b>(
        &'b self,
        len: usize,
        wanted_from: usize,
        pages: [&'b Pages<'b>; 2],
        sinks: usize,
    ) -> Batch<'b> {
        let first = |array: &'b [u32]| array.get(..len.min(array.len())).unwrap_or_default();
        Batch {
            ids: first(self.ids),
            positions: first(self.positions),
            sequences: first(self.sequences),
            firsts: first(self.firsts),
            turned: first(self.turned),
            sinks,
            wanted_from,
            pages,
        }
    }
}

impl Slots {
    /// Plans a session with resolved limits.
    pub(super) fn plan(
        header: &ModelHeader<'_>,
        limits: &Limits,
    ) -> Result<(SessionPlan, Plan, Slots), Error> {
        let (spec, tokenizer) = (header.spec(), header.tokenizer());
        let Limits { context, sequences, batch, .. } = *limits;
        let (policy, window) = (limits.resolved_policy(spec)?, limits.window(spec));
        let [all, windowed] = limits.pages(&policy, window);
        let mut plan = Plan::new();
        let run_limits = RunLimits {
            pages: [all.pages, windowed.pages],
            window_apart: window.is_some(),
            context: all.blocks * KV_BLOCK,
            forgets: policy.forgets(),
            batch,
            logits: limits.logits,
            workers: limits.workers(),
            precisions: limits.precisions,
            kv: limits.kv,
        };
        let run = RunSlots::plan(spec, run_limits, limits.table(), &mut plan)?;
        let saved = if sequences == 1 { 0 } else { sequences };
        let mut slots = Slots {
            run,
            limits: *limits,
            policy,
            columns: Columns::plan(batch, policy.forgets(), &mut plan)?,
            pages: [Pages::plan(all, &mut plan)?, Pages::plan(windowed, &mut plan)?],
            saved: plan.array(saved.checked_mul(spec.vocab).ok_or(MemError::Overflow)?)?,
            candidates: plan.array(spec.vocab)?,
            tools: TextTools::plan(tokenizer, limits.text_bytes, &mut plan)?,
            more: plan.objects::<SequenceState<'_>>(sequences - 1)?,
            sequences_from: plan,
        };
        slots.sequences_from = plan;
        for _ in 0..sequences {
            SequenceState::plan(tokenizer, policy.tokens(), limits.stops, &mut plan)?;
        }
        let (bytes, kv_bytes) = (plan.bytes(), slots.run.kv.iter().map(KvSlot::bytes).sum());
        let logits_bytes = slots.run.logits.bytes() + slots.saved.bytes() + slots.candidates.bytes();
        let scratch_bytes = bytes - kv_bytes - logits_bytes;
        let sizes = SessionPlan { bytes, kv_bytes, logits_bytes, scratch_bytes, context, batch };
        Ok((sizes, plan, slots))
    }

    /// Carves the arrays.
    pub(super) fn carve<'m>(
        &self,
        model: &Model<'_>,
        memory: &'m mut [u8],
        plan: &Plan,
    ) -> Result<SessionMemory<'m>, Error> {
        let mut arena = Arena::new(memory, plan)?;
        let run = self.run.carve(&mut arena)?;
        let columns = Columns::carve(&mut arena, &self.columns)?;
        let [all, windowed] = &self.pages;
        let pages = [Pages::carve(&mut arena, all)?, Pages::carve(&mut arena, windowed)?];
        let (saved, candidates) = (arena.carve(self.saved)?, arena.carve(self.candidates)?);
        let tools = TextTools::carve(&mut arena, &self.tools)?;
        let mut more = arena.objects(self.more)?;
        let mut replay = self.sequences_from;
        let mut next = || {
            let slots =
                SequenceState::plan(model.tokenizer(), self.policy.tokens(), self.limits.stops, &mut replay)?;
            SequenceState::carve(&mut arena, &slots)
        };
        let first = next()?;
        for _ in 1..self.limits.sequences {
            more.push(next()?);
        }
        let states = States { first, more: more.finish() };
        Ok(SessionMemory { run, columns, pages, saved, candidates, tools, states })
    }
}
