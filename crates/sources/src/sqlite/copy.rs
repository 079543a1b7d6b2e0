//! A consistent copy of a database at work. Why it is done like this: see [`super`].

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use muster_repository::{
    environment::Environment, format::time::Timestamp as RecordedTime, run::Run,
};
use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};

use super::{SqliteError, with_end};

/// Pages copied in one step: 4 MiB of the usual size, some milliseconds.
const STEP_PAGES: i32 = 1024;

/// Between two steps that hold nothing: enough for a waiting writer to get in.
const PAUSE: Duration = Duration::from_millis(1);

/// How often copying may be sent back to the first page before a lock is held.
const RESTARTS_MAX: u32 = 3;

/// How long one attempt to get at the database waits within SQLite.
pub(crate) const BUSY_STEP: Duration = Duration::from_millis(250);

/// How long the database may be held by others without a gap before the backup gives up.
const BUSY_MAX: Duration = Duration::from_secs(30);

const COPY: &str = "copy";

/// A copy that was made.
pub(super) struct Copied {
    /// Right before the moment that the copy is of.
    pub(super) data_time: RecordedTime,
    /// How long writers were kept waiting, if so.
    pub(super) writers_waited: Option<Duration>,
}

/// Copies the database at `path` into the empty file `to`.
pub(super) fn copy(
    path: &Path,
    to: &Path,
    environment: &Environment,
    run: &Run,
) -> Result<Copied, SqliteError> {
    let copying = Copying { path, environment, run, source: open(path, OpenFlags::empty(), COPY)? };
    let copied = copying.copy(to)?;
    as_one_file(to)?;
    Ok(copied)
}

/// Opens a database that exists, for reading unless `flags` say more.
pub(crate) fn open(
    path: &Path,
    flags: OpenFlags,
    operation: &'static str,
) -> Result<Connection, SqliteError> {
    let access = match flags.is_empty() {
        true => OpenFlags::SQLITE_OPEN_READ_ONLY,
        false => flags,
    };
    let connect = || {
        let connection =
            Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY_STEP)?;
        Ok(connection)
    };
    connect().map_err(SqliteError::at(operation, path))
}

/// When the content changed last: the time of the file or of its log, whichever is later. With a
/// log the file's own time stays behind, and two contents would bear the same time.
pub(super) fn content_changed(path: &Path, environment: &Environment) -> Option<RecordedTime> {
    let times = [path.to_owned(), with_end(path, "-wal")];
    let times = times.iter().filter_map(|file| fs::metadata(file).ok()?.modified().ok());
    let since = times.max()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let seconds = i64::try_from(since.as_secs()).ok()?;
    Some(RecordedTime::from_unix(seconds, since.subsec_nanos(), &environment.zone))
}

struct Copying<'a> {
    path: &'a Path,
    environment: &'a Environment,
    run: &'a Run,
    source: Connection,
}

