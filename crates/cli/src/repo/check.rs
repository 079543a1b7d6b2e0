//! `muster repo check`

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use muster_model::units::{format_size, parse_duration};
use muster_repository::{
    check::{CheckOptions, CheckReport, Damage, ReadData, Rota, Verified, check_in_turn},
    id::SnapshotId,
    immutable::Held,
    lock::{Lock, LockError, LockKind},
    prune::Amount,
    repository::Repository,
};

use serde_json::Value;

use super::{
    counted,
    immutable::{self, Sample},
    release,
};
use crate::{
    app::App,
    cache,
    error::{Failure, Outcome},
    exit::Exit,
    output::visible,
    progress::Shape,
    warm_up::{self, WarmUpArgs},
};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Read all data back, too
    #[arg(long, conflicts_with = "read_data_subset")]
    read_data: bool,
    /// Read a part of the data back: n/t (part n of t), a percentage, or a size
    #[arg(long, value_name = "PART", value_parser = subset)]
    read_data_subset: Option<ReadData>,
    /// Read back in turn: only packs that were not found sound for so long (30d), the longest
    /// unseen first
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// Read back in turn, and begin no more packs after so long (10m)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "warm_up")]
    budget: Option<Duration>,
    /// Tell of each snapshot, too, whether all that it needs is immutable, and until when: every
    /// file is asked for; the exit code is 5 when something is not held
    #[arg(long)]
    immutable: bool,
    /// Accepted for restic's sake: there is no cache
    #[arg(long, hide_short_help = true)]
    with_cache: bool,
    #[command(flatten)]
    pub(super) warm_up: WarmUpArgs,
}

const EXAMPLES: &str = "The exit code is 3 when anything is damaged. Backups may run meanwhile.

Examples:
  muster repo check
  muster repo check --read-data
  muster repo check --read-data-subset 2/7     # the second of seven nights
  muster repo check --read-data --older-than 30d --budget 10m

With --older-than or --budget data is read back in turn: first what has waited longest, since it was
read back or, never read, since a check first saw it. The record of that is kept in the cache folder of this user.";

/// How many affected files are listed for each damage without -v.
const FILES_SHOWN: usize = 5;

fn subset(text: &str) -> Result<ReadData, muster_repository::check::UnknownSubset> {
    text.parse()
}

/// Checks the repository.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let lock = lock(app, &repository)?;
    let in_turn = args.older_than.is_some() || args.budget.is_some();
    let read_data = match args.read_data {
        true => ReadData::All,
        false if in_turn => args.read_data_subset.unwrap_or(ReadData::All),
        false => args.read_data_subset.unwrap_or_default(),
    };
    let record = record(app, &repository);
    let rota = match in_turn {
        true => Some(rota(args, app, record.as_deref())?),
        false => None,
    };
    let shape = Shape::Plain { items: if read_data == ReadData::No { "trees" } else { "packs" } };
    let options = CheckOptions { read_data };
    let run = args.warm_up.run(app);
    let report =
        app.with_progress(shape, || check_in_turn(&repository, &options, rota.as_ref(), &run))?;
    let held = match args.immutable {
        true => Some(held(app, &repository)?),
        false => None,
    };
    let sample = match args.immutable {
        true => None,
        false => immutable::sample(app, &repository),
    };
    release(lock)?;
    if let Some(record) = &record {
        let before = rota.map(|rota| rota.verified).unwrap_or_default();
        note(app, record, &before, &report);
    }
    match app.output.is_json() {
        true => app.output.json(&json(&report, held.as_deref(), sample.as_ref()))?,
        false => {
            print(app, &report)?;
            sample.iter().try_for_each(|sample| immutable::print_sample(app, sample))?;
            held.iter().flatten().try_for_each(|held| immutable::print(app, held))?;
        }
    }
    let is_held = held.iter().flatten().all(|held| held.until.is_some());
    let is_done = is_held && report.counts.packs_archived == 0;
    Ok(match (report.is_clean(), is_done) {
        (true, true) => Exit::Done,
        (true, false) => Exit::Partial,
        (false, _) => Exit::Damaged,
    })
}

/// How all snapshots are held.
fn held(app: &App<'_>, repository: &Repository) -> Result<Vec<Held>, Failure> {
    let ids = repository.snapshot_ids()?;
    app.with_progress(Shape::Plain { items: "files" }, || {
        immutable::look(app, repository, &ids, app.environment.now())
    })
}

