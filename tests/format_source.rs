//! Byte sources: slices, files, extents of files, reader callbacks and maps give the same bytes, and fail with reasons.

#[path = "common/gguf_builder.rs"]
mod gguf_builder;

use gguf_builder::{Gguf as Build, Val};
use locutor::format::gguf::scan;
use locutor::format::{FileBytes, FormatError, HeaderBytes, ModelBytes, Operation, ReadError, read_into};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

/// A file whose header is longer than the first read, with some data behind it.
fn model() -> Vec<u8> {
    let tokens: Vec<String> = (0..20_000).map(|i| format!("token number {i}")).collect();
    let values: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
    Build::new()
        .kv("general.architecture", Val::str("gpt2"))
        .kv("tokenizer.ggml.tokens", Val::strings(&tokens))
        .tensor_f32("weight", &[1000, 100], &values)
        .build()
}

/// A file that is removed when the test ends.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("locutor-format-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Temporary(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn all(bytes: ModelBytes<'_>) -> Vec<u8> {
    (0..bytes.data.len()).map(|i| bytes.data.read::<u8>(i)).collect()
}

fn check(bytes: ModelBytes<'_>, model: &[u8]) {
    assert_eq!(bytes.file_len(), model.len() as u64);
    assert!(all(bytes) == model);
    assert!(model.starts_with(bytes.header));
    assert!(scan(bytes.header, bytes.file_len()).is_ok(), "the header is complete");
}

fn map(path: &std::path::Path) -> Result<FileBytes, FormatError> {
    // SAFETY: the tests change their files only where they say so, and never make them shorter.
    unsafe { FileBytes::map(path) }
}

fn map_file(file: &File, offset: u64, len: Option<u64>) -> Result<FileBytes, FormatError> {
    // SAFETY: as above.
    unsafe { FileBytes::map_file(file, offset, len) }
}

