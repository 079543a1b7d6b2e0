//! What real tools made, restored exactly; what Muster adds to it, approved by them.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use anyhow::Context as _;
use muster_repository::{
    backup::BackupOptions,
    format::config::Version,
    repository::{OpenError, Repository},
    run::Run,
    storage::LocalStorage,
    tree_walk::find_subtree,
};
use muster_testkit::{
    Scratch, fixtures,
    odd_tree::{self, Options},
    peers::{self, Peer},
    walker::{Kind, Tolerance, assert_same, walk},
};

use crate::common::{
    PASSWORD, Sandbox, assert_clean, backup, newest, open_at, restic, restore, restore_source,
};

fn open(path: &Path, password: &str) -> Result<Repository, OpenError> {
    Repository::open(Arc::new(LocalStorage::new(path)), password.as_bytes(), None)
}

/// A text in the format of the listings, without what this file system cannot hold.
fn comparable(lines: &str, keeps_xattrs: bool) -> String {
    let keep = |line: &str| match line.rsplit_once('\t') {
        Some((rest, _)) if !keeps_xattrs => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    lines.lines().map(keep).collect()
}

fn keeps_xattrs(scratch: &Scratch) -> anyhow::Result<bool> {
    let attributes = Options { xattrs: true, ..Options::nothing() };
    Ok(odd_tree::build(&scratch.join("probe"), &attributes)?.left_out.is_empty())
}

#[test]
fn every_fixture_restores_to_its_listing() -> anyhow::Result<()> {
    let scratch = Scratch::new("fixtures-restored")?;
    let keeps_xattrs = keeps_xattrs(&scratch)?;
    let mut versions = BTreeSet::new();
    for name in fixtures::names()? {
        let repository = open(&fixtures::unpack(&name, scratch.path())?, fixtures::PASSWORD)?;
        versions.insert(u32::from(repository.config().version));
        let target = scratch.join(format!("{name}-restored"));
        let _report =
            restore(&repository, newest(&repository)?.tree, &target).context(name.clone())?;
        let restored = walk(&target)?.lines();
        let expected = fixtures::listing(&name)?;
        assert_eq!(
            comparable(&restored, keeps_xattrs),
            comparable(&expected, keeps_xattrs),
            "{name}"
        );
    }
    assert_eq!(versions, BTreeSet::from([1, 2]));
    Ok(())
}

#[test]
fn older_snapshots_restore_as_they_were() -> anyhow::Result<()> {
    let scratch = Scratch::new("older-restored")?;
    let repository =
        open(&fixtures::unpack("restic-0.18-v2-snapshots", scratch.path())?, fixtures::PASSWORD)?;
    let mut snapshots = repository.snapshots()?;
    snapshots.sort_by_key(|(_, snapshot)| snapshot.time);
    assert_eq!(snapshots.len(), 4);
    let index = repository.load_index(&Run::new())?;
    for (number, (_, snapshot)) in snapshots.iter().enumerate() {
        // The third was asked for by its absolute path.
        let tree = match number {
            2 => find_subtree(
                &mut index.blob_reader()?,
                snapshot.tree,
                snapshot.paths[0].as_bytes(),
            )?,
            _ => snapshot.tree,
        };
        let target = scratch.join(format!("restored-{number}"));
        let _report = restore(&repository, tree, &target)?;
        let hello = std::fs::read_to_string(target.join("hello.txt"))?;
        assert_eq!(hello == "draft\n", number < 3, "{number}: {hello}");
        let has = |name: &str| target.join(name).exists();
        assert_eq!(has("new-folder/addition"), matches!(number, 1 | 2), "{number}");
        assert_eq!(has("script.sh"), number == 3, "{number}");
        assert_eq!(has("chunked.bin"), number != 2, "{number}");
    }
    Ok(())
}

#[test]
fn each_of_two_passwords_opens_the_same_repository() -> anyhow::Result<()> {
    let scratch = Scratch::new("two-keys")?;
    let path = fixtures::unpack("restic-0.18-v2-two-keys", scratch.path())?;
    let (first, second) =
        (open(&path, fixtures::PASSWORD)?, open(&path, fixtures::SECOND_PASSWORD)?);
    assert_ne!(first.key_id(), second.key_id());
    assert_eq!(newest(&first)?.tree, newest(&second)?.tree);
    assert!(open(&path, "a third").is_err());
    let target = scratch.join("restored");
    let _report = restore(&second, newest(&second)?.tree, &target)?;
    assert_eq!(walk(&target)?.lines(), fixtures::listing("restic-0.18-v2-two-keys")?);
    Ok(())
}

/// Backs up an odd tree into repositories that others made: formats 1 and 2, an index of rustic's
/// with packs marked for deletion, and a rustic config that asks for chunks of another kind.
#[test]
fn restic_approves_of_backups_into_what_others_made() -> anyhow::Result<()> {
    let scratch = Scratch::new("into-fixtures")?;
    let source = scratch.join("source");
    odd_tree::build(
        &source,
        &Options { chunk_edges: false, deep_levels: 20, many_files: 50, ..Options::for_restic() },
    )?;
    let before = walk(&source)?;
    let names = [
        "restic-0.14-v1",
        "restic-0.14-v2",
        "restic-0.18-v2-max",
        "rustic-0.11-v1",
        "rustic-0.11-v2-level0",
        "rustic-0.11-v2-marked",
        "rustic-0.11-v2-fixed-size",
    ];
    let restic = peers::require("restic");
    for name in names {
        let path = fixtures::unpack(name, scratch.path())?;
        let repository = open(&path, fixtures::PASSWORD)?;
        let old_tree = newest(&repository)?.tree;
        let report = backup(&repository, BackupOptions::new(vec![source.clone()]))
            .with_context(|| format!("back up into {name}"))?;
        assert!(report.problems.is_empty(), "{name}: {:?}", report.problems);
        let target = scratch.join(format!("{name}-restored"));
        let restored = restore_source(&repository, &report.snapshot, &source, &target)?;
        let tolerance = Tolerance { may_miss: vec![Kind::Socket], ..Tolerance::default() };
        assert_same(&before, &walk(&restored)?, &tolerance);
        let target = scratch.join(format!("{name}-old"));
        let _report = restore(&repository, old_tree, &target)?;
        assert_eq!(walk(&target)?.lines(), fixtures::listing(name)?, "{name}");
        assert_clean(&repository);
        if let Some(restic) = &restic {
            let restic = restic.clone().env("RESTIC_REPOSITORY", &path);
            let restic = restic.env("RESTIC_PASSWORD", fixtures::PASSWORD);
            restic.succeed(["check", "--read-data"]).context(name)?;
        }
    }
    Ok(())
}

/// A newer restic, when `MUSTER_RESTIC018` names one; the fixtures stand in for it elsewhere.
#[test]
fn what_a_newer_restic_backs_up_is_restored_exactly() -> anyhow::Result<()> {
    let Some(program) = peers::find("restic018") else { return Ok(()) };
    let (peer, sandbox) = (Peer::new(program)?, Sandbox::new("restic-live")?);
    let source = sandbox.folder("source")?;
    let options = Options { raw_targets: true, symlink_xattrs: true, ..Options::for_restic() };
    odd_tree::build(&source, &options)?;
    restic(&peer, &sandbox, &["init"])?;
    restic(&peer, &sandbox, &["backup", &source.display().to_string()])?;
    let repository = sandbox.open()?;
    let target = sandbox.join("restored");
    let restored = restore_source(&repository, &newest(&repository)?, &source, &target)?;
    let tolerance = Tolerance { may_miss: vec![Kind::Socket], ..Tolerance::default() };
    assert_same(&walk(&source)?, &walk(&restored)?, &tolerance);
    Ok(())
}

fn rustic(peer: &Peer, sandbox: &Sandbox, args: &[&str]) -> anyhow::Result<()> {
    let mut command = peer.command();
    command.env("RUSTIC_REPOSITORY", sandbox.repository_path()).env("RUSTIC_PASSWORD", PASSWORD);
    command.env("RUSTIC_NO_PROGRESS", "true").args(args);
    peers::run(&mut command)?.expect_success()?;
    Ok(())
}

#[test]
fn rustic_checks_and_restores_what_muster_wrote() -> anyhow::Result<()> {
    let Some(peer) = peers::require("rustic") else { return Ok(()) };
    let sandbox = Sandbox::new("rustic-reads")?;
    let source = sandbox.folder("source")?;
    // Mode 000 is recorded by leaving the mode out, as restic does; rustic takes it for 0644.
    odd_tree::build(&source, &Options { unreadable: false, ..Options::for_rustic() })?;
    let repository = sandbox.init(Version::V2)?;
    let report = backup(&repository, BackupOptions::new(vec![source.clone()]))?;
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    rustic(&peer, &sandbox, &["check", "--read-data"])?;
    let (snapshot, target) = (format!("latest:{}", source.display()), sandbox.join("restored"));
    rustic(&peer, &sandbox, &["restore", &snapshot, &target.display().to_string()])?;
    // The folder that is restored itself is the user's own.
    let tolerance = Tolerance { ignore_root: true, ..Tolerance::default() };
    assert_same(&walk(&source)?, &walk(&target)?, &tolerance);
    Ok(())
}

#[test]
fn what_rustic_backs_up_is_restored_exactly() -> anyhow::Result<()> {
    let Some(peer) = peers::require("rustic") else { return Ok(()) };
    let sandbox = Sandbox::new("rustic-live")?;
    let source = sandbox.folder("source")?;
    odd_tree::build(&source, &Options::for_rustic())?;
    rustic(&peer, &sandbox, &["init"])?;
    rustic(&peer, &sandbox, &["backup", &source.display().to_string()])?;
    let repository = open_at(&sandbox.repository_path())?;
    let target = sandbox.join("restored");
    let restored = restore_source(&repository, &newest(&repository)?, &source, &target)?;
    // rustic records no time of the folder that it is told to back up.
    let tolerance =
        Tolerance { ignore_root: true, may_miss: vec![Kind::Socket], ..Tolerance::default() };
    assert_same(&walk(&source)?, &walk(&restored)?, &tolerance);
    assert_clean(&repository);
    Ok(())
}
