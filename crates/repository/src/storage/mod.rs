//! Where a repository's files lie: a handful of operations that every store can offer.
//!
//! A repository is a flat set of immutable files, each named by its kind and its hash. That is
//! why the trait is small: list, read, put whole, delete. There is no append, no rename and no
//! partial write, because object stores have none.
//!
//! Promises that the engine builds its crash safety on:
//!
//! - **[`Storage::put`] is atomic**: another process sees the whole file or none.
//! - **`put` is durable when it returns**: after a power failure the file is there, whole. The
//!   order packs → index → snapshot therefore needs no further barrier.
//! - **A listing made after `put` returned contains the file**, unless
//!   [`Storage::listing_lag`] says that listings may be late.
//!
//! Every implementation runs the same suite (`conformance`, feature `testing`).

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod costs;
mod disk;
mod forward;
mod local;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod reach;
mod retention;
#[cfg(any(test, feature = "testing"))]
pub mod rounds;
mod spooled;
#[cfg(any(test, feature = "testing"))]
pub mod unreliable;

use std::{error::Error as StdError, fmt, io, path::Path, sync::Arc, time::Duration};

use muster_model::{Class, Fault};
use thiserror::Error;

pub use costs::Costs;
pub use disk::{Disk, NewFile, RealDisk};
pub(crate) use forward::forward;
pub use local::LocalStorage;
pub use reach::{Archiving, Reach};
pub use retention::{Holding, Mode, Retention};
pub use spooled::Spooled;
pub(crate) use spooled::nameless_file;

use crate::format::{pack::BlobKind, time::Timestamp};
use crate::id::{IndexId, KeyId, LockId, PackId, SnapshotId};

/// The kinds of file in a repository, each in a folder of its own (`config` apart).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// The repository's version, identity and chunker polynomial.
    Config,
    /// Master key wrapped under a password.
    Key,
    /// Marks of processes at work.
    Lock,
    /// Recorded states.
    Snapshot,
    /// Maps from blobs to packs.
    Index,
    /// Sealed blobs.
    Pack,
}

impl FileKind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Config, Self::Key, Self::Lock, Self::Snapshot, Self::Index, Self::Pack];

    /// The folder (for `config`: the file) that holds files of this kind.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Key => "keys",
            Self::Lock => "locks",
            Self::Snapshot => "snapshots",
            Self::Index => "index",
            Self::Pack => "data",
        }
    }

    /// What people call one file of this kind.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Key => "key",
            Self::Lock => "lock",
            Self::Snapshot => "snapshot",
            Self::Index => "index",
            Self::Pack => "pack",
        }
    }

    /// The file of this kind with the given name, if the name is one: 64 hexadecimal digits.
    #[must_use]
    pub fn file(self, name: &str) -> Option<File> {
        Some(match self {
            Self::Config => File::Config,
            Self::Key => File::Key(KeyId::parse(name)?),
            Self::Lock => File::Lock(LockId::parse(name)?),
            Self::Snapshot => File::Snapshot(SnapshotId::parse(name)?),
            Self::Index => File::Index(IndexId::parse(name)?),
            Self::Pack => File::Pack(PackId::parse(name)?),
        })
    }
}

/// The name of one file in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum File {
    /// The one `config` file.
    Config,
    /// A key file.
    Key(KeyId),
    /// A lock file.
    Lock(LockId),
    /// A snapshot file.
    Snapshot(SnapshotId),
    /// An index file.
    Index(IndexId),
    /// A pack file.
    Pack(PackId),
}

impl File {
    /// The kind of this file.
    #[must_use]
    pub fn kind(self) -> FileKind {
        match self {
            Self::Config => FileKind::Config,
            Self::Key(_) => FileKind::Key,
            Self::Lock(_) => FileKind::Lock,
            Self::Snapshot(_) => FileKind::Snapshot,
            Self::Index(_) => FileKind::Index,
            Self::Pack(_) => FileKind::Pack,
        }
    }

    /// The SHA-256 that the stored bytes must have; `config` alone is not named by its hash.
    #[must_use]
    pub fn digest(self) -> Option<[u8; 32]> {
        match self {
            Self::Config => None,
            Self::Key(id) => Some(*id.as_bytes()),
            Self::Lock(id) => Some(*id.as_bytes()),
            Self::Snapshot(id) => Some(*id.as_bytes()),
            Self::Index(id) => Some(*id.as_bytes()),
            Self::Pack(id) => Some(*id.as_bytes()),
        }
    }
}

