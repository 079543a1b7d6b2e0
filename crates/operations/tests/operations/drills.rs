//! Drills: what a pass tells, what it leaves behind, what it proves.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use muster_control::matrix::{Gate, Standing};
use muster_model::{Disruption, DrillResult, Verdict};
use muster_operations::{
    drill::{self, DrillRequest},
    evidence,
    records::Record,
    status::{gate_report, status},
    story::{Chapter, Listener, Silence},
    verify::{How, verify},
    workspace::Workspace,
};
use muster_repository::run::{Cancel, Run};
use muster_testkit::walker;
use serde_json::Value;

use crate::common::{Shop, carriers, marks, records, request};

/// The keys of the object of `drill run --json`, as the documentation promises them.
const SHAPE: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "drill",
            "service",
            "disruption",
            "verdict",
            "reasons",
            "started",
            "ended",
            "recovery_time",
            "recovery_point",
            "markers",
            "probes",
            "negative_controls",
            "completeness",
            "isolation",
            "cleanup",
            "evidence",
        ],
    ),
    ("/recovery_time", &["objective_s", "actual_s", "clock_start", "phases"]),
    ("/recovery_time/phases/0", &["name", "s", "source"]),
    ("/recovery_point", &["objective_s", "actual_s_min", "actual_s_max"]),
    ("/markers", &["written", "recovered", "lost", "holes", "duplicates"]),
    ("/probes/0", &["name", "data", "first_green_s", "samples", "failures", "seen_red"]),
    ("/negative_controls/0", &["probe", "against", "observed", "ok"]),
    ("/completeness/0", &["name", "data", "expected", "actual", "ok"]),
    ("/isolation/0", &["name", "ok", "detail"]),
    ("/cleanup/0", &["name", "ok", "detail"]),
    ("/evidence", &["log_index", "envelope_sha256"]),
];

#[test]
fn a_pass_tells_everything() {
    let shop = Shop::open("pass");
    let workspace = shop.protected();
    let before = Timestamp::now();
    let result = shop.check(&workspace, Verdict::Pass, "");
    let json = serde_json::to_value(&result).unwrap();
    for (pointer, keys) in SHAPE {
        let object = json.pointer(pointer).and_then(Value::as_object);
        let object = object.unwrap_or_else(|| panic!("no object at '{pointer}'"));
        for key in *keys {
            assert!(object.contains_key(*key), "'{pointer}' has no {key}");
        }
    }
    assert!(before <= result.started && result.started <= result.ended);
    check_times(&result);
    check_questions(&result);
    check_traces(&shop, &workspace, &result);
}

fn check_times(result: &DrillResult) {
    let time = &result.recovery_time;
    assert_eq!((time.objective_s, time.actual_s.is_some()), (Some(900.0), true));
    let sum: f64 = time.phases.iter().filter_map(|phase| phase.s).sum();
    assert!((sum - time.actual_s.unwrap()).abs() < 1e-6, "{time:#?}");
    let names: Vec<&str> = time.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["detect", "decide", "prepare", "restore", "start", "verify"]);
    let unknown = time.phases.iter().filter(|phase| phase.s.is_none());
    assert_eq!(unknown.count(), 2, "nobody said how long detection and decision take");
    let loss = &result.recovery_point;
    let (least, most) = (loss.actual_s_min.unwrap(), loss.actual_s_max.unwrap());
    assert_eq!(loss.objective_s, Some(300.0));
    // The markers of 200 ms and the backup before them were lost; nothing is that old here.
    assert!(0.1 < least && least <= most && most < 60.0, "{loss:?}");
}

