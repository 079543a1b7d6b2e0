//! Forget and prune: kept snapshots restore, whatever happens in between.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use muster_model::{BackupKind, Class, Fault};
use muster_repository::{
    backup::BackupOptions,
    check::{CheckOptions, ReadData, check},
    environment::Environment,
    forget::forget,
    format::{config::Version, pack::BlobKind, time::Timestamp},
    id::{BlobId, PackId, SnapshotId},
    lock::{Lock, LockKind},
    prune::{Limit, PruneError, PruneOptions, PruneReport, prune},
    repository::Repository,
    run::Run,
    storage::{
        File, FileKind, LocalStorage, Storage,
        unreliable::{Faults, Unreliable},
    },
};
use muster_testkit::{peers, wait_for};
use proptest::prelude::*;

use crate::{
    common::{PASSWORD, Sandbox, assert_clean, backup, open_at, restic, source_tree},
    crash::{Kept, RecordingDisk, copy_folder, crash, noise},
};

/// Seconds between a mark and its deletion that these tests wait for.
const DAY_S: i64 = 24 * 60 * 60;

/// A repository, a source that changes, and a clock.
struct World {
    sandbox: Sandbox,
    source: PathBuf,
    now_s: i64,
    /// What each snapshot held: the tree of the source folder.
    trees: BTreeMap<SnapshotId, BlobId>,
    round: u64,
    files: u64,
}

impl World {
    fn new(name: &str) -> anyhow::Result<Self> {
        let sandbox = Sandbox::new(name)?;
        let source = sandbox.folder("source")?;
        sandbox.init(Version::V2)?;
        let trees = BTreeMap::new();
        Ok(Self { sandbox, source, now_s: 1_700_000_000, trees, round: 0, files: 12 })
    }

    fn open(&self) -> anyhow::Result<Repository> {
        self.sandbox.open()
    }

    /// Changes some files: those whose number is a multiple of `every`.
    fn change(&mut self, every: u64) -> anyhow::Result<()> {
        self.round += 1;
        for n in (0..self.files).filter(|n| n % every == 0 || self.round == 1) {
            let folder = self.source.join(format!("folder{}", n % 3));
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(format!("file{n}")), noise(self.round * 100 + n, 20_000))?;
        }
        Ok(())
    }

    fn backup(&mut self) -> anyhow::Result<SnapshotId> {
        let repository = self.open()?;
        let report = backup(&repository, backup_options(&self.source))?;
        let id = report.id.unwrap();
        self.trees.insert(id, source_tree(&repository, report.snapshot.tree, &self.source));
        Ok(id)
    }

    fn forget(&mut self, ids: &[SnapshotId]) -> anyhow::Result<()> {
        forget_in(&self.open()?, ids)?;
        self.trees.retain(|id, _| !ids.contains(id));
        Ok(())
    }

    fn prune(&self) -> Result<PruneReport, PruneError> {
        prune_with(&self.open().unwrap(), &self.options())
    }

    /// Options that repack every waste, at the world's time.
    fn options(&self) -> PruneOptions {
        options_at(self.now_s)
    }

    /// Everything that is kept can be read, and is what it was.
    #[track_caller]
    fn assert_sound(&self) {
        assert_sound_at(&self.sandbox.repository_path(), &self.source, &self.trees, "");
    }

    fn bytes(&self, kind: FileKind) -> anyhow::Result<u64> {
        let listed = self.open()?.storage().list(kind)?;
        Ok(listed.iter().map(|listed| listed.bytes).sum())
    }
}

fn backup_options(source: &Path) -> BackupOptions {
    let mut options = BackupOptions::new(vec![source.to_path_buf()]);
    options.packs.pack_bytes = 64 << 10;
    options.kind = BackupKind::Full;
    options
}

fn options_at(now_s: i64) -> PruneOptions {
    let mut options = PruneOptions { max_unused: Limit::Bytes(0), ..PruneOptions::default() };
    options.packs.pack_bytes = 64 << 10;
    options.now = Some(Timestamp::new(now_s, 0, 0));
    options
}

