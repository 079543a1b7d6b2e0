//! Restoring real trees: everything that Linux can store, there and back.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use muster_model::{Class, Fault};
use muster_repository::{
    backup::BackupOptions,
    format::config::Version,
    repository::Repository,
    restore::{Overwrite, RestoreError, RestoreOptions, RestoreReport, restore},
    run::Run,
    tree_walk::find_subtree,
};
use muster_testkit::{
    odd_tree::{self, Options},
    peers,
    walker::{Kind, Listing, Tolerance, assert_same, walk},
};

use crate::common::{PASSWORD, Sandbox, backup, open_at, restic};

/// Restores `folder` of the only snapshot.
fn restore_folder(
    repository: &Repository,
    folder: &Path,
    options: &RestoreOptions,
) -> anyhow::Result<RestoreReport> {
    use std::os::unix::ffi::OsStrExt;
    let run = Run::new();
    let (_, snapshot) = repository.snapshots()?.pop().expect("one snapshot");
    let indexed = repository.load_index(&run)?;
    let path = folder.as_os_str().as_bytes();
    let tree = find_subtree(&mut indexed.blob_reader()?, snapshot.tree, path)?;
    Ok(restore(&indexed, tree, options, &run)?)
}

fn tolerance() -> Tolerance {
    Tolerance {
        // The target keeps its own metadata, and nothing makes a socket but its process.
        ignore_root: true,
        may_miss: vec![Kind::Socket],
        allocated_slack: Some(64 << 10),
        ..Tolerance::default()
    }
}

/// A sandbox whose repository holds `source`.
fn sandbox_with(name: &str, options: &Options) -> anyhow::Result<(Sandbox, PathBuf, Repository)> {
    let sandbox = Sandbox::new(name)?;
    let source = sandbox.folder("source")?;
    odd_tree::build(&source, options)?;
    lock_out_of_a_linked_file(&source)?;
    let repository = sandbox.init(Version::V2)?;
    let report = backup(&repository, BackupOptions::new(vec![source.clone()]))?;
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    Ok((sandbox, source, repository))
}

/// The first name of an inode lies where its owner may not enter, the second where he may.
fn lock_out_of_a_linked_file(source: &Path) -> anyhow::Result<()> {
    let (locked, open) = (source.join("a-locked/inner"), source.join("b-open"));
    std::fs::create_dir_all(&locked)?;
    std::fs::create_dir(&open)?;
    std::fs::write(locked.join("first"), "linked")?;
    std::fs::hard_link(locked.join("first"), open.join("second"))?;
    for folder in [&locked, &source.join("a-locked")] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o000))?;
    }
    Ok(())
}

#[test]
fn everything_comes_back_exactly() -> anyhow::Result<()> {
    let (sandbox, source, repository) = sandbox_with("restore-all", &Options::everything())?;
    let before = walk(&source)?;
    let mut options = RestoreOptions::new(sandbox.join("target"));
    options.verify = true;
    let report = restore_folder(&repository, &source, &options)?;
    assert!(report.is_complete(), "{:?}", report.problems);
    assert_eq!(report.not_restored.len(), 1, "the socket: {:?}", report.not_restored);
    assert_same(&before, &walk(&options.target)?, &tolerance());

    // Again over what is there: nothing is written, and it is still the same.
    options.overwrite = Overwrite::IfChanged;
    options.delete = true;
    let report = restore_folder(&repository, &source, &options)?;
    assert!(report.is_complete(), "{:?}", report.problems);
    assert_eq!(report.counts.bytes_written, 0, "{:?}", report.counts);
    assert_same(&before, &walk(&options.target)?, &tolerance());

    // And with everything replaced.
    options.overwrite = Overwrite::Always;
    let report = restore_folder(&repository, &source, &options)?;
    assert!(report.is_complete(), "{:?}", report.problems);
    assert_eq!((report.counts.files_skipped, report.counts.extra), (0, 0));
    assert_same(&before, &walk(&options.target)?, &tolerance());
    Ok(())
}

