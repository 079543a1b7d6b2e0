//! Opening a repository, and reading what is in it.
//!
//! The types follow the order of work: a [`Repository`] has a key and can read snapshots; an
//! [`IndexedRepository`] has loaded the index too and can read blobs. What needs blobs takes
//! the second, so it cannot be called too early.

mod entries;
mod errors;
mod opener;
mod reader;
mod trees;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::bounded;
use muster_model::{Class, Fault};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

pub use self::entries::Entries;
pub use self::errors::{InitError, OpenError, ReadError, SaveError};
pub use self::opener::BlobOpener;
pub use self::reader::BlobReader;
pub(crate) use self::reader::{is_large_tree, read_claimed};
use self::trees::TreeWindows;
use crate::{
    chunker::Polynomial,
    crypto::{Key, KeyMaterial, NoRandomness, random_bytes},
    environment::cores,
    format::{
        FormatError,
        config::{Config, Version},
        index_file::IndexFile,
        key_file::{Author, Cost, KEY_FILE_BYTES_MAX, KeyFile, WrapError},
        snapshot::Snapshot,
        unpacked::{UNPACKED_BYTES_MAX, Wrapping, open_json, seal_json},
    },
    id::{Id, KeyId, PackId, SnapshotId},
    index::Index,
    run::Run,
    storage::{File, FileKind, Listed, Storage, StorageError, StorageProblem},
    warm_up::Folders,
};

/// How many keys are tried with a password, as in restic: each try costs a scrypt.
const KEYS_TRIED_MAX: usize = 20;

/// How long it is of use that no lock was there at a moment.
const GLANCE_LASTS: Duration = Duration::from_secs(10);

/// A repository that a password opened.
#[derive(Clone)]
pub struct Repository {
    storage: Arc<dyn Storage>,
    key: Arc<Key>,
    key_id: KeyId,
    config: Config,
    /// When it was opened, if nobody held a lock then.
    unlocked_at: Option<Instant>,
}

/// What a new repository is made with.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Version of the format.
    pub version: Version,
    /// Where to cut files; `None` draws a polynomial at random. Repositories that shall share
    /// chunks need the same one.
    pub polynomial: Option<Polynomial>,
    /// Cost of the key derivation.
    pub cost: Cost,
    /// Who makes it.
    pub author: Author,
}

