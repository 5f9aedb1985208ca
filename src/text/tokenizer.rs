//! Text to tokens and back.

use super::bpe::{Bpe, byte_of};
use super::error::TextError;
use super::merge::{NONE, WORDS};
use super::pretok::Pretokenizer;
use super::special::SpecialLengths;
use super::spm::{self, Spm};
use super::vocab::{Token, TokenKind, Vocab};

/// What to do where a text contains the text of a control token, such as `<|im_end|>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Specials {
    /// It becomes the control token: for templates and other text of the program.
    Parse,
    /// It is text like any other: for what users write. User-defined tokens are still found.
    #[default]
    Plain,
}

/// Tokens with a part of their own; `None` for those that the file does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpecialIds {
    /// Begin of a text.
    pub bos: Option<u32>,
    /// End of a text.
    pub eos: Option<u32>,
    /// End of a turn in a chat.
    pub eot: Option<u32>,
    /// End of a message.
    pub eom: Option<u32>,
    /// What has no token.
    pub unk: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
}

/// Tokens that end a text, at most.
pub(super) const MAX_ENDS: usize = 32;

/// The way from text to tokens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Model<'a> {
    Bpe { bpe: Bpe<'a>, pretokenizer: Pretokenizer },
    Spm(Spm<'a>),
}

/// A tokenizer with its tables in an arena; see [`Tokenizer::plan`] and [`Tokenizer::load`]. Immutable, so one serves any
/// number of threads.
#[derive(Debug, Clone, Copy)]
pub struct Tokenizer<'a> {
    pub(super) vocab: Vocab<'a>,
    pub(super) model: Model<'a>,
    pub(super) lengths: SpecialLengths<'a>,
    pub(super) longest: usize,
    pub(super) ids: SpecialIds,
    pub(super) ends: [u32; MAX_ENDS],
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    pub(super) chat_template: Option<&'a str>,
}

impl<'a> Tokenizer<'a> {
    /// Number of tokens; ids are below it.
    pub fn vocab_len(&self) -> usize {
        self.vocab.len()
    }

    /// The tokens with a part of their own.
    pub fn ids(&self) -> SpecialIds {
        self.ids
    }

    /// Whether the model expects [`SpecialIds::bos`], which is then there, in front of a text. [`encode`](Self::encode)
    /// never adds it.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether the model expects [`SpecialIds::eos`], which is then there, behind a text. [`encode`](Self::encode) never
    /// adds it.
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// Whether [`encode`](Self::encode) puts a blank in front of a text, so that the first blank of a decoded text is to be
    /// dropped.
    pub fn adds_blank(&self) -> bool {
        matches!(&self.model, Model::Spm(spm) if spm.blank_first)
    }

    /// Whether a text ends with token `id`: the end of a text, of a turn or of a message.
    pub fn is_end(&self, id: u32) -> bool {
        id != NONE && self.ends.contains(&id)
    }

