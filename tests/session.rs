//! Sessions: planned memory, budgets, truncation, full contexts, stops, errors.

use locutor::exec::Serial;
use locutor::kv::KvType;
use locutor::mem::MemError;
use locutor::mem::aligned::Block;
use locutor::model::{Model, ModelError};
use locutor::sample::Sampler;
use locutor::session::{Budget, Error, Finish, Limits, Progress, Session, Step};

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/golden/{name}.gguf", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn story() -> Vec<u8> {
    std::fs::read(format!("{}/examples/model/story.gguf", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

const MODELS: [&str; 3] = ["gpt2-tied", "llama-gqa-tied-q8_0", "gemma3"];

fn ids(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * 37 + 11) % 120).collect()
}

fn bits(logits: Option<&[f32]>) -> Vec<u32> {
    logits.expect("logits are ready").iter().map(|logit| logit.to_bits()).collect()
}

/// Logits behind `ids`, computed in the plainest way.
fn plain(model: &Model<'_>, ids: &[u32]) -> Vec<u32> {
    let mut session = model.session(Limits::new().context(128)).unwrap();
    session.feed_tokens(ids).unwrap();
    assert_eq!(session.advance(Budget::Unlimited).unwrap(), Progress::Ready);
    bits(session.logits())
}

#[test]
fn the_planned_bytes_are_enough_and_one_byte_less_is_not() {
    for name in MODELS {
        let bytes = golden(name);
        let file = locutor::format::ModelBytes::new(&bytes);
        let mut tables = Block::zeroed(Model::size(&file).unwrap()).unwrap();
        let short = tables.bytes().len() - 1;
        let error = Model::from_bytes(&bytes, &mut tables.bytes_mut()[..short]).unwrap_err();
        assert!(matches!(error, ModelError::Memory(MemError::TooSmall { .. })), "{error:?}");
        let model = Model::from_bytes(&bytes, tables.bytes_mut()).unwrap();
        for limits in [Limits::new().context(64), Limits::new().context(33).batch(5).logits(3).threads(2)] {
            let plan = limits.plan(&model).unwrap();
            assert_eq!(plan.bytes, plan.kv_bytes + plan.logits_bytes + plan.scratch_bytes);
            assert_eq!(plan.bytes, Session::size(&model, &limits).unwrap());
            let mut memory = Block::zeroed(plan.bytes).unwrap();
            let error = Session::new(&model, &limits, &Serial, &mut memory.bytes_mut()[..plan.bytes - 1])
                .unwrap_err();
            assert_eq!(error, Error::Memory(MemError::TooSmall { needed: plan.bytes, got: plan.bytes - 1 }));
            let mut session = Session::new(&model, &limits, &Serial, memory.bytes_mut()).unwrap();
            session.feed_tokens(&ids(20)).unwrap();
            session.advance(Budget::Unlimited).unwrap();
            assert_eq!(bits(session.logits()), plain(&model, &ids(20)), "{name}");
        }
    }
}

#[test]
fn keys_and_values_need_the_memory_of_their_types() {
    let bytes = story();
    let model = Model::from_slice(&bytes).unwrap();
    let (spec, positions) = (model.spec(), 160);
    assert!(spec.dim_k % 32 == 0 && spec.dim_v % 32 == 0);
    let of = |keys, values| {
        let limits = Limits::new().context(positions).kv_types(keys, values);
        assert_eq!(
            Session::size(&model, &limits).unwrap(),
            model.session(limits).map(|_| limits.plan(&model)).unwrap().unwrap().bytes
        );
        limits.plan(&model).unwrap().kv_bytes
    };
    let numbers = spec.layers * spec.kv_heads * positions;
    let (keys, values) = (numbers * spec.dim_k, numbers * spec.dim_v);
    assert_eq!(of(KvType::F16, KvType::F16), 2 * (keys + values));
    assert_eq!(of(KvType::F32, KvType::F32), 4 * (keys + values));
    assert_eq!(of(KvType::F32, KvType::F16), 4 * keys + 2 * values);
    // A byte a number and two bytes for 32 of them: (1 + 2/32) / 2 of f16.
    assert_eq!(of(KvType::Q8_0, KvType::Q8_0), (keys + values) * 34 / 32);
    assert_eq!(of(KvType::Q8_0, KvType::F16), keys * 34 / 32 + 2 * values);
    assert_eq!(of(KvType::F16, KvType::Q8_0), 2 * keys + values * 34 / 32);
    // Two bytes a number and four for all of a position.
    assert_eq!(of(KvType::I16, KvType::I16), 2 * (keys + values) + 2 * 4 * numbers);
    assert_eq!(of(KvType::I16, KvType::F32), 2 * keys + 4 * numbers + 4 * values);
    let plan = |limits: Limits| limits.plan(&model).unwrap();
    assert_eq!(
        plan(Limits::new().kv(KvType::Q8_0)),
        plan(Limits::new().kv_types(KvType::Q8_0, KvType::Q8_0))
    );
}

