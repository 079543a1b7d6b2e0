//! What snapshots need that the target lacks.
//!
//! Trees are followed level by level, those of a level read over several connections. So that a
//! slow store is not asked level by level for each of a thousand small snapshots, snapshots are
//! followed in groups. When something in a group cannot be read, each of its snapshots is
//! followed by itself, so that the damage concerns those only that need what is damaged. What is
//! damaged is remembered, and so are the trees that lead to it: who comes by them later goes no
//! further.

use std::collections::{HashMap, VecDeque};

use muster_model::{Class, Fault as _};

use super::{
    CopyError,
    transfer::{Range, into_ranges, read_range},
};
use crate::{
    check::{asking_threads, each_on_threads},
    format::{FormatError, pack::BlobKind, snapshot::Snapshot, tree::Tree},
    id::{BlobId, SnapshotId},
    index::Index,
    repository::{BlobOpener, BlobReader, Entries, IndexedRepository, ReadError, is_large_tree},
    run::Run,
};

/// Snapshots that are followed together. The first goes alone: it brings the bulk, and its copy
/// is there the earlier.
const GROUP_SNAPSHOTS: usize = 32;

/// Trees that are read in one go: what is found of them waits in memory.
const TREES_AT_ONCE: usize = 1 << 14;

/// A snapshot to be copied.
pub(super) type Entry = (SnapshotId, Snapshot);

/// Snapshots whose copies are written together.
pub(super) struct Group<'s> {
    pub(super) snapshots: Vec<&'s Entry>,
    /// What they need that neither the target has nor an earlier group brings, as numbers of the
    /// source's index.
    pub(super) missing: Vec<u32>,
}

/// Finds out what is missing.
pub(super) struct Need<'n> {
    source: &'n IndexedRepository,
    target: &'n Index,
    run: &'n Run,
    readers: Vec<TreeReader<'n>>,
    /// Blobs that some group needs and, of trees, that were followed.
    seen: Bits,
    /// Blobs that earlier batches stored: the target's index does not know them.
    copied: Bits,
    /// Blobs that cannot be had whole, and the damaged one: itself, or one that it leads to.
    lost: HashMap<u32, Blob>,
    /// Why a damaged one cannot be read, as long as nobody was told.
    untold: HashMap<Blob, ReadError>,
    /// Trees that are being followed, each with the one that led to it, from the roots down.
    ways: Vec<(u32, u32)>,
}

/// A blob's kind and id.
type Blob = (BlobKind, BlobId);

/// Why snapshots cannot be followed to their end.
struct Stop {
    error: Box<ReadError>,
    /// The blob that is damaged, or in no index; none when somebody asked to stop.
    culprit: Option<Blob>,
    /// The tree that it is, or that refers to it; none when it is a snapshot's root.
    tree: Option<u32>,
}

impl Stop {
    /// Why, unless it was somebody's wish: that concerns all snapshots.
    fn why(self) -> Result<ReadError, CopyError> {
        match *self.error {
            ReadError::Cancelled(error) => Err(error.into()),
            error => Ok(error),
        }
    }
}

impl<'n> Need<'n> {
    pub(super) fn new(
        source: &'n IndexedRepository,
        target: &'n Index,
        run: &'n Run,
    ) -> Result<Self, CopyError> {
        let reader = |_| TreeReader::new(source).map_err(CopyError::Source);
        let readers = asking_threads(source.storage().as_ref());
        let readers = (0..readers).map(reader).collect::<Result<_, _>>()?;
        let bits = || Bits::of(source.index().len());
        let (seen, copied) = (bits(), bits());
        let (lost, untold, ways) = (HashMap::new(), HashMap::new(), Vec::new());
        Ok(Self { source, target, run, readers, seen, copied, lost, untold, ways })
    }

