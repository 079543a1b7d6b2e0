//! Rewriting snapshots: without some paths, under another host or time.
//!
//! Trees that hold something excluded are written anew, all others stay; chunks of files are not
//! touched. The new snapshot names the old one as its `original` and has the tag `rewrite`;
//! the old one stays unless it is to be forgotten, and then the new one has no such tag, as in
//! restic. With another tree or time it is no recovery point of a plan any more, and not proven.
//!
//! What was left out stays in the packs until a prune. Who wants something gone for good forgets
//! the old snapshots and prunes.
//!
//! **Order.** New trees and their index are durable before the first new snapshot is written;
//! each old snapshot goes after its new one was read back. A rewriting that was cut off is
//! completed when it is run again.
//!
//! # Source
//! restic, `cmd/restic/cmd_rewrite.go`, `internal/walker/rewriter.go`.

pub(crate) mod trees;

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

pub use self::trees::Totals;
use self::trees::{Fate, Rewritten, Rule, TreeRewriter};
use crate::{
    exclude::{Followed, Patterns},
    format::{
        snapshot::{Snapshot, Summary},
        time::Timestamp,
        tree::Node,
    },
    id::{BlobId, SnapshotId},
    immutable::HeldSnapshots,
    packer::{PackOptions, PackStats, write_packs},
    repository::{IndexedRepository, ReadError},
    run::Run,
    supersede::{ChangeError, Snapshots},
    tag,
};

/// Tag of a rewritten snapshot whose original stays, as restic gives it.
pub const REWRITE_TAG: &str = "rewrite";

/// What is to be different.
#[derive(Debug, Clone, Default)]
pub struct RewriteOptions {
    /// What to leave out; each list by itself.
    pub excludes: Vec<Patterns>,
    /// The host to record instead.
    pub new_host: Option<String>,
    /// The time to record instead.
    pub new_time: Option<Timestamp>,
    /// Whether to count what is in the snapshot and to record it.
    pub snapshot_summary: bool,
    /// Whether the old snapshot goes.
    pub forget: bool,
    /// Snapshots that may not go: with `forget` they are left as they are.
    pub protected: HashSet<SnapshotId>,
    /// How trees are written. With `dry_run` nothing changes at all.
    pub packs: PackOptions,
}

impl RewriteOptions {
    /// Whether nothing would be different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { excludes, new_host, new_time, snapshot_summary, .. } = self;
        let patterns = excludes.iter().any(|patterns| !patterns.is_empty());
        !patterns && new_host.is_none() && new_time.is_none() && !snapshot_summary
    }

    fn walks(&self) -> bool {
        self.snapshot_summary || self.excludes.iter().any(|patterns| !patterns.is_empty())
    }
}

/// What became of a snapshot.
#[derive(Debug, Clone)]
pub struct RewrittenSnapshot {
    /// The snapshot.
    pub old: SnapshotId,
    /// Its new form's id; `None` when nothing changed, or nothing was written.
    pub new: Option<SnapshotId>,
    /// Whether there is anything to change.
    pub changed: bool,
    /// Some of the paths that were left out.
    pub excluded: Vec<Vec<u8>>,
    /// How many were left out; what lies below a folder is not counted.
    pub excluded_total: u64,
    /// What is left in it, if it was counted.
    pub totals: Option<Totals>,
}

/// What was rewritten.
#[derive(Debug, Default)]
#[must_use = "snapshots that failed were left as they are"]
pub struct RewriteReport {
    /// What became of each snapshot.
    pub snapshots: Vec<RewrittenSnapshot>,
    /// Snapshots that were left as they are, since they may not go.
    pub protected: Vec<SnapshotId>,
    /// Snapshots that were left as they are, and why; of some the new form is there as well, as the
    /// error says.
    pub failed: Vec<(SnapshotId, ChangeError)>,
    /// Old forms that should have gone and that the store holds: they stay beside the new ones.
    pub held: HeldSnapshots,
    /// What was stored.
    pub stats: PackStats,
}

/// Rewrites snapshots. The caller holds a lock; an exclusive one when old snapshots go.
///
/// Progress counts trees.
///
/// # Errors
/// Fails when the repository cannot be written or the run is cancelled. A snapshot whose trees
/// cannot be read, or not be written anew without loss, is left as it is and reported.
pub fn rewrite(
    repository: &IndexedRepository,
    snapshots: &[(SnapshotId, Snapshot)],
    options: &RewriteOptions,
    run: &Run,
) -> Result<RewriteReport, ChangeError> {
    let mut report = RewriteReport::default();
    let (new_forms, stats) =
        write_packs(repository, repository.index(), options.packs, Vec::new(), run, |writer| {
            new_forms(repository, writer, snapshots, options, run, &mut report.failed)
        })?;
    report.stats = stats;
    let mut known = Snapshots::load(repository, run)?;
    for (mut done, new) in new_forms {
        if done.changed && options.forget && options.protected.contains(&done.old) {
            report.protected.push(done.old);
            continue;
        }
        if done.changed && !options.packs.dry_run {
            done.new = Some(known.save(&new)?);
            if options.forget {
                remove(&mut known, &done, &mut report)?;
            }
        }
        report.snapshots.push(done);
    }
    Ok(report)
}

