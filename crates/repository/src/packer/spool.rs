//! Packs for stores that take a pack whole: they grow in a file of this machine without a name.
//!
//! A pack in memory takes its 16 MiB from its first blob until the store has it, and half a dozen exist
//! at a time. Here none is in memory where the store sends it from its file (`storage/spooled.rs`), and
//! elsewhere those alone that are being sent. What is in the file is sealed, as it is in the store, and
//! nobody else can open it: it has no name and is gone with the process. What is read back is compared
//! with the hash of what was written.
//!
//! The file is a convenience: where none can be made, or the disk is full, packs stay in memory.

use std::{fs::File as OsFile, io::Write, path::PathBuf, sync::Arc};

use crate::{
    format::pack::BlobKind,
    id::PackId,
    storage::{PackFile, Spooled, Storage, StorageError, nameless_file},
};

/// Where packs grow.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    folder: PathBuf,
}

/// A pack that grows in a file and is put whole.
pub(super) struct SpooledPack {
    folder: PathBuf,
    storage: Arc<dyn Storage>,
    holds: BlobKind,
    file: OsFile,
    /// How much is in the file.
    bytes: u64,
    /// What comes behind that and did not fit on the disk.
    rest: Vec<u8>,
}

impl Spool {
    /// A spool in `folder`.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// An empty pack; none where no file can be made for it.
    pub(super) fn begin(&self, storage: &Arc<dyn Storage>, holds: BlobKind) -> Option<SpooledPack> {
        let file = nameless_file(&self.folder).ok()?;
        let (folder, storage) = (self.folder.clone(), Arc::clone(storage));
        Some(SpooledPack { folder, storage, holds, file, bytes: 0, rest: Vec::new() })
    }
}

impl PackFile for SpooledPack {
    fn append(&mut self, piece: &[u8]) -> Result<(), StorageError> {
        // Part of a piece may be in the file when there was no room for all of it.
        match self.rest.is_empty() && self.file.write_all(piece).is_ok() {
            true => self.bytes += piece.len() as u64,
            false => self.rest.extend_from_slice(piece),
        }
        Ok(())
    }

    fn finish(self: Box<Self>, id: PackId) -> Result<(), StorageError> {
        let Self { folder, storage, holds, file, bytes, rest } = *self;
        storage.put_spooled(holds, &Spooled::new(id, (file, bytes), rest, &folder))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Seek, os::unix::fs::MetadataExt};

    use super::*;
    use crate::storage::{File, memory::MemoryStorage};

    fn check(
        spoil: impl FnOnce(&mut SpooledPack),
    ) -> (Arc<MemoryStorage>, Result<(), StorageError>) {
        let folder = tempfile::tempdir().unwrap();
        let memory = Arc::new(MemoryStorage::new());
        let storage: Arc<dyn Storage> = memory.clone();
        let spool = Spool::new(folder.path().to_owned());
        let mut pack = Box::new(spool.begin(&storage, BlobKind::Data).unwrap());
        let stat = pack.file.metadata().unwrap();
        assert_eq!((stat.nlink(), stat.mode() & 0o777), (0, 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        pack.append(b"one, ").unwrap();
        spoil(&mut pack);
        pack.append(b"two, ").unwrap();
        pack.append(b"three").unwrap();
        let stored = pack.finish(PackId::of(b"one, two, three"));
        (memory, stored)
    }

    #[test]
    fn what_was_appended_is_stored() {
        let (memory, stored) = check(|_| ());
        stored.unwrap();
        let id = PackId::of(b"one, two, three");
        assert_eq!(memory.files()[&File::Pack(id)], b"one, two, three");
    }

    #[test]
    fn a_disk_without_room_is_no_hindrance() {
        // Reads only, so that writes fail as they do when the disk is full.
        let (memory, stored) = check(|pack| {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pack.file));
            pack.file = OsFile::open(path).unwrap();
        });
        stored.unwrap();
        assert_eq!(memory.files().len(), 1);
    }

    #[test]
    fn what_changed_on_the_disk_is_not_stored() {
        let (memory, stored) = check(|pack| {
            pack.file.rewind().unwrap();
            pack.file.write_all(b"ONE, ").unwrap();
        });
        assert!(stored.unwrap_err().to_string().contains("read a pack back"));
        assert!(memory.files().is_empty());
    }

    #[test]
    fn where_no_file_can_be_made_there_is_no_spool() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let spool = Spool::new(PathBuf::from("/nowhere/at/all"));
        assert!(spool.begin(&storage, BlobKind::Data).is_none());
    }
}
