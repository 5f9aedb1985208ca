//! Small valid models, one for each architecture and kind of tokenizer, in which everything has a place that is known.

use crate::gguf_builder::{Gguf as Build, Map, Val};

/// A valid model, and where everything in its file stands.
#[derive(Clone)]
pub struct Seed {
    pub name: &'static str,
    /// `general.architecture`.
    pub arch: &'static str,
    pub build: Build,
    pub file: Vec<u8>,
    pub map: Map,
}

impl Seed {
    fn new(name: &'static str, arch: &'static str, build: Build) -> Self {
        let (file, map) = build.build_mapped();
        Self { name, arch, build, file, map }
    }

    /// The seed with another content.
    pub fn of(&self, build: Build) -> Self {
        Self::new(self.name, self.arch, build)
    }

    pub fn kv_index(&self, key: &str) -> usize {
        let found = self.build.kv.iter().position(|(name, _)| name == key.as_bytes());
        found.unwrap_or_else(|| panic!("{}: no key {key}", self.name))
    }

    /// Where a pair stands: key length, key, value type, value.
    pub fn kv(&self, key: &str) -> [usize; 4] {
        self.map.kv[self.kv_index(key)]
    }

    pub fn tensor_index(&self, name: &str) -> usize {
        let found = self.build.tensors.iter().position(|tensor| tensor.name == name.as_bytes());
        found.unwrap_or_else(|| panic!("{}: no tensor {name}", self.name))
    }

    /// Where a tensor's entry stands: name length, name, rank, dimensions, type, offset.
    pub fn tensor(&self, name: &str) -> [usize; 6] {
        self.map.tensors[self.tensor_index(name)]
    }

    /// With another value under a key, which stays where it is or comes last.
    pub fn with(&self, key: &str, value: Val) -> Seed {
        let mut build = self.build.clone();
        match build.kv.iter_mut().find(|(name, _)| name == key.as_bytes()) {
            Some((_, old)) => *old = value,
            None => build.kv.push((key.into(), value)),
        }
        self.of(build)
    }

    pub fn without(&self, key: &str) -> Seed {
        let mut build = self.build.clone();
        build.kv.retain(|(name, _)| name != key.as_bytes());
        self.of(build)
    }

    /// With a tensor changed by `change`.
    pub fn with_tensor(&self, name: &str, change: impl FnOnce(&mut crate::gguf_builder::Tensor)) -> Seed {
        let mut build = self.build.clone();
        change(&mut build.tensors[self.tensor_index(name)]);
        self.of(build)
    }

    pub fn without_tensor(&self, name: &str) -> Seed {
        let mut build = self.build.clone();
        build.tensors.remove(self.tensor_index(name));
        self.of(build)
    }

    /// With one more tensor at the end.
    pub fn and_tensor(&self, name: &str, dims: &[u64], dtype: u32, data: Vec<u8>) -> Seed {
        self.of(self.build.clone().tensor(name, dims, dtype, data))
    }

    /// The file with other bytes at a place.
    pub fn patched(&self, at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut file = self.file.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    }

    /// The key with the architecture in front.
    pub fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.arch)
    }
}

pub const EMBD: u64 = 32;
pub const FF: u64 = 64;
pub const VOCAB: u64 = 24;
pub const CONTEXT: u64 = 64;

/// How matrices are stored.
#[derive(Clone, Copy, PartialEq)]
enum Store {
    F32,
    F16,
    Q8,
}

struct Maker {
    build: Build,
    random: u64,
    store: Store,
}

impl Maker {
    fn new(arch: &str, store: Store) -> Self {
        let build = Build::new().kv("general.architecture", Val::str(arch));
        Self { build, random: 0x9E37_79B9_7F4A_7C15, store }
    }

