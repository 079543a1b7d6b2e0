//! Texts from outside, made fit for a message: no control characters, no secrets, no novels.

use zeroize::Zeroizing;

/// How many characters of a foreign text a message quotes.
const QUOTE_CHARS_MAX: usize = 120;
/// What stands where a secret stood.
const MASK: &str = "***";

/// Escapes what could move a cursor, colour a terminal or turn the reading direction. Line
/// feeds stay when `keep_lines` says so.
pub(crate) fn printable(text: &str, keep_lines: bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' if keep_lines => safe.push('\n'),
            '\t' => safe.push(' '),
            _ if is_unsafe(character) => safe.extend(character.escape_default()),
            _ => safe.push(character),
        }
    }
    safe
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The beginning of a foreign text on one line.
pub(crate) fn quote(text: &str) -> String {
    let text = text.trim();
    let mut short: String = text.chars().take(QUOTE_CHARS_MAX).collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        short.push('…');
    }
    printable(&short, false)
}

/// Replaces every secret. Short ones too: better an odd message than a leaked one.
pub(crate) fn masked(text: String, secrets: &[Zeroizing<String>]) -> String {
    let known = secrets.iter().filter(|secret| !secret.is_empty());
    known.fold(text, |text, secret| text.replace(secret.as_str(), MASK))
}

/// An error with its causes on one line, each cause once: many errors repeat theirs.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    quote(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(printable("a\x1b[31mb\nc", false), "a\\u{1b}[31mb\\nc");
        assert_eq!(printable("a\nb\tc\u{202e}", true), "a\nb c\\u{202e}");
        assert_eq!(quote(&"x".repeat(500)).chars().count(), QUOTE_CHARS_MAX + 1);
    }

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        let secrets = [Zeroizing::new("hunter2".to_owned()), Zeroizing::new(String::new())];
        assert_eq!(masked("hunter2 said hunter2".to_owned(), &secrets), "*** said ***");
    }
}
