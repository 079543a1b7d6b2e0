//! When something runs: five cron fields in a time zone, or a fixed interval.

use std::{fmt, time::Duration};

use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use jiff::{Timestamp, tz::TimeZone};

/// A cron schedule of five fields: minute, hour, day of month, month, day of week.
#[derive(Debug, Clone)]
pub struct CronSchedule {
    text: String,
    /// Boxed: it is much larger than all else in a plan.
    cron: Box<Cron>,
}

impl PartialEq for CronSchedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for CronSchedule {}

/// The text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleError {
    /// The field that is wrong, as an offset in characters into the text.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ScheduleError {}

/// The fields, in order, with what a message calls them.
const FIELDS: [&str; 5] = ["minute", "hour", "day of the month", "month", "day of the week"];

impl CronSchedule {
    /// Reads five fields.
    ///
    /// # Errors
    /// Tells the field that is wrong and where it begins.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let fields = fields_with_columns(text);
        if let Some(error) = slash_apart(text, &fields) {
            return Err(error);
        }
        if fields.len() != FIELDS.len() && !text.starts_with('@') {
            let column = fields.get(FIELDS.len()).map_or(0, |(column, _)| *column);
            let message = format!(
                "a schedule has five fields ({}), this one has {}",
                FIELDS.join(", "),
                fields.len()
            );
            return Err(ScheduleError { column, message, suggestion: None });
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
        match parser.parse(text) {
            Ok(cron) => Ok(Self { text: text.to_owned(), cron: Box::new(cron) }),
            Err(error) => Err(wrong_field(&parser, &fields, &error.to_string())),
        }
    }

    /// The text as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first moment after `after` at which it is due, if there ever is one.
    #[must_use]
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let after = after.to_zoned(zone.clone());
        self.cron.find_next_occurrence(&after, false).ok().map(|next| next.timestamp())
    }

    /// The longest time between two runs among the next `runs`: what a schedule promises.
    #[must_use]
    pub fn longest_gap(&self, from: Timestamp, zone: &TimeZone, runs: usize) -> Option<Duration> {
        let mut at = self.next_after(from, zone)?;
        let mut longest = None;
        for _ in 0..runs {
            let next = self.next_after(at, zone)?;
            let gap = Duration::try_from(next.duration_since(at)).ok()?;
            longest = longest.max(Some(gap));
            at = next;
        }
        longest
    }
}

/// The fields and where each begins, in characters.
fn fields_with_columns(text: &str) -> Vec<(usize, String)> {
    let mut fields: Vec<(usize, String)> = Vec::new();
    let mut in_field = false;
    for (column, character) in text.chars().enumerate() {
        match character.is_whitespace() {
            true => in_field = false,
            false if in_field => {
                if let Some((_, field)) = fields.last_mut() {
                    field.push(character);
                }
            }
            false => {
                in_field = true;
                fields.push((column, character.to_string()));
            }
        }
    }
    fields
}

/// `* /5` for `*/5`: the commonest slip, which some parsers take for six fields.
fn slash_apart(text: &str, fields: &[(usize, String)]) -> Option<ScheduleError> {
    let (column, field) = fields.iter().find(|(_, field)| field.starts_with('/'))?;
    let suggestion =
        fields.iter().enumerate().fold(String::new(), |mut joined, (index, (_, f))| {
            if index > 0 && !f.starts_with('/') {
                joined.push(' ');
            }
            joined.push_str(f);
            joined
        });
    let suggestion = (suggestion != text).then_some(suggestion);
    let message = format!("'{field}' is no field: nothing stands before its slash");
    Some(ScheduleError { column: *column, message, suggestion })
}

/// Finds the field that the parser refuses, by trying each alone.
fn wrong_field(parser: &CronParser, fields: &[(usize, String)], cause: &str) -> ScheduleError {
    for (index, (column, field)) in fields.iter().enumerate() {
        let mut alone = ["*"; FIELDS.len()];
        if let Some(slot) = alone.get_mut(index) {
            *slot = field;
        }
        if parser.parse(&alone.join(" ")).is_err() {
            let name = FIELDS.get(index).copied().unwrap_or("field");
            let message = format!("'{field}' is no {name}");
            return ScheduleError { column: *column, message, suggestion: None };
        }
    }
    ScheduleError { column: 0, message: cause.to_owned(), suggestion: None }
}

impl fmt::Display for CronSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// When a job runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cadence {
    /// So long after the start of the run before.
    Every(Duration),
    /// By the calendar.
    Cron(CronSchedule),
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(interval) => {
                write!(f, "every {}", crate::units::format_duration(*interval))
            }
            Self::Cron(cron) => write!(f, "at {cron}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;

    fn refused(text: &str) -> ScheduleError {
        CronSchedule::parse(text).unwrap_err()
    }

    #[test]
    fn a_blank_before_the_slash_is_found_at_its_column() {
        let error = refused("* /5 * * * *");
        assert_eq!((error.column, error.suggestion.as_deref()), (2, Some("*/5 * * * *")));
    }

    #[test]
    fn the_wrong_field_is_named() {
        let error = refused("0 25 * * *");
        assert_eq!((error.column, error.message.as_str()), (2, "'25' is no hour"));
        assert_eq!(refused("0 3 * *").column, 0);
        assert_eq!(refused("0 0 3 * * *").column, 10);
    }

    #[test]
    fn the_next_run_is_in_the_given_zone() {
        let schedule = CronSchedule::parse("0 3 * * *").unwrap();
        let after = Timestamp::from_str("2026-11-20T12:00:00Z").unwrap();
        let next = |zone: TimeZone| schedule.next_after(after, &zone).unwrap().to_string();
        assert_eq!(next(TimeZone::UTC), "2026-11-21T03:00:00Z");
        assert_eq!(next(TimeZone::fixed(jiff::tz::offset(2))), "2026-11-21T01:00:00Z");
    }

    #[test]
    fn the_longest_gap_is_what_a_schedule_promises() {
        let gap = |text: &str| {
            let from = Timestamp::from_str("2026-11-20T12:00:00Z").unwrap();
            CronSchedule::parse(text).unwrap().longest_gap(from, &TimeZone::UTC, 50).unwrap()
        };
        assert_eq!(gap("*/15 * * * *"), Duration::from_secs(15 * 60));
        assert_eq!(gap("0 9-17 * * *"), Duration::from_secs(16 * 3600));
    }
}
