//! From sealed bytes to a blob.

use super::ReadError;
use crate::{
    compression::Decompressor, crypto::Key, format::FormatError, id::BlobId, index::Location,
    large_tree::StoredTree,
};

/// Opens sealed blobs: authenticates, decrypts, decompresses, and compares with the id.
pub struct BlobOpener<'k> {
    key: &'k Key,
    decompressor: Decompressor,
}

impl<'k> BlobOpener<'k> {
    /// An opener with a context of its own.
    ///
    /// # Errors
    /// Fails when zstd cannot allocate its tables.
    pub fn new(key: &'k Key) -> Result<Self, ReadError> {
        let decompressor = Decompressor::new().map_err(ReadError::Decoder)?;
        Ok(Self { key, decompressor })
    }

    /// Opens the `sealed` bytes of the blob at `location` into `plaintext`. The sealed bytes
    /// are overwritten.
    ///
    /// # Errors
    /// Fails when the blob is not what its id says; `plaintext` is of no use then.
    pub fn open(
        &mut self,
        location: &Location,
        sealed: &mut [u8],
        plaintext: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        self.open_blob(location, sealed, plaintext).map_err(|source| ReadError::DamagedBlob {
            kind: location.blob.kind,
            id: location.blob.id,
            pack: Some(location.pack),
            source,
        })
    }

    /// Opens a large tree; it is not decompressed.
    pub(super) fn open_tree(
        &self,
        location: &Location,
        sealed: Vec<u8>,
    ) -> Result<StoredTree, FormatError> {
        StoredTree::open(self.key, sealed, location.blob.uncompressed_length.is_some())
    }

    fn open_blob(
        &mut self,
        location: &Location,
        sealed: &mut [u8],
        plaintext: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        match location.blob.uncompressed_length {
            None => self.key.open(sealed, plaintext)?,
            Some(length) => {
                let opened = self.key.open_in_place(sealed)?;
                self.decompressor.decompress_exact(opened, length.get() as usize, plaintext)?;
            }
        }
        let actual = BlobId::of(plaintext);
        match actual == location.blob.id {
            true => Ok(()),
            false => Err(FormatError::WrongHash { actual: actual.to_hex() }),
        }
    }
}
