//! Sequences: several conversations in one session.
//!
//! A session begins with one sequence, which is selected. [`Session::create`] and [`Session::fork`] make more, up to
//! [`super::Limits::sequences`]; [`Session::select`] chooses the one that the session's methods work on. Forked
//! sequences share the pages of what they have in common, and a pass computes the waiting tokens of all sequences
//! together, so the weights are read once for all of them. Nothing of that changes a bit of any result.

use super::policy::Policy;
use super::text::TextState;
use super::trace::Trace;
use super::{Error, Session};
use crate::mem::{Arena, MemError, Plan, Slot, copy_part, shift_left};
use crate::text::{StreamSlots, Tokenizer};

/// A sequence of a session. It stays the name of this sequence alone, even after it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SequenceId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl SequenceId {
    /// As one number, for hosts that keep ids as such.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The id of [`SequenceId::to_bits`]; any other number is an id of no sequence.
    pub fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// The slots of a sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct SequenceSlots {
    tokens: Slot<u32>,
    stream: StreamSlots,
}

/// A sequence: its tokens, and how far they are computed.
#[derive(Debug)]
pub(super) struct SequenceState<'m> {
    /// Its tokens, without those that were forgotten.
    pub(super) tokens: &'m mut [u32],
    /// Tokens given: `tokens[..fed]`.
    pub(super) fed: usize,
    /// Tokens whose keys and values are in the cache.
    pub(super) done: usize,
    /// Tokens forgotten, behind those that are kept.
    pub(super) dropped: usize,
    /// The most tokens, with the forgotten ones, that it had since it was last as short as what is kept.
    pub(super) high: usize,
    /// Token `done` is in the cache already and is only computed for its logits.
    pub(super) again: bool,
    /// Whether its logits belong to token `done - 1`.
    pub(super) logits_ready: bool,
    /// Tokens of the pass under way.
    pub(super) taken: usize,
    /// Whether that pass computes the logits of its last one.
    pub(super) wanted: bool,
    pub(super) trace: Trace,
    pub(super) text: TextState<'m>,
    pub(super) open: bool,
    pub(super) generation: u32,
}

impl<'m> SequenceState<'m> {
    pub(super) fn plan(
        tokenizer: Option<&Tokenizer<'_>>,
        tokens: usize,
        stops: (usize, usize),
        plan: &mut Plan,
    ) -> Result<SequenceSlots, MemError> {
        let tokens = plan.array(tokens)?;
        Ok(SequenceSlots { tokens, stream: TextState::plan(tokenizer, stops, plan)? })
    }

    pub(super) fn carve(arena: &mut Arena<'m>, slots: &SequenceSlots) -> Result<Self, MemError> {
        Ok(Self {
            tokens: arena.carve(slots.tokens)?,
            fed: 0,
            done: 0,
            dropped: 0,
            high: 0,
            again: false,
            logits_ready: false,
            taken: 0,
            wanted: false,
            trace: Trace::default(),
            text: TextState::carve(arena, &slots.stream)?,
            open: false,
            generation: 0,
        })
    }

    /// Tokens that wait to be computed.
    pub(super) fn waiting(&self) -> usize {
        if self.open { self.fed - self.done } else { 0 }
    }

    pub(super) fn open(&mut self) {
        self.reset();
        self.text.clear();
        self.open = true;
    }

    /// Forgets all tokens.
    fn reset(&mut self) {
        (self.fed, self.done, self.dropped, self.high, self.taken) = (0, 0, 0, 0, 0);
        (self.again, self.logits_ready) = (false, false);
        self.trace = Trace::default();
    }

    /// Position of token `index` in the whole text, with what was forgotten.
    pub(super) fn position(&self, index: usize, policy: &Policy) -> usize {
        if index < policy.keep { index } else { index + self.dropped }
    }

    /// Position of token `index` as the model sees it.
    pub(super) fn place(&self, index: usize, policy: &Policy) -> usize {
        if policy.begins_anew() { index } else { self.position(index, policy) }
    }

    /// Index of the token at a position that is not forgotten.
    pub(super) fn index(&self, position: usize, policy: &Policy) -> usize {
        if position <= policy.keep {
            position
        } else {
            position.saturating_sub(self.dropped).max(policy.keep)
        }
    }

    /// Tokens whose keys and values are in the cache, even if one of them is to be computed again.
    pub(super) fn stored(&self) -> usize {
        self.done + usize::from(self.again)
    }

    /// Number of tokens with the forgotten ones: the position of the next one.
    pub(super) fn len(&self, policy: &Policy) -> usize {
        self.position(self.fed, policy)
    }

    /// Forgets `gone` tokens behind the first `keep`.
    pub(super) fn forget(&mut self, keep: usize, gone: usize) {
        let rest = self.tokens.get_mut(keep..self.fed).unwrap_or_default();
        shift_left(rest, gone);
        self.fed = self.fed.saturating_sub(gone);
        self.done = self.done.saturating_sub(gone);
        self.dropped += gone;
    }

    /// Forgets the tokens from `index` on, which stands at `position`.
    pub(super) fn cut(&mut self, index: usize, position: usize, policy: &Policy) {
        (self.fed, self.logits_ready, self.trace) = (index, false, Trace::default());
        if self.done >= index {
            (self.done, self.again) = (index, false);
        }
        if position <= policy.keep {
            (self.dropped, self.high) = (0, position);
        }
        self.text.restart();
    }

