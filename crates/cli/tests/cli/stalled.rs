//! Ctrl-C while a store does not answer, answers only that it is busy, or takes its time: the
//! command ends at once, its lock is gone where the store still takes that, and the next one
//! goes on.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use muster_testkit::{
    Scratch,
    stores::rest::{Mood, Options, RestServer},
    wait_for,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    plan::muster,
    sandbox::{PASSWORD, PATIENCE, Ran, Sandbox, run},
};

/// It takes less than a second where nobody else wants the processor; a store's own limits are
/// minutes.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A sandbox with enough to back up for several packs, and a repository on the server.
fn far(name: &str, server: &RestServer) -> Sandbox {
    let sandbox = Sandbox::without_repository(name);
    for number in 0..3_u32 {
        let mut seed = number + 1;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed.to_le_bytes()[0]
        };
        let noise: Vec<u8> = (0..3 << 20).map(|_| next()).collect();
        fs::write(sandbox.path(&format!("source/{number}")), noise).unwrap();
    }
    run(&mut on(&sandbox, server, &["init"])).expect(0);
    sandbox
}

fn on(sandbox: &Sandbox, server: &RestServer, arguments: &[&str]) -> Command {
    let url = format!("rest:{}", server.url());
    let mut all = vec!["-r", &url, "--pack-size", "4"];
    all.extend(arguments);
    let mut command = sandbox.bare_command(&all);
    command.env("MUSTER_PASSWORD", PASSWORD);
    command
}

/// What may still be asked for after an interrupt: what was about to be, and the release of locks.
/// Whoever went on with the work, or tried again, would ask for much more.
const LAST_REQUESTS: u64 = 12;

/// Starts a command, waits until `reached`, interrupts it; it must end at once, and the server is not
/// asked for more. That holds on a busy machine, too, where time tells little.
fn interrupted(
    server: &RestServer,
    command: &mut Command,
    what: &str,
    reached: impl Fn() -> bool,
) -> Ran {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let seen = || {
        assert_eq!(child.try_wait().unwrap(), None, "{what} ended by itself");
        reached().then_some(())
    };
    wait_for(what, PATIENCE, seen).unwrap();
    let (began, before) = (Instant::now(), server.requests());
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap()).expect(130);
    assert!(began.elapsed() < AT_ONCE, "{what}: {:?}", began.elapsed());
    let requests = server.requests() - before;
    assert!(requests <= LAST_REQUESTS, "{what}: {requests} requests");
    ran.tells("stopping in order")
}

fn locks(server: &RestServer) -> usize {
    server.files().iter().filter(|path| path.contains("/locks/")).count()
}

#[test]
fn a_backup_that_waits_for_a_store_ends_at_once_and_goes_on_later() {
    let server = RestServer::start(Options::default());
    let sandbox = far("stalled-backup", &server);
    for mood in [Mood::Silent, Mood::Busy] {
        server.set_mood(Some(mood), "POST /data/");
        let mut backup = on(&sandbox, &server, &["backup", "source"]);
        interrupted(&server, &mut backup, "a refused pack", || server.troubled() > 0);
        assert_eq!(locks(&server), 0, "the store still took this");
    }
    server.set_mood(None, "");
    run(&mut on(&sandbox, &server, &["backup", "source"])).expect(0);
    run(&mut on(&sandbox, &server, &["check", "--read-data"])).expect(0);
}

#[test]
fn check_and_restore_end_at_once() {
    let server = RestServer::start(Options::default());
    let sandbox = far("stalled-reading", &server);
    run(&mut on(&sandbox, &server, &["backup", "source"])).expect(0);
    let restore = ["restore", "latest", "--target", "back"];
    for arguments in [&["check", "--read-data"], restore.as_slice()] {
        server.set_mood(Some(Mood::Silent), "GET /data/");
        let mut command = on(&sandbox, &server, arguments);
        let ran = interrupted(&server, &mut command, "a read that waits", || server.troubled() > 0);
        assert!(!ran.stdout.contains("damage"), "an interruption is no damage: {}", ran.stdout);
        assert_eq!(locks(&server), 0);
    }
    server.set_mood(None, "");
    run(&mut on(&sandbox, &server, &["restore", "latest", "--target", "back2"])).expect(0);
}

/// A prune that reads, writes and deletes.
const PRUNE: [&str; 5] = ["prune", "--instant", "--max-unused", "0", "--repack-small"];

#[test]
fn copy_and_prune_end_at_once() {
    let (server, other) =
        (RestServer::start(Options::default()), RestServer::start(Options::default()));
    let sandbox = far("stalled-copy", &server);
    run(&mut on(&sandbox, &server, &["backup", "source"])).expect(0);
    let url = format!("rest:{}", server.url());
    run(&mut on(&sandbox, &other, &["init"])).expect(0);
    let copy = || {
        let mut copy = on(&sandbox, &other, &["copy", "--from-repo", &url]);
        copy.env("MUSTER_FROM_PASSWORD", PASSWORD);
        copy
    };
    for mood in [Mood::Silent, Mood::Busy] {
        // Where it reads, and where it writes.
        server.set_mood(Some(mood), "GET /data/");
        interrupted(&server, &mut copy(), "a copy that reads", || server.troubled() > 0);
        server.set_mood(None, "");
        other.set_mood(Some(mood), "POST /data/");
        interrupted(&other, &mut copy(), "a copy that writes", || other.troubled() > 0);
        other.set_mood(None, "");
        assert_eq!((locks(&server), locks(&other)), (0, 0));
    }
    run(&mut copy()).expect(0);
    for name in ["0", "1"] {
        fs::remove_file(sandbox.path("source").join(name)).unwrap();
    }
    run(&mut on(&sandbox, &other, &["backup", "source"])).expect(0);
    run(&mut on(&sandbox, &other, &["forget", "--keep-last", "1", "--group-by", ""])).expect(0);
    for (mood, request) in [
        (Mood::Silent, "GET /data/"),
        (Mood::Silent, "POST /data/"),
        (Mood::Silent, "DELETE /data/"),
        (Mood::Busy, "DELETE /data/"),
    ] {
        other.set_mood(Some(mood), request);
        let mut prune = on(&sandbox, &other, &PRUNE);
        interrupted(&other, &mut prune, request, || other.troubled() > 0);
        assert_eq!(locks(&other), 0, "{request}");
    }
    other.set_mood(None, "");
    run(&mut on(&sandbox, &other, &PRUNE)).expect(0);
    run(&mut on(&sandbox, &other, &["check", "--read-data"])).expect(0);
}

