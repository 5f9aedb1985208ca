//! Hostile files with a name, each made by hand, and what is said of it: kind of error, field, byte offset. Numbers
//! are those of the list of attacks that these files answer: everything that crashed another reader is in it.

use crate::check::{Bench, facts, logits};
use crate::gguf_builder::{Gguf as Build, Val};
use crate::seeds::{self, Seed};
use locutor::format::limits;

/// A file that must be refused.
struct Case {
    name: String,
    file: Vec<u8>,
    code: &'static str,
    /// The field, or how it begins.
    field: String,
    offset: Option<u64>,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(
        &mut self,
        name: impl Into<String>,
        file: Vec<u8>,
        code: &'static str,
        field: impl Into<String>,
        offset: Option<usize>,
    ) {
        let (name, field, offset) = (name.into(), field.into(), offset.map(|offset| offset as u64));
        assert!(self.0.iter().all(|case| case.name != name), "{name} twice");
        self.0.push(Case { name, file, code, field, offset });
    }
}

fn header(cases: &mut Cases, seed: &Seed) {
    for len in 0..24 {
        let (field, at) = match len {
            0..4 => ("magic number", 0),
            4..8 => ("version", 4),
            8..16 => ("tensor count", 8),
            _ => ("key-value count", 16),
        };
        cases.add(format!("01 {len} bytes"), seed.file[..len].to_vec(), "Truncated", field, Some(at));
    }
    for magic in ["FUGG", "GGJT", "GGML", "gguf"] {
        cases.add(format!("02 magic {magic}"), seed.patched(0, magic.as_bytes()), "Magic", "", Some(0));
    }
    for (name, version) in [
        ("03 version 0", 0),
        ("03 version 1", 1),
        ("04 version 4", 4),
        ("04 version -1", u32::MAX),
        ("05 version 3, big-endian", 3 << 24),
        ("05 version 2, big-endian", 2 << 24),
    ] {
        cases.add(name, seed.patched(4, &version.to_le_bytes()), "Version", "", Some(4));
    }
    for (number, at, field) in [("06", 8, "tensor count"), ("07", 16, "key-value count")] {
        for count in [limits::MAX_KV as u64 + 1, 1 << 32, 1 << 63, u64::MAX / 64, u64::MAX] {
            let name = format!("{number} {field} {count}");
            cases.add(name, seed.patched(at, &count.to_le_bytes()), "Limit", field, Some(at));
        }
        let name = format!("08 {field} beyond the file");
        cases.add(name, seed.patched(at, &65_536u64.to_le_bytes()), "Truncated", "header", Some(24));
    }
}

fn pairs(cases: &mut Cases, seed: &Seed) {
    let [length_at, key_at, type_at, _] = seed.kv("llama.block_count");
    cases.add("09 empty key", seed.patched(length_at, &[0; 8]), "Syntax", "key length", Some(length_at));
    for len in [65_536u64, 1 << 32, 1 << 63, u64::MAX] {
        let file = seed.patched(length_at, &len.to_le_bytes());
        cases.add(format!("10 key of {len} bytes"), file, "Limit", "key length", Some(length_at));
    }
    let mut file = seed.patched(length_at, &65_535u64.to_le_bytes());
    file.truncate(60_000);
    cases.add("10 key beyond the file", file, "Truncated", "key", Some(key_at));
    for byte in [0u8, 0x80, 0xC3, 0xFF] {
        let file = seed.patched(key_at + 2, &[byte]);
        cases.add(format!("11 key with byte {byte}"), file, "Utf8", "key of `ll", Some(key_at + 2));
    }
    for (name, value) in [("same type", Val::U32(2)), ("another type", Val::str("2"))] {
        let mut twice = seed.build.clone();
        twice.kv.push((b"llama.block_count".to_vec(), value));
        let twice = seed.of(twice);
        let at = twice.map.kv.last().unwrap()[1];
        let field = "key of `llama.block_count`";
        cases.add(format!("12 key twice, {name}"), twice.file, "Duplicate", field, Some(at));
    }
    for kind in [13u32, 14, i32::MAX as u32, 1 << 31, u32::MAX] {
        let (file, field) = (seed.patched(type_at, &kind.to_le_bytes()), "value type of `llama.block_count`");
        cases.add(format!("13 value type {kind}"), file, "Type", field, Some(type_at));
    }
    let [.., text_at] = seed.kv("tokenizer.ggml.model");
    for len in [limits::MAX_STRING as u64 + 1, 1 << 30, i64::MAX as u64, u64::MAX - 7, u64::MAX] {
        let file = seed.patched(text_at, &len.to_le_bytes());
        let field = "string length of `tokenizer.ggml.model`";
        cases.add(format!("14 string of {len} bytes"), file, "Limit", field, Some(text_at));
    }
    let file = seed.patched(text_at, &(limits::MAX_STRING as u64).to_le_bytes());
    cases.add("14 string beyond the file", file, "Truncated", "string of", Some(text_at + 8));
    let [.., flag_at] = seed.kv("tokenizer.ggml.add_bos_token");
    for byte in [2, 3, 0x7F, 0x80, 0xFF] {
        let field = "value of `tokenizer.ggml.add_bos_token`";
        cases.add(format!("18 bool {byte}"), seed.patched(flag_at, &[byte]), "Type", field, Some(flag_at));
    }
}

