//! GGUF, versions 2 and 3: the header is checked once, completely, and then lent out as views.
//!
//! ```text
//! magic "GGUF", version u32, tensor count u64, pair count u64
//! pairs:   key (length u64, ASCII), value type u32, value
//! tensors: name (length u64, UTF-8), rank u32, dimensions u64 (innermost first), type u32, offset u64
//! padding to general.alignment, then the tensor data
//! ```
//!
//! All numbers are little-endian. Formula source: the specification `docs/gguf.md` of ggml.

mod get;
mod value;
mod walk;

pub use get::{Key, PerLayer};
pub use value::{Array, Numbers, Strings, Value, ValueType};

use super::cursor::Cursor;
use super::error::FormatError;
use super::field::{Field, What};
use super::limits::MAX_DIMS;
use super::sort::{find_by, sort_by};
use crate::mem::{Arena, MemError, Plan, Slot};
use crate::tensor::DType;
use bytemuck::{Pod, Zeroable};
use walk::{Info, Kv, Layout, Preamble, Visit, walk};

/// What a header holds, for planning memory before anything is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Key-value pairs.
    pub kv: usize,
    /// Tensors.
    pub tensors: usize,
    /// Strings of `tokenizer.ggml.tokens`.
    pub tokens: usize,
    /// Sum of their lengths in bytes.
    pub token_bytes: usize,
    /// Length in bytes of the longest.
    pub longest_token: usize,
    /// Strings of `tokenizer.ggml.merges`.
    pub merges: usize,
    /// Sum of their lengths in bytes.
    pub merge_bytes: usize,
    /// The greatest value of an integer key that ends in `.block_count`; 0 if there is none, `u32::MAX` if it does not fit.
    pub blocks: u32,
    /// Offset of the data section: where the header ends, rounded up to the alignment. A file without tensor data may be
    /// shorter than that.
    pub header_len: u64,
    /// Values of all tensors with at most one dimension above 1, each rounded up to 16: what a model copies as vectors.
    pub vector_values: usize,
}

impl Visit<'_> for Counts {
    fn preamble(&mut self, preamble: &Preamble) -> Result<(), FormatError> {
        self.kv = preamble.kv;
        self.tensors = preamble.tensors;
        Ok(())
    }

    fn kv(&mut self, kv: &Kv<'_>) -> Result<(), FormatError> {
        match (kv.key, &kv.value) {
            (b"tokenizer.ggml.tokens", Value::Array(array)) => {
                (self.tokens, self.token_bytes, self.longest_token) = lengths(array);
            }
            (b"tokenizer.ggml.merges", Value::Array(array)) => {
                (self.merges, self.merge_bytes, _) = lengths(array);
            }
            (key, value) if key.ends_with(b".block_count") => {
                let blocks = value.as_integer().unwrap_or(0).clamp(0, u32::MAX.into());
                self.blocks = self.blocks.max(u32::try_from(blocks).unwrap_or(u32::MAX));
            }
            _ => {}
        }
        Ok(())
    }

    fn tensor(&mut self, info: &Info<'_>, _: u64) -> Result<(), FormatError> {
        let [values, rest @ ..] = info.dims;
        if rest.iter().all(|dim| *dim == 1) {
            let values = usize::try_from(values).unwrap_or(usize::MAX).checked_next_multiple_of(16);
            self.vector_values = self.vector_values.saturating_add(values.unwrap_or(usize::MAX));
        }
        Ok(())
    }
}

/// Number, total and greatest length of the strings of an array; zeros if it has other elements.
fn lengths(array: &Array<'_>) -> (usize, usize, usize) {
    let strings = array.strings().into_iter().flatten();
    strings.fold((0, 0, 0), |(count, sum, longest): (usize, usize, usize), string| {
        (count.saturating_add(1), sum.saturating_add(string.len()), longest.max(string.len()))
    })
}

/// Checks the structure of a header completely, except for what needs a table: [`Gguf::read`] finds duplicate names and
/// overlapping tensors.
///
/// `header` is the file or its front part, `file_len` the length of the whole file in bytes. Cost: linear in the header,
/// no memory.
///
/// # Errors
/// [`FormatError::MoreHeader`] if the front part is too short, any other [`FormatError`] if the file is refused.
pub fn scan(header: &[u8], file_len: u64) -> Result<Counts, FormatError> {
    let mut counts = Counts::default();
    let layout = walk(header, file_len, &mut counts)?;
    Ok(Counts { header_len: layout.data_offset, ..counts })
}

/// A row of the table of pairs. Offsets fit 32 bits, see [`MAX_HEADER`](super::limits::MAX_HEADER).
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct KvEntry {
    key_at: u32,
    key_len: u32,
}

