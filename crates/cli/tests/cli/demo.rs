//! `muster demo`, the real one: its figures against what the recovered database and the
//! customers' receipts say, and that nothing of it stays behind.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
};

use jiff::Timestamp;
use muster_testkit::{Scratch, wait_for};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::sandbox::{PATIENCE, Ran, run};

/// The demo in a folder of its own, with as little good time before the disaster as it needs.
fn demo(folder: &Scratch, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.args(["demo", "--protect-for", "1s"]).args(arguments);
    command.current_dir(folder.path()).stdin(Stdio::null()).env("TZ", "UTC");
    command
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Command lines of processes that work in the folder or name it.
fn processes(folder: &Scratch) -> Vec<String> {
    let path = folder.path().to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        // Those that end meanwhile, and those of others, tell nothing.
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let works_there =
            fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder.path()));
        if words.contains(path) || works_there {
            found.push(words);
        }
    }
    found
}

#[track_caller]
fn nothing_runs(folder: &Scratch) {
    let gone = || processes(folder).is_empty().then_some(());
    wait_for("the end of all processes", PATIENCE, gone)
        .unwrap_or_else(|error| panic!("{error}: {:?}", processes(folder)));
}

#[test]
fn the_figures_are_those_of_the_recovered_database_and_the_receipts() {
    let folder = Scratch::new("demo-figures").unwrap();
    let ran = run(&mut demo(&folder, &["--keep", "--json"])).expect(0);
    nothing_runs(&folder);
    let told = ran.json();
    assert!(ran.stderr.contains("Recover in eu-north"), "{}", ran.stderr);

    let database = folder.join("muster-demo/eu-north/orders/db/orders.db");
    let database = Connection::open(database).unwrap();
    let mut query = database.prepare("SELECT number FROM orders").unwrap();
    let there: Vec<String> =
        query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let orders = &told["orders"];
    let lost: Vec<&Value> = orders["lost"].as_array().unwrap().iter().collect();
    assert_eq!(orders["recovered"], there.len());
    assert_eq!(orders["acknowledged"], there.len() + lost.len());
    assert!(there.len() > 50, "{orders}");
    assert!(lost.iter().all(|order| !there.contains(&order["number"].as_str().unwrap().into())));

    // The bound that the markers gave holds every order that was really lost.
    let recovery = &told["recovery"];
    let impact: Timestamp = told["impact"].as_str().unwrap().parse().unwrap();
    let loss = &recovery["recovery_point"];
    let (least, most) = (loss["actual_s_min"].as_f64(), loss["actual_s_max"].as_f64());
    assert!(least.unwrap() <= most.unwrap() && most.unwrap() < 15.0, "{loss}");
    for order in &lost {
        let acknowledged: Timestamp = order["acknowledged_at"].as_str().unwrap().parse().unwrap();
        let before_s = impact.duration_since(acknowledged).as_secs_f64();
        assert!(before_s <= most.unwrap(), "{order} {before_s} s before, and {loss}");
    }
    let markers = |name: &str| recovery["markers"][name].as_u64().unwrap();
    assert_eq!(markers("written"), markers("recovered") + markers("lost"));
    assert_eq!((markers("holes"), markers("duplicates")), (0, 0));

    // Somebody outside agrees on the recovery time, and its phases add up to it.
    let time = &recovery["recovery_time"];
    let actual = time["actual_s"].as_f64().unwrap();
    let seen = told["outside"]["first_green_s"].as_f64().unwrap();
    assert!((seen - actual).abs() < 0.05, "{seen} s seen, {actual} s measured");
    let phases = time["phases"].as_array().unwrap().iter();
    let sum: f64 = phases.filter_map(|phase| phase["s"].as_f64()).sum();
    assert!((sum - actual).abs() < 1e-6 && actual < 60.0, "{time}");
    assert_eq!(recovery["verdict"], "pass");
    assert_eq!(told["rehearsal"]["verdict"], "pass");
    assert!(recovery["points"].as_array().unwrap().iter().all(|used| used["repository"] == "far"));

    // The region is lost, repository and all, and what is kept can be asked.
    assert!(!folder.join("muster-demo/eu-west").exists());
    let mut status = Command::new(env!("CARGO_BIN_EXE_muster"));
    status.args(["status", "--json", "--plan", "muster-demo/muster.yaml"]);
    // What was proven is told; that the lost repository did not answer is told, too.
    let status =
        run(status.current_dir(folder.path())).expect(5).tells("near did not answer").json();
    let cells = status["matrix"].as_array().unwrap();
    let region = cells.iter().find(|cell| cell["disruption"] == "region-loss").unwrap();
    assert_eq!(region["verdict"], "proven");
}

