//! File names as restic writes them: Go's `strconv.Quote` without the outer quotes.
//!
//! A Unix name is any bytes without `/` and NUL, a JSON string is Unicode. restic bridges the two
//! by quoting the name as Go source code would and storing the text between the quotes. JSON then
//! escapes that text a second time, so one backslash in a name is four in a tree.
//!
//! **What stays plain is part of the format.** Go writes a character as it is when it is
//! printable, and that depends on the edition of Unicode which Go was built with: a character
//! that edition does not know is escaped. We follow Unicode 15.0, the
//! edition of every Go from 1.21 on that restic is built with. A difference would cost
//! deduplication against restic's trees for such names and nothing else: [`unquote`] reads either
//! form.

use std::{borrow::Cow, fmt::Write};

use unicode_general_category::{GeneralCategory, get_general_category};

/// Quotes the raw bytes of a name.
///
/// Borrows when nothing needs an escape, which is nearly always.
///
/// # Source
///
/// Go's `strconv.Quote`, as used by restic's `internal/data/node.go`, `Node.MarshalJSON`.
pub fn quote(name: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(name) {
        Ok(text) if text.chars().all(stands_plain) => Cow::Borrowed(text),
        _ => Cow::Owned(quote_with_escapes(name)),
    }
}

/// Reads back the bytes of a quoted name.
///
/// Accepts all that Go's `strconv.Unquote` accepts between double quotes, which is more than
/// [`quote`] writes: octal escapes, upper-case digits, escapes that were not needed. Borrows when
/// there is no escape.
///
/// # Errors
///
/// On an unknown or unfinished escape, on one that names no character or byte, and on a plain
/// double quote or newline.
///
/// # Source
///
/// Go's `strconv.Unquote`, as used by restic's `internal/data/node.go`, `Node.UnmarshalJSON`.
pub fn unquote(text: &str) -> Result<Cow<'_, [u8]>, UnquoteError> {
    let bytes = text.as_bytes();
    let Some(first) = bytes.iter().position(|byte| matches!(byte, b'\\' | b'"' | b'\n')) else {
        return Ok(Cow::Borrowed(bytes));
    };

    let mut name = Vec::with_capacity(bytes.len());
    name.extend_from_slice(&bytes[..first]);
    let mut at = first;
    while at < bytes.len() {
        at += match bytes[at] {
            b'"' => return Err(UnquoteError::BareQuote { at }),
            b'\n' => return Err(UnquoteError::BareNewline { at }),
            b'\\' => unescape(&bytes[at..], &mut name).ok_or(UnquoteError::BadEscape { at })?,
            plain => {
                name.push(plain);
                1
            }
        };
    }
    Ok(Cow::Owned(name))
}

/// Why a text is not a quoted name. `at` counts bytes from the start of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnquoteError {
    /// A backslash is followed by nothing that Go knows.
    #[error("unquote name: bad escape at byte {at}")]
    BadEscape {
        /// Position of the backslash.
        at: usize,
    },
    /// A double quote without a backslash would end the text early.
    #[error("unquote name: double quote without a backslash at byte {at}")]
    BareQuote {
        /// Position of the quote.
        at: usize,
    },
    /// A newline must be written as `\n`.
    #[error("unquote name: newline without an escape at byte {at}")]
    BareNewline {
        /// Position of the newline.
        at: usize,
    },
}

fn quote_with_escapes(name: &[u8]) -> String {
    let mut quoted = String::with_capacity(name.len() + name.len() / 2);
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            push_quoted(&mut quoted, character);
        }
        for byte in chunk.invalid() {
            push_hex(&mut quoted, 'x', 2, u32::from(*byte));
        }
    }
    quoted
}

