//! What a session may use, and what that costs: exactly, before anything is built.

use super::Error;
use super::text::{TextSlots, TextState};
use crate::kernels::{self, Kernels};
use crate::kv::KvType;
use crate::mem::{Arena, MemError, Plan, Slot};
use crate::model::plan::{Precisions, RunLimits, RunMemory, RunSlots};
use crate::model::{Model, ModelSpec};
use crate::sample::Candidate;

/// Limits of a session. They fix its memory; nothing in it grows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub(super) context: usize,
    pub(super) batch: usize,
    pub(super) logits: usize,
    pub(super) threads: usize,
    pub(super) text_bytes: usize,
    pub(super) stops: (usize, usize),
    pub(super) precisions: Precisions,
    pub(super) kv: KvType,
    pub(super) kernels: Option<&'static Kernels>,
}

impl Default for Limits {
    /// The model's context up to [`Limits::DEFAULT_CONTEXT`], batches of [`Limits::DEFAULT_BATCH`], one thread.
    fn default() -> Self {
        Self {
            context: 0,
            batch: 0,
            logits: 1,
            threads: 1,
            text_bytes: 0,
            stops: (8, 64),
            precisions: Precisions::default(),
            kv: KvType::default(),
            kernels: None,
        }
    }
}

impl Limits {
    /// The longest context that is chosen without being asked for.
    pub const DEFAULT_CONTEXT: usize = 4096;
    /// Columns computed together, if the context is not shorter.
    pub const DEFAULT_BATCH: usize = 128;

    /// The default limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Positions: prompt and answer together. 0 chooses the model's trained context, at most
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

    /// Bytes of the longest text that is fed at once. 0 chooses four a position.
    pub fn text_bytes(self, text_bytes: usize) -> Self {
        Self { text_bytes, ..self }
    }

    /// Number of stop strings, and bytes of the longest; 8 and 64 if not given.
    pub fn stops(self, stops: usize, stop_bytes: usize) -> Self {
        Self { stops: (stops, stop_bytes), ..self }
    }

    /// How finely activations are rounded, by the layer's role.
    pub fn precisions(self, precisions: Precisions) -> Self {
        Self { precisions, ..self }
    }

    /// How keys and values are stored: f16, unless 32 bits are asked for.
    pub fn kv(self, kv: KvType) -> Self {
        Self { kv, ..self }
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
        let batch = chosen(self.batch, Self::DEFAULT_BATCH).min(context);
        let logits = self.logits.clamp(1, batch);
        let threads = self.threads.max(1);
        if threads > 1024 {
            return Err(Error::Limit { what: "threads", value: threads, rule: "at most 1024" });
        }
        let text_bytes = chosen(self.text_bytes, 4 * context);
        Ok(Self { context, batch, logits, threads, text_bytes, ..self })
    }

    pub(super) fn table(&self) -> &'static Kernels {
        self.kernels.unwrap_or_else(kernels::detect)
    }

    /// The memory that a session of `model` needs with these limits.
    ///
    /// # Errors
    /// Limits that the model cannot have; sizes beyond the address space.
    pub fn plan(&self, model: &Model<'_>) -> Result<SessionPlan, Error> {
        Ok(Slots::plan(model, &self.resolve(model.spec())?)?.0)
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
}

/// The slots of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots {
    pub(super) run: RunSlots,
    tokens: Slot<u32>,
    candidates: Slot<Candidate>,
    text: TextSlots,
}

/// The arrays of a session.
#[derive(Debug)]
pub(super) struct SessionMemory<'m> {
    pub(super) run: RunMemory<'m>,
    pub(super) tokens: &'m mut [u32],
    pub(super) candidates: &'m mut [Candidate],
}

impl Slots {
    /// Plans a session with resolved limits.
    pub(super) fn plan(model: &Model<'_>, limits: &Limits) -> Result<(SessionPlan, Plan, Slots), Error> {
        let spec = model.spec();
        let mut plan = Plan::new();
        let run_limits = RunLimits {
            context: limits.context,
            batch: limits.batch,
            logits: limits.logits,
            workers: limits.threads,
            precisions: limits.precisions,
            kv: limits.kv,
        };
        let run = RunSlots::plan(spec, run_limits, limits.table(), &mut plan)?;
        let slots = Slots {
            run,
            tokens: plan.array(limits.context)?,
            candidates: plan.array(spec.vocab)?,
            text: TextState::plan(model.tokenizer(), limits.text_bytes, limits.stops, &mut plan)?,
        };
        let (bytes, kv_bytes) = (plan.bytes(), slots.run.kv.bytes());
        let logits_bytes = slots.run.logits.bytes() + slots.candidates.bytes();
        let scratch_bytes = bytes - kv_bytes - logits_bytes;
        let sizes = SessionPlan { bytes, kv_bytes, logits_bytes, scratch_bytes, context: limits.context };
        Ok((sizes, plan, slots))
    }

    /// Carves the arrays.
    pub(super) fn carve<'m>(
        &self,
        memory: &'m mut [u8],
        plan: &Plan,
    ) -> Result<(SessionMemory<'m>, TextState<'m>), MemError> {
        let mut arena = Arena::new(memory, plan)?;
        let memory = SessionMemory {
            run: self.run.carve(&mut arena)?,
            tokens: arena.carve(self.tokens)?,
            candidates: arena.carve(self.candidates)?,
        };
        Ok((memory, TextState::carve(&mut arena, &self.text)?))
    }
}
