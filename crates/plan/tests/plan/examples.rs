//! Every example of the table of findings is run, and the pages written from it are its own.

use muster_model::Finding;
use muster_plan::{Facts, codes, document::VerifyFact, reference, schema};
use muster_testkit::golden::assert_golden;

use crate::common::{backup, check, now, proofs, restore};

/// What the table says was measured.
fn given(code: &codes::Code) -> Facts {
    let mut facts = Facts::default();
    match code.code {
        "rto-unreachable" => {
            facts.backups.push(backup(10, 0, 2 << 30));
            facts.restores.push(restore(300, 60, 1 << 30));
        }
        "verify-unreachable" | "verify-overdue" => facts.verifications.push(VerifyFact {
            repository: "near".to_owned(),
            waiting_since: Some(now() - jiff::SignedDuration::from_hours(40 * 24)),
            packs_archived: 0,
            bytes: 1 << 40,
            bytes_per_s: Some(50e6),
        }),
        "restore-speed-unknown" => facts.restores.push(restore(1, 1, 1000)),
        "never-proven" | "drill-overdue" | "copies-3-2-1-1-0" => facts.proofs = proofs(40),
        _ => assert_eq!(code.given, None, "{}: nothing is given", code.code),
    }
    facts
}

fn raised(text: &str, code: &codes::Code) -> Vec<Finding> {
    let mut findings = check(text, &given(code));
    findings.retain(|finding| finding.code == code.code);
    findings
}

#[test]
fn every_bad_example_raises_its_code_in_its_place_and_no_good_one_does() {
    let mut wrong = Vec::new();
    for code in codes::ALL {
        let Some(examples) = code.examples else { continue };
        let good = raised(examples.good, code);
        if !good.is_empty() {
            wrong.push(format!("{}: the good example has {good:?}", code.code));
        }
        let bad = raised(examples.bad, code);
        let places: Vec<_> = bad.iter().map(|finding| (finding.line, finding.column)).collect();
        if places != [examples.at] {
            wrong.push(format!("{}: found at {places:?}", code.code));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_finding_has_a_place_a_help_and_an_entry() {
    for code in codes::ALL {
        for text in code.examples.iter().flat_map(|examples| [examples.good, examples.bad]) {
            for finding in check(text, &given(code)) {
                assert!(finding.line > 0 && finding.column > 0, "{finding:?}");
                assert!(finding.help.is_some(), "{finding:?}");
                assert!(codes::find(&finding.code).is_some(), "{finding:?}");
            }
        }
    }
}

#[test]
fn the_pages_are_written_from_the_tables() {
    assert_golden("docs/reference/findings.md", &reference::findings());
    assert_golden("docs/reference/plan.md", &reference::fields());
}

#[test]
fn the_schema_takes_good_plans_and_refuses_what_has_no_shape() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let json = |text: &str| muster_plan::to_json(text).unwrap();
    let mut wrong = Vec::new();
    for code in codes::ALL {
        let Some(examples) = code.examples else { continue };
        if let Err(error) = validator.validate(&json(examples.good)) {
            wrong.push(format!("{}: refuses the good one: {error}", code.code));
        }
        let bad = muster_plan::to_json(examples.bad).ok();
        let is_refused = bad.is_none_or(|bad| !validator.is_valid(&bad));
        if is_refused != (code.in_schema || code.code == "yaml-syntax") {
            wrong.push(format!("{}: the bad one is refused: {is_refused}", code.code));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(validator.is_valid(&json(include_str!("fixtures/product.yaml"))));
}