    /// The tokens that the last one sees, but for those in front that are kept when others were forgotten.
    pub(super) fn seen(&self, policy: &Policy) -> &[u32] {
        let last = self.position(self.fed.saturating_sub(1), policy);
        let first = match policy.view(last).first {
            0 => 0,
            first => self.index(first, policy),
        };
        self.tokens.get(first..self.fed).unwrap_or_default()
    }
}

/// All sequences: at least one, so that one can always be selected.
#[derive(Debug)]
pub(super) struct States<'m> {
    pub(super) first: SequenceState<'m>,
    pub(super) more: &'m mut [SequenceState<'m>],
}

impl<'m> States<'m> {
    pub(super) fn len(&self) -> usize {
        1 + self.more.len()
    }

    /// The sequence at `index`; the first one for an index beyond the last.
    pub(super) fn at(&self, index: usize) -> &SequenceState<'m> {
        self.more.get(index.wrapping_sub(1)).unwrap_or(&self.first)
    }

    /// The sequence at `index`; the first one for an index beyond the last.
    pub(super) fn at_mut(&mut self, index: usize) -> &mut SequenceState<'m> {
        self.more.get_mut(index.wrapping_sub(1)).unwrap_or(&mut self.first)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut SequenceState<'m>> {
        core::iter::once(&mut self.first).chain(self.more.iter_mut())
    }

    /// Copies tokens and progress from one sequence to another.
    fn copy(&mut self, from: usize, to: usize) {
        let SequenceState { fed, done, dropped, high, again, logits_ready, trace, .. } = *self.at(from);
        for position in 0..fed {
            let token = self.at(from).tokens.get(position).copied();
            if let (Some(token), Some(place)) = (token, self.at_mut(to).tokens.get_mut(position)) {
                *place = token;
            }
        }
        let child = self.at_mut(to);
        (child.fed, child.done, child.dropped, child.high) = (fed, done, dropped, high);
        (child.again, child.logits_ready, child.trace) = (again, logits_ready, trace);
    }
}

impl Session<'_> {
    /// The sequence that the session's methods work on.
    pub fn selected(&self) -> SequenceId {
        SequenceId { index: self.selected as u32, generation: self.state().generation }
    }

    /// Lets the session's methods work on another sequence.
    ///
    /// # Errors
    /// [`Error::Sequence`].
    pub fn select(&mut self, id: SequenceId) -> Result<(), Error> {
        self.selected = self.find(id)?;
        Ok(())
    }

    /// A new, empty sequence. It is not selected.
    ///
    /// # Errors
    /// [`Error::NoSequence`].
    pub fn create(&mut self) -> Result<SequenceId, Error> {
        let states = &mut self.memory.states;
        let sequences = states.len();
        let index = (0..sequences).find(|index| !states.at(*index).open);
        let index = index.ok_or(Error::NoSequence { sequences })?;
        let state = states.at_mut(index);
        state.open();
        Ok(SequenceId { index: index as u32, generation: state.generation })
    }

    /// A new sequence with the tokens of the selected one, which costs a copy of the tokens and no computation: both
    /// share their pages, and whoever first writes to a shared page gets a copy. Stop strings and limits are those of a
    /// new sequence. It is not selected.
    ///
    /// # Errors
    /// [`Error::NoSequence`].
    pub fn fork(&mut self) -> Result<SequenceId, Error> {
        let id = self.create()?;
        let (from, to) = (self.selected, id.index as usize);
        self.memory.states.copy(from, to);
        let logits_ready = self.state().logits_ready;
        self.memory.pages.iter_mut().for_each(|pages| pages.share(from, to));
        let vocab = self.model.spec().vocab;
        if logits_ready {
            copy_part(self.memory.saved, vocab, from, to);
        }
        Ok(id)
    }

    /// Ends a sequence and frees what it alone holds. The selected sequence can be closed too; it is then empty and new.
    ///
    /// # Errors
    /// [`Error::Sequence`].
    pub fn close(&mut self, id: SequenceId) -> Result<(), Error> {
        let index = self.find(id)?;
        self.memory.pages.iter_mut().for_each(|pages| pages.release_from(index, 0));
        let selected = index == self.selected;
        let state = self.memory.states.at_mut(index);
        let in_pass = state.taken > 0;
        state.open();
        state.open = selected;
        state.generation = state.generation.wrapping_add(1);
        if in_pass {
            self.drop_pass();
        }
        Ok(())
    }

    /// Number of sequences that exist.
    pub fn sequences(&self) -> usize {
        (0..self.memory.states.len()).filter(|index| self.memory.states.at(*index).open).count()
    }

    /// Pages of 16 positions that are free, and all pages. Layers that see a window have pages of their own, always
    /// enough, which are not counted here.
    pub fn pages(&self) -> (usize, usize) {
        let [all, _] = &self.memory.pages;
        (all.free(), all.len())
    }

    fn find(&self, id: SequenceId) -> Result<usize, Error> {
        let index = id.index as usize;
        let state = self.memory.states.at(index);
        let exists = index < self.memory.states.len() && state.open && state.generation == id.generation;
        if exists { Ok(index) } else { Err(Error::Sequence) }
    }
}
