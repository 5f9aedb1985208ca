//! Where a sequence's numbers stopped being finite. Noted in builds with debug assertions alone; in others this is nothing.

use crate::model::phase::Phase;

/// The first phase whose results were not finite, since the sequence was last cut.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trace {
    #[cfg(debug_assertions)]
    first: Option<Phase>,
}

impl Trace {
    /// Notes that the results of a phase are not finite.
    pub(super) fn note(&mut self, phase: Phase) {
        #[cfg(debug_assertions)]
        let first = &mut self.first;
        #[cfg(not(debug_assertions))]
        let first = &mut None;
        *first = first.or(Some(phase));
    }

    /// The first phase that was noted.
    pub(super) fn first(self) -> Option<Phase> {
        #[cfg(debug_assertions)]
        let first = self.first;
        #[cfg(not(debug_assertions))]
        let first = None;
        first
    }
}
