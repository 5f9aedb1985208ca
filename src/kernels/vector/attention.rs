//! The steps of attention over one chunk of positions.
//!
//! Per query head: `score[p] = sum_d(q[d] k[d][p]) * scale`, one sum a position with `d` ascending; the cap;
//! `m = max(score)`; `e[p] = exp(score[p] - m)`, 0 if below 2^-126; `l = sum(e)` in the 16 lanes `p % 16` and by the
//! tree; `acc[d] = sum_p(e[p] v[p][d])`, one sum a value with `p` ascending. Chunks are merged in order (Milakov and
//! Gimelshein 2018): `n = max(m, mc)`, `acc = acc exp(m - n) + acc_c exp(mc - n)`, `l` likewise. The result is
//! `acc / l`. Where 32 numbers of a position share a scale, the sum over their `q[d] k[d][p]` is multiplied with it
//! and added to the score's, and the weight of their `v[p][d]` is `e[p] * scale`.
//!
//! Positions that are not seen contribute nothing, so what their part of the cache holds does not matter. A result is
//! NaN when a score or value is, or when no score is above -inf. No step depends on how queries are grouped or batched.

use super::super::{ATTENTION_CHUNK, ChunkScores, KV_BLOCK, KvBlocks, Span, TOGETHER, attention_partial};
use super::cache::Stored;
use super::lanes::{LANES, Lanes, larger, maximum, tree};
use super::look::{Chunk, Sights, Values, places, put, rows, span_of};
use crate::math::{exp, exp_nonpositive, tanh};
use core::hint::black_box;
use core::ops::Range;

const _: () = assert!(ATTENTION_CHUNK.is_multiple_of(KV_BLOCK));

/// How many of the heads that are left share the loads from the cache: as many as have sums in registers. Each number
/// more is code more, so there are few of them.
#[inline(always)]
fn together<L: Lanes, T: Stored>(left: usize) -> usize {
    match (left, T::MOST, L::SUMS) {
        (6.., 6.., 16..) if left != 8 => 6,
        (4.., 4.., _) => 4,
        (3, 3.., 2..) => 3,
        _ => 1,
    }
}

/// Whether [`together`] ever gives `n`: else its code is not to be compiled.
const fn asked<L: Lanes, T: Stored>(n: usize) -> bool {
    n == 1
        || n <= T::MOST
            && match n {
                3 => L::SUMS > 1,
                4 => true,
                _ => L::SUMS >= 16,
            }
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
    let chunk = Chunk::new(kv, spans);
    let mut head = 0;
    while head < heads {
        let q = q.get_mut(head * kv.dim_k..).unwrap_or_default();
        let scores = scores.get_mut(head..).unwrap_or_default();
        let together = together::<L, T>(heads - head);
        let mut factors = [scale; TOGETHER];
        for (q, factor) in q.chunks_exact_mut(kv.dim_k).zip(&mut factors).take(together) {
            *factor *= T::round_query(lanes, q);
        }
        match together {
            6 => scores_of_heads::<L, T, 6>(lanes, q, &chunk, &factors, scores),
            4 => scores_of_heads::<L, T, 4>(lanes, q, &chunk, &factors, scores),
            3 => scores_of_heads::<L, T, 3>(lanes, q, &chunk, &factors, scores),
            _ => scores_of_heads::<L, T, 1>(lanes, q, &chunk, &factors, scores),
        }
        head += together;
    }
}

/// Scores of the first `N` heads, each with its factor.
#[inline(always)]
fn scores_of_heads<L: Lanes, T: Stored, const N: usize>(
    lanes: L,
    q: &[f32],
    chunk: &Chunk<'_>,
    factors: &[f32; TOGETHER],
    scores: &mut [ChunkScores],
) {
    if !asked::<L, T>(N) {
        return;
    }
    let (Some(scores), Some(factors)) = (scores.first_chunk_mut::<N>(), factors.first_chunk()) else {
        return;
    };
    let rows = rows(q, chunk.dim);
    let mut blocks = chunk.blocks.clone();
    // Several blocks at once, as far as their sums fit the registers, then those that are left.
    if L::SUMS / N >= 4 {
        scores_of_blocks::<L, T, N, 4>(lanes, &rows, chunk, factors, scores, &mut blocks);
    } else if L::SUMS / N >= 2 {
        scores_of_blocks::<L, T, N, 2>(lanes, &rows, chunk, factors, scores, &mut blocks);
    }
    scores_of_blocks::<L, T, N, 1>(lanes, &rows, chunk, factors, scores, &mut blocks);
}

