//! Any sequence of verbs, with two writers at work meanwhile: every kept snapshot is what it was.
//!
//! Refusals are part of it: a verb that finds the repository locked does nothing. Clocks of the
//! writers and of prune differ by hours. `MUSTER_TEST_SEED=N` runs the sequences of that seed, and
//! `MUSTER_TEST_SEQUENCES=N` so many of them.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use muster_model::{BackupKind, Fault};
use muster_repository::{
    backup::BackupOptions,
    check::{CheckOptions, ReadData, check},
    copy::{Target, copy},
    environment::Environment,
    exclude::Patterns,
    forget::forget,
    format::{config::Version, key_file::Cost, pack::BlobKind, time::Timestamp},
    id::{BlobId, SnapshotId},
    lock::{Lock, LockKind},
    packer::PackOptions,
    prune::{Limit, PruneOptions, prune},
    repository::Repository,
    rewrite::{RewriteOptions, rewrite},
    rotate,
    run::Run,
    storage::LocalStorage,
    tag::{self, TagChange},
    tree_walk::find_subtree,
};
use muster_testkit::{peers, wait_for};
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    common::{PASSWORD, Sandbox, backup, open_at, restic},
    crash::noise,
};

/// Sequences that are run when nobody asks for more.
const SEQUENCES: u32 = 3;

/// Files and what is in them, by name.
type Content = BTreeMap<String, Vec<u8>>;

/// What happens while two writers back up, or alone.
#[derive(Debug, Clone)]
struct Step {
    verb: Verb,
    /// Which files each writer changes; a writer without any does not back up.
    writers: [u8; 2],
    /// Hours by which the clocks of the writers are wrong.
    skew: [i64; 2],
}

#[derive(Debug, Clone)]
enum Verb {
    Nothing,
    Forget(Index),
    Prune { instant: bool, skew_hours: i64 },
    Tag(Index),
    Rewrite(Index),
    Rotate,
    Pass { hours: i64 },
    ResticPrune,
}

fn any_step() -> impl Strategy<Value = Step> {
    let verb = prop_oneof![
        2 => Just(Verb::Nothing),
        3 => any::<Index>().prop_map(Verb::Forget),
        4 => (prop::bool::weighted(0.3), -30..30_i64)
            .prop_map(|(instant, skew_hours)| Verb::Prune { instant, skew_hours }),
        2 => any::<Index>().prop_map(Verb::Tag),
        2 => any::<Index>().prop_map(Verb::Rewrite),
        2 => Just(Verb::Rotate),
        2 => (1..40_i64).prop_map(|hours| Verb::Pass { hours }),
        1 => Just(Verb::ResticPrune),
    ];
    let files = || prop_oneof![1 => Just(0_u8), 2 => 1..64_u8];
    (verb, files(), files(), -20..20_i64, -20..20_i64).prop_map(|(verb, a, b, x, y)| Step {
        verb,
        writers: [a, b],
        skew: [x, y],
    })
}

struct World {
    sandbox: Sandbox,
    now_s: i64,
    round: u64,
    kept: BTreeMap<SnapshotId, Content>,
    /// What each snapshot of the new repository has to hold.
    rotated: BTreeMap<SnapshotId, Content>,
}

