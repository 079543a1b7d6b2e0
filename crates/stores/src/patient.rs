//! A wrapper for any store: tries again what may pass, bounds how much happens at once (`gate.rs`),
//! counts.
//!
//! Only problems that may pass are met with another try ([`StorageProblem::is_transient`]), never
//! a file that is not there or a refusal. A `put` whose outcome is unknown is looked at before it
//! is repeated: it may have been done, and only its answer lost. When to try again is decided in
//! `backoff.rs`; this is the hand that waits.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use muster_repository::{
    format::{pack::BlobKind, time::Timestamp},
    id::PackId,
    storage::{
        Archiving, Costs, File, FileKind, Holding, Listed, Reach, Retention, Spooled, Storage,
        StorageError, StorageProblem, Storing,
    },
};

use crate::{
    backoff::Patience,
    gate::{Gate, Outcome},
    pace::{Pace, Statistics, Way},
    stop::{self, LOOK, Stop},
};

/// Time and chance, which tests bring themselves.
pub trait Surroundings: Send + Sync + fmt::Debug {
    /// Time since some moment.
    fn now(&self) -> Duration;

    /// Waits, or stops early because somebody asked for it (`false`).
    fn wait(&self, time: Duration) -> bool;

    /// A number from 0 to 1.
    fn chance(&self) -> f64;
}

/// The real clock, and the system's randomness.
#[derive(Debug)]
struct Real {
    began: Instant,
    pace: Arc<Pace>,
}

impl Surroundings for Real {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            if self.pace.stop.is_ended() {
                return false;
            }
            match until.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => thread::park_timeout(left.min(LOOK)),
                _ => return true,
            }
        }
    }

    fn chance(&self) -> f64 {
        let mut bytes = [0; 4];
        // Without randomness the pause is the longest: safe, if not spread.
        match getrandom::fill(&mut bytes) {
            Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
            Err(_) => 1.0,
        }
    }
}

/// A store that is asked again. See the module's page.
#[derive(Debug)]
pub struct Patient<S> {
    inner: S,
    patience: Patience,
    surroundings: Box<dyn Surroundings>,
    gate: Gate,
    connections: u32,
    pace: Arc<Pace>,
    /// Whether content passes the limits here; a store that streams paces its own bytes.
    paces: bool,
    has_answered: AtomicBool,
}

impl<S: Storage> Patient<S> {
    /// Wraps a store for a test that brings its own time.
    #[must_use]
    pub fn with_surroundings(
        inner: S,
        patience: Patience,
        surroundings: Box<dyn Surroundings>,
    ) -> Self {
        let pace = Arc::new(Pace::new(crate::Limits::default(), Stop::default()));
        // Time that a test makes pass, passes for one thread: deletions take turns.
        Self { connections: 1, ..Self::build(inner, patience, surroundings, 5, (pace, true)) }
    }

    /// Wraps a store whose bytes are counted and limited by `pace` already.
    pub(crate) fn around(inner: S, connections: u32, pace: Arc<Pace>) -> Self {
        let real = Box::new(Real { began: Instant::now(), pace: Arc::clone(&pace) });
        Self::build(inner, Patience::STANDARD, real, connections, (pace, false))
    }

    /// Wraps a store whose bytes are counted and limited here, whole files at a time.
    pub(crate) fn pacing(inner: S, pace: Arc<Pace>) -> Self {
        let real = Box::new(Real { began: Instant::now(), pace: Arc::clone(&pace) });
        Self::build(inner, Patience::STANDARD, real, u32::MAX, (pace, true))
    }

    fn build(
        inner: S,
        patience: Patience,
        surroundings: Box<dyn Surroundings>,
        connections: u32,
        (pace, paces): (Arc<Pace>, bool),
    ) -> Self {
        let gate = Gate::new(connections);
        let has_answered = AtomicBool::new(false);
        Self { inner, patience, surroundings, gate, connections, pace, paces, has_answered }
    }

