//! The law of the C ABI: what compilers, linkers and hosts may rely on. Headers in every dialect, calls that are wrong in
//! every way, names and versions of symbols, a program of the first ABI, and what `tools/install.sh` leaves behind.
//! Needs a C and a C++ compiler; uses gcc and clang as well where they are installed.

mod common;

use common::*;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The compiler that is set or usual, and both families by name, as far as they are there.
fn compilers(variable: &str, default: &str, names: [&str; 2]) -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from(compiler(variable, default).get_program())];
    let there = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    all.extend(names.into_iter().filter(there).map(PathBuf::from));
    all
}

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-pedantic", "-Werror"];

#[test]
fn the_headers_compile_in_every_dialect() {
    let twice = |header: &str| {
        format!("#include \"{header}\"\n#include \"{header}\"\nint main(void) {{ return 0; }}\n")
    };
    let check = |compiler: &Path, language: &str, header: &str, standard: &str| {
        let source = scratch(&format!("twice-{header}.txt"));
        fs::write(&source, twice(header)).unwrap();
        let mut command = Command::new(compiler);
        command.args(["-x", language, &format!("-std={standard}"), "-fsyntax-only"]).args(STRICT);
        run(command.arg("-I").arg(root().join("include")).arg(&source));
    };
    for cc in compilers("CC", "cc", ["gcc", "clang"]) {
        for standard in ["c99", "c11", "c17", "c2x"] {
            check(&cc, "c", "locutor.h", standard);
        }
    }
    for cxx in compilers("CXX", "c++", ["g++", "clang++"]) {
        for standard in ["c++11", "c++14", "c++17", "c++20", "c++2b"] {
            check(&cxx, "c++", "locutor.h", standard);
        }
        for standard in ["c++17", "c++20", "c++2b"] {
            check(&cxx, "c++", "locutor.hpp", standard);
        }
    }
}

/// `locutor.hpp` with every function it has, by every compiler, without exceptions and run-time type information.
#[test]
fn the_cpp_header_works() {
    for (number, cxx) in compilers("CXX", "c++", ["g++", "clang++"]).iter().enumerate() {
        for standard in ["c++17", "c++20", "c++2b"] {
            let program = scratch(&format!("raii-{number}-{standard}"));
            let mut command = Command::new(cxx);
            command
                .arg(format!("-std={standard}"))
                .args(["-O1", "-fno-exceptions", "-fno-rtti"])
                .args(STRICT);
            command
                .arg("-I")
                .arg(root().join("include"))
                .arg(root().join("ffi/tests/raii.cpp"))
                .arg(library());
            run(command.args(["-lpthread", "-ldl", "-lm", "-o"]).arg(&program));
            for name in MODELS {
                run(Command::new(&program).arg(root().join(name)));
            }
        }
    }
    let (cpp, test) = (read("include/locutor.hpp"), read("ffi/tests/raii.cpp"));
    for name in symbols() {
        assert!(cpp.contains(&name), "locutor.hpp leaves out {name}");
    }
    assert!(test.contains("locutor.hpp"));
}

/// The program at the head of `locutor.hpp`.
#[test]
fn the_program_in_the_cpp_header_tells_a_story() {
    let header = read("include/locutor.hpp");
    let lines = header.lines().filter_map(|line| {
        line.strip_prefix(" *     ").or(line.strip_prefix(" *").filter(|rest| rest.is_empty()))
    });
    let program: Vec<_> = lines.skip_while(|line| !line.starts_with("#include")).collect();
    let end = program.iter().position(|line| *line == "}").unwrap();
    let source = scratch("header-program.cpp");
    fs::write(&source, program[..=end].join("\n") + "\n").unwrap();
    let program = compile(source.to_str().unwrap(), "c++17");
    let story = run(Command::new(program).current_dir(root().join("examples/model"))).stdout;
    assert!(String::from_utf8(story).unwrap().len() > 100);
}

