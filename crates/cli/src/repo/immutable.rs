//! `muster repo immutable`

use std::time::Duration;

use muster_model::units::{agree, format_size, parse_duration};
use muster_repository::{
    format::time::Timestamp,
    id::SnapshotId,
    immutable::{self, Held, HeldSnapshots, HoldReport, Lack, Survey},
    repository::Repository,
    storage::{Holding, Retention},
};
use serde_json::{Value, json};

use super::{counted, release, select_several};
use crate::{
    app::App,
    args::FilterArgs,
    error::{Failure, Outcome},
    exit::Exit,
    output::Verbosity,
    progress::Shape,
};

/// Arguments of `immutable`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Snapshots: ids, beginnings of ids, or 'latest'; none means all that the filter lets through
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Hold all that they need for so long from now on (30d); nothing is ever shortened
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    time: Option<Duration>,
    /// Only tell what would be held
    #[arg(short = 'n', long, requires = "time")]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str =
    "Without --for it tells how each snapshot is held, as the store says: every \
file is asked for.
A bucket of S3 with Object Lock can hold files; -o s3.object-lock-mode=governance lets those with
a special permission end a hold. The exit code is 5 when something is not held as it should be.

Examples:
  muster repo immutable
  muster repo immutable --for 30d --tag nightly --dry-run
  muster repo immutable --for 30d latest";

/// How many files that are not held are named for each snapshot without -v.
const FILES_SHOWN: usize = 3;

/// Holds snapshots, or tells how they are held.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let lock = app.lock_to_read(&repository)?;
    let snapshots = select_several(app, &repository, &args.snapshots, &args.filter)?;
    let ids: Vec<SnapshotId> = snapshots.into_iter().map(|(id, _)| id).collect();
    let now = app.environment.now();
    let until = args.time.map(|time| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Timestamp::new(now.seconds().saturating_add(seconds), 0, 0)
    });
    let exit = app.with_progress(Shape::Plain { items: "files" }, || match until {
        None => show(app, &repository, &ids, now),
        Some(until) if args.dry_run => propose(app, &repository, &ids, until, now),
        Some(until) => {
            let report = immutable::hold_snapshots(&repository, &ids, until, &app.run)?;
            tell(app, &report)
        }
    })?;
    release(lock)?;
    Ok(exit)
}

fn show(app: &App<'_>, repository: &Repository, ids: &[SnapshotId], now: Timestamp) -> Outcome {
    let held = look(app, repository, ids, now)?;
    match app.output.is_json() {
        true => app.output.json(&json!({
            "message_type": "summary",
            "snapshots": held.iter().map(as_json).collect::<Vec<_>>(),
        }))?,
        false => held.iter().try_for_each(|held| print(app, held))?,
    }
    Ok(exit_of(held.iter().all(|held| held.until.is_some())))
}

/// What the store says of some snapshots' own files.
pub(super) struct Sample {
    pub(super) looked_at: usize,
    pub(super) held: HeldSnapshots,
}

/// How many snapshots are looked at when nobody asked for it.
const SAMPLED: usize = 4;

/// Looks at some snapshots where the store can hold files; nothing is told where it cannot, or does
/// not tell: nobody asked. Costs a question, which most stores answer by themselves, a listing, and
/// a question for each of the few.
pub(super) fn sample(app: &App<'_>, repository: &Repository) -> Option<Sample> {
    if repository.storage().holding().ok()? == Holding::Never {
        return None;
    }
    let mut ids = repository.snapshot_ids().ok()?;
    ids.truncate(SAMPLED);
    let held = immutable::held_snapshots(repository, &ids, &app.run).ok()?;
    (!held.is_empty()).then_some(Sample { looked_at: ids.len(), held })
}

pub(super) fn print_sample(app: &App<'_>, sample: &Sample) -> Result<(), Failure> {
    app.output.line(format_args!(
        "note: {} of {} looked at are immutable; --immutable tells of all, and of what they need",
        sample.held.len(),
        counted(sample.looked_at, "snapshot")
    ))
}

/// Tells of snapshots that were to go or to change, and stay as they are.
pub(super) fn warn_of_held(app: &App<'_>, held: &HeldSnapshots) {
    for (id, retention) in held {
        let until = retention
            .until
            .map_or_else(|| "somebody releases it".to_owned(), |until| until.to_string());
        app.output.warning(format_args!(
            "{} stays: it is immutable in the store until {until}",
            id.short()
        ));
    }
}

