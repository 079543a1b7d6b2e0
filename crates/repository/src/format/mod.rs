//! The bytes of a repository: restic's format, versions 1 (read) and 2 (read and written).
//!
//! Nothing here touches a store or a clock. Each module turns one kind of file into values and
//! back, and checks every size, name and reference before anything is built from it: what is
//! read may have been damaged, or written by somebody who wishes us ill.
//!
//! `docs/formats/repository.md` describes the layout and the order of writing.
//!
//! # Source
//! restic, `doc/design.rst`.

pub mod config;
pub(crate) mod file_opening;
pub mod go_json;
pub mod go_quote;
pub mod index_file;
pub mod key_file;
pub mod lock_file;
pub mod mode;
pub mod pack;
pub mod snapshot;
pub mod time;
pub mod tree;
pub mod unpacked;

use thiserror::Error;

use crate::crypto::Unauthenticated;

/// Why bytes could not be understood as what they should be.
#[derive(Debug, Error)]
pub enum FormatError {
    /// The message was not sealed with this repository's key, or changed since.
    #[error("{0}")]
    Unauthenticated(#[from] Unauthenticated),
    /// The bytes are not the hash that names them.
    #[error("match the content against its name: its SHA-256 is {actual}")]
    WrongHash {
        /// SHA-256 of what was found, in hexadecimal.
        actual: String,
    },
    /// The JSON inside is not what a file of this kind holds.
    #[error("parse the JSON inside")]
    Json(#[from] serde_json::Error),
    /// Compressed data does not decompress to what is promised.
    #[error("decompress the data: {0}")]
    Compression(String),
    /// A length, name or reference is outside what the format allows.
    #[error("accept the content: {0}")]
    Invalid(String),
}

impl FormatError {
    /// A value outside what the format allows.
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid(what.into())
    }
}

/// Byte strings as Go writes them in JSON: padded standard base64; `null` reads as empty.
pub(crate) mod base64_bytes {
    use std::{borrow::Cow, fmt};

    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Text;

        impl<'de> de::Visitor<'de> for Text {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64 or null")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
                // Go ignores line ends inside base64.
                let text = match text.contains(['\r', '\n']) {
                    true => Cow::Owned(text.replace(['\r', '\n'], "")),
                    false => Cow::Borrowed(text),
                };
                STANDARD.decode(text.as_bytes()).map_err(E::custom)
            }

            fn visit_unit<E: de::Error>(self) -> Result<Vec<u8>, E> {
                Ok(Vec::new())
            }
        }

        from.deserialize_any(Text)
    }
}

/// As [`base64_bytes`], for secrets: zeroed when dropped.
pub(crate) mod base64_secret {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(crate) fn serialize<S: Serializer>(
        bytes: &Zeroizing<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&Zeroizing::new(STANDARD.encode(bytes)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Zeroizing<Vec<u8>>, D::Error> {
        super::base64_bytes::deserialize(from).map(Zeroizing::new)
    }
}
