//! What a row of logits says: the best tokens, and logarithms of probabilities.

use super::heap::{Descending, better, select};
use super::{Candidate, SampleError};
use crate::math;

/// The largest logit, and of equal ones that of the lowest token.
///
/// # Errors
/// [`SampleError::NonFinite`] if any logit is NaN or plus infinity, or none is finite: there is never a token that
/// the logits do not support.
pub fn argmax(logits: &[f32]) -> Result<Candidate, SampleError> {
    let mut best = Candidate { id: 0, logit: f32::NEG_INFINITY };
    let mut usable = true;
    for (id, &logit) in (0u32..).zip(logits) {
        usable &= logit < f32::INFINITY;
        if logit > best.logit {
            best = Candidate { id, logit };
        }
    }
    if usable && best.logit.is_finite() { Ok(best) } else { Err(SampleError::NonFinite) }
}

/// The natural logarithm of the sum of the exponentials of the logits: what turns a logit into the logarithm of a
/// probability.
///
/// O(vocabulary); does not allocate. Errors as for [`argmax`].
pub fn log_sum_exp(logits: &[f32]) -> Result<f64, SampleError> {
    let best = f64::from(argmax(logits)?.logit);
    let sum: f64 = logits.iter().map(|&logit| math::exp64(f64::from(logit) - best)).sum();
    Ok(best + math::ln64(sum))
}

/// The natural logarithm of the probability of `token` at temperature 1; minus infinity if the model rules it out.
///
/// O(vocabulary); does not allocate.
///
/// # Errors
/// [`SampleError::Token`] for a token without a logit, else as for [`argmax`].
pub fn log_prob(logits: &[f32], token: u32) -> Result<f64, SampleError> {
    let vocab = logits.len();
    let logit = *logits.get(token as usize).ok_or(SampleError::Token { token, vocab })?;
    Ok(f64::from(logit) - log_sum_exp(logits)?)
}

/// The `n` largest logits, largest first, at the front of `candidates`; fewer if there are fewer.
///
/// `candidates` has room for at least as many entries as there are logits. Does not allocate. NaN is not an error
/// here: it ranks below everything.
pub fn top<'c>(
    logits: &[f32],
    n: usize,
    candidates: &'c mut [Candidate],
) -> Result<&'c [Candidate], SampleError> {
    let (needed, got) = (logits.len(), candidates.len());
    let all = candidates.get_mut(..needed).ok_or(SampleError::Candidates { needed, got })?;
    for ((id, &logit), candidate) in (0u32..).zip(logits).zip(all.iter_mut()) {
        *candidate = Candidate { id, logit: if logit.is_nan() { f32::NEG_INFINITY } else { logit } };
    }
    let kept = select(all, n);
    let mut descending = Descending::new(kept);
    descending.by_ref().for_each(|_| ());
    let taken = descending.taken();
    debug_assert!(taken.is_sorted_by(better));
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn ties_go_to_the_lowest_token() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]).unwrap().id, 1);
        assert_eq!(argmax(&[f32::NEG_INFINITY, -5.0]).unwrap().id, 1);
        assert_eq!(argmax(&[-0.0, 0.0]).unwrap().id, 0);
        assert_eq!(argmax(&[0.0; 9]).unwrap().id, 0);
    }

    #[test]
    fn what_is_not_a_number_is_an_error() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for logits in [&[][..], &[nan], &[1.0, nan], &[nan, 1.0], &[inf, 1.0], &[-inf, -inf], &[1.0, inf]] {
            assert_eq!(argmax(logits), Err(SampleError::NonFinite), "{logits:?}");
            assert_eq!(log_sum_exp(logits), Err(SampleError::NonFinite), "{logits:?}");
        }
    }

    #[test]
    fn log_probabilities_against_std() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 * 0.03 - 12.0).collect();
        let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        for token in [0u32, 1, 17, 999] {
            let expected = (f64::from(logits[token as usize]).exp() / sum).ln();
            assert!((log_prob(&logits, token).unwrap() - expected).abs() < 1e-12);
        }
        assert_eq!(log_prob(&logits, 1000), Err(SampleError::Token { token: 1000, vocab: 1000 }));
        assert_eq!(log_prob(&[0.0, f32::NEG_INFINITY], 1), Ok(f64::NEG_INFINITY));
        assert_eq!(log_prob(&[0.0, f32::NEG_INFINITY], 0), Ok(0.0));
        // Logits far beyond the range of `exp`.
        let shifted = [1e30f32, 1e30];
        assert!((log_prob(&shifted, 0).unwrap() + core::f64::consts::LN_2).abs() < 1e15);
        let far = [2000.0f32, 2000.0];
        assert!((log_prob(&far, 0).unwrap() + core::f64::consts::LN_2).abs() < 1e-12);
    }

    #[test]
    fn top_is_in_order() {
        let logits = [1.0, 5.0, f32::NAN, 5.0, -1.0, 9.0];
        let mut memory = [Candidate::default(); 6];
        let ids = |n, memory: &mut [Candidate]| -> Vec<u32> {
            top(&logits, n, memory).unwrap().iter().map(|c| c.id).collect()
        };
        assert_eq!(ids(3, &mut memory), [5, 1, 3]);
        assert_eq!(ids(0, &mut memory), [0u32; 0]);
        assert_eq!(ids(99, &mut memory), [5, 1, 3, 0, 4, 2]);
        let short = top(&logits, 1, &mut memory[..5]);
        assert_eq!(short, Err(SampleError::Candidates { needed: 6, got: 5 }));
    }
}
