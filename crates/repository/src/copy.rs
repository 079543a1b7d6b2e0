//! Copying snapshots between repositories: open, seal under the other key, store what is
//! missing.
//!
//! Ids of content stay, so what the target has already is not copied; blobs are compressed
//! again as the target's options say. Files are not cut again: repositories share content only
//! when both were made with the same polynomial.
//!
//! **Order.** Snapshots are copied in batches. The trees of a snapshot are walked in the
//! source, also those that the target has (an interrupted copy may have stored a folder and not
//! its files), and what is missing is collected, read pack by pack in ranges, sealed and stored.
//! When all packs and indexes of a batch are durable, its snapshots are written. An interrupted
//! copy therefore continues where its last index file ends.
//!
//! **Memory.** A bounded number of blobs is collected before they are transferred, and each
//! thread holds one range. What was copied in earlier batches is remembered by id.
//!
//! # Source
//! restic, `cmd/restic/cmd_copy.go`.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use foldhash::fast::RandomState;
use muster_model::{Class, Fault};
use thiserror::Error;

use crate::{
    format::{pack::BlobKind, snapshot::Snapshot},
    id::{BlobId, PackId, SnapshotId},
    index::Location,
    packer::{PackOptions, PackStats, PackWriter, Sealer, WriteError, write_packs},
    repository::{BlobOpener, BlobReader, IndexedRepository, ReadError, SaveError, read_claimed},
    run::{Cancelled, Run},
    storage::File,
};

/// Blobs that are collected before they are transferred; about 30 MiB.
const COLLECTED_MAX: usize = 1 << 18;

/// Bytes of a batch, in packs of the target's size, as in restic: small snapshots share packs,
/// and large copies get their snapshots while they run.
const BATCH_PACKS: u64 = 100;

/// Bytes between two blobs that are read and thrown away rather than asked for twice.
const GAP_BYTES_MAX: u64 = 256 << 10;

/// Bytes that are read at once; a larger blob is read whole.
const RANGE_BYTES_MAX: u64 = 4 << 20;

/// Something happened that people may want to see.
#[derive(Debug, Clone, Copy)]
pub enum CopyEvent {
    /// A snapshot's content is being copied.
    Begun(SnapshotId),
    /// The target has the snapshot already, under this id.
    Skipped {
        /// The snapshot in the source.
        source: SnapshotId,
        /// The same snapshot in the target.
        target: SnapshotId,
    },
    /// A snapshot was written.
    Saved {
        /// The snapshot in the source.
        source: SnapshotId,
        /// Its copy in the target.
        target: SnapshotId,
    },
}

/// What was copied.
#[derive(Debug, Default)]
#[must_use = "snapshots that failed are missing in the target"]
pub struct CopyReport {
    /// Snapshots and their copies.
    pub copied: Vec<(SnapshotId, SnapshotId)>,
    /// Snapshots that were there, and as what.
    pub skipped: Vec<(SnapshotId, SnapshotId)>,
    /// Snapshots that cannot be read whole, and why; the target does not get them.
    pub failed: Vec<(SnapshotId, ReadError)>,
    /// What was stored.
    pub stats: PackStats,
}

