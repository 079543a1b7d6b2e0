//! Commands: every stage counts, and nothing goes on that nobody waits for.

use std::{fs, os::unix::fs::PermissionsExt, thread, time::Duration};

use muster_model::{Class, Fault};
use muster_repository::{environment::Environment, run::Run};
use muster_sources::Source;
use muster_testkit::wait_for;

use crate::common::{Sandbox, codes, command};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn what_is_printed_comes_back_as_a_file() {
    let sandbox = Sandbox::new("printed");
    let source =
        command(&["seq", "1", "1000", "|", "sort", "-rn", "|", "head", "-n", "900"], "dump");
    // `head` leaves while `sort` still prints into the pipe, if the pipe is full: it is not here.
    let captured = sandbox.back_up(&source);
    assert_eq!((captured.files, codes(&captured)), (1, vec![]));
    let restored = sandbox.restore(captured.snapshot, &sandbox.join("t"));
    assert_eq!(restored.path, sandbox.join("t/dump"));
    let text = fs::read_to_string(&restored.path).unwrap();
    assert!(text.starts_with("1000\n999\n") && text.ends_with("\n101\n"));
    let mode = fs::metadata(&restored.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn any_stage_that_fails_fails_the_backup() {
    let sandbox = Sandbox::new("stages");
    let cases: [(&[&str], &str); 5] = [
        (&["sh", "-c", "echo some; echo oh no >&2; exit 3", "|", "gzip"], "oh no"),
        (&["echo", "x", "|", "sh", "-c", "cat >/dev/null; exit 4", "|", "cat"], "exit status 4"),
        (&["echo", "x", "|", "false"], "'false' ended with exit status 1"),
        (&["sh", "-c", "kill -9 $$"], "signal 9"),
        (&["cat", "/no/such/file", "|", "gzip"], "/no/such/file"),
    ];
    for (argv, expected) in cases {
        let error = sandbox.try_back_up(&command(argv, "dump")).unwrap_err();
        assert_eq!(error.code(), "command-failed", "{argv:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = sandbox.try_back_up(&command(&["true", "|", "no-such-program"], "dump"));
    assert_eq!(error.unwrap_err().code(), "source-command");
    for (argv, file) in [(&["a", "|"][..], "dump"), (&["true"], "a/b"), (&[], "dump")] {
        let error = sandbox.try_back_up(&command(argv, file)).unwrap_err();
        assert_eq!((error.code(), error.class()), ("command-invalid", Class::Input));
    }
    assert_eq!(sandbox.snapshots(), 0);
}

#[test]
fn the_last_words_are_told_and_bounded() {
    let sandbox = Sandbox::new("last-words");
    let script = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i >&2; done; exit 1";
    let error = sandbox.try_back_up(&command(&["sh", "-c", script], "dump")).unwrap_err();
    let text = error.to_string();
    assert!(text.ends_with("line 1996 / line 1997 / line 1998 / line 1999 / line 2000"), "{text}");
}

#[test]
fn an_implausibly_small_result_is_told() {
    let sandbox = Sandbox::new("small");
    let gzip_of_nothing = sandbox.back_up(&command(&["true", "|", "gzip"], "dump.gz"));
    assert_eq!((gzip_of_nothing.bytes, codes(&gzip_of_nothing)), (20, vec!["implausibly-small"]));
    let nothing = sandbox.back_up(&command(&["true"], "dump"));
    assert_eq!((nothing.bytes, codes(&nothing)), (0, vec!["implausibly-small"]));
    let zeros = |count: &str| command(&["head", "-c", count, "/dev/zero"], "dump");
    assert!(codes(&sandbox.back_up(&zeros("100000"))).is_empty());
    assert_eq!(codes(&sandbox.back_up(&zeros("9999"))), ["implausibly-small"]);
    // Other data is no measure.
    let mut request = sandbox.request("point-2");
    request.data = "other".to_owned();
    let (environment, run) = (Environment::detect(), Run::new());
    let other = zeros("9999").back_up(&sandbox.repository, &request, &environment, &run).unwrap();
    assert!(codes(&other).is_empty());
}

#[test]
fn only_named_variables_are_handed_on() {
    // Cargo sets it for tests; no program expects it.
    const NAME: &str = "CARGO_MANIFEST_DIR";
    let sandbox = Sandbox::new("variables");
    let printed = |env: Vec<String>, target: &str| {
        let argv = vec!["env".to_owned()];
        let source = Source::Command { argv, file: "dump".to_owned(), env };
        let captured = sandbox.back_up(&source);
        let restored = sandbox.restore(captured.snapshot, &sandbox.join(target));
        fs::read_to_string(restored.path).unwrap()
    };
    let without = printed(Vec::new(), "t1");
    assert!(without.contains("PATH=") && !without.contains(NAME), "{without}");
    assert!(printed(vec![NAME.to_owned()], "t2").contains(NAME));
}

#[test]
fn a_cancelled_run_kills_what_it_started() {
    let sandbox = Sandbox::new("cancelled");
    let pids = sandbox.join("pids");
    let script = format!("sleep 600 & echo $! $$ > {}.new; mv {0}.new {0}; wait", pids.display());
    let source = command(&["sh", "-c", &script, "|", "cat"], "dump");
    let run = Run::new();
    let error = thread::scope(|scope| {
        let backup = scope.spawn(|| {
            let request = sandbox.request("point-1");
            source.back_up(&sandbox.repository, &request, &Environment::detect(), &run)
        });
        wait_for("the command to start", LONG, || pids.exists().then_some(())).unwrap();
        run.cancel.request("somebody asked");
        backup.join().unwrap().unwrap_err()
    });
    assert_eq!((error.code(), sandbox.snapshots()), ("interrupted", 0));
    for pid in fs::read_to_string(pids).unwrap().split_whitespace() {
        let stat = format!("/proc/{pid}/stat");
        wait_for("the processes to be gone", LONG, || {
            // One that is dead and not yet waited for by its new parent is gone as well.
            let stat = fs::read_to_string(&stat).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        })
        .unwrap();
    }
}
