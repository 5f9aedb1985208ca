//! A GPT on a Cortex-M4F without operating system and heap.
#![no_std]
#![no_main]

mod board;

use board::Host;
use core::fmt::Write;

/// Runs the program; the result is its exit status.
fn run(out: &mut Host) -> u32 {
    let _ = writeln!(out, "hello {}", 1.5f32 * 2.0);
    let _ = writeln!(
        out,
        "flash {} stack {} of {}",
        board::flash_bytes(),
        board::stack_high_water(),
        board::stack_bytes()
    );
    0
}
