//! The plan of a batch: which ranges of which packs are read, and where their chunks go.
//!
//! Planning is pure: files go in, with the places of their chunks; jobs come out, ordered by
//! pack and position. A chunk that many files want, or one file at many places, is in one job
//! and is read and opened once.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    dirs::Folder, links::LinkKey, metadata::Metadata, report::ProblemCause, write::OpenFiles,
};
use crate::{
    id::{BlobId, PackId},
    index::Location,
    storage::Costs,
};

/// The longest range that is read in one go, in bytes, unless a single chunk is longer; as much is
/// opened together. Each of so many threads holds one, so it bounds memory; 4 MiB keep disks and networks
/// busy. Few threads take more, since the more chunks there are, the quicker each is verified (`open`).
pub(super) fn range_bytes_max(threads: usize) -> u32 {
    if threads <= FEW_THREADS { 8 << 20 } else { 4 << 20 }
}

/// See [`range_bytes_max`].
const FEW_THREADS: usize = 4;

/// A batch is complete when its plan takes this much memory, in bytes. Two exist at a time: one
/// is planned while the other is restored.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// A batch is complete with this many files, or folders: at first with few, since nothing is restored
/// while the first is collected, and never with more than can be completed soon after the last file is
/// written. At a distance it is the end of a batch that costs: the last of its ranges are waited for.
const BATCH_ITEMS_MIN: usize = 256;
const BATCH_ITEMS_MAX: usize = 4096;

/// How many empty files make a job.
const EMPTY_FILES_PER_JOB: usize = 256;

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileState {
    /// Nothing was made.
    Planned,
    /// It exists, and is not whole.
    Begun,
    /// It stands under its name, whole.
    Whole,
    /// It could not be restored and was removed.
    Failed,
}

/// A file to be restored. Shared by the workers, who all write chunks of it.
#[derive(Debug)]
pub(super) struct PlannedFile {
    pub(super) folder: Arc<Folder>,
    pub(super) name: Box<[u8]>,
    pub(super) content: Box<[BlobId]>,
    /// The sum of the chunks' lengths in bytes.
    pub(super) size: u64,
    pub(super) metadata: Metadata,
    /// Something lies under the name that is to be replaced when the file is whole.
    pub(super) replaces: bool,
    /// Other names of the same inode may follow.
    pub(super) link: Option<LinkKey>,
    pub(super) progress: FileProgress,
}

/// What the workers know of a file.
#[derive(Debug, Default)]
pub(super) struct FileProgress {
    state: AtomicU8,
    /// Chunks not yet written.
    pub(super) chunks_left: AtomicU32,
    /// A chunk could not be written: the file will not be whole.
    pub(super) is_spoilt: AtomicBool,
    /// The last byte was written, so that the file has its length.
    pub(super) has_end: AtomicBool,
    /// Device and inode.
    pub(super) identity: OnceLock<(u64, u64)>,
}

impl FileProgress {
    pub(super) fn state(&self) -> FileState {
        match self.state.load(Ordering::Acquire) {
            0 => FileState::Planned,
            1 => FileState::Begun,
            2 => FileState::Whole,
            _ => FileState::Failed,
        }
    }

    pub(super) fn set_state(&self, state: FileState) {
        self.state.store(state as u8, Ordering::Release);
    }
}

impl PlannedFile {
    /// Whether it is written under another name first: when it is not written in one go, or
    /// replaces something.
    pub(super) fn is_staged(&self) -> bool {
        self.replaces || self.content.len() > 1
    }

    /// About how much memory the plan of the file takes.
    fn plan_bytes(&self) -> usize {
        let attributes = self.metadata.attributes.iter();
        let attributes: usize = attributes.map(|a| a.name.len() + a.value.len() + 64).sum();
        let per_chunk = size_of::<BlobId>() + size_of::<Want>();
        size_of::<Self>() + self.name.len() + attributes + self.content.len() * per_chunk
    }
}

