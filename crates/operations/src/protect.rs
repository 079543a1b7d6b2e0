//! `muster backup`: snapshots, markers around them, copies to other repositories.
//!
//! Everything that happens is in the ledger before its consequence: that a backup starts, how
//! it ended, each marker that the source acknowledged. One job never runs twice at once, across
//! all processes that share the state.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use muster_model::BackupKind;
use muster_plan::document::{Hook, Hooks, Protection, Service};
use muster_repository::{
    copy::{Target, copy},
    environment::Environment,
    id::SnapshotId,
    lock::{Lock, LockKind},
    packer::PackOptions,
    repository::Repository,
    run::Run,
};
use muster_sources::capture::{Captured, Request};
use uuid::Uuid;

use crate::{
    error::OperationError,
    hands,
    holding::{self, HoldEnded},
    hooks::{When, run_hook},
    housekeeping::{Kept, keep_house},
    keeping,
    markers::MarkerKeeper,
    moment::Moment,
    process::this_process,
    records::{BackupEnded, BackupOutcome, BackupStarted, CopyEnded, Record},
    stores,
    workspace::{Planned, Workspace},
};

/// How long a backup waits for a repository that somebody has locked.
const LOCK_PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// What to protect.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Services, or data items as `SERVICE/DATA`; everything when empty.
    pub names: Vec<String>,
    /// Instead of the kind that the plan says.
    pub kind: Option<BackupKind>,
}

/// A line of `protect` that runs.
#[derive(Debug, Clone)]
pub struct Job<'w> {
    /// `SERVICE/INDEX`.
    pub name: String,
    /// The service.
    pub service: &'w Service,
    /// The line.
    pub protection: &'w Protection,
    /// The data items of the line that are wanted.
    pub data: Vec<String>,
    /// How much is read again.
    pub kind: BackupKind,
}

/// What a job did.
#[derive(Debug, Default)]
#[must_use = "a job may have failed"]
pub struct JobReport {
    /// The recovery point.
    pub point: String,
    /// The data items of the job, as `SERVICE/DATA`.
    pub names: Vec<String>,
    /// The snapshots.
    pub backups: Vec<BackupEnded>,
    /// The copies.
    pub copies: Vec<CopyEnded>,
    /// Repositories that were made.
    pub made: Vec<String>,
    /// Which snapshots are immutable now, and which should be.
    pub holds: Vec<HoldEnded>,
    /// Hooks that failed, and how.
    pub hooks_failed: Vec<String>,
    /// What may surprise.
    pub warnings: Vec<String>,
    /// The job was left out, since it was running elsewhere.
    pub skipped: bool,
    /// What could not be done, and why; `backups` and `copies` tell it in words.
    pub failures: Vec<JobFailure>,
}

/// A part of a job that could not be done.
#[derive(Debug)]
pub struct JobFailure {
    /// What was tried; stands after "cannot".
    pub what: String,
    /// Why it was not done.
    pub error: OperationError,
}

impl JobReport {
    /// Whether everything was done.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let whole = |ended: &BackupEnded| ended.outcome == BackupOutcome::Completed;
        !self.skipped
            && self.hooks_failed.is_empty()
            && self.backups.iter().all(whole)
            && self.copies.iter().all(|copy| copy.error.is_none())
            && self.holds.iter().all(|hold| hold.error.is_none())
    }

    /// What the job is about, as a reader knows it.
    #[must_use]
    pub fn covers(&self) -> String {
        self.names.join(", ")
    }

    /// Whether a snapshot was taken.
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        self.backups.iter().any(|ended| ended.snapshot.is_some())
    }

    /// Whether nothing was done.
    #[must_use]
    pub fn failed(&self) -> bool {
        let failed = |ended: &BackupEnded| ended.outcome == BackupOutcome::Failed;
        let has_none = self.backups.is_empty() && !self.hooks_failed.is_empty();
        has_none || !self.backups.is_empty() && self.backups.iter().all(failed)
    }

    /// Everything that failed, a line each.
    fn failures(&self) -> Vec<String> {
        let backups = self.backups.iter().filter_map(|ended| {
            Some(format!("{}/{}: {}", ended.service, ended.data, ended.error.as_ref()?))
        });
        let copies = self.copies.iter().filter_map(|copy| {
            let what = format!("{}/{} to {}", copy.service, copy.data, copy.to);
            Some(format!("{what}: {}", copy.error.as_ref()?))
        });
        let holds = self.holds.iter().filter_map(|hold| {
            let what = format!("{}/{} in {}", hold.service, hold.data, hold.repository);
            Some(format!("{what}: not immutable: {}", hold.error.as_ref()?))
        });
        self.hooks_failed.iter().cloned().chain(backups).chain(copies).chain(holds).collect()
    }
}

