//! Streams: bytes of tokens in, whole characters out, up to a stop string.
//!
//! A token may end inside a character, and a stop string may begin in one token and end in another. What could still
//! become part of either is held back until it is clear. What comes out never depends on how the bytes were cut.

use super::error::TextError;
use crate::mem::{Arena, MemError, Plan, Slot};
use core::str;

/// Bounds of a stream, known when its memory is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Bytes that are pushed at a time; [`Tokenizer::longest_token`](super::Tokenizer::longest_token) for tokens.
    pub push_bytes: usize,
    /// Number of stop strings.
    pub stops: usize,
    /// Bytes of one stop string.
    pub stop_bytes: usize,
}

/// Where the memory of a [`StreamDecoder`] stands in a planned block.
#[derive(Debug, Clone, Copy)]
pub struct StreamSlots {
    limits: StreamLimits,
    text: Slot<u8>,
    stops: Slot<u8>,
    stop_lens: Slot<u32>,
}

/// What a push brought to light.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emitted<'d> {
    /// Text that is now certain; often empty.
    pub text: &'d str,
    /// The stop string that ended the stream, by its index. It is not part of the text. From then on nothing comes out.
    pub stop: Option<usize>,
}

/// What stands for bytes that are no text.
const REPLACEMENT: &[u8] = "\u{FFFD}".as_bytes();

/// Puts tokens together to text; see the module's head.
#[derive(Debug)]
pub struct StreamDecoder<'m> {
    /// Text that is held back, in front of that what the last push gave out.
    text: &'m mut [u8],
    len: usize,
    given: usize,
    /// The beginning of a character.
    tail: [u8; 4],
    tail_len: usize,
    stops: &'m mut [u8],
    stop_lens: &'m mut [u32],
    stop_count: usize,
    stop: Option<usize>,
    limits: StreamLimits,
}

impl<'m> StreamDecoder<'m> {
    /// Plans the memory: about three times the bytes of a push, and twice those of the stop strings.
    ///
    /// # Errors
    /// [`MemError::Overflow`].
    pub fn plan(limits: StreamLimits, plan: &mut Plan) -> Result<StreamSlots, MemError> {
        // Each bad byte becomes three bytes; up to three bytes come out of the tail.
        let pushed = limits.push_bytes.checked_add(4).and_then(|bytes| bytes.checked_mul(REPLACEMENT.len()));
        let text = pushed.and_then(|bytes| bytes.checked_add(limits.stop_bytes)).ok_or(MemError::Overflow)?;
        let stops = limits.stops.checked_mul(limits.stop_bytes).ok_or(MemError::Overflow)?;
        Ok(StreamSlots {
            limits,
            text: plan.array(text)?,
            stops: plan.array(stops)?,
            stop_lens: plan.array(limits.stops)?,
        })
    }

    /// An empty stream without stop strings.
    ///
    /// # Errors
    /// [`MemError`] when the arena is not that of the plan.
    pub fn new(arena: &mut Arena<'m>, slots: &StreamSlots) -> Result<Self, MemError> {
        Ok(Self {
            text: arena.carve(slots.text)?,
            len: 0,
            given: 0,
            tail: [0; 4],
            tail_len: 0,
            stops: arena.carve(slots.stops)?,
            stop_lens: arena.carve(slots.stop_lens)?,
            stop_count: 0,
            stop: None,
            limits: slots.limits,
        })
    }

    /// Replaces the stop strings by a copy of `stops`. Empty ones are left out of account.
    ///
    /// # Errors
    /// [`TextError::StreamLimit`]; the stream is then unchanged.
    pub fn set_stops(&mut self, stops: &[&str]) -> Result<(), TextError> {
        let (count, limit) = (stops.len(), self.limits.stops);
        if count > limit {
            return Err(TextError::StreamLimit { what: "stop strings", limit, got: count });
        }
        let limit = self.limits.stop_bytes;
        if let Some(long) = stops.iter().find(|stop| stop.len() > limit) {
            return Err(TextError::StreamLimit { what: "bytes of a stop string", limit, got: long.len() });
        }
        self.clear_stops();
        stops.iter().for_each(|stop| self.add_stop(stop));
        Ok(())
    }

