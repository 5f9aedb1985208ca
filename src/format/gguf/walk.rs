//! The one pass over a header that checks everything a header can be checked for without tables. Scanning and reading
//! are two visitors of it, so they cannot disagree.

use super::value::{Value, ValueType, read_type, read_value};
use crate::format::cursor::Cursor;
use crate::format::error::{FormatError, Found};
use crate::format::field::{Field, What};
use crate::format::limits::*;
use crate::num::{Overflow, Size};
use crate::tensor::DType;

const MAGIC: [u8; 4] = *b"GGUF";
/// Bytes of the smallest key-value pair: key length, one byte of key, type, one byte of value.
const SMALLEST_KV: u64 = 8 + 1 + 4 + 1;
/// Bytes of the smallest tensor entry: name length, one byte of name, rank 0, type, offset.
const SMALLEST_TENSOR: u64 = 8 + 1 + 4 + 4 + 8;

/// What stands before the key-value pairs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Preamble {
    pub version: u32,
    pub kv: usize,
    pub tensors: usize,
}

/// A key-value pair in the header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kv<'a> {
    pub key: &'a [u8],
    /// Offset of the first byte of the key.
    pub key_at: usize,
    /// Offset of the value type, which stands directly behind the key.
    pub type_at: usize,
    pub value: Value<'a>,
}

/// A tensor entry in the header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Info<'a> {
    pub name: &'a [u8],
    /// Offset of the first byte of the name.
    pub name_at: usize,
    pub rank: usize,
    /// Unused dimensions are 1.
    pub dims: [u64; MAX_DIMS],
    pub dtype: DType,
    /// Relative to the data section.
    pub offset: u64,
    /// Where the offset stands in the header.
    pub offset_at: u64,
    pub bytes: u64,
}

/// What a pass over a header learns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub preamble: Preamble,
    /// Offset of the first key-value pair.
    pub kv_at: usize,
    pub alignment: u64,
    /// Offset of the data section in the file.
    pub data_offset: u64,
}

/// Receives what a pass over a header finds, in file order.
pub(super) trait Visit<'a> {
    fn preamble(&mut self, preamble: &Preamble) -> Result<(), FormatError>;
    fn kv(&mut self, kv: &Kv<'a>) -> Result<(), FormatError>;
    /// `start` is the tensor's absolute offset in the file; its whole extent is inside the file.
    fn tensor(&mut self, info: &Info<'a>, start: u64) -> Result<(), FormatError>;
}

/// Reads the whole header and checks it.
pub(super) fn walk<'a>(
    header: &'a [u8],
    file_len: u64,
    visit: &mut impl Visit<'a>,
) -> Result<Layout, FormatError> {
    let mut cursor = Cursor::new(header, file_len);
    let preamble = read_preamble(&mut cursor)?;
    visit.preamble(&preamble)?;
    let kv_at = cursor.at();
    let mut alignment = DEFAULT_ALIGNMENT;
    for _ in 0..preamble.kv {
        let kv = read_kv(&mut cursor)?;
        if kv.key == b"general.alignment" {
            alignment = read_alignment(&kv)?;
        }
        visit.kv(&kv)?;
    }
    let infos = cursor;
    let mut total = Size(0);
    for _ in 0..preamble.tensors {
        let info = read_info(&mut cursor, alignment)?;
        total = add_padded(total, &info, alignment)?;
    }
    let data_offset = data_offset(&cursor, alignment)?;
    let mut cursor = infos;
    for _ in 0..preamble.tensors {
        let info = read_info(&mut cursor, alignment)?;
        visit.tensor(&info, extent(&info, data_offset, file_len)?)?;
    }
    Ok(Layout { preamble, kv_at, alignment, data_offset })
}

