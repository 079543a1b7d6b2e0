//! Writing blobs: seal → verify → pack → store → index.
//!
//! Many threads seal blobs and add them; each added blob goes at random into one of two open
//! packs of its kind. A full pack goes to the storing thread, which completes and stores it and
//! notes its blobs for the next index file. Index files are written as soon as there is enough
//! for one, so that an interrupted run loses little, and at the end.
//!
//! **Write order.** A pack is durable before an index file names it; index files are durable
//! before [`write_packs`] returns, which is before any snapshot can be written. A crash leaves
//! packs that no index names, and nothing else.
//!
//! **Two open packs** are a defence: an observer of the store who knows a file's likely content
//! could recognise it by the sequence of chunk sizes. Random placement breaks the sequence.
//! See eprint.iacr.org 2025/532 and restic's issue 5291.
//!
//! **Memory.** Where the store takes a pack piece by piece, as a folder does, blobs are written as
//! they come, while they lie in the processor's cache, and only small ones are gathered first. What was
//! written waits in its buffer until it is hashed (`unhashed`), up to a bound.
//! Elsewhere they grow in files without a name (`spool`), from which most stores send them; the others
//! have them in memory while they are given them. Where such files cannot be, packs of data are
//! assembled in buffers that are reused, two for the open ones and one for each whose content is being
//! given to the store; who needs another waits for one. A disk of this machine takes the content at once
//! and may be waited for by several packs; how many a remote store is given at once is bounded by their
//! bytes, not by its connections alone.

mod at_once;
mod claimed;
mod distrusted;
mod errors;
mod open_pack;
mod sealer;
mod spool;
mod unhashed;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvError, Sender, bounded, select_biased};

use at_once::{buffers_of_stored, stored_at_once, waiting_at_most};
use claimed::Claimed;
use distrusted::Distrusted;
pub use errors::WriteError;
use open_pack::{OpenPack, Spill};
pub use sealer::{Sealed, SealedBytes, Sealer};
use spool::Spool;
use unhashed::Unhashed;

use crate::{
    chunker::CHUNK_BYTES_MAX,
    compression::CompressionLevel,
    crypto::random_bytes,
    format::{
        FormatError,
        config::Version,
        index_file::{IndexFile, IndexPack},
        pack::{self, BlobKind, PackedBlob},
    },
    id::{BlobId, PackId},
    index::Index,
    repository::Repository,
    run::Run,
    storage::{File, PackFile, StorageError},
};

/// Default target size of a pack in bytes, as restic's.
pub const PACK_BYTES_DEFAULT: u32 = 16 << 20;
/// Smallest target size of a pack, as restic's.
pub const PACK_BYTES_MIN: u32 = 4 << 20;
/// Largest target size of a pack, as restic's.
pub const PACK_BYTES_MAX: u32 = 128 << 20;

/// Open packs of each kind. See the module's page.
const OPEN_PACKS: usize = 2;

/// How many packs may wait for the disk at once. Their content is the system's by then, and takes no
/// buffer once it is hashed. On one virtual disk, four that were synced side by side were stored twice
/// as fast as one after another (`docs/performance.md`).
const SYNCED_AT_ONCE: usize = 4;

/// How much of a pack is gathered before it is written to a store that takes packs by pieces: enough
/// that small blobs are not a call each.
const GATHERED_BYTES: usize = 1 << 20;

/// How much a pack may grow beyond its target: by its last blob and its header. Reserved at
/// once, because a vector that doubles when it is full would take twice the memory.
const PACK_SLACK_BYTES: usize = CHUNK_BYTES_MAX + (1 << 20);

/// Blobs of an index file, as in restic.
pub(crate) const INDEX_BLOBS_MAX: usize = 50_000;

/// Blobs of a pack, at most: a pack of tiny ones is completed sooner, or its header and what the index
/// says of it would take more memory than its content.
const PACK_BLOBS_MAX: usize = INDEX_BLOBS_MAX;
const _: () = assert!(PACK_BLOBS_MAX <= pack::BLOBS_MAX);

