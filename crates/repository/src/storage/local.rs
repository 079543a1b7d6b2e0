//! A repository in a folder.
//!
//! A file is written under a temporary name beside its final one, synced, renamed, and the
//! folder synced: after a power failure it is there whole or not at all. The temporary name is
//! `NAME-tmp-RANDOM`, as restic's, so that either tool ignores the other's leftovers. A pack that comes
//! piece by piece has no name before its end: it is written beside the 256 folders of packs, so that
//! whoever begins it waits for no folder to be made, under the name of some other pack, and moved.

use std::{
    fs, io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Disk, File, FileKind, Listed, NewFile, PackFile, RealDisk, Storage, StorageError,
    StorageProblem, Storing,
};
use crate::{crypto::random_bytes, id::PackId};

/// Marks the name of a file that is still being written.
const TEMPORARY_MARK: &str = "-tmp-";

/// How long a temporary file must have been left alone before it is removed. A file is written
/// in seconds, a pack as long as blobs come; who writes it may be a process that was not seen to be
/// at work.
const LEFTOVER_AGE: Duration = Duration::from_secs(60 * 60);

/// restic's pause between writing a lock and looking for others, for file systems whose
/// listings are cached by another machine.
const NETWORK_LISTING_LAG: Duration = Duration::from_millis(200);

/// A repository in a folder of a local (or mounted) file system.
#[derive(Debug, Clone)]
pub struct LocalStorage<D = RealDisk> {
    root: PathBuf,
    disk: D,
}

impl LocalStorage {
    /// A store in the folder `root`, which need not exist yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self::with_disk(root, RealDisk)
    }
}

impl<D: Disk + Clone + 'static> LocalStorage<D> {
    /// A store in the folder `root` whose changes go through `disk`.
    #[must_use]
    pub fn with_disk(root: impl Into<PathBuf>, disk: D) -> Self {
        Self { root: root.into(), disk }
    }

    /// The folder of this store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, file: File) -> PathBuf {
        self.root.join(file.to_string())
    }

    fn store(&self, file: File, content: &[u8], replace: bool) -> io::Result<()> {
        self.write(file, content)?.name(replace)
    }

    /// Writes the content under a temporary name, and does not wait for the disk.
    fn write(&self, file: File, content: &[u8]) -> io::Result<Written<D>> {
        let path = self.path(file);
        let temporary = temporary_name(&path)?;
        let written = Written { disk: self.disk.clone(), temporary, path, named: false };
        let temporary = &written.temporary;
        self.in_folder(temporary, || self.disk.write_new(temporary, content))?;
        Ok(written)
    }

    /// Does what makes a file at `path`, whose folder is created if need be: the 256 folders of
    /// packs are made when they are first needed.
    fn in_folder<T>(&self, path: &Path, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => {
                self.create_folder(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
                make()
            }
            result => result,
        }
    }

    /// Creates a folder with the parents it lacks, and makes their names durable.
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let parent = match folder.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        self.create_folder(parent)?;
        self.disk.create_dir(folder)?;
        self.disk.sync_dir(parent)
    }

    /// Calls `visit` with each entry of the folders that hold files of `kind`.
    fn visit(
        &self,
        kind: FileKind,
        visit: &mut dyn FnMut(&fs::DirEntry) -> io::Result<()>,
    ) -> io::Result<()> {
        let folder = self.root.join(kind.folder());
        if kind != FileKind::Pack {
            return visit_folder(&folder, visit);
        }
        visit_folder(&folder, &mut |entry| match entry.file_type()?.is_dir() {
            true => visit_folder(&entry.path(), visit),
            false => visit(entry),
        })
    }
}

/// A file that was written and has no name of its own yet. Removed when it gets none.
struct Written<D: Disk> {
    disk: D,
    temporary: PathBuf,
    path: PathBuf,
    named: bool,
}

impl<D: Disk> Written<D> {
    /// Makes the content durable, then gives it its name, and makes this durable too.
    fn name(mut self, replace: bool) -> io::Result<()> {
        self.disk.sync_file(&self.temporary)?;
        match replace {
            true => self.disk.rename(&self.temporary, &self.path),
            false => self.disk.rename_new(&self.temporary, &self.path),
        }?;
        self.named = true;
        self.disk.sync_dir(self.path.parent().ok_or(io::ErrorKind::InvalidInput)?)
    }
}

