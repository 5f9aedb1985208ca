//! Memory is told to the byte before anything is built, and that is what is used.

use locutor::exec::Serial;
use locutor::format::{HeaderBytes, ModelBytes, ReadError};
use locutor::kv::KvType;
use locutor::mem::MemError;
use locutor::mem::aligned::Block;
use locutor::model::{Model, ModelHeader};
use locutor::{Budget, ContextPolicy, Error, Exec, Limits, Sampler, Session};
use proptest::prelude::*;
use std::cell::Cell;

const MODELS: [&str; 4] = ["gpt2-tied", "llama-gqa-tied-q8_0", "gemma3", "gemma3-pattern"];

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/golden/{name}.gguf", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// More threads than one, without any.
struct Many(usize);

impl Exec for Many {
    fn workers(&self) -> usize {
        self.0
    }

    fn parallel_for(&self, workers: usize, n: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        (0..n).for_each(|job| work(job, job % workers));
    }
}

fn kv_type() -> impl Strategy<Value = KvType> {
    prop_oneof![Just(KvType::I16), Just(KvType::F16), Just(KvType::F32), Just(KvType::Q8_0)]
}

fn policy() -> impl Strategy<Value = ContextPolicy> {
    prop_oneof![
        Just(ContextPolicy::Stop),
        (0..40usize).prop_map(|keep| ContextPolicy::Shift { keep }),
        (0..20usize).prop_map(|sinks| ContextPolicy::Slide { sinks }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let sizes = (1..200usize, 1..6usize, 0..700usize, 0..70usize, 1..9usize);
    let threads = (1..9usize, 0..9usize);
    let types = (kv_type(), kv_type(), policy());
    let text = (0..300usize, 0..4usize, 0..30usize);
    (sizes, threads, types, text).prop_map(|(sizes, threads, (keys, values, policy), text)| {
        let (context, sequences, positions, batch, logits) = sizes;
        Limits::new()
            .context(context)
            .sequences(sequences)
            .positions(positions)
            .batch(batch)
            .logits(logits)
            .threads(threads.0)
            .decode_threads(threads.1)
            .kv_types(keys, values)
            .policy(policy)
            .text_bytes(text.0)
            .stops(text.1, text.2)
    })
}

/// Plans from the header, from the model, and builds in exactly that much memory.
fn check(model: &Model<'_>, header: &ModelHeader<'_>, limits: Limits) {
    let plan = match limits.plan(model) {
        Ok(plan) => plan,
        Err(error) => {
            assert!(matches!(error, Error::Limit { .. }), "{error}");
            assert_eq!(limits.plan_header(header), Err(error));
            return;
        }
    };
    assert_eq!(limits.plan_header(header), Ok(plan));
    assert_eq!(plan.bytes, plan.kv_bytes + plan.logits_bytes + plan.scratch_bytes);
    // A guard behind the block shows whether anything is written beyond it.
    let mut memory = Block::zeroed(plan.bytes + 64).unwrap();
    let (block, guard) = memory.bytes_mut().split_at_mut(plan.bytes);
    guard.fill(0x5c);
    let exec = Many(8);
    let short = plan.bytes - 1;
    let error = Session::new(model, &limits, &exec, &mut block[..short]).unwrap_err();
    assert_eq!(error, Error::Memory(MemError::TooSmall { needed: plan.bytes, got: short }));
    let mut session = Session::new(model, &limits, &exec, block).unwrap();
    session.set_ignore_end(true);
    let ids: Vec<u32> = (0..session.room().min(150) as u32).map(|i| (i * 37 + 11) % 100).collect();
    if session.feed_tokens(&ids).is_ok() {
        for _ in 0..40 {
            match session.next_token(&mut Sampler::greedy()) {
                Ok(_) => {}
                Err(Error::ContextFull { .. } | Error::PagesFull { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    drop(session);
    assert!(guard.iter().all(|byte| *byte == 0x5c));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_plan_is_what_is_used(limits in limits(), model in 0..MODELS.len()) {
        let bytes = golden(MODELS[model]);
        let model = Model::from_slice(&bytes).unwrap();
        let mut tables = Block::zeroed(ModelHeader::size(&bytes, bytes.len() as u64).unwrap()).unwrap();
        let header = ModelHeader::new(&bytes, bytes.len() as u64, tables.bytes_mut()).unwrap();
        check(&model, &header, limits);
    }
}

#[test]
fn the_smallest_plan_works() {
    for name in MODELS {
        let bytes = golden(name);
        let model = Model::from_slice(&bytes).unwrap();
        let mut plain = model.session(Limits::new().context(64)).unwrap();
        for context in [1, 2, 20] {
            let limits = Limits::smallest(context);
            let plan = limits.plan(&model).unwrap();
            for more in
                [limits.batch(2), limits.sequences(2), limits.threads(2), limits.context(context + 16)]
            {
                let more = more.plan(&model).unwrap().bytes;
                assert!(plan.bytes < more || context == 1, "{name}: {} is not below {more}", plan.bytes);
            }
            let mut memory = Block::zeroed(plan.bytes).unwrap();
            let mut session = Session::new(&model, &limits, &Serial, memory.bytes_mut()).unwrap();
            let ids: Vec<u32> = (0..context as u32).map(|i| i * 7 % 100).collect();
            session.feed_tokens(&ids).unwrap();
            session.advance(Budget::Unlimited).unwrap();
            plain.truncate(0).unwrap();
            plain.feed_tokens(&ids).unwrap();
            plain.advance(Budget::Unlimited).unwrap();
            assert_eq!(session.logits(), plain.logits());
            let full = session.next_token(&mut Sampler::greedy());
            assert_eq!(full, Err(Error::ContextFull { needed: 1, room: 0, context }));
        }
        assert!(Limits::smallest(0).plan(&model).unwrap().context > 1, "0 stands for the model's context");
    }
}

#[test]
fn less_batch_is_less_memory_and_the_same_bits() {
    let bytes = golden("llama-gqa-tied-q8_0");
    let model = Model::from_slice(&bytes).unwrap();
    let ids: Vec<u32> = (0..100).map(|i| i * 31 % 100).collect();
    let mut known: Option<Vec<u32>> = None;
    let mut least = usize::MAX;
    for batch in [64, 16, 4, 1] {
        let limits = Limits::new().context(128).batch(batch);
        let bytes = limits.plan(&model).unwrap().bytes;
        assert!(bytes < least);
        least = bytes;
        let mut session = model.session(limits).unwrap();
        session.feed_tokens(&ids).unwrap();
        session.advance(Budget::Unlimited).unwrap();
        let bits = session.logits().unwrap().iter().map(|logit| logit.to_bits()).collect();
        assert_eq!(*known.get_or_insert_with(|| Vec::clone(&bits)), bits);
    }
}

#[test]
fn windows_keep_the_cache_small() {
    // Two of three layers see 24 positions; they hold those, the ones of a batch and some in reserve.
    let bytes = golden("gemma3-pattern");
    let model = Model::from_slice(&bytes).unwrap();
    let bytes = |context: usize| {
        let plan = Limits::new().context(context).batch(16).plan(&model).unwrap();
        (plan.kv_bytes, plan.scratch_bytes)
    };
    // Two bytes a number, and four for all of a position.
    let page = model.spec().kv_heads * 2 * 16 * (model.spec().dim_k + 2 + model.spec().dim_v + 2);
    let held = (24usize + 16 + 16).div_ceil(16) + 1;
    let full_layers =
        (0..model.spec().layers).filter(|layer| model.spec().layer(*layer).window.is_none()).count();
    let windowed = model.spec().layers - full_layers;
    for context in [256, 4096] {
        assert_eq!(bytes(context).0, page * (full_layers * context / 16 + windowed * held));
    }
}

#[test]
fn a_header_alone_is_enough_to_plan() {
    for name in MODELS {
        let bytes = golden(name);
        let read = Cell::new(0);
        let reader = |offset: u64, destination: &mut [u8]| {
            let from = offset as usize;
            read.set(read.get() + destination.len());
            destination.copy_from_slice(bytes.get(from..from + destination.len()).ok_or(ReadError::Ended)?);
            Ok(())
        };
        let front = HeaderBytes::from_reader(reader, bytes.len() as u64).unwrap();
        let header = ModelHeader::from_header_bytes(front).unwrap();
        let model = Model::from_slice(&bytes).unwrap();
        let limits = Limits::new().context(100).sequences(3);
        assert_eq!(limits.plan_header(&header), limits.plan(&model));
        assert_eq!((header.spec(), header.digest()), (model.spec(), model.header().digest()));
        assert_eq!(header.tokenizer().is_some(), model.tokenizer().is_some());
        // One byte too little memory, as everywhere.
        let needed = ModelHeader::size(&bytes, bytes.len() as u64).unwrap();
        assert!(needed <= Model::size(&ModelBytes::new(&bytes)).unwrap());
        let mut tables = Block::zeroed(needed).unwrap();
        let short = ModelHeader::new(&bytes, bytes.len() as u64, &mut tables.bytes_mut()[..needed - 1]);
        assert!(short.is_err());
    }
}