fn json(report: &CheckReport, held: Option<&[Held]>, sample: Option<&Sample>) -> Value {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    if let (Some(sample), Some(fields)) = (sample, value.as_object_mut()) {
        let found = serde_json::json!({"looked_at": sample.looked_at, "held": sample.held.len()});
        fields.insert("immutable_sample".to_owned(), found);
    }
    if let (Some(held), Some(fields)) = (held, value.as_object_mut()) {
        let held = held.iter().map(immutable::as_json).collect();
        fields.insert("immutable".to_owned(), Value::Array(held));
    }
    value
}

/// The file that tells what was verified when.
fn record(app: &App<'_>, repository: &Repository) -> Option<PathBuf> {
    if app.settings.no_cache {
        return None;
    }
    let folder = cache::folder(app.settings.cache_dir.as_ref(), &repository.config().id)?;
    Some(folder.join("verified"))
}

fn rota(args: &Args, app: &App<'_>, record: Option<&Path>) -> Result<Rota, Failure> {
    let Some(record) = record else {
        return Err(Failure::usage(
            "read back in turn: without a cache folder nobody knows the turn",
        )
        .help("leave out --no-cache, or name a folder with --cache-dir"));
    };
    let verified = Verified::read(record).unwrap_or_else(|error| {
        let record = record.display();
        app.output.warning(format_args!("everything is due: cannot read {record}: {error}"));
        Verified::default()
    });
    let older_than = args.older_than.unwrap_or_default();
    Ok(Rota { verified, older_than, budget: args.budget, now: now() })
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Notes what was found sound, and what was not: that is due again.
fn note(app: &App<'_>, record: &Path, before: &Verified, report: &CheckReport) {
    let told = Verified::of(report, before, now());
    if told == Verified::default() {
        return;
    }
    if let Err(error) = told.write(record, |_| true) {
        let record = record.display();
        app.output.warning(format_args!("cannot note in {record} what was verified: {error}"));
    }
}

/// A lock that is damaged must not keep the check from telling about it.
fn lock(app: &App<'_>, repository: &Repository) -> Result<Option<Lock>, Failure> {
    app.heed_signals()?;
    if app.settings.no_lock {
        return Ok(None);
    }
    match app.acquire(repository, LockKind::Shared) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if matches!(*error, LockError::Unreadable { .. }) => {
            app.output.warning(format_args!("checking without a lock: cannot {error}"));
            Ok(None)
        }
        Err(error) => Err(Failure::of(error.as_ref())),
    }
}

fn print(app: &App<'_>, report: &CheckReport) -> Result<(), Failure> {
    for damage in &report.damages {
        print_damage(app, damage)?;
    }
    for hint in &report.hints {
        app.output.line(format_args!("note: {hint}"))?;
    }
    let counts = &report.counts;
    let count = |number: u64, noun: &str| counted(usize::try_from(number).unwrap_or(0), noun);
    app.output.summary(format_args!(
        "checked {}, {}, {}, {}, {}",
        count(counts.snapshots, "snapshot"),
        count(counts.trees, "tree"),
        count(counts.packs, "pack"),
        count(counts.blobs, "blob"),
        match counts.packs_read {
            0 => "read no data back".to_owned(),
            read =>
                format!("read back {} ({})", count(read, "pack"), format_size(counts.bytes_read)),
        }
    ))?;
    if counts.packs_due > 0 {
        let (due, bytes) = (count(counts.packs_due, "pack"), format_size(counts.bytes_due));
        app.output.summary(format_args!("still due: {due} ({bytes}); run it again to go on"))?;
    }
    let archived = Amount { packs: counts.packs_archived, bytes: counts.bytes_archived };
    warm_up::left_out(archived, counts.trees_archived)
        .iter()
        .try_for_each(|line| app.output.line(line))?;
    if report.is_clean() {
        return app.output.summary("no damage found");
    }
    let damages = counted(report.damages.len(), "damage");
    let affected = report.affected_snapshots();
    app.output.line(match affected.len() {
        0 => format!("{damages} found; no snapshot loses anything by it"),
        number => format!("{damages} found; {} affected", counted(number, "snapshot")),
    })
}

fn print_damage(app: &App<'_>, damage: &Damage) -> Result<(), Failure> {
    app.output.line(format_args!("{damage}"))?;
    if !damage.snapshots.is_empty() {
        let ids: Vec<_> = damage.snapshots.iter().map(SnapshotId::short).collect();
        app.output.line(format_args!("  snapshots: {}", ids.join(", ")))?;
    }
    if damage.files_total > 0 {
        let shown = damage.files.iter().take(FILES_SHOWN);
        let mut files: Vec<_> = shown.map(|path| visible(path.as_bytes())).collect();
        let more = damage.files_total.saturating_sub(files.len() as u64);
        files.extend((more > 0).then(|| format!("and {more} more")));
        app.output.line(format_args!("  files: {}", files.join(", ")))?;
    }
    app.output.line(format_args!("  help: {}", damage.help()))
}
