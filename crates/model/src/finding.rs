//! Something wrong or weak in a plan or in what a drill saw, with its place.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Weak: it will hurt one day.
    Warning,
    /// Wrong: the plan does not hold.
    Error,
}

impl Severity {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One finding, as `plan check --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable name in kebab case, explained in `docs/reference/findings.md`.
    pub code: String,
    /// How much it weighs.
    pub severity: Severity,
    /// Where in the document, as keys and indexes: `services.orders.data.db`.
    pub path: String,
    /// The line in the plan's text, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead, or what to do.
    pub help: Option<String>,
}
