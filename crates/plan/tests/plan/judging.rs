//! Whether a plan can keep its promises: sums, copies, exceptions.

use muster_model::{Finding, Severity};
use muster_plan::{Facts, assess, parse};

use crate::common::{backup, check, lines, now, of_code, proofs, restore};

const PLAN: &str = "muster: 1
name: shop
regions: [west, north]
repositories:
  near: {url: ./near, region: west}
  far: {url: ./far, region: north}
services:
  orders:
    tier: important
    region: west
    data: {db: {sqlite: orders.db}}
    protect: [{data: db, every: 15m, to: near, copy: far}]
    recover: [{restore: db}]
";

fn found(text: &str, facts: &Facts, code: &str) -> Vec<Finding> {
    let mut findings = check(text, facts);
    findings.retain(|finding| finding.code == code);
    findings
}

fn backups(took_s: u64, copy_lag_s: u64) -> Facts {
    Facts { backups: vec![backup(took_s, copy_lag_s, 1000)], ..Facts::default() }
}

#[test]
fn interval_run_and_lag_may_equal_the_rpo_and_not_exceed_it() {
    let exceeds =
        |took_s, lag_s| !found(PLAN, &backups(took_s, lag_s), "rpo-unreachable").is_empty();
    assert!(!exceeds(14 * 60, 60), "15 + 14 + 1 = 30 min is met");
    assert!(exceeds(14 * 60, 61), "a second more is not");
    assert!(!exceeds(15 * 60, 0));
    let equal = PLAN.replace("every: 15m", "every: 30m");
    assert_eq!(of_code(&equal, "rpo-unreachable"), []);
}

#[test]
fn a_missed_rpo_names_its_terms_what_it_concerns_and_what_to_write() {
    let finding = &found(PLAN, &backups(14 * 60, 300), "rpo-unreachable")[0];
    assert_eq!(
        lines(std::slice::from_ref(finding)),
        ["12:33 error rpo-unreachable services.orders.protect[0].every"]
    );
    let expected = "RPO 30m 00s of 'db' cannot be kept for host-loss, storage-loss, zone-loss, region-loss: \
                    interval 15m 00s + longest run 14m 00s + copy lag 5m 00s = 34m 00s at least";
    assert_eq!(finding.message, expected);
    assert_eq!(finding.help.as_deref(), Some("write every: 11m or less"));
}

#[test]
fn only_the_copies_that_survive_count_and_the_quickest_way_to_them() {
    // Hourly to the region itself, every 10 minutes to the other one.
    let text = PLAN.replace(
        "[{data: db, every: 15m, to: near, copy: far}]",
        "[{data: db, every: 1h, to: near}, {data: db, every: 10m, to: far}]",
    );
    assert_eq!(of_code(&text, "rpo-unreachable"), []);
    let other = text
        .replace("every: 1h, to: near", "every: 10m, to: near")
        .replace("10m, to: far", "1h, to: far");
    let findings = of_code(&other, "rpo-unreachable");
    assert_eq!(findings.len(), 1);
    assert!(findings[0].path.ends_with("protect[1].every"), "{findings:?}");
    assert!(!findings[0].message.contains("operator-error"), "{}", findings[0].message);
}

#[test]
fn a_schedule_is_judged_by_its_longest_pause() {
    let text = PLAN.replace("every: 15m", "schedule: '*/15 9-17 * * *'");
    let findings = of_code(&text, "rpo-unreachable");
    assert!(findings[0].message.contains("interval 15h 15m"), "{}", findings[0].message);
    assert!(findings[0].path.ends_with(".schedule"));
    assert_eq!(of_code(&text.replace(" 9-17", " *"), "rpo-unreachable"), []);
}

#[test]
fn a_line_that_cannot_be_read_does_not_shift_those_below() {
    let text =
        PLAN.replace("[{data: db, every: 15m,", "[{data: db, to: near}, {data: db, every: 2h,");
    let findings = of_code(&text, "rpo-unreachable");
    assert_eq!(findings[0].path, "services.orders.protect[1].every");
    assert_eq!((findings[0].line, findings[0].column), (12, 55));
}

