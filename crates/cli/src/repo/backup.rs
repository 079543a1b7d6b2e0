//! `muster repo backup`

use std::{
    ffi::OsString,
    io::Read,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use muster_model::{
    BackupKind,
    units::{format_duration, format_size, parse_size},
};
use muster_repository::{
    backup::{
        BackupOptions, BackupReport, Filter, MarkerFile, ParentChoice, Problem as Unread,
        READERS_DEFAULT, Stream, backup, backup_stream, is_suspect,
    },
    format::{snapshot::Summary, time::Timestamp},
    repository::Repository,
    select::{self, GroupBy, SnapshotFilter},
};
use serde::Serialize;
use serde_json::json;

use super::{absolute, counted, filter::ExcludeArgs, snapshots::group_by};
use crate::{
    app::App,
    error::{Failure, Outcome, Problem},
    exit::Exit,
    lists::SourceLists,
    output::{VANISHED_SHOWN, Verbosity, visible},
    progress::{self, Shape},
    time,
};

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Files and folders
    #[arg(value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<OsString>,
    /// How to decide what is read again: incremental trusts files unchanged since the last
    /// snapshot of the same paths, differential since the last full one, full reads everything
    #[arg(long, value_name = "KIND", default_value = "incremental",
          value_parser = kind, conflicts_with = "force")]
    kind: BackupKind,
    /// Read everything again: --kind full, under restic's name
    #[arg(short, long)]
    force: bool,
    /// Compare with this snapshot instead of the last of the same host and paths
    #[arg(long, value_name = "SNAPSHOT")]
    parent: Option<String>,
    /// Look for the parent among snapshots of the same host, paths, tags
    #[arg(short, long, value_name = "BY", default_value = "host,paths", value_parser = group_by)]
    group_by: GroupBy,
    /// Tag the snapshot (repeatable)
    #[arg(long, value_name = "TAG[,TAG…]")]
    tag: Vec<String>,
    /// Record this host instead of this machine's name
    #[arg(short = 'H', long, alias = "hostname", value_name = "NAME", env = "RESTIC_HOST")]
    host: Option<String>,
    /// Record this time instead of now, for example '2026-01-31 17:45:00'
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// Stay on the file systems of the paths given
    #[arg(short = 'x', long, help_heading = "What to leave out")]
    one_file_system: bool,
    /// Leave out caches, which a file CACHEDIR.TAG marks
    #[arg(long, help_heading = "What to leave out")]
    exclude_caches: bool,
    /// Leave out folders that hold a file of this name (that begins with this header)
    #[arg(long, value_name = "NAME[:HEADER]", help_heading = "What to leave out")]
    exclude_if_present: Vec<String>,
    /// Leave out files larger than this, for example 1G
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "What to leave out")]
    exclude_larger_than: Option<u64>,
    /// Back up the paths and globs in this file, one a line; '-' is standard input
    #[arg(long, value_name = "FILE", help_heading = "Where from")]
    files_from: Vec<PathBuf>,
    /// As --files-from, but without globs and comments
    #[arg(long, value_name = "FILE", help_heading = "Where from")]
    files_from_verbatim: Vec<PathBuf>,
    /// As --files-from-verbatim, but each path ends with a zero byte
    #[arg(long, value_name = "FILE", help_heading = "Where from")]
    files_from_raw: Vec<PathBuf>,
    /// Back up standard input as one file
    #[arg(long, help_heading = "Where from",
          conflicts_with_all = ["paths", "files_from", "files_from_verbatim", "files_from_raw"])]
    stdin: bool,
    /// Name of that file in the snapshot
    #[arg(long, value_name = "PATH", default_value = "stdin", help_heading = "Where from")]
    stdin_filename: PathBuf,
    /// Run the arguments as a command and back up what it prints; when it fails, there is no
    /// snapshot
    #[arg(long, help_heading = "Where from",
          conflicts_with_all = ["stdin", "files_from", "files_from_verbatim", "files_from_raw"])]
    stdin_from_command: bool,
    /// Trust files whose inode and change time differ
    #[arg(long)]
    ignore_inode: bool,
    /// Trust files whose change time differs
    #[arg(long)]
    ignore_ctime: bool,
    /// Record access times
    #[arg(long)]
    with_atime: bool,
    /// Write nothing; tell what would be written
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Write no snapshot when nothing changed since the parent
    #[arg(long)]
    skip_if_unchanged: bool,
    /// Do not count first how much there is to do
    #[arg(long)]
    no_scan: bool,
    /// Store blobs without opening each again first; the snapshot is tagged muster:unverified-seal
    #[arg(long, alias = "no-extra-verify")]
    no_verify_seal: bool,
    /// How many files to read at the same time
    #[arg(long, value_name = "N", default_value_t = READERS_DEFAULT)]
    read_concurrency: NonZeroUsize,
    #[command(flatten)]
    exclude: ExcludeArgs,
}