    fn value(&mut self) -> f32 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.random >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.5
    }

    fn kv(&mut self, key: impl AsRef<[u8]>, value: Val) {
        self.build.kv.push((key.as_ref().to_vec(), value));
    }

    fn vector(&mut self, name: &str, len: u64, around: f32) {
        let data = (0..len).flat_map(|_| (around + self.value() / 4.0).to_le_bytes()).collect();
        self.build = std::mem::take(&mut self.build).tensor(name, &[len], 0, data);
    }

    fn matrix(&mut self, name: &str, cols: u64, rows: u64) {
        let mut data = Vec::new();
        let (dtype, dims) = match self.store {
            Store::F32 => (0, [cols, rows]),
            Store::F16 => (1, [cols, rows]),
            Store::Q8 => (8, [cols, rows]),
        };
        for index in 0..cols * rows {
            let value = self.value();
            match self.store {
                Store::F32 => data.extend(value.to_le_bytes()),
                // Halves with the exponents of 1/16 to 1/2 are enough to have something to compute.
                Store::F16 => {
                    let bits = (value.to_bits() >> 16 & 0x8000) as u16
                        | 0x2C00
                        | ((index as u16).wrapping_mul(37) & 0x3FF);
                    data.extend(bits.to_le_bytes());
                }
                Store::Q8 => {
                    if index % 32 == 0 {
                        data.extend(0x1C00u16.to_le_bytes());
                    }
                    data.push((value * 250.0) as i8 as u8);
                }
            }
        }
        self.build = std::mem::take(&mut self.build).tensor(name, &dims, dtype, data);
    }

    /// Hyper-parameters that all have.
    fn sizes(&mut self, arch: &str, eps: &str) {
        let key = |rest: &str| format!("{arch}.{rest}");
        self.kv(key("context_length"), Val::U32(CONTEXT as u32));
        self.kv(key("embedding_length"), Val::U32(EMBD as u32));
        self.kv(key("block_count"), Val::U32(2));
        self.kv(key("feed_forward_length"), Val::U32(FF as u32));
        self.kv(key("attention.head_count"), Val::U32(2));
        self.kv(key(eps), Val::F32(1e-5));
    }

    /// A byte-level vocabulary.
    fn bpe(&mut self, pre: &str) {
        let tokens = [
            "a",
            "b",
            "c",
            "d",
            "e",
            "Ġ",
            "ab",
            "Ġab",
            "cd",
            "abcd",
            "Ċ",
            "Ġa",
            "!",
            "1",
            "2",
            "12",
            "é",
            "Ã",
            "<|endoftext|>",
            "<|im_end|>",
            "de",
            "ee",
            "Ġe",
            "x",
        ];
        let kinds: Vec<i32> = tokens.iter().map(|text| if text.starts_with("<|") { 3 } else { 1 }).collect();
        assert_eq!(tokens.len() as u64, VOCAB);
        self.kv("tokenizer.ggml.model", Val::str("gpt2"));
        self.kv("tokenizer.ggml.pre", Val::str(pre));
        self.kv("tokenizer.ggml.tokens", Val::strings(&tokens));
        self.kv("tokenizer.ggml.token_type", Val::i32s(&kinds));
        let merges = ["a b", "Ġ ab", "c d", "ab cd", "Ġ a", "1 2", "d e", "e e", "Ġ e"];
        self.kv("tokenizer.ggml.merges", Val::strings(&merges));
        self.kv("tokenizer.ggml.eos_token_id", Val::U32(18));
    }

    /// A SentencePiece vocabulary.
    fn spm(&mut self) {
        let tokens = [
            "<unk>", "<s>", "</s>", "<0x0A>", "<0x61>", "<0xFF>", "▁", "a", "b", "▁b", "bb", "c", "ab",
            "▁ab", "abc", "d", "e", "de", "▁de", "<start>", "  ", "x", "y", "xy",
        ];
        let kinds = [2, 3, 3, 6, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 4, 1, 1, 1];
        let scores: Vec<f32> = (0..VOCAB).map(|id| -(id as f32) / 3.0).collect();
        assert_eq!(tokens.len() as u64, VOCAB);
        self.kv("tokenizer.ggml.model", Val::str("llama"));
        self.kv("tokenizer.ggml.tokens", Val::strings(&tokens));
        self.kv("tokenizer.ggml.scores", Val::f32s(&scores));
        self.kv("tokenizer.ggml.token_type", Val::i32s(&kinds));
        self.kv("tokenizer.ggml.bos_token_id", Val::U32(1));
        self.kv("tokenizer.ggml.eos_token_id", Val::U32(2));
        self.kv("tokenizer.ggml.add_bos_token", Val::Bool(true));
    }

    fn finish(self, name: &'static str, arch: &'static str) -> Seed {
        Seed::new(name, arch, self.build)
    }
}

/// GPT-2: learned positions, biases, byte-level BPE.
pub fn gpt2() -> Seed {
    let mut m = Maker::new("gpt2", Store::F32);
    m.sizes("gpt2", "attention.layer_norm_epsilon");
    m.bpe("gpt-2");
    m.matrix("token_embd.weight", EMBD, VOCAB);
    m.matrix("position_embd.weight", EMBD, CONTEXT);
    m.vector("output_norm.weight", EMBD, 1.0);
    m.vector("output_norm.bias", EMBD, 0.0);
    for layer in 0..2 {
        let both = |m: &mut Maker, name: &str, cols: Option<u64>, rows: u64| {
            match cols {
                Some(cols) => m.matrix(&format!("blk.{layer}.{name}.weight"), cols, rows),
                None => m.vector(&format!("blk.{layer}.{name}.weight"), rows, 1.0),
            }
            m.vector(&format!("blk.{layer}.{name}.bias"), rows, 0.0);
        };
        both(&mut m, "attn_norm", None, EMBD);
        both(&mut m, "attn_qkv", Some(EMBD), 3 * EMBD);
        both(&mut m, "attn_output", Some(EMBD), EMBD);
        both(&mut m, "ffn_norm", None, EMBD);
        both(&mut m, "ffn_up", Some(EMBD), FF);
        both(&mut m, "ffn_down", Some(FF), EMBD);
    }
    m.finish("gpt2", "gpt2")
}