/// A function of the header: its name, and types and names of its parameters.
struct Function {
    name: String,
    parameters: Vec<(String, String)>,
    gives_status: bool,
}

fn functions() -> Vec<Function> {
    let header = read("include/locutor.h");
    let mut code = String::new();
    let mut rest = header.split_once("extern \"C\" {").unwrap().1;
    while let Some((before, comment)) = rest.split_once("/*") {
        code.push_str(before);
        rest = comment.split_once("*/").unwrap().1;
    }
    code.push_str(rest);
    let lines = code.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ");
    let declarations = lines.split(';').map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let mut functions = Vec::new();
    for declaration in declarations.filter(|part| !part.contains("typedef") && part.ends_with(')')) {
        let (head, parameters) = declaration.trim_end_matches(')').split_once('(').unwrap();
        let at = head.rfind("locutor_").unwrap();
        let parameter = |text: &str| {
            let at = text.rfind(|c: char| !c.is_alphanumeric() && c != '_').unwrap() + 1;
            (text[..at].trim().replace("* *", "**"), text[at..].to_owned())
        };
        let parameters = parameters.split(", ").filter(|text| *text != "void").map(parameter).collect();
        let gives_status = head[..at].trim() == "int32_t";
        functions.push(Function { name: head[at..].to_owned(), parameters, gives_status });
    }
    functions
}

fn symbols() -> Vec<String> {
    read("include/symbols.txt").lines().map(str::to_owned).collect()
}

/// Names of the version script, in order.
fn versioned() -> Vec<String> {
    let map = read("include/locutor.map");
    let names = map.lines().filter_map(|line| line.trim().strip_suffix(';'));
    names.filter(|name| name.starts_with("locutor_")).map(str::to_owned).collect()
}

#[test]
fn the_list_of_symbols_is_the_header() {
    let mut names: Vec<_> = functions().into_iter().map(|function| function.name).collect();
    names.sort();
    assert_eq!(names, symbols());
    assert_eq!(versioned(), symbols());
    assert!(names.len() > 50);
}

/// A valid argument of `misuse.c` for a parameter.
fn argument(function: &Function, index: usize) -> String {
    let (kind, name) = &function.parameters[index];
    let structure =
        kind.trim_start_matches("const ").strip_prefix("locutor_").and_then(|k| k.strip_suffix(" *"));
    let value = match (kind.as_str(), structure) {
        (_, Some("model")) => "model",
        (_, Some("session")) => "session",
        (_, Some(structure)) => return format!("&v.{structure}"),
        ("locutor_model **", _) => "&out_model",
        ("locutor_session **", _) => "&out_session",
        ("size_t *", _) => "&out_size",
        ("int32_t *", _) => "&out_int",
        ("uint64_t *", _) => "&out_long",
        ("double *", _) if name == "sum" => "&out_double",
        ("double *", _) => "doubles",
        ("uint32_t *" | "const uint32_t *", _) => "ids",
        ("const uint32_t **", _) => "&out_tokens",
        ("const float **", _) => "&out_logits",
        ("const char **", _) => "&out_name",
        ("const char *const *", _) => "stops",
        ("const size_t *", _) => "lens",
        ("char *", _) => "buffer",
        ("const char *", _) => "\"a\"",
        ("void *" | "const void *", _) => "memory",
        ("size_t", _) if name == "capacity" || function.parameters[index - 1].0 == "void *" => "16",
        ("size_t", _) => "1",
        ("uint32_t" | "uint64_t" | "int32_t", _) => "0",
        _ => panic!("{}: no value for {kind}{name}", function.name),
    };
    // The caller's memory is large; everything else is small.
    let init = function.name.ends_with("_init") && value == "16";
    (if init { "memory_len" } else { value }).to_owned()
}

/// A call, with one argument replaced.
fn call(function: &Function, replaced: Option<(usize, &str)>) -> String {
    let arguments = (0..function.parameters.len()).map(|index| match replaced {
        Some((at, value)) if at == index => value.to_owned(),
        _ => argument(function, index),
    });
    format!("{}({})", function.name, arguments.collect::<Vec<_>>().join(", "))
}

