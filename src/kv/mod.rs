//! Keys and values of a session: a fixed arena of pages of 16 positions, and who holds which page.
//!
//! Layout: `[page][layer][kv head]{ K, V }` in bytes, K and V of 16 positions each. A lane of K is a position, so that
//! the products of a query with 16 keys need no horizontal sum (see [`KvBlocks`]). All layers of a page lie together, so
//! that a short text touches little memory of a large cache.

mod image;
pub mod pages;

use crate::kernels::KvBlocks;
pub use crate::kernels::{KvType, KvTypes};
use crate::mem::{Arena, MemError, Plan, Slot, copy_part};
use core::ops::Range;
pub use pages::Pages;

/// Shape of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Types of the numbers.
    pub types: KvTypes,
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
    /// Bytes of one head in a page of a layer.
    pub fn head(&self) -> usize {
        let KvTypes { keys, values } = self.types;
        keys.key_bytes(self.dim_k).saturating_add(values.value_bytes(self.dim_v))
    }

    /// Bytes of all heads in a page of a layer.
    pub fn page(&self) -> usize {
        self.heads.saturating_mul(self.head())
    }

    /// Bytes of a page, of all layers.
    pub fn whole_page(&self) -> usize {
        self.layers.saturating_mul(self.page())
    }
}

/// The slot of a cache.
#[derive(Debug, Clone, Copy)]
pub struct KvSlot {
    shape: KvShape,
    bytes: Slot<u8>,
}

impl KvSlot {
    /// Bytes of the cache.
    pub fn bytes(&self) -> usize {
        self.bytes.bytes()
    }
}

/// The numbers of a cache. It knows neither sequences nor lengths: [`Pages`] say who holds what.
#[derive(Debug)]
pub struct KvCache<'m> {
    shape: KvShape,
    bytes: &'m mut [u8],
}

impl<'m> KvCache<'m> {
    /// Plans a cache.
    ///
    /// # Errors
    /// [`MemError::Overflow`].
    pub fn plan(shape: KvShape, plan: &mut Plan) -> Result<KvSlot, MemError> {
        // Sizes that saturate are beyond what a plan can hold.
        let bytes = shape.whole_page().checked_mul(shape.pages).ok_or(MemError::Overflow)?;
        Ok(KvSlot { shape, bytes: plan.array(bytes)? })
    }

    /// Carves a planned cache.
    ///
    /// # Errors
    /// [`MemError`] when the arena is not that of the plan.
    pub fn carve(arena: &mut Arena<'m>, slot: &KvSlot) -> Result<Self, MemError> {
        Ok(Self { shape: slot.shape, bytes: arena.carve(slot.bytes)? })
    }

    /// Its shape.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// All pages of all layers, `[page][whole_page]`, to be written, and where a layer lies in each.
    pub fn layer_mut(&mut self, layer: usize) -> (&mut [u8], Range<usize>) {
        let page = self.shape.page();
        (self.bytes, layer * page..(layer + 1) * page)
    }

    /// The blocks of one head of a layer, by a sequence's table of pages.
    pub fn head<'c>(&'c self, layer: usize, head: usize, pages: &'c [u32]) -> KvBlocks<'c> {
        let KvShape { types, dim_k, dim_v, .. } = self.shape;
        let data = self.bytes.get(self.at(layer, 0, head)..).unwrap_or_default();
        KvBlocks { data, pages, stride: self.shape.whole_page(), types, dim_k, dim_v }
    }

    /// The bytes of one head in a page of a layer.
    fn head_of_page(&self, layer: usize, page: u32, head: usize) -> &[u8] {
        let from = self.at(layer, page, head);
        self.bytes.get(from..).and_then(|rest| rest.get(..self.shape.head())).unwrap_or_default()
    }

    /// The bytes of one head in a page of a layer, to be written.
    fn head_of_page_mut(&mut self, layer: usize, page: u32, head: usize) -> &mut [u8] {
        let (from, len) = (self.at(layer, page, head), self.shape.head());
        self.bytes.get_mut(from..).and_then(|rest| rest.get_mut(..len)).unwrap_or_default()
    }

    fn at(&self, layer: usize, page: u32, head: usize) -> usize {
        let KvShape { layers, .. } = self.shape;
        (page as usize * layers + layer) * self.shape.page() + head * self.shape.head()
    }

    /// Copies page `from` to page `to`, in all layers.
    pub fn copy_page(&mut self, from: u32, to: u32) {
        copy_part(self.bytes, self.shape.whole_page(), from as usize, to as usize);
    }
}
