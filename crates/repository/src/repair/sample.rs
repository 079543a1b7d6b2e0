//! A small repository to damage, for the tests of all repairs.

use std::sync::Arc;

use crate::{
    check::{CheckOptions, CheckReport, ReadData, check},
    format::pack::BlobKind,
    id::{BlobId, PackId},
    repository::Repository,
    run::Run,
    storage::{
        File, FileKind, Storage as _,
        unreliable::{Faults, Unreliable},
    },
    tree_walk::sample::{Item, Sample, dir},
};

/// Chunks of the file `large`, in bytes each.
pub(super) const CHUNK: usize = 1000;

/// A chunk that does not compress and is like no other.
pub(super) fn chunk(seed: u64) -> Vec<u8> {
    let ids = (0..).map(|n: u64| BlobId::of(format!("{seed} {n}").as_bytes()));
    ids.flat_map(|id| *id.as_bytes()).take(CHUNK).collect()
}

/// Two snapshots, each with packs and an index file of its own: `/sub/large` of three chunks and
/// `/small` of one.
pub(super) fn two_snapshots() -> Sample {
    let sample = Sample::new();
    for seed in [1, 2] {
        let large = Item::File((0..3).map(|n| chunk(10 * seed + n)).collect());
        let small = Item::File(vec![chunk(100 * seed)]);
        let tree = dir([(&b"small"[..], small), (b"sub", dir([(&b"large"[..], large)]))]);
        let tree = sample.write(&tree);
        sample.snapshot(tree, i64::try_from(seed).unwrap());
    }
    sample
}

/// The pack that holds a chunk.
pub(super) fn pack_of(sample: &Sample, chunk: &[u8]) -> PackId {
    sample.indexed().index().find(BlobKind::Data, BlobId::of(chunk)).unwrap().pack
}

/// Changes a file of the repository behind its back.
pub(super) fn damage(sample: &Sample, file: File, change: impl FnOnce(&mut Vec<u8>)) {
    change(sample.storage.files().get_mut(&file).unwrap());
}

/// Flips a bit in the middle of a chunk.
pub(super) fn flip(sample: &Sample, chunk: &[u8]) -> PackId {
    let found = sample.indexed().index().find(BlobKind::Data, BlobId::of(chunk)).unwrap();
    let at = found.blob.offset as usize + 40;
    damage(sample, File::Pack(found.pack), |content| content[at] ^= 1);
    found.pack
}

/// Checks everything.
pub(super) fn check_all(repository: &Repository) -> CheckReport {
    check(repository, &CheckOptions { read_data: ReadData::All }, &Run::new()).unwrap()
}

/// The index files that are there.
pub(super) fn indexes(sample: &Sample) -> Vec<File> {
    let listed = sample.storage.list(FileKind::Index).unwrap();
    listed.into_iter().map(|listed| listed.file).collect()
}

/// Runs `step` on copies of a damaged repository, stopped at the n-th write for every n. After
/// each, no snapshot is worse off than before, and `step` run again brings what it brings when
/// nothing stops it, which `is_done` asserts. Returns how many writes there are.
pub(super) fn stopped_at_every_write(
    damaged: &Sample,
    step: impl Fn(&Repository) -> Result<(), crate::supersede::ChangeError>,
    is_done: impl Fn(&Sample),
) -> u64 {
    let affected_before = check_all(&damaged.repository).affected_snapshots();
    let damaged_files = damaged.storage.files().clone();
    for stop_at_write in 1.. {
        let storage = Arc::new(crate::storage::memory::MemoryStorage::new());
        *storage.files() = damaged_files.clone();
        let repository = damaged.repository.clone().on(storage.clone());
        let copy = Sample { storage: storage.clone(), repository };
        let faults = Faults { stop_at_write, ..Faults::default() };
        let faulty = copy.repository.clone().on(Arc::new(Unreliable::new(storage, faults)));
        let result = step(&faulty);
        let affected = check_all(&copy.repository).affected_snapshots();
        let is_worse = affected
            .iter()
            .any(|id| damaged.repository.snapshot(*id).is_ok() && !affected_before.contains(id));
        assert!(!is_worse, "stopped at write {stop_at_write}: {affected:?}");
        step(&copy.repository).unwrap();
        is_done(&copy);
        if result.is_ok() {
            return stop_at_write - 1;
        }
    }
    unreachable!("a repair has an end")
}
