//! Several sequences in a session.

use crate::failure::guard_plain;
use crate::handle::{Handle, Out};
use crate::session::SessionObject;
use crate::status::export;
use engine::session::SequenceId;

export! {
    fn locutor_session_create_sequence(session: Handle<SessionObject>, sequence: Out<u64>) -> i32 {
        guard_plain(|| {
            let sequence = sequence.check()?;
            session.get()?.with(|session| {
                sequence.set(session.create()?.to_bits());
                Ok(())
            })
        })
    }

    fn locutor_session_fork_sequence(session: Handle<SessionObject>, sequence: Out<u64>) -> i32 {
        guard_plain(|| {
            let sequence = sequence.check()?;
            session.get()?.with(|session| {
                sequence.set(session.fork()?.to_bits());
                Ok(())
            })
        })
    }

    fn locutor_session_select_sequence(session: Handle<SessionObject>, sequence: u64) -> i32 {
        guard_plain(|| session.get()?.with(|session| Ok(session.select(SequenceId::from_bits(sequence))?)))
    }

    fn locutor_session_selected_sequence(session: Handle<SessionObject>, sequence: Out<u64>) -> i32 {
        guard_plain(|| {
            let sequence = sequence.check()?;
            session.get()?.with(|session| {
                sequence.set(session.selected().to_bits());
                Ok(())
            })
        })
    }

    fn locutor_session_close_sequence(session: Handle<SessionObject>, sequence: u64) -> i32 {
        guard_plain(|| session.get()?.with(|session| Ok(session.close(SequenceId::from_bits(sequence))?)))
    }

    fn locutor_session_pages(session: Handle<SessionObject>, free: Out<usize>, all: Out<usize>) -> i32 {
        guard_plain(|| {
            let (free, all) = (free.check()?, all.check()?);
            session.get()?.with(|session| {
                let pages = session.pages();
                free.set(pages.0);
                all.set(pages.1);
                Ok(())
            })
        })
    }
}
