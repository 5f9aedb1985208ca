//! Why a model file could not be read.

use super::field::{Field, Name};
use super::gguf::ValueType;
use crate::mem::MemError;
use core::fmt;
use thiserror::Error;

/// Why a file was refused. `offset` is always the absolute byte offset of the field in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The file ends before the field does.
    #[error("{field} at byte {offset}: the file has {got} bytes, {needed} are needed")]
    Truncated {
        /// The field.
        field: Field,
        /// Where it begins.
        offset: u64,
        /// File length that the field needs at least.
        needed: u64,
        /// File length.
        got: u64,
    },
    /// The front part of the file that was handed over ends before the field does, but the file goes on: hand over at
    /// least `needed` bytes and try again.
    #[error("{field} at byte {offset}: {got} bytes of the header are present, {needed} are needed")]
    MoreHeader {
        /// The field.
        field: Field,
        /// Where it begins.
        offset: u64,
        /// Length of the front part that the field needs at least; never more than the file has.
        needed: u64,
        /// Length of the front part.
        got: u64,
    },
    /// The file does not begin with `GGUF`.
    #[error("magic number at byte {offset}: `{}` instead of `GGUF`", got.escape_ascii())]
    Magic {
        /// Where it begins.
        offset: u64,
        /// The bytes found.
        got: [u8; 4],
    },
    /// A version that is not supported.
    #[error("version at byte {offset}: {}", version_text(*got))]
    Version {
        /// Where it begins.
        offset: u64,
        /// The number found, read as little-endian.
        got: u32,
    },
    /// A number is above its cap; see [`super::limits`].
    #[error("{field} at byte {offset}: {got} is above the limit of {limit}")]
    Limit {
        /// The field.
        field: Field,
        /// Where it begins.
        offset: u64,
        /// The cap.
        limit: u64,
        /// The number found.
        got: u64,
    },
    /// A size computed from the field does not fit 64 bits or the machine's address space.
    #[error("{field} at byte {offset}: the size overflows")]
    Overflow {
        /// The field.
        field: Field,
        /// Where it begins.
        offset: u64,
    },
    /// A number is outside its range, or an extent goes past the end of the file.
    #[error("{field} at byte {offset}: {got} is outside the range that ends at {limit}")]
    Range {
        /// The field.
        field: Field,
        /// Where it begins.
        offset: u64,
        /// The greatest number allowed.
        limit: u64,
        /// The number found.
        got: u64,
    },
    /// Two tensors share bytes.
    #[error(
        "{field} at byte {offset}: begins at {got}, inside the tensor given at byte {first}, which ends at {end}"
    )]
    Overlap {
        /// The offset field of the tensor that begins later.
        field: Field,
        /// Where it begins.
        offset: u64,
        /// Where the offset field of the tensor that begins earlier stands.
        first: u64,
        /// End of that tensor in the file.
        end: u64,
        /// Start of the later tensor in the file.
        got: u64,
    },
    /// An alignment that is no power of two in range, or an offset that is no multiple of it.
    #[error("{field} at byte {offset}: {got} does not fit the alignment {align}")]
    Align {
        /// The field.
        field: Field,
        /// Where it begins.
        offset: u64,
        /// The alignment to keep; for the alignment itself its smallest value.
        align: u64,
        /// The number found.
        got: u64,
    },
    /// Another type than expected, or none that exists.
    #[error("{field} at byte {offset}: expected {expected}, got {got}")]
    Type {
        /// The field.
        field: Field,
        /// Where it begins.
        offset: u64,
        /// What is allowed, in words.
        expected: &'static str,
        /// What was found.
        got: Found,
    },
    /// A key or tensor name that occurs twice.
    #[error("{field} at byte {offset}: already present at byte {first}")]
    Duplicate {
        /// The key or tensor name.
        field: Field,
        /// Where the second one begins.
        offset: u64,
        /// Where the first one begins.
        first: u64,
    },
    /// A shape that the type or the role forbids.
    #[error("{field} at byte {offset}: {got} where {expected} is required")]
    Shape {
        /// The field.
        field: Field,
        /// Where it begins.
        offset: u64,
        /// The number required, or of which a multiple is required.
        expected: u64,
        /// The number found.
        got: u64,
    },
    /// A key or tensor that must be present is not.
    #[error("{field} is missing")]
    Missing {
        /// The key or tensor.
        field: Field,
    },
    /// Text that is not of the required encoding: ASCII without NUL for keys, UTF-8 for texts.
    #[error("{field} at byte {offset}: not valid text")]
    Utf8 {
        /// The field.
        field: Field,
        /// The first bad byte.
        offset: u64,
    },
    /// Something that the grammar of the format forbids, such as an empty key.
    #[error("{field} at byte {offset}: must not be empty")]
    Syntax {
        /// The field.
        field: Field,
        /// Where it begins.
        offset: u64,
    },
    /// Nesting that is too deep: arrays of arrays are not supported.
    #[error("{field} at byte {offset}: nested deeper than {limit}")]
    Depth {
        /// The field.
        field: Field,
        /// Where it begins.
        offset: u64,
        /// The depth allowed.
        limit: u64,
    },
    /// The header that is read is not the one that the memory was planned for.
    #[error("{field}: {got} instead of the planned {planned}")]
    Planned {
        /// The number of entries.
        field: Field,
        /// Entries that the plan has room for.
        planned: u64,
        /// Entries in the header.
        got: u64,
    },
    /// The bytes could not be obtained.
    #[error("cannot {operation} at byte {offset}: {cause}")]
    Io {
        /// What was tried.
        operation: Operation,
        /// Where in the file.
        offset: u64,
        /// Why it failed.
        cause: ReadError,
    },
    /// Memory could not be planned or obtained.
    #[error(transparent)]
    Memory(#[from] MemError),
}

