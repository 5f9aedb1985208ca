//! How the work of loading and of tokenising grows with the input, counted in steps: see `crate::steps`.

use super::{Specials, Tokenizer};
use crate::format::{FormatError, Gguf, gguf};
use crate::mem::aligned::Block;
use crate::mem::{Arena, Plan};
use crate::steps::tests::counted;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

/// A header in the making.
#[derive(Default)]
struct Header {
    pairs: Vec<u8>,
    tensors: Vec<u8>,
    counts: [u64; 2],
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Header {
    fn pair(&mut self, key: &str, kind: u32) -> &mut Vec<u8> {
        self.counts[1] += 1;
        text(&mut self.pairs, key);
        self.pairs.extend(kind.to_le_bytes());
        &mut self.pairs
    }

    fn string(&mut self, key: &str, value: &str) {
        text(self.pair(key, 8), value);
    }

    fn strings(&mut self, key: &str, values: &[String]) {
        let out = self.pair(key, 9);
        out.extend(8u32.to_le_bytes());
        out.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| text(out, value));
    }

    fn numbers(&mut self, key: &str, kind: u32, values: impl ExactSizeIterator<Item = [u8; 4]>) {
        let out = self.pair(key, 9);
        out.extend(kind.to_le_bytes());
        out.extend((values.len() as u64).to_le_bytes());
        values.for_each(|value| out.extend(value));
    }

    fn tensor(&mut self, name: &str) {
        self.counts[0] += 1;
        text(&mut self.tensors, name);
        // A tensor of no values: one dimension of 0, floats, at the start of the data.
        self.tensors.extend(1u32.to_le_bytes());
        self.tensors.extend([0; 8 + 4 + 8]);
    }

    fn file(&self) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        self.counts.iter().for_each(|count| file.extend(count.to_le_bytes()));
        file.extend(&self.pairs);
        file.extend(&self.tensors);
        file.resize(file.len().next_multiple_of(32), 0);
        file
    }
}

/// Checks that the steps of `work`, told a size, grow by little more than the size does: `n log n` at most.
fn grows(name: &str, sizes: [usize; 4], work: impl Fn(usize) -> u64) {
    let steps = sizes.map(&work);
    for (pair, sizes) in steps.windows(2).zip(sizes.windows(2)) {
        let by_size =
            sizes[1] as f64 / sizes[0] as f64 * f64::from(sizes[1].ilog2()) / f64::from(sizes[0].ilog2());
        let by_steps = pair[1] as f64 / pair[0] as f64;
        assert!(by_steps <= by_size * 1.15, "{name}: {steps:?} steps");
    }
    assert!(steps[3] > sizes[3] as u64, "{name}: nothing was counted");
}

/// Everything that loading does up to the tokenizer; whether there is one.
fn load(file: &[u8], tokenizer: bool) -> Result<(), FormatError> {
    let len = file.len() as u64;
    let counts = gguf::scan(file, len)?;
    let mut plan = Plan::new();
    let gguf_slots = Gguf::plan(&counts, &mut plan)?;
    let slots = Tokenizer::plan(&counts, &mut plan)?;
    let mut block = Block::zeroed(plan.bytes())?;
    let mut arena = Arena::new(block.bytes_mut(), &plan)?;
    let gguf = Gguf::read(file, len, &mut arena, &gguf_slots)?;
    if tokenizer {
        Tokenizer::load(&gguf, &mut arena, &slots).unwrap();
    }
    Ok(())
}

fn loading(name: &str, tokenizer: bool, fill: impl Fn(usize, &mut Header)) {
    grows(name, [1 << 9, 1 << 11, 1 << 12, 1 << 13], |size| {
        let mut header = Header::default();
        fill(size, &mut header);
        let file = header.file();
        let (result, steps) = counted(|| load(&file, tokenizer));
        result.unwrap();
        steps
    });
}

