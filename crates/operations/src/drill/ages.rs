//! How old recovery points were when the disruption struck.
//!
//! A point carries the time of its data by the wall clock, which may have been stepped since. What
//! the ledger knows of a backup it knows by the machine's clock too: when that says otherwise, it
//! is right, and the point is as old as the beginning of its backup. Points of other machines, or
//! of before a restart, have their wall clock only.

use std::collections::HashMap;

use jiff::Timestamp;
use muster_model::drill::{PointUsed, RecoveryLoss};
use muster_plan::document::Service;

use crate::{
    error::OperationError,
    moment::Moment,
    records::{BackupEnded, Record},
    state::State,
};

/// How far two clocks of one machine drift apart, in seconds, without a step.
const DRIFT_S: f64 = 1.0;

/// How much older than the disruption the points of data items without markers are.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub(crate) fn ages(
    state: &State,
    service: &Service,
    points: &[PointUsed],
    impact: &Moment,
) -> Result<Vec<(String, f64)>, OperationError> {
    let history = state.history(&["backup-ended"])?;
    let backups: HashMap<(&str, &str), &BackupEnded> = history
        .iter()
        .filter_map(|logged| match &logged.record {
            Record::BackupEnded(ended) => Some(((&*ended.data, &*ended.point), ended)),
            _ => None,
        })
        .collect();
    let marked = service.markers.as_ref().map(|markers| markers.data.as_str());
    let unmarked = points.iter().filter(|point| Some(point.data.as_str()) != marked);
    let age = |point: &PointUsed| {
        let made = backups.get(&(point.data.as_str(), point.point.as_str()));
        age_s(point.data_time, made.copied(), impact)
    };
    Ok(unmarked.map(|point| (point.data.clone(), age(point))).collect())
}

fn age_s(data_time: Timestamp, made: Option<&BackupEnded>, impact: &Moment) -> f64 {
    let by_wall = impact.wall.duration_since(data_time).as_secs_f64().max(0.0);
    let Some((began, took_s)) = made.and_then(|made| Some((made.began.as_ref()?, made.took_s?)))
    else {
        return by_wall;
    };
    let most = began.seconds_until(impact).max(0.0);
    let is_stepped = by_wall > most + DRIFT_S || by_wall < most - took_s - DRIFT_S;
    if is_stepped { most } else { by_wall }
}

/// The latest time at which the wall clock called a backup done: after it was stepped back,
/// points that are there already seem to lie ahead.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub(super) fn latest(state: &State) -> Result<Option<Timestamp>, OperationError> {
    Ok(state.history(&["backup-ended"])?.iter().map(|logged| logged.at).max())
}

/// A loss that markers measured in one item bounds no other: the oldest point does.
pub(crate) fn widen(loss: &mut RecoveryLoss, ages: &[(String, f64)]) {
    if let Some(most) = &mut loss.actual_s_max {
        *most = ages.iter().map(|(_, age)| *age).fold(*most, f64::max);
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        process::this_process,
        records::{BackupEnded, BackupStarted},
    };

    /// A backup that began 10 s before the disruption and took 2 s; its data is of 9 s before.
    /// The wall clock was then stepped by so much.
    fn check(step_s: i64, is_known: bool, expected_s: f64) {
        let began = Moment::now();
        let started = BackupStarted {
            job: String::new(),
            service: String::new(),
            data: String::new(),
            repository: String::new(),
            point: String::new(),
            kind: muster_model::BackupKind::Full,
            process: this_process(),
        };
        let mut made = BackupEnded::of(&started);
        (made.began, made.took_s) = (is_known.then(|| began.clone()), Some(2.0));
        let impact = Moment {
            wall: began.wall + SignedDuration::from_secs(10 + step_s),
            boot_s: began.boot_s + 10.0,
            boot: began.boot.clone(),
        };
        let age = age_s(began.wall + SignedDuration::from_secs(1), Some(&made), &impact);
        assert!((age - expected_s).abs() < 1e-6, "{age} s after a step of {step_s} s");
    }

    #[test]
    fn a_step_of_the_wall_clock_makes_no_point_older_or_younger() {
        check(0, true, 9.0);
        check(3600, true, 10.0);
        check(-3600, true, 10.0);
    }

    #[test]
    fn without_the_machines_clock_the_wall_clock_is_believed() {
        check(3600, false, 3609.0);
        check(-3600, false, 0.0);
    }
}
