//! The command-line tool as its users meet it: every subcommand, every kind of wrong input, with the embedded model and
//! the tiny ones of `tests/golden`. The tool is an example, which a whole `cargo test` builds.
#![cfg(not(miri))]

#[path = "common/gguf_builder.rs"]
mod gguf_builder;
#[path = "cli/states.rs"]
mod states;

use gguf_builder::{Gguf, Val};
use serde_json::Value;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const STORY: &[u8] = include_bytes!("../examples/model/story.gguf");
const PROMPT: &str = "Once upon a time";

/// The tool, next to this test's folder.
fn tool() -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let tool = profile.join("examples").join(format!("locutor{}", std::env::consts::EXE_SUFFIX));
    assert!(tool.exists(), "{} is missing: cargo build --example locutor", tool.display());
    let mut command = Command::new(tool);
    command.env_remove("LOCUTOR_ISA").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    tool().args(arguments).output().unwrap()
}

/// Runs with a text on standard input.
fn run_with(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = tool();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A tool that ends early closes the pipe; what it says about that is looked at by the caller.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Standard output of a run that must succeed.
fn stdout(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn ok(arguments: &[&str]) -> String {
    stdout(run(arguments))
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&ok(arguments)).unwrap()
}

/// Checks that a run fails with status 1 and one line that begins right and has all of `parts`.
fn fails(output: &Output, parts: &[&str]) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let lines: Vec<&str> = errors.lines().filter(|line| !line.starts_with('[')).collect();
    assert_eq!(lines.len(), 1, "{errors}");
    assert!(lines[0].starts_with("locutor: error: "), "{errors}");
    for part in parts {
        assert!(lines[0].contains(part), "`{part}` is not in: {errors}");
    }
}

/// A file for one test.
fn file(name: &str, bytes: &[u8]) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().into()
}

fn golden(name: &str) -> String {
    format!("{}/tests/golden/{name}.gguf", env!("CARGO_MANIFEST_DIR"))
}

fn tokens(text: &str) -> Vec<u32> {
    parse(&ok(&["tokenize", "--no-special", text]))
}

