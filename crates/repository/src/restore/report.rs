//! What a restore tells: counts, what was left out and why, and errors that end it.

use std::{collections::HashSet, fmt, io, os::unix::ffi::OsStringExt, path::PathBuf, sync::Arc};

use foldhash::fast::RandomState;
use muster_model::{Class, Fault};
use thiserror::Error;

use crate::{
    format::tree::NodeKind, id::PackId, prune::Amount, repository::ReadError, run::Cancelled,
};

/// How many paths each list of a report holds at most; the counts go on. A repository without
/// packs would otherwise fill the memory with one problem a file.
pub const LISTED_MAX: usize = 50_000;

/// What is tried on things that are restored, or are not in the snapshot: when that fails, nothing
/// of the snapshot is missing.
pub(super) mod beside_content {
    pub(in crate::restore) const SET_OWNER: &str = "set the owner of";
    pub(in crate::restore) const SET_MODE: &str = "set the mode of";
    pub(in crate::restore) const SET_TIMES: &str = "set the times of";
    pub(in crate::restore) const SET_ATTRIBUTE: &str = "set an attribute of";
    pub(in crate::restore) const REMOVE_ATTRIBUTE: &str = "remove an attribute of";
    pub(in crate::restore) const LIST: &str = "list what lies in";
    pub(in crate::restore) const REMOVE: &str = "remove";
    pub(in crate::restore) const REMOVE_INCOMPLETE: &str = "remove the incomplete";
    pub(super) const ALL: [&str; 8] = [
        SET_OWNER,
        SET_MODE,
        SET_TIMES,
        SET_ATTRIBUTE,
        REMOVE_ATTRIBUTE,
        LIST,
        REMOVE,
        REMOVE_INCOMPLETE,
    ];
}

/// The next step after damage.
const DAMAGED_HELP: &str = "restore what is missing from another copy of the repository, or an \
                            older form of it from an earlier snapshot; 'muster repo check \
                            --read-data' tells which snapshots are damaged";

/// What a restore did. Paths are relative to the target.
#[derive(Debug, Default)]
#[must_use = "an unread report is not actionable: it lists what could not be restored"]
pub struct RestoreReport {
    /// How many of what.
    pub counts: RestoreCounts,
    /// What lay in the target and is not in the snapshot, topmost folders only. It was kept;
    /// with `delete` it was removed.
    pub extra: Vec<PathBuf>,
    /// What could not be restored, or not exactly, and why.
    pub problems: Vec<Problem>,
    /// What is never restored: sockets, and entries of kinds that have no content.
    pub not_restored: Vec<NotRestored>,
    /// In a dry run: the packs that content would be read from.
    pub(super) packs: HashSet<PackId, RandomState>,
    /// After a dry run of a cold repository: those of them that are archived.
    pub archived: Amount,
}

/// Counts of items and bytes. An item is a file, a folder, or another entry of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreCounts {
    /// Files whose content was written, or that were linked to one that was.
    pub files_restored: u64,
    /// Files left as they were: unchanged, newer, or never to be overwritten.
    pub files_skipped: u64,
    /// Folders made, or found and given their metadata.
    pub folders_restored: u64,
    /// Symbolic links, pipes and devices made.
    pub others_restored: u64,
    /// Symbolic links, pipes and devices left as they were.
    pub others_skipped: u64,
    /// Entries in the target that are not in the snapshot, topmost folders only.
    pub extra: u64,
    /// Entries removed from the target, with everything below removed folders.
    pub deleted: u64,
    /// Length of the restored files in bytes, holes and repeated content included.
    pub bytes_restored: u64,
    /// Bytes of content really written: without holes.
    pub bytes_written: u64,
    /// Length of the skipped files in bytes.
    pub bytes_skipped: u64,
    /// Items with an owner, attribute or time that this user may not set, or that the target's
    /// file system cannot keep. Only somebody other than root is denied silently.
    pub metadata_denied: u64,
    /// Problems, also those beyond the [`LISTED_MAX`] that are listed.
    pub problems: u64,
    /// Items that are never restored.
    pub not_restored: u64,
}

impl RestoreReport {
    /// Whether everything that was selected is in the target.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.counts.problems == 0
    }

    /// Whether a problem comes from damage in the repository.
    #[must_use]
    pub fn found_damage(&self) -> bool {
        self.problems.iter().any(|problem| problem.class() == Class::Corrupt)
    }

    /// Puts the lists in the order of paths, for the threads had none.
    pub(super) fn sort(&mut self) {
        self.problems.sort_by(|a, b| a.path.cmp(&b.path));
        self.extra.sort();
    }

    pub(super) fn add_problem(&mut self, problem: Problem) {
        self.counts.problems += 1;
        // Damage decides the exit code, so it is listed even when the list is full of others.
        if self.problems.len() < LISTED_MAX
            || (problem.class() == Class::Corrupt && !self.found_damage())
        {
            self.problems.push(problem);
        }
    }

    pub(super) fn add_extra(&mut self, path: Vec<u8>) {
        self.counts.extra += 1;
        if self.extra.len() < LISTED_MAX {
            self.extra.push(to_path(path));
        }
    }

    pub(super) fn add_not_restored(&mut self, path: Vec<u8>, kind: NodeKind) {
        self.counts.not_restored += 1;
        if self.not_restored.len() < LISTED_MAX {
            self.not_restored.push(NotRestored { path: to_path(path), kind });
        }
    }
}

/// An entry of a kind that nothing can make again from a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRestored {
    /// Where, relative to the target.
    pub path: PathBuf,
    /// What it was.
    pub kind: NodeKind,
}

