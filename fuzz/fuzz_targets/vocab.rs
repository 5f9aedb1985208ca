//! Vocabularies, scores, kinds and merges of a fuzzer's making, in a file that is otherwise right; then text through
//! the tokenizer that comes of it.
#![no_main]

#[path = "common/input.rs"]
#[allow(dead_code)]
mod input;
#[path = "common/memory.rs"]
mod memory;
#[path = "common/writer.rs"]
#[allow(dead_code)]
mod writer;

use input::Input;
use libfuzzer_sys::fuzz_target;
use locutor::format::gguf::{self, Gguf};
use locutor::mem::{Arena, Plan};
use locutor::text::{Specials, Tokenizer};
use std::cell::RefCell;
use std::ops::Range;
use writer::Writer;

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

/// What is made of an input, in memory that is kept.
#[derive(Default)]
struct Bench {
    writer: Writer,
    texts: Vec<Range<usize>>,
    words: Vec<u8>,
    scratch: Vec<u32>,
    ids: Vec<u32>,
    piece: Vec<u8>,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::default();
}

fn text(input: &mut Input<'_>, out: &mut Vec<u8>) {
    let count = match input.byte() {
        255 => 300,
        n => usize::from(n) % 4,
    };
    (0..count).for_each(|_| out.extend(PIECES[input.below(PIECES.len())]));
}

fn key(name: &'static str) -> [&'static [u8]; 2] {
    [b"tokenizer.ggml.", name.as_bytes()]
}

/// Writes the header of a vocabulary.
fn write(input: &mut Input<'_>, Bench { writer, texts, .. }: &mut Bench) {
    let flags = input.byte();
    let tokens = 1 + input.below(40);
    writer.begin();
    writer.string(&key("model"), if flags & 1 == 0 { b"gpt2" } else { b"llama" });
    writer.array(&key("tokens"), 8, tokens);
    texts.clear();
    for _ in 0..tokens {
        let start = writer.open();
        text(input, &mut writer.file);
        texts.push(writer.close(start));
    }
    if flags & 2 == 0 {
        let kinds = tokens + usize::from(flags & 8 != 0);
        writer.array(&key("token_type"), 5, kinds);
        (0..kinds).for_each(|_| writer.file.extend(i32::from(input.byte() % 8).to_le_bytes()));
    }
    if flags & 1 == 0 {
        let pre = ["gpt-2", "llama-bpe", "qwen2", "default", "smollm"][input.below(5)];
        writer.string(&key("pre"), pre.as_bytes());
        let merges = input.below(30);
        writer.array(&key("merges"), 8, merges);
        for _ in 0..merges {
            let start = writer.open();
            if input.byte() == 255 {
                text(input, &mut writer.file);
            } else {
                writer.file.extend_from_within(texts[input.below(tokens)].clone());
                writer.file.push(b' ');
                writer.file.extend_from_within(texts[input.below(tokens)].clone());
            }
            writer.close(start);
        }
    } else {
        writer.array(&key("scores"), 6, tokens);
        for _ in 0..tokens {
            writer.file.extend((u32::from(input.byte()) << 24 | 0x12_3456).to_le_bytes());
        }
    }
    for name in [
        "bos_token_id",
        "eos_token_id",
        "eot_token_id",
        "eom_token_id",
        "unknown_token_id",
        "padding_token_id",
    ] {
        match input.byte() {
            0..=127 => {}
            250..=255 => writer.u64(&key(name), input.number()),
            n => writer.u32(&key(name), u32::from(n) % tokens as u32),
        }
    }
    for name in ["add_bos_token", "add_eos_token", "add_space_prefix"] {
        match input.byte() % 4 {
            0 => writer.bool(&key(name), true),
            1 => writer.bool(&key(name), false),
            _ => {}
        }
    }
    writer.end();
}

/// Text of the input's through the tokenizer and back, and every token's bytes.
fn tokenise(input: &mut Input<'_>, tokenizer: &Tokenizer<'_>, bench: &mut Bench) {
    let Bench { words, scratch, ids, piece, .. } = bench;
    words.clear();
    (0..input.below(30)).for_each(|_| text(input, words));
    let words = String::from_utf8_lossy(words);
    let vocab_len = tokenizer.vocab_len() as u32;
    piece.resize(tokenizer.longest_token(), 0);
    for specials in [Specials::Plain, Specials::Parse] {
        scratch.resize(tokenizer.scratch_len(words.len()), 0);
        ids.resize(2 * words.len() + 1, 0);
        let count = tokenizer.encode(&words, specials, scratch, ids).expect("the promised memory suffices");
        for &id in &ids[..count] {
            assert!(id < vocab_len);
            tokenizer.decode_into(id, piece).unwrap();
        }
    }
    for id in 0..vocab_len + 1 {
        assert_eq!(tokenizer.decode_into(id, piece).is_ok(), id < vocab_len);
    }
}

fn run(input: &mut Input<'_>, bench: &mut Bench) {
    write(input, bench);
    let file = std::mem::take(&mut bench.writer.file);
    let len = file.len() as u64;
    let counts = gguf::scan(&file, len).expect("the file is right but for its vocabulary");
    let mut plan = Plan::new();
    let gguf_slots = Gguf::plan(&counts, &mut plan).unwrap();
    let slots = Tokenizer::plan(&counts, &mut plan).unwrap();
    memory::with(plan.bytes(), |memory| {
        let mut arena = Arena::new(memory, &plan).unwrap();
        let gguf = Gguf::read(&file, len, &mut arena, &gguf_slots).unwrap();
        match Tokenizer::load(&gguf, &mut arena, &slots) {
            Ok(tokenizer) => tokenise(input, &tokenizer, bench),
            Err(error) => {
                let said = error.to_string();
                assert!(
                    error.offset().is_none_or(|offset| offset < len) && !said.is_empty(),
                    "{said} ({len} bytes)"
                );
            }
        }
    });
    bench.writer.file = file;
}

fuzz_target!(|data: &[u8]| BENCH.with_borrow_mut(|bench| run(&mut Input(data), bench)));
