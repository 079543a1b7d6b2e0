//! Locks: restic's, written and honoured, so that the tools can work side by side.
//!
//! Any number of processes may hold a shared lock (backup, restore, check …); an exclusive one
//! (prune, and whatever else deletes) excludes all others. A lock is a file: it is written, then
//! the others are listed. Of two processes that do so at once at least one sees the other, and
//! who sees a conflict withdraws.
//!
//! A held lock is refreshed every five minutes by writing a new file and deleting the old. A
//! process that cannot refresh for 22½ minutes must stop, because at 30 minutes others take its
//! lock for dead: the run is cancelled.
//!
//! # Source
//! restic, `doc/design.rst`, *Locks*; `internal/repository/lock.go`, `lock_file.go`.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use muster_model::{Class, Fault, units::format_duration};
use nix::{sys::signal::kill, unistd::Pid};
use thiserror::Error;

use crate::{
    environment::Environment,
    format::lock_file::{LOCK_FILE_BYTES_MAX, LockFile},
    id::LockId,
    repository::{ReadError, Repository, SaveError, all_at_once},
    run::{Cancelled, Run},
    storage::{File, FileKind, Listed, StorageError, StorageProblem},
};

/// How often a held lock is refreshed.
const REFRESH_EVERY: Duration = Duration::from_secs(5 * 60);
/// How old a lock is when others take it for dead.
const STALE_AFTER: Duration = Duration::from_secs(30 * 60);
/// How long a process may fail to refresh before it must stop: a bit before its lock is stale,
/// so that clocks may differ a little.
const GIVE_UP_AFTER: Duration = Duration::from_secs(22 * 60 + 30);
/// First and longest pause between tries when asked to wait for a lock.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Pauses between tries to read a lock that cannot be read: it may be half visible yet.
const UNREADABLE_PAUSES: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(20)];

/// Whether others may work in the repository at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Others may hold shared locks too.
    Shared,
    /// Nobody else.
    Exclusive,
}

/// A lock somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The lock file.
    pub id: LockId,
    /// Who holds it, since when.
    pub lock: LockFile,
    /// How long ago it was written or refreshed.
    pub age: Duration,
    /// Whether its process is dead, as far as can be told from here.
    pub stale: bool,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LockFile { pid, hostname, username, time, exclusive, .. } = &self.lock;
        let kind = if *exclusive { "exclusively " } else { "" };
        let age = format_duration(self.age);
        write!(f, "{kind}by process {pid} of {username} on {hostname} since {time} ({age} ago)")?;
        if self.stale { f.write_str("; that process is gone") } else { Ok(()) }
    }
}

/// A held lock. It is released when dropped; [`Lock::release`] tells when that fails.
#[derive(Debug)]
pub struct Lock {
    shared: Arc<Shared>,
    stop: Option<Sender<()>>,
    refresher: Option<JoinHandle<()>>,
}