/// The same as JSON.
pub(super) fn held_json(held: &HeldSnapshots) -> Vec<Value> {
    let one = |(id, retention): &(SnapshotId, Retention)| json!({"snapshot_id": id, "immutable_until": retention.until});
    held.iter().map(one).collect()
}

/// How snapshots are held; each file that they need is asked for.
pub(super) fn look(
    app: &App<'_>,
    repository: &Repository,
    ids: &[SnapshotId],
    now: Timestamp,
) -> Result<Vec<Held>, Failure> {
    let survey: Survey = immutable::survey(repository, ids, &app.run)?;
    let states = immutable::look(repository, &survey, &app.run)?;
    Ok(immutable::judge(&survey, &states, now))
}

fn propose(
    app: &App<'_>,
    repository: &Repository,
    ids: &[SnapshotId],
    until: Timestamp,
    now: Timestamp,
) -> Outcome {
    let survey = immutable::survey(repository, ids, &app.run)?;
    let states = immutable::look(repository, &survey, &app.run)?;
    let proposal = immutable::propose(&survey, &states, until, now);
    let files = proposal.extend.len() + proposal.seal.len();
    match app.output.is_json() {
        true => app.output.json(&json!({
            "message_type": "summary",
            "dry_run": true,
            "until": until,
            "would_extend": files,
            "would_extend_bytes": proposal.bytes,
            "snapshots": immutable::judge(&survey, &states, now).iter().map(as_json)
                .collect::<Vec<_>>(),
        }))?,
        false => app.output.summary(format_args!(
            "would hold {} ({} of packs) until {until}, of {} that {} {}",
            counted(files, "file"),
            format_size(proposal.bytes),
            survey.files.len(),
            counted(ids.len(), "snapshot"),
            agree(ids.len(), "needs", "need")
        ))?,
    }
    Ok(Exit::Done)
}

fn tell(app: &App<'_>, report: &HoldReport) -> Outcome {
    match app.output.is_json() {
        true => app.output.json(&json!({
            "message_type": "summary",
            "dry_run": false,
            "until": report.until,
            "extended": report.extended,
            "snapshots": report.snapshots.iter().map(as_json).collect::<Vec<_>>(),
        }))?,
        false => {
            report.snapshots.iter().try_for_each(|held| print(app, held))?;
            app.output.summary(format_args!(
                "extended the hold of {} until {}",
                counted(report.extended, "file"),
                report.until
            ))?;
        }
    }
    Ok(exit_of(report.lacking().next().is_none()))
}

fn exit_of(is_whole: bool) -> Exit {
    if is_whole { Exit::Done } else { Exit::Partial }
}

/// One snapshot, as JSON.
pub(super) fn as_json(held: &Held) -> Value {
    let lacking = |(file, lack): &(_, Lack)| {
        let file: &muster_repository::storage::File = file;
        json!({"file": file.to_string(), "why": why(lack)})
    };
    json!({
        "snapshot_id": held.snapshot,
        "packs": held.packs,
        "files": held.files,
        "immutable_until": held.until,
        "mode": held.mode.map(|mode| mode.to_string()),
        "lacking": held.lacking.iter().map(lacking).collect::<Vec<_>>(),
    })
}

fn why(lack: &Lack) -> &str {
    match lack {
        Lack::Free => "not held",
        Lack::Missing => "missing",
        Lack::Altered => "altered",
        Lack::Unknown(why) => why,
    }
}

/// One snapshot, for people.
pub(super) fn print(app: &App<'_>, held: &Held) -> Result<(), Failure> {
    let (id, packs) = (held.snapshot.short(), counted(held.packs, "pack"));
    if let (Some(until), Some(mode)) = (held.until, held.mode) {
        let files = counted(held.files, "file");
        return app.output.summary(format_args!(
            "{id}: immutable until {until} ({mode}): {packs}, {files} in all"
        ));
    }
    let is_verbose = app.output.verbosity() == Verbosity::Verbose;
    let shown = if is_verbose { usize::MAX } else { FILES_SHOWN };
    let mut names: Vec<String> = Vec::new();
    for (file, lack) in held.lacking.iter().take(shown) {
        names.push(format!("{file} ({})", why(lack)));
    }
    if held.lacking.len() > shown {
        names.push(format!("{} more", held.lacking.len() - shown));
    }
    app.output.summary(format_args!(
        "{id}: not immutable: of {}, {packs} among them, {} {} not held: {}",
        counted(held.files, "file"),
        held.lacking.len(),
        agree(held.lacking.len(), "is", "are"),
        names.join(", ")
    ))
}
