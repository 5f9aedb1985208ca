//! The battery of attention and of the cache: every table against the scalar one, bit by bit, for every type of numbers,
//! and the scalar one against plain `f64` code with derived bounds.

extern crate std;

use super::testkit_cache::q8_0_error;
use super::testkit_vector::{Rng, U, close, same};
use super::*;
use core::ops::Range;
use std::vec;
use std::vec::Vec;

/// A cache of random keys and values for one head, with more between its blocks.
pub(super) struct Cache {
    /// Numbers of 4 bytes, so that all types are aligned.
    data: Vec<u32>,
    pages: Vec<u32>,
    /// What was stored.
    k: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
    dims: (usize, usize),
    types: KvTypes,
}

const GAP: usize = 28;

/// Each type for keys with itself and with the next one for values: kernels know of one of the two.
fn all_types() -> impl Iterator<Item = KvTypes> {
    let next = KvType::ALL.into_iter().cycle().skip(1);
    let pairs = KvType::ALL.into_iter().zip(next);
    pairs.flat_map(|(keys, next)| [keys, next].map(|values| KvTypes { keys, values }))
}

impl Cache {
    pub(super) fn new(
        rng: &mut Rng,
        table: &Kernels,
        positions: usize,
        dims: (usize, usize),
        types: KvTypes,
    ) -> Self {
        Self::filled(table, positions, dims, types, |_| (rng.units(dims.0, 1.0), rng.units(dims.1, 1.0)))
    }

    /// A cache of the keys and values that `next` gives for each position.
    pub(super) fn filled(
        table: &Kernels,
        positions: usize,
        dims: (usize, usize),
        types: KvTypes,
        mut next: impl FnMut(usize) -> (Vec<f32>, Vec<f32>),
    ) -> Self {
        let head = types.keys.key_bytes(dims.0) + types.values.value_bytes(dims.1);
        let blocks = positions.div_ceil(KV_BLOCK);
        // Whatever has not been stored is NaN, as f16, float and scale: nothing may look at it.
        let data = vec![u32::MAX; (head + GAP) / 4 * blocks];
        // Blocks stand in no order: 7 shares no factor with any number of them used here.
        assert!(!blocks.is_multiple_of(7));
        let pages: Vec<u32> = (0..blocks as u32).map(|block| (block * 7 + 3) % blocks as u32).collect();
        let mut cache = Self { data, pages, k: vec![], v: vec![], dims, types };
        for p in 0..positions {
            let (k, v) = next(p);
            let page = cache.pages[p / KV_BLOCK] as usize * (head + GAP);
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut cache.data);
            store_position(table, types, &k, &v, p, &mut bytes[page..][..head]);
            cache.k.push(k);
            cache.v.push(v);
        }
        cache
    }

    pub(super) fn kv(&self) -> KvBlocks<'_> {
        let Self { dims: (dim_k, dim_v), types, .. } = *self;
        let stride = types.keys.key_bytes(dim_k) + types.values.value_bytes(dim_v) + GAP;
        KvBlocks { data: bytemuck::cast_slice(&self.data), pages: &self.pages, stride, types, dim_k, dim_v }
    }

    /// Key and value of a position as they are stored.
    pub(super) fn stored(&self, position: usize) -> (Vec<f32>, Vec<f32>) {
        let (kv, p) = (self.kv(), position % KV_BLOCK);
        let block = &kv.data[kv.pages[position / KV_BLOCK] as usize * kv.stride..];
        let (keys, values) = block.split_at(kv.types.keys.key_bytes(kv.dim_k));
        let values = &values[..kv.types.values.value_bytes(kv.dim_v)];
        let keys = (0..kv.dim_k).map(|d| {
            let pair = (d / 2 * 16 + p) * 2 + d % 2;
            number(kv.types.keys, keys, (d * 16 + p, pair), kv.dim_k, (d, p))
        });
        let values = (0..kv.dim_v).map(|d| {
            let pair = (p / 2 * kv.dim_v + d) * 2 + p % 2;
            number(kv.types.values, values, (p * kv.dim_v + d, pair), kv.dim_v, (d, p))
        });
        (keys.collect(), values.collect())
    }
}

