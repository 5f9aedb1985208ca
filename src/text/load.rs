//! Building a tokenizer from a header: every key is checked before anything relies on it.

use super::bpe::{self, Bpe, Merge, Merges};
use super::error::{EntryProblem, TextError};
use super::merge::NONE;
use super::pretok::Pretokenizer;
use super::special::{self, SpecialLengths};
use super::spm::Spm;
use super::table::{self, Clash, Table, hash_bytes, hash_pair};
use super::tokenizer::{MAX_ENDS, Model, Sink, SpecialIds, Tokenizer, byte_token};
use super::vocab::{MAX_SPECIAL_BYTES, MAX_TOKEN_BYTES, TokenKind, Vocab, text_at};
use crate::format::{Array, Counts, Gguf, Name, Value};
use crate::mem::{Arena, MemError, Plan, Slot};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ADD_BLANK: &str = "tokenizer.ggml.add_space_prefix";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const EOM: &str = "tokenizer.ggml.eom_token_id";
const UNK: &str = "tokenizer.ggml.unknown_token_id";
const PAD: &str = "tokenizer.ggml.padding_token_id";
const TEMPLATE: &str = "tokenizer.chat_template";

const CONTROL: u8 = TokenKind::Control as u8;

/// Texts that end a turn, in the order in which they are looked for when the file names none.
const END_OF_TURN: [&str; 8] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "<end_of_utterance>",
];

/// More texts that end what a model says, whatever the file says of them.
const ENDS: [&str; 5] =
    ["<|eom_id|>", "<eos>", "<turn|>", "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>", "[e~["];

/// Where the tables of a [`Tokenizer`] stand in a planned block.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerSlots {
    starts: Slot<u32>,
    kinds: Slot<u8>,
    places: Slot<u32>,
    bytes: Slot<u32>,
    lengths: Slot<u64>,
    merges: Slot<Merge>,
    merge_places: Slot<u32>,
}

impl<'a> Tokenizer<'a> {
    /// Plans the tables: 11 to 17 bytes a token and 18 to 24 a merge. A file without tokens takes a few kilobytes.
    ///
    /// # Errors
    /// [`MemError::Overflow`].
    pub fn plan(counts: &Counts, plan: &mut Plan) -> Result<TokenizerSlots, MemError> {
        let places = |count| table::places(count).ok_or(MemError::Overflow);
        Ok(TokenizerSlots {
            starts: plan.array(counts.tokens.checked_add(1).ok_or(MemError::Overflow)?)?,
            kinds: plan.array(counts.tokens)?,
            places: plan.array(places(counts.tokens)?)?,
            bytes: plan.array(256)?,
            lengths: plan.array(special::LEN)?,
            merges: plan.array(counts.merges)?,
            merge_places: plan.array(places(counts.merges)?)?,
        })
    }