fn push_quoted(quoted: &mut String, character: char) {
    match character {
        '"' | '\\' => quoted.extend(['\\', character]),
        printable if is_print(printable) => quoted.push(printable),
        '\x07' => quoted.push_str(r"\a"),
        '\x08' => quoted.push_str(r"\b"),
        '\x0c' => quoted.push_str(r"\f"),
        '\n' => quoted.push_str(r"\n"),
        '\r' => quoted.push_str(r"\r"),
        '\t' => quoted.push_str(r"\t"),
        '\x0b' => quoted.push_str(r"\v"),
        '\0'..='\x7f' => push_hex(quoted, 'x', 2, character.into()),
        '\u{80}'..='\u{ffff}' => push_hex(quoted, 'u', 4, character.into()),
        _ => push_hex(quoted, 'U', 8, character.into()),
    }
}

fn push_hex(quoted: &mut String, kind: char, n_digits: usize, value: u32) {
    write!(quoted, "\\{kind}{value:0n_digits$x}").expect("writing to a String cannot fail");
}

fn stands_plain(character: char) -> bool {
    character != '"' && character != '\\' && is_print(character)
}

/// Go's `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_print(character: char) -> bool {
    match character {
        ' '..='~' => true,
        '\0'..='\u{a0}' | '\u{ad}' => false,
        '\u{a1}'..='\u{ff}' => true,
        _ => is_print_category(character) && !is_unassigned_in_unicode_15(character),
    }
}

fn is_print_category(character: char) -> bool {
    !matches!(
        get_general_category(character),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::Surrogate
            | GeneralCategory::PrivateUse
            | GeneralCategory::Unassigned
            | GeneralCategory::SpaceSeparator
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    )
}

fn is_unassigned_in_unicode_15(character: char) -> bool {
    let code = u32::from(character);
    let next = UNASSIGNED_IN_UNICODE_15.partition_point(|&(first, _)| first <= code);
    next > 0 && code <= UNASSIGNED_IN_UNICODE_15[next - 1].1
}

/// The code points (first, last) that Unicode 15.1 and 16.0 added, in ascending order.
///
/// Our tables are of 16.0, Go's of 15.0. Should Go move on, restic's trees move with it.
///
/// # Source
///
/// `DerivedAge.txt` of the Unicode Character Database 16.0: 627 characters of age 15.1 and 5,185
/// of age 16.0. Go's edition: constant `unicode.Version`.
#[rustfmt::skip]
const UNASSIGNED_IN_UNICODE_15: [(u32, u32); 50] = [
    (0x0897, 0x0897), (0x1b4e, 0x1b4f), (0x1b7f, 0x1b7f), (0x1c89, 0x1c8a), (0x2427, 0x2429),
    (0x2ffc, 0x2fff), (0x31e4, 0x31e5), (0x31ef, 0x31ef), (0xa7cb, 0xa7cd), (0xa7da, 0xa7dc),
    (0x105c0, 0x105f3), (0x10d40, 0x10d65), (0x10d69, 0x10d85), (0x10d8e, 0x10d8f),
    (0x10ec2, 0x10ec4), (0x10efc, 0x10efc), (0x11380, 0x11389), (0x1138b, 0x1138b),
    (0x1138e, 0x1138e), (0x11390, 0x113b5), (0x113b7, 0x113c0), (0x113c2, 0x113c2),
    (0x113c5, 0x113c5), (0x113c7, 0x113ca), (0x113cc, 0x113d5), (0x113d7, 0x113d8),
    (0x113e1, 0x113e2), (0x116d0, 0x116e3), (0x11bc0, 0x11be1), (0x11bf0, 0x11bf9),
    (0x11f5a, 0x11f5a), (0x13460, 0x143fa), (0x16100, 0x16139), (0x16d40, 0x16d79),
    (0x18cff, 0x18cff), (0x1cc00, 0x1ccf9), (0x1cd00, 0x1ceb3), (0x1e5d0, 0x1e5fa),
    (0x1e5ff, 0x1e5ff), (0x1f8b2, 0x1f8bb), (0x1f8c0, 0x1f8c1), (0x1fa89, 0x1fa89),
    (0x1fa8f, 0x1fa8f), (0x1fabe, 0x1fabe), (0x1fac6, 0x1fac6), (0x1fadc, 0x1fadc),
    (0x1fadf, 0x1fadf), (0x1fae9, 0x1fae9), (0x1fbcb, 0x1fbef), (0x2ebf0, 0x2ee5d),
];

