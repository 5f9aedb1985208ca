//! Programs of hosts that talk to the library through C, held to what the Rust interface says. `c_abi.rs` has those that
//! are part of the contract. Needs a C compiler (`CC`; `cc` if not set).
#![cfg(unix)]

use engine::Budget;
use engine::model::Model;
use engine::sample::{Params, Sampler};
use engine::session::{ContextPolicy, Limits, Session, Step};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{words}", output.status);
    output
}

/// `examples/stream.c`, compiled with the line that its head tells, against the static library of this build.
fn stream() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hosts");
        fs::create_dir_all(&scratch).unwrap();
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let (profile, folder) =
            if cfg!(debug_assertions) { ("dev", "debug") } else { ("release", "release") };
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--offline", "--package", "locutor-ffi", "--profile", profile]);
        run(build.arg("--target-dir").arg(target).current_dir(root()));
        let program = scratch.join("stream");
        let mut cc = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
        cc.args(["-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic", "-Werror", "-I"]);
        cc.arg(root().join("include")).arg(root().join("examples/stream.c"));
        cc.arg(target.join(folder).join("liblocutor.a"));
        if cfg!(target_os = "linux") {
            cc.args(["-lpthread", "-ldl"]);
        }
        run(cc.arg("-lm").arg("-o").arg(&program));
        program
    });
    Command::new(program)
}

/// What the program does, in Rust: lines, each with an answer.
struct Expected<'m> {
    session: Session<'m>,
    sampler: Sampler<'static>,
}

impl<'m> Expected<'m> {
    fn new(model: &'m Model<'m>, seed: u64, stops: &[&str], endless: bool) -> Self {
        let limits = Limits::new().text_bytes(4096).policy(ContextPolicy::Shift { keep: 0 });
        let mut session = model.session(limits).unwrap();
        session.set_stops(stops).unwrap();
        session.set_ignore_end(endless);
        Self { session, sampler: Sampler::new(Params { seed, ..Params::default() }).unwrap() }
    }

    /// A line, and at most so many tokens.
    fn answer(&mut self, line: &str, tokens: usize) -> String {
        let mut text = line.to_owned();
        self.session.set_max_tokens(Some(tokens));
        self.session.feed(line).unwrap();
        loop {
            match self.session.step(Budget::Unlimited, &mut self.sampler).unwrap() {
                Step::Piece(piece) => text.push_str(piece),
                Step::Done(_) => return text,
                Step::Token(_) | Step::Pending => {}
            }
        }
    }
}

const LINES: [&str; 2] = ["Once upon a time", " And then a cat"];

#[test]
fn answers_stream_whatever_a_call_computes() {
    for name in ["examples/model/story.gguf", "tests/golden/gemma3.gguf"] {
        let path = root().join(name);
        let says = |units: &str, stops: &[&str]| {
            let mut command = stream();
            command.arg("-m").arg(&path).args(["-n", "60", "--seed", "3", "--units", units]);
            for stop in stops {
                command.args(["--stop", stop]);
            }
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            child
                .stdin
                .take()
                .unwrap()
                .write_all(format!("{}\n{}\n", LINES[0], LINES[1]).as_bytes())
                .unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
        };
        let model = Model::open(&path).unwrap();
        let told = |stops: &[&str]| {
            let mut expected = Expected::new(&model, 3, stops, false);
            LINES.map(|line| expected.answer(line, 60) + "\n").concat()
        };
        let whole = told(&[]);
        let (text, report) = says("7", &[]);
        assert_eq!(text, whole);
        // Sixty tokens take thousands of units; without a bound one call does one token.
        let calls = |report: &str| -> usize {
            let line = report.lines().next().unwrap();
            line.rsplit(" in ").next().unwrap().split(' ').next().unwrap().parse().unwrap()
        };
        let (text, at_once) = says("0", &[]);
        assert_eq!(text, whole);
        assert!(calls(&at_once) <= 61 && calls(&report) > 2 * calls(&at_once), "{report}\n{at_once}");
        // A stop string from the middle of the first answer, across the borders of tokens.
        let rest = &whole[LINES[0].len()..whole.find('\n').unwrap()];
        let middle: String = rest.chars().skip(rest.chars().count() / 2).take(5).collect();
        let (text, report) = says("200", &["no such text", &middle]);
        assert_eq!(text, told(&["no such text", &middle]));
        assert!(report.starts_with("[a stop string: "), "{report}");
    }
}

fn interrupt(child: &Child) {
    run(Command::new("kill").args(["-INT", &child.id().to_string()]));
}

/// Ctrl-C ends an answer at any place, and the text goes on from there as if it had been asked to end there.
#[test]
fn an_interrupted_text_goes_on() {
    let path = root().join("examples/model/story.gguf");
    let mut command = stream();
    command.arg("-m").arg(&path).args(["--endless", "--seed", "5"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut lines, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut reports = BufReader::new(child.stderr.take().unwrap()).lines();
    let model = Model::open(&path).unwrap();
    let mut expected = Expected::new(&model, 5, &[], true);
    for line in LINES {
        writeln!(lines, "{line}").unwrap();
        let mut text = vec![0; line.len() + 100];
        out.read_exact(&mut text).unwrap();
        interrupt(&child);
        let report = reports.next().unwrap().unwrap();
        let tokens = report.strip_prefix("[interrupted: ").unwrap_or_else(|| panic!("{report}"));
        let tokens: usize = tokens.split(' ').next().unwrap().parse().unwrap();
        assert!(tokens > 10, "{report}");
        let answer = expected.answer(line, tokens) + "\n";
        let begun = text.len();
        text.resize(answer.len(), 0);
        out.read_exact(text.get_mut(begun..).unwrap()).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), answer);
    }
    // Between two answers it ends the program.
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(out.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn errors_are_told() {
    let output = stream().args(["-m", "no-such-file.gguf"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot open the file"));
    let output = stream().arg("--loud").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
