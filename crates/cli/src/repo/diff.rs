//! `muster repo diff`

use muster_model::units::format_size;
use muster_repository::{
    diff::{Change, DiffOptions, DiffReport, DiffStep, diff},
    id::BlobId,
    repository::{IndexedRepository, Repository},
    select::{self, SnapshotFilter},
    tree_walk::find_subtree,
};

use super::release;
use crate::{
    app::App,
    error::{Failure, Outcome},
    exit::Exit,
    output::Results,
};

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The snapshot, or a folder in one, to compare from
    #[arg(value_name = "SNAPSHOT[:FOLDER]")]
    source: String,
    /// The snapshot, or a folder in one, to compare to
    #[arg(value_name = "SNAPSHOT[:FOLDER]")]
    target: String,
    /// Show entries of which only metadata changed
    #[arg(long)]
    metadata: bool,
}

const EXAMPLES: &str = "The letters: + added, - removed, M content changed, T type changed, \
U metadata changed,
? content changed and metadata did not (the disk may be failing).

Examples:
  muster repo diff latest~1 latest
  muster repo diff --metadata 5d21c52d:/home 83de1445:/home";

/// Compares two snapshots.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let lock = app.lock_to_read(&repository)?;
    let source = resolve(&repository, &args.source)?;
    let target = resolve(&repository, &args.target)?;
    app.output.message(format_args!("comparing {} to {}:", source.name, target.name));
    let repository = app.load_index(&repository)?;
    let (source, target) = (source.tree(&repository)?, target.tree(&repository)?);
    let mut results = app.output.results();
    let mut exit = Exit::Done;
    let options = DiffOptions { metadata: args.metadata };
    let report = diff(&repository, source, target, options, &app.run, |step| match step {
        DiffStep::Change(change) => print_change(&mut results, app, &change),
        DiffStep::Unreadable { path, error, .. } => {
            exit = app.output.item_failure(path, &Failure::from(error));
            Ok(())
        }
    })?;
    match app.output.is_json() {
        true => results.json(&report.statistics(&args.source, &args.target))?,
        false => print_report(&mut results, &report)?,
    }
    results.finish()?;
    if report.missing_blobs > 0 {
        let blobs = report.missing_blobs;
        app.output.warning(format_args!("no index lists {blobs} of the blobs that differ"));
        exit = Exit::Damaged;
    }
    release(lock)?;
    Ok(exit)
}

/// A snapshot, and perhaps a folder in it.
struct Side<'a> {
    name: String,
    root: BlobId,
    folder: Option<&'a str>,
}

fn resolve<'a>(repository: &Repository, text: &'a str) -> Result<Side<'a>, Failure> {
    let (snapshot, folder) = select::split_subfolder(text);
    let (id, snapshot) = select::resolve(repository, snapshot, &SnapshotFilter::default())?;
    let name = match folder {
        None => format!("snapshot {}", id.short()),
        Some(folder) => format!("{folder} of snapshot {}", id.short()),
    };
    Ok(Side { name, root: snapshot.tree, folder })
}

impl Side<'_> {
    fn tree(&self, repository: &IndexedRepository) -> Result<BlobId, Failure> {
        let Some(folder) = self.folder else { return Ok(self.root) };
        Ok(find_subtree(&mut repository.blob_reader()?, self.root, folder.as_bytes())?)
    }
}

fn print_change(results: &mut Results, app: &App<'_>, change: &Change<'_>) -> Result<(), Failure> {
    if app.output.is_quiet() {
        return Ok(());
    }
    match results.is_json() {
        true => results.json(change),
        false => results.name_line(&format!("{:<5}", change.modifier()), change.path(), "", b""),
    }
}

fn print_report(results: &mut Results, report: &DiffReport) -> Result<(), Failure> {
    let DiffReport { added, removed, changed_files, .. } = report;
    results.line(format_args!(
        "\nFiles:       {:>5} new, {:>5} removed, {changed_files:>5} changed",
        added.files, removed.files
    ))?;
    let counts = [
        ("Dirs:", added.dirs, removed.dirs),
        ("Others:", added.others, removed.others),
        ("Data Blobs:", added.data_blobs, removed.data_blobs),
        ("Tree Blobs:", added.tree_blobs, removed.tree_blobs),
    ];
    for (what, added, removed) in counts {
        results.line(format_args!("{what:<12} {added:>5} new, {removed:>5} removed"))?;
    }
    results.line(format_args!("  Added:   {}", format_size(added.bytes)))?;
    results.line(format_args!("  Removed: {}", format_size(removed.bytes)))
}