#[test]
fn what_the_memory_held_before_does_not_matter() {
    for name in MODELS {
        let bytes = golden(name);
        let model = Model::from_slice(&bytes).unwrap();
        for kv in KvType::ALL {
            let limits = Limits::new().context(64).batch(7).kv(kv);
            let logits = |fill: u8| {
                let mut memory = Block::zeroed(limits.plan(&model).unwrap().bytes).unwrap();
                memory.bytes_mut().fill(fill);
                let mut session = Session::new(&model, &limits, &Serial, memory.bytes_mut()).unwrap();
                session.feed_tokens(&ids(40)).unwrap();
                session.advance(Budget::Unlimited).unwrap();
                bits(session.logits())
            };
            // 0xff bytes are NaN as floats, as f16 and as scales.
            assert_eq!(logits(0xff), logits(0), "{name} {kv:?}");
        }
    }
}

#[test]
fn any_budget_gives_the_same_logits() {
    for name in MODELS {
        let bytes = golden(name);
        let model = Model::from_slice(&bytes).unwrap();
        let expected = plain(&model, &ids(30));
        for jobs in [1, 2, 7, 100] {
            let mut session = model.session(Limits::new().context(128).batch(11)).unwrap();
            session.feed_tokens(&ids(30)).unwrap();
            let mut calls = 0;
            while session.advance(Budget::Units(jobs)).unwrap() == Progress::Pending {
                assert_eq!(session.logits(), None);
                calls += 1;
            }
            assert!(calls > 10 / jobs, "{name}: {calls} calls with {jobs} jobs each");
            assert_eq!(bits(session.logits()), expected, "{name}, {jobs} jobs");
        }
        let time = std::cell::Cell::new(0);
        let clock = || {
            time.set(time.get() + 1);
            time.get()
        };
        let mut session = model.session(Limits::new().context(128)).unwrap();
        session.feed_tokens(&ids(30)).unwrap();
        assert_eq!(session.advance(Budget::Until { clock: &clock, at: 0 }).unwrap(), Progress::Pending);
        while session.advance(Budget::Until { clock: &clock, at: time.get() + 5 }).unwrap()
            == Progress::Pending
        {}
        assert_eq!(bits(session.logits()), expected, "{name}, by the clock");
    }
}

#[test]
fn truncating_is_as_if_the_tokens_had_never_been() {
    for name in MODELS {
        let bytes = golden(name);
        let model = Model::from_slice(&bytes).unwrap();
        let mut session = model.session(Limits::new().context(128)).unwrap();
        session.feed_tokens(&ids(50)).unwrap();
        session.advance(Budget::Unlimited).unwrap();
        // In the middle of a pass, too.
        session.feed_tokens(&ids(20)).unwrap();
        assert_eq!(session.advance(Budget::Units(3)).unwrap(), Progress::Pending);
        session.truncate(17).unwrap();
        assert_eq!(session.tokens(), ids(17));
        assert_eq!(session.logits(), None);
        session.advance(Budget::Unlimited).unwrap();
        assert_eq!(bits(session.logits()), plain(&model, &ids(17)), "{name}");
        session.feed_tokens(&[5, 6]).unwrap();
        session.advance(Budget::Unlimited).unwrap();
        assert_eq!(bits(session.logits()), plain(&model, &[&ids(17)[..], &[5, 6]].concat()), "{name}");
        assert_eq!(session.truncate(20), Err(Error::Position { position: 20, len: 19 }));
    }
}

