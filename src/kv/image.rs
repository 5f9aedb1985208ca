//! Pages as bytes to be kept: the same on every machine.
//!
//! The image of a page has the bytes of the page in the order of the cache, layer by layer and head by head, numbers
//! little-endian. Positions that hold nothing yet are zeros, so equal contents have equal images.

use super::{KvCache, KvShape, KvType};
use crate::kernels::KV_BLOCK;

/// An array of numbers in the part of a head: lines of equal length.
struct Lines {
    /// Lines.
    count: usize,
    /// Numbers of a line.
    numbers: usize,
    /// Bytes of a number.
    size: usize,
    /// Whether a line has one number a position (keys), not one position (values).
    across: bool,
}

impl Lines {
    /// The arrays of a head's keys and values in one page.
    fn of_head(shape: &KvShape) -> [Lines; 4] {
        let (k, v) = (numbers(shape.types.keys, shape.dim_k), numbers(shape.types.values, shape.dim_v));
        let keys = |(count, size)| Lines { count, numbers: KV_BLOCK, size, across: true };
        let values = |(numbers, size)| Lines { count: KV_BLOCK, numbers, size, across: false };
        let [[k, k_scales], [v, v_scales]] = [k, v];
        [keys(k), keys(k_scales), values(v), values(v_scales)]
    }

    fn bytes(&self) -> usize {
        self.count * self.numbers * self.size
    }

    /// Whether number `index` of a line belongs to a position below `valid`.
    fn is_valid(&self, line: usize, index: usize, valid: usize) -> bool {
        (if self.across { index } else { line }) < valid
    }
}

/// Numbers of a position, and scales, each with the bytes of one.
fn numbers(kind: KvType, dim: usize) -> [(usize, usize); 2] {
    match kind {
        KvType::F16 => [(dim, 2), (0, 2)],
        KvType::F32 => [(dim, 4), (0, 2)],
        KvType::Q8_0 => [(dim, 1), (dim.div_ceil(crate::tensor::BLOCK), 2)],
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
                        part.chunks_exact_mut(lines.size).for_each(<[u8]>::reverse);
                    }
                }
            }
        }
    }
}

/// The image of one array.
fn image_of_part(lines: &Lines, part: &[u8], valid: usize, put: &mut impl FnMut(&[u8])) {
    for (line, bytes) in part.chunks_exact((lines.numbers * lines.size).max(1)).enumerate() {
        for (index, number) in bytes.chunks_exact(lines.size).enumerate() {
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
