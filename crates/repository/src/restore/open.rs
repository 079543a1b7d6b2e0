//! Opening the chunks of a range, several at once.
//!
//! Several are verified side by side (`crate::sha256`), and the more there are, the less of one is left
//! to be verified alone. What is stored as it is, is decrypted where it was read; what
//! is compressed goes into one buffer, one behind the other, so that memory does not grow with the
//! number of chunks.
//!
//! Deliberately not here: which chunks are wanted where (`plan`), and writing them (`write`).

use std::{iter::Peekable, ops, sync::Arc};

use super::{plan::Want, report::ProblemCause};
use crate::{
    compression::Decompressor,
    crypto::{IV_BYTES, Key},
    format::{FormatError, pack::BlobKind},
    id::BlobId,
    index::Location,
    repository::{BlobReader, IndexedRepository, ReadError},
};

/// Buffers that a chunk of unusual length made larger than this many bytes are given back.
pub(super) const BUFFER_KEPT_BYTES_MAX: usize = 16 << 20;

/// What was read of a pack for a job.
#[derive(Debug, Default)]
pub(super) struct Range {
    /// Where it begins in the pack, in bytes.
    pub(super) offset: u32,
    /// Its content; opening changes it.
    pub(super) bytes: Vec<u8>,
    pub(super) is_read: bool,
}

impl Range {
    /// Where a chunk lies in `bytes`, unless it could not be read.
    fn sealed(&self, place: &Location) -> Option<ops::Range<usize>> {
        let start = place.blob.offset.checked_sub(self.offset)? as usize;
        let end = start.checked_add(place.blob.length as usize)?;
        (self.is_read && end <= self.bytes.len()).then_some(start..end)
    }
}

/// A chunk that is about to be written.
pub(super) struct Chunk<'w> {
    /// Where it is wanted.
    pub(super) group: &'w [Want],
    /// Where it was planned to be read.
    place: Location,
    plaintext: Plaintext,
}

/// Where the plaintext of a chunk lies.
enum Plaintext {
    /// It is not open.
    Nowhere,
    /// Where it was read.
    Range(ops::Range<usize>),
    /// In the room for what is decompressed together.
    Room(ops::Range<usize>),
    /// In a buffer alone.
    Alone,
}

impl<'w> Chunk<'w> {
    pub(super) fn new(group: &'w [Want], place: Location) -> Self {
        Self { group, place, plaintext: Plaintext::Nowhere }
    }

    /// How long it is by the index, in bytes.
    fn bytes(&self) -> usize {
        self.place.blob.plaintext_length() as usize
    }

    /// Whether it may be opened with chunks of so many bytes.
    fn joins(&self, bytes: usize, together: usize) -> bool {
        bytes.saturating_add(self.bytes()) <= together
    }
}

/// One thread's tools.
pub(super) struct Opener<'a> {
    key: &'a Key,
    decompressor: Decompressor,
    reader: BlobReader<'a>,
    /// How many bytes are opened together at most.
    together: usize,
    room: Vec<u8>,
    alone: Vec<u8>,
}

impl<'a> Opener<'a> {
    pub(super) fn new(
        repository: &'a IndexedRepository,
        together: usize,
    ) -> Result<Self, ReadError> {
        Ok(Self {
            together,
            key: repository.key(),
            decompressor: Decompressor::new().map_err(ReadError::Decoder)?,
            reader: repository.blob_reader()?,
            room: Vec::new(),
            alone: Vec::new(),
        })
    }

    /// Takes the chunks that are next and may be opened together.
    pub(super) fn take_together<'w>(
        &self,
        chunks: &mut Peekable<impl Iterator<Item = Chunk<'w>>>,
    ) -> Vec<Chunk<'w>> {
        let mut taken: Vec<Chunk<'w>> = chunks.next().into_iter().collect();
        let mut bytes: usize = taken.iter().map(Chunk::bytes).sum();
        while let Some(next) = chunks.next_if(|next| next.joins(bytes, self.together)) {
            bytes += next.bytes();
            taken.push(next);
        }
        taken
    }

    /// Opens chunks that were taken together from the range that they lie in.
    pub(super) fn open(&mut self, chunks: &mut [Chunk<'_>], range: &mut Range) {
        let mut used = 0;
        for chunk in &mut *chunks {
            // When the range cannot be read, each chunk is tried alone, and its other copies.
            let Some(sealed) = range.sealed(&chunk.place) else { continue };
            let start = sealed.start;
            let opened = self.open_unnamed(&chunk.place, &mut range.bytes[sealed], &mut used);
            chunk.plaintext = match opened {
                Ok(Plaintext::Range(part)) => {
                    Plaintext::Range(start + part.start..start + part.end)
                }
                Ok(plaintext) => plaintext,
                Err(_) => Plaintext::Nowhere,
            };
        }
        let plaintexts: Vec<&[u8]> =
            chunks.iter().map(|chunk| self.plaintext(chunk, range)).collect();
        let ids = BlobId::of_all(&plaintexts);
        for (chunk, id) in chunks.iter_mut().zip(ids) {
            if id != chunk.place.blob.id {
                chunk.plaintext = Plaintext::Nowhere;
            }
        }
    }

    /// Opens a chunk, which is still to be compared with its id. `used` is how much of the room holds
    /// others.
    fn open_unnamed(
        &mut self,
        place: &Location,
        sealed: &mut [u8],
        used: &mut usize,
    ) -> Result<Plaintext, FormatError> {
        let opened = self.key.open_in_place(sealed)?;
        let Some(length) = place.blob.uncompressed_length else {
            return Ok(Plaintext::Range(IV_BYTES..IV_BYTES + opened.len()));
        };
        let length = length.get() as usize;
        // Memory for more is not taken on the word of the index before something came out.
        if *used + length > self.together {
            self.decompressor.decompress_exact(opened, length, &mut self.alone)?;
            return Ok(Plaintext::Alone);
        }
        self.room.resize(self.together, 0);
        let part = *used..*used + length;
        self.decompressor.decompress_into(opened, &mut self.room[part.clone()])?;
        *used = part.end;
        Ok(Plaintext::Room(part))
    }

    fn plaintext<'b>(&'b self, chunk: &Chunk<'_>, range: &'b Range) -> &'b [u8] {
        match &chunk.plaintext {
            Plaintext::Nowhere => &[],
            Plaintext::Range(part) => &range.bytes[part.clone()],
            Plaintext::Room(part) => &self.room[part.clone()],
            Plaintext::Alone => &self.alone,
        }
    }

    /// What a chunk holds, from wherever a copy of it lies.
    pub(super) fn content<'b>(
        &'b mut self,
        chunk: &Chunk<'_>,
        range: &'b Range,
    ) -> Result<&'b [u8], ProblemCause> {
        let id = chunk.place.blob.id;
        let plaintext = match chunk.plaintext {
            Plaintext::Nowhere => {
                self.reader.read(BlobKind::Data, id, &mut self.alone).map_err(Arc::new)?;
                &self.alone
            }
            _ => self.plaintext(chunk, range),
        };
        match plaintext.len() == chunk.bytes() {
            true => Ok(plaintext),
            false => Err(ProblemCause::Damaged(format!(
                "chunk {id} is {} bytes long, where the index says {}",
                plaintext.len(),
                chunk.bytes()
            ))),
        }
    }

    /// Gives back buffers that an unusual chunk made large.
    pub(super) fn shrink(&mut self) {
        if self.alone.capacity() > BUFFER_KEPT_BYTES_MAX {
            self.alone = Vec::new();
        }
    }
}