/// How long blobs wait for an index file, as in restic.
const INDEX_AGE_MAX: Duration = Duration::from_secs(10 * 60);

/// How packs are written.
#[derive(Debug, Clone, Copy)]
pub struct PackOptions {
    /// Target size of a pack in bytes, between [`PACK_BYTES_MIN`] and [`PACK_BYTES_MAX`].
    pub pack_bytes: u32,
    /// How hard blobs are compressed.
    pub compression: CompressionLevel,
    /// Whether nothing is stored and only counted.
    pub dry_run: bool,
    /// Whether each blob is opened again after it was sealed, and compared, before it is stored.
    pub verify_seal: bool,
}

impl Default for PackOptions {
    fn default() -> Self {
        let compression = CompressionLevel::default();
        Self { pack_bytes: PACK_BYTES_DEFAULT, compression, dry_run: false, verify_seal: true }
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackStats {
    /// New blobs of data.
    pub data_blobs: u64,
    /// New trees.
    pub tree_blobs: u64,
    /// Bytes of the new blobs before compression.
    pub plaintext_bytes: u64,
    /// Bytes of the new blobs as they are stored, without headers.
    pub sealed_bytes: u64,
    /// Packs.
    pub packs: u64,
}

/// Locks a mutex whose data stays sound when a holder panics: the panic ends the operation.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Slots = [Mutex<Option<OpenPack>>; OPEN_PACKS];

/// Takes blobs from many threads. Made by [`write_packs`].
pub struct PackWriter<'a> {
    repository: &'a Repository,
    known: &'a Index,
    options: PackOptions,
    claimed: Claimed,
    distrusted: Distrusted,
    data: Slots,
    trees: Slots,
    /// Disconnected when the storing thread is gone, as is the other side of `to_store`.
    buffers: Receiver<Vec<u8>>,
    to_store: Sender<OpenPack>,
    spool: Spool,
    unhashed: Arc<Unhashed>,
    stats: Mutex<PackStats>,
}

impl<'a> PackWriter<'a> {
    /// The repository that is written to.
    #[must_use]
    pub fn repository(&self) -> &'a Repository {
        self.repository
    }

