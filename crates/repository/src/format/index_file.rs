//! Index files: which blobs lie in which packs, and where.
//!
//! All blobs of a pack stand in the same index file. The section `packs_to_delete` is
//! rustic's: packs that nothing references any more and that wait for their deletion. restic
//! reads over it, and drops it when it writes the index anew.
//!
//! # Source
//! restic, `doc/design.rst`, *Indexing*; rustic, `repofile/indexfile.rs`.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::{
    FormatError,
    pack::{BlobKind, PackedBlob},
    time::Timestamp,
};
use crate::id::{BlobId, PackId};

/// An index file's content.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IndexFile {
    /// The packs and what they hold.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub packs: Vec<IndexPack>,
    /// Packs that `prune`, or rustic, marked for deletion.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub packs_to_delete: Vec<MarkedPack>,
}

/// A pack that waits for its deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkedPack {
    /// The pack.
    pub id: PackId,
    /// Its blobs; none when no index listed the pack when it was marked.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub blobs: Vec<IndexBlob>,
    /// When it was marked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// The size of its file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// One pack and the blobs in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexPack {
    /// The pack.
    pub id: PackId,
    /// Its blobs, in any order.
    pub blobs: Vec<IndexBlob>,
}

/// One blob of a pack, as it stands in an index file. Lengths and offsets are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexBlob {
    id: BlobId,
    #[serde(rename = "type")]
    kind: BlobKind,
    offset: u32,
    length: u32,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "zero_is_none")]
    uncompressed_length: Option<NonZeroU32>,
}

impl From<PackedBlob> for IndexBlob {
    fn from(blob: PackedBlob) -> Self {
        let PackedBlob { id, kind, offset, length, uncompressed_length } = blob;
        Self { id, kind, offset, length, uncompressed_length }
    }
}

impl From<IndexBlob> for PackedBlob {
    fn from(blob: IndexBlob) -> Self {
        let IndexBlob { id, kind, offset, length, uncompressed_length } = blob;
        Self { id, kind, offset, length, uncompressed_length }
    }
}

impl IndexFile {
    /// Checks every entry against what the format allows.
    ///
    /// # Errors
    /// Fails at the first blob whose length or position cannot be.
    pub fn validated(self) -> Result<Self, FormatError> {
        let marked = self.packs_to_delete.iter().flat_map(|pack| &pack.blobs);
        for blob in self.packs.iter().flat_map(|pack| &pack.blobs).chain(marked) {
            PackedBlob::from(*blob).validate()?;
        }
        Ok(self)
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn zero_is_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<NonZeroU32>, D::Error> {
    Ok(Option::<u32>::deserialize(from)?.and_then(NonZeroU32::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_written() {
        let blob = PackedBlob {
            id: BlobId::of(b"x"),
            kind: BlobKind::Tree,
            offset: 7,
            length: 40,
            uncompressed_length: None,
        };
        let pack = IndexPack { id: PackId::of(b"p"), blobs: vec![blob.into()] };
        let file = IndexFile { packs: vec![pack], packs_to_delete: vec![] };
        let json = serde_json::to_string(&file).unwrap();
        assert!(json.contains(r#""type":"tree","offset":7,"length":40}"#), "{json}");
        assert!(!json.contains("packs_to_delete") && !json.contains("uncompressed"));
        let back: IndexFile = serde_json::from_str(&json).unwrap();
        assert_eq!(back.validated().unwrap(), file);
    }

    #[test]
    fn other_tools_fields_are_read_over() {
        let id = BlobId::of(b"x");
        let json = format!(
            r#"{{"supersedes":["{id}"],"packs":null,"packs_to_delete":[{{"id":"{id}","blobs":[
               {{"id":"{id}","type":"data","offset":0,"length":99,"uncompressed_length":0}}],
               "time":"2024-01-01T00:00:00Z","size":1}}]}}"#
        );
        let file: IndexFile = serde_json::from_str(&json).unwrap();
        let marked = &file.packs_to_delete[0];
        assert_eq!(marked.blobs[0].uncompressed_length, None);
        assert_eq!(
            (marked.time.map(|time| time.seconds()), marked.size),
            (Some(1_704_067_200), Some(1))
        );
    }
}
