//! Sorting and searching tables of file-derived rows.
//!
//! A heap sort of our own: no scratch memory, `n log n` on every input, and no reachable panic. The standard sorts may
//! panic on an inconsistent order, which would stay in the linked library as dead weight that no proof can remove.

use crate::steps;
use core::cmp::Ordering;

/// Sorts `rows` ascending. Rows that compare equal keep no particular order. Cost: at most `2 n log2 n` comparisons.
pub fn sort_by<T: Copy>(rows: &mut [T], order: impl Fn(&T, &T) -> Ordering) {
    let len = rows.len();
    for root in (0..len / 2).rev() {
        sift_down(rows, root, len, &order);
    }
    for end in (1..len).rev() {
        swap(rows, 0, end);
        sift_down(rows, 0, end, &order);
    }
}

/// Moves the row at `root` down until no child of it within `..end` is greater.
fn sift_down<T: Copy>(rows: &mut [T], mut root: usize, end: usize, order: &impl Fn(&T, &T) -> Ordering) {
    loop {
        let left = root.saturating_mul(2).saturating_add(1);
        let right = left.saturating_add(1);
        if left >= end {
            return;
        }
        let child = if right < end && less(rows, left, right, order) { right } else { left };
        if !less(rows, root, child, order) {
            return;
        }
        swap(rows, root, child);
        root = child;
    }
}

fn less<T>(rows: &[T], a: usize, b: usize, order: &impl Fn(&T, &T) -> Ordering) -> bool {
    steps::count(1);
    match (rows.get(a), rows.get(b)) {
        (Some(a), Some(b)) => order(a, b).is_lt(),
        _ => false,
    }
}

fn swap<T: Copy>(rows: &mut [T], a: usize, b: usize) {
    let (Some(&row_a), Some(&row_b)) = (rows.get(a), rows.get(b)) else { return };
    if let Some(row) = rows.get_mut(a) {
        *row = row_b;
    }
    if let Some(row) = rows.get_mut(b) {
        *row = row_a;
    }
}

/// A row of `rows` that `order` calls equal, where `order(row)` says how the row compares to what is sought and the rows
/// ascend by it.
pub fn find_by<T>(rows: &[T], order: impl Fn(&T) -> Ordering) -> Option<&T> {
    let order = |row: &T| {
        steps::count(1);
        order(row)
    };
    rows.get(rows.binary_search_by(order).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// The promise of the head, counted, for orders that are worst for some sorts.
    #[test]
    fn comparisons_grow_as_n_log_n() {
        for bits in [4u32, 10, 14, 17] {
            let n = 1u32 << bits;
            let orders: [fn(u32, u32) -> u32; 5] =
                [|i, _| i, |i, n| n - i, |_, _| 7, |i, n| i.min(n - i), |i, _| i.wrapping_mul(0x9E37_79B1)];
            for order in orders {
                let mut rows: Vec<u32> = (0..n).map(|i| order(i, n)).collect();
                let count = core::cell::Cell::new(0u64);
                sort_by(&mut rows, |a, b| {
                    count.set(count.get() + 1);
                    a.cmp(b)
                });
                assert!(
                    rows.is_sorted() && count.get() <= 2 * u64::from(n) * u64::from(bits),
                    "{n}: {count:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn sorts_like_the_standard_library(mut rows in proptest::collection::vec(0u16..300, 0..400), sought in 0u16..300) {
            let mut expected: Vec<u16> = rows.clone();
            expected.sort();
            sort_by(&mut rows, |a, b| a.cmp(b));
            prop_assert_eq!(&rows, &expected);
            prop_assert_eq!(find_by(&rows, |row| row.cmp(&sought)).is_some(), expected.contains(&sought));
        }
    }
}
