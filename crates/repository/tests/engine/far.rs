//! What each verb waits for, over a store at a distance: counted in round trips, which pass only
//! while everything else stands still (`storage::rounds`). At 50 ms, twenty of them are a second,
//! whatever the machine.

use std::{fs, path::Path, sync::Arc, time::Duration};

use muster_repository::{
    backup::BackupOptions,
    check::{CheckOptions, ReadData, check},
    copy::{Target, copy},
    environment::Environment,
    forget::forget,
    format::{config::Version, key_file::Cost, time::Timestamp},
    lock::{Lock, LockKind},
    packer::PackOptions,
    prune::{Limit, PruneOptions, prune},
    repository::{InitOptions, Repository},
    restore::{RestoreOptions, restore},
    run::Run,
    select::{self, Glance, SnapshotFilter},
    storage::{Costs, FileKind, Storage as _, memory::MemoryStorage, rounds::Rounds},
    tree_walk::TreeWalk,
};
use muster_testkit::Scratch;

use crate::{
    common::{PASSWORD, backup},
    crash::noise,
};

const CONNECTIONS: usize = 10;

/// Smaller than any that a person may ask for, so that there are many.
const PACK_BYTES: u32 = 1 << 20;

/// A repository behind a distance.
struct Far {
    memory: Arc<MemoryStorage>,
}

impl Far {
    fn new() -> Self {
        let memory = Arc::new(MemoryStorage::new());
        let author = Environment::detect().author();
        let cost = Cost::FOR_TESTS;
        let options = InitOptions { version: Version::V2, polynomial: None, cost, author };
        Repository::init(memory.clone(), PASSWORD.as_bytes(), options).unwrap();
        Self { memory }
    }

    /// Does something, and opens the repository before. Fails when that took more than `most` round
    /// trips.
    #[track_caller]
    fn check<T>(&self, verb: &str, most: u64, act: impl FnOnce(&Repository) -> T) -> T {
        self.check_with(CONNECTIONS, verb, most, act)
    }

    #[track_caller]
    fn check_with<T>(
        &self,
        connections: usize,
        verb: &str,
        most: u64,
        act: impl FnOnce(&Repository) -> T,
    ) -> T {
        let latency = Duration::from_millis(50);
        let costs = Costs { latency, bytes_per_s: 20 << 20, connections };
        let storage = Rounds::new(Arc::clone(&self.memory), costs);
        let repository = Repository::open(storage.clone(), PASSWORD.as_bytes(), None).unwrap();
        let done = act(&repository);
        drop(repository);
        let (rounds, trace) = (storage.rounds(), storage.trace());
        assert!(rounds <= most, "{verb} takes {rounds} round trips, not {most}:\n{trace}");
        done
    }
}

fn backup_options(source: &Path) -> BackupOptions {
    let mut options = BackupOptions::new(vec![source.to_path_buf()]);
    options.packs.pack_bytes = PACK_BYTES;
    options
}

/// `folders` folders of small files, and noise for no more packs than there are connections, however
/// chance cuts it: none takes a trip of its own.
fn make_source(source: &Path, folders: usize) {
    for number in 0..folders {
        let folder = source.join(format!("{number:03}/inner"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), format!("content {number}")).unwrap();
    }
    for number in 0..3 {
        fs::write(source.join(format!("large{number}")), noise(number, 5 << 19)).unwrap();
    }
}

