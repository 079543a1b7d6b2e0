//! Power failure at every step of a backup.
//!
//! One backup runs on a disk that records each change it is asked for. Then, for every prefix
//! of these changes and several ideas of what a disk may have kept of what was not synced, a
//! folder is made as it would be found after the crash. In each: `check` is clean, the older
//! snapshot is whole, and the next backup stores only what did not survive.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use muster_model::{BackupKind, Class, Fault};
use muster_repository::{
    backup::{BackupOptions, backup},
    check::{CheckOptions, ReadData, check},
    environment::Environment,
    format::{
        config::Version,
        key_file::Cost,
        pack::{header_span, read_header},
    },
    id::PackId,
    repository::{InitOptions, Repository},
    run::Run,
    storage::{
        Disk, FileKind, LocalStorage, NewFile, RealDisk, Storage,
        memory::MemoryStorage,
        unreliable::{Faults, Unreliable},
    },
};
use muster_testkit::Scratch;

use crate::common::{PASSWORD, backup as back_up, init_at, open_at, source_tree};

/// A change to the disk. Paths are relative to the repository.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    CreateDir(PathBuf),
    Write(PathBuf, Vec<u8>),
    Append(PathBuf, Vec<u8>),
    SyncFile(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDir(PathBuf),
}

/// Does everything for real and keeps a record.
#[derive(Debug, Clone)]
pub(crate) struct RecordingDisk {
    pub(crate) root: PathBuf,
    pub(crate) record: Arc<Mutex<Vec<Change>>>,
}

impl RecordingDisk {
    fn note(&self, change: impl FnOnce(&dyn Fn(&Path) -> PathBuf) -> Change) {
        let relative = |path: &Path| path.strip_prefix(&self.root).unwrap().to_path_buf();
        self.record.lock().unwrap().push(change(&relative));
    }
}

impl Disk for RecordingDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.note(|relative| Change::CreateDir(relative(path)));
        RealDisk.create_dir(path)
    }

    fn write_new(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        RealDisk.write_new(path, content)?;
        self.note(|relative| Change::Write(relative(path), content.to_vec()));
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let file = RealDisk.create(path)?;
        self.note(|relative| Change::Write(relative(path), Vec::new()));
        Ok(Box::new(RecordingFile { disk: self.clone(), path: path.to_path_buf(), file }))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.note(|relative| Change::SyncFile(relative(path)));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(|relative| Change::Rename(relative(from), relative(to)));
        RealDisk.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(|relative| Change::Rename(relative(from), relative(to)));
        RealDisk.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.note(|relative| Change::Remove(relative(path)));
        RealDisk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.note(|relative| Change::SyncDir(relative(path)));
        Ok(())
    }
}

/// A file of a [`RecordingDisk`] that is written in pieces.
struct RecordingFile {
    disk: RecordingDisk,
    path: PathBuf,
    file: Box<dyn NewFile>,
}

impl io::Write for RecordingFile {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.file.write_all(piece)?;
        self.disk.note(|relative| Change::Append(relative(&self.path), piece.to_vec()));
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for RecordingFile {
    fn sync(&mut self) -> io::Result<u64> {
        self.disk.note(|relative| Change::SyncFile(relative(&self.path)));
        Ok(fs::metadata(&self.path)?.len())
    }
}

/// What a disk keeps of changes that were not synced when the power failed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kept {
    /// All of them: only the process died.
    All,
    /// None: neither content nor names.
    Nothing,
    /// The names, with half of the content.
    TornContent,
    /// The names, with the right length and zeros for content.
    Zeros,
    /// Some, as this seed says: names in another order than they were made, content or not.
    Some(u64),
}

impl Kept {
    /// Whether the unsynced name change number `n` survived.
    fn name(self, n: usize) -> bool {
        match self {
            Self::All | Self::TornContent | Self::Zeros => true,
            Self::Nothing => false,
            Self::Some(seed) => coin(seed, n) & 1 == 1,
        }
    }

    /// What survived of the unsynced content of write number `n`.
    fn content(self, n: usize, content: &[u8]) -> Vec<u8> {
        match self {
            Self::All => content.to_vec(),
            Self::Nothing => Vec::new(),
            Self::TornContent => content[..content.len() / 2].to_vec(),
            Self::Zeros => vec![0; content.len()],
            Self::Some(seed) => match coin(seed, n) >> 1 & 3 {
                0 => content.to_vec(),
                1 => content[..content.len() / 3].to_vec(),
                2 => vec![0; content.len()],
                _ => Vec::new(),
            },
        }
    }
}

