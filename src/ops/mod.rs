//! Operations of a layer over the kernels: each runs the jobs of one phase.
//!
//! They know arrays, columns (one a token) and rows, but no model. Every array of columns is `[columns][stride]`.

pub mod attention;
pub mod embed;
pub mod linear;
pub mod norm;
pub mod rope;

use crate::exec::Crew;
use crate::kernels::Kernels;
use crate::mem::split::{Parts, for_each_job};
use core::ops::Range;

/// Scratch memory of the workers, `[workers][len]`.
#[derive(Debug)]
pub struct Scratch<'m> {
    /// All of it.
    pub floats: &'m mut [f32],
    /// Floats of one worker.
    pub len: usize,
}

/// Who runs the jobs, and with which kernels.
#[derive(Clone, Copy)]
pub struct Tools<'t> {
    /// Threads.
    pub crew: Crew<'t>,
    /// Kernels.
    pub kernels: &'t Kernels,
}

impl<'t> Tools<'t> {
    /// What an operation needs to run `jobs`.
    pub fn runner(self, scratch: &'t mut Scratch<'_>, jobs: Range<usize>) -> Runner<'t> {
        Runner {
            crew: self.crew,
            kernels: self.kernels,
            scratch: scratch.floats,
            scratch_len: scratch.len,
            jobs,
        }
    }
}

/// The jobs of one operation: who runs them, with which kernels, and memory for each worker.
pub struct Runner<'r> {
    crew: Crew<'r>,
    kernels: &'r Kernels,
    scratch: &'r mut [f32],
    scratch_len: usize,
    jobs: Range<usize>,
}

impl<'r> Runner<'r> {
    /// The kernels.
    pub fn kernels(&self) -> &'r Kernels {
        self.kernels
    }

    /// Runs `work` for each of the jobs; see [`crate::mem::split::for_each_job`].
    pub fn run<P: Parts>(self, parts: P, work: impl Fn(usize, P::Part, &mut [f32]) + Sync) {
        for_each_job(self.crew, self.jobs, parts, self.scratch, self.scratch_len, work);
    }
}

/// Column `column` of an array of columns; empty beyond its end.
pub fn column<T>(array: &[T], column: usize, stride: usize) -> &[T] {
    array.get(column * stride..).and_then(|rest| rest.get(..stride)).unwrap_or_default()
}
