//! Prune: frees the space of what no snapshot needs, in two phases, so that backups need not wait.
//!
//! 1. **Beside others**, under a shared lock: load snapshots and index, follow all trees to learn
//!    which blobs are used, decide (`decide`), and copy what is still used out of packs that are
//!    mostly waste (`repack`). All of it only adds files.
//! 2. **Alone**, under an exclusive lock, for as long as it takes to write some index files: look
//!    at the snapshots and index files that came meanwhile, make sure that every used blob lies in
//!    a pack that stays, take the others out of the index and *mark* them (`commit`).
//! 3. **Beside others again**: the exclusive lock becomes a shared one without a gap, and packs
//!    whose mark is older than the grace period are deleted.
//!
//! A marked pack that a snapshot needs after all, because somebody works here without locks, is
//! put back by the next prune that finds it so. Marks lie in the index, in rustic's section
//! `packs_to_delete`.
//!
//! **Why nothing used is ever deleted.** A pack is deleted when it was in no index and no snapshot
//! needed it at a moment at which nobody else held a lock, and the own lock was held from that
//! moment on. Whoever came later loaded an index without the pack. The grace period protects
//! those who take no locks.
//!
//! **Order.** New packs, new index files, then old index files deleted *durably*, then packs. Only
//! what is already superfluous is ever missing; a stop at any moment leaves work for the next
//! prune and nothing else.
//!
//! **Memory.** The index, one bit for each blob, and a few ranges of packs.
//!
//! What it does not do: forget snapshots, and mend. A repository in which something needed cannot
//! be found is left as it is.
//!
//! # Source
//! restic, `internal/repository/prune.go`; rustic_core, `commands/prune.rs`; decision 10.

mod catalogue;
mod commit;
mod decide;
mod errors;
mod repack;
pub(crate) mod usage;

use std::{collections::HashSet, time::Duration};

use foldhash::fast::RandomState;

use self::{
    catalogue::Catalogue,
    commit::Commit,
    decide::{Decision, decide},
    usage::Used,
};
pub use self::{
    decide::{Limit, UnknownLimit},
    errors::PruneError,
};
use crate::{
    environment::Environment,
    format::time::Timestamp,
    id::{PackId, SnapshotId},
    immutable,
    lock::{Lock, LockKind},
    packer::PackOptions,
    repository::{IndexedRepository, ReadError, Repository},
    run::Run,
    storage::{Archiving, File, FileKind, Storage},
    warm_up,
};

/// How long a pack stays marked before it is deleted: as rustic's, an hour less than a day, so
/// that a daily prune deletes what the one before it marked.
pub const KEEP_DELETE_DEFAULT: Duration = Duration::from_secs(23 * 60 * 60);

/// How to prune.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// How much waste may stay in packs that are still needed.
    pub max_unused: Limit,
    /// How many bytes of packs are repacked at most.
    pub max_repack_bytes: Option<u64>,
    /// Repack only packs of trees.
    pub repack_cacheable_only: bool,
    /// Join packs that are small, too.
    pub repack_small: bool,
    /// How long packs stay marked before they are deleted.
    pub keep_delete: Duration,
    /// Do everything at once, alone, without a grace period.
    pub instant: bool,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Take no lock for a dry run, where none can be written.
    pub no_lock: bool,
    /// Snapshots that a dry run takes for removed.
    pub as_if_removed: Vec<SnapshotId>,
    /// How packs are written.
    pub packs: PackOptions,
    /// How long to wait for each lock.
    pub retry_lock: Duration,
    /// The time that marks are made with and held against; `None` for now.
    pub now: Option<Timestamp>,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            max_unused: Limit::Percent(5.0),
            max_repack_bytes: None,
            repack_cacheable_only: false,
            repack_small: false,
            keep_delete: KEEP_DELETE_DEFAULT,
            instant: false,
            dry_run: false,
            no_lock: false,
            as_if_removed: Vec::new(),
            packs: PackOptions::default(),
            retry_lock: Duration::ZERO,
            now: None,
        }
    }
}

impl PruneOptions {
    /// These options for a cold repository: to repack packs of data, archived ones would have to be
    /// brought back, which must be allowed. What nothing needs goes all the same.
    fn for_cold(&self, storage: &dyn Storage, run: &Run) -> Self {
        let is_cold = storage.archiving() == Archiving::Expected && !run.warm_up.is_allowed();
        Self { repack_cacheable_only: self.repack_cacheable_only || is_cold, ..self.clone() }
    }
}

/// Some packs, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// How many.
    pub packs: u64,
    /// Their size.
    pub bytes: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }
}