/// Whether the header allows a pointer to be NULL.
fn may_be_null(function: &Function, name: &str) -> bool {
    let error =
        name == "error" && !matches!(&*function.name, "locutor_error_init" | "locutor_session_get_error");
    error || matches!(name, "budget" | "added" | "each")
}

fn is_initialiser(function: &Function) -> bool {
    function.parameters.len() == 2 && function.parameters[1].1 == "size"
}

/// The part of `misuse.c` that is made from the header; how many calls there are of each kind.
fn misuse() -> (String, [usize; 4]) {
    let (mut nulls, mut inits, mut sizes, mut within) =
        (String::new(), String::new(), String::new(), String::new());
    let mut counts = [0; 4];
    for function in functions() {
        let is_pointer = |index: &usize| function.parameters[*index].0.ends_with('*');
        let pointers: Vec<_> = (0..function.parameters.len()).filter(is_pointer).collect();
        if !function.gives_status {
            if !pointers.is_empty() {
                writeln!(nulls, "    {}(NULL);", function.name).unwrap();
                counts[0] += 1;
            }
            continue;
        }
        if is_initialiser(&function) {
            let name = function.parameters[0].0.trim_end_matches(" *");
            writeln!(inits, "    INITIALISER({name}, {});", function.name).unwrap();
            counts[1] += 1;
            continue;
        }
        for &index in &pointers {
            let (kind, name) = &function.parameters[index];
            let wrong = call(&function, Some((index, "NULL")));
            let optional = may_be_null(&function, name);
            writeln!(nulls, "    prepare();").unwrap();
            if optional {
                writeln!(nulls, "    CHECK({wrong} != LOCUTOR_ERR_ARGUMENT);\n    clear();").unwrap();
            } else {
                writeln!(nulls, "    STATUS(LOCUTOR_ERR_ARGUMENT, {wrong});\n    CHECK(untouched());")
                    .unwrap();
            }
            counts[0] += 1;
            let structure = kind.trim_start_matches("const ").trim_end_matches(" *");
            let sized = !kind.ends_with("**") && structure.starts_with("locutor_");
            if sized
                && !matches!(structure, "locutor_model" | "locutor_session")
                && !(optional && name == "error")
            {
                let field = structure.trim_start_matches("locutor_");
                let spacious = call(&function, Some((index, "(void *)space")));
                let direct = call(&function, None);
                let reads = kind.starts_with("const ");
                writeln!(
                    sizes,
                    "    STRUCTURE({structure}, v.{field}, {}, {direct}, {spacious});",
                    i32::from(reads)
                )
                .unwrap();
                counts[2] += 1;
            }
        }
        let of_session = function.parameters.first().is_some_and(|(kind, _)| kind == "locutor_session *");
        if of_session {
            writeln!(within, "    STATUS(LOCUTOR_ERR_BUSY, {});", call(&function, None)).unwrap();
            counts[3] += 1;
        }
    }
    let text = format!(
        "{MACROS}\nstatic void null_pointers(void) {{\n{nulls}}}\n\nstatic void initialisers(void) {{\n{inits}}}\n\n\
         static void structure_sizes(void) {{\n{sizes}}}\n\nstatic void from_within(void) {{\n{within}}}\n"
    );
    (text, counts)
}

const MACROS: &str = r"
#define INITIALISER(type, init)                                                                                        \
    do {                                                                                                               \
        size_t wrong;                                                                                                  \
        memset(space, 0x5a, sizeof space);                                                                             \
        STATUS(LOCUTOR_ERR_ARGUMENT, init(NULL, sizeof(type)));                                                        \
        for (wrong = 0; wrong < N_WRONG_SIZES; wrong++)                                                                \
            STATUS(LOCUTOR_ERR_STRUCT_SIZE, init((type *)(void *)space, wrong_sizes[wrong]));                          \
        STATUS(LOCUTOR_ERR_STRUCT_SIZE, init((type *)(void *)space, sizeof(type) - 1));                                \
        CHECK(behind_is(0, 0x5a));                                                                                     \
        OK(init((type *)(void *)space, sizeof(type) + BEHIND));                                                        \
        CHECK(behind_is(sizeof(type), 0));                                                                             \
    } while (0)

