//! What makes a recovery believable: probes, markers, and drills that are not too long ago.

use std::time::Duration;

use muster_model::{Disruption, units::format_duration};

use super::Context;
use crate::{document::Service, position::join, report::Report};

/// Checks how a service's promises are proven.
pub(super) fn check(context: &Context<'_>, service: &Service, path: &str, report: &mut Report<'_>) {
    if service.objectives.is_empty() {
        return;
    }
    check_probes(service, path, report);
    check_markers(service, path, report);
    check_drills(context, service, path, report);
}

fn check_probes(service: &Service, path: &str, report: &mut Report<'_>) {
    if service.acceptance.probes.is_empty() {
        let acceptance = join(path, "acceptance");
        let message = format!("nothing says when '{}' counts as recovered", service.name);
        let help =
            "add a probe under acceptance: probes: {health: {http: \"{{ target.url }}/health\"}}";
        report.add("no-acceptance-probe", &acceptance, message, help);
    }
}

fn check_markers(service: &Service, path: &str, report: &mut Report<'_>) {
    let is_promised = service
        .objectives
        .iter()
        .any(|(disruption, objective)| disruption.effect().loses_data && objective.rpo.is_some());
    if is_promised && service.markers.is_none() && !service.data.is_empty() {
        let message =
            format!("without markers nobody can tell how much of '{}' was lost", service.name);
        report.add("no-markers", path, message, "write markers: {data: NAME, every: 1s}");
    }
}

fn check_drills(context: &Context<'_>, service: &Service, path: &str, report: &mut Report<'_>) {
    let last = |disruption: Disruption| {
        let proofs = context.facts.proofs.iter();
        let its =
            proofs.filter(|proof| proof.service == service.name && proof.disruption == disruption);
        its.map(|proof| proof.at).max()
    };
    let promised = || service.objectives.keys().copied();
    let never: Vec<&str> =
        promised().filter(|one| last(*one).is_none()).map(Disruption::as_str).collect();
    if !never.is_empty() {
        let message =
            format!("no drill has proven that '{}' survives {}", service.name, never.join(", "));
        let help = format!("run muster drill run {}, or add it to drills", service.name);
        report.add("never-proven", path, message, help);
    }
    let Some(due) = context.plan.tier_of(service).and_then(|tier| tier.drill_every) else { return };
    let age = |disruption| {
        let at = last(disruption)?;
        Duration::try_from(context.now.duration_since(at)).ok()
    };
    let aged = promised().filter_map(|disruption| Some((disruption, age(disruption)?)));
    let overdue: Vec<(Disruption, Duration)> = aged.filter(|(_, age)| *age > due).collect();
    let Some(oldest) = overdue.iter().map(|(_, age)| *age).max() else { return };
    let names: Vec<&str> = overdue.iter().map(|(disruption, _)| disruption.as_str()).collect();
    let message = format!(
        "the last drill of '{}' that passed is {} old for {}, and one is due every {}",
        service.name,
        format_duration(oldest),
        names.join(", "),
        format_duration(due)
    );
    let help = format!("run muster drill run {}", service.name);
    report.add("drill-overdue", path, message, help);
}