fn arrays(cases: &mut Cases, seed: &Seed) {
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.scores"] {
        let [.., at] = seed.kv(key);
        for count in [1u64 << 25, 1 << 32, 1 << 62, 1 << 63, u64::MAX] {
            let (file, field) =
                (seed.patched(at + 4, &count.to_le_bytes()), format!("array length of `{key}`"));
            cases.add(format!("15 {key} of {count}"), file, "Limit", field, Some(at + 4));
        }
        let file = seed.patched(at + 4, &(1u64 << 22).to_le_bytes());
        cases.add(format!("15 {key} beyond the file"), file, "Truncated", "array element of", Some(at + 12));
        let (file, field) =
            (seed.patched(at, &13u32.to_le_bytes()), format!("array element type of `{key}`"));
        cases.add(format!("17 {key} of type 13"), file, "Type", field, Some(at));
    }
    let wide = [&10u32.to_le_bytes()[..], &(1u64 << 62).to_le_bytes()].concat();
    let wide = seed.with("wide", Val::Raw(9, wide));
    let at = wide.kv("wide")[3] + 4;
    cases.add("15 2^62 numbers of 8 bytes", wide.file, "Limit", "array length of `wide`", Some(at));
    let nested = seed.with("nested", Val::Array(9, vec![Val::u32s(&[1, 2])]));
    let at = nested.kv("nested")[3];
    cases.add("16 array in an array", nested.file, "Depth", "array element type of `nested`", Some(at));
    let deep: Vec<u8> = [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()].concat().repeat(100_000);
    let deep = seed.with("deep", Val::Raw(9, deep));
    let at = deep.kv("deep")[3];
    cases.add("16 arrays 100,000 deep", deep.file, "Depth", "array element type of `deep`", Some(at));
    // The second of the tokens claims more than there is.
    let second = seed.kv("tokenizer.ggml.tokens")[3] + 12 + 8 + "<unk>".len();
    let file = seed.patched(second, &u64::MAX.to_le_bytes());
    cases.add("17 string amid an array, wraps", file, "Limit", "string length of", Some(second));
    let file = seed.patched(second, &(1u64 << 20).to_le_bytes());
    cases.add("17 string amid an array, too long", file, "Truncated", "string of", Some(second + 8));
    for alignment in [0, 1, 3, 4, 13, 24, 1 << 17, 1 << 30, 1 << 31, u32::MAX] {
        let seed = seed.with("general.alignment", Val::U32(alignment));
        let at = seed.kv("general.alignment")[3];
        let field = "value of `general.alignment`";
        cases.add(format!("19 alignment {alignment}"), seed.file, "Align", field, Some(at));
    }
    for (name, value) in
        [("i32", Val::I32(32)), ("u64", Val::U64(32)), ("f32", Val::F32(32.0)), ("string", Val::str("32"))]
    {
        let seed = seed.with("general.alignment", value);
        let at = seed.kv("general.alignment")[2];
        let field = "value type of `general.alignment`";
        cases.add(format!("19 alignment as {name}"), seed.file, "Type", field, Some(at));
    }
}

fn architecture(cases: &mut Cases, seed: &Seed) {
    let key = "general.architecture";
    cases.add("20 no architecture", seed.without(key).file, "MissingKey", key, None);
    for (name, value, code) in [
        ("a number", Val::U32(1), "Type"),
        ("of 10 MB", Val::Str(vec![b'x'; 10 << 20]), "Architecture"),
        ("unknown", Val::str("mamba"), "Architecture"),
        ("empty", Val::str(""), "Architecture"),
    ] {
        let seed = seed.with(key, value);
        let [.., type_at, at] = seed.kv(key);
        let (field, at) =
            if code == "Type" { (format!("value type of `{key}`"), type_at) } else { (key.into(), at) };
        cases.add(format!("20 architecture {name}"), seed.file, code, field, Some(at));
    }
    let bad = seed.with(key, Val::Str(b"lla\xFFma".to_vec()));
    let at = bad.kv(key)[3] + 8 + 3;
    cases.add("20 architecture not UTF-8", bad.file, "Utf8", format!("string of `{key}`"), Some(at));
    let count = seed.with("split.count", Val::U16(2));
    cases.add("36 one part of two", count.file, "Unsupported", "a model in several files", None);
    let count = seed.with("split.count", Val::U16(65_535));
    cases.add("36 one part of 65,535", count.file, "Unsupported", "a model in several files", None);
    let count = seed.with("split.count", Val::U16(0));
    cases.add("36 no part", count.file, "Unsupported", "a model in several files", None);
    let count = seed.with("split.count", Val::str("../../x"));
    let at = count.kv("split.count")[2];
    cases.add("36 parts as a path", count.file, "Type", "value type of `split.count`", Some(at));
}

/// One key of the architecture with a value that cannot be.
fn hyper(cases: &mut Cases, seed: &Seed, number: &str, rest: &str, name: &str, value: Val) {
    let key = seed.key(rest);
    let seed = seed.with(&key, value);
    let at = seed.kv(&key)[3];
    cases.add(format!("{number} {key} {name}"), seed.file, "HyperParameter", key, Some(at));
}

