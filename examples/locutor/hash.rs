//! `hash`: a hash of every logit of a run.

use crate::Failure;
use crate::limits::RunOptions;
use crate::options::{EndOptions, ModelOptions, TextOptions, prompt_ids};
use crate::progress::{check_room, read_prompt};
use crate::sampling::SamplingOptions;
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

/// The 64-bit FNV-1a hash (Fowler, Noll, Vo): of a run over the little-endian bytes of the logits, in the order of
/// their positions.
pub struct Fnv(pub u64);

impl Fnv {
    /// The hash of nothing.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Goes on with more bytes.
    pub fn bytes(&mut self, bytes: impl IntoIterator<Item = u8>) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn logits(&mut self, row: &[f32]) {
        self.bytes(row.iter().flat_map(|logit| logit.to_bits().to_le_bytes()));
    }
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let model = arguments.model.open()?;
    let prompt = arguments.prompt.read()?;
    let sampler = arguments.sampling.sampler()?;
    let limits = arguments.run.limits()?.text_bytes(1).logits(arguments.logits);
    let mut session = model.session(arguments.end.limits(limits))?;
    arguments.end.apply(&mut session)?;
    let ids = prompt_ids(model.tokenizer().ok_or(Error::NoTokenizer)?, &prompt, true)?;
    if !arguments.run.limits.forgets() {
        check_room(&session, &ids)?;
    }
    let mut hash = Fnv::new();
    let mut rest = &ids[..];
    while !rest.is_empty() {
        // Where the context forgets, a prompt may be longer than what can wait.
        let (part, behind) = rest.split_at(rest.len().min(session.room()));
        session.feed_with_logits(part, |_, row| hash.logits(row))?;
        rest = behind;
    }
    // Once more as `generate` reads it, in batches: what follows hangs on their keys and values.
    session.truncate(0)?;
    read_prompt(&mut session, &ids)?;
    let mut n = arguments.n;
    if !arguments.end.stop.is_empty() {
        // Where a stop string ends the text is known behind the end: generate, and take it back.
        n = generate(&mut session, sampler, n)?;
        session.truncate(0)?;
        read_prompt(&mut session, &ids)?;
    }
    continuation(&mut session, sampler, n, &mut hash)?;
    println!("{:016x}", hash.0);
    Ok(())
}

/// How many tokens are generated.
fn generate(session: &mut Session<'_>, mut sampler: Sampler<'static>, n: usize) -> Result<usize, Failure> {
    let given = session.position();
    session.set_max_tokens(Some(n));
    loop {
        match session.next_piece(&mut sampler) {
            Ok(Some(_)) => {}
            Ok(None) | Err(Error::ContextFull { .. }) => return Ok(session.position() - given),
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
