//! `muster backup`

use std::sync::Mutex;

use jiff::{Timestamp, tz::TimeZone};
use muster_model::{
    BackupKind, Fault,
    units::{agree, counted, format_size},
};
use muster_operations::{
    error::OperationError,
    holding::HoldEnded,
    housekeeping::Kept,
    looping::{self, LoopOptions, Turn},
    protect::{self, Job, JobFailure, JobReport, Selection, Tools},
    records::{BackupEnded, BackupOutcome, CopyEnded},
    report::format::seconds,
    workspace::Workspace,
};
use muster_repository::run::Run;
use muster_sources::capture::VANISHED;
use serde::Serialize;

use super::{forget, heeding_signals, open};
use crate::{
    error::{Failure, Outcome},
    exit::Exit,
    output::{Output, VANISHED_SHOWN, visible},
    progress::{self, Shape},
    workspace::PlanArgs,
};

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Services, or single data items; everything that the plan protects when there is none
    #[arg(value_name = "SERVICE[/DATA]")]
    names: Vec<String>,
    /// How much is read again: full, incremental, differential [default: as the plan says]
    #[arg(long, value_name = "KIND")]
    kind: Option<BackupKind>,
    /// Run the plan's schedules, copies and markers until Ctrl-C
    #[arg(long = "loop")]
    looping: bool,
    /// Remove nothing afterwards, whatever the plan's `keep` says
    #[arg(long)]
    no_keep: bool,
}

const EXAMPLES: &str = "Examples:
  muster backup                   everything, now
  muster backup orders/db         one data item
  muster backup --kind full       read everything again
  muster backup --loop            as the plan schedules it, with markers, until Ctrl-C

A repository that does not exist yet is made. A job that still runs elsewhere is not run twice.
After jobs that went well the plan's `keep` is applied to what they back up (see `muster forget`),
and space is freed, at most once in 23 hours; in the loop `keep` is applied at most once an hour,
and repositories with a `verify` are read back in turn, all in the pauses between backups.

Exit code 0 when everything was done. When something was not, each is named and the worst decides:
3 for damaged data, 4 for a refusal (a wrong password, a lock), else 5 when a part was done and 1
when nothing was.";

#[derive(Serialize)]
struct Result<'a> {
    job: &'a str,
    service: &'a str,
    point: &'a str,
    skipped: bool,
    backups: &'a [BackupEnded],
    copies: &'a [CopyEnded],
    holds: &'a [HoldEnded],
    hooks_failed: &'a [String],
    warnings: &'a [String],
    failures: Vec<Failure>,
}

/// Takes snapshots, or loops.
pub(crate) fn run(args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let workspace = open(plan, output)?;
    let selection = Selection { names: args.names.clone(), kind: args.kind };
    if args.looping {
        return run_loop(&workspace, &selection, args.no_keep, output);
    }
    let jobs = protect::jobs(&workspace, &selection)?;
    if jobs.is_empty() {
        return Err(Failure::usage("back anything up: the plan protects nothing")
            .help("add `protect:` to a service"));
    }
    let run = heeding_signals(&workspace)?;
    let tools = Tools::new();
    let mut ran = Ran::default();
    for job in &jobs {
        let shape = Shape::Plain { items: "files" };
        let report = progress::shown(output, &run.progress, shape, || {
            protect::run_job(&workspace, &tools, job, &run)
        });
        match report {
            Ok(report) => {
                if !output.is_json() {
                    tell(&report, output)?;
                }
                ran.reports.push((job, report));
            }
            Err(error) => ran.broken.push((&job.name, error)),
        }
        if run.cancel.is_requested() {
            break;
        }
    }
    if !args.no_keep && !run.cancel.is_requested() {
        ran.keep(&workspace, &run, output)?;
    }
    if output.is_json() {
        let results: Vec<Result<'_>> =
            ran.reports.iter().map(|(job, report)| result(job, report)).collect();
        let kept: Vec<_> = ran.kept.iter().map(forget::kept_json).collect();
        output.json(&serde_json::json!({ "jobs": results, "kept": kept }))?;
        for failure in ran.failures() {
            output.failure(&failure);
        }
    }
    for (job, error) in &ran.broken {
        let failure = Failure::of(error);
        let message = match error {
            OperationError::Interrupted { .. } => failure.message.clone(),
            _ => format!("run {job}: {}", failure.message),
        };
        output.failure(&Failure { message, ..failure });
    }
    Ok(ran.exit())
}

