//! Attention over a cache of keys and values, in chunks of fixed positions.
//!
//! Per query head and chunk: `score[p] = sum_d(q[d] k[d][p]) * scale`, one sum a position with `d` ascending; the cap;
//! `m = max(score)`; `e[p] = exp(score[p] - m)`; `l = sum(e)` in the 16 lanes `p % 16` and by the tree;
//! `acc[d] = sum_p(e[p] v[p][d])`, one sum a value with `p` ascending. Chunks are merged in order (Milakov and
//! Gimelshein 2018): `n = max(m, mc)`, `acc = acc exp(m - n) + acc_c exp(mc - n)`, `l` likewise; the first chunk that is
//! seen starts `m`, `l` and `acc`. The result is `acc / l`. Positions outside `first..end` contribute nothing, so what
//! their part of the cache holds does not matter. A result is NaN when a score or value is, or when no score is above
//! -inf. No step depends on how queries are grouped or batched.

use super::super::{ATTENTION_CHUNK, Attention, KV_BLOCK, KvBlocks};
use super::lanes::{Element, LANES, Lanes, larger, maximum, tree};
use crate::math::{exp, tanh};
use core::ops::Range;

const _: () = assert!(KV_BLOCK == LANES && ATTENTION_CHUNK.is_multiple_of(KV_BLOCK));

/// Most heads that walk through the cache together.
pub(in crate::kernels) const GROUP: usize = 8;

/// Scores of one head and chunk, then their exponentials.
type Scores = [f32; ATTENTION_CHUNK];

/// Running softmax of one head.
#[derive(Clone, Copy)]
struct Running {
    max: f32,
    sum: f32,
    /// Factors that merge the values so far with those of the present chunk.
    keep: f32,
    take: f32,
}

/// Blocks of one chunk that hold positions that are seen.
struct Chunk<'x, T> {
    kv: KvBlocks<'x, T>,
    /// Index of the chunk's first block.
    first_block: usize,
    /// Positions that are seen, counted from the chunk's first.
    seen: Range<usize>,
    /// Whether an earlier chunk was seen.
    merge: bool,
}

impl<'x, T> KvBlocks<'x, T> {
    /// Keys and values of a block; nothing for a missing one.
    #[inline(always)]
    fn block(&self, block: usize) -> (&'x [[T; KV_BLOCK]], &'x [T]) {
        let Some(page) = self.pages.get(block) else { return (&[], &[]) };
        let from = (*page as usize).saturating_mul(self.stride);
        let rest = self.data.get(from..).unwrap_or_default();
        let Some((k, rest)) = rest.split_at_checked(self.dim_k.saturating_mul(KV_BLOCK)) else {
            return (&[], &[]);
        };
        (k.as_chunks().0, rest.get(..self.dim_v.saturating_mul(KV_BLOCK)).unwrap_or_default())
    }
}

impl<T> Chunk<'_, T> {
    /// The chunk's blocks that are seen, counted from its first.
    #[inline(always)]
    fn blocks(&self) -> Range<usize> {
        self.seen.start / KV_BLOCK..self.seen.end.div_ceil(KV_BLOCK)
    }
}

/// Attention of a group of query heads; see the module.
///
/// Heads are those that `q`, `out` and `scratch` all have room for, positions those that the cache holds. Without
/// any position the result is zero.
#[inline(always)]
pub(in crate::kernels) fn attention<L: Lanes, T: Element>(
    lanes: L,
    args: &Attention<'_, T>,
    out: &mut [f32],
    scratch: &mut [f32],
) {
    let KvBlocks { dim_k, dim_v, .. } = args.kv;
    let end = args.end.min(args.kv.pages.len().saturating_mul(KV_BLOCK));
    if dim_k == 0 || dim_v == 0 || args.first >= end {
        out.fill(0.0);
        return;
    }
    let chunks = args.first / ATTENTION_CHUNK..end.div_ceil(ATTENTION_CHUNK);
    let heads = args.q.len() / dim_k;
    let scores = scratch.as_chunks_mut::<ATTENTION_CHUNK>().0;
    let mut done = 0;
    while done < heads {
        // Up to 8 heads share the loads of keys and values from memory, up to 4 those from the cache.
        let group = (heads - done).min(GROUP);
        let q = args.q.get(done * dim_k..(done + group) * dim_k).unwrap_or_default();
        let out = out.get_mut(done * dim_v..).unwrap_or_default();
        let group = group.min(out.len() / dim_v).min(scores.len());
        let mut running = [Running { max: 0.0, sum: 1.0, keep: 0.0, take: 1.0 }; GROUP];
        for index in chunks.clone() {
            let base = index * ATTENTION_CHUNK;
            let chunk = Chunk {
                kv: args.kv,
                first_block: base / KV_BLOCK,
                seen: args.first.saturating_sub(base)..(end - base).min(ATTENTION_CHUNK),
                merge: index > chunks.start,
            };
            attend_chunk(lanes, args, &chunk, group, q, scores, &mut running, out);
        }
        for (out, running) in out.chunks_exact_mut(dim_v).take(group).zip(&running) {
            for out in out {
                *out /= running.sum;
            }
        }
        done += GROUP;
    }
}

