//! The verbs that only read: snapshots, ls, find, diff, dump, stats, copy.

use std::process::{Command, Stdio};

use muster_testkit::peers;
use serde_json::{Value, json};

use crate::sandbox::{PASSWORD, Sandbox, run};

/// A sandbox with two snapshots; the second has one file more.
fn two_snapshots(name: &str) -> Sandbox {
    let sandbox = Sandbox::new(name);
    let time = |day: &str| format!("2026-01-{day} 10:00:00");
    sandbox.run(&["backup", "source", "--time", &time("01"), "--host", "one"]).expect(0);
    sandbox.write("source/new.txt", "new\n");
    sandbox.run(&["backup", "source", "--time", &time("02"), "--host", "two"]).expect(0);
    sandbox
}

/// The text with ids and sizes made equal, and without white space at line ends.
fn redacted(text: &str) -> String {
    let is_id = |word: &str| word.len() >= 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let lines = text.lines().map(|line| match line.split_once(' ') {
        Some((first, rest)) if is_id(first) => format!("[id] {rest}").trim_end().to_owned(),
        _ => line.trim_end().to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn snapshots_are_a_table() {
    let sandbox = two_snapshots("snapshots");
    let table = redacted(&sandbox.run(&["snapshots", "--compact"]).expect(0).stdout);
    let expected = "\
ID         Time                  Host   Tags                      Size
------------------------------------------------------------------------
[id]   2026-01-01 10:00:00   one    muster:kind=incremental   11 B
[id]   2026-01-02 10:00:00   two    muster:kind=incremental   15 B
2 snapshots";
    assert_eq!(table, expected);
    let ran = sandbox.run(&["snapshots", "--host", "two"]).expect(0).shows("1 snapshot\n");
    let path = sandbox.path("source");
    ran.shows(path.to_str().unwrap());
    let ran = sandbox.run(&["snapshots", "--group-by", "host", "--latest", "1"]).expect(0);
    ran.shows("snapshots for (host [one]):").shows("snapshots for (host [two]):");
}

#[test]
fn snapshots_have_the_json_of_restic() {
    let sandbox = two_snapshots("snapshots-json");
    let all = sandbox.run(&["snapshots", "--json"]).expect(0).json();
    let first = &all[0];
    let id = first["id"].as_str().unwrap();
    assert_eq!(first["short_id"], id[..8]);
    assert_eq!(first["paths"], json!([sandbox.path("source")]));
    assert_eq!(first["summary"]["files_new"], 2);
    let groups = sandbox.run(&["snapshots", "--json", "--group-by", "host"]).expect(0).json();
    assert_eq!(groups[0]["group_key"], json!({"hostname": "one", "paths": null, "tags": null}));
    assert_eq!(groups[0]["snapshots"][0]["id"], id);
    let one = sandbox.run(&["snapshots", "--json", &id[..12]]).expect(0).json();
    assert_eq!(one.as_array().unwrap().len(), 1);
    sandbox.run(&["snapshots", "0123456789ab"]).expect(1).tells("there is none");
    sandbox.run(&["snapshots", "no-id"]).expect(2).tells("it is no id");
}

#[test]
fn a_snapshot_is_listed_short_long_and_as_json() {
    let sandbox = two_snapshots("ls");
    let paths = sandbox.run(&["ls", "latest", "-q"]).expect(0);
    let expected = "/source\n/source/a.txt\n/source/new.txt\n/source/sub\n/source/sub/b.txt\n";
    assert_eq!((paths.stdout.as_str(), paths.stderr.as_str()), (expected, ""));
    let ran = sandbox.run(&["ls", "-l", "latest:/source", "/sub"]).expect(0);
    ran.shows("drwxr-xr-x").shows("     5 ").shows(" /sub/b.txt\n");
    let ran = sandbox.run(&["ls", "latest", "--json"]).expect(0);
    let lines: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["struct_type"], "snapshot");
    assert_eq!(lines[2]["path"], "/source/a.txt");
    assert_eq!(lines[2]["permissions"], "-rw-r--r--");
    let ran = sandbox.run(&["ls", "latest", "--ncdu"]).expect(0);
    assert_eq!(ran.json()[3][1][0]["name"], "source");
    let ran = sandbox.run(&["ls", "latest", "--sort", "size", "--reverse", "-q"]).expect(0);
    assert!(ran.stdout.starts_with("/source/a.txt\n"), "{}", ran.stdout);
    sandbox.run(&["ls", "latest:/nowhere"]).expect(1).tells("'/nowhere'");
}

#[test]
fn listings_agree_with_restic() {
    let Some(restic) = peers::require("restic") else { return };
    let sandbox = two_snapshots("ls-restic");
    let restic = restic.env("RESTIC_REPOSITORY", sandbox.path("repo"));
    let restic = restic.env("RESTIC_PASSWORD", PASSWORD);
    let theirs = restic.succeed(["ls", "--long", "--quiet", "latest"]).unwrap().stdout();
    let ours = sandbox.run(&["ls", "--long", "--quiet", "latest"]).expect(0).stdout;
    let entries = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("snapshot ")).map(str::to_owned).collect()
    };
    assert_eq!(entries(&ours), entries(&theirs));
    let theirs = restic.succeed(["stats", "--json", "--mode", "raw-data"]).unwrap().stdout();
    let theirs: Value = serde_json::from_str(&theirs).unwrap();
    let ours = sandbox.run(&["stats", "--json", "--mode", "raw-data"]).expect(0).json();
    assert_eq!(ours["total_size"], theirs["total_size"]);
    assert_eq!(ours["total_blob_count"], theirs["total_blob_count"]);
}

