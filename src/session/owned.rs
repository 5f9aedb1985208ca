//! Sessions that own their block of memory and their threads.
#![allow(unsafe_code)]

use super::{Error, HostExec, Limits, Session, Workers};
use crate::exec::{Exec, Serial};
use crate::mem::aligned::Block;
use crate::model::Model;

impl Model<'_> {
    /// A session in one new block of exactly [`Limits::plan`] bytes, the only allocation it ever makes. With `std` and
    /// more than one thread in `limits` it starts a small pool of its own (see [`crate::exec_threads`]), which ends with
    /// it.
    ///
    /// # Errors
    /// As [`Session::new`]; no memory; no threads.
    pub fn session(&self, limits: Limits) -> Result<Session<'_>, Error> {
        own(self, limits, workers(limits.resolve(self.spec())?.workers())?)
    }

    /// As [`Model::session`], on the host's threads.
    ///
    /// # Errors
    /// As [`Session::new`]; no memory.
    pub fn session_on<'m>(&'m self, limits: Limits, exec: &'m dyn Exec) -> Result<Session<'m>, Error> {
        own(self, limits, Workers::Host(HostExec(exec)))
    }
}

fn own<'m>(model: &'m Model<'m>, limits: Limits, workers: Workers<'m>) -> Result<Session<'m>, Error> {
    let block = Block::zeroed(limits.plan(model)?.bytes)?;
    // SAFETY: the session keeps the block for as long as it lives, nothing else uses it, and the session's methods
    // never give out a borrow that outlives `&self`.
    let memory = unsafe { block.leak_mut() };
    let mut session = Session::build(model, &limits, workers, memory)?;
    session.owner = Some(block);
    Ok(session)
}

#[cfg(feature = "std")]
fn workers<'m>(threads: usize) -> Result<Workers<'m>, Error> {
    if threads == 1 {
        return Ok(Workers::Host(HostExec(&Serial)));
    }
    match crate::exec_threads::Threads::new(threads) {
        Ok(pool) => Ok(Workers::Pool(pool)),
        Err(_) => {
            Err(Error::Limit { what: "threads", value: threads, rule: "as many as the system can start" })
        }
    }
}

#[cfg(not(feature = "std"))]
fn workers<'m>(_threads: usize) -> Result<Workers<'m>, Error> {
    Ok(Workers::Host(HostExec(&Serial)))
}
