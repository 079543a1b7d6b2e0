//! Passwords: list, add, remove and change the keys of a repository.
//!
//! A key file holds the master key, sealed under a password. Whoever has one and its password
//! has the repository; removing a key does not help against somebody who opened it already.
//!
//! The order of writes keeps the repository open at every moment: a new key file is stored,
//! read back and opened before anything else happens, and only then may an old one go. A crash
//! leaves one key too many, never one too few.
//!
//! # Source
//! restic, `doc/design.rst`, *Keys, Encryption and MAC*; `cmd/restic/cmd_key_*.go`.

use muster_model::{Class, Fault};
use serde::Serialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    format::{
        FormatError,
        key_file::{Author, Cost, KEY_FILE_BYTES_MAX, KeyFile, WrapError},
        time::Timestamp,
    },
    id::KeyId,
    repository::{Repository, verify_digest},
    select::{SelectError, find_by_prefix},
    storage::{File, FileKind, StorageError, StorageProblem},
};

/// What may be told about a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Whether this is the key that opened the repository.
    pub current: bool,
    /// The key.
    pub id: KeyId,
    /// Who added it.
    #[serde(rename = "userName")]
    pub username: String,
    /// On which host.
    #[serde(rename = "hostName")]
    pub hostname: String,
    /// When.
    pub created: Timestamp,
}

/// The keys of a repository.
#[derive(Debug, Default)]
#[must_use = "damaged keys should be told"]
pub struct KeyList {
    /// Keys, oldest first.
    pub keys: Vec<KeyInfo>,
    /// Key files that are no sound key files.
    pub damaged: Vec<(KeyId, FormatError)>,
}

