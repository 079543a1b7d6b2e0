//! Checking a repository: is everything there that a restore would need?
//!
//! # What is verified, and in which order
//!
//! A check never stops at damage: it collects all it can find, and tells of each damage which
//! snapshots and files lose something by it. It looks in this order:
//!
//! 1. **config, keys, locks, snapshots.** Each file is what its name says (SHA-256), opens, and
//!    parses within its bounds. Snapshots are listed before the index is read, since a backup
//!    stores packs, then indexes, then its snapshot: whatever a listed snapshot needs is in an
//!    index by then.
//! 2. **Indexes.** Each file is what its name says, opens, parses; no entry is impossible.
//! 3. **Packs, without reading them.** Each pack of the index is there; its blobs leave neither
//!    gap nor overlap; blobs, header and length field add up to its size, to the byte. A pack
//!    whose size is wrong is read all the same, so that the report can say which blobs are
//!    left, and whether it holds the content of another file.
//! 4. **Packs in no index.** Their headers are read. What they hold is followed by the next
//!    step; when a snapshot needs it, an index file is missing, which is damage. Otherwise
//!    they are litter of an interrupted backup or prune, and a hint.
//! 5. **Trees.** Each tree that a snapshot reaches is read once: it is what its id says, is a
//!    valid tree, and every tree and chunk it refers to is in an index. The lengths of a file's
//!    chunks add up to its size (restic does not compare these).
//! 6. **Data, when asked for.** Packs are read whole, all or a part of them: the file is what
//!    its name says, its header agrees with the index, every blob authenticates, decompresses,
//!    and is what its id says. A pack that seems damaged is read a second time.
//! 7. **Who is affected.** Only after damage: which snapshots, and which files in them, need
//!    something of which no sound copy is left.
//!
//! # What cannot be detected
//!
//! - *A missing snapshot, key or lock.* Nothing refers to them: a lost snapshot looks exactly
//!   like a forgotten one, a lost second key like a removed one, a lost lock like a released
//!   one.
//! - *An older state.* Somebody who puts back all files of last week shows a sound repository
//!   of last week.
//! - *Damage in what is not read.* Without reading data, a flipped bit in a pack is found only
//!   where a tree lies; with a part of the data, only in that part.
//! - *What the backup was told.* Chunks are compared with their ids and never with the source:
//!   memory that flipped a bit before hashing is beyond any check here, and so is a file that
//!   was nonsense already.
//! - *That a restore succeeds*: space, permissions and the application are a drill's business.
//!
//! # Bounds
//!
//! The index is in memory whole, as everywhere; each tree seen takes 32 bytes and some.
//! Buffers for packs share a budget, trees are parsed a few at a time, and lists in the report
//! that could grow with the repository end in a count.
//!
//! # Source
//! restic, `doc/design.rst`; `internal/checker`, `internal/repository/checker.go` for what
//! users of restic expect.

mod affected;
mod files;
mod findings;
pub(crate) mod parallel;
mod read_data;
mod report;
mod rota;
mod structure;
mod subset;
mod trees;

use std::time::Instant;

use muster_model::{Class, Fault};
use thiserror::Error;

pub(crate) use parallel::{asking_threads, each_on_threads};
pub use report::{CheckReport, Counts, Damage, Hint, InTurn, Problem, Subject};
pub use rota::{Rota, Verified};
pub(crate) use structure::{fit, read_header_of};
pub use subset::{ReadData, UnknownSubset};

use crate::{
    format::FormatError,
    id::PackId,
    repository::{IndexedRepository, ReadError, Repository},
    run::{Cancelled, Run},
    storage::{File, StorageError},
    warm_up,
};
use findings::{Findings, Map};
use rota::Order;

/// What a check looks at, beyond what it always does.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CheckOptions {
    /// How much of the data is read back.
    pub read_data: ReadData,
}

/// Checks a repository. Takes no lock: the caller holds one, so that nobody removes files
/// meanwhile.
///
/// Progress counts bytes of packs and packs when data is read, else trees.
///
/// # Errors
/// Fails when the check itself cannot go on: the store cannot list its files, memory for
/// decompression is refused, or the run is cancelled. Damage is no error; it is in the report.
pub fn check(
    repository: &Repository,
    options: &CheckOptions,
    run: &Run,
) -> Result<CheckReport, CheckError> {
    check_in_turn(repository, options, None, run)
}

