//! What a backup does not do twice, or at all: read holes, encode folders in which nothing changed.
//! Each shortcut is held against the long way.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use muster_repository::{
    backup::{BackupOptions, BackupReport, ParentChoice},
    check::{CheckOptions, ReadData, check},
    environment::Environment,
    format::{config::Version, pack::BlobKind, tree::Tree},
    id::BlobId,
    repair::index::{RepairIndexOptions, apply, propose},
    repository::Repository,
    restore::{RestoreOptions, restore},
    run::{ProgressReading, Run},
    storage::{File, FileKind},
};
use muster_testkit::walker::walk;

use crate::common::{Sandbox, backup, restore_source};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Bytes that look random, the same each time.
fn noise(length: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// A file: its name, where it has data and how much, its length.
type Layout = (&'static str, &'static [(u64, u64)], u64);

#[test]
fn a_hole_gives_the_chunks_that_reading_its_zeros_gives() -> Result<()> {
    let sandbox = Sandbox::new("holes")?;
    let repository = sandbox.init(Version::V2)?;
    let source = sandbox.folder("source")?;
    // Holes before, between and behind data; aligned to chunks and not; too short to pass over.
    let layouts: &[Layout] = &[
        ("all-hole", &[], 5 * MIB + 17),
        ("short-hole", &[], 300 * KIB),
        ("data-first", &[(0, 700 * KIB)], 9 * MIB),
        ("data-last", &[(6 * MIB - 4 * KIB, 4 * KIB)], 6 * MIB),
        ("between", &[(512 * KIB, 4 * KIB), (4 * MIB + 4 * KIB, 2 * MIB)], 12 * MIB + 1),
        ("comb", &[(MIB, 4 * KIB), (2 * MIB, 4 * KIB), (3 * MIB, 4 * KIB)], 4 * MIB),
    ];
    for (name, data, length) in layouts {
        let sparse = fs::File::create(source.join(format!("{name}.sparse")))?;
        sparse.set_len(*length)?;
        let mut dense = vec![0; usize::try_from(*length)?];
        for (offset, bytes) in *data {
            let bytes = noise(*bytes);
            sparse.write_all_at(&bytes, *offset)?;
            dense[usize::try_from(*offset)?..][..bytes.len()].copy_from_slice(&bytes);
        }
        let kept = sparse.metadata()?.blocks() * 512;
        ensure!(kept < *length, "{name}: this file system keeps no holes");
        fs::write(source.join(format!("{name}.dense")), dense)?;
    }
    let report = backup(&repository, BackupOptions::new(vec![source.to_owned()]))?;
    assert!(report.problems.is_empty());
    let tree = tree_of(&repository, &report, &source)?;
    for (name, _, length) in layouts {
        let node = |kind| tree.get(format!("{name}.{kind}").as_bytes()).unwrap();
        assert_eq!(node("sparse").content, node("dense").content, "{name}");
        assert_eq!(node("sparse").size, *length, "{name}");
    }
    let target = sandbox.join("target");
    let indexed = repository.load_index(&Run::new())?;
    let options = RestoreOptions::new(&target);
    assert!(restore(&indexed, report.snapshot.tree, &options, &Run::new())?.is_complete());
    for (name, ..) in layouts {
        let restored = target.join(source.strip_prefix("/")?).join(format!("{name}.sparse"));
        assert!(fs::read(restored)? == fs::read(source.join(format!("{name}.dense")))?, "{name}");
    }
    Ok(())
}

#[test]
fn a_file_of_a_hundred_gigabytes_of_nothing_is_soon_done() -> Result<()> {
    let sandbox = Sandbox::new("emptiness")?;
    let repository = sandbox.init(Version::V2)?;
    let source = sandbox.folder("source")?;
    let mut disk = fs::File::create(source.join("disk.img"))?;
    disk.set_len(100 << 30)?;
    disk.seek(SeekFrom::Start(77 << 30))?;
    disk.write_all(b"the only data")?;
    let report = backup(&repository, BackupOptions::new(vec![source.to_owned()]))?;
    let tree = tree_of(&repository, &report, &source)?;
    assert_eq!(tree.nodes[0].size, 100 << 30);
    let summary = report.snapshot.summary.unwrap();
    assert_eq!((summary.total_bytes_processed, summary.data_blobs), (100 << 30, 2));
    Ok(())
}

/// The tree of the folder `source` in a snapshot, and its id. The folders above it are others'
/// too, and change at any time.
fn find_tree(
    repository: &Repository,
    report: &BackupReport,
    source: &Path,
) -> Result<(BlobId, Tree)> {
    let indexed = repository.load_index(&Run::new())?;
    let mut reader = indexed.blob_reader()?;
    let mut id = report.snapshot.tree;
    for name in source.strip_prefix("/")?.iter() {
        id = reader.tree(id)?.get(name.as_encoded_bytes()).unwrap().subtree.unwrap();
    }
    Ok((id, reader.tree(id)?))
}

fn tree_of(repository: &Repository, report: &BackupReport, source: &Path) -> Result<Tree> {
    Ok(find_tree(repository, report, source)?.1)
}

/// Something that happens to a folder between two backups.
type Change = fn(&Path) -> std::io::Result<()>;

#[test]
fn a_folder_is_recorded_as_if_there_were_no_parent() -> Result<()> {
    let sandbox = Sandbox::new("shortcuts")?;
    let repository = sandbox.init(Version::V2)?;
    let source = sandbox.folder("source")?;
    for folder in ["a", "a/deep", "b"] {
        fs::create_dir(source.join(folder))?;
        for name in ["1", "3", "5"] {
            write_long_ago(&source.join(folder).join(name), name.as_bytes())?;
        }
    }
    symlink("3", source.join("a/link"))?;
    // Each is done to what the ones before left.
    let changes: &[(&str, Change)] = &[
        ("nothing", |_| Ok(())),
        ("a mode", |s| fs::set_permissions(s.join("a/3"), fs::Permissions::from_mode(0o600))),
        ("a first entry", |s| write_long_ago(&s.join("a/0"), b"0")),
        ("an entry in the middle", |s| write_long_ago(&s.join("a/deep/2"), b"2")),
        ("a last entry", |s| write_long_ago(&s.join("b/9"), b"9")),
        ("the first removed", |s| fs::remove_file(s.join("a/0"))),
        ("the last removed", |s| fs::remove_file(s.join("b/9"))),
        ("one renamed", |s| fs::rename(s.join("b/3"), s.join("b/4"))),
        ("two exchanged", |s| {
            fs::rename(s.join("b/1"), s.join("b/x"))?;
            fs::rename(s.join("b/5"), s.join("b/1"))?;
            fs::rename(s.join("b/x"), s.join("b/5"))
        }),
        ("content", |s| write_long_ago(&s.join("a/deep/1"), b"other content")),
        ("a link", |s| {
            fs::remove_file(s.join("a/link"))?;
            symlink("5", s.join("a/link"))
        }),
        ("another kind", |s| {
            fs::remove_file(s.join("a/5"))?;
            fs::create_dir(s.join("a/5"))
        }),
        ("a folder removed", |s| fs::remove_dir_all(s.join("a/deep"))),
        ("all removed", |s| {
            fs::remove_dir_all(s.join("b"))?;
            fs::create_dir(s.join("b"))
        }),
    ];
    assert_recorded_alike(&repository, &source, changes)?;
    Ok(())
}

/// Tens of thousands of files, whose tree is not held as a whole.
#[test]
fn a_huge_folder_is_recorded_as_if_there_were_no_parent() -> Result<()> {
    let sandbox = Sandbox::new("huge")?;
    let repository = sandbox.init(Version::V2)?;
    let source = sandbox.folder("source")?;
    for number in 0..30_000 {
        write_long_ago(&numbered(&source, number), b"")?;
    }
    symlink("3", source.join("12345-link"))?;
    fs::create_dir(source.join("20000-folder"))?;
    let changes: &[(&str, Change)] = &[
        ("nothing", |_| Ok(())),
        ("a last entry", |s| write_long_ago(&s.join("~"), b"0")),
        ("an entry in the middle", |s| write_long_ago(&s.join("15000-x"), b"2")),
        ("content late and early", |s| {
            write_long_ago(&numbered(s, 29_000), b"late")?;
            write_long_ago(&numbered(s, 2), b"early")
        }),
        ("a first entry, the last removed", |s| {
            write_long_ago(&s.join("0"), b"0")?;
            fs::remove_file(s.join("~"))
        }),
        ("a link", |s| {
            fs::remove_file(s.join("12345-link"))?;
            symlink("5", s.join("12345-link"))
        }),
        ("a folder in it", |s| write_long_ago(&s.join("20000-folder/x"), b"x")),
        ("some removed", |s| (0..3_000).try_for_each(|n| fs::remove_file(numbered(s, n)))),
    ];
    let tree = assert_recorded_alike(&repository, &source, changes)?;
    let indexed = repository.load_index(&Run::new())?;
    let found = indexed.index().find(BlobKind::Tree, tree).context("the tree")?;
    let length = found.blob.plaintext_length();
    assert!(u64::from(length) > 8 * MIB, "{length} bytes are held as a whole");
    Ok(())
}

/// One of many files; long names make a long tree.
fn numbered(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number:05}{}", "-name".repeat(20)))
}

