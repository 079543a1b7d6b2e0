//! Whitespace: no spaces at the end of a line, and a newline at the end of a file.
//!
//! Fixtures and snapshots are what a program wrote and stay as they are.

use super::Violation;
use crate::workspace::{File, Tree};

const EXTENSIONS: &[&str] = &["rs", "md", "toml", "sh", "py", "yml", "yaml", "txt"];
const NAMES: &[&str] = &["Makefile", "run", ".gitignore"];
const AS_WRITTEN: &[&str] = &["fixtures", "snapshots", "corpus", "seeds"];

/// Finds trailing whitespace and missing last newlines.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    tree.files.iter().filter(|file| is_ours(&file.path)).flat_map(check_file).collect()
}

fn is_ours(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    let is_known = NAMES.contains(&name) || extension.is_some_and(|e| EXTENSIONS.contains(&e));
    is_known && !path.split('/').any(|part| AS_WRITTEN.contains(&part))
}

fn check_file(file: &File) -> Vec<Violation> {
    let mut violations: Vec<Violation> = file
        .text
        .split('\n')
        .enumerate()
        .filter(|(_, line)| line.ends_with([' ', '\t', '\r']))
        .map(|(i, _)| Violation::new(&file.path, i + 1, "whitespace ends the line", "delete it"))
        .collect();
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        let line = file.text.lines().count();
        violations.push(Violation::new(&file.path, line, "no newline at the end", "add one"));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::testing::places;
    use super::*;

    fn check_text(path: &str, text: &str) -> Vec<String> {
        places(&check(&Tree::of(&[(path, text)])))
    }

    #[test]
    fn trailing_whitespace_is_found() {
        assert!(check_text("a.rs", "a\n\nb\n").is_empty());
        assert_eq!(check_text("a.rs", "a\nb \n\t\n"), ["a.rs:2", "a.rs:3"]);
        assert_eq!(check_text("docs/a.md", "a\r\n"), ["docs/a.md:1"]);
    }

    #[test]
    fn a_file_ends_with_a_newline() {
        assert_eq!(check_text("a.toml", "a\nb"), ["a.toml:2"]);
        assert!(check_text("a.toml", "").is_empty());
    }

    #[test]
    fn what_programs_wrote_stays() {
        assert!(check_text("crates/cli/tests/snapshots/a.txt", "a ").is_empty());
        assert!(check_text("a.snap", "a ").is_empty());
    }
}
