//! `muster points`: what can be brought back, from where.
//!
//! The repositories are the truth: a point is there when a snapshot of it is there. The ledger
//! adds what a snapshot does not hold (how large a restore is, what proved it), and where there
//! is no ledger the points are the same without it.
//!
//! Tags are words that anybody with the password can write. So where the ledger knows what a point
//! held when it was made, a snapshot that bears its tags and holds something else is no copy of it:
//! it is among what could not be read, and nothing uses it. Where the ledger knows nothing of a
//! point (a lost state, another machine, a ledger of before this was kept) its tags are believed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use jiff::Timestamp;
use muster_control::choice::Blocker;
use muster_model::{
    BackupKind, Class, DrillResult, Fault as _, PointCopy, PointProof, RecoveryPoint, Verdict,
};
use muster_plan::document::Repository as PlannedRepository;
use muster_repository::{
    backup::{PARTIAL_TAG, SUSPECT_TAG},
    format::snapshot::Snapshot,
    id::SnapshotId,
    repository::Repository,
};

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use crate::{
    error::{ALTERED, ALTERED_HELP, DAMAGED, OperationError},
    holding,
    records::{BackupEnded, Record},
    state::State,
    stores,
    workspace::{Planned, Workspace},
};

/// All points, and what could not be asked for them.
#[derive(Debug, Default)]
#[must_use = "something may not have been read"]
pub struct Points {
    /// The points, oldest first.
    pub points: Vec<RecoveryPoint>,
    /// Repositories and snapshots that could not be read: there may be points in them.
    pub unread: Vec<Unread>,
}

/// A repository that did not answer, or one snapshot in it that cannot be read.
#[derive(Debug)]
pub struct Unread {
    /// The repository's name in the plan.
    pub repository: String,
    /// The snapshot, in hex; `None` when the whole repository did not answer.
    pub snapshot: Option<String>,
    /// Why.
    pub error: OperationError,
}

/// As much of a snapshot's id as a message shows.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

impl Unread {
    /// What was not read, for a list of failures.
    pub(crate) fn name(&self) -> String {
        match &self.snapshot {
            None => self.repository.clone(),
            Some(id) => format!("snapshot {} in {}", short(id), self.repository),
        }
    }

    /// What it is as a thing that stands in the way.
    fn blocker(&self) -> &'static str {
        match (&self.snapshot, self.error.class()) {
            _ if self.is_altered() => ALTERED,
            (Some(_), _) => "snapshot-damaged",
            (None, Class::Corrupt) => DAMAGED,
            (None, _) => "repository-silent",
        }
    }

    /// What is the matter with it.
    fn told(&self) -> String {
        let (name, why) = (&self.repository, self.error.one_line());
        match &self.snapshot {
            Some(id) if self.is_altered() => {
                format!("snapshot {} in {name}: cannot {why}", short(id))
            }
            None => format!("repository {name} did not answer: cannot {why}"),
            Some(id) => format!("snapshot {} in {name} cannot be read: cannot {why}", short(id)),
        }
    }

    /// Whether it was read, and is no copy of the point whose tags it bears.
    pub(crate) fn is_altered(&self) -> bool {
        matches!(self.error, OperationError::Altered { .. })
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_altered() {
            true => write!(f, "{}: {ALTERED_HELP}", self.told()),
            false => f.write_str(&self.told()),
        }
    }
}

impl Serialize for Unread {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_struct("Unread", 5)?;
        object.serialize_field("repository", &self.repository)?;
        object.serialize_field("snapshot", &self.snapshot)?;
        object.serialize_field("code", self.error.code())?;
        object.serialize_field("class", self.error.class().as_str())?;
        object.serialize_field("message", &self.to_string())?;
        object.end()
    }
}

/// Lists the points of all services, or of one.
///
/// # Errors
/// Fails when the ledger cannot be read; a repository that cannot be read is in the answer.
pub fn list(workspace: &Workspace, service: Option<&str>) -> Result<Points, OperationError> {
    match recall(workspace, Some(&workspace.state), service) {
        (points, None) => Ok(points),
        (_, Some(error)) => Err(error),
    }
}