/// Copies snapshots from `source` to `target`, in the order given. A snapshot that cannot be
/// read does not keep the others from being copied. `tell` is called from this thread.
///
/// # Errors
/// Fails when the target cannot be written, its snapshots cannot be read, or the run is
/// cancelled. What was stored is used when the copy is run again.
pub fn copy(
    source: &IndexedRepository,
    target: &IndexedRepository,
    snapshots: &[(SnapshotId, Snapshot)],
    options: PackOptions,
    run: &Run,
    tell: &mut dyn FnMut(CopyEvent),
) -> Result<CopyReport, CopyError> {
    let present = Present::load(target)?;
    let mut report = CopyReport::default();
    let mut to_copy = Vec::new();
    for entry in snapshots {
        match present.find(entry) {
            Some(there) => {
                tell(CopyEvent::Skipped { source: entry.0, target: there });
                report.skipped.push((entry.0, there));
            }
            None => to_copy.push(entry),
        }
    }
    let mut copier = Copier {
        source,
        run,
        batch_bytes: BATCH_PACKS * u64::from(options.pack_bytes),
        copied: HashSet::default(),
        visited: HashSet::default(),
    };
    let mut rest = &to_copy[..];
    while !rest.is_empty() {
        let (batch, stats) =
            write_packs(target, target.index(), options, Vec::new(), run, |writer| {
                copier.copy_batch(writer, rest, tell)
            })?;
        add(&mut report.stats, &stats);
        // Without the locks, what the snapshots refer to may have been deleted meanwhile.
        run.cancel.check_condition()?;
        for &(id, snapshot) in &rest[..batch.whole] {
            let new = if options.dry_run { *id } else { save(target, *id, snapshot)? };
            tell(CopyEvent::Saved { source: *id, target: new });
            report.copied.push((*id, new));
        }
        rest = &rest[batch.whole..];
        if let Some(error) = batch.failure {
            report.failed.push((rest[0].0, error));
            rest = &rest[1..];
            // What was seen of the failed snapshot may be missing still.
            copier.visited.clear();
        }
    }
    Ok(report)
}

fn add(total: &mut PackStats, stats: &PackStats) {
    total.data_blobs += stats.data_blobs;
    total.tree_blobs += stats.tree_blobs;
    total.plaintext_bytes += stats.plaintext_bytes;
    total.sealed_bytes += stats.sealed_bytes;
    total.packs += stats.packs;
}

/// Writes the copy of a snapshot. Its parent means nothing in another repository, and
/// `original` tells later copies that it is there.
fn save(
    target: &IndexedRepository,
    id: SnapshotId,
    snapshot: &Snapshot,
) -> Result<SnapshotId, CopyError> {
    let original = snapshot.original.or(Some(id));
    let copy = Snapshot { parent: None, original, ..snapshot.clone() };
    Ok(target.save_unpacked(File::Snapshot, &copy)?)
}

/// The target's snapshots, by their own id and by that of their original.
struct Present {
    snapshots: Vec<(SnapshotId, Snapshot)>,
    by_id: HashMap<SnapshotId, Vec<usize>>,
}

impl Present {
    fn load(target: &IndexedRepository) -> Result<Self, CopyError> {
        let snapshots = target.snapshots().map_err(CopyError::Target)?;
        let mut by_id: HashMap<SnapshotId, Vec<usize>> = HashMap::new();
        for (position, (id, snapshot)) in snapshots.iter().enumerate() {
            by_id.entry(*id).or_default().push(position);
            if let Some(original) = snapshot.original {
                by_id.entry(original).or_default().push(position);
            }
        }
        Ok(Self { snapshots, by_id })
    }

    /// The copy of a snapshot, if it is there with the same fields. Tags may have been changed
    /// since on one side; then it is another snapshot.
    fn find(&self, (id, snapshot): &(SnapshotId, Snapshot)) -> Option<SnapshotId> {
        let positions = self.by_id.get(&snapshot.original.unwrap_or(*id))?;
        let mut candidates = positions.iter().map(|&position| &self.snapshots[position]);
        candidates.find(|(_, there)| is_similar(there, snapshot)).map(|(id, _)| *id)
    }
}

/// Whether two snapshots agree in everything but parent and original.
fn is_similar(a: &Snapshot, b: &Snapshot) -> bool {
    let same_set = |a: &[String], b: &[String]| {
        a.len() == b.len() && b.iter().all(|element| a.contains(element))
    };
    a.time == b.time
        && a.tree == b.tree
        && (&a.hostname, &a.username, a.uid, a.gid) == (&b.hostname, &b.username, b.uid, b.gid)
        && a.excludes == b.excludes
        && same_set(&a.paths, &b.paths)
        && same_set(&a.tags, &b.tags)
}

