//! Several sequences in one session: whatever is done to them in whatever order, each has the logits of a plain run.

use locutor::kv::KvType;
use locutor::model::Model;
use locutor::{Budget, Error, Limits, Progress, Sampler, SequenceId, Session};
use std::collections::HashMap;

const MODELS: [&str; 3] = ["gpt2-tied", "llama-gqa-tied-q8_0", "gemma3"];

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/golden/{name}.gguf", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// SplitMix64 (Steele et al. 2014).
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn ids(&mut self, most: usize) -> Vec<u32> {
        let len = 1 + self.below(most);
        (0..len).map(|_| self.below(120) as u32).collect()
    }
}

/// Logits of plain runs, by their tokens.
struct Plain<'m> {
    session: Session<'m>,
    known: HashMap<Vec<u32>, Vec<u32>>,
}

impl<'m> Plain<'m> {
    fn new(model: &'m Model<'m>, limits: Limits) -> Self {
        Self { session: model.session(limits.context(CONTEXT)).unwrap(), known: HashMap::new() }
    }

    fn logits(&mut self, ids: &[u32]) -> &[u32] {
        let session = &mut self.session;
        self.known.entry(ids.to_vec()).or_insert_with(|| {
            session.truncate(0).unwrap();
            session.feed_tokens(ids).unwrap();
            session.advance(Budget::Unlimited).unwrap();
            bits(session)
        })
    }
}

fn bits(session: &Session<'_>) -> Vec<u32> {
    session.logits().expect("logits are ready").iter().map(|logit| logit.to_bits()).collect()
}

const CONTEXT: usize = 90;
const SEQUENCES: usize = 4;

/// A session, and what its sequences should hold.
struct World<'m> {
    session: Session<'m>,
    tokens: Vec<(SequenceId, Vec<u32>)>,
    selected: usize,
}

impl World<'_> {
    /// One random operation; the pages are few, so that some do not succeed and must then change nothing.
    fn act(&mut self, rng: &mut Rng, plain: &mut Plain<'_>) {
        let session = &mut self.session;
        let tokens = &mut self.tokens;
        match rng.below(12) {
            0..=3 => {
                let ids = rng.ids(25);
                let held = &mut tokens[self.selected].1;
                match session.feed_tokens(&ids) {
                    Ok(()) => held.extend(ids),
                    Err(Error::ContextFull { needed, room, .. }) => {
                        assert!(needed == ids.len() && room < needed && room == CONTEXT - held.len());
                    }
                    Err(Error::PagesFull { needed, free }) => {
                        assert!(needed > free && free == session.pages().0)
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            4..=5 => {
                if !tokens[self.selected].1.is_empty() {
                    session.advance(Budget::Jobs(rng.below(60) as u64)).unwrap();
                }
            }
            6 => {
                let len = rng.below(tokens[self.selected].1.len() + 1);
                session.truncate(len).unwrap();
                tokens[self.selected].1.truncate(len);
            }
            7 => match if rng.below(4) == 0 {
                (session.create(), Vec::new())
            } else {
                (session.fork(), tokens[self.selected].1.clone())
            } {
                (Ok(id), held) => tokens.push((id, held)),
                (Err(error), _) => {
                    assert_eq!(error, Error::NoSequence { sequences: SEQUENCES });
                    assert_eq!(tokens.len(), SEQUENCES);
                }
            },
            8 if tokens.len() > 1 => {
                let closed = (self.selected + 1 + rng.below(tokens.len() - 1)) % tokens.len();
                let (id, _) = tokens.remove(closed);
                self.selected -= usize::from(closed < self.selected);
                session.close(id).unwrap();
                assert_eq!(
                    (session.close(id), session.select(id)),
                    (Err(Error::Sequence), Err(Error::Sequence))
                );
            }
            9 => {
                self.selected = rng.below(tokens.len());
                session.select(tokens[self.selected].0).unwrap();
            }
            10 => {
                let held = &mut tokens[self.selected].1;
                session.set_ignore_end(true);
                match session.next_token(&mut Sampler::greedy()) {
                    Ok(id) => held.extend(id),
                    Err(Error::EmptyPrompt) => assert!(held.is_empty()),
                    Err(Error::ContextFull { .. }) => assert_eq!(held.len(), CONTEXT),
                    Err(Error::PagesFull { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            _ => {
                let held = &tokens[self.selected].1;
                if !held.is_empty() {
                    assert_eq!(session.advance(Budget::Unlimited).unwrap(), Progress::Ready);
                    assert!(bits(session) == plain.logits(held), "logits differ after {} tokens", held.len());
                }
            }
        }
        assert_eq!(self.session.tokens(), self.tokens[self.selected].1);
        assert_eq!(self.session.sequences(), self.tokens.len());
    }
}

/// How many histories are tried a model: `LOCUTOR_HISTORIES`, or 40.
fn histories() -> u64 {
    std::env::var("LOCUTOR_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

#[test]
fn any_history_gives_the_logits_of_a_plain_run() {
    let types = [(KvType::F16, KvType::F16), (KvType::Q8_0, KvType::F16), (KvType::Q8_0, KvType::Q8_0)];
    for (name, (keys, values)) in MODELS.into_iter().zip(types) {
        let bytes = golden(name);
        let model = Model::from_slice(&bytes).unwrap();
        let limits = Limits::new().kv_types(keys, values);
        let mut plain = Plain::new(&model, limits);
        for seed in 0..histories() {
            let mut rng = Rng(seed * 1_000_003);
            let limits = limits
                .context(CONTEXT)
                .sequences(SEQUENCES)
                .positions(16 * (7 + rng.below(10)))
                .batch(1 + rng.below(40))
                .threads(1 + rng.below(3));
            let session = model.session(limits).unwrap();
            let tokens = vec![(session.selected(), Vec::new())];
            let mut world = World { session, tokens, selected: 0 };
            for _ in 0..60 {
                world.act(&mut rng, &mut plain);
            }
            // At the end everybody is asked, and all pages come back.
            for (id, held) in &world.tokens {
                world.session.select(*id).unwrap();
                if !held.is_empty() {
                    world.session.advance(Budget::Unlimited).unwrap();
                    assert!(bits(&world.session) == plain.logits(held), "{name}, history {seed}");
                }
            }
            for (id, _) in &world.tokens {
                world.session.select(*id).unwrap();
                world.session.truncate(0).unwrap();
            }
            let (free, all) = world.session.pages();
            assert_eq!(free, all, "{name}, history {seed}: pages were lost");
        }
    }
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
        assert_eq!(session.advance(Budget::Jobs(0)).unwrap(), Progress::Ready);
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
        assert_eq!(session.advance(Budget::Jobs(0)).unwrap(), Progress::Ready);
    }
}