fn parse(line: &str) -> Vec<u32> {
    line.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

#[test]
fn generate_is_reproducible_and_echoes_the_prompt() {
    let greedy = ok(&["generate", "--greedy", "-n", "20", PROMPT]);
    assert!(greedy.starts_with(PROMPT) && greedy.ends_with('\n') && greedy.len() > PROMPT.len() + 20);
    assert_eq!(greedy, ok(&["generate", "--greedy", "-n", "20", PROMPT]));
    let alone = ok(&["generate", "--greedy", "-n", "20", "--no-echo", PROMPT]);
    assert_eq!(greedy, format!("{PROMPT}{alone}"));
    assert_eq!(greedy, stdout(run_with(&["generate", "--greedy", "-n", "20", "-"], PROMPT.as_bytes())));
    let prompt = file("prompt.txt", PROMPT.as_bytes());
    assert_eq!(greedy, ok(&["generate", "--greedy", "-n", "20", "-f", &prompt]));

    let drawn = |seed| ok(&["generate", "-n", "30", "--temperature", "1.2", "--seed", seed, PROMPT]);
    assert_eq!(drawn("7"), drawn("7"));
    assert_ne!(drawn("7"), drawn("8"));
}

#[test]
fn generate_shows_ids() {
    let ids = parse(&ok(&["generate", "--greedy", "-n", "12", "--ids", PROMPT]));
    let given = tokens(PROMPT);
    assert_eq!(ids.len(), given.len() + 12);
    assert_eq!(ids[..given.len()], given);
    let alone = parse(&ok(&["generate", "--greedy", "-n", "12", "--ids", "--no-echo", PROMPT]));
    assert_eq!(ids[given.len()..], alone);
    let words: Vec<String> = ids.iter().map(u32::to_string).collect();
    let mut arguments = vec!["detokenize"];
    arguments.extend(words.iter().map(String::as_str));
    assert_eq!(format!("{}\n", ok(&arguments)), ok(&["generate", "--greedy", "-n", "12", PROMPT]));
}

#[test]
fn generate_stops_before_the_first_of_several_stop_strings() {
    let whole = ok(&["generate", "--greedy", "-n", "40", "--no-echo", PROMPT]);
    let words: Vec<&str> = whole.split_whitespace().filter(|word| word.len() > 4).collect();
    let (early, late) = (words[1], words[3]);
    let cut = ok(&["generate", "--greedy", "-n", "40", "--no-echo", "--stop", late, "--stop", early, PROMPT]);
    let first = [early, late].iter().filter_map(|stop| whole.find(stop)).min().unwrap();
    assert_eq!(cut, format!("{}\n", &whole[..first]));
}

#[test]
fn generate_ends_a_full_context_with_a_warning() {
    let output = run(&["generate", "--greedy", "--ignore-eos", "--context", "16", "--ids", PROMPT]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("the context of 16 tokens is full"), "{errors}");
    assert_eq!(parse(&stdout(output)).len(), 16);
}

#[test]
fn sentencepiece_models_echo_the_prompt_as_it_was_given() {
    for model in ["gemma3", "llama-head", "llama-gqa-tied"] {
        let path = golden(model);
        let text = ok(&["generate", "-m", &path, "--greedy", "-n", "8", "--ignore-eos", "ab a"]);
        assert!(text.starts_with("ab a"), "{model}: {text}");
        assert!(ok(&["inspect", "-m", &path]).contains("architecture"), "{model}");
    }
}

/// One hash for every table, number of threads, batch, and width of the logits.
#[test]
fn hashes_do_not_depend_on_how_they_are_computed() {
    let prompt = "The sun was up. A small dog ran to the big tree and sat down. ".repeat(5);
    let q8 = golden("llama-gqa-tied-q8_0");
    for model in [&[][..], &["-m", &q8]] {
        let hash = |isa: &str, threads: &str, batch: &str, logits: &str| {
            let mut command = tool();
            command.env("LOCUTOR_ISA", isa).arg("hash").args(model).args(["--greedy", "-n", "8"]);
            command.args(["-t", threads, "-b", batch, "--logits", logits, &prompt]);
            stdout(command.output().unwrap())
        };
        let expected = hash("scalar", "1", "64", "16");
        assert_eq!(expected.trim().len(), 16);
        assert!(u64::from_str_radix(expected.trim(), 16).is_ok(), "{expected}");
        for (batch, logits) in [("1", "1"), ("7", "3"), ("64", "64"), ("512", "512")] {
            assert_eq!(hash("scalar", "2", batch, logits), expected, "batch {batch}");
        }
        for table in locutor::kernels::available() {
            for threads in ["1", "2"] {
                assert_eq!(hash(table.name, threads, "64", "16"), expected, "{} {threads}", table.name);
            }
        }
    }
}

#[test]
fn hash_takes_the_options_of_generate() {
    let hash = |n, more: &[&str]| ok(&[&["hash", "--greedy", PROMPT, "-n", n], more].concat());
    let expected = hash("12", &[]);
    assert_eq!(hash("12", &["--no-echo", "--ids", "-q", "--ignore-eos"]), expected);
    assert_ne!(hash("3", &[]), expected);
    // A stop string ends the run where it ends generation.
    let whole = ok(&["generate", "--greedy", "-n", "12", "--no-echo", PROMPT]);
    let stop = whole.split_whitespace().nth(2).unwrap();
    let output = run(&["generate", "--greedy", "-n", "12", "--stop", stop, PROMPT]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let generated = errors.split("generated ").nth(1).unwrap().split(',').next().unwrap();
    assert!(errors.contains("stop string"), "{errors}");
    assert_eq!(hash("12", &["--stop", stop]), hash(generated, &[]));
}

#[test]
fn texts_survive_the_way_to_tokens_and_back() {
    for text in ["Hello world", " two  blanks", "tab\tline\nend\n", "naïve café ☃", "a"] {
        let ids = ok(&["tokenize", "--no-special", text]);
        let words: Vec<&str> = ids.split_whitespace().collect();
        assert_eq!(ok(&[&["detokenize"], &words[..]].concat()), text);
    }
    let lines = file("lines.txt", b"Hello world\n\nA cat\n");
    let ids = ok(&["tokenize", "--lines", "-f", &lines]);
    assert_eq!(ids.lines().count(), 3);
    assert_eq!(parse(ids.lines().next().unwrap()), tokens("Hello world"));
    let strings = file("lines.jsonl", b"\"Hello\\nworld\"\n\"A cat\"\n");
    let ids = file("ids.txt", ok(&["tokenize", "--json-lines", "-f", &strings]).as_bytes());
    assert_eq!(ok(&["detokenize", "--json-lines", "-f", &ids]), "\"Hello\\nworld\"\n\"A cat\"\n");
    let pieces = ok(&["tokenize", "--pieces", "Hello world"]);
    assert_eq!(pieces.lines().count(), tokens("Hello world").len());
    assert!(pieces.contains('"'));
}

#[test]
fn control_texts_are_tokens_unless_they_are_unwanted() {
    let (special, plain) =
        (tokens_of("a<|endoftext|>b", &[]), tokens_of("a<|endoftext|>b", &["--no-special"]));
    assert!(special.contains(&0) && !plain.contains(&0));
}

fn tokens_of(text: &str, more: &[&str]) -> Vec<u32> {
    parse(&ok(&[&["tokenize", text], more].concat()))
}

#[test]
fn logits_of_all_positions_as_json_and_as_a_file() {
    let text = ok(&["logits", "--ids", "5,6,7", "--all", "--top", "4", "--json"]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for (position, line) in lines.iter().enumerate() {
        assert_eq!(line["position"], position);
        let top = line["top"].as_array().unwrap();
        assert_eq!(top.len(), 4);
        assert!(top.windows(2).all(|pair| pair[0][1].as_f64() >= pair[1][1].as_f64()));
    }
    let last = json(&["logits", "--ids", "5,6,7", "--top", "4", "--json"]);
    assert_eq!(last, lines[2]);

    let raw = file("logits.f32", b"");
    ok(&["logits", "--ids", "5,6,7", "--all", "--raw", &raw]);
    let bytes = std::fs::read(&raw).unwrap();
    assert_eq!(bytes.len(), 3 * 2048 * 4);
    let best = last["top"][0][0].as_u64().unwrap() as usize;
    let row: Vec<f32> =
        bytes[2 * 2048 * 4..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert!(row.iter().all(|logit| *logit <= row[best]));
    // As f32: serde_json reads a number to within one step of f64.
    assert_eq!(row[best], last["top"][0][1].as_f64().unwrap() as f32);
}

#[test]
fn scores_are_those_of_the_logits_and_do_not_depend_on_the_batch() {
    let text = "The cat sat on the mat. It was a sunny day, and all the birds sang.";
    let path = file("score.txt", text.as_bytes());
    let ids = tokens(text);
    let score = json(&["score", "-f", &path, "--json"]);
    assert_eq!(score["tokens"], ids.len() - 1);
    let (nats, count) = (score["nll_nats"].as_f64().unwrap(), (ids.len() - 1) as f64);
    assert!((score["perplexity"].as_f64().unwrap() - (nats / count).exp()).abs() < 1e-9);

    // The definition, from the raw logits.
    let raw = file("score.f32", b"");
    let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    ok(&["logits", "--ids", &list, "--all", "--raw", &raw]);
    let logits: Vec<f64> = std::fs::read(&raw)
        .unwrap()
        .chunks_exact(4)
        .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
        .collect();
    let expected: f64 = logits
        .chunks_exact(2048)
        .zip(&ids[1..])
        .map(|(row, id)| row.iter().map(|l| l.exp()).sum::<f64>().ln() - row[*id as usize])
        .sum();
    assert!((nats - expected).abs() < 1e-6 * expected, "{nats} {expected}");

    assert_eq!(json(&["score", "-f", &path, "--json", "-b", "3", "-t", "1"]), score);
    let windows = json(&["score", "-f", &path, "--json", "--context", "5"]);
    assert_eq!(windows["windows"], (ids.len() - 1).div_ceil(4));
    assert_eq!(windows["tokens"], score["tokens"]);
    assert!(windows["nll_nats"].as_f64() > score["nll_nats"].as_f64());
    assert!(ok(&["score", text]).contains("perplexity"));
    // A model that puts a token in front of every text scores the first token, too.
    let gemma = json(&["score", "-m", &golden("gemma3"), "--json", "ab a"]);
    let ids = parse(&ok(&["tokenize", "-m", &golden("gemma3"), "--no-special", "ab a"]));
    assert_eq!(gemma["tokens"], ids.len());
}

#[test]
fn inspect_tells_the_exact_plan() {
    let report = json(&["inspect", "--json", "--context", "64", "--threads", "2", "--tensors"]);
    assert_eq!(report["model"]["architecture"], "gpt2");
    assert_eq!(report["model"]["file_bytes"], STORY.len());
    assert_eq!(report["hyper_parameters"]["vocabulary_tokens"], 2048);
    assert_eq!(report["tokenizer"]["tokens"], 2048);
    let model = locutor::model::Model::from_slice(STORY).unwrap();
    let limits = locutor::session::Limits::new().context(64).threads(2).kernels(locutor::kernels::detect());
    let plan = limits.plan(&model).unwrap();
    let expected = [
        ("context_tokens", 64),
        ("threads", 2),
        ("model_bytes", model.memory_bytes()),
        ("session_bytes", plan.bytes),
        ("kv_bytes", plan.kv_bytes),
        ("logits_bytes", plan.logits_bytes),
        ("scratch_bytes", plan.scratch_bytes),
        ("total_bytes", STORY.len() + model.memory_bytes() + plan.bytes),
    ];
    for (key, value) in expected {
        assert_eq!(report["plan"][key], value, "{key}");
    }
    let tensors = report["tensors"].as_array().unwrap();
    assert_eq!(report["model"]["tensors"], tensors.len());
    let bytes: u64 = tensors.iter().map(|tensor| tensor["bytes"].as_u64().unwrap()).sum();
    let types = report["tensor_types"].as_object().unwrap();
    assert_eq!(bytes, types.values().map(|row| row["bytes"].as_u64().unwrap()).sum::<u64>());
    let table = ok(&["inspect", "--tensors"]);
    assert!(table.contains("token_embd.weight") && table.contains("kv bytes") && table.contains("Q8_0"));
    assert!(json(&["inspect", "--json"]).get("tensors").is_none());
}

#[test]
fn inspect_finds_a_weight_that_is_no_number() {
    let path = golden("llama-gqa-tied-q8_0");
    ok(&["inspect", "--verify", "-m", &path]);
    let report = json(&["inspect", "--json", "--tensors", "-m", &path]);
    let tensors = report["tensors"].as_array().unwrap();
    let blocks = tensors.iter().find(|tensor| tensor["type"] == "Q8_0").unwrap();
    let (name, offset) = (blocks["name"].as_str().unwrap(), blocks["offset"].as_u64().unwrap() + 34);
    let mut bytes = std::fs::read(&path).unwrap();
    // The scale of the second block becomes infinite.
    bytes[offset as usize..][..2].copy_from_slice(&0x7C00u16.to_le_bytes());
    let path = file("infinite.gguf", &bytes);
    ok(&["inspect", "-m", &path]);
    let output = run(&["inspect", "--verify", "-m", &path]);
    fails(&output, &[name, &format!("byte {offset}"), "value 32 is not finite"]);
}

#[test]
fn bench_reports_every_test_with_its_keys() {
    let text = ok(&["bench", "-p", "16", "-n", "8", "-r", "2", "-t", "1,2", "--json"]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tests: Vec<&str> = lines.iter().map(|line| line["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["pp16", "tg8", "pp16", "tg8"]);
    for line in &lines {
        let speed = |key: &str| line[key].as_f64().unwrap();
        assert!(0.0 < speed("tokens_per_s_min") && speed("tokens_per_s_min") <= speed("tokens_per_s_median"));
        assert!(speed("tokens_per_s_median") <= speed("tokens_per_s_max"));
        assert_eq!(line["runs"], 2);
        assert!(line["isa"].is_string() && line["model"].is_string() && line["threads"].is_u64());
    }
    // A share of what a loop reads: both read the same bytes.
    let text = ok(&["bench", "-p", "0", "-n", "8", "-r", "1", "-t", "2", "--memory", "--json"]);
    let line: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!(line["test"], "weights");
    let number = |key: &str| line[key].as_f64().unwrap();
    let share = 100.0 * number("gb_per_s_median") / number("loop_gb_per_s");
    assert!((share / number("percent_of_loop") - 1.0).abs() < 1e-9);
    // All matrices of the story model but its positions: its head is the embedding.
    let text = ok(&["inspect", "--tensors", "--json"]);
    let directory: Value = serde_json::from_str(&text).unwrap();
    let is_read = |tensor: &&Value| {
        tensor["name"] != "position_embd.weight" && tensor["shape"].as_array().unwrap().len() == 2
    };
    let matrices = directory["tensors"].as_array().unwrap().iter().filter(is_read);
    let bytes: u64 = matrices.map(|tensor| tensor["bytes"].as_u64().unwrap()).sum();
    assert_eq!(number("weights_mb"), bytes as f64 / 1e6);
    // Without options the tests fit the context of the embedded model.
    assert_eq!(ok(&["bench", "-r", "1", "--json"]).lines().count(), 2);
}

#[test]
fn chat_answers_and_keeps_its_history_in_the_cache() {
    let output = run_with(&["chat", "--greedy", "-n", "12"], b"Once upon a time\n\nThen a dog came\r\n");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let answers = stdout(output);
    let generate = |text: &str| ok(&["generate", "--greedy", "-n", "12", "--no-echo", text]);
    let first = generate(PROMPT);
    let second = generate(&format!("{PROMPT}{} Then a dog came", first.trim_end_matches('\n')));
    assert_eq!(answers, format!("{first}{second}"));
    // "[N tokens, M new; ...": the second turn computes little more than its own text.
    let counts = |line: &str| -> Vec<usize> {
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).take(2).collect()
    };
    let turns: Vec<Vec<usize>> = errors.lines().filter(|l| l.contains(" new; ")).map(counts).collect();
    assert_eq!(turns.len(), 2, "{errors}");
    assert_eq!(turns[0], [tokens(PROMPT).len(); 2]);
    assert!(turns[1][0] > turns[0][0] + 12 && turns[1][1] < 10, "{errors}");
}

#[test]
fn chat_writes_the_well_known_templates() {
    let chat = |more: &[&str], input: &str| {
        stdout(run_with(&[&["chat", "--greedy", "-n", "10"], more].concat(), input.as_bytes()))
    };
    let generate =
        |stop: &str, text: &str| ok(&["generate", "--greedy", "-n", "10", "--no-echo", "--stop", stop, text]);
    let chatml = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n\
                  <|im_start|>assistant\n";
    let answer = chat(&["--template", "chatml", "--system", "Be kind."], "Hello\n/quit\nnever read\n");
    assert_eq!(answer, generate("<|im_end|>", chatml));
    let gemma = "<|endoftext|><start_of_turn>user\nBe kind.\n\nHello<end_of_turn>\n<start_of_turn>model\n";
    let answer = chat(&["--template", "gemma", "--system", "Be kind."], "Hello");
    assert_eq!(answer, generate("<end_of_turn>", gemma));
    // Forgotten: the same question gets the same answer.
    let twice = chat(&[], "A cat\n/reset\nA cat\n");
    assert_eq!(twice, chat(&[], "A cat\n").repeat(2));
}

/// The story model with a chat template in front of its other metadata.
fn with_template(template: &str) -> Vec<u8> {
    let key = b"tokenizer.chat_template";
    let fixed = 8 + key.len() + 4 + 8 + template.len() + "{##}".len();
    let template = format!("{template}{{#{}#}}", " ".repeat(fixed.next_multiple_of(32) - fixed));
    let pairs = u64::from_le_bytes(STORY[16..24].try_into().unwrap());
    let mut bytes = STORY[..16].to_vec();
    bytes.extend((pairs + 1).to_le_bytes());
    bytes.extend((key.len() as u64).to_le_bytes());
    bytes.extend(key);
    bytes.extend(8u32.to_le_bytes());
    bytes.extend((template.len() as u64).to_le_bytes());
    bytes.extend(template.as_bytes());
    bytes.extend(&STORY[24..]);
    bytes
}

#[test]
fn chat_uses_the_template_of_the_file() {
    let template = "{% for message in messages %}\n    {{ '(' + message['role'] + ') ' + message['content'].strip() }}\n\
                    {% endfor %}\n{% if add_generation_prompt %}\n(bot){% endif %}";
    let model = file("template.gguf", &with_template(template));
    let answer = stdout(run_with(&["chat", "-m", &model, "--greedy", "-n", "9"], b"Hello\n"));
    assert_eq!(answer, ok(&["generate", "--greedy", "-n", "9", "--no-echo", "    (user) Hello\n(bot)"]));

    let model = file("raising.gguf", &with_template("{{ raise_exception('roles must alternate') }}"));
    let output = run_with(&["chat", "-m", &model], b"Hello\n");
    fails(&output, &["tokenizer.chat_template", "roles must alternate"]);
    let model = file("broken.gguf", &with_template("{% for %}"));
    fails(&run_with(&["chat", "-m", &model], b"Hello\n"), &["tokenizer.chat_template"]);
}

#[test]
fn what_a_person_writes_never_becomes_a_control_token() {
    let output = run_with(&["chat", "--greedy", "-n", "4"], b"a <|endoftext|> b\n");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = tokens("a ").len() + tokens("<|endoftext|>").len() + tokens(" b").len();
    assert!(errors.contains(&format!("[{expected} tokens, ")), "{errors}");
    assert_ne!(expected, tokens_of("a <|endoftext|> b", &[]).len());
}

#[test]
fn chat_says_when_the_context_is_full_and_goes_on() {
    let long = format!("{}\nA cat\n", "The dog ran. ".repeat(100));
    let output = run_with(&["chat", "--greedy", "-n", "5"], long.as_bytes());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("it was not sent") && errors.contains("256"), "{errors}");
    assert_eq!(stdout(output), ok(&["generate", "--greedy", "-n", "5", "--no-echo", "A cat"]));

    let many = "The big dog ran to the tree.\n".repeat(12);
    let output =
        run_with(&["chat", "--greedy", "-n", "20", "--context", "96", "--policy", "stop"], many.as_bytes());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("oldest messages are forgotten"), "{errors}");
    assert_eq!(errors.lines().filter(|line| line.contains(" new; ")).count(), 12, "{errors}");
    stdout(output);
}

/// The program outlives Ctrl-C, whether it comes during the answer or just behind it.
#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let mut command = tool();
    command.env("LOCUTOR_ISA", "scalar").args(["chat", "--seed", "1"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    input.write_all(b"Once upon a time\n").unwrap();
    let mut byte = [0];
    output.read_exact(&mut byte).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    input.write_all(b"A cat\n").unwrap();
    drop(input);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{errors}");
    assert!(errors.contains("[stopped]") || errors.contains("leaves"), "{errors}");
    assert_eq!(errors.lines().filter(|line| line.contains(" new; ")).count(), 2, "{errors}");
}

#[test]
fn keys_and_values_are_stored_as_asked_for() {
    let bytes = |kv: &[&str]| {
        let report = json(&[&["inspect", "--json", "--context", "64"], kv].concat());
        report["plan"]["kv_bytes"].as_u64().unwrap()
    };
    let f16 = bytes(&["--kv", "f16"]);
    assert_eq!(bytes(&["--kv", "f32"]), 2 * f16);
    assert_eq!(bytes(&["--kv", "q8_0"]), f16 * 17 / 32);
    assert_eq!(bytes(&["--kv", "q8_0,f16"]), f16 * 17 / 64 + f16 / 2);
    assert_eq!(bytes(&["--kv", "f32,q8_0"]), f16 + f16 * 17 / 64);
    assert_eq!(bytes(&["--kv", "i16"]), bytes(&[]));
    assert!((f16..=f16 * 17 / 16).contains(&bytes(&[])));
    let hash = |kv: &str| ok(&["hash", "--greedy", "-n", "4", "--kv", kv, PROMPT]);
    assert_eq!(hash("q8_0"), hash("q8_0,q8_0"));
    assert_ne!(hash("q8_0,f16"), hash("f16,q8_0"));
    assert_eq!(hash("i16"), ok(&["hash", "--greedy", "-n", "4", PROMPT]));
    for wrong in ["q4_0", "f16,", ",f16", "f16,f32,f16", ""] {
        let output = run(&["hash", "--kv", wrong, PROMPT]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains("--kv"), "{errors}");
    }
}

#[test]
fn wrong_texts_are_one_line_and_status_1() {
    fails(&run(&["generate", ""]), &["the prompt is empty"]);
    fails(&run(&["hash", ""]), &["the prompt is empty"]);
    let long = "The dog ran. ".repeat(100);
    let count = tokens(&long).len().to_string();
    fails(&run(&["generate", &long]), &[&count, "256", "--context"]);
    fails(&run(&["generate", "--context", "20", &long]), &[&count, "20"]);
    let bad = file("bad.txt", b"ab\xffcd");
    for subcommand in ["generate", "tokenize", "score", "hash"] {
        fails(&run(&[subcommand, "-f", &bad]), &["bad.txt", "not UTF-8", "offset 2"]);
        fails(&run_with(&[subcommand, "-"], b"a\xff"), &["standard input", "not UTF-8", "offset 1"]);
    }
    fails(&run_with(&["chat"], b"Hello\na\xff\n"), &["line 2", "not UTF-8", "offset 1"]);
    fails(&run(&["generate", "-f", "/no/such/file"]), &["/no/such/file"]);
    fails(&run(&["score", "a"]), &["1 tokens", "nothing to score"]);
    fails(&run(&["logits", "--ids", "1,99999"]), &["99999", "2048"]);
    fails(&run(&["detokenize", "99999"]), &["99999", "2048"]);
    fails(&run(&["generate", "--context", "300", "a"]), &["300", "256"]);
    fails(&run(&["generate", "--temperature", "-1", "a"]), &["temperature", "-1"]);
    fails(&run(&["generate", "--top-p", "2", "a"]), &["top-p", "2"]);
    fails(
        &tool().env("LOCUTOR_ISA", "abacus").args(["generate", "a"]).output().unwrap(),
        &["abacus", "scalar"],
    );
}

/// The story model with `from` replaced once by `to`, of the same length.
fn patched(from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = STORY.windows(from.len()).position(|window| window == from).unwrap();
    let mut bytes = STORY.to_vec();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn damaged_files_are_named_with_field_and_offset() {
    let long_enough = STORY.len() / 2;
    let unknown_type = Gguf::new()
        .kv("general.architecture", Val::str("gpt2"))
        .tensor("token_embd.weight", &[32, 8], 99, vec![0; 1024])
        .build();
    let cases: [(&str, Vec<u8>, &[&str]); 9] = [
        ("empty", Vec::new(), &["no bytes"]),
        ("magic", patched(b"GGUF", b"GGML"), &["magic number at byte 0", "GGML"]),
        ("version", patched(&STORY[..8], b"GGUF\x09\0\0\0"), &["version at byte 4", "9"]),
        ("header", STORY[..20].to_vec(), &["key-value count at byte 16", "20 bytes"]),
        ("data", STORY[..long_enough].to_vec(), &["tensor data of `", "at byte"]),
        (
            "family",
            patched(b"\x04\0\0\0\0\0\0\0gpt2", b"\x04\0\0\0\0\0\0\0gptX"),
            &["general.architecture", "gptX"],
        ),
        ("tensor", patched(b"output_norm.weight", b"output_norm.wait__"), &["output_norm.weight", "missing"]),
        ("key", patched(b"gpt2.block_count", b"gpt2.block_court"), &["gpt2.block_count", "missing"]),
        ("type", unknown_type, &["token_embd.weight", "at byte", "99"]),
    ];
    for (name, bytes, parts) in cases {
        let path = file(&format!("{name}.gguf"), &bytes);
        for subcommand in ["generate", "inspect", "score"] {
            let text = if subcommand == "inspect" { &[][..] } else { &["a b"] };
            let output = run(&[&[subcommand, "-m", &path], text].concat());
            fails(&output, &[&[path.as_str()], parts].concat());
        }
    }
    fails(&run(&["generate", "-m", "/no/such.gguf", "a"]), &["/no/such.gguf"]);
    fails(&run(&["tokenize", "-m", "/no/such.gguf", "a"]), &["/no/such.gguf"]);
    fails(&run(&["generate", "-m", env!("CARGO_MANIFEST_DIR"), "a"]), &["not a regular file"]);
}

#[test]
fn wrong_usage_is_status_2() {
    let long = "x".repeat(300);
    let cases: [&[&str]; 18] = [
        &[],
        &["sing"],
        &["generate"],
        &["generate", "--stop", "", "a"],
        &["generate", "--greedy", "--temperature", "1", "a"],
        &["generate", "-n", "many", "a"],
        &["generate", "a", "b"],
        &["tokenize", "-f", "x", "text"],
        &["logits"],
        &["logits", "--ids", "1,x"],
        &["detokenize", "-3"],
        &["chat", "--template", "morse"],
        &["generate", "--policy", "jump", "a"],
        &["generate", "--keep", "4", "a"],
        &["score", "--policy", "stop", "--keep", "4", "a"],
        &["generate", "--load", "x"],
        &["generate", "--save", "x.state", "--stop", &long, "a"],
        &["bench", "--sequences", "0"],
    ];
    for arguments in cases {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    for subcommand in
        ["generate", "chat", "tokenize", "detokenize", "logits", "score", "bench", "inspect", "hash"]
    {
        assert!(ok(&[subcommand, "-h"]).contains("Usage: locutor"), "{subcommand}");
    }
}

/// A reader that goes away, such as `head`, is no error.
#[test]
fn a_closed_pipe_is_no_error() {
    let mut command = tool();
    command.args(["generate", "--greedy", PROMPT]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
