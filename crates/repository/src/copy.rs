//! Copying snapshots between repositories: open, seal under the other key, store what is
//! missing.
//!
//! Ids of content stay, so what the target has already is not copied; blobs are compressed
//! again as the target's options say. Files are not cut again: repositories share content only
//! when both were made with the same polynomial.
//!
//! **Order.** First the trees of all snapshots are read in the source, also those that the target
//! has (an interrupted copy may have stored a folder and not its files): then it is known how much
//! there is to do (`need`). What is missing is read pack by pack in ranges over several
//! connections, sealed on every core, and stored over several connections (`transfer`); the three
//! overlap. When all packs and indexes of a batch are durable, its snapshots are written.
//!
//! **Interrupted**, a copy continues with what is durable, also with packs that no index names
//! yet: while nobody else works in the target they are verified and adopted, as by a backup
//! ([`Target::open`], decision 5).
//!
//! **Memory.** One number of four bytes for each blob that is missing, one bit for each in the
//! source; a bounded number of ranges is in flight.
//!
//! # Source
//! restic, `cmd/restic/cmd_copy.go`.

mod need;
mod transfer;

use std::collections::{HashMap, HashSet, VecDeque};

use muster_model::{Class, Fault};
use thiserror::Error;

pub(crate) use transfer::{Range, into_ranges};

use self::{
    need::{Group, Need},
    transfer::transfer,
};
use crate::{
    backup::adopt,
    format::{index_file::IndexPack, snapshot::Snapshot},
    id::{PackId, SnapshotId},
    lock::Lock,
    packer::{PackOptions, PackStats, WriteError, write_packs},
    repository::{IndexedRepository, ReadError, Repository, SaveError, together},
    run::{Cancelled, Run},
    storage::File,
    warm_up,
};

/// Bytes of a batch, in packs of the target's size, as in restic: small snapshots share packs,
/// and large copies get their snapshots while they run.
const BATCH_PACKS: u64 = 100;

/// Something happened that people may want to see.
#[derive(Debug, Clone, Copy)]
pub enum CopyEvent {
    /// A snapshot's content is being copied.
    Begun(SnapshotId),
    /// The target has the snapshot already, under this id.
    Skipped {
        /// The snapshot in the source.
        source: SnapshotId,
        /// The same snapshot in the target.
        target: SnapshotId,
    },
    /// A snapshot was written.
    Saved {
        /// The snapshot in the source.
        source: SnapshotId,
        /// Its copy in the target.
        target: SnapshotId,
    },
}

/// What was copied.
#[derive(Debug, Default)]
#[must_use = "snapshots that failed are missing in the target"]
pub struct CopyReport {
    /// Snapshots and their copies.
    pub copied: Vec<(SnapshotId, SnapshotId)>,
    /// Snapshots that were there, and as what.
    pub skipped: Vec<(SnapshotId, SnapshotId)>,
    /// Snapshots that cannot be read whole, and why; the target does not get them.
    pub failed: Vec<(SnapshotId, ReadError)>,
    /// What was stored.
    pub stats: PackStats,
    /// Packs of an interrupted run that were taken over.
    pub adopted: usize,
}

/// Where a copy goes.
pub struct Target {
    repository: IndexedRepository,
    adopted: Vec<IndexPack>,
}

impl Target {
    /// Loads the target's index, and takes over packs that an interrupted run stored, if nobody
    /// else is at work there. The caller holds `lock` on it.
    ///
    /// # Errors
    /// Fails when the store cannot be listed, the index cannot be read, or the run is cancelled.
    pub fn open(repository: &Repository, lock: &Lock, run: &Run) -> Result<Self, CopyError> {
        // The listing before the index and the locks: see `adopt`.
        let listed = adopt::list(repository)?;
        let (index, alone) = together(|| repository.read_index(run), || adopt::is_alone(lock));
        let mut index = index.map_err(CopyError::Target)?;
        let adopted = match alone {
            true => adopt::adopt(repository, &listed, &mut index, run)?,
            false => Vec::new(),
        };
        Ok(Self { repository: IndexedRepository::with_index(repository.clone(), index), adopted })
    }

