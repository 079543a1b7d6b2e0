//! The programs of a server, of one major version, and running them with a bound.

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use muster_repository::run::Run;

use super::{PostgresError, pause::pause, run_as::RunAs};

/// Where packages put the programs of a version; `{}` stands for its number.
const FOLDERS: &[&str] = &[
    "/usr/lib/postgresql/{}/bin",
    "/usr/pgsql-{}/bin",
    "/usr/local/pgsql-{}/bin",
    "/opt/postgresql/{}/bin",
    "/usr/lib/postgresql{}/bin",
    "/usr/libexec/postgresql{}",
    "/usr/local/pgsql/bin",
];

/// How often a program that runs is looked at.
const TICK: Duration = Duration::from_millis(50);

/// The folder with the programs of one major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The folder.
    pub folder: PathBuf,
    /// The version.
    pub major: u32,
}

impl Programs {
    /// Finds the programs of a version: in the folder that `MUSTER_POSTGRES_BIN_<MAJOR>` names,
    /// where packages put them, and on the `PATH`.
    ///
    /// # Errors
    /// Fails when `postgres` of this version is in none of them.
    pub fn find(major: u32) -> Result<Self, PostgresError> {
        let named = env::var_os(format!("MUSTER_POSTGRES_BIN_{major}")).map(PathBuf::from);
        let customary = FOLDERS.iter().map(|folder| folder.replace("{}", &major.to_string()));
        let path = env::var_os("PATH").unwrap_or_default();
        let on_path: Vec<_> = env::split_paths(&path).collect();
        let places: Vec<_> =
            named.into_iter().chain(customary.map(PathBuf::from)).chain(on_path).collect();
        let found = places.iter().find(|folder| Self::version(folder) == Some(major));
        found.map(|folder| Self { folder: folder.clone(), major }).ok_or_else(|| {
            let searched: BTreeSet<_> =
                places.iter().map(|folder| folder.display().to_string()).collect();
            let searched = searched.into_iter().collect::<Vec<_>>().join(", ");
            PostgresError::NoPrograms { major, program: "postgres", searched }
        })
    }

    /// The version of the programs in a folder.
    fn version(folder: &Path) -> Option<u32> {
        let program = folder.join("postgres");
        if !program.is_file() {
            return None;
        }
        let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
        // `postgres (PostgreSQL) 15.13 (Debian …)`
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = text.split_whitespace().find(|word| word.starts_with(char::is_numeric))?;
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }

    /// The path of a program, whether it is there or not.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        // What lies on the PATH may be a link into the folder with all of them.
        let postgres = fs::canonicalize(self.folder.join("postgres")).ok();
        let real = postgres.as_deref().and_then(Path::parent).map(|folder| folder.join(name));
        match real {
            Some(real) if real.exists() => real,
            _ => self.folder.join(name),
        }
    }
}

/// What to run.
pub(super) struct Task<'a> {
    pub(super) program: &'static str,
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) input: Option<&'a Path>,
    /// Gets what the program says.
    pub(super) log: PathBuf,
    pub(super) user: Option<&'a RunAs>,
    pub(super) timeout: Duration,
}

impl Task<'_> {
    /// Runs the program to its end; it is killed when it takes too long or the run is cancelled.
    pub(super) fn run(&self, run: &Run) -> Result<(), PostgresError> {
        let failed = |message: String| PostgresError::Program { program: self.program, message };
        let log = fs::File::create(&self.log).map_err(PostgresError::file("write", &self.log))?;
        let log_too = log.try_clone().map_err(PostgresError::file("write", &self.log))?;
        let input = match self.input {
            Some(path) => {
                let file = fs::File::open(path).map_err(PostgresError::file("read", path))?;
                Stdio::from(file)
            }
            None => Stdio::null(),
        };
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).stdin(input).stdout(log).stderr(log_too);
        command.env("LC_ALL", "C").current_dir("/");
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let begun = Instant::now();
        loop {
            match child.try_wait().map_err(|error| failed(error.to_string()))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(failed(format!("{status}: {}", self.last_words()))),
                None if begun.elapsed() > self.timeout || run.cancel.is_requested() => {
                    // It may have ended just now.
                    drop(child.kill());
                    drop(child.wait());
                    run.cancel.check()?;
                    return Err(failed(format!("it took more than {:?}", self.timeout)));
                }
                None => pause(TICK),
            }
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join("; ")
    }
}
