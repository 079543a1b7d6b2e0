//! Why a prune could not be done.

use muster_model::{Class, Fault};
use thiserror::Error;

use crate::{
    format::pack::BlobKind,
    id::{BlobId, PackId},
    lock::LockError,
    packer::WriteError,
    repository::{ReadError, SaveError},
    run::Cancelled,
    storage::{File, StorageError},
};

/// A prune could not be done.
#[derive(Debug, Error)]
pub enum PruneError {
    /// Others hold the repository, or a lock failed.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A snapshot, tree or index file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An index file could not be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// A pack could not be written.
    #[error(transparent)]
    Write(WriteError),
    /// Snapshots need something that is in no index.
    #[error("prune: snapshots need {} {id}, which no index lists", kind.as_str())]
    MissingBlob {
        /// Its kind.
        kind: BlobKind,
        /// Its id.
        id: BlobId,
    },
    /// Packs that snapshots need are missing or have another size than the index says.
    #[error("prune: {}", lost(packs))]
    PacksLost {
        /// The packs.
        packs: Vec<PackId>,
    },
    /// Somebody else changed the index files meanwhile.
    #[error("prune: another prune or repair replaced index files meanwhile")]
    Overtaken,
}

fn lost(packs: &[PackId]) -> String {
    let first = packs.first().map(|pack| File::Pack(*pack).to_string()).unwrap_or_default();
    match packs.len() {
        1 => format!("a pack that snapshots need is missing or damaged: {first}"),
        more => format!("{more} packs that snapshots need are missing or damaged, {first} for one"),
    }
}

impl From<Cancelled> for PruneError {
    fn from(error: Cancelled) -> Self {
        Self::Read(error.into())
    }
}

impl Fault for PruneError {
    fn class(&self) -> Class {
        match self {
            Self::Lock(error) => error.class(),
            Self::Read(error) => error.class(),
            Self::Storage(error) => error.class(),
            Self::Save(error) => error.class(),
            Self::Write(error) => error.class(),
            Self::MissingBlob { .. } | Self::PacksLost { .. } => Class::Corrupt,
            Self::Overtaken => Class::Conflict,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Lock(error) => error.code(),
            Self::Read(error) => error.code(),
            Self::Storage(error) => error.code(),
            Self::Save(error) => error.code(),
            Self::Write(error) => error.code(),
            Self::MissingBlob { .. } => "blob-missing",
            Self::PacksLost { .. } => "packs-lost",
            Self::Overtaken => "overtaken",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Lock(error) => error.help(),
            Self::Read(error) => error.help(),
            Self::Storage(error) => error.help(),
            Self::Save(error) => error.help(),
            Self::Write(error) => error.help(),
            Self::MissingBlob { .. } | Self::PacksLost { .. } => Some(
                "nothing was removed; see what is affected with 'muster repo check', and prune \
                 when it is mended"
                    .to_owned(),
            ),
            Self::Overtaken => Some("nothing was removed; run the command again".to_owned()),
        }
    }
}

impl From<crate::immutable::HeldError> for PruneError {
    fn from(error: crate::immutable::HeldError) -> Self {
        match error {
            crate::immutable::HeldError::Storage(error) => error.into(),
            crate::immutable::HeldError::Cancelled(error) => error.into(),
        }
    }
}
