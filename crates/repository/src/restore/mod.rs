//! Bringing a tree of a repository back into a folder.
//!
//! # How it works
//!
//! One thread walks the tree, makes folders and small things (links, pipes, devices), and
//! collects files into a batch. A few workers restore the batch **pack by pack**: they read
//! long ranges, open each chunk once, and write it wherever it is wanted. While they work, the
//! next batch is collected. When a batch is done, its hard links are made, and folders whose
//! content is complete get their metadata, inner ones first.
//!
//! Memory is bounded by two batches, one range and one chunk for each worker, and the folders
//! on the way from the target to where the walk is. No file is ever in memory whole.
//!
//! # What can be relied upon
//!
//! - **Nothing is touched outside the target**, whatever the repository says and whatever lies
//!   in the target: see `dirs`. Names were checked when the tree was read, and are asserted
//!   again where they reach the system.
//! - **What stands under its final name is whole**: see `write`. A chunk that is missing or
//!   damaged concerns only the files that need it. They are left out and listed; what lay under
//!   their names before stays; every other file is restored. When another pack holds a sound
//!   copy of the chunk, that copy is used and there is no problem.
//! - **Metadata is exact** as far as the user's rights and the file system allow, and what was
//!   left out is counted: see `metadata`.
//! - **Archived packs are asked for first**, all at once, before the target is touched: see
//!   [`warm_up`].
//! - **A full disk ends the restore** with an error, and so does a request to stop. Files that
//!   were not complete are removed; folders keep mode 0700. After a `kill -9` there may be files
//!   left whose names begin with `.muster-`, and the few that were just being written in one go.
//!   Restoring again with [`Overwrite::IfChanged`] mends that, and lists the first as extra.
//!
//! # Decisions
//!
//! - Files are always written anew, never patched where they lie: a file in the target may have
//!   other names outside. Replacing a file needs room for both until the new one is whole.
//! - The chunks decide a file's length. (Old versions of restic recorded the length that a
//!   growing file had before it was read.)
//! - The target keeps its own metadata, as in restic: the root of a snapshot has none.
//! - Handles of folders are few and reopened when needed, so depth is bounded only by
//!   [`DEPTH_MAX`], which ends trees that nobody made in earnest.

mod dirs;
mod existing;
mod finish;
mod links;
mod listed;
mod metadata;
mod open;
mod past_cache;
mod plan;
mod report;
mod target;
mod walk;
mod workers;
mod write;

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread,
};

pub use report::{
    LISTED_MAX, NotRestored, Problem, ProblemCause, RestoreCounts, RestoreError, RestoreReport,
};

use crate::{format::tree::NodeKind, id::BlobId, repository::IndexedRepository, run::Run, warm_up};
use dirs::Dirs;
use metadata::Rights;
use past_cache::Pace;

/// How many folders may be nested. Linux makes no such trees by paths (`PATH_MAX` ends them at
/// 2,048), but programs that go step by step do.
pub const DEPTH_MAX: u32 = 10_000;

/// What to restore, where to, and what to do about things that are there already.
#[derive(Clone)]
pub struct RestoreOptions {
    /// The folder to restore into. Made when it does not exist, with its parents.
    pub target: PathBuf,
    /// What to restore; everything when there is none.
    pub select: Option<Select>,
    /// What to do about things that are there already.
    pub overwrite: Overwrite,
    /// Remove what is in restored folders of the target, is selected, and is not in the
    /// snapshot.
    pub delete: bool,
    /// Change nothing; find out what would be done. Content is looked up and not read.
    pub dry_run: bool,
    /// Read every restored file back and compare it before it gets its name.
    pub verify: bool,
}

impl RestoreOptions {
    /// Everything into `target`, which must be empty or not exist.
    #[must_use]
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self {
            target: target.into(),
            select: None,
            overwrite: Overwrite::Refuse,
            delete: false,
            dry_run: false,
            verify: false,
        }
    }
}

/// Decides by path and kind. The path begins with a slash and is relative to the tree that is
/// restored; entries of the target that are not in the snapshot are asked about too (`delete`).
pub type Select = Arc<dyn Fn(&[u8], NodeKind) -> Choice + Send + Sync>;

