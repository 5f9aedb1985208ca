//! `bench`: the speed of prompt processing and decoding.

mod memory;
mod profile;
mod sequences;

use crate::Failure;
use crate::limits::{LimitOptions, default_threads};
use crate::options::ModelOptions;
use crate::progress::read_prompt;
use clap::Args;
use locutor::sample::Sampler;
use locutor::session::{Budget, Session};
use serde_json::{Value, json};
use std::time::Instant;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    limits: LimitOptions,
    /// Tokens of the prompt; 0 leaves this test out [default: 512, or what the model's context holds].
    #[arg(short, value_name = "P")]
    p: Option<usize>,
    /// Tokens to decode; 0 leaves this test out [default: 128, or what the model's context holds].
    #[arg(short, value_name = "N")]
    n: Option<usize>,
    /// Sequences that decode together and share prompts; more than one adds tests for that.
    #[arg(long, default_value_t = 1, value_name = "S", value_parser = clap::value_parser!(u16).range(1..))]
    sequences: u16,
    /// Tokens in the context before each test of prompts and decoding.
    #[arg(short, default_value_t = 0, value_name = "DEPTH")]
    d: usize,
    /// Runs, after one to warm up.
    #[arg(short, default_value_t = 5, value_name = "R")]
    r: usize,
    /// Adds how fast decoding reads the weights, beside a loop that does nothing else: token and loop in turns. Says
    /// what memory allows where a model is larger than the caches.
    #[arg(long)]
    memory: bool,
    /// Adds where the time goes, phase by phase: from one more run.
    #[arg(long)]
    profile: bool,
    /// One JSON object a test.
    #[arg(long)]
    json: bool,
    /// Numbers of threads, measured one after the other, separated by commas.
    #[arg(short, long, value_delimiter = ',', value_name = "N,...", default_values_t = [default_threads()])]
    threads: Vec<usize>,
}

/// Token ids that spread over the vocabulary and are the same in every run.
fn ids(len: usize, vocab: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * 7919 + 13) % vocab) as u32).collect()
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let model = arguments.model.open()?;
    let name = crate::open::name(arguments.model.model.as_deref());
    let most = model.spec().hard_context().unwrap_or(usize::MAX).saturating_sub(arguments.d);
    let p = arguments.p.unwrap_or(most.min(512));
    let n = arguments.n.unwrap_or(most.saturating_sub(1).min(128));
    for &threads in &arguments.threads {
        let limits = arguments.limits.limits(threads)?.context(context(arguments, p, n));
        let mut session = model.session(limits)?;
        session.set_ignore_end(true);
        let report = Report { threads, isa: session.kernels().name, model: &name, arguments };
        let vocab = model.spec().vocab;
        if p > 0 {
            let speeds = repeat(arguments.r, || read(&mut session, arguments.d, &ids(p, vocab)))?;
            report.speeds(&format!("pp{p}"), &[], &speeds);
            report.profile(&format!("pp{p}"), &mut session, |session| {
                read(session, arguments.d, &ids(p, vocab))
            })?;
        }
        if n > 0 {
            let speeds = repeat(arguments.r, || decode(&mut session, arguments.d, n))?;
            report.speeds(&format!("tg{n}"), &[], &speeds);
            report.profile(&format!("tg{n}"), &mut session, |session| decode(session, arguments.d, n))?;
            if arguments.memory {
                memory::run(&model, &mut session, n, &report)?;
            }
        }
        drop(session);
        if arguments.sequences > 1 {
            sequences::run(&model, limits, (p, n), &report)?;
        }
    }
    Ok(())
}

/// Room for all tests, unless the context is to become full.
fn context(arguments: &Arguments, p: usize, n: usize) -> usize {
    let needed = arguments.d + p.max(n + 1);
    match arguments.limits.context {
        given if given > 0 && arguments.limits.forgets() => given,
        given => given.max(needed),
    }
}

