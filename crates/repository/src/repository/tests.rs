//! Making and opening repositories, sound and damaged.

use super::*;
use crate::{environment::Environment, storage::memory::MemoryStorage};

fn options() -> InitOptions {
    let author = Environment::detect().author();
    InitOptions { version: Version::V2, polynomial: None, cost: Cost::FOR_TESTS, author }
}

#[test]
fn what_is_made_opens_with_its_password_only() {
    let storage = Arc::new(MemoryStorage::new());
    let made = Repository::init(storage.clone(), b"one", options()).unwrap();
    let opened = Repository::open(storage.clone(), b"one", None).unwrap();
    assert_eq!(opened.config(), made.config());
    assert_eq!(opened.key_id(), made.key_id());
    let wrong = Repository::open(storage, b"two", None).err().unwrap();
    assert_eq!(wrong.class(), Class::Denied);
}

#[test]
fn a_repository_is_never_made_over_another() {
    let storage = Arc::new(MemoryStorage::new());
    Repository::init(storage.clone(), b"x", options()).unwrap();
    let again = Repository::init(storage.clone(), b"x", options()).err().unwrap();
    assert_eq!(again.code(), "repository-exists");
    storage.delete(File::Config).unwrap();
    let snapshot = File::Snapshot(SnapshotId::of(b"data that is worth something"));
    storage.put(snapshot, b"x").unwrap();
    let again = Repository::init(storage.clone(), b"x", options()).err().unwrap();
    assert_eq!(again.code(), "config-missing");
    let open = Repository::open(storage, b"x", None).err().unwrap();
    assert_eq!((open.class(), open.code()), (Class::Corrupt, "config-missing"));
}

#[test]
fn nothing_there_is_told_apart_from_damage() {
    let storage = Arc::new(MemoryStorage::new());
    let code = |storage: &Arc<MemoryStorage>| {
        Repository::open(storage.clone(), b"x", None).err().unwrap().code()
    };
    assert_eq!(code(&storage), "repository-missing");
    let made = Repository::init(storage.clone(), b"x", options()).unwrap();
    let key = File::Key(made.key_id());
    let sound = storage.read(key, 10_000).unwrap();
    for damaged in [&sound[..sound.len() / 2], &[], b"{}", &vec![b'x'; 1 << 20]] {
        storage.put(key, damaged).unwrap();
        assert_eq!(code(&storage), "key-damaged");
    }
    storage.delete(key).unwrap();
    assert_eq!(code(&storage), "key-missing");
    storage.put(key, &sound).unwrap();
    storage.put(File::Config, b"garbage").unwrap();
    assert_eq!(code(&storage), "file-damaged");
}

/// An `init` that was interrupted leaves a key of no use; the next one succeeds, and its key is
/// found beside the other, whichever comes first and though both have the same password.
#[test]
fn an_interrupted_init_can_be_run_again() {
    for _ in 0..8 {
        let storage = Arc::new(MemoryStorage::new());
        Repository::init(storage.clone(), b"x", options()).unwrap();
        storage.delete(File::Config).unwrap();
        let made = Repository::init(storage.clone(), b"x", options()).unwrap();
        let opened = Repository::open(storage, b"x", None).unwrap();
        assert_eq!(opened.key_id(), made.key_id());
    }
}
