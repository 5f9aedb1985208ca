//! What a sequence does when its context is full.
//!
//! What a token sees is a function of its position alone, never of when pages were given back, so a policy does not
//! depend on batches, budgets or companions. Keys are never rotated again: a rotated key serves every query that is
//! rotated by the right difference. Tokens that were forgotten in between are skipped by turning the query back to where
//! it would stand without them when it meets the tokens that are kept (the positions within the cache of Xiao et al.
//! 2023, "Efficient streaming language models with attention sinks").

use super::Error;
use crate::kernels::KV_BLOCK;

/// What a sequence does when its context is full. Chosen with [`super::Limits::policy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContextPolicy {
    /// Feeding and generating stop with [`Error::ContextFull`].
    #[default]
    Stop,
    /// Half of the tokens behind the first `keep` are forgotten, as often as needed; what is left moves up. `keep` is
    /// rounded up to whole pages of 16. Models with rotary positions go on at once; models with learned positions
    /// compute what is left once more.
    Shift {
        /// Tokens at the beginning that are never forgotten, such as a system prompt.
        keep: usize,
    },
    /// Every token sees the first `sinks` tokens and as many of the last ones as fit: the context less the pages of the
    /// sinks and three pages in reserve. Rotary positions only.
    Slide {
        /// Tokens at the beginning that every token sees; 4 are enough to keep a model sane.
        sinks: usize,
    },
}

/// Positions behind the last one that a sequence can always go back by, whatever it forgets: 16.
pub(super) const SLACK: usize = KV_BLOCK;

/// A policy with its numbers, for a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    kind: ContextPolicy,
    context: usize,
    /// Positions 0 to here are never forgotten; whole pages.
    pub(super) keep: usize,
    /// `Shift`: how many are forgotten at a time. `Slide`: how many are seen.
    step: usize,
    /// Positions begin anew after a shift, so everything behind it is computed again.
    anew: bool,
}

/// What the token at a position sees of its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    /// First position that is seen behind those that are kept; 0 when nothing is hidden.
    pub(super) first: usize,
    /// Where the query stands for those that are kept.
    pub(super) turned: usize,
}

impl Policy {
    /// The policy for a context of so many positions. `learned` models have a table of positions.
    pub(super) fn new(kind: ContextPolicy, context: usize, learned: bool) -> Result<Self, Error> {
        let stop = Self { kind, context, keep: 0, step: 0, anew: false };
        let pages = |positions: usize| positions.div_ceil(KV_BLOCK) * KV_BLOCK;
        let context = context / KV_BLOCK * KV_BLOCK;
        let too_short = |what, value, rule| Err(Error::Limit { what, value, rule });
        match kind {
            ContextPolicy::Stop => Ok(stop),
            ContextPolicy::Shift { keep } => {
                let keep = pages(keep.min(context));
                let step = (context - keep) / 2 / KV_BLOCK * KV_BLOCK;
                if step == 0 {
                    return too_short("context", context, "at least two pages of 16 more than what is kept");
                }
                Ok(Self { kind, context, keep, step, anew: learned })
            }
            ContextPolicy::Slide { .. } if learned => {
                too_short("context", context, "a window slides with rotary positions only")
            }
            ContextPolicy::Slide { sinks } => {
                let keep = pages(sinks.min(context));
                let step = (context - keep).saturating_sub(3 * KV_BLOCK);
                if step == 0 {
                    return too_short("context", context, "at least four pages of 16 more than the sinks");
                }
                Ok(Self { kind, context, keep, step, anew: false })
            }
        }
    }

    /// Which policy.
    pub(super) fn kind(&self) -> ContextPolicy {
        self.kind
    }

    /// Positions that a sequence's pages have room for.
    pub(super) fn context(&self) -> usize {
        self.context
    }

    /// Whether a sequence may have more tokens than its context.
    pub(super) fn forgets(&self) -> bool {
        self.kind != ContextPolicy::Stop
    }

    /// Whether everything that is left is computed again after a shift.
    pub(super) fn begins_anew(&self) -> bool {
        self.anew
    }

    /// Tokens that are never hidden.
    pub(super) fn sinks(&self) -> usize {
        match self.kind {
            ContextPolicy::Stop => 0,
            ContextPolicy::Shift { .. } => self.keep,
            ContextPolicy::Slide { sinks } => sinks.min(self.keep),
        }
    }

    /// Tokens that are kept at a time: waiting ones may exceed the context where it forgets.
    pub(super) fn tokens(&self) -> usize {
        if self.forgets() { 2 * self.context } else { self.context }
    }

    /// `Shift`: tokens forgotten before the token at `position` is computed.
    pub(super) fn forgotten(&self, position: usize) -> usize {
        match self.kind {
            ContextPolicy::Shift { .. } if position >= self.context => {
                ((position - self.context) / self.step.max(1) + 1) * self.step
            }
            _ => 0,
        }
    }

    /// What the token at `position` sees, counted from the sequence's first token.
    pub(super) fn view(&self, position: usize) -> View {
        let first = match self.kind {
            ContextPolicy::Stop => 0,
            ContextPolicy::Shift { .. } => match self.forgotten(position) {
                0 => 0,
                gone => self.keep + gone,
            },
            ContextPolicy::Slide { .. } => (position + 1).saturating_sub(self.step),
        };
        if first <= self.sinks() {
            return View { first: 0, turned: position };
        }
        let turned = match self.kind {
            ContextPolicy::Slide { .. } => self.sinks() + self.step - 1,
            _ => position - self.forgotten(position),
        };
        View { first, turned }
    }

