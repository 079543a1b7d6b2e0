//! `muster repo find`

use std::{ffi::OsString, os::unix::ffi::OsStrExt};

use muster_repository::{
    exclude::Patterns,
    find::{FindEntries, FindObjects, FindOptions, FindStep, FoundNode, FoundObject, ObjectQuery},
    format::{pack::BlobKind, snapshot::Snapshot, time::Timestamp},
    id::SnapshotId,
    repository::{IndexedRepository, ReadError},
    select::IdPrefix,
    storage::File,
};

use super::{
    counted,
    nodes::{Style, write_line},
    release, select_several,
};
use crate::{
    app::App,
    args::FilterArgs,
    error::{Failure, Outcome},
    exit::Exit,
    output::{Results, local_time},
    time,
};

/// Arguments of `find`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Patterns of paths, or ids with --blob, --tree, --pack
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<OsString>,
    /// Capital and small letters are the same
    #[arg(short, long)]
    ignore_case: bool,
    /// Leave out what changed before this time
    #[arg(short = 'O', long, value_name = "TIME")]
    oldest: Option<String>,
    /// Leave out what changed after this time
    #[arg(short = 'N', long, value_name = "TIME")]
    newest: Option<String>,
    /// Search this snapshot only (repeatable)
    #[arg(short, long = "snapshot", value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Search the oldest snapshot first
    #[arg(short = 'R', long)]
    reverse: bool,
    /// Show mode, owner, group, size and time
    #[arg(short, long)]
    long: bool,
    /// Show sizes with units
    #[arg(long)]
    human_readable: bool,
    /// The patterns are ids of blobs
    #[arg(long, conflicts_with_all = ["tree", "pack"])]
    blob: bool,
    /// The patterns are ids of trees
    #[arg(long, conflicts_with = "pack")]
    tree: bool,
    /// The patterns are ids of packs: find what uses their blobs
    #[arg(long)]
    pack: bool,
    /// Show which packs hold the blobs or trees
    #[arg(long)]
    show_pack_id: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "Patterns are those of --exclude: '*' stays within a name, '**' does not.

Examples:
  muster repo find '*.tex' --newest '2026-01-31'
  muster repo find -l report.pdf --host laptop
  muster repo find --pack 81acd414";

type Found = (SnapshotId, Snapshot);

/// Searches.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let oldest = given_time(args.oldest.as_deref(), app)?;
    let newest = given_time(args.newest.as_deref(), app)?;
    let by_id = args.blob || args.tree || args.pack;
    let patterns = if by_id { Patterns::default() } else { patterns(args)? };
    let prefixes = if by_id { prefixes(args)? } else { Vec::new() };
    let repository = app.open()?;
    let lock = app.lock_to_read(&repository)?;
    let mut snapshots = select_several(app, &repository, &args.snapshots, &args.filter)?;
    snapshots.sort_by_key(|(id, snapshot)| (snapshot.time, *id));
    if !args.reverse {
        snapshots.reverse();
    }
    let repository = app.load_index(&repository)?;
    let exit = if by_id {
        let query = query(args, &repository, &prefixes)?;
        find_objects(args, app, &repository, &snapshots, &query)?
    } else {
        let matches = |path: &[u8]| patterns.matches(path);
        let may_match_below = |path: &[u8]| patterns.matches_with_child(path).1;
        let options =
            FindOptions { matches: &matches, may_match_below: &may_match_below, oldest, newest };
        find_entries(args, app, &repository, &snapshots, options)?
    };
    release(lock)?;
    Ok(exit)
}

fn given_time(text: Option<&str>, app: &App<'_>) -> Result<Option<Timestamp>, Failure> {
    text.map(|text| time::given(text, &app.environment.zone)).transpose()
}

fn patterns(args: &Args) -> Result<Patterns, Failure> {
    let patterns = args.patterns.iter().map(|pattern| pattern.as_os_str().as_bytes());
    let parsed = match args.ignore_case {
        true => Patterns::parse_ignoring_case(patterns),
        false => Patterns::parse(patterns),
    };
    parsed.map_err(|error| {
        Failure::usage(format!("understand the pattern {}", error.patterns.join(", ")))
    })
}

fn prefixes(args: &Args) -> Result<Vec<IdPrefix>, Failure> {
    let prefixes = args.patterns.iter().map(|text| text.to_string_lossy().parse::<IdPrefix>());
    Ok(prefixes.collect::<Result<_, _>>()?)
}

fn query(
    args: &Args,
    repository: &IndexedRepository,
    prefixes: &[IdPrefix],
) -> Result<ObjectQuery, Failure> {
    Ok(match (args.pack, args.tree) {
        (true, _) => ObjectQuery::of_packs(repository, prefixes)?,
        (false, true) => ObjectQuery::of(BlobKind::Tree, prefixes),
        (false, false) => ObjectQuery::of(BlobKind::Data, prefixes),
    })
}

/// Tells of a folder that could not be searched.
fn unreadable(app: &App<'_>, path: &[u8], error: ReadError) -> Exit {
    app.output.item_failure(path, &Failure::from(error))
}