fn hyper_parameters(cases: &mut Cases, seed: &Seed, gemma: &Seed) {
    let floats = [
        ("NaN", f32::NAN),
        ("inf", f32::INFINITY),
        ("-inf", f32::NEG_INFINITY),
        ("0", 0.0),
        ("-0", -0.0),
        ("-1", -1.0),
    ];
    let linear = seed.with("llama.rope.scaling.type", Val::str("linear"));
    for (name, value) in floats {
        hyper(cases, seed, "21", "rope.freq_base", name, Val::F32(value));
        hyper(cases, seed, "21", "attention.layer_norm_rms_epsilon", name, Val::F32(value));
        hyper(cases, &linear, "44", "rope.scaling.factor", name, Val::F32(value));
        hyper(cases, gemma, "21", "rope.freq_base_swa", name, Val::F32(value));
        if value != 0.0 {
            hyper(cases, gemma, "44", "final_logit_softcapping", name, Val::F32(value));
            hyper(cases, gemma, "44", "attn_logit_softcapping", name, Val::F32(value));
        }
    }
    hyper(cases, seed, "21", "rope.freq_base", "inf after rounding", Val::F64(1e300));
    hyper(cases, seed, "21", "rope.freq_base", "0 after rounding", Val::F64(1e-300));
    for (rest, values) in [
        ("attention.head_count", &[0u32, 4097, u32::MAX][..]),
        ("attention.head_count_kv", &[0, 4, 3, 4097, u32::MAX]),
        ("block_count", &[0, 513, i32::MAX as u32, u32::MAX]),
        ("context_length", &[0, (1 << 30) + 1, 1 << 31, u32::MAX]),
        ("embedding_length", &[0, (1 << 20) + 1, 1 << 31, u32::MAX]),
        ("feed_forward_length", &[0, (1 << 22) + 1, u32::MAX]),
        ("attention.key_length", &[0, 1025, u32::MAX]),
        ("attention.value_length", &[0, 1025, u32::MAX]),
        ("rope.dimension_count", &[0, 1, 15, 18, 1024, 1025, u32::MAX]),
        ("expert_count", &[(1 << 16) + 1, 1 << 20, u32::MAX]),
    ] {
        let number = match rest {
            "attention.head_count" | "attention.head_count_kv" => "37",
            "block_count" => "38",
            "context_length" => "39",
            "embedding_length" | "feed_forward_length" => "40",
            "expert_count" => "43",
            _ => "41",
        };
        for value in values {
            hyper(cases, seed, number, rest, &value.to_string(), Val::U32(*value));
        }
    }
    for value in [0, (1u32 << 30) + 1, u32::MAX] {
        hyper(cases, gemma, "44", "attention.sliding_window", &value.to_string(), Val::U32(value));
    }
    for value in [0, 513, u32::MAX] {
        hyper(cases, gemma, "44", "attention.sliding_window_pattern", &value.to_string(), Val::U32(value));
    }
    // Heads that do not divide the width, without a key that gives their own.
    hyper(cases, seed, "37", "attention.head_count", "3", Val::U32(3));
    hyper(cases, seed, "37", "attention.head_count", "5", Val::U32(5));
    for rest in ["block_count", "context_length", "attention.head_count"] {
        for (name, value) in [
            ("string", Val::str("2")),
            ("f32", Val::F32(2.0)),
            ("bool", Val::Bool(true)),
            ("array", Val::u32s(&[2, 2])),
        ] {
            let key = seed.key(rest);
            let seed = seed.with(&key, value);
            let (at, field) = (seed.kv(&key)[2], format!("value type of `{key}`"));
            cases.add(format!("38 {key} as {name}"), seed.file, "Type", field, Some(at));
        }
        let key = seed.key(rest);
        for (name, value) in
            [("-1", Val::I32(-1)), ("2^32", Val::U64(1 << 32)), ("2^64-1", Val::U64(u64::MAX))]
        {
            let seed = seed.with(&key, value);
            let (at, field) = (seed.kv(&key)[3], format!("value of `{key}`"));
            cases.add(format!("38 {key} {name}"), seed.file, "Range", field, Some(at));
        }
        cases.add(format!("38 no {key}"), seed.without(&key).file, "MissingKey", key, None);
    }
    let eps = "llama.attention.layer_norm_rms_epsilon";
    cases.add("21 no epsilon", seed.without(eps).file, "MissingKey", eps, None);
    let seed_eps = seed.with(eps, Val::U32(1));
    let at = seed_eps.kv(eps)[2];
    cases.add("21 epsilon as u32", seed_eps.file, "Type", format!("value type of `{eps}`"), Some(at));
    let odd = seed.without("llama.rope.dimension_count").with("llama.attention.key_length", Val::U32(15));
    cases.add("41 odd head", odd.file, "HyperParameter", "llama.rope.dimension_count", None);
    for (name, flags) in [
        ("shorter", &[true][..]),
        ("longer", &[true, false, true]),
        ("irregular", &[false, true]),
        ("empty", &[]),
    ] {
        let value = Val::bools(flags);
        hyper(cases, gemma, "42", "attention.sliding_window_pattern", name, value);
    }
    hyper(cases, gemma, "42", "attention.sliding_window_pattern", "of numbers", Val::u32s(&[1, 0]));
    let experts = seed.with("llama.expert_count", Val::U32(8));
    cases.add("43 experts", experts.file.clone(), "Unsupported", "mixture of experts", None);
    let one = seed.with("llama.expert_count", Val::U32(1));
    cases.add("43 one expert", one.file, "Unsupported", "mixture of experts", None);
    for (name, used) in [("no expert", 0), ("more experts than there are", 9), ("2^32-1 experts", u32::MAX)] {
        hyper(cases, &experts, "43", "expert_used_count", &format!("{name} used"), Val::U32(used));
    }
    // Without experts none can be used, and layers that have nothing else are not complete.
    hyper(cases, seed, "43", "expert_used_count", "1 without a count", Val::U32(1));
    let none = seed.with("llama.expert_count", Val::U32(0));
    hyper(cases, &none, "43", "expert_used_count", "2 of 0", Val::U32(2));
    let experts_alone = none
        .and_tensor("blk.1.ffn_up_exps.weight", &[32, 64, 8], 8, vec![0; 34 * 64 * 8])
        .without_tensor("blk.1.ffn_up.weight");
    cases.add(
        "43 expert_count 0, and experts",
        experts_alone.file,
        "MissingTensor",
        "blk.1.ffn_up.weight",
        None,
    );
    for name in ["yarn", "longrope", "", "LINEAR"] {
        let seed = seed.with("llama.rope.scaling.type", Val::str(name));
        cases.add(format!("44 rope scaling `{name}`"), seed.file, "Unsupported", "rope.scaling.type", None);
    }
}