/// Backs up after each change, and then when nothing changes any more, with a parent and without;
/// returns the last tree of the source.
fn assert_recorded_alike(
    repository: &Repository,
    source: &Path,
    changes: &[(&str, Change)],
) -> Result<BlobId> {
    let mut before: Option<BlobId> = None;
    for (what, change) in changes {
        change(source)?;
        // The files are younger than the parent's start; only their times of modification are not.
        let options =
            BackupOptions { ignore_ctime: true, ..BackupOptions::new(vec![source.to_owned()]) };
        let quick = backup(repository, options)?;
        let options = BackupOptions {
            parent: ParentChoice::Nothing,
            ..BackupOptions::new(vec![source.to_owned()])
        };
        let long = backup(repository, options)?;
        let (quick, _) = find_tree(repository, &quick, source)?;
        let (long, _) = find_tree(repository, &long, source)?;
        assert_eq!(quick, long, "after {what}");
        let changed = before.is_none_or(|before| before != quick);
        assert_eq!(changed, before.is_none() || *what != "nothing", "after {what}");
        before = Some(quick);
    }
    // Now nothing changes any more.
    let options =
        BackupOptions { ignore_ctime: true, ..BackupOptions::new(vec![source.to_owned()]) };
    let report = backup(repository, options)?;
    let (tree, _) = find_tree(repository, &report, source)?;
    assert_eq!(Some(tree), before);
    let summary = report.snapshot.summary.unwrap();
    assert_eq!((summary.files_new, summary.files_changed, summary.dirs_new), (0, 0, 0));
    Ok(tree)
}