/// Lists points, and what the ledger knows of them if there is one; why it could not tell is
/// told beside them, and keeps nobody from the points.
pub(crate) fn recall(
    planned: &Planned,
    state: Option<&State>,
    service: Option<&str>,
) -> (Points, Option<OperationError>) {
    let (known, failed) = match state.map(Known::read) {
        Some(Ok(known)) => (known, None),
        Some(Err(error)) => (Known::default(), Some(error)),
        None => (Known::default(), None),
    };
    let mut points = find(planned, service, &known);
    known.add_to(&mut points.points);
    points.points.sort_by(|a, b| {
        (a.data_time, &a.service, &a.data).cmp(&(b.data_time, &b.service, &b.data))
    });
    (points, failed)
}

/// The points that the repositories hold.
fn find(plan: &Planned, service: Option<&str>, known: &Known) -> Points {
    let mut points = Points::default();
    let mut found: BTreeMap<(Timestamp, String, String, String), RecoveryPoint> = BTreeMap::new();
    for planned in &plan.plan.repositories {
        let mut unread = |snapshot: Option<SnapshotId>, error| {
            let (repository, snapshot) = (planned.name.clone(), snapshot.map(|id| id.to_hex()));
            points.unread.push(Unread { repository, snapshot, error });
        };
        match read(plan, planned) {
            Ok((snapshots, held)) => {
                for (id, snapshot) in snapshots {
                    match snapshot {
                        Ok(snapshot) => {
                            let until = held.get(&id).copied();
                            match known.altered(&snapshot) {
                                None => add(&mut found, planned, (id, &snapshot), until, service),
                                Some(error) if is_wanted(&snapshot, service) => {
                                    unread(Some(id), error);
                                }
                                Some(_) => {}
                            }
                        }
                        Err(error) => unread(Some(id), error),
                    }
                }
            }
            Err(error) => unread(None, error),
        }
    }
    points.points = merge(found.into_values());
    points
}

impl Points {
    /// The class of the worst of what could not be read.
    #[must_use]
    pub fn worst(&self) -> Option<Class> {
        worst(&self.unread)
    }

    /// The snapshots in a repository that are no copies of the points whose tags they bear, in hex.
    pub(crate) fn altered_in(&self, repository: &str) -> BTreeSet<String> {
        let altered = self.unread.iter().filter(|unread| unread.is_altered());
        let here = altered.filter(|unread| unread.repository == repository);
        here.filter_map(|unread| unread.snapshot.clone()).collect()
    }

    /// What stands in the way, when a choice failed: a repository that did not answer may hold
    /// what is missing, so that comes first, and nobody is told that there is nothing.
    #[must_use]
    pub fn explain(&self, blockers: Vec<Blocker>) -> Vec<Blocker> {
        if self.unread.is_empty() {
            return blockers;
        }
        let silent = self.unread.iter().map(|unread| Blocker {
            code: unread.blocker(),
            message: unread.told(),
            help: match unread.error.help() {
                Some(help) => format!("{}: {help}", unread.repository),
                None => format!("mend that first: what is missing may be in {}", unread.repository),
            },
        });
        let missing = |blocker: &Blocker| blocker.code != "no-recovery-point";
        silent.chain(blockers.into_iter().filter(missing)).collect()
    }
}

/// The class of the worst of what could not be read.
pub(crate) fn worst(unread: &[Unread]) -> Option<Class> {
    let classes = unread.iter().map(|unread| unread.error.class());
    classes.max_by_key(|class| class.gravity())
}

type Snapshots = Vec<(SnapshotId, Result<Snapshot, OperationError>)>;

fn read(
    plan: &Planned,
    planned: &PlannedRepository,
) -> Result<(Snapshots, BTreeMap<SnapshotId, Timestamp>), OperationError> {
    let repository = stores::open(plan, &planned.name)?;
    let snapshots = read_snapshots(&repository)?;
    let ids: Vec<SnapshotId> = snapshots.iter().map(|(id, _)| *id).collect();
    // What cannot be asked is not known to be held, and does not count as such.
    let held = match planned.immutable {
        Some(_) => holding::read(&repository, &ids).unwrap_or_default(),
        None => BTreeMap::new(),
    };
    Ok((snapshots, held))
}

