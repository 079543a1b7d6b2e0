//! Moving blobs: read in ranges over several connections, open and seal on every core.
//!
//! Reading waits for the network and sealing for processors, so each has threads of its own, with
//! a short queue between. Who seals waits in turn for the packs that are being stored.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::CopyError;
use crate::{
    check::asking_threads,
    environment::cores,
    format::pack::BlobKind,
    id::PackId,
    index::Location,
    packer::{PackWriter, Sealer},
    repository::{
        BlobOpener, BlobReader, IndexedRepository, ReadError, is_large_tree, read_claimed,
    },
    run::Run,
    storage::{Costs, File, StorageError},
};

/// Blobs that are sorted into ranges at once; about 30 MiB.
const COLLECTED_MAX: usize = 1 << 18;

/// Bytes that are read at once; a larger blob is read whole.
const RANGE_BYTES_MAX: u64 = 4 << 20;

/// Blobs that could not be read, and why.
pub(super) type Lost = Vec<(u32, ReadError)>;

/// Copies blobs, given as numbers of the source's index. Gives those that cannot be read.
pub(super) fn transfer(
    source: &IndexedRepository,
    writer: &PackWriter<'_>,
    numbers: &[u32],
    run: &Run,
) -> Result<Lost, CopyError> {
    let lost = Mutex::default();
    for part in numbers.chunks(COLLECTED_MAX) {
        let mut locations: Vec<_> = part.iter().map(|&number| source.index().at(number)).collect();
        let ranges = into_ranges(&mut locations, &source.storage().costs());
        let job = Job { source, writer, run, ranges: &ranges, lost: &lost };
        job.perform()?;
    }
    Ok(lost.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What was read of a range, if anything.
type Read<'r> = (&'r Range, Option<Vec<u8>>);

/// Ranges to be copied.
struct Job<'j> {
    source: &'j IndexedRepository,
    writer: &'j PackWriter<'j>,
    run: &'j Run,
    ranges: &'j [Range],
    lost: &'j Mutex<Lost>,
}

impl Job<'_> {
    fn perform(&self) -> Result<(), CopyError> {
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        // No queue: what is read waits at its reader.
        let (to_seal, read) = bounded(0);
        let results: Vec<Result<(), CopyError>> = thread::scope(|scope| {
            for _ in 0..asking_threads(self.source.storage().as_ref()).min(self.ranges.len()) {
                let to_seal = to_seal.clone();
                scope.spawn(|| self.read(&next, &failed, to_seal));
            }
            drop(to_seal);
            let sealers: Vec<_> = (0..cores().min(self.ranges.len()))
                .map(|_| {
                    let read = read.clone();
                    scope.spawn(|| {
                        let result = self.seal(&failed, read);
                        failed.fetch_or(result.is_err(), Ordering::Relaxed);
                        result
                    })
                })
                .collect();
            drop(read);
            let join = |sealer: thread::ScopedJoinHandle<'_, _>| {
                sealer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            sealers.into_iter().map(join).collect()
        });
        results.into_iter().collect::<Result<(), _>>()?;
        Ok(self.run.cancel.check()?)
    }

    /// One connection: takes ranges until none is left or another thread failed.
    fn read<'r>(&'r self, next: &AtomicUsize, failed: &AtomicBool, to_seal: Sender<Read<'r>>) {
        while let Some(range) = self.ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.load(Ordering::Relaxed) || self.run.cancel.is_requested() {
                return;
            }
            // Large trees are read by those who copy them.
            let read = match range.blobs.iter().all(is_large_tree) {
                true => None,
                false => {
                    let mut sealed = Vec::new();
                    read_range(self.source, range, &mut sealed).ok().map(|()| sealed)
                }
            };
            if to_seal.send((range, read)).is_err() {
                return;
            }
        }
    }

    fn seal(&self, failed: &AtomicBool, read: Receiver<Read<'_>>) -> Result<(), CopyError> {
        let mut worker = Worker {
            writer: self.writer,
            opener: BlobOpener::new(self.source.key()).map_err(CopyError::Source)?,
            reader: self.source.blob_reader().map_err(CopyError::Source)?,
            data: self.writer.sealer(BlobKind::Data)?,
            trees: self.writer.sealer(BlobKind::Tree)?,
            plaintext: Vec::new(),
        };
        for (range, mut sealed) in read {
            if failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.run.cancel.check()?;
            for location in &range.blobs {
                if let Some(bytes) = worker.pass_on(location)? {
                    self.run.progress.add_done(1, bytes);
                    continue;
                }
                let sealed = sealed.as_mut().map(|sealed| range.part(location, sealed));
                if let Err(error) = worker.open(location, sealed) {
                    self.lose(location, error);
                    continue;
                }
                self.run.progress.add_done(1, worker.store(location)?);
            }
        }
        Ok(())
    }

    fn lose(&self, location: &Location, error: ReadError) {
        let blob = location.blob;
        let number = self.source.index().number(blob.kind, blob.id);
        // It came from this index, by such a number.
        let number = number.and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX);
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).push((number, error));
        self.run.progress.add_error();
    }
}