    /// Checks the tokenizer of a file and builds its tables. Texts are borrowed from the header. Cost: linear.
    ///
    /// # Errors
    /// [`TextError::Missing`] for `tokenizer.ggml.model` when the file has no tokenizer; [`TextError::Unsupported`] for
    /// one that is not known; any other [`TextError`] when it is refused.
    pub fn load(gguf: &Gguf<'a>, arena: &mut Arena<'a>, slots: &TokenizerSlots) -> Result<Self, TextError> {
        let missing = |key| TextError::Missing { key };
        let model = gguf.bytes(MODEL)?.ok_or(missing(MODEL))?;
        let is_bpe = match model {
            b"gpt2" => true,
            b"llama" => false,
            other => {
                let (got, offset) = (Name::new(other), gguf.value_offset(MODEL));
                return Err(TextError::Unsupported { key: MODEL, got, offset });
            }
        };
        let pretokenizer = if is_bpe { Some(read_pretokenizer(gguf)?) } else { None };
        let tokens = gguf.array(TOKENS)?.ok_or(missing(TOKENS))?;
        let starts = arena.carve(slots.starts)?;
        let longest = read_texts(&tokens, starts)?;
        let kinds = arena.carve(slots.kinds)?;
        read_kinds(gguf, kinds)?;
        let places = arena.carve(slots.places)?;
        enter_texts(&tokens, starts, places)?;
        let (starts, count) = (&*starts, kinds.len());
        let lookup =
            Vocab { texts: tokens.bytes, starts, kinds: &[], scores: &[], table: Table::new(places, count) };
        let (ids, ends) = read_special(gguf, &lookup, kinds, is_bpe)?;
        let scores = if is_bpe { &[] } else { read_scores(gguf, count)? };
        let vocab = Vocab { kinds, scores, ..lookup };
        let bytes = arena.carve(slots.bytes)?;
        fill_bytes(&tokens, &vocab, is_bpe, bytes)?;
        let lengths = arena.carve(slots.lengths)?;
        fill_lengths(&tokens, &vocab, lengths)?;
        let (list, merge_places) = (arena.carve(slots.merges)?, arena.carve(slots.merge_places)?);
        let model = match pretokenizer {
            Some((pretokenizer, whole_pieces, _)) => {
                let merges = read_merges(gguf, &vocab, list, merge_places)?;
                Model::Bpe { bpe: Bpe { merges, bytes, whole_pieces }, pretokenizer }
            }
            None => Model::Spm(Spm {
                bytes,
                unknown: ids.unk.unwrap_or(NONE),
                longest,
                blank_first: gguf.bool(ADD_BLANK)?.unwrap_or(true),
            }),
        };
        let add_by_default = pretokenizer.is_none_or(|(_, _, add_bos)| add_bos);
        Ok(Tokenizer {
            vocab,
            model,
            lengths: SpecialLengths(lengths),
            longest,
            ids,
            ends,
            add_bos: read_flag(gguf, ADD_BOS, BOS, ids.bos, add_by_default)?,
            add_eos: read_flag(gguf, ADD_EOS, EOS, ids.eos, false)?,
            chat_template: gguf.str(TEMPLATE)?,
        })
    }
}

/// The pre-tokenizer, whether whole pieces may be tokens, and whether a begin of text is added when no key says it.
fn read_pretokenizer(gguf: &Gguf<'_>) -> Result<(Pretokenizer, bool, bool), TextError> {
    let name = gguf.bytes(PRE)?.unwrap_or(b"default");
    let known = Pretokenizer::from_name(name);
    let (got, offset) = (Name::new(name), gguf.value_offset(PRE));
    let (pretokenizer, whole) = known.ok_or(TextError::Unsupported { key: PRE, got, offset })?;
    let is_glm = name.starts_with(b"glm");
    Ok((pretokenizer, whole, whole && !is_glm))
}

/// Absolute offset in the file of a byte of the array's elements.
fn offset_of(array: &Array<'_>, byte: usize) -> u64 {
    array.offset.saturating_add(byte as u64)
}

/// The error about entry `index` of an array of strings, whose bytes begin at `start`.
fn entry(key: &'static str, array: &Array<'_>, index: u64, start: usize, problem: EntryProblem) -> TextError {
    TextError::Entry { key, offset: offset_of(array, start), index, problem }
}

/// Where a text is, which begins at `at`: an empty one where its length is, as behind that the file may end.
fn place_of(text: &[u8], at: usize) -> usize {
    if text.is_empty() { at.saturating_sub(8) } else { at }
}

/// The error about token `id`.
fn token_entry(tokens: &Array<'_>, starts: &[u32], id: u32, problem: EntryProblem) -> TextError {
    let start = starts.get(id as usize).copied().unwrap_or(0);
    entry(TOKENS, tokens, id.into(), start as usize, problem)
}

fn planned(key: &'static str, planned: usize, got: usize) -> Result<(), TextError> {
    let error = TextError::Planned { key, planned: planned as u64, got: got as u64 };
    if planned == got { Ok(()) } else { Err(error) }
}

