//! Arbitrary text through the tokenizers: it fits the memory that was promised, and comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use locutor::model::Model;
use locutor::text::{Specials, Tokenizer};
use std::cell::RefCell;
use std::sync::OnceLock;

/// Byte-level BPE and SentencePiece BPE, with the little vocabularies of the tests, and the story model's.
fn models() -> &'static [Model<'static>] {
    static MODELS: OnceLock<Vec<Model<'static>>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let files: [&[u8]; 4] = [
            include_bytes!("../../examples/model/story.gguf"),
            include_bytes!("../../tests/golden/gpt2-head.gguf"),
            include_bytes!("../../tests/golden/llama3-rope.gguf"),
            include_bytes!("../../tests/golden/gemma3.gguf"),
        ];
        files.iter().map(|file| Model::from_slice(file).unwrap()).collect()
    })
}

/// Memory that is kept from one input to the next.
#[derive(Default)]
struct Bench {
    scratch: Vec<u32>,
    ids: Vec<u32>,
    piece: Vec<u8>,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::default();
}

/// How many tokens of `ids` a text gives.
fn encode(tokenizer: &Tokenizer<'_>, text: &str, specials: Specials, bench: &mut Bench) -> usize {
    bench.scratch.resize(tokenizer.scratch_len(text.len()), 0);
    // One more for each stretch of text between special tokens, and each of these has a byte at least.
    bench.ids.resize(2 * text.len() + 1, 0);
    let len = tokenizer
        .encode(text, specials, &mut bench.scratch, &mut bench.ids)
        .expect("the promised memory suffices");
    assert!(bench.ids[..len].iter().all(|id| (*id as usize) < tokenizer.vocab_len()));
    len
}

fn run(data: &[u8], bench: &mut Bench) {
    let Some((&choice, data)) = data.split_first() else { return };
    let Some(model) = models().get(usize::from(choice & 3)) else { return };
    let tokenizer = model.tokenizer().unwrap();

    // Any ids, and any bytes they stand for.
    bench.piece.resize(tokenizer.longest_token(), 0);
    for id in data.chunks_exact(2).map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]]))) {
        let decoded = tokenizer.decode_into(id, &mut bench.piece);
        assert_eq!(decoded.is_ok(), (id as usize) < tokenizer.vocab_len());
    }

    let Ok(text) = std::str::from_utf8(data) else { return };
    encode(tokenizer, text, Specials::Parse, bench);
    let plain = encode(tokenizer, text, Specials::Plain, bench);
    if choice & 3 == 0 {
        let back = tokenizer.decode_vec(&bench.ids[..plain]).unwrap();
        assert_eq!(back, text.as_bytes(), "the story model has a token for every byte");
    }
}

fuzz_target!(|data: &[u8]| BENCH.with_borrow_mut(|bench| run(data, bench)));