/* reads: whether the structure is an input; else it is filled. */
#define STRUCTURE(type, value, reads, direct, spacious_call)                                                           \
    do {                                                                                                               \
        int32_t plain;                                                                                                 \
        size_t wrong;                                                                                                  \
        prepare();                                                                                                     \
        plain = direct;                                                                                                \
        clear();                                                                                                       \
        for (wrong = 0; wrong <= N_WRONG_SIZES; wrong++) {                                                             \
            prepare();                                                                                                 \
            spacious(&value, sizeof(type), wrong < N_WRONG_SIZES ? wrong_sizes[wrong] : sizeof(type) - 1, 0);          \
            STATUS(LOCUTOR_ERR_STRUCT_SIZE, spacious_call);                                                            \
            CHECK(untouched());                                                                                        \
        }                                                                                                              \
        prepare();                                                                                                     \
        spacious(&value, sizeof(type), sizeof(type) + BEHIND, 0);                                                      \
        STATUS(plain, spacious_call);                                                                                  \
        clear();                                                                                                       \
        CHECK(*(uint32_t *)(void *)space == sizeof(type) + BEHIND && behind_is(sizeof(type), 0));                      \
        prepare();                                                                                                     \
        spacious(&value, sizeof(type), sizeof(type) + BEHIND, 0x5a);                                                   \
        STATUS(reads ? LOCUTOR_ERR_STRUCT_SIZE : plain, spacious_call);                                                \
        clear();                                                                                                       \
        CHECK(behind_is(sizeof(type), 0x5a));                                                                          \
    } while (0)
";

#[test]
fn wrong_calls_answer_as_promised() {
    let (text, [nulls, inits, sizes, within]) = misuse();
    assert!(nulls > 90 && inits == 8 && sizes >= 12 && within > 25, "{nulls} {inits} {sizes} {within}");
    fs::write(scratch("misuse.inc"), text).unwrap();
    let program = compile_with("ffi/tests/misuse.c", "gnu99", &[format!("-I{}", scratch("").display())]);
    for name in MODELS {
        run(Command::new(&program).arg(root().join(name)));
    }
}

/// What `tools/install.sh` makes of the static library.
fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = scratch("prefix").canonicalize().unwrap_or_else(|_| scratch("prefix"));
        let _ = fs::remove_dir_all(&prefix);
        let mut install = Command::new(root().join("tools/install.sh"));
        run(install.env_remove("DESTDIR").env("LOCUTOR_ARCHIVE", library()).arg(&prefix));
        prefix
    })
}

fn shared() -> PathBuf {
    installed().join("lib/liblocutor.so").canonicalize().unwrap()
}

/// The number of `LOCUTOR_ABI`.
fn abi() -> String {
    let header = read("include/locutor.h");
    let line = header.lines().find_map(|line| line.strip_prefix("#define LOCUTOR_ABI "));
    line.unwrap().to_owned()
}

fn dynamic_section(library: &Path) -> String {
    let shown = run(Command::new("readelf").args(["-d", "-W"]).arg(library));
    String::from_utf8(shown.stdout).unwrap()
}

/// Neither what is installed nor what cargo makes needs anything but the system's C library.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn the_shared_library_needs_the_c_library_alone() {
    for library in [shared(), library().with_extension("so")] {
        let dynamic = dynamic_section(&library);
        let needed: Vec<_> = dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect();
        assert!(!needed.is_empty(), "{dynamic}");
        for line in needed {
            // All of these are the C library, which is in several files.
            let of_libc = ["[libc.so", "[libm.so", "[libpthread.so", "[libdl.so", "[ld-linux", "[ld64.so"];
            assert!(of_libc.iter().any(|name| line.contains(name)), "{}: {line}", library.display());
        }
    }
}

