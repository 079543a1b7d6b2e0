//! `sql` probes against a real PostgreSQL server, started as a drill would.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    time::Duration,
};

use muster_drivers::{
    isolation::free_port,
    probe::ProbeSecrets,
    process::{Child, Launch, RunEnd, tail},
};
use muster_model::{Light, ProbeCheck, probe::Database};
use muster_testkit::Scratch;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::common::{SOON, ask, ask_with, expect, probe, script, sql, start};

const BIN: &str = "/usr/lib/postgresql/15/bin";
/// A certificate of its own, as a server without an authority has.
const CERTIFICATE: &str = "openssl req -new -x509 -days 7 -nodes -subj /CN=muster -keyout key \
    -out cert -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
const PASSWORD: &str = "s3cr3t@/";

struct Server {
    child: Child,
    port: u16,
    scratch: Scratch,
}

impl Server {
    /// A server with a password, or nothing where PostgreSQL is not installed.
    async fn start() -> Option<Self> {
        if !Path::new(BIN).exists() {
            let required = std::env::var("MUSTER_TEST_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|word| word.trim() == "all"), "{BIN} is missing");
            return None;
        }
        let scratch = Scratch::new("postgres").unwrap();
        let dir = scratch.join("dir");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        let user = is_root().then(|| own(&dir));
        fs::write(dir.join("password"), PASSWORD).unwrap();
        fs::set_permissions(dir.join("password"), fs::Permissions::from_mode(0o644)).unwrap();
        let run = |text: String| Launch { user: user.clone(), ..script(&dir, &text) };
        let text = format!(
            "{CERTIFICATE} && {BIN}/initdb -D data -U ana --auth=scram-sha-256 --pwfile=password --no-sync -E UTF8"
        );
        let mut initdb = start(&run(text)).await;
        let RunEnd::Exited(status) = initdb.run_to_end(SOON).await.unwrap() else { panic!() };
        assert!(status.success(), "{:?}", tail(&dir.join("log"), 20));
        let port = free_port().unwrap();
        let text = format!(
            "exec {BIN}/postgres -D data -p {port} -k '' -c listen_addresses=127.0.0.1 -c fsync=off \
             -c ssl=on -c ssl_cert_file=../cert -c ssl_key_file=../key"
        );
        let child = start(&run(text)).await;
        let server = Self { child, port, scratch };
        server.wait(&dir.join("log")).await;
        Some(server)
    }

    async fn wait(&self, log: &Path) {
        let deadline = std::time::Instant::now() + SOON;
        while ask(self.check("select 1", json!(1)), SOON).await.light != Light::Green {
            assert!(std::time::Instant::now() < deadline, "{:?}", tail(log, 20));
            tokio::task::yield_now().await;
        }
    }

    fn url(&self) -> String {
        format!("postgresql://ana:s3cr3t%40%2F@127.0.0.1:{}/postgres", self.port)
    }

    fn check(&self, query: &str, expected: Value) -> ProbeCheck {
        sql(Database::Postgres(self.url()), query, expected)
    }

    async fn end(mut self) {
        assert!(self.child.end(SOON).await.unwrap().is_complete());
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn own(dir: &Path) -> String {
    let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
    chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    user.name
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_is_questioned() {
    let Some(server) = Server::start().await else { return };
    answers_are_compared(&server).await;
    nothing_is_changed(&server).await;
    time_is_kept(&server).await;
    passwords_come_from_secrets(&server).await;
    certificates_are_verified_on_request(&server).await;
    server.end().await;
}

async fn answers_are_compared(server: &Server) {
    let green = async |query: &str, expected: Value| {
        expect(server.check(query, expected), Light::Green, "answered").await;
    };
    green("select count(*) > 0 and sum(a) = 0 from (values (1.5), (-1.5)) as t (a)", json!(true))
        .await;
    green("select sum(a) from (values (1.50), (-1.5)) as t (a)", json!(0)).await;
    green("select 12345678901234567890.5::numeric", json!("12345678901234567890.5")).await;
    green("select 1 union all select 2 limit 1 ; ", json!(1)).await;
    green("select 0.1::float8", json!(0.1)).await;
    green("select 1e20::float8", json!(1e20)).await;
    green("select 'x'::text, 2", json!("x")).await;
    green("select 42::bigint", json!(42)).await;
    green("select null::int", json!(null)).await;
    green("select '{\"a\": 1}'::jsonb", json!({"a": 1})).await;
    green("select 'NaN'::numeric", json!("NaN")).await;
    green("with t as (select false as f) select f from t", json!(false)).await;
    let red = async |query: &str, expected: Value, detail: &str| {
        expect(server.check(query, expected), Light::Red, detail).await;
    };
    red("select 1", json!(2), "answered 1, expected 2").await;
    red("select 't'::text", json!(true), "answered 't', expected true").await;
    red("select 1 where false", json!(1), "no row").await;
    // Not all of them are computed.
    red("select generate_series(1, 1000000000000)", json!(1), "several rows").await;
    red("select * from nothing", json!(1), "relation \"nothing\" does not exist (42P01)").await;
    red("select 1; select 1", json!(1), "multiple commands").await;
    red("select 1/0", json!(1), "division by zero").await;
}

async fn nothing_is_changed(server: &Server) {
    for query in ["create table t (a int)", "select nextval('s')", "commit", "checkpoint"] {
        expect(server.check(query, json!(1)), Light::Red, "").await;
    }
    let counted = "select count(*) from pg_class where relname in ('t', 's')";
    expect(server.check(counted, json!(0)), Light::Green, "").await;
    let setting = "select current_setting('transaction_read_only')";
    expect(server.check(setting, json!("on")), Light::Green, "").await;
    let back = "select set_config('transaction_read_only', 'off', false)";
    expect(server.check(back, json!("off")), Light::Red, "read-write").await;
}

async fn time_is_kept(server: &Server) {
    let limit = Duration::from_millis(500);
    let sample = ask(server.check("select pg_sleep(1000)", json!("")), limit).await;
    assert_eq!(sample.light, Light::Red);
    assert!(sample.took < SOON / 2);
    // The server gave up as well.
    let sleeping = "select count(*) = 0 from pg_stat_activity where query like '%pg_sleep(1000)%'
        and pid <> pg_backend_pid()";
    let deadline = std::time::Instant::now() + SOON;
    while ask(server.check(sleeping, json!(true)), SOON).await.light != Light::Green {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}

async fn passwords_come_from_secrets(server: &Server) {
    let url = format!("postgresql://ana@127.0.0.1:{}/postgres?sslmode=prefer", server.port);
    let check = sql(Database::Postgres(url), "select 's3cr3t@/ leaks'", json!("x"));
    let with = |password: &str| ProbeSecrets {
        password: Some(Zeroizing::new(password.to_owned())),
        ..Default::default()
    };
    let sample = ask_with(check.clone(), SOON, &with(PASSWORD)).await;
    assert_eq!(sample.detail, "answered '*** leaks', expected \"x\"");
    let sample = ask_with(check.clone(), SOON, &with("wrong")).await;
    assert_eq!(sample.light, Light::Red);
    assert!(sample.detail.contains("authentication failed"), "{}", sample.detail);
    let sample = ask(check, SOON).await;
    assert!(sample.detail.contains("password"), "{}", sample.detail);
    assert_eq!(probe(server.check("", json!(1)), SOON).name, "probe");
}

async fn certificates_are_verified_on_request(server: &Server) {
    let dir = server.scratch.join("dir");
    let with = |parameters: &str| {
        let url = format!("{}?{parameters}", server.url());
        let query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        sql(Database::Postgres(url), query, json!(true))
    };
    let root = |name: &str| format!("sslmode=verify-full&sslrootcert={}/{name}", dir.display());
    expect(with("sslmode=require"), Light::Green, "").await;
    expect(with("sslmode=prefer"), Light::Green, "").await;
    expect(with("sslmode=disable"), Light::Red, "answered false").await;
    expect(with(&root("cert")), Light::Green, "").await;
    let other = CERTIFICATE.replace("-out cert", "-out other");
    let mut made = start(&script(&server.scratch.join("dir"), &other)).await;
    assert!(made.wait().await.unwrap().success());
    expect(with(&root("other")), Light::Red, "certificate").await;
    expect(with(&root("missing")), Light::Red, "sslrootcert").await;
    let elsewhere = with(&root("cert"));
    let ProbeCheck::Sql { database: Database::Postgres(url), query, expect: value } = elsewhere
    else {
        panic!()
    };
    let other_name = sql(Database::Postgres(url.replace("127.0.0.1", "localhost")), &query, value);
    expect(other_name, Light::Red, "certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_red() {
    let url = format!("postgresql://ana@127.0.0.1:{}/x", free_port().unwrap());
    expect(sql(Database::Postgres(url), "select 1", json!(1)), Light::Red, "refused").await;
    let verified = "postgresql://ana@127.0.0.1/x?sslmode=verify-full".to_owned();
    expect(sql(Database::Postgres(verified), "select 1", json!(1)), Light::Red, "sslrootcert")
        .await;
}
