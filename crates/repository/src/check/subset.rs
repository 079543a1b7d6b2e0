//! Which packs are read back whole.

use std::{collections::hash_map::RandomState, fmt, hash::BuildHasher, str::FromStr};

use muster_model::units;

use crate::id::PackId;

/// How much of the data is read back, in restic's terms.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ReadData {
    /// Nothing: structure only.
    #[default]
    No,
    /// Every pack.
    All,
    /// The `part`-th of `of` parts. Packs are dealt out by the first byte of their id, as in
    /// restic, so that all parts, one a night, make a whole.
    Part {
        /// Which part, from 1 to `of`.
        part: u32,
        /// How many parts there are, from 1 to 256.
        of: u32,
    },
    /// That share of the packs, drawn at random; at least one pack.
    Percent(f64),
    /// Packs drawn at random that make up this many bytes, the last of them included.
    Bytes(u64),
}

/// How many parts there can be: a byte has this many values.
const PARTS_MAX: u32 = 256;

impl ReadData {
    /// Picks from `packs` (with their sizes in bytes) those to read.
    #[must_use]
    pub fn select(self, packs: Vec<(PackId, u64)>) -> Vec<(PackId, u64)> {
        match self {
            Self::No => Vec::new(),
            Self::All => packs,
            Self::Part { part, of } => {
                let of = of.clamp(1, PARTS_MAX);
                let is_in = |pack: &PackId| u32::from(pack.as_bytes()[0]) % of + 1 == part;
                packs.into_iter().filter(|(pack, _)| is_in(pack)).collect()
            }
            Self::Percent(percent) => {
                let count = share(packs.len(), percent);
                shuffled(packs).into_iter().take(count).collect()
            }
            Self::Bytes(bytes) => {
                let mut taken = 0;
                let mut take = |size: u64| {
                    let wanted = taken < bytes;
                    taken += size;
                    wanted
                };
                shuffled(packs).into_iter().take_while(|&(_, size)| take(size)).collect()
            }
        }
    }
}

/// `percent` of `count`, rounded down, but at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "counts of packs are far below 2^52, and percentages are positive"
)]
fn share(count: usize, percent: f64) -> usize {
    ((count as f64 * percent / 100.0) as usize).clamp(1, count.max(1))
}

/// In random order: by a hash that is keyed at random.
fn shuffled(mut packs: Vec<(PackId, u64)>) -> Vec<(PackId, u64)> {
    let order = RandomState::new();
    packs.sort_by_cached_key(|(pack, _)| order.hash_one(pack));
    packs
}

/// The text names no share of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownSubset(String);

impl fmt::Display for UnknownSubset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is no share of the data: write n/t (part n of t, t at most 256), a percentage \
             such as 2.5%, or a size such as 500M or 10GiB",
            self.0
        )
    }
}

impl std::error::Error for UnknownSubset {}

/// Reads what restic accepts after `--read-data-subset`.
impl FromStr for ReadData {
    type Err = UnknownSubset;

    fn from_str(text: &str) -> Result<Self, UnknownSubset> {
        parse(text.trim()).ok_or_else(|| UnknownSubset(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<ReadData> {
    if let Some((part, of)) = text.split_once('/') {
        let (part, of) = (part.parse().ok()?, of.parse().ok()?);
        let possible = 1 <= part && part <= of && of <= PARTS_MAX;
        return possible.then_some(ReadData::Part { part, of });
    }
    if let Some(number) = text.strip_suffix('%') {
        let percent: f64 = number.trim_end().parse().ok()?;
        return (percent > 0.0 && percent <= 100.0).then_some(ReadData::Percent(percent));
    }
    let bytes = units::parse_size(text).ok()?;
    (bytes > 0).then_some(ReadData::Bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: ReadData) {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }

    #[test]
    fn shares_are_written_as_for_restic() {
        check("1/5", ReadData::Part { part: 1, of: 5 });
        check("256/256", ReadData::Part { part: 256, of: 256 });
        check("100%", ReadData::Percent(100.0));
        check("2.5%", ReadData::Percent(2.5));
        check("50M", ReadData::Bytes(50 << 20));
        check("1TB", ReadData::Bytes(1_000_000_000_000));
    }

    #[test]
    fn other_texts_are_refused_with_what_to_write() {
        for text in ["", "0/5", "6/5", "1/257", "1/x", "/", "0%", "101%", "-1%", "%", "0", "x"] {
            let error = text.parse::<ReadData>().unwrap_err();
            assert!(error.to_string().contains("n/t"), "{text}");
        }
        assert!("NaN%".parse::<ReadData>().is_err());
    }

    fn packs() -> Vec<(PackId, u64)> {
        (0..200_u32).map(|n| (PackId::of(&n.to_le_bytes()), 10)).collect()
    }

    #[test]
    fn all_parts_make_a_whole() {
        let mut all: Vec<_> =
            (1..=7).flat_map(|part| ReadData::Part { part, of: 7 }.select(packs())).collect();
        all.sort_unstable();
        let mut expected = packs();
        expected.sort_unstable();
        assert_eq!(all, expected);
    }

    #[test]
    fn samples_have_the_size_that_was_asked_for() {
        let count = |share: ReadData| share.select(packs()).len();
        assert_eq!(count(ReadData::No), 0);
        assert_eq!(count(ReadData::All), 200);
        assert_eq!(count(ReadData::Percent(0.01)), 1);
        assert_eq!(count(ReadData::Percent(50.0)), 100);
        assert_eq!(count(ReadData::Percent(100.0)), 200);
        assert_eq!(count(ReadData::Bytes(1)), 1);
        assert_eq!(count(ReadData::Bytes(101)), 11);
        assert_eq!(count(ReadData::Bytes(u64::MAX)), 200);
        assert_eq!(ReadData::Percent(50.0).select(Vec::new()), []);
    }

    #[test]
    fn samples_differ_from_one_another() {
        let draw = || ReadData::Percent(50.0).select(packs());
        assert_ne!(draw(), draw());
    }
}