/// Nothing but the header's functions is visible, each with its version.
#[test]
#[cfg(target_os = "linux")]
fn the_shared_library_shows_the_header_alone() {
    let listed = run(Command::new("nm").args(["-D", "--defined-only"]).arg(shared()));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let names: BTreeSet<_> = listed.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    let node = format!("LOCUTOR_{}", abi());
    let mut expected: BTreeSet<_> = symbols().iter().map(|name| format!("{name}@@{node}")).collect();
    expected.insert(node.clone());
    // Newer tools show the node itself as `NODE@@NODE`.
    let names: BTreeSet<_> = names
        .into_iter()
        .map(|name| if name.starts_with(&node) { node.clone() } else { name.to_owned() })
        .collect();
    assert_eq!(names, expected);
    let dynamic = dynamic_section(&shared());
    assert!(dynamic.contains(&format!("[liblocutor.so.{}]", abi())), "{dynamic}");
    assert!(!dynamic.contains("TEXTREL") && !dynamic.contains("RPATH") && !dynamic.contains("RUNPATH"));
}

/// The text of a program with the shared library.
fn says(program: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env("LD_LIBRARY_PATH", installed().join("lib")).current_dir(root());
    String::from_utf8(run(&mut command).stdout).unwrap()
}

const STORY: [&str; 7] = ["-m", "examples/model/story.gguf", "-n", "20", "--seed", "1", "Once"];

#[test]
#[cfg(target_os = "linux")]
fn programs_find_what_is_installed() {
    let plain = says(&compile("examples/generate.c", "c99"), &STORY);
    assert!(plain.len() > 20);
    if Command::new("pkg-config").arg("--version").output().is_ok() {
        let flags = run(Command::new("pkg-config")
            .args(["--cflags", "--libs", "locutor"])
            .env("PKG_CONFIG_PATH", installed().join("lib/pkgconfig")));
        let flags = String::from_utf8(flags.stdout).unwrap();
        let program = scratch("generate-pkg-config");
        let mut cc = compiler("CC", "cc");
        run(cc
            .arg(root().join("examples/generate.c"))
            .args(flags.split_whitespace())
            .arg("-o")
            .arg(&program));
        assert_eq!(says(&program, &STORY), plain);
    }
    if Command::new("cmake").arg("--version").output().is_ok() {
        let build = scratch("cmake-build");
        let _ = fs::remove_dir_all(&build);
        let mut configure = Command::new("cmake");
        configure.arg("-S").arg(root().join("examples/cmake")).arg("-B").arg(&build);
        run(configure.arg(format!("-DCMAKE_PREFIX_PATH={}", installed().display())));
        run(Command::new("cmake").arg("--build").arg(&build));
        assert_eq!(says(&build.join("generate"), &STORY), plain);
        let loops = ["-m", "examples/model/story.gguf", "--no-sleep", "--frames", "2"];
        run(Command::new(build.join("frame_loop")).args(loops).current_dir(root()));
    }
}

/// A program that was compiled against the first header runs with today's library, as it did.
#[test]
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn a_program_of_the_first_abi_still_runs() {
    let program = scratch("frozen");
    let mut cc = compiler("CC", "cc");
    cc.args(["-std=c99", "-I"]).arg(root().join("ffi/tests/frozen")).args(STRICT);
    cc.arg(root().join("ffi/tests/frozen/program.c")).arg("-L").arg(installed().join("lib")).arg("-llocutor");
    run(cc.arg("-o").arg(&program));
    let story = says(&program, &["examples/model/story.gguf"]);
    assert_eq!(story, read("ffi/tests/frozen/story.txt"));
    // Its structures and functions are all still there.
    let frozen = read("ffi/tests/frozen/locutor.h");
    let number = frozen.lines().find_map(|line| line.strip_prefix("#define LOCUTOR_ABI ")).unwrap();
    assert_eq!(number, abi(), "a new ABI: freeze a new header and program");
}

