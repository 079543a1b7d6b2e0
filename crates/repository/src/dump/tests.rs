//! Dumps are read back with the system's own tools.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _, fs::MetadataExt as _},
    path::Path,
    process::Command,
};

use muster_testkit::{Scratch, peers};

use super::*;
use crate::{
    format::{mode::go_mode, time::Timestamp},
    storage::{File, FileKind, Storage as _},
    tree_walk::sample::{Item, Sample, dir, file},
};

const LONG: &[u8] = &[b'n'; 200];

fn node(kind: NodeKind, change: impl FnOnce(&mut Node)) -> Item {
    let mut node = Node::new(Vec::new(), kind);
    node.mode = go_mode(kind, 0o640);
    change(&mut node);
    Item::Node(Box::new(node))
}

/// Three chunks that compress in different ways.
fn chunks() -> Vec<Vec<u8>> {
    let noise = (0..700_000_u32).map(|n| n.wrapping_mul(0x9e37_79b1).to_be_bytes()[0]).collect();
    vec![b"text ".repeat(200_000), noise, b"end".to_vec()]
}

fn tree() -> Item {
    let linked = || {
        node(NodeKind::File, |node| {
            (node.links, node.inode, node.device_id, node.size) = (2, 7, 1, 3);
            node.content = Some(vec![BlobId::of(b"end")]);
            node.mtime = Timestamp::new(-3, 250_000_000, 0);
        })
    };
    let deep =
        dir([(LONG, dir([(LONG, dir([(b"\xfflong".repeat(30).as_slice(), file(b"deep"))]))]))]);
    dir([
        (&b"a-large"[..], Item::File(chunks())),
        (b"b-link", node(NodeKind::Symlink, |node| node.link_target = b"../\xff".repeat(60))),
        (b"c-hard", linked()),
        (b"d-hard", linked()),
        (b"e-fifo", node(NodeKind::Fifo, |_| {})),
        (b"f-socket", node(NodeKind::Socket, |_| {})),
        (b"g-deep", deep),
        (b"h-\xff", file(b"")),
        (b"i-empty", dir([])),
        (
            b"j-time",
            node(NodeKind::File, |node| {
                node.content = Some(vec![]);
                node.mtime = Timestamp::new(1_000_000_001, 0, 0);
            }),
        ),
    ])
}

fn sample() -> (Sample, BlobId) {
    let sample = Sample::new();
    let root = sample.write(&tree());
    (sample, root)
}

fn dumped(path: &[u8], format: ArchiveFormat) -> Result<(Vec<u8>, DumpReport), DumpError> {
    let (sample, root) = sample();
    let repository = sample.indexed();
    let target = find_target(&repository, root, path)?;
    let mut bytes = Vec::new();
    let report = dump(&repository, target, format, &Run::new(), &mut bytes)?;
    Ok((bytes, report))
}

fn unpack(program: &str, arguments: &[&str], archive: &Path, target: &Path) {
    let output = Command::new(program).args(arguments).arg(archive).current_dir(target).output();
    let output = output.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
}

#[test]
fn a_file_is_written_as_it_is() {
    let (bytes, report) = dumped(b"/a-large", ArchiveFormat::Tar).unwrap();
    assert!(bytes == chunks().concat());
    assert_eq!((report.entries, report.bytes), (1, bytes.len() as u64));
    assert_eq!(dumped(b"h-\xff", ArchiveFormat::Tar).unwrap().0, b"");
}

#[test]
fn what_has_no_content_is_refused() {
    let code = |path| dumped(path, ArchiveFormat::Tar).unwrap_err().code();
    assert_eq!(code(b"/nothing"), "path-not-found");
    assert_eq!(code(b"/e-fifo"), "no-content");
    assert_eq!(code(b"/a-large/x"), "not-a-folder");
}

