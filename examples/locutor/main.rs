//! `locutor`: the command-line tool. A thin program over the library's public API.
//!
//! Text goes to stdout; progress, statistics and warnings go to stderr. Exit status 0; 1 with one line
//! `locutor: error: ...`; 2 for wrong usage.

mod bench;
mod chat;
mod conversation;
mod generate;
mod hash;
mod inspect;
mod limits;
mod logits;
mod open;
mod options;
mod progress;
mod sampling;
mod saved;
mod score;
mod template;
mod tokenize;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// GPT inference from a GGUF file. Without -m a small model that writes children's stories is used.
#[derive(Parser)]
#[command(name = "locutor", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Continue a prompt.
    ///
    /// Texts of control tokens in the prompt, such as `<|im_start|>`, become these tokens. Without -n it goes on until
    /// the text or the context ends, or with --policy shift or slide until Ctrl-C.
    ///
    /// `generate -n 0 --save prompt.state "long prompt"` computes a prompt once, and every `generate --load
    /// prompt.state "question"` goes on behind it at no cost. An empty prompt goes on where the saved text was, with the
    /// same tokens as if it had never been interrupted.
    Generate(generate::Arguments),
    /// Talk with a model.
    ///
    /// Every line of standard input is a message. Ctrl-C stops an answer; `/reset` forgets the conversation; `/save`
    /// saves it now, if --save says where; `/quit` or the end of the input (Ctrl-D) leaves.
    ///
    /// When the context is full, --policy shift, the default, forgets the older half of it and keeps the system prompt;
    /// slide keeps that and the last tokens; stop ends the answer, and later forgets the oldest messages as a whole and
    /// computes the others anew. A context too short to shift stops.
    Chat(chat::Arguments),
    /// Turn text into token ids.
    Tokenize(tokenize::Tokenize),
    /// Turn token ids into bytes.
    Detokenize(tokenize::Detokenize),
    /// Run ids and show logits.
    Logits(logits::Arguments),
    /// Score a text: log-likelihood and perplexity.
    ///
    /// Every token of the text is scored once, given the tokens before it in its window of --context positions. Windows
    /// do not overlap: each begins with the token for the beginning of a text if the model expects one, otherwise with
    /// the last token of the window before; then the text's first token is not scored. With --policy shift or slide
    /// the whole text is one window, and each token is given what the policy has not forgotten.
    Score(score::Arguments),
    /// Show what a file holds, and the memory that it needs.
    ///
    /// The plan is exact: model bytes for the tables of the model, session bytes for one session with --context,
    /// --sequences, --batch, --threads, --kv and --policy, which never allocates more.
    Inspect(inspect::Arguments),
    /// Measure the speed of prompt processing and decoding.
    ///
    /// ppP reads a prompt of P tokens, tgN decodes N. With --sequences S, tgNxS decodes N tokens in each of S sequences,
    /// together and one after the other in turns, and forkPxS shares a prompt of P tokens among S sequences, in turns
    /// with reading it S times.
    Bench(bench::Arguments),
    /// Hash every logit of a run: the same on every machine.
    ///
    /// The run is that of `generate` with the same options, of 32 tokens unless -n says otherwise. The hash is that of
    /// the logits behind every token of prompt and continuation, and does not depend on the machine, on LOCUTOR_ISA,
    /// --threads, --batch and --logits.
    Hash(hash::Arguments),
}

/// What can go wrong: anything with a message of one line.
pub type Failure = Box<dyn std::error::Error>;

/// Options that do not go together, in a way that clap does not know: as any wrong usage, status 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Chat(arguments) => chat::run(&arguments),
        Command::Tokenize(arguments) => tokenize::tokenize(&arguments),
        Command::Detokenize(arguments) => tokenize::detokenize(&arguments),
        Command::Logits(arguments) => logits::run(&arguments),
        Command::Score(arguments) => score::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Hash(arguments) => hash::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output went away: nobody is left to be told.
        Err(error) if is_closed_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) if error.is::<Usage>() => {
            Arguments::command().error(clap::error::ErrorKind::ArgumentConflict, error).exit()
        }
        Err(error) => {
            eprintln!("locutor: error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
