//! Keys and values of a session: a fixed arena of pages of 16 positions, and who holds which page.
//!
//! Layout: `[layer][page][kv head]{ K: [dim_k][16], V: [16][dim_v] }`. A lane of K is a position, so that the
//! products of a query with 16 keys need no horizontal sum (see [`crate::kernels::KvBlocks`]).

pub mod pages;

use crate::kernels::{KV_BLOCK, KvBlocks};
use crate::mem::{Arena, MemError, Plan, Slot};
pub use pages::Pages;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// 16-bit floats, rounded to nearest even.
    #[default]
    F16,
    /// 32-bit floats: twice the memory, nothing rounded.
    F32,
}

/// Shape of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Type of the numbers.
    pub kind: KvType,
    /// Layers.
    pub layers: usize,
    /// KV heads of a layer.
    pub heads: usize,
    /// Values of a key.
    pub dim_k: usize,
    /// Values of a value.
    pub dim_v: usize,
    /// Pages of 16 positions.
    pub pages: usize,
}

impl KvShape {
    /// Elements of one head in a page of a layer.
    pub fn head(&self) -> usize {
        KV_BLOCK * (self.dim_k + self.dim_v)
    }

    /// Elements of all heads in a page of a layer.
    pub fn page(&self) -> usize {
        self.heads * self.head()
    }

    /// Elements of a layer.
    pub fn layer(&self) -> usize {
        self.pages * self.page()
    }

    /// Elements of the whole cache.
    fn elements(&self) -> Result<usize, MemError> {
        let layer = self.page().checked_mul(self.pages);
        layer.and_then(|n| n.checked_mul(self.layers)).ok_or(MemError::Overflow)
    }
}

/// The slot of a cache.
#[derive(Debug, Clone, Copy)]
pub struct KvSlot {
    shape: KvShape,
    f16: Slot<u16>,
    f32: Slot<f32>,
}

impl KvSlot {
    /// Bytes of the cache.
    pub fn bytes(&self) -> usize {
        self.f16.bytes() + self.f32.bytes()
    }
}

/// The numbers of a layer, to be written.
#[derive(Debug)]
pub enum LayerMut<'c> {
    /// f16 bits.
    F16(&'c mut [u16]),
    /// Floats.
    F32(&'c mut [f32]),
}

/// The numbers of a cache. It knows neither sequences nor lengths: [`Pages`] say who holds what.
#[derive(Debug)]
pub struct KvCache<'m> {
    shape: KvShape,
    // One of the two is empty.
    f16: &'m mut [u16],
    f32: &'m mut [f32],
}

impl<'m> KvCache<'m> {
    /// Plans a cache.
    ///
    /// # Errors
    /// [`MemError::Overflow`].
    pub fn plan(shape: KvShape, plan: &mut Plan) -> Result<KvSlot, MemError> {
        let elements = shape.elements()?;
        let (f16, f32) = match shape.kind {
            KvType::F16 => (elements, 0),
            KvType::F32 => (0, elements),
        };
        Ok(KvSlot { shape, f16: plan.array(f16)?, f32: plan.array(f32)? })
    }

    /// Carves a planned cache.
    ///
    /// # Errors
    /// [`MemError`] when the arena is not that of the plan.
    pub fn carve(arena: &mut Arena<'m>, slot: &KvSlot) -> Result<Self, MemError> {
        Ok(Self { shape: slot.shape, f16: arena.carve(slot.f16)?, f32: arena.carve(slot.f32)? })
    }

    /// Its shape.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// All pages of a layer, `[page][kv head]`, to be written.
    pub fn layer_mut(&mut self, layer: usize) -> LayerMut<'_> {
        let len = self.shape.layer();
        match self.shape.kind {
            KvType::F16 => LayerMut::F16(part_mut(self.f16, layer, len)),
            KvType::F32 => LayerMut::F32(part_mut(self.f32, layer, len)),
        }
    }

    /// The blocks of one head of a layer of an f16 cache, by a sequence's table of pages; none of another cache.
    pub fn head_f16<'c>(&'c self, layer: usize, head: usize, pages: &'c [u32]) -> KvBlocks<'c> {
        self.head(self.f16, layer, head, pages)
    }

    /// The blocks of one head of a layer of an f32 cache, by a sequence's table of pages; none of another cache.
    pub fn head_f32<'c>(&'c self, layer: usize, head: usize, pages: &'c [u32]) -> KvBlocks<'c, f32> {
        self.head(self.f32, layer, head, pages)
    }

    fn head<'c, T>(&self, data: &'c [T], layer: usize, head: usize, pages: &'c [u32]) -> KvBlocks<'c, T> {
        let (len, skip) = (self.shape.layer(), head * self.shape.head());
        let data = data.get(layer * len..).and_then(|rest| rest.get(..len)).unwrap_or_default();
        KvBlocks {
            data: data.get(skip..).unwrap_or_default(),
            pages,
            stride: self.shape.page(),
            dim_k: self.shape.dim_k,
            dim_v: self.shape.dim_v,
        }
    }

    /// Copies page `from` to page `to`, in all layers.
    pub fn copy_page(&mut self, from: u32, to: u32) {
        let page = self.shape.page();
        for layer in 0..self.shape.layers {
            match self.layer_mut(layer) {
                LayerMut::F16(cache) => copy_part(cache, page, from, to),
                LayerMut::F32(cache) => copy_part(cache, page, from, to),
            }
        }
    }
}

/// Copies part `from` of an array of parts of `len` elements to part `to`, if both are inside.
fn copy_part<T: Copy>(array: &mut [T], len: usize, from: u32, to: u32) {
    let (from, to) = (from as usize * len, to as usize * len);
    if from.max(to) + len <= array.len() {
        array.copy_within(from..from + len, to);
    }
}

/// Part `index` of an array of parts of `len` elements; empty beyond its end.
fn part_mut<T>(array: &mut [T], index: usize, len: usize) -> &mut [T] {
    array.get_mut(index * len..).and_then(|rest| rest.get_mut(..len)).unwrap_or_default()
}
