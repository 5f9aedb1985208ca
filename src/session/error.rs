//! What can go wrong in a session.

use crate::mem::MemError;
use crate::model::ModelError;
use crate::model::phase::Phase;
use crate::sample::SampleError;
use crate::text::TextError;
use thiserror::Error;

/// Why a session could not do what was asked. After every error the session is as it was before the call, unless the
/// variant says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Text or tokens.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Memory.
    #[error(transparent)]
    Memory(#[from] MemError),
    /// Sampling.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// A limit makes no sense.
    #[error("limit `{what}`: {value} is not possible ({rule})")]
    Limit {
        /// Name of the limit.
        what: &'static str,
        /// Its value.
        value: usize,
        /// What it must be.
        rule: &'static str,
    },
    /// The model's table of positions is shorter than the context asked for.
    #[error("a context of {context} positions is asked for, the model has {table}")]
    ContextBeyondModel {
        /// Positions asked for.
        context: usize,
        /// Rows of the table.
        table: usize,
    },
    /// The context has no room for more tokens.
    #[error("the context is full: {needed} more tokens do not fit, there is room for {room} of {context}")]
    ContextFull {
        /// Tokens to be added.
        needed: usize,
        /// Room for so many.
        room: usize,
        /// Positions of the context.
        context: usize,
    },
    /// The sequences together have no room for more tokens; closing or truncating one makes room.
    #[error("the cache is full: {needed} more pages of 16 positions are needed, {free} are free")]
    PagesFull {
        /// Pages needed.
        needed: usize,
        /// Pages that are free.
        free: usize,
    },
    /// All sequences exist already.
    #[error("all {sequences} sequences are in use")]
    NoSequence {
        /// Their number.
        sequences: usize,
    },
    /// A sequence that was closed.
    #[error("the sequence does not exist, or no longer")]
    Sequence,
    /// What the token before this position saw is forgotten, so the sequence cannot go back to it. Going back to what is
    /// kept, or to nothing, is always possible.
    #[error("the sequence cannot go back to position {position}: what came before it is forgotten")]
    Forgotten {
        /// The position.
        position: usize,
    },
    /// The call was ended by its [`CancelFlag`](crate::exec::CancelFlag).
    #[error("the call was cancelled")]
    Cancelled,
    /// The memory for a saved state is too small.
    #[error("the state has {needed} bytes, there is room for {got}")]
    StateSize {
        /// Bytes of the state.
        needed: usize,
        /// Bytes there are.
        got: usize,
    },
    /// Bytes that are no saved state, or not all of one, or changed.
    #[error("the saved state is damaged or incomplete at byte {offset}")]
    StateDamaged {
        /// Where that shows.
        offset: usize,
    },
    /// A saved state of another version of the format.
    #[error("the saved state has version {version}, which is not known")]
    StateVersion {
        /// Its version.
        version: u32,
    },
    /// A saved state that belongs to something else.
    #[error("the saved state is bound to another {what}")]
    StateOfOther {
        /// In what it differs.
        what: &'static str,
    },
    /// There is no token to go on from.
    #[error("the prompt is empty, and the model has no token for the beginning of a text")]
    EmptyPrompt,
    /// A token id that the model does not have.
    #[error("token {id} is not below the vocabulary's {vocab}")]
    Token {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// The model's file has no tokenizer; give token ids.
    #[error("the model has no tokenizer")]
    NoTokenizer,
    /// A text is longer than the session's limit.
    #[error("the text has {got} bytes, the session's limit is {most}")]
    TextTooLong {
        /// Its bytes.
        got: usize,
        /// The limit.
        most: usize,
    },
    /// A logit is infinite or not a number: damaged weights, or an overflow. The tokens stay.
    #[error("the logits after position {position} are not finite{}", First(*.first))]
    NonFinite {
        /// Position of the last token read.
        position: usize,
        /// The phase, with its layer, after which a number of this sequence was not finite for the first time. Builds
        /// with debug assertions alone look for it.
        first: Option<Phase>,
    },
    /// A position behind the tokens of the session.
    #[error("position {position} is behind the {len} tokens of the session")]
    Position {
        /// The position.
        position: usize,
        /// Tokens of the session.
        len: usize,
    },
}

/// The end of a message: where numbers stopped being finite, if that is known.
struct First(Option<Phase>);

impl core::fmt::Display for First {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.map_or(Ok(()), |phase| write!(f, ", first in {phase}"))
    }
}
