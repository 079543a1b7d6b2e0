//! Recovery points: whether the schedule can keep what is promised.
//!
//! Just before a copy is complete, the newest complete one holds data as old as the interval,
//! plus the run that made it, plus the time its way took. That sum must not exceed the RPO, and
//! for each disruption only the copies count that survive it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use muster_model::{Cadence, CronSchedule, Disruption, units::format_duration};

use super::{Context, copies, objectives::where_promised};
use crate::{
    document::{DataItem, DataSource, Facts, Protection, Service},
    position::join,
    report::Report,
};

/// How many runs are looked at for the longest pause: a week of a schedule that runs every
/// minute of working hours.
const RUNS_MAX: usize = 3000;
/// How far ahead: every yearly schedule comes twice.
const AHEAD: Duration = Duration::from_secs(2 * 366 * 86_400);

/// What a line of `protect` can lose at worst for one data item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) interval: Duration,
    /// The longest run that was measured.
    pub(crate) run: Option<Duration>,
    /// The longest way of a copy that was measured; only where only copies survive.
    pub(crate) lag: Option<Duration>,
    /// Only copies count.
    pub(crate) by_copy: bool,
}

impl Loss {
    /// What a line can lose at worst: `None` when its schedule ends.
    pub(crate) fn of(
        line: &Protection,
        (service, data): (&str, &str),
        by_copy: bool,
        (facts, now): (&Facts, Timestamp),
    ) -> Option<Self> {
        let is_its =
            |fact: &&crate::document::BackupFact| fact.service == service && fact.data == data;
        let runs = facts.backups.iter().filter(is_its);
        Some(Self {
            interval: longest_interval(&line.cadence, now)?,
            run: runs.clone().map(|fact| fact.took).max(),
            lag: runs.map(|fact| fact.copy_lag).max().filter(|_| by_copy),
            by_copy,
        })
    }

    /// The sum of what is known; what was not measured is at least nothing.
    pub(crate) fn least(&self) -> Duration {
        let run = self.run.unwrap_or_default();
        self.interval.saturating_add(run).saturating_add(self.lag.unwrap_or_default())
    }

    fn terms(&self) -> String {
        let term = |duration: Option<Duration>| match duration {
            Some(duration) => exact(duration),
            None => "not measured".to_owned(),
        };
        let mut text =
            format!("interval {} + longest run {}", exact(self.interval), term(self.run));
        if self.by_copy {
            text.push_str(&format!(" + copy lag {}", term(self.lag)));
        }
        text
    }
}

/// With milliseconds where whole seconds would hide that one figure is larger than another.
fn exact(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format_duration(duration),
        _ if duration < Duration::from_secs(600) => format!("{:.1}s", duration.as_secs_f64()),
        _ => format_duration(duration),
    }
}

/// The longest time between two runs.
pub(crate) fn longest_interval(cadence: &Cadence, now: Timestamp) -> Option<Duration> {
    match cadence {
        Cadence::Every(interval) => Some(*interval),
        Cadence::Cron(schedule) => longest_pause(schedule, now),
    }
}

fn longest_pause(schedule: &CronSchedule, now: Timestamp) -> Option<Duration> {
    let end = now.checked_add(jiff::SignedDuration::try_from(AHEAD).ok()?).ok()?;
    let mut at = schedule.next_after(now, &TimeZone::UTC)?;
    let mut longest = None;
    for run in 0..RUNS_MAX {
        let Some(next) = schedule.next_after(at, &TimeZone::UTC) else { break };
        let pause = Duration::try_from(next.duration_since(at)).ok()?;
        longest = longest.max(Some(pause));
        at = next;
        if at > end && run > 0 {
            break;
        }
    }
    longest
}

/// What makes two findings one: the same line of the plan misses the same objective.
type Group = (usize, Duration);

/// What a line loses at worst, of which data, and which disruptions that concerns.
struct Missed<'a> {
    loss: Loss,
    data: Vec<&'a DataItem>,
    disruptions: BTreeSet<Disruption>,
}

/// Checks each data item of a service against each recovery point objective.
pub(super) fn check(context: &Context<'_>, service: &Service, path: &str, report: &mut Report<'_>) {
    let mut missed: BTreeMap<Group, Missed<'_>> = BTreeMap::new();
    for item in &service.data {
        for (disruption, objective) in &service.objectives {
            let Some(rpo) = objective.rpo.filter(|_| disruption.effect().loses_data) else {
                continue;
            };
            match best(context, service, item, *disruption) {
                Some((line, loss)) if loss.least() > rpo => {
                    let new = || Missed { loss, data: Vec::new(), disruptions: BTreeSet::new() };
                    missed.entry((line, rpo)).or_insert_with(new).add(item, *disruption, loss);
                }
                _ => {}
            }
        }
        check_archive(service, item, path, report);
    }
    for ((line, rpo), missed) in missed {
        tell(service, (line, path), (rpo, &missed), report);
    }
}

