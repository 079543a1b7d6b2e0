//! `muster repo`: the repository alone, in the manner of restic.
//!
//! One module a verb. Each has its arguments and a `run` that opens the repository, calls the
//! library, prints, and chooses the exit code.

mod backup;
mod check;
mod copy;
mod diff;
mod dump;
mod filter;
mod find;
mod forget;
mod immutable;
mod init;
mod key;
mod ls;
mod migrate;
mod mount;
mod ncdu;
mod nodes;
mod protection;
mod prune;
mod repair;
mod restore;
mod rewrite;
mod snapshots;
mod stats;
mod tag;
mod unlock;

use std::path::Path;

use clap::Subcommand;
pub(crate) use muster_model::units::counted;
use muster_repository::{
    format::snapshot::Snapshot,
    id::{BlobId, SnapshotId},
    lock::Lock,
    repository::{IndexedRepository, Repository},
    run::Run,
    select::{self, Glance, Selection, SnapshotFilter},
    tree_walk::find_subtree,
};

use crate::{
    app::App,
    args::{FilterArgs, RepositoryArgs},
    error::{Failure, Outcome},
    output::Output,
    warm_up::WarmUpArgs,
    workspace::NoPlanArgs,
};

/// Arguments of `muster repo`.
#[derive(Debug, clap::Args)]
#[command(disable_help_subcommand = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Which repository, how to open it.
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    _no_plan: NoPlanArgs,
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "Examples:
  export MUSTER_REPOSITORY=/backup/repo MUSTER_PASSWORD_FILE=~/.backup-password
  muster repo init
  muster repo backup ~/documents
  muster repo snapshots
  muster repo restore latest --target /tmp/restored

The repository's format is restic's: restic reads what Muster writes, and the other way round.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a new repository
    Init(init::Args),
    /// Back up files and folders
    Backup(backup::Args),
    /// List snapshots
    Snapshots(snapshots::Args),
    /// List what is in a snapshot
    Ls(ls::Args),
    /// Find files in snapshots, or what uses a blob, tree or pack
    Find(find::Args),
    /// Compare two snapshots
    Diff(diff::Args),
    /// Write a file, or a folder as an archive, to standard output
    Dump(dump::Args),
    /// Bring files back
    Restore(restore::Args),
    /// Show snapshots as folders, until Ctrl-C
    Mount(mount::Args),
    /// Look for damage
    Check(check::Args),
    /// Copy snapshots from another repository into this one
    Copy(copy::Args),
    /// Remove snapshots: by a policy, or by id
    Forget(Box<forget::Args>),
    /// Free the space of what no snapshot needs
    Prune(prune::Args),
    /// Hold snapshots so that nobody can destroy them, or tell how they are held
    Immutable(immutable::Args),
    /// Count what snapshots hold
    Stats(stats::Args),
    /// Change the tags of snapshots
    Tag(tag::Args),
    /// Write snapshots anew without some files, or under another host or time
    Rewrite(rewrite::Args),
    /// Mend a damaged repository with what is left in it
    #[command(subcommand)]
    Repair(repair::Verb),
    /// Bring a repository to a newer version of the format
    Migrate(migrate::Args),
    /// Manage the passwords that open the repository
    #[command(subcommand, after_help = key::EXAMPLES)]
    Key(key::Verb),
    /// Remove locks that dead processes left behind
    Unlock(unlock::Args),
}

impl Verb {
    /// The flags that let archived files come back, where a verb has them.
    fn warm_up(&self) -> Option<&WarmUpArgs> {
        match self {
            Self::Dump(args) => Some(&args.warm_up),
            Self::Restore(args) => Some(&args.warm_up),
            Self::Check(args) => Some(&args.warm_up),
            Self::Copy(args) => Some(&args.warm_up),
            Self::Prune(args) => Some(&args.how.warm_up),
            Self::Forget(args) => Some(&args.how.warm_up),
            Self::Key(key::Verb::Rotate(args)) => Some(&args.warm_up),
            _ => None,
        }
    }
}

