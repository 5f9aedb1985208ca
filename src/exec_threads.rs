//! A small pool of threads for programs without a job system of their own.
//!
//! [`Threads::new`] is the only place of the library that starts threads. An idle pool uses no processor time: a
//! thread without work looks for more for some tens of microseconds, so that the phases of a step follow each other
//! quickly, and then sleeps. The thread that calls [`parallel_for`](Exec::parallel_for) works itself and never waits for a helper that has not
//! begun, so a machine with fewer processors than threads loses little.
//!
//! # How it works
//! One atomic word holds the *tickets*, how many helpers may still join, and the *runners*, how many joined and have
//! not finished. A run stores its closure, then the tickets; a helper that takes a ticket becomes a runner in the same
//! atomic step, and only a runner reads the closure. The run ends by taking the tickets back and waiting until there
//! is no runner, so nobody holds the closure after that. The lock below serves sleeping and waking only; it is never
//! held while work runs.
#![allow(unsafe_code)]

use crate::exec::Exec;
use core::cell::UnsafeCell;
use core::mem;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::any::Any;
use std::boxed::Box;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::vec::Vec;
use std::{format, io};

/// Most threads of a pool; also what a half of the state word can count.
pub const MAX_THREADS: usize = 1024;

/// How long a thread looks for work before it sleeps: as long as jobs of a phase may differ, so that helpers do not sleep
/// in every phase. To wake one takes tens of microseconds, more than most phases of a step.
const PATIENCE: Duration = Duration::from_micros(50);
/// The same in a pool of more threads than the machine has processors, where looking keeps others from working.
const LITTLE_PATIENCE: Duration = Duration::from_micros(2);
/// Looks between two at the clock.
const SPINS: u32 = 16;
/// After these, times to let another thread have the processor.
const YIELDS: u32 = 4;

/// The state word: runners in the lower half, tickets in the upper one.
const TICKET: u32 = 1 << 16;
const RUNNERS: u32 = TICKET - 1;

type Work = *const (dyn Fn(usize) + Sync);

/// What the threads of a pool share.
struct Shared {
    /// Tickets and runners.
    state: AtomicU32,
    /// The closure of the run: written by the run while there is neither ticket nor runner, read by runners.
    work: UnsafeCell<Option<Work>>,
    /// Whether a run is going on; it owns `work` and the tickets.
    busy: AtomicBool,
    /// How long a thread looks before it sleeps.
    patience: Duration,
    /// Set once, when the pool ends.
    stop: AtomicBool,
    /// Helpers that sleep or are about to.
    sleepers: AtomicUsize,
    /// Whether the run sleeps, or is about to, until the last runner ends.
    run_waits: AtomicBool,
    /// Orders falling asleep against waking; holds the first panic of a runner.
    lock: Mutex<Option<Box<dyn Any + Send>>>,
    /// Helpers sleep here.
    wake_helpers: Condvar,
    /// The run sleeps here.
    wake_run: Condvar,
}

// SAFETY: every field but `work` is `Sync`; `work` follows the protocol of the module's head, and the closure behind
// it is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing is bound to a thread.
unsafe impl Send for Shared {}

/// A pool of threads. It ends, and waits for its threads, when it is dropped.
///
/// # Panics
/// If a call of the work panics, the others still finish, and [`parallel_for`](Exec::parallel_for) then panics on the calling thread
/// with what the first one threw. The pool stays usable.
///
/// # Several callers
/// A pool serves one run at a time: one from another thread meanwhile, or from inside of work, is done inline
/// without waiting.
pub struct Threads {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

impl core::fmt::Debug for Threads {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Threads").field("workers", &self.workers()).finish_non_exhaustive()
    }
}

impl Threads {
    /// A pool for `threads` threads at work, the caller's included: `threads - 1` are started. 0 counts as 1, and
    /// more than [`MAX_THREADS`] as that.
    ///
    /// Allocates; [`parallel_for`](Exec::parallel_for) does not.
    ///
    /// # Errors
    /// What the operating system says if it starts no more threads; those already started are ended.
    pub fn new(threads: usize) -> io::Result<Self> {
        let threads = threads.clamp(1, MAX_THREADS);
        let crowded = thread::available_parallelism().is_ok_and(|processors| threads > processors.get());
        let shared = Arc::new(Shared {
            patience: if crowded { LITTLE_PATIENCE } else { PATIENCE },
            state: AtomicU32::new(0),
            work: UnsafeCell::new(None),
            busy: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            run_waits: AtomicBool::new(false),
            lock: Mutex::new(None),
            wake_helpers: Condvar::new(),
            wake_run: Condvar::new(),
        });
        let mut pool = Self { shared, helpers: Vec::new() };
        for n in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let helper = thread::Builder::new().name(format!("locutor-{n}")).spawn(move || shared.help(n))?;
            pool.helpers.push(helper);
        }
        Ok(pool)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(self.shared.guard());
        self.shared.wake_helpers.notify_all();
        for helper in self.helpers.drain(..) {
            // A helper catches the panics of work, so there is nothing to learn from its end.
            let _ = helper.join();
        }
    }
}

