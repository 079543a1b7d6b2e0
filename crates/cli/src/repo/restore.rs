//! `muster repo restore`

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use muster_model::{
    Class, Fault,
    units::{format_duration, format_size},
};
use muster_repository::{
    backup::PARTIAL_TAG,
    exclude::Patterns,
    format::snapshot::Snapshot,
    restore::{
        Choice, NotRestored, Overwrite, RestoreCounts, RestoreOptions, RestoreReport, Select,
        restore,
    },
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Opened, counted,
    filter::{ExcludeArgs, IncludeArgs},
    open_snapshot, release,
};
use crate::{
    app::App,
    args::FilterArgs,
    error::{Failure, Outcome, Problem},
    exit::Exit,
    output::{PARTIAL, local_time, visible_path},
    progress::Shape,
    warm_up::{self, WarmUpArgs},
};

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Id, beginning of an id, or 'latest'; with a folder, only what is in it
    #[arg(value_name = "SNAPSHOT[:FOLDER]")]
    snapshot: String,
    /// Folder to restore into; made when it does not exist
    #[arg(short, long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    target: PathBuf,
    /// Allow a target that is not empty, and say which of its files are replaced
    #[arg(long, value_name = "WHICH")]
    overwrite: Option<Which>,
    /// Remove from restored folders what is not in the snapshot
    #[arg(long)]
    delete: bool,
    /// Change nothing; tell what would be done
    #[arg(long)]
    dry_run: bool,
    /// Read every restored file back and compare it
    #[arg(long, conflicts_with = "dry_run")]
    verify: bool,
    /// Accepted for restic's sake: runs of zeros always become holes
    #[arg(long, hide_short_help = true)]
    sparse: bool,
    #[command(flatten)]
    include: IncludeArgs,
    #[command(flatten)]
    exclude: ExcludeArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    pub(super) warm_up: WarmUpArgs,
}

const EXAMPLES: &str = "A target that is not empty is refused without --overwrite. What lies in \
it and is not in the
snapshot stays and is listed, unless --delete is given.

Examples:
  muster repo restore latest --target /tmp/restored
  muster repo restore latest:/home/ana --target ~/back --include '*.tex'
  muster repo restore 5d21c52d --target /srv/data --overwrite if-changed --delete";

/// Which files of the target are replaced.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    /// All
    Always,
    /// Those whose size, time or content differs
    IfChanged,
    /// Those that are older than in the snapshot
    IfNewer,
    /// None; only what is missing is restored
    Never,
}

impl From<Which> for Overwrite {
    fn from(which: Which) -> Self {
        match which {
            Which::Always => Self::Always,
            Which::IfChanged => Self::IfChanged,
            Which::IfNewer => Self::IfNewer,
            Which::Never => Self::Never,
        }
    }
}

/// Restores.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let select = select(args)?;
    if args.delete && args.target == Path::new("/") && select.is_none() {
        return Err(Failure::usage("use --delete with the target / and without a pattern")
            .help("say with --include or --exclude what shall be restored and deleted"));
    }
    let run = args.warm_up.run(app);
    let opened = open_snapshot(app, &args.snapshot, &args.filter, &run)?;
    tell_what(args, app, &opened);
    let mut options = RestoreOptions::new(&args.target);
    options.select = select;
    options.overwrite = args.overwrite.map_or(Overwrite::Refuse, Overwrite::from);
    options.delete = args.delete;
    options.dry_run = args.dry_run;
    options.verify = args.verify;
    let started = Instant::now();
    let report = app.with_progress(Shape::Restore, || {
        restore(&opened.repository, opened.tree, &options, &run)
    })?;
    release(opened.lock)?;
    let nothing = nothing_chosen(args, app, &report);
    let exit = print(args, app, &report, &Circumstances::new(&opened.snapshot, started))?;
    nothing.map_or(Ok(exit), Err)
}

/// What a restore is worth whose patterns matched nothing: a slip of the pen more often than not,
/// and nothing that was asked for is there. Where `--delete` has found something to remove, the
/// patterns did match, if nothing in the snapshot.
fn nothing_chosen(args: &Args, app: &App<'_>, report: &RestoreReport) -> Option<Failure> {
    let counts = &report.counts;
    let chosen = [
        counts.files_restored,
        counts.others_restored,
        counts.folders_restored,
        counts.files_skipped,
        counts.others_skipped,
        counts.not_restored,
        counts.problems,
    ];
    let is_asked = !matches!(args.include.lists().parse().as_deref(), Ok([]) | Err(_));
    if !is_asked || chosen.iter().any(|&number| number > 0) {
        return None;
    }
    let message = "find anything in the snapshot that a pattern of --include matches";
    if args.delete && counts.extra > 0 {
        app.output.warning("nothing in the snapshot matches a pattern of --include");
        return None;
    }
    let help = "see what it holds with 'muster repo ls'; a pattern that begins with '/' must match \
                from the top of what is restored";
    Some(Failure::new(Problem::NotFound, message).help(help))
}

