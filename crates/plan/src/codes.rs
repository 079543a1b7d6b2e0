//! Every finding there is: its code, its weight, what it means, and a plan that has it beside
//! one that does not.
//!
//! `docs/reference/findings.md` is written from this table, and the tests run every example, so
//! that what the reference says is what the program does.

mod table;

use muster_model::Severity;

pub use table::ALL;

/// A kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The stable name in kebab case.
    pub code: &'static str,
    /// How much it usually weighs.
    pub severity: Severity,
    /// Whether an exception may waive it. What makes a plan unreadable cannot be waived.
    pub can_be_waived: bool,
    /// Whether the JSON Schema refuses it too, so that an editor shows it.
    pub in_schema: bool,
    /// What it means, in a sentence or two.
    pub about: &'static str,
    /// What must have been measured for the examples to hold, when anything.
    pub given: Option<&'static str>,
    /// The examples; `None` for a code that no field of this version can raise.
    pub examples: Option<Examples>,
}

/// Two plans, of which one has the finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Examples {
    /// A plan without it.
    pub good: &'static str,
    /// A plan that has it.
    pub bad: &'static str,
    /// Line and column of the finding in `bad`, from 1.
    pub at: (usize, usize),
}

/// A kind of finding by its code.
#[must_use]
pub fn find(code: &str) -> Option<&'static Code> {
    ALL.iter().find(|entry| entry.code == code)
}

/// How much a finding of this code usually weighs.
pub(crate) fn severity(code: &str) -> Severity {
    find(code).map_or(Severity::Error, |entry| entry.severity)
}