fn tensor_entries(cases: &mut Cases, seed: &Seed) {
    let name = "blk.1.ffn_up.weight";
    let [length_at, name_at, rank_at, dims_at, type_at, offset_at] = seed.tensor(name);
    let of = |what: &str| format!("{what} of `{name}`");
    for len in [65u64, 66, 1 << 32, 1 << 63, u64::MAX] {
        let file = seed.patched(length_at, &len.to_le_bytes());
        cases.add(format!("22 name of {len} bytes"), file, "Limit", "tensor name length", Some(length_at));
    }
    let file = seed.patched(length_at, &[0; 8]);
    cases.add("22 empty name", file, "Syntax", "tensor name length", Some(length_at));
    for byte in [0u8, 0x80, 0xFF] {
        let file = seed.patched(name_at + 4, &[byte]);
        cases.add(
            format!("22 name with byte {byte}"),
            file,
            "Utf8",
            "tensor name of `blk.",
            Some(name_at + 4),
        );
    }
    let twice = seed.with_tensor(name, |tensor| tensor.name = b"blk.0.ffn_up.weight".to_vec());
    let at = twice.map.tensors[seed.tensor_index(name)][1];
    let field = "tensor name of `blk.0.ffn_up.weight`";
    cases.add("22 name twice", twice.file, "Duplicate", field, Some(at));
    for rank in [5u32, 8, 9, 1 << 31, u32::MAX] {
        let file = seed.patched(rank_at, &rank.to_le_bytes());
        cases.add(format!("23 rank {rank}"), file, "Limit", of("tensor dimension count"), Some(rank_at));
    }
    let dims = |dims: &[u64]| {
        let mut bytes = Vec::new();
        dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
        seed.patched(dims_at, &bytes)
    };
    let field = of("tensor dimension");
    for (case, file, at) in [
        ("2^63", dims(&[1 << 63]), 0),
        ("-1", dims(&[u64::MAX]), 0),
        ("elements fit, bytes do not", dims(&[i64::MAX as u64, 1]), 0),
        ("second 2^63", dims(&[32, 1 << 63]), 8),
        ("second -1", dims(&[32, u64::MAX]), 8),
        ("product wraps to a little", dims(&[(1 << 42) + 1, 1 << 22]), 8),
        ("product is 2^64", dims(&[1 << 32, 1 << 32]), 8),
        ("product is 2^63", dims(&[1 << 31, 1 << 32]), 8),
    ] {
        cases.add(format!("24 dimension: {case}"), file, "Overflow", field.clone(), Some(dims_at + at));
    }
    let hidden = seed.and_tensor("x", &[0, 1 << 40, 1 << 40], 0, vec![]);
    let at = hidden.tensor("x")[3] + 16;
    cases.add("24 overflow behind a zero", hidden.file, "Overflow", "tensor dimension of `x`", Some(at));
    let removed = [4u32, 5, 31, 32, 33, 36, 37, 38];
    for id in removed.into_iter().chain([41, 100, i32::MAX as u32, 1 << 31, u32::MAX]) {
        let file = seed.patched(type_at, &id.to_le_bytes());
        cases.add(format!("28 tensor type {id}"), file, "Type", of("tensor type"), Some(type_at));
    }
    for (case, dims, dtype) in [
        ("Q6_K [8, 64]", &[8, 64][..], 14),
        ("Q4_0 [1]", &[1], 2),
        ("Q8_0 [31, 32]", &[31, 32], 8),
        ("Q8_0 []", &[], 8),
    ] {
        let seed = seed.and_tensor("x", dims, dtype, vec![0; 4096]);
        let at = seed.tensor("x")[3];
        cases.add(format!("29 {case}"), seed.file, "Shape", "tensor dimension of `x`", Some(at));
    }
    for offset in [1u64, 31, 33, u64::MAX] {
        let file = seed.patched(offset_at, &offset.to_le_bytes());
        cases.add(format!("30 offset {offset}"), file, "Align", of("tensor offset"), Some(offset_at));
    }
    let past = (seed.file.len() - seed.map.data) as u64;
    for (case, offset) in
        [("the end", past), ("the end less 32", past - 32), ("2^32", 1 << 32), ("2^62", 1 << 62)]
    {
        let file = seed.patched(offset_at, &offset.to_le_bytes());
        cases.add(format!("31 offset {case}"), file, "Range", of("tensor data"), Some(offset_at));
    }
    let file = seed.patched(offset_at, &(u64::MAX - 31).to_le_bytes());
    cases.add("31 end wraps", file, "Overflow", of("tensor data"), Some(offset_at));
}

