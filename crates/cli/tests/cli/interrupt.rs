//! Ctrl-C.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt as _,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use muster_repository::{
    format::snapshot::Snapshot,
    storage::File,
    testing::{self, RepositoryBuilder, file_node},
};
use muster_testkit::wait_for;
use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::{PATIENCE, Ran, Sandbox};

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

#[test]
fn the_first_interrupt_stops_in_order() {
    let sandbox = Sandbox::new("interrupt");
    let mut child = sandbox.waiting_backup();
    interrupt(&child);
    // Closed by dropping: the backup sees the end of its input, and that it shall not finish.
    let mut told = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut told).unwrap();
    assert!(told.contains("stopping in order"), "{told}");
    drop(child.stdin.take());
    let ran = Ran::of(child.wait_with_output().unwrap()).expect(130);
    assert_eq!(ran.stdout, "");
    told.clear();
    stderr.read_line(&mut told).unwrap();
    assert!(told.starts_with("error: cannot finish: it was interrupted"), "{told}");
    assert_eq!(sandbox.locks(), 0);
    assert_eq!(sandbox.run(&["snapshots", "--json"]).expect(0).json(), serde_json::json!([]));
}

#[test]
fn a_backup_at_work_stops_wherever_it_is() {
    let sandbox = Sandbox::new("interrupt-at-work");
    for number in 0..24 {
        fs::write(sandbox.path(&format!("source/{number}")), noise(number, 4 << 20)).unwrap();
    }
    for packs in 0..4 {
        let mut command = sandbox.command(&["backup", "source"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stored = || {
            let begun = sandbox.locks() == 1 && count_packs(&sandbox) >= packs;
            (begun || child.try_wait().unwrap().is_some()).then_some(())
        };
        wait_for("some packs", PATIENCE, stored).unwrap();
        // It may have been quicker than we are, and has ended.
        if child.try_wait().unwrap().is_none() {
            interrupt(&child);
        }
        let ended = || child.try_wait().unwrap();
        let status = wait_for("the end of the backup", PATIENCE, ended).unwrap();
        assert!(matches!(status.code(), Some(130 | 0)), "{status}");
        assert_eq!(sandbox.locks(), 0);
    }
    sandbox.run(&["check"]).expect(0);
}

/// Bytes that neither compress nor repeat.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next).flat_map(u64::to_le_bytes).take(length).collect()
}

fn count_packs(sandbox: &Sandbox) -> usize {
    let folders = fs::read_dir(sandbox.path("repo/data")).unwrap();
    folders.map(|folder| fs::read_dir(folder.unwrap().path()).map_or(0, Iterator::count)).sum()
}

#[test]
fn the_second_interrupt_stops_at_once_and_unlock_clears_up() {
    let sandbox = Sandbox::new("interrupt-twice");
    let mut child = sandbox.waiting_backup();
    interrupt(&child);
    let mut told = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut told).unwrap();
    // Kept open: at its end the backup would stop in order, and be quicker than the signal.
    let stdin = child.stdin.take();
    interrupt(&child);
    let status = child.wait().unwrap();
    drop(stdin);
    assert_eq!(status.code(), None, "it ended by the signal");
    assert_eq!(sandbox.locks(), 1);
    sandbox.run(&["key", "remove", "00"]).expect(4).tells("that process is gone");
    sandbox.run(&["unlock"]).expect(0).shows("removed 1 lock");
    assert_eq!(sandbox.locks(), 0);
}

#[test]
fn a_backup_of_files_stops_in_the_middle_of_one() {
    let sandbox = Sandbox::new("interrupt-files");
    sandbox.run(&["backup", "source"]).expect(0);
    // All hole: it takes no room, and long to read.
    let file = fs::File::create(sandbox.path("source/large")).unwrap();
    file.set_len(2 << 30).unwrap();
    let mut command = sandbox.command(&["backup", "source"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for("the backup's lock", PATIENCE, || (sandbox.locks() == 1).then_some(())).unwrap();
    interrupt(&child);
    let ran = Ran::of(child.wait_with_output().unwrap()).expect(130).tells("it was interrupted");
    assert_eq!(ran.stdout, "");
    assert_eq!(sandbox.locks(), 0);
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
    assert_eq!(sandbox.run(&["snapshots", "--json"]).expect(0).json().as_array().unwrap().len(), 1);
    sandbox.run(&["check", "--read-data"]).expect(0);
}

/// How much is written after the interrupt tells more than time on a busy machine.
#[test]
fn a_restore_stops_in_the_middle_of_a_file() {
    const CHUNK: u64 = 1 << 20;
    const CHUNKS: u64 = 2048;
    let sandbox = Sandbox::without_repository("interrupt-restore");
    let mut builder = RepositoryBuilder::new();
    let chunk = builder.add_data_blob(&noise(7, 1 << 20));
    let content = (0..CHUNKS).map(|_| chunk).collect();
    let tree = builder.add_tree(vec![file_node(b"large", content, CHUNKS * CHUNK)]);
    let stored = builder.storage();
    let repository = builder.finish();
    let text = format!("{{\"time\":\"2026-01-01T00:00:00Z\",\"tree\":\"{tree}\",\"paths\":[]}}");
    let snapshot: Snapshot = serde_json::from_str(&text).unwrap();
    repository.save_unpacked(File::Snapshot, &snapshot).unwrap();
    sandbox.store(&stored, "made");
    let mut command =
        sandbox.bare_command(&["-r", "made", "restore", "latest", "--target", "back"]);
    command.env("MUSTER_PASSWORD", String::from_utf8_lossy(testing::PASSWORD).as_ref());
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let written = || {
        let files = fs::read_dir(sandbox.path("back")).into_iter().flatten().flatten();
        files.map(|file| file.metadata().map_or(0, |it| it.blocks() * 512)).sum::<u64>()
    };
    let begun = || (written() > CHUNK).then_some(());
    wait_for("the first bytes", PATIENCE, begun).unwrap();
    let began = Instant::now();
    interrupt(&child);
    let ran = Ran::of(child.wait_with_output().unwrap()).expect(130);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(written() < CHUNKS * CHUNK / 2, "{} bytes: {}", written(), ran.stderr);
    assert_eq!(fs::read_dir(sandbox.path("made/locks")).unwrap().count(), 0);
}
