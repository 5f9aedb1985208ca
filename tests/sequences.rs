//! Several sequences in one session: shared prompts and shared passes.

use locutor::model::Model;
use locutor::{Budget, Limits, Progress, SequenceId, Session};

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/golden/{name}.gguf", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn bits(session: &Session<'_>) -> Vec<u32> {
    session.logits().expect("logits are ready").iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn a_shared_prompt_is_computed_and_stored_once() {
    let bytes = golden("llama-gqa-tied-q8_0");
    let model = Model::from_slice(&bytes).unwrap();
    let prompt: Vec<u32> = (0..70).map(|i| (i * 31 + 7) % 120).collect();
    let mut session = model.session(Limits::new().context(128).sequences(8)).unwrap();
    let first = session.selected();
    session.feed_tokens(&prompt).unwrap();
    session.advance(Budget::Unlimited).unwrap();
    let expected = bits(&session);
    let (before, all) = session.pages();
    assert_eq!(all - before, 70usize.div_ceil(16));
    let forks: Vec<SequenceId> = (0..7).map(|_| session.fork().unwrap()).collect();
    assert_eq!(session.pages().0, before, "forking takes no page");
    for id in &forks {
        session.select(*id).unwrap();
        // The logits are there at once: nothing is left to compute.
        assert_eq!(session.advance(Budget::Units(0)).unwrap(), Progress::Ready);
        assert_eq!(bits(&session), expected);
    }
    // Each of the eight goes its own way: one new page each, the old last page stays with the last of them.
    for (i, id) in forks.iter().enumerate() {
        session.select(*id).unwrap();
        session.feed_tokens(&[i as u32 + 1]).unwrap();
    }
    assert_eq!(session.pages().0, before - 7);
    for (i, id) in forks.iter().enumerate() {
        session.select(*id).unwrap();
        session.advance(Budget::Unlimited).unwrap();
        let mut alone = model.session(Limits::new().context(128)).unwrap();
        alone.feed_tokens(&[&prompt[..], &[i as u32 + 1]].concat()).unwrap();
        alone.advance(Budget::Unlimited).unwrap();
        assert_eq!(bits(&session), bits(&alone));
    }
    session.select(first).unwrap();
    forks.iter().for_each(|id| session.close(*id).unwrap_or_else(|error| panic!("{error}")));
    session.truncate(70).unwrap();
    assert_eq!(session.pages().0, before);
}

#[test]
fn waiting_tokens_of_all_sequences_share_a_pass() {
    let bytes = golden("gpt2-tied");
    let model = Model::from_slice(&bytes).unwrap();
    let mut session = model.session(Limits::new().context(64).sequences(4)).unwrap();
    let mut ids = vec![session.selected()];
    ids.extend((0..3).map(|_| session.create().unwrap()));
    for (i, id) in ids.iter().enumerate() {
        session.select(*id).unwrap();
        session.feed_tokens(&[i as u32, 5, 6]).unwrap();
    }
    // The pass for the last one has computed all of them: no budget is needed any more.
    session.advance(Budget::Unlimited).unwrap();
    for id in &ids {
        session.select(*id).unwrap();
        assert_eq!(session.advance(Budget::Units(0)).unwrap(), Progress::Ready);
    }
}
