//! What could not be read becomes a finding of the run that had to do without it.
//!
//! A drill that passed from the second copy has proven the second copy; that the first is damaged
//! must not be forgotten with the terminal's last line. So each is in the ledger when it happens
//! (a recovery that is cut off keeps it too) and in the result when that is sealed.

use std::collections::BTreeSet;

use muster_model::{Finding, Severity};

use crate::{
    error::{ALTERED, ALTERED_HELP, OperationError},
    points::Unread,
    records::{CopyUnread, Record},
    workspace::Workspace,
};

/// The finding: a copy, or a repository, that a drill or a recovery could not read.
const CODE: &str = "copy-unread";

/// Writes down what could not be read as points were looked for.
///
/// # Errors
/// Fails when the ledger cannot be written.
pub(crate) fn note(
    workspace: &Workspace,
    run: &str,
    unread: &[Unread],
) -> Result<(), OperationError> {
    note_all(workspace, unread.iter().map(|unread| CopyUnread::of(run, unread)))
}

/// Writes down what could not be read.
///
/// # Errors
/// Fails when the ledger cannot be written.
pub(crate) fn note_all(
    workspace: &Workspace,
    unread: impl IntoIterator<Item = CopyUnread>,
) -> Result<(), OperationError> {
    for unread in unread {
        workspace.state.record(&Record::CopyUnread(unread))?;
    }
    Ok(())
}

/// The findings of a run, each copy once.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub(crate) fn findings(workspace: &Workspace, run: &str) -> Result<Vec<Finding>, OperationError> {
    let mut seen = BTreeSet::new();
    let mut findings = Vec::new();
    for logged in workspace.state.history(&["copy-unread"])? {
        if let Record::CopyUnread(unread) = logged.record
            && unread.run == run
            && seen.insert((unread.repository.clone(), unread.snapshot.clone()))
        {
            findings.push(finding(workspace, &unread));
        }
    }
    Ok(findings)
}

/// What could not be read just now, as findings.
pub(crate) fn of_list(workspace: &Workspace, unread: &[Unread]) -> Vec<Finding> {
    let all = unread.iter().map(|unread| CopyUnread::of("", unread));
    all.map(|unread| finding(workspace, &unread)).collect()
}

fn finding(workspace: &Workspace, unread: &CopyUnread) -> Finding {
    let path = format!("repositories.{}", unread.repository);
    let position = workspace.positions.of(&path);
    Finding {
        code: CODE.to_owned(),
        severity: Severity::Warning,
        line: position.line,
        column: position.column,
        path,
        message: unread.to_string(),
        help: Some(help(unread).to_owned()),
    }
}

/// The next step. What is archived is not damaged.
fn help(unread: &CopyUnread) -> &'static str {
    match (unread.code.as_str(), &unread.snapshot) {
        ("packs-archived" | "store-archived", _) => {
            "it is archived: give the repository `warm_up: 24h` (as long as the archive takes) to \
             have its data brought back; `muster verify --warm-up` with its name brings back what \
             else is archived, too; both are charged"
        }
        ("warm-up-timed-out", _) => {
            "what was asked for still comes: try again later, or give the repository a longer \
             `warm_up`"
        }
        (ALTERED, _) => ALTERED_HELP,
        (_, Some(_)) => "`muster repo check --read-data` says what is damaged",
        (_, None) => "mend it before its copies are needed",
    }
}
