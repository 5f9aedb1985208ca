//! Text from a GPT in a browser, without generated glue: what `page/worker.js` calls.
//!
//! An instance of the module has one model and one conversation, and no allocator. Its linear memory grows three times
//! and never again: for the file (not for the model inside the module), for the model's tables, and for the session, as
//! many bytes as the library has planned. Linear memory never shrinks, so another model is another instance, and the
//! browser takes the old one's memory back as a whole.
//!
//! Calls that can fail return a negative number; `said_start` and `said_len` then are its reason in words.
#![no_std]

mod machine;

use core::cell::{OnceCell, RefCell};
use core::fmt::{self, Write};
use locutor::exec::Serial;
use locutor::format::ModelBytes;
use locutor::model::Model;
use locutor::sample::Sampler;
use locutor::session::{Budget, Error, Finish, Limits, Session, Step};
use machine::{Single, clock, grow, memory_bytes};

/// The model inside the module.
static STORY: &[u8] = include_bytes!(env!("LOCUTOR_STORY"));

static MODEL: Single<OnceCell<Model<'static>>> = Single(OnceCell::new());
static STATE: Single<RefCell<State>> = Single(RefCell::new(State {
    file: None,
    sizes: [0; 3],
    session: None,
    sampler: None,
    finish: 0,
    input: [0; INPUT],
    said: Said { text: [0; SAID], len: 0 },
}));

/// Longest prompt in bytes.
const INPUT: usize = 16 << 10;
/// Longest piece of text, and longest reason.
const SAID: usize = 4 << 10;

struct State {
    /// Memory for the file, until it is opened.
    file: Option<&'static mut [u8]>,
    /// Bytes of the file, the model's tables and the session.
    sizes: [usize; 3],
    session: Option<Session<'static>>,
    sampler: Option<Sampler<'static>>,
    finish: i32,
    input: [u8; INPUT],
    said: Said,
}

/// Text for the host: the last piece, or what went wrong. What does not fit is cut off.
struct Said {
    text: [u8; SAID],
    len: usize,
}

impl Write for Said {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = (self.len + text.len()).min(SAID);
        if let (Some(place), Some(part)) =
            (self.text.get_mut(self.len..end), text.as_bytes().get(..end - self.len))
        {
            place.copy_from_slice(part);
            self.len = end;
        }
        Ok(())
    }
}

/// What `step` returns; `FAILED` is what all functions return.
const FAILED: i32 = -1;
const PENDING: i32 = 0;
const PIECE: i32 = 1;
const TOKEN: i32 = 2;
const DONE: i32 = 3;

/// What `finish` returns.
const BY_MODEL: i32 = 1;
const BY_MAX_TOKENS: i32 = 2;
const BY_CONTEXT: i32 = 3;

/// Why a call failed.
enum Failure {
    Library(Error),
    Memory(usize),
    Order,
    Input,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Library(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Library(error) => write!(f, "{error}"),
            Failure::Memory(bytes) => write!(f, "the browser has no {bytes} bytes of memory for this page"),
            Failure::Order => f.write_str("an instance opens one model, and then tells texts"),
            Failure::Input => write!(f, "the prompt is not UTF-8, or longer than {INPUT} bytes"),
        }
    }
}

/// Runs a call, and keeps its reason if it fails.
fn call(work: impl FnOnce(&mut State) -> Result<i32, Failure>) -> i32 {
    let mut state = STATE.0.borrow_mut();
    state.said.len = 0;
    work(&mut state).unwrap_or_else(|failure| {
        // Writing there does not fail.
        let _ = write!(state.said, "{failure}");
        FAILED
    })
}

/// Memory for a file of `len` bytes, which the host then writes to the address that is returned; 0 if there is none.
#[unsafe(no_mangle)]
extern "C" fn place_file(len: usize) -> usize {
    let mut state = STATE.0.borrow_mut();
    state.file = if state.sizes[0] == 0 { grow(len) } else { None };
    state.file.as_ref().map_or(0, |file| file.as_ptr().addr())
}