    /// Forgets the stop strings.
    pub fn clear_stops(&mut self) {
        self.stop_count = 0;
    }

    /// Adds a stop string to those there are. One that is too long, or one too many, is left out.
    pub fn add_stop(&mut self, stop: &str) {
        let (index, limit) = (self.stop_count, self.limits.stop_bytes);
        let place = self.stops.chunks_mut(limit.max(1)).nth(index).filter(|place| stop.len() <= place.len());
        let (Some(place), Some(len)) = (place, self.stop_lens.get_mut(index)) else { return };
        place.iter_mut().zip(stop.bytes()).for_each(|(place, byte)| *place = byte);
        *len = stop.len() as u32;
        self.stop_count = index.saturating_add(1);
    }

    /// Its bounds.
    pub fn limits(&self) -> StreamLimits {
        self.limits
    }

    /// Forgets everything but the stop strings.
    pub fn reset(&mut self) {
        (self.len, self.given, self.tail_len, self.stop) = (0, 0, 0, None);
    }

    /// The stop string that ended the stream.
    pub fn stopped(&self) -> Option<usize> {
        self.stop
    }

    /// The text that the last push or flush gave out.
    pub fn emitted(&self) -> &str {
        self.text.get(..self.given).and_then(|text| str::from_utf8(text).ok()).unwrap_or("")
    }

    /// Bytes that have come in and are held back.
    pub fn held_back(&self) -> usize {
        self.len.saturating_sub(self.given).saturating_add(self.tail_len)
    }

    /// What is held back, to go on with later: text, and the beginning of a character behind it.
    pub fn held(&self) -> (&[u8], &[u8]) {
        let text = self.text.get(self.given..self.len).unwrap_or(&[]);
        (text, self.tail.get(..self.tail_len).unwrap_or(&[]))
    }