fn check_questions(result: &DrillResult) {
    assert!(result.probes.iter().all(|probe| probe.seen_red == Some(true)));
    assert!(result.probes.iter().all(|probe| probe.first_green_s.is_some() && probe.samples > 1));
    let ok: Vec<(&str, &str)> = result
        .negative_controls
        .iter()
        .filter(|control| control.ok && control.observed == "red")
        .map(|control| (control.probe.as_str(), control.against.as_str()))
        .collect();
    let expected = [
        ("health", "stopped-service"),
        ("health", "empty-target"),
        ("ledger", "empty-target"),
        ("rows entry", "damaged:db"),
        ("checksums", "damaged:uploads"),
    ];
    assert_eq!(ok, expected);
    assert_eq!(result.negative_controls.len(), expected.len());
    let rules: Vec<(&str, Option<bool>)> =
        result.completeness.iter().map(|rule| (rule.name.as_str(), rule.ok)).collect();
    let all_ok = [("integrity", Some(true)), ("rows entry", Some(true)), ("checksums", Some(true))];
    assert_eq!(rules, all_ok);
    assert!(result.points.iter().all(|point| point.repository == "far"), "{:?}", result.points);
}

/// What a drill leaves behind: nothing but its evidence.
fn check_traces(shop: &Shop, workspace: &Workspace, result: &DrillResult) {
    assert!(result.isolation.len() >= 2 && result.isolation.iter().all(|proof| proof.ok));
    let names: Vec<&str> = result.cleanup.iter().map(|proof| proof.name.as_str()).collect();
    assert_eq!(names, ["target removed", "empty-target removed", "processes ended"]);
    assert!(result.cleanup.iter().all(|proof| proof.ok));
    let folder = shop.path(".muster/runs").join(&result.drill);
    let left: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["logs"]);
    assert!(carriers(&marks(workspace)).is_empty());
}

#[test]
fn production_is_as_it_was_but_for_markers() {
    let shop = Shop::open("untouched");
    let workspace = shop.protected();
    let before = walker::walk(&shop.path("uploads")).unwrap();
    let entries = || -> i64 {
        let sum = "SELECT count(*) * 1000000 + sum(id * amount) FROM entry";
        shop.database().query_row(sum, [], |row| row.get(0)).unwrap()
    };
    let sum = entries();
    shop.check(&workspace, Verdict::Pass, "");
    assert_eq!(entries(), sum);
    let after = walker::walk(&shop.path("uploads")).unwrap();
    walker::assert_same(&before, &after, &walker::Tolerance::default());
}

#[test]
fn a_pass_is_sealed_and_a_missing_drill_is_found() {
    let shop = Shop::open("sealed");
    let workspace = shop.protected();
    let result = shop.check(&workspace, Verdict::Pass, "");
    let second = shop.check(&workspace, Verdict::Pass, "");
    assert_eq!((result.number, second.number), (1, 2));
    assert!(evidence::verify_state(&workspace.state).is_ok());
    let bundle = shop.path("bundle.tar");
    drop(evidence::export(&workspace.state, &bundle, &[]).unwrap());
    let key = evidence::public_key(&workspace.state);
    let verified = evidence::verify(&bundle, Some(&key), None).unwrap();
    let told = evidence::results(&verified);
    assert_eq!(
        told.iter().map(|drill| &drill.drill).collect::<Vec<_>>(),
        [&result.drill, &second.drill]
    );
    let sealed = result.evidence.as_ref().unwrap();
    assert_eq!(told[0].recovery_time, result.recovery_time);
    assert_eq!(told[0].evidence.as_ref().unwrap().envelope_sha256, sealed.envelope_sha256);
    let envelope = workspace.state.ledger.attachment(&sealed.envelope_sha256).unwrap().unwrap();
    let envelope = muster_ledger::evidence::Envelope::from_bytes(&envelope).unwrap();
    let statement = envelope.verify_statement(workspace.state.ledger.verifier()).unwrap();
    assert_eq!(statement["predicate"]["drill"], result.drill.as_str());
    assert_eq!(statement["predicate"]["verdict"], "pass");
    let index = sealed.log_index.unwrap();
    let logged = workspace.state.history(&["drill-ended"]).unwrap();
    assert_eq!(logged[0].index, index);
    // One more drill that began and is not in the numbers: as if its start were taken out.
    let started = records(&workspace, &["drill-started"]).pop().unwrap();
    let mut written = serde_json::to_value(&started).unwrap();
    written["body"]["number"] = 4.into();
    workspace.state.ledger.append("drill-started", Timestamp::now(), &written["body"]).unwrap();
    workspace.state.ledger.checkpoint().unwrap();
    let hollow = shop.path("hollow.tar");
    drop(evidence::export(&workspace.state, &hollow, &[]).unwrap());
    let refused = evidence::verify(&hollow, Some(&key), None).unwrap_err().one_line();
    assert!(refused.contains("number"), "{refused}");
}

