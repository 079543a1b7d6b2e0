//! `muster repo backup`

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use crate::sandbox::{Ran, Sandbox, run};

#[test]
fn a_backup_tells_what_it_did() {
    let sandbox = Sandbox::new("backup");
    let ran = sandbox.run(&["backup", "source"]).expect(0);
    let ran = ran.shows("Files:        2 new").shows("Dirs:         2 new");
    assert!(ran.stdout.contains("snapshot ") && ran.stdout.ends_with(" saved\n"), "{}", ran.stdout);
    assert_eq!(ran.stderr, "");
    let ran = sandbox.run(&["backup", "source", "--json"]).expect(0);
    let lines: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[..lines.len() - 1].iter().all(|line| line["message_type"] == "status"));
    let summary = lines.last().unwrap();
    assert_eq!(summary["message_type"], "summary");
    assert_eq!(summary["files_unmodified"], 2);
    assert_eq!(summary["total_files_processed"], 2);
    assert_eq!(summary["snapshot_id"].as_str().unwrap().len(), 64);
    let quiet = sandbox.run(&["backup", "source", "--quiet"]).expect(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    assert_eq!(sandbox.locks(), 0);
}

#[test]
fn snapshots_are_tagged_with_their_kind() {
    let sandbox = Sandbox::new("kinds");
    for arguments in [
        &["backup", "source", "--force"][..],
        &["backup", "source", "--kind", "differential", "--tag", "x,y"],
        &["backup", "source"],
    ] {
        sandbox.run(arguments).expect(0);
    }
    let snapshots = sandbox.run(&["snapshots", "--json"]).expect(0).json();
    let tags = |index: usize| snapshots[index]["tags"].to_string();
    assert_eq!(tags(0), r#"["muster:kind=full"]"#);
    assert_eq!(tags(1), r#"["x","y","muster:kind=differential"]"#);
    assert_eq!(tags(2), r#"["muster:kind=incremental"]"#);
    assert_eq!(snapshots[1]["parent"], snapshots[0]["id"]);
}

#[test]
fn a_snapshot_tells_that_its_blobs_were_not_opened_again() {
    let sandbox = Sandbox::new("unverified-seal");
    sandbox.write("source/a.txt", "some text");
    sandbox.run(&["backup", "source", "--no-verify-seal"]).expect(0);
    sandbox.write("source/b.txt", "more text");
    sandbox.run(&["backup", "source"]).expect(0);
    let snapshots = sandbox.run(&["snapshots", "--json"]).expect(0).json();
    let tags = |index: usize| snapshots[index]["tags"].to_string();
    assert!(tags(0).contains("muster:unverified-seal"), "{}", tags(0));
    assert!(!tags(1).contains("muster:unverified-seal"), "{}", tags(1));
    sandbox.run(&["check", "--read-data"]).expect(0);
}

#[test]
fn a_folder_that_was_encrypted_is_kept_and_suspect() {
    let sandbox = Sandbox::new("encrypted");
    let texts: Vec<String> = (0..20).map(|n| format!("source/{n}.txt")).collect();
    let text: String = (0..20_000).map(|n| format!("line {n} of a text\n")).collect();
    for (n, path) in texts.iter().enumerate() {
        sandbox.write(path, &format!("{n}{text}"));
    }
    for day in 0..3 {
        sandbox.write("source/diary.txt", &format!("day {day}"));
        let ran = sandbox.run(&["backup", "source", "--json"]).expect(0);
        assert_eq!(ran.last_json()["signals"], serde_json::json!([]), "an ordinary day");
    }
    let mut cipher = fs::File::open("/dev/urandom").unwrap();
    for path in &texts {
        let mut noise = vec![0; text.len()];
        std::io::Read::read_exact(&mut cipher, &mut noise).unwrap();
        fs::write(sandbox.path(path), noise).unwrap();
    }
    let ran = sandbox.run(&["backup", "source"]).expect(0);
    ran.tells("% of all bytes are new").tells("it may be encrypted").tells("muster:suspect");
    let snapshots = sandbox.run(&["snapshots", "--json"]).expect(0).json();
    assert!(snapshots[3]["tags"].to_string().contains("muster:suspect"));
    assert!(!snapshots[2]["tags"].to_string().contains("muster:suspect"));

    // What follows is measured by the good days, not by the bad one.
    fs::remove_dir_all(sandbox.path("source")).unwrap();
    fs::create_dir(sandbox.path("source")).unwrap();
    let ran = sandbox.run(&["backup", "source", "--json"]).expect(0);
    assert_eq!(ran.last_json()["signals"], serde_json::json!(["source-emptied"]));
    sandbox.run(&["check", "--read-data"]).expect(0);
}

#[test]
fn what_cannot_be_read_is_listed_and_exit_code_5() {
    let sandbox = Sandbox::new("unreadable");
    sandbox.write("source/secret.txt", "secret");
    fs::set_permissions(sandbox.path("source/secret.txt"), fs::Permissions::from_mode(0o000))
        .unwrap();
    let arguments = ["backup", "source"];
    let ran = run_without_root(&sandbox, &arguments).expect(5);
    let ran = ran.tells("source/secret.txt").tells("Permission denied").tells("1 item could not");
    ran.shows("Files:        2 new");
    let ran = run_without_root(&sandbox, &["backup", "source", "--json"]).expect(5);
    assert_eq!(ran.last_json()["unreadable"], 1);
    let error: serde_json::Value =
        serde_json::from_str(ran.stderr.lines().next().unwrap()).unwrap();
    assert_eq!(error["message_type"], "error");
    assert!(error["item"].as_str().unwrap().ends_with("source/secret.txt"));
    let snapshots = run_without_root(&sandbox, &["snapshots", "--json"]).expect(0).json();
    assert!(snapshots[0]["tags"].to_string().contains("muster:partial"));
}

/// Root reads everything, so these commands run as somebody else, who owns the repository.
pub(crate) fn run_without_root(sandbox: &Sandbox, arguments: &[&str]) -> Ran {
    let command = sandbox.command(arguments);
    if !rustix::process::getuid().is_root() {
        return run(&mut { command });
    }
    let owner = "65534:65534";
    let chown = Command::new("chown").args(["-R", owner]).arg(sandbox.path("repo")).status();
    assert!(chown.unwrap().success());
    // The binary may lie where only root may look.
    let muster = sandbox.path("muster-copy");
    if !muster.exists() {
        fs::copy(env!("CARGO_BIN_EXE_muster"), &muster).unwrap();
    }
    let mut dropped = Command::new("setpriv");
    dropped.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(muster);
    dropped.args(command.get_args()).current_dir(sandbox.path("")).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => dropped.env(name, value),
            None => dropped.env_remove(name),
        };
    }
    run(&mut dropped)
}

#[test]
fn sources_that_are_missing_are_left_out_or_fail() {
    let sandbox = Sandbox::new("missing-source");
    sandbox.run(&["backup", "source", "missing"]).expect(5).tells("missing");
    let ran = sandbox.run(&["backup", "missing"]).expect(1).tells("nothing of it can be found");
    assert_eq!(ran.stdout, "");
    assert_eq!(sandbox.run(&["snapshots", "--json"]).json().as_array().unwrap().len(), 1);
}

#[test]
fn a_dry_run_writes_nothing() {
    let sandbox = Sandbox::new("dry-run");
    sandbox.run(&["backup", "source", "--dry-run"]).expect(0).shows("Would add");
    let summary = sandbox.run(&["backup", "source", "-n", "--json"]).expect(0).last_json();
    assert_eq!(summary["dry_run"], true);
    assert!(summary.get("snapshot_id").is_none());
    assert_eq!(sandbox.run(&["snapshots", "--json"]).json(), serde_json::json!([]));
}

#[test]
fn patterns_markers_and_sizes_leave_things_out() {
    let sandbox = Sandbox::new("excludes");
    sandbox.write("source/large", &"x".repeat(5000));
    sandbox.write("source/cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55");
    sandbox.write("source/cache/thumbnail", "x");
    sandbox.write("source/skip/.nobackup", "");
    sandbox.write("source/skip/file", "");
    sandbox.write("source/Draft.TMP", "");
    sandbox.write("patterns", "# mine\n*.txt\n");
    #[rustfmt::skip]
    let arguments = [
        "backup", "source", "--exclude-larger-than", "4k", "--exclude-caches",
        "--exclude-if-present", ".nobackup", "--iexclude", "*.tmp", "--exclude-file", "patterns",
    ];
    sandbox.run(&arguments).expect(0);
    let listed = sandbox.run(&["ls", "latest", "-q"]).expect(0).stdout;
    #[rustfmt::skip]
    let expected = [
        "/source", "/source/cache", "/source/cache/CACHEDIR.TAG", "/source/skip",
        "/source/skip/.nobackup", "/source/sub",
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn lists_say_what_to_back_up() {
    let sandbox = Sandbox::new("lists");
    sandbox.write("globs", "# comment\n\n source/*.txt \nnothing/*\n");
    sandbox.write("lines", "source/sub/b.txt\n");
    let arguments = ["backup", "--files-from", "globs", "--files-from-verbatim", "lines"];
    sandbox.run(&arguments).expect(0).tells("'nothing/*' matches no file");
    let listed = sandbox.run(&["ls", "latest", "-q"]).expect(0).stdout;
    assert!(listed.contains("/source/a.txt\n") && listed.contains("b.txt\n"), "{listed}");
    sandbox.run(&["backup", "--files-from-raw", "lines"]).expect(2).tells("zero byte");
    sandbox.run(&["backup", "--files-from", "missing"]).expect(2).tells("read the list missing");
}

#[test]
fn streams_are_backed_up_whole_or_not_at_all() {
    let sandbox = Sandbox::new("stdin");
    let mut command = sandbox.command(&["backup", "--stdin", "--stdin-filename", "dump.sql"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"select 1;\n").unwrap();
    assert!(child.wait().unwrap().success());
    sandbox.run(&["ls", "latest"]).expect(0).shows("/dump.sql");
    let failing = ["backup", "--stdin-from-command", "--", "sh", "-c", "echo half; exit 7"];
    sandbox.run(&failing).expect(1).tells("exit status: 7");
    let missing = ["backup", "--stdin-from-command", "--", "/does/not/exist"];
    sandbox.run(&missing).expect(1).tells("start the command");
    assert_eq!(sandbox.run(&["snapshots", "--json"]).json().as_array().unwrap().len(), 1);
    sandbox.run(&["backup", "--stdin-from-command", "--", "echo", "--flag"]).expect(0);
    assert_eq!(sandbox.run(&["snapshots", "--json"]).json().as_array().unwrap().len(), 2);
}

#[test]
fn an_unchanged_source_needs_no_snapshot() {
    let sandbox = Sandbox::new("unchanged");
    sandbox.run(&["backup", "source"]).expect(0);
    let ran = sandbox.run(&["backup", "source", "--skip-if-unchanged"]).expect(0);
    ran.shows("no snapshot saved");
    assert_eq!(sandbox.run(&["snapshots", "--json"]).json().as_array().unwrap().len(), 1);
}

#[test]
fn the_repository_itself_is_left_out_with_a_warning() {
    let sandbox = Sandbox::new("inside");
    sandbox.run(&["backup", "."]).expect(0).tells("is the repository itself");
    let listed = sandbox.run(&["ls", "latest", "-q"]).expect(0).stdout;
    assert!(!listed.contains("/repo/config"), "{listed}");
}

#[test]
fn time_host_and_parent_can_be_given() {
    let sandbox = Sandbox::new("given");
    let time = ["--time", "2020-02-29 12:30:00", "--host", "elsewhere"];
    sandbox.run(&[&["backup", "source"], &time[..]].concat()).expect(0);
    let first = sandbox.run(&["snapshots", "--json"]).json()[0].clone();
    assert_eq!(first["hostname"], "elsewhere");
    assert_eq!(first["time"], "2020-02-29T12:30:00Z");
    let id = first["id"].as_str().unwrap();
    sandbox.run(&["backup", "source/sub", "--parent", &id[..10]]).expect(0);
    assert_eq!(sandbox.run(&["snapshots", "--json"]).json()[1]["parent"], id);
    sandbox.run(&["backup", "source/a.txt", "--group-by", "", "-q"]).expect(0);
    let snapshots = sandbox.run(&["snapshots", "--json"]).json();
    assert_eq!(snapshots[2]["parent"], snapshots[1]["id"]);
}

#[test]
fn files_that_lie_in_no_folder_are_compared_with_the_parent_too() {
    let sandbox = Sandbox::new("no-folder");
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    for name in ["a", "b", "c"] {
        sandbox.write(&format!("source/{name}"), name);
        let file = fs::File::options().write(true).open(sandbox.path("source").join(name)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    let arguments = ["backup", "a", "b", "c", "--ignore-ctime", "--json"];
    let backup = || {
        let mut command = sandbox.command(&arguments);
        run(command.current_dir(sandbox.path("source"))).expect(0).last_json()
    };
    assert_eq!(backup()["files_new"], 3);
    assert_eq!(backup()["files_unmodified"], 3);
    assert_eq!(backup()["files_unmodified"], 3);
    sandbox.run(&["check", "--read-data"]).expect(0);
}
