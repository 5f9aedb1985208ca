//! One array, many writers: parts of a mutable array that jobs may write at the same time.
//!
//! A phase of a step is a number of jobs, and each job writes its own part of one or more arrays. [`for_each_job`] is
//! the only way to run them: it owns the arrays' exclusive borrow, takes every job index from a counter exactly once,
//! and hands each job the parts of that index. Which thread runs which job is up to an [`Exec`](crate::exec::Exec); two
//! jobs never share a part, whatever an `Exec` does, so no caller needs `unsafe`.
#![allow(unsafe_code)]

use crate::exec::Crew;
use core::marker::PhantomData;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Arrays that are cut into one disjoint part a job. Implemented here only; see [`Chunks`], [`Tiles`] and tuples.
pub trait Parts: Sync + sealed::Sealed {
    /// What one job may write; it borrows the array itself, so it may outlive the run, but never a second part of
    /// the same elements.
    type Part;

    /// The part of `job`; empty for a job beyond the array.
    ///
    /// # Safety
    /// Parts of one index are not alive twice at the same time.
    unsafe fn part(&self, job: usize) -> Self::Part;
}

mod sealed {
    pub trait Sealed {}
}

/// Consecutive pieces of an array: job `j` owns the elements from `j * len` on, the last piece may be shorter.
#[derive(Debug)]
pub struct Chunks<'a, T> {
    data: *mut T,
    total: usize,
    len: usize,
    array: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Chunks` is an exclusive borrow of a slice, whose parts go to different threads.
unsafe impl<T: Send> Send for Chunks<'_, T> {}
// SAFETY: `part` is the only access, and its contract forbids overlapping parts.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    /// Cuts `array` into pieces of `len` elements.
    pub fn new(array: &'a mut [T], len: usize) -> Self {
        Self { data: array.as_mut_ptr(), total: array.len(), len, array: PhantomData }
    }
}

impl<T> sealed::Sealed for Chunks<'_, T> {}
impl<'a, T: Send> Parts for Chunks<'a, T> {
    type Part = &'a mut [T];

    unsafe fn part(&self, job: usize) -> &'a mut [T] {
        let start = job.saturating_mul(self.len).min(self.total);
        let len = self.len.min(self.total - start);
        // SAFETY: `start + len <= total`; pieces of different jobs do not overlap, and the caller has this one alone.
        unsafe { core::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}

/// Rectangles of a row-major matrix `[lines][stride]`. Job `j` owns the tile in tile column `j % tiles_wide` and tile
/// row `j / tiles_wide`: `tile_width` elements of each of `tile_lines` lines, less at the borders.
#[derive(Debug)]
pub struct Tiles<'a, T> {
    data: *mut T,
    lines: usize,
    width: usize,
    /// Where the part that is cut begins: its first element of a line, and its first line.
    from: (usize, usize),
    stride: usize,
    tile_width: usize,
    tile_lines: usize,
    array: PhantomData<&'a mut [T]>,
}

// SAFETY: as for `Chunks`.
unsafe impl<T: Send> Send for Tiles<'_, T> {}
// SAFETY: as for `Chunks`.
unsafe impl<T: Send> Sync for Tiles<'_, T> {}

impl<'a, T> Tiles<'a, T> {
    /// Cuts the first `width` elements of each whole line of `stride` elements of `array` into tiles.
    pub fn new(
        array: &'a mut [T],
        stride: usize,
        width: usize,
        tile_width: usize,
        tile_lines: usize,
    ) -> Self {
        let stride = stride.max(1);
        let (lines, width) = (array.len() / stride, width.min(stride));
        let (tile_width, tile_lines) = (tile_width.max(1), tile_lines.max(1));
        let data = array.as_mut_ptr();
        Self { data, lines, width, from: (0, 0), stride, tile_width, tile_lines, array: PhantomData }
    }

    /// Cuts only the given elements of the given lines, as far as they are inside.
    pub fn within(self, elements: Range<usize>, lines: Range<usize>) -> Self {
        let from = (elements.start.min(self.width), lines.start.min(self.lines));
        let (width, lines) = (elements.end.clamp(from.0, self.width), lines.end.clamp(from.1, self.lines));
        Self { from, width, lines, ..self }
    }

    /// Number of jobs that cover the matrix.
    pub fn jobs(&self) -> usize {
        (self.width - self.from.0).div_ceil(self.tile_width.max(1))
            * (self.lines - self.from.1).div_ceil(self.tile_lines.max(1))
    }
}

impl<T> sealed::Sealed for Tiles<'_, T> {}
impl<'a, T: Send> Parts for Tiles<'a, T> {
    type Part = TileMut<'a, T>;

    unsafe fn part(&self, job: usize) -> TileMut<'a, T> {
        let (left, top) = self.from;
        let tiles_wide = (self.width - left).div_ceil(self.tile_width.max(1)).max(1);
        let at = |from: usize, index: usize, len: usize| from.saturating_add(index.saturating_mul(len));
        let first = at(left, job % tiles_wide, self.tile_width).min(self.width);
        let first_line = at(top, job / tiles_wide, self.tile_lines).min(self.lines);
        let width = self.tile_width.min(self.width - first);
        let lines = self.tile_lines.min(self.lines - first_line);
        // SAFETY: the offset is that of an element inside, or, for an empty tile, at most one behind the array.
        let data = unsafe { self.data.add((first_line * self.stride + first).min(self.lines * self.stride)) };
        TileMut { data, stride: self.stride, width, lines, first, first_line, array: PhantomData }
    }
}

/// A rectangle of a larger matrix, written by one job.
#[derive(Debug)]
pub struct TileMut<'p, T> {
    data: *mut T,
    stride: usize,
    width: usize,
    lines: usize,
    first: usize,
    first_line: usize,
    array: PhantomData<&'p mut [T]>,
}

// SAFETY: a tile is an exclusive borrow of its elements.
unsafe impl<T: Send> Send for TileMut<'_, T> {}

impl<'p, T> TileMut<'p, T> {
    /// A tile that is the whole of `array`, lines of `stride` elements of which the first `width` belong to it.
    pub fn whole(array: &'p mut [T], stride: usize, width: usize) -> Self {
        Self::at(array, stride, width, 0, 0)
    }

    /// As [`whole`](Self::whole), for an array that stands in for the tile of a matrix that begins at element `first`
    /// of line `first_line`.
    pub fn at(array: &'p mut [T], stride: usize, width: usize, first: usize, first_line: usize) -> Self {
        let stride = stride.max(1);
        let (lines, width) = (array.len() / stride, width.min(stride));
        Self { data: array.as_mut_ptr(), stride, width, lines, first, first_line, array: PhantomData }
    }

    /// The elements `from..to` of the matrix's lines, as far as they are in this tile, counted from `origin` on.
    pub fn part(&mut self, from: usize, to: usize, origin: usize) -> TileMut<'_, T> {
        let end = self.first + self.width;
        let (from, to) = (from.clamp(self.first, end), to.clamp(self.first, end));
        // SAFETY: `from` is an element of the tile's first line or one behind it.
        let data = unsafe { self.data.add(from - self.first) };
        let (width, first) = (to.saturating_sub(from), from.saturating_sub(origin));
        TileMut {
            data,
            width,
            first,
            stride: self.stride,
            lines: self.lines,
            first_line: self.first_line,
            array: PhantomData,
        }
    }

    /// Elements of a line.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of lines.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// Index of the tile's first element within a line of the matrix.
    pub fn first(&self) -> usize {
        self.first
    }

    /// Index of the tile's first line within the matrix.
    pub fn first_line(&self) -> usize {
        self.first_line
    }

    /// The elements of line `line` of the tile; empty beyond the last.
    #[inline(always)]
    pub fn line(&mut self, line: usize) -> &mut [T] {
        if line >= self.lines {
            return &mut [];
        }
        // SAFETY: the line is inside, and `&mut self` makes this the only borrow of the tile's elements.
        unsafe { core::slice::from_raw_parts_mut(self.data.add(line * self.stride), self.width) }
    }
}

macro_rules! parts_of_tuple {
    ($($part:ident),*) => {
        impl<$($part: Parts),*> sealed::Sealed for ($($part,)*) {}
        impl<$($part: Parts),*> Parts for ($($part,)*) {
            type Part = ($($part::Part,)*);

            #[allow(non_snake_case, clippy::unused_unit, unused_unsafe)]
            unsafe fn part(&self, _job: usize) -> Self::Part {
                let ($($part,)*) = self;
                // SAFETY: the caller's promise holds for each array of the tuple.
                unsafe { ($($part.part(_job),)*) }
            }
        }
    };
}
parts_of_tuple!();
parts_of_tuple!(A);
parts_of_tuple!(A, B);
parts_of_tuple!(A, B, C);
parts_of_tuple!(A, B, C, D);

/// Most threads of a run.
pub const MAX_WORKERS: usize = 1024;

/// Pieces of work that each thread of a run may expect to take: enough that a slow thread holds nobody up for long, few
/// enough that taking them costs nothing.
const SHARES: usize = 8;

/// Which workers are in a call right now.
struct Taken([AtomicUsize; MAX_WORKERS.div_ceil(usize::BITS as usize)]);

impl Taken {
    fn new() -> Self {
        Self([const { AtomicUsize::new(0) }; MAX_WORKERS.div_ceil(usize::BITS as usize)])
    }

    fn word(&self, worker: usize) -> Option<(&AtomicUsize, usize)> {
        let bit = 1 << (worker % usize::BITS as usize);
        self.0.get(worker / usize::BITS as usize).map(|word| (word, bit))
    }

    /// Whether the worker was free; it is then taken. Acquire: sees what the last call of this worker wrote.
    fn take(&self, worker: usize) -> bool {
        self.word(worker).is_some_and(|(word, bit)| word.fetch_or(bit, Ordering::Acquire) & bit == 0)
    }

    fn free(&self, worker: usize) {
        if let Some((word, bit)) = self.word(worker) {
            word.fetch_and(!bit, Ordering::Release);
        }
    }
}

/// Shares of the jobs, in one lane a thread: a thread takes those of its own lane first, so that in phase after phase it
/// works where it has worked before, and then those that others have not begun.
struct Lanes {
    next: [AtomicUsize; Lanes::MOST],
    lanes: usize,
    shares: usize,
}

impl Lanes {
    /// More threads than this share the last lanes.
    const MOST: usize = 32;

    fn new(threads: usize, shares: usize) -> Self {
        let lanes = threads.clamp(1, Self::MOST);
        Self { next: [const { AtomicUsize::new(0) }; Self::MOST], lanes, shares }
    }

    /// The first share of a lane.
    fn start(&self, lane: usize) -> usize {
        lane.saturating_mul(self.shares).checked_div(self.lanes).unwrap_or(0)
    }

    /// A share that nobody has taken, if there is one left.
    fn take(&self, worker: usize) -> Option<usize> {
        let lanes = self.next.get(..self.lanes)?;
        let (before, behind) = lanes.split_at_checked(worker.min(self.lanes - 1))?;
        let numbered = (before.len()..).zip(behind).chain(before.iter().enumerate());
        for (lane, next) in numbered {
            let share = self.start(lane).saturating_add(next.fetch_add(1, Ordering::Relaxed));
            if share < self.start(lane + 1) {
                return Some(share);
            }
        }
        None
    }
}

/// Runs `work(job, part, scratch)` once for every job of `jobs`, on the threads of `crew`.
///
/// `scratch` is cut into pieces of `scratch_len` elements, one a thread: as many threads take part as there are
/// pieces, jobs and workers. Neighbouring jobs go to the same thread. Returns when all jobs are done, or, when the run
/// was called off, with what is left undone. Neither allocates nor blocks by itself.
pub fn for_each_job<P: Parts, F>(
    crew: Crew<'_>,
    jobs: Range<usize>,
    parts: P,
    scratch: &mut [f32],
    scratch_len: usize,
    work: F,
) where
    F: Fn(usize, P::Part, &mut [f32]) + Sync,
{
    let pieces = scratch.len().checked_div(scratch_len).unwrap_or(usize::MAX);
    let threads = crew.workers.min(crew.exec.workers()).min(jobs.len()).min(pieces).min(MAX_WORKERS);
    if threads <= 1 {
        let scratch = scratch.get_mut(..scratch_len).unwrap_or_default();
        for job in jobs {
            if crew.stops() {
                return;
            }
            // SAFETY: the loop takes each index once, and each part ends with its call.
            work(job, unsafe { parts.part(job) }, scratch);
        }
        return;
    }
    let pieces = Chunks::new(scratch, scratch_len);
    let shares = jobs.len().min(SHARES * threads);
    let (each, rest) = (jobs.len().checked_div(shares), jobs.len().checked_rem(shares));
    let (each, rest) = (each.unwrap_or(0), rest.unwrap_or(0));
    let (lanes, taken) = (Lanes::new(threads, shares), Taken::new());
    // The call's own number does not count: whichever it is, one more share is done, so each is done once.
    let share = |worker: usize| {
        if worker >= threads || !taken.take(worker) {
            return true;
        }
        let share = lanes.take(worker);
        if let Some(share) = share {
            // SAFETY: nobody else has this worker's piece until it is free again.
            let scratch = unsafe { pieces.part(worker) };
            let at = |share: usize| jobs.start + share * each + share.min(rest);
            for job in at(share)..at(share + 1) {
                if crew.stops() {
                    break;
                }
                // SAFETY: the counter gives each share, and so each job, to one call.
                work(job, unsafe { parts.part(job) }, scratch);
            }
        }
        taken.free(worker);
        share.is_some()
    };
    crew.exec.parallel_for(threads, shares, &|_, worker| {
        share(worker);
    });
    // An `Exec` may have called nothing, or less than all: what is left is done here.
    taken.free(0);
    while share(0) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::{CancelFlag, Exec, Serial};

    /// An `Exec` that promises threads and then runs nothing.
    struct Lazy;
    impl Exec for Lazy {
        fn workers(&self) -> usize {
            4
        }
        fn parallel_for(&self, _: usize, _: usize, _: &(dyn Fn(usize, usize) + Sync)) {}
    }

    /// Calls everything more often than asked, in an odd order, with workers that do not exist.
    struct Eager;
    impl Exec for Eager {
        fn workers(&self) -> usize {
            3
        }
        fn parallel_for(&self, workers: usize, n: usize, work: &(dyn Fn(usize, usize) + Sync)) {
            for job in (0..n + 5).rev() {
                work(job, job % (workers + 2));
                work(job, usize::MAX);
            }
        }
    }

    /// Calls as the worker that is in a call already.
    struct Nested;
    impl Exec for Nested {
        fn workers(&self) -> usize {
            2
        }
        fn parallel_for(&self, _: usize, n: usize, work: &(dyn Fn(usize, usize) + Sync)) {
            (0..n).for_each(|job| work(job, 1));
        }
    }

    #[test]
    fn every_job_runs_once_whatever_the_exec_does() {
        for exec in [&Serial as &dyn Exec, &Lazy, &Eager, &Nested] {
            let mut array = [0u32; 123];
            let mut scratch = [0.0; 16];
            let parts = (Chunks::new(&mut array, 5),);
            let skipped = CancelFlag::new();
            for_each_job(
                Crew::new(exec, &skipped),
                0..25,
                parts,
                &mut scratch,
                4,
                |job, (part,), scratch| {
                    assert_eq!(scratch.len(), 4);
                    part.iter_mut().for_each(|v| *v += job as u32 + 1);
                },
            );
            let expected: [u32; 123] = core::array::from_fn(|i| i as u32 / 5 + 1);
            assert_eq!((array, skipped.is_cancelled()), (expected, false));
        }
    }

    #[test]
    fn a_run_that_is_called_off_says_so() {
        for exec in [&Serial as &dyn Exec, &Lazy, &Eager] {
            for after in [0, 7] {
                let mut array = [0u32; 20];
                let (cancel, skipped) = (CancelFlag::new(), CancelFlag::new());
                let crew = Crew { cancel: Some(&cancel), ..Crew::new(exec, &skipped) };
                let done = AtomicUsize::new(0);
                if after == 0 {
                    cancel.cancel();
                }
                let parts = (Chunks::new(&mut array, 1),);
                for_each_job(crew, 0..20, parts, &mut [0.0; 4], 1, |_, (part,), _| {
                    part[0] += 1;
                    if done.fetch_add(1, Ordering::Relaxed) + 1 == after {
                        cancel.cancel();
                    }
                });
                assert!(skipped.is_cancelled());
                assert_eq!((done.into_inner(), array.iter().sum::<u32>() as usize), (after, after));
            }
        }
    }

    #[test]
    fn tiles_cover_a_matrix_without_overlap() {
        let mut matrix = [0u32; 7 * 10];
        let tiles = Tiles::new(&mut matrix, 10, 9, 4, 3);
        let jobs = tiles.jobs();
        assert_eq!(jobs, 9);
        let skipped = CancelFlag::new();
        let crew = Crew::new(&Serial, &skipped);
        for_each_job(crew, 0..jobs + 2, (tiles,), &mut [], 0, |job, (mut tile,), _| {
            for line in 0..tile.lines() {
                assert!(tile.first() + tile.width() <= 9 && tile.first_line() + line < 7);
                tile.line(line).iter_mut().for_each(|v| *v += 1 + job as u32);
            }
        });
        for (i, v) in matrix.iter().enumerate() {
            let (line, column) = (i / 10, i % 10);
            let expected = if column == 9 { 0 } else { 1 + line / 3 * 3 + column / 4 };
            assert_eq!(*v as usize, expected);
        }
    }

    #[test]
    fn a_rectangle_can_be_cut_alone() {
        let mut matrix = [0u32; 7 * 10];
        let tiles = Tiles::new(&mut matrix, 10, 9, 4, 3).within(3..20, 2..6);
        let (jobs, skipped) = (tiles.jobs(), CancelFlag::new());
        assert_eq!(jobs, 4);
        let crew = Crew::new(&Serial, &skipped);
        for_each_job(crew, 0..jobs, (tiles,), &mut [], 0, |job, (mut tile,), _| {
            for line in 0..tile.lines() {
                tile.line(line).iter_mut().for_each(|v| *v += 1 + job as u32);
            }
        });
        for (i, v) in matrix.iter().enumerate() {
            let (line, column) = (i / 10, i % 10);
            let inside = (3..9).contains(&column) && (2..6).contains(&line);
            let expected = if inside { 1 + (line - 2) / 3 * 2 + (column - 3) / 4 } else { 0 };
            assert_eq!(*v as usize, expected);
        }
        let mut empty = [0u32; 4];
        assert_eq!(Tiles::new(&mut empty, 2, 2, 1, 1).within(5..9, 1..2).jobs(), 0);
    }
}
