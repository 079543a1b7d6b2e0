//! Rust text seen as code, comments and literals, so that a check does not trip over a word in
//! a sentence or in a test's example.
//!
//! This is a scanner, not a parser: it knows where comments, strings and characters begin and
//! end, and nothing else of the language. That is enough for every check here and does not
//! break when the language grows.

use std::ops::Range;

/// A Rust file, each byte of which is code, comment or literal.
pub(super) struct Source<'a> {
    text: &'a str,
    kinds: Vec<Kind>,
}

/// What a byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

impl<'a> Source<'a> {
    /// Scans `text`.
    pub(super) fn scan(text: &'a str) -> Source<'a> {
        let bytes = text.as_bytes();
        let mut kinds = Vec::with_capacity(bytes.len());
        while kinds.len() < bytes.len() {
            let (kind, length) = next_token(bytes, kinds.len());
            kinds.resize((kinds.len() + length).min(bytes.len()), kind);
        }
        Source { text, kinds }
    }

    /// The text with comments and literals blanked; lines and columns stay where they are.
    pub(super) fn code(&self) -> String {
        self.only(Kind::Code)
    }

    /// The text with all but the comments blanked.
    pub(super) fn comments(&self) -> String {
        self.only(Kind::Comment)
    }

    /// The string literals within `range`, without their quotes.
    pub(super) fn strings(&self, range: Range<usize>) -> Vec<(usize, &'a str)> {
        let mut found = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let start = at;
            while at < range.end && self.kinds[at] == Kind::Literal {
                at += 1;
            }
            if at > start {
                found.push((start, unquote(&self.text[start..at])));
            }
            at += 1;
        }
        found
    }

    fn only(&self, kind: Kind) -> String {
        let keep = |(&byte, &is): (&u8, &Kind)| match byte {
            b'\n' => b'\n',
            _ if is == kind => byte,
            _ => b' ',
        };
        let bytes = self.text.as_bytes().iter().zip(&self.kinds).map(keep).collect();
        String::from_utf8(bytes).expect("tokens begin and end at characters")
    }
}

/// The line, counted from 1, on which the byte `at` stands.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// The places where `word` stands by itself, not as a part of a longer identifier.
pub(super) fn find_word(text: &str, word: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let stands_alone = |at: usize| {
        let end = at + word.len();
        let before = at > 0 && is_word(bytes[at - 1]) && is_word(word.as_bytes()[0]);
        let after = end < bytes.len() && is_word(bytes[end]) && is_word(bytes[end - 1]);
        !before && !after
    };
    text.match_indices(word).map(|(at, _)| at).filter(|&at| stands_alone(at)).collect()
}

/// The paths that `use` declarations of `code` bring in, groups written out: `use a::{b, c::d};`
/// gives `a::b` and `a::c::d`, each with the offset of its declaration.
pub(super) fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in find_word(code, "use") {
        let rest = &code[at + "use".len()..];
        // `use<'a>` is a bound, not a declaration.
        if let Some(end) = rest.find(';')
            && rest.starts_with(char::is_whitespace)
        {
            let mut paths = Vec::new();
            expand("", &rest[..end], &mut paths);
            found.extend(paths.into_iter().map(|path| (at, path)));
        }
    }
    found
}

/// The block that begins with the first `{` at or after `from`, braces included.
pub(super) fn block_after(code: &str, from: usize) -> Option<Range<usize>> {
    let start = from + code[from..].find('{')?;
    let mut depth = 0_usize;
    for (i, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(start..i + 1),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// `code` with the bodies of `#[cfg(test)] mod … { }` blanked.
pub(super) fn without_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let item = code[at + attribute.len()..].trim_start();
        // `mod tests;` has its body in another file.
        let head = item.split_inclusive(['{', ';']).next().unwrap_or_default();
        if head.starts_with("mod ")
            && head.ends_with('{')
            && let Some(body) = block_after(code, at)
        {
            bytes[body].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
    }
    String::from_utf8(bytes).expect("whole blocks of valid text were blanked")
}

/// The kind and length of the token at `at`; code comes one byte or one word at a time.
fn next_token(bytes: &[u8], at: usize) -> (Kind, usize) {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return (Kind::Comment, until(rest, b'\n'));
    }
    if rest.starts_with(b"/*") {
        return (Kind::Comment, block_comment(rest));
    }
    if let Some(length) = string_literal(rest).or_else(|| char_literal(rest)) {
        return (Kind::Literal, length);
    }
    let word = rest.iter().take_while(|&&byte| is_word(byte)).count();
    (Kind::Code, word.max(1))
}

fn until(bytes: &[u8], stop: u8) -> usize {
    bytes.iter().position(|&byte| byte == stop).unwrap_or(bytes.len())
}

