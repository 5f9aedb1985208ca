//! Text to tokens and back.

use crate::failure::{ErrorInfo, Failure, guard, guard_plain};
use crate::handle::{Handle, In, Number, Out};
use crate::model::ModelObject;
use crate::session::SessionObject;
use crate::status::{Status, export};
use core::ffi::c_char;
use engine::text::{Specials, Tokenizer};

pub const MARKUP: u32 = 1;

fn specials(flags: u32) -> Result<Specials, Failure> {
    match flags {
        0 => Ok(Specials::Plain),
        MARKUP => Ok(Specials::Parse),
        _ => Err(Failure::Param("flags: unknown bits")),
    }
}

fn tokenizer(model: &ModelObject) -> Result<&Tokenizer<'_>, Failure> {
    Ok(model.header()?.tokenizer().ok_or(Status::NO_TOKENIZER)?)
}

/// Copies a result out and says how long it is; the length also where it does not fit.
fn give<T: Number>(result: &[T], out: Out<T>, capacity: usize, len: Out<usize>) -> Result<(), Failure> {
    let place = out.slice(capacity)?;
    len.set(result.len());
    place.get_mut(..result.len()).ok_or(Status::BUFFER)?.copy_from_slice(result);
    Ok(())
}

export! {
    fn locutor_model_tokenize(
        model: Handle<ModelObject>,
        text: In<c_char>,
        text_len: usize,
        flags: u32,
        tokens: Out<u32>,
        capacity: usize,
        n: Out<usize>,
        error: Out<ErrorInfo>,
    ) -> i32 {
        guard(error, || {
            let n = n.check()?;
            let ids = tokenizer(model.get()?)?.encode_vec(text.text(text_len)?, specials(flags)?)?;
            give(&ids, tokens, capacity, n)
        })
    }

    fn locutor_model_detokenize(
        model: Handle<ModelObject>,
        tokens: In<u32>,
        n: usize,
        text: Out<u8>,
        capacity: usize,
        text_len: Out<usize>,
        error: Out<ErrorInfo>,
    ) -> i32 {
        guard(error, || {
            let len = text_len.check()?;
            let bytes = tokenizer(model.get()?)?.decode_vec(tokens.slice(n)?)?;
            give(&bytes, text, capacity, len)
        })
    }

    fn locutor_session_feed_text(
        session: Handle<SessionObject>,
        text: In<c_char>,
        len: usize,
        flags: u32,
        added: Out<usize>,
    ) -> i32 {
        guard_plain(|| {
            session.get()?.with(|session| {
                let text = text.text(len)?;
                let n = match specials(flags)? {
                    Specials::Plain => session.feed(text)?,
                    Specials::Parse => session.feed_markup(text)?,
                };
                added.set(n);
                Ok(())
            })
        })
    }
}