/// The layers of Llama and of Gemma 3.
fn gated_layers(m: &mut Maker, kv_rows: u64, gemma: bool) {
    for layer in 0..2 {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        m.vector(&name("attn_norm"), EMBD, 1.0);
        m.matrix(&name("attn_q"), EMBD, EMBD);
        m.matrix(&name("attn_k"), EMBD, kv_rows);
        m.matrix(&name("attn_v"), EMBD, kv_rows);
        if gemma {
            m.vector(&name("attn_q_norm"), 16, 1.0);
            m.vector(&name("attn_k_norm"), 16, 1.0);
        }
        m.matrix(&name("attn_output"), EMBD, EMBD);
        if gemma {
            m.vector(&name("post_attention_norm"), EMBD, 1.0);
        }
        m.vector(&name("ffn_norm"), EMBD, 1.0);
        m.matrix(&name("ffn_gate"), EMBD, FF);
        m.matrix(&name("ffn_up"), EMBD, FF);
        m.matrix(&name("ffn_down"), FF, EMBD);
        if gemma {
            m.vector(&name("post_ffw_norm"), EMBD, 1.0);
        }
    }
}

/// Llama: grouped heads, tied head, SentencePiece.
pub fn llama() -> Seed {
    let mut m = Maker::new("llama", Store::F32);
    m.sizes("llama", "attention.layer_norm_rms_epsilon");
    m.kv("llama.attention.head_count_kv", Val::U32(1));
    m.kv("llama.rope.dimension_count", Val::U32(16));
    m.kv("llama.rope.freq_base", Val::F32(10_000.0));
    m.spm();
    m.matrix("token_embd.weight", EMBD, VOCAB);
    m.vector("output_norm.weight", EMBD, 1.0);
    gated_layers(&mut m, 16, false);
    m.finish("llama", "llama")
}

/// Llama 3: divisors of the rotation's frequencies, a head of its own, halves, byte-level BPE of another split.
pub fn llama3() -> Seed {
    let mut m = Maker::new("llama", Store::F16);
    m.sizes("llama", "attention.layer_norm_rms_epsilon");
    m.kv("llama.attention.head_count_kv", Val::U32(2));
    m.bpe("llama-bpe");
    m.matrix("token_embd.weight", EMBD, VOCAB);
    m.vector("output_norm.weight", EMBD, 1.0);
    m.matrix("output.weight", EMBD, VOCAB);
    m.vector("rope_freqs.weight", 8, 2.0);
    gated_layers(&mut m, 32, false);
    m.finish("llama3", "llama")
}

/// Gemma 3: norms around, a window, SentencePiece without a blank in front.
pub fn gemma3() -> Seed {
    let mut m = Maker::new("gemma3", Store::F32);
    m.sizes("gemma3", "attention.layer_norm_rms_epsilon");
    m.kv("gemma3.attention.head_count_kv", Val::U32(1));
    m.kv("gemma3.attention.key_length", Val::U32(16));
    m.kv("gemma3.attention.value_length", Val::U32(16));
    m.kv("gemma3.attention.sliding_window", Val::U32(16));
    m.kv("gemma3.attention.sliding_window_pattern", Val::U32(2));
    m.kv("gemma3.rope.freq_base", Val::F32(1e6));
    m.kv("gemma3.final_logit_softcapping", Val::F32(30.0));
    m.spm();
    m.kv("tokenizer.ggml.add_space_prefix", Val::Bool(false));
    m.matrix("token_embd.weight", EMBD, VOCAB);
    m.vector("output_norm.weight", EMBD, 1.0);
    gated_layers(&mut m, 16, true);
    m.finish("gemma3", "gemma3")
}

/// Llama in blocks of 8 bits, with an alignment of its own and numbers of other widths.
pub fn quantised() -> Seed {
    let mut m = Maker::new("llama", Store::Q8);
    m.build = m.build.aligned(64);
    m.kv("llama.context_length", Val::U64(CONTEXT));
    m.kv("llama.embedding_length", Val::I32(EMBD as i32));
    m.kv("llama.block_count", Val::U8(2));
    m.kv("llama.feed_forward_length", Val::I64(FF as i64));
    m.kv("llama.attention.head_count", Val::U16(2));
    m.kv("llama.attention.head_count_kv", Val::I16(1));
    m.kv("llama.attention.layer_norm_rms_epsilon", Val::F64(1e-5));
    m.kv("llama.rope.scaling.type", Val::str("linear"));
    m.kv("llama.rope.scaling.factor", Val::F32(2.0));
    m.spm();
    m.matrix("token_embd.weight", EMBD, VOCAB);
    m.vector("output_norm.weight", EMBD, 1.0);
    gated_layers(&mut m, 16, false);
    m.finish("quantised", "llama")
}

pub fn all() -> [Seed; 5] {
    [gpt2(), llama(), llama3(), gemma3(), quantised()]
}
