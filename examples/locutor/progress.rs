//! Reading prompts, with progress on stderr where a person sees it: a terminal. Elsewhere nothing is shown.

use crate::Failure;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use locutor::session::{Budget, Error, Session};
use std::io::IsTerminal;

/// Prompts of fewer tokens are read without a bar.
const LONG: usize = 1024;
/// Tokens between two drawings.
const CHUNK: usize = 512;

/// A bar that counts `len` tokens; hidden when stderr is no terminal.
pub fn bar(len: usize, what: &'static str) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} tokens {per_sec} {eta}");
    let bar = ProgressBar::with_draw_target(Some(len as u64), target).with_message(what);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Checks that a prompt has room in a context that stops when it is full.
pub fn check_room(session: &Session<'_>, ids: &[u32]) -> Result<(), Failure> {
    let (room, context) = (session.room(), session.context());
    match ids.len() {
        tokens if tokens <= room => Ok(()),
        tokens if room == context => {
            Err(format!("the prompt has {tokens} tokens, the context {context} (see --context)").into())
        }
        tokens => Err(format!(
            "the prompt has {tokens} tokens, there is room for {room} of {context} (see --context)"
        )
        .into()),
    }
}

/// Feeds a prompt and computes it, in parts where more would wait than a session can hold, and on a terminal so that a
/// bar shows how far it is; results do not depend on it. False when it was called off: then the rest of the prompt is
/// fed nevertheless, as far as it can wait.
pub fn read_prompt(session: &mut Session<'_>, mut ids: &[u32]) -> Result<bool, Error> {
    let shown = ids.len() >= LONG && std::io::stderr().is_terminal();
    let part = if shown { CHUNK } else { usize::MAX };
    let bar = if shown { bar(ids.len(), "reading") } else { ProgressBar::hidden() };
    let mut called_off = false;
    // Without a prompt there may still be tokens that wait.
    loop {
        let (now, rest) = ids.split_at(ids.len().min(part).min(session.room()));
        session.feed_tokens(now)?;
        ids = rest;
        match session.advance(Budget::Unlimited) {
            Ok(_) => {}
            Err(Error::Cancelled) => {
                session.feed_tokens(&ids[..ids.len().min(session.room())])?;
                called_off = true;
                break;
            }
            Err(error) => return Err(error),
        }
        bar.inc(now.len() as u64);
        if ids.is_empty() {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(!called_off)
}
