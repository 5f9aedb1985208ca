//! Block structs.
