//! Saved states, and texts longer than their context.

use super::*;

/// A folder of its own, so that what is left behind can be counted.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A path in a folder of its own.
fn state(name: &str) -> String {
    folder(name).join("saved.state").to_str().unwrap().into()
}

const STATISTICS: &str = "generated ";

/// What stands behind a word of the statistics.
fn number_behind(output: &Output, word: &str) -> usize {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let rest = errors.split(word).nth(1).unwrap_or_else(|| panic!("no `{word}` in: {errors}"));
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn a_saved_text_goes_on_as_if_it_had_never_stopped() {
    let llama = golden("llama-gqa-tied");
    let forgetful = ["-m", &llama, "--context", "96", "--policy"];
    let shift = [&forgetful[..], &["shift"]].concat();
    let slide = [&forgetful[..], &["slide", "--keep", "2"]].concat();
    let cases: [(&str, &[&str], &[&str], usize); 5] = [
        ("greedy", &[], &["--greedy"], 40),
        ("sampled", &[], &["--seed", "5", "--temperature", "1.1", "--repeat-penalty", "1.2"], 40),
        ("learned", &["--context", "64", "--policy", "shift"], &["--seed", "7", "--ignore-eos"], 150),
        ("shift", &shift, &["--seed", "8", "--ignore-eos"], 300),
        ("slide", &slide, &["--greedy", "--ignore-eos"], 300),
    ];
    for (name, session, sampling, n) in cases {
        let prompt = if session.contains(&"-m") { "ab a" } else { PROMPT };
        let path = state(name);
        let ids = |more: &[&str]| parse(&ok(&[&["generate", "--ids", "--no-echo"], session, more].concat()));
        let whole = ids(&[sampling, &["-n", &n.to_string(), prompt]].concat());
        assert_eq!(whole.len(), n, "{name}");
        let first = (n / 3).to_string();
        let mut parts = ids(&[sampling, &["-n", &first, "--save", &path, prompt]].concat());
        assert_eq!(parts.len(), n / 3, "{name}");
        // Once more from the same file to itself, with other threads and another batch.
        parts.extend(ids(&["-n", "9", "-t", "1", "-b", "3", "--load", &path, "--save", &path, ""]));
        parts.extend(ids(&["-n", &(n - n / 3 - 9).to_string(), "--load", &path, ""]));
        assert_eq!(parts, whole, "{name}");
    }
}

#[test]
fn the_text_of_parts_is_the_text_of_the_whole() {
    // Every cut, also within characters and within what could become the stop string.
    let whole = ok(&["generate", "--greedy", "-n", "24", "--no-echo", PROMPT]);
    let stop = whole.split_whitespace().nth(8).unwrap();
    let expected = ok(&["generate", "--greedy", "-n", "24", "--no-echo", "--stop", stop, PROMPT]);
    assert!(expected.len() < whole.len());
    let path = state("text");
    for n in [0, 1, 3, 5, 6, 7, 8, 11] {
        let n = n.to_string();
        let stops = ["--stop", stop];
        let first = [&["generate", "--greedy", "--no-echo", "-n", &n, "--save", &path, PROMPT], &stops[..]];
        let first = ok(&first.concat());
        let rest = ok(&["generate", "--no-echo", "-n", "24", "--load", &path, ""]);
        assert_eq!(format!("{}{rest}", first.strip_suffix('\n').unwrap()), expected, "cut at {n}");
    }
}

#[test]
fn a_warm_start_computes_the_question_alone() {
    let (prompt, question) = ("The sun was up. A small dog ran to the big tree.", " It sat down.");
    let path = state("warm");
    let output = run(&["generate", "-n", "0", "--save", &path, prompt]);
    assert_eq!(number_behind(&output, STATISTICS), 0);
    assert_eq!(stdout(output).trim_end(), prompt);
    let saved = std::fs::read(&path).unwrap();
    for _ in 0..2 {
        let output = run(&["generate", "--greedy", "--no-echo", "-n", "12", "--load", &path, question]);
        assert_eq!(number_behind(&output, "[prompt "), tokens(question).len());
        let warm = stdout(output);
        let joined = format!("{prompt}{question}");
        assert_eq!(warm, ok(&["generate", "--greedy", "--no-echo", "-n", "12", &joined]));
    }
    assert_eq!(std::fs::read(&path).unwrap(), saved, "loading changes nothing");
    // The file is a state of the library, and any program can restore it.
    let model = locutor::Model::from_slice(STORY).unwrap();
    let mut session = model.session(locutor::Limits::new().stops(16, 256)).unwrap();
    session.restore(&saved, None).unwrap();
    let ids = tokens(prompt);
    assert_eq!(session.tokens(), ids);
}

#[test]
fn sampling_is_as_saved_unless_it_is_given() {
    let path = state("sampling");
    ok(&["generate", "-n", "0", "--temperature", "1.3", "--seed", "11", "--save", &path, PROMPT]);
    let load =
        |more: &[&str]| ok(&[&["generate", "--no-echo", "-n", "30", "--load", &path, ""], more].concat());
    let fresh = |more: &[&str]| ok(&[&["generate", "--no-echo", "-n", "30", PROMPT], more].concat());
    assert_eq!(load(&[]), fresh(&["--temperature", "1.3", "--seed", "11"]));
    assert_eq!(load(&["--seed", "12"]), fresh(&["--temperature", "1.3", "--seed", "12"]));
    assert_eq!(load(&["--greedy"]), fresh(&["--greedy"]));
    assert_ne!(load(&[]), load(&["--seed", "12"]));
}

#[test]
fn a_full_context_and_a_stop_string_are_saved_too() {
    let path = state("full");
    let full = ["generate", "--greedy", "--ignore-eos", "--ids", "--context"];
    let output = run(&[&full[..], &["16", "--save", &path, PROMPT]].concat());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the context of 16 tokens is full"));
    let first = parse(&stdout(output));
    assert_eq!(first.len(), 16);
    let rest = parse(&ok(&[&full[..], &["32", "--load", &path, ""]].concat()));
    assert_eq!([first, rest].concat(), parse(&ok(&[&full[..], &["32", PROMPT]].concat())));

    let whole = ok(&["generate", "--greedy", "-n", "40", "--no-echo", PROMPT]);
    let stop = whole.split_whitespace().nth(4).unwrap();
    let output = run(&["generate", "--greedy", "-n", "40", "--stop", stop, "--save", &path, PROMPT]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("stop string"));
    stdout(output);
    // The text has ended; a prompt goes on with it, until it stops once more.
    assert_eq!(ok(&["generate", "--load", &path, ""]), "\n");
    assert!(ok(&["generate", "--load", &path, "-n", "5", " A cat"]).len() > " A cat\n".len());
}

#[test]
fn files_that_are_no_states_are_one_line_and_status_1() {
    let path = state("right");
    ok(&["generate", "-n", "3", "--seed", "1", "--save", &path, PROMPT]);
    let right = std::fs::read(&path).unwrap();
    let load = |name: &str, bytes: &[u8], parts: &[&str]| {
        let path = file(&format!("{name}.state"), bytes);
        fails(&run(&["generate", "--load", &path, ""]), &[&[path.as_str()], parts].concat());
    };
    load("empty", b"", &["damaged or incomplete at byte 0"]);
    load("half", &right[..right.len() / 2], &["damaged or incomplete at byte"]);
    load("longer", &[&right[..], b"x"].concat(), &["damaged or incomplete at byte"]);
    load("model", STORY, &["damaged or incomplete at byte 0"]);
    for at in [0, 9, 30, right.len() / 2, right.len() - 1] {
        let mut bytes = right.clone();
        bytes[at] ^= 4;
        load(&format!("flipped-{at}"), &bytes, &["the saved state"]);
    }
    let other = golden("gpt2-tied");
    fails(&run(&["generate", "-m", &other, "--load", &path, "a"]), &[&path, "bound to another model"]);
    fails(&run(&["generate", "--kv", "f32", "--load", &path, ""]), &[&path, "type of keys and values"]);
    let shift = ["generate", "--policy", "shift", "--load", &path, ""];
    fails(&run(&shift), &[&path, "context policy", "--keep"]);
    fails(&run(&["generate", "--context", "4", "--load", &path, ""]), &[&path, "context is full"]);
    fails(&run(&["generate", "--load", "/no/such.state", ""]), &["/no/such.state"]);
    fails(&run(&["generate", "--load", env!("CARGO_MANIFEST_DIR"), ""]), &["not a regular file"]);
    fails(&run(&["chat", "--load", &path]), &[&path, "no saved conversation"]);
}

#[test]
fn a_target_that_cannot_be_written_is_known_in_advance() {
    let folder = folder("targets");
    let path = folder.to_str().unwrap();
    let nowhere = folder.join("missing").join("a.state");
    let nowhere = nowhere.to_str().unwrap();
    for subcommand in [&["generate", "a"][..], &["chat"]] {
        for (target, part) in [(path, "not a regular file"), (nowhere, "missing")] {
            let output = run(&[subcommand, &["--save", target]].concat());
            fails(&output, &[target, part]);
            assert!(output.stdout.is_empty());
        }
    }
    assert!(names(&folder).is_empty());
}

/// A disk that is full in the middle of a file: the shell limits how long files may become.
#[cfg(unix)]
#[test]
fn a_save_that_fails_leaves_the_old_file_and_nothing_else() {
    let path = state("failing");
    ok(&["generate", "-n", "2", "--save", &path, PROMPT]);
    let old = std::fs::read(&path).unwrap();
    assert!(old.len() > 8192);
    let save = |script: &str| {
        let tool = tool().get_program().to_owned();
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(tool).args(["generate", "-q", "-n", "2", "--save", &path, "A cat"]);
        command.env_remove("LOCUTOR_ISA").output().unwrap()
    };
    // The write fails.
    let output = save("trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"");
    fails(&output, &[&path, "not saved"]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("A cat"));
    assert_eq!(std::fs::read(&path).unwrap(), old);
    let folder = Path::new(&path).parent().unwrap();
    assert_eq!(names(folder), ["saved.state"]);
    // The program is killed while it writes.
    assert_eq!(save("ulimit -f 8; exec \"$0\" \"$@\"").status.code(), None);
    assert_eq!(std::fs::read(&path).unwrap(), old);
    // And with room it is replaced, through a link too.
    let link = folder.join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    ok(&["generate", "-n", "2", "--save", link.to_str().unwrap(), "A cat"]);
    assert_ne!(std::fs::read(&path).unwrap(), old);
    assert!(link.is_symlink());
}

/// Ctrl-C ends the text, and what there is of it is saved.
#[cfg(unix)]
#[test]
fn ctrl_c_saves_what_there_is() {
    let path = state("interrupted");
    let mut command = tool();
    command.args(["generate", "--greedy", "--ignore-eos", "--policy", "shift", "--save", &path, PROMPT]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0; 200]).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    std::io::copy(&mut output, &mut std::io::sink()).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.contains("interrupted"), "{errors}");
    let generated = number_behind(&output, STATISTICS);
    let next = ["generate", "--ids", "--no-echo", "--policy", "shift", "-n", "5", "--load", &path, ""];
    let n = (generated + 5).to_string();
    let whole = ["generate", "--ids", "--no-echo", "--policy", "shift", "--greedy", "--ignore-eos", "-n", &n];
    let whole = parse(&ok(&[&whole[..], &[PROMPT]].concat()));
    assert_eq!(parse(&ok(&next)), whole[generated..]);
}

