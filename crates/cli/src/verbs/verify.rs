//! `muster verify`

use std::time::Duration;

use muster_model::{
    Fault,
    units::{agree, counted, format_size, parse_duration},
};
use muster_operations::{
    error::OperationError,
    points,
    verify::{self, How, VerifyEnded},
    workspace::Workspace,
};
use muster_repository::{prune::Amount, run::Run};
use serde::Serialize;

use super::{forget::named, heeding_signals, open};
use crate::{
    error::{Failure, Outcome, Problem},
    exit::Exit,
    output::{Output, visible},
    progress::{self, Shape},
    warm_up::{self, WarmUpArgs},
    workspace::PlanArgs,
};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Repositories of the plan; those with a `verify` when there is none
    #[arg(value_name = "REPOSITORY")]
    repositories: Vec<String>,
    /// Begin no more packs after so long, for example 10m; each repository for itself [default: as
    /// the plan says]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "warm_up")]
    budget: Option<Duration>,
    /// Read everything, also what was read lately
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    warm_up: WarmUpArgs,
}

const EXAMPLES: &str = "Reads packs back whole: first what has waited longest, since it was read or first seen. Only what is
due by the plan's `verify: {within: 30d}` is read; without one, everything. `muster backup --loop` does
this by itself. Which pack was read when is kept in the state folder, what was found in the ledger.

Examples:
  muster verify
  muster verify far --budget 10m
  muster verify deep --warm-up

What lies in an archive is left out and stays due, unless --warm-up brings it back: then all that is due
is read, however long it takes.

Exit code 5 when something is archived and was not read, 3 when anything is damaged: the points that need it are named, and are no good ones until
it was read again and found sound.";

/// What became of one repository.
#[derive(Serialize)]
struct Done {
    #[serde(flatten)]
    ended: VerifyEnded,
    /// The points that lose something: service, data item, point.
    points: Vec<AffectedPoint>,
}

#[derive(Serialize)]
struct AffectedPoint {
    service: String,
    data: String,
    point: String,
}

/// Reads repositories back.
pub(crate) fn run(args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let workspace = open(plan, output)?;
    let repositories = wanted(args, &workspace)?;
    let run = args.warm_up.allow(&heeding_signals(&workspace)?, output);
    let (mut all, mut failures) = (Vec::new(), Vec::new());
    for name in &repositories {
        match one(args, &workspace, name, (&run, output)) {
            Ok(done) => {
                if !output.is_json() {
                    print(&done, output)?;
                }
                all.push(done);
            }
            Err(error) => failures.push((format!("read {name} back"), error)),
        }
        if run.cancel.is_requested() {
            break;
        }
    }
    if output.is_json() {
        output.json(&serde_json::json!({ "repositories": all }))?;
    }
    let is_damaged = all.iter().any(|done| !done.ended.is_clean());
    let is_cold = all.iter().any(|done| done.ended.packs_archived > 0);
    let mut exit = match (is_damaged, is_cold) {
        (true, _) => Exit::Damaged,
        (false, true) => Exit::Partial,
        (false, false) => Exit::Done,
    };
    for (what, error) in &failures {
        output.failure(&named(what, error));
        exit = exit.and(match all.is_empty() {
            true => error.class().into(),
            false => Exit::beside(error.class()),
        });
    }
    Ok(exit)
}

fn wanted(args: &Args, workspace: &Workspace) -> Result<Vec<String>, Failure> {
    let all = || workspace.plan.repositories.iter().map(|repository| repository.name.as_str());
    if let Some(unknown) = args.repositories.iter().find(|name| !all().any(|it| it == **name)) {
        let names: Vec<&str> = all().collect();
        let message = format!("find a repository named '{unknown}'");
        return Err(Failure::new(Problem::NotFound, message)
            .help(format!("the plan has: {}", names.join(", "))));
    }
    if !args.repositories.is_empty() {
        return Ok(args.repositories.clone());
    }
    let planned = all().filter(|name| workspace.plan.verify_of(name).is_some());
    let planned: Vec<String> = planned.map(str::to_owned).collect();
    match planned.is_empty() {
        false => Ok(planned),
        true => Err(Failure::usage("read anything back: no repository has a `verify`").help(
            "name a repository, or add verify: {within: 30d, budget: 10m} to one in the plan",
        )),
    }
}

