//! `muster forget`

use muster_model::{
    Fault,
    units::{agree, format_size},
};
use muster_operations::{
    error::OperationError,
    housekeeping::{self, Kept, Pruned},
    keeping::{self, Applied, Proposed, ProposedItem},
    protect::Name,
    standstill,
    workspace::Workspace,
};
use muster_repository::run::Run;
use serde::Serialize;

use super::{heeding_signals, moments, open};
use crate::{
    error::{Failure, Outcome},
    exit::Exit,
    output::{Output, table, visible},
    progress::{self, Shape},
    repo::counted,
    workspace::PlanArgs,
};

/// Arguments of `forget`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Services, or single data items; everything that has a `keep` when there is none
    #[arg(value_name = "SERVICE[/DATA]")]
    names: Vec<String>,
    /// Only show what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Free the space, too: in two phases, so that backups need not wait
    #[arg(long)]
    prune: bool,
}

const EXAMPLES: &str =
    "Applies the plan's `keep` in every repository that its lines write, to what these lines wrote.
What stays is shown with its reasons, and what goes; then exactly that goes. Never removed: the last
point of each data item that a drill proved, its newest good one, and what is under a legal hold.
Proposal and result are in the ledger. `muster backup` does the same after it went well.

Examples:
  muster forget --dry-run
  muster forget orders/db
  muster forget --prune

Exit code 0 when everything was done; 4 when something was refused (a lock, a repository that cannot
be opened, something that changed since it was shown), 5 when a part was done.";

/// What became of one repository.
#[derive(Serialize)]
struct Done {
    repository: String,
    proposed: Option<Proposed>,
    applied: Option<Applied>,
    pruned: Option<Pruned>,
    #[serde(skip)]
    failures: Vec<(String, OperationError)>,
}

/// Shows what goes, and removes it.
pub(crate) fn run(args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let workspace = open(plan, output)?;
    let names = keeping::names(&workspace, &args.names)?;
    let repositories = keeping::repositories(&workspace, &names);
    if repositories.is_empty() {
        return Err(Failure::usage("forget anything: no line of `protect` for it has a `keep`")
            .help(
                "without `keep` everything is kept; add one, as in keep: {daily: 7, weekly: 5}",
            ));
    }
    let run = heeding_signals(&workspace)?;
    let mut all = Vec::new();
    for repository in repositories {
        let done = one(args, &workspace, &names, repository, (&run, output))?;
        let is_cancelled = run.cancel.is_requested();
        all.push(done);
        if is_cancelled {
            break;
        }
    }
    if output.is_json() {
        output.json(&serde_json::json!({ "dry_run": args.dry_run, "repositories": all }))?;
    }
    let is_part_done = all.iter().any(|done| done.failures.is_empty());
    let mut exit = Exit::Done;
    for (what, error) in all.iter().flat_map(|done| &done.failures) {
        output.failure(&named(what, error));
        exit = exit.and(match is_part_done {
            true => Exit::beside(error.class()),
            false => error.class().into(),
        });
    }
    let is_left = |done: &Done| done.applied.as_ref().is_some_and(|it| !it.failed.is_empty());
    Ok(if all.iter().any(is_left) { exit.and(Exit::Partial) } else { exit })
}

fn one(
    args: &Args,
    workspace: &Workspace,
    names: &[Name],
    repository: String,
    (run, output): (&Run, &Output),
) -> Result<Done, Failure> {
    let now = jiff::Timestamp::now();
    let mut done =
        Done { repository, proposed: None, applied: None, pruned: None, failures: Vec::new() };
    let name = done.repository.clone();
    let proposed = match keeping::propose(workspace, &name, names, now) {
        // Only a look.
        proposed if args.dry_run => proposed,
        // What became of it is not known yet.
        Ok(proposed) if !proposed.is_empty() => Ok(proposed),
        over => standstill::noted(workspace, &name, over),
    };
    let proposed = match proposed {
        Ok(proposed) => done.proposed.insert(proposed),
        Err(error) => {
            done.failures.push((format!("apply `keep` in {name}"), error));
            return Ok(done);
        }
    };
    if !output.is_json() {
        print(proposed, output)?;
    }
    if args.dry_run {
        return Ok(done);
    }
    let shape = Shape::Plain { items: "snapshots" };
    if !proposed.is_empty() {
        let applied = progress::shown(output, &run.progress, shape, || {
            keeping::apply(workspace, proposed, names, now, run)
        });
        match applied {
            Ok(applied) => done.applied = Some(applied),
            Err(error) => {
                done.failures.push((format!("apply `keep` in {name}"), error));
                return Ok(done);
            }
        }
    }
    if args.prune {
        let shape = Shape::Plain { items: "packs" };
        let pruned = progress::shown(output, &run.progress, shape, || {
            housekeeping::prune_now(workspace, &name, run)
        });
        match pruned {
            Ok(pruned) => done.pruned = Some(pruned),
            Err(error) => done.failures.push((format!("prune {name}"), error)),
        }
    }
    if !output.is_json() {
        let lines = lines(&name, done.applied.as_ref(), done.pruned.as_ref());
        lines.iter().try_for_each(|line| output.line(visible(line.as_bytes())))?;
    }
    Ok(done)
}

