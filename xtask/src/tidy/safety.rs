//! Every `unsafe` is argued for: a `// SAFETY:` comment stands right above its statement, or, for
//! an `unsafe fn`, a `# Safety` section in its documentation.

use super::Violation;
use super::source::{Source, find_word, line_of};
use crate::workspace::{File, Tree};

/// Finds `unsafe` without its argument.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    tree.rust().flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Violation> {
    let source = Source::scan(&file.text);
    let (code, comments) = (source.code(), source.comments());
    let (code_lines, comment_lines): (Vec<&str>, Vec<&str>) =
        (code.lines().collect(), comments.lines().collect());
    find_word(&code, "unsafe")
        .into_iter()
        .map(|at| line_of(&code, at))
        .filter(|line| !is_argued(*line - 1, &code_lines, &comment_lines))
        .map(|line| {
            let remedy = "say above it, after `// SAFETY:`, why it is sound";
            Violation::new(&file.path, line, "`unsafe` without an argument", remedy)
        })
        .collect()
}

/// Looks at the line itself and upwards, over comments, attributes and the beginning of the same
/// statement, until another statement or an empty line ends the search.
fn is_argued(line_index: usize, code: &[&str], comments: &[&str]) -> bool {
    for i in (0..=line_index).rev() {
        let (code, comment) = (code[i].trim(), comments[i].trim());
        if comment.contains("SAFETY:") || comment.contains("# Safety") {
            return true;
        }
        let is_empty = code.is_empty() && comment.is_empty();
        let ends_another = code.ends_with([';', '{', '}']);
        if i < line_index && (is_empty || ends_another) {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::testing::places;
    use super::*;

    fn check_text(text: &str) -> Vec<String> {
        places(&check(&Tree::of(&[("a.rs", text)])))
    }

    #[test]
    fn an_argument_may_stand_above_the_statement() {
        assert!(check_text("// SAFETY: owned.\nunsafe { f() }").is_empty());
        assert!(
            check_text("// SAFETY: owned,\n// and alive.\nlet x =\n    unsafe { f() };").is_empty()
        );
        assert!(check_text("unsafe { f() } // SAFETY: owned.").is_empty());
        assert!(check_text("/// # Safety\n/// Own it.\npub unsafe fn f() {}").is_empty());
        assert!(check_text("// SAFETY: plain data.\n#[expect(unsafe_code, reason = \"ffi\")]\nunsafe impl Send for X {}").is_empty());
    }

    #[test]
    fn a_missing_or_distant_argument_is_found() {
        assert_eq!(check_text("\nunsafe { f() }"), ["a.rs:2"]);
        assert_eq!(check_text("// SAFETY: for g.\nunsafe { g() };\nunsafe { f() }"), ["a.rs:3"]);
        assert_eq!(check_text("// SAFETY: far.\n\nunsafe { f() }"), ["a.rs:3"]);
    }

    #[test]
    fn the_word_elsewhere_is_free() {
        assert!(check_text("// unsafe\n#![deny(unsafe_code)]\nlet x = \"unsafe\";").is_empty());
    }
}
