//! What a command works with: the printer, the surroundings, and the way to the repository.

use std::sync::Arc;

use muster_repository::{
    environment::Environment,
    lock::{Lock, LockKind},
    repository::{IndexedRepository, OpenError, Repository},
    run::Run,
    storage::LocalStorage,
};

use crate::{
    args::{OutputArgs, RepositoryArgs},
    error::Failure,
    interrupt, location,
    output::Output,
    password,
    progress::{self, Shape},
};

/// How often a password that is typed may be wrong, as in restic.
const TYPED_TRIES: usize = 3;

/// What a command works with.
pub(crate) struct App {
    /// The printer.
    pub(crate) output: Output,
    /// Who runs this, where, and what time it is.
    pub(crate) environment: Environment,
    /// The operation that runs: its progress, and whether it shall stop.
    pub(crate) run: Run,
    /// Which repository, how to open it.
    pub(crate) settings: RepositoryArgs,
}

impl App {
    pub(crate) fn new(output: OutputArgs, settings: RepositoryArgs) -> Self {
        Self {
            output: Output::new(&output),
            environment: Environment::detect(),
            run: Run::new(),
            settings,
        }
    }

    /// Opens the repository that flags or the environment name.
    pub(crate) fn open(&self) -> Result<Repository, Failure> {
        let hint = self.settings.key_hint.as_deref();
        self.open_at(self.settings.named(), self.settings.password(), hint)
    }

    /// Opens a repository.
    pub(crate) fn open_at(
        &self,
        named: location::Named<'_>,
        password: password::Sources<'_>,
        key_hint: Option<&str>,
    ) -> Result<Repository, Failure> {
        let storage = Arc::new(LocalStorage::new(named.folder()?));
        let mut tries_left = TYPED_TRIES;
        loop {
            let found = password.find()?;
            match Repository::open(storage.clone(), &found.password, key_hint) {
                Err(error @ OpenError::WrongPassword { .. }) if found.typed && tries_left > 1 => {
                    self.output.warning(format_args!("cannot {error}; try again"));
                    tries_left -= 1;
                }
                result => return Ok(result?),
            }
        }
    }

    /// Takes a lock and, from here on, heeds Ctrl-C.
    pub(crate) fn lock(&self, repository: &Repository, kind: LockKind) -> Result<Lock, Failure> {
        interrupt::listen(self.run.cancel.clone())?;
        self.lock_also(repository, kind)
    }

    /// Takes a lock in a further repository.
    pub(crate) fn lock_also(
        &self,
        repository: &Repository,
        kind: LockKind,
    ) -> Result<Lock, Failure> {
        let retry = self.settings.retry_lock.unwrap_or_default();
        Ok(Lock::acquire(repository, kind, retry, &self.environment, &self.run)?)
    }

    /// Takes a lock for reading, unless `--no-lock`.
    pub(crate) fn lock_to_read(&self, repository: &Repository) -> Result<Option<Lock>, Failure> {
        if self.settings.no_lock {
            interrupt::listen(self.run.cancel.clone())?;
            return Ok(None);
        }
        self.lock(repository, LockKind::Shared).map(Some)
    }

    /// Loads the index.
    pub(crate) fn load_index(&self, repository: &Repository) -> Result<IndexedRepository, Failure> {
        self.output.verbose("loading the index");
        Ok(repository.load_index(&self.run)?)
    }

    /// Runs `work` while its progress is shown.
    pub(crate) fn with_progress<T>(&self, shape: Shape, work: impl FnOnce() -> T) -> T {
        progress::shown(&self.output, &self.run.progress, shape, work)
    }
}
