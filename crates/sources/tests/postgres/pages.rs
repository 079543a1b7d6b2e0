//! Damage on the server's own disk is found while it is backed up.

use std::{fs::OpenOptions, os::unix::fs::FileExt as _, path::PathBuf};

use anyhow::Result;
use muster_repository::backup::PARTIAL_TAG;
use muster_sources::postgres::{
    Way,
    page_checksum::{PageState, look},
};
use muster_testkit::postgres::Options;

use crate::common::{MAJOR, Sandbox};

const PAGE: usize = 8192;

/// Makes a table and gives the path of its file, relative to the data directory.
fn table(sandbox: &Sandbox) -> Result<PathBuf> {
    let mut client = sandbox.client()?;
    client.batch_execute(
        "create table victim (id int, filler text);
         insert into victim select i, repeat('y', 500) from generate_series(1, 500) i;
         checkpoint",
    )?;
    let path: String = client.query_one("select pg_relation_filepath('victim')", &[])?.get(0);
    Ok(path.into())
}

fn a_flipped_byte_makes_the_snapshot_partial(name: &str, way: Way) -> Result<()> {
    let Some(mut sandbox) = Sandbox::new(name, MAJOR, &Options::default())? else { return Ok(()) };
    let path = table(&sandbox)?;
    // The server must not have the page in memory, from where it would write it again.
    sandbox.server.stop()?;
    let file = OpenOptions::new().read(true).write(true).open(sandbox.server.data().join(&path))?;
    let mut page = [0; PAGE];
    file.read_exact_at(&mut page, 3 * PAGE as u64)?;
    assert_eq!(look(&page, 3), PageState::Sound, "the server agrees about checksums");
    let at = 3 * PAGE + 4000;
    file.write_all_at(&[page[4000] ^ 1], at as u64)?;
    drop(file);
    sandbox.server.start_again()?;

    let captured = sandbox.back_up(way, &sandbox.request(&[]))?;
    let told = captured.left_out.join("; ");
    assert!(told.contains(path.to_str().unwrap()), "{told}");
    assert!(told.contains("block 3"), "{told}");
    let snapshot = sandbox.repository.snapshot(captured.snapshot)?;
    assert!(snapshot.tags.contains(&PARTIAL_TAG.to_owned()), "{:?}", snapshot.tags);
    Ok(())
}

#[test]
fn a_flipped_byte_is_found_by_reading() -> Result<()> {
    a_flipped_byte_makes_the_snapshot_partial("pg-flip-files", Way::Automatic)
}

#[test]
fn a_flipped_byte_is_found_by_the_server() -> Result<()> {
    a_flipped_byte_makes_the_snapshot_partial("pg-flip-sent", Way::Replication)
}
