//! How the session engine keeps its time: frames, cancelled calls, companions, and threads on a busy machine.
//!
//!     cargo bench --bench session -- [-m FILE] [frames|cancel|companions|threads]... [--frames N] [--no-sleep]
//!
//! Without a name all of them run. Without `-m` the model is the story model of the examples. Figures of time are those of
//! this machine while the bench runs: close other programs, and run it more than once.

use locutor::exec_threads::Threads;
use locutor::model::Model;
use locutor::{Budget, CancelFlag, Error, Exec, Limits, Sampler, Session, Step};
use std::time::{Duration, Instant};

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut path = format!("{}/examples/model/story.gguf", env!("CARGO_MANIFEST_DIR"));
    let (mut names, mut frames, mut sleeps) = (Vec::new(), 10_000, true);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-m" => path = arguments.next().expect("-m FILE"),
            "--frames" => frames = arguments.next().and_then(|n| n.parse().ok()).expect("--frames N"),
            "--no-sleep" => sleeps = false,
            "frames" | "cancel" | "companions" | "threads" => names.push(argument),
            other => panic!("what is {other}?"),
        }
    }
    let model = Model::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    if wanted("frames") {
        frame_loop(&model, frames, sleeps);
    }
    if wanted("cancel") {
        cancelled_prompts(&model);
    }
    if wanted("companions") {
        companions(&model);
    }
    if wanted("threads") {
        too_many_threads(&model);
    }
}

/// Token ids that spread over the vocabulary.
fn ids(len: usize, model: &Model<'_>) -> Vec<u32> {
    (0..len).map(|i| ((i * 7919 + 13) % model.spec().vocab) as u32).collect()
}

/// Positions that this bench uses, as far as the model has them.
fn context(model: &Model<'_>) -> usize {
    model.spec().context.min(640)
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

fn show(what: &str, mut values: Vec<f64>, unit: &str) {
    values.sort_by(f64::total_cmp);
    let [median, p99, max] = [0.5, 0.99, 1.0].map(|part| quantile(&values, part));
    println!(
        "{what}: median {median:.3} {unit}, p99 {p99:.3} {unit}, max {max:.3} {unit} ({} values)",
        values.len()
    );
}

/// A conversation that never ends: a prompt of half the context, an answer of the other half, and again.
struct Endless<'m> {
    session: Session<'m>,
    prompt: Vec<u32>,
    sampler: Sampler<'static>,
    /// Tokens read and tokens generated.
    read: usize,
    generated: usize,
}

impl<'m> Endless<'m> {
    fn new(model: &'m Model<'m>) -> Self {
        let context = context(model);
        let mut session = model.session(Limits::new().context(context)).unwrap();
        session.set_ignore_end(true);
        let mut endless = Self {
            session,
            prompt: ids(context / 2, model),
            sampler: Sampler::greedy(),
            read: 0,
            generated: 0,
        };
        endless.begin();
        endless
    }

    fn begin(&mut self) {
        self.session.truncate(0).unwrap();
        self.session.feed_tokens(&self.prompt).unwrap();
        self.read += self.prompt.len();
    }

    /// One call; whether its budget was used up.
    fn step(&mut self, budget: Budget<'_>) -> bool {
        if self.session.room() == 0 {
            self.begin();
        }
        match self.session.step(budget, &mut self.sampler).unwrap() {
            Step::Pending => true,
            Step::Piece(_) | Step::Token(_) => {
                self.generated += 1;
                false
            }
            Step::Done(_) => false,
        }
    }
}