#[test]
fn how_much_there_is_to_do_is_known_from_the_parent() -> Result<()> {
    let sandbox = Sandbox::new("guess")?;
    let repository = sandbox.init(Version::V2)?;
    let source = sandbox.folder("source")?;
    fs::write(source.join("one"), "1")?;
    fs::write(source.join("two"), "22")?;
    let told = || -> Result<ProgressReading> {
        let (run, environment) = (Run::new(), Environment::detect());
        let options =
            BackupOptions { count_first: true, ..BackupOptions::new(vec![source.to_owned()]) };
        drop(muster_repository::backup::backup(&repository, options, &environment, &run)?);
        Ok(run.progress.read())
    };
    let counted = told()?;
    assert_eq!((counted.files_total, counted.bytes_total), (Some(2), Some(3)));
    assert!(!counted.is_guess);
    // A second walk would count one.
    fs::remove_file(source.join("two"))?;
    let guessed = told()?;
    assert_eq!((guessed.files_total, guessed.bytes_total), (Some(2), Some(3)));
    assert!(guessed.is_guess && guessed.files_done == 1, "{guessed:?}");
    Ok(())
}

/// Somebody deleted a pack: what it held counts as not stored, be it of files or of folders.
#[test]
fn what_a_lost_pack_held_is_stored_again() -> Result<()> {
    let sandbox = Sandbox::new("lost")?;
    let repository = sandbox.init(Version::V2)?;
    let source = sandbox.folder("source")?;
    fs::create_dir(source.join("folder"))?;
    fs::write(source.join("folder/noise"), noise(3 * MIB))?;
    write_long_ago(&source.join("text"), b"the same as ever")?;
    let options =
        || BackupOptions { ignore_ctime: true, ..BackupOptions::new(vec![source.to_owned()]) };
    drop(backup(&repository, options())?);
    let packs = repository.storage().list(FileKind::Pack)?;
    ensure!(packs.len() >= 2, "{packs:?}");
    for lost in packs {
        repository.storage().delete(lost.file)?;
        let report = backup(&repository, options())?;
        let [loss] = report.losses.as_slice() else { bail!("{:?}", report.losses) };
        assert_eq!(loss.code, "packs-gone");
        let message = &loss.message;
        assert!(message.starts_with("1 pack ("), "{message}");
        assert!(message.contains("is gone or cut short: "), "{message}");
        let target = sandbox.join(&lost.file.to_string().replace('/', "-"));
        let restored = restore_source(&repository, &report.snapshot, &source, &target)?;
        assert_eq!(walk(&restored)?.lines(), walk(&source)?.lines());
        let proposal = propose(&repository, RepairIndexOptions::default(), &Run::new())?;
        apply(&repository, proposal, &Run::new())?;
        assert_eq!(backup(&repository, options())?.losses, []);
    }
    // What older snapshots alone needed is lost.
    let newest = *backup(&repository, options())?.id.as_ref().context("a snapshot")?;
    let report = check(&repository, &CheckOptions { read_data: ReadData::All }, &Run::new())?;
    assert!(report.damages.iter().all(|damage| !damage.snapshots.contains(&newest)));
    Ok(())
}

