//! Text from a GPT on a Cortex-M4F: weights in flash, two static arrays, no heap, no operating system.
//!
//! `run.sh` builds it and runs it on an emulated board. The first line is the prompt with its continuation, the second
//! its token ids, the rest where the memory went.
#![no_std]
#![no_main]

mod board;

use board::Host;
use core::fmt::{self, Write};
use core::ptr::addr_of_mut;
use locutor::exec::Serial;
use locutor::format::ModelBytes;
use locutor::mem::aligned::Aligned;
use locutor::model::Model;
use locutor::sample::Sampler;
use locutor::session::{Error, Limits, Session};

/// The file, where the linker puts it: in flash, and nowhere else.
static STORY: &[u8] = include_bytes!(env!("LOCUTOR_STORY"));

/// Tables of the model: directory of tensors, vocabulary, merges. `report` shows how much of it is needed.
static mut MODEL_MEMORY: Aligned<[u8; MODEL_BYTES]> = Aligned([0; MODEL_BYTES]);
const MODEL_BYTES: usize = 160 << 10;

/// Keys and values, activations, logits, text.
static mut SESSION_MEMORY: Aligned<[u8; SESSION_BYTES]> = Aligned([0; SESSION_BYTES]);
const SESSION_BYTES: usize = 384 << 10;

const PROMPT: &str = "Once upon a time";
const TOKENS: usize = 48;

fn limits() -> Limits {
    Limits::new().context(64).batch(8).text_bytes(64).stops(0, 0)
}

/// Runs the program; the result is its exit status.
fn run(out: &mut Host) -> u32 {
    match tell(out) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(out, "\nno_std: {error}");
            1
        }
    }
}

/// The whole life of a model. Memory that is too small is one of the errors.
fn tell(out: &mut Host) -> Result<(), Error> {
    // SAFETY: this function runs once, on the only thread, and nothing else names the two arrays.
    let (model_memory, session_memory) =
        unsafe { (&mut (*addr_of_mut!(MODEL_MEMORY)).0, &mut (*addr_of_mut!(SESSION_MEMORY)).0) };

    let model = Model::from_bytes(STORY, model_memory)?;
    let mut session = Session::new(&model, &limits(), &Serial, session_memory)?;
    session.feed(PROMPT)?;
    session.set_max_tokens(Some(TOKENS));

    out.write_bytes(PROMPT.as_bytes());
    let mut sampler = Sampler::greedy();
    while let Some(piece) = session.next_piece(&mut sampler)? {
        out.write_bytes(piece.as_bytes());
    }

    let needed = (Model::size(&ModelBytes::new(STORY))?, limits().plan(&model)?.bytes);
    // The console has no way to fail.
    let _ = report(out, session.tokens(), needed);
    Ok(())
}

fn report(out: &mut Host, ids: &[u32], (model, session): (usize, usize)) -> fmt::Result {
    out.write_str("\nids:")?;
    for id in ids {
        write!(out, " {id}")?;
    }
    writeln!(out, "\nflash:          {:>8} bytes, of which the model {}", board::flash_bytes(), STORY.len())?;
    writeln!(out, "model memory:   {model:>8} bytes of {MODEL_BYTES}")?;
    writeln!(out, "session memory: {session:>8} bytes of {SESSION_BYTES}")?;
    writeln!(out, "stack:          {:>8} bytes of {}", board::stack_high_water(), board::stack_bytes())
}
