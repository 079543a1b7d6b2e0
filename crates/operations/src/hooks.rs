//! Hooks: programs of the plan that run around the snapshots of a line of `protect`.
//!
//! `before` runs first, and when it fails there is no backup: what it should have brought to rest
//! is still moving. `after` runs whenever `before` has, also when the backup failed, since what was
//! brought to rest must not stay so; it does not wait for the copies. `on_failure` runs when
//! anything of the line failed. What classes of the data bring stands around what the line says: their
//! `before` runs first and their `after` last.
//!
//! A hook is recorded before it runs, ended when its time is over with all that it started, and
//! ended by the next command when Muster was killed meanwhile.

use std::{fs, time::Instant};

use muster_drivers::process::{ChildIdentity, Launch, RunEnd, launch, tail};
use muster_model::units::format_duration;
use muster_plan::document::Hook;
use muster_repository::run::Run;

use crate::{
    error::OperationError,
    pause::interrupted,
    process::this_process,
    protect::Job,
    records::{ChildEnded, ChildStarted, HookEnded, HookStarted, Record},
    runtime,
    sweep::GRACE,
    workspace::Workspace,
};

/// Lines of a hook's output that an error quotes.
const LINES_QUOTED: usize = 5;

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
    OnFailure,
}

impl When {
    /// The field of the plan.
    fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::OnFailure => "on_failure",
        }
    }
}

/// A hook, when it runs, and the class that brings it.
pub(crate) type Due<'h> = (When, Option<&'h str>, &'h Hook);

/// What it is called in the ledger.
fn name_of((when, class, _): Due<'_>) -> String {
    match class {
        None => when.name().to_owned(),
        Some(class) => format!("{} of class {class}", when.name()),
    }
}

/// How a hook failed.
pub(crate) struct HookFailure {
    /// On one line, for the ledger and for other hooks.
    pub(crate) told: String,
    /// When it ran.
    pub(crate) name: String,
    /// Why.
    pub(crate) error: OperationError,
}

/// Runs a hook of a job to its end; tells how it failed, if it did. `failures` is what went
/// wrong so far, for `on_failure`.
///
/// # Errors
/// Fails when the ledger cannot be written, or the run is cancelled.
pub(crate) fn run_hook(
    workspace: &Workspace,
    job: &Job<'_>,
    point: &str,
    due: Due<'_>,
    failures: &[String],
    run: &Run,
) -> Result<Option<HookFailure>, OperationError> {
    let name = name_of(due);
    let started = HookStarted {
        job: job.name.clone(),
        service: job.service.name.clone(),
        point: point.to_owned(),
        hook: name.clone(),
        process: this_process(),
    };
    workspace.state.record(&Record::HookStarted(started.clone()))?;
    let begun = Instant::now();
    let done = perform(workspace, job, point, due, failures, run);
    let command = due.2.argv.join(" ");
    let failed = done.err().map(|error| {
        let why = match &error {
            OperationError::HookFailed { why, .. } => why.clone(),
            error => error.one_line(),
        };
        HookFailure { told: format!("{name} `{command}`: {why}"), name, error }
    });
    let error = failed.as_ref().map(|failed| failed.told.clone());
    let took_s = begun.elapsed().as_secs_f64();
    let ended = HookEnded { started, took_s: Some(took_s), error };
    workspace.state.record(&Record::HookEnded(ended))?;
    interrupted(run)?;
    Ok(failed)
}

/// Fails when it cannot be run, and when it did not end well.
fn perform(
    workspace: &Workspace,
    job: &Job<'_>,
    point: &str,
    due @ (when, _, hook): Due<'_>,
    failures: &[String],
    run: &Run,
) -> Result<(), OperationError> {
    let folder = workspace.state.private_folder("hooks")?;
    let log = format!("{}.{}.log", job.name, name_of(due)).replace(['/', ' '], "-");
    let log = folder.join(log);
    // Only the output of the last time is kept.
    drop(fs::remove_file(&log));
    let variables = [
        ("MUSTER_HOOK", when.name().to_owned()),
        ("MUSTER_SERVICE", job.service.name.clone()),
        ("MUSTER_DATA", job.data.join(",")),
        ("MUSTER_POINT", point.to_owned()),
        ("MUSTER_ERROR", failures.join("\n")),
        ("TMPDIR", folder.display().to_string()),
    ];
    let launch_it = Launch {
        argv: hook.argv.clone(),
        env: variables.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        user: None,
        dir: workspace.folder.clone(),
        log: log.clone(),
        hidden: Vec::new(),
    };
    let record = |child: &ChildIdentity| {
        let started = ChildStarted {
            run: point.to_owned(),
            part: "hook".to_owned(),
            step: 0,
            role: when.name().to_owned(),
            child: child.clone(),
        };
        workspace.state.record(&Record::ChildStarted(started)).map(drop)
    };
    let (identity, how, ended) = runtime::block_on(async {
        let mut child = launch(&launch_it, record).await.map_err(OperationError::below)?;
        let identity = child.identity().clone();
        let failed = || OperationError::io("wait for", &hook.argv[0]);
        let ended = tokio::select! {
            ended = child.run_to_end(hook.timeout) => Some(ended.map_err(failed())?),
            () = crate::run::until_cancelled(run) => None,
        };
        // What it left in the background ends too: a hook is over when it is over.
        let rest = child.end(GRACE).await.map_err(failed())?;
        Ok::<_, OperationError>((identity, format!("{:?}", rest.how), ended))
    })??;
    let (pid, mark) = (identity.pid, identity.mark);
    let child_ended = ChildEnded { run: point.to_owned(), pid, mark, how };
    workspace.state.record(&Record::ChildEnded(child_ended))?;
    let why = match ended {
        Some(RunEnd::Exited(status)) if status.success() => return Ok(()),
        Some(RunEnd::Exited(status)) => status.to_string(),
        Some(RunEnd::TimedOut(_)) => format!("not done after {}", format_duration(hook.timeout)),
        None => "it was asked to stop".to_owned(),
    };
    let said = tail(&log, LINES_QUOTED).join(" | ");
    let why = if said.is_empty() { why } else { format!("{why}: {said}") };
    Err(OperationError::HookFailed { command: hook.argv.join(" "), why, log })
}
