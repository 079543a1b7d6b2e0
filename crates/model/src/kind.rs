//! How a backup decides which files to read again.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The kind of a backup. It never changes what a snapshot holds (every snapshot is whole),
/// only which files are trusted to be unchanged and so not read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupKind {
    /// Every file is read again.
    Full,
    /// Files whose size, mtime, ctime and inode equal those in the last snapshot of the same
    /// paths are not read again.
    #[default]
    Incremental,
    /// As incremental, but compared with the last *full* snapshot of the same paths.
    Differential,
}

/// The prefix of the snapshot tag that records the kind. A tag, because restic drops fields
/// which it does not know when it rewrites a snapshot.
const TAG_PREFIX: &str = "muster:kind=";

impl BackupKind {
    /// All kinds, in the order in which help texts list them.
    pub const ALL: [Self; 3] = [Self::Full, Self::Incremental, Self::Differential];

    /// The kind as it is written in plans, flags and tags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
            Self::Differential => "differential",
        }
    }

    /// The snapshot tag that records this kind, for example `muster:kind=full`.
    #[must_use]
    pub fn tag(self) -> String {
        format!("{TAG_PREFIX}{}", self.as_str())
    }

    /// The kind that a list of snapshot tags records, if any.
    #[must_use]
    pub fn from_tags<S: AsRef<str>>(tags: &[S]) -> Option<Self> {
        tags.iter().find_map(|tag| tag.as_ref().strip_prefix(TAG_PREFIX)?.parse().ok())
    }
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no kind of backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKind(String);

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is no kind of backup: write full, incremental or differential", self.0)
    }
}

impl std::error::Error for UnknownKind {}

impl FromStr for BackupKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_their_tag() {
        for kind in BackupKind::ALL {
            assert_eq!(BackupKind::from_tags(&["other".to_owned(), kind.tag()]), Some(kind));
        }
        assert_eq!(BackupKind::from_tags(&["muster:kind=weekly"]), None);
        assert_eq!(BackupKind::from_tags::<&str>(&[]), None);
    }

    #[test]
    fn unknown_kinds_are_named() {
        let error = "weekly".parse::<BackupKind>().unwrap_err();
        assert!(error.to_string().contains("'weekly'"), "{error}");
    }
}
