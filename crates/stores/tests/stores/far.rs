//! Stores at the end of a long line: connections counted on the line itself, bytes that are sent
//! again after an interruption, and a limit that many requests share.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use muster_model::{Class, Location};
use muster_repository::{
    backup::{BackupOptions, BackupReport, backup},
    check::{CheckOptions, ReadData, check},
    copy::{Target, copy},
    environment::Environment,
    forget::forget,
    format::{config::Version, key_file::Cost, pack::BlobKind, time::Timestamp},
    id::PackId,
    lock::{Lock, LockKind},
    packer::PackOptions,
    prune::{PruneOptions, prune},
    repository::{InitOptions, Repository},
    restore::{Overwrite, RestoreOptions, RestoreReport, restore},
    run::Run,
    storage::{FileKind, Storage, conformance, memory::MemoryStorage},
};
use muster_stores::{Limits, Settings, open};
use muster_testkit::{
    Scratch,
    stores::{
        self,
        line::Line,
        rest::{Options, RestServer},
    },
    wait_for,
};

use crate::settings;

const PASSWORD: &[u8] = b"correct horse";
const MIB: u64 = 1 << 20;
const PACK_BYTES: u32 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// It takes less than a second where nobody else wants the processor.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A place for a repository behind a line.
struct Place {
    location: String,
    settings: Settings,
}

impl Place {
    fn open(&self) -> Arc<dyn Storage> {
        open(&Location::parse(&self.location).unwrap(), &self.settings).unwrap()
    }

    fn repository(&self) -> Repository {
        Repository::open(self.open(), PASSWORD, None).unwrap()
    }

    fn limited(&self, limits: Limits) -> Self {
        let settings = Settings { limits, ..self.settings.clone() };
        Self { location: self.location.clone(), settings }
    }

    fn cancelled_by(mut self, run: &Run) -> Self {
        self.settings.cancel = Some(run.cancel.clone());
        self
    }
}

fn init(storage: Arc<dyn Storage>) -> Repository {
    let (author, cost) = (Environment::detect().author(), Cost::FOR_TESTS);
    let options = InitOptions { version: Version::V2, polynomial: None, cost, author };
    Repository::init(storage, PASSWORD, options).unwrap()
}

/// Twelve files of noise, a megabyte each, in as many folders.
fn source(scratch: &Scratch) -> PathBuf {
    let source = scratch.join("source");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..12 {
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        });
        let noise: Vec<u8> = noise.flat_map(u64::to_le_bytes).take(1 << 20).collect();
        fs::create_dir_all(source.join(format!("{number}"))).unwrap();
        fs::write(source.join(format!("{number}/noise")), noise).unwrap();
    }
    source
}

fn back_up(
    repository: &Repository,
    source: &Path,
    run: &Run,
) -> Result<BackupReport, muster_repository::backup::BackupError> {
    let mut options = BackupOptions::new(vec![source.to_path_buf()]);
    options.packs.pack_bytes = PACK_BYTES;
    backup(repository, options, &Environment::detect(), run)
}

fn restore_latest(
    repository: &Repository,
    target: &Path,
    run: &Run,
) -> Result<RestoreReport, muster_repository::restore::RestoreError> {
    let tree = repository.snapshots().unwrap().pop().unwrap().1.tree;
    let indexed = repository.load_index(&Run::new()).unwrap();
    let options = RestoreOptions { overwrite: Overwrite::IfChanged, ..RestoreOptions::new(target) };
    restore(&indexed, tree, &options, run)
}

