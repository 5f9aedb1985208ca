//! Several sequences: decoding together and one after the other, and sharing a prompt.

use super::{Report, ascending, ids, prepare};
use crate::Failure;
use crate::progress::read_prompt;
use locutor::model::Model;
use locutor::sample::Sampler;
use locutor::session::{Budget, Limits, SequenceId, Session};
use serde_json::json;
use std::time::Instant;

/// Runs the tests: a prompt of `p` tokens, `n` tokens to decode; 0 leaves a test out.
pub fn run(
    model: &Model<'_>,
    limits: Limits,
    (p, n): (usize, usize),
    report: &Report<'_>,
) -> Result<(), Failure> {
    let sequences = usize::from(report.arguments.sequences);
    let limits = limits.sequences(sequences);
    let mut session = model.session(limits)?;
    session.set_ignore_end(true);
    if n > 0 {
        decoding(&mut session, sequences, n, report)?;
    }
    if p > 0 {
        // What one more page adds to a plan.
        let kv_bytes = |pages: usize| Ok::<_, Failure>(limits.positions(16 * pages).plan(model)?.kv_bytes);
        let page_bytes = kv_bytes(2)? - kv_bytes(1)?;
        sharing(&mut session, (sequences, p), page_bytes, report)?;
    }
    Ok(())
}

/// The selected sequence and as many new ones as there may be.
fn open(session: &mut Session<'_>, sequences: usize) -> Result<Vec<SequenceId>, Failure> {
    let mut all = vec![session.selected()];
    for _ in 1..sequences {
        all.push(session.create()?);
    }
    Ok(all)
}

/// Closes all sequences but the first, which is emptied and selected.
fn close(session: &mut Session<'_>, all: &[SequenceId]) -> Result<(), Failure> {
    session.select(all[0])?;
    session.truncate(0)?;
    all[1..].iter().try_for_each(|id| session.close(*id))?;
    Ok(())
}

/// Decodes the same number of tokens in both ways, in turns.
fn decoding(
    session: &mut Session<'_>,
    sequences: usize,
    n: usize,
    report: &Report<'_>,
) -> Result<(), Failure> {
    let all = open(session, sequences)?;
    for id in &all {
        session.select(*id)?;
        session.set_ignore_end(true);
    }
    let mut speeds = [Vec::new(), Vec::new()];
    // The first turn is to warm up.
    for turn in 0..=report.arguments.r.max(1) {
        for (is_together, speeds) in [true, false].into_iter().zip(&mut speeds) {
            let speed = decode(session, &all, (report.arguments.d, n), is_together)?;
            speeds.extend((turn > 0).then_some(speed));
        }
    }
    let [together, apart] = speeds.map(ascending);
    let test = format!("tg{n}x{sequences}");
    for (is_together, speeds) in [(true, together), (false, apart)] {
        report.speeds(&test, &[("sequences", json!(sequences)), ("together", json!(is_together))], &speeds);
    }
    close(session, &all)
}

/// Tokens a second of decoding `n` tokens in each sequence, sampling included.
fn decode(
    session: &mut Session<'_>,
    all: &[SequenceId],
    (depth, n): (usize, usize),
    is_together: bool,
) -> Result<f64, Failure> {
    for id in all {
        session.select(*id)?;
        prepare(session, depth)?;
        read_prompt(session, &[1])?;
    }
    let mut sampler = Sampler::greedy();
    let groups = if is_together { all.chunks(all.len()) } else { all.chunks(1) };
    let start = Instant::now();
    for group in groups {
        for _ in 0..n {
            for id in group {
                session.select(*id)?;
                session.next_token(&mut sampler)?;
            }
            // One pass for the tokens of the whole group.
            session.advance(Budget::Unlimited)?;
        }
    }
    Ok((n * all.len()) as f64 / start.elapsed().as_secs_f64())
}

/// Brings all sequences to a prompt of `p` tokens, by forking one and by reading it in each, in turns.
fn sharing(
    session: &mut Session<'_>,
    (sequences, p): (usize, usize),
    page_bytes: usize,
    report: &Report<'_>,
) -> Result<(), Failure> {
    let prompt = ids(p, session.model().spec().vocab);
    let (mut times, mut forks, mut pages) = ([Vec::new(), Vec::new()], Vec::new(), [0; 2]);
    for turn in 0..=report.arguments.r.max(1) {
        for (is_fork, which) in [(true, 0), (false, 1)] {
            let before = session.pages().0;
            let start = Instant::now();
            let (all, fork) = match is_fork {
                true => fork(session, sequences, &prompt)?,
                false => (separate(session, sequences, &prompt)?, 0.0),
            };
            let time = 1e3 * start.elapsed().as_secs_f64();
            pages[which] = before - session.pages().0;
            if turn > 0 {
                times[which].push(time);
                forks.extend(is_fork.then_some(fork));
            }
            close(session, &all)?;
        }
    }
    let forks = ascending(forks);
    let test = format!("fork{p}x{sequences}");
    for ((is_fork, times), pages) in [true, false].into_iter().zip(times.map(ascending)).zip(pages) {
        let mut more = vec![
            ("sequences", json!(sequences)),
            ("forked", json!(is_fork)),
            ("pages", json!(pages)),
            ("kv_bytes", json!(pages * page_bytes)),
        ];
        if is_fork {
            more.push(("forks_alone_us_median", json!(forks[forks.len() / 2])));
        }
        report.show(&test, &more, &times, ("ms", "ms"));
    }
    Ok(())
}

/// Reads the prompt once and forks it; also the microseconds of the forks alone.
fn fork(
    session: &mut Session<'_>,
    sequences: usize,
    prompt: &[u32],
) -> Result<(Vec<SequenceId>, f64), Failure> {
    let mut all = vec![session.selected()];
    read_prompt(session, prompt)?;
    let start = Instant::now();
    for _ in 1..sequences {
        all.push(session.fork()?);
    }
    Ok((all, 1e6 * start.elapsed().as_secs_f64()))
}

/// Reads the prompt in every sequence.
fn separate(session: &mut Session<'_>, sequences: usize, prompt: &[u32]) -> Result<Vec<SequenceId>, Failure> {
    let all = open(session, sequences)?;
    for id in &all {
        session.select(*id)?;
        read_prompt(session, prompt)?;
    }
    Ok(all)
}
