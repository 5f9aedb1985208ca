//! Statuses: the numbers of the header, and their words. Never reuse a number.

use crate::handle::In;
use core::ffi::{CStr, c_char};

/// A status of `locutor.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub i32);

macro_rules! statuses {
    ($($name:ident = $number:literal $text:literal,)*) => {
        impl Status {
            $(pub const $name: Self = Self($number);)*
        }

        #[cfg(test)]
        pub const ALL: &[(&str, i32)] = &[$((stringify!($name), $number),)*];

        fn text(status: i32) -> &'static CStr {
            match status {
                $($number => $text,)*
                _ => c"unknown status",
            }
        }
    };
}

statuses! {
    OK = 0 c"no error",
    ARGUMENT = -100 c"an argument is NULL, not aligned, or longer than the address space",
    STRUCT_SIZE = -101 c"a structure has no size, or an unknown member that is not 0",
    PARAM = -102 c"a parameter is outside of its range, or excludes another one",
    TOKEN = -103 c"the model has no such token",
    UTF8 = -104 c"the text is not UTF-8",
    POSITION = -105 c"the position is behind the last token",
    BUFFER = -106 c"the output does not fit",
    TEXT_LENGTH = -107 c"a text is longer than the session's limits",
    SEQUENCE = -108 c"the sequence does not exist, or no longer",
    IO = -200 c"the file cannot be opened or read",
    FORMAT = -201 c"the file is damaged, or not a model",
    UNSUPPORTED = -202 c"the file asks for something that is not supported",
    NO_TOKENIZER = -203 c"the model has no tokenizer",
    STATE = -204 c"the saved state is damaged, incomplete or of another version",
    STATE_OF_OTHER = -205 c"the saved state is bound to another model or other settings",
    MEMORY = -300 c"no memory",
    MEMORY_SIZE = -301 c"the block of memory is too small",
    MEMORY_ALIGN = -302 c"the block of memory is not aligned",
    THREADS = -303 c"the system starts no more threads",
    BUSY = -400 c"the session is in another call",
    CONTEXT_FULL = -401 c"the context is full",
    EMPTY = -402 c"there is no token to go on from",
    NOT_READY = -403 c"there are no logits yet",
    PAGES_FULL = -404 c"the sequences together have no room",
    NO_SEQUENCE = -405 c"all sequences are in use",
    CANCELLED = -406 c"the call was cancelled",
    FORGOTTEN = -407 c"what came before the position is forgotten",
    NON_FINITE = -500 c"the logits are not finite",
    ALL_BANNED = -501 c"the logit biases ban every token",
    INTERNAL = -900 c"a fault of the library",
}

impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(text(self.0).to_str().unwrap_or_default())
    }
}

/// `LOCUTOR_ABI`.
pub const ABI: u32 = 1;

/// Declares exported functions.
macro_rules! export {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($arg: $type),*) $(-> $result)? $body
    )*};
}
pub(crate) use export;

export! {
    fn locutor_status_text(status: i32) -> In<c_char> {
        In::to(text(status).to_bytes_with_nul()).cast()
    }

    fn locutor_version() -> In<c_char> {
        const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
        In::to(VERSION.as_bytes()).cast()
    }

    fn locutor_abi() -> u32 {
        ABI
    }
}
