//! Passes: what waits is gathered, computed in slices, and made visible at the end.

use super::budget::Meter;
use super::limits::SessionMemory;
use super::policy::SLACK;
use super::sequence::SequenceState;
use super::{Budget, Error, Progress, Session, Shielded};
use crate::exec::{CancelFlag, Crew};
use crate::kernels::{FloatEnv, KV_BLOCK};
use crate::mem::copy_part;
use crate::model::forward::Pass;
use crate::ops::{Tools, column};

/// A pass that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    columns: usize,
    wanted_from: usize,
    /// One token a sequence: the threads are those for decoding.
    decodes: bool,
    phase: usize,
    unit: usize,
}

impl Session<'_> {
    /// Computes until all tokens are read or the budget is used up. Tokens of other sequences that wait are computed in
    /// the same passes.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`] when there is no token; [`Error::Cancelled`]; [`Error::PagesFull`] when a sequence that
    /// forgets finds no free page.
    pub fn advance(&mut self, mut budget: Budget<'_>) -> Result<Progress, Error> {
        self.advance_within(&mut budget)
    }

    /// As [`Session::advance`], and leaves the rest of the budget to the caller.
    pub(super) fn advance_within(&mut self, budget: &mut Budget<'_>) -> Result<Progress, Error> {
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
                self.begin()?;
            }
            if !self.run(budget)? {
                return Ok(Progress::Pending);
            }
        }
    }

    /// Forgets the pass under way. What it has written stands behind the computed tokens and is never read.
    pub(super) fn drop_pass(&mut self) {
        self.cursor = None;
        self.memory.states.iter_mut().for_each(|state| state.taken = 0);
    }

    /// Begins a pass over what waits: one token of every sequence that has just one, then as many as the batch takes of
    /// the selected sequence, then of the others. Others for which there are no pages wait on.
    fn begin(&mut self) -> Result<(), Error> {
        let state = self.state_mut();
        if state.done == state.fed && !state.logits_ready {
            // Only the logits are missing: the last token is computed once more, to the same bits.
            state.done = state.fed.saturating_sub(1);
            state.again = true;
        }
        let (selected, mut left) = (self.selected, self.limits.batch);
        let order = |index: usize, state: &SequenceState<'_>| match state.waiting() {
            1 => 0,
            _ if index == selected => 1,
            _ => 2,
        };
        for turn in 0..3 {
            for index in 0..self.memory.states.len() {
                if order(index, self.memory.states.at(index)) != turn {
                    continue;
                }
                let taken = match self.make_room(index, left) {
                    Ok(taken) => taken,
                    Err(error) if index == selected => {
                        self.drop_pass();
                        return Err(error);
                    }
                    Err(_) => 0,
                };
                self.memory.states.at_mut(index).taken = taken;
                left -= taken;
            }
        }
        self.fill_columns(false);
        Ok(())
    }

    /// Begins a pass over the next tokens of the selected sequence that keeps the logits of all its columns.
    pub(super) fn begin_all_logits(&mut self) -> Result<(), Error> {
        let taken = self.make_room(self.selected, self.limits.logits.min(self.limits.batch))?;
        self.state_mut().taken = taken;
        self.fill_columns(true);
        Ok(())
    }

    /// How many waiting tokens of a sequence the next pass can take, at most `most`; at least one if any wait. Forgets
    /// what its policy lets go, and gives it pages.
    fn make_room(&mut self, index: usize, most: usize) -> Result<usize, Error> {
        let policy = self.policy;
        let SessionMemory { states, pages: [all, windowed], run, .. } = &mut self.memory;
        let state = states.at_mut(index);
        if most == 0 || state.waiting() == 0 {
            return Ok(0);
        }
        if policy.begins_anew() && state.done >= policy.context() && state.waiting() > 0 {
            let gone = policy.forgotten(state.position(state.done, &policy)) - state.dropped;
            state.forget(policy.keep, gone);
            state.done = 0;
            all.release_from(index, 0);
            windowed.release_from(index, 0);
        }
        let from = state.place(state.done, &policy);
        let mut taken = state.waiting().min(most);
        taken = match policy.begins_anew() {
            true => taken.min(policy.context() - from.min(policy.context())),
            false => taken.min(policy.boundary(from) - from),
        };
        if from + taken > all.end(index) {
            let gone = all.forget_before(index, policy.retain_from(from)) * KV_BLOCK;
            state.forget(policy.keep, gone);
            taken = taken.min(all.end(index).saturating_sub(from));
        }
        if let Some(window) = self.window.filter(|_| from + taken > windowed.end(index)) {
            windowed.forget_before(index, from.saturating_sub(window + SLACK));
            taken = taken.min(windowed.end(index).saturating_sub(from));
        }
        // A token that is computed again has its page, shared or not.
        let fresh = from + usize::from(state.again);
        let [cache, window_cache] = &mut run.kv;
        if policy.forgets() {
            let (needed, free) = (all.needed(index, fresh, from + taken), all.free());
            while taken > 0 && all.needed(index, fresh, from + taken) > free {
                taken /= 2;
            }
            if taken == 0 {
                return Err(Error::PagesFull { needed, free });
            }
            all.reserve(index, fresh, from + taken, |from, to| cache.copy_page(from, to));
        }
        windowed.reserve(index, fresh, from + taken, |from, to| window_cache.copy_page(from, to));
        Ok(taken)
    }

    /// Fills the columns with what was taken: first the tokens whose logits nobody wants, then the others, by sequence.
    fn fill_columns(&mut self, all_logits: bool) {
        let policy = self.policy;
        let SessionMemory { states, columns, .. } = &mut self.memory;
        let (mut len, mut wanted_from, mut decodes) = (0, 0, true);
        for wanted in [false, true] {
            if wanted {
                wanted_from = len;
            }
            for (index, state) in states.iter_mut().enumerate().filter(|(_, state)| state.taken > 0) {
                let end = state.done + state.taken;
                decodes &= state.taken == 1;
                state.wanted = !all_logits && end == state.fed;
                state.logits_ready = false;
                for token in state.done..end {
                    let is_wanted = all_logits || state.wanted && token + 1 == end;
                    let id = state.tokens.get(token).copied().unwrap_or(0);
                    if is_wanted == wanted {
                        let position = state.place(token, &policy);
                        columns.set(len, id, position, index, policy.view(position));
                        len += 1;
                    }
                }
            }
        }
        self.cursor = Some(Cursor { columns: len, wanted_from, decodes, phase: 0, unit: 0 });
    }

    /// Runs the pass under way; true when it is done, false when the budget is used up.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; the pass is then forgotten.
    pub(super) fn run(&mut self, budget: &mut Budget<'_>) -> Result<bool, Error> {
        let Some(mut cursor) = self.cursor else { return Ok(true) };
        let forward = self.model.forward();
        let SessionMemory { run: memory, columns, states, pages: [all, windowed], .. } = &mut self.memory;
        let batch = columns.batch(cursor.columns, cursor.wanted_from, [all, windowed], self.policy.sinks());
        let (exec, skipped) = (Shielded(self.workers.exec()), CancelFlag::new());
        let workers = if cursor.decodes { self.limits.decode_threads } else { self.limits.threads };
        let crew = Crew { workers, cancel: self.cancel, ..Crew::new(&exec, &skipped) };
        let tools = Tools { crew, kernels: self.kernels };
        let mut pass = Pass { forward, batch, memory, tools };
        let (mut meter, profile) = (Meter::new(budget, &mut self.pace), &mut self.profile);
        while let Some(phase) = forward.phase(cursor.phase) {
            let (units, work) = (pass.units(phase), pass.work(phase));
            while cursor.unit < units {
                if crew.stops() {
                    return Err(self.stop_pass());
                }
                let allowed = meter.allowed(units - cursor.unit, work, workers);
                if allowed == 0 {
                    self.cursor = Some(cursor);
                    return Ok(false);
                }
                let units = cursor.unit..cursor.unit + allowed;
                match profile {
                    Some(profile) => profile.time(phase, || pass.run(phase, units)),
                    None => pass.run(phase, units),
                }
                if skipped.is_cancelled() {
                    return Err(self.stop_pass());
                }
                cursor.unit += allowed;
            }
            if cfg!(debug_assertions) {
                for column in pass.broken(phase) {
                    let sequence = pass.batch.sequences.get(column).map_or(0, |index| *index as usize);
                    states.at_mut(sequence).trace.note(phase);
                }
            }
            cursor = Cursor { phase: cursor.phase + 1, unit: 0, ..cursor };
        }
        self.cursor = None;
        self.commit();
        Ok(true)
    }

    /// Answers a wish to stop.
    fn stop_pass(&mut self) -> Error {
        self.drop_pass();
        if let Some(cancel) = self.cancel {
            cancel.reset();
        }
        Error::Cancelled
    }

    /// Makes a finished pass visible. Rows of logits are in the order of the sequences that have one.
    fn commit(&mut self) {
        let SessionMemory { states, run, saved, .. } = &mut self.memory;
        let vocab = self.model.spec().vocab;
        let mut row = 0;
        for (index, state) in states.iter_mut().enumerate().filter(|(_, state)| state.taken > 0) {
            state.done += core::mem::take(&mut state.taken);
            state.again = false;
            if core::mem::take(&mut state.wanted) {
                state.logits_ready = state.done == state.fed;
                keep_row(run.logits, row, saved, index, vocab);
                row += 1;
            }
        }
    }
}

/// Copies a row of a run's logits to where a sequence keeps its own. A single sequence keeps it in the first row itself.
pub(super) fn keep_row(logits: &mut [f32], row: usize, saved: &mut [f32], sequence: usize, vocab: usize) {
    if saved.is_empty() {
        copy_part(logits, vocab, row, 0);
    } else if let Some(place) = saved.chunks_exact_mut(vocab.max(1)).nth(sequence) {
        place.iter_mut().zip(column(logits, row, vocab)).for_each(|(place, logit)| *place = *logit);
    }
}
