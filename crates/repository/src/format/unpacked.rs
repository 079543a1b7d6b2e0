//! Files that hold one JSON document: config, snapshots, indexes, locks.
//!
//! In version 2 the plaintext of all but `config` begins with the byte 2 followed by zstd, or
//! is plain JSON, which begins with `{` or `[`. Version 1 knows plain JSON only.
//!
//! # Source
//! restic, `doc/design.rst`, *Unpacked Data Format*.

use std::io::{self, BufWriter};

use serde::{Serialize, de::DeserializeOwned};

use super::{FormatError, config::Version, go_json};
use crate::{
    compression::{CompressionLevel, decompress_bounded, stream_compressor},
    crypto::Key,
};

/// First byte of a compressed plaintext.
const COMPRESSED: u8 = 2;

/// The longest stored file of this kind that is read, and the longest plaintext that is
/// decompressed from one. An index file of restic or of Muster holds 50,000 blobs, about
/// 10 MiB of JSON; rustic and restic's `rebuild-index` stay near that too.
pub const UNPACKED_BYTES_MAX: u64 = 512 << 20;

/// How much JSON is gathered before it is compressed.
const PIECE_BYTES: usize = 64 << 10;

/// How a plaintext is wrapped before it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// JSON as it is: always for `config`, and everywhere in version 1.
    Plain,
    /// The byte 2 and zstd.
    Compressed,
}

impl Wrapping {
    /// How snapshots, indexes and locks are wrapped in a repository of `version`.
    #[must_use]
    pub fn of(version: Version) -> Self {
        match version {
            Version::V1 => Self::Plain,
            Version::V2 => Self::Compressed,
        }
    }
}

/// Seals `value` as the content of an unpacked file.
///
/// # Errors
/// Fails when the value cannot be written as JSON, or zstd or the system's randomness fail.
pub fn seal_json<T: Serialize>(
    key: &Key,
    wrapping: Wrapping,
    value: &T,
) -> Result<Vec<u8>, FormatError> {
    let plaintext = match wrapping {
        Wrapping::Plain => go_json::to_vec(value)?,
        Wrapping::Compressed => compressed_json(value)?,
    };
    let mut sealed = Vec::new();
    key.seal(&plaintext, &mut sealed).map_err(|error| FormatError::invalid(error.to_string()))?;
    Ok(sealed)
}

/// The byte 2 and the compressed JSON, which is never in memory whole: an index file's takes 10 MiB.
fn compressed_json<T: Serialize>(value: &T) -> Result<Vec<u8>, FormatError> {
    let failed = |error: io::Error| FormatError::invalid(format!("compress JSON: {error}"));
    let compressor = stream_compressor(CompressionLevel::Auto, vec![COMPRESSED])?;
    let mut writer = BufWriter::with_capacity(PIECE_BYTES, compressor);
    go_json::to_writer(&mut writer, value)?;
    let compressor = writer.into_inner().map_err(|error| failed(error.into_error()))?;
    compressor.finish().map_err(failed)
}

/// Opens the content of an unpacked file.
///
/// # Errors
/// Fails when the content is not authentic, does not decompress, or is not the JSON of a `T`.
pub fn open_json<T: DeserializeOwned>(key: &Key, mut sealed: Vec<u8>) -> Result<T, FormatError> {
    let plaintext = key.open_in_place(&mut sealed)?;
    match plaintext.first() {
        Some(b'{' | b'[') => Ok(serde_json::from_slice(plaintext)?),
        Some(&COMPRESSED) => {
            let json = decompress_bounded(&plaintext[1..], UNPACKED_BYTES_MAX)?;
            Ok(serde_json::from_slice(&json)?)
        }
        Some(other) => Err(FormatError::invalid(format!("unknown encoding {other}"))),
        None => Err(FormatError::invalid("the file holds nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::KeyMaterial;

    #[test]
    fn both_wrappings_round_trip() {
        let key = Key::new(KeyMaterial::random().unwrap());
        for wrapping in [Wrapping::Plain, Wrapping::Compressed] {
            let sealed = seal_json(&key, wrapping, &vec!["a", "b"]).unwrap();
            assert_eq!(open_json::<Vec<String>>(&key, sealed).unwrap(), ["a", "b"]);
        }
    }

    #[test]
    fn other_encodings_are_refused() {
        let key = Key::new(KeyMaterial::random().unwrap());
        for plaintext in [&b""[..], b"\x03abc", b"\x02not zstd", b"{", b"[1]x"] {
            let mut sealed = Vec::new();
            key.seal(plaintext, &mut sealed).unwrap();
            assert!(open_json::<Vec<u8>>(&key, sealed).is_err(), "{plaintext:?}");
        }
    }
}