fn coin(seed: u64, n: usize) -> u64 {
    let mut x = (seed << 32 | n as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Builds at `target` what is found after the first `n` changes to `base`.
pub(crate) fn crash(base: &Path, changes: &[Change], n: usize, kept: Kept, target: &Path) {
    copy_folder(base, target);
    let done = &changes[..n];
    let folder = |path: &Path| path.parent().unwrap().to_path_buf();
    // Index of the last sync of each folder and file.
    let mut synced: BTreeMap<(bool, PathBuf), usize> = BTreeMap::new();
    for (i, change) in done.iter().enumerate() {
        match change {
            Change::SyncDir(path) => synced.insert((true, path.clone()), i),
            Change::SyncFile(path) => synced.insert((false, path.clone()), i),
            _ => None,
        };
    }
    let durable = |is_dir: bool, path: &Path, i: usize| {
        synced.get(&(is_dir, path.to_path_buf())).is_some_and(|&sync| sync > i)
    };
    // Files whose content was synced and whose first name did not survive: a later one may.
    let mut nameless: BTreeMap<&Path, Vec<u8>> = BTreeMap::new();
    for (i, change) in done.iter().enumerate() {
        let survives = |path: &Path| durable(true, &folder(path), i) || kept.name(i);
        match change {
            Change::CreateDir(path) if survives(path) => {
                // A folder whose parent did not survive did not either.
                let _ = fs::create_dir(target.join(path));
            }
            Change::Write(path, content) if survives(path) => {
                let kept = match durable(false, path, i) {
                    true => content.clone(),
                    false => kept.content(i, content),
                };
                let _ = fs::write(target.join(path), kept);
            }
            Change::Write(path, content) if durable(false, path, i) => {
                nameless.insert(path, content.clone());
            }
            Change::Append(path, content) => {
                let kept = match durable(false, path, i) {
                    true => content.clone(),
                    false => kept.content(i, content),
                };
                // Without name and sync, nothing is left to write to.
                if let Some(so_far) = nameless.get_mut(path.as_path()) {
                    so_far.extend(kept);
                } else if let Ok(mut file) =
                    fs::OpenOptions::new().append(true).open(target.join(path))
                {
                    file.write_all(&kept).unwrap();
                }
            }
            Change::Rename(from, to) if survives(to) => {
                let _ = match nameless.remove(from.as_path()) {
                    Some(content) => fs::write(target.join(to), content),
                    None => fs::rename(target.join(from), target.join(to)),
                };
            }
            Change::Remove(path) if survives(path) => {
                let _ = fs::remove_file(target.join(path));
            }
            _ => {}
        }
    }
}

/// Copies a repository; its files never change, so links will do.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => fs::hard_link(entry.path(), target).unwrap(),
        }
    }
}

pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    (0..length).map(|n| coin(seed, n).to_le_bytes()[0]).collect()
}

pub(crate) fn options(source: &Path) -> BackupOptions {
    let mut options = BackupOptions::new(vec![source.to_path_buf()]);
    // Small packs, so that there are several; every file is read, so that what is stored
    // depends on the repository alone.
    options.packs.pack_bytes = 64 << 10;
    options.kind = BackupKind::Full;
    options
}

/// The ids of all blobs in whole packs, indexed or not.
pub(crate) fn stored_blobs(repository: &Repository) -> HashSet<String> {
    let mut blobs = HashSet::new();
    for listed in repository.storage().list(FileKind::Pack).unwrap() {
        let content = repository.storage().read(listed.file, 1 << 30).unwrap();
        if listed.file.digest() != Some(*PackId::of(&content).as_bytes()) {
            continue;
        }
        let span = header_span(*content.last_chunk().unwrap(), listed.bytes).unwrap();
        let tail = &content[content.len() - span..];
        let header = read_header(repository.key(), tail, listed.bytes).unwrap();
        blobs.extend(header.iter().map(|blob| format!("{:?}{}", blob.kind, blob.id)));
    }
    blobs
}

#[track_caller]
fn assert_clean(repository: &Repository, what: &str) {
    let report = check(repository, &CheckOptions { read_data: ReadData::All }, &Run::new());
    let report = report.unwrap();
    assert!(report.is_clean(), "{what}: {report:#?}");
}

