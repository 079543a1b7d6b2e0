//! A store at a distance in made-up time, around any other store: what counts is how often one has
//! to wait for an answer before the next question can be asked.
//!
//! Time stands still while any thread of the process has something to do. When all sleep, one round
//! trip passes: the requests that came, as many as the store takes at once, are answered together.
//! So the number of rounds is the length of the longest chain of questions and answers, whatever
//! the machine is busy with, and no test of it needs a clock.
//!
//! Not for measurements: what requests cost beside their latency is not modelled.

use std::{
    collections::VecDeque,
    fs,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::{
    Archiving, Costs, File, FileKind, Holding, Listed, Reach, Retention, Storage, StorageError,
    Storing,
};
use crate::{
    format::{pack::BlobKind, time::Timestamp},
    id::PackId,
};

/// The thread that makes time pass; it is not counted among those that have something to do.
const CLOCK: &str = "round-trips";

/// Between two looks whether all sleep.
const LOOK: Duration = Duration::from_micros(500);

/// Wraps a store and puts a distance before it. See the module's page.
#[derive(Debug)]
pub struct Rounds<S> {
    inner: Arc<S>,
    costs: Costs,
    line: Arc<Line>,
}

/// The way to the store.
#[derive(Debug, Default)]
struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asked: VecDeque<u64>,
    next_number: u64,
    /// Requests below this number were answered.
    answered: u64,
    rounds: u64,
    at_once_max: usize,
    trace: Vec<String>,
    ended: bool,
}

impl<S: Storage> Rounds<S> {
    /// Wraps `inner`; at most `costs.connections` requests are answered in a round.
    ///
    /// # Panics
    /// Panics when no thread can be started.
    #[must_use]
    pub fn new(inner: Arc<S>, costs: Costs) -> Arc<Self> {
        let line = Arc::new(Line::default());
        let (shared, at_once) = (Arc::clone(&line), costs.connections.max(1));
        let clock = thread::Builder::new().name(CLOCK.to_owned());
        clock.spawn(move || shared.run(at_once)).expect("a thread can be started");
        Arc::new(Self { inner, costs, line })
    }

