//! Bytes with an alignment, bytes that may change under us, and (with `alloc`) one owned block.
#![allow(unsafe_code)]

use bytemuck::Pod;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// A value at a multiple of [`crate::mem::ALIGN`]; for static arrays: `static mut MEMORY: Aligned<[u8; N]>`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Aligned<T>(pub T);

/// Bytes that are only ever read as numbers, through a raw pointer: weights.
///
/// A mapped file can be changed by another process at any time. A `&[u8]` to it would promise the compiler the
/// opposite, so weights travel as `RawBytes`: whatever the bytes are at the time of reading, the result is some
/// number, and no index is ever computed from them.
#[derive(Debug, Clone, Copy)]
pub struct RawBytes<'a> {
    start: NonNull<u8>,
    len: usize,
    bytes: PhantomData<&'a [u8]>,
}

// SAFETY: a `RawBytes` only reads, like `&[u8]`.
unsafe impl Send for RawBytes<'_> {}
// SAFETY: as above.
unsafe impl Sync for RawBytes<'_> {}

impl<'a> RawBytes<'a> {
    /// Borrows a slice.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { start: NonNull::from(bytes).cast(), len: bytes.len(), bytes: PhantomData }
    }

    /// # Safety
    /// `len` bytes from `start` on stay readable for `'a`. They may change while they are read.
    pub unsafe fn from_raw(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len, bytes: PhantomData }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// For kernels: the first byte. Valid for reads of [`len`](Self::len) bytes; no alignment is promised.
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// `len` bytes from `offset` on, or `None` when they are not all inside.
    pub fn sub(&self, offset: usize, len: usize) -> Option<RawBytes<'a>> {
        if offset > self.len || len > self.len - offset {
            return None;
        }
        // SAFETY: `offset <= self.len`, so the pointer stays inside or one behind the bytes.
        let start = unsafe { self.start.add(offset) };
        Some(RawBytes { start, len, bytes: PhantomData })
    }

    /// The `index`-th `T` of an array of `T` that begins at the first byte; zero when it is not all inside.
    #[inline(always)]
    pub fn read<T: Pod>(&self, index: usize) -> T {
        let offset = index.wrapping_mul(size_of::<T>());
        if index >= self.len / size_of::<T>() {
            return T::zeroed();
        }
        // SAFETY: `index < len / size`, so all bytes of the element are inside; any bytes are a valid `T: Pod`.
        unsafe { self.start.as_ptr().add(offset).cast::<T>().read_unaligned() }
    }
}

/// An array of objects in a block of memory that is being filled.
#[derive(Debug)]
pub struct Objects<'m, T> {
    place: &'m mut [MaybeUninit<T>],
    len: usize,
}

impl<'m, T> Objects<'m, T> {
    /// The place of `len` objects; `None` for bytes that are too few or not aligned for them.
    pub(super) fn new(bytes: &'m mut [u8], len: usize) -> Option<Self> {
        let needed = len.checked_mul(size_of::<T>())?;
        let start = bytes.as_mut_ptr();
        if bytes.len() < needed || !start.addr().is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: aligned, `len` objects long, borrowed exclusively for 'm; a `MaybeUninit` may hold any bytes. The
        // bytes are never read as bytes again.
        let place = unsafe { core::slice::from_raw_parts_mut(start.cast(), len) };
        Some(Self { place, len: 0 })
    }

    /// Adds an object; one too many is left out.
    pub fn push(&mut self, object: T) {
        if let Some(place) = self.place.get_mut(self.len) {
            place.write(object);
            self.len += 1;
        }
    }

    /// The objects that were added.
    pub fn finish(self) -> &'m mut [T] {
        let len = self.len;
        // SAFETY: the first `len` objects were written; the borrow is handed on.
        unsafe { core::slice::from_raw_parts_mut(self.place.as_mut_ptr().cast(), len) }
    }
}

#[cfg(feature = "alloc")]
pub use owned::Block;

#[cfg(feature = "alloc")]
mod owned {
    use super::super::{ALIGN, MemError};
    use alloc::alloc::{Layout, alloc_zeroed, dealloc};
    use core::ptr::NonNull;

    /// One owned, zeroed block of memory that begins at a multiple of [`ALIGN`].
    ///
    /// With `std` on Linux a block of 4 MiB or more does not come from the allocator but from the system, with
    /// the advice to use huge pages: weights in small ones are read slower, because more time goes into finding pages.
    #[derive(Debug)]
    pub struct Block {
        start: NonNull<u8>,
        len: usize,
        origin: Origin,
    }