/// Repositories that are open, and who writes markers: kept from job to job, since opening a
/// repository costs a key derivation and a writer's numbers count on.
#[derive(Default)]
pub struct Tools {
    repositories: Mutex<HashMap<String, Arc<Repository>>>,
    keepers: Mutex<HashMap<String, Arc<Mutex<MarkerKeeper>>>>,
}

impl Tools {
    /// Nothing is open yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn repository(
        &self,
        workspace: &Workspace,
        name: &str,
        made: &mut Vec<String>,
    ) -> Result<Arc<Repository>, OperationError> {
        let mut open = self.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repository) = open.get(name) {
            return Ok(repository.clone());
        }
        let (repository, is_new) = stores::open_or_make(workspace, name)?;
        if is_new {
            made.push(name.to_owned());
        }
        let repository = Arc::new(repository);
        open.insert(name.to_owned(), repository.clone());
        Ok(repository)
    }

    /// Who writes the markers of a service; `None` when its plan asks for none.
    pub(crate) fn keeper(
        &self,
        workspace: &Workspace,
        service: &Service,
    ) -> Result<Option<Arc<Mutex<MarkerKeeper>>>, OperationError> {
        let Some(markers) = &service.markers else { return Ok(None) };
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = keepers.get(&service.name) {
            return Ok(Some(keeper.clone()));
        }
        let keeper = MarkerKeeper::open(workspace, service, markers)?;
        let keeper = Arc::new(Mutex::new(keeper));
        keepers.insert(service.name.clone(), keeper.clone());
        Ok(Some(keeper))
    }

    /// Forgets what is open for a repository that failed: the next job opens it anew.
    fn forget(&self, name: &str) {
        self.repositories.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub(crate) fn forget_keeper(&self, service: &str) {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).remove(service);
    }
}

/// Applies `keep` to what jobs backed up, in every repository that they wrote.
pub fn keep_after(workspace: &Workspace, jobs: &[&Job<'_>], run: &Run) -> Vec<Kept> {
    let names = jobs.iter().flat_map(|job| {
        let service = &job.service.name;
        job.data.iter().map(|data| Name { service: service.clone(), data: Some(data.clone()) })
    });
    let names: Vec<Name> = names.collect();
    let written = |name: &String| {
        jobs.iter().any(|job| job.protection.to == *name || job.protection.copy.contains(name))
    };
    let mut repositories = keeping::repositories(workspace, &names);
    repositories.retain(written);
    let now = Timestamp::now();
    repositories.iter().map(|name| keep_house(workspace, name, &names, now, run)).collect()
}

/// The jobs that a selection asks for, in the order of the plan.
///
/// # Errors
/// Fails when a name leads nowhere, or no line of `protect` covers it.
pub fn jobs<'w>(
    workspace: &'w Workspace,
    selection: &Selection,
) -> Result<Vec<Job<'w>>, OperationError> {
    let wanted = wanted(workspace, &selection.names)?;
    let mut jobs = Vec::new();
    for service in &workspace.plan.services {
        for (index, protection) in service.protect.iter().enumerate() {
            let is_wanted = |data: &&String| {
                wanted.is_empty() || wanted.iter().any(|name| name.covers(&service.name, data))
            };
            let data: Vec<String> = protection.data.iter().filter(is_wanted).cloned().collect();
            if !data.is_empty() {
                let kind = selection.kind.unwrap_or(protection.kind);
                let name = format!("{}/{index}", service.name);
                jobs.push(Job { name, service, protection, data, kind });
            }
        }
    }
    let uncovered = wanted.iter().find(|name| {
        !jobs.iter().any(|job| job.data.iter().any(|data| name.covers(&job.service.name, data)))
    });
    match uncovered {
        Some(name) => Err(OperationError::NotFound {
            what: format!("a line of `protect` for {}", name.text()),
            help: "add one to the plan: {data: […], every: …, to: REPOSITORY}".to_owned(),
        }),
        None => Ok(jobs),
    }
}

/// A service, or one data item of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The service.
    pub service: String,
    /// The data item.
    pub data: Option<String>,
}

