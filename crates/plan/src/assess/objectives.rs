//! Objectives among themselves: a tier's figures, and a service's against its tier's.

use std::{collections::BTreeSet, time::Duration};

use muster_model::{Disruption, Severity, units::format_duration};

use super::Context;
use crate::{
    document::{Service, Strategy, Tier},
    position::join,
    report::Report,
    tiers,
};

/// No snapshot is started more often, and no service started sooner, than a few times a minute.
const BACKUP_RESTORE_LEAST: Duration = Duration::from_secs(10);

/// Says which tiers promise more availability than their own failures and repairs allow.
pub(super) fn check_tiers(context: &Context<'_>, report: &mut Report<'_>) {
    let services = || context.plan.services.iter();
    let used: BTreeSet<&str> = services().filter_map(|service| service.tier.as_deref()).collect();
    for tier in &context.plan.tiers {
        let path = match tier.built_in {
            false => format!("tiers.{}", tier.name),
            true if !used.contains(tier.name.as_str()) => continue,
            true => first_use(&tier.name, services(), report),
        };
        check_tier(tier, &path, report);
    }
}

/// A built-in tier stands nowhere in the text: the first line that uses it stands for it.
fn first_use<'a>(
    tier: &str,
    services: impl Iterator<Item = &'a Service>,
    report: &Report<'_>,
) -> String {
    let users = services.filter(|service| service.tier.as_deref() == Some(tier));
    let paths = users.map(|service| format!("services.{}.tier", service.name));
    paths.min_by_key(|path| report.positions().of(path)).unwrap_or_default()
}

fn check_tier(tier: &Tier, path: &str, report: &mut Report<'_>) {
    let (Some(mtbf), Some(mttr), Some(promised)) = (tier.mtbf, tier.mttr, tier.availability) else {
        return;
    };
    let given = tiers::availability_of(mtbf, mttr);
    if given >= promised {
        return;
    }
    let message = format!(
        "tier '{}' promises {} %, and failures {} apart that take {} to repair give {:.3} %",
        tier.name,
        percent(promised),
        format_duration(mtbf),
        format_duration(mttr),
        given * 100.0
    );
    let required = tiers::mtbf_required(promised, mttr).map(format_duration);
    let help = format!(
        "it takes an MTBF of {}, a shorter MTTR, or a lower availability",
        required.as_deref().unwrap_or("more than can be said")
    );
    let severity = if tier.built_in { Severity::Note } else { Severity::Warning };
    report.add_as(severity, "tier-contradicts-itself", path, message, help);
}

/// A fraction as a percentage without needless zeros.
pub(crate) fn percent(fraction: f64) -> String {
    let text = format!("{:.6}", fraction * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Checks what a service promises against its tier and its strategy.
pub(super) fn check(context: &Context<'_>, service: &Service, path: &str, report: &mut Report<'_>) {
    let promises = service
        .objectives
        .values()
        .any(|objective| objective.rto.is_some() || objective.rpo.is_some());
    if !promises {
        let message = format!("nothing is promised for '{}'", service.name);
        let help = "give it a tier (critical, important, standard) or objectives";
        report.add("no-objective", path, message, help);
    }
    if let Some(tier) = context.plan.tier_of(service) {
        check_weaker(service, tier, path, report);
    }
    check_strategy(service, path, report);
}

fn check_weaker(service: &Service, tier: &Tier, path: &str, report: &mut Report<'_>) {
    for (disruption, objective) in &service.objectives {
        if !disruption.effect().in_tier {
            continue;
        }
        let halves = [("rto", objective.rto, tier.rto), ("rpo", objective.rpo, tier.rpo)];
        for (half, own, of_tier) in halves {
            let (Some(own), Some(of_tier)) = (own, of_tier) else { continue };
            if own > of_tier {
                let path = format!("{path}.objectives.{disruption}.{half}");
                let message = format!(
                    "{} {} for {disruption} is weaker than the {} of tier '{}'",
                    half.to_uppercase(),
                    format_duration(own),
                    format_duration(of_tier),
                    tier.name
                );
                let help = "promise what the tier does, choose a weaker tier, or add an exception \
                            that expires";
                report.add("objective-weaker", &path, message, help);
            }
        }
    }
}

/// What no speed could mend: the way of recovering cannot give what is promised.
fn check_strategy(service: &Service, path: &str, report: &mut Report<'_>) {
    match service.strategy {
        Strategy::BackupRestore => check_backup_restore(service, path, report),
        Strategy::PilotLight | Strategy::WarmStandby | Strategy::ActiveActive => {
            check_standby(service, path, report);
        }
    }
}

fn check_backup_restore(service: &Service, path: &str, report: &mut Report<'_>) {
    let mut told = BTreeSet::new();
    for (disruption, objective) in &service.objectives {
        let rpo = objective.rpo.filter(|_| disruption.effect().loses_data);
        let rpo = rpo.filter(|_| !service.data.is_empty());
        for (half, duration) in [("rto", objective.rto), ("rpo", rpo)] {
            let Some(duration) = duration.filter(|duration| *duration < BACKUP_RESTORE_LEAST)
            else {
                continue;
            };
            let path = where_promised(service, path, *disruption, half, report);
            if told.insert((path.clone(), half)) {
                let message = format!(
                    "{} {duration:?} cannot be met by restoring backups, for {disruption}",
                    half.to_uppercase()
                );
                let help = "promise 10s or more; less takes a standby";
                report.add("strategy-cannot-meet", &path, message, help);
            }
        }
    }
}

/// The line that a promise comes from: the service's own, or the one that names its tier.
pub(super) fn where_promised(
    service: &Service,
    path: &str,
    disruption: Disruption,
    half: &str,
    report: &Report<'_>,
) -> String {
    let own = format!("{path}.objectives.{disruption}.{half}");
    match (report.positions().has(&own), &service.tier) {
        (true, _) => own,
        (false, Some(_)) => join(path, "tier"),
        (false, None) => format!("{path}.objectives.{disruption}"),
    }
}

/// A standby repeats the harm that was done to its primary.
fn check_standby(service: &Service, path: &str, report: &mut Report<'_>) {
    let needs_older = |disruption: &&Disruption| disruption.effect().only_older;
    let harms: Vec<&str> =
        service.objectives.keys().filter(needs_older).map(|harm| harm.as_str()).collect();
    if harms.is_empty() {
        return;
    }
    for item in &service.data {
        let is_covered = service.protect.iter().any(|line| line.data.contains(&item.name));
        if is_covered {
            continue;
        }
        let message = format!(
            "a standby of '{}' receives the harm as well, and there is no older copy for {}",
            item.name,
            harms.join(", ")
        );
        let path = format!("{path}.data.{}", item.name);
        report.add("strategy-cannot-meet", &path, message, "protect it with backups too");
    }
}
