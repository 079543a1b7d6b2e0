//! Moments as restic writes them: RFC 3339 with nanoseconds and the local offset.
//!
//! Go writes `2024-03-01T09:00:00.5+01:00`: the fraction without trailing zeros or absent, `Z` for
//! offset zero. The offset is part of the text and so of a tree's hash, which is why a
//! [`Timestamp`] carries it, but not part of the moment: comparing and ordering ignore it.
//!
//! Calendars here are the proleptic Gregorian one of ISO 8601, without leap seconds, in which
//! year 0 exists and is a leap year.
//!
//! Nothing in here asks for the current time. A moment comes in from a file's metadata, from a
//! stored text, or from the caller's clock.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::Range,
    str::FromStr,
};

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment, to the nanosecond, and the offset from UTC at which to write it.
///
/// Two timestamps are equal when they are the same moment, whatever their offsets.
#[derive(Clone, Copy)]
pub struct Timestamp {
    seconds: i64,
    nanoseconds: u32,
    offset_minutes: i16,
}

impl Timestamp {
    /// The first moment of 1970 in UTC.
    pub const UNIX_EPOCH: Self = Self { seconds: 0, nanoseconds: 0, offset_minutes: 0 };

    /// Makes a timestamp of seconds and nanoseconds since the Unix epoch and an offset east of
    /// UTC.
    ///
    /// Whole seconds in `nanoseconds` are carried over. The offset is taken as zero when it is a
    /// day or more, which RFC 3339 cannot write.
    pub fn new(seconds: i64, nanoseconds: u32, offset_minutes: i16) -> Self {
        Self {
            seconds: seconds.saturating_add(i64::from(nanoseconds / NANOSECONDS_PER_SECOND)),
            nanoseconds: nanoseconds % NANOSECONDS_PER_SECOND,
            offset_minutes: if offset_minutes.unsigned_abs() < MINUTES_PER_DAY {
                offset_minutes
            } else {
                0
            },
        }
    }

    /// Makes a timestamp of seconds and nanoseconds since the Unix epoch, to be written at the
    /// offset that `zone` had, or will have, at that moment.
    ///
    /// An offset with seconds, as zones had before they took up standard time, cannot be written.
    /// Such a moment is written in UTC and stays exact; Go drops the seconds of the offset
    /// instead, so that restic reads back another moment than it wrote.
    pub fn from_unix(seconds: i64, nanoseconds: u32, zone: &TimeZone) -> Self {
        let offset_seconds = offset_seconds_at(seconds, zone);
        let offset_minutes = match offset_seconds % 60 {
            0 => i16::try_from(offset_seconds / 60).unwrap_or(0),
            _ => 0,
        };
        Self::new(seconds, nanoseconds, offset_minutes)
    }

    /// Returns the whole seconds since the Unix epoch, negative before it.
    pub fn seconds(&self) -> i64 {
        self.seconds
    }

    /// Returns the nanoseconds since the last whole second, below 1,000,000,000.
    pub fn nanoseconds(&self) -> u32 {
        self.nanoseconds
    }

    /// Returns the offset from UTC in minutes, positive east of Greenwich.
    pub fn offset_minutes(&self) -> i16 {
        self.offset_minutes
    }

    /// Returns the nearest thing to this moment that can be written, whose local year is of 0 to
    /// 9999.
    ///
    /// A year outside becomes 0 or 9999; month, day, time and offset stay as they are. Only a
    /// 29 February that would fall in 9999 becomes 1 March. Writing a timestamp does this by
    /// itself. A moment to be compared with a stored one, such as a file's time with that of the
    /// last snapshot, wants it done first, or the two are never equal.
    ///
    /// # Source
    ///
    /// restic's `internal/data/node.go`, `fixTime`, except that restic asks the time zone again
    /// for the offset in the new year.
    #[must_use]
    pub fn clamped(self) -> Self {
        let local = self.local_seconds();
        let days = local.div_euclid(SECONDS_PER_DAY);
        let Date { year, month, day } = Date::from_days(days);
        if (0..=9999).contains(&year) {
            return self;
        }
        let day_within_years = Date { year: year.clamp(0, 9999), month, day }.days();
        let local_within_years =
            day_within_years * SECONDS_PER_DAY + local.rem_euclid(SECONDS_PER_DAY);
        Self { seconds: local_within_years - self.offset_seconds(), ..self }
    }

