//! What goes wrong leaves no snapshot, no slot and no secret, and says what it was.

use std::{fs, path::Path, sync::Arc, thread, time::Duration};

use anyhow::Result;
use muster_model::{Class, Fault};
use muster_repository::{
    environment::Environment, restore::Overwrite, run::Run, storage::FileKind,
};
use muster_sources::postgres::{
    PostgresError, PostgresSource, Way, back_up_by, count_rows, read_cluster, restore_into,
    server::prepare_with,
};
use muster_testkit::{
    postgres::{Options, Server, free_port},
    wait_for,
};
use zeroize::Zeroizing;

use crate::{
    common::{Load, MAJOR, Sandbox, assert_whole},
    gate::Gate,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// All ways to authenticate by a password, for statements and for replication.
#[test]
fn passwords_are_used_and_never_told() -> Result<()> {
    let access = "host all all 127.0.0.1/32 trust\n".to_owned();
    let settings = vec!["password_encryption = 'md5'".to_owned()];
    let options = Options { access: Some(access), settings, ..Options::default() };
    let Some(mut sandbox) = Sandbox::new("pg-passwords", MAJOR, &options)? else { return Ok(()) };
    sandbox.client()?.batch_execute(
        "create role hashed superuser login password 'geheim';
         set password_encryption = 'scram-sha-256';
         create role salted superuser login password 'geheim';",
    )?;
    let access = "host all,replication hashed 127.0.0.1/32 md5\n\
                  host all,replication salted 127.0.0.1/32 scram-sha-256\n\
                  host all,replication postgres 127.0.0.1/32 password\n";
    sandbox.client()?.batch_execute("alter role postgres password 'geheim'")?;
    fs::write(sandbox.server.data().join("pg_hba.conf"), access)?;
    sandbox.server.stop()?;
    sandbox.server.start_again()?;
    for role in ["hashed", "salted", "postgres"] {
        let url = format!("postgresql://{role}@127.0.0.1:{}/postgres", sandbox.server.port());
        let back_up = |password: Option<&str>| {
            let password = password.map(|text| Zeroizing::new(text.to_owned()));
            let source = PostgresSource { url: url.clone(), password };
            let request = sandbox.request(&[]);
            let (repository, environment) = (&sandbox.repository, Environment::detect());
            back_up_by(Way::Replication, repository, &source, &request, &environment, &Run::new())
        };
        let captured = back_up(Some("geheim"))?;
        assert!(captured.left_out.is_empty());
        for wrong in [Some("geheim-not"), None] {
            let error = back_up(wrong).unwrap_err();
            assert_eq!((error.class(), error.code()), (Class::Denied, "postgres-denied"));
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
        }
    }
    assert_eq!(sandbox.snapshots()?, 3);
    Ok(())
}

#[test]
fn a_server_that_is_not_there_is_told_from_one_that_denies() -> Result<()> {
    let url = format!("postgresql://ana:geheim@127.0.0.1:{}/db", free_port()?);
    let error = count_rows(&PostgresSource::new(url), "t", &Run::new()).unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Transient, "postgres-unreachable"));
    assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
    Ok(())
}

/// Starts a backup, does something while its files are read, and gives what became of it.
fn disturbed(
    sandbox: &mut Sandbox,
    way: Way,
    run: &Run,
    disturb: impl FnOnce(&mut Server),
) -> Result<PostgresError> {
    // More than fits between the reader and the store.
    sandbox.client()?.batch_execute(
        "create table bulk as select i, md5(i::text) || md5((i + 1)::text) as filler \
         from generate_series(1, 1500000) i",
    )?;
    let request = sandbox.request(&[]);
    let source = sandbox.source("postgres");
    let gate = Arc::new(Gate::new(Arc::clone(sandbox.repository.storage())));
    let repository = sandbox.repository.clone().on(Arc::clone(&gate) as _);
    let error = thread::scope(|scope| -> Result<PostgresError> {
        let backup = scope.spawn(move || {
            back_up_by(way, &repository, &source, &request, &Environment::detect(), run)
        });
        let reading = wait_for("the backup to read", PATIENCE, || {
            (run.progress.read().bytes_done > 1 << 20).then_some(())
        });
        disturb(&mut sandbox.server);
        gate.open();
        let result = backup.join().map_err(|_| anyhow::anyhow!("the backup panicked"))?;
        reading?;
        Ok(result.expect_err("it was disturbed"))
    })?;
    assert_eq!(sandbox.snapshots()?, 0);
    Ok(error)
}

