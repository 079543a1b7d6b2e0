//! What many tests need: probes, launches, looks at processes.

use std::{
    convert::Infallible,
    fs,
    future::Future,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use muster_drivers::{
    probe::{ProbeSecrets, Prober, Sample},
    process::{Child, Launch, launch},
};
use muster_model::{Light, Probe, ProbeCheck, probe::Database};
use muster_testkit::wait_for;
use serde_json::Value;

/// For what should take no time at all on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) fn probe(check: ProbeCheck, timeout: Duration) -> Probe {
    let interval = Duration::from_secs(1);
    Probe { name: "probe".to_owned(), check, on: None, interval, timeout }
}

pub(crate) async fn ask(check: ProbeCheck, timeout: Duration) -> Sample {
    ask_with(check, timeout, &ProbeSecrets::default()).await
}

pub(crate) async fn ask_with(
    check: ProbeCheck,
    timeout: Duration,
    secrets: &ProbeSecrets,
) -> Sample {
    Prober::new().unwrap().ask(&probe(check, timeout), secrets).await
}

/// Asks with time enough, and expects a light and a part of the detail.
pub(crate) async fn expect(check: ProbeCheck, light: Light, detail: &str) {
    let sample = ask(check.clone(), SOON).await;
    assert_eq!(sample.light, light, "{check:?}: {}", sample.detail);
    assert!(sample.detail.contains(detail), "{check:?}: {}", sample.detail);
}

pub(crate) fn tcp(address: SocketAddr) -> ProbeCheck {
    ProbeCheck::Tcp { address: address.to_string() }
}

pub(crate) fn sql(database: Database, query: &str, expect: Value) -> ProbeCheck {
    ProbeCheck::Sql { database, query: query.to_owned(), expect }
}

pub(crate) fn command(argv: &[&str], exit: i32, output: Option<&str>) -> ProbeCheck {
    let argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
    ProbeCheck::Command { argv, exit, output: output.map(str::to_owned) }
}

/// A launch of a shell script in a folder, with its log there.
pub(crate) fn script(dir: &Path, script: &str) -> Launch {
    Launch {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: Vec::new(),
        user: None,
        dir: dir.to_owned(),
        log: dir.join("log"),
        hidden: Vec::new(),
    }
}

pub(crate) async fn start(launch_it: &Launch) -> Child {
    launch(launch_it, |_| Ok::<(), Infallible>(())).await.unwrap()
}

/// Waits for a file with a pid in it.
pub(crate) fn pid_in(path: &Path) -> u32 {
    wait_for("a pid", SOON, || {
        // Only when the line is complete.
        let text = fs::read_to_string(path).ok()?;
        text.strip_suffix('\n')?.trim().parse().ok()
    })
    .unwrap()
}

pub(crate) fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

pub(crate) fn wait_until_gone(pid: u32) {
    wait_for("a process to be gone", SOON, || (!runs(pid)).then_some(())).unwrap();
}

/// How long something takes, with what it gives.
pub(crate) async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let value = what.await;
    (value, start.elapsed())
}
