//! Reading a state: everything is checked before anything changes.

use super::{FLUSHED, IGNORES_END, MAGIC, NONE, OPEN, SELECTED, Saved, TRAILER, VERSION};
use crate::kernels::KV_BLOCK;
use crate::mem::Digest;
use crate::sample::{Params, Rng, Sampler};
use crate::session::limits::SessionMemory;
use crate::session::policy::Policy;
use crate::session::{Error, Finish, Session};
use core::str;

/// Positions stay far below what 32 bits hold.
const MOST_POSITIONS: u64 = 1 << 31;

/// A state that is read from front to back.
#[derive(Clone, Copy)]
struct Input<'i> {
    bytes: &'i [u8],
    at: usize,
}

impl<'i> Input<'i> {
    /// What is said of bytes that cannot be right.
    fn damaged(&self) -> Error {
        Error::StateDamaged { offset: self.at }
    }

    fn bytes(&mut self, len: usize) -> Result<&'i [u8], Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..len).ok_or(self.damaged())?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.bytes(N)?.first_chunk().copied().ok_or(self.damaged())
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of this machine below [`MOST_POSITIONS`].
    fn number(&mut self) -> Result<usize, Error> {
        let at = *self;
        let number = self.u64()?;
        usize::try_from(number).ok().filter(|_| number < MOST_POSITIONS).ok_or(at.damaged())
    }

    /// Bytes with their number in front.
    fn counted(&mut self) -> Result<&'i [u8], Error> {
        let len = self.u32()?;
        self.bytes(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// `count` numbers of 32 bits.
    fn u32s(&mut self, count: usize) -> Result<&'i [u8], Error> {
        self.bytes(count.checked_mul(4).ok_or(self.damaged())?)
    }

    fn text(&mut self) -> Result<&'i str, Error> {
        let at = *self;
        str::from_utf8(self.counted()?).map_err(|_| at.damaged())
    }

    fn check(&self, is_right: bool) -> Result<(), Error> {
        if is_right { Ok(()) } else { Err(self.damaged()) }
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
}

/// The front of a state.
struct Head<'i> {
    what: Saved,
    sequences: u32,
    pages: [u32; 2],
    sampler: Option<(Params<'static>, Rng)>,
    /// From the first sequence on.
    rest: Input<'i>,
}

/// A sequence of a state.
struct Sequence<'i> {
    index: usize,
    generation: u32,
    flags: u32,
    /// Nothing for one that is closed.
    body: Option<Body<'i>>,
}

