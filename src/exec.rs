//! The threading seam: who runs the jobs of a step, and how a step is called off.
//!
//! The library never starts a thread of its own accord. A step is a list of phases, each a number of independent
//! jobs; [`crate::mem::split::for_each_job`] hands them to an [`Exec`], which only decides what runs where. Results
//! never depend on it.

use core::sync::atomic::{AtomicBool, Ordering};

/// Runs jobs on one or several threads: the shape of every job system's "parallel for".
///
/// # Contract
/// [`parallel_for`](Exec::parallel_for) calls `work(job, worker)` for every `job` below `n`, in any order, from any
/// threads, and returns when every call has returned. `worker` names who calls: below `workers`, and no two calls at
/// the same time have the same one. Calling everything inline with worker 0 is always correct, and never blocks
/// anything: no lock is held.
///
/// Memory safety does not rest on this contract. Jobs that were not called are done by the caller afterwards; jobs
/// called twice, and calls with the number of a worker that is taken or too high, do nothing.
pub trait Exec: Sync {
    /// The number of threads that can take part, at least 1.
    fn workers(&self) -> usize;

    /// Calls `work(job, worker)` for every job below `n` on at most `workers` threads.
    fn parallel_for(&self, workers: usize, n: usize, work: &(dyn Fn(usize, usize) + Sync));
}

/// Runs everything on the calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Serial;

impl Exec for Serial {
    fn workers(&self) -> usize {
        1
    }

    fn parallel_for(&self, _workers: usize, n: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        (0..n).for_each(|job| work(job, 0));
    }
}

/// A wish to stop, from any thread or from a signal handler: one relaxed store.
///
/// A session that was given one (`Session::set_cancel`) looks at it before every job. It answers the wish once, with an
/// error from the call that is going on or, if there is none, from the next one that would compute.
#[derive(Debug, Default)]
pub struct CancelFlag(AtomicBool);

impl CancelFlag {
    /// No wish yet.
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Asks to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has asked, and was not yet answered.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes the wish back.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// The threads of one run, and what may end it early.
#[derive(Clone, Copy)]
pub struct Crew<'c> {
    /// Who runs the jobs.
    pub exec: &'c dyn Exec,
    /// At most so many threads take part.
    pub workers: usize,
    /// Looked at before every job.
    pub cancel: Option<&'c CancelFlag>,
    /// Set when a job was left out because of `cancel`.
    pub skipped: &'c CancelFlag,
}

impl<'c> Crew<'c> {
    /// All threads of `exec`, and nobody to stop them. `skipped` stays as it is.
    pub fn new(exec: &'c dyn Exec, skipped: &'c CancelFlag) -> Self {
        Self { exec, workers: exec.workers(), cancel: None, skipped }
    }

    /// Whether the next job is to be left out.
    pub fn stops(&self) -> bool {
        let stops = self.cancel.is_some_and(CancelFlag::is_cancelled);
        if stops {
            self.skipped.cancel();
        }
        stops
    }
}
