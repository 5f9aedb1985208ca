//! Selection without sorting a vocabulary: binary heaps in the caller's array.
//!
//! Written out rather than taken from `core`, whose sorts hold a panic for comparisons that contradict themselves.

use super::Candidate;

/// An order of candidates: whether the first stands above the second.
pub(super) type Above = fn(&Candidate, &Candidate) -> bool;

/// The better of two stands above: the larger logit, and of equal logits the lower token. No two candidates are equal.
pub(super) fn better(a: &Candidate, b: &Candidate) -> bool {
    a.logit > b.logit || (a.logit == b.logit && a.id < b.id)
}

fn worse(a: &Candidate, b: &Candidate) -> bool {
    better(b, a)
}

/// Lets the entry at `at` sink until nothing below it stands above it.
fn sink(heap: &mut [Candidate], mut at: usize, above: Above) {
    loop {
        let left = 2 * at + 1;
        let child = match (heap.get(left), heap.get(left + 1)) {
            (Some(l), Some(r)) if above(r, l) => left + 1,
            (Some(_), _) => left,
            (None, _) => return,
        };
        let (Some(&parent), Some(&below)) = (heap.get(at), heap.get(child)) else { return };
        if !above(&below, &parent) {
            return;
        }
        set(heap, at, below);
        set(heap, child, parent);
        at = child;
    }
}

fn set(heap: &mut [Candidate], at: usize, value: Candidate) {
    if let Some(place) = heap.get_mut(at) {
        *place = value;
    }
}

fn heapify(heap: &mut [Candidate], above: Above) {
    for at in (0..heap.len() / 2).rev() {
        sink(heap, at, above);
    }
}

/// Moves the `k` best to the front, in no particular order. O(n + k log k log n) on ordinary logits, O(n log k) at
/// worst.
pub(super) fn select(all: &mut [Candidate], k: usize) -> &mut [Candidate] {
    let (kept, rest) = all.split_at_mut(k.min(all.len()));
    heapify(kept, worse);
    for candidate in rest.iter() {
        let Some(last) = kept.first_mut() else { break };
        if better(candidate, last) {
            *last = *candidate;
            sink(kept, 0, worse);
        }
    }
    kept
}

/// Takes candidates from best to worst, as many as asked for: O(n) to begin, O(log n) each.
pub(super) struct Descending<'a> {
    all: &'a mut [Candidate],
    left: usize,
}

impl<'a> Descending<'a> {
    pub(super) fn new(all: &'a mut [Candidate]) -> Self {
        heapify(all, better);
        let left = all.len();
        Self { all, left }
    }

    /// What was taken so far, best first.
    pub(super) fn taken(self) -> &'a mut [Candidate] {
        let taken = self.all.get_mut(self.left..).unwrap_or_default();
        taken.reverse();
        taken
    }
}

impl Iterator for Descending<'_> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        let heap = self.all.get_mut(..self.left)?;
        let (best, last) = (*heap.first()?, *heap.last()?);
        self.left -= 1;
        set(heap, self.left, best);
        let heap = heap.get_mut(..self.left)?;
        set(heap, 0, last);
        sink(heap, 0, better);
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rng;
    use super::*;
    use std::vec::Vec;

    /// Few distinct logits, so that ties are everywhere.
    fn candidates(n: usize, distinct: u64, seed: u64) -> Vec<Candidate> {
        let mut rng = Rng::new(seed);
        (0..n).map(|i| Candidate { id: i as u32, logit: (rng.next_u64() % distinct) as f32 - 3.0 }).collect()
    }

    fn sorted(mut all: Vec<Candidate>) -> Vec<Candidate> {
        all.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id)));
        all
    }

    #[test]
    fn selection_and_order_equal_a_sort() {
        for (n, distinct) in [(0, 1), (1, 1), (2, 1), (7, 3), (100, 5), (1000, 1), (1000, 1 << 40)] {
            let all = candidates(n, distinct, n as u64);
            let expected = sorted(all.clone());
            for k in [0, 1, 2, n / 2, n.saturating_sub(1), n, n + 1] {
                let mut work = all.clone();
                let kept = sorted(select(&mut work, k).to_vec());
                assert_eq!(kept, expected[..k.min(n)], "n {n}, k {k}");

                let mut work = all.clone();
                let mut descending = Descending::new(&mut work);
                let first: Vec<_> = descending.by_ref().take(k).collect();
                assert_eq!(first, expected[..k.min(n)]);
                assert_eq!(descending.taken(), &expected[..k.min(n)]);
            }
        }
    }
}
