//! Changing and mending on a real disk: power failures at every step, and what restic says of it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::Context as _;
use muster_repository::{
    exclude::Patterns,
    format::config::Version,
    id::{PackId, SnapshotId},
    index::Index,
    migrate,
    packer::PackOptions,
    repair::{
        index::{self, RepairIndexOptions},
        packs, snapshots,
    },
    repository::Repository,
    rewrite::{self, RewriteOptions},
    run::Run,
    storage::{File, LocalStorage},
    supersede::ChangeError,
    tag::{self, TagChange},
};
use muster_testkit::{
    Scratch,
    peers::{self, Peer},
};

use crate::{
    common::{PASSWORD, Sandbox, assert_clean, backup, init_at, open_at, restic},
    crash::{Kept, RecordingDisk, copy_folder, crash, noise, options},
    mend::{Left, check_all, left_of, mend},
};

/// A repository at `path` with three snapshots of a changing folder.
fn three_snapshots(
    path: &Path,
    source: &Path,
    version: Version,
) -> anyhow::Result<Vec<SnapshotId>> {
    let repository = init_at(path, version)?;
    fs::create_dir_all(source.join("sub"))?;
    let mut made = Vec::new();
    for round in 0..3_u64 {
        for n in 0..3 {
            let name = format!("sub/file{n}-{round}");
            fs::write(source.join(name), noise(10 * round + n, 40_000))?;
        }
        made.push(backup(&repository, options(source))?.id.context("a snapshot")?);
    }
    Ok(made)
}

/// Changes a file of a repository behind its back.
fn damage(repository: &Path, file: File, change: impl FnOnce(&mut Vec<u8>)) -> anyhow::Result<()> {
    let path = repository.join(file.to_string());
    let mut content = fs::read(&path)?;
    change(&mut content);
    // Removed first: the file is read-only, and others may be linked to it.
    fs::remove_file(&path)?;
    Ok(fs::write(&path, content)?)
}

/// The packs that hold data, the same each time.
fn data_packs(index: &Index) -> Vec<PackId> {
    use muster_repository::format::pack::BlobKind::Data;
    let is_data = |pack: &PackId| index.pack_blobs(pack).iter().any(|blob| blob.kind == Data);
    let packs: BTreeSet<PackId> = index.packs().filter(is_data).collect();
    packs.into_iter().collect()
}

/// Flips a bit in one pack of data, cuts another short, and deletes an index file.
fn damage_badly(path: &Path) -> anyhow::Result<Vec<PackId>> {
    let indexed = open_at(path)?.load_index(&Run::new())?;
    let packs = data_packs(indexed.index());
    damage(path, File::Pack(packs[0]), |content| content[100] ^= 1)?;
    damage(path, File::Pack(packs[1]), |content| content.truncate(content.len() * 2 / 3))?;
    Ok(packs[..2].to_vec())
}

fn repair_packs(repository: &Repository, damaged: &[PackId]) -> Result<(), ChangeError> {
    let run = Run::new();
    let indexed = repository.load_index(&run)?;
    let proposal = packs::propose(&indexed, damaged, &run)?;
    packs::apply(&indexed, &proposal, PackOptions::default(), &run).map(drop)
}

fn repair_index(repository: &Repository) -> Result<(), ChangeError> {
    let run = Run::new();
    let proposal = index::propose(repository, RepairIndexOptions::default(), &run)?;
    index::apply(repository, proposal, &run).map(drop)
}

fn repair_snapshots(repository: &Repository) -> Result<(), ChangeError> {
    let run = Run::new();
    let list = snapshots::list(repository)?;
    let options = snapshots::RepairSnapshotsOptions { forget: true, ..Default::default() };
    snapshots::repair(&repository.load_index(&run)?, &list, &options, &run).map(drop)
}

fn rewrite_without(
    repository: &Repository,
    pattern: &str,
    forget: bool,
) -> Result<rewrite::RewriteReport, ChangeError> {
    let excludes = vec![Patterns::parse([pattern]).expect("a sound pattern")];
    let options = RewriteOptions { excludes, forget, ..RewriteOptions::default() };
    let run = Run::new();
    rewrite::rewrite(&repository.load_index(&run)?, &repository.snapshots()?, &options, &run)
}

fn add_tag(repository: &Repository) -> Result<(), ChangeError> {
    let change = TagChange { add: vec!["kept".to_owned()], ..TagChange::default() };
    let proposed = tag::propose(&repository.snapshots()?, &change);
    tag::apply(repository, &proposed, &Run::new(), &mut |_, _| {}).map(drop)
}

fn upgrade(repository: &Repository) -> Result<(), ChangeError> {
    match migrate::propose(repository)? {
        Some(migration) => migrate::apply(repository, &migration, &Run::new()),
        None => Ok(()),
    }
}

/// A step of work in a repository.
type Step<'s> = &'s dyn Fn(&Repository) -> Result<(), ChangeError>;

