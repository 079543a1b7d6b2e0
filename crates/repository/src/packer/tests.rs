//! Writing packs, over a store in memory that may fail.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use muster_model::BackupKind;

use super::*;
use crate::{
    backup::{BackupOptions, backup},
    environment::Environment,
    format::{config::Version, key_file::Cost},
    repository::InitOptions,
    storage::{
        Costs, FileKind, Spooled, Storage, Storing, forward,
        memory::MemoryStorage,
        unreliable::{Faults, Unreliable},
    },
};

fn init(storage: Arc<dyn Storage>) -> Repository {
    let author = Environment::detect().author();
    let options =
        InitOptions { version: Version::V2, polynomial: None, cost: Cost::FOR_TESTS, author };
    Repository::init(storage, b"x", options).unwrap()
}

/// Pseudo-random bytes, so that nothing compresses.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn add(writer: &PackWriter<'_>, kind: BlobKind, data: &[u8]) -> Result<bool, WriteError> {
    let id = BlobId::of(data);
    if !writer.claim(kind, id) {
        return Ok(false);
    }
    let mut sealer = writer.sealer(kind)?;
    writer.add(kind, id, data.len() as u64, sealer.seal(id, data)?)?;
    Ok(true)
}

#[test]
fn what_is_written_is_read_back_and_written_once() {
    let storage = Arc::new(MemoryStorage::new());
    let repository = init(storage.clone());
    let options = PackOptions { pack_bytes: PACK_BYTES_MIN, ..PackOptions::default() };
    let blobs: Vec<Vec<u8>> = (0..40).map(|n| noise(n, 500_000)).collect();
    let write = |known: &Index| {
        write_packs(&repository, known, options, vec![], &Run::new(), |writer| {
            let mut new = 0;
            for blob in blobs.iter().chain(&blobs) {
                new += usize::from(add(writer, BlobKind::Data, blob)?);
            }
            new += usize::from(add(writer, BlobKind::Tree, &[b' '; 10_000])?);
            Ok::<_, WriteError>(new)
        })
        .unwrap()
    };
    let (new, stats) = write(&Index::new());
    assert_eq!((new, stats.data_blobs, stats.tree_blobs), (41, 40, 1));
    assert_eq!(stats.packs, storage.list(FileKind::Pack).unwrap().len() as u64);
    let indexed = repository.load_index(&Run::new()).unwrap();
    let mut reader = indexed.blob_reader().unwrap();
    let mut plaintext = Vec::new();
    for blob in &blobs {
        reader.read(BlobKind::Data, BlobId::of(blob), &mut plaintext).unwrap();
        assert!(plaintext == *blob);
    }
    assert_eq!(write(indexed.index()).0, 0, "nothing is stored twice");
}

#[test]
fn packs_hold_one_kind_and_are_spread_over_two() {
    let storage = Arc::new(MemoryStorage::new());
    let repository = init(storage);
    let options = PackOptions { pack_bytes: PACK_BYTES_MIN, ..PackOptions::default() };
    write_packs(&repository, &Index::new(), options, vec![], &Run::new(), |writer| {
        for n in 0..60 {
            add(writer, BlobKind::Data, &noise(n, 200_000))?;
            add(writer, BlobKind::Tree, &noise(n + 1000, 200_000))?;
        }
        Ok::<_, WriteError>(())
    })
    .unwrap();
    let indexed = repository.load_index(&Run::new()).unwrap();
    for pack in indexed.index().packs() {
        let blobs = indexed.index().pack_blobs(&pack);
        assert!(blobs.iter().all(|blob| blob.kind == blobs[0].kind));
    }
    // In one pack after another, blob n+1 would always lie where blob n lies or in a new
    // pack; with two open packs the order alternates.
    let pack_of = |n| {
        let id = BlobId::of(&noise(n, 200_000));
        indexed.index().find(BlobKind::Data, id).unwrap().pack
    };
    let changes = (1..60).filter(|&n| pack_of(n) != pack_of(n - 1)).count();
    assert!(changes > 10, "{changes} changes of pack");
}

#[test]
fn packs_are_stored_at_once_as_far_as_memory_allows() {
    let check = |connections: usize, pack_mib: u32, expected: usize| {
        let latency = Duration::from_millis(50);
        let costs = Some(Costs { latency, bytes_per_s: 1, connections });
        let storage =
            Unreliable::new(MemoryStorage::new().into(), Faults { costs, ..Faults::default() });
        assert_eq!(stored_at_once(&storage, pack_mib << 20), expected, "{connections} {pack_mib}");
    };
    check(10, 16, 2);
    check(10, 4, 8);
    check(3, 4, 3);
    check(64, 4, 8);
    check(10, 128, 2);
    check(1, 4, 1);
    let from_files = FromFiles::new();
    assert_eq!(stored_at_once(&from_files, PACK_BYTES_DEFAULT), 4);
    assert_eq!(buffers_of_stored(&from_files, PACK_BYTES_DEFAULT), 2);
    let folder = tempfile::tempdir().unwrap();
    let local = crate::storage::LocalStorage::new(folder.path());
    assert_eq!(stored_at_once(&local, PACK_BYTES_DEFAULT), 1);
}

#[test]
fn a_dry_run_stores_nothing() {
    let storage = Arc::new(MemoryStorage::new());
    let repository = init(storage.clone());
    let options = PackOptions { dry_run: true, ..PackOptions::default() };
    let ((), stats) =
        write_packs(&repository, &Index::new(), options, vec![], &Run::new(), |writer| {
            add(writer, BlobKind::Data, b"something").map(drop)
        })
        .unwrap();
    assert_eq!((stats.data_blobs, stats.plaintext_bytes), (1, 9));
    assert_eq!(storage.list(FileKind::Pack).unwrap(), []);
    assert_eq!(storage.list(FileKind::Index).unwrap(), []);
}

