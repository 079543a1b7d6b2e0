//! Recovery times: whether what drills measured, at today's size, fits the objective.

mod limits;

use std::{collections::BTreeMap, time::Duration};

use muster_model::{
    Disruption, Step,
    units::{format_duration, format_size},
};

use super::{Context, objectives::where_promised};
use crate::{
    document::{DataItem, RestoreFact, Service, Strategy},
    fit::{self, Estimate, Sample},
    position::join,
    report::Report,
};

/// Checks a service's recovery times against what was measured and what the plan assumes.
pub(super) fn check(context: &Context<'_>, service: &Service, path: &str, report: &mut Report<'_>) {
    let times = service
        .objectives
        .iter()
        .filter_map(|(disruption, objective)| Some((*disruption, objective.rto?)));
    let mut by_time: BTreeMap<Duration, Vec<Disruption>> = BTreeMap::new();
    for (disruption, rto) in times {
        by_time.entry(rto).or_default().push(disruption);
    }
    if by_time.is_empty() || service.strategy != Strategy::BackupRestore {
        return;
    }
    check_runbook(service, path, report);
    check_assumed(service, &by_time, path, report);
    limits::check(context, service, path, report);
    let forecast = Forecast::of(context, service);
    for item in &forecast.unknown {
        let message = format!("how long a restore of '{item}' takes was never measured");
        let help = format!("run muster drill run {}", service.name);
        report.add("restore-speed-unknown", &format!("{path}.data.{item}"), message, help);
    }
    for (rto, disruptions) in &by_time {
        if forecast.seconds() > rto.as_secs_f64() {
            tell(service, &forecast, (*rto, disruptions), path, report);
        }
    }
}

/// Data that no step brings back will be missing after each recovery.
fn check_runbook(service: &Service, path: &str, report: &mut Report<'_>) {
    let restores = |name: &str| {
        service.recover.iter().any(|step| match step {
            Step::Restore { data } => data.iter().any(|data| data == name),
            Step::Start { .. } | Step::Run { .. } => false,
        })
    };
    for item in service.data.iter().filter(|item| !restores(&item.name)) {
        let message = format!("no step of recover brings '{}' back", item.name);
        let help = format!("add a step to recover: {{restore: [{}]}}", item.name);
        report.add("not-restored", &format!("{path}.data.{}", item.name), message, help);
    }
}

fn check_assumed(
    service: &Service,
    by_time: &BTreeMap<Duration, Vec<Disruption>>,
    path: &str,
    report: &mut Report<'_>,
) {
    let assumed =
        service.assume.detect.unwrap_or_default() + service.assume.decide.unwrap_or_default();
    for (rto, disruptions) in by_time.iter().filter(|(rto, _)| assumed > **rto) {
        let message = format!(
            "RTO {} cannot be met for {}: to detect and to decide are assumed to take {}",
            format_duration(*rto),
            list(disruptions),
            format_duration(assumed)
        );
        let help = "assume less, with a reason to, or promise more time";
        report.add("rto-unreachable", &join(path, "assume"), message, help);
    }
}

/// What a recovery of a service would take today.
struct Forecast {
    parts: Vec<Part>,
    /// Data items of which no restore was measured.
    unknown: Vec<String>,
    /// What a recovery takes besides restoring, in seconds.
    rest_s: f64,
}

struct Part {
    data: String,
    bytes: u64,
    estimate: Estimate,
    samples: usize,
}

impl Forecast {
    fn of(context: &Context<'_>, service: &Service) -> Self {
        let facts: Vec<&RestoreFact> =
            context.facts.restores.iter().filter(|fact| fact.service == service.name).collect();
        let mut forecast =
            Self { parts: Vec::new(), unknown: Vec::new(), rest_s: rest(service, &facts) };
        for item in &service.data {
            match part(context, service, item, &facts) {
                Some(part) => forecast.parts.push(part),
                None => forecast.unknown.push(item.name.clone()),
            }
        }
        forecast
    }

    /// All that is known of: at least so long.
    fn seconds(&self) -> f64 {
        self.rest_s + self.parts.iter().map(|part| part.estimate.seconds).sum::<f64>()
    }

