//! The backup engine: from files to a repository in restic's format, and back.
//!
//! A repository is a set of files that are written once, named by their hash, and sealed under
//! a key that a password opens. This crate makes such repositories, backs up into them, checks
//! them, and restores from them; what restic wrote it reads, and the other way round.
//!
//! # The main types
//!
//! | | |
//! |---|---|
//! | [`storage::Storage`] | where the files lie: list, read, put whole and durably, delete. [`storage::LocalStorage`] is a folder |
//! | [`repository::Repository`] | a store that a password opened: it has a key, and reads snapshots |
//! | [`repository::IndexedRepository`] | the same with its index loaded: it reads blobs. What needs blobs takes this type, so nobody can ask too early |
//! | [`lock::Lock`] | who works here, so that nobody deletes beside a backup; released when dropped |
//! | [`run::Run`] | how far an operation is, and whether it shall stop |
//! | [`backup::BackupReport`], [`check::CheckReport`], [`restore::RestoreReport`] | what was done and *what was not*: a partial success is a value, and must be looked at |
//!
//! # A backup and a restore
//!
//! ```
//! use std::{fs, sync::Arc, time::Duration};
//!
//! use muster_repository::{
//!     backup::{BackupOptions, backup},
//!     environment::Environment,
//!     format::{config::Version, key_file::Cost},
//!     lock::{Lock, LockKind},
//!     repository::{InitOptions, Repository},
//!     restore::{RestoreOptions, restore},
//!     run::Run,
//!     storage::LocalStorage,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let place = tempfile::tempdir()?;
//! let source = place.path().join("letters");
//! fs::create_dir(&source)?;
//! fs::write(source.join("1.txt"), "Dear Ana")?;
//!
//! // Host, user and time are asked for in one place and handed in.
//! let environment = Environment::detect();
//! let storage = Arc::new(LocalStorage::new(place.path().join("vault")));
//! let options = InitOptions {
//!     version: Version::V2,
//!     polynomial: None,
//!     cost: Cost::STANDARD,
//!     author: environment.author(),
//! };
//! let repository = Repository::init(storage, b"correct horse", options)?;
//!
//! // A backup takes its own lock. Its report names what could not be read.
//! let run = Run::new();
//! let report = backup(&repository, BackupOptions::new(vec![source]), &environment, &run)?;
//! assert!(report.problems.is_empty());
//!
//! // Who reads takes a lock first: nothing is deleted while it is held.
//! let lock =
//!     Lock::acquire(&repository, LockKind::Shared, Duration::ZERO, &environment, &run)?;
//! let snapshot = repository.snapshot(report.id.expect("it was no dry run"))?;
//! let indexed = repository.load_index(&run)?;
//! let target = place.path().join("restored");
//! let report = restore(&indexed, snapshot.tree, &RestoreOptions::new(&target), &run)?;
//! assert!(report.is_complete());
//! lock.release()?;
//!
//! // As restic does, the tree is laid out below the target by its absolute path.
//! let restored = target.join(place.path().strip_prefix("/")?).join("letters/1.txt");
//! assert_eq!(fs::read_to_string(restored)?, "Dear Ana");
//! # Ok(())
//! # }
//! ```
//!
//! # What can be relied upon
//!
//! - **Nothing refers to what is not durable yet.** Packs, then index files, then the snapshot.
//!   A crash at any moment costs work and never consistency.
//! - **What is stored has been read back**: each blob is opened again before it is written.
//! - **Nothing in a repository is believed**: sizes, names and references are checked before
//!   memory is taken or anything is written, also when the seal is right.
//! - **Damage stops nothing else.** A check collects all of it; a restore leaves out what needs
//!   it and lists that.
//! - **Memory is bounded**, the index apart: no whole file, and no whole tree but of one folder.
//!
//! # How it is built
//!
//! The engine runs on threads joined by bounded queues, and its functions block. Every error
//! implements [`muster_model::Fault`]: class, stable code, next step.
//!
//! From the bytes up: [`crypto`], [`compression`] and [`chunker`]; [`mod@format`] turns restic's
//! files into values; [`storage`] keeps them; [`repository`] opens and reads, [`packer`] writes;
//! [`mod@backup`], [`mod@restore`], [`mod@check`] and [`mod@copy`] are the verbs, [`ls`], [`find`],
//! [`diff`], [`stats`] and [`mod@dump`] look around. `docs/formats/repository.md` describes what
//! is written in which order, and what a crash leaves.
//!
//! **Invariant**: this crate knows nothing of plans, prints nothing, and has no async runtime.

pub mod backup;
pub mod check;
pub mod chunker;
pub mod compression;
pub mod copy;
pub mod crypto;
pub mod diff;
pub mod dump;
pub mod environment;
pub mod exclude;
pub mod file_system;
pub mod find;
pub mod forget;
pub mod format;
pub mod id;
pub mod immutable;
pub mod index;
pub mod keys;
mod large_tree;
pub mod lock;
pub mod ls;
pub mod migrate;
pub mod packer;
pub mod prune;
pub mod repair;
pub mod repository;
pub mod restore;
pub mod rewrite;
pub mod rotate;
pub mod run;
pub mod select;
mod sha256;
pub mod stats;
pub mod storage;
pub mod supersede;
pub mod tag;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tree_walk;
pub mod warm_up;
