//! `muster forget`: a plan's `keep`, applied to what its lines wrote.
//!
//! First a proposal, which removes nothing: of each data item in a repository what stays and why,
//! and what goes. Then exactly that, or nothing: under the lock the proposal is made again, and
//! when it differs from the one that was shown, the removal is refused. Proposal and result are in
//! the ledger, each before its consequence.
//!
//! What goes without saying stays: points that the plan does not know, items without `keep`, the
//! last proven point of each item by the drills in the ledger, its newest good one, and everything
//! under a legal hold.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use muster_control::{choice::Blocker, retention::Policy};
use muster_repository::{
    forget::{self, ForgetReport},
    id::SnapshotId,
    lock::{self, Lock, LockKind},
    repository::Repository,
    run::Run,
    storage::Retention,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::OperationError,
    hands, points,
    protect::Name,
    records::Record,
    retention::{
        Found, policy_of, propose_all, protected_as_newest, protected_by_proof, protected_by_tags,
    },
    standstill, stores,
    workspace::{Planned, Workspace},
};

/// What shall become of the points in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    /// The repository's name in the plan.
    pub repository: String,
    /// By data item; only those that have a `keep` there.
    pub items: Vec<ProposedItem>,
}

/// What shall become of the points of a data item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposedItem {
    /// The service.
    pub service: String,
    /// The data item.
    pub data: String,
    /// What is asked to be kept, in the plan's words.
    pub policies: Vec<String>,
    /// What stays, newest first.
    pub keep: Vec<ProposedPoint>,
    /// What goes, newest first.
    pub remove: Vec<ProposedPoint>,
}

/// A point in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposedPoint {
    /// The snapshot, in hex.
    pub snapshot: String,
    /// The recovery point.
    pub point: Option<String>,
    /// When the snapshot was taken.
    pub time: Timestamp,
    /// Why it stays; empty when it goes.
    pub reasons: Vec<String>,
}

/// What was done with a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The repository.
    pub repository: String,
    /// Where in the log the proposal stands.
    pub proposal: u64,
    /// The snapshots that are gone, in hex.
    pub removed: Vec<String>,
    /// Those that could not be removed, and why.
    pub failed: Vec<(String, String)>,
    /// Those that stay, since the store holds them, and until when if that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<(String, Option<String>)>,
    /// Locks of processes that are gone, removed so that the repository could be locked.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unlocked: usize,
    /// Why the removal stopped, if it did.
    pub error: Option<String>,
}

impl Proposed {
    /// All snapshots that go.
    pub fn removed(&self) -> impl Iterator<Item = &ProposedPoint> {
        self.items.iter().flat_map(|item| &item.remove)
    }

    /// Whether nothing goes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed().next().is_none()
    }
}

/// The repositories that the named data, or all, is kept in by a `keep`; in the plan's order.
#[must_use]
pub fn repositories(plan: &Planned, names: &[Name]) -> Vec<String> {
    let all = plan.plan.repositories.iter().map(|repository| repository.name.clone());
    all.filter(|name| !items(plan, name, names).is_empty()).collect()
}

/// Reads names of services and data items; each must be in the plan.
///
/// # Errors
/// Fails when a name leads nowhere.
pub fn names(plan: &Planned, texts: &[String]) -> Result<Vec<Name>, OperationError> {
    texts.iter().map(|text| Name::find(plan, text)).collect()
}

/// Proposes what goes from a repository. Removes nothing; a removal that was cut off before is
/// settled in the ledger.
///
/// # Errors
/// Fails when the repository or the ledger cannot be read: then it is not known what is proven.
pub fn propose(
    workspace: &Workspace,
    repository: &str,
    names: &[Name],
    now: Timestamp,
) -> Result<Proposed, OperationError> {
    let opened = stores::open(workspace, repository)?;
    if !abandoned(workspace, repository)?.is_empty() {
        let (environment, kind) = (&workspace.state.environment, LockKind::Exclusive);
        // Whoever holds it may be the one who applies it; then it is not for us to settle.
        if let Ok(lock) = Lock::acquire(&opened, kind, Duration::ZERO, environment, &Run::new()) {
            settle(workspace, &opened, repository)?;
            lock.release().map_err(OperationError::below)?;
        }
    }
    decide(workspace, &opened, repository, names, now)
}

/// Proposals for a repository whose outcome is not in the ledger, with where they stand there.
fn abandoned(
    workspace: &Workspace,
    repository: &str,
) -> Result<Vec<(u64, Proposed)>, OperationError> {
    let mut open = Vec::new();
    for logged in workspace.state.history(&["keep-proposed", "keep-applied"])? {
        match logged.record {
            Record::KeepProposed(proposed) if proposed.repository == repository => {
                open.push((logged.index, proposed));
            }
            Record::KeepApplied(applied) => open.retain(|(index, _)| *index != applied.proposal),
            _ => {}
        }
    }
    Ok(open)
}

