//! Saved states by a stranger's hand: with a right digest, and anything in them.

use crate::seeds;
use locutor::exec::Serial;
use locutor::mem::Digest;
use locutor::model::Model;
use locutor::sample::Sampler;
use locutor::session::{Budget, ContextPolicy, Error, Limits, Saved, SequenceId, Session};

/// Bytes of the digest at the end.
const TRAILER: usize = 8;
/// Where the length of the whole state stands.
const LENGTH_AT: usize = 16;

/// Makes length and digest right.
fn mend(state: &mut [u8]) {
    let len = state.len();
    if len < LENGTH_AT + 8 + TRAILER {
        return;
    }
    state[LENGTH_AT..LENGTH_AT + 8].copy_from_slice(&(len as u64).to_le_bytes());
    let mut digest = Digest::new();
    digest.add(&state[..len - TRAILER]);
    state[len - TRAILER..].copy_from_slice(&digest.value().to_le_bytes());
}

/// Reads a state as its documentation says, and notes every number: name, offset, width.
struct Reader<'s> {
    state: &'s [u8],
    at: usize,
    fields: Vec<(&'static str, usize, usize)>,
}

impl Reader<'_> {
    fn number(&mut self, name: &'static str, width: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(&self.state[self.at..self.at + width]);
        self.fields.push((name, self.at, width));
        self.at += width;
        u64::from_le_bytes(bytes)
    }

    fn text(&mut self, name: &'static str) {
        let len = self.number(name, 4) as usize;
        if len > 0 {
            self.fields.push((name, self.at, 1));
        }
        self.at += len;
    }

    fn sequence(&mut self) {
        for name in ["index", "generation"] {
            self.number(name, 4);
        }
        if self.number("flags", 4) & 1 == 0 {
            return;
        }
        let [_, _, tokens, _, _] =
            ["forgotten", "most", "tokens", "computed", "left"].map(|name| self.number(name, 8));
        for name in ["finish", "finish token"] {
            self.number(name, 4);
        }
        self.text("held");
        self.text("tail");
        self.number("stop reached", 4);
        for _ in 0..self.number("stop strings", 4) {
            self.text("stop string");
        }
        for _ in 0..tokens {
            self.number("token", 4);
        }
        for _ in 0..2 {
            self.number("blocks forgotten", 4);
            for _ in 0..self.number("blocks", 4) {
                self.number("page", 4);
            }
        }
    }

    fn all(&mut self) {
        self.number("magic", 8);
        for name in ["version", "kind"] {
            self.number(name, 4);
        }
        for name in ["length", "model"] {
            self.number(name, 8);
        }
        for _ in 0..8 {
            self.number("binding", 4);
        }
        self.number("policy", 4);
        for name in ["policy context", "policy keeps"] {
            self.number(name, 8);
        }
        let [sequences, pages, windowed, sampler] =
            ["sequences", "pages", "pages of windows", "sampler"].map(|name| self.number(name, 4));
        if sampler == 1 {
            for name in
                ["temperature", "top_k", "top_p", "min_p", "repeat", "frequency", "presence", "last_n"]
            {
                self.number(name, 4);
            }
            for name in ["seed", "rng"] {
                self.number(name, 8);
            }
        }
        (0..sequences).for_each(|_| self.sequence());
        // Of the images only the front is a number; they are of one length, and end where the digest begins.
        let (mut left, at) = (pages + windowed, self.at);
        assert!(left == 0 || at < self.state.len() - TRAILER);
        if left > 0 {
            self.number("positions", 4);
            left -= 1;
        }
        assert!(left < 1000);
    }
}

fn fields(state: &[u8]) -> Vec<(&'static str, usize, usize)> {
    let mut reader = Reader { state, at: 0, fields: Vec::new() };
    reader.all();
    reader.fields
}

/// A session with a history, and its saved state: two sequences that share pages, one of which waits for its last
/// tokens, held back text, stop strings.
struct World<'m> {
    session: Session<'m>,
    sampler: Sampler<'static>,
    /// A whole session and a sequence.
    states: [Vec<u8>; 2],
    pages: (usize, usize),
    hash: u64,
}

fn limits(context: usize, policy: ContextPolicy) -> Limits {
    Limits::new().context(context).sequences(3).batch(7).policy(policy).stops(3, 12).text_bytes(100)
}

