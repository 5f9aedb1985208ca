//! Open addressing: small numbers found by the hash of what they stand for.
//!
//! A place holds `number + 1` in its low bits and as much of the hash as fits above, so that most wrong places are
//! passed without looking at what they stand for. Zero is an empty place.

use crate::steps;

/// Probes after which a look-up gives up. At a load of at most two thirds honest keys need less than a hundred; without the
/// bound, texts chosen to collide would make loading quadratic.
const MAX_PROBES: usize = 512;

/// A table to look into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    places: &'a [u32],
    number_mask: u32,
}

/// Why a number was not entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clash {
    /// What it stands for is already there, under this number.
    Same(u32),
    /// No free place within reach.
    TooMany,
}

/// Places of a table for `count` numbers: a power of two, at least one and a half times as many. `None` if there are
/// too many.
pub(super) fn places(count: usize) -> Option<usize> {
    count.checked_add(count / 2)?.checked_add(2)?.checked_next_power_of_two()
}

/// The bits of a place that hold the number, for numbers below `count`.
fn number_mask(count: usize) -> u32 {
    let bits = usize::BITS - count.leading_zeros();
    1u32.checked_shl(bits).map_or(u32::MAX, |bit| bit - 1)
}

impl<'a> Table<'a> {
    /// A table of `count` numbers that [`enter`] filled; see [`places`] for its size.
    pub(super) fn new(places: &'a [u32], count: usize) -> Self {
        Self { places, number_mask: number_mask(count) }
    }

    /// The number under `hash` that `is_it` recognises.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let last = self.places.len().wrapping_sub(1);
        let tag = (hash >> 32) as u32 & !self.number_mask;
        let mut place = hash as usize & last;
        for _ in 0..MAX_PROBES {
            steps::count(1);
            let held = *self.places.get(place)?;
            if held == 0 {
                return None;
            }
            let number = (held & self.number_mask).wrapping_sub(1);
            if held & !self.number_mask == tag && is_it(number) {
                return Some(number);
            }
            place = place.wrapping_add(1) & last;
        }
        None
    }
}

/// Enters `number`, which is below `count`, under `hash`; `is_same` recognises a number that stands for the same.
#[inline]
pub(super) fn enter(
    places: &mut [u32],
    count: usize,
    hash: u64,
    number: u32,
    is_same: impl Fn(u32) -> bool,
) -> Result<(), Clash> {
    let (last, mask) = (places.len().wrapping_sub(1), number_mask(count));
    let tag = (hash >> 32) as u32 & !mask;
    let mut place = hash as usize & last;
    for _ in 0..MAX_PROBES {
        steps::count(1);
        let held = places.get_mut(place).ok_or(Clash::TooMany)?;
        if *held == 0 {
            *held = tag | number.wrapping_add(1);
            return Ok(());
        }
        let other = (*held & mask).wrapping_sub(1);
        if *held & !mask == tag && is_same(other) {
            return Err(Clash::Same(other));
        }
        place = place.wrapping_add(1) & last;
    }
    Err(Clash::TooMany)
}

const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// Hash of some bytes, eight at a time.
#[inline]
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    steps::count(bytes.len());
    let mut hash = (bytes.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash ^ u64::from_le_bytes(*word));
    }
    let tail = rest.iter().rev().fold(0, |tail: u64, byte| tail << 8 | u64::from(*byte));
    finish(mix(hash ^ tail))
}

/// Hash of a pair of numbers.
#[inline]
pub(super) fn hash_pair(left: u32, right: u32) -> u64 {
    finish(mix(u64::from(left) << 32 | u64::from(right)))
}

fn mix(word: u64) -> u64 {
    let product = (word ^ word >> 32).wrapping_mul(FACTOR);
    product ^ product >> 29
}

fn finish(word: u64) -> u64 {
    let product = word.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    product ^ product >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn finds_what_was_entered_and_nothing_else() {
        for count in [0, 1, 2, 3, 100, 4095, 4096, 70_000] {
            let mut memory = vec![0; places(count).unwrap()];
            assert!(memory.len() > count);
            for number in 0..count as u32 {
                let hash = hash_pair(number / 7, number % 7);
                assert_eq!(enter(&mut memory, count, hash, number, |other| other == number), Ok(()));
                let same = enter(&mut memory, count, hash, number, |other| other == number);
                assert_eq!(same, Err(Clash::Same(number)));
            }
            let table = Table::new(&memory, count);
            for number in 0..count as u32 {
                assert_eq!(
                    table.find(hash_pair(number / 7, number % 7), |other| other == number),
                    Some(number)
                );
            }
            assert_eq!(table.find(hash_pair(1 << 30, 1), |_| false), None);
        }
    }

    #[test]
    fn equal_hashes_end_in_an_error() {
        let count = 2000;
        let mut memory = vec![0; places(count).unwrap()];
        let results: std::vec::Vec<_> =
            (0..600).map(|n| enter(&mut memory, count, 5, n, |_| false)).collect();
        assert_eq!(results[MAX_PROBES - 1], Ok(()));
        assert_eq!(results[MAX_PROBES], Err(Clash::TooMany));
        assert_eq!(Table::new(&memory, count).find(5, |n| n == 511), Some(511));
        assert_eq!(Table::new(&memory, count).find(5, |_| false), None);
    }

    #[test]
    fn absurd_counts_have_no_table() {
        assert_eq!(places(usize::MAX), None);
        assert_eq!(number_mask(usize::MAX), u32::MAX);
    }
}
