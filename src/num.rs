//! Integers that come from a file: every operation is checked, nothing wraps. And numbers in messages.

use core::fmt::{self, Write};
use thiserror::Error;

/// A size or offset computed from file contents left the range of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("integer overflow")]
pub struct Overflow;

/// A size or offset in a file. Arithmetic is checked, conversion to `usize` is fallible: on a 32-bit machine a 64-bit
/// length is an error, never a truncation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(pub u64);

// Named like the operators, but fallible, which the operators' traits are not.
#[allow(clippy::should_implement_trait)]
impl Size {
    /// `self + other`.
    pub fn add(self, other: Size) -> Result<Size, Overflow> {
        self.0.checked_add(other.0).map(Size).ok_or(Overflow)
    }

    /// `self * other`.
    pub fn mul(self, other: Size) -> Result<Size, Overflow> {
        self.0.checked_mul(other.0).map(Size).ok_or(Overflow)
    }

    /// The next multiple of `unit`; an error for a unit of 0.
    pub fn round_up(self, unit: u64) -> Result<Size, Overflow> {
        self.0.checked_next_multiple_of(unit).map(Size).ok_or(Overflow)
    }

    /// As an index of this machine.
    pub fn to_usize(self) -> Result<usize, Overflow> {
        usize::try_from(self.0).map_err(|_| Overflow)
    }
}

impl From<usize> for Size {
    fn from(value: usize) -> Self {
        Size(value as u64)
    }
}

/// A number in a message, to six places behind the point. The formatting of floats in `core` has assertions that no
/// optimiser proves, and weighs more than all messages together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decimal(pub f64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_nan() {
            return f.write_str("NaN");
        }
        if self.0.is_sign_negative() {
            f.write_char('-')?;
        }
        let (mut size, mut exponent) = (self.0.abs(), 0i32);
        if size.is_infinite() {
            return f.write_str("inf");
        }
        // Numbers that do not read well in full are written by their power of ten.
        if size != 0.0 && !(1e-4..1e15).contains(&size) {
            while size >= 10.0 {
                (size, exponent) = (size / 10.0, exponent + 1);
            }
            while size < 1.0 {
                (size, exponent) = (size * 10.0, exponent - 1);
            }
            // What rounds to ten is one of the next power.
            if size >= 9.999_999_5 {
                (size, exponent) = (1.0, exponent + 1);
            }
        }
        let whole = size as u64;
        let mut places = ((size - whole as f64) * 1e6 + 0.5) as u32;
        write!(f, "{}", whole.saturating_add(u64::from(places / 1_000_000)))?;
        places %= 1_000_000;
        if places > 0 {
            f.write_char('.')?;
        }
        while places > 0 {
            f.write_char(char::from(b'0' + (places / 100_000) as u8))?;
            places = places % 100_000 * 10;
        }
        if exponent != 0 { write!(f, "e{exponent}") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::string::ToString;

    #[test]
    fn numbers_read_well() {
        let shown = |value: f64| Decimal(value).to_string();
        assert_eq!([0.0, 1.0, -2.5, 1024.0].map(shown), ["0", "1", "-2.5", "1024"]);
        assert_eq!([0.1f32.into(), 1.05, 0.9999999, 0.0002].map(shown), ["0.1", "1.05", "1", "0.0002"]);
        assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(shown), ["NaN", "inf", "-inf"]);
        assert_eq!([1e18, -3.5e-7, 5e-324].map(shown), ["1e18", "-3.5e-7", "4.940656e-324"]);
        assert_eq!(shown(f64::MAX), "1.797693e308");
        // Both edges of what is written in full, and powers of ten on either side.
        assert_eq!(
            [1e15, 999_999_999_999_999.0, 1e-4, 9.9e-5].map(shown),
            ["1e15", "999999999999999", "0.0001", "9.9e-5"]
        );
        assert_eq!([1e-5, 1e16, 10.0, -0.0].map(shown), ["1e-5", "1e16", "10", "-0"]);
        // Multiplied up, this one is a little less than ten.
        assert_eq!([1e-12, 9.9999994e-6].map(shown), ["1e-12", "9.999999e-6"]);
    }

    /// Wherever the place for a message ends, it ends in an error.
    #[test]
    fn a_message_without_room_fails() {
        struct Room(usize);
        impl Write for Room {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
                Ok(())
            }
        }
        for value in [-1.25, 1.5e-9, f64::NAN, f64::NEG_INFINITY, 3.0] {
            let len = Decimal(value).to_string().len();
            for room in 0..len {
                assert_eq!(write!(Room(room), "{}", Decimal(value)), Err(fmt::Error), "{value} in {room}");
            }
            assert_eq!(write!(Room(len), "{}", Decimal(value)), Ok(()));
        }
    }

    #[test]
    fn nothing_wraps() {
        assert_eq!(Size(u64::MAX).add(Size(1)), Err(Overflow));
        assert_eq!(Size(1 << 32).mul(Size(1 << 32)), Err(Overflow));
        assert_eq!(Size(u64::MAX - 3).round_up(32), Err(Overflow));
        assert_eq!(Size(5).round_up(0), Err(Overflow));
        assert_eq!(Size(33).round_up(32), Ok(Size(64)));
        let edge = Size(u64::MAX);
        assert_eq!([edge.add(Size(0)), Size(7).add(Size(5))], [Ok(edge), Ok(Size(12))]);
        assert_eq!(
            [edge.mul(Size(1)), edge.mul(Size(0)), Size(7).mul(Size(5))],
            [Ok(edge), Ok(Size(0)), Ok(Size(35))]
        );
        assert_eq!(
            [edge.round_up(1), Size(0).round_up(32), Size(32).round_up(32)],
            [Ok(edge), Ok(Size(0)), Ok(Size(32))]
        );
        assert_eq!((Size(7).to_usize(), Size::from(7usize)), (Ok(7), Size(7)));
    }
}
