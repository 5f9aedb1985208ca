//! The steps of attention over one chunk of positions.
//!
//! Per query head: `score[p] = sum_d(q[d] k[d][p]) * scale`, one sum a position with `d` ascending; the cap;
//! `m = max(score)`; `e[p] = exp(score[p] - m)`; `l = sum(e)` in the 16 lanes `p % 16` and by the tree;
//! `acc[d] = sum_p(e[p] v[p][d])`, one sum a value with `p` ascending. Chunks are merged in order (Milakov and
//! Gimelshein 2018): `n = max(m, mc)`, `acc = acc exp(m - n) + acc_c exp(mc - n)`, `l` likewise. The result is
//! `acc / l`. Where 32 numbers of a position share a scale, the sum over their `q[d] k[d][p]` is multiplied with it
//! and added to the score's, and the weight of their `v[p][d]` is `e[p] * scale`.
//!
//! Positions that are not seen contribute nothing, so what their part of the cache holds does not matter. A result is
//! NaN when a score or value is, or when no score is above -inf. No step depends on how queries are grouped or batched.

use super::super::{ATTENTION_CHUNK, ChunkScores, KV_BLOCK, KvBlocks, Span, attention_partial};
use super::cache::Stored;
use super::lanes::{LANES, Lanes, larger, maximum, tree};
use crate::math::{exp, tanh};
use core::hint::black_box;
use core::ops::Range;

const _: () = assert!(ATTENTION_CHUNK.is_multiple_of(KV_BLOCK));

/// How many of the heads that are left share the loads from the cache: as many as have sums in registers, `sums` at
/// most, in pairs where there are many. Without registers of 16 lanes four or one do, as each number more is code more.
#[inline(always)]
fn together(left: usize, sums: usize) -> usize {
    match left {
        4.. if sums == 1 => 4,
        _ if sums == 1 => 1,
        8.. if sums >= 16 && left != 9 => 8,
        6 | 9 if sums >= 16 => 6,
        5..8 => left.div_ceil(2),
        _ => left.min(4),
    }
}

/// Whether [`together`] ever gives `n`: else its code is not to be compiled.
const fn asked(n: usize, sums: usize) -> bool {
    match sums {
        1 => n == 1 || n == 4,
        _ => n <= 4 || sums >= 16,
    }
}

/// Head `head` of `heads` belongs to this span.
#[inline(always)]
fn span_of(spans: &[Span], head: usize, heads: usize) -> Option<&Span> {
    spans.get(head / (heads / spans.len().max(1)).max(1))
}

/// Scores of a chunk; see [`super::super::Kernels::attention_scores`].
#[inline(always)]
pub(in crate::kernels) fn scores<L: Lanes, T: Stored>(
    lanes: L,
    q: &mut [f32],
    kv: &KvBlocks<'_>,
    spans: &[Span],
    scale: f32,
    scores: &mut [ChunkScores],
) {
    let Some(heads) = q.len().checked_div(kv.dim_k) else { return };
    let heads = heads.min(scores.len());
    T::round_query(q);
    let Some(first_block) = spans.first().map(|span| span.first_block) else { return };
    let chunk = Chunk { kv, first_block, blocks: Span::all_blocks(spans) };
    let mut head = 0;
    while head < heads {
        let q = q.get(head * kv.dim_k..).unwrap_or_default();
        let scores = scores.get_mut(head..).unwrap_or_default();
        let together = together(heads - head, L::SUMS);
        match together {
            8 => scores_of_heads::<L, T, 8>(lanes, q, &chunk, scale, scores),
            6 => scores_of_heads::<L, T, 6>(lanes, q, &chunk, scale, scores),
            4 => scores_of_heads::<L, T, 4>(lanes, q, &chunk, scale, scores),
            3 => scores_of_heads::<L, T, 3>(lanes, q, &chunk, scale, scores),
            2 => scores_of_heads::<L, T, 2>(lanes, q, &chunk, scale, scores),
            _ => scores_of_heads::<L, T, 1>(lanes, q, &chunk, scale, scores),
        }
        head += together;
    }
}

/// The blocks of a chunk that some queries look at.
struct Chunk<'x> {
    kv: &'x KvBlocks<'x>,
    first_block: usize,
    /// Counted from the chunk's first.
    blocks: Range<usize>,
}

