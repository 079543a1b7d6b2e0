//! Real PostgreSQL servers, each of its own test: a new cluster in a scratch folder, on a free port
//! of the loopback address, gone when dropped.
//!
//! Programs are looked for, for each major version, in `MUSTER_POSTGRES_BIN_<MAJOR>`, where Debian
//! puts them, and in `target/postgres/<MAJOR>`, where `scripts/test-setup.sh` puts those that Debian
//! has not. A server refuses to run as root: when the tests do, it runs as `postgres` or `nobody`.

use std::{
    env, fs,
    io::Write as _,
    net::TcpListener,
    os::unix::{fs::MetadataExt as _, fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Scratch, wait_for};

/// The versions that tests ask for.
pub const MAJORS: &[u32] = &[13, 14, 15, 16, 17, 18];

/// How often another port is tried when somebody else took the one that was free.
const PORTS_TRIED: u32 = 5;

/// How long a server may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The user who runs servers: number and main group. `None` when the tests are not root's.
pub fn user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    ["postgres", "nobody"].iter().find_map(|name| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// The folder with the programs of a version, if they are there.
pub fn find(major: u32) -> Option<PathBuf> {
    let named = env::var_os(format!("MUSTER_POSTGRES_BIN_{major}")).map(PathBuf::from);
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/postgres");
    let fetched = target.join(major.to_string()).join("native/bin");
    let places = named.into_iter().chain([debian, fetched]);
    places.filter_map(|folder| fs::canonicalize(folder).ok()).find(|folder| can_run(folder))
}

/// Whether the user who runs servers can start one from this folder.
fn can_run(folder: &Path) -> bool {
    let mut command = Command::new(folder.join("postgres"));
    as_user(&mut command);
    let output = command.arg("--version").stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

fn as_user(command: &mut Command) {
    // A folder that the user may enter.
    command.current_dir("/").env("LC_ALL", "C");
    if let Some((uid, gid)) = user() {
        command.uid(uid).gid(gid);
    }
}

/// The programs of a version, or a line on stderr that the test is skipped, and `None`.
///
/// # Panics
///
/// They are missing and `MUSTER_TEST_REQUIRE` says `all`.
pub fn require(major: u32) -> Option<PathBuf> {
    let found = find(major);
    if found.is_none() {
        let message = format!("PostgreSQL {major} is not installed (scripts/test-setup.sh)");
        let required = env::var("MUSTER_TEST_REQUIRE").unwrap_or_default();
        let is_required = required.split(',').any(|word| word.trim() == "all");
        assert!(!is_required, "MUSTER_TEST_REQUIRE=all, but {message}");
        let test = std::thread::current();
        let line = format!("SKIPPED: {}: {message}\n", test.name().unwrap_or("a test"));
        std::io::stderr().write_all(line.as_bytes()).ok();
    }
    found
}

/// How a cluster is made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// More arguments for `initdb`.
    pub initdb: Vec<String>,
    /// Lines of `postgresql.conf`.
    pub settings: Vec<String>,
    /// Lines of `pg_hba.conf`, in place of those that trust everybody on this host.
    pub access: Option<String>,
}

/// A running server. Its superuser is `postgres`.
#[derive(Debug)]
pub struct Server {
    scratch: Scratch,
    programs: PathBuf,
    port: u16,
    running: Option<Running>,
}

impl Server {
    /// Makes a cluster and starts it; with page checksums unless the options say otherwise.
    ///
    /// # Errors
    ///
    /// A program failed, or the server did not start in time.
    pub fn start(name: &str, programs: &Path, options: &Options) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        give(scratch.path())?;
        let mut server = Self { scratch, programs: programs.to_owned(), port: 0, running: None };
        server.initdb(options)?;
        let mut conf = vec![
            "listen_addresses = '127.0.0.1'".to_owned(),
            "unix_socket_directories = ''".to_owned(),
            // Nothing here outlives the machine.
            "fsync = off".to_owned(),
        ];
        conf.extend(options.settings.iter().cloned());
        append(&server.data().join("postgresql.conf"), &conf.join("\n"))?;
        if let Some(access) = &options.access {
            fs::write(server.data().join("pg_hba.conf"), access)?;
        }
        server.start_again()?;
        Ok(server)
    }

    fn initdb(&self, options: &Options) -> Result<()> {
        let mut command = Command::new(self.programs.join("initdb"));
        as_user(&mut command);
        command.arg("-D").arg(self.data());
        command.args(["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "--auth=trust"]);
        if !options.initdb.iter().any(|argument| argument.contains("checksums")) {
            command.arg("--data-checksums");
        }
        let output = command.args(&options.initdb).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Starts a server that was stopped, on a free port.
    ///
    /// # Errors
    ///
    /// It did not start in time.
    pub fn start_again(&mut self) -> Result<()> {
        let log = self.scratch.join("server.log");
        let mut last = None;
        for _ in 0..PORTS_TRIED {
            self.port = free_port()?;
            let mut command = Command::new(self.programs.join("postgres"));
            command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
            let mut running = Running::start(command, &log)?;
            match running.wait_until_up(&self.data()) {
                Ok(()) => {
                    self.running = Some(running);
                    return Ok(());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no port was tried")?)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.scratch.join("data")
    }

    /// A path beside the data directory, which the server's user may write to.
    pub fn join(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Makes a folder beside the data directory, for a tablespace.
    ///
    /// # Errors
    ///
    /// It is there already.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        fs::create_dir(&path)?;
        give(&path)?;
        Ok(path)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database, for the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The folder with the programs.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// What the server said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.join("server.log")).unwrap_or_default()
    }

    /// Stops the server in order.
    ///
    /// # Errors
    ///
    /// It did not end in time.
    pub fn stop(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |mut running| running.stop(Signal::INT))
    }

    /// Stops the server as a crash would.
    ///
    /// # Errors
    ///
    /// It did not end in time.
    pub fn crash(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |mut running| running.stop(Signal::QUIT))
    }
}

/// A server's process, stopped when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a program as the user who runs servers; what it says is added to `log`.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let file = fs::OpenOptions::new().create(true).append(true).open(log)?;
        as_user(&mut command);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until the server says, in its data directory, that it takes connections.
    fn wait_until_up(&mut self, data: &Path) -> Result<()> {
        let pid = self.child.id().to_string();
        let up = wait_for("the server to be up", Duration::from_secs(60), || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(Err(status));
            }
            let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
            let lines: Vec<_> = text.lines().map(str::trim).collect();
            (lines.first() == Some(&pid.as_str()) && lines.get(7) == Some(&"ready"))
                .then_some(Ok(()))
        })?;
        up.map_err(|status| {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            anyhow::anyhow!("the server ended with {status}:\n{log}")
        })
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Stops it by a signal.
    ///
    /// # Errors
    ///
    /// It did not end in time; it is killed then.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        if self.has_ended() {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process has a number")?, signal)?;
        let ended = wait_for("the server to end", STOP_TIMEOUT, || self.has_ended().then_some(()));
        if ended.is_err() {
            self.child.kill()?;
            self.child.wait()?;
        }
        ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing of it is wanted any more.
        self.stop(Signal::QUIT).ok();
    }
}

/// A port of the loopback address that is free now.
///
/// # Errors
///
/// There is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Gives a file or folder to the user who runs servers.
///
/// # Errors
///
/// It is not there.
pub fn give(path: &Path) -> Result<()> {
    if let Some((uid, gid)) = user() {
        chown(path, Some(uid), Some(gid)).with_context(|| format!("give {}", path.display()))?;
    }
    Ok(())
}

fn append(path: &Path, text: &str) -> Result<()> {
    let owner = fs::metadata(path)?.uid();
    let mut file = fs::OpenOptions::new().append(true).open(path)?;
    file.write_all(format!("\n{text}\n").as_bytes())?;
    debug_assert_eq!(fs::metadata(path)?.uid(), owner, "appending changes no owner");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_starts_and_is_gone_when_dropped() {
        let Some(programs) = require(15) else { return };
        let mut server = Server::start("server", &programs, &Options::default()).unwrap();
        std::net::TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        server.stop().unwrap();
        server.start_again().unwrap();
        let (data, port) = (server.data(), server.port());
        drop(server);
        assert!(!data.exists());
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}
