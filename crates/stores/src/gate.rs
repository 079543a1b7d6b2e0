//! Lets so many requests through at once, and watches what they cost.
//!
//! How many is decided in `lanes.rs`, what they cost is reckoned in `meter.rs`; this is the door
//! at which threads wait.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use muster_repository::storage::Costs;

use crate::{
    lanes::Lanes,
    meter::Meter,
    stop::{LOOK, Watch},
};

/// The door to a store.
#[derive(Debug)]
pub(crate) struct Gate {
    connections: u32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    lanes: Lanes,
    meter: Meter,
    inside: u32,
    waiting: u32,
}

/// Somebody who was let in.
#[derive(Debug)]
pub(crate) struct Entered<'g>(&'g Gate);

/// What a request did.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// It brought or took bytes, in this time, up to this moment.
    Answered { bytes: u64, took: Duration, now: Duration },
    /// The store was busy or did not answer.
    Troubled,
    /// Something that says nothing of how fast the store is.
    Other,
}

impl Gate {
    pub(crate) fn new(connections: u32) -> Self {
        let connections = connections.max(1);
        let lanes = Lanes::new(connections);
        let state = State { lanes, meter: Meter::new(), inside: 0, waiting: 0 };
        Self { connections, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for a free lane, as long as somebody still wants it.
    pub(crate) fn enter(&self, watch: &Watch<'_>) -> Option<Entered<'_>> {
        let mut state = self.lock();
        state.waiting += 1;
        while state.inside >= state.lanes.open() {
            if watch.is_void() {
                state.waiting -= 1;
                return None;
            }
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting -= 1;
        state.inside += 1;
        Some(Entered(self))
    }

    /// What requests cost here.
    pub(crate) fn costs(&self) -> Costs {
        let state = self.lock();
        Costs {
            latency: state.meter.latency(),
            bytes_per_s: state.meter.bytes_per_s(),
            connections: usize::try_from(self.connections).unwrap_or(usize::MAX),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entered<'_> {
    /// Goes out, and tells what happened.
    pub(crate) fn leave(self, outcome: Outcome) {
        let mut state = self.0.lock();
        match outcome {
            Outcome::Answered { bytes, took, now } => {
                let is_full = state.waiting > 0;
                state.meter.answered(bytes, took);
                state.lanes.answered(now, bytes, is_full);
            }
            Outcome::Troubled => state.lanes.troubled(),
            Outcome::Other => {}
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        // There may be room for more than one: the number of lanes may have grown.
        self.0.changed.notify_all();
    }
}
