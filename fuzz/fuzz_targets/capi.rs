//! Calls of the C functions with a fuzzer's arguments: NULL, odd addresses, lengths that do not fit, handles that are
//! real. Every call returns a status of the header, never that of a fault of the library.
#![no_main]
#![allow(dead_code)]

extern crate locutor as engine;

// The C functions themselves: the library of the ABI is no Rust library.
#[path = "../../ffi/src/budget.rs"]
mod budget;
#[path = "../../ffi/src/exec.rs"]
mod exec;
#[path = "../../ffi/src/failure.rs"]
mod failure;
#[path = "../../ffi/src/generate.rs"]
mod generate;
#[path = "../../tests/common/gguf_builder.rs"]
mod gguf_builder;
#[path = "../../ffi/src/handle.rs"]
mod handle;
#[path = "common/input.rs"]
mod input;
#[path = "../../ffi/src/model.rs"]
mod model;
#[path = "../../ffi/src/sampler.rs"]
mod sampler;
#[path = "../../tests/hostile/seeds.rs"]
mod seeds;
#[path = "../../ffi/src/sequence.rs"]
mod sequence;
#[path = "../../ffi/src/session.rs"]
mod session;
#[path = "../../ffi/src/state.rs"]
mod state;
#[path = "../../ffi/src/status.rs"]
mod status;
#[path = "../../ffi/src/text.rs"]
mod text;

use core::ffi::c_void;
use input::Input;
use libfuzzer_sys::fuzz_target;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

type Handle = *mut c_void;

/// The functions as C sees them. Structures are blocks of bytes.
mod c {
    use super::{Handle, c_void};

    #[allow(clashing_extern_declarations)]
    unsafe extern "C" {
        pub fn locutor_model_params_init(params: *mut c_void, size: usize) -> i32;
        pub fn locutor_model_create(params: *const c_void, model: *mut Handle, error: *mut c_void) -> i32;
        pub fn locutor_model_destroy(model: Handle);
        pub fn locutor_model_info_init(info: *mut c_void, size: usize) -> i32;
        pub fn locutor_model_get_info(model: Handle, info: *mut c_void) -> i32;
        pub fn locutor_model_tokenize(
            model: Handle,
            text: *const u8,
            len: usize,
            flags: u32,
            tokens: *mut u32,
            capacity: usize,
            n: *mut usize,
            error: *mut c_void,
        ) -> i32;
        pub fn locutor_model_detokenize(
            model: Handle,
            tokens: *const u32,
            n: usize,
            text: *mut u8,
            capacity: usize,
            len: *mut usize,
            error: *mut c_void,
        ) -> i32;
        pub fn locutor_session_params_init(params: *mut c_void, size: usize) -> i32;
        pub fn locutor_session_create(
            model: Handle,
            params: *const c_void,
            session: *mut Handle,
            error: *mut c_void,
        ) -> i32;
        pub fn locutor_session_destroy(session: Handle);
        pub fn locutor_session_get_error(session: Handle, error: *mut c_void) -> i32;
        pub fn locutor_session_feed_text(
            session: Handle,
            text: *const u8,
            len: usize,
            flags: u32,
            added: *mut usize,
        ) -> i32;
        pub fn locutor_session_feed_tokens(session: Handle, tokens: *const u32, n: usize) -> i32;
        pub fn locutor_session_truncate(session: Handle, len: usize) -> i32;
        pub fn locutor_session_tokens(session: Handle, tokens: *mut *const u32, n: *mut usize) -> i32;
        pub fn locutor_session_position(session: Handle, position: *mut usize) -> i32;
        pub fn locutor_session_cancel(session: Handle) -> i32;
        pub fn locutor_session_create_sequence(session: Handle, sequence: *mut u64) -> i32;
        pub fn locutor_session_fork_sequence(session: Handle, sequence: *mut u64) -> i32;
        pub fn locutor_session_select_sequence(session: Handle, sequence: u64) -> i32;
        pub fn locutor_session_close_sequence(session: Handle, sequence: u64) -> i32;
        pub fn locutor_session_state_hash(session: Handle, hash: *mut u64) -> i32;
        pub fn locutor_session_save(
            session: Handle,
            what: u32,
            memory: *mut c_void,
            capacity: usize,
            bytes: *mut usize,
        ) -> i32;
        pub fn locutor_session_restore(session: Handle, state: *const c_void, len: usize) -> i32;
        pub fn locutor_sampler_params_init(params: *mut c_void, size: usize) -> i32;
        pub fn locutor_session_set_sampler(session: Handle, params: *const c_void) -> i32;
        pub fn locutor_session_set_max_tokens(session: Handle, n: u64) -> i32;
        pub fn locutor_session_set_ignore_end(session: Handle, ignore: i32) -> i32;
        pub fn locutor_session_set_stops(
            session: Handle,
            stops: *const *const u8,
            lens: *const usize,
            n: usize,
        ) -> i32;
        pub fn locutor_budget_init(budget: *mut c_void, size: usize) -> i32;
        pub fn locutor_event_init(event: *mut c_void, size: usize) -> i32;
        pub fn locutor_session_step(session: Handle, budget: *const c_void, event: *mut c_void) -> i32;
        pub fn locutor_session_step_token(session: Handle, budget: *const c_void, event: *mut c_void) -> i32;
        pub fn locutor_session_advance(session: Handle, budget: *const c_void, ready: *mut i32) -> i32;
        pub fn locutor_session_logits(session: Handle, logits: *mut *const f32, n: *mut usize) -> i32;
        pub fn locutor_session_log_prob(
            session: Handle,
            tokens: *const u32,
            n: usize,
            each: *mut f64,
            sum: *mut f64,
        ) -> i32;
    }
}

