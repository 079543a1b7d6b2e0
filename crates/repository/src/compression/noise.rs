//! Recognises data that no compressor makes smaller, by looking at little of it.
//!
//! Pictures, films, archives and what is encrypted already: zstd finds nothing in them, but it takes
//! the better part of a millisecond a megabyte to say so. A guess that is wrong costs space and
//! nothing else, so each way in which data can be compressible is looked for, where it is cheap:
//! bytes that are not equally frequent, repeats over a distance, and by zstd itself (the caller has
//! the context) whatever else shows in a sample. What only a fiftieth of the data repeats may stay
//! unseen.

use std::ops::Range;

/// Below this length (bytes) a look costs as much as compressing.
const LENGTH_MIN: usize = 128 << 10;

/// How many places are looked at, at equal distances.
const PLACES: usize = 32;

/// How many bytes are counted at each place.
const COUNTED_BYTES: usize = 1 << 10;

/// Repeats are looked for that hold an aligned stretch of this length.
const STRIDE: usize = 64;

/// How many bytes must be the same: by chance they are not in any amount of data there is.
const SAME_BYTES: usize = 8;

/// log2 of the number of remembered stretches: those of a large chunk.
const TABLE_LOG: u32 = 15;

/// The longest sample for a compressor, in bytes.
const SAMPLE_BYTES: usize = 32 << 10;

/// Looks at data; keeps its table from one to the next.
pub(super) struct Noise {
    /// Where a stretch with this hash begins.
    places: Vec<u32>,
}

impl Noise {
    pub(super) fn new() -> Self {
        Self { places: Vec::new() }
    }

    /// The part of `data` that a compressor should be asked about before the answer is that all of
    /// it is noise; `None` when it is not, or too short for the question.
    pub(super) fn sample(&mut self, data: &[u8]) -> Option<Range<usize>> {
        let asked = data.len() >= LENGTH_MIN && is_even(data) && !self.repeats(data);
        let start = (data.len() / 2).saturating_sub(SAMPLE_BYTES / 2);
        asked.then(|| start..start + SAMPLE_BYTES)
    }

    /// Whether something at one of the places stands elsewhere too.
    fn repeats(&mut self, data: &[u8]) -> bool {
        self.places.clear();
        self.places.resize(1 << TABLE_LOG, u32::MAX);
        for (number, stretch) in data.chunks_exact(STRIDE).enumerate() {
            let Some(word) = word(stretch, 0) else { continue };
            self.places[slot(word)] = u32::try_from(number * STRIDE).unwrap_or(u32::MAX);
        }
        // Of so many positions in a row one meets the aligned stretch of a repeat.
        places(data.len(), 2 * STRIDE).any(|place| {
            (place..place + STRIDE).any(|at| {
                let Some(here) = word(data, at) else { return false };
                let there = self.places[slot(here)] as usize;
                there != at && word(data, there) == Some(here)
            })
        })
    }
}

/// Where the places begin in so many bytes, each followed by `room` of them.
fn places(length: usize, room: usize) -> impl Iterator<Item = usize> {
    let step = length.saturating_sub(room) / PLACES;
    (0..PLACES).map(move |number| number * step)
}

fn word(data: &[u8], at: usize) -> Option<u64> {
    let bytes = data.get(at..at.checked_add(SAME_BYTES)?)?;
    bytes.try_into().ok().map(u64::from_le_bytes)
}

fn slot(word: u64) -> usize {
    // The upper bits of a product with an odd number depend on all bits (Fibonacci hashing).
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - TABLE_LOG)) as usize
}

/// Whether all bytes are equally frequent at the places, as far as a test can say: Pearson's
/// chi-squared over 256 values. Equally frequent ones give 255 ± 23; bytes from which Huffman's code
/// could save as little as a third of a percent give more than twice that.
fn is_even(data: &[u8]) -> bool {
    const CHI_SQUARED_MAX: u64 = 400;
    const EXPECTED: u64 = (PLACES * COUNTED_BYTES / 256) as u64;
    let mut counts = [0_u32; 256];
    for place in places(data.len(), COUNTED_BYTES) {
        for &byte in &data[place..place + COUNTED_BYTES] {
            counts[usize::from(byte)] += 1;
        }
    }
    let sum: u64 = counts.iter().map(|&count| u64::from(count).abs_diff(EXPECTED).pow(2)).sum();
    sum / EXPECTED < CHI_SQUARED_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()[0]
        };
        (0..length).map(|_| next()).collect()
    }

    fn is_noise(data: &[u8]) -> bool {
        Noise::new().sample(data).is_some()
    }

    #[test]
    fn noise_is_noise_at_every_length() {
        for (seed, length) in [(1, LENGTH_MIN), (2, 300_001), (3, 1 << 20), (4, 8 << 20)] {
            let data = noise(seed, length);
            let sample = Noise::new().sample(&data).unwrap();
            assert!(sample.len() == SAMPLE_BYTES && sample.end <= length);
        }
        assert!(!is_noise(&noise(5, LENGTH_MIN - 1)), "not asked");
        assert!(!is_noise(&[]) && !is_noise(&vec![0; LENGTH_MIN]));
    }

    #[test]
    fn bytes_that_are_not_equally_frequent_are_no_noise() {
        let text: Vec<u8> = noise(1, 1 << 20).iter().map(|byte| byte % 64 + 32).collect();
        assert!(!is_noise(&text));
        // One byte in twenty is zero: Huffman's code saves less than two percent.
        let mut data = noise(2, 1 << 20);
        data.iter_mut().step_by(20).for_each(|byte| *byte = 0);
        assert!(!is_noise(&data));
    }

    #[test]
    fn repeats_at_any_distance_are_no_noise() {
        for distance in [100, 4099, 70_001, 400_000] {
            let once = noise(distance as u64, distance);
            let data: Vec<u8> = once.iter().cycle().take(1 << 20).copied().collect();
            assert!(!is_noise(&data), "{distance}");
        }
        // A fifth of it twice.
        let mut data = noise(9, 1 << 20);
        data.copy_within(300_007..300_007 + 200_000, 700_013);
        assert!(!is_noise(&data));
    }
}
