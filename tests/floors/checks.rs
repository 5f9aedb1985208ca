//! The rules, each a function of one file: its path from the root and its text, to a list of findings.

use crate::lexer::{Token, tokens, without_tests};

/// A module's floor and the modules it may import, beside itself. ARCHITECTURE.md has the same table for people.
pub struct Floor {
    modules: &'static [&'static str],
    imports: &'static [&'static [&'static str]],
}

const GROUND: &[&str] = &["error", "num", "steps", "math", "cpu", "mem", "exec"];

const FLOORS: &[Floor] = &[
    Floor { modules: GROUND, imports: &[GROUND] },
    // The pool is one of many ways to implement `exec`; nothing in the library may need it.
    Floor { modules: &["exec_threads"], imports: &[GROUND] },
    Floor { modules: &["tensor"], imports: &[GROUND] },
    Floor { modules: &["format"], imports: &[GROUND, &["tensor"]] },
    Floor { modules: &["kernels"], imports: &[GROUND, &["tensor"]] },
    Floor { modules: &["ops"], imports: &[GROUND, &["tensor", "kernels"]] },
    Floor { modules: &["kv"], imports: &[GROUND, &["tensor", "kernels", "ops"]] },
    Floor { modules: &["model"], imports: &[GROUND, &["tensor", "format", "kernels", "ops", "kv"]] },
    Floor { modules: &["text"], imports: &[GROUND, &["tensor", "format"]] },
    Floor { modules: &["sample"], imports: &[GROUND, &["tensor", "kernels"]] },
    Floor {
        modules: &["session"],
        imports: &[GROUND, &["tensor", "format", "kernels", "ops", "kv", "model", "text", "sample"]],
    },
];

/// Single files that may import one more module, and why.
const DOORS: &[(&str, &str)] = &[
    // A model hands out the tokenizer of its file, and carves it from the same block.
    ("src/model/header.rs", "text"),
    ("src/model/open.rs", "text"),
    ("src/model/error.rs", "text"),
    // With `std`, a session may own a pool.
    ("src/session/mod.rs", "exec_threads"),
    ("src/session/owned.rs", "exec_threads"),
];

/// The floor of a top-level module.
pub fn floor(module: &str) -> Option<&'static Floor> {
    FLOORS.iter().find(|floor| floor.modules.contains(&module))
}

/// `src/text/bpe.rs` to `["text", "bpe"]`; `src/text/mod.rs` to `["text"]`.
fn module_path(path: &str) -> Vec<&str> {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    let inner = inner.strip_suffix(".rs").unwrap_or(inner);
    inner.strip_suffix("/mod").unwrap_or(inner).split('/').collect()
}

/// Files that are a `#[cfg(test)]` module as a whole, by their name.
fn test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.contains("/testkit")
}

/// Paths through `crate::` and `super::` that leave the module for one that it may not import.
pub fn imports(path: &str, text: &str) -> Vec<String> {
    let module = module_path(path);
    if module == ["lib"] || test_file(path) {
        return Vec::new();
    }
    let Some(floor) = floor(module[0]) else {
        return vec![format!("{path}: module {} has no floor", module[0])];
    };
    let mut findings = Vec::new();
    for (line, target) in paths_from_root(&module, &without_tests(&tokens(text))) {
        if target == module[0]
            || DOORS.contains(&(path, target))
            || floor.imports.iter().any(|group| group.contains(&target))
        {
            continue;
        }
        findings.push(format!("{path}:{line}: `{}` may not import `{target}`", module[0]));
    }
    findings
}

/// First segments below the crate's root of all paths that begin with `crate` or with enough `super`s.
fn paths_from_root<'s>(module: &[&str], tokens: &[Token<'s>]) -> Vec<(usize, &'s str)> {
    let mut found = Vec::new();
    // Inline modules around the token: the brace depth at which each began.
    let (mut inline, mut depth) = (Vec::new(), 0);
    for (i, token) in tokens.iter().enumerate() {
        let before = i.checked_sub(1).map_or("", |i| tokens[i].text);
        match token.text {
            "{" => {
                depth += 1;
                if i >= 2 && tokens[i - 2].text == "mod" {
                    inline.push(depth);
                }
            }
            "}" => {
                if inline.last() == Some(&depth) {
                    inline.pop();
                }
                depth -= 1;
            }
            "crate" if before != "(" || tokens.get(i + 1).is_some_and(|t| t.text == "::") => {
                heads(&tokens[i + 1..], &mut found);
            }
            "super" if before != "::" => {
                let run = tokens[i..]
                    .chunks(2)
                    .take_while(|c| matches!(c, [s, c] if s.text == "super" && c.text == "::"));
                let supers = run.count();
                if supers >= module.len() + inline.len() {
                    heads(&tokens[i + 2 * supers - 1..], &mut found);
                }
            }
            _ => {}
        }
    }
    found
}

