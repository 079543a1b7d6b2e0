//! Figures as people read them: seconds, ages, shares, moments.
//!
//! What nobody measured is the words [`NOT_MEASURED`], never a nought: a nought looks like the
//! best result of all. Words of others go through [`visible`], for a control character that
//! reaches a terminal or turns the direction of a line can make a report say something else.

use std::fmt::Write as _;

use jiff::{Timestamp, tz::TimeZone};

/// What stands in the place of a figure that does not exist.
pub const NOT_MEASURED: &str = "not measured";

const MINUTE_S: f64 = 60.0;
const HOUR_S: f64 = 60.0 * MINUTE_S;
const DAY_S: f64 = 24.0 * HOUR_S;

/// Writes seconds: `0.8 s`, `7.2 s`, `41 s`, `12 min 05 s`, `3 h 20 min`, `12 d`.
#[must_use]
pub fn seconds(s: f64) -> String {
    if !s.is_finite() {
        return NOT_MEASURED.to_owned();
    }
    if s < 0.0 {
        return format!("\u{2212}{}", seconds(-s));
    }
    match s {
        0.0 => "0 s".to_owned(),
        ..0.095 => format!("{s:.2} s"),
        ..9.95 => decimal(s),
        ..59.5 => format!("{s:.0} s"),
        ..3599.5 => two_units(s, "min", 60.0, "s"),
        ..86_370.0 => two_units(s / MINUTE_S, "h", 60.0, "min"),
        ..864_000.0 => two_units(s / HOUR_S, "d", 24.0, "h"),
        _ => format!("{:.0} d", (s / DAY_S).floor()),
    }
}

/// One decimal, none when it is a nought: objectives are whole seconds.
fn decimal(s: f64) -> String {
    let text = format!("{s:.1}");
    format!("{} s", text.strip_suffix(".0").unwrap_or(&text))
}

/// Small units into a large and a small one; the small one is left out when it is nought.
fn two_units(small: f64, large_name: &str, factor: f64, small_name: &str) -> String {
    let total = small.round();
    let (large, rest) = ((total / factor).floor(), total % factor);
    if rest < 0.5 {
        return format!("{large:.0} {large_name}");
    }
    format!("{large:.0} {large_name} {rest:02.0} {small_name}")
}

/// Writes seconds that may be unknown.
#[must_use]
pub fn maybe_seconds(s: Option<f64>) -> String {
    s.map_or_else(|| NOT_MEASURED.to_owned(), seconds)
}

/// Writes an objective that may be missing.
#[must_use]
pub fn objective(s: Option<f64>) -> String {
    s.map_or_else(|| "no objective".to_owned(), seconds)
}

/// Writes a measured figure beside its objective: `7.2 s / 15 min`.
#[must_use]
pub fn against(actual: Option<f64>, goal: Option<f64>) -> String {
    format!("{} / {}", maybe_seconds(actual), objective(goal))
}

/// Writes a bound: `1.2 s to 2.2 s`, or one figure where both ends read alike.
#[must_use]
pub fn bound(least: Option<f64>, most: Option<f64>) -> String {
    match (least, most) {
        (Some(least), Some(most)) => {
            let (from, to) = (seconds(least), seconds(most));
            if from == to { to } else { format!("{from} to {to}") }
        }
        (None, Some(most)) => format!("at most {}", seconds(most)),
        (Some(least), None) => format!("at least {}", seconds(least)),
        (None, None) => NOT_MEASURED.to_owned(),
    }
}

/// Writes how long ago something was, in its largest unit: `12 d`.
#[must_use]
pub fn age(s: f64) -> String {
    let s = s.max(0.0);
    match s {
        ..60.0 => format!("{:.0} s", s.floor()),
        ..3600.0 => format!("{:.0} min", (s / MINUTE_S).floor()),
        ..172_800.0 => format!("{:.0} h", (s / HOUR_S).floor()),
        _ => format!("{:.0} d", (s / DAY_S).floor()),
    }
}

/// Writes a share of one as a percentage: `97.5 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

/// Writes a count with its noun: `1 drill`, `12 drills`.
#[must_use]
pub fn count(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{plural}")
}

/// Writes moments in one time zone; an unknown zone is UTC, and the name says so.
#[derive(Debug, Clone)]
pub struct Moments {
    zone: TimeZone,
    name: String,
}

