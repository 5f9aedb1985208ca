//! Weights are numbers only: whatever their bytes are, and whoever changes them meanwhile, nothing is read or written
//! outside of the memory, and what cannot be used is an error with a name.

use crate::check::facts;
use crate::gguf_builder::{Gguf as Build, Val};
use crate::seeds::{self, Seed};
use locutor::kernels;
use locutor::model::plan::Precisions;
use locutor::model::{Model, ModelError};
use locutor::sample::Sampler;
use locutor::session::{Budget, Error, Limits};
use locutor::tensor::{DType, Precision};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

struct Random(u64);

impl Random {
    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u8
    }
}

const WIDTH: u64 = 256;

/// Llama with one layer wide enough for every type of block, its matrices of type `dtype` with bytes from `byte`.
fn wide(dtype: DType, mut byte: impl FnMut() -> u8) -> Build {
    let key = |rest: &str| format!("llama.{rest}");
    let mut build = Build::new()
        .kv("general.architecture", Val::str("llama"))
        .kv(key("context_length"), Val::U32(64))
        .kv(key("embedding_length"), Val::U32(WIDTH as u32))
        .kv(key("block_count"), Val::U32(1))
        .kv(key("feed_forward_length"), Val::U32(WIDTH as u32))
        .kv(key("attention.head_count"), Val::U32(4))
        .kv(key("attention.layer_norm_rms_epsilon"), Val::F32(1e-5));
    let ones = [1.0; WIDTH as usize];
    for name in ["output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"] {
        build = build.tensor_f32(name, &[WIDTH], &ones);
    }
    let parts = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    for name in
        parts.map(|part| format!("blk.0.{part}.weight")).into_iter().chain(["token_embd.weight".into()])
    {
        let rows = if name == "token_embd.weight" { 24 } else { WIDTH };
        let bytes = dtype.row_bytes(WIDTH as usize).unwrap() * rows as usize;
        let data = (0..bytes).map(|_| byte()).collect();
        build = build.tensor(name, &[WIDTH, rows], dtype as u32, data);
    }
    build
}

/// Generates with any weights: tokens of the vocabulary, or the error of numbers that are none. Which it was.
fn generate(model: &Model<'_>, limits: Limits) -> Result<Vec<u32>, usize> {
    let mut session = model.session(limits.context(32).batch(6)).unwrap();
    session.feed_tokens(&[3, 7, 11, 2, 19, 5, 8]).unwrap();
    let mut sampler = Sampler::greedy();
    for _ in 0..5 {
        match session.next_token(&mut sampler) {
            Ok(Some(id)) => assert!((id as usize) < model.spec().vocab),
            Ok(None) => break,
            Err(Error::NonFinite { position, first }) => {
                assert_eq!(first.is_some(), cfg!(debug_assertions), "{first:?}");
                assert!(position < session.position() && session.logits().is_some());
                return Err(position);
            }
            Err(error) => panic!("{error}"),
        }
    }
    Ok(session.tokens().to_vec())
}