fn remove(
    known: &mut Snapshots<'_>,
    done: &RewrittenSnapshot,
    report: &mut RewriteReport,
) -> Result<(), ChangeError> {
    match known.remove(done.old, done.new) {
        Ok(held) => report.held.extend(held.map(|retention| (done.old, retention))),
        Err(error @ ChangeError::NotRemoved { .. }) => report.failed.push((done.old, error)),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Writes the trees and puts the new snapshots together.
fn new_forms(
    repository: &IndexedRepository,
    writer: &crate::packer::PackWriter<'_>,
    snapshots: &[(SnapshotId, Snapshot)],
    options: &RewriteOptions,
    run: &Run,
    failed: &mut Vec<(SnapshotId, ChangeError)>,
) -> Result<Vec<(RewrittenSnapshot, Snapshot)>, ChangeError> {
    let rule = Excluding::new(&options.excludes);
    let mut rewriter = TreeRewriter::new(repository, writer, rule, run)?;
    let mut forms = Vec::new();
    for (id, snapshot) in snapshots {
        let rewritten = match options.walks() {
            false => None,
            true => match rewriter.rewrite(snapshot.tree) {
                Ok(rewritten) => Some(rewritten),
                Err(error @ (ChangeError::Read(_) | ChangeError::WouldLose { .. }))
                    if run.cancel.check().is_ok() =>
                {
                    failed.push((*id, error));
                    continue;
                }
                Err(error) => return Err(error),
            },
        };
        forms.push(new_form(*id, snapshot, rewritten.as_ref(), options));
    }
    Ok(forms)
}

fn new_form(
    id: SnapshotId,
    snapshot: &Snapshot,
    rewritten: Option<&Rewritten<()>>,
    options: &RewriteOptions,
) -> (RewrittenSnapshot, Snapshot) {
    let mut new = snapshot.clone();
    if let Some(rewritten) = rewritten {
        new.tree = rewritten.tree;
        let counted = new.tree != snapshot.tree || options.snapshot_summary;
        let summary = new.summary.take();
        new.summary = match (summary, counted) {
            (Some(summary), true) => Some(with_totals(summary, rewritten.totals)),
            (None, true) if options.snapshot_summary => {
                Some(with_totals(empty_summary(snapshot.time), rewritten.totals))
            }
            (summary, _) => summary,
        };
    }
    if let Some(host) = &options.new_host {
        new.hostname.clone_from(host);
    }
    new.time = options.new_time.unwrap_or(new.time);
    let changed = new != *snapshot;
    if new.tree != snapshot.tree || new.time != snapshot.time {
        tag::disown(&mut new.tags);
    }
    new.original = Some(id);
    if !options.forget && !new.tags.iter().any(|tag| tag == REWRITE_TAG) {
        new.tags.push(REWRITE_TAG.to_owned());
    }
    let excluded = rewritten.map_or_else(Vec::new, |rewritten| {
        rewritten.notes.iter().map(|(path, ())| [&b"/"[..], path].concat()).collect()
    });
    let done = RewrittenSnapshot {
        old: id,
        new: None,
        changed,
        excluded,
        excluded_total: rewritten.map_or(0, |rewritten| rewritten.notes_total),
        totals: rewritten.map(|rewritten| rewritten.totals),
    };
    (done, new)
}

/// A summary that counts what is there now.
pub(crate) fn with_totals(summary: Summary, totals: Totals) -> Summary {
    Summary { total_files_processed: totals.files, total_bytes_processed: totals.bytes, ..summary }
}

/// For a snapshot of a tool that recorded none.
fn empty_summary(time: Timestamp) -> Summary {
    Summary {
        backup_start: time,
        backup_end: time,
        files_new: 0,
        files_changed: 0,
        files_unmodified: 0,
        dirs_new: 0,
        dirs_changed: 0,
        dirs_unmodified: 0,
        data_blobs: 0,
        tree_blobs: 0,
        data_added: 0,
        data_added_packed: 0,
        total_files_processed: 0,
        total_bytes_processed: 0,
    }
}

/// Lets go what a pattern matches.
struct Excluding<'o> {
    excludes: &'o [Patterns],
    /// What each list has seen of a path, by the number that is that path's state.
    states: Vec<Rc<[Followed]>>,
    numbers: HashMap<Rc<[Followed]>, usize>,
}

impl<'o> Excluding<'o> {
    fn new(excludes: &'o [Patterns]) -> Self {
        Self { excludes, states: Vec::new(), numbers: HashMap::new() }
    }

    fn number(&mut self, state: Rc<[Followed]>) -> usize {
        let next = self.states.len();
        let number = *self.numbers.entry(Rc::clone(&state)).or_insert(next);
        if number == next {
            self.states.push(state);
        }
        number
    }
}

impl Rule for Excluding<'_> {
    type Note = ();
    type State = usize;
    const LOSSLESS: bool = true;

    fn at_root(&mut self) -> usize {
        let state = self.excludes.iter().map(Patterns::follow).collect();
        self.number(state)
    }

    fn below(&mut self, above: usize, name: &[u8]) -> usize {
        let lists = self.excludes.iter().zip(&*self.states[above]);
        let state = lists.map(|(patterns, above)| patterns.follow_into(above, name)).collect();
        self.number(state)
    }

    fn judge(&mut self, path: &[u8], _node: &Node) -> (Fate, Option<()>) {
        match self.excludes.iter().any(|patterns| patterns.matches(path)) {
            true => (Fate::Goes, Some(())),
            false => (Fate::Stays, None),
        }
    }

    fn unreadable(&mut self, _tree: BlobId, error: ReadError) -> Result<(), ReadError> {
        Err(error)
    }
}

#[cfg(test)]
mod tests;
