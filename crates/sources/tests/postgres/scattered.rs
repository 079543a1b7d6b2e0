//! What an update of rows that lie scattered adds to a repository, beside restic.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use muster_repository::{
    backup::{BackupOptions, backup},
    environment::Environment,
    run::Run,
};
use muster_testkit::{
    peers::{self, Peer},
    postgres::Options,
};

use crate::common::{MAJOR, Sandbox};

/// Rows, as `pgbench` makes them.
const FILL: [&str; 4] = [
    "create table accounts (aid int primary key, bid int, abalance int, filler char(84))
        with (autovacuum_enabled = off)",
    "insert into accounts select i, i / 100000, 0, '' from generate_series(1, 300000) i",
    "vacuum accounts",
    "checkpoint",
];

/// One row in five hundred, chosen at random, the same each time.
const UPDATE: [&str; 3] = [
    "select setseed(0.42)",
    "update accounts set abalance = abalance + 1 where aid in
        (select 1 + (random() * 299999)::int from generate_series(1, 600))",
    "checkpoint",
];

/// One after another: several at once would be one transaction.
fn execute(sandbox: &Sandbox, statements: &[&str]) -> Result<()> {
    let mut client = sandbox.client()?;
    Ok(statements.iter().try_for_each(|statement| client.batch_execute(statement))?)
}

fn bytes_below(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        sum += match entry.file_type()?.is_dir() {
            true => bytes_below(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(sum)
}

/// Backs the tables up with both tools; the sizes of the two repositories.
fn back_up(sandbox: &Sandbox, restic: &Peer) -> Result<[u64; 2]> {
    let tables = sandbox.server.data().join("base");
    let theirs = sandbox.scratch.join("theirs");
    let mut command = restic.command();
    command.args(["backup", "-q"]).arg(&tables);
    command.env("RESTIC_REPOSITORY", &theirs).env("RESTIC_PASSWORD", "x");
    peers::run(&mut command)?.expect_success()?;
    let options = BackupOptions::new(vec![tables]);
    let report = backup(&sandbox.repository, options, &Environment::detect(), &Run::new())?;
    ensure!(report.problems.is_empty());
    Ok([bytes_below(&sandbox.scratch.join("repository"))?, bytes_below(&theirs)?])
}

#[test]
fn scattered_updates_add_at_most_half_of_what_restic_adds() -> Result<()> {
    let Some(restic) = peers::require("restic") else { return Ok(()) };
    let Some(mut sandbox) = Sandbox::new("pg-scattered", MAJOR, &Options::default())? else {
        return Ok(());
    };
    let mut init = restic.command();
    init.arg("init").env("RESTIC_REPOSITORY", sandbox.scratch.join("theirs"));
    peers::run(init.env("RESTIC_PASSWORD", "x"))?.expect_success()?;

    execute(&sandbox, &FILL)?;
    sandbox.server.stop()?;
    let [ours, theirs] = back_up(&sandbox, &restic)?;
    ensure!(ours * 10 <= theirs * 13, "at first {ours} bytes to restic's {theirs}");

    sandbox.server.start_again()?;
    execute(&sandbox, &UPDATE)?;
    sandbox.server.stop()?;
    let [ours_then, theirs_then] = back_up(&sandbox, &restic)?;
    let (added, restic_added) = (ours_then - ours, theirs_then - theirs);
    ensure!(added * 2 <= restic_added, "{added} bytes added to restic's {restic_added}");
    Ok(())
}
