//! Attention: keys and values to the cache, then queries against it.
//!
//! What a column sees is cut into *parts*, chunks of at most [`ATTENTION_CHUNK`] positions. Each part of each KV head is
//! a job of its own, which leaves a partial result in a slot; the slots of a column are then merged in the order of the
//! parts. A pass of many columns over a long context has fewer slots than parts: it goes in rounds, slot 0 keeping what
//! was merged so far. Where there are many columns, a job takes several that see the same pages, so that what is read of
//! the cache serves all of them. None of this shows in the bits, because partials and their order depend on positions
//! alone.

use super::norm::{Inputs, Norm, Rounding};
use super::{Runner, column};
use crate::kernels::{
    ATTENTION_CHUNK, Attention, KV_BLOCK, Kernels, KvBlocks, KvTypes, RopePairs, Span, TOGETHER,
    attend_chunk, attention_finish, attention_partial, attention_scratch, queries_together, store_position,
};
use crate::mem::split::{Chunks, Tiles};
use crate::tensor::BLOCK;
use core::ops::Range;

/// Where heads stand in the columns of q, k and v, and how they are turned.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'w> {
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Values of a query and a key.
    pub dim_k: usize,
    /// Values of a value.
    pub dim_v: usize,
    /// Norms of queries and keys.
    pub qk_norm: Option<(Norm<'w>, Norm<'w>)>,
    /// Pairs, and `[columns][cos, sin]` with the rotated pairs of a head.
    pub rope: Option<(RopePairs, &'w [f32], usize)>,
    /// Cosines and sines of queries that meet what is kept, as in `rope`; empty where nothing is hidden.
    pub turned: &'w [f32],
    /// Position of each column.
    pub positions: &'w [u32],
}

impl Heads<'_> {
    /// Values of a column of q, k and v.
    pub fn stride(&self) -> usize {
        self.heads * self.dim_k + self.kv_heads * (self.dim_k + self.dim_v)
    }

    /// Query heads of a KV head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// Position of a column.
    fn position(&self, col: usize) -> usize {
        self.positions.get(col).map_or(0, |position| *position as usize)
    }

    /// How many columns of a pass over at most `batch` one job may attend with.
    pub fn together(&self, batch: usize) -> usize {
        queries_together(self.group()).clamp(1, batch.max(1))
    }

    /// Floats of scratch memory of a worker, in passes over at most `batch` columns.
    pub fn scratch(&self, batch: usize) -> usize {
        let heads = self.together(batch) * self.group();
        let queries = heads * (self.dim_k + attention_partial(self.dim_v));
        (queries + attention_scratch(heads)).max(self.dim_k)
    }

    /// Floats of a slot: the partials of all heads of one column and part.
    pub fn slot(&self) -> usize {
        self.heads * attention_partial(self.dim_v)
    }

    /// `out = rotate(norm(head))` for one head of one column; by the angles for what is kept, if it is `turned`.
    fn turn(
        &self,
        kernels: &Kernels,
        norm: Option<&Norm<'_>>,
        (col, turned): (usize, bool),
        head: &[f32],
        out: &mut [f32],
    ) {
        match norm {
            Some(norm) => norm.apply(kernels, head, out),
            None => out.iter_mut().zip(head).for_each(|(out, x)| *out = *x),
        }
        if let Some((pairs, table, half)) = self.rope {
            let table = if turned { self.turned } else { table };
            let angles = column(table, col, 2 * half);
            let (cos, sin) = angles.split_at(half.min(angles.len()));
            (kernels.rope)(pairs, out, cos, sin);
        }
    }
}