impl Moments {
    /// Takes an IANA name such as `Europe/Rome`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        match TimeZone::get(name) {
            Ok(zone) => Self { zone, name: name.to_owned() },
            Err(_) => Self { zone: TimeZone::UTC, name: "UTC".to_owned() },
        }
    }

    /// The name of the zone in which moments are written.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.name
    }

    /// Writes a moment: `2026-11-20 14:03`.
    #[must_use]
    pub fn moment(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
    }

    /// Writes a moment with its seconds and offset: `2026-11-20 14:03:07 +01:00`.
    #[must_use]
    pub fn exact(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
    }

    /// Writes a day: `2026-11-20`.
    #[must_use]
    pub fn day(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d").to_string()
    }
}

/// Replaces what a reader cannot see, line feeds apart: control characters by their pictures,
/// marks that turn the direction of text and other invisible ones by `U+FFFD`.
#[must_use]
pub fn visible(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { c } else { visible_char(c) }).collect()
}

fn visible_char(c: char) -> char {
    match c {
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200e}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}' => '\u{fffd}',
        _ => c,
    }
}

/// Shortens a long hex text to its beginning, as people quote it.
#[must_use]
pub fn short(hex: &str) -> String {
    hex.chars().take(12).collect()
}

/// Joins parts with commas and a last "and".
#[must_use]
pub fn list(parts: &[&str]) -> String {
    let mut text = String::new();
    for (i, part) in parts.iter().enumerate() {
        let joint = match i {
            0 => "",
            _ if i + 1 == parts.len() => " and ",
            _ => ", ",
        };
        write!(text, "{joint}{part}").expect("a string takes all that is written");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_the_unit_that_people_would_use() {
        let check = |s: f64, expected: &str| assert_eq!(seconds(s), expected, "{s}");
        check(0.0, "0 s");
        check(0.04, "0.04 s");
        check(0.8, "0.8 s");
        check(0.099, "0.1 s");
        check(7.2, "7.2 s");
        check(5.0, "5 s");
        check(9.96, "10 s");
        check(41.4, "41 s");
        check(59.6, "1 min");
        check(725.0, "12 min 05 s");
        check(900.0, "15 min");
        check(3599.6, "1 h");
        check(12_000.0, "3 h 20 min");
        check(86_399.0, "1 d");
        check(129_600.0, "1 d 12 h");
        check(12.0 * DAY_S, "12 d");
        check(-3.0, "\u{2212}3 s");
        check(f64::NAN, NOT_MEASURED);
        check(f64::INFINITY, NOT_MEASURED);
    }

    #[test]
    fn what_is_not_known_is_said_in_words() {
        assert_eq!(against(None, Some(900.0)), "not measured / 15 min");
        assert_eq!(against(Some(7.2), None), "7.2 s / no objective");
        assert_eq!(bound(Some(1.2), Some(2.2)), "1.2 s to 2.2 s");
        assert_eq!(bound(Some(2.0), Some(2.0)), "2 s");
        assert_eq!(bound(None, Some(3.0)), "at most 3 s");
        assert_eq!(bound(Some(3.0), None), "at least 3 s");
        assert_eq!(bound(None, None), NOT_MEASURED);
    }

    #[test]
    fn ages_shares_counts_and_lists() {
        assert_eq!(age(30.0), "30 s");
        assert_eq!(age(47.0 * HOUR_S), "47 h");
        assert_eq!(age(12.4 * DAY_S), "12 d");
        assert_eq!(percent(0.975), "97.5 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(count(1, "drill"), "1 drill");
        assert_eq!(count(0, "drill"), "0 drills");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(list(&[]), "");
    }

    #[test]
    fn moments_are_written_in_the_zone_of_the_report() {
        let at: Timestamp = "2026-11-20T13:03:07Z".parse().unwrap();
        assert_eq!(Moments::new("Europe/Rome").exact(at), "2026-11-20 14:03:07 +01:00");
        assert_eq!(Moments::new("UTC").moment(at), "2026-11-20 13:03");
        assert_eq!(Moments::new("Mars/Olympus").zone(), "UTC");
    }

    #[test]
    fn what_cannot_be_seen_is_made_visible() {
        assert_eq!(visible("a\u{1b}[31m\tb"), "a\u{241b}[31m\u{2409}b");
        assert_eq!(visible("abc\u{202e}fed"), "abc\u{fffd}fed");
        assert_eq!(visible("straße\n"), "straße\n");
    }
}