fn reader(source: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<(), ReadError> {
    move |offset, destination| {
        let tail = source.get(offset as usize..).ok_or(ReadError::Ended)?;
        destination.copy_from_slice(tail.get(..destination.len()).ok_or(ReadError::Ended)?);
        Ok(())
    }
}

#[test]
fn all_sources_give_the_same_bytes() {
    let model = model();
    let file = Temporary::new("same", &model);
    check(ModelBytes::new(&model), &model);
    let opened = FileBytes::open(&file.0).unwrap();
    assert!(!opened.is_mapped() && opened.verify().is_ok());
    check(opened.bytes(), &model);
    let mapped = map(&file.0).unwrap();
    assert!(mapped.is_mapped() && mapped.verify().is_ok());
    assert!(mapped.header().len() < model.len(), "the weights are not copied");
    check(mapped.bytes(), &model);
    check(FileBytes::from_reader(reader(&model), model.len() as u64).unwrap().bytes(), &model);
    let mut memory = vec![0xAA; model.len() + 5];
    check(read_into(reader(&model), model.len() as u64, &mut memory).unwrap(), &model);
    assert_eq!(memory[model.len()..], [0xAA; 5], "nothing is written behind the file");
}

#[test]
fn a_header_alone_comes_from_every_source() {
    let model = model();
    let len = model.len() as u64;
    let pack = [&[0x55; 321][..], &model, &[0x66; 9]].concat();
    let file = Temporary::new("header", &model);
    let packed = Temporary::new("header-pack", &pack);
    let handle = File::open(&packed.0).unwrap();
    let mut read = 0;
    let mut source = reader(&model);
    let counted = |offset: u64, destination: &mut [u8]| {
        read += destination.len();
        source(offset, destination)
    };
    let headers = [
        HeaderBytes::from_reader(counted, len).unwrap(),
        HeaderBytes::open(&file.0).unwrap(),
        HeaderBytes::from_file(&handle, 321, Some(len)).unwrap(),
    ];
    let end = scan(&model, len).unwrap().header_len as usize;
    for header in &headers {
        assert_eq!(header.file_len(), len);
        assert!(model.starts_with(header.bytes()));
        assert!((end - 32..2 * end).contains(&header.bytes().len()), "{} of {end}", header.bytes().len());
    }
    assert_eq!(read, headers[0].bytes().len(), "every byte is read once");
    let rest = HeaderBytes::from_file(&handle, 321, None).unwrap();
    assert_eq!(rest.file_len(), len + 9);
}

/// A 32nd of the file, but no less than the first read of a header from elsewhere, and no more than 2 MiB.
#[test]
fn a_small_part_of_a_mapped_file_is_copied() {
    for (data, copied) in [(1 << 20, 64 << 10), (6 << 20, 192 << 10), (65 << 20, 2 << 20)] {
        let mut bytes = Build::new().kv("general.architecture", Val::str("gpt2")).build();
        bytes.resize(data, 0);
        let file = Temporary::new("copied", &bytes);
        let mapped = map(&file.0).unwrap();
        assert_eq!(mapped.header().len(), copied, "of {data} bytes");
        assert!(bytes.starts_with(mapped.header()));
    }
}

#[test]
fn a_mapped_header_is_a_copy() {
    let model = model();
    let file = Temporary::new("copy", &model);
    let mapped = map(&file.0).unwrap();
    let header = mapped.header().to_vec();
    // Break the promise without making the file shorter: the header must not notice, `verify` must.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let mut writer = File::options().write(true).open(&file.0).unwrap();
    writer.write_all(&[0xFF; 4096]).unwrap();
    drop(writer);
    assert_eq!(mapped.data().read::<u8>(0), 0xFF, "the map shows the change");
    assert!(mapped.header() == header);
    let changed = FormatError::Io { operation: Operation::Stat, offset: 0, cause: ReadError::Changed };
    assert_eq!(mapped.verify(), Err(changed));
}

#[test]
fn a_model_inside_a_larger_file() {
    let model = model();
    // An offset that is no multiple of a page.
    let mut pack = vec![0x55; 12_345];
    pack.extend(&model);
    pack.extend([0x66; 777]);
    let file = Temporary::new("pack", &pack);
    let handle = File::open(&file.0).unwrap();
    let len = model.len() as u64;
    check(FileBytes::from_file(&handle, 12_345, Some(len)).unwrap().bytes(), &model);
    check(map_file(&handle, 12_345, Some(len)).unwrap().bytes(), &model);
    // The map keeps a handle of its own.
    let mapped = map_file(&handle, 12_345, Some(len)).unwrap();
    drop(handle);
    check(mapped.bytes(), &model);
    assert!(mapped.verify().is_ok());
    let handle = File::open(&file.0).unwrap();
    let rest = FileBytes::from_file(&handle, 12_345, None).unwrap();
    assert_eq!(rest.bytes().file_len(), len + 777);
    let total = pack.len() as u64;
    for (offset, len) in [(0, total + 1), (1, total), (total + 1, 0), (12_345, u64::MAX), (u64::MAX, 1)] {
        for result in [FileBytes::from_file(&handle, offset, Some(len)), map_file(&handle, offset, Some(len))]
        {
            let error = result.unwrap_err();
            let available = total.saturating_sub(offset);
            let cause = ReadError::Extent { len, available };
            assert_eq!(error, FormatError::Io { operation: Operation::Stat, offset, cause });
            let header = HeaderBytes::from_file(&handle, offset, Some(len)).unwrap_err();
            assert_eq!(header, error);
        }
    }
    let header = HeaderBytes::from_file(&handle, 12_345, Some(len)).unwrap();
    assert!(header.file_len() == len && model.starts_with(header.bytes()));
    // An open folder is a file that is none.
    let folder = File::open(std::env::temp_dir());
    if let (true, Ok(folder)) = (cfg!(unix), folder) {
        let cause = ReadError::NotAFile;
        let refused = FormatError::Io { operation: Operation::Open, offset: 0, cause };
        assert_eq!(FileBytes::from_file(&folder, 0, None).unwrap_err(), refused);
        assert_eq!(map_file(&folder, 0, None).unwrap_err(), refused);
    }
    // The end is inside the file, but there is nothing behind it.
    let empty = FormatError::Io { operation: Operation::Stat, offset: 0, cause: ReadError::Empty };
    for len in [None, Some(0)] {
        assert_eq!(FileBytes::from_file(&handle, total, len).unwrap_err(), empty);
        assert_eq!(map_file(&handle, total, len).unwrap_err(), empty);
    }
}

#[test]
fn what_is_no_model_file_is_refused_with_a_reason() {
    let check = |path: &std::path::Path, operation, cause| {
        let expected = FormatError::Io { operation, offset: 0, cause };
        assert_eq!(FileBytes::open(path).unwrap_err(), expected);
        assert_eq!(map(path).unwrap_err(), expected);
    };
    check(&std::env::temp_dir(), Operation::Open, ReadError::NotAFile);
    check("/no/such/file".as_ref(), Operation::Open, ReadError::Os(ErrorKind::NotFound));
    let empty = Temporary::new("empty", &[]);
    check(&empty.0, Operation::Stat, ReadError::Empty);
    if cfg!(target_os = "linux") {
        check("/dev/zero".as_ref(), Operation::Open, ReadError::NotAFile);
    }
    // A pipe that nobody writes to: opening it would wait for ever.
    let pipe = std::env::temp_dir().join(format!("locutor-format-{}-pipe", std::process::id()));
    if cfg!(unix) && std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|s| s.success()) {
        check(&pipe, Operation::Open, ReadError::NotAFile);
        std::fs::remove_file(&pipe).unwrap();
    }
    let short = Temporary::new("short", b"GGUF");
    let error = FileBytes::open(&short.0).unwrap_err();
    assert!(matches!(error, FormatError::Truncated { offset: 4, needed: 8, got: 4, .. }), "{error}");
    assert_eq!(map(&short.0).unwrap_err(), error);
}

