//! Why a backup failed.

use std::{io, path::PathBuf};

use muster_model::{Class, Fault};
use thiserror::Error;

use super::Problem;
use crate::{
    lock::LockError,
    packer::WriteError,
    repository::{ReadError, SaveError},
    run::Cancelled,
    storage::StorageError,
};

/// What is tried on sources that were named, before they are read.
pub(super) const FIND: &str = "find";

impl Problem {
    /// Whether it was there when its folder was listed, and no more when it was to be read. A
    /// source that was named and is not there at all has not vanished.
    #[must_use]
    pub fn has_vanished(&self) -> bool {
        self.error.kind() == io::ErrorKind::NotFound && self.operation != FIND
    }
}

/// A backup failed; there is no snapshot.
#[derive(Debug, Error)]
pub enum BackupError {
    /// Nothing to back up.
    #[error("back up {}: nothing of it can be found", names(missing))]
    NoSource {
        /// What was named.
        missing: Vec<PathBuf>,
        /// Why the last of them cannot be found.
        #[source]
        source: Option<io::Error>,
    },
    /// A source lies in the repository itself.
    #[error("back up '{}': it is the repository, or lies in it", path.display())]
    SourceIsRepository {
        /// The source.
        path: PathBuf,
    },
    /// A folder that stands for its entries could not be listed.
    #[error("list the source folder")]
    Sources(#[source] io::Error),
    /// The stream broke off, or its command failed.
    #[error("read the stream to its end: {0}")]
    Stream(String),
    /// The lock could not be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The repository could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The repository could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The snapshot could not be written.
    #[error(transparent)]
    Save(#[from] SaveError),
}

fn names(paths: &[PathBuf]) -> String {
    match paths {
        [] => "nothing".to_owned(),
        paths => {
            paths.iter().map(|path| format!("'{}'", path.display())).collect::<Vec<_>>().join(", ")
        }
    }
}

impl From<Cancelled> for BackupError {
    fn from(error: Cancelled) -> Self {
        Self::Write(error.into())
    }
}

impl From<StorageError> for BackupError {
    fn from(error: StorageError) -> Self {
        Self::Read(error.into())
    }
}

impl BackupError {
    fn fault(&self) -> Option<&dyn Fault> {
        match self {
            Self::NoSource { .. }
            | Self::SourceIsRepository { .. }
            | Self::Sources(_)
            | Self::Stream(_) => None,
            Self::Lock(error) => Some(error),
            Self::Read(error) => Some(error),
            Self::Write(error) => Some(error),
            Self::Save(error) => Some(error),
        }
    }
}

impl Fault for BackupError {
    fn class(&self) -> Class {
        match self {
            Self::NoSource { .. } => Class::NotFound,
            Self::SourceIsRepository { .. } => Class::Input,
            Self::Sources(_) | Self::Stream(_) => Class::Transient,
            _ => self.fault().map_or(Class::Bug, Fault::class),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoSource { .. } => "source-missing",
            Self::SourceIsRepository { .. } => "source-is-repository",
            Self::Sources(_) => "source-unreadable",
            Self::Stream(_) => "stream-failed",
            _ => self.fault().map_or("aborted", Fault::code),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::NoSource { .. } => Some("check the paths; nothing was written".to_owned()),
            Self::SourceIsRepository { .. } => {
                Some("to have it twice, use 'muster repo copy'; nothing was written".to_owned())
            }
            Self::Sources(_) => None,
            Self::Stream(_) => {
                Some("no snapshot was written; mend the command and run it again".to_owned())
            }
            _ => self.fault().and_then(Fault::help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_there_has_vanished() {
        let check = |operation, kind: io::ErrorKind, expected: bool| {
            let problem = Problem { path: b"/x".to_vec(), operation, error: kind.into() };
            assert_eq!(problem.has_vanished(), expected, "{problem:?}");
        };
        check("open", io::ErrorKind::NotFound, true);
        check("open", io::ErrorKind::PermissionDenied, false);
        check(FIND, io::ErrorKind::NotFound, false);
    }
}
