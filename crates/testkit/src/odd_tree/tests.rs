//! The tree is what it says it is, every time.

use std::process::Command;

use super::*;
use crate::walker::{Entry, Kind, Listing, Tolerance, assert_same, walk};
use crate::{Scratch, peers};

fn build_and_walk(name: &str, options: &Options) -> (Scratch, Built, Listing) {
    let scratch = Scratch::new(name).unwrap();
    let built = build(&scratch.join("tree"), options).unwrap();
    let listing = walk(&scratch.join("tree")).unwrap();
    (scratch, built, listing)
}

fn at<'a>(listing: &'a Listing, path: &str) -> &'a Entry {
    listing.get(path).unwrap_or_else(|| panic!("{path} is missing"))
}

fn is_left_out(built: &Built, part: &str) -> bool {
    built.left_out.iter().any(|line| line.starts_with(part))
}

#[test]
fn two_builds_are_equal() {
    let options = Options { chunk_edges: false, ..Options::everything() };
    let (_first_folder, first_built, first) = build_and_walk("first", &options);
    let (_second_folder, second_built, second) = build_and_walk("second", &options);
    assert_eq!(first_built, second_built);
    assert_same(&first, &second, &Tolerance::default());
    assert!(first.entries.len() > 1900, "{}", first.entries.len());
}

#[test]
fn nothing_is_an_empty_folder() {
    let (_scratch, built, listing) = build_and_walk("nothing", &Options::nothing());
    assert_eq!((built.left_out.len(), listing.entries.len()), (0, 1));
}

#[test]
fn a_folder_with_content_is_refused() {
    let scratch = Scratch::new("refused").unwrap();
    std::fs::write(scratch.join("precious"), "").unwrap();
    let error = build(scratch.path(), &Options::nothing()).unwrap_err();
    assert!(error.to_string().ends_with("is not empty"), "{error}");
}

#[test]
fn modes_and_times_are_as_asked() {
    let options = Options { modes: true, times: true, far_future: true, ..Options::nothing() };
    let (_scratch, built, listing) = build_and_walk("modes", &options);
    assert_eq!(at(&listing, "modes/file-4755").permissions, 0o4755);
    assert_eq!(at(&listing, "modes/folder-3770").permissions, 0o3770);
    assert_eq!(at(&listing, "modes/folder-0500/inner").kind, Kind::File);
    let time = |path| {
        let modified = at(&listing, path).modified;
        (modified.seconds, modified.nanoseconds)
    };
    assert_eq!(time("times/1960-before-the-epoch"), (-315_619_200, 123_456_789));
    assert_eq!(time("times/1969-last-nanosecond"), (-1, 999_999_999));
    assert_eq!(time("times/folder-1950"), (-631_152_000, 999_999_999));
    assert_eq!(time("times/folder-1950/symlink-1950"), (-631_152_000, 250));
    assert_eq!(time("times/2400-new-year"), (13_569_465_600, 987_654_321));
    assert!(built.left_out.is_empty());
}

#[test]
fn every_entry_has_a_time_of_the_past() {
    let options = Options { times: false, far_future: false, ..Options::everything() };
    let options = Options { chunk_edges: false, ..options };
    let (_scratch, _, listing) = build_and_walk("past", &options);
    for (path, entry) in &listing.entries {
        let seconds = entry.modified.seconds;
        let path = path.escape_ascii();
        assert!((978_307_200..1_600_000_000).contains(&seconds), "{path}: {seconds}");
    }
}

#[test]
fn names_are_as_odd_as_promised() {
    let options =
        Options { odd_names: true, raw_names: true, long_names: true, ..Options::nothing() };
    let (_scratch, built, listing) = build_and_walk("names", &options);
    assert!(!is_left_out(&built, "names"), "{built:?}");
    let names: Vec<&[u8]> =
        listing.entries.keys().filter_map(|path| path.strip_prefix(b"names/")).collect();
    assert!(names.iter().any(|name| std::str::from_utf8(name).is_err()));
    for byte in b"\n\"\\<>&\x01\x7f\t\xff" {
        assert!(names.iter().any(|name| name.contains(byte)), "{byte:#x}");
    }
    assert!(names.iter().any(|name| name.starts_with(b"-")));
    assert_eq!(names.iter().filter(|name| name.len() == 255).count(), 4);
    assert!(names.contains(&"line-separator\u{2028}paragraph\u{2029}".as_bytes()));
}

#[test]
fn links_join_the_right_names() {
    let options = Options {
        hard_links: true,
        linked_specials: true,
        symlinks: true,
        raw_targets: true,
        long_symlink: true,
        special: true,
        ..Options::nothing()
    };
    let (_scratch, built, listing) = build_and_walk("links", &options);
    assert!(built.left_out.is_empty(), "{built:?}");
    let group = |path| {
        let group = at(&listing, path).hard_link_group.clone();
        group.map(|path| String::from_utf8(path).unwrap())
    };
    assert_eq!(group("links/left/two-again").as_deref(), Some("links/left/two"));
    assert_eq!(group("links/three").as_deref(), Some("links/left/three"));
    assert_eq!(group("links/right/three").as_deref(), Some("links/left/three"));
    assert_eq!(group("links/right/symlink").as_deref(), Some("links/left/symlink"));
    assert_eq!(group("links/right/fifo").as_deref(), Some("links/left/fifo"));
    assert_eq!(group("links/left/same-content-other-inode"), None);
    assert_eq!(at(&listing, "symlinks/to-4000-bytes").size, 4000);
    let raw = at(&listing, "symlinks/to-raw").link_target.clone().unwrap();
    assert!(String::from_utf8(raw).is_err());
    assert_eq!(at(&listing, "special/socket").kind, Kind::Socket);
    assert_eq!(at(&listing, "special/fifo").kind, Kind::Fifo);
}

