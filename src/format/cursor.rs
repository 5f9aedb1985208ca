//! Bounded little-endian reads that know where they are.

use super::error::FormatError;
use super::field::{Field, What};
use super::limits::MAX_HEADER;
use crate::steps;

/// A place in the front part of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file_len: u64,
}

impl<'a> Cursor<'a> {
    /// A cursor at the first byte of `bytes`, which is the front part of a file of `file_len` bytes.
    pub fn new(bytes: &'a [u8], file_len: u64) -> Self {
        let len = usize::try_from(file_len).unwrap_or(usize::MAX);
        let bytes = bytes.get(..len).unwrap_or(bytes);
        Self { bytes, at: 0, file_len }
    }

    /// The same cursor at byte `at`.
    pub fn seek(mut self, at: usize) -> Self {
        self.at = at;
        self
    }

    /// Absolute offset of the next byte, as an index of the front part.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Absolute offset of the next byte in the file.
    pub fn offset(&self) -> u64 {
        self.at as u64
    }

    /// Checks that `len` bytes are present without reading them: an error if the file or the front part is too short, or
    /// if they end beyond the largest header.
    pub fn require(&self, len: u64, what: What) -> Result<usize, FormatError> {
        let (field, offset) = (Field::new(what), self.offset());
        let needed = offset.checked_add(len).ok_or(FormatError::Overflow { field, offset })?;
        if needed > self.file_len {
            return Err(FormatError::Truncated { field, offset, needed, got: self.file_len });
        }
        if needed > MAX_HEADER as u64 {
            return Err(FormatError::Limit { field, offset, limit: MAX_HEADER as u64, got: needed });
        }
        let got = self.bytes.len() as u64;
        match usize::try_from(needed) {
            Ok(end) if needed <= got => Ok(end),
            _ => Err(FormatError::MoreHeader { field, offset, needed, got }),
        }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: u64, what: What) -> Result<&'a [u8], FormatError> {
        let end = self.require(len, what)?;
        steps::count(end.saturating_sub(self.at));
        let (field, offset) = (Field::new(what), self.offset());
        let taken = self.bytes.get(self.at..end).ok_or(FormatError::Overflow { field, offset })?;
        self.at = end;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, what: What) -> Result<[u8; N], FormatError> {
        let (field, offset) = (Field::new(what), self.offset());
        let bytes = self.take(N as u64, what)?;
        bytes.try_into().map_err(|_| FormatError::Overflow { field, offset })
    }

    /// The next four bytes as a number.
    pub fn u32(&mut self, what: What) -> Result<u32, FormatError> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// The next eight bytes as a number.
    pub fn u64(&mut self, what: What) -> Result<u64, FormatError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// The next eight bytes as a number of at most `limit`.
    pub fn count(&mut self, what: What, limit: usize) -> Result<usize, FormatError> {
        let offset = self.offset();
        let got = self.u64(what)?;
        match usize::try_from(got) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(FormatError::Limit { field: Field::new(what), offset, limit: limit as u64, got }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_file_and_a_short_front_part_differ() {
        let bytes = [1, 0, 0, 0, 2, 0];
        let field = Field::new(What::Rank);
        let mut cursor = Cursor::new(&bytes, 6);
        assert_eq!(cursor.u32(What::Rank), Ok(1));
        let truncated = FormatError::Truncated { field, offset: 4, needed: 8, got: 6 };
        assert_eq!(cursor.u32(What::Rank), Err(truncated));
        assert_eq!(cursor.at(), 4, "a failed read does not move");
        let mut cursor = Cursor::new(&bytes, 8).seek(4);
        let more = FormatError::MoreHeader { field, offset: 4, needed: 8, got: 6 };
        assert_eq!(cursor.u32(What::Rank), Err(more));
        assert_eq!(cursor.take(u64::MAX, What::Rank), Err(FormatError::Overflow { field, offset: 4 }));
    }

    #[test]
    fn bytes_behind_the_end_of_the_file_do_not_count() {
        let mut cursor = Cursor::new(&[0; 8], 4);
        assert_eq!(cursor.u32(What::Magic), Ok(0));
        let field = Field::new(What::Magic);
        assert_eq!(
            cursor.u32(What::Magic),
            Err(FormatError::Truncated { field, offset: 4, needed: 8, got: 4 })
        );
    }

    #[test]
    fn a_header_may_be_as_long_as_its_cap() {
        let field = Field::new(What::Header);
        let (cap, cursor) = (MAX_HEADER as u64, Cursor::new(&[0; 8], u64::MAX).seek(8));
        let more = FormatError::MoreHeader { field, offset: 8, needed: cap, got: 8 };
        assert_eq!(cursor.require(cap - 8, What::Header), Err(more));
        let limit = FormatError::Limit { field, offset: 8, limit: cap, got: cap + 1 };
        assert_eq!(cursor.require(cap - 7, What::Header), Err(limit));
    }

    #[test]
    fn counts_keep_their_limit() {
        let bytes = 5u64.to_le_bytes();
        assert_eq!(Cursor::new(&bytes, 8).count(What::KvCount, 5), Ok(5));
        let field = Field::new(What::KvCount);
        assert_eq!(
            Cursor::new(&bytes, 8).count(What::KvCount, 4),
            Err(FormatError::Limit { field, offset: 0, limit: 4, got: 5 })
        );
    }
}