/// What the holder and its refreshing thread share.
struct Shared {
    repository: Repository,
    environment: Environment,
    /// Held while the lock file is being replaced.
    kind: Mutex<LockKind>,
    current: Mutex<LockId>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Lock {
    /// Takes a lock. When somebody holds one in the way, tries again for as long as `retry`.
    /// While it is held, `run` is cancelled should it be lost.
    ///
    /// # Errors
    /// Fails with [`LockError::Locked`] when others hold the repository, and when a lock file
    /// cannot be read or written.
    pub fn acquire(
        repository: &Repository,
        kind: LockKind,
        retry: Duration,
        environment: &Environment,
        run: &Run,
    ) -> Result<Self, LockError> {
        Self::acquire_while(repository, kind, retry, environment, run, || ()).map(|(lock, ())| lock)
    }

    /// As [`Lock::acquire`], and asks the store for something `meanwhile`: when the lock is stored
    /// already, and it is still being looked whether another is in the way. What is read then may be
    /// out of date, should somebody have worked alone and ended at this very moment: so it must be
    /// something for which that makes no difference, and never the index of a writer.
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    pub fn acquire_while<T: Send>(
        repository: &Repository,
        kind: LockKind,
        retry: Duration,
        environment: &Environment,
        run: &Run,
        meanwhile: impl Fn() -> T + Sync,
    ) -> Result<(Self, T), LockError> {
        let until = Instant::now() + retry;
        let mut pause = RETRY_PAUSES.0;
        // To look before one writes spares others the sight of a lock that is withdrawn at once. What
        // was seen when the repository was opened, a moment ago, is as good: that it is safe to go on
        // is known from the look after the lock was written.
        let mut looked = repository.was_unlocked();
        let (current, read) = loop {
            let look_first = !std::mem::take(&mut looked);
            match try_acquire(repository, kind, (environment, run), look_first, &meanwhile) {
                Err(LockError::Locked(_)) if Instant::now() < until => {
                    let left = until.saturating_duration_since(Instant::now());
                    wait(pause.min(left), run)?;
                    pause = (pause * 2).min(RETRY_PAUSES.1);
                }
                result => break result?,
            }
        };
        let (repository, environment) = (repository.clone(), environment.clone());
        let current = Mutex::new(current);
        let kind = Mutex::new(kind);
        let shared = Arc::new(Shared { repository, environment, kind, current });
        let condition = Arc::downgrade(&shared);
        run.cancel.require(Arc::new(move || condition.upgrade()?.lost()));
        let (stop, stopped) = bounded(0);
        let refresher = {
            let (shared, run) = (Arc::clone(&shared), run.clone());
            thread::spawn(move || {
                let mut refreshed = time_since_boot();
                while stopped.recv_timeout(REFRESH_EVERY) == Err(RecvTimeoutError::Timeout) {
                    let late = time_since_boot().saturating_sub(refreshed) > GIVE_UP_AFTER;
                    match shared.refresh() {
                        Ok(()) if !late => refreshed = time_since_boot(),
                        // Asleep for so long, others may have taken the lock for dead.
                        Ok(()) => {
                            return run.cancel.lock_lost("its lock was not refreshed in time");
                        }
                        Err(error) if late || matches!(error, LockError::Removed) => {
                            return run.cancel.lock_lost(format!("its lock was lost ({error})"));
                        }
                        Err(_) => {}
                    }
                }
            })
        };
        Ok((Self { shared, stop: Some(stop), refresher: Some(refresher) }, read))
    }

    /// Releases the lock.
    ///
    /// # Errors
    /// Fails when the lock file cannot be deleted.
    pub fn release(mut self) -> Result<(), LockError> {
        self.end()
    }

    /// Turns an exclusive lock into a shared one, with no moment in between at which anybody
    /// could take an exclusive one.
    ///
    /// # Errors
    /// Fails when the lock was removed, or a lock file cannot be written or deleted.
    pub fn share(&self) -> Result<(), LockError> {
        self.shared.replace(Some(LockKind::Shared))
    }

    /// The lock files of others who are at work, so far as they can be read.
    ///
    /// # Errors
    /// Fails when the locks cannot be listed or one cannot be read.
    pub fn others_at_work(&self) -> Result<Vec<Held>, LockError> {
        let Shared { repository, environment, .. } = &*self.shared;
        let held = held_by_others(repository, environment, Some(self.shared.id()))?;
        Ok(held.into_iter().filter(|other| !other.stale).collect())
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.shared.repository
    }

    fn end(&mut self) -> Result<(), LockError> {
        // Dropping the sender wakes the refreshing thread.
        if self.stop.take().is_none() {
            return Ok(());
        }
        if let Some(refresher) = self.refresher.take() {
            // It does not panic; if it did, the lock would still have to go.
            drop(refresher.join());
        }
        let file = File::Lock(self.shared.id());
        // Alone, since a store that many deletions go to takes none after an interruption.
        // Somebody may have run 'unlock --remove-all'.
        Ok(self.shared.repository.storage().remove(file)?)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever wants to know calls `release`.
        drop(self.end());
    }
}

impl Shared {
    fn id(&self) -> LockId {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the lock is no longer held, if so: its file is gone.
    fn lost(&self) -> Option<String> {
        // A refresh replaces the file: whoever asks at that moment finds the next one.
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match self.repository.storage().size(File::Lock(*current)) {
            Err(error) if error.problem() == StorageProblem::NotFound => {
                Some("somebody removed its lock".to_owned())
            }
            _ => None,
        }
    }

    fn refresh(&self) -> Result<(), LockError> {
        self.replace(None)
    }

    /// Replaces the lock file by a newer one, perhaps of another kind. A lock that others removed
    /// is not made again: whoever removed it may rely on being alone.
    fn replace(&self, kind: Option<LockKind>) -> Result<(), LockError> {
        let mut own_kind = self.kind.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kind.unwrap_or(*own_kind);
        let storage = self.repository.storage();
        let old = self.id();
        let still_there = || -> Result<(), LockError> {
            match storage.size(File::Lock(old)) {
                Err(error) if error.problem() == StorageProblem::NotFound => {
                    Err(LockError::Removed)
                }
                result => result.map(drop).map_err(LockError::from),
            }
        };
        still_there()?;
        let new = write(&self.repository, kind, &self.environment)?;
        if let Err(error) = still_there() {
            storage.delete(File::Lock(new))?;
            return Err(error);
        }
        *own_kind = kind;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = new;
        storage.delete(File::Lock(old))?;
        Ok(())
    }
}

/// The time since the machine was started, the time it slept included: a lock ages while its
/// machine sleeps, and [`Instant`] does not.
pub(crate) fn time_since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn try_acquire<T: Send>(
    repository: &Repository,
    kind: LockKind,
    (environment, run): (&Environment, &Run),
    look_first: bool,
    meanwhile: &(impl Fn() -> T + Sync),
) -> Result<(LockId, T), LockError> {
    if look_first {
        refuse_conflict(repository, kind, environment, None, run)?;
    }
    let id = write(repository, kind, environment)?;
    // At once, and not when what is read beside it has come: until then others see a lock that
    // nobody holds, and a kill would leave it there.
    let withdraw = |error| {
        // The conflict is the news; a lock that stays behind is seen by the next to come.
        drop(repository.storage().delete(File::Lock(id)));
        error
    };
    let look_again = || {
        wait(repository.storage().listing_lag(), run)?;
        refuse_conflict(repository, kind, environment, Some(id), run)
    };
    let (read, looked) = thread::scope(|scope| {
        let reading = scope.spawn(meanwhile);
        let looked = look_again().map_err(withdraw);
        (reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), looked)
    });
    looked?;
    Ok((id, read))
}

fn write(
    repository: &Repository,
    kind: LockKind,
    environment: &Environment,
) -> Result<LockId, LockError> {
    let lock = LockFile {
        time: environment.now(),
        exclusive: kind == LockKind::Exclusive,
        hostname: environment.hostname.clone(),
        username: environment.username.clone(),
        pid: i64::from(environment.pid),
        uid: environment.uid,
        gid: environment.gid,
    };
    Ok(repository.save_unpacked(File::Lock, &lock)?)
}

/// Fails when another lock forbids one of `kind`. Stale locks forbid too, as in restic: whether
/// a process is really gone is for a person to say (`unlock`).
fn refuse_conflict(
    repository: &Repository,
    kind: LockKind,
    environment: &Environment,
    own: Option<LockId>,
    run: &Run,
) -> Result<(), LockError> {
    let mut pauses = UNREADABLE_PAUSES.iter();
    loop {
        match held_by_others(repository, environment, own) {
            Ok(others) => {
                let forbids = |other: &Held| other.lock.exclusive || kind == LockKind::Exclusive;
                let conflict = others.into_iter().find(forbids);
                return conflict.map_or(Ok(()), |other| Err(LockError::Locked(Box::new(other))));
            }
            // A damaged local file stays damaged; only a store whose files appear late is
            // worth another look.
            Err(error) => match pauses.next() {
                Some(&pause) if !repository.storage().listing_lag().is_zero() => wait(pause, run)?,
                _ => return Err(error),
            },
        }
    }
}

fn wait(pause: Duration, run: &Run) -> Result<(), Cancelled> {
    /// How quickly a request to stop is noticed.
    const TICK: Duration = Duration::from_millis(100);
    let until = Instant::now() + pause;
    loop {
        run.cancel.check()?;
        match until.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => thread::park_timeout(left.min(TICK)),
            _ => return Ok(()),
        }
    }
}

