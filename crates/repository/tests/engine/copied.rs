//! Power failure at every step of a copy and of a key rotation, which copies into a place of its
//! own.
//!
//! As in `crash.rs`: the work runs on a disk that records each change, and for every prefix of
//! these and several ideas of what a disk keeps of what was not synced, the target is made as it
//! would be found. In each: what is there is whole, what was there before is as it was, and the
//! work goes on without storing anything twice.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use muster_repository::{
    check::ReadData,
    copy::{CopyReport, Target, copy},
    environment::Environment,
    format::{config::Version, key_file::Cost, snapshot::Snapshot},
    id::{BlobId, SnapshotId},
    lock::{Lock, LockKind},
    packer::PackOptions,
    repository::Repository,
    rotate::{self, Proof},
    run::Run,
    storage::{LocalStorage, Storage},
};
use muster_testkit::Scratch;

use crate::{
    common::{PASSWORD, backup, init_at, open_at, source_tree},
    crash::{Change, Kept, RecordingDisk, copy_folder, crash, noise, options, stored_blobs},
    mend::check_all,
};

/// What a disk may have kept.
const POLICIES: [Kept; 6] =
    [Kept::All, Kept::Nothing, Kept::TornContent, Kept::Zeros, Kept::Some(1), Kept::Some(2)];

type Entry = (SnapshotId, Snapshot);

/// A process that is gone when its work is found.
fn dead() -> Environment {
    Environment { pid: 1 << 23, ..Environment::detect() }
}

/// A repository with two snapshots of a folder, the first of which comes first.
fn two_snapshots(path: &Path, source: &Path) -> anyhow::Result<Vec<Entry>> {
    let repository = init_at(path, Version::V2)?;
    fs::create_dir_all(source.join("sub"))?;
    let mut made = Vec::new();
    for round in 0..2_u64 {
        for n in 0..5 {
            fs::write(source.join(format!("sub/file{n}-{round}")), noise(10 * round + n, 20_000))?;
        }
        let id = backup(&repository, options(source))?.id.context("a snapshot")?;
        made.push((id, repository.snapshot(id)?));
    }
    Ok(made)
}

fn pack_options() -> PackOptions {
    PackOptions { pack_bytes: 48 << 10, ..PackOptions::default() }
}

fn copy_into(
    source: &Repository,
    target: &Repository,
    snapshots: &[Entry],
    environment: &Environment,
) -> anyhow::Result<CopyReport> {
    let run = Run::new();
    let lock = Lock::acquire(target, LockKind::Shared, Duration::ZERO, environment, &run)?;
    let to = Target::open(target, &lock, &run)?;
    let indexed = source.load_index(&run)?;
    let report = copy(&indexed, to, snapshots, pack_options(), &run, &mut |_| {})?;
    lock.release()?;
    anyhow::ensure!(report.failed.is_empty(), "{report:?}");
    Ok(report)
}

/// Copies one snapshot and then all, so that the second copy goes on from a first.
fn copy_in_turn(
    source: &Repository,
    target: &Repository,
    snapshots: &[Entry],
    environment: &Environment,
) -> anyhow::Result<()> {
    let _first = copy_into(source, target, &snapshots[..1], environment)?;
    copy_into(source, target, snapshots, environment).map(drop)
}

/// A store in `folder` below `root`, and what will have been asked of its disk. Nothing is synced:
/// that is made up, and takes most of the time.
fn recorded(root: &Path, folder: &str) -> (Arc<dyn Storage>, Arc<Mutex<Vec<Change>>>) {
    let record = Arc::new(Mutex::new(Vec::new()));
    let disk = RecordingDisk { root: root.to_path_buf(), record: Arc::clone(&record) };
    (Arc::new(LocalStorage::with_disk(root.join(folder), disk)), record)
}

fn open_unsynced(root: &Path) -> anyhow::Result<Repository> {
    Ok(Repository::open(recorded(root, "").0, PASSWORD.as_bytes(), None)?)
}

