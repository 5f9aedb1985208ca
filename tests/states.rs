//! Saved states: the same bytes on every machine, whole or refused.

use locutor::kernels::{self, Kernels};
use locutor::kv::KvType;
use locutor::mem::Digest;
use locutor::model::Model;
use locutor::{Budget, ContextPolicy, Error, Limits, Sampler, Saved, Session};

const MODELS: [&str; 3] = ["gpt2-tied", "llama-gqa-tied-q8_0", "gemma3"];

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/golden/{name}.gguf", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn save(session: &mut Session<'_>, what: Saved, sampler: Option<&Sampler<'_>>) -> Vec<u8> {
    let mut bytes = vec![0; session.save_size(what, sampler)];
    assert_eq!(session.save(what, sampler, &mut bytes), Ok(bytes.len()));
    bytes
}

fn bits(session: &mut Session<'_>) -> Vec<u32> {
    session.advance(Budget::Unlimited).unwrap();
    session.logits().unwrap().iter().map(|logit| logit.to_bits()).collect()
}

/// A story of two voices, longer than the context where the policy forgets.
fn tell(session: &mut Session<'_>, sampler: &mut Sampler<'_>, tokens: usize) {
    session.set_ignore_end(true);
    session.feed_tokens(&(0..60).map(|i| (i * 37 + 11) % 100).collect::<Vec<u32>>()).unwrap();
    let second = session.fork().unwrap();
    for _ in 0..tokens {
        session.next_token(sampler).unwrap();
    }
    session.select(second).unwrap();
    session.feed_tokens(&[1, 2, 3]).unwrap();
    session.advance(Budget::Units(7)).unwrap();
}

/// The states of all models, types and policies here must be those of every other machine: each has this digest, whatever
/// the processor, its byte order and its kernels.
#[test]
fn states_are_the_same_on_every_machine() {
    for table in kernels::available() {
        assert_eq!(digest(table), 0x1195_5cf4_0bd3_aad4, "{}", table.name);
    }
}

/// Of all states, told with these kernels.
fn digest(table: &'static Kernels) -> u64 {
    let policies = [ContextPolicy::Stop, ContextPolicy::Shift { keep: 5 }, ContextPolicy::Slide { sinks: 4 }];
    let types = [
        (KvType::F16, KvType::F16),
        (KvType::F32, KvType::Q8_0),
        (KvType::Q8_0, KvType::F32),
        (KvType::I16, KvType::I16),
    ];
    let mut all = Digest::new();
    for name in MODELS {
        let file = golden(name);
        let model = Model::from_slice(&file).unwrap();
        for policy in policies {
            for (keys, values) in types {
                let limits = Limits::new().context(128).sequences(2).policy(policy).kv_types(keys, values);
                let limits = limits.kernels(table);
                let Ok(mut session) = model.session(limits) else {
                    assert!(model.spec().hard_context().is_some() && policy != policies[0]);
                    continue;
                };
                let mut sampler = Sampler::greedy().temperature(0.9).unwrap().seed(5);
                let tokens = if policy == ContextPolicy::Stop { 40 } else { 200 };
                tell(&mut session, &mut sampler, tokens);
                for what in [Saved::Sequence, Saved::Session] {
                    let state = save(&mut session, what, Some(&sampler));
                    all.add(&state);
                    let mut other = model.session(limits.batch(5)).unwrap();
                    let mut restored = Sampler::greedy();
                    other.restore(&state, Some(&mut restored)).unwrap();
                    assert_eq!(restored.rng(), sampler.rng());
                    assert_eq!(restored.params(), sampler.params());
                    assert_eq!(bits(&mut other), bits(&mut session), "{name} {policy:?} {keys:?} {what:?}");
                    let again = save(&mut other, what, Some(&restored));
                    assert!(
                        again == save(&mut session, what, Some(&sampler)),
                        "{name} {policy:?} {keys:?} {what:?}"
                    );
                }
            }
        }
    }
    all.value()
}

#[test]
fn every_prefix_and_every_changed_byte_is_refused() {
    for name in MODELS {
        let file = golden(name);
        let model = Model::from_slice(&file).unwrap();
        for policy in [ContextPolicy::Stop, ContextPolicy::Shift { keep: 3 }] {
            let limits = Limits::new().context(64).sequences(2).policy(policy);
            let mut session = model.session(limits).unwrap();
            session.set_stops(&["the end", ""]).unwrap();
            session.feed_tokens(&[1, 2, 3]).unwrap();
            session.advance(Budget::Unlimited).unwrap();
            let sampler = Sampler::greedy();
            for what in [Saved::Sequence, Saved::Session] {
                let mut state = save(&mut session, what, Some(&sampler));
                session.feed_tokens(&[4, 5]).unwrap();
                let (hash, before) = (session.state_hash(), save(&mut session, Saved::Session, None));
                let refused = |session: &mut Session<'_>, state: &[u8]| {
                    let mut sampler = Sampler::greedy().seed(99);
                    let rng = sampler.rng();
                    let error = session.restore(state, Some(&mut sampler)).unwrap_err();
                    assert!(
                        matches!(
                            error,
                            Error::StateDamaged { .. }
                                | Error::StateVersion { .. }
                                | Error::StateOfOther { .. }
                        ),
                        "{error:?}"
                    );
                    assert_eq!((session.state_hash(), sampler.rng()), (hash, rng));
                };
                for len in 0..state.len() {
                    refused(&mut session, &state[..len]);
                }
                for at in 0..state.len() {
                    for change in [1, 0x80, 0xff] {
                        state[at] ^= change;
                        refused(&mut session, &state);
                        state[at] ^= change;
                    }
                }
                let longer = [&state[..], &[0]].concat();
                refused(&mut session, &longer);
                assert_eq!(save(&mut session, Saved::Session, None), before);
                session.restore(&state, None).unwrap();
                assert_eq!(session.position(), 3);
            }
        }
    }
}