/// Everything that a repository goes through, with a look at the line after each verb.
fn live(place: &Place, line: &Line, connections: u64) {
    let (scratch, run) = (Scratch::new("connections").unwrap(), Run::new());
    let (source, environment) = (source(&scratch), Environment::detect());
    line.allow(connections);
    let look = |verb: &str| {
        let open = line.take_open_max();
        assert!((1..=connections).contains(&open), "{verb}: {open} of {connections} connections");
    };
    init(place.open());
    look("init");
    let lock = |repository: &Repository, kind| {
        Lock::acquire(repository, kind, Duration::ZERO, &environment, &run).unwrap()
    };
    assert!(back_up(&place.repository(), &source, &run).unwrap().problems.is_empty());
    look("backup");
    fs::remove_dir_all(source.join("3")).unwrap();
    assert!(back_up(&place.repository(), &source, &run).unwrap().problems.is_empty());
    look("a second backup");
    let target = scratch.join("restored");
    assert!(restore_latest(&place.repository(), &target, &run).unwrap().is_complete());
    look("restore");
    let options = CheckOptions { read_data: ReadData::All };
    assert!(check(&place.repository(), &options, &run).unwrap().is_clean());
    look("check");
    let near = init(Arc::new(MemoryStorage::new()));
    let (far, held) = (place.repository(), lock(&near, LockKind::Shared));
    let (from, all) = (far.load_index(&run).unwrap(), far.snapshots().unwrap());
    let into = Target::open(&near, &held, &run).unwrap();
    let copied = copy(&from, into, &all, PackOptions::default(), &run, &mut |_| {}).unwrap();
    assert_eq!((copied.copied.len(), copied.failed.len()), (2, 0));
    look("copy");
    let held = lock(&far, LockKind::Exclusive);
    let forgotten = forget(&far, &held, &[all[0].0], &[], &run).unwrap();
    assert!(forgotten.failed.is_empty());
    held.release().unwrap();
    look("forget");
    for days in [0, 400] {
        let now = Some(Timestamp::new(environment.now().seconds() + days * 24 * 60 * 60, 0, 0));
        let options = PruneOptions { now, ..PruneOptions::default() };
        let _report = prune(&far, &options, &environment, &run).unwrap();
        look("prune");
    }
    drop((far, from));
    assert!(check(&place.repository(), &options_all(), &run).unwrap().is_clean());
    look("a last check");
}

fn options_all() -> CheckOptions {
    CheckOptions { read_data: ReadData::All }
}

/// Behind a server that keeps connections open, each one too many would stay to be seen.
#[test]
fn there_are_never_more_connections_to_a_rest_server_than_stated() {
    for connections in [1, 3] {
        let server = RestServer::start(Options::default());
        let line = Line::start(server.address(), Duration::from_millis(2));
        let location = format!("rest:http://{}/", line.address());
        let settings = settings(&[&format!("rest.connections={connections}")], &[]);
        live(&Place { location, settings }, &line, connections);
    }
}

#[test]
fn there_are_never_more_connections_to_s3_than_stated() {
    let Some(server) = stores::s3(&["far"]) else { return };
    let line = Line::start(server.address(), Duration::from_millis(2));
    let location = format!("s3:http://{}/far/repo", line.address());
    let key = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key")];
    let settings = settings(&["s3.connections=3"], &key);
    live(&Place { location, settings }, &line, 3);
}

/// A REST server behind 50 ms, with an empty repository.
fn far() -> (RestServer, Line, Place) {
    let server = RestServer::start(Options::default());
    let line = Line::start(server.address(), Duration::from_millis(25));
    let location = format!("rest:http://{}/", line.address());
    let place = Place { location, settings: settings(&[], &[]) };
    init(place.open());
    (server, line, place)
}

/// Begins something, asks it to stop when `reached`, and waits for its end, which comes at once.
fn interrupted<T: Send, E: Send + muster_model::Fault>(
    run: &Run,
    reached: impl Fn() -> bool,
    work: impl FnOnce() -> Result<T, E> + Send,
) {
    thread::scope(|scope| {
        let working = scope.spawn(work);
        let reached = || (reached() || working.is_finished()).then_some(());
        wait_for("the moment to interrupt", PATIENCE, reached).unwrap();
        let asked = Instant::now();
        run.cancel.request("it was interrupted");
        let error = working.join().unwrap().err().expect("it was at work still");
        assert_eq!(error.class(), Class::Interrupted, "{error}");
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    });
}

