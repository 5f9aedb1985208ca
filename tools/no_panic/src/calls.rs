//! The calls that need `core` alone.

use crate::host::{Array, Jobs, Text, tell};
use locutor::format::{ModelBytes, ReadError, read_into};
use locutor::kernels;
use locutor::kv::KvType;
use locutor::model::plan::Precisions;
use locutor::model::{Model, ModelHeader};
use locutor::sample::{self, Bias, Candidate, Params, Rng, Sampler};
use locutor::session::{Budget, ContextPolicy, Limits, Progress, Saved, SequenceId, Session, Step};
use locutor::tensor::Precision;
use locutor::text::Specials;
use locutor::{CancelFlag, Serial};

/// Declares C functions.
macro_rules! calls {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($arg: $type),*) $(-> $result)? $body
    )*};
}
pub(crate) use calls;

pub type Read = extern "C" fn(offset: u64, destination: *mut u8, len: usize) -> i32;

pub fn reader(read: Read) -> impl FnMut(u64, &mut [u8]) -> Result<(), ReadError> {
    move |offset, place| match read(offset, place.as_mut_ptr(), place.len()) {
        0 => Ok(()),
        code => Err(ReadError::Host(code)),
    }
}

/// All limits, as numbers.
#[repr(C)]
pub struct Numbers {
    context: usize,
    batch: usize,
    logits: usize,
    threads: usize,
    decode_threads: usize,
    sequences: usize,
    positions: usize,
    text_bytes: usize,
    stops: usize,
    stop_bytes: usize,
    policy: u8,
    keep: usize,
    precise: [bool; 2],
    keys: u8,
    values: u8,
    smallest: bool,
    isa: Text,
}

fn kv(number: u8) -> KvType {
    match number {
        0 => KvType::F16,
        1 => KvType::F32,
        2 => KvType::Q8_0,
        _ => KvType::I16,
    }
}

impl Numbers {
    pub fn limits(&self) -> Limits {
        let limits = if self.smallest { Limits::smallest(self.context) } else { Limits::new() };
        let bits = |precise| if precise { Precision::Bits16 } else { Precision::Bits8 };
        let [both, apart] = self.precise;
        let precisions = if apart { Precisions::default() } else { Precisions::all(bits(both)) };
        let policy = match self.policy {
            0 => ContextPolicy::Stop,
            1 => ContextPolicy::Shift { keep: self.keep },
            _ => ContextPolicy::Slide { sinks: self.keep },
        };
        let limits = limits
            .context(self.context)
            .batch(self.batch)
            .logits(self.logits)
            .threads(self.threads)
            .decode_threads(self.decode_threads)
            .sequences(self.sequences)
            .positions(self.positions)
            .text_bytes(self.text_bytes)
            .stops(self.stops, self.stop_bytes)
            .policy(policy)
            .precisions(precisions)
            .kv_types(kv(self.keys), kv(self.values));
        match self.isa.str().and_then(kernels::by_name) {
            Some(table) => limits.kernels(table),
            None => limits,
        }
    }
}

/// A budget of the host's.
#[repr(C)]
pub struct Time {
    clock: Option<extern "C" fn() -> u64>,
    until: u64,
    units: u64,
}