/// A tensor of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TensorEntry {
    name_at: u32,
    name_len: u32,
    /// Dimensions, innermost (row length) first; unused ones are 1. The product without zeros fits an `i64`.
    pub dims: [u64; MAX_DIMS],
    /// Number of dimensions, 0 to 4.
    pub n_dims: u32,
    /// GGML's number of the type; see [`TensorEntry::dtype`].
    pub dtype_id: u32,
    /// Absolute offset of the first byte in the file.
    pub offset: u64,
    /// Size in bytes; `offset + bytes` is inside the file.
    pub bytes: u64,
}

impl TensorEntry {
    /// The type.
    pub fn dtype(&self) -> DType {
        DType::from_ggml(self.dtype_id).unwrap_or(DType::F32)
    }

    /// Number of values; 0 if a dimension is 0.
    pub fn elements(&self) -> u64 {
        self.dims.iter().fold(1, |product: u64, &dim| product.saturating_mul(dim))
    }

    /// Absolute offset of the name in the file, for errors.
    pub fn name_offset(&self) -> u64 {
        self.name_at.into()
    }

    /// Absolute offset of the first dimension in the file, for errors.
    pub fn dims_offset(&self) -> u64 {
        self.name_offset().saturating_add(self.name_len.into()).saturating_add(4)
    }

    /// Absolute offset of the type in the file, for errors.
    pub fn dtype_offset(&self) -> u64 {
        self.dims_offset().saturating_add(u64::from(self.n_dims).saturating_mul(8))
    }
}

/// Where the tables of a [`Gguf`] stand in a planned block.
#[derive(Debug, Clone, Copy)]
pub struct GgufSlots {
    kv: Slot<KvEntry>,
    tensors: Slot<TensorEntry>,
}

/// A checked GGUF header: sorted tables in an arena, everything else borrowed from the header's bytes.
#[derive(Debug, Clone, Copy)]
pub struct Gguf<'a> {
    header: &'a [u8],
    file_len: u64,
    kv: &'a [KvEntry],
    tensors: &'a [TensorEntry],
    layout: Layout,
}

impl<'a> Gguf<'a> {
    /// Plans the tables: 8 bytes a pair and 64 bytes a tensor.
    pub fn plan(counts: &Counts, plan: &mut Plan) -> Result<GgufSlots, MemError> {
        Ok(GgufSlots { kv: plan.array(counts.kv)?, tensors: plan.array(counts.tensors)? })
    }

    /// Checks the header once more, builds the tables, and finds duplicates and overlaps.
    ///
    /// `header` and `file_len` are what was scanned. Cost: linear, plus sorting the names and tensor offsets.
    ///
    /// # Errors
    /// As [`scan`]; [`FormatError::Duplicate`], [`FormatError::Overlap`]; [`FormatError::Planned`] when the header is not
    /// the one that `slots` was planned for.
    pub fn read(
        header: &'a [u8],
        file_len: u64,
        arena: &mut Arena<'a>,
        slots: &GgufSlots,
    ) -> Result<Gguf<'a>, FormatError> {
        let kv = arena.carve(slots.kv)?;
        let tensors = arena.carve(slots.tensors)?;
        let mut fill = Fill { kv: kv.iter_mut(), tensors: tensors.iter_mut() };
        let layout = walk(header, file_len, &mut fill)?;
        check_overlaps(header, tensors)?;
        sort_by(tensors, |a, b| (name(header, a), a.name_at).cmp(&(name(header, b), b.name_at)));
        sort_by(kv, |a, b| (key(header, a), a.key_at).cmp(&(key(header, b), b.key_at)));
        let keys = kv.iter().map(|row| (key(header, row), row.key_at));
        check_unique(What::Key, keys)?;
        check_unique(What::TensorName, tensors.iter().map(|row| (name(header, row), row.name_at)))?;
        Ok(Gguf { header, file_len, kv, tensors, layout })
    }

    /// Version of the file format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.layout.preamble.version
    }

    /// `general.alignment`: a power of two.
    pub fn alignment(&self) -> u64 {
        self.layout.alignment
    }

    /// The bytes of preamble, metadata and tensor directory.
    pub fn header(&self) -> &'a [u8] {
        let len = usize::try_from(self.layout.data_offset).unwrap_or(usize::MAX);
        self.header.get(..len).unwrap_or(self.header)
    }

    /// Absolute offset of the data section.
    pub fn data_offset(&self) -> u64 {
        self.layout.data_offset
    }

    /// Length of the whole file in bytes.
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// All pairs in file order.
    pub fn entries(&self) -> Entries<'a> {
        let cursor = Cursor::new(self.header, self.header.len() as u64).seek(self.layout.kv_at);
        Entries { cursor, left: self.kv.len() }
    }

    /// All tensors, ascending by the bytes of their names.
    pub fn tensors(&self) -> &'a [TensorEntry] {
        self.tensors
    }

    /// The tensor called `name`. Cost: a binary search.
    pub fn tensor(&self, sought: &str) -> Option<&'a TensorEntry> {
        find_by(self.tensors, |row| name(self.header, row).cmp(sought.as_bytes()))
    }

    /// The name of a tensor of this file.
    pub fn tensor_name(&self, entry: &TensorEntry) -> &'a str {
        core::str::from_utf8(name(self.header, entry)).unwrap_or("")
    }
}