impl Repository {
    /// Makes a new repository in an empty place.
    ///
    /// The key is written first and `config` last, so that an interrupted `init` can be run
    /// again: without `config` there is no repository.
    ///
    /// # Errors
    /// Fails when there is a repository already, or the store fails.
    pub fn init(
        storage: Arc<dyn Storage>,
        password: &[u8],
        options: InitOptions,
    ) -> Result<Self, InitError> {
        let location = storage.location();
        match storage.size(File::Config) {
            Ok(_) => return Err(InitError::Exists { location }),
            Err(error) if error.problem() == StorageProblem::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        // Keys alone are left by an `init` that was interrupted; they open nothing.
        for kind in [FileKind::Pack, FileKind::Index, FileKind::Snapshot] {
            if !storage.list(kind)?.is_empty() {
                return Err(InitError::ConfigLost { location });
            }
        }
        storage.prepare()?;
        let polynomial = match options.polynomial {
            Some(polynomial) => polynomial,
            None => Polynomial::random().map_err(NoRandomness::from)?,
        };
        let mut id = [0; 32];
        random_bytes(&mut id)?;
        let id = PackId::from_bytes(id).to_hex();
        let config = Config { version: options.version, id, chunker_polynomial: polynomial };
        let master = KeyMaterial::random()?;
        let file = KeyFile::wrap(&master, password, options.cost, options.author)?.to_bytes()?;
        let key_id = KeyId::of(&file);
        storage.put(File::Key(key_id), &file)?;
        let key = Key::new(master);
        let sealed = seal_json(&key, Wrapping::Plain, &config)?;
        if let Err(error) = storage.put_new(File::Config, &sealed) {
            // Somebody else's init was quicker: our key opens nothing of theirs.
            drop(storage.delete(File::Key(key_id)));
            return Err(match error.problem() {
                StorageProblem::AlreadyExists => InitError::Exists { location },
                _ => error.into(),
            });
        }
        Ok(Self { storage, key: Arc::new(key), key_id, config, unlocked_at: None })
    }

    /// Opens a repository with a password. Tries the key whose id begins with `key_hint` first.
    ///
    /// # Errors
    /// Fails when there is no repository, the password opens none of its keys, or `config` or
    /// every key is damaged.
    pub fn open(
        storage: Arc<dyn Storage>,
        password: &[u8],
        key_hint: Option<&str>,
    ) -> Result<Self, OpenError> {
        let location = storage.location();
        let mut keys: Vec<KeyId> = Vec::new();
        // Each command begins with these questions.
        let began = Instant::now();
        let (listed, (sealed, locks)) = together(
            || storage.list(FileKind::Key),
            || {
                let config = || storage.read(File::Config, KEY_FILE_BYTES_MAX);
                together(config, || storage.list(FileKind::Lock))
            },
        );
        // Whoever has to know asks again.
        let unlocked_at = locks.is_ok_and(|locks| locks.is_empty()).then_some(began);
        for listed in listed? {
            if let File::Key(id) = listed.file {
                keys.push(id);
            }
        }
        if keys.is_empty() {
            return Err(match storage.size(File::Config) {
                Ok(_) => OpenError::NoKey { location },
                Err(error) if error.problem() == StorageProblem::NotFound => {
                    OpenError::NoRepository { location }
                }
                Err(error) => error.into(),
            });
        }
        keys.sort_by_key(|id| {
            let hinted = key_hint.is_some_and(|hint| id.to_hex().starts_with(hint));
            (!hinted, *id)
        });
        let sealed = match sealed {
            Err(error) if error.problem() == StorageProblem::NotFound => {
                return Err(OpenError::ConfigMissing { location });
            }
            result => result?,
        };
        let (key_id, key, config) = find_key(storage.as_ref(), &keys, password, &sealed)?;
        Ok(Self { storage, key: Arc::new(key), key_id, config, unlocked_at })
    }

    /// Whether nobody held a lock a moment ago.
    pub(crate) fn was_unlocked(&self) -> bool {
        self.unlocked_at.is_some_and(|at| at.elapsed() < GLANCE_LASTS)
    }

    /// The store.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The same repository over another store, for tests that put a fault in between.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn on(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// The master key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The key file that the password opened.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Version, identity and polynomial.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads and opens a file that holds one JSON document.
    ///
    /// # Errors
    /// Fails when the file is not there, is not what its name says, or cannot be understood.
    pub fn read_unpacked<T: DeserializeOwned>(&self, file: File) -> Result<T, ReadError> {
        let sealed = self.storage.read(file, UNPACKED_BYTES_MAX)?;
        verify_digest(file, &sealed)
            .and_then(|()| open_json(&self.key, sealed))
            .map_err(|source| ReadError::damaged(file, source))
    }

    /// Seals and stores a JSON document under its hash.
    ///
    /// # Errors
    /// Fails when the store does.
    pub fn save_unpacked<K, T: Serialize>(
        &self,
        name: impl Fn(Id<K>) -> File,
        value: &T,
    ) -> Result<Id<K>, SaveError> {
        let sealed = seal_json(&self.key, Wrapping::of(self.config.version), value)?;
        let id = Id::of(&sealed);
        self.storage.put(name(id), &sealed)?;
        Ok(id)
    }

    /// The ids of all snapshots, in no order.
    ///
    /// # Errors
    /// Fails when the store cannot be listed.
    pub fn snapshot_ids(&self) -> Result<Vec<SnapshotId>, StorageError> {
        let listed = self.storage.list(FileKind::Snapshot)?;
        let id = |file| if let File::Snapshot(id) = file { Some(id) } else { None };
        Ok(listed.into_iter().filter_map(|listed| id(listed.file)).collect())
    }

    /// One snapshot.
    ///
    /// # Errors
    /// As [`Repository::read_unpacked`].
    pub fn snapshot(&self, id: SnapshotId) -> Result<Snapshot, ReadError> {
        self.read_unpacked(File::Snapshot(id))
    }

    /// All snapshots, oldest first. A snapshot that another process removes meanwhile is left
    /// out.
    ///
    /// # Errors
    /// Fails at the first snapshot that cannot be read.
    pub fn snapshots(&self) -> Result<Vec<(SnapshotId, Snapshot)>, ReadError> {
        self.snapshots_among(&self.snapshot_ids()?)
    }

    /// The same of those that were listed.
    pub(crate) fn snapshots_among(
        &self,
        listed: &[SnapshotId],
    ) -> Result<Vec<(SnapshotId, Snapshot)>, ReadError> {
        let mut snapshots = Vec::new();
        for (id, snapshot) in self.snapshots_of(listed) {
            match snapshot {
                Ok(snapshot) => snapshots.push((id, snapshot)),
                Err(error) if error.class() == Class::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        snapshots.sort_by(|(a_id, a), (b_id, b)| a.time.cmp(&b.time).then(a_id.cmp(b_id)));
        Ok(snapshots)
    }

    /// Reads snapshots, as many at once as the store takes; each or why not, in their order.
    pub(crate) fn snapshots_of(
        &self,
        ids: &[SnapshotId],
    ) -> Vec<(SnapshotId, Result<Snapshot, ReadError>)> {
        let read = |&id: &SnapshotId| (id, self.snapshot(id));
        all_at_once(self.storage.as_ref(), ids, read)
    }

    /// The names of all index files, for [`Repository::read_index_expecting`].
    ///
    /// # Errors
    /// Fails when the store cannot be listed.
    pub fn index_files(&self) -> Result<Vec<Listed>, StorageError> {
        self.storage.list(FileKind::Index)
    }

    /// Loads the index. Where packs of folders are archived, they are brought back when the first
    /// of them is read, if the run allows that.
    ///
    /// # Errors
    /// Fails at the first index file that cannot be read.
    pub fn load_index(&self, run: &Run) -> Result<IndexedRepository, ReadError> {
        self.load_index_expecting(&[], run)
    }

    /// The same, when the index files were listed before: see [`Repository::read_index_expecting`].
    ///
    /// # Errors
    /// As [`Repository::load_index`].
    pub fn load_index_expecting(
        &self,
        expected: &[Listed],
        run: &Run,
    ) -> Result<IndexedRepository, ReadError> {
        let index = self.read_index_expecting(expected, run)?;
        Ok(IndexedRepository::with_index(self.clone(), index).allowing(run))
    }

    /// Reads all index files into one index.
    ///
    /// # Errors
    /// As [`Repository::load_index`].
    pub fn read_index(&self, run: &Run) -> Result<Index, ReadError> {
        self.read_index_expecting(&[], run)
    }

    /// The same, when the index files were listed before, perhaps too early: what they hold is read
    /// while they are listed again, and what is not in the second listing has no say. The result is
    /// that of reading now, and takes a round trip less.
    ///
    /// # Errors
    /// As [`Repository::load_index`].
    pub fn read_index_expecting(&self, expected: &[Listed], run: &Run) -> Result<Index, ReadError> {
        let few: &[Listed] = if is_read_ahead(expected) { expected } else { &[] };
        let read = |listed: &Listed| (listed.file, self.read_index_file(listed.file));
        let (listed, ahead) =
            together(|| self.index_files(), || all_at_once(self.storage.as_ref(), few, read));
        let mut ahead: HashMap<File, _> = ahead.into_iter().collect();
        let (mut index, mut rest) = (Index::new(), Vec::new());
        for entry in listed? {
            match ahead.remove(&entry.file) {
                Some(read) => index.add_file(&read?),
                None => rest.push(entry),
            }
        }
        self.for_each_index_file_of(rest, run, |_, result| {
            index.add_file(&result?);
            Ok::<_, ReadError>(())
        })?;
        Ok(index)
    }

    /// Reads all index files on several threads and hands each, or why it cannot be read, to
    /// `visit` on this thread. Stops at the first error that `visit` returns.
    ///
    /// # Errors
    /// Fails when the store cannot be listed, the run is cancelled, or `visit` fails.
    pub fn for_each_index_file<E: From<ReadError>>(
        &self,
        run: &Run,
        visit: impl FnMut(File, Result<IndexFile, ReadError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let listed = self.index_files().map_err(ReadError::from)?;
        self.for_each_index_file_of(listed, run, visit)
    }

    fn for_each_index_file_of<E: From<ReadError>>(
        &self,
        listed: Vec<Listed>,
        run: &Run,
        mut visit: impl FnMut(File, Result<IndexFile, ReadError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let threads = index_threads(self.storage.costs().connections, &listed);
        // One decoded file a thread waits at most, so that memory stays small.
        let (to_visit, visited) = bounded(0);
        let (to_read, wanted) = bounded(listed.len());
        for entry in listed {
            // The channel holds them all, and its receiver lives on this stack frame.
            to_read.send(entry.file).expect("a channel with room and a receiver");
        }
        drop(to_read);
        thread::scope(|scope| {
            for _ in 0..threads {
                let (wanted, to_visit) = (wanted.clone(), to_visit.clone());
                scope.spawn(move || {
                    for file in wanted {
                        // The receiver is gone when the visit failed: then nobody wants more.
                        if to_visit.send((file, self.read_index_file(file))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(to_visit);
            let visited = visited;
            for (file, result) in &visited {
                run.cancel.check().map_err(ReadError::from)?;
                visit(file, result)?;
            }
            Ok(())
        })
    }

    pub(crate) fn read_index_file(&self, file: File) -> Result<IndexFile, ReadError> {
        let index: IndexFile = self.read_unpacked(file)?;
        index.validated().map_err(|source| ReadError::damaged(file, source))
    }
}

/// Whether index files are so few and small that they may be read before it is known whether they are
/// still wanted; decoded, they take several times their size.
fn is_read_ahead(listed: &[Listed]) -> bool {
    const TOGETHER_BYTES_MAX: u64 = 1 << 20;
    listed.iter().map(|entry| entry.bytes).sum::<u64>() <= TOGETHER_BYTES_MAX
}

/// How many index files are read at once: as many as the store takes, but when they are large only
/// one for each core, for a decoded one takes several times its size.
fn index_threads(connections: usize, listed: &[Listed]) -> usize {
    const TOGETHER_BYTES: u64 = 2 << 20;
    let largest = listed.iter().map(|entry| entry.bytes).max().unwrap_or(0).max(1);
    let small = usize::try_from(TOGETHER_BYTES / largest).unwrap_or(usize::MAX);
    cores().max(connections.min(small)).min(listed.len())
}

/// Two questions to a store, asked at once: the answer to one takes as long as those to both.
pub(crate) fn together<A: Send, B>(
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B,
) -> (A, B) {
    thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        (first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), second)
    })
}

/// The same question about many things, asked of so many at once as the store takes; the answers
/// in the order of the things.
pub(crate) fn all_at_once<T: Sync, R: Send>(
    storage: &dyn Storage,
    things: &[T],
    ask: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let threads = storage.costs().connections.min(things.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let next = || {
            let at = next.fetch_add(1, Ordering::Relaxed);
            things.get(at).map(|thing| (at, ask(thing)))
        };
        std::iter::from_fn(next).collect::<Vec<_>>()
    };
    let mut answers = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    });
    answers.sort_unstable_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Tries the password on each key in turn, and each master key on the `sealed` config.
///
/// A master key that does not open `config` belongs to another repository, or to an `init` that
/// was interrupted; another key may be the right one.
fn find_key(
    storage: &dyn Storage,
    keys: &[KeyId],
    password: &[u8],
    sealed: &[u8],
) -> Result<(KeyId, Key, Config), OpenError> {
    let mut damaged = Vec::new();
    let mut config_error = None;
    let tried = &keys[..keys.len().min(KEYS_TRIED_MAX)];
    for &id in tried {
        let content = match storage.read(File::Key(id), KEY_FILE_BYTES_MAX) {
            Ok(content) => content,
            Err(error) if error.problem() == StorageProblem::NotFound => continue,
            Err(error) if error.problem() == StorageProblem::TooLarge => {
                damaged.push(File::Key(id));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        // A key file whose hash is wrong may open all the same (a flipped bit in the host's
        // name): then the repository is readable, and `check` tells of the damage.
        let intact = verify_digest(File::Key(id), &content).is_ok();
        let file = KeyFile::parse(&content).map_err(WrapError::from);
        match file.and_then(|file| file.unwrap_master(password)) {
            Ok(master) => {
                let key = Key::new(master);
                match open_json::<Config>(&key, sealed.to_vec()).and_then(Config::validated) {
                    Ok(config) => return Ok((id, key, config)),
                    Err(error) => config_error = Some(error),
                }
            }
            Err(WrapError::WrongPassword) if intact => {}
            Err(_) => damaged.push(File::Key(id)),
        }
    }
    if let Some(source) = config_error {
        return Err(ReadError::damaged(File::Config, source).into());
    }
    if damaged.len() == tried.len() {
        return Err(OpenError::KeysDamaged { files: damaged });
    }
    Err(OpenError::WrongPassword { location: storage.location(), damaged })
}

/// Checks that `content` is what a file's name says.
pub(crate) fn verify_digest(file: File, content: &[u8]) -> Result<(), FormatError> {
    let actual: [u8; 32] = Sha256::digest(content).into();
    match file.digest() {
        Some(expected) if expected != actual => {
            Err(FormatError::WrongHash { actual: PackId::from_bytes(actual).to_hex() })
        }
        _ => Ok(()),
    }
}

/// A repository whose index is loaded: blobs can be read.
#[derive(Clone)]
pub struct IndexedRepository {
    repository: Repository,
    index: Arc<Index>,
    windows: Arc<TreeWindows>,
    folders: Arc<Folders>,
}

impl std::ops::Deref for IndexedRepository {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        &self.repository
    }
}

impl IndexedRepository {
    /// Joins a repository with an index that was put together elsewhere.
    #[must_use]
    pub fn with_index(repository: Repository, index: Index) -> Self {
        let (windows, folders) = (Arc::default(), Arc::default());
        Self { repository, index: Arc::new(index), windows, folders }
    }

    /// The same, whose archived packs of folders are brought back as the run allows.
    #[must_use]
    pub fn allowing(self, run: &Run) -> Self {
        Self { folders: Arc::new(Folders::of(run)), ..self }
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The index, to add to it; none while somebody else holds it too.
    pub(crate) fn index_mut(&mut self) -> Option<&mut Index> {
        Arc::get_mut(&mut self.index)
    }

    /// A reader of blobs, for one thread.
    ///
    /// # Errors
    /// Fails when zstd cannot allocate its tables.
    pub fn blob_reader(&self) -> Result<BlobReader<'_>, ReadError> {
        let opener = BlobOpener::new(&self.key)?;
        Ok(BlobReader::new(self, opener))
    }
}

#[cfg(test)]
mod tests;
