//! Pieces of an array that are read side by side.
#![allow(unsafe_code)]

use core::marker::PhantomData;

/// `N` pieces of an array, of which an inner loop reads the same element of each: one check serves all of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abreast<'x, T, const N: usize> {
    starts: [*const T; N],
    /// Elements that every piece has.
    len: usize,
    pieces: PhantomData<[&'x [T]; N]>,
}

impl<'x, T, const N: usize> Abreast<'x, T, N> {
    /// Pieces of any lengths; what is longer than the shortest one is left out.
    #[inline(always)]
    pub fn new(pieces: [&'x [T]; N]) -> Self {
        let (mut starts, mut len) = ([core::ptr::null(); N], if N == 0 { 0 } else { usize::MAX });
        for (start, piece) in starts.iter_mut().zip(pieces) {
            *start = piece.as_ptr();
            len = if piece.len() < len { piece.len() } else { len };
        }
        Self { starts, len, pieces: PhantomData }
    }

    /// The first `N` pieces of `len` elements each; `array` may be longer. All are empty if there are fewer.
    #[inline(always)]
    pub fn cut(array: &'x [T], len: usize) -> Self {
        let enough = len.checked_mul(N).is_some_and(|all| all <= array.len());
        let len = if enough { len } else { 0 };
        let mut starts = [array.as_ptr(); N];
        for (n, start) in starts.iter_mut().enumerate() {
            *start = start.wrapping_add(n * len);
        }
        Self { starts, len, pieces: PhantomData }
    }

    /// Element `index` of each; `None` when one of them has fewer.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Option<[&'x T; N]> {
        if index >= self.len {
            return None;
        }
        // SAFETY: every piece has more than `index` elements and is borrowed for `'x`.
        Some(self.starts.map(|start| unsafe { &*start.add(index) }))
    }

    /// The `P` elements of the first piece from `index` on; `None` when there are fewer.
    #[inline(always)]
    pub fn run<const P: usize>(&self, index: usize) -> Option<&'x [T; P]> {
        let start = *self.starts.first()?;
        if index.checked_add(P)? > self.len {
            return None;
        }
        // SAFETY: the piece has so many elements from `index` on and is borrowed for `'x`.
        Some(unsafe { &*start.add(index).cast() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_piece_counts() {
        let array = [1, 2, 3, 4, 5];
        let two = Abreast::new([&array[..3], &array[3..]]);
        assert_eq!([two.get(0), two.get(1), two.get(2)], [Some([&1, &4]), Some([&2, &5]), None]);
        assert_eq!(Abreast::new([&array[..], &[]]).get(0), None);
        assert_eq!(Abreast::<u8, 0>::new([]).get(0), None);
    }

    #[test]
    fn pieces_follow_one_another() {
        let array = [1, 2, 3, 4, 5];
        let two = Abreast::<_, 2>::cut(&array, 2);
        assert_eq!([two.get(0), two.get(1), two.get(2)], [Some([&1, &3]), Some([&2, &4]), None]);
        assert_eq!(Abreast::<_, 2>::cut(&array, 3).get(0), None);
        assert_eq!(Abreast::<_, 2>::cut(&array, usize::MAX).get(0), None);
    }

    #[test]
    fn a_run_is_inside_the_shortest_piece() {
        let array = [1, 2, 3, 4, 5];
        let two = Abreast::new([&array[1..], &array[..4]]);
        assert_eq!((two.run::<4>(0), two.run(2)), (Some(&[2, 3, 4, 5]), Some(&[4, 5])));
        assert_eq!((two.run::<5>(0), two.run::<2>(3), two.run::<1>(usize::MAX)), (None, None, None));
        assert_eq!(Abreast::<u8, 0>::new([]).run::<1>(0), None);
    }
}
