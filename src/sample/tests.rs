//! The chain against a reference in plain `f64`, by sorting and `std` mathematics.

use super::*;
use std::collections::HashMap;
use std::vec;
use std::vec::Vec;

fn logits(n: usize, spread: f32, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| (rng.next_f32() + rng.next_f32() + rng.next_f32() - 1.5) * spread).collect()
}

fn bias((token, bias): (u32, f32)) -> Bias {
    Bias { token, bias }
}

/// The probability of every token, straight from the definition.
fn reference(params: &Params<'_>, logits: &[f32], history: &[u32]) -> HashMap<u32, f64> {
    let mut all: Vec<(u32, f64)> = (0u32..).zip(logits.iter().map(|&l| f64::from(l))).collect();
    for &Bias { token, bias } in params.logit_bias {
        all[token as usize].1 += f64::from(bias);
    }
    let window = &history[history.len() - history.len().min(params.penalty_last_n as usize)..];
    for (token, logit) in &mut all {
        let count = window.iter().filter(|&t| t == token).count() as f64;
        if count > 0.0 {
            let repeat = f64::from(params.repeat_penalty);
            *logit = if *logit > 0.0 { *logit / repeat } else { *logit * repeat };
            *logit -= count * f64::from(params.frequency_penalty) + f64::from(params.presence_penalty);
        }
    }
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if params.top_k > 0 {
        all.truncate(params.top_k as usize);
    }
    let best = all[0].1;
    let total: f64 = all.iter().map(|(_, l)| (l - best).exp()).sum();
    let mut passed = 0.0;
    all.retain(|(_, l)| {
        let keep = passed < f64::from(params.top_p) || params.top_p == 1.0;
        passed += (l - best).exp() / total;
        keep
    });
    all.retain(|(_, l)| (l - best).exp() >= f64::from(params.min_p));
    let scaled = |l: f64| ((l - best) / f64::from(params.temperature)).exp();
    let total: f64 = all.iter().map(|&(_, l)| scaled(l)).sum();
    all.iter().map(|&(id, l)| (id, scaled(l) / total)).collect()
}

/// Draws often and compares the counts with the reference by chi-square; tokens of small expectation share a bin.
fn compare(params: Params<'_>, logits: &[f32], history: &[u32]) {
    const DRAWS: usize = 20_000;
    let expected = reference(&params, logits, history);
    let mut sampler = Sampler::new(params).unwrap();
    let mut candidates = vec![Candidate { id: 9, logit: f32::NAN }; logits.len()];
    let mut counts: HashMap<u32, f64> = HashMap::new();
    for _ in 0..DRAWS {
        let id = sampler.sample(logits, history, &mut candidates).unwrap();
        assert!(expected.contains_key(&id), "{params:?}: token {id} is not possible");
        *counts.entry(id).or_default() += 1.0;
    }
    let (mut chi, mut bins, mut rest) = (0.0, 0, (0.0, 0.0));
    for (id, p) in &expected {
        let (mean, count) = (p * DRAWS as f64, counts.get(id).copied().unwrap_or(0.0));
        if mean < 8.0 {
            rest = (rest.0 + mean, rest.1 + count);
        } else {
            chi += (count - mean) * (count - mean) / mean;
            bins += 1;
        }
    }
    if rest.0 >= 8.0 {
        chi += (rest.1 - rest.0) * (rest.1 - rest.0) / rest.0;
        bins += 1;
    }
    // Four standard deviations above the mean of the chi-square distribution.
    let freedom = f64::from((bins - 1).max(1));
    let limit = freedom + 4.0 * (2.0 * freedom).sqrt();
    assert!(bins == 1 || chi < limit, "{params:?}: chi-square {chi} of {bins} bins");
}

/// Everything off: the plain softmax.
fn open<'a>() -> Params<'a> {
    Params { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Params::default() }
}

/// One test a seed, as they take long where the machine is emulated.
fn draws_follow_the_probabilities(seed: u64) {
    let row = logits(300, 6.0, 1);
    let base = Params { seed, ..open() };
    compare(base, &row, &[]);
    compare(Params { temperature: 0.7, ..base }, &row, &[]);
    compare(Params { temperature: 2.5, ..base }, &row, &[]);
    compare(Params { top_k: 5, ..base }, &row, &[]);
    compare(Params { top_k: 1, ..base }, &row, &[]);
    compare(Params { top_k: 1000, temperature: 3.0, ..base }, &row, &[]);
    compare(Params { top_p: 0.5, ..base }, &row, &[]);
    compare(Params { top_p: 0.9, temperature: 0.5, ..base }, &row, &[]);
    compare(Params { min_p: 0.2, temperature: 1.5, ..base }, &row, &[]);
    compare(Params { seed, ..Params::default() }, &row, &[]);
}