/// What became of all jobs.
#[derive(Default)]
struct Ran<'j, 'w> {
    reports: Vec<(&'j Job<'w>, JobReport)>,
    /// Why jobs could not even be written down.
    broken: Vec<(&'j String, OperationError)>,
    /// What was done in repositories afterwards.
    kept: Vec<Kept>,
}

impl Ran<'_, '_> {
    fn failures(&self) -> impl Iterator<Item = Failure> {
        self.reports.iter().flat_map(|(_, report)| &report.failures).map(failure)
    }

    /// Applies `keep` to what was backed up well, and tells what that did.
    fn keep(
        &mut self,
        workspace: &Workspace,
        run: &Run,
        output: &Output,
    ) -> std::result::Result<(), Failure> {
        let good = self.reports.iter().filter(|(_, report)| report.is_complete());
        let good: Vec<&Job<'_>> = good.map(|(job, _)| *job).collect();
        let shape = Shape::Plain { items: "files" };
        self.kept = progress::shown(output, &run.progress, shape, || {
            protect::keep_after(workspace, &good, run)
        });
        for kept in &self.kept {
            if !output.is_json() {
                for line in forget::kept_lines(kept) {
                    output.line(visible(line.as_bytes()))?;
                }
            }
            tell_untidy(kept, output);
        }
        Ok(())
    }

    /// The worst decides; what may pass by itself counts less when something was done.
    fn exit(&self) -> Exit {
        let reports = || self.reports.iter().map(|(_, report)| report);
        let is_part_done = reports().any(JobReport::has_snapshot);
        let unfinished = match () {
            () if self.broken.is_empty() && reports().all(JobReport::is_complete) => Exit::Done,
            () if is_part_done => Exit::Partial,
            () if reports().any(|report| report.skipped) => Exit::Refused,
            () => Exit::Failed,
        };
        let failures = reports().flat_map(|report| &report.failures).map(|failed| &failed.error);
        let broken = self.broken.iter().map(|(_, error)| error);
        let classes = failures.chain(broken).map(Fault::class);
        let exits = classes.map(|class| match is_part_done {
            true => Exit::beside(class),
            false => class.into(),
        });
        let exit = exits.fold(unfinished, Exit::and);
        // The data is safe: what could not be tidied up leaves it at that.
        let untidy = self.kept.iter().flat_map(Kept::failures);
        match untidy.filter(|(_, error)| !is_in_use(error)).count() {
            0 => exit,
            _ => exit.and(Exit::Partial),
        }
    }
}

/// Tells what was not tidied up, on standard error.
fn tell_untidy(kept: &Kept, output: &Output) {
    for (what, error) in kept.failures() {
        match is_in_use(error) {
            true => output.warning(format_args!("{what} later: {}", in_use(error))),
            false => {
                output.failure(&forget::named(&what, error));
            }
        }
    }
}

/// Whether somebody works in a repository: it is tidied up the next time.
fn is_in_use(error: &OperationError) -> bool {
    error.code() == "locked"
}

/// Who works in a repository, as the error tells that does not get its lock.
fn in_use(error: &OperationError) -> String {
    let told = error.one_line();
    told.split_once(": ").map_or_else(|| told.clone(), |(_, who)| who.to_owned())
}

/// A part of a job that could not be done, as a failure of its own.
fn failure(failed: &JobFailure) -> Failure {
    let error = Failure::of(&failed.error);
    let mut causes = vec![error.message];
    causes.extend(error.causes);
    Failure { message: failed.what.clone(), causes, ..error }
}

fn result<'a>(job: &'a Job<'_>, report: &'a JobReport) -> Result<'a> {
    Result {
        job: &job.name,
        service: &job.service.name,
        point: &report.point,
        skipped: report.skipped,
        backups: &report.backups,
        copies: &report.copies,
        holds: &report.holds,
        hooks_failed: &report.hooks_failed,
        warnings: &report.warnings,
        failures: report.failures.iter().map(failure).collect(),
    }
}