#[test]
fn policies_go_on_beyond_the_context() {
    let llama = golden("llama-gqa-tied");
    let count = |more: &[&str]| {
        let fixed = ["generate", "--greedy", "--ignore-eos", "--ids", "--no-echo", "-n", "200"];
        parse(&ok(&[&fixed[..], more].concat())).len()
    };
    let model = ["-m", &llama, "--context", "96", "ab a"];
    let given = parse(&ok(&["tokenize", "-m", &llama, "ab a"])).len();
    assert_eq!(count(&[&model[..], &["--policy", "stop"]].concat()), 96 - given);
    assert_eq!(count(&[&model[..], &["--policy", "shift"]].concat()), 200);
    assert_eq!(count(&[&model[..], &["--policy", "slide", "--keep", "8"]].concat()), 200);
    assert_eq!(count(&["--context", "64", "--policy", "shift", "--keep", "16", PROMPT]), 200);
    fails(&run(&["generate", "--policy", "slide", PROMPT]), &["rotary positions only"]);
    fails(&run(&["generate", "--policy", "shift", "--context", "20", PROMPT]), &["context"]);

    // A prompt longer than the context is read by a session that forgets, whatever its batches are.
    let long: String = (0..100).map(|i| format!("Dog {i} ran. ")).collect();
    let hash = |more: &[&str]| {
        ok(&[&["hash", "--greedy", "-n", "4", "--policy", "shift", "--context", "64", &long], more].concat())
    };
    assert_eq!(hash(&["-b", "7", "-t", "1", "--logits", "3"]), hash(&["--decode-threads", "1"]));
    assert_ne!(hash(&[]), hash(&["--keep", "32"]));
    let score = json(&["score", "--json", "--policy", "shift", "--context", "64", &long]);
    assert_eq!((&score["windows"], &score["tokens"]), (&1.into(), &(tokens(&long).len() - 1).into()));
    ok(&["bench", "--policy", "shift", "--context", "64", "-p", "100", "-n", "100", "-r", "1", "--json"]);
}

