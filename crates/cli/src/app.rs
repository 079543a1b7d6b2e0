//! What a command works with: the printer, the surroundings, and the way to the repository.

use std::{cell::Cell, sync::Arc};

use muster_model::{Fault as _, Location};
use muster_repository::{
    environment::Environment,
    lock::{Lock, LockError, LockKind},
    packer::PackOptions,
    repository::{IndexedRepository, OpenError, ReadError, Repository, SaveError},
    run::Run,
    storage::{File, Storage, StorageProblem},
    warm_up::small_files,
};
use muster_stores::Settings;

use crate::{
    args::RepositoryArgs,
    error::Failure,
    interrupt, location,
    output::Output,
    password,
    progress::{self, Shape},
    warm_up::WarmUpArgs,
};

/// How often a password that is typed may be wrong, as in restic.
const TYPED_TRIES: usize = 3;

/// What a command works with.
pub(crate) struct App<'a> {
    /// The printer.
    pub(crate) output: &'a Output,
    /// Who runs this, where, and what time it is.
    pub(crate) environment: Environment,
    /// The operation that runs: its progress, and whether it shall stop.
    pub(crate) run: Run,
    /// Which repository, how to open it.
    pub(crate) settings: RepositoryArgs,
    /// The run by which a repository is opened: it may bring back what the verb's flags allow.
    opening: Run,
    /// Whether signals are heeded.
    listening: Cell<bool>,
}

impl<'a> App<'a> {
    pub(crate) fn new(
        output: &'a Output,
        settings: RepositoryArgs,
        warm_up: Option<&WarmUpArgs>,
    ) -> Self {
        let run = Run::new();
        Self {
            output,
            environment: Environment::detect(),
            opening: warm_up.map_or_else(|| run.clone(), |args| args.allow(&run, output)),
            run,
            settings,
            listening: Cell::new(false),
        }
    }

    /// Opens the repository that flags or the environment name.
    pub(crate) fn open(&self) -> Result<Repository, Failure> {
        let hint = self.settings.key_hint.as_deref();
        self.open_at(self.settings.named(), self.settings.password(), hint)
    }

    /// The store that holds a repository. Nothing is asked of it yet.
    pub(crate) fn storage(&self, named: location::Named<'_>) -> Result<Arc<dyn Storage>, Failure> {
        let location = named.location()?;
        let store = &self.settings.store;
        let settings = Settings {
            options: store.options()?,
            limits: store.limits(),
            cancel: Some(self.run.cancel.clone()),
            ..Settings::default()
        };
        Ok(small_files(muster_stores::open(&location, &settings)?, &self.opening))
    }

    /// Opens a repository.
    pub(crate) fn open_at(
        &self,
        named: location::Named<'_>,
        password: password::Sources<'_>,
        key_hint: Option<&str>,
    ) -> Result<Repository, Failure> {
        self.open_found(named, password, key_hint).map(|(repository, _)| repository)
    }

    /// Opens a repository, and gives the password that did.
    pub(crate) fn open_found(
        &self,
        named: location::Named<'_>,
        password: password::Sources<'_>,
        key_hint: Option<&str>,
    ) -> Result<(Repository, password::Password), Failure> {
        let storage = self.storage(named)?;
        let mut tries_left = TYPED_TRIES;
        loop {
            let found = password.find()?;
            match Repository::open(storage.clone(), &found.password, key_hint) {
                Err(error @ OpenError::WrongPassword { .. }) if found.typed && tries_left > 1 => {
                    self.output.warning(format_args!("cannot {error}; try again"));
                    tries_left -= 1;
                }
                Ok(repository) => return Ok((repository, found.password)),
                Err(error) => return Err(not_opened(&error, named)),
            }
        }
    }

    /// From here on Ctrl-C asks the operation to stop in order. Before, while passwords are
    /// typed and keys derived, it ends the process at once: nothing is left behind then.
    pub(crate) fn heed_signals(&self) -> Result<(), Failure> {
        match self.listening.replace(true) {
            true => Ok(()),
            false => interrupt::listen(self.run.cancel.clone()),
        }
    }

    /// Takes a lock to write, and heeds signals, so that it is released.
    pub(crate) fn lock(&self, repository: &Repository, kind: LockKind) -> Result<Lock, Failure> {
        self.heed_signals()?;
        let lock = self.acquire(repository, kind);
        lock.map_err(|error| not_locked_to_write(&error, repository))
    }