    /// Reads the text form.
    ///
    /// # Errors
    ///
    /// When the text is not strictly RFC 3339 with capital `T` and `Z`, or names a day or time
    /// that does not exist; a leap second counts as such. Digits of the fraction after the ninth
    /// are dropped.
    ///
    /// # Source
    ///
    /// Go's `time.Time.UnmarshalJSON`, strict as it is documented. (In practice Go also takes an
    /// hour of one digit and a comma before the fraction; nothing writes either.)
    pub fn parse(text: &str) -> Result<Self, ParseTimestampError> {
        parse(text.as_bytes()).ok_or_else(|| ParseTimestampError { text: text.to_owned() })
    }

    fn offset_seconds(self) -> i64 {
        i64::from(self.offset_minutes) * 60
    }

    /// Seconds from the local 1970-01-01T00:00:00. Saturates at the very ends of what `seconds`
    /// can hold, 292 billion years away, where clamping discards the year in any case.
    fn local_seconds(self) -> i64 {
        self.seconds.saturating_add(self.offset_seconds())
    }

    fn to_text(self) -> Text {
        let writable = self.clamped();
        let local = writable.local_seconds();
        let mut text = Text::new();
        text.push_date(Date::from_days(local.div_euclid(SECONDS_PER_DAY)));
        text.push(b'T');
        text.push_time_of_day(local.rem_euclid(SECONDS_PER_DAY));
        text.push_fraction(writable.nanoseconds);
        text.push_offset(writable.offset_minutes);
        text
    }
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Timestamp {}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.seconds, self.nanoseconds).cmp(&(other.seconds, other.nanoseconds))
    }
}

impl Hash for Timestamp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.seconds, self.nanoseconds).hash(state);
    }
}

/// Writes the text form, [clamped](Timestamp::clamped).
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_text().as_str())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.to_text().as_str())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time as in RFC 3339")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

/// The text is not a time of RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse {text:?} as a time of RFC 3339")]
pub struct ParseTimestampError {
    /// The text that was refused.
    pub text: String,
}

const NANOSECONDS_PER_SECOND: u32 = 1_000_000_000;
const MINUTES_PER_DAY: u16 = 24 * 60;
const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

/// Days from 0000-03-01, where the calendar's arithmetic starts, to 1970-01-01.
const DAYS_TO_UNIX_EPOCH: i64 = 719_468;

/// The Gregorian calendar repeats, days of the week included, after 400 years of this many days.
const DAYS_PER_CYCLE: i64 = 146_097;

const YEARS_PER_CYCLE: i64 = 400;

/// Asks `zone` for its offset, for any moment.
///
/// `jiff` knows the years −9999 to 9999. Beyond them a zone's rules go by the calendar alone, which
/// repeats every 400 years, so the moment at the same place in a year that `jiff` knows has the
/// same offset.
fn offset_seconds_at(seconds: i64, zone: &TimeZone) -> i32 {
    const SECONDS_PER_CYCLE: i64 = DAYS_PER_CYCLE * SECONDS_PER_DAY;
    let known = jiff::Timestamp::MIN.as_second()..jiff::Timestamp::MAX.as_second();
    let within = if seconds < known.start {
        known.start
            + (seconds.rem_euclid(SECONDS_PER_CYCLE) - known.start).rem_euclid(SECONDS_PER_CYCLE)
    } else if seconds >= known.end {
        known.end
            - 1
            - (known.end - 1 - seconds.rem_euclid(SECONDS_PER_CYCLE)).rem_euclid(SECONDS_PER_CYCLE)
    } else {
        seconds
    };
    let moment = jiff::Timestamp::from_second(within).expect("within the range that jiff knows");
    zone.to_offset(moment).seconds()
}

/// A day of the proleptic Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Date {
    year: i64,
    month: i64,
    day: i64,
}

/// Both directions count years from March, so that the leap day is the last of its year, and
/// months by the rule that five of them have 153 days, starting with March.
impl Date {
    /// Finds the date that is `days` after 1970-01-01.
    fn from_days(days: i64) -> Self {
        let days = days + DAYS_TO_UNIX_EPOCH;
        let day_of_cycle = days.rem_euclid(DAYS_PER_CYCLE);
        let leap_days_before =
            day_of_cycle / 1_460 - day_of_cycle / 36_524 + day_of_cycle / (DAYS_PER_CYCLE - 1);
        let year_of_cycle = (day_of_cycle - leap_days_before) / 365;
        let day_of_year = day_of_cycle - days_before_year(year_of_cycle);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let starts_before_march = month_from_march >= 10;
        Self {
            year: days.div_euclid(DAYS_PER_CYCLE) * YEARS_PER_CYCLE
                + year_of_cycle
                + i64::from(starts_before_march),
            month: if starts_before_march { month_from_march - 9 } else { month_from_march + 3 },
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
        }
    }