/// Writes the path below the repository, for example `data/ab/abcd…`.
impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config => f.write_str("config"),
            Self::Key(id) => write!(f, "keys/{id}"),
            Self::Lock(id) => write!(f, "locks/{id}"),
            Self::Snapshot(id) => write!(f, "snapshots/{id}"),
            Self::Index(id) => write!(f, "index/{id}"),
            Self::Pack(id) => write!(f, "data/{:02x}/{id}", id.as_bytes()[0]),
        }
    }
}

/// One line of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The file's name.
    pub file: File,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A place that holds a repository's files. See the module's page for what it promises.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Where this is, for people: a path or a URL without secrets.
    fn location(&self) -> String;

    /// Prepares an empty place for a repository (folders, a bucket's layout). Does nothing
    /// where it is prepared already.
    ///
    /// # Errors
    /// Fails when the place cannot be made or written.
    fn prepare(&self) -> Result<(), StorageError>;

    /// All files of a kind, in no order. Names that are no file names of this kind (temporary
    /// files, strangers) are left out. A missing folder is an empty listing.
    ///
    /// # Errors
    /// Fails when the place cannot be listed whole; a partial listing is never returned.
    fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StorageError>;

    /// The size of a file in bytes.
    ///
    /// # Errors
    /// Fails with [`StorageProblem::NotFound`] when there is no such file.
    fn size(&self, file: File) -> Result<u64, StorageError>;

    /// Reads a whole file that must not be longer than `bytes_max`.
    ///
    /// # Errors
    /// Fails with [`StorageProblem::NotFound`], or [`StorageProblem::TooLarge`] before
    /// anything was read.
    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError>;

    /// Fills `buffer` with the bytes of `file` from `offset` on.
    ///
    /// # Errors
    /// Fails with [`StorageProblem::TooShort`] when the file ends before the buffer is full.
    fn read_range(&self, file: File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError>;

    /// Stores a file, whole and durably; replaces one of the same name.
    ///
    /// # Errors
    /// After an error the file is absent, or whole; never half-written.
    fn put(&self, file: File, content: &[u8]) -> Result<(), StorageError>;

    /// Begins to store a file. When this returns the content may be given away, and the file is
    /// stored once [`Storing::finish`] says so, which may wait for a disk; until then it is
    /// absent.
    ///
    /// # Errors
    /// As [`Storage::put`].
    fn begin_put(&self, file: File, content: &[u8]) -> Result<Storing<'_>, StorageError> {
        self.put(file, content)?;
        Ok(Storing::done())
    }

    /// Begins to store a pack, as [`Storage::begin_put`] does, and tells the store what is in it:
    /// packs of data are read for a restore alone, and may lie where reading is slow. The store may
    /// hold on to the content until it is sent: so nobody copies it. Every new pack comes by here, or
    /// by [`Storage::put_spooled`]. Whoever wraps a store passes this on.
    ///
    /// # Errors
    /// As [`Storage::put`].
    fn put_pack(
        &self,
        id: PackId,
        _holds: BlobKind,
        content: &Arc<Vec<u8>>,
    ) -> Result<Storing<'_>, StorageError> {
        self.begin_put(File::Pack(id), content)
    }

    /// Stores a pack that lies in a file of this machine, as [`Storage::put_pack`] does. A store that
    /// sends it from there, and never has it in memory, says so by [`Storage::sends_from_files`].
    /// Whoever wraps a store passes both on.
    ///
    /// # Errors
    /// As [`Storage::put`], and when the file cannot be read ([`Spooled::is_spoiled`]).
    fn put_spooled(&self, holds: BlobKind, pack: &Spooled) -> Result<(), StorageError> {
        self.put_pack(pack.id(), holds, &Arc::new(pack.whole()?))?.finish()
    }

    /// Whether a pack that lies in a file takes no memory while it is stored.
    fn sends_from_files(&self) -> bool {
        false
    }

    /// Begins a pack whose content comes piece by piece, and whose name is known last; `None` where
    /// a pack has to be put whole. Until something is appended the store is not touched.
    ///
    /// # Errors
    /// Fails when the store cannot take it.
    fn begin_pack(&self) -> Result<Option<Box<dyn PackFile>>, StorageError> {
        Ok(None)
    }

    /// Stores a file as [`Storage::put`] does, unless one of that name exists.
    ///
    /// # Errors
    /// Fails with [`StorageProblem::AlreadyExists`] and leaves the other file alone.
    fn put_new(&self, file: File, content: &[u8]) -> Result<(), StorageError>;

    /// Deletes a file. It may come back after a power failure, until [`Storage::settle`].
    ///
    /// # Errors
    /// Fails with [`StorageProblem::NotFound`] when there is no such file.
    fn delete(&self, file: File) -> Result<(), StorageError>;

    /// Deletes a file as [`Storage::delete`] does; one that is not there is as good as deleted, so
    /// that no store has to look for it before. A store that wraps another passes this on.
    ///
    /// # Errors
    /// Fails when the store does.
    fn remove(&self, file: File) -> Result<(), StorageError> {
        match self.delete(file) {
            Err(error) if error.problem() != StorageProblem::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes files, as many at once as the store takes, and tells of each how that went, in
    /// their order. One that is not there is as good as deleted.
    fn delete_all(&self, files: &[File]) -> Vec<Result<(), StorageError>> {
        files.iter().map(|file| self.remove(*file)).collect()
    }

    /// How many files one request deletes.
    fn deletes_at_once(&self) -> usize {
        1
    }

    /// Makes deletions of files of a kind durable: those that returned before will not come back.
    /// Does nothing where a deletion is durable when it returns. Whoever wraps a store passes
    /// this on.
    ///
    /// # Errors
    /// Fails when the store cannot tell.
    fn settle(&self, _kind: FileKind) -> Result<(), StorageError> {
        Ok(())
    }

    /// How long a listing may lag behind a `put`; zero where it never does.
    fn listing_lag(&self) -> Duration {
        Duration::ZERO
    }

    /// What requests cost, as observed so far, and how many there may be at once: whoever reads
    /// or writes much keeps so many under way. Whoever wraps a store passes this on.
    fn costs(&self) -> Costs {
        Costs::of_this_machine()
    }

    /// The folder on this machine that holds the files, if there is one: a backup must not
    /// descend into it.
    fn local_folder(&self) -> Option<&Path> {
        None
    }

    /// Whether this store can hold files: keep them from being changed and removed until a moment,
    /// whoever asks. Whoever wraps a store passes this and the next two on.
    ///
    /// # Errors
    /// Fails when the store cannot tell.
    fn holding(&self) -> Result<Holding, StorageError> {
        Ok(Holding::Never)
    }

    /// How a file is held, as the store itself tells it now.
    ///
    /// # Errors
    /// Fails with [`StorageProblem::CannotHold`] where files cannot be held, and with
    /// [`StorageProblem::NotFound`] when there is no such file.
    fn retention(&self, file: File) -> Result<Retention, StorageError> {
        Err(StorageError::new("read how long is held", file, StorageProblem::CannotHold))
    }

    /// Holds a file until `until` at least. Never shortens. Whoever relies on it reads it back.
    ///
    /// # Errors
    /// As [`Storage::retention`], and when the store refuses.
    fn retain(&self, file: File, _until: Timestamp) -> Result<(), StorageError> {
        Err(StorageError::new("hold", file, StorageProblem::CannotHold))
    }

    /// Whether files may lie in an archive. Costs no request. Whoever wraps a store passes this and
    /// the next two on.
    fn archiving(&self) -> Archiving {
        Archiving::Never
    }

    /// How a file can be read, as the store itself tells it now.
    ///
    /// # Errors
    /// Fails with [`StorageProblem::NotFound`] when there is no such file.
    fn reach(&self, _file: File) -> Result<Reach, StorageError> {
        Ok(Reach::Ready)
    }

    /// Asks the store to bring back an archived file. It takes its time (hours), and money.
    /// Asking again changes nothing.
    ///
    /// # Errors
    /// Fails when the store refuses.
    fn warm_up(&self, _file: File) -> Result<(), StorageError> {
        Ok(())
    }

    /// Removes what interrupted `put`s left behind and returns how many files that were. Only
    /// called while no other process works in the repository.
    ///
    /// # Errors
    /// Fails when the leftovers cannot be listed or removed.
    fn remove_leftovers(&self) -> Result<usize, StorageError> {
        Ok(0)
    }
}

/// A pack that comes piece by piece. Dropping it gives it up, and takes its leftovers away.
pub trait PackFile: Send {
    /// Adds what comes next.
    ///
    /// # Errors
    /// As [`Storage::put`]; the pack is of no use then.
    fn append(&mut self, piece: &[u8]) -> Result<(), StorageError>;

    /// Stores the pack under its name, whole and durably; replaces one of the same name.
    ///
    /// # Errors
    /// As [`Storage::put`].
    fn finish(self: Box<Self>, id: PackId) -> Result<(), StorageError>;
}

/// A file that is being stored: its content was taken. Dropping it gives the file up.
#[must_use = "the file is not stored before it is finished"]
pub struct Storing<'s> {
    finish: Option<Box<dyn FnOnce() -> Result<(), StorageError> + Send + 's>>,
}