#[test]
fn the_matrix_and_the_gate_follow_the_drills() {
    let shop = Shop::open("matrix");
    let workspace = shop.protected();
    let standing = |workspace: &Workspace| {
        let cells = status(workspace).unwrap().matrix;
        let cell = cells.into_iter().find(|cell| cell.disruption == Disruption::RegionLoss);
        cell.unwrap()
    };
    let gate = |workspace: &Workspace| gate_report(workspace, &[], None).unwrap().gate;
    assert_eq!(standing(&workspace).verdict, Standing::Never);
    assert_eq!(standing(&workspace).now.rpo_s, None, "nothing is proven, so nothing is safe");
    assert_eq!(gate(&workspace), Gate::Unproven);
    shop.check(&workspace, Verdict::Pass, "");
    let proven = standing(&workspace);
    assert_eq!((proven.verdict, proven.last_attempt), (Standing::Proven, None));
    assert!(proven.now.rpo_s.unwrap() > 0.0 && proven.measured.rto_s.unwrap() > 0.0);
    assert_eq!(gate(&workspace), Gate::Unproven, "the other disruptions were never rehearsed");
    drop(workspace);

    let text = fs::read_to_string(shop.path("muster.yaml")).unwrap();
    let blind = text.replace("command:", "").replace("markers: {data: db, every: 50ms}", "");
    fs::write(shop.path("muster.yaml"), &blind).unwrap();
    let workspace = shop.workspace();
    shop.check(&workspace, Verdict::Inconclusive, "no markers");
    let still = standing(&workspace);
    assert_eq!(
        (still.verdict, still.last_attempt),
        (Standing::Proven, Some(Verdict::Inconclusive))
    );
    drop(workspace);

    let broken =
        text.replace("sum(amount) = 0", "sum(amount) = 1").replace("within: 20s", "within: 1s");
    fs::write(shop.path("muster.yaml"), &broken).unwrap();
    let workspace = shop.workspace();
    shop.check(&workspace, Verdict::Fail, "not recovered within 1s");
    assert_eq!(standing(&workspace).verdict, Standing::Failing);
    assert_eq!(standing(&workspace).proof_age_s, None);
    assert_eq!(gate(&workspace), Gate::Failing);
}

#[test]
fn a_gate_opens_when_every_objective_is_proven() {
    let shop = Shop::open("gate");
    let workspace = shop.workspace();
    let cells = status(&workspace).unwrap().matrix;
    let all = cells.iter().filter(|cell| cell.disruption != Disruption::RegionLoss);
    let none: Vec<String> = all.map(|cell| format!("{}: none", cell.disruption)).collect();
    drop(workspace);
    let text = fs::read_to_string(shop.path("muster.yaml")).unwrap();
    let objectives = format!("    objectives: {{{}}}\n    data:\n", none.join(", "));
    fs::write(shop.path("muster.yaml"), text.replace("    data:\n", &objectives)).unwrap();
    let workspace = shop.protected();
    shop.check(&workspace, Verdict::Pass, "");
    let report = gate_report(&workspace, &[], None).unwrap();
    assert_eq!((report.gate, report.because.len()), (Gate::Open, 0), "{report:#?}");
    let strict = gate_report(&workspace, &[], Some(Duration::ZERO)).unwrap();
    assert_eq!((strict.gate, strict.because.len()), (Gate::Unproven, 1), "{strict:#?}");
    assert!(gate_report(&workspace, &["nobody".to_owned()], None).is_err());

    // What was proven is damaged today in the copy that would survive, and a reading found that.
    damage(&shop.path("far/data"));
    let read = verify(&workspace, "far", How::default(), &Run::new()).unwrap();
    assert!(!read.affected.is_empty(), "{read:#?}");
    let report = gate_report(&workspace, &[], None).unwrap();
    assert_eq!(report.gate, Gate::Failing, "{report:#?}");
    assert!(report.verification.iter().any(|state| !state.affected.is_empty()));
}