#[test]
fn a_store_that_is_silent_altogether_keeps_only_its_lock() {
    let server = RestServer::start(Options::default());
    let sandbox = far("stalled-altogether", &server);
    let mut backup = on(&sandbox, &server, &["backup", "source"]);
    server.set_mood(Some(Mood::Silent), "GET /index/");
    interrupted(&server, &mut backup, "an index that waits", || {
        if server.troubled() > 0 && locks(&server) == 1 {
            server.set_mood(Some(Mood::Silent), "");
            return true;
        }
        false
    });
    assert_eq!(locks(&server), 1);
    server.set_mood(None, "");
    run(&mut on(&sandbox, &server, &["unlock"])).expect(0);
    assert_eq!(locks(&server), 0, "its process is gone");
}

#[test]
fn a_paced_backup_ends_at_once() {
    let server = RestServer::start(Options::default());
    let sandbox = far("stalled-pace", &server);
    let mut backup = on(&sandbox, &server, &["--limit-upload", "16", "backup", "source"]);
    // The first pack takes minutes at this rate.
    interrupted(&server, &mut backup, "the lock", || locks(&server) == 1);
    run(&mut on(&sandbox, &server, &["unlock"])).expect(0);
    run(&mut on(&sandbox, &server, &["backup", "source"])).expect(0);
}

#[test]
fn a_backup_by_the_plan_ends_at_once() {
    let server = RestServer::start(Options::default());
    let scratch = Scratch::new("stalled-plan").unwrap();
    let plan = format!(
        "muster: 1\nname: far\nregions: [west]\nrepositories:\n  far: {{url: \"rest:{}\", \
         region: west, password: file:./secret}}\nservices:\n  files:\n    region: west\n    \
         data:\n      docs: {{files: ./docs}}\n    protect:\n      - {{data: [docs], every: 1h, \
         to: far}}\n",
        server.url()
    );
    fs::write(scratch.join("muster.yaml"), plan).unwrap();
    fs::write(scratch.join("secret"), "correct horse\n").unwrap();
    fs::create_dir(scratch.join("docs")).unwrap();
    fs::write(scratch.join("docs/a"), "alpha").unwrap();
    server.set_mood(Some(Mood::Silent), "POST /data/");
    let mut backup = muster(scratch.path(), &["backup"]);
    interrupted(&server, &mut backup, "a pack that waits", || server.troubled() > 0);
    assert_eq!(locks(&server), 0);
    server.set_mood(None, "");
    run(&mut muster(scratch.path(), &["backup"])).expect(0);
}

/// The status lines that a command with `--json` writes to standard error; its standard output must
/// be one document.
#[track_caller]
fn status_lines(command: &mut Command) -> Vec<serde_json::Value> {
    let ran = run(command.env("RESTIC_PROGRESS_FPS", "50")).expect(0);
    assert!(ran.json().is_object(), "{}", ran.stdout);
    let lines = ran.stderr.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    assert!(lines.iter().all(|line| line["message_type"] == "status"), "{lines:#?}");
    lines
}

#[test]
fn json_tells_on_standard_error_how_far_it_is() {
    let (server, other) =
        (RestServer::start(Options::default()), RestServer::start(Options::default()));
    let sandbox = far("json-progress", &server);
    run(&mut on(&sandbox, &server, &["backup", "source"])).expect(0);
    // 9 MiB of noise at 12 MiB a second.
    let check = ["check", "--read-data", "--json", "--limit-download", "12288"];
    let lines = status_lines(&mut on(&sandbox, &server, &check));
    let reading = lines.iter().filter(|line| line["total_packs"].is_u64());
    let parts: Vec<f64> = reading.map(|line| line["percent_done"].as_f64().unwrap()).collect();
    assert!(parts.len() > 3 && parts.is_sorted(), "{lines:#?}");
    assert!(parts.iter().any(|part| *part > 0.1 && *part < 1.0), "{parts:?}");
    assert!(lines.last().unwrap()["total_bytes"].as_u64().unwrap() > 9 << 20, "{lines:#?}");

    let url = format!("rest:{}", server.url());
    run(&mut on(&sandbox, &other, &["init"])).expect(0);
    let copy = ["copy", "--from-repo", &url, "--json", "--limit-upload", "12288"];
    let mut copy = on(&sandbox, &other, &copy);
    let lines = status_lines(copy.env("MUSTER_FROM_PASSWORD", PASSWORD));
    assert!(lines.iter().any(|line| line["blobs_done"].is_u64()), "{lines:#?}");
    // Quiet is quiet.
    let mut quiet = on(&sandbox, &server, &["check", "--read-data", "--json", "--quiet"]);
    let ran = run(quiet.env("RESTIC_PROGRESS_FPS", "50")).expect(0);
    assert_eq!(ran.stderr, "");
}