/// One thing that could not be restored, or not exactly.
#[derive(Debug)]
pub struct Problem {
    /// Where, relative to the target.
    pub path: PathBuf,
    /// What was tried.
    pub operation: &'static str,
    /// Why it failed.
    pub cause: ProblemCause,
}

/// Why something could not be restored.
#[derive(Debug, Error)]
pub enum ProblemCause {
    /// The repository does not give the content.
    #[error(transparent)]
    Read(#[from] Arc<ReadError>),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something lies in the target that is not to be replaced.
    #[error("{0}")]
    InTheWay(&'static str),
    /// The content is not what the repository promised.
    #[error("{0}")]
    Damaged(String),
    /// Read back after writing, the content was another.
    #[error("bytes {start} to {end} differ from what was written")]
    Differs {
        /// First byte of the chunk that differs.
        start: u64,
        /// End of the chunk that differs.
        end: u64,
    },
    /// The folder is nested more deeply than is accepted.
    #[error("more than {0} folders are nested")]
    TooDeep(u32),
}

impl Problem {
    /// Whether the thing itself, or something in the folder, is not in the target; otherwise it is
    /// there and not exactly as it was.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        !beside_content::ALL.contains(&self.operation)
    }

    pub(super) fn new(
        path: Vec<u8>,
        operation: &'static str,
        cause: impl Into<ProblemCause>,
    ) -> Self {
        Self { path: to_path(path), operation, cause: cause.into() }
    }
}

/// A path relative to the target, from one that begins with a slash.
fn to_path(mut path: Vec<u8>) -> PathBuf {
    if path.first() == Some(&b'/') {
        path.remove(0);
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.path.display())
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl Fault for Problem {
    fn class(&self) -> Class {
        match &self.cause {
            ProblemCause::Read(error) => error.class(),
            ProblemCause::Io(error) => match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Class::Denied
                }
                io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists => Class::Conflict,
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => Class::Input,
                _ => Class::Transient,
            },
            ProblemCause::InTheWay(_) => Class::Conflict,
            ProblemCause::Damaged(_) | ProblemCause::Differs { .. } => Class::Corrupt,
            ProblemCause::TooDeep(_) => Class::Input,
        }
    }

    fn code(&self) -> &'static str {
        match &self.cause {
            ProblemCause::Read(error) => error.code(),
            ProblemCause::Io(_) if self.class() == Class::Denied => "target-denied",
            ProblemCause::Io(_) => "target-failed",
            ProblemCause::InTheWay(_) => "in-the-way",
            ProblemCause::Damaged(_) => "blob-damaged",
            ProblemCause::Differs { .. } => "verify-failed",
            ProblemCause::TooDeep(_) => "too-deep",
        }
    }

    fn help(&self) -> Option<String> {
        let help = match &self.cause {
            ProblemCause::Read(error) if error.class() == Class::Corrupt => DAMAGED_HELP,
            ProblemCause::Read(error) => return error.help(),
            ProblemCause::Io(_) if self.class() == Class::Denied => {
                "run as root to restore owners, devices and attributes"
            }
            ProblemCause::InTheWay(_) => {
                "move it away, choose another target, or allow to overwrite"
            }
            ProblemCause::Differs { .. } => {
                "the target's disk or memory changes data: check its hardware, restore elsewhere"
            }
            ProblemCause::Damaged(_) => DAMAGED_HELP,
            ProblemCause::Io(_) | ProblemCause::TooDeep(_) => return None,
        };
        Some(help.to_owned())
    }
}

/// A restore was refused, or had to end early.
///
/// A file that was being written when it ended is removed again: what stands under its final
/// name is whole.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The target holds something and overwriting was not allowed.
    #[error("restore to {}: it is not empty", target.display())]
    TargetNotEmpty {
        /// The target.
        target: PathBuf,
    },
    /// The target cannot be used.
    #[error("{operation} {}", target.display())]
    Target {
        /// What was tried.
        operation: &'static str,
        /// The target.
        target: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The target's disk, or a quota on it, is full.
    #[error("write {}: the target is full", path.display())]
    TargetFull {
        /// What was being written, relative to the target.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The tree to start from cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl RestoreError {
    pub(super) fn full(path: Vec<u8>, source: io::Error) -> Self {
        Self::TargetFull { path: to_path(path), source }
    }
}

impl Fault for RestoreError {
    fn class(&self) -> Class {
        match self {
            Self::TargetNotEmpty { .. } => Class::Denied,
            Self::Target { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Class::Denied
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => Class::Input,
                _ => Class::Transient,
            },
            Self::TargetFull { .. } => Class::Transient,
            Self::Read(error) => error.class(),
            Self::Cancelled(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::TargetNotEmpty { .. } => "target-not-empty",
            Self::Target { .. } => "target-failed",
            Self::TargetFull { .. } => "target-full",
            Self::Read(error) => error.code(),
            Self::Cancelled(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::TargetNotEmpty { .. } => {
                "choose an empty folder, or say with '--overwrite' what shall become of the \
                 files that are there"
            }
            Self::Target { .. } => "check the path, its owner and its mode",
            Self::TargetFull { .. } => {
                "free some space and run the command again with '--overwrite if-changed': what \
                 was restored already is not written twice"
            }
            Self::Read(error) if error.class() == Class::Corrupt => DAMAGED_HELP,
            Self::Read(error) => return error.help(),
            Self::Cancelled(_) => {
                "run the command again with '--overwrite if-changed': what was restored already \
                 is not written twice"
            }
        };
        Some(help.to_owned())
    }
}
