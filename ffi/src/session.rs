//! Sessions: their making, their tokens, their end.

use crate::exec::{ParallelForFn, Workers};
use crate::failure::{ErrorInfo, Failure, guard, guard_plain};
use crate::handle::{Handle, In, Memory, Object, OneCall, Out, Use, User, sized_struct};
use crate::model::ModelObject;
use crate::status::{Status, export};
use core::ffi::c_char;
use engine::exec::CancelFlag;
use engine::kernels;
use engine::kv::KvType;
use engine::model::plan::Precisions;
use engine::sample::Sampler;
use engine::session::{ContextPolicy, Limits, Session};
use engine::tensor::Precision;

/// `locutor_session`.
pub struct SessionObject {
    state: OneCall<State>,
    /// Set at any time, by any thread.
    cancel: CancelFlag,
    // Behind the session, which borrows both.
    workers: Workers,
    model: Use<ModelObject>,
}

/// What a call works with.
pub struct State {
    /// There from the moment that C gets the object.
    session: Option<Session<'static>>,
    /// How tokens are chosen.
    pub sampler: Sampler<'static>,
    /// The last call that failed.
    failure: Option<Failure>,
}

impl State {
    /// The session.
    pub fn session(&mut self) -> Result<&mut Session<'static>, Failure> {
        self.session.as_mut().ok_or(Failure::Status(Status::INTERNAL))
    }

    /// Session and sampler.
    pub fn both(&mut self) -> Result<(&mut Session<'static>, &mut Sampler<'static>), Failure> {
        let session = self.session.as_mut().ok_or(Failure::Status(Status::INTERNAL))?;
        Ok((session, &mut self.sampler))
    }
}

impl SessionObject {
    /// Runs a call, unless one is going on, and remembers its failure.
    pub fn call<R>(&self, call: impl FnOnce(&mut State) -> Result<R, Failure>) -> Result<R, Failure> {
        self.state.enter(|state| {
            let result = call(state);
            if let Err(failure) = &result {
                state.failure = Some(*failure);
            }
            result
        })?
    }

