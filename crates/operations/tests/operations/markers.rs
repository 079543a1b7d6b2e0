//! Loss is counted from the data that came back, and the count is what anybody else would count.

use std::{collections::BTreeSet, sync::Mutex, thread, time::Duration};

use muster_model::{Disruption, DrillResult, Verdict, units::counted};
use muster_operations::{
    drill, looping,
    moment::Moment,
    protect::Selection,
    records::{MarkerRecord, Record},
    restore::{RestoreRequest, restore},
    story::{Chapter, Listener},
    workspace::Workspace,
};
use muster_repository::run::Run;
use muster_sources::RestoreSettings;
use muster_testkit::wait_for;
use rusqlite::Connection;

use crate::common::{PATIENCE, Shop, records, request};

fn written(workspace: &Workspace) -> Vec<MarkerRecord> {
    let markers = records(workspace, &["marker"]).into_iter();
    markers
        .filter_map(|record| match record {
            Record::Marker(marker) => Some(marker),
            _ => None,
        })
        .collect()
}

/// The markers in the point that a drill used: restored by another verb, read by our own SQL.
fn came_back(shop: &Shop, workspace: &Workspace, result: &DrillResult) -> Vec<(String, u64)> {
    let used = result.points.iter().find(|point| point.data == "db").unwrap();
    let to = shop.path(&format!("counted-{}", result.number));
    let request = RestoreRequest {
        name: "orders/db".to_owned(),
        to: to.clone(),
        at: None,
        point: Some(used.point.clone()),
        accept_partial: false,
        settings: RestoreSettings::default(),
    };
    assert_eq!(restore(workspace, &request, &Run::new()).unwrap().items.len(), 1);
    let database = Connection::open(to.join("shop.db")).unwrap();
    let mut select = database.prepare("SELECT writer, n FROM muster_marker").unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?))).unwrap();
    rows.map(Result::unwrap).map(|(writer, n)| (writer, u64::try_from(n).unwrap())).collect()
}

/// Compares what a drill told of markers with a count of our own.
#[track_caller]
fn check_count(shop: &Shop, workspace: &Workspace, result: &DrillResult) {
    let found = came_back(shop, workspace, result);
    let present: BTreeSet<(String, u64)> = found.iter().cloned().collect();
    let is_before = |m: &MarkerRecord| m.acknowledged().wall <= result.started;
    let before: Vec<MarkerRecord> = written(workspace).into_iter().filter(is_before).collect();
    let is_lost = |m: &&MarkerRecord| !present.contains(&(m.writer.to_string(), m.n));
    let lost: Vec<&MarkerRecord> = before.iter().filter(is_lost).collect();
    let counts = result.markers.as_ref().unwrap();
    assert_eq!(counts.written, u64::try_from(before.len()).unwrap(), "{result:#?}");
    assert_eq!(counts.lost, u64::try_from(lost.len()).unwrap(), "{result:#?}");
    assert_eq!(counts.recovered, counts.written - counts.lost);
    assert_eq!(counts.duplicates, u64::try_from(found.len() - present.len()).unwrap());
    let last_present = before.iter().rposition(|m| !is_lost(&m)).unwrap();
    let holes = before[..last_present].iter().filter(is_lost).count();
    assert_eq!(counts.holes, u64::try_from(holes).unwrap());
    // The bound in seconds, by the wall clock, which nobody steps here.
    let age = |at: &Moment| result.started.duration_since(at.wall).as_secs_f64();
    let least = lost.first().map_or(0.0, |m| age(m.acknowledged()));
    assert!((result.recovery_point.actual_s_min.unwrap() - least).abs() < 0.05, "{result:#?}");
    let first_lost = before.iter().position(|m| is_lost(&m)).unwrap_or(before.len());
    let most = age(&before[first_lost - 1].at);
    assert!((result.recovery_point.actual_s_max.unwrap() - most).abs() < 0.05, "{result:#?}");
}

#[test]
fn the_markers_told_as_lost_are_those_that_anybody_misses() {
    let shop = Shop::open("markers-lost");
    let workspace = shop.protected();
    let result = shop.check(&workspace, Verdict::Pass, "");
    let counts = result.markers.as_ref().unwrap();
    assert!(counts.lost >= 2 && counts.recovered >= 1, "{counts:?}");
    check_count(&shop, &workspace, &result);
    // Again, with what the first drill wrote now in the backup.
    drop(shop.back_up(&workspace));
    let result = shop.check(&workspace, Verdict::Pass, "");
    check_count(&shop, &workspace, &result);
}

