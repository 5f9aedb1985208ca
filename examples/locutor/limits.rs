//! Options for what a session may use.

use crate::{Failure, Usage};
use clap::{Args, ValueEnum};
use locutor::kv::KvType;
use locutor::model::plan::Precisions;
use locutor::session::{ContextPolicy, Limits};
use locutor::tensor::Precision;

/// How activations are rounded where weights are quantised.
#[derive(Clone, Copy, ValueEnum)]
pub enum Rounding {
    /// 16 bits for logits and for what stands out by its size, 8 bits for the rest.
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
        "i16" => Ok(KvType::I16),
        "f16" => Ok(KvType::F16),
        "f32" => Ok(KvType::F32),
        "q8_0" => Ok(KvType::Q8_0),
        _ => Err(format!("'{name}' is none of i16, f16, f32, q8_0")),
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
    /// Prompt tokens that are computed together; results do not depend on it [default: 192].
    #[arg(short, long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub batch: usize,
    /// Storage of keys and values: i16, f16 (slower), f32 (twice the memory) or q8_0 (about half), for both or as KEYS,VALUES.
    #[arg(long, value_name = "TYPE", value_parser = kv, default_value = "i16")]
    pub kv: (KvType, KvType),
    /// When the context is full: stop; shift, which forgets half of it at a time; or slide, where every token sees the
    /// first and the last ones (rotary positions only).
    #[arg(long, value_enum)]
    pub policy: Option<PolicyName>,
    /// Tokens at the beginning that shift (in whole pages of 16) and slide never forget [default: 4; chat: the system
    /// prompt].
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
    /// Threads of a pass of one token a sequence [default: as many as of all others].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub decode_threads: usize,
    /// Rounding of activations for quantised weights.
    #[arg(long, value_enum, default_value = "default")]
    pub precision: Rounding,
}

/// One thread a core, at most 8.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get().min(8))
}

/// What a sequence does when its context is full.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyName {
    /// The text ends.
    Stop,
    /// Half of what is not kept is forgotten, as often as needed.
    Shift,
    /// Every token sees the first tokens and the last ones.
    Slide,
}

/// Tokens that are kept if nothing else is said: models rely on the first ones of a text.
pub const KEEP: usize = 4;

impl RunOptions {
    /// The limits of a session.
    pub fn limits(&self) -> Result<Limits, Failure> {
        self.limits.limits(self.threads)
    }
}

impl LimitOptions {
    /// The limits of a session on so many threads.
    pub fn limits(&self, threads: usize) -> Result<Limits, Failure> {
        self.limits_with(threads, self.policy(PolicyName::Stop, KEEP)?)
    }

    /// As [`LimitOptions::limits`], with a policy.
    pub fn limits_with(&self, threads: usize, policy: ContextPolicy) -> Result<Limits, Failure> {
        let precisions = match self.precision {
            Rounding::Default => Precisions::default(),
            Rounding::Bits8 => Precisions::all(Precision::Bits8),
            Rounding::Bits16 => Precisions::all(Precision::Bits16),
        };
        let (keys, values) = self.kv;
        let limits = Limits::new().context(self.context).batch(self.batch).threads(threads);
        let limits = limits.decode_threads(self.decode_threads).policy(policy);
        Ok(limits.kv_types(keys, values).precisions(precisions).kernels(crate::open::kernels()?))
    }

    /// The policy asked for, or the one of `default` that keeps `keep` tokens.
    pub fn policy(&self, default: PolicyName, keep: usize) -> Result<ContextPolicy, Failure> {
        let keep = self.keep.unwrap_or(keep);
        match self.policy.unwrap_or(default) {
            PolicyName::Stop if self.keep.is_some() => {
                Err(Usage("--keep needs --policy shift or --policy slide".into()).into())
            }
            PolicyName::Stop => Ok(ContextPolicy::Stop),
            PolicyName::Shift => Ok(ContextPolicy::Shift { keep }),
            PolicyName::Slide => Ok(ContextPolicy::Slide { sinks: keep }),
        }
    }

    /// Whether a text may be longer than the context.
    pub fn forgets(&self) -> bool {
        self.policy.is_some_and(|policy| policy != PolicyName::Stop)
    }
}