#[test]
fn recovery_times_are_forecast_from_drills_at_todays_size() {
    let gib = 1 << 30;
    let facts = |restores: Vec<_>, bytes| Facts {
        backups: vec![backup(1, 1, bytes)],
        restores,
        ..Facts::default()
    };
    let one = vec![restore(600, 300, gib)];
    assert_eq!(found(PLAN, &facts(one.clone(), gib), "rto-unreachable"), []);
    let missed = found(PLAN, &facts(one, 6 * gib), "rto-unreachable");
    assert_eq!(lines(&missed), ["9:11 error rto-unreachable services.orders.tier"]);
    let message = &missed[0].message;
    assert!(message.contains("restore of 'db' (6.00 GiB) 1h 00m + all else 5m 00s"), "{message}");
    assert!(message.contains("too few drills"), "{message}");
    let several =
        vec![restore(600, 300, gib), restore(1190, 310, 2 * gib), restore(1810, 290, 3 * gib)];
    let message = &found(PLAN, &facts(several, 6 * gib), "rto-unreachable")[0].message;
    assert!(message.contains("95 % confidence"), "{message}");
}

#[test]
fn what_is_assumed_counts_as_well() {
    let text = PLAN.replace("    recover:", "    assume: {detect: 50m, decide: 20m}\n    recover:");
    assert_eq!(
        lines(&of_code(&text, "rto-unreachable")),
        ["13:5 error rto-unreachable services.orders.assume"]
    );
}

#[test]
fn an_exception_waives_until_its_day_is_over_and_stays_visible() {
    let weaker = PLAN.replace(
        "    region: west\n    data",
        "    region: west\n    objectives: {host-loss: {rto: 2h}}\n    data",
    );
    assert_eq!(of_code(&weaker, "objective-weaker")[0].severity, Severity::Error);
    let with = |until: &str| {
        format!(
            "{weaker}exceptions:\n  - {{service: orders, waives: objective-weaker, until: {until}, reason: r, approved_by: ana}}\n"
        )
    };
    let waived = &of_code(&with("2026-11-20"), "objective-weaker")[0];
    assert_eq!(waived.severity, Severity::Note);
    assert!(
        waived.message.starts_with("waived until 2026-11-20 by ana: RTO 2h"),
        "{}",
        waived.message
    );
    let over = with("2026-11-19");
    assert_eq!(of_code(&over, "objective-weaker")[0].severity, Severity::Error);
    assert_eq!(of_code(&over, "exception-expired").len(), 1);
    let other = with("2026-11-20").replace("service: orders", "service: order");
    assert_eq!(of_code(&other, "objective-weaker")[0].severity, Severity::Error);
    let firm = with("2026-11-20").replace("waives: objective-weaker", "waives: unknown-field");
    assert_eq!(of_code(&firm, "bad-value").len(), 1);
}

#[test]
fn no_copy_left_is_an_error_where_something_is_promised() {
    let alone = PLAN.replace(", copy: far", "");
    let finding = &of_code(&alone, "one-failure-domain")[0];
    assert_eq!(finding.severity, Severity::Error);
    assert!(
        finding.message.ends_with("after host-loss, storage-loss, zone-loss, region-loss"),
        "{}",
        finding.message
    );
    let taken_out = alone.replace(
        "    region: west\n    data",
        "    region: west\n    objectives: {host-loss: none, storage-loss: none, zone-loss: none, region-loss: none}\n    data",
    );
    assert_eq!(of_code(&taken_out, "one-failure-domain")[0].severity, Severity::Warning);
    assert_eq!(of_code(PLAN, "one-failure-domain"), []);
}

#[test]
fn stores_are_written_like_folders() {
    for url in ["s3:h/b/p", "s3://b/p", "sftp:h:/p", "rest:http://h/", "azure:c:/", "gs:b:/"] {
        let text = PLAN.replace("./far", url);
        assert_eq!(of_code(&text, "not-in-this-version"), [], "{url}");
        assert_eq!(of_code(&text, "bad-value"), [], "{url}");
    }
    for url in ["s3:bucket", "b2:b:/", "ftp://h/p", "sftp:h", "rest:h"] {
        assert_eq!(of_code(&PLAN.replace("./far", url), "bad-value").len(), 1, "{url}");
    }
}