/// A chunk's way from a pack to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Want {
    /// Number of the pack in the batch.
    pack: u32,
    /// Where the sealed chunk begins in the pack, in bytes.
    pub(super) offset: u32,
    /// Length of the sealed chunk in bytes.
    pub(super) length: u32,
    /// Number of the file in the batch.
    pub(super) file: u32,
    /// Number of the chunk in the file.
    pub(super) chunk: u32,
    /// Where the chunk goes in the file, in bytes.
    pub(super) at: u64,
}

/// Work for one thread.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Read a range of a pack and write the chunks in it to the files that want them.
    Chunks {
        /// The pack.
        pack: PackId,
        /// Where the range begins in the pack, in bytes.
        offset: u32,
        /// Length of the range in bytes.
        length: u32,
        /// Which of the batch's wants.
        wants: Range<usize>,
    },
    /// Make files without content; which of the batch's list.
    Empty(Range<usize>),
}

/// Another name for a file that stands earlier in the walk.
#[derive(Debug)]
pub(super) struct PlannedLink {
    pub(super) key: LinkKey,
    /// What to restore should the first name not have worked.
    pub(super) file: PlannedFile,
}

/// A folder whose content was walked.
#[derive(Debug)]
pub(super) struct LeftFolder {
    pub(super) folder: Arc<Folder>,
    /// None for the target, which keeps its own.
    pub(super) metadata: Option<Metadata>,
    /// What is in it and not in the snapshot.
    pub(super) extra: Vec<(Vec<u8>, rustix::fs::FileType)>,
}

/// Files that are restored together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) number: u32,
    pub(super) files: Vec<PlannedFile>,
    pub(super) wants: Vec<Want>,
    pub(super) jobs: Vec<Job>,
    pub(super) empty: Vec<u32>,
    /// To be made when the files are whole.
    pub(super) links: Vec<PlannedLink>,
    /// To be completed after that, in this order: inner ones before outer ones.
    pub(super) left: Vec<LeftFolder>,
    pub(super) next_job: AtomicUsize,
    pub(super) open: OpenFiles,
    /// What went wrong, by number of the file.
    pub(super) problems: Mutex<Vec<(u32, &'static str, ProblemCause)>>,
    pub(super) bytes_written: AtomicU64,
    pub(super) metadata_denied: AtomicU64,
}

/// Collects a batch.
#[derive(Debug, Default)]
pub(super) struct BatchBuilder {
    batch: Batch,
    packs: Vec<PackId>,
    pack_numbers: HashMap<PackId, u32>,
    bytes: usize,
    items_max: usize,
}

impl BatchBuilder {
    /// For the batch with this number, of a store whose requests have these costs.
    pub(super) fn new(number: u32, costs: &Costs) -> Self {
        let items_max = if costs.is_far() { BATCH_ITEMS_MAX } else { items_max(number) };
        let batch = Batch { number, ..Batch::default() };
        Self { batch, items_max, ..Self::default() }
    }

    pub(super) fn number(&self) -> u32 {
        self.batch.number
    }

    /// Whether it is time to restore what was collected.
    pub(super) fn is_full(&self) -> bool {
        let items = self.batch.files.len().max(self.batch.left.len());
        self.bytes >= BATCH_BYTES_MAX || items >= self.items_max
    }

    pub(super) fn is_empty(&self) -> bool {
        let Batch { files, links, left, .. } = &self.batch;
        files.is_empty() && links.is_empty() && left.is_empty()
    }

    /// Whether a chunk of this pack is wanted already.
    pub(super) fn knows_pack(&self, pack: &PackId) -> bool {
        self.pack_numbers.contains_key(pack)
    }

