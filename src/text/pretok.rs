//! Pre-tokenizers: where a text is cut before tokens are looked for.
//!
//! Each scanner equals a regular expression from the `tokenizer.json` of the models it is named after, by hand, without
//! backtracking: every character is looked at a bounded number of times. Patterns, in the order of their alternatives:
//!
//! * GPT-2: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
//! * Llama 3: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
//! * Qwen 2: that of Llama 3 with `\p{N}` in place of `\p{N}{1,3}`
//! * SmolLM: every digit stands alone, and what lies between digits is cut by the pattern of GPT-2
//! * default, which llama.cpp uses for files that name none: runs of `[\p{P}$+<=>^~|]` stand alone, what lies between
//!   is cut by the pattern of GPT-2, then numbers are cut from the blank before them, then threes of ASCII digits from
//!   the rest of the number

use super::unicode::{Class, class_of};

/// How a text is cut into pieces that no token crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pretokenizer {
    /// GPT-2.
    Gpt2,
    /// Llama 3: groups of up to three digits.
    Llama3,
    /// Qwen 2: single digits.
    Qwen2,
    /// SmolLM and StarCoder: single digits, then GPT-2.
    SmolLm,
    /// What llama.cpp does for files that do not say.
    Default,
}

impl Pretokenizer {
    /// The pre-tokenizer that a file means by `name` (`tokenizer.ggml.pre`), with whether a piece that is a token as a
    /// whole becomes that token without looking at the merges.
    ///
    /// The names are those that llama.cpp maps to the same expressions.
    pub fn from_name(name: &[u8]) -> Option<(Self, bool)> {
        Some(match name {
            b"default" => (Self::Default, false),
            b"gpt-2" | b"phi-2" | b"mpt" | b"olmo" | b"jais" | b"gigachat" | b"mellum" | b"exaone4"
            | b"trillion" | b"granite-docling" | b"a.x-4.0" => (Self::Gpt2, false),
            b"llama-bpe" | b"llama3" | b"llama-v3" | b"falcon3" | b"falcon-h1" | b"pixtral" | b"lfm2"
            | b"midm-2.0" | b"glm4" | b"glm5" => (Self::Llama3, true),
            b"dbrx" | b"smaug-bpe" | b"chatglm-bpe" => (Self::Llama3, false),
            b"qwen2" | b"deepseek-r1-qwen" | b"megrez" | b"stablelm2" | b"hunyuan" | b"solar-open"
            | b"grok-2" | b"kormo" => (Self::Qwen2, false),
            b"smollm" | b"starcoder" | b"refact" | b"command-r" | b"codeshell" | b"exaone"
            | b"minerva-7b" | b"mellum2" => (Self::SmolLm, false),
            _ => return None,
        })
    }

    /// The pieces of `text`, in order; together they are the whole text.
    pub fn split<'t>(&self, text: &'t str) -> Splits<'t> {
        Splits { pretokenizer: *self, rest: text, segment: 0 }
    }
}

/// Iterator over the pieces of a text; see [`Pretokenizer::split`].
#[derive(Debug, Clone)]
pub struct Splits<'t> {
    pretokenizer: Pretokenizer,
    rest: &'t str,
    /// Bytes of `rest` up to the next digit that stands alone, once that has been looked for.
    segment: usize,
}

impl<'t> Iterator for Splits<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let first = self.rest.chars().next()?;
        let len = match self.pretokenizer {
            Pretokenizer::Gpt2 => gpt2(self.rest),
            Pretokenizer::Llama3 => llama3(self.rest, 3),
            Pretokenizer::Qwen2 => llama3(self.rest, 1),
            Pretokenizer::SmolLm if stands_alone(first) => first.len_utf8(),
            Pretokenizer::SmolLm => self.in_segment(|rest| run(rest, |c| !stands_alone(c)), gpt2),
            Pretokenizer::Default => {
                let is_point = is_point(first);
                self.in_segment(|rest| run(rest, |c| self::is_point(c) == is_point), between_points)
            }
        };
        // Every scanner returns the end of a character behind at least one; if one ever did not, the rest is one piece.
        let (piece, rest) = self.rest.split_at_checked(len).filter(|_| len > 0).unwrap_or((self.rest, ""));
        self.rest = rest;
        Some(piece)
    }
}

impl Splits<'_> {
    /// The length that `first` finds in the segment that the text begins with. `segment` says how long that is; it is asked
    /// once a segment, or a text of one segment would cost its length for every piece.
    fn in_segment(&mut self, segment: impl Fn(&str) -> usize, first: impl Fn(&str) -> usize) -> usize {
        if self.segment == 0 {
            self.segment = segment(self.rest);
        }
        let len = first(self.rest.get(..self.segment).unwrap_or(self.rest));
        self.segment = self.segment.saturating_sub(len);
        len
    }
}

fn stands_alone(character: char) -> bool {
    matches!(class_of(character), Class::Number | Class::NewDigit)
}

fn is_letter(character: char) -> bool {
    class_of(character) == Class::Letter
}