/// Flips a bit in the middle of every file below a folder.
fn damage(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for (path, entry) in walker::walk(folder).unwrap().entries {
        if entry.kind != walker::Kind::File {
            continue;
        }
        let path = folder.join(String::from_utf8(path).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, bytes).unwrap();
    }
}

/// Stops a drill when a chapter of its story is told.
struct Stopper {
    cancel: Cancel,
    chapter: &'static str,
}

impl Listener for Stopper {
    fn hear(&self, chapter: &Chapter<'_>) {
        if format!("{chapter:?}").starts_with(self.chapter) {
            self.cancel.request("Ctrl-C");
        }
    }
}

#[test]
fn a_drill_that_is_stopped_is_cleaned_up_and_recorded() {
    let shop = Shop::open("stopped");
    let workspace = shop.protected();
    let chapters =
        ["DrillStarted", "Marking", "CutOff", "StepStarted", "StepEnded", "Recovered", "Controls"];
    for chapter in chapters {
        let run = Run::new();
        let stopper = Stopper { cancel: run.cancel.clone(), chapter };
        let asked = request(Disruption::RegionLoss);
        let result = drill::run(&workspace, &asked, &stopper, &run).unwrap();
        check_aborted(&shop, &workspace, &result, chapter);
    }
    let numbers: Vec<u64> = status_numbers(&workspace);
    assert_eq!(numbers, (1..=u64::try_from(chapters.len()).unwrap()).collect::<Vec<_>>());
    assert!(evidence::verify_state(&workspace.state).is_ok());
    shop.check(&workspace, Verdict::Pass, "");
}

fn check_aborted(shop: &Shop, workspace: &Workspace, result: &DrillResult, when: &str) {
    assert_eq!(result.verdict, Verdict::Aborted, "{when}: {result:#?}");
    assert!(result.cleanup.iter().all(|proof| proof.ok), "{when}: {:#?}", result.cleanup);
    assert!(carriers(&marks(workspace)).is_empty(), "{when}");
    for target in ["target", "empty-target"] {
        assert!(!shop.path(".muster/runs").join(&result.drill).join(target).exists(), "{when}");
    }
}

fn status_numbers(workspace: &Workspace) -> Vec<u64> {
    let ended = records(workspace, &["drill-ended"]).into_iter();
    ended
        .filter_map(|record| match record {
            Record::DrillEnded(drill) => Some(drill.number),
            _ => None,
        })
        .collect()
}

#[test]
fn a_drill_whose_step_hangs_can_be_stopped_from_another_thread() {
    let hang = "- {restore: [db, uploads]}\n      - {run: [sleep, \"600\"]}";
    let shop = Shop::with("hanging", &[("- {restore: [db, uploads]}", hang)]);
    let workspace = shop.protected();
    let run = Run::new();
    let asked = request(Disruption::RegionLoss);
    thread::scope(|scope| {
        let drilled = scope.spawn(|| drill::run(&workspace, &asked, &Silence, &run));
        let hangs = || (!carriers(&marks(&workspace)).is_empty()).then_some(());
        muster_testkit::wait_for("the step", crate::common::PATIENCE, hangs).unwrap();
        let asked_at = Instant::now();
        run.cancel.request("Ctrl-C");
        let result = drilled.join().unwrap().unwrap();
        assert!(asked_at.elapsed() < Duration::from_secs(20), "{:?}", asked_at.elapsed());
        check_aborted(&shop, &workspace, &result, "a hanging step");
    });
}

#[test]
fn an_older_point_is_rehearsed_on_request() {
    let shop = Shop::open("older");
    let workspace = shop.protected();
    let first = records(&workspace, &["backup-ended"]);
    let Some(Record::BackupEnded(first)) = first.last() else { panic!("{first:?}") };
    drop(shop.back_up(&workspace));
    let asked = DrillRequest {
        point: Some(first.point.clone()),
        marking: Duration::ZERO,
        ..request(Disruption::RegionLoss)
    };
    let proposal = drill::propose(&workspace, &asked).unwrap();
    assert!(proposal.blockers.is_empty() && proposal.points.iter().all(|p| p.point == first.point));
    let result = drill::run(&workspace, &asked, &Silence, &Run::new()).unwrap();
    assert!(result.points.iter().all(|used| used.point == first.point), "{result:#?}");
    assert_eq!(result.verdict, Verdict::Pass, "{result:#?}");
}