/// Scores of the first `N` heads.
#[inline(always)]
fn scores_of_heads<L: Lanes, T: Stored, const N: usize>(
    lanes: L,
    q: &[f32],
    chunk: &Chunk<'_>,
    scale: f32,
    scores: &mut [ChunkScores],
) {
    if !asked(N, L::SUMS) {
        return;
    }
    let Some(scores) = scores.first_chunk_mut::<N>() else { return };
    let mut rows: [&[f32]; N] = [&[]; N];
    for (row, q) in rows.iter_mut().zip(q.chunks_exact(chunk.kv.dim_k)) {
        *row = q;
    }
    let mut blocks = chunk.blocks.clone();
    // Several blocks at once, as far as their sums fit the registers, then those that are left.
    if L::SUMS / N >= 4 {
        scores_of_blocks::<L, T, N, 4>(lanes, &rows, chunk, scale, scores, &mut blocks);
    }
    if L::SUMS / N >= 2 {
        scores_of_blocks::<L, T, N, 2>(lanes, &rows, chunk, scale, scores, &mut blocks);
    }
    scores_of_blocks::<L, T, N, 1>(lanes, &rows, chunk, scale, scores, &mut blocks);
}

/// Takes `B` blocks at a time, as often as `blocks` has so many, up to some of which one is not whole.
#[inline(always)]
fn scores_of_blocks<L: Lanes, T: Stored, const N: usize, const B: usize>(
    lanes: L,
    rows: &[&[f32]; N],
    chunk: &Chunk<'_>,
    scale: f32,
    scores: &mut [ChunkScores; N],
    blocks: &mut Range<usize>,
) {
    let kv = chunk.kv;
    let first = chunk.first_block.saturating_add(chunk.blocks.start);
    while blocks.len() >= B {
        let (mut keys, mut ahead): ([&[u8]; B], _) = ([&[]; B], [core::ptr::null(); B]);
        for b in 0..B {
            let block = chunk.first_block.saturating_add(blocks.start + b);
            keys[b] = kv.keys(block);
            // Behind the last keys come the first values.
            let later = blocks.start + B < blocks.end;
            let next =
                if later { kv.keys(block.saturating_add(B)) } else { kv.values(first.saturating_add(b)) };
            ahead[b] = next.as_ptr();
        }
        if B > 1 && keys.iter().any(|block| block.len() != keys[0].len()) {
            return;
        }
        let sums = T::score(lanes, rows, &keys, &ahead);
        for (scores, sums) in scores.iter_mut().zip(sums) {
            let lines = scores.as_chunks_mut::<LANES>().0.iter_mut().skip(blocks.start);
            for (line, sum) in lines.zip(sums) {
                *line = lanes.to_array(lanes.scale(scale, sum));
            }
        }
        blocks.start += B;
    }
}

/// Scores to exponentials; see [`super::super::Kernels::attention_softmax`].
#[inline(always)]
pub(in crate::kernels) fn attention_softmax(
    softcap: f32,
    spans: &[Span],
    scores: &mut [ChunkScores],
    dim_v: usize,
    partial: &mut [f32],
) {
    let heads = scores.len();
    let partials = partial.chunks_exact_mut(attention_partial(dim_v));
    for ((head, scores), partial) in scores.iter_mut().enumerate().zip(partials) {
        let Some(span) = span_of(spans, head, heads) else { return };
        let (max, sum) = soften(softcap, span, scores);
        if let Some([m, l]) = partial.last_chunk_mut() {
            (*m, *l) = (max, sum);
        }
    }
}

/// Turns the scores of one head into exponentials. Their maximum and the sum.
#[inline(always)]
fn soften(softcap: f32, span: &Span, scores: &mut ChunkScores) -> (f32, f32) {
    let (blocks, positions) = span.blocks();
    let range = blocks.start * KV_BLOCK..blocks.end * KV_BLOCK;
    let before = positions.start.saturating_sub(range.start);
    let after = range.end.saturating_sub(positions.end);
    let seen = scores.get_mut(range).unwrap_or_default();
    if softcap > 0.0 {
        for s in seen.iter_mut() {
            *s = softcap * tanh(*s / softcap);
        }
    }
    // What is not seen scores -inf: it is no maximum, and its exponential is an exact zero.
    seen.iter_mut().take(before).for_each(|s| *s = f32::NEG_INFINITY);
    seen.iter_mut().rev().take(after).for_each(|s| *s = f32::NEG_INFINITY);
    let max = maximum(seen);
    // A chunk that scores -inf throughout (keys may overflow an f16) weighs nothing beside others.
    let base = if max > f32::NEG_INFINITY { max } else { 0.0 };
    for s in seen.iter_mut() {
        *s = exp(*s - base);
    }
    let mut sums = [0.0; LANES];
    for block in seen.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            sums[l] += block[l];
        }
    }
    (max, tree(&sums))
}

