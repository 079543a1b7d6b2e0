//! A store in memory whose packs of data lie in an archive.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use muster_model::Fault as _;

use super::*;
use crate::{
    check::{CheckError, CheckOptions, ReadData, Rota, Verified, check, check_in_turn},
    copy::{Target, copy},
    dump::{ArchiveFormat, dump, find_target},
    environment::Environment,
    format::pack::BlobKind,
    id::{BlobId, SnapshotId},
    packer::PackOptions,
    prune::{Limit, PruneOptions, prune},
    repository::Repository,
    restore::{RestoreOptions, restore},
    storage::{FileKind, Storing, forward, memory::MemoryStorage},
    testing::RepositoryBuilder,
};

/// How a pack of data lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Archived,
    /// Comes back when the clock shows this.
    Warming(Duration),
    Ready,
}

/// An archive, with the clock by which it brings back.
#[derive(Debug)]
struct Archive {
    inner: Arc<MemoryStorage>,
    states: Mutex<HashMap<File, State>>,
    /// Seconds.
    clock: Arc<Hand>,
    archiving: Archiving,
    looks: AtomicU64,
    asked: AtomicU64,
    /// How often something was to be read that is archived.
    refused: AtomicU64,
    /// It brings nothing back.
    is_broken: AtomicBool,
}

/// A clock that stands still but for those who wait.
#[derive(Debug, Default)]
struct Hand {
    seconds: AtomicU64,
    pauses: Mutex<Vec<u64>>,
    /// Requests a stop after so many pauses.
    stop_after: Option<usize>,
}

impl Clock for Hand {
    fn now(&self) -> Duration {
        Duration::from_secs(self.seconds.load(Ordering::SeqCst))
    }

    fn wait(&self, time: Duration, cancel: &Cancel) {
        self.seconds.fetch_add(time.as_secs(), Ordering::SeqCst);
        let mut pauses = self.pauses.lock().unwrap();
        pauses.push(time.as_secs());
        if self.stop_after.is_some_and(|after| pauses.len() >= after) {
            cancel.request("enough");
        }
    }
}

/// How long the archive takes.
const TAKES: Duration = Duration::from_secs(4 * 60 * 60);

impl Archive {
    fn state(&self, file: File) -> State {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        match states.get(&file) {
            Some(State::Warming(until)) if self.clock.now() >= *until => State::Ready,
            Some(state) => *state,
            None => State::Ready,
        }
    }

    fn refuse_archived(&self, file: File) -> Result<(), StorageError> {
        match self.state(file) {
            State::Ready => Ok(()),
            _ => {
                self.refused.fetch_add(1, Ordering::SeqCst);
                Err(StorageError::new("read", file, StorageProblem::Archived))
            }
        }
    }
}

impl Storage for Archive {
    forward!(inner: prepare, list, size, put, put_new, delete);

    fn location(&self) -> String {
        "cold".to_owned()
    }

    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        self.refuse_archived(file)?;
        self.inner.read(file, bytes_max)
    }

    fn read_range(&self, file: File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        self.refuse_archived(file)?;
        self.inner.read_range(file, offset, buffer)
    }

    fn put_pack(
        &self,
        id: PackId,
        holds: BlobKind,
        content: &Arc<Vec<u8>>,
    ) -> Result<Storing<'_>, StorageError> {
        if holds == BlobKind::Data {
            self.states.lock().unwrap().insert(File::Pack(id), State::Archived);
        }
        self.inner.put(File::Pack(id), content)?;
        Ok(Storing::done())
    }

    fn archiving(&self) -> Archiving {
        self.archiving
    }

    fn reach(&self, file: File) -> Result<Reach, StorageError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        Ok(match self.state(file) {
            State::Archived => Reach::Archived,
            State::Warming(_) => Reach::Warming,
            State::Ready => Reach::Ready,
        })
    }

    fn warm_up(&self, file: File) -> Result<(), StorageError> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(StorageError::new("bring back", file, StorageProblem::Denied));
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let until = self.clock.now() + TAKES;
        self.states.lock().unwrap().insert(file, State::Warming(until));
        Ok(())
    }
}

/// A repository with three packs of data, of which two are needed by `first` and two by `second`.
struct Cold {
    archive: Arc<Archive>,
    repository: IndexedRepository,
    trees: [BlobId; 2],
    folder: tempfile::TempDir,
}

