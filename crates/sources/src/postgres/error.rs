//! Why something with a PostgreSQL server failed.

use std::{io, path::PathBuf};

use muster_model::{
    Class, Fault,
    units::{agree, counted},
};
use muster_repository::{
    backup::BackupError, repository::ReadError, restore::RestoreError, run::Cancelled,
    tree_walk::PlaceError,
};
use thiserror::Error;

/// Something with a PostgreSQL server failed. No text of it holds a password or a URL.
#[derive(Debug, Error)]
pub enum PostgresError {
    /// The URL makes no sense.
    #[error("read the server's URL: {0}")]
    Url(String),
    /// No connection.
    #[error("connect to the server at {place}")]
    Connect {
        /// Host and port, or the socket's folder.
        place: String,
        /// What the driver said.
        #[source]
        source: io::Error,
    },
    /// The server does not let this role in, or do this.
    #[error("{operation}: the server does not allow it: {message}")]
    Denied {
        /// What was tried.
        operation: &'static str,
        /// The server's words.
        message: String,
    },
    /// The server's version is not supported.
    #[error("use a server of version {0}: versions 13 to 18 are supported")]
    Version(String),
    /// The server is a standby.
    #[error("back up a standby: how old its content is cannot be told")]
    Standby,
    /// A statement failed.
    #[error("{operation}: {message}")]
    Statement {
        /// What was tried.
        operation: &'static str,
        /// The server's words.
        message: String,
    },
    /// The connection broke, or the server said what it should not.
    #[error("{operation}: the connection to the server was lost: {message}")]
    Lost {
        /// What was being done.
        operation: &'static str,
        /// How it was noticed.
        message: String,
    },
    /// Write-ahead log that the snapshot needs is not there any more.
    #[error("copy the write-ahead log: segment {segment} {problem}")]
    WalMissing {
        /// The segment's file name.
        segment: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of the server could not be read.
    #[error("{operation} '{}'", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The snapshot holds no PostgreSQL server's data.
    #[error("restore the snapshot: it holds no data of a PostgreSQL server ({0})")]
    NotACluster(String),
    /// Restored data is not what the manifest says.
    #[error("verify the restored data: {} {} from the manifest, the first is {first}", counted(*files, "file"), agree(*files, "differs", "differ"))]
    ManifestDiffers {
        /// How many files.
        files: usize,
        /// The first of them, and how it differs.
        first: String,
    },
    /// No programs of this version are installed.
    #[error("find the programs of PostgreSQL {major}: {program} is in none of {searched}")]
    NoPrograms {
        /// The major version.
        major: u32,
        /// What was looked for.
        program: &'static str,
        /// Where it was looked for.
        searched: String,
    },
    /// The server must not run as root, and no other user is known.
    #[error("choose the user that runs the server: {0}")]
    NoUser(String),
    /// A program failed.
    #[error("run {program}: {message}")]
    Program {
        /// The program.
        program: &'static str,
        /// The end of what it said.
        message: String,
    },
    /// The server did not accept connections in time.
    #[error("wait for the server to be ready: after {seconds} s {last}")]
    NotReady {
        /// How long was waited.
        seconds: u64,
        /// What the last attempt said.
        last: String,
    },
    /// There is nothing to damage.
    #[error("damage the server's data: it has no table with rows")]
    NothingToDamage,
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The repository did not take the snapshot.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The repository could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The restore failed.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl PostgresError {
    /// For `map_err`: a file operation that failed.
    pub(super) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { operation, path, source }
    }

    /// For `map_err`: a statement that failed.
    pub(super) fn statement(operation: &'static str) -> impl FnOnce(postgres::Error) -> Self {
        move |error| match error.as_db_error() {
            Some(db) if is_denied(db.code().code()) => {
                Self::Denied { operation, message: db.message().to_owned() }
            }
            // Classes 57P and 08: the server goes down, or the connection broke.
            Some(db) if db.code().code().starts_with("57P") => {
                Self::Lost { operation, message: db.message().to_owned() }
            }
            Some(db) => Self::Statement { operation, message: db.message().to_owned() },
            None => Self::Lost { operation, message: chain(&error) },
        }
    }

    fn fault(&self) -> Option<&dyn Fault> {
        match self {
            Self::Cancelled(error) => Some(error),
            Self::Backup(error) => Some(error),
            Self::Read(error) => Some(error),
            Self::Restore(error) => Some(error),
            _ => None,
        }
    }
}

/// Whether an SQLSTATE says that the role may not: class 28 (who are you?) and 42501.
pub(super) fn is_denied(code: &str) -> bool {
    code.starts_with("28") || code == "42501"
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl From<PlaceError> for PostgresError {
    fn from(error: PlaceError) -> Self {
        Self::NotACluster(error.to_string())
    }
}

impl Fault for PostgresError {
    fn class(&self) -> Class {
        match self {
            Self::Url(_) | Self::Version(_) | Self::Standby | Self::NoUser(_) => Class::Input,
            Self::Connect { .. }
            | Self::Statement { .. }
            | Self::Lost { .. }
            | Self::WalMissing { .. }
            | Self::Program { .. }
            | Self::NotReady { .. } => Class::Transient,
            Self::Denied { .. } => Class::Denied,
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Class::Denied,
                io::ErrorKind::NotFound => Class::NotFound,
                _ => Class::Transient,
            },
            Self::NotACluster(_) | Self::ManifestDiffers { .. } => Class::Corrupt,
            Self::NoPrograms { .. } | Self::NothingToDamage => Class::NotFound,
            _ => self.fault().map_or(Class::Bug, Fault::class),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Url(_) => "postgres-url",
            Self::Connect { .. } => "postgres-unreachable",
            Self::Denied { .. } => "postgres-denied",
            Self::Version(_) => "postgres-version",
            Self::Standby => "postgres-standby",
            Self::Statement { .. } => "postgres-statement",
            Self::Lost { .. } => "postgres-lost",
            Self::WalMissing { .. } => "postgres-wal-missing",
            Self::File { .. } => "postgres-file",
            Self::NotACluster(_) => "postgres-not-a-cluster",
            Self::ManifestDiffers { .. } => "postgres-manifest-differs",
            Self::NoPrograms { .. } => "postgres-no-programs",
            Self::NoUser(_) => "postgres-no-user",
            Self::Program { .. } => "postgres-program",
            Self::NotReady { .. } => "postgres-not-ready",
            Self::NothingToDamage => "postgres-nothing-to-damage",
            _ => self.fault().map_or("aborted", Fault::code),
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::Url(_) => "write it as postgresql://USER@HOST:PORT/DATABASE",
            Self::Connect { .. } => "check that the server runs and can be reached from here",
            Self::Denied { .. } => {
                "check the password; a backup needs a role with REPLICATION, or a superuser \
                 (docs/guides/postgresql.md)"
            }
            Self::Version(_) => "upgrade the server, or back it up with a 'command' source",
            Self::Standby => "name the primary in the URL; no snapshot was written",
            Self::Statement { .. } => "the server's log tells more",
            Self::Lost { .. } => "no snapshot was written; run the command again",
            Self::WalMissing { .. } => {
                "no snapshot was written; give the role REPLICATION, so that the log is held by a \
                 slot, or raise wal_keep_size"
            }
            Self::File { .. } => "check the path, its owner and its mode",
            Self::NotACluster(_) => "choose a snapshot that was taken of a 'postgres' source",
            Self::ManifestDiffers { .. } => "do not start it; restore another snapshot",
            Self::NoPrograms { .. } => {
                "install the server of the same major version, or name the folder of its programs \
                 in MUSTER_POSTGRES_BIN_<MAJOR>"
            }
            Self::NoUser(_) => "name one with 'user:' in the plan",
            Self::Program { .. } => "the server's log tells more",
            Self::NotReady { .. } => "look into the server's log; a long recovery needs more time",
            Self::NothingToDamage => "choose another service for this drill",
            _ => return self.fault().and_then(Fault::help),
        };
        Some(help.to_owned())
    }
}
