//! From the crate's errors to statuses and words.

use crate::handle::{Out, sized_struct};
use crate::status::{Status, export};
use core::fmt::{self, Write};
use engine::format::{FormatError, Found};
use engine::mem::MemError;
use engine::model::ModelError;
use engine::sample::SampleError;
use engine::session;
use engine::text::TextError;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a function failed.
#[derive(Debug, Clone, Copy)]
pub enum Failure {
    /// Nothing more is known than the status.
    Status(Status),
    /// A parameter, in words.
    Param(&'static str),
    /// The crate's reasons.
    Model(ModelError),
    Session(session::Error),
    Text(TextError),
    Memory(MemError),
    Sample(SampleError),
}

macro_rules! from {
    ($($variant:ident($type:ty),)*) => {$(
        impl From<$type> for Failure {
            fn from(error: $type) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}
from! {
    Status(Status),
    Model(ModelError),
    Session(session::Error),
    Text(TextError),
    Memory(MemError),
    Sample(SampleError),
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        Self::Model(ModelError::Format(error))
    }
}

impl Failure {
    /// The status that C gets.
    pub fn status(&self) -> Status {
        match self {
            Self::Status(status) => *status,
            Self::Param(_) => Status::PARAM,
            Self::Model(error) => of_model(error),
            Self::Session(error) => of_session(error),
            Self::Text(error) => of_text(error),
            Self::Memory(error) => of_memory(error),
            Self::Sample(error) => of_sample(error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Param(text) => f.write_str(text),
            Self::Model(error) => error.fmt(f),
            Self::Session(error) => error.fmt(f),
            Self::Text(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::Sample(error) => error.fmt(f),
        }
    }
}

fn of_memory(error: &MemError) -> Status {
    match error {
        MemError::TooSmall { .. } => Status::MEMORY_SIZE,
        MemError::Misaligned => Status::MEMORY_ALIGN,
        MemError::Overflow | MemError::NoMemory { .. } => Status::MEMORY,
        _ => Status::INTERNAL,
    }
}

fn of_format(error: &FormatError) -> Status {
    match error {
        FormatError::Io { .. } => Status::IO,
        FormatError::Memory(error) => of_memory(error),
        FormatError::Version { .. } | FormatError::Type { got: Found::TensorId(_), .. } => {
            Status::UNSUPPORTED
        }
        _ => Status::FORMAT,
    }
}

fn of_model(error: &ModelError) -> Status {
    match error {
        ModelError::Format(error) => of_format(error),
        ModelError::Text(error) => of_text(error),
        ModelError::Memory(error) => of_memory(error),
        ModelError::Architecture { .. }
        | ModelError::Unsupported { .. }
        | ModelError::UnexpectedTensor { .. } => Status::UNSUPPORTED,
        ModelError::Overflow(_) => Status::MEMORY,
        _ => Status::FORMAT,
    }
}

fn of_text(error: &TextError) -> Status {
    match error {
        TextError::Unsupported { .. } => Status::UNSUPPORTED,
        TextError::OutputTooSmall { .. } => Status::BUFFER,
        TextError::TextTooLong { .. } | TextError::StreamLimit { .. } => Status::TEXT_LENGTH,
        TextError::NoSuchToken { .. } => Status::TOKEN,
        TextError::ScratchTooSmall { .. } => Status::INTERNAL,
        TextError::Format(error) => of_format(error),
        TextError::Memory(error) => of_memory(error),
        _ => Status::FORMAT,
    }
}

fn of_sample(error: &SampleError) -> Status {
    match error {
        SampleError::Token { .. } => Status::TOKEN,
        SampleError::NonFinite => Status::NON_FINITE,
        SampleError::AllBanned => Status::ALL_BANNED,
        SampleError::Candidates { .. } => Status::INTERNAL,
        _ => Status::PARAM,
    }
}

fn of_session(error: &session::Error) -> Status {
    use session::Error;
    match error {
        Error::Model(error) => of_model(error),
        Error::Text(error) => of_text(error),
        Error::Memory(error) => of_memory(error),
        Error::Sample(error) => of_sample(error),
        Error::ContextFull { .. } => Status::CONTEXT_FULL,
        Error::PagesFull { .. } => Status::PAGES_FULL,
        Error::NoSequence { .. } => Status::NO_SEQUENCE,
        Error::Sequence => Status::SEQUENCE,
        Error::Forgotten { .. } => Status::FORGOTTEN,
        Error::Cancelled => Status::CANCELLED,
        Error::StateSize { .. } => Status::BUFFER,
        Error::StateDamaged { .. } | Error::StateVersion { .. } => Status::STATE,
        Error::StateOfOther { .. } => Status::STATE_OF_OTHER,
        Error::EmptyPrompt => Status::EMPTY,
        Error::Token { .. } => Status::TOKEN,
        Error::NoTokenizer => Status::NO_TOKENIZER,
        Error::TextTooLong { .. } => Status::TEXT_LENGTH,
        Error::NonFinite { .. } => Status::NON_FINITE,
        Error::Position { .. } => Status::POSITION,
        _ => Status::PARAM,
    }
}

/// Bytes of the text of [`ErrorInfo`].
const TEXT: usize = 504;

sized_struct! {
    /// `locutor_error`.
    ErrorInfo {
        code: i32 = 0,
        text: [u8; TEXT] = [0; TEXT],
    }
}

/// Text cut to what fits, at a character, and ended by a 0.
struct Line {
    text: [u8; TEXT],
    len: usize,
    full: bool,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            let end = self.len + letter.len_utf8();
            self.full |= end >= TEXT;
            if self.full {
                break;
            }
            if let Some(place) = self.text.get_mut(self.len..end) {
                // An error is one line, whatever a file calls its tensors.
                letter.encode_utf8(place);
                place.iter_mut().filter(|byte| **byte < b' ').for_each(|byte| *byte = b' ');
            }
            self.len = end;
        }
        Ok(())
    }
}

impl Out<ErrorInfo> {
    /// Fills the structure, if there is one that can be filled.
    pub fn report(self, failure: &Failure) {
        if !self.is_null() {
            let mut line = Line { text: [0; TEXT], len: 0, full: false };
            let _ = write!(line, "{failure}");
            // The status is what counts; a structure that was not initialised stays as it is.
            let _ = self.fill(ErrorInfo { struct_size: 0, code: failure.status().0, text: line.text });
        }
    }
}

/// Runs the body of an exported function: no panic leaves it, and every failure becomes a status.
pub fn guard(error: Out<ErrorInfo>, body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(Status::INTERNAL.into())) {
        Ok(()) => Status::OK.0,
        Err(failure) => {
            error.report(&failure);
            failure.status().0
        }
    }
}

/// As [`guard`], for functions without a place for words.
pub fn guard_plain(body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    guard(Out::null(), body)
}

export! {
    fn locutor_error_init(error: Out<ErrorInfo>, size: usize) -> i32 {
        guard_plain(|| Ok(error.init(size)?))
    }
}
