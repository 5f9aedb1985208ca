//! How fast decoding reads the weights, and how fast a loop does that does nothing else.

use super::{Report, ascending, begin, step};
use crate::Failure;
use locutor::mem::aligned::RawBytes;
use locutor::model::Model;
use locutor::session::Session;
use serde_json::json;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Bytes of a line of the caches.
const LINE: usize = 64;

/// Decodes `n` tokens a run, and reads the weights of a pass by a loop after each: what one machine gives from second to
/// second differs more than the two do.
pub fn run(
    model: &Model<'_>,
    session: &mut Session<'_>,
    n: usize,
    report: &Report<'_>,
) -> Result<(), Failure> {
    let weights: Vec<RawBytes<'_>> =
        model.weights().of_a_pass(model.spec()).map(|matrix| matrix.bytes()).collect();
    let bytes: usize = weights.iter().map(RawBytes::len).sum();
    let gb_per_s = |time: Duration| (bytes * n) as f64 / time.as_secs_f64() / 1e9;
    let (mut decoding, mut loops, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    // The first run is to warm up.
    for run in 0..=report.arguments.r.max(1) {
        let (decoded, read) = in_turns(session, &weights, n, report)?;
        if run > 0 {
            decoding.push(gb_per_s(decoded));
            loops.push(gb_per_s(read));
            shares.push(read.as_secs_f64() / decoded.as_secs_f64());
        }
    }
    let [decoding, loops, shares] = [decoding, loops, shares].map(ascending);
    let median = |measured: &[f64]| measured[measured.len() / 2];
    let more = [
        ("weights_mb", json!(bytes as f64 / 1e6)),
        ("loop_gb_per_s", json!(median(&loops))),
        ("percent_of_loop", json!(100.0 * median(&shares))),
    ];
    report.show("weights", &more, &decoding, ("gb_per_s", "GB/s"));
    Ok(())
}

/// The time of `n` tokens, and that of as many readings.
fn in_turns(
    session: &mut Session<'_>,
    weights: &[RawBytes<'_>],
    n: usize,
    report: &Report<'_>,
) -> Result<(Duration, Duration), Failure> {
    let mut sampler = begin(session, report.arguments.d)?;
    let (mut decoded, mut read) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..n {
        let start = Instant::now();
        step(session, &mut sampler)?;
        decoded += start.elapsed();
        let start = Instant::now();
        black_box(read_all(weights, report.threads));
        read += start.elapsed();
    }
    Ok((decoded, read))
}

/// Reads one word of each line of everything, a share of each piece on each thread.
fn read_all(pieces: &[RawBytes<'_>], threads: usize) -> u64 {
    let share = |thread: usize| {
        let mut sum = 0u64;
        for piece in pieces {
            let lines = piece.len() / LINE;
            for line in lines * thread / threads..lines * (thread + 1) / threads {
                sum = sum.wrapping_add(piece.read::<u64>(line * LINE / size_of::<u64>()));
            }
        }
        sum
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || share(thread))).collect();
        let own = share(0);
        others.into_iter().filter_map(|other| other.join().ok()).fold(own, u64::wrapping_add)
    })
}
