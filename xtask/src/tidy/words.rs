//! Words that may not appear in committed files: those of the list in `xtask/words.txt`, and the
//! path of this checkout.
//!
//! Notes to oneself and the paths of one machine mean nothing to the next reader.

use std::path::Path;

use super::Violation;
use super::source::{find_word, line_of};
use crate::workspace::{File, Tree};

const LIST: &str = "xtask/words.txt";
const ARROW: &str = " => ";

/// A checkout in `/muster` or `/srv` would make a word of what documentation rightly says.
const PATH_PARTS_MIN: usize = 2;

/// Finds the words, by themselves, in every text file but the list.
pub(super) fn check(tree: &Tree, root: &Path) -> Vec<Violation> {
    let root_path = root.to_string_lossy();
    let mut words = parse(tree.text(LIST).unwrap_or_default());
    if root_path.matches('/').count() >= PATH_PARTS_MIN {
        words.push((&root_path, "write the path relative to the root"));
    }
    let files = || tree.files.iter().filter(|file| file.path != LIST);
    words.iter().flat_map(|(word, remedy)| files().flat_map(|f| find(f, word, remedy))).collect()
}

fn find(file: &File, word: &str, remedy: &str) -> Vec<Violation> {
    find_word(&file.text, word)
        .into_iter()
        .filter(|&at| !continues_a_path(&file.text, at))
        .map(|at| {
            let line = line_of(&file.text, at);
            Violation::new(&file.path, line, format!("`{word}`"), remedy)
        })
        .collect()
}

/// `/a/` is not meant in `b/a/`.
fn continues_a_path(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back();
    text[at..].starts_with('/')
        && before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | '*'))
}

/// Lines of `WORD => what to do`; others are comments.
fn parse(list: &str) -> Vec<(&str, &str)> {
    let is_entry = |line: &&str| !line.starts_with('#');
    list.lines().filter(is_entry).filter_map(|line| line.split_once(ARROW)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::places;
    use super::*;

    fn check_text(text: &str) -> Vec<String> {
        let list = "# Why.\nLATER => do it now\n";
        let tree = Tree::of(&[(LIST, list), ("a.md", text)]);
        places(&check(&tree, Path::new("/our/checkout")))
    }

    #[test]
    fn listed_words_are_found() {
        assert_eq!(check_text("a\nLATER: b"), ["a.md:2"]);
        assert!(check_text("COLLATERAL, SLATER, later").is_empty());
    }

    #[test]
    fn the_path_of_the_checkout_is_found() {
        assert_eq!(check_text("in /our/checkout/src"), ["a.md:1"]);
        assert!(check_text("${DIR}/our/checkout and b/our/checkout, /our/checkouts").is_empty());
    }

    #[test]
    fn a_short_path_is_no_word() {
        let tree = Tree::of(&[("a.md", "/srv and /muster")]);
        assert!(check(&tree, Path::new("/srv")).is_empty());
    }
}
