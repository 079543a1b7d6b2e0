//! `muster report`: gathers what the report tells.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use muster_control::matrix::Figures;
use muster_model::{DrillResult, Finding, Verdict, units::counted};
use muster_plan::document::{Facts as PlanFacts, Service};

use crate::{
    error::OperationError,
    facts,
    points::{self, Unread},
    records::{Appointment, BackupEnded, BackupOutcome, Record},
    report::data::{
        BackupStats, EvidenceState, Facts, HeldException, ReportData, Service as ReportedService,
        Unfinished, Verification,
    },
    state::Logged,
    status::{drills, matrix},
    sweep::blank,
    unread, verify,
    workspace::{Workspace, read_plan},
};

/// Kinds of entries that the report reads, besides ended drills.
const KINDS: &[&str] = &[
    "backup-ended",
    "runs-missed",
    "drill-started",
    "drill-expired",
    "drill-refused",
    "drill-ended",
    "recovery-ended",
];

/// Gathers a report from `since` until now.
///
/// # Errors
/// Fails when the plan or the ledger cannot be read.
pub fn gather(workspace: &Workspace, since: Timestamp) -> Result<ReportData, OperationError> {
    let now = Timestamp::now();
    let listed = points::list(workspace, None)?;
    let ended = drills(workspace)?;
    let history = workspace.state.history(KINDS)?;
    let in_period = |at: Timestamp| since <= at && at <= now;
    let mut shown: Vec<DrillResult> =
        ended.iter().filter(|drill| in_period(drill.started)).cloned().collect();
    shown.extend(history.iter().filter(|l| in_period(l.at)).filter_map(unheld));
    shown.sort_by_key(|drill| drill.started);
    let plan = &workspace.plan;
    Ok(ReportData::new(Facts {
        plan: plan.name.clone(),
        revision: plan.revision.clone(),
        generated: now,
        since,
        until: now,
        zone: TimeZone::system().iana_name().unwrap_or("UTC").to_owned(),
        cells: matrix(workspace, &ended, &listed.points, None),
        services: plan.services.iter().map(|service| reported(workspace, service)).collect(),
        drills: shown,
        unfinished: unfinished(&history),
        recoveries: recoveries(&history, since),
        findings: findings(workspace, &listed.unread, now)?,
        points: listed.points,
        backups: backups(&history, since),
        exceptions: exceptions(workspace, now),
        evidence: evidence(workspace, now)?,
    }))
}

/// A drill that was expected and not held: expired, or refused.
fn unheld(logged: &Logged) -> Option<DrillResult> {
    match &logged.record {
        Record::DrillExpired(Appointment { service, disruption, due, until, revision }) => {
            let mut result = blank("", 0, service, *disruption);
            result.verdict = Verdict::Expired;
            result.reasons = vec![format!("due {due} and not started by {until}")];
            (result.started, result.ended) = (*due, *until);
            result.plan_revision.clone_from(revision);
            Some(result)
        }
        Record::DrillRefused(refused) => {
            let mut result = blank("", 0, &refused.service, refused.disruption);
            result.verdict = Verdict::Skipped;
            result.reasons = refused.blockers.iter().map(|(_, why)| why.clone()).collect();
            (result.started, result.ended) = (logged.at, logged.at);
            Some(result)
        }
        _ => None,
    }
}

fn reported(workspace: &Workspace, service: &Service) -> ReportedService {
    let tier = workspace.plan.tier_of(service);
    let seconds = |d: Option<std::time::Duration>| d.map(|d| d.as_secs_f64());
    ReportedService {
        name: service.name.clone(),
        tier: service.tier.clone(),
        owner: service.owner.clone(),
        objective: Figures {
            rto_s: seconds(tier.and_then(|tier| tier.rto)),
            rpo_s: seconds(tier.and_then(|tier| tier.rpo)),
        },
        excluded: service.no_objective.clone(),
    }
}

