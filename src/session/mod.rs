//! Sessions: conversations with a model, in one block of memory.
//!
//! [`Limits`] fix the memory, [`Session::feed`] gives text or tokens, [`Session::advance`] computes as much as a budget
//! allows, [`Session::next_token`], [`Session::next_piece`] and [`Session::step`] generate. Nothing allocates after
//! construction, and every result is the same for any threads, batch, budget and instruction set.

mod error;
mod generate;
mod limits;
#[cfg(feature = "alloc")]
mod owned;
mod score;
mod sequence;
mod text;

pub use error::Error;
pub use generate::{Finish, Step};
pub use limits::{Limits, SessionPlan};
pub use sequence::SequenceId;

use crate::exec::Exec;
use crate::kernels::{FloatEnv, Kernels};
use crate::model::Model;
use crate::model::forward::Pass;
use crate::ops::Tools;
use crate::ops::column;
use limits::{SessionMemory, Slots};
use sequence::SequenceState;

/// How much one call may compute.
#[derive(Clone, Copy)]
pub enum Budget<'c> {
    /// Until there is a result.
    Unlimited,
    /// So many jobs: parts of a phase, of a few hundred thousand multiplications at most. Needs no clock.
    Jobs(u64),
    /// Until `clock` shows `at`; looked at between jobs.
    Until {
        /// A clock that never goes back, in a unit of the host's choice.
        clock: &'c dyn Fn() -> u64,
        /// The time to stop.
        at: u64,
    },
}

/// What a call of [`Session::advance`] reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The budget is used up; call again.
    Pending,
    /// All tokens are read, and the logits of the last one are there.
    Ready,
}

/// A pass that is under way.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    columns: usize,
    wanted_from: usize,
    phase: usize,
    job: usize,
}

/// Who runs the jobs.
#[derive(Debug)]
enum Workers<'m> {
    Host(HostExec<'m>),
    #[cfg(feature = "std")]
    Pool(crate::exec_threads::Threads),
}

/// A borrowed [`Exec`], with a `Debug` that says no more than that.
struct HostExec<'m>(&'m dyn Exec);

impl core::fmt::Debug for HostExec<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Exec({} workers)", self.0.workers())
    }
}

impl Workers<'_> {
    fn exec(&self) -> &dyn Exec {
        match self {
            Workers::Host(host) => host.0,
            #[cfg(feature = "std")]
            Workers::Pool(pool) => pool,
        }
    }
}

/// An [`Exec`] whose threads all work in the default floating-point environment, whatever their owner set.
struct Shielded<'e>(&'e dyn Exec);

impl Exec for Shielded<'_> {
    fn workers(&self) -> usize {
        self.0.workers()
    }

    fn run(&self, workers: usize, work: &(dyn Fn() + Sync)) {
        self.0.run(workers, &|| {
            let _float_env = FloatEnv::enter();
            work();
        });
    }
}

/// Conversations: tokens, their keys and values, and the logits of the last ones. Most hosts need one, and never meet
/// the word sequence; those that need more find them at [`Session::fork`].
#[derive(Debug)]
pub struct Session<'m> {
    model: &'m Model<'m>,
    kernels: &'static Kernels,
    workers: Workers<'m>,
    memory: SessionMemory<'m>,
    limits: Limits,
    /// Index of the sequence that the methods work on.
    selected: usize,
    cursor: Option<Cursor>,
    // Behind everything that borrows from it.
    #[cfg(feature = "alloc")]
    owner: Option<crate::mem::aligned::Block>,
}

impl<'m> Session<'m> {
    /// Bytes of memory that a session needs; the same as [`Limits::plan`].
    ///
    /// # Errors
    /// Limits that the model cannot have.
    pub fn size(model: &Model<'_>, limits: &Limits) -> Result<usize, Error> {
        Ok(limits.plan(model)?.bytes)
    }