/// Records what became of proposals whose process died. The caller holds the lock under which
/// proposals are applied, so nobody applies them now.
fn settle(
    workspace: &Workspace,
    opened: &Repository,
    repository: &str,
) -> Result<(), OperationError> {
    for (proposal, proposed) in abandoned(workspace, repository)? {
        let there = opened.snapshot_ids().map_err(OperationError::below)?;
        let there: BTreeSet<String> = there.iter().map(SnapshotId::to_hex).collect();
        let gone = proposed.removed().map(|point| point.snapshot.clone());
        let applied = Applied {
            repository: repository.to_owned(),
            proposal,
            removed: gone.filter(|id| !there.contains(id)).collect(),
            failed: Vec::new(),
            held: Vec::new(),
            unlocked: 0,
            error: Some("the process that removed them died".to_owned()),
        };
        workspace.state.record(&Record::KeepApplied(applied))?;
    }
    Ok(())
}

/// Removes what was proposed and shown, if it would be proposed again.
///
/// # Errors
/// Fails when that changed meanwhile, when somebody works in the repository, and as [`propose`].
pub fn apply(
    workspace: &Workspace,
    shown: &Proposed,
    names: &[Name],
    now: Timestamp,
    run: &Run,
) -> Result<Applied, OperationError> {
    let patience = Duration::from_secs(60);
    let applied = act(workspace, &shown.repository, names, (now, patience), Some(shown), run);
    let applied = standstill::noted(workspace, &shown.repository, applied)?;
    applied.ok_or_else(|| overtaken(&shown.repository))
}

/// Removes the locks of processes that are gone, as `muster repo unlock` does, and tells how many:
/// a backup that was killed leaves one behind, and nobody looks on who could remove it. Where
/// that cannot be done, taking the lock tells why.
pub(crate) fn unlock(workspace: &Workspace, opened: &Repository) -> usize {
    lock::remove_stale(opened, &workspace.state.environment).unwrap_or_default()
}

/// For serde: whether nothing is to be told of a number.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(crate) fn is_none(number: &usize) -> bool {
    *number == 0
}

/// Decides and removes at once, where nobody looks on; `None` when nothing goes.
///
/// # Errors
/// As [`apply`]. Waits no longer than `patience` for a repository that somebody uses.
pub fn keep_now(
    workspace: &Workspace,
    repository: &str,
    names: &[Name],
    (now, patience): (Timestamp, Duration),
    run: &Run,
) -> Result<Option<Applied>, OperationError> {
    let kept = match propose(workspace, repository, names, now) {
        // Looked at before the lock is asked for: most of the time nothing goes.
        Ok(proposed) if proposed.is_empty() => Ok(None),
        Ok(_) => act(workspace, repository, names, (now, patience), None, run),
        Err(error) => Err(error),
    };
    standstill::noted(workspace, repository, kept)
}

fn act(
    workspace: &Workspace,
    repository: &str,
    names: &[Name],
    (now, patience): (Timestamp, Duration),
    shown: Option<&Proposed>,
    run: &Run,
) -> Result<Option<Applied>, OperationError> {
    let opened = stores::open(workspace, repository)?;
    let environment = &workspace.state.environment;
    let unlocked = unlock(workspace, &opened);
    let lock = Lock::acquire(&opened, LockKind::Exclusive, patience, environment, run)
        .map_err(OperationError::below)?;
    settle(workspace, &opened, repository)?;
    let proposed = decide(workspace, &opened, repository, names, now)?;
    let removed = |proposed: &Proposed| {
        proposed.removed().map(|point| point.snapshot.clone()).collect::<Vec<_>>()
    };
    if shown.is_some_and(|shown| removed(shown) != removed(&proposed)) {
        return Err(overtaken(repository));
    }
    let applied = match proposed.is_empty() {
        true => None,
        false => Some(remove(workspace, (&opened, &lock, unlocked), &proposed, run)?),
    };
    lock.release().map_err(OperationError::below)?;
    Ok(applied)
}

/// Removes what a proposal says, which is in the ledger before the first snapshot goes.
fn remove(
    workspace: &Workspace,
    (opened, lock, unlocked): (&Repository, &Lock, usize),
    proposed: &Proposed,
    run: &Run,
) -> Result<Applied, OperationError> {
    let proposal = workspace.state.record(&Record::KeepProposed(proposed.clone()))?;
    let ids = |points: Vec<&ProposedPoint>| {
        points.into_iter().map(|point| hands::snapshot_id(&point.snapshot)).collect()
    };
    let kept: Result<Vec<SnapshotId>, _> =
        ids(proposed.items.iter().flat_map(|item| &item.keep).collect());
    let gone: Result<Vec<SnapshotId>, _> = ids(proposed.removed().collect());
    let done = forget::forget(opened, lock, &gone?, &kept?, run);
    let (report, error) = match done {
        Ok(report) => (report, None),
        Err(error) => (ForgetReport::default(), Some(OperationError::below(error))),
    };
    let failed = report.failed.iter().map(|(id, why)| (id.to_hex(), why.to_string()));
    let until = |retention: &Retention| retention.until.map(|until| until.to_string());
    let held = report.held.iter().map(|(id, retention)| (id.to_hex(), until(retention)));
    let applied = Applied {
        repository: proposed.repository.clone(),
        proposal,
        removed: report.removed.iter().map(SnapshotId::to_hex).collect(),
        failed: failed.collect(),
        held: held.collect(),
        unlocked,
        error: error.as_ref().map(OperationError::one_line),
    };
    workspace.state.record(&Record::KeepApplied(applied.clone()))?;
    error.map_or(Ok(applied), Err)
}