const EXAMPLES: &str = "What cannot be read is left out and listed; the exit code is 5 then.

Examples:
  muster repo backup ~/documents --exclude '*.tmp' --tag laptop
  muster repo backup / --one-file-system --exclude-file /etc/backup.exclude
  muster repo backup --stdin-from-command --stdin-filename shop.sql -- pg_dump shop";

fn kind(text: &str) -> Result<BackupKind, muster_model::UnknownKind> {
    text.parse()
}

impl Args {
    fn kind(&self) -> BackupKind {
        if self.force { BackupKind::Full } else { self.kind }
    }

    fn tags(&self) -> Vec<String> {
        let lists = self.tag.iter().flat_map(|list| select::parse_tag_list(list));
        lists.filter(|tag| !tag.is_empty()).collect()
    }
}

/// Backs up.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let sources = sources(args, app)?;
    let time =
        args.time.as_deref().map(|text| time::given(text, &app.environment.zone)).transpose()?;
    let mut filter = Filter::default();
    filter.patterns = args.exclude.lists().parse()?;
    filter.markers = markers(args);
    filter.larger_than = args.exclude_larger_than;
    filter.one_file_system = args.one_file_system;
    let repository = app.open()?;
    app.heed_signals()?;
    let parent = parent(args, app, &repository, &sources)?;
    let mut options = BackupOptions::new(sources);
    options.filter = filter;
    options.excludes = args.exclude.as_written();
    options.kind = args.kind();
    options.parent = parent;
    options.tags = args.tags();
    options.hostname = args.host.clone();
    options.time = time;
    options.ignore_ctime = args.ignore_ctime;
    options.ignore_inode = args.ignore_inode;
    options.with_atime = args.with_atime;
    options.packs = app.pack_options(args.dry_run);
    options.packs.verify_seal = !args.no_verify_seal;
    options.skip_if_unchanged = args.skip_if_unchanged;
    options.count_first = !args.no_scan && progress::is_shown(app.output, Shape::Backup);
    options.readers = args.read_concurrency;
    options.retry_lock = app.settings.retry_lock.unwrap_or_default();
    let report = app.with_progress(Shape::Backup, || -> Result<_, Failure> {
        let (environment, run) = (&app.environment, &app.run);
        Ok(match stream(args)? {
            None => backup(&repository, options, environment, run)?,
            Some(stream) => backup_stream(&repository, options, stream, environment, run)?,
        })
    })?;
    print(args, app, &report)
}

/// What to back up; nothing for a stream.
fn sources(args: &Args, app: &App<'_>) -> Result<Vec<PathBuf>, Failure> {
    if args.stdin {
        return Ok(Vec::new());
    }
    if args.stdin_from_command {
        return match args.paths.is_empty() {
            true => Err(Failure::usage("back up a command's output: no command was given")
                .help("write it after '--': --stdin-from-command -- pg_dump shop")),
            false => Ok(Vec::new()),
        };
    }
    let lists = SourceLists {
        globs: &args.files_from,
        lines: &args.files_from_verbatim,
        raw: &args.files_from_raw,
    };
    let mut sources = lists.read(|glob| {
        app.output.warning(format_args!("'{glob}' matches no file; left out"));
    })?;
    sources.extend(args.paths.iter().map(PathBuf::from));
    match sources.is_empty() {
        true => Err(Failure::usage("back up nothing")
            .help("name files or folders, or use --files-from or --stdin")),
        false => Ok(sources),
    }
}

fn markers(args: &Args) -> Vec<MarkerFile> {
    let given = args.exclude_if_present.iter().map(|text| {
        let (name, header) = text.split_once(':').unwrap_or((text, ""));
        MarkerFile { name: name.as_bytes().to_vec(), header: header.as_bytes().to_vec() }
    });
    args.exclude_caches.then(MarkerFile::cache).into_iter().chain(given).collect()
}

