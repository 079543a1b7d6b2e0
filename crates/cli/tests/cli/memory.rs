//! How much memory commands take, as the kernel counts it.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
    time::Duration,
};

use muster_testkit::wait_for;

use crate::sandbox::Sandbox;

/// What any command may take, but for 64 bytes for each blob of the index: here there are few.
const PEAK_BYTES_MAX: u64 = 128 << 20;

/// Entries of the large folder: its tree is 60 MB long, and longer yet as nodes.
const ENTRIES: usize = 100_000;

/// Runs a command to its end, and gives the most that it ever had in memory. The kernel keeps that
/// number for as long as the process is there; who asks again and again misses nothing but what
/// comes in the last moment.
fn peak_bytes(command: &mut Command) -> u64 {
    let what = format!("{command:?}");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = wait_for("the command to end", Duration::from_secs(300), || {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        child.try_wait().unwrap()
    });
    assert!(ended.unwrap().success(), "{what}");
    assert!(peak > 0, "{what}");
    peak
}

#[test]
fn a_large_folder_is_never_held() {
    let sandbox = Sandbox::new("memory-large-folder");
    let folder = sandbox.path("source/large");
    fs::create_dir(&folder).unwrap();
    let long = "n".repeat(200);
    for n in 0..ENTRIES {
        File::create(folder.join(format!("{n:06}{long}"))).unwrap();
    }
    let one = format!("000007{long}");
    for arguments in [
        &["backup", "source"][..],
        &["backup", "source"],
        &["check", "--read-data"],
        &["ls", "latest"],
        &["find", "b.txt"],
        &["diff", "latest:/", "latest:source"],
        &["rewrite", "latest", "--exclude", "000008*"],
        &["repair", "snapshots"],
        &["restore", "latest", "--target", "out", "--include", &one],
        &["prune"],
    ] {
        let peak = peak_bytes(&mut sandbox.command(arguments));
        assert!(peak <= PEAK_BYTES_MAX, "{arguments:?} took {peak} bytes");
    }
    let restored = sandbox.path("out").join("source/large").join(&one);
    assert!(restored.exists());
}
