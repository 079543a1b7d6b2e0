//! The verbs that work with a plan: one file each.
//!
//! Each opens the workspace, calls one function of `muster_operations`, and prints what it
//! answers. Whatever was put in order on opening (what a killed process left) is told first.

pub(crate) mod backup;
pub(crate) mod drill;
pub(crate) mod evidence;
pub(crate) mod gate;
pub(crate) mod points;
pub(crate) mod recover;
pub(crate) mod report;
pub(crate) mod restore;
pub(crate) mod status;
mod story;

use jiff::{Timestamp, tz::TimeZone};
use muster_operations::{report::format::Moments, workspace::Workspace};
use muster_repository::run::Run;

use crate::{
    error::Failure,
    interrupt,
    output::{Output, visible},
    time,
    workspace::PlanArgs,
};

/// Opens the plan and its state, and tells what was put in order.
pub(crate) fn open(plan: &PlanArgs, output: &Output) -> Result<Workspace, Failure> {
    let opened = Workspace::open(&plan.plan_path(), &plan.state_path());
    let workspace = opened.map_err(|error| beside_a_sick_state(Failure::of(&error)))?;
    for deed in &workspace.swept {
        output.message(format_args!("put in order: {}", visible(deed.as_bytes())));
    }
    Ok(workspace)
}

/// Data can be brought back without the state: whoever meets a damaged one in an emergency must
/// be told the way.
fn beside_a_sick_state(failure: Failure) -> Failure {
    if !failure.code.starts_with("ledger") && failure.code != "evidence-mismatch" {
        return failure;
    }
    let way = "in an emergency, restore and recover with a new state beside it: --state DIR";
    let help = match &failure.help {
        Some(help) => format!("{help}; {way}"),
        None => way.to_owned(),
    };
    failure.help(help)
}

/// A run that signals stop.
fn heeding_signals() -> Result<Run, Failure> {
    let run = Run::new();
    interrupt::listen(run.cancel.clone())?;
    Ok(run)
}

/// Reads a time that a flag gives.
fn moment(text: Option<&String>) -> Result<Option<Timestamp>, Failure> {
    let zone = TimeZone::system();
    let read = |text: &String| {
        let time = time::given(text, &zone)?;
        let nanoseconds = i32::try_from(time.nanoseconds()).unwrap_or_default();
        Timestamp::new(time.seconds(), nanoseconds)
            .map_err(|error| Failure::usage(format!("read the time '{text}'")).caused_by(&error))
    };
    text.map(read).transpose()
}

/// Writes moments in the local zone.
fn moments() -> Moments {
    Moments::new(TimeZone::system().iana_name().unwrap_or("UTC"))
}

/// Seconds between two moments, never negative.
fn seconds_since(earlier: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(earlier).as_secs_f64().max(0.0)
}