/// Block comments nest.
fn block_comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the string literal that `bytes` begins with, if it does, prefix included.
fn string_literal(bytes: &[u8]) -> Option<usize> {
    let prefix = [&b"br"[..], b"cr", b"b", b"c", b"r", b""].into_iter().find(|prefix| {
        bytes.starts_with(prefix) && matches!(bytes.get(prefix.len()), Some(b'"' | b'#'))
    })?;
    let n_hashes = bytes[prefix.len()..].iter().take_while(|&&byte| byte == b'#').count();
    let open = prefix.len() + n_hashes;
    let is_raw = prefix.ends_with(b"r");
    if bytes.get(open) != Some(&b'"') || (n_hashes > 0 && !is_raw) {
        return None;
    }
    let body = &bytes[open + 1..];
    let length = if is_raw { raw_end(body, n_hashes) } else { escaped_end(body, b'"') };
    Some(open + 1 + length)
}

/// The length up to and with the quote that is followed by `n_hashes` hashes.
fn raw_end(body: &[u8], n_hashes: usize) -> usize {
    let close = [&b"\""[..], &b"#".repeat(n_hashes)].concat();
    let end = body.windows(close.len()).position(|window| window == close);
    end.map_or(body.len(), |end| end + close.len())
}

/// The length up to and with the first `quote` that is not escaped.
fn escaped_end(body: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < body.len() {
        match body[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    body.len()
}

/// The length of the character literal that `bytes` begins with; a lifetime is none.
fn char_literal(bytes: &[u8]) -> Option<usize> {
    let prefix = usize::from(bytes.starts_with(b"b'"));
    let body = bytes[prefix..].strip_prefix(b"'")?;
    let first = *body.first()?;
    let character_length = match first {
        b'\\' => return Some(prefix + 1 + escaped_end(body, b'\'')),
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    };
    (body.get(character_length) == Some(&b'\'')).then_some(prefix + character_length + 2)
}

fn unquote(literal: &str) -> &str {
    let literal = literal.trim_start_matches(|c: char| c.is_ascii_alphabetic()).trim_matches('#');
    literal.trim_matches('"')
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    for item in split_at_commas(tree) {
        if let (Some(open), Some(close)) = (item.find('{'), item.rfind('}')) {
            let head = item[..open].split_whitespace().collect::<String>();
            expand(&format!("{prefix}{head}"), &item[open + 1..close], paths);
        } else if let Some(leaf) = item.split(" as ").next().filter(|leaf| !leaf.trim().is_empty())
        {
            let leaf = leaf.split_whitespace().collect::<String>();
            paths.push(format!("{prefix}{leaf}"));
        }
    }
}

/// Splits at the commas that stand in no braces.
fn split_at_commas(tree: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (i, byte) in tree.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                items.push(&tree[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    items.push(&tree[start..]);
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `marks` has `/` under each byte of a comment and `"` under each byte of a literal.
    fn check(text: &str, marks: &str) {
        let kinds = Source::scan(text).kinds;
        let found: String = kinds
            .iter()
            .map(|kind| match kind {
                Kind::Code => '.',
                Kind::Comment => '/',
                Kind::Literal => '"',
            })
            .collect();
        assert_eq!(found, marks, "{text}");
    }

    #[test]
    fn comments_literals_and_code_are_told_apart() {
        check("x; // why", "...//////");
        check("a /* b /* c */ d */ e", "../////////////////..");
        check(r#"f("a\"b", c)"#, r#"..""""""...."#);
        check("r#\"a\"b\"# + br\"c\"", "\"\"\"\"\"\"\"\"...\"\"\"\"\"");
        check("'\\'' 'a' b'c' &'a T", "\"\"\"\".\"\"\".\"\"\"\"......");
        check("\"// no\" // yes", "\"\"\"\"\"\"\".//////");
        check("attr\"x\"", "....\"\"\"");
        check("r#type", "......");
    }

    #[test]
    fn blanking_keeps_lines_and_columns() {
        let source = Source::scan("a(\"b\nc\"); // d\ne");
        assert_eq!(source.code(), "a(  \n  );     \ne");
        assert_eq!(source.comments(), "    \n     // d\n ");
    }

    #[test]
    fn strings_come_without_quotes() {
        let source = Source::scan("f(\"one\", r#\"two\"#)");
        assert_eq!(source.strings(0..18), [(2, "one"), (9, "two")]);
    }

    #[test]
    fn a_word_is_not_found_inside_another() {
        assert_eq!(find_word("dont(do, undo, do_it, do)", "do"), [5, 22]);
        assert_eq!(find_word("my_std::fs std::fs::read std::fsx", "std::fs"), [11]);
    }

    #[test]
    fn groups_of_imports_are_written_out() {
        let paths: Vec<String> =
            imports("use a::{b, c::{self, d as e}};\nfn f() -> impl X + use<'_> {}\nuse g;")
                .into_iter()
                .map(|(_, path)| path)
                .collect();
        assert_eq!(paths, ["a::b", "a::c::self", "a::c::d", "g"]);
    }

    #[test]
    fn test_modules_are_left_out() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}";
        let left = without_tests(code).replace(' ', "");
        assert_eq!(left, "fna(){}\n#[cfg(test)]\nmodtests\n\n\nfnc(){}");
        let elsewhere = "#[cfg(test)]\nmod tests;\nfn c() {}";
        assert_eq!(without_tests(elsewhere), elsewhere);
    }
}
