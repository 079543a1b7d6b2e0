//! What goes on between backups, and has come to a stand: `keep`, the freeing of space, reading back.
//!
//! One try that fails says nothing: somebody worked in the repository, and the next backup tries
//! again. But where a lock stays, or a snapshot cannot be read, a repository grows for months while
//! every backup goes well. So what became of the tries is in the ledger, and here is read how long
//! the last good one is ago. Applies and mends nothing.

use jiff::{SignedDuration, Timestamp};
use muster_model::{Class, Fault as _};
use muster_plan::Plan;
use serde::{Deserialize, Serialize};

use crate::{error::OperationError, keeping, records::Record, state::State, workspace::Workspace};

/// What may pass by itself is told when it lasts for longer.
const FAILS_FOR: SignedDuration = SignedDuration::from_hours(24);

/// A prune is tried once in 23 hours.
const PRUNE_FAILS_FOR: SignedDuration = SignedDuration::from_hours(48);

/// Backups that `keep` was not applied to for so long are told.
const LEFT_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The same outcome is written down again after so long.
const AGAIN: SignedDuration = SignedDuration::from_hours(20);

/// What became of a try to apply `keep` in a repository: good ones, too, also when nothing was to
/// go. Of those that are alike the ledger has one a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepTried {
    /// The repository's name in the plan.
    pub repository: String,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error's code.
    pub code: String,
    /// The error with its causes; stands after "cannot".
    pub why: String,
    /// The next step.
    pub help: Option<String>,
    /// It may pass by itself.
    pub passes: bool,
}

impl Failure {
    fn of(error: &OperationError) -> Self {
        Self {
            code: error.code().to_owned(),
            why: error.one_line(),
            help: error.help(),
            passes: matches!(error.class(), Class::Transient | Class::Conflict),
        }
    }
}

/// Writes down what became of a try to apply `keep`, and hands it on.
///
/// # Errors
/// Fails as the try did, or when the ledger cannot be written.
pub fn noted<T>(
    workspace: &Workspace,
    repository: &str,
    outcome: Result<T, OperationError>,
) -> Result<T, OperationError> {
    let failure = match &outcome {
        Ok(_) => None,
        Err(OperationError::Interrupted { .. }) => return outcome,
        Err(error) => Some(Failure::of(error)),
    };
    let written = note(&workspace.state, KeepTried { repository: repository.to_owned(), failure });
    outcome.and_then(|done| written.map(|()| done))
}

fn note(state: &State, tried: KeepTried) -> Result<(), OperationError> {
    let now = Timestamp::now();
    let history = state.history(&["keep-tried"])?;
    let last = history.iter().rev().find_map(|logged| match &logged.record {
        Record::KeepTried(last) if last.repository == tried.repository => Some((logged.at, last)),
        _ => None,
    });
    let code = |tried: &KeepTried| tried.failure.as_ref().map(|failure| failure.code.clone());
    let is_known =
        last.is_some_and(|(at, last)| code(last) == code(&tried) && now.duration_since(at) < AGAIN);
    if !is_known {
        state.record(&Record::KeepTried(tried))?;
    }
    Ok(())
}

/// Something that stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standstill {
    /// `keep`, `prune` or `verify`.
    pub what: &'static str,
    /// The repository.
    pub repository: String,
    /// The services whose data is in it.
    pub services: Vec<String>,
    /// Since when.
    pub since: Timestamp,
    /// When it went well last; `None` when that is not known.
    pub last: Option<Timestamp>,
    /// The error's code, where one was recorded.
    pub code: Option<String>,
    /// Why, as a sentence.
    pub why: String,
    /// The next step.
    pub help: String,
}

/// All that stands still.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub fn find(workspace: &Workspace, now: Timestamp) -> Result<Vec<Standstill>, OperationError> {
    let mut all = Vec::new();
    for repository in keeping::repositories(workspace, &[]) {
        all.extend(keep(workspace, &repository, now)?);
        all.extend(prune(workspace, &repository, now)?);
    }
    for repository in &workspace.plan.repositories {
        if workspace.plan.verify_of(&repository.name).is_some() {
            all.extend(verify(workspace, &repository.name, now)?);
        }
    }
    Ok(all)
}

/// How it went until now.
#[derive(Default)]
struct Course {
    last: Option<Timestamp>,
    /// Since when nothing went well, and the newest reason.
    failing: Option<(Timestamp, Failure)>,
    /// The first backup since.
    left_since: Option<Timestamp>,
}

