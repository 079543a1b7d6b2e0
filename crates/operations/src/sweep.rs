//! What a killed process left behind is put in order by the next command.
//!
//! A drill that was killed has children and a target folder: exactly these are ended and
//! removed, and that is recorded. A backup that was killed has no snapshot: it is settled as
//! lost. A recovery is left alone, children and all: it is resumed.

use std::{collections::HashSet, fs, io, path::Path, time::Duration};

use jiff::Timestamp;
use muster_drivers::process::{self, Outcome};
use muster_model::{
    Disruption, DrillResult, Verdict,
    drill::{ClockStart, Proof, RecoveryLoss, RecoveryTime},
};

use crate::{
    error::OperationError,
    process::lives,
    records::{
        BackupEnded, BackupOutcome, BackupStarted, ChildEnded, ChildStarted, DrillStarted,
        HookEnded, HookStarted, Record, Swept, Target,
    },
    runtime,
    state::{Logged, State},
};

/// How long a process may take to end when it is asked.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// Says of a process that it is still there: then the clean-up is not proven.
const REMAINS: &str = "cannot be ended";

/// The kinds of entries that tell what is unfinished.
const KINDS: &[&str] = &[
    "backup-started",
    "backup-ended",
    "drill-started",
    "drill-ended",
    "target-made",
    "target-removed",
    "child-started",
    "child-ended",
    "hook-started",
    "hook-ended",
];

/// Puts in order what killed processes left; tells what was done.
///
/// # Errors
/// Fails when the ledger cannot be read or written.
pub(crate) fn sweep(state: &State) -> Result<Vec<String>, OperationError> {
    let Some(_lock) = state.lock("sweep")? else { return Ok(Vec::new()) };
    let history = state.history(KINDS)?;
    let mut done = Vec::new();
    for started in lost_backups(&history) {
        done.push(format!(
            "the backup of {}/{} that was cut off is settled as lost",
            started.service, started.data
        ));
        state.record(&Record::BackupEnded(lost(started)))?;
    }
    for started in lost_hooks(&history) {
        done.extend(end_children(state, &history, &started.point)?);
        done.push(format!("the hook {} of {} was cut off", started.hook, started.job));
        let error = Some("the process that ran it died".to_owned());
        let ended = HookEnded { started: started.clone(), took_s: None, error };
        state.record(&Record::HookEnded(ended))?;
    }
    for (at, started) in lost_drills(&history) {
        let mut deeds = end_children(state, &history, &started.drill)?;
        deeds.extend(remove_targets(state, &history, &started.drill)?);
        deeds.push(format!("drill {} that was cut off is settled as aborted", started.number));
        state.record(&Record::Swept(Swept { run: started.drill.clone(), done: deeds.clone() }))?;
        state.record(&Record::DrillEnded(Box::new(aborted(started, at, &deeds))))?;
        done.extend(deeds);
    }
    Ok(done)
}

fn lost_backups(history: &[Logged]) -> Vec<&BackupStarted> {
    let ended: HashSet<(&str, &str, &str)> = history
        .iter()
        .filter_map(|logged| match &logged.record {
            Record::BackupEnded(ended) => Some((&*ended.service, &*ended.data, &*ended.point)),
            _ => None,
        })
        .collect();
    let is_lost = |started: &&BackupStarted| {
        !ended.contains(&(&*started.service, &*started.data, &*started.point))
            && !lives(&started.process)
    };
    let started = history.iter().filter_map(|logged| match &logged.record {
        Record::BackupStarted(started) => Some(started),
        _ => None,
    });
    started.filter(is_lost).collect()
}

fn lost(started: &BackupStarted) -> BackupEnded {
    BackupEnded {
        outcome: BackupOutcome::Lost,
        error: Some("the process that made it died".to_owned()),
        ..BackupEnded::of(started)
    }
}

/// Hooks that nobody waits for any more.
fn lost_hooks(history: &[Logged]) -> Vec<&HookStarted> {
    let ended: HashSet<(&str, &str)> = history
        .iter()
        .filter_map(|logged| match &logged.record {
            Record::HookEnded(HookEnded { started, .. }) => Some((&*started.point, &*started.hook)),
            _ => None,
        })
        .collect();
    let is_lost = |s: &&HookStarted| !ended.contains(&(&*s.point, &*s.hook)) && !lives(&s.process);
    let started = history.iter().filter_map(|logged| match &logged.record {
        Record::HookStarted(started) => Some(started),
        _ => None,
    });
    started.filter(is_lost).collect()
}

/// Drills that nobody runs any more, with when they started.
fn lost_drills(history: &[Logged]) -> Vec<(Timestamp, &DrillStarted)> {
    let ended: HashSet<&str> = history
        .iter()
        .filter_map(|logged| match &logged.record {
            Record::DrillEnded(ended) => Some(ended.drill.as_str()),
            _ => None,
        })
        .collect();
    let started = history.iter().filter_map(|logged| match &logged.record {
        Record::DrillStarted(started) => Some((logged.at, started)),
        _ => None,
    });
    let is_lost = |s: &DrillStarted| !ended.contains(s.drill.as_str()) && !lives(&s.process);
    started.filter(|(_, started)| is_lost(started)).collect()
}

