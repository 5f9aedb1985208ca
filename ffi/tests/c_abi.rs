//! The C ABI from C: the header's promises one by one, and programs whose text must be that of the Rust interface.
//! Needs a C and a C++ compiler (`CC`, `CXX`; `cc` and `c++` if not set).

mod common;

use common::*;
use engine::model::Model;
use engine::sample::{Params, Sampler};
use engine::session::{Error, Limits};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// `examples/generate.c`.
fn generate() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile("examples/generate.c", "c99"))
}

#[test]
fn the_promises_hold() {
    let program = compile("ffi/tests/contract.c", "gnu99");
    for name in MODELS {
        let (model, pack) = (root().join(name), scratch("pack"));
        let mut bytes = vec![0xEE; 1234];
        bytes.extend(fs::read(&model).unwrap());
        bytes.extend([0xEE; 999]);
        fs::write(&pack, bytes).unwrap();
        run(Command::new(&program).args([model.as_os_str(), pack.as_os_str(), OsStr::new("1234")]));
    }
}

#[test]
fn the_engine_keeps_its_promises() {
    let program = compile("ffi/tests/engine.c", "gnu99");
    for name in MODELS {
        run(Command::new(&program).arg(root().join(name)));
    }
}

/// The kernel ends a process that makes a system call where none may be; see the program's head.
#[test]
#[cfg(target_os = "linux")]
fn ten_thousand_tokens_without_a_system_call() {
    let program = compile("ffi/tests/no_syscalls.c", "gnu99");
    let model = root().join(MODELS[0]);
    let output = run(Command::new(&program).arg(&model));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "10000 tokens\n");
    let notices = Command::new(&program).arg(&model).arg("call").output().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&notices.status);
    assert_eq!(signal, Some(9), "{notices:?}");
}

/// The game loop, on its own thread and on the threads of its job system: the same story.
#[test]
fn the_frame_loop_tells_one_story() {
    let program = compile("examples/frame_loop.cpp", "c++17");
    let says = |options: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("-m").arg(root().join(MODELS[0])).args(["--no-sleep", "--endless", "--frames", "300"]);
        let output = run(command.args(options));
        let report = String::from_utf8(output.stderr).unwrap();
        assert!(report.contains("300 frames") && report.contains("p99"), "{report}");
        String::from_utf8(output.stdout).unwrap()
    };
    // Slices of no time read nothing; longer ones get further in the same story.
    assert_eq!(says(&["--budget-us", "0"]), "Once upon a time\n");
    let (one, three) = (says(&["--budget-us", "2000"]), says(&["--budget-us", "2000", "--threads", "3"]));
    let (one, three) = (one.trim_end(), three.trim_end());
    assert!(one.len() > 40 && three.len() > 40);
    assert!(one.starts_with(three) || three.starts_with(one), "{one}\n{three}");
}

/// An allocator that fails at every call in turn.
#[test]
#[cfg(target_os = "linux")]
fn no_memory_is_a_status() {
    let wrapped = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "free"];
    let options = wrapped.map(|name| format!("-Wl,--wrap={name}"));
    let program = compile_with("ffi/tests/faults.c", "gnu99", &options);
    for name in MODELS {
        run(Command::new(&program).arg(root().join(name)));
    }
}

/// What `generate` prints for a prompt, by the Rust interface.
fn expected(
    model: &Path,
    limits: Limits,
    params: Params<'_>,
    tokens: Option<usize>,
    stops: &[&str],
) -> String {
    const PROMPT: &str = "Once upon a time";
    let model = Model::open(model).unwrap();
    let mut session = model.session(limits).unwrap();
    let mut sampler = Sampler::new(params).unwrap();
    session.set_stops(stops).unwrap();
    session.set_max_tokens(tokens);
    session.feed_markup(PROMPT).unwrap();
    let mut text = PROMPT.to_owned();
    loop {
        match session.next_piece(&mut sampler) {
            Ok(Some(piece)) => text.push_str(piece),
            Ok(None) | Err(Error::ContextFull { .. }) => return text + "\n",
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn the_program_says_what_rust_says() {
    let program = generate();
    for name in MODELS {
        let model = root().join(name);
        let says = |options: &str| {
            let mut command = Command::new(program);
            command.arg("-m").arg(&model).args(options.split_whitespace()).arg("Once upon a time");
            String::from_utf8(run(&mut command).stdout).unwrap()
        };
        // The defaults of the command-line tool.
        let params = Params { temperature: 0.7, min_p: 0.0, ..Params::default() };
        let limits = Limits::new();
        let seeded = Params { seed: 42, ..params };
        assert_eq!(says("-n 40 --seed 42"), expected(&model, limits, seeded, Some(40), &[]));
        assert_eq!(
            says("-n 40 --seed 42 --threads 3 --map"),
            expected(&model, limits, seeded, Some(40), &[])
        );
        let greedy = Params { temperature: 0.0, ..params };
        assert_eq!(says("-n 30 --greedy --isa scalar"), expected(&model, limits, greedy, Some(30), &[]));
        let odd = Params {
            seed: 7,
            temperature: 1.3,
            top_k: 0,
            top_p: 0.9,
            min_p: 0.01,
            repeat_penalty: 1.2,
            ..params
        };
        let options =
            "--seed 7 --temperature 1.3 --top-k 0 --top-p 0.9 --min-p 0.01 --repeat-penalty 1.2 --context 64";
        assert_eq!(says(options), expected(&model, limits.context(64), odd, None, &[]));
        assert_eq!(
            says("-n 60 --stop a --stop b --seed 42"),
            expected(&model, limits, seeded, Some(60), &["a", "b"])
        );
    }
}

#[test]
fn the_program_tells_errors() {
    let program = generate();
    let fails = |arguments: &[&str], code: i32, words: &str| {
        let output = Command::new(program).args(arguments).current_dir(root()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(words), "{text}");
    };
    fails(&[], 2, "usage");
    fails(&["-m"], 2, "usage");
    fails(&["-m", "no-such-file.gguf", "text"], 1, "cannot open the file");
    fails(&["-m", "Cargo.toml", "text"], 1, "GGUF");
    fails(&["-m", "tests/golden/gemma3.gguf", "--temperature", "-1", "text"], 1, "temperature");
    fails(&["-m", "tests/golden/gemma3.gguf", "--temperature", "warm", "text"], 2, "warm");
}

/// The program at the head of the header is what people copy.
#[test]
fn the_program_in_the_header_tells_a_story() {
    let header = fs::read_to_string(root().join("include/locutor.h")).unwrap();
    let lines = header.lines().filter_map(|line| {
        line.strip_prefix(" *     ").or(line.strip_prefix(" *").filter(|rest| rest.is_empty()))
    });
    let program: Vec<_> = lines.skip_while(|line| !line.starts_with("#include")).collect();
    let end = program.iter().position(|line| *line == "}").unwrap();
    let source = scratch("header-program.c");
    fs::write(&source, program[..=end].join("\n") + "\n").unwrap();
    let program = compile(source.to_str().unwrap(), "c99");
    let story = run(Command::new(program).current_dir(root().join("examples/model"))).stdout;
    let limits = Limits::new();
    let params = Params { seed: 42, ..Params::default() };
    let expected = expected(&root().join("examples/model/story.gguf"), limits, params, None, &[]);
    assert_eq!(format!("Once upon a time{}\n", String::from_utf8(story).unwrap()), expected);
}
