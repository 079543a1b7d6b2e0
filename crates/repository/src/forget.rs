//! Forget: removes snapshots, and only those that were shown.
//!
//! Which ones is decided elsewhere (`control`, by a policy; or a person, by ids). Here stands what
//! no policy knows: which tags protect a snapshot, which make it unsound, and how snapshots go: all
//! that was relied upon when the proposal was made must still be there, and what is deleted stays
//! deleted. Their data stays until `prune`.

use std::collections::HashSet;

use muster_model::{Class, Fault};
use thiserror::Error;

use crate::{
    backup::{PARTIAL_TAG, SUSPECT_TAG},
    format::snapshot::Snapshot,
    id::SnapshotId,
    immutable::{self, HeldError, HeldSnapshots},
    lock::Lock,
    repository::Repository,
    run::{Cancelled, Run},
    storage::{File, FileKind, StorageError},
};

/// Snapshots that are removed between two looks at the own lock.
const DELETIONS_UNLOOKED: usize = 256;

/// Tag of a snapshot that nobody may remove: a legal hold.
pub const HOLD_TAG: &str = "muster:hold";

/// Tag of a snapshot whose recovery was proven. The newest of each group is never removed.
pub const PROVEN_TAG: &str = "muster:proven";

/// Why a snapshot is not to be relied upon, if so.
#[must_use]
pub fn unsound(snapshot: &Snapshot) -> Option<&'static str> {
    let has = |tag: &str| snapshot.tags.iter().any(|own| own == tag);
    match (has(SUSPECT_TAG), has(PARTIAL_TAG)) {
        (true, _) => Some("suspect"),
        (_, true) => Some("partial"),
        _ => None,
    }
}

/// Whether a snapshot has a tag.
#[must_use]
pub fn has_tag(snapshot: &Snapshot, tag: &str) -> bool {
    snapshot.tags.iter().any(|own| own == tag)
}

/// What was removed, and what could not be.
#[derive(Debug, Default)]
#[must_use = "some snapshots may have stayed"]
pub struct ForgetReport {
    /// Snapshots that are gone now.
    pub removed: Vec<SnapshotId>,
    /// Those that the store holds, and until when: deleting them would hide them and free nothing.
    pub held: HeldSnapshots,
    /// Those that could not be deleted, and why.
    pub failed: Vec<(SnapshotId, StorageError)>,
}

/// Removes the snapshots `remove`, provided that all of `relied_upon` are still there: those whose
/// being there was a reason to remove the others. `_lock` is held exclusively, as proof.
///
/// # Errors
/// Fails, before anything is removed, when one that was relied upon is gone, when the store cannot
/// be listed, or the lock is lost; also when deletions cannot be made durable.
pub fn forget(
    repository: &Repository,
    _lock: &Lock,
    remove: &[SnapshotId],
    relied_upon: &[SnapshotId],
    run: &Run,
) -> Result<ForgetReport, ForgetError> {
    let there: HashSet<SnapshotId> = repository.snapshot_ids()?.into_iter().collect();
    if let Some(gone) = relied_upon.iter().find(|id| !there.contains(id)) {
        return Err(ForgetError::Changed { gone: *gone });
    }
    let mut report = ForgetReport::default();
    run.progress.add_total(remove.len() as u64, 0);
    run.progress.total_is_known();
    report.held = immutable::held_snapshots(repository, remove, run)?;
    let held: HashSet<SnapshotId> = report.held.iter().map(|(id, _)| *id).collect();
    let free: Vec<SnapshotId> = remove.iter().copied().filter(|id| !held.contains(id)).collect();
    run.progress.add_done(report.held.len() as u64, 0);
    for some in free.chunks(DELETIONS_UNLOOKED) {
        run.cancel.check_condition()?;
        let files: Vec<File> = some.iter().map(|id| File::Snapshot(*id)).collect();
        for (id, deleted) in some.iter().zip(repository.storage().delete_all(&files)) {
            match deleted {
                Ok(()) => report.removed.push(*id),
                Err(error) => report.failed.push((*id, error)),
            }
        }
        run.progress.add_done(some.len() as u64, 0);
    }
    repository.storage().settle(FileKind::Snapshot)?;
    Ok(report)
}

/// Snapshots could not be removed.
#[derive(Debug, Error)]
pub enum ForgetError {
    /// Something that the proposal relies upon is gone.
    #[error("remove snapshots as proposed: {}, which was to be kept, is gone", gone.short())]
    Changed {
        /// The snapshot.
        gone: SnapshotId,
    },
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The run was asked to stop, or the lock is lost.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl From<HeldError> for ForgetError {
    fn from(error: HeldError) -> Self {
        match error {
            HeldError::Storage(error) => error.into(),
            HeldError::Cancelled(error) => error.into(),
        }
    }
}

impl Fault for ForgetError {
    fn class(&self) -> Class {
        match self {
            Self::Changed { .. } => Class::Conflict,
            Self::Storage(error) => error.class(),
            Self::Cancelled(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Changed { .. } => "overtaken",
            Self::Storage(error) => error.code(),
            Self::Cancelled(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Changed { .. } => Some("nothing was removed; run the command again".to_owned()),
            Self::Storage(error) => error.help(),
            Self::Cancelled(error) => error.help(),
        }
    }
}
