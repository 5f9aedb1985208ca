//! The settings of a sampler, checked when they are set.

use crate::num::Decimal;
use bytemuck::{Pod, Zeroable};
use thiserror::Error;

/// Why a setting was refused, or a token could not be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[non_exhaustive]
pub enum SampleError {
    /// The temperature is negative or not finite.
    #[error("temperature {} is not a finite number of 0 or more", Decimal((*.got).into()))]
    Temperature {
        /// The refused value.
        got: f32,
    },
    /// The nucleus is empty or more than everything.
    #[error("top-p {} is not above 0 and at most 1", Decimal((*.got).into()))]
    TopP {
        /// The refused value.
        got: f32,
    },
    /// The least probability is not a share.
    #[error("min-p {} is not from 0 to 1", Decimal((*.got).into()))]
    MinP {
        /// The refused value.
        got: f32,
    },
    /// The repetition penalty would not divide.
    #[error("repeat penalty {} is not a finite number above 0", Decimal((*.got).into()))]
    RepeatPenalty {
        /// The refused value.
        got: f32,
    },
    /// The frequency penalty is not finite.
    #[error("frequency penalty {} is not a finite number", Decimal((*.got).into()))]
    FrequencyPenalty {
        /// The refused value.
        got: f32,
    },
    /// The presence penalty is not finite.
    #[error("presence penalty {} is not a finite number", Decimal((*.got).into()))]
    PresencePenalty {
        /// The refused value.
        got: f32,
    },
    /// A bias is neither finite nor minus infinity.
    #[error("the logit bias {} of token {token} is neither finite nor minus infinity", Decimal((*.got).into()))]
    Bias {
        /// The token.
        token: u32,
        /// The refused value.
        got: f32,
    },
    /// A token is not one of the vocabulary.
    #[error("token {token} is outside of the vocabulary of {vocab}")]
    Token {
        /// The token.
        token: u32,
        /// Number of logits.
        vocab: usize,
    },
    /// The memory for candidates is shorter than the logits.
    #[error("room for {got} candidates, {needed} are needed")]
    Candidates {
        /// Number of logits.
        needed: usize,
        /// Entries given.
        got: usize,
    },
    /// The model did not give numbers to choose by.
    #[error("the logits hold a NaN or plus infinity, or no finite number at all")]
    NonFinite,
    /// The biases leave no token.
    #[error("the logit biases ban every token")]
    AllBanned,
}

/// Added to the logit of a token; minus infinity bans it.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Bias {
    /// The token.
    pub token: u32,
    /// What is added: finite or minus infinity.
    pub bias: f32,
}

/// The settings of a [`Sampler`](super::Sampler). The defaults are those that llama.cpp made usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Params<'a> {
    /// Divides the logits before the draw; 0 takes the most probable token. Default 0.8.
    pub temperature: f32,
    /// Keeps the `top_k` largest logits; 0 keeps all. Default 40.
    pub top_k: u32,
    /// Keeps the fewest tokens, most probable first, whose probabilities reach `top_p`; in (0, 1]. Default 0.95.
    pub top_p: f32,
    /// Keeps tokens at least `min_p` times as probable as the most probable one; in [0, 1]. Default 0.05.
    pub min_p: f32,
    /// Divides a positive logit, and multiplies a negative one, of a token seen lately; 1 does nothing. Default 1.
    pub repeat_penalty: f32,
    /// Subtracted from a logit once for each time the token was seen lately. Default 0.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of a token that was seen lately. Default 0.
    pub presence_penalty: f32,
    /// How many tokens of the history are "lately"; `u32::MAX` is all of it. Default 64.
    pub penalty_last_n: u32,
    /// Where the random numbers begin. Default 0.
    pub seed: u64,
    /// Added to logits, in order: a token listed twice gets both. Default empty.
    pub logit_bias: &'a [Bias],
}

impl Default for Params<'_> {
    fn default() -> Self {
        Self {
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
        }
    }
}

impl Params<'_> {
    /// Checks every setting. A NaN never passes.
    pub fn check(&self) -> Result<(), SampleError> {
        let finite = |value: f32| value.is_finite();
        let Self { temperature, top_p, min_p, .. } = *self;
        let (repeat, frequency, presence) =
            (self.repeat_penalty, self.frequency_penalty, self.presence_penalty);
        let bad_bias = self.logit_bias.iter().find(|b| !b.bias.is_finite() && b.bias != f32::NEG_INFINITY);
        if !(finite(temperature) && temperature >= 0.0) {
            Err(SampleError::Temperature { got: temperature })
        } else if !(top_p > 0.0 && top_p <= 1.0) {
            Err(SampleError::TopP { got: top_p })
        } else if !(0.0..=1.0).contains(&min_p) {
            Err(SampleError::MinP { got: min_p })
        } else if !(finite(repeat) && repeat > 0.0) {
            Err(SampleError::RepeatPenalty { got: repeat })
        } else if !finite(frequency) {
            Err(SampleError::FrequencyPenalty { got: frequency })
        } else if !finite(presence) {
            Err(SampleError::PresencePenalty { got: presence })
        } else if let Some(&Bias { token, bias: got }) = bad_bias {
            Err(SampleError::Bias { token, got })
        } else {
            Ok(())
        }
    }

    /// Whether the history changes any logit.
    pub(super) fn has_penalties(&self) -> bool {
        self.penalty_last_n > 0
            && (self.repeat_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_has_its_error() {
        use SampleError as E;
        let ok = Params::default();
        assert_eq!(ok.check(), Ok(()));
        for got in [-0.1, f32::INFINITY] {
            assert_eq!(Params { temperature: got, ..ok }.check(), Err(E::Temperature { got }));
        }
        for got in [0.0, -1.0, 1.001] {
            assert_eq!(Params { top_p: got, ..ok }.check(), Err(E::TopP { got }));
        }
        for got in [-0.001, 1.5] {
            assert_eq!(Params { min_p: got, ..ok }.check(), Err(E::MinP { got }));
        }
        for got in [0.0, -2.0, f32::INFINITY] {
            assert_eq!(Params { repeat_penalty: got, ..ok }.check(), Err(E::RepeatPenalty { got }));
        }
        let got = f32::NEG_INFINITY;
        assert_eq!(Params { frequency_penalty: got, ..ok }.check(), Err(E::FrequencyPenalty { got }));
        assert_eq!(Params { presence_penalty: got, ..ok }.check(), Err(E::PresencePenalty { got }));
        let bias = [Bias { token: 1, bias: f32::NEG_INFINITY }, Bias { token: 2, bias: f32::INFINITY }];
        assert_eq!(Params { logit_bias: &bias, ..ok }.check(), Err(E::Bias { token: 2, got: f32::INFINITY }));
        assert_eq!(Params { logit_bias: &bias[..1], ..ok }.check(), Ok(()));
    }

    #[test]
    fn nan_never_passes() {
        let (ok, nan) = (Params::default(), f32::NAN);
        let bias = [Bias { token: 0, bias: nan }];
        for params in [
            Params { temperature: nan, ..ok },
            Params { top_p: nan, ..ok },
            Params { min_p: nan, ..ok },
            Params { repeat_penalty: nan, ..ok },
            Params { frequency_penalty: nan, ..ok },
            Params { presence_penalty: nan, ..ok },
            Params { logit_bias: &bias, ..ok },
        ] {
            assert!(params.check().is_err(), "{params:?}");
        }
    }
}
