//! Bringing a repository from version 1 of the format to version 2, which compresses.
//!
//! Only `config` changes; what is stored stays as it is and valid, and is compressed when it is
//! packed anew. The repository is checked first, since a new version is no cure.
//!
//! `config` is the one file that is written over. A store does that whole or not at all (see
//! [`crate::storage`]), and on one that could lose the old file before the new one is there, the
//! copy that the caller keeps ([`Migration::old_config`]) brings it back: put under its name, the
//! repository is what it was. The new file is read back and opened before anything else.
//!
//! # Source
//! restic, `internal/migrations/upgrade_repo_v2.go`; `doc/design.rst`, *Changes*.

use serde_json::Value;

use crate::{
    check::{CheckOptions, CheckReport, check},
    format::{
        FormatError,
        config::{Config, Version},
        key_file::KEY_FILE_BYTES_MAX,
        unpacked::{Wrapping, open_json, seal_json},
    },
    repository::{ReadError, Repository, SaveError},
    run::Run,
    storage::File,
    supersede::ChangeError,
};

/// The migration's name, as in restic.
pub const UPGRADE_TO_V2: &str = "upgrade_repo_v2";

/// A migration that can be applied.
#[derive(Debug)]
#[must_use = "a proposal changes nothing"]
pub struct Migration {
    /// The stored bytes of `config` as it is, for a copy.
    pub old_config: Vec<u8>,
    new_config: Value,
}

/// Prepares the migration; `None` when the repository has the version already.
///
/// # Errors
/// Fails when `config` cannot be read.
pub fn propose(repository: &Repository) -> Result<Option<Migration>, ChangeError> {
    let damaged = |source| ReadError::damaged(File::Config, source);
    let old_config = repository.storage().read(File::Config, KEY_FILE_BYTES_MAX)?;
    // As it is stored now, and with fields of other tools.
    let mut new_config: Value = open_json(repository.key(), old_config.clone()).map_err(damaged)?;
    let version = serde_json::from_value::<Config>(new_config.clone());
    let version = version.map_err(|error| damaged(FormatError::from(error)))?.version;
    if version >= Version::V2 {
        return Ok(None);
    }
    new_config["version"] = u32::from(Version::V2).into();
    Ok(Some(Migration { old_config, new_config }))
}

/// Checks what a migration wants to be sound: everything but the content of files.
///
/// # Errors
/// As [`check`]; damage is in the report.
pub fn check_first(repository: &Repository, run: &Run) -> Result<CheckReport, ChangeError> {
    Ok(check(repository, &CheckOptions::default(), run)?)
}

/// Writes the new `config` and reads it back. The caller holds an exclusive lock since before the
/// proposal, and opens the repository again for further work.
///
/// # Errors
/// Fails when the store does. `config` is the old one or the new one then, unless the store broke
/// its promise, and the repository can be used with either.
pub fn apply(repository: &Repository, migration: &Migration, run: &Run) -> Result<(), ChangeError> {
    run.cancel.check_condition()?;
    let sealed = seal_json(repository.key(), Wrapping::Plain, &migration.new_config);
    repository.storage().put(File::Config, &sealed.map_err(SaveError::from)?)?;
    let stored = repository.storage().read(File::Config, KEY_FILE_BYTES_MAX)?;
    let damaged = |source| ReadError::damaged(File::Config, source);
    let config: Config = open_json(repository.key(), stored).map_err(damaged)?;
    let config = config.validated().map_err(damaged)?;
    let expected = Config { version: Version::V2, ..repository.config().clone() };
    match config == expected {
        true => Ok(()),
        false => Err(damaged(FormatError::invalid("it is not what was stored")).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        environment::Environment,
        format::key_file::Cost,
        repository::InitOptions,
        storage::{
            Storage as _,
            memory::MemoryStorage,
            unreliable::{Faults, Unreliable},
        },
    };

    fn version_of(storage: &Arc<MemoryStorage>) -> Version {
        Repository::open(storage.clone(), b"x", None).unwrap().config().version
    }

    #[test]
    fn a_migration_that_stops_or_loses_its_answer_leaves_a_repository_that_opens() {
        let stops = Faults { stop_at_write: 1, ..Faults::default() };
        let unheard = Faults { lose_answer_every: 1, ..Faults::default() };
        let sound = Faults { stop_at_write: 2, ..Faults::default() };
        for (faults, ok, version) in
            [(stops, false, Version::V1), (unheard, false, Version::V2), (sound, true, Version::V2)]
        {
            let storage = Arc::new(MemoryStorage::new());
            let author = Environment::detect().author();
            let cost = Cost::FOR_TESTS;
            let options = InitOptions { version: Version::V1, polynomial: None, cost, author };
            let repository = Repository::init(storage.clone(), b"x", options).unwrap();
            let migration = propose(&repository).unwrap().unwrap();
            let failing = repository.clone();
            let failing = failing.on(Arc::new(Unreliable::new(storage.clone(), faults)));
            assert_eq!(apply(&failing, &migration, &Run::new()).is_ok(), ok);
            assert_eq!(version_of(&storage), version);
            // Again, or back with the copy that was kept.
            let repository = Repository::open(storage.clone(), b"x", None).unwrap();
            if let Some(again) = propose(&repository).unwrap() {
                apply(&repository, &again, &Run::new()).unwrap();
            }
            assert_eq!(version_of(&storage), Version::V2);
            storage.put(File::Config, &migration.old_config).unwrap();
            assert_eq!(version_of(&storage), Version::V1);
        }
    }
}