fn tensor_data(cases: &mut Cases, seed: &Seed) {
    let huge = (0x7FFF_FFFF_FFFF_FFC0u64 / 4) & !31;
    let two = seed.and_tensor("x", &[huge], 0, vec![]);
    cases.add(
        "26 half of all bytes",
        two.file.clone(),
        "Range",
        "tensor data of `x`",
        Some(two.tensor("x")[5]),
    );
    let three = two.and_tensor("y", &[huge], 0, vec![]).and_tensor("z", &[huge], 0, vec![]);
    cases.add("26 sum wraps", three.file.clone(), "Overflow", "tensor data of", Some(three.tensor("y")[5]));
    let padded = seed.of(Build::new().tensor("x", &[u64::MAX / 4], 0, vec![]));
    let at = padded.tensor("x")[5];
    cases.add("27 padding wraps to 0", padded.file, "Overflow", "tensor data of `x`", Some(at));
    let (first, second) = ("blk.0.attn_q.weight", "blk.0.attn_k.weight");
    let index = seed.tensor_index(first);
    let start = |seed: &Seed, name: &str| {
        let at = seed.tensor(name)[5];
        u64::from_le_bytes(seed.file[at..at + 8].try_into().unwrap())
    };
    for (case, offset) in [
        ("at one place", start(seed, first)),
        ("32 bytes in common", start(seed, second) - 32),
        ("inside another", start(seed, first) + 1024),
    ] {
        let at = seed.tensor(second)[5];
        let file = seed.patched(at, &offset.to_le_bytes());
        // The one that begins later is named; of two that begin together the second in the file.
        let field = format!("tensor offset of `{second}`");
        cases.add(format!("32 two tensors {case}"), file, "Overlap", field, Some(at));
    }
    // More rows than bytes: the tail would be the next tensor's.
    let mut longer = seed.build.clone();
    longer.tensors[index].dims[1] += 1;
    let longer = seed.of(longer);
    let at = longer.tensor(second)[5];
    let field = format!("tensor offset of `{second}`");
    cases.add("32 a tail that is another's", longer.file, "Overlap", field, Some(at));
    let last = seed.build.tensors.last().unwrap();
    let name = String::from_utf8(last.name.clone()).unwrap();
    let (at, end) = (seed.tensor(&name)[5], seed.file.len());
    for (case, len) in [("the last byte", end - 1), ("the last tensor", end - last.data.len())] {
        let field = format!("tensor data of `{name}`");
        cases.add(format!("33 without {case}"), seed.file[..len].to_vec(), "Range", field, Some(at));
    }
    for (case, len) in [("all data", seed.map.data), ("all data and padding", seed.map.infos_end)] {
        let at = seed.map.tensors[0][5];
        let field = "tensor data of `token_embd.weight`";
        cases.add(format!("33 without {case}"), seed.file[..len].to_vec(), "Range", field, Some(at));
    }
    for tensor in ["output_norm.weight", "blk.0.attn_norm.weight", "blk.1.ffn_norm.weight"] {
        for (case, bits) in [("NaN", 0x7FC0_0000u32), ("inf", 0x7F80_0000), ("-inf", 0xFF80_0000)] {
            let changed = seed.with_tensor(tensor, |t| t.data[12..16].copy_from_slice(&bits.to_le_bytes()));
            let at = seed.map.data + start(seed, tensor) as usize + 12;
            cases.add(format!("57 {tensor} {case}"), changed.file, "NonFinite", tensor, Some(at));
        }
    }
}

fn roles(cases: &mut Cases, seed: &Seed) {
    let of_layer = |part: &str| format!("blk.1.{part}.weight");
    let parts = [
        "attn_norm",
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_norm",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
    ];
    for name in
        ["token_embd.weight", "output_norm.weight"].map(String::from).into_iter().chain(parts.map(of_layer))
    {
        cases.add(
            format!("35 no {name}"),
            seed.without_tensor(&name).file,
            "MissingTensor",
            name.clone(),
            None,
        );
        // Another shape: turned round, one row more, one dimension more.
        let is_vector = seed.build.tensors[seed.tensor_index(&name)].dims.len() == 1;
        let wrong = seed.with_tensor(&name, |tensor| {
            tensor.dims[0] += if is_vector { 1 } else { 32 };
            let bytes = tensor.dims.iter().product::<u64>() * 4;
            tensor.data.resize(bytes as usize, 0);
        });
        let at = wrong.tensor(&name)[3];
        cases.add(format!("35 {name} too wide"), wrong.file, "Shape", name.clone(), Some(at));
        let deep = seed.with_tensor(&name, |tensor| {
            tensor.dims.resize(3, 1);
            tensor.dims[2] = 2;
            tensor.data.extend(tensor.data.clone());
        });
        let at = deep.tensor(&name)[3];
        cases.add(format!("35 {name} too deep"), deep.file, "Shape", name.clone(), Some(at));
        let flat = seed.with_tensor(&name, |tensor| {
            tensor.dims.clear();
            tensor.data.truncate(4);
        });
        let (code, at) = ("Shape", flat.tensor(&name)[3]);
        if name != "token_embd.weight" {
            cases.add(format!("35 {name} of rank 0"), flat.file, code, name.clone(), Some(at));
        }
    }
    for position in 0..2 {
        let empty = seed.with_tensor("blk.0.attn_q.weight", |tensor| {
            tensor.dims[position] = 0;
            tensor.data.clear();
        });
        let at = empty.tensor("blk.0.attn_q.weight")[3];
        let name = format!("25 zero at {position} where there must be rows");
        cases.add(name, empty.file, "Shape", "blk.0.attn_q.weight", Some(at));
    }
    let empty = seed.with_tensor("token_embd.weight", |tensor| {
        tensor.dims[1] = 0;
        tensor.data.clear();
    });
    cases.add("25 no row of the embedding", empty.file, "HyperParameter", "llama.vocab_size", None);
    for name in ["blk.0.attn_norm.weight", "output_norm.weight"] {
        let quantised = seed.with_tensor(name, |tensor| {
            tensor.dtype = 8;
            tensor.data = vec![0; 34];
        });
        let at = quantised.tensor(name)[4];
        cases.add(format!("35 {name} in blocks"), quantised.file, "TensorType", name, Some(at));
    }
    for name in ["blk.0.attn_q.bias", "blk.1.attn_q_norm.weight", "output_norm.bias", "position_embd.weight"]
    {
        let more = seed.and_tensor(name, &[32], 0, vec![0; 128]);
        let at = more.tensor(name)[1];
        cases.add(format!("35 {name} without need"), more.file, "UnexpectedTensor", name, Some(at));
    }
    let three = seed.with("llama.block_count", Val::U32(3));
    cases.add("38 a layer that is not there", three.file, "MissingTensor", "blk.2.attn_norm.weight", None);
    let wide = seed.with("llama.embedding_length", Val::U32(64));
    let at = wide.tensor("token_embd.weight")[3];
    cases.add("40 another width than the embedding", wide.file, "Shape", "token_embd.weight", Some(at));
}