impl<'s> Storing<'s> {
    /// The file is stored already.
    pub fn done() -> Self {
        Self { finish: None }
    }

    /// The file is stored once `finish` was called, which takes its leftovers away when it is
    /// dropped instead.
    pub fn until(finish: impl FnOnce() -> Result<(), StorageError> + Send + 's) -> Self {
        Self { finish: Some(Box::new(finish)) }
    }

    /// Waits until the file is stored.
    ///
    /// # Errors
    /// As [`Storage::put`].
    pub fn finish(self) -> Result<(), StorageError> {
        self.finish.map_or(Ok(()), |finish| finish())
    }
}

/// What went wrong in a store, as far as callers must tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageProblem {
    /// There is no such file or place.
    NotFound,
    /// A conditional `put` found the name taken.
    AlreadyExists,
    /// The file ends before the range that was asked for.
    TooShort,
    /// The file is longer than a file of its kind may be.
    TooLarge,
    /// No space, or a quota, is left.
    Full,
    /// Permission denied, or the place is read-only.
    Denied,
    /// The store does not know who asks: credentials are missing, wrong or expired.
    Credentials,
    /// The bucket, container or folder that should hold the repository does not exist.
    NoPlace,
    /// The host's name leads nowhere.
    HostUnknown,
    /// No connection to the host came about, or it broke.
    Unreachable,
    /// The host could not prove who it is.
    Untrusted,
    /// The store did not answer in time.
    TimedOut,
    /// The store cannot keep files from being changed: it has no such lock, or it is off.
    CannotHold,
    /// The store is opened as it was at a moment in the past.
    InThePast,
    /// The file is archived and must be brought back before it can be read.
    Archived,
    /// Nobody waits for the answer any more: the operation was asked to stop.
    Interrupted,
    /// Anything else; trying again may help.
    Other,
}

