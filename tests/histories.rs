//! Whatever is done to the sequences of a session, in whatever order, on whatever threads: each has the logits of a plain
//! run, bit for bit.
//!
//! Random histories of operations (feed, step with random budgets, cancel, fork, truncate, close, select, save and
//! restore, within and between sessions of other batches and threads) are compared with sessions that read the same
//! tokens in the plainest way. `LOCUTOR_HISTORIES` sets how many are tried for each model and policy.

use locutor::exec_threads::Threads;
use locutor::kv::KvType;
use locutor::model::Model;
use locutor::{
    Budget, CancelFlag, ContextPolicy, Error, Exec, Limits, Progress, Sampler, Saved, SequenceId, Serial,
    Session,
};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;

const MODELS: [&str; 3] = ["gpt2-tied", "llama-gqa-tied-q8_0", "gemma3"];
const CONTEXT: usize = 160;
const SEQUENCES: usize = 4;

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

/// A host's job system that calls jobs in a shuffled order, some of them inline and some on other threads, with any
/// worker that is free, and forgets some.
struct Shuffled {
    workers: usize,
    rng: Mutex<Rng>,
}

impl Exec for Shuffled {
    fn workers(&self) -> usize {
        self.workers
    }

    fn parallel_for(&self, workers: usize, n: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        let mut order: Vec<usize> = (0..n).collect();
        let threads = {
            let mut rng = self.rng.lock().unwrap();
            (1..n).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
            order.truncate(n - rng.below(2));
            // Threads are dear: most of the time all is done inline.
            if rng.below(64) == 0 { workers } else { 1 }
        };
        if threads == 1 {
            order.iter().for_each(|job| work(*job, job % workers));
            return;
        }
        std::thread::scope(|scope| {
            for (worker, jobs) in order.chunks(order.len().div_ceil(threads).max(1)).enumerate() {
                scope.spawn(move || jobs.iter().for_each(|job| work(*job, worker)));
            }
        });
    }
}

fn bits(session: &Session<'_>) -> Vec<u32> {
    session.logits().expect("logits are ready").iter().map(|logit| logit.to_bits()).collect()
}

/// Logits of plain runs, by their tokens.
struct Plain<'m> {
    session: Session<'m>,
    known: HashMap<Vec<u32>, Vec<u32>>,
}

impl<'m> Plain<'m> {
    fn new(model: &'m Model<'m>, limits: Limits) -> Self {
        Self { session: model.session(limits.batch(32)).unwrap(), known: HashMap::new() }
    }

    fn logits(&mut self, ids: &[u32]) -> &[u32] {
        let session = &mut self.session;
        self.known.entry(ids.to_vec()).or_insert_with(|| {
            session.truncate(0).unwrap();
            for ids in ids.chunks(CONTEXT) {
                session.feed_tokens(ids).unwrap();
                session.advance(Budget::Unlimited).unwrap();
            }
            bits(session)
        })
    }
}

/// What a sequence should hold: all its tokens, and the most it ever had.
#[derive(Clone)]
struct Expected {
    id: SequenceId,
    tokens: Vec<u32>,
}

/// A session, and what its sequences should hold.
struct World<'m, 'x> {
    session: Session<'x>,
    model: &'m Model<'m>,
    cancel: &'x CancelFlag,
    limits: Limits,
    policy: ContextPolicy,
    sequences: Vec<Expected>,
    selected: usize,
    /// A saved sequence with its tokens, and a saved session with its sequences.
    saved: Option<(Vec<u8>, Vec<u32>)>,
    saved_all: Option<(Vec<u8>, Vec<Expected>, usize)>,
}

impl World<'_, '_> {
    fn tokens(&mut self) -> &mut Vec<u32> {
        &mut self.sequences[self.selected].tokens
    }