/// Notes where each text begins; returns the greatest length.
fn read_texts(tokens: &Array<'_>, starts: &mut [u32]) -> Result<usize, TextError> {
    let texts = tokens.strings()?;
    planned(TOKENS, starts.len().saturating_sub(1), tokens.len)?;
    if tokens.is_empty() {
        return matches(TOKENS, tokens, 1, 0).map(|()| 0);
    }
    let (mut at, mut longest) = (8usize, 0);
    let mut places = starts.iter_mut();
    for (index, (text, place)) in (0u64..).zip(texts.zip(&mut places)) {
        let problem = |problem| entry(TOKENS, tokens, index, place_of(text, at), problem);
        if text.is_empty() {
            return Err(problem(EntryProblem::Empty));
        }
        if text.len() > MAX_TOKEN_BYTES {
            let (offset, limit) = (offset_of(tokens, at), MAX_TOKEN_BYTES as u64);
            return Err(TextError::Limit { key: TOKENS, offset, limit, got: text.len() as u64 });
        }
        core::str::from_utf8(text).map_err(|_| problem(EntryProblem::Utf8))?;
        *place = narrow(TOKENS, tokens, at)?;
        longest = longest.max(text.len());
        at = at.saturating_add(text.len()).saturating_add(8);
    }
    if let Some(end) = places.next() {
        *end = narrow(TOKENS, tokens, at)?;
    }
    Ok(longest)
}

/// A place in an array of strings as a 32-bit number; headers are shorter than that.
fn narrow(key: &'static str, array: &Array<'_>, at: usize) -> Result<u32, TextError> {
    let (offset, limit) = (offset_of(array, at), u32::MAX.into());
    u32::try_from(at).map_err(|_| TextError::Limit { key, offset, limit, got: at as u64 })
}

/// Whether an array has as many elements as it must have; their number, 8 bytes, stands before the first one.
fn matches(key: &'static str, array: &Array<'_>, expected: usize, got: usize) -> Result<(), TextError> {
    let offset = array.offset.saturating_sub(8);
    let error = TextError::Mismatch { key, offset, expected: expected as u64, got: got as u64 };
    if expected == got { Ok(()) } else { Err(error) }
}

fn read_kinds(gguf: &Gguf<'_>, kinds: &mut [u8]) -> Result<(), TextError> {
    let Some(array) = gguf.array(TYPES)? else {
        kinds.fill(TokenKind::Normal as u8);
        return Ok(());
    };
    matches(TYPES, &array, kinds.len(), array.len)?;
    for (index, (number, place)) in array.i32s()?.zip(kinds).enumerate() {
        let (offset, problem) = (array.offset_of(index), EntryProblem::Kind);
        let error = TextError::Entry { key: TYPES, offset, index: index as u64, problem };
        *place = TokenKind::from_number(number).ok_or(error)? as u8;
    }
    Ok(())
}

/// The bytes of the scores, one `f32` for each token.
fn read_scores<'a>(gguf: &Gguf<'a>, count: usize) -> Result<&'a [u8], TextError> {
    let array = gguf.array(SCORES)?.ok_or(TextError::Missing { key: SCORES })?;
    matches(SCORES, &array, count, array.len)?;
    for (index, score) in array.f32s()?.enumerate() {
        if !score.is_finite() {
            let (offset, problem) = (array.offset_of(index), EntryProblem::NotFinite);
            return Err(TextError::Entry { key: SCORES, offset, index: index as u64, problem });
        }
    }
    // Wider floats would have to be copied; no file is known to have them.
    matches(SCORES, &array, count.saturating_mul(4), array.bytes.len())?;
    Ok(array.bytes)
}

/// Fills the table from text to token.
fn enter_texts(tokens: &Array<'_>, starts: &[u32], places: &mut [u32]) -> Result<(), TextError> {
    places.fill(0);
    let count = starts.len().saturating_sub(1);
    for id in 0..count as u32 {
        let text = text_at(tokens.bytes, starts, id);
        let is_same = |other| text_at(tokens.bytes, starts, other) == text;
        table::enter(places, count, hash_bytes(text), id, is_same).map_err(|clash| {
            let problem = match clash {
                Clash::Same(first) => EntryProblem::Duplicate { first },
                Clash::TooMany => EntryProblem::Collisions,
            };
            token_entry(tokens, starts, id, problem)
        })?;
    }
    Ok(())
}

/// The id under `key`, checked to be in the vocabulary.
fn read_id(gguf: &Gguf<'_>, key: &'static str, count: usize) -> Result<Option<u32>, TextError> {
    let Some(number) = gguf.get(key).as_ref().and_then(Value::as_integer) else {
        // Reports a value that is no integer.
        return Ok(gguf.u32(key)?);
    };
    let id = u32::try_from(number).ok().filter(|id| (*id as usize) < count);
    let got = i64::try_from(number).unwrap_or(i64::MAX);
    let offset = gguf.value_offset(key).unwrap_or(0);
    Ok(Some(id.ok_or(TextError::TokenId { key, offset, count: count as u64, got })?))
}