/// A game at 60 frames a second that gives 2 ms of each to the model. Every now and then the same work is done without
/// a budget, to compare what it costs.
fn frame_loop(model: &Model<'_>, frames: usize, sleeps: bool) {
    const FRAME: Duration = Duration::from_micros(16_667);
    const SLICE: Duration = Duration::from_millis(2);
    let start = Instant::now();
    let clock = || start.elapsed().as_nanos() as u64;
    let mut late = Vec::with_capacity(frames);
    let (mut in_slices, mut whole) = (Endless::new(model), Endless::new(model));
    let (mut time_in_slices, mut time_whole) = (Duration::ZERO, Duration::ZERO);
    // One conversation each to warm up: the mapped weights, the caches, the estimate of the pace.
    while in_slices.generated < 16 {
        in_slices.step(Budget::Unlimited);
        whole.step(Budget::Unlimited);
    }
    in_slices.generated = 0;
    whole.generated = 0;
    let mut next = Instant::now();
    for _ in 0..frames {
        let begun = Instant::now();
        let at = clock() + SLICE.as_nanos() as u64;
        in_slices.step(Budget::Until { clock: &clock, at });
        let now = clock();
        time_in_slices += begun.elapsed();
        late.push(now.saturating_sub(at) as f64 / 1e6);
        next += FRAME;
        if sleeps {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        // The same conversation without a budget, as far as the other one is.
        while whole.generated < in_slices.generated {
            let begun = Instant::now();
            whole.step(Budget::Unlimited);
            time_whole += begun.elapsed();
        }
    }
    // What the slices have begun of a token that is not there yet.
    while in_slices.generated == whole.generated && in_slices.session.room() > 0 {
        let begun = Instant::now();
        in_slices.step(Budget::Unlimited);
        time_in_slices += begun.elapsed();
    }
    let begun = Instant::now();
    whole.step(Budget::Unlimited);
    time_whole += begun.elapsed();
    show("frames of 2 ms: late by", late, "ms");
    println!(
        "  {} tokens: {:.3} s in slices, {:.3} s at a time, ratio {:.3}",
        in_slices.generated,
        time_in_slices.as_secs_f64(),
        time_whole.as_secs_f64(),
        time_in_slices.as_secs_f64() / time_whole.as_secs_f64()
    );
}

/// A prompt that another thread calls off at a random time.
fn cancelled_prompts(model: &Model<'_>) {
    let cancel = CancelFlag::new();
    let mut session = model.session(Limits::new().context(context(model))).unwrap();
    session.set_cancel(Some(&cancel));
    let prompt = ids(context(model).min(512), model);
    let begun = Instant::now();
    session.feed_tokens(&prompt).unwrap();
    session.advance(Budget::Unlimited).unwrap();
    let whole = begun.elapsed();
    let mut latencies = Vec::new();
    let start = Instant::now();
    let mut random = 7u64;
    while latencies.len() < 400 {
        session.truncate(0).unwrap();
        session.feed_tokens(&prompt).unwrap();
        let hash = session.state_hash();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let after = whole.mul_f64((random >> 40) as f64 / (1u64 << 24) as f64 * 0.9);
        let (asked, result) = std::thread::scope(|scope| {
            let asker = scope.spawn(|| {
                std::thread::sleep(after);
                let asked = start.elapsed();
                cancel.cancel();
                asked
            });
            let result = session.advance(Budget::Unlimited);
            let returned = start.elapsed();
            (returned.saturating_sub(asker.join().unwrap()), result)
        });
        cancel.reset();
        if result == Err(Error::Cancelled) {
            assert_eq!(session.state_hash(), hash);
            latencies.push(asked.as_secs_f64() * 1e3);
        }
    }
    show(&format!("cancel during a prompt of {} tokens: latency", prompt.len()), latencies, "ms");
}

/// Eight sequences: decoded together and one after the other; forked from one prompt and each with its own.
fn companions(model: &Model<'_>) {
    const SEQUENCES: usize = 8;
    let tokens = 32.min(context(model) / 4);
    let context = context(model);
    let prompt = ids((context - tokens - 1).min(512), model);
    let limits = Limits::new().context(context).sequences(SEQUENCES);
    let mut session = model.session(limits).unwrap();
    session.set_ignore_end(true);
    let mut forked = Vec::new();
    let mut separate = Vec::new();
    let mut pages = [0; 2];
    let (mut together, mut apart) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut all = vec![session.selected()];
        let begun = Instant::now();
        session.truncate(0).unwrap();
        session.feed_tokens(&prompt).unwrap();
        session.advance(Budget::Unlimited).unwrap();
        all.extend((1..SEQUENCES).map(|_| session.fork().unwrap()));
        forked.push(begun.elapsed().as_secs_f64() * 1e3);
        pages[0] = session.pages().1 - session.pages().0;
        together.push(decode(&mut session, &all, tokens, true));
        for id in &all {
            session.select(*id).unwrap();
            session.truncate(prompt.len()).unwrap();
        }
        apart.push(decode(&mut session, &all, tokens, false));
        let begun = Instant::now();
        for id in &all {
            session.select(*id).unwrap();
            session.truncate(0).unwrap();
            session.feed_tokens(&prompt).unwrap();
            session.advance(Budget::Unlimited).unwrap();
        }
        separate.push(begun.elapsed().as_secs_f64() * 1e3);
        pages[1] = session.pages().1 - session.pages().0;
        session.select(all[0]).unwrap();
        all[1..].iter().for_each(|id| session.close(*id).unwrap());
    }
    let page = limits.plan(model).unwrap().kv_bytes / session.pages().1;
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let [forked, separate, together, apart] = [forked, separate, together, apart].map(median);
    println!(
        "8 sequences on one prompt of {} tokens: {forked:.1} ms and {} bytes of keys and values forked, {separate:.1} ms \
         and {} bytes each on its own",
        prompt.len(),
        pages[0] * page,
        pages[1] * page
    );
    println!(
        "8 sequences, {tokens} tokens each behind {}: {together:.1} tokens/s together, {apart:.1} one after the other, \
         ratio {:.2}",
        prompt.len(),
        together / apart
    );
}

