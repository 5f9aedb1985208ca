//! Speed of the kernels by themselves, on one thread: linear layers by type and number of columns, and attention.
//!
//!     cargo bench --bench kernels -- [TYPE|attention|gemm]... [--table NAME]
//!
//! A matrix of 1536 rows stays in the second cache, one of 128 MiB in none but the largest. GB/s count the bytes of the
//! weights, or of keys and values, once a call; GMAC/s count products. Each figure is the best of many calls: how fast
//! a kernel can be, not how fast it is on a busy machine. First come the peaks of the machine, on one thread too: what
//! can be read from memory, and on a CPU with AVX-512 VNNI the products of bytes and floats of its instructions alone.
//! `gemm` is the crate of that name, beside the layers of float weights.

use locutor::kernels::{self, ATTENTION_CHUNK, Attention, KV_BLOCK, Kernels, KvBlocks, KvType, Span};
use locutor::mem::aligned::{Block, RawBytes};
use locutor::mem::split::TileMut;
use locutor::ops::linear::TILE_ROWS;
use locutor::tensor::{Act8, Activations, Blocks, DType, Matrix, Precision};
use std::hint::black_box;
use std::time::{Duration, Instant};

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut names, mut table) = (Vec::new(), kernels::detect());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--table" => {
                let name = arguments.next().expect("--table NAME");
                table = kernels::by_name(&name).unwrap_or_else(|| panic!("no table {name} on this machine"));
            }
            _ => names.push(argument.to_lowercase()),
        }
    }
    let wanted = |name: &str| names.is_empty() || names.contains(&name.to_lowercase());
    println!("table {}", table.name);
    peaks();
    for dtype in DType::ALL {
        if wanted(&format!("{dtype:?}")) {
            linear(table, dtype);
        }
    }
    #[cfg(target_arch = "x86_64")]
    if wanted("gemm") {
        gemm_crate();
    }
    if wanted("attention") {
        for kind in KvType::ALL {
            attention(table, kind);
        }
    }
}

/// Seconds of the best call within some time.
fn best(mut call: impl FnMut()) -> f64 {
    let (begun, mut best) = (Instant::now(), f64::INFINITY);
    while begun.elapsed() < Duration::from_millis(150) {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// Prints what the machine can do at best.
fn peaks() {
    // More than the caches hold, of pages as large as those of weights.
    let mut block = Block::zeroed(512 << 20).unwrap();
    block.bytes_mut().fill(1);
    let words: &[[u64; 8]] = bytemuck::cast_slice(block.bytes());
    let seconds = best(|| {
        let mut sums = [0u64; 8];
        for line in black_box(words) {
            sums.iter_mut().zip(line).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
        }
        black_box(sums);
    });
    println!("peak of reading memory {:44.1} GB/s", size_of_val(words) as f64 / seconds / 1e9);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        const ROUNDS: usize = 100_000;
        // SAFETY: the CPU has these instructions.
        let seconds = best(|| unsafe { avx512::bytes(black_box(ROUNDS)) });
        println!("peak of products of bytes {:54.1} GMAC/s", (ROUNDS * 16 * 64) as f64 / seconds / 1e9);
        // SAFETY: as above.
        let seconds = best(|| unsafe { avx512::floats(black_box(ROUNDS)) });
        println!("peak of products of floats {:53.1} GMAC/s", (ROUNDS * 16 * 16) as f64 / seconds / 1e9);
    }
}

/// Rounds of sixteen instructions that do not wait for each other.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn bytes(rounds: usize) {
        let (mut sums, x) = ([_mm512_setzero_si512(); 16], _mm512_set1_epi8(black_box(1)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, x, x);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub fn floats(rounds: usize) {
        let (mut sums, x) = ([_mm512_setzero_ps(); 16], _mm512_set1_ps(black_box(0.5)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(x, x, *sum);
            }
        }
        black_box(sums);
    }
}

/// Bytes whose 16-bit numbers are normal floats of modest size, whatever block they are the scale of. Where they come from
/// is where models are read to: in large pages.
fn weights(len: usize) -> Block {
    let mut block = Block::zeroed(len).unwrap();
    let mut random = 1u64;
    for (i, place) in block.bytes_mut().iter_mut().enumerate() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let byte = (random >> 56) as u8;
        *place = if i % 2 == 1 { 0x28 | byte & 15 } else { byte };
    }
    block
}