#[test]
fn a_proposal_does_nothing() {
    let shop = Shop::open("proposal");
    let workspace = shop.protected();
    let size = workspace.state.ledger.size().unwrap();
    let proposal = drill::propose(&workspace, &request(Disruption::RegionLoss)).unwrap();
    assert!(proposal.blockers.is_empty(), "{proposal:#?}");
    assert_eq!((proposal.steps.len(), proposal.probes.len()), (2, 2));
    assert!(proposal.writes_to_production.contains("markers in db"));
    assert_eq!(workspace.state.ledger.size().unwrap(), size);
}

#[test]
fn a_repository_that_is_damaged_is_passed_over_for_another_copy() {
    let shop = Shop::open("second-copy");
    let workspace = shop.protected();
    // Packs of the near repository are gone; its index still promises them.
    fs::remove_dir_all(shop.path("near/data")).unwrap();
    fs::create_dir(shop.path("near/data")).unwrap();
    let result = shop.drill(&workspace, Disruption::ProcessLoss);
    let result = result.unwrap();
    assert_eq!(result.verdict, Verdict::Pass, "{result:#?}");
    assert!(result.points.iter().all(|used| used.repository == "far"), "{result:#?}");
}

#[test]
fn a_restore_that_fails_is_the_systems_failure() {
    let shop = Shop::open("no-restore-possible");
    let workspace = shop.protected();
    for repository in ["near", "far"] {
        let data = shop.path(repository).join("data");
        fs::remove_dir_all(&data).unwrap();
        fs::create_dir(&data).unwrap();
    }
    let result = shop.check(&workspace, Verdict::Fail, "the runbook failed: restore db");
    assert!(result.recovery_time.actual_s.is_none() && result.points.is_empty());
}

#[test]
fn drills_of_the_calendar_are_in_the_log_before_they_are_due() {
    let shop = Shop::open("calendar");
    let text = fs::read_to_string(shop.path("muster.yaml")).unwrap();
    let drills =
        "drills:\n  - {service: orders, disruption: region-loss, schedule: \"*/5 * * * *\"}\n";
    fs::write(shop.path("muster.yaml"), format!("{text}{drills}")).unwrap();
    let workspace = shop.protected();
    let scheduled = records(&workspace, &["drill-scheduled", "drill-expired"]);
    assert!(matches!(&scheduled[..], [Record::DrillScheduled(_)]), "{scheduled:#?}");
    let revision = workspace.plan.revision.clone();
    let name = workspace.plan.name.clone();
    drop(workspace);
    fs::remove_dir_all(shop.path(".muster")).unwrap();

    // The plan was seen 17 minutes ago, and nobody came since.
    let state = muster_operations::state::State::open(&shop.path(".muster")).unwrap();
    let long_ago = Timestamp::now() - SignedDuration::from_secs(17 * 60);
    let seen = serde_json::json!({"name": name, "revision": revision});
    state.ledger.append("plan-seen", long_ago, &seen).unwrap();
    drop(state);
    for _ in 0..2 {
        let workspace = shop.workspace();
        let expired = records(&workspace, &["drill-expired"]).len();
        let scheduled = records(&workspace, &["drill-scheduled"]).len();
        assert!((2..=3).contains(&expired), "{expired}");
        assert_eq!(scheduled, expired + 2, "one is open, one is to come");
    }
    let workspace = shop.protected();
    let result = shop.check(&workspace, Verdict::Pass, "");
    let started = records(&workspace, &["drill-started"]);
    let [Record::DrillStarted(started)] = &started[..] else { panic!("{started:?}") };
    let due = started.due.unwrap();
    assert!(due <= Timestamp::now() && started.drill == result.drill);
    assert!(due >= Timestamp::now() - SignedDuration::from_secs(11 * 60));
}
