//! Lessons that others paid for, each as a statement.

use muster_model::Severity;
use muster_plan::{Facts, codes};

use crate::common::{check, lines, of_code, plan};

const HEAD: &str = "muster: 1\nname: shop\n";

/// Lesson 1: the built-in tiers contradict themselves, and so may the user's own.
#[test]
fn a_tier_that_contradicts_itself_is_told_with_the_mtbf_required() {
    let text = format!("{HEAD}services:\n  a: {{tier: critical}}\n  b: {{tier: critical}}\n");
    let found = of_code(&text, "tier-contradicts-itself");
    assert_eq!(lines(&found), ["4:13 note tier-contradicts-itself services.a.tier"]);
    assert!(found[0].message.contains("99.861 %"), "{}", found[0].message);
    assert!(found[0].help.as_ref().unwrap().contains("416d 15h"), "{:?}", found[0].help);
    for (tier, gives) in [("important", "98.901 %"), ("standard", "95.455 %")] {
        let text = format!("{HEAD}services:\n  a: {{tier: {tier}}}\n");
        let found = of_code(&text, "tier-contradicts-itself");
        assert!(found[0].message.contains(gives), "{}", found[0].message);
    }
    let own =
        format!("{HEAD}tiers:\n  critical: {{mtbf: 300d}}\nservices:\n  a: {{tier: critical}}\n");
    let found = of_code(&own, "tier-contradicts-itself");
    assert_eq!(lines(&found), ["4:3 warning tier-contradicts-itself tiers.critical"]);
    assert_eq!(of_code(&own.replace("300d", "417d"), "tier-contradicts-itself"), []);
}

/// Lesson 2: no time at all, or less, counted as met.
#[test]
fn a_duration_of_nothing_or_less_is_refused() {
    for duration in ["0s", "-5m", "0m", "-1", "0"] {
        let text = format!("{HEAD}tiers:\n  gold: {{rto: {duration}}}\n");
        let found = of_code(&text, "bad-duration");
        assert_eq!(lines(&found), ["4:15 error bad-duration tiers.gold.rto"], "{duration}");
        assert_eq!(plan(&text).tier("gold").unwrap().rto, None);
    }
}

/// Lesson 3: 0.999 was read as 0.999 %.
#[test]
fn an_availability_without_its_sign_is_refused() {
    let text = format!("{HEAD}tiers:\n  gold: {{availability: 0.999}}\n");
    let found = of_code(&text, "bad-percentage");
    assert_eq!(lines(&found), ["4:24 error bad-percentage tiers.gold.availability"]);
    let good = text.replace("0.999", "99.9 %");
    assert_eq!(plan(&good).tier("gold").unwrap().availability, Some(0.999));
}

/// Lesson 19: `* /5` is rejected at its column, with the fix.
#[test]
fn a_schedule_is_refused_at_its_column_with_the_fix() {
    let text = format!(
        "{HEAD}drills:\n  - {{service: a, disruption: host-loss, schedule: '* /5 * * * *'}}\n"
    );
    let found = of_code(&text, "bad-schedule");
    assert_eq!(lines(&found), ["4:54 error bad-schedule drills[0].schedule"]);
    assert_eq!(found[0].help.as_deref(), Some("write \"*/5 * * * *\""));
    let plain = text.replace('\'', "").replace("{", "").replace("}", "");
    let plain =
        plain.replace("service: a, disruption: host-loss, schedule: * /5", "schedule: 1 /5");
    assert_eq!(
        lines(&of_code(&plain, "bad-schedule")),
        ["4:17 error bad-schedule drills[0].schedule"]
    );
}

/// Lesson 33: identity is by name, so a name stands once.
#[test]
fn duplicate_names_are_errors_wherever_names_are_given() {
    let text = "muster: 1
name: shop
name: shop
regions: [west, west, {name: north, zones: [a, a]}]
repositories:
  near: {url: ./near}
  near: {url: ./other}
  same: {url: near/}
services:
  a:
    contacts: [x, x]
    data:
      db: {sqlite: a}
      db: {sqlite: b}
    protect:
      - {data: [db, db], every: 1h, to: near, copy: [near, same, same]}
    acceptance:
      probes:
        p: {tcp: \"a:1\"}
        p: {tcp: \"a:2\"}
";
    let found = of_code(text, "duplicate-name");
    let places: Vec<_> = found.iter().map(|finding| (finding.line, finding.column)).collect();
    let expected = [
        (3, 1),
        (4, 17),
        (4, 48),
        (7, 3),
        (8, 15),
        (11, 19),
        (14, 7),
        (16, 21),
        (16, 54),
        (16, 66),
        (20, 9),
    ];
    assert_eq!(places, expected);
    assert_eq!(plan(text).services[0].data.len(), 1);
}

/// Lesson 41: no primary, or two, were accepted. Each part of the data has exactly one place
/// where it lives and each line exactly one repository that is written.
#[test]
fn exactly_one_primary_is_an_error_otherwise() {
    let text = "muster: 1
name: shop
services:
  a:
    region: [west, north]
    data:
      none: {exclude: [x]}
      two: {sqlite: a.db, postgres: \"postgresql://h/d\"}
    protect:
      - {data: two, every: 1h, to: [near, far]}
      - {data: two, every: 1h}
      - {data: two, every: 1h, schedule: \"0 * * * *\", to: near}
      - {data: two, to: near}
";
    let mut found = check(text, &Facts::default());
    found.retain(|finding| !codes::find(&finding.code).unwrap().can_be_waived);
    found.retain(|finding| finding.code != "unknown-reference");
    assert_eq!(
        lines(&found),
        [
            "5:13 error wrong-type services.a.region",
            "7:7 error missing-field services.a.data.none",
            "8:27 error bad-value services.a.data.two.postgres",
            "10:36 error wrong-type services.a.protect[0].to",
            "11:9 error missing-field services.a.protect[1]",
            "12:32 error bad-value services.a.protect[2].schedule",
            "13:9 error missing-field services.a.protect[3]",
        ]
    );
}

/// Twenty mistakes are twenty findings of one run.
#[test]
fn all_mistakes_are_found_at_once() {
    let text = "muster: 2
nam: shop
regions: west
contacts: [ana]
tiers:
  gold: {rto: soon, availability: 99.9, drill_evry: 30d}
repositories:
  near: {url: 5, password: hunter2, immutable: 0d}
services:
  or/ders:
    tier: 7
    impact: {soon: 5}
    strategy: hope
    objectives: {meteor: none, host-loss: some}
    data: {x: {sqlit: a}}
    protect: [{data: [], every: 1, to: }]
    recover: [{restart: x}]
    acceptance: {probes: {p: {http: a, expect: {status: 99}}}}
drills: [{service: a, disruption: fire, timezone: Mars}]
exceptions: [{service: a, waives: b, until: soon}]
";
    let found = muster_plan::parse(text).findings;
    assert!(found.len() >= 20, "{:#?}", lines(&found));
    let errors = found.iter().all(|finding| finding.severity == Severity::Error);
    assert!(errors && found.is_sorted_by_key(|finding| (finding.line, finding.column)));
    assert!(!format!("{found:?}").contains("hunter2"));
    check_every_line(&lines(&found));
}

/// Each line of the text above has its findings: none hides another.
fn check_every_line(lines: &[String]) {
    for line in [1, 2, 3, 4, 6, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20] {
        let prefix = format!("{line}:");
        assert!(lines.iter().any(|found| found.starts_with(&prefix)), "{line}: {lines:#?}");
    }
}
