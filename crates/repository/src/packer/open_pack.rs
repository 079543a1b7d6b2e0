//! A pack that is being filled, in memory or in the store.

use std::{mem, sync::Arc};

use crossbeam_channel::Sender;

use super::{
    WriteError,
    sealer::SealedBytes,
    unhashed::{LateHash, Unhashed},
};
use crate::{
    format::{FormatError, pack::PackedBlob},
    id::PackId,
    storage::{PackFile, StorageError},
};

/// A pack that is being filled.
#[derive(Default)]
pub(super) struct OpenPack {
    /// Its content, but for what is in the file.
    pub(super) bytes: Vec<u8>,
    pub(super) blobs: Vec<PackedBlob>,
    /// Whether `bytes` is one of the pool's buffers.
    pub(super) pooled: bool,
    pub(super) file: Option<Spill>,
    /// How many bytes count as done when this is stored.
    pub(super) counted: u64,
}

/// The first part of a pack's content, given to the store already.
pub(super) struct Spill {
    file: Box<dyn PackFile>,
    bytes: u64,
    hash: Arc<LateHash>,
    unhashed: Arc<Unhashed>,
    /// How much is gathered before it is written.
    gathered_max: usize,
}

impl Spill {
    pub(super) fn new(
        file: Box<dyn PackFile>,
        unhashed: &Arc<Unhashed>,
        gathered_max: usize,
    ) -> Self {
        let (hash, unhashed) = (unhashed.begin(), Arc::clone(unhashed));
        Self { file, bytes: 0, hash, unhashed, gathered_max }
    }

    /// An empty buffer to gather in.
    pub(super) fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.unhashed.spare();
        buffer.clear();
        buffer
    }

    /// Writes what is not given away.
    fn write(&mut self, piece: &[u8]) -> Result<(), StorageError> {
        self.file.append(piece)?;
        self.bytes += piece.len() as u64;
        self.unhashed.add_now(&self.hash, piece);
        Ok(())
    }

    /// Writes the content of a buffer, and keeps that until it is hashed.
    fn write_buffer(&mut self, buffer: Vec<u8>) -> Result<(), StorageError> {
        if buffer.is_empty() {
            return Ok(());
        }
        self.file.append(&buffer)?;
        self.bytes += buffer.len() as u64;
        self.unhashed.add(&self.hash, buffer);
        Ok(())
    }

    /// Stores the pack, which ends with `last`.
    pub(super) fn finish(mut self, last: &[u8]) -> Result<PackId, StorageError> {
        self.file.append(last)?;
        let id = self.unhashed.finish(&self.hash, last);
        self.file.finish(id)?;
        Ok(id)
    }
}

impl OpenPack {
    pub(super) fn append(
        &mut self,
        mut blob: PackedBlob,
        sealed: SealedBytes<'_>,
    ) -> Result<(), WriteError> {
        let too_long = |_| FormatError::invalid("a pack would be longer than 4 GiB");
        blob.offset = u32::try_from(self.bytes()).map_err(too_long)?;
        blob.validate()?;
        self.blobs.push(blob);
        self.take(sealed)
    }

    /// Takes what comes next of the content; writes it on, where that is possible and it is much.
    fn take(&mut self, sealed: SealedBytes<'_>) -> Result<(), WriteError> {
        if let Some(spill) = &mut self.file
            && self.bytes.len() + sealed.len() > spill.gathered_max
        {
            if !self.bytes.is_empty() {
                spill.write_buffer(mem::replace(&mut self.bytes, spill.buffer()))?;
            }
            // Worth a call of its own.
            if sealed.len() > spill.gathered_max / 16 {
                return match sealed {
                    SealedBytes::Kept(bytes) => Ok(spill.write(bytes)?),
                    SealedBytes::Given(buffer) => {
                        Ok(spill.write_buffer(mem::replace(buffer, spill.unhashed.spare()))?)
                    }
                };
            }
        }
        self.bytes.extend_from_slice(&sealed);
        Ok(())
    }

    /// Writes on what was gathered, where the store has the rest: a pack that waits for the store takes no
    /// more than what is not hashed of it.
    pub(super) fn give_up_buffer(&mut self) -> Result<(), WriteError> {
        if let Some(spill) = self.file.as_mut().filter(|spill| spill.bytes > 0) {
            spill.write_buffer(mem::take(&mut self.bytes))?;
        }
        Ok(())
    }

    /// The length of the content so far.
    pub(super) fn bytes(&self) -> u64 {
        self.spilled() + self.bytes.len() as u64
    }

    /// How much of the content the store has.
    pub(super) fn spilled(&self) -> u64 {
        self.file.as_ref().map_or(0, |spill| spill.bytes)
    }

    /// Adds the blobs of `other`, of which the store has nothing, if both fit into one pack. Gives
    /// back what could not be added.
    pub(super) fn merge(
        &mut self,
        other: Self,
        bytes_max: u64,
    ) -> Result<Option<Self>, WriteError> {
        if other.spilled() > 0 || self.bytes() + other.bytes() >= bytes_max {
            return Ok(Some(other));
        }
        for blob in &other.blobs {
            let start = blob.offset as usize;
            let bytes = SealedBytes::Kept(&other.bytes[start..start + blob.length as usize]);
            self.append(*blob, bytes)?;
        }
        self.counted += other.counted;
        Ok(None)
    }

    /// Gives the buffer back to the pool that it is from, once.
    pub(super) fn give_back(&mut self, pool: &Sender<Vec<u8>>) {
        if mem::take(&mut self.pooled) {
            let mut bytes = mem::take(&mut self.bytes);
            bytes.clear();
            // A pool that is gone wants nothing back.
            drop(pool.try_send(bytes));
        }
    }
}
