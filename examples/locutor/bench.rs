//! `bench`: the speed of prompt processing and decoding.

use crate::Failure;
use crate::limits::{LimitOptions, default_threads};
use crate::options::ModelOptions;
use clap::Args;
use locutor::sample::Sampler;
use locutor::session::{Budget, Session};
use serde_json::json;
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
    /// Tokens in the context before either test.
    #[arg(short, default_value_t = 0, value_name = "DEPTH")]
    d: usize,
    /// Runs, after one to warm up.
    #[arg(short, default_value_t = 5, value_name = "R")]
    r: usize,
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
        let context = (arguments.d + p.max(n + 1)).max(arguments.limits.context);
        let mut session = model.session(arguments.limits.limits(threads)?.context(context))?;
        session.set_ignore_end(true);
        let vocab = model.spec().vocab;
        if p > 0 {
            let speeds = repeat(arguments.r, || read(&mut session, arguments.d, &ids(p, vocab)))?;
            report(&format!("pp{p}"), threads, &speeds, &session, &name, arguments);
        }
        if n > 0 {
            let speeds = repeat(arguments.r, || decode(&mut session, arguments.d, n))?;
            report(&format!("tg{n}"), threads, &speeds, &session, &name, arguments);
        }
    }
    Ok(())
}

/// Runs a test once to warm up, then `runs` times; its speeds, ascending.
fn repeat(runs: usize, mut test: impl FnMut() -> Result<f64, Failure>) -> Result<Vec<f64>, Failure> {
    test()?;
    let mut speeds: Vec<f64> = (0..runs.max(1)).map(|_| test()).collect::<Result<_, _>>()?;
    speeds.sort_by(f64::total_cmp);
    Ok(speeds)
}

/// Brings the session to `depth` tokens.
fn prepare(session: &mut Session<'_>, depth: usize) -> Result<(), Failure> {
    if session.tokens().len() < depth {
        session.truncate(0)?;
        let vocab = session.model().spec().vocab;
        session.feed_tokens(&ids(depth, vocab))?;
        session.advance(Budget::Unlimited)?;
    }
    session.truncate(depth)?;
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
    prepare(session, depth)?;
    session.feed_tokens(&[1])?;
    session.advance(Budget::Unlimited)?;
    let mut sampler = Sampler::greedy();
    let start = Instant::now();
    for _ in 0..n {
        session.next_token(&mut sampler)?;
        session.advance(Budget::Unlimited)?;
    }
    Ok(n as f64 / start.elapsed().as_secs_f64())
}

fn report(
    test: &str,
    threads: usize,
    speeds: &[f64],
    session: &Session<'_>,
    model: &str,
    arguments: &Arguments,
) {
    let (median, min, max) = (speeds[speeds.len() / 2], speeds[0], speeds[speeds.len() - 1]);
    let isa = session.kernels().name;
    let test = if arguments.d > 0 { format!("{test}@d{}", arguments.d) } else { test.to_string() };
    if arguments.json {
        let line = json!({
            "test": test, "threads": threads, "tokens_per_s_median": median, "tokens_per_s_min": min,
            "tokens_per_s_max": max, "runs": speeds.len(), "isa": isa, "model": model,
        });
        println!("{line}");
    } else {
        println!(
            "{model}  {isa}  {threads} thread(s)  {test:>10}  {median:9.1} tokens/s  ({min:.1} to {max:.1})"
        );
    }
}
