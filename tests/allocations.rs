//! A counting allocator: nothing is allocated once a session exists.

use locutor::model::Model;
use locutor::sample::Sampler;
use locutor::session::{Budget, ContextPolicy, Limits, Saved};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// The thread that allocated first, which runs the tests: what it tells of a test that takes long is not the test's.
static FIRST: AtomicUsize = AtomicUsize::new(0);

/// A number of this thread's own.
fn thread() -> usize {
    thread_local!(static PLACE: u8 = const { 0 });
    PLACE.try_with(|place| std::ptr::from_ref(place) as usize).unwrap_or(usize::MAX)
}

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = FIRST.compare_exchange(0, thread(), Ordering::SeqCst, Ordering::SeqCst);
        if FIRST.load(Ordering::SeqCst) != thread() {
            ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// One test alone: tests of one file share the counter.
#[test]
fn prompts_and_10_000_tokens_allocate_nothing() {
    if FIRST.load(Ordering::SeqCst) == thread() {
        // Nobody runs the test but its own thread.
        FIRST.store(usize::MAX, Ordering::SeqCst);
    }
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    drop(std::hint::black_box(Box::new(1)));
    assert!(ALLOCATIONS.load(Ordering::SeqCst) > before, "allocations are counted");
    let bytes = std::fs::read(format!("{}/examples/model/story.gguf", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let model = Model::from_slice(&bytes).unwrap();
    for (threads, policy) in [(1, ContextPolicy::Shift { keep: 20 }), (2, ContextPolicy::Shift { keep: 4 })] {
        let limits = Limits::new().context(160).sequences(2).threads(threads).policy(policy);
        let mut session = model.session(limits).unwrap();
        session.set_ignore_end(true);
        let mut sampler = Sampler::greedy().temperature(0.8).unwrap().repeat_penalty(1.1).unwrap().seed(3);
        // The pool's threads may still be starting: the first pass waits for them.
        session.feed("Once").unwrap();
        session.advance(Budget::Unlimited).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut state = vec![0; 8 << 20];
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        session.feed(" upon a time there was a girl who had a little dog.").unwrap();
        let mut bytes_shown = 0;
        let (first, clock) = (session.selected(), || 0);
        while session.position() < 5_000 {
            if let Some(piece) = session.next_piece(&mut sampler).unwrap() {
                bytes_shown += piece.len();
            }
            if session.position().is_multiple_of(100) {
                // Now and then a second voice, a step in slices, a state.
                let second = session.fork().unwrap();
                session.select(second).unwrap();
                session.feed(" and then").unwrap();
                session.advance(Budget::Units(50)).unwrap();
                session.advance(Budget::Until { clock: &clock, at: 1 }).unwrap();
                let len = session.save(Saved::Sequence, Some(&sampler), &mut state).unwrap();
                session.restore(&state[..len], Some(&mut sampler)).unwrap();
                session.select(first).unwrap();
                session.close(second).unwrap();
            }
        }
        assert_eq!(ALLOCATIONS.load(Ordering::SeqCst) - before, 0, "with {threads} thread(s)");
        assert!(bytes_shown > 5_000);
    }
}
