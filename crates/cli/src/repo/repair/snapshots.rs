//! `muster repo repair snapshots`

use muster_operations::retention::{Found, Protected};
use muster_repository::{
    id::{PackId, SnapshotId},
    lock::LockKind,
    repair::snapshots::{
        RepairSnapshotsOptions, RepairSnapshotsReport, RepairedSnapshot, SnapshotList, list,
        repair, unindexed_packs,
    },
    repository::Repository,
    select,
};
use serde_json::{Value, json};

use super::super::{
    counted, immutable, protection, release, snapshot_filter, warn_of_unused_filter,
};
use crate::{
    app::App,
    args::FilterArgs,
    error::{Failure, Outcome, Problem},
    exit::Exit,
    output::visible,
    progress::Shape,
};

/// Arguments of `repair snapshots`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Snapshots: ids, beginnings of ids, or 'latest'; none means all that the filter lets through
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Remove the old snapshots, and such as cannot be repaired
    #[arg(long)]
    forget: bool,
    #[command(flatten)]
    let_go: protection::Release,
    /// Only show what is lost and what would change
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str =
    "Repair packs and index first, and make a full backup: what it stores again is not lost.

Examples:
  muster repo repair snapshots --dry-run -v
  muster repo repair snapshots --forget";

/// Losses of a snapshot that are listed without -v.
const SHOWN: usize = 20;

/// Repairs snapshots.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let kind = if args.forget { LockKind::Exclusive } else { LockKind::Shared };
    let lock = match args.dry_run {
        true => app.lock_to_read(&repository)?,
        false => Some(app.lock(&repository, kind)?),
    };
    let snapshots = chosen(app, args, &repository)?;
    let repository = app.load_index(&repository)?;
    refuse_unindexed(&unindexed_packs(&repository, &app.run)?)?;
    let protected = match args.forget {
        true => args.let_go.protected(&all(&list(&repository)?)),
        false => Protected::new(),
    };
    let options = RepairSnapshotsOptions {
        forget: args.forget,
        protected: protection::ids(&protected),
        packs: app.pack_options(args.dry_run),
    };
    let report = app.with_progress(Shape::Plain { items: "trees" }, || {
        repair(&repository, &snapshots, &options, &app.run)
    })?;
    release(lock)?;
    match app.output.is_json() {
        true => print_json(app, args, &report, &protected)?,
        false => print(app, args, &report)?,
    }
    let left = report.snapshots.iter().any(|repaired| repaired.is_lost)
        || report.unreadable.iter().any(|(_, new)| new.is_none());
    immutable::warn_of_held(app, &report.held);
    let is_part = (left && !args.forget) || !report.held.is_empty();
    let mut exit = if is_part { Exit::Partial } else { Exit::Done };
    for (_, error) in &report.failed {
        exit = exit.and(app.output.failure(&Failure::of(error)));
    }
    let outcome = "they were left as they are";
    if let Some(refusal) = protection::refusal("replace", outcome, &report.protected, &protected) {
        exit = exit.and(app.output.failure(&refusal));
    }
    Ok(exit)
}

/// All that can be read, by the names of their files.
fn all(list: &SnapshotList) -> Vec<Found> {
    let misnamed = list.damaged.iter().filter_map(|damaged| {
        damaged.misnamed.as_ref().map(|(_, snapshot)| (damaged.id, snapshot.clone()))
    });
    list.readable.iter().cloned().chain(misnamed).collect()
}

/// The snapshots that are named, or all that the filter lets through. Nobody knows whether it
/// would let through what cannot be read, so damaged files are only for those who give none.
fn chosen(app: &App<'_>, args: &Args, repository: &Repository) -> Result<SnapshotList, Failure> {
    let filter = snapshot_filter(&args.filter);
    if !args.snapshots.is_empty() {
        let selection = select::select(repository, &args.snapshots, &filter)?;
        warn_of_unused_filter(app, &selection);
        return Ok(SnapshotList { readable: selection.snapshots, damaged: Vec::new() });
    }
    let mut list = list(repository)?;
    if !filter.is_empty() {
        list.readable.retain(|(_, snapshot)| filter.matches(snapshot));
        list.damaged.clear();
    }
    Ok(list)
}