    /// A session in `memory`, which begins at a multiple of [`crate::mem::ALIGN`] and holds [`Session::size`] bytes. Its
    /// jobs run on `exec`; more than `limits.threads` threads never take part. Does not allocate.
    ///
    /// # Errors
    /// Limits that the model cannot have; memory that is too small or misaligned.
    pub fn new(
        model: &'m Model<'m>,
        limits: &Limits,
        exec: &'m dyn Exec,
        memory: &'m mut [u8],
    ) -> Result<Session<'m>, Error> {
        Self::build(model, limits, Workers::Host(HostExec(exec)), memory)
    }

    fn build(
        model: &'m Model<'m>,
        limits: &Limits,
        workers: Workers<'m>,
        memory: &'m mut [u8],
    ) -> Result<Session<'m>, Error> {
        let limits = limits.resolve(model.spec())?;
        let (_, plan, slots) = Slots::plan(model, &limits)?;
        let mut memory = slots.carve(model, memory, &plan)?;
        let kernels = limits.table();
        let _float_env = FloatEnv::enter();
        model.forward().prepare(&mut memory.run);
        memory.states.first.open();
        Ok(Session {
            model,
            kernels,
            workers,
            memory,
            limits,
            selected: 0,
            cursor: None,
            #[cfg(feature = "alloc")]
            owner: None,
        })
    }

    /// The selected sequence.
    fn state(&self) -> &SequenceState<'m> {
        self.memory.states.at(self.selected)
    }

    /// The selected sequence.
    fn state_mut(&mut self) -> &mut SequenceState<'m> {
        self.memory.states.at_mut(self.selected)
    }

    /// The model.
    pub fn model(&self) -> &Model<'_> {
        self.model
    }

    /// The kernel table in use.
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// All tokens, given and generated.
    pub fn tokens(&self) -> &[u32] {
        let state = self.state();
        state.tokens.get(..state.fed).unwrap_or_default()
    }

    /// Positions of the context.
    pub fn context(&self) -> usize {
        self.limits.context
    }

    /// Positions of the context that are still free.
    pub fn room(&self) -> usize {
        self.context() - self.state().fed
    }

    /// Logits behind the last token, one a token id; `None` as long as [`Session::advance`] has not said
    /// [`Progress::Ready`].
    pub fn logits(&self) -> Option<&[f32]> {
        let (state, vocab) = (self.state(), self.model.spec().vocab);
        if !state.logits_ready || state.done != state.fed {
            return None;
        }
        match self.memory.saved.is_empty() {
            true => self.memory.run.logits.get(..vocab),
            false => Some(column(self.memory.saved, self.selected, vocab)),
        }
    }

    /// Adds tokens behind the last one. They are computed by the next [`Session::advance`] or generating call.
    ///
    /// # Errors
    /// [`Error::ContextFull`], [`Error::PagesFull`], [`Error::Token`].
    pub fn feed_tokens(&mut self, ids: &[u32]) -> Result<(), Error> {
        let vocab = self.model.spec().vocab;
        if let Some(id) = ids.iter().copied().find(|id| *id as usize >= vocab) {
            return Err(Error::Token { id, vocab });
        }
        self.check_room(ids.len())?;
        let state = self.state_mut();
        let place = state.tokens.get_mut(state.fed..).unwrap_or_default();
        place.iter_mut().zip(ids).for_each(|(place, id)| *place = *id);
        self.extend(ids.len())
    }

    /// Whether so many more tokens fit the context and the free pages.
    fn check_room(&self, added: usize) -> Result<(), Error> {
        let (room, context, fed) = (self.room(), self.context(), self.state().fed);
        if added > room {
            return Err(Error::ContextFull { needed: added, room, context });
        }
        let pages = &self.memory.pages;
        let (needed, free) = (pages.needed(self.selected, fed, fed + added), pages.free());
        if needed > free { Err(Error::PagesFull { needed, free }) } else { Ok(()) }
    }

    /// Counts `added` tokens that stand behind the last one already, and opens a finished answer again.
    fn extend(&mut self, added: usize) -> Result<(), Error> {
        if added > 0 {
            self.add(added)?;
            self.state_mut().text.restart();
        }
        Ok(())
    }

    /// Counts `added` tokens that stand behind the last one already, and gives them pages. A pass under way goes on: its
    /// logits are still those of its last token, and are simply computed again when more follow.
    fn add(&mut self, added: usize) -> Result<(), Error> {
        self.check_room(added)?;
        let fed = self.state().fed;
        let SessionMemory { pages, run, .. } = &mut self.memory;
        pages.reserve(self.selected, fed, fed + added, |from, to| run.kv.copy_page(from, to));
        self.state_mut().fed += added;
        Ok(())
    }

    /// Forgets all tokens from `len` on. Costs nothing but giving back pages.
    ///
    /// # Errors
    /// [`Error::Position`] when there are fewer tokens.
    pub fn truncate(&mut self, len: usize) -> Result<(), Error> {
        let selected = self.selected;
        let state = self.state_mut();
        if len > state.fed {
            return Err(Error::Position { position: len, len: state.fed });
        }
        if len < state.fed {
            let in_pass = state.taken > 0;
            (state.fed, state.done, state.logits_ready) = (len, state.done.min(len), false);
            state.text.restart();
            self.memory.pages.release_from(selected, len);
            if in_pass {
                self.drop_pass();
            }
        }
        Ok(())
    }

    /// Forgets the pass under way. What it has written stands behind the computed tokens and is never read.
    fn drop_pass(&mut self) {
        self.cursor = None;
        self.memory.states.iter_mut().for_each(|state| state.taken = 0);
    }

    /// Computes until all tokens are read or the budget is used up. Tokens of other sequences that wait are computed in
    /// the same passes.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`] when there is no token.
    pub fn advance(&mut self, mut budget: Budget<'_>) -> Result<Progress, Error> {
        self.advance_within(&mut budget)
    }

    /// As [`Session::advance`], and leaves the rest of the budget to the caller.
    fn advance_within(&mut self, budget: &mut Budget<'_>) -> Result<Progress, Error> {
        if self.state().fed == 0 {
            return Err(Error::EmptyPrompt);
        }
        let _float_env = FloatEnv::enter();
        loop {
            if self.cursor.is_none() {
                let state = self.state();
                if state.done == state.fed && state.logits_ready {
                    return Ok(Progress::Ready);
                }
                self.begin();
            }
            if !self.run(budget) {
                return Ok(Progress::Pending);
            }
        }
    }

    /// Begins a pass over what waits: one token of every sequence that has just one, then as many as the batch takes of
    /// the selected sequence, then of the others.
    fn begin(&mut self) {
        let state = self.state_mut();
        if state.done == state.fed && !state.logits_ready {
            // Only the logits are missing: the last token is computed once more, to the same bits.
            state.done = state.fed.saturating_sub(1);
        }
        let (selected, batch) = (self.selected, self.limits.batch);
        let states = &mut self.memory.states;
        let mut left = batch;
        let order = |index: usize, state: &SequenceState<'_>| match state.waiting() {
            1 => 0,
            _ if index == selected => 1,
            _ => 2,
        };
        for turn in 0..3 {
            for (index, state) in states.iter_mut().enumerate() {
                if order(index, state) == turn {
                    state.taken = state.waiting().min(left);
                    left -= state.taken;
                }
            }
        }
        self.begin_taken(false);
    }

    /// Begins a pass over the next tokens of the selected sequence that keeps the logits of all its columns.
    fn begin_all_logits(&mut self) {
        let Limits { batch, logits, .. } = self.limits;
        let state = self.state_mut();
        state.taken = state.waiting().min(logits).min(batch);
        self.begin_taken(true);
    }

    /// Fills the columns with what was taken: first the tokens whose logits nobody wants, then the others, by sequence.
    fn begin_taken(&mut self, all_logits: bool) {
        let SessionMemory { states, columns, .. } = &mut self.memory;
        let (mut len, mut wanted_from) = (0, 0);
        for wanted in [false, true] {
            if wanted {
                wanted_from = len;
            }
            for (index, state) in states.iter_mut().enumerate().filter(|(_, state)| state.taken > 0) {
                let end = state.done + state.taken;
                state.wanted = !all_logits && end == state.fed;
                state.logits_ready = false;
                for position in state.done..end {
                    let is_wanted = all_logits || state.wanted && position + 1 == end;
                    let id = state.tokens.get(position).copied().unwrap_or(0);
                    if is_wanted == wanted {
                        columns.set(len, id, position, index);
                        len += 1;
                    }
                }
            }
        }
        self.cursor = Some(Cursor { columns: len, wanted_from, phase: 0, job: 0 });
    }

    /// Runs the pass under way; true when it is done, false when the budget is used up.
    fn run(&mut self, budget: &mut Budget<'_>) -> bool {
        let Some(mut cursor) = self.cursor else { return true };
        let forward = self.model.forward();
        let SessionMemory { run: memory, columns, pages, .. } = &mut self.memory;
        let batch = columns.batch(cursor.columns, cursor.wanted_from, pages);
        let exec = Shielded(self.workers.exec());
        let tools = Tools { exec: &exec, kernels: self.kernels };
        let mut pass = Pass { forward, batch, memory, tools };
        while let Some(phase) = forward.phase(cursor.phase) {
            let jobs = forward.jobs(phase, &batch);
            while cursor.job < jobs {
                let allowed = budget.allowed(jobs - cursor.job, exec.workers());
                if allowed == 0 {
                    self.cursor = Some(cursor);
                    return false;
                }
                pass.run(phase, cursor.job..cursor.job + allowed);
                cursor.job += allowed;
            }
            cursor = Cursor { phase: cursor.phase + 1, job: 0, ..cursor };
        }
        self.cursor = None;
        self.commit();
        true
    }

    /// Makes a finished pass visible. Rows of logits are in the order of the sequences that have one.
    fn commit(&mut self) {
        let SessionMemory { states, run, saved, .. } = &mut self.memory;
        let vocab = self.model.spec().vocab;
        let mut row = 0;
        for (index, state) in states.iter_mut().enumerate().filter(|(_, state)| state.taken > 0) {
            state.done += core::mem::take(&mut state.taken);
            if core::mem::take(&mut state.wanted) {
                state.logits_ready = state.done == state.fed;
                keep_row(run.logits, row, saved, index, vocab);
                row += 1;
            }
        }
    }
}

