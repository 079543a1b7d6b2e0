//! Stores against real servers.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod archive;
mod clouds;
mod dialects;
mod far;
mod locks;
mod patience;
mod rest;
mod sftp;
mod tls;
mod trouble;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use muster_model::Location;
use muster_repository::storage::Storage;
use muster_stores::{Options, Settings, Variables, open};

/// Opens a store; `variables` are all that it knows of credentials.
fn store(location: &str, options: &[&str], variables: &[(&str, &str)]) -> Arc<dyn Storage> {
    open(&Location::parse(location).unwrap(), &settings(options, variables)).unwrap()
}

fn settings(options: &[&str], variables: &[(&str, &str)]) -> Settings {
    let given =
        variables.iter().map(|(name, value)| ((*name).to_owned(), String::from(*value).into()));
    Settings {
        options: Options::parse(options.iter().copied()).unwrap(),
        variables: Variables::Given(BTreeMap::from_iter(given)),
        ..Settings::default()
    }
}

/// A name for each store that a suite makes.
fn fresh() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("store-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The suite wants a store by value.
#[derive(Debug)]
struct Shared(Arc<dyn Storage>);

mod shared {
    use super::Shared;
    use muster_repository::storage::{File, FileKind, Listed, Storage, StorageError};

    impl Storage for Shared {
        fn location(&self) -> String {
            self.0.location()
        }
        fn prepare(&self) -> Result<(), StorageError> {
            self.0.prepare()
        }
        fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StorageError> {
            self.0.list(kind)
        }
        fn size(&self, file: File) -> Result<u64, StorageError> {
            self.0.size(file)
        }
        fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
            self.0.read(file, bytes_max)
        }
        fn read_range(&self, file: File, at: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
            self.0.read_range(file, at, buffer)
        }
        fn put(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
            self.0.put(file, content)
        }
        fn put_new(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
            self.0.put_new(file, content)
        }
        fn delete(&self, file: File) -> Result<(), StorageError> {
            self.0.delete(file)
        }
        fn delete_all(&self, files: &[File]) -> Vec<Result<(), StorageError>> {
            self.0.delete_all(files)
        }
        fn remove_leftovers(&self) -> Result<usize, StorageError> {
            self.0.remove_leftovers()
        }
    }
}

/// Faults around a store, met with patience around them.
fn unreliable(inner: Arc<dyn Storage>) -> impl Storage {
    use muster_repository::storage::unreliable::{Faults, Unreliable};
    use muster_stores::{Patient, backoff::Patience};
    let faults = Faults {
        fail_every: 7,
        truncate_every: 3,
        lose_answer_every: 5,
        duplicate_every: 4,
        delay: Duration::from_micros(200),
        ..Faults::default()
    };
    let inner = Unreliable::new(Arc::new(Shared(inner)), faults);
    Patient::with_surroundings(inner, Patience::STANDARD, Box::new(patience::Hurry::default()))
}
