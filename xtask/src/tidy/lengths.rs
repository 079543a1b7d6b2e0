//! Lengths: a file has 700 lines at most, and those that have more only get shorter.
//!
//! `xtask/ratchet.txt` lists the exceptions with their present length. The list may only lose
//! entries and its numbers may only go down, so a file that shrank must be entered anew.

use super::Violation;
use crate::workspace::{File, Tree};

const LINES_MAX: usize = 700;
const RATCHET: &str = "xtask/ratchet.txt";

/// One line of the list: `LINES PATH`.
struct Exception<'a> {
    path: &'a str,
    lines_max: usize,
    line: usize,
}

/// Finds files that are too long, and exceptions that can be tightened or dropped.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let list = tree.text(RATCHET).unwrap_or_default();
    let (exceptions, mut violations) = parse(list);
    for exception in &exceptions {
        let length = tree.text(exception.path).map(length);
        violations.extend(check_exception(exception, length));
    }
    let is_listed = |file: &&File| exceptions.iter().any(|entry| entry.path == file.path);
    violations.extend(tree.rust().filter(|file| !is_listed(file)).filter_map(check_file));
    violations
}

fn check_file(file: &File) -> Option<Violation> {
    let length = length(&file.text);
    (length > LINES_MAX).then(|| {
        let wrong = format!("{length} lines, where {LINES_MAX} are the most");
        Violation::new(&file.path, LINES_MAX + 1, wrong, "split it where its topics part")
    })
}

fn check_exception(exception: &Exception, length: Option<usize>) -> Option<Violation> {
    let Exception { path, lines_max, line } = *exception;
    let at = |wrong: String, remedy: &str| Some(Violation::new(RATCHET, line, wrong, remedy));
    match length {
        None => at(format!("{path} does not exist"), "delete the line"),
        Some(length) if length <= LINES_MAX => {
            at(format!("{path} has {length} lines and needs no exception"), "delete the line")
        }
        Some(length) if length < lines_max => {
            at(format!("{path} has only {length} lines"), "lower its number")
        }
        Some(length) if length > lines_max => {
            let wrong = format!("{length} lines, where {lines_max} are the most");
            Some(Violation::new(path, lines_max + 1, wrong, "split it; the list only goes down"))
        }
        Some(_) => None,
    }
}

fn parse(list: &str) -> (Vec<Exception<'_>>, Vec<Violation>) {
    let (mut exceptions, mut violations) = (Vec::new(), Vec::new());
    for (i, text) in list.lines().enumerate() {
        let line = i + 1;
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        match text.split_once(' ').map(|(lines, path)| (lines.parse(), path)) {
            Some((Ok(lines_max), path)) => exceptions.push(Exception { path, lines_max, line }),
            _ => violations.push(Violation::new(
                RATCHET,
                line,
                format!("cannot read `{text}`"),
                "write LINES PATH",
            )),
        }
    }
    (exceptions, violations)
}

fn length(text: &str) -> usize {
    text.lines().count()
}

#[cfg(test)]
mod tests {
    use super::super::testing::places;
    use super::*;

    fn check_lengths(lines: usize, list: &str) -> Vec<String> {
        let text = "\n".repeat(lines);
        places(&check(&Tree::of(&[("a.rs", &text), (RATCHET, list)])))
    }

    #[test]
    fn long_files_are_found() {
        assert!(check_lengths(LINES_MAX, "").is_empty());
        assert_eq!(check_lengths(LINES_MAX + 1, ""), ["a.rs:701"]);
    }

    #[test]
    fn an_exception_may_not_grow() {
        assert!(check_lengths(800, "# why\n800 a.rs\n").is_empty());
        assert_eq!(check_lengths(801, "800 a.rs\n"), ["a.rs:801"]);
    }

    #[test]
    fn an_exception_goes_down_with_its_file() {
        assert_eq!(check_lengths(790, "800 a.rs\n"), ["xtask/ratchet.txt:1"]);
        assert_eq!(check_lengths(10, "800 a.rs\n"), ["xtask/ratchet.txt:1"]);
        assert_eq!(check_lengths(10, "\n800 b.rs\n"), ["xtask/ratchet.txt:2"]);
        assert_eq!(check_lengths(10, "many a.rs\n"), ["xtask/ratchet.txt:1"]);
    }
}
