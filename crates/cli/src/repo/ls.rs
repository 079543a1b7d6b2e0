//! `muster repo ls`

use std::{cmp::Ordering, ffi::OsString, os::unix::ffi::OsStrExt};

use clap::ValueEnum;
use muster_repository::{
    format::tree::{Node, NodeKind},
    tree_walk::{Entry, Step, TreeWalk, components},
};
use serde::Serialize;

use super::{
    Opened,
    ncdu::Ncdu,
    nodes::{NodeJson, Style, write_line},
    open_snapshot, release,
    snapshots::WithId,
};
use crate::{
    app::App,
    args::FilterArgs,
    error::{Failure, Outcome},
    exit::Exit,
    output::{Results, local_time},
};

/// Arguments of `ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Id, beginning of an id, or 'latest'; with a folder, paths are shown below it
    #[arg(value_name = "SNAPSHOT[:FOLDER]")]
    snapshot: String,
    /// List only these absolute folders and what is directly in them
    #[arg(value_name = "FOLDER")]
    folders: Vec<OsString>,
    /// Show mode, owner, group, size and time
    #[arg(short, long)]
    long: bool,
    /// With folders: list all below them
    #[arg(long)]
    recursive: bool,
    /// Show sizes with units
    #[arg(long)]
    human_readable: bool,
    /// Write the format that 'ncdu -f -' reads
    #[arg(long, conflicts_with_all = ["json", "sort", "reverse"])]
    ncdu: bool,
    /// Sort by this instead of by folder
    #[arg(short, long, value_name = "BY")]
    sort: Option<Sort>,
    /// Sort the other way round
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "Examples:
  muster repo ls latest
  muster repo ls -l --human-readable 5d21c52d /home/ana
  muster repo ls latest:/home --sort size --reverse | head";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    Name,
    Size,
    #[value(alias = "time")]
    Mtime,
    Atime,
    Ctime,
    Extension,
}

/// The first line of restic's JSON.
#[derive(Serialize)]
struct SnapshotLine<'a> {
    #[serde(flatten)]
    snapshot: WithId<'a>,
    message_type: &'static str,
    struct_type: &'static str,
}

/// Lists a snapshot.
pub(crate) fn run(args: &Args, app: &App) -> Outcome {
    if let Some(relative) = args.folders.iter().find(|folder| !folder.as_bytes().starts_with(b"/"))
    {
        let shown = relative.to_string_lossy();
        return Err(Failure::usage(format!("list '{shown}': it is no absolute path"))
            .help("write folders as 'ls' shows them, with a leading '/'"));
    }
    let opened = open_snapshot(app, &args.snapshot, &args.filter)?;
    let mut listing = Listing::new(args, app, &opened)?;
    let exit = walk(args, app, &opened, &mut listing)?;
    listing.finish(args)?;
    release(opened.lock)?;
    Ok(exit)
}

fn walk(
    args: &Args,
    app: &App,
    opened: &Opened,
    listing: &mut Listing<'_>,
) -> Result<Exit, Failure> {
    let folders: Vec<_> = args.folders.iter().map(|folder| components(folder.as_bytes())).collect();
    let mut exit = Exit::Done;
    let mut walk = TreeWalk::new(&opened.repository, opened.tree, b"")?;
    while let Some(step) = walk.next() {
        app.run.cancel.check()?;
        match step {
            Step::Entry(entry) => {
                let scope = Scope::of(&folders, &components(&entry.path), args.recursive);
                if entry.node.kind == NodeKind::Dir && !scope.enter {
                    walk.skip_folder();
                }
                if scope.show {
                    listing.entry(entry)?;
                } else if scope.enter {
                    listing.on_the_way(&entry)?;
                }
            }
            Step::Unreadable { path, error, .. } => {
                exit = app.output.item_failure(&path, &Failure::from(error));
            }
            Step::Left { path } => {
                let scope = Scope::of(&folders, &components(&path), args.recursive);
                listing.left(scope.show || scope.enter)?;
            }
        }
    }
    Ok(exit)
}

/// What to do with an entry.
#[derive(Debug, PartialEq, Eq)]
struct Scope {
    /// It is listed.
    show: bool,
    /// If it is a folder, it is walked into.
    enter: bool,
}

impl Scope {
    /// restic's rule: an entry is shown in or below a wanted folder, and folders are entered on
    /// the way there; below, only when recursive.
    fn of(folders: &[Vec<&[u8]>], path: &[&[u8]], recursive: bool) -> Self {
        let within = folders.iter().any(|folder| path.starts_with(folder));
        let towards = folders.iter().any(|folder| folder.starts_with(path));
        let all = folders.is_empty();
        Self { show: all || within, enter: all || towards || within && recursive }
    }
}

/// Where the entries go.
struct Listing<'a> {
    results: Results,
    form: Form<'a>,
    /// Entries that wait to be sorted, when that was asked for.
    waiting: Option<Vec<Entry>>,
}

enum Form<'a> {
    Json,
    Text(Style<'a>),
    Ncdu(Ncdu),
}