/// Runs a test once to warm up, then `runs` times; its speeds, ascending.
fn repeat(runs: usize, mut test: impl FnMut() -> Result<f64, Failure>) -> Result<Vec<f64>, Failure> {
    test()?;
    let speeds = (0..runs.max(1)).map(|_| test()).collect::<Result<_, _>>()?;
    Ok(ascending(speeds))
}

fn ascending(mut measured: Vec<f64>) -> Vec<f64> {
    measured.sort_by(f64::total_cmp);
    measured
}

/// Brings the session to `depth` tokens.
fn prepare(session: &mut Session<'_>, depth: usize) -> Result<(), Failure> {
    // Going back may be impossible where the context was full.
    if session.position() < depth || session.truncate(depth).is_err() {
        session.truncate(0)?;
        let vocab = session.model().spec().vocab;
        read_prompt(session, &ids(depth, vocab))?;
    }
    Ok(())
}

/// Tokens a second of a prompt.
fn read(session: &mut Session<'_>, depth: usize, ids: &[u32]) -> Result<f64, Failure> {
    prepare(session, depth)?;
    session.feed_tokens(ids)?;
    let start = Instant::now();
    session.advance(Budget::Unlimited)?;
    Ok(ids.len() as f64 / start.elapsed().as_secs_f64())
}

/// Tokens a second of decoding `n` tokens, sampling included.
fn decode(session: &mut Session<'_>, depth: usize, n: usize) -> Result<f64, Failure> {
    let mut sampler = begin(session, depth)?;
    let start = Instant::now();
    for _ in 0..n {
        step(session, &mut sampler)?;
    }
    Ok(n as f64 / start.elapsed().as_secs_f64())
}

/// Brings the session to where decoding begins behind `depth` tokens; with what it goes on.
fn begin(session: &mut Session<'_>, depth: usize) -> Result<Sampler<'static>, Failure> {
    prepare(session, depth)?;
    session.feed_tokens(&[1])?;
    session.advance(Budget::Unlimited)?;
    Ok(Sampler::greedy())
}

/// Decodes a token.
fn step(session: &mut Session<'_>, sampler: &mut Sampler<'_>) -> Result<(), Failure> {
    session.next_token(sampler)?;
    session.advance(Budget::Unlimited)?;
    Ok(())
}

/// What all results of a number of threads have in common.
struct Report<'r> {
    threads: usize,
    isa: &'static str,
    model: &'r str,
    arguments: &'r Arguments,
}

impl Report<'_> {
    /// Shows speeds, ascending; `more` are further keys.
    fn speeds(&self, test: &str, more: &[(&str, Value)], speeds: &[f64]) {
        let depth = self.arguments.d;
        let test = if depth > 0 { format!("{test}@d{depth}") } else { test.to_string() };
        self.show(&test, more, speeds, ("tokens_per_s", "tokens/s"));
    }

    /// Shows measurements, ascending, in a unit as it stands in a key and as people read it.
    fn show(&self, test: &str, more: &[(&str, Value)], measured: &[f64], (key, unit): (&str, &str)) {
        let (median, min, max) = (measured[measured.len() / 2], measured[0], measured[measured.len() - 1]);
        let Report { threads, isa, model, .. } = self;
        if self.arguments.json {
            let mut line = json!({
                "test": test, "threads": threads, "runs": measured.len(), "isa": isa, "model": model,
            });
            for (name, value) in [("median", median), ("min", min), ("max", max)] {
                line[format!("{key}_{name}")] = json!(value);
            }
            more.iter().for_each(|(key, value)| line[*key] = value.clone());
            println!("{line}");
            return;
        }
        let shown = |value: &Value| match value.as_f64().filter(|_| value.is_f64()) {
            Some(number) => format!("{number:.1}"),
            None => value.to_string(),
        };
        let more: Vec<String> = more.iter().map(|(key, value)| format!("  {key} {}", shown(value))).collect();
        println!(
            "{model}  {isa}  {threads} thread(s)  {test:>10}  {median:9.1} {unit}  ({min:.1} to {max:.1}){}",
            more.concat().replace('_', " ")
        );
    }
}