/// Tokens a second of all sequences, each with its own words.
fn decode(session: &mut Session<'_>, all: &[locutor::SequenceId], tokens: usize, together: bool) -> f64 {
    let mut sampler = Sampler::greedy();
    for (i, id) in all.iter().enumerate() {
        session.select(*id).unwrap();
        session.feed_tokens(&[i as u32 + 1]).unwrap();
        session.advance(Budget::Unlimited).unwrap();
    }
    let begun = Instant::now();
    if together {
        for _ in 0..tokens {
            // Each gets its next token; the first to ask for logits computes those of all.
            for id in all {
                session.select(*id).unwrap();
                session.next_token(&mut sampler).unwrap();
            }
        }
        session.advance(Budget::Unlimited).unwrap();
    } else {
        for id in all {
            session.select(*id).unwrap();
            for _ in 0..tokens {
                session.next_token(&mut sampler).unwrap();
                session.advance(Budget::Unlimited).unwrap();
            }
        }
    }
    (all.len() * tokens) as f64 / begun.elapsed().as_secs_f64()
}

/// More threads than processors, and a pool with nothing to do.
fn too_many_threads(model: &Model<'_>) {
    let context = context(model);
    let prompt = ids(context / 4, model);
    let time = |threads: usize| {
        let pool = Threads::new(threads).unwrap();
        let exec: &dyn Exec = &pool;
        let mut session = model.session_on(Limits::new().context(context).threads(threads), exec).unwrap();
        session.set_ignore_end(true);
        let mut sampler = Sampler::greedy();
        let mut run = || {
            session.truncate(0).unwrap();
            session.feed_tokens(&prompt).unwrap();
            let begun = Instant::now();
            for _ in 0..32 {
                session.next_token(&mut sampler).unwrap();
            }
            begun.elapsed().as_secs_f64() * 1e3
        };
        run();
        run()
    };
    let counts = [1, 2, 4, 8];
    let mut times = counts.map(|_| Vec::new());
    for _ in 0..7 {
        for (count, times) in counts.iter().zip(&mut times) {
            times.push(time(*count));
        }
    }
    let medians = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    for (count, median) in counts.iter().zip(medians) {
        println!("a prompt of {} tokens and 32 more on {count} thread(s): {median:.1} ms", prompt.len());
    }
    println!("  8 threads take {:.2} times as long as 2", medians[3] / medians[1]);
    let pool = Threads::new(8).unwrap();
    pool.parallel_for(8, 64, &|_, _| ());
    std::thread::sleep(Duration::from_millis(100));
    let before = processor_time();
    std::thread::sleep(Duration::from_secs(2));
    if let (Some(before), Some(after)) = (before, processor_time()) {
        println!("an idle pool of 8 threads used {} ms of processor time in 2 s", after - before);
    }
}

/// Milliseconds of processor time of this process, where the system tells.
fn processor_time() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // User and system time in clock ticks of 10 ms (proc(5), fields 14 and 15).
    Some(10 * (fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?))
}
