//! A 64-bit digest of bytes: finds damage and tells things apart. Not for cryptography.

/// Digests bytes, however they are cut.
///
/// Eight bytes at a time, as a little-endian number w: `h = (h ^ w) * P; h = h ^ (h >> 32)`, with the prime P of 64-bit
/// FNV (Fowler, Noll, Vo). Every step can be undone, so two inputs of the same length that differ in one such group of
/// bytes alone always have different digests. Behind the last byte the length follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    hash: u64,
    group: [u8; 8],
    len: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl Digest {
    /// Of no byte.
    pub const fn new() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, group: [0; 8], len: 0 }
    }

    /// Adds bytes.
    #[inline(never)]
    pub fn add(&mut self, mut bytes: &[u8]) {
        while !(self.len.is_multiple_of(8) && bytes.len() >= 8) {
            let Some((byte, rest)) = bytes.split_first() else { return };
            if let Some(place) = self.group.get_mut((self.len % 8) as usize) {
                *place = *byte;
            }
            bytes = rest;
            self.len = self.len.wrapping_add(1);
            if self.len.is_multiple_of(8) {
                self.step(u64::from_le_bytes(self.group));
            }
        }
        let (groups, rest) = bytes.as_chunks();
        for group in groups {
            self.step(u64::from_le_bytes(*group));
        }
        self.len = self.len.wrapping_add(8 * groups.len() as u64);
        if !rest.is_empty() {
            self.add(rest);
        }
    }

    /// The digest of the bytes so far.
    pub fn value(mut self) -> u64 {
        let used = (self.len % 8) as usize;
        if let Some(rest) = self.group.get_mut(used..) {
            rest.fill(0);
        }
        if used > 0 {
            self.step(u64::from_le_bytes(self.group));
        }
        self.step(self.len);
        self.hash
    }

    fn step(&mut self, word: u64) {
        let hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        self.hash = hash ^ (hash >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u64 {
        let mut digest = Digest::new();
        digest.add(bytes);
        digest.value()
    }

    #[test]
    fn the_cut_does_not_matter_and_every_byte_does() {
        let bytes: [u8; 61] = core::array::from_fn(|i| (i * 37) as u8);
        for cut in 0..=61 {
            for second in [cut, (cut + 61) / 2, 61] {
                let mut digest = Digest::new();
                digest.add(&bytes[..cut]);
                digest.add(&bytes[cut..second]);
                digest.add(&bytes[second..]);
                assert_eq!(digest.value(), of(&bytes));
            }
        }
        for at in 0..61 {
            for bit in 0..8 {
                let mut other = bytes;
                other[at] ^= 1 << bit;
                assert_ne!(of(&other), of(&bytes));
            }
            assert_ne!(of(&bytes[..at]), of(&bytes));
        }
        assert_ne!(of(&[0; 7]), of(&[0; 8]));
        // Pinned: saved states hold such numbers.
        let pinned = (12_638_153_114_141_198_995, 7_632_117_818_649_687_943);
        assert_eq!((of(b""), of(b"locutor")), pinned);
    }
}