impl FormatError {
    /// The same error with the name of the key or tensor, where the error has a field without a name.
    pub fn with_name(mut self, name: &[u8]) -> Self {
        if let Some(field) = self.field_mut().filter(|field| field.name.is_empty()) {
            field.name = Name::new(name);
        }
        self
    }

    /// The field that the error is about.
    pub fn field(&self) -> Option<Field> {
        let mut copy = *self;
        copy.field_mut().copied()
    }

    fn field_mut(&mut self) -> Option<&mut Field> {
        match self {
            Self::Truncated { field, .. }
            | Self::MoreHeader { field, .. }
            | Self::Limit { field, .. }
            | Self::Overflow { field, .. }
            | Self::Range { field, .. }
            | Self::Overlap { field, .. }
            | Self::Align { field, .. }
            | Self::Type { field, .. }
            | Self::Duplicate { field, .. }
            | Self::Shape { field, .. }
            | Self::Missing { field }
            | Self::Utf8 { field, .. }
            | Self::Syntax { field, .. }
            | Self::Depth { field, .. }
            | Self::Planned { field, .. } => Some(field),
            Self::Magic { .. } | Self::Version { .. } | Self::Io { .. } | Self::Memory(_) => None,
        }
    }

    /// The absolute byte offset in the file, for errors that concern a place in it.
    pub fn offset(&self) -> Option<u64> {
        match *self {
            Self::Truncated { offset, .. }
            | Self::MoreHeader { offset, .. }
            | Self::Magic { offset, .. }
            | Self::Version { offset, .. }
            | Self::Limit { offset, .. }
            | Self::Overflow { offset, .. }
            | Self::Range { offset, .. }
            | Self::Overlap { offset, .. }
            | Self::Align { offset, .. }
            | Self::Type { offset, .. }
            | Self::Duplicate { offset, .. }
            | Self::Shape { offset, .. }
            | Self::Utf8 { offset, .. }
            | Self::Syntax { offset, .. }
            | Self::Depth { offset, .. }
            | Self::Io { offset, .. } => Some(offset),
            Self::Missing { .. } | Self::Planned { .. } | Self::Memory(_) => None,
        }
    }
}

fn version_text(got: u32) -> VersionText {
    VersionText(got)
}

struct VersionText(u32);

impl fmt::Display for VersionText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.0.swap_bytes()) {
            (1, _) => f.write_str("GGUF 1 is not supported, only 2 and 3; convert the file again"),
            (_, 1..=0xFFFF) => f.write_str("big-endian files are not supported; convert the file again"),
            (other, _) => write!(f, "GGUF {other} is not supported, only 2 and 3"),
        }
    }
}