#[test]
fn chat_goes_on_with_a_saved_conversation() {
    let path = state("chat");
    let options = ["chat", "--seed", "3", "-n", "12", "--template", "chatml"];
    let lines = ["Hello\n", "A cat\n", "It sat\n", "A dog\n"];
    let system = ["--system", "Be kind."];
    let whole = stdout(run_with(&[&options[..], &system].concat(), lines.concat().as_bytes()));
    let first = [&options[..], &system, &["--save", &path]].concat();
    let first = stdout(run_with(&first, lines[..2].concat().as_bytes()));
    // Template, instructions and random numbers are those of the file.
    let load = ["chat", "-n", "12", "--load", &path];
    let output = run_with(&load, lines[2..].concat().as_bytes());
    let new = number_behind(&output, "tokens, ");
    assert!(new < 60 && number_behind(&output, "[") > new, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(format!("{first}{}", stdout(output)), whole);
    assert_eq!(run(&[&load[..], &system].concat()).status.code(), Some(2));

    let right = std::fs::read(&path).unwrap();
    let line = right.iter().position(|byte| *byte == b'\n').unwrap();
    assert!(String::from_utf8_lossy(&right).contains("Be kind."));
    for at in [3, 13, 16, line - 1, line + 5, line + 60, right.len() / 2, right.len() - 1] {
        let mut bytes = right.clone();
        bytes[at] ^= 4;
        let path = file(&format!("chat-{at}"), &bytes);
        fails(&run(&["chat", "--load", &path]), &[&path]);
    }
    let half = file("chat-half", &right[..line + 30]);
    fails(&run(&["chat", "--load", &half]), &[&half, "damaged at byte"]);
    fails(&run(&["generate", "--load", &path, ""]), &[&path, "chat --load"]);
    // Offsets count from the beginning of the file.
    let short = file("chat-short", &right[..right.len() - 1]);
    let output = run(&["chat", "--load", &short]);
    fails(&output, &["damaged or incomplete at byte"]);
    assert!(number_behind(&output, "at byte ") > line);
}

#[test]
fn chat_saves_when_it_is_asked_to_and_when_a_turn_fails() {
    let path = state("chat-save");
    let model = file(
        "alternating.gguf",
        &with_template(
            "{% for message in messages %}{% if message.content == 'boom' %}{{ raise_exception('boom') }}{% endif %}\
         ({{ message.role }}) {{ message.content }} {% endfor %}",
        ),
    );
    let chat = ["chat", "-m", &model, "--greedy", "-n", "5", "--save", &path];
    let output = run_with(&chat, b"Hello\n/save\nboom\n");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(errors.matches("[saved 2 messages").count(), 2, "{errors}");
    fails(&output, &["boom"]);
    let output = run_with(&["chat", "-m", &model, "-n", "5", "--load", &path], b"A cat\n");
    assert!(!stdout(output).is_empty());
    let output = run_with(&["chat", "--greedy", "-n", "1"], b"/save\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--save FILE"));
}

