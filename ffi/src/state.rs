//! Saved states.

use crate::failure::{Failure, guard_plain};
use crate::handle::{Handle, In, Out};
use crate::session::SessionObject;
use crate::status::{Status, export};
use engine::session::Saved;

pub const SEQUENCE: u32 = 0;
pub const SESSION: u32 = 1;

fn saved(what: u32) -> Result<Saved, Failure> {
    match what {
        SEQUENCE => Ok(Saved::Sequence),
        SESSION => Ok(Saved::Session),
        _ => Err(Failure::Param("what is none of LOCUTOR_SAVE_*")),
    }
}

export! {
    fn locutor_session_state_hash(session: Handle<SessionObject>, hash: Out<u64>) -> i32 {
        guard_plain(|| {
            let hash = hash.check()?;
            session.get()?.with(|session| {
                hash.set(session.state_hash());
                Ok(())
            })
        })
    }

    fn locutor_session_save_size(session: Handle<SessionObject>, what: u32, bytes: Out<usize>) -> i32 {
        guard_plain(|| {
            let (what, bytes) = (saved(what)?, bytes.check()?);
            session.get()?.call(|state| {
                let (session, sampler) = state.both()?;
                bytes.set(session.save_size(what, Some(sampler)));
                Ok(())
            })
        })
    }

    fn locutor_session_save(
        session: Handle<SessionObject>,
        what: u32,
        memory: Out<u8>,
        capacity: usize,
        bytes: Out<usize>,
    ) -> i32 {
        guard_plain(|| {
            let (what, memory, bytes) = (saved(what)?, memory.slice(capacity)?, bytes.check()?);
            session.get()?.call(|state| {
                let (session, sampler) = state.both()?;
                let needed = session.save_size(what, Some(sampler));
                if needed > memory.len() {
                    bytes.set(needed);
                    return Err(Failure::Status(Status::BUFFER));
                }
                bytes.set(session.save(what, Some(sampler), memory)?);
                Ok(())
            })
        })
    }

    fn locutor_session_restore(session: Handle<SessionObject>, state: In<u8>, len: usize) -> i32 {
        guard_plain(|| {
            let bytes = state.slice(len)?;
            session.get()?.call(|state| {
                let (session, sampler) = state.both()?;
                Ok(session.restore(bytes, Some(sampler))?)
            })
        })
    }
}
