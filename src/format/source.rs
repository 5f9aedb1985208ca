//! Where the bytes of a model come from: a slice, a file, an extent of a file, or a reader of the host's.

use super::error::{FormatError, Operation, ReadError};
use crate::mem::aligned::RawBytes;

/// The bytes of a model file: a header that cannot change, and all bytes as numbers that may.
#[derive(Debug, Clone, Copy)]
pub struct ModelBytes<'a> {
    /// The file from its first byte on, at least to the end of the tensor table. For [`scan`](super::gguf::scan) and
    /// [`Gguf::read`](super::Gguf::read).
    pub header: &'a [u8],
    /// The whole file, offset 0 being its first byte.
    pub data: RawBytes<'a>,
}

impl<'a> ModelBytes<'a> {
    /// A whole file in memory; nothing is copied.
    pub fn new(file: &'a [u8]) -> Self {
        Self { header: file, data: RawBytes::new(file) }
    }

    /// Length of the whole file in bytes.
    pub fn file_len(&self) -> u64 {
        self.data.len() as u64
    }
}

/// Reads a whole file of `len` bytes into the front of `memory` through a callback `read(offset, destination)` that fills
/// the whole destination or fails. The callback is asked for extents of at most [`READ_STEP`] bytes, in order.
///
/// # Errors
/// [`FormatError::Io`] with the callback's error, for a `len` of 0, and for a `len` above that of `memory`.
pub fn read_into<'m>(
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), ReadError>,
    len: u64,
    memory: &'m mut [u8],
) -> Result<ModelBytes<'m>, FormatError> {
    check_len(len)?;
    let available = memory.len() as u64;
    let file = usize::try_from(len).ok().and_then(|len| memory.get_mut(..len));
    let file = file.ok_or(extent_error(Operation::Read, 0, len, available))?;
    read_all(&mut read, 0, file)?;
    Ok(ModelBytes::new(file))
}

/// Largest piece in bytes that a reader is asked for at once.
pub const READ_STEP: usize = 8 << 20;

/// Fills `destination` with the bytes from `offset` on.
fn read_all(
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), ReadError>,
    mut offset: u64,
    destination: &mut [u8],
) -> Result<(), FormatError> {
    for piece in destination.chunks_mut(READ_STEP) {
        read(offset, piece).map_err(|cause| FormatError::Io { operation: Operation::Read, offset, cause })?;
        offset = offset.saturating_add(piece.len() as u64);
    }
    Ok(())
}

/// Refuses lengths that no slice can have, and 0.
fn check_len(len: u64) -> Result<usize, FormatError> {
    let refuse = |cause| FormatError::Io { operation: Operation::Stat, offset: 0, cause };
    if len == 0 {
        return Err(refuse(ReadError::Empty));
    }
    let limit = isize::MAX as u64;
    match usize::try_from(len) {
        Ok(size) if len <= limit => Ok(size),
        _ => Err(extent_error(Operation::Stat, 0, len, limit)),
    }
}

fn extent_error(operation: Operation, offset: u64, len: u64, available: u64) -> FormatError {
    FormatError::Io { operation, offset, cause: ReadError::Extent { len, available } }
}

#[cfg(feature = "alloc")]
pub use owned::{FileBytes, HeaderBytes};

#[cfg(feature = "alloc")]
mod owned {
    use super::*;
    use crate::format::gguf::scan;
    use crate::format::limits::FIRST_READ;
    use crate::mem::aligned::Block;

    /// A model file that owns its bytes: read into memory, or mapped with a copy of the header.
    #[derive(Debug)]
    pub struct FileBytes {
        /// The whole file, or the header of a mapped one.
        front: Block,
        #[cfg(feature = "std")]
        map: Option<crate::format::mmap::Map>,
    }

    impl FileBytes {
        /// Reads a whole file of `len` bytes through a callback, as [`read_into`]. The header is read and checked first, so
        /// that a refused file costs no more than its header. Allocates one block of `len` bytes.
        ///
        /// # Errors
        /// As [`read_into`] and [`scan`]; [`FormatError::Memory`].
        pub fn from_reader(
            mut read: impl FnMut(u64, &mut [u8]) -> Result<(), ReadError>,
            len: u64,
        ) -> Result<Self, FormatError> {
            let mut block = Block::zeroed(check_len(len)?)?;
            let file = block.bytes_mut();
            let (mut have, mut target) = (0, FIRST_READ);
            loop {
                target = target.min(file.len());
                read_all(&mut read, have as u64, file.get_mut(have..target).unwrap_or(&mut []))?;
                have = target;
                match scan(file.get(..have).unwrap_or(&[]), len) {
                    Err(FormatError::MoreHeader { needed, .. }) => target = next_target(have, needed),
                    Err(error) => return Err(error),
                    Ok(_) => break,
                }
            }
            read_all(&mut read, have as u64, file.get_mut(have..).unwrap_or(&mut []))?;
            Ok(Self {
                front: block,
                #[cfg(feature = "std")]
                map: None,
            })
        }

