//! `muster repo rewrite`

use std::collections::HashSet;

use muster_operations::retention::Protected;
use muster_repository::{
    lock::LockKind,
    rewrite::{RewriteOptions, RewriteReport, RewrittenSnapshot, rewrite},
};
use serde_json::{Value, json};

use super::{counted, filter::ExcludeArgs, immutable, protection, release, select_several};
use crate::{
    app::App,
    args::FilterArgs,
    error::{Failure, Outcome},
    exit::Exit,
    output::visible,
    progress::Shape,
    time,
};

/// Arguments of `rewrite`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Snapshots: ids, beginnings of ids, or 'latest'; none means all that the filter lets through
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Remove the old snapshots
    #[arg(long)]
    forget: bool,
    #[command(flatten)]
    let_go: protection::Release,
    /// Only show what would change
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Record this host instead
    #[arg(long, value_name = "HOST")]
    new_host: Option<String>,
    /// Record this time instead
    #[arg(long, value_name = "TIME")]
    new_time: Option<String>,
    /// Count what is in the snapshots and record it
    #[arg(short, long)]
    snapshot_summary: bool,
    #[command(flatten)]
    exclude: ExcludeArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str =
    "The old snapshots stay unless --forget is given; the new ones have the tag \
'rewrite'
then. What was left out is gone for good after a prune without the old snapshots. A snapshot with
another content or time is no recovery point of a plan, and not proven.

Examples:
  muster repo rewrite --exclude '*.iso' --dry-run -v
  muster repo rewrite --exclude /srv/secret.key --forget";

/// Rewrites snapshots.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let new_time = args.new_time.as_deref();
    let mut options = RewriteOptions {
        excludes: args.exclude.lists().parse()?,
        new_host: args.new_host.clone(),
        new_time: new_time.map(|text| time::given(text, &app.environment.zone)).transpose()?,
        snapshot_summary: args.snapshot_summary,
        forget: args.forget,
        protected: HashSet::new(),
        packs: app.pack_options(args.dry_run),
    };
    if options.is_empty() {
        return Err(Failure::usage("rewrite snapshots: nothing is to be different")
            .help("give --exclude, --new-host, --new-time or --snapshot-summary"));
    }
    if options.new_host.as_deref() == Some("") {
        return Err(Failure::usage("rewrite snapshots: a host without a name is none")
            .help("give --new-host the name that the snapshots shall have"));
    }
    let repository = app.open()?;
    let kind = if args.forget { LockKind::Exclusive } else { LockKind::Shared };
    let lock = match args.dry_run {
        true => app.lock_to_read(&repository)?,
        false => Some(app.lock(&repository, kind)?),
    };
    let snapshots = select_several(app, &repository, &args.snapshots, &args.filter)?;
    let protected = match args.forget {
        true => args.let_go.protected(&repository.snapshots()?),
        false => Protected::new(),
    };
    options.protected = protection::ids(&protected);
    let repository = app.load_index(&repository)?;
    let report = app.with_progress(Shape::Plain { items: "trees" }, || {
        rewrite(&repository, &snapshots, &options, &app.run)
    })?;
    release(lock)?;
    print(app, args, &report, &protected)
}

fn print(app: &App<'_>, args: &Args, report: &RewriteReport, protected: &Protected) -> Outcome {
    let changed = report.snapshots.iter().filter(|done| done.changed);
    match app.output.is_json() {
        true => app.output.json(&json!({
            "message_type": "summary",
            "dry_run": args.dry_run,
            "rewritten": changed.clone().map(to_json).collect::<Vec<_>>(),
            "unchanged": report.snapshots.len() - changed.count(),
            "held": immutable::held_json(&report.held),
            "protected": protection::as_json(&report.protected, protected),
            "failed": report.failed.iter().map(|(id, _)| id.to_hex()).collect::<Vec<_>>(),
        }))?,
        false => {
            for done in changed.clone() {
                print_one(app, args, done, report)?;
            }
            let changed = changed.count();
            let would = if args.dry_run { "would rewrite" } else { "rewrote" };
            let unchanged = report.snapshots.len() - changed;
            app.output.summary(format_args!(
                "{would} {}, {unchanged} unchanged",
                counted(changed, "snapshot")
            ))?;
        }
    }
    immutable::warn_of_held(app, &report.held);
    let mut exit = if report.held.is_empty() { Exit::Done } else { Exit::Partial };
    for (id, error) in &report.failed {
        let mut failure = Failure::of(error);
        failure.message = format!("rewrite snapshot {id}: {}", failure.message);
        exit = exit.and(app.output.failure(&failure));
    }
    let outcome = "they were left as they are";
    if let Some(refusal) = protection::refusal("replace", outcome, &report.protected, protected) {
        exit = exit.and(app.output.failure(&refusal));
    }
    Ok(exit)
}

fn print_one(
    app: &App<'_>,
    args: &Args,
    done: &RewrittenSnapshot,
    report: &RewriteReport,
) -> Result<(), Failure> {
    let old = done.old.short();
    let stays = report.held.iter().map(|(id, _)| id).chain(report.failed.iter().map(|(id, _)| id));
    let is_gone = args.forget && !stays.into_iter().any(|id| *id == done.old);
    let line = match (done.new, is_gone) {
        (Some(new), true) => format!("{old} is now {}", new.short()),
        (Some(new), false) => format!("{old} is rewritten as {}", new.short()),
        (None, _) => format!("{old} would be rewritten"),
    };
    app.output.summary(format_args!("{line}: {} left out", done.excluded_total))?;
    for path in &done.excluded {
        app.output.verbose(format_args!("  {}", visible(path)));
    }
    let more = done.excluded_total.saturating_sub(done.excluded.len() as u64);
    if more > 0 {
        app.output.verbose(format_args!("  and {more} more"));
    }
    Ok(())
}

fn to_json(done: &RewrittenSnapshot) -> Value {
    let shown = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
    json!({
        "old_snapshot_id": done.old,
        "new_snapshot_id": done.new,
        "excluded": done.excluded.iter().map(shown).collect::<Vec<_>>(),
        "excluded_total": done.excluded_total,
        "files": done.totals.map(|totals| totals.files),
        "bytes": done.totals.map(|totals| totals.bytes),
    })
}
