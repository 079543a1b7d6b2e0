//! Files: the layout of a restore, what is left out, comparison and damage.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use muster_model::{Class, Fault};
use muster_repository::{backup::PARTIAL_TAG, run::Run};
use muster_sources::{
    Source,
    files::{Difference, FilesError, checksums, damage},
};
use muster_testkit::{
    odd_tree,
    walker::{self, Kind, Tolerance},
};

use crate::common::{EXACT, Sandbox, codes, files};

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_content_of_one_folder_lies_straight_in_the_target() {
    let sandbox = Sandbox::new("one-folder");
    let source = sandbox.join("uploads");
    let options = odd_tree::Options {
        modes: true,
        times: true,
        hard_links: true,
        sparse: true,
        symlinks: true,
        special: true,
        owners: rustix::process::geteuid().is_root(),
        odd_names: true,
        empties: true,
        ..odd_tree::Options::nothing()
    };
    odd_tree::build(&source, &options).unwrap();
    symlink("/nowhere/at/all", source.join("dangling")).unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o751)).unwrap();
    let captured = sandbox.back_up(&files(&[&source]));
    assert_eq!(captured.left_out, Vec::<String>::new());
    let target = sandbox.join("target");
    let restored = sandbox.restore(captured.snapshot, &target);
    assert_eq!(restored.path, target);
    assert!(!restored.damaged);
    let tolerance = Tolerance { may_miss: vec![Kind::Socket], ..Tolerance::default() };
    let (before, after) = (walker::walk(&source).unwrap(), walker::walk(&target).unwrap());
    walker::assert_same(&before, &after, &tolerance);
    let (source, target) = (fs::metadata(&source).unwrap(), fs::metadata(&target).unwrap());
    assert_eq!(target.permissions().mode() & 0o7777, 0o751);
    assert_eq!(source.modified().unwrap(), target.modified().unwrap());
}

#[test]
fn a_single_file_and_each_of_several_paths_lie_under_their_names() {
    let sandbox = Sandbox::new("names");
    let (a, b) = (sandbox.folder("x/a"), sandbox.join("y-b.txt"));
    fs::write(a.join("1"), "one").unwrap();
    fs::write(&b, "two").unwrap();

    let single = sandbox.back_up(&files(&[&b]));
    let restored = sandbox.restore(single.snapshot, &sandbox.join("t1"));
    assert_eq!(restored.path, sandbox.join("t1/y-b.txt"));
    assert_eq!(read(&restored.path), "two");

    let both = sandbox.back_up(&files(&[&a, &b]));
    let restored = sandbox.restore(both.snapshot, &sandbox.join("t2"));
    assert_eq!((restored.path, restored.files), (sandbox.join("t2"), 2));
    assert_eq!(read(sandbox.join("t2/a/1")), "one");
    assert_eq!(read(sandbox.join("t2/y-b.txt")), "two");
}

#[test]
fn a_path_that_is_missing_does_not_move_the_others() {
    let sandbox = Sandbox::new("missing");
    let a = sandbox.folder("a");
    fs::write(a.join("1"), "one").unwrap();
    let captured = sandbox.back_up(&files(&[&a, &sandbox.join("gone")]));
    assert!(captured.left_out[0].contains("gone"), "{:?}", captured.left_out);
    let snapshot = sandbox.repository.snapshot(captured.snapshot).unwrap();
    assert!(snapshot.tags.iter().any(|tag| tag == PARTIAL_TAG));
    drop(sandbox.restore(captured.snapshot, &sandbox.join("target")));
    assert_eq!(read(sandbox.join("target/a/1")), "one");
    let error = sandbox.try_back_up(&files(&[&sandbox.join("gone")])).unwrap_err();
    assert_eq!((error.code(), sandbox.snapshots()), ("source-missing", 1));
}

