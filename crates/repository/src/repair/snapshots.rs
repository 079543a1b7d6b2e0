//! Writing snapshots anew without what they have lost.
//!
//! A chunk is lost when no index lists it, or only in packs that are gone or end before it. Files
//! go on without their lost chunks, as restic does it, and it is said which bytes were there. A
//! folder whose tree cannot be read becomes empty. The new snapshot has the tags `repaired` and
//! [`PARTIAL_TAG`], so that nothing takes it for proof, and is no recovery point of a plan any more;
//! the old one stays unless it is to be forgotten.
//!
//! A snapshot file that lies under a wrong name, and is sealed by this repository's key, is stored
//! anew under the right one. A snapshot of which not even the root can be read, and a snapshot
//! file that is damaged itself, cannot be repaired. They are named, and go only with `forget`.
//!
//! Content is not read: repair packs and index first, so that what is damaged is not in the
//! index.
//!
//! # Source
//! restic, `cmd/restic/cmd_repair_snapshots.go`.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use muster_model::{Class, Fault as _};

use super::{
    index::RepairIndexOptions,
    lost::{Chunk, Loss, cut},
};
use crate::{
    backup::PARTIAL_TAG,
    format::{
        pack::BlobKind,
        snapshot::Snapshot,
        tree::{Node, NodeKind},
        unpacked::{UNPACKED_BYTES_MAX, open_json},
    },
    id::{BlobId, PackId, SnapshotId},
    immutable::HeldSnapshots,
    index::Index,
    packer::{PackOptions, PackStats, PackWriter, write_packs},
    repository::{IndexedRepository, ReadError, Repository},
    rewrite::{
        trees::{Fate, Rewritten, Rule, TreeRewriter},
        with_totals,
    },
    run::Run,
    storage::{File, FileKind},
    supersede::{ChangeError, Snapshots},
    tag,
};

/// Tag of a repaired snapshot, as restic gives it.
pub const REPAIRED_TAG: &str = "repaired";

/// How snapshots are repaired.
#[derive(Debug, Clone, Default)]
pub struct RepairSnapshotsOptions {
    /// Whether the old snapshots go, and such as cannot be repaired.
    pub forget: bool,
    /// Snapshots that may not go: with `forget` they are left as they are.
    pub protected: HashSet<SnapshotId>,
    /// How trees are written. With `dry_run` nothing changes at all.
    pub packs: PackOptions,
}

/// What was found in a snapshot, and what became of it.
#[derive(Debug, Clone)]
pub struct RepairedSnapshot {
    /// The snapshot.
    pub old: SnapshotId,
    /// Its new form's id, if one was written.
    pub new: Option<SnapshotId>,
    /// Some of what it lost, by absolute paths.
    pub losses: Vec<(Vec<u8>, Loss)>,
    /// How much it lost, counted by files and folders; with what is not listed.
    pub losses_total: u64,
    /// Whether nothing of it can be read.
    pub is_lost: bool,
}

/// What was repaired.
#[derive(Debug, Default)]
#[must_use = "what is lost must be told"]
pub struct RepairSnapshotsReport {
    /// Snapshots that lost something.
    pub snapshots: Vec<RepairedSnapshot>,
    /// Snapshots in which nothing is missing.
    pub whole: u64,
    /// Snapshot files that are not what their names say; and the new form of those that are
    /// only misnamed.
    pub unreadable: Vec<(SnapshotId, Option<SnapshotId>)>,
    /// Snapshots that were removed.
    pub removed: Vec<SnapshotId>,
    /// Those that should have gone and that the store holds: they stay.
    pub held: HeldSnapshots,
    /// Those that lost something and were left as they are, since they may not go.
    pub protected: Vec<SnapshotId>,
    /// Those that should have gone and that the store did not let go, and why.
    pub failed: Vec<(SnapshotId, ChangeError)>,
    /// What was stored.
    pub stats: PackStats,
}

/// Packs that no index lists and that could hold what seems lost: as long as there are some,
/// snapshots had better not be repaired. [`super::index`] puts them into the index.
///
/// # Errors
/// As [`super::index::propose`].
pub fn unindexed_packs(repository: &Repository, run: &Run) -> Result<Vec<PackId>, ChangeError> {
    Ok(super::index::propose(repository, RepairIndexOptions::default(), run)?.added)
}

/// A snapshot file that is not what its name says.
#[derive(Debug, Clone)]
pub struct DamagedSnapshot {
    /// Its name.
    pub id: SnapshotId,
    /// What it holds, if that is a snapshot of this repository, and the name it should have.
    pub misnamed: Option<(SnapshotId, Snapshot)>,
}