/// Room for any structure of the header, aligned for it.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Structure([u8; 1024]);

impl Structure {
    fn new() -> Self {
        Self([0; 1024])
    }

    fn out(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn files() -> &'static [Vec<u8>] {
    static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| seeds::all().map(|seed| seed.file).into())
}

/// A status of the header, and no fault of the library.
fn check(status: i32) -> i32 {
    assert!(status == 0 || (-599..=-100).contains(&status), "status {status}");
    status
}

/// A size for an `_init`: mostly that of a structure, which every `_init` knows by now.
fn size(input: &mut Input<'_>, usual: usize) -> usize {
    match input.byte() {
        0 => 0,
        1 => 3,
        2 => usual - 4,
        3 => usual + 8,
        _ => usual,
    }
}

/// Sizes of the header's structures on 64-bit machines.
const MODEL_PARAMS: usize = 88;
const SESSION_PARAMS: usize = 96;
const MODEL_INFO: usize = 96;
const SAMPLER_PARAMS: usize = 56;
const BUDGET: usize = 40;
const EVENT: usize = 32;

/// The bytes of a structure's members, those for pointers left alone.
fn scribble(structure: &mut Structure, range: core::ops::Range<usize>, input: &mut Input<'_>) {
    for _ in 0..input.below(4) {
        let at = range.start + input.below(range.len() / 4) * 4;
        let value = input.number() as u32;
        structure.put(at, &value.to_le_bytes());
    }
}

fn open(input: &mut Input<'_>) -> Handle {
    let file = &files()[input.below(files().len())];
    let (mut params, mut error, mut model) = (Structure::new(), Structure::new(), null_mut());
    let size = size(input, MODEL_PARAMS);
    // SAFETY: the structures are longer than any size that is given, the file lives for ever, and numbers that are
    // changed are no addresses.
    unsafe {
        if check(c::locutor_model_params_init(params.out(), size)) != 0 {
            return null_mut();
        }
        params.put(16, &(file.as_ptr() as u64).to_le_bytes());
        let len = if input.byte() == 0 { file.len() / 2 } else { file.len() };
        params.put(24, &(len as u64).to_le_bytes());
        if input.byte() < 8 {
            scribble(&mut params, 56..72, input);
        }
        check(c::locutor_model_create(params.out(), &mut model, error.out()));
    }
    model
}