#[test]
fn what_cannot_be_read_is_left_out_and_named() {
    let sandbox = Sandbox::new("unreadable");
    let a = sandbox.folder("a");
    fs::write(a.join("1"), "one").unwrap();
    // A regular file that not even root can read from its beginning.
    let memory = format!("/proc/{}/mem", std::process::id());
    let captured = sandbox.back_up(&files(&[&a, Path::new(&memory)]));
    assert_eq!(captured.left_out.len(), 1);
    assert!(captured.left_out[0].starts_with(&memory), "{:?}", captured.left_out);
    let snapshot = sandbox.repository.snapshot(captured.snapshot).unwrap();
    assert!(snapshot.tags.iter().any(|tag| tag == PARTIAL_TAG));
}

#[test]
fn ambiguous_and_relative_paths_are_refused() {
    let sandbox = Sandbox::new("ambiguous");
    let (a, b) = (sandbox.folder("x/a"), sandbox.folder("y/a"));
    let error = sandbox.try_back_up(&files(&[&a, &b])).unwrap_err();
    assert_eq!((error.code(), error.class()), ("ambiguous-name", Class::Input));
    let error = sandbox.try_back_up(&files(&[Path::new("a")])).unwrap_err();
    assert_eq!(error.code(), "source-path");
    assert_eq!(sandbox.snapshots(), 0);
}

#[test]
fn a_path_that_is_a_link_is_followed_and_told() {
    let sandbox = Sandbox::new("followed");
    let real = sandbox.folder("real");
    fs::write(real.join("1"), "one").unwrap();
    symlink(&real, sandbox.join("link")).unwrap();
    let captured = sandbox.back_up(&files(&[&sandbox.join("link")]));
    assert_eq!(codes(&captured), ["link-followed"]);
    drop(sandbox.restore(captured.snapshot, &sandbox.join("target")));
    assert_eq!(read(sandbox.join("target/1")), "one");
}

#[test]
fn patterns_leave_out() {
    let sandbox = Sandbox::new("patterns");
    let a = sandbox.folder("a");
    fs::write(a.join("1.tmp"), "").unwrap();
    fs::write(a.join("1.txt"), "").unwrap();
    let paths = vec![a];
    let source =
        |pattern: &str| Source::Files { paths: paths.clone(), exclude: vec![pattern.to_owned()] };
    let captured = sandbox.back_up(&source("*.tmp"));
    drop(sandbox.restore(captured.snapshot, &sandbox.join("target")));
    assert!(!sandbox.join("target/1.tmp").exists() && sandbox.join("target/1.txt").exists());
    assert_eq!(sandbox.try_back_up(&source("[a")).unwrap_err().code(), "bad-pattern");
}

#[test]
fn the_repository_within_the_source_is_left_out_with_a_notice() {
    let sandbox = Sandbox::new("destination");
    fs::write(sandbox.join("1"), "one").unwrap();
    for _ in 0..2 {
        let captured = sandbox.back_up(&files(&[sandbox.scratch.path()]));
        assert_eq!(codes(&captured), ["destination-left-out"]);
        assert_eq!(captured.bytes, 3);
    }
}

#[test]
fn a_target_that_is_not_empty_is_refused_and_can_be_made_equal() {
    let sandbox = Sandbox::new("equal");
    let (a, b) = (sandbox.folder("a"), sandbox.folder("b"));
    fs::write(a.join("1"), "one").unwrap();
    fs::write(b.join("2"), "two").unwrap();
    for (name, sources) in [("t1", vec![&*a]), ("t2", vec![&*a, &*b])] {
        let captured = sandbox.back_up(&files(&sources));
        let target = sandbox.folder(name);
        fs::write(target.join("other"), "").unwrap();
        fs::create_dir(target.join("a")).unwrap();
        fs::write(target.join("a/extra"), "").unwrap();
        let refused = sandbox.try_restore(captured.snapshot, &target, Default::default());
        let error = refused.unwrap_err();
        assert_eq!((error.code(), error.class()), ("target-not-empty", Class::Denied));
        assert!(target.join("other").exists() && !target.join("1").exists());
        assert_eq!(
            sandbox.try_restore(captured.snapshot, &target, EXACT).unwrap().left_out.len(),
            0
        );
        let fresh = sandbox.join(&format!("fresh-{name}"));
        drop(sandbox.restore(captured.snapshot, &fresh));
        // The target of several paths is nobody's copy, and keeps its own mode and time.
        let tolerance = Tolerance { ignore_root: sources.len() > 1, ..Tolerance::default() };
        let (expected, found) = (walker::walk(&fresh).unwrap(), walker::walk(&target).unwrap());
        walker::assert_same(&expected, &found, &tolerance);
    }
}

