//! Classes of data are floors: they add to what lines say, and nothing weakens them.

use muster_model::Severity;
use muster_plan::{Facts, diff, document::BackupFact, show};

use crate::common::{backup, check, now, of_code, plan};

const PLAN: &str = "muster: 1
name: shop
regions: [west, north]
repositories:
  near: {url: ./near, region: west, verify: {within: 60d, budget: 10m}, limits: {upload: 20MiB/s}}
  far: {url: ./far, region: north}
classes:
  personal: {keep: {within: 1y}, copy: [far], verify: {within: 30d}, residency: [west, north]}
services:
  orders:
    region: west
    data:
      db: {sqlite: orders.db, class: personal}
      logs: {files: ./logs}
    protect:
      - {data: db, every: 15m, to: near, keep: {last: 3, within_daily: 7d, tags: [important]}}
      - {data: logs, every: 15m, to: near}
";

#[test]
fn a_class_adds_copies_kept_points_and_reading_back() {
    let plan = plan(PLAN);
    let service = plan.service("orders").unwrap();
    assert_eq!(service.protect[0].copy, ["far"]);
    assert!(service.protect[1].copy.is_empty(), "logs are of no class");
    let shown = show(&plan, &Facts::default(), now());
    let policies = &shown.services[0].policies;
    let far = policies.iter().find(|policy| policy.repository == "far").unwrap();
    assert_eq!(far.copy_from, "class personal");
    let keep: Vec<String> =
        far.keep.iter().map(|said| format!("{} by {}", said.rule, said.from)).collect();
    assert_eq!(
        keep,
        ["last 3, within_daily 7d, tags important by line", "within 1y by class personal"]
    );
    // The shorter period holds, whoever says it.
    let (verify, classes) = plan.verify_of("near").unwrap();
    assert_eq!((verify.within.as_secs(), classes), (30 * 86_400, vec!["personal"]));
    assert_eq!(verify.budget.unwrap().as_secs(), 600);
    let logs = policies.iter().find(|policy| policy.data == "logs").unwrap();
    assert_eq!(logs.keep[0].rule, "everything");
}

#[test]
fn a_line_without_keep_keeps_everything_whatever_the_class_says() {
    let plan = plan(&PLAN.replace(", keep: {last: 3, within_daily: 7d, tags: [important]}", ""));
    let service = plan.service("orders").unwrap();
    assert_eq!(plan.keeps(service, service.data("db").unwrap(), "near"), None);
}

#[test]
fn a_keep_that_keeps_nothing_is_refused_where_it_stands() {
    let check = |keep: &str, expected: &[&str]| {
        let text = PLAN.replace("{last: 3, within_daily: 7d, tags: [important]}", keep);
        let found = of_code(&text, "bad-value");
        let paths: Vec<&str> = found.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, expected, "{keep}");
        found.into_iter().next()
    };
    let found = check("{last: 0}", &["services.orders.protect[0].keep.last"]).unwrap();
    let line = PLAN.lines().position(|line| line.contains("keep: {last: 3")).unwrap();
    let column = PLAN.lines().nth(line).unwrap().find("3, within_daily").unwrap();
    assert_eq!((found.line, found.column), (line + 1, column + 1));
    check("{daily: 0, weekly: 0}", &["services.orders.protect[0].keep.daily"]);
    check("{last: 0, daily: 7}", &[]);
    check("{last: 0, within: 30d}", &[]);
    check("{}", &[]);
}

#[test]
fn only_an_exception_weakens_a_class_and_it_shows() {
    let narrow = PLAN.replace("residency: [west, north]", "residency: [west]");
    let found = of_code(&narrow, "outside-residency");
    assert_eq!(found.len(), 1);
    assert!(found[0].message.contains("far (north)"), "{found:?}");
    let waived = format!(
        "{narrow}exceptions:\n  - {{service: orders, waives: outside-residency, until: 2027-01-31, \
         reason: moving}}\n"
    );
    let found = of_code(&waived, "outside-residency");
    assert_eq!(found[0].severity, Severity::Note);
    assert!(found[0].message.contains("waived until 2027-01-31"), "{found:?}");
}

#[test]
fn what_a_class_names_must_exist() {
    for (from, to) in [
        ("class: personal", "class: persnal"),
        ("copy: [far]", "copy: [fra]"),
        ("residency: [west, north]", "residency: [nroth]"),
    ] {
        assert_eq!(of_code(&PLAN.replace(from, to), "unknown-reference").len(), 1, "{to}");
    }
}

