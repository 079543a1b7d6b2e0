//! How much plaintext is in flight between readers and workers.

use std::sync::{Arc, Condvar, Mutex};

use super::pipeline::lock;
use crate::{chunker::CHUNK_BYTES_MAX, packer::WriteError};

/// Buffers for chunks of large files: two readers fill one each, two workers empty one each,
/// and some wait in between. Each holds 8 MiB at most; a chunk is 1.5 MiB on average.
const CHUNK_BUFFERS: usize = 7;

/// Small files and trees on their way to the workers, at most, in bytes.
const PLAINTEXT_BYTES: usize = 8 << 20;

/// Plaintext in flight; gives back to the budget what it took when dropped.
pub(super) struct Plaintext {
    pub(super) bytes: Vec<u8>,
    taken: Taken,
    budget: Arc<Budget>,
}

/// What a plaintext took from the budget.
#[derive(Clone, Copy)]
enum Taken {
    /// One of the chunk buffers.
    Buffer,
    /// So many bytes.
    Bytes(usize),
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        self.budget.give_back(std::mem::take(&mut self.bytes), self.taken);
    }
}

/// Bounds the plaintext in flight: a number of buffers that hold a chunk of a large file each,
/// and a number of bytes for all else. The buffers are made once and kept, because memory that
/// is freed and taken again in megabytes ends up in pieces.
pub(super) struct Budget {
    state: Mutex<BudgetState>,
    changed: Condvar,
}

struct BudgetState {
    closed: bool,
    bytes_free: usize,
    buffers_unmade: usize,
    buffers: Vec<Vec<u8>>,
}

impl Budget {
    pub(super) fn new() -> Arc<Self> {
        let state = BudgetState {
            closed: false,
            bytes_free: PLAINTEXT_BYTES,
            buffers_unmade: CHUNK_BUFFERS,
            buffers: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Ends all waiting: a worker failed, and nothing more will be written.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    /// An empty buffer for a chunk, after a wait when all are in use.
    pub(super) fn buffer(self: &Arc<Self>) -> Result<Plaintext, WriteError> {
        let mut state = lock(&self.state);
        let bytes = loop {
            if state.closed {
                return Err(WriteError::Aborted);
            }
            if let Some(buffer) = state.buffers.pop() {
                break buffer;
            }
            if state.buffers_unmade > 0 {
                state.buffers_unmade -= 1;
                break Vec::with_capacity(CHUNK_BYTES_MAX);
            }
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        };
        drop(state);
        Ok(Plaintext { bytes, taken: Taken::Buffer, budget: Arc::clone(self) })
    }

    /// Counts `bytes`, after a wait when too much is in flight. Anything is let through when
    /// nothing else is, so that a tree larger than the budget passes.
    pub(super) fn admit(self: &Arc<Self>, bytes: Vec<u8>) -> Result<Plaintext, WriteError> {
        let counted = bytes.len().min(PLAINTEXT_BYTES);
        let mut state = lock(&self.state);
        while state.bytes_free < counted && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if state.closed {
            return Err(WriteError::Aborted);
        }
        state.bytes_free -= counted;
        drop(state);
        Ok(Plaintext { bytes, taken: Taken::Bytes(counted), budget: Arc::clone(self) })
    }

    fn give_back(&self, mut bytes: Vec<u8>, taken: Taken) {
        let mut state = lock(&self.state);
        match taken {
            Taken::Bytes(counted) => state.bytes_free += counted,
            Taken::Buffer => {
                bytes.clear();
                state.buffers.push(bytes);
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}