    /// Where a block's memory comes from.
    #[derive(Debug)]
    enum Origin {
        /// The allocator, which gave it this many bytes before the start, in this layout.
        Allocator { before: usize, layout: Layout },
        /// The system.
        #[cfg(all(feature = "std", target_os = "linux"))]
        System { _pages: memmap2::MmapMut },
        /// Nowhere: it has no bytes.
        Nowhere,
    }

    /// Two huge pages of most machines.
    #[cfg(all(feature = "std", target_os = "linux"))]
    const LARGE: usize = 4 << 20;

    // SAFETY: a block is plain owned memory.
    unsafe impl Send for Block {}
    // SAFETY: `&Block` gives no access to the bytes but through `bytes`, which only reads.
    unsafe impl Sync for Block {}

    impl Block {
        /// Allocates `len` zero bytes; a failing allocator is an error, not an abort. What is not used of a large block
        /// costs no memory where the system hands out zeroed pages at their first use.
        pub fn zeroed(len: usize) -> Result<Self, MemError> {
            if len == 0 {
                let start = NonNull::<super::Aligned<()>>::dangling().cast();
                return Ok(Self { start, len, origin: Origin::Nowhere });
            }
            #[cfg(all(feature = "std", target_os = "linux"))]
            if len >= LARGE
                && let Ok(mut pages) = memmap2::MmapMut::map_anon(len)
                && let Some(start) = NonNull::new(pages.as_mut_ptr())
            {
                // A system without huge pages refuses, and nothing is lost.
                let _ = pages.advise(memmap2::Advice::HugePage);
                return Ok(Self { start, len, origin: Origin::System { _pages: pages } });
            }
            // Allocators clear by hand what is to be aligned more than usual, so it is aligned here.
            let layout = len.checked_add(ALIGN - 1).and_then(|all| Layout::from_size_align(all, 1).ok());
            let layout = layout.ok_or(MemError::Overflow)?;
            // SAFETY: the layout has a size above zero.
            let memory = NonNull::new(unsafe { alloc_zeroed(layout) });
            let memory = memory.ok_or(MemError::NoMemory { needed: len })?;
            let before = memory.addr().get().wrapping_neg() % ALIGN;
            // SAFETY: less than `ALIGN` bytes further, where `len` bytes are left.
            let start = unsafe { memory.add(before) };
            Ok(Self { start, len, origin: Origin::Allocator { before, layout } })
        }

        /// All bytes.
        pub fn bytes(&self) -> &[u8] {
            // SAFETY: `len` initialised bytes that this block owns.
            unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
        }

        /// All bytes, to be written.
        pub fn bytes_mut(&mut self) -> &mut [u8] {
            // SAFETY: `len` initialised bytes that this block owns, borrowed exclusively.
            unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
        }

        /// All bytes for as long as the caller keeps the block alive: for an object that holds both the block and
        /// the tables carved from it.
        ///
        /// # Safety
        /// The block outlives every use of the result, nothing else touches its bytes, and this is called once.
        pub unsafe fn leak_mut<'a>(&self) -> &'a mut [u8] {
            // SAFETY: the caller promises exclusiveness and lifetime; the memory does not move with the block.
            unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
        }
    }

    impl Drop for Block {
        fn drop(&mut self) {
            if let Origin::Allocator { before, layout } = self.origin {
                // SAFETY: allocated in `zeroed` with this very layout, that many bytes before the start.
                unsafe { dealloc(self.start.as_ptr().sub(before), layout) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stay_inside() {
        let bytes = [1u8, 2, 3, 4, 5];
        let raw = RawBytes::new(&bytes);
        assert_eq!(raw.read::<u16>(1), u16::from_le_bytes([3, 4]).to_le());
        assert_eq!(raw.read::<u16>(2), 0);
        assert_eq!(raw.read::<u8>(usize::MAX), 0);
        assert!(raw.sub(5, 0).is_some_and(|rest| rest.is_empty()));
        assert!(raw.sub(5, 1).is_none() && raw.sub(6, 0).is_none() && raw.sub(1, usize::MAX).is_none());
        assert_eq!(raw.sub(2, 3).unwrap().read::<u8>(2), 5);
    }
}