fn one(
    args: &Args,
    workspace: &Workspace,
    name: &str,
    (run, output): (&Run, &Output),
) -> Result<Done, OperationError> {
    let planned = workspace.plan.verify_of(name).map(|(verify, _)| How::planned(verify));
    let mut how = planned.unwrap_or_default();
    how.budget = args.budget.or(how.budget);
    if args.warm_up.is_given() {
        // What is brought back is charged: all of it is read.
        how.budget = None;
    }
    if args.all {
        how.older_than = Duration::ZERO;
    }
    let shape = Shape::Plain { items: "packs" };
    let ended = progress::shown(output, &run.progress, shape, || {
        verify::verify(workspace, name, how, run)
    })?;
    let points = match ended.affected.is_empty() {
        true => Vec::new(),
        false => affected(workspace, &ended)?,
    };
    Ok(Done { ended, points })
}

fn affected(
    workspace: &Workspace,
    ended: &VerifyEnded,
) -> Result<Vec<AffectedPoint>, OperationError> {
    let listed = points::list(workspace, None)?;
    let is_affected = |copy: &muster_model::PointCopy| {
        copy.repository == ended.repository && ended.affected.contains(&copy.snapshot)
    };
    let points = listed.points.into_iter().filter(|point| point.copies.iter().any(is_affected));
    let affected = points.map(|point| AffectedPoint {
        service: point.service,
        data: point.data,
        point: point.id,
    });
    Ok(affected.collect())
}

fn print(done: &Done, output: &Output) -> Result<(), Failure> {
    for line in lines(&done.ended) {
        output.line(visible(line.as_bytes()))?;
    }
    for point in &done.points {
        let line = format!("  no good point: {}/{} {}", point.service, point.data, point.point);
        output.line(visible(line.as_bytes()))?;
    }
    Ok(())
}

/// `1 snapshot loses something`.
pub(super) fn losing(snapshots: usize) -> String {
    let lose = agree(snapshots, "loses", "lose");
    format!("{} {lose} something", counted(snapshots, "snapshot"))
}

/// What a reading came to, a line for each thing.
pub(super) fn lines(ended: &VerifyEnded) -> Vec<String> {
    let mut text = format!(
        "{}: read back {} of {} ({})",
        ended.repository,
        ended.packs_read,
        counted(ended.packs, "pack"),
        format_size(ended.bytes_read)
    );
    if ended.packs_due > 0 {
        text.push_str(&format!(
            ", {} ({}) {} still due",
            ended.packs_due,
            format_size(ended.bytes_due),
            agree(ended.packs_due, "is", "are")
        ));
    }
    if let Some(since) = ended.waiting_since().filter(|_| ended.packs > 0) {
        text.push_str(&format!("; the longest unread waits since {since:.0}"));
    }
    let mut lines = vec![text];
    let archived = Amount { packs: ended.packs_archived, bytes: ended.bytes_archived };
    let left_out = warm_up::left_out(archived, ended.trees_archived);
    lines.extend(left_out.iter().map(|line| format!("  {line}")));
    let told = ended.damages.len() as u64;
    lines.extend(ended.damages.iter().map(|damage| format!("  DAMAGED: {damage}")));
    if ended.damages_total > told {
        lines.push(format!("  and {} more", counted(ended.damages_total - told, "damage")));
    }
    match (ended.is_clean(), ended.damages_total) {
        (true, _) => lines.push("  no damage found".to_owned()),
        (false, 0) => lines.push(format!(
            "  damage that was found before was not looked at again: {}",
            losing(ended.affected.len())
        )),
        _ => {}
    }
    lines
}