/// Number `d` of position `p` of a block of `dim` numbers a position: where it stands alone, or where in pairs.
fn number(kind: KvType, block: &[u8], (at, pair): (usize, usize), dim: usize, (d, p): (usize, usize)) -> f32 {
    let two = |at: usize| u16::from_ne_bytes(block[at..at + 2].try_into().unwrap());
    let half = |at: usize| half::f16::from_bits(two(at)).to_f32_const();
    let four = |at: usize| f32::from_ne_bytes(block[at..at + 4].try_into().unwrap());
    match kind {
        KvType::F16 => half(2 * at),
        KvType::F32 => four(4 * at),
        KvType::Q8_0 => block[at] as i8 as f32 * half(dim * 16 + 2 * (d / 32 * 16 + p)),
        KvType::I16 => two(2 * pair) as i16 as f32 * four(block.len() - 64 + 4 * p),
    }
}

/// The results of a group of heads, chunk by chunk.
pub(super) fn attend(table: &Kernels, q: &[f32], args: &Attention<'_>, seen: Range<usize>) -> Vec<f32> {
    let (group, dim_v) = (q.len() / args.kv.dim_k, args.kv.dim_v);
    let mut scratch = vec![f32::NAN; attention_scratch(group)];
    let mut running = vec![f32::NAN; group * attention_partial(dim_v)];
    for chunk in Span::chunks(&seen) {
        let mut partial = vec![f32::NAN; running.len()];
        attend_chunk(
            table,
            args,
            &mut q.to_vec(),
            &mut [Span::of_chunk(chunk, &seen)],
            &mut partial,
            &mut scratch,
        );
        if chunk == Span::chunks(&seen).start {
            running = partial;
        } else {
            (table.attention_merge)(dim_v, &mut running, &partial);
        }
    }
    let mut out = vec![f32::NAN; group * dim_v];
    attention_finish(dim_v, &running, &mut out);
    out
}

/// Sizes of heads, as in models and as in none.
const DIMS: [(usize, usize); 10] =
    [(64, 64), (128, 128), (256, 256), (80, 96), (1, 5), (5, 1), (31, 33), (32, 31), (33, 32), (128, 80)];
/// First position and the one behind the last.
pub(super) const RANGES: [(usize, usize); 10] =
    [(0, 1), (0, 16), (0, 17), (3, 5), (0, 256), (0, 257), (250, 700), (255, 256), (512, 529), (17, 523)];

/// Everything of this file, for one table.
pub(super) fn battery(table: &Kernels) {
    entries_equal_scalar(table);
    attention_equals_scalar(table);
    queries_together_equal_queries_alone(table);
    any_numbers_are_stored_alike(table);
    attention_survives_any_cache(table);
}

