//! The plan that the documentation shows.

use muster_model::{Cadence, Disruption, ProbeCheck, SecretRef, Step, probe::Database};
use muster_plan::{Facts, document::DataSource, parse, show};
use std::time::Duration;

use crate::common::{check, lines, now, plan};

const TEXT: &str = include_str!("fixtures/product.yaml");

#[test]
fn it_comes_without_errors_and_with_exactly_these_findings() {
    assert_eq!(parse(TEXT).findings, []);
    let findings = check(TEXT, &Facts::default());
    assert_eq!(
        lines(&findings),
        [
            "9:3 warning never-proven services.orders",
            "10:11 note tier-contradicts-itself services.orders.tier",
            "17:7 note copies-3-2-1-1-0 services.orders.data.db",
            "17:7 note no-wal-archive services.orders.data.db",
            "17:7 warning restore-speed-unknown services.orders.data.db",
            "18:7 note copies-3-2-1-1-0 services.orders.data.uploads",
            "18:7 warning restore-speed-unknown services.orders.data.uploads",
        ]
    );
}

#[test]
fn it_means_what_it_says() {
    let plan = plan(TEXT);
    let orders = plan.service("orders").unwrap();
    assert_eq!(orders.objectives[&Disruption::HostLoss].rto, Some(Duration::from_secs(600)));
    assert_eq!(orders.objectives[&Disruption::HostLoss].rpo, Some(Duration::from_secs(300)));
    assert_eq!(orders.objectives[&Disruption::RegionLoss].rto, Some(Duration::from_secs(900)));
    assert!(!orders.objectives.contains_key(&Disruption::Ransomware));
    assert_eq!(orders.impact[1], (Duration::from_secs(3600), "40000 EUR".to_owned()));
    let DataSource::Postgres { url, password, .. } = &orders.data("db").unwrap().source else {
        panic!("db is PostgreSQL");
    };
    assert_eq!(url, "postgresql://orders@db.eu-west/orders");
    assert_eq!(password, &Some(SecretRef::File("./secrets/db".to_owned())));
    assert_eq!(orders.protect[0].cadence, Cadence::Every(Duration::from_secs(120)));
    assert_eq!(orders.protect[0].keep.monthly, Some(12));
    assert_eq!(orders.recover.iter().map(Step::verb).collect::<Vec<_>>(), ["restore", "start"]);
    assert_eq!(
        orders.acceptance.rows,
        [("db".to_owned(), vec!["orders".to_owned(), "customers".to_owned()])]
    );
    assert_eq!(plan.drills[0].timezone, "UTC");
    assert_eq!(plan.revision.len(), 64);
    let ledger = &orders.acceptance.probes[1];
    let ProbeCheck::Sql { database, expect, .. } = &ledger.check else { panic!("a query") };
    assert_eq!((database, expect), (&Database::OfData, &serde_json::json!(true)));
    assert_eq!((ledger.interval, ledger.timeout), (Duration::from_secs(1), Duration::from_secs(5)));
}

#[test]
fn it_is_shown_with_each_term_of_each_sum() {
    let plan = plan(TEXT);
    let mut facts = Facts::default();
    facts.backups.push(crate::common::backup(30, 10, 1000));
    let shown = show(&plan, &facts, now());
    let orders = &shown.services[0];
    assert_eq!(orders.downtime_budget_s, Some(259.2));
    let db = &orders.schedules[0];
    assert_eq!(
        (db.interval.s, db.longest_run.s, db.copy_lag.s),
        (Some(120.0), Some(30.0), Some(10.0))
    );
    assert_eq!((db.worst_s, db.worst_by_copy_s), (Some(150.0), Some(160.0)));
    let uploads = &orders.schedules[1];
    assert_eq!((uploads.longest_run.s, uploads.worst_s), (None, None));
    let survives = |copy: usize| orders.copies[copy].survives.contains(&Disruption::RegionLoss);
    assert_eq!((survives(0), survives(1)), (false, true));
    let host = orders.objectives.iter().find(|one| one.disruption == Disruption::HostLoss).unwrap();
    assert_eq!(
        (host.rto_from, host.rpo_from),
        (muster_plan::Origin::Service, muster_plan::Origin::Tier)
    );
    assert!(serde_json::to_value(&shown).is_ok());
}
