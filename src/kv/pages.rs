//! Pages of 16 positions, counted references, and a table of pages for every sequence.
//!
//! A page holds a block of positions of all layers of a class. Sequences that were forked share pages; a page that is
//! shared is copied before one of them writes to it. A sequence that forgets lets go of the pages behind the first few,
//! which it keeps; its table stays dense, and its *base* counts the blocks that are gone. Every operation costs at most
//! the pages of a sequence and allocates nothing.

use crate::kernels::KV_BLOCK;
use crate::mem::{Arena, MemError, Plan, Slot, shift_left};

/// Stands in a table for a block without a page.
pub const MISSING: u32 = u32::MAX;

/// A mark is the number of a page times this, and how many of its positions hold something.
const MARK: u32 = 32;

/// Sizes of [`Pages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// Pages.
    pub pages: usize,
    /// Sequences.
    pub sequences: usize,
    /// Blocks that a sequence holds at the same time.
    pub blocks: usize,
    /// Blocks at the beginning of a sequence that are never let go.
    pub keep: usize,
}

/// The slots of [`Pages`].
#[derive(Debug, Clone, Copy)]
pub struct PageSlots {
    limits: PageLimits,
    references: Slot<u32>,
    free: Slot<u32>,
    tables: Slot<u32>,
    bases: Slot<u32>,
    marks: Slot<u32>,
}

/// The pages of a cache and who holds them.
#[derive(Debug)]
pub struct Pages<'m> {
    limits: PageLimits,
    /// Sequences that hold each page.
    references: &'m mut [u32],
    /// The first `free_len` are pages that nobody holds.
    free: &'m mut [u32],
    free_len: usize,
    /// `[sequences][blocks]`.
    tables: &'m mut [u32],
    /// Blocks of each sequence that are gone.
    bases: &'m mut [u32],
    /// A number for every page, for whoever walks over all tables; see [`Pages::number`] and [`Pages::set_numbered`].
    marks: &'m mut [u32],
}

/// The pages of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Table<'t> {
    /// The page of each block that is not gone; [`MISSING`] for none.
    pub pages: &'t [u32],
    /// Blocks at the beginning that are never let go.
    pub keep: usize,
    /// Blocks behind them that are gone.
    pub base: usize,
}

impl<'t> Table<'t> {
    /// Where in `pages` a block stands; beyond the end for one that is gone.
    fn index(&self, block: usize) -> usize {
        match block {
            _ if self.base == 0 || block < self.keep => block,
            _ => block.checked_sub(self.base).filter(|index| *index >= self.keep).unwrap_or(usize::MAX),
        }
    }

    /// The page of a block; [`MISSING`] for none.
    pub fn page(&self, block: usize) -> u32 {
        self.pages.get(self.index(block)).copied().unwrap_or(MISSING)
    }

    /// The pages from some block on, and the number of that block: as far back as they are without a gap.
    pub fn recent(&self) -> (&'t [u32], usize) {
        match self.base {
            0 => (self.pages, 0),
            base => (self.pages.get(self.keep..).unwrap_or_default(), self.keep + base),
        }
    }

    /// The pages that are never let go.
    pub fn kept(&self) -> &'t [u32] {
        self.pages.get(..self.keep).unwrap_or(self.pages)
    }
}

impl<'m> Pages<'m> {
    /// Plans pages.
    ///
    /// # Errors
    /// [`MemError::Overflow`].
    pub fn plan(limits: PageLimits, plan: &mut Plan) -> Result<PageSlots, MemError> {
        let PageLimits { pages, sequences, blocks, .. } = limits;
        // Marks hold the number of a page and one more small number.
        if u32::try_from(pages).map_or(true, |pages| pages >= MISSING / MARK) {
            return Err(MemError::Overflow);
        }
        let tables = sequences.checked_mul(blocks).ok_or(MemError::Overflow)?;
        Ok(PageSlots {
            limits,
            references: plan.array(pages)?,
            free: plan.array(pages)?,
            tables: plan.array(tables)?,
            bases: plan.array(sequences)?,
            marks: plan.array(pages)?,
        })
    }

