//! `muster status` and `muster gate`: what all of it proves today.

use std::time::Duration;

use jiff::Timestamp;
use muster_control::matrix::{Cell, Gate, Question, Standing, cell, gate, sentence};
use muster_model::{Class, Disruption, DrillResult, RecoveryPoint};
use muster_plan::document::{Objective, Service};
use serde::Serialize;

use crate::{
    drill::restored_data,
    error::OperationError,
    points::{self, Unread},
    records::{Appointment, Record},
    standstill::{self, Standstill},
    state::Logged,
    verify::{self, VerificationState},
    workspace::Workspace,
};

/// The object of `status --json`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// How much is proven.
    pub sentence: String,
    /// Service × disruption.
    pub matrix: Vec<Cell>,
    /// Repositories that did not answer, and why; all that could not be read is in `unread`.
    pub unreachable: Vec<(String, String)>,
    /// Repositories and snapshots that could not be read: `now` may be better than it says.
    pub unread: Vec<Unread>,
    /// Recoveries that were cut off and can be resumed.
    pub unfinished_recoveries: Vec<String>,
    /// Repositories that are read back in turn, with what was found.
    pub verification: Vec<VerificationState>,
    /// What goes on between backups and has come to a stand, and why.
    pub standstill: Vec<Standstill>,
}

/// Computes the matrix.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub fn status(workspace: &Workspace) -> Result<Status, OperationError> {
    let listed = points::list(workspace, None)?;
    let drills = drills(workspace)?;
    let matrix = matrix(workspace, &drills, &listed.points, None);
    Ok(Status {
        sentence: sentence(&matrix),
        matrix,
        unreachable: listed.unread.iter().filter_map(unreachable).collect(),
        unread: listed.unread,
        unfinished_recoveries: crate::recover::unfinished_services(workspace)?,
        verification: verify::states(&workspace.plan, &workspace.state, Timestamp::now())?,
        standstill: standstill::find(workspace, Timestamp::now())?,
    })
}

fn unreachable(unread: &Unread) -> Option<(String, String)> {
    let is_whole = unread.snapshot.is_none();
    is_whole.then(|| (unread.repository.clone(), unread.error.one_line()))
}

impl Status {
    /// The class of the worst of what could not be read, or is damaged.
    #[must_use]
    pub fn worst(&self) -> Option<Class> {
        let is_damaged = self.verification.iter().any(|state| !state.affected.is_empty());
        let damage = is_damaged.then_some(Class::Corrupt);
        damage.into_iter().chain(points::worst(&self.unread)).max_by_key(|class| class.gravity())
    }
}

/// What the gate says, and why.
#[derive(Debug, Serialize)]
pub struct GateReport {
    /// Whether it is open.
    pub gate: Gate,
    /// How much is proven.
    pub sentence: String,
    /// The cells that keep it shut.
    pub because: Vec<Cell>,
    /// Repositories and snapshots that could not be read: what they hold was not counted.
    pub unread: Vec<Unread>,
    /// Repositories that are read back in turn, with what was found.
    pub verification: Vec<VerificationState>,
}

/// Decides whether to let a change through. `max_age` only tightens what tiers say.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub fn gate_report(
    workspace: &Workspace,
    services: &[String],
    max_age: Option<Duration>,
) -> Result<GateReport, OperationError> {
    for name in services {
        workspace.service(name)?;
    }
    // A gate is only as good as the log that it reads.
    crate::evidence::verify_state(&workspace.state)?;
    let drills = drills(workspace)?;
    let listed = points::list(workspace, None)?;
    let mut cells = matrix(workspace, &drills, &listed.points, max_age);
    cells.retain(|cell| services.is_empty() || services.contains(&cell.service));
    let lost = |cell: &Cell| is_lost_to_damage(cell, &listed.points);
    let verdict = match gate(&cells) {
        // What drills proved is damaged today.
        Gate::Open if cells.iter().any(lost) => Gate::Failing,
        verdict => verdict,
    };
    let sentence = sentence(&cells);
    cells.retain(|cell| cell.verdict != Standing::Proven || lost(cell));
    let verification = verify::states(&workspace.plan, &workspace.state, Timestamp::now())?;
    Ok(GateReport { gate: verdict, sentence, because: cells, unread: listed.unread, verification })
}

