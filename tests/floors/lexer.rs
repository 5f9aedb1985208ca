//! Rust source to tokens with line numbers: enough of the language to find paths and keywords, not one bit more.

/// A word, a number, `::`, or one other character; comments and the insides of literals are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'s> {
    /// Counted from 1.
    pub line: usize,
    pub text: &'s str,
}

/// All tokens of `source`.
pub fn tokens(source: &str) -> Vec<Token<'_>> {
    let bytes = source.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(&byte) = bytes.get(at) {
        let len = match byte {
            b'/' if bytes.get(at + 1) == Some(&b'/') => until(bytes, at, b"\n"),
            b'/' if bytes.get(at + 1) == Some(&b'*') => block_comment(&bytes[at..]),
            b'"' => quoted(&bytes[at..], b'"'),
            b'\'' => tick(&source[at..]),
            _ if word(byte) => {
                let len = bytes[at..].iter().take_while(|&&b| word(b)).count();
                match raw_string(&bytes[at..], len) {
                    Some(raw) => raw,
                    None => {
                        found.push(Token { line, text: &source[at..at + len] });
                        len
                    }
                }
            }
            b':' if bytes.get(at + 1) == Some(&b':') => {
                found.push(Token { line, text: "::" });
                2
            }
            _ if byte.is_ascii_whitespace() || !byte.is_ascii() => 1,
            _ => {
                found.push(Token { line, text: &source[at..at + 1] });
                1
            }
        };
        line += bytes[at..(at + len).min(bytes.len())].iter().filter(|&&b| b == b'\n').count();
        at += len;
    }
    found
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Bytes from `at` up to `stop`, or to the end.
fn until(bytes: &[u8], at: usize, stop: &[u8]) -> usize {
    bytes[at..].windows(stop.len()).position(|w| w == stop).unwrap_or(bytes.len() - at)
}

/// Length of a block comment; they nest.
fn block_comment(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a literal that ends at the next `quote` without a backslash before it.
fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// Length of a character literal, or 1 for the tick of a lifetime.
fn tick(source: &str) -> usize {
    let mut chars = source.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => quoted(source.as_bytes(), b'\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// Length of a raw string whose prefix is the word of length `prefix`.
fn raw_string(bytes: &[u8], prefix: usize) -> Option<usize> {
    if !matches!(&bytes[..prefix], b"r" | b"br" | b"cr") {
        return None;
    }
    let hashes = bytes[prefix..].iter().take_while(|&&b| b == b'#').count();
    let start = prefix + hashes;
    if bytes.get(start) != Some(&b'"') {
        return None;
    }
    let mut stop = vec![b'"'];
    stop.extend(std::iter::repeat_n(b'#', hashes));
    Some(start + 1 + until(bytes, start + 1, &stop) + stop.len())
}

/// The tokens without the items marked `#[cfg(test)]` or `#[cfg(all(test, ...))]`.
pub fn without_tests<'s>(tokens: &[Token<'s>]) -> Vec<Token<'s>> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match test_mark(&tokens[at..]) {
            Some(mark) => at += mark + item(&tokens[at + mark..]),
            None => {
                kept.push(tokens[at]);
                at += 1;
            }
        }
    }
    kept
}

/// Number of tokens of an attribute at the front that keeps its item out of a build without tests.
fn test_mark(tokens: &[Token<'_>]) -> Option<usize> {
    const MARKS: [&[&str]; 2] =
        [&["#", "[", "cfg", "(", "test", ")"], &["#", "[", "cfg", "(", "all", "(", "test", ","]];
    let starts = |mark: &&&[&str]| tokens.iter().take(mark.len()).map(|t| &t.text).eq(mark.iter());
    MARKS.iter().find(starts)?;
    Some(tokens.iter().position(|t| t.text == "]")? + 1)
}

/// Number of tokens of the item at the front: up to its `;`, or up to the `}` that closes its first brace.
fn item(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate() {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" => {
                depth -= 1;
                // `use a::{b, c};` closes a brace before its semicolon.
                if depth == 0 && tokens.get(i + 1).is_none_or(|next| next.text != ";") {
                    return i + 1;
                }
            }
            ";" if depth == 0 => return i + 1,
            _ => {}
        }
    }
    tokens.len()
}

#[test]
fn literals_and_comments_are_no_tokens() {
    let source = r##"a // b "c
        /* d /* e */ f */ "g\"h" r#"i"j"# 'k' '\'' b'l' 'm x::y"##;
    let texts: Vec<_> = tokens(source).iter().map(|t| t.text).collect();
    assert_eq!(texts, ["a", "b", "m", "x", "::", "y"]);
    assert_eq!(tokens("a\n\"\n\"\nb").last(), Some(&Token { line: 4, text: "b" }));
}

#[test]
fn test_modules_are_cut_out() {
    let source = "a; #[cfg(test)] use x::{y, z}; b; #[cfg(test)] mod tests { fn f() { g() } } c #[cfg(feature)] d \
                  #[cfg(all(test, any(x, y)))] mod m { } e #[cfg(not(test))] f";
    let all = tokens(source);
    let texts: String = without_tests(&all).iter().map(|t| t.text).collect();
    assert_eq!(texts, "a;b;c#[cfg(feature)]de#[cfg(not(test))]f");
}