#[test]
fn a_server_that_stops_leaves_no_snapshot() -> Result<()> {
    for (name, way) in [("pg-stop-files", Way::Automatic), ("pg-stop-sent", Way::Replication)] {
        let Some(mut sandbox) = Sandbox::new(name, MAJOR, &Options::default())? else {
            return Ok(());
        };
        let error = disturbed(&mut sandbox, way, &Run::new(), |server| server.crash().unwrap())?;
        assert_eq!((error.class(), error.code()), (Class::Transient, "postgres-lost"), "{error}");
    }
    Ok(())
}

#[test]
fn a_backup_that_is_cancelled_leaves_nothing() -> Result<()> {
    for (name, way) in [("pg-cancel-files", Way::Automatic), ("pg-cancel-sent", Way::Replication)] {
        let Some(mut sandbox) = Sandbox::new(name, MAJOR, &Options::default())? else {
            return Ok(());
        };
        let run = Run::new();
        let error = disturbed(&mut sandbox, way, &run, |_| run.cancel.request("enough"))?;
        assert_eq!(error.class(), Class::Interrupted, "{error}");
        let mut client = sandbox.client()?;
        wait_for("the slot and the session to be gone", PATIENCE, || {
            let statement = "select (select count(*) from pg_replication_slots) \
                             + (select count(*) from pg_stat_activity \
                                where application_name = 'muster')";
            let left: i64 = client.query_one(statement, &[]).ok()?.get(0);
            (left == 0).then_some(())
        })?;
    }
    Ok(())
}

/// Backs a server up while the path that it names is, here, `other`.
fn answer_beside(sandbox: &Sandbox, other: &Path) -> Result<i32> {
    let (data, away) = (sandbox.server.data(), sandbox.server.join("away"));
    // A server works in its folder wherever that goes; the name is now another's.
    fs::rename(&data, &away)?;
    std::os::unix::fs::symlink(other, &data)?;
    let captured = sandbox.back_up(Way::Automatic, &sandbox.request(&["mine"]));
    fs::remove_file(&data)?;
    fs::rename(&away, &data)?;
    let snapshot = captured?.snapshot;
    let revived = sandbox.revive(snapshot, &snapshot.to_hex()[..8])?;
    Ok(revived.client()?.query_one("select answer from mine", &[])?.get(0))
}

/// The path that the server names is, here, another server's: its files are not taken.
#[test]
fn files_of_another_server_are_not_taken() -> Result<()> {
    let options = Options::default();
    let Some(sandbox) = Sandbox::new("pg-mine", MAJOR, &options)? else { return Ok(()) };
    let mut client = sandbox.client()?;
    client.batch_execute("create table mine as select 41 as answer")?;
    // As a standby's would be: the same identifier, an older content.
    let twin = sandbox.back_up(Way::Replication, &sandbox.request(&[]))?;
    let twin = sandbox.restore(twin.snapshot, "twin")?.path;
    client.batch_execute("update mine set answer = 42")?;
    assert_eq!(answer_beside(&sandbox, &twin)?, 42);
    let other = Server::start("pg-other", sandbox.server.programs(), &options)?;
    assert_eq!(answer_beside(&sandbox, &other.data())?, 42);
    Ok(())
}

#[test]
fn without_a_slot_the_log_is_examined_and_the_lack_told() -> Result<()> {
    let settings = vec!["max_replication_slots = 0".to_owned()];
    let options = Options { settings, ..Options::default() };
    let Some(sandbox) = Sandbox::new("pg-no-slot", MAJOR, &options)? else { return Ok(()) };
    for (name, way) in [("files", Way::Automatic), ("sent", Way::Replication)] {
        let captured = sandbox.back_up(way, &sandbox.request(&[]))?;
        let codes: Vec<_> = captured.notices.iter().map(|notice| notice.code).collect();
        assert_eq!(codes, ["postgres-no-slot"]);
        let indexed = sandbox.repository.load_index(&Run::new())?;
        let cluster = read_cluster(&indexed, captured.snapshot)?;
        assert_eq!(cluster.owner.is_some(), way == Way::Automatic);
        drop(sandbox.revive(captured.snapshot, name)?);
    }
    Ok(())
}

#[test]
fn two_backups_at_once_are_both_whole() -> Result<()> {
    let Some(sandbox) = Sandbox::new("pg-two", MAJOR, &Options::default())? else { return Ok(()) };
    Load::prepare(&mut sandbox.client()?)?;
    let load = Load::start(&sandbox.server.url("postgres"))?;
    let (one, two) = thread::scope(|scope| {
        let one = scope.spawn(|| sandbox.back_up(Way::Automatic, &sandbox.request(&[])));
        let two = sandbox.back_up(Way::Replication, &sandbox.request(&[]));
        (one.join().unwrap(), two)
    });
    let (one, two) = (one?, two?);
    let acknowledged = load.stop()?;
    for (name, captured) in [("one", one), ("two", two)] {
        let revived = sandbox.revive(captured.snapshot, name)?;
        assert_whole(&mut revived.client()?, &acknowledged, captured.data_time)?;
    }
    Ok(())
}