    /// The blobs that were there before.
    #[must_use]
    pub fn known(&self) -> &'a Index {
        self.known
    }

    /// Whether the blob has to be written: it is not there and nobody else is writing it. The
    /// caller who gets `true` must add it.
    #[must_use]
    pub fn claim(&self, kind: BlobKind, id: BlobId) -> bool {
        !self.distrusted.leaves(self.known, kind, id) && self.claimed.insert(kind, id)
    }

    /// What the packs hold in which this blob lies no longer counts as stored: it is damaged.
    pub(crate) fn distrust(&self, kind: BlobKind, id: BlobId) {
        self.distrusted.add(self.known.find_all(kind, id).map(|place| place.pack));
    }

    /// The packs that turned out to be damaged, in the order of their names.
    pub(crate) fn distrusted(&self) -> Vec<PackId> {
        self.distrusted.packs()
    }

    /// Whether a blob that is to be written anew has to be written by the caller, be it there or
    /// not.
    pub(crate) fn claim_again(&self, kind: BlobKind, id: BlobId) -> bool {
        self.claimed.insert(kind, id)
    }

    /// The names of chunks. What waits to be hashed of packs is hashed beside them.
    pub(crate) fn names(&self, plaintexts: &[&[u8]]) -> Vec<BlobId> {
        self.unhashed.names(plaintexts)
    }

    /// How trees are compressed; `None` in a repository that knows no compression.
    pub(crate) fn tree_compression(&self) -> Option<CompressionLevel> {
        (self.repository.config().version >= Version::V2).then(|| self.tree_level())
    }

    fn tree_level(&self) -> CompressionLevel {
        match self.options.compression {
            CompressionLevel::Off => CompressionLevel::Fastest,
            level => level,
        }
    }

    /// A sealer for one thread. Trees are compressed at any level, as restic does.
    ///
    /// # Errors
    /// Fails when zstd cannot allocate its tables.
    pub fn sealer(&self, kind: BlobKind) -> Result<Sealer<'a>, WriteError> {
        let level = match kind {
            BlobKind::Tree => self.tree_level(),
            BlobKind::Data => self.options.compression,
        };
        let mut sealer = Sealer::new(self.repository, level)?;
        sealer.verify = self.options.verify_seal;
        if kind == BlobKind::Data {
            sealer.reserve(CHUNK_BYTES_MAX);
        }
        Ok(sealer)
    }

    /// Adds a claimed blob.
    ///
    /// # Errors
    /// Fails when the storing thread failed (then with [`WriteError::Aborted`]), or the blob
    /// does not fit the format.
    pub fn add(
        &self,
        kind: BlobKind,
        id: BlobId,
        plaintext_bytes: u64,
        sealed: Sealed<'_>,
    ) -> Result<(), WriteError> {
        self.add_counting(kind, id, (plaintext_bytes, 0), sealed)
    }

    /// Adds a claimed blob, of whose bytes `counted` count as done in the run's progress, once they
    /// are stored: with a slow or far store that may be long after they were read.
    ///
    /// # Errors
    /// As [`PackWriter::add`].
    pub(crate) fn add_counting(
        &self,
        kind: BlobKind,
        id: BlobId,
        (plaintext_bytes, counted): (u64, u64),
        sealed: Sealed<'_>,
    ) -> Result<(), WriteError> {
        let too_long = |_| FormatError::invalid("a blob is longer than 4 GiB");
        let length = u32::try_from(sealed.bytes.len()).map_err(too_long)?;
        let uncompressed_length = sealed.uncompressed_length;
        let blob = PackedBlob { id, kind, offset: 0, length, uncompressed_length };
        {
            let mut stats = lock(&self.stats);
            match kind {
                BlobKind::Data => stats.data_blobs += 1,
                BlobKind::Tree => stats.tree_blobs += 1,
            }
            stats.plaintext_bytes += plaintext_bytes;
            stats.sealed_bytes += u64::from(length);
        }
        if self.is_oversized(length) {
            // An oversized blob gets a pack of its own, as in restic.
            let mut pack =
                OpenPack { file: self.begin_pack(kind)?, counted, ..OpenPack::default() };
            pack.append(blob, sealed.bytes)?;
            return self.send(pack);
        }
        match self.append(kind, blob, sealed.bytes, counted)? {
            Some(full) => self.send(full)?,
            None => self.unhashed.catch_up(),
        }
        Ok(())
    }

    /// Whether a sealed blob of this length gets a pack of its own.
    pub(crate) fn is_oversized(&self, length: u32) -> bool {
        length >= self.options.pack_bytes
    }

    /// Adds a claimed tree that is oversized; it gets a pack of its own. `verify` gets the
    /// sealed bytes once they are in the pack, and says whether that may be stored.
    ///
    /// # Errors
    /// As [`PackWriter::add`], and when `verify` fails.
    pub(crate) fn add_oversized_tree(
        &self,
        blob: PackedBlob,
        plaintext_bytes: u64,
        sealed: Vec<u8>,
        verify: impl FnOnce(Vec<u8>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let mut pack = OpenPack { file: self.begin_pack(BlobKind::Tree)?, ..OpenPack::default() };
        pack.append(blob, SealedBytes::Kept(&sealed))?;
        verify(sealed)?;
        let mut stats = lock(&self.stats);
        stats.tree_blobs += 1;
        stats.plaintext_bytes += plaintext_bytes;
        stats.sealed_bytes += u64::from(blob.length);
        drop(stats);
        self.send(pack)
    }

    /// Appends to one of the open packs; returns the pack when that filled it.
    fn append(
        &self,
        kind: BlobKind,
        blob: PackedBlob,
        sealed: SealedBytes<'_>,
        counted: u64,
    ) -> Result<Option<OpenPack>, WriteError> {
        let mut random = [0];
        random_bytes(&mut random)?;
        let slots = self.slots(kind);
        let mut slot = lock(&slots[usize::from(random[0]) % OPEN_PACKS]);
        let pack = match slot.as_mut() {
            Some(pack) => pack,
            None => slot.insert(self.open_pack(kind)?),
        };
        if let Err(error) = pack.append(blob, sealed) {
            // Nobody knows what of it was written: it must not be filled and stored by others.
            *slot = None;
            return Err(error);
        }
        pack.counted += counted;
        let full = pack.bytes() >= u64::from(self.options.pack_bytes)
            || pack.blobs.len() >= PACK_BLOBS_MAX;
        Ok(if full { slot.take() } else { None })
    }

    fn slots(&self, kind: BlobKind) -> &Slots {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }

    fn open_pack(&self, kind: BlobKind) -> Result<OpenPack, WriteError> {
        if let Some(spill) = self.begin_pack(kind)? {
            let bytes = spill.buffer();
            return Ok(OpenPack { bytes, file: Some(spill), ..OpenPack::default() });
        }
        let (bytes, pooled) = (self.buffer(kind)?, kind == BlobKind::Data);
        Ok(OpenPack { bytes, pooled, ..OpenPack::default() })
    }

    /// A pack that is written as it comes, where that is possible.
    fn begin_pack(&self, kind: BlobKind) -> Result<Option<Spill>, WriteError> {
        if self.options.dry_run {
            return Ok(None);
        }
        let gathered_max = GATHERED_BYTES.min(self.options.pack_bytes as usize / 4);
        let storage = self.repository.storage();
        let file = match storage.begin_pack()? {
            None => self.spool.begin(storage, kind).map(|pack| Box::new(pack) as Box<dyn PackFile>),
            file => file,
        };
        Ok(file.map(|file| Spill::new(file, &self.unhashed, gathered_max)))
    }

    /// An empty buffer for a new pack; for data one of the pool's, after a wait if need be.
    fn buffer(&self, kind: BlobKind) -> Result<Vec<u8>, WriteError> {
        match kind {
            BlobKind::Tree => Ok(Vec::new()),
            BlobKind::Data => {
                let mut buffer = self.buffers.recv().map_err(|_| WriteError::Aborted)?;
                buffer.reserve_exact(self.options.pack_bytes as usize + PACK_SLACK_BYTES);
                Ok(buffer)
            }
        }
    }

    fn send(&self, mut pack: OpenPack) -> Result<(), WriteError> {
        pack.give_up_buffer()?;
        self.unhashed.catch_up();
        self.to_store.send(pack).map_err(|_| WriteError::Aborted)
    }

    /// Sends off what is in the open packs. Two that fit into one become one: fewer files, and
    /// a small backup does not show the sizes of its two blobs.
    fn flush(&self) -> Result<(), WriteError> {
        let bytes_max = u64::from(self.options.pack_bytes);
        for kind in [BlobKind::Data, BlobKind::Tree] {
            let mut packs: Vec<_> =
                self.slots(kind).iter().filter_map(|slot| lock(slot).take()).collect();
            // The one that is in a file already takes in the other.
            packs.sort_by_key(OpenPack::spilled);
            let mut rest: Option<OpenPack> = None;
            while let Some(pack) = packs.pop() {
                let other = match &mut rest {
                    None => Some(pack),
                    Some(rest) => rest.merge(pack, bytes_max)?,
                };
                if let Some(full) = other.and_then(|other| rest.replace(other)) {
                    self.send(full)?;
                }
            }
            rest.map_or(Ok(()), |pack| self.send(pack))?;
        }
        Ok(())
    }
}

