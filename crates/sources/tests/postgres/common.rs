//! What the tests share: a repository beside a server, a load, a way back.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use ::postgres::{Client, NoTls};
use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use muster_model::BackupKind;
use muster_repository::{
    environment::Environment,
    format::{config::Version, key_file::Cost},
    id::SnapshotId,
    repository::{InitOptions, Repository},
    restore::Overwrite,
    run::Run,
    storage::LocalStorage,
};
use muster_sources::{
    capture::{Captured, Request, Restored},
    postgres::{
        PostgresError, PostgresSource, Programs, Way, back_up_by, restore_into,
        server::{Launch, prepare_with, ready},
    },
};
use muster_testkit::{
    Scratch,
    postgres::{self, Options, Running, Server},
    wait_for,
};

/// The version that most tests use: Debian's.
pub(crate) const MAJOR: u32 = 15;

/// A server, and a repository to back it up into.
pub(crate) struct Sandbox {
    pub(crate) server: Server,
    pub(crate) repository: Repository,
    pub(crate) scratch: Scratch,
    pub(crate) major: u32,
}

impl Sandbox {
    /// `None` when the version is not installed, and the test is skipped.
    pub(crate) fn new(name: &str, major: u32, options: &Options) -> Result<Option<Self>> {
        let Some(programs) = postgres::require(major) else { return Ok(None) };
        let server = Server::start(name, &programs, options)?;
        let scratch = Scratch::new(name)?;
        let init = InitOptions {
            version: Version::V2,
            polynomial: None,
            cost: Cost::FOR_TESTS,
            author: Environment::detect().author(),
        };
        let storage = Arc::new(LocalStorage::new(scratch.join("repository")));
        let repository = Repository::init(storage, b"correct horse", init)?;
        Ok(Some(Self { server, repository, scratch, major }))
    }

    pub(crate) fn source(&self, database: &str) -> PostgresSource {
        PostgresSource::new(self.server.url(database))
    }

    pub(crate) fn request(&self, count_rows: &[&str]) -> Request {
        Request {
            service: "orders".to_owned(),
            data: "db".to_owned(),
            point: "p1".to_owned(),
            kind: BackupKind::Incremental,
            staging: self.scratch.path().to_owned(),
            count_rows: count_rows.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    pub(crate) fn back_up(&self, way: Way, request: &Request) -> Result<Captured, PostgresError> {
        self.back_up_watched(way, request, &Run::new())
    }

    pub(crate) fn back_up_watched(
        &self,
        way: Way,
        request: &Request,
        run: &Run,
    ) -> Result<Captured, PostgresError> {
        let (source, environment) = (self.source("postgres"), Environment::detect());
        back_up_by(way, &self.repository, &source, request, &environment, run)
    }

    pub(crate) fn client(&self) -> Result<Client> {
        client(&self.server.url("postgres"))
    }

    pub(crate) fn programs(&self) -> Programs {
        Programs { folder: self.server.programs().to_owned(), major: self.major }
    }

    pub(crate) fn restore(&self, snapshot: SnapshotId, name: &str) -> Result<Restored> {
        let indexed = self.repository.load_index(&Run::new())?;
        let target = self.scratch.join(name);
        let restored =
            restore_into(&indexed, snapshot, &target, Overwrite::Refuse, None, &Run::new())?;
        ensure!(restored.left_out.is_empty(), "{:?}", restored.left_out);
        Ok(restored)
    }

    /// Restores a snapshot and starts a server on it.
    pub(crate) fn revive(&self, snapshot: SnapshotId, name: &str) -> Result<Revived> {
        let data = self.restore(snapshot, name)?.path;
        let port = postgres::free_port()?;
        let launch = prepare_with(&self.programs(), &data, port, None)?;
        Revived::start(launch, &self.scratch.join(format!("{name}.log")))
    }

    /// Runs `pg_verifybackup` on a restored data directory, where it understands the manifest.
    pub(crate) fn verify(&self, data: &Path) -> Result<()> {
        let tool = PathBuf::from("/usr/lib/postgresql/15/bin/pg_verifybackup");
        if self.major > 16 || !tool.exists() {
            return Ok(());
        }
        let mut command = Command::new(tool);
        if self.major != 15 {
            // It can read the log of its own version only.
            command.arg("--no-parse-wal");
        }
        let output = command.arg(data).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "pg_verifybackup: {said}");
        Ok(())
    }

    /// Runs `pg_amcheck` on a server, where it is installed for the version.
    pub(crate) fn amcheck(&self, url: &str) -> Result<()> {
        let tool = self.server.programs().join("pg_amcheck");
        if !tool.exists() {
            return Ok(());
        }
        let mut command = Command::new(tool);
        command.args(["--all", "--heapallindexed", "--install-missing", "--maintenance-db", url]);
        let output = command.output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(output.status.success(), "pg_amcheck: {said}");
        Ok(())
    }

    pub(crate) fn snapshots(&self) -> Result<usize> {
        Ok(self.repository.snapshot_ids()?.len())
    }
}

/// A server on restored data.
pub(crate) struct Revived {
    pub(crate) launch: Launch,
    pub(crate) running: Running,
}

impl Revived {
    pub(crate) fn start(launch: Launch, log: &Path) -> Result<Self> {
        let (program, arguments) = launch.argv.split_first().context("a program")?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(&launch.env);
        let running = Running::start(command, log)?;
        let waited = ready(&launch.url, Duration::from_secs(60), &Run::new());
        waited.with_context(|| std::fs::read_to_string(log).unwrap_or_default())?;
        Ok(Self { launch, running })
    }

