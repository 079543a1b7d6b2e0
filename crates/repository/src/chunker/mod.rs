//! Cuts data into chunks by its content, exactly where restic does.
//!
//! A chunk ends where the Rabin fingerprint of the last [64 bytes](WINDOW_BYTES) has its low 20
//! bits zero, but not below [`CHUNK_BYTES_MIN`] and never beyond [`CHUNK_BYTES_MAX`]. Bytes put in
//! or taken out in the middle of a file move its cuts only until the next such place, and all
//! chunks after it are known already.
//!
//! # Why this is not a transcription of restic's loop
//!
//! restic restarts the fingerprint at every cut with a window of zeros and a single 1 in it. Since
//! a chunk is longer than the window, those are gone before the first place where a cut is allowed.
//! **So whether a place may be a cut depends on the 64 bytes before it and on nothing else.** That
//! lets us keep no window and no state between calls: the chunk under construction lies in one
//! piece in the caller's vector, and `find_cut` looks at any part of it. It also means that a run
//! of zeros, whose fingerprint is zero, is cut at the minimum at once; a sparse file costs a copy
//! and the fingerprint of one window per chunk.
//!
//! A reader of the repository never needs any of this: chunks join to the file wherever they were
//! cut. To cut elsewhere than restic would cost deduplication between the two, not data.

pub(crate) mod pages;
mod polynomial;
mod scan;
#[cfg(target_arch = "x86_64")]
mod wide;

use std::{
    io::{self, Read},
    sync::Arc,
};

pub use polynomial::{Polynomial, PolynomialError};
pub use scan::Tables;
use scan::{find_cut, find_cut_behind};

/// A chunk is at least this long (512 KiB) unless the input ends; below it, the overhead of a
/// blob in index and pack headers would outweigh what finer cuts deduplicate.
///
/// # Source
///
/// restic/chunker, `chunker.go`: `MinSize`.
pub const CHUNK_BYTES_MIN: usize = 512 * KIB;

/// A chunk is at most this long (8 MiB), which bounds the memory for one in flight.
///
/// # Source
///
/// restic/chunker, `chunker.go`: `MaxSize`.
pub const CHUNK_BYTES_MAX: usize = 8 * MIB;

/// The fingerprint is that of this many bytes.
///
/// # Source
///
/// restic/chunker, `chunker.go`: `windowSize`.
pub const WINDOW_BYTES: usize = 64;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Cuts what a reader delivers into chunks.
///
/// Holds what was read beyond the last chunk (256 KiB at most) and nothing else of size;
/// [`Chunker::reset`] keeps the room, so that one chunker serves any number of files.
///
/// ```
/// use std::{
///     io::{self, Read},
///     sync::Arc,
/// };
///
/// use muster_repository::chunker::{Chunker, Polynomial, Tables};
///
/// let polynomial = Polynomial::parse("3da3358b4dc173").expect("a valid polynomial");
/// let mut chunker = Chunker::new(Arc::new(Tables::new(polynomial)), io::repeat(0).take(600_000));
/// let mut chunk = Vec::new();
/// let mut lengths = Vec::new();
/// while chunker.next_chunk(&mut chunk)? {
///     lengths.push(chunk.len());
/// }
/// assert_eq!(lengths, [524_288, 75_712]);
/// # Ok::<(), io::Error>(())
/// ```
#[derive(Debug)]
pub struct Chunker<R> {
    tables: Arc<Tables>,
    reader: R,
    /// Read already, and behind the end of the last chunk.
    rest: Vec<u8>,
}

impl<R: Read> Chunker<R> {
    /// Starts to chunk what `reader` delivers.
    ///
    /// It is read in large pieces, so a buffer in front of it would only be in the way.
    pub fn new(tables: Arc<Tables>, reader: R) -> Self {
        Self { tables, reader, rest: Vec::with_capacity(READ_BYTES) }
    }

    /// Drops what is left of the old reader and starts with another.
    pub fn reset(&mut self, reader: R) {
        self.reader = reader;
        self.rest.clear();
    }

    /// Replaces the content of `into` by the next chunk, or returns `false` when there is none.
    ///
    /// An input without bytes has no chunks. Pass the same vector again and again: it grows to the
    /// largest chunk once, and nothing else is allocated. The input is read to where the chunk
    /// will lie; only what turns out to be behind its end is copied.
    ///
    /// # Errors
    ///
    /// When the reader fails, other than by [`io::ErrorKind::Interrupted`]. The chunk is lost; the
    /// chunker is of use again after [`Chunker::reset`].
    pub fn next_chunk(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        into.clear();
        into.append(&mut self.rest);
        let mut searched = 0;
        loop {
            if let Some(cut) = self.find_end(into, &mut searched) {
                self.rest.extend_from_slice(&into[cut..]);
                into.truncate(cut);
                return Ok(true);
            }
            if self.read(into)? == 0 {
                return Ok(!into.is_empty());
            }
        }
    }

    /// How many bytes were taken from the reader that belong to the chunks to come.
    pub(crate) fn read_ahead(&self) -> usize {
        self.rest.len()
    }

    /// Forgets the bytes that were read ahead; the caller moved the reader to where the next chunk
    /// begins.
    pub(crate) fn drop_read_ahead(&mut self) {
        self.rest.clear();
    }

    /// Finds where the chunk ends that begins `data`, of which the places up to `searched` are no
    /// ends. `None` when more data is needed.
    fn find_end(&self, data: &[u8], searched: &mut usize) -> Option<usize> {
        while *searched < data.len() {
            let from = *searched;
            *searched = (from.max(CHUNK_BYTES_MIN) + SCAN_BYTES).min(data.len());
            let cut = match from < CHUNK_BYTES_MIN {
                true if data.len() < CHUNK_BYTES_MIN => None,
                true => find_cut(&self.tables, &data[..*searched], CHUNK_BYTES_MIN),
                false => find_cut_behind(&self.tables, &data[..*searched], from),
            };
            let end = cut.or((*searched == CHUNK_BYTES_MAX).then_some(CHUNK_BYTES_MAX));
            if end.is_some() {
                return end;
            }
        }
        None
    }

    /// Appends what the reader has next, and returns how many bytes that is; 0 at its end.
    fn read(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        let wanted = READ_BYTES.min(CHUNK_BYTES_MAX - into.len());
        self.reader.by_ref().take(wanted as u64).read_to_end(into)
    }
}

/// What is read at a time (256 KiB): long enough that the system call does not count, short enough
/// that little lies behind a chunk's end and has to be copied, and that it stays in a core's own
/// cache until it is scanned.
const READ_BYTES: usize = 256 * KIB;

/// How far to look for a cut at a time (64 KiB). Each lane of a step begins with the fingerprint of
/// a whole window, which wants steps long; what lies behind the cut in the last step of a chunk was
/// scanned in vain, which wants them short. Either costs less than 5 %.
const SCAN_BYTES: usize = 64 * KIB;

#[cfg(test)]
mod tests;
