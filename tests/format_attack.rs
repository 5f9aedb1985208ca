//! Hostile headers: every one is refused with the reason, the field and its byte offset, and nothing else happens.

#[path = "common/gguf_builder.rs"]
mod gguf_builder;

use gguf_builder::{Gguf as Build, Map, Val};
use locutor::format::gguf::scan;
use locutor::format::{Counts, FormatError, Found, Gguf, Key, ValueType, What, limits};
use locutor::mem::aligned::Block;
use locutor::mem::{Arena, MemError, Plan};
use proptest::prelude::*;

/// Scans and reads a file with memory of exactly the planned size, and checks all that a reader of an accepted file
/// may rely on.
fn read(file: &[u8]) -> Result<Counts, FormatError> {
    let counts = scan(file, file.len() as u64)?;
    let mut plan = Plan::new();
    let slots = Gguf::plan(&counts, &mut plan)?;
    assert!(plan.bytes() <= (1 << 20) + 4 * file.len(), "memory stays in proportion");
    let mut block = Block::zeroed(plan.bytes())?;
    let mut arena = Arena::new(block.bytes_mut(), &plan)?;
    let gguf = Gguf::read(file, file.len() as u64, &mut arena, &slots)?;
    check_sound(file, &gguf, &counts);
    Ok(counts)
}

fn check_sound(file: &[u8], gguf: &Gguf<'_>, counts: &Counts) {
    assert_eq!(gguf.entries().count(), counts.kv, "every pair reads back");
    for entry in gguf.entries() {
        assert!(gguf.get(entry.key).is_some(), "every key is found");
    }
    assert_eq!(gguf.tensors().len(), counts.tensors);
    let mut extents: Vec<(u64, u64)> = Vec::new();
    for tensor in gguf.tensors() {
        assert_eq!(gguf.tensor(gguf.tensor_name(tensor)), Some(tensor), "every tensor is found");
        assert!(tensor.offset >= gguf.data_offset() && tensor.offset % gguf.alignment() == 0);
        let end = tensor.offset.checked_add(tensor.bytes).unwrap();
        assert!(end <= file.len() as u64, "every extent is inside the file");
        let (values, bytes) = tensor.dtype().block();
        let elements = tensor.dims.iter().map(|&dim| u128::from(dim)).product::<u128>();
        assert_eq!(u128::from(tensor.elements()), elements);
        assert_eq!(elements / values as u128 * bytes as u128, u128::from(tensor.bytes));
        assert_eq!(tensor.dims[0] % values as u64, 0);
        if tensor.bytes > 0 {
            extents.push((tensor.offset, end));
        }
    }
    extents.sort();
    assert!(extents.windows(2).all(|pair| pair[0].1 <= pair[1].0), "no two tensors share a byte");
}

/// The error of a file that must be refused. A reader that is given the front part bit by bit must come to the same end.
fn refuse(file: &[u8]) -> FormatError {
    let error = read(file).expect_err("must be refused");
    if let Some(offset) = error.offset() {
        assert!(offset <= file.len() as u64, "{error}: the offset is in the file");
    }
    let mut have = 0;
    let gradual = loop {
        match scan(&file[..have], file.len() as u64) {
            Err(FormatError::MoreHeader { needed, got, .. }) => {
                assert!(needed > got && got == have as u64 && needed <= file.len() as u64);
                have = (needed as usize).max(have + have / 4).min(file.len());
            }
            other => break other,
        }
    };
    // Names and overlaps are judged later, from tables.
    if let Err(gradual) = gradual {
        assert_eq!(gradual, error);
    }
    assert!(!error.to_string().is_empty());
    error
}

/// Checks reason, field and offset of a refusal at once.
macro_rules! refused {
    ($file:expr, $variant:ident, $what:ident, $offset:expr) => {{
        let error = refuse(&$file);
        assert!(matches!(error, FormatError::$variant { .. }), "{error:?}");
        assert_eq!(error.field().map(|field| field.what), Some(What::$what), "{error}");
        assert_eq!(error.offset(), Some($offset as u64), "{error}");
        error
    }};
}