/// Reads the escape at the start of `bytes`, appends what it stands for and returns its length.
fn unescape(bytes: &[u8], name: &mut Vec<u8>) -> Option<usize> {
    let (byte, len) = match *bytes.get(1)? {
        b'a' => (0x07, 2),
        b'b' => (0x08, 2),
        b'f' => (0x0c, 2),
        b'n' => (b'\n', 2),
        b'r' => (b'\r', 2),
        b't' => (b'\t', 2),
        b'v' => (0x0b, 2),
        b'\\' => (b'\\', 2),
        b'"' => (b'"', 2),
        b'x' => (u8::try_from(digits(bytes, 2..4, 16)?).ok()?, 4),
        b'0'..=b'7' => (u8::try_from(digits(bytes, 1..4, 8)?).ok()?, 4),
        b'u' => return unescape_character(bytes, 2..6, name),
        b'U' => return unescape_character(bytes, 2..10, name),
        _ => return None,
    };
    name.push(byte);
    Some(len)
}

fn unescape_character(
    bytes: &[u8],
    range: std::ops::Range<usize>,
    name: &mut Vec<u8>,
) -> Option<usize> {
    let len = range.end;
    let character = char::from_u32(digits(bytes, range, 16)?)?;
    name.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Some(len)
}

/// Reads the digits in `range`, at most eight hexadecimal ones, so that `u32` holds the number.
fn digits(bytes: &[u8], range: std::ops::Range<usize>, radix: u32) -> Option<u32> {
    bytes
        .get(range)?
        .iter()
        .try_fold(0, |number, &digit| Some(number * radix + char::from(digit).to_digit(radix)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(name: &[u8], expected: &str) {
        assert_eq!(quote(name), expected);
        assert_eq!(unquote(expected).unwrap(), name);
    }

    fn check_unquote(text: &str, expected: &[u8]) {
        assert_eq!(unquote(text).unwrap(), expected, "{text:?}");
    }

    fn check_refused(text: &str, expected: UnquoteError) {
        assert_eq!(unquote(text), Err(expected), "{text:?}");
    }

    #[test]
    fn borrows_plain_names() {
        for name in ["", "plain.txt", "with space", "it's", "Grüße", "日本語", "😀", "x\u{301}"]
        {
            check(name.as_bytes(), name);
            assert!(matches!(quote(name.as_bytes()), Cow::Borrowed(_)));
            assert!(matches!(unquote(name), Ok(Cow::Borrowed(_))));
        }
    }

    #[test]
    fn quotes_as_restic_does() {
        // Each line is what restic 0.14 wrote for a file of that name, after JSON decoding.
        check(b"\x01\x1f", r"\x01\x1f");
        check(b"<>&", "<>&");
        check(b"bad\xff\xc3", r"bad\xff\xc3");
        check(b"bel\x07\x08\x0b", r"bel\a\b\v");
        check(b"del\x7f", r"del\x7f");
        check("feff\u{feff}".as_bytes(), r"feff\ufeff");
        check("fffd\u{fffd}".as_bytes(), "fffd\u{fffd}");
        check("ideosp\u{3000}".as_bytes(), r"ideosp\u3000");
        check("last\u{10ffff}".as_bytes(), r"last\U0010ffff");
        check("ls\u{2028}".as_bytes(), r"ls\u2028");
        check("nbsp\u{a0}".as_bytes(), r"nbsp\u00a0");
        check("pu\u{e000}".as_bytes(), r"pu\ue000");
        check(b"q\"'\\", r#"q\"'\\"#);
        check("shy\u{ad}".as_bytes(), r"shy\u00ad");
        check(b"sur\xed\xa0\x80", r"sur\xed\xa0\x80");
        check("tag\u{e0001}".as_bytes(), r"tag\U000e0001");
    }

    #[test]
    fn quotes_the_examples_of_go_s_documentation() {
        check("\"Fran & Freddie's Diner\t☺\"".as_bytes(), r#"\"Fran & Freddie's Diner\t☺\""#);
        check("日本語\u{fdd0}".as_bytes(), r"日本語\ufdd0");
        check(b"\x07\x08\x0c\r\n\t\x0b", r"\a\b\f\r\n\t\v");
        check("☺\n".as_bytes(), r"☺\n");
        check(b"a\xe2\x82b\xf0\x9f", r"a\xe2\x82b\xf0\x9f");
    }

    #[test]
    fn escapes_what_go_s_unicode_does_not_know() {
        check("\u{2ebf0}".as_bytes(), r"\U0002ebf0"); // since 15.1
        check("\u{2ffc}".as_bytes(), r"\u2ffc"); // since 15.1
        check("\u{1fae9}".as_bytes(), r"\U0001fae9"); // since 16.0
        check("\u{1fae8}".as_bytes(), "\u{1fae8}"); // since 15.0
        check("\u{2ebe0}".as_bytes(), "\u{2ebe0}"); // the character before a young block
        check("\u{323af}".as_bytes(), "\u{323af}"); // since 15.0
    }

    #[test]
    fn knows_as_many_printable_characters_as_unicode_15() {
        let young =
            UNASSIGNED_IN_UNICODE_15.iter().map(|(first, last)| last - first + 1).sum::<u32>();
        assert_eq!(young, 627 + 5_185);
        assert!(UNASSIGNED_IN_UNICODE_15.is_sorted_by(|left, right| left.1 < right.0));
        let all_young_are_assigned_now = UNASSIGNED_IN_UNICODE_15
            .iter()
            .flat_map(|&(first, last)| first..=last)
            .all(|code| char::from_u32(code).is_some_and(is_print_category));
        assert!(all_young_are_assigned_now);
        // Unicode 15.0 has 149,186 graphic and format characters. Not printable among them: the
        // 16 spaces besides ASCII's (Zs), two separators (Zl, Zp), 170 format characters (Cf).
        let printable = ('\0'..=char::MAX).filter(|character| is_print(*character)).count();
        assert_eq!(printable, 149_186 - 16 - 2 - 170);
    }

    #[test]
    fn unquotes_forms_that_quote_never_writes() {
        check_unquote(r"\101\000\377", b"A\x00\xff");
        check_unquote(r"\x41\xFf", b"A\xff");
        check_unquote(r"\u0041\U00000042\u00E9", "ABé".as_bytes());
        check_unquote("tab\tand\rcr\0", b"tab\tand\rcr\0");
        check_unquote("plain\u{a0}é\\n", "plain\u{a0}é\n".as_bytes());
    }

    #[test]
    fn refuses_what_go_refuses() {
        let escapes = [
            r"\",
            r"\'",
            r"\q",
            r"\8",
            r"\0",
            r"\07",
            r"\08x",
            r"\400",
            r"\x",
            r"\x4",
            r"\x4g",
            r"\u123",
            r"\ud800",
            r"\udfff",
            r"\U00110000",
            r"\Uffffffff",
            r"\U0000004",
            r"\+12",
            r"\x+1",
            "\\\n",
            r"\é",
        ];
        for text in escapes {
            check_refused(text, UnquoteError::BadEscape { at: 0 });
        }
        check_refused(r"ab\\\", UnquoteError::BadEscape { at: 4 });
        check_refused("a\"b", UnquoteError::BareQuote { at: 1 });
        check_refused("\\n\n", UnquoteError::BareNewline { at: 2 });
    }

    proptest! {
        #[test]
        fn unquote_undoes_quote(name in any::<Vec<u8>>()) {
            let quoted = quote(&name);
            prop_assert_eq!(unquote(&quoted).unwrap(), name.as_slice());
        }

        #[test]
        fn unquote_undoes_quote_for_text(name in any::<String>()) {
            let quoted = quote(name.as_bytes());
            prop_assert!(quoted.chars().all(is_print));
            prop_assert_eq!(unquote(&quoted).unwrap(), name.as_bytes());
        }

        #[test]
        fn unquote_never_panics(text in r#"(\\[abfnrtvxuU0-7"'\\]?|[0-9a-fA-F]{1,3}|\PC)*"#) {
            if let Ok(name) = unquote(&text) {
                prop_assert!(name.len() <= text.len());
            }
        }
    }
}
