//! Models that own their file's bytes and their tables.
#![allow(unsafe_code)]

use super::{Model, ModelError, ModelHeader};
use crate::format::{FileBytes, HeaderBytes, ModelBytes};
use crate::mem::aligned::Block;

/// What an owning model keeps alive. The fields are never read: the model's tables point into them.
#[derive(Debug)]
pub(super) struct Owner {
    _tables: Block,
    _file: Option<FileBytes>,
}

/// What an owning header keeps alive, likewise.
#[derive(Debug)]
pub(super) struct HeaderOwner {
    _tables: Block,
    _front: HeaderBytes,
}

impl ModelHeader<'static> {
    /// A header that was read from any source; see [`HeaderBytes`].
    ///
    /// # Errors
    /// As [`ModelHeader::new`]; no memory.
    pub fn from_header_bytes(front: HeaderBytes) -> Result<Self, ModelError> {
        let (bytes, file_len) = (front.bytes(), front.file_len());
        let block = Block::zeroed(ModelHeader::size(bytes, file_len)?)?;
        // SAFETY: the header keeps `front`, whose bytes stand in memory of their own that does not move with it, and its
        // methods never give out a borrow that outlives `&self`.
        let bytes = unsafe { core::mem::transmute::<&[u8], &'static [u8]>(bytes) };
        // SAFETY: the header keeps the block for as long as it lives, nothing else uses it, and its methods never give out
        // a borrow that outlives `&self`.
        let mut header = ModelHeader::new(bytes, file_len, unsafe { block.leak_mut() })?;
        header.owner = Some(HeaderOwner { _tables: block, _front: front });
        Ok(header)
    }

    /// The header of a file, which is read no further.
    ///
    /// # Errors
    /// As [`Model::open`], as far as the header is concerned.
    #[cfg(feature = "std")]
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self, ModelError> {
        Self::from_header_bytes(HeaderBytes::open(path)?)
    }
}

impl<'a> Model<'a> {
    /// As [`Model::from_bytes`], with tables in a block of its own.
    ///
    /// # Errors
    /// As [`Model::new`]; no memory.
    pub fn from_slice(bytes: &'a [u8]) -> Result<Model<'a>, ModelError> {
        build(ModelBytes::new(bytes), None)
    }
}

impl Model<'static> {
    /// A model from a file's bytes of any source; see [`FileBytes`].
    ///
    /// # Errors
    /// As [`Model::new`]; no memory.
    pub fn from_file_bytes(file: FileBytes) -> Result<Model<'static>, ModelError> {
        let bytes = file.bytes();
        // SAFETY: the model keeps `file`, whose bytes stand in memory of their own that does not move with it, and its
        // methods never give out a borrow that outlives `&self`.
        let bytes = unsafe { core::mem::transmute::<ModelBytes<'_>, ModelBytes<'static>>(bytes) };
        build(bytes, Some(file))
    }

    /// Reads a model from a file into memory. Safe whatever happens to the file afterwards.
    ///
    /// # Errors
    /// [`ModelError::Format`] for a file that cannot be read or is damaged, and everything of [`Model::new`].
    #[cfg(feature = "std")]
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Model<'static>, ModelError> {
        Self::from_file_bytes(FileBytes::open(path)?)
    }

    /// Maps a model's weights instead of reading them: the header is read and checked in memory of its own, weights
    /// come in as they are used, and processes share them.
    ///
    /// # Safety
    /// Nobody changes or truncates the file as long as the model lives; see [`FileBytes::map`].
    ///
    /// # Errors
    /// As [`Model::open`].
    #[cfg(feature = "std")]
    pub unsafe fn map(path: impl AsRef<std::path::Path>) -> Result<Model<'static>, ModelError> {
        // SAFETY: the caller keeps the contract.
        Self::from_file_bytes(unsafe { FileBytes::map(path) }?)
    }
}

fn build<'a>(bytes: ModelBytes<'a>, file: Option<FileBytes>) -> Result<Model<'a>, ModelError> {
    let block = Block::zeroed(Model::size(&bytes)?)?;
    // SAFETY: the model keeps the block for as long as it lives, nothing else uses it, and the model's methods never
    // give out a borrow that outlives `&self`.
    let tables = unsafe { block.leak_mut() };
    let mut model = Model::new(bytes, tables)?;
    model.owner = Some(Owner { _tables: block, _file: file });
    Ok(model)
}