        /// A mapped file and a copy of its header.
        #[cfg(feature = "std")]
        pub(in crate::format) fn mapped(header: Block, map: crate::format::mmap::Map) -> Self {
            Self { front: header, map: Some(map) }
        }

        /// The file from its first byte on, at least to the end of the tensor table; never mapped memory.
        pub fn header(&self) -> &[u8] {
            self.front.bytes()
        }

        /// The whole file.
        pub fn data(&self) -> RawBytes<'_> {
            #[cfg(feature = "std")]
            if let Some(map) = &self.map {
                return map.bytes();
            }
            RawBytes::new(self.front.bytes())
        }

        /// Header and data.
        pub fn bytes(&self) -> ModelBytes<'_> {
            ModelBytes { header: self.header(), data: self.data() }
        }

        /// Whether the data are mapped, not held in memory of our own.
        pub fn is_mapped(&self) -> bool {
            #[cfg(feature = "std")]
            return self.map.is_some();
            #[cfg(not(feature = "std"))]
            false
        }

        /// Asks whether a mapped file still has the length and time of change that it had when it was mapped. Always well for
        /// a file in memory.
        ///
        /// # Errors
        /// [`FormatError::Io`] with [`ReadError::Changed`].
        #[cfg(feature = "std")]
        pub fn verify(&self) -> Result<(), FormatError> {
            self.map.as_ref().map_or(Ok(()), |map| map.verify())
        }
    }

    /// How much of a file to have next: at least twice what there is, so that all scans together stay linear.
    pub(in crate::format) fn next_target(have: usize, needed: u64) -> usize {
        usize::try_from(needed).unwrap_or(usize::MAX).max(have.saturating_mul(2))
    }

    /// The front part of a model file, at least to the end of the tensor table, and how long the whole file is.
    #[derive(Debug)]
    pub struct HeaderBytes {
        front: Block,
        file_len: u64,
    }

    impl HeaderBytes {
        /// Reads the header of a file of `len` bytes through a callback, as [`read_into`], and no more than twice the
        /// header.
        ///
        /// # Errors
        /// As [`read_into`] and [`scan`]; [`FormatError::Memory`].
        pub fn from_reader(
            read: impl FnMut(u64, &mut [u8]) -> Result<(), ReadError>,
            len: u64,
        ) -> Result<Self, FormatError> {
            Ok(Self { front: read_header(read, len, FIRST_READ)?, file_len: len })
        }

        /// The file from its first byte on.
        pub fn bytes(&self) -> &[u8] {
            self.front.bytes()
        }

        /// Length of the whole file in bytes.
        pub fn file_len(&self) -> u64 {
            self.file_len
        }
    }

    /// Copies the header of a file of `len` bytes, whose end is found by scanning, `first` bytes to begin with. Allocates
    /// up to twice the header, and briefly 1.5 times that.
    pub(in crate::format) fn read_header(
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), ReadError>,
        len: u64,
        first: usize,
    ) -> Result<Block, FormatError> {
        let file_len = check_len(len)?;
        let mut block = Block::zeroed(0)?;
        let mut target = first;
        loop {
            target = target.min(file_len);
            let mut grown = Block::zeroed(target)?;
            let have = block.bytes().len();
            if let Some((front, rest)) = grown.bytes_mut().split_at_mut_checked(have) {
                front.copy_from_slice(block.bytes());
                read_all(&mut read, have as u64, rest)?;
            }
            block = grown;
            match scan(block.bytes(), len) {
                Err(FormatError::MoreHeader { needed, .. }) => target = next_target(target, needed),
                Err(error) => return Err(error),
                Ok(_) => return Ok(block),
            }
        }
    }
}

#[cfg(feature = "std")]
pub(super) use owned::read_header;

#[cfg(feature = "std")]
mod files {
    use super::*;
    use std::fs::{File, Metadata, OpenOptions};
    use std::io::ErrorKind;
    use std::path::Path;

    impl FileBytes {
        /// Reads the file at `path` into one block of memory. Safe whatever happens to the file afterwards.
        ///
        /// # Errors
        /// [`FormatError::Io`] with the operation and the system's reason; directories, pipes, devices and empty files are
        /// refused. Else as [`from_reader`](Self::from_reader).
        pub fn open(path: impl AsRef<Path>) -> Result<Self, FormatError> {
            Self::from_file(&open(path.as_ref())?, 0, None)
        }

        /// Reads `len` bytes from `offset` on out of an open file (all the rest for `None`): a model inside an asset pack.
        /// Offsets in errors count from `offset`. On Windows the file's own position moves.
        ///
        /// # Errors
        /// As [`open`](Self::open); [`ReadError::Extent`] if the file is shorter.
        pub fn from_file(file: &File, offset: u64, len: Option<u64>) -> Result<Self, FormatError> {
            let len = file_extent(file, offset, len)?;
            Self::from_reader(reader(file, offset), len)
        }
    }