/// What stood where another type was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// A metadata value of a type that exists.
    Value(ValueType),
    /// An array with elements of this type.
    ArrayOf(ValueType),
    /// A number of no metadata type.
    ValueId(u32),
    /// GGML's number of a tensor type that is not supported.
    TensorId(u32),
    /// A byte that is no bool.
    Byte(u8),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Found::Value(value) => f.write_str(value.name()),
            Found::ArrayOf(element) => write!(f, "array of {}", element.name()),
            Found::ValueId(id) => write!(f, "unknown type {id}"),
            Found::TensorId(id) => match ggml_type_name(id) {
                Some(name) => write!(f, "{name} (type {id})"),
                None => write!(f, "unknown type {id}"),
            },
            Found::Byte(byte) => write!(f, "byte {byte}"),
        }
    }
}

/// Names of GGML's tensor types that this library does not read, from the enumeration `ggml_type`.
fn ggml_type_name(id: u32) -> Option<&'static str> {
    Some(match id {
        4 => "Q4_2 (removed)",
        5 => "Q4_3 (removed)",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        31 => "Q4_0_4_4 (removed)",
        32 => "Q4_0_4_8 (removed)",
        33 => "Q4_0_8_8 (removed)",
        34 => "TQ1_0",
        35 => "TQ2_0",
        36 => "IQ4_NL_4_4 (removed)",
        37 => "IQ4_NL_4_8 (removed)",
        38 => "IQ4_NL_8_8 (removed)",
        39 => "MXFP4",
        40 => "NVFP4",
        _ => return None,
    })
}

/// What was tried when bytes could not be obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Operation {
    Open,
    Stat,
    Read,
    Map,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Open => "open the file",
            Operation::Stat => "query the file",
            Operation::Read => "read",
            Operation::Map => "map the file",
        })
    }
}

/// Why bytes could not be obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The host's own number for what went wrong, from a reader callback.
    #[error("the host's reader failed with code {0}")]
    Host(i32),
    /// The source ended early: the file shrank, or is shorter than was said.
    #[error("the source ended early")]
    Ended,
    /// Not a regular file: a directory, a pipe, a device.
    #[error("not a regular file")]
    NotAFile,
    /// There are no bytes.
    #[error("no bytes")]
    Empty,
    /// The extent asked for is not inside the file, or does not fit the address space.
    #[error("an extent of {len} bytes where {available} are available")]
    Extent {
        /// Bytes asked for.
        len: u64,
        /// Bytes that there are.
        available: u64,
    },
    /// The file is not what it was when it was opened.
    #[error("the file has changed since it was opened")]
    Changed,
    /// The operating system's reason.
    #[cfg(feature = "std")]
    #[error("{0}")]
    Os(std::io::ErrorKind),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    extern crate std;
    use std::format;
    use std::string::ToString;

    /// The enumeration `ggml_type` of `ggml.h`, in order; a star marks members that were removed.
    const GGML: &str = "F32 F16 Q4_0 Q4_1 Q4_2* Q4_3* Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K \
        IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16 \
        Q4_0_4_4* Q4_0_4_8* Q4_0_8_8* TQ1_0 TQ2_0 IQ4_NL_4_4* IQ4_NL_4_8* IQ4_NL_8_8* MXFP4 NVFP4";

    #[test]
    fn every_tensor_type_is_called_by_its_name() {
        let mut end = 0;
        for (id, name) in (0u32..).zip(GGML.split_whitespace()) {
            let name = name.replace('*', " (removed)");
            match DType::from_ggml(id) {
                Some(dtype) => assert_eq!(dtype.to_string(), name),
                None => assert_eq!(Found::TensorId(id).to_string(), format!("{name} (type {id})")),
            }
            end = id + 1;
        }
        assert_eq!(Found::TensorId(end).to_string(), format!("unknown type {end}"));
    }

    #[test]
    fn operations_read_as_the_end_of_a_sentence() {
        let operations = [Operation::Open, Operation::Stat, Operation::Read, Operation::Map];
        let told = operations
            .map(|operation| FormatError::Io { operation, offset: 5, cause: ReadError::Ended }.to_string());
        let expected = ["open the file", "query the file", "read", "map the file"]
            .map(|what| format!("cannot {what} at byte 5: the source ended early"));
        assert_eq!(told, expected);
    }
}
