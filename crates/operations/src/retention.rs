//! Retention: from snapshots to what a policy may look at, and who is protected from it.
//!
//! The policy itself is a function in `control`; removing is done by `repository`. Here is what
//! lies between: a snapshot's tags and times put into the policy's words, the legal holds, and the
//! last *proven* point of each data item, which never goes. In a bare repository proven is what
//! bears the tag `muster:proven`; beside a plan the ledger knows more.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{Timestamp, tz::Offset};
use muster_control::retention::{self, Candidate, Count, Moment, Policy, Proposal};
use muster_model::RecoveryPoint;
use muster_plan::document::Keep;
use muster_repository::{
    forget::{self, ForgetReport, HOLD_TAG, PROVEN_TAG, has_tag, unsound},
    format::snapshot::Snapshot,
    id::SnapshotId,
    lock::{Lock, LockKind},
    run::Run,
    select::{GroupBy, GroupKey},
};

use crate::{error::OperationError, hands, points, stores, workspace::Workspace};

/// A snapshot and its id.
pub type Found = (SnapshotId, Snapshot);

/// Snapshots that no policy and nobody may remove, each with its reasons.
pub type Protected = BTreeMap<SnapshotId, Vec<String>>;

/// How long a policy waits for a repository that somebody has locked.
const LOCK_PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A snapshot as the policy sees it.
#[must_use]
pub fn candidate((id, snapshot): &Found) -> Candidate<SnapshotId> {
    let nanoseconds = i32::try_from(snapshot.time.nanoseconds()).unwrap_or_default();
    // Years that the calendar does not have are clamped: such a snapshot is as old as can be.
    let at = Timestamp::new(snapshot.time.seconds(), nanoseconds);
    let at = at.unwrap_or(match snapshot.time.seconds() < 0 {
        true => Timestamp::MIN,
        false => Timestamp::MAX,
    });
    let offset = Offset::from_seconds(i32::from(snapshot.time.offset_minutes()) * 60);
    Candidate {
        id: *id,
        time: Moment { at, offset: offset.unwrap_or(Offset::UTC) },
        tags: snapshot.tags.clone(),
        unsound: unsound(snapshot).map(str::to_owned),
    }
}

/// Who is protected in a repository by its tags alone: all under a legal hold (unless `holds` is
/// false), and the newest proven one of each data item, or of each host and set of paths.
#[must_use]
pub fn protected_by_tags(all: &[Found], holds: bool) -> Protected {
    let mut protected = Protected::new();
    let mut newest: HashMap<String, &Found> = HashMap::new();
    for found in all {
        let (id, snapshot) = found;
        if holds && has_tag(snapshot, HOLD_TAG) {
            protected.entry(*id).or_default().push("legal hold".to_owned());
        }
        if has_tag(snapshot, PROVEN_TAG) && unsound(snapshot).is_none() {
            let item = item_of(snapshot);
            let known = newest.entry(item).or_insert(found);
            if (known.1.time, known.0) < (snapshot.time, *id) {
                *known = found;
            }
        }
    }
    for (id, _) in newest.into_values() {
        protected.entry(*id).or_default().push("last proven".to_owned());
    }
    protected
}

/// The data item that a snapshot is of.
fn item_of(snapshot: &Snapshot) -> String {
    match (points::tag(snapshot, "service"), points::tag(snapshot, "data")) {
        (Some(service), Some(data)) => format!("{service}/{data}"),
        _ => format!("{:?}", GroupKey::of(snapshot, GroupBy::default())),
    }
}

