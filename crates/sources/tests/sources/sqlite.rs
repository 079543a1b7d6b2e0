//! SQLite: what a snapshot of a database holds, and questions to what came back.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use muster_model::{Class, Fault};
use muster_repository::{
    environment::Environment,
    restore::{RestoreOptions, restore},
    run::Run,
};
use muster_sources::sqlite;
use muster_testkit::peers;
use rusqlite::Connection;

use crate::common::{EXACT, PASSWORD, Sandbox, codes, database};

const SHOP: &str = "
    CREATE TABLE orders(id INTEGER PRIMARY KEY, amount INTEGER);
    CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE muster_marker(writer TEXT, n INTEGER, at TEXT);
    INSERT INTO orders(amount) VALUES (1), (2), (3);
    INSERT INTO customers(name) VALUES ('ana'), ('bo');
    INSERT INTO muster_marker VALUES ('', 1, ''), ('', 2, ''), ('', 3, ''), ('', 4, '');";

/// A database with a write-ahead log that nobody has played in yet; open, as at work.
fn at_work(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    let mode: String =
        connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    connection.execute_batch(SHOP).unwrap();
    connection
}

fn one<T: rusqlite::types::FromSql>(path: &Path, sql: &str) -> T {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn the_copy_is_whole_and_one_file() {
    let sandbox = Sandbox::new("whole");
    let path = sandbox.join("shop.db");
    let _open = at_work(&path);
    assert!(fs::metadata(sandbox.join("shop.db-wal")).unwrap().len() > 0);
    let mut request = sandbox.request("point-1");
    request.count_rows = ["orders", "Customers", "gone"].map(str::to_owned).to_vec();
    let (environment, run) = (Environment::detect(), Run::new());
    let captured = database(&path).back_up(&sandbox.repository, &request, &environment, &run);
    let captured = captured.unwrap();
    assert!(sandbox.is_staging_empty());
    assert_eq!((captured.rows["orders"], captured.rows["Customers"]), ((3, 3), (2, 2)));
    assert_eq!((captured.rows.len(), codes(&captured)), (2, vec!["table-missing"]));
    assert_eq!((captured.files, captured.left_out.len()), (1, 0));

    let restored = sandbox.restore(captured.snapshot, &sandbox.join("t"));
    assert_eq!(restored.path, sandbox.join("t/shop.db"));
    assert_eq!(one::<i64>(&restored.path, "SELECT sum(amount) FROM orders"), 6);
    assert_eq!(one::<String>(&restored.path, "PRAGMA journal_mode"), "delete");
    assert_eq!(fs::read_dir(sandbox.join("t")).unwrap().count(), 1);
    assert_eq!(sqlite::integrity(&restored.path).unwrap(), Vec::<String>::new());
}

#[test]
fn the_snapshot_shows_the_database_in_its_place() {
    let sandbox = Sandbox::new("in-place");
    let folder = sandbox.folder("srv");
    let path = folder.join("shop.db");
    let open = at_work(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(1234), Some(2345)).unwrap();
    }
    let captured = sandbox.back_up(&database(&path));
    drop(open);
    let original = fs::metadata(&path).unwrap();

    let run = Run::new();
    let indexed = sandbox.repository.load_index(&run).unwrap();
    let tree = indexed.snapshot(captured.snapshot).unwrap().tree;
    let target = sandbox.join("t");
    assert!(restore(&indexed, tree, &RestoreOptions::new(&target), &run).unwrap().is_complete());
    check_in_place(&original, &target.join(path.strip_prefix("/").unwrap()));

    let Some(restic) = peers::require("restic") else { return };
    let restic = restic
        .env("RESTIC_REPOSITORY", sandbox.join("repository"))
        .env("RESTIC_PASSWORD", PASSWORD)
        .folder(sandbox.scratch.path());
    let target = sandbox.join("by-restic");
    restic.succeed(["restore", "latest", "--target", target.to_str().unwrap()]).unwrap();
    check_in_place(&original, &target.join(path.strip_prefix("/").unwrap()));
}

fn check_in_place(original: &fs::Metadata, restored: &Path) {
    let found = fs::metadata(restored).unwrap();
    assert_eq!(
        (found.mode(), found.uid(), found.gid()),
        (original.mode(), original.uid(), original.gid())
    );
    let folder = fs::metadata(restored.parent().unwrap()).unwrap();
    assert_eq!(folder.mode() & 0o777, 0o711);
    assert_eq!(one::<i64>(restored, "SELECT count(*) FROM orders"), 3);
}