/// The library finds parents by host and paths; other groupings are looked up here.
fn parent(
    args: &Args,
    app: &App<'_>,
    repository: &Repository,
    sources: &[PathBuf],
) -> Result<ParentChoice, Failure> {
    if let Some(text) = &args.parent {
        let (id, _) = select::resolve(repository, text, &SnapshotFilter::default())?;
        return Ok(ParentChoice::Snapshot(id));
    }
    let by = args.group_by;
    if by == GroupBy::default() || args.kind() == BackupKind::Full {
        return Ok(ParentChoice::Latest);
    }
    let hostname = args.host.as_ref().unwrap_or(&app.environment.hostname);
    let filter = SnapshotFilter {
        hosts: if by.hosts { vec![hostname.clone()] } else { Vec::new() },
        tags: if by.tags { vec![args.tags()] } else { Vec::new() },
        paths: match by.paths {
            true => sources.iter().map(|path| absolute(path)).collect(),
            false => Vec::new(),
        },
    };
    let mut snapshots = repository.snapshots()?;
    if args.kind() == BackupKind::Differential {
        snapshots.retain(|(_, snapshot)| {
            BackupKind::from_tags(&snapshot.tags) == Some(BackupKind::Full)
        });
    }
    let found = select::find_latest(&snapshots, &filter);
    Ok(found.map_or(ParentChoice::Nothing, |(id, _)| ParentChoice::Snapshot(*id)))
}

/// The stream to back up, if it is one.
fn stream(args: &Args) -> Result<Option<Stream>, Failure> {
    let path = Path::new("/").join(&args.stdin_filename);
    if args.stdin {
        let content: Box<dyn Read + Send> = Box::new(std::io::stdin());
        return Ok(Some(Stream { path, content, finish: Box::new(|| Ok(())) }));
    }
    if !args.stdin_from_command {
        return Ok(None);
    }
    let Some((program, arguments)) = args.paths.split_first() else { return Ok(None) };
    let shown = program.to_string_lossy().into_owned();
    let failure = || Failure::new(Problem::SourceCommand, format!("start the command '{shown}'"));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failure().caused_by(&error))?;
    let content = child.stdout.take().ok_or_else(failure)?;
    let finish = move || match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the command '{shown}' failed ({status})")),
        Err(error) => Err(format!("the command '{shown}' cannot be waited for: {error}")),
    };
    Ok(Some(Stream { path, content: Box::new(content), finish: Box::new(finish) }))
}

fn print(args: &Args, app: &App<'_>, report: &BackupReport) -> Outcome {
    let losses = report.losses.iter().map(|loss| &loss.message);
    for notice in report.notices.iter().chain(losses) {
        app.output.warning(notice);
    }
    for signal in &report.signals {
        app.output.warning(signal);
    }
    if is_suspect(&report.signals) {
        app.output.warning("this snapshot looks wrong; it is kept, with the tag muster:suspect");
    }
    let shown = match app.output.is_json() || app.output.verbosity() >= Verbosity::Verbose {
        true => usize::MAX,
        false => VANISHED_SHOWN,
    };
    let (named, more) = named(&report.problems, shown);
    named.into_iter().for_each(|unread| print_unread(app, unread));
    if more > 0 {
        let items = counted(more, "more item");
        app.output.warning(format_args!("{items} vanished meanwhile; -v and --json name all"));
    }
    match app.output.is_json() {
        true => app.output.json(&SummaryJson::new(args, report))?,
        false => print_text(args, app, report)?,
    }
    if report.problems.is_empty() {
        return Ok(Exit::Done);
    }
    let items = counted(report.problems.len(), "item");
    app.output.warning(format_args!("{items} could not be read; the snapshot is without them"));
    Ok(Exit::Partial)
}

/// What could not be read: all, but of what vanished only the first `shown`, and how many more that
/// are. A busy folder of temporary files loses thousands between the look and the read.
fn named(problems: &[Unread], shown: usize) -> (Vec<&Unread>, usize) {
    let mut vanished = 0;
    let named = problems.iter().filter(|unread| {
        vanished += usize::from(unread.has_vanished());
        !unread.has_vanished() || vanished <= shown
    });
    let named: Vec<&Unread> = named.collect();
    (named, vanished.saturating_sub(shown))
}

fn print_unread(app: &App<'_>, unread: &Unread) {
    let Unread { path, operation, error } = unread;
    if app.output.is_json() {
        return app.output.error_json(&json!({
            "message_type": "error",
            "error": {"message": format!("{operation}: {error}")},
            "during": "archival",
            "item": String::from_utf8_lossy(path),
        }));
    }
    app.output.warning(format_args!("cannot {operation} {}: {error}", visible(path)));
}

