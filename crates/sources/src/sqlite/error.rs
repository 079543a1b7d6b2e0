//! Why SQLite could not do what was asked.

use std::path::{Path, PathBuf};

use muster_model::{Class, Fault};
use muster_repository::run::Cancelled;
use rusqlite::{ErrorCode, ffi};
use thiserror::Error;

/// A database could not be copied, questioned or damaged.
#[derive(Debug, Error)]
pub enum SqliteError {
    /// Others held it all the time.
    #[error("{operation} {}: others hold it", path.display())]
    Busy {
        /// What was tried.
        operation: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// It is no database, or one whose pages make no sense.
    #[error("{operation} {}: it is damaged, or no database", path.display())]
    Damaged {
        /// What was tried.
        operation: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// Its application ended in the middle of a write, and nobody has cleared up yet.
    #[error("{operation} {}: a write was interrupted in it", path.display())]
    NeedsRecovery {
        /// What was tried.
        operation: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// Something else.
    #[error("{operation} {}", path.display())]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// No table has a row.
    #[error("damage {}: no table of it has a row", path.display())]
    NothingToDamage {
        /// The database.
        path: PathBuf,
    },
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl SqliteError {
    /// Tells `source` apart.
    pub(crate) fn of(operation: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let code = source.sqlite_error().map(|error| (error.code, error.extended_code));
        match code {
            Some((ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _)) => {
                Self::Busy { operation, path, source }
            }
            Some((ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _)) => {
                Self::Damaged { operation, path, source }
            }
            Some((
                _,
                ffi::SQLITE_READONLY_ROLLBACK
                | ffi::SQLITE_READONLY_RECOVERY
                | ffi::SQLITE_READONLY_CANTINIT,
            )) => Self::NeedsRecovery { operation, path, source },
            _ => Self::Failed { operation, path, source },
        }
    }

    /// Ready for `map_err`.
    pub(crate) fn at(operation: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::of(operation, path, source)
    }
}

impl Fault for SqliteError {
    fn class(&self) -> Class {
        match self {
            Self::Busy { .. } | Self::NeedsRecovery { .. } => Class::Conflict,
            Self::Damaged { .. } => Class::Corrupt,
            Self::Failed { source, .. } => match source.sqlite_error().map(|error| error.code) {
                Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => Class::Denied,
                Some(ErrorCode::CannotOpen) => Class::NotFound,
                _ => Class::Transient,
            },
            Self::NothingToDamage { .. } => Class::NotFound,
            Self::Cancelled(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "sqlite-busy",
            Self::Damaged { .. } => "sqlite-damaged",
            Self::NeedsRecovery { .. } => "sqlite-needs-recovery",
            Self::Failed { .. } => "sqlite-failed",
            Self::NothingToDamage { .. } => "nothing-to-damage",
            Self::Cancelled(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::Busy { .. } => "try again; find out which program holds it for so long",
            Self::Damaged { .. } => {
                "leave it as it is, and restore a point from before the damage elsewhere"
            }
            Self::NeedsRecovery { .. } => {
                "start its application, or open it once with 'sqlite3', so that it recovers"
            }
            Self::Failed { .. } => "check the path, its owner and its mode",
            Self::NothingToDamage { .. } => "a control needs data: put a row into the database",
            Self::Cancelled(error) => return error.help(),
        };
        Some(help.to_owned())
    }
}