/// Drills that were started and did not end: one may be running right now.
fn unfinished(history: &[Logged]) -> Vec<Unfinished> {
    let has_ended = |id: &str| {
        history
            .iter()
            .any(|logged| matches!(&logged.record, Record::DrillEnded(ended) if ended.drill == id))
    };
    let started = history.iter().filter_map(|logged| match &logged.record {
        Record::DrillStarted(started) if !has_ended(&started.drill) => Some(Unfinished {
            drill: started.drill.clone(),
            number: started.number,
            service: started.service.clone(),
            disruption: started.disruption,
            started: logged.at,
        }),
        _ => None,
    });
    started.collect()
}

fn recoveries(history: &[Logged], since: Timestamp) -> Vec<DrillResult> {
    let ended = history.iter().filter_map(|logged| match &logged.record {
        Record::RecoveryEnded(ended) if ended.ended >= since => Some((**ended).clone()),
        _ => None,
    });
    ended.collect()
}

fn backups(history: &[Logged], since: Timestamp) -> Vec<BackupStats> {
    let mut stats: BTreeMap<(String, String), BackupStats> = BTreeMap::new();
    for logged in history.iter().filter(|logged| logged.at >= since) {
        if let Record::BackupEnded(ended) = &logged.record {
            let key = (ended.service.clone(), ended.data.clone());
            let entry = stats.entry(key).or_insert_with(|| no_backups(ended));
            count(entry, logged.at, ended);
        }
    }
    for logged in history.iter().filter(|logged| logged.at >= since) {
        if let Record::RunsMissed(missed) = &logged.record {
            let ours = stats.values_mut().filter(|stats| stats.service == missed.service);
            ours.for_each(|stats| stats.missed += u64::from(missed.runs));
        }
    }
    stats.into_values().collect()
}

fn no_backups(ended: &BackupEnded) -> BackupStats {
    BackupStats {
        service: ended.service.clone(),
        data: ended.data.clone(),
        runs: 0,
        failed: 0,
        partial: 0,
        missed: 0,
        last_run: None,
        last_success: None,
        last_error: None,
    }
}

fn count(stats: &mut BackupStats, at: Timestamp, ended: &BackupEnded) {
    stats.runs += 1;
    stats.last_run = Some(at);
    match ended.outcome {
        BackupOutcome::Completed => stats.last_success = Some(at),
        BackupOutcome::Partial => stats.partial += 1,
        BackupOutcome::Failed | BackupOutcome::Lost => stats.failed += 1,
    }
    if ended.error.is_some() {
        stats.last_error.clone_from(&ended.error);
    }
}

/// What the plan check says, what could not be read for this report, and what is damaged.
fn findings(
    workspace: &Workspace,
    unread: &[Unread],
    now: Timestamp,
) -> Result<Vec<Finding>, OperationError> {
    let read = read_plan(&workspace.path)?;
    let facts: PlanFacts = facts::gather(&workspace.state)?;
    let mut all = read.parsed.findings.clone();
    all.extend(muster_plan::assess(&workspace.plan, &read.parsed.positions, &facts, now));
    all.extend(unread::of_list(workspace, unread));
    all.extend(verify::findings(workspace, now)?);
    all.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.line));
    Ok(all)
}

fn exceptions(workspace: &Workspace, now: Timestamp) -> Vec<HeldException> {
    let today: Date = now.to_zoned(TimeZone::UTC).date();
    let held = workspace.plan.exceptions.iter().filter(|exception| exception.until >= today);
    held.map(|exception| HeldException {
        service: exception.service.clone(),
        waives: exception.waives.clone(),
        until: exception.until,
        reason: exception.reason.clone(),
        approved_by: exception.approved_by.clone(),
    })
    .collect()
}

fn evidence(workspace: &Workspace, now: Timestamp) -> Result<EvidenceState, OperationError> {
    let ledger = &workspace.state.ledger;
    let checkpoint = ledger.checkpoints().map_err(OperationError::below)?.pop();
    let (ok, detail) = match crate::evidence::verify_state(&workspace.state) {
        Ok(verified) => {
            (true, format!("{}, every leaf and signature", counted(verified.size, "entry")))
        }
        Err(error) => (false, error.one_line()),
    };
    Ok(EvidenceState {
        log_size: ledger.size().map_err(OperationError::below)?,
        checkpoint: checkpoint.map(|checkpoint| checkpoint.note),
        verified: Some(Verification { at: now, ok, detail }),
    })
}
