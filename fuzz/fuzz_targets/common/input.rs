//! A fuzzer's bytes as decisions: an input that ends goes on with zeros.

pub struct Input<'d>(pub &'d [u8]);

impl Input<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn short(&mut self) -> usize {
        usize::from(self.byte()) | usize::from(self.byte()) << 8
    }

    /// A number below `n`, which is at most 65,536.
    pub fn below(&mut self, n: usize) -> usize {
        let number = if n <= 256 { usize::from(self.byte()) } else { self.short() };
        number % n.max(1)
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    /// A number that is often at an edge.
    pub fn number(&mut self) -> u64 {
        let byte = self.byte();
        match byte >> 4 {
            0 => u64::from(byte & 15),
            1 => 1 << (self.byte() & 63),
            2 => (1 << (self.byte() & 63)) - 1,
            3 => !u64::from(byte & 15),
            4 => u64::from(u32::MAX) - u64::from(byte & 15),
            5 => self.short() as u64,
            6 => u64::from_le_bytes(self.bytes(8).try_into().unwrap()),
            _ => u64::from(byte),
        }
    }
}
