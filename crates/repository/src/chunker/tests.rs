//! The oracle is restic's loop as it is written, over the fingerprint of the crate `rustic_cdc`.
//!
//! The cuts in the Go chunker's own tests are of data from Go's `math/rand`, whose generator cannot
//! be had here; of them, only those of the zeros are repeated below.

use std::collections::VecDeque;

use proptest::{collection::vec, prelude::*};
use rustic_cdc::{Rabin64, RollingHash64};

use super::{
    scan::{CUT_MASK, is_cut},
    *,
};

/// The polynomial of the Go chunker's own tests.
const EXAMPLE: u64 = 0x3d_a335_8b4d_c173;

fn example_tables() -> Arc<Tables> {
    Arc::new(Tables::new(Polynomial::new(EXAMPLE).unwrap()))
}

/// Finds the first polynomial after `seed`, so that a failing seed gives the same one again.
fn polynomial_after(seed: u64) -> Polynomial {
    let first = (seed % (1 << 52)) | (1 << 53) | 1;
    (0..).find_map(|step| Polynomial::new(first + 2 * step).ok()).unwrap()
}

/// Chunks byte by byte, with a state that is reset at each cut, as restic does.
fn restic_chunk_lengths(polynomial: Polynomial, data: &[u8]) -> Vec<usize> {
    let mut rabin = Rabin64::new_with_polynom(6, &polynomial.coefficients());
    let mut lengths = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        rabin.reset();
        rabin.slide(1);
        let skipped = CHUNK_BYTES_MIN - WINDOW_BYTES;
        let cut = rest.iter().enumerate().skip(skipped).find_map(|(index, byte)| {
            rabin.slide(*byte);
            let length = index + 1;
            let wanted = rabin.get_hash() & CUT_MASK == 0 || length == CHUNK_BYTES_MAX;
            (wanted && length >= CHUNK_BYTES_MIN).then_some(length)
        });
        lengths.push(cut.unwrap_or(rest.len()));
        rest = &rest[cut.unwrap_or(rest.len())..];
    }
    lengths
}

/// Chunks with the code under test, and checks that the chunks join to the input.
fn chunk_lengths<R: Read>(chunker: &mut Chunker<R>, data: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut chunk = Vec::new();
    let mut rest = data;
    while chunker.next_chunk(&mut chunk).unwrap() {
        let (expected, behind) = rest.split_at(chunk.len());
        assert!(chunk == expected, "a chunk differs from the input");
        lengths.push(chunk.len());
        rest = behind;
    }
    assert!(rest.is_empty(), "{} bytes are missing at the end", rest.len());
    assert!(!chunker.next_chunk(&mut chunk).unwrap(), "the end must last");
    assert!(chunk.is_empty());
    lengths
}

fn check(data: &[u8], expected: &[usize]) {
    let mut chunker = Chunker::new(example_tables(), data);
    assert_eq!(chunk_lengths(&mut chunker, data), expected);
    assert_eq!(restic_chunk_lengths(Polynomial::new(EXAMPLE).unwrap(), data), expected);
}

/// Fills with numbers that look random (xorshift), quicker than a real generator.
fn random_bytes(seed: u64, n_bytes: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(n_bytes + 8);
    while bytes.len() < n_bytes {
        bytes.extend_from_slice(&next());
    }
    bytes.truncate(n_bytes);
    bytes
}

/// Changes the three bytes before the place `end` so that a chunk may end there: they are the low
/// bits of the fingerprint, not yet mixed with anything.
fn plant_cut(tables: &Tables, data: &mut [u8], end: usize) {
    let low_bytes = &mut data[end - 3..end];
    low_bytes.fill(0);
    let fingerprint = tables.fingerprint(data, end);
    data[end - 3..end].copy_from_slice(&(fingerprint & CUT_MASK).to_be_bytes()[5..]);
    assert!(is_cut(tables.fingerprint(data, end)));
}

#[test]
fn an_empty_input_has_no_chunks() {
    check(b"", &[]);
}

#[test]
fn zeros_are_cut_at_the_minimum() {
    check(&vec![0; 4 * CHUNK_BYTES_MIN], &[CHUNK_BYTES_MIN; 4]);
    check(&vec![0; CHUNK_BYTES_MIN + 1], &[CHUNK_BYTES_MIN, 1]);
}

