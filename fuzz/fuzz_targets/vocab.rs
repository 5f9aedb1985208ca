//! Vocabularies, scores, kinds and merges of a fuzzer's making, in a file that is otherwise right; then text through
//! the tokenizer that comes of it.
#![no_main]

#[path = "../../tests/common/gguf_builder.rs"]
mod gguf_builder;
#[path = "common/input.rs"]
#[allow(dead_code)]
mod input;

use gguf_builder::{Gguf as Build, Val};
use input::Input;
use libfuzzer_sys::fuzz_target;
use locutor::format::gguf::{self, Gguf};
use locutor::mem::aligned::Block;
use locutor::mem::{Arena, Plan};
use locutor::text::{Specials, Tokenizer};

/// Pieces that vocabularies are made of, so that merges and specials meet.
const PIECES: [&[u8]; 24] = [
    b"a",
    b"b",
    b"ab",
    b" ",
    "Ġ".as_bytes(),
    "▁".as_bytes(),
    b"<",
    b">",
    b"<|",
    b"|>",
    b"<0x0A>",
    b"<0xab>",
    b"<0x",
    b"</s>",
    b"<s>",
    b"<EOT>",
    b"<|im_end|>",
    "é".as_bytes(),
    "Ċ".as_bytes(),
    b"1",
    b"23",
    b"\n",
    b"\xFF",
    b"",
];

fn text(input: &mut Input<'_>) -> Vec<u8> {
    let count = match input.byte() {
        255 => 300,
        n => usize::from(n) % 4,
    };
    (0..count).flat_map(|_| PIECES[input.below(PIECES.len())].iter().copied()).collect()
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let flags = input.byte();
    let tokens = 1 + input.below(40);
    let texts: Vec<Vec<u8>> = (0..tokens).map(|_| text(&mut input)).collect();
    let longer = usize::from(flags & 8 != 0);
    let kinds: Vec<i32> = (0..tokens + longer).map(|_| i32::from(input.byte() % 8) - 1 + 1).collect();
    let mut build = Build::new()
        .kv("tokenizer.ggml.model", Val::str(if flags & 1 == 0 { "gpt2" } else { "llama" }))
        .kv("tokenizer.ggml.tokens", Val::strings(&texts));
    if flags & 2 == 0 {
        build = build.kv("tokenizer.ggml.token_type", Val::i32s(&kinds));
    }
    if flags & 1 == 0 {
        let pre = ["gpt-2", "llama-bpe", "qwen2", "default", "smollm"][input.below(5)];
        let merges: Vec<Vec<u8>> = (0..input.below(30))
            .map(|_| match input.byte() {
                255 => text(&mut input),
                _ => [&texts[input.below(tokens)][..], b" ", &texts[input.below(tokens)]].concat(),
            })
            .collect();
        build =
            build.kv("tokenizer.ggml.pre", Val::str(pre)).kv("tokenizer.ggml.merges", Val::strings(&merges));
    } else {
        let scores: Vec<f32> =
            (0..tokens).map(|_| f32::from_bits(u32::from(input.byte()) << 24 | 0x12_3456)).collect();
        build = build.kv("tokenizer.ggml.scores", Val::f32s(&scores));
    }
    for name in ["bos", "eos", "eot", "eom", "unknown", "padding"] {
        match input.byte() {
            0..=127 => {}
            250..=255 => {
                build = build.kv(format!("tokenizer.ggml.{name}_token_id"), Val::U64(input.number()));
            }
            n => {
                let id = u32::from(n) % tokens as u32;
                build = build.kv(format!("tokenizer.ggml.{name}_token_id"), Val::U32(id));
            }
        }
    }
    for flag in ["add_bos_token", "add_eos_token", "add_space_prefix"] {
        match input.byte() % 4 {
            0 => build = build.kv(format!("tokenizer.ggml.{flag}"), Val::Bool(true)),
            1 => build = build.kv(format!("tokenizer.ggml.{flag}"), Val::Bool(false)),
            _ => {}
        }
    }
    let file = build.build();
    let len = file.len() as u64;
    let counts = gguf::scan(&file, len).expect("the file is right but for its vocabulary");
    let mut plan = Plan::new();
    let gguf_slots = Gguf::plan(&counts, &mut plan).unwrap();
    let slots = Tokenizer::plan(&counts, &mut plan).unwrap();
    let mut block = Block::zeroed(plan.bytes()).unwrap();
    let mut arena = Arena::new(block.bytes_mut(), &plan).unwrap();
    let gguf = Gguf::read(&file, len, &mut arena, &gguf_slots).unwrap();
    let tokenizer = match Tokenizer::load(&gguf, &mut arena, &slots) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            assert!(error.offset().is_none_or(|offset| offset < len) && !error.to_string().is_empty());
            return;
        }
    };
    let words: Vec<u8> = (0..input.below(30)).flat_map(|_| text(&mut input)).collect();
    let words = String::from_utf8_lossy(&words);
    for specials in [Specials::Plain, Specials::Parse] {
        let mut scratch = vec![0; tokenizer.scratch_len(words.len())];
        let mut out = vec![0; 2 * words.len() + 1];
        let count =
            tokenizer.encode(&words, specials, &mut scratch, &mut out).expect("the promised memory suffices");
        assert!(out[..count].iter().all(|id| (*id as usize) < tokenizer.vocab_len()));
        tokenizer.decode_vec(&out[..count]).unwrap();
    }
    let mut piece = vec![0; tokenizer.longest_token()];
    for id in 0..tokenizer.vocab_len() as u32 + 1 {
        assert_eq!(tokenizer.decode_into(id, &mut piece).is_ok(), (id as usize) < tokenizer.vocab_len());
    }
});
