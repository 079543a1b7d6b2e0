//! The real tools that Muster promises to agree with, found and run.
//!
//! A peer is looked for in `MUSTER_<NAME>` (a path, say `MUSTER_RESTIC=/opt/restic/restic`) and
//! then on `PATH`. A test that needs one starts with [`require`] and returns early when it gives
//! `None`: the skip is told on stderr. `MUSTER_TEST_REQUIRE`, a list between commas, turns skips
//! into failures: `all` for the tools that a package manager installs in seconds, `oracles` for
//! those that have to be compiled.
//!
//! Peers run in a clean environment: a home and a cache of their own, UTC, no configuration of the
//! person who runs the tests, no terminal to ask for a password.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use crate::Scratch;

/// Which value of `MUSTER_TEST_REQUIRE` makes a peer mandatory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Installed by a package manager.
    All,
    /// Compiled from source, which takes minutes.
    Oracles,
}

impl Group {
    fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Oracles => "oracles",
        }
    }
}

/// How to install the peers whose package is not called like their command.
const HINTS: &[(&str, Group, &str)] = &[
    ("rustic", Group::Oracles, "cargo install rustic-rs --version 0.11.4 --locked"),
    ("python-oracles", Group::All, "scripts/test-setup.sh makes it in target/python-oracles"),
    ("fusermount3", Group::All, "apt-get install fuse3"),
    ("setpriv", Group::All, "apt-get install util-linux"),
    ("unshare", Group::All, "apt-get install util-linux"),
    ("setfacl", Group::All, "apt-get install acl"),
    ("getfacl", Group::All, "apt-get install acl"),
    ("setfattr", Group::All, "apt-get install attr"),
    ("setcap", Group::All, "apt-get install libcap2-bin"),
    ("ssh", Group::All, "apt-get install openssh-client"),
    ("sshd", Group::All, "apt-get install openssh-server"),
    ("node", Group::All, "apt-get install nodejs"),
    ("faketime", Group::All, "apt-get install faketime"),
    ("cp", Group::All, "apt-get install coreutils"),
];

fn hint(name: &str) -> (Group, String) {
    HINTS.iter().find(|(known, ..)| *known == name).map_or_else(
        || (Group::All, format!("apt-get install {name}")),
        |&(_, group, hint)| (group, hint.to_owned()),
    )
}

/// Finds a peer's executable: the path in `MUSTER_<NAME>` if that is set, else on `PATH`.
///
/// # Panics
///
/// `MUSTER_<NAME>` is set but names no executable file: a typing error must not skip tests.
pub fn find(name: &str) -> Option<PathBuf> {
    let variable = variable_for(name);
    if let Some(path) = env::var_os(&variable).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        assert!(is_executable(&path), "{variable}={} is no executable file", path.display());
        return Some(path);
    }
    on_path(name, &env::var_os("PATH").unwrap_or_default())
}

fn variable_for(name: &str) -> String {
    format!("MUSTER_{}", name.to_uppercase().replace(['-', '.'], "_"))
}

fn on_path(name: &str, path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0)
}

/// Finds a peer, or says on stderr that the test is skipped and gives `None`.
///
/// The line goes past the test harness's capture, so that a skip is seen.
///
/// # Panics
///
/// The peer is missing and `MUSTER_TEST_REQUIRE` asks for it; or `MUSTER_<NAME>` names no
/// executable file; or no scratch folder can be made.
pub fn require(name: &str) -> Option<Peer> {
    let Some(program) = find(name) else {
        let required = env::var("MUSTER_TEST_REQUIRE").unwrap_or_default();
        match missing(name, &required) {
            Missing::Fail(message) => panic!("{message}"),
            Missing::Skip(message) => {
                let test = std::thread::current();
                let line = format!("SKIPPED: {}: {message}\n", test.name().unwrap_or("a test"));
                std::io::stderr().write_all(line.as_bytes()).ok();
                return None;
            }
        }
    };
    Some(Peer::new(program).expect("a scratch folder can be made for a peer's home"))
}

