//! A plan's `immutable`: what was just written is held in its store, and read back.
//!
//! A backup whose hold failed is there and is no immutable copy: that is a failure of the job, in
//! the ledger and in its report, and no drill for ransomware takes such a copy. What counts later
//! is what the store says then (`read`), never the plan or the ledger.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use muster_model::units::{agree, counted};
use muster_repository::{
    format::time::Timestamp as FileTime,
    id::SnapshotId,
    immutable::{self, HoldReport},
    lock::{Lock, LockKind},
    repository::Repository,
    run::Run,
    storage::Mode,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::OperationError,
    protect::{JobFailure, JobReport, Tools},
    records::Record,
    workspace::Workspace,
};

/// How long to wait for a repository that somebody has locked.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// Everything that a snapshot needs was to be held in its store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldEnded {
    /// The service.
    pub service: String,
    /// The data item.
    pub data: String,
    /// The recovery point.
    pub point: String,
    /// The repository.
    pub repository: String,
    /// The snapshot, in hex.
    pub snapshot: String,
    /// Until when nobody can destroy it, as the store said; `None` when it is not so.
    pub until: Option<Timestamp>,
    /// `compliance` or `governance`: whether anybody can end it earlier.
    pub mode: Option<String>,
    /// Why it is not held as long as the plan says.
    pub error: Option<String>,
}

/// Holds what a job wrote, in every repository that the plan calls immutable.
///
/// # Errors
/// Fails when the ledger cannot be written or the run is cancelled; what could not be held is in
/// the report.
pub(crate) fn hold_all(
    workspace: &Workspace,
    tools: &Tools,
    report: &mut JobReport,
    run: &Run,
) -> Result<(), OperationError> {
    for repository in &workspace.plan.repositories {
        if let Some(time) = repository.immutable {
            hold_in(workspace, tools, (&repository.name, time), report, run)?;
        }
    }
    Ok(())
}

/// What a job wrote into a repository: service, data and snapshot.
fn written(report: &JobReport, name: &str) -> Vec<(String, String, SnapshotId)> {
    let id = |text: &Option<String>| SnapshotId::parse(text.as_ref()?);
    let backups = report.backups.iter().filter(|ended| ended.repository == name);
    let backups = backups.filter_map(|ended| {
        Some((ended.service.clone(), ended.data.clone(), id(&ended.snapshot)?))
    });
    let copies = report.copies.iter().filter(|ended| ended.to == name);
    let copies = copies.filter_map(|ended| {
        Some((ended.service.clone(), ended.data.clone(), id(&ended.snapshot)?))
    });
    backups.chain(copies).collect()
}

fn hold_in(
    workspace: &Workspace,
    tools: &Tools,
    (name, time): (&str, Duration),
    report: &mut JobReport,
    run: &Run,
) -> Result<(), OperationError> {
    let written = written(report, name);
    if written.is_empty() {
        return Ok(());
    }
    let ids: Vec<SnapshotId> = written.iter().map(|(_, _, id)| *id).collect();
    let held = hold(workspace, tools, name, &ids, time, report, run);
    for (service, data, id) in written {
        let mut ended = HoldEnded {
            service,
            data,
            point: report.point.clone(),
            repository: name.to_owned(),
            snapshot: id.to_hex(),
            until: None,
            mode: None,
            error: None,
        };
        match &held {
            Ok(held) => ended.fill(held, id),
            Err(error) => ended.error = Some(error.one_line()),
        }
        workspace.state.record(&Record::HoldEnded(ended.clone()))?;
        if let (Ok(_), Some(why)) = (&held, &ended.error) {
            let what = format!("make {}/{} immutable in {name}", ended.service, ended.data);
            let (first, more) = (why.clone(), 0);
            let error = OperationError::Incomplete { what: what.clone(), first, more };
            report.failures.push(JobFailure { what, error });
        }
        report.holds.push(ended);
    }
    if let Err(error) = held {
        let what = format!("make the new copies in {name} immutable");
        report.failures.push(JobFailure { what, error });
    }
    run.cancel.check().map_err(|why| OperationError::Interrupted { why: why.to_string() })
}

fn hold(
    workspace: &Workspace,
    tools: &Tools,
    name: &str,
    ids: &[SnapshotId],
    time: Duration,
    report: &mut JobReport,
    run: &Run,
) -> Result<HoldReport, OperationError> {
    let environment = &workspace.state.environment;
    let repository = tools.repository(workspace, name, &mut report.made)?;
    let lock = Lock::acquire(&repository, LockKind::Shared, LOCK_PATIENCE, environment, run);
    let lock = lock.map_err(OperationError::below)?;
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let until = FileTime::new(environment.now().seconds().saturating_add(seconds), 0, 0);
    let held = immutable::hold_snapshots(&repository, ids, until, run);
    let held = held.map_err(OperationError::below)?;
    lock.release().map_err(OperationError::below)?;
    Ok(held)
}

impl HoldEnded {
    fn fill(&mut self, report: &HoldReport, id: SnapshotId) {
        let Some(held) = report.snapshots.iter().find(|held| held.snapshot == id) else { return };
        self.until = held.until.map(moment);
        self.mode = held.mode.map(|mode: Mode| mode.to_string());
        if report.lacking().any(|lacking| lacking.snapshot == id) {
            let first = held.lacking.first().map(|(file, _)| file.to_string());
            self.error = Some(format!(
                "{} of {} that it needs {} not held, {} for one",
                held.lacking.len(),
                counted(held.files, "file"),
                agree(held.lacking.len(), "is", "are"),
                first.unwrap_or_else(|| "its end".to_owned())
            ));
        }
    }
}

fn moment(time: FileTime) -> Timestamp {
    Timestamp::from_second(time.seconds()).unwrap_or_default()
}

/// Until when snapshots are held, as their store says now; those that are not are left out.
pub(crate) fn read(
    repository: &Repository,
    ids: &[SnapshotId],
) -> Result<BTreeMap<SnapshotId, Timestamp>, OperationError> {
    let seals = immutable::seals(repository, ids, &Run::new()).map_err(OperationError::below)?;
    Ok(seals.into_iter().filter_map(|(id, until)| Some((id, moment(until?)))).collect())
}
