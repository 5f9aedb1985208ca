//! The board: vector table, reset, text to the host by semihosting, and the stack's high-water mark.
//!
//! Sources: Armv7-M Architecture Reference Manual B1.5 (vector table, reset) and B3.2 (CPACR); Semihosting for AArch32
//! and AArch64, release 2.0 (operation numbers and parameter blocks).

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};

// Runs first, on the stack that the processor took from the vector table. It turns the FPU on before any compiled code
// can touch a float register, paints the stack, copies `.data` and clears `.bss`.
global_asm!(
    ".section .vectors, \"a\"",
    ".word stack_top",
    ".word reset",
    // NMI, hard fault, memory management, bus and usage fault; the rest of the table is for interrupts nobody enables.
    ".rept 14",
    ".word fault",
    ".endr",
    ".section .text.reset, \"ax\"",
    ".syntax unified",
    ".thumb_func",
    ".global reset",
    "reset:",
    // CPACR: full access to coprocessors 10 and 11.
    "ldr r0, =0xE000ED88",
    "ldr r1, [r0]",
    "orr r1, r1, #0xF00000",
    "str r1, [r0]",
    "dsb",
    "isb",
    "ldr r0, =stack_bottom",
    "ldr r1, =stack_top",
    "ldr r2, =0xA5A5A5A5",
    "b 2f",
    "1: stm r0!, {{r2}}",
    "2: cmp r0, r1",
    "blo 1b",
    "ldr r0, =data_start",
    "ldr r1, =data_end",
    "ldr r2, =data_load",
    "b 4f",
    "3: ldm r2!, {{r3}}",
    "stm r0!, {{r3}}",
    "4: cmp r0, r1",
    "blo 3b",
    "ldr r0, =bss_start",
    "ldr r1, =bss_end",
    "movs r2, #0",
    "b 6f",
    "5: stm r0!, {{r2}}",
    "6: cmp r0, r1",
    "blo 5b",
    "bl {start}",
    ".ltorg",
    start = sym start,
);

/// The first Rust function: opens the host's output and runs the program.
extern "C" fn start() -> ! {
    let status = crate::run(&mut Host::open());
    exit(status)
}

/// Any fault: what would be an endless loop elsewhere ends the emulation with a status of its own.
#[unsafe(no_mangle)]
extern "C" fn fault() -> ! {
    let _ = Host::open().write_str("\nno_std: processor fault\n");
    exit(4)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    let _ = writeln!(Host::open(), "\nno_std: {info}");
    exit(3)
}

const SYS_OPEN: u32 = 0x01;
const SYS_WRITE: u32 = 0x05;
const SYS_EXIT_EXTENDED: u32 = 0x20;
const APPLICATION_EXIT: usize = 0x20026;

/// One semihosting call: `block` holds the parameters of `operation`.
///
/// # Safety
/// Addresses in the block are readable for the lengths beside them.
unsafe fn semihost<const N: usize>(operation: u32, block: &[usize; N]) -> usize {
    let result;
    // SAFETY: the host reads the block and what it points to, and changes nothing but `r0`.
    unsafe { asm!("bkpt 0xAB", inout("r0") operation => result, in("r1") block.as_ptr(), options(nostack)) }
    result
}

/// Ends the emulation; `status` becomes the status of the emulator's process.
pub fn exit(status: u32) -> ! {
    loop {
        // SAFETY: the block holds two numbers, no address.
        unsafe { semihost(SYS_EXIT_EXTENDED, &[APPLICATION_EXIT, status as usize]) };
    }
}

/// The standard output of the program that emulates the board.
pub struct Host {
    handle: usize,
}

impl Host {
    /// Opens the console for writing (the file name `:tt` with mode `w`).
    pub fn open() -> Self {
        let name = c":tt";
        // SAFETY: the name is readable and its length is given without the zero.
        Self { handle: unsafe { semihost(SYS_OPEN, &[name.as_ptr().addr(), 4, name.count_bytes()]) } }
    }

    /// Writes bytes as they are.
    pub fn write_bytes(&mut self, bytes: &[u8]) {
        // SAFETY: address and length of a slice.
        unsafe { semihost(SYS_WRITE, &[self.handle, bytes.as_ptr().addr(), bytes.len()]) };
    }
}

impl Write for Host {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write_bytes(text.as_bytes());
        Ok(())
    }
}

unsafe extern "C" {
    // Names of addresses from the linker script; their "values" mean nothing.
    static stack_bottom: [u32; 0];
    static stack_top: [u32; 0];
    static flash_used: [u32; 0];
}

/// Bytes of code, constants and model in the flash.
pub fn flash_bytes() -> usize {
    (&raw const flash_used).addr()
}

/// Bytes of the stack.
pub fn stack_bytes() -> usize {
    (&raw const stack_top).addr() - (&raw const stack_bottom).addr()
}

/// The most bytes of the stack that were ever in use: what is not painted any more.
pub fn stack_high_water() -> usize {
    let mut unused = 0;
    while unused < stack_bytes() {
        // SAFETY: inside the stack's memory, aligned. Volatile, because the compiler knows of no such object.
        let word = unsafe { (&raw const stack_bottom).cast::<u32>().byte_add(unused).read_volatile() };
        if word != 0xA5A5_A5A5 {
            break;
        }
        unused += 4;
    }
    stack_bytes() - unused
}
