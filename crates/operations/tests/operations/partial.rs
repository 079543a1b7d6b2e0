//! Drills and recoveries in which not all went well: what can be measured is, what could not be
//! read is remembered, and the rest is said.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use muster_model::{Disruption, DrillResult, Severity, Verdict};
use muster_operations::{
    records::Record,
    recover::{self, CutOff, RecoverRequest},
    story::Silence,
    workspace::Workspace,
};
use muster_repository::run::Run;

use crate::common::{Shop, records};

const START: &str = r#"- {start: ["@EXE@", --exact, --nocapture, "child::serve"], env: {SHOP_DB: "{{ target.data.db.path }}", SHOP_PORT: "{{ target.port }}"}}"#;
const RESTORE: &str = "- {restore: [db, uploads]}";
const FAILS: &str = r#"- {run: [sh, -c, "echo no licence >&2; exit 3"]}"#;

/// A drill whose runbook has these steps instead.
#[track_caller]
fn fails_with(name: &str, steps: &[&str]) -> DrillResult {
    let shop = Shop::with(name, &[(RESTORE, &steps.join("\n      ")), (START, "")]);
    let workspace = shop.protected();
    let result = shop.check(&workspace, Verdict::Fail, "no licence");
    assert_eq!(result.recovery_time.actual_s, None);
    assert!(result.negative_controls.is_empty());
    result
}

#[track_caller]
fn unmeasured(result: &DrillResult, expected: &[&str]) {
    let said = result.reasons.iter().filter_map(|reason| reason.strip_prefix("not measured: "));
    assert_eq!(said.collect::<Vec<_>>(), expected, "{:#?}", result.reasons);
}

const NO_TIME: &str = "the recovery time and the negative controls: the service did not come back";

#[test]
fn data_that_came_back_before_a_step_failed_is_measured() {
    let result = fails_with("fails-after", &[RESTORE, FAILS]);
    let markers = result.markers.as_ref().unwrap();
    assert!(markers.written > 0 && markers.recovered > 0 && markers.holes == 0, "{markers:?}");
    assert_eq!(markers.written, markers.recovered + markers.lost);
    let loss = &result.recovery_point;
    assert!(loss.actual_s_min.unwrap() > 0.0 && loss.actual_s_max >= loss.actual_s_min, "{loss:?}");
    let rules: Vec<(&str, Option<bool>)> =
        result.completeness.iter().map(|rule| (rule.name.as_str(), rule.ok)).collect();
    let all_ok = [("integrity", Some(true)), ("rows entry", Some(true)), ("checksums", Some(true))];
    assert_eq!(rules, all_ok);
    unmeasured(&result, &[NO_TIME]);
}

#[test]
fn what_did_not_come_back_is_said() {
    let steps = ["- {restore: [db]}", FAILS, "- {restore: [uploads]}"];
    let result = fails_with("fails-between", &steps);
    assert!(result.markers.as_ref().unwrap().recovered > 0);
    assert_eq!(result.completeness.len(), 2, "{:#?}", result.completeness);
    unmeasured(&result, &[NO_TIME, "the checksums of uploads: it did not come back"]);

    let steps = ["- {restore: [uploads]}", FAILS, "- {restore: [db]}"];
    let result = fails_with("fails-before", &steps);
    assert_eq!((&result.markers, result.recovery_point.actual_s_max), (&None, None));
    let said = ["the loss of db: it did not come back", "the rows of db: it did not come back"];
    unmeasured(&result, &[NO_TIME, said[0], said[1]]);
}

#[test]
fn a_service_that_exits_at_once_has_its_data_measured() {
    let start = r#"- {start: [sh, -c, "echo no licence >&2; exit 3"]}"#;
    let result = fails_with("exits-measured", &[RESTORE, start]);
    assert!(result.markers.as_ref().unwrap().recovered > 0);
    unmeasured(&result, &[NO_TIME]);
}

/// Flips a bit in every pack of a repository.
fn damage_packs(repository: &Path) {
    for folder in fs::read_dir(repository.join("data")).unwrap().flatten() {
        for file in fs::read_dir(folder.path()).unwrap().flatten() {
            let mut bytes = fs::read(file.path()).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(file.path(), bytes).unwrap();
        }
    }
}

/// The findings name the near repository, once for each data item, with its line in the plan.
#[track_caller]
fn remembers_near(result: &DrillResult, data: &[&str]) {
    let told: Vec<(&str, &str)> = result
        .findings
        .iter()
        .map(|finding| (finding.code.as_str(), finding.path.as_str()))
        .collect();
    assert_eq!(told, vec![("copy-unread", "repositories.near"); data.len()]);
    for (finding, data) in result.findings.iter().zip(data) {
        assert!(finding.message.starts_with(&format!("{data}: near: cannot")), "{finding:#?}");
        assert_eq!((finding.severity, finding.line), (Severity::Warning, 6));
    }
    assert!(result.points.iter().all(|point| point.repository == "far"), "{:#?}", result.points);
}

fn copies_unread(workspace: &Workspace) -> usize {
    records(workspace, &["copy-unread"]).len()
}

#[test]
fn a_copy_that_a_drill_could_not_read_is_remembered() {
    let shop = Shop::open("unread-drill");
    let workspace = shop.protected();
    damage_packs(&shop.path("near"));
    let result = shop.drill(&workspace, Disruption::ProcessLoss).unwrap();
    assert!(result.recovery_time.actual_s.is_some(), "{result:#?}");
    remembers_near(&result, &["db", "uploads"]);
    assert!(copies_unread(&workspace) >= 2);
    let ended = records(&workspace, &["drill-ended"]);
    let [Record::DrillEnded(ended)] = &ended[..] else { panic!("{ended:#?}") };
    assert_eq!(ended.findings, result.findings);
    // A region that is lost has no say.
    let result = shop.check(&workspace, Verdict::Pass, "");
    assert_eq!(result.findings, []);
}

#[test]
fn a_copy_that_a_recovery_could_not_read_is_remembered() {
    let shop = Shop::open("unread-recovery");
    let workspace = shop.protected();
    damage_packs(&shop.path("near"));
    let request = RecoverRequest {
        service: "orders".to_owned(),
        disruption: None,
        at: None,
        point: None,
        site: Some(shop.path("site")),
        impact: None,
        cut_off: CutOff::Unknown,
    };
    let proposal = recover::propose(&workspace, &request).unwrap();
    let result = recover::recover(&workspace, &request, proposal, &Silence, &Run::new());
    recover::stop(&workspace, "orders").unwrap();
    let result = result.unwrap();
    remembers_near(&result, &["db", "uploads"]);
    let ended = records(&workspace, &["recovery-ended"]);
    let [Record::RecoveryEnded(ended)] = &ended[..] else { panic!("{ended:#?}") };
    assert_eq!(ended.findings, result.findings);
}

#[test]
fn a_repository_that_was_silent_when_points_were_looked_for_is_remembered() {
    let shop = Shop::open("unread-silent");
    let workspace = shop.protected();
    fs::rename(shop.path("near"), shop.path("away")).unwrap();
    let result = shop.check(&workspace, Verdict::Pass, "");
    let [finding] = &result.findings[..] else { panic!("{:#?}", result.findings) };
    assert_eq!((&*finding.code, &*finding.path), ("copy-unread", "repositories.near"));
    assert!(finding.message.starts_with("near: cannot"), "{finding:#?}");
}
