//! Retention: from snapshots to what a policy may look at, and who is protected from it.
//!
//! The policy itself is a function in `control`; removing is done by `repository`. Here is what
//! lies between: a snapshot's tags and times put into the policy's words, the legal holds, and the
//! last *proven* point of each data item, which never goes. In a bare repository proven is what
//! bears the tag `muster:proven`; beside a plan the ledger knows more.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{Timestamp, tz::Offset};
use muster_control::retention::{self, Candidate, Count, Kept, Moment, Policy, Proposal};
use muster_model::{PointCopy, RecoveryPoint};
use muster_plan::document::Keep;
use muster_repository::{
    forget::{HOLD_TAG, PROVEN_TAG, has_tag, unsound},
    format::snapshot::Snapshot,
    id::SnapshotId,
    select::{GroupBy, GroupKey, parse_tag_list},
};

use crate::{hands, points};

/// A snapshot and its id.
pub type Found = (SnapshotId, Snapshot);

/// Snapshots that no policy and nobody may remove, each with its reasons.
pub type Protected = BTreeMap<SnapshotId, Vec<String>>;

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

/// The recovery points of a plan among snapshots. Which of them were proven stands in the ledger
/// beside the plan, so whoever does not look there may remove none.
#[must_use]
pub fn protected_as_points(all: &[Found]) -> Protected {
    let points = all.iter().filter(|(_, snapshot)| points::tag(snapshot, "point").is_some());
    points.map(|(id, _)| (*id, vec![OF_A_PLAN.to_owned()])).collect()
}

/// Why the points of a plan stay.
const OF_A_PLAN: &str = "point of a plan: `muster forget`";

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
        |point: &&RecoveryPoint| point.copies.iter().any(|copy| is_sound_in(copy, repository));
    let proven = points.iter().filter(|point| point.proof.is_some() && point.is_good());
    for point in proven.filter(is_here) {
        let item = (point.service.as_str(), point.data.as_str());
        let known = best.entry(item).or_insert(point);
        if proof_rank(known) < proof_rank(point) {
            *known = point;
        }
    }
    let mut protected = Protected::new();
    for point in best.into_values() {
        protect_copies(&mut protected, point, repository, "last proven");
    }
    protected
}

/// The snapshots in `repository` that are the newest good copy of a data item: without them there
/// would be nothing good of it here.
#[must_use]
pub fn protected_as_newest(points: &[RecoveryPoint], repository: &str) -> Protected {
    let mut newest: BTreeMap<(&str, &str), &RecoveryPoint> = BTreeMap::new();
    let is_here =
        |point: &&RecoveryPoint| point.copies.iter().any(|copy| is_sound_in(copy, repository));
    for point in points.iter().filter(|point| point.is_good()).filter(is_here) {
        let known = newest.entry((&point.service, &point.data)).or_insert(point);
        if known.data_time < point.data_time {
            *known = point;
        }
    }
    let mut protected = Protected::new();
    for point in newest.into_values() {
        protect_copies(&mut protected, point, repository, "newest good one");
    }
    protected
}

fn is_sound_in(copy: &PointCopy, repository: &str) -> bool {
    copy.repository == repository && !copy.damaged
}

fn protect_copies(protected: &mut Protected, point: &RecoveryPoint, repository: &str, why: &str) {
    for copy in point.copies.iter().filter(|copy| is_sound_in(copy, repository)) {
        if let Ok(id) = hands::snapshot_id(&copy.snapshot) {
            protected.entry(id).or_default().push(why.to_owned());
        }
    }
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
        within: keep.within,
        within_hourly: keep.within_hourly,
        within_daily: keep.within_daily,
        within_weekly: keep.within_weekly,
        within_monthly: keep.within_monthly,
        within_yearly: keep.within_yearly,
        tags: keep.tags.iter().map(|list| parse_tag_list(list)).collect(),
    }
}

/// Applies several policies to one group: what any of them keeps is kept.
#[must_use]
pub fn propose_all(
    group: &[Found],
    policies: &[Policy],
    protected: &Protected,
    now: Timestamp,
    damaged: &BTreeSet<SnapshotId>,
) -> Proposal<SnapshotId> {
    let mut candidates: Vec<_> = group.iter().map(candidate).collect();
    for candidate in &mut candidates {
        if damaged.contains(&candidate.id) {
            candidate.unsound = Some("damaged".to_owned());
        }
    }
    let mut all =
        policies.iter().map(|policy| retention::apply(&candidates, policy, protected, now));
    let first = all.next().unwrap_or_else(|| {
        let nothing = Policy { last: Count::Unlimited, ..Policy::default() };
        retention::apply(&candidates, &nothing, protected, now)
    });
    all.fold(first, |known, next| either(&candidates, known, next))
}

/// What one of two proposals keeps, with the reasons of both; newest first.
fn either(
    candidates: &[Candidate<SnapshotId>],
    one: Proposal<SnapshotId>,
    other: Proposal<SnapshotId>,
) -> Proposal<SnapshotId> {
    let mut reasons: BTreeMap<SnapshotId, Vec<String>> = BTreeMap::new();
    for kept in one.keep.into_iter().chain(other.keep) {
        let known = reasons.entry(kept.id).or_default();
        for reason in kept.reasons {
            if !known.contains(&reason) {
                known.push(reason);
            }
        }
    }
    let mut newest_first: Vec<_> = candidates.iter().map(|one| (one.time.at, one.id)).collect();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    let mut proposal = Proposal { keep: Vec::new(), remove: Vec::new() };
    for (_, id) in newest_first {
        match reasons.remove(&id) {
            Some(reasons) => proposal.keep.push(Kept { id, reasons }),
            None => proposal.remove.push(id),
        }
    }
    proposal
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