    /// How many round trips passed so far.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.line.lock().rounds
    }

    /// How many requests were asked at once, at most; those that had to wait included.
    #[must_use]
    pub fn at_once_max(&self) -> usize {
        self.line.lock().at_once_max
    }

    /// What was asked in which round, for messages.
    #[must_use]
    pub fn trace(&self) -> String {
        self.line.lock().trace.join("\n")
    }

    /// The store within.
    #[must_use]
    pub fn inner(&self) -> &Arc<S> {
        &self.inner
    }

    fn ask(&self, operation: &str, what: impl ToString) {
        let mut state = self.line.lock();
        let number = state.next_number;
        state.next_number += 1;
        state.asked.push_back(number);
        state.at_once_max = state.at_once_max.max(state.asked.len());
        let line = format!("{}: {operation} {}", state.rounds, what.to_string());
        state.trace.push(line);
        while state.answered <= number {
            state = self.line.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<S> Drop for Rounds<S> {
    fn drop(&mut self) {
        self.line.lock().ended = true;
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes time pass until the store is gone.
    fn run(&self, at_once: usize) {
        loop {
            thread::park_timeout(LOOK);
            let (ended, waits) = {
                let state = self.lock();
                (state.ended, !state.asked.is_empty())
            };
            if ended {
                return;
            }
            if waits && all_sleep() {
                self.pass(at_once);
            }
        }
    }

    fn pass(&self, at_once: usize) {
        let mut state = self.lock();
        state.rounds += 1;
        for _ in 0..at_once {
            if let Some(number) = state.asked.pop_front() {
                state.answered = number + 1;
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// Whether no thread of the process has anything to do: in two looks all sleep, and none has been
/// awake in between, for a thread that wakes another and falls asleep may be seen in the wrong
/// order in one.
fn all_sleep() -> bool {
    sleepers().is_some_and(|first| sleepers().is_some_and(|second| first == second))
}

/// Each thread with how often it has fallen asleep; none when one is awake.
fn sleepers() -> Option<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/task").ok()? {
        let status = fs::read_to_string(entry.ok()?.path().join("status")).ok()?;
        let field = |name: &str| {
            let mut lines = status.lines().filter_map(|line| line.split_once(":\t"));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        if field("Name")? == CLOCK {
            continue;
        }
        if !field("State")?.starts_with('S') {
            return None;
        }
        let switches = |name: &str| field(name)?.parse::<u64>().ok();
        let slept = switches("voluntary_ctxt_switches")? + switches("nonvoluntary_ctxt_switches")?;
        found.push((field("Pid")?, slept));
    }
    Some(found)
}

impl<S: Storage> Storage for Rounds<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        self.ask("prepare", "");
        self.inner.prepare()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StorageError> {
        self.ask("list", kind.folder());
        self.inner.list(kind)
    }

    fn size(&self, file: File) -> Result<u64, StorageError> {
        self.ask("look at", file);
        self.inner.size(file)
    }

    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        self.ask("read", file);
        self.inner.read(file, bytes_max)
    }

    fn read_range(&self, file: File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        self.ask("read", format!("{file} from {offset}, {} bytes", buffer.len()));
        self.inner.read_range(file, offset, buffer)
    }

    fn put(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.ask("write", file);
        self.inner.put(file, content)
    }

    fn put_pack(
        &self,
        id: PackId,
        holds: BlobKind,
        content: &Arc<Vec<u8>>,
    ) -> Result<Storing<'_>, StorageError> {
        self.ask("write", File::Pack(id));
        self.inner.put_pack(id, holds, content)?.finish()?;
        Ok(Storing::done())
    }

    fn put_new(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.ask("write", file);
        self.inner.put_new(file, content)
    }

    fn delete(&self, file: File) -> Result<(), StorageError> {
        self.ask("delete", file);
        self.inner.delete(file)
    }

    /// As S3 does: all in one request.
    fn delete_all(&self, files: &[File]) -> Vec<Result<(), StorageError>> {
        for some in files.chunks(self.deletes_at_once()) {
            self.ask("delete", format!("{} files", some.len()));
        }
        self.inner.delete_all(files)
    }

    fn deletes_at_once(&self) -> usize {
        1000
    }

    fn settle(&self, kind: FileKind) -> Result<(), StorageError> {
        self.inner.settle(kind)
    }

    fn holding(&self) -> Result<Holding, StorageError> {
        self.ask("look at", self.location());
        self.inner.holding()
    }

    fn retention(&self, file: File) -> Result<Retention, StorageError> {
        self.ask("look at", file);
        self.inner.retention(file)
    }

    fn retain(&self, file: File, until: Timestamp) -> Result<(), StorageError> {
        self.ask("hold", file);
        self.inner.retain(file, until)
    }

    fn archiving(&self) -> Archiving {
        self.inner.archiving()
    }

    fn reach(&self, file: File) -> Result<Reach, StorageError> {
        self.ask("look at", file);
        self.inner.reach(file)
    }

    fn warm_up(&self, file: File) -> Result<(), StorageError> {
        self.ask("bring back", file);
        self.inner.warm_up(file)
    }

    fn local_folder(&self) -> Option<&Path> {
        self.inner.local_folder()
    }

    fn listing_lag(&self) -> Duration {
        self.inner.listing_lag()
    }

    fn costs(&self) -> Costs {
        self.costs
    }

    fn remove_leftovers(&self) -> Result<usize, StorageError> {
        self.inner.remove_leftovers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{conformance, memory::MemoryStorage};

    fn rounds(connections: usize) -> Arc<Rounds<MemoryStorage>> {
        let latency = Duration::from_millis(50);
        let costs = Costs { latency, bytes_per_s: 20 << 20, connections };
        Rounds::new(Arc::new(MemoryStorage::new()), costs)
    }

    /// As many questions, each from a thread of its own.
    fn ask_at_once(storage: &Rounds<MemoryStorage>, questions: usize) {
        thread::scope(|scope| {
            for _ in 0..questions {
                scope.spawn(|| storage.list(FileKind::Pack).unwrap());
            }
        });
    }

    #[test]
    fn what_is_asked_at_once_takes_one_round() {
        let storage = rounds(8);
        ask_at_once(&storage, 8);
        assert_eq!(storage.rounds(), 1, "{}", storage.trace());
    }

    #[test]
    fn what_is_asked_in_turn_takes_a_round_each() {
        let storage = rounds(8);
        (0..5).for_each(|_| ask_at_once(&storage, 1));
        assert_eq!(storage.rounds(), 5, "{}", storage.trace());
        storage.put(conformance::pack(1), b"x").unwrap();
        assert_eq!(storage.read(conformance::pack(1), 9).unwrap(), b"x");
        assert_eq!(storage.rounds(), 7, "{}", storage.trace());
    }

    #[test]
    fn more_than_the_store_takes_wait() {
        let storage = rounds(3);
        ask_at_once(&storage, 8);
        assert_eq!((storage.rounds(), storage.at_once_max()), (3, 8), "{}", storage.trace());
    }
}
