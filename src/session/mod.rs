//! Sessions: conversations with a model, in one block of memory.
//!
//! [`Limits`] fix the memory, [`Session::feed`] gives text or tokens, [`Session::advance`] computes as much as a budget
//! allows, [`Session::next_token`], [`Session::next_piece`] and [`Session::step`] generate. Nothing allocates after
//! construction, and every result is the same for any threads, batch, budget and instruction set.

mod budget;
mod error;
mod generate;
mod limits;
#[cfg(feature = "alloc")]
mod owned;
mod pass;
mod policy;
mod profile;
mod score;
mod sequence;
mod state;
#[cfg(all(test, feature = "alloc"))]
mod tests;
mod text;
mod trace;

pub use budget::Budget;
pub use error::Error;
pub use generate::{Finish, Step};
pub use limits::{Limits, SessionPlan};
pub use policy::ContextPolicy;
pub use profile::Profile;
pub use sequence::SequenceId;
pub use state::Saved;

use crate::exec::{CancelFlag, Exec};
use crate::kernels::{FloatEnv, KV_BLOCK, Kernels};
use crate::model::Model;
use crate::ops::column;
use budget::Pace;
use limits::{SessionMemory, Slots};
use pass::Cursor;
use policy::Policy;
use sequence::SequenceState;

/// What a call of [`Session::advance`] reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The budget is used up; call again.
    Pending,
    /// All tokens are read, and the logits of the last one are there.
    Ready,
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

    fn parallel_for(&self, workers: usize, n: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        self.0.parallel_for(workers, n, &|job, worker| {
            let _float_env = FloatEnv::enter();
            work(job, worker);
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
    policy: Policy,
    /// The window of the layers that have pages of their own.
    window: Option<usize>,
    cancel: Option<&'m CancelFlag>,
    profile: Option<Profile>,
    /// Index of the sequence that the methods work on.
    selected: usize,
    cursor: Option<Cursor>,
    pace: Pace,
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
        let (_, plan, slots) = Slots::plan(model.header(), &limits)?;
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
            policy: limits.resolved_policy(model.spec())?,
            window: limits.window(model.spec()),
            cancel: None,
            profile: None,
            selected: 0,
            cursor: None,
            pace: Pace::default(),
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

    /// A flag by which another thread, or a signal handler, ends a call that computes: with [`Error::Cancelled`], and the
    /// sequences as they were before it.
    pub fn set_cancel(&mut self, flag: Option<&'m CancelFlag>) {
        self.cancel = flag;
    }

    /// Begins to measure where the time of passes goes, or ends it; see [`Session::profile`].
    pub fn set_profile(&mut self, profile: Option<Profile>) {
        self.profile = profile;
    }

    /// What was measured since [`Session::set_profile`].
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// All tokens, given and generated; where the policy forgets, those that the last one sees, but for the first ones
    /// that are kept.
    pub fn tokens(&self) -> &[u32] {
        self.state().seen(&self.policy)
    }

    /// Number of tokens, given and generated, with those that were forgotten: the position of the next one.
    pub fn position(&self) -> usize {
        self.state().len(&self.policy)
    }

    /// Positions of the context.
    pub fn context(&self) -> usize {
        self.limits.context
    }

    /// How many more tokens can be fed now. Where the policy forgets, that is as many as the session can hold while they
    /// wait; it never stays 0.
    pub fn room(&self) -> usize {
        self.policy.tokens() - self.state().fed
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

    /// Whether so many more tokens fit the context and the free pages. A sequence that forgets takes its pages when they
    /// are needed.
    fn check_room(&self, added: usize) -> Result<(), Error> {
        let (room, context, fed) = (self.room(), self.context(), self.state().fed);
        if added > room {
            return Err(Error::ContextFull { needed: added, room, context });
        }
        if self.policy.forgets() {
            return Ok(());
        }
        let [pages, _] = &self.memory.pages;
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
        let (fed, policy) = (self.state().fed, self.policy);
        if !policy.forgets() {
            let SessionMemory { pages: [pages, _], run, .. } = &mut self.memory;
            let [cache, _] = &mut run.kv;
            pages.reserve(self.selected, fed, fed + added, |from, to| cache.copy_page(from, to));
        }
        let state = self.state_mut();
        state.fed += added;
        state.high = state.high.max(state.len(&policy));
        Ok(())
    }

    /// Forgets all tokens from position `len` on. Costs nothing but giving back pages, unless layers see a window and what
    /// is behind it is gone: then the tokens that stay are computed again when they are needed.
    ///
    /// # Errors
    /// [`Error::Position`] when there are fewer tokens; [`Error::Forgotten`] when the policy has forgotten what the token
    /// before `len` saw.
    pub fn truncate(&mut self, len: usize) -> Result<(), Error> {
        let (selected, policy, window) = (self.selected, self.policy, self.window);
        let SessionMemory { states, pages: [all, windowed], .. } = &mut self.memory;
        let state = states.at_mut(selected);
        let position = state.len(&policy);
        if len > position {
            return Err(Error::Position { position: len, len: position });
        }
        if len == position {
            return Ok(());
        }
        if !policy.can_return(len, state.high, window.is_some()) {
            return Err(Error::Forgotten { position: len });
        }
        let (in_pass, index) = (state.taken > 0, state.index(len, &policy));
        state.cut(index, len, &policy);
        // By pages, positions are those that the model sees.
        let place = if policy.begins_anew() { index } else { len };
        all.release_from(selected, place);
        let seen = place.saturating_sub(window.unwrap_or(usize::MAX));
        if windowed.table(selected).base * KV_BLOCK > seen {
            windowed.release_from(selected, 0);
            state.done = 0;
        } else {
            windowed.release_from(selected, place);
        }
        if in_pass {
            self.drop_pass();
        }
        Ok(())
    }
}
