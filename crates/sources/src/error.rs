//! Why data could not be backed up, or brought back.

use std::{io, path::PathBuf};

use muster_model::{Class, Fault};
use muster_repository::{
    backup::BackupError, exclude::PatternError, id::SnapshotId, repository::ReadError,
    restore::RestoreError, tree_walk::PlaceError,
};
use thiserror::Error;

use crate::{command::CommandError, postgres::PostgresError, sqlite::SqliteError};

/// A source could not be backed up; there is no snapshot.
#[derive(Debug, Error)]
pub enum SourceError {
    /// A path cannot be recorded so that it is found again.
    #[error("back up '{path}': it is no absolute path in UTF-8")]
    Path {
        /// The path, as well as it can be shown.
        path: String,
    },
    /// A path cannot be looked at.
    #[error("find '{}'", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two paths would be restored to the same place.
    #[error(transparent)]
    Ambiguous(#[from] AmbiguousName),
    /// A pattern cannot be understood.
    #[error("understand what shall be left out")]
    Pattern(#[from] PatternError),
    /// The temporary copy cannot be made.
    #[error("keep a temporary copy in {}", path.display())]
    Staging {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database cannot be copied.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// The server cannot be backed up.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The engine failed.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

impl SourceError {
    fn fault(&self) -> Option<&dyn Fault> {
        match self {
            Self::Ambiguous(error) => Some(error),
            Self::Sqlite(error) => Some(error),
            Self::Postgres(error) => Some(error),
            Self::Command(error) => Some(error),
            Self::Backup(error) => Some(error),
            _ => None,
        }
    }
}

impl Fault for SourceError {
    fn class(&self) -> Class {
        match self {
            Self::Path { .. } | Self::Pattern(_) => Class::Input,
            Self::Missing { source, .. } | Self::Staging { source, .. } => class_of(source),
            _ => self.fault().map_or(Class::Bug, Fault::class),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Path { .. } => "source-path",
            Self::Missing { .. } => "source-missing",
            Self::Pattern(_) => "bad-pattern",
            Self::Staging { .. } => "staging-failed",
            _ => self.fault().map_or("aborted", Fault::code),
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::Path { .. } => "name it by an absolute path, or rename it",
            Self::Missing { .. } => "check the path and who may read it; nothing was written",
            Self::Pattern(_) => "correct the pattern under 'exclude'",
            Self::Staging { .. } => {
                "the folder must exist, be writable, and have room for the whole database"
            }
            _ => return self.fault().and_then(Fault::help),
        };
        Some(help.to_owned())
    }
}

/// Two paths of one data item have the same last name, under which each would be restored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("tell '{first}' from '{second}': both would be restored as '{name}'")]
pub struct AmbiguousName {
    /// The name.
    pub name: String,
    /// One path.
    pub first: String,
    /// The other.
    pub second: String,
}

impl Fault for AmbiguousName {
    fn class(&self) -> Class {
        Class::Input
    }

    fn code(&self) -> &'static str {
        "ambiguous-name"
    }

    fn help(&self) -> Option<String> {
        Some("make them two data items, or back up the folder that holds both".to_owned())
    }
}

/// Data could not be brought back.
#[derive(Debug, Error)]
pub enum RestoreDataError {
    /// The snapshot cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The snapshot does not say what it is of.
    #[error("restore snapshot {}: it is of no source that is known", snapshot.short())]
    UnknownSource {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// Two paths would be restored to the same place.
    #[error(transparent)]
    Ambiguous(#[from] AmbiguousName),
    /// What the snapshot is said to hold is not in it.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The server's data cannot be brought back.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The engine failed.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The target cannot be brought into shape.
    #[error("{operation} {}", path.display())]
    Target {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl RestoreDataError {
    fn fault(&self) -> Option<&dyn Fault> {
        match self {
            Self::Read(error) => Some(error),
            Self::Ambiguous(error) => Some(error),
            Self::Place(error) => Some(error),
            Self::Postgres(error) => Some(error),
            Self::Restore(error) => Some(error),
            Self::UnknownSource { .. } | Self::Target { .. } => None,
        }
    }
}

impl Fault for RestoreDataError {
    fn class(&self) -> Class {
        match self {
            Self::UnknownSource { .. } => Class::Input,
            Self::Target { source, .. } => class_of(source),
            _ => self.fault().map_or(Class::Bug, Fault::class),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::UnknownSource { .. } => "source-unknown",
            Self::Target { .. } => "target-failed",
            _ => self.fault().map_or("aborted", Fault::code),
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::UnknownSource { .. } => {
                "snapshots that no plan made are restored with 'muster repo restore'"
            }
            Self::Target { .. } => "check the path, its owner and its mode",
            _ => return self.fault().and_then(Fault::help),
        };
        Some(help.to_owned())
    }
}

/// The class of what the system said of a file.
pub(crate) fn class_of(error: &io::Error) -> Class {
    match error.kind() {
        io::ErrorKind::NotFound => Class::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Class::Denied,
        io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => Class::Input,
        _ => Class::Transient,
    }
}