fn sample() -> Build {
    Build::new()
        .kv("general.architecture", Val::str("gpt2"))
        .kv("x.block_count", Val::U32(2))
        .kv("tokenizer.ggml.tokens", Val::strings(&["a", "bc"]))
        .kv("flags", Val::bools(&[true, false]))
        .kv("flag", Val::Bool(true))
        .kv("general.alignment", Val::U32(32))
        .tensor_f32("one", &[4, 2], &[1.0; 8])
        .tensor("two", &[32, 3], 8, vec![0; 102])
}

fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = sample().build();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn layout() -> Map {
    sample().build_mapped().1
}

#[test]
fn the_sample_itself_is_accepted() {
    assert_eq!(read(&sample().build()).unwrap().tensors, 2);
}

#[test]
fn every_prefix_of_the_header_is_truncated() {
    let (file, map) = sample().build_mapped();
    for len in 0..map.infos_end {
        let error = scan(&file[..len], len as u64).unwrap_err();
        assert!(
            matches!(error, FormatError::Truncated { needed, got, offset, .. }
                if needed > got && got == len as u64 && offset <= got && needed <= map.infos_end as u64),
            "{len}: {error:?}"
        );
        let error = scan(&file[..len], file.len() as u64).unwrap_err();
        assert!(
            matches!(error, FormatError::MoreHeader { needed, got, .. }
                if needed > got && got == len as u64 && needed <= map.infos_end as u64),
            "{len}: {error:?}"
        );
        let offset = error.offset().unwrap();
        assert!(offset <= len as u64, "{len}: a field that begins at {offset}");
    }
    assert!(scan(&file[..map.infos_end], file.len() as u64).is_ok(), "the data are not looked at");
}

#[test]
fn every_cut_of_the_data_is_out_of_range() {
    let (file, map) = sample().build_mapped();
    let end = map.data + 32 + 102;
    for len in map.infos_end..end {
        let error = read(&file[..len]).unwrap_err();
        let first = len < map.data + 32;
        let expected = map.tensors[usize::from(!first)][5] as u64;
        assert!(
            matches!(error, FormatError::Range { offset, limit, .. } if offset == expected && limit == len as u64),
            "{len}: {error:?}"
        );
    }
    assert!(read(&file[..end]).is_ok(), "padding behind the last tensor may be missing");
}