#[test]
fn hooks_of_a_class_stand_around_those_of_the_line() {
    let text = PLAN
        .replace("personal: {keep", "personal: {before: {run: [quiesce], timeout: 5m}, keep")
        .replace("- {data: db, every", "- {data: db, before: {run: [freeze]}, every");
    let read = plan(&text);
    let service = read.service("orders").unwrap();
    let names = |at: usize| {
        let line = &service.protect[at];
        let hooks = read.hooks_of(service, line, &line.data).into_iter();
        let names = hooks.map(|(class, hooks)| {
            let before = hooks.before.as_ref().map(|hook| hook.argv[0].clone());
            (class.map(str::to_owned), before)
        });
        names.collect::<Vec<_>>()
    };
    let of = |class: Option<&str>, program: Option<&str>| {
        (class.map(str::to_owned), program.map(str::to_owned))
    };
    assert_eq!(names(0), [of(Some("personal"), Some("quiesce")), of(None, Some("freeze"))]);
    assert_eq!(names(1), [of(None, None)], "logs are of no class");
    let changes = diff(&read, &plan(&text.replace("before: {run: [quiesce], timeout: 5m}, ", "")));
    assert!(changes.len() == 1 && changes[0].weakens, "{changes:#?}");
}

#[test]
fn a_weaker_class_is_a_weaker_plan() {
    let weaker = |from: &str, to: &str| {
        let changes = diff(&plan(PLAN), &plan(&PLAN.replace(from, to)));
        assert!(changes.iter().any(|change| change.weakens), "{from} to {to}: {changes:#?}");
    };
    weaker("within: 1y", "within: 6m");
    weaker(", class: personal", "");
    weaker("verify: {within: 60d", "verify: {within: 90d");
    weaker("within_daily: 7d", "within_daily: 3d");
    weaker(", tags: [important]", "");
}

#[test]
fn a_limit_of_download_bounds_the_recovery_time() {
    let promised = PLAN
        .replace(
            "    region: west\n",
            "    region: west\n    objectives: {region-loss: {rto: 10m}}\n",
        )
        .replace(
            "far: {url: ./far, region: north}",
            "far: {url: ./far, region: north, limits: {download: 1MiB/s}}",
        );
    let facts = Facts {
        backups: vec![BackupFact { bytes: 10 << 30, ..backup(1, 1, 1) }],
        ..Facts::default()
    };
    let mut found = check(&promised, &facts);
    found.retain(|finding| finding.code == "rto-unreachable");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].message.contains("'db' (10.0 GiB) at 1.00 MiB/s"), "{found:?}");
    assert_eq!(of_code(&promised, "rto-unreachable"), [], "of an unknown size nothing is said");
}

#[test]
fn an_archive_delays_a_recovery_and_must_be_allowed_to_bring_back() {
    let promised = |rto: &str, far: &str, region: &str| {
        let objective = format!("    region: west\n    objectives: {{{region}: {{rto: {rto}}}}}\n");
        let far = format!("far: {{url: \"s3:https://example.org/far\", region: north, {far}}}");
        let text = PLAN.replace("    region: west\n", &objective);
        text.replace("far: {url: ./far, region: north}", &far)
    };
    let found = |plan: &str| {
        let found = check(plan, &Facts::default());
        let found = found.into_iter().filter(|it| it.message.contains("archive"));
        found.map(|it| (it.code, it.message)).collect::<Vec<_>>()
    };
    let glacier = "warm_up: 1d, options: {s3.storage-class: GLACIER}";
    let late = found(&promised("4h", glacier, "region-loss"));
    assert_eq!(late.len(), 1, "{late:#?}");
    assert_eq!(late[0].0, "rto-unreachable");
    assert!(late[0].1.contains("'db' lies in an archive, which takes up to 5h"), "{late:?}");
    assert!(!late[0].1.contains("warm_up"), "{late:?}");
    assert_eq!(found(&promised("6h", glacier, "region-loss")), []);
    let deep = "options: {s3.storage-class: DEEP_ARCHIVE, s3.restore-tier: bulk}";
    let refused = found(&promised("3d", deep, "region-loss"));
    assert!(refused[0].1.contains("up to 2d 00h to bring it back, and no warm_up"), "{refused:?}");
    let quick = "warm_up: 1h, options: {s3.storage-class: GLACIER, s3.restore-tier: expedited}";
    assert_eq!(found(&promised("10m", quick, "region-loss")), []);
    let at_once = "options: {s3.storage-class: GLACIER_IR}";
    assert_eq!(found(&promised("1m", at_once, "region-loss")), []);
    let near_survives = found(&promised("1m", deep, "operator-error"));
    assert_eq!(near_survives, [], "a copy that can be read at once is left");
}
