//! Who runs a session's jobs: the caller, a pool of our own, or the host's job system.

use crate::failure::Failure;
use crate::handle::{User, Work};
use crate::status::Status;
use core::ffi::c_void;
use core::sync::atomic::Ordering;
use engine::exec::Exec;
use engine::exec_threads::Threads;

/// `locutor_run_fn`.
pub type RunFn =
    extern "C" fn(user: User, workers: u32, work: extern "C" fn(*mut c_void), context: *mut c_void);

/// The threads of a session.
pub enum Workers {
    /// The caller's alone.
    Serial,
    /// A pool of the session's own.
    Pool(Threads),
    /// The host's job system.
    Host { run: RunFn, user: User, threads: usize },
}

impl Workers {
    /// Threads for a session with these parameters; a pool only where it `may_allocate`.
    pub fn new(run: Option<RunFn>, user: User, threads: u32, may_allocate: bool) -> Result<Self, Failure> {
        let threads = usize::try_from(threads).map_err(|_| Status::PARAM)?.max(1);
        match run {
            _ if threads == 1 => Ok(Self::Serial),
            Some(run) => Ok(Self::Host { run, user, threads }),
            None if !may_allocate => {
                Err(Failure::Param("threads above 1 in the caller's memory ask for `run`"))
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

    fn run(&self, workers: usize, work: &(dyn Fn() + Sync)) {
        match self {
            Self::Serial => work(),
            Self::Pool(pool) => pool.run(workers, work),
            Self::Host { run, user, .. } if workers > 1 => {
                let call = Work::new(work);
                run(*user, u32::try_from(workers).unwrap_or(u32::MAX), Work::call, call.context());
                // A fault of the library on a thread of the host: it goes on here, up to the exported function.
                assert!(!call.panicked.load(Ordering::Acquire), "a job panicked on a thread of the host");
            }
            Self::Host { .. } => work(),
        }
    }
}
