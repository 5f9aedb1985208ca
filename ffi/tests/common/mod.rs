//! What the tests of the C side have in common: compilers, the static library, a place for files.
#![allow(dead_code)] // Each test uses its part.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A place for this test's files.
pub fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c_abi");
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

pub fn compiler(variable: &str, default: &str) -> Command {
    Command::new(env::var_os(variable).unwrap_or_else(|| default.into()))
}

/// Builds the static library, once, and says where it is. Cargo builds it for tests only by chance, as no Rust program
/// links it.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--offline", "--package", "locutor-ffi", "--profile", profile]);
        run(build.arg("--target-dir").arg(target).current_dir(root()));
        target.join(if profile == "dev" { "debug" } else { "release" }).join("liblocutor.a")
    })
}

/// Compiles a C program against the static library with the line that its head tells.
pub fn compile(source: &str, standard: &str) -> PathBuf {
    compile_with(source, standard, &[])
}

/// As [`compile`], with more options for the compiler.
pub fn compile_with(source: &str, standard: &str, options: &[String]) -> PathBuf {
    let program = scratch(Path::new(source).file_stem().unwrap().to_str().unwrap());
    let mut cc = if source.ends_with(".cpp") { compiler("CXX", "c++") } else { compiler("CC", "cc") };
    cc.arg(format!("-std={standard}")).args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-I"]);
    cc.arg(root().join("include")).arg(root().join(source)).arg(library());
    if cfg!(target_os = "linux") {
        cc.args(["-lpthread", "-ldl"]);
    }
    run(cc.arg("-lm").args(options).arg("-o").arg(&program));
    program
}

/// A model that tells stories, and models of all families, as small as can be, with weights of no meaning.
pub const MODELS: [&str; 5] = [
    "examples/model/story.gguf",
    "tests/golden/gpt2-tied.gguf",
    "tests/golden/llama-gqa-tied.gguf",
    "tests/golden/llama3-rope.gguf",
    "tests/golden/gemma3.gguf",
];