/// Completes and stores full packs, and writes the index files; shared by the storing threads.
struct Storer<'a> {
    repository: &'a Repository,
    run: &'a Run,
    dry_run: bool,
    pending: Mutex<PendingIndex>,
    packs_stored: AtomicU64,
    /// Dropped when one thread fails, which ends the others: who waits for a pack to be taken or
    /// for a buffer notices that nobody is there any more.
    going_on: Mutex<Option<Sender<Never>>>,
    stopped: Receiver<Never>,
}

/// What is never sent.
enum Never {}

/// The index file to come: what it names is durable.
struct PendingIndex {
    file: IndexFile,
    blobs: usize,
    since: Instant,
}

impl PendingIndex {
    fn new(packs: Vec<IndexPack>) -> Self {
        Self {
            blobs: packs.iter().map(|pack| pack.blobs.len()).sum(),
            file: IndexFile { packs, packs_to_delete: Vec::new() },
            since: Instant::now(),
        }
    }

    fn is_due(&self) -> bool {
        self.blobs >= INDEX_BLOBS_MAX || self.since.elapsed() > INDEX_AGE_MAX
    }
}

impl Storer<'_> {
    /// One thread's part: stores packs until no more come or another thread failed.
    fn work(&self, packs: Receiver<OpenPack>, buffers: Sender<Vec<u8>>) -> Result<(), WriteError> {
        loop {
            let pack = select_biased! {
                recv(self.stopped) -> _ => return Ok(()),
                recv(packs) -> pack => match pack {
                    Ok(pack) => pack,
                    Err(RecvError) => return Ok(()),
                },
            };
            let stored = self.run.cancel.check().map_err(WriteError::from);
            stored.and_then(|()| self.store(pack, &buffers)).inspect_err(|_| {
                drop(lock(&self.going_on).take());
            })?;
        }
    }

    /// Writes what is left of the index; gives how many packs were stored.
    fn finish(&self) -> Result<u64, WriteError> {
        self.run.cancel.check()?;
        let pending = std::mem::replace(&mut *lock(&self.pending), PendingIndex::new(Vec::new()));
        self.save_index(pending)?;
        Ok(self.packs_stored.load(Ordering::Relaxed))
    }

    fn store(&self, mut pack: OpenPack, buffers: &Sender<Vec<u8>>) -> Result<(), WriteError> {
        self.append_header(&mut pack)?;
        if !self.dry_run {
            let id = self.put(&mut pack, buffers)?;
            let blobs = pack.blobs.iter().map(|&blob| blob.into()).collect();
            let due = {
                let mut pending = lock(&self.pending);
                pending.blobs += pack.blobs.len();
                pending.file.packs.push(IndexPack { id, blobs });
                pending
                    .is_due()
                    .then(|| std::mem::replace(&mut *pending, PendingIndex::new(vec![])))
            };
            due.map_or(Ok(()), |due| self.save_index(due))?;
        }
        self.packs_stored.fetch_add(1, Ordering::Relaxed);
        self.run.progress.add_done(0, pack.counted);
        pack.give_back(buffers);
        Ok(())
    }

    /// Completes a pack's content, and reads the header again.
    fn append_header(&self, pack: &mut OpenPack) -> Result<(), WriteError> {
        let start = pack.bytes.len();
        let key = self.repository.key();
        pack::append_header(key, &pack.blobs, &mut pack.bytes)?;
        let (header, bytes) = (&pack.bytes[start..], pack.bytes());
        let sound = header.last_chunk().is_some_and(|field| {
            let read = pack::header_span(*field, bytes)
                .map(|span| span == header.len())
                .and_then(|whole| Ok((whole, pack::read_header(key, header, bytes)?)));
            read.is_ok_and(|(whole, blobs)| whole && blobs == pack.blobs)
        });
        let last = pack.blobs.last().map_or(BlobId::from_bytes([0; 32]), |blob| blob.id);
        if sound { Ok(()) } else { Err(WriteError::NotVerified { id: last }) }
    }

    /// Stores a pack's content, and gives its buffer back as soon as the store needs it no more.
    fn put(&self, pack: &mut OpenPack, buffers: &Sender<Vec<u8>>) -> Result<PackId, StorageError> {
        if pack.spilled() > 0
            && let Some(spill) = pack.file.take()
        {
            return spill.finish(&pack.bytes);
        }
        let id = PackId::of(&pack.bytes);
        let holds = pack.blobs.first().map_or(BlobKind::Data, |blob| blob.kind);
        let content = Arc::new(std::mem::take(&mut pack.bytes));
        let storing = self.repository.storage().put_pack(id, holds, &content)?;
        // Should the store's client not have let go of it yet, the next pack gets a new one.
        pack.bytes = Arc::try_unwrap(content).unwrap_or_default();
        pack.give_back(buffers);
        storing.finish()?;
        Ok(id)
    }

    fn save_index(&self, pending: PendingIndex) -> Result<(), WriteError> {
        if !pending.file.packs.is_empty() {
            // Without the lock, the packs may have been deleted meanwhile.
            self.run.cancel.check_condition()?;
            self.repository.save_unpacked(File::Index, &pending.file)?;
        }
        Ok(())
    }
}