#[test]
fn a_full_context_is_an_error_that_changes_nothing() {
    let bytes = golden("llama-gqa-tied-q8_0");
    let model = Model::from_slice(&bytes).unwrap();
    let mut session = model.session(Limits::new().context(20)).unwrap();
    session.feed_tokens(&ids(15)).unwrap();
    let full = Error::ContextFull { needed: 6, room: 5, context: 20 };
    assert_eq!(session.feed_tokens(&ids(6)), Err(full));
    assert_eq!(session.tokens(), ids(15));
    session.set_ignore_end(true);
    let mut sampler = Sampler::greedy();
    for _ in 0..5 {
        assert!(session.next_token(&mut sampler).unwrap().is_some());
    }
    let full = Error::ContextFull { needed: 1, room: 0, context: 20 };
    assert_eq!(session.next_token(&mut sampler), Err(full));
    assert_eq!(session.tokens().len(), 20);
    session.truncate(10).unwrap();
    assert!(session.next_token(&mut sampler).unwrap().is_some());
}

#[test]
fn a_step_into_a_full_context_leaves_no_trace() {
    let bytes = story();
    let model = Model::from_slice(&bytes).unwrap();
    let mut session = model.session(Limits::new().context(20)).unwrap();
    let mut sampler = Sampler::greedy();
    session.feed_tokens(&ids(20)).unwrap();
    let before = session.state_hash();
    let full = Error::ContextFull { needed: 1, room: 0, context: 20 };
    assert_eq!(session.step(Budget::Unlimited, &mut sampler).map(|_| ()), Err(full));
    assert_eq!(session.state_hash(), before);
}

#[test]
fn wrong_input_is_a_clear_error() {
    let bytes = golden("gpt2-tied");
    let model = Model::from_slice(&bytes).unwrap();
    let table = model.spec().context;
    let error = model.session(Limits::new().context(table + 1)).unwrap_err();
    assert_eq!(error, Error::ContextBeyondModel { context: table + 1, table });
    let mut session = model.session(Limits::new()).unwrap();
    assert_eq!(session.context(), table);
    assert_eq!(session.advance(Budget::Unlimited), Err(Error::EmptyPrompt));
    assert_eq!(session.next_token(&mut Sampler::greedy()), Err(Error::EmptyPrompt));
    let vocab = model.spec().vocab;
    let id = vocab as u32;
    assert_eq!(session.feed_tokens(&[0, id]), Err(Error::Token { id, vocab }));
    assert_eq!(session.feed_tokens(&[u32::MAX]), Err(Error::Token { id: u32::MAX, vocab }));
    assert!(session.tokens().is_empty());
    let long = "a".repeat(4 * table + 1);
    assert_eq!(session.feed(&long), Err(Error::TextTooLong { got: 4 * table + 1, most: 4 * table }));
}

#[test]
fn log_probabilities_are_those_of_the_logits() {
    for name in MODELS {
        let bytes = golden(name);
        let model = Model::from_slice(&bytes).unwrap();
        let (prompt, answer) = (ids(12), ids(9));
        let mut expected = 0.0;
        for t in 0..answer.len() {
            let logits = plain(&model, &[&prompt[..], &answer[..t]].concat());
            let logits: Vec<f64> = logits.iter().map(|bits| f64::from(f32::from_bits(*bits))).collect();
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            expected += logits[answer[t] as usize] - sum.ln();
        }
        for rows in [1, 4, 64] {
            let mut session = model.session(Limits::new().context(64).logits(rows)).unwrap();
            session.feed_tokens(&prompt).unwrap();
            let mut terms = Vec::new();
            let sum = session.log_prob(&answer, |term| terms.push(term)).unwrap();
            assert!((sum - expected).abs() < 1e-6, "{name}: {sum} for {expected}");
            assert_eq!(terms.len(), answer.len());
            assert!((terms.iter().sum::<f64>() - sum).abs() < 1e-9);
            // The session has read both, and goes on from there.
            assert_eq!(bits(session.logits()), plain(&model, &[&prompt[..], &answer[..]].concat()), "{name}");
        }
    }
}

