//! Damage to the database itself: found by `verify_log`, and never signed over.

use muster_ledger::{Filter, Ledger, LogError, verify_log};
use muster_model::{Class, Fault as _};
use muster_testkit::Scratch;
use rusqlite::Connection;

use crate::common::{copy_folder, drill, three_drills};

/// Runs SQL against a copy of a ledger whose triggers were dropped.
fn damaged(scratch: &Scratch, name: &str, sql: &str) -> Ledger {
    let state = copy_folder(&scratch.join("state"), &scratch.join(name));
    let connection = Connection::open(state.join("ledger.sqlite3")).unwrap();
    let select = "SELECT name FROM sqlite_schema WHERE type = 'trigger'";
    let mut statement = connection.prepare(select).unwrap();
    let triggers: Vec<String> =
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    drop(statement);
    for trigger in triggers {
        connection.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
    }
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
    Ledger::open(&state).unwrap()
}

const DAMAGE: &[&str] = &[
    "UPDATE entry SET leaf = replace(leaf, 'orders', 'others') WHERE idx = 0",
    "UPDATE entry SET leaf = leaf || ' ' WHERE idx = 3",
    "UPDATE entry SET kind = 'note' WHERE idx = 3",
    "UPDATE entry SET at_s = at_s + 1 WHERE idx = 3",
    "DELETE FROM entry WHERE idx = 5",
    "DELETE FROM entry WHERE idx = 23",
    "UPDATE entry SET idx = 99 WHERE idx = 23",
    "UPDATE entry SET leaf = (SELECT leaf FROM entry WHERE idx = 4) WHERE idx = 3",
    "UPDATE node SET hash = zeroblob(32) WHERE level = 0 AND position = 2",
    "UPDATE node SET hash = zeroblob(32) WHERE level = 3 AND position = 1",
    "UPDATE node SET hash = zeroblob(31) WHERE level = 1 AND position = 1",
    "DELETE FROM node WHERE level = 2 AND position = 0",
    "INSERT INTO node VALUES (3, 9, zeroblob(32))",
    "UPDATE checkpoint SET note = replace(note, 'A', 'B')",
    "UPDATE checkpoint SET size = size + 1 WHERE size = 7",
    "DELETE FROM entry; DELETE FROM node",
    "UPDATE attachment SET bytes = CAST(bytes || ' ' AS BLOB)",
    "DELETE FROM attachment",
];

#[test]
fn every_damage_is_found() {
    let (scratch, ledger) = three_drills();
    verify_log(&ledger).unwrap();
    drop(ledger);
    for (i, sql) in DAMAGE.iter().enumerate() {
        let ledger = damaged(&scratch, &format!("damaged-{i}"), sql);
        let error = verify_log(&ledger).unwrap_err();
        assert_eq!(error.class(), Class::Corrupt, "{sql}: {error}");
    }
    let sound = damaged(&scratch, "sound", "");
    verify_log(&sound).unwrap();
}

#[test]
fn a_changed_past_is_not_signed_over() {
    let (scratch, ledger) = three_drills();
    drop(ledger);
    let sql = "UPDATE node SET hash = zeroblob(32) WHERE level = 4 AND position = 0";
    let ledger = damaged(&scratch, "damaged", sql);
    let error = ledger.checkpoint().unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Corrupt, "ledger-damaged"), "{error}");
}

#[test]
fn rows_cannot_be_changed_by_accident() {
    let (scratch, ledger) = three_drills();
    let connection = Connection::open(scratch.join("state/ledger.sqlite3")).unwrap();
    for table in ["meta", "entry", "node", "checkpoint", "attachment"] {
        let columns = format!("SELECT name FROM pragma_table_info('{table}') LIMIT 1");
        let column: String = connection.query_row(&columns, [], |row| row.get(0)).unwrap();
        for sql in [
            format!("UPDATE {table} SET {column} = {column}"),
            format!("DELETE FROM {table}"),
            format!("INSERT OR REPLACE INTO {table} SELECT * FROM {table}"),
        ] {
            assert!(connection.execute(&sql, []).is_err(), "{sql}");
        }
    }
    let gap = "INSERT INTO entry SELECT idx + 100, kind, at_s, leaf FROM entry WHERE idx = 0";
    assert!(connection.execute(gap, []).is_err());
    verify_log(&ledger).unwrap();
}

#[test]
fn a_file_that_is_no_database_is_corrupt() {
    let (scratch, ledger) = three_drills();
    drop(ledger);
    std::fs::write(scratch.join("state/ledger.sqlite3"), [b'x'; 4096]).unwrap();
    for result in
        [Ledger::open(&scratch.join("state")), Ledger::open_read_only(&scratch.join("state"))]
    {
        let error = result.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Corrupt, "ledger-damaged"), "{error}");
    }
}

#[test]
fn a_newer_format_is_refused() {
    let (scratch, ledger) = three_drills();
    drop(ledger);
    let ledger = std::panic::catch_unwind(|| damaged(&scratch, "newer", "PRAGMA user_version = 2"));
    assert!(ledger.is_err());
    let error = Ledger::open(&scratch.join("newer")).unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Denied, "ledger-too-new"), "{error}");
}

#[test]
fn what_is_damaged_is_not_read_either() {
    let (scratch, ledger) = three_drills();
    drop(ledger);
    let ledger = damaged(&scratch, "damaged", DAMAGE[1]);
    assert_eq!(ledger.entries(&Filter::default()).unwrap_err().class(), Class::Corrupt);
    drill(&ledger, 0);
    assert!(matches!(verify_log(&ledger), Err(LogError::Mismatch(_))));
}