type Ids = HashSet<(BlobKind, BlobId), RandomState>;

struct Copier<'c> {
    source: &'c IndexedRepository,
    run: &'c Run,
    batch_bytes: u64,
    /// What earlier batches stored: the target's index does not know it.
    copied: Ids,
    /// Trees whose content is in the target or on its way.
    visited: HashSet<BlobId, RandomState>,
}

/// How far a batch came.
struct Batch {
    /// How many snapshots were copied whole.
    whole: usize,
    /// Why the next one was not, if that ended the batch.
    failure: Option<ReadError>,
}

impl Copier<'_> {
    /// Copies the content of as many snapshots as make a batch, and at least one.
    fn copy_batch(
        &mut self,
        writer: &PackWriter<'_>,
        snapshots: &[&(SnapshotId, Snapshot)],
        tell: &mut dyn FnMut(CopyEvent),
    ) -> Result<Batch, CopyError> {
        let mut bytes = 0;
        for (whole, (id, snapshot)) in snapshots.iter().enumerate() {
            if bytes >= self.batch_bytes {
                return Ok(Batch { whole, failure: None });
            }
            tell(CopyEvent::Begun(*id));
            match self.copy_tree(writer, snapshot.tree) {
                Ok(copied) => bytes += copied,
                Err(TransferError::Read(ReadError::Cancelled(error))) => return Err(error.into()),
                Err(TransferError::Read(error)) => {
                    return Ok(Batch { whole, failure: Some(error) });
                }
                Err(TransferError::Write(error)) => return Err(error.into()),
            }
        }
        Ok(Batch { whole: snapshots.len(), failure: None })
    }

    /// Copies what is missing of a tree; returns the bytes that were read for it.
    fn copy_tree(&mut self, writer: &PackWriter<'_>, root: BlobId) -> Result<u64, TransferError> {
        let mut reader = self.source.blob_reader()?;
        let mut collected = Vec::new();
        let (mut to_visit, mut bytes) = (vec![root], 0);
        while let Some(tree) = to_visit.pop() {
            self.run.cancel.check().map_err(ReadError::from)?;
            if !self.visited.insert(tree) {
                continue;
            }
            self.collect(writer, BlobKind::Tree, tree, &mut collected)?;
            for node in reader.tree(tree)?.nodes {
                for id in node.content.into_iter().flatten() {
                    self.collect(writer, BlobKind::Data, id, &mut collected)?;
                }
                to_visit.extend(node.subtree);
            }
            if collected.len() >= COLLECTED_MAX {
                bytes += self.transfer(writer, &mut collected)?;
            }
        }
        Ok(bytes + self.transfer(writer, &mut collected)?)
    }

    /// Notes a blob for the next transfer, unless the target has it.
    fn collect(
        &self,
        writer: &PackWriter<'_>,
        kind: BlobKind,
        id: BlobId,
        collected: &mut Vec<Location>,
    ) -> Result<(), ReadError> {
        if self.copied.contains(&(kind, id)) || !writer.claim(kind, id) {
            return Ok(());
        }
        let found = self.source.index().find(kind, id);
        let location = found.ok_or(ReadError::MissingBlob { kind, id })?;
        self.run.progress.add_total(1, u64::from(location.blob.plaintext_length()));
        collected.push(location);
        Ok(())
    }

    /// Copies what was collected, on several threads.
    fn transfer(
        &mut self,
        writer: &PackWriter<'_>,
        collected: &mut Vec<Location>,
    ) -> Result<u64, TransferError> {
        let ranges = into_ranges(collected);
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let result = copy_ranges(self.source, writer, &ranges, &next, &failed, self.run);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            result
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(ranges.len());
        let results: Vec<_> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(join).collect()
        });
        results.into_iter().collect::<Result<(), TransferError>>()?;
        self.copied.extend(collected.iter().map(|location| (location.blob.kind, location.blob.id)));
        let bytes = collected.iter().map(|location| u64::from(location.blob.length)).sum();
        collected.clear();
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

