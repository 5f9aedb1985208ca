//! Plan, then carve.
//!
//! A [`Plan`] adds up arrays and gives each a [`Slot`]; an [`Arena`] over the caller's memory then hands out exactly
//! these slots. The same slots serve the size query and the construction, so the two cannot disagree by a byte.

use super::ALIGN;
use super::aligned::Objects;
use crate::steps;
use bytemuck::Pod;
use core::marker::PhantomData;
use thiserror::Error;

/// Why memory could not be planned or carved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MemError {
    /// The sum of all arrays does not fit the address space.
    #[error("the planned size exceeds the address space")]
    Overflow,
    /// The block is smaller than planned.
    #[error("the memory block has {got} bytes, {needed} are needed")]
    TooSmall {
        /// Bytes that the plan asks for.
        needed: usize,
        /// Bytes of the block.
        got: usize,
    },
    /// The block does not begin at a multiple of [`ALIGN`].
    #[error("the memory block is not aligned to {ALIGN} bytes")]
    Misaligned,
    /// The allocator has no block of that size.
    #[error("no block of {needed} bytes could be allocated")]
    NoMemory {
        /// Bytes that were asked for.
        needed: usize,
    },
}

/// The place of an array of `T` in a planned block.
#[derive(Debug)]
pub struct Slot<T> {
    offset: usize,
    len: usize,
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Slot<T> {}

impl<T> Slot<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the array has no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Size in bytes, without the padding behind it.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

/// The place of an array of objects in a planned block.
#[derive(Debug, Clone, Copy)]
pub struct ObjectSlot {
    bytes: Slot<u8>,
    len: usize,
}

/// Adds up the arrays of a block. Every array begins at a multiple of [`ALIGN`], and so does the end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    bytes: usize,
}

impl Plan {
    /// An empty plan.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an array of `len` elements.
    pub fn array<T: Pod>(&mut self, len: usize) -> Result<Slot<T>, MemError> {
        const { assert!(align_of::<T>() <= ALIGN) };
        steps::count(1);
        let offset = self.bytes;
        let end = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        let padded = end.and_then(|end| end.checked_next_multiple_of(ALIGN)).ok_or(MemError::Overflow)?;
        if padded > isize::MAX as usize {
            return Err(MemError::Overflow);
        }
        self.bytes = padded;
        Ok(Slot { offset, len, element: PhantomData })
    }

    /// Adds an array of `len` objects that are not plain numbers; see [`Arena::objects`].
    pub fn objects<T>(&mut self, len: usize) -> Result<ObjectSlot, MemError> {
        const { assert!(align_of::<T>() <= ALIGN && !core::mem::needs_drop::<T>()) };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(MemError::Overflow)?;
        Ok(ObjectSlot { bytes: self.array(bytes)?, len })
    }

    /// Bytes of the whole block so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Hands out the slots of a [`Plan`] from a block of memory, in the order in which they were planned.
#[derive(Debug)]
pub struct Arena<'m> {
    rest: &'m mut [u8],
    used: usize,
}

impl<'m> Arena<'m> {
    /// Takes over `memory`, which must begin at a multiple of [`ALIGN`] and hold `plan.bytes()`.
    pub fn new(memory: &'m mut [u8], plan: &Plan) -> Result<Self, MemError> {
        if !memory.as_ptr().addr().is_multiple_of(ALIGN) {
            return Err(MemError::Misaligned);
        }
        let got = memory.len();
        let rest = memory.get_mut(..plan.bytes).ok_or(MemError::TooSmall { needed: plan.bytes, got })?;
        Ok(Self { rest, used: 0 })
    }

    /// The array of `slot`, with whatever bytes the memory holds. Slots come in the order of their planning; any other order is
    /// answered with [`MemError::Overflow`].
    pub fn carve<T: Pod>(&mut self, slot: Slot<T>) -> Result<&'m mut [T], MemError> {
        let skip = slot.offset.checked_sub(self.used).ok_or(MemError::Overflow)?;
        let end = skip.checked_add(slot.bytes()).ok_or(MemError::Overflow)?;
        let rest = core::mem::take(&mut self.rest);
        let (taken, rest) = rest.split_at_mut_checked(end).ok_or(MemError::Overflow)?;
        self.rest = rest;
        self.used = slot.offset + slot.bytes();
        let array = taken.get_mut(skip..).ok_or(MemError::Overflow)?;
        bytemuck::try_cast_slice_mut(array).map_err(|_| MemError::Misaligned)
    }

    /// The place of an array of objects, to be filled one after the other.
    pub fn objects<T>(&mut self, slot: ObjectSlot) -> Result<Objects<'m, T>, MemError> {
        let bytes = self.carve(slot.bytes)?;
        Objects::new(bytes, slot.len).ok_or(MemError::Misaligned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::aligned::Aligned;

    #[test]
    fn carving_uses_exactly_what_was_planned() {
        let mut plan = Plan::new();
        let a = plan.array::<u8>(3).unwrap();
        let b = plan.array::<f32>(17).unwrap();
        let c = plan.array::<u64>(1).unwrap();
        assert_eq!(plan.bytes(), 64 + 128 + 64);
        let mut memory = Aligned([0u8; 256]);
        let mut arena = Arena::new(&mut memory.0, &plan).unwrap();
        assert_eq!(arena.carve(a).unwrap().len(), 3);
        assert_eq!(arena.carve(b).unwrap().len(), 17);
        assert_eq!(arena.carve(c).unwrap().len(), 1);
    }

    #[test]
    fn one_byte_short_and_misaligned_are_errors() {
        let mut plan = Plan::new();
        plan.array::<u8>(100).unwrap();
        let mut memory = Aligned([0u8; 256]);
        let short = Arena::new(&mut memory.0[..127], &plan).unwrap_err();
        assert_eq!(short, MemError::TooSmall { needed: 128, got: 127 });
        assert_eq!(Arena::new(&mut memory.0[1..], &plan).unwrap_err(), MemError::Misaligned);
        assert_eq!(Plan::new().array::<u64>(usize::MAX / 4).unwrap_err(), MemError::Overflow);
    }
}