/// The items of the plan that have a `keep` in a repository, with what is kept of each.
fn items<'p>(
    plan: &'p Planned,
    repository: &str,
    names: &[Name],
) -> Vec<(&'p str, &'p str, Vec<&'p muster_plan::document::Keep>)> {
    let mut items = Vec::new();
    for service in &plan.plan.services {
        for item in &service.data {
            let is_wanted = names.iter().any(|name| name.covers(&service.name, &item.name));
            if let Some(keeps) = plan.plan.keeps(service, item, repository)
                && (names.is_empty() || is_wanted)
            {
                items.push((service.name.as_str(), item.name.as_str(), keeps));
            }
        }
    }
    items
}

fn decide(
    workspace: &Workspace,
    opened: &Repository,
    repository: &str,
    names: &[Name],
    now: Timestamp,
) -> Result<Proposed, OperationError> {
    let mut all = opened.snapshots().map_err(OperationError::below)?;
    let points = points::list(workspace, None)?;
    // What bears a point's tags and is no copy of it fills no count, and is not ours to remove.
    let altered = points.altered_in(repository);
    all.retain(|(id, _)| !altered.contains(&id.to_hex()));
    let is_silent =
        |unread: &points::Unread| unread.repository == repository && !unread.is_altered();
    if points.unread.iter().any(is_silent) {
        // Its last proven points are unknown: nothing may go.
        let what = format!("apply `keep` to repository {repository}");
        return Err(OperationError::Refused { what, blockers: points.explain(Vec::new()) });
    }
    let mut protected = protected_by_tags(&all, true);
    let known = [
        protected_by_proof(&points.points, repository),
        protected_as_newest(&points.points, repository),
    ];
    for (id, reasons) in known.into_iter().flatten() {
        let all = protected.entry(id).or_default();
        all.extend(reasons);
        all.dedup();
    }
    let damaged = points.points.iter().flat_map(|point| &point.copies);
    let damaged = damaged.filter(|copy| copy.damaged && copy.repository == repository);
    let damaged: BTreeSet<SnapshotId> =
        damaged.filter_map(|copy| hands::snapshot_id(&copy.snapshot).ok()).collect();
    let mut proposed = Proposed { repository: repository.to_owned(), items: Vec::new() };
    for (service, data, keeps) in items(workspace, repository, names) {
        let is_its = |(_, snapshot): &&Found| {
            points::tag(snapshot, "service") == Some(service)
                && points::tag(snapshot, "data") == Some(data)
                // A rewritten form is no point, and must not count as one.
                && points::tag(snapshot, "point").is_some()
        };
        let group: Vec<Found> = all.iter().filter(is_its).cloned().collect();
        let policies: Vec<Policy> = keeps.iter().map(|keep| policy_of(keep)).collect();
        let proposal = propose_all(&group, &policies, &protected, now, &damaged);
        // A policy that would leave nothing at all is not applied.
        if proposal.keep.is_empty() {
            continue;
        }
        let point = |id: SnapshotId, reasons: Vec<String>| {
            let snapshot = group.iter().find(|(own, _)| *own == id).map(|(_, snapshot)| snapshot);
            ProposedPoint {
                snapshot: id.to_hex(),
                point: snapshot.and_then(|it| points::tag(it, "point")).map(str::to_owned),
                time: snapshot.map(time_of).unwrap_or_default(),
                reasons,
            }
        };
        proposed.items.push(ProposedItem {
            service: service.to_owned(),
            data: data.to_owned(),
            policies: keeps.iter().map(ToString::to_string).collect(),
            keep: proposal.keep.into_iter().map(|kept| point(kept.id, kept.reasons)).collect(),
            remove: proposal.remove.into_iter().map(|id| point(id, Vec::new())).collect(),
        });
    }
    Ok(proposed)
}

fn time_of(snapshot: &muster_repository::format::snapshot::Snapshot) -> Timestamp {
    let nanoseconds = i32::try_from(snapshot.time.nanoseconds()).unwrap_or_default();
    Timestamp::new(snapshot.time.seconds(), nanoseconds).unwrap_or_default()
}

/// Something changed between showing and removing.
fn overtaken(repository: &str) -> OperationError {
    let blocker = Blocker {
        code: "overtaken",
        message: "something changed since the proposal was made".to_owned(),
        help: "nothing was removed; run the command again".to_owned(),
    };
    let what = format!("remove points from {repository} as proposed");
    OperationError::Refused { what, blockers: vec![blocker] }
}
