//! The state beside the plan: the ledger, the locks of jobs, the folders of drills.
//!
//! Whoever opens it first puts in order what a killed process left behind (`sweep.rs`),
//! so a crash needs no other treatment than the next command.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use muster_ledger::{Filter, Ledger, LedgerError};
use muster_plan::document::Service;
use muster_repository::environment::Environment;
use rustix::fs::{FlockOperation, flock};

use crate::{error::OperationError, records::Record, run::needs_passage};

/// The state: one folder, mode 0700.
pub struct State {
    /// The folder.
    pub dir: PathBuf,
    /// What happened.
    pub ledger: Ledger,
    /// Who runs this, where.
    pub environment: Environment,
    /// Called with a record's kind before and after it is written, for tests that kill there.
    #[cfg(feature = "testing")]
    pub on_record: Option<OnRecord>,
}

/// Called with the kind of a record.
#[cfg(feature = "testing")]
pub type OnRecord = Box<dyn Fn(&str) + Send + Sync>;

/// A record with its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Logged {
    /// The index of its leaf.
    pub index: u64,
    /// When it was written.
    pub at: Timestamp,
    /// What it says.
    pub record: Record,
}

impl State {
    /// Opens the state, and makes it when there is none.
    ///
    /// # Errors
    /// Fails when the folder or the ledger cannot be made or read.
    pub fn open(dir: &Path) -> Result<Self, OperationError> {
        let ledger = Ledger::open(dir).map_err(OperationError::below)?;
        Ok(Self {
            dir: dir.to_owned(),
            ledger,
            environment: Environment::detect(),
            #[cfg(feature = "testing")]
            on_record: None,
        })
    }

    /// Opens the state to read it; makes and changes nothing. `None` when there is none yet.
    ///
    /// # Errors
    /// Fails when there is a ledger and it cannot be read.
    pub fn open_read_only(dir: &Path) -> Result<Option<Self>, OperationError> {
        let ledger = match Ledger::open_read_only(dir) {
            Ok(ledger) => ledger,
            Err(LedgerError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(OperationError::below(error)),
        };
        Ok(Some(Self {
            dir: dir.to_owned(),
            ledger,
            environment: Environment::detect(),
            #[cfg(feature = "testing")]
            on_record: None,
        }))
    }

    /// Writes a record down; it is durable when this returns. Returns its index.
    ///
    /// # Errors
    /// Fails when the ledger cannot be written.
    pub fn record(&self, record: &Record) -> Result<u64, OperationError> {
        let (kind, body) = record.parts().map_err(unserialisable)?;
        self.pass_by(&kind);
        let appended = self.ledger.append(&kind, Timestamp::now(), &body);
        self.pass_by(&kind);
        Ok(appended.map_err(OperationError::below)?.index)
    }

    /// Writes a record down with the number that follows on those of its kind.
    ///
    /// # Errors
    /// Fails when the ledger cannot be written.
    pub fn record_numbered(&self, record: &Record, field: &str) -> Result<u64, OperationError> {
        let (kind, body) = record.parts().map_err(unserialisable)?;
        self.pass_by(&kind);
        let numbered = self.ledger.append_numbered(&kind, field, Timestamp::now(), &body);
        self.pass_by(&kind);
        Ok(numbered.map_err(OperationError::below)?.1)
    }

    /// A place at which a test may kill this process.
    #[cfg_attr(not(feature = "testing"), expect(unused_variables, reason = "for tests alone"))]
    fn pass_by(&self, kind: &str) {
        #[cfg(feature = "testing")]
        if let Some(on_record) = &self.on_record {
            on_record(kind);
        }
    }

    /// Reads the records of some kinds, oldest first.
    ///
    /// # Errors
    /// Fails when the ledger cannot be read.
    pub fn history(&self, kinds: &[&str]) -> Result<Vec<Logged>, OperationError> {
        let filter = Filter { kinds: Some(kinds), ..Filter::default() };
        let entries = self.ledger.entries(&filter).map_err(OperationError::below)?;
        let logged = |entry: muster_ledger::Entry| {
            let record = Record::read(&entry.kind, &entry.body)?;
            Some(Logged { index: entry.index, at: entry.at, record: record.placed(entry.index) })
        };
        Ok(entries.into_iter().filter_map(logged).collect())
    }

    /// Takes the lock of a job; `None` when another process holds it. Released when dropped,
    /// and by the system when the process dies.
    ///
    /// # Errors
    /// Fails when the lock's file cannot be made.
    pub fn lock(&self, job: &str) -> Result<Option<JobLock>, OperationError> {
        let folder = self.private_folder("locks")?;
        let name: String =
            job.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let path = folder.join(name);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let file = file.map_err(OperationError::io("open the lock", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(JobLock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(OperationError::io("take the lock", path)(io::Error::from(error))),
        }
    }

    /// The folder in which the drills of a service make their targets, absolute: in the state,
    /// or where `MUSTER_RUNS` says, or in `/var/tmp` when a server must run as another user.
    ///
    /// # Errors
    /// Fails when it cannot be made.
    pub fn runs_folder(&self, service: &Service) -> Result<PathBuf, OperationError> {
        let passable = needs_passage(service);
        let folder = match std::env::var_os(RUNS_VARIABLE) {
            Some(named) if !named.is_empty() => PathBuf::from(named),
            _ if passable => PathBuf::from(PASSABLE_RUNS),
            _ => self.dir.join("runs"),
        };
        let make = if passable { make_passable } else { make_private };
        make(&folder).map_err(OperationError::io("make the folder", &folder))?;
        fs::canonicalize(&folder).map_err(OperationError::io("find the folder", &folder))
    }

    /// A folder of mode 0700 in the state, made when it does not exist.
    ///
    /// # Errors
    /// Fails when it cannot be made.
    pub fn private_folder(&self, name: &str) -> Result<PathBuf, OperationError> {
        let path = self.dir.join(name);
        make_private(&path).map_err(OperationError::io("make the folder", &path))?;
        Ok(path)
    }
}

/// Makes a folder of mode 0700, with its parents.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::symlink_metadata(path).and_then(|metadata| match metadata.is_dir() {
        true => Ok(()),
        false => Err(io::Error::from(io::ErrorKind::NotADirectory)),
    })
}

/// Makes a folder of mode 0711, with its parents: others may pass and not look.
pub(crate) fn make_passable(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o711).create(path)
}

/// Where drills make their targets when a server of another user must reach them and no one
/// says otherwise: below a state of mode 0700 it could not.
const PASSABLE_RUNS: &str = "/var/tmp/muster-runs";

/// The variable that names the folder in which drills make their targets.
const RUNS_VARIABLE: &str = "MUSTER_RUNS";

fn unserialisable(error: serde_json::Error) -> OperationError {
    OperationError::Bug { what: format!("a record cannot be written as JSON: {error}") }
}

/// A job that nobody else runs meanwhile.
#[derive(Debug)]
pub struct JobLock {
    _file: File,
}
