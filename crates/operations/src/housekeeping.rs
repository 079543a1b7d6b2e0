//! What follows backups: `keep` applied, space freed, and when.
//!
//! Never in the way of a backup: a repository that somebody uses is left for the next time. A lock
//! whose process is gone is removed, as `muster repo unlock` does; or one killed backup would be the
//! end of all retention. In
//! the loop `keep` is applied at most once an hour to a repository. Space is freed at most once in
//! 23 hours, which is the time that the first phase of a prune leaves what it took out of use
//! before a later one deletes it; and only when something was removed or waits for its deletion.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use muster_repository::{
    prune::{Amount, KEEP_DELETE_DEFAULT, PruneOptions, PruneReport, prune},
    run::Run,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::OperationError,
    keeping::{self, Applied},
    protect::Name,
    records::Record,
    stores,
    workspace::Workspace,
};

/// How long after a backup a repository is waited for that somebody uses.
const PATIENCE: Duration = Duration::from_secs(5);

/// In the loop `keep` is applied to a repository at most so often.
pub(crate) const KEEP_EVERY: Duration = Duration::from_secs(60 * 60);

/// What a prune did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// The repository.
    pub repository: String,
    /// Bytes that snapshots need.
    pub used_bytes: u64,
    /// Bytes that none needs.
    pub unused_bytes: u64,
    /// Bytes of packs that were taken out of use now.
    pub marked_bytes: u64,
    /// Bytes of packs that were deleted.
    pub deleted_bytes: u64,
    /// Bytes of packs that wait for their deletion.
    pub waiting_bytes: u64,
    /// Packs that were to be repacked and are damaged, in hex.
    pub damaged: Vec<String>,
    /// Locks of processes that are gone, removed so that the repository could be locked.
    #[serde(default, skip_serializing_if = "keeping::is_none")]
    pub unlocked: usize,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Pruned {
    fn of(repository: &str, report: &PruneReport, unlocked: usize) -> Self {
        let bytes = |amount: Amount| amount.bytes;
        Self {
            repository: repository.to_owned(),
            used_bytes: report.used_bytes,
            unused_bytes: report.unused_bytes,
            marked_bytes: bytes(report.marked),
            deleted_bytes: bytes(report.deleted),
            waiting_bytes: bytes(report.waiting),
            damaged: report.damaged.iter().map(|(pack, _)| pack.to_hex()).collect(),
            unlocked,
            error: None,
        }
    }
}

/// What was done in one repository after backups.
#[derive(Debug)]
#[must_use = "something may have failed"]
pub struct Kept {
    /// The repository.
    pub repository: String,
    /// What was removed; `None` when nothing was to go.
    pub applied: Result<Option<Applied>, OperationError>,
    /// The prune, if it was due.
    pub pruned: Option<Result<Pruned, OperationError>>,
}

impl Kept {
    /// Whether there is anything to tell.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        matches!(self.applied, Ok(None)) && self.pruned.is_none()
    }

    /// What failed: what was tried, and why not.
    pub fn failures(&self) -> impl Iterator<Item = (String, &OperationError)> {
        let keep = self.applied.as_ref().err();
        let prune = self.pruned.as_ref().and_then(|pruned| pruned.as_ref().err());
        let name = &self.repository;
        let keep = keep.map(|error| (format!("apply `keep` in {name}"), error));
        keep.into_iter().chain(prune.map(|error| (format!("prune {name}"), error)))
    }
}

/// Applies `keep` to the named data (to all, when none is) in a repository, and prunes it when
/// that is due.
pub fn keep_house(
    workspace: &Workspace,
    repository: &str,
    names: &[Name],
    now: Timestamp,
    run: &Run,
) -> Kept {
    let applied = keeping::keep_now(workspace, repository, names, (now, PATIENCE), run);
    let due = match &applied {
        Ok(_) => prune_is_due(workspace, repository, now),
        Err(_) => Ok(false),
    };
    let pruned = match due {
        Ok(true) => Some(prune_now(workspace, repository, run)),
        Ok(false) => None,
        Err(error) => Some(Err(error)),
    };
    Kept { repository: repository.to_owned(), applied, pruned }
}

/// Whether something is to be freed, and the last prune is long enough ago.
fn prune_is_due(
    workspace: &Workspace,
    repository: &str,
    now: Timestamp,
) -> Result<bool, OperationError> {
    let (mut is_wanted, mut last) = (false, None);
    for logged in workspace.state.history(&["keep-applied", "pruned"])? {
        match logged.record {
            Record::KeepApplied(applied) if applied.repository == repository => {
                is_wanted |= !applied.removed.is_empty();
            }
            Record::Pruned(pruned) if pruned.repository == repository => {
                last = Some(logged.at);
                is_wanted = pruned.error.is_some() || pruned.waiting_bytes > 0;
            }
            _ => {}
        }
    }
    let pause = SignedDuration::try_from(KEEP_DELETE_DEFAULT).unwrap_or(SignedDuration::ZERO);
    Ok(is_wanted && last.is_none_or(|last| now.duration_since(last) >= pause))
}

/// Frees what no snapshot of a repository needs, in two phases; the result is in the ledger.
///
/// # Errors
/// Fails when the repository cannot be opened or pruned, or the ledger cannot be written.
pub fn prune_now(
    workspace: &Workspace,
    repository: &str,
    run: &Run,
) -> Result<Pruned, OperationError> {
    let opened = stores::open(workspace, repository)?;
    let unlocked = keeping::unlock(workspace, &opened);
    let options = PruneOptions { retry_lock: PATIENCE, ..PruneOptions::default() };
    let done = prune(&opened, &options, &workspace.state.environment, run);
    let done = done.map_err(OperationError::below);
    let pruned = match &done {
        Ok(report) => Pruned::of(repository, report, unlocked),
        Err(error) => Pruned {
            error: Some(error.one_line()),
            ..Pruned::of(repository, &PruneReport::default(), unlocked)
        },
    };
    workspace.state.record(&Record::Pruned(pruned.clone()))?;
    done.map(|_| pruned)
}
