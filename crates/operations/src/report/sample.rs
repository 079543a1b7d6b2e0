//! A made-up quarter with every verdict, standing and kind of figure, for tests and for looking
//! at.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, civil::date};
use muster_control::matrix::{Cell, Figures, Question, cell};
use muster_model::{
    BackupKind, Disruption, DrillResult, Finding, Place, PointCopy, PointProof, RecoveryPoint,
    Severity, Verdict,
    drill::{
        ClockStart, Completeness, EvidenceRef, MarkerCounts, MeasuredBy, NegativeControl, Phase,
        PointUsed, ProbeResult, Proof, RecoveryLoss, RecoveryTime,
    },
};

use super::data::{
    BackupStats, EvidenceState, Facts, HeldException, Service, Unfinished, Verification,
};

pub(crate) const LONG_NAME: &str = "settlement-and-reconciliation-with-correspondent-banks";

const TIERED: [Disruption; 7] = [
    Disruption::OperatorError,
    Disruption::DataCorruption,
    Disruption::ProcessLoss,
    Disruption::HostLoss,
    Disruption::StorageLoss,
    Disruption::ZoneLoss,
    Disruption::RegionLoss,
];

pub(crate) fn now() -> Timestamp {
    "2026-11-20T13:03:07Z".parse().unwrap()
}

fn hours_ago(hours: i64) -> Timestamp {
    now() - SignedDuration::from_hours(hours)
}

/// Nothing but two services of which nothing is known.
pub(crate) fn empty_facts() -> Facts {
    let services = services().into_iter().take(2).collect::<Vec<_>>();
    Facts {
        cells: cells(&services, &[], &[]),
        services,
        drills: Vec::new(),
        unfinished: Vec::new(),
        recoveries: Vec::new(),
        points: Vec::new(),
        backups: Vec::new(),
        findings: Vec::new(),
        exceptions: Vec::new(),
        evidence: EvidenceState::default(),
        ..facts()
    }
}

/// The quarter.
pub(crate) fn facts() -> Facts {
    let (services, drills, points) = (services(), drills(), points());
    Facts {
        plan: "shop".to_owned(),
        revision: "9f2c1ab47de05c3388b0a6f1d94e7c2250aa31f6bd7e94c8831f02d6c5be7a10".to_owned(),
        generated: now(),
        since: hours_ago(90 * 24),
        until: now(),
        zone: "Europe/Rome".to_owned(),
        cells: cells(&services, &drills, &points),
        services,
        drills,
        unfinished: vec![Unfinished {
            drill: "019a9c3e-77aa-7c11-8d00-41f6e0c5b1d2".to_owned(),
            number: 61,
            service: "search".to_owned(),
            disruption: Disruption::ZoneLoss,
            started: hours_ago(31),
        }],
        recoveries: vec![recovery()],
        points,
        backups: backups(),
        findings: findings(),
        exceptions: vec![HeldException {
            service: "orders".to_owned(),
            waives: "no-immutable-copy".to_owned(),
            until: date(2027, 1, 31),
            reason: "object lock being bought".to_owned(),
            approved_by: Some("ana".to_owned()),
        }],
        evidence: EvidenceState {
            log_size: 412,
            checkpoint: Some("muster.shop/evidence\n412\n8a1vQ0mZ7mI4n3cH0b2W1x9sTtq6yE0kq5o0Zr2c3dA=\n\n\u{2014} shop k7Vb+0yQ6c1h".to_owned()),
            verified: Some(Verification {
                at: now() - SignedDuration::from_secs(140),
                ok: true,
                detail: "412 leaves, 1 key, checkpoint signed".to_owned(),
            }),
        },
    }
}

fn service(name: &str, tier: Option<&str>, owner: Option<&str>, rto: f64, rpo: f64) -> Service {
    let objective = match tier {
        Some(_) => Figures { rto_s: Some(rto), rpo_s: Some(rpo) },
        None => Figures { rto_s: None, rpo_s: None },
    };
    let (tier, owner) = (tier.map(str::to_owned), owner.map(str::to_owned));
    Service { name: name.to_owned(), tier, owner, objective, excluded: Vec::new() }
}

fn services() -> Vec<Service> {
    let mut catalogue = service("catalogue", Some("standard"), Some("web"), 14_400.0, 3600.0);
    catalogue.excluded = vec![Disruption::RegionLoss, Disruption::ZoneLoss];
    vec![
        catalogue,
        service("orders", Some("critical"), Some("orders-team"), 900.0, 300.0),
        service(LONG_NAME, Some("critical"), Some("treasury-operations"), 900.0, 300.0),
        service("search", Some("important"), None, 3600.0, 1800.0),
        service("wiki", None, Some("office"), 0.0, 0.0),
    ]
}

