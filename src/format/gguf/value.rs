//! Metadata values: scalars, strings and arrays, borrowed from the header.

use crate::format::cursor::Cursor;
use crate::format::error::{FormatError, Found};
use crate::format::field::{Field, What};
use crate::format::limits::{MAX_ARRAY, MAX_ARRAY_DEPTH, MAX_STRING, MAX_STRINGS};

/// Types of metadata values, with GGUF's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    /// The type with GGUF's number `id`.
    pub const fn from_id(id: u32) -> Option<ValueType> {
        Some(match id {
            0 => ValueType::U8,
            1 => ValueType::I8,
            2 => ValueType::U16,
            3 => ValueType::I16,
            4 => ValueType::U32,
            5 => ValueType::I32,
            6 => ValueType::F32,
            7 => ValueType::Bool,
            8 => ValueType::String,
            9 => ValueType::Array,
            10 => ValueType::U64,
            11 => ValueType::I64,
            12 => ValueType::F64,
            _ => return None,
        })
    }

    /// Bytes of a value; `None` for strings and arrays, whose values say it themselves.
    pub const fn size(self) -> Option<usize> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::String | ValueType::Array => None,
        }
    }

    /// The type's name.
    pub const fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::String => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }
}

/// A metadata value. Nothing is copied but scalars.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// The bytes of a string, not checked to be UTF-8; [`Gguf::str`](super::Gguf::str) checks.
    Str(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// The type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::Str(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// What an error says when this value stands where another type is expected.
    pub fn found(&self) -> Found {
        match self {
            Value::Array(array) => Found::ArrayOf(array.element),
            other => Found::Value(other.value_type()),
        }
    }

    /// Any integer, as a wide one; `None` for all else.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(v) => v.into(),
            Value::I8(v) => v.into(),
            Value::U16(v) => v.into(),
            Value::I16(v) => v.into(),
            Value::U32(v) => v.into(),
            Value::I32(v) => v.into(),
            Value::U64(v) => v.into(),
            Value::I64(v) => v.into(),
            _ => return None,
        })
    }

    /// A float of either width, rounded to `f32`; `None` for all else.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// A bool; `None` for all else.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// A scalar of a type with a fixed size from exactly its bytes. A bool byte above 1 is no bool.
    pub(super) fn scalar(kind: ValueType, bytes: &[u8]) -> Option<Value<'static>> {
        Some(match kind {
            ValueType::U8 => Value::U8(u8::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::U64 => Value::U64(u64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::Bool => match bytes {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return None,
            },
            ValueType::String | ValueType::Array => return None,
        })
    }
}

/// An array of scalars or strings, borrowed from the header and checked to be complete.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    /// Type of the elements, never an array.
    pub element: ValueType,
    /// Number of elements.
    pub len: usize,
    /// The elements as they stand in the file.
    pub bytes: &'a [u8],
    /// Absolute offset of the first element in the file.
    pub offset: u64,
    /// The key that the array belongs to, for errors.
    pub key: &'a [u8],
}

impl<'a> Array<'a> {
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Element `index` of an array of scalars, in constant time. `None` beyond the last one and for strings.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        let size = self.element.size()?;
        let start = index.checked_mul(size)?;
        let bytes = self.bytes.get(start..)?.get(..size)?;
        Value::scalar(self.element, bytes)
    }

    /// Absolute offset of element `index` of an array of scalars; of the first one for strings.
    pub fn offset_of(&self, index: usize) -> u64 {
        let size = self.element.size().unwrap_or(0) as u64;
        (index as u64).saturating_mul(size).saturating_add(self.offset)
    }

    /// The strings, which need not be UTF-8. [`FormatError::Type`] for other elements.
    pub fn strings(&self) -> Result<Strings<'a>, FormatError> {
        if self.element != ValueType::String {
            return Err(self.wrong_type("array of string"));
        }
        Ok(Strings { rest: self.bytes, left: self.len, offset: self.offset })
    }

    /// The elements as `u32`. Integers of every type whose values all fit, and bools as 0 and 1; else
    /// [`FormatError::Type`] or [`FormatError::Range`]. Cost: reads the array once more than the iteration.
    pub fn u32s(&self) -> Result<Numbers<'a, u32>, FormatError> {
        self.numbers("array of integers", u64::from(u32::MAX), |value| {
            let number = value.as_integer().or_else(|| value.as_bool().map(i128::from));
            number.map(|number| u32::try_from(number).map_err(|_| number as u64))
        })
    }

    /// The elements as `i32`; as [`u32s`](Self::u32s).
    pub fn i32s(&self) -> Result<Numbers<'a, i32>, FormatError> {
        self.numbers("array of integers", i32::MAX as u64, |value| {
            value.as_integer().map(|number| i32::try_from(number).map_err(|_| number as u64))
        })
    }

    /// The elements as `f32`, from floats of either width; not checked to be finite.
    pub fn f32s(&self) -> Result<Numbers<'a, f32>, FormatError> {
        self.numbers("array of floats", 0, |value| value.as_f32().map(Ok))
    }

    fn numbers<T>(
        &self,
        expected: &'static str,
        limit: u64,
        convert: Convert<T>,
    ) -> Result<Numbers<'a, T>, FormatError> {
        for index in 0..self.len {
            let converted = self.get(index).and_then(convert).ok_or_else(|| self.wrong_type(expected))?;
            if let Err(got) = converted {
                let field = Field::named(What::Element, self.key);
                return Err(FormatError::Range { field, offset: self.offset_of(index), limit, got });
            }
        }
        Ok(Numbers { array: *self, next: 0, convert })
    }

    fn wrong_type(&self, expected: &'static str) -> FormatError {
        let field = Field::named(What::ElementType, self.key);
        // The element type and the number of elements, 4 and 8 bytes, stand before the first element.
        let offset = self.offset.saturating_sub(12);
        FormatError::Type { field, offset, expected, got: Found::ArrayOf(self.element) }
    }
}

