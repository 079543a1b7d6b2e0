//! Under load, by both ways, in every version: what comes back is whole.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Result;
use muster_repository::{backup::PARTIAL_TAG, run::Run};
use muster_sources::postgres::{Way, integrity, read_cluster};
use muster_testkit::postgres::Options;

use crate::common::{Load, MAJOR, Sandbox, assert_whole};

/// Backs up under load, restores, verifies, starts, questions.
fn round_trip(name: &str, major: u32, way: Way) -> Result<()> {
    let Some(sandbox) = Sandbox::new(name, major, &Options::default())? else { return Ok(()) };
    let space = sandbox.server.folder("space")?;
    let mut client = sandbox.client()?;
    client.batch_execute(&format!("create tablespace apart location '{}'", space.display()))?;
    client
        .batch_execute("create table far (i int) tablespace apart; insert into far values (7)")?;
    Load::prepare(&mut client)?;
    let load = Load::start(&sandbox.server.url("postgres"))?;
    let captured = sandbox.back_up(way, &sandbox.request(&["accounts", "transfers", "nowhere"]))?;
    let acknowledged = load.stop()?;

    assert!(captured.left_out.is_empty(), "{:?}", captured.left_out);
    assert_eq!(captured.rows["accounts"], (2000, 2000));
    let codes: Vec<_> = captured.notices.iter().map(|notice| notice.code).collect();
    assert_eq!(codes, ["rows-not-counted"]);
    let snapshot = sandbox.repository.snapshot(captured.snapshot)?;
    let tags = &snapshot.tags;
    assert!(tags.contains(&format!("muster:postgres={major}")), "{tags:?}");
    assert!(tags.contains(&"muster:source=postgres".to_owned()), "{tags:?}");
    assert!(!tags.contains(&PARTIAL_TAG.to_owned()), "{tags:?}");
    assert_eq!(snapshot.paths, ["/postgres/orders/db"]);
    let indexed = sandbox.repository.load_index(&Run::new())?;
    let cluster = read_cluster(&indexed, captured.snapshot)?;
    // Only who sees the files sees their owner: it was taken by the way that was meant.
    assert_eq!(cluster.owner.is_some(), way == Way::Automatic);
    assert_eq!(cluster.tablespaces.len(), 1);
    let left: i64 = client.query_one("select count(*) from pg_replication_slots", &[])?.get(0);
    assert_eq!(left, 0, "the slot is gone");

    let restored = sandbox.restore(captured.snapshot, "verified")?;
    sandbox.verify(&restored.path)?;
    let mut revived = sandbox.revive(captured.snapshot, "revived")?;
    let mut client = revived.client()?;
    assert_whole(&mut client, &acknowledged, captured.data_time)?;
    let transfers: i64 = client.query_one("select count(*) from transfers", &[])?.get(0);
    let (least, most) = captured.rows["transfers"];
    assert!((least..=most).contains(&transfers.cast_unsigned()), "{least} {transfers} {most}");
    let far: i32 = client.query_one("select i from far", &[])?.get(0);
    let place: String = client
        .query_one(
            "select pg_tablespace_location(oid) from pg_tablespace where spcname = 'apart'",
            &[],
        )?
        .get(0);
    assert_eq!(far, 7);
    assert!(place.starts_with(sandbox.scratch.path().to_str().unwrap()), "{place}");
    let emptied: i64 = client.query_one("select count(*) from scratchpad", &[])?.get(0);
    assert_eq!(emptied, 0, "an unlogged table is empty, and not broken");
    let found = integrity(&revived.source(), &Run::new())?;
    assert_eq!((found.findings, found.without_amcheck), (vec![], vec![]));
    assert!(found.relations > 100);
    sandbox.amcheck(&revived.launch.url)?;
    revived.running.stop(rustix::process::Signal::INT)
}

#[test]
fn version_13() -> Result<()> {
    round_trip("pg13-files", 13, Way::Automatic)?;
    round_trip("pg13-sent", 13, Way::Replication)
}

#[test]
fn version_14() -> Result<()> {
    round_trip("pg14-files", 14, Way::Automatic)?;
    round_trip("pg14-sent", 14, Way::Replication)
}

#[test]
fn version_15() -> Result<()> {
    round_trip("pg15-files", 15, Way::Automatic)?;
    round_trip("pg15-sent", 15, Way::Replication)
}

#[test]
fn version_16() -> Result<()> {
    round_trip("pg16-files", 16, Way::Automatic)?;
    round_trip("pg16-sent", 16, Way::Replication)
}

#[test]
fn version_17() -> Result<()> {
    round_trip("pg17-files", 17, Way::Automatic)?;
    round_trip("pg17-sent", 17, Way::Replication)
}

#[test]
fn version_18() -> Result<()> {
    round_trip("pg18-files", 18, Way::Automatic)?;
    round_trip("pg18-sent", 18, Way::Replication)
}

/// The files of a restored data directory, but for the numbers of the log's segments.
fn files(folder: &Path) -> Result<BTreeSet<String>> {
    let (mut files, mut folders) = (BTreeSet::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            let shown = path.strip_prefix(folder)?.to_string_lossy().into_owned();
            let is_segment = shown.starts_with("pg_wal/") && shown.contains("00000001");
            if path.is_dir() {
                folders.push(path);
            }
            if !is_segment {
                files.insert(shown);
            }
        }
    }
    Ok(files)
}

#[test]
fn both_ways_give_one_layout_and_share_what_they_store() -> Result<()> {
    let Some(sandbox) = Sandbox::new("pg-layout", MAJOR, &Options::default())? else {
        return Ok(());
    };
    let space = sandbox.server.folder("space")?;
    let mut client = sandbox.client()?;
    client.batch_execute(&format!("create tablespace apart location '{}'", space.display()))?;
    client.batch_execute("create table far (i int) tablespace apart; checkpoint")?;
    let request = sandbox.request(&[]);
    let read = sandbox.back_up(Way::Automatic, &request)?;
    let sent = sandbox.back_up(Way::Replication, &request)?;
    let one = sandbox.restore(read.snapshot, "one")?.path;
    let two = sandbox.restore(sent.snapshot, "two")?.path;
    assert_eq!(files(&one)?, files(&two)?);
    assert!(sent.bytes_added * 4 < read.bytes_added, "{sent:?} after {read:?}");
    Ok(())
}
