//! `chat`: a conversation. The history stays in the cache of keys and values; each turn computes what is new.

use crate::Failure;
use crate::conversation::Conversation;
use crate::limits::{KEEP, PolicyName, RunOptions};
use crate::options::{ModelOptions, utf8};
use crate::progress::read_prompt;
use crate::sampling::SamplingOptions;
use crate::template::{Known, Message, Template};
use clap::Args;
use locutor::exec::CancelFlag;
use locutor::model::Model;
use locutor::sample::Sampler;
use locutor::session::{Budget, ContextPolicy, Error, Limits, Session, Step};
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
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
    /// Save the conversation when it is left, and at `/save`.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Go on with a saved conversation, its template and its way of sampling; sampling options that are given replace
    /// saved ones.
    #[arg(long, value_name = "FILE", conflicts_with = "system")]
    load: Option<PathBuf>,
    /// How messages become text [default: the file's template, or the one that fits its vocabulary].
    #[arg(long, value_enum)]
    template: Option<Known>,
    /// No statistics on stderr.
    #[arg(short, long)]
    quiet: bool,
}

/// Whether an answer is being computed.
static ANSWERING: AtomicBool = AtomicBool::new(false);
/// Ends it within a job.
static CANCEL: CancelFlag = CancelFlag::new();
/// Ctrl-C between answers: the first gives a hint, the second leaves.
static IDLE_PRESSES: AtomicU32 = AtomicU32::new(0);

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(path) = &arguments.save {
        crate::saved::check_target(path)?;
    }
    let model = arguments.model.open()?;
    let tokenizer = model.tokenizer().ok_or("the model has no tokenizer")?;
    let file = arguments.load.as_deref().map(crate::saved::read).transpose()?.unwrap_or_default();
    let (mut talk, front) = match &arguments.load {
        Some(path) => Conversation::read(path, &file)?,
        None => (Conversation::default(), 0),
    };
    talk.template = arguments.template.or(talk.template);
    let system = arguments.system.clone().map(|content| Message { role: "system", content });
    talk.messages.extend(system);
    let template = Template::new(tokenizer, talk.template)?;
    let (limits, forgets) = limits(arguments, &model, template.instructions(&talk.messages)?)?;
    let mut session = model.session(limits)?;
    let mut sampler = arguments.sampling.sampler()?;
    if let Some(path) = &arguments.load {
        crate::saved::restore(&mut session, &mut sampler, path, (&file, front))?;
        sampler = arguments.sampling.over(&sampler)?;
        if session.position() != talk.ids.len() || !talk.ids.ends_with(session.tokens()) {
            return Err(format!("{}: the state is not that of the conversation", path.display()).into());
        }
    }
    session.set_stops(template.stop.as_slice())?;
    session.set_cancel(Some(&CANCEL));
    if template.name == "plain" && !arguments.quiet {
        eprintln!("[the model has no chat template: your lines and its answers make one running text]");
    }
    let mut chat = Chat { session, template, sampler, talk, forgets, arguments };
    ctrlc::set_handler(interrupted)?;
    let talked = chat.talk();
    // What was said is saved, whatever went wrong after it.
    if let Some(path) = &arguments.save {
        chat.save(path)?;
    }
    talked
}

/// The limits of the session, and whether it forgets. The policy that nobody asked for gives way where the context is too
/// short for it.
fn limits(arguments: &Arguments, model: &Model<'_>, system: usize) -> Result<(Limits, bool), Failure> {
    let options = &arguments.run.limits;
    let policy = options.policy(PolicyName::Shift, system.max(KEEP))?;
    let limits = options.limits_with(arguments.run.threads, policy)?.text_bytes(1);
    let asked_for = options.policy.is_some() || options.keep.is_some();
    if !asked_for && limits.plan(model).is_err() {
        return Ok((limits.policy(ContextPolicy::Stop), false));
    }
    Ok((limits, policy != ContextPolicy::Stop))
}

fn interrupted() {
    if ANSWERING.load(Ordering::Relaxed) {
        CANCEL.cancel();
    } else if IDLE_PRESSES.fetch_add(1, Ordering::Relaxed) == 0 {
        eprintln!("\n[Ctrl-D or /quit leaves; Ctrl-C once more leaves, too, and saves nothing]");
    } else {
        process::exit(130);
    }
}

/// A conversation under way.
struct Chat<'m> {
    session: Session<'m>,
    template: Template<'m>,
    sampler: Sampler<'static>,
    talk: Conversation,
    forgets: bool,
    arguments: &'m Arguments,
}

