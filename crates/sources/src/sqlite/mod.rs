//! SQLite databases at work.
//!
//! # How a database is copied while others write to it
//!
//! Copying the file gives pages of different moments, and misses what lies in the `-wal` file. So
//! SQLite itself copies, page by page into a private temporary copy ([`rusqlite::backup`]), and
//! the copy is what is backed up, under the database's own path. Two things must hold: the copy
//! is of one moment, and copying ends also when somebody writes all the time. SQLite's loop from
//! the manual has only the first: between two of its steps it holds no lock, and a write by
//! another process sends it back to the first page, for ever.
//!
//! - **With a write-ahead log** a reader sees one moment for as long as its transaction lasts,
//!   and hinders no writer. So one read transaction is held around all steps: SQLite then goes
//!   on in it, and never starts again. The log cannot be cut back meanwhile; that is all.
//! - **With a rollback journal** there are no snapshots: who reads keeps writers from
//!   committing. So it is tried first without holding anything, step by step, with a pause in
//!   between. After a few restarts, that is, with a writer that is quicker than we are, one
//!   transaction is held all the same: writers wait as long as copying to the local disk takes.
//!   That ends for certain, and is told with its duration as the notice `writers-waited`, whose
//!   remedy is a write-ahead log. (`VACUUM INTO` holds the same lock, and for longer.)
//!
//! The database is opened for reading only. So nothing is written into it, not even the recovery
//! that is due after its application crashed in the middle of a write; then the backup fails and
//! says so. The clock is read right before the transaction begins, or before the step that
//! started again: `data_time` is never later than the content.
//!
//! The copy is turned from a write-ahead log to a rollback journal, so that it is one
//! self-contained file. It is checked (`quick_check`); damage is told, and backed up, since half
//! a database is better than none. Nothing here opens the database's file but through SQLite:
//! closing any descriptor of a file gives up all locks that this process holds on it.

mod copy;
mod damage;
mod error;
mod questions;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use muster_repository::{
    backup::{StandIn, backup},
    environment::Environment,
    format::snapshot::Snapshot,
    id::SnapshotId,
    repository::{IndexedRepository, Repository},
    restore::Overwrite,
    run::Run,
};

pub(crate) use copy::open;
pub use damage::{Damaged, damage};
pub use error::SqliteError;
pub use questions::{count_rows, empty, foreign_key_violations, integrity, user_tables};

use crate::{
    capture::{Captured, Notice, Request, Restored},
    error::{RestoreDataError, SourceError},
    files::followed,
    record,
    restore::{RestoreSettings, restore_data, restore_paths, single_file},
    staging::Staged,
};

/// The name under which snapshots of SQLite are tagged.
const SOURCE: &str = "sqlite";

/// Begins the names of folders with temporary copies.
const STAGED_PREFIX: &str = "muster-sqlite-";

/// What SQLite keeps beside a database.
const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Writers that waited longer than this may have noticed.
const WAIT_WORTH_TELLING: Duration = Duration::from_millis(250);

/// Backs up the database at `path`, as of one moment, while others write to it.
///
/// # Errors
/// Fails when the database is missing, locked for long, needs recovery, or is too damaged to be
/// copied; when the temporary copy cannot be made; when the repository cannot be written; and
/// when the run is cancelled. There is no snapshot then.
pub fn back_up(
    repository: &Repository,
    path: &Path,
    request: &Request,
    environment: &Environment,
    run: &Run,
) -> Result<Captured, SourceError> {
    let mut notices = Vec::new();
    let path = followed(path, &mut notices)?;
    if let Err(source) = fs::metadata(&path) {
        return Err(SourceError::Missing { path, source });
    }
    let staged = Staged::make(&request.staging, STAGED_PREFIX)?;
    let copy = staged.file("copy.db")?;
    let mtime = copy::content_changed(&path, environment);
    let copied = copy::copy(&path, &copy, environment, run)?;
    notices.extend(waited(copied.writers_waited));
    let damage = damage_of(&copy, run)?;
    let rows = match rows(&copy, &request.count_rows, &mut notices) {
        // Told already.
        Err(SqliteError::Damaged { .. }) if damage.is_some() => BTreeMap::new(),
        rows => rows?,
    };
    notices.extend(damage);
    let mut options = record::options(request, SOURCE, vec![path.clone()], copied.data_time);
    options.stand_in = Some(StandIn { source: path, copy, mtime });
    let report = backup(repository, options, environment, run)?;
    Ok(record::captured(report, copied.data_time, notices, rows))
}

/// Brings the database of a snapshot back as `target/NAME`, NAME being its file's name.
///
/// # Errors
/// As [`restore_data`].
pub fn restore_into(
    repository: &IndexedRepository,
    snapshot: SnapshotId,
    target: &Path,
    settings: RestoreSettings,
    run: &Run,
) -> Result<Restored, RestoreDataError> {
    restore_data(repository, snapshot, target, settings, run)
}

/// Restores a snapshot of a database. A log that lies beside the database from before would be
/// played into the restored one, so it goes.
pub(crate) fn restore_found(
    repository: &IndexedRepository,
    snapshot: &Snapshot,
    target: &Path,
    settings: RestoreSettings,
    run: &Run,
) -> Result<Restored, RestoreDataError> {
    let replaces = matches!(settings.overwrite, Overwrite::Always | Overwrite::IfChanged);
    if let (Some(file), true) = (single_file(snapshot, target), replaces) {
        for sidecar in SIDECARS.iter().map(|end| with_end(&file, end)) {
            match fs::remove_file(&sidecar) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    let operation = "remove the old log";
                    return Err(RestoreDataError::Target { operation, path: sidecar, source });
                }
                _ => {}
            }
        }
    }
    restore_paths(repository, snapshot, target, settings, run)
}

/// The path with something added to the file's name.
pub(crate) fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

fn waited(waited: Option<Duration>) -> Option<Notice> {
    let waited = waited.filter(|waited| *waited > WAIT_WORTH_TELLING)?;
    let message = format!(
        "writers had to wait for {:.1} s while the database was copied; with PRAGMA \
         journal_mode=WAL they would not",
        waited.as_secs_f64()
    );
    Some(Notice { code: "writers-waited", message })
}

fn damage_of(copy: &Path, run: &Run) -> Result<Option<Notice>, SqliteError> {
    let found = questions::quick_check(copy, run)?;
    let message = || format!("the database is damaged: {}", found.join("; "));
    Ok((!found.is_empty()).then(|| Notice { code: "source-damaged", message: message() }))
}

fn rows(
    copy: &Path,
    tables: &[String],
    notices: &mut Vec<Notice>,
) -> Result<BTreeMap<String, (u64, u64)>, SqliteError> {
    let mut rows = BTreeMap::new();
    for (table, count) in count_rows(copy, tables)? {
        match count {
            Some(count) => drop(rows.insert(table, (count, count))),
            None => {
                let message = format!("there is no table '{table}' whose rows could be counted");
                notices.push(Notice { code: "table-missing", message });
            }
        }
    }
    Ok(rows)
}