/// Whether no point is left that would survive and was proven, and damage is known of the service's
/// copies.
fn is_lost_to_damage(cell: &Cell, points: &[RecoveryPoint]) -> bool {
    let mut copies =
        points.iter().filter(|point| point.service == cell.service).flat_map(|point| &point.copies);
    cell.now.rpo_s.is_none() && copies.any(|copy| copy.damaged)
}

/// The drills that ended, in the order in which they did. Each that judges is compared with
/// its signed statement: a ledger that somebody edited proves nothing.
///
/// # Errors
/// Fails when the ledger cannot be read, or says something else than was signed.
pub fn drills(workspace: &Workspace) -> Result<Vec<DrillResult>, OperationError> {
    let mut drills = Vec::new();
    for logged in workspace.state.history(&["drill-ended"])? {
        if let Record::DrillEnded(drill) = logged.record {
            crate::evidence::check_signed(&workspace.state, &drill)?;
            drills.push(*drill);
        }
    }
    Ok(drills)
}

/// An appointment of the calendar, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct AppointmentState {
    /// The service.
    pub service: String,
    /// What is rehearsed.
    pub disruption: Disruption,
    /// When it is due.
    pub due: Timestamp,
    /// When it is too late.
    pub until: Timestamp,
    /// `to come`, `due`, `held` or `expired`.
    pub state: &'static str,
}

/// Appointments shown: the newest.
const APPOINTMENTS_SHOWN: usize = 20;

/// The newest appointments of the calendar, oldest first.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub fn appointments(workspace: &Workspace) -> Result<Vec<AppointmentState>, OperationError> {
    let history =
        workspace.state.history(&["drill-scheduled", "drill-started", "drill-expired"])?;
    let now = Timestamp::now();
    let mut all: Vec<AppointmentState> = history
        .iter()
        .filter_map(|logged| match &logged.record {
            Record::DrillScheduled(planned) => Some(AppointmentState {
                service: planned.service.clone(),
                disruption: planned.disruption,
                due: planned.due,
                until: planned.until,
                state: state_of(&history, planned, now),
            }),
            _ => None,
        })
        .collect();
    all.sort_by_key(|appointment| appointment.due);
    let surplus = all.len().saturating_sub(APPOINTMENTS_SHOWN);
    Ok(all.split_off(surplus))
}

fn state_of(history: &[Logged], planned: &Appointment, now: Timestamp) -> &'static str {
    let is_held = history.iter().any(|logged| {
        matches!(&logged.record, Record::DrillStarted(started)
            if started.service == planned.service && started.disruption == planned.disruption
                && started.due == Some(planned.due))
    });
    match () {
        () if is_held => "held",
        () if planned.due > now => "to come",
        () if planned.until < now => "expired",
        () => "due",
    }
}

/// Every service × disruption that has an objective, in the plan's order.
pub(crate) fn matrix(
    workspace: &Workspace,
    drills: &[DrillResult],
    points: &[RecoveryPoint],
    max_age: Option<Duration>,
) -> Vec<Cell> {
    let now = Timestamp::now();
    let mut cells = Vec::new();
    for service in &workspace.plan.services {
        let tier = workspace.plan.tier_of(service);
        let tier_age = tier.and_then(|tier| tier.evidence_max_age);
        let age = match (tier_age, max_age) {
            (Some(tier), Some(max)) => Some(tier.min(max)),
            (tier, max) => tier.or(max),
        };
        let data = data_of(service);
        for (disruption, objective) in &service.objectives {
            let question = question(service, &data, *disruption, objective, age);
            cells.push(cell(&question, drills, points, now));
        }
    }
    cells
}

/// The data that a recovery of the service needs.
fn data_of(service: &Service) -> Vec<String> {
    let restored = restored_data(service);
    if restored.is_empty() {
        return service.data.iter().map(|item| item.name.clone()).collect();
    }
    restored
}

fn question<'a>(
    service: &'a Service,
    data: &'a [String],
    disruption: Disruption,
    objective: &Objective,
    evidence_max_age: Option<Duration>,
) -> Question<'a> {
    Question {
        service: &service.name,
        place: &service.place,
        data,
        disruption,
        rto: objective.rto,
        rpo: objective.rpo,
        evidence_max_age,
    }
}