#[test]
fn magic_and_version() {
    for magic in [b"FUGG", b"GGJT", b"GGML", b"gguf"] {
        let error = refuse(&patched(0, magic));
        assert_eq!(error, FormatError::Magic { offset: 0, got: *magic });
    }
    let cases = [
        (0, "GGUF 0"),
        (1, "GGUF 1"),
        (4, "GGUF 4"),
        (u32::MAX, "GGUF 4294967295"),
        (3 << 24, "big-endian"),
        (2 << 24, "big-endian"),
        (1 << 24, "big-endian"),
    ];
    for (version, text) in cases {
        let error = refuse(&patched(4, &version.to_le_bytes()));
        assert_eq!(error, FormatError::Version { offset: 4, got: version });
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn counts_beyond_their_caps() {
    for count in [65_537, 1 << 32, i64::MAX as u64, 1 << 63, u64::MAX, u64::MAX / 64] {
        let error = refused!(patched(8, &count.to_le_bytes()), Limit, TensorCount, 8);
        assert!(matches!(error, FormatError::Limit { got, limit: 65_536, .. } if got == count));
        refused!(patched(16, &count.to_le_bytes()), Limit, KvCount, 16);
    }
    // Within the cap, but more than the file can hold: refused before the first pair.
    refused!(patched(8, &65_536u64.to_le_bytes()), Truncated, Header, 24);
    refused!(patched(16, &65_536u64.to_le_bytes()), Truncated, Header, 24);
}

#[test]
fn counts_are_held_against_the_smallest_entries() {
    // A pair has at least a length, a byte of key, a type and a byte of value; a tensor a length, a byte of name, a rank,
    // a type and an offset.
    for (pairs, tensors, smallest) in [(1u64, 0u64, 14), (0, 1, 25), (3, 2, 3 * 14 + 2 * 25)] {
        let mut file = Build::new().build();
        file.truncate(24);
        file[8..16].copy_from_slice(&tensors.to_le_bytes());
        file[16..24].copy_from_slice(&pairs.to_le_bytes());
        file.resize(24 + smallest - 1, 0);
        let error = refused!(file, Truncated, Header, 24);
        let expected = 24 + smallest as u64;
        assert!(matches!(error, FormatError::Truncated { needed, .. } if needed == expected), "{error}");
    }
    // Each of them is in fact enough.
    let tensor = Build::new().tensor("t", &[], 0, vec![0; 4]);
    assert_eq!(tensor.build_mapped().1.infos_end, 24 + 25);
    assert_eq!(read(&tensor.build()).unwrap().tensors, 1);
    let pair = Build::new().kv("k", Val::U8(1));
    assert_eq!(pair.build_mapped().1.infos_end, 24 + 14);
    assert_eq!(read(&pair.build()).unwrap().kv, 1);
}

#[test]
fn keys() {
    let map = layout();
    let [length_at, key_at, ..] = map.kv[1];
    refused!(patched(length_at, &0u64.to_le_bytes()), Syntax, KeyLength, length_at);
    for len in [65_536, 1 << 32, 1 << 63, u64::MAX] {
        refused!(patched(length_at, &len.to_le_bytes()), Limit, KeyLength, length_at);
    }
    refused!(patched(length_at, &65_535u64.to_le_bytes()), Truncated, Key, key_at);
    for bad in [0, 0x80, 0xff] {
        let error = refused!(patched(key_at + 3, &[bad]), Utf8, Key, key_at + 3);
        assert!(error.to_string().contains("x.b"), "{error}");
    }
}

#[test]
fn duplicate_keys() {
    for value in [Val::U32(2), Val::str("other")] {
        let (file, map) = sample().kv("x.block_count", value).build_mapped();
        let error = refused!(file, Duplicate, Key, map.kv[6][1]);
        assert!(matches!(error, FormatError::Duplicate { first, .. } if first == map.kv[1][1] as u64));
        assert_eq!(
            error.to_string(),
            format!(
                "key of `x.block_count` at byte {}: already present at byte {}",
                map.kv[6][1], map.kv[1][1]
            )
        );
    }
}

#[test]
fn value_types_and_bools() {
    let map = layout();
    for kind in [13, 0x7fff_ffff, u32::MAX] {
        let error = refused!(patched(map.kv[1][2], &kind.to_le_bytes()), Type, ValueType, map.kv[1][2]);
        assert!(matches!(error, FormatError::Type { got: Found::ValueId(id), .. } if id == kind));
        assert!(error.to_string().contains("x.block_count"), "{error}");
        refused!(patched(map.kv[2][3], &kind.to_le_bytes()), Type, ElementType, map.kv[2][3]);
    }
    for byte in [2, 255] {
        let error = refused!(patched(map.kv[4][3], &[byte]), Type, Value, map.kv[4][3]);
        assert!(matches!(error, FormatError::Type { got: Found::Byte(got), .. } if got == byte));
        refused!(patched(map.kv[3][3] + 13, &[byte]), Type, Element, map.kv[3][3] + 13);
    }
}

#[test]
fn string_lengths() {
    let map = layout();
    let at = map.kv[0][3];
    for len in [limits::MAX_STRING as u64 + 1, 1 << 30, i64::MAX as u64, u64::MAX - 7, u64::MAX] {
        refused!(patched(at, &len.to_le_bytes()), Limit, StringLength, at);
        refused!(patched(map.kv[2][3] + 12, &len.to_le_bytes()), Limit, StringLength, map.kv[2][3] + 12);
    }
    let error = refused!(patched(at, &(limits::MAX_STRING as u64).to_le_bytes()), Truncated, String, at + 8);
    assert!(error.to_string().contains("general.architecture"), "{error}");
}

#[test]
fn array_lengths() {
    let map = layout();
    let (strings, bools) = (map.kv[2][3], map.kv[3][3]);
    for len in [1 << 25, 1 << 32, 1 << 62, 1 << 63, u64::MAX] {
        refused!(patched(strings + 4, &len.to_le_bytes()), Limit, ArrayLength, strings + 4);
        refused!(patched(bools + 4, &len.to_le_bytes()), Limit, ArrayLength, bools + 4);
    }
    let wide = Val::Raw(9, [&10u32.to_le_bytes()[..], &(1u64 << 62).to_le_bytes()].concat());
    let (file, map) = sample().kv("wide", wide).build_mapped();
    refused!(file, Limit, ArrayLength, map.kv[6][3] + 4);
    // Within the caps: the claim is held against the file before the elements are walked.
    let most = limits::MAX_STRINGS as u64;
    refused!(patched(strings + 4, &most.to_le_bytes()), Truncated, Element, strings + 12);
    refused!(patched(bools + 4, &(1u64 << 24).to_le_bytes()), Truncated, Element, bools + 12);
    // One string more than there are swallows the next key, and the walk fails behind it.
    let behind = strings + 12 + (8 + 1) + (8 + 2) + (8 + "flags".len());
    refused!(patched(strings + 4, &3u64.to_le_bytes()), Limit, KeyLength, behind);
}

#[test]
fn nested_arrays() {
    let inner = Val::Array(9, vec![Val::u32s(&[1, 2])]);
    let (file, map) = sample().kv("nested", inner).build_mapped();
    let error = refused!(file, Depth, ElementType, map.kv[6][3]);
    assert!(matches!(error, FormatError::Depth { limit: 1, .. }));
    let mut deep = Vec::new();
    for _ in 0..100_000 {
        deep.extend(9u32.to_le_bytes());
        deep.extend(1u64.to_le_bytes());
    }
    let (file, map) = sample().kv("deep", Val::Raw(9, deep)).build_mapped();
    refused!(file, Depth, ElementType, map.kv[6][3]);
}

#[test]
fn alignments() {
    let with = |value: Val| Build::new().kv("general.alignment", value).build_mapped();
    for alignment in [0, 1, 3, 4, 13, 24, 65_537, 131_072, 1 << 30, 1 << 31, u32::MAX] {
        let (file, map) = with(Val::U32(alignment));
        let error = refused!(file, Align, Value, map.kv[0][3]);
        assert!(matches!(error, FormatError::Align { got, .. } if got == u64::from(alignment)));
    }
    for (value, name) in [
        (Val::U8(32), "u8"),
        (Val::I8(32), "i8"),
        (Val::U16(32), "u16"),
        (Val::I16(32), "i16"),
        (Val::I32(32), "i32"),
        (Val::F32(32.0), "f32"),
        (Val::Bool(true), "bool"),
        (Val::str("32"), "string"),
        (Val::u32s(&[32]), "array of u32"),
        (Val::U64(32), "u64"),
        (Val::I64(32), "i64"),
        (Val::F64(32.0), "f64"),
    ] {
        let (file, map) = with(value);
        let error = refused!(file, Type, ValueType, map.kv[0][2]);
        let at = map.kv[0][2];
        let text = format!("value type of `general.alignment` at byte {at}: expected u32, got {name}");
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn tensor_names() {
    let map = layout();
    let [length_at, name_at, ..] = map.tensors[1];
    refused!(patched(length_at, &0u64.to_le_bytes()), Syntax, TensorNameLength, length_at);
    for len in [65, 1 << 63, u64::MAX] {
        refused!(patched(length_at, &len.to_le_bytes()), Limit, TensorNameLength, length_at);
    }
    refused!(patched(name_at + 1, &[0]), Utf8, TensorName, name_at + 1);
    refused!(patched(name_at + 2, &[0xff]), Utf8, TensorName, name_at + 2);
    let error = refused!(patched(name_at, b"one"), Duplicate, TensorName, name_at);
    assert!(matches!(error, FormatError::Duplicate { first, .. } if first == map.tensors[0][1] as u64));
}

#[test]
fn ranks_and_dimensions() {
    let map = layout();
    let [.., rank_at, dims_at, _, _] = map.tensors[0];
    for rank in [5, 9, 1 << 31, u32::MAX] {
        let error = refused!(patched(rank_at, &rank.to_le_bytes()), Limit, Rank, rank_at);
        assert!(error.to_string().contains("one"), "{error}");
    }
    for dim in [1 << 63, u64::MAX, i64::MAX as u64 + 1] {
        refused!(patched(dims_at, &dim.to_le_bytes()), Overflow, Dimension, dims_at);
        refused!(patched(dims_at + 8, &dim.to_le_bytes()), Overflow, Dimension, dims_at + 8);
    }
    // Elements fit 64 bits, bytes do not.
    let file = Build::new().tensor("a", &[i64::MAX as u64], 0, vec![]).build_mapped();
    refused!(file.0, Overflow, Dimension, file.1.tensors[0][3]);
    // The product wraps to a small number.
    let product = [(1 << 42) + 1, 1 << 22, 1];
    let file = Build::new().tensor("a", &product, 0, vec![0; 64]).build_mapped();
    refused!(file.0, Overflow, Dimension, file.1.tensors[0][3] + 8);
    // A zero does not hide a product that overflows: a reader may multiply the others.
    let file = Build::new().tensor("a", &[0, 1 << 40, 1 << 40], 0, vec![]).build_mapped();
    refused!(file.0, Overflow, Dimension, file.1.tensors[0][3] + 16);
    for zero in 0..4 {
        let mut dims = [4; 4];
        dims[zero] = 0;
        assert!(read(&Build::new().tensor("a", &dims, 0, vec![]).build()).is_ok());
    }
}

#[test]
fn tensor_types_and_whole_blocks() {
    let map = layout();
    let [.., dims_at, type_at, _] = map.tensors[1];
    let removed = [4, 5, 31, 32, 33, 36, 37, 38];
    for id in removed.into_iter().chain([9, 10, 11, 16, 20, 24, 28, 41, 1 << 31, u32::MAX]) {
        let error = refused!(patched(type_at, &id.to_le_bytes()), Type, TensorType, type_at);
        assert!(matches!(error, FormatError::Type { got: Found::TensorId(got), .. } if got == id));
    }
    // Every type that GGML has had is called by its name, whether it is supported or not.
    for id in 0..=40u32 {
        let error = read(&patched(type_at, &id.to_le_bytes())).err().map(|error| error.to_string());
        let unknown = error.as_ref().is_some_and(|text| text.contains("unknown type"));
        assert!(!unknown, "{id}: {error:?}");
    }
    let error = refuse(&patched(type_at, &41u32.to_le_bytes())).to_string();
    assert!(error.ends_with("got unknown type 41"), "{error}");
    let error = refuse(&patched(type_at, &10u32.to_le_bytes()));
    let text = format!(
        "tensor type of `two` at byte {type_at}: expected a supported tensor type, got Q2_K (type 10)"
    );
    assert_eq!(error.to_string(), text);
    for (dims, dtype, block) in
        [(vec![8, 64], 14, 256), (vec![1], 2, 32), (vec![31, 32], 8, 32), (vec![], 8, 32)]
    {
        let file = Build::new().tensor("a", &dims, dtype, vec![0; 4096]).build_mapped();
        let error = refused!(file.0, Shape, Dimension, file.1.tensors[0][3]);
        assert!(matches!(error, FormatError::Shape { expected, .. } if expected == block));
    }
    assert_eq!(dims_at, map.tensors[1][3]);
}

#[test]
fn tensor_offsets() {
    let map = layout();
    let offset_at = map.tensors[1][5];
    for offset in [1u64, 31, 33, u64::MAX] {
        let error = refused!(patched(offset_at, &offset.to_le_bytes()), Align, TensorOffset, offset_at);
        assert!(matches!(error, FormatError::Align { align: 32, got, .. } if got == offset));
    }
    for offset in [64u64, 1 << 32, 1 << 62] {
        let error = refused!(patched(offset_at, &offset.to_le_bytes()), Range, TensorData, offset_at);
        assert!(error.to_string().contains("`two`"), "{error}");
    }
    refused!(patched(offset_at, &(u64::MAX - 31).to_le_bytes()), Overflow, TensorData, offset_at);
    let error = refused!(patched(offset_at, &0u64.to_le_bytes()), Overlap, TensorOffset, offset_at);
    let (first, start) = (map.tensors[0][5] as u64, map.data as u64);
    assert!(
        matches!(error, FormatError::Overlap { first: f, end, got, .. } if (f, end, got) == (first, start + 32, start))
    );
}

#[test]
fn overlaps_by_one_byte_and_inside() {
    // 33 bytes would be no whole number of floats; 36 bytes reach into the next tensor at 32.
    let file = Build::new()
        .tensor("a", &[9], 0, vec![0; 36])
        .tensor("b", &[8], 0, vec![0; 64])
        .at(32)
        .build_mapped();
    refused!(file.0, Overlap, TensorOffset, file.1.tensors[1][5]);
    // A small tensor inside a large one, given first.
    let file =
        Build::new().tensor("b", &[1], 0, vec![]).at(64).tensor("a", &[64], 0, vec![0; 256]).build_mapped();
    refused!(file.0, Overlap, TensorOffset, file.1.tensors[0][5]);
    // Empty tensors share places with anything.
    let file = Build::new().tensor("a", &[8], 0, vec![0; 32]).tensor("e", &[0], 0, vec![]).at(0).build();
    assert!(read(&file).is_ok());
}

#[test]
fn sums_of_sizes_that_wrap() {
    // Each alone fits 64 bits; the sum does not.
    let huge = (0x7fff_ffff_ffff_ffc0u64 / 4) & !31;
    let file = Build::new()
        .tensor("a", &[huge], 0, vec![])
        .tensor("b", &[huge], 0, vec![])
        .tensor("c", &[huge], 0, vec![])
        .build_mapped();
    refused!(file.0, Overflow, TensorData, file.1.tensors[2][5]);
    // Padding to the alignment wraps to 0.
    let file = Build::new().tensor("a", &[u64::MAX / 4], 0, vec![]).build_mapped();
    refused!(file.0, Overflow, TensorData, file.1.tensors[0][5]);
    // The start in the file wraps; and the end of one that still starts below 2^64.
    let at = |offset: u64| Build::new().tensor_f32("a", &[16], &[0.0; 16]).at(offset).build_mapped();
    let start = at(0).1.data as u64;
    for offset in [u64::MAX - 31, u64::MAX - 31 - start] {
        let file = at(offset);
        refused!(file.0, Overflow, TensorData, file.1.tensors[0][5]);
    }
}

#[test]
fn headers_beyond_the_cap() {
    // Only the front part is present; the claim is refused without asking for it.
    let text = Val::Raw(8, (limits::MAX_STRING as u64).to_le_bytes().to_vec());
    let (file, map) = Build::new().kv("big", text).build_mapped();
    let needed = (map.kv[0][3] + 8 + limits::MAX_STRING) as u64;
    let error = scan(&file, u64::MAX).unwrap_err();
    assert!(matches!(error, FormatError::MoreHeader { needed: n, .. } if n == needed), "{error:?}");
    // Five strings that each keep their cap, and together reach beyond that of the header.
    let mut long = Build::new().kv("a", Val::U8(0)).build();
    let text_len = limits::MAX_STRING;
    for key in [b'b', b'c', b'd', b'e'] {
        long.truncate(24 + 14 + usize::from(key - b'b') * (13 + 8 + text_len));
        long.extend(1u64.to_le_bytes());
        long.push(key);
        long.extend(8u32.to_le_bytes());
        long.extend((text_len as u64).to_le_bytes());
        long.resize(long.len() + text_len, b' ');
    }
    long[16] = 5;
    let error = scan(&long, long.len() as u64).unwrap_err();
    assert!(
        matches!(error, FormatError::Limit { limit, .. } if limit == limits::MAX_HEADER as u64),
        "{error:?}"
    );
    assert_eq!(error.field().map(|field| field.what), Some(What::String));
}

#[test]
fn another_header_than_planned_for() {
    let file = sample().build();
    let other = sample().kv("one.more", Val::U8(1)).build();
    let counts = scan(&file, file.len() as u64).unwrap();
    let mut plan = Plan::new();
    let slots = Gguf::plan(&counts, &mut plan).unwrap();
    let mut block = Block::zeroed(plan.bytes()).unwrap();
    let mut arena = Arena::new(block.bytes_mut(), &plan).unwrap();
    let error = Gguf::read(&other, other.len() as u64, &mut arena, &slots).unwrap_err();
    assert!(matches!(error, FormatError::Planned { planned: 6, got: 7, .. }), "{error}");
    assert_eq!((error.field().map(|field| field.what), error.offset()), (Some(What::KvCount), None));
    let absurd = Counts { tensors: usize::MAX, ..counts };
    assert_eq!(Gguf::plan(&absurd, &mut Plan::new()).unwrap_err(), MemError::Overflow);
    // An arena that has been used up.
    let mut arena = Arena::new(block.bytes_mut(), &plan).unwrap();
    Gguf::read(&file, file.len() as u64, &mut arena, &slots).unwrap();
    let error = Gguf::read(&file, file.len() as u64, &mut arena, &slots).unwrap_err();
    assert!(matches!(error, FormatError::Memory(_)), "{error}");
    assert_eq!((error.field(), error.offset(), error.with_name(b"x")), (None, None, error));
}

#[test]
fn missing_architecture() {
    for (file, missing) in [
        (Build::new().build(), true),
        (Build::new().kv("general.architecture", Val::U32(1)).build(), false),
        (Build::new().kv("general.architecture", Val::Str(vec![0xff])).build(), false),
    ] {
        let counts = scan(&file, file.len() as u64).unwrap();
        let mut plan = Plan::new();
        let slots = Gguf::plan(&counts, &mut plan).unwrap();
        let mut block = Block::zeroed(plan.bytes()).unwrap();
        let mut arena = Arena::new(block.bytes_mut(), &plan).unwrap();
        let gguf = Gguf::read(&file, file.len() as u64, &mut arena, &slots).unwrap();
        let error = gguf.architecture().unwrap_err();
        assert_eq!(error == Key::from("general.architecture").missing(), missing, "{error}");
        assert_eq!(error.offset().is_none(), missing, "what is missing is nowhere");
        assert_eq!(error.field().unwrap().name.as_bytes(), b"general.architecture");
        assert!(error.to_string().contains("general.architecture"));
    }
}

#[test]
fn large_tables_are_no_quadratic_work() {
    // Common prefixes make every comparison long; descending order and a duplicate at the far end.
    let prefix = "p".repeat(100);
    let mut build = Build::new();
    for i in (0..limits::MAX_KV - 1).rev() {
        build = build.kv(format!("{prefix}{i:06}"), Val::U8(0));
    }
    for i in (0..limits::MAX_TENSORS - 1).rev() {
        build = build.tensor(format!("t{i}"), &[0], 0, vec![]);
    }
    let (file, map) = build.clone().kv("last", Val::U8(0)).build_mapped();
    assert_eq!(read(&file).unwrap().kv, limits::MAX_KV);
    assert_eq!(map.kv.len(), limits::MAX_KV);
    let (file, map) = build.kv(format!("{prefix}065534"), Val::U8(0)).build_mapped();
    refused!(file, Duplicate, Key, map.kv[limits::MAX_KV - 1][1]);
}

/// Every number of the sample's header: offset and width.
fn number_fields() -> Vec<(usize, usize)> {
    let map = layout();
    let mut fields = vec![(4, 4), (8, 8), (16, 8)];
    for [length, _, kind, value] in map.kv {
        fields.extend([(length, 8), (kind, 4), (value, 4), (value + 4, 8)]);
    }
    for (i, [length, _, rank, dims, kind, offset]) in map.tensors.into_iter().enumerate() {
        fields.extend([(length, 8), (rank, 4), (kind, 4), (offset, 8)]);
        fields.extend((0..2).map(|dim| (dims + 8 * dim, 8)));
        assert!(i < 2);
    }
    fields
}

const EDGES: [u64; 20] = [
    0,
    1,
    2,
    4,
    8,
    31,
    32,
    64,
    65,
    65_535,
    65_536,
    65_537,
    i32::MAX as u64,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 31,
    u64::MAX,
];

/// Reads a file that may be good or bad; `check_sound` and the offset of the error are the judges.
fn survive(file: &[u8]) {
    match read(file) {
        Ok(_) => {}
        Err(FormatError::MoreHeader { .. }) => panic!("the whole file was present"),
        Err(error) => assert!(error.offset().is_none_or(|offset| offset <= file.len() as u64), "{error}"),
    }
}

#[test]
fn every_pair_of_numbers_at_their_edges() {
    let fields = number_fields();
    let original = sample().build();
    for (i, &(at, width)) in fields.iter().enumerate() {
        for &(at2, width2) in &fields[i..] {
            for edge in EDGES {
                for edge2 in EDGES {
                    let mut file = original.clone();
                    file[at..at + width].copy_from_slice(&edge.to_le_bytes()[..width]);
                    file[at2..at2 + width2].copy_from_slice(&edge2.to_le_bytes()[..width2]);
                    survive(&file);
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit() {
    let (original, map) = sample().build_mapped();
    for bit in 0..map.infos_end * 8 {
        let mut file = original.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        survive(&file);
    }
}

fn value() -> impl Strategy<Value = Val> {
    prop_oneof![
        any::<u8>().prop_map(Val::U8),
        any::<i8>().prop_map(Val::I8),
        any::<u16>().prop_map(Val::U16),
        any::<i16>().prop_map(Val::I16),
        any::<u32>().prop_map(Val::U32),
        any::<i32>().prop_map(Val::I32),
        any::<f32>().prop_map(Val::F32),
        any::<bool>().prop_map(Val::Bool),
        any::<u64>().prop_map(Val::U64),
        any::<i64>().prop_map(Val::I64),
        any::<f64>().prop_map(Val::F64),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Val::Str),
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9)
            .prop_map(|strings| Val::strings(&strings)),
        proptest::collection::vec(any::<i32>(), 0..9).prop_map(|numbers| Val::i32s(&numbers)),
        proptest::collection::vec(any::<bool>(), 0..9).prop_map(|flags| Val::bools(&flags)),
    ]
}

/// Whether a value reads back as it was built; floats by their bits.
fn same(built: &Val, got: locutor::format::Value<'_>) -> bool {
    use locutor::format::Value;
    match (built, got) {
        (Val::U8(a), Value::U8(b)) => *a == b,
        (Val::I8(a), Value::I8(b)) => *a == b,
        (Val::U16(a), Value::U16(b)) => *a == b,
        (Val::I16(a), Value::I16(b)) => *a == b,
        (Val::U32(a), Value::U32(b)) => *a == b,
        (Val::I32(a), Value::I32(b)) => *a == b,
        (Val::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
        (Val::Bool(a), Value::Bool(b)) => *a == b,
        (Val::U64(a), Value::U64(b)) => *a == b,
        (Val::I64(a), Value::I64(b)) => *a == b,
        (Val::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
        (Val::Str(a), Value::Str(b)) => a == b,
        (Val::Array(element, values), Value::Array(array)) => {
            if array.len != values.len() || array.element as u32 != *element {
                return false;
            }
            if array.element == ValueType::String {
                let strings = array.strings().unwrap().map(Value::Str);
                return values.iter().zip(strings).all(|(a, b)| same(a, b));
            }
            values.iter().enumerate().all(|(i, a)| same(a, array.get(i).unwrap()))
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn what_is_built_reads_back(
        pairs in proptest::collection::btree_map("[a-z][a-z_.]{0,20}", value(), 0..12),
        tensors in proptest::collection::btree_map("[a-z][a-z_.0-9]{0,30}", (0usize..4, 0u64..5, 0u64..5), 0..8),
        alignment in 3u32..9,
    ) {
        let mut build = Build::new().aligned(1 << alignment);
        for (key, value) in &pairs {
            build = build.kv(key, value.clone());
        }
        // Type number, values and bytes of a block: F32, F16, Q4_0, Q6_K.
        let types = [(0, 1, 4), (1, 1, 2), (2, 32, 18), (14, 256, 210)];
        for (name, &(dtype, cols, rows)) in &tensors {
            let (id, values, bytes) = types[dtype];
            let data = vec![name.len() as u8; (cols * rows * bytes) as usize];
            build = build.tensor(name, &[cols * values, rows], id, data);
        }
        let file = build.build();
        let counts = read(&file);
        prop_assert!(counts.is_ok(), "{:?}", counts);
        let counts = counts.unwrap();
        let mut plan = Plan::new();
        let slots = Gguf::plan(&counts, &mut plan).unwrap();
        let mut block = Block::zeroed(plan.bytes()).unwrap();
        let mut arena = Arena::new(block.bytes_mut(), &plan).unwrap();
        let gguf = Gguf::read(&file, file.len() as u64, &mut arena, &slots).unwrap();
        for (key, value) in &pairs {
            prop_assert!(same(value, gguf.get(key.as_str()).unwrap()), "{}", key);
        }
        for (name, &(_, cols, rows)) in &tensors {
            let entry = gguf.tensor(name).unwrap();
            prop_assert_eq!(entry.dims[1], rows);
            let data = &file[entry.offset as usize..][..entry.bytes as usize];
            prop_assert!(data.iter().all(|&byte| byte == name.len() as u8));
            prop_assert_eq!(data.is_empty(), cols * rows == 0);
        }
    }

    #[test]
    fn any_bytes_behind_a_good_start_survive(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        start in 24usize..400,
    ) {
        let mut file = sample().build();
        file.truncate(start);
        file.extend(bytes);
        survive(&file);
    }
}