impl Cold {
    fn new(archiving: Archiving, stop_after: Option<usize>) -> Self {
        let mut builder = RepositoryBuilder::new();
        let blobs = [b"one", b"two", b"six"].map(|text| {
            let id = builder.add_data_blob(text);
            builder.close_packs();
            id
        });
        let packs = builder.packs().iter().map(|pack| (File::Pack(pack.id), State::Archived));
        let states = Mutex::new(packs.collect());
        let trees = [[0, 1], [1, 2]].map(|which| {
            let content = which.map(|number| blobs[number]).to_vec();
            let node = crate::testing::file_node(b"file", content, 6);
            builder.add_tree(vec![node])
        });
        let inner = builder.storage();
        let clock = Arc::new(Hand { stop_after, ..Hand::default() });
        let (looks, asked) = (AtomicU64::new(0), AtomicU64::new(0));
        let (refused, is_broken) = (AtomicU64::new(0), AtomicBool::new(false));
        let archive = Archive { inner, states, clock, archiving, looks, asked, refused, is_broken };
        let archive = Arc::new(archive);
        let storage: Arc<dyn Storage> = archive.clone();
        let hot = builder.finish();
        let index = hot.read_index(&Run::new()).unwrap();
        let repository = IndexedRepository::with_index((*hot).clone().on(storage), index);
        Self { archive, repository, trees, folder: tempfile::tempdir().unwrap() }
    }

    /// A rule of the bucket archives packs of folders, too.
    fn archive_folders(&self) -> usize {
        let mut states = self.archive.states.lock().unwrap();
        let trees = self.repository.index().iter().filter(|it| it.blob.kind == BlobKind::Tree);
        let packs: HashSet<PackId> = trees.map(|it| it.pack).collect();
        states.extend(packs.iter().map(|pack| (File::Pack(*pack), State::Archived)));
        packs.len()
    }

    /// As commands load it.
    fn loaded(&self, run: &Run) -> IndexedRepository {
        self.repository.clone().allowing(run)
    }

    fn run(&self, at_most: Duration) -> Run {
        let warm_up = WarmUp::allowed(at_most).by(self.archive.clock.clone());
        Run { warm_up, ..Run::new() }
    }

    fn target(&self) -> std::path::PathBuf {
        self.folder.path().join("target")
    }

    fn restore(
        &self,
        run: &Run,
    ) -> Result<crate::restore::RestoreReport, crate::restore::RestoreError> {
        restore(&self.repository, self.trees[0], &RestoreOptions::new(self.target()), run)
    }

    fn snapshot(&self, number: usize) -> SnapshotId {
        let now = Environment::detect().now();
        let tree = self.trees[number];
        let json = format!("{{\"time\":\"{now}\",\"tree\":\"{tree}\",\"paths\":[]}}");
        let snapshot: crate::format::snapshot::Snapshot = serde_json::from_str(&json).unwrap();
        self.repository.save_unpacked(File::Snapshot, &snapshot).unwrap()
    }