#[test]
fn a_power_failure_at_any_moment_loses_no_snapshot_and_no_stored_blob() -> anyhow::Result<()> {
    let scratch = Scratch::new("crash")?;
    let source = scratch.join("source");
    fs::create_dir_all(source.join("sub"))?;
    for n in 0..4_u64 {
        fs::write(source.join(format!("old{n}")), noise(n, 20_000))?;
    }
    let base = scratch.join("base");
    let repository = init_at(&base, Version::V2)?;
    let before = back_up(&repository, options(&source))?;
    let before_files = fs::read_dir(base.join("snapshots"))?.count();
    for n in 4..24_u64 {
        fs::write(source.join(format!("sub/new{n}")), noise(n, 30_000))?;
    }

    // The backup that will be interrupted, by a process that is gone afterwards.
    let live = scratch.join("live");
    copy_folder(&base, &live);
    let record = Arc::new(Mutex::new(Vec::new()));
    let disk = RecordingDisk { root: live.clone(), record: Arc::clone(&record) };
    let storage = Arc::new(LocalStorage::with_disk(&live, disk));
    let recorded = Repository::open(storage, PASSWORD.as_bytes(), None)?;
    let dead = Environment { pid: 1 << 23, ..Environment::detect() };
    let report = backup(&recorded, options(&source), &dead, &Run::new())?;
    let changes = record.lock().unwrap().clone();
    let all_blobs = stored_blobs(&recorded);
    let source_before = source_tree(&recorded, report.snapshot.tree, &source);
    let above = source.components().count() as u64;
    assert!(report.id.is_some() && changes.len() > 40, "{} changes", changes.len());

    let policies = [
        Kept::All,
        Kept::Nothing,
        Kept::TornContent,
        Kept::Zeros,
        Kept::Some(1),
        Kept::Some(2),
        Kept::Some(3),
    ];
    let mut outcomes = BTreeSet::new();
    for n in 0..=changes.len() {
        for (p, kept) in policies.into_iter().enumerate() {
            let what = format!("after {n} of {} changes, kept {kept:?}", changes.len());
            let found = scratch.join(format!("crash-{n}-{p}"));
            crash(&base, &changes, n, kept, &found);
            let repository = open_at(&found)?;
            assert_clean(&repository, &what);
            assert!(repository.snapshot(before.id.unwrap()).is_ok(), "{what}");
            let snapshots = fs::read_dir(found.join("snapshots"))?.count();
            outcomes.insert(snapshots - before_files);

            let survived = stored_blobs(&repository);
            let next = back_up(&repository, options(&source))?;
            let summary = next.snapshot.summary.as_ref().unwrap();
            let lost = |kind: &str| {
                let lost = all_blobs.difference(&survived).filter(|blob| blob.starts_with(kind));
                lost.count() as u64
            };
            assert_eq!(summary.data_blobs, lost("Data"), "{what}");
            // The folders above the source change all the time.
            assert!(summary.tree_blobs <= lost("Tree") + above, "{what}");
            let indexed = open_at(&found)?;
            assert_eq!(source_tree(&indexed, next.snapshot.tree, &source), source_before, "{what}");
            assert_clean(&open_at(&found)?, &what);
            fs::remove_dir_all(&found)?;
        }
    }
    assert_eq!(outcomes, BTreeSet::from([0, 1]), "crashes before and after the snapshot");
    Ok(())
}

/// A store that answers nothing any more from the n-th write on, for every n: the backup ends
/// with an error that says so, and never hangs; what was there before is untouched.
#[test]
fn a_store_that_stops_at_any_write_ends_the_backup() -> anyhow::Result<()> {
    let scratch = Scratch::new("stopping-store")?;
    let source = scratch.join("source");
    fs::create_dir_all(&source)?;
    for n in 0..20_u64 {
        fs::write(source.join(format!("file{n}")), noise(n, 50_000))?;
    }
    let large: Vec<u8> = (0..12).flat_map(|n| noise(100 + n, 1 << 20)).collect();
    fs::write(source.join("large"), large)?;
    let environment = Environment::detect();
    let mut completed = false;
    for stop_at_write in 1..500 {
        let inner = Arc::new(MemoryStorage::new());
        let author = environment.author();
        let cost = Cost::FOR_TESTS;
        let init = InitOptions { version: Version::V2, polynomial: None, cost, author };
        let repository = Repository::init(inner.clone(), PASSWORD.as_bytes(), init)?;
        let faults = Faults { stop_at_write, ..Faults::default() };
        let storage = Arc::new(Unreliable::new(Arc::clone(&inner), faults));
        let result = backup(
            &repository.clone().on(storage),
            options(&source),
            &Environment { pid: 1 << 23, ..environment.clone() },
            &Run::new(),
        );
        let snapshots = inner.list(FileKind::Snapshot)?.len();
        match result {
            Ok(report) => {
                assert!(report.id.is_some() && snapshots == 1);
                completed = true;
                break;
            }
            Err(error) => {
                assert_eq!(error.class(), Class::Transient, "write {stop_at_write}: {error}");
                // Only releasing the lock comes after the snapshot.
                assert!(snapshots == 0 || inner.list(FileKind::Lock)?.len() == 1);
            }
        }
        assert_clean(&repository, &format!("stopped at write {stop_at_write}"));
    }
    assert!(completed, "without a stop the backup completes");
    Ok(())
}

