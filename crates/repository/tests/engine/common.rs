//! What the integration tests share.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use muster_repository::{
    backup::{BackupOptions, BackupReport},
    environment::Environment,
    format::{config::Version, key_file::Cost},
    repository::{InitOptions, Repository},
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

/// Runs restic on the sandbox's repository; fails unless it succeeds.
pub(crate) fn restic(peer: &Peer, sandbox: &Sandbox, args: &[&str]) -> anyhow::Result<String> {
    let mut command = peer.command();
    command.env("RESTIC_REPOSITORY", sandbox.repository_path());
    command.env("RESTIC_PASSWORD", PASSWORD).args(args);
    Ok(muster_testkit::peers::run(&mut command)?.expect_success()?.stdout())
}
