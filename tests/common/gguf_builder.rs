//! Builds GGUF files byte by byte, valid and hostile, without the library under test.
//!
//! Include it with `#[path = "common/gguf_builder.rs"] mod gguf_builder;`. [`Gguf::build`] gives the file; every part may be
//! overridden to break it. Alignment is 32 unless a key says otherwise.
#![allow(dead_code)]

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Val {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(Vec<u8>),
    U64(u64),
    I64(i64),
    F64(f64),
    /// Element type, then the elements, which must be of that type.
    Array(u32, Vec<Val>),
    /// Any type number with any bytes behind it.
    Raw(u32, Vec<u8>),
}

impl Val {
    pub fn str(text: &str) -> Val {
        Val::Str(text.into())
    }

    pub fn strings<S: AsRef<[u8]>>(strings: &[S]) -> Val {
        Val::Array(8, strings.iter().map(|s| Val::Str(s.as_ref().to_vec())).collect())
    }

    pub fn u32s(numbers: &[u32]) -> Val {
        Val::Array(4, numbers.iter().map(|&n| Val::U32(n)).collect())
    }

    pub fn i32s(numbers: &[i32]) -> Val {
        Val::Array(5, numbers.iter().map(|&n| Val::I32(n)).collect())
    }

    pub fn f32s(numbers: &[f32]) -> Val {
        Val::Array(6, numbers.iter().map(|&n| Val::F32(n)).collect())
    }

    pub fn bools(flags: &[bool]) -> Val {
        Val::Array(7, flags.iter().map(|&f| Val::Bool(f)).collect())
    }

    pub fn type_id(&self) -> u32 {
        match self {
            Val::U8(_) => 0,
            Val::I8(_) => 1,
            Val::U16(_) => 2,
            Val::I16(_) => 3,
            Val::U32(_) => 4,
            Val::I32(_) => 5,
            Val::F32(_) => 6,
            Val::Bool(_) => 7,
            Val::Str(_) => 8,
            Val::Array(..) => 9,
            Val::U64(_) => 10,
            Val::I64(_) => 11,
            Val::F64(_) => 12,
            Val::Raw(id, _) => *id,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Val::U8(v) => out.push(*v),
            Val::I8(v) => out.extend(v.to_le_bytes()),
            Val::U16(v) => out.extend(v.to_le_bytes()),
            Val::I16(v) => out.extend(v.to_le_bytes()),
            Val::U32(v) => out.extend(v.to_le_bytes()),
            Val::I32(v) => out.extend(v.to_le_bytes()),
            Val::F32(v) => out.extend(v.to_le_bytes()),
            Val::Bool(v) => out.push(u8::from(*v)),
            Val::Str(v) => write_string(out, v),
            Val::U64(v) => out.extend(v.to_le_bytes()),
            Val::I64(v) => out.extend(v.to_le_bytes()),
            Val::F64(v) => out.extend(v.to_le_bytes()),
            Val::Array(element, values) => {
                out.extend(element.to_le_bytes());
                out.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| value.write(out));
            }
            Val::Raw(_, bytes) => out.extend(bytes),
        }
    }
}

/// A tensor: its entry and its data.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub name: Vec<u8>,
    pub dims: Vec<u64>,
    /// GGML's number of the type.
    pub dtype: u32,
    pub data: Vec<u8>,
    /// Overrides the offset in the entry.
    pub offset: Option<u64>,
}

/// Where the parts of a built file stand: absolute offsets.
#[derive(Debug, Clone, Default)]
pub struct Map {
    /// Of each pair: key length, key, value type, value.
    pub kv: Vec<[usize; 4]>,
    /// Of each tensor: name length, name, rank, dimensions, type, offset.
    pub tensors: Vec<[usize; 6]>,
    /// End of the last tensor entry.
    pub infos_end: usize,
    /// Data section.
    pub data: usize,
}

/// A file to be.
#[derive(Debug, Clone)]
pub struct Gguf {
    pub magic: [u8; 4],
    pub version: u32,
    pub kv: Vec<(Vec<u8>, Val)>,
    pub tensors: Vec<Tensor>,
    pub kv_count: Option<u64>,
    pub tensor_count: Option<u64>,
    pub alignment: usize,
}

impl Default for Gguf {
    fn default() -> Self {
        Gguf {
            magic: *b"GGUF",
            version: 3,
            kv: Vec::new(),
            tensors: Vec::new(),
            kv_count: None,
            tensor_count: None,
            alignment: 32,
        }
    }
}

impl Gguf {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn kv(mut self, key: impl AsRef<[u8]>, value: Val) -> Self {
        self.kv.push((key.as_ref().to_vec(), value));
        self
    }

    /// Adds `general.alignment` and lays the data out by it.
    pub fn aligned(mut self, alignment: u32) -> Self {
        self.alignment = alignment as usize;
        self.kv("general.alignment", Val::U32(alignment))
    }

    /// A tensor of any type with its data, which may have any length.
    pub fn tensor(mut self, name: impl AsRef<[u8]>, dims: &[u64], dtype: u32, data: Vec<u8>) -> Self {
        let name = name.as_ref().to_vec();
        self.tensors.push(Tensor { name, dims: dims.to_vec(), dtype, data, offset: None });
        self
    }

    /// An F32 tensor.
    pub fn tensor_f32(self, name: impl AsRef<[u8]>, dims: &[u64], values: &[f32]) -> Self {
        self.tensor(name, dims, 0, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// The offset that the entry of the last tensor gives, whatever its data.
    pub fn at(mut self, offset: u64) -> Self {
        self.tensors.last_mut().unwrap().offset = Some(offset);
        self
    }

    pub fn build(&self) -> Vec<u8> {
        self.build_mapped().0
    }

    /// The file, and where its parts stand.
    pub fn build_mapped(&self) -> (Vec<u8>, Map) {
        let (mut out, mut map) = (Vec::new(), Map::default());
        out.extend(self.magic);
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.kv_count.unwrap_or(self.kv.len() as u64).to_le_bytes());
        for (key, value) in &self.kv {
            let start = out.len();
            write_string(&mut out, key);
            let type_at = out.len();
            out.extend(value.type_id().to_le_bytes());
            map.kv.push([start, start + 8, type_at, out.len()]);
            value.write(&mut out);
        }
        let mut next = 0;
        for tensor in &self.tensors {
            let start = out.len();
            write_string(&mut out, &tensor.name);
            let rank_at = out.len();
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            let dims_at = out.len();
            tensor.dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            let type_at = out.len();
            out.extend(tensor.dtype.to_le_bytes());
            let offset_at = out.len();
            out.extend(tensor.offset.unwrap_or(next as u64).to_le_bytes());
            map.tensors.push([start, start + 8, rank_at, dims_at, type_at, offset_at]);
            next = (next + tensor.data.len()).next_multiple_of(self.alignment);
        }
        map.infos_end = out.len();
        map.data = out.len().next_multiple_of(self.alignment);
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&tensor.data);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        (out, map)
    }
}

fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}