/// Ends the children of a run that the ledger knows and that still live.
pub(crate) fn end_children(
    state: &State,
    history: &[Logged],
    run: &str,
) -> Result<Vec<String>, OperationError> {
    let mut deeds = Vec::new();
    for child in open_children(history, run) {
        let ended = runtime::block_on(process::end_recorded(&child.child, GRACE))?;
        let how = match ended.map_err(OperationError::io("end the processes of", run))? {
            Outcome::Ended => "ended".to_owned(),
            Outcome::WasGone => "was gone".to_owned(),
            Outcome::NotOurs => "its number belongs to another process now".to_owned(),
            Outcome::Remains(left) => format!("{REMAINS}: {left:?} are left"),
        };
        deeds.push(format!("process {} ({}) {how}", child.child.pid, child.role));
        state.record(&Record::ChildEnded(ChildEnded {
            run: run.to_owned(),
            pid: child.child.pid,
            mark: child.child.mark.clone(),
            how,
        }))?;
    }
    Ok(deeds)
}

/// Children of a run that were started and not seen to end.
pub(crate) fn open_children<'h>(history: &'h [Logged], run: &str) -> Vec<&'h ChildStarted> {
    let ended = |child: &ChildStarted| {
        history.iter().any(|logged| {
            matches!(&logged.record, Record::ChildEnded(ended)
                if ended.run == run && ended.mark == child.child.mark)
        })
    };
    let children = history.iter().filter_map(|logged| match &logged.record {
        Record::ChildStarted(child) if child.run == run => Some(child),
        _ => None,
    });
    children.filter(|child| !ended(child)).collect()
}

fn remove_targets(
    state: &State,
    history: &[Logged],
    run: &str,
) -> Result<Vec<String>, OperationError> {
    let mut deeds = Vec::new();
    let removed = |target: &Target| {
        history.iter().any(|l| matches!(&l.record, Record::TargetRemoved(gone) if gone == target))
    };
    for logged in history {
        let Record::TargetMade(target) = &logged.record else { continue };
        if target.run != run || removed(target) {
            continue;
        }
        remove_folder(Path::new(&target.dir))
            .map_err(OperationError::io("remove the target", &target.dir))?;
        // As a drill that ends in order: outside the state nothing of it stays. In the state its
        // folder holds logs, and this does nothing.
        drop(Path::new(&target.dir).parent().map(fs::remove_dir));
        state.record(&Record::TargetRemoved(target.clone()))?;
        deeds.push(format!("the target {} is removed", target.dir));
    }
    Ok(deeds)
}

/// Removes a folder with all that is in it; one that is gone already is fine.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The result of a drill of which nothing is known but that it was cut off.
fn aborted(started: &DrillStarted, at: Timestamp, deeds: &[String]) -> DrillResult {
    let ok = !deeds.iter().any(|deed| deed.contains(REMAINS));
    let cleanup = Proof { name: "left behind".to_owned(), ok, detail: deeds.join("; ") };
    let mut result = DrillResult {
        plan_revision: started.revision.clone(),
        verdict: Verdict::Aborted,
        reasons: vec!["the process that ran it died".to_owned()],
        started: at,
        ended: Timestamp::now(),
        cleanup: vec![cleanup],
        ..blank(&started.drill, started.number, &started.service, started.disruption)
    };
    result.recovery_time.objective_s = started.rto_s;
    result.recovery_point.objective_s = started.rpo_s;
    result
}

/// A result in which nothing was measured.
pub(crate) fn blank(
    drill: &str,
    number: u64,
    service: &str,
    disruption: Disruption,
) -> DrillResult {
    let now = Timestamp::now();
    DrillResult {
        drill: drill.to_owned(),
        number,
        service: service.to_owned(),
        disruption,
        verdict: Verdict::Error,
        reasons: Vec::new(),
        started: now,
        ended: now,
        plan_revision: String::new(),
        points: Vec::new(),
        recovery_time: RecoveryTime {
            objective_s: None,
            actual_s: None,
            clock_start: ClockStart::Impact,
            phases: Vec::new(),
        },
        recovery_point: RecoveryLoss { objective_s: None, actual_s_min: None, actual_s_max: None },
        markers: None,
        probes: Vec::new(),
        negative_controls: Vec::new(),
        completeness: Vec::new(),
        isolation: Vec::new(),
        cleanup: Vec::new(),
        findings: Vec::new(),
        evidence: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::this_process;

    #[test]
    fn a_process_that_remains_is_no_proven_clean_up() {
        let started = DrillStarted {
            drill: "d".to_owned(),
            number: 1,
            service: "orders".to_owned(),
            disruption: Disruption::RegionLoss,
            revision: String::new(),
            due: None,
            rto_s: None,
            rpo_s: None,
            process: this_process(),
        };
        let is_ok = |deed: &str| {
            let result = aborted(&started, Timestamp::UNIX_EPOCH, &[deed.to_owned()]);
            result.cleanup[0].ok
        };
        assert!(is_ok("process 7 (start) ended"));
        assert!(!is_ok(&format!("process 7 (start) {REMAINS}: [7] are left")));
    }
}