impl World {
    fn new() -> anyhow::Result<Self> {
        let sandbox = Sandbox::new("sequences")?;
        sandbox.init(Version::V2)?;
        for writer in 0..2 {
            let folder = sandbox.folder(&format!("source-{writer}"))?;
            fs::write(folder.join("always"), "here")?;
        }
        let (kept, rotated) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { sandbox, now_s: 1_700_000_000, round: 0, kept, rotated })
    }

    fn source(&self, writer: usize) -> PathBuf {
        self.sandbox.join(&format!("source-{writer}"))
    }

    fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        self.round += 1;
        for writer in 0..2 {
            self.change(writer, step.writers[writer])?;
        }
        let this = &*self;
        let (made, happened) = thread::scope(|scope| {
            let writers = [0, 1].map(|writer| {
                (step.writers[writer] > 0)
                    .then(|| scope.spawn(move || this.back_up(writer, step.skew[writer])))
            });
            let happened = this.act(&step.verb);
            let made = writers.map(|writer| writer.map(|writer| writer.join().unwrap()));
            (made, happened)
        });
        for made in made.into_iter().flatten() {
            let (id, content) = made?;
            self.kept.insert(id, content);
        }
        for change in happened? {
            match change {
                Change::Gone(id) => drop(self.kept.remove(&id)),
                Change::Became(old, new, without) => {
                    let mut content = self.kept.remove(&old).unwrap();
                    content.retain(|name, _| !without || !name.ends_with(".tmp"));
                    self.kept.insert(new, content);
                }
                Change::Rotated(old, new) => {
                    let content = self.kept.get(&old);
                    self.rotated.extend(content.map(|content| (new, content.clone())));
                }
                Change::Passed(hours) => self.now_s += hours * 3600,
            }
        }
        self.assert_sound()
    }

    fn change(&self, writer: usize, files: u8) -> anyhow::Result<()> {
        for n in (0..6).filter(|n| files & 1 << n != 0) {
            let end = if n % 3 == 0 { "tmp" } else { "dat" };
            // Both writers store some of the same.
            let seed = self.round * 10 + n + if n < 2 { 0 } else { writer as u64 * 1000 };
            let content = noise(seed, 9_000 + usize::try_from(n)? * 7_000);
            fs::write(self.source(writer).join(format!("file-{n}.{end}")), content)?;
        }
        Ok(())
    }

    fn back_up(&self, writer: usize, skew_hours: i64) -> anyhow::Result<(SnapshotId, Content)> {
        let source = self.source(writer);
        let mut content = Content::new();
        for entry in fs::read_dir(&source)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            content.insert(name, fs::read(entry.path())?);
        }
        let options = || {
            let mut options = BackupOptions::new(vec![source.clone()]);
            options.packs.pack_bytes = 32 << 10;
            options.kind = BackupKind::Full;
            options.time = Some(Timestamp::new(self.now_s + skew_hours * 3600, 0, 0));
            options
        };
        let repository = self.sandbox.open()?;
        let try_it = || backup(&repository, options()).ok();
        let report = wait_for("a backup that is not refused", Duration::from_secs(60), try_it)?;
        Ok((report.id.unwrap(), content))
    }

    fn pick(&self, index: &Index) -> Option<SnapshotId> {
        let n = self.kept.len();
        (n > 0).then(|| *self.kept.keys().nth(index.index(n)).unwrap())
    }

    /// Takes the lock that a verb needs; none when it is refused.
    fn lock(&self, repository: &Repository) -> Option<Lock> {
        let kind = LockKind::Exclusive;
        let (environment, run) = (Environment::detect(), Run::new());
        Lock::acquire(repository, kind, Duration::ZERO, &environment, &run).ok()
    }

    fn act(&self, verb: &Verb) -> anyhow::Result<Vec<Change>> {
        let (repository, run) = (self.sandbox.open()?, Run::new());
        match verb {
            Verb::Nothing => Ok(Vec::new()),
            Verb::Pass { hours } => Ok(vec![Change::Passed(*hours)]),
            Verb::Prune { instant, skew_hours } => {
                let mut options =
                    PruneOptions { max_unused: Limit::Bytes(0), ..Default::default() };
                options.packs.pack_bytes = 32 << 10;
                options.instant = *instant;
                options.now = Some(Timestamp::new(self.now_s + skew_hours * 3600, 0, 0));
                match prune(&repository, &options, &Environment::detect(), &run) {
                    Err(error) if !["locked", "overtaken"].contains(&error.code()) => {
                        Err(error.into())
                    }
                    _ => Ok(Vec::new()),
                }
            }
            Verb::ResticPrune => {
                if let Some(peer) = peers::require("restic") {
                    // It refuses beside a backup.
                    drop(restic(&peer, &self.sandbox, &["prune", "--max-unused", "0"]));
                }
                Ok(Vec::new())
            }
            Verb::Rotate => self.rotate(&repository),
            Verb::Forget(index) | Verb::Tag(index) | Verb::Rewrite(index) => {
                let picked = self.pick(index).zip(self.lock(&repository));
                let Some((id, lock)) = picked else { return Ok(Vec::new()) };
                let changes = self.change_snapshot(&repository, &lock, id, verb)?;
                lock.release()?;
                Ok(changes)
            }
        }
    }

    fn change_snapshot(
        &self,
        repository: &Repository,
        lock: &Lock,
        id: SnapshotId,
        verb: &Verb,
    ) -> anyhow::Result<Vec<Change>> {
        let run = Run::new();
        let snapshots = [(id, repository.snapshot(id)?)];
        match verb {
            Verb::Tag(_) => {
                let add = vec![format!("round-{}", self.round)];
                let proposal = tag::propose(&snapshots, &TagChange { add, ..Default::default() });
                let mut changes = Vec::new();
                tag::apply(repository, &proposal, &run, &mut |old, new| {
                    changes.push(Change::Became(old, new, false));
                })?;
                Ok(changes)
            }
            Verb::Rewrite(_) => {
                let excludes = vec![Patterns::parse(["*.tmp"]).unwrap()];
                let packs = PackOptions { pack_bytes: 32 << 10, ..PackOptions::default() };
                let options =
                    RewriteOptions { excludes, forget: true, packs, ..Default::default() };
                let indexed = repository.load_index(&run)?;
                let report = rewrite(&indexed, &snapshots, &options, &run)?;
                anyhow::ensure!(report.failed.is_empty(), "{report:?}");
                let became = |done: &muster_repository::rewrite::RewrittenSnapshot| {
                    Some(Change::Became(done.old, done.new?, true))
                };
                Ok(report.snapshots.iter().filter_map(became).collect())
            }
            _ => {
                let report = forget(repository, lock, &[id], &[], &run)?;
                anyhow::ensure!(report.failed.is_empty());
                Ok(vec![Change::Gone(id)])
            }
        }
    }

    /// A round of a key rotation.
    fn rotate(&self, old: &Repository) -> anyhow::Result<Vec<Change>> {
        let (here, run) = (Environment::detect(), Run::new());
        let shared = |repository: &Repository| {
            Lock::acquire(repository, LockKind::Shared, Duration::ZERO, &here, &run)
        };
        let Ok(old_lock) = shared(old) else { return Ok(Vec::new()) };
        let storage = Arc::new(LocalStorage::new(self.sandbox.join("new")));
        let password = PASSWORD.as_bytes().to_vec().into();
        let new = rotate::begin(old, storage, &password, Cost::FOR_TESTS, here.author())?;
        let new_lock = shared(&new)?;
        let snapshots = old.snapshots()?;
        let source = old.load_index(&run)?;
        let target = Target::open(&new, &new_lock, &run)?;
        let packs = PackOptions { pack_bytes: 32 << 10, ..PackOptions::default() };
        let report = copy(&source, target, &snapshots, packs, &run, &mut |_| {})?;
        anyhow::ensure!(report.failed.is_empty(), "{report:?}");
        new_lock.release()?;
        old_lock.release()?;
        Ok(report.copied.into_iter().map(|(old, new)| Change::Rotated(old, new)).collect())
    }

    fn assert_sound(&self) -> anyhow::Result<()> {
        let sources = [self.source(0), self.source(1)];
        assert_holds(&self.sandbox.repository_path(), &sources, &self.kept)?;
        let new = self.sandbox.join("new");
        match new.exists() {
            true => assert_holds(&new, &sources, &self.rotated),
            false => Ok(()),
        }
    }
}