/// Norms, rotates and stores the keys, and stores the values, of some columns: a job a KV head. Behind the
/// cache, of so many pages, stands where the layer lies in each of them; `page` tells the page of a column.
pub fn store(
    run: Runner<'_>,
    heads: &Heads<'_>,
    columns: Range<usize>,
    qkv: &[f32],
    page: impl Fn(usize) -> u32 + Sync,
    types: KvTypes,
    (cache, pages, layer): (&mut [u8], usize, Range<usize>),
) {
    let kernels = run.kernels();
    let head_bytes = types.keys.key_bytes(heads.dim_k) + types.values.value_bytes(heads.dim_v);
    let stride = cache.len().checked_div(pages).unwrap_or(0);
    let tiles = Tiles::new(cache, stride, stride, head_bytes, pages).within(layer, 0..pages);
    let (width, q) = (heads.stride(), heads.heads * heads.dim_k);
    let norm = heads.qk_norm.as_ref().map(|(_, k)| k);
    run.run((tiles,), |head, (mut tile,), scratch| {
        let Some(turned) = scratch.get_mut(..heads.dim_k) else { return };
        for col in columns.clone() {
            let (qkv, position) = (column(qkv, col, width), heads.position(col));
            let k = qkv.get(q..).unwrap_or_default();
            let v = qkv.get(q + heads.kv_heads * heads.dim_k..).unwrap_or_default();
            let (k, v) = (column(k, head, heads.dim_k), column(v, head, heads.dim_v));
            if k.is_empty() || v.is_empty() {
                return;
            }
            heads.turn(kernels, norm, (col, false), k, turned);
            store_position(kernels, types, turned, v, position, tile.line(page(col) as usize));
        }
    });
}

/// Scores of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Scores {
    /// Their factor.
    pub scale: f32,
    /// Their soft cap; 0 for none.
    pub softcap: f32,
}

/// What a column sees of its sequence.
#[derive(Debug, Clone)]
pub struct Sight<'t> {
    /// Positions that are seen as they are.
    pub seen: Range<usize>,
    /// Their pages: of block `first_block` and those behind it.
    pub pages: &'t [u32],
    /// Block of the first page; `seen` begins in it or behind.
    pub first_block: usize,
    /// So many positions from 0 on are seen too, by the query as it is turned for them.
    pub sinks: usize,
    /// Their pages, from block 0 on.
    pub kept: &'t [u32],
}

impl<'t> Sight<'t> {
    /// Number of parts.
    pub fn parts(&self) -> usize {
        self.sinks.div_ceil(ATTENTION_CHUNK) + Span::chunks(&self.seen).len()
    }

    /// Part `index`: first the ones that are kept, then the others, positions ascending. Whether its query is turned, the
    /// pages, and the span of them.
    fn part(&self, index: usize) -> (bool, &'t [u32], Span) {
        let kept = self.sinks.div_ceil(ATTENTION_CHUNK);
        if index < kept {
            return (true, self.kept, Span::of_chunk(index, &(0..self.sinks)));
        }
        let chunk = Span::chunks(&self.seen).start + (index - kept);
        let (begin, end) = (chunk * ATTENTION_CHUNK, (chunk + 1) * ATTENTION_CHUNK);
        // The chunk's first blocks may be gone; what is seen of it is not.
        let block = self.first_block.max(begin / KV_BLOCK);
        let inside = |position: usize| position.max(begin).min(end).saturating_sub(block * KV_BLOCK);
        let seen = inside(self.seen.start)..inside(self.seen.end);
        (false, self.pages, Span { first_block: block - self.first_block, seen })
    }
}

/// How the parts of a pass share the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounds {
    /// Slots of a column.
    slots: usize,
    /// Rounds.
    rounds: usize,
    columns: usize,
    kv_heads: usize,
}

/// Some jobs of one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoundJobs {
    /// Parts of KV heads.
    Attend(usize, Range<usize>),
    /// Columns, whose slots are merged to make room.
    Merge(usize, Range<usize>),
}

impl Rounds {
    /// Slots that `columns` columns need at least, when one of them sees `parts` parts.
    pub fn slots(columns: usize, parts: usize) -> usize {
        columns.saturating_mul(parts.min(2)).max(parts)
    }

    /// For `columns` columns that see at most `parts` parts, with `slots` slots in all.
    pub fn new(columns: usize, kv_heads: usize, parts: usize, slots: usize) -> Self {
        let slots = (slots / columns.max(1)).min(parts).max(1);
        let rounds = 1 + parts.saturating_sub(slots).div_ceil(slots.saturating_sub(1).max(1));
        Self { slots, rounds, columns, kv_heads }
    }

    /// Jobs of a round that attend.
    fn attending(&self) -> usize {
        self.columns * self.slots * self.kv_heads
    }

    /// Number of units: the jobs of all rounds one after the other, but for the last merge, which is part of
    /// [`Attending::finish`].
    pub fn units(&self) -> usize {
        self.rounds * self.attending() + (self.rounds - 1) * self.columns
    }