fn begin(model: Handle, input: &mut Input<'_>) -> Handle {
    let (mut params, mut session) = (Structure::new(), null_mut());
    let size = size(input, SESSION_PARAMS);
    // SAFETY: as above; `isa` and the job system stay NULL.
    unsafe {
        if check(c::locutor_session_params_init(params.out(), size)) != 0 {
            return null_mut();
        }
        params.put(8, &(64u32).to_le_bytes());
        params.put(12, &(1 + u32::from(input.byte() % 20)).to_le_bytes());
        params.put(48, &(1 + u32::from(input.byte() % 3)).to_le_bytes());
        params.put(60, &u32::from(input.byte() % 4).to_le_bytes());
        for _ in 0..input.below(3) {
            let at = 4 + 4 * input.below(16);
            // Neither threads nor memory without bound.
            let value = input.number() as u32;
            if !(at == 8 || at == 12 || at == 20 || at == 56) || value < 200 {
                let value = if matches!(at, 20 | 56) { value % 3 } else { value };
                let value = if matches!(at, 24 | 28 | 32 | 48 | 16) { value % 5000 } else { value };
                params.put(at, &value.to_le_bytes());
            }
        }
        check(c::locutor_session_create(model, params.out(), &mut session, null_mut()));
    }
    session
}

struct Client {
    model: Handle,
    session: Handle,
    sequences: Vec<u64>,
    states: Vec<Vec<u8>>,
}

impl Client {
    fn call(&mut self, input: &mut Input<'_>) {
        let session = if input.byte() == 255 { null_mut() } else { self.session };
        let operation = input.byte() % 24;
        let tokens: Vec<u32> = (0..input.below(30)).map(|_| u32::from(input.byte()) % 26).collect();
        let n = if tokens.is_empty() && operation % 2 == 0 { usize::MAX } else { tokens.len() };
        let ids = if n == usize::MAX { null() } else { tokens.as_ptr() };
        let (mut number, mut size, mut event) = (0u64, 0usize, Structure::new());
        // SAFETY: handles are real or NULL, lengths are those of the arrays or beyond the address space, and what is
        // lent is not kept.
        check(unsafe {
            match operation {
                0 => c::locutor_session_feed_text(session, b"ab c ".as_ptr(), 5.min(n), 0, &mut size),
                1 => c::locutor_session_feed_text(session, null(), n, input.byte().into(), null_mut()),
                2 => c::locutor_session_feed_tokens(session, ids, n),
                3 => c::locutor_session_feed_tokens(session, ids.wrapping_byte_add(1), usize::MAX / 2),
                4 => c::locutor_session_truncate(session, input.below(70)),
                5 => {
                    let mut lent = null();
                    c::locutor_session_tokens(session, &mut lent, &mut size)
                }
                6 => c::locutor_session_position(session, if n == 0 { null_mut() } else { &mut size }),
                7 => c::locutor_session_cancel(session),
                8 => {
                    let status = c::locutor_session_create_sequence(session, &mut number);
                    self.sequences.push(number);
                    status
                }
                9 => {
                    let status = c::locutor_session_fork_sequence(session, &mut number);
                    self.sequences.push(number);
                    status
                }
                10 => c::locutor_session_select_sequence(session, self.sequence(input)),
                11 => c::locutor_session_close_sequence(session, self.sequence(input)),
                12 => {
                    let mut state = vec![0; input.short()];
                    let (what, len) = (u32::from(input.byte() % 3), state.len());
                    let status =
                        c::locutor_session_save(session, what, state.as_mut_ptr().cast(), len, &mut size);
                    if status == 0 {
                        state.truncate(size);
                        self.states.push(state);
                    }
                    status
                }
                13 => match self.states.last_mut() {
                    Some(state) => {
                        if input.byte() < 128 {
                            let at = input.short() % state.len();
                            state[at] ^= input.byte();
                        }
                        c::locutor_session_restore(session, state.as_ptr().cast(), state.len())
                    }
                    None => c::locutor_session_restore(session, null(), n),
                },
                14 => self.sampler(session, input),
                15 => c::locutor_session_set_max_tokens(session, input.number()),
                16 => c::locutor_session_set_ignore_end(session, i32::from(input.byte() % 3)),
                17 => {
                    let stops = [b"ab".as_ptr(), b"c".as_ptr(), null()];
                    let lens = [2, usize::from(input.byte() % 2), input.below(2)];
                    c::locutor_session_set_stops(session, stops.as_ptr(), lens.as_ptr(), input.below(4))
                }
                18..=20 => self.step(session, operation, input, &mut event),
                21 => {
                    let mut lent = null();
                    c::locutor_session_logits(session, &mut lent, &mut size)
                }
                22 => {
                    let mut each = vec![0.0; tokens.len()];
                    let mut sum = 0.0;
                    c::locutor_session_log_prob(session, ids, n, each.as_mut_ptr(), &mut sum)
                }
                _ => {
                    let mut error = Structure::new();
                    error.put(0, &512u32.to_le_bytes());
                    c::locutor_session_get_error(session, error.out())
                }
            }
        });
    }