#[test]
fn every_read_may_fail() {
    let model = model();
    let len = model.len() as u64;
    let mut calls = Vec::new();
    let mut source = reader(&model);
    FileBytes::from_reader(
        |offset, destination| {
            calls.push((offset, destination.len()));
            source(offset, destination)
        },
        len,
    )
    .unwrap();
    assert!(calls.len() > 3, "the header grows in steps: {calls:?}");
    let in_order = calls.windows(2).all(|pair| pair[0].0 + pair[0].1 as u64 == pair[1].0);
    assert!(in_order, "every byte is read once, in order: {calls:?}");
    for (failing, &(offset, _)) in calls.iter().enumerate() {
        let (mut call, mut source) = (0, reader(&model));
        let read = |offset: u64, destination: &mut [u8]| {
            call += 1;
            if call == failing + 1 { Err(ReadError::Host(-7)) } else { source(offset, destination) }
        };
        let error = FileBytes::from_reader(read, len).unwrap_err();
        let cause = ReadError::Host(-7);
        assert_eq!(error, FormatError::Io { operation: Operation::Read, offset, cause });
        let text = format!("cannot read at byte {offset}: the host's reader failed with code -7");
        assert_eq!(error.to_string(), text);
    }
    // The header alone takes fewer reads of the same.
    let mut reads = 0;
    let header = loop {
        let (mut call, mut source) = (0, reader(&model));
        let read = |offset: u64, destination: &mut [u8]| {
            call += 1;
            if call > reads { Err(ReadError::Host(call)) } else { source(offset, destination) }
        };
        match HeaderBytes::from_reader(read, len) {
            Ok(header) => break header,
            Err(error) => {
                let (offset, cause) = (calls[reads as usize].0, ReadError::Host(reads + 1));
                assert_eq!(error, FormatError::Io { operation: Operation::Read, offset, cause });
            }
        }
        reads += 1;
    };
    assert!(reads > 1 && (reads as usize) < calls.len());
    assert!(header.file_len() == len && model.starts_with(header.bytes()));
}

#[test]
fn a_refused_header_is_all_that_is_read() {
    let mut model = model();
    model[8] = 0xFF;
    model[15] = 0xFF;
    let mut read = 0;
    let mut source = reader(&model);
    let error = FileBytes::from_reader(
        |offset, destination| {
            read += destination.len();
            source(offset, destination)
        },
        model.len() as u64,
    )
    .unwrap_err();
    assert!(matches!(error, FormatError::Limit { offset: 8, .. }), "{error}");
    assert_eq!(read, 64 << 10);
}

#[test]
fn lengths_that_cannot_be() {
    let nothing = |_: u64, _: &mut [u8]| -> Result<(), ReadError> { panic!("nothing may be read") };
    let mut memory = [0; 10];
    let io = |operation, cause| FormatError::Io { operation, offset: 0, cause };
    let empty = io(Operation::Stat, ReadError::Empty);
    assert_eq!(FileBytes::from_reader(nothing, 0).unwrap_err(), empty);
    assert_eq!(HeaderBytes::from_reader(nothing, 0).unwrap_err(), empty);
    assert_eq!(read_into(nothing, 0, &mut memory).unwrap_err(), empty);
    let available = isize::MAX as u64;
    for len in [available + 1, u64::MAX] {
        let extent = io(Operation::Stat, ReadError::Extent { len, available });
        assert_eq!(FileBytes::from_reader(nothing, len).unwrap_err(), extent);
    }
    let extent = io(Operation::Read, ReadError::Extent { len: 11, available: 10 });
    assert_eq!(read_into(nothing, 11, &mut memory).unwrap_err(), extent);
    // Half of a 32-bit address space may be there once, but not twice.
    let mut held = Vec::<u8>::new();
    let _ = held.try_reserve_exact(isize::MAX as usize - 4096);
    let huge = FileBytes::from_reader(nothing, available - 4096).unwrap_err();
    assert!(matches!(huge, FormatError::Memory(_)), "{huge}");
}

/// A model with a hole behind it that is longer than every address space: what the system says is passed on.
#[test]
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn a_map_that_the_system_refuses() {
    // Few file systems have files of such a length; where memory is one, it does.
    let long = |folder: PathBuf| {
        let path = folder.join(format!("locutor-format-{}-hole", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).ok()?;
        let temporary = Temporary(path);
        (&file).write_all(&model()).ok()?;
        file.set_len(1 << 60).ok()?;
        Some((file, temporary))
    };
    let Some((file, temporary)) = long("/dev/shm".into()).or_else(|| long(std::env::temp_dir())) else {
        return;
    };
    let cause = ReadError::Os(ErrorKind::OutOfMemory);
    let refused = FormatError::Io { operation: Operation::Map, offset: 0, cause };
    assert_eq!(map(&temporary.0).unwrap_err(), refused);
    assert_eq!(map_file(&file, 0, None).unwrap_err(), refused);
    assert_eq!(refused.to_string(), "cannot map the file at byte 0: out of memory");
    // The front of it is a model like any other.
    let len = model().len() as u64;
    check(map_file(&file, 0, Some(len)).unwrap().bytes(), &model());
}

#[test]
fn a_source_that_is_shorter_than_it_said() {
    let model = model();
    let error = FileBytes::from_reader(reader(&model), model.len() as u64 + 1).unwrap_err();
    assert!(
        matches!(error, FormatError::Io { operation: Operation::Read, cause: ReadError::Ended, .. }),
        "{error}"
    );
}