struct Body<'i> {
    forgotten: usize,
    most: usize,
    tokens: &'i [u8],
    computed: usize,
    left: Option<usize>,
    finish: Option<Finish>,
    held: &'i [u8],
    tail: &'i [u8],
    stop: Option<usize>,
    /// The stop strings, to be read once more.
    stops: (u32, Input<'i>),
    tables: [(usize, &'i [u8]); 2],
}

impl Session<'_> {
    /// Goes on from a saved state: of a sequence, which takes the place of the selected one, or of a session, whose
    /// sequences and ids take the place of all. `sampler`, if the state has one, gets its settings, except for its logit
    /// biases, and its random numbers. All or nothing.
    ///
    /// # Errors
    /// [`Error::StateDamaged`]; [`Error::StateOfOther`] for a state of another model, other types of keys and values,
    /// another rounding of activations, or another policy; [`Error::ContextFull`], [`Error::PagesFull`] and
    /// [`Error::NoSequence`] when it does not fit.
    pub fn restore(&mut self, state: &[u8], sampler: Option<&mut Sampler<'_>>) -> Result<(), Error> {
        let head = self.head(state)?;
        self.check_sequences(&head)?;
        self.drop_pass();
        self.apply(&head)?;
        if let (Some(sampler), Some((params, rng))) = (sampler, head.sampler) {
            let logit_bias = sampler.params().logit_bias;
            *sampler = Sampler::new(Params { logit_bias, ..params })?;
            sampler.set_rng(rng);
        }
        Ok(())
    }

    /// Whether a state is of a sequence or of a session, and whole.
    ///
    /// # Errors
    /// As [`Session::restore`], as far as the state alone and what it is bound to are concerned.
    pub fn check_state(&self, state: &[u8]) -> Result<Saved, Error> {
        Ok(self.head(state)?.what)
    }

    /// Checks the digest and the front.
    fn head<'i>(&self, state: &'i [u8]) -> Result<Head<'i>, Error> {
        let mut input = Input { bytes: state, at: 0 };
        let magic = input.array::<8>()?;
        Input { bytes: state, at: 0 }.check(&magic == MAGIC)?;
        let version = input.u32()?;
        if version != VERSION {
            return Err(Error::StateVersion { version });
        }
        let what = match input.u32()? {
            0 => Saved::Sequence,
            1 => Saved::Session,
            _ => return Err(input.damaged()),
        };
        input.check(input.clone().u64()? == state.len() as u64)?;
        input.u64()?;
        let (body, trailer) = state.split_at_checked(state.len().wrapping_sub(TRAILER)).unwrap_or_default();
        let mut digest = Digest::new();
        digest.add(body);
        let trailer = Input { bytes: trailer, at: 0 }.u64().map_err(|_| input.damaged())?;
        Input { bytes: state, at: body.len() }.check(digest.value() == trailer)?;
        input.bytes = body;
        self.check_binding(&mut input)?;
        let (sequences, pages) = (input.u32()?, [input.u32()?, input.u32()?]);
        let sampler = match input.u32()? {
            0 => None,
            1 => Some(read_sampler(&mut input)?),
            _ => return Err(input.damaged()),
        };
        Ok(Head { what, sequences, pages, sampler, rest: input })
    }

    fn check_binding(&self, input: &mut Input<'_>) -> Result<(), Error> {
        let binding = self.binding();
        let bound = |is_same: bool, what| if is_same { Ok(()) } else { Err(Error::StateOfOther { what }) };
        bound(input.u64()? == binding.model, "model")?;
        bound([input.u32()?, input.u32()?] == binding.types, "type of keys and values")?;
        for bits in binding.bits {
            bound(input.u32()? == bits, "precision of activations")?;
        }
        bound(input.u32()? == binding.window, "pages of windows")?;
        bound((input.u32()?, input.u64()?, input.u64()?) == binding.policy, "context policy")
    }

    /// Checks everything behind the front, and whether it fits.
    fn check_sequences(&self, head: &Head<'_>) -> Result<(), Error> {
        let (mut input, mut next, mut selected) = (head.rest, [0; 2], 0);
        for number in 0..head.sequences {
            let sequence = self.sequence(&mut input)?;
            input.check(head.what == Saved::Sequence || sequence.index == number as usize)?;
            let Some(body) = sequence.body else { continue };
            if sequence.index >= self.memory.states.len() && head.what == Saved::Session {
                return Err(Error::NoSequence { sequences: self.memory.states.len() });
            }
            selected += u32::from(sequence.flags & SELECTED != 0);
            for ((_, table), next) in body.tables.iter().zip(&mut next) {
                for page in numbers(table) {
                    // Pages are numbered in the order in which they come first.
                    input.check(page <= *next)?;
                    *next += u32::from(page == *next);
                }
            }
        }
        input.check(selected == 1 && next == head.pages)?;
        input.check(head.what == Saved::Session || head.sequences == 1)?;
        for (kind, count) in head.pages.into_iter().enumerate() {
            for _ in 0..count {
                self.page(&mut input, kind)?;
            }
        }
        input.check(input.at == input.bytes.len())?;
        for (pages, needed) in self.memory.pages.iter().zip(head.pages) {
            let free = match head.what {
                Saved::Session => pages.len(),
                Saved::Sequence => pages.free() + pages.held_alone(self.selected),
            };
            if needed as usize > free {
                return Err(Error::PagesFull { needed: needed as usize, free });
            }
        }
        Ok(())
    }

    /// The next page: how many positions hold something, and its image.
    fn page<'i>(&self, input: &mut Input<'i>, kind: usize) -> Result<(u32, &'i [u8]), Error> {
        let at = *input;
        let valid = input.u32()?;
        at.check(valid as usize <= KV_BLOCK)?;
        let len = self.memory.run.kv.get(kind).map_or(0, |cache| cache.shape().image());
        Ok((valid, if valid > 0 { input.bytes(len)? } else { &[] }))
    }

    /// The next sequence, checked as far as it alone is concerned.
    fn sequence<'i>(&self, input: &mut Input<'i>) -> Result<Sequence<'i>, Error> {
        let at = *input;
        let (index, generation, flags) = (input.u32()? as usize, input.u32()?, input.u32()?);
        at.check(flags <= OPEN | SELECTED | FLUSHED | IGNORES_END)?;
        if flags & OPEN == 0 {
            at.check(flags & SELECTED == 0)?;
            return Ok(Sequence { index, generation, flags, body: None });
        }
        let at = *input;
        let (forgotten, most, len, computed) =
            (input.number()?, input.number()?, input.number()?, input.number()?);
        let policy = &self.policy;
        at.check(computed <= len && most >= len.saturating_add(forgotten))?;
        let begun = len >= policy.keep && (computed >= policy.keep || policy.begins_anew());
        at.check(forgotten == 0 || policy.forgets() && begun)?;
        if len > policy.tokens() {
            let (room, context) = (policy.tokens(), self.context());
            return Err(Error::ContextFull { needed: len, room, context });
        }
        let body = Body { forgotten, most, computed, ..self.text_of(input)? };
        let (at, tokens) = (*input, input.u32s(len)?);
        let vocab = self.model.spec().vocab;
        at.check(numbers(tokens).all(|id| (id as usize) < vocab))?;
        let tables = [self.table(input, 0, len, &body)?, self.table(input, 1, len, &body)?];
        Ok(Sequence { index, generation, flags, body: Some(Body { tokens, tables, ..body }) })
    }

    /// Where the text of a sequence is.
    fn text_of<'i>(&self, input: &mut Input<'i>) -> Result<Body<'i>, Error> {
        let left = input.u64()?;
        let left = if left == u64::MAX { None } else { Some(usize::try_from(left).unwrap_or(usize::MAX)) };
        let at = *input;
        let (finish, token) = (input.u32()?, input.u32()?);
        at.check((token as usize) < self.model.spec().vocab && (finish == 1 || token == 0))?;
        let finish = match finish {
            0 => None,
            1 => Some(Finish::EndOfText(token)),
            2 => Some(Finish::Stop),
            3 => Some(Finish::MaxTokens),
            _ => return Err(at.damaged()),
        };
        let limits = self.state().text.stream.limits();
        let at = *input;
        let (held, tail) = (input.text()?.as_bytes(), input.counted()?);
        at.check(held.len() <= limits.stop_bytes && tail.len() < 4)?;
        let at = *input;
        let (stop, count) = (input.u32()?, input.u32()?);
        at.check(stop == NONE || stop < count)?;
        let stops = (count, *input);
        at.check(count as usize <= limits.stops)?;
        for _ in 0..count {
            at.check(input.text()?.len() <= limits.stop_bytes)?;
        }
        let stop = Some(stop as usize).filter(|_| stop != NONE);
        let (tokens, tables) = (&[][..], [(0, &[][..]); 2]);
        Ok(Body { forgotten: 0, most: 0, tokens, computed: 0, left, finish, held, tail, stop, stops, tables })
    }

    /// The next table: blocks that are gone, and the numbers of the pages.
    fn table<'i>(
        &self,
        input: &mut Input<'i>,
        kind: usize,
        len: usize,
        body: &Body<'_>,
    ) -> Result<(usize, &'i [u8]), Error> {
        let at = *input;
        let (base, blocks) = (input.u32()? as usize, input.u32()? as usize);
        let numbers = input.u32s(blocks)?;
        let policy = &self.policy;
        let end = body.place(policy);
        let (gone, end, sees) = match kind {
            0 => {
                let first = policy.still_held_from(end, body.most, len > body.computed);
                let first = first.saturating_sub(policy.keep);
                let forgotten = if policy.begins_anew() { 0 } else { body.forgotten };
                at.check(Some(forgotten) == base.checked_mul(KV_BLOCK))?;
                (forgotten, if policy.forgets() { end } else { len }, first)
            }
            _ => match self.window {
                Some(window) => (base.saturating_mul(KV_BLOCK), end, end.saturating_sub(window)),
                None => (0, 0, 0),
            },
        };
        at.check(gone <= sees && base <= end.div_ceil(KV_BLOCK))?;
        at.check(blocks == end.div_ceil(KV_BLOCK) - base)?;
        let most = self.memory.pages.get(kind).map_or(0, |pages| pages.limits().blocks);
        if blocks > most {
            let (needed, room) = (blocks * KV_BLOCK, most * KV_BLOCK);
            return Err(Error::ContextFull { needed, room, context: self.context() });
        }
        Ok((base, numbers))
    }

    /// Takes over a state that was checked.
    fn apply(&mut self, head: &Head<'_>) -> Result<(), Error> {
        let mut input = head.rest;
        let all = head.what == Saved::Session;
        for index in 0..self.memory.states.len() {
            if all || index == self.selected {
                self.memory.pages.iter_mut().for_each(|pages| pages.release_from(index, 0));
                let state = self.memory.states.at_mut(index);
                let was_open = state.open;
                state.open();
                state.open = !all;
                state.generation = state.generation.wrapping_add(u32::from(all && was_open));
            }
        }
        for (pages, count) in self.memory.pages.iter_mut().zip(head.pages) {
            pages.clear_numbers();
            for number in 0..count {
                let page = pages.take_unheld().ok_or(Error::PagesFull { needed: 1, free: 0 })?;
                pages.set_numbered(number, page);
            }
        }
        for _ in 0..head.sequences {
            let sequence = self.sequence(&mut input)?;
            let index = if all { sequence.index } else { self.selected };
            if all && index < self.memory.states.len() {
                self.memory.states.at_mut(index).generation = sequence.generation;
                if sequence.flags & SELECTED != 0 {
                    self.selected = index;
                }
            }
            if let Some(body) = sequence.body {
                self.apply_sequence(index, sequence.flags, &body)?;
            }
        }
        for (kind, count) in head.pages.into_iter().enumerate() {
            for number in 0..count {
                let (valid, mut image) = self.page(&mut input, kind)?;
                let SessionMemory { pages, run, .. } = &mut self.memory;
                if let (Some(pages), Some(cache), 1..) = (pages.get(kind), run.kv.get_mut(kind), valid) {
                    cache.set_page_image(pages.page_numbered(number), |part| {
                        let (bytes, rest) = image.split_at_checked(part.len()).unwrap_or_default();
                        part.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
                        image = rest;
                    });
                }
            }
        }
        Ok(())
    }

    fn apply_sequence(&mut self, index: usize, flags: u32, body: &Body<'_>) -> Result<(), Error> {
        let SessionMemory { states, pages, .. } = &mut self.memory;
        for (pages, (base, table)) in pages.iter_mut().zip(&body.tables) {
            pages.restore(index, *base, numbers(table));
        }
        let state = states.at_mut(index);
        state.open = true;
        state.tokens.iter_mut().zip(numbers(body.tokens)).for_each(|(place, id)| *place = id);
        (state.fed, state.done, state.dropped) = (body.tokens.len() / 4, body.computed, body.forgotten);
        state.high = body.most;
        let text = &mut state.text;
        let (count, mut stops) = body.stops;
        text.stream.clear_stops();
        for _ in 0..count {
            text.stream.add_stop(stops.text()?);
        }
        text.stream.resume(body.held, body.tail, body.stop);
        (text.left, text.finish) = (body.left, body.finish);
        (text.flushed, text.ignore_end) = (flags & FLUSHED != 0, flags & IGNORES_END != 0);
        Ok(())
    }
}

impl Body<'_> {
    /// Positions, as the model sees them, of what is computed.
    fn place(&self, policy: &Policy) -> usize {
        let forgotten = if policy.begins_anew() { 0 } else { self.forgotten };
        if self.computed < policy.keep { self.computed } else { self.computed + forgotten }
    }
}

fn read_sampler(input: &mut Input<'_>) -> Result<(Params<'static>, Rng), Error> {
    let at = *input;
    let float = |input: &mut Input<'_>| input.u32().map(f32::from_bits);
    let params = Params {
        temperature: float(input)?,
        top_k: input.u32()?,
        top_p: float(input)?,
        min_p: float(input)?,
        repeat_penalty: float(input)?,
        frequency_penalty: float(input)?,
        presence_penalty: float(input)?,
        penalty_last_n: input.u32()?,
        seed: input.u64()?,
        logit_bias: &[],
    };
    at.check(params.check().is_ok())?;
    Ok((params, Rng::new(input.u64()?)))
}