/// Lets the power fail after every change that `step` makes to the disk, in several ways. After
/// each no snapshot is worse off than before, and `step` run once more is done, which `is_done`
/// asserts.
fn power_fails(
    scratch: &Scratch,
    base: &Path,
    step: Step<'_>,
    is_done: &dyn Fn(&Repository, &str),
) -> anyhow::Result<()> {
    let live = scratch.join("live");
    copy_folder(base, &live);
    let record = Arc::new(Mutex::new(Vec::new()));
    let disk = RecordingDisk { root: live.clone(), record: Arc::clone(&record) };
    let storage = Arc::new(LocalStorage::with_disk(&live, disk));
    step(&Repository::open(storage, PASSWORD.as_bytes(), None)?)?;
    fs::remove_dir_all(&live)?;
    let changes = record.lock().unwrap().clone();
    assert!(changes.len() > 3, "{} changes", changes.len());
    let affected = |repository: &Repository| -> anyhow::Result<BTreeSet<SnapshotId>> {
        Ok(check_all(repository)?.affected_snapshots().into_iter().collect())
    };
    let before = affected(&open_at(base)?)?;
    let old: BTreeSet<_> = open_at(base)?.snapshot_ids()?.into_iter().collect();
    let policies = [Kept::All, Kept::Nothing, Kept::Zeros, Kept::Some(1)];
    for n in 0..=changes.len() {
        for (p, kept) in policies.into_iter().enumerate() {
            let what = format!("after {n} of {} changes, kept {kept:?}", changes.len());
            let found = scratch.join(format!("crash-{n}-{p}"));
            crash(base, &changes, n, kept, &found);
            let repository = open_at(&found).with_context(|| what.clone())?;
            let worse: Vec<_> = affected(&repository)?
                .intersection(&old)
                .filter(|id| !before.contains(id))
                .copied()
                .collect();
            assert!(worse.is_empty(), "{what}: {worse:?}");
            step(&repository).with_context(|| what.clone())?;
            is_done(&open_at(&found)?, &what);
            fs::remove_dir_all(&found)?;
        }
    }
    Ok(())
}

fn place(name: &str, version: Version) -> anyhow::Result<(Scratch, PathBuf, Vec<SnapshotId>)> {
    let scratch = Scratch::new(name)?;
    let (base, source) = (scratch.join("base"), scratch.join("source"));
    let made = three_snapshots(&base, &source, version)?;
    Ok((scratch, base, made))
}

#[test]
fn a_power_failure_while_packs_are_repaired_loses_nothing_that_was_sound() -> anyhow::Result<()> {
    let (scratch, base, _) = place("power-packs", Version::V2)?;
    let damaged = damage_badly(&base)?;
    let sound = |repository: &Repository| {
        let indexed = repository.load_index(&Run::new()).unwrap();
        let mut reader = indexed.blob_reader().unwrap();
        let mut plaintext = Vec::new();
        let mut readable = BTreeSet::new();
        for location in indexed.index().iter() {
            if reader.read_at(&location, &mut plaintext).is_ok() {
                readable.insert(location.blob.id);
            }
        }
        readable
    };
    let expected = sound(&open_at(&base)?);
    power_fails(&scratch, &base, &|repository| repair_packs(repository, &damaged), &|done, what| {
        assert_eq!(sound(done), expected, "{what}");
        let index = done.read_index(&Run::new()).unwrap();
        assert!(damaged.iter().all(|pack| !index.knows_pack(pack)), "{what}");
    })
}

#[test]
fn a_power_failure_while_the_index_is_repaired_is_mended_by_the_next_run() -> anyhow::Result<()> {
    let (scratch, base, _) = place("power-index", Version::V2)?;
    let indexed = open_at(&base)?.load_index(&Run::new())?;
    let pack = data_packs(indexed.index())[0];
    fs::remove_file(base.join(File::Pack(pack).to_string()))?;
    let names: BTreeSet<_> =
        fs::read_dir(base.join("index"))?.map(|entry| entry.unwrap().path()).collect();
    fs::remove_file(names.iter().next_back().context("an index file")?)?;
    power_fails(&scratch, &base, &repair_index, &|done, what| {
        let options = RepairIndexOptions::default();
        let proposal = index::propose(done, options, &Run::new()).unwrap();
        assert!(proposal.is_empty(), "{what}: {proposal:?}");
    })
}

#[test]
fn a_power_failure_while_snapshots_are_repaired_leaves_each_in_one_form() -> anyhow::Result<()> {
    let (scratch, base, made) = place("power-snapshots", Version::V2)?;
    repair_packs(&open_at(&base)?, &damage_badly(&base)?)?;
    power_fails(&scratch, &base, &repair_snapshots, &|done, what| {
        let report = check_all(done).unwrap();
        assert!(report.is_clean(), "{what}: {:#?}", report.damages);
        assert_eq!(done.snapshot_ids().unwrap().len(), made.len(), "{what}");
    })
}

