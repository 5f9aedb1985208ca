//! Text in, text out.

use super::limits::SessionMemory;
use super::{Budget, Error, Finish, Session, Step};
use crate::mem::{Arena, MemError, Plan, Slot, shift_left};
use crate::sample::Sampler;
use crate::text::{Specials, StreamDecoder, StreamLimits, StreamSlots, TextError, Tokenizer};

/// The slots of [`TextTools`].
#[derive(Debug, Clone, Copy)]
pub(super) struct ToolSlots {
    scratch: Slot<u32>,
    token: Slot<u8>,
}

/// Memory to work in, for all sequences. Without a tokenizer it is empty.
#[derive(Debug)]
pub(super) struct TextTools<'m> {
    scratch: &'m mut [u32],
    token: &'m mut [u8],
}

impl<'m> TextTools<'m> {
    pub(super) fn plan(
        tokenizer: Option<&Tokenizer<'_>>,
        text_bytes: usize,
        plan: &mut Plan,
    ) -> Result<ToolSlots, MemError> {
        let scratch = plan.array(tokenizer.map_or(0, |tokenizer| tokenizer.scratch_len(text_bytes)))?;
        Ok(ToolSlots { scratch, token: plan.array(tokenizer.map_or(0, Tokenizer::longest_token))? })
    }

    pub(super) fn carve(arena: &mut Arena<'m>, slots: &ToolSlots) -> Result<Self, MemError> {
        Ok(Self { scratch: arena.carve(slots.scratch)?, token: arena.carve(slots.token)? })
    }
}

/// What a sequence remembers of its text.
#[derive(Debug)]
pub(super) struct TextState<'m> {
    pub(super) stream: StreamDecoder<'m>,
    pub(super) flushed: bool,
    pub(super) finish: Option<Finish>,
    pub(super) left: Option<usize>,
    pub(super) ignore_end: bool,
}

impl<'m> TextState<'m> {
    pub(super) fn plan(
        tokenizer: Option<&Tokenizer<'_>>,
        (stops, stop_bytes): (usize, usize),
        plan: &mut Plan,
    ) -> Result<StreamSlots, MemError> {
        let push_bytes = tokenizer.map_or(0, Tokenizer::longest_token);
        StreamDecoder::plan(StreamLimits { push_bytes, stops, stop_bytes }, plan)
    }

    pub(super) fn carve(arena: &mut Arena<'m>, slots: &StreamSlots) -> Result<Self, MemError> {
        let stream = StreamDecoder::new(arena, slots)?;
        Ok(Self { stream, flushed: false, finish: None, left: None, ignore_end: false })
    }

    /// Begins a new answer.
    pub(super) fn restart(&mut self) {
        self.stream.reset();
        (self.finish, self.flushed) = (None, false);
    }

    /// Forgets everything, stop strings and limits too.
    pub(super) fn clear(&mut self) {
        self.restart();
        // No stop strings always fit.
        let _ = self.stream.set_stops(&[]);
        (self.left, self.ignore_end) = (None, false);
    }

    /// Takes the bytes of a generated token; whether there is text to show.
    fn push(&mut self, bytes: &[u8]) -> Result<bool, TextError> {
        let emitted = self.stream.push(bytes)?;
        // A text that a full cache ended goes on when there is room again, and may hold back something new.
        self.flushed = false;
        let shown = !emitted.text.is_empty();
        if emitted.stop.is_some() {
            self.finish = Some(Finish::Stop);
        }
        Ok(shown)
    }

    /// Gives out what is held back, once; whether there is any. Without any nothing changes.
    fn flush(&mut self) -> bool {
        if self.flushed || self.stream.held_back() == 0 {
            return false;
        }
        self.flushed = true;
        !self.stream.flush().text.is_empty()
    }
}

/// What a call reached; text stands in the stream.
enum Reached {
    Pending,
    Text,
    Token(u32),
    Done(Finish),
}

