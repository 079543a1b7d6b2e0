//! A repository whose data lies in an archive: what works without it, what asks first, what waits.

use std::{
    fs,
    io::{BufRead, BufReader, Read as _},
    process::Stdio,
    time::{Duration, Instant},
};

use muster_testkit::{
    stores::{self, Server},
    wait_for,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    immutable::{ask, keys},
    plan::muster,
    sandbox::{PASSWORD, PATIENCE, Ran, Sandbox, run},
    stores::Place,
};

fn place(server: &Server, name: &str) -> Place {
    Place::new(format!("s3:http://{}/muster/{name}", server.address()))
        .login(&[("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hush")])
}

pub(crate) fn cold(server: &Server, name: &str) -> Place {
    let mut place = place(server, name);
    place.options.push("s3.storage-class=GLACIER".to_owned());
    place
}

/// The objects, and whether each is archived.
fn objects(server: &Server) -> Vec<(String, bool)> {
    let looked = keys(server).into_iter().map(|key| {
        let head = ask(server, &format!("HEAD /muster/{key}"), b"").to_ascii_lowercase();
        (key, head.contains("x-amz-storage-class: glacier"))
    });
    looked.collect()
}

fn archived(server: &Server) -> Vec<String> {
    objects(server).into_iter().filter(|(_, cold)| *cold).map(|(key, _)| key).collect()
}

/// Copies from the place into a new repository in the folder `to`.
fn copy_out(sandbox: &Sandbox, place: &Place, to: &str, flags: &[&str]) -> Ran {
    let mut init = sandbox.bare_command(&["-r", to, "init"]);
    if !sandbox.path(to).exists() {
        run(init.env("MUSTER_PASSWORD", PASSWORD)).expect(0);
    }
    let mut arguments = vec!["--json", "-r", to, "copy", "--from-repo", &place.url];
    arguments.extend(place.options.iter().flat_map(|option| ["-o", option]));
    arguments.extend(flags);
    let mut command = sandbox.bare_command(&arguments);
    place.dress(&mut command).env("MUSTER_FROM_PASSWORD", PASSWORD);
    run(command.env("MUSTER_PASSWORD", PASSWORD))
}

#[test]
fn data_is_archived_and_only_what_needs_it_waits_for_it() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let sandbox = Sandbox::without_repository("cold");
    let place = cold(&server, "one");
    place.muster(&sandbox, &["init"]).expect(0);
    place.muster(&sandbox, &["backup", "source"]).expect(0);
    sandbox.write("source/a.txt", "alpha, and more\n");
    place.muster(&sandbox, &["backup", "source"]).expect(0).shows("1 changed");
    let all = objects(&server);
    let data = archived(&server);
    assert!(data.iter().all(|key| key.contains("/data/")) && data.len() == 2, "{all:?}");
    let packs = all.iter().filter(|(key, _)| key.contains("/data/")).count();
    assert_eq!(packs, 4, "packs of folders lie in the bucket's own class: {all:?}");

    // The server refuses to read what is archived, so all of these read none of it.
    for hot in [
        &["snapshots"][..],
        &["ls", "latest"],
        &["find", "*.txt"],
        &["stats"],
        &["check"],
        &["backup", "source"],
        &["tag", "--add", "x", "latest"],
        &["rewrite", "--new-host", "other", "latest"],
        &["forget", "--keep-last", "3"],
        &["prune", "--dry-run"],
        &["repair", "index"],
    ] {
        place.muster(&sandbox, hot).expect(0);
    }
    let listed = place.muster(&sandbox, &["--json", "snapshots"]).expect(0).json();
    let ids = listed.as_array().unwrap();
    let id = |at: usize| ids[at]["id"].as_str().unwrap().to_owned();
    place.muster(&sandbox, &["diff", &id(0), &id(1)]).expect(0).shows("a.txt");

    let restore = ["--json", "restore", "latest", "--target", "back"];
    let refused = place.muster(&sandbox, &restore).expect(4).error();
    assert_eq!(refused["code"], "packs-archived");
    assert!(refused["message"].as_str().unwrap().contains("2 packs ("), "{refused}");
    assert!(!sandbox.path("back").exists());
    let dry =
        place.muster(&sandbox, &["--json", "restore", "latest", "--target", "back", "--dry-run"]);
    assert!(dry.expect(0).stdout.contains("\"archived\":{\"bytes\":"));
    for cold in [
        &["dump", "latest", "source/a.txt"][..],
        &["check", "--read-data"],
        &["dump", "--target", "x.tar", "latest", "/"],
    ] {
        let cold = [&["--json"], cold].concat();
        assert_eq!(place.muster(&sandbox, &cold).expect(4).error()["code"], "packs-archived");
    }
    assert_eq!(copy_out(&sandbox, &place, "out", &[]).expect(4).error()["code"], "packs-archived");

    let warm = ["restore", "latest", "--target", "back", "--warm-up", "--warm-up-timeout", "1h"];
    let ran = place.muster(&sandbox, &warm).expect(0);
    assert!(ran.stderr.contains("the store brings back 2 packs"), "{}", ran.stderr);
    assert!(ran.stderr.contains("can be read now"), "{}", ran.stderr);
    let restored = fs::read_to_string(sandbox.path("back/source/a.txt")).unwrap();
    assert_eq!(restored, "alpha, and more\n");
    // What is back can be read by all for some days.
    place.muster(&sandbox, &["check", "--read-data"]).expect(0);
    copy_out(&sandbox, &place, "out", &[]).expect(0);
}

