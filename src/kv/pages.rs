//! Pages of 16 positions, counted references, and a table of pages for every sequence.
//!
//! A page holds a block of positions of all layers. Sequences that were forked share pages; a page that is shared is
//! copied before one of them writes to it. Every operation costs at most the pages of a sequence and allocates nothing.

use crate::kernels::KV_BLOCK;
use crate::mem::{Arena, MemError, Plan, Slot};

/// Stands in a table for a block without a page.
pub const MISSING: u32 = u32::MAX;

/// The slots of [`Pages`].
#[derive(Debug, Clone, Copy)]
pub struct PageSlots {
    blocks: usize,
    references: Slot<u32>,
    free: Slot<u32>,
    tables: Slot<u32>,
}

/// The pages of a cache and who holds them.
#[derive(Debug)]
pub struct Pages<'m> {
    /// Sequences that hold each page.
    references: &'m mut [u32],
    /// The first `free_len` are pages that nobody holds.
    free: &'m mut [u32],
    free_len: usize,
    /// `[sequences][blocks]`.
    tables: &'m mut [u32],
    blocks: usize,
}

impl<'m> Pages<'m> {
    /// Plans `pages` pages for `sequences` sequences of at most `blocks` blocks.
    ///
    /// # Errors
    /// [`MemError::Overflow`].
    pub fn plan(
        pages: usize,
        sequences: usize,
        blocks: usize,
        plan: &mut Plan,
    ) -> Result<PageSlots, MemError> {
        if u32::try_from(pages).is_err() {
            return Err(MemError::Overflow);
        }
        let tables = sequences.checked_mul(blocks).ok_or(MemError::Overflow)?;
        let (references, free) = (plan.array(pages)?, plan.array(pages)?);
        Ok(PageSlots { blocks, references, free, tables: plan.array(tables)? })
    }

    /// Carves the tables; all pages are free.
    ///
    /// # Errors
    /// [`MemError`] when the arena is not that of the plan.
    pub fn carve(arena: &mut Arena<'m>, slots: &PageSlots) -> Result<Self, MemError> {
        let references = arena.carve(slots.references)?;
        let free = arena.carve(slots.free)?;
        let tables = arena.carve(slots.tables)?;
        references.fill(0);
        tables.fill(MISSING);
        // The lowest page is taken first.
        let last = free.len();
        for (i, page) in free.iter_mut().enumerate() {
            *page = (last - 1 - i) as u32;
        }
        Ok(Self { references, free_len: free.len(), free, tables, blocks: slots.blocks })
    }

    /// Pages that nobody holds.
    pub fn free(&self) -> usize {
        self.free_len
    }

    /// All pages.
    pub fn len(&self) -> usize {
        self.references.len()
    }

    /// Whether there are none at all.
    pub fn is_empty(&self) -> bool {
        self.references.is_empty()
    }

    /// The page of each block of a sequence; [`MISSING`] for a block without one.
    pub fn table(&self, sequence: usize) -> &[u32] {
        let start = sequence.saturating_mul(self.blocks);
        self.tables.get(start..).and_then(|rest| rest.get(..self.blocks)).unwrap_or_default()
    }

    fn table_mut(&mut self, sequence: usize) -> &mut [u32] {
        let start = sequence.saturating_mul(self.blocks);
        self.tables.get_mut(start..).and_then(|rest| rest.get_mut(..self.blocks)).unwrap_or_default()
    }

    fn references(&self, page: u32) -> u32 {
        self.references.get(page as usize).copied().unwrap_or(0)
    }

    /// Pages that [`Pages::reserve`] would take.
    pub fn needed(&self, sequence: usize, from: usize, to: usize) -> usize {
        let blocks = from / KV_BLOCK..to.div_ceil(KV_BLOCK);
        let pages = self.table(sequence).get(blocks).unwrap_or_default();
        pages.iter().filter(|page| **page == MISSING || self.references(**page) > 1).count()
    }

