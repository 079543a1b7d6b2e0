//! Writes JSON exactly as Go's `encoding/json` does: compact, and safe to embed in HTML.
//!
//! `serde_json` agrees with Go on everything we store except five characters that Go escapes and
//! `serde_json` writes as they are: `<`, `>`, `&`, U+2028 and U+2029. The control characters come
//! out alike in both (`\b \f \n \r \t` short, the others as `\u00xx` in lower case, DEL plain),
//! as Go has done since 1.22.
//!
//! A Go string may hold any bytes. Where Rust cannot say the same with a `str` (a user's name,
//! the target of a symbolic link), [`RawText`] writes the bytes as Go would.
//!
//! Two things stay with the caller. Go sorts the keys of a map, so use a `BTreeMap`. Floating
//! point numbers are written by `serde_json`'s rules; no restic format contains one.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Serialises `value` into a new byte vector.
///
/// There is no newline at the end; restic's trees add one of their own.
///
/// # Errors
///
/// When the `Serialize` implementation refuses the value, or a map has keys that are not strings.
///
/// # Source
///
/// Go's `encoding/json`, function `Marshal`, in which HTML escaping is on.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(INITIAL_CAPACITY_BYTES);
    to_writer(&mut bytes, value)?;
    Ok(bytes)
}

/// Serialises `value` into `writer`.
///
/// The writer sees many small pieces; wrap a file or a socket in a buffer.
///
/// # Errors
///
/// As [`to_vec`], and when `writer` fails.
pub fn to_writer<W: Write, T: Serialize + ?Sized>(writer: W, value: &T) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(writer, GoFormatter))
}

/// Text from the operating system that need not be UTF-8, written as Go writes such a string: each
/// byte that belongs to no character becomes the six characters `\ufffd`.
///
/// The bytes are lost on the way, as they are in restic. A `str` would not do: made from the same
/// bytes it holds the character U+FFFD itself, which JSON writes plainly, and the two differ.
///
/// Only [`to_vec`] and [`to_writer`] write this as a string; other serialisers see bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawText<'a>(pub &'a [u8]);

impl Serialize for RawText<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Room for one tree node or a snapshot without growing; larger documents double from here.
const INITIAL_CAPACITY_BYTES: usize = 512;

/// `serde_json`'s compact form with Go's extra escapes.
struct GoFormatter;

impl Formatter for GoFormatter {
    /// Receives the parts of a string that JSON itself lets stand, and escapes what Go does not.
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_escaped(writer, fragment.as_bytes())
    }

    /// Receives the content of a [`RawText`].
    fn write_byte_array<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        value: &[u8],
    ) -> io::Result<()> {
        self.begin_string(writer)?;
        for chunk in value.utf8_chunks() {
            write_escaped(writer, chunk.valid().as_bytes())?;
            for _ in chunk.invalid() {
                writer.write_all(br"\ufffd")?;
            }
        }
        self.end_string(writer)
    }
}

/// Writes UTF-8 `text` with everything escaped that may not stand in Go's JSON strings.
fn write_escaped<W: Write + ?Sized>(writer: &mut W, text: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while let Some(escape) = next_escape(text, written) {
        writer.write_all(&text[written..escape.at])?;
        writer.write_all(escape.text)?;
        written = escape.at + escape.len;
    }
    writer.write_all(&text[written..])
}

/// A character that needs an escape: where it is, its length in bytes, and what to write instead.
struct Escape {
    at: usize,
    len: usize,
    text: &'static [u8],
}