#[test]
fn draws_follow_the_probabilities_with_seed_0() {
    draws_follow_the_probabilities(0);
}

#[test]
fn draws_follow_the_probabilities_with_seed_1() {
    draws_follow_the_probabilities(1);
}

#[test]
fn draws_follow_the_probabilities_with_seed_2() {
    draws_follow_the_probabilities(2);
}

#[test]
fn draws_follow_penalties_and_biases() {
    let row = logits(50, 4.0, 2);
    let history: Vec<u32> = (0..200u32).map(|i| i * i % 47).collect();
    let bias = [(3, 2.5), (7, f32::NEG_INFINITY), (3, -1.0), (49, 4.0)].map(bias);
    for seed in 0..3 {
        let base = Params { seed, ..open() };
        compare(Params { repeat_penalty: 1.5, ..base }, &row, &history);
        compare(Params { repeat_penalty: 0.6, penalty_last_n: 7, ..base }, &row, &history);
        compare(Params { frequency_penalty: 0.4, penalty_last_n: u32::MAX, ..base }, &row, &history);
        compare(Params { presence_penalty: 1.0, penalty_last_n: 1, ..base }, &row, &history);
        compare(Params { logit_bias: &bias, ..base }, &row, &history);
        let all = Params { logit_bias: &bias, repeat_penalty: 1.2, frequency_penalty: 0.1, ..base };
        compare(Params { top_k: 20, top_p: 0.8, min_p: 0.05, temperature: 0.9, ..all }, &row, &history);
    }
}

#[test]
fn a_window_of_zero_and_an_empty_history_penalise_nothing() {
    let row = [1.0, 2.0, 3.0];
    let mut memory = [Candidate::default(); 3];
    let strong = Sampler::greedy().presence_penalty(100.0).unwrap();
    assert_eq!(strong.penalty_last_n(0).clone().sample(&row, &[2, 2], &mut memory), Ok(2));
    assert_eq!(strong.clone().sample(&row, &[], &mut memory), Ok(2));
    assert_eq!(strong.clone().sample(&row, &[2, 2, 77], &mut memory), Ok(1), "77 is passed over");
    assert_eq!(strong.penalty_last_n(1).clone().sample(&row, &[2, 1], &mut memory), Ok(2));
}

#[test]
fn greedy_takes_the_largest_and_the_lowest_of_equals() {
    let mut greedy = Sampler::greedy();
    // No candidates are needed without biases and penalties.
    assert_eq!(greedy.sample(&[0.5, 2.0, 2.0], &[], &mut []), Ok(1));
    let before = greedy;
    let mut memory = [Candidate::default(); 3];
    let mut biased = greedy.logit_bias(&[Bias { token: 0, bias: 1.5 }]).unwrap();
    assert_eq!(biased.sample(&[0.5, 2.0, 2.0], &[], &mut memory), Ok(0), "a tie made by the bias");
    assert_eq!(greedy, before, "temperature 0 takes no random number");
}

#[test]
fn ties_at_a_cut_keep_the_lower_tokens() {
    let row = [1.0f32; 64];
    let mut memory = [Candidate::default(); 64];
    for params in [
        Params { top_k: 4, ..open() },
        Params { top_p: 4.0 / 64.0, ..open() },
        Params { top_p: 0.05, ..open() },
    ] {
        let mut sampler = Sampler::new(params).unwrap();
        let mut seen = [0; 64];
        for _ in 0..1000 {
            seen[sampler.sample(&row, &[], &mut memory).unwrap() as usize] += 1;
        }
        assert!(seen[..4].iter().all(|&n| n > 150) && seen[4..].iter().all(|&n| n == 0), "{seen:?}");
    }
}

#[test]
fn the_extremes_of_the_temperature() {
    let row = logits(500, 30.0, 3);
    let mut memory = vec![Candidate::default(); 500];
    let best = argmax(&row).unwrap().id;
    for temperature in [f32::from_bits(1), f32::MIN_POSITIVE, 1e-6] {
        let mut sampler = Sampler::new(Params { temperature, ..open() }).unwrap();
        for _ in 0..100 {
            assert_eq!(sampler.sample(&row, &[], &mut memory), Ok(best));
        }
    }
    compare(Params { temperature: f32::MAX, ..open() }, &row[..40], &[]);
}

