//! Options that several subcommands share.

use crate::Failure;
use clap::{Args, ValueEnum};
use locutor::kv::KvType;
use locutor::model::Model;
use locutor::model::plan::Precisions;
use locutor::sample::Sampler;
use locutor::session::{Limits, Session};
use locutor::tensor::Precision;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Which model, and how it is opened.
#[derive(Args)]
pub struct ModelOptions {
    /// GGUF file of the model [default: the embedded story model].
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Map the file instead of reading it. Nobody may change or truncate it while the tool runs.
    #[arg(long)]
    pub map: bool,
}

impl ModelOptions {
    /// Opens the model.
    pub fn open(&self) -> Result<Model<'static>, Failure> {
        crate::open::model(self.model.as_deref(), self.map)
    }
}

/// How activations are rounded where weights are quantised.
#[derive(Clone, Copy, ValueEnum)]
pub enum Rounding {
    /// 16 bits for queries, keys, values and logits, 8 bits for the rest.
    Default,
    /// 8 bits everywhere.
    #[value(name = "8")]
    Bits8,
    /// 16 bits everywhere: nearly float32.
    #[value(name = "16")]
    Bits16,
}

/// Storage of keys and of values: `TYPE`, or `KEYS,VALUES`.
fn kv(text: &str) -> Result<(KvType, KvType), String> {
    let one = |name: &str| match name {
        "f16" => Ok(KvType::F16),
        "f32" => Ok(KvType::F32),
        "q8_0" => Ok(KvType::Q8_0),
        _ => Err(format!("'{name}' is none of f16, f32, q8_0")),
    };
    match text.split_once(',') {
        Some((keys, values)) => Ok((one(keys)?, one(values)?)),
        None => one(text).map(|both| (both, both)),
    }
}

/// What a session may use.
#[derive(Args)]
pub struct RunOptions {
    /// Threads; results do not depend on them.
    #[arg(short, long, value_name = "N", default_value_t = default_threads())]
    pub threads: usize,
    #[command(flatten)]
    pub limits: LimitOptions,
}

/// What a session may use, threads aside.
#[derive(Args)]
pub struct LimitOptions {
    /// Positions of prompt and answer together [default: the model's, at most 4096].
    #[arg(short, long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub context: usize,
    /// Prompt tokens that are computed together; results do not depend on it.
    #[arg(short, long, value_name = "N", default_value_t = Limits::DEFAULT_BATCH)]
    pub batch: usize,
    /// Storage of keys and values: f16, f32 (twice the memory) or q8_0 (about half), for both or as KEYS,VALUES.
    #[arg(long, value_name = "TYPE", value_parser = kv, default_value = "f16")]
    pub kv: (KvType, KvType),
    /// Rounding of activations for quantised weights.
    #[arg(long, value_enum, default_value = "default")]
    pub precision: Rounding,
}

/// One thread a core, at most 8.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get().min(8))
}

impl RunOptions {
    /// The limits of a session.
    pub fn limits(&self) -> Result<Limits, Failure> {
        self.limits.limits(self.threads)
    }
}

impl LimitOptions {
    /// The limits of a session on so many threads.
    pub fn limits(&self, threads: usize) -> Result<Limits, Failure> {
        let precisions = match self.precision {
            Rounding::Default => Precisions::default(),
            Rounding::Bits8 => Precisions::all(Precision::Bits8),
            Rounding::Bits16 => Precisions::all(Precision::Bits16),
        };
        let (keys, values) = self.kv;
        let limits = Limits::new().context(self.context).batch(self.batch).threads(threads);
        Ok(limits.kv_types(keys, values).precisions(precisions).kernels(crate::open::kernels()?))
    }
}

/// How the next token is chosen.
#[derive(Args)]
pub struct SamplingOptions {
    /// Higher is more varied; 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.7, value_name = "T", allow_negative_numbers = true)]
    temperature: f32,
    /// Choose among the K likeliest tokens; 0 for all.
    #[arg(long, default_value_t = 40, value_name = "K")]
    top_k: u32,
    /// Choose among the likeliest tokens that have this share of the probability together.
    #[arg(long, default_value_t = 0.95, value_name = "P")]
    top_p: f32,
    /// Choose among tokens with at least this share of the likeliest one's probability.
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    min_p: f32,
    /// Divide the logits of recent tokens by this; 1 for no penalty.
    #[arg(long, default_value_t = 1.0, value_name = "R")]
    repeat_penalty: f32,
    /// Subtract this from a logit for each time its token came recently.
    #[arg(long, default_value_t = 0.0, value_name = "R", allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Subtract this from a logit if its token came recently.
    #[arg(long, default_value_t = 0.0, value_name = "R", allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Tokens that count as recent.
    #[arg(long, default_value_t = 64, value_name = "N")]
    penalty_last_n: u32,
    /// Seed of the random numbers [default: from the clock; shown on stderr].
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Always take the likeliest token.
    #[arg(long, conflicts_with = "temperature")]
    greedy: bool,
}

impl SamplingOptions {
    /// The sampler, and the seed if it draws.
    pub fn sampler(&self) -> Result<(Sampler<'static>, Option<u64>), Failure> {
        let drawn = || {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.map_or(0, |since| since.subsec_nanos().into())
        };
        let seed = self.seed.unwrap_or_else(drawn);
        let temperature = if self.greedy { 0.0 } else { self.temperature };
        let sampler = Sampler::greedy()
            .temperature(temperature)?
            .top_k(self.top_k)
            .top_p(self.top_p)?
            .min_p(self.min_p)?
            .repeat_penalty(self.repeat_penalty)?
            .frequency_penalty(self.frequency_penalty)?
            .presence_penalty(self.presence_penalty)?
            .penalty_last_n(self.penalty_last_n)
            .seed(seed);
        Ok((sampler, (temperature > 0.0).then_some(seed)))
    }
}

/// Where a continuation ends.
#[derive(Args)]
pub struct EndOptions {
    /// Go on after a token that ends a text.
    #[arg(long)]
    pub ignore_eos: bool,
    /// Stop before this text; may be given several times.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
}

impl EndOptions {
    /// Limits with room for the stop strings.
    pub fn limits(&self, limits: Limits) -> Limits {
        limits.stops(self.stop.len(), self.stop.iter().map(String::len).max().unwrap_or(0))
    }

    /// Sets a session up.
    pub fn apply(&self, session: &mut Session<'_>) -> Result<(), Failure> {
        let stops: Vec<&str> = self.stop.iter().map(String::as_str).collect();
        session.set_stops(&stops)?;
        session.set_ignore_end(self.ignore_eos);
        Ok(())
    }
}

/// A text given as an argument, as a file, or on stdin (`-`).
#[derive(Args)]
pub struct TextOptions {
    /// The text; `-` reads it from stdin.
    #[arg(value_name = "TEXT", required_unless_present = "file")]
    text: Option<String>,
    /// Read the text from a file.
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
}

impl TextOptions {
    /// The text, which must be UTF-8.
    pub fn read(&self) -> Result<String, Failure> {
        match (&self.text, &self.file) {
            (_, Some(file)) => read_text(file),
            (Some(text), None) if text == "-" => read_stdin(),
            (text, None) => Ok(text.clone().unwrap_or_default()),
        }
    }
}

/// Standard input's text.
pub fn read_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    utf8("standard input", bytes)
}

/// A file's text.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    utf8(&path.display().to_string(), bytes)
}

/// Bytes that must be UTF-8; `name` says where they come from.
pub fn utf8(name: &str, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("{name}: not UTF-8 text: bad byte at offset {at}").into()
    })
}