#[test]
fn a_change_that_only_the_log_holds_is_in_the_next_snapshot() {
    let sandbox = Sandbox::new("log-only");
    let path = sandbox.join("shop.db");
    let open = at_work(&path);
    let first = sandbox.back_up(&database(&path));
    let before = fs::metadata(&path).unwrap();
    open.execute_batch("INSERT INTO orders(amount) VALUES (4)").unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!(
        (before.len(), before.modified().unwrap()),
        (after.len(), after.modified().unwrap())
    );
    let second = sandbox.back_up(&database(&path));
    let restored = sandbox.restore(first.snapshot, &sandbox.join("t1"));
    assert_eq!(one::<i64>(&restored.path, "SELECT count(*) FROM orders"), 3);
    let restored = sandbox.restore(second.snapshot, &sandbox.join("t2"));
    assert_eq!(one::<i64>(&restored.path, "SELECT count(*) FROM orders"), 4);
}

#[test]
fn a_second_snapshot_adds_what_changed() {
    let sandbox = Sandbox::new("deduplicated");
    let path = sandbox.join("shop.db");
    let open = at_work(&path);
    let fill = "CREATE TABLE noise AS WITH RECURSIVE n(i) AS
        (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) SELECT randomblob(4000) AS b FROM n";
    open.execute_batch(fill).unwrap();
    let first = sandbox.back_up(&database(&path));
    assert!(first.bytes_added > 16_000_000, "{}", first.bytes_added);
    open.execute_batch("INSERT INTO orders(amount) VALUES (4)").unwrap();
    let second = sandbox.back_up(&database(&path));
    assert!(second.bytes_added < first.bytes_added / 2, "{}", second.bytes_added);
}

#[test]
fn a_damaged_database_is_told_and_what_is_none_is_refused() {
    let sandbox = Sandbox::new("damaged");
    let path = sandbox.join("shop.db");
    let open = Connection::open(&path).unwrap();
    open.execute_batch(SHOP).unwrap();
    open.execute_batch("CREATE INDEX by_name ON customers(name)").unwrap();
    let page: i64 = open
        .query_row("SELECT rootpage FROM sqlite_master WHERE name = 'orders'", [], |row| row.get(0))
        .unwrap();
    drop(open);
    let mut bytes = fs::read(&path).unwrap();
    let start = usize::try_from(page - 1).unwrap() * 4096;
    bytes[start..start + 8].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let captured = sandbox.back_up(&database(&path));
    assert_eq!(codes(&captured), ["source-damaged"]);
    let restored = sandbox.restore(captured.snapshot, &sandbox.join("t"));
    assert!(!sqlite::integrity(&restored.path).unwrap().is_empty());

    fs::write(&path, vec![7; 8192]).unwrap();
    let error = sandbox.try_back_up(&database(&path)).unwrap_err();
    assert_eq!((error.code(), error.class()), ("sqlite-damaged", Class::Corrupt));
    let error = sandbox.try_back_up(&database(&sandbox.join("gone.db"))).unwrap_err();
    assert_eq!((error.code(), error.class()), ("source-missing", Class::NotFound));
    assert!(sandbox.is_staging_empty());
    assert_eq!(sandbox.snapshots(), 1);
}

