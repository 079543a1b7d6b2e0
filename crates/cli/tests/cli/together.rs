//! Several at work at once: Muster beside itself, beside restic, and beside who changes the source.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use muster_testkit::{
    peers::Peer,
    wait_for,
    walker::{Tolerance, assert_same, walk},
};
use rustix::fs::{CWD, FileType, Mode};

use crate::sandbox::{PASSWORD, PATIENCE, Ran, Sandbox};

/// Gives a waiting backup its content and sees it succeed.
#[track_caller]
fn feed(mut child: Child, content: &[u8]) -> Ran {
    child.stdin.take().unwrap().write_all(content).unwrap();
    Ran::of(child.wait_with_output().unwrap()).expect(0)
}

fn snapshots(sandbox: &Sandbox) -> usize {
    sandbox.run(&["snapshots", "--json"]).expect(0).json().as_array().unwrap().len()
}

#[test]
fn two_backups_at_once_both_succeed() {
    let sandbox = Sandbox::new("two-at-once");
    let first = sandbox.waiting_backup();
    let second = sandbox.waiting_backup();
    assert_eq!(sandbox.locks(), 2);
    sandbox.run(&["backup", "source"]).expect(0);
    // Both find the same data new, and each stores it.
    feed(first, b"the same");
    feed(second, b"the same");
    assert_eq!(sandbox.locks(), 0);
    assert_eq!(snapshots(&sandbox), 3);
    sandbox.run(&["check", "--read-data"]).expect(0);
    sandbox.run(&["dump", "latest", "--path", "/stdin", "stdin"]).expect(0).shows("the same");
}

