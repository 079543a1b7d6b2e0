//! `muster points`: what can be brought back, from where.
//!
//! The repositories are the truth: a point is there when a snapshot of it is there. The ledger
//! adds what a snapshot does not hold (how large a restore is, what proved it), and where there
//! is no ledger the points are the same without it.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use muster_control::choice::Blocker;
use muster_model::{BackupKind, DrillResult, PointCopy, PointProof, RecoveryPoint, Verdict};
use muster_plan::document::Repository as PlannedRepository;
use muster_repository::{
    backup::{PARTIAL_TAG, SUSPECT_TAG},
    format::snapshot::Snapshot,
    id::SnapshotId,
    repository::Repository,
};

use crate::{
    error::OperationError,
    records::{BackupEnded, Record},
    stores,
    workspace::Workspace,
};

/// All points, and the repositories that could not be asked.
#[derive(Debug, Default)]
#[must_use = "a repository may not have answered"]
pub struct Points {
    /// The points, oldest first.
    pub points: Vec<RecoveryPoint>,
    /// Repositories that could not be read, and why.
    pub unreachable: Vec<(String, String)>,
}

/// Lists the points of all services, or of one.
///
/// # Errors
/// Fails when the ledger cannot be read; a repository that cannot be read is in the answer.
pub fn list(workspace: &Workspace, service: Option<&str>) -> Result<Points, OperationError> {
    let mut points = Points::default();
    let mut found: BTreeMap<(Timestamp, String, String, String), RecoveryPoint> = BTreeMap::new();
    for planned in &workspace.plan.repositories {
        match read(workspace, planned) {
            Ok(snapshots) => {
                for (id, snapshot) in snapshots {
                    add(&mut found, planned, id, &snapshot, service);
                }
            }
            Err(error) => points.unreachable.push((planned.name.clone(), error.one_line())),
        }
    }
    points.points = merge(found.into_values());
    add_what_the_ledger_knows(workspace, &mut points.points)?;
    points.points.sort_by(|a, b| {
        (a.data_time, &a.service, &a.data).cmp(&(b.data_time, &b.service, &b.data))
    });
    Ok(points)
}

impl Points {
    /// What stands in the way, when a choice failed: a repository that did not answer may hold
    /// what is missing, so that comes first, and nobody is told that there is nothing.
    #[must_use]
    pub fn explain(&self, blockers: Vec<Blocker>) -> Vec<Blocker> {
        if self.unreachable.is_empty() {
            return blockers;
        }
        let silent = self.unreachable.iter().map(|(name, why)| Blocker {
            code: "repository-silent",
            message: format!("repository {name} did not answer: cannot {why}"),
            help: format!("mend that first: what is missing may be in {name}"),
        });
        let missing = |blocker: &Blocker| blocker.code != "no-recovery-point";
        silent.chain(blockers.into_iter().filter(missing)).collect()
    }
}

type Snapshots = Vec<(SnapshotId, Snapshot)>;

fn read(workspace: &Workspace, planned: &PlannedRepository) -> Result<Snapshots, OperationError> {
    let repository = stores::open(workspace, &planned.name)?;
    read_snapshots(&repository)
}

/// The snapshots that can be read; one that is damaged hides no other.
fn read_snapshots(repository: &Repository) -> Result<Snapshots, OperationError> {
    let ids = repository.snapshot_ids().map_err(OperationError::below)?;
    let read = |id: SnapshotId| repository.snapshot(id).ok().map(|snapshot| (id, snapshot));
    Ok(ids.into_iter().filter_map(read).collect())
}

/// The value of a tag `muster:NAME=VALUE`.
fn tag<'s>(snapshot: &'s Snapshot, name: &str) -> Option<&'s str> {
    let prefix = format!("muster:{name}=");
    snapshot.tags.iter().find_map(|tag| tag.strip_prefix(prefix.as_str()))
}

type Key = (Timestamp, String, String, String);

