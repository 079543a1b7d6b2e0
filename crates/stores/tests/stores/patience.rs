//! Trying again: what is tried again, when, and what is not.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use muster_repository::storage::{
    File, FileKind, Listed, LocalStorage, Storage, StorageError, StorageProblem, conformance,
    memory::MemoryStorage,
    unreliable::{Faults, Unreliable},
};
use muster_stores::{Patient, Surroundings, backoff::Patience};
use muster_testkit::Scratch;

use crate::unreliable;

/// Time that passes at once, and no luck: every pause is the longest.
#[derive(Debug, Default)]
pub(crate) struct Hurry {
    now_ms: AtomicU64,
    waits: Arc<Mutex<Vec<Duration>>>,
}

impl Surroundings for Hurry {
    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::SeqCst))
    }

    fn wait(&self, time: Duration) -> bool {
        let milliseconds = u64::try_from(time.as_millis()).unwrap();
        self.now_ms.fetch_add(milliseconds, Ordering::SeqCst);
        self.waits.lock().unwrap().push(time);
        true
    }

    fn chance(&self) -> f64 {
        1.0
    }
}

#[test]
fn a_patient_store_conforms() {
    conformance::run(|| {
        let patience = Patience::STANDARD;
        (Patient::with_surroundings(MemoryStorage::new(), patience, Box::<Hurry>::default()), ())
    });
}

#[test]
fn a_store_that_fails_loses_answers_truncates_and_repeats_conforms() {
    for faults in [
        Faults { fail_every: 3, ..Faults::default() },
        Faults { lose_answer_every: 2, ..Faults::default() },
        Faults { duplicate_every: 1, ..Faults::default() },
        Faults { truncate_every: 2, ..Faults::default() },
        Faults {
            fail_every: 5,
            lose_answer_every: 2,
            duplicate_every: 2,
            truncate_every: 3,
            delay: Duration::from_micros(50),
            ..Faults::default()
        },
    ] {
        let promises = conformance::Promises { tells_missing: false, ..conformance::Promises::ALL };
        conformance::run_promising(promises, || {
            let inner = Unreliable::new(Arc::new(MemoryStorage::new()), faults.clone());
            (Patient::with_surroundings(inner, Patience::STANDARD, Box::<Hurry>::default()), ())
        });
    }
}

/// A folder, too: on a network or on a stick it is a store like any other.
#[test]
fn a_folder_that_fails_loses_answers_truncates_and_repeats_conforms() {
    let promises = conformance::Promises { tells_missing: false, ..conformance::Promises::ALL };
    conformance::run_promising(promises, || {
        let folder = Scratch::new("unreliable-folder").unwrap();
        (unreliable(Arc::new(LocalStorage::new(folder.join("deep/er")))), folder)
    });
}

/// Fails with one problem, always, and counts how often it was asked.
#[derive(Debug)]
struct Failing(StorageProblem, Arc<AtomicU32>);

impl Failing {
    fn fail<T>(&self) -> Result<T, StorageError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Err(StorageError::new("ask", "it", self.0))
    }
}

impl Storage for Failing {
    fn location(&self) -> String {
        "nowhere".to_owned()
    }
    fn prepare(&self) -> Result<(), StorageError> {
        self.fail()
    }
    fn list(&self, _: FileKind) -> Result<Vec<Listed>, StorageError> {
        self.fail()
    }
    fn size(&self, _: File) -> Result<u64, StorageError> {
        self.fail()
    }
    fn read(&self, _: File, _: u64) -> Result<Vec<u8>, StorageError> {
        self.fail()
    }
    fn read_range(&self, _: File, _: u64, _: &mut [u8]) -> Result<(), StorageError> {
        self.fail()
    }
    fn put(&self, _: File, _: &[u8]) -> Result<(), StorageError> {
        self.fail()
    }
    fn put_new(&self, _: File, _: &[u8]) -> Result<(), StorageError> {
        self.fail()
    }
    fn delete(&self, _: File) -> Result<(), StorageError> {
        self.fail()
    }
}

/// How often a store is asked that has this problem, and how long is waited in all.
fn asked(problem: StorageProblem) -> (u32, Vec<u64>) {
    let count = Arc::new(AtomicU32::new(0));
    let hurry = Hurry::default();
    let waits = Arc::clone(&hurry.waits);
    let failing = Failing(problem, Arc::clone(&count));
    let patient = Patient::with_surroundings(failing, Patience::STANDARD, Box::new(hurry));
    let error = patient.list(FileKind::Key).unwrap_err();
    assert_eq!(error.problem(), problem);
    let waits = waits.lock().unwrap();
    let waits = waits.iter().map(|wait| u64::try_from(wait.as_millis()).unwrap()).collect();
    (count.load(Ordering::SeqCst), waits)
}

#[test]
fn only_what_may_pass_is_tried_again() {
    use StorageProblem::{
        AlreadyExists, Credentials, Denied, Full, HostUnknown, NoPlace, NotFound, Other, TimedOut,
        TooLarge, Unreachable, Untrusted,
    };
    for problem in
        [NotFound, AlreadyExists, TooLarge, Full, Denied, Credentials, NoPlace, Untrusted]
    {
        assert_eq!(asked(problem), (1, vec![]), "{problem:?}");
    }
    for problem in [HostUnknown, Unreachable, TimedOut, Other] {
        assert_eq!(asked(problem), (4, vec![500, 1000, 2000]), "{problem:?}");
    }
}

#[test]
fn what_is_done_is_counted() {
    let inner = Unreliable::new(
        Arc::new(MemoryStorage::new()),
        Faults { fail_every: 3, ..Faults::default() },
    );
    let patient = Patient::with_surroundings(inner, Patience::STANDARD, Box::<Hurry>::default());
    for seed in 0..4 {
        patient.put(conformance::pack(seed), &[0; 100]).unwrap();
        patient.read(conformance::pack(seed), 100).unwrap();
    }
    let done = patient.statistics();
    assert_eq!((done.operations, done.bytes_up, done.bytes_down), (8, 400, 400));
    assert!(done.retries >= 3, "{done:?}");
}