impl Course {
    fn note(&mut self, at: Timestamp, failure: Option<Failure>) {
        match failure {
            None => *self = Self { last: Some(at), ..Self::default() },
            Some(failure) => {
                let since = self.failing.as_ref().map_or(at, |(since, _)| *since);
                self.failing = Some((since, failure));
            }
        }
    }

    /// What the ledger has of a failure without a code.
    fn note_told(&mut self, at: Timestamp, error: Option<String>) {
        let failure = |why| Failure { code: String::new(), why, help: None, passes: true };
        self.note(at, error.map(failure));
    }

    /// The standstill, if it fails for so long, or with what does not pass.
    fn failing(
        self,
        (what, repository): (&'static str, &str),
        plan: &Plan,
        (now, patience): (Timestamp, SignedDuration),
        command: &str,
    ) -> Option<Standstill> {
        let (since, failure) = self.failing?;
        if failure.passes && now.duration_since(since) < patience {
            return None;
        }
        let help = match failure.help {
            Some(help) => format!("{help}; then {command}"),
            None => format!("{command} tries again"),
        };
        Some(Standstill {
            what,
            repository: repository.to_owned(),
            services: services(plan, repository),
            since,
            last: self.last,
            code: Some(failure.code).filter(|code| !code.is_empty()),
            why: format!("cannot {}", failure.why),
            help,
        })
    }
}

fn keep(
    workspace: &Workspace,
    repository: &str,
    now: Timestamp,
) -> Result<Option<Standstill>, OperationError> {
    let mut course = Course::default();
    let kinds = ["keep-tried", "keep-applied", "backup-ended", "copy-ended"];
    for logged in workspace.state.history(&kinds)? {
        match logged.record {
            Record::KeepTried(tried) if tried.repository == repository => {
                course.note(logged.at, tried.failure);
            }
            // All that ledgers of before tries were written down have.
            Record::KeepApplied(applied)
                if applied.repository == repository && applied.error.is_none() =>
            {
                course.note(logged.at, None);
            }
            Record::BackupEnded(it) if it.repository == repository && it.snapshot.is_some() => {
                course.left_since.get_or_insert(logged.at);
            }
            Record::CopyEnded(it) if it.to == repository && it.snapshot.is_some() => {
                course.left_since.get_or_insert(logged.at);
            }
            _ => {}
        }
    }
    let (last, left) = (course.last, course.left_since);
    let is_left =
        course.failing.is_none() && left.is_some_and(|since| now.duration_since(since) >= LEFT_FOR);
    if let (true, Some(since)) = (is_left, left) {
        return Ok(Some(Standstill {
            what: "keep",
            repository: repository.to_owned(),
            services: services(&workspace.plan, repository),
            since,
            last,
            code: None,
            why: "nothing applied it, and backups went on".to_owned(),
            help: "`muster forget` does, and `muster backup` without --no-keep".to_owned(),
        }));
    }
    let what = ("keep", repository);
    Ok(course.failing(what, &workspace.plan, (now, FAILS_FOR), "`muster forget`"))
}

fn prune(
    workspace: &Workspace,
    repository: &str,
    now: Timestamp,
) -> Result<Option<Standstill>, OperationError> {
    let mut course = Course::default();
    for logged in workspace.state.history(&["pruned"])? {
        if let Record::Pruned(pruned) = logged.record
            && pruned.repository == repository
        {
            course.note_told(logged.at, pruned.error);
        }
    }
    let what = ("prune", repository);
    let when = (now, PRUNE_FAILS_FOR);
    Ok(course.failing(what, &workspace.plan, when, "`muster forget --prune`"))
}

fn verify(
    workspace: &Workspace,
    repository: &str,
    now: Timestamp,
) -> Result<Option<Standstill>, OperationError> {
    let mut course = Course::default();
    for logged in workspace.state.history(&["verify-ended"])? {
        if let Record::VerifyEnded(ended) = logged.record
            && ended.repository == repository
        {
            course.note_told(logged.at, ended.error);
        }
    }
    let command = format!("`muster verify {repository}`");
    Ok(course.failing(("verify", repository), &workspace.plan, (now, FAILS_FOR), &command))
}

/// The services whose lines write into a repository.
fn services(plan: &Plan, repository: &str) -> Vec<String> {
    let writes = |line: &muster_plan::document::Protection| {
        line.to == repository || line.copy.iter().any(|copy| copy == repository)
    };
    let services = plan.services.iter().filter(|service| service.protect.iter().any(writes));
    services.map(|service| service.name.clone()).collect()
}
