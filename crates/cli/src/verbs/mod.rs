//! The verbs that work with a plan: one file each.
//!
//! Each opens the workspace, calls one function of `muster_operations`, and prints what it
//! answers. Whatever was put in order on opening (what a killed process left) is told first.

pub(crate) mod backup;
pub(crate) mod drill;
pub(crate) mod evidence;
pub(crate) mod forget;
pub(crate) mod gate;
pub(crate) mod points;
pub(crate) mod recover;
pub(crate) mod report;
pub(crate) mod restore;
pub(crate) mod status;
mod story;
pub(crate) mod verify;

use jiff::{Timestamp, tz::TimeZone};
use muster_control::choice::Blocker;
use muster_operations::{
    error::refusal_class,
    report::format::Moments,
    workspace::{Planned, Reader, Workspace},
};
use muster_repository::run::Run;

use crate::{
    error::Failure,
    exit::Exit,
    interrupt,
    output::{Output, visible},
    time,
    workspace::PlanArgs,
};

/// Opens the plan and its state, and tells what was put in order.
pub(crate) fn open(plan: &PlanArgs, output: &Output) -> Result<Workspace, Failure> {
    let opened = Workspace::open(&plan.plan_path(), &plan.state_path());
    let workspace = opened.map_err(|error| beside_a_sick_state(Failure::of(&error)))?;
    tell_swept(&workspace.swept, output);
    Ok(workspace)
}

/// Opens the plan, and its state as far as it can be had; tells what was put in order.
pub(crate) fn open_to_read(plan: &PlanArgs, output: &Output) -> Result<Reader, Failure> {
    let reader = Reader::open(&plan.plan_path(), &plan.state_path())?;
    tell_swept(&reader.swept, output);
    Ok(reader)
}

fn tell_swept(swept: &[String], output: &Output) {
    for deed in swept {
        output.message(format_args!("put in order: {}", visible(deed.as_bytes())));
    }
}

/// Data can be brought back without the state: whoever meets a damaged one in an emergency must
/// be told the way.
fn beside_a_sick_state(failure: Failure) -> Failure {
    let is_sick = ["evidence-mismatch", "no-space"].contains(&failure.code);
    if !failure.code.starts_with("ledger") && !is_sick {
        return failure;
    }
    let way = "in an emergency, `muster points` and `muster restore` work without the state, and \
               `muster recover` with a new one beside it: --state DIR";
    let help = match &failure.help {
        Some(help) => format!("{help}; {way}"),
        None => way.to_owned(),
    };
    failure.help(help)
}

/// A run that signals stop, and with it every wait for a store of the plan.
fn heeding_signals(plan: &Planned) -> Result<Run, Failure> {
    let run = Run { cancel: plan.stop.clone(), ..Run::new() };
    interrupt::listen(run.cancel.clone())?;
    Ok(run)
}

/// How a proposal ends that stands against these blockers.
fn blocked(blockers: &[Blocker]) -> Exit {
    match blockers.is_empty() {
        true => Exit::Done,
        false => refusal_class(blockers).into(),
    }
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
