//! What does not match: the first thing that a verification found wrong.

use muster_model::{Class, Fault};
use thiserror::Error;

/// Evidence is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// The archive is cut, or written in another way than the one there is.
    #[error("the archive departs at byte {at} from the one way to write it: {problem}")]
    Archive {
        /// The first byte, from 0, that is not as it must be.
        at: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// A member is missing, too many, or not what another says of it.
    #[error("{member}: {problem}")]
    Member {
        /// Its name in the archive.
        member: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The evidence is signed by a key that is not among the trusted ones.
    #[error("keys/ledger.pub: {key} is not a key that you trust")]
    KeyNotTrusted {
        /// The key that signed.
        key: String,
    },
    /// An entry is missing, moved, repeated or changed.
    #[error("entry {index}: {problem}")]
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The entries are not those that were signed.
    #[error("the entries have root {found}, and the checkpoint at {size} entries says {signed}")]
    Root {
        /// Up to where.
        size: u64,
        /// What the checkpoint says.
        signed: String,
        /// What the entries say.
        found: String,
    },
    /// Entries of a kind are fewer or more than the log counted.
    #[error("{found} entries of kind '{kind}' are given, and the log counted {counted}")]
    Count {
        /// The kind.
        kind: String,
        /// What the log counted.
        counted: u64,
        /// What is given.
        found: u64,
    },
    /// The numbers that entries of a kind carry have a gap, or are out of order.
    #[error("entry {index}: its '{field}' should be {expected}")]
    Sequence {
        /// The entry.
        index: u64,
        /// The member of the body that counts.
        field: String,
        /// The number that follows.
        expected: u64,
    },
    /// An envelope is missing, or not signed by the ledger.
    #[error("envelope {sha256}: {problem}")]
    Envelope {
        /// Its name: the SHA-256 of its bytes.
        sha256: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The checkpoint that was kept says something else about the same log.
    #[error("the log was rewritten after the checkpoint at {size} entries was kept: {problem}")]
    Rewritten {
        /// The kept checkpoint's size.
        size: u64,
        /// What shows it.
        problem: String,
    },
    /// The kept checkpoint ends within entries that the bundle leaves out.
    #[error(
        "the bundle leaves out the entries around {size}, so it cannot be compared with the kept checkpoint"
    )]
    NotComparable {
        /// The kept checkpoint's size.
        size: u64,
    },
    /// What was given to verify against is no key.
    #[error("what is to be trusted has no key in the form 'name+hash+base64'")]
    TrustUnreadable,
    /// What was given to compare with is no checkpoint.
    #[error("what to compare with is not a checkpoint")]
    SinceUnreadable,
    /// What was given to compare with is not signed by the key that signed the bundle.
    #[error("the kept checkpoint is signed by another key than the bundle")]
    SinceOfAnother,
}

impl Mismatch {
    pub(crate) fn member(member: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Member { member: member.into(), problem: problem.into() }
    }

    pub(crate) fn entry(index: u64, problem: impl Into<String>) -> Self {
        Self::Entry { index, problem: problem.into() }
    }
}

impl Fault for Mismatch {
    fn class(&self) -> Class {
        match self {
            Self::TrustUnreadable | Self::SinceUnreadable | Self::NotComparable { .. } => {
                Class::Input
            }
            _ => Class::Corrupt,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::KeyNotTrusted { .. } => "evidence-not-trusted",
            Self::Rewritten { .. } | Self::SinceOfAnother => "evidence-rewritten",
            Self::NotComparable { .. } => "evidence-not-comparable",
            Self::TrustUnreadable => "trust-unreadable",
            Self::SinceUnreadable => "checkpoint-unreadable",
            _ => "evidence-mismatch",
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::KeyNotTrusted { .. } => {
                "ask whoever runs the ledger, on another way than this bundle came, which key is \
                 theirs ('ledger.pub' in the state folder)"
            }
            Self::Rewritten { .. } | Self::SinceOfAnother => {
                "keep both, and ask whoever runs the ledger; the checkpoint that was kept is the \
                 one to believe"
            }
            Self::NotComparable { .. } => {
                "compare with a checkpoint from an exported bundle ('log/checkpoint' in it)"
            }
            Self::SinceUnreadable => {
                "give the file that was kept, such as 'log/checkpoint' of a bundle"
            }
            Self::TrustUnreadable => "give the file 'ledger.pub' of the ledger that you trust",
            _ => "do not rely on it; get it again from where it was exported",
        };
        Some(help.to_owned())
    }
}