impl Session<'_> {
    /// Adds a text behind the last token and returns its number of tokens. The first text of a session gets the token
    /// for the beginning of a text before it, if the model asks for that. Texts of control tokens are ordinary text:
    /// what a user types cannot end a turn. Nothing is computed yet.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::TextTooLong`], [`Error::ContextFull`].
    pub fn feed(&mut self, text: &str) -> Result<usize, Error> {
        self.feed_text(text, Specials::Plain)
    }

    /// As [`Session::feed`], and texts of control tokens such as `<|im_start|>` become these tokens: for prompts that
    /// a program has put together from a template.
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub fn feed_markup(&mut self, text: &str) -> Result<usize, Error> {
        self.feed_text(text, Specials::Parse)
    }

    fn feed_text(&mut self, text: &str, specials: Specials) -> Result<usize, Error> {
        let tokenizer = self.model.tokenizer().ok_or(Error::NoTokenizer)?;
        let most = self.limits.text_bytes;
        if text.len() > most {
            return Err(Error::TextTooLong { got: text.len(), most });
        }
        let (room, context) = (self.room(), self.context());
        let SessionMemory { tools, states, .. } = &mut self.memory;
        let state = states.at_mut(self.selected);
        let bos = tokenizer.ids().bos.filter(|_| state.fed == 0 && tokenizer.add_bos());
        let out = state.tokens.get_mut(state.fed..).unwrap_or_default();
        let full = |needed| Error::ContextFull { needed, room, context };
        let behind = usize::from(bos.is_some());
        let place = out.get_mut(behind..).ok_or(full(behind))?;
        let mut added = match tokenizer.encode(text, specials, tools.scratch, place) {
            Err(TextError::OutputTooSmall { needed, .. }) => return Err(full(behind + needed)),
            other => other?,
        };
        if let (Some(bos), Some(first)) = (bos, out.first_mut()) {
            *first = bos;
            added += 1;
            if specials == Specials::Parse && out.get(1) == Some(&bos) && added > 1 {
                // The template has its own.
                if let Some(all) = out.get_mut(..added) {
                    shift_left(all, 1);
                }
                added -= 1;
            }
        }
        self.extend(added)?;
        Ok(added)
    }

    /// Ends generation when one of these texts appears, even across the borders of tokens. What is shown ends before it.
    ///
    /// # Errors
    /// [`Error::Text`] for more or longer ones than [`super::Limits::stops`] allows.
    pub fn set_stops(&mut self, stops: &[&str]) -> Result<(), Error> {
        Ok(self.state_mut().text.stream.set_stops(stops)?)
    }

    /// Generates until there is more text to show: whole characters, never an empty text. `None` at the end, see
    /// [`Session::finish`].
    ///
    /// # Errors
    /// As [`Session::next_token`]; [`Error::NoTokenizer`]. What was generated before is shown first.
    pub fn next_piece(&mut self, sampler: &mut Sampler<'_>) -> Result<Option<&str>, Error> {
        loop {
            match self.reach(&mut Budget::Unlimited, sampler)? {
                Reached::Text => return Ok(Some(self.state().text.stream.emitted())),
                Reached::Token(_) => {}
                Reached::Pending | Reached::Done(_) => return Ok(None),
            }
        }
    }

    /// Reads what was fed and generates a token, as far as the budget goes. A program with frames calls this once a frame.
    ///
    /// # Errors
    /// As [`Session::next_piece`]. After [`Error::Cancelled`], as after every error, the session is as it was before the
    /// call: the same tokens, text and random numbers. What was computed of a prompt in the meantime is not lost.
    pub fn step(&mut self, mut budget: Budget<'_>, sampler: &mut Sampler<'_>) -> Result<Step<'_>, Error> {
        Ok(match self.reach(&mut budget, sampler)? {
            Reached::Pending => Step::Pending,
            Reached::Text => Step::Piece(self.state().text.stream.emitted()),
            Reached::Token(id) => Step::Token(id),
            Reached::Done(finish) => Step::Done(finish),
        })
    }

    /// One token further, at most.
    fn reach(&mut self, budget: &mut Budget<'_>, sampler: &mut Sampler<'_>) -> Result<Reached, Error> {
        let model = self.model;
        let tokenizer = model.tokenizer().ok_or(Error::NoTokenizer)?;
        match self.token_within(budget, sampler) {
            Ok(None) => Ok(Reached::Pending),
            Ok(Some(Some(id))) => {
                let SessionMemory { tools, states, .. } = &mut self.memory;
                let len = tokenizer.decode_into(id, tools.token)?;
                let bytes = tools.token.get(..len).unwrap_or_default();
                let shown = states.at_mut(self.selected).text.push(bytes)?;
                Ok(if shown { Reached::Text } else { Reached::Token(id) })
            }
            Ok(Some(None)) => {
                let text = &mut self.state_mut().text;
                let finish = text.finish.unwrap_or(Finish::Stop);
                Ok(if text.flush() { Reached::Text } else { Reached::Done(finish) })
            }
            Err(Error::ContextFull { .. } | Error::PagesFull { .. }) if self.state_mut().text.flush() => {
                Ok(Reached::Text)
            }
            Err(error) => Err(error),
        }
    }
}