#[test]
fn a_prune_deletes_archived_packs_and_repacks_none() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let sandbox = Sandbox::without_repository("cold-prune");
    let place = cold(&server, "two");
    place.muster(&sandbox, &["init"]).expect(0);
    place.muster(&sandbox, &["backup", "source"]).expect(0);
    fs::remove_file(sandbox.path("source/a.txt")).unwrap();
    place.muster(&sandbox, &["backup", "source"]).expect(0);
    sandbox.write("other/c.txt", "gamma\n");
    place.muster(&sandbox, &["backup", "other"]).expect(0);
    assert_eq!(archived(&server).len(), 2);
    let listed = place.muster(&sandbox, &["--json", "snapshots"]).expect(0).json();
    let ids = listed.as_array().unwrap();
    let id = |at: usize| ids[at]["id"].as_str().unwrap();
    // The first pack of data is half waste then, the last one wholly.
    place.muster(&sandbox, &["forget", id(0), id(2)]).expect(0);
    let prune = ["--json", "prune", "--max-unused", "0"];
    let pruned = place.muster(&sandbox, &[&prune[..], &["--instant"]].concat()).expect(0).json();
    let left = archived(&server);
    assert_eq!(left.len(), 1, "{pruned}");
    assert!(pruned["remaining_unused_bytes"].as_u64().unwrap() > 0, "{pruned}");
    place.muster(&sandbox, &[&prune[..], &["--instant", "--warm-up"]].concat()).expect(0);
    let repacked = archived(&server);
    assert!(repacked.len() == 1 && repacked != left, "{repacked:?}");
    place.muster(&sandbox, &["check"]).expect(0);
}

/// A rule of the bucket may archive what was written long ago; nothing tells of that beforehand.
#[test]
fn what_somebody_archived_is_told_and_comes_back() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let sandbox = Sandbox::without_repository("cold-by-rule");
    let written = cold(&server, "three");
    written.muster(&sandbox, &["init"]).expect(0);
    written.muster(&sandbox, &["backup", "source"]).expect(0);
    let place = place(&server, "three");
    let ran = place.muster(&sandbox, &["restore", "latest", "--target", "back"]).expect(5);
    assert!(ran.stderr.contains("store-archived") || ran.stderr.contains("InvalidObjectState"));
    let checked = place.muster(&sandbox, &["check", "--read-data"]).expect(5);
    checked.shows("not read back: 1 pack").shows("no damage found");
    place.muster(&sandbox, &["check", "--read-data", "--warm-up"]).expect(0);
    let again = ["restore", "latest", "--target", "back", "--overwrite", "always"];
    place.muster(&sandbox, &again).expect(0);
}

#[test]
fn a_wait_for_an_archive_ends_at_once_when_interrupted() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    stores::slow_archive(&server);
    let sandbox = Sandbox::without_repository("cold-interrupt");
    let place = cold(&server, "four");
    place.muster(&sandbox, &["init"]).expect(0);
    place.muster(&sandbox, &["backup", "source"]).expect(0);
    let arguments = place.arguments(&["restore", "latest", "--target", "back", "--warm-up"]);
    let mut command = sandbox.bare_command(&arguments);
    place.dress(&mut command).env("MUSTER_PASSWORD", PASSWORD);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("the store brings back") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before it waited");
    }
    let began = Instant::now();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    let status = child.wait().unwrap();
    // The first pause alone is ten seconds long.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(status.code(), Some(130), "{rest}");
    assert!(!sandbox.path("back").exists());
}