fn cells(services: &[Service], drills: &[DrillResult], points: &[RecoveryPoint]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for service in services {
        let mut disruptions = TIERED.to_vec();
        match service.name.as_str() {
            "orders" => disruptions.push(Disruption::Ransomware),
            "wiki" => disruptions = vec![Disruption::HostLoss],
            _ => {}
        }
        disruptions.retain(|disruption| !service.excluded.contains(disruption));
        let duration = |s: Option<f64>| s.map(Duration::from_secs_f64);
        for disruption in disruptions {
            let data = if service.name == "orders" {
                vec!["db".into(), "uploads".into()]
            } else {
                vec!["db".into()]
            };
            let (rto, rpo) = match service.name.as_str() {
                "wiki" => (Some(Duration::from_secs(28_800)), None),
                _ => (duration(service.objective.rto_s), duration(service.objective.rpo_s)),
            };
            let question = Question {
                service: &service.name,
                place: &Place::parse("eu-west/-/-"),
                data: &data,
                disruption,
                rto,
                rpo: rpo.filter(|_| disruption.effect().loses_data),
                evidence_max_age: Some(Duration::from_secs(30 * 86_400)),
            };
            cells.push(cell(&question, drills, points, now()));
        }
    }
    cells
}

fn phase(name: &str, s: impl Into<Option<f64>>, source: MeasuredBy) -> Phase {
    Phase { name: name.to_owned(), s: s.into(), source }
}

fn phases(total: f64, assumed: bool) -> Vec<Phase> {
    use MeasuredBy::{Assumed, Measured, NotMeasured};
    let (detect, decide) = match assumed {
        true => (phase("detect", 120.0, Assumed), phase("decide", 240.0, Assumed)),
        false => (phase("detect", None, NotMeasured), phase("decide", None, NotMeasured)),
    };
    let rest = if assumed { total - 360.0 } else { total };
    vec![
        detect,
        decide,
        phase("prepare", rest * 0.04, Measured),
        phase("restore", rest * 0.55, Measured),
        phase("start", rest * 0.11, Measured),
        phase("verify", rest * 0.30, Measured),
    ]
}

/// A drill in which everything went well; the others are spoilt versions of it.
fn drill(number: u64, service: &str, disruption: Disruption, hours: i64, rta: f64) -> DrillResult {
    let (rto, rpo) = match service {
        "search" => (3600.0, 1800.0),
        "catalogue" => (14_400.0, 3600.0),
        _ => (900.0, 300.0),
    };
    let started = hours_ago(hours);
    DrillResult {
        drill: format!("019a9c3e-77aa-7c11-8d00-{number:012x}"),
        number,
        service: service.to_owned(),
        disruption,
        verdict: Verdict::Pass,
        reasons: Vec::new(),
        started,
        ended: started + SignedDuration::from_secs_f64(rta.round() + 30.0),
        plan_revision: "9f2c1ab47de05c3388b0a6f1d94e7c2250aa31f6bd7e94c8831f02d6c5be7a10"
            .to_owned(),
        points: vec![point_used("db", started), point_used("uploads", started)],
        recovery_time: RecoveryTime {
            objective_s: Some(rto),
            actual_s: Some(rta),
            clock_start: ClockStart::Impact,
            phases: phases(rta, false),
        },
        recovery_point: RecoveryLoss {
            objective_s: disruption.effect().loses_data.then_some(rpo),
            actual_s_min: Some(92.0),
            actual_s_max: Some(93.0),
        },
        markers: Some(MarkerCounts {
            written: 1830,
            recovered: 1738,
            lost: 92,
            ..MarkerCounts::default()
        }),
        probes: vec![probe("health", None, 6.9), probe("ledger", Some("db"), 7.1)],
        negative_controls: vec![
            control("health", "empty-target"),
            control("ledger", "empty-target"),
            control("ledger", "damaged:db"),
            control("checksums", "damaged:uploads"),
        ],
        completeness: vec![Completeness {
            name: "rows orders".to_owned(),
            data: "db".to_owned(),
            expected: Some("41 988 to 42 080".to_owned()),
            actual: Some("41 990".to_owned()),
            ok: Some(true),
        }],
        isolation: vec![proof("paths", "nothing outside the target was opened for writing")],
        cleanup: vec![proof("target", "removed"), proof("processes", "none left")],
        findings: Vec::new(),
        evidence: Some(EvidenceRef {
            log_index: Some(number * 3),
            test_result: None,
            envelope_sha256: format!("{:064x}", u128::from(number) * 0x9e37_79b9_7f4a_7c15_f39c),
        }),
    }
}

