//! Logits of tiny models with random weights against HF transformers in float32; see `tests/golden/README.md`.

use locutor::kernels;
use locutor::kv::KvType;
use locutor::mem::Digest;
use locutor::model::Model;
use locutor::model::plan::Precisions;
use locutor::sample::Sampler;
use locutor::session::{Budget, Limits};
use locutor::tensor::Precision;

/// Ids and logits as the reference computed them.
struct Golden {
    ids: Vec<u32>,
    vocab: usize,
    logits: Vec<f32>,
}

impl Golden {
    fn read(name: &str) -> Golden {
        let path = format!("{}/tests/golden/{name}.logits", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(&bytes[..8], b"LCTLOGIT");
        let words: Vec<[u8; 4]> = bytes[8..].chunks_exact(4).map(|w| w.try_into().unwrap()).collect();
        let (len, vocab) = (u32::from_le_bytes(words[0]) as usize, u32::from_le_bytes(words[1]) as usize);
        let ids = words[2..2 + len].iter().map(|w| u32::from_le_bytes(*w)).collect();
        let logits: Vec<f32> = words[2 + len..].iter().map(|w| f32::from_le_bytes(*w)).collect();
        assert_eq!(logits.len(), len * vocab);
        Golden { ids, vocab, logits }
    }
}

/// The logits of every position, computed with these limits.
fn logits(name: &str, ids: &[u32], limits: Limits) -> Vec<f32> {
    let bytes = std::fs::read(format!("{}/tests/golden/{name}.gguf", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let model = Model::from_slice(&bytes).unwrap();
    let mut session = model.session(limits).unwrap();
    let mut all = Vec::new();
    session
        .feed_with_logits(ids, |position, row| {
            assert_eq!(position * row.len(), all.len());
            all.extend_from_slice(row);
        })
        .unwrap();
    all
}

/// The greatest normalised mean squared error of any position: sum of squared differences over sum of squares.
fn worst_nmse(got: &[f32], golden: &Golden) -> f64 {
    assert_eq!(got.len(), golden.logits.len());
    let rows = got.chunks_exact(golden.vocab).zip(golden.logits.chunks_exact(golden.vocab));
    rows.map(|(got, want)| {
        let difference: f64 =
            got.iter().zip(want).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        difference / want.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()
    })
    .fold(0.0, |worst, nmse| if nmse.is_nan() { f64::NAN } else { nmse.max(worst) })
}

/// Holds a model to `bound` at every position, with every kernel table of this machine.
fn check(name: &str, bound: f64, precisions: Precisions) {
    let golden = Golden::read(name);
    for table in kernels::available() {
        let limits = Limits::new().kernels(table).batch(48).logits(16).precisions(precisions).kv(KvType::F32);
        let worst = worst_nmse(&logits(name, &golden.ids, limits), &golden);
        println!("{name} {}: worst NMSE {worst:.2e} over {} positions", table.name, golden.ids.len());
        assert!(worst <= bound, "{name} {}: {worst:e} > {bound:e}", table.name);
    }
}

macro_rules! golden {
    ($($test:ident: $name:literal, $bound:literal;)*) => {
        $(#[test] fn $test() { check($name, $bound, Precisions::default()); })*
    };
}

golden! {
    gpt2_with_tied_head: "gpt2-tied", 1e-6;
    gpt2_with_its_own_head: "gpt2-head", 1e-6;
    llama_with_grouped_heads_and_tied_head: "llama-gqa-tied", 1e-6;
    llama_with_its_own_head: "llama-head", 1e-6;
    llama_with_rope_factors: "llama3-rope", 1e-6;
    gemma3_with_a_window_shorter_than_the_text: "gemma3", 1e-6;
    gemma3_with_a_pattern_and_bases_of_its_own: "gemma3-pattern", 1e-6;
    llama_in_f16: "llama-gqa-tied-f16", 1e-6;
    llama_in_bf16: "llama-gqa-tied-bf16", 1e-6;
}

#[test]
fn llama_in_q8_0_with_activations_of_16_bits() {
    check("llama-gqa-tied-q8_0", 1e-6, Precisions::all(Precision::Bits16));
}

#[test]
fn keys_and_values_in_16_bits_cost_little() {
    for name in ["gpt2-tied", "llama-gqa-tied", "llama-head", "llama3-rope", "gemma3"] {
        let golden = Golden::read(name);
        for kv in [KvType::I16, KvType::F16] {
            let worst = worst_nmse(&logits(name, &golden.ids, Limits::new().kv(kv)), &golden);
            println!("{name}: worst NMSE {worst:.2e} with {kv:?}");
            assert!(worst <= 2e-5, "{name} {kv:?}: {worst:e}");
        }
    }
}

/// Three to five times what was measured. A number of a block of 32 is off by 2.3e-3 of the greatest (a step of 1/127,
/// uniformly), some 36 times as much as by f16, so an NMSE is about 1300 times that of an f16 cache: random weights, with
/// keys as large as these, are no better than that.
#[test]
fn keys_and_values_in_q8_0_cost_what_their_steps_are() {
    use KvType::{F16, Q8_0};
    let bounds = [
        ("gpt2-tied", 4e-4),
        ("llama-gqa-tied", 4e-3),
        ("llama-head", 7e-3),
        ("llama3-rope", 2e-2),
        ("gemma3", 1.5e-3),
    ];
    for (name, bound) in bounds {
        let golden = Golden::read(name);
        for (keys, values) in [(Q8_0, Q8_0), (Q8_0, F16), (F16, Q8_0)] {
            let got = logits(name, &golden.ids, Limits::new().kv_types(keys, values));
            let worst = worst_nmse(&got, &golden);
            println!("{name}: worst NMSE {worst:.2e} with {keys:?} keys and {values:?} values");
            assert!(worst <= bound, "{name} {keys:?} {values:?}: {worst:e}");
        }
    }
}

/// Each of its limits gives a model the same bits, and each pair of types for keys and values bits of its own.
fn same_bits(name: &str, len: usize) {
    use KvType::{F16, F32, I16, Q8_0};
    let ids: Vec<u32> = Golden::read(name).ids.iter().copied().cycle().take(len).collect();
    let bits = |limits: Limits| logits(name, &ids, limits).into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let mut seen = Vec::new();
    for (keys, values) in [(I16, I16), (F16, F16), (Q8_0, Q8_0), (Q8_0, I16), (I16, Q8_0), (F32, F16)] {
        let limits = Limits::new().context(len).kv_types(keys, values);
        let expected = bits(limits.batch(1).kernels(kernels::scalar()));
        for table in kernels::available() {
            for (batch, rows, threads) in [(1, 1, 2), (7, 3, 1), (64, 64, 2), (512, 5, 3), (512, 512, 1)] {
                let limits = limits.batch(batch).logits(rows).threads(threads).kernels(table);
                let name = format!("{name} {} {keys:?} {values:?}", table.name);
                assert!(bits(limits) == expected, "{name} batch {batch} threads {threads}");
            }
        }
        assert!(!seen.contains(&expected), "{name}: {keys:?} {values:?} are stored as another pair");
        seen.push(expected);
    }
}

macro_rules! same_bits {
    ($($test:ident: $name:literal, $len:literal;)*) => {
        $(#[test] fn $test() { same_bits($name, $len); })*
    };
}

// Where positions have no table, more of them than a chunk of attention holds.
same_bits! {
    batches_threads_and_kernels_do_not_change_a_bit_of_gpt2: "gpt2-tied", 200;
    batches_threads_and_kernels_do_not_change_a_bit_of_llama: "llama-gqa-tied-q8_0", 300;
    batches_threads_and_kernels_do_not_change_a_bit_of_gemma3: "gemma3", 300;
}

/// The digest holds for every machine, whatever its kernels, width and byte order are. It changes with the numbers that the
/// engine computes with: a change of theirs says so here.
#[test]
fn a_sampled_story_has_the_same_bits_on_every_machine() {
    let bytes = std::fs::read(format!("{}/examples/model/story.gguf", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let model = Model::from_slice(&bytes).unwrap();
    let mut session = model.session(Limits::new().context(64)).unwrap();
    let mut sampler = Sampler::greedy().temperature(0.8).unwrap().top_k(40).top_p(0.95).unwrap().seed(1);
    session.set_max_tokens(Some(32));
    session.feed("Once upon a time").unwrap();
    let mut digest = Digest::new();
    while session.next_token(&mut sampler).unwrap().is_some() {
        session.advance(Budget::Unlimited).unwrap();
        for logit in session.logits().unwrap() {
            digest.add(&logit.to_bits().to_le_bytes());
        }
    }
    assert_eq!(digest.value(), 0xce98_0e95_6301_25e3, "{:#018x}", digest.value());
}