#[test]
fn damage_in_the_repository_names_the_file() {
    let sandbox = Sandbox::new("damaged");
    let a = sandbox.folder("a");
    // Random enough not to shrink, and large enough that the middle of the pack is in it.
    let noise: Vec<u8> = (0..400_000_u64).flat_map(|n| noise(n).to_le_bytes()).collect();
    fs::write(a.join("big"), &noise).unwrap();
    fs::write(a.join("small"), "one").unwrap();
    let captured = sandbox.back_up(&files(&[&a]));
    let packs = walker::walk(&sandbox.join("repository/data")).unwrap();
    assert!(!packs.lines().is_empty());
    let pack = largest(&sandbox.join("repository/data"));
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let restored =
        sandbox.try_restore(captured.snapshot, &sandbox.join("t"), Default::default()).unwrap();
    assert!(restored.damaged);
    assert!(restored.left_out[0].contains("big"), "{:?}", restored.left_out);
    assert!(!sandbox.join("t/big").exists());
    assert_eq!(read(sandbox.join("t/small")), "one");
}

/// A number that looks like chance (splitmix64).
fn noise(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn largest(folder: &Path) -> std::path::PathBuf {
    let folders = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.filter(|path| path.is_dir()).flat_map(|path| fs::read_dir(path).unwrap());
    let files = files.map(|entry| entry.unwrap().path());
    files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

#[test]
fn a_flipped_byte_is_found_and_put_back() {
    let sandbox = Sandbox::new("checksums");
    let a = sandbox.folder("a");
    fs::create_dir(a.join("deep")).unwrap();
    fs::write(a.join("deep/big"), vec![7; 3 << 20]).unwrap();
    fs::write(a.join("small"), "one").unwrap();
    fs::write(a.join(".muster-markers"), vec![b'x'; 4 << 20]).unwrap();
    symlink("small", a.join("link")).unwrap();
    let captured = sandbox.back_up(&files(&[&a]));
    let target = sandbox.join("t");
    drop(sandbox.restore(captured.snapshot, &target));
    let run = Run::new();
    let indexed = sandbox.repository.load_index(&run).unwrap();
    let compare = || checksums(&indexed, captured.snapshot, &target, &run).unwrap();
    assert_eq!(compare(), []);

    let damaged = damage(&target).unwrap();
    assert_eq!(damaged.file, target.join("deep/big"));
    let found = compare();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, Path::new("deep/big"));
    assert!(matches!(found[0].difference, Difference::Content { .. }));
    damaged.undo().unwrap();
    assert_eq!(compare(), []);

    fs::remove_file(target.join("small")).unwrap();
    fs::remove_file(target.join("link")).unwrap();
    symlink("elsewhere", target.join("link")).unwrap();
    fs::write(target.join("deep/big"), "short").unwrap();
    let found: Vec<_> = compare().into_iter().map(|found| found.difference).collect();
    let length = Difference::Length { expected: 3 << 20, actual: 5 };
    assert_eq!((&found[0], &found[1]), (&length, &Difference::Kind));
    assert!(matches!(found[2], Difference::Unreadable(_)));
}

#[test]
fn there_must_be_something_to_damage() {
    let sandbox = Sandbox::new("nothing");
    let a = sandbox.folder("a");
    fs::write(a.join("empty"), "").unwrap();
    fs::write(a.join(".muster-markers"), "x").unwrap();
    assert!(matches!(damage(&a), Err(FilesError::NothingToDamage { .. })));
    fs::write(a.join("file"), "x").unwrap();
    let damaged = damage(&a.join("file")).unwrap();
    assert_ne!(fs::read(a.join("file")).unwrap(), b"x");
    damaged.undo().unwrap();
    assert_eq!(fs::read(a.join("file")).unwrap(), b"x");
}
