//! What the integration tests share.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use muster_repository::{
    backup::{BackupOptions, BackupReport},
    check::{CheckOptions, ReadData},
    environment::Environment,
    format::{config::Version, key_file::Cost, snapshot::Snapshot},
    id::BlobId,
    repository::{InitOptions, Repository},
    restore::{RestoreOptions, RestoreReport},
    run::Run,
    storage::LocalStorage,
};
use muster_testkit::{Scratch, peers::Peer};

/// Password of every test repository.
pub(crate) const PASSWORD: &str = "correct horse";

/// A scratch folder with a repository in it.
pub(crate) struct Sandbox {
    scratch: Scratch,
}

impl Sandbox {
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        Ok(Self { scratch: Scratch::new(name)? })
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    pub(crate) fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    }

    pub(crate) fn repository_path(&self) -> PathBuf {
        self.join("repo")
    }

    pub(crate) fn init(&self, version: Version) -> anyhow::Result<Repository> {
        init_at(&self.repository_path(), version)
    }

    pub(crate) fn open(&self) -> anyhow::Result<Repository> {
        open_at(&self.repository_path())
    }
}

pub(crate) fn init_at(path: &Path, version: Version) -> anyhow::Result<Repository> {
    let author = Environment::detect().author();
    let options = InitOptions { version, polynomial: None, cost: Cost::FOR_TESTS, author };
    Ok(Repository::init(Arc::new(LocalStorage::new(path)), PASSWORD.as_bytes(), options)?)
}

pub(crate) fn open_at(path: &Path) -> anyhow::Result<Repository> {
    Ok(Repository::open(Arc::new(LocalStorage::new(path)), PASSWORD.as_bytes(), None)?)
}

pub(crate) fn backup(
    repository: &Repository,
    options: BackupOptions,
) -> anyhow::Result<BackupReport> {
    let environment = Environment::detect();
    Ok(muster_repository::backup::backup(repository, options, &environment, &Run::new())?)
}

/// The snapshot that was made last.
pub(crate) fn newest(repository: &Repository) -> anyhow::Result<Snapshot> {
    let snapshots = repository.snapshots()?.into_iter().map(|(_, snapshot)| snapshot);
    snapshots.max_by_key(|snapshot| snapshot.time).context("a snapshot")
}

/// Restores everything below `tree`; fails unless all of it could be restored.
pub(crate) fn restore(
    repository: &Repository,
    tree: BlobId,
    target: &Path,
) -> anyhow::Result<RestoreReport> {
    let repository = repository.load_index(&Run::new())?;
    let options = RestoreOptions::new(target);
    let report = muster_repository::restore::restore(&repository, tree, &options, &Run::new())?;
    anyhow::ensure!(report.is_complete(), "{:#?}", report.problems);
    Ok(report)
}

/// Restores a snapshot of the folder `source` and gives the path of the restored folder: `source`
/// again, below `target`.
pub(crate) fn restore_source(
    repository: &Repository,
    snapshot: &Snapshot,
    source: &Path,
    target: &Path,
) -> anyhow::Result<PathBuf> {
    let _report = restore(repository, snapshot.tree, target)?;
    Ok(target.join(source.strip_prefix("/")?))
}

/// Checks the repository and all its data.
#[track_caller]
pub(crate) fn assert_clean(repository: &Repository) {
    let options = CheckOptions { read_data: ReadData::All };
    let report = muster_repository::check::check(repository, &options, &Run::new());
    let report = report.expect("the check comes to its end");
    assert!(report.is_clean(), "{:#?}", report.damages);
}

/// Runs restic on the sandbox's repository; fails unless it succeeds.
pub(crate) fn restic(peer: &Peer, sandbox: &Sandbox, args: &[&str]) -> anyhow::Result<String> {
    let mut command = peer.command();
    command.env("RESTIC_REPOSITORY", sandbox.repository_path());
    command.env("RESTIC_PASSWORD", PASSWORD).args(args);
    Ok(muster_testkit::peers::run(&mut command)?.expect_success()?.stdout())
}

/// The tree of the source folder itself: those above it change all the time (`/tmp` does).
pub(crate) fn source_tree(repository: &Repository, root: BlobId, source: &Path) -> BlobId {
    let indexed = repository.load_index(&Run::new()).unwrap();
    let mut reader = indexed.blob_reader().unwrap();
    source.strip_prefix("/").unwrap().components().fold(root, |tree, name| {
        let name = name.as_os_str().as_encoded_bytes();
        reader.tree(tree).unwrap().get(name).unwrap().subtree.unwrap()
    })
}