/// What seems lost may lie in packs that no index lists.
fn refuse_unindexed(packs: &[PackId]) -> Result<(), Failure> {
    match packs {
        [] => Ok(()),
        [first, ..] => Err(Failure::new(
            Problem::IndexIncomplete,
            format!(
                "repair snapshots: {} in no index may hold what seems lost, such as {}",
                counted(packs.len(), "pack"),
                first.short()
            ),
        )
        .help("run 'muster repo repair index' first")),
    }
}

fn print(app: &App<'_>, args: &Args, report: &RepairSnapshotsReport) -> Result<(), Failure> {
    for repaired in &report.snapshots {
        print_one(app, report, repaired)?;
    }
    for (id, new) in &report.unreadable {
        let what = match new {
            Some(new) => format!("lies under a wrong name, stored anew as {}", new.short()),
            None => "is damaged".to_owned(),
        };
        let end = if report.removed.contains(id) { "removed" } else { "left as it is" };
        app.output.line(format_args!("snapshot file {}: {what}; {end}", id.short()))?;
    }
    let lossy = report.snapshots.iter().filter(|repaired| !repaired.is_lost).count();
    let would = if args.dry_run { "would repair" } else { "repaired" };
    app.output.summary(format_args!(
        "{would} {}, removed {}, {} complete by the index",
        counted(lossy, "snapshot"),
        report.removed.len(),
        report.whole
    ))
}

fn print_one(
    app: &App<'_>,
    report: &RepairSnapshotsReport,
    repaired: &RepairedSnapshot,
) -> Result<(), Failure> {
    let old = repaired.old.short();
    if repaired.is_lost {
        let is_gone = report.removed.contains(&repaired.old);
        let what = if is_gone { "removed" } else { "left as it is" };
        return app.output.line(format_args!("snapshot {old}: nothing of it can be read; {what}"));
    }
    let as_what = repaired.new.map_or_else(String::new, |new| format!(", now {}", new.short()));
    let total = usize::try_from(repaired.losses_total).unwrap_or(usize::MAX);
    app.output.line(format_args!("snapshot {old}{as_what}: {}", losses(total)))?;
    let verbose = app.output.verbosity() >= crate::output::Verbosity::Verbose;
    let shown = if verbose { repaired.losses.len() } else { SHOWN };
    for (path, loss) in repaired.losses.iter().take(shown) {
        app.output.line(format_args!("  {}: {loss}", visible(path)))?;
    }
    let more = total.saturating_sub(shown.min(repaired.losses.len()));
    match more {
        0 => Ok(()),
        _ => app.output.line(format_args!("  and {more} more")),
    }
}

fn losses(number: usize) -> String {
    match number {
        1 => "1 loss".to_owned(),
        _ => format!("{number} losses"),
    }
}

fn print_json(
    app: &App<'_>,
    args: &Args,
    report: &RepairSnapshotsReport,
    protected: &Protected,
) -> Result<(), Failure> {
    let ids = |ids: &[SnapshotId]| ids.iter().map(SnapshotId::to_hex).collect::<Vec<_>>();
    app.output.json(&json!({
        "message_type": "summary",
        "dry_run": args.dry_run,
        "repaired": report.snapshots.iter().map(to_json).collect::<Vec<_>>(),
        "whole": report.whole,
        "damaged_files": report.unreadable.iter().map(|(id, new)| {
            json!({"id": id, "new_snapshot_id": new})
        }).collect::<Vec<_>>(),
        "removed": ids(&report.removed),
        "held": immutable::held_json(&report.held),
        "protected": protection::as_json(&report.protected, protected),
        "failed": ids(&report.failed.iter().map(|(id, _)| *id).collect::<Vec<_>>()),
    }))
}

fn to_json(repaired: &RepairedSnapshot) -> Value {
    let loss = |(path, loss): &(Vec<u8>, muster_repository::repair::Loss)| json!({"path": String::from_utf8_lossy(path), "loss": loss});
    json!({
        "old_snapshot_id": repaired.old,
        "new_snapshot_id": repaired.new,
        "lost_wholly": repaired.is_lost,
        "losses": repaired.losses.iter().map(loss).collect::<Vec<_>>(),
        "losses_total": repaired.losses_total,
    })
}