impl<'a> Missed<'a> {
    fn add(&mut self, item: &'a DataItem, disruption: Disruption, loss: Loss) {
        self.disruptions.insert(disruption);
        if self.data.last() != Some(&item) {
            self.data.push(item);
        }
        if (loss.least(), loss.by_copy) > (self.loss.least(), self.loss.by_copy) {
            self.loss = loss;
        }
    }
}

/// The line that loses least among those that leave a copy.
fn best(
    context: &Context<'_>,
    service: &Service,
    item: &DataItem,
    disruption: Disruption,
) -> Option<(usize, Loss)> {
    let lines = copies::protections_of(service, &item.name).filter_map(|(index, line)| {
        let left = copies::repositories_of(context.plan, line)
            .filter(|(_, repository)| copies::survives(disruption, repository, service));
        // The repository that is written first has no copy's way behind it.
        let by_copy = !left.map(|(is_first, _)| is_first).reduce(|first, next| first || next)?;
        let of = (service.name.as_str(), item.name.as_str());
        Some((index, Loss::of(line, of, by_copy, (context.facts, context.now))?))
    });
    lines.min_by_key(|(_, loss)| loss.least())
}

fn tell(
    service: &Service,
    (line, path): (usize, &str),
    (rpo, missed): (Duration, &Missed<'_>),
    report: &mut Report<'_>,
) {
    let Missed { loss, data, disruptions } = missed;
    let names: Vec<&str> = disruptions.iter().map(|disruption| disruption.as_str()).collect();
    let data: Vec<String> = data.iter().map(|item| format!("'{}'", item.name)).collect();
    let line_path = report.positions().item(&join(path, "protect"), line);
    let every =
        matches!(service.protect.get(line).map(|line| &line.cadence), Some(Cadence::Every(_)));
    let field = join(&line_path, if every { "every" } else { "schedule" });
    let rest = loss.least().saturating_sub(loss.interval);
    let help = match rpo.checked_sub(rest).filter(|left| !left.is_zero()) {
        None => {
            let place = disruptions
                .first()
                .map(|disruption| where_promised(service, path, *disruption, "rpo", report));
            format!(
                "run and copy alone exceed it: make them faster, or change {}",
                place.unwrap_or_default()
            )
        }
        Some(left) => format!("write every: {} or less", exact_short(left.min(rpo / 2))),
    };
    let message = format!(
        "RPO {} of {} cannot be kept for {}: {} = {} at least",
        exact(rpo),
        data.join(", "),
        names.join(", "),
        loss.terms(),
        exact(loss.least()),
    );
    report.add("rpo-unreachable", &field, message, help);
}

/// A duration as a plan has it: whole seconds, without needless zeros.
fn exact_short(duration: Duration) -> String {
    let seconds = duration.as_secs().max(1);
    match seconds {
        s if s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s % 3600 == 0 => format!("{}h", s / 3600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s if s > 60 => format!("{}m{}s", s / 60, s % 60),
        s => format!("{s}s"),
    }
}

/// PostgreSQL's log is not kept yet, so what counts is the age of the last base backup.
fn check_archive(service: &Service, item: &DataItem, path: &str, report: &mut Report<'_>) {
    let is_promised = service.objectives.values().any(|objective| objective.rpo.is_some());
    if !matches!(item.source, DataSource::Postgres { .. }) || !is_promised {
        return;
    }
    let message = format!(
        "the log of '{}' is not archived in this version: what is lost is what was written \
         since its last base backup",
        item.name
    );
    let help = "let protect run at half its RPO or more often";
    report.add("no-wal-archive", &format!("{path}.data.{}", item.name), message, help);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_of_a_schedule_counts() {
        let pause = |text: &str| {
            let schedule = CronSchedule::parse(text).unwrap();
            let now = "2026-11-20T12:00:00Z".parse().unwrap();
            longest_pause(&schedule, now).unwrap().as_secs() / 3600
        };
        assert_eq!(pause("0 * * * *"), 1);
        assert_eq!(pause("* 9-17 * * 1-5"), 63);
        assert_eq!(pause("0 0 1 * *"), 31 * 24);
        assert_eq!(pause("0 0 1 1 *"), 366 * 24);
        assert_eq!(pause("0 0 29 2 *"), 4 * 366 * 24 - 3 * 24);
    }

    #[test]
    fn proposals_are_plain() {
        let check = |s: u64, text: &str| assert_eq!(exact_short(Duration::from_secs(s)), text);
        check(150, "2m30s");
        check(1800, "30m");
        check(7200, "2h");
        check(0, "1s");
    }
}
