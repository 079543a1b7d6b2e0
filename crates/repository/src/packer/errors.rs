//! Why blobs could not be written.

use muster_model::{Class, Fault};
use thiserror::Error;

use crate::{
    crypto::NoRandomness, format::FormatError, id::BlobId, repository::SaveError, run::Cancelled,
    storage::StorageError,
};

/// A blob could not be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The blob could not be compressed or sealed.
    #[error("seal a blob")]
    Seal(#[from] FormatError),
    /// No random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The sealed blob does not open to what went in: failing hardware, or a bug.
    #[error("verify the sealed blob {id} against its content before storing it")]
    NotVerified {
        /// The blob.
        id: BlobId,
    },
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// Another thread of the operation failed first; its error is the one to report.
    #[error("go on after another part of the operation failed")]
    Aborted,
}

impl From<SaveError> for WriteError {
    fn from(error: SaveError) -> Self {
        match error {
            SaveError::Storage(error) => Self::Storage(error),
            SaveError::Seal(error) => Self::Seal(error),
        }
    }
}

impl Fault for WriteError {
    fn class(&self) -> Class {
        match self {
            Self::Storage(error) => error.class(),
            Self::NoRandomness(_) => Class::Transient,
            Self::Seal(_) | Self::Aborted => Class::Bug,
            Self::NotVerified { .. } => Class::Corrupt,
            Self::Cancelled(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::NoRandomness(_) => "no-randomness",
            Self::Seal(_) => "seal-failed",
            Self::NotVerified { .. } => "seal-not-verified",
            Self::Cancelled(error) => error.code(),
            Self::Aborted => "aborted",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Storage(error) => error.help(),
            Self::NotVerified { .. } => Some(
                "nothing wrong was stored; test this machine's memory and processor before you \
                 trust it with backups"
                    .to_owned(),
            ),
            Self::Cancelled(error) => error.help(),
            _ => None,
        }
    }
}