/// Opens the file that was placed, or else the model inside the module, with so many positions.
#[unsafe(no_mangle)]
extern "C" fn open(context: usize) -> i32 {
    call(|state| {
        if state.sizes[0] != 0 {
            return Err(Failure::Order);
        }
        let bytes = match state.file.take() {
            Some(file) => &*file,
            None => STORY,
        };
        state.sizes[0] = bytes.len();
        let tables = Model::size(&ModelBytes::new(bytes))?;
        let memory = grow(tables).ok_or(Failure::Memory(tables))?;
        let model = Model::from_bytes(bytes, memory)?;
        let model = MODEL.0.get_or_init(|| model);
        let limits = Limits::new().context(context.min(model.spec().context));
        let planned = limits.plan(model)?.bytes;
        let memory = grow(planned).ok_or(Failure::Memory(planned))?;
        state.session = Some(Session::new(model, &limits, &Serial, memory)?);
        state.sizes = [bytes.len(), tables, planned];
        Ok(0)
    })
}

/// Where the host writes a prompt, of `input_len` bytes at most.
#[unsafe(no_mangle)]
extern "C" fn input_start() -> usize {
    STATE.0.borrow().input.as_ptr().addr()
}

#[unsafe(no_mangle)]
extern "C" fn input_len() -> usize {
    INPUT
}

/// Begins a new text with the prompt of `len` bytes that the host wrote. Returns the number of its tokens.
#[unsafe(no_mangle)]
extern "C" fn begin(len: usize, max_tokens: usize, temperature: f32, seed: u32) -> i32 {
    call(|state| {
        let session = state.session.as_mut().ok_or(Failure::Order)?;
        let prompt = state.input.get(..len).and_then(|bytes| core::str::from_utf8(bytes).ok());
        let prompt = prompt.ok_or(Failure::Input)?;
        // What the command-line tool takes if not told otherwise.
        state.sampler = Some(Sampler::greedy().temperature(temperature)?.min_p(0.0)?.seed(u64::from(seed)));
        state.finish = 0;
        session.truncate(0)?;
        session.set_max_tokens(Some(max_tokens));
        session.feed_markup(prompt)?;
        Ok(i32::try_from(session.position()).unwrap_or(i32::MAX))
    })
}

/// Works for so many milliseconds at most, or until there is a token, or text that `said_start` and `said_len` tell.
#[unsafe(no_mangle)]
extern "C" fn step(milliseconds: f64) -> i32 {
    call(|state| {
        let (Some(session), Some(sampler)) = (&mut state.session, &mut state.sampler) else {
            return Err(Failure::Order);
        };
        let at = clock() + (milliseconds * 1000.0) as u64;
        match session.step(Budget::Until { clock: &clock, at }, sampler) {
            Ok(Step::Pending) => Ok(PENDING),
            Ok(Step::Token(_)) => Ok(TOKEN),
            Ok(Step::Piece(text)) => {
                state.said.write_str(text).map_err(|_| Failure::Order)?;
                Ok(PIECE)
            }
            Ok(Step::Done(why)) => {
                state.finish = if why == Finish::MaxTokens { BY_MAX_TOKENS } else { BY_MODEL };
                Ok(DONE)
            }
            Err(Error::ContextFull { .. }) => {
                state.finish = BY_CONTEXT;
                Ok(DONE)
            }
            Err(error) => Err(error.into()),
        }
    })
}

/// Why the text ended: 1 by the model, 2 by its length, 3 because the context is full; 0 if it did not.
#[unsafe(no_mangle)]
extern "C" fn finish() -> i32 {
    STATE.0.borrow().finish
}

#[unsafe(no_mangle)]
extern "C" fn said_start() -> usize {
    STATE.0.borrow().said.text.as_ptr().addr()
}

#[unsafe(no_mangle)]
extern "C" fn said_len() -> usize {
    STATE.0.borrow().said.len
}

/// The ids of all tokens, prompt and text: 32-bit numbers.
#[unsafe(no_mangle)]
extern "C" fn tokens_start() -> usize {
    STATE.0.borrow().session.as_ref().map_or(0, |session| session.tokens().as_ptr().addr())
}

#[unsafe(no_mangle)]
extern "C" fn tokens_len() -> usize {
    STATE.0.borrow().session.as_ref().map_or(0, |session| session.tokens().len())
}

/// Bytes: 0 of the file, 1 of the model's tables, 2 of the session, 3 of all memory.
#[unsafe(no_mangle)]
extern "C" fn bytes_of(what: usize) -> usize {
    STATE.0.borrow().sizes.get(what).copied().unwrap_or_else(memory_bytes)
}
