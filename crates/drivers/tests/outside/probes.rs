//! `tcp` and `command` probes, and whose fault a failure is.

use std::{fs, net::TcpListener, process::Command, time::Duration};

use muster_model::Light;
use muster_testkit::Scratch;
use rusqlite::Connection;

use crate::{
    common::{SOON, ask, command, expect, pid_in, probe, tcp, timed, wait_until_gone},
    parts::{assert_ends_well, player, shell},
};

#[tokio::test(flavor = "multi_thread")]
async fn tcp_is_green_while_somebody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    expect(tcp(address), Light::Green, "connected").await;
    drop(listener);
    expect(tcp(address), Light::Red, "refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_judged_by_code_and_output() {
    expect(command(&["true"], 0, None), Light::Green, "exit code 0").await;
    expect(command(&["false"], 1, None), Light::Green, "exit code 1").await;
    expect(command(&["echo", "all is well"], 0, Some("is well")), Light::Green, "").await;
    expect(command(&["echo", "$HOME;"], 0, Some("$HOME;")), Light::Green, "").await;
    expect(command(&["echo", "all"], 0, Some("well")), Light::Red, "'well' is not in").await;
    let fails = ["sh", "-c", "echo because >&2; exit 3"];
    expect(command(&fails, 0, None), Light::Red, "exit code 3, expected exit code 0: because")
        .await;
    expect(command(&["sh", "-c", "kill -9 $$"], 0, None), Light::Red, "signal").await;
    expect(command(&["/no/such/program"], 0, None), Light::Red, "No such file").await;
    expect(command(&[], 0, None), Light::Red, "no program").await;
    // Cargo sets this one for the tests.
    let leaks = ["sh", "-c", "test -z \"$CARGO_MANIFEST_DIR\""];
    expect(command(&leaks, 0, None), Light::Green, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_with_their_time_and_leave_nothing() {
    let scratch = Scratch::new("command").unwrap();
    let text = format!(
        "(trap '' TERM; sleep 1000 & echo $! > {0}/inner; wait) & setsid sleep 1001 & echo $! > {0}/outer; wait",
        scratch.path().display()
    );
    let hanging = command(&["sh", "-c", &text], 0, None);
    let sample = ask(hanging, Duration::from_secs(2)).await;
    assert_eq!(sample.light, Light::Red);
    for file in ["inner", "outer"] {
        wait_until_gone(pid_in(&scratch.join(file)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_leaves_behind_holds_nobody_up() {
    let scratch = Scratch::new("behind").unwrap();
    let text = format!("sleep 1000 & echo $! > {}/pid", scratch.path().display());
    let (sample, took) = timed(ask(command(&["sh", "-c", &text], 0, None), SOON)).await;
    assert_eq!(sample.light, Light::Green, "{}", sample.detail);
    assert!(took < SOON / 2);
    wait_until_gone(pid_in(&scratch.join("pid")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_has_is_not_green() {
    // Red where a resolver answers, unknown where there is none: never green.
    let sample =
        ask(muster_model::ProbeCheck::Tcp { address: "no-such-host.invalid:1".to_owned() }, SOON)
            .await;
    assert_ne!(sample.light, Light::Green);
    if fs::read_to_string("/etc/resolv.conf").is_ok_and(|text| text.contains("nameserver")) {
        return;
    }
    assert_eq!(sample.light, Light::Unknown, "{}", sample.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_not_filled_in_is_nobodys_fault_but_ours() {
    let check =
        crate::common::sql(muster_model::probe::Database::OfData, "select 1", serde_json::json!(1));
    let probe = probe(check, SOON);
    let prober = muster_drivers::probe::Prober::new().unwrap();
    assert_eq!(prober.ask(&probe, &Default::default()).await.light, Light::Unknown);
}

#[test]
fn a_prober_without_descriptors_abstains() {
    let scratch = Scratch::new("descriptors").unwrap();
    Connection::open(scratch.join("db")).unwrap().execute_batch("create table t (a)").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let part =
        player("prober without descriptors", &format!("{port},{}", scratch.join("db").display()));
    let mut limited = Command::new(shell());
    limited.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]);
    limited.arg(part.get_program()).args(part.get_args());
    limited.envs(part.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert_ends_well(&mut limited).unwrap();
}
