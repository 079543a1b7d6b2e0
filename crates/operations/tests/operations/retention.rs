//! A plan's `keep`, applied: what drills proved stays.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use muster_model::{Fault as _, Verdict};
use muster_operations::{
    keeping, points,
    records::Record,
    standstill,
    verify::{self, How},
    workspace::Workspace,
};
use muster_repository::{
    environment::Environment,
    lock::{Lock, LockKind},
    repository::Repository,
    run::Run,
    storage::LocalStorage,
};

use crate::common::{PASSWORD, Shop, records};

const LINE: &str = "every: 2m, to: near, copy: [far]}";

/// The times of the points of the database that are in a repository.
fn there(workspace: &Workspace, name: &str) -> BTreeSet<String> {
    let points = points::list(workspace, Some("orders")).unwrap().points;
    let of_database = points.into_iter().filter(|point| point.data == "db");
    of_database
        .filter(|point| point.copies.iter().any(|copy| copy.repository == name))
        .map(|point| point.id)
        .collect()
}

#[test]
fn after_sixty_days_without_backups_the_last_proven_point_is_still_there() {
    let keep = "every: 2m, to: near, copy: [far], keep: {last: 1}}";
    let shop = Shop::with("keep-proven", &[(LINE, keep)]);
    let workspace = shop.protected();
    let proven = there(&workspace, "far");
    assert_eq!(proven.len(), 1);
    shop.check(&workspace, Verdict::Pass, "");
    for _ in 0..3 {
        for report in shop.back_up(&workspace) {
            assert!(report.is_complete(), "{report:#?}");
        }
    }
    let all = there(&workspace, "far");
    assert!(all.len() >= 4, "{all:?}");

    let later = Timestamp::now() + SignedDuration::from_hours(60 * 24);
    for _ in 0..2 {
        let shown = keeping::propose(&workspace, "far", &[], later).unwrap();
        assert_eq!(shown.items.len(), 2, "{shown:#?}");
        if !shown.is_empty() {
            keeping::apply(&workspace, &shown, &[], later, &Run::new()).unwrap();
        }
        let kept = there(&workspace, "far");
        assert!(kept.len() == 2 && kept.is_superset(&proven), "{kept:?} of {all:?}");
    }
    // Nothing was applied to the other repository, and nothing that is left was harmed.
    assert!(there(&workspace, "near").len() >= 4);
    shop.check(&workspace, Verdict::Pass, "");
    assert!(!records(&workspace, &["drill-ended"]).is_empty());
}

/// The process that removed points died in the middle: the next look says in the ledger what it
/// got done, once, and what it left goes by a proposal of its own.
#[test]
fn a_removal_that_was_cut_off_is_settled() {
    let keep = "every: 2m, to: near, copy: [far], keep: {last: 1}}";
    let shop = Shop::with("keep-cut-off", &[(LINE, keep)]);
    let workspace = shop.protected();
    for _ in 0..3 {
        for report in shop.back_up(&workspace) {
            assert!(report.is_complete(), "{report:#?}");
        }
    }
    let now = Timestamp::now();
    let shown = keeping::propose(&workspace, "far", &[], now).unwrap();
    let going = shown.removed().count();
    assert!(going >= 2, "{shown:#?}");
    // As the ledger and the repository are when it is killed after the first removal.
    let index = workspace.state.record(&Record::KeepProposed(shown.clone())).unwrap();
    let first = shown.removed().next().unwrap().snapshot.clone();
    std::fs::remove_file(shop.path("far/snapshots").join(&first)).unwrap();

    let again = keeping::propose(&workspace, "far", &[], now).unwrap();
    let settled = applied(&workspace);
    assert_eq!((settled.len(), settled[0].proposal), (1, index));
    assert_eq!(settled[0].removed, [first]);
    assert!(settled[0].error.as_ref().is_some_and(|why| why.contains("died")), "{settled:?}");
    assert_eq!(again.removed().count(), going - 1);
    keeping::apply(&workspace, &again, &[], now, &Run::new()).unwrap();
    let done = applied(&workspace);
    assert_eq!((done.len(), done[1].removed.len(), &done[1].error), (2, going - 1, &None));
}

/// What became of proposals, as the ledger says.
fn applied(workspace: &Workspace) -> Vec<keeping::Applied> {
    let all = records(workspace, &["keep-applied"]).into_iter();
    let applied = |record| match record {
        Record::KeepApplied(applied) => Some(applied),
        _ => None,
    };
    all.filter_map(applied).collect()
}

#[test]
fn a_line_without_keep_keeps_everything() {
    let shop = Shop::open("keep-all");
    let workspace = shop.protected();
    for report in shop.back_up(&workspace) {
        assert!(report.is_complete(), "{report:#?}");
    }
    let all = there(&workspace, "near");
    let shown = keeping::propose(&workspace, "near", &[], Timestamp::now()).unwrap();
    assert!(shown.items.is_empty() && there(&workspace, "near") == all, "{all:?}");
}