/// Reads the special ids, finds the tokens that end a text, and makes those control tokens that look like one.
fn read_special(
    gguf: &Gguf<'_>,
    vocab: &Vocab<'_>,
    kinds: &mut [u8],
    is_bpe: bool,
) -> Result<(SpecialIds, [u32; MAX_ENDS]), TextError> {
    let count = kinds.len();
    let id = |key| read_id(gguf, key, count);
    let by_text = |text: &str| vocab.find(text.as_bytes());
    let mut ends = [NONE; MAX_ENDS];
    let mut sink = Sink { out: &mut ends, len: 0 };
    for text in END_OF_TURN.iter().chain(&ENDS) {
        let Some(id) = by_text(text) else { continue };
        let Some(kind) = kinds.get_mut(id as usize) else { continue };
        if *kind == CONTROL || !is_merged(gguf, is_bpe, text) {
            *kind = CONTROL;
            sink.push(id);
        }
    }
    let is_control = |id: &u32| kinds.get(*id as usize) == Some(&CONTROL);
    // SentencePiece's own numbers hold where a file names none.
    let usual = |id: u32| Some(id).filter(|id| !is_bpe && (*id as usize) < count);
    let end_of_turn = || END_OF_TURN.iter().filter_map(|text| by_text(text)).find(is_control);
    let ids = SpecialIds {
        bos: id(BOS)?.or(usual(1)),
        eos: id(EOS)?.or(usual(2)),
        eot: id(EOT)?.or_else(end_of_turn),
        eom: id(EOM)?.or_else(|| by_text("<|eom_id|>").filter(is_control)),
        unk: id(UNK)?.or(usual(0)),
        pad: id(PAD)?,
    };
    let closing = by_text("</s>").filter(is_control);
    [ids.eos, ids.eot, ids.eom, closing].into_iter().flatten().for_each(|id| sink.push(id));
    Ok((ids, ends))
}

/// Whether merges lead to the token `text`, so that it is an ordinary word and no sign of the end, as `</s>` is for Qwen.
fn is_merged(gguf: &Gguf<'_>, is_bpe: bool, text: &str) -> bool {
    let merges = if is_bpe { gguf.strings(MERGES).ok().flatten() } else { None };
    merges.into_iter().flatten().any(|merge| {
        merge.len() == text.len().saturating_add(1)
            && merge.iter().filter(|byte| **byte != b' ').eq(text.as_bytes())
    })
}

/// A flag that adds a token to every text; only an explicit one needs the token.
fn read_flag(
    gguf: &Gguf<'_>,
    flag: &'static str,
    key: &'static str,
    id: Option<u32>,
    usual: bool,
) -> Result<bool, TextError> {
    match (gguf.bool(flag)?, id) {
        (Some(true), None) => {
            let offset = gguf.value_offset(flag).unwrap_or(0);
            Err(TextError::NoTokenToAdd { flag, offset, key })
        }
        (None, None) => Ok(false),
        (said, _) => Ok(said.unwrap_or(usual)),
    }
}

/// Finds the token of each byte: the letter of the byte, or `<0xAB>`.
fn fill_bytes(
    tokens: &Array<'_>,
    vocab: &Vocab<'_>,
    is_bpe: bool,
    bytes: &mut [u32],
) -> Result<(), TextError> {
    bytes.fill(NONE);
    if is_bpe {
        for (byte, place) in (0..=u8::MAX).zip(bytes.iter_mut()) {
            let mut utf8 = [0; 4];
            let letter = bpe::letter(byte).encode_utf8(&mut utf8);
            *place = vocab.find_text(letter.as_bytes()).unwrap_or(NONE);
        }
        return Ok(());
    }
    for id in 0..vocab.len() as u32 {
        if vocab.kind(id) != Some(TokenKind::Byte) {
            continue;
        }
        let byte = byte_token(vocab.text(id));
        let byte = byte.ok_or_else(|| token_entry(tokens, vocab.starts, id, EntryProblem::Byte))?;
        // `<0xab>` beside `<0xAB>`: the first one counts.
        if let Some(place) = bytes.get_mut(usize::from(byte)).filter(|place| **place == NONE) {
            *place = id;
        }
    }
    Ok(())
}