/// The snapshots in `repository` that are the last proven copy of a data item, as the ledger knows
/// it: of the points whose very restore was proven the newest, and where there is none, of those
/// whose chain was.
#[must_use]
pub fn protected_by_proof(points: &[RecoveryPoint], repository: &str) -> Protected {
    let mut best: BTreeMap<(&str, &str), &RecoveryPoint> = BTreeMap::new();
    let is_here =
        |point: &&RecoveryPoint| point.copies.iter().any(|copy| copy.repository == repository);
    let proven = points.iter().filter(|point| point.proof.is_some() && !point.partial);
    for point in proven.filter(is_here) {
        let item = (point.service.as_str(), point.data.as_str());
        let known = best.entry(item).or_insert(point);
        if proof_rank(known) < proof_rank(point) {
            *known = point;
        }
    }
    let mut protected = Protected::new();
    for point in best.into_values() {
        for copy in point.copies.iter().filter(|copy| copy.repository == repository) {
            if let Ok(id) = hands::snapshot_id(&copy.snapshot) {
                protected.entry(id).or_default().push("last proven".to_owned());
            }
        }
    }
    protected
}

/// What a point's proof is worth: one that was restored itself is worth most, then the newest.
fn proof_rank(point: &RecoveryPoint) -> (bool, Timestamp) {
    let itself = point.proof.as_ref().is_some_and(|proof| proof.how == "restored");
    (itself, point.data_time)
}

/// Applies a policy to one group.
#[must_use]
pub fn propose(
    group: &[Found],
    policy: &Policy,
    protected: &Protected,
    now: Timestamp,
) -> Proposal<SnapshotId> {
    let candidates: Vec<_> = group.iter().map(candidate).collect();
    retention::apply(&candidates, policy, protected, now)
}

/// A plan's `keep` as a policy.
#[must_use]
pub fn policy_of(keep: &Keep) -> Policy {
    let count = |count: Option<u32>| count.map_or(Count::default(), Count::AtMost);
    Policy {
        last: count(keep.last),
        hourly: count(keep.hourly),
        daily: count(keep.daily),
        weekly: count(keep.weekly),
        monthly: count(keep.monthly),
        yearly: count(keep.yearly),
        ..Policy::default()
    }
}

/// What a plan's `keep` did to one data item in one repository.
#[derive(Debug)]
#[must_use = "some snapshots may have stayed"]
pub struct Applied {
    /// The service.
    pub service: String,
    /// The data item.
    pub data: String,
    /// What was decided.
    pub proposal: Proposal<SnapshotId>,
    /// What was done.
    pub report: ForgetReport,
}

/// Applies the plan's `keep` to what its lines of `protect` wrote into a repository, each data
/// item for itself. Nothing is removed of an item that has no `keep`, or of which nothing would be
/// left.
///
/// # Errors
/// Fails when the repository cannot be read or locked, or the ledger cannot be read: then it is
/// not known which points are proven, and nothing is removed.
pub fn apply_keep(
    workspace: &Workspace,
    repository: &str,
    now: Timestamp,
    run: &Run,
) -> Result<Vec<Applied>, OperationError> {
    let opened = stores::open(workspace, repository)?;
    let environment = &workspace.state.environment;
    let lock = Lock::acquire(&opened, LockKind::Exclusive, LOCK_PATIENCE, environment, run)
        .map_err(OperationError::below)?;
    let all = opened.snapshots().map_err(OperationError::below)?;
    let points = points::list(workspace, None)?;
    if points.unread.iter().any(|unread| unread.repository == repository) {
        // Its last proven points are unknown: nothing may go.
        let what = format!("apply `keep` to repository {repository}");
        return Err(OperationError::Refused { what, blockers: points.explain(Vec::new()) });
    }
    let mut protected = protected_by_tags(&all, true);
    for (id, reasons) in protected_by_proof(&points.points, repository) {
        protected.entry(id).or_default().extend(reasons);
    }
    let mut applied = Vec::new();
    for (service, data, keep) in items(workspace, repository) {
        let is_its = |(_, snapshot): &&Found| {
            points::tag(snapshot, "service") == Some(service)
                && points::tag(snapshot, "data") == Some(data)
        };
        let group: Vec<Found> = all.iter().filter(is_its).cloned().collect();
        let proposal = propose(&group, &policy_of(&keep), &protected, now);
        if proposal.keep.is_empty() {
            continue;
        }
        let kept: Vec<_> = proposal.keep.iter().map(|kept| kept.id).collect();
        let report = forget::forget(&opened, &lock, &proposal.remove, &kept, run)
            .map_err(OperationError::below)?;
        let (service, data) = (service.to_owned(), data.to_owned());
        applied.push(Applied { service, data, proposal, report });
    }
    lock.release().map_err(OperationError::below)?;
    Ok(applied)
}