#[test]
fn verbs_wait_for_few_round_trips() {
    let (far, scratch) = (Far::new(), Scratch::new("far").unwrap());
    // The folders above a source are recorded, too, and that of scratch folders changes all the time.
    let quiet = tempfile::tempdir_in("/var/tmp").unwrap();
    let source = quiet.path().join("source");
    make_source(&source, 300);
    let run = Run::new();
    let environment = Environment::detect();
    let lock = |repository: &Repository, kind| {
        Lock::acquire(repository, kind, Duration::ZERO, &environment, &run).unwrap()
    };
    // As every command does that reads one snapshot.
    let open_latest = |repository: &Repository| {
        let list = || Glance::at(repository).unwrap();
        let (kind, retry) = (LockKind::Shared, Duration::ZERO);
        let taken = Lock::acquire_while(repository, kind, retry, &environment, &run, list);
        let (lock, seen) = taken.unwrap();
        let latest = ("latest", &SnapshotFilter::default());
        let opened = select::resolve_and_load(repository, &seen, latest, &run).unwrap();
        (lock, opened.0.1.tree, opened.1)
    };
    let options = || backup_options(&source);
    let first = far.check("a first backup", 9, |repository| backup(repository, options()).unwrap());
    let second =
        far.check("an unchanged backup", 9, |repository| backup(repository, options()).unwrap());
    fs::write(source.join("123/inner/file"), "changed").unwrap();
    let _report = far
        .check("a backup of one change", 11, |repository| backup(repository, options()).unwrap());
    let target = scratch.join("restored");
    far.check("a restore", 8, |repository| {
        let (lock, tree, indexed) = open_latest(repository);
        let report = restore(&indexed, tree, &RestoreOptions::new(&target), &run).unwrap();
        assert!(report.is_complete(), "{:?}", report.problems);
        lock.release().unwrap();
    });
    let restored = target.join(source.strip_prefix("/").unwrap());
    assert_eq!(fs::read(restored.join("299/inner/file")).unwrap(), b"content 299");
    far.check("ls", 7, |repository| {
        let (lock, tree, indexed) = open_latest(repository);
        assert!(TreeWalk::new(&indexed, tree, b"").unwrap().count() > 900);
        lock.release().unwrap();
    });
    for (verb, read_data, most) in
        [("check", ReadData::No, 11), ("check --read-data", ReadData::All, 14)]
    {
        far.check(verb, most, |repository| {
            let lock = lock(repository, LockKind::Shared);
            let report = check(repository, &CheckOptions { read_data }, &run).unwrap();
            assert!(report.is_clean(), "{:?}", report.damages);
            lock.release().unwrap();
        });
    }
    let other = Far::new();
    other.check("a copy to a far repository", 16, |target| {
        let near = Repository::open(far.memory.clone(), PASSWORD.as_bytes(), None).unwrap();
        let held = lock(target, LockKind::Shared);
        let packs = PackOptions { pack_bytes: PACK_BYTES, ..PackOptions::default() };
        let into = Target::open(target, &held, &run).unwrap();
        let (near, all) = (near.load_index(&run).unwrap(), near.snapshots().unwrap());
        let report = copy(&near, into, &all, packs, &run, &mut |_| {}).unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        held.release().unwrap();
    });
    far.check("forget", 9, |repository| {
        let lock = lock(repository, LockKind::Exclusive);
        let ids = [first.id.unwrap(), second.id.unwrap()];
        let report = forget(repository, &lock, &ids, &[], &run).unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        lock.release().unwrap();
    });
    let prune_at = |now_s: i64| {
        let mut options = PruneOptions { max_unused: Limit::Bytes(0), ..PruneOptions::default() };
        options.packs.pack_bytes = PACK_BYTES;
        options.now = Some(Timestamp::new(now_s, 0, 0));
        options
    };
    let now_s = environment.now().seconds();
    let _marked = far.check("prune, marking", 32, |repository| {
        prune(repository, &prune_at(now_s), &environment, &run).unwrap()
    });
    let _deleted = far.check("prune, deleting", 26, |repository| {
        prune(repository, &prune_at(now_s + 400 * 24 * 60 * 60), &environment, &run).unwrap()
    });
}

/// Beside what a backup begins and ends with, its packs are all that is waited for, and so many at
/// once as the store takes.
#[test]
fn packs_go_side_by_side() {
    let scratch = Scratch::new("far").unwrap();
    let source = scratch.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("noise"), noise(7, 24 << 20)).unwrap();
    for connections in [2, 4] {
        let far = Far::new();
        let report = far.check_with(connections, "a backup", 99, |repository| {
            backup(repository, backup_options(&source)).unwrap()
        });
        assert!(report.problems.is_empty());
        let packs = far.memory.list(FileKind::Pack).unwrap().len();
        let most = 12 + packs.div_ceil(connections) as u64;
        let again = Far::new();
        let _report = again.check_with(connections, "a backup", most, |repository| {
            backup(repository, backup_options(&source)).unwrap()
        });
        assert!(packs >= 8, "{packs} packs tell nothing");
    }
}
