//! Classes of characters, as far as pre-tokenizers ask for them.

use super::unicode_tables::BOUNDS;

/// What a character is to a pre-tokenizer. The classes exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// None of the others.
    Other,
    /// General category L.
    Letter,
    /// General category N.
    Number,
    /// Property `White_Space`.
    Space,
    /// General category P.
    Punctuation,
    /// General category N in a version of Unicode that is newer than that of the regular expressions.
    NewDigit,
}

/// The class of `character`. Cost: one look-up for ASCII, else a binary search of about eleven steps.
#[inline]
pub(super) fn class_of(character: char) -> Class {
    crate::steps::count(1);
    let code = character as u32;
    if let Some(&class) = ASCII.get(code as usize) {
        return class;
    }
    search(code)
}

const fn class_from(bits: u32) -> Class {
    match bits & 7 {
        1 => Class::Letter,
        2 => Class::Number,
        3 => Class::Space,
        4 => Class::Punctuation,
        5 => Class::NewDigit,
        _ => Class::Other,
    }
}

fn search(code: u32) -> Class {
    let after = BOUNDS.partition_point(|bound| bound >> 3 <= code);
    BOUNDS.get(after.wrapping_sub(1)).map_or(Class::Other, |&bound| class_from(bound))
}

static ASCII: [Class; 128] = ascii();

const fn ascii() -> [Class; 128] {
    let mut table = [Class::Other; 128];
    let mut next = 0;
    let mut class = Class::Other;
    let mut code = 0;
    while code < 128 {
        while next < BOUNDS.len() && bound(next) >> 3 <= code as u32 {
            class = class_from(bound(next));
            next += 1;
        }
        set(&mut table, code, class);
        code += 1;
    }
    table
}

#[allow(clippy::indexing_slicing, reason = "only runs in the compiler")]
const fn bound(index: usize) -> u32 {
    BOUNDS[index]
}

#[allow(clippy::indexing_slicing, reason = "only runs in the compiler")]
const fn set(table: &mut [Class; 128], index: usize, class: Class) {
    table[index] = class;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_characters_have_their_class() {
        for (text, class) in [
            ("azAZªµÀ×ÖßʼˆΩжאب字カ한ⅎ𝒜𠀀\u{1c89}", Class::Letter),
            ("09²³¹¼½٣৪ⅣⅨ①㊿௧𝟘\u{10d40}", Class::Number),
            (
                " \t\n\u{b}\u{c}\r\u{85}\u{a0}\u{1680}\u{2000}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}",
                Class::Space,
            ),
            ("!\"#%&'()*,-./:;?@[\\]_{}¡§«¶·»¿…—「」〜", Class::Punctuation),
            ("$+<=>^`|~\0\u{1f}\u{7f}¢£¤\u{200b}\u{feff}\u{301}\u{200d}😀\u{e000}\u{10ffff}", Class::Other),
            ("\u{11de0}\u{16ff4}", Class::NewDigit),
        ] {
            for character in text.chars().filter(|c| *c != '×') {
                assert_eq!(class_of(character), class, "{character:?} {:x}", character as u32);
            }
        }
        assert_eq!(class_of('×'), Class::Other);
    }

    #[test]
    fn the_ascii_table_equals_the_search_and_bounds_ascend() {
        for code in 0..128 {
            assert_eq!(class_of(code as u8 as char), search(code));
        }
        assert!(BOUNDS.windows(2).all(|pair| pair[0] >> 3 < pair[1] >> 3));
        let spaces = ('\0'..=char::MAX).filter(|c| class_of(*c) == Class::Space);
        assert!(spaces.eq(('\0'..=char::MAX).filter(|c| c.is_whitespace())));
    }
}
