//! `logits`: run ids and show logits.

use crate::Failure;
use crate::limits::RunOptions;
use crate::options::ModelOptions;
use clap::Args;
use locutor::sample::{Candidate, top};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    run: RunOptions,
    /// Token ids, separated by commas.
    #[arg(long, value_delimiter = ',', required = true, value_name = "ID,...")]
    ids: Vec<u32>,
    /// Show the logits of every position, not of the last alone.
    #[arg(long)]
    all: bool,
    /// Show the K largest logits.
    #[arg(long, default_value_t = 10, value_name = "K")]
    top: usize,
    /// One JSON object a position: {"position": N, "top": [[id, logit], ...]}.
    #[arg(long)]
    json: bool,
    /// Write whole rows to a file as little-endian 32-bit floats instead.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    raw: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let model = arguments.model.open()?;
    let rows = if arguments.all { 16 } else { 1 };
    let mut limits = arguments.run.limits()?.logits(rows);
    if arguments.run.limits.context == 0 && !arguments.run.limits.forgets() {
        limits = limits.context(arguments.ids.len());
    }
    let mut session = model.session(limits)?;
    let mut candidates = vec![Candidate::default(); model.spec().vocab];
    let mut raw = arguments.raw.as_ref().map(|path| File::create(path).map(BufWriter::new)).transpose()?;
    let mut failure: Result<(), Failure> = Ok(());
    let mut show = |position: usize, row: &[f32]| {
        if failure.is_ok() {
            failure = match &mut raw {
                Some(file) => write_row(file, row),
                None => print_row(position, row, arguments, &mut candidates),
            };
        }
    };
    if arguments.all {
        session.feed_with_logits(&arguments.ids, &mut show)?;
    } else {
        session.feed_tokens(&arguments.ids)?;
        session.advance(locutor::session::Budget::Unlimited)?;
        show(arguments.ids.len() - 1, session.logits().unwrap_or_default());
    }
    failure?;
    if let Some(mut file) = raw {
        file.flush()?;
    }
    Ok(())
}

fn write_row(file: &mut impl Write, row: &[f32]) -> Result<(), Failure> {
    let bytes: Vec<u8> = row.iter().flat_map(|logit| logit.to_le_bytes()).collect();
    Ok(file.write_all(&bytes)?)
}

fn print_row(
    position: usize,
    row: &[f32],
    arguments: &Arguments,
    candidates: &mut [Candidate],
) -> Result<(), Failure> {
    let best = top(row, arguments.top, candidates)?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let best: Vec<(u32, f32)> = best.iter().map(|best| (best.id, best.logit)).collect();
        return Ok(writeln!(out, "{}", json!({"position": position, "top": best}))?);
    }
    let best: Vec<String> = best.iter().map(|best| format!("{}:{:.4}", best.id, best.logit)).collect();
    Ok(writeln!(out, "{position}\t{}", best.join(" "))?)
}