/// Opens and seals on one thread.
struct Worker<'w> {
    writer: &'w PackWriter<'w>,
    opener: BlobOpener<'w>,
    reader: BlobReader<'w>,
    data: Sealer<'w>,
    trees: Sealer<'w>,
    plaintext: Vec<u8>,
}

impl Worker<'_> {
    /// Copies a large tree as it is compressed, where that can be; gives its length.
    fn pass_on(&mut self, location: &Location) -> Result<Option<u64>, CopyError> {
        let is_wanted = is_large_tree(location) && self.writer.tree_compression().is_some();
        let tree = is_wanted.then(|| self.reader.compressed_tree(location.blob.id)).flatten();
        let Some(tree) = tree else { return Ok(None) };
        let bytes = u64::from(tree.plaintext_bytes.get());
        self.trees.write_tree(self.writer, tree)?;
        Ok(Some(bytes))
    }

    fn open(&mut self, location: &Location, sealed: Option<&mut [u8]>) -> Result<(), ReadError> {
        let opened = sealed
            .is_some_and(|sealed| self.opener.open(location, sealed, &mut self.plaintext).is_ok());
        if opened {
            return Ok(());
        }
        // Another pack may hold the blob too; else this tells what is wrong.
        self.reader.read(location.blob.kind, location.blob.id, &mut self.plaintext)
    }

    /// Seals and stores what was opened; gives its length.
    fn store(&mut self, location: &Location) -> Result<u64, CopyError> {
        let (kind, id) = (location.blob.kind, location.blob.id);
        let sealer = match kind {
            BlobKind::Data => &mut self.data,
            BlobKind::Tree => &mut self.trees,
        };
        let bytes = self.plaintext.len() as u64;
        self.writer.add(kind, id, bytes, sealer.seal(id, &self.plaintext)?)?;
        Ok(bytes)
    }
}

/// Blobs of one pack that are read at once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) pack: PackId,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) blobs: Vec<Location>,
}

impl Range {
    /// The part of what was read that is the blob at `location`.
    pub(super) fn part<'b>(&self, location: &Location, sealed: &'b mut [u8]) -> &'b mut [u8] {
        let start = u64::from(location.blob.offset) - self.start;
        // The range was read, so it fits into memory.
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        &mut sealed[start..start + location.blob.length as usize]
    }
}

/// Reads a range into `sealed`.
pub(super) fn read_range(
    source: &IndexedRepository,
    range: &Range,
    sealed: &mut Vec<u8>,
) -> Result<(), StorageError> {
    // What the index promises was checked to lie below 4 GiB when it was loaded.
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let file = File::Pack(range.pack);
    read_claimed(source.storage().as_ref(), file, range.start, length, sealed)
}

/// Sorts by pack and place, and joins what lies so close together that asking twice costs more.
pub(crate) fn into_ranges(locations: &mut [Location], costs: &Costs) -> Vec<Range> {
    let gap_bytes_max = costs.gap_bytes();
    locations.sort_unstable_by_key(|location| (location.pack, location.blob.offset));
    let mut ranges: Vec<Range> = Vec::new();
    for location in locations {
        let start = u64::from(location.blob.offset);
        let end = start + u64::from(location.blob.length);
        match ranges.last_mut() {
            Some(range)
                if range.pack == location.pack
                    && start.saturating_sub(range.end) <= gap_bytes_max
                    && end - range.start <= RANGE_BYTES_MAX =>
            {
                range.end = range.end.max(end);
                range.blobs.push(*location);
            }
            _ => ranges.push(Range { pack: location.pack, start, end, blobs: vec![*location] }),
        }
    }
    ranges
}
