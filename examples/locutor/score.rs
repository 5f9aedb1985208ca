//! `score`: how likely a model finds a text.

use crate::Failure;
use crate::limits::RunOptions;
use crate::options::{ModelOptions, TextOptions};
use clap::Args;
use indicatif::ProgressBar;
use locutor::session::Session;
use locutor::text::{Specials, Tokenizer};
use serde_json::json;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    text: TextOptions,
    /// One JSON object: scored tokens, their negative log-likelihood in nats, perplexity.
    #[arg(long)]
    json: bool,
}

/// Rows of logits are kept in at most so much memory.
const LOGITS_BYTES: usize = 16 << 20;
/// Tokens between two steps of the progress bar.
const CHUNK: usize = 256;

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let model = arguments.model.open()?;
    let text = arguments.text.read()?;
    let tokenizer = model.tokenizer().ok_or("the model has no tokenizer")?;
    let ids = tokenizer.encode_vec(&text, Specials::Plain)?;
    let rows = (LOGITS_BYTES / (4 * model.spec().vocab)).max(1);
    let limits = arguments.run.limits()?.logits(rows).text_bytes(1);
    let mut session = model.session(limits)?;
    if session.context() < 2 {
        return Err(format!("a context of {} has no room for a token and its past", session.context()).into());
    }
    let window = if arguments.run.limits.forgets() { usize::MAX } else { session.context() - 1 };
    let score = windows(&mut session, tokenizer, &ids, window)?;
    if score.tokens == 0 {
        return Err(format!("a text of {} tokens: there is nothing to score", ids.len()).into());
    }
    let per_token = score.nats / score.tokens as f64;
    let bits_per_byte = score.nats / std::f64::consts::LN_2 / text.len() as f64;
    if arguments.json {
        let line = json!({
            "tokens": score.tokens, "nll_nats": score.nats, "perplexity": per_token.exp(),
            "nll_nats_per_token": per_token, "bits_per_byte": bits_per_byte, "bytes": text.len(),
            "windows": score.windows, "context_tokens": session.context(),
            "model": crate::open::name(arguments.model.model.as_deref()),
        });
        println!("{line}");
    } else {
        println!("tokens           {}", score.tokens);
        println!("windows          {} of {} tokens", score.windows, session.context());
        println!("log-likelihood   {:.4} nats", -score.nats);
        println!("nats per token   {per_token:.6}");
        println!("bits per byte    {bits_per_byte:.6}");
        println!("perplexity       {:.4}", per_token.exp());
    }
    Ok(())
}

/// A sum over windows.
#[derive(Default)]
struct Score {
    tokens: usize,
    nats: f64,
    windows: usize,
}

/// Scores a text in windows in which so many tokens are scored.
fn windows(
    session: &mut Session<'_>,
    tokenizer: &Tokenizer<'_>,
    ids: &[u32],
    window: usize,
) -> Result<Score, Failure> {
    let bos = tokenizer.ids().bos.filter(|_| tokenizer.add_bos());
    let (first, rest) = match (bos, ids.split_first()) {
        (Some(bos), _) => (bos, ids),
        (None, Some((first, rest))) => (*first, rest),
        (None, None) => (0, ids),
    };
    let bar = crate::progress::bar(rest.len(), "scoring");
    let (mut score, mut before) = (Score::default(), first);
    for window in rest.chunks(window) {
        session.truncate(0)?;
        session.feed_tokens(&[bos.unwrap_or(before)])?;
        score.nats -= one(session, window, &bar)?;
        score.tokens += window.len();
        score.windows += 1;
        before = window.last().copied().unwrap_or(before);
    }
    bar.finish_and_clear();
    Ok(score)
}

/// The log-probability of a window behind what the session has read.
fn one(session: &mut Session<'_>, mut window: &[u32], bar: &ProgressBar) -> Result<f64, Failure> {
    let mut sum = 0.0;
    while !window.is_empty() {
        let (part, rest) = window.split_at(window.len().min(CHUNK).min(session.room()));
        sum += session.log_prob(part, |_| {})?;
        bar.inc(part.len() as u64);
        window = rest;
    }
    Ok(sum)
}
