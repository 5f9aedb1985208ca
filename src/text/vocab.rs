//! The vocabulary: texts, types and scores of the tokens, and a table from text to token.

use super::table::{Table, hash_bytes};

/// Longest token in bytes. Byte-level tokens of 512 blanks take 1,024.
pub const MAX_TOKEN_BYTES: usize = 2048;

/// Longest token in bytes that is looked for in every text: control and user-defined ones.
pub const MAX_SPECIAL_BYTES: usize = 256;

/// What a token is for, with GGUF's numbers (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TokenKind {
    /// A piece of text.
    Normal = 1,
    /// Stands for what has no token.
    Unknown = 2,
    /// Steers the model; never made from ordinary text.
    Control = 3,
    /// Found in every text before anything else.
    UserDefined = 4,
    /// Not used by the model.
    Unused = 5,
    /// One byte, written `<0xAB>`.
    Byte = 6,
}

impl TokenKind {
    /// The kind with GGUF's number; 0, "undefined", counts as unused.
    pub(super) fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            0 | 5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// Whether ordinary text may become such a token.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Normal | Self::UserDefined | Self::Unused)
    }
}

/// A token of the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token<'a> {
    /// Its text as it stands in the file: in GPT-2's alphabet for byte-level tokens, with `▁` for a blank for
    /// SentencePiece. [`Tokenizer::decode_into`](super::Tokenizer::decode_into) gives the bytes that it means.
    pub text: &'a str,
    /// What it is for.
    pub kind: TokenKind,
    /// SentencePiece's score; 0 where the file has none.
    pub score: f32,
}

/// Tables of a vocabulary in an arena. Texts and scores are borrowed from the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vocab<'a> {
    /// The array of texts as it stands in the file, each behind a length of eight bytes.
    pub texts: &'a [u8],
    /// Where each text begins in `texts`, and at the end where one more would begin.
    pub starts: &'a [u32],
    /// Numbers of the kinds.
    pub kinds: &'a [u8],
    /// The scores as they stand in the file, little-endian `f32`; may be empty.
    pub scores: &'a [u8],
    /// From text to token.
    pub table: Table<'a>,
}

impl<'a> Vocab<'a> {
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The text of a token; empty beyond the last.
    #[inline]
    pub(super) fn text(&self, id: u32) -> &'a [u8] {
        text_at(self.texts, self.starts, id)
    }

    #[inline]
    pub(super) fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).and_then(|number| TokenKind::from_number((*number).into()))
    }

    pub(super) fn score(&self, id: u32) -> f32 {
        let scores = self.scores.as_chunks::<4>().0;
        scores.get(id as usize).map_or(0.0, |bytes| f32::from_le_bytes(*bytes))
    }

    /// The token with exactly this text.
    #[inline]
    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        self.table.find(hash_bytes(text), |id| self.text(id) == text)
    }

    /// The token with exactly this text, if ordinary text may become it.
    #[inline]
    pub(super) fn find_text(&self, text: &[u8]) -> Option<u32> {
        self.find(text).filter(|id| self.kind(*id).is_some_and(TokenKind::is_text))
    }
}

/// The text of token `id` in an array of strings; empty beyond the last.
#[inline]
pub(super) fn text_at<'a>(texts: &'a [u8], starts: &[u32], id: u32) -> &'a [u8] {
    let start = starts.get(id as usize);
    let next = starts.get((id as usize).wrapping_add(1));
    match (start, next) {
        (Some(&start), Some(&next)) => {
            texts.get(start as usize..next.wrapping_sub(8) as usize).unwrap_or(&[])
        }
        _ => &[],
    }
}