    /// The repository, with what was taken over in its index.
    #[must_use]
    pub fn repository(&self) -> &IndexedRepository {
        &self.repository
    }
}

/// A target in which nothing is taken over.
impl From<IndexedRepository> for Target {
    fn from(repository: IndexedRepository) -> Self {
        Self { repository, adopted: Vec::new() }
    }
}

/// Copies snapshots from `source` to `target`, in the order given. A snapshot that cannot be
/// read does not keep the others from being copied. `tell` is called from this thread.
///
/// Progress counts blobs, and bytes before they are compressed; the totals are known when all
/// trees were read.
///
/// # Errors
/// Fails when the target cannot be written, its snapshots cannot be read, or the run is
/// cancelled. What was stored is used when the copy is run again.
pub fn copy(
    source: &IndexedRepository,
    target: Target,
    snapshots: &[(SnapshotId, Snapshot)],
    options: PackOptions,
    run: &Run,
    tell: &mut dyn FnMut(CopyEvent),
) -> Result<CopyReport, CopyError> {
    let Target { repository: target, adopted } = target;
    let mut adopted = if options.dry_run { Vec::new() } else { adopted };
    let present = Present::of(target.snapshots().map_err(CopyError::Target)?);
    let mut report = CopyReport::default();
    let mut to_copy = Vec::new();
    for entry in snapshots {
        match present.find(entry) {
            Some(there) => {
                tell(CopyEvent::Skipped { source: entry.0, target: there });
                report.skipped.push((entry.0, there));
            }
            None => to_copy.push(entry),
        }
    }
    let mut need = Need::new(source, target.index(), run)?;
    let mut groups = need.of(to_copy, &mut report.failed)?;
    let (blobs, bytes) = need.size_of(&groups);
    run.progress.add_total(blobs, bytes);
    run.progress.total_is_known();
    let missing = groups.iter().flat_map(|group| &group.missing);
    let packs: HashSet<PackId> = missing.map(|&number| source.index().at(number).pack).collect();
    if !options.dry_run {
        warm_up::prepare(source, packs, run).map_err(CopyError::Source)?;
    }
    let batch_bytes = BATCH_PACKS * u64::from(options.pack_bytes);
    while !groups.is_empty() {
        let batch = take_batch(&mut groups, batch_bytes, &need);
        for (id, _) in batch.iter().flat_map(|group| &group.snapshots) {
            tell(CopyEvent::Begun(*id));
        }
        let blobs: Vec<u32> = batch.iter().flat_map(|group| &group.missing).copied().collect();
        let taken_over = std::mem::take(&mut adopted);
        report.adopted += taken_over.len();
        let (lost, stats) =
            write_packs(&target, target.index(), options, taken_over, run, |writer| {
                transfer(source, writer, &blobs, run)
            })?;
        add(&mut report.stats, &stats);
        // Without the locks, what the snapshots refer to may have been deleted meanwhile.
        run.cancel.check_condition()?;
        if !lost.is_empty() {
            // Whose they are is seen when each snapshot is followed by itself.
            need.note_copied(&blobs, lost);
            let left = batch.into_iter().chain(groups).flat_map(|group| group.snapshots);
            groups = need.of(left.collect(), &mut report.failed)?;
            continue;
        }
        need.note_copied(&blobs, Vec::new());
        for &(id, ref snapshot) in batch.into_iter().flat_map(|group| group.snapshots) {
            let new = if options.dry_run { id } else { save(&target, id, snapshot)? };
            tell(CopyEvent::Saved { source: id, target: new });
            report.copied.push((id, new));
        }
    }
    Ok(report)
}

/// Takes as many groups as make a batch, and at least one.
fn take_batch<'s>(
    groups: &mut VecDeque<Group<'s>>,
    batch_bytes: u64,
    need: &Need<'_>,
) -> Vec<Group<'s>> {
    let (mut batch, mut bytes) = (Vec::new(), 0_u64);
    while bytes < batch_bytes {
        let Some(group) = groups.pop_front() else { break };
        bytes = bytes.saturating_add(need.stored_bytes(&group));
        batch.push(group);
    }
    batch
}