/// Copies a row of a run's logits to where a sequence keeps its own. A single sequence keeps it in the first row itself.
fn keep_row(logits: &mut [f32], row: usize, saved: &mut [f32], sequence: usize, vocab: usize) {
    if saved.is_empty() {
        if row > 0 && (row + 1) * vocab <= logits.len() {
            logits.copy_within(row * vocab..(row + 1) * vocab, 0);
        }
    } else if let Some(place) = saved.chunks_exact_mut(vocab.max(1)).nth(sequence) {
        place.iter_mut().zip(column(logits, row, vocab)).for_each(|(place, logit)| *place = *logit);
    }
}

impl Budget<'_> {
    /// How many of `jobs` may run now, and takes them from the budget.
    fn allowed(&mut self, jobs: usize, workers: usize) -> usize {
        match self {
            Budget::Unlimited => jobs,
            Budget::Jobs(left) => {
                let taken = jobs.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                taken
            }
            Budget::Until { clock, at } if clock() < *at => jobs.min(workers.max(1)),
            Budget::Until { .. } => 0,
        }
    }
}

impl core::fmt::Debug for Budget<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Budget::Unlimited => f.write_str("Unlimited"),
            Budget::Jobs(left) => write!(f, "Jobs({left})"),
            Budget::Until { at, .. } => write!(f, "Until({at})"),
        }
    }
}