#[test]
fn a_hole_in_what_came_back_is_found() {
    let shop = Shop::open("markers-hole");
    let workspace = shop.protected();
    drop(shop.back_up(&workspace));
    let removed = "DELETE FROM muster_marker WHERE rowid IN (SELECT rowid FROM muster_marker LIMIT 2 OFFSET 1)";
    assert_eq!(shop.database().execute(removed, []).unwrap(), 2);
    drop(shop.back_up(&workspace));
    let result = shop.check(&workspace, Verdict::Fail, "2 markers are missing between others");
    assert_eq!(result.markers.as_ref().unwrap().holes, 2);
    check_count(&shop, &workspace, &result);
}

#[test]
fn a_marker_that_came_back_twice_is_found() {
    let shop = Shop::open("markers-twice");
    let workspace = shop.protected();
    let again = "INSERT INTO muster_marker SELECT * FROM muster_marker";
    let duplicates = shop.database().execute(again, []).unwrap();
    drop(shop.back_up(&workspace));
    let reason = format!("{} came back twice", counted(duplicates, "marker"));
    let result = shop.check(&workspace, Verdict::Fail, &reason);
    check_count(&shop, &workspace, &result);
}

#[test]
fn markers_of_folders_are_counted_too() {
    let shop = Shop::with("markers-folder", &[("markers: {data: db,", "markers: {data: uploads,")]);
    let workspace = shop.protected();
    let result = shop.check(&workspace, Verdict::Pass, "");
    let counts = result.markers.unwrap();
    assert_eq!(counts.written, u64::try_from(written(&workspace).len()).unwrap());
    assert!(counts.recovered >= 1 && counts.lost >= 2, "{counts:?}");
}

#[test]
fn a_commit_that_the_ledger_does_not_hold_counts_for_nothing() {
    let shop = Shop::open("markers-unheld");
    let workspace = shop.protected();
    let writer = written(&workspace)[0].writer.to_string();
    let insert = "INSERT INTO muster_marker VALUES (?1, 1000, '2026-01-01T00:00:00Z')";
    shop.database().execute(insert, [writer]).unwrap();
    drop(shop.back_up(&workspace));
    let result = shop.check(&workspace, Verdict::Pass, "");
    check_count(&shop, &workspace, &result);
}

#[test]
fn looping_writes_markers_at_their_rate() {
    const MARKERS: usize = 12;
    let shop =
        Shop::with("markers-loop", &[("every: 2m", "every: 1d"), ("every: 50ms", "every: 80ms")]);
    let workspace = shop.workspace();
    let run = Run::new();
    thread::scope(|scope| {
        let looped = scope.spawn(|| {
            looping::run(
                &workspace,
                &Selection::default(),
                looping::LoopOptions::default(),
                &run,
                &|_| {},
            )
        });
        let enough = || (written(&workspace).len() >= MARKERS).then_some(());
        wait_for("a dozen markers", PATIENCE, enough).unwrap();
        run.cancel.request("enough");
        looped.join().unwrap().unwrap();
    });
    let markers = written(&workspace);
    let numbers: Vec<u64> = markers.iter().map(|m| m.n).collect();
    let first = numbers[0];
    let expected: Vec<u64> = (first..).take(numbers.len()).collect();
    assert_eq!(numbers, expected, "one writer counts on");
    // Two for each of two snapshots may come in between; never faster than that.
    let took = markers[0].at.seconds_until(&markers[markers.len() - 1].at);
    let ticks = u32::try_from(markers.len() - 5).unwrap();
    assert!(took >= f64::from(ticks) * 0.08 * 0.9, "{took} s for {} markers", markers.len());
    let backed_up = shop.drill(&workspace, Disruption::RegionLoss).unwrap();
    assert_eq!(backed_up.verdict, Verdict::Pass, "{backed_up:#?}");
}

/// Holds production's database from the first marker on, until one was refused.
struct Busy<'s> {
    shop: &'s Shop,
    held: Mutex<Option<Connection>>,
}

impl Listener for Busy<'_> {
    fn hear(&self, chapter: &Chapter<'_>) {
        let mut held = self.held.lock().unwrap();
        match chapter {
            Chapter::Marking { .. } => {
                let database = self.shop.database();
                database.execute_batch("BEGIN IMMEDIATE").unwrap();
                *held = Some(database);
            }
            Chapter::MarkerMissed { .. } => *held = None,
            _ => {}
        }
    }
}

#[test]
fn a_marker_that_a_busy_database_refuses_ends_no_drill() {
    let shop = Shop::open("busy-markers");
    let workspace = shop.protected();
    let busy = Busy { shop: &shop, held: Mutex::default() };
    let mut asked = request(Disruption::RegionLoss);
    // Longer than a refusal takes.
    asked.marking = Duration::from_secs(3);
    let result = drill::run(&workspace, &asked, &busy, &Run::new()).unwrap();
    assert_eq!(result.verdict, Verdict::Pass, "{result:#?}");
    let markers = result.markers.unwrap();
    assert_eq!((markers.holes, markers.duplicates), (0, 0));
    assert!(markers.lost > 1, "those after the refusal: {markers:?}");
}
