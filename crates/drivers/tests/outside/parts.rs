//! Parts that this test binary plays as a process of its own: a run of Muster that is killed, a
//! prober without descriptors, a program that touches production.

use std::{
    convert::Infallible,
    env, fs,
    fs::File,
    io,
    net::{TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use muster_drivers::{
    probe::{ProbeSecrets, Prober},
    process::{Launch, launch},
};
use muster_model::{Light, ProbeCheck, probe::Database};
use serde_json::json;

use crate::common::{command, probe, script, sql, tcp};

const PART: &str = "MUSTER_TEST_PART";
const ARGUMENT: &str = "MUSTER_TEST_ARGUMENT";
const ARGV: [&str; 3] = ["parts::play", "--exact", "--nocapture"];

/// A command that plays a part.
pub(crate) fn player(part: &str, argument: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(ARGV).env(PART, part).env(ARGUMENT, argument);
    command
}

/// A launch that plays a part.
pub(crate) fn launch_of(dir: &Path, part: &str, argument: &str) -> Launch {
    let mut argv = vec![env::current_exe().unwrap().display().to_string()];
    argv.extend(ARGV.map(str::to_owned));
    let variables = [(PART, part), (ARGUMENT, argument)];
    let env = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Launch { argv, env, ..script(dir, "") }
}

/// Does nothing in an ordinary run.
#[test]
fn play() {
    let Ok(part) = env::var(PART) else { return };
    let argument = env::var(ARGUMENT).unwrap();
    match part.as_str() {
        "run that is killed" => run_that_is_killed(Path::new(&argument)),
        "run that dies recording" => run_that_dies_recording(Path::new(&argument)),
        "prober without descriptors" => prober_without_descriptors(&argument),
        "tcp" => hold(TcpStream::connect(argument).unwrap()),
        "udp" => {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(argument).unwrap();
            hold(socket);
        }
        "unix" => hold(UnixStream::connect(argument).unwrap()),
        "briefly" => {
            let file = File::open(argument).unwrap();
            pause(Duration::from_millis(100));
            drop(file);
        }
        other => panic!("nobody plays {other}"),
    }
}

/// Holds something until killed.
fn hold<T>(_held: T) {
    loop {
        thread::park();
    }
}

/// The part is to do something for a while: there is no condition to wait for.
fn pause(duration: Duration) {
    let (_send, receive) = std::sync::mpsc::channel::<()>();
    receive.recv_timeout(duration).ok();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Starts a family, records it in `dir/record`, and waits to be killed.
fn run_that_is_killed(dir: &Path) {
    runtime().block_on(async {
        let family = script(dir, &fs::read_to_string(dir.join("script")).unwrap());
        let child = launch(&family, |who| {
            let record = dir.join("record.new");
            fs::write(&record, serde_json::to_vec(who).unwrap())?;
            fs::rename(record, dir.join("record"))
        });
        hold(child.await.unwrap());
    });
}

/// Is gone before the record is made.
fn run_that_dies_recording(dir: &Path) {
    let started = script(dir, "touch used");
    drop(runtime().block_on(launch(&started, |who| -> Result<(), Infallible> {
        fs::write(dir.join("pid"), format!("{}\n", who.pid)).unwrap();
        std::process::abort()
    })));
}

/// Uses all descriptors up and asks every kind of probe; `argument` is `TCP PORT,SQLITE PATH`.
fn prober_without_descriptors(argument: &str) {
    let (port, path) = argument.split_once(',').unwrap();
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    let http = |host: &str| ProbeCheck::Http {
        url: format!("http://{host}:{port}/"),
        statuses: vec![200],
        body: None,
        json: Vec::new(),
        redirects: false,
    };
    let checks = [
        tcp(address),
        http("127.0.0.1"),
        http("localhost"),
        command(&["true"], 0, None),
        sql(Database::Sqlite(path.to_owned()), "select 1", json!(1)),
        sql(Database::Postgres(format!("postgresql://x@127.0.0.1:{port}/x")), "x", json!(1)),
    ];
    runtime().block_on(async {
        let prober = Prober::new().unwrap();
        let mut lights = Vec::new();
        let mut held = Vec::new();
        let full = loop {
            match File::open("/dev/null") {
                Ok(file) => held.push(file),
                Err(error) => break error,
            }
        };
        assert_eq!(full.raw_os_error(), Some(24), "{full}");
        for check in &checks {
            let probe = probe(check.clone(), Duration::from_secs(5));
            lights.push(prober.ask(&probe, &ProbeSecrets::default()).await);
        }
        drop(held);
        let red: Vec<_> = lights.iter().filter(|sample| sample.light != Light::Unknown).collect();
        assert!(red.is_empty(), "{red:?}");
        // With descriptors the same question is answered.
        let probe = probe(checks[0].clone(), Duration::from_secs(5));
        let sample = prober.ask(&probe, &ProbeSecrets::default()).await;
        assert_eq!(sample.light, Light::Green, "{}", sample.detail);
    });
}

/// Waits for a part to end well.
pub(crate) fn assert_ends_well(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Where `sh` is.
pub(crate) fn shell() -> PathBuf {
    "/bin/sh".into()
}
