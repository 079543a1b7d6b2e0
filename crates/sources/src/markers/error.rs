//! Why a marker could not be written or read.

use std::{io, path::PathBuf};

use muster_model::{Class, Fault};
use thiserror::Error;

use crate::{error::class_of, postgres::PostgresError, sqlite::SqliteError};

/// Markers could not be written or read.
#[derive(Debug, Error)]
pub enum MarkerError {
    /// The database does not take or give them.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// The server does not take or give them.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The file does not take or give them.
    #[error("{operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl MarkerError {
    /// Whether the marker is in the store for certain not.
    pub(super) fn surely_wrote_nothing(&self) -> bool {
        matches!(self, Self::Sqlite(SqliteError::Busy { .. }))
    }
}

impl Fault for MarkerError {
    fn class(&self) -> Class {
        match self {
            Self::Sqlite(error) => error.class(),
            Self::Postgres(error) => error.class(),
            Self::File { source, .. } => class_of(source),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Sqlite(error) => error.code(),
            Self::Postgres(error) => error.code(),
            Self::File { .. } => "marker-failed",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Sqlite(error) => error.help(),
            Self::Postgres(error) => error.help(),
            Self::File { .. } => {
                Some("markers need a folder that exists, may be written, and has room".to_owned())
            }
        }
    }
}