    /// Carves the tables; all pages are free.
    ///
    /// # Errors
    /// [`MemError`] when the arena is not that of the plan.
    pub fn carve(arena: &mut Arena<'m>, slots: &PageSlots) -> Result<Self, MemError> {
        let references = arena.carve(slots.references)?;
        let free = arena.carve(slots.free)?;
        let tables = arena.carve(slots.tables)?;
        let bases = arena.carve(slots.bases)?;
        let marks = arena.carve(slots.marks)?;
        references.fill(0);
        tables.fill(MISSING);
        bases.fill(0);
        marks.fill(MISSING);
        // The lowest page is taken first.
        for (place, page) in free.iter_mut().rev().zip(0..) {
            *place = page;
        }
        Ok(Self { limits: slots.limits, references, free_len: free.len(), free, tables, bases, marks })
    }

    /// Their sizes.
    pub fn limits(&self) -> PageLimits {
        self.limits
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

    /// The pages of a sequence.
    pub fn table(&self, sequence: usize) -> Table<'_> {
        let start = sequence.saturating_mul(self.limits.blocks);
        let pages = self.tables.get(start..).and_then(|rest| rest.get(..self.limits.blocks));
        let base = self.bases.get(sequence).map_or(0, |base| *base as usize);
        Table { pages: pages.unwrap_or_default(), keep: self.limits.keep.min(self.limits.blocks), base }
    }

    fn table_mut(&mut self, sequence: usize) -> &mut [u32] {
        let start = sequence.saturating_mul(self.limits.blocks);
        self.tables.get_mut(start..).and_then(|rest| rest.get_mut(..self.limits.blocks)).unwrap_or_default()
    }

    fn references(&self, page: u32) -> u32 {
        self.references.get(page as usize).copied().unwrap_or(0)
    }

    /// One behind the last position that a sequence's table has room for.
    pub fn end(&self, sequence: usize) -> usize {
        let table = self.table(sequence);
        (table.pages.len() + table.base) * KV_BLOCK
    }

    /// Pages that [`Pages::reserve`] would take.
    pub fn needed(&self, sequence: usize, from: usize, to: usize) -> usize {
        let table = self.table(sequence);
        let blocks = from / KV_BLOCK..to.div_ceil(KV_BLOCK);
        let pages = blocks.map(|block| table.page(block));
        pages.filter(|page| *page == MISSING || self.references(*page) > 1).count()
    }

    /// Gives a sequence pages of its own for the positions `from..to`. `copy(a, b)` copies page `a`, which was shared, to
    /// page `b`. False, with nothing changed, when there are not enough free pages or the table ends before `to`.
    pub fn reserve(
        &mut self,
        sequence: usize,
        from: usize,
        to: usize,
        mut copy: impl FnMut(u32, u32),
    ) -> bool {
        if self.needed(sequence, from, to) > self.free_len || to > self.end(sequence) {
            return false;
        }
        for block in from / KV_BLOCK..to.div_ceil(KV_BLOCK) {
            let table = self.table(sequence);
            let (index, old) = (table.index(block), table.page(block));
            if old != MISSING && self.references(old) <= 1 {
                continue;
            }
            let Some(page) = self.take() else { return false };
            if old != MISSING {
                copy(old, page);
                self.let_go(old);
            }
            if let Some(place) = self.table_mut(sequence).get_mut(index) {
                *place = page;
            }
        }
        true
    }

    /// Lets go of the pages of all blocks from position `from` on, rounded up to a whole block.
    pub fn release_from(&mut self, sequence: usize, from: usize) {
        let table = self.table(sequence);
        let (block, keep) = (from.div_ceil(KV_BLOCK), table.keep);
        // What is gone stands between the blocks that are kept and the rest.
        let first = if block <= keep { block } else { table.index(block.max(keep + table.base)) };
        for index in first..self.limits.blocks {
            let Some(place) = self.table_mut(sequence).get_mut(index) else { break };
            let page = core::mem::replace(place, MISSING);
            self.let_go(page);
        }
        if let (true, Some(base)) = (block <= keep, self.bases.get_mut(sequence)) {
            *base = 0;
        }
    }

    /// Lets go of the whole blocks before position `before`, but for those that are kept. Returns their number.
    pub fn forget_before(&mut self, sequence: usize, before: usize) -> usize {
        let Table { pages, keep, base } = self.table(sequence);
        let held = pages.len().saturating_sub(keep);
        let gone = (before / KV_BLOCK).saturating_sub(keep + base).min(held);
        for index in keep..keep + gone {
            let Some(page) = self.table_mut(sequence).get(index).copied() else { break };
            self.let_go(page);
        }
        if let Some(rest) = self.table_mut(sequence).get_mut(keep..) {
            shift_left(rest, gone);
            rest.iter_mut().rev().take(gone).for_each(|page| *page = MISSING);
        }
        if let Some(base) = self.bases.get_mut(sequence) {
            *base += gone as u32;
        }
        gone
    }

