//! Copies within an array that cannot be out of bounds, so that nothing checks and panics when they run.

/// Copies part `from` of an array of parts of `len` elements to part `to`. Does nothing if one is not wholly inside.
pub fn copy_part<T: Copy>(array: &mut [T], len: usize, from: usize, to: usize) {
    let (low, high) = (from.min(to).saturating_mul(len), from.max(to).saturating_mul(len));
    let Some((front, back)) = array.split_at_mut_checked(high) else { return };
    let low = front.get_mut(low..).and_then(|rest| rest.get_mut(..len));
    let (Some(low), Some(high)) = (low, back.get_mut(..len)) else { return };
    if from < to { high.copy_from_slice(low) } else { low.copy_from_slice(high) }
}

/// Moves all elements to the front by so many places; those in front are lost, and the last ones stay as they are.
pub fn shift_left<T: Copy>(array: &mut [T], by: usize) {
    if by <= array.len() {
        array.copy_within(by.., 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_copied_whole_or_not_at_all() {
        let copied = |from, to| {
            let mut array = [1, 2, 3, 4, 5, 6, 7];
            copy_part(&mut array, 2, from, to);
            array
        };
        assert_eq!(copied(0, 2), [1, 2, 3, 4, 1, 2, 7]);
        assert_eq!(copied(2, 1), [1, 2, 5, 6, 5, 6, 7]);
        for (from, to) in [(1, 1), (0, 3), (3, 0), (usize::MAX, 0), (0, usize::MAX)] {
            assert_eq!(copied(from, to), [1, 2, 3, 4, 5, 6, 7]);
        }
    }

    #[test]
    fn what_is_shifted_out_is_gone() {
        let shifted = |by| {
            let mut array = [1, 2, 3, 4];
            shift_left(&mut array, by);
            array
        };
        assert_eq!(shifted(1), [2, 3, 4, 4]);
        assert_eq!((shifted(0), shifted(4), shifted(5)), ([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]));
    }
}
