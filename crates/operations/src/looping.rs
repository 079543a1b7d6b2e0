//! `muster backup --loop`: schedules, copies and markers, until somebody says stop.
//!
//! Every line of `protect` has a thread of its own, every service with markers another: a slow
//! backup delays no marker and no other line. What is due is asked of the ledger, so runs that
//! were missed while nobody looped are caught up by one run and written down as missed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};
use muster_control::{
    calendar::{Due, due},
    choice::Blocker,
};
use muster_plan::document::{Protection, Service};
use muster_repository::run::Run;

use crate::{
    error::OperationError,
    housekeeping::{KEEP_EVERY, Kept, keep_house},
    keeping,
    pause::pause,
    protect::{Job, JobReport, Name, Selection, Tools, jobs, last_start, run_job},
    records::{Record, RunsMissed},
    state::JobLock,
    verify::{self, How, VerifyEnded},
    workspace::Workspace,
};

/// The clock is looked at so often: a step of it is noticed, and nobody waits by it for long.
const LOOK: Duration = Duration::from_secs(1);

/// After a failure a line waits at least so long, and longer each time, before it runs again.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// A line that keeps failing is tried at least so often.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What is done between backups waits no longer than this for a pause.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

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
    /// `keep` was applied to a repository, or that failed.
    Kept {
        /// What was done.
        kept: &'a Kept,
    },
    /// A repository was read back, or that failed.
    Verified {
        /// The repository.
        repository: &'a str,
        /// What it came to.
        outcome: &'a Result<VerifyEnded, OperationError>,
    },
    /// Markers of a service cannot be written, or can again.
    Markers {
        /// The service.
        service: &'a str,
        /// Why not; `None` when they can again.
        error: Option<&'a OperationError>,
    },
}

/// What a loop does besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoopOptions {
    /// Remove nothing, whatever the plan's `keep` says.
    pub no_keep: bool,
}

/// Runs until the run is cancelled. `tell` is called from many threads.
///
/// # Errors
/// Fails when the selection leads nowhere; all else is told and tried again.
pub fn run(
    workspace: &Workspace,
    selection: &Selection,
    options: LoopOptions,
    run: &Run,
    tell: &(dyn Fn(&Turn<'_>) + Sync),
) -> Result<(), OperationError> {
    let jobs = jobs(workspace, selection)?;
    let _locks = hold(workspace, &jobs)?;
    let since = Timestamp::now();
    let (tools, house) = (Tools::new(), House::new(&jobs));
    thread::scope(|scope| {
        for job in &jobs {
            let (tools, house) = (&tools, &house);
            scope.spawn(move || keep_line(workspace, (tools, house), job, since, run, tell));
        }
        scope.spawn(|| house.keep(workspace, options, run, tell));
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
    (tools, house): (&Tools, &House),
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
                let went_well = house.busy(job, || run_once(workspace, tools, job, run, tell));
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

/// What is done between backups.
struct House {
    /// Lines that run now.
    running: AtomicUsize,
    /// Data that was backed up since `keep` was applied, by repository.
    backed_up: Mutex<BTreeMap<String, BTreeSet<Name>>>,
    /// The repositories of this loop's lines.
    repositories: BTreeSet<String>,
}

impl House {
    fn new(jobs: &[Job<'_>]) -> Self {
        let repositories = jobs.iter().flat_map(|job| repositories_of(job.protection));
        Self {
            running: AtomicUsize::new(0),
            backed_up: Mutex::default(),
            repositories: repositories.map(str::to_owned).collect(),
        }
    }

    /// Runs a line, and notes that its repositories have something new when it went well.
    fn busy(&self, job: &Job<'_>, line: impl FnOnce() -> bool) -> bool {
        self.running.fetch_add(1, Ordering::SeqCst);
        let went_well = line();
        self.running.fetch_sub(1, Ordering::SeqCst);
        if went_well {
            let mut backed_up = self.backed_up.lock().unwrap_or_else(PoisonError::into_inner);
            for repository in repositories_of(job.protection) {
                backed_up.entry(repository.to_owned()).or_default().extend(names_of(job));
            }
        }
        went_well
    }

    /// Applies `keep` and reads repositories back, in the pauses between backups.
    fn keep(
        &self,
        workspace: &Workspace,
        options: LoopOptions,
        run: &Run,
        tell: &(dyn Fn(&Turn<'_>) + Sync),
    ) {
        let mut kept_at: BTreeMap<String, Instant> = BTreeMap::new();
        let mut waiting_since = Instant::now();
        while !run.cancel.is_requested() {
            pause(LOOK, run);
            // Lines that never rest must not keep the house from being kept.
            let is_pause = self.running.load(Ordering::SeqCst) == 0;
            if run.cancel.is_requested() || !is_pause && waiting_since.elapsed() < PATIENCE {
                continue;
            }
            if !options.no_keep {
                self.apply_keep(workspace, &mut kept_at, run, tell);
            }
            self.read_back(workspace, run, tell);
            waiting_since = Instant::now();
        }
    }

    fn apply_keep(
        &self,
        workspace: &Workspace,
        kept_at: &mut BTreeMap<String, Instant>,
        run: &Run,
        tell: &(dyn Fn(&Turn<'_>) + Sync),
    ) {
        let backed_up = || self.backed_up.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting: Vec<String> = backed_up().keys().cloned().collect();
        for repository in waiting {
            if kept_at.get(&repository).is_some_and(|at| at.elapsed() < KEEP_EVERY) {
                continue;
            }
            let names = backed_up().remove(&repository).unwrap_or_default();
            let names: Vec<Name> = names.into_iter().collect();
            kept_at.insert(repository.clone(), Instant::now());
            if keeping::repositories(workspace, &names).contains(&repository) {
                let kept = keep_house(workspace, &repository, &names, Timestamp::now(), run);
                if !kept.is_silent() && !run.cancel.is_requested() {
                    tell(&Turn::Kept { kept: &kept });
                }
            }
        }
    }

    fn read_back(&self, workspace: &Workspace, run: &Run, tell: &(dyn Fn(&Turn<'_>) + Sync)) {
        for repository in &self.repositories {
            let Some((planned, _)) = workspace.plan.verify_of(repository) else { continue };
            let budget = planned.budget.unwrap_or(muster_plan::BUDGET_DEFAULT);
            let how = How { budget: Some(budget), ..How::planned(planned) };
            let outcome = match verify::is_due(workspace, repository, planned, Timestamp::now()) {
                Ok(false) => continue,
                Ok(true) => verify::verify(workspace, repository, how, run),
                Err(error) => Err(error),
            };
            if !run.cancel.is_requested() {
                tell(&Turn::Verified { repository, outcome: &outcome });
            }
        }
    }
}

fn repositories_of(line: &Protection) -> impl Iterator<Item = &str> {
    std::iter::once(&line.to).chain(&line.copy).map(String::as_str)
}

fn names_of(job: &Job<'_>) -> impl Iterator<Item = Name> {
    let service = job.service.name.clone();
    job.data.iter().map(move |data| Name { service: service.clone(), data: Some(data.clone()) })
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
