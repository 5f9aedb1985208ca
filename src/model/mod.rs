//! Models as data, and the one forward pass.