#[test]
fn what_restic_wrote_comes_back_exactly() -> anyhow::Result<()> {
    let Some(peer) = peers::require("restic") else { return Ok(()) };
    for version in ["1", "2"] {
        let sandbox = Sandbox::new("restore-restic")?;
        let source = sandbox.folder("source")?;
        odd_tree::build(&source, &Options::for_restic())?;
        restic(&peer, &sandbox, &["init", "--repository-version", version])?;
        restic(&peer, &sandbox, &["backup", &source.display().to_string()])?;
        let options = RestoreOptions::new(sandbox.join("target"));
        let report = restore_folder(&sandbox.open()?, &source, &options)?;
        assert!(report.is_complete(), "{:?}", report.problems);
        assert_same(&walk(&source)?, &walk(&options.target)?, &tolerance());
    }
    Ok(())
}

/// Over an older state of the same folder, with strange things in the way: the result equals
/// the snapshot.
#[test]
fn the_result_equals_the_snapshot_whatever_was_there() -> anyhow::Result<()> {
    let tree = Options { deep_levels: 0, past_path_max: false, ..Options::everything() };
    let (sandbox, source, repository) = sandbox_with("restore-over", &tree)?;
    let target = sandbox.folder("target")?;
    odd_tree::build(&target, &tree)?;
    disturb(&target)?;
    let mut options = RestoreOptions::new(&target);
    (options.overwrite, options.delete) = (Overwrite::Always, true);
    let report = restore_folder(&repository, &source, &options)?;
    assert!(report.is_complete(), "{:?}", report.problems);
    assert_same(&walk(&source)?, &walk(&target)?, &tolerance());
    Ok(())
}

/// Puts folders in place of files, files in place of folders, links in place of both.
fn disturb(target: &Path) -> anyhow::Result<()> {
    use std::fs;
    fs::remove_dir_all(target.join("empty"))?;
    fs::write(target.join("empty"), "a file")?;
    fs::remove_dir_all(target.join("sizes"))?;
    std::os::unix::fs::symlink("/etc", target.join("sizes"))?;
    for entry in fs::read_dir(target.join("links"))? {
        let path = entry?.path();
        if path.is_file() {
            fs::remove_file(&path)?;
            fs::create_dir(&path)?;
            fs::write(path.join("inside"), "x")?;
        }
    }
    for entry in fs::read_dir(target.join("many"))? {
        fs::write(entry?.path(), vec![7; 10_000])?;
    }
    fs::create_dir_all(target.join("extra/folder"))?;
    fs::write(target.join("extra/folder/file"), "x")?;
    fs::set_permissions(target.join("many"), fs::Permissions::from_mode(0o7777))?;
    Ok(())
}

/// Not being root: what is ours comes back, owners are counted as denied, and no program gets
/// the rights of somebody whose it was not.
#[test]
fn somebody_who_is_not_root_gets_what_they_may_have() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let tree =
        Options { unreadable: false, devices: false, deep_levels: 300, ..Options::everything() };
    let (sandbox, source, repository) = sandbox_with("restore-nobody", &tree)?;
    drop(repository);
    let target = sandbox.folder("target")?;
    chown(&target, Some(NOBODY), Some(NOBODY))?;
    open_to_all(&sandbox.repository_path())?;
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"])
        .arg(std::env::current_exe()?)
        .args(["--exact", "restore::as_nobody", "--nocapture"])
        .env("MUSTER_TEST_RESTORE", sandbox.join(""))
        .output()?;
    assert!(output.status.success(), "{output:?}");
    let tolerance = Tolerance {
        ignore_owners: true,
        ignore_permissions: true,
        ignore_xattrs: vec!["trusted.".to_owned(), "security.".to_owned()],
        ..tolerance()
    };
    let restored = walk(&target)?;
    assert_same(&walk(&source)?, &restored, &tolerance);
    assert_no_rights_of_others(&source, &target, &restored)?;
    Ok(())
}

