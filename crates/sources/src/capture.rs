//! What every source is asked, and what it answers.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use muster_model::BackupKind;
use muster_repository::id::{BlobId, SnapshotId};

/// What to record with a snapshot, and where to work.
#[derive(Debug, Clone)]
pub struct Request {
    /// The service that the data belongs to.
    pub service: String,
    /// The data item.
    pub data: String,
    /// The recovery point that the snapshot becomes part of.
    pub point: String,
    /// How much is read again.
    pub kind: BackupKind,
    /// An existing folder of mode 0700 for temporary copies; what is put there is removed again.
    pub staging: PathBuf,
    /// Tables whose rows are counted as the snapshot holds them.
    pub count_rows: Vec<String>,
}

impl Request {
    /// The tags of the snapshot, without the kind's, which the engine adds.
    #[must_use]
    pub fn tags(&self, source: &str) -> Vec<String> {
        vec![
            format!("muster:service={}", self.service),
            format!("muster:data={}", self.data),
            format!("muster:point={}", self.point),
            format!("muster:source={source}"),
        ]
    }
}

/// A snapshot that was taken.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a snapshot may have left something out"]
pub struct Captured {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its root tree, the hash of all that it holds: equal in every copy, whatever it is sealed with.
    pub tree: BlobId,
    /// The content is not older than this moment, by the wall clock of this machine.
    pub data_time: Timestamp,
    /// Size of the data as a restore will write it.
    pub bytes: u64,
    /// Bytes that the repository grew by.
    pub bytes_added: u64,
    /// How many files the snapshot holds.
    pub files: u64,
    /// What was left out; a snapshot with any is partial and proves nothing.
    pub left_out: Vec<String>,
    /// What may surprise: implausibly small, excluded on purpose.
    pub notices: Vec<Notice>,
    /// Least and most rows of each counted table at the moment of the snapshot.
    pub rows: BTreeMap<String, (u64, u64)>,
}

/// Something worth telling about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// A stable name in kebab case.
    pub code: &'static str,
    /// What was seen.
    pub message: String,
}

/// Data that was brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a restore may have left something out"]
pub struct Restored {
    /// What `{{ target.data.NAME.path }}` stands for: the file, or the folder.
    pub path: PathBuf,
    /// Bytes written.
    pub bytes: u64,
    /// Files written.
    pub files: u64,
    /// What could not be restored.
    pub left_out: Vec<String>,
    /// Whether something is left out because the repository is damaged.
    pub damaged: bool,
}

/// How an item of [`Captured::left_out`] ends that was gone before it could be read.
pub const VANISHED: &str = "it vanished before it was read";

/// A numbered, timestamped row in protected data, by which loss is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Marker {
    /// Who writes: one number per process that writes.
    pub writer: uuid::Uuid,
    /// Counts from 1 for each writer.
    pub n: u64,
    /// When, by the wall clock of the writer.
    pub at: Timestamp,
}