fn read_preamble(cursor: &mut Cursor<'_>) -> Result<Preamble, FormatError> {
    let offset = cursor.offset();
    let got = cursor.array::<4>(What::Magic)?;
    if got != MAGIC {
        return Err(FormatError::Magic { offset, got });
    }
    let offset = cursor.offset();
    let version = cursor.u32(What::Version)?;
    if !(2..=3).contains(&version) {
        return Err(FormatError::Version { offset, got: version });
    }
    let tensors = cursor.count(What::TensorCount, MAX_TENSORS)?;
    let kv = cursor.count(What::KvCount, MAX_KV)?;
    // Neither product is near the limits of 64 bits, as both counts are capped.
    let pairs = (kv as u64).saturating_mul(SMALLEST_KV);
    let entries = (tensors as u64).saturating_mul(SMALLEST_TENSOR);
    cursor.require(pairs.saturating_add(entries), What::Header)?;
    Ok(Preamble { version, kv, tensors })
}

/// The next key-value pair.
pub(super) fn read_kv<'a>(cursor: &mut Cursor<'a>) -> Result<Kv<'a>, FormatError> {
    let length_at = cursor.offset();
    let len = cursor.count(What::KeyLength, MAX_KEY)?;
    if len == 0 {
        return Err(FormatError::Syntax { field: Field::new(What::KeyLength), offset: length_at });
    }
    let (key_at, key_offset) = (cursor.at(), cursor.offset());
    let key = cursor.take(len as u64, What::Key)?;
    if let Some(bad) = key.iter().position(|&byte| byte == 0 || !byte.is_ascii()) {
        let offset = key_offset.saturating_add(bad as u64);
        return Err(FormatError::Utf8 { field: Field::named(What::Key, key), offset });
    }
    let type_at = cursor.at();
    let value = read_type(cursor, What::ValueType).and_then(|kind| read_value(cursor, kind, key));
    let value = value.map_err(|error| error.with_name(key))?;
    Ok(Kv { key, key_at, type_at, value })
}

fn read_alignment(kv: &Kv<'_>) -> Result<u64, FormatError> {
    let type_offset = kv.type_at as u64;
    let Value::U32(got) = kv.value else {
        let field = Field::named(What::ValueType, kv.key);
        return Err(FormatError::Type { field, offset: type_offset, expected: "u32", got: kv.value.found() });
    };
    let got = u64::from(got);
    if !got.is_power_of_two() || !(MIN_ALIGNMENT..=MAX_ALIGNMENT).contains(&got) {
        let field = Field::named(What::Value, kv.key);
        let offset = type_offset.saturating_add(4);
        return Err(FormatError::Align { field, offset, align: MIN_ALIGNMENT, got });
    }
    Ok(got)
}

fn read_info<'a>(cursor: &mut Cursor<'a>, alignment: u64) -> Result<Info<'a>, FormatError> {
    let length_at = cursor.offset();
    let len = cursor.count(What::TensorNameLength, MAX_TENSOR_NAME)?;
    if len == 0 {
        return Err(FormatError::Syntax { field: Field::new(What::TensorNameLength), offset: length_at });
    }
    let (name_at, name_offset) = (cursor.at(), cursor.offset());
    let name = cursor.take(len as u64, What::TensorName)?;
    let bad = match core::str::from_utf8(name) {
        Ok(text) => text.bytes().position(|byte| byte == 0),
        Err(error) => Some(error.valid_up_to()),
    };
    if let Some(bad) = bad {
        let offset = name_offset.saturating_add(bad as u64);
        return Err(FormatError::Utf8 { field: Field::named(What::TensorName, name), offset });
    }
    let rest = read_info_rest(cursor, alignment).map_err(|error| error.with_name(name))?;
    Ok(Info { name, name_at, ..rest })
}

/// All of an entry but the name.
fn read_info_rest<'a>(cursor: &mut Cursor<'a>, alignment: u64) -> Result<Info<'a>, FormatError> {
    let offset = cursor.offset();
    let got = cursor.u32(What::Rank)?;
    let Some(rank) = usize::try_from(got).ok().filter(|&rank| rank <= MAX_DIMS) else {
        let (limit, got) = (MAX_DIMS as u64, got.into());
        return Err(FormatError::Limit { field: Field::new(What::Rank), offset, limit, got });
    };
    let dims_at = cursor.offset();
    let mut dims = [1; MAX_DIMS];
    for dim in dims.iter_mut().take(rank) {
        *dim = cursor.u64(What::Dimension)?;
    }
    check_elements(&dims, dims_at)?;
    let type_at = cursor.offset();
    let id = cursor.u32(What::TensorType)?;
    let dtype = DType::from_ggml(id).ok_or(FormatError::Type {
        field: Field::new(What::TensorType),
        offset: type_at,
        expected: "a supported tensor type",
        got: Found::TensorId(id),
    })?;
    let bytes = tensor_bytes(dtype, &dims, dims_at)?;
    let offset_at = cursor.offset();
    let offset = cursor.u64(What::TensorOffset)?;
    // The alignment is a power of two.
    if offset & alignment.wrapping_sub(1) != 0 {
        let field = Field::new(What::TensorOffset);
        return Err(FormatError::Align { field, offset: offset_at, align: alignment, got: offset });
    }
    Ok(Info { name: &[], name_at: 0, rank, dims, dtype, offset, offset_at, bytes })
}

