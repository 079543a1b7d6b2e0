//! Any tree comes back as it was, and every kind of backup records the same tree.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use muster_model::BackupKind;
use muster_repository::{
    backup::{BackupOptions, BackupReport, ParentChoice},
    format::{config::Version, time::Timestamp},
    id::{BlobId, SnapshotId},
    repository::Repository,
    run::Run,
    storage::File,
    tree_walk::find_subtree,
};
use muster_testkit::{
    wait_for,
    walker::{Tolerance, assert_same, walk},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::common::{Sandbox, assert_clean, backup, restore_source};

/// Seconds since 1970 that ext4 and most other file systems can hold: 1901 to 2446.
const MODIFIED: std::ops::Range<i64> = -(1 << 31)..(1 << 34) - (1 << 31);

/// What is made, in the folder that `place` picks from those made before it.
#[derive(Debug, Clone)]
struct Item {
    place: Index,
    name: Vec<u8>,
    what: What,
    permissions: u32,
    modified: (i64, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Clone)]
enum What {
    Folder,
    /// This many bytes, random or all of one value.
    File {
        bytes: usize,
        seed: u64,
    },
    Symlink(Vec<u8>),
    Fifo,
    /// One more name of a file or FIFO that was made before.
    HardLink(Index),
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_map(|byte| if byte == 0 || byte == b'/' { b'_' } else { byte });
    let raw = prop_oneof![6 => vec(byte.clone(), 1..12), 1 => vec(byte, 250..=255)];
    let text = "[a-z .\\\\\"\u{e4}\u{2028}]{1,8}".prop_map(String::into_bytes);
    prop_oneof![raw, text]
        .prop_filter("is no name", |name| !matches!(name[..], [b'.'] | [b'.', b'.']))
}

fn any_size() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => Just(0_usize),
        10 => 1..5_000_usize,
        2 => 5_000..200_000_usize,
        1 => (512 << 10) - 2..(512 << 10) + 3_usize,
        1 => (512 << 10)..(3_usize << 20),
    ]
}

fn any_what() -> impl Strategy<Value = What> {
    let target = vec(1..=u8::MAX, 1..60);
    prop_oneof![
        4 => Just(What::Folder),
        10 => (any_size(), 0..1_000_u64).prop_map(|(bytes, seed)| What::File { bytes, seed }),
        2 => target.prop_map(What::Symlink),
        1 => Just(What::Fifo),
        2 => any::<Index>().prop_map(What::HardLink),
    ]
}

prop_compose! {
    fn any_item()(
        place: Index,
        name in any_name(),
        what in any_what(),
        permissions in prop_oneof![select(&[0o644_u32, 0o755, 0o600, 0o7777][..]), 0..=0o7777_u32],
        seconds in prop_oneof![MODIFIED, -3..3_i64, select(&[MODIFIED.start, MODIFIED.end - 1][..])],
        nanoseconds in prop_oneof![Just(0), Just(999_999_999), 0..1_000_000_000_u32],
        xattrs in prop_oneof![4 => Just(Vec::new()), 1 => vec(("[a-z.]{1,9}", vec(any::<u8>(), 0..99)), 1..4)],
    ) -> Item {
        let named = |(name, value): (String, Vec<u8>)| (format!("user.{name}").into_bytes(), value);
        let xattrs = xattrs.into_iter().map(named).collect();
        Item { place, name, what, permissions, modified: (seconds, nanoseconds), xattrs }
    }
}

fn content(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    match seed % 8 {
        // Zeros become holes.
        0 => vec![0; bytes],
        1 => vec![b'x'; bytes],
        _ => (0..bytes).map(|_| next()).collect(),
    }
}