#[test]
fn a_failing_store_ends_the_run_with_its_own_error() {
    let inner = Arc::new(MemoryStorage::new());
    let made = init(inner.clone());
    for stop_at_write in 1..4 {
        let faults = Faults { stop_at_write, ..Faults::default() };
        let storage = Arc::new(Unreliable::new(inner.clone(), faults));
        // Opening reads only, so the write that fails is one of a pack or of the index.
        let repository = Repository::open(inner.clone(), b"x", None).unwrap();
        let repository = repository.on(storage);
        let options = PackOptions { pack_bytes: PACK_BYTES_MIN, ..PackOptions::default() };
        let result = write_packs(&repository, &Index::new(), options, vec![], &Run::new(), |w| {
            for n in 0..24 {
                add(w, BlobKind::Data, &noise(n + 100 * stop_at_write, 500_000))?;
            }
            Ok::<_, WriteError>(())
        });
        let error = result.unwrap_err();
        assert!(matches!(error, WriteError::Storage(_)), "{error:?}");
    }
    assert_eq!(made.config(), Repository::open(inner, b"x", None).unwrap().config());
}

/// A store that sends packs from their files, and counts what of them is in memory; and what counts as
/// done and is not stored.
#[derive(Debug, Default)]
struct FromFiles {
    inner: MemoryStorage,
    held: AtomicUsize,
    held_max: AtomicUsize,
    run: Run,
    stored: AtomicU64,
    ahead_max: AtomicU64,
}

impl FromFiles {
    fn new() -> Self {
        Self::default()
    }

    fn keep(&self, id: PackId, content: &[u8]) -> Result<(), StorageError> {
        let done = self.run.progress.read().bytes_done;
        let ahead = done.saturating_sub(self.stored.load(Ordering::SeqCst));
        self.ahead_max.fetch_max(ahead, Ordering::SeqCst);
        self.inner.put(File::Pack(id), content)?;
        self.stored.fetch_add(content.len() as u64, Ordering::SeqCst);
        Ok(())
    }
}

impl Storage for FromFiles {
    forward!(inner:
        location, prepare, list, size, read, read_range, put, put_new, delete,
    );

    fn put_pack(
        &self,
        id: PackId,
        _: BlobKind,
        content: &Arc<Vec<u8>>,
    ) -> Result<Storing<'_>, StorageError> {
        assert!(content.len() <= GATHERED_BYTES, "pack {id} is in memory");
        self.keep(id, content)?;
        Ok(Storing::done())
    }

    fn put_spooled(&self, _: BlobKind, pack: &Spooled) -> Result<(), StorageError> {
        let mut content = Vec::new();
        pack.read(|piece| {
            let held = self.held.fetch_add(piece.len(), Ordering::SeqCst) + piece.len();
            self.held_max.fetch_max(held, Ordering::SeqCst);
            content.extend_from_slice(&piece);
            self.held.fetch_sub(piece.len(), Ordering::SeqCst);
            true
        })?;
        self.keep(pack.id(), &content)
    }

    fn sends_from_files(&self) -> bool {
        true
    }

    fn costs(&self) -> Costs {
        Costs { latency: Duration::from_millis(50), bytes_per_s: 1 << 20, connections: 10 }
    }
}

#[test]
fn no_pack_is_in_memory_where_the_store_sends_it_from_its_file() {
    let storage = Arc::new(FromFiles::new());
    let (run, repository) = (Run::new(), init(storage.clone()));
    let options = PackOptions { pack_bytes: PACK_BYTES_MIN, ..PackOptions::default() };
    let all: Vec<_> = (0..100).map(|n| noise(n, 300_000)).collect();
    let written = write_packs(&repository, &Index::new(), options, vec![], &run, |writer| {
        all.iter().try_for_each(|data| add(writer, BlobKind::Data, data).map(drop))
    });
    assert!(written.unwrap().1.packs >= 7);
    let held = storage.held_max.load(Ordering::SeqCst);
    assert!((1..=10 * (256 << 10)).contains(&held), "{held} bytes at once");
    let indexed = repository.load_index(&run).unwrap();
    let (mut reader, mut plaintext) = (indexed.blob_reader().unwrap(), Vec::new());
    for data in &all {
        reader.read(BlobKind::Data, BlobId::of(data), &mut plaintext).unwrap();
        assert!(plaintext == *data);
    }
}

/// So a slow upload does not seem to be done when all was read.
#[test]
fn new_bytes_count_as_done_when_they_are_stored() {
    let (storage, folder) = (Arc::new(FromFiles::new()), tempfile::tempdir().unwrap());
    let repository = init(storage.clone());
    for number in 0..4 {
        fs::write(folder.path().join(number.to_string()), noise(number, 3 << 20)).unwrap();
    }
    let options = || {
        let mut options = BackupOptions::new(vec![folder.path().to_path_buf()]);
        options.packs.pack_bytes = PACK_BYTES_MIN;
        options
    };
    let (run, environment) = (storage.run.clone(), Environment::detect());
    assert!(backup(&repository, options(), &environment, &run).unwrap().problems.is_empty());
    assert_eq!(storage.ahead_max.load(Ordering::SeqCst), 0);
    assert_eq!(run.progress.read().bytes_done, 12 << 20);
    // What is there already counts at once.
    let (run, mut again) = (Run::new(), options());
    again.kind = BackupKind::Full;
    assert!(backup(&repository, again, &environment, &run).unwrap().problems.is_empty());
    assert_eq!(run.progress.read().bytes_done, 12 << 20);
}