fn forget_in(repository: &Repository, ids: &[SnapshotId]) -> anyhow::Result<()> {
    let (environment, run) = (Environment::detect(), Run::new());
    let lock = Lock::acquire(repository, LockKind::Exclusive, Duration::ZERO, &environment, &run)?;
    let report = forget(repository, &lock, ids, &[], &run)?;
    anyhow::ensure!(report.failed.is_empty());
    lock.release()?;
    Ok(())
}

fn prune_with(repository: &Repository, options: &PruneOptions) -> Result<PruneReport, PruneError> {
    prune(repository, options, &Environment::detect(), &Run::new())
}

#[track_caller]
fn assert_sound_at(path: &Path, source: &Path, trees: &BTreeMap<SnapshotId, BlobId>, what: &str) {
    let repository = open_at(path).unwrap();
    let report = check(&repository, &CheckOptions { read_data: ReadData::All }, &Run::new());
    let report = report.unwrap();
    assert!(report.is_clean(), "{what}: {report:#?}");
    for (id, tree) in trees {
        let snapshot = repository.snapshot(*id).unwrap();
        assert_eq!(source_tree(&repository, snapshot.tree, source), *tree, "{what}");
    }
}

/// Three snapshots, the first of which is forgotten: whole packs are waste, others partly.
fn world_with_waste(name: &str) -> anyhow::Result<World> {
    with_waste(World::new(name)?)
}

fn with_waste(mut world: World) -> anyhow::Result<World> {
    world.change(1)?;
    let first = world.backup()?;
    world.change(2)?;
    world.backup()?;
    world.change(5)?;
    world.backup()?;
    world.forget(&[first])?;
    Ok(world)
}

#[test]
fn waste_is_marked_first_and_deleted_after_the_grace_period() -> anyhow::Result<()> {
    let mut world = world_with_waste("prune-phases")?;
    let before = world.bytes(FileKind::Pack)?;

    let report = world.prune()?;
    assert!(report.repacked.packs > 0 && report.marked.packs >= report.repacked.packs);
    assert_eq!((report.deleted.packs, report.waiting), (0, report.marked), "{report:?}");
    assert!(world.bytes(FileKind::Pack)? > before, "nothing was deleted, and some was copied");
    world.assert_sound();

    world.now_s += DAY_S / 2;
    let report = world.prune()?;
    assert_eq!((report.marked.packs, report.deleted.packs), (0, 0), "{report:?}");

    world.now_s += DAY_S / 2;
    let report = world.prune()?;
    assert!(report.deleted.packs > 0 && report.waiting.packs == 0, "{report:?}");
    let after = world.bytes(FileKind::Pack)?;
    assert!(after < before, "{after} of {before} bytes");
    world.assert_sound();

    // The marks of what is gone leave the index, and then there is nothing to do.
    let report = world.prune()?;
    assert_eq!((report.marked.packs, report.deleted.packs), (0, 0), "{report:?}");
    let report = world.prune()?;
    assert_eq!(report.index_files, (0, 0), "{report:?}");
    assert_eq!(report.unused_bytes, 0);
    world.assert_sound();
    if let Some(peer) = peers::require("restic") {
        restic(&peer, &world.sandbox, &["check", "--read-data"])?;
        let said = restic(&peer, &world.sandbox, &["prune", "--dry-run", "--max-unused", "0"])?;
        let words: Vec<&str> = said.split_whitespace().collect();
        assert!(words.join(" ").contains("to delete: 0 blobs / 0 B"), "{said}");
    }
    Ok(())
}