#[test]
fn an_interrupted_write_is_left_for_its_application_to_recover() {
    let sandbox = Sandbox::new("recovery");
    let path = sandbox.join("shop.db");
    let open = Connection::open(&path).unwrap();
    open.execute_batch(SHOP).unwrap();
    let fill = "PRAGMA cache_size=1; BEGIN; WITH RECURSIVE n(i) AS
        (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
        INSERT INTO orders(amount) SELECT 1 FROM n; UPDATE orders SET amount = 5;
        CREATE TABLE more AS SELECT amount, randomblob(500) FROM orders";
    open.execute_batch(fill).unwrap();
    // What lies on the disk now is what a crash would leave.
    let crashed = sandbox.join("crashed.db");
    fs::copy(&path, &crashed).unwrap();
    fs::copy(sandbox.join("shop.db-journal"), sandbox.join("crashed.db-journal")).unwrap();
    let before = fs::read(&crashed).unwrap();
    let error = sandbox.try_back_up(&database(&crashed)).unwrap_err();
    assert_eq!((error.code(), error.class()), ("sqlite-needs-recovery", Class::Conflict));
    assert_eq!(fs::read(&crashed).unwrap(), before);
    assert_eq!(one::<i64>(&crashed, "SELECT count(*) FROM orders"), 3);
    let captured = sandbox.back_up(&database(&crashed));
    let restored = sandbox.restore(captured.snapshot, &sandbox.join("t"));
    assert_eq!(one::<i64>(&restored.path, "SELECT sum(amount) FROM orders"), 6);
}

#[test]
fn an_old_log_is_not_played_into_a_restored_database() {
    let sandbox = Sandbox::new("old-log");
    let path = sandbox.join("shop.db");
    let open = at_work(&path);
    let captured = sandbox.back_up(&database(&path));
    open.execute_batch("DELETE FROM orders").unwrap();
    // A target that its service left in a hurry.
    let target = sandbox.folder("t");
    for end in ["", "-wal"] {
        fs::copy(sandbox.join(&format!("shop.db{end}")), target.join(format!("shop.db{end}")))
            .unwrap();
    }
    let restored = sandbox.try_restore(captured.snapshot, &target, EXACT).unwrap();
    assert!(!target.join("shop.db-wal").exists());
    assert_eq!(one::<i64>(&restored.path, "SELECT count(*) FROM orders"), 3);
}

#[test]
fn a_cancelled_run_leaves_no_snapshot_and_no_copy() {
    let sandbox = Sandbox::new("cancelled");
    let path = sandbox.join("shop.db");
    let _open = at_work(&path);
    let run = Run::new();
    run.cancel.request("somebody asked");
    let request = sandbox.request("point-1");
    let result =
        database(&path).back_up(&sandbox.repository, &request, &Environment::detect(), &run);
    assert_eq!(result.unwrap_err().code(), "interrupted");
    assert!(sandbox.is_staging_empty());
    assert_eq!(sandbox.snapshots(), 0);
}

#[test]
fn restored_databases_can_be_questioned() {
    let sandbox = Sandbox::new("questions");
    let path = sandbox.join("shop.db");
    let open = Connection::open(&path).unwrap();
    open.execute_batch(SHOP).unwrap();
    open.execute_batch(
        "CREATE VIRTUAL TABLE words USING fts5(text);
         CREATE TABLE \"odd \"\"name\"(x);
         CREATE TABLE lines(of INTEGER REFERENCES orders(id));
         PRAGMA foreign_keys=OFF;
         INSERT INTO lines VALUES (99);",
    )
    .unwrap();
    let tables = sqlite::user_tables(&path).unwrap();
    assert_eq!(tables, ["customers", "lines", "odd \"name", "orders"]);
    let asked = ["orders", "gone", "odd \"name", "words"].map(str::to_owned);
    let counts = sqlite::count_rows(&path, &asked).unwrap();
    let counts: Vec<_> = asked.iter().map(|table| counts[table]).collect();
    assert_eq!(counts, [Some(3), None, Some(0), Some(0)]);
    assert_eq!(sqlite::integrity(&path).unwrap(), Vec::<String>::new());
    let broken = sqlite::foreign_key_violations(&path).unwrap();
    assert_eq!(broken, ["row 1 of lines refers to what is not in orders"]);
}

#[test]
fn a_service_sees_the_damage_and_its_end() {
    for mode in ["WAL", "DELETE"] {
        let sandbox = Sandbox::new("damage");
        let path = sandbox.join("shop.db");
        let service = Connection::open(&path).unwrap();
        service.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).unwrap();
        service.execute_batch(SHOP).unwrap();
        // Guards of an application that never deletes.
        service
            .execute_batch(
                "CREATE TRIGGER never BEFORE DELETE ON orders BEGIN SELECT RAISE(ABORT, 'no'); END",
            )
            .unwrap();
        let count = |table: &str| -> i64 {
            service
                .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
                .unwrap()
        };
        let damaged = sqlite::damage(&path).unwrap();
        assert_eq!((damaged.table.as_str(), damaged.rows), ("orders", 3));
        assert_eq!((count("orders"), count("customers"), count("muster_marker")), (0, 2, 4));
        damaged.undo().unwrap();
        assert_eq!((count("orders"), count("customers")), (3, 2));
        assert_eq!(sqlite::integrity(&path).unwrap(), Vec::<String>::new());
        assert!(!sandbox.join("shop.db.muster-undamaged").exists());
        service.execute_batch("INSERT INTO orders(amount) VALUES (4)").unwrap();
        drop(service);
        assert_eq!(one::<i64>(&path, "SELECT sum(amount) FROM orders"), 10);
    }
}

#[test]
fn an_empty_database_is_one_and_has_nothing_to_damage() {
    let sandbox = Sandbox::new("empty");
    let path = sandbox.join("empty.db");
    sqlite::empty(&path).unwrap();
    assert!(fs::read(&path).unwrap().starts_with(b"SQLite format 3\0"));
    assert_eq!(sqlite::user_tables(&path).unwrap(), Vec::<String>::new());
    assert_eq!(sqlite::integrity(&path).unwrap(), Vec::<String>::new());
    assert!(sqlite::empty(&path).is_err());
    assert_eq!(sqlite::damage(&path).unwrap_err().code(), "nothing-to-damage");
}