    /// As [`call`](Self::call), for calls that work with the session alone.
    pub fn with<R>(
        &self,
        call: impl FnOnce(&mut Session<'static>) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        self.call(|state| call(state.session()?))
    }
}

pub const KV_F16: u32 = 0;
pub const KV_F32: u32 = 1;
pub const KV_Q8_0: u32 = 2;
pub const KV_I16: u32 = 3;

/// A type of cached numbers; `failure` says which parameter has none.
fn kv_type(value: u32, failure: &'static str) -> Result<KvType, Failure> {
    match value {
        KV_F16 => Ok(KvType::F16),
        KV_F32 => Ok(KvType::F32),
        KV_Q8_0 => Ok(KvType::Q8_0),
        KV_I16 => Ok(KvType::I16),
        _ => Err(Failure::Param(failure)),
    }
}

pub const MIXED: u32 = 0;
pub const BITS_8: u32 = 8;
pub const BITS_16: u32 = 16;

pub const STOP: u32 = 0;
pub const SHIFT: u32 = 1;
pub const SLIDE: u32 = 2;

sized_struct! {
    /// `locutor_session_params`.
    SessionParams {
        flags: u32 = 0,
        context: u32 = 0,
        batch: u32 = 0,
        logits: u32 = 1,
        threads: u32 = 1,
        text_bytes: u32 = 0,
        stops: u32 = 8,
        stop_bytes: u32 = 64,
        kv_keys: u32 = KV_I16,
        kv_values: u32 = KV_I16,
        precision: u32 = MIXED,
        sequences: u32 = 1,
        positions: u32 = 0,
        decode_threads: u32 = 0,
        policy: u32 = STOP,
        keep: u32 = 0,
        isa: In<c_char> = In::null(),
        parallel_for: Option<ParallelForFn> = None,
        parallel_for_user: User = User(core::ptr::null_mut()),
    }
}

impl SessionParams {
    fn limits(&self) -> Result<Limits, Failure> {
        if self.flags != 0 {
            return Err(Failure::Param("flags must be 0"));
        }
        let number = |n: u32| usize::try_from(n).map_err(|_| Status::PARAM);
        let keys = kv_type(self.kv_keys, "kv_keys is none of LOCUTOR_KV_*")?;
        let values = kv_type(self.kv_values, "kv_values is none of LOCUTOR_KV_*")?;
        let precisions = match self.precision {
            MIXED => Precisions::default(),
            BITS_8 => Precisions::all(Precision::Bits8),
            BITS_16 => Precisions::all(Precision::Bits16),
            _ => return Err(Failure::Param("precision is none of LOCUTOR_PRECISION_*")),
        };
        let policy = match self.policy {
            STOP if self.keep == 0 => ContextPolicy::Stop,
            STOP => return Err(Failure::Param("keep asks for a policy that forgets")),
            SHIFT => ContextPolicy::Shift { keep: number(self.keep)? },
            SLIDE => ContextPolicy::Slide { sinks: number(self.keep)? },
            _ => return Err(Failure::Param("policy is none of LOCUTOR_POLICY_*")),
        };
        let limits = Limits::new()
            .kv_types(keys, values)
            .policy(policy)
            .sequences(number(self.sequences)?)
            .positions(number(self.positions)?)
            .decode_threads(number(self.decode_threads)?)
            .precisions(precisions)
            .context(number(self.context)?)
            .batch(number(self.batch)?)
            .logits(number(self.logits)?)
            .threads(number(self.threads)?)
            .text_bytes(number(self.text_bytes)?)
            .stops(number(self.stops)?, number(self.stop_bytes)?);
        if self.isa.is_null() {
            return Ok(limits);
        }
        let name = self.isa.name()?.to_str().map_err(|_| Status::UTF8)?;
        let table = kernels::by_name(name);
        Ok(limits.kernels(table.ok_or(Failure::Param("isa: this processor or library has no such kernels"))?))
    }
}

sized_struct! {
    /// `locutor_session_plan`.
    SessionPlan {
        context: u32 = 0,
        bytes: u64 = 0,
        kv_bytes: u64 = 0,
        logits_bytes: u64 = 0,
        scratch_bytes: u64 = 0,
    }
}

fn plan(model: &ModelObject, params: &SessionParams) -> Result<SessionPlan, Failure> {
    let plan = params.limits()?.plan_header(model.header()?)?;
    let bytes = Object::<SessionObject>::size(plan.bytes)?;
    Ok(SessionPlan {
        struct_size: 0,
        context: u32::try_from(plan.context).unwrap_or(u32::MAX),
        bytes: bytes as u64,
        kv_bytes: plan.kv_bytes as u64,
        logits_bytes: plan.logits_bytes as u64,
        scratch_bytes: (bytes - plan.kv_bytes - plan.logits_bytes) as u64,
    })
}

/// Builds a session in its object.
fn build(
    model: Use<ModelObject>,
    params: &SessionParams,
    memory: Memory,
) -> Result<Use<SessionObject>, Failure> {
    let limits = params.limits()?;
    let arrays = limits.plan(model.get().model()?)?.bytes;
    let own = matches!(memory, Memory::Own);
    let threads = params.threads.max(params.decode_threads);
    let workers = Workers::new(params.parallel_for, params.parallel_for_user, threads, own)?;
    let state = State { session: None, sampler: Sampler::default(), failure: None };
    let value = SessionObject { state: OneCall::new(state), cancel: CancelFlag::new(), workers, model };
    let (object, arrays) = Object::place(memory, arrays, value)?;
    // The object keeps the model and the workers for as long as it lives, and the session is dropped before them.
    let kept: &'static SessionObject = object.get();
    let mut session = Session::new(kept.model.get().model()?, &limits, &kept.workers, arrays)?;
    session.set_cancel(Some(&kept.cancel));
    kept.call(|state| {
        state.session = Some(session);
        Ok(())
    })?;
    Ok(object)
}

export! {
    fn locutor_session_params_init(params: Out<SessionParams>, size: usize) -> i32 {
        guard_plain(|| Ok(params.init(size)?))
    }

    fn locutor_session_plan_init(plan: Out<SessionPlan>, size: usize) -> i32 {
        guard_plain(|| Ok(plan.init(size)?))
    }

    fn locutor_session_get_plan(
        model: Handle<ModelObject>,
        params: In<SessionParams>,
        out: Out<SessionPlan>,
        error: Out<ErrorInfo>,
    ) -> i32 {
        guard(error, || Ok(out.check_sized()?.fill(plan(model.get()?, &params.read()?)?)?))
    }

    fn locutor_session_create(
        model: Handle<ModelObject>,
        params: In<SessionParams>,
        session: Out<Handle<SessionObject>>,
        error: Out<ErrorInfo>,
    ) -> i32 {
        guard(error, || {
            let (params, session) = (params.read()?, session.check()?);
            session.set(build(model.keep()?, &params, Memory::Own)?.give());
            Ok(())
        })
    }

    fn locutor_session_init(
        model: Handle<ModelObject>,
        params: In<SessionParams>,
        memory: Out<u8>,
        len: usize,
        session: Out<Handle<SessionObject>>,
        error: Out<ErrorInfo>,
    ) -> i32 {
        guard(error, || {
            let (params, session, memory) = (params.read()?, session.check()?, memory.check()?);
            session.set(build(model.keep()?, &params, Memory::Caller(memory, len))?.give());
            Ok(())
        })
    }

    fn locutor_session_destroy(session: Handle<SessionObject>) {
        guard_plain(|| {
            let in_callback = session.get().is_ok_and(|session| session.state.in_call());
            if !in_callback {
                drop(session.take());
            }
            Ok(())
        });
    }

    fn locutor_session_get_error(session: Handle<SessionObject>, error: Out<ErrorInfo>) -> i32 {
        guard_plain(|| {
            let error = error.check_sized()?;
            session.get()?.state.enter(|state| {
                error.report(&state.failure.unwrap_or(Failure::Status(Status::OK)));
            })?;
            Ok(())
        })
    }

    fn locutor_session_isa(session: Handle<SessionObject>, name: Out<In<u8>>, len: Out<usize>) -> i32 {
        guard_plain(|| {
            let (name, len) = (name.check()?, len.check()?);
            session.get()?.with(|session| {
                let isa = session.kernels().name;
                name.set(In::to(isa.as_bytes()));
                len.set(isa.len());
                Ok(())
            })
        })
    }

    fn locutor_session_feed_tokens(session: Handle<SessionObject>, tokens: In<u32>, n: usize) -> i32 {
        guard_plain(|| session.get()?.with(|session| Ok(session.feed_tokens(tokens.slice(n)?)?)))
    }

    fn locutor_session_truncate(session: Handle<SessionObject>, len: usize) -> i32 {
        guard_plain(|| session.get()?.with(|session| Ok(session.truncate(len)?)))
    }

    fn locutor_session_tokens(session: Handle<SessionObject>, tokens: Out<In<u32>>, n: Out<usize>) -> i32 {
        guard_plain(|| {
            let (tokens, n) = (tokens.check()?, n.check()?);
            session.get()?.with(|session| {
                tokens.set(In::to(session.tokens()));
                n.set(session.tokens().len());
                Ok(())
            })
        })
    }

    fn locutor_session_position(session: Handle<SessionObject>, position: Out<usize>) -> i32 {
        guard_plain(|| {
            let position = position.check()?;
            session.get()?.with(|session| {
                position.set(session.position());
                Ok(())
            })
        })
    }

    fn locutor_session_cancel(session: Handle<SessionObject>) -> i32 {
        match session.get() {
            Ok(session) => {
                session.cancel.cancel();
                Status::OK.0
            }
            Err(status) => status.0,
        }
    }

    fn locutor_session_room(session: Handle<SessionObject>, room: Out<usize>) -> i32 {
        guard_plain(|| {
            let room = room.check()?;
            session.get()?.with(|session| {
                room.set(session.room());
                Ok(())
            })
        })
    }
}