    /// From and to; `None` when any part's uncertainty is unknown.
    fn interval(&self) -> Option<(f64, f64)> {
        let start = (self.parts.iter().any(|_| true)).then_some((self.rest_s, self.rest_s))?;
        self.parts.iter().try_fold(start, |(low, high), part| {
            let (from, to) = part.estimate.interval?;
            Some((low + from, high + to))
        })
    }
}

fn part(
    context: &Context<'_>,
    service: &Service,
    item: &DataItem,
    facts: &[&RestoreFact],
) -> Option<Part> {
    let of_item = facts.iter().filter(|fact| fact.data == item.name);
    let samples: Vec<Sample> = of_item.clone().map(|fact| sample(fact)).collect();
    let fit = fit::fit(&samples)?;
    let is_its = |fact: &&crate::document::BackupFact| {
        fact.service == service.name && fact.data == item.name
    };
    let newest = context.facts.backups.iter().filter(is_its).max_by_key(|fact| fact.ended);
    let largest = of_item.map(|fact| fact.bytes).max()?;
    let bytes = newest.map_or(largest, |fact| fact.bytes);
    let estimate = fit.predict(to_float(bytes));
    Some(Part { data: item.name.clone(), bytes, estimate, samples: samples.len() })
}

fn sample(fact: &RestoreFact) -> Sample {
    Sample { bytes: to_float(fact.bytes), seconds: fact.took.as_secs_f64() }
}

#[expect(clippy::cast_precision_loss, reason = "a speed needs no more than 15 digits")]
fn to_float(bytes: u64) -> f64 {
    bytes as f64
}

/// What a recovery takes besides its restores. The `rest` of one restore holds the other
/// restores of the same recovery, so the means of all are taken out of the mean of the whole.
fn rest(service: &Service, facts: &[&RestoreFact]) -> f64 {
    let mean = |seconds: Vec<f64>| match seconds.len() {
        0 => 0.0,
        n => seconds.iter().sum::<f64>() / to_float(n as u64),
    };
    let whole = mean(facts.iter().map(|fact| (fact.took + fact.rest).as_secs_f64()).collect());
    let restores = service.data.iter().map(|item| {
        let its = facts.iter().filter(|fact| fact.data == item.name);
        mean(its.map(|fact| fact.took.as_secs_f64()).collect())
    });
    (whole - restores.sum::<f64>()).max(0.0)
}

fn tell(
    service: &Service,
    forecast: &Forecast,
    (rto, disruptions): (Duration, &[Disruption]),
    path: &str,
    report: &mut Report<'_>,
) {
    let Some(first) = disruptions.first() else { return };
    let parts: Vec<String> = forecast
        .parts
        .iter()
        .map(|part| {
            format!(
                "restore of '{}' ({}) {}",
                part.data,
                format_size(part.bytes),
                seconds(part.estimate.seconds)
            )
        })
        .collect();
    let samples = forecast.parts.iter().map(|part| part.samples).min().unwrap_or(0);
    let certainty = match forecast.interval() {
        Some((low, high)) => {
            format!("between {} and {} with 95 % confidence", seconds(low), seconds(high))
        }
        None => format!("from too few drills to say how certain ({samples})"),
    };
    let message = format!(
        "RTO {} cannot be met for {}: {} + all else {} = {}, {certainty}",
        format_duration(rto),
        list(disruptions),
        parts.join(" + "),
        seconds(forecast.rest_s),
        seconds(forecast.seconds()),
    );
    let path = where_promised(service, path, *first, "rto", report);
    let help = "make the data smaller or the restore faster, promise more time, or keep a standby";
    report.add("rto-unreachable", &path, message, help);
}

fn seconds(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if seconds < 60.0 => format!("{:.1}s", duration.as_secs_f64()),
        Ok(duration) => format_duration(duration),
        Err(_) => "more than can be said".to_owned(),
    }
}

fn list(disruptions: &[Disruption]) -> String {
    disruptions.iter().map(|disruption| disruption.as_str()).collect::<Vec<_>>().join(", ")
}
