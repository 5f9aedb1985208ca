//! SentencePiece's byte-pair encoding: neighbours are joined to the token with the best score.
//!
//! Blanks are written `▁` (U+2581). What has no token falls back to one token a byte.

use super::merge::{Joins, NONE, Symbols, WORDS};
use super::tokenizer::Sink;
use super::vocab::Vocab;

/// What a blank is written as.
pub(super) const BLANK: char = '\u{2581}';

/// What turns a stretch of text into tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spm<'a> {
    /// The token of each byte, [`NONE`] where the vocabulary has none.
    pub bytes: &'a [u32],
    /// Stands for bytes without a token; [`NONE`] if the file names none.
    pub unknown: u32,
    /// Length in bytes of the longest token.
    pub longest: usize,
    /// Whether a blank is put before the text, and again behind each special token.
    pub blank_first: bool,
}

/// Words of working memory that always suffice for `bytes` bytes of text.
pub(super) fn scratch_len(bytes: usize) -> usize {
    // One blank may be put in front, and each blank takes three bytes.
    let characters = bytes.saturating_add(1);
    characters.saturating_mul(WORDS).saturating_add(characters.saturating_mul(BLANK.len_utf8()).div_ceil(4))
}

impl Spm<'_> {
    /// Appends the tokens of `text`. `None` when `scratch` is too small, see [`scratch_len`].
    pub(super) fn encode(
        &self,
        vocab: &Vocab<'_>,
        text: &str,
        blank_first: bool,
        scratch: &mut [u32],
        sink: &mut Sink<'_>,
    ) -> Option<()> {
        if text.is_empty() {
            return Some(());
        }
        let front = if blank_first { " " } else { "" };
        let characters = || front.chars().chain(text.chars()).map(|c| if c == ' ' { BLANK } else { c });
        let (count, len) = characters().fold((0usize, 0usize), |(count, len), character| {
            (count.saturating_add(1), len.saturating_add(character.len_utf8()))
        });
        let (written, scratch) = scratch.split_at_mut_checked(len.div_ceil(4))?;
        let written: &mut [u8] = bytemuck::try_cast_slice_mut(written).ok()?;
        let mut rest = &mut *written;
        for character in characters() {
            let (place, behind) = rest.split_at_mut_checked(character.len_utf8())?;
            character.encode_utf8(place);
            rest = behind;
        }
        let written = written.get(..len)?;
        let mut at = 0u32;
        let starts = characters().map(|character| {
            let start = at;
            at = at.wrapping_add(character.len_utf8() as u32);
            start
        });
        let mut symbols = Symbols::new(scratch, count, starts)?;
        symbols.join_all(&Pieces { text: written, vocab, longest: self.longest });
        for (start, end) in symbols.values() {
            self.emit(vocab, piece(written, start, end), sink);
        }
        Some(())
    }

    fn emit(&self, vocab: &Vocab<'_>, piece: &[u8], sink: &mut Sink<'_>) {
        if let Some(id) = vocab.find_text(piece) {
            return sink.push(id);
        }
        let tokens = || piece.iter().map(|byte| self.bytes.get(usize::from(*byte)).copied().unwrap_or(NONE));
        if tokens().any(|id| id == NONE) {
            return sink.push_known(self.unknown);
        }
        tokens().for_each(|id| sink.push(id));
    }
}

/// The bytes from `start` to `end`, or to the end of the text.
fn piece(text: &[u8], start: u32, end: u32) -> &[u8] {
    text.get(start as usize..(end as usize).min(text.len())).unwrap_or(&[])
}

/// Symbols are the offsets of their first bytes.
struct Pieces<'t, 'a> {
    text: &'t [u8],
    vocab: &'t Vocab<'a>,
    longest: usize,
}

impl Joins for Pieces<'_, '_> {
    fn key(&self, left: u32, _: u32, after: u32) -> u32 {
        let piece = piece(self.text, left, after);
        if piece.len() > self.longest {
            return NONE;
        }
        self.vocab.find_text(piece).map_or(NONE, |id| descending(self.vocab.score(id)))
    }

    fn joined(&self, _: u32, left: u32) -> u32 {
        left
    }
}

/// A number that is the smaller, the greater the finite `score` is; never [`NONE`].
fn descending(score: f32) -> u32 {
    // Adding zero makes the negative zero a positive one.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_ordered() {
        let scores = [f32::MAX, 2.5, 1.0, f32::MIN_POSITIVE, 0.0, -1e-40, -1.0, -1e9, f32::MIN];
        assert!(scores.windows(2).all(|pair| descending(pair[0]) < descending(pair[1])));
        assert_eq!(descending(0.0), descending(-0.0));
        assert!(descending(f32::MIN) < NONE);
    }
}