/// The decision about each path, when not everything is wanted.
fn select(args: &Args) -> Result<Option<Select>, Failure> {
    let include = args.include.lists().parse()?;
    let exclude = args.exclude.lists().parse()?;
    match (include.is_empty(), exclude.is_empty()) {
        (false, false) => Err(Failure::usage("use include and exclude patterns together")
            .help("a '!' before a pattern takes back what those before it matched")),
        (false, true) => Ok(Some(Arc::new(move |path, _| included(&include, path)))),
        (true, false) => Ok(Some(Arc::new(move |path, _| excluded(&exclude, path)))),
        (true, true) => Ok(None),
    }
}

fn included(patterns: &[Patterns], path: &[u8]) -> Choice {
    let none = Choice { selected: false, child_may_be_selected: false };
    patterns.iter().fold(none, |choice, patterns| {
        let (matched, child_may_match) = patterns.matches_with_child(path);
        Choice {
            selected: choice.selected || matched,
            child_may_be_selected: choice.child_may_be_selected || child_may_match,
        }
    })
}

/// As in restic, what is below a folder that is left out is not looked at.
fn excluded(patterns: &[Patterns], path: &[u8]) -> Choice {
    let selected = !patterns.iter().any(|patterns| patterns.matches(path));
    Choice { selected, child_may_be_selected: selected }
}

fn tell_what(args: &Args, app: &App<'_>, opened: &Opened) {
    app.output.message(format_args!(
        "restoring snapshot {} of {} to {}",
        opened.id.short(),
        local_time(&opened.snapshot.time, &app.environment.zone),
        visible_path(&args.target),
    ));
}

/// What belongs to the result, and the engine does not know.
struct Circumstances {
    elapsed: Duration,
    /// The snapshot itself is without something, so a complete restore of it is not all there was.
    is_partial: bool,
}

impl Circumstances {
    fn new(snapshot: &Snapshot, started: Instant) -> Self {
        let is_partial = snapshot.tags.iter().any(|tag| tag == PARTIAL_TAG);
        Self { elapsed: started.elapsed(), is_partial }
    }
}

fn print(
    args: &Args,
    app: &App<'_>,
    report: &RestoreReport,
    circumstances: &Circumstances,
) -> Outcome {
    for problem in &report.problems {
        let failure = Failure::of(problem);
        if app.output.is_json() {
            app.output.error_json(&json!({
                "message_type": "error",
                "error": {"message": failure.one_line(), "code": problem.code(), "help": failure.help},
                "during": "restore",
                "item": problem.path.to_string_lossy(),
            }));
        } else {
            app.output.warning(format_args!("cannot {}", failure.one_line()));
        }
    }
    match app.output.is_json() {
        true => app.output.json(&SummaryJson::new(args, report, circumstances))?,
        false => print_text(args, app, report, circumstances.elapsed)?,
    }
    if circumstances.is_partial {
        app.output.warning(format_args!("the snapshot is partial: {PARTIAL}"));
    }
    if report.counts.metadata_denied > 0 {
        let items = count(report.counts.metadata_denied, "item");
        app.output.warning(format_args!(
            "the owner, an attribute or the time of {items} could not be set: only root may"
        ));
    }
    if report.is_complete() {
        return Ok(Exit::Done);
    }
    let items = count(report.counts.problems, "item");
    app.output.warning(format_args!("{items} could not be restored, or not exactly"));
    tell_next_step(app, report);
    Ok(if report.found_damage() { Exit::Damaged } else { Exit::Partial })
}

/// What to do about damage, once for all that it costs. In JSON each problem has its own.
fn tell_next_step(app: &App<'_>, report: &RestoreReport) {
    let damage = report.problems.iter().find(|problem| problem.class() == Class::Corrupt);
    if let Some(help) = damage.and_then(Fault::help).filter(|_| !app.output.is_json()) {
        app.output.warning(format_args!("what to do: {help}"));
    }
}

fn count(number: u64, noun: &str) -> String {
    counted(usize::try_from(number).unwrap_or(usize::MAX), noun)
}