/// Lists the keys. Nothing is opened, so a key whose sealed part is damaged is listed as sound.
///
/// # Errors
/// Fails when the store does.
pub fn list_keys(repository: &Repository) -> Result<KeyList, KeyError> {
    let mut list = KeyList::default();
    for id in key_ids(repository)? {
        let content = match repository.storage().read(File::Key(id), KEY_FILE_BYTES_MAX) {
            Ok(content) => content,
            // Removed since it was listed.
            Err(error) if error.problem() == StorageProblem::NotFound => continue,
            Err(error) if error.problem() == StorageProblem::TooLarge => {
                list.damaged.push((id, FormatError::invalid("it is too large for a key file")));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let intact = verify_digest(File::Key(id), &content);
        match intact.and_then(|()| KeyFile::parse(&content)) {
            Ok(file) => list.keys.push(KeyInfo {
                current: id == repository.key_id(),
                id,
                username: file.username,
                hostname: file.hostname,
                created: file.created,
            }),
            Err(error) => list.damaged.push((id, error)),
        }
    }
    list.keys.sort_by_key(|key| (key.created, key.id));
    Ok(list)
}

fn key_ids(repository: &Repository) -> Result<Vec<KeyId>, StorageError> {
    let listed = repository.storage().list(FileKind::Key)?;
    let id = |file| if let File::Key(id) = file { Some(id) } else { None };
    Ok(listed.into_iter().filter_map(|listed| id(listed.file)).collect())
}

/// Adds a key that `password` opens. It has been read back and opened when this returns.
///
/// # Errors
/// Fails when the store does, or when what it gives back is not a key that opens; that file is
/// removed again.
pub fn add_key(
    repository: &Repository,
    password: &Zeroizing<Vec<u8>>,
    cost: Cost,
    author: Author,
) -> Result<KeyId, KeyError> {
    let master = repository.key().material();
    let file = KeyFile::wrap(master, password, cost, author).map_err(KeyError::Wrap)?;
    let content = file.to_bytes().map_err(|source| KeyError::Wrap(source.into()))?;
    let id = KeyId::of(&content);
    repository.storage().put_new(File::Key(id), &content)?;
    match verify_opens(repository, id, password) {
        Ok(()) => Ok(id),
        Err(error) => {
            // What matters is that the key does not work; that it also stays is less bad than
            // hiding why.
            drop(repository.storage().delete(File::Key(id)));
            Err(error)
        }
    }
}

/// Reads a key file back and checks that the password opens this repository's master key.
fn verify_opens(repository: &Repository, id: KeyId, password: &[u8]) -> Result<(), KeyError> {
    let file = File::Key(id);
    let content = repository.storage().read(file, KEY_FILE_BYTES_MAX)?;
    let opened = verify_digest(file, &content)
        .and_then(|()| KeyFile::parse(&content))
        .map_err(WrapError::from)
        .and_then(|key| key.unwrap_master(password))
        .map_err(|source| KeyError::NotVerified { id, source })?;
    let expected = repository.key().material();
    let same = opened.encrypt == expected.encrypt
        && opened.mac_k == expected.mac_k
        && opened.mac_r == expected.mac_r;
    match same {
        true => Ok(()),
        false => {
            let source = FormatError::invalid("it opens to another master key").into();
            Err(KeyError::NotVerified { id, source })
        }
    }
}

/// Removes the key whose id begins with `prefix`; returns its id. The caller holds an exclusive
/// lock.
///
/// # Errors
/// Refuses the key in use, and to remove any while the key in use is gone from the store: then
/// the one to be removed may be the last. Fails when no key, or more than one, is meant, or the
/// store fails.
pub fn remove_key(repository: &Repository, prefix: &str) -> Result<KeyId, KeyError> {
    let ids = key_ids(repository)?;
    let id = find_by_prefix(&ids, &prefix.parse()?)?;
    if id == repository.key_id() {
        return Err(KeyError::InUse { id });
    }
    if !ids.contains(&repository.key_id()) {
        return Err(KeyError::CurrentGone { id: repository.key_id() });
    }
    repository.storage().delete(File::Key(id))?;
    Ok(id)
}

/// Changes the password of the key in use: adds a key for `password`, then removes the old
/// one. Returns the new key's id. The caller holds an exclusive lock, and opens the repository
/// again for further work with keys.
///
/// # Errors
/// As [`add_key`]. With [`KeyError::OldKeyStays`] the new password works and the old one too.
pub fn change_password(
    repository: &Repository,
    password: &Zeroizing<Vec<u8>>,
    cost: Cost,
    author: Author,
) -> Result<KeyId, KeyError> {
    let new = add_key(repository, password, cost, author)?;
    let old = repository.key_id();
    match repository.storage().delete(File::Key(old)) {
        Ok(()) => Ok(new),
        Err(error) if error.problem() == StorageProblem::NotFound => Ok(new),
        Err(source) => Err(KeyError::OldKeyStays { old, new, source: Box::new(source) }),
    }
}

/// Something with a key failed.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// No one key is meant.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The master key could not be wrapped.
    #[error("wrap the master key under the new password")]
    Wrap(#[source] WrapError),
    /// The new key was stored and does not open.
    #[error("open the new key {id} after storing it")]
    NotVerified {
        /// The new key; its file was removed.
        id: KeyId,
        /// Why it does not open.
        #[source]
        source: WrapError,
    },
    /// The key is the one that opened the repository.
    #[error("remove the key {id}: it is the one in use")]
    InUse {
        /// The key.
        id: KeyId,
    },
    /// The key in use was removed by somebody else.
    #[error("remove a key: the key in use, {id}, is gone, so it might be the last one")]
    CurrentGone {
        /// The key in use.
        id: KeyId,
    },
    /// The new key works and the old one could not be removed.
    #[error("remove the old key {old} after adding {new}")]
    OldKeyStays {
        /// The old key.
        old: KeyId,
        /// The new key.
        new: KeyId,
        /// Why the old one stays.
        #[source]
        source: Box<StorageError>,
    },
}

impl Fault for KeyError {
    fn class(&self) -> Class {
        match self {
            Self::Storage(error) => error.class(),
            Self::Select(error) => error.class(),
            Self::Wrap(WrapError::NoRandomness(_)) => Class::Transient,
            Self::Wrap(_) => Class::Bug,
            Self::NotVerified { .. } => Class::Corrupt,
            Self::InUse { .. } | Self::CurrentGone { .. } => Class::Denied,
            Self::OldKeyStays { source, .. } => source.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::Select(error) => error.code(),
            Self::Wrap(WrapError::NoRandomness(_)) => "no-randomness",
            Self::Wrap(_) => "seal-failed",
            Self::NotVerified { .. } => "key-not-verified",
            Self::InUse { .. } | Self::CurrentGone { .. } => "key-in-use",
            Self::OldKeyStays { .. } => "old-key-stays",
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::Storage(error) => return error.help(),
            Self::Select(error @ SelectError::NotFound { .. }) => {
                return error.help().map(|_| "see the keys with 'muster repo key list'".to_owned());
            }
            Self::Select(error) => return error.help(),
            Self::Wrap(_) => return None,
            Self::NotVerified { .. } => {
                "the old passwords still work and nothing was removed; test this machine's \
                 memory and disk before you try again"
            }
            Self::InUse { .. } => {
                "open the repository with another password to remove this key, or change this \
                 one with 'muster repo key passwd'"
            }
            Self::CurrentGone { .. } => "open the repository again with a password that works",
            Self::OldKeyStays { .. } => {
                "both passwords work now; remove the old key with 'muster repo key remove'"
            }
        };
        Some(help.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        environment::Environment,
        storage::{
            Storage,
            memory::MemoryStorage,
            unreliable::{Faults, Unreliable},
        },
        tree_walk::sample::Sample,
    };

    fn password(text: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(text.as_bytes().to_vec())
    }

    fn author(second: i64) -> Author {
        Author { created: Timestamp::new(second, 0, 0), ..Environment::detect().author() }
    }

    fn add(repository: &Repository, text: &str) -> KeyId {
        add_key(repository, &password(text), Cost::FOR_TESTS, author(1)).unwrap()
    }

    fn opens(storage: &Arc<MemoryStorage>, text: &str) -> bool {
        Repository::open(storage.clone(), text.as_bytes(), None).is_ok()
    }

    #[test]
    fn keys_are_added_listed_and_removed() {
        let Sample { storage, repository } = Sample::new();
        let second = add(&repository, "two");
        assert!(opens(&storage, "x") && opens(&storage, "two"));
        let list = list_keys(&repository).unwrap();
        assert_eq!(list.keys.len(), 2);
        assert_eq!((list.keys[0].id, list.keys[0].current), (second, false));
        assert!(list.keys[1].current);
        let json = serde_json::to_value(&list.keys[0]).unwrap();
        let names: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(names, ["created", "current", "hostName", "id", "userName"]);
        assert_eq!(remove_key(&repository, &second.to_hex()[..12]).unwrap(), second);
        assert!(opens(&storage, "x") && !opens(&storage, "two"));
    }

    #[test]
    fn the_key_in_use_and_the_last_key_stay() {
        let Sample { storage, repository } = Sample::new();
        let used = repository.key_id();
        let error = remove_key(&repository, &used.to_hex()).unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Denied, "key-in-use"));
        let other = add(&repository, "two");
        storage.delete(File::Key(used)).unwrap();
        let error = remove_key(&repository, &other.to_hex()).unwrap_err();
        assert!(matches!(error, KeyError::CurrentGone { .. }), "{error}");
        assert!(opens(&storage, "two"));
        assert_eq!(remove_key(&repository, "zz").unwrap_err().class(), Class::Input);
        let missing = if other.to_hex().starts_with("00") { "11" } else { "00" };
        assert_eq!(remove_key(&repository, missing).unwrap_err().class(), Class::NotFound);
    }

    #[test]
    fn a_damaged_key_is_listed_as_such() {
        let Sample { storage, repository } = Sample::new();
        let id = add(&repository, "two");
        storage.put(File::Key(id), b"{}").unwrap();
        let list = list_keys(&repository).unwrap();
        assert_eq!((list.keys.len(), list.damaged.len(), list.damaged[0].0), (1, 1, id));
    }

    #[test]
    fn a_change_of_password_survives_a_stop_at_any_write() {
        for stop_at_write in 1..4 {
            let Sample { storage, repository } = Sample::new();
            let faults = Faults { stop_at_write, ..Faults::default() };
            let failing = repository.on(Arc::new(Unreliable::new(storage.clone(), faults)));
            let changed =
                change_password(&failing, &password("two"), Cost::FOR_TESTS, author(2)).is_ok();
            assert_eq!(opens(&storage, "two"), changed || stop_at_write > 1, "{stop_at_write}");
            assert_eq!(opens(&storage, "x"), !changed, "{stop_at_write}");
        }
    }

    #[test]
    fn a_store_that_gives_back_something_else_loses_nothing() {
        let Sample { storage, repository } = Sample::new();
        let id = add(&repository, "two");
        let sound = storage.read(File::Key(id), KEY_FILE_BYTES_MAX).unwrap();
        for content in [&sound[..sound.len() - 1], &b"{}"[..]] {
            storage.put(File::Key(id), content).unwrap();
            let error = verify_opens(&repository, id, b"two").unwrap_err();
            assert_eq!(error.code(), "key-not-verified");
        }
        storage.put(File::Key(id), &sound).unwrap();
        verify_opens(&repository, id, b"two").unwrap();
        assert!(verify_opens(&repository, id, b"x").is_err(), "another password");
    }
}
