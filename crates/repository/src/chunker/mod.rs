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

mod polynomial;

use std::{
    array,
    io::{self, Read},
    ops::Range,
    sync::Arc,
};

pub use polynomial::{Polynomial, PolynomialError};

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

/// A cut wants these bits of the fingerprint zero. Twenty of them are so by chance once in 1 MiB,
/// which makes chunks of 1.5 MiB on average, the minimum added.
///
/// # Source
///
/// restic/chunker, `chunker.go`: `splitmask`.
const CUT_MASK: u64 = (1 << 20) - 1;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What the fingerprint does to each byte value, worked out once for a polynomial.
///
/// Takes microseconds to make and 4 KiB to hold. Make one for a repository and share it among
/// threads.
#[derive(Debug)]
pub struct Tables {
    /// Undoes the byte that leaves the window: `b · x⁵¹²`, its place when the next byte has come.
    leave: [u64; 256],
    /// Reduces: maps the byte above the fingerprint's degree to its remainder, and cancels it.
    reduce: [u64; 256],
}

impl Tables {
    /// Works out the tables for `polynomial`.
    pub fn new(polynomial: Polynomial) -> Self {
        let out_of_window =
            (0..WINDOW_BYTES).fold(1, |power, _| polynomial.multiply(power, 1 << 8));
        let above_degree = |byte: u64| byte << Polynomial::DEGREE;
        Self {
            leave: table(|byte| polynomial.multiply(byte, out_of_window)),
            reduce: table(|byte| polynomial.reduce(above_degree(byte)) | above_degree(byte)),
        }
    }

    /// Works out the fingerprint of the window that ends at the place `end` of `data`.
    fn fingerprint(&self, data: &[u8], end: usize) -> u64 {
        data[end - WINDOW_BYTES..end].iter().fold(0, |sum, &byte| self.append(sum, byte))
    }

    /// Appends `byte` to the data that `fingerprint` is of.
    fn append(&self, fingerprint: u64, byte: u8) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a fingerprint has 53 bits; the cast spares the check of the table's bounds"
        )]
        let above = (fingerprint >> (Polynomial::DEGREE - 8)) as u8;
        (fingerprint << 8) ^ u64::from(byte) ^ self.reduce[usize::from(above)]
    }

    /// Moves the window on by one: `entering` joins it, `leaving` is its first byte.
    fn slide(&self, fingerprint: u64, leaving: u8, entering: u8) -> u64 {
        // Were `leaving` taken out before the shift, as in the textbook, its look-up would be on
        // the critical path from one fingerprint to the next.
        self.append(fingerprint, entering) ^ self.leave[usize::from(leaving)]
    }
}

fn table(entry: impl Fn(u64) -> u64) -> [u64; 256] {
    array::from_fn(|byte| entry(byte as u64))
}

/// Cuts what a reader delivers into chunks.
///
/// Holds one buffer of 256 KiB and nothing else of size; [`Chunker::reset`] keeps it, so that one
/// chunker serves any number of files.
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
    /// Room for what has been read; `pending` of it belongs to this chunk or the next.
    buffer: Box<[u8]>,
    pending: Range<usize>,
    is_at_end: bool,
}

