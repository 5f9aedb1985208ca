//! A whole file of arbitrary bytes: it is refused, or it generates a few tokens (or says why it cannot) in the memory that
//! was planned.
#![no_main]

#[path = "common/memory.rs"]
mod memory;

use libfuzzer_sys::fuzz_target;
use locutor::exec::Serial;
use locutor::format::ModelBytes;
use locutor::model::Model;
use locutor::sample::Sampler;
use locutor::session::{Budget, Limits, Session, Step};

/// Larger sessions are left out: the file may ask for them, but a fuzzer has better things to do.
const MOST_BYTES: usize = 16 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(size) = Model::size(&ModelBytes::new(data)) else { return };
    assert!(size <= 65536 + 64 * data.len(), "{size} bytes of tables for a file of {}", data.len());
    memory::with(size, |tables| {
        if let Ok(model) = Model::from_bytes(data, tables) {
            run(&model);
        }
    });
});

fn run(model: &Model<'_>) {
    let limits = Limits::new().context(8).batch(3).text_bytes(32);
    let Ok(plan) = limits.plan(model) else { return };
    if plan.bytes > MOST_BYTES {
        return;
    }
    memory::with(plan.bytes, |memory| {
        generate(Session::new(model, &limits, &Serial, memory).expect("planned"));
    });
}

fn generate(mut session: Session<'_>) {
    let fed = session.feed("a b");
    if fed.is_err() || fed == Ok(0) {
        let _ = session.feed_tokens(&[0, 1]);
    }
    session.set_max_tokens(Some(3));
    let mut sampler = Sampler::greedy();
    let mut pending = 0;
    // A file with many layers has many jobs; a hundred slices are enough for the small ones to finish.
    while pending < 100 {
        match session.step(Budget::Units(500), &mut sampler) {
            Ok(Step::Pending | Step::Token(_)) => pending += 1,
            Ok(Step::Piece(text)) => assert!(!text.is_empty()),
            Ok(Step::Done(_)) | Err(_) => break,
        }
    }
    let _ = session.truncate(1);
    let _ = session.advance(Budget::Units(100));
}
