//! A new data key: everything sealed anew into a repository of its own, while the old stays in use.
//!
//! The format has one master key for a repository, so a new key means a new repository
//! (decision 19). This makes it, with the old one's polynomial so that ids stay equal, and tells
//! how far it is. The re-sealing itself is a [copy](crate::copy), which is incremental,
//! concurrent and resumable; it runs under a shared lock beside backups. Both repositories are
//! whole under their own keys at every moment.
//!
//! Nothing here calls a rotation finished on its own word: [`verify`] compares the two snapshot by
//! snapshot and lets a [check](crate::check) follow every tree in the new one to every blob.
//! Deliberately absent: deleting anything in either.

use std::sync::Arc;

use muster_model::{Class, Fault};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    check::{CheckError, CheckOptions, CheckReport, ReadData, Rota, Verified, check_in_turn},
    copy::Present,
    format::{
        config::Version,
        key_file::{Author, Cost},
    },
    id::SnapshotId,
    repository::{InitError, InitOptions, OpenError, ReadError, Repository},
    run::Run,
    storage::{File, Storage, StorageError, StorageProblem},
};

/// Whether there is a repository at a place.
///
/// # Errors
/// Fails when the store does.
pub fn exists(storage: &dyn Storage) -> Result<bool, StorageError> {
    match storage.size(File::Config) {
        Ok(_) => Ok(true),
        Err(error) if error.problem() == StorageProblem::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the new repository, or opens it when an earlier round made it. The password opens it;
/// its data key is drawn at random.
///
/// # Errors
/// Fails when the place holds a repository that cannot be this one's successor: files of the old
/// one (the same key), or one that cuts files elsewhere.
pub fn begin(
    old: &Repository,
    storage: Arc<dyn Storage>,
    password: &Zeroizing<Vec<u8>>,
    cost: Cost,
    author: Author,
) -> Result<Repository, RotateError> {
    let polynomial = old.config().chunker_polynomial;
    if !exists(storage.as_ref())? {
        let options =
            InitOptions { version: Version::V2, polynomial: Some(polynomial), cost, author };
        return Ok(Repository::init(storage, password, options)?);
    }
    open(old, storage, password)
}

/// Opens the new repository.
///
/// # Errors
/// As [`begin`], and when there is no repository.
pub fn open(
    old: &Repository,
    storage: Arc<dyn Storage>,
    password: &Zeroizing<Vec<u8>>,
) -> Result<Repository, RotateError> {
    let new = Repository::open(storage, password, None)?;
    let (a, b) = (old.key().material(), new.key().material());
    // Either half of the key in both hands would be one secret too many.
    if a.encrypt == b.encrypt || (a.mac_k == b.mac_k && a.mac_r == b.mac_r) {
        return Err(RotateError::SameKey { location: new.storage().location() });
    }
    if old.config().chunker_polynomial != new.config().chunker_polynomial {
        return Err(RotateError::OtherPolynomial { location: new.storage().location() });
    }
    Ok(new)
}

/// How far a rotation is.
#[derive(Debug, Default)]
#[must_use = "a rotation may be half done"]
pub struct Standing {
    /// Snapshots of the old repository, and what they are in the new one: the same tree, times,
    /// tags and all.
    pub there: Vec<(SnapshotId, SnapshotId)>,
    /// Snapshots of the old repository that the new one lacks.
    pub missing: Vec<SnapshotId>,
    /// Snapshots of the new repository that the old one has no more, or in another form: they
    /// were forgotten or got other tags since, or were made in the new one.
    pub only_new: Vec<SnapshotId>,
}

/// Compares the two, snapshot by snapshot. What they refer to is not looked at.
///
/// # Errors
/// Fails when a snapshot of either cannot be read.
pub fn compare(old: &Repository, new: &Repository) -> Result<Standing, ReadError> {
    let present = Present::of(new.snapshots()?);
    let mut standing = Standing::default();
    for entry in old.snapshots()? {
        match present.find(&entry) {
            Some(there) => standing.there.push((entry.0, there)),
            None => standing.missing.push(entry.0),
        }
    }
    let mut known: Vec<SnapshotId> = standing.there.iter().map(|&(_, there)| there).collect();
    known.sort_unstable();
    standing.only_new = present.ids().filter(|id| known.binary_search(id).is_err()).collect();
    Ok(standing)
}

/// What is proven of a rotation.
#[derive(Debug)]
#[must_use = "a rotation may be half done"]
pub struct Proof {
    /// Snapshot by snapshot.
    pub standing: Standing,
    /// The check of the new repository: every tree read, every blob in the index.
    pub check: CheckReport,
}

impl Proof {
    /// Whether nothing is missing, nothing damaged, and nothing left unread since it is archived.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.standing.missing.is_empty()
            && self.check.is_clean()
            && self.check.counts.packs_archived == 0
    }
}

/// Proves that the new repository has everything of the old one, and reads data back. Packs that
/// an earlier check found `sound` are not read again. The caller holds an exclusive lock on the
/// old one, so that nothing comes meanwhile, and a shared one on the new.
///
/// # Errors
/// As [`compare`] and [`check_in_turn`]. Damage is in the proof.
pub fn verify(
    old: &Repository,
    new: &Repository,
    read_data: ReadData,
    sound: Option<&CheckReport>,
    run: &Run,
) -> Result<Proof, RotateError> {
    let mut verified = Verified::default();
    for &pack in sound.into_iter().flat_map(|report| &report.sound_packs) {
        verified.note(pack, 0);
    }
    let rota = sound.map(|_| Rota {
        verified,
        older_than: std::time::Duration::from_secs(1),
        budget: None,
        now: 0,
    });
    let check = check_in_turn(new, &CheckOptions { read_data }, rota.as_ref(), run)?;
    Ok(Proof { standing: compare(old, new)?, check })
}

/// A rotation cannot begin or go on.
#[derive(Debug, Error)]
pub enum RotateError {
    /// The new place cannot be looked at.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The new repository cannot be made.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The new repository cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Snapshots cannot be compared.
    #[error("compare the old repository with the new one")]
    Compare(#[from] ReadError),
    /// The new repository cannot be checked.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// What lies at the new place is sealed with the key that is to be replaced.
    #[error("rotate the key into {location}: what is there has the same key")]
    SameKey {
        /// Where.
        location: String,
    },
    /// What lies at the new place cuts files elsewhere.
    #[error("rotate the key into {location}: the repository there cuts files elsewhere")]
    OtherPolynomial {
        /// Where.
        location: String,
    },
}

impl Fault for RotateError {
    fn class(&self) -> Class {
        match self {
            Self::Storage(error) => error.class(),
            Self::Init(error) => error.class(),
            Self::Open(error) => error.class(),
            Self::Compare(error) => error.class(),
            Self::Check(error) => error.class(),
            Self::SameKey { .. } | Self::OtherPolynomial { .. } => Class::Denied,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::Init(error) => error.code(),
            Self::Open(error) => error.code(),
            Self::Compare(error) => error.code(),
            Self::Check(error) => error.code(),
            Self::SameKey { .. } | Self::OtherPolynomial { .. } => "rotation-target",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Storage(error) => error.help(),
            Self::Init(error) => error.help(),
            Self::Open(error) => error.help(),
            Self::Compare(error) => error.help(),
            Self::Check(error) => error.help(),
            Self::SameKey { .. } | Self::OtherPolynomial { .. } => {
                Some("name an empty place; the new repository is made there".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        copy::{Target, copy},
        environment::Environment,
        format::snapshot::Snapshot,
        lock::{Lock, LockKind},
        packer::{PACK_BYTES_MIN, PackOptions},
        storage::{
            FileKind,
            memory::MemoryStorage,
            unreliable::{Faults, Unreliable},
        },
        tree_walk::sample::{Item, Sample, dir, file},
    };

    fn password() -> Zeroizing<Vec<u8>> {
        Zeroizing::new(b"x".to_vec())
    }

    fn begin_at(old: &Repository, storage: Arc<dyn Storage>) -> Result<Repository, RotateError> {
        begin(old, storage, &password(), Cost::FOR_TESTS, Environment::detect().author())
    }

    fn old() -> Sample {
        let old = Sample::new();
        for version in 1..4_u8 {
            let shared = Item::File(vec![vec![7; 600_000], vec![version; 700_000]]);
            let tree = dir([(&b"shared"[..], shared), (b"version", file(&[version]))]);
            old.snapshot(old.write(&tree), i64::from(version));
        }
        old
    }

    /// One round by a process that is gone afterwards.
    fn round(old: &Sample, storage: Arc<dyn Storage>, environment: &Environment) -> Option<()> {
        let new = begin_at(&old.repository, storage).ok()?;
        let run = Run::new();
        let lock = Lock::acquire(&new, LockKind::Shared, Duration::ZERO, environment, &run).ok()?;
        let target = Target::open(&new, &lock, &run).ok()?;
        let snapshots: Vec<(SnapshotId, Snapshot)> = old.repository.snapshots().unwrap();
        let options = PackOptions { pack_bytes: PACK_BYTES_MIN, ..PackOptions::default() };
        let report = copy(&old.indexed(), target, &snapshots, options, &run, &mut |_| {}).ok()?;
        report.failed.is_empty().then_some(())
    }

    fn prove(old: &Sample, new: &Repository) -> Proof {
        verify(&old.repository, new, ReadData::All, None, &Run::new()).unwrap()
    }

    #[test]
    fn a_rotation_that_stops_at_any_write_is_completed_and_never_taken_for_finished() {
        let old = old();
        let mut completed = false;
        for stop_at_write in 1..60 {
            let storage = Arc::new(MemoryStorage::new());
            let faults = Faults { stop_at_write, ..Faults::default() };
            let stopping = Arc::new(Unreliable::new(storage.clone(), faults));
            let dead = Environment { pid: 1 << 23, ..Environment::detect() };
            completed = round(&old, stopping, &dead).is_some();
            let config_is_there = exists(storage.as_ref()).unwrap();
            if config_is_there {
                let new = open(&old.repository, storage.clone(), &password()).unwrap();
                let proof = prove(&old, &new);
                assert!(proof.check.is_clean(), "{stop_at_write}: {:#?}", proof.check);
                let standing = &proof.standing;
                assert_eq!(standing.there.len() + standing.missing.len(), 3);
                assert!(proof.is_complete() || !standing.missing.is_empty(), "{stop_at_write}");
                assert!(!completed || proof.is_complete(), "{stop_at_write}");
            }
            let packs = storage.list(FileKind::Pack).unwrap().len();
            round(&old, storage.clone(), &Environment::detect()).unwrap();
            let new = open(&old.repository, storage.clone(), &password()).unwrap();
            let proof = prove(&old, &new);
            assert!(proof.is_complete() && proof.standing.only_new.is_empty(), "{stop_at_write}");
            assert!(proof.check.hints.is_empty(), "{stop_at_write}: {:#?}", proof.check.hints);
            assert!(storage.list(FileKind::Pack).unwrap().len() >= packs);
            if completed {
                break;
            }
        }
        assert!(completed, "without a stop the rotation completes");
    }

    #[test]
    fn a_rotation_brings_what_has_come_since_and_names_what_differs() {
        let old = old();
        let storage = Arc::new(MemoryStorage::new());
        let here = Environment::detect();
        round(&old, storage.clone(), &here).unwrap();
        let tree = old.write(&dir([(&b"late"[..], file(b"late"))]));
        let late = old.snapshot(tree, 9);
        let gone = old.repository.snapshots().unwrap()[0].0;
        old.storage.delete(File::Snapshot(gone)).unwrap();
        let new = open(&old.repository, storage.clone(), &password()).unwrap();
        let standing = compare(&old.repository, &new).unwrap();
        assert_eq!((standing.missing, standing.only_new.len()), (vec![late], 1));
        round(&old, storage, &here).unwrap();
        let proof = prove(&old, &new);
        assert!(proof.is_complete());
        for (source, copy) in &proof.standing.there {
            let (a, b) = (old.repository.snapshot(*source).unwrap(), new.snapshot(*copy).unwrap());
            assert_eq!((a.tree, a.time, a.tags), (b.tree, b.time, b.tags));
            assert_eq!(b.original, Some(*source));
        }
    }

    #[test]
    fn the_old_key_opens_nothing_of_the_new_repository() {
        let old = old();
        let storage = Arc::new(MemoryStorage::new());
        round(&old, storage.clone(), &Environment::detect()).unwrap();
        let new = open(&old.repository, storage.clone(), &password()).unwrap();
        assert_ne!(old.repository.config().id, new.config().id);
        for kind in [FileKind::Config, FileKind::Index, FileKind::Snapshot] {
            for listed in storage.list(kind).unwrap() {
                let sealed = storage.read(listed.file, 1 << 20).unwrap();
                assert!(old.repository.key().open(&sealed, &mut Vec::new()).is_err());
                assert!(new.key().open(&sealed, &mut Vec::new()).is_ok());
            }
        }
        let indexed = new.load_index(&Run::new()).unwrap();
        assert!(!indexed.index().is_empty());
        for location in indexed.index().iter() {
            let mut sealed = vec![0; location.blob.length as usize];
            let offset = u64::from(location.blob.offset);
            storage.read_range(File::Pack(location.pack), offset, &mut sealed).unwrap();
            assert!(old.repository.key().open(&sealed, &mut Vec::new()).is_err());
            assert!(new.key().open(&sealed, &mut Vec::new()).is_ok());
        }
    }

    #[test]
    fn what_cannot_be_a_successor_is_refused() {
        let old = old();
        let error = begin_at(&old.repository, old.storage.clone()).err().unwrap();
        assert!(matches!(error, RotateError::SameKey { .. }), "{error}");
        let stranger = Sample::new();
        let error = begin_at(&old.repository, stranger.storage.clone()).err().unwrap();
        assert_eq!((error.class(), error.code()), (Class::Denied, "rotation-target"));
    }

    /// A snapshot or a pack that is lost after the rotation is seen by the proof.
    #[test]
    fn a_proof_sees_what_is_missing() {
        let old = old();
        for kind in [FileKind::Snapshot, FileKind::Pack, FileKind::Index] {
            let storage = Arc::new(MemoryStorage::new());
            round(&old, storage.clone(), &Environment::detect()).unwrap();
            let new = open(&old.repository, storage.clone(), &password()).unwrap();
            assert!(prove(&old, &new).is_complete());
            storage.delete(storage.list(kind).unwrap()[0].file).unwrap();
            assert!(!prove(&old, &new).is_complete(), "{kind:?}");
        }
    }
}
