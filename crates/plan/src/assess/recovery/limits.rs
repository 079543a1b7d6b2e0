//! Recovery times that an archive or a limit of download forbids: what nobody measured yet and can be
//! said all the same. What compresses is not known here, so it is a warning; a measured restore
//! judges.

use std::{collections::BTreeMap, time::Duration};

use muster_model::{
    Disruption, Severity,
    units::{format_duration, format_size},
};

use super::{list, seconds, to_float};
use crate::{
    assess::{Context, objectives::where_promised, protections_of, repositories_of, survives},
    document::{DataItem, Repository, Service},
    report::Report,
};

/// Finds recovery times that are shorter than the way of the data out of an archive, or through the
/// limits.
pub(super) fn check(context: &Context<'_>, service: &Service, path: &str, report: &mut Report<'_>) {
    check_archives(context, service, path, report);
    check_limits(context, service, path, report);
}

/// An archive brings everything back in one wait, so the slowest item counts.
fn check_archives(context: &Context<'_>, service: &Service, path: &str, report: &mut Report<'_>) {
    let mut missed: BTreeMap<(Duration, Duration), (Vec<Disruption>, Vec<&str>)> = BTreeMap::new();
    for (disruption, objective) in &service.objectives {
        let Some(rto) = objective.rto else { continue };
        let items = service.data.iter().filter(|item| !is_measured(context, service, item));
        let delays = items.filter_map(|item| {
            let delay = archive_delay(context, service, item, *disruption)?;
            (delay > rto).then_some((delay, item.name.as_str()))
        });
        let delays: Vec<(Duration, &str)> = delays.collect();
        if let Some(longest) = delays.iter().map(|(delay, _)| *delay).max() {
            let names = delays.iter().map(|(_, name)| *name).collect();
            missed.entry((rto, longest)).or_insert((Vec::new(), names)).0.push(*disruption);
        }
    }
    for ((rto, delay), (disruptions, names)) in missed {
        let Some(first) = disruptions.first() else { continue };
        let message = format!(
            "RTO {} cannot be met for {}: '{}' lies in an archive, which takes up to {} to bring it \
             back",
            format_duration(rto),
            list(&disruptions),
            names.join("', '"),
            format_duration(delay),
        );
        let path = where_promised(service, path, *first, "rto", report);
        let help = "keep a copy that can be read at once, choose a quicker s3.restore-tier, or \
                    promise more time";
        report.add_as(Severity::Warning, "rto-unreachable", &path, message, help);
    }
}

/// How long an item takes to come out of the quickest archive; `None` where a copy survives that is
/// in none.
fn archive_delay(
    context: &Context<'_>,
    service: &Service,
    item: &DataItem,
    disruption: Disruption,
) -> Option<Duration> {
    let lines = protections_of(service, &item.name);
    let there = lines.flat_map(|(_, line)| repositories_of(context.plan, line));
    let survivors = there.map(|(_, it)| it).filter(|it| survives(disruption, it, service));
    let delays = survivors.map(Repository::archive_delay);
    delays.collect::<Option<Vec<Duration>>>()?.into_iter().min()
}

fn is_measured(context: &Context<'_>, service: &Service, item: &DataItem) -> bool {
    let restores = &context.facts.restores;
    restores.iter().any(|fact| (&fact.service, &fact.data) == (&service.name, &item.name))
}

fn check_limits(context: &Context<'_>, service: &Service, path: &str, report: &mut Report<'_>) {
    let mut missed: BTreeMap<(Duration, u64), (Vec<Disruption>, Vec<String>)> = BTreeMap::new();
    for (disruption, objective) in &service.objectives {
        let Some(rto) = objective.rto else { continue };
        let ways = service.data.iter().filter_map(|item| way(context, service, item, *disruption));
        let ways: Vec<Way<'_>> = ways.collect();
        let least: f64 = ways.iter().map(|way| way.seconds).sum();
        if least > rto.as_secs_f64() {
            let ways = ways.iter().map(Way::text).collect();
            let least = Duration::try_from_secs_f64(least).unwrap_or(Duration::MAX).as_secs();
            missed.entry((rto, least)).or_insert((Vec::new(), ways)).0.push(*disruption);
        }
    }
    for ((rto, least), (disruptions, ways)) in missed {
        let Some(first) = disruptions.first() else { continue };
        let message = format!(
            "RTO {} cannot be met for {} unless the data compresses well: {} = {}",
            format_duration(rto),
            list(&disruptions),
            ways.join(" + "),
            seconds(Duration::from_secs(least).as_secs_f64()),
        );
        let path = where_promised(service, path, *first, "rto", report);
        let help = "raise limits.download of the repository, or promise more time";
        report.add_as(Severity::Warning, "rto-unreachable", &path, message, help);
    }
}

/// How a data item comes back through the widest of the limits.
struct Way<'a> {
    data: &'a str,
    bytes: u64,
    limit: u64,
    seconds: f64,
}

impl Way<'_> {
    fn text(&self) -> String {
        let (bytes, limit) = (format_size(self.bytes), format_size(self.limit));
        format!("'{}' ({bytes}) at {limit}/s {}", self.data, seconds(self.seconds))
    }
}

/// `None` where a repository without a limit survives, the size is not known, or a restore was
/// measured, which knows better.
fn way<'a>(
    context: &Context<'_>,
    service: &Service,
    item: &'a DataItem,
    disruption: Disruption,
) -> Option<Way<'a>> {
    let is_its = |named: (&str, &str)| named == (service.name.as_str(), item.name.as_str());
    if is_measured(context, service, item) {
        return None;
    }
    let backups = context.facts.backups.iter();
    let backups = backups.filter(|fact| is_its((&fact.service, &fact.data)));
    let bytes = backups.max_by_key(|fact| fact.ended)?.bytes;
    let lines = protections_of(service, &item.name);
    let there = lines.flat_map(|(_, line)| repositories_of(context.plan, line));
    let survivors = there.map(|(_, it)| it).filter(|it| survives(disruption, it, service));
    let limits = survivors.map(|repository| repository.limits.download);
    let limit = limits.collect::<Option<Vec<u64>>>()?.into_iter().max()?;
    let seconds = to_float(bytes) / to_float(limit);
    Some(Way { data: &item.name, bytes, limit, seconds })
}