fn world<'m>(model: &'m Model<'m>, limits: Limits) -> World<'m> {
    let mut session = model.session_on(limits, &Serial).unwrap();
    let mut sampler = Sampler::greedy().temperature(0.9).unwrap().top_p(0.9).unwrap().seed(5);
    session.set_stops(&["abcab", "zz"]).unwrap();
    session.set_ignore_end(true);
    let tokens: Vec<u32> = (0..70).map(|n| n * 7 % 24).collect();
    session.feed_tokens(&tokens[..30]).unwrap();
    session.advance(Budget::Unlimited).unwrap();
    if session.room() >= 40 && !matches!(limits_policy(&session), ContextPolicy::Stop) {
        session.feed_tokens(&tokens[..40]).unwrap();
        session.advance(Budget::Unlimited).unwrap();
        session.feed_tokens(&tokens[..23]).unwrap();
        session.advance(Budget::Unlimited).unwrap();
    }
    let fork = session.fork().unwrap();
    session.feed_tokens(&tokens[..3]).unwrap();
    for _ in 0..4 {
        let _ = session.next_piece(&mut sampler).unwrap();
    }
    session.set_max_tokens(Some(50));
    session.select(fork).unwrap();
    session.feed_tokens(&tokens[50..55]).unwrap();
    let states = [Saved::Session, Saved::Sequence].map(|what| {
        let mut state = vec![0; session.save_size(what, Some(&sampler))];
        session.save(what, Some(&sampler), &mut state).unwrap();
        state
    });
    // So that pages and ids are those of a restored session from the beginning.
    session.restore(&states[0], None).unwrap();
    let (pages, hash) = (session.pages(), session.state_hash());
    World { session, sampler, states, pages, hash }
}

fn limits_policy(session: &Session<'_>) -> ContextPolicy {
    // What can be fed beyond the context tells whether anything is ever forgotten.
    if session.room() + session.position() > session.context() {
        ContextPolicy::Shift { keep: 0 }
    } else {
        ContextPolicy::Stop
    }
}

impl World<'_> {
    /// A state is refused and changes nothing, or is taken and works. Whether it was taken.
    fn try_state(&mut self, state: &[u8], what: impl Fn() -> String) -> bool {
        let before = self.sampler.rng();
        match self.session.restore(state, Some(&mut self.sampler)) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert_eq!(
                    self.session.state_hash(),
                    self.hash,
                    "{}: refused, but something changed",
                    what()
                );
                assert!(self.sampler.rng() == before && self.session.pages() == self.pages, "{}", what());
                false
            }
            Ok(()) => {
                self.exercise(&what);
                self.session.restore(&self.states[0], Some(&mut self.sampler)).unwrap();
                assert_eq!(self.session.pages(), self.pages, "{}: pages were lost", what());
                assert_eq!(self.session.state_hash(), self.hash, "{}", what());
                true
            }
        }
    }

    /// Everything that a session can do, with a state that anybody may have made.
    fn exercise(&mut self, what: &impl Fn() -> String) {
        let Self { session, sampler, .. } = self;
        // It can be saved, and what was saved is taken back and is the same.
        let mut copy = vec![0; session.save_size(Saved::Session, Some(sampler))];
        session.save(Saved::Session, Some(sampler), &mut copy).unwrap();
        let hash = session.state_hash();
        if let Err(error) = session.restore(&copy, None) {
            panic!("{}: what was restored and saved is refused: {error}", what());
        }
        assert_eq!(session.state_hash(), hash, "{}", what());
        let _ = (session.tokens().len(), session.position(), session.room(), session.finish());
        let selected = session.selected();
        assert_eq!(SequenceId::from_bits(selected.to_bits()), selected);
        expect(session.advance(Budget::Units(40)).map(|_| ()));
        expect(session.feed_tokens(&[3, 1, 4]));
        for _ in 0..3 {
            expect(session.next_piece(sampler).map(|_| ()));
        }
        if let Ok(id) = session.fork() {
            expect(session.truncate(session.position().saturating_sub(3)));
            expect(session.advance(Budget::Unlimited).map(|_| ()));
            expect(session.feed_tokens(&[5; 9]));
            expect(session.advance(Budget::Unlimited).map(|_| ()));
            session.select(id).unwrap();
            expect(session.next_token(sampler).map(|_| ()));
            session.close(selected).unwrap();
        }
        expect(session.truncate(session.position().saturating_sub(20)));
        expect(session.advance(Budget::Unlimited).map(|_| ()));
        expect(session.truncate(1));
        expect(session.advance(Budget::Unlimited).map(|_| ()));
        expect(session.truncate(0));
        session.feed_tokens(&[1, 2, 3]).unwrap();
        expect(session.advance(Budget::Unlimited).map(|_| ()));
    }
}

