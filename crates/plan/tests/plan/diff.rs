//! What differs between two plans, and what of it weakens protection.

use muster_plan::{Change, diff};

use crate::common::plan;

const TEXT: &str = include_str!("fixtures/product.yaml");

/// The changes when `from` becomes `to` in the plan of the documentation.
fn changes(from: &str, to: &str) -> Vec<Change> {
    assert!(TEXT.contains(from), "{from}");
    diff(&plan(TEXT), &plan(&TEXT.replacen(from, to, 1)))
}

/// Asserts that a change weakens protection, and that taking it back does not.
fn check_weakens(from: &str, to: &str, path: &str) {
    let changes = changes(from, to);
    let weaker = |path: &str| changes.iter().any(|change| change.path == path && change.weakens);
    assert!(weaker(path), "{from} → {to}: {changes:#?}");
    let back = diff(&plan(&TEXT.replacen(from, to, 1)), &plan(TEXT));
    assert!(back.iter().all(|change| !change.weakens), "{to} → {from}: {back:#?}");
}

#[test]
fn a_plan_does_not_differ_from_itself() {
    assert_eq!(diff(&plan(TEXT), &plan(TEXT)), []);
    assert_eq!(diff(&plan(TEXT), &plan(&format!("# A comment.\n{TEXT}"))), []);
}

#[test]
fn a_change_says_what_was_and_what_is() {
    let change = Change {
        path: "services.orders.protect.db.near.cadence".to_owned(),
        before: Some("every 2m 00s".to_owned()),
        after: Some("every 4m 00s".to_owned()),
        weakens: true,
    };
    assert_eq!(changes("every: 2m", "every: 4m")[0], change);
}

#[test]
fn what_weakens_protection_is_told_from_what_does_not() {
    let orders = |rest: &str| format!("services.orders.{rest}");
    check_weakens("rto: 10m", "rto: 12m", &orders("objectives.host-loss.rto"));
    check_weakens("tier: critical", "tier: important", &orders("objectives.region-loss.rpo"));
    check_weakens("{rto: 10m}", "none", &orders("objectives.host-loss"));
    check_weakens("every: 2m", "schedule: \"0 * * * *\"", &orders("protect.db.near.cadence"));
    check_weakens(", copy: [far]", "", &orders("protect.uploads.near.copy.far"));
    check_weakens("last: 30", "last: 3", &orders("protect.db.near.keep"));
    check_weakens(
        "exclude: [\"*.tmp\"]",
        "exclude: [\"*.tmp\", \"*\"]",
        &orders("data.uploads.exclude.*"),
    );
    check_weakens("{data: db, every: 1s}", "{data: db, every: 1m}", &orders("markers.every"));
    check_weakens("        health:", "        # health:", &orders("acceptance.probes.health"));
    check_weakens("hold: 10s", "hold: 1s", &orders("acceptance.hold"));
    check_weakens(
        "[orders, customers]",
        "[orders]",
        &orders("acceptance.completeness.rows.db.customers"),
    );
    check_weakens("0 3 * * *", "0 3 1 * *", "drills.orders.region-loss");
    check_weakens(
        "  - {service: orders, disruption",
        "  # - {service: orders, disruption",
        "drills.orders.region-loss",
    );
    check_weakens("2027-01-31", "2028-01-31", "exceptions.orders.no-immutable-copy");
    check_weakens(", phone: \"+39…\"", "", "contacts.ana.phone");
}

#[test]
fn keeping_by_rules_keeps_less_than_keeping_everything() {
    let with = "keep: {last: 30, hourly: 24, daily: 7, weekly: 5, monthly: 12}";
    let back = diff(&plan(&TEXT.replace(&format!(", {with}"), "")), &plan(TEXT));
    assert!(back.iter().all(|change| change.weakens), "{back:#?}");
    assert_eq!(changes(&format!(", {with}"), "")[0].after.as_deref(), Some("all"));
}
