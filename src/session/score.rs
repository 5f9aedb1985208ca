//! Log-probabilities.

use super::{Budget, Error, Session};
use crate::kernels::FloatEnv;
use crate::sample::log_prob;

impl Session<'_> {
    /// Feeds `ids` and shows the logits behind each of them: `seen(position, logits)`, positions counted from the
    /// session's first token, logits one a token id. Computes [`super::Limits::logits`] positions at a time.
    ///
    /// # Errors
    /// As [`Session::feed_tokens`].
    pub fn feed_with_logits(
        &mut self,
        ids: &[u32],
        mut seen: impl FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        if self.done < self.fed {
            self.advance(Budget::Unlimited)?;
        }
        self.feed_tokens(ids)?;
        let _float_env = FloatEnv::enter();
        let vocab = self.model.spec().vocab;
        while self.done < self.fed {
            let first = self.done;
            self.begin(true);
            self.run(&mut Budget::Unlimited);
            for (i, row) in self.memory.run.logits.chunks_exact(vocab).take(self.done - first).enumerate() {
                seen(first + i, row);
            }
            self.keep_last_row(self.done - first, vocab);
        }
        Ok(())
    }

    /// Moves the last of `rows` rows of logits to where [`Session::logits`] reads it.
    fn keep_last_row(&mut self, rows: usize, vocab: usize) {
        if rows > 0 {
            let start = (rows - 1) * vocab;
            let end = (start + vocab).min(self.memory.run.logits.len());
            self.memory.run.logits.copy_within(start..end, 0);
            self.logits_ready = true;
        }
    }

    /// The log-probability of a continuation, in nats: log P(y | x) = sum over t of log p(y_t | y_<t, x), where x is what
    /// the session has read so far and y is `ids`. Afterwards the session has read y too. `each` gets every term.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`] when the session has no token; [`Error::ContextFull`], [`Error::Token`];
    /// [`Error::NonFinite`] when a logit is infinite or not a number, with the tokens read.
    pub fn log_prob(&mut self, ids: &[u32], mut each: impl FnMut(f64)) -> Result<f64, Error> {
        let Some(first) = ids.first() else { return Ok(0.0) };
        let vocab = self.model.spec().vocab;
        if let Some(id) = ids.iter().copied().find(|id| *id as usize >= vocab) {
            return Err(Error::Token { id, vocab });
        }
        if ids.len() > self.room() {
            return Err(Error::ContextFull { needed: ids.len(), room: self.room(), context: self.context() });
        }
        self.advance(Budget::Unlimited)?;
        let start = self.fed;
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
            Some(position) => Err(Error::NonFinite { position }),
            None => Ok(sum),
        }
    }
}