#[test]
fn a_short_input_is_one_chunk() {
    for n_bytes in [1, 2, 63, 64, 65, 4096, CHUNK_BYTES_MIN - 1, CHUNK_BYTES_MIN] {
        check(&random_bytes(1, n_bytes), &[n_bytes]);
    }
}

#[test]
fn an_input_without_cuts_is_cut_at_the_maximum() {
    // Ones repeated have a fingerprint that is not zero in its low bits, everywhere the same.
    let ones = vec![1; CHUNK_BYTES_MAX + CHUNK_BYTES_MIN];
    check(&ones[..CHUNK_BYTES_MAX - 1], &[CHUNK_BYTES_MAX - 1]);
    check(&ones[..CHUNK_BYTES_MAX], &[CHUNK_BYTES_MAX]);
    check(&ones[..CHUNK_BYTES_MAX + 1], &[CHUNK_BYTES_MAX, 1]);
    check(&ones, &[CHUNK_BYTES_MAX, CHUNK_BYTES_MIN]);
}

#[test]
fn cuts_stand_where_they_always_stood() {
    // No oracle but history: a change here would end deduplication with every older backup.
    let lengths =
        [788_056, 1_451_984, 943_686, 665_328, 1_471_089, 1_017_809, 1_100_171, 759_739, 190_746];
    check(&random_bytes(23, 8 * MIB), &lengths);
}

#[test]
fn a_cut_counts_from_the_minimum_on() {
    let tables = example_tables();
    for (end, expected) in [
        (CHUNK_BYTES_MIN - 1, CHUNK_BYTES_MIN + 70_000),
        (CHUNK_BYTES_MIN, CHUNK_BYTES_MIN),
        (CHUNK_BYTES_MIN + 1, CHUNK_BYTES_MIN + 1),
        (CHUNK_BYTES_MIN + SCAN_BYTES, CHUNK_BYTES_MIN + SCAN_BYTES),
        (CHUNK_BYTES_MIN + SCAN_BYTES + 1, CHUNK_BYTES_MIN + SCAN_BYTES + 1),
    ] {
        let mut data = vec![1; CHUNK_BYTES_MIN + 70_000];
        plant_cut(&tables, &mut data, end);
        check(&data, &[expected, data.len() - expected][..1 + usize::from(expected < data.len())]);
    }
}

#[test]
fn keeps_its_buffers_between_files() {
    let data = random_bytes(7, 3 * MIB);
    let expected = restic_chunk_lengths(Polynomial::new(EXAMPLE).unwrap(), &data);
    let mut chunker = Chunker::new(example_tables(), &data[..]);
    let buffer = chunker.rest.as_ptr();
    let mut chunk = Vec::with_capacity(CHUNK_BYTES_MAX);
    let chunk_at = chunk.as_ptr();
    assert!(chunker.next_chunk(&mut chunk).unwrap());
    assert_eq!(chunk.as_ptr(), chunk_at);

    // In the middle of the first file.
    chunker.reset(&data);
    assert_eq!(chunk_lengths(&mut chunker, &data), expected);
    chunker.reset(b"short");
    assert_eq!(chunk_lengths(&mut chunker, b"short"), [5]);
    chunker.reset(&data);
    assert_eq!(chunk_lengths(&mut chunker, &data), expected);
    assert_eq!(chunker.rest.as_ptr(), buffer);
}

/// Delivers data in pieces of the given lengths, over and over; a length of zero is an interruption.
struct Stutter<'a> {
    data: &'a [u8],
    lengths: VecDeque<usize>,
}

impl Read for Stutter<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.lengths.rotate_left(1);
        match self.lengths.back() {
            Some(0) => Err(io::ErrorKind::Interrupted.into()),
            Some(n_bytes) => {
                let n_bytes = (*n_bytes).min(into.len());
                self.data.read(&mut into[..n_bytes])
            }
            None => self.data.read(into),
        }
    }
}

#[test]
fn passes_on_the_reader_s_errors() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("bad sector"))
        }
    }
    let good = vec![1; MIB];
    let mut chunker = Chunker::new(example_tables(), (&good[..]).chain(Broken));
    let error = chunker.next_chunk(&mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "bad sector");
}

/// A part of an input.
#[derive(Debug, Clone)]
enum Part {
    Random { seed: u64, n_bytes: usize },
    Zeros { n_bytes: usize },
    Periodic { pattern: Vec<u8>, n_bytes: usize },
}

