//! Joining neighbours, best pair first, in `O(n log n)` on every input.
//!
//! Both kinds of byte-pair encoding do the same: among all neighbours that may be joined, take the pair with the best
//! rank or score, the leftmost of equals; join it; repeat. The symbols form a doubly linked list, and a tournament tree
//! over their places holds the best pair of each subtree: three places change with a join, and each change climbs one
//! path of the tree. Unlike a queue with outdated entries, its size never depends on the text.

use bytemuck::{Pod, Zeroable};

/// No key: the pair cannot be joined. No symbol: the end of the list.
pub(super) const NONE: u32 = u32::MAX;

/// `u32` words of working memory for each symbol.
pub(super) const WORDS: usize = 5;

/// A symbol, and the pair that it forms with the next one.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Symbol {
    /// What the symbol is; only the [`Joins`] knows.
    pub value: u32,
    /// How good the pair is, smallest first; [`NONE`] when it cannot be joined.
    key: u32,
    next: u32,
    previous: u32,
}

/// Which symbols may be joined.
pub(super) trait Joins {
    /// The key of the pair, or [`NONE`]. `after` is the value of the symbol behind the pair, [`NONE`] at the end.
    fn key(&self, left: u32, right: u32, after: u32) -> u32;

    /// The value of the symbol that the pair becomes.
    fn joined(&self, key: u32, left: u32) -> u32;
}

/// A list of symbols in working memory.
pub(super) struct Symbols<'s> {
    symbols: &'s mut [Symbol],
    tree: &'s mut [u32],
}

impl<'s> Symbols<'s> {
    /// Takes `count` symbols from the front of `scratch`, in a row, with the values of `values`. `None` when `scratch` has less than
    /// `count * WORDS` elements or `count` is not below [`NONE`].
    pub(super) fn new(
        scratch: &'s mut [u32],
        count: usize,
        values: impl Iterator<Item = u32>,
    ) -> Option<Self> {
        let last = u32::try_from(count).ok().filter(|count| *count < NONE)?.wrapping_sub(1);
        let scratch = scratch.get_mut(..count.checked_mul(WORDS)?)?;
        let (symbols, tree) = scratch.split_at_mut_checked(count.checked_mul(WORDS - 1)?)?;
        let symbols: &mut [Symbol] = bytemuck::try_cast_slice_mut(symbols).ok()?;
        for ((place, symbol), value) in (0u32..).zip(symbols.iter_mut()).zip(values) {
            let next = if place == last { NONE } else { place + 1 };
            *symbol = Symbol { value, key: NONE, next, previous: place.wrapping_sub(1) };
        }
        Some(Self { symbols, tree })
    }

    /// Joins until no pair can be joined. Returns the number of tree nodes that were compared, at most
    /// `symbols * (1 + 3 * log2(symbols))` of them.
    pub(super) fn join_all(&mut self, joins: &impl Joins) -> usize {
        if self.symbols.len() < 2 {
            return 0;
        }
        for place in 0..self.symbols.len() {
            let key = self.key_at(joins, place as u32);
            if let Some(symbol) = self.symbols.get_mut(place) {
                symbol.key = key;
            }
        }
        let mut steps = self.tree.len();
        for node in (1..self.tree.len()).rev() {
            let best = self.better(self.winner(2 * node), self.winner(2 * node + 1));
            if let Some(winner) = self.tree.get_mut(node) {
                *winner = best;
            }
        }
        loop {
            let left = self.winner(1);
            let (Some(symbol), Some(right)) = (self.at(left), self.at(left).and_then(|s| self.at(s.next)))
            else {
                return steps;
            };
            if symbol.key == NONE {
                return steps;
            }
            let gone = symbol.next;
            let joined = Symbol {
                value: joins.joined(symbol.key, symbol.value),
                key: NONE,
                next: right.next,
                previous: symbol.previous,
            };
            self.set(left, joined);
            self.set(gone, Symbol { key: NONE, next: NONE, previous: NONE, ..right });
            if let Some(after) = self.at(right.next) {
                self.set(right.next, Symbol { previous: left, ..after });
            }
            steps += self.climb(gone) + self.refresh(joins, left) + self.refresh(joins, symbol.previous);
        }
    }

    /// The values of the symbols that are left, in order, each with that of the one behind it ([`NONE`] at the end).
    pub(super) fn values(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut place = 0;
        core::iter::from_fn(move || {
            let symbol = self.at(place)?;
            place = symbol.next;
            Some((symbol.value, self.at(place).map_or(NONE, |after| after.value)))
        })
    }

    fn at(&self, place: u32) -> Option<Symbol> {
        self.symbols.get(place as usize).copied()
    }