/// A decision about one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Restore the entry itself. A folder that is not selected is made all the same when
    /// something in it is.
    pub selected: bool,
    /// Something below this folder may be selected.
    pub child_may_be_selected: bool,
}

impl Choice {
    /// The entry and what is below it.
    pub const ALL: Self = Self { selected: true, child_may_be_selected: true };
}

/// What to do about things that are in the target already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Refuse to begin unless the target is empty.
    #[default]
    Refuse,
    /// Replace everything.
    Always,
    /// Replace files unless size and mtime are those of the snapshot, or else the content is.
    /// Everything gets the snapshot's metadata.
    IfChanged,
    /// Replace what is older than in the snapshot, by mtime.
    IfNewer,
    /// Replace nothing.
    Never,
}

/// Restores what is below the tree `tree`.
///
/// # Errors
/// Fails when the target is not empty and overwriting was not chosen, the target cannot be made
/// or is full, the tree itself cannot be read, or the run is cancelled. What concerns single
/// files and folders is in the report.
pub fn restore(
    repository: &IndexedRepository,
    tree: BlobId,
    options: &RestoreOptions,
    run: &Run,
) -> Result<RestoreReport, RestoreError> {
    run.cancel.check()?;
    if options.dry_run {
        let mut report = perform(repository, tree, options, run)?;
        if warm_up::is_due(repository.storage().as_ref(), run) {
            let packs = std::mem::take(&mut report.packs);
            report.archived = warm_up::look(repository, packs, run)?.cold();
        }
        return Ok(report);
    }
    warm(repository, &[(tree, options)], run)?;
    perform(repository, tree, options, run)
}

/// Brings back what is archived and some restores will read, all at once, before anything is
/// touched. Each restore does so for itself; this is for who does several. A dry run tells which
/// packs.
///
/// # Errors
/// As [`restore`], and as the run allows to bring back.
pub fn warm(
    repository: &IndexedRepository,
    restores: &[(BlobId, &RestoreOptions)],
    run: &Run,
) -> Result<(), RestoreError> {
    if !warm_up::is_due(repository.storage().as_ref(), run) {
        return Ok(());
    }
    let mut packs = HashSet::new();
    for (tree, options) in restores {
        let dry_run = RestoreOptions { dry_run: true, verify: false, ..(*options).clone() };
        let aside = Run { progress: Arc::default(), ..run.clone() };
        packs.extend(perform(repository, *tree, &dry_run, &aside)?.packs);
    }
    Ok(warm_up::prepare(repository, packs, run)?)
}

fn perform(
    repository: &IndexedRepository,
    tree: BlobId,
    options: &RestoreOptions,
    run: &Run,
) -> Result<RestoreReport, RestoreError> {
    let rights = Rights::of_process();
    let context = Context {
        repository,
        options,
        run,
        rights,
        dirs: target::open(options, rights)?,
        pace: Pace::new(!options.verify),
        fatal: OnceLock::new(),
        tag: RandomState::new().hash_one(std::process::id()),
    };
    thread::scope(|scope| {
        let workers = workers::Workers::start(scope, &context)?;
        walk::Walk::new(&context, workers)?.restore(tree)
    })
}

/// What all threads of a restore share.
struct Context<'a> {
    repository: &'a IndexedRepository,
    options: &'a RestoreOptions,
    run: &'a Run,
    rights: Rights,
    dirs: Dirs,
    pace: Pace,
    /// Why the restore must end early.
    fatal: OnceLock<RestoreError>,
    /// Part of temporary names.
    tag: u64,
}

impl Context<'_> {
    fn is_stopped(&self) -> bool {
        self.run.cancel.is_requested() || self.fatal.get().is_some()
    }

    fn select(&self, path: &[u8], kind: NodeKind) -> Choice {
        self.options.select.as_ref().map_or(Choice::ALL, |select| select(path, kind))
    }

    /// Ends the restore when the target has no room left.
    fn stop_if_full(&self, error: &io::Error, path: impl FnOnce() -> Vec<u8>) {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let error = io::Error::from(error.kind());
            // Only the first one is told.
            drop(self.fatal.set(RestoreError::full(path(), error)));
        }
    }
}
