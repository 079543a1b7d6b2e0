//! A store that fails, delays, truncates and stops, around any other store.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Archiving, Costs, File, FileKind, Holding, Listed, Reach, Retention, Spooled, Storage,
    StorageError, StorageProblem, Storing,
};
use crate::{
    format::{pack::BlobKind, time::Timestamp},
    id::PackId,
};

/// What an [`Unreliable`] store does wrong. The default does nothing wrong.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Every n-th operation fails as a network would; 0 for never.
    pub fail_every: u64,
    /// Each operation takes this much longer.
    pub delay: Duration,
    /// Every n-th read of a range ends early; 0 for never.
    pub truncate_every: u64,
    /// Every n-th change is done and then reported as failed, as when an answer is lost; 0 for
    /// never.
    pub lose_answer_every: u64,
    /// Every n-th change is done twice, as when a network sends a request again, and every n-th
    /// listing names a file twice; 0 for never.
    pub duplicate_every: u64,
    /// From the n-th write or delete (counting from 1) on, nothing works any more, as after a
    /// crash; 0 for never. That write itself does not happen.
    pub stop_at_write: u64,
    /// What the store says that its requests cost.
    pub costs: Option<Costs>,
}

/// Wraps a store and misbehaves as its [`Faults`] say.
#[derive(Debug)]
pub struct Unreliable<S> {
    inner: Arc<S>,
    faults: Faults,
    operations: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    answers: AtomicU64,
    repeats: AtomicU64,
    reading: AtomicU64,
    reading_max: AtomicU64,
    pack_bytes: AtomicU64,
}

impl<S: Storage> Unreliable<S> {
    /// Wraps `inner`, which stays reachable for a look at what was really stored.
    #[must_use]
    pub fn new(inner: Arc<S>, faults: Faults) -> Self {
        let zero = AtomicU64::default;
        let (operations, reads, writes) = (zero(), zero(), zero());
        let (answers, repeats, pack_bytes) = (zero(), zero(), zero());
        let (reading, reading_max) = (zero(), zero());
        Self {
            inner,
            faults,
            operations,
            reads,
            writes,
            answers,
            repeats,
            reading,
            reading_max,
            pack_bytes,
        }
    }

    /// How many ranges were being read at once, at most.
    #[must_use]
    pub fn reads_at_once(&self) -> u64 {
        self.reading_max.load(Ordering::SeqCst)
    }

    /// How many operations there were so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    /// How many bytes of packs were stored.
    #[must_use]
    pub fn pack_bytes(&self) -> u64 {
        self.pack_bytes.load(Ordering::SeqCst)
    }

    /// How many writes and deletes were asked for so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    fn misbehave(&self, operation: &'static str, what: &str) -> Result<(), StorageError> {
        let until = Instant::now() + self.faults.delay;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
        let stopped = self.faults.stop_at_write > 0 && self.writes() >= self.faults.stop_at_write;
        if stopped || due(&self.operations, self.faults.fail_every) {
            return Err(StorageError::new(operation, what, StorageProblem::Other));
        }
        Ok(())
    }

    fn before_write(&self, operation: &'static str, file: File) -> Result<(), StorageError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.misbehave(operation, &file.to_string())
    }
}

impl<S: Storage> Unreliable<S> {
    /// Changes something, perhaps twice, and perhaps without telling.
    fn change(
        &self,
        operation: &'static str,
        file: File,
        change: impl Fn() -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.before_write(operation, file)?;
        let mut result = change();
        if due(&self.repeats, self.faults.duplicate_every) {
            // Whoever deletes hears of the first time, whoever writes of the second.
            let second = change();
            if operation == "write" {
                result = second;
            }
        }
        match due(&self.answers, self.faults.lose_answer_every) {
            true => Err(StorageError::new(operation, file, StorageProblem::Other)),
            false => result,
        }
    }
}

/// Counts one more and tells whether it is the turn of a fault that strikes every n-th time.
fn due(counter: &AtomicU64, every: u64) -> bool {
    let count = counter.fetch_add(1, Ordering::SeqCst) + 1;
    every > 0 && count.is_multiple_of(every)
}

