//! Sealing blobs: compress, seal, open again, compare. Where they go is decided elsewhere.

use std::{num::NonZeroU32, ops::Deref};

use super::{PackWriter, WriteError};
use crate::{
    chunker::pages::RECORDS_BYTES,
    compression::{CompressionLevel, Compressor, Decompressor},
    crypto::{Key, OVERHEAD_BYTES},
    format::{
        FormatError,
        config::Version,
        pack::{BlobKind, PackedBlob},
    },
    id::BlobId,
    large_tree::{CompressedTree, StoredTree},
    repository::Repository,
};

/// Compresses, seals and verifies blobs on one thread; contexts and buffers are reused.
pub struct Sealer<'k> {
    key: &'k Key,
    compress: bool,
    pub(super) verify: bool,
    compressor: Compressor,
    /// For the lower pieces of an index's pages, which are told by their length.
    record_compressor: Compressor,
    decompressor: Decompressor,
    /// The compressed blob, and after sealing what was opened again of that.
    compressed: Vec<u8>,
    sealed: Vec<u8>,
    plaintext: Vec<u8>,
}

/// A sealed blob, as it lies in a pack.
#[derive(Debug)]
pub struct Sealed<'a> {
    /// IV, ciphertext and MAC.
    pub bytes: SealedBytes<'a>,
    /// Length of the plaintext when it is compressed.
    pub uncompressed_length: Option<NonZeroU32>,
}

/// The bytes of a sealed blob.
#[derive(Debug)]
pub enum SealedBytes<'a> {
    /// They stay where they are.
    Kept(&'a [u8]),
    /// Who takes them may keep the buffer, and leave another with content of no use.
    Given(&'a mut Vec<u8>),
}

impl Deref for SealedBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Kept(bytes) => bytes,
            Self::Given(buffer) => buffer,
        }
    }
}

impl<'k> Sealer<'k> {
    /// A sealer for a repository.
    ///
    /// # Errors
    /// Fails when zstd cannot allocate its tables.
    pub fn new(repository: &'k Repository, level: CompressionLevel) -> Result<Self, FormatError> {
        Ok(Self {
            key: repository.key(),
            verify: true,
            compress: repository.config().version >= Version::V2 && level != CompressionLevel::Off,
            compressor: Compressor::new(level)?,
            record_compressor: Compressor::for_records(level)?,
            decompressor: Decompressor::new()?,
            compressed: Vec::new(),
            sealed: Vec::new(),
            plaintext: Vec::new(),
        })
    }

    /// Makes room for blobs of up to `bytes` at once: buffers that grow with the blobs would
    /// leave holes behind. Room that is not used costs nothing.
    pub(super) fn reserve(&mut self, bytes: usize) {
        let bytes = bytes + bytes / 128 + OVERHEAD_BYTES;
        for buffer in [&mut self.compressed, &mut self.sealed, &mut self.plaintext] {
            buffer.reserve_exact(bytes);
        }
    }

    /// Seals a blob and opens it again, unless that was declined: what is stored is proven to be
    /// readable.
    ///
    /// # Errors
    /// Fails when zstd or the system's randomness fail, or what was sealed does not open to
    /// exactly `plaintext`.
    pub fn seal(&mut self, id: BlobId, plaintext: &[u8]) -> Result<Sealed<'_>, WriteError> {
        let uncompressed_length = self.compress(plaintext)?;
        let content = if uncompressed_length.is_some() { &self.compressed } else { plaintext };
        self.key.seal_over(content, &mut self.sealed)?;
        if self.verify {
            self.verify(id, plaintext, uncompressed_length)?;
        }
        Ok(Sealed { bytes: SealedBytes::Given(&mut self.sealed), uncompressed_length })
    }

    /// Seals a large tree, which is compressed already, and writes it to a pack. One copy of it is in
    /// memory at a time, unless it lies in a pack with others or the pack is in memory.
    ///
    /// # Errors
    /// As [`Sealer::seal`] and [`PackWriter::add`].
    pub(crate) fn write_tree(
        &mut self,
        writer: &PackWriter<'_>,
        tree: CompressedTree,
    ) -> Result<(), WriteError> {
        let CompressedTree { id, behind_room: mut sealed, plaintext_bytes } = tree;
        self.key.seal_in_place(&mut sealed)?;
        let too_long = |_| FormatError::invalid("a blob is longer than 4 GiB");
        let length = u32::try_from(sealed.len()).map_err(too_long)?;
        let uncompressed_length = Some(plaintext_bytes);
        let kind = BlobKind::Tree;
        let blob = PackedBlob { id, kind, offset: 0, length, uncompressed_length };
        let plaintext_bytes = u64::from(plaintext_bytes.get());
        let verify = |sealed: Vec<u8>| {
            if !self.verify {
                return Ok(());
            }
            StoredTree::open(self.key, sealed, true)
                .and_then(|tree| tree.verify(id, plaintext_bytes))
                .map_err(|_| WriteError::NotVerified { id })
        };
        if writer.is_oversized(length) {
            return writer.add_oversized_tree(blob, plaintext_bytes, sealed, verify);
        }
        verify(sealed.clone())?;
        let bytes = SealedBytes::Given(&mut sealed);
        writer.add(kind, id, plaintext_bytes, Sealed { bytes, uncompressed_length })
    }

    /// Compresses into `self.compressed`; `None` when that does not make the blob smaller.
    fn compress(&mut self, plaintext: &[u8]) -> Result<Option<NonZeroU32>, FormatError> {
        if !self.compress || plaintext.is_empty() {
            return Ok(None);
        }
        // Who copies a blob knows no more of it than its content.
        let compressor = match plaintext.len() == RECORDS_BYTES {
            true => &mut self.record_compressor,
            false => &mut self.compressor,
        };
        if !compressor.compress(plaintext, &mut self.compressed)? {
            return Ok(None);
        }
        let length = u32::try_from(plaintext.len())
            .map_err(|_| FormatError::invalid("a blob is longer than 4 GiB"))?;
        Ok(NonZeroU32::new(length))
    }

    fn verify(
        &mut self,
        id: BlobId,
        plaintext: &[u8],
        uncompressed_length: Option<NonZeroU32>,
    ) -> Result<(), WriteError> {
        let not_verified = || WriteError::NotVerified { id };
        let same = match uncompressed_length {
            None => self.key.opens_to(&self.sealed, plaintext, &mut self.compressed),
            Some(length) => {
                self.key.open(&self.sealed, &mut self.compressed).map_err(|_| not_verified())?;
                self.decompressor
                    .decompress_exact(&self.compressed, length.get() as usize, &mut self.plaintext)
                    .map_err(|_| not_verified())?;
                self.plaintext == plaintext
            }
        };
        if same { Ok(()) } else { Err(not_verified()) }
    }
}
