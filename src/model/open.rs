//! A model: a checked file, its descriptor, its weights and its tokenizer, in one block of memory.

use super::ModelError;
use super::forward::Forward;
use super::read_spec::read_spec;
use super::spec::ModelSpec;
use super::weights::{WeightSlots, Weights};
use crate::format::gguf::{self, Counts, Gguf, GgufSlots};
use crate::format::source::ModelBytes;
use crate::mem::{Arena, Digest, Plan};
use crate::text::{Tokenizer, TokenizerSlots};

/// A model, ready for sessions. It is immutable and may be shared by threads.
///
/// `'a` is the lifetime of the file's bytes and of the block of memory that holds the tables; models that were opened
/// from a path own both and are `Model<'static>`.
#[derive(Debug)]
pub struct Model<'a> {
    file: Gguf<'a>,
    spec: ModelSpec,
    weights: Weights<'a>,
    tokenizer: Option<Tokenizer<'a>>,
    memory_bytes: usize,
    // Behind everything that borrows from it.
    #[cfg(feature = "alloc")]
    pub(super) owner: Option<super::owned::Owner>,
}

/// The slots of a model's tables.
struct Slots {
    gguf: GgufSlots,
    weights: WeightSlots,
    tokenizer: TokenizerSlots,
}

fn plan(counts: &Counts) -> Result<(Plan, Slots), ModelError> {
    let mut plan = Plan::new();
    let gguf = Gguf::plan(counts, &mut plan)?;
    let weights = Weights::plan(counts, &mut plan)?;
    let tokenizer = Tokenizer::plan(counts, &mut plan)?;
    Ok((plan, Slots { gguf, weights, tokenizer }))
}

impl<'a> Model<'a> {
    /// Bytes of memory that the tables of this file need. Reads the header alone.
    ///
    /// # Errors
    /// As [`Model::new`], as far as the header's structure is concerned.
    pub fn size(file: &ModelBytes<'_>) -> Result<usize, ModelError> {
        Ok(plan(&gguf::scan(file.header, file.data.len() as u64)?)?.0.bytes())
    }

    /// Checks a file completely and builds its tables in `memory`, which begins at a multiple of [`crate::mem::ALIGN`]
    /// and holds [`Model::size`] bytes. Weights and strings stay where they are. Does not allocate.
    ///
    /// # Errors
    /// Everything that is wrong with the file, with the field and its offset; memory that is too small or misaligned.
    pub fn new(file: ModelBytes<'a>, memory: &'a mut [u8]) -> Result<Model<'a>, ModelError> {
        let file_len = file.data.len() as u64;
        let (plan, slots) = plan(&gguf::scan(file.header, file_len)?)?;
        let mut arena = Arena::new(memory, &plan)?;
        let gguf = Gguf::read(file.header, file_len, &mut arena, &slots.gguf)?;
        let spec = read_spec(&gguf)?;
        let weights = Weights::load(&spec, &gguf, file.data, &mut arena, &slots.weights)?;
        let tokenizer = match gguf.get("tokenizer.ggml.model") {
            Some(_) => Some(Tokenizer::load(&gguf, &mut arena, &slots.tokenizer)?),
            None => None,
        };
        if let Some(tokens) =
            tokenizer.as_ref().map(Tokenizer::vocab_len).filter(|tokens| *tokens > spec.vocab)
        {
            let offset = gguf.value_offset("tokenizer.ggml.tokens").unwrap_or(0);
            return Err(ModelError::VocabLength { tokens, rows: spec.vocab, offset });
        }
        let memory_bytes = plan.bytes();
        Ok(Model {
            file: gguf,
            spec,
            weights,
            tokenizer,
            memory_bytes,
            #[cfg(feature = "alloc")]
            owner: None,
        })
    }

    /// As [`Model::new`], for a file whose bytes are all in memory, such as a `static` in flash.
    ///
    /// # Errors
    /// As [`Model::new`].
    pub fn from_bytes(bytes: &'a [u8], memory: &'a mut [u8]) -> Result<Model<'a>, ModelError> {
        Self::new(ModelBytes::new(bytes), memory)
    }

    /// The descriptor.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Metadata and tensor directory of the file.
    pub fn file(&self) -> &Gguf<'_> {
        &self.file
    }

    /// A digest of the metadata and the tensor directory: files that differ in more than weights have different ones, as
    /// good as certainly. Reads the whole header.
    pub fn digest(&self) -> u64 {
        let mut digest = Digest::new();
        digest.add(self.file.header());
        digest.value()
    }

    /// The tokenizer; `None` for a file without one, which takes and gives token ids alone.
    pub fn tokenizer(&self) -> Option<&Tokenizer<'_>> {
        self.tokenizer.as_ref()
    }

    /// The weights.
    pub fn weights(&self) -> &Weights<'_> {
        &self.weights
    }

    /// Bytes of the tables.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// The forward pass of this model.
    pub fn forward(&self) -> Forward<'_> {
        Forward { spec: &self.spec, weights: &self.weights }
    }
}