fn linear(table: &Kernels, dtype: DType) {
    // Of whole blocks of every type.
    let cols = if dtype.row_bytes(576).is_some() { 576 } else { 768 };
    let large = (128 << 20) / dtype.row_bytes(cols).unwrap() / TILE_ROWS * TILE_ROWS;
    for (rows, columns) in [(1536, 1), (1536, 4), (1536, 8), (1536, 32), (1536, 128), (large, 1), (large, 8)]
    {
        let bytes = weights(dtype.row_bytes(cols).unwrap() * rows);
        let bytes = bytes.bytes();
        let w = Matrix::new(dtype, rows, cols, RawBytes::new(bytes)).unwrap();
        let mut scratch = vec![0.0; (table.linear_scratch)(cols)];
        let mut out = vec![0.0; TILE_ROWS * columns];
        let x: Vec<f32> = (0..cols * columns).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let rounded = [Precision::Bits8, Precision::Bits16].map(|precision| {
            let mut blocks = vec![Act8::new(0.0, [0; 32]); x.len() / 32];
            let mut rests = blocks.clone();
            (table.quantize)(&x, precision, &mut blocks, &mut rests, 0);
            (blocks, rests)
        });
        let [eight, sixteen] =
            rounded.each_ref().map(|(blocks, rests)| Activations::Q8(Blocks { blocks, rests }));
        let inputs: &[(&str, Activations<'_>)] = match dtype.is_float() {
            true => &[("f32", Activations::F32(&x))],
            false => &[("8 bits", eight), ("16 bits", sixteen)],
        };
        for (name, x) in inputs {
            let seconds = best(|| {
                for first in (0..rows).step_by(TILE_ROWS) {
                    let mut tile = TileMut::at(&mut out, TILE_ROWS, TILE_ROWS, first, 0);
                    (table.linear[dtype.index()])(&w, x, &mut tile, &mut scratch);
                }
                black_box(&mut out);
            });
            println!(
                "{:5} {rows:6} x {cols}, {columns:3} column(s) of {name:7} {:6.1} GB/s {:7.1} GMAC/s",
                format!("{dtype:?}"),
                bytes.len() as f64 / seconds / 1e9,
                (rows * cols * columns) as f64 / seconds / 1e9
            );
        }
    }
}

/// The crate `gemm` on one thread: floats, the same shape as the layers above, of which it takes no scratch memory.
#[cfg(target_arch = "x86_64")]
fn gemm_crate() {
    const ROWS: usize = 1536;
    const COLS: usize = 576;
    for columns in [1, 32, 128] {
        let (w, x) = (vec![0.5f32; ROWS * COLS], vec![0.25f32; columns * COLS]);
        let mut out = vec![0.0f32; columns * ROWS];
        let (rows, cols) = (ROWS as isize, COLS as isize);
        let seconds = best(|| {
            // SAFETY: the strides stay within the slices: [columns][rows], [rows][cols] and [columns][cols].
            unsafe {
                let (out, w, x) = (out.as_mut_ptr(), w.as_ptr(), x.as_ptr());
                let (none, no) = (gemm::Parallelism::None, false);
                gemm::gemm(
                    ROWS, columns, COLS, out, rows, 1, no, w, 1, cols, x, cols, 1, 0.0, 1.0, no, no, no, none,
                );
            }
            black_box(&mut out);
        });
        let products = (ROWS * COLS * columns) as f64 / seconds / 1e9;
        println!("gemm    {ROWS} x {COLS}, {columns:3} column(s) of f32 {products:21.1} GMAC/s");
    }
}

/// Chunks of 256 positions with heads of 64 numbers, three in a page: one chunk that stays near, and many that do not.
fn attention(table: &Kernels, kind: KvType) {
    const DIM: usize = 64;
    const HEADS: usize = 3;
    let head = kind.key_bytes(DIM) + kind.value_bytes(DIM);
    let stride = HEADS * head;
    for (chunks, queries, group) in
        [(1, 1, 1), (1, 1, 3), (1, 2, 3), (1, 1, 4), (1, 1, 8), (1, 8, 1), (512, 1, 1), (512, 1, 3)]
    {
        let data: Vec<u64> = weights(stride * chunks * (ATTENTION_CHUNK / KV_BLOCK))
            .bytes()
            .chunks_exact(8)
            .map(|eight| u64::from_ne_bytes(eight.try_into().unwrap()) & 0xbfbf_bfbf_bfbf_bfbf)
            .collect();
        // Aligned for every type.
        let data: &[u8] = bytemuck::cast_slice(&data);
        let pages: Vec<u32> = (0..(data.len() / stride) as u32).collect();
        let heads = queries * group;
        let mut q: Vec<f32> = (0..heads * DIM).map(|i| (i * 37 % 101) as f32 / 500.0 - 0.1).collect();
        let mut partial = vec![0.0; heads * kernels::attention_partial(DIM)];
        let mut scratch = vec![0.0; kernels::attention_scratch(heads)];
        let seconds = best(|| {
            for (chunk, at) in (0..chunks).flat_map(|chunk| (0..HEADS).map(move |at| (chunk, at * head))) {
                let mut spans = vec![Span::of_chunk(chunk, &(0..chunks * ATTENTION_CHUNK)); queries];
                let data = &data[at..];
                let kv = KvBlocks { data, pages: &pages, stride, types: kind.into(), dim_k: DIM, dim_v: DIM };
                let args = Attention { kv, scale: 0.125, softcap: 0.0 };
                kernels::attend_chunk(table, &args, &mut q, &mut spans, &mut partial, &mut scratch);
            }
            black_box(&mut partial);
        });
        println!(
            "attention {:4} {chunks:4} chunk(s), {queries} query(s), {group} head(s) of {DIM} {:6.1} GB/s {:7.1} GMAC/s",
            format!("{kind:?}"),
            data.len() as f64 / seconds / 1e9,
            (2 * HEADS * chunks * ATTENTION_CHUNK * heads * DIM) as f64 / seconds / 1e9
        );
    }
}