    /// One behind the last position that sees what `position` sees; positions of one pass do not go beyond.
    pub(super) fn boundary(&self, position: usize) -> usize {
        match self.kind {
            ContextPolicy::Shift { .. } => self.context + self.forgotten(position),
            _ => usize::MAX,
        }
    }

    /// First position, behind those that are kept, that must stay when the next token is at `position`: a sequence may go
    /// back by [`SLACK`], and compute the token before once more.
    pub(super) fn retain_from(&self, position: usize) -> usize {
        match self.kind {
            ContextPolicy::Stop => 0,
            ContextPolicy::Shift { .. } => self.view(position).first,
            ContextPolicy::Slide { .. } => self.view(position.saturating_sub(SLACK + 1)).first,
        }
    }

    /// First position, behind those that are kept, that a sequence of `len` computed tokens needs: for its next token, if
    /// one `waits`, and for its last one.
    pub(super) fn held_from(&self, len: usize, waits: bool) -> usize {
        match self.kind {
            ContextPolicy::Shift { .. } if !waits => self.retain_from(len.saturating_sub(1)),
            _ => self.retain_from(len),
        }
    }

    /// The same of a sequence that once had `high` tokens: when it had them, what they no longer needed may have been given
    /// back. What its last token sees is there.
    pub(super) fn still_held_from(&self, len: usize, high: usize, waits: bool) -> usize {
        match self.kind {
            ContextPolicy::Slide { .. } => self.retain_from(high).min(self.view(len.saturating_sub(1)).first),
            _ => self.held_from(len, waits),
        }
    }

    /// Whether a sequence that once had `high` tokens can go back to `len` of them: what the last of these sees must not
    /// be forgotten. Where layers see a window, what is behind it is gone too, unless all can be computed again.
    pub(super) fn can_return(&self, len: usize, high: usize, windowed: bool) -> bool {
        let (seen, last) = (self.view(len.saturating_sub(1)), self.view(high.saturating_sub(1)));
        let near = len + SLACK >= high;
        let same = match self.kind {
            ContextPolicy::Slide { .. } => near,
            _ => seen.first == last.first && (near || !windowed),
        };
        len <= self.keep || last.first == 0 || same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_hides_nothing() {
        let policy = Policy::new(ContextPolicy::Stop, 100, true).unwrap();
        assert_eq!(policy.view(99), View { first: 0, turned: 99 });
        assert!(policy.can_return(0, 100, false) && policy.can_return(57, 100, false) && !policy.forgets());
        assert_eq!((policy.tokens(), policy.retain_from(99)), (100, 0));
    }

    #[test]
    fn shift_forgets_half_of_what_is_not_kept() {
        // 20 tokens to keep are two pages; of the other 96 positions, 48 go at a time.
        let policy = Policy::new(ContextPolicy::Shift { keep: 20 }, 130, false).unwrap();
        assert_eq!((policy.context(), policy.keep, policy.sinks()), (128, 32, 32));
        assert_eq!((policy.view(127).first, policy.boundary(127)), (0, 128));
        assert_eq!(policy.view(128), View { first: 80, turned: 80 });
        assert_eq!(policy.view(175), View { first: 80, turned: 127 });
        assert_eq!((policy.boundary(128), policy.boundary(175)), (176, 176));
        assert_eq!(policy.view(176), View { first: 128, turned: 80 });
        assert!(
            policy.can_return(129, 176, false)
                && !policy.can_return(128, 176, false)
                && policy.can_return(32, 176, false)
        );
        assert!(policy.can_return(5, 128, false) && policy.can_return(100, 128, true));
        assert!(!policy.can_return(140, 176, true) && policy.can_return(160, 176, true));
    }

    #[test]
    fn slide_sees_sinks_and_a_window() {
        let policy = Policy::new(ContextPolicy::Slide { sinks: 4 }, 128, false).unwrap();
        assert_eq!((policy.keep, policy.sinks()), (16, 4));
        // 128 - 16 - 48 = 64 positions are seen.
        assert_eq!((policy.view(63).first, policy.view(67).first, policy.view(68).first), (0, 0, 5));
        assert_eq!(policy.view(1000), View { first: 937, turned: 67 });
        assert_eq!(policy.retain_from(1000), 920);
        // Between two passes there is always room for some tokens.
        for position in 0..1000usize {
            let gone = policy.retain_from(position).saturating_sub(policy.keep) / KV_BLOCK * KV_BLOCK;
            assert!(128 + gone > position, "{position}");
        }
        assert!(
            policy.can_return(984, 1000, false)
                && !policy.can_return(983, 1000, false)
                && policy.can_return(16, 1000, false)
        );
        assert!(policy.can_return(0, 1000, false) && policy.can_return(3, 60, false));
    }

    #[test]
    fn contexts_that_are_too_short_are_refused() {
        let limit = |kind, context, learned| Policy::new(kind, context, learned).is_err();
        assert!(limit(ContextPolicy::Shift { keep: 1 }, 47, false));
        assert!(!limit(ContextPolicy::Shift { keep: 1 }, 48, false));
        assert!(limit(ContextPolicy::Shift { keep: 100 }, 100, true));
        assert!(limit(ContextPolicy::Slide { sinks: 4 }, 79, false));
        assert!(!limit(ContextPolicy::Slide { sinks: 4 }, 80, false));
        assert!(limit(ContextPolicy::Slide { sinks: 4 }, 1000, true));
        assert!(!limit(ContextPolicy::Slide { sinks: 0 }, 64, false));
    }
}
