//! Markers in an SQLite database.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, params};

use super::{KEPT, MARKERS_TABLE, Marker, MarkerError, MarkerStore, written};
use crate::sqlite::{SqliteError, open};

/// How long a marker waits for others; then it is missed.
const BUSY: Duration = Duration::from_secs(1);

/// Old markers are looked for once in this many writes …
const TRIM_EVERY: u64 = 1000;
/// … and so many removed at once, lest production waits: more than come in the meantime.
const TRIM_MAX: u64 = 5000;

const WRITE: &str = "write a marker into";
const READ: &str = "read the markers of";

/// A connection that is kept open for markers.
pub(super) struct SqliteMarkers {
    path: std::path::PathBuf,
    connection: Connection,
    written: u64,
}

impl SqliteMarkers {
    pub(super) fn open(path: &Path) -> Result<Self, MarkerError> {
        let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITE)?;
        let prepare = || {
            connection.busy_timeout(BUSY)?;
            // Durable when written, whatever the application chose for itself.
            connection.execute_batch("PRAGMA synchronous=FULL")?;
            connection.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS {MARKERS_TABLE}
                     (writer TEXT NOT NULL, n INTEGER NOT NULL, at TEXT NOT NULL);
                 CREATE INDEX IF NOT EXISTS {MARKERS_TABLE}_at ON {MARKERS_TABLE}(at);"
            ))
        };
        prepare().map_err(SqliteError::at(WRITE, path))?;
        Ok(Self { path: path.to_owned(), connection, written: 0 })
    }

    fn trim(&self, now: Timestamp) -> rusqlite::Result<()> {
        let Ok(oldest) = now.checked_sub(KEPT) else { return Ok(()) };
        let sql = format!(
            "DELETE FROM {MARKERS_TABLE} WHERE rowid IN
                 (SELECT rowid FROM {MARKERS_TABLE} WHERE at < ?1 ORDER BY at LIMIT {TRIM_MAX})"
        );
        self.connection.execute(&sql, [written(oldest)]).map(drop)
    }
}

impl MarkerStore for SqliteMarkers {
    fn write(&mut self, marker: &Marker) -> Result<(), MarkerError> {
        let sql = format!("INSERT INTO {MARKERS_TABLE} (writer, n, at) VALUES (?1, ?2, ?3)");
        let n = i64::try_from(marker.n).unwrap_or(i64::MAX);
        let insert = || {
            let mut statement = self.connection.prepare_cached(&sql)?;
            statement.execute(params![marker.writer.to_string(), n, written(marker.at)]).map(drop)
        };
        insert().map_err(SqliteError::at(WRITE, &self.path))?;
        self.written += 1;
        if self.written.is_multiple_of(TRIM_EVERY) {
            // The marker is written; old ones can go the next time as well.
            drop(self.trim(marker.at));
        }
        Ok(())
    }
}

pub(super) fn read(path: &Path, since: Option<Timestamp>) -> Result<Vec<Marker>, MarkerError> {
    let connection = open(path, OpenFlags::empty(), READ)?;
    let rows = rows(&connection, since).map_err(SqliteError::at(READ, path))?;
    let markers = rows.into_iter().filter_map(|(writer, n, at)| {
        Some(Marker {
            writer: writer.parse().ok()?,
            n: u64::try_from(n).ok()?,
            at: at.parse().ok()?,
        })
    });
    Ok(markers.collect())
}

fn rows(
    connection: &Connection,
    since: Option<Timestamp>,
) -> rusqlite::Result<Vec<(String, i64, String)>> {
    let is_there = connection.table_exists(None, MARKERS_TABLE)?;
    if !is_there {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT writer, n, at FROM {MARKERS_TABLE} WHERE at >= ?1 ORDER BY rowid");
    let since = since.map_or_else(String::new, written);
    let mut statement = connection.prepare(&sql)?;
    statement.query_map([since], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
}