/// Sorts by pack and place, and joins what lies close together.
pub(crate) fn into_ranges(locations: &mut [Location]) -> Vec<Range> {
    locations.sort_unstable_by_key(|location| (location.pack, location.blob.offset));
    let mut ranges: Vec<Range> = Vec::new();
    for location in locations {
        let start = u64::from(location.blob.offset);
        let end = start + u64::from(location.blob.length);
        match ranges.last_mut() {
            Some(range)
                if range.pack == location.pack
                    && start.saturating_sub(range.end) <= GAP_BYTES_MAX
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

/// One thread's part: takes ranges until none is left or another thread failed.
fn copy_ranges(
    source: &IndexedRepository,
    writer: &PackWriter<'_>,
    ranges: &[Range],
    next: &AtomicUsize,
    failed: &AtomicBool,
    run: &Run,
) -> Result<(), TransferError> {
    let mut worker = Worker {
        source,
        writer,
        opener: BlobOpener::new(source.key())?,
        reader: source.blob_reader()?,
        data: writer.sealer(BlobKind::Data)?,
        trees: writer.sealer(BlobKind::Tree)?,
        sealed: Vec::new(),
        plaintext: Vec::new(),
    };
    while let Some(range) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
        if failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        run.cancel.check().map_err(ReadError::from)?;
        worker.copy_range(range, run)?;
    }
    Ok(())
}

struct Worker<'w> {
    source: &'w IndexedRepository,
    writer: &'w PackWriter<'w>,
    opener: BlobOpener<'w>,
    reader: BlobReader<'w>,
    data: Sealer<'w>,
    trees: Sealer<'w>,
    sealed: Vec<u8>,
    plaintext: Vec<u8>,
}

impl Worker<'_> {
    fn copy_range(&mut self, range: &Range, run: &Run) -> Result<(), TransferError> {
        // What the index promises was checked to lie below 4 GiB when it was loaded.
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let file = File::Pack(range.pack);
        let storage = self.source.storage().as_ref();
        let read = read_claimed(storage, file, range.start, length, &mut self.sealed);
        for location in &range.blobs {
            let blob = location.blob;
            let start = usize::try_from(u64::from(blob.offset) - range.start).unwrap_or(0);
            let opened = read.is_ok() && {
                let sealed = &mut self.sealed[start..start + blob.length as usize];
                self.opener.open(location, sealed, &mut self.plaintext).is_ok()
            };
            if !opened {
                // Another pack may hold the blob too; else this tells what is wrong.
                self.reader.read(blob.kind, blob.id, &mut self.plaintext)?;
            }
            let sealer = match blob.kind {
                BlobKind::Data => &mut self.data,
                BlobKind::Tree => &mut self.trees,
            };
            let bytes = self.plaintext.len() as u64;
            self.writer.add(blob.kind, blob.id, bytes, sealer.seal(blob.id, &self.plaintext)?)?;
            run.progress.add_done(1, bytes);
        }
        Ok(())
    }
}

/// A transfer failed on one of the two sides.
#[derive(Debug)]
enum TransferError {
    Read(ReadError),
    Write(WriteError),
}

impl From<ReadError> for TransferError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<WriteError> for TransferError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

