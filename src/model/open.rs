//! A model: a checked file, its descriptor, its weights and its tokenizer, in one block of memory.

use super::ModelError;
use super::forward::Forward;
use super::header::{HeaderSlots, ModelHeader};
use super::spec::ModelSpec;
use super::weights::{WeightSlots, Weights};
use crate::format::gguf::{self, Counts, Gguf};
use crate::format::source::ModelBytes;
use crate::mem::{Arena, Plan};
use crate::text::Tokenizer;

/// A model, ready for sessions. It is immutable and may be shared by threads.
///
/// `'a` is the lifetime of the file's bytes and of the block of memory that holds the tables; models that were opened
/// from a path own both and are `Model<'static>`.
#[derive(Debug)]
pub struct Model<'a> {
    header: ModelHeader<'a>,
    weights: Weights<'a>,
    memory_bytes: usize,
    // Behind everything that borrows from it.
    #[cfg(feature = "alloc")]
    pub(super) owner: Option<super::owned::Owner>,
}

fn plan(counts: &Counts) -> Result<(Plan, HeaderSlots, WeightSlots), ModelError> {
    let mut plan = Plan::new();
    let header = HeaderSlots::plan(counts, &mut plan)?;
    let weights = Weights::plan(counts, &mut plan)?;
    Ok((plan, header, weights))
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
        let (plan, header_slots, weight_slots) = plan(&gguf::scan(file.header, file_len)?)?;
        let mut arena = Arena::new(memory, &plan)?;
        let header = ModelHeader::build(file.header, file_len, &mut arena, &header_slots)?;
        let weights = Weights::load(header.spec(), &header.file, file.data, &mut arena, &weight_slots)?;
        Ok(Model {
            header,
            weights,
            memory_bytes: plan.bytes(),
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

    /// Descriptor and tokenizer.
    pub fn header(&self) -> &ModelHeader<'a> {
        &self.header
    }

    /// The descriptor.
    pub fn spec(&self) -> &ModelSpec {
        self.header.spec()
    }

    /// Metadata and tensor directory of the file.
    pub fn file(&self) -> &Gguf<'_> {
        self.header.file()
    }

    /// The tokenizer; `None` for a file without one, which takes and gives token ids alone.
    pub fn tokenizer(&self) -> Option<&Tokenizer<'_>> {
        self.header.tokenizer()
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
        Forward { spec: self.spec(), weights: &self.weights }
    }
}