fn point_used(data: &str, started: Timestamp) -> PointUsed {
    PointUsed {
        data: data.to_owned(),
        point: "p-20261119-0301".to_owned(),
        repository: "far".to_owned(),
        snapshot: "4f6d3a90c1b2".to_owned() + &"0".repeat(52),
        data_time: started - SignedDuration::from_secs(92),
        bytes: Some(1_299_227_607),
    }
}

fn probe(name: &str, data: Option<&str>, first_green_s: f64) -> ProbeResult {
    ProbeResult {
        name: name.to_owned(),
        data: data.map(str::to_owned),
        first_green_s: Some(first_green_s),
        samples: 42,
        failures: 14,
        seen_red: Some(true),
    }
}

fn control(probe: &str, against: &str) -> NegativeControl {
    NegativeControl {
        probe: probe.to_owned(),
        against: against.to_owned(),
        observed: "red".to_owned(),
        ok: true,
    }
}

fn proof(name: &str, detail: &str) -> Proof {
    Proof { name: name.to_owned(), ok: true, detail: detail.to_owned() }
}

fn ended(mut drill: DrillResult, verdict: Verdict, reason: &str) -> DrillResult {
    drill.verdict = verdict;
    drill.reasons = vec![reason.to_owned()];
    drill
}

/// A drill that never came to measure anything.
fn without_figures(drill: DrillResult, verdict: Verdict, reason: &str) -> DrillResult {
    let mut drill = ended(drill, verdict, reason);
    drill.recovery_time.actual_s = None;
    drill.recovery_time.phases.clear();
    drill.recovery_point.actual_s_min = None;
    drill.recovery_point.actual_s_max = None;
    drill.points.clear();
    drill.markers = None;
    drill.probes.clear();
    drill.negative_controls.clear();
    drill.completeness.clear();
    drill.isolation.clear();
    drill.cleanup.clear();
    drill.ended = drill.started;
    drill
}

fn drills() -> Vec<DrillResult> {
    use Disruption::{DataCorruption, HostLoss, OperatorError, ProcessLoss, RegionLoss, ZoneLoss};
    let mut drills = Vec::new();
    for i in 0..26_u32 {
        let hours = i64::from(88 - i * 3) * 24;
        let rta = 380.0 + 12.0 * f64::from(i) + 60.0 * f64::from(i * 7 % 5);
        let mut drill = drill(u64::from(i) + 1, "orders", RegionLoss, hours, rta);
        drill.recovery_time.phases = phases(rta, true);
        if rta > 900.0 {
            drill = ended(drill, Verdict::Fail, "recovered in 908.0 s, the objective is 900.0 s");
        }
        drills.push(drill);
    }
    drills[9] =
        without_figures(drills[9].clone(), Verdict::Expired, "not started within its window");
    drills[14] = without_figures(drills[14].clone(), Verdict::Error, "the ledger is full");
    drills.push(drill(40, "orders", HostLoss, 12 * 24, 7.2));
    drills.push(drill(41, "orders", ProcessLoss, 3 * 24, 0.8));
    drills.push(drill(42, "orders", OperatorError, 45 * 24, 64.0));
    drills.extend(settlement());
    drills.push(drill(50, "search", HostLoss, 44 * 24, 2910.0));
    let mut unseen = ended(
        drill(51, "search", ZoneLoss, 9 * 24, 1260.0),
        Verdict::Inconclusive,
        "probe health was never seen red",
    );
    unseen.probes[0].seen_red = Some(false);
    unseen.negative_controls[0].observed = "green".to_owned();
    unseen.negative_controls[0].ok = false;
    drills.push(unseen);
    drills.push(without_figures(
        drill(0, "search", RegionLoss, 20 * 24, 0.0),
        Verdict::Skipped,
        "maintenance of eu-north, ticket 4411",
    ));
    let mut aborted = ended(
        drill(53, "catalogue", DataCorruption, 16 * 24, 1.0),
        Verdict::Aborted,
        "stopped on request",
    );
    aborted.recovery_time.actual_s = None;
    drills.push(aborted);
    drills.sort_by_key(|drill| drill.ended);
    drills
}