#[test]
fn what_was_cut_off_packs_is_stored_again() -> Result<()> {
    let sandbox = Sandbox::new("cut-short")?;
    let repository = sandbox.init(Version::V2)?;
    let source = sandbox.folder("source")?;
    write_long_ago(&source.join("text"), b"the same as ever")?;
    let options = || BackupOptions::new(vec![source.to_owned()]);
    drop(backup(&repository, options())?);
    let packs = repository.storage().list(FileKind::Pack)?;
    for pack in &packs {
        let file = fs::File::options().write(true).open(path_of(&repository, pack.file)?)?;
        file.set_len(8)?;
    }
    let report = backup(&repository, options())?;
    let [loss] = report.losses.as_slice() else { bail!("{:?}", report.losses) };
    assert_eq!(loss.code, "packs-gone");
    assert!(loss.message.starts_with(&format!("{} packs (", packs.len())), "{}", loss.message);
    let restored =
        restore_source(&repository, &report.snapshot, &source, &sandbox.join("restored"))?;
    assert_eq!(walk(&restored)?.lines(), walk(&source)?.lines());
    Ok(())
}

#[test]
fn folders_that_the_parent_cannot_show_any_more_are_stored_again() -> Result<()> {
    let sandbox = Sandbox::new("damaged-folders")?;
    let repository = sandbox.init(Version::V2)?;
    let source = sandbox.folder("source")?;
    fs::create_dir_all(source.join("above/folder"))?;
    write_long_ago(&source.join("above/folder/text"), b"the same as ever")?;
    let options = || BackupOptions::new(vec![source.to_owned()]);
    let first = backup(&repository, options())?;
    let indexed = repository.load_index(&Run::new())?;
    let tree = indexed.index().find(BlobKind::Tree, first.snapshot.tree).context("a tree")?;
    let pack = path_of(&repository, File::Pack(tree.pack))?;
    let damaged = fs::File::options().read(true).write(true).open(&pack)?;
    let mut byte = [0];
    damaged.read_exact_at(&mut byte, tree.blob.offset.into())?;
    damaged.write_all_at(&[!byte[0]], tree.blob.offset.into())?;
    let second = backup(&repository, options())?;
    assert_eq!(second.snapshot.tree, first.snapshot.tree, "nothing has changed");
    let [loss] = second.losses.as_slice() else { bail!("{:?}", second.losses) };
    assert_eq!(loss.code, "packs-damaged");
    assert!(loss.message.contains(&tree.pack.to_string()), "{}", loss.message);
    // The pack itself is gone now: all that it held is elsewhere too.
    fs::remove_file(&pack)?;
    let restored =
        restore_source(&repository, &second.snapshot, &source, &sandbox.join("restored"))?;
    assert_eq!(walk(&restored)?.lines(), walk(&source)?.lines());
    Ok(())
}

/// The file itself.
fn path_of(repository: &Repository, file: File) -> Result<PathBuf> {
    Ok(repository.storage().local_folder().context("a folder")?.join(file.to_string()))
}

fn write_long_ago(path: &Path, content: &[u8]) -> std::io::Result<()> {
    fs::write(path, content)?;
    let seed = content.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    fs::File::options()
        .append(true)
        .open(path)?
        .set_modified(UNIX_EPOCH + Duration::from_secs(1_600_000_000 + seed))
}