#[test]
fn logits_that_cannot_be_used() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let mut memory = [Candidate::default(); 4];
    let (mut greedy, mut random) = (Sampler::greedy(), Sampler::new(Params::default()).unwrap());
    let mut biased = Sampler::greedy().logit_bias(&[Bias { token: 0, bias: 1.0 }]).unwrap();
    for row in [&[][..], &[nan, 1.0], &[1.0, 0.0, nan], &[1.0, inf], &[-inf, -inf, -inf]] {
        for sampler in [&mut greedy, &mut random, &mut biased] {
            let before = *sampler;
            assert_eq!(sampler.sample(row, &[], &mut memory), Err(SampleError::NonFinite), "{row:?}");
            assert_eq!(*sampler, before, "an error takes no random number");
        }
    }
    assert_eq!(random.sample(&[-inf, -inf, 0.0, -inf], &[], &mut memory), Ok(2));
    let overflow = Sampler::greedy().logit_bias(&[Bias { token: 0, bias: f32::MAX }]).unwrap();
    assert_eq!(overflow.clone().sample(&[f32::MAX, 1.0], &[], &mut memory), Err(SampleError::NonFinite));
    let ban = [(0, -inf), (1, -inf)].map(bias);
    let banned = Sampler::greedy().logit_bias(&ban).unwrap();
    assert_eq!(banned.clone().sample(&[1.0, 2.0], &[], &mut memory), Err(SampleError::AllBanned));
    assert_eq!(banned.clone().sample(&[1.0, 2.0, 0.0], &[], &mut memory), Ok(2));
}

#[test]
fn memory_and_tokens_are_checked() {
    let mut memory = [Candidate::default(); 3];
    let mut random = Sampler::new(Params::default()).unwrap();
    assert_eq!(
        random.sample(&[1.0; 4], &[], &mut memory),
        Err(SampleError::Candidates { needed: 4, got: 3 })
    );
    let mut biased = random.logit_bias(&[Bias { token: 3, bias: 1.0 }]).unwrap();
    assert_eq!(biased.sample(&[1.0; 3], &[], &mut memory), Err(SampleError::Token { token: 3, vocab: 3 }));
    assert!(
        random.temperature(f32::NAN).is_err() && random.top_p(0.0).is_err() && random.min_p(2.0).is_err()
    );
    assert!(random.repeat_penalty(0.0).is_err() && random.frequency_penalty(f32::NAN).is_err());
    assert!(
        random.presence_penalty(f32::NAN).is_err()
            && random.logit_bias(&[Bias { token: 0, bias: f32::NAN }]).is_err()
    );
}

/// One number a token, whatever the settings: the state after n tokens is a function of n.
#[test]
fn a_copy_repeats_and_each_token_takes_one_number() {
    let row = logits(100, 5.0, 4);
    let mut memory = vec![Candidate::default(); 100];
    let mut draw = |sampler: &mut Sampler<'_>| -> Vec<u32> {
        (0..50).map(|_| sampler.sample(&row, &[], &mut memory).unwrap()).collect()
    };
    let mut first = Sampler::new(Params { seed: 11, ..Params::default() }).unwrap();
    let mut copy = first;
    assert_eq!(draw(&mut first), draw(&mut copy));
    let mut narrow = Sampler::default().top_k(1).seed(11);
    draw(&mut narrow);
    assert_eq!(narrow.rng(), first.rng());
    let mut resumed = Sampler::default();
    resumed.set_rng(first.rng());
    assert_eq!(draw(&mut resumed), draw(&mut first));
    assert_ne!(draw(&mut Sampler::default().seed(1)), draw(&mut Sampler::default().seed(2)));
}

/// Fixed tokens, computed by a separate program: the chain gives these on every machine.
#[test]
fn known_tokens() {
    let row = logits(1000, 8.0, 5);
    let mut memory = vec![Candidate::default(); 1000];
    let mut sampler = Sampler::new(Params { seed: 42, ..open() }).unwrap();
    let drawn: [u32; 8] = core::array::from_fn(|_| sampler.sample(&row, &[], &mut memory).unwrap());
    assert_eq!(drawn, [735, 225, 939, 321, 225, 459, 939, 881]);
}