/// Notes how long the tokens are that are looked for in every text.
fn fill_lengths(tokens: &Array<'_>, vocab: &Vocab<'_>, lengths: &mut [u64]) -> Result<(), TextError> {
    lengths.fill(0);
    for id in 0..vocab.len() as u32 {
        let kind = vocab.kind(id);
        if !matches!(kind, Some(TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown)) {
            continue;
        }
        let text = vocab.text(id);
        if text.len() > MAX_SPECIAL_BYTES {
            let start = vocab.starts.get(id as usize).copied().unwrap_or(0);
            let (offset, limit) = (offset_of(tokens, start as usize), MAX_SPECIAL_BYTES as u64);
            return Err(TextError::Limit { key: TOKENS, offset, limit, got: text.len() as u64 });
        }
        special::enter(lengths, text);
    }
    Ok(())
}

/// Reads the merges into a list by rank and a table from pair to rank.
fn read_merges<'a>(
    gguf: &Gguf<'_>,
    vocab: &Vocab<'_>,
    list: &'a mut [Merge],
    places: &'a mut [u32],
) -> Result<Merges<'a>, TextError> {
    let array = gguf.array(MERGES)?.ok_or(TextError::Missing { key: MERGES })?;
    let strings = array.strings()?;
    planned(MERGES, list.len(), array.len)?;
    places.fill(0);
    let (count, mut at) = (list.len(), 8usize);
    // Tokens mostly stand in the order of the merges that make them.
    let (mut both, mut likely) = ([0; MAX_TOKEN_BYTES], 0u32);
    for (rank, text) in (0u32..).zip(strings) {
        let problem = |problem| entry(MERGES, &array, rank.into(), place_of(text, at), problem);
        let merge = read_merge(vocab, text, likely, &mut both).map_err(problem)?;
        likely = merge.joined.wrapping_add(1);
        let known = &*list;
        let is_same = |other: u32| known.get(other as usize).is_some_and(|m| same_pair(m, &merge));
        let hash = hash_pair(merge.left, merge.right);
        table::enter(places, count, hash, rank, is_same).map_err(|clash| match clash {
            Clash::Same(first) => problem(EntryProblem::MergeTwice { first }),
            Clash::TooMany => problem(EntryProblem::Collisions),
        })?;
        if let Some(place) = list.get_mut(rank as usize) {
            *place = merge;
        }
        at = at.saturating_add(text.len()).saturating_add(8);
    }
    Ok(Merges { list, table: Table::new(places, count) })
}

fn same_pair(a: &Merge, b: &Merge) -> bool {
    (a.left, a.right) == (b.left, b.right)
}

/// Looks up the parts of a merge, and their whole, which is put together in `both` unless it is the text of `likely`.
fn read_merge(vocab: &Vocab<'_>, text: &[u8], likely: u32, both: &mut [u8]) -> Result<Merge, EntryProblem> {
    let mut parts = text.split(|byte| *byte == b' ');
    let (Some(left), Some(right), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(EntryProblem::MergeForm);
    };
    if left.is_empty() || right.is_empty() {
        return Err(EntryProblem::MergeForm);
    }
    let find = |text: &[u8]| vocab.find_text(text).ok_or(EntryProblem::MergeToken);
    let (left_id, right_id) = (find(left)?, find(right)?);
    let is_likely = vocab.text(likely).strip_prefix(left).is_some_and(|rest| rest == right);
    if is_likely && vocab.kind(likely).is_some_and(TokenKind::is_text) {
        return Ok(Merge { left: left_id, right: right_id, joined: likely });
    }
    let len = left.len().saturating_add(right.len());
    let joined = both.get_mut(..len).ok_or(EntryProblem::MergeToken)?;
    for (place, byte) in joined.iter_mut().zip(left.iter().chain(right)) {
        *place = *byte;
    }
    Ok(Merge { left: left_id, right: right_id, joined: find(joined)? })
}
