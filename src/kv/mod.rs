//! Keys and values of a session: a fixed arena of blocks of 16 positions.
//!
//! Layout, in f16: `[layer][block][kv head]{ K: [dim_k][16], V: [16][dim_v] }`. A lane of K is a position, so that the
//! products of a query with 16 keys need no horizontal sum (see [`crate::kernels::KvBlocks`]).

use crate::kernels::{KV_BLOCK, KvBlocks};
use crate::mem::MemError;

/// Shape of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Layers.
    pub layers: usize,
    /// KV heads of a layer.
    pub heads: usize,
    /// Values of a key.
    pub dim_k: usize,
    /// Values of a value.
    pub dim_v: usize,
    /// Blocks of 16 positions.
    pub blocks: usize,
}

impl KvShape {
    /// Elements of one block of one head.
    pub fn head_block(&self) -> usize {
        KV_BLOCK * (self.dim_k + self.dim_v)
    }

    /// Elements of one block of all heads.
    pub fn block(&self) -> usize {
        self.heads * self.head_block()
    }

    /// Elements of a layer.
    pub fn layer(&self) -> usize {
        self.blocks * self.block()
    }

    /// Elements of the whole cache.
    pub fn elements(&self) -> Result<usize, MemError> {
        let block = self.block().checked_mul(self.blocks).and_then(|n| n.checked_mul(self.layers));
        block.ok_or(MemError::Overflow)
    }
}

/// The cache. It knows no lengths: the session says which positions are in use.
#[derive(Debug)]
pub struct KvCache<'m> {
    shape: KvShape,
    data: &'m mut [u16],
}

impl<'m> KvCache<'m> {
    /// A cache over `shape.elements()` values.
    pub fn new(shape: KvShape, data: &'m mut [u16]) -> Self {
        Self { shape, data }
    }

    /// Its shape.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// All blocks of a layer, `[block][kv head]`, to be written.
    pub fn layer_mut(&mut self, layer: usize) -> &mut [u16] {
        let len = self.shape.layer();
        self.data.get_mut(layer * len..).and_then(|rest| rest.get_mut(..len)).unwrap_or_default()
    }

    /// The blocks of one head of a layer.
    pub fn head(&self, layer: usize, head: usize) -> KvBlocks<'_> {
        let (len, skip) = (self.shape.layer(), head * self.shape.head_block());
        let data = self.data.get(layer * len..).and_then(|rest| rest.get(..len)).unwrap_or_default();
        KvBlocks {
            data: data.get(skip..).unwrap_or_default(),
            stride: self.shape.block(),
            dim_k: self.shape.dim_k,
            dim_v: self.shape.dim_v,
        }
    }
}
