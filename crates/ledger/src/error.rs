//! Why a ledger could not be opened, read or written.

use std::{
    io,
    path::{Path, PathBuf},
};

use muster_model::{Class, Fault};
use rusqlite::ErrorCode;
use thiserror::Error;

/// A ledger could not be opened, read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// There is no ledger in the folder.
    #[error("no ledger in {}", folder.display())]
    Missing {
        /// The folder that was looked into.
        folder: PathBuf,
    },
    /// A file of the ledger, or a bundle, could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No space is left where the ledger lies. Nothing is recorded by halves.
    #[error("cannot {what}: no space left")]
    Full {
        /// What was tried, and on what.
        what: String,
        /// What SQLite or the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database could not do what it was asked.
    #[error("cannot {action} the ledger")]
    Database {
        /// What was tried, as a verb.
        action: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The database holds something that Muster never wrote.
    #[error("the ledger is damaged: {what}")]
    Damaged {
        /// What is wrong, and where.
        what: String,
    },
    /// The private key is gone, unreadable, or another one than the ledger began with.
    #[error("the signing key {} {problem}", path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A newer version of Muster wrote the ledger.
    #[error("the ledger has format {found}, and this version knows {known}")]
    TooNew {
        /// The format that was found.
        found: i64,
        /// The newest that this version reads.
        known: i64,
    },
    /// Something was to be written and the ledger is open for reading.
    #[error("the ledger is open for reading only")]
    ReadOnly,
    /// An entry cannot be recorded as it is.
    #[error("an entry of kind '{kind}' cannot be recorded: {problem}")]
    Entry {
        /// The entry's kind.
        kind: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An entry names an envelope that was not attached before.
    #[error("an entry names the envelope {sha256}, which is not attached")]
    EnvelopeMissing {
        /// What the entry says.
        sha256: String,
    },
    /// A proof was asked for beyond the end of the log.
    #[error("the ledger has {size} entries, and {wanted} was asked for")]
    Beyond {
        /// The index or size that was asked for.
        wanted: u64,
        /// How many entries there are.
        size: u64,
    },
    /// The options of an export contradict themselves, or an attachment cannot be carried.
    #[error("cannot export: {problem}")]
    Export {
        /// What is wrong.
        problem: String,
    },
    /// A bundle was made and does not verify, so it was not written.
    #[error("the exported bundle does not verify, so it was not written")]
    ExportNotVerified {
        /// What does not match.
        source: crate::Mismatch,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness {
        /// What the system said.
        source: getrandom::Error,
    },
}

impl LedgerError {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match is_full(&source) {
            true => {
                Self::Full { what: format!("{action} {}", path.display()), source: source.into() }
            }
            false => Self::File { action, path: path.to_owned(), source },
        }
    }

    pub(crate) fn database(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| match is_database_full(&source) {
            true => Self::Full { what: format!("{action} the ledger"), source: source.into() },
            false => Self::Database { action, source },
        }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// SQLite has two words for it: that of a write, and that of the index of its log, which it makes
/// as large as it will be before it is used.
fn is_database_full(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

fn class_of_io(error: &io::Error) -> Class {
    match error.kind() {
        io::ErrorKind::NotFound => Class::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Class::Denied,
        _ => Class::Transient,
    }
}

fn class_of_database(error: &rusqlite::Error) -> Class {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Class::Corrupt,
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::AuthorizationForStatementDenied,
        ) => Class::Denied,
        // A trigger refused, or a column holds another type than was ever written.
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) | None => Class::Corrupt,
        Some(_) => Class::Transient,
    }
}

impl Fault for LedgerError {
    fn class(&self) -> Class {
        match self {
            Self::Missing { .. } => Class::NotFound,
            Self::File { source, .. } => class_of_io(source),
            Self::Database { source, .. } => class_of_database(source),
            Self::Damaged { .. } | Self::Key { .. } | Self::ExportNotVerified { .. } => {
                Class::Corrupt
            }
            Self::TooNew { .. } | Self::ReadOnly => Class::Denied,
            Self::Entry { .. }
            | Self::EnvelopeMissing { .. }
            | Self::Beyond { .. }
            | Self::Export { .. } => Class::Input,
            Self::NoRandomness { .. } | Self::Full { .. } => Class::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "ledger-missing",
            Self::File { .. } => "ledger-file",
            Self::Full { .. } => "no-space",
            Self::Database { source, .. } => match class_of_database(source) {
                Class::Corrupt => "ledger-damaged",
                _ => "ledger-database",
            },
            Self::Damaged { .. } | Self::ExportNotVerified { .. } => "ledger-damaged",
            Self::Key { .. } => "ledger-key",
            Self::TooNew { .. } => "ledger-too-new",
            Self::ReadOnly => "ledger-read-only",
            Self::Entry { .. } | Self::EnvelopeMissing { .. } => "ledger-entry",
            Self::Beyond { .. } => "ledger-beyond",
            Self::Export { .. } => "ledger-export",
            Self::NoRandomness { .. } => "no-randomness",
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::Missing { .. } => {
                "give the folder with --state, or let a command that records something make it"
            }
            Self::File { .. } => "look at the permissions there",
            Self::Full { .. } => {
                "make space where the state lies, and try again; nothing was recorded by halves"
            }
            Self::Database { source, .. } => match source.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    "another process writes to it for very long; wait for it, or see what it does"
                }
                _ => "look at the disk and the permissions; nothing was recorded by halves",
            },
            Self::Damaged { .. } | Self::ExportNotVerified { .. } => {
                "keep the folder as it is, and compare it with a bundle that was exported earlier"
            }
            Self::Key { .. } => {
                "bring 'ledger.key' back from a copy; without it this ledger can be read and not \
                 continued"
            }
            Self::TooNew { .. } => "use the newer version of Muster",
            Self::ReadOnly | Self::Entry { .. } | Self::Beyond { .. } => return None,
            Self::EnvelopeMissing { .. } => "attach the envelope first",
            Self::Export { .. } => "change what is exported",
            Self::NoRandomness { .. } => "try again once the system has started",
        };
        Some(help.to_owned())
    }
}