    fn counts(&self) -> (u64, u64) {
        let Archive { looks, asked, .. } = &*self.archive;
        (looks.load(Ordering::SeqCst), asked.load(Ordering::SeqCst))
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn without_leave_a_restore_says_what_is_archived_and_touches_nothing() {
    let cold = Cold::new(Archiving::Expected, None);
    let error = cold.restore(&Run::new()).err().unwrap();
    assert_eq!((error.class(), error.code()), (Class::Denied, "packs-archived"));
    let told = error.to_string();
    assert!(told.starts_with("read 2 packs (") && told.ends_with(") of cold: archived"), "{told}");
    assert!(error.help().unwrap().contains("--warm-up"));
    assert!(!cold.target().exists());
    assert_eq!(cold.counts(), (2, 0), "what is not needed is not asked about");
}

#[test]
fn all_that_is_archived_comes_back_in_one_wait() {
    let cold = Cold::new(Archiving::Expected, None);
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = events.clone();
    let mut run = cold.run(DAY);
    run.warm_up = run.warm_up.telling(move |event| heard.lock().unwrap().push(event));
    let report = cold.restore(&run).unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(std::fs::read(cold.target().join("file")).unwrap(), b"onetwo");
    assert_eq!(cold.counts().1, 2);
    let pauses = cold.archive.clock.pauses.lock().unwrap().clone();
    assert_eq!(pauses[..7], [10, 20, 40, 80, 160, 300, 300]);
    let events = events.lock().unwrap();
    let [Event::Asked { waits, on_their_way, .. }, Event::Ready { came: packs, waited, .. }] =
        events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((waits.packs, on_their_way.packs, packs), (2, 0, waits));
    assert!((TAKES..TAKES + PAUSES.1).contains(&waited), "{waited:?}");
}

#[test]
fn a_dry_run_tells_what_would_have_to_come_back_and_asks_for_nothing() {
    let cold = Cold::new(Archiving::Expected, None);
    let options = RestoreOptions { dry_run: true, ..RestoreOptions::new(cold.target()) };
    let report = restore(&cold.repository, cold.trees[0], &options, &Run::new()).unwrap();
    assert_eq!((report.archived.packs, cold.counts()), (2, (2, 0)));
    assert!(report.archived.bytes > 0);
}

#[test]
fn where_nothing_need_be_archived_nobody_asks() {
    let cold = Cold::new(Archiving::Possible, None);
    let report = cold.restore(&Run::new()).unwrap();
    assert_eq!((cold.counts(), report.counts.problems), ((0, 0), 1));
    let problem = &report.problems[0];
    assert_eq!((problem.class(), problem.code()), (Class::Denied, "store-archived"));
    assert!(!report.found_damage());
    let never = Cold::new(Archiving::Never, None);
    never.archive.states.lock().unwrap().clear();
    assert!(never.restore(&never.run(DAY)).unwrap().is_complete());
    assert_eq!(never.counts(), (0, 0), "not even with leave");
}

#[test]
fn who_waits_no_longer_finds_it_on_its_way_later() {
    let cold = Cold::new(Archiving::Possible, None);
    let error = cold.restore(&cold.run(Duration::from_secs(3600))).err().unwrap();
    assert_eq!((error.class(), error.code()), (Class::Transient, "warm-up-timed-out"));
    assert!(error.to_string().contains("not there after 1h"), "{error}");
    assert!(!cold.target().exists());
    assert!(cold.restore(&cold.run(DAY)).unwrap().is_complete());
    assert_eq!(cold.counts().1, 2, "nothing is asked for twice");
}

#[test]
fn a_wait_ends_when_it_is_asked_to() {
    let cold = Cold::new(Archiving::Expected, Some(3));
    let error = cold.restore(&cold.run(DAY)).err().unwrap();
    assert_eq!((error.class(), error.code()), (Class::Interrupted, "interrupted"));
    assert_eq!(cold.archive.clock.pauses.lock().unwrap().len(), 3);
}

#[test]
fn a_dump_waits_before_it_writes() {
    let cold = Cold::new(Archiving::Expected, None);
    for (run, written) in [(Run::new(), &b""[..]), (cold.run(DAY), b"onetwo")] {
        let target = find_target(&cold.repository, cold.trees[0], b"/file").unwrap();
        let mut to = Vec::new();
        let dumped = dump(&cold.repository, target, ArchiveFormat::Tar, &run, &mut to);
        assert_eq!(dumped.is_ok(), !written.is_empty());
        assert_eq!(to, written);
    }
    assert_eq!(cold.counts().1, 2);
}

#[test]
fn a_check_reads_back_what_it_may_bring_back() {
    let cold = Cold::new(Archiving::Expected, None);
    let _ = cold.snapshot(0);
    let plain = check(&cold.repository, &CheckOptions::default(), &Run::new()).unwrap();
    assert!(plain.is_clean() && cold.counts() == (0, 0), "without reading data nothing is asked");
    let options = CheckOptions { read_data: ReadData::All };
    let error = check(&cold.repository, &options, &Run::new()).err().unwrap();
    assert_eq!(error.code(), "packs-archived");
    let report = check(&cold.repository, &options, &cold.run(DAY)).unwrap();
    assert!(report.is_clean() && report.counts.packs_read >= 4, "{report:?}");
    assert_eq!(cold.counts().1, 3);
}

#[test]
fn what_nobody_knew_to_be_archived_is_no_damage() {
    let cold = Cold::new(Archiving::Possible, None);
    let _ = cold.snapshot(0);
    let options = CheckOptions { read_data: ReadData::All };
    let report = check(&cold.repository, &options, &Run::new()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.counts.packs_archived, cold.counts()), (3, (0, 0)));
}

#[test]
fn reading_in_turn_does_without_what_is_archived_and_says_so() {
    let options = CheckOptions { read_data: ReadData::All };
    for archiving in [Archiving::Expected, Archiving::Possible] {
        let cold = Cold::new(archiving, None);
        let _ = cold.snapshot(0);
        // The time is over at once: one is read all the same, and what is archived is none.
        let rota = Rota { now: 100, budget: Some(Duration::ZERO), ..Rota::default() };
        let report = check_in_turn(&cold.repository, &options, Some(&rota), &Run::new()).unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.sound_packs.len(), report.counts.packs_read), (1, 1), "{report:?}");
        let rota = Rota { now: 100, ..Rota::default() };
        let report = check_in_turn(&cold.repository, &options, Some(&rota), &Run::new()).unwrap();
        let counts = report.counts;
        assert_eq!((counts.packs_archived, counts.packs_due, cold.counts()), (3, 0, (0, 0)));
        assert!(counts.bytes_archived > 0 && counts.packs_read > 0, "{counts:?}");
        let turn = report.in_turn.as_ref().unwrap();
        assert_eq!((turn.never_read, turn.oldest), (3, Some(100)), "they stay due: {turn:?}");
        let run = cold.run(DAY);
        let report = check_in_turn(&cold.repository, &options, Some(&rota), &run).unwrap();
        assert_eq!((report.counts.packs_archived, cold.counts().1), (0, 3));
        assert_eq!(report.in_turn.unwrap().never_read, 0);
    }
}