#[test]
fn the_results_stay_and_the_last_line_checks_them() {
    let folder = Scratch::new("demo-results").unwrap();
    fs::create_dir(folder.join("muster-demo")).unwrap();
    let ran = run(&mut demo(&folder, &[])).expect(0);
    nothing_runs(&folder);
    assert_eq!(names(folder.path()), ["muster-demo", "muster-demo-2"]);
    assert!(names(&folder.join("muster-demo")).is_empty(), "what was there is not touched");
    let stays = ["evidence.tar", "ledger.pub", "muster.yaml", "report.html"];
    assert_eq!(names(&folder.join("muster-demo-2")), stays);

    let last = ran.stdout.lines().last().unwrap();
    assert_eq!(
        last,
        "muster evidence verify muster-demo-2/evidence.tar --trust muster-demo-2/ledger.pub"
    );
    let mut verify = Command::new(env!("CARGO_BIN_EXE_muster"));
    verify.args(last.split(' ').skip(1)).current_dir(folder.path());
    run(&mut verify).expect(0).shows("orders region-loss: pass");
    let report = fs::read_to_string(folder.join("muster-demo-2/report.html")).unwrap();
    assert!(report.contains("1 of 7 objectives proven"), "{report}");
    assert!(ran.stdout.contains("A-0"), "lost orders are named: {}", ran.stdout);
    assert!(!ran.stdout.contains('\x1b'), "no colour where there is no terminal");
    // The command to copy stays in one line, whatever the folder is called.
    // Trouble, which a slow machine has, is told with absolute paths.
    let is_told = |line: &&str| *line != last && !line.contains(folder.path().to_str().unwrap());
    let told: Vec<&str> = ran.stdout.lines().filter(is_told).collect();
    assert!(told.iter().all(|line| line.chars().count() <= 80), "{}", ran.stdout);
}

/// A demo under way, and what it tells.
struct Playing {
    child: Child,
    told: BufReader<ChildStdout>,
    complaints: BufReader<ChildStderr>,
}

impl Playing {
    /// Starts a demo and waits until it tells this.
    fn until(folder: &Scratch, text: &str) -> Self {
        Self::with(folder, &[], text)
    }

    /// As [`Playing::until`], with arguments.
    fn with(folder: &Scratch, arguments: &[&str], text: &str) -> Self {
        let mut command = demo(folder, arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        let complaints = BufReader::new(child.stderr.take().unwrap());
        let mut playing = Self { child, told, complaints };
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(playing.told.read_line(&mut line).unwrap(), 0, "'{text}' is never told");
        }
        playing
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until its first complaint, which begins like this.
    fn complains_of(&mut self, text: &str) {
        let mut line = String::new();
        self.complaints.read_line(&mut line).unwrap();
        assert!(line.starts_with(text), "{line}");
    }

    /// Waits for the end; tells what was not read before.
    fn end(mut self) -> Ran {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.told.read_to_string(&mut stdout).unwrap();
        self.complaints.read_to_string(&mut stderr).unwrap();
        Ran { code: self.child.wait().unwrap().code(), stdout, stderr }
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind_at_any_moment() {
    for text in
        ["answers in eu-west", "point 1", "an imagined disaster", "deleted:", "start muster"]
    {
        let folder = Scratch::new("demo-ctrl-c").unwrap();
        let mut playing = Playing::until(&folder, text);
        playing.signal(Signal::INT);
        // The second one comes while it cleans up.
        playing.complains_of("stopping");
        playing.signal(Signal::INT);
        let ran = playing.end().expect(130).tells("it was interrupted");
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        nothing_runs(&folder);
        assert_eq!(names(folder.path()), [""; 0], "after '{text}'");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_demo() {
    let folder = Scratch::new("demo-pipe").unwrap();
    let mut command = demo(&folder, &[]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    nothing_runs(&folder);
    assert_eq!(names(folder.path()), [""; 0]);
}

/// Whether a service of the demo runs below this folder of it.
fn serves(folder: &Scratch, place: &str) -> bool {
    let of_place = |words: &String| words.contains("demo-service") && words.contains(place);
    processes(folder).iter().any(of_place)
}

/// Kills a demo that has just told this, when a service runs in this place.
fn check_killed(text: &str, place: &str) {
    let folder = Scratch::new("demo-killed").unwrap();
    let playing = Playing::until(&folder, text);
    let runs = || serves(&folder, place).then_some(());
    wait_for("a service to be killed", PATIENCE, runs).unwrap();
    playing.signal(Signal::KILL);
    // Whoever cleans up holds the pipe; its end is the end of that.
    let ran = playing.end();
    assert_eq!(ran.code, None);
    nothing_runs(&folder);
    assert_eq!(names(folder.path()), [""; 0], "after '{text}': {}", ran.stderr);
    ran.tells("its folder is removed");
}

#[test]
fn a_demo_killed_while_it_protects_leaves_nothing() {
    check_killed("point 1", "eu-west/orders");
}

#[test]
fn a_demo_killed_in_its_drill_leaves_nothing() {
    check_killed("an imagined disaster", "target");
}

#[test]
fn a_demo_killed_in_its_recovery_leaves_nothing() {
    check_killed("deleted:", "eu-north/orders");
}

#[test]
fn a_killed_demo_keeps_what_it_was_told_to_keep() {
    let folder = Scratch::new("demo-killed-keep").unwrap();
    let playing = Playing::with(&folder, &["--keep"], "deleted:");
    let runs = || serves(&folder, "eu-north/orders").then_some(());
    wait_for("the recovered service", PATIENCE, runs).unwrap();
    playing.signal(Signal::KILL);
    playing.end().tells("its folder stays");
    nothing_runs(&folder);
    assert!(folder.join("muster-demo/.muster").exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let folder = Scratch::new("demo-folder").unwrap();
    fs::write(folder.join("file"), "").unwrap();
    let ran = run(&mut demo(&folder, &["--dir", "file/demo"])).expect(1);
    ran.tells("cannot make file").tells("--dir DIR");
    let error = run(&mut demo(&folder, &["--dir", "/proc/demo", "--json"])).expect(1).error();
    assert_eq!(error["code"], "demo-folder");
    assert_eq!(names(folder.path()), ["file"]);
}