    /// Counts the days from 1970-01-01. A day past the month's end counts into the next month.
    fn days(self) -> i64 {
        let year_from_march = self.year - i64::from(self.month < 3);
        let month_from_march = (self.month + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5 + self.day - 1;
        year_from_march.div_euclid(YEARS_PER_CYCLE) * DAYS_PER_CYCLE
            + days_before_year(year_from_march.rem_euclid(YEARS_PER_CYCLE))
            + day_of_year
            - DAYS_TO_UNIX_EPOCH
    }

    fn exists(self) -> bool {
        (1..=12).contains(&self.month) && self.day >= 1 && Self::from_days(self.days()) == self
    }
}

/// Counts the days of a 400-year cycle before the given year of it; a year starts in March.
fn days_before_year(year_of_cycle: i64) -> i64 {
    365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100
}

/// The text form under construction, on the stack because there are three to every tree node.
struct Text {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl Text {
    const CAPACITY: usize = "9999-12-31T23:59:59.999999999+23:59".len();

    fn new() -> Self {
        Self { bytes: [0; Self::CAPACITY], len: 0 }
    }

    fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).expect("only ASCII is ever pushed")
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// Pushes the last `N` decimal digits of a number that is not negative.
    fn push_digits<const N: usize>(&mut self, mut number: i64) {
        for place in self.bytes[self.len..][..N].iter_mut().rev() {
            *place = b'0' + u8::try_from(number % 10).expect("a digit");
            number /= 10;
        }
        self.len += N;
    }

    fn push_date(&mut self, date: Date) {
        self.push_digits::<4>(date.year);
        self.push(b'-');
        self.push_digits::<2>(date.month);
        self.push(b'-');
        self.push_digits::<2>(date.day);
    }

    fn push_time_of_day(&mut self, second_of_day: i64) {
        self.push_digits::<2>(second_of_day / 3_600);
        self.push(b':');
        self.push_digits::<2>(second_of_day / 60 % 60);
        self.push(b':');
        self.push_digits::<2>(second_of_day % 60);
    }

    fn push_fraction(&mut self, nanoseconds: u32) {
        if nanoseconds == 0 {
            return;
        }
        self.push(b'.');
        self.push_digits::<9>(i64::from(nanoseconds));
        while self.bytes[self.len - 1] == b'0' {
            self.len -= 1;
        }
    }

    fn push_offset(&mut self, offset_minutes: i16) {
        if offset_minutes == 0 {
            return self.push(b'Z');
        }
        self.push(if offset_minutes < 0 { b'-' } else { b'+' });
        let minutes = i64::from(offset_minutes.unsigned_abs());
        self.push_digits::<2>(minutes / 60);
        self.push(b':');
        self.push_digits::<2>(minutes % 60);
    }
}

fn parse(text: &[u8]) -> Option<Timestamp> {
    let (head, tail) = text.split_at_checked("2006-01-02T15:04:05".len())?;
    let separators = (head[4], head[7], head[10], head[13], head[16]);
    if separators != (b'-', b'-', b'T', b':', b':') {
        return None;
    }
    let date =
        Date { year: number(head, 0..4)?, month: number(head, 5..7)?, day: number(head, 8..10)? };
    let (hour, minute, second) =
        (number(head, 11..13)?, number(head, 14..16)?, number(head, 17..19)?);
    if !date.exists() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }

    let (nanoseconds, zone) = parse_fraction(tail)?;
    let offset_minutes = parse_offset(zone)?;
    let local = date.days() * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second;
    let seconds = local - i64::from(offset_minutes) * 60;
    Some(Timestamp { seconds, nanoseconds, offset_minutes })
}

/// Reads the nanoseconds from the front, if there is a fraction, and returns what follows it.
fn parse_fraction(tail: &[u8]) -> Option<(u32, &[u8])> {
    let Some(digits) = tail.strip_prefix(b".") else {
        return Some((0, tail));
    };
    let n_digits = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (fraction, rest) = digits.split_at(n_digits);
    if fraction.is_empty() {
        return None;
    }
    let nanoseconds = fraction
        .iter()
        .chain(std::iter::repeat(&b'0'))
        .take(9)
        .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    Some((nanoseconds, rest))
}