impl Name {
    /// Reads `SERVICE` or `SERVICE/DATA`, which must be in the plan.
    ///
    /// # Errors
    /// Fails when the plan has no such service or data item.
    pub fn find(plan: &Planned, text: &str) -> Result<Self, OperationError> {
        let (service, data) = match text.split_once('/') {
            Some((service, data)) => (service, Some(data)),
            None => (text, None),
        };
        let found = plan.service(service)?;
        if let Some(data) = data
            && found.data(data).is_none()
        {
            let all: Vec<&str> = found.data.iter().map(|item| item.name.as_str()).collect();
            return Err(OperationError::NotFound {
                what: format!("data named '{data}' in service {service}"),
                help: format!("it has: {}", all.join(", ")),
            });
        }
        Ok(Self { service: service.to_owned(), data: data.map(str::to_owned) })
    }

    pub(crate) fn covers(&self, service: &str, data: &str) -> bool {
        self.service == service && self.data.as_deref().is_none_or(|wanted| wanted == data)
    }

    fn text(&self) -> String {
        match &self.data {
            Some(data) => format!("{}/{data}", self.service),
            None => self.service.clone(),
        }
    }
}

fn wanted(workspace: &Workspace, names: &[String]) -> Result<Vec<Name>, OperationError> {
    names.iter().map(|text| Name::find(workspace, text)).collect()
}

/// Runs a job once: a snapshot of each data item, then the copies.
///
/// # Errors
/// Fails when the ledger cannot be written or the run is cancelled; what concerns a data item
/// or a copy is in the report, and in the ledger.
pub fn run_job(
    workspace: &Workspace,
    tools: &Tools,
    job: &Job<'_>,
    run: &Run,
) -> Result<JobReport, OperationError> {
    let names = job.data.iter().map(|data| format!("{}/{data}", job.service.name)).collect();
    let point = Uuid::now_v7().to_string();
    let mut report = JobReport { point, names, ..JobReport::default() };
    let Some(_lock) = workspace.state.lock(&format!("backup {}", job.name))? else {
        let skipped = crate::records::RunSkipped {
            job: job.name.clone(),
            service: job.service.name.clone(),
            why: "the run before is still under way".to_owned(),
        };
        let what = format!("back up {}", report.covers());
        let twice = "do the same twice at once".to_owned();
        let error = OperationError::Running { what: twice, why: skipped.why.clone() };
        report.failures.push(JobFailure { what, error });
        workspace.state.record(&Record::RunSkipped(skipped))?;
        report.skipped = true;
        return Ok(report);
    };
    let around = workspace.plan.hooks_of(job.service, job.protection, &job.data);
    // What `before` should have brought to rest may not be: there is nothing to back up.
    if back_up_at_rest(workspace, tools, job, &around, &mut report, run)? {
        let finished = Instant::now();
        for to in &job.protection.copy {
            copy_to(workspace, tools, job, to, finished, &mut report, run)?;
        }
        holding::hold_all(workspace, tools, &mut report, run)?;
    }
    if !report.failures().is_empty() {
        for (class, hooks) in around {
            let due = (When::OnFailure, class, hooks.on_failure.as_ref());
            hook(workspace, job, due, &mut report, run)?;
        }
    }
    Ok(report)
}

/// Brings the data to rest, backs it up, and lets it go on. Tells whether it was at rest.
fn back_up_at_rest(
    workspace: &Workspace,
    tools: &Tools,
    job: &Job<'_>,
    around: &[(Option<&str>, &Hooks)],
    report: &mut JobReport,
    run: &Run,
) -> Result<bool, OperationError> {
    let (mut at_rest, mut done) = (Vec::new(), Ok(()));
    for &(class, hooks) in around {
        let due = (When::Before, class, hooks.before.as_ref());
        done = hook(workspace, job, due, report, run);
        if done.is_err() || !report.hooks_failed.is_empty() {
            break;
        }
        at_rest.push((class, hooks));
    }
    let is_at_rest = at_rest.len() == around.len();
    if is_at_rest {
        done = back_up_all(workspace, tools, job, report, run);
    }
    // Also when the run is stopped: what was brought to rest must not stay so.
    let calm = Run::new();
    for (class, hooks) in at_rest.into_iter().rev() {
        let due = (When::After, class, hooks.after.as_ref());
        let by = if done.is_ok() { run } else { &calm };
        done = done.and(hook(workspace, job, due, report, by));
    }
    done.map(|()| is_at_rest)
}

fn back_up_all(
    workspace: &Workspace,
    tools: &Tools,
    job: &Job<'_>,
    report: &mut JobReport,
    run: &Run,
) -> Result<(), OperationError> {
    for data in &job.data {
        let ended = back_up_one(workspace, tools, job, data, report, run)?;
        report.backups.push(ended);
    }
    Ok(())
}

