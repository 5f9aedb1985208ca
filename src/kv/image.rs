//! Pages as bytes to be kept: the same on every machine.
//!
//! The image of a page has the bytes of the page in the order of the cache, layer by layer and head by head, numbers
//! little-endian. Positions that hold nothing yet are zeros, so equal contents have equal images.

use super::{KvCache, KvShape, KvType};
use crate::kernels::KV_BLOCK;
use core::num::NonZero;

/// An array of numbers in the part of a head: lines of equal length.
struct Lines {
    /// Lines.
    count: usize,
    /// Numbers of a line.
    numbers: usize,
    /// Bytes of a number.
    size: usize,
    /// Whether a line has numbers of all positions (keys, scales), not those of its own (values).
    across: bool,
    /// Neighbours that belong together: numbers of one position where a line has all of them, else positions of a line.
    together: NonZero<usize>,
}

impl Lines {
    /// The arrays of a head's keys and values in one page; see [`KvBlocks`](crate::kernels::KvBlocks).
    fn of_head(shape: &KvShape) -> [Lines; 4] {
        let (keys, values) = (shape.types.keys, shape.types.values);
        let across = |(count, size), together: NonZero<usize>| {
            let (count, numbers) = (usize::div_ceil(count, together.get()), KV_BLOCK * together.get());
            Lines { count, numbers, size, across: true, together }
        };
        let along = |(numbers, size), together: NonZero<usize>| {
            let (count, numbers) = (KV_BLOCK / together, numbers * together.get());
            Lines { count, numbers, size, across: false, together }
        };
        let [k, k_scales] = numbers(keys, shape.dim_k);
        let [v, v_scales] = numbers(values, shape.dim_v);
        let alone = NonZero::<usize>::MIN;
        [
            across(k, together(keys)),
            across(k_scales, alone),
            along(v, together(values)),
            across(v_scales, alone),
        ]
    }

    fn bytes(&self) -> usize {
        self.count * self.numbers * self.size
    }

    /// Whether number `index` of a line belongs to a position below `valid`.
    fn is_valid(&self, line: usize, index: usize, valid: usize) -> bool {
        let position = if self.across {
            index / self.together
        } else {
            line * self.together.get() + index % self.together
        };
        position < valid
    }
}

/// Neighbours that belong together; see [`Lines`].
fn together(kind: KvType) -> NonZero<usize> {
    let more = usize::from(kind == KvType::I16);
    NonZero::<usize>::MIN.saturating_add(more)
}

/// Numbers of a position, and scales, each with the bytes of one.
fn numbers(kind: KvType, dim: usize) -> [(usize, usize); 2] {
    match kind {
        KvType::F16 => [(dim, 2), (0, 2)],
        KvType::F32 => [(dim, 4), (0, 2)],
        KvType::Q8_0 => [(dim, 1), (dim.div_ceil(crate::tensor::BLOCK), 2)],
        KvType::I16 => [(dim, 2), (1, 4)],
    }
}

impl KvShape {
    /// Bytes of the image of a page.
    pub fn image(&self) -> usize {
        self.layers.saturating_mul(self.page())
    }
}

impl KvCache<'_> {
    /// Gives the image of a page, of which the first `valid` positions hold something, piece by piece to `put`.
    pub fn page_image(&self, page: u32, valid: usize, mut put: impl FnMut(&[u8])) {
        let shape = self.shape();
        for layer in 0..shape.layers {
            for head in 0..shape.heads {
                let mut rest = self.head_of_page(layer, page, head);
                for lines in Lines::of_head(&shape) {
                    let Some((part, behind)) = rest.split_at_checked(lines.bytes()) else { return };
                    rest = behind;
                    if valid >= KV_BLOCK && (cfg!(target_endian = "little") || lines.size == 1) {
                        put(part);
                    } else {
                        image_of_part(&lines, part, valid, &mut put);
                    }
                }
            }
        }
    }

    /// Fills a page with its image, whose pieces `take` gives in order.
    pub fn set_page_image(&mut self, page: u32, mut take: impl FnMut(&mut [u8])) {
        let shape = self.shape();
        for layer in 0..shape.layers {
            for head in 0..shape.heads {
                let mut rest = self.head_of_page_mut(layer, page, head);
                for lines in Lines::of_head(&shape) {
                    let Some((part, behind)) = core::mem::take(&mut rest).split_at_mut_checked(lines.bytes())
                    else {
                        return;
                    };
                    rest = behind;
                    take(part);
                    if cfg!(target_endian = "big") {
                        part.chunks_exact_mut(lines.size.max(1)).for_each(<[u8]>::reverse);
                    }
                }
            }
        }
    }
}

