//! What the ledger's entries mean: every kind that Muster writes, as a type.
//!
//! The ledger itself has no opinion. Fields may be added; a reader ignores what it does not
//! know, and an entry of an unknown kind is passed over, so an older Muster can read a newer
//! ledger.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use muster_control::{choice::Blocker, journal};
use muster_drivers::process::ChildIdentity;
use muster_model::{BackupKind, Disruption, DrillResult, Fault as _, Finding, Light};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    holding::HoldEnded,
    housekeeping::Pruned,
    keeping::{Applied, Proposed},
    moment::Moment,
    points::Unread,
    standstill::KeepTried,
    verify::VerifyEnded,
};

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "kebab-case")]
pub enum Record {
    /// A plan was seen for the first time in this revision.
    PlanSeen(PlanSeen),
    /// A backup of a data item starts.
    BackupStarted(BackupStarted),
    /// A backup of a data item ended.
    BackupEnded(BackupEnded),
    /// A snapshot was copied to another repository, or that failed.
    CopyEnded(CopyEnded),
    /// What a snapshot needs is held in its store, or that failed.
    HoldEnded(HoldEnded),
    /// What became of a try to apply `keep` in a repository.
    KeepTried(KeepTried),
    /// What a plan's `keep` takes from a repository, before anything is removed.
    KeepProposed(Proposed),
    /// What was removed.
    KeepApplied(Applied),
    /// Space was freed in a repository, or that failed.
    Pruned(Pruned),
    /// A repository was read back, in turn, or that failed.
    VerifyEnded(VerifyEnded),
    /// Runs of a job that never happened.
    RunsMissed(RunsMissed),
    /// A run that was left out, since one of the same job was still under way.
    RunSkipped(RunSkipped),
    /// A hook is about to run.
    HookStarted(HookStarted),
    /// A hook ended.
    HookEnded(HookEnded),
    /// A marker was acknowledged by the source.
    Marker(MarkerRecord),
    /// The calendar asks for a drill.
    DrillScheduled(Appointment),
    /// A drill starts.
    DrillStarted(DrillStarted),
    /// A drill ended. Boxed: it is much larger than the others.
    DrillEnded(Box<DrillResult>),
    /// A drill that was due was not started within its window.
    DrillExpired(Appointment),
    /// A drill was refused, with what stood in the way.
    DrillRefused(DrillRefused),
    /// A recovery starts.
    RecoveryStarted(RecoveryStarted),
    /// A recovery ended.
    RecoveryEnded(Box<DrillResult>),
    /// A target folder is about to be made.
    TargetMade(Target),
    /// A target folder is gone.
    TargetRemoved(Target),
    /// A copy of a recovery point could not be read, and another one was looked for.
    CopyUnread(CopyUnread),
    /// A line of a run's journal.
    Journal(JournalLine),
    /// A process is about to run.
    ChildStarted(ChildStarted),
    /// A process and all that it started are gone.
    ChildEnded(ChildEnded),
    /// A probe turned.
    ProbeTurned(ProbeTurned),
    /// What a process that was killed left behind was put in order.
    Swept(Swept),
}

/// Entries of these kinds are many and small: a bundle may leave them out, as hashes.
pub const BULK_KINDS: &[&str] = &["marker", "probe-turned"];

/// A plan's revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSeen {
    /// The plan's name.
    pub name: String,
    /// SHA-256 of its text in hex.
    pub revision: String,
    /// What was found in it then.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// A backup of a data item starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupStarted {
    /// The job: service and the place of the line in `protect`, or `manual`.
    pub job: String,
    /// The service.
    pub service: String,
    /// The data item.
    pub data: String,
    /// The repository that is written.
    pub repository: String,
    /// The recovery point.
    pub point: String,
    /// How much is read again.
    pub kind: BackupKind,
    /// Who makes it.
    pub process: ProcessRecord,
}

/// How a backup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupOutcome {
    /// Everything is in the snapshot.
    Completed,
    /// Something was left out.
    Partial,
    /// There is no snapshot.
    Failed,
    /// The process that made it died; found by a later one.
    Lost,
}

/// A backup of a data item ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupEnded {
    /// The job.
    pub job: String,
    /// The service.
    pub service: String,
    /// The data item.
    pub data: String,
    /// The repository that was written.
    pub repository: String,
    /// The recovery point.
    pub point: String,
    /// How it ended.
    pub outcome: BackupOutcome,
    /// The snapshot, in hex.
    pub snapshot: Option<String>,
    /// Its root tree, in hex: what is in it, and so in every copy of it. Unknown to ledgers of before
    /// this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
    /// The content is not older than this.
    pub data_time: Option<Timestamp>,
    /// Bytes that a restore writes.
    pub bytes: Option<u64>,
    /// Bytes that the repository grew by.
    pub bytes_added: Option<u64>,
    /// Files in the snapshot.
    pub files: Option<u64>,
    /// When it began, by both clocks; unknown to ledgers of before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Moment>,
    /// How long it took.
    pub took_s: Option<f64>,
    /// What was left out.
    pub left_out: Vec<String>,
    /// What may surprise.
    pub notices: Vec<String>,
    /// Least and most rows of counted tables.
    pub rows: BTreeMap<String, (u64, u64)>,
    /// Why it failed.
    pub error: Option<String>,
}