impl StorageProblem {
    /// Whether the same request may succeed a moment later, so that repeating it makes sense.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::HostUnknown | Self::Unreachable | Self::TimedOut | Self::Other)
    }

    /// Whether this tells of the store, or of the way there, and nothing of the file that was asked
    /// for: that is no damage.
    #[must_use]
    pub fn is_of_store(self) -> bool {
        match self {
            Self::Credentials
            | Self::NoPlace
            | Self::HostUnknown
            | Self::Unreachable
            | Self::Untrusted
            | Self::TimedOut
            | Self::Interrupted => true,
            Self::NotFound
            | Self::AlreadyExists
            | Self::TooShort
            | Self::TooLarge
            | Self::Full
            | Self::Denied
            | Self::CannotHold
            | Self::InThePast
            | Self::Archived
            | Self::Other => false,
        }
    }
}

/// An operation on a store failed.
#[derive(Debug, Error)]
#[error("{operation} {what}")]
pub struct StorageError {
    operation: &'static str,
    what: String,
    problem: StorageProblem,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl StorageError {
    /// An error with no deeper cause than `problem` itself.
    #[must_use]
    pub fn new(operation: &'static str, what: impl fmt::Display, problem: StorageProblem) -> Self {
        let source = match problem {
            StorageProblem::NotFound => Some("no such file".into()),
            StorageProblem::AlreadyExists => Some("the file exists already".into()),
            StorageProblem::TooShort => Some("the file is shorter than it should be".into()),
            StorageProblem::TooLarge => Some("the file is larger than such a file can be".into()),
            StorageProblem::CannotHold => Some("this store cannot make files immutable".into()),
            StorageProblem::InThePast => {
                Some("the store is opened as it was in the past: nothing can be changed".into())
            }
            StorageProblem::Archived => Some("the file is archived".into()),
            _ => None,
        };
        Self { operation, what: what.to_string(), problem, source }
    }

    /// Wraps an I/O error and classifies it.
    #[must_use]
    pub fn io(operation: &'static str, what: impl fmt::Display, source: io::Error) -> Self {
        let problem = match source.kind() {
            io::ErrorKind::NotFound => StorageProblem::NotFound,
            io::ErrorKind::AlreadyExists => StorageProblem::AlreadyExists,
            io::ErrorKind::UnexpectedEof => StorageProblem::TooShort,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageProblem::Full,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StorageProblem::Denied
            }
            _ => StorageProblem::Other,
        };
        Self { operation, what: what.to_string(), problem, source: Some(Box::new(source)) }
    }

    /// Whether the system refused it, and not a server.
    fn is_of_this_machine(&self) -> bool {
        let source = self.source.as_ref();
        source.is_some_and(|source| source.downcast_ref::<io::Error>().is_some())
    }

