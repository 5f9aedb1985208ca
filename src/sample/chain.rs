//! The chain from logits to a token.

use super::heap::{Descending, select};
use super::{Bias, Params, Rng, SampleError, argmax};
use crate::math;
use bytemuck::{Pod, Zeroable};

/// A token with its logit. The caller of a sampler owns an array of them, as long as the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its logit.
    pub logit: f32,
}

/// Chooses tokens: settings and a random generator, nothing else.
///
/// # Order
/// 1. the biases are added;
/// 2. tokens in the last `penalty_last_n` of the history are penalised: a logit above 0 is divided by
///    `repeat_penalty`, any other multiplied by it; then `frequency_penalty` times the number of occurrences, and
///    `presence_penalty` once, are subtracted;
/// 3. at temperature 0 the largest logit is the answer;
/// 4. top-k keeps the largest `top_k` logits;
/// 5. top-p keeps, of these, the fewest whose probabilities sum up to `top_p` or more;
/// 6. min-p drops tokens less than `min_p` times as probable as the best;
/// 7. the logits are divided by the temperature, and one token is drawn by its probability.
///
/// The probabilities of steps 5 and 6 are those at temperature 1, so the temperature never changes which tokens are
/// possible. This is the order of llama.cpp. Of equal logits the one of the lower token ranks first, everywhere.
///
/// The draw takes one number from the generator, u in [0, 1), walks the tokens from the most probable one down, and
/// takes the first at which the probabilities passed exceed u. Temperature 0 takes none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sampler<'a> {
    params: Params<'a>,
    rng: Rng,
}

impl<'a> Sampler<'a> {
    /// A sampler with these settings.
    pub fn new(params: Params<'a>) -> Result<Self, SampleError> {
        params.check()?;
        Ok(Self { params, rng: Rng::new(params.seed) })
    }

    /// Always the most probable token, without penalties.
    pub fn greedy() -> Self {
        Self { params: Params { temperature: 0.0, ..Params::default() }, rng: Rng::new(0) }
    }

    fn with(self, params: Params<'a>) -> Result<Self, SampleError> {
        params.check()?;
        Ok(Self { params, ..self })
    }

    /// Sets the temperature; see [`Params::temperature`].
    pub fn temperature(self, temperature: f32) -> Result<Self, SampleError> {
        self.with(Params { temperature, ..self.params })
    }

    /// Sets the number of tokens to keep; see [`Params::top_k`].
    pub fn top_k(self, top_k: u32) -> Self {
        Self { params: Params { top_k, ..self.params }, ..self }
    }

    /// Sets the probability to keep; see [`Params::top_p`].
    pub fn top_p(self, top_p: f32) -> Result<Self, SampleError> {
        self.with(Params { top_p, ..self.params })
    }

    /// Sets the least probability, as a share of the best; see [`Params::min_p`].
    pub fn min_p(self, min_p: f32) -> Result<Self, SampleError> {
        self.with(Params { min_p, ..self.params })
    }

    /// Sets the divisor of repeated tokens; see [`Params::repeat_penalty`].
    pub fn repeat_penalty(self, repeat_penalty: f32) -> Result<Self, SampleError> {
        self.with(Params { repeat_penalty, ..self.params })
    }

    /// Sets the penalty per occurrence; see [`Params::frequency_penalty`].
    pub fn frequency_penalty(self, frequency_penalty: f32) -> Result<Self, SampleError> {
        self.with(Params { frequency_penalty, ..self.params })
    }

    /// Sets the penalty of any occurrence; see [`Params::presence_penalty`].
    pub fn presence_penalty(self, presence_penalty: f32) -> Result<Self, SampleError> {
        self.with(Params { presence_penalty, ..self.params })
    }

    /// Sets how far back the penalties look; see [`Params::penalty_last_n`].
    pub fn penalty_last_n(self, penalty_last_n: u32) -> Self {
        Self { params: Params { penalty_last_n, ..self.params }, ..self }
    }

    /// Starts the random numbers anew from `seed`.
    pub fn seed(self, seed: u64) -> Self {
        Self { params: Params { seed, ..self.params }, rng: Rng::new(seed) }
    }

    /// Sets the biases; see [`Params::logit_bias`].
    pub fn logit_bias(self, logit_bias: &'a [Bias]) -> Result<Self, SampleError> {
        self.with(Params { logit_bias, ..self.params })
    }

    /// The settings.
    pub fn params(&self) -> &Params<'a> {
        &self.params
    }

    /// The generator, to save where the random numbers are.
    pub fn rng(&self) -> Rng {
        self.rng
    }

    /// Continues with the numbers of a saved generator.
    pub fn set_rng(&mut self, rng: Rng) {
        self.rng = rng;
    }

    /// Chooses a token by `logits`, one a token of the vocabulary.
    ///
    /// `history` holds the tokens so far, newest last; those outside of the vocabulary are passed over. `candidates`
    /// is memory to work in, at least as many entries as logits; its content before does not matter.
    ///
    /// O(vocabulary) on ordinary settings, never more than O(vocabulary log vocabulary). Does not allocate.
    ///
    /// # Errors
    /// [`SampleError::NonFinite`] if any logit is NaN or plus infinity, or none is finite; minus infinity alone is
    /// a token the model rules out. The generator does not move on an error.
    pub fn sample(
        &mut self,
        logits: &[f32],
        history: &[u32],
        candidates: &mut [Candidate],
    ) -> Result<u32, SampleError> {
        let params = self.params;
        let best = argmax(logits)?;
        let plain = params.logit_bias.is_empty() && !params.has_penalties();
        if params.temperature == 0.0 && plain {
            return Ok(best.id);
        }
        let (needed, got) = (logits.len(), candidates.len());
        let all = candidates.get_mut(..needed).ok_or(SampleError::Candidates { needed, got })?;
        adjust(&params, logits, history, all)?;
        let best = if plain { best } else { best_of(all)? };
        if params.temperature == 0.0 {
            return Ok(best.id);
        }
        let kept = cut(&params, all, best.logit);
        Ok(draw(kept, best, params.temperature, &mut self.rng))
    }
}