    fn set(&mut self, place: u32, symbol: Symbol) {
        if let Some(old) = self.symbols.get_mut(place as usize) {
            *old = symbol;
        }
    }

    /// The key of the pair that begins at `place`.
    fn key_at(&self, joins: &impl Joins, place: u32) -> u32 {
        let Some(left) = self.at(place) else { return NONE };
        let Some(right) = self.at(left.next) else { return NONE };
        let after = self.at(right.next).map_or(NONE, |after| after.value);
        joins.key(left.value, right.value, after)
    }

    /// Finds the key of the pair at `place` anew.
    fn refresh(&mut self, joins: &impl Joins, place: u32) -> usize {
        let Some(symbol) = self.at(place) else { return 0 };
        let key = self.key_at(joins, place);
        self.set(place, Symbol { key, ..symbol });
        self.climb(place)
    }

    /// Tells the tree that the key at `place` has changed.
    fn climb(&mut self, place: u32) -> usize {
        let mut node = self.symbols.len().saturating_add(place as usize) / 2;
        let mut steps = 0;
        while node > 0 {
            crate::steps::count(1);
            steps += 1;
            let best = self.better(self.winner(2 * node), self.winner(2 * node + 1));
            let Some(winner) = self.tree.get_mut(node) else { return steps };
            // A node whose winner is another place, now as before, hides the change from all above it.
            if *winner == best && best != place {
                return steps;
            }
            *winner = best;
            node /= 2;
        }
        steps
    }

    /// The place with the best pair below `node`; the leaves are the places themselves, behind the inner nodes.
    fn winner(&self, node: usize) -> u32 {
        match self.tree.get(node) {
            Some(winner) => *winner,
            None => node.saturating_sub(self.symbols.len()) as u32,
        }
    }

    /// The place of two with the smaller key, the left one of equals.
    fn better(&self, a: u32, b: u32) -> u32 {
        let key = |place| self.at(place).map_or(NONE, |symbol: Symbol| symbol.key);
        if (key(b), b) < (key(a), a) { b } else { a }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// Joins two numbers when their sum is at most `limit`; the key is any function of both.
    struct Sums {
        limit: u32,
        factor: u32,
    }
    impl Joins for Sums {
        fn key(&self, left: u32, right: u32, _: u32) -> u32 {
            if left + right > self.limit {
                NONE
            } else {
                (left * self.factor + right) % 7 * 256 + left + right
            }
        }
        fn joined(&self, key: u32, left: u32) -> u32 {
            let _ = left;
            key % 256
        }
    }

    fn slowly(mut values: Vec<u32>, joins: &Sums) -> Vec<u32> {
        loop {
            let keys = values.windows(2).map(|pair| joins.key(pair[0], pair[1], NONE));
            let Some((key, place)) = keys.zip(0..).min().filter(|(key, _)| *key != NONE) else {
                return values;
            };
            values[place] = joins.joined(key, values[place]);
            values.remove(place + 1);
        }
    }

    fn quickly(values: &[u32], joins: &Sums) -> (Vec<u32>, usize) {
        let mut scratch = vec![0xAAAA_AAAA; values.len() * WORDS];
        let mut symbols = Symbols::new(&mut scratch, values.len(), values.iter().copied()).unwrap();
        let steps = symbols.join_all(joins);
        (symbols.values().map(|(value, _)| value).collect(), steps)
    }

    proptest! {
        #[test]
        fn equals_the_obvious_algorithm(values in proptest::collection::vec(1u32..30, 1..80), limit in 2u32..200, factor in 0u32..9) {
            let joins = Sums { limit, factor };
            let (joined, steps) = quickly(&values, &joins);
            prop_assert_eq!(joined, slowly(values.clone(), &joins));
            prop_assert!(steps <= values.len() * (1 + 3 * (values.len().ilog2() as usize + 1)));
        }
    }

    #[test]
    fn steps_grow_as_n_log_n() {
        for count in [1usize << 10, 1 << 16, 1 << 20] {
            let (joined, steps) = quickly(&vec![1; count], &Sums { limit: 128, factor: 1 });
            assert_eq!(joined.len(), count / 128);
            assert!(steps <= count * (1 + 3 * (count.ilog2() as usize + 1)), "{count}: {steps}");
        }
    }

    #[test]
    fn too_little_memory_is_no_list() {
        assert!(Symbols::new(&mut [0; 9], 2, 0..2).is_none());
        assert!(Symbols::new(&mut [0; 10], 2, 0..2).is_some());
        assert!(Symbols::new(&mut [], usize::MAX, 0..2).is_none());
    }
}
