//! A store in memory, for tests that need many repositories quickly.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{File, FileKind, Listed, Storage, StorageError, StorageProblem};

/// A repository's files in a map.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    files: Mutex<BTreeMap<File, Vec<u8>>>,
}

impl MemoryStorage {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All files, for tests that damage them.
    pub fn files(&self) -> MutexGuard<'_, BTreeMap<File, Vec<u8>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get<T>(
        &self,
        operation: &'static str,
        file: File,
        take: impl FnOnce(&Vec<u8>) -> Result<T, StorageProblem>,
    ) -> Result<T, StorageError> {
        let files = self.files();
        let content = files.get(&file).ok_or(StorageProblem::NotFound);
        content.and_then(take).map_err(|problem| StorageError::new(operation, file, problem))
    }
}

impl Storage for MemoryStorage {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StorageError> {
        let files = self.files();
        let of_kind = files.iter().filter(|(file, _)| file.kind() == kind);
        Ok(of_kind.map(|(&file, data)| Listed { file, bytes: data.len() as u64 }).collect())
    }

    fn size(&self, file: File) -> Result<u64, StorageError> {
        self.get("look at", file, |content| Ok(content.len() as u64))
    }

    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        self.get("read", file, |content| match content.len() as u64 > bytes_max {
            true => Err(StorageProblem::TooLarge),
            false => Ok(content.clone()),
        })
    }

    fn read_range(&self, file: File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        self.get("read", file, |content| {
            let start = usize::try_from(offset).map_err(|_| StorageProblem::TooShort)?;
            let range = start.checked_add(buffer.len()).and_then(|end| content.get(start..end));
            buffer.copy_from_slice(range.ok_or(StorageProblem::TooShort)?);
            Ok(())
        })
    }

    fn put(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.files().insert(file, content.to_vec());
        Ok(())
    }

    fn put_new(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        let mut files = self.files();
        if files.contains_key(&file) {
            return Err(StorageError::new("write", file, StorageProblem::AlreadyExists));
        }
        files.insert(file, content.to_vec());
        Ok(())
    }

    fn delete(&self, file: File) -> Result<(), StorageError> {
        let removed = self.files().remove(&file);
        removed.map(drop).ok_or_else(|| StorageError::new("delete", file, StorageProblem::NotFound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance;

    #[test]
    fn conforms() {
        conformance::run(|| (MemoryStorage::new(), ()));
    }
}