    /// One random operation; the pages are few, so that some do not succeed and must then change nothing.
    fn act(&mut self, rng: &mut Rng, plain: &mut Plain<'_>) {
        match rng.below(16) {
            0..=3 => self.feed(rng),
            4..=5 => self.advance(rng),
            6 => self.truncate(rng),
            7 => self.create(rng),
            8 if self.sequences.len() > 1 => {
                let closed = (self.selected + 1 + rng.below(self.sequences.len() - 1)) % self.sequences.len();
                let id = self.sequences.remove(closed).id;
                self.selected -= usize::from(closed < self.selected);
                self.session.close(id).unwrap();
                assert_eq!(self.session.close(id), Err(Error::Sequence));
                assert_eq!(self.session.select(id), Err(Error::Sequence));
            }
            9 => {
                self.selected = rng.below(self.sequences.len());
                self.session.select(self.sequences[self.selected].id).unwrap();
            }
            10 | 11 => self.generate(),
            12 => self.cancel(rng),
            13 => self.save(rng),
            14 => self.restore(rng),
            _ => self.compare(plain),
        }
        assert_eq!(self.session.position(), self.sequences[self.selected].tokens.len());
        assert!(self.sequences[self.selected].tokens.ends_with(self.session.tokens()));
        assert_eq!(self.session.sequences(), self.sequences.len());
    }

