//! Trees read ahead: from a store that is far, what lies around a wanted tree is read with it.
//!
//! Trees are small and many, and each would cost a round trip. They lie in packs of their own, the
//! trees of a folder's subfolders right before its own, so a walk comes by the neighbours of a
//! tree soon. A window of the pack is read around it, larger the more often one was of use, and
//! kept sealed until newer ones need the room. Readers on many threads share the windows; who
//! wants one that another is reading waits for it. Where all trees are few, all are read at once when
//! the first is wanted: those of a snapshot lie in packs of several backups, and each would cost a
//! round trip when it is come by.
//!
//! Not for data, which restore, copy and check read in ranges that they plan; not for stores of
//! this machine. A window is a convenience: whatever is wrong with it, the tree is read by itself.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use super::all_at_once;
use crate::{
    id::PackId,
    index::{Index, Location},
    storage::{File, Storage, StorageError, StorageProblem},
};

/// The longest window, in bytes.
const WINDOW_BYTES_MAX: u32 = 2 << 20;

/// What all windows together may take, in bytes.
const KEPT_BYTES_MAX: u64 = 16 << 20;

/// Windows that were read, and those that are being read.
#[derive(Debug, Default)]
pub(super) struct TreeWindows {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The one used last is at the end.
    kept: VecDeque<Arc<Window>>,
    kept_bytes: u64,
    under_way: Vec<(PackId, Range<u64>)>,
    /// How often a window was read: the size of the next one follows from it.
    reads: u32,
}

#[derive(Debug)]
struct Window {
    pack: PackId,
    range: Range<u64>,
    bytes: Vec<u8>,
}

