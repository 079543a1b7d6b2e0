//! What was lost, counted from data that came back.
//!
//! Markers are numbered, timestamped rows that were acknowledged before the disruption: the
//! writer had its commit and the ledger holds them. After the recovery they are read from the
//! recovered data. Each was committed between the moment when its writing began and the one when it
//! was acknowledged, so of two markers of different writers it is only known which was first when
//! one was acknowledged before the other was begun; one writer writes them in the order of their
//! numbers.
//!
//! The newest marker that came back and before which surely none is missing bounds the loss from
//! above, the first acknowledgement of a missing one bounds it from below. A missing marker with
//! one present that surely came later is a hole: the data is then no prefix of what was written,
//! whatever the bound says.

use std::collections::{HashMap, HashSet};

use muster_model::drill::MarkerCounts;

/// The identity of a marker: its writer and its number.
pub type MarkerId = (u128, u64);

/// A marker that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Written {
    /// Which one.
    pub id: MarkerId,
    /// Seconds from the moment when its writing began to the disruption.
    pub before_impact_s: f64,
    /// Seconds from its acknowledgement to the disruption; negative if that came later.
    pub acknowledged_before_s: f64,
}

/// What the markers tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// The count.
    pub counts: MarkerCounts,
    /// At least so many seconds were lost; `None` without markers.
    pub s_min: Option<f64>,
    /// At most so many seconds were lost; `None` when nothing bounds it.
    pub s_max: Option<f64>,
    /// The acknowledged markers that did not come back, oldest first.
    pub lost: Vec<MarkerId>,
}

/// Compares what was written with what was found. `found` may hold markers that nobody
/// acknowledged before the disruption: they are no loss and no gain.
#[must_use]
pub fn measure(written: &[Written], found: &[MarkerId]) -> Loss {
    let mut written: Vec<Written> =
        written.iter().copied().filter(|marker| marker.acknowledged_before_s >= 0.0).collect();
    written.sort_by(|a, b| b.before_impact_s.total_cmp(&a.before_impact_s).then(a.id.cmp(&b.id)));
    let came_back: HashSet<MarkerId> = found.iter().copied().collect();
    let (present, lost): (Vec<Written>, Vec<Written>) =
        written.iter().partition(|marker| came_back.contains(&marker.id));
    let present_order = Order::of(&present);
    let holes = lost.iter().filter(|marker| present_order.surely_goes_on_after(marker)).count();
    let lost_order = Order::of(&lost);
    let whole_until = present.iter().filter(|marker| !lost_order.surely_begins_before(marker));
    Loss {
        counts: MarkerCounts {
            written: count(written.len()),
            recovered: count(present.len()),
            lost: count(lost.len()),
            holes: count(holes),
            duplicates: duplicates(found),
        },
        s_min: lost_order.first_acknowledged_s.or(written.last().map(|_| 0.0)),
        s_max: whole_until.map(|marker| marker.before_impact_s).min_by(f64::total_cmp),
        lost: lost.iter().map(|marker| marker.id).collect(),
    }
}

/// What is known of the order of some markers.
struct Order {
    /// The first and the last number of each writer.
    numbers: HashMap<u128, (u64, u64)>,
    /// Seconds from the first acknowledgement to the disruption.
    first_acknowledged_s: Option<f64>,
    /// Seconds from the last beginning to the disruption.
    last_begun_s: Option<f64>,
}

impl Order {
    fn of(markers: &[Written]) -> Self {
        let mut numbers: HashMap<u128, (u64, u64)> = HashMap::new();
        for &Written { id: (writer, n), .. } in markers {
            let (first, last) = numbers.entry(writer).or_insert((n, n));
            (*first, *last) = (n.min(*first), n.max(*last));
        }
        let acknowledged = markers.iter().map(|marker| marker.acknowledged_before_s);
        let begun = markers.iter().map(|marker| marker.before_impact_s);
        Self {
            numbers,
            first_acknowledged_s: acknowledged.max_by(f64::total_cmp),
            last_begun_s: begun.min_by(f64::total_cmp),
        }
    }

    /// One of them was surely written after this one.
    fn surely_goes_on_after(&self, marker: &Written) -> bool {
        let (writer, n) = marker.id;
        self.numbers.get(&writer).is_some_and(|&(_, last)| last > n)
            || self.last_begun_s.is_some_and(|begun_s| begun_s < marker.acknowledged_before_s)
    }

    /// One of them was surely written before this one.
    fn surely_begins_before(&self, marker: &Written) -> bool {
        let (writer, n) = marker.id;
        self.numbers.get(&writer).is_some_and(|&(first, _)| first < n)
            || self.first_acknowledged_s.is_some_and(|first_s| first_s > marker.before_impact_s)
    }
}

