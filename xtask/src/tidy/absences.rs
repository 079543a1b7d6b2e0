//! Absences: what must not be behind a wall.
//!
//! Decisions are replayed from recorded events, and that works only while nothing in them does
//! I/O, reads a clock or draws a random number. So the pure crates may not even name the means.
//! The check sees direct dependencies and paths in the sources, in tests too: a test of a pure
//! function needs no file (`include_str!` reads fixtures).

use super::Violation;
use super::source::{Source, find_word, imports, line_of};
use crate::workspace::{File, Package, Tree};

/// Crates that decide and therefore must be pure.
const PURE: &[&str] = &["model", "plan", "control"];

/// Paths that a pure crate may not name, and what to do instead.
const IMPURE_PATHS: &[(&str, &str)] = &[
    ("std::fs", TAKE_VALUES),
    ("std::net", TAKE_VALUES),
    ("std::process", TAKE_VALUES),
    ("std::env", TAKE_VALUES),
    ("std::thread", "return the work as an effect, a shell runs it"),
    ("SystemTime::now", TAKE_TIME),
    ("Instant::now", TAKE_TIME),
    ("Timestamp::now", TAKE_TIME),
    ("Zoned::now", TAKE_TIME),
    ("println!", RETURN_TEXT),
    ("print!", RETURN_TEXT),
    ("eprintln!", RETURN_TEXT),
    ("eprint!", RETURN_TEXT),
];

const TAKE_VALUES: &str = "take the value as an argument, or return an effect";
const TAKE_TIME: &str = "take the time as an argument";
const RETURN_TEXT: &str = "return the text, `cli` prints it";

/// A crate from outside, and the only crates of ours that may depend on it.
struct Confined {
    names: &'static [&'static str],
    is_allowed: fn(&str) -> bool,
    because: &'static str,
}

const CONFINED: &[Confined] = &[
    Confined {
        names: &["tokio", "rand", "getrandom"],
        is_allowed: |crate_name| !PURE.contains(&crate_name),
        because: "pure crates have no clock, no runtime and no randomness",
    },
    Confined {
        names: &["tokio"],
        is_allowed: |crate_name| crate_name != "repository",
        because: "the engine runs on threads and its API blocks",
    },
    Confined {
        names: &["clap", "indicatif"],
        is_allowed: |crate_name| crate_name == "cli",
        because: "only `cli` parses arguments and draws progress",
    },
];

/// Finds the means of I/O, time and chance where they must be absent.
pub(super) fn check(tree: &Tree, packages: &[Package]) -> Vec<Violation> {
    let sources = tree.rust().filter(|file| is_pure(&file.path)).flat_map(check_source);
    sources.chain(packages.iter().flat_map(check_dependencies)).collect()
}

fn is_pure(path: &str) -> bool {
    PURE.iter().any(|name| path.starts_with(&format!("crates/{name}/src/")))
}

fn check_source(file: &File) -> Vec<Violation> {
    let code = Source::scan(&file.text).code();
    let imports = imports(&code);
    let mut found = Vec::new();
    for (path, instead) in IMPURE_PATHS {
        let named = find_word(&code, path);
        let imported = imports.iter().filter(|(_, import)| begins_with(import, path));
        let mut lines: Vec<usize> = named
            .into_iter()
            .chain(imported.map(|(at, _)| *at))
            .map(|at| line_of(&code, at))
            .collect();
        lines.sort_unstable();
        lines.dedup();
        found.extend(lines.into_iter().map(|line| {
            Violation::new(&file.path, line, format!("`{path}` in a pure crate"), *instead)
        }));
    }
    found
}

/// Whether the imported path is `path` or lies within it.
fn begins_with(import: &str, path: &str) -> bool {
    import.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Tests may use what they like: proptest needs randomness.
fn check_dependencies(package: &Package) -> Vec<Violation> {
    let mut found = Vec::new();
    for dependency in package.dependencies.iter().filter(|d| !d.is_dev && !d.is_ours) {
        let rule = CONFINED.iter().find(|rule| {
            rule.names.contains(&dependency.name.as_str()) && !(rule.is_allowed)(&package.name)
        });
        if let Some(rule) = rule {
            found.push(Violation::new(
                &package.manifest,
                1,
                format!("`{}` depends on `{}`", package.name, dependency.name),
                format!("do without it here: {}", rule.because),
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::places;
    use super::*;
    use crate::workspace::Dependency;

    fn check_text(path: &str, text: &str) -> Vec<String> {
        places(&check(&Tree::of(&[(path, text)]), &[]))
    }

    fn depends(from: &str, to: &str, is_dev: bool) -> usize {
        let package = Package {
            name: from.to_owned(),
            manifest: format!("crates/{from}/Cargo.toml"),
            dependencies: vec![Dependency { name: to.to_owned(), is_ours: false, is_dev }],
        };
        check(&Tree::of(&[]), &[package]).len()
    }

    #[test]
    fn io_is_found_however_it_is_written() {
        let file = "crates/model/src/a.rs";
        assert_eq!(check_text(file, "\nfn f() { std::fs::read(x) }"), ["crates/model/src/a.rs:2"]);
        assert_eq!(check_text(file, "use std::{fmt, fs::File};").len(), 1);
        assert_eq!(check_text(file, "use std::{net as n};").len(), 1);
        assert_eq!(check_text(file, "fn f() { println!(\"x\") }").len(), 1);
    }

    #[test]
    fn clocks_are_found_but_durations_are_not() {
        let file = "crates/control/src/a.rs";
        let import = "use std::time::{Duration, Instant};\n";
        assert!(check_text(file, import).is_empty());
        assert_eq!(check_text(file, "fn f() { Instant::now() }").len(), 1);
        assert_eq!(check_text(file, "fn f() { jiff::Timestamp::now() }").len(), 1);
    }

    #[test]
    fn sentences_and_other_crates_are_free() {
        assert!(check_text("crates/model/src/a.rs", "//! No `std::fs` here.\n").is_empty());
        assert!(check_text("crates/repository/src/a.rs", "use std::fs;").is_empty());
        assert!(check_text("crates/model/src/a.rs", "use std::fmt; use std::fsx;").is_empty());
    }

    #[test]
    fn crates_stay_where_they_are_confined() {
        assert_eq!(depends("model", "getrandom", false), 1);
        assert_eq!(depends("repository", "tokio", false), 1);
        assert_eq!(depends("repository", "clap", false), 1);
        assert_eq!(depends("repository", "getrandom", false), 0);
        assert_eq!(depends("cli", "clap", false), 0);
        assert_eq!(depends("model", "rand", true), 0);
    }
}
