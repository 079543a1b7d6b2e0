//! Positions in the write-ahead log, and the segment files that hold a range of it.
//!
//! # Source
//! PostgreSQL, `src/include/access/xlog_internal.h` (`XLogFileName`, `XLogLongPageHeaderData`).

use std::{fmt, str::FromStr};

/// A position in the log, in bytes since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no position in the write-ahead log")]
pub struct NotAnLsn(String);

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (high, low) = text.split_once('/')?;
            let high = u32::from_str_radix(high, 16).ok()?;
            let low = u32::from_str_radix(low, 16).ok()?;
            Some(Self(u64::from(high) << 32 | u64::from(low)))
        };
        parse().ok_or_else(|| NotAnLsn(text.to_owned()))
    }
}

/// A range of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) timeline: u32,
    pub(super) start: Lsn,
    pub(super) end: Lsn,
}

/// A segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) name: String,
    /// Position of its first byte.
    pub(super) begin: Lsn,
}

impl Range {
    /// The files that hold the range.
    pub(super) fn segments(&self, segment_bytes: u64) -> Vec<Segment> {
        let first = self.start.0 / segment_bytes;
        // The byte before the end is the last that is needed.
        let last = self.end.0.saturating_sub(1).max(self.start.0) / segment_bytes;
        let per_id = (1 << 32) / segment_bytes;
        (first..=last)
            .map(|number| Segment {
                name: format!(
                    "{:08X}{:08X}{:08X}",
                    self.timeline,
                    number / per_id,
                    number % per_id
                ),
                begin: Lsn(number * segment_bytes),
            })
            .collect()
    }
}

/// Says what is wrong with a segment file, judging by its length and the header of its first page.
pub(super) fn flaw(
    segment: &Segment,
    header: &[u8],
    length: u64,
    segment_bytes: u64,
    system_identifier: u64,
) -> Option<String> {
    let number = |at: usize| {
        let bytes = header.get(at..)?.first_chunk::<8>()?;
        Some(u64::from_ne_bytes(*bytes))
    };
    if length != segment_bytes {
        return Some(format!("is {length} bytes long instead of {segment_bytes}"));
    }
    match (number(8), number(24)) {
        // A segment that was recycled has its new name before its new content.
        (Some(begin), _) if begin != segment.begin.0 => {
            Some(format!("holds {} instead of {}", Lsn(begin), segment.begin))
        }
        (_, Some(identifier)) if identifier != system_identifier => {
            Some("is of another server".to_owned())
        }
        (Some(_), Some(_)) => None,
        _ => Some("has no header".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 16 << 20;

    #[test]
    fn positions_are_written_as_the_server_writes_them() {
        assert_eq!("1A/B0000028".parse::<Lsn>().unwrap().to_string(), "1A/B0000028");
        assert_eq!("0/0".parse(), Ok(Lsn(0)));
        assert!("12".parse::<Lsn>().is_err());
    }

    #[test]
    fn a_range_names_its_segments() {
        let range = Range { timeline: 1, start: Lsn(0x2000028), end: Lsn(0x4000000) };
        let names: Vec<_> = range.segments(SEGMENT).into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["000000010000000000000002", "000000010000000000000003"]);
        let range = Range { timeline: 0x2B, start: Lsn(0x1_FF000100), end: Lsn(0x2_00000001) };
        let names: Vec<_> = range.segments(SEGMENT).into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["0000002B00000001000000FF", "0000002B0000000200000000"]);
    }

    #[test]
    fn a_recycled_segment_is_noticed() {
        let segment = Segment { name: String::new(), begin: Lsn(SEGMENT * 3) };
        let mut header = [0; 40];
        header[8..16].copy_from_slice(&(SEGMENT * 3).to_ne_bytes());
        header[24..32].copy_from_slice(&77u64.to_ne_bytes());
        assert_eq!(flaw(&segment, &header, SEGMENT, SEGMENT, 77), None);
        assert!(flaw(&segment, &header, SEGMENT, SEGMENT, 78).is_some());
        assert!(flaw(&segment, &header, 5, SEGMENT, 77).is_some());
        header[8..16].copy_from_slice(&SEGMENT.to_ne_bytes());
        assert!(flaw(&segment, &header, SEGMENT, SEGMENT, 77).unwrap().contains("0/1000000"));
    }
}