fn add(
    found: &mut BTreeMap<Key, RecoveryPoint>,
    planned: &PlannedRepository,
    id: SnapshotId,
    snapshot: &Snapshot,
    only: Option<&str>,
) {
    let (Some(service), Some(data), Some(point)) =
        (tag(snapshot, "service"), tag(snapshot, "data"), tag(snapshot, "point"))
    else {
        return;
    };
    if only.is_some_and(|only| only != service) {
        return;
    }
    let nanoseconds = i32::try_from(snapshot.time.nanoseconds()).unwrap_or_default();
    let time = Timestamp::new(snapshot.time.seconds(), nanoseconds).unwrap_or_default();
    let key = (time, service.to_owned(), data.to_owned(), point.to_owned());
    let entry = found.entry(key).or_insert_with(|| RecoveryPoint {
        id: point.to_owned(),
        service: service.to_owned(),
        data: data.to_owned(),
        source: tag(snapshot, "source").unwrap_or("files").to_owned(),
        data_time: time,
        kind: BackupKind::from_tags(&snapshot.tags).unwrap_or(BackupKind::Full),
        partial: snapshot.tags.iter().any(|tag| tag == PARTIAL_TAG),
        suspect: false,
        bytes: snapshot.summary.as_ref().map(|summary| summary.total_bytes_processed),
        copies: Vec::new(),
        proof: None,
    });
    // One copy that nobody has cleared is enough.
    entry.suspect |= snapshot.tags.iter().any(|tag| tag == SUSPECT_TAG);
    entry.copies.push(PointCopy {
        repository: planned.name.clone(),
        place: planned.place.clone(),
        immutable: false,
        snapshot: id.to_hex(),
    });
}

/// Copies of one snapshot carry its time, so equal points meet by their key already; what is
/// left are rewritten ones.
fn merge(points: impl Iterator<Item = RecoveryPoint>) -> Vec<RecoveryPoint> {
    let mut merged: HashMap<(String, String, String), RecoveryPoint> = HashMap::new();
    for point in points {
        let key = (point.service.clone(), point.data.clone(), point.id.clone());
        match merged.get_mut(&key) {
            Some(there) => {
                there.suspect |= point.suspect;
                there.copies.extend(point.copies);
            }
            None => {
                merged.insert(key, point);
            }
        }
    }
    merged.into_values().collect()
}

fn add_what_the_ledger_knows(
    workspace: &Workspace,
    points: &mut [RecoveryPoint],
) -> Result<(), OperationError> {
    let history = workspace.state.history(&["backup-ended", "drill-ended"])?;
    let mut backups: HashMap<(&str, &str, &str), &BackupEnded> = HashMap::new();
    let mut passed: Vec<&DrillResult> = Vec::new();
    for logged in &history {
        match &logged.record {
            Record::BackupEnded(ended) => {
                backups.insert((&ended.service, &ended.data, &ended.point), ended);
            }
            Record::DrillEnded(drill) if drill.verdict == Verdict::Pass => passed.push(drill),
            _ => {}
        }
    }
    for point in points {
        if let Some(ended) = backups.get(&(&*point.service, &*point.data, &*point.id)) {
            point.data_time = ended.data_time.unwrap_or(point.data_time);
            point.bytes = ended.bytes.or(point.bytes);
        }
        point.proof = proof(point, &passed);
    }
    Ok(())
}

/// The newest passing drill that restored this very point, or else another point of the same
/// data item from a repository that holds this one too.
fn proof(point: &RecoveryPoint, passed: &[&DrillResult]) -> Option<PointProof> {
    let made = |drill: &DrillResult, how: &str| PointProof {
        drill: drill.drill.clone(),
        at: drill.ended,
        how: how.to_owned(),
    };
    let ours = || passed.iter().rev().filter(|drill| drill.service == point.service);
    let itself = ours().find(|drill| {
        drill.points.iter().any(|used| used.data == point.data && used.point == point.id)
    });
    let same_chain = || {
        ours().find(|drill| {
            drill.points.iter().any(|used| {
                used.data == point.data
                    && point.copies.iter().any(|copy| copy.repository == used.repository)
            })
        })
    };
    if !point.is_good() {
        return None;
    }
    match itself {
        Some(drill) => Some(made(drill, "restored")),
        None => same_chain().map(|drill| made(drill, "same-chain")),
    }
}