    /// The stop strings, empty ones included.
    pub fn stop_strings(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.stop_count).map(|index| self.stop_at(index))
    }

    /// Goes on where another stream was, with what that held back; see [`StreamDecoder::held`]. Whether there is room for
    /// it; if not, nothing changes.
    pub fn resume(&mut self, text: &[u8], tail: &[u8], stop: Option<usize>) -> bool {
        let fits = text.len() <= self.limits.stop_bytes && tail.len() < self.tail.len();
        if !fits || str::from_utf8(text).is_err() {
            return false;
        }
        self.reset();
        self.append(text);
        self.tail.iter_mut().zip(tail).for_each(|(place, byte)| *place = *byte);
        (self.tail_len, self.stop) = (tail.len(), stop);
        true
    }

    /// Takes the bytes of a token. Bad bytes become U+FFFD as in [`String::from_utf8_lossy`].
    ///
    /// When one stop string ends where or before another does, it is the one that stops. Cost: bytes held back times the
    /// bytes of all stop strings.
    ///
    /// [`String::from_utf8_lossy`]: https://doc.rust-lang.org/std/string/struct.String.html#method.from_utf8_lossy
    ///
    /// # Errors
    /// [`TextError::StreamLimit`] for more bytes than planned; the stream is then unchanged.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Emitted<'_>, TextError> {
        let (limit, got) = (self.limits.push_bytes, bytes.len());
        if got > limit {
            return Err(TextError::StreamLimit { what: "bytes of a push", limit, got });
        }
        self.drop_given();
        if self.stop.is_some() {
            return Ok(self.emit(0));
        }
        let mut rest = bytes;
        // A begun character takes one byte after the other until it is whole or cannot become so.
        while self.tail_len > 0 {
            let Some((byte, behind)) = rest.split_first() else { break };
            if let Some(place) = self.tail.get_mut(self.tail_len) {
                *place = *byte;
            }
            let tail = self.tail;
            let joined = tail.get(..self.tail_len.saturating_add(1)).unwrap_or(&[]);
            match str::from_utf8(joined) {
                Ok(character) => {
                    self.append(character.as_bytes());
                    (self.tail_len, rest) = (0, behind);
                }
                Err(error) if error.error_len().is_none() => {
                    (self.tail_len, rest) = (self.tail_len.saturating_add(1), behind);
                }
                Err(_) => {
                    // The byte does not belong to the character, which is bad; it begins something of its own.
                    self.append(REPLACEMENT);
                    self.tail_len = 0;
                }
            }
        }
        self.append_lossy(rest);
        Ok(self.search())
    }

    /// Ends the stream: gives out what was held back, with U+FFFD for a character that is not whole.
    pub fn flush(&mut self) -> Emitted<'_> {
        self.drop_given();
        if self.stop.is_some() {
            return self.emit(0);
        }
        if self.tail_len > 0 {
            self.tail_len = 0;
            self.append(REPLACEMENT);
        }
        if self.search().stop.is_none() {
            self.given = self.len;
        }
        self.emit(self.given)
    }

    /// Removes what the last push gave out.
    fn drop_given(&mut self) {
        let given = self.given.min(self.len);
        let (front, len) = (self.text.get_mut(..self.len), self.len - given);
        if let Some(text) = front {
            text.rotate_left(given);
        }
        (self.len, self.given) = (len, 0);
    }

    fn emit(&mut self, given: usize) -> Emitted<'_> {
        self.given = given;
        Emitted { text: self.emitted(), stop: self.stop }
    }

    fn append(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.text.get_mut(self.len) {
                *place = *byte;
                self.len = self.len.saturating_add(1);
            }
        }
    }

    /// Appends text, and keeps the beginning of a character at its end.
    fn append_lossy(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.append(chunk.valid().as_bytes());
            let bad = chunk.invalid();
            let is_begun = chunks.peek().is_none()
                && str::from_utf8(bad).is_err_and(|error| error.error_len().is_none());
            if is_begun {
                self.tail.iter_mut().zip(bad).for_each(|(place, byte)| *place = *byte);
                self.tail_len = bad.len();
            } else if !bad.is_empty() {
                self.append(REPLACEMENT);
            }
        }
    }

    fn stop_at(&self, index: usize) -> &[u8] {
        let start = index.saturating_mul(self.limits.stop_bytes);
        let len = self.stop_lens.get(index).copied().unwrap_or(0) as usize;
        self.stops.get(start..).and_then(|stops| stops.get(..len)).unwrap_or(&[])
    }

    /// Looks for stop strings in what is held, and gives out what cannot become one any more.
    fn search(&mut self) -> Emitted<'_> {
        let text = self.text.get(..self.len).unwrap_or(&[]);
        let stops = || (0..self.stop_count).map(|index| (index, self.stop_at(index)));
        let stops = || stops().filter(|(_, stop)| !stop.is_empty());
        // The first to end stops, the longest of those that end together.
        let found = stops()
            .filter_map(|(index, stop)| {
                let start = (0..text.len())
                    .find(|from| text.get(*from..).is_some_and(|rest| rest.starts_with(stop)))?;
                Some((start.saturating_add(stop.len()), start, index))
            })
            .min();
        if let Some((_, start, index)) = found {
            (self.stop, self.tail_len) = (Some(index), 0);
            self.len = start;
            return self.emit(start);
        }
        let begins_stop = |from: &usize| {
            let end = text.get(*from..).unwrap_or(&[]);
            stops().any(|(_, stop)| stop.starts_with(end))
        };
        let longest = stops().map(|(_, stop)| stop.len()).max().unwrap_or(0);
        let first = self.len.saturating_sub(longest);
        let given = (first..self.len).find(begins_stop).unwrap_or(self.len);
        self.emit(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    fn stream(memory: &mut Vec<u8>, limits: StreamLimits) -> StreamDecoder<'_> {
        let mut plan = Plan::new();
        let slots = StreamDecoder::plan(limits, &mut plan).unwrap();
        *memory = vec![0u8; plan.bytes() + 64];
        let skip = memory.as_ptr().align_offset(64);
        let mut arena = Arena::new(&mut memory[skip..], &plan).unwrap();
        StreamDecoder::new(&mut arena, &slots).unwrap()
    }

    fn run(chunks: &[&[u8]], stops: &[&str]) -> (String, Option<usize>) {
        let push_bytes = chunks.iter().map(|chunk| chunk.len()).max().unwrap_or(0);
        let mut memory = Vec::new();
        let mut stream = stream(&mut memory, StreamLimits { push_bytes, stops: 4, stop_bytes: 8 });
        stream.set_stops(stops).unwrap();
        let mut text = String::new();
        for chunk in chunks {
            text.push_str(stream.push(chunk).unwrap().text);
        }
        text.push_str(stream.flush().text);
        assert_eq!(stream.held_back(), 0);
        (text, stream.stopped())
    }

    #[test]
    fn characters_come_out_whole() {
        let mut memory = Vec::new();
        let mut stream = stream(&mut memory, StreamLimits { push_bytes: 8, stops: 0, stop_bytes: 0 });
        assert_eq!(stream.push(b"a\xF0\x9F").unwrap(), Emitted { text: "a", stop: None });
        assert_eq!(stream.held_back(), 2);
        assert_eq!(stream.push(b"").unwrap().text, "");
        assert_eq!(stream.push(b"\x98").unwrap().text, "");
        assert_eq!(stream.push(b"\x80\xC3").unwrap().text, "😀");
        assert_eq!(stream.push(b"x\xFF").unwrap().text, "\u{FFFD}x\u{FFFD}");
        assert_eq!(stream.push(b"\xE2\x82").unwrap().text, "");
        assert_eq!(stream.flush().text, "\u{FFFD}");
        assert_eq!(stream.flush().text, "");
        let error = stream.push(&[b'a'; 9]).unwrap_err();
        assert_eq!(error, TextError::StreamLimit { what: "bytes of a push", limit: 8, got: 9 });
    }

    #[test]
    fn stop_strings_are_held_back_and_found_across_pushes() {
        let mut memory = Vec::new();
        let mut stream = stream(&mut memory, StreamLimits { push_bytes: 16, stops: 2, stop_bytes: 4 });
        stream.set_stops(&["\n\n", "END"]).unwrap();
        assert_eq!(stream.push(b"one\n").unwrap().text, "one");
        assert_eq!(stream.push(b"two E").unwrap().text, "\ntwo ");
        assert_eq!(stream.push(b"NNEN").unwrap().text, "ENN");
        assert_eq!(stream.push(b"D more").unwrap(), Emitted { text: "", stop: Some(1) });
        assert_eq!(stream.push(b"more").unwrap(), Emitted { text: "", stop: Some(1) });
        assert_eq!(stream.flush(), Emitted { text: "", stop: Some(1) });
        stream.reset();
        assert_eq!(stream.push(b"x\n\ny").unwrap(), Emitted { text: "x", stop: Some(0) });
        let error = stream.set_stops(&["a", "b", "c"]).unwrap_err();
        assert_eq!(error, TextError::StreamLimit { what: "stop strings", limit: 2, got: 3 });
        assert!(stream.set_stops(&["abcde"]).is_err());
    }

    #[test]
    fn memory_that_cannot_be_or_is_another_ones() {
        let (some, most) = (StreamLimits { push_bytes: 8, stops: 2, stop_bytes: 4 }, usize::MAX);
        for limits in [
            StreamLimits { push_bytes: most, ..some },
            StreamLimits { push_bytes: most / 3, ..some },
            StreamLimits { push_bytes: most / 4, ..some },
            StreamLimits { stop_bytes: most, ..some },
            StreamLimits { stops: most, ..some },
            StreamLimits { stops: most / 4, ..some },
            StreamLimits { stops: most / 2, stop_bytes: 0, ..some },
        ] {
            let refused = StreamDecoder::plan(limits, &mut Plan::new()).err();
            assert_eq!(refused, Some(MemError::Overflow), "{limits:?}");
        }
        let mut plan = Plan::new();
        let slots = StreamDecoder::plan(some, &mut plan).unwrap();
        for bytes in (0..plan.bytes()).step_by(64) {
            let mut short = Plan::new();
            short.array::<u8>(bytes).unwrap();
            let mut block = crate::mem::aligned::Block::zeroed(bytes).unwrap();
            let mut arena = Arena::new(block.bytes_mut(), &short).unwrap();
            let refused = StreamDecoder::new(&mut arena, &slots).err();
            assert_eq!(refused, Some(MemError::Overflow), "{bytes}");
        }
    }

    #[test]
    fn what_was_held_back_is_taken_up_or_refused() {
        let mut memory = Vec::new();
        let mut stream = stream(&mut memory, StreamLimits { push_bytes: 8, stops: 1, stop_bytes: 4 });
        stream.set_stops(&["stop"]).unwrap();
        assert_eq!(stream.push(b"a st\xF0").unwrap().text, "a ");
        for (text, tail) in [(&b"too l"[..], &b""[..]), (b"\xFF", b""), (b"st", b"\xF0\x9F\x98\x80")] {
            assert!(!stream.resume(text, tail, Some(0)));
            assert_eq!((stream.held(), stream.stopped()), ((&b"st"[..], &b"\xF0"[..]), None));
        }
        assert!(stream.resume(b"sto", b"\xC3", None));
        assert_eq!(stream.held(), (&b"sto"[..], &b"\xC3"[..]));
        assert_eq!(stream.push(b"\xA4p").unwrap().text, "stoäp");
    }

    #[test]
    fn the_first_stop_to_end_wins() {
        assert_eq!(run(&[b"abcdef"], &["bcdef", "cd"]), ("ab".into(), Some(1)));
        assert_eq!(run(&[b"abcdef"], &["d", "bcd", ""]), ("a".into(), Some(1)));
        assert_eq!(run(&[b"aab", b"aac"], &["aac"]), ("aab".into(), Some(0)));
        assert_eq!(run(&[b"a\xC3", b"\xA4b"], &["ä"]), ("a".into(), Some(0)));
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_matter(
            parts in proptest::collection::vec(proptest::collection::vec(prop_oneof![
                Just(b'a'), Just(b'b'), Just(0xC3), Just(0xA4), Just(0xF0), Just(0x9F), Just(0x98), Just(0x80), any::<u8>()
            ], 0..6), 0..12),
            stops in proptest::collection::vec("[abä😀]{0,2}", 0..4),
        ) {
            let stops: Vec<&str> = stops.iter().map(|stop| stop.as_str()).collect();
            let chunks: Vec<&[u8]> = parts.iter().map(|part| part.as_slice()).collect();
            let whole = parts.concat();
            let bytes: Vec<&[u8]> = whole.chunks(1).collect();
            let expected = run(&[&whole], &stops);
            prop_assert_eq!(&run(&chunks, &stops), &expected);
            prop_assert_eq!(&run(&bytes, &stops), &expected);
            if expected.1.is_none() {
                prop_assert_eq!(&expected.0, &String::from_utf8_lossy(&whole));
                prop_assert!(stops.iter().all(|stop| stop.is_empty() || !expected.0.contains(stop)));
            } else {
                prop_assert!(String::from_utf8_lossy(&whole).starts_with(&expected.0));
            }
        }
    }
}
