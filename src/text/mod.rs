//! Text: vocabularies, pre-tokenizers, tokenizers, streams.
//!
//! A [`Tokenizer`] is planned from a header's [`Counts`](crate::format::Counts), carved from the caller's memory, and
//! borrows every token text from the header. Encoding writes into a slice of the caller and works in a second one; both
//! have sizes that are known from the length of the text. Any text costs `O(n log n)`. A [`StreamDecoder`] turns the
//! bytes of one token after the other into whole characters and watches for stop strings.
//!
//! Nothing here panics: the lints below forbid indexing and unwrapping outside the tests.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod bpe;
mod error;
mod load;
mod merge;
#[cfg(feature = "alloc")]
mod owned;
mod pretok;
mod special;
mod spm;
mod stream;
mod table;
#[cfg(all(test, feature = "std"))]
mod tests;
mod tokenizer;
mod unicode;
mod unicode_tables;
mod vocab;

pub use error::{EntryProblem, TextError};
pub use load::TokenizerSlots;
pub use pretok::{Pretokenizer, Splits};
pub use stream::{Emitted, StreamDecoder, StreamLimits, StreamSlots};
pub use tokenizer::{SpecialIds, Specials, Tokenizer};
pub use vocab::{MAX_SPECIAL_BYTES, MAX_TOKEN_BYTES, Token, TokenKind};
