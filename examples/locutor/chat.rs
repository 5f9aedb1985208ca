//! `chat`: a conversation. The history stays in the cache of keys and values; each turn computes what is new.

use crate::Failure;
use crate::options::{ModelOptions, RunOptions, SamplingOptions, utf8};
use crate::template::{Known, Message, Template};
use clap::Args;
use locutor::sample::Sampler;
use locutor::session::{Budget, Error, Session, Step};
use std::io::{BufRead, IsTerminal, Write};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    sampling: SamplingOptions,
    /// Answers of at most N tokens [default: until the answer or the context ends].
    #[arg(short, value_name = "N")]
    n: Option<usize>,
    /// Instructions in front of the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// How messages become text [default: the file's template, or the one that fits its vocabulary].
    #[arg(long, value_enum)]
    template: Option<Known>,
    /// No statistics on stderr.
    #[arg(short, long)]
    quiet: bool,
}

/// Whether an answer is being computed, and whether it is to stop.
static ANSWERING: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);
/// Ctrl-C between answers: the first gives a hint, the second leaves.
static IDLE_PRESSES: AtomicU32 = AtomicU32::new(0);
/// Jobs between two looks at `STOP`: some milliseconds.
const UNITS: u64 = 2048;

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let model = arguments.model.open()?;
    let tokenizer = model.tokenizer().ok_or("the model has no tokenizer")?;
    let template = Template::new(tokenizer, arguments.template)?;
    let (sampler, _) = arguments.sampling.sampler()?;
    let mut session = model.session(arguments.run.limits()?.text_bytes(1))?;
    session.set_stops(template.stop.as_slice())?;
    if template.name == "plain" && !arguments.quiet {
        eprintln!("[the model has no chat template: your lines and its answers make one running text]");
    }
    let system = arguments.system.clone().map(|content| Message { role: "system", content });
    let mut chat = Chat { session, template, sampler, messages: system.into_iter().collect(), arguments };
    ctrlc::set_handler(interrupted)?;
    let mut input = std::io::stdin().lock();
    let person = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    for number in 1.. {
        if person {
            eprint!("> ");
        }
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let line = utf8(&format!("standard input, line {number}"), line)?;
        match line.trim() {
            "" => {}
            "/quit" => break,
            "/reset" => chat.messages.retain(|message| message.role == "system"),
            text => chat.turn(text)?,
        }
    }
    Ok(())
}

fn interrupted() {
    if ANSWERING.load(Ordering::Relaxed) {
        STOP.store(true, Ordering::Relaxed);
    } else if IDLE_PRESSES.fetch_add(1, Ordering::Relaxed) == 0 {
        eprintln!("\n[Ctrl-D or /quit leaves, and so does Ctrl-C once more]");
    } else {
        process::exit(130);
    }
}

/// A conversation under way.
struct Chat<'m> {
    session: Session<'m>,
    template: Template<'m>,
    sampler: Sampler<'static>,
    messages: Vec<Message>,
    arguments: &'m Arguments,
}

impl Chat<'_> {
    /// A message and its answer.
    fn turn(&mut self, text: &str) -> Result<(), Failure> {
        self.messages.push(Message { role: "user", content: text.into() });
        let ids = self.fitting()?;
        let context = self.session.context();
        if ids.len() >= context {
            self.messages.pop();
            eprintln!(
                "[this message makes {} tokens, the context has {context}: it was not sent; --context N sets it]",
                ids.len()
            );
            return Ok(());
        }
        let read = self.session.tokens();
        let same = read.iter().zip(&ids).take_while(|(old, new)| old == new).count();
        // At least one token is new, so that a new answer begins.
        let same = same.min(ids.len().saturating_sub(1));
        self.session.truncate(same)?;
        self.session.feed_tokens(&ids[same..])?;
        self.session.set_max_tokens(self.arguments.n);
        ANSWERING.store(true, Ordering::Relaxed);
        let start = Instant::now();
        let answer = self.answer();
        ANSWERING.store(false, Ordering::Relaxed);
        IDLE_PRESSES.store(0, Ordering::Relaxed);
        self.messages.push(Message { role: "assistant", content: answer? });
        if !self.arguments.quiet {
            let (all, new) = (ids.len(), ids.len() - same);
            let generated = self.session.tokens().len() - all;
            let seconds = start.elapsed().as_secs_f64();
            eprintln!("[{all} tokens, {new} new; generated {generated}; {seconds:.1} s]");
        }
        Ok(())
    }

    /// The tokens of the conversation, without its oldest messages when it fills three quarters of the context: then
    /// those are forgotten, until it fills no more than half.
    fn fitting(&mut self) -> Result<Vec<u32>, Failure> {
        let context = self.session.context();
        let mut ids = self.template.encode(&self.messages)?;
        let first = usize::from(self.messages.first().is_some_and(|message| message.role == "system"));
        let (before, mut most) = (self.messages.len(), context - context / 4);
        while ids.len() > most && self.messages.len() > first + 2 {
            self.messages.drain(first..first + 2);
            ids = self.template.encode(&self.messages)?;
            most = context / 2;
        }
        if self.messages.len() < before {
            let forgotten = before - self.messages.len();
            eprintln!(
                "[the context of {context} tokens is full: the {forgotten} oldest messages are forgotten]"
            );
        }
        Ok(ids)
    }

    /// Streams the answer, and returns it.
    fn answer(&mut self) -> Result<String, Failure> {
        let mut out = std::io::stdout().lock();
        let mut answer = String::new();
        let note = loop {
            if STOP.swap(false, Ordering::Relaxed) {
                break Some("stopped".to_string());
            }
            match self.session.step(Budget::Units(UNITS), &mut self.sampler) {
                Ok(Step::Pending | Step::Token(_)) => {}
                Ok(Step::Piece(piece)) => {
                    out.write_all(piece.as_bytes())?;
                    out.flush()?;
                    answer.push_str(piece);
                }
                Ok(Step::Done(_)) => break None,
                Err(Error::ContextFull { context, .. }) => {
                    break Some(format!("the context of {context} tokens is full: the answer ends here"));
                }
                Err(error) => return Err(error.into()),
            }
        };
        writeln!(out)?;
        out.flush()?;
        if let Some(note) = note {
            eprintln!("[{note}]");
        }
        Ok(answer)
    }
}