    /// Adds a file whose chunks lie at `places`, and returns its number in the batch.
    pub(super) fn add_file(&mut self, file: PlannedFile, places: &[Location]) -> u32 {
        assert_eq!(file.content.len(), places.len(), "each chunk has a place");
        let number = to_u32(self.batch.files.len());
        if places.is_empty() {
            self.batch.empty.push(number);
        }
        let mut at = 0;
        for (chunk, place) in places.iter().enumerate() {
            let pack = *self.pack_numbers.entry(place.pack).or_insert_with(|| {
                self.packs.push(place.pack);
                to_u32(self.packs.len() - 1)
            });
            let blob = &place.blob;
            self.batch.wants.push(Want {
                pack,
                offset: blob.offset,
                length: blob.length,
                file: number,
                chunk: to_u32(chunk),
                at,
            });
            at += u64::from(blob.plaintext_length());
        }
        file.progress.chunks_left.store(to_u32(places.len()), Ordering::Relaxed);
        self.bytes += file.plan_bytes();
        self.batch.files.push(file);
        number
    }

    pub(super) fn add_link(&mut self, link: PlannedLink) {
        self.bytes += link.file.plan_bytes();
        self.batch.links.push(link);
    }

    pub(super) fn add_left(&mut self, left: LeftFolder) {
        let extra: usize = left.extra.iter().map(|(name, _)| name.len() + 40).sum();
        self.bytes += size_of::<LeftFolder>() + size_of::<Folder>() + extra;
        self.batch.left.push(left);
    }

    /// Puts the work in order, for a store whose requests have these costs, and so many workers, which
    /// take so much at once.
    pub(super) fn finish(mut self, costs: &Costs, workers: usize, range_bytes: u32) -> Batch {
        let wants = &mut self.batch.wants;
        wants.sort_unstable_by_key(|want| (want.pack, want.offset, want.file, want.chunk));
        let gap = u32::try_from(costs.gap_bytes()).unwrap_or(u32::MAX);
        let mut jobs = dealt(jobs_of(wants, &self.packs, gap, range_bytes), workers);
        for first in (0..self.batch.empty.len()).step_by(EMPTY_FILES_PER_JOB) {
            let end = self.batch.empty.len().min(first + EMPTY_FILES_PER_JOB);
            jobs.push(Job::Empty(first..end));
        }
        self.batch.jobs = jobs;
        self.batch
    }
}

/// How many files the batch with a number may have: twice as many as the one before.
fn items_max(number: u32) -> usize {
    (BATCH_ITEMS_MIN << number.min(16)).min(BATCH_ITEMS_MAX)
}

fn to_u32(number: usize) -> u32 {
    // A batch ends at 4096 files, and a tree of at most 1 GiB lists at most 16 million chunks.
    u32::try_from(number).expect("a batch has fewer than 2^32 of anything")
}

/// Takes jobs from `runs` places in turns. What lies together in packs mostly belongs to one file, and
/// the system lets one thread at a time write to a file: so threads work at different ones.
fn dealt<T>(jobs: Vec<T>, runs: usize) -> Vec<T> {
    let run = jobs.len().div_ceil(runs.max(1)).max(1);
    let mut numbered: Vec<(usize, T)> = jobs.into_iter().enumerate().collect();
    numbered.sort_by_key(|(number, _)| number % run);
    numbered.into_iter().map(|(_, job)| job).collect()
}

/// Cuts sorted wants into ranges to read: two are read in one go when no more than `gap` bytes lie
/// between them, for to read on takes less time than to ask again, and all are no more than `range_bytes`.
fn jobs_of(wants: &[Want], packs: &[PackId], gap: u32, range_bytes: u32) -> Vec<Job> {
    let mut jobs = Vec::new();
    let mut first = 0;
    let mut range_end = 0;
    for (i, want) in wants.iter().enumerate() {
        let start = wants[first].offset;
        let end = want.offset.saturating_add(want.length);
        let joins = want.pack == wants[first].pack
            && want.offset.saturating_sub(range_end) <= gap
            && (end - start <= range_bytes || want.offset == start);
        if i > first && !joins {
            jobs.push(job(&wants[first], range_end, first..i, packs));
            first = i;
            range_end = 0;
        }
        range_end = range_end.max(end);
    }
    if first < wants.len() {
        jobs.push(job(&wants[first], range_end, first..wants.len(), packs));
    }
    jobs
}

