//! Snapshots that nobody can destroy: everything that they need is held in the store.
//!
//! Chunks are stored once, so a new snapshot needs old packs: their holds are extended with it.
//! What a snapshot needs is the config, the keys, the index files that name its packs, the packs
//! themselves, and its own file (`survey`). How each is held is read from the store (`look`), never
//! from what was asked for.
//!
//! **The snapshot's own file is held last** (`hold`): only when all else was seen to be held, as
//! long, as the file that it should be. In a store that holds nothing by a rule of its own, the
//! hold of the snapshot's file alone therefore vouches for the rest (`seals`).
//!
//! What is held is neither repacked nor deleted by prune and forget (`held`): the store would only
//! hide it, and free nothing.
//!
//! What this does not do: decide for how long, read content, or hold what no snapshot needs. The
//! survey follows the trees of each snapshot on its own.

mod errors;
mod survey;

use std::collections::{BTreeMap, HashMap};

pub use self::{
    errors::{HeldError, ImmutableError},
    survey::{Needed, Survey, survey},
};
use crate::{
    check::parallel::each_on_threads,
    environment::Environment,
    format::time::Timestamp,
    id::SnapshotId,
    repository::Repository,
    run::Run,
    storage::{File, Holding, Mode, Retention, Storage, StorageError, StorageProblem},
};

/// How many questions are under way; the store bounds them further.
const AT_ONCE: usize = 16;

/// Now, by the wall clock: holds end by it.
pub(crate) fn now() -> Timestamp {
    Environment::detect().now()
}

/// What the store tells of each file.
pub type States = HashMap<File, Result<Retention, StorageError>>;

/// Why a file does not count as held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// It is not held, or for less.
    Free,
    /// It is not there.
    Missing,
    /// The store holds something else under its name.
    Altered,
    /// The store did not tell.
    Unknown(String),
}

/// How a snapshot is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Packs that it needs.
    pub packs: usize,
    /// All files that it needs.
    pub files: usize,
    /// Until when nobody can destroy any of them; `None` when that is not so, or no longer.
    pub until: Option<Timestamp>,
    /// Who may end it earlier; the weakest mode of all its files.
    pub mode: Option<Mode>,
    /// What is not held, and why.
    pub lacking: Vec<(File, Lack)>,
}

/// What is to be held longer, and what cannot be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proposal {
    /// To be extended; the snapshots' own files come afterwards and are not among them.
    pub extend: Vec<File>,
    /// Snapshots whose own file is not held long enough yet.
    pub seal: Vec<SnapshotId>,
    /// Bytes of what is to be extended, where they are known.
    pub bytes: u64,
}

/// What was done, and how each snapshot is held now, as read back.
#[derive(Debug)]
#[must_use = "a snapshot may not be held"]
pub struct HoldReport {
    /// Until when they were to be held.
    pub until: Timestamp,
    /// Files whose hold was extended.
    pub extended: usize,
    /// The snapshots.
    pub snapshots: Vec<Held>,
}

impl HoldReport {
    /// The snapshots that are not held as long as they should be.
    pub fn lacking(&self) -> impl Iterator<Item = &Held> {
        let covers = |held: &Held| held.until.is_some_and(|until| until >= self.until);
        self.snapshots.iter().filter(move |held| !covers(held))
    }
}

/// Asks the store how each file of a survey is held.
///
/// # Errors
/// Fails when the store cannot hold files, or the run is cancelled; what it does not tell of one
/// file is in the answer.
pub fn look(repository: &Repository, survey: &Survey, run: &Run) -> Result<States, ImmutableError> {
    require_holding(repository)?;
    let files = survey.files.keys().copied().collect();
    Ok(ask(repository, files, run, |storage, file| storage.retention(file))?)
}

fn require_holding(repository: &Repository) -> Result<(), ImmutableError> {
    match repository.storage().holding()? {
        Holding::Never => {
            let location = repository.storage().location();
            let problem = StorageProblem::CannotHold;
            Err(StorageError::new("hold the files of", location, problem).into())
        }
        _ => Ok(()),
    }
}