    /// What was done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.pace.statistics()
    }

    /// The store within.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Does something small until it is done, fails for good, or patience ends. The number of the
    /// try is passed on, from 1.
    fn persist<T>(
        &self,
        attempt: impl FnMut(u32) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.persist_moving(|_| 0, attempt)
    }

    /// The same for something that moves bytes, as many as `moved` tells of the result.
    fn persist_moving<T>(
        &self,
        moved: impl Fn(&T) -> usize,
        mut attempt: impl FnMut(u32) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let began = self.surroundings.now();
        let watch = self.pace.stop.watch();
        self.pace.operations.fetch_add(1, Ordering::Relaxed);
        for tries in 1.. {
            let Some(entered) = self.gate.enter(&watch) else {
                return Err(stop::given_up("ask", self.inner.location()));
            };
            let asked = self.surroundings.now();
            let result = attempt(tries);
            let now = self.surroundings.now();
            entered.leave(outcome(&result, &moved, now.saturating_sub(asked), now));
            let error = match result {
                Err(error) if error.problem().is_transient() => error,
                result => {
                    self.has_answered.store(true, Ordering::Relaxed);
                    return result;
                }
            };
            let elapsed = self.surroundings.now().saturating_sub(began);
            let has_answered = self.has_answered.load(Ordering::Relaxed);
            let chance = self.surroundings.chance();
            match self.patience.pause(tries, elapsed, has_answered, chance) {
                Some(pause) if self.surroundings.wait(pause) => {
                    self.pace.retries.fetch_add(1, Ordering::Relaxed);
                }
                Some(_) if self.pace.stop.is_requested() => return Err(error.interrupted()),
                _ => return Err(error),
            }
        }
        unreachable!("nobody tries four thousand million times")
    }

    /// A file that seems too short may be one whose transfer broke off: it is read again when the
    /// store says that it is long enough.
    fn doubt_shortness(&self, file: File, end: u64, error: StorageError) -> StorageError {
        if error.problem() != StorageProblem::TooShort {
            return error;
        }
        match self.inner.size(file) {
            Ok(bytes) if bytes >= end => {
                StorageError::because("read", file, StorageProblem::Other, Box::new(error))
            }
            Err(unknown) if unknown.problem().is_transient() => unknown,
            _ => error,
        }
    }

    /// Whether the store holds exactly this under this name.
    fn holds(&self, file: File, content: &[u8]) -> Result<bool, StorageError> {
        match self.inner.read(file, content.len() as u64) {
            Ok(stored) => Ok(stored == content),
            Err(error) => match error.problem() {
                StorageProblem::NotFound | StorageProblem::TooLarge => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// Whether an earlier try of this `put` was done after all. What is named by its hash needs
    /// only to be of the right size: files appear whole.
    fn was_put(&self, file: File, content: &[u8]) -> Result<bool, StorageError> {
        match file.digest() {
            None => self.holds(file, content),
            Some(_) => self.was_named(file, content.len() as u64),
        }
    }

    fn was_named(&self, file: File, bytes: u64) -> Result<bool, StorageError> {
        match self.inner.size(file) {
            Ok(stored) => Ok(stored == bytes),
            Err(error) if error.problem() == StorageProblem::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts a file, unless an earlier try did.
    fn put_by(
        &self,
        file: File,
        content: &[u8],
        put: impl Fn() -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.pass(file, Way::Up, content.len())?;
        self.persist_moving(
            |()| content.len(),
            |tries| {
                if tries > 1 && self.was_put(file, content)? {
                    return Ok(());
                }
                put()
            },
        )
    }

    /// Deletes the files of one request.
    fn delete_some(&self, files: &[File]) -> Vec<(File, Result<(), StorageError>)> {
        let all = |problem: StorageProblem| {
            let failed = move |file: &File| StorageError::new("delete", file, problem);
            files.iter().map(move |file| (*file, Err(failed(file))))
        };
        if self.pace.stop.is_ended() {
            return all(StorageProblem::Interrupted).collect();
        }
        let deleted = self.persist(|_| {
            let mut results = self.inner.delete_all(files);
            let passes = |error: &StorageError| error.problem().is_transient();
            match results.iter().position(|result| result.as_ref().err().is_some_and(passes)) {
                // Those that are gone by now are no trouble when they are named again.
                Some(at) => results.swap_remove(at).map(|()| Vec::new()),
                None => Ok(results),
            }
        });
        match deleted {
            Ok(results) => files.iter().copied().zip(results).collect(),
            Err(error) => {
                let mut failed: Vec<_> = all(error.problem()).collect();
                failed[0].1 = Err(error);
                failed
            }
        }
    }

    fn pass(&self, file: File, way: Way, bytes: usize) -> Result<(), StorageError> {
        match !self.paces || self.pace.pass(way, bytes) {
            true => Ok(()),
            false => Err(stop::given_up("move", file)),
        }
    }
}

/// What a try tells about how fast the store is. Whatever it answered at once, it answered.
fn outcome<T>(
    result: &Result<T, StorageError>,
    moved: impl Fn(&T) -> usize,
    took: Duration,
    now: Duration,
) -> Outcome {
    match result {
        Ok(value) => Outcome::Answered { bytes: moved(value) as u64, took, now },
        Err(error) => match error.problem() {
            StorageProblem::NotFound => Outcome::Answered { bytes: 0, took, now },
            problem if problem.is_transient() => Outcome::Troubled,
            _ => Outcome::Other,
        },
    }
}

impl<S: Storage> Storage for Patient<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        self.persist(|_| self.inner.prepare())
    }

    /// A listing that was fetched in pieces may name a file twice.
    fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StorageError> {
        let mut listed = self.persist(|_| self.inner.list(kind))?;
        listed.sort_unstable_by_key(|entry| entry.file);
        listed.dedup_by_key(|entry| entry.file);
        Ok(listed)
    }

    fn size(&self, file: File) -> Result<u64, StorageError> {
        self.persist(|_| self.inner.size(file))
    }

    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        let content = self.persist_moving(Vec::len, |_| {
            self.inner.read(file, bytes_max).map_err(|error| self.doubt_shortness(file, 0, error))
        })?;
        self.pass(file, Way::Down, content.len())?;
        Ok(content)
    }

    fn read_range(&self, file: File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let end = offset.saturating_add(buffer.len() as u64);
        let bytes = buffer.len();
        self.persist_moving(
            |()| bytes,
            |_| {
                self.inner
                    .read_range(file, offset, buffer)
                    .map_err(|error| self.doubt_shortness(file, end, error))
            },
        )?;
        self.pass(file, Way::Down, buffer.len())
    }

    fn put(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.put_by(file, content, || self.inner.put(file, content))
    }

    fn put_pack(
        &self,
        id: PackId,
        holds: BlobKind,
        content: &Arc<Vec<u8>>,
    ) -> Result<Storing<'_>, StorageError> {
        let put = || self.inner.put_pack(id, holds, content)?.finish();
        self.put_by(File::Pack(id), content, put)?;
        Ok(Storing::done())
    }

    /// A pack that cannot be read is no matter of patience.
    fn put_spooled(&self, holds: BlobKind, pack: &Spooled) -> Result<(), StorageError> {
        let file = File::Pack(pack.id());
        let bytes = usize::try_from(pack.bytes()).unwrap_or(usize::MAX);
        self.pass(file, Way::Up, bytes)?;
        self.persist_moving(
            |_| bytes,
            |tries| {
                if tries > 1 && self.was_named(file, pack.bytes())? {
                    return Ok(Ok(()));
                }
                match self.inner.put_spooled(holds, pack) {
                    Err(error) if pack.is_spoiled() => Ok(Err(error)),
                    result => result.map(Ok),
                }
            },
        )?
    }

    fn sends_from_files(&self) -> bool {
        self.inner.sends_from_files()
    }

    /// That the name is taken by exactly this content is no conflict: the request, or its
    /// answer, went by twice.
    fn put_new(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.pass(file, Way::Up, content.len())?;
        self.persist(|_| match self.inner.put_new(file, content) {
            Err(error) if error.problem() == StorageProblem::AlreadyExists => {
                match self.holds(file, content)? {
                    true => Ok(()),
                    false => Err(error),
                }
            }
            result => result,
        })
    }

    fn delete(&self, file: File) -> Result<(), StorageError> {
        self.persist(|tries| match self.inner.delete(file) {
            // An earlier try was done, and its answer lost.
            Err(error) if tries > 1 && error.problem() == StorageProblem::NotFound => Ok(()),
            result => result,
        })
    }

    fn remove(&self, file: File) -> Result<(), StorageError> {
        self.persist(|_| self.inner.remove(file))
    }

    fn delete_all(&self, files: &[File]) -> Vec<Result<(), StorageError>> {
        let requests: Vec<&[File]> = files.chunks(self.inner.deletes_at_once().max(1)).collect();
        // A folder of this machine gains nothing by threads.
        let threads = match self.connections {
            u32::MAX => 1,
            connections => requests.len().min(connections as usize),
        };
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let Some(some) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let deleted = self.delete_some(some);
                done.lock().unwrap_or_else(PoisonError::into_inner).extend(deleted);
            }
        };
        thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        let mut done: HashMap<File, _> =
            done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
        files.iter().map(|file| done.remove(file).unwrap_or(Ok(()))).collect()
    }

    fn deletes_at_once(&self) -> usize {
        self.inner.deletes_at_once()
    }

    fn settle(&self, kind: FileKind) -> Result<(), StorageError> {
        self.persist(|_| self.inner.settle(kind))
    }

    fn holding(&self) -> Result<Holding, StorageError> {
        self.persist(|_| self.inner.holding())
    }

    fn retention(&self, file: File) -> Result<Retention, StorageError> {
        self.persist(|_| self.inner.retention(file))
    }

    fn retain(&self, file: File, until: Timestamp) -> Result<(), StorageError> {
        self.persist(|_| self.inner.retain(file, until))
    }

    /// As observed here; but a folder of this machine knows best itself.
    fn costs(&self) -> Costs {
        match self.connections {
            u32::MAX => self.inner.costs(),
            _ => self.gate.costs(),
        }
    }

    fn archiving(&self) -> Archiving {
        self.inner.archiving()
    }

    fn reach(&self, file: File) -> Result<Reach, StorageError> {
        self.persist(|_| self.inner.reach(file))
    }

    fn warm_up(&self, file: File) -> Result<(), StorageError> {
        self.persist(|_| self.inner.warm_up(file))
    }

    fn listing_lag(&self) -> Duration {
        self.inner.listing_lag()
    }

    fn local_folder(&self) -> Option<&Path> {
        self.inner.local_folder()
    }

    fn remove_leftovers(&self) -> Result<usize, StorageError> {
        self.persist(|_| self.inner.remove_leftovers())
    }
}
