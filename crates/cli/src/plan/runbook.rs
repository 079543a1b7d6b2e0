//! The lines of `plan show` that say how a service is recovered, and how that is known.

use std::time::Duration;

use muster_model::{Probe, Step, probe::ProbeCheck};
use muster_plan::{
    Plan,
    document::{Acceptance, Service},
};

use super::numbers::seconds;

fn time(duration: Duration) -> String {
    seconds(duration.as_secs_f64())
}

/// The steps, numbered.
pub(super) fn steps(service: &Service) -> Vec<String> {
    let numbered = service.recover.iter().enumerate();
    numbered.map(|(index, step)| format!("{}. {}", index + 1, step_line(step))).collect()
}

fn step_line(step: &Step) -> String {
    match step {
        Step::Run { timeout, .. } => format!("{} (at most {})", step.summary(), time(*timeout)),
        Step::Restore { .. } | Step::Start { .. } => step.summary(),
    }
}

/// `all green for 10s, within 10m`.
pub(super) fn acceptance(acceptance: &Acceptance) -> String {
    if acceptance.probes.is_empty() {
        return "nobody can tell: there is no probe".to_owned();
    }
    format!("all green for {}, within {}", time(acceptance.hold), time(acceptance.within))
}

/// The probes and the completeness rules: name and question.
pub(super) fn questions(acceptance: &Acceptance) -> Vec<(String, String)> {
    let probes = acceptance.probes.iter().map(|probe| (probe.name.clone(), question(probe)));
    let rows = acceptance.rows.iter().map(|(data, tables)| {
        (format!("rows of {data}"), format!("counted in {}", tables.join(", ")))
    });
    let checksums = acceptance.checksums.iter();
    let checksums = checksums
        .map(|data| (format!("checksums of {data}"), "compared with the snapshot".to_owned()));
    probes.chain(rows).chain(checksums).collect()
}

fn question(probe: &Probe) -> String {
    match &probe.check {
        ProbeCheck::Http { url, statuses, .. } => {
            let statuses: Vec<String> = statuses.iter().map(u16::to_string).collect();
            format!("http {url} answers {}", statuses.join(" or "))
        }
        ProbeCheck::Tcp { address } => format!("tcp {address} accepts"),
        ProbeCheck::Sql { query, expect, .. } => {
            let on = probe.on.as_deref().map(|on| format!(" on {on}")).unwrap_or_default();
            format!("sql {query} = {expect}{on}")
        }
        ProbeCheck::Command { argv, exit, .. } => {
            format!("command {} exits with {exit}", argv.join(" "))
        }
    }
}

/// The drills of a service.
pub(super) fn drills(plan: &Plan, service: &str) -> Vec<(String, String)> {
    let drills = plan.drills.iter().filter(|drill| drill.service == service);
    drills
        .map(|drill| {
            let when = drill.schedule.as_ref().map_or_else(
                || "when somebody runs it".to_owned(),
                |schedule| format!("{schedule}  {}", drill.timezone),
            );
            (drill.disruption.to_string(), when)
        })
        .collect()
}