enum Change {
    Gone(SnapshotId),
    /// Under a new id, perhaps without what was excluded.
    Became(SnapshotId, SnapshotId, bool),
    Rotated(SnapshotId, SnapshotId),
    Passed(i64),
}

/// The repository is clean, and each snapshot has the content that it should have, to the byte.
fn assert_holds(
    path: &Path,
    sources: &[PathBuf; 2],
    kept: &BTreeMap<SnapshotId, Content>,
) -> anyhow::Result<()> {
    let repository = open_at(path)?;
    let report = check(&repository, &CheckOptions { read_data: ReadData::All }, &Run::new())?;
    anyhow::ensure!(report.is_clean(), "{}: {report:#?}", path.display());
    let indexed = repository.load_index(&Run::new())?;
    let mut reader = indexed.blob_reader()?;
    for (id, expected) in kept {
        let snapshot = repository.snapshot(*id)?;
        let source = sources.iter().find(|source| snapshot.paths[0] == source.to_string_lossy());
        let path = source.unwrap().as_os_str().as_bytes();
        let tree: BlobId = find_subtree(&mut reader, snapshot.tree, path)?;
        let mut found = Content::new();
        for node in reader.tree(tree)?.nodes {
            let mut content = Vec::new();
            for blob in node.content.into_iter().flatten() {
                let mut plaintext = Vec::new();
                reader.read(BlobKind::Data, blob, &mut plaintext)?;
                content.append(&mut plaintext);
            }
            found.insert(String::from_utf8(node.name)?, content);
        }
        anyhow::ensure!(found == *expected, "snapshot {id} in {}", repository.storage().location());
    }
    Ok(())
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_happens_beside_two_writers_every_kept_snapshot_is_what_it_was() {
    let seed = number("MUSTER_TEST_SEED").unwrap_or(19);
    let cases = number("MUSTER_TEST_SEQUENCES").and_then(|n| u32::try_from(n).ok());
    let config = Config {
        cases: cases.unwrap_or(SEQUENCES),
        max_shrink_iters: 100,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let outcome = runner.run(&vec(any_step(), 4..12), |steps| {
        let fails = |error: anyhow::Error| TestCaseError::fail(format!("{error:?}"));
        let mut world = World::new().map_err(fails)?;
        for (n, step) in steps.iter().enumerate() {
            world
                .step(step)
                .map_err(|error| fails(error.context(format!("step {n}: {step:?}"))))?;
        }
        if let Some(peer) = peers::require("restic") {
            restic(&peer, &world.sandbox, &["check", "--read-data"]).map_err(fails)?;
        }
        Ok(())
    });
    assert!(outcome.is_ok(), "MUSTER_TEST_SEED={seed}: {}", outcome.unwrap_err());
}
