//! Points are told apart by their ids, whatever the clock does.

use std::{collections::BTreeMap, fs, thread};

use muster_model::BackupKind;
use muster_repository::{
    backup::{BackupOptions, backup},
    environment::Environment,
    format::time::Timestamp,
    id::SnapshotId,
    run::Run,
};
use muster_sources::{SourceKind, source_kind};

use crate::common::{Sandbox, files};

/// The snapshot of each point, as the repository alone tells.
fn by_point(sandbox: &Sandbox) -> BTreeMap<String, SnapshotId> {
    let snapshots = sandbox.repository.snapshots().unwrap();
    let points = snapshots.into_iter().map(|(id, snapshot)| {
        assert_eq!(source_kind(&snapshot), Some(SourceKind::Files));
        let tag = snapshot.tags.iter().find_map(|tag| tag.strip_prefix("muster:point="));
        (tag.unwrap().to_owned(), id)
    });
    points.collect()
}

#[test]
fn a_hundred_starts_in_a_row_are_a_hundred_exact_points() {
    const THREADS: usize = 4;
    const EACH: usize = 25;
    let sandbox = Sandbox::new("hundred");
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let sandbox = &sandbox;
            scope.spawn(move || {
                let folder = sandbox.folder(&format!("source-{thread}"));
                for n in 0..EACH {
                    let point = format!("{thread:02}-{n:03}");
                    // Always the same length, and often the same tick of the file's clock.
                    fs::write(folder.join("content"), &point).unwrap();
                    let (request, environment) = (sandbox.request(&point), Environment::detect());
                    let captured = files(&[&folder])
                        .back_up(&sandbox.repository, &request, &environment, &Run::new())
                        .unwrap();
                    assert!(captured.left_out.is_empty());
                }
            });
        }
    });
    let points = by_point(&sandbox);
    assert_eq!(points.len(), THREADS * EACH);
    for (point, id) in points {
        let target = sandbox.join(&format!("target-{point}"));
        drop(sandbox.restore(id, &target));
        assert_eq!(fs::read_to_string(target.join("content")).unwrap(), point);
    }
}

#[test]
fn points_are_exact_across_a_backward_step_of_the_clock() {
    let sandbox = Sandbox::new("backward");
    let folder = sandbox.folder("source");
    let environment = Environment::detect();
    for n in 0..10_i64 {
        let point = format!("point-{n}");
        fs::write(folder.join("content"), &point).unwrap();
        // The clock stands still, goes back a second, an hour (the end of summer time).
        let back =
            [0, 0, 1, 1, 3600, 3600, 7200, 7200, 86_400, 86_400][usize::try_from(n).unwrap()];
        let time = Timestamp::from_unix(1_800_000_000 - back, 0, &environment.zone);
        let options = BackupOptions {
            tags: sandbox.request(&point).tags("files"),
            time: Some(time),
            kind: BackupKind::Incremental,
            ..BackupOptions::new(vec![folder.clone()])
        };
        let report = backup(&sandbox.repository, options, &environment, &Run::new()).unwrap();
        assert!(report.problems.is_empty());
    }
    for (point, id) in by_point(&sandbox) {
        let target = sandbox.join(&format!("target-{point}"));
        drop(sandbox.restore(id, &target));
        assert_eq!(fs::read_to_string(target.join("content")).unwrap(), point);
    }
}

#[test]
fn the_snapshot_tells_the_time_of_its_content() {
    let sandbox = Sandbox::new("time");
    let before = jiff::Timestamp::now();
    let captured = sandbox.back_up(&files(&[&sandbox.folder("source")]));
    assert!(before <= captured.data_time && captured.data_time <= jiff::Timestamp::now());
    let time = sandbox.repository.snapshot(captured.snapshot).unwrap().time;
    let time = jiff::Timestamp::new(time.seconds(), time.nanoseconds().cast_signed()).unwrap();
    assert_eq!(time, captured.data_time);
}
