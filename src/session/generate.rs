//! Generation: one token after the other.

use super::limits::SessionMemory;
use super::{Budget, Error, Progress, Session};
use crate::kernels::FloatEnv;
use crate::ops::column;
use crate::sample::{SampleError, Sampler};

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model gave this token, which ends a text or a turn.
    EndOfText(u32),
    /// The text reached a stop string; what was shown ends before it.
    Stop,
    /// As many tokens as [`Session::set_max_tokens`] allows.
    MaxTokens,
}

/// What a call of [`Session::step`] reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'s> {
    /// The budget is used up; call again.
    Pending,
    /// More text: whole characters, never empty.
    Piece(&'s str),
    /// A token whose text is not certain yet: it ends within a character, or may be the beginning of a stop string.
    Token(u32),
    /// The end.
    Done(Finish),
}

impl Session<'_> {
    /// Generates at most `tokens` tokens from now on; `None` for no limit but the context.
    pub fn set_max_tokens(&mut self, tokens: Option<usize>) {
        self.state_mut().text.left = tokens;
    }

    /// Whether tokens that end a text are treated like any other.
    pub fn set_ignore_end(&mut self, ignore: bool) {
        self.state_mut().text.ignore_end = ignore;
    }

    /// Why the last generation ended; `None` while it can go on. Feeding tokens opens it again.
    pub fn finish(&self) -> Option<Finish> {
        self.state().text.finish
    }

    /// Computes, samples and adds the next token; `None` at the end, see [`Session::finish`].
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`]; [`Error::ContextFull`] when there is no position for another token;
    /// [`Error::NonFinite`]; [`Error::Cancelled`].
    pub fn next_token(&mut self, sampler: &mut Sampler<'_>) -> Result<Option<u32>, Error> {
        match self.token_within(&mut Budget::Unlimited, sampler)? {
            Some(token) => Ok(token),
            None => Ok(None),
        }
    }

    /// As [`Session::next_token`] within a budget; the outer `None` when it is used up.
    pub(super) fn token_within(
        &mut self,
        budget: &mut Budget<'_>,
        sampler: &mut Sampler<'_>,
    ) -> Result<Option<Option<u32>>, Error> {
        let text = &mut self.state_mut().text;
        if text.finish.is_none() && text.left == Some(0) {
            text.finish = Some(Finish::MaxTokens);
        }
        if text.finish.is_some() {
            return Ok(Some(None));
        }
        // A sequence that forgets makes room for another token by computing those that wait.
        if self.state().fed > 0 && !self.policy.forgets() {
            self.check_room(1)?;
        }
        if self.advance_within(budget)? == Progress::Pending {
            return Ok(None);
        }
        let id = self.sample(sampler)?;
        let ends = self.model.tokenizer().is_some_and(|tokenizer| tokenizer.is_end(id));
        let text = &mut self.state_mut().text;
        if ends && !text.ignore_end {
            text.finish = Some(Finish::EndOfText(id));
            return Ok(Some(None));
        }
        text.left = text.left.map(|left| left - 1);
        let fed = self.state().fed;
        if let Some(place) = self.state_mut().tokens.get_mut(fed) {
            *place = id;
        }
        self.add(1)?;
        Ok(Some(Some(id)))
    }

    /// A token id drawn from the logits. Changes nothing but the sampler.
    fn sample(&mut self, sampler: &mut Sampler<'_>) -> Result<u32, Error> {
        let _float_env = FloatEnv::enter();
        let SessionMemory { run, saved, states, candidates, .. } = &mut self.memory;
        let vocab = self.model.spec().vocab;
        let logits = if saved.is_empty() { &*run.logits } else { column(saved, self.selected, vocab) };
        let logits = logits.get(..vocab).unwrap_or_default();
        let state = states.at(self.selected);
        let history = state.seen(&self.policy);
        sampler.sample(logits, history, candidates).map_err(|error| match error {
            SampleError::NonFinite => Error::NonFinite {
                position: state.len(&self.policy).saturating_sub(1),
                first: state.trace.first(),
            },
            other => Error::Sample(other),
        })
    }
}
