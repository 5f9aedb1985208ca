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
use core::ops::Range;

const _: () = assert!(ATTENTION_CHUNK.is_multiple_of(KV_BLOCK));

/// How many of the heads that are left share the loads from the cache: up to 4, whose sums stay in registers.
#[inline(always)]
fn together(left: usize) -> usize {
    if left < 8 && left > 4 { left.div_ceil(2) } else { left.min(4) }
}

/// Scores of a chunk; see [`super::super::Kernels::attention_scores`].
#[inline(always)]
pub(in crate::kernels) fn scores<L: Lanes, T: Stored>(
    lanes: L,
    q: &[f32],
    kv: &KvBlocks<'_>,
    span: &Span,
    scale: f32,
    scores: &mut [ChunkScores],
) {
    if kv.dim_k == 0 {
        return;
    }
    let heads = (q.len() / kv.dim_k).min(scores.len());
    let mut head = 0;
    while head < heads {
        let q = q.get(head * kv.dim_k..).unwrap_or_default();
        let scores = scores.get_mut(head..).unwrap_or_default();
        match together(heads - head) {
            4 => scores_of_heads::<L, T, 4>(lanes, q, kv, span, scale, scores),
            3 => scores_of_heads::<L, T, 3>(lanes, q, kv, span, scale, scores),
            2 => scores_of_heads::<L, T, 2>(lanes, q, kv, span, scale, scores),
            _ => scores_of_heads::<L, T, 1>(lanes, q, kv, span, scale, scores),
        }
        head += together(heads - head);
    }
}

/// Scores of the first `N` heads.
#[inline(always)]
fn scores_of_heads<L: Lanes, T: Stored, const N: usize>(
    lanes: L,
    q: &[f32],
    kv: &KvBlocks<'_>,
    span: &Span,
    scale: f32,
    scores: &mut [ChunkScores],
) {
    let Some(scores) = scores.first_chunk_mut::<N>() else { return };
    let mut rows: [&[f32]; N] = [&[]; N];
    for (row, q) in rows.iter_mut().zip(q.chunks_exact(kv.dim_k)) {
        *row = q;
    }
    let mut blocks = span.blocks().0;
    // Several blocks at once, as far as their sums fit the registers, then those that are left.
    if L::SUMS / N >= 4 {
        scores_of_blocks::<L, T, N, 4>(lanes, &rows, kv, span, scale, scores, &mut blocks);
    }
    if L::SUMS / N >= 2 {
        scores_of_blocks::<L, T, N, 2>(lanes, &rows, kv, span, scale, scores, &mut blocks);
    }
    scores_of_blocks::<L, T, N, 1>(lanes, &rows, kv, span, scale, scores, &mut blocks);
}

/// Takes `B` blocks at a time, as often as `blocks` has so many.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn scores_of_blocks<L: Lanes, T: Stored, const N: usize, const B: usize>(
    lanes: L,
    rows: &[&[f32]; N],
    kv: &KvBlocks<'_>,
    span: &Span,
    scale: f32,
    scores: &mut [ChunkScores; N],
    blocks: &mut Range<usize>,
) {
    let first = span.first_block.saturating_add(span.blocks().0.start);
    while blocks.len() >= B {
        let (mut keys, mut ahead): ([&[u8]; B], _) = ([&[]; B], [core::ptr::null(); B]);
        for b in 0..B {
            let block = span.first_block.saturating_add(blocks.start + b);
            keys[b] = kv.keys(block);
            // Behind the last keys come the first values.
            let later = blocks.start + B < blocks.end;
            let next =
                if later { kv.keys(block.saturating_add(B)) } else { kv.values(first.saturating_add(b)) };
            ahead[b] = next.as_ptr();
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
    span: &Span,
    scores: &mut [ChunkScores],
    dim_v: usize,
    partial: &mut [f32],
) {
    for (scores, partial) in scores.iter_mut().zip(partial.chunks_exact_mut(attention_partial(dim_v))) {
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
    scores: &[ChunkScores],
    kv: &KvBlocks<'_>,
    span: &Span,
    partial: &mut [f32],
) {
    let len = attention_partial(kv.dim_v);
    let heads = scores.len().min(partial.len() / len);
    let mut head = 0;
    while head < heads {
        let scores = scores.get(head..).unwrap_or_default();
        let partial = partial.get_mut(head * len..).unwrap_or_default();
        match together(heads - head) {
            4 => values_of_heads::<L, T, 4>(lanes, scores, kv, span, partial),
            3 => values_of_heads::<L, T, 3>(lanes, scores, kv, span, partial),
            2 => values_of_heads::<L, T, 2>(lanes, scores, kv, span, partial),
            _ => values_of_heads::<L, T, 1>(lanes, scores, kv, span, partial),
        }
        head += together(heads - head);
    }
}

/// Sums of the first `N` heads.
#[inline(always)]
fn values_of_heads<L: Lanes, T: Stored, const N: usize>(
    lanes: L,
    scores: &[ChunkScores],
    kv: &KvBlocks<'_>,
    span: &Span,
    partial: &mut [f32],
) {
    let Some(scores) = scores.first_chunk::<N>() else { return };
    // Several strips of 16 values at once, as far as their sums fit the registers, then those that are left.
    let mut at = 0;
    if L::SUMS / N >= 4 {
        values_of_strips::<L, T, N, 4, true>(lanes, scores, kv, span, partial, &mut at);
    }
    if L::SUMS / N >= 2 {
        values_of_strips::<L, T, N, 2, true>(lanes, scores, kv, span, partial, &mut at);
    }
    values_of_strips::<L, T, N, 1, true>(lanes, scores, kv, span, partial, &mut at);
    values_of_strips::<L, T, N, 1, false>(lanes, scores, kv, span, partial, &mut at);
}

/// Takes `S` strips at a time from value `at` on, as often as there are so many, or, unless `FULL`, as long as any
/// values are left.
#[inline(always)]
fn values_of_strips<L: Lanes, T: Stored, const N: usize, const S: usize, const FULL: bool>(
    lanes: L,
    scores: &[ChunkScores; N],
    kv: &KvBlocks<'_>,
    span: &Span,
    partial: &mut [f32],
    at: &mut usize,
) {
    let needed = if FULL { S * LANES } else { 1 };
    while kv.dim_v.saturating_sub(*at) >= needed {
        let sums = sum_values::<L, T, N, S, FULL>(lanes, scores, kv, span, *at);
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
    span: &Span,
    at: usize,
) -> [[[f32; LANES]; S]; N] {
    let (blocks, positions) = span.blocks();
    let mut sums = [[lanes.zero(); S]; N];
    for b in blocks {
        let from = positions.start.saturating_sub(b * KV_BLOCK);
        let to = positions.end.saturating_sub(b * KV_BLOCK).min(KV_BLOCK);
        let mut e = [&[0.0; LANES]; N];
        for (e, scores) in e.iter_mut().zip(scores) {
            *e = scores.as_chunks().0.get(b).unwrap_or(e);
        }
        let block = span.first_block.saturating_add(b);
        let ahead = kv.values(block.saturating_add(1)).as_ptr();
        T::add::<L, N, S, FULL>(lanes, &e, (kv.values(block), ahead), (kv.dim_v, at), from..to, &mut sums);
    }
    let mut result = [[[0.0; LANES]; S]; N];
    for h in 0..N {
        for s in 0..S {
            result[h][s] = lanes.to_array(sums[h][s]);
        }
    }
    result
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
