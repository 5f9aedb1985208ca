//! Encoding and decoding with memory from the allocator.

use super::error::TextError;
use super::tokenizer::{Specials, Tokenizer, check_len};
use super::vocab::TokenKind;
use crate::mem::MemError;
use alloc::vec::Vec;

impl Tokenizer<'_> {
    /// The tokens of `text`, with working memory of its own; see [`encode`](Self::encode).
    ///
    /// # Errors
    /// [`TextError::TextTooLong`]; [`TextError::Memory`] when the allocator has none.
    pub fn encode_vec(&self, text: &str, specials: Specials) -> Result<Vec<u32>, TextError> {
        // Before four times as much memory is asked for.
        check_len(text)?;
        let mut out = zeros(text.len().saturating_add(1))?;
        // Enough for all but absurd words of byte-level vocabularies.
        let mut scratch = zeros(self.scratch_len(text.len().min(4096)))?;
        loop {
            match self.encode(text, specials, &mut scratch, &mut out) {
                Err(TextError::ScratchTooSmall { needed, got }) if got < needed => scratch = zeros(needed)?,
                Err(TextError::OutputTooSmall { needed, got }) if got < needed => out = zeros(needed)?,
                written => {
                    out.truncate(written?);
                    return Ok(out);
                }
            }
        }
    }

    /// The bytes of a row of tokens as the text that they were made from: without the blank that
    /// [`encode`](Self::encode) put in front.
    ///
    /// # Errors
    /// [`TextError::NoSuchToken`]; [`TextError::Memory`] when the allocator has none.
    pub fn decode_vec(&self, ids: &[u32]) -> Result<Vec<u8>, TextError> {
        let mut bytes = Vec::new();
        let mut buffer = zeros(self.longest)?;
        let mut drop_blank = self.adds_blank();
        for &id in ids {
            let len = self.decode_into(id, &mut buffer)?;
            let piece = buffer.get(..len).unwrap_or(&[]);
            let is_text =
                self.vocab.kind(id).is_some_and(|kind| kind.is_text() && kind != TokenKind::UserDefined);
            let piece = piece.strip_prefix(b" ").filter(|_| drop_blank && is_text).unwrap_or(piece);
            bytes.try_reserve(piece.len()).map_err(|_| MemError::NoMemory { needed: piece.len() })?;
            bytes.extend_from_slice(piece);
            // A blank was put behind every special token, too.
            drop_blank = self.adds_blank() && !is_text && self.vocab.kind(id) != Some(TokenKind::Byte);
        }
        Ok(bytes)
    }
}

fn zeros<T: Copy + Default>(len: usize) -> Result<Vec<T>, MemError> {
    let mut zeros = Vec::new();
    let needed = len.saturating_mul(size_of::<T>());
    zeros.try_reserve_exact(len).map_err(|_| MemError::NoMemory { needed })?;
    zeros.resize(len, T::default());
    Ok(zeros)
}
