//! Loading tokenizers: what is refused, with which error at which place, and what the loaded one says of itself.

#[path = "common/gguf_builder.rs"]
mod gguf_builder;

use gguf_builder::{Gguf as Build, Val};
use locutor::format::{Counts, Field, FormatError, Gguf, What, gguf};
use locutor::mem::aligned::Block;
use locutor::mem::{Arena, MemError, Plan};
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

/// More tokens than bytes: each blank behind a special token is one.
#[test]
fn more_tokens_than_bytes() {
    let build = Build::new()
        .kv("tokenizer.ggml.model", Val::str("llama"))
        .kv(TOKENS, Val::strings(&["<unk>", "<s>", "</s>", "▁", "b", "#"]))
        .kv(TYPES, Val::i32s(&[2, 3, 3, 1, 1, 4]))
        .kv(SCORES, Val::f32s(&[0.0; 6]));
    load(&build, |t| {
        assert_eq!(plain(t, "#b#b#b"), [5, 3, 4, 5, 3, 4, 5, 3, 4]);
        assert_eq!(t.decode_vec(&[5, 3, 4, 5, 3, 4, 5, 3, 4]).unwrap(), b"#b#b#b");
    })
    .unwrap();
}

/// A byte token of a byte-level vocabulary that is written like any other one means its text.
#[test]
fn byte_tokens_of_a_byte_level_vocabulary() {
    let build = with(bpe(), TYPES, Val::i32s(&[1, 1, 1, 1, 1, 6, 3, 6]));
    let tokens = ["a", "b", "ab", "Ġ", "Ġab", "<0xC3>", "<|im_end|>", "Ċ"];
    let build = without(with(build, TOKENS, Val::strings(&tokens)), MERGES);
    let build = build.kv(MERGES, Val::strings(&["a b", "Ġ ab"]));
    let text = [b" ab\xC3", "Ċ".as_bytes()].concat();
    load(&build, |t| assert_eq!(t.decode_vec(&[4, 5, 7]).unwrap(), text)).unwrap();
}