const TOKENS: &str = "tokenizer.ggml.tokens";

/// Offset of the bytes of entry `index` of an array of strings.
fn entry(seed: &Seed, key: &str, index: usize) -> usize {
    let Val::Array(8, strings) = &seed.build.kv[seed.kv_index(key)].1 else { panic!("{key}") };
    let len = |text: &Val| if let Val::Str(text) = text { text.len() } else { 0 };
    let before: usize = strings[..index].iter().map(|text| len(text) + 8).sum();
    // An empty text is where its length is.
    seed.kv(key)[3] + 12 + before + if len(&strings[index]) == 0 { 0 } else { 8 }
}

/// With another entry in an array of strings.
fn with_entry(seed: &Seed, key: &str, index: usize, text: &[u8]) -> Seed {
    let mut build = seed.build.clone();
    let Val::Array(8, strings) = &mut build.kv[seed.kv_index(key)].1 else { panic!("{key}") };
    strings[index] = Val::Str(text.to_vec());
    seed.of(build)
}

fn vocabulary(cases: &mut Cases, spm: &Seed, bpe: &Seed) {
    cases.add("45 no tokens", spm.without(TOKENS).file, "Missing", TOKENS, None);
    let none = spm.with(TOKENS, Val::strings::<&str>(&[]));
    cases.add("45 empty vocabulary", none.file.clone(), "Mismatch", TOKENS, Some(none.kv(TOKENS)[3] + 4));
    let one = spm
        .with(TOKENS, Val::strings(&["x"]))
        .with("tokenizer.ggml.scores", Val::f32s(&[0.0]))
        .with("tokenizer.ggml.token_type", Val::i32s(&[1]));
    let bos = "tokenizer.ggml.bos_token_id";
    cases.add("45 one token, first of text 1", one.file.clone(), "TokenId", bos, Some(one.kv(bos)[3]));
    for name in ["bos", "eos", "eot", "eom", "unknown", "padding"] {
        let key = format!("tokenizer.ggml.{name}_token_id");
        for (case, value) in [
            ("one too many", Val::U32(24)),
            ("2^32-1", Val::U32(u32::MAX)),
            ("-1", Val::I32(-1)),
            ("2^64-1", Val::U64(u64::MAX)),
        ] {
            let seed = spm.with(&key, value);
            let at = seed.kv(&key)[3];
            cases.add(format!("46 {name} {case}"), seed.file, "TokenId", key.clone(), Some(at));
        }
        let text = spm.with(&key, Val::str("1"));
        let (at, field) = (text.kv(&key)[2], format!("value type of `{key}`"));
        cases.add(format!("46 {name} as text"), text.file, "Type", field, Some(at));
    }
    for key in ["tokenizer.ggml.token_type", "tokenizer.ggml.scores"] {
        for count in [0usize, 23, 25] {
            let value =
                if key.ends_with('s') { Val::f32s(&vec![0.0; count]) } else { Val::i32s(&vec![1; count]) };
            let seed = spm.with(key, value);
            let at = seed.kv(key)[3] + 4;
            cases.add(format!("47 {key} of {count}"), seed.file, "Mismatch", key, Some(at));
        }
    }
    let scores = "tokenizer.ggml.scores";
    let at = spm.kv(scores)[3] + 12 + 4 * 9;
    for (case, value) in [("NaN", f32::NAN), ("inf", f32::INFINITY), ("-inf", f32::NEG_INFINITY)] {
        let file = spm.patched(at, &value.to_le_bytes());
        cases.add(format!("47 score {case}"), file, "Entry", scores, Some(at));
    }
    let kinds = "tokenizer.ggml.token_type";
    let at = spm.kv(kinds)[3] + 12 + 4 * 9;
    for kind in [-1, 7, i32::MAX, i32::MIN] {
        cases.add(
            format!("47 token type {kind}"),
            spm.patched(at, &kind.to_le_bytes()),
            "Entry",
            kinds,
            Some(at),
        );
    }
    for (case, text) in [("twice", &b"a"[..]), ("empty", b""), ("not UTF-8", b"a\xFF")] {
        let seed = with_entry(spm, TOKENS, 11, text);
        let at = entry(&seed, TOKENS, 11);
        cases.add(format!("48 token {case}"), seed.file, "Entry", TOKENS, Some(at));
    }
    let long = with_entry(spm, TOKENS, 11, &vec![b'x'; 1 << 20]);
    cases.add("48 token of 1 MB", long.file.clone(), "Limit", TOKENS, Some(entry(&long, TOKENS, 11)));
    let long = with_entry(spm, TOKENS, 19, &vec![b'x'; 4000]);
    cases.add("48 control token of 4 kB", long.file.clone(), "Limit", TOKENS, Some(entry(&long, TOKENS, 19)));
    for text in ["<0x-1>", "<0xZZ>", "<0x1>", "<0x100>", "0x1", "<0x>"] {
        let seed = with_entry(spm, TOKENS, 4, text.as_bytes());
        let at = entry(&seed, TOKENS, 4);
        cases.add(format!("49 byte token {text}"), seed.file, "Entry", TOKENS, Some(at));
    }
    merges(cases, bpe);
    for (flag, key) in [("add_bos_token", "bos_token_id"), ("add_eos_token", "eos_token_id")] {
        let (flag, key) = (format!("tokenizer.ggml.{flag}"), format!("tokenizer.ggml.{key}"));
        let seed = bpe.without(&key).with(&flag, Val::Bool(true));
        let at = seed.kv(&flag)[3];
        cases.add(format!("51 {flag} without an id"), seed.file, "NoTokenToAdd", flag, Some(at));
    }
    let fewer = spm.with_tensor("token_embd.weight", |tensor| {
        tensor.dims[1] = 23;
        tensor.data.truncate(23 * 32 * 4);
    });
    let at = fewer.kv(TOKENS)[3];
    cases.add("53 more tokens than rows", fewer.file, "VocabLength", TOKENS, Some(at));
    for (key, names) in
        [("tokenizer.ggml.model", &["bert", "t5", "", "GPT2"][..]), ("tokenizer.ggml.pre", &["falcon", "x"])]
    {
        for name in names {
            let seed = bpe.with(key, Val::str(name));
            let at = seed.kv(key)[3];
            cases.add(format!("54 {key} `{name}`"), seed.file, "Unsupported", key, Some(at));
        }
    }
    for key in ["tokenizer.ggml.model", "tokenizer.ggml.pre", TOKENS, kinds, "tokenizer.ggml.merges"] {
        let seed = bpe.with(key, Val::U32(1));
        let (at, field) = (seed.kv(key)[2], format!("value type of `{key}`"));
        cases.add(format!("54 {key} as a number"), seed.file, "Type", field, Some(at));
    }
}

