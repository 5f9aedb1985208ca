//! What an error is about: a kind of field, and the name of the key or tensor that it belongs to.

use super::limits::MAX_TENSOR_NAME;
use core::fmt;

/// Kinds of fields of a model file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum What {
    Header,
    Magic,
    Version,
    TensorCount,
    KvCount,
    KeyLength,
    Key,
    ValueType,
    Value,
    StringLength,
    String,
    ElementType,
    ArrayLength,
    Element,
    TensorNameLength,
    TensorName,
    Rank,
    Dimension,
    TensorType,
    TensorOffset,
    TensorData,
}

impl What {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            What::Header => "header",
            What::Magic => "magic number",
            What::Version => "version",
            What::TensorCount => "tensor count",
            What::KvCount => "key-value count",
            What::KeyLength => "key length",
            What::Key => "key",
            What::ValueType => "value type",
            What::Value => "value",
            What::StringLength => "string length",
            What::String => "string",
            What::ElementType => "array element type",
            What::ArrayLength => "array length",
            What::Element => "array element",
            What::TensorNameLength => "tensor name length",
            What::TensorName => "tensor name",
            What::Rank => "tensor dimension count",
            What::Dimension => "tensor dimension",
            What::TensorType => "tensor type",
            What::TensorOffset => "tensor offset",
            What::TensorData => "tensor data",
        }
    }
}

/// A kind of field with the name of the key or tensor that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Kind of field.
    pub what: What,
    /// Key or tensor; empty where there is none, or where it is not yet known.
    pub name: Name,
}

impl Field {
    /// A field without a name.
    pub const fn new(what: What) -> Self {
        Self { what, name: Name::EMPTY }
    }

    /// A field that belongs to the key or tensor `name`.
    pub fn named(what: What, name: &[u8]) -> Self {
        Self { what, name: Name::new(name) }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what.text())?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " of `{}`", self.name) }
    }
}

/// A copy of the first bytes of a name, so that an error borrows nothing. Tensor names always fit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; MAX_TENSOR_NAME],
    len: u8,
    cut: bool,
}

impl Name {
    /// No name.
    pub const EMPTY: Name = Name { bytes: [0; MAX_TENSOR_NAME], len: 0, cut: false };

    /// The first 64 bytes of `name`.
    pub fn new(name: &[u8]) -> Self {
        Self::joined(&[name])
    }

    /// The first 64 bytes of all `parts` together.
    pub fn joined(parts: &[&[u8]]) -> Self {
        let mut result = Self::EMPTY;
        for &byte in parts.iter().copied().flatten() {
            match result.bytes.get_mut(usize::from(result.len)) {
                Some(place) => *place = byte,
                None => {
                    result.cut = true;
                    break;
                }
            }
            result.len = result.len.saturating_add(1);
        }
        result
    }

    /// The bytes that were kept.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())?;
        f.write_str(if self.cut { "..." } else { "" })
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::format;
    use std::string::ToString;

    #[test]
    fn names_are_kept_up_to_the_longest_of_a_tensor() {
        let (fits, long) = ([b'n'; MAX_TENSOR_NAME], [b'n'; MAX_TENSOR_NAME + 1]);
        let text = "n".repeat(MAX_TENSOR_NAME);
        assert_eq!(Name::new(&fits).to_string(), text);
        assert_eq!(Name::new(&long).to_string(), text.clone() + "...");
        assert_eq!(Name::new(&long).as_bytes(), fits);
        assert_ne!(Name::new(&long), Name::new(&fits));
        let joined = Name::joined(&[b"a", b"", b".b\n"]);
        assert_eq!((joined.as_bytes(), joined.is_empty()), (&b"a.b\n"[..], false));
        assert_eq!(format!("{joined:?}"), r#""a.b\n""#);
        assert!(Name::joined(&[b"", b""]).is_empty() && Name::EMPTY.as_bytes().is_empty());
    }

    #[test]
    fn fields_read_with_and_without_a_name() {
        assert_eq!(Field::new(What::Rank).to_string(), "tensor dimension count");
        assert_eq!(Field::named(What::Key, b"a.b").to_string(), "key of `a.b`");
    }
}