impl<D: Disk> Drop for Written<D> {
    fn drop(&mut self) {
        if !self.named {
            // Best effort: what cannot be removed now is a leftover for later.
            drop(self.disk.remove(&self.temporary));
        }
    }
}

/// A pack that comes piece by piece. Until its name is known its temporary name is that of some
/// other pack, so that who looks for leftovers finds it.
struct GrowingPack<D: Disk + Clone + 'static> {
    storage: LocalStorage<D>,
    open: Option<(Written<D>, Box<dyn NewFile>)>,
    bytes: u64,
}

impl<D: Disk + Clone + 'static> GrowingPack<D> {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let (_, file) = match &mut self.open {
            Some(open) => open,
            open => open.insert(create_growing(&self.storage)?),
        };
        file.write_all(piece)?;
        self.bytes += piece.len() as u64;
        Ok(())
    }

    fn name(self, id: PackId) -> io::Result<()> {
        let Some((mut written, mut file)) = self.open else {
            return Err(io::Error::other("nothing was written"));
        };
        let bytes = file.sync()?;
        if bytes != self.bytes {
            let text = format!("the file has {bytes} bytes, not the {} written", self.bytes);
            return Err(io::Error::other(text));
        }
        drop(file);
        written.path = self.storage.path(File::Pack(id));
        let path = written.path.clone();
        let to = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        self.storage.create_folder(to)?;
        // The content is durable, so it needs no durable name before this one.
        match self.storage.disk.rename(&written.temporary, &written.path) {
            Ok(()) => {
                written.named = true;
                self.storage.disk.sync_dir(to)
            }
            // The folders of packs lie on several file systems.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let content = fs::read(&written.temporary)?;
                self.storage.store(File::Pack(id), &content, true)
            }
            Err(error) => Err(error),
        }
    }
}

fn create_growing<D: Disk + Clone + 'static>(
    storage: &LocalStorage<D>,
) -> io::Result<(Written<D>, Box<dyn NewFile>)> {
    let mut random = [0; 32];
    random_bytes(&mut random).map_err(io::Error::other)?;
    let path = storage.root.join(FileKind::Pack.folder()).join(PackId::from_bytes(random).to_hex());
    let temporary = temporary_name(&path)?;
    let file = storage.in_folder(&temporary, || storage.disk.create(&temporary))?;
    Ok((Written { disk: storage.disk.clone(), temporary, path, named: false }, file))
}

impl<D: Disk + Clone + 'static> PackFile for GrowingPack<D> {
    fn append(&mut self, piece: &[u8]) -> Result<(), StorageError> {
        self.write(piece).map_err(|error| {
            StorageError::io("write a pack to", self.storage.root.display(), error)
        })
    }

    fn finish(self: Box<Self>, id: PackId) -> Result<(), StorageError> {
        let path = self.storage.path(File::Pack(id));
        self.name(id).map_err(|error| StorageError::io("write", path.display(), error))
    }
}

/// Whether a file is old enough to be nobody's work any more.
fn is_old(entry: &fs::DirEntry) -> io::Result<bool> {
    let data = entry.metadata()?;
    let age = data.modified()?.elapsed().unwrap_or_default();
    Ok(data.is_file() && age >= LEFTOVER_AGE)
}

fn visit_folder(
    folder: &Path,
    visit: &mut dyn FnMut(&fs::DirEntry) -> io::Result<()>,
) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        visit(&entry?)?;
    }
    Ok(())
}

fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    random_bytes(&mut random).map_err(io::Error::other)?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!("{TEMPORARY_MARK}{:016x}", u64::from_le_bytes(random)));
    Ok(path.with_file_name(name))
}

