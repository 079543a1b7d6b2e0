//! Help, and what happens when the command line is wrong.

use std::{fs, process::Command};

use crate::sandbox::{PASSWORD, Sandbox, run};

const VERBS: [&[&str]; 25] = [
    &[],
    &["init"],
    &["backup"],
    &["snapshots"],
    &["ls"],
    &["find"],
    &["diff"],
    &["dump"],
    &["restore"],
    &["check"],
    &["stats"],
    &["copy"],
    &["unlock"],
    &["mount"],
    &["tag"],
    &["rewrite"],
    &["migrate"],
    &["repair", "index"],
    &["repair", "packs"],
    &["repair", "snapshots"],
    &["key", "add"],
    &["key", "list"],
    &["key", "passwd"],
    &["key", "remove"],
    &["key", "rotate"],
];

#[test]
fn every_verb_explains_itself_with_an_example() {
    let sandbox = Sandbox::without_repository("help");
    for verb in VERBS {
        let mut arguments = verb.to_vec();
        arguments.push("--help");
        let help = sandbox.run(&arguments).expect(0);
        assert!(help.stderr.is_empty(), "{verb:?}: {}", help.stderr);
        let usage = ["Usage: muster repo", &verb.join(" ")].join(" ");
        let help = help.shows(usage.trim_end()).shows("muster repo ");
        assert!(help.stdout.contains("Examples:\n"), "{verb:?}");
    }
}

#[test]
fn shells_get_their_completions() {
    for shell in ["bash", "elvish", "fish", "zsh"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        let script = run(command.args(["completions", shell])).expect(0).stdout;
        assert!(script.contains("read-data-subset"), "{shell}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let sandbox = Sandbox::without_repository("usage");
    let check = |arguments: &[&str], text: &str| {
        sandbox.run(arguments).expect(2).tells(text);
    };
    check(&["frobnicate"], "unrecognized subcommand 'frobnicate'");
    check(&["snapshots", "--frobnicate"], "unexpected argument '--frobnicate'");
    check(&["restore", "latest"], "--target");
    check(&["backup"], "error: cannot back up nothing");
    check(&["backup", "--stdin-from-command"], "no command was given");
    check(&["backup", "--kind", "weekly", "source"], "write full, incremental or differential");
    check(&["backup", "--exclude", "[", "source"], "cannot understand the pattern [");
    check(&["backup", "--time", "soon", "source"], "cannot read the time 'soon'");
    check(&["check", "--read-data-subset", "0/3"], "no share of the data");
    check(&["snapshots", "--group-by", "colour"], "host, paths, tags");
    check(&["ls", "latest", "relative"], "no absolute path");
    check(&["snapshots", "-q", "-v"], "cannot be used with");
    check(&["--pack-size", "1", "backup", "source"], "4 to 128 MiB");
}

#[test]
fn wrong_usage_is_told_as_json_when_asked() {
    let sandbox = Sandbox::without_repository("usage-json");
    let ran = sandbox.run(&["snapshots", "--json", "--frobnicate"]).expect(2);
    assert_eq!(ran.stdout, "");
    let error = ran.error();
    assert_eq!((&error["code"], &error["class"]), (&"usage".into(), &"input".into()));
    assert!(error["message"].as_str().unwrap().contains("--frobnicate"));
}

#[test]
fn places_that_are_none_are_refused_clearly() {
    let sandbox = Sandbox::without_repository("no-place");
    let check = |repository: &str, code: &str, words: &str| {
        let arguments = ["-r", repository, "--json", "snapshots"];
        let ran = run(sandbox.bare_command(&arguments).env("MUSTER_PASSWORD", "x")).expect(2);
        assert_eq!(ran.error()["code"], code, "{repository}");
        ran.tells(words);
    };
    check("b2:bucket:x", "store-unsupported", "store of kind 'b2'");
    check("https://host/repo", "store-unsupported", "write s3:");
    check("s3:host", "store-location", "it needs a host and a bucket");
    check("sftp:host", "store-location", "sftp:USER@HOST:/FOLDER");
    let arguments = ["-r", "rest:http://h/", "-o", "rest.conections=3", "snapshots"];
    run(sandbox.bare_command(&arguments).env("MUSTER_PASSWORD", "x"))
        .expect(2)
        .tells("rest.conections")
        .tells("rest.connections");
    run(&mut sandbox.bare_command(&["snapshots"])).expect(2).tells("MUSTER_REPOSITORY");
}

/// What is told of a command that fails: the help beside the error.
fn helped(sandbox: &Sandbox, arguments: &[&str], help: &str) {
    let ran = sandbox.run(arguments);
    assert_ne!(ran.code, Some(0), "{arguments:?}");
    assert!(ran.stderr.contains(help), "{arguments:?}: '{help}' is missing in {}", ran.stderr);
}

#[test]
fn every_slip_of_a_newcomer_is_told_the_next_step() {
    let sandbox = Sandbox::new("slips");
    sandbox.run(&["backup", "source"]).expect(0);
    helped(&sandbox, &["--password-file", "no-such", "snapshots"], "this user may read it");
    helped(&sandbox, &["--password-command", "false", "snapshots"], "run it by hand");
    helped(&sandbox, &["-r", "source/a.txt", "snapshots"], "that is a file");
    helped(&sandbox, &["mount", "no-such"], "make the folder first");
    let mut itself = sandbox.command(&["copy", "--from-repo", "repo"]);
    itself.env("MUSTER_FROM_PASSWORD", PASSWORD);
    run(&mut itself).expect(2).tells("into itself");
    let typo = ["restore", "latest", "--target", "there", "--include", "*.tyop"];
    sandbox.run(&typo).expect(1).tells("cannot find anything in the snapshot").tells("repo ls");
    assert_eq!(
        sandbox.run(&[&typo[..], &["--json"]].concat()).expect(1).error()["code"],
        "not-found"
    );
    let restored = ["restore", "latest", "--target", "here", "--include", "*.txt"];
    let restored = sandbox.run(&restored).expect(0);
    assert!(!restored.stderr.contains("--include"), "{}", restored.stderr);
    sandbox.run(&["--limit-upload", "0", "snapshots"]).expect(0);
    let mut backup = sandbox.waiting_backup();
    let repository = sandbox.path("repo").display().to_string();
    let told = format!("cannot lock the repository at {repository}: it is locked");
    sandbox.run(&["forget", "--keep-last", "1"]).expect(4).tells(&told);
    backup.kill().unwrap();
    backup.wait().unwrap();
    sandbox.run(&["unlock"]).expect(0);
    fs::write(sandbox.path("repo/config"), "").unwrap_or_else(|_| {
        fs::remove_file(sandbox.path("repo/config")).unwrap();
        fs::write(sandbox.path("repo/config"), "").unwrap();
    });
    let ran = sandbox.run(&["snapshots"]).expect(3).tells("bring 'config' back from a copy");
    assert!(!ran.stderr.contains("--read-data"), "{}", ran.stderr);
}
