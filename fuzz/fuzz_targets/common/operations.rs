//! Everything that can be done with a session, chosen by a fuzzer.

use crate::input::Input;
use locutor::exec::CancelFlag;
use locutor::mem::Digest;
use locutor::sample::Sampler;
use locutor::session::{Budget, ContextPolicy, Error, Limits, Saved, SequenceId, Session};

/// Limits of all kinds, small.
pub fn limits(input: &mut Input<'_>, hard_context: bool) -> Limits {
    use locutor::kernels::KvType;
    let types = KvType::ALL;
    let policy = match input.byte() % 3 {
        0 => ContextPolicy::Stop,
        1 => ContextPolicy::Shift { keep: input.below(24) },
        _ => ContextPolicy::Slide { sinks: input.below(20) },
    };
    let context = if hard_context { 64 } else { 64 + 16 * input.below(5) };
    Limits::new()
        .context(context)
        .policy(policy)
        .kv_types(types[input.below(4)], types[input.below(4)])
        .sequences(1 + input.below(3))
        .positions(16 * (4 + input.below(12)))
        .batch(1 + input.below(20))
        .logits(1 + input.below(3))
        .stops(input.below(4), input.below(12))
        .text_bytes(100)
}

/// Makes length and digest of a state right.
pub fn mend(state: &mut [u8]) {
    let len = state.len();
    if len < 32 {
        return;
    }
    state[16..24].copy_from_slice(&(len as u64).to_le_bytes());
    let mut digest = Digest::new();
    digest.add(&state[..len - 8]);
    state[len - 8..].copy_from_slice(&digest.value().to_le_bytes());
}

pub fn save(session: &mut Session<'_>, what: Saved, sampler: &Sampler<'_>) -> Vec<u8> {
    let mut state = vec![0; session.save_size(what, Some(sampler))];
    assert_eq!(session.save(what, Some(sampler), &mut state), Ok(state.len()));
    state
}

/// What the operations remember.
pub struct World {
    pub ids: Vec<SequenceId>,
    pub states: Vec<Vec<u8>>,
    pub sampler: Sampler<'static>,
}

/// One operation. An error leaves the session as it was.
pub fn operate(session: &mut Session<'_>, cancel: &CancelFlag, world: &mut World, input: &mut Input<'_>) {
    let hash = session.state_hash();
    let sampler = &mut world.sampler;
    let operation = input.byte() % 16;
    let result: Result<(), Error> = match operation {
        0 => {
            let len = input.below(40);
            let text = String::from_utf8_lossy(&input.bytes(len)).into_owned();
            let fed = if len % 2 == 0 { session.feed(&text) } else { session.feed_markup(&text) };
            fed.map(|_| ())
        }
        1 => {
            let len = input.below(70);
            let ids: Vec<u32> = (0..len).map(|n| (n as u32 * 5 + u32::from(input.byte())) % 25).collect();
            session.feed_tokens(&ids)
        }
        2 => session.advance(Budget::Units(input.below(200) as u64)).map(|_| ()),
        3 => session.advance(Budget::Unlimited).map(|_| ()),
        4 => session.next_token(sampler).map(|_| ()),
        5 => session.step(Budget::Units(input.below(200) as u64), sampler).map(|_| ()),
        6 => {
            let position = session.position();
            let back = input.byte();
            let len = if back < 200 {
                position.saturating_sub(back.into())
            } else {
                position * usize::from(back) / 200
            };
            session.truncate(len)
        }
        7 => {
            let id = if input.byte() % 3 == 0 { session.create() } else { session.fork() };
            id.map(|id| world.ids.push(id))
        }
        8 | 9 => {
            let ids = world.ids.len();
            let id = match input.byte() {
                255 => SequenceId::from_bits(input.number()),
                n => world.ids[usize::from(n) % ids],
            };
            let done = if operation == 8 { session.select(id) } else { session.close(id) };
            world.ids.push(session.selected());
            done
        }
        10 => {
            let what = if input.byte() % 2 == 0 { Saved::Sequence } else { Saved::Session };
            let state = save(session, what, sampler);
            world.states.push(state);
            if world.states.len() > 4 {
                world.states.remove(0);
            }
            Ok(())
        }
        11 => match world.states.len() {
            0 => session.restore(&[], None),
            len => {
                let restored = session.restore(&world.states[input.below(len)], Some(sampler));
                world.ids.push(session.selected());
                restored
            }
        },
        12 => {
            cancel.cancel();
            let result = session.advance(Budget::Unlimited).map(|_| ());
            cancel.reset();
            result
        }
        13 => session.set_stops(&["ab", "c", "b b"][..input.below(4)]),
        14 => {
            session.set_max_tokens(Some(input.below(20)).filter(|n| *n > 0));
            session.set_ignore_end(input.byte() % 2 == 0);
            return;
        }
        _ => {
            let ids: Vec<u32> = (0..input.below(20) as u32).map(|n| n % 24).collect();
            let _ = session.log_prob(&ids, |term| assert!(term <= 0.0));
            return;
        }
    };
    if let Err(error) = result {
        assert!(!error.to_string().is_empty());
        assert_eq!(session.state_hash(), hash, "operation {operation} failed with {error}, and left traces");
    }
    assert!(world.ids.len() < 100_000 && session.tokens().len() <= session.position());
}
