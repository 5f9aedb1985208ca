//! Typed access to metadata.

use super::value::{Array, Strings, Value};
use super::{Gguf, KvEntry, key, walk};
use crate::format::error::FormatError;
use crate::format::field::{Field, Name, What};
use crate::format::sort::find_by;

/// A key, whole (`"general.name"`) or in two parts with a dot between them (`(arch, "block_count")`).
#[derive(Debug, Clone, Copy)]
pub struct Key<'k> {
    arch: Option<&'k str>,
    rest: &'k str,
}

impl<'k> From<&'k str> for Key<'k> {
    fn from(rest: &'k str) -> Self {
        Self { arch: None, rest }
    }
}

impl<'k> From<(&'k str, &'k str)> for Key<'k> {
    fn from((arch, rest): (&'k str, &'k str)) -> Self {
        Self { arch: Some(arch), rest }
    }
}

impl Key<'_> {
    fn bytes(&self) -> impl Iterator<Item = u8> {
        let (arch, dot) = self.arch.map_or(("", ""), |arch| (arch, "."));
        arch.bytes().chain(dot.bytes()).chain(self.rest.bytes())
    }

    /// The field of an error about this key.
    pub fn field(&self, what: What) -> Field {
        let (arch, dot) = self.arch.map_or(("", ""), |arch| (arch, "."));
        Field { what, name: Name::joined(&[arch.as_bytes(), dot.as_bytes(), self.rest.as_bytes()]) }
    }

    /// The error that says that this key is missing.
    pub fn missing(&self) -> FormatError {
        FormatError::Missing { field: self.field(What::Key) }
    }
}

/// A number that holds for every layer, or one for each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PerLayer<'a> {
    /// The same for all layers.
    All(u32),
    /// One for each layer; all fit a `u32`, and there are as many as layers.
    Each(Array<'a>),
}

impl PerLayer<'_> {
    /// The number for `layer`; 0 beyond the last one.
    pub fn get(&self, layer: usize) -> u32 {
        match self {
            PerLayer::All(number) => *number,
            PerLayer::Each(array) => array.get(layer).and_then(small).unwrap_or(0),
        }
    }
}

fn small(value: Value<'_>) -> Option<u32> {
    let number = value.as_integer().or_else(|| value.as_bool().map(i128::from))?;
    u32::try_from(number).ok()
}

