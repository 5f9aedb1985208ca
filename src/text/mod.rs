//! Text: vocabularies, pre-tokenizers, tokenizers, streams.