#[test]
fn a_power_failure_while_snapshots_are_rewritten_or_tagged_loses_none() -> anyhow::Result<()> {
    let (scratch, base, made) = place("power-rewrite", Version::V2)?;
    let one_of_each = |done: &Repository, what: &str| {
        let report = check_all(done).unwrap();
        assert!(report.is_clean(), "{what}: {:#?}", report.damages);
        let originals: BTreeSet<_> =
            done.snapshots().unwrap().into_iter().filter_map(|(_, s)| s.original).collect();
        assert_eq!(originals, made.iter().copied().collect(), "{what}");
        assert_eq!(done.snapshot_ids().unwrap().len(), made.len(), "{what}");
    };
    let rewriting =
        |repository: &Repository| rewrite_without(repository, "file0-0", true).map(drop);
    power_fails(&scratch, &base, &rewriting, &one_of_each)?;
    power_fails(&scratch, &base, &add_tag, &one_of_each)
}

#[test]
fn a_power_failure_while_a_repository_is_upgraded_leaves_one_of_the_two_versions()
-> anyhow::Result<()> {
    let (scratch, base, _) = place("power-upgrade", Version::V1)?;
    power_fails(&scratch, &base, &upgrade, &|done, what| {
        assert_eq!(done.config().version, Version::V2, "{what}");
        assert_clean(done);
    })
}

/// A restic that reads every byte of the sandbox's repository.
fn restic_check(restic_peer: &Peer, sandbox: &Sandbox) -> anyhow::Result<()> {
    restic(restic_peer, sandbox, &["check", "--read-data"]).map(drop)
}

#[test]
fn restic_agrees_with_what_was_repaired() -> anyhow::Result<()> {
    let Some(peer) = peers::require("restic") else { return Ok(()) };
    let sandbox = Sandbox::new("repaired-for-restic")?;
    let (path, source) = (sandbox.repository_path(), sandbox.join("source"));
    let made = three_snapshots(&path, &source, Version::V2)?;
    damage_badly(&path)?;
    let names: BTreeSet<_> =
        fs::read_dir(path.join("index"))?.map(|entry| entry.unwrap().path()).collect();
    fs::remove_file(names.iter().next().context("an index file")?)?;
    assert!(restic_check(&peer, &sandbox).is_err(), "there is damage");

    let steps = mend(&sandbox.open()?)?;
    assert!(steps.contains(&"repair packs") && steps.contains(&"repair snapshots --forget"));
    assert_clean(&sandbox.open()?);
    restic_check(&peer, &sandbox)?;
    for id in made {
        assert_ne!(left_of(&sandbox.open()?, id)?, Left::Nothing);
    }
    let target = sandbox.join("restored");
    restic(&peer, &sandbox, &["restore", "latest", "--target", &target.to_string_lossy()])?;
    // What was lost is at its source still: the next backup stores it, and is whole.
    let report = backup(&sandbox.open()?, options(&source))?;
    assert!(report.snapshot.summary.as_ref().is_some_and(|summary| summary.data_blobs > 0));
    assert_clean(&sandbox.open()?);
    restic_check(&peer, &sandbox)
}

/// What a damaged pack lists is not taken for stored once it is out of the index, and what is
/// stored anew mends the old snapshots too.
#[test]
fn a_backup_after_the_repair_mends_what_is_still_at_its_source() -> anyhow::Result<()> {
    let sandbox = Sandbox::new("mended-by-backup")?;
    let (path, source) = (sandbox.repository_path(), sandbox.join("source"));
    let made = three_snapshots(&path, &source, Version::V2)?;
    let damaged = damage_badly(&path)?;
    repair_packs(&sandbox.open()?, &damaged)?;
    assert!(!check_all(&sandbox.open()?)?.is_clean());
    let _report = backup(&sandbox.open()?, options(&source))?;
    assert_clean(&sandbox.open()?);
    for id in made {
        assert_eq!(left_of(&sandbox.open()?, id)?, Left::Whole);
    }
    Ok(())
}

#[test]
fn restic_agrees_with_tags_rewrites_and_upgrades() -> anyhow::Result<()> {
    let Some(peer) = peers::require("restic") else { return Ok(()) };
    let sandbox = Sandbox::new("changed-for-restic")?;
    let (path, source) = (sandbox.repository_path(), sandbox.join("source"));
    let made = three_snapshots(&path, &source, Version::V1)?;
    upgrade(&sandbox.open()?)?;
    assert_eq!(sandbox.open()?.config().version, Version::V2);
    restic_check(&peer, &sandbox)?;

    add_tag(&sandbox.open()?)?;
    let listed = restic(&peer, &sandbox, &["snapshots", "--json", "--tag", "kept"])?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    let originals: BTreeSet<_> = listed
        .as_array()
        .context("a list")?
        .iter()
        .map(|snapshot| snapshot["original"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(originals, made.iter().map(SnapshotId::to_hex).collect());

    let report = rewrite_without(&sandbox.open()?, "sub/file1-*", false)?;
    assert_eq!(report.snapshots.iter().filter(|done| done.changed).count(), 3);
    restic_check(&peer, &sandbox)?;
    assert_clean(&sandbox.open()?);
    let new = report.snapshots[2].new.context("a rewritten snapshot")?.to_hex();
    let listed = restic(&peer, &sandbox, &["ls", &new])?;
    assert!(listed.contains("file0-2") && !listed.contains("file1-"), "{listed}");
    Ok(())
}
