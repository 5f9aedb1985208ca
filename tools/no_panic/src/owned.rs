//! The calls that allocate, with the allocator of C.

use crate::calls::{Numbers, Read, calls, reader};
use crate::host::{Array, Jobs, Text, tell};
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use locutor::format::{FileBytes, HeaderBytes};
use locutor::model::{Model, ModelHeader};
use locutor::session::Session;
use locutor::text::Specials;

unsafe extern "C" {
    fn aligned_alloc(align: usize, size: usize) -> *mut u8;
    fn free(start: *mut u8);
}

struct OfC;

// SAFETY: `aligned_alloc` and `free` keep the contract for the alignments of this library.
unsafe impl GlobalAlloc for OfC {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: C's.
        unsafe { aligned_alloc(layout.align(), layout.size()) }
    }

    unsafe fn dealloc(&self, start: *mut u8, _: Layout) {
        // SAFETY: C's.
        unsafe { free(start) }
    }
}

#[global_allocator]
static ALLOCATOR: OfC = OfC;

calls! {
    fn proof_owned_model(read: Read, len: u64, out: &mut Option<Model<'static>>, words: Text) -> i32 {
        let file = match FileBytes::from_reader(reader(read), len) {
            Ok(file) => file,
            Err(error) => return tell::<()>(Err(error), words, |()| ()),
        };
        tell(Model::from_file_bytes(file), words, |model| *out = Some(model))
    }
    fn proof_owned_slice(file: Text, out: &mut Option<Model<'static>>, words: Text) -> i32 {
        tell(Model::from_slice(file.get()), words, |model| *out = Some(model))
    }
    fn proof_owned_header(read: Read, len: u64, out: &mut Option<ModelHeader<'static>>, words: Text) -> i32 {
        let front = match HeaderBytes::from_reader(reader(read), len) {
            Ok(front) => front,
            Err(error) => return tell::<()>(Err(error), words, |()| ()),
        };
        tell(ModelHeader::from_header_bytes(front), words, |header| *out = Some(header))
    }
    fn proof_owned_session(model: &'static Model<'static>, numbers: &Numbers, jobs: Option<&'static Jobs>, out: &mut Option<Session<'static>>, words: Text) -> i32 {
        let limits = numbers.limits();
        let session = match jobs {
            Some(jobs) => model.session_on(limits, jobs),
            None => model.session(limits),
        };
        tell(session, words, |session| *out = Some(session))
    }
    fn proof_owned_text(header: &ModelHeader<'static>, text: Text, parse: bool, seen: extern "C" fn(Array<u32>, Text), words: Text) -> i32 {
        let (Some(tokenizer), Some(text)) = (header.tokenizer(), text.str()) else { return -2 };
        let specials = if parse { Specials::Parse } else { Specials::Plain };
        let mut ids = Vec::new();
        let status = tell(tokenizer.encode_vec(text, specials), words, |all| ids = all);
        status + tell(tokenizer.decode_vec(&ids), words, |bytes| seen(Array::lend(&ids), Array::lend(&bytes)))
    }
}