/// All locks, in no order. Empty lock files, which an interrupted upload may leave, are ignored,
/// as are such as disappear meanwhile.
///
/// # Errors
/// Fails when the locks cannot be listed or one cannot be read.
pub fn held(repository: &Repository, environment: &Environment) -> Result<Vec<Held>, LockError> {
    held_by_others(repository, environment, None)
}

/// As [`held`], without one's own.
fn held_by_others(
    repository: &Repository,
    environment: &Environment,
    own: Option<LockId>,
) -> Result<Vec<Held>, LockError> {
    let listed = repository.storage().list(FileKind::Lock)?.into_iter();
    let others = listed.filter_map(|listed| match listed.file {
        File::Lock(id) if listed.bytes > 0 && Some(id) != own => Some((id, listed)),
        _ => None,
    });
    let others: Vec<_> = others.collect();
    let read = |&(id, Listed { file, bytes }): &(LockId, Listed)| {
        let lock = match bytes > LOCK_FILE_BYTES_MAX {
            true => Err(StorageError::new("read", file, StorageProblem::TooLarge).into()),
            false => repository.read_unpacked::<LockFile>(file),
        };
        match lock {
            Ok(lock) => Ok(Some(look_at(id, lock, environment))),
            Err(error) if error.class() == Class::NotFound => Ok(None),
            Err(source) => Err(LockError::Unreadable { file, source: Box::new(source) }),
        }
    };
    let read = all_at_once(repository.storage().as_ref(), &others, read);
    read.into_iter().filter_map(Result::transpose).collect()
}

