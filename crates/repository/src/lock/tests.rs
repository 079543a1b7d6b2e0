//! Locks side by side, refreshed, removed, stale and damaged.

use super::*;
use crate::{
    format::{config::Version, key_file::Cost, time::Timestamp},
    repository::InitOptions,
    storage::{Storage, forward, memory::MemoryStorage},
};
use muster_testkit::wait_for;

fn setup() -> (Arc<MemoryStorage>, Repository, Environment) {
    let storage = Arc::new(MemoryStorage::new());
    let environment = Environment::detect();
    let author = environment.author();
    let options =
        InitOptions { version: Version::V2, polynomial: None, cost: Cost::FOR_TESTS, author };
    let repository = Repository::init(storage.clone(), b"x", options).unwrap();
    (storage, repository, environment)
}

fn acquire(
    repository: &Repository,
    kind: LockKind,
    environment: &Environment,
) -> Result<Lock, LockError> {
    Lock::acquire(repository, kind, Duration::ZERO, environment, &Run::new())
}

#[test]
fn shared_locks_share_and_exclusive_ones_exclude() {
    let (storage, repository, environment) = setup();
    let take = |kind| acquire(&repository, kind, &environment);
    let one = take(LockKind::Shared).unwrap();
    let two = take(LockKind::Shared).unwrap();
    assert_eq!(one.others_at_work().unwrap().len(), 1);
    let error = take(LockKind::Exclusive).unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Conflict, "locked"));
    one.release().unwrap();
    drop(two);
    assert_eq!(storage.list(FileKind::Lock).unwrap(), []);
    let alone = take(LockKind::Exclusive).unwrap();
    for kind in [LockKind::Shared, LockKind::Exclusive] {
        assert!(matches!(take(kind), Err(LockError::Locked(_))));
    }
    assert_eq!(storage.list(FileKind::Lock).unwrap().len(), 1);
    alone.release().unwrap();
}

#[test]
fn of_many_at_once_one_gets_the_exclusive_lock_at_most() {
    let (_, repository, environment) = setup();
    for _ in 0..20 {
        let winners = thread::scope(|scope| {
            let take = || acquire(&repository, LockKind::Exclusive, &environment);
            let tries: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            let locks: Vec<_> = tries.into_iter().map(|t| t.join().unwrap()).collect();
            locks.iter().filter(|lock| lock.is_ok()).count()
        });
        assert!(winners <= 1);
    }
}

#[test]
fn a_refreshed_lock_is_another_file_and_a_removed_one_stays_removed() {
    let (storage, repository, environment) = setup();
    let lock = acquire(&repository, LockKind::Shared, &environment).unwrap();
    let before = lock.shared.id();
    lock.shared.refresh().unwrap();
    assert_ne!(lock.shared.id(), before);
    assert_eq!(storage.list(FileKind::Lock).unwrap().len(), 1);
    assert_eq!(remove_all(&repository).unwrap(), 1);
    assert!(matches!(lock.shared.refresh(), Err(LockError::Removed)));
    assert_eq!(storage.list(FileKind::Lock).unwrap(), []);
    lock.release().unwrap();
}

#[test]
fn an_exclusive_lock_becomes_a_shared_one_without_a_gap() {
    let (storage, repository, environment) = setup();
    let lock = acquire(&repository, LockKind::Exclusive, &environment).unwrap();
    assert!(acquire(&repository, LockKind::Shared, &environment).is_err());
    lock.share().unwrap();
    let other = acquire(&repository, LockKind::Shared, &environment).unwrap();
    assert!(acquire(&repository, LockKind::Exclusive, &environment).is_err());
    lock.shared.refresh().unwrap();
    assert!(held(&repository, &environment).unwrap().iter().all(|held| !held.lock.exclusive));
    other.release().unwrap();
    lock.release().unwrap();
    assert_eq!(storage.list(FileKind::Lock).unwrap(), []);
}

#[test]
fn stale_locks_are_told_apart() {
    let (_, repository, environment) = setup();
    let save = |pid: i64, hostname: &str, age_s: i64| {
        let time = Timestamp::new(environment.now().seconds() - age_s, 0, 0);
        let username = "ana".to_owned();
        let hostname = hostname.to_owned();
        let lock = LockFile { time, exclusive: true, hostname, username, pid, uid: 1, gid: 1 };
        repository.save_unpacked(File::Lock, &lock).unwrap()
    };
    let here = environment.hostname.as_str();
    let parent = i64::from(nix::unistd::getppid().as_raw());
    // Process numbers end at 2^22.
    let dead = save(1 << 23, here, 0);
    let old = save(parent, here, 31 * 60);
    let elsewhere = save(1 << 23, "elsewhere", 0);
    let alive = save(parent, here, 0);
    let stale: Vec<_> =
        held(&repository, &environment).unwrap().into_iter().filter(|h| h.stale).collect();
    assert_eq!(stale.len(), 2);
    assert!(stale.iter().all(|held| held.id == dead || held.id == old));
    assert_eq!(remove_stale(&repository, &environment).unwrap(), 2);
    let left: Vec<_> =
        held(&repository, &environment).unwrap().into_iter().map(|held| held.id).collect();
    assert!(left.len() == 2 && left.contains(&elsewhere) && left.contains(&alive));
}

/// A store in which somebody else was as quick: right beside the first lock lies theirs.
#[derive(Debug)]
struct Rival {
    inner: Arc<MemoryStorage>,
    lock: (File, Vec<u8>),
}

impl Storage for Rival {
    forward!(inner: location, prepare, list, size, read, read_range, put_new, delete);

    fn put(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.inner.put(file, content)?;
        self.inner.put(self.lock.0, &self.lock.1)
    }
}

#[test]
fn who_meets_a_conflict_withdraws_before_what_is_read_beside_it_has_come() {
    let (inner, repository, environment) = setup();
    let file = File::Lock(write(&repository, LockKind::Exclusive, &environment).unwrap());
    let lock = (file, inner.read(file, 1 << 20).unwrap());
    inner.delete(file).unwrap();
    let repository = repository.on(Arc::new(Rival { inner: inner.clone(), lock }));
    // What is read meanwhile comes late: it sees what others see until then.
    let seen = || {
        let alone = || {
            let there = inner.list(FileKind::Lock).unwrap();
            (there.len() == 1 && there[0].file == file).then_some(())
        };
        wait_for("the lock to be withdrawn", Duration::from_secs(60), alone).unwrap();
    };
    let (run, zero, kind) = (Run::new(), Duration::ZERO, LockKind::Shared);
    let taken = Lock::acquire_while(&repository, kind, zero, &environment, &run, seen);
    assert!(matches!(taken, Err(LockError::Locked(_))), "{taken:?}");
}

#[test]
fn damaged_locks_are_named_and_empty_ones_ignored() {
    let (storage, repository, environment) = setup();
    let file = File::Lock(LockId::of(b"half"));
    storage.put(file, b"").unwrap();
    acquire(&repository, LockKind::Exclusive, &environment).unwrap().release().unwrap();
    storage.put(file, b"half").unwrap();
    let error = acquire(&repository, LockKind::Shared, &environment).unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    assert!(error.help().unwrap().contains(&file.to_string()));
    assert_eq!(remove_stale(&repository, &environment).unwrap(), 0);
    assert_eq!(remove_all(&repository).unwrap(), 1);
}