impl Exec for Threads {
    fn workers(&self) -> usize {
        self.helpers.len() + 1
    }

    fn parallel_for(&self, workers: usize, n: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        let (next_job, next_worker) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let workers = workers.min(n);
        // With all threads asked for, each has the same number every time, so that it finds in its cache what it left
        // there.
        let all = workers == self.workers();
        self.run(workers, &|thread| {
            let worker = if all { thread } else { next_worker.fetch_add(1, Ordering::Relaxed) };
            loop {
                let job = next_job.fetch_add(1, Ordering::Relaxed);
                if job >= n {
                    return;
                }
                work(job, worker);
            }
        });
    }
}

impl Threads {
    /// Calls `work` on up to `workers` threads, on the caller's at least, and waits for all of them. It is told the
    /// thread's number, 0 for the caller.
    fn run(&self, workers: usize, work: &(dyn Fn(usize) + Sync)) {
        let helpers = workers.saturating_sub(1).min(self.helpers.len());
        if helpers == 0 || self.shared.busy.swap(true, Ordering::Acquire) {
            return work(0);
        }
        self.shared.publish(helpers as u32, self.helpers.len(), work);
        let mine = catch_unwind(AssertUnwindSafe(|| work(0)));
        self.shared.finish();
        let theirs = self.shared.guard().take();
        self.shared.busy.store(false, Ordering::Release);
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    /// The lock, whatever happened to other holders: what it protects is whole at any time.
    fn guard(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a run: from here on helpers call `work`, until [`finish`](Self::finish).
    fn publish(&self, tickets: u32, helpers: usize, work: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes. `run` calls `finish` before it returns, whatever `work` does, and after
        // that nobody reads the pointer again.
        let work = unsafe { mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Work>(work) };
        // SAFETY: `busy` was taken, so no other run writes here; there is neither ticket nor runner, so no helper
        // reads. The helpers of the last run had ended before `busy` was given back.
        unsafe { *self.work.get() = Some(work) };
        // Release: whoever takes a ticket sees the closure. SeqCst orders it before the look at `sleepers`; see
        // `sleep`. A swap for the reason that `finish` gives.
        self.state.swap(tickets * TICKET, Ordering::SeqCst);
        let sleepers = self.sleepers.load(Ordering::SeqCst);
        // Helpers awake will find the tickets by themselves.
        let wanted = (tickets as usize).saturating_sub(helpers.saturating_sub(sleepers));
        if wanted == 0 {
            return;
        }
        // A helper counted as a sleeper has either begun to wait, or does not hold the lock and will look at `state`
        // once more: after this, every one of them is either waiting or sees the tickets.
        drop(self.guard());
        if wanted >= sleepers {
            self.wake_helpers.notify_all();
        } else {
            (0..wanted).for_each(|_| self.wake_helpers.notify_one());
        }
    }

    /// Ends a run: no helper begins any more, and all that began have returned.
    fn finish(&self) {
        // Acquire: what the runners that have ended wrote is seen here.
        let mut state = self.state.fetch_and(RUNNERS, Ordering::SeqCst) & RUNNERS;
        let mut wait = Wait::new(self.patience);
        while state != 0 && wait.look() {
            state = self.state.load(Ordering::Acquire);
        }
        if state != 0 {
            let mut guard = self.guard();
            // As in `sleep`: either this sees the last runner's end, or that runner sees `run_waits`. A swap, because
            // QEMU's AArch64 lets a SeqCst load pass the SeqCst store before it (7.2 does), and nobody would wake.
            self.run_waits.swap(true, Ordering::SeqCst);
            while self.state.load(Ordering::SeqCst) != 0 {
                guard = self.wake_run.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            self.run_waits.store(false, Ordering::SeqCst);
        }
        // SAFETY: as in `publish`: neither ticket nor runner, and `busy` is ours.
        unsafe { *self.work.get() = None };
    }

    /// The life of helper `thread`.
    fn help(&self, thread: usize) {
        let mut wait = Wait::new(self.patience);
        while !self.stop.load(Ordering::SeqCst) {
            if self.join() {
                self.call(thread);
            } else if wait.look() {
                continue;
            } else {
                self.sleep();
            }
            wait = Wait::new(self.patience);
        }
    }

    /// Takes a ticket, if there is one; the helper is then a runner.
    fn join(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state >= TICKET {
            // Acquire: sees the closure of the run that issued this very ticket, even if it is another run than the
            // one whose state was loaded.
            match self.state.compare_exchange_weak(
                state,
                state - TICKET + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// Calls the work of the run that this runner joined, and leaves the run.
    fn call(&self, thread: usize) {
        // SAFETY: a runner: the run wrote the closure before it issued the ticket, and neither changes nor drops it
        // before this runner has left.
        let result =
            catch_unwind(AssertUnwindSafe(|| unsafe { (*self.work.get()).map(|work| (*work)(thread)) }));
        if let Err(panic) = result {
            let mut first = self.guard();
            if first.is_none() {
                *first = Some(panic);
            } else if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
                // What was thrown throws again when it is dropped, and might go on so.
                mem::forget(again);
            }
        }
        // Release: the run sees what this call wrote. SeqCst: see `finish`.
        let before = self.state.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.run_waits.load(Ordering::SeqCst) {
            drop(self.guard());
            self.wake_run.notify_one();
        }
    }

    /// Sleeps until there may be work.
    ///
    /// No wake-up is lost: the helper counts itself, then looks for tickets; a run issues tickets, then looks at the
    /// count. All four are SeqCst, so at least one of them sees the other.
    fn sleep(&self) {
        let mut guard = self.guard();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.state.load(Ordering::SeqCst) < TICKET && !self.stop.load(Ordering::SeqCst) {
            guard = self.wake_helpers.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A thread's wait for something that others do, before it sleeps.
struct Wait {
    patience: Duration,
    looks: u32,
    /// Read after the first looks: most waits end before.
    since: Option<Instant>,
    yields: u32,
}

impl Wait {
    fn new(patience: Duration) -> Self {
        Self { patience, looks: 0, since: None, yields: 0 }
    }

    /// Lets a moment pass; false when it was enough.
    fn look(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        if !self.looks.is_multiple_of(SPINS) {
            spin_loop();
            return true;
        }
        if self.since.get_or_insert_with(Instant::now).elapsed() < self.patience {
            return true;
        }
        self.yields += 1;
        thread::yield_now();
        self.yields <= YIELDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::{CancelFlag, Crew};
    use crate::mem::split::{Chunks, for_each_job};
    use std::vec;

    fn pool(threads: usize) -> Threads {
        Threads::new(threads).unwrap()
    }

    #[test]
    fn every_job_runs_once() {
        for threads in [0, 1, 2, 3, 8] {
            let pool = pool(threads);
            assert_eq!(pool.workers(), threads.max(1));
            for round in 0..200u32 {
                let mut array = vec![0u32; 97];
                let mut scratch = vec![0f32; 8 * 4];
                let parts = (Chunks::new(&mut array, 3),);
                let skipped = CancelFlag::new();
                let crew = Crew::new(&pool, &skipped);
                for_each_job(crew, 0..33, parts, &mut scratch, 4, |job, (part,), scratch| {
                    scratch.fill(job as f32);
                    part.iter_mut().for_each(|v| *v += round + job as u32);
                    assert!(scratch.iter().all(|&v| v == job as f32));
                });
                assert!(array.iter().enumerate().all(|(i, &v)| v == round + i as u32 / 3));
            }
        }
    }

    /// Many tiny runs, so that runs begin and end while helpers join, fall asleep and wake up.
    #[test]
    fn many_small_runs() {
        let pool = pool(8);
        for round in 0..30_000u32 {
            let (calls, sum) = (AtomicU32::new(0), AtomicU32::new(0));
            // Every now and then wait for a helper, so that some join however busy the machine is.
            let company = 1 + u32::from(round % 64 == 0);
            let deadline = Instant::now() + Duration::from_secs(20);
            pool.run(2 + (round % 7) as usize, &|_| {
                sum.fetch_add(round, Ordering::Relaxed);
                calls.fetch_add(1, Ordering::Relaxed);
                while calls.load(Ordering::Relaxed) < company && Instant::now() < deadline {
                    thread::yield_now();
                }
            });
            let calls = calls.into_inner();
            assert!((company..=8).contains(&calls), "{calls} calls");
            assert_eq!(sum.into_inner(), calls * round);
        }
    }

    #[test]
    fn asked_for_helpers_take_part() {
        let pool = pool(4);
        // Each call waits until four are running: it hangs, and fails by the deadline, if a helper stays away.
        let running = AtomicU32::new(0);
        let deadline = Instant::now() + Duration::from_secs(20);
        pool.run(4, &|_| {
            running.fetch_add(1, Ordering::SeqCst);
            while running.load(Ordering::SeqCst) < 4 && Instant::now() < deadline {
                thread::yield_now();
            }
        });
        assert_eq!(running.into_inner(), 4);
    }

    #[test]
    fn no_more_than_asked_for() {
        let pool = pool(8);
        for _ in 0..500 {
            let calls = AtomicU32::new(0);
            pool.run(2, &|_| {
                calls.fetch_add(1, Ordering::Relaxed);
                thread::yield_now();
            });
            assert!(calls.into_inner() <= 2);
        }
    }

    #[test]
    fn an_idle_pool_sleeps_and_wakes() {
        let pool = pool(8);
        for _ in 0..3 {
            let deadline = Instant::now() + Duration::from_secs(20);
            while pool.shared.sleepers.load(Ordering::SeqCst) < 7 {
                assert!(Instant::now() < deadline, "a helper does not sleep");
                thread::sleep(Duration::from_millis(1));
            }
            asks_all(&pool);
        }
        drop(pool);
    }

    fn asks_all(pool: &Threads) {
        let running = AtomicU32::new(0);
        let deadline = Instant::now() + Duration::from_secs(20);
        pool.run(8, &|_| {
            running.fetch_add(1, Ordering::SeqCst);
            while running.load(Ordering::SeqCst) < 8 && Instant::now() < deadline {
                thread::yield_now();
            }
        });
        assert_eq!(running.into_inner(), 8);
    }

    #[test]
    fn nested_and_concurrent_runs_are_inline() {
        let pool = pool(3);
        let inner = AtomicU32::new(0);
        let outer = AtomicU32::new(0);
        pool.run(3, &|_| {
            outer.fetch_add(1, Ordering::Relaxed);
            pool.run(3, &|_| {
                inner.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(inner.into_inner(), outer.into_inner(), "a run inside of work is one call");

        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let calls = AtomicU32::new(0);
                        pool.run(3, &|_| {
                            calls.fetch_add(1, Ordering::Relaxed);
                        });
                        assert!((1..=3).contains(&calls.into_inner()));
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_whole() {
        let pool = pool(4);
        let caller = thread::current().id();
        for on_caller in [true, false] {
            let running = AtomicU32::new(0);
            let deadline = Instant::now() + Duration::from_secs(20);
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(4, &|_| {
                    running.fetch_add(1, Ordering::SeqCst);
                    while running.load(Ordering::SeqCst) < 4 && Instant::now() < deadline {
                        thread::yield_now();
                    }
                    if (thread::current().id() == caller) == on_caller {
                        resume_unwind(Box::new("thrown by work"));
                    }
                });
            }));
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"thrown by work"));
            let calls = AtomicU32::new(0);
            pool.run(4, &|_| {
                calls.fetch_add(1, Ordering::Relaxed);
            });
            assert!(calls.into_inner() >= 1);
        }
    }

    #[test]
    fn pools_end_at_any_moment() {
        for n in 0..200 {
            let pool = pool(1 + n % 9);
            for _ in 0..n % 3 {
                pool.run(9, &|_| ());
            }
            if n % 5 == 0 {
                thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Work that is long for helpers and short for the caller: the caller falls asleep and is woken.
    #[test]
    fn the_caller_waits_for_slow_helpers() {
        let pool = pool(3);
        let caller = thread::current().id();
        for _ in 0..20 {
            let (begun, ended) = (AtomicU32::new(0), AtomicU32::new(0));
            let deadline = Instant::now() + Duration::from_secs(20);
            pool.run(3, &|_| {
                begun.fetch_add(1, Ordering::SeqCst);
                while begun.load(Ordering::SeqCst) < 3 && Instant::now() < deadline {
                    thread::yield_now();
                }
                if thread::current().id() != caller {
                    thread::sleep(Duration::from_millis(3));
                }
                ended.fetch_add(1, Ordering::SeqCst);
            });
            assert_eq!(ended.into_inner(), 3);
        }
    }
}
