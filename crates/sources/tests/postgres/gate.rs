//! A store that holds packs back until it is opened, so that a backup is surely under way.

use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex},
};

use muster_repository::storage::{File, FileKind, Listed, Storage, StorageError};

/// Wraps a store.
#[derive(Debug)]
pub(crate) struct Gate {
    inner: Arc<dyn Storage>,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, is_open: Mutex::new(false), opened: Condvar::new() }
    }

    pub(crate) fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self, file: File) {
        if matches!(file, File::Pack(_)) {
            let is_open = self.is_open.lock().unwrap();
            drop(self.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
        }
    }
}

impl Storage for Gate {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        self.inner.prepare()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StorageError> {
        self.inner.list(kind)
    }

    fn size(&self, file: File) -> Result<u64, StorageError> {
        self.inner.size(file)
    }

    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        self.inner.read(file, bytes_max)
    }

    fn read_range(&self, file: File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        self.inner.read_range(file, offset, buffer)
    }

    fn put(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.pass(file);
        self.inner.put(file, content)
    }

    fn put_new(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.pass(file);
        self.inner.put_new(file, content)
    }

    fn delete(&self, file: File) -> Result<(), StorageError> {
        self.inner.delete(file)
    }

    fn local_folder(&self) -> Option<&Path> {
        self.inner.local_folder()
    }
}
