//! A store at a distance: never more requests at once than were allowed, more than one where that
//! helps, and what an interrupted run stored is used by the next.

use std::{fs, process::Command, process::Stdio, time::Duration};

use muster_testkit::{
    stores::rest::{Options, RestServer},
    wait_for,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::{PASSWORD, PATIENCE, Ran, Sandbox, run};

const CONNECTIONS: u64 = 3;

fn server() -> RestServer {
    RestServer::start(Options { delay: Duration::from_millis(25), ..Options::default() })
}

/// A repository on the server, and small and large files in many folders.
fn far(name: &str, server: &RestServer) -> Sandbox {
    let sandbox = Sandbox::without_repository(name);
    for number in 0..60_u32 {
        let folder = sandbox.path(&format!("source/{number}/inner"));
        fs::create_dir_all(&folder).unwrap();
        let length = if number % 10 == 0 { 3 << 20 } else { 1000 };
        fs::write(folder.join("file"), noise(number + 1, length)).unwrap();
    }
    run(&mut on(&sandbox, server, &["init"])).expect(0);
    sandbox
}

fn noise(mut seed: u32, length: usize) -> Vec<u8> {
    let next = || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn on(sandbox: &Sandbox, server: &RestServer, arguments: &[&str]) -> Command {
    let (url, bound) =
        (format!("rest:{}", server.url()), format!("rest.connections={CONNECTIONS}"));
    let mut all = vec!["-r", &url, "-o", &bound, "--pack-size", "4"];
    all.extend(arguments);
    let mut command = sandbox.bare_command(&all);
    command.env("MUSTER_PASSWORD", PASSWORD);
    command
}

#[test]
fn requests_at_once_are_several_and_never_more_than_allowed() {
    let server = server();
    let sandbox = far("far", &server);
    let restore = ["restore", "latest", "--target", "back"];
    let few = ["unlock"];
    for arguments in [
        &["backup", "source"][..],
        &["backup", "--force", "source"],
        &["check", "--read-data"],
        &restore,
        &["forget", "--keep-last", "1", "--prune"],
        &few,
    ] {
        server.take_requests_at_once();
        run(&mut on(&sandbox, &server, arguments)).expect(0);
        let at_once = server.take_requests_at_once();
        let least = if arguments == few { 1 } else { 2 };
        assert!((least..=CONNECTIONS).contains(&at_once), "{arguments:?}: {at_once}");
    }
    for number in [0, 59] {
        let file = format!("{number}/inner/file");
        let (from, to) = (format!("source/{file}"), format!("back/source/{file}"));
        assert!(fs::read(sandbox.path(&from)).unwrap() == fs::read(sandbox.path(&to)).unwrap());
    }
}

/// The trees of sixty folders are not sixty round trips.
#[test]
fn folders_are_not_asked_for_one_by_one() {
    let server = server();
    let sandbox = far("far-folders", &server);
    run(&mut on(&sandbox, &server, &["backup", "source"])).expect(0);
    for arguments in [
        &["backup", "source"][..],
        &["ls", "latest"],
        &["check"],
        &["restore", "latest", "--target", "back"],
    ] {
        let before = server.requests();
        run(&mut on(&sandbox, &server, arguments)).expect(0);
        let asked = server.requests() - before;
        assert!(asked < 45, "{arguments:?}: {asked} requests");
    }
}

#[test]
fn what_an_interrupted_run_stored_is_adopted() {
    let server = server();
    let sandbox = far("far-interrupted", &server);
    let packs = || server.files().iter().filter(|path| path.contains("/data/")).count();
    let mut backup = on(&sandbox, &server, &["--limit-upload", "4096", "backup", "source"]);
    let mut child = backup.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let seen = || {
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        (packs() > 0).then_some(())
    };
    wait_for("a pack in the store", PATIENCE, seen).unwrap();
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    Ran::of(child.wait_with_output().unwrap()).expect(130);
    let stored = packs();
    let again = run(&mut on(&sandbox, &server, &["backup", "source"])).expect(0);
    again.tells("of an interrupted backup");
    let all = packs();
    run(&mut on(&sandbox, &server, &["check", "--read-data"])).expect(0);
    assert!(all > stored, "and the rest was added");
}