/// A failure with what was tried.
pub(super) fn named(what: &str, error: &OperationError) -> Failure {
    let failure = Failure::of(error);
    let mut causes = vec![failure.message];
    causes.extend(failure.causes);
    Failure { message: what.to_owned(), causes, ..failure }
}

/// What was done in a repository, a line for each thing.
fn lines(repository: &str, applied: Option<&Applied>, pruned: Option<&Pruned>) -> Vec<String> {
    let mut lines = Vec::new();
    let unlocked = applied.map_or(0, |it| it.unlocked) + pruned.map_or(0, |it| it.unlocked);
    if unlocked > 0 {
        let locks = counted(unlocked, "lock");
        lines.push(format!("{repository}: removed {locks} of processes that are gone"));
    }
    if let Some(applied) = applied {
        let removed = counted(applied.removed.len(), "snapshot");
        lines.push(format!("{repository}: removed {removed} by `keep`"));
        let short = |id: &str| id.get(..8).unwrap_or(id).to_owned();
        let failed = applied.failed.iter();
        lines.extend(
            failed.map(|(id, why)| format!("  NOT removed: snapshot {}: {why}", short(id))),
        );
        lines.extend(applied.held.iter().map(|(id, until)| {
            let until = until.as_deref().unwrap_or("somebody releases it");
            format!("  snapshot {} stays: it is immutable in the store until {until}", short(id))
        }));
    }
    if let Some(pruned) = pruned {
        lines.push(format!(
            "{repository}: pruned: {} deleted, {} wait for their deletion, {} needed",
            format_size(pruned.deleted_bytes),
            format_size(pruned.waiting_bytes),
            format_size(pruned.used_bytes)
        ));
    }
    lines
}

/// What was done after backups, a line for each thing.
pub(super) fn kept_lines(kept: &Kept) -> Vec<String> {
    let applied = kept.applied.as_ref().ok().and_then(Option::as_ref);
    let pruned = kept.pruned.as_ref().and_then(|pruned| pruned.as_ref().ok());
    lines(&kept.repository, applied, pruned)
}

/// What was done after backups, as JSON.
pub(super) fn kept_json(kept: &Kept) -> serde_json::Value {
    let applied = kept.applied.as_ref().ok().and_then(Option::as_ref);
    let pruned = kept.pruned.as_ref().and_then(|pruned| pruned.as_ref().ok());
    let failures: Vec<Failure> = kept.failures().map(|(what, error)| named(&what, error)).collect();
    serde_json::json!({
        "repository": kept.repository, "applied": applied, "pruned": pruned, "failures": failures,
    })
}

fn print(proposed: &Proposed, output: &Output) -> Result<(), Failure> {
    proposed.items.iter().try_for_each(|item| print_item(&proposed.repository, item, output))
}

fn print_item(repository: &str, item: &ProposedItem, output: &Output) -> Result<(), Failure> {
    let title = format!(
        "{}/{} in {repository}: {} {}, {} {} ({})",
        item.service,
        item.data,
        item.keep.len(),
        agree(item.keep.len(), "stays", "stay"),
        item.remove.len(),
        agree(item.remove.len(), "goes", "go"),
        item.policies.join("; and ")
    );
    output.line(visible(title.as_bytes()))?;
    let moments = moments();
    let mut table = table(&["Snapshot", "Time", "Point", "", "Reasons"]);
    let mut rows: Vec<_> = item.keep.iter().map(|point| (point, "keep")).collect();
    rows.extend(item.remove.iter().map(|point| (point, "remove")));
    rows.sort_by_key(|(point, _)| point.time);
    for (point, fate) in rows {
        table.add_row([
            point.snapshot.get(..8).unwrap_or(&point.snapshot).to_owned(),
            moments.moment(point.time),
            visible(point.point.as_deref().unwrap_or("-").as_bytes()),
            fate.to_owned(),
            visible(point.reasons.join(", ").as_bytes()),
        ]);
    }
    output.line(table)?;
    output.line("")
}