impl<'a> Listing<'a> {
    fn new(args: &Args, app: &'a App, opened: &Opened) -> Result<Self, Failure> {
        let (id, snapshot) = (opened.id, &opened.snapshot);
        let mut results = app.output.results();
        let form = if app.output.is_json() {
            results.json(&SnapshotLine {
                snapshot: WithId::new(id, snapshot),
                message_type: "snapshot",
                struct_type: "snapshot",
            })?;
            Form::Json
        } else if args.ncdu {
            Form::Ncdu(Ncdu::begin(&mut results, snapshot)?)
        } else {
            let time = local_time(&snapshot.time, &app.environment.zone);
            app.output.message(format_args!(
                "snapshot {} of {} at {time} by {}@{}:",
                id.short(),
                snapshot.paths.join(", "),
                snapshot.username,
                snapshot.hostname,
            ));
            Form::Text(Style {
                long: args.long,
                human: args.human_readable,
                zone: &app.environment.zone,
            })
        };
        let sorts = args.sort.is_some_and(|sort| sort != Sort::Name) || args.reverse;
        Ok(Self { results, form, waiting: sorts.then(Vec::new) })
    }

    fn entry(&mut self, entry: Entry) -> Result<(), Failure> {
        match &mut self.waiting {
            Some(waiting) => {
                waiting.push(entry);
                Ok(())
            }
            None => self.write(&entry),
        }
    }

    fn write(&mut self, entry: &Entry) -> Result<(), Failure> {
        let Entry { path, node, .. } = entry;
        match &mut self.form {
            Form::Json => self.results.json(&NodeJson::new(path, node)),
            Form::Text(style) => write_line(&mut self.results, path, node, *style),
            Form::Ncdu(ncdu) => ncdu.entry(&mut self.results, node),
        }
    }

    /// ncdu wants the folders that lead to what is listed, too.
    fn on_the_way(&mut self, entry: &Entry) -> Result<(), Failure> {
        match &mut self.form {
            Form::Ncdu(ncdu) if entry.node.kind == NodeKind::Dir => {
                ncdu.entry(&mut self.results, &entry.node)
            }
            _ => Ok(()),
        }
    }

    fn left(&mut self, was_listed: bool) -> Result<(), Failure> {
        match &mut self.form {
            Form::Ncdu(ncdu) if was_listed => ncdu.left(&mut self.results),
            _ => Ok(()),
        }
    }

    fn finish(mut self, args: &Args) -> Result<(), Failure> {
        let mut waiting = self.waiting.take().unwrap_or_default();
        if let Some(sort) = args.sort.filter(|sort| *sort != Sort::Name) {
            waiting.sort_by(|a, b| compare(sort, a, b));
        }
        if args.reverse {
            waiting.reverse();
        }
        for entry in &waiting {
            self.write(entry)?;
        }
        if let Form::Ncdu(ncdu) = self.form {
            ncdu.end(&mut self.results)?;
        }
        self.results.finish()
    }
}

fn compare(sort: Sort, a: &Entry, b: &Entry) -> Ordering {
    fn size(node: &Node) -> u64 {
        if node.kind == NodeKind::File { node.size } else { 0 }
    }
    let order = match sort {
        Sort::Name => Ordering::Equal,
        Sort::Size => size(&a.node).cmp(&size(&b.node)),
        Sort::Mtime => a.node.mtime.cmp(&b.node.mtime),
        Sort::Atime => a.node.atime.cmp(&b.node.atime),
        Sort::Ctime => a.node.ctime.cmp(&b.node.ctime),
        Sort::Extension => extension(&a.node.name).cmp(extension(&b.node.name)),
    };
    order.then_with(|| a.path.cmp(&b.path))
}

/// From the last dot on, as Go sees it; nothing when there is none.
fn extension(name: &[u8]) -> &[u8] {
    name.iter().rposition(|byte| *byte == b'.').map_or(b"", |dot| &name[dot..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_limit_what_is_listed() {
        let check = |folders: &[&str], path: &str, recursive, show, enter| {
            let folders: Vec<_> =
                folders.iter().map(|folder| components(folder.as_bytes())).collect();
            let scope = Scope::of(&folders, &components(path.as_bytes()), recursive);
            assert_eq!(scope, Scope { show, enter }, "{path} in {folders:?}");
        };
        check(&[], "/a", false, true, true);
        check(&["/a/b"], "/a", false, false, true);
        check(&["/a/b"], "/a/b", false, true, true);
        check(&["/a/b"], "/a/b/c", false, true, false);
        check(&["/a/b"], "/a/b/c", true, true, true);
        check(&["/a/b"], "/a/bc", false, false, false);
        check(&["/a/b", "/c"], "/c/d", false, true, false);
        check(&["/"], "/a", false, true, false);
    }

    #[test]
    fn extensions_begin_at_the_last_dot() {
        assert_eq!(extension(b"a.tar.gz"), b".gz");
        assert_eq!(extension(b"README"), b"");
        assert_eq!(extension(b".hidden"), b".hidden");
    }
}
