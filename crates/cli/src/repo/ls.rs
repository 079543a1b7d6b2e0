//! `muster repo ls`

use std::{ffi::OsString, os::unix::ffi::OsStrExt};

use muster_repository::{
    ls::{Ls, LsNode, LsOptions, LsSort, LsStep},
    tree_walk::Entry,
};
use serde::Serialize;

use super::{
    Opened,
    ncdu::Ncdu,
    nodes::{Style, write_line},
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
    /// Sort by name, size, mtime (or time), atime, ctime or extension
    #[arg(short, long, value_name = "BY", default_value = "name", value_parser = sort)]
    sort: LsSort,
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

fn sort(text: &str) -> Result<LsSort, String> {
    text.parse()
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
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    if let Some(relative) = args.folders.iter().find(|folder| !folder.as_bytes().starts_with(b"/"))
    {
        let shown = relative.to_string_lossy();
        return Err(Failure::usage(format!("list '{shown}': it is no absolute path"))
            .help("write folders as 'ls' shows them, with a leading '/'"));
    }
    let opened = open_snapshot(app, &args.snapshot, &args.filter, &app.run)?;
    let options = LsOptions {
        folders: args.folders.iter().map(|folder| folder.as_bytes().to_vec()).collect(),
        recursive: args.recursive,
    };
    let mut listing = Listing::new(args, app, &opened)?;
    let mut exit = Exit::Done;
    for step in Ls::new(&opened.repository, opened.tree, &options)? {
        app.run.cancel.check()?;
        match step {
            LsStep::Listed(entry) => listing.entry(entry)?,
            LsStep::OnTheWay(entry) => listing.on_the_way(&entry)?,
            LsStep::Left { .. } => listing.left()?,
            LsStep::Unreadable { path, error } => {
                exit = app.output.item_failure(&path, &Failure::from(error));
            }
        }
    }
    listing.finish(args)?;
    release(opened.lock)?;
    Ok(exit)
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
        let sorts = args.sort != LsSort::Name || args.reverse;
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
        match &mut self.form {
            Form::Json => self.results.json(&LsNode::from(entry)),
            Form::Text(style) => write_line(&mut self.results, entry, *style),
            Form::Ncdu(ncdu) => ncdu.entry(&mut self.results, &entry.node),
        }
    }

    /// ncdu wants the folders that lead to what is listed, too.
    fn on_the_way(&mut self, entry: &Entry) -> Result<(), Failure> {
        match &mut self.form {
            Form::Ncdu(ncdu) => ncdu.entry(&mut self.results, &entry.node),
            _ => Ok(()),
        }
    }

    fn left(&mut self) -> Result<(), Failure> {
        match &mut self.form {
            Form::Ncdu(ncdu) => ncdu.left(&mut self.results),
            _ => Ok(()),
        }
    }

    fn finish(mut self, args: &Args) -> Result<(), Failure> {
        let mut waiting = self.waiting.take().unwrap_or_default();
        waiting.sort_by(|a, b| args.sort.compare(a, b));
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
