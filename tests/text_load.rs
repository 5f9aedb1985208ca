//! Loading tokenizers: what is refused, with which error at which place, and what the loaded one says of itself.

#[path = "common/gguf_builder.rs"]
mod gguf_builder;

use gguf_builder::{Gguf as Build, Val};
use locutor::format::{Counts, Gguf, gguf};
use locutor::mem::aligned::Block;
use locutor::mem::{Arena, Plan};
use locutor::text::{
    EntryProblem, MAX_SPECIAL_BYTES, MAX_TOKEN_BYTES, Specials, TextError, TokenKind, Tokenizer,
};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

/// Loads with exactly the planned memory, after `change` has had a look at what was counted.
fn load_counted<R>(
    file: &[u8],
    change: impl FnOnce(&mut Counts),
    check: impl FnOnce(&Tokenizer<'_>) -> R,
) -> Result<R, TextError> {
    let len = file.len() as u64;
    let mut counts = gguf::scan(file, len).unwrap();
    change(&mut counts);
    let mut plan = Plan::new();
    let gguf_slots = Gguf::plan(&counts, &mut plan).unwrap();
    let slots = Tokenizer::plan(&counts, &mut plan).unwrap();
    let mut block = Block::zeroed(plan.bytes()).unwrap();
    // What the memory holds before must not matter.
    block.bytes_mut().fill(0xA5);
    let mut arena = Arena::new(block.bytes_mut(), &plan).unwrap();
    let gguf = Gguf::read(file, len, &mut arena, &gguf_slots).unwrap();
    Tokenizer::load(&gguf, &mut arena, &slots).map(|tokenizer| check(&tokenizer))
}

fn load<R>(build: &Build, check: impl FnOnce(&Tokenizer<'_>) -> R) -> Result<R, TextError> {
    load_counted(&build.build(), |_| (), check)
}

fn error(build: &Build) -> TextError {
    load(build, |_| ()).expect_err("must be refused")
}

/// Absolute offset of the bytes of entry `index` of an array of strings.
fn offset_of(build: &Build, key: &str, index: usize) -> u64 {
    let (_, map) = build.build_mapped();
    let at = build.kv.iter().position(|(name, _)| name == key.as_bytes()).unwrap();
    let Val::Array(8, strings) = &build.kv[at].1 else { panic!("no strings") };
    let before =
        strings[..index].iter().map(|string| if let Val::Str(text) = string { text.len() } else { 0 });
    (map.kv[at][3] + 4 + 8 + before.map(|len| len + 8).sum::<usize>() + 8) as u64
}

fn with(mut build: Build, key: &str, value: Val) -> Build {
    build.kv.retain(|(name, _)| name != key.as_bytes());
    build.kv(key, value)
}

fn without(mut build: Build, key: &str) -> Build {
    build.kv.retain(|(name, _)| name != key.as_bytes());
    build
}

fn id_key(name: &str) -> String {
    format!("tokenizer.ggml.{name}_token_id")
}

/// A small byte-level vocabulary with one control token.
fn bpe() -> Build {
    Build::new()
        .kv("tokenizer.ggml.model", Val::str("gpt2"))
        .kv("tokenizer.ggml.pre", Val::str("gpt-2"))
        .kv(TOKENS, Val::strings(&["a", "b", "ab", "Ġ", "Ġab", "abab", "<|im_end|>", "Ċ"]))
        .kv(TYPES, Val::i32s(&[1, 1, 1, 1, 1, 1, 3, 1]))
        .kv(MERGES, Val::strings(&["a b", "Ġ ab", "ab ab"]))
}

/// A small SentencePiece vocabulary; `<0x61>` stands for `a`, which has no token of its own.
fn spm() -> Build {
    Build::new()
        .kv("tokenizer.ggml.model", Val::str("llama"))
        .kv(TOKENS, Val::strings(&["<unk>", "<s>", "</s>", "▁", "b", "▁b", "bb", "<0x61>", "  ", "<0x0a>"]))
        .kv(TYPES, Val::i32s(&[2, 3, 3, 1, 1, 1, 1, 6, 4, 6]))
        .kv(SCORES, Val::f32s(&[0.0, 0.0, 0.0, -4.0, -5.0, -2.0, -1.0, 0.0, 0.0, 0.0]))
}

fn plain(tokenizer: &Tokenizer<'_>, text: &str) -> Vec<u32> {
    tokenizer.encode_vec(text, Specials::Plain).unwrap()
}

#[test]
fn a_byte_level_tokenizer() {
    let build = bpe().kv("tokenizer.chat_template", Val::str("{{ messages }}"));
    load(&build, |t| {
        assert_eq!(plain(t, "abab ab\nb"), [5, 4, 7, 1]);
        assert_eq!(plain(t, "a<|im_end|>b"), [0, 1], "bytes without a token are left out");
        assert_eq!(t.encode_vec("a<|im_end|>b", Specials::Parse).unwrap(), [0, 6, 1]);
        assert_eq!(t.decode_vec(&[4, 7, 6]).unwrap(), b" ab\n<|im_end|>");
        assert_eq!((t.vocab_len(), t.longest_token(), t.find("Ġab"), t.find("ba")), (8, 10, Some(4), None));
        assert_eq!((t.is_end(6), t.is_end(0), t.is_end(u32::MAX)), (true, false, false));
        assert_eq!((t.ids().eot, t.ids().bos, t.ids().unk), (Some(6), None, None));
        assert_eq!((t.add_bos(), t.add_eos(), t.adds_blank()), (false, false, false));
        assert_eq!(
            t.token(6).map(|token| (token.text, token.kind)),
            Some(("<|im_end|>", TokenKind::Control))
        );
        assert_eq!(t.token(8), None);
        assert_eq!(t.chat_template(), Some("{{ messages }}"));
        let unknown = t.decode_into(8, &mut [0; 10]);
        assert_eq!(unknown, Err(TextError::NoSuchToken { id: 8, count: 8 }));
        assert_eq!(t.decode_into(4, &mut [0; 2]), Err(TextError::OutputTooSmall { needed: 3, got: 2 }));
    })
    .unwrap();
}

#[test]
fn a_sentencepiece_tokenizer() {
    load(&spm(), |t| {
        // The best score first, the leftmost of equals.
        assert_eq!(plain(t, "bbb"), [3, 6, 4]);
        assert_eq!(plain(t, "b"), [5]);
        assert_eq!(plain(t, "ba\nc"), [5, 7, 9, 0], "c has no token at all");
        assert_eq!(plain(t, "b  b"), [5, 8, 5], "a blank is put behind every special token");
        assert_eq!(plain(t, "b▁ b"), [5, 8, 5], "U+2581 is a blank");
        assert_eq!(plain(t, "<s>"), [3, 0, 0, 0]);
        assert_eq!(t.encode_vec("<s>b", Specials::Parse).unwrap(), [1, 5]);
        assert_eq!(t.decode_vec(&[5, 7, 9, 8, 5]).unwrap(), b"ba\n  b");
        assert_eq!(t.decode_vec(&[1, 5, 5]).unwrap(), b"<s>b b");
        let mut buffer = [0; 6];
        assert_eq!(t.decode_into(5, &mut buffer).map(|len| buffer[..len].to_vec()), Ok(b" b".to_vec()));
        let ids = t.ids();
        assert_eq!((ids.bos, ids.eos, ids.unk, ids.eot), (Some(1), Some(2), Some(0), None));
        assert_eq!((t.add_bos(), t.add_eos(), t.adds_blank(), t.is_end(2)), (true, false, true, true));
    })
    .unwrap();
    let bare = with(spm(), "tokenizer.ggml.add_space_prefix", Val::Bool(false));
    load(&bare, |t| assert_eq!((plain(t, "bbb"), plain(t, " b")), (vec![6, 4], vec![5]))).unwrap();
}

#[test]
fn an_end_of_text_that_is_an_ordinary_word_stays_one() {
    let tokens = ["<", "E", "O", "T", ">", "EO", "T>", "EOT>", "<EOT>"];
    let build = with(bpe(), TOKENS, Val::strings(&tokens));
    let build = with(build, TYPES, Val::i32s(&[1; 9]));
    let merged = with(build.clone(), MERGES, Val::strings(&["E O", "T >", "EO T>", "< EOT>"]));
    load(&merged, |t| {
        assert_eq!((t.token(8).unwrap().kind, t.is_end(8), t.ids().eot), (TokenKind::Normal, false, None));
    })
    .unwrap();
    let alone = with(build, MERGES, Val::strings(&["E O", "T >", "EO T>"]));
    load(&alone, |t| {
        assert_eq!((t.token(8).unwrap().kind, t.is_end(8), t.ids().eot), (TokenKind::Control, true, Some(8)));
        assert_eq!(plain(t, "<EOT>"), [0, 5, 3, 4]);
    })
    .unwrap();
}

#[test]
fn output_and_scratch_that_are_too_small() {
    for build in [bpe(), spm()] {
        load(&build, |t| {
            let text = "bbbb bbbb".repeat(5);
            let needed = t.scratch_len(text.len());
            let (mut scratch, mut out) = (vec![0; needed], vec![0; 50]);
            let len = t.encode(&text, Specials::Plain, &mut scratch, &mut out).unwrap();
            let short = t.encode(&text, Specials::Plain, &mut scratch, &mut out[..len - 1]);
            assert_eq!(short, Err(TextError::OutputTooSmall { needed: len, got: len - 1 }));
            assert!(t.encode(&text, Specials::Plain, &mut scratch, &mut out[..len]).is_ok());
            let none = t.encode(&text, Specials::Plain, &mut [], &mut out);
            assert_eq!(none, Err(TextError::ScratchTooSmall { needed, got: 0 }));
            assert_eq!(t.encode("", Specials::Plain, &mut [], &mut []), Ok(0));
        })
        .unwrap();
    }
}

/// Refused before anything is done with it.
#[test]
#[cfg(target_pointer_width = "64")]
fn a_text_that_is_too_long() {
    let limit = (u32::MAX / 4) as usize;
    let text = String::from_utf8(vec![0; limit + 1]).unwrap();
    for build in [bpe(), spm()] {
        load(&build, |t| {
            let refused = TextError::TextTooLong { got: limit + 1, limit };
            assert_eq!(t.encode(&text, Specials::Plain, &mut [], &mut []), Err(refused));
            assert_eq!(t.encode_vec(&text, Specials::Parse), Err(refused));
        })
        .unwrap();
    }
}

#[test]
fn missing_and_unknown_parts() {
    let missing =
        |build, key: &'static str| assert_eq!(error(&without(build, key)), TextError::Missing { key });
    missing(bpe(), "tokenizer.ggml.model");
    missing(bpe(), TOKENS);
    missing(bpe(), MERGES);
    missing(spm(), TOKENS);
    missing(spm(), SCORES);
    let unknown = |key: &str, name: &str| error(&with(bpe(), key, Val::str(name))).to_string();
    let expected = "`tokenizer.ggml.model` is `bert`, which is not supported";
    assert_eq!(unknown("tokenizer.ggml.model", "bert"), expected);
    let expected = "`tokenizer.ggml.pre` is `falcon`, which is not supported";
    assert_eq!(unknown("tokenizer.ggml.pre", "falcon"), expected);
    assert!(unknown("tokenizer.ggml.pre", &"x".repeat(100_000)).len() < 200);
    for key in
        ["tokenizer.ggml.model", "tokenizer.ggml.pre", TOKENS, TYPES, MERGES, "tokenizer.chat_template"]
    {
        assert!(matches!(error(&with(bpe(), key, Val::U32(1))), TextError::Format(_)), "{key}");
    }
}

#[test]
fn tokens_that_are_refused() {
    let entry = |tokens: &[&[u8]], index: usize, problem| {
        let build = without(with(bpe(), TOKENS, Val::strings(tokens)), TYPES);
        // An empty text is where its length is.
        let offset = offset_of(&build, TOKENS, index) - if tokens[index].is_empty() { 8 } else { 0 };
        assert_eq!(error(&build), TextError::Entry { key: TOKENS, offset, index: index as u64, problem });
    };
    entry(&[b"a", b"b", b"ab", b"a"], 3, EntryProblem::Duplicate { first: 0 });
    entry(&[b"a", b"", b"b"], 1, EntryProblem::Empty);
    entry(&[b"a", b"b", b"a\xFF"], 2, EntryProblem::Utf8);
    let none = without(with(bpe(), TOKENS, Val::strings::<&str>(&[])), TYPES);
    assert!(matches!(error(&none), TextError::Mismatch { key: TOKENS, expected: 1, got: 0, .. }));
    let long = without(with(spm(), TOKENS, Val::strings(&["a", &"x".repeat(1 << 20)])), TYPES);
    let (offset, limit) = (offset_of(&long, TOKENS, 1), MAX_TOKEN_BYTES as u64);
    assert_eq!(error(&long), TextError::Limit { key: TOKENS, offset, limit, got: 1 << 20 });
    let long = "y".repeat(MAX_SPECIAL_BYTES + 1);
    let build = with(bpe(), TOKENS, Val::strings(&["a", "b", "ab", "Ġ", "Ġab", "abab", &long, "z"]));
    let (offset, limit) = (offset_of(&build, TOKENS, 6), MAX_SPECIAL_BYTES as u64);
    assert_eq!(error(&build), TextError::Limit { key: TOKENS, offset, limit, got: limit + 1 });
}

#[test]
fn types_and_scores_that_are_refused() {
    for key in [TYPES, SCORES] {
        for count in [0usize, 9, 11] {
            let values = if key == TYPES { Val::i32s(&vec![1; count]) } else { Val::f32s(&vec![0.0; count]) };
            let TextError::Mismatch { key: found, expected: 10, got, .. } = error(&with(spm(), key, values))
            else {
                panic!("{key} {count}")
            };
            assert_eq!((found, got), (key, count as u64));
        }
    }
    for number in [-1, 7, i32::MAX] {
        let error = error(&with(spm(), TYPES, Val::i32s(&[1, 1, number, 1, 1, 1, 1, 6, 4, 6])));
        assert!(
            matches!(error, TextError::Entry { key: TYPES, index: 2, problem: EntryProblem::Kind, .. }),
            "{error}"
        );
    }
    for score in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut scores = [0.0; 10];
        scores[4] = score;
        let error = error(&with(spm(), SCORES, Val::f32s(&scores)));
        let problem = EntryProblem::NotFinite;
        assert!(
            matches!(error, TextError::Entry { key: SCORES, index: 4, problem: p, .. } if p == problem),
            "{error}"
        );
    }
    for text in ["<0x-1>", "<0xZZ>", "<0x1>", "<0x100>", "a"] {
        let tokens = ["<unk>", "<s>", "</s>", "▁", "b", "▁b", "bb", text, "  ", "<0x0a>"];
        let build = with(spm(), TOKENS, Val::strings(&tokens));
        let (offset, problem) = (offset_of(&build, TOKENS, 7), EntryProblem::Byte);
        assert_eq!(error(&build), TextError::Entry { key: TOKENS, offset, index: 7, problem });
    }
}

#[test]
fn merges_that_are_refused() {
    let entry = |merge: &str, problem| {
        let build = with(bpe(), MERGES, Val::strings(&["a b", merge, "Ġ ab"]));
        let offset = offset_of(&build, MERGES, 1) - if merge.is_empty() { 8 } else { 0 };
        assert_eq!(error(&build), TextError::Entry { key: MERGES, offset, index: 1, problem }, "{merge:?}");
    };
    for merge in ["", "ab", "a  b", "a b ", " a b", "a ", " b", " ", "a b ab"] {
        entry(merge, EntryProblem::MergeForm);
    }
    for merge in ["a x", "x b", "b a", "<|im_end|> a", "a \u{FFFD}"] {
        entry(merge, EntryProblem::MergeToken);
    }
    entry("a b", EntryProblem::MergeTwice { first: 0 });
    entry(&format!("a {}", "b".repeat(1 << 20)), EntryProblem::MergeToken);
    // A merge that would make text a control token.
    let tokens = ["a", "b", "ab", "Ġ", "Ġab", "abab", "aa", "Ċ"];
    let build = with(with(bpe(), TOKENS, Val::strings(&tokens)), MERGES, Val::strings(&["a a"]));
    let problem = EntryProblem::MergeToken;
    assert!(matches!(error(&build), TextError::Entry { key: MERGES, problem: p, .. } if p == problem));
}

#[test]
fn ids_and_flags_that_are_refused() {
    for name in ["bos", "eos", "eot", "eom", "unknown", "padding"] {
        for (value, got) in [
            (Val::U32(8), 8),
            (Val::U32(u32::MAX), u32::MAX.into()),
            (Val::I32(-1), -1),
            (Val::U64(u64::MAX), i64::MAX),
        ] {
            let TextError::TokenId { key, count: 8, got: found, .. } =
                error(&with(bpe(), &id_key(name), value))
            else {
                panic!("{name} {got}")
            };
            assert_eq!((key, found), (id_key(name).as_str(), got));
        }
        assert!(matches!(error(&with(bpe(), &id_key(name), Val::str("0"))), TextError::Format(_)));
    }
    for (flag, id) in [("add_bos_token", "bos"), ("add_eos_token", "eos")] {
        let build = bpe().kv(format!("tokenizer.ggml.{flag}"), Val::Bool(true));
        let text = format!("`tokenizer.ggml.{flag}` is true, but `{}` is missing", id_key(id));
        assert_eq!(error(&build).to_string(), text);
        let build = build.kv(id_key(id), Val::U32(6));
        load(&build, |t| assert!(t.add_bos() != t.add_eos())).unwrap();
    }
    // SentencePiece's usual ids are not taken for granted in a vocabulary that lacks them.
    let tiny = Build::new()
        .kv("tokenizer.ggml.model", Val::str("llama"))
        .kv(TOKENS, Val::strings(&["x"]))
        .kv(SCORES, Val::f32s(&[0.0]));
    load(&tiny, |t| assert_eq!((t.ids().bos, t.ids().eos, t.add_bos()), (None, None, false))).unwrap();
}

#[test]
fn a_header_that_is_not_the_planned_one() {
    let file = bpe().build();
    let fewer = load_counted(&file, |counts| counts.tokens -= 1, |_| ());
    assert_eq!(fewer, Err(TextError::Planned { key: TOKENS, planned: 7, got: 8 }));
    let more = load_counted(&file, |counts| counts.merges += 1, |_| ());
    assert_eq!(more, Err(TextError::Planned { key: MERGES, planned: 4, got: 3 }));
}
