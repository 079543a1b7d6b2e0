//! What every store must do, as one suite that each implementation runs.

use std::{collections::BTreeSet, os::unix::fs::FileExt, thread};

use super::{File, FileKind, Listed, Spooled, Storage, StorageProblem, nameless_file};
use crate::{format::pack::BlobKind, id::PackId};

/// A pack file name for tests; different seeds give different names.
#[must_use]
pub fn pack(seed: u64) -> File {
    File::Pack(PackId::of(&seed.to_le_bytes()))
}

/// What a store promises beyond the rest. Some protocols know no condition, some servers never
/// replace a file.
#[derive(Debug, Clone, Copy)]
pub struct Promises {
    /// `put` replaces a file of other content.
    pub replaces: bool,
    /// Of several `put_new` at once, one succeeds.
    pub creates_once: bool,
    /// Deleting what is not there is told. Who tries again after a lost answer cannot tell it
    /// from a file that the first try deleted.
    pub tells_missing: bool,
}

impl Promises {
    /// What every store should promise.
    pub const ALL: Self = Self { replaces: true, creates_once: true, tells_missing: true };
}

/// Runs the whole suite; `make` gives a fresh, empty store and a guard that keeps it alive.
///
/// # Panics
/// Panics at the first promise that the store does not keep.
pub fn run<S: Storage, G>(make: impl Fn() -> (S, G)) {
    run_promising(Promises::ALL, make);
}

/// Runs the suite for a store that promises less.
///
/// # Panics
/// As [`run`].
pub fn run_promising<S: Storage, G>(promises: Promises, make: impl Fn() -> (S, G)) {
    let mut tests = vec![
        an_empty_store_lists_nothing as fn(&dyn Storage),
        what_is_put_is_read_back,
        a_pack_comes_from_its_file,
        ranges_are_exact,
        large_files_are_refused_before_they_are_read,
        put_new_keeps_what_is_there,
        what_is_deleted_is_gone,
        many_are_deleted,
        kinds_are_apart,
        preparing_twice_keeps_what_is_there,
        many_writers_at_once,
    ];
    if promises.tells_missing {
        tests.push(deleting_nothing_is_told);
    }
    if promises.replaces {
        tests.push(put_replaces);
    }
    if promises.creates_once {
        tests.push(one_creator_wins);
    }
    for test in tests {
        let (storage, _guard) = make();
        storage.prepare().expect("prepare an empty store");
        test(&storage);
    }
}

fn problem<T: std::fmt::Debug>(result: Result<T, super::StorageError>) -> StorageProblem {
    result.expect_err("this must fail").problem()
}

fn an_empty_store_lists_nothing(storage: &dyn Storage) {
    for kind in FileKind::ALL {
        assert_eq!(storage.list(kind).expect("list"), []);
    }
    assert_eq!(problem(storage.read(File::Config, 100)), StorageProblem::NotFound);
    assert_eq!(problem(storage.size(pack(1))), StorageProblem::NotFound);
    assert_eq!(problem(storage.read_range(pack(1), 0, &mut [0])), StorageProblem::NotFound);
    assert!(!storage.location().is_empty());
}

fn what_is_put_is_read_back(storage: &dyn Storage) {
    for (seed, length) in [(1, 0), (2, 1), (3, 4096), (4, 3 << 20)] {
        let content: Vec<u8> =
            (0..length).map(|i: u32| i.to_le_bytes()[(i % 3) as usize]).collect();
        storage.put(pack(seed), &content).expect("put");
        assert_eq!(storage.read(pack(seed), 4 << 20).expect("read"), content);
        assert_eq!(storage.size(pack(seed)).expect("size"), u64::from(length));
        let listed = storage.list(FileKind::Pack).expect("list");
        assert!(listed.contains(&Listed { file: pack(seed), bytes: u64::from(length) }));
    }
}

/// A pack in a file of its own, with the name that `named` has.
///
/// # Panics
/// Panics when no file can be made.
#[must_use]
pub fn spooled(content: &[u8], named: &[u8]) -> Spooled {
    let folder = std::env::temp_dir();
    let file = nameless_file(&folder).expect("a file for a pack");
    file.write_all_at(content, 0).expect("room for a pack");
    Spooled::new(PackId::of(named), (file, content.len() as u64), Vec::new(), &folder)
}

/// And none of a file that is not what its name says is ever to be seen.
fn a_pack_comes_from_its_file(storage: &dyn Storage) {
    let content: Vec<u8> = (0..900_000_u32).flat_map(u32::to_le_bytes).collect();
    let pack = spooled(&content, &content);
    storage.put_spooled(BlobKind::Data, &pack).expect("put from a file");
    storage.put_spooled(BlobKind::Data, &pack).expect("put what is there");
    let file = File::Pack(pack.id());
    assert!(storage.read(file, 4 << 20).expect("read") == content);
    let other = spooled(&content, b"other");
    let error = storage.put_spooled(BlobKind::Data, &other).expect_err("a spoiled pack");
    assert!(other.is_spoiled() && error.to_string().contains("read a pack back"), "{error}");
    let listed = storage.list(FileKind::Pack).expect("list");
    assert_eq!(listed, [Listed { file, bytes: content.len() as u64 }]);
    let small = spooled(b"x", b"x");
    storage.put_spooled(BlobKind::Tree, &small).expect("put a small one");
    assert_eq!(storage.read(File::Pack(small.id()), 9).expect("read"), b"x");
}