    /// An error whose cause is known and already told apart.
    #[must_use]
    pub fn because(
        operation: &'static str,
        what: impl fmt::Display,
        problem: StorageProblem,
        source: Box<dyn StdError + Send + Sync>,
    ) -> Self {
        Self { operation, what: what.to_string(), problem, source: Some(source) }
    }

    /// The same failure, met by an operation that was asked to stop while it hoped for better.
    #[must_use]
    pub fn interrupted(self) -> Self {
        Self { problem: StorageProblem::Interrupted, ..self }
    }

    /// What went wrong, for decisions.
    #[must_use]
    pub fn problem(&self) -> StorageProblem {
        self.problem
    }
}

impl Fault for StorageError {
    fn class(&self) -> Class {
        match self.problem {
            StorageProblem::NotFound | StorageProblem::NoPlace => Class::NotFound,
            StorageProblem::AlreadyExists => Class::Conflict,
            StorageProblem::Interrupted => Class::Interrupted,
            StorageProblem::TooShort | StorageProblem::TooLarge => Class::Corrupt,
            StorageProblem::Denied
            | StorageProblem::Credentials
            | StorageProblem::Untrusted
            | StorageProblem::CannotHold
            | StorageProblem::InThePast
            | StorageProblem::Archived => Class::Denied,
            StorageProblem::Full
            | StorageProblem::HostUnknown
            | StorageProblem::Unreachable
            | StorageProblem::TimedOut
            | StorageProblem::Other => Class::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self.problem {
            StorageProblem::NotFound => "storage-not-found",
            StorageProblem::AlreadyExists => "storage-already-exists",
            StorageProblem::TooShort => "storage-too-short",
            StorageProblem::TooLarge => "storage-too-large",
            StorageProblem::Full => "storage-full",
            StorageProblem::Denied => "storage-denied",
            StorageProblem::Credentials => "store-credentials",
            StorageProblem::NoPlace => "store-place-missing",
            StorageProblem::HostUnknown => "store-host-unknown",
            StorageProblem::Unreachable => "store-unreachable",
            StorageProblem::Untrusted => "store-untrusted",
            StorageProblem::TimedOut => "store-timed-out",
            StorageProblem::CannotHold => "store-cannot-hold",
            StorageProblem::InThePast => "store-in-the-past",
            StorageProblem::Archived => "store-archived",
            StorageProblem::Interrupted => "interrupted",
            StorageProblem::Other => "storage-failed",
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self.problem {
            StorageProblem::NotFound => "check the repository's path",
            StorageProblem::AlreadyExists => "nothing was overwritten; choose another place",
            StorageProblem::TooShort | StorageProblem::TooLarge => {
                "the file is damaged; run 'muster repo check --read-data' to see what it affects"
            }
            StorageProblem::Full => {
                "free some space and run the command again: what is stored already is kept and \
                 not stored twice"
            }
            StorageProblem::Denied if self.is_of_this_machine() => {
                "check whose the folder is, and what this user may do there"
            }
            StorageProblem::Denied if self.operation == "delete" => {
                "check what these credentials may do there; a store that only takes new files \
                 refuses to delete on purpose"
            }
            StorageProblem::Denied => "check what these credentials, or this user, may do there",
            StorageProblem::Credentials => {
                "check the credentials: their variables, whether they expired, and this clock"
            }
            StorageProblem::NoPlace => {
                "make the bucket, container or folder, or correct its name; Muster makes none"
            }
            StorageProblem::HostUnknown => "check the host's name and this machine's DNS",
            StorageProblem::Unreachable => {
                "check that the host is up, the port, and what lies between; what is stored \
                 already is kept, so run the command again"
            }
            StorageProblem::Untrusted => {
                "name the authority that signed its certificate with --cacert FILE, or ask \
                 whoever runs the host; do not send a password there"
            }
            StorageProblem::TimedOut => {
                "run the command again: what is stored already is kept; fewer connections or a \
                 --limit-upload may help on a slow line"
            }
            StorageProblem::CannotHold => {
                "use a bucket of S3 that was made with Object Lock (and versioning); an \
                 append-only server or a folder proves nothing, whoever runs it can change it"
            }
            StorageProblem::InThePast => {
                "leave out the option s3.as-of to work with the repository as it is, or copy from \
                 it into another one"
            }
            StorageProblem::Archived => {
                "it is archived: say --warm-up (restore, dump, check, copy, prune, key rotate, and \
                 verify of a plan), and the store brings back what is needed, which takes hours and \
                 is charged; let the bucket's rule spare all but data/, which every command needs"
            }
            StorageProblem::Interrupted => {
                "run the command again: what is stored already is not stored twice"
            }
            StorageProblem::Other => return None,
        };
        Some(help.to_owned())
    }
}