/// What an element is as a `T`: no such type, or a number that does not fit, or the number.
type Convert<T> = fn(Value<'_>) -> Option<Result<T, u64>>;

/// Elements of an array of numbers, all checked to be numbers of type `T`.
#[derive(Debug, Clone)]
pub struct Numbers<'a, T> {
    array: Array<'a>,
    next: usize,
    convert: Convert<T>,
}

impl<T> Iterator for Numbers<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let number = self.array.get(self.next).and_then(self.convert)?.ok()?;
        self.next = self.next.saturating_add(1);
        Some(number)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.array.len.saturating_sub(self.next);
        (left, Some(left))
    }
}

impl<T> ExactSizeIterator for Numbers<'_, T> {}

/// The strings of an array, in order.
#[derive(Debug, Clone)]
pub struct Strings<'a> {
    rest: &'a [u8],
    left: usize,
    offset: u64,
}

impl Strings<'_> {
    /// Absolute offset of the bytes of the next string in the file.
    pub fn offset(&self) -> u64 {
        self.offset.saturating_add(8)
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.rest.split_first_chunk::<8>()?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        let (string, rest) = rest.split_at_checked(len)?;
        self.rest = rest;
        self.left = self.left.saturating_sub(1);
        self.offset = self.offset().saturating_add(len as u64);
        Some(string)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}

/// A string behind its length of eight bytes.
pub(super) fn read_string<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], FormatError> {
    let len = cursor.count(What::StringLength, MAX_STRING)?;
    cursor.take(len as u64, What::String)
}

/// The elements of an array behind its element type and length, all checked.
pub(super) fn read_array<'a>(cursor: &mut Cursor<'a>, key: &'a [u8]) -> Result<Array<'a>, FormatError> {
    let type_at = cursor.offset();
    let element = read_type(cursor, What::ElementType)?;
    if element == ValueType::Array {
        let (field, limit) = (Field::new(What::ElementType), MAX_ARRAY_DEPTH as u64);
        return Err(FormatError::Depth { field, offset: type_at, limit });
    }
    let Some(size) = element.size() else { return read_strings(cursor, key) };
    let len = cursor.count(What::ArrayLength, MAX_ARRAY)?;
    let offset = cursor.offset();
    let field = Field::new(What::ArrayLength);
    let total = (len as u64).checked_mul(size as u64).ok_or(FormatError::Overflow { field, offset })?;
    let bytes = cursor.take(total, What::Element)?;
    let array = Array { element, len, bytes, offset, key };
    if element == ValueType::Bool
        && let Some((index, &byte)) = bytes.iter().enumerate().find(|(_, byte)| **byte > 1)
    {
        return Err(bad_bool(What::Element, array.offset_of(index), byte));
    }
    Ok(array)
}

fn read_strings<'a>(cursor: &mut Cursor<'a>, key: &'a [u8]) -> Result<Array<'a>, FormatError> {
    let len = cursor.count(What::ArrayLength, MAX_STRINGS)?;
    let (mut start, offset) = (*cursor, cursor.offset());
    // Every string has at least its length: a claim that the file cannot hold fails before the first string.
    cursor.require((len as u64).saturating_mul(8), What::Element)?;
    for _ in 0..len {
        read_string(cursor)?;
    }
    let total = cursor.offset().saturating_sub(offset);
    let bytes = start.take(total, What::Element)?;
    Ok(Array { element: ValueType::String, len, bytes, offset, key })
}

/// The number of a value type.
pub(super) fn read_type(cursor: &mut Cursor<'_>, what: What) -> Result<ValueType, FormatError> {
    let offset = cursor.offset();
    let id = cursor.u32(what)?;
    ValueType::from_id(id).ok_or(FormatError::Type {
        field: Field::new(what),
        offset,
        expected: "a value type of 0 to 12",
        got: Found::ValueId(id),
    })
}

/// A value of type `kind`.
pub(super) fn read_value<'a>(
    cursor: &mut Cursor<'a>,
    kind: ValueType,
    key: &'a [u8],
) -> Result<Value<'a>, FormatError> {
    match kind {
        ValueType::String => read_string(cursor).map(Value::Str),
        ValueType::Array => read_array(cursor, key).map(Value::Array),
        _ => {
            let offset = cursor.offset();
            let bytes = cursor.take(kind.size().unwrap_or(0) as u64, What::Value)?;
            let byte = bytes.first().copied().unwrap_or(0);
            Value::scalar(kind, bytes).ok_or(bad_bool(What::Value, offset, byte))
        }
    }
}

fn bad_bool(what: What, offset: u64, byte: u8) -> FormatError {
    FormatError::Type {
        field: Field::new(what),
        offset,
        expected: "a bool of 0 or 1",
        got: Found::Byte(byte),
    }
}
