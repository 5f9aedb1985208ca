//! What every file is held against: an error that says what and where, or a model that works; never more memory or time
//! than a file of its size may cost.

use crate::memory::measured;
use crate::seeds::Seed;
use locutor::exec::Serial;
use locutor::format::ModelBytes;
use locutor::mem::aligned::Block;
use locutor::model::{Model, ModelError};
use locutor::sample::Sampler;
use locutor::session::{Budget, Error, Limits, Session, Step};
use locutor::text::TextError;
use std::time::{Duration, Instant};

/// Longest time for one file, far above what any takes: finds what hangs. Growth is counted elsewhere, in operations.
const LONGEST: Duration = Duration::from_secs(5);

/// Bytes that the tables of a file may take: in proportion to the file, whatever it claims.
pub fn ceiling(file_len: usize) -> usize {
    (1 << 20) + 8 * file_len
}

/// An error in comparable parts: name of the variant, field, byte offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub code: String,
    pub field: String,
    pub offset: Option<u64>,
}

fn variant(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

pub fn facts(error: &ModelError) -> Facts {
    let (code, field) = match error {
        ModelError::Format(error) => {
            (variant(error), error.field().map(|field| field.to_string()).unwrap_or_default())
        }
        ModelError::Text(TextError::Format(error)) => {
            (variant(error), error.field().map(|field| field.to_string()).unwrap_or_default())
        }
        ModelError::Text(error) => {
            let field = match error {
                TextError::Missing { key }
                | TextError::Unsupported { key, .. }
                | TextError::Limit { key, .. }
                | TextError::Mismatch { key, .. }
                | TextError::TokenId { key, .. }
                | TextError::Entry { key, .. }
                | TextError::Planned { key, .. } => key,
                TextError::NoTokenToAdd { flag, .. } => flag,
                _ => "",
            };
            (variant(error), field.to_string())
        }
        ModelError::HyperParameter { arch, key, .. } | ModelError::MissingKey { arch, key } => {
            (variant(error), format!("{arch}.{key}"))
        }
        ModelError::MissingTensor { name }
        | ModelError::UnexpectedTensor { name, .. }
        | ModelError::Shape { name, .. }
        | ModelError::TensorType { name, .. }
        | ModelError::NonFinite { name, .. } => (variant(error), name.to_string()),
        ModelError::Architecture { .. } => (variant(error), "general.architecture".into()),
        ModelError::VocabLength { .. } => (variant(error), "tokenizer.ggml.tokens".into()),
        ModelError::Unsupported { what } => (variant(error), what.to_string()),
        other => (variant(other), String::new()),
    };
    Facts { code, field, offset: error.offset() }
}

/// Memory that serves one file after the other, and is never cleaned in between.
pub struct Bench {
    tables: Block,
    session: Block,
    pub files: usize,
    pub accepted: usize,
    pub ran: usize,
    pub longest: Duration,
}

impl Bench {
    pub fn new() -> Self {
        let mut bench = Self {
            tables: Block::zeroed(4 << 20).unwrap(),
            session: Block::zeroed(8 << 20).unwrap(),
            files: 0,
            accepted: 0,
            ran: 0,
            longest: Duration::ZERO,
        };
        bench.tables.bytes_mut().fill(0xA5);
        bench.session.bytes_mut().fill(0xA5);
        bench
    }

    /// Loads a file in the memory that it asks for, and checks what it costs. `run` decides whether an accepted one must
    /// also work.
    pub fn load(&mut self, file: &[u8], run: bool) -> Result<(), ModelError> {
        self.files += 1;
        let started = Instant::now();
        let (size, used) = measured(|| Model::size(&ModelBytes::new(file)));
        assert_eq!((used.calls, used.left), (0, 0), "asking for the size takes no memory");
        let result = size.and_then(|size| {
            assert!(size <= ceiling(file.len()), "{size} bytes of tables for a file of {}", file.len());
            if self.tables.bytes().len() < size + 64 {
                self.tables = Block::zeroed(size + 64).unwrap();
            }
            self.load_in(file, size, run)
        });
        let mut time = started.elapsed();
        // A machine that did something else meanwhile is no fault of the file's: what is slow is slow every time.
        for _ in 0..3 {
            if time > LONGEST {
                let started = Instant::now();
                let _ = Model::from_slice(file);
                time = started.elapsed();
            }
        }
        assert!(time <= LONGEST, "a file of {} bytes took {time:?}", file.len());
        self.longest = self.longest.max(time);
        if let Err(error) = &result {
            let (offset, text) = (error.offset(), error.to_string());
            assert!(offset.is_none_or(|offset| offset <= file.len() as u64), "{text}: beyond the file");
            assert!(!text.is_empty() && text.len() < 500, "{text}");
        }
        result
    }

    fn load_in(&mut self, file: &[u8], size: usize, run: bool) -> Result<(), ModelError> {
        // What stands behind the planned bytes is nobody's business.
        let (memory, behind) = self.tables.bytes_mut().split_at_mut(size);
        behind[..64].fill(0x5A);
        let (result, used) = measured(|| Model::from_bytes(file, memory));
        assert_eq!((used.calls, used.left), (0, 0), "loading takes no other memory");
        let model = result?;
        assert_eq!(model.memory_bytes(), size);
        self.accepted += 1;
        if run {
            self.ran += usize::from(work(&model, &mut self.session));
        }
        assert!(self.tables.bytes()[size..size + 64].iter().all(|byte| *byte == 0x5A));
        Ok(())
    }

    /// The memory still serves a good file.
    pub fn still_serves(&mut self, seed: &Seed) {
        self.load(&seed.file, false).expect("a good file in memory that a bad one has used");
        // It is none of those that are counted.
        self.files -= 1;
        self.accepted -= 1;
    }
}

/// Tokens, text and sampling with a model whose numbers may mean anything: results or errors. Whether it had the memory
/// to try.
pub fn work(model: &Model<'_>, memory: &mut Block) -> bool {
    let limits = Limits::new().context(24).batch(5).text_bytes(64);
    let plan = match limits.plan(model) {
        Ok(plan) => plan,
        Err(error) => {
            // A table of positions shorter than 24, or sizes beyond this machine.
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    if plan.bytes > memory.bytes().len() {
        return false;
    }
    let mut session = Session::new(model, &limits, &Serial, &mut memory.bytes_mut()[..plan.bytes]).unwrap();
    let ((), used) = measured(|| steps(&mut session));
    assert_eq!((used.calls, used.left), (0, 0), "a session takes no memory");
    true
}

fn steps(session: &mut Session<'_>) {
    if !matches!(session.feed("ab cde\n"), Ok(1..)) {
        match session.feed_tokens(&[0, 1, 0]) {
            Ok(()) | Err(Error::Token { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    session.set_max_tokens(Some(3));
    let mut sampler = Sampler::greedy();
    for _ in 0..200 {
        match session.step(Budget::Units(2000), &mut sampler) {
            Ok(Step::Pending | Step::Token(_)) => {}
            Ok(Step::Piece(text)) => assert!(!text.is_empty()),
            Ok(Step::Done(_)) => break,
            Err(
                Error::NonFinite { .. }
                | Error::EmptyPrompt
                | Error::ContextFull { .. }
                | Error::NoTokenizer
                | Error::Text(_)
                | Error::Token { .. },
            ) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let _ = session.truncate(1);
}

/// The logits behind a few tokens, as bits.
pub fn logits(file: &[u8]) -> Vec<u32> {
    let model = Model::from_slice(file).unwrap();
    let mut session = model.session(Limits::new().context(16).batch(4)).unwrap();
    session.feed_tokens(&[3, 7, 11, 2, 19]).unwrap();
    session.advance(Budget::Unlimited).unwrap();
    session.logits().unwrap().iter().map(|logit| logit.to_bits()).collect()
}
