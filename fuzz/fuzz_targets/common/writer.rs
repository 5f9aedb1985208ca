//! Writes headers into memory that is kept from one input to the next, as a fuzzer needs many.

/// A GGUF file of version 3 in the making. Pairs come first, then tensors.
#[derive(Default)]
pub struct Writer {
    pub file: Vec<u8>,
}

impl Writer {
    pub fn begin(&mut self) {
        self.file.clear();
        self.file.extend(b"GGUF\x03\0\0\0");
        self.file.extend([0; 16]);
    }

    /// One more of what the preamble counts: tensors at 8, pairs at 16.
    fn count(&mut self, at: usize) {
        let count = u64::from_le_bytes(self.file[at..at + 8].try_into().unwrap()) + 1;
        self.file[at..at + 8].copy_from_slice(&count.to_le_bytes());
    }

    pub fn len(&mut self, len: usize) {
        self.file.extend((len as u64).to_le_bytes());
    }

    pub fn text(&mut self, text: &[u8]) {
        self.len(text.len());
        self.file.extend(text);
    }

    /// A key and the number of its value's type; the value is to follow.
    pub fn pair(&mut self, key: &[&[u8]], kind: u32) {
        self.count(16);
        self.len(key.iter().map(|part| part.len()).sum());
        key.iter().for_each(|part| self.file.extend(*part));
        self.file.extend(kind.to_le_bytes());
    }

    pub fn string(&mut self, key: &[&[u8]], text: &[u8]) {
        self.pair(key, 8);
        self.text(text);
    }

    pub fn u32(&mut self, key: &[&[u8]], number: u32) {
        self.pair(key, 4);
        self.file.extend(number.to_le_bytes());
    }

    pub fn u64(&mut self, key: &[&[u8]], number: u64) {
        self.pair(key, 10);
        self.file.extend(number.to_le_bytes());
    }

    pub fn bool(&mut self, key: &[&[u8]], flag: bool) {
        self.pair(key, 7);
        self.file.push(u8::from(flag));
    }

    /// An array's type and length; the elements are to follow.
    pub fn array(&mut self, key: &[&[u8]], element: u32, len: usize) {
        self.pair(key, 9);
        self.file.extend(element.to_le_bytes());
        self.len(len);
    }

    /// A string whose length is not known yet: the number to give to [`Writer::close`].
    pub fn open(&mut self) -> usize {
        self.len(0);
        self.file.len()
    }

    /// The string that began at `start` is complete; where its bytes are.
    pub fn close(&mut self, start: usize) -> std::ops::Range<usize> {
        let len = self.file.len() - start;
        self.file[start - 8..start].copy_from_slice(&(len as u64).to_le_bytes());
        start..self.file.len()
    }

    pub fn tensor(&mut self, name: &[u8], dims: &[u64], kind: u32, offset: u64) {
        self.count(8);
        self.text(name);
        self.file.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| self.file.extend(dim.to_le_bytes()));
        self.file.extend(kind.to_le_bytes());
        self.file.extend(offset.to_le_bytes());
    }

    /// Fills up to the alignment, where data would begin.
    pub fn end(&mut self) {
        self.file.resize(self.file.len().next_multiple_of(32), 0);
    }
}