/// Makes the items below `root`; those whose name is taken are left out. As root everything stays
/// readable whatever the permissions; else owners are given the right to read.
fn make(root: &Path, items: &[Item]) -> anyhow::Result<()> {
    let (mut folders, mut linkable) = (vec![root.to_path_buf()], Vec::new());
    let mut made = Vec::new();
    for item in items {
        let folder = &folders[item.place.index(folders.len())];
        let path = folder.join(OsString::from_vec(item.name.clone()));
        // Deep folders with long names: the walk copes, these plain calls do not.
        if path.as_os_str().len() > 3_000 || path.symlink_metadata().is_ok() {
            continue;
        }
        match &item.what {
            What::Folder => {
                fs::create_dir(&path)?;
                folders.push(path.clone());
            }
            What::File { bytes, seed } => {
                fs::write(&path, content(*bytes, *seed))?;
                linkable.push(path.clone());
            }
            What::Symlink(target) => {
                symlink(OsStr::new(&OsString::from_vec(target.clone())), &path)?
            }
            What::Fifo => {
                rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0)?;
                linkable.push(path.clone());
            }
            What::HardLink(_) if linkable.is_empty() => continue,
            What::HardLink(index) => fs::hard_link(&linkable[index.index(linkable.len())], &path)?,
        }
        made.push((path, item));
    }
    // Inner things first, so that the times of folders last.
    for (path, item) in made.into_iter().rev() {
        set_metadata(&path, item)?;
    }
    Ok(())
}