fn within<R>(time: &Time, call: impl FnOnce(Budget<'_>) -> R) -> R {
    match time.clock {
        Some(clock) => call(Budget::Until { clock: &|| clock(), at: time.until }),
        None if time.units > 0 => call(Budget::Units(time.units)),
        None => call(Budget::Unlimited),
    }
}

fn what(number: u8) -> Saved {
    if number == 0 { Saved::Sequence } else { Saved::Session }
}

calls! {
    // Models.
    fn proof_model_read(read: Read, len: u64, memory: Text, out: &mut ModelBytes<'static>, words: Text) -> i32 {
        tell(read_into(reader(read), len, memory.get_mut()), words, |bytes| *out = bytes)
    }
    fn proof_model_size(file: Text, out: &mut usize, words: Text) -> i32 {
        tell(Model::size(&ModelBytes::new(file.get())), words, |bytes| *out = bytes)
    }
    fn proof_model_new(bytes: &ModelBytes<'static>, memory: Text, out: &mut Option<Model<'static>>, words: Text) -> i32 {
        tell(Model::new(*bytes, memory.get_mut()), words, |model| *out = Some(model))
    }
    fn proof_model_from_bytes(file: Text, memory: Text, out: &mut Option<Model<'static>>, words: Text) -> i32 {
        tell(Model::from_bytes(file.get(), memory.get_mut()), words, |model| *out = Some(model))
    }
    fn proof_header_size(file: Text, len: u64, out: &mut usize, words: Text) -> i32 {
        tell(ModelHeader::size(file.get(), len), words, |bytes| *out = bytes)
    }
    fn proof_header_new(file: Text, len: u64, memory: Text, out: &mut Option<ModelHeader<'static>>, words: Text) -> i32 {
        tell(ModelHeader::new(file.get(), len, memory.get_mut()), words, |header| *out = Some(header))
    }
    fn proof_model_destroy(model: &mut Option<Model<'static>>, header: &mut Option<ModelHeader<'static>>) {
        *model = None;
        *header = None;
    }
    fn proof_model_header(model: &Model<'static>, seen: extern "C" fn(*const ModelHeader<'static>, usize)) {
        seen(model.header(), model.memory_bytes());
    }
    fn proof_header_numbers(header: &ModelHeader<'static>, layer: usize, out: &mut [u64; 12]) {
        let (spec, file) = (header.spec(), header.file());
        let ids = header.tokenizer().map(|tokenizer| tokenizer.ids()).unwrap_or_default();
        let number = |id: Option<u32>| u64::from(id.unwrap_or(u32::MAX));
        *out = [
            spec.vocab as u64, spec.context as u64, spec.layers as u64, spec.embd as u64, number(ids.bos), number(ids.eos),
            file.file_len(), file.alignment(), header.digest(), u64::from(file.version()),
            u64::from(spec.layer(layer).window.is_some()),
            file.tensors().get(layer).map_or(0, |entry| entry.elements()),
        ];
    }
    fn proof_header_entry(header: &ModelHeader<'static>, key: Text, out: &mut [u64; 5], text: &mut Text, words: Text) -> i32 {
        let Some(key) = key.str() else { return -2 };
        let file = header.file();
        out[0] = u64::from(file.tensor(key).is_some());
        tell(file.u64(key), words, |value| out[1] = value.unwrap_or(0))
            + tell(file.u32(key), words, |value| out[2] = value.unwrap_or(0).into())
            + tell(file.f32(key), words, |value| out[3] = value.unwrap_or(0.0).to_bits().into())
            + tell(file.bool(key), words, |value| out[4] = u64::from(value == Some(true)))
            + tell(file.str(key), words, |value| *text = Array::lend(value.unwrap_or_default().as_bytes()))
            + tell(file.strings(key), words, |value| *text = Array::lend(value.and_then(|mut all| all.next()).unwrap_or_default()))
    }
    fn proof_header_entries(header: &ModelHeader<'static>, seen: extern "C" fn(Text)) {
        header.file().entries().for_each(|entry| seen(Array::lend(entry.key.as_bytes())));
        let file = header.file();
        file.tensors().iter().for_each(|entry| seen(Array::lend(file.tensor_name(entry).as_bytes())));
    }

    // Text.
    fn proof_template(header: &ModelHeader<'static>, out: &mut Text) {
        let template = header.tokenizer().and_then(|tokenizer| tokenizer.chat_template());
        *out = Array::lend(template.unwrap_or_default().as_bytes());
    }
    fn proof_encode(header: &ModelHeader<'static>, text: Text, parse: bool, scratch: Array<u32>, out: Array<u32>, n: &mut usize, words: Text) -> i32 {
        let (Some(tokenizer), Some(text)) = (header.tokenizer(), text.str()) else { return -2 };
        let specials = if parse { Specials::Parse } else { Specials::Plain };
        *n = tokenizer.scratch_len(text.len());
        tell(tokenizer.encode(text, specials, scratch.get_mut(), out.get_mut()), words, |len| *n = len)
    }
    fn proof_decode(header: &ModelHeader<'static>, id: u32, out: Text, n: &mut usize, words: Text) -> i32 {
        let Some(tokenizer) = header.tokenizer() else { return -2 };
        *n = tokenizer.longest_token();
        tell(tokenizer.decode_into(id, out.get_mut()), words, |len| *n = len)
    }
    fn proof_find(header: &ModelHeader<'static>, text: Text, end: &mut bool, token: &mut Text) -> u32 {
        let (Some(tokenizer), Some(text)) = (header.tokenizer(), text.str()) else { return u32::MAX };
        let id = tokenizer.find(text).unwrap_or(u32::MAX);
        *end = tokenizer.is_end(id);
        *token = Array::lend(tokenizer.token(id).map_or(&[][..], |token| token.text.as_bytes()));
        id
    }

    // Sessions.
    fn proof_plan(header: &ModelHeader<'static>, numbers: &Numbers, out: &mut [usize; 5], words: Text) -> i32 {
        tell(numbers.limits().plan_header(header), words, |plan| {
            *out = [plan.context, plan.bytes, plan.kv_bytes, plan.logits_bytes, plan.scratch_bytes];
        })
    }
    fn proof_session_size(model: &'static Model<'static>, numbers: &Numbers, out: &mut usize, words: Text) -> i32 {
        tell(Session::size(model, &numbers.limits()), words, |bytes| *out = bytes)
    }
    fn proof_session_new(model: &'static Model<'static>, numbers: &Numbers, jobs: Option<&'static Jobs>, memory: Text, out: &mut Option<Session<'static>>, words: Text) -> i32 {
        let limits = numbers.limits();
        let session = match jobs {
            Some(jobs) => Session::new(model, &limits, jobs, memory.get_mut()),
            None => Session::new(model, &limits, &Serial, memory.get_mut()),
        };
        tell(session, words, |session| *out = Some(session))
    }
    fn proof_session_destroy(session: &mut Option<Session<'static>>) {
        *session = None;
    }
    fn proof_feed(session: &mut Session<'static>, text: Text, markup: bool, added: &mut usize, words: Text) -> i32 {
        let Some(text) = text.str() else { return -2 };
        tell(if markup { session.feed_markup(text) } else { session.feed(text) }, words, |n| *added = n)
    }
    fn proof_feed_tokens(session: &mut Session<'static>, tokens: Array<u32>, words: Text) -> i32 {
        tell(session.feed_tokens(tokens.get()), words, |()| ())
    }
    fn proof_truncate(session: &mut Session<'static>, len: usize, words: Text) -> i32 {
        tell(session.truncate(len), words, |()| ())
    }
    fn proof_ask(session: &mut Session<'static>, out: &mut [usize; 8], tokens: &mut Array<u32>, logits: &mut Array<f32>) -> u64 {
        let (free, all) = session.pages();
        *tokens = Array::lend(session.tokens());
        *logits = Array::lend(session.logits().unwrap_or_default());
        let finish = usize::from(session.finish().is_some());
        *out = [session.position(), session.room(), session.context(), session.sequences(), free, all, finish, session.model().spec().vocab];
        session.state_hash()
    }
    fn proof_set(session: &mut Session<'static>, n: usize, ignore: bool, cancel: Option<&'static CancelFlag>) -> *const u8 {
        session.set_max_tokens(Some(n));
        session.set_ignore_end(ignore);
        session.set_cancel(cancel);
        session.kernels().name.as_ptr()
    }
    fn proof_cancel(flag: &CancelFlag) {
        flag.cancel();
        flag.reset();
    }
    fn proof_set_stops(session: &mut Session<'static>, stops: Array<Text>, words: Text) -> i32 {
        let mut texts = [""; 64];
        let n = stops.get().len();
        let Some(texts) = texts.get_mut(..n) else { return -2 };
        for (text, stop) in texts.iter_mut().zip(stops.get()) {
            *text = stop.str().unwrap_or_default();
        }
        tell(session.set_stops(texts), words, |()| ())
    }
    fn proof_advance(session: &mut Session<'static>, time: &Time, ready: &mut bool, words: Text) -> i32 {
        tell(within(time, |budget| session.advance(budget)), words, |progress| *ready = progress == Progress::Ready)
    }
    fn proof_step(session: &mut Session<'static>, sampler: &mut Sampler<'static>, time: &Time, token: &mut u32, text: &mut Text, words: Text) -> i32 {
        tell(within(time, |budget| session.step(budget, sampler)), words, |step| match step {
            Step::Pending => (),
            Step::Piece(piece) => *text = Array::lend(piece.as_bytes()),
            Step::Token(id) => *token = id,
            Step::Done(_) => *token = u32::MAX,
        })
    }
    fn proof_next_token(session: &mut Session<'static>, sampler: &mut Sampler<'static>, token: &mut u32, words: Text) -> i32 {
        tell(session.next_token(sampler), words, |id| *token = id.unwrap_or(u32::MAX))
    }
    fn proof_next_piece(session: &mut Session<'static>, sampler: &mut Sampler<'static>, text: &mut Text, words: Text) -> i32 {
        tell(session.next_piece(sampler), words, |piece| *text = Array::lend(piece.unwrap_or_default().as_bytes()))
    }
    fn proof_log_prob(session: &mut Session<'static>, tokens: Array<u32>, each: extern "C" fn(f64), sum: &mut f64, words: Text) -> i32 {
        tell(session.log_prob(tokens.get(), |term| each(term)), words, |total| *sum = total)
    }
    fn proof_feed_with_logits(session: &mut Session<'static>, tokens: Array<u32>, seen: extern "C" fn(usize, Array<f32>), words: Text) -> i32 {
        tell(session.feed_with_logits(tokens.get(), |position, row| seen(position, Array::lend(row))), words, |()| ())
    }

    // Sequences and states.
    fn proof_sequences(session: &mut Session<'static>, which: u8, id: u64, out: &mut u64, words: Text) -> i32 {
        let sequence = SequenceId::from_bits(id);
        match which {
            0 => tell(session.create(), words, |id| *out = id.to_bits()),
            1 => tell(session.fork(), words, |id| *out = id.to_bits()),
            2 => tell(session.select(sequence), words, |()| ()),
            3 => tell(session.close(sequence), words, |()| ()),
            _ => {
                *out = session.selected().to_bits();
                0
            }
        }
    }
    fn proof_save(session: &mut Session<'static>, sampler: Option<&Sampler<'static>>, which: u8, out: Text, n: &mut usize, words: Text) -> i32 {
        *n = session.save_size(what(which), sampler);
        tell(session.save(what(which), sampler, out.get_mut()), words, |len| *n = len)
    }
    fn proof_restore(session: &mut Session<'static>, sampler: Option<&mut Sampler<'static>>, state: Text, words: Text) -> i32 {
        tell(session.restore(state.get(), sampler), words, |()| ())
    }

    // Samplers.
    fn proof_sampler(numbers: &[f32; 6], integers: &[u32; 2], seed: u64, biases: Array<Bias>, out: &mut Sampler<'static>, words: Text) -> i32 {
        let [temperature, top_p, min_p, repeat_penalty, frequency_penalty, presence_penalty] = *numbers;
        let [top_k, penalty_last_n] = *integers;
        let logit_bias = biases.get();
        tell(Sampler::new(Params {
            temperature, top_k, top_p, min_p, repeat_penalty, frequency_penalty, presence_penalty, penalty_last_n, seed,
            logit_bias,
        }), words, |sampler| *out = sampler)
    }
    fn proof_sample(sampler: &mut Sampler<'static>, history: Array<u32>, logits: Array<f32>, space: Array<Candidate>, out: &mut u32, words: Text) -> i32 {
        tell(sampler.sample(logits.get(), history.get(), space.get_mut()), words, |id| *out = id)
    }
    fn proof_rng(sampler: &mut Sampler<'static>, state: &mut u64) {
        let old = sampler.rng().state();
        sampler.set_rng(Rng::new(*state));
        *state = old;
    }
    fn proof_top(logits: Array<f32>, n: usize, space: Array<Candidate>, token: u32, out: &mut [f64; 2], words: Text) -> i32 {
        tell(sample::top(logits.get(), n, space.get_mut()), words, |_| ())
            + tell(sample::log_prob(logits.get(), token), words, |value| out[0] = value)
            + tell(sample::argmax(logits.get()), words, |best| out[1] = best.logit.into())
    }
}

#[cfg(feature = "control")]
calls! {
    fn proof_control(bytes: Text, index: usize) -> u8 {
        bytes.get()[index]
    }
}
