//! Why snapshots could not be made immutable.

use muster_model::{Class, Fault};
use thiserror::Error;

use crate::{
    prune::PruneError,
    repository::ReadError,
    run::Cancelled,
    storage::{File, StorageError},
};

/// Nobody could tell what is held.
#[derive(Debug, Error)]
pub enum HeldError {
    /// The store did not tell.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Fault for HeldError {
    fn class(&self) -> Class {
        match self {
            Self::Storage(error) => error.class(),
            Self::Cancelled(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::Cancelled(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Storage(error) => error.help(),
            Self::Cancelled(error) => error.help(),
        }
    }
}

/// What snapshots need could not be found out, or not be held.
#[derive(Debug, Error)]
pub enum ImmutableError {
    /// A snapshot, tree or index file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The trees of a snapshot cannot be followed.
    #[error(transparent)]
    Follow(#[from] PruneError),
    /// A snapshot needs something that no index lists.
    #[error("find what {snapshot} needs: {blobs} of its blobs are in no index")]
    Incomplete {
        /// The snapshot's file.
        snapshot: File,
        /// How many.
        blobs: usize,
    },
    /// The store failed, or cannot hold files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl ImmutableError {
    fn cause(&self) -> Option<&dyn Fault> {
        match self {
            Self::Read(error) => Some(error),
            Self::Follow(error) => Some(error),
            Self::Incomplete { .. } => None,
            Self::Storage(error) => Some(error),
            Self::Cancelled(error) => Some(error),
        }
    }
}

impl Fault for ImmutableError {
    fn class(&self) -> Class {
        self.cause().map_or(Class::Corrupt, Fault::class)
    }

    fn code(&self) -> &'static str {
        self.cause().map_or("index-incomplete", Fault::code)
    }

    fn help(&self) -> Option<String> {
        let own = "run 'muster repo check' to see what is damaged, and 'muster repo repair index'";
        self.cause().map_or_else(|| Some(own.to_owned()), Fault::help)
    }
}