#[test]
fn files_are_found_in_all_snapshots() {
    let sandbox = two_snapshots("find");
    let ran = sandbox.run(&["find", "*.TXT", "--ignore-case"]).expect(0);
    assert_eq!(ran.stdout.matches("Found matching entries").count(), 2);
    let found = sandbox.run(&["find", "new.txt", "--json"]).expect(0).json();
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(found[0]["hits"], 1);
    assert_eq!(found[0]["matches"][0]["path"], "/source/new.txt");
    assert_eq!(sandbox.run(&["find", "nothing", "--json"]).expect(0).json(), json!([]));
    let none = sandbox.run(&["find", "nothing"]).expect(0).tells("found nothing in 2 snapshots");
    assert_eq!(none.stdout, "", "a message, and no result");
    assert_eq!(sandbox.run(&["-q", "find", "nothing"]).expect(0).stderr, "");
    sandbox.run(&["find", "--blob", "0123"]).expect(0).tells("found nothing in 2 snapshots");
    let both = sandbox.run(&["find", "a.txt", "--json", "--reverse"]).expect(0).json();
    let hosts = sandbox.run(&["snapshots", "--json"]).json();
    assert_eq!(both[0]["snapshot"], hosts[0]["id"]);
    sandbox.run(&["find", "--tree", "zz"]).expect(2);
}

#[test]
fn differences_are_told() {
    let sandbox = two_snapshots("diff");
    let ran = sandbox.run(&["diff", "latest~1", "latest"]).expect(0);
    ran.shows("+    /source/new.txt\n").shows("Files:           1 new,     0 removed");
    let ran = sandbox.run(&["diff", "latest", "latest~1", "--json"]).expect(0);
    let change: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    let expected = json!({"message_type": "change", "path": "/source/new.txt", "modifier": "-"});
    assert_eq!(change, expected);
    assert_eq!(ran.last_json()["removed"]["files"], 1);
}

#[test]
fn snapshots_are_counted() {
    let sandbox = two_snapshots("stats");
    let stats = sandbox.run(&["stats", "--json"]).expect(0).json();
    assert_eq!(stats["snapshots_count"], 2);
    assert_eq!(stats["total_size"], 26);
    sandbox.run(&["stats", "--mode", "raw-data"]).expect(0).shows("Total Blob Count:  8");
    sandbox.run(&["stats", "--mode", "wrong"]).expect(2).tells("raw-data");
}

#[test]
fn files_and_folders_are_dumped() {
    let sandbox = two_snapshots("dump");
    let ran = sandbox.run(&["dump", "latest", "/source/a.txt"]).expect(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("alpha\n", ""));
    sandbox.run(&["dump", "latest:/source", "/", "--target", "all.tar"]).expect(0);
    let listed = Command::new("tar").arg("-tf").arg(sandbox.path("all.tar")).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("sub/b.txt\n"));
    let zip = sandbox.run(&["dump", "--archive", "zip", "latest", "/source"]).expect(0);
    assert!(zip.stdout.starts_with("PK"));
    sandbox.run(&["dump", "latest", "/source/none"]).expect(1).tells("/source/none");
    sandbox.run(&["dump", "--archive", "rar", "latest", "/"]).expect(2).tells("tar or zip");
}

#[test]
fn snapshots_are_copied_once() {
    let sandbox = two_snapshots("copy");
    let second = ["-r", "second", "--from-repo", "repo"];
    let from = |arguments: &[&str]| {
        let mut command = sandbox.command(&[arguments, &second[2..], &second[..2]].concat());
        run(command.env("MUSTER_FROM_PASSWORD", PASSWORD))
    };
    from(&["init", "--copy-chunker-params"]).expect(0);
    from(&["copy", "--host", "one"]).expect(0).shows("copied 1 snapshot, 0 there already");
    let summary = from(&["copy", "--json"]).expect(0).last_json();
    assert_eq!(summary["copied"].as_array().unwrap().len(), 1);
    assert_eq!(summary["skipped"].as_array().unwrap().len(), 1);
    sandbox.run(&["-r", "second", "check", "--read-data"]).expect(0);
    let ran = sandbox.run(&["-r", "second", "ls", "latest"]).expect(0);
    ran.shows("/source/new.txt");
    sandbox.run(&["-r", "second", "copy"]).expect(2).tells("--from-repo");
}

#[test]
fn a_reader_that_goes_away_is_no_error_trace() {
    let sandbox = two_snapshots("pipe");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = sandbox.command(&["snapshots"]);
    let ran = run(command.stdout(Stdio::from(writer)));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""));
}

#[test]
fn colours_are_for_those_who_want_them() {
    let sandbox = Sandbox::without_repository("colours");
    let escape = |ran: crate::sandbox::Ran| ran.stderr.contains('\u{1b}');
    assert!(!escape(sandbox.run(&["snapshots"])));
    assert!(escape(sandbox.run(&["--color", "always", "snapshots"])));
    assert!(!escape(sandbox.run(&["--color", "never", "snapshots"])));
}