/// The data items that lines with a `keep` write into a repository. Several lines may protect one
/// item there; what any of them keeps is kept, so the larger of their counts holds.
fn items<'w>(workspace: &'w Workspace, repository: &str) -> Vec<(&'w str, &'w str, Keep)> {
    let mut items: BTreeMap<(&str, &str), Keep> = BTreeMap::new();
    let mut kept_whole: BTreeSet<(&str, &str)> = BTreeSet::new();
    for service in &workspace.plan.services {
        let here = service.protect.iter().filter(|line| {
            line.to == repository || line.copy.iter().any(|copy| copy == repository)
        });
        for line in here {
            for data in &line.data {
                let item = (service.name.as_str(), data.as_str());
                if line.keep == Keep::default() {
                    kept_whole.insert(item);
                }
                let known = items.entry(item).or_default();
                *known = larger(known, &line.keep);
            }
        }
    }
    let items = items.into_iter().filter(|(item, _)| !kept_whole.contains(item));
    items.map(|((service, data), keep)| (service, data, keep)).collect()
}

fn larger(a: &Keep, b: &Keep) -> Keep {
    Keep {
        last: a.last.max(b.last),
        hourly: a.hourly.max(b.hourly),
        daily: a.daily.max(b.daily),
        weekly: a.weekly.max(b.weekly),
        monthly: a.monthly.max(b.monthly),
        yearly: a.yearly.max(b.yearly),
    }
}

#[cfg(test)]
mod tests {
    use muster_repository::{format::time, id::BlobId};

    use super::*;

    fn found(day: i64, path: &str, tags: &[&str]) -> Found {
        let json = serde_json::json!({
            "time": time::Timestamp::new(day * 86_400, 0, 60),
            "tree": BlobId::of(b"tree"),
            "paths": [path],
            "hostname": "host",
            "tags": tags,
        });
        let id = SnapshotId::of(format!("{day} {path}").as_bytes());
        (id, serde_json::from_value(json).unwrap())
    }

    #[test]
    fn the_newest_proven_of_each_item_and_every_hold_are_protected() {
        let all = [
            found(1, "/a", &["muster:proven"]),
            found(2, "/a", &["muster:proven"]),
            found(3, "/a", &["muster:proven", "muster:partial"]),
            found(1, "/b", &["muster:proven"]),
            found(2, "/b", &["muster:hold"]),
            found(3, "/b", &[]),
        ];
        let ids = |expected: &[usize]| -> Vec<SnapshotId> {
            let mut ids: Vec<_> = expected.iter().map(|&position| all[position].0).collect();
            ids.sort_unstable();
            ids
        };
        let protected: Vec<_> = protected_by_tags(&all, true).into_keys().collect();
        assert_eq!(protected, ids(&[1, 3, 4]));
        let protected: Vec<_> = protected_by_tags(&all, false).into_keys().collect();
        assert_eq!(protected, ids(&[1, 3]));
    }

    #[test]
    fn sixty_days_without_backups_leave_the_last_proven_point() {
        let all = [
            found(1, "/a", &["muster:proven"]),
            found(2, "/a", &["muster:partial"]),
            found(3, "/a", &["muster:suspect"]),
            found(4, "/a", &[]),
        ];
        let policy = Policy { within: "1d".parse().unwrap(), ..Policy::default() };
        let protected = protected_by_tags(&all, true);
        let now = Timestamp::from_second(64 * 86_400).unwrap();
        let proposal = propose(&all, &policy, &protected, now);
        let kept: Vec<_> = proposal.keep.iter().map(|kept| kept.id).collect();
        assert_eq!(kept, [all[3].0, all[0].0]);
    }
}