    fn feed(&mut self, rng: &mut Rng) {
        let ids = rng.ids(40);
        match self.session.feed_tokens(&ids) {
            Ok(()) => self.tokens().extend(ids),
            Err(Error::ContextFull { needed, room, .. }) => {
                assert!(needed == ids.len() && room < needed && room == self.session.room());
                assert!(self.policy != ContextPolicy::Stop || room == CONTEXT - self.tokens().len());
            }
            Err(Error::PagesFull { needed, free }) => {
                assert!(needed > free && free == self.session.pages().0);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn advance(&mut self, rng: &mut Rng) {
        if self.tokens().is_empty() {
            return;
        }
        let time = Cell::new(0);
        let clock = || {
            time.set(time.get() + 1);
            time.get()
        };
        let budget = match rng.below(3) {
            0 => Budget::Until { clock: &clock, at: rng.below(40) as u64 },
            _ => Budget::Units(rng.below(90) as u64),
        };
        self.full_or(self.session.state_hash(), |session| session.advance(budget).map(|_| ()));
    }

    /// Runs what computes; a full cache must leave everything as it was.
    fn full_or(&mut self, hash: u64, call: impl FnOnce(&mut Session<'_>) -> Result<(), Error>) -> bool {
        match call(&mut self.session) {
            Ok(()) => true,
            Err(Error::PagesFull { .. }) => {
                assert_eq!(self.session.state_hash(), hash);
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn truncate(&mut self, rng: &mut Rng) {
        let held = self.tokens().len();
        let len = if rng.below(2) == 0 { held.saturating_sub(rng.below(12)) } else { rng.below(held + 1) };
        match self.session.truncate(len) {
            Ok(()) => self.tokens().truncate(len),
            Err(Error::Forgotten { position }) => {
                assert!(position == len && self.policy != ContextPolicy::Stop);
            }
            Err(error) => panic!("{error}"),
        }
        assert!(matches!(self.session.truncate(10_000), Err(Error::Position { .. })));
    }

    fn create(&mut self, rng: &mut Rng) {
        let (result, tokens) = if rng.below(4) == 0 {
            (self.session.create(), Vec::new())
        } else {
            (self.session.fork(), self.tokens().clone())
        };
        match result {
            Ok(id) => self.sequences.push(Expected { id, tokens }),
            Err(error) => {
                assert_eq!(error, Error::NoSequence { sequences: SEQUENCES });
                assert_eq!(self.sequences.len(), SEQUENCES);
            }
        }
    }

    fn generate(&mut self) {
        self.session.set_ignore_end(true);
        match self.session.next_token(&mut Sampler::greedy()) {
            Ok(id) => self.tokens().extend(id),
            Err(Error::EmptyPrompt) => assert!(self.tokens().is_empty()),
            Err(Error::ContextFull { .. }) => {
                assert!(self.policy == ContextPolicy::Stop && self.tokens().len() == CONTEXT);
            }
            Err(Error::PagesFull { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// A wish to stop that comes before or during a call.
    fn cancel(&mut self, rng: &mut Rng) {
        if self.tokens().is_empty() {
            return;
        }
        let (hash, tokens) = (self.session.state_hash(), self.session.tokens().to_vec());
        let (looks, after) = (Cell::new(0), rng.below(20));
        let cancel = self.cancel;
        let clock = || {
            if looks.replace(looks.get() + 1) == after {
                cancel.cancel();
            }
            0
        };
        let mut sampler = Sampler::greedy().temperature(0.9).unwrap().seed(3);
        let rng_before = sampler.rng();
        let result = self.session.step(Budget::Until { clock: &clock, at: 1 }, &mut sampler).map(|_| ());
        let no_text = self.model.tokenizer().is_none();
        match result {
            Err(Error::Cancelled) => {
                assert_eq!((self.session.state_hash(), sampler.rng()), (hash, rng_before));
                assert_eq!(self.session.tokens(), tokens);
                assert!(!cancel.is_cancelled());
            }
            Err(Error::NoTokenizer) => assert!(no_text),
            Err(Error::ContextFull { .. } | Error::PagesFull { .. }) => {}
            Ok(()) => {
                // It was faster than the wish, and may have added a token.
                let len = self.session.position();
                if len > self.tokens().len() {
                    let id = *self.session.tokens().last().unwrap();
                    self.tokens().push(id);
                }
            }
            Err(error) => panic!("{error}"),
        }
        cancel.reset();
        if rng.below(2) == 0 {
            cancel.cancel();
            match self.session.advance(Budget::Unlimited) {
                Err(Error::Cancelled | Error::PagesFull { .. }) | Ok(Progress::Ready) => cancel.reset(),
                other => panic!("{other:?}"),
            }
        }
    }

    fn save(&mut self, rng: &mut Rng) {
        let what = if rng.below(2) == 0 { Saved::Sequence } else { Saved::Session };
        let hash = self.session.state_hash();
        let mut bytes = vec![0; self.session.save_size(what, None)];
        let short = bytes.len() - 1;
        assert!(matches!(self.session.save(what, None, &mut bytes[..short]), Err(Error::StateSize { .. })));
        assert_eq!(self.session.save(what, None, &mut bytes), Ok(bytes.len()));
        assert_eq!((self.session.state_hash(), self.session.check_state(&bytes)), (hash, Ok(what)));
        match what {
            Saved::Sequence => self.saved = Some((bytes, self.tokens().clone())),
            Saved::Session => self.saved_all = Some((bytes, self.sequences.clone(), self.selected)),
        }
    }

    fn restore(&mut self, rng: &mut Rng) {
        let hash = self.session.state_hash();
        if let (Some((bytes, tokens)), 0) = (&self.saved, rng.below(2)) {
            match self.session.restore(bytes, None) {
                Ok(()) => self.sequences[self.selected].tokens.clone_from(tokens),
                Err(Error::PagesFull { .. }) => assert_eq!(self.session.state_hash(), hash),
                Err(error) => panic!("{error}"),
            }
        } else if let Some((bytes, sequences, selected)) = &self.saved_all {
            self.session.restore(bytes, None).unwrap();
            self.sequences.clone_from(sequences);
            self.selected = *selected;
            assert_eq!(self.session.selected(), self.sequences[self.selected].id);
            let mut again = vec![0; bytes.len()];
            self.session.save(Saved::Session, None, &mut again).unwrap();
            assert!(again == *bytes, "a restored session is saved as the same bytes");
            // Another session, of another batch and other threads, goes on from the same state.
            let limits = self.limits.batch(1 + rng.below(9)).threads(1 + rng.below(2));
            let mut other = self.model.session(limits).unwrap();
            other.restore(bytes, None).unwrap();
            assert_eq!(other.state_hash(), self.session.state_hash());
            other.save(Saved::Session, None, &mut again).unwrap();
            assert!(again == *bytes);
        }
    }

    fn compare(&mut self, plain: &mut Plain<'_>) {
        let held = self.tokens().clone();
        if held.is_empty() {
            return;
        }
        let hash = self.session.state_hash();
        if self.full_or(hash, |session| session.advance(Budget::Unlimited).map(|_| ())) {
            assert!(bits(&self.session) == plain.logits(&held), "logits differ after {} tokens", held.len());
        }
    }
}

/// How many histories are tried for each model and policy: `LOCUTOR_HISTORIES`, or 14.
fn histories() -> u64 {
    std::env::var("LOCUTOR_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(14)
}

fn try_histories(policy: ContextPolicy) {
    for name in MODELS {
        let bytes = golden(name);
        let model = Model::from_slice(&bytes).unwrap();
        let slides = matches!(policy, ContextPolicy::Slide { .. });
        if slides && model.spec().hard_context().is_some() {
            assert!(model.session(Limits::new().context(CONTEXT).policy(policy)).is_err());
            continue;
        }
        let base = |seed: u64| {
            let pick = |n: u64| KvType::ALL[(n % 4) as usize];
            Limits::new().context(CONTEXT).policy(policy).kv_types(pick(seed), pick(seed / 4))
        };
        let mut plains: Vec<Plain<'_>> = (0..16).map(|seed| Plain::new(&model, base(seed))).collect();
        for seed in 0..histories() {
            let mut rng = Rng(seed * 1_000_003 + 17);
            let workers = 1 + rng.below(8);
            let limits = base(seed)
                .sequences(SEQUENCES)
                .positions(16 * (10 + rng.below(14)))
                .batch(1 + rng.below(40))
                .threads(workers)
                .decode_threads(1 + rng.below(workers));
            let shuffled = Shuffled { workers, rng: Mutex::new(Rng(seed)) };
            let pool = Threads::new(workers).unwrap();
            let exec: &dyn Exec = [&Serial as &dyn Exec, &pool, &shuffled][rng.below(3)];
            let cancel = CancelFlag::new();
            let mut session = model.session_on(limits, exec).unwrap();
            session.set_cancel(Some(&cancel));
            let sequences = vec![Expected { id: session.selected(), tokens: Vec::new() }];
            let model = &model;
            let mut world = World {
                session,
                model,
                cancel: &cancel,
                limits,
                policy,
                sequences,
                selected: 0,
                saved: None,
                saved_all: None,
            };
            let plain = &mut plains[(seed % 16) as usize];
            for _ in 0..90 {
                world.act(&mut rng, plain);
            }
            // At the end everybody is asked, and all pages come back.
            for index in 0..world.sequences.len() {
                world.selected = index;
                world.session.select(world.sequences[index].id).unwrap();
                world.compare(plain);
            }
            for index in 0..world.sequences.len() {
                world.session.select(world.sequences[index].id).unwrap();
                world.session.truncate(0).unwrap();
            }
            let (free, all) = world.session.pages();
            assert_eq!(free, all, "{name}, history {seed}: pages were lost");
        }
    }
}

#[test]
fn any_history_gives_the_logits_of_a_plain_run() {
    try_histories(ContextPolicy::Stop);
}

#[test]
fn any_history_with_shifts_gives_the_logits_of_a_plain_run() {
    try_histories(ContextPolicy::Shift { keep: 20 });
}

#[test]
fn any_history_with_a_sliding_window_gives_the_logits_of_a_plain_run() {
    try_histories(ContextPolicy::Slide { sinks: 4 });
}
