//! The wall clock may be stepped in the middle of everything: no duration follows it.

use jiff::{SignedDuration, Timestamp};
use muster_model::Verdict;
use muster_operations::{
    moment::Moment,
    records::{MarkerRecord, Record},
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::common::Shop;

/// A moment at which the wall clock is wrong by so much.
fn stepped(moment: &Moment, seconds: i64) -> Moment {
    Moment { wall: moment.wall + SignedDuration::from_secs(seconds), ..moment.clone() }
}

proptest! {
    /// Whatever the wall clock does between two moments of one boot, the time between them is
    /// what the machine's clock says, and adds up.
    #[test]
    fn durations_follow_the_machine(
        boots in prop::collection::vec((0.0..1e6_f64, -86_400..86_400_i64), 3)
    ) {
        let now = Moment::now();
        let at = |(s, step): &(f64, i64)| stepped(&Moment { boot_s: now.boot_s + s, ..now.clone() }, *step);
        let moments: Vec<Moment> = boots.iter().map(at).collect();
        let length = |a: usize, b: usize| moments[a].seconds_until(&moments[b]);
        prop_assert!((length(0, 1) - (boots[1].0 - boots[0].0)).abs() < 1e-6);
        prop_assert!((length(0, 1) + length(1, 2) - length(0, 2)).abs() < 1e-6);
        prop_assert!((length(0, 1) + length(1, 0)).abs() < 1e-9);
    }

    /// An impact that the operator names is as long ago as they say, by both clocks.
    #[test]
    fn an_earlier_moment_is_earlier_by_both_clocks(before_s in 0..1_000_000_i64) {
        let now = Moment::now();
        let wall = now.wall - SignedDuration::from_secs(before_s);
        let earlier = now.earlier(wall);
        prop_assert_eq!(earlier.wall, wall);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let expected = before_s as f64;
        prop_assert!((earlier.seconds_until(&now) - expected).abs() < 1e-6);
    }
}

/// Markers that were written while the wall clock was wrong by an hour, either way: one that
/// came back and one that did not.
#[test]
fn a_step_between_marker_and_impact_changes_no_loss() {
    let shop = Shop::open("stepped");
    let workspace = shop.protected();
    let writer = Uuid::new_v4();
    let mark = |n: u64, step_s: i64, is_in_data: bool| {
        let at = stepped(&Moment::now(), step_s);
        if is_in_data {
            let insert = "INSERT INTO muster_marker VALUES (?1, ?2, ?3)";
            let n = i64::try_from(n).unwrap();
            let row = (writer.to_string(), n, at.wall.to_string());
            shop.database().execute(insert, row).unwrap();
        }
        let (service, data) = ("orders".to_owned(), "db".to_owned());
        let marker = MarkerRecord { service, data, writer, n, at, acknowledged: None };
        workspace.state.record(&Record::Marker(marker)).unwrap();
    };
    let begun = Moment::now();
    mark(1, 3600, true);
    mark(2, -3600, true);
    drop(shop.back_up(&workspace));
    mark(3, 3600, false);
    mark(4, -3600, false);
    let result = shop.check(&workspace, Verdict::Pass, "");
    let since_s = begun.seconds_until(&Moment::now());
    let most = result.recovery_point.actual_s_max.unwrap();
    assert!((0.0..=since_s).contains(&most), "{most} s of {since_s} s");
    let counts = result.markers.unwrap();
    assert_eq!(counts.holes, 0, "{counts:?}");
    assert!(counts.lost >= 2 && counts.recovered >= 4, "{counts:?}");
    let drilled = result.ended.duration_since(result.started).as_secs_f64();
    assert!(result.recovery_time.actual_s.unwrap() < drilled);
    assert!(result.started <= Timestamp::now());
}
