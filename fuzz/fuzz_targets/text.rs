//! Arbitrary text through the tokenizers: it fits the memory that was promised, and comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use locutor::model::Model;
use locutor::text::{Specials, Tokenizer};
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

fn tokens(tokenizer: &Tokenizer<'_>, text: &str, specials: Specials) -> Vec<u32> {
    let mut scratch = vec![0; tokenizer.scratch_len(text.len())];
    // One more for each stretch of text between special tokens, and each of these has a byte at least.
    let mut out = vec![0; 2 * text.len() + 1];
    let len = tokenizer.encode(text, specials, &mut scratch, &mut out).expect("the promised memory suffices");
    out.truncate(len);
    assert!(out.iter().all(|id| (*id as usize) < tokenizer.vocab_len()));
    out
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    let Some(model) = models().get(usize::from(choice & 3)) else { return };
    let tokenizer = model.tokenizer().unwrap();

    // Any ids, and any bytes they stand for.
    let mut piece = vec![0; tokenizer.longest_token()];
    for id in data.chunks_exact(2).map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]]))) {
        assert_eq!(tokenizer.decode_into(id, &mut piece).is_ok(), (id as usize) < tokenizer.vocab_len());
    }

    let Ok(text) = std::str::from_utf8(data) else { return };
    tokens(tokenizer, text, Specials::Parse);
    let plain = tokens(tokenizer, text, Specials::Plain);
    if choice & 3 == 0 {
        let back = tokenizer.decode_vec(&plain).unwrap();
        assert_eq!(back, text.as_bytes(), "the story model has a token for every byte");
    }
});