fn merges(cases: &mut Cases, bpe: &Seed) {
    let key = "tokenizer.ggml.merges";
    cases.add("50 no merges", bpe.without(key).file, "Missing", key, None);
    for (case, text) in [
        ("without a blank", "ab"),
        ("with two blanks", "a  b"),
        ("of three parts", "a b c"),
        ("with nothing on the left", " a"),
        ("with nothing on the right", "a "),
        ("empty", ""),
        ("of an unknown part", "a q"),
        ("to an unknown token", "b a"),
        ("to a control token", "<|im_ end|>"),
        ("that comes twice", "a b"),
        ("not UTF-8", "\u{FFFD} a"),
    ] {
        let seed = with_entry(bpe, key, 3, text.as_bytes());
        let at = entry(&seed, key, 3);
        cases.add(format!("50 merge {case}"), seed.file, "Entry", key, Some(at));
    }
    let long = with_entry(bpe, key, 3, format!("a {}", "b".repeat(1 << 20)).as_bytes());
    cases.add("50 merge of 1 MB", long.file.clone(), "Entry", key, Some(entry(&long, key, 3)));
    let at = bpe.kv(key)[3] + 4;
    let file = bpe.patched(at, &10_000_000u64.to_le_bytes());
    cases.add("50 ten million merges", file, "Limit", format!("array length of `{key}`"), Some(at));
    let numbers = bpe.with(key, Val::u32s(&[1, 2]));
    let (at, field) = (numbers.kv(key)[2], format!("value type of `{key}`"));
    let _ = at;
    let code = "Type";
    let at = numbers.kv(key)[3];
    let field = field.replace("value type", "array element type");
    cases.add("50 merges as numbers", numbers.file, code, field, Some(at));
}

fn cases() -> Vec<Case> {
    let (gpt2, llama, gemma) = (seeds::gpt2(), seeds::llama(), seeds::gemma3());
    let mut cases = Cases::default();
    header(&mut cases, &llama);
    pairs(&mut cases, &llama);
    arrays(&mut cases, &llama);
    architecture(&mut cases, &llama);
    hyper_parameters(&mut cases, &llama, &gemma);
    tensor_entries(&mut cases, &llama);
    tensor_data(&mut cases, &llama);
    roles(&mut cases, &llama);
    vocabulary(&mut cases, &llama, &gpt2);
    cases.0
}

