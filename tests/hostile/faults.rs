//! Faults of what the library stands on: an allocator without memory, blocks that are too small, files that are none,
//! readers that fail.

use crate::memory::{measured, starved};
use crate::seeds::{self, Seed};
use locutor::exec::Serial;
use locutor::format::{FileBytes, FormatError, ModelBytes, Operation, ReadError, read_into};
use locutor::mem::aligned::Block;
use locutor::mem::{Arena, MemError, Plan};
use locutor::model::{Model, ModelError};
use locutor::sample::Sampler;
use locutor::session::{Error, Limits, Saved, Session};
use locutor::text::{Specials, TextError};
use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

fn scratch(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("hostile");
    fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// Runs `work` with an allocator that fails at its first call, then at its second, and so on, each once and for ever, as
/// long as it fails at all. `work` says whether it succeeded, and otherwise that there was no memory.
fn every_failure(name: &str, work: impl Fn() -> Result<(), MemError>) {
    let ((), used) = measured(|| work().unwrap());
    assert_eq!(used.left, 0, "{name} leaks");
    assert!(used.calls > 0, "{name} has nothing to fail");
    for forever in [false, true] {
        for good in 0..used.calls {
            let (result, after) = measured(|| starved(good, forever, &work));
            let needed = match result {
                Err(MemError::NoMemory { needed }) => needed,
                other => panic!("{name}, call {good}: {other:?}"),
            };
            assert!(needed > 0);
            assert_eq!(after.left, 0, "{name} leaks when call {good} fails");
        }
        assert_eq!(starved(used.calls, forever, &work), Ok(()));
    }
    work().unwrap();
}

fn of_model<T>(result: Result<T, ModelError>) -> Result<T, MemError> {
    result.map_err(|error| match error {
        ModelError::Memory(error) | ModelError::Format(FormatError::Memory(error)) => error,
        error => panic!("{error}"),
    })
}

fn of_session<T>(result: Result<T, Error>) -> Result<T, MemError> {
    result.map_err(|error| match error {
        Error::Memory(error) => error,
        error => panic!("{error}"),
    })
}

fn of_text<T>(result: Result<T, TextError>) -> Result<T, MemError> {
    result.map_err(|error| match error {
        TextError::Memory(error) => error,
        error => panic!("{error}"),
    })
}

#[test]
fn an_allocator_without_memory_is_an_error_at_every_call() {
    let seed = seeds::llama();
    let path = scratch("starved.gguf");
    fs::write(&path, &seed.file).unwrap();
    let file = seed.file.clone();
    let read = |offset: u64, out: &mut [u8]| {
        out.copy_from_slice(&file[offset as usize..][..out.len()]);
        Ok(())
    };
    every_failure("from_slice", || of_model(Model::from_slice(&seed.file)).map(drop));
    every_failure("open", || of_model(Model::open(&path)).map(drop));
    // SAFETY: nobody changes the file.
    every_failure("map", || of_model(unsafe { Model::map(&path) }).map(drop));
    every_failure("from_reader", || {
        let bytes = FileBytes::from_reader(read, seed.file.len() as u64).map_err(ModelError::Format);
        of_model(bytes.and_then(Model::from_file_bytes)).map(drop)
    });
    let model = Model::from_slice(&seed.file).unwrap();
    let limits = Limits::new().context(32).sequences(2);
    every_failure("session", || of_session(model.session(limits)).map(drop));
    every_failure("session_on", || of_session(model.session_on(limits, &Serial)).map(drop));
    for seed in seeds::all() {
        let model = Model::from_slice(&seed.file).unwrap();
        let tokenizer = model.tokenizer().unwrap();
        let text = "ab cde\u{e9} <s> ".repeat(40);
        let ids = tokenizer.encode_vec(&text, Specials::Parse).unwrap();
        every_failure("encode_vec", || of_text(tokenizer.encode_vec(&text, Specials::Parse)).map(drop));
        every_failure("decode_vec", || of_text(tokenizer.decode_vec(&ids)).map(drop));
    }
    fs::remove_file(&path).unwrap();
}

/// Every call that takes a block of memory, with one byte too few and with one that is not aligned.
#[test]
fn memory_one_byte_short_is_an_error_that_says_what_is_needed() {
    for seed in seeds::all() {
        let size = Model::size(&ModelBytes::new(&seed.file)).unwrap();
        let mut block = Block::zeroed(size + 64).unwrap();
        for len in [0, 1, size / 2, size - 1] {
            let error = Model::from_bytes(&seed.file, &mut block.bytes_mut()[..len]).unwrap_err();
            assert_eq!(error, ModelError::Memory(MemError::TooSmall { needed: size, got: len }));
        }
        let error = Model::from_bytes(&seed.file, &mut block.bytes_mut()[1..]).unwrap_err();
        assert_eq!(error, ModelError::Memory(MemError::Misaligned));
        let model = Model::from_bytes(&seed.file, block.bytes_mut()).unwrap();
        let limits = Limits::new().context(48).sequences(2).batch(3);
        let bytes = limits.plan(&model).unwrap().bytes;
        let mut memory = Block::zeroed(bytes + 64).unwrap();
        for len in [0, 1, bytes / 2, bytes - 1] {
            let error = Session::new(&model, &limits, &Serial, &mut memory.bytes_mut()[..len]).unwrap_err();
            assert_eq!(error, Error::Memory(MemError::TooSmall { needed: bytes, got: len }));
        }
        let error = Session::new(&model, &limits, &Serial, &mut memory.bytes_mut()[8..]).unwrap_err();
        assert_eq!(error, Error::Memory(MemError::Misaligned));
        let mut session = Session::new(&model, &limits, &Serial, &mut memory.bytes_mut()[..bytes]).unwrap();
        session.feed_tokens(&[1, 2, 3]).unwrap();
        session.next_token(&mut Sampler::greedy()).unwrap();
        for what in [Saved::Sequence, Saved::Session] {
            let needed = session.save_size(what, None);
            let mut out = vec![0x77; needed];
            for got in [0, 1, needed - 1] {
                let error = session.save(what, None, &mut out[..got]).unwrap_err();
                assert_eq!(error, Error::StateSize { needed, got });
            }
            assert!(out.iter().all(|byte| *byte == 0x77));
            session.save(what, None, &mut out).unwrap();
        }
    }
    let mut plan = Plan::new();
    plan.array::<u8>(100).unwrap();
    let mut block = Block::zeroed(plan.bytes()).unwrap();
    let short = plan.bytes() - 1;
    assert!(matches!(Arena::new(&mut block.bytes_mut()[..short], &plan), Err(MemError::TooSmall { .. })));
}

fn io(operation: Operation, offset: u64, cause: ReadError) -> FormatError {
    FormatError::Io { operation, offset, cause }
}

/// A file longer than what is read at once: the header in several pieces, and data behind.
fn long() -> Seed {
    let seed = seeds::llama();
    let padding = "x".repeat(200_000);
    seed.with("padding", crate::gguf_builder::Val::str(&padding))
}

#[test]
fn a_reader_that_fails_at_any_call_is_an_error_with_its_offset() {
    let seed = long();
    let len = seed.file.len() as u64;
    for code in [1, -7, i32::MAX] {
        for good in 0.. {
            let (calls, failed_at) = (Cell::new(0), Cell::new(None));
            let read = |offset: u64, out: &mut [u8]| {
                if calls.replace(calls.get() + 1) == good {
                    failed_at.set(Some(offset));
                    return Err(ReadError::Host(code));
                }
                out.copy_from_slice(&seed.file[offset as usize..][..out.len()]);
                Ok(())
            };
            let (result, used) = measured(|| FileBytes::from_reader(read, len).map(drop));
            assert_eq!(used.left, 0);
            match failed_at.get() {
                Some(offset) => {
                    assert_eq!(result.unwrap_err(), io(Operation::Read, offset, ReadError::Host(code)));
                    assert_eq!(calls.get(), good + 1, "nothing is read behind an error");
                }
                None => {
                    assert!(good >= 3, "only {good} calls");
                    result.unwrap();
                    break;
                }
            }
        }
    }
    let mut memory = vec![0; seed.file.len() - 1];
    let error = read_into(|_, _| Ok(()), len, &mut memory).unwrap_err();
    let cause = ReadError::Extent { len, available: len - 1 };
    assert_eq!(error, io(Operation::Read, 0, cause));
    assert_eq!(
        read_into(|_, _| Ok(()), 0, &mut memory).unwrap_err(),
        io(Operation::Stat, 0, ReadError::Empty)
    );
    let failing = |_: u64, _: &mut [u8]| Err(ReadError::Ended);
    assert_eq!(read_into(failing, 5, &mut memory).unwrap_err(), io(Operation::Read, 0, ReadError::Ended));
    for len in [u64::MAX, 1 << 63, i64::MAX as u64] {
        assert!(FileBytes::from_reader(|_, _| Ok(()), len).is_err());
    }
}

/// Loading reads every byte once, in few pieces, however long the header is.
#[test]
fn every_byte_is_read_once() {
    for length in [0usize, 1 << 16, 1 << 20, 9 << 20] {
        let seed = seeds::llama().with("padding", crate::gguf_builder::Val::str(&"x".repeat(length)));
        let (calls, bytes) = (Cell::new(0usize), Cell::new(0usize));
        let read = |offset: u64, out: &mut [u8]| {
            assert_eq!(offset, bytes.get() as u64, "in order");
            calls.set(calls.get() + 1);
            bytes.set(bytes.get() + out.len());
            out.copy_from_slice(&seed.file[offset as usize..][..out.len()]);
            Ok(())
        };
        FileBytes::from_reader(read, seed.file.len() as u64).unwrap();
        assert_eq!(bytes.get(), seed.file.len());
        assert!(calls.get() <= 12, "{} calls", calls.get());
    }
}

/// Opens a path in both ways, which must fail alike.
fn refused(path: &Path) -> FormatError {
    let read = FileBytes::open(path).unwrap_err();
    // SAFETY: nothing is mapped.
    let mapped = unsafe { FileBytes::map(path) }.unwrap_err();
    assert_eq!(read, mapped);
    read
}

#[test]
fn what_is_no_file_is_not_opened() {
    let folder = scratch("folder");
    fs::create_dir_all(&folder).unwrap();
    assert_eq!(refused(&folder), io(Operation::Open, 0, ReadError::NotAFile));
    for device in ["/dev/zero", "/dev/null", "/dev/urandom"] {
        if Path::new(device).exists() {
            assert_eq!(refused(Path::new(device)), io(Operation::Open, 0, ReadError::NotAFile));
        }
    }
    // Opening a pipe for reading would wait for somebody to write.
    let pipe = scratch("pipe");
    let _ = fs::remove_file(&pipe);
    if Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
        assert_eq!(refused(&pipe), io(Operation::Open, 0, ReadError::NotAFile));
        fs::remove_file(&pipe).unwrap();
    }
    let kind = std::io::ErrorKind::NotFound;
    assert_eq!(refused(&scratch("nothing")), io(Operation::Open, 0, ReadError::Os(kind)));
    let empty = scratch("empty");
    fs::write(&empty, b"").unwrap();
    assert_eq!(refused(&empty), io(Operation::Stat, 0, ReadError::Empty));
    let link = scratch("link");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(&link, &link).unwrap();
    assert!(matches!(
        refused(&link),
        FormatError::Io { operation: Operation::Open, cause: ReadError::Os(_), .. }
    ));
    let secret = scratch("secret");
    fs::write(&secret, &seeds::llama().file).unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    // Root may read it all the same.
    if File::open(&secret).is_err() {
        let kind = std::io::ErrorKind::PermissionDenied;
        assert_eq!(refused(&secret), io(Operation::Open, 0, ReadError::Os(kind)));
    }
    for path in [empty, link, secret] {
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn extents_that_are_not_in_the_file() {
    let (path, seed) = (scratch("pack"), seeds::llama());
    fs::write(&path, [&[0xEE; 100][..], &seed.file, &[0xEE; 50]].concat()).unwrap();
    let file = File::open(&path).unwrap();
    let (len, all) = (seed.file.len() as u64, seed.file.len() as u64 + 150);
    assert_eq!(FileBytes::from_file(&file, 100, Some(len)).unwrap().data().len() as u64, len);
    for (offset, len, available) in
        [(100, all - 99, all - 100), (all + 1, 0, 0), (u64::MAX, 1, 0), (1, u64::MAX, all - 1)]
    {
        let cause = ReadError::Extent { len, available };
        let error = FileBytes::from_file(&file, offset, Some(len)).unwrap_err();
        assert_eq!(error, io(Operation::Stat, offset, cause));
        // SAFETY: nothing is mapped.
        assert_eq!(unsafe { FileBytes::map_file(&file, offset, Some(len)) }.unwrap_err(), error);
    }
    assert_eq!(FileBytes::from_file(&file, all, None).unwrap_err(), io(Operation::Stat, 0, ReadError::Empty));
    fs::remove_file(path).unwrap();
}

/// A file that shrinks and grows all the time while it is read: it is a model or an error, whatever the moment.
#[test]
fn a_file_that_shrinks_while_it_is_read() {
    let (path, seed) = (scratch("shrinking.gguf"), long());
    fs::write(&path, &seed.file).unwrap();
    let (stop, len) = (AtomicBool::new(false), seed.file.len() as u64);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let (mut good, mut bad) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::os::unix::fs::FileExt;
            for round in 0u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                file.set_len(round * 7919 % len).unwrap();
                file.write_all_at(&seed.file, 0).unwrap();
                std::thread::yield_now();
            }
        });
        // The other thread has to come to its turn; then about every second try meets a short file.
        while (good < 20 || bad < 20) && good + bad < 50_000 {
            match Model::open(&path) {
                Ok(model) => {
                    assert_eq!(model.spec().layers, 2);
                    good += 1;
                }
                Err(error) => {
                    assert!(matches!(error, ModelError::Format(_) | ModelError::NonFinite { .. }), "{error}");
                    bad += 1;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("hostile: a shrinking file: {good} times a model, {bad} times an error");
    assert!(good > 0 && bad > 0);
    fs::remove_file(path).unwrap();
}
