//! The `config` file: version, identity, chunker polynomial.
//!
//! # Source
//! restic, `doc/design.rst`, *Repository Format*.

use serde::{Deserialize, Serialize};

use super::FormatError;
use crate::chunker::Polynomial;

/// Versions of the repository format that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum Version {
    /// Without compression; read and extended, never created.
    V1,
    /// With compression.
    V2,
}

impl From<Version> for u32 {
    fn from(version: Version) -> Self {
        match version {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }
}

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        match number {
            1 => Ok(Self::V1),
            2 => Ok(Self::V2),
            _ => Err(format!("repository version {number} is unknown here (1 and 2 are known)")),
        }
    }
}

/// What `config` holds. Fields that other tools add (rustic does) are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Version of the format.
    pub version: Version,
    /// 64 hexadecimal digits, random, for the life of the repository.
    pub id: String,
    /// The polynomial that decides where files are cut into chunks.
    pub chunker_polynomial: Polynomial,
}

/// Length of the repository's id in hexadecimal digits.
const ID_DIGITS: usize = 64;

impl Config {
    /// Checks what serde cannot: the id's form. (A polynomial is fit by construction.)
    ///
    /// # Errors
    /// Fails when the id is no 64 hexadecimal digits.
    pub fn validated(self) -> Result<Self, FormatError> {
        let hex = self.id.bytes().all(|b| b.is_ascii_hexdigit());
        if self.id.len() != ID_DIGITS || !hex {
            return Err(FormatError::invalid("the repository's id is not 64 hexadecimal digits"));
        }
        Ok(self)
    }
}
