//! Bans: things that do not belong into committed Rust, each with its replacement.
//!
//! Some of these are lints as well; a lint can be switched off by the attribute that is banned
//! here, and `cargo clippy` does not see every target on every machine.

use super::Violation;
use super::source::{Source, find_word, imports, line_of};
use crate::workspace::{File, Tree};

/// Text that may not stand in code, and what to do instead.
const BANNED: &[(&str, &str)] = &[
    ("#[ignore", "mend the test or delete it"),
    ("todo!", "write it, or return an error that says it is not in this version"),
    ("unimplemented!", "write it, or return an error that says it is not in this version"),
    ("dbg!", "delete it"),
    ("#[allow(", "use #[expect(…, reason = \"…\")], which says when it is no longer needed"),
    ("#![allow(", "use #![expect(…, reason = \"…\")], which says when it is no longer needed"),
];

/// Sleeping hides a race; only `testkit::wait_for` may, between two looks at its condition.
const SLEEP: &str = "thread::sleep";
const MAY_SLEEP: &str = "crates/testkit/";

/// Finds banned text in the code of all Rust files.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    tree.rust().flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Violation> {
    let code = Source::scan(&file.text).code();
    let found = |at: usize, what: &str, instead: &str| {
        Violation::new(&file.path, line_of(&code, at), format!("`{what}`"), instead)
    };
    let mut violations = Vec::new();
    for (text, instead) in BANNED {
        let places = find_word(&code, text).into_iter();
        violations.extend(places.map(|at| found(at, text, instead)));
    }
    if !file.path.starts_with(MAY_SLEEP) {
        let places = sleeps(&code).into_iter();
        violations.extend(places.map(|at| {
            found(at, SLEEP, "wait on a condition: testkit::wait_for, or a channel's recv_timeout")
        }));
    }
    violations
}

fn sleeps(code: &str) -> Vec<usize> {
    let imported = imports(code).into_iter().filter(|(_, path)| path.ends_with(SLEEP));
    let mut places: Vec<usize> =
        find_word(code, SLEEP).into_iter().chain(imported.map(|(at, _)| at)).collect();
    // `use std::thread::sleep;` is found both ways.
    places.dedup_by_key(|at| line_of(code, *at));
    places
}

#[cfg(test)]
mod tests {
    use super::super::testing::places;
    use super::*;

    fn check_text(path: &str, text: &str) -> Vec<String> {
        places(&check(&Tree::of(&[(path, text)])))
    }

    #[test]
    fn banned_text_is_found_with_its_line() {
        for text in [
            "#[ignore]\nfn f() {}",
            "#[ignore = \"slow\"]",
            "todo!()",
            "unimplemented!(\"later\")",
            "dbg!(x)",
            "#[allow(dead_code)]",
            "#![allow(dead_code)]",
        ] {
            assert_eq!(check_text("a.rs", &format!("\n{text}")), ["a.rs:2"], "{text}");
        }
    }

    #[test]
    fn words_in_comments_and_literals_are_free() {
        let text = "// no todo! here\nlet x = \"dbg!\";\n#[expect(dead_code, reason = \"…\")]";
        assert!(check_text("a.rs", text).is_empty());
    }

    #[test]
    fn only_testkit_sleeps() {
        let call = "fn f() { std::thread::sleep(x); }";
        assert_eq!(check_text("crates/cli/src/a.rs", call).len(), 1);
        assert!(check_text("crates/testkit/src/wait.rs", call).is_empty());
        assert_eq!(check_text("a.rs", "use std::{fmt, thread::{sleep, spawn}};").len(), 1);
        assert_eq!(check_text("a.rs", "use std::thread::sleep;").len(), 1);
        assert!(check_text("a.rs", "fn f() { thread::spawn(x) }").is_empty());
    }
}
