//! Saved states: one sequence, or all of a session, as bytes that mean the same on every machine.
//!
//! # Format, version 1
//! All numbers are little-endian; `n x T` stands for n numbers one after the other.
//!
//! ```text
//! magic "LOCUTORS", version u32, kind u32 (0 a sequence, 1 a session), length of the whole state u64
//! model u64: digest of the metadata and the tensor directory of its file
//! types u32 keys, u32 values; 5 x u32 bits of the rounded activations, 0 for 8 and 16 mixed (qkv, attention output, MLP in, MLP out, head)
//! window u32 of the layers with pages of their own, 0 for none
//! policy u32 (0 stop, 1 shift, 2 slide), its context u64 (0 for stop), its tokens to keep u64
//! sequences u32, pages u32 of all layers, pages u32 of the layers that see a window, sampler u32 (0 or 1)
//! sampler: temperature f32, top_k u32, top_p f32, min_p f32, three penalties f32, penalty_last_n u32, seed u64, rng u64
//! every sequence:
//!     index u32, generation u32 (0 of a sequence alone), flags u32 (1 open, 2 selected, 4 flushed, 8 ignores the end);
//!     the rest if open:
//!     forgotten u64, most u64, tokens u64, computed u64, left u64 (all ones: no limit)
//!     finish u32 (0 none, 1 end of text, 2 stop string, 3 enough tokens), its token u32
//!     text held back: bytes u32, bytes; begun character: bytes u32, bytes; stop string reached u32 (all ones: none)
//!     stop strings u32, each: bytes u32, bytes
//!     tokens x u32
//!     for all layers, and for those that see a window: blocks forgotten u32, blocks u32, blocks x u32 page
//! every page of all layers, then every page of those that see a window: positions u32; unless 0 their image
//! digest of everything before u64
//! ```
//!
//! Pages are numbered in the order in which the tables name them first. A state holds no logits and no pass under way:
//! the last token is computed once more when its logits are asked for, to the same bits.

mod read;
mod write;

use super::policy::{ContextPolicy, SLACK};
use super::{Error, Session};
use crate::kernels::{KV_BLOCK, KvType};
use crate::kv::Pages;
use crate::sample::Sampler;
use crate::tensor::Precision;
use write::Output;

/// What is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// The selected sequence.
    Sequence,
    /// All sequences, with what they share, and their ids.
    Session,
}

/// The first bytes of a state.
const MAGIC: &[u8; 8] = b"LOCUTORS";
const VERSION: u32 = 1;
/// Bytes of the digest at the end.
const TRAILER: usize = 8;
/// Stands for "none" in numbers of 32 bits.
const NONE: u32 = u32::MAX;

const OPEN: u32 = 1;
const SELECTED: u32 = 2;
const FLUSHED: u32 = 4;
const IGNORES_END: u32 = 8;

/// What a state is bound to: with anything else it would mean something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Binding {
    model: u64,
    types: [u32; 2],
    bits: [u32; 5],
    window: u32,
    policy: (u32, u64, u64),
}

/// Where the part of a sequence that a state holds begins.
struct Held {
    /// Tokens, behind those that are kept, that the session still has and the state leaves out.
    tokens: usize,
    /// Blocks of each kind, behind those that are kept, likewise.
    blocks: [usize; 2],
    /// Blocks of each kind that the state holds.
    len: [usize; 2],
}

fn type_number(kind: KvType) -> u32 {
    match kind {
        KvType::F16 => 0,
        KvType::F32 => 1,
        KvType::Q8_0 => 2,
        KvType::I16 => 3,
    }
}

