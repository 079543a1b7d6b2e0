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

    /// Appends the text form, [clamped](Self::clamped).
    pub(crate) fn write(self, text: &mut Vec<u8>) {
        let form = self.to_text();
        text.extend_from_slice(&form.bytes[..form.len]);
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
mod tests;