/// Says whether this process can mount file systems of its own through FUSE, or tells on stderr
/// that the test is skipped.
///
/// # Panics
///
/// It cannot, and `MUSTER_TEST_REQUIRE` is `all`.
pub fn require_fuse() -> bool {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let can_mount = may_mount() || find("fusermount3").is_some();
    if device.is_ok() && can_mount {
        return true;
    }
    let required = env::var("MUSTER_TEST_REQUIRE").unwrap_or_default();
    match missing("fusermount3", &required) {
        Missing::Fail(message) => panic!("{message}; or /dev/fuse is not there"),
        Missing::Skip(message) => {
            let test = std::thread::current();
            let name = test.name().unwrap_or("a test");
            let line = format!("SKIPPED: {name}: {message}, or /dev/fuse is not there\n");
            std::io::stderr().write_all(line.as_bytes()).ok();
            false
        }
    }
}

/// Whether the kernel lets this process mount: the bit `CAP_SYS_ADMIN` of its rights.
fn may_mount() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let rights = rights.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    rights.is_some_and(|bits| bits >> 21 & 1 == 1)
}

/// What to do about a peer that is not there.
#[derive(Debug, PartialEq, Eq)]
enum Missing {
    Skip(String),
    Fail(String),
}

fn missing(name: &str, required: &str) -> Missing {
    let (group, hint) = hint(name);
    if required.split(',').any(|word| word.trim() == group.word()) {
        let (word, variable) = (group.word(), variable_for(name));
        Missing::Fail(format!(
            "MUSTER_TEST_REQUIRE={word} requires {name}, which is not installed ({hint}, or set \
             {variable} to its path)"
        ))
    } else {
        Missing::Skip(format!("because {name} is not installed ({hint})"))
    }
}

/// What a peer said.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command as it was run, for messages.
    pub command: String,
    /// The exit code, or `None` when a signal ended it.
    pub code: Option<i32>,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Gives standard output as text, with U+FFFD for what is not UTF-8.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Gives standard error as text, with U+FFFD for what is not UTF-8.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A tool, ready to run in a clean environment.
#[derive(Debug, Clone)]
pub struct Peer {
    program: PathBuf,
    variables: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    /// Shared by clones, so that runs with other settings share the cache.
    home: Arc<Scratch>,
}

impl Peer {
    /// Makes a peer of any program, say Muster's own binary, with a new home.
    ///
    /// # Errors
    ///
    /// No scratch folder can be made.
    pub fn new(program: impl Into<PathBuf>) -> Result<Self> {
        let home = Scratch::new("home")?;
        for folder in ["cache", "config", "tmp"] {
            std::fs::create_dir(home.join(folder)).context("make a peer's home")?;
        }
        // The peer may run as another user.
        for folder in ["", "cache", "config", "tmp"] {
            let open = std::fs::Permissions::from_mode(0o777);
            std::fs::set_permissions(home.join(folder), open).context("open a peer's home")?;
        }
        let program = program.into();
        Ok(Self { program, variables: Vec::new(), folder: None, home: Arc::new(home) })
    }

    /// Sets an environment variable for all runs, for example `RESTIC_PASSWORD`.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Sets the folder in which all runs start.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Gives the path of the executable.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Gives the folder that the peer takes for its home.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Prepares a run, for tests that need the child process or its pipes themselves.
    pub fn command(&self) -> Command {
        self.prepare(Command::new(&self.program))
    }

    /// Prepares a run as the user and group 65534 without any right, when the tests run as root;
    /// else a run as usual, since there is nothing to drop. `None` when `setpriv` is missing.
    ///
    /// # Panics
    ///
    /// As [`require`] does, for `setpriv`.
    pub fn command_without_root(&self) -> Option<Command> {
        if !rustix::process::geteuid().is_root() {
            return Some(self.command());
        }
        let setpriv = require("setpriv")?;
        let mut command = Command::new(setpriv.program());
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"]);
        command.arg(&self.program);
        Some(self.prepare(command))
    }