/// Runs a hook, if the plan has it.
fn hook(
    workspace: &Workspace,
    job: &Job<'_>,
    (when, class, hook): (When, Option<&str>, Option<&Hook>),
    report: &mut JobReport,
    run: &Run,
) -> Result<(), OperationError> {
    let Some(hook) = hook else { return Ok(()) };
    let failures = report.failures();
    let due = (when, class, hook);
    if let Some(failed) = run_hook(workspace, job, &report.point, due, &failures, run)? {
        report.hooks_failed.push(failed.told);
        let what = format!("finish `{}` of {}", failed.name, report.covers());
        report.failures.push(JobFailure { what, error: failed.error });
    }
    Ok(())
}

fn back_up_one(
    workspace: &Workspace,
    tools: &Tools,
    job: &Job<'_>,
    data: &str,
    report: &mut JobReport,
    run: &Run,
) -> Result<BackupEnded, OperationError> {
    let started = BackupStarted {
        job: job.name.clone(),
        service: job.service.name.clone(),
        data: data.to_owned(),
        repository: job.protection.to.clone(),
        point: report.point.clone(),
        kind: job.kind,
        process: this_process(),
    };
    let mut ended = BackupEnded { began: Some(Moment::now()), ..BackupEnded::of(&started) };
    workspace.state.record(&Record::BackupStarted(started))?;
    let begun = Instant::now();
    let captured = capture(workspace, tools, job, data, report, run);
    ended.took_s = Some(begun.elapsed().as_secs_f64());
    match captured {
        Ok(captured) => ended.fill(captured),
        Err(error) => {
            tools.forget(&job.protection.to);
            ended.error = Some(error.one_line());
            let what = format!("back up {}/{data} into {}", ended.service, ended.repository);
            report.failures.push(JobFailure { what, error });
        }
    }
    workspace.state.record(&Record::BackupEnded(ended.clone()))?;
    interrupted(run)?;
    Ok(ended)
}

/// Takes the snapshot of a data item, with a marker before and after it.
fn capture(
    workspace: &Workspace,
    tools: &Tools,
    job: &Job<'_>,
    data: &str,
    report: &mut JobReport,
    run: &Run,
) -> Result<Captured, OperationError> {
    let item = job.service.data(data).ok_or_else(|| OperationError::Bug {
        what: format!("the plan protects {data}, which does not exist"),
    })?;
    let source = hands::source(workspace, item)?;
    let repository = tools.repository(workspace, &job.protection.to, &mut report.made)?;
    let request = Request {
        service: job.service.name.clone(),
        data: data.to_owned(),
        point: report.point.clone(),
        kind: job.kind,
        staging: workspace.state.private_folder("staging")?,
        count_rows: rows_to_count(job.service, data),
    };
    mark(workspace, tools, job.service, report);
    let environment = &workspace.state.environment;
    let captured = source.back_up(&repository, &request, environment, run);
    mark(workspace, tools, job.service, report);
    captured.map_err(OperationError::below)
}

/// Writes a marker; that it could not be written is a warning, the backup goes on.
fn mark(workspace: &Workspace, tools: &Tools, service: &Service, report: &mut JobReport) {
    let written = tools.keeper(workspace, service).and_then(|keeper| match keeper {
        Some(keeper) => {
            keeper.lock().unwrap_or_else(PoisonError::into_inner).write(&workspace.state)
        }
        None => Ok(()),
    });
    if let Err(error) = written {
        tools.forget_keeper(&service.name);
        report.warnings.push(format!("no marker in {}: {}", service.name, error.one_line()));
    }
}

fn rows_to_count(service: &Service, data: &str) -> Vec<String> {
    let of_item = service.acceptance.rows.iter().filter(|(item, _)| item == data);
    of_item.flat_map(|(_, tables)| tables.iter().cloned()).collect()
}

fn interrupted(run: &Run) -> Result<(), OperationError> {
    run.cancel.check().map_err(|why| OperationError::Interrupted { why: why.to_string() })
}