fn slice(header: &[u8], at: u32, len: u32) -> &[u8] {
    let tail = header.get(at as usize..).unwrap_or(&[]);
    tail.get(..len as usize).unwrap_or(&[])
}

fn key<'a>(header: &'a [u8], row: &KvEntry) -> &'a [u8] {
    slice(header, row.key_at, row.key_len)
}

fn name<'a>(header: &'a [u8], row: &TensorEntry) -> &'a [u8] {
    slice(header, row.name_at, row.name_len)
}

/// Fills the tables in file order.
struct Fill<'t> {
    kv: core::slice::IterMut<'t, KvEntry>,
    tensors: core::slice::IterMut<'t, TensorEntry>,
}

impl<'a> Visit<'a> for Fill<'_> {
    fn preamble(&mut self, preamble: &Preamble) -> Result<(), FormatError> {
        let pairs = (What::KvCount, self.kv.len(), preamble.kv);
        let tensors = (What::TensorCount, self.tensors.len(), preamble.tensors);
        for (what, planned, got) in [pairs, tensors] {
            if planned != got {
                let (planned, got) = (planned as u64, got as u64);
                return Err(FormatError::Planned { field: Field::new(what), planned, got });
            }
        }
        Ok(())
    }

    fn kv(&mut self, kv: &Kv<'a>) -> Result<(), FormatError> {
        let row = KvEntry { key_at: narrow(kv.key_at)?, key_len: narrow(kv.key.len())? };
        self.kv.next().map(|place| *place = row).ok_or(FormatError::Memory(MemError::Overflow))
    }

    fn tensor(&mut self, info: &Info<'a>, start: u64) -> Result<(), FormatError> {
        let row = TensorEntry {
            name_at: narrow(info.name_at)?,
            name_len: narrow(info.name.len())?,
            dims: info.dims,
            n_dims: narrow(info.rank)?,
            dtype_id: info.dtype as u32,
            offset: start,
            bytes: info.bytes,
        };
        self.tensors.next().map(|place| *place = row).ok_or(FormatError::Memory(MemError::Overflow))
    }
}

fn narrow(at: usize) -> Result<u32, FormatError> {
    let overflow = FormatError::Overflow { field: Field::new(What::Header), offset: at as u64 };
    u32::try_from(at).map_err(|_| overflow)
}

/// Checks that no two tensors share a byte. Leaves the table sorted by offset.
fn check_overlaps(header: &[u8], tensors: &mut [TensorEntry]) -> Result<(), FormatError> {
    sort_by(tensors, |a, b| (a.offset, a.name_at).cmp(&(b.offset, b.name_at)));
    let mut previous: Option<&TensorEntry> = None;
    for row in tensors.iter().filter(|row| row.bytes > 0) {
        if let Some(before) = previous {
            let end = before.offset.saturating_add(before.bytes);
            if row.offset < end {
                return Err(FormatError::Overlap {
                    field: Field::named(What::TensorOffset, name(header, row)),
                    offset: row.dtype_offset().saturating_add(4),
                    first: before.dtype_offset().saturating_add(4),
                    end,
                    got: row.offset,
                });
            }
        }
        previous = Some(row);
    }
    Ok(())
}

/// Checks that names, which come sorted, differ.
fn check_unique<'a>(what: What, names: impl Iterator<Item = (&'a [u8], u32)>) -> Result<(), FormatError> {
    let mut previous: Option<(&[u8], u32)> = None;
    for (name, at) in names {
        match previous {
            Some((before, first)) if before == name => {
                let field = Field::named(what, name);
                return Err(FormatError::Duplicate { field, offset: at.into(), first: first.into() });
            }
            _ => previous = Some((name, at)),
        }
    }
    Ok(())
}

/// A key-value pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a str,
    /// The value.
    pub value: Value<'a>,
    /// Absolute offset of the value type, which stands before the value, in the file.
    pub offset: u64,
}

/// All pairs of a file, in file order.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        self.left = self.left.checked_sub(1)?;
        let kv = walk::read_kv(&mut self.cursor).ok()?;
        let key = core::str::from_utf8(kv.key).ok()?;
        Some(Entry { key, value: kv.value, offset: kv.type_at as u64 })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Entries<'_> {}
