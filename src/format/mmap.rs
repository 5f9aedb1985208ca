//! Mapping a file: the one place where bytes are used that another process may change.
//!
//! What was measured on Linux: a change of the file shows through every kind of mapping; a file that is cut short raises
//! SIGBUS at the next read behind its new end, even in pages that were read before; replacing a file by renaming another
//! over it leaves the mapped one intact. So the header is always copied and only weights are mapped, weights are only
//! read as numbers, and what remains, the signal, is the caller's promise.
#![allow(unsafe_code)]

use super::error::{FormatError, Operation, ReadError};
use super::limits::{FIRST_COPY, FIRST_READ};
use super::source::{FileBytes, file_extent, open, read_header, reader};
use crate::mem::aligned::RawBytes;
use core::ptr::NonNull;
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::path::Path;
use std::time::SystemTime;

/// A mapped extent of a file.
#[derive(Debug)]
pub(super) struct Map {
    map: MmapRaw,
    file: File,
    /// Length of the file and time of its last change when it was mapped.
    state: (u64, Option<SystemTime>),
}

impl Map {
    /// All bytes of the extent.
    pub fn bytes(&self) -> RawBytes<'_> {
        let Some(start) = NonNull::new(self.map.as_ptr().cast_mut()) else { return RawBytes::new(&[]) };
        // SAFETY: the mapping has `len` bytes, is readable, and stays as long as `self`; that it stays readable although
        // the file could be cut short is what the caller of `FileBytes::map` promised. They may change.
        unsafe { RawBytes::from_raw(start, self.map.len()) }
    }

    /// Whether the file has the length and time of change that it had when it was mapped.
    pub fn verify(&self) -> Result<(), FormatError> {
        if file_state(&self.file)? != self.state {
            return Err(io_error(Operation::Stat, ReadError::Changed));
        }
        Ok(())
    }
}

fn io_error(operation: Operation, cause: ReadError) -> FormatError {
    FormatError::Io { operation, offset: 0, cause }
}

fn os_error(operation: Operation) -> impl Fn(std::io::Error) -> FormatError {
    move |error| io_error(operation, ReadError::Os(error.kind()))
}

fn file_state(file: &File) -> Result<(u64, Option<SystemTime>), FormatError> {
    let metadata = file.metadata().map_err(os_error(Operation::Stat))?;
    Ok((metadata.len(), metadata.modified().ok()))
}

impl FileBytes {
    /// Maps the file at `path`: nothing is read but the header, which is copied and checked; weights come from the page
    /// cache, shared with every other process that maps them.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Operation::Map`] if the system refuses.
    ///
    /// # Safety
    /// As long as the result lives, nobody, in this process or any other, changes the file or makes it shorter. To update a
    /// model, write a new file and rename it over the old one. The file is not on a network or a removable medium. The
    /// library installs no signal handler: if the promise is broken, the process may receive SIGBUS (on Windows, an
    /// in-page error), or compute with other numbers. It still never reads outside the mapping.
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self, FormatError> {
        let file = open(path.as_ref())?;
        let len = file_extent(&file, 0, None)?;
        map_extent(file, 0, len)
    }

    /// Maps `len` bytes from `offset` on of an open file (all the rest for `None`): a model inside an asset pack. `offset`
    /// need not be a multiple of the page size. The file stays open through a handle of our own.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    ///
    /// # Safety
    /// As [`map`](Self::map), for the extent; the file is never shorter than `offset + len`.
    pub unsafe fn map_file(file: &File, offset: u64, len: Option<u64>) -> Result<Self, FormatError> {
        let len = file_extent(file, offset, len)?;
        let file = file.try_clone().map_err(os_error(Operation::Open))?;
        map_extent(file, offset, len)
    }
}

/// Maps a checked extent. Making the mapping is harmless; reading it is what the callers' contracts are about.
fn map_extent(file: File, offset: u64, len: u64) -> Result<FileBytes, FormatError> {
    let state = file_state(&file)?;
    let first = usize::try_from(len / 32).unwrap_or(FIRST_COPY).clamp(FIRST_READ, FIRST_COPY);
    let header = read_header(reader(&file, offset), len, first)?;
    let size = usize::try_from(len);
    let size = size.map_err(|_| io_error(Operation::Map, ReadError::Extent { len, available: 0 }))?;
    let mapped = MmapOptions::new().offset(offset).len(size).map_raw_read_only(&file);
    let map = mapped.map_err(os_error(Operation::Map))?;
    let map = Map { map, file, state };
    // The file may have been cut or changed since its length was asked for and its header was read.
    map.verify()?;
    Ok(FileBytes::mapped(header, map))
}
