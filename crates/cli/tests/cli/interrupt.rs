//! Ctrl-C.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    time::Duration,
};

use muster_testkit::wait_for;
use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::{Ran, Sandbox};

const PATIENCE: Duration = Duration::from_secs(30);

/// A backup that waits for its standard input, and holds a lock.
fn waiting_backup(sandbox: &Sandbox) -> Child {
    let mut command = sandbox.command(&["backup", "--stdin"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for("the backup's lock", PATIENCE, || (sandbox.locks() == 1).then_some(())).unwrap();
    child
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

#[test]
fn the_first_interrupt_stops_in_order() {
    let sandbox = Sandbox::new("interrupt");
    let mut child = waiting_backup(&sandbox);
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
fn the_second_interrupt_stops_at_once_and_unlock_clears_up() {
    let sandbox = Sandbox::new("interrupt-twice");
    let mut child = waiting_backup(&sandbox);
    interrupt(&child);
    let mut told = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut told).unwrap();
    interrupt(&child);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "it ended by the signal");
    assert_eq!(sandbox.locks(), 1);
    sandbox.run(&["key", "remove", "00"]).expect(4).tells("that process is gone");
    sandbox.run(&["unlock"]).expect(0).shows("removed 1 lock");
    assert_eq!(sandbox.locks(), 0);
}
