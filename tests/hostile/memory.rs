//! The allocator of these tests: counts for every thread, and fails when a thread asks for that.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[derive(Clone, Copy)]
struct Counters {
    live: isize,
    peak: isize,
    calls: usize,
    /// Calls that still succeed before one fails; `usize::MAX` for none that fails.
    good: usize,
    forever: bool,
}

thread_local! {
    static COUNTERS: Cell<Counters> =
        const { Cell::new(Counters { live: 0, peak: 0, calls: 0, good: usize::MAX, forever: false }) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Notes a request of `size` bytes; whether it is to fail.
fn refuses(size: usize) -> bool {
    COUNTERS
        .try_with(|cell| {
            let mut counters = cell.get();
            counters.calls += 1;
            let fails = counters.good == 0;
            if fails {
                if !counters.forever {
                    counters.good = usize::MAX;
                }
            } else {
                if counters.good != usize::MAX {
                    counters.good -= 1;
                }
                counters.live += size as isize;
                counters.peak = counters.peak.max(counters.live);
            }
            cell.set(counters);
            fails
        })
        .unwrap_or(false)
}

// SAFETY: hands everything to the system's allocator, or gives no memory at all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if refuses(layout.size()) {
            return core::ptr::null_mut();
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if refuses(layout.size()) {
            return core::ptr::null_mut();
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = COUNTERS.try_with(|cell| {
            let mut counters = cell.get();
            counters.live -= layout.size() as isize;
            cell.set(counters);
        });
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What a piece of work took from the allocator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    pub calls: usize,
    /// Most bytes at a time.
    pub peak: usize,
    /// Bytes that were not given back.
    pub left: isize,
}

/// Runs `work` and counts what this thread takes from the allocator meanwhile.
pub fn measured<R>(work: impl FnOnce() -> R) -> (R, Used) {
    let before = COUNTERS.get();
    COUNTERS.set(Counters { peak: before.live, calls: 0, ..before });
    let result = work();
    let after = COUNTERS.get();
    COUNTERS.set(Counters { calls: before.calls + after.calls, peak: before.peak.max(after.peak), ..after });
    let peak = (after.peak - before.live).max(0) as usize;
    (result, Used { calls: after.calls, peak, left: after.live - before.live })
}

/// Runs `work` while the allocator fails on this thread: `good` calls succeed, then one fails, or all.
pub fn starved<R>(good: usize, forever: bool, work: impl FnOnce() -> R) -> R {
    COUNTERS.set(Counters { good, forever, ..COUNTERS.get() });
    let result = work();
    COUNTERS.set(Counters { good: usize::MAX, forever: false, ..COUNTERS.get() });
    result
}
