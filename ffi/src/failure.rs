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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Sized32;
    use engine::format::{Field, Name, Operation, ReadError, What};
    use engine::num::Overflow;
    use engine::session::Error;
    use engine::text::EntryProblem;

    fn formats() -> [(FormatError, Status); 6] {
        let (field, offset) = (Field::new(What::TensorType), 8);
        let wrong = |got| FormatError::Type { field, offset, expected: "another", got };
        [
            (FormatError::Io { operation: Operation::Read, offset, cause: ReadError::Ended }, Status::IO),
            (FormatError::Memory(MemError::Misaligned), Status::MEMORY_ALIGN),
            (FormatError::Version { offset, got: 1 }, Status::UNSUPPORTED),
            (wrong(Found::TensorId(10)), Status::UNSUPPORTED),
            (wrong(Found::Byte(2)), Status::FORMAT),
            (FormatError::Missing { field }, Status::FORMAT),
        ]
    }

    fn memories() -> [(MemError, Status); 4] {
        [
            (MemError::TooSmall { needed: 2, got: 1 }, Status::MEMORY_SIZE),
            (MemError::Misaligned, Status::MEMORY_ALIGN),
            (MemError::Overflow, Status::MEMORY),
            (MemError::NoMemory { needed: 1 }, Status::MEMORY),
        ]
    }

    fn texts() -> Vec<(TextError, Status)> {
        let (key, offset, limit) = ("key", 8, 1);
        let mut all = vec![
            (TextError::Unsupported { key, got: Name::new(b"bert"), offset: None }, Status::UNSUPPORTED),
            (TextError::Missing { key }, Status::FORMAT),
            (TextError::Entry { key, offset, index: 0, problem: EntryProblem::Collisions }, Status::FORMAT),
            (TextError::OutputTooSmall { needed: 2, got: 1 }, Status::BUFFER),
            (TextError::TextTooLong { got: 2, limit }, Status::TEXT_LENGTH),
            (TextError::StreamLimit { what: "stop strings", limit, got: 2 }, Status::TEXT_LENGTH),
            (TextError::NoSuchToken { id: 2, count: 1 }, Status::TOKEN),
            (TextError::ScratchTooSmall { needed: 2, got: 1 }, Status::INTERNAL),
        ];
        all.extend(formats().map(|(error, status)| (error.into(), status)));
        all.extend(memories().map(|(error, status)| (error.into(), status)));
        all
    }

    fn models() -> Vec<(ModelError, Status)> {
        let (name, offset) = (Name::new(b"blk.0"), 8);
        let mut all = vec![
            (ModelError::Architecture { name, offset }, Status::UNSUPPORTED),
            (ModelError::Unsupported { what: "this" }, Status::UNSUPPORTED),
            (ModelError::UnexpectedTensor { name, offset }, Status::UNSUPPORTED),
            (ModelError::MissingTensor { name }, Status::FORMAT),
            (ModelError::Overflow(Overflow), Status::MEMORY),
        ];
        all.extend(formats().map(|(error, status)| (error.into(), status)));
        all.extend(memories().map(|(error, status)| (error.into(), status)));
        all.extend(texts().into_iter().map(|(error, status)| (error.into(), status)));
        all
    }

    fn samples() -> [(SampleError, Status); 5] {
        [
            (SampleError::Token { token: 2, vocab: 1 }, Status::TOKEN),
            (SampleError::NonFinite, Status::NON_FINITE),
            (SampleError::AllBanned, Status::ALL_BANNED),
            (SampleError::Candidates { needed: 2, got: 1 }, Status::INTERNAL),
            (SampleError::Temperature { got: -1.0 }, Status::PARAM),
        ]
    }

    fn sessions() -> Vec<(Error, Status)> {
        let mut all = vec![
            (Error::Limit { what: "context", value: 0, rule: "above 0" }, Status::PARAM),
            (Error::ContextBeyondModel { context: 2, table: 1 }, Status::PARAM),
            (Error::ContextFull { needed: 2, room: 1, context: 1 }, Status::CONTEXT_FULL),
            (Error::PagesFull { needed: 2, free: 1 }, Status::PAGES_FULL),
            (Error::NoSequence { sequences: 1 }, Status::NO_SEQUENCE),
            (Error::Sequence, Status::SEQUENCE),
            (Error::Forgotten { position: 1 }, Status::FORGOTTEN),
            (Error::Cancelled, Status::CANCELLED),
            (Error::StateSize { needed: 2, got: 1 }, Status::BUFFER),
            (Error::StateDamaged { offset: 1 }, Status::STATE),
            (Error::StateVersion { version: 2 }, Status::STATE),
            (Error::StateOfOther { what: "model" }, Status::STATE_OF_OTHER),
            (Error::EmptyPrompt, Status::EMPTY),
            (Error::Token { id: 2, vocab: 1 }, Status::TOKEN),
            (Error::NoTokenizer, Status::NO_TOKENIZER),
            (Error::TextTooLong { got: 2, most: 1 }, Status::TEXT_LENGTH),
            (Error::NonFinite { position: 1, first: None }, Status::NON_FINITE),
            (Error::Position { position: 2, len: 1 }, Status::POSITION),
        ];
        all.extend(models().into_iter().map(|(error, status)| (error.into(), status)));
        all.extend(texts().into_iter().map(|(error, status)| (error.into(), status)));
        all.extend(memories().map(|(error, status)| (error.into(), status)));
        all.extend(samples().map(|(error, status)| (error.into(), status)));
        all
    }

    /// What C gets: the number, and the words up to the first 0.
    fn reported(failure: &Failure) -> (i32, String) {
        let mut info = [ErrorInfo::DEFAULT];
        Out::to(&mut info).report(failure);
        let text = info[0].text.split(|byte| *byte == 0).next().unwrap();
        (info[0].code, String::from_utf8(text.to_vec()).unwrap())
    }

    /// However deep an error was met, it has one status, and its own words.
    #[test]
    fn every_error_has_its_status_and_its_words() {
        let check = |failure: Failure, status: Status, words: String| {
            assert_eq!(failure.status(), status, "{failure}");
            assert_eq!(reported(&failure), (status.0, words));
        };
        check(Status::BUSY.into(), Status::BUSY, "the session is in another call".into());
        check(Failure::Param("no such way"), Status::PARAM, "no such way".into());
        for (error, status) in formats() {
            check(error.into(), status, error.to_string());
        }
        for (error, status) in memories() {
            check(error.into(), status, error.to_string());
        }
        for (error, status) in texts() {
            check(error.into(), status, error.to_string());
        }
        for (error, status) in models() {
            check(error.into(), status, error.to_string());
        }
        for (error, status) in samples() {
            check(error.into(), status, error.to_string());
        }
        for (error, status) in sessions() {
            check(error.into(), status, error.to_string());
        }
    }

    /// A letter of one byte, then letters of two.
    const LONG: &str = {
        const BYTES: [u8; 601] = {
            let (mut bytes, mut at) = ([b'x'; 601], 1);
            while at < 601 {
                (bytes[at], bytes[at + 1]) = (0xC3, 0xA9);
                at += 2;
            }
            bytes
        };
        match core::str::from_utf8(&BYTES) {
            Ok(text) => text,
            Err(_) => "",
        }
    };

    #[test]
    fn words_are_one_line_and_end_at_a_whole_character() {
        let words = |text: &'static str| reported(&Failure::Param(text)).1;
        assert_eq!(words("a\nb\u{1}\tc"), "a b  c");
        assert_eq!(words(LONG.split_at(1).1), LONG[1..503]);
        assert_eq!(words(&LONG[1..503]), LONG[1..503]);
        assert_eq!(words(LONG), LONG[..503], "one byte is left for the 0");
    }
}