#[test]
fn loading_takes_n_log_n_steps() {
    let prefix = "p".repeat(60);
    loading("pairs that descend", false, |size, header| {
        (0..size).rev().for_each(|i| header.pair(&format!("{prefix}{i:06}"), 0).push(0));
    });
    loading("tensors in an order of their own", false, |size, header| {
        (0..size).for_each(|i| header.tensor(&format!("t{:06}", i * 7919 % 1_000_003)));
    });
    loading("numbers", false, |size, header| {
        header.numbers("numbers", 4, (0..size as u32).map(u32::to_le_bytes));
    });
    for (model, pre) in [("gpt2", "llama-bpe"), ("gpt2", "default"), ("llama", "")] {
        loading(model, true, |size, header| {
            // Letters, then what two tokens before it make; every merge of the list leads to one.
            let mut tokens: Vec<String> = (0..64).map(|i| format!("{}", char::from(b'A' + i))).collect();
            let mut merges = Vec::new();
            while tokens.len() < size {
                let (left, right) = (&tokens[merges.len() / 64], &tokens[merges.len() % 64]);
                merges.push(format!("{left} {right}"));
                tokens.push(format!("{left}{right}"));
            }
            header.string("tokenizer.ggml.model", model);
            header.strings("tokenizer.ggml.tokens", &tokens);
            if model == "gpt2" {
                header.string("tokenizer.ggml.pre", pre);
                header.strings("tokenizer.ggml.merges", &merges);
            } else {
                header.numbers("tokenizer.ggml.scores", 6, (0..size).map(|i| (-(i as f32)).to_le_bytes()));
                header.numbers("tokenizer.ggml.token_type", 5, (0..size).map(|_| 4i32.to_le_bytes()));
            }
        });
    }
}

/// A vocabulary that joins runs of every length and has control tokens of many lengths.
fn vocabulary(model: &str, pre: &str) -> Vec<u8> {
    let mut header = Header::default();
    let blank = if model == "gpt2" { "\u{120}" } else { "\u{2581}" };
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    let mut merges = Vec::new();
    for letter in ["a", "b", "^", "1", blank, "<"] {
        tokens.push(letter.into());
        for power in 0..8 {
            let half = letter.repeat(1 << power);
            merges.push(format!("{half} {half}"));
            tokens.push(letter.repeat(2 << power));
        }
    }
    tokens.push("ab".into());
    merges.push("a b".into());
    let plain = tokens.len();
    (1..40).for_each(|len| tokens.push(format!("<{}>", "|".repeat(len))));
    header.string("tokenizer.ggml.model", model);
    header.strings("tokenizer.ggml.tokens", &tokens);
    let kind = |id| if id < 3 || id >= plain { 3i32 } else { 1 };
    header.numbers("tokenizer.ggml.token_type", 5, (0..tokens.len()).map(|id| kind(id).to_le_bytes()));
    if model == "gpt2" {
        header.string("tokenizer.ggml.pre", pre);
        header.strings("tokenizer.ggml.merges", &merges);
    } else {
        let scores = (0..tokens.len()).map(|id| (-(id as f32)).to_le_bytes());
        header.numbers("tokenizer.ggml.scores", 6, scores);
    }
    header.file()
}

#[test]
fn tokenising_takes_n_log_n_steps() {
    let texts = [
        "a",
        "ab",
        "^",
        "1",
        " ",
        "\n",
        "<",
        "<|",
        "<|||>",
        " a",
        "a1 ",
        "a^",
        "^1",
        "\u{301}",
        "a\u{301}",
        "\u{2581}",
        "'s",
        "\u{e9}",
        "\u{1f600}",
        "\0",
        "\r\n ",
        "\u{3000}",
        "A",
        "\u{ac00}",
    ];
    for (model, pre) in [
        ("gpt2", "gpt-2"),
        ("gpt2", "llama-bpe"),
        ("gpt2", "qwen2"),
        ("gpt2", "smollm"),
        ("gpt2", "default"),
        ("llama", ""),
    ] {
        let file = vocabulary(model, pre);
        let counts = gguf::scan(&file, file.len() as u64).unwrap();
        let mut plan = Plan::new();
        let gguf_slots = Gguf::plan(&counts, &mut plan).unwrap();
        let slots = Tokenizer::plan(&counts, &mut plan).unwrap();
        let mut block = Block::zeroed(plan.bytes()).unwrap();
        let mut arena = Arena::new(block.bytes_mut(), &plan).unwrap();
        let gguf = Gguf::read(&file, file.len() as u64, &mut arena, &gguf_slots).unwrap();
        let tokenizer = Tokenizer::load(&gguf, &mut arena, &slots).unwrap();
        for unit in texts {
            for specials in [Specials::Plain, Specials::Parse] {
                grows(&format!("{model} {pre} {unit:?}"), [1 << 10, 1 << 11, 1 << 12, 1 << 14], |size| {
                    let text = unit.repeat(size / unit.len());
                    let mut scratch = vec![0; tokenizer.scratch_len(text.len())];
                    let mut out = vec![0; 2 * text.len() + 1];
                    let (encoded, steps) =
                        counted(|| tokenizer.encode(&text, specials, &mut scratch, &mut out));
                    encoded.unwrap();
                    steps
                });
            }
        }
    }
}