impl Chat<'_> {
    /// Answers standard input, line by line.
    fn talk(&mut self) -> Result<(), Failure> {
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
            match (line.trim(), &self.arguments.save) {
                ("", _) => {}
                ("/quit", _) => break,
                ("/reset", _) => self.talk.messages.retain(|message| message.role == "system"),
                ("/save", Some(path)) => self.save(path)?,
                ("/save", None) => eprintln!("[--save FILE says where]"),
                (text, _) => self.turn(text)?,
            }
        }
        Ok(())
    }

    fn save(&mut self, path: &Path) -> Result<(), Failure> {
        let front = self.talk.front();
        let bytes = crate::saved::save(&mut self.session, &self.sampler, path, &front)?;
        if !self.arguments.quiet {
            eprintln!("[saved {} messages in {bytes} bytes: {}]", self.talk.messages.len(), path.display());
        }
        Ok(())
    }

    /// A message and its answer. A message without an answer is not part of the conversation.
    fn turn(&mut self, text: &str) -> Result<(), Failure> {
        self.talk.messages.push(Message { role: "user", content: text.into() });
        CANCEL.reset();
        ANSWERING.store(true, Ordering::Relaxed);
        let answer = self.exchange().inspect_err(|_| drop(self.talk.messages.pop()));
        ANSWERING.store(false, Ordering::Relaxed);
        IDLE_PRESSES.store(0, Ordering::Relaxed);
        match answer? {
            Some(content) => self.talk.messages.push(Message { role: "assistant", content }),
            None => drop(self.talk.messages.pop()),
        }
        Ok(())
    }

    /// The answer to the last message; `None` when that is too long.
    fn exchange(&mut self) -> Result<Option<String>, Failure> {
        let start = Instant::now();
        let Some((ids, same)) = self.go_back()? else { return Ok(None) };
        self.session.set_max_tokens(self.arguments.n);
        let read = read_prompt(&mut self.session, &ids[same..]);
        let fed = self.session.position();
        self.talk.ids = ids;
        self.talk.ids.truncate(fed);
        let answer = self.answer(read?)?;
        if !self.arguments.quiet {
            let (all, new) = (fed, fed - same);
            let generated = self.session.position() - all;
            let seconds = start.elapsed().as_secs_f64();
            let forgot = self.session.tokens().len() < self.session.position();
            let forgot = if forgot { "; the oldest tokens are forgotten" } else { "" };
            eprintln!("[{all} tokens, {new} new; generated {generated}; {seconds:.1} s{forgot}]");
        }
        Ok(Some(answer))
    }

    /// Brings the session back to where the tokens of the conversation are those it has read. Returns them, and how many
    /// it has read; nothing when the last message is too long.
    fn go_back(&mut self) -> Result<Option<(Vec<u32>, usize)>, Failure> {
        let context = self.session.context();
        let mut ids = if self.forgets { self.template.encode(&self.talk.messages)? } else { self.fitting()? };
        let same = self.talk.ids.iter().zip(&ids).take_while(|(old, new)| old == new).count();
        // At least one token is new, so that a new answer begins.
        let same = same.min(ids.len().saturating_sub(1));
        let counted = if self.forgets { ids.len() - same } else { ids.len() };
        if counted >= context {
            eprintln!(
                "[this message makes {counted} tokens, the context has {context}: it was not sent; --context N sets \
                 it]"
            );
            return Ok(None);
        }
        match self.session.truncate(same) {
            Ok(()) => Ok(Some((ids, same))),
            Err(Error::Forgotten { .. }) => {
                ids = self.fitting()?;
                self.session.truncate(0)?;
                Ok(Some((ids, 0)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The tokens of the conversation, without its oldest messages when it fills three quarters of the context: then
    /// those are forgotten, until it fills no more than half.
    fn fitting(&mut self) -> Result<Vec<u32>, Failure> {
        let (context, messages) = (self.session.context(), &mut self.talk.messages);
        let mut ids = self.template.encode(messages)?;
        let first = usize::from(messages.first().is_some_and(|message| message.role == "system"));
        let (before, mut most) = (messages.len(), context - context / 4);
        while ids.len() > most && messages.len() > first + 2 {
            messages.drain(first..first + 2);
            ids = self.template.encode(messages)?;
            most = context / 2;
        }
        if messages.len() < before {
            let forgotten = before - messages.len();
            eprintln!(
                "[the context of {context} tokens is full: the {forgotten} oldest messages are forgotten]"
            );
        }
        Ok(ids)
    }

    /// Streams the answer, unless it was called off before it began, and returns it.
    fn answer(&mut self, begins: bool) -> Result<String, Failure> {
        let mut out = std::io::stdout().lock();
        let mut answer = String::new();
        let stopped = || Some("stopped".to_string());
        let mut note = if begins { None } else { stopped() };
        while note.is_none() {
            let before = self.session.position();
            let text = match self.session.step(Budget::Unlimited, &mut self.sampler) {
                Ok(Step::Pending | Step::Token(_)) => String::new(),
                Ok(Step::Piece(piece)) => piece.to_string(),
                Ok(Step::Done(_)) => break,
                Err(Error::Cancelled) => {
                    note = stopped();
                    continue;
                }
                Err(Error::ContextFull { context, .. }) => {
                    note = Some(format!("the context of {context} tokens is full: the answer ends here"));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let new = self.session.tokens().last().filter(|_| self.session.position() > before);
            self.talk.ids.extend(new);
            answer.push_str(&text);
            out.write_all(text.as_bytes())?;
            out.flush()?;
        }
        writeln!(out)?;
        out.flush()?;
        if let Some(note) = note {
            eprintln!("[{note}]");
        }
        Ok(answer)
    }
}