/// One chunk for up to [`GROUP`] heads.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn attend_chunk<L: Lanes, T: Element>(
    lanes: L,
    args: &Attention<'_, T>,
    chunk: &Chunk<'_, T>,
    group: usize,
    q: &[f32],
    scores: &mut [Scores],
    running: &mut [Running; GROUP],
    out: &mut [f32],
) {
    let mut head = 0;
    while head < group {
        let left = group - head;
        let heads = if left < 8 && left > 4 { left.div_ceil(2) } else { left.min(4) };
        let q = q.get(head * args.kv.dim_k..).unwrap_or_default();
        let out = out.get_mut(head * args.kv.dim_v..).unwrap_or_default();
        let scores = scores.get_mut(head..).unwrap_or_default();
        let running = running.get_mut(head..).unwrap_or_default();
        match heads {
            4 => attend_heads::<L, T, 4>(lanes, args, chunk, q, scores, running, out),
            3 => attend_heads::<L, T, 3>(lanes, args, chunk, q, scores, running, out),
            2 => attend_heads::<L, T, 2>(lanes, args, chunk, q, scores, running, out),
            _ => attend_heads::<L, T, 1>(lanes, args, chunk, q, scores, running, out),
        }
        head += heads;
    }
}

/// One chunk for the first `N` heads of `q`, `scores`, `running` and `out`.
#[inline(always)]
fn attend_heads<L: Lanes, T: Element, const N: usize>(
    lanes: L,
    args: &Attention<'_, T>,
    chunk: &Chunk<'_, T>,
    q: &[f32],
    scores: &mut [Scores],
    running: &mut [Running],
    out: &mut [f32],
) {
    let (Some(scores), Some(running)) = (scores.first_chunk_mut::<N>(), running.first_chunk_mut::<N>())
    else {
        return;
    };
    let mut rows: [&[f32]; N] = [&[]; N];
    for (row, q) in rows.iter_mut().zip(q.chunks_exact(args.kv.dim_k)) {
        *row = q;
    }
    for b in chunk.blocks() {
        let block = score_block(lanes, &rows, chunk.kv.block(chunk.first_block + b).0);
        for (scores, block) in scores.iter_mut().zip(&block) {
            if let Some(scores) = scores.as_chunks_mut::<LANES>().0.get_mut(b) {
                for l in 0..LANES {
                    scores[l] = block[l] * args.scale;
                }
            }
        }
    }
    for (scores, running) in scores.iter_mut().zip(running.iter_mut()) {
        soften(args.softcap, chunk, scores, running);
    }
    let mut at = 0;
    while at < args.kv.dim_v {
        let sums = if args.kv.dim_v - at >= LANES {
            sum_values::<L, T, N, true>(lanes, chunk, scores, at)
        } else {
            sum_values::<L, T, N, false>(lanes, chunk, scores, at)
        };
        let lines = out.chunks_exact_mut(args.kv.dim_v);
        for ((line, sums), running) in lines.zip(&sums).zip(running.iter()) {
            let line = line.get_mut(at..).unwrap_or_default();
            for (out, sum) in line.iter_mut().zip(sums) {
                *out = if chunk.merge { *out * running.keep + sum * running.take } else { *sum };
            }
        }
        at += LANES;
    }
}

/// `sum_d(q[d] k[d][p])` of the 16 positions of a block, for `N` heads.
#[inline(always)]
fn score_block<L: Lanes, T: Element, const N: usize>(
    lanes: L,
    q: &[&[f32]; N],
    k: &[[T; KV_BLOCK]],
) -> [[f32; LANES]; N] {
    // Cut to one length in sight of the compiler, so that the loop needs no checks.
    let mut rows = [&[] as &[f32]; N];
    for (row, q) in rows.iter_mut().zip(q) {
        let Some(q) = q.get(..k.len()) else { return [[0.0; LANES]; N] };
        *row = q;
    }
    let mut sums = [lanes.zero(); N];
    'lines: for d in 0..k.len() {
        let Some(line) = k.get(d) else { break };
        let line = T::widen(lanes, line);
        for h in 0..N {
            let Some(q) = rows[h].get(d) else { break 'lines };
            sums[h] = lanes.add_scaled(sums[h], *q, line);
        }
    }
    sums.map(|sum| lanes.to_array(sum))
}