    /// Lets sequence `to`, which holds nothing, share the pages of `from`.
    pub fn share(&mut self, from: usize, to: usize) {
        for index in 0..self.limits.blocks {
            let page = self.table(from).pages.get(index).copied().unwrap_or(MISSING);
            if let Some(count) = self.references.get_mut(page as usize) {
                *count += 1;
            }
            if let Some(place) = self.table_mut(to).get_mut(index) {
                *place = page;
            }
        }
        let base = self.bases.get(from).copied().unwrap_or(0);
        if let Some(place) = self.bases.get_mut(to) {
            *place = base;
        }
    }

    /// Numbers pages in the order in which they are asked for, from `*next` on, and remembers the most positions that
    /// anybody says hold something; begins with [`Pages::clear_numbers`].
    pub fn number(&mut self, page: u32, valid: usize, next: &mut u32) {
        let Some(mark) = self.marks.get_mut(page as usize) else { return };
        let (number, most) = match *mark {
            MISSING => (*next, 0),
            mark => (mark / MARK, mark % MARK),
        };
        *next += u32::from(*mark == MISSING);
        *mark = number * MARK + most.max(valid.min(KV_BLOCK) as u32);
    }

    /// The number of a page, and how many of its positions hold something.
    pub fn numbered(&self, page: u32) -> Option<(u32, usize)> {
        let mark = self.marks.get(page as usize).copied().filter(|mark| *mark != MISSING)?;
        Some((mark / MARK, (mark % MARK) as usize))
    }

    /// Remembers `page` as the page with a number, until the pages are numbered anew.
    pub fn set_numbered(&mut self, number: u32, page: u32) {
        if let Some(mark) = self.marks.get_mut(number as usize) {
            *mark = page;
        }
    }

    /// The page of [`Pages::set_numbered`]; [`MISSING`] for none.
    pub fn page_numbered(&self, number: u32) -> u32 {
        self.marks.get(number as usize).copied().unwrap_or(MISSING)
    }

    /// Pages that a sequence alone holds.
    pub fn held_alone(&self, sequence: usize) -> usize {
        self.table(sequence).pages.iter().filter(|page| self.references(**page) == 1).count()
    }

    /// Forgets the numbers of all pages.
    pub fn clear_numbers(&mut self) {
        self.marks.fill(MISSING);
    }

    /// Gives a sequence, which holds nothing, a table as it was saved: the pages with these numbers, behind `base` blocks
    /// that are gone. A number that comes again is a page that is shared.
    pub fn restore(&mut self, sequence: usize, base: usize, numbers: impl Iterator<Item = u32>) {
        for (index, number) in numbers.enumerate().take(self.limits.blocks) {
            let page = self.page_numbered(number);
            if let Some(count) = self.references.get_mut(page as usize) {
                *count += 1;
            }
            if let Some(place) = self.table_mut(sequence).get_mut(index) {
                *place = page;
            }
        }
        if let Some(place) = self.bases.get_mut(sequence) {
            *place = base as u32;
        }
    }