fn look_at(id: LockId, lock: LockFile, environment: &Environment) -> Held {
    let now = environment.now();
    let age = u64::try_from(now.seconds().saturating_sub(lock.time.seconds())).unwrap_or(0);
    let age = Duration::from_secs(age);
    let here = !lock.hostname.is_empty() && lock.hostname == environment.hostname;
    let dead = here && lock.pid != i64::from(environment.pid) && !process_exists(lock.pid);
    Held { id, lock, age, stale: age > STALE_AFTER || dead }
}

fn process_exists(pid: i64) -> bool {
    match i32::try_from(pid) {
        // Numbers below 1 mean groups of processes.
        Ok(pid) if pid > 0 => {
            !matches!(kill(Pid::from_raw(pid), None), Err(nix::errno::Errno::ESRCH))
        }
        _ => false,
    }
}

/// Removes the locks of processes that are gone (on this host) or have not refreshed theirs for
/// 30 minutes; returns how many.
///
/// # Errors
/// Fails when locks cannot be listed or deleted; unreadable ones are left alone.
pub fn remove_stale(
    repository: &Repository,
    environment: &Environment,
) -> Result<usize, LockError> {
    let mut removed = 0;
    for listed in repository.storage().list(FileKind::Lock)? {
        let File::Lock(id) = listed.file else { continue };
        let Ok(lock) = repository.read_unpacked::<LockFile>(listed.file) else { continue };
        if look_at(id, lock, environment).stale {
            removed += delete(repository, listed.file)?;
        }
    }
    Ok(removed)
}

/// Removes all locks, whoever holds them; returns how many.
///
/// # Errors
/// Fails when locks cannot be listed or deleted.
pub fn remove_all(repository: &Repository) -> Result<usize, LockError> {
    let listed = repository.storage().list(FileKind::Lock)?;
    listed.into_iter().map(|listed| delete(repository, listed.file)).sum()
}

fn delete(repository: &Repository, file: File) -> Result<usize, LockError> {
    match repository.storage().delete(file) {
        Ok(()) => Ok(1),
        Err(error) if error.problem() == StorageProblem::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// A lock could not be taken or released.
#[derive(Debug, Error)]
pub enum LockError {
    /// Somebody else holds the repository.
    #[error("lock the repository: it is locked {0}")]
    Locked(Box<Held>),
    /// A lock file is damaged.
    #[error("lock the repository: a lock in it cannot be read")]
    Unreadable {
        /// The lock file.
        file: File,
        /// Why.
        #[source]
        source: Box<ReadError>,
    },
    /// The lock of this process was removed by another.
    #[error("refresh the lock: somebody removed it")]
    Removed,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The lock file could not be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Fault for LockError {
    fn class(&self) -> Class {
        match self {
            Self::Locked(_) | Self::Removed => Class::Conflict,
            Self::Unreadable { source, .. } => source.class(),
            Self::Storage(error) => error.class(),
            Self::Save(error) => error.class(),
            Self::Cancelled(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Locked(_) => "locked",
            Self::Removed => "lock-removed",
            Self::Unreadable { .. } => "lock-unreadable",
            Self::Storage(error) => error.code(),
            Self::Save(error) => error.code(),
            Self::Cancelled(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Locked(held) if held.stale => {
                Some("remove the lock of the process that is gone: muster repo unlock".to_owned())
            }
            Self::Storage(error)
                if matches!(error.problem(), StorageProblem::Full | StorageProblem::Denied) =>
            {
                Some(
                    "a lock could not be written; a command that only reads works without one: \
                     --no-lock"
                        .to_owned(),
                )
            }
            Self::Locked(_) => Some(
                "wait for it with --retry-lock 10m; if that process is surely dead: muster repo \
                 unlock"
                    .to_owned(),
            ),
            Self::Unreadable { file, .. } => Some(format!(
                "when nothing else works in this repository, remove {file} with 'muster repo \
                 unlock --remove-all'"
            )),
            Self::Removed => Some("run the command again".to_owned()),
            Self::Storage(error) => error.help(),
            Self::Save(error) => {
                let reading = "commands that only read can go without a lock: --no-lock";
                let help = error.help().map(|help| format!("{help}; {reading}"));
                Some(help.unwrap_or_else(|| reading.to_owned()))
            }
            Self::Cancelled(error) => error.help(),
        }
    }
}

#[cfg(test)]
mod tests;
