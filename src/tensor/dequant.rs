//! Reference (de)quantisation.