#[test]
fn many_backups_at_once_all_succeed() {
    let sandbox = Sandbox::new("many-at-once");
    for number in 0..200 {
        sandbox.write(&format!("source/file-{number}"), &format!("number {number}\n").repeat(50));
    }
    let start = |_| {
        let mut command = sandbox.command(&["backup", "source"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running: Vec<Child> = (0..6).map(start).collect();
    for child in running {
        Ran::of(child.wait_with_output().unwrap()).expect(0);
    }
    assert_eq!((sandbox.locks(), snapshots(&sandbox)), (0, 6));
    sandbox.run(&["check", "--read-data"]).expect(0);
    sandbox.run(&["restore", "latest", "--target", "back"]).expect(0);
    let (source, back) = (sandbox.path("source"), sandbox.path("back/source"));
    assert_same(&walk(&source).unwrap(), &walk(&back).unwrap(), &Tolerance::default());
}

#[test]
fn restic_does_not_prune_beside_a_running_backup() {
    let sandbox = Sandbox::new("prune");
    let Some(restic) = sandbox.restic() else { return };
    sandbox.run(&["backup", "source"]).expect(0);
    let backup = sandbox.waiting_backup();
    for arguments in [&["prune"][..], &["forget", "latest", "--prune"]] {
        let refused = restic.run(arguments).unwrap();
        assert_ne!(refused.code, Some(0), "{}", refused.stdout());
        let text = refused.stderr();
        assert!(
            text.contains("locked") && text.contains(&format!("PID {}", backup.id())),
            "{text}"
        );
    }
    // To find out whether the lock is stale, restic sends a signal; the backup goes on.
    restic.succeed(["unlock"]).unwrap();
    assert_eq!(sandbox.locks(), 1);
    // Beside a backup, restic may back up.
    restic.succeed(["backup", "source"]).unwrap();
    feed(backup, b"as it was");
    restic.succeed(["prune"]).unwrap();
    restic.succeed(["check", "--read-data"]).unwrap();
    sandbox.run(&["check", "--read-data"]).expect(0);
    sandbox.run(&["dump", "latest", "--path", "/stdin", "stdin"]).expect(0).shows("as it was");
}

/// restic holds its exclusive lock for as long as it waits for the new password.
#[test]
fn a_repository_that_restic_locked_is_refused() {
    let sandbox = Sandbox::new("restic-locked");
    let Some(restic) = sandbox.restic() else { return };
    let fifo = sandbox.path("new-password");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
    let mut command = restic.command();
    command.args(["key", "passwd", "--new-password-file"]).arg(&fifo);
    let mut holder = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Opening for writing succeeds when restic reads: then it holds the lock.
    let mut password = fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    assert_eq!(sandbox.locks(), 1);
    for arguments in [&["backup", "source"][..], &["snapshots"], &["check"], &["key", "list"]] {
        let ran = sandbox.run(arguments).expect(4);
        assert_eq!(ran.stdout, "");
        let ran = ran.tells("locked exclusively by process").tells(&holder.id().to_string());
        ran.tells(" since ").tells("muster repo unlock");
    }
    sandbox.run(&["unlock"]).expect(0).shows("removed 0 locks");
    assert_eq!(sandbox.locks(), 1);
    // Who waits gets in as soon as restic is done; the pauses are too long to see it here.
    password.write_all(PASSWORD.as_bytes()).unwrap();
    drop(password);
    let mut told = String::new();
    holder.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(holder.wait().unwrap().success(), "{told}");
    sandbox.run(&["backup", "source"]).expect(0);
}

/// Files that vanish, grow and are replaced while they are read: the backup ends with 0 or 5, and
/// what it holds of each file is something that the file once was.
#[test]
fn a_source_that_changes_meanwhile_does_no_harm() {
    let sandbox = Sandbox::new("changing");
    for number in 0..300 {
        sandbox.write(&format!("source/stable/{number}"), &format!("stable {number}"));
    }
    let stable = walk(&sandbox.path("source/stable")).unwrap();
    let log = sandbox.path("source/log");
    fs::write(&log, "").unwrap();
    let stop = AtomicBool::new(false);
    let disturb = || {
        let mut number = 0_u64;
        let mut log = fs::OpenOptions::new().append(true).open(&log).unwrap();
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            writeln!(log, "line {number}").unwrap();
            sandbox.write(&format!("source/passing/{}", number % 50), "here today");
            fs::write(sandbox.path("new"), format!("version {number}").repeat(100)).unwrap();
            fs::rename(sandbox.path("new"), sandbox.path("source/replaced")).unwrap();
            if number.is_multiple_of(50) {
                fs::remove_dir_all(sandbox.path("source/passing")).unwrap();
            }
            thread::park_timeout(Duration::from_micros(100));
        }
    };
    thread::scope(|scope| {
        scope.spawn(disturb);
        let outcome = std::panic::catch_unwind(|| {
            for round in 0..6 {
                let ran = sandbox.run(&["backup", "source"]);
                assert!(matches!(ran.code, Some(0 | 5)), "{:?}: {}", ran.code, ran.stderr);
                assert_eq!(ran.code == Some(5), ran.stderr.contains("could not be read"));
                let target = format!("back-{round}");
                sandbox.run(&["restore", "latest", "--target", &target]).expect(0);
            }
        });
        stop.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let whole = fs::read_to_string(&log).unwrap();
    for round in 0..6 {
        let back = sandbox.path(&format!("back-{round}/source"));
        assert!(whole.starts_with(&fs::read_to_string(back.join("log")).unwrap()), "{round}");
        let restored = walk(&back.join("stable")).unwrap();
        assert_same(&stable, &restored, &Tolerance::default());
        if let Ok(replaced) = fs::read_to_string(back.join("replaced")) {
            assert_eq!(replaced, replaced[..replaced.len() / 100].repeat(100));
        }
    }
    sandbox.run(&["check", "--read-data"]).expect(0);
}

/// Without its lock nothing keeps a prune away from what a backup has stored, so it must not
/// write a snapshot that refers to it.
#[test]
fn a_backup_whose_lock_was_removed_writes_no_snapshot() {
    let sandbox = Sandbox::new("lost-lock");
    let mut child = sandbox.waiting_backup();
    sandbox.run(&["unlock", "--remove-all"]).expect(0);
    child.stdin.take().unwrap().write_all(b"the rest").unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap()).expect(4);
    ran.tells("somebody removed its lock");
    assert_eq!(snapshots(&sandbox), 0);
    sandbox.run(&["check"]).expect(0);
}

/// What a writer's folder held in a round.
fn kept(sandbox: &Sandbox, tag: &str) -> PathBuf {
    sandbox.path(&format!("kept/{tag}"))
}

/// Changes a writer's folder, and keeps a copy of what its next snapshot has to hold.
fn change(sandbox: &Sandbox, writer: &str, round: usize) -> String {
    sandbox.write(&format!("{writer}/stays"), &format!("{writer} stays\n").repeat(3000));
    sandbox.write(&format!("{writer}/shared"), &format!("both in {round}\n").repeat(4000));
    sandbox.write(&format!("{writer}/own/{round}"), &format!("{writer} {round}\n").repeat(2000));
    if let Some(before) = round.checked_sub(2) {
        fs::remove_file(sandbox.path(&format!("{writer}/own/{before}"))).unwrap();
    }
    let tag = format!("{writer}-{round}");
    fs::create_dir_all(sandbox.path("kept")).unwrap();
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(sandbox.path(writer)).arg(kept(sandbox, &tag));
    assert!(copy.status().unwrap().success());
    tag
}

/// Every snapshot brings back what was there when it was made, to the byte; gives their tags.
fn assert_restores(sandbox: &Sandbox, repository: &str) -> BTreeSet<String> {
    let listed = sandbox.run(&["-r", repository, "snapshots", "--json"]).expect(0).json();
    let mut tags = BTreeSet::new();
    for snapshot in listed.as_array().unwrap() {
        let tag = snapshot["tags"][0].as_str().unwrap();
        let (id, path) = (snapshot["id"].as_str().unwrap(), snapshot["paths"][0].as_str().unwrap());
        let target = format!("back/{repository}-{tag}-{id}");
        sandbox.run(&["-r", repository, "restore", id, "--target", &target]).expect(0);
        // A folder that was named by a relative path, ours, lies at the root of its snapshot.
        let (target, path) = (sandbox.path(&target), Path::new(path));
        let restored = match path.ends_with("ours") {
            true => target.join("ours"),
            false => target.join(path.strip_prefix("/").unwrap()),
        };
        let (expected, found) = (walk(&kept(sandbox, tag)), walk(&restored));
        let tolerance = Tolerance { ignore_root: true, ..Tolerance::default() };
        assert_same(&expected.unwrap(), &found.unwrap(), &tolerance);
        tags.insert(tag.to_owned());
    }
    tags
}

/// Muster and restic write, while others forget, prune and copy: who finds the repository locked
/// waits or asks again, and what is kept is what it was, here and in the copy.
#[test]
fn two_writers_beside_retention_and_copies_lose_nothing() {
    const ROUNDS: usize = 4;
    let sandbox = Sandbox::new("writers-and-retention");
    let Some(restic) = sandbox.restic() else { return };
    sandbox.run(&["-r", "far", "init"]).expect(0);
    let start = |arguments: &[&str]| {
        let mut command = sandbox.command(&[arguments, &["--retry-lock", "1m"]].concat());
        command.env("MUSTER_FROM_PASSWORD", PASSWORD);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let copy = ["-r", "far", "copy", "--from-repo", "repo"];
    for round in 0..ROUNDS {
        let (ours, theirs) = (change(&sandbox, "ours", round), change(&sandbox, "theirs", round));
        let forget = ["forget", "--keep-last", "2", "--prune", "--keep-delete", "0s"];
        let running = [
            start(&["backup", "ours", "--tag", &ours]),
            start(&forget),
            start(&copy),
            start(&["backup", "ours", "--tag", &ours, "--force"]),
        ];
        restic_backs_up(&restic, &sandbox, &theirs);
        for child in running {
            Ran::of(child.wait_with_output().unwrap()).expect(0);
        }
    }
    Ran::of(start(&copy).wait_with_output().unwrap()).expect(0);
    for repository in ["repo", "far"] {
        restic.succeed(["-r", repository, "check", "--read-data"]).unwrap();
        let tags = assert_restores(&sandbox, repository);
        for writer in ["ours", "theirs"] {
            assert!(tags.contains(&format!("{writer}-{}", ROUNDS - 1)), "{repository}: {tags:?}");
        }
    }
}

/// restic 0.14 does not wait for a lock, so it is asked again.
fn restic_backs_up(restic: &Peer, sandbox: &Sandbox, tag: &str) {
    let folder = sandbox.path("theirs");
    let folder = folder.to_str().unwrap();
    let attempt = || {
        let ran = restic.run(["backup", folder, "--tag", tag]).unwrap();
        let text = ran.stderr();
        assert!(ran.code == Some(0) || text.contains("locked"), "{text}");
        (ran.code == Some(0)).then_some(())
    };
    wait_for("a backup of restic's that is not refused", PATIENCE, attempt).unwrap();
}
