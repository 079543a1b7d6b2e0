//! `sql` probes against SQLite.

use std::{fs, time::Duration};

use muster_model::{Light, ProbeCheck, probe::Database};
use muster_testkit::Scratch;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::common::{ask, expect, sql};

const ENDLESS: &str =
    "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";

struct Fixture {
    scratch: Scratch,
    /// Kept open as a service would.
    connection: Connection,
}

impl Fixture {
    fn new() -> Self {
        let scratch = Scratch::new("sqlite").unwrap();
        let connection = Connection::open(scratch.join("db")).unwrap();
        connection
            .execute_batch(
                "pragma journal_mode = wal;
                 create table ledger (id integer primary key, amount numeric, name text);
                 insert into ledger (amount, name) values (10, 'a'), (-7.5, 'b'), (-2.5, null);",
            )
            .unwrap();
        Self { scratch, connection }
    }

    fn check(&self, query: &str, expected: Value) -> ProbeCheck {
        let path = self.scratch.join("db").to_str().unwrap().to_owned();
        sql(Database::Sqlite(path), query, expected)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compared() {
    let fixture = Fixture::new();
    let green = async |query: &str, expected: Value| {
        expect(fixture.check(query, expected), Light::Green, "answered").await;
    };
    green("select count(*) > 0 and sum(amount) = 0 from ledger", json!(true)).await;
    green("select count(*) from ledger;", json!(3)).await;
    green("select sum(amount) from ledger", json!(0)).await;
    green("select name from ledger where id = 2", json!("b")).await;
    green("select name from ledger where id = 3", json!(null)).await;
    green("select 0.5", json!(0.5)).await;
    let red = async |query: &str, expected: Value, detail: &str| {
        expect(fixture.check(query, expected), Light::Red, detail).await;
    };
    red("select count(*) from ledger", json!(4), "answered 3, expected 4").await;
    red("select 2", json!(true), "answered 2, expected true").await;
    red("select name from ledger where id = 9", json!("b"), "no row").await;
    red("select name from ledger", json!("a"), "several rows").await;
    red("select missing from ledger", json!(1), "no such column").await;
    red("select 1; select 2", json!(1), "ultiple statement").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_and_nothing_is_made() {
    let fixture = Fixture::new();
    for query in ["delete from ledger returning 1", "delete from ledger", "pragma user_version = 7"]
    {
        expect(fixture.check(query, json!(1)), Light::Red, "").await;
    }
    let rows: i64 =
        fixture.connection.query_row("select count(*) from ledger", (), |row| row.get(0)).unwrap();
    assert_eq!(rows, 3);
    let missing = fixture.scratch.join("missing");
    let relative = format!("file:{}?mode=rwc", missing.display());
    for path in [missing.display().to_string(), relative] {
        expect(sql(Database::Sqlite(path), "select 1", json!(1)), Light::Red, "unable").await;
    }
    assert!(!missing.exists());
    let junk = fixture.scratch.join("junk");
    fs::write(&junk, "x".repeat(5000)).unwrap();
    let junk = Database::Sqlite(junk.display().to_string());
    expect(sql(junk, "select count(*) from ledger", json!(1)), Light::Red, "not a database").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_end_with_their_time() {
    let fixture = Fixture::new();
    let limit = Duration::from_millis(200);
    let sample = ask(fixture.check(ENDLESS, json!(1)), limit).await;
    assert_eq!(
        (sample.light, sample.detail.as_str()),
        (Light::Red, "no complete answer within 200ms")
    );
    // The runtime ends only when its threads have: an endless query would hang this test.
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_is_red() {
    let scratch = Scratch::new("locked").unwrap();
    let connection = Connection::open(scratch.join("db")).unwrap();
    connection.execute_batch("create table t (a); begin exclusive").unwrap();
    let database = Database::Sqlite(scratch.join("db").display().to_string());
    let sample =
        ask(sql(database, "select count(*) from t", json!(0)), Duration::from_secs(60)).await;
    assert_eq!(sample.light, Light::Red);
    assert!(sample.detail.contains("locked"), "{}", sample.detail);
    assert!(sample.took < Duration::from_secs(30), "{:?}", sample.took);
}