/// Runs `work` with a writer of blobs; when it is done, stores what is still open and the
/// index. `adopted` are packs that are stored already and that no index names yet: they go
/// into the first index file.
///
/// # Errors
/// Fails with the error of `work`, else with the first error of storing. Packs may have been
/// stored that no index names.
pub fn write_packs<T, E: From<WriteError>>(
    repository: &Repository,
    known: &Index,
    options: PackOptions,
    adopted: Vec<IndexPack>,
    run: &Run,
    work: impl FnOnce(&PackWriter<'_>) -> Result<T, E>,
) -> Result<(T, PackStats), E> {
    let storage = repository.storage().as_ref();
    // Packs of trees take no buffer of the pool: elsewhere than on this machine, where threads only
    // wait for the disk, they are among those whose bytes are bounded.
    let storing_threads = match storage.local_folder() {
        Some(_) => SYNCED_AT_ONCE,
        None => stored_at_once(storage, options.pack_bytes),
    };
    // Who fills a pack that may not wait, waits until a storing thread takes it.
    let (to_store, packs) = bounded(waiting_at_most(storage, &options));
    // For packs of data: the open ones and those that are being stored.
    let n_buffers = OPEN_PACKS + buffers_of_stored(storage, options.pack_bytes);
    let (to_pool, buffers) = bounded(n_buffers);
    for _ in 0..n_buffers {
        to_pool.send(Vec::new()).expect("the pool has room for its buffers");
    }
    let writer = PackWriter {
        repository,
        known,
        options,
        claimed: Claimed::none(),
        distrusted: Distrusted::default(),
        data: Slots::default(),
        trees: Slots::default(),
        buffers,
        to_store,
        spool: Spool::new(std::env::temp_dir()),
        unhashed: Arc::default(),
        stats: Mutex::default(),
    };
    let (going_on, stopped) = bounded(0);
    let storer = Storer {
        repository,
        run,
        dry_run: options.dry_run,
        pending: Mutex::new(PendingIndex::new(adopted)),
        packs_stored: AtomicU64::new(0),
        going_on: Mutex::new(Some(going_on)),
        stopped,
    };
    thread::scope(|scope| {
        let storing: Vec<_> = (0..storing_threads)
            .map(|_| {
                let (storer, packs, to_pool) = (&storer, packs.clone(), to_pool.clone());
                scope.spawn(move || storer.work(packs, to_pool))
            })
            .collect();
        // Only the threads hold them: when these are gone, who waits for one notices.
        drop((packs, to_pool));
        let worked = work(&writer).and_then(|value| Ok((value, writer.flush()?)));
        let mut stats = *lock(&writer.stats);
        // Closes the channel: the storing threads finish what they have.
        drop(writer);
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        // All are waited for, also when one failed.
        let stored: Vec<Result<(), WriteError>> = storing.into_iter().map(join).collect();
        let stored = stored.into_iter().collect::<Result<(), _>>().and_then(|()| storer.finish());
        match (worked, stored) {
            (Ok((value, ())), Ok(packs)) => {
                stats.packs = packs;
                Ok((value, stats))
            }
            // When storing failed, the work failed for want of it; when the run was cancelled,
            // the work can say more than that storing stopped too.
            (Err(error), Ok(_) | Err(WriteError::Cancelled(_))) => Err(error),
            (_, Err(error)) => Err(error.into()),
        }
    })
}

#[cfg(test)]
mod tests;
