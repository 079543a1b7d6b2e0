//! A backup that is killed leaves no snapshot, and the next one clears up.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use muster_repository::{
    environment::Environment, repository::Repository, run::Run, storage::LocalStorage,
};
use muster_testkit::wait_for;
use rusqlite::Connection;

use crate::common::{PASSWORD, Sandbox, database, request};

/// Names the folder in which the process shall back up; it is this test that is started again.
const FOLDER: &str = "MUSTER_TEST_BACK_UP_IN";

/// Does nothing unless [`FOLDER`] says where.
#[test]
fn back_up_where_the_environment_says() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let storage = Arc::new(LocalStorage::new(folder.join("repository")));
    let repository = Repository::open(storage, PASSWORD.as_bytes(), None).unwrap();
    let request = request(&folder.join("staging"), "point-1");
    let (environment, run) = (Environment::detect(), Run::new());
    let source = database(&folder.join("big.db"));
    drop(source.back_up(&repository, &request, &environment, &run).unwrap());
}

#[test]
fn a_killed_backup_leaves_no_snapshot_and_the_next_one_clears_up() {
    let sandbox = Sandbox::new("killed");
    let path = sandbox.join("big.db");
    let open = Connection::open(&path).unwrap();
    // Takes far longer to copy, check and store than it takes to see the copy's folder.
    let fill = "PRAGMA synchronous=OFF; CREATE TABLE noise AS WITH RECURSIVE n(i) AS
        (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1600) SELECT randomblob(60000) AS b FROM n";
    open.execute_batch(fill).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::back_up_where_the_environment_says"])
        .env(FOLDER, sandbox.scratch.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let copy_is_there = || {
        let entries = fs::read_dir(sandbox.join("staging")).unwrap();
        let mut copies = entries.map(|entry| entry.unwrap().path().join("copy.db"));
        copies.any(|copy| fs::metadata(copy).is_ok_and(|found| found.len() > 1 << 20)).then_some(())
    };
    wait_for("the copy to be begun", Duration::from_secs(60), copy_is_there).unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert_eq!(sandbox.snapshots(), 0);
    assert!(!sandbox.is_staging_empty());

    open.execute_batch("DROP TABLE noise; VACUUM; CREATE TABLE orders(amount)").unwrap();
    let captured = sandbox.back_up(&database(&path));
    assert_eq!(sandbox.snapshots(), 1);
    drop(sandbox.restore(captured.snapshot, &sandbox.join("t")));
}