#[test]
fn an_instant_prune_leaves_nothing_waiting() -> anyhow::Result<()> {
    let world = world_with_waste("prune-instant")?;
    let before = world.bytes(FileKind::Pack)?;
    let options = PruneOptions { instant: true, ..world.options() };
    let report = prune_with(&world.open()?, &options)?;
    assert_eq!((report.deleted, report.waiting.packs), (report.marked, 0));
    assert!(report.deleted.packs > 0 && world.bytes(FileKind::Pack)? < before);
    world.assert_sound();
    Ok(())
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() -> anyhow::Result<()> {
    let world = world_with_waste("prune-dry")?;
    let files = |kind| world.open().unwrap().storage().list(kind).unwrap();
    let before = (files(FileKind::Pack), files(FileKind::Index));
    let said = prune_with(&world.open()?, &PruneOptions { dry_run: true, ..world.options() })?;
    assert_eq!(before, (files(FileKind::Pack), files(FileKind::Index)));
    let done = world.prune()?;
    assert_eq!((said.marked, said.repacked), (done.marked, done.repacked));
    assert_eq!((said.used_bytes, said.unused_bytes), (done.used_bytes, done.unused_bytes));
    Ok(())
}

#[test]
fn limits_bound_what_is_repacked() -> anyhow::Result<()> {
    let world = world_with_waste("prune-limits")?;
    let dry = |options: PruneOptions| {
        let options = PruneOptions { dry_run: true, ..options };
        prune_with(&world.open().unwrap(), &options).unwrap()
    };
    let all = dry(world.options());
    let none = dry(PruneOptions { max_repack_bytes: Some(0), ..world.options() });
    assert_eq!(none.repacked.packs, 0);
    assert!(none.marked.packs > 0 || none.waste_left_bytes > 0);
    let lax = dry(PruneOptions { max_unused: Limit::Unlimited, ..world.options() });
    assert!(lax.repacked.packs < all.repacked.packs, "only trees: {lax:?}");
    let some = dry(PruneOptions { max_repack_bytes: Some(70 << 10), ..world.options() });
    assert!(some.repacked.bytes <= 70 << 10);
    let trees = dry(PruneOptions { repack_cacheable_only: true, ..world.options() });
    assert_eq!(trees.repacked, lax.repacked);
    Ok(())
}

/// Somebody without locks refers to a pack that was marked meanwhile.
#[test]
fn a_marked_pack_that_is_used_again_is_put_back() -> anyhow::Result<()> {
    let mut world = World::new("prune-recover")?;
    world.change(1)?;
    let first = world.backup()?;
    world.change(2)?;
    world.backup()?;
    let storage = LocalStorage::new(world.sandbox.repository_path());
    let file = storage.read(File::Snapshot(first), 1 << 20)?;
    let tree = world.trees[&first];
    world.forget(&[first])?;
    let marked = world.prune()?.marked;
    assert!(marked.packs > 0);
    storage.put(File::Snapshot(first), &file)?;
    world.trees.insert(first, tree);

    world.now_s += DAY_S;
    let report = world.prune()?;
    assert!(report.recovered.packs > 0, "{report:?}");
    world.assert_sound();
    world.now_s += DAY_S;
    let _ = world.prune()?;
    world.assert_sound();
    if let Some(peer) = peers::require("restic") {
        restic(&peer, &world.sandbox, &["check", "--read-data"])?;
    }
    Ok(())
}

/// restic drops the marks when it prunes, and deletes the packs; and what Muster marked while it
/// was not looking it never missed.
#[test]
fn restic_prunes_before_and_after() -> anyhow::Result<()> {
    let Some(peer) = peers::require("restic") else { return Ok(()) };
    let mut world = world_with_waste("prune-restic")?;
    let report = world.prune()?;
    assert!(report.waiting.packs > 0);
    restic(&peer, &world.sandbox, &["check", "--read-data"])?;
    restic(&peer, &world.sandbox, &["backup", &world.source.display().to_string()])?;
    restic(&peer, &world.sandbox, &["prune"])?;
    world.assert_sound();
    let report = world.prune()?;
    assert_eq!(report.waiting.packs, 0, "restic deleted what was marked: {report:?}");
    world.change(2)?;
    let id = world.backup()?;
    world.forget(&[id])?;
    let _ = world.prune()?;
    world.now_s += DAY_S;
    restic(&peer, &world.sandbox, &["rebuild-index"])?;
    let report = world.prune()?;
    assert_eq!(report.deleted.packs, 0, "the index lists them again: {report:?}");
    world.now_s += DAY_S;
    assert!(world.prune()?.deleted.packs > 0);
    world.assert_sound();
    restic(&peer, &world.sandbox, &["check", "--read-data"])?;
    Ok(())
}

/// A backup that runs holds a shared lock: the first phase works beside it, the second is refused
/// and leaves everything sound.
#[test]
fn a_prune_beside_a_backup_removes_nothing() -> anyhow::Result<()> {
    let world = world_with_waste("prune-beside")?;
    let repository = world.open()?;
    let run = Run::new();
    let environment = Environment::detect();
    let running = Lock::acquire(&repository, LockKind::Shared, Duration::ZERO, &environment, &run)?;
    let packs = repository.storage().list(FileKind::Pack)?;
    let error = world.prune().unwrap_err();
    assert_eq!(error.code(), "locked");
    let after = repository.storage().list(FileKind::Pack)?;
    assert!(packs.iter().all(|pack| after.contains(pack)) && after.len() > packs.len());
    world.assert_sound();
    running.release()?;
    // What was repacked is used, not done again.
    let report = world.prune()?;
    assert_eq!(report.repacked.packs, 0, "{report:?}");
    assert!(report.marked.packs > 0);
    world.assert_sound();
    Ok(())
}

/// A damaged blob keeps its pack; everything else is repacked.
#[test]
fn damage_keeps_its_pack() -> anyhow::Result<()> {
    // Which file is in which pack is left to chance: of so many packs, some are needed in part.
    let world = with_waste(World { files: 96, ..World::new("prune-damage")? })?;
    let repository = world.open()?;
    let options = PruneOptions { dry_run: true, ..world.options() };
    let planned = prune_with(&repository, &options)?.repacked.packs;
    assert!(planned > 1);
    // Every blob of data: of some packs some are needed.
    for listed in repository.storage().list(FileKind::Pack)? {
        let path = world.sandbox.repository_path().join(listed.file.to_string());
        let mut content = fs::read(&path)?;
        if content.len() < 40_000 {
            continue;
        }
        content.iter_mut().step_by(20_032).for_each(|byte| *byte ^= 1);
        fs::remove_file(&path)?;
        fs::write(&path, content)?;
    }
    let report = world.prune()?;
    assert!(!report.damaged.is_empty(), "{report:?}");
    assert!(report.repacked.packs + report.damaged.len() as u64 == planned, "{report:?}");
    let there = repository.storage().list(FileKind::Pack)?;
    for (pack, _) in &report.damaged {
        assert!(there.iter().any(|listed| listed.file == File::Pack(*pack)));
    }
    Ok(())
}

#[test]
fn a_missing_pack_or_index_stops_everything() -> anyhow::Result<()> {
    let world = world_with_waste("prune-missing")?;
    let repository = world.open()?;
    let index = repository.storage().list(FileKind::Index)?;
    let last = index.iter().max_by_key(|listed| listed.bytes).unwrap().file;
    let content = repository.storage().read(last, 1 << 20)?;
    repository.storage().delete(last)?;
    let error = world.prune().unwrap_err();
    assert_eq!(error.code(), "blob-missing");
    repository.storage().put(last, &content)?;
    let indexed = repository.load_index(&Run::new())?;
    let is_data = |pack: &PackId| {
        indexed.index().pack_blobs(pack).iter().all(|blob| blob.kind == BlobKind::Data)
    };
    for pack in indexed.index().packs().filter(is_data) {
        repository.storage().delete(File::Pack(pack))?;
    }
    assert_eq!(world.prune().unwrap_err().code(), "packs-lost");
    for pack in indexed.index().packs().filter(|pack| !is_data(pack)) {
        repository.storage().delete(File::Pack(pack))?;
    }
    assert_eq!(world.prune().unwrap_err().class(), Class::Corrupt);
    assert!(repository.storage().list(FileKind::Index)?.len() >= index.len());
    Ok(())
}

/// The store stops at the n-th write or delete, for every n, in both phases.
#[test]
fn a_prune_that_stops_at_any_write_harms_nothing() -> anyhow::Result<()> {
    let mut world = world_with_waste("prune-stop")?;
    // Some packs wait already, so that one prune marks and deletes.
    let _ = world.prune()?;
    world.change(2)?;
    let extra = world.backup()?;
    world.change(5)?;
    world.backup()?;
    world.forget(&[extra])?;
    world.now_s += DAY_S;
    for instant in [false, true] {
        let mut completed = false;
        for stop_at_write in 1..200 {
            let path = world.sandbox.join(&format!("stop-{instant}-{stop_at_write}"));
            copy_folder(&world.sandbox.repository_path(), &path);
            let faults = Faults { stop_at_write, ..Faults::default() };
            let storage = Arc::new(Unreliable::new(Arc::new(LocalStorage::new(&path)), faults));
            let repository = open_at(&path)?.on(storage);
            let options = PruneOptions { instant, ..world.options() };
            let dead = Environment { pid: 1 << 23, ..Environment::detect() };
            let result = prune(&repository, &options, &dead, &Run::new());
            let what = format!("instant {instant}, stopped at write {stop_at_write}");
            assert_sound_at(&path, &world.source, &world.trees, &what);
            // The next prune, after the lock was removed, completes what was begun.
            let repository = open_at(&path)?;
            muster_repository::lock::remove_stale(&repository, &Environment::detect())?;
            for days in [0, 1] {
                let options = PruneOptions { instant, ..options_at(world.now_s + days * DAY_S) };
                let _ = prune_with(&repository, &options)?;
            }
            assert_sound_at(&path, &world.source, &world.trees, &what);
            fs::remove_dir_all(&path)?;
            if result.is_ok() {
                completed = true;
                break;
            }
        }
        assert!(completed, "without a stop the prune completes");
    }
    Ok(())
}

/// Power fails after every change to the disk, with several ideas of what it kept.
#[test]
fn a_power_failure_at_any_moment_of_a_prune_harms_nothing() -> anyhow::Result<()> {
    let world = world_with_waste("prune-power")?;
    for instant in [false, true] {
        let base = world.sandbox.join(&format!("base-{instant}"));
        copy_folder(&world.sandbox.repository_path(), &base);
        let live = world.sandbox.join(&format!("live-{instant}"));
        copy_folder(&base, &live);
        let record = Arc::new(Mutex::new(Vec::new()));
        let disk = RecordingDisk { root: live.clone(), record: Arc::clone(&record) };
        let storage = Arc::new(LocalStorage::with_disk(&live, disk));
        let recorded = Repository::open(storage, PASSWORD.as_bytes(), None)?;
        let dead = Environment { pid: 1 << 23, ..Environment::detect() };
        // One prune that marks, and one that deletes.
        for days in [0, 1] {
            let options = PruneOptions { instant, ..options_at(world.now_s + days * DAY_S) };
            let _ = prune(&recorded, &options, &dead, &Run::new())?;
        }
        let changes = record.lock().unwrap().clone();
        assert!(changes.len() > 30, "{} changes", changes.len());
        for n in 0..=changes.len() {
            for (p, kept) in
                [Kept::All, Kept::Nothing, Kept::TornContent, Kept::Some(1), Kept::Some(2)]
                    .into_iter()
                    .enumerate()
            {
                let what = format!("instant {instant}, after {n} changes, kept {kept:?}");
                let found = world.sandbox.join(&format!("crash-{instant}-{n}-{p}"));
                crash(&base, &changes, n, kept, &found);
                assert_sound_at(&found, &world.source, &world.trees, &what);
                let repository = open_at(&found)?;
                muster_repository::lock::remove_stale(&repository, &Environment::detect())?;
                let later = options_at(world.now_s + 3 * DAY_S);
                let _ = prune_with(&repository, &PruneOptions { instant: true, ..later })?;
                assert_sound_at(&found, &world.source, &world.trees, &what);
                fs::remove_dir_all(&found)?;
            }
        }
    }
    Ok(())
}

/// Two prunes and a backup at once: whoever is refused is told so, and nothing is lost.
#[test]
fn prunes_and_backups_at_once_lose_nothing() -> anyhow::Result<()> {
    let mut world = world_with_waste("prune-at-once")?;
    let path = world.sandbox.repository_path();
    for round in 0..4_i64 {
        world.change(3)?;
        let options =
            PruneOptions { keep_delete: Duration::ZERO, ..options_at(world.now_s + round) };
        let source = world.source.clone();
        let made = thread::scope(|scope| {
            let prunes: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| prune_with(&open_at(&path).unwrap(), &options)))
                .collect();
            let backup = scope.spawn(|| {
                let repository = open_at(&path).unwrap();
                let try_it = || backup(&repository, backup_options(&source)).ok();
                let minute = Duration::from_secs(60);
                let report = wait_for("a backup that is not refused", minute, try_it).unwrap();
                let tree = source_tree(&repository, report.snapshot.tree, &source);
                (report.id.unwrap(), tree)
            });
            for prune in prunes {
                if let Err(error) = prune.join().unwrap() {
                    let known = ["locked", "overtaken", "storage-not-found"];
                    assert!(known.contains(&error.code()), "{error}");
                }
            }
            backup.join().unwrap()
        });
        world.trees.insert(made.0, made.1);
        world.assert_sound();
    }
    let oldest: Vec<_> = world.trees.keys().copied().take(3).collect();
    world.forget(&oldest)?;
    let _ = prune_with(
        &world.open()?,
        &PruneOptions { keep_delete: Duration::ZERO, ..world.options() },
    )?;
    world.assert_sound();
    assert_clean(&world.open()?);
    Ok(())
}