#[test]
fn a_target_that_holds_something_is_refused_and_damage_is_found() -> Result<()> {
    let Some(sandbox) = Sandbox::new("pg-target", MAJOR, &Options::default())? else {
        return Ok(());
    };
    let captured = sandbox.back_up(Way::Automatic, &sandbox.request(&[]))?;
    let restored = sandbox.restore(captured.snapshot, "target")?;
    let indexed = sandbox.repository.load_index(&Run::new())?;
    let again = |overwrite| {
        restore_into(&indexed, captured.snapshot, &restored.path, overwrite, None, &Run::new())
    };
    let error = again(Overwrite::Refuse).unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Denied, "target-not-empty"));

    // What is there and not in the snapshot goes: a stray segment of a log would be replayed.
    let stray = restored.path.join("pg_wal/0000000100000000000000FF");
    fs::write(&stray, "stray")?;
    fs::write(restored.path.join("PG_VERSION"), "9.6")?;
    let error = muster_sources::postgres::verify_restored(&restored.path, &Run::new());
    let error = error.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Corrupt, "postgres-manifest-differs"));
    assert!(error.to_string().contains("PG_VERSION"), "{error}");
    drop(again(Overwrite::Always)?);
    assert!(!stray.exists());
    sandbox.verify(&restored.path)
}

/// What an original was told by `ALTER SYSTEM` does nothing on the restored server.
#[test]
fn a_restored_server_is_apart_from_the_original() -> Result<()> {
    let marker = "archived-by-the-restored-server";
    let Some(sandbox) = Sandbox::new("pg-apart", MAJOR, &Options::default())? else {
        return Ok(());
    };
    let touched = sandbox.server.join(marker);
    sandbox
        .client()?
        .batch_execute("alter system set primary_conninfo = 'host=nowhere password=geheim'")?;
    sandbox.client()?.batch_execute(&format!(
        "alter system set recovery_end_command = 'touch {}'",
        touched.display()
    ))?;
    let captured = sandbox.back_up(Way::Automatic, &sandbox.request(&[]))?;
    let data = sandbox.restore(captured.snapshot, "apart")?.path;
    drop(prepare_with(&sandbox.programs(), &data, free_port()?, None)?);
    // Also when it is restored over a target that was prepared before.
    let indexed = sandbox.repository.load_index(&Run::new())?;
    let (snapshot, overwrite) = (captured.snapshot, Overwrite::Always);
    drop(restore_into(&indexed, snapshot, &data, overwrite, None, &Run::new())?);
    assert!(fs::read_to_string(data.join("postgresql.auto.conf"))?.contains("geheim"));
    fs::write(data.join("standby.signal"), "")?;
    let launch = prepare_with(&sandbox.programs(), &data, free_port()?, None)?;
    if rustix::process::geteuid().is_root() {
        assert_ne!(launch.user.as_ref().map(|user| user.uid), Some(0));
    }
    let log = sandbox.scratch.join("apart.log");
    let revived = crate::common::Revived::start(launch, &log)?;
    let mut client = revived.client()?;
    let mut setting = |name: &str| -> Result<String> {
        Ok(client.query_one("select current_setting($1)", &[&name])?.get(0))
    };
    assert_eq!(setting("primary_conninfo")?, "");
    assert_eq!(setting("archive_mode")?, "off");
    assert_eq!(setting("listen_addresses")?, "127.0.0.1");
    assert_eq!(setting("max_logical_replication_workers")?, "0");
    assert!(!touched.exists());
    Ok(())
}

#[test]
fn what_the_repository_has_lost_is_told_and_taken_again() -> Result<()> {
    let Some(sandbox) = Sandbox::new("pg-lost", MAJOR, &Options::default())? else { return Ok(()) };
    sandbox.client()?.batch_execute("create table t as select generate_series(1, 1000) as id")?;
    let request = sandbox.request(&[]);
    assert_eq!(sandbox.back_up(Way::Replication, &request)?.notices, []);
    for pack in sandbox.repository.storage().list(FileKind::Pack)? {
        sandbox.repository.storage().delete(pack.file)?;
    }
    let captured = sandbox.back_up(Way::Replication, &request)?;
    let codes: Vec<_> = captured.notices.iter().map(|notice| notice.code).collect();
    assert_eq!(codes, ["packs-gone"]);
    let revived = sandbox.revive(captured.snapshot, "restored")?;
    let count: i64 = revived.client()?.query_one("select count(*) from t", &[])?.get(0);
    assert_eq!(count, 1000);
    Ok(())
}
