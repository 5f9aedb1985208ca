//! Named caps on everything that a file may claim. A cap is above every file that is known to exist, and low enough
//! that no claim makes the reader work or the plan grow out of proportion.

/// Key-value pairs. Real files have 20 to 100; the specification names no bound, and a table of 65,536 rows is 1.3 MB.
pub const MAX_KV: usize = 65_536;

/// Bytes of a key, from the specification: `2^16 - 1`.
pub const MAX_KEY: usize = 65_535;

/// Bytes of a tensor name, from the specification.
pub const MAX_TENSOR_NAME: usize = 64;

/// Dimensions of a tensor, from the specification.
pub const MAX_DIMS: usize = 4;

/// Tensors. The largest mixture-of-experts files have about 2,000.
pub const MAX_TENSORS: usize = 65_536;

/// Bytes of one string. Chat templates have up to 100 kB; an embedded `tokenizer.json` has up to 33 MB.
pub const MAX_STRING: usize = 64 << 20;

/// Strings of one array. The largest vocabularies have 262,144 tokens and 580,604 merges.
pub const MAX_STRINGS: usize = 1 << 22;

/// Elements of one array of numbers. The longest known is a `precompiled_charsmap` of less than 1 MB.
pub const MAX_ARRAY: usize = 1 << 24;

/// Smallest `general.alignment`: the specification asks for a multiple of 8.
pub const MIN_ALIGNMENT: u64 = 8;

/// Largest `general.alignment`: the largest page size in use.
pub const MAX_ALIGNMENT: u64 = 65_536;

/// `general.alignment` of files that do not state it.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// Array nesting: an array of arrays is refused, as no model key uses one.
pub const MAX_ARRAY_DEPTH: usize = 1;

/// Bytes of everything before the tensor data. Real files stay below 40 MB. It also keeps every place in a header inside
/// 32 bits, which halves the tables.
pub const MAX_HEADER: usize = 256 << 20;

/// First read of a header from a file or callback; doubled until the header is complete. Small models fit at once.
pub const FIRST_READ: usize = 64 << 10;

/// The same where a file is mapped, if that is not more than a 32nd of it: the vocabulary of most models fits at once, and
/// scanning and copying more than once takes time.
#[cfg(feature = "std")]
pub const FIRST_COPY: usize = 2 << 20;
