//! Which blobs snapshots need: one bit for each blob of the index.
//!
//! Trees are followed level by level on several threads. A tree that many snapshots share is read
//! once. What cannot be read ends the prune: nobody knows what it needs.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use super::PruneError;
use crate::{
    check::asking_threads,
    format::pack::BlobKind,
    id::BlobId,
    index::Index,
    repository::{BlobReader, IndexedRepository, ReadError},
    run::Run,
};

/// A blob that the index does not know.
pub(crate) type Missing = (BlobKind, BlobId);

/// The used blobs, by their numbers in the index.
#[derive(Default)]
pub(crate) struct Used {
    bits: Vec<AtomicU64>,
}

impl Used {
    /// Makes room for what was added to the index.
    pub(crate) fn grow(&mut self, index: &Index) {
        let words = index.len().div_ceil(64);
        self.bits.resize_with(words.max(self.bits.len()), AtomicU64::default);
    }

    pub(crate) fn contains(&self, number: usize) -> bool {
        self.bits[number / 64].load(Ordering::Relaxed) & 1 << (number % 64) != 0
    }

    /// Whether the blob is needed.
    pub(crate) fn needs(&self, index: &Index, kind: BlobKind, id: BlobId) -> bool {
        index.number(kind, id).is_some_and(|number| self.contains(number))
    }

    /// Notes a blob; gives whether it is new.
    fn note(&self, number: usize) -> bool {
        let bit = 1 << (number % 64);
        self.bits[number / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Notes everything that the trees `roots` need. Gives the blobs that the index does not know;
    /// below such trees nothing was noted.
    pub(crate) fn follow(
        &self,
        repository: &IndexedRepository,
        roots: Vec<BlobId>,
        run: &Run,
    ) -> Result<Vec<Missing>, PruneError> {
        let mut found = Found::default();
        for root in roots {
            self.see_tree(repository.index(), root, &mut found);
        }
        let mut missing = Vec::new();
        loop {
            missing.append(&mut found.missing);
            let mut level = std::mem::take(&mut found.trees);
            // As they lie in their packs: neighbours are read together.
            level.sort_by_cached_key(|&id| {
                let place = repository.index().find(BlobKind::Tree, id);
                place.map(|place| (place.pack, place.blob.offset))
            });
            if level.is_empty() {
                missing.sort_unstable();
                missing.dedup();
                return Ok(missing);
            }
            found = self.read_level(repository, &level, run)?;
        }
    }

    /// Notes blobs that were missing and are in the index now; gives the trees among them.
    pub(crate) fn note_found(&self, found: &[Missing], index: &Index) -> Vec<BlobId> {
        let mut trees = Vec::new();
        for &(kind, id) in found {
            match kind {
                BlobKind::Tree => trees.push(id),
                BlobKind::Data => {
                    if let Some(number) = index.number(kind, id) {
                        self.note(number);
                    }
                }
            }
        }
        trees
    }

    /// Reads trees on several threads, and notes what they need.
    fn read_level(
        &self,
        repository: &IndexedRepository,
        level: &[BlobId],
        run: &Run,
    ) -> Result<Found, PruneError> {
        let next = AtomicUsize::new(0);
        let work = || self.read_trees(repository, level, &next, run);
        let threads = asking_threads(repository.storage().as_ref()).min(level.len());
        let results: Vec<Result<Found, ReadError>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(join).collect()
        });
        let mut all = Found::default();
        for result in results {
            let mut found = result?;
            all.trees.append(&mut found.trees);
            all.missing.append(&mut found.missing);
        }
        Ok(all)
    }

    fn read_trees(
        &self,
        repository: &IndexedRepository,
        level: &[BlobId],
        next: &AtomicUsize,
        run: &Run,
    ) -> Result<Found, ReadError> {
        let mut reader = repository.blob_reader()?;
        let mut found = Found::default();
        while let Some(&tree) = level.get(next.fetch_add(1, Ordering::Relaxed)) {
            run.cancel.check()?;
            self.read_tree(repository.index(), &mut reader, tree, &mut found)?;
        }
        Ok(found)
    }

    fn read_tree(
        &self,
        index: &Index,
        reader: &mut BlobReader<'_>,
        tree: BlobId,
        found: &mut Found,
    ) -> Result<(), ReadError> {
        for node in reader.entries(tree)? {
            let node = node?;
            for id in node.content.into_iter().flatten() {
                match index.number(BlobKind::Data, id) {
                    Some(number) => drop(self.note(number)),
                    None => found.missing.push((BlobKind::Data, id)),
                }
            }
            if let Some(subtree) = node.subtree {
                self.see_tree(index, subtree, found);
            }
        }
        Ok(())
    }

    /// Notes a tree, and that it is to be read if it was not.
    fn see_tree(&self, index: &Index, tree: BlobId, found: &mut Found) {
        match index.number(BlobKind::Tree, tree) {
            Some(number) if self.note(number) => found.trees.push(tree),
            Some(_) => {}
            None => found.missing.push((BlobKind::Tree, tree)),
        }
    }
}

/// What a level of trees leads to.
#[derive(Default)]
struct Found {
    trees: Vec<BlobId>,
    missing: Vec<Missing>,
}