/// A snapshot was copied, or that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CopyEnded {
    /// The service.
    pub service: String,
    /// The data item.
    pub data: String,
    /// The recovery point.
    pub point: String,
    /// Read from.
    pub from: String,
    /// Written to.
    pub to: String,
    /// The new snapshot, in hex.
    pub snapshot: Option<String>,
    /// From the end of the backup to the end of the copy.
    pub lag_s: f64,
    /// Why it failed.
    pub error: Option<String>,
}

/// Runs that never happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsMissed {
    /// The job.
    pub job: String,
    /// The service.
    pub service: String,
    /// When the first of them, or the one that is caught up now, was due.
    pub due: Timestamp,
    /// How many.
    pub runs: u32,
}

/// A run that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSkipped {
    /// The job.
    pub job: String,
    /// The service.
    pub service: String,
    /// Why.
    pub why: String,
}

/// A marker that the source acknowledged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MarkerRecord {
    /// The service.
    pub service: String,
    /// The data item.
    pub data: String,
    /// Who wrote it.
    pub writer: Uuid,
    /// Its number.
    pub n: u64,
    /// When its writing began.
    pub at: Moment,
    /// When it was acknowledged; early records do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Moment>,
}

impl MarkerRecord {
    /// When it was in the data for sure.
    #[must_use]
    pub fn acknowledged(&self) -> &Moment {
        self.acknowledged.as_ref().unwrap_or(&self.at)
    }
}

/// A drill that the calendar asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointment {
    /// The service.
    pub service: String,
    /// What is rehearsed.
    pub disruption: Disruption,
    /// When it is due.
    pub due: Timestamp,
    /// When it is too late.
    pub until: Timestamp,
    /// The revision of the plan that asks for it.
    pub revision: String,
}

/// A drill starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillStarted {
    /// The drill.
    pub drill: String,
    /// Its number; they count from 1 without gaps.
    pub number: u64,
    /// The service.
    pub service: String,
    /// What is rehearsed.
    pub disruption: Disruption,
    /// The plan's revision.
    pub revision: String,
    /// The appointment that it keeps, if any.
    pub due: Option<Timestamp>,
    /// The recovery time objective, as it was then.
    #[serde(default)]
    pub rto_s: Option<f64>,
    /// The recovery point objective, as it was then.
    #[serde(default)]
    pub rpo_s: Option<f64>,
    /// Who runs it.
    pub process: ProcessRecord,
}

/// A process, told apart from all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
    /// The machine's boot.
    pub boot: String,
}

/// A drill was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillRefused {
    /// The service.
    pub service: String,
    /// What was to be rehearsed.
    pub disruption: Disruption,
    /// What stood in the way: code and message.
    pub blockers: Vec<(String, String)>,
}

impl BackupEnded {
    /// The end of a backup of which nothing is known: failed, until more is.
    pub(crate) fn of(started: &BackupStarted) -> Self {
        Self {
            job: started.job.clone(),
            service: started.service.clone(),
            data: started.data.clone(),
            repository: started.repository.clone(),
            point: started.point.clone(),
            outcome: BackupOutcome::Failed,
            snapshot: None,
            tree: None,
            data_time: None,
            bytes: None,
            bytes_added: None,
            files: None,
            began: None,
            took_s: None,
            left_out: Vec::new(),
            notices: Vec::new(),
            rows: BTreeMap::new(),
            error: None,
        }
    }
}

impl DrillRefused {
    pub(crate) fn new(service: &str, disruption: Disruption, blockers: &[Blocker]) -> Self {
        let pair = |blocker: &Blocker| (blocker.code.to_owned(), blocker.message.clone());
        Self {
            service: service.to_owned(),
            disruption,
            blockers: blockers.iter().map(pair).collect(),
        }
    }
}

/// A recovery starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoveryStarted {
    /// The run.
    pub run: String,
    /// Its number; they count from 1 without gaps.
    pub number: u64,
    /// The service.
    pub service: String,
    /// What happened, as far as the operator said.
    pub disruption: Option<Disruption>,
    /// The site: a folder of this machine.
    pub site: String,
    /// The port of `{{ target.port }}`.
    pub port: u16,
    /// From when the time counts.
    pub clock: Moment,
    /// The operator said when the disruption happened.
    pub impact_known: bool,
    /// When the operator decided: when this command began.
    pub declared: Moment,
    /// The chosen points: data item, point, repository, snapshot.
    pub points: Vec<muster_model::drill::PointUsed>,
    /// The plan's revision.
    pub revision: String,
    /// Who runs it.
    pub process: ProcessRecord,
}

/// A folder that a run works in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The drill or recovery.
    pub run: String,
    /// The folder.
    pub dir: String,
}