/// Tells what a job did, one line for each thing.
fn tell(report: &JobReport, output: &Output) -> std::result::Result<(), Failure> {
    for line in lines(report) {
        output.line(visible(line.as_bytes()))?;
    }
    for warning in &report.warnings {
        output.warning(visible(warning.as_bytes()));
    }
    for failed in &report.failures {
        output.failure(&failure(failed));
    }
    Ok(())
}

fn lines(report: &JobReport) -> Vec<String> {
    let mut lines: Vec<String> =
        report.made.iter().map(|name| format!("repository {name} is new: made")).collect();
    let job = report.covers();
    if report.skipped {
        lines.push(format!("{job}: left out, the run before is still under way"));
    }
    lines.extend(report.backups.iter().flat_map(backup_lines));
    lines.extend(report.copies.iter().map(copy_line));
    lines.extend(report.holds.iter().map(hold_line));
    lines.extend(report.hooks_failed.iter().map(|what| format!("{job}: FAILED {what}")));
    lines
}

fn hold_line(ended: &HoldEnded) -> String {
    let name = format!("{}/{} in {}", ended.service, ended.data, ended.repository);
    match (&ended.error, ended.until) {
        (None, Some(until)) => format!("{name}: immutable until {until}"),
        (Some(error), _) => format!("{name}: NOT immutable: {error}"),
        (None, None) => format!("{name}: NOT immutable"),
    }
}

fn backup_lines(ended: &BackupEnded) -> Vec<String> {
    let name = format!("{}/{}", ended.service, ended.data);
    let took = ended.took_s.map_or_else(String::new, |took| format!(" in {}", seconds(took)));
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), format_size);
    let short: String = ended.snapshot.iter().flat_map(|id| id.chars().take(8)).collect();
    let mut lines = vec![match ended.outcome {
        BackupOutcome::Completed | BackupOutcome::Partial => format!(
            "{name}: snapshot {short} in {}, {}, {} new{took}{}",
            ended.repository,
            size(ended.bytes),
            size(ended.bytes_added),
            if ended.outcome == BackupOutcome::Partial { ", IN PART" } else { "" }
        ),
        BackupOutcome::Failed | BackupOutcome::Lost => format!(
            "{name}: FAILED{took}: {}",
            ended.error.as_deref().unwrap_or("for a reason that nobody knows")
        ),
    }];
    lines.extend(left_out_lines(&ended.left_out));
    lines.extend(ended.notices.iter().map(|what| format!("  note: {what}")));
    lines
}

/// What was left out: all, but of what vanished only the first.
fn left_out_lines(left_out: &[String]) -> Vec<String> {
    let mut vanished = 0;
    let named = left_out.iter().filter(|what| {
        let has_vanished = what.ends_with(VANISHED);
        vanished += usize::from(has_vanished);
        !has_vanished || vanished <= VANISHED_SHOWN
    });
    let mut lines: Vec<String> = named.map(|what| format!("  left out: {what}")).collect();
    if vanished > VANISHED_SHOWN {
        let more = counted(vanished - VANISHED_SHOWN, "more item");
        lines.push(format!("  left out: {more} that vanished; --json names all"));
    }
    lines
}

fn copy_line(ended: &CopyEnded) -> String {
    let name = format!("{}/{}", ended.service, ended.data);
    match &ended.error {
        None => {
            format!("{name}: copied to {}, {} after the snapshot", ended.to, seconds(ended.lag_s))
        }
        Some(error) => format!("{name}: NOT copied to {}: {error}", ended.to),
    }
}

