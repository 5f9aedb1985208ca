//! The tokens that end a text are a claim of the file's, and may be any: what is sampled and is one of them ends the text,
//! and nothing else does.

use crate::gguf_builder::Val;
use crate::seeds::{self, Seed};
use locutor::model::Model;
use locutor::sample::Sampler;
use locutor::session::{Budget, Finish, Limits, Saved, Session, Step};

const PROMPT: [u32; 5] = [3, 7, 11, 2, 19];
const TOKENS: &str = "tokenizer.ggml.tokens";

fn limits() -> Limits {
    Limits::new().context(32).batch(4).text_bytes(64)
}

fn session<'m>(model: &'m Model<'m>) -> Session<'m> {
    let mut session = model.session(limits()).unwrap();
    session.feed_tokens(&PROMPT).unwrap();
    session
}

/// The tokens that a model gives when none ends its text.
fn endless(seed: &Seed, count: usize) -> Vec<u32> {
    let model = Model::from_slice(&seed.file).unwrap();
    let mut session = session(&model);
    session.set_ignore_end(true);
    let mut sampler = Sampler::greedy();
    (0..count).map(|_| session.next_token(&mut sampler).unwrap().unwrap()).collect()
}

/// Steps until the end; what came before it, as tokens of the session.
fn run(session: &mut Session<'_>) -> (Finish, Vec<u32>) {
    let mut sampler = Sampler::greedy();
    for _ in 0..1000 {
        if let Step::Done(why) = session.step(Budget::Units(50), &mut sampler).unwrap() {
            return (why, session.tokens()[PROMPT.len()..].to_vec());
        }
    }
    panic!("no end");
}

/// A seed in which no token ends a text by its own spelling, so that numbers alone decide.
fn nameless(seed: &Seed) -> Seed {
    let index = seed.kv_index(TOKENS);
    let Val::Array(kind, texts) = seed.build.kv[index].1.clone() else { panic!("no list") };
    let texts = texts.into_iter().enumerate().map(|(id, text)| match &text {
        Val::Str(bytes) if bytes.starts_with(b"<|") || bytes == b"</s>" => Val::str(&format!("<name {id}>")),
        _ => text,
    });
    seed.with(TOKENS, Val::Array(kind, texts.collect()))
}

#[test]
fn a_sampled_token_that_ends_a_text_ends_it() {
    for seed in seeds::all() {
        let seed = nameless(&seed);
        let expected = endless(&seed, 8);
        let last = expected[5];
        // It may come earlier as well.
        let until = expected.iter().position(|id| *id == last).unwrap();
        for name in ["eos", "eot", "eom"] {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let elsewhere = (0..24).find(|id| !expected.contains(id)).unwrap();
            let seed =
                seed.with("tokenizer.ggml.eos_token_id", Val::U32(elsewhere)).with(&key, Val::U32(last));
            let model = Model::from_slice(&seed.file).unwrap();
            assert!(model.tokenizer().unwrap().is_end(last), "{} {name}", seed.name);
            let mut session = session(&model);
            let end = Finish::EndOfText(last);
            assert_eq!(run(&mut session), (end, expected[..until].to_vec()), "{} {name}", seed.name);
            // The end stays, whatever is asked, also in a saved state, and until more is fed.
            assert_eq!(session.finish(), Some(end));
            assert_eq!(session.next_token(&mut Sampler::greedy()), Ok(None));
            let mut state = vec![0; session.save_size(Saved::Session, None)];
            session.save(Saved::Session, None, &mut state).unwrap();
            let mut other = model.session(limits()).unwrap();
            other.restore(&state, None).unwrap();
            assert_eq!(other.finish(), Some(end));
            session.feed_tokens(&[last]).unwrap();
            assert_eq!(session.finish(), None);
            session.set_ignore_end(true);
            let next = session.next_token(&mut Sampler::greedy());
            assert_eq!(next, Ok(Some(expected[until + 1])), "{} {name}", seed.name);
        }
    }
}

/// Numbers and texts that name every token an end, or the same one several times.
#[test]
fn any_token_may_be_named_the_end() {
    let names = [
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<EOT>",
        "<end_of_utterance>",
        "<|eom_id|>",
        "<eos>",
        "<turn|>",
        "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
        "[e~[",
        "</s>",
    ];
    for seed in seeds::all() {
        // Every spelling that is known, on ordinary tokens, as far as the vocabulary goes.
        let index = seed.kv_index(TOKENS);
        let Val::Array(kind, texts) = seed.build.kv[index].1.clone() else { panic!("no list") };
        let mut all = seed.clone();
        all.build.kv.retain(|(key, _)| key != b"tokenizer.ggml.merges");
        if seed.build.kv.iter().any(|(key, _)| key == b"tokenizer.ggml.merges") {
            all.build.kv.push(("tokenizer.ggml.merges".into(), Val::strings::<&str>(&[])));
        }
        let mut texts = texts;
        let at = texts.len() - names.len();
        let known: Vec<Vec<u8>> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        for (place, text) in texts.iter_mut().enumerate() {
            let Val::Str(bytes) = text else { panic!("no text") };
            *bytes = match place.checked_sub(at) {
                Some(name) => known[name].clone(),
                None if known.contains(bytes) => format!("<name {place}>").into_bytes(),
                None => bytes.clone(),
            };
        }
        let all = all.of(all.build.clone()).with(TOKENS, Val::Array(kind, texts));
        let model = Model::from_slice(&all.file).unwrap();
        let tokenizer = model.tokenizer().unwrap();
        for id in at as u32..23 {
            assert!(tokenizer.is_end(id), "{} {id}", seed.name);
        }
        assert!(!tokenizer.is_end(24) && !tokenizer.is_end(u32::MAX));
        // The same token for everything: the end, the beginning, what is unknown.
        let first = endless(&seed, 1)[0];
        let mut same = seed.clone();
        for name in ["bos", "eos", "eot", "eom", "unknown", "padding"] {
            same = same.with(&format!("tokenizer.ggml.{name}_token_id"), Val::U32(first));
        }
        let model = Model::from_slice(&same.file).unwrap();
        assert_eq!(run(&mut session(&model)), (Finish::EndOfText(first), vec![]), "{}", seed.name);
        let mut session = model.session(limits()).unwrap();
        session.feed("ab").unwrap();
        session.set_max_tokens(Some(0));
        assert_eq!(
            session.step(Budget::Unlimited, &mut Sampler::greedy()),
            Ok(Step::Done(Finish::MaxTokens))
        );
    }
}