/// Finds the first character at or after `from` that needs an escape.
fn next_escape(bytes: &[u8], from: usize) -> Option<Escape> {
    bytes[from..].iter().enumerate().find_map(|(offset, &byte)| {
        let at = from + offset;
        let (len, text): (_, &[u8]) = match byte {
            0x00..=0x1f => (1, CONTROL_ESCAPES[usize::from(byte)]),
            b'"' => (1, br#"\""#),
            b'\\' => (1, br"\\"),
            b'<' => (1, br"\u003c"),
            b'>' => (1, br"\u003e"),
            b'&' => (1, br"\u0026"),
            0xe2 => match bytes.get(at + 1..at + 3) {
                Some([0x80, 0xa8]) => (3, br"\u2028"),
                Some([0x80, 0xa9]) => (3, br"\u2029"),
                _ => return None,
            },
            _ => return None,
        };
        Some(Escape { at, len, text })
    })
}

/// How Go (from 1.22) writes the bytes below 0x20.
#[rustfmt::skip]
const CONTROL_ESCAPES: [&[u8]; 32] = [
    br"\u0000", br"\u0001", br"\u0002", br"\u0003", br"\u0004", br"\u0005", br"\u0006", br"\u0007",
    br"\b",     br"\t",     br"\n",     br"\u000b", br"\f",     br"\r",     br"\u000e", br"\u000f",
    br"\u0010", br"\u0011", br"\u0012", br"\u0013", br"\u0014", br"\u0015", br"\u0016", br"\u0017",
    br"\u0018", br"\u0019", br"\u001a", br"\u001b", br"\u001c", br"\u001d", br"\u001e", br"\u001f",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn check<T: Serialize + ?Sized>(value: &T, expected: &str) {
        assert_eq!(String::from_utf8(to_vec(value).unwrap()).unwrap(), expected);
    }

    #[test]
    fn escapes_what_could_end_a_script_element() {
        check("<a href=\"x\">&amp;</a>", r#""\u003ca href=\"x\"\u003e\u0026amp;\u003c/a\u003e""#);
        check("<", r#""\u003c""#);
        check("&&", r#""\u0026\u0026""#);
    }

    #[test]
    fn escapes_the_line_separators_but_not_their_neighbours() {
        check("a\u{2028}b\u{2029}", r#""a\u2028b\u2029""#);
        check("\u{2027}\u{202a}\u{2068}€", "\"\u{2027}\u{202a}\u{2068}€\"");
    }

    #[test]
    fn writes_control_characters_as_go_1_22() {
        check(
            "\u{0}\u{7}\u{8}\t\n\u{b}\u{c}\r\u{1b}\u{1f}\u{7f}",
            "\"\\u0000\\u0007\\b\\t\\n\\u000b\\f\\r\\u001b\\u001f\u{7f}\"",
        );
    }

    #[test]
    fn leaves_other_text_as_it_is() {
        check("", r#""""#);
        check("sl/ash 'quote' Grüße 日本 😀 \u{fffd}", "\"sl/ash 'quote' Grüße 日本 😀 \u{fffd}\"");
        check("back\\slash", r#""back\\slash""#);
    }

    #[test]
    fn escapes_keys_and_is_compact() {
        let map = BTreeMap::from([("b&", vec![1, 2]), ("a", vec![])]);
        check(&map, r#"{"a":[],"b\u0026":[1,2]}"#);
        check(&(None::<u8>, true, "x", u64::MAX), r#"[null,true,"x",18446744073709551615]"#);
    }

    #[test]
    fn replaces_bytes_that_are_no_text() {
        // What restic 0.14 wrote as the target of a symbolic link, but for the last two
        // characters, which Go spelt \u0008 and \u000c before 1.22.
        check(&RawText(b"tgt\xff<\x7f\x08\x0c"), "\"tgt\\ufffd\\u003c\u{7f}\\b\\f\"");
        check(&RawText(b"\xe2\x82\xed\xa0\x80"), r#""\ufffd\ufffd\ufffd\ufffd\ufffd""#);
        check(&RawText("\u{fffd}".as_bytes()), "\"\u{fffd}\"");
        check(&RawText(b""), r#""""#);
    }

    proptest! {
        #[test]
        fn reads_back_as_the_same_text(text in any::<String>()) {
            let bytes = to_vec(&text).unwrap();
            prop_assert!(!bytes.iter().any(|byte| b"<>&".contains(byte)));
            prop_assert_eq!(&serde_json::from_slice::<String>(&bytes).unwrap(), &text);
            prop_assert_eq!(to_vec(&RawText(text.as_bytes())).unwrap(), bytes);
        }
    }
}
