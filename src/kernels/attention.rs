//! Attention over a cache of keys and values: how the cache is laid out, and the way from queries to results.
//!
//! A sequence is cut into chunks of [`ATTENTION_CHUNK`] positions, counted from position 0. [`attend_chunk`] makes the
//! *partial* of one chunk, [`Kernels::attention_merge`] merges partials in the order of the chunks, and
//! [`attention_finish`] divides. Nothing else is shared between chunks, so they may be computed by different threads.

use super::Kernels;
use crate::tensor::BLOCK;
use core::ops::Range;

/// Positions of a KV block.
pub const KV_BLOCK: usize = 16;

/// Positions of an attention chunk: partial softmaxes over fixed chunks, counted from position 0, are merged in order.
pub const ATTENTION_CHUNK: usize = 256;

/// Most heads, and so most queries, that walk through a chunk together.
pub const TOGETHER: usize = 24;

/// Scores of one head and chunk, then their exponentials.
pub type ChunkScores = [f32; ATTENTION_CHUNK];

/// How keys or values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// 16-bit floats, rounded to nearest even.
    F16,
    /// 32-bit floats: twice the memory, nothing rounded.
    F32,
    /// Signed bytes with one 16-bit scale for 32 values of a position, as GGML's Q8_0: about half the memory.
    Q8_0,
    /// 16-bit integers of at most 8191 with one 32-bit scale a position, rounded to nearest even: a little more memory
    /// than 16-bit floats. The products with queries and weights, which are rounded to integers too, are added up as
    /// integers, which is faster.
    #[default]
    I16,
}

impl KvType {
    /// All types, in the order of [`KvType::index`].
    pub const ALL: [KvType; 4] = [KvType::F16, KvType::F32, KvType::Q8_0, KvType::I16];

    /// Its place in the arrays of [`Kernels`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Bytes of the keys of one head in one page, keys of `dim` numbers; a multiple of 16.
    pub const fn key_bytes(self, dim: usize) -> usize {
        match self {
            KvType::F16 => dim.saturating_mul(2 * KV_BLOCK),
            KvType::F32 => dim.saturating_mul(4 * KV_BLOCK),
            KvType::Q8_0 => {
                dim.saturating_mul(KV_BLOCK).saturating_add(dim.div_ceil(BLOCK).saturating_mul(2 * KV_BLOCK))
            }
            // Keys are in pairs of their numbers, the last one filled up.
            KvType::I16 => dim.div_ceil(2).saturating_mul(4 * KV_BLOCK).saturating_add(4 * KV_BLOCK),
        }
    }

    /// Bytes of the values of one head in one page, values of `dim` numbers; a multiple of 16.
    pub const fn value_bytes(self, dim: usize) -> usize {
        match self {
            // In pairs of positions.
            KvType::I16 => dim.saturating_mul(2 * KV_BLOCK).saturating_add(4 * KV_BLOCK),
            // The same numbers in another order.
            _ => self.key_bytes(dim),
        }
    }

    /// The entry of this type.
    pub(super) fn of<T>(self, entries: &[T; KvType::ALL.len()]) -> &T {
        let [f16, f32, q8_0, i16] = entries;
        match self {
            KvType::F16 => f16,
            KvType::F32 => f32,
            KvType::Q8_0 => q8_0,
            KvType::I16 => i16,
        }
    }
}

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvTypes {
    /// Keys.
    pub keys: KvType,
    /// Values.
    pub values: KvType,
}

impl From<KvType> for KvTypes {
    /// Both the same.
    fn from(both: KvType) -> Self {
        Self { keys: both, values: both }
    }
}

