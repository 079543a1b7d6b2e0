//! What the tests share.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use muster_model::BackupKind;
use muster_repository::{
    environment::Environment,
    format::{config::Version, key_file::Cost},
    id::SnapshotId,
    repository::{InitOptions, Repository},
    restore::Overwrite,
    run::Run,
    storage::LocalStorage,
};
use muster_sources::{
    RestoreSettings, Source,
    capture::{Captured, Request, Restored},
    error::{RestoreDataError, SourceError},
    restore_data,
};
use muster_testkit::Scratch;

/// Password of every test repository.
pub(crate) const PASSWORD: &str = "correct horse";

/// What replaces everything, so that the target equals the point.
pub(crate) const EXACT: RestoreSettings =
    RestoreSettings { overwrite: Overwrite::Always, delete: true, verify: false };

/// A scratch folder with a repository and a staging folder in it.
pub(crate) struct Sandbox {
    pub(crate) scratch: Scratch,
    pub(crate) repository: Repository,
}

impl Sandbox {
    pub(crate) fn new(name: &str) -> Self {
        let scratch = Scratch::new(name).unwrap();
        let author = Environment::detect().author();
        let options =
            InitOptions { version: Version::V2, polynomial: None, cost: Cost::FOR_TESTS, author };
        let storage = Arc::new(LocalStorage::new(scratch.join("repository")));
        let repository = Repository::init(storage, PASSWORD.as_bytes(), options).unwrap();
        fs::create_dir(scratch.join("staging")).unwrap();
        Self { scratch, repository }
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn request(&self, point: &str) -> Request {
        request(&self.join("staging"), point)
    }

    pub(crate) fn try_back_up(&self, source: &Source) -> Result<Captured, SourceError> {
        let (environment, run) = (Environment::detect(), Run::new());
        source.back_up(&self.repository, &self.request("point-1"), &environment, &run)
    }

    pub(crate) fn back_up(&self, source: &Source) -> Captured {
        let captured = self.try_back_up(source).unwrap();
        assert!(self.is_staging_empty());
        captured
    }

    pub(crate) fn try_restore(
        &self,
        snapshot: SnapshotId,
        to: &Path,
        settings: RestoreSettings,
    ) -> Result<Restored, RestoreDataError> {
        let run = Run::new();
        // Opened anew: nothing but the repository is known.
        let storage = Arc::new(LocalStorage::new(self.join("repository")));
        let repository = Repository::open(storage, PASSWORD.as_bytes(), None).unwrap();
        let indexed = repository.load_index(&run).unwrap();
        restore_data(&indexed, snapshot, to, settings, &run)
    }

    pub(crate) fn restore(&self, snapshot: SnapshotId, to: &Path) -> Restored {
        let restored = self.try_restore(snapshot, to, RestoreSettings::default()).unwrap();
        assert_eq!(restored.left_out, Vec::<String>::new());
        restored
    }

    pub(crate) fn snapshots(&self) -> usize {
        self.repository.snapshot_ids().unwrap().len()
    }

    pub(crate) fn is_staging_empty(&self) -> bool {
        fs::read_dir(self.join("staging")).unwrap().next().is_none()
    }
}

pub(crate) fn request(staging: &Path, point: &str) -> Request {
    Request {
        service: "shop".to_owned(),
        data: "data".to_owned(),
        point: point.to_owned(),
        kind: BackupKind::Incremental,
        staging: staging.to_owned(),
        count_rows: Vec::new(),
    }
}

pub(crate) fn files(paths: &[&Path]) -> Source {
    let paths = paths.iter().map(|&path| path.to_owned()).collect();
    Source::Files { paths, exclude: Vec::new() }
}

pub(crate) fn database(path: &Path) -> Source {
    Source::Sqlite { path: path.to_owned() }
}

pub(crate) fn command(argv: &[&str], file: &str) -> Source {
    let argv = argv.iter().map(|&word| word.to_owned()).collect();
    Source::Command { argv, file: file.to_owned(), env: Vec::new() }
}

/// The codes of notices.
pub(crate) fn codes(captured: &Captured) -> Vec<&'static str> {
    captured.notices.iter().map(|notice| notice.code).collect()
}