/// Does one thing for each file, several at once.
fn ask<T: Send>(
    repository: &Repository,
    files: Vec<File>,
    run: &Run,
    question: impl Fn(&dyn Storage, File) -> Result<T, StorageError> + Sync,
) -> Result<HashMap<File, Result<T, StorageError>>, crate::run::Cancelled> {
    let mut answers = HashMap::new();
    let storage = repository.storage().as_ref();
    run.progress.add_total(files.len() as u64, 0);
    let work = |(): &mut (), file| (file, question(storage, file));
    each_on_threads(vec![(); AT_ONCE.min(files.len())], files, &run.cancel, work, |answer| {
        run.progress.add_done(1, 0);
        answers.insert(answer.0, answer.1);
    })?;
    Ok(answers)
}

/// How each snapshot is held by what the store told. A hold that is over is none.
#[must_use]
pub fn judge(survey: &Survey, states: &States, now: Timestamp) -> Vec<Held> {
    survey.snapshots.keys().map(|id| judge_one(survey, states, *id, now)).collect()
}

fn judge_one(survey: &Survey, states: &States, id: SnapshotId, now: Timestamp) -> Held {
    let files = survey.files_of(id);
    let mut held = Held {
        snapshot: id,
        packs: files.iter().filter(|file| matches!(file, File::Pack(_))).count(),
        files: files.len(),
        until: None,
        mode: None,
        lacking: Vec::new(),
    };
    for file in files {
        let (until, mode) = match state_of(survey, states, file, now) {
            Ok(found) => found,
            Err(lack) => {
                held.lacking.push((file, lack));
                continue;
            }
        };
        held.until = Some(held.until.map_or(until, |earlier| earlier.min(until)));
        held.mode = Some(held.mode.map_or(mode, |weaker| weaker.min(mode)));
    }
    if !held.lacking.is_empty() {
        (held.until, held.mode) = (None, None);
    }
    held
}

/// Until when a file is held as what it should be, or what stands against that.
fn state_of(
    survey: &Survey,
    states: &States,
    file: File,
    now: Timestamp,
) -> Result<(Timestamp, Mode), Lack> {
    let retention = match states.get(&file) {
        Some(Ok(retention)) => retention,
        Some(Err(error)) if error.problem() == StorageProblem::NotFound => {
            return Err(Lack::Missing);
        }
        Some(Err(error)) => return Err(Lack::Unknown(error.to_string())),
        None => return Err(Lack::Unknown("nobody asked".to_owned())),
    };
    if is_altered(survey, file, retention) {
        return Err(Lack::Altered);
    }
    match (retention.until.filter(|until| *until > now), retention.mode) {
        (Some(until), Some(mode)) => Ok((until, mode)),
        _ => Err(Lack::Free),
    }
}

/// Who can write can put something else over a file: the hold of that protects nothing.
fn is_altered(survey: &Survey, file: File, retention: &Retention) -> bool {
    let has_other_size = survey
        .files
        .get(&file)
        .is_some_and(|needed| needed.bytes.is_some_and(|bytes| bytes != retention.bytes));
    let has_other_hash = match (file.digest(), retention.sha256) {
        (Some(name), Some(content)) => name != content,
        _ => false,
    };
    has_other_size || has_other_hash
}

/// Decides what must be extended, so that all that the snapshots need is held until `until`.
#[must_use]
pub fn propose(survey: &Survey, states: &States, until: Timestamp, now: Timestamp) -> Proposal {
    let mut proposal = Proposal::default();
    for (file, needed) in &survey.files {
        let covers = match state_of(survey, states, *file, now) {
            Ok((held, _)) => held >= until,
            // What is not there, or not what it should be, is not held: that is told instead.
            Err(Lack::Missing | Lack::Altered) => true,
            Err(_) => false,
        };
        match file {
            _ if covers => {}
            File::Snapshot(id) => proposal.seal.push(*id),
            file => {
                proposal.extend.push(*file);
                proposal.bytes += needed.bytes.unwrap_or(0);
            }
        }
    }
    proposal
}

/// Applies a proposal: extends, reads back, and holds the file of each snapshot when all else that
/// it needs was seen to be held.
///
/// # Errors
/// Fails when the run is cancelled; what could not be held is in the report.
pub fn hold(
    repository: &Repository,
    survey: &Survey,
    mut states: States,
    proposal: Proposal,
    until: Timestamp,
    run: &Run,
) -> Result<HoldReport, ImmutableError> {
    let now = now();
    let mut extended = extend(repository, proposal.extend, &mut states, until, run)?;
    let is_ready = |id: &SnapshotId| {
        let others = survey.files_of(*id).into_iter().filter(|file| *file != File::Snapshot(*id));
        let covers =
            |file| state_of(survey, &states, file, now).is_ok_and(|(held, _)| held >= until);
        others.into_iter().all(covers)
    };
    let ready: Vec<File> =
        proposal.seal.iter().filter(|id| is_ready(id)).map(|id| File::Snapshot(*id)).collect();
    extended += extend(repository, ready, &mut states, until, run)?;
    Ok(HoldReport { until, extended, snapshots: judge(survey, &states, now) })
}

