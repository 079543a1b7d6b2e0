//! Mends a damaged repository as a person would, step by step, and tells which steps there were.

use std::collections::BTreeSet;

use muster_repository::{
    backup::PARTIAL_TAG,
    check::{CheckOptions, CheckReport, ReadData, Subject, check},
    environment::Environment,
    format::{key_file::Cost, pack::BlobKind, snapshot::Snapshot},
    id::{KeyId, PackId, SnapshotId},
    keys, lock,
    packer::PackOptions,
    repair::{
        index::{self, RepairIndexOptions},
        packs, snapshots,
    },
    repository::Repository,
    run::Run,
    storage::File,
};
use zeroize::Zeroizing;

use crate::common::PASSWORD;

/// Checks everything, all data read back.
pub(crate) fn check_all(repository: &Repository) -> anyhow::Result<CheckReport> {
    Ok(check(repository, &CheckOptions { read_data: ReadData::All }, &Run::new())?)
}

/// The subjects of a report that are files.
fn damaged_files(report: &CheckReport) -> impl Iterator<Item = File> + '_ {
    report.damages.iter().filter_map(|damage| match damage.subject {
        Subject::File(file) => Some(file),
        _ => None,
    })
}

/// Runs whatever repair has something to do, in the order that the guide gives, and returns the
/// commands.
pub(crate) fn mend(repository: &Repository) -> anyhow::Result<Vec<&'static str>> {
    let (run, environment) = (Run::new(), Environment::detect());
    let mut steps = Vec::new();
    let report = check_all(repository)?;
    if lock::held(repository, &environment).is_err() || has_lock(&report) {
        lock::remove_all(repository)?;
        steps.push("unlock --remove-all");
    }
    mend_keys(repository, &report, &environment, &mut steps)?;
    // Without an index file nobody knows which packs to look at.
    let proposal = index::propose(repository, RepairIndexOptions::default(), &run)?;
    if !proposal.damaged.is_empty() || !proposal.added.is_empty() {
        index::apply(repository, proposal, &run)?;
        steps.push("repair index");
    }
    let broken: Vec<PackId> = check_all(repository)?.broken_packs().collect();
    let indexed = repository.load_index(&run)?;
    let proposal = packs::propose(&indexed, &broken, &run)?;
    if proposal.damaged().next().is_some() {
        let _report = packs::apply(&indexed, &proposal, PackOptions::default(), &run)?;
        steps.push("repair packs");
    }
    mend_index(repository, &run, &mut steps)?;
    let indexed = repository.load_index(&run)?;
    assert!(snapshots::unindexed_packs(repository, &run)?.is_empty());
    let options = snapshots::RepairSnapshotsOptions { forget: true, ..Default::default() };
    let report = snapshots::repair(&indexed, &snapshots::list(repository)?, &options, &run)?;
    if !report.removed.is_empty() {
        steps.push("repair snapshots --forget");
    }
    Ok(steps)
}

fn has_lock(report: &CheckReport) -> bool {
    damaged_files(report).any(|file| matches!(file, File::Lock(_)))
}

fn mend_index(
    repository: &Repository,
    run: &Run,
    steps: &mut Vec<&'static str>,
) -> anyhow::Result<()> {
    let proposal = index::propose(repository, RepairIndexOptions::default(), run)?;
    assert!(proposal.to_salvage.is_empty(), "packs are repaired first: {proposal:?}");
    if !proposal.is_empty() {
        index::apply(repository, proposal, run)?;
        steps.push("repair index");
    }
    Ok(())
}

/// A key that cannot be used, or lies under a wrong name, is made anew or removed.
fn mend_keys(
    repository: &Repository,
    report: &CheckReport,
    environment: &Environment,
    steps: &mut Vec<&'static str>,
) -> anyhow::Result<()> {
    let damaged: BTreeSet<KeyId> = damaged_files(report)
        .filter_map(|file| if let File::Key(id) = file { Some(id) } else { None })
        .collect();
    let in_use = repository.key_id();
    for id in damaged.iter().filter(|id| **id != in_use) {
        keys::remove_key(repository, &id.to_hex())?;
        steps.push("key remove");
    }
    if damaged.contains(&in_use) {
        let password = Zeroizing::new(PASSWORD.as_bytes().to_vec());
        let author = environment.author();
        keys::change_password(repository, &password, Cost::FOR_TESTS, author)?;
        steps.push("key passwd");
    }
    Ok(())
}

/// What is left of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Left {
    Whole,
    Part,
    Nothing,
}

/// Looks for a snapshot, or a form of it, and reads every byte of it.
pub(crate) fn left_of(repository: &Repository, id: SnapshotId) -> anyhow::Result<Left> {
    let all = repository.snapshots()?;
    let found = all.iter().find(|(other, snapshot)| *other == id || snapshot.original == Some(id));
    let Some((_, snapshot)) = found else { return Ok(Left::Nothing) };
    read_all(repository, snapshot)?;
    let is_partial = snapshot.tags.iter().any(|tag| tag == PARTIAL_TAG);
    Ok(if is_partial { Left::Part } else { Left::Whole })
}

fn read_all(repository: &Repository, snapshot: &Snapshot) -> anyhow::Result<()> {
    let indexed = repository.load_index(&Run::new())?;
    let mut reader = indexed.blob_reader()?;
    let (mut to_read, mut plaintext) = (vec![snapshot.tree], Vec::new());
    while let Some(tree) = to_read.pop() {
        for node in reader.tree(tree)?.nodes {
            for id in node.content.into_iter().flatten() {
                reader.read(BlobKind::Data, id, &mut plaintext)?;
            }
            to_read.extend(node.subtree);
        }
    }
    Ok(())
}
