//! `muster repo stats`

use muster_model::units::format_size;
use muster_repository::stats::{Stats, StatsCounter, StatsMode};

use super::{release, select_several};
use crate::{
    app::App,
    args::FilterArgs,
    error::{Failure, Outcome},
    exit::Exit,
    progress::Shape,
};

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Ids, beginnings of ids, or 'latest'; none means all
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// What to count: restore-size, files-by-contents, blobs-per-file, raw-data
    #[arg(long, value_name = "MODE", default_value = "restore-size", value_parser = mode)]
    mode: StatsMode,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "Modes:
  restore-size       the files when restored
  files-by-contents  files, those of equal content once
  blobs-per-file     the pieces that files refer to, each once a file
  raw-data           the pieces as they are stored, each once; tells the compression

Examples:
  muster repo stats latest
  muster repo stats --mode raw-data";

fn mode(text: &str) -> Result<StatsMode, String> {
    text.parse()
}

/// Counts.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let lock = app.lock_to_read(&repository)?;
    let snapshots = select_several(app, &repository, &args.snapshots, &args.filter)?;
    let repository = app.load_index(&repository)?;
    let mut counter = StatsCounter::new(&repository, args.mode);
    app.with_progress(Shape::Plain { items: "entries" }, || {
        snapshots.iter().try_for_each(|(_, snapshot)| counter.add(snapshot, &app.run))
    })?;
    let report = counter.finish();
    release(lock)?;
    match app.output.is_json() {
        true => app.output.json(&report.stats)?,
        false => print(app, args.mode, &report.stats)?,
    }
    let mut exit = Exit::Done;
    for (_, error) in report.unreadable {
        exit = app.output.failure(&Failure::from(error));
    }
    if report.missing_blobs > 0 {
        let blobs = report.missing_blobs;
        app.output
            .warning(format_args!("no index lists {blobs} of the blobs; they are not counted"));
        exit = Exit::Damaged;
    }
    Ok(exit)
}

fn print(app: &App<'_>, mode: StatsMode, stats: &Stats) -> Result<(), Failure> {
    let line = |what: &str, value: String| app.output.line(format_args!("{what:>25}  {value}"));
    app.output.line(format_args!("Stats in {mode} mode:"))?;
    line("Snapshots processed:", stats.snapshots_count.to_string())?;
    if stats.total_blob_count > 0 {
        line("Total Blob Count:", stats.total_blob_count.to_string())?;
    }
    if stats.total_file_count > 0 {
        line("Total File Count:", stats.total_file_count.to_string())?;
    }
    if stats.total_uncompressed_size > 0 {
        line("Total Uncompressed Size:", format_size(stats.total_uncompressed_size))?;
    }
    line("Total Size:", format_size(stats.total_size))?;
    if stats.compression_progress > 0.0 {
        line("Compression Progress:", format!("{:.2}%", stats.compression_progress))?;
    }
    if stats.compression_ratio > 0.0 {
        line("Compression Ratio:", format!("{:.2}x", stats.compression_ratio))?;
    }
    if stats.compression_space_saving > 0.0 {
        line("Compression Space Saving:", format!("{:.2}%", stats.compression_space_saving))?;
    }
    Ok(())
}