fn print_text(args: &Args, app: &App<'_>, report: &BackupReport) -> Result<(), Failure> {
    if let Some(parent) = report.snapshot.parent {
        app.output.message(format_args!("compared with snapshot {}", parent.short()));
    }
    if report.packs_adopted > 0 {
        let packs = counted(report.packs_adopted, "pack");
        app.output.message(format_args!("put to use {packs} of an interrupted backup"));
    }
    let output = &app.output;
    let Some(summary) = &report.snapshot.summary else { return Ok(()) };
    output.summary(format_args!(
        "Files: {:>8} new, {:>8} changed, {:>8} unmodified",
        summary.files_new, summary.files_changed, summary.files_unmodified
    ))?;
    output.summary(format_args!(
        "Dirs:  {:>8} new, {:>8} changed, {:>8} unmodified",
        summary.dirs_new, summary.dirs_changed, summary.dirs_unmodified
    ))?;
    output.summary(format_args!(
        "{} to the repository: {} ({} stored)",
        if args.dry_run { "Would add" } else { "Added" },
        format_size(summary.data_added),
        format_size(summary.data_added_packed),
    ))?;
    output.summary(format_args!(
        "\nprocessed {}, {} in {}",
        counted(usize::try_from(summary.total_files_processed).unwrap_or(usize::MAX), "file"),
        format_size(summary.total_bytes_processed),
        format_duration(report.duration),
    ))?;
    match report.id {
        Some(id) => output.summary(format_args!("snapshot {} saved", id.short())),
        None if args.dry_run => Ok(()),
        None => output.summary("nothing changed: no snapshot saved"),
    }
}

/// restic's summary.
#[derive(Serialize)]
struct SummaryJson {
    message_type: &'static str,
    files_new: u64,
    files_changed: u64,
    files_unmodified: u64,
    dirs_new: u64,
    dirs_changed: u64,
    dirs_unmodified: u64,
    data_blobs: u64,
    tree_blobs: u64,
    data_added: u64,
    data_added_packed: u64,
    total_files_processed: u64,
    total_bytes_processed: u64,
    total_duration: f64,
    backup_start: Option<Timestamp>,
    backup_end: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_id: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    /// Muster's own: how many items could not be read.
    unreadable: usize,
    /// Muster's own: what looks wrong, as stable names.
    signals: Vec<&'static str>,
}

impl SummaryJson {
    fn new(args: &Args, report: &BackupReport) -> Self {
        let summary = report.snapshot.summary.as_ref();
        let count = |field: fn(&Summary) -> u64| summary.map_or(0, field);
        Self {
            message_type: "summary",
            files_new: count(|summary| summary.files_new),
            files_changed: count(|summary| summary.files_changed),
            files_unmodified: count(|summary| summary.files_unmodified),
            dirs_new: count(|summary| summary.dirs_new),
            dirs_changed: count(|summary| summary.dirs_changed),
            dirs_unmodified: count(|summary| summary.dirs_unmodified),
            data_blobs: count(|summary| summary.data_blobs),
            tree_blobs: count(|summary| summary.tree_blobs),
            data_added: count(|summary| summary.data_added),
            data_added_packed: count(|summary| summary.data_added_packed),
            total_files_processed: count(|summary| summary.total_files_processed),
            total_bytes_processed: count(|summary| summary.total_bytes_processed),
            total_duration: report.duration.as_secs_f64(),
            backup_start: summary.map(|summary| summary.backup_start),
            backup_end: summary.map(|summary| summary.backup_end),
            snapshot_id: report.id.map(|id| id.to_hex()),
            dry_run: args.dry_run,
            unreadable: report.problems.len(),
            signals: report.signals.iter().map(|signal| signal.name()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn of_what_vanished_the_first_are_named_and_of_all_else_everything() {
        let unread = |n: u8| {
            let kind =
                if n.is_multiple_of(2) { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
            Unread { path: vec![b'/', n], operation: "open", error: kind.into() }
        };
        let problems: Vec<Unread> = (0..20).map(unread).collect();
        let check = |shown: usize, names: usize, more: usize| {
            let (named, left) = named(&problems, shown);
            assert_eq!((named.len(), left), (names, more), "{shown}");
        };
        check(3, 13, 7);
        check(10, 20, 0);
        check(usize::MAX, 20, 0);
    }
}
