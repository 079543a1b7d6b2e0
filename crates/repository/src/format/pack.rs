//! Pack files: sealed blobs one after another, then a sealed header, then its length.
//!
//! ```text
//! blob … blob | header (sealed) | length of the sealed header, u32 little endian
//! ```
//!
//! An entry of the header is 37 bytes for a blob stored as it is, 41 for a compressed one.
//! Offsets are not stored; they are the sums of the lengths before.
//!
//! # Source
//! restic, `doc/design.rst`, *Pack Format*; `internal/repository/pack/pack.go`.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::FormatError;
use crate::{
    crypto::{Key, OVERHEAD_BYTES},
    id::{BlobId, ID_BYTES},
};

/// What a blob holds. A pack holds blobs of one kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobKind {
    /// A chunk of a file's content.
    Data,
    /// A folder's entries.
    Tree,
}

impl BlobKind {
    /// The kind as restic writes it in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Tree => "tree",
        }
    }

    /// The longest plaintext of such a blob that is accepted, in bytes. restic and Muster cut
    /// files at 8 MiB at most; rustic can be told to use larger chunks. A tree is as large as
    /// its folder is: 1 GiB is a folder of some three million entries.
    #[must_use]
    pub fn plaintext_bytes_max(self) -> u32 {
        match self {
            Self::Data => 256 << 20,
            Self::Tree => 1 << 30,
        }
    }
}

/// Where a blob lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedBlob {
    /// Hash of the plaintext.
    pub id: BlobId,
    /// What the blob holds.
    pub kind: BlobKind,
    /// Where the sealed blob begins, in bytes from the start of the pack.
    pub offset: u32,
    /// Length of the sealed blob in bytes.
    pub length: u32,
    /// Length of the plaintext in bytes, when the blob is compressed.
    pub uncompressed_length: Option<NonZeroU32>,
}

impl PackedBlob {
    /// Length of the plaintext in bytes.
    #[must_use]
    pub fn plaintext_length(&self) -> u32 {
        let sealed = self.length.saturating_sub(OVERHEAD);
        self.uncompressed_length.map_or(sealed, NonZeroU32::get)
    }