#[test]
fn every_named_file_is_refused_for_its_reason() {
    let (cases, seed, mut bench) = (cases(), seeds::llama(), Bench::new());
    let mut wrong = Vec::new();
    for case in &cases {
        match bench.load(&case.file, false) {
            Ok(()) => wrong.push(format!("{}: accepted", case.name)),
            Err(error) => {
                let facts = facts(&error);
                let right = facts.code == case.code
                    && facts.field.starts_with(&case.field)
                    && facts.field.is_empty() == case.field.is_empty()
                    && facts.offset == case.offset;
                if !right {
                    let Case { name, code, field, offset, .. } = case;
                    wrong.push(format!("{name}: expected {code} {field} {offset:?}, got {facts:?}"));
                }
            }
        }
        bench.still_serves(&seed);
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert!(cases.len() >= 150);
    println!("hostile: {} named files refused, longest {:?}", cases.len(), bench.longest);
}

/// Files that look odd and are right: refusing one would be as wrong as accepting another.
fn good() -> Vec<(String, Seed, Vec<u8>)> {
    let mut good: Vec<(String, Seed, Vec<u8>)> = Vec::new();
    for seed in seeds::all() {
        let mut add =
            |name: &str, file: Vec<u8>| good.push((format!("{}: {name}", seed.name), seed.clone(), file));
        add("as it is", seed.file.clone());
        add("version 2", seed.patched(4, &2u32.to_le_bytes()));
        add("rank 0", seed.and_tensor("x", &[], 0, vec![0; 4]).file);
        for position in 0..4 {
            let mut dims = [3, 2, 2, 2];
            dims[position] = 0;
            add(&format!("zero at {position}"), seed.and_tensor("x", &dims, 0, vec![]).file);
        }
        add("name of 64 bytes", seed.and_tensor(&"n".repeat(64), &[2], 0, vec![0; 8]).file);
        add("unknown tensor", seed.and_tensor("blk.0.some_other.weight", &[32, 2], 8, vec![0; 68]).file);
        let mut build = seed.build.clone();
        for value in [
            Val::U8(255),
            Val::I8(-1),
            Val::U16(1),
            Val::I16(-1),
            Val::U32(1),
            Val::I32(-1),
            Val::F32(f32::NAN),
            Val::Bool(false),
            Val::Str(b"not \xFF UTF-8".to_vec()),
            Val::U64(u64::MAX),
            Val::I64(i64::MIN),
            Val::F64(f64::INFINITY),
            Val::strings::<&str>(&[]),
            Val::f32s(&[f32::NAN]),
        ] {
            build.kv.push((format!("unknown.{}", build.kv.len()).into_bytes(), value));
        }
        add("unknown keys of all types", seed.of(build).file);
        for bytes in 0..4 {
            let map = Val::Array(0, vec![Val::U8(7); bytes]);
            add(
                &format!("52 character map of {bytes} bytes"),
                seed.with("tokenizer.ggml.precompiled_charsmap", map).file,
            );
        }
        let mut build = seed.build.clone();
        build.kv.reverse();
        add("keys in reverse", seed.of(build.clone()).file);
        build.kv.rotate_left(3);
        add("keys in another order", seed.of(build).file);
        let mut build = seed.build.clone();
        build.tensors.reverse();
        add("tensors in reverse", seed.of(build).file);
        for (name, magic) in [("zip", &b"PK\x03\x04"[..]), ("ELF", b"\x7FELF")] {
            add(&format!("34 {name} behind"), [&seed.file[..], magic, &[0; 100]].concat());
        }
        add("key of 65,535 bytes", seed.with(&"k".repeat(65_535), Val::U8(1)).file);
        if seed.name != "quantised" {
            add("alignment given", seed.with("general.alignment", Val::U32(32)).file);
            for alignment in [8, 64, 4096, 65_536] {
                add(&format!("alignment {alignment}"), seed.of(seed.build.clone().aligned(alignment)).file);
            }
        }
        for (index, (key, value)) in seed.build.kv.iter().enumerate() {
            let Val::U32(number) = *value else { continue };
            let key = String::from_utf8(key.clone()).unwrap();
            if key == "general.alignment" {
                continue;
            }
            let other = match index % 6 {
                0 => Val::U64(number.into()),
                1 => Val::I64(number.into()),
                2 => Val::I32(number as i32),
                3 => Val::U8(number as u8),
                4 => Val::U16(number as u16),
                _ => Val::I16(number as i16),
            };
            let is_same = number < 128 || !matches!(other, Val::U8(_));
            add(
                &format!("{key} of another width"),
                seed.with(&key, if is_same { other } else { value.clone() }).file,
            );
        }
        add("split.count 1", seed.with("split.count", Val::U16(1)).file);
        let none = seed.with(&seed.key("expert_count"), Val::U32(0));
        add("43 expert_count 0", none.file.clone());
        add("43 no experts, none used", none.with(&seed.key("expert_used_count"), Val::U32(0)).file);
    }
    good
}

#[test]
fn every_odd_but_right_file_is_accepted_and_means_the_same() {
    let (good, mut bench) = (good(), Bench::new());
    let expected: Vec<_> = seeds::all().map(|seed| (seed.name, logits(&seed.file))).into();
    for (name, seed, file) in &good {
        if let Err(error) = bench.load(file, true) {
            panic!("{name}: {error}");
        }
        let expected = &expected.iter().find(|(name, _)| *name == seed.name).unwrap().1;
        assert!(logits(file) == *expected, "{name}: other numbers");
    }
    println!("hostile: {} odd files accepted", good.len());
}
