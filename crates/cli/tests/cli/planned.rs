//! A plan with data of its own and two repositories, and the verbs of the plan to run on it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use muster_repository::{
    environment::Environment,
    format::{config::Version, key_file::Cost},
    lock::{Lock, LockKind},
    repository::{InitOptions, Repository},
    run::Run,
    storage::LocalStorage,
};
use muster_testkit::Scratch;

use crate::{
    plan::muster,
    sandbox::{PASSWORD, Ran, run},
};

/// Two services; the first has two data items, and each repository a password of its own.
const PLAN: &str = r#"muster: 1
name: office
regions: [west, north]
repositories:
  near: {url: ./near, region: west, password: file:./secret-near}
  far: {url: ./far, region: north, password: file:./secret-far}
services:
  files:
    region: west
    data:
      docs: {files: ./docs}
      mail: {files: ./mail}
    protect:
      - {data: [docs, mail], every: 1h, to: near, copy: [far]}
    recover:
      - {restore: [docs, mail]}
      - {run: ["true"]}
  wiki:
    region: north
    data:
      pages: {files: ./pages}
    protect:
      - {data: [pages], every: 1h, to: far}
drills:
  - {service: files, disruption: region-loss, schedule: "0 3 1 1 *"}
"#;

/// A folder with a plan, data and repositories.
pub(crate) struct Office {
    scratch: Scratch,
}

impl Office {
    /// An office that was not backed up yet.
    pub(crate) fn open(name: &str) -> Self {
        let office = Self { scratch: Scratch::new(name).unwrap() };
        office.write("muster.yaml", PLAN);
        for repository in ["near", "far"] {
            office.write(&format!("secret-{repository}"), PASSWORD);
            let options = InitOptions {
                version: Version::V2,
                polynomial: None,
                cost: Cost::FOR_TESTS,
                author: Environment::detect().author(),
            };
            let storage = Arc::new(LocalStorage::new(office.path(repository)));
            Repository::init(storage, PASSWORD.as_bytes(), options).unwrap();
        }
        for folder in ["docs", "mail", "pages"] {
            office.write(&format!("{folder}/one.txt"), &format!("{folder}\n").repeat(500));
        }
        office
    }

    /// An office that was backed up once.
    pub(crate) fn protected(name: &str) -> Self {
        let office = Self::open(name);
        office.run(&["backup"]).expect(0);
        office
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// From now on a repository is opened with a wrong password.
    pub(crate) fn mistake_password(&self, repository: &str) {
        self.write(&format!("secret-{repository}"), "wrong horse");
    }

    /// Changes the plan.
    pub(crate) fn change_plan(&self, from: &str, to: &str) {
        let plan = fs::read_to_string(self.path("muster.yaml")).unwrap();
        assert!(plan.contains(from), "'{from}' in the plan");
        self.write("muster.yaml", &plan.replacen(from, to, 1));
    }

    /// `muster ARGUMENTS` in the folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        muster(self.scratch.path(), arguments)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Holds a repository as a prune does.
    pub(crate) fn locked(&self, repository: &str) -> (Lock, Run) {
        self.held(repository, LockKind::Exclusive)
    }

    /// Holds a repository as a prune or, shared, a backup does.
    pub(crate) fn held(&self, repository: &str, kind: LockKind) -> (Lock, Run) {
        let storage = Arc::new(LocalStorage::new(self.path(repository)));
        let opened = Repository::open(storage, PASSWORD.as_bytes(), None).unwrap();
        let (environment, run) = (Environment::detect(), Run::new());
        let patience = std::time::Duration::ZERO;
        let lock = Lock::acquire(&opened, kind, patience, &environment, &run);
        (lock.unwrap(), run)
    }

    /// The files in a folder of a repository, largest first.
    pub(crate) fn stored(&self, folder: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect(&self.path(folder), &mut files);
        files.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
        files
    }

    /// Flips a bit in the middle of every file in a folder of a repository.
    pub(crate) fn damage(&self, folder: &str) {
        let files = self.stored(folder);
        assert!(!files.is_empty(), "nothing to damage in {folder}");
        files.iter().for_each(|path| flip(path));
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}

/// Flips a bit in the middle of a file.
pub(crate) fn flip(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path, bytes).unwrap();
}