/// Extends holds and notes how they are now, by the store's own word.
fn extend(
    repository: &Repository,
    files: Vec<File>,
    states: &mut States,
    until: Timestamp,
    run: &Run,
) -> Result<usize, ImmutableError> {
    let answers = ask(repository, files, run, |storage, file| {
        storage.retain(file, until)?;
        storage.retention(file)
    })?;
    let covers = |answer: &Result<Retention, StorageError>| {
        answer.as_ref().is_ok_and(|retention| retention.covers(until))
    };
    let extended = answers.values().filter(|answer| covers(answer)).count();
    states.extend(answers);
    Ok(extended)
}

/// Holds everything that these snapshots need until `until`: survey, proposal and its application.
///
/// # Errors
/// Fails when the store cannot hold, what snapshots need cannot be read, or the run is cancelled.
pub fn hold_snapshots(
    repository: &Repository,
    ids: &[SnapshotId],
    until: Timestamp,
    run: &Run,
) -> Result<HoldReport, ImmutableError> {
    require_holding(repository)?;
    let survey = survey(repository, ids, run)?;
    let states = look(repository, &survey, run)?;
    let proposal = propose(&survey, &states, until, now());
    hold(repository, &survey, states, proposal, until, run)
}

/// Until when each of these snapshots is held, by the store's own word. Cheap, one question each,
/// where the store holds nothing by itself; else everything that they need is looked at. Nothing
/// is known (`None`) of a store that cannot hold.
///
/// # Errors
/// As [`hold_snapshots`].
pub fn seals(
    repository: &Repository,
    ids: &[SnapshotId],
    run: &Run,
) -> Result<BTreeMap<SnapshotId, Option<Timestamp>>, ImmutableError> {
    let now = now();
    match repository.storage().holding()? {
        Holding::Never => Ok(BTreeMap::new()),
        Holding::OnRequest => {
            let files = ids.iter().map(|id| File::Snapshot(*id)).collect();
            let answers = ask(repository, files, run, |storage, file| storage.retention(file))?;
            let mut seals = BTreeMap::new();
            for (file, answer) in answers {
                let File::Snapshot(id) = file else { continue };
                let is_itself = |it: &Retention| it.sha256.is_none_or(|sha| sha == *id.as_bytes());
                let retention = answer?;
                let until = retention.until.filter(|until| *until > now && is_itself(&retention));
                seals.insert(id, until);
            }
            Ok(seals)
        }
        Holding::ByDefault => {
            let survey = survey(repository, ids, run)?;
            let states = look(repository, &survey, run)?;
            let held = judge(&survey, &states, now);
            Ok(held.into_iter().map(|held| (held.snapshot, held.until)).collect())
        }
    }
}

/// Snapshots that the store holds, and how: to delete one would hide it and free nothing.
pub type HeldSnapshots = Vec<(SnapshotId, Retention)>;

/// Those of the snapshots whose own file the store holds now, in their order.
///
/// # Errors
/// Fails when the store does, or the run is cancelled.
pub fn held_snapshots(
    repository: &Repository,
    ids: &[SnapshotId],
    run: &Run,
) -> Result<HeldSnapshots, HeldError> {
    let files = ids.iter().map(|id| File::Snapshot(*id)).collect();
    let held = held(repository, files, now(), run)?;
    let find = |id: &SnapshotId| Some((*id, *held.get(&File::Snapshot(*id))?));
    Ok(ids.iter().filter_map(find).collect())
}

/// Those of `files` that the store holds now; nobody is asked where nothing can be held.
pub(crate) fn held(
    repository: &Repository,
    files: Vec<File>,
    now: Timestamp,
    run: &Run,
) -> Result<HashMap<File, Retention>, HeldError> {
    if files.is_empty() || repository.storage().holding()? == Holding::Never {
        return Ok(HashMap::new());
    }
    let mut held = HashMap::new();
    for (file, answer) in ask(repository, files, run, |storage, file| storage.retention(file))? {
        match answer {
            Ok(retention) if retention.is_held(now) => drop(held.insert(file, retention)),
            Err(error) if error.problem() != StorageProblem::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests;
