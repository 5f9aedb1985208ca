//! Who runs a session's jobs: the caller, a pool of our own, or the host's job system.

use crate::failure::Failure;
use crate::handle::{User, Work};
use crate::status::Status;
use core::ffi::c_void;
use core::sync::atomic::Ordering;
use engine::exec::{Exec, Serial};
use engine::exec_threads::Threads;

/// `locutor_parallel_for_fn`.
pub type ParallelForFn = extern "C" fn(
    user: User,
    workers: u32,
    n: u32,
    job: extern "C" fn(*mut c_void, u32, u32),
    arg: *mut c_void,
);

/// The threads of a session.
pub enum Workers {
    /// The caller's alone.
    Serial,
    /// A pool of the session's own.
    Pool(Threads),
    /// The host's job system.
    Host { parallel_for: ParallelForFn, user: User, threads: usize },
}

impl Workers {
    /// Threads for a session with these parameters; a pool only where it `may_allocate`.
    pub fn new(
        parallel_for: Option<ParallelForFn>,
        user: User,
        threads: u32,
        may_allocate: bool,
    ) -> Result<Self, Failure> {
        let threads = usize::try_from(threads).map_err(|_| Status::PARAM)?.max(1);
        match parallel_for {
            _ if threads == 1 => Ok(Self::Serial),
            Some(parallel_for) => Ok(Self::Host { parallel_for, user, threads }),
            None if !may_allocate => {
                Err(Failure::Param("threads above 1 in the caller's memory ask for `parallel_for`"))
            }
            None => Ok(Self::Pool(Threads::new(threads).map_err(|_| Status::THREADS)?)),
        }
    }
}

impl Exec for Workers {
    fn workers(&self) -> usize {
        match self {
            Self::Serial => 1,
            Self::Pool(pool) => pool.workers(),
            Self::Host { threads, .. } => *threads,
        }
    }

    fn parallel_for(&self, workers: usize, n: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        match self {
            Self::Serial => Serial.parallel_for(workers, n, work),
            Self::Pool(pool) => pool.parallel_for(workers, n, work),
            Self::Host { parallel_for, user, .. } => {
                let call = Work::new(work);
                let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                parallel_for(*user, number(workers), number(n), Work::call, call.argument());
                // A fault of the library on a thread of the host: it goes on here, up to the exported function.
                assert!(!call.panicked.load(Ordering::Acquire), "a job panicked on a thread of the host");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU32;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    extern "C" fn backwards(
        user: User,
        workers: u32,
        n: u32,
        job: extern "C" fn(*mut c_void, u32, u32),
        arg: *mut c_void,
    ) {
        assert!(user.0.is_null());
        (0..n).rev().for_each(|number| job(arg, number, number % workers));
    }

    #[test]
    fn every_kind_of_workers_does_every_job() {
        let none = User(core::ptr::null_mut());
        let kinds = [(None, 0, 1), (None, 1, 1), (Some(backwards as ParallelForFn), 1, 1), (None, 3, 3)];
        for (parallel_for, threads, expected) in kinds.into_iter().chain([(Some(backwards as _), 3, 3)]) {
            let workers = Workers::new(parallel_for, none, threads, true).ok().unwrap();
            assert_eq!(workers.workers(), expected);
            let counts = [const { AtomicU32::new(0) }; 10];
            workers.parallel_for(expected, counts.len(), &|job, worker| {
                assert!(worker < expected);
                counts[job].fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(counts.map(AtomicU32::into_inner), [1; 10]);
        }
        let refused = Workers::new(None, none, 2, false).err().map(|failure| failure.status());
        assert_eq!(refused, Some(Status::PARAM), "a pool asks for memory");
    }

    /// C sees no panic; the call that asked for the jobs does.
    #[test]
    fn a_panic_on_a_thread_of_the_host_comes_back() {
        let none = User(core::ptr::null_mut());
        let workers = Workers::new(Some(backwards), none, 2, false).ok().unwrap();
        let done = AtomicU32::new(0);
        let job = |job: usize, _: usize| {
            if job == 2 {
                std::panic::resume_unwind(Box::new(()));
            }
            done.fetch_add(1, Ordering::Relaxed);
        };
        let panic = catch_unwind(AssertUnwindSafe(|| workers.parallel_for(2, 4, &job))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"a job panicked on a thread of the host"));
        assert_eq!(done.into_inner(), 3);
    }
}