/// A repository in which `keep` fails looks well: every backup does. `status` tells.
#[test]
fn a_keep_that_no_longer_goes_on_is_told_with_its_reason() {
    let keep = "every: 2m, to: near, copy: [far], keep: {last: 1}}";
    let shop = Shop::with("keep-stands", &[(LINE, keep)]);
    let workspace = shop.protected();
    drop(shop.back_up(&workspace));
    let hours = |hours| Timestamp::now() + SignedDuration::from_hours(hours);
    let found = |hours_later| standstill::find(&workspace, hours(hours_later)).unwrap();
    let try_near = || {
        let when = (Timestamp::now(), Duration::ZERO);
        keeping::keep_now(&workspace, "near", &[], when, &Run::new())
    };
    assert!(found(0).is_empty() && found(24 * 6).is_empty(), "{:?}", found(24 * 6));
    let left: Vec<_> = found(24 * 8).into_iter().map(|it| (it.repository, it.code)).collect();
    assert_eq!(left, [("near".to_owned(), None), ("far".to_owned(), None)], "no one applied it");

    // Somebody works there: that passes, or it does not.
    let storage = Arc::new(LocalStorage::new(shop.path("near")));
    let opened = Repository::open(storage, PASSWORD.as_bytes(), None).unwrap();
    let environment = Environment::detect();
    let lock = Lock::acquire(&opened, LockKind::Shared, Duration::ZERO, &environment, &Run::new())
        .unwrap();
    let before = Timestamp::now();
    for _ in 0..2 {
        assert_eq!(try_near().unwrap_err().code(), "locked");
    }
    assert_eq!(records(&workspace, &["keep-tried"]).len(), 1, "the same is written down once");
    assert!(found(0).is_empty());
    let [stands] = &found(25)[..] else { panic!("{:#?}", found(25)) };
    assert_eq!(
        (stands.what, &*stands.repository, &stands.services[..]),
        ("keep", "near", &["orders".to_owned()][..])
    );
    assert!(stands.since >= before && stands.last.is_none(), "{stands:#?}");
    assert_eq!(stands.code.as_deref(), Some("locked"));
    assert!(
        stands.help.contains("repo unlock") && stands.help.contains("muster forget"),
        "{stands:#?}"
    );
    lock.release().unwrap();
    assert!(try_near().unwrap().is_some());
    assert!(found(25).is_empty(), "{:#?}", found(25));

    // A snapshot that cannot be read does not mend itself: that is told at once.
    let broken = shop.path("near/snapshots").join("0".repeat(64));
    std::fs::write(&broken, "no snapshot").unwrap();
    assert_eq!(try_near().unwrap_err().code(), "file-damaged");
    let status = muster_operations::status::status(&workspace).unwrap();
    let [stands] = &status.standstill[..] else { panic!("{:#?}", status.standstill) };
    assert_eq!(stands.code.as_deref(), Some("file-damaged"));
    assert!(stands.why.starts_with("cannot ") && stands.last.is_some(), "{stands:#?}");
    std::fs::remove_file(&broken).unwrap();
    assert!(try_near().unwrap().is_none());
    assert!(found(0).is_empty());
}

/// Readings that fail are told when they go on failing, with the reason.
#[test]
fn readings_that_fail_for_a_day_are_told() {
    let far = "far: {url: ./far, verify: {within: 30d}, region";
    let shop = Shop::with("verify-stands", &[("far: {url: ./far, region", far)]);
    let workspace = shop.protected();
    verify::verify(&workspace, "far", How::default(), &Run::new()).unwrap();
    std::fs::rename(shop.path("far"), shop.path("elsewhere")).unwrap();
    for _ in 0..2 {
        verify::verify(&workspace, "far", How::default(), &Run::new()).unwrap_err();
    }
    let found = |hours| {
        standstill::find(&workspace, Timestamp::now() + SignedDuration::from_hours(hours)).unwrap()
    };
    assert!(found(23).is_empty(), "{:?}", found(23));
    let [stands] = &found(25)[..] else { panic!("{:#?}", found(25)) };
    assert_eq!((stands.what, &*stands.repository), ("verify", "far"));
    assert!(stands.last.is_some_and(|last| last <= stands.since), "{stands:#?}");
    assert!(stands.help.contains("`muster verify far`"), "{stands:#?}");
    std::fs::rename(shop.path("elsewhere"), shop.path("far")).unwrap();
    verify::verify(&workspace, "far", How::default(), &Run::new()).unwrap();
    assert!(found(25).is_empty());
}
