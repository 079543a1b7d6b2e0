//! `sql` probes on SQLite: opened read-only, never made.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Row, types::ValueRef};
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::{postgres::compare, trouble::Trouble, value::Answer};
use crate::text::chain;

/// How long a locked database is asked again; no longer than the probe's time.
const BUSY_WAIT_MAX: Duration = Duration::from_millis(500);
/// After how many steps of its machine SQLite looks at the clock.
const STEPS_PER_LOOK: i32 = 1000;

/// Asks once on a thread of its own, which ends itself when the time is over.
pub(super) async fn ask(
    path: &str,
    query: &str,
    expect: &Value,
    limit: Duration,
) -> Result<String, Trouble> {
    let (path, query) = (path.to_owned(), query.to_owned());
    let asked = spawn_blocking(move || value_of(Path::new(&path), &query, limit));
    let answer = asked.await.map_err(|error| Trouble::Prober(error.to_string()))?;
    compare(&as_truth(answer?, expect), expect)
}

fn value_of(path: &Path, query: &str, limit: Duration) -> Result<Answer, Trouble> {
    let deadline = Instant::now() + limit;
    let failed = |error: rusqlite::Error| failed(&error, limit);
    // An absolute path is never taken for a URI, which could ask for other modes.
    let path = std::path::absolute(path).map_err(|error| Trouble::of(&error))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(limit.min(BUSY_WAIT_MAX)).map_err(failed)?;
    connection
        .progress_handler(STEPS_PER_LOOK, Some(move || Instant::now() >= deadline))
        .map_err(failed)?;
    let mut statement = connection.prepare(query).map_err(failed)?;
    if !statement.readonly() {
        return Err(Trouble::Answer("the query would change the database".to_owned()));
    }
    if statement.column_count() == 0 {
        return Err(Trouble::Answer("the query has no column".to_owned()));
    }
    let mut rows = statement.query(()).map_err(failed)?;
    let Some(answer) = rows.next().map_err(failed)?.map(answer).transpose().map_err(failed)? else {
        return Err(Trouble::Answer("no row, expected one".to_owned()));
    };
    if rows.next().map_err(failed)?.is_some() {
        return Err(Trouble::Answer("several rows, expected one".to_owned()));
    }
    Ok(answer)
}

/// SQLite has no booleans: where one is expected, 1 and 0 are meant.
fn as_truth(answer: Answer, expect: &Value) -> Answer {
    match &answer {
        Answer::Number(number) if expect.is_boolean() && number == "1" => Answer::Bool(true),
        Answer::Number(number) if expect.is_boolean() && number == "0" => Answer::Bool(false),
        _ => answer,
    }
}

fn answer(row: &Row<'_>) -> rusqlite::Result<Answer> {
    Ok(match row.get_ref(0)? {
        ValueRef::Null => Answer::Null,
        ValueRef::Integer(number) => Answer::Number(number.to_string()),
        ValueRef::Real(number) => Answer::Number(number.to_string()),
        ValueRef::Text(text) => Answer::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Answer::Text(bytes.escape_ascii().to_string()),
    })
}

fn failed(error: &rusqlite::Error, limit: Duration) -> Trouble {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => Trouble::TimedOut(limit),
        // May be for want of a descriptor.
        Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) => Trouble::NoAnswer(chain(error)),
        _ => Trouble::Answer(chain(error)),
    }
}
