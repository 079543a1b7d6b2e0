//! Questions to a restored database.

use std::{collections::BTreeMap, fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path};

use muster_repository::run::Run;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use super::{SqliteError, copy::open};
use crate::markers::MARKERS_TABLE;

const ASK: &str = "read";

/// Steps of SQLite's machine between two looks whether a check shall stop.
const CANCEL_STEPS: i32 = 10_000;

/// Pages and indexes that make no sense: what `PRAGMA integrity_check` says, empty when all is
/// well. A file that is no database is damage as well.
///
/// # Errors
/// Fails when the database cannot be opened, or others hold it.
pub fn integrity(path: &Path) -> Result<Vec<String>, SqliteError> {
    check(path, "PRAGMA integrity_check", &Run::new())
}

/// As [`integrity`], without the comparison of tables with their indexes: much quicker.
pub(super) fn quick_check(path: &Path, run: &Run) -> Result<Vec<String>, SqliteError> {
    check(path, "PRAGMA quick_check(10)", run)
}

fn check(path: &Path, pragma: &str, run: &Run) -> Result<Vec<String>, SqliteError> {
    let mut connection = open(path, OpenFlags::empty(), ASK)?;
    let cancel = run.cancel.clone();
    let watch = connection.progress_handler(CANCEL_STEPS, Some(move || cancel.is_requested()));
    watch.map_err(SqliteError::at(ASK, path))?;
    let mut lines = Vec::new();
    let mut asked = || -> rusqlite::Result<()> {
        let mut statement = connection.prepare(pragma)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            lines.push(row.get::<_, String>(0)?);
        }
        Ok(())
    };
    // Some damage ends the check itself; what was found by then, and this, is the answer.
    let asked = asked().map_err(SqliteError::at(ASK, path));
    run.cancel.check()?;
    match asked {
        Err(SqliteError::Damaged { source, .. }) => lines.push(source.to_string()),
        asked => asked?,
    }
    lines.retain(|line| line != "ok");
    Ok(lines)
}

/// Rows that refer to rows which are not there. Only told: SQLite enforces such references when
/// an application asks for it, so a database may be in order with some broken.
///
/// # Errors
/// As [`integrity`], and when the database is damaged.
pub fn foreign_key_violations(path: &Path) -> Result<Vec<String>, SqliteError> {
    ask(path, "PRAGMA foreign_key_check", |row| {
        let (table, row_id): (String, Option<i64>) = (row.get(0)?, row.get(1)?);
        let parent: String = row.get(2)?;
        let row_id = row_id.map_or_else(|| "a row".to_owned(), |id| format!("row {id}"));
        Ok(format!("{row_id} of {table} refers to what is not in {parent}"))
    })
}

/// The tables that an application made, by name; without Muster's markers.
///
/// # Errors
/// As [`integrity`], and when the database is damaged.
pub fn user_tables(path: &Path) -> Result<Vec<String>, SqliteError> {
    let connection = open(path, OpenFlags::empty(), ASK)?;
    tables_of(&connection).map_err(SqliteError::at(ASK, path))
}

pub(super) fn tables_of(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    // `table_list` tells tables from the shadows in which virtual tables keep their content.
    let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' \
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> ?1 ORDER BY name";
    let mut statement = connection.prepare(sql)?;
    statement.query_map([MARKERS_TABLE], |row| row.get(0))?.collect()
}

/// How many rows each of `tables` has, all at the same moment; `None` for one that is not there.
///
/// # Errors
/// As [`integrity`], and when the database is damaged.
pub fn count_rows(
    path: &Path,
    tables: &[String],
) -> Result<BTreeMap<String, Option<u64>>, SqliteError> {
    let count = || {
        let connection = open(path, OpenFlags::empty(), ASK)?;
        let transaction = connection.unchecked_transaction().map_err(SqliteError::at(ASK, path))?;
        let counts = tables.iter().map(|table| {
            let count = count_table(&transaction, table).map_err(SqliteError::at(ASK, path))?;
            Ok((table.clone(), count))
        });
        counts.collect()
    };
    if tables.is_empty() { Ok(BTreeMap::new()) } else { count() }
}

pub(super) fn count_table(connection: &Connection, table: &str) -> rusqlite::Result<Option<u64>> {
    let sql = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') \
               AND name = ?1 COLLATE NOCASE";
    let found: Option<String> = connection.query_row(sql, [table], |row| row.get(0)).optional()?;
    let Some(name) = found else { return Ok(None) };
    let sql = format!("SELECT count(*) FROM {}", quoted(&name));
    let count: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
    Ok(Some(u64::try_from(count).unwrap_or(0)))
}

/// A name as it stands in SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Makes a database without tables: the control for probes that shall notice missing data.
///
/// # Errors
/// Fails when something is at `path` already, or the file cannot be made.
pub fn empty(path: &Path) -> Result<(), SqliteError> {
    let operation = "make an empty database at";
    if let Err(error) = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        let source = rusqlite::Error::ToSqlConversionFailure(Box::new(error));
        return Err(SqliteError::of(operation, path, source));
    }
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, operation)?;
    // Without any change there would be no header, and no program but SQLite would know it.
    connection.execute_batch("VACUUM").map_err(SqliteError::at(operation, path))
}

fn ask<T>(
    path: &Path,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, SqliteError> {
    let connection = open(path, OpenFlags::empty(), ASK)?;
    let asked = || -> rusqlite::Result<Vec<T>> {
        let mut statement = connection.prepare(sql)?;
        statement.query_map([], read)?.collect()
    };
    asked().map_err(SqliteError::at(ASK, path))
}
