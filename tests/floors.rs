//! The house rules that a compiler does not know: who imports whom, where `unsafe` and instruction sets may stand, how
//! long a file may be. Every checker is a function of a file's text, and is itself tested on a text that breaks the rule.

#[path = "floors/checks.rs"]
mod checks;
#[path = "floors/lexer.rs"]
mod lexer;

use checks::*;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `directory` whose name ends in `.rs`: their path from the root, with `/`, and their text.
fn sources(directory: &str) -> Vec<(String, String)> {
    let mut open = vec![root().join(directory)];
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((relative(&path), fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no source in {directory}");
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/")
}

/// Applies `check` to every file of `directories` and fails with all findings.
fn every(directories: &[&str], check: impl Fn(&str, &str) -> Vec<String>) {
    let mut findings = Vec::new();
    for directory in directories.iter().filter(|d| root().join(d).exists()) {
        for (path, text) in sources(directory) {
            findings.extend(check(&path, &text));
        }
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn no_module_imports_upward_or_sideways() {
    every(&["src"], imports);
}

#[test]
fn every_module_has_a_floor() {
    let names = fs::read_dir(root().join("src")).unwrap().map(|e| PathBuf::from(e.unwrap().file_name()));
    for name in names {
        let stem = name.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(stem == "lib" || floor(&stem).is_some(), "src/{stem} has no floor in tests/floors/checks.rs");
    }
}

#[test]
fn unsafe_stands_only_in_its_files() {
    every(&["src", "ffi/src"], unsafe_files);
    let examples: Vec<_> =
        sources("examples").into_iter().filter(|(p, _)| !p.starts_with("examples/no_std/")).collect();
    let findings: Vec<_> = examples.iter().flat_map(|(path, text)| unsafe_files(path, text)).collect();
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    every(&["src", "ffi", "examples", "fuzz", "tests"], safety_lines);
}

#[test]
fn files_are_short() {
    every(&["src", "ffi/src", "examples", "fuzz"], length);
}

#[test]
fn nothing_is_left_to_do() {
    every(&["src", "ffi", "examples", "fuzz", "tests"], stubs);
}

#[test]
fn instruction_sets_stay_below_the_seam() {
    every(&["src"], instruction_sets);
}

#[test]
fn what_runs_without_an_operating_system_stays_so() {
    every(&["src"], system_crates);
}

#[test]
fn no_tracked_file_names_a_machine() {
    let listed = std::process::Command::new("git").arg("ls-files").current_dir(root()).output();
    let files: Vec<PathBuf> = match listed {
        Ok(listed) if listed.status.success() && !listed.stdout.is_empty() => {
            String::from_utf8(listed.stdout).unwrap().lines().map(|line| root().join(line)).collect()
        }
        // Not a clone: the sources at least.
        _ => ["src", "tests"].into_iter().flat_map(sources).map(|(path, _)| root().join(path)).collect(),
    };
    let mut findings = Vec::new();
    for path in files.iter().filter(|path| path.extension().is_none_or(|e| e != "lock")) {
        // Binary files are none of this test's business, nor are files that were deleted but not yet committed.
        let Ok(text) = fs::read_to_string(path) else { continue };
        findings.extend(machine_paths(&relative(path), &text));
    }
    assert!(findings.is_empty(), "{findings:#?}");
}
