//! A new data key, while backups go on.

use std::{
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use muster_testkit::walker::{Tolerance, assert_same, walk};

use crate::sandbox::{PASSWORD, Ran, Sandbox, run};

const ROTATE: [&str; 4] = ["key", "rotate", "--into", "new"];

fn rotate(sandbox: &Sandbox, more: &[&str]) -> Ran {
    sandbox.run(&[&ROTATE[..], more].concat())
}

#[test]
fn a_key_is_rotated_in_rounds_and_finished_with_a_proof() {
    let sandbox = Sandbox::new("rotation");
    let restic = sandbox.restic();
    let sound = |repository: &str| {
        sandbox.run(&["-r", repository, "check", "--read-data"]).expect(0);
        if let Some(restic) = &restic {
            restic.succeed(["-r", repository, "check", "--read-data"]).unwrap();
        }
    };
    sandbox.run(&["backup", "source", "--tag", "first"]).expect(0);
    sandbox.write("other", "second password");
    sandbox.run(&["key", "add", "--new-password-file", "other", "--user", "ana"]).expect(0);
    rotate(&sandbox, &["--status"]).expect(1);

    rotate(&sandbox, &[]).expect(0).shows("sealed 1 snapshot anew").tells("not finished");
    sound("repo");
    sound("new");
    sandbox.write("source/late.txt", "late\n");
    sandbox.run(&["backup", "source"]).expect(0);
    let status = rotate(&sandbox, &["--status", "--json"]).expect(5).json();
    assert_eq!((&status["finished"], &status["there"]), (&false.into(), &1.into()));
    assert_eq!(status["missing"].as_array().unwrap().len(), 1);
    assert_eq!(status["keys_to_add"][0]["userName"], "ana");
    rotate(&sandbox, &["--status"]).expect(5).shows("missing: ").shows("not finished");

    // Nobody may back up into the old one while the end is being proven.
    let mut backup = sandbox.waiting_backup();
    rotate(&sandbox, &["--finish"]).expect(4).tells("locked");
    drop(backup.stdin.take());
    Ran::of(backup.wait_with_output().unwrap()).expect(0);

    let ran = rotate(&sandbox, &["--finish"]).expect(0);
    let ran = ran.shows("3 of 3 snapshots").shows("finished: everything of ").shows("of ana on ");
    ran.tells("delete the old one");
    sound("repo");
    sound("new");
    assert_eq!(sandbox.locks(), 0);
    let done = rotate(&sandbox, &["--finish", "--read-data-subset", "50%", "--json"]).expect(0);
    let done = done.last_json();
    assert_eq!((&done["finished"], &done["copied"]), (&true.into(), &0.into()));
    let status = rotate(&sandbox, &["--status", "--json"]).expect(0).json();
    assert_eq!(status["finished"], true);
    rotate(&sandbox, &["--status"]).expect(0).shows("finished: --finish proved");
    let unknown = rotate(&sandbox, &["--status", "--no-cache"]).expect(0);
    drop(unknown.shows("no proof of it is noted here"));

    // The old password opens both; the other one only the old; no key file of one opens the other.
    let second = |repository: &str| {
        let arguments = ["-r", repository, "snapshots", "--password-file", "other"];
        sandbox.bare_command(&arguments)
    };
    run(&mut second("repo")).expect(0);
    run(&mut second("new")).expect(4);
    for (from, to) in [("repo", "new"), ("new", "repo")] {
        let mixed = format!("mixed-{to}");
        for (folder, origin) in [("keys", from), ("snapshots", to), ("index", to), ("data", to)] {
            std::fs::create_dir_all(sandbox.path(&mixed)).unwrap();
            copy(&sandbox, &format!("{origin}/{folder}"), &format!("{mixed}/{folder}"));
        }
        std::fs::copy(sandbox.path(to).join("config"), sandbox.path(&mixed).join("config"))
            .unwrap();
        let ran = sandbox.run(&["-r", &mixed, "snapshots", "--no-lock"]);
        assert_ne!(ran.code, Some(0), "{}", ran.stdout);
    }
    sandbox
        .run(&["-r", "new", "restore", "latest", "--path", &source(&sandbox), "--target", "back"])
        .expect(0);
    let (source, back) = (sandbox.path("source"), sandbox.path("back/source"));
    assert_same(&walk(&source).unwrap(), &walk(&back).unwrap(), &Tolerance::default());
}

fn source(sandbox: &Sandbox) -> String {
    sandbox.path("source").to_string_lossy().into_owned()
}

fn copy(sandbox: &Sandbox, from: &str, to: &str) {
    let (from, to) = (sandbox.path(from), sandbox.path(to));
    let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[test]
fn a_place_that_cannot_be_the_successor_is_refused() {
    let sandbox = Sandbox::new("rotation-target");
    sandbox.run(&["backup", "source"]).expect(0);
    let ran = sandbox.run(&["key", "rotate", "--into", "repo"]).expect(4);
    ran.tells("the same key");
    let mut init = sandbox.command(&["-r", "stranger", "init"]);
    run(&mut init).expect(0);
    let ran = sandbox.run(&["key", "rotate", "--into", "stranger", "--json"]).expect(4);
    assert_eq!(ran.error()["code"], "rotation-target");
}

/// Killed at any moment, and beside backups: the next round goes on.
#[test]
fn a_killed_rotation_goes_on_beside_backups() {
    let sandbox = Sandbox::new("rotation-killed");
    for number in 0..60 {
        sandbox.write(&format!("source/file-{number}"), &format!("{number}\n").repeat(9_000));
    }
    sandbox.run(&["backup", "source"]).expect(0);
    let start = |arguments: &[&str]| -> Child {
        let mut command = sandbox.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for delay_ms in [1, 20, 60, 150, 400] {
        let mut rotation = start(&ROTATE);
        let backup = start(&["backup", "source"]);
        thread::park_timeout(Duration::from_millis(delay_ms));
        rotation.kill().unwrap();
        rotation.wait().unwrap();
        Ran::of(backup.wait_with_output().unwrap()).expect(0);
    }
    sandbox.run(&["unlock"]).expect(0);
    rotate(&sandbox, &[]).expect(0);
    sandbox.run(&["-r", "new", "unlock"]).expect(0);
    let done = rotate(&sandbox, &["--finish", "--json"]).expect(0).last_json();
    assert_eq!((&done["finished"], &done["there"]), (&true.into(), &6.into()));
    for repository in ["repo", "new"] {
        sandbox.run(&["-r", repository, "check", "--read-data"]).expect(0);
        if let Some(restic) = sandbox.restic() {
            restic.succeed(["-r", repository, "check", "--read-data"]).unwrap();
        }
    }
    let wrong = sandbox.command(&["-r", "new", "snapshots"]).env("MUSTER_PASSWORD", "x").output();
    assert_eq!(wrong.unwrap().status.code(), Some(4), "{PASSWORD} alone opens it");
}
