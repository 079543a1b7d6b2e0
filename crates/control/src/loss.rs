//! What was lost, counted from data that came back.
//!
//! Markers are numbered, timestamped rows that were acknowledged before the disruption: the
//! writer had its commit and the ledger holds them. After the recovery they are read from the
//! recovered data. The newest one before which none is missing bounds the loss from above, the
//! first missing one bounds it from below. A missing marker with a later one present is a hole:
//! the data is then no prefix of what was written, whatever the bound says.

use std::collections::{HashMap, HashSet};

use muster_model::drill::MarkerCounts;

/// The identity of a marker: its writer and its number.
pub type MarkerId = (u128, u64);

/// A marker that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Written {
    /// Which one.
    pub id: MarkerId,
    /// Seconds from the marker's writing to the disruption.
    pub before_impact_s: f64,
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
/// acknowledged: they are no loss and no gain.
#[must_use]
pub fn measure(written: &[Written], found: &[MarkerId]) -> Loss {
    let mut written: Vec<Written> =
        written.iter().copied().filter(|marker| marker.before_impact_s >= 0.0).collect();
    written.sort_by(|a, b| b.before_impact_s.total_cmp(&a.before_impact_s).then(a.id.cmp(&b.id)));
    let present: HashSet<MarkerId> = found.iter().copied().collect();
    let is_lost = |marker: &Written| !present.contains(&marker.id);
    let first_missing = written.iter().position(is_lost);
    let lost: Vec<MarkerId> = written.iter().filter(|m| is_lost(m)).map(|m| m.id).collect();
    let last_present = written.iter().rposition(|marker| !is_lost(marker));
    let before_last = &written[..last_present.unwrap_or(0)];
    let counts = MarkerCounts {
        written: count(written.len()),
        recovered: count(written.len() - lost.len()),
        lost: count(lost.len()),
        holes: count(before_last.iter().filter(|marker| is_lost(marker)).count()),
        duplicates: duplicates(found),
    };
    let last_contiguous = match first_missing {
        Some(0) => None,
        Some(index) => written.get(index - 1),
        None => written.last(),
    };
    let s_min = match first_missing {
        Some(index) => written.get(index).map(|marker| marker.before_impact_s),
        None => written.last().map(|_| 0.0),
    };
    Loss { counts, s_min, s_max: last_contiguous.map(|marker| marker.before_impact_s), lost }
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
        let marker = |i| Written { id: (7, i), before_impact_s: last_s + (n - i) as f64 };
        (1..=n).map(marker).collect()
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
        late.push(Written { id: (7, 6), before_impact_s: -1.0 });
        assert_eq!(measure(&late, &found(&[1, 2, 3, 4, 5])).counts.written, 5);
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