#[test]
fn tar_reads_the_archive() {
    let (bytes, report) = dumped(b"/", ArchiveFormat::Tar).unwrap();
    assert_eq!(report.left_out, [(b"/f-socket".to_vec(), NodeKind::Socket)]);
    let scratch = Scratch::new("dump-tar").unwrap();
    let archive = scratch.join("archive.tar");
    fs::write(&archive, bytes).unwrap();
    let target = scratch.join("out");
    fs::create_dir(&target).unwrap();
    unpack("tar", &["-xpf"], &archive, &target);
    let at = |name: &[u8]| target.join(OsStr::from_bytes(name));
    assert!(fs::read(at(b"a-large")).unwrap() == chunks().concat());
    let link = fs::read_link(at(b"b-link")).unwrap();
    assert_eq!(link.as_os_str().as_bytes(), b"../\xff".repeat(60));
    let (first, second) =
        (fs::metadata(at(b"c-hard")).unwrap(), fs::metadata(at(b"d-hard")).unwrap());
    assert_eq!((first.ino(), first.nlink()), (second.ino(), 2));
    assert_eq!((first.mtime(), first.mtime_nsec()), (-3, 250_000_000));
    assert_eq!(first.mode() & 0o7777, 0o640);
    assert!(fs::metadata(at(b"e-fifo")).unwrap().file_type().is_fifo());
    let deep = [b"g-deep", LONG, LONG, b"\xfflong".repeat(30).as_slice()].join(&b'/');
    assert_eq!(fs::read(at(&deep)).unwrap(), b"deep");
    assert_eq!(fs::read(at(b"h-\xff")).unwrap(), b"");
    assert!(at(b"i-empty").is_dir());
}

#[test]
fn names_begin_at_the_snapshots_root() {
    let (bytes, report) = dumped(b"/g-deep/", ArchiveFormat::Tar).unwrap();
    assert_eq!(report.entries, 3);
    let scratch = Scratch::new("dump-sub").unwrap();
    fs::write(scratch.join("archive.tar"), bytes).unwrap();
    unpack("tar", &["-xf"], &scratch.join("archive.tar"), scratch.path());
    assert!(scratch.join("g-deep").is_dir());
}

#[test]
fn unzip_reads_the_archive() {
    let Some(unzip) = peers::find("unzip") else { return };
    let (bytes, report) = dumped(b"", ArchiveFormat::Zip).unwrap();
    assert_eq!(report.left_out.len(), 2);
    let scratch = Scratch::new("dump-zip").unwrap();
    let archive = scratch.join("archive.zip");
    fs::write(&archive, bytes).unwrap();
    unpack(unzip.to_str().unwrap(), &["-tq"], &archive, scratch.path());
    unpack(unzip.to_str().unwrap(), &["-q"], &archive, scratch.path());
    assert!(fs::read(scratch.join("a-large")).unwrap() == chunks().concat());
    assert_eq!(fs::read(scratch.join("d-hard")).unwrap(), b"end");
    let timed = fs::metadata(scratch.join("j-time")).unwrap();
    assert_eq!((timed.mtime(), timed.mode() & 0o777), (1_000_000_001, 0o640));
    assert!(scratch.join("i-empty").is_dir());
    assert!(fs::symlink_metadata(scratch.join("b-link")).unwrap().is_symlink());
}

#[test]
fn damage_ends_the_dump_and_names_the_file() {
    let (sample, root) = sample();
    let repository = sample.indexed();
    for listed in sample.storage.list(FileKind::Pack).unwrap() {
        let File::Pack(id) = listed.file else { continue };
        if repository.index().pack_blobs(&id)[0].kind == BlobKind::Data {
            sample.storage.delete(listed.file).unwrap();
        }
    }
    let target = find_target(&repository, root, b"").unwrap();
    let result = dump(&repository, target, ArchiveFormat::Tar, &Run::new(), &mut io::sink());
    assert_eq!(result.unwrap_err().to_string(), "dump '/a-large'");
}

#[test]
fn a_failing_writer_ends_the_dump() {
    let (sample, root) = sample();
    let repository = sample.indexed();
    for room in [0, 1, 600, 4000] {
        let mut space = vec![0; room];
        let target = find_target(&repository, root, b"").unwrap();
        let to = &mut &mut space[..];
        let result = dump(&repository, target, ArchiveFormat::Zip, &Run::new(), to);
        assert_eq!(result.unwrap_err().code(), "write-failed", "{room}");
    }
}