fn find_entries(
    args: &Args,
    app: &App<'_>,
    repository: &IndexedRepository,
    snapshots: &[Found],
    options: FindOptions<'_>,
) -> Outcome {
    let mut exit = Exit::Done;
    let mut results = app.output.results();
    let mut json = JsonMatches::default();
    let style = Style { long: args.long, human: args.human_readable, zone: &app.environment.zone };
    let mut searched = 0;
    let mut total: u64 = 0;
    for (id, snapshot) in snapshots {
        let mut hits: u64 = 0;
        for step in FindEntries::new(repository, snapshot.tree, options)? {
            app.run.cancel.check()?;
            match step {
                FindStep::Unreadable { path, error, .. } => exit = unreadable(app, &path, error),
                FindStep::Found(entry) if app.output.is_json() => {
                    json.add(&mut results, hits, &FoundNode::from(&entry))?;
                    hits += 1;
                }
                FindStep::Found(entry) => {
                    if hits == 0 && !app.output.is_quiet() {
                        print_title(&mut results, app, *id, snapshot, searched > 0)?;
                        searched += 1;
                    }
                    hits += 1;
                    write_line(&mut results, &entry, style)?;
                }
            }
        }
        json.end_snapshot(&mut results, hits, *id)?;
        total += hits;
    }
    if app.output.is_json() {
        json.end(&mut results)?;
    }
    results.finish()?;
    tell_if_nothing(app, total, snapshots.len());
    Ok(exit)
}

/// Silence could as well mean that nothing was searched.
fn tell_if_nothing(app: &App<'_>, hits: u64, snapshots: usize) {
    if hits == 0 {
        app.output.message(format_args!("found nothing in {}", counted(snapshots, "snapshot")));
    }
}

fn print_title(
    results: &mut Results,
    app: &App<'_>,
    id: SnapshotId,
    snapshot: &Snapshot,
    blank_line: bool,
) -> Result<(), Failure> {
    let time = local_time(&snapshot.time, &app.environment.zone);
    let blank = if blank_line { "\n" } else { "" };
    results
        .line(format_args!("{blank}Found matching entries in snapshot {} from {time}", id.short()))
}

/// restic's array: an object for each snapshot with matches, written as they come.
#[derive(Default)]
struct JsonMatches {
    snapshots: u64,
}

impl JsonMatches {
    fn add(
        &mut self,
        results: &mut Results,
        hits_before: u64,
        found: &FoundNode<'_>,
    ) -> Result<(), Failure> {
        let opening = match (hits_before, self.snapshots) {
            (0, 0) => "[{\"matches\":[",
            (0, _) => ",{\"matches\":[",
            _ => ",",
        };
        results.text(opening)?;
        results.json_value(found)
    }

    fn end_snapshot(
        &mut self,
        results: &mut Results,
        hits: u64,
        id: SnapshotId,
    ) -> Result<(), Failure> {
        // Without JSON the opening was never written.
        if hits == 0 || !results.is_json() {
            return Ok(());
        }
        self.snapshots += 1;
        results.text(format_args!("],\"hits\":{hits},\"snapshot\":\"{id}\"}}"))
    }

    fn end(&self, results: &mut Results) -> Result<(), Failure> {
        results.line(if self.snapshots == 0 { "[]" } else { "]" })
    }
}

fn find_objects(
    args: &Args,
    app: &App<'_>,
    repository: &IndexedRepository,
    snapshots: &[Found],
    query: &ObjectQuery,
) -> Outcome {
    let mut exit = Exit::Done;
    let mut results = app.output.results();
    let mut hits: u64 = 0;
    for found in snapshots {
        for step in FindObjects::new(repository, found, query)? {
            app.run.cancel.check()?;
            match step {
                FindStep::Unreadable { path, error, .. } => exit = unreadable(app, &path, error),
                FindStep::Found(object) => {
                    if app.output.is_json() {
                        results.text(if hits == 0 { "[" } else { "," })?;
                        results.json_value(&object)?;
                    } else {
                        print_object(&mut results, args, app, repository, &object)?;
                    }
                    hits += 1;
                }
            }
        }
    }
    if app.output.is_json() {
        results.line(if hits == 0 { "[]" } else { "]" })?;
    }
    results.finish()?;
    tell_if_nothing(app, hits, snapshots.len());
    Ok(exit)
}

fn print_object(
    results: &mut Results,
    args: &Args,
    app: &App<'_>,
    repository: &IndexedRepository,
    object: &FoundObject,
) -> Result<(), Failure> {
    let FoundObject { object_type, id, path, parent_tree, snapshot, time } = object;
    results.line(format_args!("Found {object_type} {id}"))?;
    match parent_tree {
        Some(tree) => {
            results.name_line(" ... in file ", path, "", b"")?;
            results.line(format_args!("     (tree {tree})"))?;
        }
        None => results.name_line(" ... path ", path, "", b"")?,
    }
    let time = local_time(time, &app.environment.zone);
    results.line(format_args!(" ... in snapshot {} ({time})", snapshot.short()))?;
    if args.show_pack_id {
        let kind = if parent_tree.is_some() { BlobKind::Data } else { BlobKind::Tree };
        for location in repository.index().find_all(kind, *id) {
            results.line(format_args!(" ... in {}", File::Pack(location.pack)))?;
        }
    }
    Ok(())
}