impl Part {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Random { seed, n_bytes } => random_bytes(*seed, *n_bytes),
            Self::Zeros { n_bytes } => vec![0; *n_bytes],
            Self::Periodic { pattern, n_bytes } => {
                pattern.iter().copied().cycle().take(*n_bytes).collect()
            }
        }
    }
}

fn any_part() -> impl Strategy<Value = Part> {
    prop_oneof![
        4 => (any::<u64>(), 0..3 * MIB).prop_map(|(seed, n_bytes)| Part::Random { seed, n_bytes }),
        1 => (0..2 * MIB).prop_map(|n_bytes| Part::Zeros { n_bytes }),
        1 => (vec(any::<u8>(), 1..200), 0..10 * MIB)
            .prop_map(|(pattern, n_bytes)| Part::Periodic { pattern, n_bytes }),
    ]
}

fn any_reads() -> impl Strategy<Value = VecDeque<usize>> {
    let length = prop_oneof![Just(0), 1..100_usize, 1..2 * READ_BYTES];
    // One real read at least, or the reader would be interrupted for ever.
    (vec(length, 0..6), 4_000..READ_BYTES).prop_map(|(mut lengths, last)| {
        lengths.push(last);
        lengths.into()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn cuts_where_restic_cuts(
        seed: u64,
        processor: prop::sample::Index,
        parts in vec(any_part(), 0..4),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
        reads in any_reads(),
    ) {
        let polynomial = polynomial_after(seed);
        let mut tables = Tables::of_all_processors(polynomial);
        let tables = Arc::new(tables.swap_remove(processor.index(tables.len())));
        let mut data = parts.iter().flat_map(Part::bytes).collect::<Vec<_>>();
        for cut in cuts {
            let end = cut.index(data.len() + 1);
            if end >= WINDOW_BYTES {
                plant_cut(&tables, &mut data, end);
            }
        }

        let expected = restic_chunk_lengths(polynomial, &data);
        let mut whole = Chunker::new(tables.clone(), &data[..]);
        prop_assert_eq!(&chunk_lengths(&mut whole, &data), &expected);
        let mut in_pieces = Chunker::new(tables, Stutter { data: &data, lengths: reads });
        prop_assert_eq!(&chunk_lengths(&mut in_pieces, &data), &expected);
    }
}

proptest! {
    /// With the processor's vectors and without them, against a third who looks byte by byte.
    #[test]
    fn finds_the_first_cut(
        seed: u64,
        n_bytes in WINDOW_BYTES..40_000,
        noise: bool,
        cuts in vec(any::<prop::sample::Index>(), 0..4),
        from: prop::sample::Index,
    ) {
        let polynomial = polynomial_after(seed);
        let tables = Tables::of_all_processors(polynomial);
        let mut data = if noise { random_bytes(seed, n_bytes) } else { vec![1; n_bytes] };
        for cut in cuts {
            plant_cut(&tables[0], &mut data, WINDOW_BYTES + cut.index(n_bytes - WINDOW_BYTES + 1));
        }
        let from = WINDOW_BYTES + from.index(n_bytes - WINDOW_BYTES + 1);

        let mut rabin = Rabin64::new_with_polynom(6, &polynomial.coefficients());
        let ends: Vec<usize> = (1..=n_bytes).filter(|end| {
            rabin.slide(data[end - 1]);
            rabin.get_hash() & CUT_MASK == 0
        }).collect();
        let expected = ends.iter().copied().find(|end| *end >= from);
        let behind = ends.iter().copied().find(|end| *end > from);
        for tables in &tables {
            prop_assert_eq!(find_cut(tables, &data, from), expected);
            prop_assert_eq!(find_cut_behind(tables, &data, from), behind);
            prop_assert_eq!(find_cut(tables, &data[from - WINDOW_BYTES..], WINDOW_BYTES),
                expected.map(|place| place + WINDOW_BYTES - from));
        }
    }
}

/// A cut at every place in turn, the edges of lanes and blocks among them.
#[test]
fn finds_a_cut_wherever_it_is() {
    let polynomial = Polynomial::new(EXAMPLE).unwrap();
    let tables = Tables::of_all_processors(polynomial);
    let clean = vec![1; 9_000 + WINDOW_BYTES];
    for end in WINDOW_BYTES + 3..=clean.len() {
        let mut data = clean.clone();
        plant_cut(&tables[0], &mut data, end);
        for tables in &tables {
            assert_eq!(find_cut_behind(tables, &data, WINDOW_BYTES), Some(end));
        }
    }
}