#[test]
fn what_is_archived_does_not_stand_before_what_can_be_read() {
    let cold = Cold::new(Archiving::Possible, None);
    let _ = (cold.snapshot(0), cold.snapshot(1));
    let options = CheckOptions { read_data: ReadData::All };
    let read = |rota: &Rota| {
        let before = cold.archive.refused.load(Ordering::SeqCst);
        let run = Run::new();
        let report = check_in_turn(&cold.repository, &options, Some(rota), &run).unwrap();
        (report, cold.archive.refused.load(Ordering::SeqCst) - before)
    };
    let (report, _) = read(&Rota { now: 100, ..Rota::default() });
    let mut verified = Verified::default();
    report.sound_packs.iter().for_each(|pack| verified.note(*pack, 100));
    report.archived_packs.iter().for_each(|pack| verified.note_archived(*pack, 100));
    assert_eq!(report.archived_packs.len(), 3);
    // What was never found sound would come first, and the time is over at once.
    let budget = Some(Duration::ZERO);
    let rota = Rota { verified, now: 200, budget, ..Rota::default() };
    let (report, refused) = read(&rota);
    let counts = report.counts;
    assert_eq!((counts.packs_read, refused), (1, 0), "{counts:?}");
    assert_eq!(counts.packs_archived, 3, "they are told all the same");
    assert!(counts.bytes_archived > 0 && report.archived_packs.is_empty(), "{report:?}");
    assert_eq!(report.in_turn.unwrap().never_read, 3, "and stay due");
    assert_eq!(counts.packs_due, counts.packs - 1 - 3);
    // When there is time they have their turn, in case that somebody brought them back.
    let (report, refused) = read(&Rota { budget: None, ..rota });
    assert_eq!((report.archived_packs.len(), refused, report.counts.packs_due), (3, 3, 0));
}

#[test]
fn folders_that_do_not_come_back_are_no_damage() {
    let check = |cold: &Cold, run: &Run| check(&cold.repository, &CheckOptions::default(), run);
    let cold = Cold::new(Archiving::Possible, None);
    let _ = (cold.archive_folders(), cold.snapshot(0), cold.snapshot(1));
    cold.archive.is_broken.store(true, Ordering::SeqCst);
    let error = check(&cold, &cold.run(DAY)).err().unwrap();
    assert_eq!((error.class(), error.code()), (Class::Denied, "storage-denied"));
    let CheckError::Read(ReadError::NotWarm(why)) = &error else { panic!("{error:?}") };
    assert_eq!(why.to_string(), "bring back archived packs");
    assert!(error.help().unwrap().contains("credentials"), "{:?}", error.help());
    cold.archive.is_broken.store(false, Ordering::SeqCst);
    let error = check(&cold, &cold.run(Duration::from_secs(3600))).err().unwrap();
    assert_eq!((error.class(), error.code()), (Class::Transient, "warm-up-timed-out"));
    assert!(check(&cold, &cold.run(DAY)).unwrap().is_clean());
}

/// A repository whose small files a rule of the bucket archived, as it is opened by a run.
fn small(cold: &Cold, run: &Run) -> Result<Repository, crate::repository::OpenError> {
    let archive: Arc<dyn Storage> = cold.archive.clone();
    Repository::open(small_files(archive, run), crate::testing::PASSWORD, None)
}

