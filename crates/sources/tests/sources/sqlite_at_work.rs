//! A database that is written all the time: copies are of one moment, and come to an end.

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;
use muster_repository::{environment::Environment, run::Run};
use muster_sources::sqlite;
use muster_testkit::wait_for;
use rusqlite::{Connection, params};

use crate::common::{Sandbox, database};

const LONG: Duration = Duration::from_secs(60);

/// Accounts whose sum is always zero, numbered transfers, and enough else that a copy takes
/// several steps: 24 MB.
const ACCOUNTS: &str = "
    CREATE TABLE account(id INTEGER PRIMARY KEY, amount INTEGER NOT NULL);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
        INSERT INTO account SELECT i, 0 FROM n;
    CREATE TABLE transfer(n INTEGER PRIMARY KEY);
    CREATE TABLE filling AS WITH RECURSIVE n(i) AS
        (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) SELECT zeroblob(4000) AS b FROM n;";

fn set_up(path: &Path, mode: &str) {
    let connection = Connection::open(path).unwrap();
    connection.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).unwrap();
    connection.execute_batch("PRAGMA synchronous=OFF").unwrap();
    connection.execute_batch(ACCOUNTS).unwrap();
}

/// Transfers without a pause until `stop`; notes when each was committed, by its number.
fn transfer(path: &Path, patience: Duration, committed: &Mutex<Vec<Timestamp>>, stop: &AtomicBool) {
    let mut connection = Connection::open(path).unwrap();
    connection.busy_timeout(patience).unwrap();
    connection.execute_batch("PRAGMA synchronous=OFF").unwrap();
    let mut n = 0_i64;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
        let sql = "UPDATE account SET amount = amount + ?2 WHERE id = ?1";
        transaction.execute(sql, params![n % 1000 + 1, n]).unwrap();
        transaction.execute(sql, params![(n * 7) % 1000 + 1, -n]).unwrap();
        transaction.execute("INSERT INTO transfer VALUES (?1)", [n]).unwrap();
        transaction.commit().unwrap();
        committed.lock().unwrap().push(Timestamp::now());
    }
}

/// Backs up several times while transfers go on, and looks at each copy.
fn check(mode: &str, patience: Duration) {
    let sandbox = Sandbox::new("at-work");
    let path = sandbox.join("bank.db");
    set_up(&path, mode);
    let (committed, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let count = || committed.lock().unwrap().len();
    let captured: Vec<_> = thread::scope(|scope| {
        scope.spawn(|| transfer(&path, patience, &committed, &stop));
        let captured = (0..3).map(|n| {
            let before = count();
            wait_for("transfers to go on", LONG, || (count() > before + 20).then_some(())).unwrap();
            let mut request = sandbox.request(&format!("point-{n}"));
            request.count_rows = vec!["transfer".to_owned()];
            let (environment, run) = (Environment::detect(), Run::new());
            database(&path).back_up(&sandbox.repository, &request, &environment, &run)
        });
        let captured: Vec<_> = captured.collect();
        stop.store(true, Ordering::Relaxed);
        captured
    });
    let committed = committed.into_inner().unwrap();
    for (n, captured) in captured.into_iter().enumerate() {
        let captured = captured.unwrap();
        let restored = sandbox.restore(captured.snapshot, &sandbox.join(&format!("t{n}")));
        assert_eq!(sqlite::integrity(&restored.path).unwrap(), Vec::<String>::new());
        let copy = Connection::open(&restored.path).unwrap();
        let ask = |sql: &str| -> i64 { copy.query_row(sql, [], |row| row.get(0)).unwrap() };
        assert_eq!(ask("SELECT sum(amount) FROM account"), 0);
        let transfers = u64::try_from(ask("SELECT count(*) FROM transfer")).unwrap();
        assert_eq!(ask("SELECT max(n) FROM transfer").cast_unsigned(), transfers);
        assert_eq!(captured.rows["transfer"], (transfers, transfers));
        // Whatever was committed by then is in it: the content is not older than it says.
        let by_then = committed.iter().filter(|&&at| at <= captured.data_time).count();
        assert!(by_then as u64 <= transfers, "{by_then} of {transfers}");
        // Nor does it promise next to nothing.
        assert!(by_then >= 20);
    }
}

/// With a log no writer is ever kept waiting: this one has no patience at all, and a refusal
/// would end it with a panic.
#[test]
fn a_hot_writer_with_a_log() {
    check("WAL", Duration::ZERO);
}

#[test]
fn a_hot_writer_with_a_rollback_journal() {
    check("DELETE", LONG);
    check("TRUNCATE", LONG);
}

/// Copied in several steps, with nothing held in between, and nobody who had to wait.
#[test]
fn a_database_that_rests() {
    let sandbox = Sandbox::new("at-rest");
    let path = sandbox.join("bank.db");
    set_up(&path, "DELETE");
    let captured = sandbox.back_up(&database(&path));
    assert_eq!(captured.notices, []);
    let restored = sandbox.restore(captured.snapshot, &sandbox.join("t"));
    // All but the header, where SQLite counts changes.
    let (copy, original) = (std::fs::read(&restored.path).unwrap(), std::fs::read(&path).unwrap());
    assert!(copy[100..] == original[100..]);
    let again = sandbox.back_up(&database(&path));
    assert!(again.bytes_added < 10_000, "{}", again.bytes_added);
}