impl TreeWindows {
    /// Replaces the content of `sealed` with the blob at `location`, if that is to be had without
    /// a request of its own.
    ///
    /// # Errors
    /// Fails when the store does, but not when it tells that a pack is shorter than was thought.
    pub(super) fn take(
        &self,
        storage: &dyn Storage,
        index: &Index,
        location: &Location,
        sealed: &mut Vec<u8>,
    ) -> Result<bool, StorageError> {
        let costs = storage.costs();
        if !costs.is_far() {
            return Ok(false);
        }
        let start = u64::from(location.blob.offset);
        let wanted = start..start + u64::from(location.blob.length);
        let mut state = self.lock();
        loop {
            if state.copy(location.pack, &wanted, sealed) {
                return Ok(true);
            }
            if !state.under_way.iter().any(|(pack, range)| covers(*pack, range, location, &wanted))
            {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let few = 2 * costs.gap_bytes().min(u64::from(WINDOW_BYTES_MAX) / 2);
        if state.reads == 0
            && let Some(all) = index.few_trees(costs.connections, few)
        {
            state.reads = 1;
            state.under_way.extend(all.iter().cloned());
            drop(state);
            self.read_all(storage, &all);
            return Ok(self.lock().copy(location.pack, &wanted, sealed));
        }
        let bytes = window_bytes(costs.gap_bytes(), state.reads);
        let range = index.around(location, bytes);
        if range == wanted || range.end - range.start > 2 * u64::from(WINDOW_BYTES_MAX) {
            return Ok(false);
        }
        state.reads = state.reads.saturating_add(1);
        state.under_way.push((location.pack, range.clone()));
        drop(state);
        let reading = Reading { windows: self, pack: location.pack, range };
        reading.read(storage, &wanted, sealed)
    }

    /// Reads windows at once. What cannot be read is not kept, and then read by itself.
    fn read_all(&self, storage: &dyn Storage, all: &[(PackId, Range<u64>)]) {
        all_at_once(storage, all, |(pack, range)| {
            let reading = Reading { windows: self, pack: *pack, range: range.clone() };
            drop(reading.load(storage));
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first window is as long as what flows in the time that asking takes; each doubles.
fn window_bytes(gap_bytes: u64, reads: u32) -> u32 {
    let gap = u32::try_from(gap_bytes).unwrap_or(u32::MAX).max(1);
    gap.saturating_mul(2_u32.saturating_pow(reads)).min(WINDOW_BYTES_MAX)
}

fn covers(pack: PackId, range: &Range<u64>, location: &Location, wanted: &Range<u64>) -> bool {
    pack == location.pack && range.start <= wanted.start && wanted.end <= range.end
}

impl State {
    /// The window that holds a range; it counts as used.
    fn find(&mut self, pack: PackId, wanted: &Range<u64>) -> Option<Arc<Window>> {
        let holds = |window: &Arc<Window>| {
            let range = &window.range;
            window.pack == pack && range.start <= wanted.start && wanted.end <= range.end
        };
        let at = self.kept.iter().rposition(holds)?;
        let window = self.kept.remove(at)?;
        self.kept.push_back(Arc::clone(&window));
        Some(window)
    }

    /// Replaces the content of `sealed` with a range that is in a window, if it is.
    fn copy(&mut self, pack: PackId, wanted: &Range<u64>, sealed: &mut Vec<u8>) -> bool {
        let window = self.find(pack, wanted);
        if let Some(window) = &window {
            sealed.clear();
            sealed.extend_from_slice(window.part(wanted));
        }
        window.is_some()
    }

    fn keep(&mut self, window: Window) {
        self.kept_bytes += window.bytes.len() as u64;
        self.kept.push_back(Arc::new(window));
        while self.kept_bytes > KEPT_BYTES_MAX && self.kept.len() > 1 {
            if let Some(oldest) = self.kept.pop_front() {
                self.kept_bytes -= oldest.bytes.len() as u64;
            }
        }
    }
}

impl Window {
    fn part(&self, wanted: &Range<u64>) -> &[u8] {
        let at = |place: u64| usize::try_from(place - self.range.start).unwrap_or(usize::MAX);
        &self.bytes[at(wanted.start)..at(wanted.end)]
    }
}

/// A window that is being read; those who wait are woken when it is dropped, however that ends.
struct Reading<'w> {
    windows: &'w TreeWindows,
    pack: PackId,
    range: Range<u64>,
}

impl Reading<'_> {
    fn read(
        &self,
        storage: &dyn Storage,
        wanted: &Range<u64>,
        sealed: &mut Vec<u8>,
    ) -> Result<bool, StorageError> {
        match self.load(storage) {
            Err(error) if error.problem() == StorageProblem::TooShort => return Ok(false),
            result => result?,
        }
        Ok(self.windows.lock().copy(self.pack, wanted, sealed))
    }

    fn load(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        let length = usize::try_from(self.range.end - self.range.start).unwrap_or(0);
        let mut bytes = vec![0; length];
        storage.read_range(File::Pack(self.pack), self.range.start, &mut bytes)?;
        self.windows.lock().keep(Window { pack: self.pack, range: self.range.clone(), bytes });
        Ok(())
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = self.windows.lock();
        let own = |(pack, range): &(PackId, Range<u64>)| *pack == self.pack && *range == self.range;
        if let Some(at) = state.under_way.iter().position(own) {
            state.under_way.swap_remove(at);
        }
        drop(state);
        self.windows.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_grow_with_their_use_up_to_a_bound() {
        assert_eq!(window_bytes(1 << 16, 0), 1 << 16);
        assert_eq!(window_bytes(1 << 16, 3), 1 << 19);
        assert_eq!(window_bytes(1 << 16, 40), WINDOW_BYTES_MAX);
        assert_eq!(window_bytes(u64::MAX, 1), WINDOW_BYTES_MAX);
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_was_used_stays() {
        let mut state = State::default();
        let window = |n: u64| {
            let start = n << 21;
            let bytes = vec![0; WINDOW_BYTES_MAX as usize];
            Window { pack: PackId::of(b"p"), range: start..start + (1 << 21), bytes }
        };
        for n in 0..100 {
            state.keep(window(n));
            assert!(state.find(PackId::of(b"p"), &(0..100)).is_some(), "used every time");
        }
        assert!(state.kept_bytes <= KEPT_BYTES_MAX);
        assert!(state.find(PackId::of(b"p"), &((50 << 21)..(50 << 21) + 1)).is_none());
        assert!(state.find(PackId::of(b"q"), &(0..100)).is_none());
    }
}
