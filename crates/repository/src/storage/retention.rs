//! What a store tells of how a file is held. Who decides what to hold is `immutable`.

use std::fmt;

use crate::format::time::Timestamp;

/// Whether a store can keep files from being changed and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// It cannot, or nobody can be sure.
    Never,
    /// It can.
    OnRequest,
    /// It can, and holds each new file by a rule of its own, too. Then a held snapshot alone says
    /// nothing of older files that it needs.
    ByDefault,
}

/// Who may end a hold before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Those with a special permission.
    Governance,
    /// Nobody, the account's owner included.
    Compliance,
}

impl Mode {
    /// The word of S3.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        })
    }
}

/// How a file is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The end of the hold; `None` when it is not held until a moment.
    pub until: Option<Timestamp>,
    /// Who may end it earlier.
    pub mode: Option<Mode>,
    /// Held until somebody releases it.
    pub legal_hold: bool,
    /// The size of what is held: the version of the file that a reader gets now.
    pub bytes: u64,
    /// The SHA-256 that the store computed of it, where it tells.
    pub sha256: Option<[u8; 32]>,
}

impl Retention {
    /// Whether nobody can remove it before this moment.
    #[must_use]
    pub fn covers(&self, moment: Timestamp) -> bool {
        self.until.is_some_and(|until| until >= moment)
    }

    /// Whether it is held at this moment, by time or by a person.
    #[must_use]
    pub fn is_held(&self, now: Timestamp) -> bool {
        self.legal_hold || self.until.is_some_and(|until| until > now)
    }
}
