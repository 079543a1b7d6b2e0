//! `muster repo copy`

use muster_model::units::format_size;
use muster_repository::{
    copy::{CopyEvent, CopyReport, Target, copy},
    id::SnapshotId,
    lock::LockKind,
    repository::Repository,
    select,
};
use serde_json::{Value, json};

use super::{counted, release, snapshot_filter, warn_of_unused_filter};
use crate::{
    app::App,
    args::{FilterArgs, FromArgs},
    error::{Failure, Outcome},
    exit::Exit,
    progress::COPY,
    warm_up::WarmUpArgs,
};

/// Arguments of `copy`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Snapshots of the source: ids, beginnings of ids, or 'latest'; none means all
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    #[command(flatten)]
    from: FromArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    pub(super) warm_up: WarmUpArgs,
}

const EXAMPLES: &str = "Content that the target has already is not copied. The two share it only \
when the target
was made with 'init --from-repo SOURCE --copy-chunker-params'. An interrupted copy continues with \
what is stored.

Examples:
  muster repo -r /mnt/second copy --from-repo /backup/repo
  muster repo -r /mnt/second copy --from-repo /backup/repo --host web1 latest";

/// Copies snapshots.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let (named, password) = (args.from.named(), args.from.password());
    let source = app.open_at(named, password, args.from.from_key_hint.as_deref())?;
    let target = app.open()?;
    refuse_itself(&source, &target)?;
    let source_lock = app.lock_to_read(&source)?;
    let target_lock = app.lock(&target, LockKind::Shared)?;
    let selection = select::select(&source, &args.snapshots, &snapshot_filter(&args.filter))?;
    warn_of_unused_filter(app, &selection);
    let run = args.warm_up.run(app);
    let source = app.load_index_for(&source, &run)?;
    let target = Target::open(&target, &target_lock, &app.run)?;
    let options = app.pack_options(false);
    let report = app.with_progress(COPY, || {
        let mut tell = |event: CopyEvent| tell(app, &event);
        copy(&source, target, &selection.snapshots, options, &run, &mut tell)
    })?;
    release(source_lock)?;
    release(Some(target_lock))?;
    print(app, &report)
}

/// A repository that is copied into itself was named by mistake.
fn refuse_itself(source: &Repository, target: &Repository) -> Result<(), Failure> {
    let place = |repository: &Repository| {
        let location = repository.storage().location();
        std::fs::canonicalize(&location).map_or(location, |path| path.display().to_string())
    };
    if place(source) != place(target) {
        return Ok(());
    }
    let message = format!("copy {} into itself", target.storage().location());
    Err(Failure::usage(message)
        .help("name the repository to read from with --from-repo, the one to write to with -r"))
}

fn tell(app: &App<'_>, event: &CopyEvent) {
    match event {
        CopyEvent::Begun(id) => app.output.verbose(format_args!("copying {}", id.short())),
        CopyEvent::Skipped { source, target } => app.output.verbose(format_args!(
            "skipped {}: it is there as {}",
            source.short(),
            target.short()
        )),
        CopyEvent::Saved { source, target } => {
            app.output.verbose(format_args!("copied {} to {}", source.short(), target.short()))
        }
    }
}

fn print(app: &App<'_>, report: &CopyReport) -> Outcome {
    match app.output.is_json() {
        true => print_json(app, report)?,
        false => app.output.summary(format_args!(
            "copied {}, {} there already; added {} ({} stored)",
            counted(report.copied.len(), "snapshot"),
            report.skipped.len(),
            format_size(report.stats.plaintext_bytes),
            format_size(report.stats.sealed_bytes),
        ))?,
    }
    let mut exit = Exit::Done;
    for (id, error) in &report.failed {
        let mut failure = Failure::of(error);
        failure.message = format!("copy snapshot {id}: {}", failure.message);
        exit = app.output.failure(&failure);
    }
    Ok(exit)
}

fn print_json(app: &App<'_>, report: &CopyReport) -> Result<(), Failure> {
    let pairs = |pairs: &[(SnapshotId, SnapshotId)]| -> Vec<Value> {
        pairs.iter().map(|(source, target)| json!({"source": source, "target": target})).collect()
    };
    app.output.json(&json!({
        "message_type": "summary",
        "copied": pairs(&report.copied),
        "skipped": pairs(&report.skipped),
        "failed": report.failed.iter().map(|(id, _)| id.to_hex()).collect::<Vec<_>>(),
        "packs_adopted": report.adopted,
        "data_added": report.stats.plaintext_bytes,
        "data_added_packed": report.stats.sealed_bytes,
    }))
}