fn is_number(character: char) -> bool {
    class_of(character) == Class::Number
}

fn is_space(character: char) -> bool {
    class_of(character) == Class::Space
}

/// `[^\s\p{L}\p{N}]`
fn is_mark(character: char) -> bool {
    !matches!(class_of(character), Class::Letter | Class::Number | Class::Space)
}

fn is_newline(character: char) -> bool {
    matches!(character, '\r' | '\n')
}

/// `[\p{P}$+<=>^~|]`
fn is_point(character: char) -> bool {
    class_of(character) == Class::Punctuation
        || matches!(character, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|')
}

/// Length of the longest start of `text` whose characters all fulfil `wanted`.
fn run(text: &str, wanted: impl Fn(char) -> bool) -> usize {
    text.find(|character| !wanted(character)).unwrap_or(text.len())
}

/// `text` behind its first `len` bytes.
fn behind(text: &str, len: usize) -> &str {
    text.get(len..).unwrap_or("")
}

fn gpt2(text: &str) -> usize {
    if let Some(len) = contraction(text) {
        return len;
    }
    let (blank, word) = match text.strip_prefix(' ') {
        Some(word) => (1, word),
        None => (0, text),
    };
    match word.chars().next().map(class_of) {
        Some(Class::Letter) => blank + run(word, is_letter),
        Some(Class::Number) => blank + run(word, is_number),
        Some(Class::Space) | None => spaces(text),
        Some(_) => blank + run(word, is_mark),
    }
}

/// The default's pieces of what lies between points.
fn between_points(text: &str) -> usize {
    let mut characters = text.chars();
    let first = characters.next();
    match (first.map(class_of), characters.next().map(class_of)) {
        (Some(Class::Number), _) => digits(text),
        (Some(Class::Space), Some(Class::Number)) => first.map_or(0, char::len_utf8),
        _ => gpt2(text),
    }
}

/// A three of ASCII digits, or the part of a number before the next one.
fn digits(text: &str) -> usize {
    let three = |text: &str| matches!(text.as_bytes(), [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', ..]);
    if three(text) {
        return 3;
    }
    let mut ends = text.char_indices();
    let end = ends.find(|(at, character)| !is_number(*character) || three(behind(text, *at)));
    end.map_or(text.len(), |(at, _)| at)
}

/// `'s|'t|'re|'ve|'m|'ll|'d`
fn contraction(text: &str) -> Option<usize> {
    let letters = text.strip_prefix('\'')?.as_bytes();
    match letters {
        [b's' | b't' | b'm' | b'd', ..] => Some(2),
        [b'r' | b'v', b'e', ..] | [b'l', b'l', ..] => Some(3),
        _ => None,
    }
}

fn llama3(text: &str, digits: usize) -> usize {
    if let Some(len) = contraction_any_case(text) {
        return len;
    }
    let mut characters = text.chars();
    let Some(first) = characters.next() else { return 0 };
    let rest = characters.as_str();
    let class = class_of(first);
    match class {
        Class::Letter => return first.len_utf8() + run(rest, is_letter),
        Class::Number => {
            let numbers = text.chars().take_while(|c| is_number(*c)).take(digits);
            return numbers.map(char::len_utf8).sum();
        }
        _ => {}
    }
    if !is_newline(first) {
        let letters = run(rest, is_letter);
        if letters > 0 {
            return first.len_utf8() + letters;
        }
    }
    if class != Class::Space {
        return marks_and_newlines(text);
    }
    if first == ' ' && rest.chars().next().is_some_and(is_mark) {
        return 1 + marks_and_newlines(rest);
    }
    let space = text.get(..run(text, is_space)).unwrap_or(text);
    match space.rfind(is_newline) {
        Some(last) => last + 1,
        None => spaces(text),
    }
}

/// `[^\s\p{L}\p{N}]+[\r\n]*`
fn marks_and_newlines(text: &str) -> usize {
    let marks = run(text, is_mark);
    marks + run(behind(text, marks), is_newline)
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`. Case folding makes the long s, U+017F, an s as well.
fn contraction_any_case(text: &str) -> Option<usize> {
    let letters = text.strip_prefix('\'')?.as_bytes();
    match letters {
        [b's' | b'S' | b't' | b'T' | b'm' | b'M' | b'd' | b'D', ..] => Some(2),
        [b'r' | b'R' | b'v' | b'V', b'e' | b'E', ..] | [b'l' | b'L', b'l' | b'L', ..] => Some(3),
        [0xC5, 0xBF, ..] => Some(3),
        _ => None,
    }
}

/// `\s+(?!\S)|\s+` where `text` begins with white space: all of a run of white space, but for its last character when
/// something follows and there is more than one.
fn spaces(text: &str) -> usize {
    let len = run(text, is_space);
    if len == text.len() {
        return len;
    }
    let last = text.get(..len).and_then(|space| space.chars().next_back()).map_or(0, char::len_utf8);
    if last < len { len - last } else { len }
}

#[cfg(test)]
mod tests {
    use super::Pretokenizer::{Default, Gpt2, Llama3, Qwen2, SmolLm};
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn pieces(pretokenizer: Pretokenizer, text: &str) -> Vec<&str> {
        pretokenizer.split(text).collect()
    }

    #[test]
    fn gpt2_pieces() {
        let cut = |text| pieces(Pretokenizer::Gpt2, text);
        assert_eq!(cut(""), [""; 0]);
        assert_eq!(cut("Hello world's  end\n\n x"), ["Hello", " world", "'s", " ", " end", "\n\n", " x"]);
        assert_eq!(cut("I'LL you'll 'tis"), ["I", "'", "LL", " you", "'ll", " '", "tis"]);
        assert_eq!(cut("  'sx"), [" ", " '", "sx"]);
        assert_eq!(cut("a\nb\n\nc \n"), ["a", "\n", "b", "\n", "\n", "c", " \n"]);
        assert_eq!(cut("1234 56abc"), ["1234", " 56", "abc"]);
        assert_eq!(cut("\ta\u{a0}\u{a0}b"), ["\t", "a", "\u{a0}", "\u{a0}", "b"]);
        assert_eq!(cut("e\u{301}t 😀!? ..."), ["e", "\u{301}", "t", " 😀!?", " ..."]);
        assert_eq!(
            cut("'re've'm'd't'r'v'l'"),
            ["'re", "'ve", "'m", "'d", "'t", "'", "r", "'", "v", "'", "l", "'"]
        );
        assert_eq!(cut("   "), ["   "]);
    }

    #[test]
    fn llama3_pieces() {
        let cut = |text| pieces(Pretokenizer::Llama3, text);
        assert_eq!(
            cut("I'LL you'Ve \u{17f}'\u{17f}x"),
            ["I", "'LL", " you", "'Ve", " \u{17f}", "'\u{17f}", "x"]
        );
        assert_eq!(cut("12345 6"), ["123", "45", " ", "6"]);
        assert_eq!(cut("\tfoo  bar\n\n  baz"), ["\tfoo", " ", " bar", "\n\n", " ", " baz"]);
        assert_eq!(cut("a \n \n  b"), ["a", " \n \n", " ", " b"]);
        assert_eq!(cut("x!!\r\n\ny ?\nz"), ["x", "!!\r\n\n", "y", " ?\n", "z"]);
        assert_eq!(cut("\nfoo\r\rbar"), ["\n", "foo", "\r\r", "bar"]);
        assert_eq!(cut("(foo) $x 'tis ''s"), ["(foo", ")", " $", "x", " '", "tis", " ''", "s"]);
        assert_eq!(cut(" \u{3000}字 "), [" ", "\u{3000}字", " "]);
        assert_eq!(cut("\u{2028}\u{2028}1"), ["\u{2028}", "\u{2028}", "1"]);
        assert_eq!(cut("٣٤٥٦"), ["٣٤٥", "٦"]);
        assert_eq!(cut("  \t"), ["  \t"]);
    }

    #[test]
    fn qwen2_and_smollm_pieces() {
        assert_eq!(pieces(Pretokenizer::Qwen2, "a 123'S"), ["a", " ", "1", "2", "3", "'S"]);
        let cut = |text| pieces(Pretokenizer::SmolLm, text);
        assert_eq!(cut("abc 12  3x  y"), ["abc", " ", "1", "2", "  ", "3", "x", " ", " y"]);
        assert_eq!(cut("2'll²½"), ["2", "'ll", "²", "½"]);
        assert_eq!(cut("v\u{11de0}\u{11de1}"), ["v", "\u{11de0}", "\u{11de1}"]);
    }

    #[test]
    fn default_pieces() {
        let cut = |text| pieces(Pretokenizer::Default, text);
        assert_eq!(cut("I'll go, $12 34!"), ["I", "'", "ll", " go", ",", " ", "$", "12", " ", "34", "!"]);
        assert_eq!(cut("12345678 x1²34567"), ["123", "456", "78", " x", "1²", "345", "67"]);
        assert_eq!(cut("a  «b» `c`\n\nd"), ["a", "  ", "«", "b", "»", " `", "c", "`", "\n", "\n", "d"]);
        assert_eq!(cut("\n1\t\t2"), ["\n", "1", "\t", "\t", "2"]);
    }

    #[test]
    fn names() {
        assert_eq!(Pretokenizer::from_name(b"llama-bpe"), Some((Pretokenizer::Llama3, true)));
        assert_eq!(Pretokenizer::from_name(b"default"), Some((Pretokenizer::Default, false)));
        assert_eq!(Pretokenizer::from_name(b""), None);
    }

    proptest! {
        #[test]
        fn pieces_are_the_whole_text(text in "(\\PC|[ \\t\\r\\n'sS0-9a]|'ll){0,60}") {
            for pretokenizer in [Gpt2, Llama3, Qwen2, SmolLm, Default] {
                let all = pieces(pretokenizer, &text);
                prop_assert!(all.iter().all(|piece| !piece.is_empty()));
                prop_assert_eq!(all.concat(), text.as_str());
            }
        }
    }
}
