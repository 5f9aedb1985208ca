//! Every family against the ids that Hugging Face `tokenizers` and `sentencepiece` find for tens of thousands of texts.
//!
//! The files come from `tools/tokenizer_reference.py`; without them the test says so and passes. More families are held
//! against the few dozen texts that come with llama.cpp's vocabularies, from `tools/reference.sh vocabs`.

use locutor::format::{Gguf, gguf};
use locutor::mem::{Arena, Plan};
use locutor::text::{Specials, Tokenizer};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where `tools/reference.sh` puts everything.
fn reference() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let cache = || std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from);
    std::env::var_os("LOCUTOR_REFERENCE").map_or_else(|| cache().join("locutor"), PathBuf::from)
}

/// The tokenizer of a file. What it borrows goes to `file` and `memory`.
fn open<'m>(path: &Path, file: &'m mut Vec<u8>, memory: &'m mut Vec<u8>) -> Tokenizer<'m> {
    *file = std::fs::read(path).unwrap();
    let file_len = file.len() as u64;
    let header: &'m [u8] = file;
    let counts = gguf::scan(header, file_len).unwrap();
    let mut plan = Plan::new();
    let gguf_slots = Gguf::plan(&counts, &mut plan).unwrap();
    let slots = Tokenizer::plan(&counts, &mut plan).unwrap();
    *memory = vec![0u8; plan.bytes() + 64];
    let skip = memory.as_ptr().align_offset(64);
    let mut arena = Arena::new(&mut memory[skip..], &plan).unwrap();
    let gguf = Gguf::read(header, file_len, &mut arena, &gguf_slots).unwrap();
    Tokenizer::load(&gguf, &mut arena, &slots).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The ids under `key`; `special` is left out where it is the same as `plain`.
fn ids(record: &Value, key: &str) -> Vec<u32> {
    record
        .get(key)
        .unwrap_or(&record["plain"])
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

/// Compares all texts of a family; returns how many there are, or `None` without its files.
fn compare(family: &str) -> Option<usize> {
    let directory = reference().join("tokenizers");
    let records = std::fs::read_to_string(directory.join(family).with_extension("jsonl")).ok();
    let model = directory.join(family).with_extension("gguf");
    let Some(records) = records.filter(|_| model.exists()) else {
        println!("{family}: skipped, no reference files; tools/tokenizer_reference.py makes them");
        return None;
    };
    let (mut file, mut memory) = (Vec::new(), Vec::new());
    let tokenizer = open(&model, &mut file, &mut memory);
    let mut differences = Vec::new();
    for line in records.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let text = record["text"].as_str().unwrap();
        for (key, specials) in [("plain", Specials::Plain), ("special", Specials::Parse)] {
            let (got, expected) = (tokenizer.encode_vec(text, specials).unwrap(), ids(&record, key));
            if got != expected {
                differences.push(format!("{key} {text:?}:\n     got {got:?}\nexpected {expected:?}"));
            }
        }
        let expected = record["back"].as_str().unwrap_or(text);
        let back = tokenizer.decode_vec(&ids(&record, "plain")).unwrap();
        let back = String::from_utf8_lossy(&back);
        if back != expected {
            differences.push(format!("back {text:?}:\n     got {back:?}\nexpected {expected:?}"));
        }
    }
    let shown = differences.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{family}: {} differences\n{shown}", differences.len());
    let count = records.lines().count();
    assert!(count >= 20_000, "{family}: only {count} texts");
    Some(count)
}

macro_rules! families {
    ($($test:ident $family:literal),*) => {$(
        #[test]
        fn $test() {
            if let Some(count) = compare($family) {
                println!("{}: {count} texts, no difference", $family);
            }
        }
    )*};
}

families!(gpt2 "gpt-2", llama_bpe "llama-bpe", qwen2 "qwen2", smollm "smollm", llama_spm "llama-spm", gemma3 "gemma3");

/// Compares the texts that come with a vocabulary of llama.cpp: what `transformers` makes of them.
fn compare_few(family: &str) {
    let model = reference().join("vocabs").join(format!("ggml-vocab-{family}.gguf"));
    let read = |kind: &str| std::fs::read_to_string(model.with_extension(format!("gguf.{kind}"))).ok();
    let (Some(texts), Some(ids)) = (read("inp"), read("out")) else {
        println!("{family}: skipped, no vocabulary; `tools/reference.sh vocabs` gets it");
        return;
    };
    let (mut file, mut memory) = (Vec::new(), Vec::new());
    let tokenizer = open(&model, &mut file, &mut memory);
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    assert!(texts.len() >= 40);
    for (text, ids) in texts.iter().zip(ids.lines()) {
        let expected: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode_vec(text, Specials::Plain).unwrap(), expected, "{family}: {text:?}");
    }
    println!("{family}: {} texts, no difference", texts.len());
}

#[test]
fn the_texts_that_come_with_the_vocabularies() {
    let all =
        ["gpt-2", "llama-bpe", "qwen2", "llama-spm", "phi-3", "mpt", "refact", "starcoder", "command-r"];
    all.iter().for_each(|family| compare_few(family));
}

#[test]
fn the_tiny_models_have_tokenizers() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path());
    let mut count = 0;
    for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "gguf")) {
        let (mut file, mut memory) = (Vec::new(), Vec::new());
        let tokenizer = open(&path, &mut file, &mut memory);
        let text = "The quick brown fox";
        let ids = tokenizer.encode_vec(text, Specials::Plain).unwrap();
        // Some have no merges for these words, and SentencePiece puts a blank in front.
        assert!(ids.len() > 1 && ids.len() <= text.len() + 1, "{}: {ids:?}", path.display());
        assert_eq!(tokenizer.decode_vec(&ids).unwrap(), text.as_bytes(), "{}", path.display());
        count += 1;
    }
    assert!(count >= 8);
}
