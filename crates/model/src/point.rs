//! Recovery points: moments that data can be brought back to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{kind::BackupKind, place::Place};

/// A moment that one data item can be brought back to, with the copies that hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPoint {
    /// Shared by the data items of a service that were protected in one run.
    pub id: String,
    /// The service.
    pub service: String,
    /// The data item.
    pub data: String,
    /// What kind of source the data came from, in the plan's word.
    pub source: String,
    /// The content is not older than this moment.
    pub data_time: Timestamp,
    /// How it was made.
    pub kind: BackupKind,
    /// Something was left out when it was made: it never proves.
    pub partial: bool,
    /// It looks wrong, as a source that was encrypted or emptied does: it is never a good one until
    /// a person has cleared it.
    #[serde(default)]
    pub suspect: bool,
    /// Bytes that a restore writes, where that is known.
    pub bytes: Option<u64>,
    /// Where it is.
    pub copies: Vec<PointCopy>,
    /// The drill that restored and questioned it, or a later point of the same chain.
    pub proof: Option<PointProof>,
}

impl RecoveryPoint {
    /// Whether it can be taken for a good one: whole, nothing about it looks wrong, and of one copy
    /// at least no damage is known.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let is_lost = !self.copies.is_empty() && self.copies.iter().all(|copy| copy.damaged);
        !self.partial && !self.suspect && !is_lost
    }
}

/// One copy of a recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointCopy {
    /// The repository's name in the plan.
    pub repository: String,
    /// Where that repository stands.
    pub place: Place,
    /// Nobody can change the copy, as its store said when it was asked; what the plan says of it
    /// counts for nothing here.
    pub immutable: bool,
    /// Until when that is so; `None` when it is not, or nobody could tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immutable_until: Option<Timestamp>,
    /// The snapshot in it, in hex.
    pub snapshot: String,
    /// Something that it needs was found damaged when the repository was read back last.
    #[serde(default)]
    pub damaged: bool,
}

/// How a point was proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointProof {
    /// The drill.
    pub drill: String,
    /// When it ended.
    pub at: Timestamp,
    /// `restored` when this very point was, `same-chain` when an other point of the same data
    /// item in the same repository was.
    pub how: String,
}
