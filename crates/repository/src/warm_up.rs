//! Bringing archived packs back before they are read.
//!
//! A cold repository has its packs of data in an archive: each must be asked for, hours before it
//! can be read, and each is charged. Whoever is going to read packs and knows which (restore, dump,
//! copy, check, prune) names them all here first (`prepare`). What is archived is asked for at
//! once, so that one wait does for all, or is told in a refusal when nobody allowed that ([`WarmUp`]
//! of the run).
//!
//! A store in which nothing is archived is asked nothing; one in which something may be, only when
//! bringing back was allowed.
//!
//! Packs of trees are never written to an archive, but a rule of the bucket may move them there.
//! They are needed to know what is needed, so that nobody can name those that will be read: when the
//! first one turns out to be archived, all of them are brought back (`Folders`), which again is one
//! wait.
//!
//! All else is small, and every command needs it: what a rule of the bucket moved there is the
//! business of `small.rs`.

mod small;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use muster_model::{
    Class, Fault,
    units::{format_duration, format_size},
};
use thiserror::Error;

pub use small::small_files;

use crate::{
    check::each_on_threads,
    format::pack::{BlobKind, pack_bytes},
    id::PackId,
    lock::time_since_boot,
    prune::Amount,
    repository::{IndexedRepository, ReadError},
    run::{Cancel, Cancelled, Run},
    storage::{Archiving, File, Reach, Storage, StorageError, StorageProblem},
};

/// How many questions are under way; the store bounds them further.
const AT_ONCE: usize = 16;

/// The first and the longest pause between two looks: what is quickest comes within a minute, what
/// is slowest within two days.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5 * 60));

/// How long to wait unless said otherwise: the slowest archive brings back within two days.
pub const AT_MOST_DEFAULT: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// Time, which tests bring themselves.
pub trait Clock: Send + Sync {
    /// Time since some moment, also while the machine sleeps.
    fn now(&self) -> Duration;

    /// Waits, or stops early because the run was asked to stop.
    fn wait(&self, time: Duration, cancel: &Cancel);
}

/// The real clock.
struct Real;

impl Clock for Real {
    fn now(&self) -> Duration {
        time_since_boot()
    }

    fn wait(&self, time: Duration, cancel: &Cancel) {
        /// How quickly a request to stop is noticed.
        const TICK: Duration = Duration::from_millis(100);
        let until = self.now() + time;
        while !cancel.is_requested() {
            match until.checked_sub(self.now()) {
                Some(left) if !left.is_zero() => thread::park_timeout(left.min(TICK)),
                _ => return,
            }
        }
    }
}

/// What is brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Packs.
    Packs,
    /// Snapshots, index files, keys, locks, `config`.
    SmallFiles,
}

impl What {
    /// What people call so many of them.
    #[must_use]
    pub fn noun(self, count: u64) -> &'static str {
        match (self, count) {
            (Self::Packs, 1) => "pack",
            (Self::Packs, _) => "packs",
            (Self::SmallFiles, 1) => "small file",
            (Self::SmallFiles, _) => "small files",
        }
    }
}

/// What becomes of archived files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// They were asked for, and will be waited for.
    Asked {
        /// What these are.
        what: What,
        /// All that is waited for.
        waits: Amount,
        /// Among them, what was on its way before.
        on_their_way: Amount,
    },
    /// All can be read.
    Ready {
        /// What these are.
        what: What,
        /// What was waited for.
        came: Amount,
        /// How long.
        waited: Duration,
    },
}

type Tell = dyn Fn(Event) + Send + Sync;

/// Whether archived packs may be brought back, which takes time and money. By default not.
#[derive(Clone, Default)]
pub struct WarmUp {
    at_most: Option<Duration>,
    clock: Option<Arc<dyn Clock>>,
    tell: Option<Arc<Tell>>,
}

impl fmt::Debug for WarmUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WarmUp").field("at_most", &self.at_most).finish_non_exhaustive()
    }
}

impl WarmUp {
    /// They may, and are waited for so long at most.
    #[must_use]
    pub fn allowed(at_most: Duration) -> Self {
        Self { at_most: Some(at_most), ..Self::default() }
    }

    /// The same, and somebody is told.
    #[must_use]
    pub fn telling(self, tell: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { tell: Some(Arc::new(tell)), ..self }
    }

    /// The same by another clock.
    #[must_use]
    pub fn by(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// Whether archived packs may be brought back.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.at_most.is_some()
    }

    fn tell(&self, event: Event) {
        if let Some(tell) = &self.tell {
            tell(event);
        }
    }
}

/// Whether it is worth to find out which packs will be read, and to ask the store about them.
pub(crate) fn is_due(storage: &dyn Storage, run: &Run) -> bool {
    match storage.archiving() {
        Archiving::Never => false,
        Archiving::Possible => run.warm_up.is_allowed(),
        Archiving::Expected => true,
    }
}

/// How some files can be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    archived: Vec<Piece>,
    warming: Vec<Piece>,
}

/// A file, and its size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    file: File,
    bytes: u64,
}

