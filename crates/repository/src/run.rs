//! What a running operation is told from outside, and what it tells.
//!
//! The engine counts; whoever shows progress looks at the counters when it likes to. Nothing
//! is called back from the hot path.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use muster_model::{Class, Fault};
use thiserror::Error;

use crate::{lock::time_since_boot, warm_up::WarmUp};

/// Told to and by a running operation. Cheap to clone; clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// How far the operation is.
    pub progress: Arc<Progress>,
    /// Whether it shall stop.
    pub cancel: Cancel,
    /// Whether archived packs may be brought back.
    pub warm_up: WarmUp,
}

impl Run {
    /// A run nobody watches.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// Counters of a running operation. Bytes are bytes of the source's data, unless the operation
/// says otherwise.
#[derive(Debug, Default)]
pub struct Progress {
    files_done: AtomicU64,
    bytes_done: AtomicU64,
    files_total: AtomicU64,
    bytes_total: AtomicU64,
    total_known: AtomicBool,
    total_guessed: AtomicBool,
    errors: AtomicU64,
    current: Mutex<String>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgressReading {
    /// Items finished.
    pub files_done: u64,
    /// Bytes finished.
    pub bytes_done: u64,
    /// Items in all; `None` while still being counted.
    pub files_total: Option<u64>,
    /// Bytes in all; `None` while still being counted.
    pub bytes_total: Option<u64>,
    /// The totals were those of an earlier run over the same; what has come since is not in them.
    pub is_guess: bool,
    /// Items that could not be processed.
    pub errors: u64,
    /// What is being worked on.
    pub current: String,
}

impl Progress {
    /// Counts finished items and bytes.
    pub fn add_done(&self, files: u64, bytes: u64) {
        self.files_done.fetch_add(files, Ordering::Relaxed);
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts items and bytes that will have to be done.
    pub fn add_total(&self, files: u64, bytes: u64) {
        self.files_total.fetch_add(files, Ordering::Relaxed);
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// From here on the totals are final.
    pub fn total_is_known(&self) {
        self.total_known.store(true, Ordering::Release);
    }

    /// There will be about as much to do as an earlier run had. Once more than that is done, the
    /// totals are unknown again.
    pub fn guess_total(&self, files: u64, bytes: u64) {
        self.add_total(files, bytes);
        self.total_guessed.store(true, Ordering::Release);
        self.total_is_known();
    }

    /// Counts an item that could not be processed.
    pub fn add_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Names what is being worked on.
    pub fn set_current(&self, what: impl FnOnce(&mut String)) {
        // Only for show: when the one who shows it is looking, the name is left for next time.
        if let Ok(mut current) = self.current.try_lock() {
            current.clear();
            what(&mut current);
        }
    }

    /// The counters now.
    #[must_use]
    pub fn read(&self) -> ProgressReading {
        let is_guess = self.total_guessed.load(Ordering::Acquire);
        let [files_done, bytes_done, files_total, bytes_total] =
            [&self.files_done, &self.bytes_done, &self.files_total, &self.bytes_total]
                .map(|counter| counter.load(Ordering::Relaxed));
        let was_wrong = is_guess && (files_done > files_total || bytes_done > bytes_total);
        let known = self.total_known.load(Ordering::Acquire) && !was_wrong;
        ProgressReading {
            files_done,
            bytes_done,
            files_total: known.then_some(files_total),
            bytes_total: known.then_some(bytes_total),
            is_guess,
            errors: self.errors.load(Ordering::Relaxed),
            current: self.current.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// A request to stop, shared by all threads of an operation.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    state: Arc<CancelState>,
}

#[derive(Default)]
struct CancelState {
    requested: AtomicBool,
    reason: OnceLock<(Stop, String)>,
    conditions: Mutex<Vec<Condition>>,
    /// When the conditions were asked last, all of which held, as time since the machine started.
    held_at: Mutex<Option<Duration>>,
}

/// How long it is good enough that the conditions held: as long as a round trip or two take, which
/// whatever is written next takes anyway.
const HOLDS_FOR: Duration = Duration::from_millis(500);

/// Why an operation stops early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Somebody asked for it.
    Asked,
    /// What it needs to go on is gone: its lock.
    LockLost,
}

/// Tells why the operation must not go on, if so. See [`Cancel::require`].
type Condition = Arc<dyn Fn() -> Option<String> + Send + Sync>;

impl fmt::Debug for CancelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelState").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// The operation was asked to stop.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("finish: {reason}")]
pub struct Cancelled {
    stop: Stop,
    reason: String,
}

impl Cancel {
    /// Asks the operation to stop; the first reason given is the one that is reported.
    pub fn request(&self, reason: impl Into<String>) {
        self.stop(Stop::Asked, reason.into());
    }

    /// Stops the operation because its lock is lost.
    pub fn lock_lost(&self, reason: impl Into<String>) {
        self.stop(Stop::LockLost, reason.into());
    }

    fn stop(&self, stop: Stop, reason: String) {
        // A second request finds a reason there already, and that one stays.
        drop(self.state.reason.set((stop, reason)));
        self.state.requested.store(true, Ordering::Release);
    }

    /// Whether the operation shall stop.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.state.requested.load(Ordering::Acquire)
    }

    /// Whether somebody asked the operation to stop; not so when it stops for its lost lock.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.is_requested() && !matches!(self.state.reason.get(), Some((Stop::LockLost, _)))
    }

    /// From here on the operation may only go on while `condition`, too, gives no reason against
    /// it. Each held lock is such a condition; one that is released has no more to say.
    pub fn require(&self, condition: Condition) {
        self.state.conditions.lock().unwrap_or_else(PoisonError::into_inner).push(condition);
    }

    /// As [`Cancel::check`], and asks the conditions too, which may take a look at the store:
    /// for use right before something is written that others rely upon.
    ///
    /// # Errors
    /// Fails when a stop was requested or a condition no longer holds.
    pub fn check_condition(&self) -> Result<(), Cancelled> {
        let conditions =
            self.state.conditions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let asked = time_since_boot();
        let reason = conditions.iter().find_map(|condition| condition());
        let held_at = reason.is_none().then_some(asked);
        *self.state.held_at.lock().unwrap_or_else(PoisonError::into_inner) = held_at;
        if let Some(reason) = reason {
            self.lock_lost(reason);
        }
        self.check()
    }

    /// The same, but does not ask anew when it was asked half a second ago at most: for the second of
    /// two things that are written one right after the other.
    ///
    /// # Errors
    /// As [`Cancel::check_condition`].
    pub fn check_condition_lately(&self) -> Result<(), Cancelled> {
        let held_at = *self.state.held_at.lock().unwrap_or_else(PoisonError::into_inner);
        // A machine that slept in between has to ask, so its sleep counts.
        match held_at.is_some_and(|at| time_since_boot().saturating_sub(at) < HOLDS_FOR) {
            true => self.check(),
            false => self.check_condition(),
        }
    }

    /// Fails when the operation shall stop; for use with `?` between steps.
    ///
    /// # Errors
    /// Fails when a stop was requested.
    pub fn check(&self) -> Result<(), Cancelled> {
        if !self.is_requested() {
            return Ok(());
        }
        let asked = (Stop::Asked, "it was asked to stop".to_owned());
        let (stop, reason) = self.state.reason.get().unwrap_or(&asked).clone();
        Err(Cancelled { stop, reason })
    }
}

impl Fault for Cancelled {
    fn class(&self) -> Class {
        match self.stop {
            Stop::Asked => Class::Interrupted,
            Stop::LockLost => Class::Conflict,
        }
    }

