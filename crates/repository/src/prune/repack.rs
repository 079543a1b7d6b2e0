//! Copies what is needed out of packs: range by range, on several threads, in bounded memory.
//!
//! Blobs stay sealed as they are, and each is opened and compared with its id on the way. A blob
//! that is damaged and has a sound copy elsewhere is taken from there; one that has none keeps its
//! pack from being given up.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use foldhash::fast::RandomState;

use super::{PruneError, decide::PackUse, usage::Used};
use crate::{
    copy::{Range, into_ranges},
    environment::cores,
    id::PackId,
    index::Location,
    packer::{PackOptions, PackWriter, Sealed, SealedBytes, WriteError, write_packs},
    repository::{BlobOpener, BlobReader, IndexedRepository, ReadError, read_claimed},
    run::Run,
    storage::{File, StorageProblem},
};

/// Of how many places of a blob it is asked whether they stay. Sound repositories have one or
/// two, an index may claim any number; a blob that stays in a later place only is copied, too.
const PLACES_ASKED: usize = 64;

/// What came of it.
pub(super) struct Repacked {
    /// Bytes of blobs that were written anew.
    pub(super) written_bytes: u64,
    /// Packs that hold damage.
    pub(super) damaged: Vec<(PackId, ReadError)>,
}

/// Copies the needed blobs of `packs` into new ones, unless they lie in a pack that is not
/// `leaving` too; when it returns they are durable and indexed.
pub(super) fn repack(
    repository: &IndexedRepository,
    packs: &[PackUse],
    leaving: &HashSet<PackId, RandomState>,
    used: &Used,
    options: PackOptions,
    run: &Run,
) -> Result<Repacked, PruneError> {
    let total = packs.iter().map(|pack| pack.used_bytes).sum();
    run.progress.add_total(packs.len() as u64, total);
    run.progress.total_is_known();
    let damaged: Mutex<HashMap<PackId, ReadError>> = Mutex::default();
    let ((), stats) =
        write_packs(repository, repository.index(), options, Vec::new(), run, |writer| {
            let next = AtomicUsize::new(0);
            let failed = AtomicBool::new(false);
            let work = || {
                let job = Job { repository, writer, leaving, used, damaged: &damaged, run };
                let result = job.work(packs, &next, &failed);
                failed.fetch_or(result.is_err(), Ordering::Relaxed);
                result
            };
            let threads = cores().min(packs.len());
            let results: Vec<_> = thread::scope(|scope| {
                let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                let join = |worker: thread::ScopedJoinHandle<'_, _>| {
                    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                };
                workers.into_iter().map(join).collect()
            });
            results.into_iter().collect::<Result<(), PruneError>>()
        })?;
    let damaged = damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut damaged: Vec<_> = damaged.into_iter().collect();
    damaged.sort_unstable_by_key(|(pack, _)| *pack);
    Ok(Repacked { written_bytes: stats.sealed_bytes, damaged })
}

/// What the threads share.
struct Job<'j> {
    repository: &'j IndexedRepository,
    writer: &'j PackWriter<'j>,
    leaving: &'j HashSet<PackId, RandomState>,
    used: &'j Used,
    damaged: &'j Mutex<HashMap<PackId, ReadError>>,
    run: &'j Run,
}

impl Job<'_> {
    /// One thread's part: takes packs until none is left or another thread failed.
    fn work(
        &self,
        packs: &[PackUse],
        next: &AtomicUsize,
        failed: &AtomicBool,
    ) -> Result<(), PruneError> {
        let mut hands = Hands {
            opener: BlobOpener::new(self.repository.key())?,
            reader: self.repository.blob_reader()?,
            range: Vec::new(),
            opened: Vec::new(),
            plaintext: Vec::new(),
        };
        let costs = self.repository.storage().costs();
        while let Some(pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
            for range in into_ranges(&mut self.needed_of(pack.id), &costs) {
                if failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                self.run.cancel.check()?;
                self.copy_range(&range, &mut hands)?;
            }
            self.run.progress.add_done(1, 0);
        }
        Ok(())
    }

    /// What is needed of a pack and nobody has copied yet: packs may hold the same.
    fn needed_of(&self, pack: PackId) -> Vec<Location> {
        let index = self.repository.index();
        let blobs = index.pack_blobs(&pack).into_iter();
        let stays = |pack: PackId| !self.leaving.contains(&pack);
        let needed = blobs.filter(|blob| {
            let mut places = index.find_all(blob.kind, blob.id).take(PLACES_ASKED);
            self.used.needs(index, blob.kind, blob.id)
                && !places.any(|location| stays(location.pack))
        });
        let unclaimed = needed.filter(|blob| self.writer.claim_again(blob.kind, blob.id));
        unclaimed.map(|blob| Location { pack, blob }).collect()
    }

    fn copy_range(&self, range: &Range, hands: &mut Hands<'_>) -> Result<(), PruneError> {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let storage = self.repository.storage().as_ref();
        let file = File::Pack(range.pack);
        let read = read_claimed(storage, file, range.start, length, &mut hands.range);
        for location in &range.blobs {
            let blob = location.blob;
            let start = usize::try_from(u64::from(blob.offset) - range.start).unwrap_or(0);
            let place = start..start + blob.length as usize;
            if read.is_ok() && hands.opens(location, place.clone()) {
                let bytes = SealedBytes::Kept(&hands.range[place]);
                let uncompressed_length = blob.uncompressed_length;
                let sealed = Sealed { bytes, uncompressed_length };
                let plaintext = hands.plaintext.len() as u64;
                self.writer.add(blob.kind, blob.id, plaintext, sealed)?;
            } else if let Err(error) = self.copy_elsewhere(location, hands) {
                match error {
                    PruneError::Read(error @ ReadError::Cancelled(_)) => return Err(error.into()),
                    // No damage: nobody knew that it is archived.
                    PruneError::Read(ReadError::Storage(error))
                        if error.problem() == StorageProblem::Archived =>
                    {
                        return Err(error.into());
                    }
                    PruneError::Read(error) => self.note_damage(range.pack, error),
                    error => return Err(error),
                }
            }
            self.run.progress.add_done(0, u64::from(blob.length));
        }
        Ok(())
    }

    /// Takes a blob from another pack that holds it.
    fn copy_elsewhere(&self, location: &Location, hands: &mut Hands<'_>) -> Result<(), PruneError> {
        let blob = location.blob;
        hands.reader.read(blob.kind, blob.id, &mut hands.plaintext)?;
        let mut sealer = self.writer.sealer(blob.kind)?;
        let sealed = sealer.seal(blob.id, &hands.plaintext)?;
        self.writer.add(blob.kind, blob.id, hands.plaintext.len() as u64, sealed)?;
        Ok(())
    }

    fn note_damage(&self, pack: PackId, error: ReadError) {
        self.run.progress.add_error();
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.entry(pack).or_insert(error);
    }
}

/// One thread's buffers.
struct Hands<'h> {
    opener: BlobOpener<'h>,
    reader: BlobReader<'h>,
    range: Vec<u8>,
    opened: Vec<u8>,
    plaintext: Vec<u8>,
}

impl Hands<'_> {
    /// Whether a sealed blob is what its id says.
    fn opens(&mut self, location: &Location, place: std::ops::Range<usize>) -> bool {
        self.opened.clear();
        self.opened.extend_from_slice(&self.range[place]);
        self.opener.open(location, &mut self.opened, &mut self.plaintext).is_ok()
    }
}

impl From<WriteError> for PruneError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Cancelled(error) => Self::Read(error.into()),
            error => Self::Write(error),
        }
    }
}