/// The snapshots; one that is damaged hides no other.
fn read_snapshots(repository: &Repository) -> Result<Snapshots, OperationError> {
    let ids = repository.snapshot_ids().map_err(OperationError::below)?;
    let read = |id| (id, repository.snapshot(id).map_err(OperationError::below));
    Ok(ids.into_iter().map(read).collect())
}

/// The value of a tag `muster:NAME=VALUE`.
pub(crate) fn tag<'s>(snapshot: &'s Snapshot, name: &str) -> Option<&'s str> {
    let prefix = format!("muster:{name}=");
    snapshot.tags.iter().find_map(|tag| tag.strip_prefix(prefix.as_str()))
}

/// Whether a snapshot is of the service that is asked for, if one is.
fn is_wanted(snapshot: &Snapshot, only: Option<&str>) -> bool {
    only.is_none_or(|only| tag(snapshot, "service") == Some(only))
}

type Key = (Timestamp, String, String, String);

fn add(
    found: &mut BTreeMap<Key, RecoveryPoint>,
    planned: &PlannedRepository,
    (id, snapshot): (SnapshotId, &Snapshot),
    immutable_until: Option<Timestamp>,
    only: Option<&str>,
) {
    let (Some(service), Some(data), Some(point)) =
        (tag(snapshot, "service"), tag(snapshot, "data"), tag(snapshot, "point"))
    else {
        return;
    };
    if !is_wanted(snapshot, only) {
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
        immutable: immutable_until.is_some(),
        immutable_until,
        snapshot: id.to_hex(),
        damaged: false,
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

/// What the ledger tells of points.
#[derive(Default)]
struct Known {
    /// By service, data item and point.
    backups: HashMap<(String, String, String), BackupEnded>,
    passed: Vec<DrillResult>,
    /// Repository and snapshot.
    damaged: BTreeSet<(String, String)>,
}

impl Known {
    fn read(state: &State) -> Result<Self, OperationError> {
        let mut known = Self { damaged: crate::verify::damaged(state)?, ..Self::default() };
        for logged in state.history(&["backup-ended", "drill-ended"])? {
            match logged.record {
                Record::BackupEnded(ended) => {
                    let made = owned((&ended.service, &ended.data, &ended.point));
                    known.backups.insert(made, ended);
                }
                Record::DrillEnded(drill) if drill.verdict == Verdict::Pass => {
                    known.passed.push(*drill);
                }
                _ => {}
            }
        }
        Ok(known)
    }

    /// Why a snapshot is no copy of the point whose tags it bears, if it is none. A tree is named by
    /// the hash of its content, so it is the same in every true copy.
    fn altered(&self, snapshot: &Snapshot) -> Option<OperationError> {
        let (service, data) = (tag(snapshot, "service")?, tag(snapshot, "data")?);
        let point = tag(snapshot, "point")?;
        let made = self.backups.get(&owned((service, data, point)))?;
        let tree = made.tree.as_ref()?;
        (*tree != snapshot.tree.to_hex()).then(|| OperationError::Altered {
            point: point.to_owned(),
            item: format!("{service}/{data}"),
        })
    }

    fn add_to(&self, points: &mut [RecoveryPoint]) {
        for point in points {
            for copy in &mut point.copies {
                let it = (copy.repository.clone(), copy.snapshot.clone());
                copy.damaged = self.damaged.contains(&it);
            }
            let made = owned((&point.service, &point.data, &point.id));
            if let Some(ended) = self.backups.get(&made) {
                point.data_time = ended.data_time.unwrap_or(point.data_time);
                point.bytes = ended.bytes.or(point.bytes);
            }
            point.proof = proof(point, &self.passed);
        }
    }
}

fn owned((service, data, point): (&str, &str, &str)) -> (String, String, String) {
    (service.to_owned(), data.to_owned(), point.to_owned())
}

/// The newest passing drill that restored this very point, or else another point of the same
/// data item from a repository that holds this one too.
fn proof(point: &RecoveryPoint, passed: &[DrillResult]) -> Option<PointProof> {
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
                    && point
                        .copies
                        .iter()
                        .any(|copy| !copy.damaged && copy.repository == used.repository)
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