fn amount(pieces: &[Piece]) -> Amount {
    let bytes = pieces.iter().map(|piece| piece.bytes).sum();
    Amount { packs: pieces.len() as u64, bytes }
}

impl Found {
    /// What cannot be read now.
    pub(crate) fn cold(&self) -> Amount {
        let (archived, warming) = (amount(&self.archived), amount(&self.warming));
        Amount { packs: archived.packs + warming.packs, bytes: archived.bytes + warming.bytes }
    }
}

/// Makes sure that packs can be read: asks for those that are archived and waits for them.
///
/// # Errors
/// Fails when some are archived and bringing them back was not allowed, when that takes longer than
/// was allowed, when the store fails or refuses, and when the run is cancelled.
pub(crate) fn prepare(
    repository: &IndexedRepository,
    packs: impl IntoIterator<Item = PackId>,
    run: &Run,
) -> Result<(), ReadError> {
    let storage = repository.storage().as_ref();
    if !is_due(storage, run) {
        return Ok(());
    }
    let found = look(repository, packs, run)?;
    let cold = found.cold();
    if cold.packs == 0 {
        return Ok(());
    }
    let Some(at_most) = run.warm_up.at_most else {
        let (cold, on_their_way) = (cold, amount(&found.warming));
        return Err(NotWarm::Archived { location: storage.location(), cold, on_their_way }.into());
    };
    bring(storage, found, What::Packs, run, at_most)
}

/// Asks for what is archived, and waits for it.
fn bring(
    storage: &dyn Storage,
    found: Found,
    what: What,
    run: &Run,
    at_most: Duration,
) -> Result<(), ReadError> {
    let (all, on_their_way) = (found.cold(), amount(&found.warming));
    let clock = run.warm_up.clock.clone().unwrap_or_else(|| Arc::new(Real));
    let began = clock.now();
    ask(storage, &found.archived, what, run)?;
    run.warm_up.tell(Event::Asked { what, waits: all, on_their_way });
    let wait = Wait { storage, clock: clock.as_ref(), run, what, all, began, at_most };
    let waited = wait.until_ready([found.archived, found.warming].concat())?;
    run.warm_up.tell(Event::Ready { what, came: all, waited });
    Ok(())
}

/// Archived packs of folders, brought back at most once.
#[derive(Debug, Default)]
pub(crate) struct Folders {
    /// The run that allows it.
    leave: Option<Run>,
    came: Mutex<Option<bool>>,
}

impl Folders {
    /// As the run allows.
    pub(crate) fn of(run: &Run) -> Self {
        let leave = run.warm_up.is_allowed().then(|| run.clone());
        Self { leave, came: Mutex::default() }
    }

    /// Brings all packs back that hold a tree, or waits until another thread did. Tells whether
    /// they can be read now; the error is told once.
    pub(crate) fn bring_back(&self, repository: &IndexedRepository) -> Result<bool, ReadError> {
        let Some(run) = &self.leave else { return Ok(false) };
        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(came) = *came {
            return Ok(came);
        }
        let trees = repository.index().iter().filter(|place| place.blob.kind == BlobKind::Tree);
        let packs: HashSet<PackId> = trees.map(|place| place.pack).collect();
        let prepared = prepare(repository, packs, run);
        *came = Some(prepared.is_ok());
        match prepared {
            Ok(()) => Ok(true),
            // Whoever reads a tree must not take this for something that is wrong with the tree.
            Err(ReadError::Storage(error)) => Err(NotWarm::Failed(error).into()),
            Err(error) => Err(error),
        }
    }
}

/// Asks the store how packs can be read. One that is missing is left to whoever reads it.
pub(crate) fn look(
    repository: &IndexedRepository,
    packs: impl IntoIterator<Item = PackId>,
    run: &Run,
) -> Result<Found, ReadError> {
    let pieces = packs.into_iter().map(|id| {
        let bytes = pack_bytes(&repository.index().pack_blobs(&id));
        Piece { file: File::Pack(id), bytes }
    });
    show(run, || "asking which packs are archived".to_owned());
    look_at(repository.storage().as_ref(), pieces.collect(), run)
}

/// The same of any files.
fn look_at(storage: &dyn Storage, pieces: Vec<Piece>, run: &Run) -> Result<Found, ReadError> {
    let mut found = Found::default();
    for (piece, reach) in each(pieces, run, |piece| (piece, storage.reach(piece.file)))? {
        let into = match reach {
            Ok(Reach::Archived) => &mut found.archived,
            Ok(Reach::Warming) => &mut found.warming,
            Ok(Reach::Ready) => continue,
            Err(error) if error.problem() == StorageProblem::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        into.push(piece);
    }
    Ok(found)
}

/// Asks the store to bring files back.
fn ask(storage: &dyn Storage, pieces: &[Piece], what: What, run: &Run) -> Result<(), ReadError> {
    show(run, || format!("asking for {}", told(amount(pieces), what)));
    let answers = each(pieces.to_vec(), run, |piece| storage.warm_up(piece.file))?;
    Ok(answers.into_iter().collect::<Result<(), StorageError>>()?)
}

/// Does one thing for each file, several at once.
fn each<T: Send, R: Send>(
    items: Vec<T>,
    run: &Run,
    question: impl Fn(T) -> R + Sync,
) -> Result<Vec<R>, Cancelled> {
    let mut answers = Vec::with_capacity(items.len());
    let threads = vec![(); AT_ONCE.min(items.len())];
    let work = |(): &mut (), item| question(item);
    each_on_threads(threads, items, &run.cancel, work, |answer| answers.push(answer))?;
    Ok(answers)
}

fn show(run: &Run, text: impl FnOnce() -> String) {
    run.progress.set_current(|current| current.push_str(&text()));
}

/// Waiting for files.
struct Wait<'w> {
    storage: &'w dyn Storage,
    clock: &'w dyn Clock,
    run: &'w Run,
    what: What,
    all: Amount,
    began: Duration,
    at_most: Duration,
}

