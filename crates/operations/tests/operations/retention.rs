//! A plan's `keep`, applied: what drills proved stays.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use muster_model::Verdict;
use muster_operations::{keeping, points, records::Record, workspace::Workspace};
use muster_repository::run::Run;

use crate::common::{Shop, records};

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
