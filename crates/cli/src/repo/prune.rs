//! `muster repo prune`

use std::time::Duration;

use muster_model::units::{format_duration, format_size, parse_duration, parse_size};
use muster_repository::{
    id::SnapshotId,
    prune::{Amount, KEEP_DELETE_DEFAULT, Limit, PruneOptions, PruneReport, prune},
    repository::Repository,
};
use serde_json::{Value, json};

use super::counted;
use crate::{
    app::App,
    error::{Failure, Outcome},
    exit::Exit,
    progress::Shape,
    warm_up::WarmUpArgs,
};

/// Arguments of `prune`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only tell what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    pub(super) how: How,
}

/// How to prune; `forget --prune` takes the same.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "How to prune")]
pub(super) struct How {
    /// How much waste may stay in packs that are still needed: a percentage of the repository, a
    /// size, or 'unlimited'
    #[arg(long, value_name = "LIMIT", default_value = "5%", value_parser = limit)]
    max_unused: Limit,
    /// Read and repack at most this much
    #[arg(long, visible_alias = "max-repack-size", value_name = "SIZE", value_parser = size)]
    max_repack: Option<u64>,
    /// Repack only packs of folders, which are small and read often
    #[arg(long)]
    repack_cacheable_only: bool,
    /// Join small packs
    #[arg(long)]
    repack_small: bool,
    /// How long what was taken out of use stays before it is deleted: 23h unless given
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    keep_delete: Option<Duration>,
    /// Do all at once, alone in the repository and without a grace period
    #[arg(long, conflicts_with = "keep_delete")]
    instant: bool,
    #[command(flatten)]
    pub(super) warm_up: WarmUpArgs,
}

const EXAMPLES: &str = "Packs that no snapshot needs are marked, and deleted by the first prune \
that comes when the grace
period is over. Backups run meanwhile, but for the moment in which the index is written.

Where packs of data are written to an archive they are not repacked, unless --warm-up brings them
back first; what nothing needs is deleted all the same.

Examples:
  muster repo prune --dry-run
  muster repo prune --retry-lock 30m
  muster repo prune --max-repack 10G      # a bit every night";

fn limit(text: &str) -> Result<Limit, String> {
    text.parse::<Limit>().map_err(|error| error.to_string())
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| error.to_string())
}

/// Prunes the repository.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    perform(app, &repository, &args.how, args.dry_run, Vec::new())
}

/// Prunes, and tells what was done; a dry run takes some snapshots for removed.
pub(super) fn perform(
    app: &App<'_>,
    repository: &Repository,
    how: &How,
    dry_run: bool,
    as_if_removed: Vec<SnapshotId>,
) -> Outcome {
    if app.settings.no_lock && !dry_run {
        return Err(
            Failure::usage("prune without a lock").help("--no-lock goes with --dry-run only")
        );
    }
    app.heed_signals()?;
    let options = PruneOptions {
        max_unused: how.max_unused,
        max_repack_bytes: how.max_repack,
        repack_cacheable_only: how.repack_cacheable_only,
        repack_small: how.repack_small,
        keep_delete: how.keep_delete.unwrap_or(KEEP_DELETE_DEFAULT),
        instant: how.instant,
        dry_run,
        no_lock: app.settings.no_lock,
        as_if_removed,
        packs: app.pack_options(false),
        retry_lock: app.settings.retry_lock.unwrap_or_default(),
        now: None,
    };
    let report = app.with_progress(Shape::Plain { items: "packs" }, || {
        prune(repository, &options, &app.environment, &how.warm_up.run(app))
    })?;
    match app.output.is_json() {
        true => app.output.json(&as_json(&report, dry_run))?,
        false => print(app, &report, &options)?,
    }
    let mut exit = Exit::Done;
    for (pack, error) in &report.damaged {
        let mut failure = Failure::of(error);
        failure.message = format!("repack pack {pack}: {}", failure.message);
        failure.help = Some(
            "the pack stays as it is; see what is affected with 'muster repo check --read-data'"
                .to_owned(),
        );
        exit = app.output.failure(&failure);
    }
    Ok(exit)
}

fn print(app: &App<'_>, report: &PruneReport, options: &PruneOptions) -> Result<(), Failure> {
    let packs = |amount: Amount| {
        let number = usize::try_from(amount.packs).unwrap_or(usize::MAX);
        format!("{} ({})", counted(number, "pack"), format_size(amount.bytes))
    };
    let would = if options.dry_run { "would have " } else { "" };
    app.output.summary(format_args!(
        "snapshots need {}; {} is not needed",
        format_size(report.used_bytes),
        format_size(report.unused_bytes)
    ))?;
    if report.recovered.packs > 0 {
        app.output.summary(format_args!(
            "{would}put back {}: snapshots need them again",
            packs(report.recovered)
        ))?;
    }
    if report.repacked.packs > 0 {
        let into = match options.dry_run {
            true => String::new(),
            false => format!(" into {}", format_size(report.repacked_into_bytes)),
        };
        app.output.summary(format_args!("{would}repacked {}{into}", packs(report.repacked)))?;
    }
    if report.marked.packs > 0 && report.waiting.packs > 0 {
        app.output.summary(format_args!(
            "{would}marked {}: a prune deletes them when {} have passed",
            packs(report.marked),
            format_duration(options.keep_delete)
        ))?;
    }
    app.output.summary(format_args!(
        "{would}deleted {}; {} wait for their deletion",
        packs(report.deleted),
        packs(report.waiting)
    ))?;
    if report.held.packs > 0 {
        app.output.summary(format_args!(
            "{} of those are immutable in the store for now, and stay",
            packs(report.held)
        ))?;
    }
    if report.waste_left_bytes > 0 {
        app.output.summary(format_args!(
            "{} not needed stay in packs that are",
            format_size(report.waste_left_bytes)
        ))?;
    }
    Ok(())
}

fn as_json(report: &PruneReport, dry_run: bool) -> Value {
    let amount = |amount: Amount| json!({"packs": amount.packs, "bytes": amount.bytes});
    json!({
        "message_type": "summary",
        "dry_run": dry_run,
        "used_bytes": report.used_bytes,
        "unused_bytes": report.unused_bytes,
        "remaining_unused_bytes": report.waste_left_bytes,
        "repacked": amount(report.repacked),
        "repacked_into_bytes": report.repacked_into_bytes,
        "marked": amount(report.marked),
        "unindexed": amount(report.unindexed),
        "recovered": amount(report.recovered),
        "deleted": amount(report.deleted),
        "waiting": amount(report.waiting),
        "held": amount(report.held),
        "damaged": report.damaged.iter().map(|(pack, _)| pack.to_hex()).collect::<Vec<_>>(),
    })
}