    /// Groups snapshots, in their order, with what each group needs. Those that cannot be read
    /// are added to `failed`.
    pub(super) fn of<'s>(
        &mut self,
        snapshots: Vec<&'s Entry>,
        failed: &mut Vec<(SnapshotId, ReadError)>,
    ) -> Result<VecDeque<Group<'s>>, CopyError> {
        self.seen.clear();
        self.run.progress.set_current(|text| text.push_str("reading trees"));
        let mut groups = VecDeque::new();
        let alone = snapshots.len().min(1);
        let (first, others) = snapshots.split_at(alone);
        for together in [first].into_iter().chain(others.chunks(GROUP_SNAPSHOTS)) {
            if together.is_empty() {
                continue;
            }
            match self.follow(together) {
                Ok(missing) => groups.push_back(Group { snapshots: together.to_vec(), missing }),
                Err(stop) if together.len() == 1 => failed.push((together[0].0, stop.why()?)),
                Err(stop) => {
                    let (culprit, why) = (stop.culprit, stop.why()?);
                    self.untold.extend(culprit.map(|blob| (blob, why)));
                    self.follow_each(together, &mut groups, failed)?;
                }
            }
        }
        self.run.progress.set_current(|_| {});
        Ok(groups)
    }

    fn follow_each<'s>(
        &mut self,
        snapshots: &[&'s Entry],
        groups: &mut VecDeque<Group<'s>>,
        failed: &mut Vec<(SnapshotId, ReadError)>,
    ) -> Result<(), CopyError> {
        for &entry in snapshots {
            match self.follow(&[entry]) {
                Ok(missing) => groups.push_back(Group { snapshots: vec![entry], missing }),
                Err(stop) => failed.push((entry.0, stop.why()?)),
            }
        }
        Ok(())
    }

    /// Notes what snapshots need; forgets it again when something of it cannot be read.
    fn follow(&mut self, snapshots: &[&Entry]) -> Result<Vec<u32>, Stop> {
        let mut noted = Vec::new();
        self.ways.clear();
        let roots = snapshots.iter().map(|(_, snapshot)| snapshot.tree);
        if let Err(stop) = self.follow_trees(roots.collect(), &mut noted) {
            noted.iter().for_each(|&number| self.seen.remove(number));
            // What is not there today may be tomorrow, or with the next request.
            if let Some(culprit) = stop.culprit.filter(|_| stop.error.class() == Class::Corrupt) {
                self.remember(culprit, stop.tree);
            }
            return Err(stop);
        }
        let index = self.source.index();
        noted.retain(|&number| {
            let blob = index.at(number).blob;
            !self.copied.contains(number) && !self.target.contains(blob.kind, blob.id)
        });
        noted.sort_unstable();
        noted.shrink_to_fit();
        Ok(noted)
    }

    /// Remembers the tree at which a way ended, and those that led there.
    fn remember(&mut self, culprit: Blob, tree: Option<u32>) {
        let Some(mut last) = tree else { return };
        self.lost.insert(last, culprit);
        for &(tree, above) in self.ways.iter().rev() {
            if tree == last {
                self.lost.insert(above, culprit);
                last = above;
            }
        }
    }

    fn follow_trees(&mut self, roots: Vec<BlobId>, noted: &mut Vec<u32>) -> Result<(), Stop> {
        let mut level = Vec::new();
        for root in roots {
            if let Some(number) = self.note((BlobKind::Tree, root), None, noted)? {
                level.push(number);
            }
        }
        while !level.is_empty() {
            let mut below = Vec::new();
            for part in level.chunks(TREES_AT_ONCE) {
                self.read_trees(part, &mut below, noted)?;
            }
            level = below;
        }
        Ok(())
    }

    /// Notes a blob that a tree refers to; gives its number when it is new.
    fn note(
        &mut self,
        blob: Blob,
        tree: Option<u32>,
        noted: &mut Vec<u32>,
    ) -> Result<Option<u32>, Stop> {
        let Some(number) = number_of(self.source.index(), blob) else {
            return Err(Stop { error: self.why(blob).into(), culprit: Some(blob), tree });
        };
        if let Some(&culprit) = self.lost.get(&number) {
            return Err(Stop { error: self.why(culprit).into(), culprit: Some(culprit), tree });
        }
        if !self.seen.insert(number) {
            return Ok(None);
        }
        noted.push(number);
        Ok(Some(number))
    }

    /// Why a blob cannot be read. The whole reason is told once.
    fn why(&mut self, (kind, id): Blob) -> ReadError {
        match number_of(self.source.index(), (kind, id)) {
            None => ReadError::MissingBlob { kind, id },
            Some(_) => self.untold.remove(&(kind, id)).unwrap_or_else(|| lost_before(kind, id)),
        }
    }

    /// Reads trees over several connections, and notes what they refer to.
    fn read_trees(
        &mut self,
        numbers: &[u32],
        level: &mut Vec<u32>,
        noted: &mut Vec<u32>,
    ) -> Result<(), Stop> {
        let mut locations: Vec<_> =
            numbers.iter().map(|&number| self.source.index().at(number)).collect();
        let ranges = into_ranges(&mut locations, &self.source.storage().costs());
        let readers = std::mem::take(&mut self.readers);
        let (mut found, mut failure) = (Vec::new(), None);
        let mut states: Vec<TreeReader<'n>> = readers;
        let used = states.len().min(ranges.len());
        let cancel = &self.run.cancel;
        let work = |reader: &mut &mut TreeReader<'n>, range: Range| reader.read(&range);
        let stopped = each_on_threads(
            states.iter_mut().take(used).collect(),
            ranges,
            cancel,
            work,
            |result| match result {
                Ok(mut references) if failure.is_none() => found.append(&mut references),
                Ok(_) => {}
                Err(error) => drop(failure.get_or_insert(error)),
            },
        );
        self.readers = states;
        stopped.map_err(|error| Stop {
            error: Box::new(error.into()),
            culprit: None,
            tree: None,
        })?;
        if let Some(stop) = failure {
            return Err(stop);
        }
        for (blob, tree) in found {
            if let Some(number) = self.note(blob, Some(tree), noted)?
                && blob.0 == BlobKind::Tree
            {
                self.ways.push((number, tree));
                level.push(number);
            }
        }
        Ok(())
    }

    /// Remembers what a batch stored, and what of it could not be read.
    pub(super) fn note_copied(&mut self, numbers: &[u32], lost: Vec<(u32, ReadError)>) {
        for &number in numbers {
            self.copied.insert(number);
        }
        for (number, error) in lost {
            let blob = self.source.index().at(number).blob;
            self.copied.remove(number);
            self.lost.insert(number, (blob.kind, blob.id));
            self.untold.insert((blob.kind, blob.id), error);
        }
    }

    /// How many blobs groups need, and their bytes before they are compressed.
    pub(super) fn size_of(&self, groups: &VecDeque<Group<'_>>) -> (u64, u64) {
        let numbers = groups.iter().flat_map(|group| &group.missing);
        numbers.fold((0, 0), |(blobs, bytes), &number| {
            let length = self.source.index().at(number).blob.plaintext_length();
            (blobs + 1, bytes + u64::from(length))
        })
    }

    /// How many bytes a group's blobs take in the source.
    pub(super) fn stored_bytes(&self, group: &Group<'_>) -> u64 {
        let length = |&number: &u32| u64::from(self.source.index().at(number).blob.length);
        group.missing.iter().map(length).sum()
    }
}