/// Each entry by itself, on spans of all kinds, with blocks that are missing.
fn entries_equal_scalar(table: &Kernels) {
    let mut rng = Rng(4);
    #[allow(clippy::reversed_empty_ranges, reason = "nor may such a one do harm")]
    let spans = [0..256, 0..1, 5..6, 15..17, 16..32, 31..250, 17..400, 9..3, 240..256, 0..0, 300..500];
    for (dim_k, dim_v) in DIMS {
        for types in all_types() {
            let mut cache = Cache::new(&mut rng, table, 300, (dim_k, dim_v), types);
            cache.pages[2] = u32::MAX;
            let kv = cache.kv();
            for (round, seen) in spans.clone().into_iter().enumerate() {
                let group = 1 + round % 9;
                let span = Span { first_block: round % 4, seen };
                let (q, softcap) = (rng.units(group * dim_k, 2.0), (round % 2) as f32 * 3.0);
                let spans = [span.clone()];
                let run = |t: &Kernels| {
                    let mut scores = vec![[-9.0; ATTENTION_CHUNK]; group];
                    let mut partial = vec![7.0; group * attention_partial(dim_v) + 1];
                    (t.attention_scores[types.keys.index()])(&mut q.clone(), &kv, &spans, 0.7, &mut scores);
                    let before = scores.clone();
                    (t.attention_softmax)(softcap, &spans, &mut scores, dim_v, &mut partial);
                    let exponentials = scores.clone();
                    (t.attention_values[types.values.index()])(&mut scores, &kv, &spans, &mut partial);
                    let mut merged = partial.clone();
                    merged.iter_mut().for_each(|x| *x *= 0.75);
                    (t.attention_merge)(dim_v, &mut merged, &partial);
                    (before, exponentials, partial, merged)
                };
                let (got, expected) = (run(table), run(&SCALAR));
                same("scores", got.0.as_flattened(), expected.0.as_flattened());
                same("exponentials", got.1.as_flattened(), expected.1.as_flattened());
                same("partial", &got.2, &expected.2);
                same("merged", &got.3, &expected.3);
                // What is not seen weighs nothing; blocks without anything seen are left alone.
                let (blocks, seen) = span.blocks();
                for p in 0..ATTENTION_CHUNK {
                    let block = blocks.contains(&(p / KV_BLOCK));
                    assert!(block || got.1.iter().all(|e| e[p] == -9.0));
                    assert!(!block || seen.contains(&p) || got.1.iter().all(|e| e[p] == 0.0));
                }
            }
        }
    }
}

fn attention_equals_scalar(table: &Kernels) {
    let mut rng = Rng(5);
    for (turn, dims) in DIMS.into_iter().enumerate() {
        for (round, types) in all_types().enumerate() {
            let mut before = rng.clone();
            let cache = Cache::new(&mut rng, table, 700, dims, types);
            assert_eq!(cache.data, Cache::new(&mut before, &SCALAR, 700, dims, types).data);
            for group in [1 + (turn + round) % 9, if round == turn % 8 { 12 } else { 1 }] {
                let q = rng.units(group * dims.0, 2.0);
                for (first, end) in RANGES {
                    let softcap = if end % 2 == 0 { 0.0 } else { 5.0 };
                    let args = Attention { kv: cache.kv(), scale: 0.7, softcap };
                    let expected = attend(&SCALAR, &q, &args, first..end);
                    assert!(expected.iter().all(|x| x.is_finite()));
                    same("attention", &attend(table, &q, &args, first..end), &expected);
                    // A head's result does not depend on which heads it is computed with.
                    for (q, expected) in q.chunks_exact(dims.0).zip(expected.chunks_exact(dims.1)) {
                        same("alone", &attend(table, q, &args, first..end), expected);
                    }
                }
            }
        }
    }
}

/// Queries that walk through a chunk together, whatever each of them sees of it.
fn queries_together_equal_queries_alone(table: &Kernels) {
    let mut rng = Rng(14);
    for (turn, dims) in DIMS.into_iter().enumerate() {
        for types in all_types() {
            let cache = Cache::new(&mut rng, table, 600, dims, types);
            let args = Attention { kv: cache.kv(), scale: 0.7, softcap: (turn % 2) as f32 * 5.0 };
            for queries in 1..=TOGETHER {
                let group = 1 + rng.below(4);
                let one = group * attention_partial(dims.1);
                let q = rng.units(queries * group * dims.0, 2.0);
                let ends: Vec<_> = (0..queries).map(|_| (rng.below(256), rng.below(256))).collect();
                // As in prompts, one position more each time; or with a window; or anything.
                for kind in 0..3 {
                    let span = |i: usize| match kind {
                        0 => Span { first_block: 16, seen: 0..ends[0].1 + i },
                        1 => Span { first_block: 16, seen: (ends[0].0 / 2 + i)..ends[0].0 + i + 1 },
                        _ => Span { first_block: 16, seen: ends[i].0..ends[i].1 },
                    };
                    let mut spans: Vec<_> = (0..queries).map(span).collect();
                    let mut partial = vec![f32::NAN; queries * one];
                    let mut scratch = vec![f32::NAN; attention_scratch(queries * group)];
                    attend_chunk(table, &args, &mut q.clone(), &mut spans, &mut partial, &mut scratch);
                    for (i, (got, q)) in partial.chunks(one).zip(q.chunks(group * dims.0)).enumerate() {
                        let mut alone = vec![f32::NAN; one];
                        let spans = &mut [span(i)];
                        attend_chunk(&SCALAR, &args, &mut q.to_vec(), spans, &mut alone, &mut scratch);
                        same("together", got, &alone);
                    }
                }
            }
        }
    }
}