/// Two copies in one process, by name spaces of the loader and by symbols with a prefix, tell the same stories.
#[test]
#[cfg(target_os = "linux")]
fn two_copies_live_side_by_side() {
    let rename = scratch("renamed.txt");
    fs::write(&rename, symbols().iter().map(|name| format!("{name} other_{name}\n")).collect::<String>())
        .unwrap();
    let (partial, renamed) = (scratch("one-object.o"), scratch("renamed.o"));
    // One object in which only the header's functions are visible, under other names.
    run(Command::new("ld")
        .args(["-r", "--force-group-allocation", "--whole-archive"])
        .arg(library())
        .arg("-o")
        .arg(&partial));
    let mut objcopy = Command::new("objcopy");
    objcopy.arg("--keep-global-symbols").arg(root().join("include/symbols.txt"));
    run(objcopy.arg(&partial).arg(&renamed));
    run(Command::new("objcopy").arg("--redefine-syms").arg(&rename).arg(&renamed));
    let program = scratch("two_copies");
    let mut cc = compiler("CC", "cc");
    cc.args(["-std=gnu99", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-I"]).arg(root().join("include"));
    cc.arg(root().join("ffi/tests/two_copies.c")).arg(library()).arg(&renamed);
    run(cc.args(["-lgcc_s", "-lpthread", "-ldl", "-lm", "-o"]).arg(&program));
    let mut command = Command::new(&program);
    let output = run(command.arg(root().join(MODELS[0])).arg(shared()));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "4 copies, one story\n");
}

/// Each function has its description, and the words of the conventions stand where they are true.
#[test]
fn every_function_says_what_it_does() {
    let header = read("include/locutor.h");
    let mut comment = String::new();
    let mut described = Vec::new();
    let (mut inside, mut documented) = (false, false);
    for line in header.split_once("extern \"C\" {").unwrap().1.lines() {
        if line.starts_with("/*") {
            (comment, inside) = (String::new(), true);
        }
        if inside {
            comment.push_str(line);
            (inside, documented) = (!line.contains("*/"), true);
        } else if line.is_empty() {
            documented = false;
        } else if line.starts_with(|c: char| c.is_ascii_lowercase()) && !line.starts_with("typedef") {
            let name =
                line.split_once('(').map(|(head, _)| head.rsplit([' ', '*']).next().unwrap().to_owned());
            described.extend(name.map(|name| (name, documented.then(|| comment.clone()))));
        }
    }
    assert_eq!(described.len(), symbols().len());
    let allocates = ["model_create", "model_tokenize", "model_detokenize", "session_create"];
    let blocks = [
        "model_create",
        "session_create",
        "session_destroy",
        "session_step",
        "session_step_token",
        "session_advance",
        "session_log_prob",
    ];
    for (name, text) in described {
        let short = name.strip_prefix("locutor_").unwrap();
        // What initialises a structure is described once, in the conventions.
        let Some(text) = text else {
            assert!(name.ends_with("_init"), "{name} has no description");
            continue;
        };
        assert_eq!(text.contains("Allocates"), allocates.contains(&short), "{name}: allocates?");
        assert_eq!(text.contains("Blocks:"), blocks.contains(&short), "{name}: blocks?");
        assert_eq!(text.contains("signal handlers too"), short == "session_cancel", "{name}: signals?");
    }
}

/// The stack that the header promises is enough, for everything from opening a file on.
#[test]
#[cfg(all(target_os = "linux", not(debug_assertions)))]
fn little_stack_is_enough() {
    let program = compile("ffi/tests/stack.c", "gnu99");
    for name in MODELS {
        let output = run(Command::new(&program).arg(root().join(name)));
        let most: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        assert!((1024..48 << 10).contains(&most), "{name}: {most} bytes of stack");
    }
}
