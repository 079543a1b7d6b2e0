//! Sizes and durations as people write them: `16MiB`, `1.5GB`, `90s`, `2h30m`.

use std::{fmt, time::Duration};

/// The text is no size or duration; the message says what is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitError {
    text: String,
    expected: &'static str,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not {}", self.text, self.expected)
    }
}

impl std::error::Error for UnitError {}

const SIZE_EXPECTED: &str = "a size such as 500kB, 16MiB, 2G or 1.5TB";
const DURATION_EXPECTED: &str = "a duration such as 500ms, 90s, 5m, 2h30m, 7d or 2w";

/// Reads a size in bytes: a number and a unit. `kB MB GB TB` count in thousands,
/// `KiB MiB GiB TiB` and restic's bare `K M G T` in 1024s; a bare number is bytes.
///
/// # Errors
/// Fails when the text is no number with one of these units, or exceeds 2^64 bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let error = || UnitError { text: text.to_owned(), expected: SIZE_EXPECTED };
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000 * 1000,
        "gb" => 1000 * 1000 * 1000,
        "tb" => 1000 * 1000 * 1000 * 1000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(error()),
    };
    scale(number, factor).ok_or_else(error)
}

/// `number × factor`, exact for whole numbers, rounded down for fractions.
fn scale(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut total = u128::from(whole.parse::<u64>().ok()?) * u128::from(factor);
    if !fraction.is_empty() {
        let digits = u128::from(fraction.parse::<u64>().ok()?);
        total += digits * u128::from(factor) / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    }
    u64::try_from(total).ok()
}

/// Writes a size in bytes for people, in 1024s with three significant digits: `1.21 GiB`.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// Reads a duration: one or more numbers with units `ms s m h d w` (a day is 24 h).
///
/// # Errors
/// Fails when the text holds anything else, nothing at all, or overflows.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let error = || UnitError { text: text.to_owned(), expected: DURATION_EXPECTED };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(error());
    }
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let factor_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return Err(error()),
        };
        let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor_ms));
        total_ms = part.and_then(|ms| total_ms.checked_add(ms)).ok_or_else(error)?;
        rest = tail;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration for people with its two largest units: `1h 05m`, `3m 07s`, `12s`; below a
/// second in milliseconds.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if !duration.is_zero() => format!("{}ms", duration.as_millis()),
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// For `#[serde(with)]`: a duration as seconds in a float, as all JSON of Muster has it.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes seconds.
    ///
    /// # Errors
    /// Fails as the serializer does.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(duration.as_secs_f64())
    }

    /// Reads seconds.
    ///
    /// # Errors
    /// Fails when they are negative, not finite or too many.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Writes so many things for people: `1 pack`, `3 packs`, `2 entries`.
#[must_use]
pub fn counted<N: fmt::Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let is_one = number == N::from(1);
    let plural = match noun.strip_suffix('y') {
        _ if is_one => noun.to_owned(),
        Some(stem) if !stem.ends_with(['a', 'e', 'o']) => format!("{stem}ies"),
        _ => format!("{noun}s"),
    };
    format!("{number} {plural}")
}

/// The word that goes with so many things: `is` or `are`.
#[must_use]
pub fn agree<N: PartialEq + From<u8>>(
    number: N,
    one: &'static str,
    many: &'static str,
) -> &'static str {
    if number == N::from(1) { one } else { many }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_size(text).ok(), expected, "{text}");
        };
        check("0", Some(0));
        check("512", Some(512));
        check("500kB", Some(500_000));
        check("16MiB", Some(16 << 20));
        check("2G", Some(2 << 30));
        check("1.5 KiB", Some(1536));
        check("0.1TB", Some(100_000_000_000));
        check("", None);
        check("MiB", None);
        check("-1", None);
        check("1.2.3k", None);
        check("5 parsecs", None);
        check("99999999999T", None);
    }

    #[test]
    fn sizes_are_written() {
        let check = |bytes: u64, expected: &str| assert_eq!(format_size(bytes), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.00 KiB");
        check(1_299_227_607, "1.21 GiB");
        check(1023 * 1024, "1.00 MiB");
        check(u64::MAX, "16.0 EiB");
    }

    #[test]
    fn durations_are_read() {
        let check = |text: &str, expected_ms: Option<u64>| {
            assert_eq!(parse_duration(text).ok(), expected_ms.map(Duration::from_millis), "{text}");
        };
        check("500ms", Some(500));
        check("2h30m", Some(9_000_000));
        check("1w", Some(604_800_000));
        check("0s", Some(0));
        check("", None);
        check("5", None);
        check("m5", None);
        check("5 minutes", None);
        check("18446744073709551615d", None);
    }

    #[test]
    fn durations_are_written() {
        let check = |s: u64, expected: &str| {
            assert_eq!(format_duration(Duration::from_secs(s)), expected);
        };
        check(12, "12s");
        check(187, "3m 07s");
        check(3900, "1h 05m");
        check(90_000, "1d 01h");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(counted(0_u64, "pack"), "0 packs");
        assert_eq!(counted(1_usize, "entry"), "1 entry");
        assert_eq!([counted(2_u32, "entry"), counted(2_u32, "key")], ["2 entries", "2 keys"]);
        assert_eq!([agree(1_u64, "is", "are"), agree(0_u64, "is", "are")], ["is", "are"]);
    }
}