/// Keys and values that are infinite, NaN, huge or next to nothing give the same bytes and bits.
fn any_numbers_are_stored_alike(table: &Kernels) {
    let odd = [
        f32::NAN,
        -f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        -65520.0,
        8.4e6,
        1e-44,
        -1e-38,
        4e-37,
        7.4e-6,
        0.0,
        -0.0,
    ];
    for dims in DIMS {
        for types in all_types() {
            let mut rng = Rng(6);
            let mut any = |n: usize, p: usize| {
                let mut x = rng.units(n, if p % 4 == 3 { 1e-39 } else { 3.0 });
                if !p.is_multiple_of(4) {
                    x[rng.below(n)] = odd[rng.below(odd.len())];
                }
                x
            };
            let rows: Vec<_> = (0..80).map(|p| (any(dims.0, p), any(dims.1, p))).collect();
            let cache = Cache::filled(table, 80, dims, types, |p| rows[p].clone());
            let expected = Cache::filled(&SCALAR, 80, dims, types, |p| rows[p].clone());
            let q = rng.units(3 * dims.0, 2.0);
            for first in [0, 33, 64] {
                let args = Attention { kv: cache.kv(), scale: 0.7, softcap: 0.0 };
                let wanted = Attention { kv: expected.kv(), ..args };
                same("odd", &attend(table, &q, &args, first..80), &attend(&SCALAR, &q, &wanted, first..80));
            }
            for (p, (given_k, given_v)) in rows.iter().enumerate() {
                let ((got_k, got_v), (k, v)) = (cache.stored(p), expected.stored(p));
                same("key", &got_k, &k);
                same("value", &got_v, &v);
                // Nothing that is not finite goes by unseen.
                for (got, given, kind) in [(k, given_k, types.keys), (v, given_v, types.values)] {
                    let scaled = [KvType::Q8_0, KvType::I16].contains(&kind);
                    let share = if kind == KvType::I16 { given.len() } else { 32 };
                    for (got, given) in got.chunks(share).zip(given.chunks(share)) {
                        let finite = given.iter().all(|x| x.is_finite());
                        assert!(finite || !scaled || got.iter().all(|x| x.is_nan()));
                        if !scaled {
                            assert!(got.iter().zip(given).all(|(got, x)| got.is_nan() == x.is_nan()));
                            assert!(got.iter().zip(given).all(|(got, x)| x.is_finite() || !got.is_finite()));
                        }
                    }
                }
            }
        }
    }
}

/// Any bytes may be in the cache, and fewer than there should be.
fn attention_survives_any_cache(table: &Kernels) {
    let mut rng = Rng(7);
    for (dim_k, dim_v) in DIMS {
        for types in all_types() {
            let stride = types.keys.key_bytes(dim_k) + types.values.value_bytes(dim_v);
            let words: Vec<u32> = (0..5 * stride + 1).map(|_| rng.next() as u32).collect();
            let wild: &[u8] = bytemuck::cast_slice(&words);
            // Without NaN and infinity, as f16, float or scale.
            let tame: Vec<u32> = words.iter().map(|w| w & 0xbbff_bbff).collect();
            let q = rng.units(3 * dim_k, 1e-3);
            for data in [wild, bytemuck::cast_slice(&tame)] {
                for (first, end, stride) in
                    [(0, 320, stride), (5, 1000, stride), (0, 400, 0), (9, 3, stride), (0, 77, 4), (0, 40, 1)]
                {
                    let pages = [7, 3, 3, 0, u32::MAX, 19, 1 << 20, 18, 20];
                    let kv = KvBlocks { data, pages: &pages, stride, types, dim_k, dim_v };
                    let args = Attention { kv, scale: 1e-4, softcap: 0.0 };
                    same(
                        "any",
                        &attend(table, &q, &args, first..end),
                        &attend(&SCALAR, &q, &args, first..end),
                    );
                    let cut = KvBlocks { data: &data[..data.len().min(stride * 2 + 1)], ..kv };
                    let args = Attention { kv: cut, ..args };
                    same(
                        "cut",
                        &attend(table, &q, &args, first..end),
                        &attend(&SCALAR, &q, &args, first..end),
                    );
                }
            }
        }
    }
}