/// What may happen to a repository.
#[derive(Debug, Clone)]
enum Event {
    Backup { every: u64 },
    Forget { which: prop::sample::Index },
    Prune { max_unused: Limit, instant: bool, small: bool },
    Restic(&'static str),
    Pass { hours: i64 },
}

fn any_event() -> impl Strategy<Value = Event> {
    let limit =
        prop_oneof![Just(Limit::Bytes(0)), Just(Limit::Percent(20.0)), Just(Limit::Unlimited)];
    let prune = (limit, prop::bool::weighted(0.2), any::<bool>())
        .prop_map(|(max_unused, instant, small)| Event::Prune { max_unused, instant, small });
    prop_oneof![
        4 => (1..6_u64).prop_map(|every| Event::Backup { every }),
        3 => any::<prop::sample::Index>().prop_map(|which| Event::Forget { which }),
        4 => prune,
        1 => prop::sample::select(vec!["prune", "check", "rebuild-index"]).prop_map(Event::Restic),
        3 => (1..30_i64).prop_map(|hours| Event::Pass { hours }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn every_kept_snapshot_restores_whatever_happened(
        events in prop::collection::vec(any_event(), 4..14),
    ) {
        let peer = peers::require("restic");
        let mut world = World::new("prune-events").unwrap();
        for event in events {
            match &event {
                Event::Backup { every } => {
                    world.change(*every).unwrap();
                    world.backup().unwrap();
                }
                Event::Forget { which } => {
                    if let Some(id) = world.trees.keys().nth(which.index(world.trees.len().max(1))) {
                        world.forget(&[*id]).unwrap();
                    }
                }
                Event::Prune { max_unused, instant, small } => {
                    let options = PruneOptions {
                        max_unused: *max_unused,
                        instant: *instant,
                        repack_small: *small,
                        ..world.options()
                    };
                    let _ = prune_with(&world.open().unwrap(), &options).unwrap();
                }
                Event::Restic(verb) => {
                    if let Some(peer) = &peer {
                        restic(peer, &world.sandbox, &[verb]).unwrap();
                    }
                }
                Event::Pass { hours } => world.now_s += hours * 3600,
            }
            world.assert_sound();
        }
        if let Some(peer) = &peer {
            restic(peer, &world.sandbox, &["check", "--read-data"]).unwrap();
        }
    }
}
