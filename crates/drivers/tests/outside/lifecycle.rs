//! Children from launch to end, and after Muster was killed.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use muster_drivers::process::{
    ChildIdentity, How, Launch, LaunchError, Outcome, ProgramError, RunEnd, can_hide, end_recorded,
    launch, seen_by, tail,
};
use muster_testkit::{Scratch, wait_for};

use crate::{
    common::{SOON, pid_in, runs, script, start, wait_until_gone},
    parts::player,
};

/// A child, a grandchild that ignores SIGTERM, one in a session of its own, and a daemon that
/// forked twice; each writes its pid.
const FAMILY: &str = "
    sh -c 'trap \"\" TERM; echo $$ > stubborn; while :; do sleep 1000; done' &
    setsid sh -c 'echo $$ > session; exec sleep 1001' &
    (setsid sh -c 'sh -c \"echo \\$\\$ > daemon; exec sleep 1002\" &' &)
    echo $$ > leader
    wait";
const FAMILY_FILES: [&str; 4] = ["leader", "stubborn", "session", "daemon"];

fn family_pids(dir: &Path) -> Vec<u32> {
    FAMILY_FILES.iter().map(|file| pid_in(&dir.join(file))).collect()
}

fn assert_gone(pids: &[u32]) {
    let left: Vec<_> = pids.iter().filter(|pid| runs(**pid)).collect();
    assert!(left.is_empty(), "{left:?} of {pids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_runs_in_a_clean_world() {
    let scratch = Scratch::new("clean").unwrap();
    let mut wanted = script(
        scratch.path(),
        "pwd; echo \"$TMPDIR $GIVEN ${CARGO_MANIFEST_DIR-none}\"; ps -o pgid= -p $$; read x; echo $?",
    );
    wanted.env.push(("GIVEN".to_owned(), "value".to_owned()));
    let mut child = start(&wanted).await;
    let pgid = child.identity().pgid;
    assert_eq!(pgid, child.identity().pid);
    let RunEnd::Exited(status) = child.run_to_end(SOON).await.unwrap() else { panic!() };
    assert!(status.success());
    let dir = scratch.path().to_str().unwrap();
    let lines = tail(&scratch.join("log"), 10);
    // Standard input is empty: reading fails.
    assert_eq!(lines[..2], [dir.to_owned(), format!("{dir} value none")]);
    assert_eq!((lines[2].trim(), lines[3].as_str()), (pgid.to_string().as_str(), "1"));
    assert_eq!(fs::metadata(scratch.join("log")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_is_recorded_before_it_does_anything() {
    let scratch = Scratch::new("recorded").unwrap();
    let used = scratch.join("used");
    let wanted = script(scratch.path(), "touch used");
    let mut pid = None;
    let refused = launch(&wanted, |who| {
        pid = Some(who.pid);
        assert!(runs(who.pid) && !used.exists());
        Err(io::Error::other("the disk is full"))
    });
    assert!(matches!(refused.await, Err(LaunchError::Record(_))));
    wait_until_gone(pid.unwrap());
    assert!(!used.exists());
    // The record as a later run reads it.
    let mut recorded = None;
    let mut child = launch(&wanted, |who| {
        recorded = Some(serde_json::to_string(who).unwrap());
        Ok::<(), Infallible>(())
    })
    .await
    .unwrap();
    assert!(child.wait().await.unwrap().success());
    assert!(used.exists());
    let recorded: ChildIdentity = serde_json::from_str(&recorded.unwrap()).unwrap();
    assert_eq!(&recorded, child.identity());
}

#[test]
fn a_run_that_dies_recording_uses_no_child() {
    let scratch = Scratch::new("aborted").unwrap();
    let dir = scratch.path().to_str().unwrap();
    let status = player("run that dies recording", dir).output().unwrap().status;
    assert!(!status.success());
    wait_until_gone(pid_in(&scratch.join("pid")));
    assert!(!scratch.join("used").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn slips_are_told_before_anything_starts() {
    let scratch = Scratch::new("slips").unwrap();
    let attempt = async |argv: &[&str], user: Option<&str>| {
        let argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
        let user = user.map(str::to_owned);
        let wanted = Launch { argv, user, ..script(scratch.path(), "") };
        let recorded = |_: &ChildIdentity| -> Result<(), io::Error> { panic!("it was started") };
        launch(&wanted, recorded).await.unwrap_err()
    };
    let missing = attempt(&["no-such-program"], None).await;
    assert!(matches!(missing, LaunchError::Program(ProgramError::Missing(_))), "{missing}");
    let empty = attempt(&[], None).await;
    assert!(matches!(empty, LaunchError::Program(ProgramError::NoArgv)), "{empty}");
    fs::write(scratch.join("plain"), "").unwrap();
    let plain = attempt(&["./plain"], None).await;
    assert!(matches!(plain, LaunchError::Program(ProgramError::NotExecutable(_))), "{plain}");
    let nobody = attempt(&["true"], Some("no-such-user")).await;
    assert!(matches!(nobody, LaunchError::UnknownUser(_)), "{nobody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_becomes_its_user_with_all_groups() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let scratch = Scratch::new("user").unwrap();
    let dir = scratch.join("dir");
    fs::create_dir(&dir).unwrap();
    let user = nix::unistd::User::from_name("daemon").unwrap().unwrap();
    chown(&dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    let mut wanted = script(&dir, "id -un; id -G; echo \"$HOME\"; echo x > file");
    wanted.user = Some("daemon".to_owned());
    let mut child = start(&wanted).await;
    assert!(child.wait().await.unwrap().success());
    let expected = Command::new("id").args(["-G", "daemon"]).output().unwrap().stdout;
    let expected = String::from_utf8(expected).unwrap();
    let home = user.dir.to_str().unwrap();
    assert_eq!(tail(&dir.join("log"), 3), ["daemon", expected.trim(), home]);
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&dir.join("file").metadata().unwrap()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_ends_the_whole_family() {
    let scratch = Scratch::new("family").unwrap();
    let mut child = start(&script(scratch.path(), FAMILY)).await;
    let pids = family_pids(scratch.path());
    assert!(child.processes().unwrap() >= pids.len());
    let ended = child.end(Duration::from_millis(200)).await.unwrap();
    assert_eq!((ended.how, ended.left.len()), (How::Killed, 0));
    assert!(ended.status.is_some());
    assert_gone(&pids);
    assert_eq!(child.end(Duration::ZERO).await.unwrap().how, How::WasGone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_listens_ends_in_order() {
    let scratch = Scratch::new("order").unwrap();
    let text = "trap 'echo bye > bye; exit 0' TERM; echo $$ > pid; while :; do sleep 0.01; done";
    let mut child = start(&script(scratch.path(), text)).await;
    pid_in(&scratch.join("pid"));
    let ended = child.end(SOON).await.unwrap();
    assert_eq!(ended.how, How::Terminated);
    assert_eq!(ended.status.unwrap().code(), Some(0));
    assert!(scratch.join("bye").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_child_is_ended_too() {
    let scratch = Scratch::new("stopped").unwrap();
    let mut child = start(&script(scratch.path(), "echo $$ > pid; kill -STOP $$")).await;
    pid_in(&scratch.join("pid"));
    assert_eq!(child.end(SOON).await.unwrap().how, How::Terminated);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_child_left_running_belongs_to_it() {
    let scratch = Scratch::new("left").unwrap();
    // As `pg_ctl start` does: the child ends, what it started goes on.
    let text = "setsid sh -c 'echo $$ > pid; exec sleep 1000' & while ! test -s pid; do :; done";
    let mut child = start(&script(scratch.path(), text)).await;
    let RunEnd::Exited(status) = child.run_to_end(SOON).await.unwrap() else { panic!() };
    assert!(status.success());
    let pid = pid_in(&scratch.join("pid"));
    assert!(runs(pid));
    assert_eq!(child.end(SOON).await.unwrap().how, How::Terminated);
    assert_gone(&[pid]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_its_program_all_the_time_is_seen_every_time() {
    let scratch = Scratch::new("again").unwrap();
    // In the midst of execve(2) a process shows no environment, and so no mark.
    fs::write(scratch.join("again"), "test -s pid || echo $$ > pid; exec sh ./again").unwrap();
    for _ in 0..20 {
        let text = "rm -f pid; setsid sh ./again & while ! test -s pid; do :; done";
        let mut child = start(&script(scratch.path(), text)).await;
        child.wait().await.unwrap();
        let identity = child.detach();
        let pid = pid_in(&scratch.join("pid"));
        assert_eq!(end_recorded(&identity, Duration::ZERO).await.unwrap(), Outcome::Ended);
        assert_gone(&[pid]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_is_there_for_everybody_else() {
    if !can_hide() {
        eprintln!("skipped: only root, where it may mount, can hide files");
        return;
    }
    let scratch = Scratch::new("hidden").unwrap();
    let (folder, file) = (scratch.join("folder with a space"), scratch.join("file"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("inside"), "x").unwrap();
    fs::write(&file, "secret").unwrap();
    let text = "ls -A folder*; cat file; touch 'folder with a space/new' 2>&1 || echo kept; echo over > file; \
                id -u; cat beside; echo $$ > pid; exec sleep 1000";
    fs::write(scratch.join("beside"), "and this is seen\n").unwrap();
    let missing = scratch.join("missing");
    let hidden = vec![folder.join("inside"), folder.clone(), file.clone(), missing];
    let mut child = start(&Launch { hidden: hidden.clone(), ..script(scratch.path(), text) }).await;
    assert_eq!(pid_in(&scratch.join("pid")), child.identity().pid);
    let said = tail(&scratch.join("log"), 10);
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said[0].contains("Read-only file system"), "{said:?}");
    assert_eq!(said[1..], ["kept", "0", "and this is seen"]);
    assert_eq!(seen_by(child.identity(), &hidden).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(fs::read_to_string(&file).unwrap(), "secret");
    assert!(folder.join("inside").exists());
    assert!(child.end(SOON).await.unwrap().is_complete());
    assert!(seen_by(child.identity(), &hidden).is_err(), "who has ended proves nothing");

    let mut seeing = start(&script(scratch.path(), "exec sleep 1000")).await;
    assert_eq!(seen_by(seeing.identity(), std::slice::from_ref(&file)).unwrap(), [file]);
    assert!(seeing.end(SOON).await.unwrap().is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_hidden_is_told() {
    let scratch = Scratch::new("hidden-program").unwrap();
    fs::copy("/bin/true", scratch.join("server")).unwrap();
    let hidden = vec![scratch.path().to_owned()];
    let argv = vec!["./server".to_owned()];
    let wanted = Launch { argv, hidden, ..script(scratch.path(), "") };
    let refused = launch(&wanted, |_| Ok::<(), Infallible>(())).await;
    assert!(matches!(refused, Err(LaunchError::Program(ProgramError::Hidden { .. }))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_too_long_is_ended() {
    let scratch = Scratch::new("long").unwrap();
    let mut child = start(&script(scratch.path(), "echo $$ > pid; sleep 1000")).await;
    let pid = pid_in(&scratch.join("pid"));
    let RunEnd::TimedOut(ended) = child.run_to_end(Duration::from_millis(50)).await.unwrap() else {
        panic!("it cannot have ended")
    };
    assert!(ended.is_complete());
    assert_gone(&[pid]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_ends_and_detaching_does_not() {
    let scratch = Scratch::new("drop").unwrap();
    let child = start(&script(scratch.path(), FAMILY)).await;
    let pids = family_pids(scratch.path());
    drop(child);
    pids.iter().for_each(|pid| wait_until_gone(*pid));

    let other = Scratch::new("detach").unwrap();
    let child = start(&script(other.path(), FAMILY)).await;
    let pids = family_pids(other.path());
    let identity = child.detach();
    assert!(pids.iter().all(|pid| runs(*pid)));
    assert_eq!(end_recorded(&identity, Duration::ZERO).await.unwrap(), Outcome::Ended);
    assert_gone(&pids);
}

/// Starts a family through a run of Muster that is then killed with SIGKILL.
fn orphaned(scratch: &Scratch, text: &str) -> ChildIdentity {
    fs::write(scratch.join("script"), text).unwrap();
    let mut run = player("run that is killed", scratch.path().to_str().unwrap()).spawn().unwrap();
    let record = wait_for("the record", SOON, || fs::read(scratch.join("record")).ok()).unwrap();
    let leader = pid_in(&scratch.join("leader"));
    run.kill().unwrap();
    run.wait().unwrap();
    let identity: ChildIdentity = serde_json::from_slice(&record).unwrap();
    assert_eq!(identity.pid, leader);
    identity
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_run_ends_exactly_what_a_killed_one_left() {
    let scratch = Scratch::new("killed").unwrap();
    // Somebody in the same session with the same program.
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let identity = orphaned(&scratch, FAMILY);
    let pids = family_pids(scratch.path());
    assert!(pids.iter().all(|pid| runs(*pid)), "{pids:?}");

    // The number was given to somebody else since: nobody is touched.
    let reused = ChildIdentity {
        pid: stranger.id(),
        pgid: stranger.id(),
        // Certainly not the stranger's, who was there first.
        start_time: identity.start_time + 1,
        mark: "of another child".to_owned(),
        ..identity.clone()
    };
    let grace = Duration::from_millis(200);
    assert_eq!(end_recorded(&reused, grace).await.unwrap(), Outcome::NotOurs);
    let earlier = ChildIdentity {
        start_time: identity.start_time - 1,
        mark: "of another child".to_owned(),
        ..identity.clone()
    };
    assert_eq!(end_recorded(&earlier, grace).await.unwrap(), Outcome::NotOurs);
    let other_boot = ChildIdentity { boot_id: "another".to_owned(), ..identity.clone() };
    assert_eq!(end_recorded(&other_boot, grace).await.unwrap(), Outcome::WasGone);
    assert!(pids.iter().all(|pid| runs(*pid)), "{pids:?}");

    assert_eq!(end_recorded(&identity, grace).await.unwrap(), Outcome::Ended);
    assert_gone(&pids);
    assert_eq!(end_recorded(&identity, grace).await.unwrap(), Outcome::WasGone);
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_ended_after_its_leader_is_gone() {
    let scratch = Scratch::new("leaderless").unwrap();
    // The one that stays has no mark, but works in the child's directory.
    let text = "env -i sh -c 'echo $$ > member; exec sleep 1000' & echo $$ > leader; wait";
    let identity = orphaned(&scratch, text);
    let member = pid_in(&scratch.join("member"));
    kill(identity.pid);
    let leader = PathBuf::from(format!("/proc/{}", identity.pid));
    // As long as nobody has asked how it ended, its number stays taken.
    wait_for("the leader to be reaped", SOON, || (!leader.exists()).then_some(())).unwrap();
    assert!(runs(member));
    // In another directory, without a mark, it might be a stranger's.
    let elsewhere = ChildIdentity { dir: "/nonexistent".into(), ..identity.clone() };
    assert_eq!(end_recorded(&elsewhere, SOON).await.unwrap(), Outcome::WasGone);
    assert!(runs(member));
    assert_eq!(end_recorded(&identity, SOON).await.unwrap(), Outcome::Ended);
    assert_gone(&[member]);
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}