#[test]
fn chat_forgets_tokens_and_goes_on() {
    let many = "The big dog ran to the tree.\n".repeat(14);
    let llama = golden("llama-gqa-tied");
    let cases: [&[&str]; 4] = [
        &[],
        &["--system", "Be kind to all."],
        &["-m", &llama, "--template", "plain"],
        &["-m", &llama, "--template", "plain", "--policy", "slide"],
    ];
    for more in cases {
        let fixed = ["chat", "--seed", "1", "-n", "20", "--context", "160"];
        let output = run_with(&[&fixed[..], more].concat(), many.as_bytes());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(errors.lines().filter(|line| line.contains(" new; ")).count(), 14, "{errors}");
        assert!(errors.contains("forgotten"), "{errors}");
        assert!(!errors.contains("the answer ends here"), "{errors}");
        stdout(output);
    }
    // A context too short to shift.
    stdout(run_with(&["chat", "--greedy", "-n", "3", "--context", "20"], b"A cat\n"));
    assert_eq!(run_with(&["chat", "--policy", "stop", "--keep", "3"], b"").status.code(), Some(2));
}

#[test]
fn bench_compares_sequences_together_and_apart() {
    let text = ok(&["bench", "-p", "32", "-n", "4", "-r", "2", "-t", "1", "--sequences", "3", "--json"]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tests: Vec<&str> = lines.iter().map(|line| line["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["pp32", "tg4", "tg4x3", "tg4x3", "fork32x3", "fork32x3"]);
    assert_eq!((&lines[2]["together"], &lines[3]["together"]), (&true.into(), &false.into()));
    assert!(lines[2]["tokens_per_s_median"].as_f64() > Some(0.0) && lines[3]["sequences"] == 3);
    assert_eq!((&lines[4]["forked"], &lines[5]["forked"]), (&true.into(), &false.into()));
    assert_eq!((&lines[4]["pages"], &lines[5]["pages"]), (&2.into(), &6.into()));
    assert_eq!(lines[4]["kv_bytes"].as_u64().unwrap() * 3, lines[5]["kv_bytes"].as_u64().unwrap());
    assert!(lines[4]["ms_median"].as_f64() > Some(0.0) && lines[4]["forks_alone_us_median"].is_f64());
    // Pages cost what the plan says.
    let plan = json(&["inspect", "--json", "--context", "32", "--sequences", "3"]);
    assert_eq!(plan["plan"]["kv_bytes"], lines[5]["kv_bytes"]);
    let sampled = ok(&["bench", "-p", "8", "-n", "2", "-d", "8", "-r", "1", "--sequences", "2"]);
    assert_eq!(sampled.lines().count(), 6);
    assert_eq!(run(&["bench", "--sequences", "0"]).status.code(), Some(2));
}

#[test]
fn inspect_plans_for_policies_sequences_and_types() {
    let options = ["--context", "128", "--sequences", "3", "--batch", "16", "--threads", "3"];
    let more = ["--kv", "q8_0,f16", "--policy", "shift", "--keep", "20", "--decode-threads", "2"];
    let plan = &json(&[&["inspect", "--json"], &options[..], &more].concat())["plan"];
    let model = locutor::Model::from_slice(STORY).unwrap();
    let limits = locutor::Limits::new().context(128).sequences(3).batch(16).threads(3).decode_threads(2);
    let limits = limits.policy(locutor::ContextPolicy::Shift { keep: 20 });
    let limits = limits.kv_types(locutor::kv::KvType::Q8_0, locutor::kv::KvType::F16);
    let expected = limits.kernels(locutor::kernels::detect()).plan(&model).unwrap();
    assert_eq!(plan["session_bytes"], expected.bytes);
    assert_eq!(plan["kv_bytes"], expected.kv_bytes);
    let shown = [("sequences", 3), ("batch_tokens", 16), ("decode_threads", 2), ("keep_tokens", 20)];
    shown.iter().for_each(|(key, value)| assert_eq!(plan[*key], *value, "{key}"));
    assert_eq!((&plan["policy"], &plan["keys"]), (&"shift".into(), &"q8_0".into()));
    assert!(json(&["inspect", "--json"])["plan"].get("keep_tokens").is_none());
    fails(&run(&["inspect", "--policy", "slide"]), &["rotary positions only"]);
}