/// Cached keys and values of one KV head, in blocks of 16 positions. Numbers have the byte order of the machine.
///
/// Block `b` begins at `data[pages[b] * stride]`: [`KvType::key_bytes`] of keys, then [`KvType::value_bytes`] of
/// values.
///
/// | type | keys: a lane is a position | values: a line is a position |
/// |---|---|---|
/// | F16, F32 | `[dim_k][16]` | `[16][dim_v]` |
/// | Q8_0 | `[dim_k][16]` bytes, then `[dim_k / 32][16]` scales in f16 | `[16][dim_v]` bytes, then `[dim_v / 32][16]` scales |
/// | I16 | `[dim_k / 2][16][2]`, then `[16]` scales in f32 | `[8][dim_v][2]`: two positions side by side, then `[16]` scales |
///
/// The last scale of a position may stand for less than 32 numbers. A block that is not wholly inside counts as missing:
/// its keys score 0 and its values are left out. So does one whose numbers are not aligned in memory.
#[derive(Debug, Clone, Copy)]
pub struct KvBlocks<'x> {
    /// From the head's part of page 0 on.
    pub data: &'x [u8],
    /// The page of each block.
    pub pages: &'x [u32],
    /// Bytes from one page of this head to the next.
    pub stride: usize,
    /// How the numbers are stored.
    pub types: KvTypes,
    /// Numbers of a key.
    pub dim_k: usize,
    /// Numbers of a value.
    pub dim_v: usize,
}

impl<'x> KvBlocks<'x> {
    /// Keys and values of a block; empty for a missing one.
    #[inline(never)]
    fn block(&self, block: usize) -> (&'x [u8], &'x [u8]) {
        let Some(page) = self.pages.get(block) else { return (&[], &[]) };
        let from = (*page as usize).saturating_mul(self.stride);
        let (keys, values) =
            (self.types.keys.key_bytes(self.dim_k), self.types.values.value_bytes(self.dim_v));
        let block = self.data.get(from..).and_then(|rest| rest.get(..keys.saturating_add(values)));
        block.and_then(|block| block.split_at_checked(keys)).unwrap_or_default()
    }

    /// Keys of a block.
    #[inline(always)]
    pub(super) fn keys(&self, block: usize) -> &'x [u8] {
        self.block(block).0
    }

    /// Values of a block.
    #[inline(always)]
    pub(super) fn values(&self, block: usize) -> &'x [u8] {
        self.block(block).1
    }
}

/// The part of one chunk that a query sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Index of the chunk's first block.
    pub first_block: usize,
    /// Positions that are seen, counted from the chunk's first; the end is at most [`ATTENTION_CHUNK`].
    pub seen: Range<usize>,
}

impl Span {
    /// The chunks of which a query that sees `positions` sees something.
    pub fn chunks(positions: &Range<usize>) -> Range<usize> {
        positions.start / ATTENTION_CHUNK..positions.end.div_ceil(ATTENTION_CHUNK)
    }

    /// What a query that sees `positions` sees of chunk `chunk`.
    pub fn of_chunk(chunk: usize, positions: &Range<usize>) -> Self {
        let base = chunk.saturating_mul(ATTENTION_CHUNK);
        let inside = |position: usize| position.saturating_sub(base).min(ATTENTION_CHUNK);
        Self { first_block: base / KV_BLOCK, seen: inside(positions.start)..inside(positions.end) }
    }

    /// Leaves out what lies behind the chunk's end or behind `blocks` blocks of the cache.
    fn cut(&mut self, blocks: usize) {
        let there = blocks.saturating_sub(self.first_block).saturating_mul(KV_BLOCK).min(ATTENTION_CHUNK);
        self.seen = self.seen.start.min(there)..self.seen.end.min(there);
    }

    /// The chunk's blocks of which something is seen, counted from its first, and what is seen.
    #[inline(always)]
    pub(super) fn blocks(&self) -> (Range<usize>, Range<usize>) {
        let end = self.seen.end.min(ATTENTION_CHUNK);
        let start = self.seen.start.min(end);
        (start / KV_BLOCK..end.div_ceil(KV_BLOCK), start..end)
    }

    /// The chunk's blocks of which any of `spans` sees something, or that lie between such.
    #[inline(always)]
    pub(super) fn all_blocks(spans: &[Span]) -> Range<usize> {
        let (mut start, mut end) = (usize::MAX, 0);
        for span in spans {
            let (blocks, _) = span.blocks();
            if !blocks.is_empty() {
                (start, end) = (start.min(blocks.start), end.max(blocks.end));
            }
        }
        start.min(end)..end
    }
}

/// What the queries that share one KV head look at, and how.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'x> {
    /// The cache.
    pub kv: KvBlocks<'x>,
    /// Factor of the scores, usually `1 / sqrt(dim_k)`.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`; 0 for none.
    pub softcap: f32,
}