/// Errors that a state of any content may lead to.
fn expect(result: Result<(), Error>) {
    match result {
        Ok(())
        | Err(
            Error::ContextFull { .. }
            | Error::PagesFull { .. }
            | Error::EmptyPrompt
            | Error::NonFinite { .. }
            | Error::Position { .. }
            | Error::Forgotten { .. },
        ) => {}
        Err(error) => panic!("{error}"),
    }
}

const EDGES: [u64; 22] = [
    0,
    1,
    2,
    3,
    4,
    15,
    16,
    17,
    31,
    32,
    48,
    64,
    96,
    128,
    i32::MAX as u64,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 15,
    u64::MAX,
];

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

/// Tries all of a model's states under a policy; how many were tried and taken.
fn attack(world: &mut World<'_>) -> (usize, usize) {
    let (mut tried, mut taken) = (0, 0);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for state in world.states.clone() {
        assert!(world.try_state(&state, || "the state itself".into()));
        let fields = fields(&state);
        let put = |bytes: &mut [u8], (_, at, width): (&str, usize, usize), value: u64| {
            bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        };
        for field in &fields {
            for edge in EDGES {
                let mut bytes = state.clone();
                put(&mut bytes, *field, edge);
                mend(&mut bytes);
                tried += 1;
                taken += usize::from(world.try_state(&bytes, || format!("{field:?} = {edge}")));
            }
        }
        for round in 0..3000 {
            let mut bytes = state.clone();
            let mut changes = Vec::new();
            for _ in 0..1 + random.below(4) {
                let field = fields[random.below(fields.len())];
                let mut old = [0; 8];
                old[..field.2].copy_from_slice(&bytes[field.1..field.1 + field.2]);
                let old = u64::from_le_bytes(old);
                let value = match random.below(3) {
                    0 => EDGES[random.below(EDGES.len())],
                    1 => old.wrapping_add(random.below(5) as u64).wrapping_sub(2),
                    _ => old.wrapping_add(16 * random.below(7) as u64).wrapping_sub(48),
                };
                put(&mut bytes, field, value);
                changes.push((field, value));
            }
            if round % 3 == 0 {
                let (from, len) = (random.below(bytes.len()), 1 + random.below(12));
                match random.below(2) {
                    0 => drop(bytes.drain(from..(from + len).min(state.len()))),
                    _ => bytes.splice(from..from, vec![0; len]).for_each(drop),
                }
            }
            mend(&mut bytes);
            tried += 1;
            taken += usize::from(world.try_state(&bytes, || format!("{changes:?}")));
        }
        for len in (0..state.len()).filter(|len| *len < 700 || len % 61 == 0) {
            let mut bytes = state[..len].to_vec();
            assert!(!world.try_state(&bytes, || format!("{len} bytes")));
            mend(&mut bytes);
            assert!(!world.try_state(&bytes, || format!("{len} bytes, mended")));
            tried += 2;
        }
        for bit in (0..state.len() * 8).filter(|bit| *bit < 8 * 700 || bit % 61 == 0) {
            let mut bytes = state.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!world.try_state(&bytes, || format!("bit {bit}")));
            tried += 1;
        }
    }
    (tried, taken)
}

fn policies() -> [ContextPolicy; 3] {
    [ContextPolicy::Stop, ContextPolicy::Shift { keep: 10 }, ContextPolicy::Slide { sinks: 4 }]
}

#[test]
fn crafted_states_are_refused_or_work() {
    let (mut tried, mut taken) = (0, 0);
    for seed in [seeds::gpt2(), seeds::llama(), seeds::gemma3()] {
        let model = Model::from_slice(&seed.file).unwrap();
        for policy in policies() {
            // Gemma's window is 16: with this context its layers have pages of their own.
            let context = if seed.name == "gpt2" { 64 } else { 112 };
            let limits = limits(context, policy);
            if limits.plan(&model).is_err() {
                assert!(seed.name == "gpt2" && matches!(policy, ContextPolicy::Slide { .. }));
                continue;
            }
            let (t, k) = attack(&mut world(&model, limits));
            println!("hostile: states of {} with {policy:?}: {t} tried, {k} taken", seed.name);
            (tried, taken) = (tried + t, taken + k);
        }
    }
    println!("hostile: {tried} crafted states, {taken} of these taken and run");
    assert!(tried > 20_000 && taken > 1000);
}

