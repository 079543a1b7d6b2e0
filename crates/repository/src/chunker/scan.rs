//! Looks for the places where a chunk may end: Rabin fingerprints, many at a time.
//!
//! Several stretches of the data are scanned side by side, since each fingerprint waits for the one
//! before it. Where the processor has AVX2, [`super::wide`] scans thirty-two; this module's own
//! six lanes serve all others, and what is left over.

use std::array;

#[cfg(target_arch = "x86_64")]
use super::wide::{self, WideTables};
use super::{Polynomial, WINDOW_BYTES};

/// A cut wants these bits of the fingerprint zero. Twenty of them are so by chance once in 1 MiB,
/// which makes chunks of 1.5 MiB on average, the minimum added.
///
/// # Source
///
/// restic/chunker, `chunker.go`: `splitmask`.
pub(super) const CUT_MASK: u64 = (1 << 20) - 1;

/// What the fingerprint does to each byte value, worked out once for a polynomial.
///
/// Takes microseconds to make and 5 KiB to hold. Make one for a repository and share it among
/// threads.
#[derive(Debug)]
pub struct Tables {
    /// The same for the vector instructions, on a processor that has them.
    #[cfg(target_arch = "x86_64")]
    wide: Option<WideTables>,
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
        let leave = |byte| polynomial.multiply(byte, out_of_window);
        let remainder = |byte| polynomial.reduce(above_degree(byte));
        Self {
            #[cfg(target_arch = "x86_64")]
            wide: WideTables::new(leave, remainder),
            leave: table(leave),
            reduce: table(|byte| remainder(byte) | above_degree(byte)),
        }
    }

    /// The tables as on every processor that this one can stand for; the last has no vectors.
    #[cfg(test)]
    pub(super) fn of_all_processors(polynomial: Polynomial) -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        for instructions in wide::Instructions::detect_all() {
            let mut tables = Self::new(polynomial);
            tables.wide.iter_mut().for_each(|wide| wide.set_instructions(instructions));
            all.push(tables);
        }
        let mut plain = Self::new(polynomial);
        #[cfg(target_arch = "x86_64")]
        {
            plain.wide = None;
        }
        all.push(plain);
        all
    }

    /// Works out the fingerprint of the window that ends at the place `end` of `data`.
    pub(super) fn fingerprint(&self, data: &[u8], end: usize) -> u64 {
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
pub(super) fn find_cut(tables: &Tables, data: &[u8], from: usize) -> Option<usize> {
    match is_cut(tables.fingerprint(data, from)) {
        true => Some(from),
        false => find_cut_behind(tables, data, from),
    }
}

/// As [`find_cut`], but the first place that counts is the one behind `from`.
///
/// # Panics
///
/// As [`find_cut`].
pub(super) fn find_cut_behind(tables: &Tables, data: &[u8], from: usize) -> Option<usize> {
    let wide = find_cut_in_wide_lanes(tables, &data[from - WINDOW_BYTES..]);
    let (cut, from) = (wide.cut.map(|place| from - WINDOW_BYTES + place), from + wide.scanned);
    cut.or_else(|| {
        let n_blocks = (data.len() - from) / (LANES * WINDOW_BYTES);
        let lanes_end = from + n_blocks * LANES * WINDOW_BYTES;
        find_cut_in_lanes(tables, &data[from - WINDOW_BYTES..lanes_end], n_blocks)
            .map(|place| from - WINDOW_BYTES + place)
            .or_else(|| find_cut_in_line(tables, data, lanes_end))
    })
}

/// How far a scan came.
#[derive(Default)]
struct Scanned {
    /// The first cut in what was scanned.
    cut: Option<usize>,
    /// How many bytes behind the first window were scanned.
    scanned: usize,
}

/// Scans what can be divided evenly among the vector's lanes, and nothing on a processor without
/// them.
#[cfg(target_arch = "x86_64")]
fn find_cut_in_wide_lanes(tables: &Tables, data: &[u8]) -> Scanned {
    let n_blocks = (data.len() - WINDOW_BYTES) / (wide::LANES * wide::BLOCK_BYTES);
    let (Some(wide_tables), true) = (&tables.wide, n_blocks >= WIDE_BLOCKS_MIN) else {
        return Scanned::default();
    };
    let lane_bytes = n_blocks * wide::BLOCK_BYTES;
    let mut cut = None::<usize>;
    wide_tables.find_blocks(data, n_blocks, |lane, block| {
        let before = lane * lane_bytes + block * wide::BLOCK_BYTES + WINDOW_BYTES;
        let block_end = &data[..before + wide::BLOCK_BYTES];
        let place = find_cut_in_line(tables, block_end, before);
        cut = [cut, place].into_iter().flatten().min();
    });
    Scanned { cut, scanned: wide::LANES * lane_bytes }
}

/// See its twin.
#[cfg(not(target_arch = "x86_64"))]
fn find_cut_in_wide_lanes(_: &Tables, _: &[u8]) -> Scanned {
    Scanned::default()
}

/// Below so many blocks a lane, the windows that the lanes begin with are most of the work.
#[cfg(target_arch = "x86_64")]
const WIDE_BLOCKS_MIN: usize = 8;

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

pub(super) fn is_cut(fingerprint: u64) -> bool {
    fingerprint & CUT_MASK == 0
}