/// The last token of the vocabulary is made by a merge before the last one.
#[test]
fn merges_in_another_order_than_their_tokens() {
    let tokens = ["a", "b", "Ġ", "Ġab", "ab"];
    let build = without(with(bpe(), TOKENS, Val::strings(&tokens)), TYPES);
    load(&with(build, MERGES, Val::strings(&["a b", "Ġ ab"])), |t| {
        assert_eq!(plain(t, "ab ab ba"), [4, 3, 2, 1, 0]);
    })
    .unwrap();
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
    // Names of one expression differ in whether a whole piece may be a token without a merge.
    for (name, whole) in [("llama-bpe", true), ("dbrx", false), ("smaug-bpe", false), ("chatglm-bpe", false)]
    {
        let build = with(with(bpe(), "tokenizer.ggml.pre", Val::str(name)), MERGES, Val::strings(&["a b"]));
        load(&build, |t| assert_eq!(plain(t, "abab"), if whole { &[5][..] } else { &[2, 2] }, "{name}"))
            .unwrap();
    }
    // Arrays of something else: where their element type stands.
    let element = |build: Build, key: &str, value: Val, expected: &str, got: &str| {
        let build = with(build, key, value);
        let at = build.build_mapped().1.kv.last().unwrap()[3];
        let text = format!(
            "array element type of `{key}` at byte {at}: expected array of {expected}, got array of {got}"
        );
        assert_eq!((error(&build).to_string(), error(&build).offset()), (text, Some(at as u64)));
    };
    element(bpe(), TOKENS, Val::u32s(&[1; 8]), "string", "u32");
    element(bpe(), MERGES, Val::f32s(&[1.0]), "string", "f32");
    element(bpe(), TYPES, Val::strings(&["1"; 8]), "integers", "string");
    element(spm(), SCORES, Val::i32s(&[1; 10]), "floats", "i32");
    assert!(matches!(error(&with(spm(), SCORES, Val::F32(1.0))), TextError::Format(_)));
    // Scores of twice the width, which nobody writes, have as many bytes as twice the number.
    let wide = Val::Array(12, vec![Val::F64(1.0); 10]);
    let refused = error(&with(spm(), SCORES, wide));
    assert!(matches!(refused, TextError::Mismatch { key: SCORES, expected: 40, got: 80, .. }), "{refused}");
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
    let wide: Vec<_> = [1, 1, 1 << 40, 1, 1, 1, 1, 6, 4, 6].map(Val::I64).into();
    let build = with(spm(), TYPES, Val::Array(11, wide));
    let (_, map) = build.build_mapped();
    let offset = (map.kv.last().unwrap()[3] + 12 + 2 * 8) as u64;
    let field = Field::named(What::Element, TYPES.as_bytes());
    let range = FormatError::Range { field, offset, limit: i32::MAX as u64, got: 1 << 40 };
    assert_eq!(error(&build), TextError::Format(range));
    assert_eq!(error(&build).offset(), Some(offset));
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

/// The hashes of `text/table.rs`, which anybody can read.
mod hash {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

    pub fn mix(word: u64) -> u64 {
        let product = (word ^ word >> 32).wrapping_mul(FACTOR);
        product ^ product >> 29
    }

    pub fn of_length(bytes: u64) -> u64 {
        bytes.wrapping_mul(FACTOR)
    }

    pub fn of_pair(left: u32, right: u32) -> u64 {
        let product = mix(u64::from(left) << 32 | u64::from(right)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        product ^ product >> 32
    }
}

/// Most entries with one place that a table takes.
const MOST_COLLISIONS: usize = 512;

/// Texts chosen for one hash: the second half undoes what the first has done.
#[test]
fn tokens_that_collide_are_refused() {
    let mut texts = Vec::new();
    let mut number = 0u64;
    while texts.len() <= MOST_COLLISIONS {
        number += 1;
        let first = format!("{number:08}");
        let word = u64::from_le_bytes(first.as_bytes().try_into().unwrap());
        let second = hash::mix(hash::of_length(16) ^ word) ^ 0x5A5A;
        if let Ok(second) = std::str::from_utf8(&second.to_le_bytes()) {
            texts.push(first + second);
        }
    }
    let build = |texts: &[String]| without(with(bpe(), TOKENS, Val::strings(texts)), TYPES);
    let last = build(&texts);
    let (offset, index) = (offset_of(&last, TOKENS, MOST_COLLISIONS), MOST_COLLISIONS as u64);
    let problem = EntryProblem::Collisions;
    let refused = TextError::Entry { key: TOKENS, offset, index, problem };
    assert_eq!(error(&last), refused);
    let text = format!("`{TOKENS}` at byte {offset}: entry 512 collides with too many others");
    assert_eq!(refused.to_string(), text);
    let fits = with(build(&texts[..MOST_COLLISIONS]), MERGES, Val::strings::<&str>(&[]));
    load(&fits, |t| assert_eq!(t.find(&texts[511]), Some(511))).unwrap();
}

/// Runs of one letter, of which any two may be merged; those pairs are merged that have one place in the table.
#[test]
fn merges_that_collide_are_refused() {
    let runs: Vec<String> = (1..=1600).map(|len| "a".repeat(len)).collect();
    let half = runs.len() as u32 / 2;
    let pairs = (0..half * half).map(|pair| (pair / half, pair % half));
    // A table of so many merges has 1,024 places.
    let same_place = pairs.filter(|&(left, right)| hash::of_pair(left, right).is_multiple_of(1024));
    let merges: Vec<String> = same_place
        .take(MOST_COLLISIONS + 1)
        .map(|(left, right)| format!("{} {}", runs[left as usize], runs[right as usize]))
        .collect();
    let build = |merges: &[String]| {
        let build = without(with(bpe(), TOKENS, Val::strings(&runs)), TYPES);
        with(build, MERGES, Val::strings(merges))
    };
    let last = build(&merges);
    let (offset, index) = (offset_of(&last, MERGES, MOST_COLLISIONS), MOST_COLLISIONS as u64);
    let problem = EntryProblem::Collisions;
    assert_eq!(error(&last), TextError::Entry { key: MERGES, offset, index, problem });
    load(&build(&merges[..MOST_COLLISIONS]), |t| assert_eq!(plain(t, "b"), [])).unwrap();
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

#[test]
fn counts_that_no_memory_holds() {
    let file = bpe().build();
    let counts = gguf::scan(&file, file.len() as u64).unwrap();
    let most = usize::MAX;
    for tokens in [most, most - 1, most / 2, most / 4, most / 8] {
        let refused = Tokenizer::plan(&Counts { tokens, ..counts }, &mut Plan::new());
        assert_eq!(refused.err(), Some(MemError::Overflow), "{tokens} tokens");
    }
    for merges in [most, most / 2, most / 8, most / 24] {
        let refused = Tokenizer::plan(&Counts { merges, ..counts }, &mut Plan::new());
        assert_eq!(refused.err(), Some(MemError::Overflow), "{merges} merges");
    }
}

/// An arena of another plan: whichever table does not fit, the reason is memory.
#[test]
fn memory_that_ends_before_the_tables_do() {
    for build in [bpe(), spm()] {
        let file = build.build();
        let len = file.len() as u64;
        let counts = gguf::scan(&file, len).unwrap();
        let (mut plan, mut front) = (Plan::new(), Plan::new());
        let gguf_slots = Gguf::plan(&counts, &mut plan).unwrap();
        Gguf::plan(&counts, &mut front).unwrap();
        let slots = Tokenizer::plan(&counts, &mut plan).unwrap();
        for bytes in (0..=plan.bytes() - front.bytes()).step_by(64) {
            let mut short = Plan::new();
            short.array::<u8>(front.bytes() + bytes).unwrap();
            let mut block = Block::zeroed(short.bytes()).unwrap();
            let mut arena = Arena::new(block.bytes_mut(), &short).unwrap();
            let gguf = Gguf::read(&file, len, &mut arena, &gguf_slots).unwrap();
            let loaded = Tokenizer::load(&gguf, &mut arena, &slots);
            if short.bytes() < plan.bytes() {
                assert_eq!(loaded.err(), Some(TextError::Memory(MemError::Overflow)), "{bytes}");
            } else {
                assert_eq!(loaded.unwrap().vocab_len(), counts.tokens);
            }
        }
    }
}