#[test]
fn a_password_in_a_store_s_address_is_found_and_not_repeated() {
    for url in ["rest:https://me:hush@h/", "s3:https://key:hush@h/b"] {
        let found = of_code(&PLAN.replace("./far", url), "literal-secret");
        let [finding] = found.as_slice() else { panic!("{url}: {found:?}") };
        assert!(!format!("{finding:?}").contains("hush"), "{finding:?}");
    }
    let named = "region: north, credentials: {AWS_SECRET_ACCESS_KEY: hush}}";
    let text = PLAN.replace("region: north}", named);
    assert_eq!(of_code(&text, "literal-secret").len(), 1);
    let fine = text.replace("hush", "env:KEY");
    assert_eq!(of_code(&fine, "literal-secret"), []);
    assert_eq!(of_code(&fine.replace("SECRET_ACCESS", "SECRT_ACCESS"), "unknown-field").len(), 1);
}

#[test]
fn what_is_not_done_yet_is_an_error_where_an_objective_leans_on_it() {
    let weight =
        |text: &str| of_code(text, "not-in-this-version").first().map(|finding| finding.severity);
    assert_eq!(weight(PLAN), None);
    let immutable = PLAN.replace("region: north}", "region: north, immutable: 30d}");
    assert_eq!(weight(&immutable), Some(Severity::Note));
    let ransomware = immutable.replace(
        "    region: west\n    data",
        "    region: west\n    objectives: {ransomware: {rto: 4h}}\n    data",
    );
    assert_eq!(weight(&ransomware), Some(Severity::Error));
    let standby = PLAN.replace(
        "    region: west\n    data",
        "    region: west\n    strategy: warm-standby\n    data",
    );
    assert_eq!(weight(&standby), Some(Severity::Error));
    assert_eq!(weight(&standby.replace("    tier: important\n", "")), Some(Severity::Note));
}

#[test]
fn a_standby_without_older_copies_repeats_the_harm() {
    let text = PLAN
        .replace(
            "    region: west\n    data",
            "    region: west\n    strategy: warm-standby\n    data",
        )
        .replace("    protect: [{data: db, every: 15m, to: near, copy: far}]\n", "");
    let found = of_code(&text, "strategy-cannot-meet");
    assert!(found[0].message.contains("operator-error, data-corruption"), "{found:?}");
}

#[test]
fn fresh_proof_silences_what_asks_for_it() {
    let facts = Facts { proofs: proofs(10), ..Facts::default() };
    assert_eq!(found(PLAN, &facts, "never-proven"), []);
    assert_eq!(found(PLAN, &facts, "drill-overdue"), []);
    let old = Facts { proofs: proofs(91), ..Facts::default() };
    assert!(found(PLAN, &old, "drill-overdue")[0].message.contains("91d 00h old"));
}

#[test]
fn a_plan_with_errors_is_judged_as_far_as_it_was_understood() {
    let text = PLAN.replace("name: shop", "nme: shop").replace("every: 15m", "every: 2h");
    let parsed = parse(&text);
    assert!(!parsed.is_sound());
    let findings = assess(&parsed.plan.unwrap(), &parsed.positions, &Facts::default(), now());
    assert!(findings.iter().any(|finding| finding.code == "rpo-unreachable"));
}

#[test]
fn a_circle_of_hard_dependencies_is_found_once() {
    let services = |of_c: &str| {
        format!(
            "muster: 1\nname: a\nservices:\n  z: {{depends_on: [a]}}\n  a: {{depends_on: [b]}}\n  b: {{depends_on: [c]}}\n  c: {{depends_on: [{of_c}]}}\n"
        )
    };
    let found = of_code(&services("a"), "dependency-cycle");
    assert_eq!(lines(&found), ["5:20 error dependency-cycle services.a.depends_on[0]"]);
    assert!(found[0].message.ends_with("a → b → c → a"), "{}", found[0].message);
    assert_eq!(of_code(&services("{service: a, type: soft}"), "dependency-cycle"), []);
    let selfish = services("c");
    assert_eq!(of_code(&selfish, "dependency-cycle").len(), 1);
}
