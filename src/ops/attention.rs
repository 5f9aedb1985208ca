//! Attention: keys and values to the cache, then queries against it.

use super::norm::Norm;
use super::{Runner, column};
use crate::kernels::{
    Attention, Kernels, KvBlocks, KvTypes, RopePairs, Span, attend_chunk, attention_finish,
    attention_partial, attention_scratch, store_position,
};
use crate::mem::split::Tiles;
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

    /// Floats of scratch memory of a worker.
    pub fn scratch(&self) -> usize {
        let group = self.group();
        // The queries, the partials so far and those of one more chunk, the scores.
        let attend = group * (self.dim_k + 2 * attention_partial(self.dim_v)) + attention_scratch(group);
        attend.max(self.dim_k)
    }

    /// Floats of the partials of the query heads of a KV head.
    pub fn partial(&self) -> usize {
        self.group() * attention_partial(self.dim_v)
    }

    /// `out = rotate(norm(head))` for one head of one column.
    fn turn(&self, kernels: &Kernels, norm: Option<&Norm<'_>>, col: usize, head: &[f32], out: &mut [f32]) {
        match norm {
            Some(norm) => norm.apply(kernels, head, out),
            None => out.copy_from_slice(head),
        }
        if let Some((pairs, table, half)) = self.rope {
            let angles = column(table, col, 2 * half);
            let (cos, sin) = angles.split_at(half.min(angles.len()));
            (kernels.rope)(pairs, out, cos, sin);
        }
    }
}

/// Norms, rotates and stores the keys, and stores the values, of all columns: a job a KV head. `layer` is the cache's
/// layer, `[page][kv head]`, and `page` tells the page of a column.
pub fn store(
    run: Runner<'_>,
    heads: &Heads<'_>,
    qkv: &[f32],
    page: impl Fn(usize) -> u32 + Sync,
    types: KvTypes,
    layer: &mut [u8],
) {
    let kernels = run.kernels();
    let head_bytes = types.keys.key_bytes(heads.dim_k) + types.values.value_bytes(heads.dim_v);
    let stride = heads.kv_heads * head_bytes;
    let pages = layer.len() / stride.max(1);
    let (columns, q) = (heads.stride(), heads.heads * heads.dim_k);
    let norm = heads.qk_norm.as_ref().map(|(_, k)| k);
    run.run((Tiles::new(layer, stride, stride, head_bytes, pages),), |head, (mut tile,), scratch| {
        let Some(turned) = scratch.get_mut(..heads.dim_k) else { return };
        for (col, position) in heads.positions.iter().enumerate() {
            let qkv = column(qkv, col, columns);
            let k = qkv.get(q..).unwrap_or_default();
            let v = qkv.get(q + heads.kv_heads * heads.dim_k..).unwrap_or_default();
            let (k, v) = (column(k, head, heads.dim_k), column(v, head, heads.dim_v));
            if k.is_empty() || v.is_empty() {
                return;
            }
            heads.turn(kernels, norm, col, k, turned);
            store_position(kernels, types, turned, v, *position as usize, tile.line(page(col) as usize));
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
    /// Positions seen, the current one included; `None` for all.
    pub window: Option<usize>,
}

impl Scores {
    /// The positions that a query at `position` sees.
    fn seen(&self, position: usize) -> Range<usize> {
        let end = position.saturating_add(1);
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }
}

/// Attends; `cache` gives the blocks of a column's sequence and a KV head. Job `column * kv_heads + kv head` writes the
/// results of its group of query heads to `out: [columns][heads * dim_v]`.
pub fn attend<'c>(
    run: Runner<'_>,
    heads: &Heads<'_>,
    scores: &Scores,
    qkv: &[f32],
    cache: impl Fn(usize, usize) -> KvBlocks<'c> + Sync,
    out: &mut [f32],
) {
    let kernels = run.kernels();
    let (group, stride, width) = (heads.group(), heads.stride(), heads.heads * heads.dim_v);
    let norm = heads.qk_norm.as_ref().map(|(q, _)| q);
    run.run((Tiles::new(out, width, width, group * heads.dim_v, 1),), |_, (mut tile,), scratch| {
        let (col, head) = (tile.first_line(), tile.first() / (group * heads.dim_v));
        let Some((q, scratch)) = scratch.split_at_mut_checked(group * heads.dim_k) else { return };
        let source = column(qkv, col, stride);
        let source = source.get(head * q.len()..).and_then(|rest| rest.get(..q.len())).unwrap_or_default();
        for (from, to) in source.chunks_exact(heads.dim_k).zip(q.chunks_exact_mut(heads.dim_k)) {
            heads.turn(kernels, norm, col, from, to);
        }
        let position = heads.positions.get(col).map_or(0, |position| *position as usize);
        let Scores { scale, softcap, .. } = *scores;
        let args = Attention { q, kv: cache(col, head), scale, softcap };
        let Some((running, scratch)) = scratch.split_at_mut_checked(heads.partial()) else { return };
        let Some((partial, scratch)) = scratch.split_at_mut_checked(heads.partial()) else { return };
        let seen = scores.seen(position);
        for chunk in Span::chunks(&seen) {
            let span = Span::of_chunk(chunk, &seen);
            if chunk == Span::chunks(&seen).start {
                attend_chunk(kernels, &args, &span, running, scratch);
            } else {
                attend_chunk(kernels, &args, &span, partial, scratch);
                (kernels.attention_merge)(heads.dim_v, running, partial);
            }
        }
        attention_finish(heads.dim_v, running, tile.line(0));
    });
}