    impl HeaderBytes {
        /// Reads the header of the file at `path`.
        ///
        /// # Errors
        /// As [`FileBytes::open`], as far as the header is concerned.
        pub fn open(path: impl AsRef<Path>) -> Result<Self, FormatError> {
            Self::from_file(&open(path.as_ref())?, 0, None)
        }

        /// Reads the header of `len` bytes from `offset` on of an open file (all the rest for `None`).
        ///
        /// # Errors
        /// As [`FileBytes::from_file`], as far as the header is concerned.
        pub fn from_file(file: &File, offset: u64, len: Option<u64>) -> Result<Self, FormatError> {
            let len = file_extent(file, offset, len)?;
            Self::from_reader(reader(file, offset), len)
        }
    }

    /// A reader of the extent of `file` that begins at `base`.
    pub(in crate::format) fn reader(
        file: &File,
        base: u64,
    ) -> impl FnMut(u64, &mut [u8]) -> Result<(), ReadError> {
        move |offset, destination| {
            let offset = base.checked_add(offset).ok_or(ReadError::Ended)?;
            fill(|offset, rest| read_at(file, offset, rest), offset, destination)
        }
    }

    /// Fills `destination` through reads that may be short or interrupted.
    fn fill(
        mut read_at: impl FnMut(u64, &mut [u8]) -> std::io::Result<usize>,
        mut offset: u64,
        destination: &mut [u8],
    ) -> Result<(), ReadError> {
        let mut rest = destination;
        while !rest.is_empty() {
            let count = match read_at(offset, rest) {
                Ok(0) => return Err(ReadError::Ended),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(ReadError::Os(error.kind())),
            };
            rest = rest.get_mut(count..).unwrap_or(&mut []);
            offset = offset.saturating_add(count as u64);
        }
        Ok(())
    }

    #[cfg(unix)]
    fn read_at(file: &File, offset: u64, destination: &mut [u8]) -> std::io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(file, destination, offset)
    }

    #[cfg(windows)]
    fn read_at(file: &File, offset: u64, destination: &mut [u8]) -> std::io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(file, destination, offset)
    }

    #[cfg(not(any(unix, windows)))]
    fn read_at(mut file: &File, offset: u64, destination: &mut [u8]) -> std::io::Result<usize> {
        use std::io::{Read, Seek, SeekFrom};
        file.seek(SeekFrom::Start(offset))?;
        file.read(destination)
    }

    /// Opens a regular file for reading. It is asked for before it is opened, as opening a pipe would block.
    pub(in crate::format) fn open(path: &Path) -> Result<File, FormatError> {
        let failed = |operation| {
            move |error: std::io::Error| FormatError::Io {
                operation,
                offset: 0,
                cause: ReadError::Os(error.kind()),
            }
        };
        check_regular(&std::fs::metadata(path).map_err(failed(Operation::Open))?)?;
        let mut options = OpenOptions::new();
        options.read(true);
        // On Windows nobody may write to or delete the file as long as it is open.
        #[cfg(windows)]
        std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 1);
        options.open(path).map_err(failed(Operation::Open))
    }

    fn check_regular(metadata: &Metadata) -> Result<u64, FormatError> {
        if !metadata.is_file() {
            return Err(FormatError::Io {
                operation: Operation::Open,
                offset: 0,
                cause: ReadError::NotAFile,
            });
        }
        Ok(metadata.len())
    }

    /// The length of the extent at `offset`, which is inside the regular file `file` and fits the address space.
    pub(in crate::format) fn file_extent(
        file: &File,
        offset: u64,
        len: Option<u64>,
    ) -> Result<u64, FormatError> {
        let metadata = file.metadata().map_err(|error| FormatError::Io {
            operation: Operation::Stat,
            offset: 0,
            cause: ReadError::Os(error.kind()),
        })?;
        let total = check_regular(&metadata)?;
        let available = total.saturating_sub(offset);
        let len = len.unwrap_or(available);
        if offset > total || len > available {
            return Err(extent_error(Operation::Stat, offset, len, available));
        }
        check_len(len)?;
        Ok(len)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn short_and_interrupted_reads_go_on() {
            let source: std::vec::Vec<u8> = (0..100).collect();
            let mut calls = 0;
            let mut read_at = |offset: u64, rest: &mut [u8]| {
                calls += 1;
                if calls % 2 == 0 {
                    return Err(ErrorKind::Interrupted.into());
                }
                let tail = &source[offset as usize..];
                let count = rest.len().min(7).min(tail.len());
                rest[..count].copy_from_slice(&tail[..count]);
                Ok(count)
            };
            let mut got = [0; 90];
            assert_eq!(fill(&mut read_at, 10, &mut got), Ok(()));
            assert_eq!(got, source[10..]);
            assert_eq!(fill(&mut read_at, 11, &mut got), Err(ReadError::Ended));
            let failing = |_: u64, _: &mut [u8]| Err(ErrorKind::TimedOut.into());
            assert_eq!(fill(failing, 0, &mut got), Err(ReadError::Os(ErrorKind::TimedOut)));
        }
    }
}

#[cfg(feature = "std")]
pub(super) use files::{file_extent, open, reader};