    pub(crate) fn client(&self) -> Result<Client> {
        client(&self.launch.url)
    }

    pub(crate) fn source(&self) -> PostgresSource {
        PostgresSource::new(&self.launch.url)
    }
}

pub(crate) fn client(url: &str) -> Result<Client> {
    Ok(Client::connect(url, NoTls)?)
}

/// Accounts between which money is moved all the time; no sum ever changes.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Vec<Acknowledged>>>>,
}

/// A transfer whose commit returned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    worker: i32,
    n: i32,
    /// When the commit had returned.
    pub(crate) at: Timestamp,
}

const ACCOUNTS: i32 = 2000;
const WORKERS: i32 = 3;

impl Load {
    pub(crate) fn prepare(client: &mut Client) -> Result<()> {
        client.batch_execute(&format!(
            "create table accounts (id int primary key, balance bigint not null, filler text);
             insert into accounts select i, 0, repeat('x', 400) from generate_series(1, {ACCOUNTS}) i;
             create table transfers (worker int, n int, amount int, primary key (worker, n));
             create unlogged table scratchpad as select generate_series(1, 1000) as i;"
        ))?;
        Ok(())
    }

    /// Begins to work, and returns when something was done.
    pub(crate) fn start(url: &str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..WORKERS)
            .map(|worker| {
                let (url, stop) = (url.to_owned(), Arc::clone(&stop));
                thread::spawn(move || work(&url, worker, &stop))
            })
            .collect();
        let load = Self { stop, threads };
        let mut client = client(url)?;
        wait_for("the load to begin", Duration::from_secs(30), || {
            let row = client.query_one("select count(distinct worker) from transfers", &[]);
            (row.ok()?.get::<_, i64>(0) == i64::from(WORKERS)).then_some(())
        })?;
        Ok(load)
    }

    pub(crate) fn stop(self) -> Result<Vec<Acknowledged>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in self.threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??);
        }
        Ok(all)
    }
}

fn work(url: &str, worker: i32, stop: &AtomicBool) -> Result<Vec<Acknowledged>> {
    let mut client = client(url)?;
    let mut acknowledged = Vec::new();
    for n in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (from, to) = ((n * 7 + worker) % ACCOUNTS + 1, (n * 13 + worker * 5) % ACCOUNTS + 1);
        let mut transaction = client.transaction()?;
        let update = "update accounts set balance = balance + $2 where id = $1";
        // In one order, so that workers do not wait for each other in a circle.
        let mut changes = [(from, -i64::from(n)), (to, i64::from(n))];
        changes.sort_unstable();
        for (account, amount) in changes {
            transaction.execute(update, &[&account, &amount])?;
        }
        transaction.execute("insert into transfers values ($1, $2, $2)", &[&worker, &n])?;
        transaction.commit()?;
        acknowledged.push(Acknowledged { worker, n, at: Timestamp::now() });
    }
    Ok(acknowledged)
}

/// Asserts that a restored server holds all that was acknowledged before `data_time`, and nothing
/// by halves.
pub(crate) fn assert_whole(
    client: &mut Client,
    acknowledged: &[Acknowledged],
    data_time: Timestamp,
) -> Result<()> {
    let row = client.query_one("select sum(balance)::bigint, count(*) from accounts", &[])?;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, i64::from(ACCOUNTS)));
    let rows = client.query("select worker, max(n), count(*) from transfers group by 1", &[])?;
    let mut there = BTreeMap::new();
    for row in rows {
        let (worker, last, count): (i32, i32, i64) = (row.get(0), row.get(1), row.get(2));
        assert_eq!(i64::from(last), count, "worker {worker} has a hole");
        there.insert(worker, last);
    }
    let before: Vec<_> = acknowledged.iter().filter(|done| done.at < data_time).collect();
    assert!(!before.is_empty(), "the load had begun before the backup ended");
    for done in before {
        let last = there.get(&done.worker).copied().unwrap_or(0);
        assert!(done.n <= last, "{done:?} was committed before {data_time} and is lost");
    }
    Ok(())
}
