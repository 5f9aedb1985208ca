//! Hostile files by the thousand: every field at its edges, every pair of fields that sizes follow from, every prefix,
//! every flipped bit of the metadata, for small models of every architecture and tokenizer.

use crate::check::{Bench, facts};
use crate::gguf_builder::Val;
use crate::seeds::{self, Seed};
use std::time::Instant;

const EDGES: [u64; 17] = [
    0,
    1,
    2,
    31,
    32,
    64,
    65,
    65_535,
    65_536,
    i32::MAX as u64,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 31,
    u64::MAX,
];

/// Bit patterns of numbers that are none, and of the greatest and least.
const FLOATS: [f32; 8] =
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, -0.0];

/// The numbers of a file: where they stand, and in how many bytes.
fn fields(seed: &Seed) -> Vec<(usize, usize)> {
    let mut fields = vec![(0, 4), (4, 4), (8, 8), (16, 8)];
    for ([length, key, kind, value], (_, what)) in seed.map.kv.iter().zip(&seed.build.kv) {
        fields.extend([(*length, 8), (*key, 1), (*kind, 4)]);
        match what {
            Val::Array(..) => {
                let first = value + 12;
                fields.extend([(*value, 4), (value + 4, 8), (first, 8), (first + 8, 4)]);
            }
            Val::Str(_) => fields.extend([(*value, 8), (value + 8, 1)]),
            Val::U8(_) | Val::I8(_) | Val::Bool(_) => fields.push((*value, 1)),
            Val::U16(_) | Val::I16(_) => fields.push((*value, 2)),
            Val::U64(_) | Val::I64(_) | Val::F64(_) => fields.push((*value, 8)),
            _ => fields.push((*value, 4)),
        }
    }
    for ([length, name, rank, dims, kind, offset], tensor) in seed.map.tensors.iter().zip(&seed.build.tensors)
    {
        fields.extend([(*length, 8), (*name, 1), (*rank, 4), (*kind, 4), (*offset, 8)]);
        fields.extend((0..tensor.dims.len()).map(|dim| (dims + 8 * dim, 8)));
    }
    fields
}

/// The numbers that sizes follow from.
fn sizes(seed: &Seed) -> Vec<(usize, usize)> {
    let mut sizes = vec![(8, 8), (16, 8)];
    for (key, value) in &seed.build.kv {
        let key = std::str::from_utf8(key).unwrap();
        let [.., at] = seed.kv(key);
        match value {
            Val::Array(..) => sizes.push((at + 4, 8)),
            Val::U32(_) if key.starts_with(seed.arch) => sizes.push((at, 4)),
            _ => {}
        }
    }
    for name in ["token_embd.weight", "blk.0.ffn_down.weight"] {
        let [_, _, _, dims, _, offset] = seed.tensor(name);
        sizes.extend([(dims, 8), (dims + 8, 8), (offset, 8)]);
    }
    sizes
}

struct Run<'s> {
    seed: &'s Seed,
    bench: Bench,
    file: Vec<u8>,
    number: usize,
}

impl Run<'_> {
    /// Tries the seed with some bytes replaced. One accepted file in so many must also work.
    fn with(&mut self, changes: &[(usize, &[u8])], run_every: usize) {
        for (at, bytes) in changes {
            self.file[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        self.try_it(run_every);
        for (at, bytes) in changes {
            self.file[*at..at + bytes.len()].copy_from_slice(&self.seed.file[*at..at + bytes.len()]);
        }
    }

    fn try_it(&mut self, run_every: usize) {
        self.number += 1;
        let run = self.number.is_multiple_of(run_every);
        let result = self.bench.load(&self.file, run);
        if self.number.is_multiple_of(64) {
            if let Err(error) = result {
                assert!(!facts(&error).code.is_empty());
            }
            self.bench.still_serves(self.seed);
        }
    }
}

fn edges(run: &mut Run<'_>) {
    for (at, width) in fields(run.seed) {
        for edge in EDGES {
            run.with(&[(at, &edge.to_le_bytes()[..width])], 3);
        }
        if width == 4 {
            FLOATS.iter().for_each(|float| run.with(&[(at, &float.to_le_bytes())], 1));
        }
        if width == 8 {
            FLOATS.iter().for_each(|float| run.with(&[(at, &f64::from(*float).to_le_bytes())], 1));
        }
    }
}

fn pairs(run: &mut Run<'_>) {
    let sizes = sizes(run.seed);
    for (index, (at, width)) in sizes.iter().enumerate() {
        for (other_at, other_width) in &sizes[..index] {
            for edge in EDGES {
                for other in EDGES {
                    let (edge, other) = (edge.to_le_bytes(), other.to_le_bytes());
                    run.with(&[(*at, &edge[..*width]), (*other_at, &other[..*other_width])], 5);
                }
            }
        }
    }
}

fn prefixes(run: &mut Run<'_>) {
    let (header, len) = (run.seed.map.infos_end, run.seed.file.len());
    let lens = (0..header).chain((header..len).step_by(97)).chain([len - 1]);
    for len in lens {
        let error = run.bench.load(&run.seed.file[..len], false).expect_err("a part of a file");
        let code = facts(&error).code;
        assert_eq!(code, if len < header { "Truncated" } else { "Range" }, "{len} bytes: {error}");
    }
}

fn bits(run: &mut Run<'_>) {
    for bit in 0..run.seed.map.infos_end * 8 {
        let byte = run.seed.file[bit / 8] ^ 1 << (bit % 8);
        run.with(&[(bit / 8, &[byte])], 17);
    }
}

/// Some bytes of the metadata at random, up to a handful of places at a time.
fn noise(run: &mut Run<'_>, count: usize) {
    let mut random = 0x2545_F491_4F6C_DD1Du64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    for _ in 0..count {
        let places: Vec<(usize, [u8; 1])> =
            (0..1 + next() % 5).map(|_| (next() % run.seed.map.infos_end, [next() as u8])).collect();
        let changes: Vec<(usize, &[u8])> = places.iter().map(|(at, byte)| (*at, &byte[..])).collect();
        run.with(&changes, 7);
    }
}

#[test]
fn files_by_the_thousand() {
    let started = Instant::now();
    let seeds = seeds::all();
    let counts: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = seeds
            .iter()
            .map(|seed| {
                scope.spawn(move || {
                    let mut run = Run { seed, bench: Bench::new(), file: seed.file.clone(), number: 0 };
                    edges(&mut run);
                    pairs(&mut run);
                    prefixes(&mut run);
                    bits(&mut run);
                    noise(&mut run, 14_000);
                    assert!(run.file == seed.file);
                    let Bench { files, accepted, ran, longest, .. } = run.bench;
                    println!(
                        "hostile: {}: {files} files, {accepted} accepted, {ran} ran, longest {longest:?}",
                        seed.name
                    );
                    (files, accepted, ran)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let sum = counts.iter().fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
    let (files, accepted, ran) = sum;
    println!("hostile: {files} files, {accepted} accepted, {ran} of these ran, {:?}", started.elapsed());
    assert!(files >= 20_000 && accepted > 1000 && ran > 200);
}

/// Writes the headers of the small models to `fuzz/seeds/gguf`, where fuzzing begins.
#[test]
#[ignore = "writes files that are kept in the repository"]
fn write_seeds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/gguf");
    std::fs::create_dir_all(&folder).unwrap();
    for seed in seeds::all() {
        let mut header = seed.file[..seed.map.infos_end].to_vec();
        // The target's last byte: how many times 256 bytes there are behind the header.
        header.push(255);
        std::fs::write(folder.join(seed.name), header).unwrap();
    }
}
