//! Copies: which there are, what they survive, and 3-2-1-1-0.

use std::collections::BTreeSet;

use muster_model::{Disruption, Severity, disruption::Survivors};

use super::{Context, objectives::where_promised};
use crate::{
    document::{DataItem, Plan, Protection, Repository, Service},
    report::Report,
};

/// The lines of `protect` that name a data item, with their index.
pub(crate) fn protections_of<'a>(
    service: &'a Service,
    data: &'a str,
) -> impl Iterator<Item = (usize, &'a Protection)> {
    let lines = service.protect.iter().enumerate();
    lines.filter(move |(_, line)| line.data.iter().any(|name| name == data))
}

/// The repositories that a line writes: first the one that it writes itself, then the copies.
pub(crate) fn repositories_of<'a>(
    plan: &'a Plan,
    line: &'a Protection,
) -> impl Iterator<Item = (bool, &'a Repository)> {
    let copies = line.copy.iter().map(|name| (false, name));
    let all = std::iter::once((true, &line.to)).chain(copies);
    all.filter_map(|(is_first, name)| Some((is_first, plan.repository(name)?)))
}

/// Whether a copy in a repository is there after a disruption struck the service.
pub(crate) fn survives(disruption: Disruption, repository: &Repository, service: &Service) -> bool {
    disruption.spares(&repository.place, repository.held_for().is_some(), &service.place)
}

fn all_repositories<'a>(
    plan: &'a Plan,
    service: &'a Service,
    item: &'a DataItem,
) -> impl Iterator<Item = &'a Repository> {
    let lines = protections_of(service, &item.name);
    lines.flat_map(|(_, line)| repositories_of(plan, line)).map(|(_, repository)| repository)
}

/// Checks the copies of each data item of a service.
pub(super) fn check(context: &Context<'_>, service: &Service, path: &str, report: &mut Report<'_>) {
    for item in &service.data {
        let item_path = format!("{path}.data.{}", item.name);
        if all_repositories(context.plan, service, item).next().is_none() {
            not_protected(service, item, &item_path, report);
            continue;
        }
        check_survivors(context, service, item, path, report);
        check_digits(context, service, item, &item_path, report);
    }
}

fn not_protected(service: &Service, item: &DataItem, path: &str, report: &mut Report<'_>) {
    let is_promised = service.objectives.iter().any(|(disruption, objective)| {
        disruption.effect().loses_data && (objective.rpo.is_some() || objective.rto.is_some())
    });
    let severity = if is_promised { Severity::Error } else { Severity::Warning };
    let message = format!("nothing makes copies of '{}'", item.name);
    let help = format!("add a line to protect: {{data: {}, every: 1h, to: REPOSITORY}}", item.name);
    report.add_as(severity, "not-protected", path, message, help);
}

/// Finds objectives of which no copy would be left.
fn check_survivors(
    context: &Context<'_>,
    service: &Service,
    item: &DataItem,
    path: &str,
    report: &mut Report<'_>,
) {
    let repositories: Vec<&Repository> = all_repositories(context.plan, service, item).collect();
    let is_lost = |disruption: &&Disruption| {
        disruption.effect().loses_data
            && !repositories.iter().any(|repository| survives(**disruption, repository, service))
    };
    let lost: Vec<Disruption> = service.objectives.keys().filter(is_lost).copied().collect();
    let item_path = format!("{path}.data.{}", item.name);
    let of_harm = |disruption: &&Disruption| disruption.effect().survivors == Survivors::Immutable;
    for disruption in lost.iter().filter(of_harm) {
        let path = where_promised(service, path, *disruption, "rpo", report);
        let path = if report.positions().has(&path) { path } else { item_path.clone() };
        let message =
            format!("after {disruption} no copy of '{}' is left: none is immutable", item.name);
        let help = "copy it to a repository with immutable: 30d, or take the objective out";
        report.add("no-immutable-copy", &path, message, help);
    }
    let places: Vec<&str> =
        lost.iter().filter(|lost| !of_harm(lost)).map(|lost| lost.as_str()).collect();
    if !places.is_empty() {
        let message = format!("no copy of '{}' is left after {}", item.name, places.join(", "));
        let help = "let a copy go to a repository in another region, and say its region; or take \
                    the objective out: {region-loss: none}";
        return report.add("one-failure-domain", &item_path, message, help);
    }
    let shared = repositories.iter().all(|copy| copy.place.shares_region_with(&service.place));
    if shared {
        let message = format!("all copies of '{}' stand in the region of the service", item.name);
        let help = "let a copy go to a repository in another region";
        report.add_as(Severity::Warning, "one-failure-domain", &item_path, message, help);
    }
}

/// 3-2-1-1-0: three copies, on two stores, one elsewhere, one immutable, none unproven.
fn check_digits(
    context: &Context<'_>,
    service: &Service,
    item: &DataItem,
    path: &str,
    report: &mut Report<'_>,
) {
    let repositories: Vec<&Repository> = all_repositories(context.plan, service, item).collect();
    let addresses: BTreeSet<&str> =
        repositories.iter().map(|repository| repository.url.as_str()).collect();
    let elsewhere = |copy: &&Repository| !copy.place.shares_region_with(&service.place);
    let other_store = |copy: &&Repository| !copy.place.shares_host_with(&service.place);
    let unproven = service.objectives.keys().filter(|disruption| {
        !context
            .facts
            .proofs
            .iter()
            .any(|proof| proof.service == service.name && proof.disruption == **disruption)
    });
    let digits = [
        (
            addresses.len() >= 2,
            format!("3 copies (there are {}, production counted)", addresses.len() + 1),
        ),
        (
            repositories.iter().any(other_store),
            "2 stores (all stand on the service's host)".to_owned(),
        ),
        (repositories.iter().any(elsewhere), "1 elsewhere (none is in another region)".to_owned()),
        (
            repositories.iter().any(|copy| copy.held_for().is_some()),
            "1 immutable (none is)".to_owned(),
        ),
        (
            unproven.clone().next().is_none(),
            format!(
                "0 unproven ({} of {} disruptions are)",
                unproven.count(),
                service.objectives.len()
            ),
        ),
    ];
    let failing: Vec<String> =
        digits.into_iter().filter(|(holds, _)| !holds).map(|(_, digit)| digit).collect();
    if !failing.is_empty() {
        let message = format!("of 3-2-1-1-0 '{}' misses {}", item.name, failing.join("; "));
        let help = "three copies on two stores, one elsewhere, one immutable, none unproven";
        report.add("copies-3-2-1-1-0", path, message, help);
    }
}
