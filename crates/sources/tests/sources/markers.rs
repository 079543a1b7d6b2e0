//! Markers: numbered, durable, and readable whatever happened to them.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use muster_model::Fault;
use muster_sources::{
    files,
    markers::{self, KEPT, MARKERS_FILE, Marker, MarkerTarget, MarkerWriter},
};
use rusqlite::Connection;

use crate::common::{Sandbox, database, files as files_source};

fn targets(sandbox: &Sandbox) -> [MarkerTarget; 2] {
    let path = sandbox.join("shop.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE orders(amount)").unwrap();
    [MarkerTarget::Sqlite(path), MarkerTarget::Files(sandbox.folder("uploads"))]
}

fn write(writer: &mut MarkerWriter, count: usize) -> Vec<Marker> {
    (0..count).map(|_| writer.write(Timestamp::now()).unwrap()).collect()
}

#[test]
fn what_was_written_is_read() {
    let sandbox = Sandbox::new("markers");
    for target in targets(&sandbox) {
        assert_eq!(markers::read(&target, None).unwrap(), []);
        let mut writer = MarkerWriter::open(&target).unwrap();
        let written = write(&mut writer, 5);
        assert!(written.iter().all(|marker| marker.writer == writer.writer()));
        assert_eq!(written.iter().map(|marker| marker.n).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(markers::read(&target, None).unwrap(), written);
        assert_eq!(markers::read(&target, Some(written[3].at)).unwrap(), written[3..]);
        // Another process counts for itself.
        let others = write(&mut MarkerWriter::open(&target).unwrap(), 2);
        assert_ne!(others[0].writer, written[0].writer);
        let all = markers::read(&target, None).unwrap();
        assert_eq!(all, [written, others].concat());
    }
}

#[test]
fn markers_before_a_snapshot_come_back_with_it() {
    let sandbox = Sandbox::new("markers-restored");
    let [shop, uploads] = targets(&sandbox);
    let sources = [database(&sandbox.join("shop.db")), files_source(&[&sandbox.join("uploads")])];
    for (target, source) in [shop, uploads].into_iter().zip(sources) {
        let mut writer = MarkerWriter::open(&target).unwrap();
        let before = write(&mut writer, 3);
        let captured = sandbox.back_up(&source);
        let after = write(&mut writer, 2);
        let place = sandbox.join(&format!("t-{}", captured.snapshot.short()));
        let restored = sandbox.restore(captured.snapshot, &place);
        let restored = match target {
            MarkerTarget::Sqlite(_) => MarkerTarget::Sqlite(restored.path),
            _ => MarkerTarget::Files(restored.path),
        };
        assert_eq!(markers::read(&restored, None).unwrap(), before);
        assert!(before.iter().all(|marker| marker.at <= captured.data_time));
        assert!(after.iter().all(|marker| marker.at >= captured.data_time));
    }
}

#[test]
fn duplicates_are_seen() {
    let sandbox = Sandbox::new("duplicates");
    for target in targets(&sandbox) {
        let written = write(&mut MarkerWriter::open(&target).unwrap(), 2);
        match &target {
            MarkerTarget::Sqlite(path) => {
                let sql = "INSERT INTO muster_marker SELECT * FROM muster_marker WHERE n = 2";
                assert_eq!(Connection::open(path).unwrap().execute(sql, []).unwrap(), 1);
            }
            MarkerTarget::Files(folder) => {
                let path = folder.join(MARKERS_FILE);
                let text = fs::read_to_string(&path).unwrap();
                fs::write(&path, format!("{text}{}\n", text.lines().last().unwrap())).unwrap();
            }
            _ => unreachable!("there are two"),
        }
        let read = markers::read(&target, None).unwrap();
        assert_eq!(read, [written[0], written[1], written[1]]);
    }
}

#[test]
fn a_torn_line_is_passed_over_and_ended() {
    let sandbox = Sandbox::new("torn");
    let folder = sandbox.folder("uploads");
    let target = MarkerTarget::Files(folder.clone());
    let mut writer = MarkerWriter::open(&target).unwrap();
    let first = write(&mut writer, 1);
    // A whole line but for its end: nobody can say that nothing is missing of it.
    let torn = format!("{} 2 {}", writer.writer(), Timestamp::now());
    let path = folder.join(MARKERS_FILE);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(torn.as_bytes()).unwrap();
    assert_eq!(markers::read(&target, None).unwrap(), first);
    let second = writer.write(Timestamp::now()).unwrap();
    let read = markers::read(&target, None).unwrap();
    assert_eq!((read.len(), read[2]), (3, second));
}

#[test]
fn a_file_that_was_removed_is_made_again() {
    let sandbox = Sandbox::new("removed");
    let folder = sandbox.folder("uploads");
    let target = MarkerTarget::Files(folder.clone());
    let mut writer = MarkerWriter::open(&target).unwrap();
    write(&mut writer, 1);
    fs::remove_file(folder.join(MARKERS_FILE)).unwrap();
    let second = write(&mut writer, 1);
    assert_eq!(markers::read(&target, None).unwrap(), second);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(writer.write(Timestamp::now()).unwrap_err().code(), "marker-failed");
    assert!(markers::read(&target, None).is_err());
}

#[test]
fn writers_do_not_lose_each_others_markers() {
    let sandbox = Sandbox::new("together");
    for target in targets(&sandbox) {
        let mut old = MarkerWriter::open(&target).unwrap();
        old.write(Timestamp::now() - KEPT - SignedDuration::from_secs(60)).unwrap();
        // Each opening of the file takes what is old out of it, and puts another in its place.
        let written: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let target = &target;
                    scope.spawn(move || {
                        let old = Timestamp::now() - KEPT - SignedDuration::from_secs(60);
                        let writes = (0..10).map(|_| {
                            let mut writer = MarkerWriter::open(target).unwrap();
                            writer.write(old).unwrap();
                            write(&mut writer, 2).len()
                        });
                        writes.sum::<usize>()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let since = Timestamp::now() - SignedDuration::from_hours(1);
        assert_eq!(markers::read(&target, Some(since)).unwrap().len(), written);
    }
}

#[test]
fn old_markers_are_removed() {
    let sandbox = Sandbox::new("old");
    let [shop, uploads] = targets(&sandbox);
    let old = Timestamp::now() - KEPT - SignedDuration::from_secs(60);

    let mut writer = MarkerWriter::open(&uploads).unwrap();
    writer.write(old).unwrap();
    let kept = write(&mut writer, 1);
    let path = sandbox.join("uploads").join(MARKERS_FILE);
    let before = fs::metadata(&path).unwrap();
    assert_eq!(markers::read(&uploads, None).unwrap().len(), 2);
    MarkerWriter::open(&uploads).unwrap();
    assert_eq!(markers::read(&uploads, None).unwrap(), kept);
    let after = fs::metadata(&path).unwrap();
    assert_eq!((before.mode(), before.uid()), (after.mode(), after.uid()));
    assert_eq!(fs::read_dir(sandbox.join("uploads")).unwrap().count(), 1);

    MarkerWriter::open(&shop).unwrap().write(old).unwrap();
    let mut writer = MarkerWriter::open(&shop).unwrap();
    write(&mut writer, 999);
    assert_eq!(markers::read(&shop, None).unwrap().len(), 1000);
    write(&mut writer, 1);
    let read = markers::read(&shop, None).unwrap();
    assert_eq!((read.len(), read[0].n), (1000, 1));
    assert!(read.iter().all(|marker| marker.writer == writer.writer()));
}

#[test]
fn a_marker_that_cannot_be_written_is_missed_and_leaves_no_hole() {
    let sandbox = Sandbox::new("missed");
    let [shop, _] = targets(&sandbox);
    let mut writer = MarkerWriter::open(&shop).unwrap();
    write(&mut writer, 1);
    let other = Connection::open(sandbox.join("shop.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    let error = writer.write(Timestamp::now()).unwrap_err();
    assert_eq!(error.code(), "sqlite-busy");
    assert!(begun.elapsed() < Duration::from_secs(10));
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(writer.write(Timestamp::now()).unwrap().n, 2);
}

#[test]
fn markers_need_a_store_that_is_there() {
    let sandbox = Sandbox::new("nowhere");
    let gone = MarkerTarget::Sqlite(sandbox.join("gone.db"));
    assert!(MarkerWriter::open(&gone).is_err() && markers::read(&gone, None).is_err());
    assert!(!sandbox.join("gone.db").exists());
    let gone = MarkerTarget::Files(sandbox.join("gone"));
    assert!(MarkerWriter::open(&gone).is_err() && markers::read(&gone, None).is_err());
}

/// The comparison of files leaves the markers alone when it damages.
#[test]
fn markers_are_never_damaged() {
    let sandbox = Sandbox::new("undamaged");
    let folder = sandbox.folder("uploads");
    write(&mut MarkerWriter::open(&MarkerTarget::Files(folder.clone())).unwrap(), 1);
    assert!(files::damage(Path::new(&folder)).is_err());
}