fn job(first: &Want, end: u32, wants: Range<usize>, packs: &[PackId]) -> Job {
    let pack = packs[first.pack as usize];
    Job::Chunks { pack, offset: first.offset, length: end - first.offset, wants }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Wants as (pack, offset, length); ranges expected as (pack, offset, length, wants).
    fn check(wants: &[(u32, u32, u32)], expected: &[(u32, u32, u32, Range<usize>)]) {
        let packs: Vec<PackId> = (0..4_u8).map(|pack| PackId::of(&[pack])).collect();
        let want = |&(pack, offset, length): &(u32, u32, u32)| Want {
            pack,
            offset,
            length,
            file: 0,
            chunk: 0,
            at: 0,
        };
        let wants: Vec<Want> = wants.iter().map(want).collect();
        let expected: Vec<Job> = expected
            .iter()
            .map(|(pack, offset, length, wants)| Job::Chunks {
                pack: packs[*pack as usize],
                offset: *offset,
                length: *length,
                wants: wants.clone(),
            })
            .collect();
        assert_eq!(jobs_of(&wants, &packs, MIB, 4 * MIB), expected);
    }

    const MIB: u32 = 1 << 20;

    #[test]
    fn jobs_are_dealt_from_several_places() {
        assert_eq!(dealt((0..7).collect(), 2), [0, 4, 1, 5, 2, 6, 3]);
        assert_eq!(dealt((0..3).collect(), 5), [0, 1, 2]);
        assert_eq!(dealt((0..3).collect(), 0), [0, 1, 2]);
        assert!(dealt(Vec::<u8>::new(), 2).is_empty());
    }

    #[test]
    fn batches_grow() {
        let sizes: Vec<usize> = [0, 1, 4, 5, 63, 64, u32::MAX].map(items_max).to_vec();
        assert_eq!(sizes, [256, 512, 4096, 4096, 4096, 4096, 4096]);
        let far = Costs { latency: Duration::from_millis(50), ..Costs::of_this_machine() };
        assert_eq!(BatchBuilder::new(0, &far).items_max, 4096);
        assert_eq!(BatchBuilder::new(0, &Costs::of_this_machine()).items_max, 256);
    }

    /// Ranges of all threads, and of workers what they open of them.
    #[test]
    fn few_threads_hold_longer_ranges() {
        let together = |workers: usize, readers: usize| {
            (2 * workers + readers) * range_bytes_max(workers + readers) as usize / MIB as usize
        };
        assert_eq!([together(1, 1), together(2, 2)], [24, 48]);
        // No more than before for those who are many.
        assert_eq!([together(4, 4), together(6, 4), together(6, 12)], [48, 64, 96]);
    }

    #[test]
    fn neighbours_are_read_together() {
        check(&[], &[]);
        check(&[(0, 0, 10)], &[(0, 0, 10, 0..1)]);
        check(&[(0, 0, 10), (0, 10, 10), (0, 20, 5)], &[(0, 0, 25, 0..3)]);
        check(&[(0, 0, 10), (0, 10 + MIB, 10)], &[(0, 0, 20 + MIB, 0..2)]);
        check(&[(0, 0, 10), (0, 11 + MIB, 10)], &[(0, 0, 10, 0..1), (0, 11 + MIB, 10, 1..2)]);
        check(&[(0, 0, 10), (1, 10, 10)], &[(0, 0, 10, 0..1), (1, 10, 10, 1..2)]);
    }

    #[test]
    fn ranges_are_bounded_and_chunks_are_never_cut() {
        let big = 3 * MIB;
        check(&[(0, 0, big), (0, big, big)], &[(0, 0, big, 0..1), (0, big, big, 1..2)]);
        let huge = 30 * MIB;
        check(
            &[(0, 0, huge), (0, 0, huge), (0, huge, 9)],
            &[(0, 0, huge, 0..2), (0, huge, 9, 2..3)],
        );
    }

    #[test]
    fn overlapping_lies_do_no_harm() {
        check(&[(0, 0, 100), (0, 5, 10), (0, 50, 10)], &[(0, 0, 100, 0..3)]);
        check(&[(0, u32::MAX - 5, 100)], &[(0, u32::MAX - 5, 5, 0..1)]);
    }
}