/// Turns the scores of a chunk into exponentials and brings the running softmax up to date.
#[inline(always)]
fn soften<T>(softcap: f32, chunk: &Chunk<'_, T>, scores: &mut Scores, running: &mut Running) {
    let blocks = chunk.blocks();
    let range = blocks.start * KV_BLOCK..blocks.end * KV_BLOCK;
    let seen = scores.get_mut(range).unwrap_or_default();
    if softcap > 0.0 {
        for s in seen.iter_mut() {
            *s = softcap * tanh(*s / softcap);
        }
    }
    // What is not seen scores -inf: it is no maximum, and its exponential is an exact zero.
    let before = chunk.seen.start % KV_BLOCK;
    let after = blocks.end * KV_BLOCK - chunk.seen.end;
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
    let sum = tree(&sums);
    if chunk.merge {
        let both = larger(running.max, max);
        running.keep = exp(running.max - both);
        running.take = exp(max - both);
        running.sum = running.sum * running.keep + sum * running.take;
        running.max = both;
    } else {
        running.max = max;
        running.sum = sum;
    }
}

/// `sum_p(e[p] v[p][d])` of the 16 values from `at` on, or, unless `FULL`, of those that are left, for `N` heads.
#[inline(always)]
fn sum_values<L: Lanes, T: Element, const N: usize, const FULL: bool>(
    lanes: L,
    chunk: &Chunk<'_, T>,
    e: &[Scores; N],
    at: usize,
) -> [[f32; LANES]; N] {
    let dim = chunk.kv.dim_v;
    let mut sums = [lanes.zero(); N];
    for b in chunk.blocks() {
        let from = chunk.seen.start.saturating_sub(b * KV_BLOCK);
        let to = (chunk.seen.end - b * KV_BLOCK).min(KV_BLOCK);
        let mut weights = [&[0.0; LANES]; N];
        for (weights, e) in weights.iter_mut().zip(e) {
            *weights = e.as_chunks().0.get(b).unwrap_or(weights);
        }
        let v = chunk.kv.block(chunk.first_block + b).1;
        let mut lines = v.get(from * dim + at..).unwrap_or_default();
        for p in from..to {
            let line = if FULL {
                let Some(line) = lines.first_chunk() else { break };
                T::widen(lanes, line)
            } else {
                T::widen(lanes, &head(lines, dim - at))
            };
            lines = lines.get(dim..).unwrap_or_default();
            for h in 0..N {
                let e = weights[h].get(p).copied().unwrap_or_default();
                sums[h] = lanes.add_scaled(sums[h], e, line);
            }
        }
    }
    sums.map(|sum| lanes.to_array(sum))
}

/// The first `count` values, at most 16, and zeros behind them.
#[inline(always)]
fn head<T: Copy + Default>(values: &[T], count: usize) -> [T; LANES] {
    let mut lanes = [T::default(); LANES];
    for (lane, value) in lanes.iter_mut().zip(values.iter().take(count)) {
        *lane = *value;
    }
    lanes
}

/// Writes one position of one head: `k` to lane `lane` of the block's keys, `v` to line `lane` of its values.
#[inline(always)]
pub(in crate::kernels) fn store_kv<T: Element>(k: &[f32], v: &[f32], lane: usize, block: &mut [T]) {
    let lane = lane % KV_BLOCK;
    let keys = k.len().saturating_mul(KV_BLOCK).min(block.len());
    let (keys, values) = block.split_at_mut(keys);
    for (line, k) in keys.as_chunks_mut::<KV_BLOCK>().0.iter_mut().zip(k) {
        line[lane] = T::narrow(*k);
    }
    let values = values.get_mut(lane.saturating_mul(v.len())..).unwrap_or_default();
    for (out, v) in values.iter_mut().zip(v) {
        *out = T::narrow(*v);
    }
}

/// [`store_kv`] for a cache of floats.
#[inline(always)]
pub(in crate::kernels) fn store_kv32(k: &[f32], v: &[f32], lane: usize, block: &mut [f32]) {
    store_kv(k, v, lane, block);
}
