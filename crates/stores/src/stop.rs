//! Ends waits for a store when the operation shall stop.
//!
//! What is under way then may finish for a moment, and what begins afterwards, the release of a
//! lock above all, is given such a moment of its own. A store that let one of these pass is not
//! asked again: so an operation ends within a second, and leaves its lock behind only where the
//! store does not answer. A moment is counted in looks, too: on a machine whose processor is
//! elsewhere, or that slept, the clock alone would end it before the store had a chance to answer,
//! and a lock would stay behind. Nothing is decided here about trying again (`patient.rs`).

use std::{
    cell::Cell,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use muster_repository::{
    run::Cancel,
    storage::{StorageError, StorageProblem},
};

/// Between two looks whether somebody wants us to stop.
pub(crate) const LOOK: Duration = Duration::from_millis(25);

/// How long a store may take for its last answers.
const FAREWELL: Duration = Duration::from_millis(350);

/// So often it is looked whether they have come, before they are given up.
const LOOKS: u32 = 14;
const _: () = assert!(LOOKS as u128 * LOOK.as_millis() == FAREWELL.as_millis());

/// Whether the operation shall stop, and whether the store still answers.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    cancel: Option<Cancel>,
    noticed: OnceLock<Instant>,
    silent: AtomicBool,
}

impl Stop {
    pub(crate) fn new(cancel: Option<Cancel>) -> Self {
        Self { cancel, ..Self::default() }
    }

    /// Whether the operation goes on at all.
    pub(crate) fn is_ended(&self) -> bool {
        self.cancel.as_ref().is_some_and(Cancel::is_requested)
    }

    /// Whether somebody asked the operation to stop, and waits for that.
    pub(crate) fn is_requested(&self) -> bool {
        let requested = self.cancel.as_ref().is_some_and(Cancel::is_asked);
        if requested {
            self.noticed.get_or_init(Instant::now);
        }
        requested
    }

    /// Begins to watch over one request.
    pub(crate) fn watch(&self) -> Watch<'_> {
        let began = self.is_requested().then(Instant::now);
        Watch { stop: self, began, looks: Cell::new(0) }
    }
}

/// Watches over one request.
#[derive(Debug)]
pub(crate) struct Watch<'s> {
    stop: &'s Stop,
    /// When it began, if that was after the stop was asked for.
    began: Option<Instant>,
    /// How often it was asked whether it is over, since the stop was asked for.
    looks: Cell<u32>,
}

impl Watch<'_> {
    /// Whether to wait no longer. To be asked once in [`LOOK`], while the answer has not come.
    pub(crate) fn is_over(&self) -> bool {
        if !self.stop.is_requested() {
            return false;
        }
        let looks = self.looks.get() + 1;
        self.looks.set(looks);
        let since = self.began.or_else(|| self.stop.noticed.get().copied());
        let is_over = looks >= LOOKS && since.is_some_and(|since| since.elapsed() >= FAREWELL);
        if self.began.is_none() {
            return is_over;
        }
        if is_over {
            self.stop.silent.store(true, Ordering::Relaxed);
        }
        self.stop.silent.load(Ordering::Relaxed)
    }

    /// Whether nobody waits for this any more: it began before the stop was asked for.
    pub(crate) fn is_void(&self) -> bool {
        self.began.is_none() && self.stop.is_requested()
    }
}

/// Why a request was given up.
pub(crate) const GIVEN_UP: &str = "it was asked to stop, and the store had not answered";

/// A request was given up.
pub(crate) fn given_up(operation: &'static str, what: impl std::fmt::Display) -> StorageError {
    StorageError::because(operation, what, StorageProblem::Interrupted, GIVEN_UP.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until the watch is over; tells how long that took.
    fn last(watch: &Watch<'_>) -> Duration {
        let began = Instant::now();
        while !watch.is_over() {
            std::thread::yield_now();
        }
        began.elapsed()
    }

    #[test]
    fn nothing_ends_before_somebody_asks() {
        assert!(!Stop::default().watch().is_over());
        let stop = Stop::new(Some(Cancel::default()));
        assert!(!stop.watch().is_over() && !stop.watch().is_void());
    }

    #[test]
    fn what_is_under_way_and_what_comes_after_have_a_moment_each() {
        let cancel = Cancel::default();
        let stop = Stop::new(Some(cancel.clone()));
        let under_way = stop.watch();
        cancel.request("enough");
        assert!(!under_way.is_over() && under_way.is_void());
        last(&under_way);
        let after = stop.watch();
        assert!(!after.is_over() && !after.is_void(), "a lock can be released");
        last(&after);
        assert!(stop.watch().is_over(), "a silent store is not asked again");
    }

    /// Whoever looks again after a long time may have slept as long as the store: that alone is no
    /// reason to leave a lock behind.
    #[test]
    fn a_moment_that_nobody_looked_at_is_not_over() {
        let cancel = Cancel::default();
        let stop = Stop::new(Some(cancel.clone()));
        let under_way = stop.watch();
        cancel.request("enough");
        let after = stop.watch();
        let began = Instant::now();
        while began.elapsed() < 2 * FAREWELL {
            std::thread::yield_now();
        }
        assert!(!under_way.is_over() && !after.is_over());
        let looks = |watch: &Watch<'_>| (1..).find(|_| watch.is_over()).unwrap();
        assert_eq!((looks(&under_way), looks(&after)), (LOOKS - 1, LOOKS - 1));
    }
}