/// How many queries of `group` heads each walk through a chunk together at best: what is read of it serves all of them.
pub const fn queries_together(group: usize) -> usize {
    let queries = TOGETHER / if group == 0 { 1 } else { group };
    if queries == 0 { 1 } else { queries }
}

/// Floats of scratch memory of [`attend_chunk`] for `heads` query heads, those of all its queries.
pub const fn attention_scratch(heads: usize) -> usize {
    let together = if heads < TOGETHER { heads } else { TOGETHER };
    together * ATTENTION_CHUNK
}

/// Floats of the partial of one head: `dim_v` sums, then the maximum and the sum of its softmax.
pub const fn attention_partial(dim_v: usize) -> usize {
    dim_v.saturating_add(2)
}

/// The partials of one chunk for some queries, to `[query][group]{ sums: [dim_v], max, sum }`.
///
/// `q: [query][group][dim_k]` holds the query heads, already rotated, and is rounded in its memory to what the scores are
/// computed from, so that it is of no use afterwards; `spans` tells what each query sees of the chunk, all from one first
/// block on. Heads are those that `q` and
/// `partial` have room for, positions those that the cache holds. A chunk of which nothing is seen has sums of 0 and a
/// maximum of -inf. `scratch` holds [`attention_scratch`] floats; with less the result is the same, later, and with less
/// than those of one head nothing is written. The results of a query do not depend on the others.
pub fn attend_chunk(
    kernels: &Kernels,
    args: &Attention<'_>,
    q: &mut [f32],
    spans: &mut [Span],
    partial: &mut [f32],
    scratch: &mut [f32],
) {
    let KvBlocks { types, dim_k, dim_v, .. } = args.kv;
    let scores = scratch.as_chunks_mut::<ATTENTION_CHUNK>().0;
    let Some(group) = q.len().checked_div(dim_k).and_then(|heads| heads.checked_div(spans.len())) else {
        return;
    };
    let together = (scores.len().min(TOGETHER)).checked_div(group).unwrap_or(0);
    if group == 0 || scores.is_empty() {
        return;
    }
    spans.iter_mut().for_each(|span| span.cut(args.kv.pages.len()));
    // As many queries at once as there is room for, or a part of the heads of one.
    let heads = if together > 0 { together * group } else { scores.len().min(TOGETHER) };
    let one = attention_partial(dim_v);
    let queries = q.chunks_mut(dim_k.saturating_mul(group * together.max(1)).max(1));
    let partials = partial.chunks_mut(one.saturating_mul(group * together.max(1)).max(1));
    for ((q, partial), spans) in queries.zip(partials).zip(spans.chunks(together.max(1))) {
        let parts = q
            .chunks_mut(dim_k.saturating_mul(heads).max(1))
            .zip(partial.chunks_mut(one.saturating_mul(heads).max(1)));
        for (q, partial) in parts {
            let Some(scores) = scores.get_mut(..q.len() / dim_k.max(1)) else { return };
            types.keys.of(&kernels.attention_scores)(q, &args.kv, spans, args.scale, scores);
            (kernels.attention_softmax)(args.softcap, spans, scores, dim_v, partial);
            types.values.of(&kernels.attention_values)(scores, &args.kv, spans, partial);
        }
    }
}

/// `out = sums / sum`, for every head of a partial of all chunks.
pub fn attention_finish(dim_v: usize, partial: &[f32], out: &mut [f32]) {
    if dim_v == 0 {
        return;
    }
    for (out, partial) in out.chunks_exact_mut(dim_v).zip(partial.chunks_exact(attention_partial(dim_v))) {
        let Some((sums, [_, sum])) = partial.split_last_chunk() else { return };
        for (out, value) in out.iter_mut().zip(sums) {
            *out = value / sum;
        }
    }
}

/// Writes one position of one head: `k` to lane, `v` to line `position % 16` of the head's part of a page.
pub fn store_position(
    kernels: &Kernels,
    types: KvTypes,
    k: &[f32],
    v: &[f32],
    position: usize,
    head: &mut [u8],
) {
    let Some((keys, values)) = head.split_at_mut_checked(types.keys.key_bytes(k.len())) else { return };
    types.keys.of(&kernels.store_key)(k, position % KV_BLOCK, keys);
    types.values.of(&kernels.store_value)(v, position % KV_BLOCK, values);
}
