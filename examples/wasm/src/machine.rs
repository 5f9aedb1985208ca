//! The machine that a WebAssembly module is: one thread, a clock of the host, and memory that grows at its end.

use core::arch::wasm32;

/// Of a page of linear memory.
const PAGE: usize = 65536;

/// A static that one thread uses.
pub struct Single<T>(pub T);

// SAFETY: the module is built without atomics, so its memory cannot be shared, and no second thread can exist.
unsafe impl<T> Sync for Single<T> {}

#[link(wasm_import_module = "host")]
unsafe extern "C" {
    /// Milliseconds since some moment, with fractions.
    safe fn now() -> f64;
}

/// Microseconds since some moment.
pub fn clock() -> u64 {
    (now() * 1000.0) as u64
}

/// Bytes of linear memory: everything that the module has, code excepted.
pub fn memory_bytes() -> usize {
    wasm32::memory_size::<0>() * PAGE
}

/// `len` new bytes, all 0, at the end of the linear memory, beginning with a page; `None` when the browser has no more.
pub fn grow(len: usize) -> Option<&'static mut [u8]> {
    let pages = len.div_ceil(PAGE);
    let before = wasm32::memory_grow::<0>(pages);
    if before == usize::MAX || len > isize::MAX as usize {
        return None;
    }
    let start = core::ptr::with_exposed_provenance_mut::<u8>(before.checked_mul(PAGE)?);
    // SAFETY: `memory_grow` made the pages from `start` on, `len` bytes at least, all zero. They are given out this
    // once, and nothing else in the module has memory there: without an allocator nobody else grows it.
    Some(unsafe { core::slice::from_raw_parts_mut(start, len) })
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    wasm32::unreachable()
}
