//! Writing a state.

use super::{FLUSHED, IGNORES_END, MAGIC, NONE, OPEN, SELECTED, Saved, TRAILER, VERSION, for_each_block};
use crate::mem::Digest;
use crate::sample::Sampler;
use crate::session::{Finish, Session};

/// Bytes on their way to memory, or only counted; digested in either case.
pub(super) struct Output<'o> {
    out: &'o mut [u8],
    len: usize,
    digest: Digest,
}

impl<'o> Output<'o> {
    /// Counts and digests.
    pub(super) fn counting() -> Self {
        Self::to(&mut [])
    }

    /// Writes as much as `out` has room for.
    pub(super) fn to(out: &'o mut [u8]) -> Self {
        Self { out, len: 0, digest: Digest::new() }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Digest of the bytes so far.
    pub(super) fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// Called from everywhere: one copy of it is enough.
    #[inline(never)]
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let place = self.out.get_mut(self.len..).unwrap_or_default();
        place.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        self.digest.add(bytes);
        self.len += bytes.len();
    }

    pub(super) fn u32(&mut self, number: u32) {
        self.bytes(&number.to_le_bytes());
    }

    pub(super) fn u64(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    pub(super) fn u32s(&mut self, numbers: impl Iterator<Item = u32>) {
        numbers.for_each(|number| self.u32(number));
    }

    /// Bytes with their number in front.
    fn counted(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.bytes(bytes);
    }
}

impl Session<'_> {
    /// Writes a whole state.
    pub(super) fn write(&mut self, what: Saved, sampler: Option<&Sampler<'_>>, output: &mut Output<'_>) {
        let sequences = match what {
            Saved::Sequence => self.selected..self.selected + 1,
            Saved::Session => 0..self.memory.states.len(),
        };
        let pages = [0, 1].map(|kind| self.number_pages(kind, sequences.clone()));
        let mut images = [0; 2];
        for (kind, image) in images.iter_mut().enumerate() {
            *image = self.images(kind, sequences.clone(), &mut |_: &[u8]| ());
        }
        let total = self.directory(what, sampler, pages, 0) + images[0] + images[1] + TRAILER;
        self.write_directory(what, sampler, pages, total as u64, output);
        for kind in [0, 1] {
            self.images(kind, sequences.clone(), &mut |bytes: &[u8]| output.bytes(bytes));
        }
        output.u64(output.digest());
    }

    /// Bytes of everything before the images.
    fn directory(&self, what: Saved, sampler: Option<&Sampler<'_>>, pages: [u32; 2], total: u64) -> usize {
        let mut output = Output::counting();
        self.write_directory(what, sampler, pages, total, &mut output);
        output.len()
    }

    fn write_directory(
        &self,
        what: Saved,
        sampler: Option<&Sampler<'_>>,
        pages: [u32; 2],
        total: u64,
        output: &mut Output<'_>,
    ) {
        output.bytes(MAGIC);
        output.u32s([VERSION, u32::from(what == Saved::Session)].into_iter());
        output.u64(total);
        let binding = self.binding();
        output.u64(binding.model);
        output.u32s(binding.types.into_iter().chain(binding.bits).chain([binding.window]));
        let (policy, context, keep) = binding.policy;
        output.u32(policy);
        output.u64(context);
        output.u64(keep);
        let sequences = match what {
            Saved::Sequence => self.selected..self.selected + 1,
            Saved::Session => 0..self.memory.states.len(),
        };
        let counts = [sequences.len() as u32, pages[0], pages[1], u32::from(sampler.is_some())];
        output.u32s(counts.into_iter());
        if let Some(sampler) = sampler {
            write_sampler(sampler, output);
        }
        for index in sequences {
            // A sequence alone is the same in whatever place it was.
            let name = if what == Saved::Session { self.name(index) } else { [0, 0] };
            self.write_flags(index, name, output);
            if self.memory.states.at(index).open {
                self.write_tokens(index, output);
            }
        }
    }

    /// What stays the name of a sequence: its place and its generation.
    pub(super) fn name(&self, index: usize) -> [u32; 2] {
        [index as u32, self.memory.states.at(index).generation]
    }

    /// A sequence's name, and what it is set to.
    pub(super) fn write_flags(&self, index: usize, name: [u32; 2], output: &mut Output<'_>) {
        let state = self.memory.states.at(index);
        let flags = [
            (state.open, OPEN),
            (index == self.selected, SELECTED),
            (state.text.flushed, FLUSHED),
            (state.text.ignore_end, IGNORES_END),
        ];
        let flags = flags.iter().map(|(is_set, flag)| if *is_set { *flag } else { 0 }).sum();
        output.u32s(name.into_iter().chain([flags]));
    }

