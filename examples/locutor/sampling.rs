//! Options for how the next token is chosen.

use crate::Failure;
use clap::Args;
use locutor::sample::{Params, Sampler};

/// How the next token is chosen. With --load, what is not given is as it was saved.
#[derive(Args)]
pub struct SamplingOptions {
    /// Higher is more varied; 0 always takes the likeliest token [default: 0.7].
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Choose among the K likeliest tokens; 0 for all [default: 40].
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Choose among the likeliest tokens that have this share of the probability together [default: 0.95].
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Choose among tokens with at least this share of the likeliest one's probability [default: 0].
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Divide the logits of recent tokens by this; 1 for no penalty [default: 1].
    #[arg(long, value_name = "R")]
    repeat_penalty: Option<f32>,
    /// Subtract this from a logit for each time its token came recently [default: 0].
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Subtract this from a logit if its token came recently [default: 0].
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Tokens that count as recent [default: 64].
    #[arg(long, value_name = "N")]
    penalty_last_n: Option<u32>,
    /// Seed of the random numbers [default: from the clock; shown on stderr].
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Always take the likeliest token.
    #[arg(long, conflicts_with = "temperature")]
    greedy: bool,
}

impl SamplingOptions {
    /// The sampler of a new text.
    pub fn sampler(&self) -> Result<Sampler<'static>, Failure> {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = since.map_or(0, |since| since.subsec_nanos().into());
        let defaults = Params { temperature: 0.7, min_p: 0.0, seed, ..Params::default() };
        self.over(&Sampler::new(defaults)?)
    }

    /// A sampler that goes on as `saved`, but for the options given.
    pub fn over(&self, saved: &Sampler<'static>) -> Result<Sampler<'static>, Failure> {
        let base = *saved.params();
        let temperature = if self.greedy { Some(0.0) } else { self.temperature };
        let mut sampler = Sampler::new(Params {
            temperature: temperature.unwrap_or(base.temperature),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(base.repeat_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            penalty_last_n: self.penalty_last_n.unwrap_or(base.penalty_last_n),
            seed: self.seed.unwrap_or(base.seed),
            ..base
        })?;
        if self.seed.is_none() {
            sampler.set_rng(saved.rng());
        }
        Ok(sampler)
    }
}
