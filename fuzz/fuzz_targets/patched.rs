//! A small model with some numbers changed, anywhere in its file: it is refused, or it is loaded and runs. Goes deeper
//! than arbitrary bytes, as most of the file stays right.
#![no_main]

#[path = "../../tests/common/gguf_builder.rs"]
mod gguf_builder;
#[path = "common/input.rs"]
#[allow(dead_code)]
mod input;
#[path = "../../tests/hostile/seeds.rs"]
#[allow(dead_code)]
mod seeds;

use input::Input;
use libfuzzer_sys::fuzz_target;
use locutor::exec::Serial;
use locutor::format::ModelBytes;
use locutor::mem::aligned::Block;
use locutor::model::Model;
use locutor::sample::Sampler;
use locutor::session::{Budget, Error, Limits, Session, Step};
use std::cell::RefCell;

struct Bench {
    seeds: [seeds::Seed; 5],
    files: [Vec<u8>; 5],
    tables: Block,
    session: Block,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new({
        let seeds = seeds::all();
        let files = seeds.each_ref().map(|seed| seed.file.clone());
        Bench { seeds, files, tables: Block::zeroed(1 << 20).unwrap(), session: Block::zeroed(8 << 20).unwrap() }
    });
}

/// Where the next change is: in the whole file, its header, or at a number of it.
fn place(seed: &seeds::Seed, input: &mut Input<'_>) -> usize {
    let pick = |list: &[usize], n: usize| list[n % list.len()];
    match input.byte() % 6 {
        0 => (input.short() | usize::from(input.byte()) << 16) % seed.file.len(),
        1 => input.short() % seed.map.infos_end,
        2 | 3 => pick(&seed.map.kv[input.below(seed.map.kv.len())], 3) + 4 * input.below(4),
        4 => pick(&seed.map.kv[input.below(seed.map.kv.len())], input.below(4)),
        _ => pick(&seed.map.tensors[input.below(seed.map.tensors.len())], input.below(6)),
    }
}

fn run(bench: &mut Bench, choice: usize, len: usize) {
    let file = &bench.files[choice][..len];
    let Ok(size) = Model::size(&ModelBytes::new(file)) else { return };
    assert!(size <= (1 << 20) + 8 * file.len(), "{size} bytes of tables for a file of {}", file.len());
    if size > bench.tables.bytes().len() {
        bench.tables = Block::zeroed(size).unwrap();
    }
    let Ok(model) = Model::from_bytes(file, &mut bench.tables.bytes_mut()[..size]) else { return };
    let limits = Limits::new().context(16).batch(4).text_bytes(32);
    let Ok(plan) = limits.plan(&model) else { return };
    let Some(memory) = bench.session.bytes_mut().get_mut(..plan.bytes) else { return };
    let mut session = Session::new(&model, &limits, &Serial, memory).expect("planned");
    if !matches!(session.feed("ab c\n"), Ok(1..)) {
        let _ = session.feed_tokens(&[0, 1, 0]);
    }
    session.set_max_tokens(Some(2));
    let mut sampler = Sampler::greedy();
    for _ in 0..20 {
        match session.step(Budget::Units(2000), &mut sampler) {
            Ok(Step::Pending | Step::Token(_)) => {}
            Ok(Step::Piece(text)) => assert!(!text.is_empty()),
            Err(Error::Memory(error)) => panic!("{error}"),
            Ok(Step::Done(_)) | Err(_) => break,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    BENCH.with_borrow_mut(|bench| {
        let mut input = Input(data);
        let choice = input.below(5);
        let mut changed = Vec::new();
        while !input.is_empty() && changed.len() < 16 {
            let at = place(&bench.seeds[choice], &mut input);
            let width = [1, 2, 4, 4, 4, 8][input.below(6)];
            let bytes = input.number().to_le_bytes();
            let target = bench.files[choice].iter_mut().skip(at).zip(&bytes[..width]);
            target.for_each(|(place, byte)| *place = *byte);
            changed.push(at..at + width);
        }
        let full = bench.files[choice].len();
        let len = if data.len() % 8 == 7 { full - usize::from(data[0]) * 8 } else { full };
        run(bench, choice, len);
        let Bench { seeds, files, .. } = bench;
        for range in changed {
            let range = range.start..range.end.min(full);
            files[choice][range.clone()].copy_from_slice(&seeds[choice].file[range]);
        }
    });
});
