//! What the loops of attention look at: slices and ranges, worked out by code that all instruction sets share.
//!
//! The loops are compiled for every instruction set, type of numbers and number of heads. What is here depends on
//! little of that and is most of the code around a loop, so it is kept out of line.

use super::super::{ATTENTION_CHUNK, ChunkScores, KV_BLOCK, KvBlocks, Span};
use super::cache::{Number, numbers};
use super::integers::{Pair, key_integers};
use super::lanes::LANES;
use crate::tensor::BLOCK;
use core::ops::Range;

/// The keys of the blocks of a chunk that some queries look at.
pub(super) struct Chunk<'x> {
    /// Those of `blocks`.
    keys: [&'x [u8]; CHUNK_BLOCKS],
    /// Where they begin, and behind the last ones the first values, which are needed next.
    starts: [*const u8; CHUNK_BLOCKS + MOST_BLOCKS],
    /// Counted from the chunk's first.
    pub blocks: Range<usize>,
    /// Numbers of a key.
    pub dim: usize,
}

/// Most blocks whose keys are taken together.
const MOST_BLOCKS: usize = 4;

/// Keys of some blocks, all of one length, and where in memory what will be needed next begins.
pub(in crate::kernels) struct Keys<'x, const B: usize> {
    pub(super) bytes: [&'x [u8]; B],
    pub(super) ahead: [*const u8; B],
}

impl<'x> Chunk<'x> {
    /// Of the chunk that `spans` are of.
    #[inline(never)]
    pub fn new(kv: &KvBlocks<'x>, spans: &[Span]) -> Self {
        let (first_block, blocks) =
            (spans.first().map_or(0, |span| span.first_block), Span::all_blocks(spans));
        let mut chunk = Self {
            keys: [&[]; CHUNK_BLOCKS],
            starts: [core::ptr::null(); CHUNK_BLOCKS + MOST_BLOCKS],
            blocks,
            dim: kv.dim_k,
        };
        let (mut starts, first) = (chunk.starts.iter_mut(), first_block.saturating_add(chunk.blocks.start));
        for ((b, keys), start) in (first..).zip(&mut chunk.keys).take(chunk.blocks.len()).zip(&mut starts) {
            *keys = kv.keys(b);
            *start = keys.as_ptr();
        }
        for (b, start) in (first..).zip(starts).take(MOST_BLOCKS) {
            *start = kv.values(b).as_ptr();
        }
        chunk
    }

    /// The first `B` blocks of `blocks`; `None` if there are fewer, or if one is not as long as the others.
    #[inline(never)]
    pub fn keys<const B: usize>(&self, blocks: &Range<usize>) -> Option<Keys<'x, B>> {
        const { assert!(B <= MOST_BLOCKS) };
        let at = blocks.start.checked_sub(self.blocks.start)?;
        let bytes = *self.keys.get(at..at + blocks.len())?.first_chunk()?;
        let ahead = *self.starts.get(at + B..)?.first_chunk()?;
        let [one, rest @ ..] = &bytes[..] else { return None };
        rest.iter().all(|other: &&[u8]| other.len() == one.len()).then_some(Keys { bytes, ahead })
    }
}

/// The first `N` of the queries of `dim` numbers that follow one another; empty ones behind the last.
#[inline(never)]
pub(super) fn rows<const N: usize>(q: &[f32], dim: usize) -> [&[f32]; N] {
    let mut rows: [&[f32]; N] = [&[]; N];
    for (row, q) in rows.iter_mut().zip(q.chunks_exact(dim.max(1))) {
        *row = q;
    }
    rows
}

/// What is behind the first `from` numbers of each.
#[inline(never)]
pub(super) fn behind<'x, const N: usize>(rows: &[&'x [f32]; N], from: usize) -> [&'x [f32]; N] {
    rows.map(|row| row.get(from..).unwrap_or_default())
}