    /// Takes a lock; tells a [`LockError`] for those who decide by it.
    pub(crate) fn acquire(
        &self,
        repository: &Repository,
        kind: LockKind,
    ) -> Result<Lock, Box<LockError>> {
        let retry = self.settings.retry_lock.unwrap_or_default();
        let lock = Lock::acquire(repository, kind, retry, &self.environment, &self.run);
        lock.map_err(Box::new)
    }

    /// Takes a lock for reading, unless `--no-lock`.
    pub(crate) fn lock_to_read(&self, repository: &Repository) -> Result<Option<Lock>, Failure> {
        if self.settings.no_lock {
            self.heed_signals()?;
            return Ok(None);
        }
        self.heed_signals()?;
        let lock = self.acquire(repository, LockKind::Shared);
        lock.map(Some).map_err(|error| not_locked(&error, repository))
    }

    /// The same, and asks the store for something [meanwhile](Lock::acquire_while).
    pub(crate) fn lock_to_read_while<T: Send>(
        &self,
        repository: &Repository,
        meanwhile: impl Fn() -> T + Sync,
    ) -> Result<(Option<Lock>, T), Failure> {
        self.heed_signals()?;
        if self.settings.no_lock {
            return Ok((None, meanwhile()));
        }
        let retry = self.settings.retry_lock.unwrap_or_default();
        let (kind, environment, run) = (LockKind::Shared, &self.environment, &self.run);
        let taken = Lock::acquire_while(repository, kind, retry, environment, run, meanwhile);
        let (lock, read) = taken.map_err(|error| not_locked(&error, repository))?;
        Ok((Some(lock), read))
    }

    /// Loads the index.
    pub(crate) fn load_index(&self, repository: &Repository) -> Result<IndexedRepository, Failure> {
        self.load_index_for(repository, &self.run)
    }

    /// Loads the index for a run that may allow more than others.
    pub(crate) fn load_index_for(
        &self,
        repository: &Repository,
        run: &Run,
    ) -> Result<IndexedRepository, Failure> {
        self.output.verbose("loading the index");
        Ok(repository.load_index(run)?)
    }

    /// How packs are written.
    pub(crate) fn pack_options(&self, dry_run: bool) -> PackOptions {
        let default = PackOptions::default();
        PackOptions {
            pack_bytes: self.settings.pack_size.unwrap_or(default.pack_bytes),
            compression: self.settings.compression,
            dry_run,
            ..default
        }
    }

    /// Runs `work` while its progress is shown.
    pub(crate) fn with_progress<T>(&self, shape: Shape, work: impl FnOnce() -> T) -> T {
        progress::shown(self.output, &self.run.progress, shape, work)
    }
}

/// Why a repository could not be opened, with what is known here of the place.
fn not_opened(error: &OpenError, named: location::Named<'_>) -> Failure {
    let failure = Failure::of(error);
    let is_file = match named.location() {
        Ok(Location::Folder(path)) => path.is_file(),
        _ => false,
    };
    match error {
        _ if is_file => failure.help("that is a file; name the folder of a repository"),
        // Nothing opens without it: `check` cannot tell more.
        OpenError::Read(ReadError::Damaged { file: File::Config, .. }) => failure.help(
            "bring 'config' back from a copy of this repository; the other files are of no use \
             without it",
        ),
        _ => failure,
    }
}

/// Why a lock was not had; names the repository, since there may be two.
fn not_locked(error: &LockError, repository: &Repository) -> Failure {
    let failure = Failure::of(error);
    let named = format!("lock the repository at {}", repository.storage().location());
    let message = failure.message.replacen("lock the repository", &named, 1);
    Failure { message, ..failure }
}

/// The same, for a command that cannot do without.
fn not_locked_to_write(error: &LockError, repository: &Repository) -> Failure {
    let store = match error {
        LockError::Storage(error) | LockError::Save(SaveError::Storage(error)) => Some(error),
        _ => None,
    };
    let is_folder = repository.storage().location().starts_with('/');
    let help = match store {
        Some(error) if error.problem() == StorageProblem::Denied && is_folder => {
            Some("check that this user may write there, and that it is not read-only".to_owned())
        }
        Some(error) => error.help(),
        None => error.help(),
    };
    Failure { help, ..not_locked(error, repository) }
}
