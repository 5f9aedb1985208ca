//! How much one call may compute.

/// How much one call may compute.
#[derive(Clone, Copy)]
pub enum Budget<'c> {
    /// Until there is a result.
    Unlimited,
    /// So many units of work: parts of a phase, of some ten thousand multiplications each. Needs no clock, and stops at
    /// the same place every time.
    Units(u64),
    /// Until `clock` shows `at`. Less is done at a time the nearer that is, down to one unit, so the call ends late by
    /// one unit at most, as far as the machine lets it.
    Until {
        /// A clock that never goes back, in a unit of the host's choice. Ticks of some microseconds or less serve best.
        clock: &'c dyn Fn() -> u64,
        /// The time to stop.
        at: u64,
    },
}

impl core::fmt::Debug for Budget<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Budget::Unlimited => f.write_str("Unlimited"),
            Budget::Units(left) => write!(f, "Units({left})"),
            Budget::Until { at, .. } => write!(f, "Until({at})"),
        }
    }
}

/// How fast this machine works, by the host's clock: an estimate that outlasts a call. Results never depend on it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// Multiplications a tick; 0 as long as nothing is known.
    rate: f32,
}

/// A budget while it is spent.
pub(super) struct Meter<'b, 'c> {
    budget: &'b mut Budget<'c>,
    pace: &'b mut Pace,
    /// When the clock last moved, and what was done since.
    since: Option<u64>,
    done: f32,
}

impl<'b, 'c> Meter<'b, 'c> {
    /// A call begins.
    pub(super) fn new(budget: &'b mut Budget<'c>, pace: &'b mut Pace) -> Self {
        Self { budget, pace, since: None, done: 0.0 }
    }

    /// How many of `units`, of `work` multiplications each, may run now: at least `workers`, if any. Takes them from the
    /// budget.
    pub(super) fn allowed(&mut self, units: usize, work: usize, workers: usize) -> usize {
        match self.budget {
            Budget::Unlimited => units,
            Budget::Units(left) => {
                let taken = units.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                taken
            }
            Budget::Until { clock, at } => {
                let (now, at, work) = (clock(), *at, work.max(1) as f32);
                if now >= at {
                    return 0;
                }
                let sure = self.sure(now, at - now);
                // Rounds towards zero; a huge quotient becomes the largest number.
                let taken = ((sure / work) as usize).max(workers).clamp(1, units.max(1));
                self.done += taken as f32 * work;
                taken
            }
        }
    }

    /// Multiplications that end well before `left` ticks are over, even if the machine is several times slower than it
    /// just was: a quarter of what the pace promises, and at most twice what this call has already done since the clock
    /// last moved, as long as it has not moved at all.
    fn sure(&mut self, now: u64, left: u64) -> f32 {
        let ticks = self.since.map_or(0, |since| now.saturating_sub(since));
        if ticks > 0 && self.done > 0.0 {
            self.pace.rate = self.done / ticks as f32;
        }
        if ticks > 0 || self.since.is_none() {
            (self.since, self.done) = (Some(now), 0.0);
        }
        if self.pace.rate > 0.0 { self.pace.rate * (left as f32 / 4.0) } else { 2.0 * self.done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    /// A machine of `rate` multiplications a tick, and its clock.
    fn spend(rate: f64, ticks: u64, work: usize, resolution: u64) -> (u64, u64) {
        let time = Cell::new(0.0f64);
        let clock = || time.get() as u64 / resolution * resolution;
        let mut pace = Pace::default();
        let mut late = (0, 0);
        for _ in 0..20 {
            // Frames begin with a tick of the clock.
            time.set(time.get().ceil());
            let at = clock() + ticks;
            let mut budget = Budget::Until { clock: &clock, at };
            let mut meter = Meter::new(&mut budget, &mut pace);
            let mut looks = 0;
            loop {
                let units = meter.allowed(1_000_000, work, 1);
                if units == 0 {
                    break;
                }
                looks += 1;
                time.set(time.get() + (units * work) as f64 / rate);
            }
            late = (late.0.max(time.get() as u64 - at), late.1.max(looks));
        }
        late
    }

    #[test]
    fn a_deadline_is_kept_with_few_looks_at_the_clock() {
        // 2 ms in nanoseconds, units of 50,000, 20 multiplications a nanosecond: a unit is 2.5 µs.
        let (late, looks) = spend(20.0, 2_000_000, 50_000, 1);
        assert!(late <= 2_500 && looks < 60, "{late} ns late, {looks} looks");
        // The same by a clock of whole microseconds, and on a machine a hundred times slower.
        let (late, looks) = spend(20.0, 2_000_000, 50_000, 1_000);
        assert!(late <= 3_500 && looks < 60, "{late} ns late, {looks} looks");
        let (late, _) = spend(0.2, 2_000_000, 50_000, 1);
        assert!(late <= 250_000, "{late} ns late");
    }

    #[test]
    fn units_are_counted() {
        let mut budget = Budget::Units(10);
        let mut pace = Pace::default();
        let mut meter = Meter::new(&mut budget, &mut pace);
        assert_eq!([7, 7, 7].map(|units| meter.allowed(units, 1, 4)), [7, 3, 0]);
    }
}