/// What is in the repository, and what was done. After a dry run, what would be.
#[derive(Debug, Default)]
#[must_use = "packs with damage were not repacked"]
pub struct PruneReport {
    /// Bytes of blobs that snapshots need.
    pub used_bytes: u64,
    /// Bytes of blobs that none needs.
    pub unused_bytes: u64,
    /// Packs that were read, for what is still used in them.
    pub repacked: Amount,
    /// Bytes of the packs that their content was written into.
    pub repacked_into_bytes: u64,
    /// Packs that were marked now; those that were repacked are among them.
    pub marked: Amount,
    /// Among them, packs that no index had listed.
    pub unindexed: Amount,
    /// Marked packs that snapshots need after all and that were put back.
    pub recovered: Amount,
    /// Packs that were deleted.
    pub deleted: Amount,
    /// Packs that are marked and wait for their deletion.
    pub waiting: Amount,
    /// Among them, packs whose time has come and that the store holds: deleting them would hide
    /// them and free nothing.
    pub held: Amount,
    /// Bytes that no snapshot needs and that stay, in packs that are needed.
    pub waste_left_bytes: u64,
    /// Index files that were written, and old ones that were deleted.
    pub index_files: (u64, u64),
    /// Packs that were to be repacked and hold damage: they stay as they are.
    pub damaged: Vec<(PackId, ReadError)>,
}

/// Frees the space of what no snapshot needs. Takes its locks itself.
///
/// # Errors
/// Fails when something that snapshots need is missing or a snapshot, tree or index file cannot be
/// read (nothing is removed then), when others hold a lock in the way, the store fails, or the run
/// is cancelled. What was done until then is sound, and the next prune goes on from there.
pub fn prune(
    repository: &Repository,
    options: &PruneOptions,
    environment: &Environment,
    run: &Run,
) -> Result<PruneReport, PruneError> {
    let acquire = |kind| Lock::acquire(repository, kind, options.retry_lock, environment, run);
    let now = || options.now.unwrap_or_else(|| environment.now());
    if options.dry_run {
        let lock = if options.no_lock { None } else { Some(acquire(LockKind::Shared)?) };
        let work = Work::prepare(repository, options, run)?;
        let mut commit = work.commit(now());
        commit.keep_held(repository, now(), run)?;
        lock.map_or(Ok(()), Lock::release)?;
        return Ok(work.finish(&commit));
    }
    let lock = acquire(if options.instant { LockKind::Exclusive } else { LockKind::Shared })?;
    let mut work = Work::prepare(repository, options, run)?;
    work.repack()?;
    let lock = match options.instant {
        true => lock,
        false if work.has_nothing_to_do(now()) => {
            lock.release()?;
            let commit = work.commit(now());
            return Ok(work.finish(&commit));
        }
        false => {
            lock.release()?;
            acquire(LockKind::Exclusive)?
        }
    };
    work.catch_up()?;
    let commit = work.commit(now());
    commit::write(repository, &commit, run)?;
    let mut commit = commit;
    commit.keep_held(repository, now(), run)?;
    if !options.instant {
        lock.share()?;
    }
    commit::delete_packs(repository, &commit, run)?;
    lock.release()?;
    Ok(work.finish(&commit))
}

/// What is known so far, and what is going to be done.
struct Work<'a> {
    repository: &'a Repository,
    options: &'a PruneOptions,
    run: &'a Run,
    indexed: IndexedRepository,
    catalogue: Catalogue,
    used: Used,
    /// The snapshots that were followed.
    followed: HashSet<SnapshotId, RandomState>,
    decision: Decision,
    report: PruneReport,
}

impl<'a> Work<'a> {
    fn prepare(
        repository: &'a Repository,
        options: &'a PruneOptions,
        run: &'a Run,
    ) -> Result<Self, PruneError> {
        // Snapshots before the index: what they need is in it by then.
        let mut snapshots = repository.snapshot_ids()?;
        if options.dry_run {
            snapshots.retain(|id| !options.as_if_removed.contains(id));
        }
        let (catalogue, index) = Catalogue::load(repository, run)?;
        let indexed = IndexedRepository::with_index(repository.clone(), index).allowing(run);
        let mut work = Self {
            repository,
            options,
            run,
            indexed,
            catalogue,
            used: Used::default(),
            followed: HashSet::default(),
            decision: Decision::default(),
            report: PruneReport::default(),
        };
        work.follow(snapshots)?;
        work.catalogue.list_packs(repository)?;
        let packs = decide::survey(work.indexed.index(), &work.catalogue.sizes, &work.used)?;
        let storage = repository.storage().as_ref();
        work.decision = decide(packs, &options.for_cold(storage, run));
        work.leave_held_packs_alone(options.now.unwrap_or_else(immutable::now))?;
        work.report.used_bytes = work.decision.used_bytes;
        work.report.unused_bytes = work.decision.unused_bytes;
        Ok(work)
    }