impl Wait<'_> {
    /// Waits until all can be read; tells how long that took.
    fn until_ready(&self, mut cold: Vec<Piece>) -> Result<Duration, ReadError> {
        for looks in 0.. {
            cold = self.still_cold(cold)?;
            let waited = self.clock.now().saturating_sub(self.began);
            if cold.is_empty() {
                return Ok(waited);
            }
            let left = self.at_most.saturating_sub(waited);
            if left.is_zero() {
                return Err(
                    NotWarm::TimedOut { what: self.what, left: amount(&cold), waited }.into()
                );
            }
            show(self.run, || {
                let ready = self.all.packs.saturating_sub(cold.len() as u64);
                let waited = format_duration(Duration::from_secs(waited.as_secs()));
                let noun = self.what.noun(self.all.packs);
                format!("{ready} of {} archived {noun} are back, waited {waited}", self.all.packs)
            });
            self.clock.wait(pause(looks).min(left), &self.run.cancel);
            self.run.cancel.check()?;
        }
        unreachable!("nobody looks four thousand million times")
    }

    /// Those of the files that cannot be read yet. They come about together, so that the first ones
    /// that are not there tell enough of all others.
    fn still_cold(&self, pieces: Vec<Piece>) -> Result<Vec<Piece>, ReadError> {
        let mut cold = Vec::new();
        let mut some = pieces.chunks(AT_ONCE);
        for part in some.by_ref() {
            for answer in each(part.to_vec(), self.run, |piece| (piece, self.is_ready(piece)))? {
                if !answer.1? {
                    cold.push(answer.0);
                }
            }
            if !cold.is_empty() {
                break;
            }
        }
        cold.extend(some.flatten());
        Ok(cold)
    }

    /// Whether a file can be read. One that is archived again, since its time was over, is asked for
    /// again.
    fn is_ready(&self, Piece { file, .. }: Piece) -> Result<bool, StorageError> {
        match self.storage.reach(file) {
            Ok(Reach::Ready) => Ok(true),
            Ok(Reach::Warming) => Ok(false),
            Ok(Reach::Archived) => self.storage.warm_up(file).map(|()| false),
            // Whoever reads it tells of that.
            Err(error) if error.problem() == StorageProblem::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// How long to wait after so many looks.
fn pause(looks: u32) -> Duration {
    let (first, longest) = PAUSES;
    first.saturating_mul(1 << looks.min(16)).min(longest)
}

fn told(amount: Amount, what: What) -> String {
    format!("{} {} ({})", amount.packs, what.noun(amount.packs), format_size(amount.bytes))
}

/// Packs that are needed cannot be read yet.
#[derive(Debug, Error)]
pub enum NotWarm {
    /// They are archived, and nobody allowed to bring them back.
    #[error("read {} of {location}: archived{}", told(*cold, What::Packs), under_way(*on_their_way))]
    Archived {
        /// Where.
        location: String,
        /// All that would have to be waited for.
        cold: Amount,
        /// Among them, what is on its way.
        on_their_way: Amount,
    },
    /// They did not come in time.
    #[error("wait for {} that the store brings back: not there after {}", told(*left, *what), format_duration(*waited))]
    TimedOut {
        /// What these are.
        what: What,
        /// What is not there.
        left: Amount,
        /// How long was waited.
        waited: Duration,
    },
    /// The store failed, or refuses to bring back.
    #[error("bring back archived packs")]
    Failed(#[source] StorageError),
}

fn under_way(amount: Amount) -> String {
    match amount.packs {
        0 => String::new(),
        _ => format!(", {} of them on their way", amount.packs),
    }
}

impl Fault for NotWarm {
    fn class(&self) -> Class {
        match self {
            Self::Archived { .. } => Class::Denied,
            Self::TimedOut { .. } => Class::Transient,
            Self::Failed(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Archived { .. } => "packs-archived",
            Self::TimedOut { .. } => "warm-up-timed-out",
            Self::Failed(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::Archived { .. } => {
                "nothing was read; say --warm-up (in a plan: the repository's warm_up) to bring them \
                 back, which takes hours and is charged"
            }
            Self::TimedOut { .. } => {
                "what was asked for still comes: run the command again later, or wait longer with \
                 --warm-up-timeout"
            }
            Self::Failed(error) => return error.help(),
        };
        Some(help.to_owned())
    }
}

#[cfg(test)]
mod tests;
