//! Drills that the calendar asks for: written down when any command first sees the plan that
//! schedules them, and again when nobody came.

use jiff::{Timestamp, tz::TimeZone};
use muster_control::calendar::appointments;
use muster_plan::Plan;

use crate::{
    error::OperationError,
    records::{Appointment, Record},
    state::{Logged, State},
};

/// Appointments of one schedule that are looked at: a plan that nobody touched for a year.
const APPOINTMENTS_MAX: usize = 400;

/// Kinds of entries that this module reads and writes.
const KINDS: &[&str] = &["plan-seen", "drill-scheduled", "drill-started", "drill-expired"];

/// Writes down appointments that are not yet in the ledger, and those that expired.
pub(crate) fn note(state: &State, plan: &Plan, now: Timestamp) -> Result<(), OperationError> {
    if plan.drills.iter().all(|drill| drill.schedule.is_none()) {
        return Ok(());
    }
    let history = state.history(KINDS)?;
    let since = first_seen(plan, &history).unwrap_or(now);
    for drill in &plan.drills {
        let Some(schedule) = &drill.schedule else { continue };
        let zone = TimeZone::get(&drill.timezone).unwrap_or(TimeZone::UTC);
        for due in appointments(schedule, since, now, &zone, APPOINTMENTS_MAX) {
            let appointment = Appointment {
                service: drill.service.clone(),
                disruption: drill.disruption,
                due: due.due,
                until: due.until,
                revision: plan.revision.clone(),
            };
            note_one(state, &history, appointment, due.is_expired(now))?;
        }
    }
    Ok(())
}

/// When this very revision, or the unbroken line of revisions with this one at its end, was
/// first seen: appointments count from then.
fn first_seen(plan: &Plan, history: &[Logged]) -> Option<Timestamp> {
    history.iter().find_map(|logged| match &logged.record {
        Record::PlanSeen(seen) if seen.revision == plan.revision => Some(logged.at),
        _ => None,
    })
}

fn note_one(
    state: &State,
    history: &[Logged],
    appointment: Appointment,
    is_expired: bool,
) -> Result<(), OperationError> {
    let is_same = |other: &Appointment| {
        other.service == appointment.service
            && other.disruption == appointment.disruption
            && other.due == appointment.due
    };
    let was_scheduled = history
        .iter()
        .any(|logged| matches!(&logged.record, Record::DrillScheduled(other) if is_same(other)));
    if !was_scheduled {
        state.record(&Record::DrillScheduled(appointment.clone()))?;
    }
    let was_settled = history.iter().any(|logged| match &logged.record {
        Record::DrillExpired(other) => is_same(other),
        Record::DrillStarted(started) => {
            started.service == appointment.service
                && started.disruption == appointment.disruption
                && started.due == Some(appointment.due)
        }
        _ => false,
    });
    if is_expired && !was_settled {
        state.record(&Record::DrillExpired(appointment))?;
    }
    Ok(())
}

/// The appointment that a drill which starts now keeps: the newest that is due and open.
pub(crate) fn open_appointment(
    history: &[Logged],
    service: &str,
    disruption: muster_model::Disruption,
    now: Timestamp,
) -> Option<Timestamp> {
    let is_open = |appointment: &Appointment| {
        appointment.service == service
            && appointment.disruption == disruption
            && appointment.due <= now
            && now <= appointment.until
    };
    let due = history.iter().rev().find_map(|logged| match &logged.record {
        Record::DrillScheduled(appointment) if is_open(appointment) => Some(appointment.due),
        _ => None,
    })?;
    let is_kept = history.iter().any(|logged| {
        matches!(&logged.record, Record::DrillStarted(started)
            if started.service == service && started.disruption == disruption
                && started.due == Some(due))
    });
    (!is_kept).then_some(due)
}