    /// What the store holds is not repacked: the space would not be freed.
    fn leave_held_packs_alone(&mut self, now: Timestamp) -> Result<(), PruneError> {
        let repack = std::mem::take(&mut self.decision.repack);
        let files: Vec<File> = repack.iter().map(|pack| File::Pack(pack.id)).collect();
        let held = immutable::held(self.repository, files, now, self.run)?;
        for pack in repack {
            match held.contains_key(&File::Pack(pack.id)) {
                true => self.decision.waste_left_bytes += pack.unused_bytes,
                false => self.decision.repack.push(pack),
            }
        }
        Ok(())
    }

    /// Follows the trees of snapshots that were not followed yet, and notes what they use.
    fn follow(&mut self, snapshots: Vec<SnapshotId>) -> Result<(), PruneError> {
        let mut roots = Vec::new();
        let is_new = |id: &SnapshotId| !self.followed.contains(id);
        let new: Vec<_> = snapshots.into_iter().filter(is_new).collect();
        self.run.cancel.check()?;
        for (id, snapshot) in self.repository.snapshots_of(&new) {
            roots.push(snapshot?.tree);
            self.followed.insert(id);
        }
        loop {
            self.used.grow(self.indexed.index());
            let missing = self.used.follow(&self.indexed, roots, self.run)?;
            if missing.is_empty() {
                return Ok(());
            }
            // A pack that was marked and is needed after all becomes one of the index again.
            let index = self.indexed.index_mut().expect("all readers of the index are done");
            for (kind, id) in &missing {
                if !self.catalogue.recover(*kind, *id, index) {
                    return Err(PruneError::MissingBlob { kind: *kind, id: *id });
                }
            }
            self.used.grow(self.indexed.index());
            roots = self.used.note_found(&missing, self.indexed.index());
        }
    }

    /// Copies what is used out of the packs that shall go.
    fn repack(&mut self) -> Result<(), PruneError> {
        if self.decision.repack.is_empty() {
            return Ok(());
        }
        let packs = self.decision.repack.iter().map(|pack| pack.id);
        warm_up::prepare(&self.indexed, packs, self.run)?;
        let leaving = self.decision.remove.iter().chain(&self.decision.repack);
        let done = repack::repack(
            &self.indexed,
            &self.decision.repack,
            &leaving.map(|pack| pack.id).collect(),
            &self.used,
            self.options.packs,
            self.run,
        )?;
        self.report.repacked_into_bytes = done.written_bytes;
        self.decision.repack.retain(|pack| !done.damaged.iter().any(|(bad, _)| *bad == pack.id));
        self.report.damaged = done.damaged;
        Ok(())
    }

    /// Whether the second phase would change nothing, so that nobody has to wait for it.
    fn has_nothing_to_do(&self, now: Timestamp) -> bool {
        self.decision.repack.is_empty() && self.commit(now).is_empty()
    }

    /// Takes in what others wrote since the work began. Nobody else is at work now.
    fn catch_up(&mut self) -> Result<(), PruneError> {
        let snapshots = self.repository.snapshot_ids()?;
        let index = self.indexed.index_mut().expect("all readers of the index are done");
        self.catalogue.load_new(self.repository, index, self.run)?;
        self.catalogue.list_packs(self.repository)?;
        self.follow(snapshots)
    }

    /// What is to be written and deleted.
    fn commit(&self, now: Timestamp) -> Commit {
        let grace = if self.options.instant { Duration::ZERO } else { self.options.keep_delete };
        let planned = self.decision.remove.iter().chain(&self.decision.repack);
        let planned = planned.map(|pack| pack.id).collect::<HashSet<_, RandomState>>();
        // In a dry run nothing was repacked, but would be.
        let repacked_on_paper: HashSet<_, RandomState> = match self.options.dry_run {
            true => self.decision.repack.iter().map(|pack| pack.id).collect(),
            false => HashSet::default(),
        };
        let index = self.indexed.index();
        commit::plan(&self.catalogue, index, &self.used, planned, &repacked_on_paper, now, grace)
    }

    fn finish(self, commit: &Commit) -> PruneReport {
        let mut report = self.report;
        for pack in &self.decision.repack {
            report.repacked.add(pack.bytes);
        }
        report.waste_left_bytes = self.decision.waste_left_bytes;
        commit.tell(&mut report, !self.options.dry_run);
        report
    }
}

/// The files of a repository that a prune is about.
pub(crate) fn pack_sizes(
    repository: &Repository,
) -> Result<std::collections::HashMap<PackId, u64, RandomState>, PruneError> {
    let mut sizes = std::collections::HashMap::default();
    for listed in repository.storage().list(FileKind::Pack)? {
        if let File::Pack(id) = listed.file {
            sizes.insert(id, listed.bytes);
        }
    }
    Ok(sizes)
}
