//! Why a model cannot be used.

use crate::format::FormatError;
pub use crate::format::Name;
use crate::mem::MemError;
use crate::num::{Decimal, Overflow};
use crate::tensor::DType;
use crate::text::TextError;
use core::fmt;
use thiserror::Error;

/// Why a file's contents do not make a model.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file is damaged or of a kind that is not read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The vocabulary is damaged or of a kind that is not read.
    #[error("tokenizer: {0}")]
    Text(#[from] TextError),
    /// Memory for the tables.
    #[error(transparent)]
    Memory(#[from] MemError),
    /// `general.architecture` names a family that is not known.
    #[error(
        "general.architecture at byte {offset}: unknown architecture `{name}` (known: gpt2, llama, gemma3)"
    )]
    Architecture {
        /// The name.
        name: Name,
        /// Absolute offset of the value in the file.
        offset: u64,
    },
    /// The model needs something that is not computed yet.
    #[error("not supported: {what}")]
    Unsupported {
        /// What it is.
        what: &'static str,
    },
    /// A hyper-parameter is missing.
    #[error("metadata key `{arch}.{key}` is missing")]
    MissingKey {
        /// Prefix of the key.
        arch: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A hyper-parameter makes no sense.
    #[error("metadata key `{arch}.{key}`{}: value {} is out of range ({rule})", At(*offset), Decimal(*.value))]
    HyperParameter {
        /// Prefix of the key.
        arch: &'static str,
        /// The key.
        key: &'static str,
        /// The value.
        value: f64,
        /// What it must be.
        rule: &'static str,
        /// Absolute offset of the value in the file; `None` for a value that follows from others.
        offset: Option<u64>,
    },
    /// A tensor is missing.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// Its name.
        name: Name,
    },
    /// A tensor that changes the model's results, but that its family does not use.
    #[error("tensor `{name}` at byte {offset} is not part of this architecture as it is known here")]
    UnexpectedTensor {
        /// Its name.
        name: Name,
        /// Absolute offset of the name in the file.
        offset: u64,
    },
    /// A tensor has another shape than the hyper-parameters ask for.
    #[error(
        "tensor `{name}` at byte {offset}: shape {got:?} instead of {expected:?} (values of a row, rows)"
    )]
    Shape {
        /// Its name.
        name: Name,
        /// Values of a row, rows.
        expected: [u64; 2],
        /// The same of the file.
        got: [u64; 2],
        /// Absolute offset of the first dimension in the file.
        offset: u64,
    },
    /// A tensor has a type that its role cannot have.
    #[error("tensor `{name}` at byte {offset}: type {dtype} is not possible here")]
    TensorType {
        /// Its name.
        name: Name,
        /// Its type.
        dtype: DType,
        /// Absolute offset of the type in the file.
        offset: u64,
    },
    /// A vector has a value that is infinite or not a number.
    #[error("tensor `{name}` at byte {offset}: value {index} is not finite")]
    NonFinite {
        /// Its name.
        name: Name,
        /// Index of the value.
        index: usize,
        /// Absolute offset in the file of the value, or of its block.
        offset: u64,
    },
    /// The vocabulary and the embedding have different lengths.
    #[error("the vocabulary at byte {offset} has {tokens} tokens, the embedding {rows} rows")]
    VocabLength {
        /// Tokens of the vocabulary.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
        /// Absolute offset of the vocabulary in the file.
        offset: u64,
    },
    /// Sizes that do not fit this machine.
    #[error(transparent)]
    Overflow(#[from] Overflow),
}

impl ModelError {
    /// The absolute byte offset in the file, for errors that concern a place in it.
    pub fn offset(&self) -> Option<u64> {
        match *self {
            Self::Format(error) => error.offset(),
            Self::Text(error) => error.offset(),
            Self::HyperParameter { offset, .. } => offset,
            Self::Architecture { offset, .. }
            | Self::UnexpectedTensor { offset, .. }
            | Self::Shape { offset, .. }
            | Self::TensorType { offset, .. }
            | Self::NonFinite { offset, .. }
            | Self::VocabLength { offset, .. } => Some(offset),
            Self::Memory(_)
            | Self::Unsupported { .. }
            | Self::MissingKey { .. }
            | Self::MissingTensor { .. }
            | Self::Overflow(_) => None,
        }
    }
}

/// Says where, if that is known.
struct At(Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |offset| write!(f, " at byte {offset}"))
    }
}
