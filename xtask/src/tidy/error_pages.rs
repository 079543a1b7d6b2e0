//! Error pages: every code that an error can show has a page in `docs/errors/`, and every page
//! there has a code.
//!
//! Codes are found by a convention: they are the string literals of lower-case words and
//! hyphens in the bodies of `fn code(`, outside test modules. So a code is always written there
//! as a literal, never put together.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::source::{Source, block_after, find_word, line_of, without_tests};
use crate::workspace::{File, Tree};

const PAGES: &str = "docs/errors";

/// The pages about all errors, not one.
const GENERAL_PAGES: &[&str] = &["README", "index"];

/// Finds codes without a page and pages without a code.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let codes = codes(tree);
    let pages: BTreeSet<&str> = tree.below(PAGES).filter_map(code_of_page).collect();
    let without_page = codes.iter().filter(|(code, _)| !pages.contains(*code));
    let without_code = pages.iter().filter(|page| !codes.contains_key(*page));
    let stale = without_code.map(|page| {
        let path = format!("{PAGES}/{page}.md");
        Violation::new(&path, 1, "no error has this code", "delete the page, or mend the code")
    });
    without_page.map(|(code, (path, line))| no_page(code, path, *line)).chain(stale).collect()
}

fn no_page(code: &str, path: &str, line: usize) -> Violation {
    let wrong = format!("the error code `{code}` has no page");
    let remedy = format!("write {PAGES}/{code}.md: what happened, why, what to do");
    Violation::new(path, line, wrong, remedy)
}

fn code_of_page(path: &str) -> Option<&str> {
    let name = path[PAGES.len() + 1..].strip_suffix(".md")?;
    (!GENERAL_PAGES.contains(&name)).then_some(name)
}

/// Every code with the first place where it stands.
fn codes(tree: &Tree) -> BTreeMap<&str, (&str, usize)> {
    let mut codes = BTreeMap::new();
    for file in tree.rust().filter(|file| is_shipped(&file.path)) {
        for (line, code) in codes_of(file) {
            codes.entry(code).or_insert((file.path.as_str(), line));
        }
    }
    codes
}

fn is_shipped(path: &str) -> bool {
    let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
    path.starts_with("crates/") && !path.starts_with("crates/testkit/") && !is_test
}

fn codes_of(file: &File) -> Vec<(usize, &str)> {
    let source = Source::scan(&file.text);
    let code = without_tests(&source.code());
    let bodies = find_word(&code, "fn code(").into_iter().filter_map(|at| {
        // A trait's declaration has no body.
        let end = code[at..].find(['{', ';'])?;
        code[at + end..].starts_with('{').then(|| block_after(&code, at))?
    });
    bodies
        .flat_map(|body| source.strings(body))
        .filter(|(_, text)| is_code(text))
        .map(|(at, text)| (line_of(&file.text, at), text))
        .collect()
}

fn is_code(text: &str) -> bool {
    let is_code_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(is_code_char)
}

#[cfg(test)]
mod tests {
    use super::super::testing::places;
    use super::*;

    const ERRORS: &str = r#"
impl Fault for OpenError {
    fn code(&self) -> &'static str {
        match self {
            Self::Locked => "locked", // not "in-comment"
            Self::WrongPassword { .. } => "wrong-password",
            Self::Storage(error) => error.code(),
        }
    }
    fn help(&self) -> &str { "wait" }
}
trait Fault { fn code(&self) -> &'static str; fn other(&self) { "no" } }
#[cfg(test)]
mod tests {
    impl Fault for Fake { fn code(&self) -> &'static str { "fake" } }
}
"#;

    fn check_pages(pages: &[&str]) -> Vec<String> {
        let mut files = vec![("crates/repository/src/open.rs", ERRORS)];
        files.extend(pages.iter().map(|page| (*page, "")));
        places(&check(&Tree::of(&files)))
    }

    #[test]
    fn every_code_has_its_page() {
        let pages = ["docs/errors/locked.md", "docs/errors/wrong-password.md"];
        assert!(check_pages(&pages).is_empty());
        assert_eq!(check_pages(&pages[..1]), ["crates/repository/src/open.rs:6"]);
        assert_eq!(check_pages(&pages[1..]), ["crates/repository/src/open.rs:5"]);
    }

    #[test]
    fn every_page_has_its_code() {
        let pages = [
            "docs/errors/README.md",
            "docs/errors/fake.md",
            "docs/errors/locked.md",
            "docs/errors/wrong-password.md",
        ];
        assert_eq!(check_pages(&pages), ["docs/errors/fake.md:1"]);
    }
}