impl Session<'_> {
    /// Bytes of a state that is saved now.
    pub fn save_size(&mut self, what: Saved, sampler: Option<&Sampler<'_>>) -> usize {
        let mut output = Output::counting();
        self.write(what, sampler, &mut output);
        output.len()
    }

    /// Saves a sequence or everything, and the sampler with its random numbers if one is given, to the first bytes of
    /// `out`. Returns how many. Goes on as before: nothing of the session changes, a pass under way included.
    ///
    /// # Errors
    /// [`Error::StateSize`] when `out` is too small; it is then unchanged.
    pub fn save(
        &mut self,
        what: Saved,
        sampler: Option<&Sampler<'_>>,
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let (needed, got) = (self.save_size(what, sampler), out.len());
        let out = out.get_mut(..needed).ok_or(Error::StateSize { needed, got })?;
        let mut output = Output::to(out);
        self.write(what, sampler, &mut output);
        Ok(output.len())
    }

    /// A number for everything that later results can depend on: tokens, text, limits and stop strings of every
    /// sequence. Not for what was computed of them so far, which any call may bring further, nor for their pages.
    pub fn state_hash(&self) -> u64 {
        let mut output = Output::counting();
        for index in 0..self.memory.states.len() {
            let state = self.memory.states.at(index);
            self.write_flags(index, self.name(index), &mut output);
            output.u64(state.len(&self.policy) as u64);
            output.u64(state.high as u64);
            self.write_text(index, &mut output);
            let kept = state.tokens.get(..self.policy.keep.min(state.fed)).unwrap_or_default();
            output.u32s(kept.iter().chain(state.seen(&self.policy)).copied());
        }
        output.digest()
    }

    fn binding(&self) -> Binding {
        let types = self.limits.kv;
        let precisions = self.limits.precisions;
        let bits = [
            precisions.qkv,
            precisions.attention_output,
            precisions.mlp_input,
            precisions.mlp_output,
            precisions.head,
        ];
        let bits = bits.map(|precision| match precision {
            Precision::Bits8 => 8,
            Precision::Mixed => 0,
            Precision::Bits16 => 16,
        });
        let context = self.policy.context() as u64;
        let policy = match self.policy.kind() {
            ContextPolicy::Stop => (0, 0, 0),
            ContextPolicy::Shift { .. } => (1, context, self.policy.keep as u64),
            ContextPolicy::Slide { sinks } => (2, context, sinks as u64),
        };
        Binding {
            model: self.model.header().digest(),
            types: [type_number(types.keys), type_number(types.values)],
            bits,
            window: self.window.map_or(0, |window| window as u32),
            policy,
        }
    }

    /// What a state holds of a sequence: what the policy could have forgotten is left out, so that equal histories have
    /// equal states whatever their batches were.
    fn held(&self, index: usize) -> Held {
        let (policy, state) = (&self.policy, self.memory.states.at(index));
        let place = |token| state.place(token, policy);
        let [all, windowed] = self.memory.pages.each_ref().map(|pages| pages.table(index));
        // A sequence that forgets has pages for what is computed alone; others for all their tokens.
        let end = if policy.forgets() { place(state.stored()) } else { state.fed };
        let waits = state.fed > state.stored();
        let behind = policy.held_from(end, waits).saturating_sub(policy.keep) / KV_BLOCK;
        let skipped = if policy.begins_anew() { 0 } else { behind.saturating_sub(all.base) };
        let window = self.window.unwrap_or(usize::MAX);
        let first = place(state.stored()).saturating_sub(window.saturating_add(SLACK)) / KV_BLOCK;
        let skipped_window = first.saturating_sub(windowed.base);
        let blocks = |end: usize, base: usize| end.div_ceil(KV_BLOCK).saturating_sub(base);
        Held {
            tokens: skipped * KV_BLOCK,
            blocks: [skipped, skipped_window],
            len: [
                blocks(end, all.base + skipped),
                if self.window.is_some() {
                    blocks(place(state.stored()), windowed.base + skipped_window)
                } else {
                    0
                },
            ],
        }
    }

    /// How many positions of a page of a sequence hold something: those of block `block` of its tables.
    fn valid(&self, index: usize, block: usize) -> usize {
        let state = self.memory.states.at(index);
        state.place(state.stored(), &self.policy).saturating_sub(block * KV_BLOCK).min(KV_BLOCK)
    }
}

/// Calls `each(block, page)` for the blocks of one kind that a state holds, in the order of the table.
fn for_each_block(
    pages: &Pages<'_>,
    sequence: usize,
    skipped: usize,
    len: usize,
    mut each: impl FnMut(usize, u32),
) {
    let table = pages.table(sequence);
    for place in 0..len {
        let block = if place < table.keep { place } else { place + table.base + skipped };
        each(block, table.page(block));
    }
}