impl<R: Read> Chunker<R> {
    /// Starts to chunk what `reader` delivers.
    ///
    /// It is read in large pieces, so a buffer in front of it would only be in the way.
    pub fn new(tables: Arc<Tables>, reader: R) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Self { tables, reader, buffer, pending: 0..0, is_at_end: false }
    }

    /// Drops what is left of the old reader and starts with another.
    pub fn reset(&mut self, reader: R) {
        self.reader = reader;
        self.pending = 0..0;
        self.is_at_end = false;
    }

    /// Replaces the content of `into` by the next chunk, or returns `false` when there is none.
    ///
    /// An input without bytes has no chunks. Pass the same vector again and again: it grows to the
    /// largest chunk once, and nothing else is allocated.
    ///
    /// # Errors
    ///
    /// When the reader fails, other than by [`io::ErrorKind::Interrupted`]. The chunk is lost; the
    /// chunker is of use again after [`Chunker::reset`].
    pub fn next_chunk(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        into.clear();
        loop {
            if self.pending.is_empty() && !self.fill()? {
                return Ok(!into.is_empty());
            }
            if self.advance(into) {
                return Ok(true);
            }
        }
    }

    /// Moves one step of the pending bytes to the chunk, up to its end, and returns whether it is
    /// complete.
    fn advance(&mut self, chunk: &mut Vec<u8>) -> bool {
        let known = chunk.len();
        let limit = if known < CHUNK_BYTES_MIN {
            CHUNK_BYTES_MIN - known
        } else {
            SCAN_BYTES.min(CHUNK_BYTES_MAX - known)
        };
        let step = limit.min(self.pending.len());
        chunk.extend_from_slice(&self.buffer[self.pending.start..][..step]);
        self.pending.start += step;
        if chunk.len() < CHUNK_BYTES_MIN {
            return false;
        }

        let from = CHUNK_BYTES_MIN.max(known + 1);
        if let Some(cut) = find_cut(&self.tables, chunk, from) {
            self.pending.start -= chunk.len() - cut;
            chunk.truncate(cut);
            return true;
        }
        chunk.len() == CHUNK_BYTES_MAX
    }

    /// Reads until the buffer is full or the input ends, and returns whether anything was read.
    fn fill(&mut self) -> io::Result<bool> {
        self.pending = 0..0;
        while !self.is_at_end && self.pending.end < self.buffer.len() {
            match self.reader.read(&mut self.buffer[self.pending.end..]) {
                Ok(0) => self.is_at_end = true,
                Ok(n_bytes) => self.pending.end += n_bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(!self.pending.is_empty())
    }
}

/// What is read at a time (256 KiB): long enough that the system call does not count, short enough
/// that buffer and chunk's end stay in a core's own cache until they are scanned. Measured a little
/// faster than 1 MiB.
const BUFFER_BYTES: usize = 256 * KIB;

/// How far to look for a cut at a time (64 KiB). Each lane of a step begins with the fingerprint of
/// a whole window, which wants steps long; what lies behind the cut in the last step of a chunk was
/// copied and scanned in vain, which wants them short. Either costs less than 5 %.
const SCAN_BYTES: usize = 64 * KIB;

/// How many parts of a step to scan at once. Each fingerprint waits for the one before it, some
/// seven cycles a byte, mostly for a table in the first-level cache; independent lanes fill the
/// wait. Measured on one core, MB/s from one lane on: 350, 780, 1060, 1240, 1420, 1500, 1540, 1380.
/// Six is where the gain levels off.
const LANES: usize = 6;

/// Bytes are taken from memory so many at a time: with two tables to look into for each byte, it is
/// the loads that the scan waits for.
const WORD_BYTES: usize = 8;

/// Finds the first place in `data`, at `from` bytes from its start or later, where a chunk may end.
///
/// A place is the number of bytes before it. What it is worth depends on the 64 bytes before it
/// only, so `data` may begin anywhere as long as `from` is at least [`WINDOW_BYTES`]. `None` when
/// there is no such place up to and including the end of `data`.
///
/// # Panics
///
/// When `from` is less than [`WINDOW_BYTES`] or beyond the end of `data`.
fn find_cut(tables: &Tables, data: &[u8], from: usize) -> Option<usize> {
    if is_cut(tables.fingerprint(data, from)) {
        return Some(from);
    }
    let n_blocks = (data.len() - from) / (LANES * WINDOW_BYTES);
    let lanes_end = from + n_blocks * LANES * WINDOW_BYTES;
    find_cut_in_lanes(tables, &data[from - WINDOW_BYTES..lanes_end], n_blocks)
        .map(|place| from - WINDOW_BYTES + place)
        .or_else(|| find_cut_in_line(tables, data, lanes_end))
}

/// Scans `LANES` parts of `n_blocks` windows each, side by side, which follow on the first window
/// of `data`.
///
/// The window that a lane leaves is the block before the one it enters; both have a length known to
/// the compiler, which leaves no bounds to check. A find does not end the scan, since a lane
/// before may still have an earlier one.
fn find_cut_in_lanes(tables: &Tables, data: &[u8], n_blocks: usize) -> Option<usize> {
    let (blocks, _) = data.as_chunks::<WINDOW_BYTES>();
    let lanes: [&[_]; LANES] = array::from_fn(|lane| &blocks[lane * n_blocks..][..=n_blocks]);
    let mut fingerprints = lanes.map(|lane| tables.fingerprint(&lane[0], WINDOW_BYTES));
    let mut first = None::<usize>;
    for block in 0..n_blocks {
        let leaving = lanes.map(|lane| lane[block].as_chunks::<WORD_BYTES>().0);
        let entering = lanes.map(|lane| lane[block + 1].as_chunks::<WORD_BYTES>().0);
        for word in 0..WINDOW_BYTES / WORD_BYTES {
            let leaving = leaving.map(|words| u64::from_le_bytes(words[word]));
            let entering = entering.map(|words| u64::from_le_bytes(words[word]));
            for index in 0..WORD_BYTES {
                for lane in 0..LANES {
                    let byte_of = |word: u64| (word >> (8 * index)).to_le_bytes()[0];
                    let (leaving, entering) = (byte_of(leaving[lane]), byte_of(entering[lane]));
                    fingerprints[lane] = tables.slide(fingerprints[lane], leaving, entering);
                    if is_cut(fingerprints[lane]) {
                        let block = (lane * n_blocks + block + 1) * WINDOW_BYTES;
                        let place = block + word * WORD_BYTES + index + 1;
                        first = Some(first.map_or(place, |first| first.min(place)));
                    }
                }
            }
        }
    }
    first
}

/// Scans from behind the place `from` on, byte by byte: the rest that is too short for lanes.
fn find_cut_in_line(tables: &Tables, data: &[u8], from: usize) -> Option<usize> {
    let mut fingerprint = tables.fingerprint(data, from);
    let leaving = &data[from - WINDOW_BYTES..];
    let entering = &data[from..];
    let index = entering.iter().zip(leaving).position(|(&entering, &leaving)| {
        fingerprint = tables.slide(fingerprint, leaving, entering);
        is_cut(fingerprint)
    })?;
    Some(from + index + 1)
}

fn is_cut(fingerprint: u64) -> bool {
    fingerprint & CUT_MASK == 0
}

#[cfg(test)]
mod tests;
