//! Ctrl-C.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use muster_repository::{
    format::{pack::BlobKind, snapshot::Snapshot},
    id::BlobId,
    storage::File,
    testing::{self, RepositoryBuilder, file_node},
};
use muster_testkit::wait_for;
use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::{PATIENCE, Ran, Sandbox, run};

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
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
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

/// Writes what was built into the folder `made`, with a snapshot of a tree.
fn store(sandbox: &Sandbox, builder: RepositoryBuilder, tree: BlobId) {
    let stored = builder.storage();
    let repository = builder.finish();
    let text = format!("{{\"time\":\"2026-01-01T00:00:00Z\",\"tree\":\"{tree}\",\"paths\":[]}}");
    let snapshot: Snapshot = serde_json::from_str(&text).unwrap();
    repository.save_unpacked(File::Snapshot, &snapshot).unwrap();
    sandbox.store(&stored, "made");
}

/// `muster repo` on that repository.
fn made(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = sandbox.bare_command(&[&["-r", "made"], arguments].concat());
    command.env("MUSTER_PASSWORD", String::from_utf8_lossy(testing::PASSWORD).as_ref());
    command
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
    store(&sandbox, builder, tree);
    let mut command = made(&sandbox, &["restore", "latest", "--target", "back"]);
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

/// A repository in the folder `made` that takes no room, and each of whose blobs takes the processor
/// several milliseconds: 8 MiB with hardly anything in them. Each pack holds one that nothing needs.
fn heavy(sandbox: &Sandbox, blobs: u32, copies: u32) {
    let mut builder = RepositoryBuilder::new();
    let mut plaintext = vec![0; 8 << 20];
    let mut ids = Vec::new();
    for number in (0..copies).flat_map(|_| 0..blobs) {
        plaintext[..4].copy_from_slice(&number.to_le_bytes());
        match ids.get(number as usize) {
            Some(&id) => drop(builder.add(BlobKind::Data, id, &plaintext)),
            None => ids.push(builder.add_data_blob(&plaintext)),
        }
        if number % 10 == 9 {
            builder.close_packs();
        }
    }
    let content: Vec<BlobId> = ids.chunks(10).flat_map(|pack| &pack[1..]).copied().collect();
    let bytes = (content.len() * plaintext.len()) as u64;
    let tree = builder.add_tree(vec![file_node(b"large", content, bytes)]);
    store(sandbox, builder, tree);
}

/// The state of a process, and the time that processors spent on it so far.
fn spent(pid: u32) -> (char, Duration) {
    // Linux counts in hundredths of a second here, whatever its own clock does.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u32 = fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap();
    (fields[0].chars().next().unwrap(), TICK * ticks)
}

/// What a command may still compute after an interrupt: each thread ends the blob that it is at.
const LAST_WORK: Duration = Duration::from_millis(700);

/// Interrupts a command in the midst of work that would take it several times longer. What it still
/// does is measured in time of processors, so that it does not matter who else wants them.
fn interrupted_at_work(command: &mut Command) -> Ran {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let at_work = || (spent(child.id()).1 > Duration::from_millis(200)).then_some(());
    wait_for("work", PATIENCE, at_work).unwrap();
    let (_, before) = spent(child.id());
    interrupt(&child);
    let ended = || (spent(child.id()).0 == 'Z').then(|| spent(child.id()).1);
    let last_work = wait_for("its end", PATIENCE, ended).unwrap() - before;
    let ran = Ran::of(child.wait_with_output().unwrap()).expect(130).tells("stopping in order");
    assert!(last_work < LAST_WORK, "{last_work:?}: {}", ran.stderr);
    ran
}

fn entries(sandbox: &Sandbox, folder: &str) -> usize {
    fs::read_dir(sandbox.path(folder)).unwrap().count()
}

#[test]
fn a_check_stops_at_work_and_calls_nothing_damaged() {
    let sandbox = Sandbox::without_repository("interrupt-check");
    heavy(&sandbox, 10, 50);
    let ran = interrupted_at_work(&mut made(&sandbox, &["check", "--read-data"]));
    assert!(!ran.stdout.contains("damage"), "{}", ran.stdout);
    assert_eq!(entries(&sandbox, "made/locks"), 0);
    run(&mut made(&sandbox, &["check"])).expect(0);
}

#[test]
fn a_copy_stops_at_work_and_the_next_one_ends_it() {
    let sandbox = Sandbox::new("interrupt-copy");
    heavy(&sandbox, 200, 1);
    let copy = || {
        let mut copy = sandbox.command(&["copy", "--from-repo", "made"]);
        copy.env("MUSTER_FROM_PASSWORD", String::from_utf8_lossy(testing::PASSWORD).as_ref());
        copy
    };
    interrupted_at_work(&mut copy());
    assert_eq!((sandbox.locks(), entries(&sandbox, "made/locks")), (0, 0));
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
    sandbox.run(&["check"]).expect(0);
    assert_eq!(entries(&sandbox, "repo/snapshots"), 0, "it comes last");
    run(&mut copy()).expect(0);
    sandbox.run(&["check"]).expect(0);
    assert_eq!(entries(&sandbox, "repo/snapshots"), 1);
}

#[test]
fn a_prune_stops_at_work_and_the_next_one_ends_it() {
    let sandbox = Sandbox::without_repository("interrupt-prune");
    heavy(&sandbox, 320, 1);
    let prune = ["prune", "--instant", "--max-unused", "0"];
    interrupted_at_work(&mut made(&sandbox, &prune));
    assert_eq!(entries(&sandbox, "made/locks"), 0);
    run(&mut made(&sandbox, &["check"])).expect(0).shows("no damage found");
    let pruned = run(&mut made(&sandbox, &[&["--json"], &prune[..]].concat())).expect(0).json();
    assert_eq!(pruned["remaining_unused_bytes"], 0, "{pruned}");
    run(&mut made(&sandbox, &["check"])).expect(0).shows("no damage found");
}