#[test]
fn an_interrupted_backup_sends_nothing_again_that_was_stored() {
    let (server, line, place) = far();
    let (scratch, run) = (Scratch::new("resume").unwrap(), Run::new());
    let source = source(&scratch);
    let packs = || server.files().iter().filter(|path| path.starts_with("/data/")).count();
    let slow = Limits { up: Some(4 * MIB), down: None };
    let repository = place.limited(slow).cancelled_by(&run).repository();
    interrupted(&run, || packs() >= 4, || back_up(&repository, &source, &run));
    let stored = place.open().list(FileKind::Pack).unwrap();
    assert!(place.open().list(FileKind::Lock).unwrap().is_empty(), "its lock is gone");
    let stored_bytes: u64 = stored.iter().map(|listed| listed.bytes).sum();
    let before = line.bytes_up();
    let report = back_up(&place.repository(), &source, &Run::new()).unwrap();
    assert_eq!(report.packs_adopted, stored.len());
    let sent = line.bytes_up() - before;
    let rest = 12 * MIB - stored_bytes;
    assert!(sent < rest + MIB / 4, "{sent} bytes, where {rest} were missing");
    assert!(check(&place.repository(), &options_all(), &Run::new()).unwrap().is_clean());
}

#[test]
fn an_interrupted_restore_reads_only_the_rest() {
    let (_server, line, place) = far();
    let (scratch, run) = (Scratch::new("resume").unwrap(), Run::new());
    let source = source(&scratch);
    assert!(back_up(&place.repository(), &source, &Run::new()).unwrap().problems.is_empty());
    let target = scratch.join("restored");
    let whole = || {
        let root = target.join(source.strip_prefix("/").unwrap());
        let is_whole = |number: &i32| root.join(format!("{number}/noise")).exists();
        (0..12).filter(is_whole).count() as u64
    };
    let slow = Limits { up: None, down: Some(4 * MIB) };
    let repository = place.limited(slow).cancelled_by(&run).repository();
    interrupted(&run, || whole() >= 6, || restore_latest(&repository, &target, &run));
    let (kept, before) = (whole(), line.bytes_down());
    assert!(restore_latest(&place.repository(), &target, &Run::new()).unwrap().is_complete());
    let read = line.bytes_down() - before;
    let rest = (12 - kept) * MIB;
    // Gaps that are quicker read than asked around are read, too.
    assert!(read < rest + 2 * MIB, "{read} bytes, where {rest} were missing");
    assert_eq!(whole(), 12);
}

/// No more than 5 % above, however many requests share it; that it is no less, and no more in any
/// second, is shown in made-up time (`bucket/tests.rs`).
#[test]
fn requests_side_by_side_share_a_limit() {
    let (_server, line, place) = far();
    let rate = 2 * MIB;
    let limited = place.limited(Limits { up: Some(rate), down: Some(rate) }).open();
    let content = vec![7; 800 << 10];
    let at_once = |work: &(dyn Fn(u64) + Sync)| {
        let began = Instant::now();
        thread::scope(|scope| {
            for number in 0..5 {
                scope.spawn(move || work(number));
            }
        });
        began.elapsed().as_secs_f64()
    };
    let keeps = |bytes: u64, seconds: f64| {
        let most = rate as f64 * 1.05 * seconds;
        assert!((bytes as f64) < most, "{bytes} bytes in {seconds} s");
    };
    let before = line.bytes_up();
    let seconds = at_once(&|number| limited.put(conformance::pack(number), &content).unwrap());
    keeps(line.bytes_up() - before, seconds);
    let before = line.bytes_down();
    let seconds = at_once(&|number| {
        limited.read(conformance::pack(number), MIB).unwrap();
    });
    keeps(line.bytes_down() - before, seconds);
}

/// Nobody holds on to the content of a pack that is stored: its buffer is used again.
#[test]
fn a_stored_pack_is_let_go_of() {
    let server = RestServer::start(Options::default());
    let mut places = vec![Place {
        location: format!("rest:http://{}/", server.address()),
        settings: settings(&[], &[]),
    }];
    let s3 = stores::s3(&["far"]);
    let key = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key")];
    places.extend(s3.as_ref().map(|server| Place {
        location: format!("s3:http://{}/far/repo", server.address()),
        settings: settings(&[], &key),
    }));
    for place in places {
        let storage = place.open();
        for number in 0..20 {
            let content = Arc::new(vec![number; 3 << 20]);
            let id = PackId::of(&content);
            storage.put_pack(id, BlobKind::Data, &content).unwrap().finish().unwrap();
            assert_eq!(Arc::strong_count(&content), 1, "{} {number}", place.location);
        }
    }
}
