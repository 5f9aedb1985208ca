//! Counts the work of inner operations while unit tests run, so that tests can say how work grows without a clock. In
//! every other build [`count`] is nothing.

/// Counts `work` more steps of this thread: bytes read, comparisons, look-ups, places of a text.
#[inline(always)]
pub(crate) fn count(work: usize) {
    #[cfg(test)]
    tests::STEPS.with(|steps| steps.set(steps.get() + work as u64));
    let _ = work;
}

#[cfg(test)]
pub(crate) mod tests {
    extern crate std;
    use core::cell::Cell;

    std::thread_local! {
        pub(super) static STEPS: Cell<u64> = const { Cell::new(0) };
    }

    /// What `work` returns, and how many steps it took.
    pub(crate) fn counted<R>(work: impl FnOnce() -> R) -> (R, u64) {
        let before = STEPS.get();
        let result = work();
        (result, STEPS.get() - before)
    }
}
