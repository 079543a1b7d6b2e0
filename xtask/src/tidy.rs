//! `cargo xtask tidy`: the rules of the house that no compiler knows.
//!
//! Each check is a function from what the workspace holds to [`Violation`]s, in a module of its
//! own whose front page says what it wants and why. A violation names the place, what is wrong
//! and what to do. All checks run, so that one round shows everything.

mod absences;
mod bans;
mod code_map;
mod error_pages;
mod front_pages;
mod lengths;
mod links;
mod lockfile;
mod safety;
mod source;
mod walls;
mod whitespace;
mod words;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use crate::say;
use crate::workspace::{self, Package, Tree};

/// Runs every check and prints what it found.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let root = workspace::root()?;
    let violations = check_all(&root, &Tree::read(&root)?, &workspace::packages(&root)?);
    for violation in &violations {
        say::line(&violation.to_string());
    }
    if violations.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say::error(&format!("tidy found {}", count(violations.len())));
    Ok(ExitCode::FAILURE)
}

/// One broken rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    path: String,
    line: usize,
    wrong: String,
    remedy: String,
}

impl Violation {
    /// A violation at `path:line`; `wrong` says what is wrong, `remedy` what to do.
    fn new(
        path: &str,
        line: usize,
        wrong: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Violation {
        Violation { path: path.to_owned(), line, wrong: wrong.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.path, self.line, self.wrong, self.remedy)
    }
}

fn check_all(root: &Path, tree: &Tree, packages: &[Package]) -> Vec<Violation> {
    let mut all = walls::check(packages);
    all.extend(absences::check(tree, packages));
    all.extend(code_map::check(tree, packages));
    all.extend(lengths::check(tree));
    all.extend(bans::check(tree));
    all.extend(safety::check(tree));
    all.extend(whitespace::check(tree));
    all.extend(front_pages::check(tree));
    all.extend(links::check(tree));
    all.extend(error_pages::check(tree));
    all.extend(lockfile::check(tree));
    all.extend(words::check(tree, root));
    all.sort();
    all
}

fn count(n_violations: usize) -> String {
    format!("{n_violations} violation{}", if n_violations == 1 { "" } else { "s" })
}

/// What the tests of the checks share.
#[cfg(test)]
mod testing {
    use super::Violation;

    /// The violations as `path:line`, which is what most tests look at.
    pub(super) fn places(violations: &[Violation]) -> Vec<String> {
        violations.iter().map(|v| format!("{}:{}", v.path, v.line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_reads_as_place_wrong_remedy() {
        let violation = Violation::new("a.rs", 7, "`unsafe` without a reason", "give one");
        assert_eq!(violation.to_string(), "a.rs:7: `unsafe` without a reason; give one");
    }
}
