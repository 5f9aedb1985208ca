//! Saved states with changes and a right digest: they are refused and change nothing, or they are taken and work.
#![no_main]

#[path = "../../tests/common/gguf_builder.rs"]
mod gguf_builder;
#[path = "common/input.rs"]
#[allow(dead_code)]
mod input;
#[path = "common/operations.rs"]
#[allow(dead_code)]
mod operations;
#[path = "../../tests/hostile/seeds.rs"]
#[allow(dead_code)]
mod seeds;

use input::Input;
use libfuzzer_sys::fuzz_target;
use locutor::exec::{CancelFlag, Serial};
use locutor::model::Model;
use locutor::sample::Sampler;
use locutor::session::{Budget, ContextPolicy, Limits, Saved, Session};
use operations::{World, mend, operate, save};
use std::sync::OnceLock;

/// A model under a policy, and saved states of it.
struct Base {
    model: &'static Model<'static>,
    limits: Limits,
    states: Vec<Vec<u8>>,
}

fn grow(session: &mut Session<'_>, sampler: &mut Sampler<'_>) -> Vec<Vec<u8>> {
    let tokens: Vec<u32> = (0..40).map(|n| n * 7 % 24).collect();
    let mut states = Vec::new();
    session.set_stops(&["abcab", "zz"]).unwrap();
    session.set_ignore_end(true);
    for round in 0..4 {
        let _ = session.feed_tokens(&tokens[..10 + 7 * round]);
        let _ = session.advance(Budget::Unlimited);
        if round == 1 {
            let _ = session.fork();
        }
        let _ = session.next_piece(sampler);
        let _ = session.feed_tokens(&tokens[..round]);
        states.push(save(session, Saved::Session, sampler));
        states.push(save(session, Saved::Sequence, sampler));
    }
    states
}

fn bases() -> &'static [Base] {
    static BASES: OnceLock<Vec<Base>> = OnceLock::new();
    BASES.get_or_init(|| {
        let mut bases = Vec::new();
        for seed in [seeds::gpt2(), seeds::llama(), seeds::gemma3()] {
            let name = seed.name;
            let model: &'static Model<'static> =
                Box::leak(Box::new(Model::from_slice(seed.file.leak()).unwrap()));
            for policy in
                [ContextPolicy::Stop, ContextPolicy::Shift { keep: 10 }, ContextPolicy::Slide { sinks: 4 }]
            {
                let context = if name == "gpt2" { 64 } else { 112 };
                let limits = Limits::new()
                    .context(context)
                    .sequences(3)
                    .batch(9)
                    .policy(policy)
                    .stops(3, 12)
                    .text_bytes(100);
                let Ok(mut session) = model.session_on(limits, &Serial) else { continue };
                let states = grow(&mut session, &mut Sampler::greedy());
                bases.push(Base { model, limits, states });
            }
        }
        bases
    })
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let base = &bases()[input.below(bases().len())];
    let mut state = base.states[input.below(base.states.len())].clone();
    let changes = 1 + input.below(8);
    for _ in 0..changes {
        let at = input.short() % state.len();
        match input.byte() % 8 {
            0 => drop(state.drain(at..(at + input.below(24)).min(state.len()))),
            1 => {
                let len = 4 * input.below(6);
                let bytes = input.bytes(len);
                state.splice(at..at, bytes).for_each(drop);
            }
            2 => state.truncate(at.max(8)),
            3 => state[at] = state[at].wrapping_add(input.byte()),
            kind => {
                // Numbers stand at all places; those of a half are tried more often than others.
                let at = if kind < 6 { at & !3 } else { at };
                let bytes = input.number().to_le_bytes();
                let width = if kind % 2 == 0 { 4 } else { 8 };
                state.iter_mut().skip(at).zip(&bytes[..width]).for_each(|(place, byte)| *place = *byte);
            }
        }
        if state.is_empty() {
            return;
        }
    }
    if input.byte() != 255 {
        mend(&mut state);
    }
    let cancel = CancelFlag::new();
    let mut session = base.model.session_on(base.limits, &Serial).unwrap();
    session.restore(&base.states[1], None).unwrap();
    let (hash, pages) = (session.state_hash(), session.pages());
    let mut sampler = Sampler::greedy();
    match session.restore(&state, Some(&mut sampler)) {
        Err(_) => assert_eq!((session.state_hash(), session.pages()), (hash, pages)),
        Ok(()) => {
            let again = save(&mut session, Saved::Session, &sampler);
            let hash = session.state_hash();
            session.restore(&again, None).expect("what was taken and saved is taken again");
            assert_eq!(session.state_hash(), hash);
            let mut world = World { ids: vec![session.selected()], states: vec![again], sampler };
            for _ in 0..12 {
                operate(&mut session, &cancel, &mut world, &mut input);
            }
            session.restore(&base.states[0], None).unwrap();
            session.restore(&base.states[1], None).unwrap();
            assert_eq!(session.pages().1, pages.1);
        }
    }
});
