//! Properties of encoding that hold for every text, on vocabularies with a token for every byte.

#[path = "common/gguf_builder.rs"]
mod gguf_builder;

use gguf_builder::{Gguf as Build, Val};
use locutor::format::{Gguf, gguf};
use locutor::mem::{Arena, Plan};
use locutor::text::{Pretokenizer, Specials, Tokenizer};
use proptest::prelude::*;
use std::sync::LazyLock;

fn load(build: &Build) -> Tokenizer<'static> {
    let header: &'static [u8] = build.build().leak();
    let counts = gguf::scan(header, header.len() as u64).unwrap();
    let mut plan = Plan::new();
    let gguf_slots = Gguf::plan(&counts, &mut plan).unwrap();
    let slots = Tokenizer::plan(&counts, &mut plan).unwrap();
    let memory = vec![0u8; plan.bytes() + 64].leak();
    let skip = memory.as_ptr().align_offset(64);
    let mut arena = Arena::new(&mut memory[skip..], &plan).unwrap();
    let gguf = Gguf::read(header, header.len() as u64, &mut arena, &gguf_slots).unwrap();
    Tokenizer::load(&gguf, &mut arena, &slots).unwrap()
}

/// GPT-2's letter for a byte.
fn letter(byte: u8) -> char {
    let plain = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    match plain(&byte) {
        true => char::from(byte),
        false => char::from_u32(256 + (0..byte).filter(|b| !plain(b)).count() as u32).unwrap(),
    }
}

/// All bytes, the pairs and fours of some of them, and runs of 2, 4, ... 64 times `a` and `^`.
fn byte_level(pre: &str) -> Tokenizer<'static> {
    let mut tokens: Vec<String> = (0..=255).map(|byte| letter(byte).to_string()).collect();
    let mut merges = Vec::new();
    let mut merge = |left: &str, right: &str| {
        let joined = format!("{left}{right}");
        if !tokens.contains(&joined) {
            merges.push(format!("{left} {right}"));
            tokens.push(joined);
        }
    };
    let pairs = [
        ("t", "h"),
        ("th", "e"),
        ("a", "n"),
        ("an", "d"),
        ("Ã", "¤"),
        ("ð", "Ł"),
        ("ðŁ", "ĺ"),
        ("1", "2"),
        ("'", "s"),
    ];
    for (left, right) in pairs {
        merge(left, right);
        merge("Ġ", &format!("{left}{right}"));
    }
    for run in ["a", "^", "Ġ", "Ċ"] {
        (0..6).for_each(|power| merge(&run.repeat(1 << power), &run.repeat(1 << power)));
    }
    tokens.push("<|im_end|>".into());
    let mut kinds = vec![1; tokens.len()];
    *kinds.last_mut().unwrap() = 3;
    load(
        &Build::new()
            .kv("tokenizer.ggml.model", Val::str("gpt2"))
            .kv("tokenizer.ggml.pre", Val::str(pre))
            .kv("tokenizer.ggml.tokens", Val::strings(&tokens))
            .kv("tokenizer.ggml.token_type", Val::i32s(&kinds))
            .kv("tokenizer.ggml.merges", Val::strings(&merges)),
    )
}

/// All bytes as byte tokens, and some pieces with scores.
fn sentencepiece(blank_first: bool) -> Tokenizer<'static> {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let mut kinds: Vec<i32> = [2, 3, 3].into_iter().chain([6; 256]).collect();
    let pieces = ["▁", "a", "b", "^", "ä", "▁a", "ab", "aa", "aaaa", "▁ab", "bä", "^^", "^^^^"];
    let runs = ["  ", "    ", "\n\n"];
    tokens.extend(pieces.iter().chain(&runs).map(|text| text.to_string()));
    kinds.extend(pieces.iter().map(|_| 1).chain(runs.iter().map(|_| 4)));
    let scores: Vec<f32> = (0..tokens.len()).map(|id| -((id * 7 % 11) as f32)).collect();
    load(
        &Build::new()
            .kv("tokenizer.ggml.model", Val::str("llama"))
            .kv("tokenizer.ggml.tokens", Val::strings(&tokens))
            .kv("tokenizer.ggml.token_type", Val::i32s(&kinds))
            .kv("tokenizer.ggml.scores", Val::f32s(&scores))
            .kv("tokenizer.ggml.add_space_prefix", Val::Bool(blank_first)),
    )
}