impl Copying<'_> {
    fn copy(&self, to: &Path) -> Result<Copied, SqliteError> {
        let has_log = self.patiently(|| {
            self.source.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0))
        })? == "wal";
        if !has_log && let Some(data_time) = self.copy_without_lock(to)? {
            return Ok(Copied { data_time, writers_waited: None });
        }
        let (data_time, held) = self.copy_in_transaction(to)?;
        Ok(Copied { data_time, writers_waited: (!has_log).then_some(held) })
    }

    /// Copies within one read transaction; tells how long it lasted.
    fn copy_in_transaction(&self, to: &Path) -> Result<(RecordedTime, Duration), SqliteError> {
        let data_time = self.patiently(|| {
            // A transaction begins with its first read, so after this look at the clock.
            let now = self.environment.now();
            self.source.execute_batch("BEGIN")?;
            let read = self.source.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()));
            if read.is_err() {
                self.source.execute_batch("ROLLBACK")?;
            }
            read.map(|()| now)
        })?;
        let begun = Instant::now();
        let mut target = self.target(to)?;
        let backup = Backup::new(&self.source, &mut target).map_err(self.failed())?;
        while self.patiently(|| done(backup.step(STEP_PAGES)?))? == StepResult::More {}
        drop(backup);
        self.source.execute_batch("COMMIT").map_err(self.failed())?;
        Ok((data_time, begun.elapsed()))
    }

    /// Copies step by step, holding nothing in between; gives up when writers are quicker.
    fn copy_without_lock(&self, to: &Path) -> Result<Option<RecordedTime>, SqliteError> {
        let mut target = self.target(to)?;
        let backup = Backup::new(&self.source, &mut target).map_err(self.failed())?;
        let (mut data_time, mut expected, mut restarts) = (None, None, 0);
        loop {
            let (before, result) = self.patiently(|| {
                let now = self.environment.now();
                Ok((now, done(backup.step(STEP_PAGES)?)?))
            })?;
            if result == StepResult::Done {
                return Ok(Some(data_time.unwrap_or(before)));
            }
            let remaining = backup.progress().remaining;
            // A restart that is not seen leaves the time of the one before, which is earlier:
            // never later than the content.
            if expected.is_some_and(|expected| expected != remaining) {
                (data_time, restarts) = (Some(before), restarts + 1);
            }
            data_time = data_time.or(Some(before));
            if restarts > RESTARTS_MAX {
                return Ok(None);
            }
            expected = Some(remaining - STEP_PAGES);
            thread::park_timeout(PAUSE);
        }
    }

    /// The empty file that is copied into, with no care for crashes: it is removed then.
    fn target(&self, to: &Path) -> Result<Connection, SqliteError> {
        // A first attempt may have left pages in it.
        let emptied = fs::OpenOptions::new().write(true).truncate(true).open(to);
        if let Err(error) = emptied {
            let source = rusqlite::Error::ToSqlConversionFailure(Box::new(error));
            return Err(SqliteError::of("write a copy of", self.path, source));
        }
        let target = open(to, OpenFlags::SQLITE_OPEN_READ_WRITE, "write a copy into")?;
        let set = target.execute_batch("PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF");
        set.map_err(SqliteError::at("write a copy into", to))?;
        Ok(target)
    }

    /// Tries again while others hold the database, for [`BUSY_MAX`] at most.
    fn patiently<T>(
        &self,
        mut attempt: impl FnMut() -> rusqlite::Result<T>,
    ) -> Result<T, SqliteError> {
        let begun = Instant::now();
        loop {
            self.run.cancel.check()?;
            let error = match attempt() {
                Ok(value) => return Ok(value),
                Err(error) => SqliteError::of(COPY, self.path, error),
            };
            // A journal is there for a moment before its writer's lock can be seen.
            let passes =
                matches!(error, SqliteError::Busy { .. } | SqliteError::NeedsRecovery { .. });
            let patience = match error {
                SqliteError::NeedsRecovery { .. } => BUSY_STEP,
                _ => BUSY_MAX,
            };
            if !passes || begun.elapsed() >= patience {
                return Err(error);
            }
            thread::park_timeout(PAUSE);
        }
    }

    fn failed(&self) -> impl FnOnce(rusqlite::Error) -> SqliteError {
        SqliteError::at(COPY, self.path)
    }
}

/// A step that could not get a lock is an error like any other.
fn done(result: StepResult) -> rusqlite::Result<StepResult> {
    let code = match result {
        StepResult::Busy => rusqlite::ffi::SQLITE_BUSY,
        StepResult::Locked => rusqlite::ffi::SQLITE_LOCKED,
        result => return Ok(result),
    };
    Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None))
}

/// Makes one self-contained file of the copy, which says of itself that it has a log when the
/// database has one.
fn as_one_file(copy: &Path) -> Result<(), SqliteError> {
    let operation = "close the copy";
    let connection = open(copy, OpenFlags::SQLITE_OPEN_READ_WRITE, operation)?;
    let set = connection
        .execute_batch("PRAGMA synchronous=OFF")
        .and_then(|()| connection.query_row("PRAGMA journal_mode=DELETE", [], |_| Ok(())));
    set.map_err(SqliteError::at(operation, copy))?;
    connection.close().map_err(|(_, error)| SqliteError::of(operation, copy, error))
}
