//! What a file's header says of a model: enough to plan memory and to work with text, without a single weight.

use super::ModelError;
use super::read_spec::read_spec;
use super::spec::ModelSpec;
use crate::format::gguf::{self, Counts, Gguf, GgufSlots};
use crate::mem::{Arena, Digest, Plan};
use crate::text::{Tokenizer, TokenizerSlots};

/// A model's descriptor and tokenizer: all that sessions are planned from (`Limits::plan_header`). A
/// [`Model`](super::Model) has one, and one can be had of the first bytes of a file, before its weights are there.
#[derive(Debug)]
pub struct ModelHeader<'a> {
    pub(super) file: Gguf<'a>,
    spec: ModelSpec,
    tokenizer: Option<Tokenizer<'a>>,
    // Behind everything that borrows from it.
    #[cfg(feature = "alloc")]
    pub(super) owner: Option<super::owned::HeaderOwner>,
}

/// The slots of a header's tables.
pub(super) struct HeaderSlots {
    gguf: GgufSlots,
    tokenizer: TokenizerSlots,
}

impl HeaderSlots {
    pub(super) fn plan(counts: &Counts, plan: &mut Plan) -> Result<Self, ModelError> {
        Ok(Self { gguf: Gguf::plan(counts, plan)?, tokenizer: Tokenizer::plan(counts, plan)? })
    }
}

impl<'a> ModelHeader<'a> {
    /// Bytes of memory that the tables of a header need. `header` is the file or its front part, `file_len` the length of
    /// the whole file in bytes.
    ///
    /// # Errors
    /// What is wrong with the header's structure; `FormatError::MoreHeader` when the front part is too short.
    pub fn size(header: &[u8], file_len: u64) -> Result<usize, ModelError> {
        let mut plan = Plan::new();
        HeaderSlots::plan(&gguf::scan(header, file_len)?, &mut plan)?;
        Ok(plan.bytes())
    }

    /// Checks a header and builds its tables in `memory`, which begins at a multiple of [`crate::mem::ALIGN`] and holds
    /// [`ModelHeader::size`] bytes. Whether the tensors have the shapes that the descriptor asks for shows only when the
    /// whole model is opened. Does not allocate.
    ///
    /// # Errors
    /// Everything that is wrong with the header, with the field and its offset; memory that is too small or misaligned.
    pub fn new(header: &'a [u8], file_len: u64, memory: &'a mut [u8]) -> Result<Self, ModelError> {
        let mut plan = Plan::new();
        let slots = HeaderSlots::plan(&gguf::scan(header, file_len)?, &mut plan)?;
        Self::build(header, file_len, &mut Arena::new(memory, &plan)?, &slots)
    }

    pub(super) fn build(
        header: &'a [u8],
        file_len: u64,
        arena: &mut Arena<'a>,
        slots: &HeaderSlots,
    ) -> Result<Self, ModelError> {
        let file = Gguf::read(header, file_len, arena, &slots.gguf)?;
        let spec = read_spec(&file)?;
        let tokenizer = match file.get("tokenizer.ggml.model") {
            Some(_) => Some(Tokenizer::load(&file, arena, &slots.tokenizer)?),
            None => None,
        };
        let tokens = tokenizer.as_ref().map(Tokenizer::vocab_len);
        if let Some(tokens) = tokens.filter(|tokens| *tokens > spec.vocab) {
            let offset = file.value_offset("tokenizer.ggml.tokens").unwrap_or(0);
            return Err(ModelError::VocabLength { tokens, rows: spec.vocab, offset });
        }
        Ok(Self {
            file,
            spec,
            tokenizer,
            #[cfg(feature = "alloc")]
            owner: None,
        })
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
}
