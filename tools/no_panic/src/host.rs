//! What the host brings: threads, time, files, memory, and the function that must not be there.

use core::ffi::c_void;
use core::fmt::{self, Write};
use locutor::Exec;

unsafe extern "C" {
    fn locutor_panic_reached() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: never linked: that is what is proven.
    unsafe { locutor_panic_reached() }
}

/// Unwinding does not happen; the precompiled `core` names its routine all the same.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// A job system of C.
#[repr(C)]
pub struct Jobs {
    workers: usize,
    run: extern "C" fn(user: *mut c_void, workers: usize, n: usize, job: Job, arg: *const c_void),
    user: *mut c_void,
}

type Job = extern "C" fn(arg: *const c_void, job: usize, worker: usize);

// SAFETY: as the host promises.
unsafe impl Sync for Jobs {}

impl Exec for Jobs {
    fn workers(&self) -> usize {
        self.workers
    }

    fn parallel_for(&self, workers: usize, n: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        extern "C" fn call(arg: *const c_void, job: usize, worker: usize) {
            // SAFETY: the address of `work` below, which lives as long as `run`.
            let work = unsafe { *arg.cast::<&(dyn Fn(usize, usize) + Sync)>() };
            work(job, worker);
        }
        (self.run)(self.user, workers, n, call, (&raw const work).cast());
    }
}

/// The words of an error, in the host's memory.
pub struct Line<'a>(pub &'a mut [u8]);

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let (place, rest) = core::mem::take(&mut self.0).split_first_mut().ok_or(fmt::Error)?;
            *place = byte;
            self.0 = rest;
        }
        Ok(())
    }
}

/// The result of a call as a number; an error is also put into words.
pub fn tell<T>(result: Result<T, impl fmt::Display>, words: Text, gets: impl FnOnce(T)) -> i32 {
    match result {
        Ok(value) => {
            gets(value);
            0
        }
        Err(error) => {
            let _ = write!(Line(words.get_mut()), "{error}");
            -1
        }
    }
}

/// Some memory of the host.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Array<T> {
    start: *mut T,
    len: usize,
}

pub type Text = Array<u8>;

impl<T> Array<T> {
    pub fn get(self) -> &'static [T] {
        // SAFETY: as the host promises.
        unsafe { core::slice::from_raw_parts(self.start, self.len) }
    }

    pub fn get_mut(self) -> &'static mut [T] {
        // SAFETY: as the host promises.
        unsafe { core::slice::from_raw_parts_mut(self.start, self.len) }
    }

    pub fn lend(values: &[T]) -> Self {
        Self { start: values.as_ptr().cast_mut(), len: values.len() }
    }
}

impl Text {
    pub fn str(self) -> Option<&'static str> {
        core::str::from_utf8(self.get()).ok()
    }
}