/// Steps 1 and 2: fills `all` with the tokens and their logits after biases and penalties.
fn adjust(
    params: &Params<'_>,
    logits: &[f32],
    history: &[u32],
    all: &mut [Candidate],
) -> Result<(), SampleError> {
    let vocab = logits.len();
    // Until the last loop, `id` counts the occurrences of the entry's token.
    for (candidate, &logit) in all.iter_mut().zip(logits) {
        *candidate = Candidate { id: 0, logit };
    }
    for &Bias { token, bias } in params.logit_bias {
        let candidate = all.get_mut(token as usize).ok_or(SampleError::Token { token, vocab })?;
        candidate.logit += bias;
    }
    if params.has_penalties() {
        let last_n = usize::try_from(params.penalty_last_n).unwrap_or(usize::MAX);
        let window = history.get(history.len().saturating_sub(last_n)..).unwrap_or_default();
        for &token in window {
            if let Some(candidate) = all.get_mut(token as usize) {
                candidate.id = candidate.id.saturating_add(1);
            }
        }
    }
    for (id, candidate) in (0u32..).zip(all) {
        if candidate.id > 0 {
            let times = candidate.id as f32 * params.frequency_penalty;
            let repeat = params.repeat_penalty;
            let logit = candidate.logit;
            let divided = if logit > 0.0 { logit / repeat } else { logit * repeat };
            candidate.logit = divided - times - params.presence_penalty;
        }
        candidate.id = id;
    }
    Ok(())
}

/// The best candidate after biases and penalties.
fn best_of(all: &[Candidate]) -> Result<Candidate, SampleError> {
    let mut best = Candidate { id: 0, logit: f32::NEG_INFINITY };
    let mut finite = true;
    for candidate in all {
        finite &= candidate.logit < f32::INFINITY;
        if candidate.logit > best.logit {
            best = *candidate;
        }
    }
    match (finite, best.logit == f32::NEG_INFINITY) {
        (false, _) => Err(SampleError::NonFinite),
        (true, true) => Err(SampleError::AllBanned),
        (true, false) => Ok(best),
    }
}

/// The probability of `logit` over that of the best one.
fn weight(logit: f32, best: f32, temperature: f32) -> f64 {
    math::exp64((f64::from(logit) - f64::from(best)) / f64::from(temperature))
}

/// Steps 4 to 6.
fn cut<'c>(params: &Params<'_>, all: &'c mut [Candidate], best: f32) -> &'c mut [Candidate] {
    let mut kept = all;
    if params.top_k > 0 {
        kept = select(kept, usize::try_from(params.top_k).unwrap_or(usize::MAX));
    }
    if params.top_p < 1.0 {
        let total: f64 = kept.iter().map(|c| weight(c.logit, best, 1.0)).sum();
        let enough = f64::from(params.top_p) * total;
        let (mut passed, mut descending) = (0.0, Descending::new(kept));
        while passed < enough {
            let Some(candidate) = descending.next() else { break };
            passed += weight(candidate.logit, best, 1.0);
        }
        kept = descending.taken();
    }
    if params.min_p > 0.0 {
        let least = math::ln64(f64::from(params.min_p));
        kept = retain(kept, |c| f64::from(c.logit) - f64::from(best) >= least);
    }
    kept
}

/// Moves the candidates that pass to the front, in their order.
fn retain(all: &mut [Candidate], pass: impl Fn(&Candidate) -> bool) -> &mut [Candidate] {
    let mut kept = 0;
    for at in 0..all.len() {
        let Some(candidate) = all.get(at).copied() else { break };
        if pass(&candidate) {
            if let Some(place) = all.get_mut(kept) {
                *place = candidate;
            }
            kept += 1;
        }
    }
    all.get_mut(..kept).unwrap_or_default()
}

/// Step 7. `best` is the answer if rounding leaves nothing else.
fn draw(kept: &mut [Candidate], best: Candidate, temperature: f32, rng: &mut Rng) -> u32 {
    let total: f64 = kept.iter().map(|c| weight(c.logit, best.logit, temperature)).sum();
    let target = rng.next_f64() * total;
    let (mut passed, mut last) = (0.0, best.id);
    for candidate in Descending::new(kept) {
        let weight = weight(candidate.logit, best.logit, temperature);
        if weight == 0.0 {
            break;
        }
        passed += weight;
        last = candidate.id;
        if passed > target {
            break;
        }
    }
    last
}