impl Cold {
    /// Archives all files of some kinds.
    fn archive_small(&self, kinds: &[FileKind]) -> usize {
        let list = |&kind: &FileKind| self.archive.inner.list(kind).unwrap();
        let files: Vec<_> = kinds.iter().flat_map(list).map(|it| it.file).collect();
        let mut states = self.archive.states.lock().unwrap();
        states.extend(files.iter().map(|file| (*file, State::Archived)));
        files.len()
    }
}

#[test]
fn small_files_that_a_rule_archived_come_back_in_one_wait() {
    let cold = Cold::new(Archiving::Possible, None);
    let _ = (cold.snapshot(0), cold.snapshot(1));
    let kinds = [FileKind::Key, FileKind::Snapshot, FileKind::Index];
    let archived = cold.archive_small(&kinds) as u64;
    cold.archive.states.lock().unwrap().insert(File::Config, State::Archived);
    let error = small(&cold, &Run::new()).err().unwrap();
    assert_eq!((error.class(), error.code()), (Class::Denied, "store-archived"));
    let told = std::error::Error::source(&error).unwrap().to_string();
    let key = cold.archive.inner.list(FileKind::Key).unwrap()[0].file.to_string();
    assert!(told.starts_with("archived: config, keys/") && told.contains(&key), "{told}");
    assert_eq!((told.matches("snapshots/").count(), told.matches("index/").count()), (2, 1));
    assert!(error.help().unwrap().contains("--warm-up"));
    assert_eq!(cold.counts().1, 0);

    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = events.clone();
    let mut run = cold.run(DAY);
    run.warm_up = run.warm_up.telling(move |event| heard.lock().unwrap().push(event));
    let opened = small(&cold, &run).unwrap();
    assert_eq!(opened.snapshots().unwrap().len(), 2);
    let _ = opened.read_index(&run).unwrap();
    assert_eq!(cold.counts().1, archived + 1, "config too");
    let events = events.lock().unwrap();
    assert!(matches!(events[..], [Event::Asked { .. }, Event::Ready { .. }]), "{events:?}");
}

#[test]
fn archived_small_files_are_named_and_no_damage() {
    for kind in [FileKind::Snapshot, FileKind::Index] {
        let cold = Cold::new(Archiving::Possible, None);
        for _ in 0..10 {
            let _ = cold.snapshot(0);
        }
        cold.archive_small(&[kind]);
        let opened = small(&cold, &Run::new()).unwrap();
        let error = check(&opened, &CheckOptions::default(), &Run::new()).err().unwrap();
        assert_eq!((error.class(), error.code()), (Class::Denied, "store-archived"));
        let told = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(told.contains("2 more snapshots"), kind == FileKind::Snapshot, "{told}");
        let looks = cold.counts().0;
        assert!(opened.read_index(&Run::new()).is_err() || kind == FileKind::Snapshot);
        assert_eq!(cold.counts().0, looks, "they are looked at once");
    }
}

#[test]
fn small_files_that_do_not_come_in_time_come_later() {
    let cold = Cold::new(Archiving::Possible, None);
    cold.archive_small(&[FileKind::Key]);
    let error = small(&cold, &cold.run(Duration::from_secs(3600))).err().unwrap();
    assert_eq!(error.class(), Class::Transient);
    let told = std::error::Error::source(&error).unwrap().to_string();
    assert!(told.contains("1 small file (") && told.contains("not there after 1h"), "{told}");
    assert!(small(&cold, &cold.run(DAY)).is_ok());
    assert_eq!(cold.counts().1, 1, "nothing is asked for twice");
}

#[test]
fn an_archived_pack_of_another_size_is_damage_all_the_same() {
    let cold = Cold::new(Archiving::Possible, None);
    let _ = cold.snapshot(0);
    let first = cold.archive.states.lock().unwrap().keys().copied().next().unwrap();
    let content = cold.archive.inner.read(first, 1 << 20).unwrap();
    cold.archive.inner.delete(first).unwrap();
    cold.archive.inner.put(first, &content[1..]).unwrap();
    let report = check(&cold.repository, &CheckOptions::default(), &Run::new()).unwrap();
    assert_eq!(report.damages.len(), 1, "{report:?}");
    assert_eq!((report.damages[0].problem.word(), report.counts.packs_archived), ("truncated", 1));
}