    fn prepare(&self, mut command: Command) -> Command {
        command.env_clear();
        command.env("PATH", env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home.path());
        command.env("TMPDIR", self.home.join("tmp"));
        command.env("XDG_CACHE_HOME", self.home.join("cache"));
        command.env("XDG_CONFIG_HOME", self.home.join("config"));
        command.env("RESTIC_CACHE_DIR", self.home.join("cache/restic"));
        command.env("RUSTIC_CACHE_DIR", self.home.join("cache/rustic"));
        command.env("LC_ALL", "C.UTF-8");
        command.env("TZ", "UTC");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs the peer to its end, whatever that is.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn run(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Output> {
        let mut command = self.command();
        command.args(arguments);
        run(&mut command)
    }

    /// Runs the peer and expects exit code 0.
    ///
    /// # Errors
    ///
    /// It cannot be started, or ends in another way; the message holds all that it said.
    pub fn succeed(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Output> {
        self.run(arguments).and_then(Output::expect_success)
    }
}

impl Output {
    /// Passes the output on when the exit code was 0.
    ///
    /// # Errors
    ///
    /// The code was another one, or a signal ended the process; the message holds all that it said.
    pub fn expect_success(self) -> Result<Self> {
        ensure!(
            self.code == Some(0),
            "{} ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}")),
            self.stdout(),
            self.stderr(),
        );
        Ok(self)
    }
}

/// Runs a prepared command to its end and gathers what it said.
///
/// # Errors
///
/// It cannot be started.
pub fn run(command: &mut Command) -> Result<Output> {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    let shown = words.join(" ");
    let output = command.output().with_context(|| format!("start {shown}"))?;
    Ok(Output {
        command: shown,
        code: output.status.code(),
        stdout: output.stdout,
        stderr: output.stderr,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing_text(name: &str, required: &str) -> String {
        match missing(name, required) {
            Missing::Skip(text) => format!("skip: {text}"),
            Missing::Fail(text) => format!("fail: {text}"),
        }
    }

    #[test]
    fn missing_peers_are_skipped_unless_required() {
        let skip = "skip: because restic is not installed (apt-get install restic)";
        assert_eq!(missing_text("restic", ""), skip);
        assert_eq!(missing_text("restic", "oracles"), skip);
        let fail = "fail: MUSTER_TEST_REQUIRE=all requires restic, which is not installed \
                    (apt-get install restic, or set MUSTER_RESTIC to its path)";
        assert_eq!(missing_text("restic", "all"), fail);
        assert_eq!(missing_text("restic", "oracles, all"), fail);
    }

    #[test]
    fn rustic_is_an_oracle() {
        assert!(missing_text("rustic", "all").starts_with("skip: because rustic is not"));
        let fail = "fail: MUSTER_TEST_REQUIRE=oracles requires rustic";
        assert!(missing_text("rustic", "oracles").starts_with(fail));
        assert!(missing_text("rustic", "all,oracles").starts_with(fail));
    }

    #[test]
    fn only_executable_files_are_found() {
        let scratch = Scratch::new("path").unwrap();
        for folder in ["first", "second"] {
            std::fs::create_dir(scratch.join(folder)).unwrap();
            std::fs::write(scratch.join(folder).join("tool"), "#!/bin/sh\n").unwrap();
        }
        let path = env::join_paths([scratch.join("first"), scratch.join("second")]).unwrap();
        assert_eq!(on_path("tool", &path), None);
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(scratch.join("second/tool"), executable).unwrap();
        assert_eq!(on_path("tool", &path), Some(scratch.join("second/tool")));
        assert_eq!(variable_for("pg_dump-15"), "MUSTER_PG_DUMP_15");
    }

    #[test]
    fn peers_see_nothing_of_the_person_who_runs_the_tests() {
        let shell = Peer::new("/bin/sh").unwrap().env("RESTIC_PASSWORD", "fixture").folder("/");
        let output = shell.succeed(["-c", "echo $HOME $RESTIC_PASSWORD $TZ $USER; pwd"]).unwrap();
        let expected = format!("{} fixture UTC\n/\n", shell.home().display());
        assert_eq!(output.stdout(), expected);
    }

    #[test]
    fn failures_tell_everything() {
        let shell = Peer::new("/bin/sh").unwrap();
        let arguments = ["-c", "echo out; echo err >&2; exit 3"];
        assert_eq!(shell.run(arguments).unwrap().code, Some(3));
        let error = shell.succeed(arguments).unwrap_err().to_string();
        let expected = "/bin/sh -c echo out; echo err >&2; exit 3 ended with exit code 3\n\
                        --- stdout\nout\n\n--- stderr\nerr\n";
        assert_eq!(error, expected);
    }

    #[test]
    fn root_can_be_dropped() {
        let shell = Peer::new("/bin/sh").unwrap();
        let Some(mut command) = shell.command_without_root() else { return };
        let output = run(command.args(["-c", "id -u; touch $HOME/mine"])).unwrap();
        let output = output.expect_success().unwrap();
        assert_ne!(output.stdout(), "0\n");
        assert!(shell.home().join("mine").exists());
    }
}