impl<'a> Gguf<'a> {
    fn row(&self, sought: Key<'_>) -> Option<&'a KvEntry> {
        find_by(self.kv, |row| key(self.header, row).iter().copied().cmp(sought.bytes()))
    }

    fn entry(&self, sought: Key<'_>) -> Option<(Value<'a>, u64)> {
        let row = self.row(sought)?;
        let type_at = row.key_at.checked_add(row.key_len)?;
        let value = walk::value_at(self.header, type_at as usize, key(self.header, row))?;
        Some((value, type_at.into()))
    }

    /// The value of a key. Cost: a binary search, and one pass over the value if it is an array of strings.
    pub fn get<'k>(&self, key: impl Into<Key<'k>>) -> Option<Value<'a>> {
        self.entry(key.into()).map(|(value, _)| value)
    }

    /// The value of the key `{arch}.{rest}`.
    pub fn get_arch(&self, arch: &str, rest: &str) -> Option<Value<'a>> {
        self.get((arch, rest))
    }

    /// Absolute offset in the file of the value of a key (for strings and arrays, of their length or element type).
    pub fn value_offset<'k>(&self, key: impl Into<Key<'k>>) -> Option<u64> {
        self.entry(key.into()).map(|(_, type_at)| type_at.saturating_add(4))
    }

    /// Finds a value and converts it; an error that names the key if `convert` refuses its type.
    fn typed<'k, T>(
        &self,
        key: impl Into<Key<'k>>,
        expected: &'static str,
        convert: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let key = key.into();
        let Some((value, offset)) = self.entry(key) else { return Ok(None) };
        let converted = convert(value);
        if converted.is_none() {
            let field = key.field(What::ValueType);
            return Err(FormatError::Type { field, offset, expected, got: value.found() });
        }
        Ok(converted)
    }

    /// An integer of any type between 0 and `limit`.
    fn integer<'k>(&self, key: impl Into<Key<'k>>, limit: u64) -> Result<Option<u64>, FormatError> {
        let key = key.into();
        let Some(number) = self.typed(key, "an integer", |value| value.as_integer())? else {
            return Ok(None);
        };
        match u64::try_from(number) {
            Ok(number) if number <= limit => Ok(Some(number)),
            _ => {
                let offset = self.value_offset(key).unwrap_or(0);
                // A negative number is reported as its two's complement.
                let (field, got) = (key.field(What::Value), number as u64);
                Err(FormatError::Range { field, offset, limit, got })
            }
        }
    }

    /// An integer of any stored type that fits. `None` if the key is absent; [`FormatError::Type`] for other types,
    /// [`FormatError::Range`] for numbers that do not fit.
    pub fn u32<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<u32>, FormatError> {
        let number = self.integer(key, u32::MAX.into())?;
        Ok(number.and_then(|number| u32::try_from(number).ok()))
    }

    /// As [`u32`](Self::u32), for wider numbers.
    pub fn u64<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<u64>, FormatError> {
        self.integer(key, u64::MAX)
    }

    /// A float of either width, rounded to `f32`; the caller judges whether it must be finite.
    pub fn f32<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<f32>, FormatError> {
        self.typed(key, "a float", |value| value.as_f32())
    }

    /// A bool.
    pub fn bool<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<bool>, FormatError> {
        self.typed(key, "a bool", |value| value.as_bool())
    }

    /// The bytes of a string, whatever they are.
    pub fn bytes<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<&'a [u8]>, FormatError> {
        self.typed(key, "a string", |value| match value {
            Value::Str(bytes) => Some(bytes),
            _ => None,
        })
    }

    /// A string that must be UTF-8, else [`FormatError::Utf8`] with the offset of the first bad byte.
    pub fn str<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<&'a str>, FormatError> {
        let key = key.into();
        let Some(bytes) = self.bytes(key)? else { return Ok(None) };
        core::str::from_utf8(bytes).map(Some).map_err(|error| {
            // The length, 8 bytes, stands before the text.
            let skip = (error.valid_up_to() as u64).saturating_add(8);
            let offset = self.value_offset(key).unwrap_or(0).saturating_add(skip);
            FormatError::Utf8 { field: key.field(What::String), offset }
        })
    }

    /// An array of any element type.
    pub fn array<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<Array<'a>>, FormatError> {
        self.typed(key, "an array", |value| match value {
            Value::Array(array) => Some(array),
            _ => None,
        })
    }

    /// An array of strings.
    pub fn strings<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<Strings<'a>>, FormatError> {
        self.array(key)?.map(|array| array.strings()).transpose()
    }

    /// `general.architecture`, the prefix of the model's own keys.
    ///
    /// # Errors
    /// [`FormatError::Missing`], and as [`str`](Self::str).
    pub fn architecture(&self) -> Result<&'a str, FormatError> {
        let key = Key::from("general.architecture");
        self.str(key)?.ok_or(key.missing())
    }

    /// A number for all layers, or an array with one for each of `layers` layers. Bools count as 0 and 1.
    ///
    /// # Errors
    /// [`FormatError::Type`]; [`FormatError::Range`] for a number that is no `u32`; [`FormatError::Shape`] for an array of
    /// another length.
    pub fn u32_or_array<'k>(
        &self,
        key: impl Into<Key<'k>>,
        layers: usize,
    ) -> Result<Option<PerLayer<'a>>, FormatError> {
        let key = key.into();
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(PerLayer::All(flag.into()))),
            Some(Value::Array(array)) => {
                if array.len != layers {
                    let (expected, got) = (layers as u64, array.len as u64);
                    // The number of elements, 8 bytes, stands before the first one.
                    let (field, offset) = (key.field(What::ArrayLength), array.offset.saturating_sub(8));
                    return Err(FormatError::Shape { field, offset, expected, got });
                }
                array.u32s()?;
                Ok(Some(PerLayer::Each(array)))
            }
            Some(_) => Ok(self.u32(key)?.map(PerLayer::All)),
        }
    }
}
