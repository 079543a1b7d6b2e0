//! Times that users type.

use jiff::{civil::DateTime, fmt::strtime, tz::TimeZone};
use muster_repository::format::time::Timestamp;

use crate::error::Failure;

/// Forms that are understood, in the local zone; what is left out is zero.
const FORMS: [&str; 6] = [
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
];

/// What is understood, for errors.
const EXPECTED: &str = "write a time such as '2026-01-31 17:45:00', or with an offset as in \
                                   2026-01-31T17:45:00+01:00";

/// Reads a time that a flag gives.
pub(crate) fn given(text: &str, zone: &TimeZone) -> Result<Timestamp, Failure> {
    let failure = || Failure::usage(format!("read the time '{text}'")).help(EXPECTED);
    parse(text, zone).ok_or_else(failure)
}

/// Reads a local time, or one with an offset.
fn parse(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    if let Ok(time) = Timestamp::parse(text) {
        return Some(time);
    }
    let civil = FORMS.iter().find_map(|form| {
        let broken_down = strtime::parse(form, text).ok()?;
        let midnight = || broken_down.to_date().map(|date| date.at(0, 0, 0, 0));
        let time: DateTime = broken_down.to_datetime().or_else(|_| midnight()).ok()?;
        Some(time)
    })?;
    let moment = civil.to_zoned(zone.clone()).ok()?.timestamp();
    Some(Timestamp::from_unix(moment.as_second(), 0, zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_local_unless_they_tell_their_offset() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(parse(text, &zone).map(|time| time.seconds()), expected, "{text}");
        };
        check("1970-01-01 01:00:00", Some(0));
        check("1970-01-01 02:00", Some(3600));
        check("1970-01-02", Some(23 * 3600));
        check("02.01.1970", Some(23 * 3600));
        check("1970-01-01T00:00:07Z", Some(7));
        check("yesterday", None);
        check("1970-13-01", None);
        check("", None);
    }
}