fn parse_offset(zone: &[u8]) -> Option<i16> {
    let sign = match zone {
        b"Z" => return Some(0),
        [b'+', _, _, b':', _, _] => 1,
        [b'-', _, _, b':', _, _] => -1,
        _ => return None,
    };
    let (hours, minutes) = (number(zone, 1..3)?, number(zone, 4..6)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    i16::try_from(sign * (hours * 60 + minutes)).ok()
}

/// Reads the digits in `range`, which must lie within `bytes`.
fn number(bytes: &[u8], range: Range<usize>) -> Option<i64> {
    bytes[range].iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 0000-01-01T00:00:00Z and the last second of 9999, in UTC.
    const YEARS_0_TO_9999: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

    fn check(seconds: i64, nanoseconds: u32, offset_minutes: i16, expected: &str) {
        let timestamp = Timestamp::new(seconds, nanoseconds, offset_minutes);
        assert_eq!(timestamp.to_string(), expected);
        let parsed = Timestamp::parse(expected).unwrap();
        assert_eq!(
            (parsed.seconds, parsed.nanoseconds, parsed.offset_minutes),
            (seconds, nanoseconds, offset_minutes)
        );
    }

    fn check_clamped(seconds: i64, offset_minutes: i16, expected: &str) {
        let timestamp = Timestamp::new(seconds, 5, offset_minutes);
        assert_eq!(timestamp.to_string(), expected);
        assert_eq!(Timestamp::parse(expected), Ok(timestamp.clamped()));
    }

    fn days(year: i64, month: i64, day: i64) -> i64 {
        Date { year, month, day }.days()
    }

    #[test]
    fn writes_as_go_does() {
        check(0, 0, 0, "1970-01-01T00:00:00Z");
        check(-1, 999_999_999, 0, "1969-12-31T23:59:59.999999999Z");
        check(1_136_239_445, 0, -420, "2006-01-02T15:04:05-07:00");
        check(1_709_280_000, 500_000_000, 60, "2024-03-01T09:00:00.5+01:00");
        check(1_709_280_000, 1, 345, "2024-03-01T13:45:00.000000001+05:45");
        check(1_709_280_000, 100, -570, "2024-02-29T22:30:00.0000001-09:30");
        check(-62_135_596_800, 0, 0, "0001-01-01T00:00:00Z");
        check(*YEARS_0_TO_9999.start(), 0, 0, "0000-01-01T00:00:00Z");
        check(*YEARS_0_TO_9999.end(), 999_999_999, 0, "9999-12-31T23:59:59.999999999Z");
        check(951_782_400, 0, 0, "2000-02-29T00:00:00Z");
        check(0, 0, 1439, "1970-01-01T23:59:00+23:59");
        check(0, 0, -1, "1969-12-31T23:59:00-00:01");
    }

    #[test]
    fn reads_forms_that_it_never_writes() {
        for (text, expected) in [
            ("1970-01-01T00:00:00+00:00", "1970-01-01T00:00:00Z"),
            ("1970-01-01T00:00:00-00:00", "1970-01-01T00:00:00Z"),
            ("1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00Z"),
            ("1970-01-01T00:00:00.1234567899Z", "1970-01-01T00:00:00.123456789Z"),
            ("1970-01-01T00:00:00.120-01:00", "1970-01-01T00:00:00.12-01:00"),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn refuses_what_is_not_strict() {
        for text in [
            "",
            "2006",
            "2006-01-02",
            "2006-01-02T15:04:05",
            "2006-01-02T15:04Z",
            "2006-01-02t15:04:05Z",
            "2006-01-02T15:04:05z",
            "2006-01-02 15:04:05Z",
            "2006-01-02T15:04:05,5Z",
            "2006-01-02T15:04:05.Z",
            "2006-01-02T15:04:05.+01:00",
            "2006-01-02T15:04:05.5",
            "2006-01-02T15:04:05ZZ",
            "2006-01-02T15:04:05+0100",
            "2006-01-02T15:04:05+24:00",
            "2006-01-02T15:04:05+01:60",
            "2006-01-02T15:04:05 01:00",
            "2006-01-02T15:04:05+01:00:00",
            "2006-01-02T24:00:00Z",
            "2006-01-02T15:60:05Z",
            "2006-01-02T15:04:60Z",
            "2006-00-02T15:04:05Z",
            "2006-13-02T15:04:05Z",
            "2006-01-00T15:04:05Z",
            "2006-01-32T15:04:05Z",
            "2006-02-29T15:04:05Z",
            "1900-02-29T15:04:05Z",
            "2006-04-31T15:04:05Z",
            "+006-01-02T15:04:05Z",
            "-001-01-02T15:04:05Z",
            "12006-01-02T15:04:05Z",
            "2006-01-02T1:04:05Z",
            "2006-01-02T15:04:05\u{e9}",
            "200\u{e9}-01-02T15:04:05Z",
        ] {
            assert_eq!(Timestamp::parse(text), Err(ParseTimestampError { text: text.into() }));
        }
        assert_eq!(
            Timestamp::parse("now").unwrap_err().to_string(),
            r#"parse "now" as a time of RFC 3339"#
        );
    }

    #[test]
    fn clamps_years_that_cannot_be_written() {
        check_clamped(253_402_300_800, 0, "9999-01-01T00:00:00.000000005Z");
        check_clamped(253_402_300_799, 1, "9999-01-01T00:00:59.000000005+00:01");
        check_clamped(-62_167_219_201, 0, "0000-12-31T23:59:59.000000005Z");
        check_clamped(-62_167_219_200, -1, "0000-12-31T23:59:00.000000005-00:01");
        check_clamped(days(12_000, 2, 29) * 86_400 + 7, 0, "9999-03-01T00:00:07.000000005Z");
        check_clamped(days(-4, 2, 29) * 86_400 + 7, 0, "0000-02-29T00:00:07.000000005Z");
        for seconds in [i64::MIN, i64::MAX] {
            for offset_minutes in [-1439, 0, 1439] {
                let extreme = Timestamp::new(seconds, 0, offset_minutes);
                let clamped = Timestamp::parse(&extreme.to_string()).unwrap();
                assert_eq!(clamped, extreme.clamped());
            }
        }
    }

    #[test]
    fn clamping_leaves_other_years_alone() {
        for seconds in [*YEARS_0_TO_9999.start(), 0, *YEARS_0_TO_9999.end()] {
            assert_eq!(Timestamp::new(seconds, 1, 0).clamped().seconds, seconds);
        }
    }

    #[test]
    fn normalises_its_parts() {
        let carried = Timestamp::new(1, 2_000_000_003, 0);
        assert_eq!((carried.seconds(), carried.nanoseconds()), (3, 3));
        assert_eq!(Timestamp::new(i64::MAX, u32::MAX, 0).seconds(), i64::MAX);
        assert_eq!(Timestamp::new(0, 0, 1_440).offset_minutes(), 0);
        assert_eq!(Timestamp::new(0, 0, i16::MIN).offset_minutes(), 0);
    }

    #[test]
    fn compares_moments_not_texts() {
        let in_utc = Timestamp::parse("2024-03-01T08:00:00Z").unwrap();
        let in_berlin = Timestamp::parse("2024-03-01T09:00:00+01:00").unwrap();
        assert_eq!(in_utc, in_berlin);
        assert!(in_berlin < Timestamp::parse("2024-03-01T08:00:00.000000001Z").unwrap());
        assert!(in_berlin > Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn is_a_string_in_json() {
        let text = r#""2024-03-01T09:00:00.5+01:00""#;
        let timestamp = serde_json::from_str::<Timestamp>(text).unwrap();
        assert_eq!(serde_json::to_string(&timestamp).unwrap(), text);
        assert!(serde_json::from_str::<Timestamp>("1709280000").is_err());
        assert!(serde_json::from_str::<Timestamp>(r#""yesterday""#).is_err());
    }

    #[test]
    fn counts_every_day_of_the_writable_years() {
        let mut expected = Date { year: 0, month: 1, day: 1 };
        for day in days(0, 1, 1)..=days(9999, 12, 31) {
            assert_eq!(Date::from_days(day), expected);
            assert_eq!(expected.days(), day);
            expected = day_after(expected);
        }
        assert_eq!(expected, Date { year: 10_000, month: 1, day: 1 });
    }

    /// The calendar as it is taught, against which the arithmetic is checked.
    fn day_after(Date { year, month, day }: Date) -> Date {
        let is_leap_year = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let last_day = match month {
            2 => 28 + i64::from(is_leap_year),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        match (month, day) {
            (12, 31) => Date { year: year + 1, month: 1, day: 1 },
            _ if day == last_day => Date { year, month: month + 1, day: 1 },
            _ => Date { year, month, day: day + 1 },
        }
    }

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[test]
    fn takes_the_offset_of_the_moment() {
        let check = |seconds, expected| {
            assert_eq!(Timestamp::from_unix(seconds, 0, &berlin()).to_string(), expected);
        };
        check(1_709_280_000, "2024-03-01T09:00:00+01:00");
        check(1_711_846_799, "2024-03-31T01:59:59+01:00");
        check(1_711_846_800, "2024-03-31T03:00:00+02:00");
        check(1_729_990_800, "2024-10-27T02:00:00+01:00");
        check(-1, "1970-01-01T00:59:59+01:00");
    }

    #[test]
    fn takes_the_offset_of_moments_beyond_jiff() {
        for (year, month, expected) in [
            (10_000, 1, "9999-01-01T01:00:00+01:00"),
            (10_000, 7, "9999-07-01T02:00:00+02:00"),
            (400_000, 7, "9999-07-01T02:00:00+02:00"),
            (-400_000, 7, "0000-07-01T02:00:00+02:00"),
            (-400_000, 1, "0000-01-01T01:00:00+01:00"),
        ] {
            let seconds = days(year, month, 1) * SECONDS_PER_DAY;
            assert_eq!(Timestamp::from_unix(seconds, 0, &berlin()).to_string(), expected);
        }
        for seconds in [i64::MIN, i64::MAX] {
            Timestamp::from_unix(seconds, u32::MAX, &berlin()).to_string();
        }
    }

    #[test]
    fn writes_utc_where_the_offset_has_seconds() {
        let local_mean_time =
            TimeZone::fixed(jiff::tz::Offset::from_seconds(53 * 60 + 28).unwrap());
        let timestamp = Timestamp::from_unix(-2_500_000_000, 0, &local_mean_time);
        assert_eq!(timestamp.to_string(), "1890-10-11T19:33:20Z");
        let beyond_rfc_3339 = TimeZone::fixed(jiff::tz::Offset::from_seconds(25 * 3_600).unwrap());
        assert_eq!(Timestamp::from_unix(0, 0, &beyond_rfc_3339).offset_minutes(), 0);
    }

    prop_compose! {
        fn any_writable()(
            seconds in (YEARS_0_TO_9999.start() + 86_400)..(YEARS_0_TO_9999.end() - 86_400),
            nanoseconds in prop_oneof![Just(0), 0..NANOSECONDS_PER_SECOND],
            offset_minutes in prop_oneof![Just(0), -1439..=1439_i16],
        ) -> Timestamp {
            Timestamp::new(seconds, nanoseconds, offset_minutes)
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(timestamp in any_writable()) {
            let parsed = Timestamp::parse(&timestamp.to_string()).unwrap();
            prop_assert_eq!(parsed, timestamp);
            prop_assert_eq!(parsed.offset_minutes, timestamp.offset_minutes);
        }

        #[test]
        fn agrees_with_jiff(timestamp in any_writable()) {
            let nanoseconds = i32::try_from(timestamp.nanoseconds).unwrap();
            let moment = jiff::Timestamp::new(timestamp.seconds, nanoseconds).unwrap();
            let offset = jiff::tz::Offset::from_seconds(i32::from(timestamp.offset_minutes) * 60).unwrap();
            let expected = match timestamp.offset_minutes {
                0 => moment.to_string(),
                _ => moment.display_with_offset(offset).to_string(),
            };
            prop_assert_eq!(timestamp.to_string(), expected);
        }

        #[test]
        fn any_moment_can_be_written(seconds: i64, nanoseconds: u32, offset_minutes: i16) {
            let timestamp = Timestamp::new(seconds, nanoseconds, offset_minutes);
            prop_assert_eq!(Timestamp::parse(&timestamp.to_string()).unwrap(), timestamp.clamped());
            prop_assert_eq!(timestamp.clamped().clamped(), timestamp.clamped());
        }

        #[test]
        fn parsing_never_panics(text in "[0-9TZ:.+-]{0,40}|\\PC{0,40}") {
            if let Ok(timestamp) = Timestamp::parse(&text) {
                prop_assert_eq!(timestamp.clamped(), timestamp);
            }
        }
    }
}
