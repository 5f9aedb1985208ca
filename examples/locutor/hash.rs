//! `hash`: a hash of every logit of a run.

use crate::Failure;
use crate::options::{ModelOptions, RunOptions, SamplingOptions, TextOptions};
use clap::Args;
use locutor::session::Budget;

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
    /// Generate at most N tokens.
    #[arg(short, value_name = "N", default_value_t = 32)]
    n: usize,
    /// Go on after a token that ends a text.
    #[arg(long)]
    ignore_eos: bool,
    /// Positions of the prompt whose logits are computed together; the hash does not depend on it.
    #[arg(long, default_value_t = 16)]
    logits: usize,
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
    let (mut sampler, _) = arguments.sampling.sampler()?;
    let limits = arguments.run.limits()?.text_bytes(prompt.len().max(1)).logits(arguments.logits);
    let mut session = model.session(limits)?;
    session.feed_markup(&prompt)?;
    let ids = session.tokens().to_vec();
    session.truncate(0)?;
    session.set_max_tokens(Some(arguments.n));
    session.set_ignore_end(arguments.ignore_eos);
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    if ids.is_empty() {
        return Err(locutor::session::Error::EmptyPrompt.into());
    }
    session.feed_with_logits(&ids, |_, row| hash.logits(row))?;
    while session.next_token(&mut sampler)?.is_some() {
        session.advance(Budget::Unlimited)?;
        hash.logits(session.logits().unwrap_or_default());
    }
    println!("{:016x}", hash.0);
    Ok(())
}