fn duplicates(found: &[MarkerId]) -> u64 {
    let mut times: HashMap<MarkerId, u64> = HashMap::new();
    for id in found {
        *times.entry(*id).or_default() += 1;
    }
    times.values().map(|times| times - 1).sum()
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Markers 1..=n, one a second, the last `last_s` before the impact.
    fn written(n: u64, last_s: f64) -> Vec<Written> {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let marker = |i| marker((7, i), last_s + (n - i) as f64, 0.0);
        (1..=n).map(marker).collect()
    }

    /// One whose writing took some seconds.
    fn marker(id: MarkerId, before_impact_s: f64, took_s: f64) -> Written {
        Written { id, before_impact_s, acknowledged_before_s: before_impact_s - took_s }
    }

    fn found(numbers: &[u64]) -> Vec<MarkerId> {
        numbers.iter().map(|n| (7, *n)).collect()
    }

    fn check(numbers: &[u64], counts: [u64; 5], bound: (Option<f64>, Option<f64>)) {
        let loss = measure(&written(5, 0.5), &found(numbers));
        let c = &loss.counts;
        assert_eq!([c.written, c.recovered, c.lost, c.holes, c.duplicates], counts);
        assert_eq!((loss.s_min, loss.s_max), bound);
    }

    #[test]
    fn loss_is_a_bound_and_a_count() {
        check(&[1, 2, 3, 4, 5], [5, 5, 0, 0, 0], (Some(0.0), Some(0.5)));
        check(&[1, 2, 3], [5, 3, 2, 0, 0], (Some(1.5), Some(2.5)));
        check(&[], [5, 0, 5, 0, 0], (Some(4.5), None));
    }

    #[test]
    fn holes_and_duplicates_are_told_apart() {
        check(&[1, 2, 4, 5], [5, 4, 1, 1, 0], (Some(2.5), Some(3.5)));
        check(&[1, 1, 2, 2, 2, 3, 4, 5], [5, 5, 0, 0, 3], (Some(0.0), Some(0.5)));
        check(&[2, 3], [5, 2, 3, 1, 0], (Some(4.5), None));
    }

    #[test]
    fn what_nobody_acknowledged_is_no_loss_and_no_gain() {
        check(&[1, 2, 3, 4, 5, 6], [5, 5, 0, 0, 0], (Some(0.0), Some(0.5)));
        let mut late = written(5, 0.5);
        late.push(marker((7, 6), -1.0, 0.0));
        late.push(marker((7, 7), 0.1, 0.2));
        assert_eq!(measure(&late, &found(&[1, 2, 3, 4, 5])).counts.written, 5);
    }

    /// Two writers at once: one waited for a lock while the other went on, and the copy was taken in
    /// between.
    #[test]
    fn who_waited_while_another_wrote_left_no_hole() {
        let waited = marker((1, 1), 3.0, 2.0);
        let others = [marker((2, 1), 4.0, 0.1), marker((2, 2), 2.5, 0.1)];
        let all = [others[0], waited, others[1]];
        let loss = measure(&all, &[(2, 1), (2, 2)]);
        assert_eq!((loss.counts.lost, loss.counts.holes), (1, 0));
        assert_eq!((loss.s_min, loss.s_max), (Some(1.0), Some(2.5)));
        // One that began when it had been acknowledged is surely later.
        let later = [all[0], all[1], all[2], marker((2, 3), 0.9, 0.1)];
        let loss = measure(&later, &[(2, 1), (2, 2), (2, 3)]);
        assert_eq!((loss.counts.lost, loss.counts.holes), (1, 1));
        assert_eq!((loss.s_min, loss.s_max), (Some(1.0), Some(2.5)));
    }

    #[test]
    fn without_markers_nothing_is_known() {
        let loss = measure(&[], &found(&[1]));
        assert_eq!((loss.s_min, loss.s_max), (None, None));
    }

    proptest! {
        #[test]
        fn counts_add_up_and_the_bound_is_one(present in proptest::collection::vec(1_u64..20, 0..40)) {
            let loss = measure(&written(15, 0.25), &found(&present));
            prop_assert_eq!(loss.counts.recovered + loss.counts.lost, loss.counts.written);
            prop_assert!(loss.counts.holes <= loss.counts.lost);
            prop_assert_eq!(loss.counts.lost, loss.lost.len() as u64);
            if let (Some(min), Some(max)) = (loss.s_min, loss.s_max) {
                prop_assert!(min <= max);
            }
        }
    }
}