/// A state that holds all pages of a window, right in everything: more than this session's table has places for.
#[test]
fn a_window_with_more_pages_than_there_is_room_for() {
    let seed = seeds::gemma3();
    let model = Model::from_slice(&seed.file).unwrap();
    let mut session = model.session_on(limits(112, ContextPolicy::Stop), &Serial).unwrap();
    session.feed_tokens(&[7; 100]).unwrap();
    session.advance(Budget::Unlimited).unwrap();
    let mut state = vec![0; session.save_size(Saved::Sequence, None)];
    session.save(Saved::Sequence, None, &mut state).unwrap();
    let fields = fields(&state);
    let at = |name| fields.iter().rev().find(|field| field.0 == name).unwrap().1;
    let number = |state: &[u8], at: usize| u32::from_le_bytes(state[at..at + 4].try_into().unwrap());
    let (base, blocks, windowed) = (at("blocks forgotten"), at("blocks"), at("pages of windows"));
    let (forgotten, held) = (number(&state, base), number(&state, blocks));
    assert_eq!((forgotten + held, number(&state, windowed)), (7, held), "pages of 16 positions");
    assert!(forgotten > 0, "a window of 16");
    // Nothing is forgotten, and what was is a page without positions behind the others.
    for (at, value) in [(base, 0), (blocks, 7), (windowed, 7)] {
        state[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    let pages: Vec<u8> = (0..7).flat_map(u32::to_le_bytes).collect();
    state.splice(blocks + 4..blocks + 4 + 4 * held as usize, pages);
    let end = state.len() - TRAILER;
    state.splice(end..end, vec![0; 4 * forgotten as usize]);
    mend(&mut state);
    let hash = session.state_hash();
    let room = session.restore(&state, None).unwrap_err();
    assert_eq!(room, Error::ContextFull { needed: 112, room: 64, context: 112 });
    assert_eq!((session.state_hash(), session.position()), (hash, 100));
    // A session with longer passes has it.
    let mut large = model.session_on(limits(112, ContextPolicy::Stop).batch(100), &Serial).unwrap();
    large.restore(&state, None).unwrap();
    assert_eq!(large.position(), 100);
}

#[test]
fn a_state_of_something_else_is_refused() {
    let (llama, gemma, gpt2) = (seeds::llama(), seeds::gemma3(), seeds::gpt2());
    let model = Model::from_slice(&llama.file).unwrap();
    let mut ours = world(&model, limits(64, ContextPolicy::Stop));
    for other in [&gemma, &gpt2] {
        let other = Model::from_slice(&other.file).unwrap();
        let theirs = world(&other, limits(64, ContextPolicy::Stop));
        for state in &theirs.states {
            let error = ours.session.restore(state, None).unwrap_err();
            assert_eq!(error, Error::StateOfOther { what: "model" });
        }
    }
    for policy in [ContextPolicy::Shift { keep: 0 }, ContextPolicy::Slide { sinks: 0 }] {
        let theirs = world(&model, limits(64, policy));
        let error = ours.session.restore(&theirs.states[0], None).unwrap_err();
        assert_eq!(error, Error::StateOfOther { what: "context policy" });
    }
    use locutor::kernels::KvType;
    let halves = limits(64, ContextPolicy::Stop);
    for kinds in [(KvType::F32, KvType::I16), (KvType::I16, KvType::Q8_0), (KvType::F16, KvType::F16)] {
        let theirs = world(&model, halves.kv_types(kinds.0, kinds.1));
        let error = ours.session.restore(&theirs.states[0], None).unwrap_err();
        assert_eq!(error, Error::StateOfOther { what: "type of keys and values" });
    }
    assert_eq!(ours.session.state_hash(), ours.hash);
}

/// Found by fuzzing: where positions begin anew after a shift, tokens that were read before are computed once more, and
/// were counted once more.
#[test]
fn log_probabilities_across_a_shift_are_counted_once() {
    for seed in seeds::all() {
        let model = Model::from_slice(&seed.file).unwrap();
        let limits = limits(64, ContextPolicy::Shift { keep: 10 }).logits(4);
        let ids: Vec<u32> = (0..90).map(|n| n * 5 % 24).collect();
        let terms = |step: usize| {
            let (mut terms, mut sum) = (Vec::new(), 0.0);
            let mut session = model.session_on(limits, &Serial).unwrap();
            session.feed_tokens(&ids[..30]).unwrap();
            for part in ids[30..].chunks(step) {
                sum += session.log_prob(part, |term| terms.push(term.to_bits())).unwrap();
            }
            assert_eq!((terms.len(), session.position()), (60, 90), "{}", seed.name);
            (terms, sum)
        };
        let (one_by_one, sum) = terms(1);
        for step in [60, 41, 7] {
            let (together, total) = terms(step);
            assert_eq!(together, one_by_one, "{}, {step} at a time", seed.name);
            assert!((total - sum).abs() < 1e-9);
        }
    }
}
