//! Blocks that are kept from one input to the next, for speed; and nothing that runs may depend on what they held.

use locutor::mem::aligned::Block;
use std::cell::RefCell;

thread_local! {
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// What `work` returns, which is given `bytes` bytes with anything in them. It may ask for more blocks.
pub fn with<R>(bytes: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
    let kept = BLOCKS.with_borrow_mut(Vec::pop).filter(|block| block.bytes().len() >= bytes);
    let mut block = kept.unwrap_or_else(|| Block::zeroed(bytes.max(1 << 16)).unwrap());
    let result = work(&mut block.bytes_mut()[..bytes]);
    BLOCKS.with_borrow_mut(|blocks| blocks.push(block));
    result
}
