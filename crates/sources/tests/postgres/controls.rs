//! Negative controls, integrity and markers, against running servers.

use std::{fs, os::unix::fs::FileExt as _};

use anyhow::Result;
use jiff::Timestamp;
use muster_model::Fault;
use muster_repository::run::Run;
use muster_sources::postgres::{
    MarkerWriter, PostgresSource, Programs, Way, count_rows, damage, empty_like, integrity,
    read_cluster, read_markers, user_tables,
};
use muster_testkit::postgres::{Options, free_port};

use crate::common::{MAJOR, Revived, Sandbox};

#[test]
fn the_largest_table_is_emptied_with_all_that_refers_to_it() -> Result<()> {
    let Some(sandbox) = Sandbox::new("pg-damage", MAJOR, &Options::default())? else {
        return Ok(());
    };
    let source = sandbox.source("postgres");
    assert_eq!(damage(&source, &Run::new()).unwrap_err().code(), "postgres-nothing-to-damage");
    sandbox.client()?.batch_execute(
        "create table \"Odd Name\" (id int primary key);
         insert into \"Odd Name\" select generate_series(1, 50);
         create table child (id int references \"Odd Name\"); insert into child values (1), (2)",
    )?;
    assert_eq!(user_tables(&source)?, ["public.\"Odd Name\"", "public.child"]);
    assert_eq!(count_rows(&source, "\"Odd Name\"", &Run::new())?, 50);
    let damaged = damage(&source, &Run::new())?;
    assert_eq!((damaged.table.as_str(), damaged.rows), ("public.\"Odd Name\"", 50));
    assert_eq!(count_rows(&source, "child", &Run::new())?, 0);
    Ok(())
}

#[test]
fn an_empty_server_lets_a_probe_in_and_has_nothing() -> Result<()> {
    let Some(sandbox) = Sandbox::new("pg-empty", MAJOR, &Options::default())? else {
        return Ok(());
    };
    sandbox.client()?.batch_execute("create role \"shop app\" login")?;
    sandbox.client()?.batch_execute("create database \"the shop\" owner \"shop app\"")?;
    let captured = sandbox.back_up(Way::Automatic, &sandbox.request(&[]))?;
    let indexed = sandbox.repository.load_index(&Run::new())?;
    let cluster = read_cluster(&indexed, captured.snapshot)?;
    assert_eq!((cluster.major, cluster.superuser.as_str()), (MAJOR, "postgres"));
    let data = sandbox.scratch.join("empty");
    let (programs, port) = (sandbox.programs(), free_port()?);
    let launch = empty_like(&programs, &cluster, &data, port, None, &Run::new())?;
    let _revived = Revived::start(launch, &sandbox.scratch.join("empty.log"))?;
    let url = format!("postgresql://shop%20app@127.0.0.1:{port}/the%20shop");
    assert_eq!(user_tables(&PostgresSource::new(url))?, [""; 0]);
    Ok(())
}

#[test]
fn a_broken_index_is_a_finding() -> Result<()> {
    let Some(mut sandbox) = Sandbox::new("pg-amcheck", MAJOR, &Options::default())? else {
        return Ok(());
    };
    sandbox.client()?.batch_execute(
        "create table t (id int primary key); insert into t select generate_series(1, 5000);
         checkpoint",
    )?;
    let source = sandbox.source("postgres");
    let clean = integrity(&source, &Run::new())?;
    assert_eq!((clean.findings, clean.without_amcheck), (vec![], vec![]));
    let path: String =
        sandbox.client()?.query_one("select pg_relation_filepath('t_pkey')", &[])?.get(0);
    sandbox.server.stop()?;
    let file = fs::OpenOptions::new().write(true).open(sandbox.server.data().join(path))?;
    file.write_all_at(&[0xFF; 64], 8192 + 8000)?;
    sandbox.server.start_again()?;
    let found = integrity(&sandbox.source("postgres"), &Run::new())?;
    assert!(found.findings.iter().any(|text| text.contains("t_pkey")), "{found:?}");
    Ok(())
}

#[test]
fn markers_are_there_once_committed_and_outlive_the_connection() -> Result<()> {
    let Some(mut sandbox) = Sandbox::new("pg-markers", MAJOR, &Options::default())? else {
        return Ok(());
    };
    let source = sandbox.source("postgres");
    assert_eq!(read_markers(&source, Timestamp::UNIX_EPOCH)?, []);
    let mut writer = MarkerWriter::new(&source)?;
    let first = writer.write()?;
    let second = writer.write()?;
    assert_eq!(read_markers(&source, Timestamp::UNIX_EPOCH)?, [first, second]);
    assert_eq!(read_markers(&source, second.at)?, [second]);

    // The connection is cut; the next call says so, and the one after writes again.
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity \
               where application_name = 'muster' and pid <> pg_backend_pid()";
    sandbox.client()?.batch_execute(cut)?;
    assert!(writer.write().is_err());
    let last = writer.write()?;
    assert_eq!(last.n, 4, "a number is never used twice");

    // What blocks the table does not block for ever, and old rows go.
    let mut blocker = sandbox.client()?;
    let mut transaction = blocker.transaction()?;
    transaction.batch_execute("lock table muster_marker")?;
    assert_eq!(writer.write().unwrap_err().code(), "postgres-statement");
    transaction.rollback()?;
    blocker.batch_execute("update muster_marker set at = now() - interval '8 days' where n = 1")?;
    while writer.write()?.n < 1000 {}
    let kept = read_markers(&source, Timestamp::UNIX_EPOCH)?;
    assert_eq!(kept.first().map(|marker| marker.n), Some(2));
    sandbox.server.stop()?;
    assert!(writer.write().is_err());
    Ok(())
}

#[test]
fn programs_are_found_by_their_version() {
    let missing = Programs::find(12).unwrap_err();
    assert_eq!(missing.code(), "postgres-no-programs");
    if muster_testkit::postgres::require(MAJOR).is_some() {
        let found = Programs::find(MAJOR).unwrap();
        assert!(found.program("initdb").is_file());
    }
}