/// Moves files into the archive, as a rule of the bucket does.
fn archive(server: &Server, which: impl Fn(&str) -> bool) {
    for key in keys(server).into_iter().filter(|key| which(key)) {
        let headers = [
            "Authorization: AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=0"
                .to_owned(),
            format!("x-amz-copy-source: /muster/{key}"),
            "x-amz-storage-class: GLACIER".to_owned(),
        ];
        let line = format!("PUT /muster/{key} HTTP/1.1");
        let answer = stores::request(server.address(), &line, &headers, b"").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn folders_that_a_rule_archived_come_back_too() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let sandbox = Sandbox::without_repository("cold-folders");
    let place = place(&server, "five");
    place.muster(&sandbox, &["init"]).expect(0);
    place.muster(&sandbox, &["backup", "source"]).expect(0);
    archive(&server, |key| key.contains("/data/"));
    assert_eq!(archived(&server).len(), 2);
    let restore = ["--json", "restore", "latest", "--target", "back"];
    assert_eq!(place.muster(&sandbox, &restore).expect(4).error()["code"], "store-archived");
    let checked = place.muster(&sandbox, &["check"]).expect(5);
    checked.shows("not read back: 1 pack").shows("not looked into: 1 folder");
    let ran = place.muster(&sandbox, &["restore", "latest:source", "--target", "b", "--warm-up"]);
    let told = ran.expect(0).stderr;
    assert_eq!(told.matches("the store brings back 1 pack (").count(), 2, "{told}");
    assert!(sandbox.path("b/a.txt").exists());
}

#[test]
fn what_every_command_needs_comes_back_too() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let sandbox = Sandbox::without_repository("cold-small");
    let place = place(&server, "six");
    place.muster(&sandbox, &["init"]).expect(0);
    place.muster(&sandbox, &["backup", "source"]).expect(0);
    archive(&server, |key| !key.contains("/data/"));
    assert_eq!(archived(&server).len(), 4);
    let error = place.muster(&sandbox, &["--json", "snapshots"]).expect(4).error();
    assert_eq!(error["code"], "store-archived");
    let told = error.to_string();
    for file in ["config", "keys/", "snapshots/", "index/", "--warm-up"] {
        assert!(told.contains(file), "{file}: {told}");
    }
    let restore = ["restore", "latest:source", "--target", "back", "--warm-up"];
    let ran = place.muster(&sandbox, &restore).expect(0);
    ran.tells("the store brings back 4 small files (").tells("4 small files (");
    assert!(sandbox.path("back/a.txt").exists());
    place.muster(&sandbox, &["check"]).expect(0);
}

#[test]
fn a_plan_says_how_what_it_needs_comes_back() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let sandbox = Sandbox::without_repository("cold-plan-small");
    sandbox.write("secret", PASSWORD);
    sandbox.write("id", "me");
    cold_plan(&server, &sandbox, "30d");
    let plan = |arguments: &[&str]| run(&mut muster(&sandbox.path(""), arguments));
    plan(&["backup"]).expect(0);
    archive(&server, |key| key.contains("/snapshots/") || key.contains("/index/"));
    plan(&["points"]).expect(4).tells("archived: snapshots/").tells("index/");
    plan(&["verify"]).expect(4).tells("--warm-up");
    plan(&["verify", "--warm-up"]).expect(0).tells("small files (").shows("no damage found");
    plan(&["points"]).expect(0).shows("files/docs");
}

/// A plan whose only copy lies in an archive, to be read back within `within`.
fn cold_plan(server: &Server, sandbox: &Sandbox, within: &str) {
    let plan = format!(
        "muster: 1\nname: cold\nregions: [west]\nrepositories:\n  deep: {{url: \
         \"s3:http://{}/muster/plan\", region: west, password: file:./secret, options: \
         {{s3.storage-class: GLACIER}}, credentials: {{AWS_ACCESS_KEY_ID: file:./id, \
         AWS_SECRET_ACCESS_KEY: file:./id}}, verify: {{within: {within}}}}}\nservices:\n  files:\n    \
         region: west\n    data:\n      docs: {{files: ./source}}\n    protect:\n      - {{data: \
         [docs], every: 1h, to: deep}}\n",
        server.address()
    );
    sandbox.write("muster.yaml", &plan);
}

#[test]
fn a_plan_reads_back_what_it_can_and_what_is_archived_stays_due() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let sandbox = Sandbox::without_repository("cold-verify");
    sandbox.write("secret", PASSWORD);
    sandbox.write("id", "me");
    cold_plan(&server, &sandbox, "30d");
    let plan = |arguments: &[&str]| run(&mut muster(&sandbox.path(""), arguments));
    plan(&["backup"]).expect(0);
    let read = plan(&["verify", "--json"]).expect(5).json();
    let deep = &read["repositories"][0];
    let count = |name: &str| deep[name].as_u64().unwrap();
    assert!(count("packs_read") > 0 && count("bytes_archived") > 0, "{deep:#}");
    assert_eq!(count("packs_archived"), count("packs") - count("packs_read"), "{deep:#}");
    assert_eq!(count("packs_never_read"), count("packs_archived"), "{deep:#}");
    let again = plan(&["verify"]).expect(5);
    again.shows("read back 0 of").shows("not read back: ").shows("no damage found");
    assert!(!plan(&["status"]).stderr.contains("was not read back whole"), "not overdue yet");
    // What is overdue is told with its reason.
    cold_plan(&server, &sandbox, "1s");
    let told = || plan(&["status"]).stderr.contains("muster verify deep --warm-up").then_some(());
    wait_for("the second to pass", PATIENCE, told).unwrap();
    let checked = plan(&["plan", "check"]);
    let told = checked.stdout + &checked.stderr;
    assert!(told.contains("verify-overdue") && told.contains(" archived"), "{told}");
    cold_plan(&server, &sandbox, "30d");
    let warmed = plan(&["verify", "--warm-up"]).expect(0);
    warmed.tells("the store brings back").shows("no damage found");
    let read = plan(&["verify", "--json"]).expect(0).json();
    assert_eq!(read["repositories"][0]["packs_never_read"], 0, "{read:#}");
}