/// A copy of a recovery point, or a repository that may hold one, could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyUnread {
    /// The drill or recovery.
    pub run: String,
    /// `choice`, `runbook`, or which negative control.
    pub part: String,
    /// The data item; `None` when that cannot be told.
    pub data: Option<String>,
    /// The repository.
    pub repository: String,
    /// The snapshot, in hex; `None` when the whole repository did not answer.
    pub snapshot: Option<String>,
    /// The error's code.
    pub code: String,
    /// Why.
    pub why: String,
}

impl CopyUnread {
    /// What was seen as points were looked for, for the run that did.
    pub(crate) fn of(run: &str, unread: &Unread) -> Self {
        Self {
            run: run.to_owned(),
            part: "choice".to_owned(),
            data: None,
            repository: unread.repository.clone(),
            snapshot: unread.snapshot.clone(),
            code: unread.error.code().to_owned(),
            why: unread.error.one_line(),
        }
    }
}

impl fmt::Display for CopyUnread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { data, repository, snapshot, why, .. } = self;
        match (data, snapshot.as_ref().map(|id| id.get(..8).unwrap_or(id))) {
            (Some(data), _) => write!(f, "{data}: {repository}: cannot {why}"),
            (None, Some(id)) => write!(f, "snapshot {id} in {repository}: cannot {why}"),
            (None, None) => write!(f, "{repository}: cannot {why}"),
        }
    }
}

/// A line of a run's journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalLine {
    /// The drill or recovery.
    pub run: String,
    /// `runbook`, or which negative control.
    pub part: String,
    /// What happened.
    pub event: journal::Event,
    /// What the step does, for people.
    pub summary: String,
    /// When.
    pub at: Moment,
}

/// A hook of a line of `protect` is about to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookStarted {
    /// The job.
    pub job: String,
    /// The service.
    pub service: String,
    /// The recovery point that the job makes.
    pub point: String,
    /// `before`, `after` or `on_failure`.
    pub hook: String,
    /// Who runs it.
    pub process: ProcessRecord,
}

/// A hook ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookEnded {
    /// What was started.
    #[serde(flatten)]
    pub started: HookStarted,
    /// How long it took; `None` when nobody saw it end.
    pub took_s: Option<f64>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// A process is about to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildStarted {
    /// The drill or recovery; the recovery point, of a hook.
    pub run: String,
    /// `runbook`, or which negative control.
    pub part: String,
    /// The step that it belongs to, from 0.
    pub step: usize,
    /// What it is: `start`, `run`, or the data item whose server it is.
    pub role: String,
    /// The process.
    pub child: ChildIdentity,
}

/// A process and all that it started are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildEnded {
    /// The drill or recovery.
    pub run: String,
    /// Its number.
    pub pid: u32,
    /// What told it from all others.
    pub mark: String,
    /// How.
    pub how: String,
}

/// A probe turned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeTurned {
    /// The drill or recovery.
    pub run: String,
    /// `runbook`, or which negative control.
    pub part: String,
    /// The probe.
    pub probe: String,
    /// Its new answer.
    pub light: Light,
    /// Seconds since the run's clock began.
    pub at_s: f64,
    /// What it saw.
    pub detail: String,
}

/// What a process that was killed left behind was put in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// The drill, recovery or job.
    pub run: String,
    /// What was done.
    pub done: Vec<String>,
}

impl Record {
    /// The kind and the body, as the ledger keeps them.
    pub(crate) fn parts(&self) -> Result<(String, serde_json::Value), serde_json::Error> {
        let mut whole = serde_json::to_value(self)?;
        let kind = whole["kind"].as_str().unwrap_or_default().to_owned();
        Ok((kind, whole["body"].take()))
    }

    /// Tells a result where in the log it stands, which its own entry cannot know.
    pub(crate) fn placed(mut self, index: u64) -> Self {
        if let Self::DrillEnded(result) | Self::RecoveryEnded(result) = &mut self
            && let Some(evidence) = &mut result.evidence
        {
            evidence.log_index = Some(index);
        }
        self
    }

    /// Reads an entry; `None` when the kind or the shape is of another version.
    pub(crate) fn read(kind: &str, body: &serde_json::Value) -> Option<Self> {
        serde_json::from_value(serde_json::json!({"kind": kind, "body": body})).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_the_ledger() {
        let record = Record::RunSkipped(RunSkipped {
            job: "orders/0".to_owned(),
            service: "orders".to_owned(),
            why: "still running".to_owned(),
        });
        let (kind, body) = record.parts().unwrap();
        assert_eq!(kind, "run-skipped");
        assert_eq!(Record::read(&kind, &body), Some(record));
        assert_eq!(Record::read("from-the-future", &body), None);
    }

    #[test]
    fn bulk_kinds_exist() {
        let body = serde_json::json!({
            "service": "s", "data": "d", "writer": Uuid::nil(), "n": 1, "at": Moment::now(),
        });
        assert!(Record::read(BULK_KINDS[0], &body).is_some());
    }
}