    /// Calls `work` with the jobs of `units`, each time those that may run together.
    pub fn each(&self, units: Range<usize>, mut work: impl FnMut(RoundJobs)) {
        let (attending, mut unit) = (self.attending(), units.start);
        let period = (attending + self.columns).max(1);
        while unit < units.end {
            let (round, at) = (unit / period, unit % period);
            let end = |to: usize| to.min(at + units.end - unit);
            if at < attending {
                work(RoundJobs::Attend(round, at..end(attending)));
                unit += end(attending) - at;
            } else {
                work(RoundJobs::Merge(round, at - attending..end(period) - attending));
                unit += end(period) - at;
            }
        }
    }

    /// Jobs of a round, cut into single ones and those that attend with `together` columns each: ranges with the number
    /// of columns of a job, in which the jobs are then counted.
    pub fn cut(&self, jobs: Range<usize>, together: usize) -> [(Range<usize>, usize); 3] {
        let size = (together * self.slots * self.kv_heads).max(1);
        let (first, last) = (jobs.start.div_ceil(size), jobs.end / size);
        if together <= 1 || first >= last {
            return [(jobs, 1), (0..0, 1), (0..0, 1)];
        }
        let whole = first * self.kv_heads..last * self.kv_heads;
        [(jobs.start..first * size, 1), (whole, together), (last * size..jobs.end, 1)]
    }

    /// The part that a slot holds in a round; `None` for slot 0 when it holds what was merged.
    fn part(&self, round: usize, slot: usize) -> Option<usize> {
        match round {
            0 => Some(slot),
            _ => Some(self.slots + (round - 1) * (self.slots - 1) + slot.checked_sub(1)?),
        }
    }

    /// Merges the slots of a column in the order of their parts.
    fn merge(&self, kernels: &Kernels, dim_v: usize, round: usize, parts: usize, column: &mut [f32]) {
        let slot_len = column.len() / self.slots.max(1);
        let Some((running, rest)) = column.split_at_mut_checked(slot_len) else { return };
        for (slot, partial) in (1..).zip(rest.chunks_exact(slot_len.max(1))) {
            if self.part(round, slot).is_some_and(|part| part < parts) {
                for (running, partial) in running
                    .chunks_exact_mut(attention_partial(dim_v))
                    .zip(partial.chunks_exact(attention_partial(dim_v)))
                {
                    (kernels.attention_merge)(dim_v, running, partial);
                }
            }
        }
    }
}

/// What the jobs of attention have in common.
#[derive(Clone, Copy)]
pub struct Attending<'x> {
    /// Heads.
    pub heads: &'x Heads<'x>,
    /// Scores.
    pub scores: &'x Scores,
    /// `[columns][Heads::stride]`.
    pub qkv: &'x [f32],
    /// The column there that is column 0 here.
    pub from: usize,
    /// The blocks of a KV head, by the pages that hold them.
    pub cache: &'x (dyn Fn(usize, &'x [u32]) -> KvBlocks<'x> + Sync),
    /// What a column sees.
    pub sight: &'x (dyn Fn(usize) -> Sight<'x> + Sync),
    /// How parts share slots.
    pub rounds: Rounds,
}

