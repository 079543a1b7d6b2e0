//! Damaging a restored database on purpose, and undoing it: the negative control of probes.
//!
//! Both go through SQLite, so that a service which has the database open sees them: putting a
//! file under the name would leave it with the old one, and with a log that fits neither. The
//! rows as they were are kept in a copy beside the database; undoing plays all its pages back in
//! one transaction.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
    config::DbConfig,
};

use super::{
    SqliteError,
    copy::{BUSY_STEP, open},
    questions::{count_table, quoted, tables_of},
    with_end,
};

/// Added to the database's name for the copy that undoes the damage.
const COPY_END: &str = ".muster-undamaged";

const DAMAGE: &str = "damage";
const UNDO: &str = "undo the damage to";

/// How long others may hold the database.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// A table that was emptied.
#[derive(Debug)]
#[must_use = "the damage stays until it is undone"]
pub struct Damaged {
    /// The table.
    pub table: String,
    /// How many rows it had.
    pub rows: u64,
    path: PathBuf,
    copy: PathBuf,
}

impl Damaged {
    /// Puts everything back as it was before, also what a service wrote since.
    ///
    /// # Errors
    /// Fails when others hold the database for long or it cannot be written. Then the damage is
    /// still there, and so is the copy beside the database, named `….muster-undamaged`.
    pub fn undo(self) -> Result<(), SqliteError> {
        let copy = open(&self.copy, OpenFlags::empty(), UNDO)?;
        let mut database = open(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE, UNDO)?;
        transfer(&copy, &mut database).map_err(SqliteError::at(UNDO, &self.path))?;
        drop(copy);
        // Left behind, it is in nobody's way.
        drop(fs::remove_file(&self.copy));
        Ok(())
    }
}

/// Empties the table with the most rows; neither Muster's markers nor SQLite's own.
///
/// # Errors
/// Fails when no table has a row, others hold the database for long, or it cannot be written.
pub fn damage(path: &Path) -> Result<Damaged, SqliteError> {
    let database = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, DAMAGE)?;
    database.busy_timeout(BUSY_MAX).map_err(SqliteError::at(DAMAGE, path))?;
    let largest = largest_table(&database).map_err(SqliteError::at(DAMAGE, path))?;
    let (rows, table) =
        largest.ok_or_else(|| SqliteError::NothingToDamage { path: path.to_owned() })?;
    let copy = with_end(path, COPY_END);
    let keep = || {
        let made =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&copy);
        made.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        transfer(&database, &mut Connection::open(&copy)?)
    };
    let damaged = keep().and_then(|()| empty_table(&database, &table));
    if let Err(error) = damaged {
        drop(fs::remove_file(&copy));
        return Err(SqliteError::of(DAMAGE, path, error));
    }
    Ok(Damaged { table, rows, path: path.to_owned(), copy })
}

fn largest_table(database: &Connection) -> rusqlite::Result<Option<(u64, String)>> {
    let mut counted = Vec::new();
    for table in tables_of(database)? {
        counted.push((count_table(database, &table)?.unwrap_or(0), table));
    }
    // The first by name among equals, so that the choice is the same each time.
    counted.sort_by(|(a_rows, a), (b_rows, b)| b_rows.cmp(a_rows).then_with(|| a.cmp(b)));
    Ok(counted.into_iter().next().filter(|(rows, _)| *rows > 0))
}

/// The application's own guards, triggers and references, must not keep the rows.
fn empty_table(database: &Connection, table: &str) -> rusqlite::Result<()> {
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    database.execute(&format!("DELETE FROM {}", quoted(table)), []).map(drop)
}

/// Copies all pages at once, in one transaction on either side.
fn transfer(from: &Connection, to: &mut Connection) -> rusqlite::Result<()> {
    to.busy_timeout(BUSY_STEP)?;
    let backup = Backup::new(from, to)?;
    let begun = Instant::now();
    loop {
        let code = match backup.step(-1)? {
            StepResult::Done => return Ok(()),
            StepResult::Locked => rusqlite::ffi::SQLITE_LOCKED,
            _ => rusqlite::ffi::SQLITE_BUSY,
        };
        if begun.elapsed() > BUSY_MAX {
            return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        }
        thread::park_timeout(Duration::from_millis(10));
    }
}