    /// Checks lengths and position against what the format allows.
    ///
    /// # Errors
    /// Fails when the blob is shorter than an empty one, larger than any real one, or would
    /// reach beyond the 4 GiB that a pack can have.
    pub fn validate(&self) -> Result<(), FormatError> {
        let max = self.kind.plaintext_bytes_max();
        // zstd adds at most a few bytes per 128 KiB to what it cannot compress.
        let sealed_max = max + max / 128 + OVERHEAD;
        let fits = self.offset.checked_add(self.length).is_some();
        if self.length <= OVERHEAD || self.length > sealed_max || !fits {
            let Self { id, offset, length, .. } = self;
            let text = format!("blob {id} cannot be {length} bytes long at offset {offset}");
            return Err(FormatError::invalid(text));
        }
        if self.plaintext_length() > max {
            let text = format!("blob {} claims {} bytes", self.id, self.plaintext_length());
            return Err(FormatError::invalid(text));
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "32")]
const OVERHEAD: u32 = OVERHEAD_BYTES as u32;

/// Length of a header entry for a blob stored as it is, in bytes.
const ENTRY_BYTES: usize = 1 + 4 + ID_BYTES;
/// Length of a header entry for a compressed blob, in bytes.
const COMPRESSED_ENTRY_BYTES: usize = ENTRY_BYTES + 4;
/// Length of the field at the end of a pack, in bytes.
pub const LENGTH_FIELD_BYTES: usize = 4;
/// The longest sealed header that is accepted, as in restic.
pub const HEADER_BYTES_MAX: usize = 16 << 20;
/// How many blobs a pack can list in a header of the longest length.
pub const BLOBS_MAX: usize = (HEADER_BYTES_MAX - OVERHEAD_BYTES) / COMPRESSED_ENTRY_BYTES;
/// The shortest possible pack: one empty blob, a header of one entry, the length field.
const PACK_BYTES_MIN: u64 = (ENTRY_BYTES + OVERHEAD_BYTES + LENGTH_FIELD_BYTES) as u64;
/// How much of a pack's end is read at first: 15 entries, as restic guesses, which saves a
/// second request for small packs.
pub const TAIL_GUESS_BYTES: u64 =
    (15 * COMPRESSED_ENTRY_BYTES + OVERHEAD_BYTES + LENGTH_FIELD_BYTES) as u64;

/// How long a pack of exactly these blobs is, in bytes: blobs, header, length field.
#[must_use]
pub fn pack_bytes(blobs: &[PackedBlob]) -> u64 {
    let of_blob = |blob: &PackedBlob| {
        let compressed = blob.uncompressed_length.is_some();
        let entry = if compressed { COMPRESSED_ENTRY_BYTES } else { ENTRY_BYTES };
        u64::from(blob.length) + entry as u64
    };
    blobs.iter().map(of_blob).sum::<u64>() + (OVERHEAD_BYTES + LENGTH_FIELD_BYTES) as u64
}

/// Appends the sealed header for `blobs`, and its length, to `pack`.
///
/// # Errors
/// Fails when the system has no randomness, or the header would be longer than allowed.
pub fn append_header(
    key: &Key,
    blobs: &[PackedBlob],
    pack: &mut Vec<u8>,
) -> Result<(), FormatError> {
    let mut header = Vec::with_capacity(blobs.len() * COMPRESSED_ENTRY_BYTES);
    for blob in blobs {
        let compressed = blob.uncompressed_length.is_some();
        header.push(match (blob.kind, compressed) {
            (BlobKind::Data, false) => 0,
            (BlobKind::Tree, false) => 1,
            (BlobKind::Data, true) => 2,
            (BlobKind::Tree, true) => 3,
        });
        header.extend_from_slice(&blob.length.to_le_bytes());
        if let Some(length) = blob.uncompressed_length {
            header.extend_from_slice(&length.get().to_le_bytes());
        }
        header.extend_from_slice(blob.id.as_bytes());
    }
    let start = pack.len();
    key.seal(&header, pack).map_err(|error| FormatError::invalid(error.to_string()))?;
    let length = pack.len() - start;
    if length > HEADER_BYTES_MAX {
        return Err(FormatError::invalid("too many blobs for one pack"));
    }
    let field = u32::try_from(length).map_err(|_| FormatError::invalid("header too long"))?;
    pack.extend_from_slice(&field.to_le_bytes());
    Ok(())
}

/// How many bytes from the end of a pack of `pack_bytes` the header and its length take, given
/// the last four bytes of the pack.
///
/// # Errors
/// Fails when the length cannot be that of a header in a pack of this size.
pub fn header_span(length_field: [u8; 4], pack_bytes: u64) -> Result<usize, FormatError> {
    let length = u32::from_le_bytes(length_field) as usize;
    let span = length.saturating_add(LENGTH_FIELD_BYTES);
    if pack_bytes < PACK_BYTES_MIN {
        return Err(FormatError::invalid(format!("{pack_bytes} bytes are too few for a pack")));
    }
    let possible = OVERHEAD_BYTES + ENTRY_BYTES..=HEADER_BYTES_MAX;
    if !possible.contains(&length) || span as u64 > pack_bytes {
        let text = format!("a pack of {pack_bytes} bytes cannot have a header of {length}");
        return Err(FormatError::invalid(text));
    }
    Ok(span)
}

/// Reads a pack's header from `tail`, the last [`header_span`] bytes of the pack.
///
/// # Errors
/// Fails when the header is not authentic, an entry is of no known type or cut short, or the
/// blobs do not add up to exactly the bytes before the header.
pub fn read_header(
    key: &Key,
    tail: &[u8],
    pack_bytes: u64,
) -> Result<Vec<PackedBlob>, FormatError> {
    let (sealed, _length) = tail
        .split_last_chunk::<LENGTH_FIELD_BYTES>()
        .ok_or_else(|| FormatError::invalid("the pack's end is missing"))?;
    let mut header = Vec::new();
    key.open(sealed, &mut header)?;
    let mut blobs = Vec::with_capacity(header.len() / ENTRY_BYTES);
    let mut rest = header.as_slice();
    let mut offset: u32 = 0;
    while !rest.is_empty() {
        let blob;
        (blob, rest) = read_entry(rest, offset)?;
        blob.validate()?;
        offset += blob.length;
        blobs.push(blob);
    }
    if u64::from(offset) + tail.len() as u64 != pack_bytes {
        let text = format!(
            "the header lists {offset} bytes of blobs, the pack holds {}",
            pack_bytes.saturating_sub(tail.len() as u64)
        );
        return Err(FormatError::invalid(text));
    }
    Ok(blobs)
}

fn read_entry(bytes: &[u8], offset: u32) -> Result<(PackedBlob, &[u8]), FormatError> {
    let cut_short = || FormatError::invalid("the pack's header ends inside an entry");
    let (&kind, bytes) = bytes.split_first().ok_or_else(cut_short)?;
    let (length, bytes) = bytes.split_first_chunk().ok_or_else(cut_short)?;
    let (kind, compressed) = match kind {
        0 => (BlobKind::Data, false),
        1 => (BlobKind::Tree, false),
        2 => (BlobKind::Data, true),
        3 => (BlobKind::Tree, true),
        other => return Err(FormatError::invalid(format!("unknown kind of blob {other}"))),
    };
    let (uncompressed_length, bytes) = match compressed {
        false => (None, bytes),
        true => {
            let (field, bytes) = bytes.split_first_chunk().ok_or_else(cut_short)?;
            let length = NonZeroU32::new(u32::from_le_bytes(*field))
                .ok_or_else(|| FormatError::invalid("a compressed blob claims to be empty"))?;
            (Some(length), bytes)
        }
    };
    let (id, bytes) = bytes.split_first_chunk().ok_or_else(cut_short)?;
    let length = u32::from_le_bytes(*length);
    let id = BlobId::from_bytes(*id);
    Ok((PackedBlob { id, kind, offset, length, uncompressed_length }, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::KeyMaterial;

    fn blob(seed: u8, offset: u32, length: u32, uncompressed: u32) -> PackedBlob {
        PackedBlob {
            id: BlobId::of(&[seed]),
            kind: if seed.is_multiple_of(2) { BlobKind::Data } else { BlobKind::Tree },
            offset,
            length,
            uncompressed_length: NonZeroU32::new(uncompressed),
        }
    }

    fn key() -> Key {
        Key::new(KeyMaterial::random().unwrap())
    }

    #[test]
    fn headers_round_trip() {
        let key = key();
        let blobs =
            [blob(0, 0, 100, 0), blob(1, 100, 50, 300), blob(2, 150, 33, 1), blob(3, 183, 34, 0)];
        let mut pack = vec![0; 217];
        append_header(&key, &blobs, &mut pack).unwrap();
        let bytes = pack.len() as u64;
        let span = header_span(*pack.last_chunk().unwrap(), bytes).unwrap();
        assert_eq!(span, 217_usize.abs_diff(pack.len()));
        assert_eq!(read_header(&key, &pack[217..], bytes).unwrap(), blobs);
        assert_eq!(pack_bytes(&blobs), bytes);
    }

    #[test]
    fn blobs_must_fill_the_pack_exactly() {
        let key = key();
        let mut pack = vec![0; 101];
        append_header(&key, &[blob(0, 0, 100, 0)], &mut pack).unwrap();
        assert!(read_header(&key, &pack[101..], pack.len() as u64).is_err());
        assert!(read_header(&key, &pack[101..], pack.len() as u64 - 1).is_ok());
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for (length, pack_bytes) in
            [(0, 1000), (31, 1000), (68, 1000), (997, 1000), (u32::MAX, u64::MAX), (69, 72)]
        {
            assert!(header_span(length.to_le_bytes(), pack_bytes).is_err(), "{length}");
        }
        assert_eq!(header_span(69_u32.to_le_bytes(), 1000).unwrap(), 73);
    }

    #[test]
    fn lying_blobs_are_refused() {
        for lying in [blob(0, 0, 32, 0), blob(0, u32::MAX, 100, 0), blob(0, 0, 100, u32::MAX)] {
            assert!(lying.validate().is_err(), "{lying:?}");
        }
    }
}
