//! MXCSR, the register that says how SSE and AVX instructions compute.

use core::arch::asm;

/// Round to nearest even, subnormal numbers kept (FTZ, bit 15, and DAZ, bit 6, off), all exceptions masked.
const DEFAULT: u32 = 0x1f80;

/// The default floating-point environment, for as long as the value lives; see [`enter`](Self::enter).
#[derive(Debug)]
pub struct FloatEnv {
    saved: u32,
    /// The register belongs to a thread, and so does this value.
    thread: core::marker::PhantomData<*const ()>,
}

fn read() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores the 4 bytes of the register to `value`.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack, preserves_flags)) };
    value
}

fn write(value: u32) {
    // SAFETY: loads 4 bytes that came out of the register, or `DEFAULT`: no reserved bit is set, so nothing faults.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, readonly, preserves_flags)) };
}

impl FloatEnv {
    /// Makes the thread's floating-point environment the default one, and remembers the host's for `drop`.
    ///
    /// Game and audio engines often flush subnormal numbers to zero (FTZ, DAZ) or change the rounding mode. Every
    /// thread that runs kernels enters first, so that the host's settings cannot show in the results.
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
        // Flags that were raised meanwhile are nobody's business: the host finds exactly what it left.
        if read() != self.saved {
            write(self.saved);
        }
    }
}

/// For tests: what hosts do to the environment.
#[cfg(test)]
pub(crate) fn disturb() -> FloatEnv {
    let host = FloatEnv { saved: read(), thread: core::marker::PhantomData };
    // FTZ, DAZ and rounding towards zero.
    write(DEFAULT | 1 << 15 | 1 << 6 | 3 << 13);
    host
}
