//! What is due, what was missed, what expired.
//!
//! Nothing here remembers: what ran is read from the ledger, so a process that was down finds
//! what it missed. A wall clock that jumps back must not stop a job for as long as it jumped,
//! so a last run that lies in the future counts as one that ran now.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use muster_model::{Cadence, CronSchedule};

/// Whether a job runs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It runs now.
    Now {
        /// When it should have run.
        since: Timestamp,
        /// How many runs before this one never happened.
        missed: u32,
    },
    /// It runs then.
    At(Timestamp),
    /// It never runs again.
    Never,
}

/// Runs that are counted one by one before counting stops: a schedule of every minute that was
/// off for a year.
const MISSED_MAX: u32 = 1_000_000;

/// When a job is due that last started at `last`; one that never ran counts from `since`, the
/// moment at which its plan was first seen. A job with an interval that never ran is due at
/// once.
#[must_use]
pub fn due(
    cadence: &Cadence,
    last: Option<Timestamp>,
    since: Timestamp,
    now: Timestamp,
    zone: &TimeZone,
) -> Due {
    let last = last.map(|last| last.min(now));
    match cadence {
        Cadence::Every(interval) => match last {
            None => Due::Now { since: now, missed: 0 },
            Some(last) => due_by_interval(*interval, last, now),
        },
        Cadence::Cron(cron) => due_by_calendar(cron, last.unwrap_or(since.min(now)), now, zone),
    }
}

fn due_by_interval(interval: Duration, last: Timestamp, now: Timestamp) -> Due {
    let Ok(next) = last.checked_add(interval) else { return Due::Never };
    if next > now {
        return Due::At(next);
    }
    let late = Duration::try_from(now.duration_since(next)).unwrap_or_default();
    let missed = late.as_nanos() / interval.as_nanos().max(1);
    Due::Now { since: next, missed: u32::try_from(missed).unwrap_or(MISSED_MAX).min(MISSED_MAX) }
}

fn due_by_calendar(cron: &CronSchedule, last: Timestamp, now: Timestamp, zone: &TimeZone) -> Due {
    let Some(first) = cron.next_after(last, zone) else { return Due::Never };
    if first > now {
        return Due::At(first);
    }
    let mut missed = 0;
    let mut latest = first;
    while let Some(next) = cron.next_after(latest, zone)
        && next <= now
        && missed < MISSED_MAX
    {
        latest = next;
        missed += 1;
    }
    Due::Now { since: latest, missed }
}

/// A rehearsal that the calendar asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appointment {
    /// When it is due.
    pub due: Timestamp,
    /// When it is too late: the next one's time, or a day later.
    pub until: Timestamp,
}

impl Appointment {
    /// Nobody started it in time.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now > self.until
    }
}

/// A drill that is due may start for so long, unless the next one is due before.
const DRILL_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// The appointments of a schedule that was first seen at `since`: all that were due by `now`,
/// and the next one, oldest first; at most the newest `most`.
#[must_use]
pub fn appointments(
    cron: &CronSchedule,
    since: Timestamp,
    now: Timestamp,
    zone: &TimeZone,
    most: usize,
) -> Vec<Appointment> {
    let mut all = Vec::new();
    let mut due = cron.next_after(since, zone);
    while let Some(at) = due {
        let next = cron.next_after(at, zone);
        let window_ends = at.checked_add(DRILL_WINDOW).unwrap_or(Timestamp::MAX);
        let until = next.map_or(window_ends, |next| next.min(window_ends));
        all.push(Appointment { due: at, until });
        due = next.filter(|_| at <= now);
        if all.len() > most {
            all.remove(0);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-20T{text}Z").parse().unwrap()
    }

    fn every(seconds: u64) -> Cadence {
        Cadence::Every(Duration::from_secs(seconds))
    }

    fn cron(text: &str) -> CronSchedule {
        CronSchedule::parse(text).unwrap()
    }

    #[track_caller]
    fn check(cadence: &Cadence, last: Option<&str>, now: &str, expected: Due) {
        let actual = due(cadence, last.map(at), at("00:00:00"), at(now), &TimeZone::UTC);
        assert_eq!(actual, expected);
    }

    #[test]
    fn intervals_count_from_the_last_start() {
        check(&every(60), None, "10:00:00", Due::Now { since: at("10:00:00"), missed: 0 });
        check(&every(60), Some("10:00:00"), "10:00:30", Due::At(at("10:01:00")));
        let due_once = Due::Now { since: at("10:01:00"), missed: 0 };
        check(&every(60), Some("10:00:00"), "10:01:59", due_once);
        let missed = Due::Now { since: at("10:01:00"), missed: 9 };
        check(&every(60), Some("10:00:00"), "10:10:30", missed);
    }

    #[test]
    fn a_clock_that_jumps_back_stops_no_job() {
        check(&every(60), Some("11:00:00"), "10:00:00", Due::At(at("10:01:00")));
        let hourly = Cadence::Cron(cron("0 * * * *"));
        check(&hourly, Some("15:00:00"), "10:30:00", Due::At(at("11:00:00")));
    }

    #[test]
    fn the_calendar_counts_what_it_missed() {
        let hourly = Cadence::Cron(cron("0 * * * *"));
        check(&hourly, Some("10:00:00"), "10:30:00", Due::At(at("11:00:00")));
        let missed = Due::Now { since: at("13:00:00"), missed: 2 };
        check(&hourly, Some("10:00:00"), "13:05:00", missed);
        let first = Due::Now { since: at("01:00:00"), missed: 0 };
        check(&hourly, None, "01:30:00", first);
    }

    #[test]
    fn a_drill_expires_when_its_window_closes() {
        let six_hourly = cron("0 */6 * * *");
        let (since, now) = (at("00:30:00"), at("13:00:00"));
        let all = appointments(&six_hourly, since, now, &TimeZone::UTC, 10);
        let due: Vec<Timestamp> = all.iter().map(|appointment| appointment.due).collect();
        assert_eq!(due, [at("06:00:00"), at("12:00:00"), at("18:00:00")]);
        let expired: Vec<bool> = all.iter().map(|a| a.is_expired(now)).collect();
        assert_eq!(expired, [true, false, false]);
        let weekly = appointments(&cron("0 3 * * 0"), since, now, &TimeZone::UTC, 10);
        let window = weekly[0].until.duration_since(weekly[0].due);
        assert_eq!(window.as_secs(), 24 * 3600);
    }
}