/// Checks that the product of the dimensions fits a signed 64-bit number, not counting zeros: then the product of any of
/// them fits as well, in whatever order it is formed.
fn check_elements(dims: &[u64; MAX_DIMS], dims_at: u64) -> Result<(), FormatError> {
    let field = Field::new(What::Dimension);
    let mut product = Size(1);
    let mut offset = dims_at;
    for &dim in dims {
        let next = product.mul(Size(dim.max(1))).ok().filter(|next| i64::try_from(next.0).is_ok());
        product = next.ok_or(FormatError::Overflow { field, offset })?;
        offset = offset.saturating_add(8);
    }
    Ok(())
}

fn tensor_bytes(dtype: DType, dims: &[u64; MAX_DIMS], dims_at: u64) -> Result<u64, FormatError> {
    let field = Field::new(What::Dimension);
    let [cols, rows @ ..] = *dims;
    let (values, bytes) = dtype.block();
    let (values, bytes) = (values as u64, bytes as u64);
    if cols.checked_rem(values) != Some(0) {
        return Err(FormatError::Shape { field, offset: dims_at, expected: values, got: cols });
    }
    let blocks = Size(cols.checked_div(values).unwrap_or(0));
    let product = rows.iter().try_fold(blocks, |product, &rows| product.mul(Size(rows)));
    let total = product.and_then(|blocks| blocks.mul(Size(bytes)));
    total.map(|total| total.0).map_err(|Overflow| FormatError::Overflow { field, offset: dims_at })
}

/// The sum of all tensor sizes, each padded to the alignment, as a writer lays them out.
fn add_padded(total: Size, info: &Info<'_>, alignment: u64) -> Result<Size, FormatError> {
    let sum = Size(info.bytes).round_up(alignment).and_then(|padded| total.add(padded));
    sum.map_err(|Overflow| FormatError::Overflow {
        field: Field::named(What::TensorData, info.name),
        offset: info.offset_at,
    })
}

fn data_offset(end: &Cursor<'_>, alignment: u64) -> Result<u64, FormatError> {
    let (field, offset) = (Field::new(What::Header), end.offset());
    let start = Size(offset).round_up(alignment);
    start.map(|start| start.0).map_err(|Overflow| FormatError::Overflow { field, offset })
}

/// The absolute start of a tensor whose bytes are all inside the file.
fn extent(info: &Info<'_>, data_offset: u64, file_len: u64) -> Result<u64, FormatError> {
    let (field, offset) = (Field::named(What::TensorData, info.name), info.offset_at);
    let overflow = |Overflow| FormatError::Overflow { field, offset };
    let start = Size(data_offset).add(Size(info.offset)).map_err(overflow)?;
    let end = start.add(Size(info.bytes)).map_err(overflow)?;
    if end.0 > file_len {
        return Err(FormatError::Range { field, offset, limit: file_len, got: end.0 });
    }
    Ok(start.0)
}

/// The value of the pair whose value type stands at `type_at` of a header that has been walked.
pub(super) fn value_at<'a>(header: &'a [u8], type_at: usize, key: &'a [u8]) -> Option<Value<'a>> {
    let mut cursor = Cursor::new(header, header.len() as u64).seek(type_at);
    let kind: ValueType = read_type(&mut cursor, What::ValueType).ok()?;
    read_value(&mut cursor, kind, key).ok()
}
