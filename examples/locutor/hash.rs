//! `hash`: a hash of every logit of a run.

use crate::Failure;
use crate::generate::feed_prompt;
use crate::options::{EndOptions, ModelOptions, RunOptions, SamplingOptions, TextOptions};
use clap::Args;
use locutor::sample::Sampler;
use locutor::session::{Budget, Error, Session};

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
    /// Generate at most N tokens.
    #[arg(short, value_name = "N", default_value_t = 32)]
    n: usize,
    /// Positions of the prompt whose logits are computed together.
    #[arg(long, default_value_t = 16, value_name = "N")]
    logits: usize,
    /// Options of `generate` that choose what is shown.
    #[arg(long, hide = true)]
    no_echo: bool,
    #[arg(long, hide = true)]
    ids: bool,
    #[arg(short, long, hide = true)]
    quiet: bool,
}

/// The 64-bit FNV-1a hash (Fowler, Noll, Vo) over the little-endian bytes of the logits, in the order of their
/// positions.
struct Fnv(u64);

impl Fnv {
    fn logits(&mut self, row: &[f32]) {
        for byte in row.iter().flat_map(|logit| logit.to_bits().to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let model = arguments.model.open()?;
    let prompt = arguments.prompt.read()?;
    let (sampler, _) = arguments.sampling.sampler()?;
    let limits = arguments.run.limits()?.text_bytes(prompt.len().max(1)).logits(arguments.logits);
    let mut session = model.session(arguments.end.limits(limits))?;
    arguments.end.apply(&mut session)?;
    feed_prompt(&mut session, &prompt)?;
    let ids = session.tokens().to_vec();
    session.truncate(0)?;
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    session.feed_with_logits(&ids, |_, row| hash.logits(row))?;
    // Once more as `generate` reads it, in batches: what follows hangs on their keys and values.
    session.truncate(0)?;
    session.feed_tokens(&ids)?;
    session.advance(Budget::Unlimited)?;
    let mut n = arguments.n;
    if !arguments.end.stop.is_empty() {
        // Where a stop string ends the text is known behind the end: generate, and take it back.
        n = generate(&mut session, sampler, n)?;
        session.truncate(ids.len() - 1)?;
        session.feed_tokens(&ids[ids.len() - 1..])?;
    }
    continuation(&mut session, sampler, n, &mut hash)?;
    println!("{:016x}", hash.0);
    Ok(())
}

/// How many tokens are generated.
fn generate(session: &mut Session<'_>, mut sampler: Sampler<'static>, n: usize) -> Result<usize, Failure> {
    let given = session.tokens().len();
    session.set_max_tokens(Some(n));
    loop {
        match session.next_piece(&mut sampler) {
            Ok(Some(_)) => {}
            Ok(None) | Err(Error::ContextFull { .. }) => return Ok(session.tokens().len() - given),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Generates `n` tokens, and hashes the logits behind each.
fn continuation(
    session: &mut Session<'_>,
    mut sampler: Sampler<'static>,
    n: usize,
    hash: &mut Fnv,
) -> Result<(), Failure> {
    session.set_max_tokens(Some(n));
    loop {
        match session.next_token(&mut sampler) {
            Ok(Some(_)) => {}
            Ok(None) | Err(Error::ContextFull { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        session.advance(Budget::Unlimited)?;
        hash.logits(session.logits().unwrap_or_default());
    }
}