fn ranges_are_exact(storage: &dyn Storage) {
    storage.put(pack(1), b"0123456789").expect("put");
    let read = |offset, length| {
        let mut buffer = vec![0; length];
        storage.read_range(pack(1), offset, &mut buffer).map(|()| buffer)
    };
    assert_eq!(read(0, 10).expect("all"), b"0123456789");
    assert_eq!(read(3, 4).expect("middle"), b"3456");
    assert_eq!(read(9, 1).expect("last"), b"9");
    assert_eq!(read(4, 0).expect("nothing"), b"");
    assert_eq!(problem(read(9, 2)), StorageProblem::TooShort);
    assert_eq!(problem(read(11, 1)), StorageProblem::TooShort);
}

fn large_files_are_refused_before_they_are_read(storage: &dyn Storage) {
    storage.put(pack(1), &[0; 100]).expect("put");
    assert_eq!(problem(storage.read(pack(1), 99)), StorageProblem::TooLarge);
    assert_eq!(storage.read(pack(1), 100).expect("read").len(), 100);
}

fn put_new_keeps_what_is_there(storage: &dyn Storage) {
    storage.put_new(File::Config, b"one").expect("create");
    assert_eq!(problem(storage.put_new(File::Config, b"two")), StorageProblem::AlreadyExists);
    assert_eq!(storage.read(File::Config, 10).expect("read"), b"one");
    storage.put(pack(1), b"same").expect("put");
    storage.put(pack(1), b"same").expect("put what is there");
}

fn put_replaces(storage: &dyn Storage) {
    storage.put_new(File::Config, b"one").expect("create");
    storage.put(File::Config, b"three").expect("replace");
    assert_eq!(storage.read(File::Config, 10).expect("read"), b"three");
    let listed = storage.list(FileKind::Config).expect("list");
    assert_eq!(listed, [Listed { file: File::Config, bytes: 5 }]);
}

fn what_is_deleted_is_gone(storage: &dyn Storage) {
    storage.put(pack(1), b"x").expect("put");
    storage.delete(pack(1)).expect("delete");
    assert_eq!(problem(storage.read(pack(1), 10)), StorageProblem::NotFound);
    assert_eq!(storage.list(FileKind::Pack).expect("list"), []);
}

/// Several at once, some of which are not there.
fn many_are_deleted(storage: &dyn Storage) {
    let files: Vec<File> = (0..40).map(pack).collect();
    let there = || files.iter().step_by(8);
    there().for_each(|file| storage.put(*file, b"x").expect("put"));
    storage.put(pack(1000), b"stays").expect("put");
    let deleted = storage.delete_all(&files);
    assert_eq!(deleted.len(), files.len());
    deleted.into_iter().collect::<Result<(), _>>().expect("delete all");
    assert_eq!(storage.list(FileKind::Pack).expect("list").len(), 1);
    assert!(storage.delete_all(&[]).is_empty());
}

fn deleting_nothing_is_told(storage: &dyn Storage) {
    assert_eq!(problem(storage.delete(pack(1))), StorageProblem::NotFound);
}

fn kinds_are_apart(storage: &dyn Storage) {
    let name = "0123456789abcdef".repeat(4);
    let kinds =
        [FileKind::Key, FileKind::Lock, FileKind::Snapshot, FileKind::Index, FileKind::Pack];
    for kind in kinds {
        let file = kind.file(&name).expect("a name");
        storage.put(file, kind.folder().as_bytes()).expect("put");
    }
    for kind in kinds {
        let file = kind.file(&name).expect("a name");
        assert_eq!(storage.read(file, 100).expect("read"), kind.folder().as_bytes());
        assert_eq!(storage.list(kind).expect("list").len(), 1);
    }
}

fn preparing_twice_keeps_what_is_there(storage: &dyn Storage) {
    storage.put(pack(1), b"x").expect("put");
    storage.prepare().expect("prepare again");
    assert_eq!(storage.read(pack(1), 10).expect("read"), b"x");
    assert_eq!(storage.remove_leftovers().expect("no leftovers"), 0);
}

fn many_writers_at_once(storage: &dyn Storage) {
    thread::scope(|scope| {
        for writer in 0..8 {
            scope.spawn(move || {
                for n in 0..20 {
                    storage.put(pack(writer * 100 + n), &n.to_le_bytes()).expect("put");
                }
            });
        }
    });
    let listed = storage.list(FileKind::Pack).expect("list");
    let names: BTreeSet<File> = listed.iter().map(|entry| entry.file).collect();
    assert_eq!(names.len(), 160);
}

fn one_creator_wins(storage: &dyn Storage) {
    let winners: usize = thread::scope(|scope| {
        let tries: Vec<_> = (0..8_u8)
            .map(|n| scope.spawn(move || storage.put_new(File::Config, &[n]).is_ok()))
            .collect();
        tries.into_iter().map(|t| usize::from(t.join().expect("no panic"))).sum()
    });
    assert_eq!(winners, 1);
}
