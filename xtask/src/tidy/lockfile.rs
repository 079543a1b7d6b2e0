//! Lockfiles name crates.io and nothing else: a mirror that one machine uses, or a git branch,
//! would make the build of everybody else fail or differ.

use super::Violation;
use crate::workspace::{File, Tree};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Finds packages that come from somewhere else.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let is_lockfile = |file: &&File| file.path.rsplit('/').next() == Some("Cargo.lock");
    tree.files.iter().filter(is_lockfile).flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Violation> {
    file.text
        .lines()
        .enumerate()
        .filter_map(|(i, line)| Some((i + 1, line.strip_prefix("source = ")?.trim_matches('"'))))
        .filter(|(_, source)| *source != CRATES_IO)
        .map(|(line, source)| {
            let remedy = "depend on a release on crates.io, and lock without a mirror's name";
            Violation::new(&file.path, line, format!("a package comes from {source}"), remedy)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::places;
    use super::*;

    #[test]
    fn only_crates_io_is_a_source() {
        let good = format!("[[package]]\nname = \"a\"\nsource = \"{CRATES_IO}\"\n");
        let bad = format!("{good}source = \"git+https://example.org/a\"\n");
        let tree = Tree::of(&[("Cargo.lock", &good), ("fuzz/Cargo.lock", &bad)]);
        assert_eq!(places(&check(&tree)), ["fuzz/Cargo.lock:4"]);
    }
}
