//! Sessions: one conversation with a model, in one block of memory.
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
mod text;

pub use error::Error;
pub use generate::{Finish, Step};
pub use limits::{Limits, SessionPlan};

use crate::exec::Exec;
use crate::kernels::{FloatEnv, Kernels};
use crate::model::Model;
use crate::model::forward::{Batch, Pass};
use crate::ops::Tools;
use limits::{SessionMemory, Slots};

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

/// One conversation: tokens, their keys and values, and the logits of the last one.
#[derive(Debug)]
pub struct Session<'m> {
    model: &'m Model<'m>,
    kernels: &'static Kernels,
    workers: Workers<'m>,
    memory: SessionMemory<'m>,
    limits: Limits,
    /// Tokens given: `memory.tokens[..fed]`.
    fed: usize,
    /// Tokens whose keys and values are in the cache.
    done: usize,
    /// Whether the first row of logits belongs to token `done - 1`.
    logits_ready: bool,
    cursor: Option<Cursor>,
    text: text::TextState<'m>,
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
        let (mut memory, text) = slots.carve(memory, &plan)?;
        let kernels = limits.table();
        let _float_env = FloatEnv::enter();
        model.forward().prepare(&mut memory.run);
        Ok(Session {
            model,
            kernels,
            workers,
            memory,
            limits,
            fed: 0,
            done: 0,
            logits_ready: false,
            cursor: None,
            text,
            #[cfg(feature = "alloc")]
            owner: None,
        })
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
        self.memory.tokens.get(..self.fed).unwrap_or_default()
    }

    /// Positions of the context.
    pub fn context(&self) -> usize {
        self.memory.tokens.len()
    }

    /// Positions that are still free.
    pub fn room(&self) -> usize {
        self.context() - self.fed
    }

    /// Logits behind the last token, one a token id; `None` as long as [`Session::advance`] has not said
    /// [`Progress::Ready`].
    pub fn logits(&self) -> Option<&[f32]> {
        if !self.logits_ready || self.done != self.fed {
            return None;
        }
        self.memory.run.logits.get(..self.model.spec().vocab)
    }

    /// Adds tokens behind the last one. They are computed by the next [`Session::advance`] or generating call.
    ///
    /// # Errors
    /// [`Error::ContextFull`], [`Error::Token`].
    pub fn feed_tokens(&mut self, ids: &[u32]) -> Result<(), Error> {
        let vocab = self.model.spec().vocab;
        if let Some(id) = ids.iter().copied().find(|id| *id as usize >= vocab) {
            return Err(Error::Token { id, vocab });
        }
        let (room, context) = (self.room(), self.context());
        let place = self.memory.tokens.get_mut(self.fed..).and_then(|rest| rest.get_mut(..ids.len()));
        let place = place.ok_or(Error::ContextFull { needed: ids.len(), room, context })?;
        place.copy_from_slice(ids);
        self.extend(ids.len());
        Ok(())
    }

    /// Counts `added` tokens that stand behind the last one already. A pass under way goes on: its logits are still
    /// those of its last token, and are simply computed again when more follow.
    fn extend(&mut self, added: usize) {
        if added > 0 {
            self.fed += added;
            self.text.restart();
        }
    }

    /// Forgets all tokens from `len` on. Costs nothing: keys and values behind the length are never read.
    ///
    /// # Errors
    /// [`Error::Position`] when there are fewer tokens.
    pub fn truncate(&mut self, len: usize) -> Result<(), Error> {
        if len > self.fed {
            return Err(Error::Position { position: len, len: self.fed });
        }
        if len < self.fed {
            self.cursor = None;
            self.logits_ready = false;
            self.fed = len;
            self.done = self.done.min(len);
            self.text.restart();
        }
        Ok(())
    }

    /// Computes until all tokens are read or the budget is used up.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`] when there is no token.
    pub fn advance(&mut self, mut budget: Budget<'_>) -> Result<Progress, Error> {
        self.advance_within(&mut budget)
    }

    /// As [`Session::advance`], and leaves the rest of the budget to the caller.
    fn advance_within(&mut self, budget: &mut Budget<'_>) -> Result<Progress, Error> {
        if self.fed == 0 {
            return Err(Error::EmptyPrompt);
        }
        let _float_env = FloatEnv::enter();
        loop {
            if self.cursor.is_none() {
                if self.done == self.fed && self.logits_ready {
                    return Ok(Progress::Ready);
                }
                self.begin(false);
            }
            if !self.run(budget) {
                return Ok(Progress::Pending);
            }
        }
    }

    /// Begins the next pass; with `all_logits` it keeps those of all its columns.
    fn begin(&mut self, all_logits: bool) {
        if self.done == self.fed {
            // Only the logits are missing: the last token is computed once more, to the same bits.
            self.done -= 1;
        }
        let Limits { batch, logits, .. } = self.limits;
        let most = if all_logits { logits } else { batch };
        let columns = most.min(self.fed - self.done);
        let last = self.done + columns == self.fed;
        let wanted_from = match (all_logits, last) {
            (true, _) => 0,
            (_, true) => columns - 1,
            _ => columns,
        };
        self.logits_ready = false;
        self.cursor = Some(Cursor { columns, wanted_from, phase: 0, job: 0 });
    }

    /// Runs the pass under way; true when it is done, false when the budget is used up.
    fn run(&mut self, budget: &mut Budget<'_>) -> bool {
        let Some(mut cursor) = self.cursor else { return true };
        let forward = self.model.forward();
        let ids = self.memory.tokens.get(self.done..).and_then(|rest| rest.get(..cursor.columns));
        let batch = Batch { ids: ids.unwrap_or_default(), first: self.done, wanted_from: cursor.wanted_from };
        let exec = Shielded(self.workers.exec());
        let memory = &mut self.memory.run;
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
        self.done += cursor.columns;
        self.logits_ready = cursor.wanted_from + 1 == cursor.columns && self.done == self.fed;
        true
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