fn settlement() -> Vec<DrillResult> {
    let dead = drill(43, LONG_NAME, Disruption::HostLoss, 26, 600.0);
    let mut dead = ended(dead, Verdict::Fail, "not recovered within 10m 00s");
    dead.recovery_time.actual_s = None;
    dead.recovery_point.actual_s_min = Some(360.0);
    dead.recovery_point.actual_s_max = Some(421.0);
    dead.reasons.push("lost at least 360.0 s, the objective is 300.0 s".to_owned());
    dead.reasons.push("2 markers are missing between others".to_owned());
    dead.markers =
        Some(MarkerCounts { written: 900, recovered: 538, lost: 360, holes: 2, duplicates: 1 });
    dead.completeness[0].ok = Some(false);
    dead.findings.push(findings().remove(1));
    let slow = drill(44, LONG_NAME, Disruption::RegionLoss, 50, 1340.0);
    let slow = ended(slow, Verdict::Fail, "recovered in 1340.0 s, the objective is 900.0 s");
    vec![slow, dead]
}

fn recovery() -> DrillResult {
    let mut recovery = drill(1, "orders", Disruption::HostLoss, 33 * 24, 1480.0);
    recovery.drill = "recovery-2026-10-18".to_owned();
    recovery.verdict = Verdict::Fail;
    recovery.reasons = vec!["recovered in 1480.0 s, the objective is 900.0 s".to_owned()];
    recovery.recovery_time.clock_start = ClockStart::Declaration;
    recovery
}

fn points() -> Vec<RecoveryPoint> {
    let copy = |repository: &str, region: &str| PointCopy {
        repository: repository.to_owned(),
        place: Place::parse(&format!("{region}/-/-")),
        immutable: false,
        immutable_until: None,
        snapshot: "4f6d3a90c1b2".to_owned() + &"0".repeat(52),
        damaged: false,
    };
    let mut points = Vec::new();
    for (service, data, n) in [
        ("orders", "db", 40),
        ("orders", "uploads", 40),
        (LONG_NAME, "db", 12),
        ("search", "db", 6),
    ] {
        for i in 0..n {
            let mut copies = vec![copy("near", "eu-west")];
            if i > 0 && service != "search" {
                copies.push(copy("far", "eu-north"));
            }
            points.push(RecoveryPoint {
                id: format!("p-{i}"),
                service: service.to_owned(),
                data: data.to_owned(),
                source: "postgres".to_owned(),
                data_time: now() - SignedDuration::from_secs(97 + i * 120),
                kind: BackupKind::Incremental,
                partial: i == 3,
                suspect: false,
                bytes: Some(1_299_227_607),
                copies,
                proof: (i > 2 && service == "orders").then(|| PointProof {
                    drill: "019a9c3e-77aa-7c11-8d00-00000000001a".to_owned(),
                    at: hours_ago(13 * 24),
                    how: "same-chain".to_owned(),
                }),
            });
        }
    }
    points
}

fn backups() -> Vec<BackupStats> {
    let stats = |service: &str, data: &str, runs, failed, missed| BackupStats {
        service: service.to_owned(),
        data: data.to_owned(),
        runs,
        failed,
        partial: u64::from(failed > 0),
        missed,
        last_run: Some(now() - SignedDuration::from_secs(97)),
        last_success: (runs > failed).then(|| now() - SignedDuration::from_secs(97)),
        last_error: (failed > 0)
            .then(|| "cannot reach postgresql://db.eu-west/orders: connection refused".to_owned()),
    };
    let mut never = stats("catalogue", "db", 0, 0, 64);
    never.last_run = None;
    vec![
        stats("orders", "db", 64_790, 3, 11),
        stats("orders", "uploads", 64_790, 0, 0),
        stats(LONG_NAME, "db", 2160, 0, 0),
        stats("search", "db", 2, 2, 0),
        never,
    ]
}

fn findings() -> Vec<Finding> {
    let finding = |code: &str, severity, path: &str, line, message: &str, help: &str| Finding {
        code: code.to_owned(),
        severity,
        path: path.to_owned(),
        line,
        column: 9,
        message: message.to_owned(),
        help: Some(help.to_owned()),
    };
    vec![
        finding(
            "rpo-unreachable",
            Severity::Error,
            "services.search.protect[0]",
            61,
            "backups every 1 h cannot keep an RPO of 30 min",
            "write every: 15m or weaken the objective",
        ),
        finding(
            "no-markers",
            Severity::Warning,
            "services.wiki",
            88,
            "no markers: the loss will not be measured",
            "add markers: {data: db, every: 1s}",
        ),
        finding(
            "tier-contradicts-itself",
            Severity::Note,
            "tiers.standard",
            12,
            "RTO 4 h and availability 99.99 % cannot both hold",
            "choose one",
        ),
    ]
}