impl<S: Storage> Storage for Unreliable<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        self.misbehave("prepare", &self.location())?;
        self.inner.prepare()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StorageError> {
        self.misbehave("list", kind.folder())?;
        let mut listed = self.inner.list(kind)?;
        if due(&self.repeats, self.faults.duplicate_every) {
            listed.extend(listed.last().copied());
        }
        Ok(listed)
    }

    fn size(&self, file: File) -> Result<u64, StorageError> {
        self.misbehave("look at", &file.to_string())?;
        self.inner.size(file)
    }

    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        self.misbehave("read", &file.to_string())?;
        self.inner.read(file, bytes_max)
    }

    fn read_range(&self, file: File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let reading = self.reading.fetch_add(1, Ordering::SeqCst) + 1;
        self.reading_max.fetch_max(reading, Ordering::SeqCst);
        let misbehaved = self.misbehave("read", &file.to_string());
        self.reading.fetch_sub(1, Ordering::SeqCst);
        misbehaved?;
        if due(&self.reads, self.faults.truncate_every) {
            let half = buffer.len() / 2;
            self.inner.read_range(file, offset, &mut buffer[..half])?;
            return Err(StorageError::new("read", file, StorageProblem::TooShort));
        }
        self.inner.read_range(file, offset, buffer)
    }

    fn put(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.change("write", file, || self.inner.put(file, content))?;
        if file.kind() == FileKind::Pack {
            self.pack_bytes.fetch_add(content.len() as u64, Ordering::SeqCst);
        }
        Ok(())
    }

    fn put_pack(
        &self,
        id: PackId,
        holds: BlobKind,
        content: &Arc<Vec<u8>>,
    ) -> Result<Storing<'_>, StorageError> {
        let put = || self.inner.put_pack(id, holds, content)?.finish();
        self.change("write", File::Pack(id), put)?;
        self.pack_bytes.fetch_add(content.len() as u64, Ordering::SeqCst);
        Ok(Storing::done())
    }

    fn put_spooled(&self, holds: BlobKind, pack: &Spooled) -> Result<(), StorageError> {
        let put = || self.inner.put_spooled(holds, pack);
        self.change("write", File::Pack(pack.id()), put)?;
        self.pack_bytes.fetch_add(pack.bytes(), Ordering::SeqCst);
        Ok(())
    }

    fn sends_from_files(&self) -> bool {
        self.inner.sends_from_files()
    }

    fn put_new(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.change("write", file, || self.inner.put_new(file, content))
    }

    fn delete(&self, file: File) -> Result<(), StorageError> {
        self.change("delete", file, || self.inner.delete(file))
    }

    fn settle(&self, kind: FileKind) -> Result<(), StorageError> {
        self.misbehave("settle", kind.folder())?;
        self.inner.settle(kind)
    }

    fn holding(&self) -> Result<Holding, StorageError> {
        self.misbehave("look at", &self.location())?;
        self.inner.holding()
    }

    fn retention(&self, file: File) -> Result<Retention, StorageError> {
        self.misbehave("look at", &file.to_string())?;
        self.inner.retention(file)
    }

    fn retain(&self, file: File, until: Timestamp) -> Result<(), StorageError> {
        self.change("hold", file, || self.inner.retain(file, until))
    }

    fn archiving(&self) -> Archiving {
        self.inner.archiving()
    }

    fn reach(&self, file: File) -> Result<Reach, StorageError> {
        self.misbehave("look at", &file.to_string())?;
        self.inner.reach(file)
    }

    fn warm_up(&self, file: File) -> Result<(), StorageError> {
        self.misbehave("bring back", &file.to_string())?;
        self.inner.warm_up(file)
    }

    fn local_folder(&self) -> Option<&Path> {
        self.inner.local_folder()
    }

    fn listing_lag(&self) -> Duration {
        self.inner.listing_lag()
    }

    fn costs(&self) -> Costs {
        self.faults.costs.unwrap_or_else(|| self.inner.costs())
    }

    fn remove_leftovers(&self) -> Result<usize, StorageError> {
        self.misbehave("clean", &self.location())?;
        self.inner.remove_leftovers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{conformance, memory::MemoryStorage};

    fn wrapped(faults: Faults) -> Unreliable<MemoryStorage> {
        Unreliable::new(Arc::new(MemoryStorage::new()), faults)
    }

    #[test]
    fn without_faults_it_conforms() {
        conformance::run(|| (wrapped(Faults::default()), ()));
    }

    #[test]
    fn slowness_alone_breaks_nothing() {
        let faults = Faults { delay: Duration::from_micros(50), ..Faults::default() };
        conformance::run(|| (wrapped(faults.clone()), ()));
    }

    #[test]
    fn each_fault_strikes() {
        let storage = wrapped(Faults { fail_every: 2, ..Faults::default() });
        assert!(storage.list(FileKind::Pack).is_ok() && storage.list(FileKind::Pack).is_err());

        let storage = wrapped(Faults { truncate_every: 1, ..Faults::default() });
        storage.put(conformance::pack(1), b"0123").unwrap();
        assert!(storage.read_range(conformance::pack(1), 0, &mut [0; 4]).is_err());

        let storage = wrapped(Faults { lose_answer_every: 1, ..Faults::default() });
        assert!(storage.put(conformance::pack(1), b"x").is_err());
        assert_eq!(storage.inner.list(FileKind::Pack).unwrap().len(), 1, "it was done");

        let storage = wrapped(Faults { duplicate_every: 1, ..Faults::default() });
        assert!(storage.put_new(conformance::pack(1), b"x").is_err(), "the second time");
        assert_eq!(storage.list(FileKind::Pack).unwrap().len(), 2, "named twice");
        storage.delete(conformance::pack(1)).unwrap();

        let storage = wrapped(Faults { stop_at_write: 2, ..Faults::default() });
        storage.put(conformance::pack(1), b"x").unwrap();
        assert!(storage.put(conformance::pack(2), b"x").is_err());
        assert!(storage.list(FileKind::Pack).is_err(), "a stopped store answers nothing");
        assert_eq!(storage.inner.list(FileKind::Pack).unwrap().len(), 1);
    }
}