    fn sequence(&self, input: &mut Input<'_>) -> u64 {
        match self.sequences.len() {
            0 => input.number(),
            len => self.sequences[input.below(len)],
        }
    }

    fn sampler(&self, session: Handle, input: &mut Input<'_>) -> i32 {
        let mut params = Structure::new();
        let size = size(input, SAMPLER_PARAMS);
        // SAFETY: the structure is longer than the size; its pointer stays NULL.
        unsafe {
            let status = c::locutor_sampler_params_init(params.out(), size);
            if status != 0 {
                return status;
            }
            scribble(&mut params, 4..48, input);
            c::locutor_session_set_sampler(session, params.out())
        }
    }

    fn step(&self, session: Handle, kind: u8, input: &mut Input<'_>, event: &mut Structure) -> i32 {
        let (mut budget, mut ready) = (Structure::new(), 0);
        // SAFETY: as above; the clock stays NULL.
        unsafe {
            check(c::locutor_budget_init(budget.out(), BUDGET));
            check(c::locutor_event_init(event.out(), EVENT));
            budget.put(8, &(input.below(300) as u64).to_le_bytes());
            let budget = if input.byte() % 4 == 0 { null_mut() } else { budget.out() };
            match kind {
                18 => c::locutor_session_step(session, budget, event.out()),
                19 => c::locutor_session_step_token(session, budget, event.out()),
                _ => c::locutor_session_advance(session, budget, &mut ready),
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let model = open(&mut input);
    let session = begin(model, &mut input);
    let mut client = Client { model, session, sequences: Vec::new(), states: Vec::new() };
    let (mut info, mut n, text) = (Structure::new(), 0, input.bytes(12));
    // SAFETY: as above. A session keeps its model, so either may go first.
    unsafe {
        check(c::locutor_model_info_init(info.out(), MODEL_INFO));
        check(c::locutor_model_get_info(model, info.out()));
        let mut tokens = [0u32; 9];
        check(c::locutor_model_tokenize(
            model,
            text.as_ptr(),
            text.len(),
            1,
            tokens.as_mut_ptr(),
            tokens.len(),
            &mut n,
            null_mut(),
        ));
        let mut back = [0u8; 30];
        let (len, room) = (n.min(9), back.len());
        check(c::locutor_model_detokenize(
            model,
            tokens.as_ptr(),
            len,
            back.as_mut_ptr(),
            room,
            &mut n,
            null_mut(),
        ));
        if text[0] % 2 == 0 {
            c::locutor_model_destroy(model);
        }
        for _ in 0..40 {
            if input.is_empty() {
                break;
            }
            client.call(&mut input);
        }
        c::locutor_session_destroy(client.session);
        if text[0] % 2 == 1 {
            c::locutor_model_destroy(client.model);
        }
    }
});