#[test]
fn steps_show_the_same_text_as_pieces() {
    let bytes = story();
    let model = Model::from_slice(&bytes).unwrap();
    let sampler = Sampler::greedy().temperature(0.8).unwrap().seed(7);
    let limits = Limits::new().context(96);
    let mut whole = String::new();
    let mut session = model.session(limits).unwrap();
    session.set_max_tokens(Some(40));
    session.feed("Once upon a time").unwrap();
    let mut by_piece = sampler;
    while let Some(piece) = session.next_piece(&mut by_piece).unwrap() {
        assert!(!piece.is_empty());
        whole.push_str(piece);
    }
    let finish = session.finish().unwrap();
    for jobs in [3, 50] {
        let mut session = model.session(limits).unwrap();
        session.set_max_tokens(Some(40));
        session.feed("Once upon a time").unwrap();
        let (mut by_step, mut text, mut pending) = (sampler, String::new(), 0);
        loop {
            match session.step(Budget::Units(jobs), &mut by_step).unwrap() {
                Step::Pending => pending += 1,
                Step::Token(_) => {}
                Step::Piece(piece) => text.push_str(piece),
                Step::Done(why) => {
                    assert_eq!(why, finish);
                    break;
                }
            }
        }
        assert_eq!(text, whole);
        assert!(pending > 40);
    }
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let bytes = story();
    let model = Model::from_slice(&bytes).unwrap();
    let tell = |stops: &[&str]| {
        let mut session = model.session(Limits::new().context(128)).unwrap();
        session.set_stops(stops).unwrap();
        session.set_max_tokens(Some(60));
        session.feed("Once upon a time").unwrap();
        let (mut text, mut sampler) = (String::new(), Sampler::greedy());
        while let Some(piece) = session.next_piece(&mut sampler).unwrap() {
            text.push_str(piece);
        }
        (text, session.finish())
    };
    let (free, _) = tell(&[]);
    // A stop string from the middle of the text, cut regardless of tokens.
    let at = free.char_indices().nth(40).unwrap().0;
    let stop = &free[at..at + 9];
    let (text, finish) = tell(&["nothing like this", stop]);
    assert_eq!(finish, Some(Finish::Stop));
    assert_eq!(text, free[..free.find(stop).unwrap()]);
}

#[test]
fn feeding_reopens_a_finished_answer() {
    let bytes = story();
    let model = Model::from_slice(&bytes).unwrap();
    let mut session = model.session(Limits::new().context(128)).unwrap();
    session.set_max_tokens(Some(3));
    session.feed("Tim had a dog.").unwrap();
    let mut sampler = Sampler::greedy();
    while session.next_token(&mut sampler).unwrap().is_some() {}
    assert_eq!(session.finish(), Some(Finish::MaxTokens));
    session.set_max_tokens(Some(2));
    session.feed(" The dog").unwrap();
    assert_eq!(session.finish(), None);
    let mut more = 0;
    while session.next_token(&mut sampler).unwrap().is_some() {
        more += 1;
    }
    assert_eq!(more, 2);
}

/// What is held back at the end is shown, even if the text has ended once before because there was no room.
#[test]
fn a_text_that_goes_on_after_a_full_cache_is_shown_to_its_end() {
    let bytes = story();
    let model = Model::from_slice(&bytes).unwrap();
    let prompt = "Once upon a time";
    let run = |session: &mut Session<'_>, text: &mut String| {
        let mut sampler = Sampler::greedy();
        loop {
            match session.next_piece(&mut sampler) {
                Ok(Some(piece)) => text.push_str(piece),
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    };
    let (mut whole, mut text) = (String::new(), String::new());
    let mut session = model.session(Limits::new().context(64)).unwrap();
    session.set_max_tokens(Some(40));
    session.feed(prompt).unwrap();
    assert_eq!(run(&mut session, &mut whole), None);

    // Four pages for two sequences; the other one has to go before the text can go on.
    let limits = Limits::new().context(64).sequences(2).positions(64);
    let mut session = model.session(limits).unwrap();
    let first = session.selected();
    let other = session.create().unwrap();
    session.select(other).unwrap();
    session.feed_tokens(&ids(33)).unwrap();
    session.select(first).unwrap();
    // The end of the text could become this stop string.
    let tail = whole.char_indices().rev().nth(5).unwrap().0;
    session.set_stops(&[&format!("{}#", &whole[tail..])]).unwrap();
    session.set_max_tokens(Some(40));
    session.feed(prompt).unwrap();
    let error = run(&mut session, &mut text);
    assert!(matches!(error, Some(Error::PagesFull { .. })), "{error:?}");
    session.close(other).unwrap();
    assert_eq!(run(&mut session, &mut text), None);
    assert_eq!(text, whole);
}
