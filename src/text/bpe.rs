//! Byte-level byte-pair encoding, as GPT-2 introduced it.
//!
//! Every byte has a printable character that stands for it in the file. A piece of text begins as one symbol a byte;
//! neighbours are joined in the order of the file's list of merges.

use super::merge::{Joins, NONE, Symbols, WORDS};
use super::table::{Table, hash_pair};
use super::tokenizer::Sink;
use super::vocab::{TokenKind, Vocab};
use bytemuck::{Pod, Zeroable};

/// The character that stands for a byte: itself for printable Latin-1, else the next one from U+0100 on.
pub(super) const fn letter(byte: u8) -> char {
    let code = match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => byte as u32,
        0x00..=0x20 => 0x100 + byte as u32,
        0x7F..=0xA0 => 0x121 + (byte as u32 - 0x7F),
        0xAD => 0x143,
    };
    match char::from_u32(code) {
        Some(letter) => letter,
        None => '\0',
    }
}

/// The byte that a character stands for.
pub(super) fn byte_of(letter: char) -> Option<u8> {
    let code = letter as u32;
    Some(match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => code as u8,
        0x100..=0x120 => (code - 0x100) as u8,
        0x121..=0x142 => (code - 0x121 + 0x7F) as u8,
        0x143 => 0xAD,
        _ => return None,
    })
}

/// Two tokens and the token that they become. The index of a merge is its rank.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Merge {
    pub left: u32,
    pub right: u32,
    pub joined: u32,
}

/// The list of merges with a table from pair to rank.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merges<'a> {
    pub list: &'a [Merge],
    pub table: Table<'a>,
}

impl Joins for Merges<'_> {
    #[inline]
    fn key(&self, left: u32, right: u32, _: u32) -> u32 {
        let is_it = |rank| self.list.get(rank as usize).is_some_and(|m| (m.left, m.right) == (left, right));
        self.table.find(hash_pair(left, right), is_it).unwrap_or(NONE)
    }

    fn joined(&self, rank: u32, left: u32) -> u32 {
        self.list.get(rank as usize).map_or(left, |merge| merge.joined)
    }
}

/// What turns a piece of text into tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bpe<'a> {
    pub merges: Merges<'a>,
    /// The token of each byte, [`NONE`] where the vocabulary has none.
    pub bytes: &'a [u32],
    /// A piece that is a token as a whole becomes that token, whatever the merges say.
    pub whole_pieces: bool,
}

impl Bpe<'_> {
    fn byte(&self, byte: u8) -> u32 {
        self.bytes.get(usize::from(byte)).copied().unwrap_or(NONE)
    }

    /// Appends the tokens of `piece`. A byte without a token is left out, as others do. `None` when `scratch` is too
    /// small: [`WORDS`] for each byte are enough.
    pub(super) fn encode(
        &self,
        vocab: &Vocab<'_>,
        piece: &[u8],
        scratch: &mut [u32],
        sink: &mut Sink<'_>,
    ) -> Option<()> {
        if let [byte] = piece {
            sink.push_known(self.byte(*byte));
            return Some(());
        }
        if self.whole_pieces {
            let needed = piece.len().checked_mul(WORDS)?;
            if let Some(id) = whole(vocab, piece, scratch.get_mut(..needed)?) {
                sink.push(id);
                return Some(());
            }
        }
        let mut symbols = Symbols::new(scratch, piece.len(), piece.iter().map(|byte| self.byte(*byte)))?;
        symbols.join_all(&self.merges);
        symbols.values().for_each(|(id, _)| sink.push_known(id));
        Some(())
    }
}

/// The normal token that a piece is as a whole.
fn whole(vocab: &Vocab<'_>, piece: &[u8], scratch: &mut [u32]) -> Option<u32> {
    let letters: &mut [u8] = bytemuck::try_cast_slice_mut(scratch).ok()?;
    let mut len = 0usize;
    for byte in piece {
        let mut utf8 = [0; 4];
        for byte in letter(*byte).encode_utf8(&mut utf8).bytes() {
            *letters.get_mut(len)? = byte;
            len = len.wrapping_add(1);
        }
    }
    let id = vocab.find(letters.get(..len)?)?;
    (vocab.kind(id)? == TokenKind::Normal).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_letter() {
        for byte in 0..=255 {
            assert_eq!(byte_of(letter(byte)), Some(byte));
        }
        assert_eq!((letter(b' '), letter(b'\n'), letter(b'a'), letter(0xAD)), ('Ġ', 'Ċ', 'a', 'Ń'));
        assert_eq!((letter(0x7F), letter(0xA0), letter(0)), ('ġ', 'ł', 'Ā'));
        let letters = ('\0'..='\u{3000}').filter(|letter| byte_of(*letter).is_some());
        assert_eq!(letters.count(), 256);
    }
}