/// The image of one array.
fn image_of_part(lines: &Lines, part: &[u8], valid: usize, put: &mut impl FnMut(&[u8])) {
    for (line, bytes) in part.chunks_exact((lines.numbers * lines.size).max(1)).enumerate() {
        for (index, number) in bytes.chunks_exact(lines.size.max(1)).enumerate() {
            let mut image = [0; 4];
            let Some(image) = image.get_mut(..lines.size) else { return };
            if lines.is_valid(line, index, valid) {
                image.iter_mut().zip(number).for_each(|(place, byte)| *place = *byte);
                if cfg!(target_endian = "big") {
                    image.reverse();
                }
            }
            put(image);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{
        Attention, KvTypes, Span, attend_chunk, attention_partial, attention_scratch, scalar, store_position,
    };
    use crate::mem::aligned::Block;
    use crate::mem::{Arena, Plan};
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    const LAYERS: usize = 2;
    const HEADS: usize = 2;

    /// A cache of two pages, full of rubbish.
    fn with(types: KvTypes, dims: (usize, usize), work: impl FnOnce(&mut KvCache<'_>)) {
        let (dim_k, dim_v) = dims;
        let shape = KvShape { types, layers: LAYERS, heads: HEADS, dim_k, dim_v, pages: 2 };
        let mut plan = Plan::new();
        let slot = KvCache::plan(shape, &mut plan).unwrap();
        let mut memory = Block::zeroed(plan.bytes()).unwrap();
        memory.bytes_mut().fill(0x3a);
        work(&mut KvCache::carve(&mut Arena::new(memory.bytes_mut(), &plan).unwrap(), &slot).unwrap());
    }

    /// What a query sees of the first positions of a page, in every layer and head.
    fn seen(cache: &KvCache<'_>, page: u32, valid: usize) -> Vec<u32> {
        let shape = cache.shape();
        let q: Vec<f32> = (0..shape.dim_k).map(|d| (d as f32 * 0.7).sin()).collect();
        let mut bits = Vec::new();
        for layer in 0..LAYERS {
            for head in 0..HEADS {
                let pages = [page];
                let kv = cache.head(layer, head, &pages);
                let args = Attention { kv, scale: 0.3, softcap: 0.0 };
                let mut partial = vec![0.0; attention_partial(shape.dim_v)];
                let spans = &mut [Span { first_block: 0, seen: 0..valid }];
                let mut scratch = vec![0.0; attention_scratch(1)];
                attend_chunk(scalar(), &args, &mut q.clone(), spans, &mut partial, &mut scratch);
                bits.extend(partial.iter().map(|x| x.to_bits()));
            }
        }
        bits
    }

    #[test]
    fn images_hold_what_is_valid_and_nothing_else() {
        for keys in KvType::ALL {
            for values in KvType::ALL {
                for dims in [(8, 8), (33, 80), (64, 32)] {
                    for valid in [1, 7, 16] {
                        with(KvTypes { keys, values }, dims, |cache| image_round(cache, valid));
                    }
                }
            }
        }
    }

    fn image_round(cache: &mut KvCache<'_>, valid: usize) {
        let shape = cache.shape();
        let number = |i: usize| ((i * 2_654_435_761) % 1000) as f32 * 0.003 - 1.5;
        for layer in 0..LAYERS {
            for head in 0..HEADS {
                for position in 0..valid {
                    let seed = 1 + position * 977 + head * 31 + layer * 7;
                    let k: Vec<f32> = (0..shape.dim_k).map(|d| number(seed + d * 13)).collect();
                    let v: Vec<f32> = (0..shape.dim_v).map(|d| number(seed + d * 17)).collect();
                    let place = cache.head_of_page_mut(layer, 1, head);
                    store_position(scalar(), shape.types, &k, &v, position, place);
                }
            }
        }
        let image = |cache: &KvCache<'_>, page: u32| {
            let mut image = Vec::new();
            cache.page_image(page, valid, |bytes| image.extend_from_slice(bytes));
            image
        };
        let first = image(cache, 1);
        assert_eq!(first.len(), shape.image());
        let mut rest = &first[..];
        cache.set_page_image(0, |part| {
            let (bytes, behind) = rest.split_at(part.len());
            part.copy_from_slice(bytes);
            rest = behind;
        });
        assert!(rest.is_empty());
        assert_eq!(seen(cache, 0, valid), seen(cache, 1, valid), "{:?} {valid}", shape.types);
        assert_eq!(image(cache, 0), first);
        // Numbers are little-endian: the first value of the first key, as the type stores it.
        let one = number(1);
        match shape.types.keys {
            KvType::F32 => assert_eq!(first[..4], one.to_le_bytes()),
            KvType::F16 => assert_eq!(first[..2], half::f16::from_f32(one).to_le_bytes()),
            KvType::Q8_0 | KvType::I16 => {}
        }
    }
}
