//! How a session chooses tokens.

use crate::failure::{Failure, guard_plain};
use crate::handle::{Handle, In, Out, sized_struct};
use crate::session::SessionObject;
use crate::status::{Status, export};
use engine::sample::{Bias, Params, Rng, Sampler};

/// What the header promises; a test compares it with [`Params`].
const DEFAULT: Params<'static> = Params {
    temperature: 0.8,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.05,
    repeat_penalty: 1.0,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
    penalty_last_n: 64,
    seed: 0,
    logit_bias: &[],
};

sized_struct! {
    /// `locutor_sampler_params`.
    SamplerParams {
        temperature: f32 = DEFAULT.temperature,
        top_k: u32 = DEFAULT.top_k,
        top_p: f32 = DEFAULT.top_p,
        min_p: f32 = DEFAULT.min_p,
        repeat_penalty: f32 = DEFAULT.repeat_penalty,
        frequency_penalty: f32 = DEFAULT.frequency_penalty,
        presence_penalty: f32 = DEFAULT.presence_penalty,
        penalty_last_n: u32 = DEFAULT.penalty_last_n,
        n_logit_bias: u32 = 0,
        seed: u64 = DEFAULT.seed,
        logit_bias: In<Bias> = In::null(),
    }
}

impl SamplerParams {
    /// The sampler. It borrows the biases, which the caller keeps.
    fn sampler(&self) -> Result<Sampler<'static>, Failure> {
        let len = usize::try_from(self.n_logit_bias).map_err(|_| Status::ARGUMENT)?;
        Ok(Sampler::new(Params {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            penalty_last_n: self.penalty_last_n,
            seed: self.seed,
            logit_bias: self.logit_bias.slice(len)?,
        })?)
    }
}

export! {
    fn locutor_sampler_params_init(params: Out<SamplerParams>, size: usize) -> i32 {
        guard_plain(|| Ok(params.init(size)?))
    }

    fn locutor_session_set_sampler(session: Handle<SessionObject>, params: In<SamplerParams>) -> i32 {
        guard_plain(|| {
            session.get()?.call(|state| {
                state.sampler = params.read()?.sampler()?;
                Ok(())
            })
        })
    }

    fn locutor_session_get_rng(session: Handle<SessionObject>, rng: Out<u64>) -> i32 {
        guard_plain(|| {
            session.get()?.call(|state| {
                rng.check()?.set(state.sampler.rng().state());
                Ok(())
            })
        })
    }

    fn locutor_session_set_rng(session: Handle<SessionObject>, rng: u64) -> i32 {
        guard_plain(|| {
            session.get()?.call(|state| {
                state.sampler.set_rng(Rng::new(rng));
                Ok(())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_crate() {
        assert_eq!(DEFAULT, Params::default());
    }
}
