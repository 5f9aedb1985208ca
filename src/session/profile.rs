//! Where the time of passes goes.

use crate::model::phase::Phase;

/// Time spent in the phases of all passes, by a clock of the host: see [`Session::set_profile`](super::Session::set_profile).
///
/// The clock is read twice a phase and slice. Without a profile nothing is read.
#[derive(Clone, Copy)]
pub struct Profile {
    clock: fn() -> u64,
    ticks: [u64; Phase::NAMES.len()],
}

impl Profile {
    /// An empty profile. `clock` never goes back; its unit is the host's choice.
    pub const fn new(clock: fn() -> u64) -> Self {
        Self { clock, ticks: [0; Phase::NAMES.len()] }
    }

    /// Phases in the order in which they run, those of all layers together, and the ticks spent in each.
    pub fn phases(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Phase::NAMES.into_iter().zip(self.ticks)
    }

    /// Runs a part of a phase.
    pub(super) fn time(&mut self, phase: Phase, run: impl FnOnce()) {
        let start = (self.clock)();
        run();
        if let Some(ticks) = self.ticks.get_mut(phase.kind()) {
            *ticks += (self.clock)().saturating_sub(start);
        }
    }
}

impl core::fmt::Debug for Profile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_map().entries(self.phases()).finish()
    }
}