/// A full disk ends the restore at once, and what is there is whole.
#[test]
fn a_full_disk_ends_the_restore() -> anyhow::Result<()> {
    let sandbox = Sandbox::new("restore-full")?;
    let source = sandbox.folder("source")?;
    for i in 0..40_u8 {
        let content: Vec<u8> = (0..200_000_u32).map(|j| (j % 251) as u8 ^ i).collect();
        std::fs::write(source.join(format!("f{i:02}")), content)?;
    }
    std::fs::write(source.join("large"), vec![1; 3 << 20])?;
    let repository = sandbox.init(Version::V2)?;
    assert!(backup(&repository, BackupOptions::new(vec![source.clone()]))?.problems.is_empty());
    let target = sandbox.folder("target")?;
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "muster-test"])
        .arg(&target)
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return Ok(()); // Only root may mount, and not in every container.
    }
    let result = restore_folder(&repository, &source, &RestoreOptions::new(&target));
    let outcome = check_full(result, &source, &target);
    let unmounted = Command::new("umount").arg(&target).output()?;
    assert!(unmounted.status.success(), "{unmounted:?}");
    outcome
}

fn check_full(
    result: anyhow::Result<RestoreReport>,
    source: &Path,
    target: &Path,
) -> anyhow::Result<()> {
    let error = result.expect_err("8 MB do not fit into 4").downcast::<RestoreError>()?;
    anyhow::ensure!((error.class(), error.code()) == (Class::Transient, "target-full"), "{error}");
    let mut count = 0;
    for entry in std::fs::read_dir(target)? {
        let name = entry?.file_name();
        let is_whole = std::fs::read(source.join(&name))? == std::fs::read(target.join(&name))?;
        anyhow::ensure!(is_whole, "{} is not whole", name.display());
        count += 1;
    }
    anyhow::ensure!(count > 5, "only {count} files were restored into 4 MiB");
    Ok(())
}

const NOBODY: u32 = 65_534;

fn open_to_all(folder: &Path) -> anyhow::Result<()> {
    let output = Command::new("chmod").args(["-R", "a+rX"]).arg(folder).output()?;
    anyhow::ensure!(output.status.success(), "{output:?}");
    Ok(())
}

fn assert_no_rights_of_others(
    source: &Path,
    target: &Path,
    restored: &Listing,
) -> anyhow::Result<()> {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    for path in restored.entries.keys().filter(|path| path.len() < 4000) {
        let path = Path::new(OsStr::from_bytes(path));
        let now = std::fs::symlink_metadata(target.join(path))?;
        let then = std::fs::symlink_metadata(source.join(path))?;
        if !now.is_file() || path.as_os_str().is_empty() {
            continue;
        }
        assert!(now.mode() & 0o4000 == 0 || then.uid() == NOBODY, "{}", path.display());
        assert!(now.mode() & 0o2000 == 0 || then.gid() == NOBODY, "{}", path.display());
        assert_eq!(now.mode() & 0o1777, then.mode() & 0o1777, "{}", path.display());
    }
    Ok(())
}

/// Does nothing unless the test above starts it.
#[test]
fn as_nobody() -> anyhow::Result<()> {
    let Some(folder) = std::env::var_os("MUSTER_TEST_RESTORE").map(PathBuf::from) else {
        return Ok(());
    };
    assert!(!PASSWORD.is_empty());
    let repository = open_at(&folder.join("repo"))?;
    let mut options = RestoreOptions::new(folder.join("target"));
    options.delete = true;
    // The second and third time over folders that lock their owner out.
    for overwrite in [Overwrite::Refuse, Overwrite::IfChanged, Overwrite::Always] {
        options.overwrite = overwrite;
        let report = restore_folder(&repository, &folder.join("source"), &options)?;
        assert!(report.is_complete(), "{:?}", report.problems);
        assert!(report.counts.metadata_denied > 0, "{:?}", report.counts);
    }
    Ok(())
}
