//! Finding control and user-defined tokens in a text.
//!
//! For each first byte the lengths of the tokens that begin with it are known; at a place in the text the longest length
//! that is a token wins. At most [`MAX_SPECIAL_BYTES`] look-ups are made at a place, whatever the file says.
//!
//! For SentencePiece `▁` is a blank before anything is looked for; Gemma has tokens for runs of blanks.

use super::vocab::{MAX_SPECIAL_BYTES, TokenKind, Vocab};
use crate::steps;

/// U+2581, which SentencePiece writes for a blank.
const BLANK: &[u8] = "\u{2581}".as_bytes();

/// Words of 64 lengths for each first byte.
const WORDS: usize = MAX_SPECIAL_BYTES / 64;

/// Elements of the table of lengths.
pub(super) const LEN: usize = 256 * WORDS;

/// Lengths by first byte: bit `length - 1` of the words of that byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpecialLengths<'a>(pub &'a [u64]);

/// Where a token stands in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub start: usize,
    pub end: usize,
    pub id: u32,
}

/// Enters the text of a token, of 1 to [`MAX_SPECIAL_BYTES`] bytes.
pub(super) fn enter(lengths: &mut [u64], text: &[u8]) {
    let Some(first) = text.first() else { return };
    let bit = text.len().wrapping_sub(1);
    if let Some(word) = lengths.get_mut(usize::from(*first) * WORDS + bit / 64) {
        *word |= 1 << (bit % 64);
    }
}

impl SpecialLengths<'_> {
    fn of(&self, first: u8) -> &[u64] {
        let start = usize::from(first) * WORDS;
        self.0.get(start..start + WORDS).unwrap_or(&[])
    }

    /// The first token in `text` from `from` on that `wanted` accepts, the longest of those that begin there. With `blanks`,
    /// a `▁` of the text is a blank.
    pub(super) fn next(
        &self,
        vocab: &Vocab<'_>,
        text: &[u8],
        from: usize,
        blanks: bool,
        wanted: impl Fn(TokenKind) -> bool,
    ) -> Option<Match> {
        let rest = text.get(from..)?;
        for (skipped, byte) in rest.iter().enumerate() {
            steps::count(1);
            let here = rest.get(skipped..)?;
            let is_blank = blanks && here.starts_with(BLANK);
            let words = self.of(if is_blank { b' ' } else { *byte });
            if words.iter().all(|word| *word == 0) {
                continue;
            }
            let found = if blanks {
                let (buffer, len) = with_blanks(here);
                longest(vocab, words, buffer.get(..len)?, &wanted).map(|(len, id)| (raw_len(here, len), id))
            } else {
                longest(vocab, words, here, &wanted)
            };
            if let Some((len, id)) = found {
                let start = from + skipped;
                return Some(Match { start, end: start + len, id });
            }
        }
        None
    }
}

/// The front of a text with blanks for `▁`, as far as a token may reach.
fn with_blanks(text: &[u8]) -> ([u8; MAX_SPECIAL_BYTES], usize) {
    let (mut buffer, mut len, mut rest) = ([0; MAX_SPECIAL_BYTES], 0, text);
    for place in &mut buffer {
        let Some((byte, behind)) = next_byte(rest) else { break };
        (*place, rest) = (byte, behind);
        len += 1;
    }
    (buffer, len)
}

/// Bytes of `text` that `len` bytes with blanks for `▁` were made from.
fn raw_len(text: &[u8], len: usize) -> usize {
    let rest = (0..len).fold(text, |rest, _| next_byte(rest).map_or(rest, |(_, behind)| behind));
    text.len() - rest.len()
}

/// The first byte of a text, a blank for `▁`, and what is behind.
fn next_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    steps::count(1);
    match text.strip_prefix(BLANK) {
        Some(behind) => Some((b' ', behind)),
        None => text.split_first().map(|(byte, behind)| (*byte, behind)),
    }
}

fn longest(
    vocab: &Vocab<'_>,
    words: &[u64],
    text: &[u8],
    wanted: &impl Fn(TokenKind) -> bool,
) -> Option<(usize, u32)> {
    for (index, word) in words.iter().enumerate().rev() {
        let mut left = *word;
        while let Some(bit) = left.checked_ilog2() {
            left ^= 1 << bit;
            let len = index * 64 + bit as usize + 1;
            let id = text.get(..len).and_then(|text| vocab.find(text));
            if let Some(id) = id.filter(|id| vocab.kind(*id).is_some_and(wanted)) {
                return Some((len, id));
            }
        }
    }
    None
}
