//! Progress on stderr, where a person sees it: a terminal. Elsewhere nothing is shown.

use crate::Failure;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use locutor::session::{Budget, Session};
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

/// Reads what was fed behind the first `from` tokens. On a terminal a long text is read in parts, which changes no
/// result, and a bar shows how far it is.
pub fn read_prompt(session: &mut Session<'_>, from: usize) -> Result<(), Failure> {
    let ids = session.tokens().get(from..).unwrap_or_default().to_vec();
    if ids.len() < LONG || !std::io::stderr().is_terminal() {
        session.advance(Budget::Unlimited)?;
        return Ok(());
    }
    let bar = bar(ids.len(), "reading");
    session.truncate(from)?;
    for part in ids.chunks(CHUNK) {
        session.feed_tokens(part)?;
        session.advance(Budget::Unlimited)?;
        bar.inc(part.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}