/// Takes `B` blocks at a time, as often as `blocks` has so many, up to some of which one is not whole.
#[inline(always)]
fn scores_of_blocks<L: Lanes, T: Stored, const N: usize, const B: usize>(
    lanes: L,
    rows: &[&[f32]; N],
    chunk: &Chunk<'_>,
    factors: &[f32; N],
    scores: &mut [ChunkScores; N],
    blocks: &mut Range<usize>,
) {
    while let Some(keys) = chunk.keys::<B>(blocks) {
        let places = places(scores, blocks.start);
        let sums = T::score(lanes, rows, &keys);
        for h in 0..N {
            let Some(place) = places[h].first_chunk_mut::<B>() else { return };
            for b in 0..B {
                place[b] = lanes.to_array(lanes.scale(factors[h], sums[h][b]));
            }
        }
        blocks.start += B;
    }
}

/// Scores to exponentials; see [`super::super::Kernels::attention_softmax`].
#[inline(always)]
pub(in crate::kernels) fn softmax<L: Lanes>(
    lanes: L,
    softcap: f32,
    spans: &[Span],
    scores: &mut [ChunkScores],
    dim_v: usize,
    partial: &mut [f32],
) {
    let (heads, len) = (scores.len(), attention_partial(dim_v));
    // Step by step, each for all heads: what one head waits for is done beside the others.
    for (head, (scores, partial)) in scores.iter_mut().zip(partial.chunks_exact_mut(len)).enumerate() {
        let (Some(span), Some([max, _])) = (span_of(spans, head, heads), partial.last_chunk_mut()) else {
            return;
        };
        *max = largest_seen(softcap, span, scores);
    }
    for (head, (scores, partial)) in scores.iter_mut().zip(partial.chunks_exact(len)).enumerate() {
        let (Some(span), Some([max, _])) = (span_of(spans, head, heads), partial.last_chunk()) else {
            return;
        };
        // A chunk that scores -inf throughout (keys may overflow an f16) weighs nothing beside others.
        let base = if *max > f32::NEG_INFINITY { *max } else { 0.0 };
        for s in scores.get_mut(lanes_of(span)).unwrap_or_default() {
            *s = exp_nonpositive(*s - base);
        }
    }
    for (head, (scores, partial)) in scores.iter().zip(partial.chunks_exact_mut(len)).enumerate() {
        let (Some(span), Some([_, sum])) = (span_of(spans, head, heads), partial.last_chunk_mut()) else {
            return;
        };
        let mut sums = lanes.zero();
        for block in scores.get(lanes_of(span)).unwrap_or_default().as_chunks::<LANES>().0 {
            sums = lanes.add(sums, lanes.load(block));
        }
        *sum = tree(&lanes.to_array(sums));
    }
}

/// The scores of the blocks of which something is seen.
#[inline(always)]
fn lanes_of(span: &Span) -> Range<usize> {
    let (blocks, _) = span.blocks();
    blocks.start * KV_BLOCK..blocks.end * KV_BLOCK
}

/// Caps the scores of one head. The largest of those that are seen; the others in their blocks become -inf.
#[inline(always)]
fn largest_seen(softcap: f32, span: &Span, scores: &mut ChunkScores) -> f32 {
    let (range, (_, positions)) = (lanes_of(span), span.blocks());
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
    maximum(seen)
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
    let (all, blocks) = (scores.len(), Span::all_blocks(spans));
    let values = Values::new(kv, spans, &blocks);
    T::round_weights(lanes, scores, spans, &blocks, &values);
    let heads = all.min(partial.len() / len);
    let mut head = 0;
    while head < heads {
        let scores = scores.get(head..).unwrap_or_default();
        let partial = partial.get_mut(head * len..).unwrap_or_default();
        let together = together::<L, T>(heads - head);
        match together {
            6 => values_of_heads::<L, T, 6>(lanes, scores, &values, (spans, head, all), partial),
            4 => values_of_heads::<L, T, 4>(lanes, scores, &values, (spans, head, all), partial),
            3 => values_of_heads::<L, T, 3>(lanes, scores, &values, (spans, head, all), partial),
            _ => values_of_heads::<L, T, 1>(lanes, scores, &values, (spans, head, all), partial),
        }
        head += together;
    }
    if kv.dim_v.is_multiple_of(LANES) {
        return;
    }
    // Rare: what is left of each head, alone.
    for head in 0..heads {
        let Some(scores) = scores.get(head..).unwrap_or_default().first_chunk() else { return };
        let Some(sights) = Sights::<1>::new(spans, head, all) else { return };
        let partial = partial.get_mut(head * len..).unwrap_or_default();
        let mut at = kv.dim_v - kv.dim_v % LANES;
        values_of_strips::<L, T, 1, 1, false>(lanes, scores, &values, &sights, partial, &mut at);
    }
}