/// The names that follow a `::`: one word, or all first words of a braced list.
fn heads<'s>(rest: &[Token<'s>], found: &mut Vec<(usize, &'s str)>) {
    match rest {
        [colons, brace, inside @ ..] if colons.text == "::" && brace.text == "{" => {
            let (mut depth, mut first) = (1, true);
            for token in inside {
                match token.text {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    "," if depth == 1 => first = true,
                    name if depth == 1 && first => {
                        found.push((token.line, name));
                        first = false;
                    }
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
        }
        [colons, name, ..] if colons.text == "::" => found.push((name.line, name.text)),
        _ => {}
    }
}

/// Files and folders that may hold `unsafe`.
const UNSAFE: &[&str] = &[
    "src/kernels/x86/",
    "src/kernels/aarch64/",
    "src/kernels/wasm32/",
    "src/kernels/vector/mod.rs",
    "src/kernels/mod.rs",
    "src/kernels/gemm.rs",
    "src/kernels/rows/abreast.rs",
    "src/mem/aligned.rs",
    "src/mem/split.rs",
    "src/format/mmap.rs",
    "src/exec_threads.rs",
    // Objects that keep the block they borrow from.
    "src/model/owned.rs",
    "src/session/owned.rs",
    "ffi/src/handle.rs",
    // The tool maps files when its user asks for that.
    "examples/locutor/open.rs",
    // Linear memory that grows, and the one thread.
    "examples/wasm/src/machine.rs",
];

/// `unsafe` in a file that is not on the list. In `ffi/`, exported functions are declared `unsafe extern "C" fn`, and
/// so are callbacks; that is a signature, not a use, and may stand anywhere.
pub fn unsafe_files(path: &str, text: &str) -> Vec<String> {
    if UNSAFE.iter().any(|allowed| path.starts_with(allowed)) {
        return Vec::new();
    }
    let tokens = tokens(text);
    let uses = tokens.iter().enumerate().filter(|(i, token)| {
        let after = |n: usize| tokens.get(i + n).map_or("", |t| t.text);
        let signature = path.starts_with("ffi/") && after(1) == "extern" && after(2) == "fn";
        let attribute = after(1) == "(" && *i >= 1 && tokens[i - 1].text == "[";
        token.text == "unsafe" && !signature && !attribute
    });
    uses.map(|(_, token)| format!("{path}:{}: `unsafe` is not allowed in this file", token.line)).collect()
}

/// Unsafe blocks and impls without a comment that says `SAFETY:`, on their line or right above their statement. Clippy
/// asks the same, but only of code that is compiled on the machine at hand.
pub fn safety_lines(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let tokens = tokens(text);
    let blocks = tokens.windows(2).filter(|w| w[0].text == "unsafe" && matches!(w[1].text, "{" | "impl"));
    let bare = blocks.map(|w| w[0].line).filter(|&line| {
        if lines[line - 1].contains("SAFETY:") {
            return false;
        }
        for above in lines[..line - 1].iter().rev() {
            if above.contains("SAFETY:") {
                return false;
            }
            let comment = above.starts_with("//") || above.starts_with("#[");
            if !comment && (above.is_empty() || above.ends_with([';', '{', '}'])) {
                break;
            }
        }
        true
    });
    bare.map(|line| format!("{path}:{line}: unsafe without a SAFETY line")).collect()
}

/// Longest file, in lines outside of tests.
const LINES: usize = 600;

/// Files that read straight down and would not get clearer in two parts.
const LONG: &[&str] = &[];

/// A file with too many lines before its tests.
pub fn length(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
    if lines > LINES && !LONG.contains(&path) && !test_file(path) {
        return vec![format!("{path}: {lines} lines without tests, {LINES} are the limit")];
    }
    Vec::new()
}

/// Macros that stand for code still to be written, or for a look while writing it.
pub fn stubs(path: &str, text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let calls = tokens
        .windows(2)
        .filter(|w| w[1].text == "!" && matches!(w[0].text, "todo" | "unimplemented" | "dbg"));
    calls.map(|w| format!("{path}:{}: {}!", w[0].line, w[0].text)).collect()
}

/// Words that name an instruction set.
const ISA: &[&str] =
    &["target_arch", "target_feature", "is_x86_feature_detected", "is_aarch64_feature_detected", "asm"];

/// Instruction sets outside of the kernels and the one file that asks the processor.
pub fn instruction_sets(path: &str, text: &str) -> Vec<String> {
    if path.starts_with("src/kernels/") || path == "src/cpu.rs" {
        return Vec::new();
    }
    let tokens = tokens(text);
    let mut findings: Vec<_> =
        tokens.iter().filter(|t| ISA.contains(&t.text)).map(|t| (t.line, t.text)).collect();
    findings.extend(tokens.windows(3).filter_map(|w| match w {
        [krate, colons, arch]
            if colons.text == "::" && arch.text == "arch" && matches!(krate.text, "core" | "std") =>
        {
            Some((arch.line, arch.text))
        }
        _ => None,
    }));
    findings
        .iter()
        .map(|(line, word)| format!("{path}:{line}: `{word}` belongs in kernels/ or cpu"))
        .collect()
}

/// What may name `alloc`, behind its feature: whatever has an owning convenience. Kernels and operations never do.
const ALLOC: &[&str] = &[
    "src/lib.rs",
    "src/mem/aligned.rs",
    "src/exec_threads.rs",
    "src/format/",
    "src/model/",
    "src/text/",
    "src/session/",
];

/// What may name `std`, behind its feature: files, mapping and threads.
const STD: &[&str] = &[
    "src/lib.rs",
    "src/exec_threads.rs",
    "src/format/mmap.rs",
    "src/format/source.rs",
    "src/format/error.rs",
    "src/model/owned.rs",
    // Which instructions there are is the operating system's to say.
    "src/kernels/aarch64/tables.rs",
];

/// Paths into `alloc` and `std` from code that must do without, tests aside.
pub fn system_crates(path: &str, text: &str) -> Vec<String> {
    if test_file(path) {
        return Vec::new();
    }
    let tokens = without_tests(&tokens(text));
    let uses = tokens.iter().enumerate().filter(|(i, token)| {
        let head = *i == 0 || tokens[i - 1].text != "::";
        let followed = tokens.get(i + 1).is_some_and(|t| t.text == "::");
        let allowed = match token.text {
            "alloc" => ALLOC,
            "std" => STD,
            _ => return false,
        };
        head && followed && !allowed.iter().any(|allowed| path.starts_with(allowed))
    });
    uses.map(|(_, t)| format!("{path}:{}: `{}` in a module that does without", t.line, t.text)).collect()
}

/// Absolute paths of somebody's machine.
pub fn machine_paths(path: &str, text: &str) -> Vec<String> {
    const TOPS: [&str; 4] = ["work", "root", "farm", "home"];
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for top in TOPS {
            let name = format!("/{top}/");
            let hit = line.match_indices(&name).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                let after = line[at + name.len()..].chars().next();
                let path_goes_on = before.is_some_and(|c| c.is_alphanumeric() || "_.-})*~".contains(c));
                !path_goes_on && after.is_some_and(|c| c.is_ascii_alphabetic())
            });
            if hit {
                findings.push(format!("{path}:{}: path of a machine ({name})", number + 1));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_upward_sideways_and_hidden_ones_are_found() {
        let up = imports("src/tensor/view.rs", "use crate::mem::Plan;\nuse crate::kernels::Kernels;");
        assert_eq!(up, ["src/tensor/view.rs:2: `tensor` may not import `kernels`"]);
        let bad = [
            ("src/format/gguf.rs", "use crate::{tensor::DType, text::{vocab, bpe}};"),
            ("src/kernels/mod.rs", "fn f() -> crate::model::Spec { }"),
            ("src/text/bpe.rs", "use super::super::model::Spec;"),
            ("src/text/mod.rs", "use super::sample;"),
            ("src/mem/aligned.rs", "mod owned { use super::super::super::ops::x; }"),
            ("src/kv/pages.rs", "use crate::model::plan;"),
            ("src/sample/chain.rs", "use crate::text::Vocab;"),
            ("src/mem/split.rs", "use crate::SomethingAtTheRoot;"),
            ("src/unheard_of.rs", ""),
        ];
        for (path, text) in bad {
            assert_eq!(imports(path, text).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn imports_downward_are_fine() {
        let good = [
            ("src/format/gguf.rs", "use crate::{tensor::{DType, view}, num};"),
            ("src/text/bpe.rs", "use super::super::format::x; use super::vocab; use crate::text::spm;"),
            ("src/mem/aligned.rs", "mod owned { use super::super::ALIGN; } use super::super::num;"),
            (
                "src/ops/norm.rs",
                "// crate::session\n/// [`crate::model`]\npub(crate) fn f() { \"crate::kv\"; }",
            ),
            ("src/ops/rope.rs", "#[cfg(test)] mod tests { use crate::session::x; }"),
        ];
        for (path, text) in good {
            assert_eq!(imports(path, text), [""; 0], "{path}: {text}");
        }
    }

    #[test]
    fn stray_unsafe_is_found() {
        assert_eq!(unsafe_files("src/text/bpe.rs", "fn f() {}\nunsafe fn g() {}").len(), 1);
        assert_eq!(unsafe_files("ffi/src/model.rs", "unsafe { x }").len(), 1);
        assert_eq!(unsafe_files("ffi/src/model.rs", "unsafe impl Send for X {}").len(), 1);
        let export = "#[unsafe(no_mangle)] pub unsafe extern \"C\" fn f(g: unsafe extern \"C\" fn()) {}";
        assert_eq!(unsafe_files("ffi/src/model.rs", export), [""; 0]);
        assert_eq!(unsafe_files("src/model/mod.rs", export).len(), 2);
        assert_eq!(unsafe_files("src/kernels/x86/avx2.rs", "unsafe { x }"), [""; 0]);
        assert_eq!(unsafe_files("src/text/bpe.rs", "#![deny(unsafe_code)] // unsafe"), [""; 0]);
    }

    #[test]
    fn bare_unsafe_is_found() {
        let bare = [
            "fn f() {\n    unsafe { x() }\n}",
            "unsafe impl Send for X {}",
            // One line does not serve two blocks.
            "// SAFETY: a.\nlet a = unsafe { x() };\nlet b = unsafe { x() };",
            "// SAFETY: far away.\n\nunsafe { x() }",
        ];
        for text in bare {
            assert_eq!(safety_lines("f", text).len(), 1, "{text}");
        }
        let good = [
            "// SAFETY: a\n// second line.\nunsafe { x() }",
            "// SAFETY: a.\nlet long_name =\n    unsafe { x() };",
            "// SAFETY: a.\n#[cfg(x)]\nunsafe impl Send for X {}",
            "unsafe { x() } // SAFETY: a.",
            "unsafe fn f() {}",
        ];
        for text in good {
            assert_eq!(safety_lines("f", text), [""; 0], "{text}");
        }
    }

    #[test]
    fn long_files_are_found() {
        assert_eq!(length("src/x.rs", &"x\n".repeat(LINES + 1)).len(), 1);
        assert_eq!(length("src/x.rs", &"x\n".repeat(LINES)).len(), 0);
        let tests = format!("x\n    #[cfg(test)]\n{}", "x\n".repeat(LINES));
        assert_eq!(length("src/x.rs", &tests).len(), 0);
    }

    #[test]
    fn stubs_are_found() {
        assert_eq!(stubs("f", "fn f() { todo!() }\nfn g() { unimplemented!(\"x\") } // todo!").len(), 2);
        assert_eq!(stubs("f", "// unimplemented!\nlet todo = !x;"), [""; 0]);
    }

    #[test]
    fn stray_instruction_sets_are_found() {
        let text = "#[cfg(target_arch = \"x86_64\")] use core::arch::x86_64::*;";
        assert_eq!(instruction_sets("src/ops/norm.rs", text).len(), 2);
        assert_eq!(instruction_sets("src/kernels/x86/avx2.rs", text), [""; 0]);
        assert_eq!(
            instruction_sets("src/ops/norm.rs", "#[cfg(target_endian = \"big\")] // target_arch"),
            [""; 0]
        );
    }

    #[test]
    fn system_crates_are_found() {
        assert_eq!(
            system_crates("src/kernels/mod.rs", "use alloc::vec::Vec; let x = std::mem::take(y);").len(),
            2
        );
        let good = "use super::alloc::x; #[cfg(test)] mod tests { use std::vec::Vec; }";
        assert_eq!(system_crates("src/kernels/mod.rs", good), [""; 0]);
        assert_eq!(system_crates("src/text/bpe.rs", "use alloc::vec::Vec;"), [""; 0]);
        assert_eq!(system_crates("src/text/bpe.rs", "use std::vec::Vec;").len(), 1);
    }

    #[test]
    fn machine_paths_are_found() {
        for top in ["work", "root", "home"] {
            let text = format!("fine\nsee /{top}/somebody for it");
            assert_eq!(machine_paths("f", &text).len(), 1);
        }
        assert_eq!(machine_paths("f", "src/work/x {HOME}/root/x crates.io/home/x"), [""; 0]);
    }
}