#[test]
fn holes_take_no_space() {
    let options = Options { sparse: true, ..Options::nothing() };
    let (_scratch, _, listing) = build_and_walk("holes", &options);
    let all_hole = at(&listing, "sparse/all-hole");
    assert_eq!(all_hole.size, 64 << 20);
    assert_eq!(all_hole.allocated, 0);
    for name in ["leading-hole", "middle-hole", "trailing-hole", "trailing-hole-odd-size"] {
        let entry = at(&listing, &format!("sparse/{name}"));
        assert!(entry.allocated < 512 << 10, "{name}: {}", entry.allocated);
        assert!(entry.size > 3 << 20, "{name}: {}", entry.size);
    }
    let filled = at(&listing, "sparse/written-zeros");
    assert!(filled.allocated >= filled.size);
}

#[test]
fn sizes_are_at_the_edges() {
    let options = Options { chunk_edges: true, empties: true, ..Options::nothing() };
    let (_scratch, _, listing) = build_and_walk("sizes", &options);
    for size in [0u64, 1, 524_287, 524_288, 524_289, 8 << 20, (8 << 20) + 1, 20_971_597] {
        assert_eq!(at(&listing, &format!("sizes/random-{size}")).size, size);
    }
    assert_eq!(at(&listing, "empty/file").size, 0);
    assert_eq!(at(&listing, "empty/folder-with-empty-folder/inner").kind, Kind::Folder);
}

#[test]
fn root_builds_what_only_root_can() {
    let options = Options {
        owners: true,
        devices: true,
        trusted_xattrs: true,
        symlink_xattrs: true,
        capabilities: true,
        unreadable: true,
        ..Options::nothing()
    };
    let (_scratch, built, listing) = build_and_walk("root", &options);
    assert_eq!(at(&listing, "unreadable/secret").permissions, 0);
    if !is_left_out(&built, "owners") {
        let owned = at(&listing, "owners/setuid-of-12345");
        assert_eq!((owned.uid, owned.gid, owned.permissions), (12345, 54321, 0o6755));
    }
    if !is_left_out(&built, "devices") {
        assert_eq!(at(&listing, "special/block-259-70000").device, Some((259, 70_000)));
        assert_eq!(at(&listing, "special/character-10-300").kind, Kind::CharDevice);
    }
    if !is_left_out(&built, "trusted") && !is_left_out(&built, "symlink") {
        for name in ["trusted-file", "trusted-folder", "trusted-symlink"] {
            let xattrs = &at(&listing, &format!("xattrs/{name}")).xattrs;
            assert!(xattrs.contains_key(b"trusted.muster".as_slice()), "{name}");
        }
    }
    if !is_left_out(&built, "capabilities") {
        let xattrs = &at(&listing, "xattrs/capable").xattrs;
        assert!(xattrs.contains_key(b"security.capability".as_slice()));
    }
}

#[test]
fn attributes_are_set() {
    let options = Options { xattrs: true, acls: true, ..Options::nothing() };
    let (_scratch, built, listing) = build_and_walk("attributes", &options);
    if !is_left_out(&built, "xattrs") {
        let file = at(&listing, "xattrs/file");
        assert_eq!(file.xattrs[b"user.empty".as_slice()], b"");
        assert_eq!(file.xattrs[b"user.binary".as_slice()], b"\0\xff\xfe binary \0");
        assert_eq!(at(&listing, "xattrs/many").xattrs.len(), 40);
        assert_eq!(at(&listing, "xattrs/folder").xattrs[b"user.colour".as_slice()], b"blue");
    }
    if !is_left_out(&built, "acls") {
        let folder = at(&listing, "acls/folder");
        assert!(folder.xattrs.contains_key(b"system.posix_acl_access".as_slice()));
        assert!(folder.xattrs.contains_key(b"system.posix_acl_default".as_slice()));
        assert!(at(&listing, "acls/folder/older-than-the-acl").xattrs.is_empty());
    }
}

/// The ACLs are written as bytes; the system's own tool has to understand them.
#[test]
fn the_acl_tool_reads_the_acls() {
    let Some(getfacl) = peers::require("getfacl") else { return };
    let options = Options { acls: true, ..Options::nothing() };
    let (scratch, built, _) = build_and_walk("acls", &options);
    if is_left_out(&built, "acls") {
        return;
    }
    let mut command: Command = getfacl.folder(scratch.join("tree")).command();
    let output = peers::run(command.args(["-cnp", "acls/file", "acls/folder"])).unwrap();
    let text = output.expect_success().unwrap().stdout();
    let expected = "user::rw-\nuser:12345:rwx\ngroup::r--\nmask::rwx\nother::---\n\n\
                    user::rwx\ngroup::r-x\ngroup:54321:rwx\nmask::rwx\nother::r-x\n\
                    default:user::rwx\ndefault:user:1:r--\ndefault:group::---\n\
                    default:mask::r--\ndefault:other::---\n\n";
    assert_eq!(text, expected);
}