/// Sums of the first `N` heads, but for the values behind the last 16. Behind the spans stands which of how many heads
/// is the first.
#[inline(always)]
fn values_of_heads<L: Lanes, T: Stored, const N: usize>(
    lanes: L,
    scores: &[ChunkScores],
    values: &Values<'_>,
    (spans, head, heads): (&[Span], usize, usize),
    partial: &mut [f32],
) {
    if !asked::<L, T>(N) {
        return;
    }
    let Some(scores) = scores.first_chunk::<N>() else { return };
    let Some(sights) = Sights::new(spans, head, heads) else { return };
    // Several strips of 16 values at once, as far as their sums fit the registers, then those that are left.
    let mut at = 0;
    // Sums of integers have one of floats beside them.
    let sums = if T::INTEGERS { L::SUMS / 2 } else { L::SUMS };
    if sums / N >= 4 {
        values_of_strips::<L, T, N, 4, true>(lanes, scores, values, &sights, partial, &mut at);
    } else if sums / N >= 2 {
        values_of_strips::<L, T, N, 2, true>(lanes, scores, values, &sights, partial, &mut at);
    }
    values_of_strips::<L, T, N, 1, true>(lanes, scores, values, &sights, partial, &mut at);
}

/// Takes `S` strips at a time from value `at` on, as often as there are so many, or, unless `FULL`, as long as any
/// values are left.
#[inline(always)]
fn values_of_strips<L: Lanes, T: Stored, const N: usize, const S: usize, const FULL: bool>(
    lanes: L,
    scores: &[ChunkScores; N],
    values: &Values<'_>,
    sights: &Sights<N>,
    partial: &mut [f32],
    at: &mut usize,
) {
    let needed = if FULL { S * LANES } else { 1 };
    while values.dim.saturating_sub(*at) >= needed {
        let sums = sum_values::<L, T, N, S, FULL>(lanes, scores, values, sights, *at);
        put(&sums, partial, attention_partial(values.dim), *at..values.dim.min(*at + S * LANES));
        *at += S * LANES;
    }
}

/// `sum_p(e[p] v[p][d])` of the `S` strips of 16 values from `at` on, or, unless `FULL`, of the values that are left,
/// for `N` heads.
#[inline(always)]
fn sum_values<L: Lanes, T: Stored, const N: usize, const S: usize, const FULL: bool>(
    lanes: L,
    scores: &[ChunkScores; N],
    values: &Values<'_>,
    sights: &Sights<N>,
    at: usize,
) -> [[[f32; LANES]; S]; N] {
    let mut sums = [[lanes.zero(); S]; N];
    for b in sights.blocks.clone() {
        let (Some(block), Some(next)) = (values.blocks.get(b), values.blocks.get(b + 1)) else { break };
        let block = (*block, next.as_ptr());
        let mut weights = [&[0.0; LANES]; N];
        for h in 0..N {
            weights[h] = scores[h].as_chunks().0.get(b).unwrap_or(weights[h]);
        }
        let (common, rest) = match T::INTEGERS || sights.whole(b) {
            true => (0..KV_BLOCK, None),
            false => {
                let (common, rest) = sights.positions(b);
                (common, Some(rest))
            }
        };
        T::add::<L, N, S, FULL>(lanes, &weights, block, (values.dim, at), common, &mut sums);
        let Some(rest) = rest.filter(|rest| N > 1 && !rest.iter().all(Range::is_empty)) else { continue };
        // Rare: what only some of them see, head by head. The compiler is not to write out the loop, which would be most
        // of all code of attention, so the sums go through memory.
        let mut kept = to_arrays(lanes, &sums);
        for h in 0..black_box(N) {
            let (Some(sums), Some(rest), Some(e)) = (kept.get_mut(h), rest.get(h), weights.get(h)) else {
                break;
            };
            let mut sum = [from_arrays(lanes, sums)];
            T::add::<L, 1, S, FULL>(lanes, &[e], block, (values.dim, at), rest.clone(), &mut sum);
            [*sums] = to_arrays(lanes, &sum);
        }
        for h in 0..N {
            sums[h] = from_arrays(lanes, &kept[h]);
        }
    }
    for h in 0..N {
        for sum in &mut sums[h] {
            *sum = T::weighed(lanes, &scores[h], *sum);
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