    fn code(&self) -> &'static str {
        match self.stop {
            Stop::Asked => "interrupted",
            Stop::LockLost => "lock-lost",
        }
    }

    fn help(&self) -> Option<String> {
        Some("run the command again: what is stored already is not stored twice".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_unknown_until_they_are_known() {
        let progress = Progress::default();
        progress.add_total(2, 100);
        progress.add_done(1, 60);
        assert_eq!(progress.read().bytes_total, None);
        progress.total_is_known();
        let reading = progress.read();
        assert_eq!((reading.bytes_done, reading.bytes_total), (60, Some(100)));
    }

    #[test]
    fn a_guess_holds_until_more_is_done() {
        let progress = Progress::default();
        progress.guess_total(2, 100);
        progress.add_done(2, 100);
        let reading = progress.read();
        assert_eq!((reading.files_total, reading.bytes_total), (Some(2), Some(100)));
        assert!(reading.is_guess);
        progress.add_done(0, 1);
        let reading = progress.read();
        assert_eq!((reading.files_total, reading.bytes_total), (None, None));
    }

    #[test]
    fn a_condition_that_held_a_moment_ago_is_not_asked_again() {
        let (cancel, asked) = (Cancel::default(), Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&asked);
        cancel.require(Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            None
        }));
        cancel.check_condition_lately().unwrap();
        cancel.check_condition_lately().unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        *cancel.state.held_at.lock().unwrap() = time_since_boot().checked_sub(HOLDS_FOR);
        cancel.check_condition_lately().unwrap();
        cancel.check_condition().unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        cancel.require(Arc::new(|| Some("its lock is gone".to_owned())));
        assert!(cancel.check_condition().is_err() && cancel.check_condition_lately().is_err());
    }

    #[test]
    fn the_first_reason_to_stop_is_told() {
        let cancel = Cancel::default();
        assert!(cancel.check().is_ok());
        cancel.clone().request("the lock was lost");
        cancel.request("interrupted");
        assert_eq!(cancel.check().unwrap_err().to_string(), "finish: the lock was lost");
    }
}