/// Checks as [`check`] does, and reads back those packs of its share whose turn it is. Archived ones
/// that the run does not allow to bring back are counted and keep their turn.
///
/// # Errors
/// As [`check`].
pub fn check_in_turn(
    repository: &Repository,
    options: &CheckOptions,
    rota: Option<&Rota>,
    run: &Run,
) -> Result<CheckReport, CheckError> {
    let began = Instant::now();
    let mut findings = Findings::default();
    run.progress.set_current(|text| text.push_str("snapshots"));
    let roots = files::check(repository, run, &mut findings)?;
    run.progress.set_current(|text| text.push_str("index"));
    let mut structure = structure::check(repository, run, &mut findings)?;
    let unread = std::mem::take(&mut structure.unread);
    let structure::Structure { index, sizes, .. } = structure;
    let indexed = IndexedRepository::with_index(repository.clone(), index).allowing(run);
    run.progress.set_current(|text| text.push_str("trees"));
    let count_trees = options.read_data == ReadData::No;
    trees::walk(&indexed, &roots, count_trees, run, &mut findings)?;
    structure::hint_at_unindexed(indexed.index(), &sizes, &mut findings);
    let packs: Vec<_> = unread.into_iter().map(|wanted| (wanted.pack, wanted.bytes)).collect();
    let all = rota.map(|_| packs.clone());
    let mut wanted = options.read_data.select(packs);
    let mut order = Order::LargestFirst;
    if let Some(rota) = rota {
        wanted = rota.due(wanted);
        order = Order::AsGiven { began, budget: rota.budget };
    }
    // In turn, one reading of many leaves something for the next one anyway: it does without what
    // is archived. Who asked for a share once is asked whether it may come back.
    if rota.is_none() || run.warm_up.is_allowed() {
        warm_up::prepare(&indexed, wanted.iter().map(|&(pack, _)| pack), run)?;
    }
    let was_archived =
        |(pack, _): &&(PackId, u64)| rota.is_some_and(|rota| rota.verified.was_archived(pack));
    let cold: Map<PackId, u64> = wanted.iter().filter(was_archived).copied().collect();
    read_packs(&indexed, wanted, (order, cold), run, &mut findings)?;
    if !findings.damages().is_empty() {
        run.progress.set_current(|text| text.push_str("affected snapshots"));
        affected::trace(&indexed, &roots, run, &mut findings)?;
    }
    let has = |file: &File| match file {
        File::Pack(pack) => sizes.contains_key(pack),
        other => repository.storage().size(*other).is_ok(),
    };
    let mut report = findings.into_report(indexed.index(), has);
    report.in_turn = rota.zip(all).map(|(rota, all)| rota.sum_up(&all, &report));
    Ok(report)
}

/// Reads packs whole. Those of `cold` were archived when they were tried last: when their turn does
/// not come, that is why they are not read.
fn read_packs(
    repository: &IndexedRepository,
    selected: Vec<(PackId, u64)>,
    (order, mut cold): (Order, Map<PackId, u64>),
    run: &Run,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    if selected.is_empty() {
        return Ok(());
    }
    run.progress.set_current(|text| text.push_str("packs"));
    let bytes: u64 = selected.iter().map(|&(_, bytes)| bytes).sum();
    run.progress.add_total(selected.len() as u64, bytes);
    run.progress.total_is_known();
    let (mut packs_due, mut bytes_due): (u64, u64) = (selected.len() as u64, bytes);
    let wanted = selected.into_iter().map(|(pack, bytes)| read_data::Wanted { pack, bytes });
    let (index, progress) = (repository.index(), Some(&*run.progress));
    let wanted = wanted.collect();
    read_data::read(repository, index, wanted, order, &run.cancel, progress, |seen| {
        packs_due -= 1;
        bytes_due -= seen.bytes();
        cold.remove(&seen.pack);
        seen.tell(findings);
    })?;
    for (pack, bytes) in cold {
        packs_due -= 1;
        bytes_due -= bytes;
        findings.leave_archived(pack);
    }
    (findings.counts.packs_due, findings.counts.bytes_due) = (packs_due, bytes_due);
    Ok(())
}

/// The check itself could not go on.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The store failed to list its files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Something that is needed to go on could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// zstd could not allocate its tables.
    #[error("set up decompression")]
    Decoder(#[source] FormatError),
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Fault for CheckError {
    fn class(&self) -> Class {
        match self {
            Self::Storage(error) => error.class(),
            Self::Read(error) => error.class(),
            Self::Decoder(_) => Class::Transient,
            Self::Cancelled(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::Read(error) => error.code(),
            Self::Decoder(_) => "out-of-memory",
            Self::Cancelled(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Storage(error) => error.help(),
            Self::Read(error) => error.help(),
            Self::Decoder(_) => None,
            Self::Cancelled(error) => error.help(),
        }
    }
}

#[cfg(test)]
mod tests;
