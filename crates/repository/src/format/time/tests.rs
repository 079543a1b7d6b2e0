//! Golden times, Go's and jiff's, and any time there and back.

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
    let local_mean_time = TimeZone::fixed(jiff::tz::Offset::from_seconds(53 * 60 + 28).unwrap());
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
