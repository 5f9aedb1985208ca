//! The threading seam: who runs the work of a step.
//!
//! The library never starts a thread of its own accord. A step is a list of phases, each a number of independent
//! jobs; [`crate::mem::split::for_each_job`] hands the jobs out one by one from a counter, and an [`Exec`] only decides
//! how many threads take part. Results never depend on it.

/// Runs one closure on one or several threads.
///
/// # Contract
/// [`run`](Exec::run) calls `work` at least zero times, from any threads, at the same time or one after the other, and
/// returns only when every call has returned. Calling it once, inline, is always correct: each call takes jobs until
/// none are left, and the caller finishes whatever remains.
pub trait Exec: Sync {
    /// An upper bound of the calls of `work` that make sense: the number of threads. At least 1.
    fn workers(&self) -> usize;

    /// Calls `work` on up to `workers` threads and waits for all of them.
    fn run(&self, workers: usize, work: &(dyn Fn() + Sync));
}

/// Runs everything on the calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Serial;

impl Exec for Serial {
    fn workers(&self) -> usize {
        1
    }

    fn run(&self, _workers: usize, work: &(dyn Fn() + Sync)) {
        work();
    }
}
