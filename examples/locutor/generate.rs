//! `generate`: continue a prompt.

use crate::Failure;
use crate::limits::RunOptions;
use crate::options::{EndOptions, ModelOptions, TextOptions, prompt_ids};
use crate::progress::{check_room, read_prompt};
use crate::sampling::SamplingOptions;
use clap::Args;
use locutor::exec::CancelFlag;
use locutor::sample::Sampler;
use locutor::session::{Budget, Error, Finish, Session, Step};
use std::io::Write;
use std::path::PathBuf;
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
    /// Save where the text is when it ends, however it ends, Ctrl-C included. What could still become another character
    /// or a stop text is not shown: it comes when the text goes on.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Go on from a saved text, with the prompt behind it, its stop texts and its way of sampling; sampling options that
    /// are given replace saved ones.
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
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

/// Set by Ctrl-C where something is to be saved.
static CANCEL: CancelFlag = CancelFlag::new();

/// Why a text ends.
#[derive(Clone, Copy)]
enum End {
    Finish(Finish),
    ContextFull,
    Interrupted,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let model = arguments.model.open()?;
    let tokenizer = model.tokenizer().ok_or(Error::NoTokenizer)?;
    let prompt = arguments.prompt.read()?;
    let (mut session, mut sampler) = (session(&model, arguments)?, arguments.sampling.sampler()?);
    if let Some(path) = &arguments.load {
        let state = crate::saved::read(path)?;
        if crate::conversation::is_conversation(&state) {
            return Err(
                format!("{}: a saved conversation; chat --load goes on with it", path.display()).into()
            );
        }
        crate::saved::restore(&mut session, &mut sampler, path, (&state, 0))?;
        sampler = arguments.sampling.over(&sampler)?;
    }
    arguments.end.apply(&mut session)?;
    let ids = prompt_ids(tokenizer, &prompt, session.position() == 0)?;
    if !arguments.run.limits.forgets() {
        check_room(&session, &ids)?;
    }
    if ids.is_empty() {
        open_again(&mut session, arguments)?;
    }
    if arguments.save.is_some() {
        session.set_cancel(Some(&CANCEL));
        ctrlc::set_handler(|| CANCEL.cancel())?;
    }
    let written = write(&mut session, &mut sampler, (&prompt, &ids), arguments);
    // A text that nobody reads any more is saved nevertheless.
    if let Some(path) = &arguments.save {
        let bytes = crate::saved::save(&mut session, &sampler, path, &[])?;
        if !arguments.quiet {
            eprintln!("[saved {} tokens in {bytes} bytes: {}]", session.position(), path.display());
        }
    }
    written
}

/// An empty session.
fn session<'m>(model: &'m locutor::Model<'m>, arguments: &Arguments) -> Result<Session<'m>, Failure> {
    let limits = arguments.run.limits()?.text_bytes(1);
    let limits = match (&arguments.save, &arguments.load) {
        (None, None) => arguments.end.limits(limits),
        (save, _) => arguments.end.limits_of_states(limits, save.is_some())?,
    };
    if let Some(path) = &arguments.save {
        crate::saved::check_target(path)?;
    }
    Ok(model.session(limits)?)
}

/// Lets a saved text go on that ended because of a number of tokens, or of a token that is now treated like any other.
fn open_again(session: &mut Session<'_>, arguments: &Arguments) -> Result<(), Failure> {
    let opens = match session.finish() {
        Some(Finish::MaxTokens) => true,
        Some(Finish::EndOfText(_)) => arguments.end.ignore_eos,
        _ => false,
    };
    if let (true, Some(last)) = (opens, session.tokens().last().copied()) {
        session.truncate(session.position() - 1)?;
        session.feed_tokens(&[last])?;
    }
    Ok(())
}

/// Reads the prompt and writes it with its continuation.
fn write(
    session: &mut Session<'_>,
    sampler: &mut Sampler<'_>,
    (prompt, ids): (&str, &[u32]),
    arguments: &Arguments,
) -> Result<(), Failure> {
    let start = Instant::now();
    let is_read = read_prompt(session, ids)?;
    let read = start.elapsed();
    let mut out = std::io::stdout().lock();
    if !arguments.no_echo && !arguments.ids {
        out.write_all(prompt.as_bytes())?;
        out.flush()?;
    }
    let start = Instant::now();
    let mut shown = if arguments.no_echo { Vec::new() } else { ids.to_vec() };
    let before = session.position();
    let end = match is_read {
        true => go_on(session, sampler, arguments, &mut |text, id| {
            shown.extend(id);
            if !arguments.ids {
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
            Ok(())
        })?,
        false => End::Interrupted,
    };
    if arguments.ids {
        let shown: Vec<String> = shown.iter().map(u32::to_string).collect();
        write!(out, "{}", shown.join(" "))?;
    }
    writeln!(out)?;
    if let End::ContextFull = end {
        let context = session.context();
        eprintln!("locutor: the context of {context} tokens is full (see --context and --policy)");
    }
    if !arguments.quiet {
        let generated = session.position() - before;
        statistics(session, (ids.len(), read), (generated, start.elapsed()), (end, sampler));
    }
    Ok(())
}

/// Generates, and shows each token with the text that it makes certain. One call of `step` adds one token at most.
fn go_on(
    session: &mut Session<'_>,
    sampler: &mut Sampler<'_>,
    arguments: &Arguments,
    show: &mut dyn FnMut(&str, Option<u32>) -> Result<(), Failure>,
) -> Result<End, Failure> {
    // A text that is saved must stay open: it ends here, and not in the session.
    let saves = arguments.save.is_some();
    session.set_max_tokens(arguments.n.filter(|_| !saves));
    let first = session.position();
    loop {
        let before = session.position();
        if saves && arguments.n.is_some_and(|n| before - first >= n) {
            return Ok(End::Finish(Finish::MaxTokens));
        }
        if saves && !arguments.run.limits.forgets() && session.room() == 0 {
            return Ok(End::ContextFull);
        }
        let text = match session.step(Budget::Unlimited, sampler) {
            Ok(Step::Piece(text)) => text.to_string(),
            Ok(Step::Token(_) | Step::Pending) => String::new(),
            Ok(Step::Done(finish)) => return Ok(End::Finish(finish)),
            Err(Error::ContextFull { .. }) => return Ok(End::ContextFull),
            Err(Error::Cancelled) => return Ok(End::Interrupted),
            Err(error) => return Err(error.into()),
        };
        let id = session.tokens().last().copied().filter(|_| session.position() > before);
        show(&text, id)?;
    }
}

fn statistics(
    session: &Session<'_>,
    (prompt, read): (usize, Duration),
    (generated, wrote): (usize, Duration),
    (end, sampler): (End, &Sampler<'_>),
) {
    let speed = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    let why = match end {
        End::Finish(Finish::EndOfText(id)) => format!("end of text (token {id})"),
        End::Finish(Finish::Stop) => "stop string".into(),
        End::Finish(Finish::MaxTokens) => "length".into(),
        End::ContextFull => "context full".into(),
        End::Interrupted => "interrupted".into(),
    };
    let params = sampler.params();
    let seed = if params.temperature > 0.0 { format!("; seed {}", params.seed) } else { String::new() };
    eprintln!(
        "\n[prompt {prompt} tokens, {:.0} tokens/s; generated {generated}, {:.1} tokens/s; {why}; {}{seed}]",
        speed(prompt, read),
        speed(generated, wrote),
        session.kernels().name,
    );
}
