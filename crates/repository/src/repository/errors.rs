//! What can go wrong when a repository is made, opened, read or written.

use muster_model::{Class, Fault};
use thiserror::Error;

use crate::{
    crypto::NoRandomness,
    format::{FormatError, key_file::WrapError, pack::BlobKind},
    id::{BlobId, PackId},
    run::Cancelled,
    storage::{File, StorageError, StorageProblem},
    warm_up::NotWarm,
};

/// Something in the repository could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file is there and is not what it should be.
    #[error("read {file}")]
    Damaged {
        /// The file.
        file: File,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// A blob is there and is not what its id says.
    #[error("read {} blob {id}{}", kind.as_str(), in_pack(pack.as_ref()))]
    DamagedBlob {
        /// What the blob holds.
        kind: BlobKind,
        /// The blob.
        id: BlobId,
        /// The pack it was read from.
        pack: Option<PackId>,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// No index lists the blob.
    #[error("find {} blob {id}: no index lists it", kind.as_str())]
    MissingBlob {
        /// What the blob holds.
        kind: BlobKind,
        /// The blob.
        id: BlobId,
    },
    /// zstd could not allocate its tables.
    #[error("set up decompression")]
    Decoder(#[source] FormatError),
    /// Packs are archived.
    #[error(transparent)]
    NotWarm(#[from] NotWarm),
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

fn in_pack(pack: Option<&PackId>) -> String {
    pack.map(|id| format!(" in {}", File::Pack(*id))).unwrap_or_default()
}

impl ReadError {
    pub(crate) fn damaged(file: File, source: FormatError) -> Self {
        Self::Damaged { file, source }
    }

    /// A pack that an index names must be there: that it is not is damage.
    pub(crate) fn of_pack(pack: PackId, error: StorageError) -> Self {
        match error.problem() {
            StorageProblem::NotFound => {
                Self::damaged(File::Pack(pack), FormatError::invalid("the file is missing"))
            }
            _ => Self::Storage(error),
        }
    }

    /// Whether it cannot be read before it is brought back, which is no damage.
    pub(crate) fn is_archived(&self) -> bool {
        match self {
            Self::Storage(error) => error.problem() == StorageProblem::Archived,
            Self::NotWarm(error) => matches!(error, NotWarm::Archived { .. }),
            _ => false,
        }
    }

    /// Whether it tells of the store, or of the way there, and nothing of what was to be read: the
    /// store does not answer, or does not bring back what it archived.
    pub(crate) fn is_of_store(&self) -> bool {
        match self {
            Self::Storage(error) => error.problem().is_of_store(),
            Self::NotWarm(_) | Self::Cancelled(_) => true,
            _ => false,
        }
    }
}

impl Fault for ReadError {
    fn class(&self) -> Class {
        match self {
            Self::Storage(error) => error.class(),
            Self::Damaged { .. } | Self::DamagedBlob { .. } | Self::MissingBlob { .. } => {
                Class::Corrupt
            }
            Self::Decoder(_) => Class::Transient,
            Self::NotWarm(error) => error.class(),
            Self::Cancelled(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::Damaged { .. } => "file-damaged",
            Self::DamagedBlob { .. } => "blob-damaged",
            Self::MissingBlob { .. } => "blob-missing",
            Self::Decoder(_) => "out-of-memory",
            Self::NotWarm(error) => error.code(),
            Self::Cancelled(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Storage(error) => error.help(),
            // The packs say what an index says.
            Self::Damaged { file: File::Index(_), .. } => Some(
                "run 'muster repo repair index': it writes the index anew from what the packs hold"
                    .to_owned(),
            ),
            // Which snapshot it was nobody knows, so it may be the latest.
            Self::Damaged { file: file @ File::Snapshot(_), .. } => Some(format!(
                "bring {file} back from a copy of the repository; or name another snapshot by its \
                 id ('muster repo snapshots' lists those that can be read); 'muster repo repair \
                 snapshots --forget' removes the damaged file, see first with --dry-run what else"
            )),
            Self::Damaged { .. } | Self::DamagedBlob { .. } | Self::MissingBlob { .. } => Some(
                "run 'muster repo check --read-data' to see which snapshots this affects; keep \
                 the repository as it is until you know"
                    .to_owned(),
            ),
            Self::Decoder(_) => None,
            Self::NotWarm(error) => error.help(),
            Self::Cancelled(error) => error.help(),
        }
    }
}

/// A document could not be stored.
#[derive(Debug, Error)]
pub enum SaveError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The document could not be sealed.
    #[error("seal a file")]
    Seal(#[from] FormatError),
}

impl Fault for SaveError {
    fn class(&self) -> Class {
        match self {
            Self::Storage(error) => error.class(),
            Self::Seal(_) => Class::Bug,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::Seal(_) => "seal-failed",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Storage(error) => error.help(),
            Self::Seal(_) => None,
        }
    }
}

/// A repository could not be made.
#[derive(Debug, Error)]
pub enum InitError {
    /// There is one already.
    #[error("create a repository at {location}: there is one already")]
    Exists {
        /// Where.
        location: String,
    },
    /// There are packs, an index or snapshots, and no `config`.
    #[error("create a repository at {location}: it holds the data of one whose config is gone")]
    ConfigLost {
        /// Where.
        location: String,
    },
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// No random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The key could not be wrapped.
    #[error("wrap the new key")]
    Wrap(#[from] WrapError),
    /// A file could not be written as JSON.
    #[error("write the new files")]
    Format(#[from] FormatError),
}

impl Fault for InitError {
    fn class(&self) -> Class {
        match self {
            Self::Exists { .. } | Self::ConfigLost { .. } => Class::Conflict,
            Self::Storage(error) => error.class(),
            Self::NoRandomness(_) => Class::Transient,
            Self::Wrap(_) | Self::Format(_) => Class::Bug,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Exists { .. } => "repository-exists",
            Self::ConfigLost { .. } => "config-missing",
            Self::Storage(error) => error.code(),
            Self::NoRandomness(_) => "no-randomness",
            Self::Wrap(_) | Self::Format(_) => "seal-failed",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => Some("use it as it is, or choose another place".to_owned()),
            Self::ConfigLost { .. } => {
                Some("bring 'config' back from a copy, or choose another place".to_owned())
            }
            Self::Storage(error) => error.help(),
            _ => None,
        }
    }
}

/// A repository could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is nothing there.
    #[error("open the repository at {location}: there is none")]
    NoRepository {
        /// Where.
        location: String,
    },
    /// Everything but the keys is there.
    #[error("open the repository at {location}: it has no key file")]
    NoKey {
        /// Where.
        location: String,
    },
    /// Everything but `config` is there.
    #[error("open the repository at {location}: its config file is missing")]
    ConfigMissing {
        /// Where.
        location: String,
    },
    /// The password opens no key.
    #[error("open the repository at {location}: wrong password{}", damaged_keys(damaged))]
    WrongPassword {
        /// Where.
        location: String,
        /// Keys that could not be tried.
        damaged: Vec<File>,
    },
    /// No key can be tried.
    #[error("open the repository: every key file is damaged ({})", list(files))]
    KeysDamaged {
        /// The keys.
        files: Vec<File>,
    },
    /// `config` is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn list(files: &[File]) -> String {
    files.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn damaged_keys(files: &[File]) -> String {
    match files.is_empty() {
        true => String::new(),
        false => format!(" (not tried, because damaged: {})", list(files)),
    }
}

impl Fault for OpenError {
    fn class(&self) -> Class {
        match self {
            Self::NoRepository { .. } => Class::NotFound,
            Self::NoKey { .. } | Self::ConfigMissing { .. } | Self::KeysDamaged { .. } => {
                Class::Corrupt
            }
            Self::WrongPassword { .. } => Class::Denied,
            Self::Read(error) => error.class(),
            Self::Storage(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoRepository { .. } => "repository-missing",
            Self::NoKey { .. } => "key-missing",
            Self::ConfigMissing { .. } => "config-missing",
            Self::WrongPassword { .. } => "wrong-password",
            Self::KeysDamaged { .. } => "key-damaged",
            Self::Read(error) => error.code(),
            Self::Storage(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::NoRepository { .. } => "check the path, or make one with 'muster repo init'",
            Self::NoKey { .. } | Self::KeysDamaged { .. } => {
                "bring a file of the folder 'keys' back from a copy of this repository; without \
                 one the data cannot be read by anybody"
            }
            Self::ConfigMissing { .. } => {
                "bring 'config' back from a copy of this repository; the other files are of no \
                 use without it"
            }
            Self::WrongPassword { .. } => "check the password and which repository it belongs to",
            Self::Read(error) => return error.help(),
            Self::Storage(error) => return error.help(),
        };
        Some(help.to_owned())
    }
}
