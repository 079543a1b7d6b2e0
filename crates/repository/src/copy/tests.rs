//! Copies: whole, once, resumed, and in spite of damage.

use std::time::Duration;

use super::{transfer::into_ranges, *};
use crate::{
    check::{CheckOptions, ReadData, check},
    environment::Environment,
    format::pack,
    format::pack::BlobKind,
    id::{BlobId, PackId},
    index::Location,
    lock::LockKind,
    packer::PACK_BYTES_MIN,
    storage::{
        Costs, FileKind, Storage,
        unreliable::{Faults, Unreliable},
    },
    testing::{RepositoryBuilder, dir_node, file_node},
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
    copy(&source.indexed(), target.clone().into(), snapshots, options(), &Run::new(), &mut |_| {})
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
fn a_damaged_folder_that_all_share_is_followed_once() {
    const SNAPSHOTS: usize = 100;
    let mut builder = RepositoryBuilder::new();
    let mut folders = Vec::new();
    for n in 0..100 {
        let name = format!("{n:03}").into_bytes();
        let tree = builder.add_tree(vec![file_node(&name, Vec::new(), 0)]);
        // Apart from one another, so that each is a read.
        builder.close_packs();
        folders.push(dir_node(&name, tree));
    }
    let sound = builder.add_tree(folders.clone());
    let evil = builder.add(BlobKind::Tree, BlobId::of(b"it says"), b"{\"nodes\":[]}");
    folders.push(dir_node(b"evil", evil));
    let shared = builder.add_tree(folders);
    let above = builder.add_tree(vec![dir_node(b"above", shared)]);
    let root = |n: usize| vec![dir_node(format!("{n}").as_bytes(), above)];
    let mut roots: Vec<BlobId> = (0..SNAPSHOTS).map(|n| builder.add_tree(root(n))).collect();
    roots.push(sound);
    let storage = builder.storage();
    let made = builder.finish();
    for tree in roots {
        let json =
            format!("{{\"time\":\"2026-01-01T00:00:00Z\",\"tree\":\"{tree}\",\"paths\":[]}}");
        let snapshot: Snapshot = serde_json::from_str(&json).unwrap();
        made.save_unpacked(File::Snapshot, &snapshot).unwrap();
    }
    let counted = std::sync::Arc::new(Unreliable::new(storage, Faults::default()));
    let source = (*made).clone().on(counted.clone()).load_index(&Run::new()).unwrap();
    let snapshots = source.snapshots().unwrap();
    let before = counted.operations();
    let target = RepositoryBuilder::new().finish();
    let report =
        copy(&source, target.into(), &snapshots, options(), &Run::new(), &mut |_| {}).unwrap();
    assert_eq!((report.copied.len(), report.failed.len()), (1, SNAPSHOTS));
    for (_, error) in &report.failed {
        assert!(error.to_string().contains(&evil.to_hex()), "{error}");
    }
    let reads = counted.operations() - before;
    assert!(reads < 1000, "{reads} reads for 200 trees");
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

/// The blobs of all packs, indexed or not.
fn stored_blobs(target: &Sample) -> Vec<(BlobKind, BlobId)> {
    let packs = target.storage.list(FileKind::Pack).unwrap();
    let blobs = packs.into_iter().flat_map(|listed| {
        let content = target.storage.read(listed.file, 1 << 30).unwrap();
        let span = pack::header_span(*content.last_chunk().unwrap(), listed.bytes).unwrap();
        let header = &content[content.len() - span..];
        pack::read_header(target.repository.key(), header, listed.bytes).unwrap()
    });
    let mut blobs: Vec<_> = blobs.map(|blob| (blob.kind, blob.id)).collect();
    blobs.sort_unstable();
    blobs
}

/// Copies into a store that misbehaves.
fn copy_into(
    source: &Sample,
    target: &Sample,
    snapshots: &[(SnapshotId, Snapshot)],
    faults: Faults,
    environment: &Environment,
) -> (Option<CopyReport>, u64) {
    let storage = std::sync::Arc::new(Unreliable::new(target.storage.clone(), faults));
    let repository = target.repository.clone().on(storage.clone());
    let run = Run::new();
    let lock = Lock::acquire(&repository, LockKind::Shared, Duration::ZERO, environment, &run);
    let copied = lock.ok().and_then(|lock| {
        let target = Target::open(&repository, &lock, &run).ok()?;
        copy(&source.indexed(), target, snapshots, options(), &run, &mut |_| {}).ok()
    });
    (copied, storage.pack_bytes())
}

#[test]
fn a_copy_that_stops_at_any_write_sends_nothing_again() {
    let (source, snapshots) = source();
    // The process that is stopped is gone afterwards.
    let here = Environment::detect();
    let dead = Environment { pid: 1 << 23, ..here.clone() };
    let other = dir([(&b"older"[..], file(b"what the target had before"))]);
    let mut completed = false;
    for stop_at_write in 1..40 {
        let target = Sample::new();
        target.snapshot(target.write(&other), 1);
        let before = stored_blobs(&target).len();
        let faults = Faults { stop_at_write, ..Faults::default() };
        let (report, _) = copy_into(&source, &target, &snapshots, faults, &dead);
        completed = report.is_some();
        let options = CheckOptions { read_data: ReadData::All };
        let found = check(&target.repository, &options, &Run::new()).unwrap();
        assert!(found.is_clean(), "{stop_at_write}: {found:#?}");
        assert_whole(&target);
        let durable = stored_blobs(&target);
        let bytes = |target: &Sample| -> u64 {
            target.storage.list(FileKind::Pack).unwrap().iter().map(|listed| listed.bytes).sum()
        };
        let durable_bytes = bytes(&target);

        let (report, put) = copy_into(&source, &target, &snapshots, Faults::default(), &here);
        let report = report.unwrap();
        assert_eq!(report.copied.len() + report.skipped.len(), 2, "{stop_at_write}");
        let all = stored_blobs(&target);
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{stop_at_write}: stored twice");
        let new = report.stats.data_blobs + report.stats.tree_blobs;
        assert_eq!(usize::try_from(new).unwrap(), all.len() - durable.len(), "{stop_at_write}");
        assert_eq!(all.len() - before, 9 + 2 + 2 + 3, "{stop_at_write}");
        assert_eq!(put, bytes(&target) - durable_bytes, "{stop_at_write}");
        assert_whole(&target);
        let found = check(&target.repository, &options, &Run::new()).unwrap();
        assert!(found.is_clean() && found.hints.is_empty(), "{stop_at_write}: {found:#?}");
        if completed {
            assert_eq!(put, 0, "there was nothing left to do");
            break;
        }
    }
    assert!(completed, "without a stop the copy completes");
}

#[test]
fn a_slow_source_is_read_over_several_connections() {
    let (source, snapshots) = source();
    let latency = Duration::from_millis(20);
    let costs = Some(Costs { latency, bytes_per_s: 1 << 20, connections: 4 });
    let faults = Faults { delay: latency, costs, ..Faults::default() };
    let storage = std::sync::Arc::new(Unreliable::new(source.storage.clone(), faults));
    let slow = source.repository.clone().on(storage.clone());
    let slow = slow.load_index(&Run::new()).unwrap();
    let target = Sample::new();
    let to = target.indexed().into();
    let run = Run::new();
    let report = copy(&slow, to, &snapshots, options(), &run, &mut |_| {}).unwrap();
    assert_eq!(report.copied.len(), 2);
    let reads = storage.reads_at_once();
    assert!(reads > 1 && reads <= 4, "{reads}");
    let progress = run.progress.read();
    assert_eq!(Some(progress.bytes_done), progress.bytes_total);
    assert_eq!(progress.files_total, Some(16));
    assert_whole(&target);
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
    let report = copy(&from, to.into(), &snapshots, options, &Run::new(), &mut |_| {}).unwrap();
    assert_eq!(report.stats.data_blobs, 13);
    assert_eq!(target.storage.list(FileKind::Snapshot).unwrap(), []);
    assert_eq!(target.storage.list(FileKind::Pack).unwrap(), []);
}

#[test]
fn ranges_join_neighbours_only() {
    let location = |pack: u8, offset, length| Location {
        pack: PackId::from_bytes([pack; 32]),
        blob: pack::PackedBlob {
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
    let ranges = into_ranges(&mut locations, &Costs::of_this_machine());
    let shape: Vec<_> = ranges.iter().map(|r| (r.start, r.end, r.blobs.len())).collect();
    let large_end = 900_000 + (8 << 20);
    assert_eq!(shape, [(0, 300_100, 3), (900_000, large_end, 1), (0, 100, 1)]);
}