#[test]
fn random_bytes_in_every_type_are_numbers() {
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    let (mut fine, mut non_finite) = (0, 0);
    for dtype in DType::ALL {
        for round in 0..6 {
            // All bytes, or bytes of which most make small numbers, so that some runs come to an end.
            let build = wide(dtype, || if round < 3 { random.byte() } else { random.byte() & 0x3B });
            let file = build.build();
            let model = Model::from_slice(&file).unwrap();
            for precision in [Precision::Bits8, Precision::Mixed, Precision::Bits16] {
                let precisions = Precisions {
                    qkv: precision,
                    attention_output: precision,
                    mlp_input: precision,
                    mlp_output: precision,
                    head: precision,
                };
                let results: Vec<_> = kernels::available()
                    .map(|table| generate(&model, Limits::new().precisions(precisions).kernels(table)))
                    .collect();
                assert!(results.windows(2).all(|two| two[0] == two[1]), "{dtype}: {results:?}");
                match results[0] {
                    Ok(_) => fine += 1,
                    Err(_) => non_finite += 1,
                }
            }
            match model.verify() {
                Ok(()) | Err(ModelError::NonFinite { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    println!("hostile: random weights: {fine} models generated, {non_finite} gave numbers that are none");
    assert!(fine > 0 && non_finite > 0);
}

/// What one bad number in a matrix leads to: the check names it, and a run gives an error, not a token.
#[test]
fn one_bad_number_is_found() {
    for dtype in DType::ALL {
        let build = wide(dtype, || 0);
        let good = build.build();
        Model::from_slice(&good).unwrap().verify().unwrap();
        // Where blocks have their scales: the first 16 bits, or the last of Q6_K.
        let (values, bytes) = dtype.block();
        let scale = if dtype == DType::Q6_K { bytes - 2 } else { 0 };
        let bad: &[&[u8]] = match dtype {
            DType::F32 => &[&[0, 0, 0xC0, 0x7F], &[0, 0, 0x80, 0x7F], &[0, 0, 0x80, 0xFF]],
            DType::BF16 => &[&[0xC0, 0x7F], &[0x80, 0x7F], &[0x80, 0xFF]],
            _ => &[&[0, 0x7E], &[0, 0x7C], &[0, 0xFC]],
        };
        for name in ["token_embd.weight", "blk.0.ffn_down.weight", "blk.0.attn_k.weight"] {
            for (block, bits) in bad.iter().enumerate() {
                let mut build = build.clone();
                let index = build.tensors.iter().position(|tensor| tensor.name == name.as_bytes()).unwrap();
                let blocks = build.tensors[index].data.len() / bytes;
                let block = if block == 0 { 0 } else { blocks - block };
                let at = block * bytes + scale;
                build.tensors[index].data[at..at + bits.len()].copy_from_slice(bits);
                let (file, map) = build.build_mapped();
                let start = u64::from_le_bytes(file[map.tensors[index][5]..][..8].try_into().unwrap());
                let model = Model::from_slice(&file).unwrap();
                let error = model.verify().unwrap_err();
                let ModelError::NonFinite { index: value, .. } = error else { panic!("{error}") };
                assert_eq!(value / values, block, "{dtype} {name}");
                let facts = facts(&error);
                let offset = map.data as u64 + start + (block * bytes) as u64;
                assert_eq!((facts.field.as_str(), facts.offset), (name, Some(offset)), "{dtype}");
            }
        }
    }
}

#[test]
fn numbers_that_overflow_are_an_error() {
    // Norms all zero: every logit is 0, which is a number; the lowest token wins.
    let seed = seeds::llama();
    let mut build = seed.build.clone();
    build.tensors.iter_mut().filter(|tensor| tensor.dims.len() == 1).for_each(|tensor| tensor.data.fill(0));
    let file = build.build();
    assert!(generate(&Model::from_slice(&file).unwrap(), Limits::new()).is_ok());
    // Each matrix in turn with numbers near the greatest: a finite result, or an error; and for the last matrices, whose
    // results nothing can bring back, an error.
    let huge = f32::MAX.to_le_bytes();
    for (index, tensor) in seed.build.tensors.iter().enumerate() {
        for share in [1, 3] {
            let mut build = seed.build.clone();
            build.tensors[index]
                .data
                .chunks_exact_mut(4)
                .step_by(share)
                .for_each(|value| value.copy_from_slice(&huge));
            let file = build.build();
            let result = generate(&Model::from_slice(&file).unwrap(), Limits::new());
            if tensor.name == b"output_norm.weight" {
                assert_eq!(result, Err(6), "{result:?}");
            }
        }
    }
}

/// A run that comes to numbers that are none says where: builds with debug assertions name the phase and its layer.
#[test]
fn numbers_that_overflow_name_their_layer() {
    let places = [
        ("token_embd.weight", None, "embed"),
        ("blk.0.attn_v.weight", Some(0), "attn_out of layer 0"),
        ("blk.1.attn_output.weight", Some(1), "attn_out of layer 1"),
        ("blk.0.ffn_up.weight", Some(0), "ffn_out of layer 0"),
        ("blk.1.ffn_down.weight", Some(1), "ffn_out of layer 1"),
        ("output.weight", None, "head"),
    ];
    for seed in [seeds::llama(), seeds::llama3(), seeds::gemma3()] {
        // Of some models the embedding is the output as well.
        let own = |name: &str| seed.build.tensors.iter().any(|tensor| tensor.name == name.as_bytes());
        assert_eq!(own("output.weight"), seed.name == "llama3");
        for (name, layer, phase) in places.into_iter().filter(|(name, ..)| own(name)) {
            let seed = seed.with_tensor(name, |tensor| {
                tensor
                    .data
                    .chunks_exact_mut(4)
                    .for_each(|value| value.copy_from_slice(&f32::NAN.to_le_bytes()));
            });
            let model = Model::from_slice(&seed.file).unwrap();
            let mut session = model.session(Limits::new().context(32).batch(3).sequences(2)).unwrap();
            session.feed_tokens(&[3, 7, 11, 2, 19]).unwrap();
            let error = session.next_token(&mut Sampler::greedy()).unwrap_err();
            let Error::NonFinite { position: 4, first } = error else { panic!("{error}") };
            if cfg!(debug_assertions) {
                let first = first.unwrap();
                assert_eq!(
                    (first.to_string().as_str(), first.layer()),
                    (phase, layer),
                    "{}, {name}",
                    seed.name
                );
                assert!(error.to_string().ends_with(&format!("not finite, first in {phase}")), "{error}");
            } else {
                assert_eq!(first, None);
                assert!(error.to_string().ends_with("are not finite"), "{error}");
            }
            // What one sequence met is not said of another.
            let other = session.create().unwrap();
            session.select(other).unwrap();
            let error = session.next_token(&mut Sampler::greedy()).unwrap_err();
            assert_eq!(error, Error::EmptyPrompt);
        }
    }
}

fn scratch(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("hostile");
    fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

fn map(path: &PathBuf) -> Model<'static> {
    // SAFETY: the file is never cut short. Some of these tests change it, to see that this gives wrong numbers and
    // nothing worse; the system writes, no reference to the bytes exists.
    unsafe { Model::map(path) }.unwrap()
}

/// The contract of mapped files: a new file that takes the place of the old one changes nothing for who has the old one.
#[test]
fn a_mapped_model_outlives_its_replacement() {
    let (path, new) = (scratch("replaced.gguf"), scratch("replacement.gguf"));
    let (first, second) = (seeds::llama(), seeds::gemma3());
    fs::write(&path, &first.file).unwrap();
    let old = map(&path);
    let expected = generate(&old, Limits::new()).unwrap();
    fs::write(&new, &second.file).unwrap();
    fs::rename(&new, &path).unwrap();
    assert_eq!(generate(&old, Limits::new()), Ok(expected.clone()));
    old.verify().unwrap();
    assert_eq!(map(&path).spec().family.name(), "gemma3");
    fs::remove_file(&path).unwrap();
    assert_eq!(generate(&old, Limits::new()), Ok(expected));
}

/// The contract broken, as far as it may be without a signal: all weights change all the time.
#[test]
fn weights_that_change_while_they_are_read_are_wrong_numbers() {
    let path = scratch("changing.gguf");
    let seed: Seed = seeds::quantised();
    fs::write(&path, &seed.file).unwrap();
    let file: File = OpenOptions::new().write(true).open(&path).unwrap();
    let (stop, len, start) = (AtomicBool::new(false), seed.file.len(), seed.map.data);
    let models = [map(&path), Model::open(&path).unwrap()];
    let expected = generate(&models[1], Limits::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(77);
            while !stop.load(Ordering::Relaxed) {
                let bytes: Vec<u8> = (start..len).map(|_| random.byte()).collect();
                file.write_all_at(&bytes, start as u64).unwrap();
            }
        });
        for _ in 0..60 {
            let _ = generate(&models[0], Limits::new());
            let _ = models[0].verify();
            assert_eq!(generate(&models[1], Limits::new()), expected, "a model in memory does not change");
        }
        let mut session = models[0].session(Limits::new().context(16)).unwrap();
        session.feed_tokens(&[1, 2, 3]).unwrap();
        assert!(session.advance(Budget::Unlimited).is_ok());
        stop.store(true, Ordering::Relaxed);
    });
    fs::remove_file(&path).unwrap();
}
