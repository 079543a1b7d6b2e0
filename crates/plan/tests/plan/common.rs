//! What every test here starts from.

use std::time::Duration;

use jiff::Timestamp;
use muster_model::{Disruption, Finding};
use muster_plan::{
    Facts, Plan, assess,
    document::{BackupFact, ProofFact, RestoreFact},
    parse,
};

/// The time of all tests.
pub(crate) fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

/// All findings of a text: those of the text, then those of the plan.
pub(crate) fn check(text: &str, facts: &Facts) -> Vec<Finding> {
    let parsed = parse(text);
    let mut findings = parsed.findings;
    if let Some(plan) = &parsed.plan {
        findings.extend(assess(plan, &parsed.positions, facts, now()));
    }
    findings
}

/// `line:column severity code path` of each finding.
pub(crate) fn lines(findings: &[Finding]) -> Vec<String> {
    let line = |finding: &Finding| {
        format!(
            "{}:{} {} {} {}",
            finding.line, finding.column, finding.severity, finding.code, finding.path
        )
    };
    findings.iter().map(line).collect()
}

/// The findings of one code, of nothing measured.
pub(crate) fn of_code(text: &str, code: &str) -> Vec<Finding> {
    let mut findings = check(text, &Facts::default());
    findings.retain(|finding| finding.code == code);
    findings
}

/// The plan of a text that has one.
pub(crate) fn plan(text: &str) -> Plan {
    parse(text).plan.unwrap()
}

/// A backup of `db` of `orders`.
pub(crate) fn backup(took_s: u64, copy_lag_s: u64, bytes: u64) -> BackupFact {
    BackupFact {
        service: "orders".to_owned(),
        data: "db".to_owned(),
        took: Duration::from_secs(took_s),
        copy_lag: Duration::from_secs(copy_lag_s),
        bytes,
        ended: now(),
    }
}

/// A restore of `db` of `orders`.
pub(crate) fn restore(took_s: u64, rest_s: u64, bytes: u64) -> RestoreFact {
    RestoreFact {
        service: "orders".to_owned(),
        data: "db".to_owned(),
        bytes,
        took: Duration::from_secs(took_s),
        rest: Duration::from_secs(rest_s),
    }
}

/// Drills of `orders` that passed so many days ago, for all disruptions.
pub(crate) fn proofs(days: i64) -> Vec<ProofFact> {
    let at = now() - jiff::SignedDuration::from_hours(24 * days);
    let proof = |disruption| ProofFact { service: "orders".to_owned(), disruption, at };
    Disruption::ALL.map(proof).into()
}