#[test]
fn archived_folders_come_back_in_one_wait_before_the_data_does() {
    let cold = Cold::new(Archiving::Possible, None);
    let folders = cold.archive_folders() as u64;
    let restore = |run: &Run| {
        let options = RestoreOptions::new(cold.target());
        restore(&cold.loaded(run), cold.trees[0], &options, run)
    };
    let error = restore(&Run::new()).err().unwrap();
    assert_eq!((error.class(), error.code()), (Class::Denied, "store-archived"));
    assert_eq!(cold.counts(), (0, 0));
    let events = Arc::new(Mutex::new(0));
    let heard = events.clone();
    let mut run = cold.run(DAY);
    run.warm_up = run.warm_up.telling(move |_| *heard.lock().unwrap() += 1);
    assert!(restore(&run).unwrap().is_complete());
    assert_eq!(std::fs::read(cold.target().join("file")).unwrap(), b"onetwo");
    assert_eq!((cold.counts().1, *events.lock().unwrap()), (folders + 2, 4), "two waits");
}

#[test]
fn a_wait_for_folders_that_is_too_short_is_told_once() {
    let cold = Cold::new(Archiving::Possible, None);
    let folders = cold.archive_folders() as u64;
    let run = cold.run(Duration::from_secs(3600));
    let loaded = cold.loaded(&run);
    let mut reader = loaded.blob_reader().unwrap();
    assert_eq!(reader.tree(cold.trees[0]).err().unwrap().code(), "warm-up-timed-out");
    assert_eq!(reader.tree(cold.trees[1]).err().unwrap().code(), "store-archived");
    assert_eq!(cold.counts().1, folders);
}

#[test]
fn a_check_says_which_folders_it_could_not_look_into() {
    let cold = Cold::new(Archiving::Possible, None);
    let folders = cold.archive_folders() as u64;
    let _ = (cold.snapshot(0), cold.snapshot(1));
    let report = check(&cold.repository, &CheckOptions::default(), &Run::new()).unwrap();
    assert!(report.is_clean(), "what is archived is no damage: {report:?}");
    let counts = report.counts;
    assert_eq!((counts.trees, counts.trees_archived, counts.packs_archived), (0, 2, folders));
    let options = CheckOptions { read_data: ReadData::All };
    let report = check(&cold.repository, &options, &cold.run(DAY)).unwrap();
    assert_eq!((report.counts.trees, report.counts.packs_archived), (2, 0), "{report:?}");
}

#[test]
fn a_copy_brings_back_its_source_and_writes_data_alone_to_the_archive() {
    let (from, to) = (Cold::new(Archiving::Expected, None), Cold::new(Archiving::Expected, None));
    let _ = (from.snapshot(0), from.snapshot(1));
    let snapshots = from.repository.snapshots().unwrap();
    let copy = |run: &Run| {
        // The target holds nothing that it knows of.
        let empty =
            IndexedRepository::with_index((*to.repository).clone(), crate::index::Index::new());
        let options = PackOptions::default();
        copy(&from.repository, Target::from(empty), &snapshots, options, run, &mut |_| {})
    };
    assert_eq!(copy(&Run::new()).err().unwrap().code(), "packs-archived");
    let before = to.archive.states.lock().unwrap().len();
    let report = copy(&from.run(DAY)).unwrap();
    assert_eq!((report.copied.len(), from.counts().1, to.counts().1), (2, 3, 0));
    let archived = to.archive.states.lock().unwrap().len() - before;
    assert!(archived > 0 && report.stats.packs > archived as u64, "trees stay");
}

#[test]
fn a_prune_deletes_what_nothing_needs_and_repacks_only_with_leave() {
    let cold = Cold::new(Archiving::Expected, None);
    let _ = cold.snapshot(0);
    let environment = Environment::detect();
    let options = PruneOptions {
        instant: true,
        max_unused: Limit::Bytes(0),
        repack_small: true,
        ..PruneOptions::default()
    };
    let report = prune(&cold.repository, &options, &environment, &Run::new()).unwrap();
    // A pack of folders is repacked, of data only what nothing needs goes.
    assert_eq!((report.deleted.packs, report.repacked.packs), (2, 1));
    assert_eq!(cold.archive.states.lock().unwrap().len(), 3);
    assert_eq!(cold.counts(), (1, 0));
    let report = prune(&cold.repository, &options, &environment, &cold.run(DAY)).unwrap();
    assert_eq!((report.repacked.packs, report.damaged.len(), cold.counts().1), (2, 0, 2));
}
