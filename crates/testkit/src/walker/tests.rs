//! The walker sees what is there, and every difference.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::odd_tree::{self, Options};
use crate::{Scratch, peers};

fn lines(differences: &[Difference]) -> Vec<String> {
    differences.iter().map(Difference::to_string).collect()
}

/// Two equal trees with a file, a symlink to it and a second name of it.
fn twins() -> (Scratch, Listing) {
    let scratch = Scratch::new("twins").unwrap();
    fs::write(scratch.join("file"), "content").unwrap();
    symlink("file", scratch.join("link")).unwrap();
    fs::hard_link(scratch.join("file"), scratch.join("again")).unwrap();
    let listing = walk(scratch.path()).unwrap();
    (scratch, listing)
}

#[test]
fn reads_what_was_written() {
    let (_scratch, listing) = twins();
    assert_eq!(listing.entries.len(), 4);
    let file = listing.get("file").unwrap();
    assert_eq!((file.kind, file.size, file.readable), (Kind::File, 7, true));
    assert_eq!(file.hard_link_group.as_deref(), Some(b"again".as_slice()));
    let digest = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";
    assert_eq!(hex(&file.sha256.unwrap()), digest);
    let link = listing.get("link").unwrap();
    assert_eq!(link.link_target.as_deref(), Some(b"file".as_slice()));
    assert_eq!(link.size, 4);
    assert_eq!(listing.content_bytes(), 14);
    assert_eq!(compare(&listing, &listing.clone(), &Tolerance::default()), []);
}

#[test]
fn every_aspect_is_compared() {
    type Change = fn(&mut Entry);
    let cases: &[(&str, Change)] = &[
        ("file: type: file | fifo", |entry| entry.kind = Kind::Fifo),
        ("file: permissions: 0644 | 4755", |entry| entry.permissions = 0o4755),
        ("file: uid: 7 | 8", |entry| entry.uid = 8),
        ("file: gid: 7 | 9", |entry| entry.gid = 9),
        ("file: size: 7 | 8", |entry| entry.size = 8),
        ("file: mtime: 0+000000000ns | -1+000000005ns", |entry| {
            entry.modified = Modified { seconds: -1, nanoseconds: 5 };
        }),
        (
            "file: content: 0000000000000000000000000000000000000000000000000000000000000000 | none",
            { |entry| entry.sha256 = None },
        ),
        ("file: link target: none | \\xff", |entry| entry.link_target = Some(vec![0xff])),
        ("file: device: none | 1:3", |entry| entry.device = Some((1, 3))),
        ("file: hard link to: again | none", |entry| entry.hard_link_group = None),
        ("file: xattr: user.a=none | user.a=\\x00b", |entry| {
            entry.xattrs.insert(b"user.a".to_vec(), b"\0b".to_vec());
        }),
        ("file: readable: true | false", |entry| entry.readable = false),
        ("file: bytes on disk: 4096 | 8193", |entry| entry.allocated = 8193),
    ];
    let (_scratch, mut first) = twins();
    let file = first.entries.get_mut(b"file".as_slice()).unwrap();
    file.permissions = 0o644;
    (file.uid, file.gid) = (7, 7);
    file.modified = Modified { seconds: 0, nanoseconds: 0 };
    file.sha256 = Some([0; 32]);
    file.allocated = 4096;
    let tolerance = Tolerance { allocated_slack: Some(4096), ..Tolerance::default() };
    for (expected, change) in cases {
        let mut second = first.clone();
        change(second.entries.get_mut(b"file".as_slice()).unwrap());
        assert_eq!(lines(&compare(&first, &second, &tolerance)), [*expected]);
    }
}

#[test]
fn tolerance_leaves_out_what_it_names() {
    let (_scratch, first) = twins();
    let mut second = first.clone();
    for (_, entry) in second.entries.iter_mut() {
        entry.uid += 1;
        entry.permissions ^= 1;
        entry.modified.nanoseconds ^= 1;
        entry.hard_link_group = Some(b"else".to_vec());
        entry.xattrs.insert(b"security.selinux".to_vec(), b"label".to_vec());
        entry.xattrs.insert(b"user.a".to_vec(), Vec::new());
    }
    second.entries.remove(b"link".as_slice());
    assert!(!compare(&first, &second, &Tolerance::default()).is_empty());
    let tolerance = Tolerance {
        ignore_owners: true,
        ignore_permissions: true,
        ignore_times: true,
        ignore_hard_links: true,
        ignore_xattrs: vec![String::new()],
        may_miss: vec![Kind::Symlink],
        ..Tolerance::default()
    };
    assert_eq!(compare(&first, &second, &tolerance), []);
    let additional = lines(&compare(&second, &first, &tolerance));
    assert_eq!(additional, ["link: presence: missing | symlink"], "more is never tolerated");
}