    /// An open sequence behind its flags.
    fn write_tokens(&self, index: usize, output: &mut Output<'_>) {
        let (state, held) = (self.memory.states.at(index), self.held(index));
        let (forgotten, tokens) = (state.dropped + held.tokens, state.fed - held.tokens);
        let numbers = [forgotten, state.high, tokens, state.stored() - held.tokens];
        numbers.iter().for_each(|number| output.u64(*number as u64));
        self.write_text(index, output);
        let keep = self.policy.keep.min(state.fed);
        let (kept, rest) = state.tokens.split_at_checked(keep).unwrap_or_default();
        let rest = rest.get(held.tokens..state.fed - keep).unwrap_or_default();
        output.u32s(kept.iter().chain(rest).copied());
        for (kind, pages) in self.memory.pages.iter().enumerate() {
            let (skipped, len) = (held.blocks[kind], held.len[kind]);
            output.u32s([(pages.table(index).base + skipped) as u32, len as u32].into_iter());
            for_each_block(pages, index, skipped, len, |_, page| {
                output.u32(pages.numbered(page).map_or(NONE, |(number, _)| number));
            });
        }
    }

    /// Where the text of a sequence is.
    pub(super) fn write_text(&self, index: usize, output: &mut Output<'_>) {
        let text = &self.memory.states.at(index).text;
        output.u64(text.left.map_or(u64::MAX, |left| left as u64));
        let finish = match text.finish {
            None => [0, 0],
            Some(Finish::EndOfText(token)) => [1, token],
            Some(Finish::Stop) => [2, 0],
            Some(Finish::MaxTokens) => [3, 0],
        };
        output.u32s(finish.into_iter());
        let (held, tail) = text.stream.held();
        output.counted(held);
        output.counted(tail);
        output.u32(text.stream.stopped().map_or(NONE, |stop| stop as u32));
        output.u32(text.stream.stop_strings().count() as u32);
        text.stream.stop_strings().for_each(|stop| output.counted(stop));
    }

    /// Numbers the pages of one kind in the order of the tables; returns how many there are.
    fn number_pages(&mut self, kind: usize, sequences: core::ops::Range<usize>) -> u32 {
        let mut next = 0;
        if let Some(pages) = self.memory.pages.get_mut(kind) {
            pages.clear_numbers();
        }
        for index in sequences.filter(|index| self.memory.states.at(*index).open) {
            let held = self.held(index);
            for place in 0..held.len[kind] {
                let Some(pages) = self.memory.pages.get(kind) else { break };
                let table = pages.table(index);
                let block = if place < table.keep { place } else { place + table.base + held.blocks[kind] };
                let (page, valid) = (table.page(block), self.valid(index, block));
                if let Some(pages) = self.memory.pages.get_mut(kind) {
                    pages.number(page, valid, &mut next);
                }
            }
        }
        next
    }

    /// Gives the numbered pages of one kind to `put`, and returns their bytes.
    fn images(&self, kind: usize, sequences: core::ops::Range<usize>, put: &mut dyn FnMut(&[u8])) -> usize {
        let (Some(pages), Some(cache)) = (self.memory.pages.get(kind), self.memory.run.kv.get(kind)) else {
            return 0;
        };
        let (mut next, mut bytes) = (0, 0);
        for index in sequences.filter(|index| self.memory.states.at(*index).open) {
            let held = self.held(index);
            for_each_block(pages, index, held.blocks[kind], held.len[kind], |_, page| {
                let Some((number, valid)) = pages.numbered(page) else { return };
                if number != next {
                    return;
                }
                next += 1;
                put(&(valid as u32).to_le_bytes());
                bytes += 4;
                if valid > 0 {
                    cache.page_image(page, valid, &mut *put);
                    bytes += cache.shape().image();
                }
            });
        }
        bytes
    }
}

fn write_sampler(sampler: &Sampler<'_>, output: &mut Output<'_>) {
    let params = sampler.params();
    let penalties = [params.repeat_penalty, params.frequency_penalty, params.presence_penalty];
    let floats = [params.top_p, params.min_p].into_iter().chain(penalties);
    output.u32(params.temperature.to_bits());
    output.u32(params.top_k);
    output.u32s(floats.map(f32::to_bits));
    output.u32(params.penalty_last_n);
    output.u64(params.seed);
    output.u64(sampler.rng().state());
}
