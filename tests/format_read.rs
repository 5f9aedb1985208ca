//! Reading what is well formed: every value type, views, typed access, and real files where they are present.

#[path = "common/gguf_builder.rs"]
mod gguf_builder;

use gguf_builder::{Gguf as Build, Val};
use locutor::format::gguf::scan;
use locutor::format::{Counts, Field, FormatError, Gguf, PerLayer, Value, ValueType, What};
use locutor::mem::aligned::Block;
use locutor::mem::{Arena, Plan};
use locutor::tensor::DType;

/// Reads a file with memory of exactly the planned size and hands it to `check`.
fn with<R>(file: &[u8], check: impl FnOnce(&Gguf<'_>, &Counts) -> R) -> Result<R, FormatError> {
    let counts = scan(file, file.len() as u64)?;
    let mut plan = Plan::new();
    let slots = Gguf::plan(&counts, &mut plan)?;
    let mut block = Block::zeroed(plan.bytes())?;
    let mut arena = Arena::new(block.bytes_mut(), &plan)?;
    let gguf = Gguf::read(file, file.len() as u64, &mut arena, &slots)?;
    Ok(check(&gguf, &counts))
}

fn sample() -> Build {
    Build::new()
        .kv("z.last", Val::U8(200))
        .kv("general.architecture", Val::str("llama"))
        .kv("llama.block_count", Val::U64(3))
        .kv("llama.attention.head_count_kv", Val::i32s(&[2, 1, 2]))
        .kv("llama.rope.freq_base", Val::F64(1e4))
        .kv("a.i8", Val::I8(-3))
        .kv("a.u16", Val::U16(65_535))
        .kv("a.i16", Val::I16(-300))
        .kv("a.f32", Val::F32(0.5))
        .kv("a.bool", Val::Bool(true))
        .kv("a.i64", Val::I64(-1))
        .kv("a.flags", Val::bools(&[true, false, true]))
        .kv("a.binary", Val::Str(vec![b'o', 0xff, b'k']))
        .kv("tokenizer.ggml.tokens", Val::strings(&[&b"a"[..], b"", b"\xff\xfe", b"hello"]))
        .kv("tokenizer.ggml.merges", Val::strings(&["a b"]))
        .kv("tokenizer.ggml.scores", Val::f32s(&[0.0, -1.0, f32::INFINITY, 2.0]))
        .tensor_f32("b.weight", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .tensor("a.weight", &[64, 2], 2, vec![7; 72])
        .tensor_f32("scalar", &[], &[9.0])
        .tensor_f32("empty", &[4, 0], &[])
}

#[test]
fn counts_say_what_the_file_holds() {
    let (file, map) = sample().build_mapped();
    let counts = scan(&file, file.len() as u64).unwrap();
    let expected = Counts {
        kv: 16,
        tensors: 4,
        tokens: 4,
        token_bytes: 8,
        longest_token: 5,
        merges: 1,
        merge_bytes: 3,
        blocks: 3,
        header_len: map.data as u64,
        vector_values: 16,
    };
    assert_eq!(counts, expected);
}

#[test]
fn every_value_type_reads_back() {
    with(&sample().build(), |gguf, _| {
        assert_eq!(gguf.get("z.last"), Some(Value::U8(200)));
        assert_eq!(gguf.get("a.i8"), Some(Value::I8(-3)));
        assert_eq!(gguf.get("a.u16"), Some(Value::U16(65_535)));
        assert_eq!(gguf.get("a.i16"), Some(Value::I16(-300)));
        assert_eq!(gguf.get("a.f32"), Some(Value::F32(0.5)));
        assert_eq!(gguf.get("a.bool"), Some(Value::Bool(true)));
        assert_eq!(gguf.get("a.i64"), Some(Value::I64(-1)));
        assert_eq!(gguf.get_arch("llama", "block_count"), Some(Value::U64(3)));
        assert_eq!(gguf.get("a.binary"), Some(Value::Str(b"o\xffk")));
        assert_eq!(gguf.get("a"), None);
        assert_eq!(gguf.get("zz"), None);
        assert_eq!(gguf.get(("llama", "block_coun")), None);
        let types = [
            ("z.last", ValueType::U8, "u8"),
            ("a.i8", ValueType::I8, "i8"),
            ("a.u16", ValueType::U16, "u16"),
            ("a.i16", ValueType::I16, "i16"),
            ("a.f32", ValueType::F32, "f32"),
            ("a.bool", ValueType::Bool, "bool"),
            ("a.binary", ValueType::String, "string"),
            ("a.flags", ValueType::Array, "array"),
            ("llama.block_count", ValueType::U64, "u64"),
            ("a.i64", ValueType::I64, "i64"),
            ("llama.rope.freq_base", ValueType::F64, "f64"),
        ];
        for (key, expected, name) in types {
            let found = gguf.get(key).unwrap().value_type();
            assert_eq!((found, found.name()), (expected, name), "{key}");
        }
        let keys: Vec<&str> = gguf.entries().map(|entry| entry.key).collect();
        assert_eq!(keys.len(), 16);
        assert_eq!(keys[0], "z.last", "entries come in file order");
    })
    .unwrap();
}

#[test]
fn typed_getters_convert_and_refuse() {
    let (file, map) = sample().build_mapped();
    with(&file, |gguf, _| {
        assert_eq!(gguf.str("general.architecture"), Ok(Some("llama")));
        assert_eq!(gguf.u32(("llama", "block_count")), Ok(Some(3)));
        assert_eq!(gguf.u32("z.last"), Ok(Some(200)));
        assert_eq!(gguf.u32("absent"), Ok(None));
        assert_eq!((gguf.u64(("llama", "block_count")), gguf.u64("absent")), (Ok(Some(3)), Ok(None)));
        let negative = gguf.u64("a.i8").unwrap_err();
        let (offset, field) = (map.kv[5][3] as u64, Field::named(What::Value, b"a.i8"));
        assert_eq!(negative, FormatError::Range { field, offset, limit: u64::MAX, got: u64::MAX - 2 });
        assert_eq!(gguf.f32(("llama", "rope.freq_base")), Ok(Some(1e4)));
        assert_eq!(gguf.bool("a.bool"), Ok(Some(true)));
        let negative = gguf.u32("a.i64").unwrap_err();
        let value_at = map.kv[10][3] as u64;
        assert!(
            matches!(negative, FormatError::Range { offset, got: u64::MAX, .. } if offset == value_at),
            "{negative}"
        );
        let wrong = gguf.u32("general.architecture").unwrap_err();
        assert_eq!(wrong.offset(), Some(map.kv[1][2] as u64));
        assert_eq!(
            wrong.to_string(),
            format!(
                "value type of `general.architecture` at byte {}: expected an integer, got string",
                map.kv[1][2]
            )
        );
        let bad = gguf.str("a.binary").unwrap_err();
        assert!(matches!(bad, FormatError::Utf8 { .. }));
        assert_eq!(bad.offset(), Some(map.kv[12][3] as u64 + 9), "the offset is that of the bad byte");
        assert_eq!(file[bad.offset().unwrap() as usize], 0xff);
    })
    .unwrap();
}

#[test]
fn integers_of_every_type_widen() {
    let build = Build::new()
        .kv("u8", Val::U8(u8::MAX))
        .kv("i8", Val::I8(i8::MAX))
        .kv("u16", Val::U16(u16::MAX))
        .kv("i16", Val::I16(i16::MAX))
        .kv("u32", Val::U32(u32::MAX))
        .kv("i32", Val::I32(i32::MAX))
        .kv("u64", Val::U64(u64::MAX))
        .kv("i64", Val::I64(i64::MAX))
        .kv("f32", Val::F32(1.5))
        .kv("f64", Val::F64(2.5))
        .kv("no", Val::Bool(false))
        .kv("none", Val::strings::<&str>(&[]));
    let (file, map) = build.build_mapped();
    with(&file, |gguf, _| {
        let keys = ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"];
        let most = [0xff, 0x7f, 0xffff, 0x7fff, 0xffff_ffff, 0x7fff_ffff, u64::MAX, i64::MAX as u64];
        assert_eq!(keys.map(|key| gguf.u64(key).unwrap().unwrap()), most);
        for (key, most) in keys.into_iter().zip(most).take(6) {
            assert_eq!(gguf.u32(key).unwrap().map(u64::from), Some(most));
        }
        let wide = gguf.u32("u64").unwrap_err();
        let (limit, at) = (u64::from(u32::MAX), map.kv[6][3] as u64);
        assert!(
            matches!(wide, FormatError::Range { offset, limit: l, got: u64::MAX, .. } if (offset, l) == (at, limit)),
            "{wide}"
        );
        assert_eq!((gguf.u64("absent"), gguf.f32("absent"), gguf.bool("absent")), (Ok(None), Ok(None), Ok(None)));
        assert_eq!((gguf.f32("f32"), gguf.f32("f64"), gguf.bool("no")), (Ok(Some(1.5)), Ok(Some(2.5)), Ok(Some(false))));
        // None of them is any of the others.
        for (key, at) in [("f32", map.kv[8][2]), ("no", map.kv[10][2])] {
            assert_eq!(gguf.u64(key).unwrap_err().offset(), Some(at as u64));
        }
        assert_eq!(gguf.f32("u8").unwrap_err().offset(), Some(map.kv[0][2] as u64));
        assert_eq!(gguf.bool("u8").unwrap_err().offset(), Some(map.kv[0][2] as u64));
        assert!(gguf.array("none").unwrap().unwrap().is_empty());
    })
    .unwrap();
}

#[test]
fn iterators_know_how_much_is_left() {
    fn left<I: ExactSizeIterator>(mut items: I) -> Vec<(usize, Option<usize>)> {
        let mut hints = vec![items.size_hint()];
        while items.next().is_some() {
            hints.push(items.size_hint());
        }
        hints
    }
    with(&sample().build(), |gguf, counts| {
        let down = |from: usize| -> Vec<_> { (0..=from).rev().map(|n| (n, Some(n))).collect() };
        assert_eq!(left(gguf.entries()), down(counts.kv));
        assert_eq!(left(gguf.strings("tokenizer.ggml.tokens").unwrap().unwrap()), down(4));
        let array = |key| gguf.array(key).unwrap().unwrap();
        assert_eq!(left(array("tokenizer.ggml.scores").f32s().unwrap()), down(4));
        assert_eq!(left(array("llama.attention.head_count_kv").i32s().unwrap()), down(3));
        assert_eq!(left(array("a.flags").u32s().unwrap()), down(3));
        assert!(!array("a.flags").is_empty());
    })
    .unwrap();
}

#[test]
fn arrays_read_in_constant_time_and_by_iteration() {
    let (file, map) = sample().build_mapped();
    with(&file, |gguf, _| {
        let tokens: Vec<&[u8]> = gguf.strings("tokenizer.ggml.tokens").unwrap().unwrap().collect();
        assert_eq!(tokens, [&b"a"[..], b"", b"\xff\xfe", b"hello"]);
        let scores = gguf.array("tokenizer.ggml.scores").unwrap().unwrap();
        assert_eq!((scores.element, scores.len), (ValueType::F32, 4));
        assert_eq!(scores.offset, map.kv[15][3] as u64 + 12);
        assert_eq!(scores.get(3), Some(Value::F32(2.0)));
        assert_eq!(scores.get(4), None);
        assert_eq!(scores.f32s().unwrap().nth(2), Some(f32::INFINITY));
        let wrong = scores.u32s().unwrap_err();
        assert_eq!(wrong.offset(), Some(map.kv[15][3] as u64));
        assert_eq!(wrong.field().unwrap().what, What::ElementType);
        let mut flags = gguf.array("a.flags").unwrap().unwrap().u32s().unwrap();
        assert_eq!((flags.len(), flags.next(), flags.len()), (3, Some(1), 2));
        assert_eq!((flags.by_ref().collect::<Vec<_>>(), flags.len()), (vec![0, 1], 0));
        assert!(gguf.strings("absent").unwrap().is_none());
        let no_array = gguf.strings("z.last").unwrap_err();
        let at = map.kv[0][2];
        let expected = format!("value type of `z.last` at byte {at}: expected an array, got u8");
        assert_eq!(no_array.to_string(), expected);
        let no_strings = gguf.strings("a.flags").unwrap_err();
        let at = map.kv[11][3];
        let expected = format!(
            "array element type of `a.flags` at byte {at}: expected array of string, got array of bool"
        );
        assert_eq!(no_strings.to_string(), expected);
        let mut tokens = gguf.strings("tokenizer.ggml.tokens").unwrap().unwrap();
        for _ in 0..4 {
            let at = tokens.offset() as usize;
            let token = tokens.next().unwrap();
            assert_eq!(&file[at..at + token.len()], token);
        }
    })
    .unwrap();
}

#[test]
fn numbers_of_arrays_that_do_not_fit_are_told_with_their_place() {
    let build = Build::new().kv("signed", Val::i32s(&[7, -1])).kv("wide", Val::u32s(&[1, 2, 1 << 31]));
    let (file, map) = build.build_mapped();
    with(&file, |gguf, _| {
        let array = |key| gguf.array(key).unwrap().unwrap();
        let range = |key: &str, offset: usize, limit, got| FormatError::Range {
            field: Field::named(What::Element, key.as_bytes()),
            offset: offset as u64,
            limit,
            got,
        };
        // Behind the element type and the length, 12 bytes.
        let negative = range("signed", map.kv[0][3] + 12 + 4, u64::from(u32::MAX), u64::MAX);
        assert_eq!(array("signed").u32s().unwrap_err(), negative);
        assert_eq!(gguf.u32_or_array("signed", 2), Err(negative));
        assert_eq!(array("signed").i32s().unwrap().collect::<Vec<_>>(), [7, -1]);
        let large = range("wide", map.kv[1][3] + 12 + 8, i32::MAX as u64, 1 << 31);
        assert_eq!(array("wide").i32s().unwrap_err(), large);
        assert_eq!(array("wide").u32s().unwrap().collect::<Vec<_>>(), [1, 2, 1 << 31]);
    })
    .unwrap();
}

#[test]
fn numbers_of_layers_are_scalars_or_arrays() {
    let (file, map) = sample().build_mapped();
    with(&file, |gguf, _| {
        let heads = gguf.u32_or_array(("llama", "attention.head_count_kv"), 3).unwrap().unwrap();
        assert_eq!([heads.get(0), heads.get(1), heads.get(2), heads.get(3)], [2, 1, 2, 0]);
        assert_eq!(gguf.u32_or_array("z.last", 3), Ok(Some(PerLayer::All(200))));
        assert_eq!([0, 2, 3].map(|layer| PerLayer::All(200).get(layer)), [200; 3]);
        assert_eq!(gguf.u32_or_array("a.bool", 3), Ok(Some(PerLayer::All(1))));
        assert_eq!(gguf.u32_or_array("absent", 3), Ok(None));
        let flags = gguf.u32_or_array("a.flags", 3).unwrap().unwrap();
        assert_eq!([flags.get(0), flags.get(1)], [1, 0]);
        let short = gguf.u32_or_array(("llama", "attention.head_count_kv"), 4).unwrap_err();
        assert!(matches!(short, FormatError::Shape { expected: 4, got: 3, .. }), "{short}");
        assert_eq!(short.offset(), Some(map.kv[3][3] as u64 + 4), "that of the length");
        let scores = gguf.u32_or_array("tokenizer.ggml.scores", 4).unwrap_err();
        assert_eq!(scores.field().unwrap().what, What::ElementType, "{scores}");
        let text = gguf.u32_or_array("general.architecture", 3).unwrap_err();
        assert_eq!((text.field().unwrap().what, text.offset()), (What::ValueType, Some(map.kv[1][2] as u64)));
        // Of an array that was made by hand, what is no number counts as 0.
        assert_eq!(PerLayer::Each(gguf.array("tokenizer.ggml.scores").unwrap().unwrap()).get(3), 0);
    })
    .unwrap();
}

/// The number that does not fit, where it stands; a negative one as its two's complement.
#[test]
fn numbers_that_do_not_fit_are_refused_one_by_one() {
    let numbers = |values: &[i64]| Val::Array(11, values.iter().map(|&value| Val::I64(value)).collect());
    let build = Build::new()
        .kv("wide", numbers(&[0, u32::MAX.into(), 1 << 32]))
        .kv("negative", numbers(&[i64::from(i32::MIN), -1]))
        .kv("small", numbers(&[i64::from(i32::MIN) - 1]));
    let (file, map) = build.build_mapped();
    with(&file, |gguf, _| {
        let array = |key| gguf.array(key).unwrap().unwrap();
        let range = |key: &str, pair: usize, index: usize, limit: u64, got: i64| {
            let offset = (map.kv[pair][3] + 12 + 8 * index) as u64;
            let field = Field::named(What::Element, key.as_bytes());
            Some(FormatError::Range { field, offset, limit, got: got as u64 })
        };
        let (unsigned, signed) = (u32::MAX.into(), i32::MAX as u64);
        assert_eq!(array("wide").u32s().err(), range("wide", 0, 2, unsigned, 1 << 32));
        assert_eq!(array("wide").i32s().err(), range("wide", 0, 1, signed, u32::MAX.into()));
        assert_eq!(array("negative").u32s().err(), range("negative", 1, 0, unsigned, i32::MIN.into()));
        assert_eq!(array("negative").i32s().unwrap().collect::<Vec<_>>(), [i32::MIN, -1]);
        assert_eq!(array("small").i32s().err(), range("small", 2, 0, signed, i64::from(i32::MIN) - 1));
        let text = array("wide").u32s().unwrap_err().to_string();
        let offset = map.kv[0][3] + 28;
        assert_eq!(
            text,
            format!("array element of `wide` at byte {offset}: 4294967296 is outside the range that ends at 4294967295")
        );
    })
    .unwrap();
}

#[test]
fn tensors_are_found_by_name_with_absolute_extents() {
    let (file, map) = sample().build_mapped();
    with(&file, |gguf, _| {
        let names: Vec<&str> = gguf.tensors().iter().map(|t| gguf.tensor_name(t)).collect();
        assert_eq!(names, ["a.weight", "b.weight", "empty", "scalar"]);
        let b = gguf.tensor("b.weight").unwrap();
        assert_eq!((b.dims, b.n_dims, b.dtype(), b.bytes), ([2, 3, 1, 1], 2, DType::F32, 24));
        assert_eq!(b.offset as usize, map.data);
        assert_eq!(b.name_offset() as usize, map.tensors[0][1]);
        assert_eq!(b.dims_offset() as usize, map.tensors[0][3]);
        assert_eq!(b.dtype_offset() as usize, map.tensors[0][4]);
        let a = gguf.tensor("a.weight").unwrap();
        assert_eq!((a.dtype(), a.bytes, a.elements()), (DType::Q4_0, 72, 128));
        assert!(file[a.offset as usize..][..72].iter().all(|&byte| byte == 7));
        let scalar = gguf.tensor("scalar").unwrap();
        assert_eq!((scalar.n_dims, scalar.elements(), scalar.bytes), (0, 1, 4));
        assert_eq!(gguf.tensor("empty").unwrap().elements(), 0);
        assert!(gguf.tensor("c").is_none());
        assert_eq!((gguf.version(), gguf.alignment(), gguf.data_offset()), (3, 32, map.data as u64));
        assert_eq!((gguf.header(), gguf.file_len()), (&file[..map.data], file.len() as u64));
    })
    .unwrap();
}

#[test]
fn what_must_be_accepted_is_accepted() {
    let mut v2 = sample();
    v2.version = 2;
    with(&v2.build(), |gguf, _| assert_eq!(gguf.version(), 2)).unwrap();
    with(&sample().aligned(8).build(), |gguf, _| assert_eq!(gguf.alignment(), 8)).unwrap();
    with(&sample().aligned(65_536).build(), |gguf, _| assert_eq!(gguf.alignment(), 65_536)).unwrap();
    let mut trailing = sample().build();
    trailing.extend(b"PK\x05\x06 something else");
    with(&trailing, |gguf, _| assert!(gguf.tensor("scalar").is_some())).unwrap();
    let name = "n".repeat(64);
    with(&Build::new().tensor_f32(&name, &[1], &[1.0]).build(), |gguf, _| {
        assert!(gguf.tensor(&name).is_some());
    })
    .unwrap();
    // No tensors and no padding behind the pairs: a vocabulary.
    let (file, map) = Build::new().kv("a", Val::U8(1)).build_mapped();
    with(&file[..map.infos_end], |gguf, _| assert_eq!(gguf.u32("a"), Ok(Some(1)))).unwrap();
    with(&Build::new().build(), |gguf, _| assert_eq!(gguf.tensors().len(), 0)).unwrap();
    let key = "k".repeat(65_535);
    with(&Build::new().kv(&key, Val::U8(1)).build(), |gguf, _| assert!(gguf.get(&*key).is_some())).unwrap();
}

/// Real files, where `tools/reference.sh` has put them.
#[test]
fn real_files_read_completely() {
    let home = std::env::var("HOME").unwrap_or_default();
    let root = std::env::var("LOCUTOR_REFERENCE").unwrap_or(format!("{home}/.cache/locutor"));
    for folder in ["models", "vocabs"] {
        let Ok(files) = std::fs::read_dir(format!("{root}/{folder}")) else { continue };
        for path in files.map(|file| file.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "gguf") {
                check_real(&path);
            }
        }
    }
}

fn check_real(path: &std::path::Path) {
    // SAFETY: nobody changes the reference files while the tests run.
    let file = unsafe { locutor::format::FileBytes::map(path) };
    if std::fs::metadata(path).unwrap().len() > isize::MAX as u64 {
        // More than this machine has addresses for.
        let message = file.err().unwrap().to_string();
        assert!(message.contains(&isize::MAX.to_string()), "{message}");
        return;
    }
    let file = file.unwrap();
    let (header, len) = (file.header(), file.bytes().file_len());
    assert!(header.len() as u64 <= len);
    let counts = scan(header, len).unwrap();
    let mut plan = Plan::new();
    let slots = Gguf::plan(&counts, &mut plan).unwrap();
    let mut block = Block::zeroed(plan.bytes()).unwrap();
    let mut arena = Arena::new(block.bytes_mut(), &plan).unwrap();
    let gguf = Gguf::read(header, len, &mut arena, &slots).unwrap();
    assert_eq!(gguf.entries().count(), counts.kv);
    assert!(gguf.architecture().is_ok());
    for tensor in gguf.tensors() {
        assert!(file.data().sub(tensor.offset as usize, tensor.bytes as usize).is_some());
    }
    if counts.tensors > 0 {
        assert!(counts.blocks > 0 && gguf.tensor("token_embd.weight").is_some(), "{}", path.display());
    }
    if let Some(tokens) = gguf.strings("tokenizer.ggml.tokens").unwrap() {
        assert_eq!((tokens.len(), tokens.map(<[u8]>::len).sum()), (counts.tokens, counts.token_bytes));
    }
}