/// Weighted sums of the values; see [`super::super::Kernels::attention_values`].
#[inline(always)]
pub(in crate::kernels) fn values<L: Lanes, T: Stored>(
    lanes: L,
    scores: &mut [ChunkScores],
    kv: &KvBlocks<'_>,
    spans: &[Span],
    partial: &mut [f32],
) {
    let len = attention_partial(kv.dim_v);
    let all = scores.len();
    for (head, scores) in scores.iter_mut().enumerate() {
        let Some(span) = span_of(spans, head, all) else { return };
        T::round_weights(scores.get_mut(span.blocks().1).unwrap_or_default());
    }
    let heads = all.min(partial.len() / len);
    let mut head = 0;
    while head < heads {
        let scores = scores.get(head..).unwrap_or_default();
        let partial = partial.get_mut(head * len..).unwrap_or_default();
        let spans = |n: usize| span_of(spans, head + n, all);
        let together = together(heads - head, L::SUMS);
        match together {
            8 => values_of_heads::<L, T, 8>(lanes, scores, kv, spans, partial),
            6 => values_of_heads::<L, T, 6>(lanes, scores, kv, spans, partial),
            4 => values_of_heads::<L, T, 4>(lanes, scores, kv, spans, partial),
            3 => values_of_heads::<L, T, 3>(lanes, scores, kv, spans, partial),
            2 => values_of_heads::<L, T, 2>(lanes, scores, kv, spans, partial),
            _ => values_of_heads::<L, T, 1>(lanes, scores, kv, spans, partial),
        }
        head += together;
    }
    if kv.dim_v.is_multiple_of(LANES) {
        return;
    }
    // Rare: what is left of each head, alone.
    for head in 0..heads {
        let Some(scores) = scores.get(head..).unwrap_or_default().first_chunk() else { return };
        let Some(sights) = Sights::<1>::of(|_| span_of(spans, head, all)) else { return };
        let partial = partial.get_mut(head * len..).unwrap_or_default();
        let mut at = kv.dim_v - kv.dim_v % LANES;
        values_of_strips::<L, T, 1, 1, false>(lanes, scores, kv, &sights, partial, &mut at);
    }
}

/// What some heads see of a chunk.
struct Sights<const N: usize> {
    first_block: usize,
    /// The blocks of which something is seen.
    blocks: Range<usize>,
    seen: [Range<usize>; N],
}

impl<const N: usize> Sights<N> {
    /// For the first `N` heads; `None` if one has no span.
    #[inline(always)]
    fn of<'s>(spans: impl Fn(usize) -> Option<&'s Span>) -> Option<Self> {
        let mut sights = Self { first_block: 0, blocks: 0..0, seen: [const { 0..0 }; N] };
        for (n, seen) in sights.seen.iter_mut().enumerate() {
            let span = spans(n)?;
            let (blocks, positions) = span.blocks();
            if !blocks.is_empty() {
                let Range { start, end } = sights.blocks;
                let all = if start == end { blocks } else { start.min(blocks.start)..end.max(blocks.end) };
                sights.blocks = all;
            }
            (sights.first_block, *seen) = (span.first_block, positions);
        }
        Some(sights)
    }

    /// What every head sees of a block, and what each sees behind that. Heads that begin differently share nothing.
    #[inline(always)]
    fn of_block(&self, block: usize) -> (Range<usize>, [Range<usize>; N]) {
        let mut parts = [const { 0..0 }; N];
        let (mut start, mut end, mut one_start) = (None, KV_BLOCK, true);
        for (part, seen) in parts.iter_mut().zip(&self.seen) {
            let inside = |at: usize| at.saturating_sub(block * KV_BLOCK).min(KV_BLOCK);
            *part = inside(seen.start)..inside(seen.end);
            one_start &= *start.get_or_insert(part.start) == part.start;
            end = end.min(part.end);
        }
        let start = start.unwrap_or(0);
        if !one_start || end <= start {
            return (0..0, parts);
        }
        for part in &mut parts {
            part.start = end;
        }
        (start..end, parts)
    }
}

/// Sums of the first `N` heads, but for the values behind the last 16.
#[inline(always)]
fn values_of_heads<'s, L: Lanes, T: Stored, const N: usize>(
    lanes: L,
    scores: &[ChunkScores],
    kv: &KvBlocks<'_>,
    spans: impl Fn(usize) -> Option<&'s Span>,
    partial: &mut [f32],
) {
    if !asked(N, L::SUMS) {
        return;
    }
    let Some(scores) = scores.first_chunk::<N>() else { return };
    let Some(sights) = Sights::of(spans) else { return };
    // Several strips of 16 values at once, as far as their sums fit the registers, then those that are left.
    let mut at = 0;
    if L::SUMS / N >= 4 {
        values_of_strips::<L, T, N, 4, true>(lanes, scores, kv, &sights, partial, &mut at);
    }
    if L::SUMS / N >= 2 {
        values_of_strips::<L, T, N, 2, true>(lanes, scores, kv, &sights, partial, &mut at);
    }
    values_of_strips::<L, T, N, 1, true>(lanes, scores, kv, &sights, partial, &mut at);
}