fn print_text(
    args: &Args,
    app: &App<'_>,
    report: &RestoreReport,
    elapsed: Duration,
) -> Result<(), Failure> {
    let counts = &report.counts;
    let output = &app.output;
    output.summary(format_args!(
        "{} {}, {}, {} ({}) in {}",
        if args.dry_run { "would restore" } else { "restored" },
        count(counts.files_restored, "file"),
        count(counts.folders_restored, "folder"),
        count(counts.others_restored, "other item"),
        format_size(counts.bytes_restored),
        format_duration(elapsed),
    ))?;
    let skipped = counts.files_skipped + counts.others_skipped;
    if skipped > 0 {
        output.summary(format_args!(
            "left as they are: {} ({})",
            count(skipped, "item"),
            format_size(counts.bytes_skipped)
        ))?;
    }
    if report.archived.packs > 0 {
        let packs = warm_up::packs(report.archived);
        output.summary(format_args!("archived: {packs}; would need --warm-up"))?;
    }
    if counts.not_restored > 0 {
        let kinds: Vec<_> = report.not_restored.iter().map(describe).collect();
        output.summary(format_args!("never restored: {}", kinds.join(", ")))?;
    }
    if counts.extra > 0 {
        let verb = match (args.delete, args.dry_run) {
            (false, _) => "kept",
            (true, true) => "would delete",
            (true, false) => "deleted",
        };
        let items = count(counts.extra, "item");
        output.summary(format_args!("{verb} {items} not in the snapshot:"))?;
        for path in &report.extra {
            output.summary(format_args!("  {}", visible_path(path)))?;
        }
    }
    Ok(())
}

fn describe(item: &NotRestored) -> String {
    format!("{} ({})", visible_path(&item.path), item.kind.as_str())
}

/// restic's summary, and what Muster adds to it.
#[derive(Serialize)]
struct SummaryJson {
    message_type: &'static str,
    seconds_elapsed: u64,
    total_files: u64,
    files_restored: u64,
    files_skipped: u64,
    files_deleted: u64,
    total_bytes: u64,
    bytes_restored: u64,
    bytes_skipped: u64,
    dry_run: bool,
    /// Whether the snapshot itself is without something.
    partial: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    archived: Option<Value>,
    problems: u64,
    metadata_denied: u64,
    /// What is not in the target: what could not be restored, and what never is.
    not_restored: Vec<String>,
    extra_count: u64,
    extra: Vec<String>,
}

impl SummaryJson {
    fn new(args: &Args, report: &RestoreReport, circumstances: &Circumstances) -> Self {
        let counts: &RestoreCounts = &report.counts;
        let restored = counts.files_restored + counts.folders_restored + counts.others_restored;
        let skipped = counts.files_skipped + counts.others_skipped;
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let never = report.not_restored.iter().map(|item| &item.path);
        let missing = report.problems.iter().filter(|problem| problem.is_missing());
        let missing = missing.map(|problem| &problem.path);
        Self {
            message_type: "summary",
            seconds_elapsed: circumstances.elapsed.as_secs(),
            total_files: restored + skipped + counts.problems,
            files_restored: restored,
            files_skipped: skipped,
            files_deleted: counts.deleted,
            total_bytes: counts.bytes_restored + counts.bytes_skipped,
            bytes_restored: counts.bytes_restored,
            bytes_skipped: counts.bytes_skipped,
            dry_run: args.dry_run,
            partial: circumstances.is_partial,
            archived: (report.archived.packs > 0)
                .then(|| json!({"packs": report.archived.packs, "bytes": report.archived.bytes})),
            problems: counts.problems,
            metadata_denied: counts.metadata_denied,
            not_restored: never.chain(missing).map(text).collect(),
            extra_count: counts.extra,
            extra: report.extra.iter().map(text).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(choice: Choice, selected: bool, child_may_be_selected: bool) {
        assert_eq!(choice, Choice { selected, child_may_be_selected });
    }

    #[test]
    fn included_is_what_any_list_matches() {
        let lists = [
            Patterns::parse(["/home/*/notes"]).unwrap(),
            Patterns::parse_ignoring_case(["/etc/hosts"]).unwrap(),
        ];
        check(included(&lists, b"/home"), false, true);
        check(included(&lists, b"/home/ana/notes"), true, true);
        check(included(&lists, b"/ETC/Hosts"), true, true);
        check(included(&lists, b"/var"), false, false);
    }

    #[test]
    fn what_is_below_an_excluded_folder_is_not_looked_at() {
        let lists = [Patterns::parse(["*.tmp"]).unwrap()];
        check(excluded(&lists, b"/a"), true, true);
        check(excluded(&lists, b"/a.tmp"), false, false);
        check(excluded(&lists, b"/a.tmp/b"), false, false);
    }
}
