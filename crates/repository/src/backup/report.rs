//! What a backup tells when it is done.

use std::{io, time::Duration};

use super::Signal;
use crate::{format::snapshot::Snapshot, id::SnapshotId};

/// Something that could not be backed up.
#[derive(Debug)]
pub struct Problem {
    /// Its absolute path.
    pub path: Vec<u8>,
    /// What failed, as a verb: `open`, `read` …
    pub operation: &'static str,
    /// Why.
    pub error: io::Error,
}

/// What a backup did.
#[derive(Debug)]
#[must_use = "a backup may have left something out"]
pub struct BackupReport {
    /// The new snapshot; `None` after a dry run, and when nothing changed and none was wanted.
    pub id: Option<SnapshotId>,
    /// Its content, with the summary.
    pub snapshot: Snapshot,
    /// What could not be read.
    pub problems: Vec<Problem>,
    /// What was left out on purpose and may surprise.
    pub notices: Vec<String>,
    /// What the repository has lost, as far as a backup notices.
    pub losses: Vec<Loss>,
    /// What looks wrong; [`super::is_suspect`] says whether the snapshot carries [`super::SUSPECT_TAG`].
    pub signals: Vec<Signal>,
    /// Packs of an interrupted run that were put to use.
    pub packs_adopted: usize,
    /// How long it took.
    pub duration: Duration,
}

/// Something that the repository has lost and that older snapshots may miss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// `packs-gone` or `packs-damaged`.
    pub code: &'static str,
    /// What was lost, and what to do.
    pub message: String,
}