/// A cache of floats gives the same bits as one of f16 numbers when it holds the same numbers, and queries and weights
/// need no rounding: a single position weighs exactly 1.
#[test]
fn float_cache_equals_half_cache() {
    let mut rng = Rng(9);
    for dims in DIMS {
        let half = Cache::new(&mut rng, &SCALAR, 523, dims, KvType::F16.into());
        let float = Cache::filled(&SCALAR, 523, dims, KvType::F32.into(), |p| half.stored(p));
        let q: Vec<f32> = rng.units(3 * dims.0, 2.0).into_iter().map(super::vector::short).collect();
        let float = Attention { kv: float.kv(), scale: 0.7, softcap: 0.0 };
        let half = Attention { kv: half.kv(), ..float };
        for (first, end) in RANGES {
            let spans = [Span::of_chunk(0, &(first..end))];
            let scores = |args: &Attention<'_>| {
                let mut scores = vec![[0.0; ATTENTION_CHUNK]; 3];
                let kernel = args.kv.types.keys.of(&SCALAR.attention_scores);
                kernel(&mut q.clone(), &args.kv, &spans, args.scale, &mut scores);
                scores.into_flattened()
            };
            same("scores", &scores(&float), &scores(&half));
            let seen = first..first + 1;
            same("floats", &attend(&SCALAR, &q, &float, seen.clone()), &attend(&SCALAR, &q, &half, seen));
        }
    }
}

/// Attention in `f64`, of one head, and the largest weight of a position.
fn exact(
    q: &[f32],
    (k, v): (&[Vec<f32>], &[Vec<f32>]),
    seen: Range<usize>,
    scale: f32,
    softcap: f32,
) -> (Vec<f64>, f64) {
    let score = |p: usize| {
        let dot: f64 = q.iter().zip(&k[p]).map(|(q, k)| *q as f64 * *k as f64).sum();
        let s = dot * scale as f64;
        if softcap > 0.0 { softcap as f64 * (s / softcap as f64).tanh() } else { s }
    };
    let e: Vec<f64> = seen.clone().map(|p| score(p).exp()).collect();
    let total: f64 = e.iter().sum();
    let value = |d| e.iter().zip(&v[seen.clone()]).map(|(e, v)| e * v[d] as f64).sum::<f64>() / total;
    ((0..v[0].len()).map(value).collect(), e.iter().fold(0.0, |most: f64, e| most.max(*e)) / total)
}

