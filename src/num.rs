//! Integers that come from a file: every operation is checked, nothing wraps.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_wraps() {
        assert_eq!(Size(u64::MAX).add(Size(1)), Err(Overflow));
        assert_eq!(Size(1 << 32).mul(Size(1 << 32)), Err(Overflow));
        assert_eq!(Size(u64::MAX - 3).round_up(32), Err(Overflow));
        assert_eq!(Size(5).round_up(0), Err(Overflow));
        assert_eq!(Size(33).round_up(32), Ok(Size(64)));
    }
}