/// Copies the snapshots of a job to one more repository.
fn copy_to(
    workspace: &Workspace,
    tools: &Tools,
    job: &Job<'_>,
    to: &str,
    finished: Instant,
    report: &mut JobReport,
    run: &Run,
) -> Result<(), OperationError> {
    let whole: Vec<(String, SnapshotId)> = report
        .backups
        .iter()
        .filter_map(|ended| {
            Some((ended.data.clone(), SnapshotId::parse(ended.snapshot.as_ref()?)?))
        })
        .collect();
    if whole.is_empty() {
        return Ok(());
    }
    let ids: Vec<SnapshotId> = whole.iter().map(|(_, id)| *id).collect();
    let copied = copy_snapshots(workspace, tools, &job.protection.to, to, &ids, report, run);
    if copied.is_err() {
        tools.forget(to);
    }
    let all: Vec<&str> = whole.iter().map(|(data, _)| data.as_str()).collect();
    let names = format!("{}/{}", job.service.name, all.join(", "));
    for (data, id) in &whole {
        let (snapshot, error) = match &copied {
            Ok(pairs) => match pairs.iter().find(|(source, _)| source == id) {
                Some((_, target)) => (Some(target.to_hex()), None),
                None => {
                    let error = not_whole(&job.protection.to, data);
                    let told = error.one_line();
                    let what = format!("copy {}/{data} to {to}", job.service.name);
                    report.failures.push(JobFailure { what, error });
                    (None, Some(told))
                }
            },
            Err(error) => (None, Some(error.one_line())),
        };
        let ended = CopyEnded {
            service: job.service.name.clone(),
            data: data.clone(),
            point: report.point.clone(),
            from: job.protection.to.clone(),
            to: to.to_owned(),
            snapshot,
            lag_s: finished.elapsed().as_secs_f64(),
            error,
        };
        workspace.state.record(&Record::CopyEnded(ended.clone()))?;
        report.copies.push(ended);
    }
    if let Err(error) = copied {
        report.failures.push(JobFailure { what: format!("copy {names} to {to}"), error });
    }
    interrupted(run)
}

/// A snapshot that was just taken and is not there to be copied.
fn not_whole(from: &str, data: &str) -> OperationError {
    let first = "the snapshot cannot be read whole".to_owned();
    OperationError::Incomplete { what: format!("read {data} from {from}"), first, more: 0 }
}

/// Copies snapshots; tells which became which.
fn copy_snapshots(
    workspace: &Workspace,
    tools: &Tools,
    from: &str,
    to: &str,
    ids: &[SnapshotId],
    report: &mut JobReport,
    run: &Run,
) -> Result<Vec<(SnapshotId, SnapshotId)>, OperationError> {
    let source = tools.repository(workspace, from, &mut report.made)?;
    let target = tools.repository(workspace, to, &mut report.made)?;
    let environment = &workspace.state.environment;
    // Its own cancel, since a lost lock ends this copy and not the run around it.
    let locks = [lock(&source, environment, run)?, lock(&target, environment, run)?];
    let mut snapshots = Vec::new();
    for id in ids {
        snapshots.push((*id, source.snapshot(*id).map_err(OperationError::below)?));
    }
    let allowed = stores::allowing(workspace, from, run);
    let source = Repository::clone(&source).load_index(&allowed).map_err(OperationError::below)?;
    let target = Target::open(&target, &locks[1], run).map_err(OperationError::below)?;
    let run = allowed;
    let copied = copy(&source, target, &snapshots, PackOptions::default(), &run, &mut |_| {});
    let copied = copied.map_err(OperationError::below)?;
    for lock in locks {
        lock.release().map_err(OperationError::below)?;
    }
    Ok(copied.copied.into_iter().chain(copied.skipped).collect())
}

fn lock(
    repository: &Repository,
    environment: &Environment,
    run: &Run,
) -> Result<Lock, OperationError> {
    let lock = Lock::acquire(repository, LockKind::Shared, LOCK_PATIENCE, environment, run);
    lock.map_err(OperationError::below)
}

impl BackupEnded {
    fn fill(&mut self, captured: Captured) {
        self.outcome = match captured.left_out.is_empty() {
            true => BackupOutcome::Completed,
            false => BackupOutcome::Partial,
        };
        self.snapshot = Some(captured.snapshot.to_hex());
        self.tree = Some(captured.tree.to_hex());
        self.data_time = Some(captured.data_time);
        self.bytes = Some(captured.bytes);
        self.bytes_added = Some(captured.bytes_added);
        self.files = Some(captured.files);
        self.left_out = captured.left_out;
        let notice = |notice: muster_sources::capture::Notice| {
            format!("{}: {}", notice.code, notice.message)
        };
        self.notices = captured.notices.into_iter().map(notice).collect();
        self.rows = captured.rows;
    }
}

/// The moment by which every point of a job that runs now is newer: for catching up.
#[must_use]
pub fn last_start(workspace: &Workspace, job: &str) -> Option<Timestamp> {
    let history = workspace.state.history(&["backup-started"]).ok()?;
    history.iter().rev().find_map(|logged| match &logged.record {
        Record::BackupStarted(started) if started.job == job => Some(logged.at),
        _ => None,
    })
}