/// Runs a verb.
pub(crate) fn run(args: Args, output: &Output) -> Outcome {
    let app = &App::new(output, args.repository, args.verb.warm_up());
    match args.verb {
        Verb::Init(args) => init::run(&args, app),
        Verb::Backup(args) => backup::run(&args, app),
        Verb::Snapshots(args) => snapshots::run(&args, app),
        Verb::Ls(args) => ls::run(&args, app),
        Verb::Find(args) => find::run(&args, app),
        Verb::Diff(args) => diff::run(&args, app),
        Verb::Dump(args) => dump::run(&args, app),
        Verb::Restore(args) => restore::run(&args, app),
        Verb::Mount(args) => mount::run(&args, app),
        Verb::Check(args) => check::run(&args, app),
        Verb::Copy(args) => copy::run(&args, app),
        Verb::Forget(args) => forget::run(&args, app),
        Verb::Prune(args) => prune::run(&args, app),
        Verb::Immutable(args) => immutable::run(&args, app),
        Verb::Stats(args) => stats::run(&args, app),
        Verb::Tag(args) => tag::run(&args, app),
        Verb::Rewrite(args) => rewrite::run(&args, app),
        Verb::Repair(verb) => repair::run(&verb, app),
        Verb::Migrate(args) => migrate::run(&args, app),
        Verb::Key(verb) => key::run(&verb, app),
        Verb::Unlock(args) => unlock::run(&args, app),
    }
}

/// Releases a lock, and tells when that fails.
fn release(lock: Option<Lock>) -> Result<(), Failure> {
    lock.map_or(Ok(()), |lock| Ok(lock.release()?))
}

/// The filter that the arguments stand for.
fn snapshot_filter(args: &FilterArgs) -> SnapshotFilter {
    SnapshotFilter {
        hosts: args.host.iter().filter(|host| !host.is_empty()).cloned().collect(),
        tags: args.tag.iter().map(|list| select::parse_tag_list(list)).collect(),
        paths: args.path.iter().map(|path| absolute(path)).collect(),
    }
}

/// A path as snapshots record it.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

/// The snapshots that a command is about: those named, or all that the filter lets through.
fn select_several(
    app: &App<'_>,
    repository: &Repository,
    texts: &[String],
    args: &FilterArgs,
) -> Result<Vec<(SnapshotId, Snapshot)>, Failure> {
    let selection = select::select(repository, texts, &snapshot_filter(args))?;
    warn_of_unused_filter(app, &selection);
    Ok(selection.snapshots)
}

fn warn_of_unused_filter(app: &App<'_>, selection: &Selection) {
    if selection.filter_unused {
        app.output.warning("--host, --tag and --path have no say when snapshots are named");
    }
}

/// A snapshot, or a folder in one, ready to be read.
struct Opened {
    repository: IndexedRepository,
    lock: Option<Lock>,
    id: SnapshotId,
    snapshot: Snapshot,
    /// The tree of the folder that was named, or the snapshot's root.
    tree: BlobId,
}

/// Opens the repository and the snapshot that `text` (`SNAPSHOT[:FOLDER]`) names, to do with it what
/// the run allows.
fn open_snapshot(
    app: &App<'_>,
    text: &str,
    args: &FilterArgs,
    run: &Run,
) -> Result<Opened, Failure> {
    let repository = app.open()?;
    let (lock, seen) = app.lock_to_read_while(&repository, || Glance::at(&repository))?;
    let (text, folder) = select::split_subfolder(text);
    let filter = snapshot_filter(args);
    app.output.verbose("loading the index");
    let ((id, snapshot), repository) =
        select::resolve_and_load(&repository, &seen?, (text, &filter), run)?;
    let tree = match folder {
        None => snapshot.tree,
        Some(path) => {
            let mut reader = repository.blob_reader()?;
            find_subtree(&mut reader, snapshot.tree, path.as_bytes())?
        }
    };
    Ok(Opened { repository, lock, id, snapshot, tree })
}
