//! The matrix against small histories.

use muster_model::{
    BackupKind, PointCopy,
    drill::{ClockStart, PointUsed, RecoveryLoss, RecoveryTime},
};

use super::*;

const DAY: i64 = 86_400;

fn at(day: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + day * DAY).unwrap()
}

fn drill(day: i64, verdict: Verdict) -> DrillResult {
    DrillResult {
        drill: format!("drill-{day}"),
        number: 1,
        service: "orders".to_owned(),
        disruption: Disruption::RegionLoss,
        verdict,
        reasons: Vec::new(),
        started: at(day),
        ended: at(day),
        plan_revision: String::new(),
        points: vec![PointUsed {
            data: "db".to_owned(),
            point: "p".to_owned(),
            repository: "far".to_owned(),
            snapshot: String::new(),
            data_time: at(day),
            bytes: None,
        }],
        recovery_time: RecoveryTime {
            objective_s: Some(60.0),
            actual_s: Some(7.0),
            clock_start: ClockStart::Impact,
            phases: Vec::new(),
        },
        recovery_point: RecoveryLoss {
            objective_s: Some(60.0),
            actual_s_min: Some(1.0),
            actual_s_max: Some(2.0),
        },
        markers: None,
        probes: Vec::new(),
        negative_controls: Vec::new(),
        completeness: Vec::new(),
        isolation: Vec::new(),
        cleanup: Vec::new(),
        findings: Vec::new(),
        evidence: None,
    }
}

fn point(day: i64, repositories: &[(&str, &str)]) -> RecoveryPoint {
    let copy = |(repository, place): &(&str, &str)| PointCopy {
        repository: (*repository).to_owned(),
        place: Place::parse(place),
        immutable: false,
        immutable_until: None,
        snapshot: String::new(),
        damaged: false,
    };
    RecoveryPoint {
        id: "p".to_owned(),
        service: "orders".to_owned(),
        data: "db".to_owned(),
        source: "sqlite".to_owned(),
        data_time: at(day),
        kind: BackupKind::Full,
        partial: false,
        suspect: false,
        bytes: None,
        copies: repositories.iter().map(copy).collect(),
        proof: None,
    }
}

fn answer(drills: &[DrillResult], points: &[RecoveryPoint], day: i64) -> Cell {
    let question = Question {
        service: "orders",
        place: &Place::parse("west/-/-"),
        data: &["db".to_owned()],
        disruption: Disruption::RegionLoss,
        rto: Some(Duration::from_secs(60)),
        rpo: Some(Duration::from_secs(60)),
        evidence_max_age: Some(Duration::from_secs(45 * 86_400)),
    };
    cell(&question, drills, points, at(day))
}

#[test]
fn the_last_drill_that_judged_decides() {
    let check = |drills: &[DrillResult], day, expected| {
        assert_eq!(answer(drills, &[], day).verdict, expected);
    };
    check(&[], 0, Standing::Never);
    check(&[drill(0, Verdict::Pass)], 45, Standing::Proven);
    check(&[drill(0, Verdict::Pass)], 46, Standing::Stale);
    check(&[drill(0, Verdict::Pass), drill(1, Verdict::Fail)], 2, Standing::Failing);
    check(&[drill(0, Verdict::Fail), drill(1, Verdict::Pass)], 2, Standing::Proven);
    check(&[drill(0, Verdict::Pass), drill(1, Verdict::Error)], 2, Standing::Proven);
    check(&[drill(0, Verdict::Inconclusive)], 1, Standing::Never);
}

#[test]
fn exposure_counts_only_surviving_copies_that_were_proven() {
    let now = |drills: &[DrillResult], points: &[RecoveryPoint]| {
        answer(drills, points, 10).now.rpo_s.map(|s| s / 86_400.0)
    };
    let both = [("near", "west/-/-"), ("far", "north/-/-")];
    let passed = [drill(0, Verdict::Pass)];
    assert_eq!(now(&passed, &[point(8, &both), point(9, &both[..1])]), Some(2.0));
    assert_eq!(now(&[], &[point(8, &both)]), None);
    assert_eq!(now(&passed, &[]), None);
    let mut partial = point(9, &both);
    partial.partial = true;
    assert_eq!(now(&passed, &[partial, point(7, &both)]), Some(3.0));
    let suspect = RecoveryPoint { suspect: true, ..point(9, &both) };
    assert_eq!(now(&passed, &[suspect, point(7, &both)]), Some(3.0));
}

#[test]
fn the_gate_opens_only_on_proof() {
    let check = |drills: &[DrillResult], expected| {
        assert_eq!(gate(&[answer(drills, &[], 1)]), expected);
    };
    check(&[drill(0, Verdict::Pass)], Gate::Open);
    check(&[drill(0, Verdict::Fail)], Gate::Failing);
    check(&[], Gate::Unproven);
    check(&[drill(0, Verdict::Inconclusive)], Gate::Unknown);
    assert_eq!(gate(&[]), Gate::Unknown);
}

#[test]
fn the_sentence_adds_up() {
    let cells = [answer(&[drill(0, Verdict::Pass)], &[], 1), answer(&[], &[], 1)];
    assert_eq!(sentence(&cells), "1 of 2 objectives proven; 1 never proven.");
}