#[test]
fn attention_matches_f64() {
    let mut rng = Rng(8);
    for dims in DIMS {
        for types in all_types() {
            let cache = Cache::new(&mut rng, &SCALAR, 700, dims, types);
            let (k, v): (Vec<_>, Vec<_>) = (0..700).map(|p| cache.stored(p)).unzip();
            for (first, end) in RANGES {
                let softcap = if first % 2 == 0 { 0.0 } else { 5.0 };
                let q = rng.units(2 * dims.0, 2.0);
                let scale = 1.0 / (dims.0 as f32).sqrt();
                let args = Attention { kv: cache.kv(), scale, softcap };
                let got = attend(&SCALAR, &q, &args, first..end);
                for (q, got) in q.chunks_exact(dims.0).zip(got.chunks_exact(dims.1)) {
                    // A score below 2 sqrt(d) is off by d roundings and those of the scales, a value of about 1 by two a
                    // position.
                    let score_error = 2.0 * (dims.0 as f64).sqrt() * (dims.0 as f64 * 1.04 + 10.0) * U;
                    // But for F32, queries and weights of 13 bits are off by up to 2^-13 on top; with I16 queries by
                    // that of the largest number of theirs.
                    let short = |kind| if kind == KvType::F32 { 0.0 } else { 2f64.powi(-13) };
                    let score_error = score_error + 2.0 * (dims.0 as f64).sqrt() * short(types.keys);
                    let bound = 2.02 * score_error + (2.0 * (end - first) as f64 + 40.0) * U;
                    let (wanted, most) = exact(q, (&k, &v), first..end, scale, softcap);
                    let bound = bound
                        + match types.values {
                            // Half a step of the largest, at each position.
                            KvType::I16 => (end - first) as f64 * 0.51 / 16383.0 * most,
                            kind => 2.0 * short(kind),
                        };
                    for (got, wanted) in got.iter().zip(wanted) {
                        close("attention", *got, wanted, bound);
                    }
                    // Against what was to be stored: by how much may a key and a value have been changed?
                    let change = |kind| match kind {
                        KvType::F16 => 2f64.powi(-11),
                        KvType::F32 => 0.0,
                        KvType::Q8_0 => q8_0_error(1.0),
                        KvType::I16 => 0.51 / 8191.0,
                    };
                    let size: f64 = q.iter().map(|q| q.abs() as f64).sum::<f64>() * scale as f64;
                    let weights_change = (2.0 * change(types.keys) * size).exp_m1();
                    let bound = bound + weights_change + change(types.values);
                    let wanted = exact(q, (&cache.k, &cache.v), first..end, scale, softcap).0;
                    for (got, wanted) in got.iter().zip(wanted) {
                        close("attention", *got, wanted, bound);
                    }
                }
            }
        }
    }
}

#[test]
fn a_chunk_without_weight_changes_nothing() {
    // Keys of -inf in the first, the second or the last of three chunks; the values there are finite.
    for chunk in 0..3 {
        for keys in [KvType::F16, KvType::F32] {
            for values in KvType::ALL {
                let cache = Cache::filled(&SCALAR, 768, (1, 1), KvTypes { keys, values }, |p| {
                    let k = if p / 256 == chunk { f32::NEG_INFINITY } else { 0.0 };
                    (vec![k], vec![(p / 256) as f32 * 127.0])
                });
                let args = Attention { kv: cache.kv(), scale: 1.0, softcap: 0.0 };
                let (got, wanted) =
                    (attend(&SCALAR, &[1.0], &args, 0..768)[0], (3 - chunk) as f64 / 2.0 * 127.0);
                // 127 is a number of all types but the one whose scale is rounded to 32 bits.
                close("without", got, wanted, if values == KvType::I16 { 1e-6 * wanted } else { 0.0 });
                assert!(attend(&SCALAR, &[1.0], &args, 256 * chunk..256 * chunk + 9)[0].is_nan());
            }
        }
    }
}

/// What is exact needs no rounding, so a fused product and sum is the same as both one after the other.
#[test]
fn short_numbers_have_exact_products() {
    let long = |x| std::hint::black_box(f64::from(x)); // QEMU 7.2 for s390x fails to multiply f32 into f64.
    let exact = |a: f32, b: f32| long(a) * long(b) == long(a * b);
    let mut rng = Rng(15);
    for _ in 0..200_000 {
        let x = f32::from_bits(rng.next() as u32);
        let short = super::vector::short(x);
        assert!(
            short.is_nan() == x.is_nan()
                && (short.is_nan() || short.is_sign_negative() == x.is_sign_negative())
        );
        assert!(super::vector::short(short).to_bits() == short.to_bits() || short.is_nan());
        if x.abs() >= 2f32.powi(100) {
            assert!(!short.is_finite());
        } else if x.abs() < 2f32.powi(-100) {
            assert_eq!(short, 0.0);
        } else if x.is_finite() {
            assert!((short as f64 - x as f64).abs() <= (x as f64).abs() * 2f64.powi(-13));
        }
        if short.is_finite() {
            let half = super::vector::widen(rng.next() as u16 & 0xfbff);
            assert!(exact(short, half) && exact(short, rng.next() as i8 as f32), "{short:e}");
        }
    }
}

