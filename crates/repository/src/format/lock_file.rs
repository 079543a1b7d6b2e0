//! Lock files: who works in the repository, and whether alone.
//!
//! # Source
//! restic, `doc/design.rst`, *Locks*; `internal/repository/lock_file.go`.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// The longest lock file that is read; real ones are about 200 bytes.
pub const LOCK_FILE_BYTES_MAX: u64 = 64 << 10;

/// A lock file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFile {
    /// When the lock was written or last refreshed.
    pub time: Timestamp,
    /// Whether nobody else may work in the repository.
    pub exclusive: bool,
    /// The host of the process.
    #[serde(default)]
    pub hostname: String,
    /// The user of the process.
    #[serde(default)]
    pub username: String,
    /// The process.
    pub pid: i64,
    /// The user's number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// The group's number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