fn set_metadata(path: &Path, item: &Item) -> anyhow::Result<()> {
    let needed = match item.what {
        _ if rustix::process::geteuid().is_root() => 0,
        What::Folder => 0o700,
        _ => 0o600,
    };
    if matches!(item.what, What::Folder | What::File { .. }) {
        for (name, value) in &item.xattrs {
            match rustix::fs::setxattr(path, &name[..], value, XattrFlags::empty()) {
                Err(rustix::io::Errno::OPNOTSUPP) => {}
                other => other?,
            }
        }
    }
    if !matches!(item.what, What::Symlink(_)) {
        fs::set_permissions(path, fs::Permissions::from_mode(item.permissions | needed))?;
    }
    let time = Timespec { tv_sec: item.modified.0, tv_nsec: item.modified.1.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// The tree of the source folder. Those above it change all the time.
fn source_tree(
    repository: &Repository,
    report: &BackupReport,
    source: &Path,
) -> anyhow::Result<BlobId> {
    let index = repository.load_index(&Run::new())?;
    let path = source.as_os_str().as_bytes();
    Ok(find_subtree(&mut index.blob_reader()?, report.snapshot.tree, path)?)
}

fn options(source: &Path, kind: BackupKind) -> BackupOptions {
    BackupOptions { kind, ..BackupOptions::new(vec![source.to_path_buf()]) }
}

/// A copy of a snapshot that claims to have been made an hour later, so that a backup trusts the
/// files that changed shortly before the real one. The clock is not ours to turn.
fn aged(repository: &Repository, report: &BackupReport) -> anyhow::Result<SnapshotId> {
    let mut snapshot = report.snapshot.clone();
    let summary = snapshot.summary.as_mut().expect("a summary");
    let start = summary.backup_start;
    let later = start.seconds() + 3_600;
    summary.backup_start = Timestamp::from_unix(later, 0, &jiff::tz::TimeZone::UTC);
    Ok(repository.save_unpacked(File::Snapshot, &snapshot)?)
}

/// Waits until a change now gets another change time than everything before.
fn wait_for_next_tick(probe: &Path) -> anyhow::Result<()> {
    let change_time = || {
        fs::write(probe, "x").ok()?;
        let status = probe.metadata().ok()?;
        Some((status.ctime(), status.ctime_nsec()))
    };
    let before = change_time();
    wait_for("the file system's clock", Duration::from_secs(10), || {
        (change_time() > before).then_some(())
    })
}

/// A change to one thing of a tree.
#[derive(Debug, Clone)]
enum Change {
    /// New content of the same size, with the time that it had.
    Overwrite(u64),
    Append,
    Touch(i64),
    Permissions(u32),
    Remove,
    Rename(Vec<u8>),
    Add(Box<Item>),
    /// A file becomes a folder, and the other way round.
    Swap,
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => any::<u64>().prop_map(Change::Overwrite),
        2 => Just(Change::Append),
        1 => MODIFIED.prop_map(Change::Touch),
        1 => (0o400..=0o777_u32).prop_map(Change::Permissions),
        2 => Just(Change::Remove),
        2 => any_name().prop_map(Change::Rename),
        2 => any_item().prop_map(|item| Change::Add(Box::new(item))),
        1 => Just(Change::Swap),
    ]
}

/// All paths below `root`, in byte order.
fn paths(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let names = walk(root)?.entries.into_keys().filter(|path| !path.is_empty());
    Ok(names.map(|path| root.join(OsString::from_vec(path))).collect())
}

fn apply(root: &Path, place: Index, change: &Change) -> anyhow::Result<()> {
    let paths = paths(root)?;
    if let Change::Add(item) = change {
        return make(root, std::slice::from_ref(item));
    }
    if paths.is_empty() {
        return Ok(());
    }
    let path = &paths[place.index(paths.len())];
    let status = path.symlink_metadata()?;
    match change {
        Change::Overwrite(seed) if status.is_file() => {
            let size = usize::try_from(status.len())?;
            let old = Timespec { tv_sec: status.mtime(), tv_nsec: status.mtime_nsec() };
            let times = Timestamps { last_access: old, last_modification: old };
            fs::write(path, content(size, *seed))?;
            rustix::fs::utimensat(CWD, path, &times, AtFlags::empty())?;
        }
        Change::Append if status.is_file() => {
            let mut bytes = fs::read(path)?;
            bytes.extend_from_slice(b"more");
            fs::write(path, bytes)?;
        }
        Change::Touch(seconds) => {
            let time = Timespec { tv_sec: *seconds, tv_nsec: 1 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Change::Permissions(bits) if !status.is_symlink() => {
            let needed = if status.is_dir() { 0o700 } else { 0o600 };
            fs::set_permissions(path, fs::Permissions::from_mode(bits | needed))?;
        }
        Change::Remove if status.is_dir() => fs::remove_dir_all(path)?,
        Change::Remove => fs::remove_file(path)?,
        Change::Rename(name) => {
            let target = path.with_file_name(OsString::from_vec(name.clone()));
            if target.symlink_metadata().is_err() && target.as_os_str().len() < 3_500 {
                fs::rename(path, target)?;
            }
        }
        Change::Swap if status.is_dir() => {
            fs::remove_dir_all(path)?;
            fs::write(path, "a folder once")?;
        }
        Change::Swap => {
            fs::remove_file(path)?;
            fs::create_dir(path)?;
        }
        _ => {}
    }
    Ok(())
}

fn comes_back(items: &[Item]) -> anyhow::Result<()> {
    let sandbox = Sandbox::new("any-tree")?;
    let source = sandbox.folder("source")?;
    make(&source, items)?;
    let before = walk(&source)?;
    let repository = sandbox.init(Version::V2)?;
    let first = backup(&repository, options(&source, BackupKind::Incremental))?;
    anyhow::ensure!(first.problems.is_empty(), "{:?}", first.problems);
    let target = sandbox.join("restored");
    let restored = restore_source(&repository, &first.snapshot, &source, &target)?;
    assert_same(&before, &walk(&restored)?, &Tolerance::default());

    let tree = source_tree(&repository, &first, &source)?;
    let above = u64::try_from(source.components().count())?;
    // An unchanged tree: nothing new, whether files are trusted or read again.
    let parent = aged(&repository, &first)?;
    let trusting = BackupOptions {
        parent: ParentChoice::Snapshot(parent),
        ..options(&source, BackupKind::Incremental)
    };
    for options in [trusting, options(&source, BackupKind::Full)] {
        let kind = options.kind;
        let again = backup(&repository, options)?;
        let summary = again.snapshot.summary.as_ref().expect("a summary");
        anyhow::ensure!(summary.data_blobs == 0 && summary.tree_blobs <= above, "{summary:?}");
        let files = summary.total_files_processed;
        let trusted = if kind == BackupKind::Full { 0 } else { files };
        anyhow::ensure!(summary.files_unmodified == trusted, "{kind}: {summary:?}");
        anyhow::ensure!(source_tree(&repository, &again, &source)? == tree, "another tree");
    }
    assert_clean(&repository);
    Ok(())
}

fn incremental_equals_full(items: &[Item], changes: &[(Index, Change)]) -> anyhow::Result<()> {
    let sandbox = Sandbox::new("any-change")?;
    let source = sandbox.folder("source")?;
    make(&source, items)?;
    let repository = sandbox.init(Version::V2)?;
    let first = backup(&repository, options(&source, BackupKind::Full))?;
    let parent = aged(&repository, &first)?;
    wait_for_next_tick(&sandbox.join("probe"))?;
    for (place, change) in changes {
        apply(&source, *place, change)?;
    }
    let incremental = BackupOptions {
        parent: ParentChoice::Snapshot(parent),
        ..options(&source, BackupKind::Incremental)
    };
    let incremental = backup(&repository, incremental)?;
    let full = backup(&repository, options(&source, BackupKind::Full))?;
    let tree = |report| source_tree(&repository, report, &source);
    anyhow::ensure!(tree(&incremental)? == tree(&full)?, "incremental differs from full");
    let stored = full.snapshot.summary.as_ref().map(|summary| summary.data_blobs);
    anyhow::ensure!(stored == Some(0), "the incremental backup left {stored:?} blobs out");
    let target = sandbox.join("restored");
    let restored = restore_source(&repository, &incremental.snapshot, &source, &target)?;
    assert_same(&walk(&source)?, &walk(&restored)?, &Tolerance::default());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn any_tree_comes_back_and_is_not_stored_again(items in vec(any_item(), 0..40)) {
        comes_back(&items).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
    }

    #[test]
    fn after_any_change_an_incremental_backup_equals_a_full_one(
        items in vec(any_item(), 0..30),
        changes in vec((any::<Index>(), any_change()), 0..12),
    ) {
        incremental_equals_full(&items, &changes)
            .map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
    }
}

#[test]
fn each_kind_compares_with_the_snapshot_that_it_promises() -> anyhow::Result<()> {
    use BackupKind::{Differential, Full, Incremental};
    let sandbox = Sandbox::new("kinds")?;
    let source = sandbox.folder("source")?;
    let repository = sandbox.init(Version::V2)?;
    let mut ids: Vec<SnapshotId> = Vec::new();
    let mut trees = BTreeSet::new();
    // Each with the place of the parent that it shall have.
    let runs = [
        (Differential, None),
        (Incremental, Some(0)),
        (Full, None),
        (Incremental, Some(2)),
        (Differential, Some(2)),
        (Incremental, Some(4)),
        (Differential, Some(2)),
        (Full, None),
        (Differential, Some(7)),
    ];
    for (number, (kind, parent)) in runs.into_iter().enumerate() {
        fs::write(source.join(format!("file-{number}")), number.to_string())?;
        let report = backup(&repository, options(&source, kind))?;
        assert_eq!(report.snapshot.parent, parent.map(|parent: usize| ids[parent]), "{number}");
        assert_eq!(report.snapshot.tags, [kind.tag()]);
        ids.push(report.id.expect("a snapshot"));
        trees.insert(report.snapshot.tree);
        let restored = sandbox.join(&format!("restored-{number}"));
        let restored = restore_source(&repository, &report.snapshot, &source, &restored)?;
        assert_same(&walk(&source)?, &walk(&restored)?, &Tolerance::default());
    }
    assert_eq!(trees.len(), ids.len());
    Ok(())
}