fn add(total: &mut PackStats, stats: &PackStats) {
    total.data_blobs += stats.data_blobs;
    total.tree_blobs += stats.tree_blobs;
    total.plaintext_bytes += stats.plaintext_bytes;
    total.sealed_bytes += stats.sealed_bytes;
    total.packs += stats.packs;
}

/// Writes the copy of a snapshot. Its parent means nothing in another repository, and
/// `original` tells later copies that it is there.
fn save(
    target: &IndexedRepository,
    id: SnapshotId,
    snapshot: &Snapshot,
) -> Result<SnapshotId, CopyError> {
    let original = snapshot.original.or(Some(id));
    let copy = Snapshot { parent: None, original, ..snapshot.clone() };
    Ok(target.save_unpacked(File::Snapshot, &copy)?)
}

/// The target's snapshots, by their own id and by that of their original.
pub(crate) struct Present {
    snapshots: Vec<(SnapshotId, Snapshot)>,
    by_id: HashMap<SnapshotId, Vec<usize>>,
}

impl Present {
    pub(crate) fn of(snapshots: Vec<(SnapshotId, Snapshot)>) -> Self {
        let mut by_id: HashMap<SnapshotId, Vec<usize>> = HashMap::new();
        for (position, (id, snapshot)) in snapshots.iter().enumerate() {
            by_id.entry(*id).or_default().push(position);
            if let Some(original) = snapshot.original {
                by_id.entry(original).or_default().push(position);
            }
        }
        Self { snapshots, by_id }
    }

    /// All of them.
    pub(crate) fn ids(&self) -> impl Iterator<Item = SnapshotId> + '_ {
        self.snapshots.iter().map(|(id, _)| *id)
    }

    /// The copy of a snapshot, if it is there with the same fields. Tags may have been changed
    /// since on one side; then it is another snapshot.
    pub(crate) fn find(&self, (id, snapshot): &(SnapshotId, Snapshot)) -> Option<SnapshotId> {
        let positions = self.by_id.get(&snapshot.original.unwrap_or(*id))?;
        let mut candidates = positions.iter().map(|&position| &self.snapshots[position]);
        candidates.find(|(_, there)| is_similar(there, snapshot)).map(|(id, _)| *id)
    }
}

/// Whether two snapshots agree in everything but parent and original.
fn is_similar(a: &Snapshot, b: &Snapshot) -> bool {
    let same_set = |a: &[String], b: &[String]| {
        let elements: HashSet<&String> = a.iter().collect();
        a.len() == b.len() && b.iter().all(|element| elements.contains(element))
    };
    a.time == b.time
        && a.tree == b.tree
        && (&a.hostname, &a.username, a.uid, a.gid) == (&b.hostname, &b.username, b.uid, b.gid)
        && a.excludes == b.excludes
        && same_set(&a.paths, &b.paths)
        && same_set(&a.tags, &b.tags)
}

/// A copy could not go on.
#[derive(Debug, Error)]
pub enum CopyError {
    /// The target's snapshots cannot be read.
    #[error("see which snapshots the target has")]
    Target(#[source] ReadError),
    /// The target cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Reading the source cannot be set up.
    #[error("set up reading the source")]
    Source(#[source] ReadError),
    /// A snapshot cannot be written.
    #[error("save the copied snapshot")]
    Save(#[from] SaveError),
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Fault for CopyError {
    fn class(&self) -> Class {
        match self {
            Self::Target(error) | Self::Source(error) => error.class(),
            Self::Write(error) => error.class(),
            Self::Save(error) => error.class(),
            Self::Cancelled(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Target(error) | Self::Source(error) => error.code(),
            Self::Write(error) => error.code(),
            Self::Save(error) => error.code(),
            Self::Cancelled(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Target(error) | Self::Source(error) => error.help(),
            Self::Write(error) => error.help(),
            Self::Save(error) => error.help(),
            Self::Cancelled(error) => error.help(),
        }
    }
}

#[cfg(test)]
mod tests;