#[test]
fn states_are_bound_to_what_they_mean() {
    let (file, other_file) = (golden("llama-gqa-tied-q8_0"), golden("llama-head"));
    let model = Model::from_slice(&file).unwrap();
    let other_model = Model::from_slice(&other_file).unwrap();
    let limits = Limits::new().context(128);
    let mut session = model.session(limits).unwrap();
    session.feed_tokens(&[1, 2, 3]).unwrap();
    session.advance(Budget::Unlimited).unwrap();
    let state = save(&mut session, Saved::Sequence, None);
    let refused = |session: &mut Session<'_>, expected: &'static str| {
        assert_eq!(session.restore(&state, None), Err(Error::StateOfOther { what: expected }));
        assert_eq!(session.check_state(&state), Err(Error::StateOfOther { what: expected }));
    };
    refused(&mut other_model.session(limits).unwrap(), "model");
    refused(&mut model.session(limits.kv(KvType::F32)).unwrap(), "type of keys and values");
    let exact = locutor::model::plan::Precisions::all(locutor::tensor::Precision::Bits16);
    refused(&mut model.session(limits.precisions(exact)).unwrap(), "precision of activations");
    let shift = limits.policy(ContextPolicy::Shift { keep: 0 });
    refused(&mut model.session(shift).unwrap(), "context policy");
    // A shorter context will do, as long as the text fits.
    let mut short = model.session(Limits::new().context(3)).unwrap();
    short.restore(&state, None).unwrap();
    assert_eq!(bits(&mut short), bits(&mut session));
    let mut shorter = model.session(Limits::new().context(2)).unwrap();
    assert!(matches!(shorter.restore(&state, None), Err(Error::ContextFull { .. })));
    // All sequences need a place, and pages.
    let mut two = model.session(limits.sequences(2)).unwrap();
    let second = two.create().unwrap();
    two.select(second).unwrap();
    two.feed_tokens(&[7; 100]).unwrap();
    let both = save(&mut two, Saved::Session, None);
    assert_eq!(session.restore(&both, None), Err(Error::NoSequence { sequences: 1 }));
    let mut few = model.session(limits.sequences(2).positions(64)).unwrap();
    assert!(matches!(few.restore(&both, None), Err(Error::PagesFull { .. })));
    assert_eq!(few.position(), 0);
}

/// A saved sequence takes the place of the selected one and leaves its companions alone.
#[test]
fn a_sequence_is_restored_beside_others() {
    let file = golden("gpt2-tied");
    let model = Model::from_slice(&file).unwrap();
    let mut session = model.session(Limits::new().context(128).sequences(3)).unwrap();
    let first = session.selected();
    session.feed_tokens(&[5; 40]).unwrap();
    let expected = bits(&mut session);
    let state = save(&mut session, Saved::Sequence, None);
    let second = session.fork().unwrap();
    session.select(second).unwrap();
    session.feed_tokens(&[6; 20]).unwrap();
    let other = bits(&mut session);
    let third = session.create().unwrap();
    session.select(third).unwrap();
    session.restore(&state, None).unwrap();
    assert_eq!((session.selected(), session.position()), (third, 40));
    assert_eq!(bits(&mut session), expected);
    session.select(second).unwrap();
    assert_eq!(bits(&mut session), other);
    session.select(first).unwrap();
    session.truncate(10).unwrap();
    session.restore(&state, None).unwrap();
    assert_eq!(bits(&mut session), expected);
}

/// When a text goes back, pages that it gave back at its longest are still gone, and it still needs none of them.
#[test]
fn a_text_that_went_back_is_restored() {
    let file = golden("llama-gqa-tied-q8_0");
    let model = Model::from_slice(&file).unwrap();
    let limits = Limits::new().context(160).policy(ContextPolicy::Slide { sinks: 4 });
    let mut session = model.session(limits).unwrap();
    let tokens: Vec<u32> = (0..260).map(|i| (i * 37 + 11) % 100).collect();
    session.feed_tokens(&tokens[..190]).unwrap();
    session.advance(Budget::Unlimited).unwrap();
    for len in 191..=tokens.len() {
        session.feed_tokens(&tokens[len - 1..len]).unwrap();
        session.advance(Budget::Unlimited).unwrap();
        let longest = save(&mut session, Saved::Session, None);
        for back in 1..=16 {
            session.truncate(len - back).unwrap();
            for what in [Saved::Sequence, Saved::Session] {
                let state = save(&mut session, what, None);
                let mut other = model.session(limits).unwrap();
                other.restore(&state, None).unwrap();
                assert_eq!(other.position(), len - back);
                if back % 5 == 0 {
                    assert_eq!(bits(&mut other), bits(&mut session), "{len} tokens, {back} back");
                }
            }
            session.restore(&longest, None).unwrap();
        }
    }
}
