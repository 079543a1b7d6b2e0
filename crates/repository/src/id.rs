//! Identifiers: SHA-256 digests, one type per noun.
//!
//! A pack's id cannot be passed where a snapshot's is wanted; the kind exists at compile time
//! only. Everything except `config` is named by the hash of what is stored under the name,
//! so an id is also what the content is verified against.
//!
//! # Source
//! restic, `doc/design.rst`, *Repository Layout*.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::sha256;

/// Length of an id in bytes.
pub const ID_BYTES: usize = 32;

/// How many hexadecimal digits of an id are shown to people.
const SHORT_DIGITS: usize = 8;

/// A SHA-256 digest that names a thing of kind `K`.
pub struct Id<K> {
    bytes: [u8; ID_BYTES],
    kind: PhantomData<fn() -> K>,
}

/// What ids can name. Uninhabited types: they exist for the compiler only.
pub mod kind {
    /// A piece of content or a tree: hash of its plaintext.
    #[derive(Debug)]
    pub enum Blob {}
    /// A file of sealed blobs: hash of the file.
    #[derive(Debug)]
    pub enum Pack {}
    /// A map from blobs to packs: hash of the file.
    #[derive(Debug)]
    pub enum Index {}
    /// A recorded state of a source: hash of the file.
    #[derive(Debug)]
    pub enum Snapshot {}
    /// A password's wrapping of the master key: hash of the file.
    #[derive(Debug)]
    pub enum Key {}
    /// A process at work in the repository: hash of the file.
    #[derive(Debug)]
    pub enum Lock {}
}

/// Names a blob (also a tree) by the hash of its plaintext.
pub type BlobId = Id<kind::Blob>;
/// Names a pack file.
pub type PackId = Id<kind::Pack>;
/// Names an index file.
pub type IndexId = Id<kind::Index>;
/// Names a snapshot file.
pub type SnapshotId = Id<kind::Snapshot>;
/// Names a key file.
pub type KeyId = Id<kind::Key>;
/// Names a lock file.
pub type LockId = Id<kind::Lock>;

impl<K> Id<K> {
    /// Wraps the bytes of a digest.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
        Self { bytes, kind: PhantomData }
    }

    /// The SHA-256 of `data`.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        Self::from_bytes(Sha256::digest(data).into())
    }

    /// The SHA-256 of each; quicker than one after the other.
    pub(crate) fn of_all(data: &[&[u8]]) -> Vec<Self> {
        let mut digests = vec![[0; ID_BYTES]; data.len()];
        sha256::digests(data, &mut digests);
        digests.into_iter().map(Self::from_bytes).collect()
    }

    /// The digest's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; ID_BYTES] {
        &self.bytes
    }

    /// Reads 64 lower-case hexadecimal digits; anything else is no id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * ID_BYTES {
            return None;
        }
        let mut bytes = [0; ID_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
        }
        Some(Self::from_bytes(bytes))
    }

    /// All 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.to_string()
    }

    /// The first eight hexadecimal digits, as people quote them.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..SHORT_DIGITS].to_owned()
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

// Written by hand because a derive would ask the same of the marker type `K`.
impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Id<K> {}

impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<K> Eq for Id<K> {}

impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes.cmp(&other.bytes)
    }
}

impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 2 * ID_BYTES];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<K> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, K> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex<K>(PhantomData<fn() -> K>);

        impl<K> de::Visitor<'_> for Hex<K> {
            type Value = Id<K>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 lower-case hexadecimal digits")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Id<K>, E> {
                Id::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Hex(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hashes_in_hex() {
        let id = BlobId::of(b"abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(id.to_hex(), hex);
        assert_eq!(id.short(), "ba7816bf");
        assert_eq!(BlobId::parse(hex), Some(id));
    }

    #[test]
    fn only_64_lower_case_digits_are_an_id() {
        let hex = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        assert_eq!(BlobId::parse(hex), None);
        assert_eq!(BlobId::parse("ba78"), None);
        assert_eq!(BlobId::parse(""), None);
        assert_eq!(BlobId::parse(&"é".repeat(32)), None);
    }
}