/// The snapshots of a repository.
#[derive(Debug, Clone, Default)]
pub struct SnapshotList {
    /// Those that can be read, oldest first.
    pub readable: Vec<(SnapshotId, Snapshot)>,
    /// Files that are not what their names say.
    pub damaged: Vec<DamagedSnapshot>,
}

/// Reads all snapshots.
///
/// # Errors
/// Fails when the store does.
pub fn list(repository: &Repository) -> Result<SnapshotList, ChangeError> {
    let mut list = SnapshotList::default();
    for (id, snapshot) in repository.snapshots_of(&repository.snapshot_ids()?) {
        // What may be removed is looked at twice.
        match snapshot.or_else(|_| repository.snapshot(id)) {
            Ok(snapshot) => list.readable.push((id, snapshot)),
            Err(error) if error.class() == Class::Corrupt => {
                list.damaged.push(DamagedSnapshot { id, misnamed: misnamed(repository, id) });
            }
            Err(error) if error.class() == Class::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    list.readable.sort_by(|(a_id, a), (b_id, b)| a.time.cmp(&b.time).then(a_id.cmp(b_id)));
    list.damaged.sort_by_key(|damaged| damaged.id);
    Ok(list)
}

/// What lies under a name that is not its own.
fn misnamed(repository: &Repository, id: SnapshotId) -> Option<(SnapshotId, Snapshot)> {
    let content = repository.storage().read(File::Snapshot(id), UNPACKED_BYTES_MAX).ok()?;
    let own = SnapshotId::of(&content);
    let snapshot = open_json(repository.key(), content).ok()?;
    Some((own, snapshot))
}

/// Repairs snapshots. Damaged files go with `forget`, misnamed ones when they are stored anew.
/// The caller holds a lock, an exclusive one with `forget`.
///
/// Progress counts trees.
///
/// # Errors
/// Fails when the repository cannot be written or the run is cancelled. What was repaired by then
/// stays, and running it again goes on from there.
pub fn repair(
    repository: &IndexedRepository,
    snapshots: &SnapshotList,
    options: &RepairSnapshotsOptions,
    run: &Run,
) -> Result<RepairSnapshotsReport, ChangeError> {
    let mut report = RepairSnapshotsReport::default();
    let sizes = pack_sizes(repository)?;
    let rule = Salvaging { index: repository.index(), sizes, known: HashMap::default() };
    let misnamed = snapshots.damaged.iter().filter_map(|damaged| damaged.misnamed.as_ref());
    let to_rewrite: Vec<_> = snapshots.readable.iter().chain(misnamed).collect();
    let (forms, stats) =
        write_packs(repository, repository.index(), options.packs, Vec::new(), run, |writer| {
            new_forms(repository, writer, rule, &to_rewrite, run)
        })?;
    report.stats = stats;
    let mut known = Snapshots::load(repository, run)?;
    let mut forms = forms.iter();
    for ((old, snapshot), rewritten) in snapshots.readable.iter().zip(&mut forms) {
        if rewritten.notes_total == 0 {
            report.whole += 1;
            continue;
        }
        if is_protected(*old, options) {
            report.protected.push(*old);
            continue;
        }
        let mut repaired = found(*old, rewritten);
        if !options.packs.dry_run {
            if !repaired.is_lost {
                repaired.new = Some(known.save(&new_form(*old, snapshot, rewritten))?);
            }
            if options.forget {
                remove(&mut known, (*old, repaired.new), &mut report)?;
            }
        }
        report.snapshots.push(repaired);
    }
    for damaged in &snapshots.damaged {
        if is_protected(damaged.id, options) {
            report.protected.push(damaged.id);
            if damaged.misnamed.is_some() {
                forms.next();
            }
            continue;
        }
        let mut new = None;
        if let Some((own, snapshot)) = &damaged.misnamed
            && let Some(rewritten) = forms.next()
            && !options.packs.dry_run
            && !rewritten.is_unreadable
        {
            let is_there = snapshots.readable.iter().any(|(id, _)| id == own);
            let form = new_form(*own, snapshot, rewritten);
            new = Some(if is_there { *own } else { known.save(&form)? });
        }
        report.unreadable.push((damaged.id, new));
        if options.forget && !options.packs.dry_run {
            remove(&mut known, (damaged.id, new), &mut report)?;
        }
    }
    Ok(report)
}

fn remove(
    known: &mut Snapshots<'_>,
    (id, new): (SnapshotId, Option<SnapshotId>),
    report: &mut RepairSnapshotsReport,
) -> Result<(), ChangeError> {
    match known.remove(id, new) {
        Ok(Some(retention)) => report.held.push((id, retention)),
        Ok(None) => report.removed.push(id),
        Err(error @ ChangeError::NotRemoved { .. }) => report.failed.push((id, error)),
        Err(error) => return Err(error),
    }
    Ok(())
}

fn is_protected(id: SnapshotId, options: &RepairSnapshotsOptions) -> bool {
    options.forget && options.protected.contains(&id)
}

fn new_forms(
    repository: &IndexedRepository,
    writer: &PackWriter<'_>,
    rule: Salvaging<'_>,
    snapshots: &[&(SnapshotId, Snapshot)],
    run: &Run,
) -> Result<Vec<Rewritten<Loss>>, ChangeError> {
    let mut rewriter = TreeRewriter::new(repository, writer, rule, run)?;
    snapshots.iter().map(|(_, snapshot)| rewriter.rewrite(snapshot.tree)).collect()
}

fn found(old: SnapshotId, rewritten: &Rewritten<Loss>) -> RepairedSnapshot {
    let absolute = |(path, loss): &(Vec<u8>, Loss)| ([&b"/"[..], path].concat(), loss.clone());
    RepairedSnapshot {
        old,
        new: None,
        losses: rewritten.notes.iter().map(absolute).collect(),
        losses_total: rewritten.notes_total,
        is_lost: rewritten.is_unreadable,
    }
}

fn new_form(old: SnapshotId, snapshot: &Snapshot, rewritten: &Rewritten<Loss>) -> Snapshot {
    let mut new = snapshot.clone();
    new.tree = rewritten.tree;
    new.original = Some(old);
    let is_loss = |(_, loss): &(Vec<u8>, Loss)| !matches!(loss, Loss::SizeCorrected { .. });
    let lost =
        rewritten.notes.iter().any(is_loss) || rewritten.notes_total > rewritten.notes.len() as u64;
    let changed = rewritten.notes_total > 0;
    if changed {
        tag::disown(&mut new.tags);
        new.summary = new.summary.map(|summary| with_totals(summary, rewritten.totals));
    }
    let tags = [changed.then_some(REPAIRED_TAG), lost.then_some(PARTIAL_TAG)];
    for tag in tags.into_iter().flatten() {
        if !new.tags.iter().any(|there| there == tag) {
            new.tags.push(tag.to_owned());
        }
    }
    new
}

fn pack_sizes(repository: &Repository) -> Result<HashMap<PackId, u64, RandomState>, ChangeError> {
    let mut sizes = HashMap::default();
    for listed in repository.storage().list(FileKind::Pack)? {
        if let File::Pack(pack) = listed.file {
            sizes.insert(pack, listed.bytes);
        }
    }
    Ok(sizes)
}

/// Keeps what is there.
struct Salvaging<'r> {
    index: &'r Index,
    sizes: HashMap<PackId, u64, RandomState>,
    /// Chunks that were not in the first pack that should hold them: an index may claim them for
    /// any number of packs, and trees name them as often.
    known: HashMap<BlobId, Chunk, RandomState>,
}

impl Salvaging<'_> {
    fn look_up(&mut self, id: BlobId) -> Chunk {
        if let Some(known) = self.known.get(&id) {
            return *known;
        }
        let mut length = None;
        for (n, location) in self.index.find_all(BlobKind::Data, id).enumerate() {
            let plaintext = u64::from(location.blob.plaintext_length());
            let end = u64::from(location.blob.offset) + u64::from(location.blob.length);
            if self.sizes.get(&location.pack).is_some_and(|&bytes| end <= bytes) {
                let chunk = Chunk::There(plaintext);
                if n > 0 {
                    self.known.insert(id, chunk);
                }
                return chunk;
            }
            length = Some(plaintext);
        }
        *self.known.entry(id).or_insert(Chunk::Lost(length))
    }
}

impl Rule for Salvaging<'_> {
    type Note = Loss;
    /// Where a file lies says nothing of what is left of it.
    type State = ();
    const LOSSLESS: bool = false;

    fn at_root(&mut self) {}

    fn below(&mut self, _above: (), _name: &[u8]) {}

    fn judge(&mut self, _path: &[u8], node: &Node) -> (Fate, Option<Loss>) {
        if node.kind != NodeKind::File {
            return (Fate::Stays, None);
        }
        match cut(node, |id| self.look_up(id)) {
            None => (Fate::Stays, None),
            Some((left, loss)) => (Fate::Becomes(Box::new(left)), Some(loss)),
        }
    }

    fn unreadable(&mut self, tree: BlobId, error: ReadError) -> Result<Loss, ReadError> {
        if !matches!(error.class(), Class::Corrupt | Class::NotFound) {
            return Err(error);
        }
        let source = std::error::Error::source(&error).map(ToString::to_string);
        Ok(Loss::Folder { tree, reason: source.unwrap_or_else(|| error.to_string()) })
    }
}

#[cfg(test)]
mod tests;
