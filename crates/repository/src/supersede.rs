//! Putting a changed form of a snapshot in the place of the old one.
//!
//! The order keeps a form of the snapshot readable at every moment: the new file is stored and
//! read back, and only then may the old one go. A crash in between leaves both; whoever runs the
//! change again finds the new form (`Snapshots::save` does not write it twice) and removes the
//! old.
//!
//! A form that the store holds is never removed: it would only be hidden, and what is held is held
//! to be found.
//!
//! What changes in a snapshot is for the callers to say; nothing here looks at trees.

use muster_model::{Class, Fault};
use thiserror::Error;

use crate::{
    check::CheckError,
    format::{FormatError, snapshot::Snapshot},
    id::SnapshotId,
    immutable::{self, HeldError},
    packer::WriteError,
    repository::{ReadError, Repository, SaveError},
    run::{Cancelled, Run},
    storage::{File, Retention, StorageError, StorageProblem},
};

/// The snapshots of a repository while some of them are being changed.
pub(crate) struct Snapshots<'r> {
    repository: &'r Repository,
    run: &'r Run,
    known: Vec<(SnapshotId, Snapshot)>,
}

impl<'r> Snapshots<'r> {
    /// Reads all snapshots that can be read; others are left out.
    pub(crate) fn load(repository: &'r Repository, run: &'r Run) -> Result<Self, ChangeError> {
        let mut known = Vec::new();
        for id in repository.snapshot_ids()? {
            match repository.snapshot(id) {
                Ok(snapshot) => known.push((id, snapshot)),
                Err(error) if matches!(error.class(), Class::NotFound | Class::Corrupt) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { repository, run, known })
    }

    /// Stores a snapshot and reads it back, unless one with the same content is there.
    pub(crate) fn save(&mut self, snapshot: &Snapshot) -> Result<SnapshotId, ChangeError> {
        if let Some((id, _)) = self.known.iter().find(|(_, known)| known == snapshot) {
            return Ok(*id);
        }
        // Without the lock, what the snapshot refers to may have been deleted meanwhile.
        self.run.cancel.check_condition()?;
        let id = self.repository.save_unpacked(File::Snapshot, snapshot)?;
        match self.repository.snapshot(id)? == *snapshot {
            true => self.known.push((id, snapshot.clone())),
            false => {
                let source = FormatError::invalid("it is not what was stored");
                return Err(ReadError::Damaged { file: File::Snapshot(id), source }.into());
            }
        }
        Ok(id)
    }

    /// Removes a snapshot's file, unless the store holds it: then it stays, and this tells how it is
    /// held. (A bucket with versions would only hide it.) `new` has taken its place.
    pub(crate) fn remove(
        &mut self,
        id: SnapshotId,
        new: Option<SnapshotId>,
    ) -> Result<Option<Retention>, ChangeError> {
        self.run.cancel.check_condition()?;
        let held = immutable::held_snapshots(self.repository, &[id], self.run)?;
        if let Some((_, retention)) = held.first() {
            return Ok(Some(*retention));
        }
        match self.repository.storage().delete(File::Snapshot(id)) {
            Err(source) if source.problem() != StorageProblem::NotFound => {
                let source = Box::new(source);
                return Err(ChangeError::NotRemoved { old: id, new, source });
            }
            _ => {}
        }
        self.known.retain(|(known, _)| *known != id);
        Ok(None)
    }
}

/// What is recorded could not be changed. What was done until then is done, and running the
/// change again goes on from there.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// Something could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A blob or an index file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A snapshot or an index file could not be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The store did not let go of a snapshot: it is there, beside its new form if there is one.
    #[error("remove snapshot {}{}", old.short(), beside(*new))]
    NotRemoved {
        /// The snapshot.
        old: SnapshotId,
        /// Its new form.
        new: Option<SnapshotId>,
        /// Why.
        source: Box<StorageError>,
    },
    /// The check that comes first could not go on.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A tree would lose something when it is written anew: another tool wrote more into it
    /// than is understood here.
    #[error(
        "write the folder '{}' anew without losing what another tool recorded in it",
        String::from_utf8_lossy(path)
    )]
    WouldLose {
        /// The folder.
        path: Vec<u8>,
    },
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

fn beside(new: Option<SnapshotId>) -> String {
    new.map_or_else(String::new, |new| {
        format!(": it stays beside its new form {}, which is stored", new.short())
    })
}

impl From<HeldError> for ChangeError {
    fn from(error: HeldError) -> Self {
        match error {
            HeldError::Storage(error) => error.into(),
            HeldError::Cancelled(error) => error.into(),
        }
    }
}

impl ChangeError {
    fn cause(&self) -> Option<&dyn Fault> {
        match self {
            Self::Read(error) => Some(error),
            Self::Write(error) => Some(error),
            Self::Save(error) => Some(error),
            Self::Storage(error) => Some(error),
            Self::NotRemoved { source, .. } => Some(&**source),
            Self::Check(error) => Some(error),
            Self::WouldLose { .. } => None,
            Self::Cancelled(error) => Some(error),
        }
    }
}

impl Fault for ChangeError {
    fn class(&self) -> Class {
        self.cause().map_or(Class::Conflict, Fault::class)
    }

    fn code(&self) -> &'static str {
        self.cause().map_or("tree-would-lose", Fault::code)
    }

    fn help(&self) -> Option<String> {
        let own = "the snapshot was left as it is; rewrite it with the tool that made it";
        self.cause().map_or_else(|| Some(own.to_owned()), Fault::help)
    }
}
