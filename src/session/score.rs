//! Log-probabilities.

use super::limits::SessionMemory;
use super::pass::keep_row;
use super::{Budget, Error, Session};
use crate::kernels::FloatEnv;
use crate::sample::log_prob;

impl Session<'_> {
    /// Feeds `ids` and shows the logits behind each of them: `seen(position, logits)`, positions counted from the
    /// session's first token, logits one a token id. Computes [`super::Limits::logits`] positions at a time.
    ///
    /// # Errors
    /// As [`Session::feed_tokens`] and [`Session::advance`]; after the latter the tokens are fed, and wait.
    pub fn feed_with_logits(
        &mut self,
        ids: &[u32],
        mut seen: impl FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        if self.state().waiting() > 0 {
            self.advance(Budget::Unlimited)?;
        }
        // A pass of other sequences under way would mix with the rows of this one.
        self.drop_pass();
        let mut next = self.position();
        self.feed_tokens(ids)?;
        let _float_env = FloatEnv::enter();
        let vocab = self.model.spec().vocab;
        while self.state().waiting() > 0 {
            self.begin_all_logits()?;
            let first = self.state().done;
            self.run(&mut Budget::Unlimited)?;
            let rows = self.state().done - first;
            for (i, row) in self.memory.run.logits.chunks_exact(vocab.max(1)).take(rows).enumerate() {
                // A policy that begins anew computes tokens once more that were shown before.
                let position = self.state().position(first + i, &self.policy);
                if position >= next {
                    seen(position, row);
                    next = position + 1;
                }
            }
            let SessionMemory { run, saved, .. } = &mut self.memory;
            keep_row(run.logits, rows.saturating_sub(1), saved, self.selected, vocab);
            self.state_mut().logits_ready = true;
        }
        Ok(())
    }

    /// The log-probability of a continuation, in nats: log P(y | x) = sum over t of log p(y_t | y_<t, x), where x is what
    /// the session has read so far and y is `ids`. Afterwards the session has read y too. `each` gets every term.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`] when the session has no token; [`Error::ContextFull`], [`Error::Token`];
    /// [`Error::NonFinite`] when a logit is infinite or not a number, with the tokens read; [`Error::Cancelled`].
    pub fn log_prob(&mut self, ids: &[u32], mut each: impl FnMut(f64)) -> Result<f64, Error> {
        let Some(first) = ids.first() else { return Ok(0.0) };
        let vocab = self.model.spec().vocab;
        if let Some(id) = ids.iter().copied().find(|id| *id as usize >= vocab) {
            return Err(Error::Token { id, vocab });
        }
        self.check_room(ids.len())?;
        self.advance(Budget::Unlimited)?;
        let start = self.position();
        let (mut sum, mut broken) = (0.0, None);
        let mut term = |position: usize, logits: &[f32], id: u32| match log_prob(logits, id) {
            Ok(term) => {
                sum += term;
                each(term);
            }
            Err(_) => broken = broken.or(Some(position)),
        };
        term(start - 1, self.logits().unwrap_or_default(), *first);
        self.feed_with_logits(ids, |position, logits| {
            if let Some(next) = ids.get(position + 1 - start) {
                term(position, logits, *next);
            }
        })?;
        match broken {
            Some(position) => Err(Error::NonFinite { position, first: self.state().trace.first() }),
            None => Ok(sum),
        }
    }
}
