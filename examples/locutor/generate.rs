//! `generate`: continue a prompt.

use crate::Failure;
use crate::options::{EndOptions, ModelOptions, RunOptions, SamplingOptions, TextOptions};
use clap::Args;
use locutor::session::{Error, Finish, Session};
use std::io::Write;
use std::time::{Duration, Instant};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    sampling: SamplingOptions,
    #[command(flatten)]
    prompt: TextOptions,
    #[command(flatten)]
    end: EndOptions,
    /// Generate at most N tokens [default: until the end of the text or of the context].
    #[arg(short, value_name = "N")]
    n: Option<usize>,
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
    let limits = arguments.run.limits()?.text_bytes(prompt.len().max(1));
    let mut session = model.session(arguments.end.limits(limits))?;
    arguments.end.apply(&mut session)?;
    session.set_max_tokens(arguments.n);
    feed_prompt(&mut session, &prompt)?;
    let prompt_tokens = session.tokens().len();

    let start = Instant::now();
    crate::progress::read_prompt(&mut session, 0)?;
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

/// Feeds a prompt, in which texts of control tokens become these tokens. One that is too long is an error with both
/// lengths.
pub fn feed_prompt(session: &mut Session<'_>, prompt: &str) -> Result<(), Failure> {
    session.feed_markup(prompt).map_err(|error| match error {
        Error::ContextFull { needed, context, .. } => {
            format!("the prompt has {needed} tokens, the context {context} (see --context)").into()
        }
        other => Failure::from(other),
    })?;
    if session.tokens().is_empty() { Err(Error::EmptyPrompt.into()) } else { Ok(()) }
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
            Err(error @ Error::ContextFull { .. }) => {
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
            Err(error @ Error::ContextFull { .. }) => {
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