static BYTE_LEVEL: LazyLock<Vec<Tokenizer<'static>>> =
    LazyLock::new(|| ["gpt-2", "llama-bpe", "qwen2", "smollm", "default"].map(byte_level).into());
static SENTENCEPIECE: LazyLock<Vec<Tokenizer<'static>>> =
    LazyLock::new(|| [true, false].map(sentencepiece).into());

/// Texts with many of the characters that the rules speak of.
fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-b^ä ]{0,8}",
        "(the|and| |'s|'LL|12|\\r|\\n|\t|😀|<\\|im_end\\|>|</s>|<0x41>){0,6}",
        "\\PC{0,4}",
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn byte_level_texts_come_back(text in texts()) {
        for tokenizer in BYTE_LEVEL.iter() {
            for specials in [Specials::Plain, Specials::Parse] {
                let ids = tokenizer.encode_vec(&text, specials).unwrap();
                prop_assert!(ids.len() <= text.len());
                let back = tokenizer.decode_vec(&ids).unwrap();
                prop_assert_eq!(String::from_utf8(back).unwrap(), text.as_str());
            }
        }
    }

    #[test]
    fn sentencepiece_texts_come_back_but_for_the_blank_it_writes(text in texts()) {
        for tokenizer in SENTENCEPIECE.iter() {
            let ids = tokenizer.encode_vec(&text, Specials::Plain).unwrap();
            let back = String::from_utf8(tokenizer.decode_vec(&ids).unwrap()).unwrap();
            prop_assert_eq!(back, text.replace('▁', " "));
        }
    }

    #[test]
    fn control_tokens_only_come_from_the_program(text in texts()) {
        for tokenizer in BYTE_LEVEL.iter().chain(SENTENCEPIECE.iter()) {
            let ids = tokenizer.encode_vec(&text, Specials::Plain).unwrap();
            prop_assert!(!ids.iter().any(|id| tokenizer.is_end(*id)));
            let parsed = tokenizer.encode_vec(&text, Specials::Parse).unwrap();
            let ends = text.matches("<|im_end|>").count() + text.matches("</s>").count();
            prop_assert!(parsed.iter().filter(|id| tokenizer.is_end(**id)).count() <= ends);
        }
    }

    #[test]
    fn the_promised_scratch_suffices_whatever_it_holds(text in texts(), old in any::<u32>()) {
        for tokenizer in BYTE_LEVEL.iter().chain(SENTENCEPIECE.iter()) {
            let mut scratch = vec![old; tokenizer.scratch_len(text.len())];
            let mut out = vec![old; 2 * text.len() + 1];
            let len = tokenizer.encode(&text, Specials::Plain, &mut scratch, &mut out).unwrap();
            prop_assert_eq!(&out[..len], tokenizer.encode_vec(&text, Specials::Plain).unwrap());
        }
    }
}

/// Inputs that made others quadratic or overflow their stack. A quadratic step would take hours here.
#[test]
fn a_million_of_anything() {
    let million = 1_000_000;
    let texts = [
        "a",
        "^",
        " ",
        "\n",
        "\u{301}",
        "▁",
        "\0",
        "'",
        "<",
        "a ",
        " \n",
        "\r\n ",
        "1",
        "\u{fffd}",
        "<|im_end|",
    ];
    for text in texts {
        let text = text.repeat(million / text.len());
        for tokenizer in [&BYTE_LEVEL[0], &BYTE_LEVEL[1], &SENTENCEPIECE[0]] {
            let ids = tokenizer.encode_vec(&text, Specials::Plain).unwrap();
            let back = String::from_utf8(tokenizer.decode_vec(&ids).unwrap()).unwrap();
            assert!(back == text.replace('▁', if tokenizer.find("<s>").is_some() { " " } else { "▁" }));
        }
    }
}

#[test]
fn a_million_pieces_are_few_looks() {
    // The scanners hand out pieces one by one; each must begin where the last ended, without looking at the whole rest.
    for pretokenizer in [Pretokenizer::Gpt2, Pretokenizer::Llama3, Pretokenizer::Qwen2, Pretokenizer::SmolLm]
    {
        for text in ["x ", "x\n", " \t", "1 ", "é!", "\n x"] {
            let text = text.repeat(500_000);
            let total: usize = pretokenizer.split(&text).map(str::len).sum();
            assert_eq!(total, text.len());
        }
    }
}