/// Reads that fail now and then are errors, never wrong data.
#[test]
fn failing_and_truncated_reads_are_told() -> anyhow::Result<()> {
    let inner = Arc::new(MemoryStorage::new());
    let environment = Environment::detect();
    let init = InitOptions {
        version: Version::V2,
        polynomial: None,
        cost: Cost::FOR_TESTS,
        author: environment.author(),
    };
    let repository = Repository::init(inner.clone(), PASSWORD.as_bytes(), init)?;
    let scratch = Scratch::new("failing-reads")?;
    fs::write(scratch.join("file"), noise(1, 100_000))?;
    let report = backup(&repository, options(&scratch.join("file")), &environment, &Run::new())?;
    for faults in [
        Faults { truncate_every: 1, ..Faults::default() },
        Faults { fail_every: 1, ..Faults::default() },
    ] {
        let faulty = repository.clone().on(Arc::new(Unreliable::new(inner.clone(), faults)));
        let tree = faulty
            .load_index(&Run::new())
            .and_then(|indexed| indexed.blob_reader()?.tree(report.snapshot.tree));
        assert!(tree.is_err());
    }
    Ok(())
}

/// A disk of which one write to a pack fails halfway, and all others succeed, as when space comes free.
#[derive(Debug, Clone)]
struct FailingOnce {
    writes_left: Arc<AtomicUsize>,
}

struct FailingOnceFile {
    disk: FailingOnce,
    file: Box<dyn NewFile>,
}

impl io::Write for FailingOnceFile {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.disk.writes_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.file.write_all(&piece[..piece.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(piece)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for FailingOnceFile {
    fn sync(&mut self) -> io::Result<u64> {
        self.file.sync()
    }
}

impl Disk for FailingOnce {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn write_new(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        RealDisk.write_new(path, content)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(FailingOnceFile { disk: self.clone(), file: RealDisk.create(path)? }))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        // The folders of packs lie on two file systems.
        match from.parent() == to.parent() {
            true => RealDisk.rename(from, to),
            false => Err(io::ErrorKind::CrossesDevices.into()),
        }
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
}

#[test]
fn a_pack_of_which_a_write_failed_is_never_stored() -> anyhow::Result<()> {
    let scratch = Scratch::new("failed-write")?;
    let source = scratch.join("source");
    fs::create_dir_all(&source)?;
    for n in 0..40_u64 {
        fs::write(source.join(format!("file{n}")), noise(n, 30_000))?;
    }
    let mut completed = false;
    for failing in 1..200 {
        let root = scratch.join(format!("repo{failing}"));
        init_at(&root, Version::V2)?;
        let disk = FailingOnce { writes_left: Arc::new(AtomicUsize::new(failing)) };
        let storage = Arc::new(LocalStorage::with_disk(&root, disk));
        let repository = Repository::open(storage, PASSWORD.as_bytes(), None)?;
        let result = back_up(&repository, options(&source));
        let leftovers = |name: &fs::DirEntry| name.file_name().to_string_lossy().contains("-tmp-");
        for folder in fs::read_dir(root.join("data"))? {
            let entries = fs::read_dir(folder?.path())?.collect::<io::Result<Vec<_>>>()?;
            assert!(!entries.iter().any(leftovers), "write {failing}");
        }
        let repository = open_at(&root)?;
        if let Err(error) = &result {
            let full = format!("{error:#}");
            assert!(full.contains("space"), "write {failing}: {full}");
            let report = back_up(&repository, options(&source))?;
            anyhow::ensure!(report.problems.is_empty());
        }
        assert_clean(&repository, &format!("failed at write {failing}"));
        fs::remove_dir_all(&root)?;
        if result.is_ok() {
            completed = true;
            break;
        }
    }
    assert!(completed, "without a failure the backup completes");
    Ok(())
}
