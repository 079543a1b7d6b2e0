//! Why restored files could not be compared or damaged.

use std::{io, path::PathBuf};

use muster_model::{Class, Fault};
use muster_repository::{repository::ReadError, run::Cancelled};
use thiserror::Error;

use crate::error::{RestoreDataError, class_of};

/// Restored files could not be compared with their snapshot, or not be damaged.
#[derive(Debug, Error)]
pub enum FilesError {
    /// A file cannot be used.
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
    /// No file with any content is there.
    #[error("damage a file in {}: none there has any content", folder.display())]
    NothingToDamage {
        /// Where was looked.
        folder: PathBuf,
    },
    /// The snapshot does not say what it holds.
    #[error(transparent)]
    Snapshot(#[from] RestoreDataError),
    /// The repository cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl FilesError {
    pub(super) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { operation, path, source }
    }

    fn fault(&self) -> Option<&dyn Fault> {
        match self {
            Self::Snapshot(error) => Some(error),
            Self::Read(error) => Some(error),
            Self::Cancelled(error) => Some(error),
            Self::File { .. } | Self::NothingToDamage { .. } => None,
        }
    }
}

impl Fault for FilesError {
    fn class(&self) -> Class {
        match self {
            Self::File { source, .. } => class_of(source),
            Self::NothingToDamage { .. } => Class::NotFound,
            _ => self.fault().map_or(Class::Bug, Fault::class),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "target-failed",
            Self::NothingToDamage { .. } => "nothing-to-damage",
            _ => self.fault().map_or("aborted", Fault::code),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::File { .. } => Some("check the path, its owner and its mode".to_owned()),
            Self::NothingToDamage { .. } => {
                Some("a control needs data: put some into the source".to_owned())
            }
            _ => self.fault().and_then(Fault::help),
        }
    }
}