/// Lets `work` change `folder` below `root`, and gives each change to the disk.
fn record(
    root: &Path,
    folder: &str,
    work: impl FnOnce(Arc<dyn Storage>) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Change>> {
    let (storage, record) = recorded(root, folder);
    work(storage)?;
    let changes = record.lock().unwrap().clone();
    assert!(changes.len() > 60, "{} changes", changes.len());
    Ok(changes)
}

/// Builds every state that a power failure may leave behind, and shows it to `look`, unless the
/// same files were found before: what a sync makes durable was there already if all was kept.
fn after_each(
    scratch: &Scratch,
    base: &Path,
    changes: &[Change],
    mut look: impl FnMut(&Path, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    for n in 0..=changes.len() {
        for (p, kept) in POLICIES.into_iter().enumerate() {
            let what = format!("after {n} of {} changes, kept {kept:?}", changes.len());
            let found = scratch.join(format!("crash-{n}-{p}"));
            crash(base, changes, n, kept, &found);
            if seen.insert(files_of(&found, Path::new(""))?) {
                look(&found, &what).context(what)?;
            }
            fs::remove_dir_all(&found)?;
        }
    }
    Ok(())
}

/// Every file and folder, and a digest of what is in it.
fn files_of(folder: &Path, below: &Path) -> anyhow::Result<Vec<(PathBuf, BlobId)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder.join(below))? {
        let path = below.join(entry?.file_name());
        let mut content = Vec::new();
        match folder.join(&path).is_dir() {
            true => files.extend(files_of(folder, &path)?),
            false => content = fs::read(folder.join(&path))?,
        }
        files.push((path, BlobId::of(&content)));
    }
    files.sort();
    Ok(files)
}

#[track_caller]
fn assert_clean(repository: &Repository, what: &str) {
    let report = check_all(repository).unwrap();
    assert!(report.is_clean(), "{what}: {report:#?}");
}

/// The blobs that the two snapshots need.
fn blobs_of(repository: &Repository) -> HashSet<String> {
    let indexed = repository.load_index(&Run::new()).unwrap();
    indexed.index().iter().map(|at| format!("{:?}{}", at.blob.kind, at.blob.id)).collect()
}

/// What `work` stored is what of `needed` had not survived, each once.
#[track_caller]
fn assert_nothing_twice(
    needed: &HashSet<String>,
    survived: &HashSet<String>,
    report: &CopyReport,
    what: &str,
) {
    let lost = needed.difference(survived).count() as u64;
    assert_eq!(report.stats.data_blobs + report.stats.tree_blobs, lost, "{what}");
}

#[test]
fn a_power_failure_at_any_moment_of_a_copy_loses_nothing_and_sends_nothing_again()
-> anyhow::Result<()> {
    let scratch = Scratch::new("power-copy")?;
    let files = scratch.join("files");
    let snapshots = two_snapshots(&scratch.join("source"), &files)?;
    let source = open_at(&scratch.join("source"))?;
    let needed = blobs_of(&source);
    // The target has a snapshot of its own, of other files.
    let (base, other) = (scratch.join("base"), scratch.join("other"));
    fs::create_dir(&other)?;
    fs::write(other.join("older"), noise(99, 30_000))?;
    let own = backup(&init_at(&base, Version::V2)?, options(&other))?;
    let own_id = own.id.context("a snapshot")?;
    let own_tree = source_tree(&open_at(&base)?, own.snapshot.tree, &other);

    let live = scratch.join("live");
    copy_folder(&base, &live);
    let changes = record(&live, "", |storage| {
        let target = Repository::open(storage, PASSWORD.as_bytes(), None)?;
        copy_in_turn(&source, &target, &snapshots, &dead())
    })?;
    let mut outcomes = BTreeSet::new();
    after_each(&scratch, &base, &changes, |found, what| {
        let target = open_unsynced(found)?;
        assert_clean(&target, what);
        let still = source_tree(&target, target.snapshot(own_id)?.tree, &other);
        assert_eq!(still, own_tree, "{what}");
        outcomes.insert(target.snapshot_ids()?.len());

        let survived = stored_blobs(&target);
        let report = copy_into(&source, &target, &snapshots, &Environment::detect())?;
        assert_nothing_twice(&needed, &survived, &report, what);
        assert_eq!(report.copied.len() + report.skipped.len(), 2, "{what}");
        let target = open_at(found)?;
        assert_clean(&target, what);
        let trees: HashSet<_> =
            target.snapshots()?.into_iter().map(|(_, snapshot)| snapshot.tree).collect();
        assert_eq!(target.snapshot_ids()?.len(), 3, "{what}");
        assert!(snapshots.iter().all(|(_, snapshot)| trees.contains(&snapshot.tree)), "{what}");
        Ok(())
    })?;
    assert_eq!(outcomes, BTreeSet::from([1, 2, 3]), "crashes before, between and after");
    Ok(())
}

