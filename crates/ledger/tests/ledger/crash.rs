//! Power and space run out: processes are killed, disks are full, two write at once.
//!
//! The children are this test binary itself: a test that does nothing unless the environment
//! names a state folder.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use muster_ledger::{Entry, Filter, Ledger, verify_log};
use muster_model::{Class, Fault as _};
use muster_testkit::{Scratch, peers, wait_for};
use serde_json::json;

use crate::common::at;

const STATE: &str = "MUSTER_LEDGER_TEST_STATE";
const COUNT: &str = "MUSTER_LEDGER_TEST_COUNT";
const PATIENCE: Duration = Duration::from_secs(30);

/// A command that runs one test of this binary as a child's work.
fn child(test: &str, state: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(STATE, state);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn state() -> Option<PathBuf> {
    env::var_os(STATE).map(PathBuf::from)
}

/// Says something to the parent, past the harness.
fn say(line: &str) {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).unwrap();
}

/// What children said after `ack `.
fn acks(stdout: ChildStdout) -> impl Iterator<Item = String> {
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    lines.filter_map(|line| line.strip_prefix("ack ").map(str::to_owned))
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn child_appends() {
    let Some(state) = state() else { return };
    let count = env::var(COUNT).map_or(u64::MAX, |count| count.parse().unwrap());
    let ledger = Ledger::open(&state).unwrap();
    let pid = std::process::id();
    for n in 0..count {
        // Some appends complete many subtrees, some are checkpoints and attachments.
        let body = json!({"pid": pid, "n": n});
        let appended = ledger.append("step", at(0), &body).unwrap();
        say(&format!("ack {} {}", appended.index, appended.leaf_hash));
        if n % 5 == 4 {
            ledger.attach("step", &appended.index.to_be_bytes()).unwrap();
            ledger.checkpoint().unwrap();
        }
    }
}

fn entries(ledger: &Ledger) -> BTreeMap<u64, Entry> {
    let entries = ledger.entries(&Filter::default()).unwrap();
    entries.into_iter().map(|entry| (entry.index, entry)).collect()
}

fn assert_holds(ledger: &Ledger, acknowledged: &[String]) {
    let verified = verify_log(ledger).unwrap();
    let entries = entries(ledger);
    assert_eq!(verified.size, entries.len() as u64);
    for ack in acknowledged {
        let (index, hash) = ack.split_once(' ').unwrap();
        let entry = &entries[&index.parse().unwrap()];
        let leaf = muster_ledger::merkle::leaf_hash(entry.to_leaf().as_bytes());
        assert_eq!(leaf.to_string(), hash);
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let scratch = Scratch::new("ledger").unwrap();
    let state = scratch.join("state");
    let mut acknowledged = Vec::new();
    for round in 0..30 {
        let mut child = child("crash::child_appends", &state).spawn().unwrap();
        let mut acks = acks(child.stdout.take().unwrap());
        acknowledged.extend(acks.by_ref().take(1 + round * 7 % 23));
        kill(&mut child);
        // What it said before it died counts too.
        acknowledged.extend(acks);
        assert_holds(&Ledger::open(&state).unwrap(), &acknowledged);
    }
    assert!(acknowledged.len() > 300, "{}", acknowledged.len());
}

#[test]
fn two_processes_append_at_once() {
    let scratch = Scratch::new("ledger").unwrap();
    let state = scratch.join("state");
    let spawn = || child("crash::child_appends", &state).env(COUNT, "100").spawn().unwrap();
    let mut children = [spawn(), spawn()];
    let mut acknowledged = Vec::new();
    for child in &mut children {
        acknowledged.extend(acks(child.stdout.take().unwrap()));
        assert!(child.wait().unwrap().success());
    }
    let ledger = Ledger::open(&state).unwrap();
    assert_holds(&ledger, &acknowledged);
    assert_eq!((acknowledged.len(), ledger.size().unwrap()), (200, 200));
    let of =
        |pid: u32| entries(&ledger).into_values().filter(move |entry| entry.body["pid"] == pid);
    for child in children {
        let numbers: Vec<_> =
            of(child.id()).map(|entry| entry.body["n"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn a_ledger_whose_maker_was_killed_is_made_by_the_next() {
    let scratch = Scratch::new("ledger").unwrap();
    let steps = [
        "",
        "ledger.lock",
        ".gitignore",
        "ledger.sqlite3",
        "ledger.sqlite3-wal",
        "ledger.key",
        "ledger.pub",
    ];
    for (round, step) in (0..3).flat_map(|round| steps.map(|step| (round, step))) {
        let state = scratch.join(format!("state-{round}-{step}"));
        let mut child = child("crash::child_appends", &state).spawn().unwrap();
        // As soon as the step is seen, without a pause, so that it dies in the middle.
        let seen = state.join(step);
        wait_for("the step", PATIENCE, || (0..50_000).any(|_| seen.exists()).then_some(()))
            .unwrap();
        kill(&mut child);
        let acknowledged: Vec<_> = acks(child.stdout.take().unwrap()).collect();
        let ledger = Ledger::open(&state).unwrap();
        assert_holds(&ledger, &acknowledged);
        let origin = ledger.origin().to_owned();
        drop(ledger);
        assert_eq!(Ledger::open(&state).unwrap().origin(), origin);
    }
}

#[test]
fn child_fills_the_disk() {
    let Some(state) = state() else { return };
    let ledger = Ledger::open(&state).unwrap();
    let body = json!({"text": "x".repeat(3000)});
    let mut acknowledged = Vec::new();
    let error = loop {
        match ledger.append("step", at(0), &body) {
            Ok(appended) => acknowledged.push(format!("{} {}", appended.index, appended.leaf_hash)),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 100_000, "the disk does not fill");
    };
    let code = env::var(CODE).unwrap();
    assert_eq!((error.class(), error.code()), (Class::Transient, code.as_str()), "{error:?}");
    assert!(acknowledged.len() > 10, "{error:?}");
    assert_holds(&ledger, &acknowledged);
    // Nothing has changed for whoever opens it to read.
    assert_holds(&Ledger::open_read_only(&state).unwrap(), &acknowledged);
    say(&format!("ack {} {}", acknowledged.len(), error.help().unwrap()));
}

/// Names the code of the error that the child is to meet.
const CODE: &str = "MUSTER_LEDGER_TEST_CODE";

/// Runs the child that fills its disk through a shell that makes the disk small.
fn fill(shell: &str, state: &Path, code: &str) -> Option<(Ledger, String)> {
    let exe = env::current_exe().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", shell, "sh"]).arg(exe).arg(state);
    command.args(["--exact", "crash::child_fills_the_disk", "--nocapture"]);
    command.env(STATE, state).env(CODE, code);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let acks: Vec<_> = acks(child.stdout.take().unwrap()).collect();
    assert!(child.wait().unwrap().success());
    let ledger = Ledger::open(state).unwrap();
    Some((ledger, acks.first()?.clone()))
}

#[test]
fn files_that_may_not_grow_cost_nothing_that_was_acknowledged() {
    let scratch = Scratch::new("ledger").unwrap();
    let shell = "exe=$1; shift 2; trap '' XFSZ; ulimit -f 1000; exec \"$exe\" \"$@\"";
    let (ledger, ack) = fill(shell, &scratch.join("state"), "ledger-database").unwrap();
    let count: u64 = ack.split_once(' ').unwrap().0.parse().unwrap();
    assert_eq!(verify_log(&ledger).unwrap().size, count);
    // With space, it goes on where it stopped.
    assert_eq!(ledger.append("step", at(0), &json!({})).unwrap().index, count);
}

#[test]
fn a_full_disk_costs_nothing_that_was_acknowledged() {
    let Some(unshare) = peers::require("unshare") else { return };
    let may_mount = unshare.run(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]);
    if may_mount.is_ok_and(|output| output.code != Some(0)) {
        // Not allowed here; the test above does it without.
        return;
    }
    let scratch = Scratch::new("ledger").unwrap();
    let state = scratch.join("state");
    let shell = "exec unshare --mount sh -c 'exe=$1 state=$2; shift 2; mkdir \"$state\" && \
                 mount -t tmpfs -o size=600k none \"$state\" && exec \"$exe\" \"$@\"' sh \"$@\"";
    let (_, ack) = fill(shell, &state, "no-space").unwrap();
    assert!(ack.contains("make space"), "{ack}");
}

#[test]
fn child_reads_a_read_only_disk() {
    let Some(state) = state() else { return };
    let ledger = Ledger::open_read_only(&state).unwrap();
    let size = verify_log(&ledger).unwrap().size;
    assert_eq!(Ledger::open(&state).unwrap_err().class(), Class::Denied);
    say(&format!("ack {size}"));
}

#[test]
fn a_state_on_a_read_only_disk_can_be_read() {
    let Some(unshare) = peers::require("unshare") else { return };
    if unshare.run(["--mount", "true"]).is_ok_and(|output| output.code != Some(0)) {
        return;
    }
    let scratch = Scratch::new("ledger").unwrap();
    let state = scratch.join("sta te?#%41");
    let ledger = Ledger::open(&state).unwrap();
    ledger.append("step", at(0), &json!({})).unwrap();
    drop(ledger);
    let mut command = Command::new("unshare");
    let shell = "mount --bind -o ro \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    command.args(["--mount", "sh", "-c", shell, "sh"]).arg(&state).arg(env::current_exe().unwrap());
    command.args(["--exact", "crash::child_reads_a_read_only_disk", "--nocapture"]);
    let mut child = command.env(STATE, &state).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(acks(child.stdout.take().unwrap()).collect::<Vec<_>>(), ["1"]);
    assert!(child.wait().unwrap().success());
}