/// The number by which the index knows a blob.
fn number_of(index: &Index, (kind, id): Blob) -> Option<u32> {
    index.number(kind, id).and_then(|number| u32::try_from(number).ok())
}

fn lost_before(kind: BlobKind, id: BlobId) -> ReadError {
    let source = FormatError::invalid("it could not be read a moment ago");
    ReadError::DamagedBlob { kind, id, pack: None, source }
}

/// Reads the trees of a range and gives what they refer to; one thread.
struct TreeReader<'n> {
    source: &'n IndexedRepository,
    opener: BlobOpener<'n>,
    reader: BlobReader<'n>,
    sealed: Vec<u8>,
    plaintext: Vec<u8>,
}

impl<'n> TreeReader<'n> {
    fn new(source: &'n IndexedRepository) -> Result<Self, ReadError> {
        Ok(Self {
            source,
            opener: BlobOpener::new(source.key())?,
            reader: source.blob_reader()?,
            sealed: Vec::new(),
            plaintext: Vec::new(),
        })
    }

    /// What the trees refer to, each blob once, with one of the trees that do.
    fn read(&mut self, range: &Range) -> Result<Vec<(Blob, u32)>, Stop> {
        // Large trees are read by themselves.
        let is_wanted = !range.blobs.iter().all(is_large_tree)
            && read_range(self.source, range, &mut self.sealed).is_ok();
        let mut references = Vec::new();
        for location in &range.blobs {
            let is_there = is_wanted && !is_large_tree(location);
            let sealed = is_there.then(|| range.part(location, &mut self.sealed));
            let opened = sealed.and_then(|sealed| {
                self.opener.open(location, sealed, &mut self.plaintext).ok()?;
                Tree::parse(&self.plaintext).map(Entries::from).ok()
            });
            let blob = (BlobKind::Tree, location.blob.id);
            let number = number_of(self.source.index(), blob);
            // Another pack may hold the tree too; else this tells what is wrong.
            let read = opened.map_or_else(|| self.reader.entries(location.blob.id), Ok);
            let stop = |error| Stop { error: Box::new(error), culprit: Some(blob), tree: number };
            let entries = read.map_err(stop)?;
            let number = number.expect("it was found by its number");
            for node in entries {
                let node = node.map_err(stop)?;
                let chunks = node.content.into_iter().flatten().map(|id| (BlobKind::Data, id));
                let folder = node.subtree.map(|id| (BlobKind::Tree, id));
                references.extend(chunks.chain(folder).map(|blob| (blob, number)));
            }
        }
        references.sort_unstable_by_key(|(blob, _)| *blob);
        references.dedup_by_key(|(blob, _)| *blob);
        Ok(references)
    }
}

/// One bit for each number.
struct Bits(Vec<u64>);

impl Bits {
    fn of(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn contains(&self, number: u32) -> bool {
        self.0[number as usize / 64] & 1 << (number % 64) != 0
    }

    /// Adds a number; gives whether it is new.
    fn insert(&mut self, number: u32) -> bool {
        let is_new = !self.contains(number);
        self.0[number as usize / 64] |= 1 << (number % 64);
        is_new
    }

    fn remove(&mut self, number: u32) {
        self.0[number as usize / 64] &= !(1 << (number % 64));
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }
}
