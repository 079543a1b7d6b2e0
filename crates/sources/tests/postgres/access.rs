//! Who may take a backup, and over which connection.

use std::{fs, process::Command, time::Duration};

use anyhow::Result;
use muster_model::Fault;
use muster_repository::{environment::Environment, run::Run};
use muster_sources::{
    capture::Captured,
    postgres::{
        MarkerWriter, PostgresError, PostgresSource, Way, back_up_by, server::prepare_with,
    },
};
use muster_testkit::{
    peers,
    postgres::{Options, Running, free_port, give},
    wait_for,
};

use crate::common::{MAJOR, Sandbox};

fn back_up(sandbox: &Sandbox, way: Way, url: &str) -> Result<Captured, PostgresError> {
    let (source, environment) = (PostgresSource::new(url), Environment::detect());
    let request = sandbox.request(&["orders"]);
    back_up_by(way, &sandbox.repository, &source, &request, &environment, &Run::new())
}

/// What the guide grants is enough, and without it the error says what is missing.
#[test]
fn a_role_with_few_rights_is_enough() -> Result<()> {
    let access = "host all,replication all 127.0.0.1/32 trust\n".to_owned();
    let options = Options { access: Some(access), ..Options::default() };
    let Some(sandbox) = Sandbox::new("pg-role", MAJOR, &options)? else { return Ok(()) };
    sandbox.client()?.batch_execute(
        "create table orders as select generate_series(1, 9) as id;
         create role nobody_special login;
         create role backup login replication;
         grant pg_read_all_settings to backup;
         grant execute on function pg_backup_start(text, boolean), pg_backup_stop(boolean)
         to backup;
         grant select on orders to backup;
         create table muster_marker
         (writer uuid not null, n bigint not null, at timestamptz not null);
         grant select, insert, delete on muster_marker to backup;",
    )?;
    let url =
        |role: &str| format!("postgresql://{role}@127.0.0.1:{}/postgres", sandbox.server.port());
    for way in [Way::Automatic, Way::Replication] {
        let captured = back_up(&sandbox, way, &url("backup"))?;
        assert_eq!((captured.notices, captured.left_out), (vec![], vec![]));
        assert_eq!(captured.rows["orders"], (9, 9));
        let error = back_up(&sandbox, way, &url("nobody_special")).unwrap_err();
        assert_eq!(error.code(), "postgres-denied", "{error}");
    }
    MarkerWriter::new(&PostgresSource::new(url("backup")))?.write()?;
    Ok(())
}

#[test]
fn both_protocols_speak_tls_and_verify_when_told_to() -> Result<()> {
    let Some(openssl) = peers::require("openssl") else { return Ok(()) };
    drop(openssl);
    let access = "hostssl all,replication all 127.0.0.1/32 trust\n".to_owned();
    let Some(mut sandbox) = Sandbox::new("pg-tls", MAJOR, &Options::default())? else {
        return Ok(());
    };
    sandbox.client()?.batch_execute("create table orders as select 1 as id")?;
    sandbox.server.stop()?;
    let [key, certificate] = ["server.key", "server.crt"].map(|name| sandbox.server.join(name));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=db"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    give(&key)?;
    let conf = sandbox.server.data().join("postgresql.conf");
    let lines = format!(
        "{}\nssl = on\nssl_key_file = '{}'\nssl_cert_file = '{}'\n",
        fs::read_to_string(&conf)?,
        key.display(),
        certificate.display()
    );
    fs::write(&conf, lines)?;
    fs::write(sandbox.server.data().join("pg_hba.conf"), access)?;
    sandbox.server.start_again()?;
    let url = |words: &str| sandbox.server.url(&format!("postgres?{words}"));
    let roots = format!("sslmode=verify-full&sslrootcert={}", certificate.display());
    let other = sandbox.scratch.join("other.crt");
    fs::write(&other, "no certificate")?;
    let wrong = format!("sslmode=verify-full&sslrootcert={}", other.display());
    for way in [Way::Automatic, Way::Replication] {
        for words in ["sslmode=require", "sslmode=prefer", &roots] {
            let captured = back_up(&sandbox, way, &url(words))?;
            assert_eq!(captured.rows["orders"], (1, 1), "{words}");
        }
        let error = back_up(&sandbox, way, &url("sslmode=disable")).unwrap_err();
        assert_eq!(error.code(), "postgres-denied", "{error}");
        let error = back_up(&sandbox, way, &url(&wrong)).unwrap_err();
        assert_eq!(error.code(), "postgres-url", "{error}");
    }
    // By this name the certificate is not the server's.
    let localhost = url(&roots).replace("127.0.0.1", "localhost");
    let error = back_up(&sandbox, Way::Automatic, &localhost).unwrap_err();
    assert_eq!(error.code(), "postgres-unreachable", "{error}");
    Ok(())
}

#[test]
fn a_socket_in_a_folder_does_for_both_protocols() -> Result<()> {
    let Some(mut sandbox) = Sandbox::new("pg-socket", MAJOR, &Options::default())? else {
        return Ok(());
    };
    sandbox.client()?.batch_execute("create table orders as select 1 as id")?;
    sandbox.server.stop()?;
    let (conf, folder) = (sandbox.server.data().join("postgresql.conf"), sandbox.server.join(""));
    let line = format!("\nunix_socket_directories = '{}'\n", folder.display());
    fs::write(&conf, fs::read_to_string(&conf)? + &line)?;
    sandbox.server.start_again()?;
    let (folder, port) = (folder.display(), sandbox.server.port());
    let words = format!("host={folder} port={port} user=postgres dbname=postgres");
    for way in [Way::Automatic, Way::Replication] {
        assert_eq!(back_up(&sandbox, way, &words)?.rows["orders"], (1, 1));
    }
    Ok(())
}

#[test]
fn a_standby_is_refused() -> Result<()> {
    let Some(sandbox) = Sandbox::new("pg-standby", MAJOR, &Options::default())? else {
        return Ok(());
    };
    let captured = sandbox.back_up(Way::Automatic, &sandbox.request(&[]))?;
    let data = sandbox.restore(captured.snapshot, "standby")?.path;
    let mut launch = prepare_with(&sandbox.programs(), &data, free_port()?, None)?;
    fs::write(data.join("standby.signal"), "")?;
    launch.argv.extend(["-c".to_owned(), "hot_standby=on".to_owned()]);
    let (program, arguments) = launch.argv.split_first().unwrap();
    let mut command = Command::new(program);
    command.args(arguments);
    let _running = Running::start(command, &sandbox.scratch.join("standby.log"))?;
    let error = wait_for("the standby to answer", Duration::from_secs(30), || {
        let error = back_up(&sandbox, Way::Automatic, &launch.url).unwrap_err();
        (error.code() != "postgres-unreachable").then_some(error)
    })?;
    assert_eq!(error.code(), "postgres-standby", "{error}");
    Ok(())
}
