//! How living data becomes a consistent snapshot and comes back: files, SQLite, PostgreSQL,
//! commands.
//!
//! Data at work changes while it is read. Each source knows how its data is read all the same so
//! that the snapshot is one moment of it: a database is copied within one transaction, a command
//! must end well, files are read one by one and say so. Each knows how to bring its data back
//! into a folder, how to question what came back, and how to damage it, since a question that
//! was never answered with *no* has not been asked.
//!
//! # The main types
//!
//! | | |
//! |---|---|
//! | [`Source`] | living data, and how it is read: [`Source::back_up`] |
//! | [`Request`](capture::Request), [`Captured`](capture::Captured) | what a source is asked, and what it answers |
//! | [`restore_data`] | brings a snapshot's data back; the snapshot alone says how |
//! | [`MarkerWriter`](markers::MarkerWriter) | numbered rows in protected data, by which loss is measured |
//! | [`sqlite`], [`files`] | also question what came back, and damage it and undo that |
//!
//! # A backup and a restore
//!
//! ```
//! use std::{fs, sync::Arc, time::Duration};
//!
//! use muster_model::BackupKind;
//! use muster_repository::{
//!     environment::Environment,
//!     format::{config::Version, key_file::Cost},
//!     lock::{Lock, LockKind},
//!     repository::{InitOptions, Repository},
//!     run::Run,
//!     storage::LocalStorage,
//! };
//! use muster_sources::{RestoreSettings, Source, capture::Request, restore_data, sqlite};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let place = tempfile::tempdir()?;
//! # let (environment, run) = (Environment::detect(), Run::new());
//! # let author = environment.author();
//! # let options =
//! #     InitOptions { version: Version::V2, polynomial: None, cost: Cost::STANDARD, author };
//! # let storage = Arc::new(LocalStorage::new(place.path().join("vault")));
//! # let repository = Repository::init(storage, b"correct horse", options)?;
//! # let staging = place.path().join("staging");
//! # fs::create_dir(&staging)?;
//! // A database at work: this connection stays open.
//! let path = place.path().join("shop.db");
//! let shop = rusqlite::Connection::open(&path)?;
//! shop.execute_batch("CREATE TABLE orders(amount); INSERT INTO orders VALUES (42)")?;
//!
//! let request = Request {
//!     service: "shop".to_owned(),
//!     data: "db".to_owned(),
//!     point: "2027-01-31-1".to_owned(),
//!     kind: BackupKind::Incremental,
//!     staging,
//!     count_rows: vec!["orders".to_owned()],
//! };
//! let captured = Source::Sqlite { path }.back_up(&repository, &request, &environment, &run)?;
//! assert!(captured.left_out.is_empty());
//! assert_eq!(captured.rows["orders"], (1, 1));
//!
//! // The repository alone knows how to bring it back.
//! let retry = Duration::ZERO;
//! let lock = Lock::acquire(&repository, LockKind::Shared, retry, &environment, &run)?;
//! let indexed = repository.load_index(&run)?;
//! let target = place.path().join("restored");
//! let settings = RestoreSettings::default();
//! let restored = restore_data(&indexed, captured.snapshot, &target, settings, &run)?;
//! lock.release()?;
//! assert_eq!(restored.path, target.join("shop.db"));
//! assert!(sqlite::integrity(&restored.path)?.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # What can be relied upon
//!
//! - **`data_time` is never later than the content**: the clock is read first.
//! - **Production is only read.** Markers are the one thing that is written into it.
//! - **No snapshot of a failure**: a stage that fails, a copy that cannot be made consistent, a
//!   killed run leave none. What cannot be read of files is left out, listed, and tagged.
//!
//! **Invariant**: this crate knows nothing of plans, prints nothing, and its functions block.

pub mod capture;
pub mod command;
pub mod error;
pub mod files;
mod layout;
pub mod markers;
pub mod postgres;
mod record;
mod restore;
mod source;
pub mod sqlite;
mod staging;

pub use restore::{RestoreSettings, restore_data, source_kind};
pub use source::{Source, SourceKind};