#[test]
fn times_can_be_left_out_by_kind() {
    let (_scratch, first) = twins();
    let mut second = first.clone();
    for (_, entry) in second.entries.iter_mut() {
        entry.modified.seconds += 1;
    }
    let differing = |tolerance: Tolerance| -> Vec<Vec<u8>> {
        compare(&first, &second, &tolerance).into_iter().map(|found| found.path).collect()
    };
    let names = |names: &[&str]| -> Vec<Vec<u8>> {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    };
    let tolerance = Tolerance { ignore_folder_times: true, ..Tolerance::default() };
    assert_eq!(differing(tolerance), names(&["again", "file", "link"]));
    let tolerance = Tolerance { ignore_symlink_times: true, ..Tolerance::default() };
    assert_eq!(differing(tolerance), names(&["", "again", "file"]));
    let tolerance = Tolerance { ignore_root: true, ..Tolerance::default() };
    assert_eq!(differing(tolerance), names(&["again", "file", "link"]));
}

#[test]
fn a_failed_assertion_names_the_differences() {
    let (_scratch, first) = twins();
    let mut second = first.clone();
    second.entries.get_mut(b"link".as_slice()).unwrap().link_target = Some(vec![b'x'; 1000]);
    let panic = std::panic::catch_unwind(|| assert_same(&first, &second, &Tolerance::default()));
    let message = panic.unwrap_err().downcast_ref::<String>().unwrap().clone();
    assert!(message.starts_with("the trees differ in 1 ways (first | second):\n  link: link"));
    assert!(message.contains("…(1000 bytes, sha256 "), "{message}");
}

#[test]
fn lines_have_the_format_of_the_fixtures() {
    let scratch = Scratch::new("lines").unwrap();
    fs::create_dir(scratch.join("folder")).unwrap();
    fs::write(scratch.join("folder/a\tb \\"), "").unwrap();
    symlink("\n", scratch.join("link")).unwrap();
    let mut listing = walk(scratch.path()).unwrap();
    for entry in listing.entries.values_mut() {
        entry.permissions = 0o755;
        entry.modified = Modified { seconds: -5, nanoseconds: 60 };
        entry.xattrs.insert(b"user.k".to_vec(), b"\x01v".to_vec());
        entry.xattrs.insert(b"security.k".to_vec(), b"no".to_vec());
    }
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let expected = format!(
        "folder\tdir\t0755\t-\t-5.000000060\t-\t-\t-\tuser.k=0176\n\
         folder/a\\x09b \\x5c\tfile\t0755\t0\t-5.000000060\t{empty}\t-\t-\tuser.k=0176\n\
         link\tsymlink\t0755\t1\t-5.000000060\t-\t\\x0a\t-\tuser.k=0176\n"
    );
    assert_eq!(listing.lines(), expected);
}

#[test]
fn walks_beyond_path_max() {
    let scratch = Scratch::new("beyond").unwrap();
    let options = Options { past_path_max: true, deep_levels: 300, ..Options::nothing() };
    odd_tree::build(&scratch.join("tree"), &options).unwrap();
    let listing = walk(&scratch.join("tree")).unwrap();
    let longest = listing.entries.keys().map(Vec::len).max().unwrap();
    assert!(longest > 4400, "{longest}");
    let deepest = listing.entries.keys().map(|path| path.split(|&byte| byte == b'/').count());
    assert_eq!(deepest.max().unwrap(), 302);
}

/// Runs the walker's own test binary again without root, on a tree with things shut to others.
#[test]
fn lists_what_it_may_not_read() {
    const TREE: &str = "MUSTER_TESTKIT_SHUT_TREE";
    if let Some(tree) = std::env::var_os(TREE) {
        let listing = walk(Path::new(&tree)).unwrap();
        let shut: Vec<&[u8]> = listing
            .entries
            .iter()
            .filter(|(_, entry)| !entry.readable)
            .map(|(path, _)| path.as_slice())
            .collect();
        assert_eq!(shut, [b"file".as_slice(), b"no-rights", b"no-search"]);
        assert_eq!(listing.get("file").unwrap().sha256, None);
        return;
    }
    let scratch = Scratch::new("shut").unwrap();
    let binary = scratch.join("binary");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let set_mode = |name: &str, mode| {
        fs::set_permissions(scratch.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode("binary", 0o755);
    for (name, mode) in [("no-rights", 0o000), ("no-search", 0o444), ("open", 0o555)] {
        fs::create_dir(scratch.join(name)).unwrap();
        fs::write(scratch.join(name).join("inner"), "x").unwrap();
        set_mode(name, mode);
    }
    fs::write(scratch.join("file"), "x").unwrap();
    set_mode("file", 0o000);
    let this = peers::Peer::new(binary).unwrap().env(TREE, scratch.path());
    let Some(mut command) = this.command_without_root() else { return };
    command.args(["--exact", "walker::tests::lists_what_it_may_not_read"]);
    let output = peers::run(&mut command).unwrap().expect_success().unwrap();
    assert!(output.stdout().contains("1 passed"), "{}", output.stdout());
}

#[test]
fn a_missing_root_is_an_error() {
    let error = walk(Path::new("/no/such/folder")).unwrap_err();
    assert_eq!(error.to_string(), "open the folder /no/such/folder");
}