impl<D: Disk + Clone + 'static> Storage for LocalStorage<D> {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        let create = |folder: &Path| {
            self.create_folder(folder)
                .map_err(|error| StorageError::io("create folder", folder.display(), error))
        };
        create(&self.root)?;
        for kind in FileKind::ALL {
            if kind != FileKind::Config {
                create(&self.root.join(kind.folder()))?;
            }
        }
        Ok(())
    }

    fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StorageError> {
        if kind == FileKind::Config {
            return match self.size(File::Config) {
                Ok(bytes) => Ok(vec![Listed { file: File::Config, bytes }]),
                Err(error) if error.problem() == StorageProblem::NotFound => Ok(Vec::new()),
                Err(error) => Err(error),
            };
        }
        let mut listed = Vec::new();
        let mut visit = |entry: &fs::DirEntry| {
            let file = entry.file_name().to_str().and_then(|name| kind.file(name));
            let Some(file) = file.filter(|&file| self.path(file) == entry.path()) else {
                return Ok(());
            };
            match entry.metadata() {
                Ok(data) if data.is_file() => listed.push(Listed { file, bytes: data.size() }),
                Ok(_) => {}
                // Another process removed it between the listing and the question.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            Ok(())
        };
        self.visit(kind, &mut visit).map_err(|error| {
            StorageError::io("list", self.root.join(kind.folder()).display(), error)
        })?;
        Ok(listed)
    }

    fn size(&self, file: File) -> Result<u64, StorageError> {
        let path = self.path(file);
        let data =
            fs::metadata(&path).map_err(|error| StorageError::io("look at", path.display(), error));
        Ok(data?.size())
    }

    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        let path = self.path(file);
        let failed = |error| StorageError::io("read", path.display(), error);
        let open = fs::File::open(&path).map_err(failed)?;
        let bytes = open.metadata().map_err(failed)?.size();
        let too_large = || StorageError::new("read", path.display(), StorageProblem::TooLarge);
        if bytes > bytes_max {
            return Err(too_large());
        }
        let mut content = vec![0; usize::try_from(bytes).map_err(|_| too_large())?];
        open.read_exact_at(&mut content, 0).map_err(failed)?;
        Ok(content)
    }

    fn read_range(&self, file: File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let path = self.path(file);
        fs::File::open(&path)
            .and_then(|open| open.read_exact_at(buffer, offset))
            .map_err(|error| StorageError::io("read", path.display(), error))
    }

    fn put(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.store(file, content, true)
            .map_err(|error| StorageError::io("write", self.path(file).display(), error))
    }

    /// The content is in the hands of the system when this returns; what is left to wait for is
    /// the disk, and several files can wait for it at once.
    fn begin_put(&self, file: File, content: &[u8]) -> Result<Storing<'_>, StorageError> {
        let failed = move |error| StorageError::io("write", self.path(file).display(), error);
        let written = self.write(file, content).map_err(failed)?;
        Ok(Storing::until(move || written.name(true).map_err(failed)))
    }

    fn begin_pack(&self) -> Result<Option<Box<dyn PackFile>>, StorageError> {
        Ok(Some(Box::new(GrowingPack { storage: self.clone(), open: None, bytes: 0 })))
    }

    fn put_new(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.store(file, content, false)
            .map_err(|error| StorageError::io("write", self.path(file).display(), error))
    }

    fn delete(&self, file: File) -> Result<(), StorageError> {
        let path = self.path(file);
        self.disk.remove(&path).map_err(|error| StorageError::io("delete", path.display(), error))
    }

    fn settle(&self, kind: FileKind) -> Result<(), StorageError> {
        let folder = self.root.join(kind.folder());
        // Packs are settled by nobody: one that comes back is an orphan and harms nobody.
        match kind {
            FileKind::Config | FileKind::Pack => Ok(()),
            _ => self
                .disk
                .sync_dir(&folder)
                .map_err(|error| StorageError::io("settle", folder.display(), error)),
        }
    }

    fn local_folder(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn listing_lag(&self) -> Duration {
        /// `f_type` of file systems whose folders other machines change: NFS, SMB (three
        /// generations) and FUSE, behind which anything may stand. From `statfs(2)`.
        const NETWORK: [u64; 5] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546];
        let Ok(system) = rustix::fs::statfs(&self.root) else {
            return NETWORK_LISTING_LAG;
        };
        // The field's type and sign differ between architectures; its low 32 bits do not.
        #[expect(clippy::cast_sign_loss, reason = "a magic number, not a quantity")]
        let magic = system.f_type as u64 & 0xffff_ffff;
        if NETWORK.contains(&magic) { NETWORK_LISTING_LAG } else { Duration::ZERO }
    }

    fn remove_leftovers(&self) -> Result<usize, StorageError> {
        let mut removed = 0;
        // Locks are left out: their leftovers are a few bytes, and another process may be
        // writing one at this moment.
        for kind in [FileKind::Pack, FileKind::Index, FileKind::Snapshot, FileKind::Key] {
            let mut visit = |entry: &fs::DirEntry| {
                let name = entry.file_name();
                let leftover = name
                    .to_str()
                    .and_then(|name| name.split_once(TEMPORARY_MARK))
                    .is_some_and(|(stem, _)| kind.file(stem).is_some());
                if leftover && is_old(entry)? {
                    self.disk.remove(&entry.path())?;
                    removed += 1;
                }
                Ok(())
            };
            self.visit(kind, &mut visit).map_err(|error| {
                StorageError::io("clean", self.root.join(kind.folder()).display(), error)
            })?;
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance;

    #[test]
    fn conforms() {
        conformance::run(|| {
            let folder = tempfile::tempdir().unwrap();
            let storage = LocalStorage::new(folder.path().join("deep/er"));
            (storage, folder)
        });
    }

    #[test]
    fn leftovers_are_ignored_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::new(folder.path());
        storage.prepare().unwrap();
        let file = conformance::pack(1);
        let leftover = folder.path().join(format!("{file}-tmp-123"));
        fs::create_dir_all(leftover.parent().unwrap()).unwrap();
        fs::write(&leftover, "half").unwrap();
        assert_eq!(storage.remove_leftovers().unwrap(), 0, "it may be somebody's at work");
        let old = std::time::SystemTime::now() - LEFTOVER_AGE;
        fs::File::options().write(true).open(&leftover).unwrap().set_modified(old).unwrap();
        let stranger = folder.path().join("data/README-tmp-of-mine");
        fs::write(&stranger, "mine").unwrap();
        assert_eq!(storage.list(FileKind::Pack).unwrap(), []);
        assert_eq!(storage.remove_leftovers().unwrap(), 1);
        assert!(!leftover.exists() && stranger.exists());
    }

    #[test]
    fn a_pack_of_a_killed_process_is_ignored_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::new(folder.path());
        storage.prepare().unwrap();
        let mut pack = storage.begin_pack().unwrap().unwrap();
        pack.append(b"half").unwrap();
        // As a kill leaves it: nobody cleans up.
        std::mem::forget(pack);
        assert_eq!(storage.list(FileKind::Pack).unwrap(), []);
        assert_eq!(storage.remove_leftovers().unwrap(), 0, "it may be somebody's at work");
        let left = fs::read_dir(folder.path().join("data")).unwrap().next().unwrap().unwrap();
        let old = std::time::SystemTime::now() - LEFTOVER_AGE;
        fs::File::open(left.path()).unwrap().set_modified(old).unwrap();
        assert_eq!(storage.remove_leftovers().unwrap(), 1);
        assert!(!left.path().exists());
    }

    #[test]
    fn a_folder_that_is_not_ours_is_no_store_that_refuses_on_purpose() {
        use muster_model::Fault as _;
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let here = StorageError::io("delete", "locks/1", denied).help().unwrap();
        assert!(here.contains("this user") && !here.contains("on purpose"), "{here}");
        let there = StorageError::new("delete", "locks/1", StorageProblem::Denied);
        assert!(there.help().unwrap().contains("on purpose"));
    }

    #[test]
    fn a_pack_in_the_wrong_folder_is_not_listed() {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::new(folder.path());
        let file = conformance::pack(1);
        storage.prepare().unwrap();
        storage.put(file, b"x").unwrap();
        let wrong = folder.path().join("data/zz");
        fs::create_dir(&wrong).unwrap();
        let path = folder.path().join(file.to_string());
        fs::rename(&path, wrong.join(path.file_name().unwrap())).unwrap();
        assert_eq!(storage.list(FileKind::Pack).unwrap(), []);
    }

    #[test]
    fn files_are_for_their_owner_alone_and_read_only() {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::new(folder.path().join("repo"));
        storage.prepare().unwrap();
        storage.put(File::Config, b"x").unwrap();
        let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().mode() & 0o777;
        assert_eq!(mode("repo"), 0o700);
        assert_eq!(mode("repo/data"), 0o700);
        assert_eq!(mode("repo/config"), 0o400);
    }
}
