//! Snapshots, index files, keys and `config` that somebody archived, by a rule of the bucket for
//! example.
//!
//! Muster archives none of them: without one of each nothing can be opened. When one turns out to be
//! archived, all are looked at. Then one wait brings them back, if that is allowed, or one error
//! names them. A store in which all can be read is asked nothing.
//!
//! This is a store around a store, since small files are read from everywhere, and first when a
//! repository is opened. It leaves packs alone.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Found, Piece, What, bring, look_at, show};
use crate::{
    repository::ReadError,
    run::Run,
    storage::{Archiving, File, FileKind, Listed, Storage, StorageError, StorageProblem, forward},
};

/// How many files of a kind a message names.
const NAMED_MAX: usize = 8;

/// The kinds of small files.
const KINDS: [FileKind; 5] =
    [FileKind::Config, FileKind::Key, FileKind::Lock, FileKind::Snapshot, FileKind::Index];

/// The store, whose archived small files are brought back as the run allows, or named.
#[must_use]
pub fn small_files(inner: Arc<dyn Storage>, run: &Run) -> Arc<dyn Storage> {
    match inner.archiving() {
        Archiving::Never => inner,
        Archiving::Possible | Archiving::Expected => {
            let (run, outcome) = (run.clone(), Mutex::new(None));
            Arc::new(SmallFiles { inner, run, outcome })
        }
    }
}

#[derive(Debug)]
struct SmallFiles {
    inner: Arc<dyn Storage>,
    run: Run,
    /// What became of it when one was met first.
    outcome: Mutex<Option<Outcome>>,
}

#[derive(Debug)]
enum Outcome {
    Back,
    Left(Named),
}

impl SmallFiles {
    /// Brings all back, once; `file` is the one that was wanted.
    fn bring_back(&self, file: File) -> Result<(), StorageError> {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        match &*outcome {
            Some(Outcome::Back) => return Ok(()),
            Some(Outcome::Left(named)) => return Err(named.error(file)),
            None => {}
        }
        let found = self.look(file)?;
        let named = Named::of(&found);
        let Some(at_most) = self.run.warm_up.at_most else {
            let error = named.error(file);
            *outcome = Some(Outcome::Left(named));
            return Err(error);
        };
        let brought = bring(self.inner.as_ref(), found, What::SmallFiles, &self.run, at_most);
        *outcome = Some(if brought.is_ok() { Outcome::Back } else { Outcome::Left(named) });
        brought.map_err(|error| as_storage(error, file))
    }

    fn look(&self, wanted: File) -> Result<Found, StorageError> {
        show(&self.run, || "asking which small files are archived".to_owned());
        let mut pieces = Vec::new();
        for kind in KINDS {
            let listed = self.inner.list(kind)?;
            pieces.extend(listed.into_iter().map(|Listed { file, bytes }| Piece { file, bytes }));
        }
        // Not every store lists `config`.
        if !pieces.iter().any(|piece| piece.file == File::Config) {
            pieces.push(Piece { file: File::Config, bytes: 0 });
        }
        look_at(self.inner.as_ref(), pieces, &self.run).map_err(|error| as_storage(error, wanted))
    }
}

/// The error in a store's terms.
fn as_storage(error: ReadError, file: File) -> StorageError {
    let problem = match error {
        ReadError::Storage(error) => return error,
        ReadError::Cancelled(_) => StorageProblem::Interrupted,
        ReadError::NotWarm(_) => StorageProblem::TimedOut,
        _ => StorageProblem::Other,
    };
    StorageError::because("read", file, problem, Box::new(error))
}

/// The names of archived files, for a message.
#[derive(Debug, Clone)]
struct Named(String);

impl Named {
    fn of(found: &Found) -> Self {
        let mut files: Vec<File> =
            found.archived.iter().chain(&found.warming).map(|piece| piece.file).collect();
        files.sort_unstable();
        let of_kind = |kind: FileKind| {
            let files: Vec<_> = files.iter().filter(|file| file.kind() == kind).collect();
            let mut names: Vec<_> = files.iter().take(NAMED_MAX).map(ToString::to_string).collect();
            let more = files.len().saturating_sub(NAMED_MAX);
            names.extend((more > 0).then(|| format!("{more} more {}s", kind.noun())));
            names
        };
        Self(KINDS.into_iter().flat_map(of_kind).collect::<Vec<_>>().join(", "))
    }

    fn error(&self, file: File) -> StorageError {
        let why = Box::new(self.clone());
        StorageError::because("read", file, StorageProblem::Archived, why)
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "archived: {}", self.0)
    }
}

impl std::error::Error for Named {}

impl Storage for SmallFiles {
    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        match self.inner.read(file, bytes_max) {
            Err(error)
                if error.problem() == StorageProblem::Archived && file.kind() != FileKind::Pack =>
            {
                self.bring_back(file)?;
                self.inner.read(file, bytes_max)
            }
            read => read,
        }
    }

    forward!(inner:
        location, prepare, list, size, read_range, put, begin_put, put_pack, put_spooled,
        sends_from_files, begin_pack, put_new, delete, remove, delete_all, deletes_at_once, settle, listing_lag, costs, local_folder, holding,
        retention, retain, archiving, reach, warm_up, remove_leftovers,
    );
}
