//! FPCR, the register that says how floating-point instructions compute.

use core::arch::asm;

/// Round to nearest even, subnormal numbers kept (FZ, FZ16, and where they exist FIZ and AH, off), no traps, NaN payloads kept.
const DEFAULT: u64 = 0;

/// The default floating-point environment, for as long as the value lives; see [`enter`](Self::enter).
#[derive(Debug)]
pub struct FloatEnv {
    saved: u64,
    /// The register belongs to a thread, and so does this value.
    thread: core::marker::PhantomData<*const ()>,
}

fn read() -> u64 {
    let value: u64;
    // SAFETY: reads a register that every program may read.
    unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nostack, nomem, preserves_flags)) };
    value
}

fn write(value: u64) {
    // SAFETY: writes what came out of the register, or `DEFAULT`; reserved bits are as they were or zero. No `nomem`:
    // the barrier keeps loads, stores and calls on their side of it.
    unsafe { asm!("msr fpcr, {}", in(reg) value, options(nostack, preserves_flags)) };
}

impl FloatEnv {
    /// Makes the thread's floating-point environment the default one, and remembers the host's for `drop`.
    ///
    /// Game and audio engines often flush subnormal numbers to zero or change the rounding mode. Every thread that
    /// runs kernels enters first, so that the host's settings cannot show in the results.
    pub fn enter() -> Self {
        let saved = read();
        if saved != DEFAULT {
            write(DEFAULT);
        }
        Self { saved, thread: core::marker::PhantomData }
    }
}

impl Drop for FloatEnv {
    fn drop(&mut self) {
        if read() != self.saved {
            write(self.saved);
        }
    }
}

/// For tests: what hosts do to the environment.
#[cfg(test)]
pub(crate) fn disturb() -> FloatEnv {
    let host = FloatEnv { saved: read(), thread: core::marker::PhantomData };
    // FZ, and rounding towards zero.
    write(1 << 24 | 3 << 22);
    host
}