impl Attending<'_> {
    /// Some jobs of a round, of `together` columns each, to `slots: [columns][slots][Heads::slot]`. Job
    /// `(column * slots + slot) * kv_heads + kv head` of one column leaves the partials of its group of query heads; jobs
    /// of several columns are `columns / together * kv_heads + kv head`, and take all slots.
    pub fn attend(&self, run: Runner<'_>, round: usize, together: usize, slots: &mut [f32]) {
        let (heads, kernels) = (self.heads, run.kernels());
        let width = heads.slot();
        let partial = heads.group() * attention_partial(heads.dim_v);
        let lines = if together > 1 { together * self.rounds.slots } else { 1 };
        run.run((Tiles::new(slots, width, width, partial, lines),), |job, (mut tile,), scratch| {
            let head = job % heads.kv_heads.max(1);
            let slots = self.rounds.slots.max(1);
            let (from, first) = (tile.first_line() % slots, tile.first_line() / slots);
            let columns = first..first + tile.lines().div_ceil(slots);
            for slot in from..slots.min(from + tile.lines()) {
                let mut column = columns.start;
                while column < columns.end {
                    let out = |column: usize, partial: &[f32]| {
                        let line = tile.line((column - first) * slots + slot - from);
                        line.iter_mut().zip(partial).for_each(|(line, value)| *line = *value);
                    };
                    let left = column..columns.end;
                    column += self.attend_part(kernels, (round, slot, head), left, scratch, out).max(1);
                }
            }
        });
    }

    /// One part of one KV head for the first of some columns, and for those behind it that see the same pages. Gives
    /// each column's partials to `out`, and returns the number of columns.
    fn attend_part(
        &self,
        kernels: &Kernels,
        (round, slot, head): (usize, usize, usize),
        columns: Range<usize>,
        scratch: &mut [f32],
        mut out: impl FnMut(usize, &[f32]),
    ) -> usize {
        let heads = self.heads;
        let (queries, partial) =
            (heads.group() * heads.dim_k, heads.group() * attention_partial(heads.dim_v));
        let most = columns.len().min(TOGETHER);
        let Some((q, scratch)) = scratch.split_at_mut_checked(most * queries) else { return most };
        let Some((partials, scratch)) = scratch.split_at_mut_checked(most * partial) else { return most };
        let mut spans = [const { Span { first_block: 0, seen: 0..0 } }; TOGETHER];
        let (mut count, mut shared) = (0, None);
        for (column, q) in columns.clone().zip(q.chunks_exact_mut(queries.max(1))) {
            let sight = (self.sight)(column);
            let part = self.rounds.part(round, slot).filter(|part| *part < sight.parts());
            let Some((turned, pages, span)) = part.map(|part| sight.part(part)) else { break };
            let view = (turned, span.first_block, pages);
            if *shared.get_or_insert(view) != view {
                break;
            }
            self.queries(kernels, head, (self.from + column, turned), q);
            if let Some(place) = spans.get_mut(count) {
                *place = span;
            }
            count += 1;
        }
        let Some((_, _, pages)) = shared else { return 1 };
        let Scores { scale, softcap } = *self.scores;
        let args = Attention { kv: (self.cache)(head, pages), scale, softcap };
        let (q, spans) = (q.get_mut(..count * queries), spans.get_mut(..count));
        let (q, spans) = (q.unwrap_or_default(), spans.unwrap_or_default());
        attend_chunk(kernels, &args, q, spans, partials, scratch);
        for (column, partial) in columns.zip(partials.chunks_exact(partial.max(1))).take(count) {
            out(column, partial);
        }
        count
    }

    /// The query heads of a KV head of one column, normed and rotated.
    fn queries(&self, kernels: &Kernels, head: usize, (column, turned): (usize, bool), q: &mut [f32]) {
        let heads = self.heads;
        let norm = heads.qk_norm.as_ref().map(|(q, _)| q);
        let source = super::column(super::column(self.qkv, column, heads.stride()), head, q.len());
        let dim_k = heads.dim_k.max(1);
        for (from, to) in source.chunks_exact(dim_k).zip(q.chunks_exact_mut(dim_k)) {
            heads.turn(kernels, norm, (column, turned), from, to);
        }
    }

    /// Merges the slots of some columns between two rounds. A job is a column.
    pub fn merge(&self, run: Runner<'_>, round: usize, slots: &mut [f32]) {
        let kernels = run.kernels();
        let len = self.rounds.slots * self.heads.slot();
        run.run((Chunks::new(slots, len),), |col, (slots,), _| {
            self.rounds.merge(kernels, self.heads.dim_v, round, (self.sight)(col).parts(), slots);
        });
    }

    /// Merges what the last round left, divides, and rounds the result:
    /// `values: [columns][heads * dim_v]`. A job is a column.
    pub fn finish(&self, run: Runner<'_>, rounding: Rounding, slots: &mut [f32], inputs: &mut Inputs<'_>) {
        let (heads, kernels, last) = (self.heads, run.kernels(), self.rounds.rounds - 1);
        let width = heads.heads * heads.dim_v;
        let parts = (
            Chunks::new(slots, self.rounds.slots * heads.slot()),
            Chunks::new(inputs.values, width),
            Chunks::new(inputs.blocks, width / BLOCK),
            Chunks::new(inputs.rests, rounding.rests(width)),
        );
        run.run(parts, |col, (slots, values, blocks, rests), _| {
            self.rounds.merge(kernels, heads.dim_v, last, (self.sight)(col).parts(), slots);
            attention_finish(heads.dim_v, slots.get(..heads.slot()).unwrap_or_default(), values);
            rounding.round(kernels, col, values, blocks, rests);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    fn sight(seen: Range<usize>, pages: &[u32], first_block: usize, sinks: usize) -> Sight<'_> {
        Sight { seen, pages, first_block, sinks, kept: &[7] }
    }

    #[test]
    fn parts_cover_what_is_seen_in_order() {
        let pages: Vec<u32> = (0..200).collect();
        for (seen, first_block) in [(0..1, 0), (0..700, 0), (300..1000, 0), (300..1000, 18), (517..769, 32)] {
            for sinks in [0, 4] {
                let sight = sight(seen.clone(), &pages, first_block, sinks);
                let mut positions = Vec::new();
                for part in 0..sight.parts() {
                    let (turned, pages, span) = sight.part(part);
                    assert_eq!(turned, part == 0 && sinks > 0);
                    if turned {
                        assert_eq!((pages, span), (&[7][..], Span { first_block: 0, seen: 0..sinks }));
                        continue;
                    }
                    assert!(span.seen.end <= ATTENTION_CHUNK);
                    let base = (span.first_block + first_block) * KV_BLOCK;
                    positions.extend(span.seen.map(|position| base + position));
                }
                assert!(positions.iter().copied().eq(seen.clone()), "{seen:?} from block {first_block}");
            }
        }
    }

    #[test]
    fn cut_jobs_are_the_same_jobs() {
        let heads = 3;
        for (columns, slots, together) in [(9, 3, 2), (8, 1, 4), (3, 2, 8), (5, 2, 1)] {
            let rounds = Rounds::new(columns, heads, 9, columns * slots);
            for start in 0..rounds.attending() {
                for end in start..=rounds.attending() {
                    let mut done = Vec::new();
                    for (jobs, columns) in rounds.cut(start..end, together) {
                        // A job of several columns takes all slots of its head.
                        for job in jobs {
                            if columns == 1 {
                                done.push(job);
                                continue;
                            }
                            let line = job / heads * columns * rounds.slots;
                            let lines = line..line + columns * rounds.slots;
                            done.extend(lines.map(|line| line * heads + job % heads));
                        }
                    }
                    done.sort_unstable();
                    assert!(done.into_iter().eq(start..end), "{start}..{end} by {together}");
                }
            }
        }
    }

    #[test]
    fn rounds_take_every_part_once() {
        for (columns, parts, slots) in [(1, 1, 1), (3, 2, 6), (1, 9, 9), (4, 9, 8), (4, 9, 20), (2, 5, 7)] {
            let rounds = Rounds::new(columns, 2, parts, slots);
            assert!(rounds.slots * columns <= slots.max(Rounds::slots(columns, parts)));
            for step in [1, 2, 5, 1000] {
                let (mut taken, mut merged, mut unit) = (Vec::new(), Vec::new(), 0);
                while unit < rounds.units() {
                    let end = (unit + step).min(rounds.units());
                    rounds.each(unit..end, |jobs| match jobs {
                        RoundJobs::Attend(round, jobs) => taken.extend(jobs.map(|job| (round, job))),
                        RoundJobs::Merge(round, columns) => merged.extend(columns.map(|c| (round, c))),
                    });
                    unit = end;
                }
                let part = |(round, job): (usize, usize)| {
                    let line = job / 2;
                    let part = rounds.part(round, line % rounds.slots);
                    part.filter(|part| *part < parts).map(|part| (line / rounds.slots, part, job % 2))
                };
                let mut got: Vec<_> = taken.iter().copied().filter_map(part).collect();
                got.sort_unstable();
                let all = (0..columns).flat_map(|c| (0..parts).flat_map(move |p| [(c, p, 0), (c, p, 1)]));
                assert!(got.into_iter().eq(all), "{rounds:?} in steps of {step}");
                let merges = (0..rounds.rounds - 1).flat_map(|round| (0..columns).map(move |c| (round, c)));
                assert!(merged.into_iter().eq(merges));
            }
        }
    }
}
