//! One array, many writers: parts of a mutable array that jobs may write at the same time.
//!
//! A phase of a step is a number of jobs, and each job writes its own part of one or more arrays. [`for_each_job`] is
//! the only way to run them: it owns the arrays' exclusive borrow, takes every job index from a counter exactly once,
//! and hands each job the parts of that index. Which thread runs which job is up to [`Exec`]; two jobs never share a
//! part, whatever an `Exec` does, so no caller needs `unsafe`.
#![allow(unsafe_code)]

use crate::exec::Exec;
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
        Self { data: array.as_mut_ptr(), lines, width, stride, tile_width, tile_lines, array: PhantomData }
    }

    /// Number of jobs that cover the matrix.
    pub fn jobs(&self) -> usize {
        self.width.div_ceil(self.tile_width) * self.lines.div_ceil(self.tile_lines)
    }
}

impl<T> sealed::Sealed for Tiles<'_, T> {}
impl<'a, T: Send> Parts for Tiles<'a, T> {
    type Part = TileMut<'a, T>;

    unsafe fn part(&self, job: usize) -> TileMut<'a, T> {
        let tiles_wide = self.width.div_ceil(self.tile_width).max(1);
        let first = (job % tiles_wide).saturating_mul(self.tile_width).min(self.width);
        let first_line = (job / tiles_wide).saturating_mul(self.tile_lines).min(self.lines);
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

/// Runs `work(job, part, scratch)` once for every job of `jobs`, on the threads of `exec`.
///
/// `scratch` is cut into pieces of `scratch_len` elements, one a thread: as many threads take part as there are
/// pieces, jobs and workers of `exec`. Returns when all jobs are done. Neither allocates nor blocks by itself.
pub fn for_each_job<P: Parts, F>(
    exec: &dyn Exec,
    jobs: Range<usize>,
    parts: P,
    scratch: &mut [f32],
    scratch_len: usize,
    work: F,
) where
    F: Fn(usize, P::Part, &mut [f32]) + Sync,
{
    let pieces = scratch.len().checked_div(scratch_len).unwrap_or(usize::MAX);
    let threads = exec.workers().min(jobs.len()).min(pieces);
    if threads <= 1 {
        let scratch = scratch.get_mut(..scratch_len).unwrap_or_default();
        for job in jobs {
            // SAFETY: the loop takes each index once, and each part ends with its call.
            work(job, unsafe { parts.part(job) }, scratch);
        }
        return;
    }
    let pieces = Chunks::new(scratch, scratch_len);
    let (next_job, next_piece) = (AtomicUsize::new(jobs.start), AtomicUsize::new(0));
    let worker = || {
        let piece = next_piece.fetch_add(1, Ordering::Relaxed);
        if piece >= threads {
            return;
        }
        // SAFETY: the counter gives each piece to one call.
        let scratch = unsafe { pieces.part(piece) };
        loop {
            let job = next_job.fetch_add(1, Ordering::Relaxed);
            if job >= jobs.end {
                return;
            }
            // SAFETY: the counter gives each job to one call.
            work(job, unsafe { parts.part(job) }, scratch);
        }
    };
    exec.run(threads, &worker);
    // An `Exec` may have run nothing, or less than all: what is left is done here. All its calls have returned, so
    // the first piece of scratch memory is free again.
    next_piece.store(0, Ordering::Relaxed);
    worker();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Serial;

    /// An `Exec` that promises threads and then runs nothing.
    struct Lazy;
    impl Exec for Lazy {
        fn workers(&self) -> usize {
            4
        }
        fn run(&self, _: usize, _: &(dyn Fn() + Sync)) {}
    }

    /// Calls the work more often than asked, one call after the other.
    struct Eager;
    impl Exec for Eager {
        fn workers(&self) -> usize {
            3
        }
        fn run(&self, workers: usize, work: &(dyn Fn() + Sync)) {
            for _ in 0..workers + 5 {
                work();
            }
        }
    }

    #[test]
    fn every_job_runs_once_whatever_the_exec_does() {
        for exec in [&Serial as &dyn Exec, &Lazy, &Eager] {
            let mut array = [0u32; 23];
            let mut scratch = [0.0; 12];
            let parts = (Chunks::new(&mut array, 5),);
            for_each_job(exec, 0..5, parts, &mut scratch, 4, |job, (part,), scratch| {
                assert_eq!(scratch.len(), 4);
                part.iter_mut().for_each(|v| *v += job as u32 + 1);
            });
            let expected: [u32; 23] = core::array::from_fn(|i| i as u32 / 5 + 1);
            assert_eq!(array, expected);
        }
    }

    #[test]
    fn tiles_cover_a_matrix_without_overlap() {
        let mut matrix = [0u32; 7 * 10];
        let tiles = Tiles::new(&mut matrix, 10, 9, 4, 3);
        let jobs = tiles.jobs();
        assert_eq!(jobs, 9);
        for_each_job(&Serial, 0..jobs + 2, (tiles,), &mut [], 0, |job, (mut tile,), _| {
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
}
