//! Front pages: every Rust file begins with `//!`, a sentence on what it is for.

use super::Violation;
use crate::workspace::{File, Tree};

/// Finds Rust files that begin with something else.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    tree.rust().filter(|file| !has_front_page(file)).map(violation).collect()
}

fn has_front_page(file: &File) -> bool {
    file.text.strip_prefix("//! ").is_some_and(|sentence| !sentence.trim_start().is_empty())
}

fn violation(file: &File) -> Violation {
    let remedy = "begin with `//!` and a sentence on what it is for";
    Violation::new(&file.path, 1, "no front page", remedy)
}

#[cfg(test)]
mod tests {
    use super::super::testing::places;
    use super::*;

    #[test]
    fn files_begin_with_a_front_page() {
        let tree = Tree::of(&[
            ("good.rs", "//! Words.\n\nuse std::fmt;\n"),
            ("bad.rs", "use std::fmt;\n\n//! Late.\n"),
            ("comment.rs", "// Words.\n"),
            ("empty.rs", ""),
        ]);
        assert_eq!(places(&check(&tree)), ["bad.rs:1", "comment.rs:1", "empty.rs:1"]);
    }
}