/// Runs until a signal comes.
fn run_loop(
    workspace: &Workspace,
    selection: &Selection,
    no_keep: bool,
    output: &Output,
) -> Outcome {
    for job in protect::jobs(workspace, selection)? {
        let data = job.data.join(", ");
        let (to, cadence) = (&job.protection.to, &job.protection.cadence);
        output.message(format_args!("{}: {data} to {to}, {cadence}", job.service.name));
    }
    let run = heeding_signals(workspace)?;
    let failed = Mutex::new(None);
    looping::run(workspace, selection, LoopOptions { no_keep }, &run, &|turn| {
        if let Err(failure) = tell_turn(turn, output) {
            run.cancel.request("its output cannot be written");
            failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(failure);
        }
    })?;
    match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(Exit::Interrupted),
    }
}

fn tell_turn(turn: &Turn<'_>, output: &Output) -> std::result::Result<(), Failure> {
    let now = Timestamp::now().to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string();
    match turn {
        Turn::Ran { job, report, took } => {
            report.failures.iter().for_each(|failed| {
                output.failure(&failure(failed));
            });
            if output.is_json() {
                return output.json(&serde_json::json!({
                    "turn": "ran", "job": job, "took_s": took.as_secs_f64(), "point": report.point,
                    "skipped": report.skipped, "backups": report.backups, "copies": report.copies,
                    "holds": report.holds,
                    "hooks_failed": report.hooks_failed,
                }));
            }
            for line in lines(report) {
                output.line(format_args!("{now} {}", visible(line.as_bytes())))?;
            }
            for warning in &report.warnings {
                output.warning(visible(warning.as_bytes()));
            }
        }
        Turn::Missed { job, runs } => {
            let (runs, were) = (counted(*runs, "run"), agree(*runs, "was", "were"));
            output.warning(format_args!("{now} {job}: {runs} {were} missed; one catches up"));
        }
        Turn::Failed { job, error } => {
            output.failure(&forget::named(&format!("run {job}"), error));
        }
        Turn::Kept { kept } => {
            tell_untidy(kept, output);
            if output.is_json() {
                let mut object = forget::kept_json(kept);
                object["turn"] = "kept".into();
                return output.json(&object);
            }
            for line in forget::kept_lines(kept) {
                output.line(format_args!("{now} {}", visible(line.as_bytes())))?;
            }
        }
        Turn::Verified { repository, outcome } => match outcome {
            Ok(ended) if output.is_json() => {
                return output.json(&serde_json::json!({ "turn": "verified", "result": ended }));
            }
            Ok(ended) => {
                for line in super::verify::lines(ended) {
                    output.line(format_args!("{now} {}", visible(line.as_bytes())))?;
                }
                if !ended.is_clean() {
                    let lost = super::verify::losing(ended.affected.len());
                    output.warning(format_args!("{now} {repository} is damaged: {lost}"));
                }
            }
            Err(error) => {
                output.failure(&forget::named(&format!("read {repository} back"), error));
            }
        },
        Turn::Markers { service, error: Some(error) } => {
            let why = error.one_line();
            output.warning(format_args!(
                "{now} {service}: no markers: cannot {}",
                visible(why.as_bytes())
            ));
        }
        Turn::Markers { service, error: None } => {
            output.message(format_args!("{now} {service}: markers are written again"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_vanished_the_first_are_named() {
        let mut left_out: Vec<String> = (0..9).map(|n| format!("/tmp/{n}: {VANISHED}")).collect();
        left_out.push("/etc/shadow: cannot open it: no".to_owned());
        let lines = left_out_lines(&left_out);
        assert_eq!(lines.len(), 7, "{lines:#?}");
        assert_eq!(lines[5], "  left out: /etc/shadow: cannot open it: no");
        assert_eq!(lines[6], "  left out: 4 more items that vanished; --json names all");
        assert_eq!(left_out_lines(&left_out[..5]).len(), 5);
    }

    #[test]
    fn a_failed_copy_cannot_be_overlooked() {
        let copy = CopyEnded {
            service: "orders".to_owned(),
            data: "db".to_owned(),
            point: String::new(),
            from: "near".to_owned(),
            to: "far".to_owned(),
            snapshot: None,
            lag_s: 1.0,
            error: Some("no space".to_owned()),
        };
        assert_eq!(copy_line(&copy), "orders/db: NOT copied to far: no space");
    }
}
