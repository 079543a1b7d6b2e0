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
    document::{DataItem, Service},
    report::Report,
};

/// Finds recovery times that are shorter than the way of the data out of an archive, or through the
/// limits.
pub(super) fn check(context: &Context<'_>, service: &Service, path: &str, report: &mut Report<'_>) {
    check_archives(context, service, path, report);
    check_limits(context, service, path, report);
}

/// An archive brings everything back in one wait, so the slowest item counts. What a drill measured
/// does not speak against it: it may have restored a copy that this disruption takes.
fn check_archives(context: &Context<'_>, service: &Service, path: &str, report: &mut Report<'_>) {
    type Told<'a> = (Vec<Disruption>, Vec<&'a str>);
    let mut missed: BTreeMap<(Duration, Archived), Told<'_>> = BTreeMap::new();
    for (disruption, objective) in &service.objectives {
        let Some(rto) = objective.rto else { continue };
        let items = service.data.iter().filter_map(|item| {
            let archived = archived(context, service, item, *disruption)?;
            (archived.delay > rto || !archived.is_allowed).then_some((archived, &*item.name))
        });
        let items: Vec<(Archived, &str)> = items.collect();
        if let Some(slowest) = items.iter().map(|(archived, _)| *archived).max() {
            let names = items.iter().map(|(_, name)| *name).collect();
            missed.entry((rto, slowest)).or_insert((Vec::new(), names)).0.push(*disruption);
        }
    }
    for ((rto, archived), (disruptions, names)) in missed {
        let Some(first) = disruptions.first() else { continue };
        let leave = if archived.is_allowed { "" } else { ", and no warm_up allows that" };
        let message = format!(
            "RTO {} cannot be met for {}: '{}' lies in an archive, which takes up to {} to bring it \
             back{leave}",
            format_duration(rto),
            list(&disruptions),
            names.join("', '"),
            format_duration(archived.delay),
        );
        let path = where_promised(service, path, *first, "rto", report);
        let help = "keep a copy that can be read at once; or give the repository warm_up and a \
                    quicker s3.restore-tier, and promise more time";
        report.add_as(Severity::Warning, "rto-unreachable", &path, message, help);
    }
}

/// An item of which no copy survives that can be read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Archived {
    /// How long it takes to come back from the quickest archive.
    delay: Duration,
    /// Whether the plan lets it come back.
    is_allowed: bool,
}

fn archived(
    context: &Context<'_>,
    service: &Service,
    item: &DataItem,
    disruption: Disruption,
) -> Option<Archived> {
    let lines = protections_of(service, &item.name);
    let there = lines.flat_map(|(_, line)| repositories_of(context.plan, line));
    let survivors = there.map(|(_, it)| it).filter(|it| survives(disruption, it, service));
    let archives = survivors
        .map(|it| Some(Archived { delay: it.archive_delay()?, is_allowed: it.warm_up.is_some() }));
    let archives = archives.collect::<Option<Vec<Archived>>>()?;
    let allowed = archives.iter().filter(|it| it.is_allowed).min();
    allowed.or_else(|| archives.iter().min()).copied()
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
