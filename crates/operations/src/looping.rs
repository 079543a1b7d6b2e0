//! `muster backup --loop`: schedules, copies and markers, until somebody says stop.
//!
//! Every line of `protect` has a thread of its own, every service with markers another: a slow
//! backup delays no marker and no other line. What is due is asked of the ledger, so runs that
//! were missed while nobody looped are caught up by one run and written down as missed.

use std::{
    sync::PoisonError,
    thread,
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};
use muster_control::{
    calendar::{Due, due},
    choice::Blocker,
};
use muster_plan::document::Service;
use muster_repository::run::Run;

use crate::{
    error::OperationError,
    pause::pause,
    protect::{Job, JobReport, Selection, Tools, jobs, last_start, run_job},
    records::{Record, RunsMissed},
    state::JobLock,
    workspace::Workspace,
};

/// The clock is looked at so often: a step of it is noticed, and nobody waits by it for long.
const LOOK: Duration = Duration::from_secs(1);

/// After a failure a line waits at least so long, and longer each time, before it runs again.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// A line that keeps failing is tried at least so often.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Something that happened in the loop.
#[derive(Debug)]
pub enum Turn<'a> {
    /// A line of `protect` ran.
    Ran {
        /// `SERVICE/INDEX`.
        job: &'a str,
        /// What it did.
        report: &'a JobReport,
        /// How long it took.
        took: Duration,
    },
    /// Runs of a line never happened.
    Missed {
        /// `SERVICE/INDEX`.
        job: &'a str,
        /// How many.
        runs: u32,
    },
    /// A line could not run at all; it is tried again.
    Failed {
        /// `SERVICE/INDEX`.
        job: &'a str,
        /// Why.
        error: &'a OperationError,
    },
    /// Markers of a service cannot be written, or can again.
    Markers {
        /// The service.
        service: &'a str,
        /// Why not; `None` when they can again.
        error: Option<&'a OperationError>,
    },
}

/// Runs until the run is cancelled. `tell` is called from many threads.
///
/// # Errors
/// Fails when the selection leads nowhere; all else is told and tried again.
pub fn run(
    workspace: &Workspace,
    selection: &Selection,
    run: &Run,
    tell: &(dyn Fn(&Turn<'_>) + Sync),
) -> Result<(), OperationError> {
    let jobs = jobs(workspace, selection)?;
    let _locks = hold(workspace, &jobs)?;
    let since = Timestamp::now();
    let tools = Tools::new();
    thread::scope(|scope| {
        for job in &jobs {
            let tools = &tools;
            scope.spawn(move || keep_line(workspace, tools, job, since, run, tell));
        }
        let mut services: Vec<&Service> = jobs.iter().map(|job| job.service).collect();
        services.dedup_by_key(|service| &service.name);
        for service in services {
            if service.markers.is_some() {
                let tools = &tools;
                scope.spawn(move || keep_markers(workspace, tools, service, run, tell));
            }
        }
    });
    Ok(())
}

/// Takes every line for this loop: two loops over one line would run it twice as often.
fn hold(workspace: &Workspace, jobs: &[Job<'_>]) -> Result<Vec<JobLock>, OperationError> {
    let mut locks = Vec::new();
    let mut blockers = Vec::new();
    for job in jobs {
        match workspace.state.lock(&format!("loop {}", job.name))? {
            Some(lock) => locks.push(lock),
            None => blockers.push(Blocker {
                code: "loop-under-way",
                message: format!("another loop runs {}", job.name),
                help: "stop that one first, or name other services".to_owned(),
            }),
        }
    }
    match blockers.is_empty() {
        true => Ok(locks),
        false => Err(OperationError::Refused { what: "loop".to_owned(), blockers }),
    }
}

/// Runs one line of `protect` whenever it is due.
fn keep_line(
    workspace: &Workspace,
    tools: &Tools,
    job: &Job<'_>,
    since: Timestamp,
    run: &Run,
    tell: &(dyn Fn(&Turn<'_>) + Sync),
) {
    let mut last = last_start(workspace, &job.name);
    let mut retry = RETRY_MIN;
    while !run.cancel.is_requested() {
        let now = Timestamp::now();
        match due(&job.protection.cadence, last, since, now, &TimeZone::UTC) {
            Due::Now { since, missed } => {
                note_missed(workspace, job, since, missed, tell);
                last = Some(now);
                let went_well = run_once(workspace, tools, job, run, tell);
                retry = if went_well { RETRY_MIN } else { (retry * 2).min(RETRY_MAX) };
                if !went_well {
                    pause(retry, run);
                }
            }
            Due::At(next) => {
                let left = Duration::try_from(next.duration_since(now)).unwrap_or_default();
                pause(left.min(LOOK), run);
            }
            Due::Never => return,
        }
    }
}

fn run_once(
    workspace: &Workspace,
    tools: &Tools,
    job: &Job<'_>,
    run: &Run,
    tell: &(dyn Fn(&Turn<'_>) + Sync),
) -> bool {
    let begun = Instant::now();
    match run_job(workspace, tools, job, run) {
        Ok(report) => {
            tell(&Turn::Ran { job: &job.name, report: &report, took: begun.elapsed() });
            !report.failed()
        }
        Err(OperationError::Interrupted { .. }) => true,
        Err(error) => {
            tell(&Turn::Failed { job: &job.name, error: &error });
            false
        }
    }
}

fn note_missed(
    workspace: &Workspace,
    job: &Job<'_>,
    due: Timestamp,
    runs: u32,
    tell: &(dyn Fn(&Turn<'_>) + Sync),
) {
    if runs == 0 {
        return;
    }
    tell(&Turn::Missed { job: &job.name, runs });
    let missed = RunsMissed { job: job.name.clone(), service: job.service.name.clone(), due, runs };
    if let Err(error) = workspace.state.record(&Record::RunsMissed(missed)) {
        tell(&Turn::Failed { job: &job.name, error: &error });
    }
}

/// Writes the markers of a service at their rate.
fn keep_markers(
    workspace: &Workspace,
    tools: &Tools,
    service: &Service,
    run: &Run,
    tell: &(dyn Fn(&Turn<'_>) + Sync),
) {
    let Some(planned) = &service.markers else { return };
    let mut is_failing = false;
    let mut next = Instant::now();
    while !run.cancel.is_requested() {
        let written = tools.keeper(workspace, service).and_then(|keeper| match keeper {
            Some(keeper) => {
                keeper.lock().unwrap_or_else(PoisonError::into_inner).write(&workspace.state)
            }
            None => Ok(()),
        });
        match (&written, is_failing) {
            (Err(error), false) => {
                tell(&Turn::Markers { service: &service.name, error: Some(error) });
            }
            (Ok(()), true) => tell(&Turn::Markers { service: &service.name, error: None }),
            _ => {}
        }
        is_failing = written.is_err();
        if is_failing {
            tools.forget_keeper(&service.name);
        }
        // A tick that passes while a marker is written is left out.
        let now = Instant::now();
        next = (next + planned.every).max(now);
        pause(next.duration_since(now), run);
    }
}