/// Takes `S` strips at a time from value `at` on, as often as there are so many, or, unless `FULL`, as long as any
/// values are left.
#[inline(always)]
fn values_of_strips<L: Lanes, T: Stored, const N: usize, const S: usize, const FULL: bool>(
    lanes: L,
    scores: &[ChunkScores; N],
    kv: &KvBlocks<'_>,
    sights: &Sights<N>,
    partial: &mut [f32],
    at: &mut usize,
) {
    let needed = if FULL { S * LANES } else { 1 };
    while kv.dim_v.saturating_sub(*at) >= needed {
        let sums = sum_values::<L, T, N, S, FULL>(lanes, scores, kv, sights, *at);
        for (line, sums) in partial.chunks_exact_mut(attention_partial(kv.dim_v)).zip(&sums) {
            let line = line.get_mut(*at..kv.dim_v).unwrap_or_default();
            for (out, sum) in line.iter_mut().zip(sums.as_flattened()) {
                *out = *sum;
            }
        }
        *at += S * LANES;
    }
}

/// `sum_p(e[p] v[p][d])` of the `S` strips of 16 values from `at` on, or, unless `FULL`, of the values that are left,
/// for `N` heads.
#[inline(always)]
fn sum_values<L: Lanes, T: Stored, const N: usize, const S: usize, const FULL: bool>(
    lanes: L,
    scores: &[ChunkScores; N],
    kv: &KvBlocks<'_>,
    sights: &Sights<N>,
    at: usize,
) -> [[[f32; LANES]; S]; N] {
    let mut sums = [[lanes.zero(); S]; N];
    for b in sights.blocks.clone() {
        let (common, rest) = sights.of_block(b);
        let mut e = [&[0.0; LANES]; N];
        for (e, scores) in e.iter_mut().zip(scores) {
            *e = scores.as_chunks().0.get(b).unwrap_or(e);
        }
        let block = sights.first_block.saturating_add(b);
        let ahead = kv.values(block.saturating_add(1)).as_ptr();
        let values = kv.values(block);
        T::add::<L, N, S, FULL>(lanes, &e, (values, ahead), (kv.dim_v, at), common, &mut sums);
        if N == 1 || rest.iter().all(Range::is_empty) {
            continue;
        }
        // Rare: what only some of them see, head by head. The compiler is not to write out the loop, which would be most
        // of all code of attention, so the sums go through memory.
        let mut kept = to_arrays(lanes, &sums);
        for h in 0..black_box(N) {
            let (Some(sums), Some(rest), Some(scores)) = (kept.get_mut(h), rest.get(h), scores.get(h)) else {
                break;
            };
            let Some(e) = scores.as_chunks().0.get(b) else { break };
            let mut sum = [from_arrays(lanes, sums)];
            T::add::<L, 1, S, FULL>(lanes, &[e], (values, ahead), (kv.dim_v, at), rest.clone(), &mut sum);
            [*sums] = to_arrays(lanes, &sum);
        }
        for h in 0..N {
            sums[h] = from_arrays(lanes, &kept[h]);
        }
    }
    to_arrays(lanes, &sums)
}

#[inline(always)]
fn to_arrays<L: Lanes, const N: usize, const S: usize>(
    lanes: L,
    sums: &[[L::Floats; S]; N],
) -> [[[f32; LANES]; S]; N] {
    let mut arrays = [[[0.0; LANES]; S]; N];
    for h in 0..N {
        for s in 0..S {
            arrays[h][s] = lanes.to_array(sums[h][s]);
        }
    }
    arrays
}

#[inline(always)]
fn from_arrays<L: Lanes, const S: usize>(lanes: L, arrays: &[[f32; LANES]; S]) -> [L::Floats; S] {
    let mut sums = [lanes.zero(); S];
    for s in 0..S {
        sums[s] = lanes.load(&arrays[s]);
    }
    sums
}

/// Merges a partial into another; see [`super::super::Kernels::attention_merge`].
#[inline(always)]
pub(in crate::kernels) fn attention_merge(dim_v: usize, running: &mut [f32], partial: &[f32]) {
    let len = attention_partial(dim_v);
    for (running, partial) in running.chunks_exact_mut(len).zip(partial.chunks_exact(len)) {
        let Some((sums, [max, sum])) = running.split_last_chunk_mut() else { return };
        let Some((added, [new_max, new_sum])) = partial.split_last_chunk() else { return };
        let both = larger(*max, *new_max);
        let (keep, take) = (exp(*max - both), exp(*new_max - both));
        *sum = *sum * keep + *new_sum * take;
        *max = both;
        for (sum, added) in sums.iter_mut().zip(added) {
            *sum = *sum * keep + *added * take;
        }
    }
}