/// Where the scores of block `block` and those behind it go, a line a block, for `N` heads.
#[inline(never)]
pub(super) fn places<const N: usize>(
    scores: &mut [ChunkScores; N],
    block: usize,
) -> [&mut [[f32; LANES]]; N] {
    let mut places: [&mut [[f32; LANES]]; N] = core::array::from_fn(|_| &mut [][..]);
    for (place, scores) in places.iter_mut().zip(scores) {
        *place = scores.as_chunks_mut().0.get_mut(block..).unwrap_or_default();
    }
    places
}

/// Numbers in lines of 16.
#[inline(never)]
pub(super) fn lines<'x, T: Number, const B: usize>(bytes: &[&'x [u8]; B]) -> [&'x [[T; LANES]]; B] {
    bytes.map(|bytes| numbers(bytes).as_chunks().0)
}

/// Bytes and scales of a block of keys or values of `dim` numbers of [`super::cache::Q8`].
#[inline(always)]
pub(super) fn parts(block: &[u8], dim: usize) -> (&[i8], &[[u16; LANES]]) {
    let (bytes, scales) = block.split_at_checked(dim.saturating_mul(KV_BLOCK)).unwrap_or_default();
    (numbers(bytes), numbers(scales).as_chunks().0)
}

/// Keys of 32 numbers of a position at most, which share a scale.
pub(super) struct Piece<'x, const B: usize> {
    pub lines: [&'x [[i8; LANES]]; B],
    pub scales: [&'x [u16; LANES]; B],
}

/// Piece `piece` of keys of `dim` numbers; a scale that is missing is 0.
#[inline(never)]
pub(super) fn piece<'x, const B: usize>(keys: &[&'x [u8]; B], dim: usize, piece: usize) -> Piece<'x, B> {
    let mut of = Piece { lines: [&[]; B], scales: [&[0; LANES]; B] };
    let first = piece.saturating_mul(BLOCK);
    for ((keys, lines), scale) in keys.iter().zip(&mut of.lines).zip(&mut of.scales) {
        let (bytes, scales) = parts(keys, dim);
        *lines = bytes.as_chunks().0.get(first..dim.min(first + BLOCK)).unwrap_or_default();
        *scale = scales.get(piece).unwrap_or(scale);
    }
    of
}

/// The scales of the `S` strips of 16 numbers from number `at` on; `None` if one is missing.
#[inline(never)]
pub(super) fn scales_of_strips<const S: usize>(
    scales: &[[u16; LANES]],
    at: usize,
) -> Option<[&[u16; LANES]; S]> {
    let mut of = [&[0; LANES]; S];
    for (s, of) in of.iter_mut().enumerate() {
        *of = scales.get(at.saturating_add(s * LANES) / BLOCK)?;
    }
    Some(of)
}

