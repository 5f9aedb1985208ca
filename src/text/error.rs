//! Why text could not be turned into tokens or back, or a tokenizer not be loaded.

use crate::format::{FormatError, Name};
use crate::mem::MemError;
use thiserror::Error;

/// Why a tokenizer was refused, or could not work.
///
/// `key` is the metadata key at fault. `offset` is an absolute byte offset in the file; for an entry of an array of
/// strings that of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TextError {
    /// A key that the tokenizer needs is not in the file. Without `tokenizer.ggml.model` the file has no tokenizer at all.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A tokenizer model or pre-tokenizer that is not known.
    #[error("`{key}` is `{got}`, which is not supported")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        got: Name,
        /// Where the value stands; `None` for one that no key gives.
        offset: Option<u64>,
    },
    /// A count or length is above its cap.
    #[error("`{key}` at byte {offset}: {got} is above the limit of {limit}")]
    Limit {
        /// The key.
        key: &'static str,
        /// Where the entry begins.
        offset: u64,
        /// The cap.
        limit: u64,
        /// What was found.
        got: u64,
    },
    /// An array does not have one element for each token.
    #[error("`{key}` at byte {offset}: has {got} elements, {expected} are needed")]
    Mismatch {
        /// The key.
        key: &'static str,
        /// Where the number of elements stands.
        offset: u64,
        /// Number of tokens.
        expected: u64,
        /// Number of elements.
        got: u64,
    },
    /// A token id outside the vocabulary.
    #[error("`{key}` at byte {offset}: is {got}, the vocabulary has {count} tokens")]
    TokenId {
        /// The key.
        key: &'static str,
        /// Where the value stands.
        offset: u64,
        /// Number of tokens.
        count: u64,
        /// The id found; negative numbers and those above the range stay as they are.
        got: i64,
    },
    /// A token that is not what its place requires.
    #[error("`{key}` at byte {offset}: entry {index} {problem}")]
    Entry {
        /// The key.
        key: &'static str,
        /// Where the entry begins: its text, or the length of an empty one.
        offset: u64,
        /// Index of the entry.
        index: u64,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// The header that is loaded is not the one that the memory was planned for.
    #[error("`{key}` has {got} elements, the memory is planned for {planned}")]
    Planned {
        /// The key.
        key: &'static str,
        /// Elements that the plan has room for.
        planned: u64,
        /// Elements in the file.
        got: u64,
    },
    /// The file adds a token to every text but does not say which.
    #[error("`{flag}` is true, but `{key}` is missing")]
    NoTokenToAdd {
        /// The flag.
        flag: &'static str,
        /// Where its value stands.
        offset: u64,
        /// The key of the id.
        key: &'static str,
    },
    /// The working memory is too small; `needed` is enough for the whole text.
    #[error("the scratch memory has {got} words, {needed} are needed")]
    ScratchTooSmall {
        /// Words that are always enough.
        needed: usize,
        /// Words that there are.
        got: usize,
    },
    /// The output does not fit. Nothing of it is to be used.
    #[error("the output has room for {got} elements, {needed} are needed")]
    OutputTooSmall {
        /// Elements of the whole output.
        needed: usize,
        /// Elements that there are.
        got: usize,
    },
    /// A text of 1 GiB or more.
    #[error("the text has {got} bytes, {limit} are the limit")]
    TextTooLong {
        /// Bytes of the text.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// A token id outside the vocabulary, from the caller.
    #[error("there is no token {id}, the vocabulary has {count}")]
    NoSuchToken {
        /// The id.
        id: u32,
        /// Number of tokens.
        count: usize,
    },
    /// More bytes at a time, or more or longer stop strings, than the stream's memory is planned for.
    #[error("{what}: {got} where {limit} are the limit")]
    StreamLimit {
        /// What exceeds its limit.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// What was asked for.
        got: usize,
    },
    /// The file could not be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Memory could not be planned or carved.
    #[error(transparent)]
    Memory(#[from] MemError),
}

impl TextError {
    /// The absolute byte offset in the file, for errors that concern a place in it.
    pub fn offset(&self) -> Option<u64> {
        match *self {
            Self::Unsupported { offset, .. } => offset,
            Self::Limit { offset, .. }
            | Self::Mismatch { offset, .. }
            | Self::TokenId { offset, .. }
            | Self::Entry { offset, .. }
            | Self::NoTokenToAdd { offset, .. } => Some(offset),
            Self::Format(error) => error.offset(),
            _ => None,
        }
    }
}

/// What is wrong with an entry of a tokenizer's arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EntryProblem {
    /// Two tokens with one text.
    #[error("has the text of entry {first}")]
    Duplicate {
        /// The other token.
        first: u32,
    },
    /// A token without text.
    #[error("is empty")]
    Empty,
    /// A token that is not UTF-8.
    #[error("is not valid UTF-8")]
    Utf8,
    /// More texts with one place in the hash table than honest texts ever have.
    #[error("collides with too many others")]
    Collisions,
    /// A byte token that is not written `<0x00>` to `<0xFF>`.
    #[error("is no byte token of the form <0xAB>")]
    Byte,
    /// A score that is no finite number.
    #[error("is not finite")]
    NotFinite,
    /// A token type that does not exist.
    #[error("is no token type")]
    Kind,
    /// A merge that is not two texts with one blank between.
    #[error("is not two texts with one blank between")]
    MergeForm,
    /// A merge of which a part or the result is no token.
    #[error("has a part or a result that is no token")]
    MergeToken,
    /// A merge that occurs twice.
    #[error("is the same merge as entry {first}")]
    MergeTwice {
        /// The other merge.
        first: u32,
    },
}
