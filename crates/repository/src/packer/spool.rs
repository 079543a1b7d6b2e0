//! Packs for stores that take a pack whole: they grow in a file of this machine without a name.
//!
//! A pack in memory takes its 16 MiB from its first blob until the store has it, and four exist at a
//! time. Here only those that are being sent are read into memory. What is in the file is sealed,
//! as it is in the store, and nobody else can open it: it has no name and is gone with the process.
//! What is read back is compared with the hash of what was written.
//!
//! The file is a convenience: where none can be made, or the disk is full, packs stay in memory.

use std::{
    fs::{self, File as OsFile, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use rustix::fs::OFlags;

use super::lock;
use crate::{
    crypto::random_bytes,
    format::pack::BlobKind,
    id::PackId,
    storage::{PackFile, Storage, StorageError},
};

/// Where packs grow, and the memory for those that are sent.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    folder: PathBuf,
    /// Kept, because memory that is freed and taken again in megabytes ends up in pieces.
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
    buffer_bytes: usize,
}

/// A pack that grows in a file and is put whole.
pub(super) struct SpooledPack {
    spool: Spool,
    storage: Arc<dyn Storage>,
    holds: BlobKind,
    file: OsFile,
    /// How much is in the file.
    bytes: u64,
    /// What comes behind that and did not fit on the disk.
    rest: Vec<u8>,
}

impl Spool {
    /// A spool in `folder`, for packs of up to `buffer_bytes`; larger ones are few.
    pub(super) fn new(folder: PathBuf, buffer_bytes: usize) -> Self {
        Self { folder, buffers: Arc::default(), buffer_bytes }
    }

    /// An empty pack; none where no file can be made for it.
    pub(super) fn begin(&self, storage: &Arc<dyn Storage>, holds: BlobKind) -> Option<SpooledPack> {
        let file = nameless_file(&self.folder).ok()?;
        let (spool, storage) = (self.clone(), Arc::clone(storage));
        Some(SpooledPack { spool, storage, holds, file, bytes: 0, rest: Vec::new() })
    }

    fn buffer(&self) -> Vec<u8> {
        let mut buffer = lock(&self.buffers).pop().unwrap_or_default();
        buffer.reserve_exact(self.buffer_bytes);
        buffer
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        // What a huge tree took is not kept.
        if buffer.capacity() <= self.buffer_bytes {
            buffer.clear();
            lock(&self.buffers).push(buffer);
        }
    }
}

fn nameless_file(folder: &Path) -> io::Result<OsFile> {
    let options = |flags: OFlags| {
        let mut options = OpenOptions::new();
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        options.read(true).write(true).mode(0o600).custom_flags(flags);
        options
    };
    if let Ok(file) = options(OFlags::TMPFILE).open(folder) {
        return Ok(file);
    }
    // Not every file system makes files without a name; then it is taken away at once.
    let mut random = [0; 16];
    random_bytes(&mut random).map_err(io::Error::other)?;
    let path = folder.join(format!(".muster-{:032x}", u128::from_le_bytes(random)));
    let file = options(OFlags::NOFOLLOW).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

impl SpooledPack {
    fn read_back(&mut self, content: &mut Vec<u8>) -> io::Result<()> {
        self.file.rewind()?;
        (&mut self.file).take(self.bytes).read_to_end(content)?;
        content.append(&mut self.rest);
        Ok(())
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

    fn finish(mut self: Box<Self>, id: PackId) -> Result<(), StorageError> {
        let mut content = self.spool.buffer();
        let read = self.read_back(&mut content).and_then(|()| match PackId::of(&content) == id {
            true => Ok(()),
            false => Err(io::Error::other("it holds other bytes than were written to it")),
        });
        let place = self.spool.folder.display();
        read.map_err(|error| StorageError::io("read a pack back from a file in", place, error))?;
        let Self { storage, holds, spool, file, .. } = *self;
        drop(file);
        let content = Arc::new(content);
        let storing = storage.put_pack(id, holds, &content)?;
        // Should the store's client not have let go of it yet, the next pack gets a new one.
        if let Ok(buffer) = Arc::try_unwrap(content) {
            spool.give_back(buffer);
        }
        storing.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::storage::{File, memory::MemoryStorage};

    fn check(
        spoil: impl FnOnce(&mut SpooledPack),
    ) -> (Arc<MemoryStorage>, Result<(), StorageError>) {
        let folder = tempfile::tempdir().unwrap();
        let memory = Arc::new(MemoryStorage::new());
        let storage: Arc<dyn Storage> = memory.clone();
        let spool = Spool::new(folder.path().to_owned(), 100);
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
        let spool = Spool::new(PathBuf::from("/nowhere/at/all"), 100);
        assert!(spool.begin(&storage, BlobKind::Data).is_none());
    }
}