/// Rows of queries and lines of keys, cut to one length in sight of the compiler, so that a loop over them needs no checks;
/// `None` if a row or a block is shorter than the longest block.
#[inline(always)]
pub(super) fn cut<'x, R, T, const N: usize, const B: usize>(
    rows: &[&'x [R]; N],
    blocks: &[&'x [T]; B],
) -> Option<(usize, [&'x [R]; N], [&'x [T]; B])> {
    let count = blocks.iter().map(|lines| lines.len()).max()?;
    let (mut cut_rows, mut cut_blocks) = ([&[] as &[R]; N], [&[] as &[T]; B]);
    for (place, row) in cut_rows.iter_mut().zip(rows) {
        *place = row.get(..count)?;
    }
    for (place, block) in cut_blocks.iter_mut().zip(blocks) {
        *place = block.get(..count)?;
    }
    Some((count, cut_rows, cut_blocks))
}

/// Pairs of some queries, and those of the keys of some blocks that meet them.
pub(super) struct PairLines<'x, const N: usize, const B: usize> {
    pub rows: [&'x [Pair]; N],
    pub lines: [&'x [[Pair; LANES]]; B],
}

/// Those of rounded queries, and of keys of as many numbers.
#[inline(never)]
pub(super) fn pair_lines<'x, const N: usize, const B: usize>(
    q: &[&'x [f32]; N],
    keys: &[&'x [u8]; B],
    pairs: Range<usize>,
) -> PairLines<'x, N, B> {
    let mut of = PairLines { rows: [&[]; N], lines: [&[]; B] };
    let dim = q.first().map_or(0, |q| q.len());
    for (row, q) in of.rows.iter_mut().zip(q) {
        *row = bytemuck::cast_slice(q).get(pairs.clone()).unwrap_or_default();
    }
    for (lines, keys) in of.lines.iter_mut().zip(keys) {
        let integers = numbers(keys.get(..key_integers(dim)).unwrap_or_default());
        *lines = integers.as_chunks().0.get(pairs.clone()).unwrap_or_default();
    }
    of
}

/// The values of the blocks of a chunk.
pub(in crate::kernels) struct Values<'x> {
    /// And of the one behind them.
    pub(super) blocks: [&'x [u8]; CHUNK_BLOCKS + 1],
    /// Numbers of a value.
    pub(super) dim: usize,
}

impl<'x> Values<'x> {
    /// Those of blocks `blocks` of the chunk that `spans` are of.
    #[inline(never)]
    pub fn new(kv: &KvBlocks<'x>, spans: &[Span], blocks: &Range<usize>) -> Self {
        let mut values = Self { blocks: [&[]; CHUNK_BLOCKS + 1], dim: kv.dim_v };
        let first_block = spans.first().map_or(0, |span| span.first_block);
        let end = blocks.end.saturating_add(1);
        for (block, values) in values.blocks.iter_mut().enumerate().take(end).skip(blocks.start) {
            *values = kv.values(first_block.saturating_add(block));
        }
        values
    }
}

/// What some heads see of a chunk.
pub(super) struct Sights<const N: usize> {
    /// The blocks of which something is seen.
    pub blocks: Range<usize>,
    /// Those of which every head sees all.
    whole: Range<usize>,
    seen: [Range<usize>; N],
}

/// Blocks of a chunk.
pub(super) const CHUNK_BLOCKS: usize = ATTENTION_CHUNK / KV_BLOCK;

impl<const N: usize> Sights<N> {
    /// For the `N` heads from `head` on, of `heads`; `None` if one has no span.
    #[inline(never)]
    pub fn new(spans: &[Span], head: usize, heads: usize) -> Option<Self> {
        let mut sights = Self { blocks: 0..0, whole: 0..usize::MAX, seen: [const { 0..0 }; N] };
        for (n, seen) in sights.seen.iter_mut().enumerate() {
            let span = span_of(spans, head.saturating_add(n), heads)?;
            let (blocks, positions) = span.blocks();
            if !blocks.is_empty() {
                let Range { start, end } = sights.blocks;
                let all = if start == end { blocks } else { start.min(blocks.start)..end.max(blocks.end) };
                sights.blocks = all;
            }
            let Range { start, end } = &mut sights.whole;
            *start = (*start).max(positions.start.div_ceil(KV_BLOCK));
            *end = (*end).min(positions.end / KV_BLOCK);
            *seen = positions;
        }
        Some(sights)
    }

    /// Whether every head sees all of a block.
    #[inline(always)]
    pub fn whole(&self, block: usize) -> bool {
        self.whole.contains(&block)
    }

    /// What every head sees of a block, and what each sees behind that. Heads that begin differently share nothing.
    #[cold]
    #[inline(never)]
    pub fn positions(&self, block: usize) -> (Range<usize>, [Range<usize>; N]) {
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

/// Head `head` of `heads` belongs to this span.
#[inline(always)]
pub(super) fn span_of(spans: &[Span], head: usize, heads: usize) -> Option<&Span> {
    spans.get(head / (heads / spans.len().max(1)).max(1))
}

/// Writes the sums of some heads, `S` strips of 16 each, to those `numbers` of their partials of `len`, as many as there
/// are.
#[inline(never)]
pub(super) fn put<const S: usize>(
    sums: &[[[f32; LANES]; S]],
    partial: &mut [f32],
    len: usize,
    numbers: Range<usize>,
) {
    for (line, sums) in partial.chunks_exact_mut(len.max(1)).zip(sums) {
        let line = line.get_mut(numbers.clone()).unwrap_or_default();
        for (out, sum) in line.iter_mut().zip(sums.as_flattened()) {
            *out = *sum;
        }
    }
}