#[test]
fn attention_with_lengths_that_do_not_fit_does_less() {
    let long = [1.0; 40];
    for types in all_types() {
        for len in [0, 2, 5, 31, 64, 100] {
            let mut words = [7u32; 32];
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
            store_position(&SCALAR, types, &long, &long, 99, &mut bytes[..len]);
            (types.keys.of(&SCALAR.store_key))(&long, 99, &mut bytes[..len]);
            (types.values.of(&SCALAR.store_value))(&long, 99, &mut bytes[1..len.max(1)]);
            assert!(bytes[len..].iter().all(|byte| [7, 0].contains(byte)));
        }
        let data = &bytemuck::cast_slice(&[0u32; 100])[..397];
        let kv = KvBlocks {
            data,
            pages: &[0, 1],
            stride: usize::MAX,
            types,
            dim_k: usize::MAX,
            dim_v: usize::MAX,
        };
        let mut partial = [1.0; 9];
        for (dim_k, dim_v) in
            [(usize::MAX, usize::MAX), (usize::MAX, 0), (0, 5), (1, usize::MAX), (7, usize::MAX - 2)]
        {
            let kv = KvBlocks { dim_k, dim_v, ..kv };
            let args = Attention { kv, scale: 1.0, softcap: 0.0 };
            let mut q = long;
            for span in [Span { first_block: 0, seen: 0..9 }, Span::of_chunk(usize::MAX, &(0..usize::MAX))] {
                let mut spans = [span.clone(), span];
                if dim_v > 5 {
                    attend_chunk(&SCALAR, &args, &mut q, &mut spans, &mut partial, &mut [0.0; 512]);
                    assert_eq!(partial, [1.0; 9], "no head fits");
                }
                attend_chunk(&SCALAR, &args, &mut q, &mut spans, &mut [0.0; 9], &mut [0.0; 512]);
                attend_chunk(&SCALAR, &args, &mut q, &mut [], &mut [0.0; 9], &mut [0.0; 512]);
                attend_chunk(&SCALAR, &args, &mut q, &mut spans, &mut [0.0; 9], &mut [0.0; 200]);
                (SCALAR.attention_merge)(dim_v, &mut [0.0; 9], &[0.0; 5]);
                attention_finish(dim_v, &[0.0; 9], &mut [0.0; 3]);
            }
        }
    }
    // Memory for one head, of which two are there.
    let cache = Cache::new(&mut Rng(13), &SCALAR, 40, (3, 2), KvType::F16.into());
    let args = Attention { kv: cache.kv(), scale: 1.0, softcap: 0.0 };
    let (mut q, mut spans) = ([1.0; 6], [Span::of_chunk(0, &(0..40))]);
    let (mut few, mut enough) = ([0.0; 8], [0.0; 8]);
    attend_chunk(&SCALAR, &args, &mut q, &mut spans, &mut few, &mut [0.0; ATTENTION_CHUNK]);
    attend_chunk(&SCALAR, &args, &mut q, &mut spans, &mut enough, &mut [0.0; 2 * ATTENTION_CHUNK]);
    assert!(few == enough && few[0] != 0.0);
    // A chunk behind the end of the cache.
    spans = [Span::of_chunk(1, &(0..512))];
    attend_chunk(&SCALAR, &args, &mut q, &mut spans, &mut few, &mut [0.0; ATTENTION_CHUNK]);
    assert_eq!(few, [0.0, 0.0, f32::NEG_INFINITY, 0.0, 0.0, 0.0, f32::NEG_INFINITY, 0.0]);
}