    /// The file's chat template, in Jinja.
    pub fn chat_template(&self) -> Option<&'a str> {
        self.chat_template
    }

    /// A token as the file describes it; `None` beyond the vocabulary.
    pub fn token(&self, id: u32) -> Option<Token<'a>> {
        let kind = self.vocab.kind(id)?;
        let text = core::str::from_utf8(self.vocab.text(id)).ok()?;
        Some(Token { text, kind, score: self.vocab.score(id) })
    }

    /// The token whose text in the file is exactly `text`.
    pub fn find(&self, text: &str) -> Option<u32> {
        self.vocab.find(text.as_bytes())
    }

    /// Words of working memory with which [`encode`](Self::encode) succeeds on every text of `text_bytes` bytes: five to six a
    /// byte. Byte-level vocabularies use five for each byte of the longest word only, so less often suffices.
    pub fn scratch_len(&self, text_bytes: usize) -> usize {
        match &self.model {
            Model::Bpe { .. } => text_bytes.saturating_mul(WORDS),
            Model::Spm(_) => spm::scratch_len(text_bytes),
        }
    }

    /// Writes the tokens of `text` to `out` and returns how many there are: never more than bytes of text, plus
    /// one for each stretch of text that a blank is put in front of.
    ///
    /// Neither begin nor end of text is added. Cost: `O(n log n)` in the length of the text. Allocates nothing.
    ///
    /// # Errors
    /// [`TextError::ScratchTooSmall`], [`TextError::OutputTooSmall`] with the number of tokens,
    /// [`TextError::TextTooLong`].
    pub fn encode(
        &self,
        text: &str,
        specials: Specials,
        scratch: &mut [u32],
        out: &mut [u32],
    ) -> Result<usize, TextError> {
        check_len(text)?;
        let mut sink = Sink { out, len: 0 };
        let (mut at, mut behind_special) = (0, true);
        let blanks = matches!(&self.model, Model::Spm(_)) && text.contains(spm::BLANK);
        loop {
            let found = self.lengths.next(&self.vocab, text.as_bytes(), at, blanks, |kind| match kind {
                TokenKind::UserDefined => true,
                TokenKind::Control | TokenKind::Unknown => specials == Specials::Parse,
                _ => false,
            });
            let end = found.map_or(text.len(), |found| found.start);
            let stretch = text.get(at..end).unwrap_or("");
            let written = self.encode_stretch(stretch, behind_special, scratch, &mut sink);
            let too_small =
                TextError::ScratchTooSmall { needed: self.scratch_len(text.len()), got: scratch.len() };
            written.ok_or(too_small)?;
            let Some(found) = found else { break };
            sink.push(found.id);
            (at, behind_special) = (found.end, true);
        }
        sink.finish()
    }

    /// Appends the tokens of a text without special tokens. `None` when `scratch` is too small.
    fn encode_stretch(
        &self,
        text: &str,
        behind_special: bool,
        scratch: &mut [u32],
        sink: &mut Sink<'_>,
    ) -> Option<()> {
        match &self.model {
            Model::Bpe { bpe, pretokenizer } => pretokenizer
                .split(text)
                .try_for_each(|piece| bpe.encode(&self.vocab, piece.as_bytes(), scratch, sink)),
            Model::Spm(spm) => {
                spm.encode(&self.vocab, text, spm.blank_first && behind_special, scratch, sink)
            }
        }
    }

    /// Length in bytes that no token exceeds when it is decoded.
    pub fn longest_token(&self) -> usize {
        self.longest
    }

    /// Writes the bytes that token `id` means to the front of `out` and returns how many there are. They need not be whole
    /// UTF-8 characters. Control tokens mean their own text.
    ///
    /// # Errors
    /// [`TextError::NoSuchToken`]; [`TextError::OutputTooSmall`], never for a buffer of
    /// [`longest_token`](Self::longest_token) bytes.
    pub fn decode_into(&self, id: u32, out: &mut [u8]) -> Result<usize, TextError> {
        let count = self.vocab_len();
        let token = self.token(id).ok_or(TextError::NoSuchToken { id, count })?;
        let mut sink = Sink { out, len: 0 };
        match (&self.model, token.kind) {
            (_, TokenKind::Byte) => match byte_token(token.text.as_bytes()) {
                Some(byte) => sink.push(byte),
                None => token.text.bytes().for_each(|byte| sink.push(byte)),
            },
            (Model::Bpe { .. }, TokenKind::Normal | TokenKind::Unused)
                if token.text.chars().all(|letter| byte_of(letter).is_some()) =>
            {
                token.text.chars().filter_map(byte_of).for_each(|byte| sink.push(byte));
            }
            (Model::Spm(_), TokenKind::Normal | TokenKind::Unused) => {
                for character in token.text.chars() {
                    let character = if character == spm::BLANK { ' ' } else { character };
                    character.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| sink.push(byte));
                }
            }
            _ => token.text.bytes().for_each(|byte| sink.push(byte)),
        }
        sink.finish()
    }
}

/// Refuses texts with more places than 32 bits count.
pub(super) fn check_len(text: &str) -> Result<(), TextError> {
    let (got, limit) = (text.len(), (u32::MAX / 4) as usize);
    if got > limit { Err(TextError::TextTooLong { got, limit }) } else { Ok(()) }
}

/// The byte of a token written `<0xAB>`.
pub(super) fn byte_token(text: &[u8]) -> Option<u8> {
    let [b'<', b'0', b'x', high, low, b'>'] = text else { return None };
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
}

/// A slice that is filled from the front. What does not fit is counted only.
pub(super) struct Sink<'o, T = u32> {
    pub out: &'o mut [T],
    pub len: usize,
}

impl<T> Sink<'_, T> {
    pub(super) fn push(&mut self, element: T) {
        if let Some(place) = self.out.get_mut(self.len) {
            *place = element;
        }
        self.len = self.len.saturating_add(1);
    }

    fn finish(self) -> Result<usize, TextError> {
        let (needed, got) = (self.len, self.out.len());
        if needed > got { Err(TextError::OutputTooSmall { needed, got }) } else { Ok(needed) }
    }
}

impl Sink<'_> {
    /// Appends a token that may be [`NONE`], which is left out.
    pub(super) fn push_known(&mut self, id: u32) {
        if id != NONE {
            self.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_tokens() {
        assert_eq!(byte_token(b"<0x00>"), Some(0));
        assert_eq!(byte_token(b"<0xfF>"), Some(255));
        for text in ["<0x-1>", "<0xZZ>", "<0x1>", "<0x100>", "<0x+1>", "0x11", "<0X11>", ""] {
            assert_eq!(byte_token(text.as_bytes()), None, "{text}");
        }
    }
}