/// A copy could not go on.
#[derive(Debug, Error)]
pub enum CopyError {
    /// The target's snapshots cannot be read.
    #[error("see which snapshots the target has")]
    Target(#[source] ReadError),
    /// The target cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A snapshot cannot be written.
    #[error("save the copied snapshot")]
    Save(#[from] SaveError),
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Fault for CopyError {
    fn class(&self) -> Class {
        match self {
            Self::Target(error) => error.class(),
            Self::Write(error) => error.class(),
            Self::Save(error) => error.class(),
            Self::Cancelled(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Target(error) => error.code(),
            Self::Write(error) => error.code(),
            Self::Save(error) => error.code(),
            Self::Cancelled(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Target(error) => error.help(),
            Self::Write(error) => error.help(),
            Self::Save(error) => error.help(),
            Self::Cancelled(error) => error.help(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        packer::PACK_BYTES_MIN,
        storage::{
            FileKind, Storage as _,
            unreliable::{Faults, Unreliable},
        },
        tree_walk::sample::{Item, Sample, dir, file},
    };

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

    fn tree(version: u64) -> Item {
        let large = Item::File((0..9).map(|n| noise(n, 900_000)).collect());
        let sub = dir([(&b"same"[..], file(b"same")), (b"zeros", file(&[0; 100_000]))]);
        dir([(&b"large"[..], large), (b"sub", sub), (b"version", file(&version.to_le_bytes()))])
    }

    /// A repository with two snapshots.
    fn source() -> (Sample, Vec<(SnapshotId, Snapshot)>) {
        let sample = Sample::new();
        for version in 1..3_i64 {
            sample.snapshot(sample.write(&tree(version.unsigned_abs())), version);
        }
        let snapshots = sample.repository.snapshots().unwrap();
        (sample, snapshots)
    }

    fn options() -> PackOptions {
        PackOptions { pack_bytes: PACK_BYTES_MIN, ..PackOptions::default() }
    }

    fn run_copy(
        source: &Sample,
        target: &IndexedRepository,
        snapshots: &[(SnapshotId, Snapshot)],
    ) -> Result<CopyReport, CopyError> {
        copy(&source.indexed(), target, snapshots, options(), &Run::new(), &mut |_| {})
    }

    /// Every blob that the snapshots need can be read in the target.
    fn assert_whole(target: &Sample) {
        let repository = target.indexed();
        let mut reader = repository.blob_reader().unwrap();
        let mut plaintext = Vec::new();
        for (_, snapshot) in repository.snapshots().unwrap() {
            let mut to_read = vec![snapshot.tree];
            while let Some(tree) = to_read.pop() {
                for node in reader.tree(tree).unwrap().nodes {
                    for id in node.content.into_iter().flatten() {
                        reader.read(BlobKind::Data, id, &mut plaintext).unwrap();
                    }
                    to_read.extend(node.subtree);
                }
            }
        }
    }

    #[test]
    fn snapshots_are_copied_once_and_whole() {
        let (source, snapshots) = source();
        let target = Sample::new();
        let report = run_copy(&source, &target.indexed(), &snapshots).unwrap();
        assert_eq!((report.copied.len(), report.skipped.len(), report.failed.len()), (2, 0, 0));
        assert_eq!((report.stats.data_blobs, report.stats.tree_blobs), (9 + 2 + 2, 3));
        assert_whole(&target);
        for (id, copy) in target.repository.snapshots().unwrap() {
            let original = copy.original.unwrap();
            assert!(report.copied.contains(&(original, id)));
            assert_eq!(copy.parent, None);
        }
        let again = run_copy(&source, &target.indexed(), &snapshots).unwrap();
        assert_eq!((again.copied.len(), again.skipped.len()), (0, 2));
        assert_eq!(again.stats, PackStats::default());
        // Back again: the copies are known by their original.
        let back = target.repository.snapshots().unwrap();
        assert_eq!(run_copy(&target, &source.indexed(), &back).unwrap().skipped.len(), 2);
    }

    #[test]
    fn a_snapshot_with_other_tags_is_another_one() {
        let (source, mut snapshots) = source();
        let target = Sample::new();
        assert_eq!(run_copy(&source, &target.indexed(), &snapshots).unwrap().copied.len(), 2);
        snapshots[0].1.tags.push("kept".to_owned());
        let report = run_copy(&source, &target.indexed(), &snapshots).unwrap();
        assert_eq!((report.copied.len(), report.skipped.len()), (1, 1));
        assert_eq!(report.stats.data_blobs, 0);
    }

    #[test]
    fn an_interrupted_copy_is_continued() {
        let (source, snapshots) = source();
        for stop_at_write in 1..8 {
            let target = Sample::new();
            let faults = Faults { stop_at_write, ..Faults::default() };
            let failing = Unreliable::new(target.storage.clone(), faults);
            let failing = target.repository.clone().on(std::sync::Arc::new(failing));
            let failing = failing.load_index(&Run::new()).unwrap();
            let interrupted = run_copy(&source, &failing, &snapshots).is_err();
            assert_whole(&target);
            let report = run_copy(&source, &target.indexed(), &snapshots).unwrap();
            let all = report.copied.len() + report.skipped.len();
            assert_eq!(all, 2, "{stop_at_write} {interrupted}");
            assert_eq!(target.repository.snapshots().unwrap().len(), 2);
            assert_whole(&target);
        }
    }

    #[test]
    fn a_damaged_snapshot_does_not_keep_the_others() {
        let (source, snapshots) = source();
        let repository = source.indexed();
        let lost = repository.index().find(BlobKind::Data, BlobId::of(&1_u64.to_le_bytes()));
        let pack = lost.unwrap().pack;
        let sound = BlobId::of(&2_u64.to_le_bytes());
        assert_ne!(repository.index().find(BlobKind::Data, sound).unwrap().pack, pack);
        let listed = source.storage.list(FileKind::Pack).unwrap();
        assert!(listed.iter().any(|listed| listed.file == File::Pack(pack)));
        {
            let mut files = source.storage.files();
            let content = files.get_mut(&File::Pack(pack)).unwrap();
            let at = lost.unwrap().blob.offset as usize + 20;
            content[at] ^= 1;
        }
        let target = Sample::new();
        let report = run_copy(&source, &target.indexed(), &snapshots).unwrap();
        assert_eq!((report.copied.len(), report.failed.len()), (1, 1));
        assert_eq!(report.failed[0].0, snapshots[0].0);
        assert_eq!(report.failed[0].1.code(), "blob-damaged");
        assert_eq!(target.repository.snapshots().unwrap().len(), 1);
        assert_whole(&target);
    }

    #[test]
    fn a_dry_run_writes_nothing() {
        let (source, snapshots) = source();
        let target = Sample::new();
        let options = PackOptions { dry_run: true, ..options() };
        let (from, to) = (source.indexed(), target.indexed());
        let report = copy(&from, &to, &snapshots, options, &Run::new(), &mut |_| {}).unwrap();
        assert_eq!(report.stats.data_blobs, 13);
        assert_eq!(target.storage.list(FileKind::Snapshot).unwrap(), []);
        assert_eq!(target.storage.list(FileKind::Pack).unwrap(), []);
    }

    #[test]
    fn ranges_join_neighbours_only() {
        let location = |pack: u8, offset, length| Location {
            pack: PackId::from_bytes([pack; 32]),
            blob: crate::format::pack::PackedBlob {
                id: BlobId::of(b""),
                kind: BlobKind::Data,
                offset,
                length,
                uncompressed_length: None,
            },
        };
        let mut locations = [
            location(2, 0, 100),
            location(1, 300_000, 100),
            location(1, 0, 100),
            location(1, 900_000, 8 << 20),
            location(1, 100, 299_000),
        ];
        let ranges = into_ranges(&mut locations);
        let shape: Vec<_> = ranges.iter().map(|r| (r.start, r.end, r.blobs.len())).collect();
        let large_end = 900_000 + (8 << 20);
        assert_eq!(shape, [(0, 300_100, 3), (900_000, large_end, 1), (0, 100, 1)]);
    }
}
