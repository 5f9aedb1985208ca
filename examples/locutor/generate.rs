//! `generate`: continue a prompt.

use crate::Failure;
use crate::options::{ModelOptions, RunOptions, SamplingOptions, TextOptions};
use clap::Args;
use locutor::session::{Budget, Finish, Session};
use std::io::Write;
use std::time::{Duration, Instant};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    pub(crate) sampling: SamplingOptions,
    #[command(flatten)]
    prompt: TextOptions,
    /// Generate at most N tokens [default: until the end of the text or of the context].
    #[arg(short, value_name = "N")]
    n: Option<usize>,
    /// Go on after a token that ends a text.
    #[arg(long)]
    ignore_eos: bool,
    /// Stop before this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Print the continuation alone.
    #[arg(long)]
    no_echo: bool,
    /// Print token ids, on one line, instead of text.
    #[arg(long)]
    ids: bool,
    /// No statistics on stderr.
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let model = arguments.model.open()?;
    let prompt = arguments.prompt.read()?;
    let (mut sampler, seed) = arguments.sampling.sampler()?;
    let longest = arguments.stop.iter().map(String::len).max().unwrap_or(0);
    let limits = arguments.run.limits()?.text_bytes(prompt.len().max(1)).stops(arguments.stop.len(), longest);
    let mut session = model.session(limits)?;
    let stops: Vec<&str> = arguments.stop.iter().map(String::as_str).collect();
    session.set_stops(&stops)?;
    session.set_max_tokens(arguments.n);
    session.set_ignore_end(arguments.ignore_eos);
    session.feed_markup(&prompt)?;
    let prompt_tokens = session.tokens().len();

    let start = Instant::now();
    session.advance(Budget::Unlimited)?;
    let read = start.elapsed();
    let mut out = std::io::stdout().lock();
    if !arguments.no_echo && !arguments.ids {
        out.write_all(prompt.as_bytes())?;
        out.flush()?;
    }
    let start = Instant::now();
    if arguments.ids {
        generate_ids(&mut session, &mut sampler, arguments.no_echo, &mut out)?;
    } else {
        generate_text(&mut session, &mut sampler, &mut out)?;
    }
    if !arguments.quiet {
        let generated = session.tokens().len() - prompt_tokens;
        statistics(&session, (prompt_tokens, read), (generated, start.elapsed()), seed);
    }
    Ok(())
}

/// Streams the continuation; a full context ends it like a limit, with a warning.
fn generate_text(
    session: &mut Session<'_>,
    sampler: &mut locutor::sample::Sampler<'_>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    loop {
        match session.next_piece(sampler) {
            Ok(Some(piece)) => {
                out.write_all(piece.as_bytes())?;
                out.flush()?;
            }
            Ok(None) => break,
            Err(error @ locutor::session::Error::ContextFull { .. }) => {
                eprintln!("\nlocutor: {error}");
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(writeln!(out)?)
}

fn generate_ids(
    session: &mut Session<'_>,
    sampler: &mut locutor::sample::Sampler<'_>,
    no_echo: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let given = session.tokens().len();
    loop {
        match session.next_token(sampler) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error @ locutor::session::Error::ContextFull { .. }) => {
                eprintln!("locutor: {error}");
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let shown = &session.tokens()[if no_echo { given } else { 0 }..];
    let ids: Vec<String> = shown.iter().map(u32::to_string).collect();
    Ok(writeln!(out, "{}", ids.join(" "))?)
}

fn statistics(
    session: &Session<'_>,
    (prompt, read): (usize, Duration),
    (generated, wrote): (usize, Duration),
    seed: Option<u64>,
) {
    let speed = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    let why = match session.finish() {
        Some(Finish::EndOfText(id)) => format!("end of text (token {id})"),
        Some(Finish::Stop) => "stop string".into(),
        Some(Finish::MaxTokens) => "length".into(),
        None => "context full".into(),
    };
    eprintln!(
        "\n[prompt {prompt} tokens, {:.0} tokens/s; generated {generated}, {:.1} tokens/s; {why}; {}{}]",
        speed(prompt, read),
        speed(generated, wrote),
        session.kernels().name,
        seed.map_or(String::new(), |seed| format!("; seed {seed}")),
    );
}