    /// Takes a free page that no table holds yet; [`Pages::restore`] gives it its holders.
    pub fn take_unheld(&mut self) -> Option<u32> {
        let page = self.take()?;
        *self.references.get_mut(page as usize)? = 0;
        Some(page)
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

    fn with(limits: [usize; 4], work: impl FnOnce(&mut Pages<'_>)) {
        let [pages, sequences, blocks, keep] = limits;
        let mut plan = Plan::new();
        let slots = Pages::plan(PageLimits { pages, sequences, blocks, keep }, &mut plan).unwrap();
        let mut memory = Aligned([0xaau8; 4096]);
        let mut arena = Arena::new(&mut memory.0, &plan).unwrap();
        work(&mut Pages::carve(&mut arena, &slots).unwrap());
    }

    #[test]
    fn pages_are_taken_shared_copied_and_given_back() {
        with([5, 3, 4, 0], |pages| {
            assert!(pages.reserve(0, 0, 40, |_, _| unreachable!()));
            assert_eq!((pages.table(0).pages, pages.free()), (&[0, 1, 2, MISSING][..], 2));
            pages.share(0, 1);
            assert_eq!((pages.table(1).pages, pages.free()), (&[0, 1, 2, MISSING][..], 2));
            // Positions 40 on stand in a shared page: the writer gets a copy.
            let mut copies = Vec::new();
            assert_eq!(pages.needed(1, 40, 42), 1);
            assert!(pages.reserve(1, 40, 42, |from, to| copies.push((from, to))));
            assert_eq!((pages.table(1).pages, copies), (&[0, 1, 3, MISSING][..], std::vec![(2, 3)]));
            // The other one has its page alone again.
            assert!(pages.reserve(0, 40, 48, |_, _| unreachable!()));
            assert!(!pages.reserve(0, 48, 70, |_, _| unreachable!()), "beyond the table");
            assert!(pages.reserve(0, 48, 64, |_, _| unreachable!()));
            assert_eq!(pages.free(), 0);
            let before: Vec<u32> = pages.table(1).pages.to_vec();
            assert!(!pages.reserve(1, 42, 60, |_, _| unreachable!()));
            assert_eq!(pages.table(1).pages, before);
            pages.release_from(0, 33);
            assert_eq!((pages.table(0).pages, pages.free()), (&[0, 1, 2, MISSING][..], 1));
            pages.release_from(0, 0);
            assert_eq!(pages.free(), 2, "pages 0 and 1 are still shared");
            pages.release_from(1, 0);
            assert_eq!(pages.free(), 5);
        });
    }

    #[test]
    fn a_sequence_forgets_behind_what_it_keeps() {
        with([6, 2, 4, 1], |pages| {
            assert!(pages.reserve(0, 0, 64, |_, _| unreachable!()));
            assert_eq!((pages.end(0), pages.reserve(0, 64, 65, |_, _| unreachable!())), (64, false));
            // Blocks 1 and 2 go; block 0 is kept, block 3 moves up.
            assert_eq!(pages.forget_before(0, 50), 2);
            assert_eq!((pages.table(0).pages, pages.free()), (&[0, 3, MISSING, MISSING][..], 4));
            assert_eq!((pages.end(0), pages.forget_before(0, 50)), (96, 0));
            let table = pages.table(0);
            let by_block: Vec<u32> = (0..6).map(|block| table.page(block)).collect();
            assert_eq!(by_block, [0, MISSING, MISSING, 3, MISSING, MISSING]);
            assert_eq!((table.recent(), table.kept()), ((&[3, MISSING, MISSING][..], 3), &[0][..]));
            assert!(pages.reserve(0, 64, 96, |_, _| unreachable!()));
            pages.share(0, 1);
            assert_eq!((pages.table(1).base, pages.table(1).pages), (2, pages.table(0).pages));
            // Back to position 70: block 4 stays, block 5 goes from the one table alone.
            pages.release_from(1, 70);
            assert_eq!((pages.table(1).page(4), pages.table(1).page(5)), (pages.table(0).page(4), MISSING));
            // Back to what is kept: as if nothing had been forgotten.
            pages.release_from(1, 10);
            assert_eq!((pages.table(1).base, pages.table(1).pages), (0, &[0, MISSING, MISSING, MISSING][..]));
            pages.release_from(0, 0);
            pages.release_from(1, 0);
            assert_eq!(pages.free(), 6);
        });
    }

    #[test]
    fn tables_are_saved_by_number_and_come_back() {
        with([4, 2, 3, 0], |pages| {
            assert!(pages.reserve(0, 0, 48, |_, _| unreachable!()));
            pages.share(0, 1);
            pages.release_from(1, 32);
            pages.clear_numbers();
            let mut next = 0;
            let all: Vec<u32> = [pages.table(1).pages, pages.table(0).pages].concat();
            all.iter()
                .zip([16, 3, 16, 16, 5, 2])
                .for_each(|(page, valid)| pages.number(*page, valid, &mut next));
            let numbers: Vec<_> = all.iter().filter_map(|page| pages.numbered(*page)).collect();
            assert_eq!(numbers, [(0, 16), (1, 5), (0, 16), (1, 5), (2, 2)]);
            assert_eq!((next, pages.held_alone(0), pages.held_alone(1)), (3, 1, 0));
            pages.release_from(0, 0);
            pages.release_from(1, 0);
            for number in 0..3 {
                let page = pages.take_unheld().unwrap();
                pages.set_numbered(number, page);
            }
            pages.restore(1, 0, [0, 1].into_iter());
            pages.restore(0, 0, [0, 1, 2].into_iter());
            assert_eq!((pages.free(), pages.needed(0, 0, 48)), (1, 2));
        });
    }
}