    /// Gives a sequence pages of its own for the positions `from..to`. `copy(a, b)` copies page `a`, which was shared, to
    /// page `b`. False, with nothing changed, when there are not enough free pages.
    pub fn reserve(
        &mut self,
        sequence: usize,
        from: usize,
        to: usize,
        mut copy: impl FnMut(u32, u32),
    ) -> bool {
        if self.needed(sequence, from, to) > self.free_len || to > self.blocks * KV_BLOCK {
            return false;
        }
        for block in from / KV_BLOCK..to.div_ceil(KV_BLOCK) {
            let old = self.table(sequence).get(block).copied().unwrap_or(MISSING);
            if old != MISSING && self.references(old) <= 1 {
                continue;
            }
            let Some(page) = self.take() else { return false };
            if old != MISSING {
                copy(old, page);
                self.let_go(old);
            }
            if let Some(place) = self.table_mut(sequence).get_mut(block) {
                *place = page;
            }
        }
        true
    }

    /// Lets go of the pages of all blocks from position `from` on, rounded up to a whole block.
    pub fn release_from(&mut self, sequence: usize, from: usize) {
        for block in from.div_ceil(KV_BLOCK)..self.blocks {
            let Some(place) = self.table_mut(sequence).get_mut(block) else { return };
            let page = core::mem::replace(place, MISSING);
            if page == MISSING {
                return;
            }
            self.let_go(page);
        }
    }

    /// Lets sequence `to`, which holds nothing, share the pages of `from` up to position `len`.
    pub fn share(&mut self, from: usize, to: usize, len: usize) {
        for block in 0..len.div_ceil(KV_BLOCK) {
            let page = self.table(from).get(block).copied().unwrap_or(MISSING);
            if let Some(count) = self.references.get_mut(page as usize) {
                *count += 1;
            }
            if let Some(place) = self.table_mut(to).get_mut(block) {
                *place = page;
            }
        }
    }

    fn take(&mut self) -> Option<u32> {
        self.free_len = self.free_len.checked_sub(1)?;
        let page = self.free.get(self.free_len).copied()?;
        *self.references.get_mut(page as usize)? = 1;
        Some(page)
    }

    fn let_go(&mut self, page: u32) {
        let Some(count) = self.references.get_mut(page as usize) else { return };
        *count = count.saturating_sub(1);
        if let (0, Some(place)) = (*count, self.free.get_mut(self.free_len)) {
            *place = page;
            self.free_len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::aligned::Aligned;
    use std::vec::Vec;
    extern crate std;

    fn with(pages: usize, sequences: usize, blocks: usize, work: impl FnOnce(&mut Pages<'_>)) {
        let mut plan = Plan::new();
        let slots = Pages::plan(pages, sequences, blocks, &mut plan).unwrap();
        let mut memory = Aligned([0xaau8; 4096]);
        let mut arena = Arena::new(&mut memory.0, &plan).unwrap();
        work(&mut Pages::carve(&mut arena, &slots).unwrap());
    }

    #[test]
    fn pages_are_taken_shared_copied_and_given_back() {
        with(5, 3, 4, |pages| {
            assert!(pages.reserve(0, 0, 40, |_, _| unreachable!()));
            assert_eq!((pages.table(0), pages.free()), (&[0, 1, 2, MISSING][..], 2));
            pages.share(0, 1, 40);
            assert_eq!((pages.table(1), pages.free()), (&[0, 1, 2, MISSING][..], 2));
            // Positions 40 on stand in a shared page: the writer gets a copy.
            let mut copies = Vec::new();
            assert_eq!(pages.needed(1, 40, 42), 1);
            assert!(pages.reserve(1, 40, 42, |from, to| copies.push((from, to))));
            assert_eq!((pages.table(1), copies), (&[0, 1, 3, MISSING][..], std::vec![(2, 3)]));
            // The other one has its page alone again.
            assert!(pages.reserve(0, 40, 48, |_, _| unreachable!()));
            assert!(!pages.reserve(0, 48, 70, |_, _| unreachable!()), "beyond the table");
            assert!(pages.reserve(0, 48, 64, |_, _| unreachable!()));
            assert_eq!(pages.free(), 0);
            let before: Vec<u32> = pages.table(1).to_vec();
            assert!(!pages.reserve(1, 42, 60, |_, _| unreachable!()));
            assert_eq!(pages.table(1), before);
            pages.release_from(0, 33);
            assert_eq!((pages.table(0), pages.free()), (&[0, 1, 2, MISSING][..], 1));
            pages.release_from(0, 0);
            assert_eq!(pages.free(), 2, "pages 0 and 1 are still shared");
            pages.release_from(1, 0);
            assert_eq!(pages.free(), 5);
        });
    }
}
