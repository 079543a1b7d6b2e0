//! Tables of users: which there are, how many rows they have, and emptying one for a drill.

use muster_repository::run::Run;

use super::{
    PostgresError, PostgresSource,
    connection::{Session, Target},
};

/// What [`damage`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The table that was emptied, with its schema.
    pub table: String,
    /// How many rows it had.
    pub rows: u64,
}

/// Counts the rows of a table; its name may have a schema, and is quoted as in SQL.
///
/// # Errors
/// Fails when the server cannot be reached, there is no such table, it may not be read, or the run
/// is cancelled.
pub fn count_rows(source: &PostgresSource, table: &str, run: &Run) -> Result<u64, PostgresError> {
    count(&mut Target::parse(source)?.connect()?, run, table)
}

pub(super) fn count(session: &mut Session, run: &Run, table: &str) -> Result<u64, PostgresError> {
    const OPERATION: &str = "count the rows of a table";
    let row = session.watched(run, OPERATION, |client| {
        client.query_one("select to_regclass($1)::text", &[&table])
    })?;
    // The server's own spelling, quoted where it needs to be.
    let quoted: Option<String> = row.get(0);
    let quoted = quoted.ok_or_else(|| PostgresError::Statement {
        operation: OPERATION,
        message: format!("there is no table '{table}'"),
    })?;
    let row = session.watched(run, OPERATION, |client| {
        client.query_one(&format!("select count(*) from {quoted}"), &[])
    })?;
    let count: i64 = row.get(0);
    Ok(count.cast_unsigned())
}

/// Lists the tables of users in the URL's database, with their schemas, in the order of names.
///
/// # Errors
/// Fails when the server cannot be reached or asked.
pub fn user_tables(source: &PostgresSource) -> Result<Vec<String>, PostgresError> {
    let mut session = Target::parse(source)?.connect()?;
    tables_of(&mut session)
}

pub(super) fn tables_of(session: &mut Session) -> Result<Vec<String>, PostgresError> {
    let rows = session
        .client()
        .query(
            "select format('%I.%I', n.nspname, c.relname) from pg_class c \
             join pg_namespace n on n.oid = c.relnamespace \
             where c.relkind in ('r', 'p') and not c.relispartition \
             and c.relpersistence <> 't' and n.nspname <> 'information_schema' \
             and n.nspname !~ '^pg_' order by 1",
            &[],
        )
        .map_err(PostgresError::statement("list the tables"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Empties the user table with the most rows, and all that refer to it. **It cannot be undone**:
/// for the disposable target of a drill, to see a probe red.
///
/// # Errors
/// Fails when the server cannot be reached, has no table with rows, or does not allow it.
pub fn damage(source: &PostgresSource, run: &Run) -> Result<Damaged, PostgresError> {
    let mut session = Target::parse(source)?.connect()?;
    let mut largest: Option<Damaged> = None;
    for table in tables_of(&mut session)? {
        let rows = count(&mut session, run, &table)?;
        // The markers are Muster's own, and no probe asks for them.
        let is_marker = table.ends_with(".muster_marker");
        if !is_marker && rows > largest.as_ref().map_or(0, |largest| largest.rows) {
            largest = Some(Damaged { table, rows });
        }
    }
    let damaged = largest.ok_or(PostgresError::NothingToDamage)?;
    let statement = format!("truncate table {} cascade", damaged.table);
    session.watched(run, "empty a table", |client| client.batch_execute(&statement))?;
    Ok(damaged)
}