/// One round of a rotation into `storage`.
fn rotate_into(
    old: &Repository,
    storage: Arc<dyn Storage>,
    snapshots: &[Entry],
    environment: &Environment,
) -> anyhow::Result<CopyReport> {
    let password = PASSWORD.as_bytes().to_vec().into();
    let new = rotate::begin(old, storage, &password, Cost::FOR_TESTS, environment.author())?;
    copy_into(old, &new, snapshots, environment)
}

fn prove(old: &Repository, path: &Path) -> anyhow::Result<Proof> {
    let password = PASSWORD.as_bytes().to_vec().into();
    let new = rotate::open(old, Arc::new(LocalStorage::new(path)), &password)?;
    Ok(rotate::verify(old, &new, ReadData::All, None, &Run::new())?)
}

#[test]
fn a_power_failure_at_any_moment_of_a_key_rotation_is_gone_on_from() -> anyhow::Result<()> {
    let scratch = Scratch::new("power-rotation")?;
    let snapshots = two_snapshots(&scratch.join("old"), &scratch.join("files"))?;
    let old = open_at(&scratch.join("old"))?;
    let needed = blobs_of(&old);
    // The new repository's folder is made by the rotation.
    let (base, live) = (scratch.join("base"), scratch.join("live"));
    fs::create_dir(&base)?;
    fs::create_dir(&live)?;
    let changes = record(&live, "new", |storage| {
        let _first = rotate_into(&old, Arc::clone(&storage), &snapshots[..1], &dead())?;
        rotate_into(&old, storage, &snapshots, &dead()).map(drop)
    })?;
    let mut outcomes = BTreeSet::new();
    after_each(&scratch, &base, &changes, |found, what| {
        let path = found.join("new");
        let mut survived = HashSet::new();
        if rotate::exists(&LocalStorage::new(&path))? {
            let proof = prove(&old, &path)?;
            assert!(proof.check.is_clean(), "{what}: {:#?}", proof.check);
            let standing = &proof.standing;
            assert_eq!(standing.there.len() + standing.missing.len(), 2, "{what}");
            assert!(standing.only_new.is_empty(), "{what}");
            outcomes.insert(Some(standing.there.len()));
            survived = stored_blobs(&open_at(&path)?);
        } else {
            outcomes.insert(None);
        }
        let storage = recorded(found, "new").0;
        let report = rotate_into(&old, storage, &snapshots, &Environment::detect())?;
        assert_nothing_twice(&needed, &survived, &report, what);
        let proof = prove(&old, &path)?;
        assert!(proof.is_complete() && proof.standing.only_new.is_empty(), "{what}");
        Ok(())
    })?;
    let all = BTreeSet::from([None, Some(0), Some(1), Some(2)]);
    assert_eq!(outcomes, all, "crashes before, between and after");
    assert_clean(&old, "the old one is as it was");
    Ok(())
}
