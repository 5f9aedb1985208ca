//! Generation, logits and log-probabilities.

use crate::budget::{BudgetParams, with_budget};
use crate::failure::{Failure, guard_plain};
use crate::handle::{Handle, In, Out, sized_struct};
use crate::model::NO_TOKEN;
use crate::session::SessionObject;
use crate::status::{Status, export};
use core::ffi::c_char;
use engine::session::{Finish, Progress, Step};

pub const PENDING: i32 = 0;
pub const PIECE: i32 = 1;
pub const DONE: i32 = 2;
pub const TOKEN: i32 = 3;

pub const END: i32 = 1;
pub const STOP: i32 = 2;
pub const MAX_TOKENS: i32 = 3;

sized_struct! {
    /// `locutor_event`.
    Event {
        kind: i32 = PENDING,
        finish: i32 = 0,
        token: u32 = NO_TOKEN,
        text: In<u8> = In::null(),
        text_len: u64 = 0,
    }
}

impl Event {
    fn new(kind: i32, text: &str) -> Self {
        let text_len = text.len() as u64;
        Self { struct_size: 0, kind, finish: 0, token: NO_TOKEN, text: In::to(text.as_bytes()), text_len }
    }

    fn done(finish: Finish) -> Self {
        let (finish, token) = match finish {
            Finish::EndOfText(id) => (END, id),
            Finish::Stop => (STOP, NO_TOKEN),
            Finish::MaxTokens => (MAX_TOKENS, NO_TOKEN),
        };
        Self { finish, token, ..Self::new(DONE, "") }
    }
}

/// `LOCUTOR_MAX_STOPS`.
pub const MAX_STOPS: usize = 64;

fn set_stops(session: &SessionObject, stops: &[In<c_char>], lens: &[usize]) -> Result<(), Failure> {
    let mut texts = [""; MAX_STOPS];
    let too_many = Failure::Param("more than LOCUTOR_MAX_STOPS stop strings");
    let texts = texts.get_mut(..stops.len()).ok_or(too_many)?;
    for ((place, stop), len) in texts.iter_mut().zip(stops).zip(lens) {
        *place = stop.text(*len)?;
    }
    session.with(|session| Ok(session.set_stops(texts)?))
}

export! {
    fn locutor_session_set_max_tokens(session: Handle<SessionObject>, n: u64) -> i32 {
        guard_plain(|| {
            session.get()?.with(|session| {
                // More than the address space is more than any context.
                session.set_max_tokens(usize::try_from(n).ok().filter(|_| n != u64::MAX));
                Ok(())
            })
        })
    }

    fn locutor_session_set_ignore_end(session: Handle<SessionObject>, ignore: i32) -> i32 {
        guard_plain(|| {
            session.get()?.with(|session| {
                session.set_ignore_end(ignore != 0);
                Ok(())
            })
        })
    }

    fn locutor_session_set_stops(
        session: Handle<SessionObject>,
        stops: In<In<c_char>>,
        lens: In<usize>,
        n: usize,
    ) -> i32 {
        guard_plain(|| set_stops(session.get()?, stops.slice(n)?, lens.slice(n)?))
    }

    fn locutor_event_init(event: Out<Event>, size: usize) -> i32 {
        guard_plain(|| Ok(event.init(size)?))
    }

    fn locutor_session_step(
        session: Handle<SessionObject>,
        budget: In<BudgetParams>,
        event: Out<Event>,
    ) -> i32 {
        guard_plain(|| {
            let event = event.check_sized()?;
            session.get()?.call(|state| {
                let (session, sampler) = state.both()?;
                let reached = with_budget(budget, |budget| {
                    Ok(match session.step(budget, sampler)? {
                        Step::Pending => Event::new(PENDING, ""),
                        Step::Piece(text) => Event::new(PIECE, text),
                        Step::Token(token) => Event { token, ..Event::new(TOKEN, "") },
                        Step::Done(finish) => Event::done(finish),
                    })
                })?;
                Ok(event.fill(reached)?)
            })
        })
    }

    fn locutor_session_step_token(
        session: Handle<SessionObject>,
        budget: In<BudgetParams>,
        event: Out<Event>,
    ) -> i32 {
        guard_plain(|| {
            let event = event.check_sized()?;
            session.get()?.call(|state| {
                let (session, sampler) = state.both()?;
                let ready = session.finish().is_some()
                    || with_budget(budget, |budget| Ok(session.advance(budget)? == Progress::Ready))?;
                if !ready {
                    return Ok(event.fill(Event::new(PENDING, ""))?);
                }
                let reached = match session.next_token(sampler)? {
                    Some(token) => Event { token, ..Event::new(TOKEN, "") },
                    None => Event::done(session.finish().unwrap_or(Finish::Stop)),
                };
                Ok(event.fill(reached)?)
            })
        })
    }

    fn locutor_session_advance(
        session: Handle<SessionObject>,
        budget: In<BudgetParams>,
        ready: Out<i32>,
    ) -> i32 {
        guard_plain(|| {
            let ready = ready.check()?;
            session.get()?.with(|session| {
                let progress = with_budget(budget, |budget| Ok(session.advance(budget)?))?;
                ready.set(i32::from(progress == Progress::Ready));
                Ok(())
            })
        })
    }

    fn locutor_session_logits(session: Handle<SessionObject>, logits: Out<In<f32>>, n: Out<usize>) -> i32 {
        guard_plain(|| {
            let (out, n) = (logits.check()?, n.check()?);
            session.get()?.with(|session| {
                let logits = session.logits().ok_or(Status::NOT_READY)?;
                out.set(In::to(logits));
                n.set(logits.len());
                Ok(())
            })
        })
    }

    fn locutor_session_log_prob(
        session: Handle<SessionObject>,
        tokens: In<u32>,
        n: usize,
        each: Out<f64>,
        sum: Out<f64>,
    ) -> i32 {
        guard_plain(|| {
            let sum = sum.check()?;
            let mut terms = if each.is_null() { &mut [] } else { each.slice(n)? }.iter_mut();
            session.get()?.with(|session| {
                let total = session.log_prob(tokens.slice(n)?, |term| {
                    if let Some(place) = terms.next() {
                        *place = term;
                    }
                })?;
                sum.set(total);
                Ok(())
            })
        })
    }
}
