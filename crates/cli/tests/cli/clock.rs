//! The wall clock is stepped by an hour, back and forth, under a drill and a recovery.
//!
//! libfaketime steps it for Muster alone, and really: every reading goes through it. What Muster
//! measures must agree with the clock of this test, which nobody touches.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use muster_operations::{
    records::Record,
    state::{Logged, State},
};
use muster_testkit::peers;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    demo_service::{Service, Shop, load::Load, wait_for_orders},
    sandbox::{Ran, run},
};

const PLAN: &str = r#"muster: 1
name: shop
regions: [west, north]
contacts: {ana: {email: ana@example.org, phone: "+39 1"}}
repositories:
  near: {url: ./near, region: west, password: "file:./secret"}
  far: {url: ./far, region: north, password: "file:./secret"}
services:
  orders:
    tier: critical
    region: west
    owner: ana
    contacts: [ana]
    data:
      db: {sqlite: ./orders.db}
      uploads: {files: ./uploads}
    protect: [{data: [db, uploads], every: 1m, to: near, copy: [far]}]
    markers: {data: db, every: 500ms}
    recover:
      - restore: [db, uploads]
      - start: ["@MUSTER@", demo-service, --database, "{{ target.data.db.path }}", --uploads,
                "{{ target.data.uploads.path }}", --port, "{{ target.port }}"]
    acceptance:
      hold: 2s
      within: 1m
      probes:
        health: {http: "{{ target.url }}/health", expect: {status: 200}, interval: 100ms}
        ledger: {sql: "select count(*) > 0 and sum(amount_cents) = 0 from entries", on: db, expect: true, interval: 100ms}
      completeness: {rows: {db: [orders, customers]}, checksums: [uploads]}
"#;

/// A shop under load, with a plan, and a clock that can be stepped.
struct Stepped {
    shop: Shop,
    library: PathBuf,
    /// Production and its customers, who go before it does.
    _load: Load,
    _service: Service,
}

impl Stepped {
    fn new(name: &str) -> Option<Self> {
        let library = library()?;
        let shop = Shop::new(name);
        let service = shop.create();
        let load = Load::start(&service.url, Load::PER_SECOND).unwrap();
        wait_for_orders(&load, 20);
        let plan = PLAN.replace("@MUSTER@", env!("CARGO_BIN_EXE_muster"));
        fs::write(shop.scratch.join("muster.yaml"), plan).unwrap();
        fs::write(shop.scratch.join("secret"), "correct horse\n").unwrap();
        Some(Self { shop, library, _load: load, _service: service })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(arguments).current_dir(self.shop.scratch.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MUSTER_") {
                command.env_remove(&name);
            }
        }
        command.env("TZ", "UTC").env("LD_PRELOAD", &self.library).env("FAKETIME_NO_CACHE", "1");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("FAKETIME_TIMESTAMP_FILE", self.offset());
        command
    }

    fn offset(&self) -> PathBuf {
        self.shop.scratch.join("offset")
    }

    /// Sets the clock so far off, at once for all that reads it.
    fn set(&self, hours: i64) {
        let new = self.shop.scratch.join("offset-new");
        fs::write(&new, format!("{:+}s\n", hours * 3600)).unwrap();
        fs::rename(new, self.offset()).unwrap();
    }

    /// Runs a command; each time it tells one of these lines, the clock is set so far off.
    fn stepping(&self, arguments: &[&str], steps: &[(&str, i64)]) -> Ran {
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut steps, mut stderr) = (steps.iter(), String::new());
        let mut step = steps.next();
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((_, hours)) = step.filter(|(text, _)| line.contains(text)) {
                self.set(*hours);
                step = steps.next();
            }
            stderr = stderr + &line + "\n";
        }
        assert_eq!(step, None, "never told: {stderr}");
        let mut stdout = String::new();
        child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        Ran { code: child.wait().unwrap().code(), stdout, stderr }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }
}

/// libfaketime, if it is installed; whoever installs the program has it.
fn library() -> Option<PathBuf> {
    let program = peers::require("faketime").and(peers::find("faketime"))?;
    let mut asked = Command::new(program);
    let asked = run(asked.args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"])).expect(0);
    Some(PathBuf::from(asked.stdout.trim()))
}

/// The figures agree with what passed for this test; `least_s` were lost at least, `most_s` at most.
#[track_caller]
fn check(result: &Value, took_s: f64, least_s: f64, most_s: f64) {
    assert_eq!(result["verdict"], "pass", "{result:#}");
    let time = &result["recovery_time"];
    let actual = time["actual_s"].as_f64().unwrap();
    assert!((0.01..took_s).contains(&actual), "{actual} s of {took_s} s: {time}");
    let phases = time["phases"].as_array().unwrap();
    let lengths: Vec<f64> = phases.iter().filter_map(|phase| phase["s"].as_f64()).collect();
    assert!(lengths.iter().all(|length| (0.0..took_s).contains(length)), "{phases:?}");
    assert!((lengths.iter().sum::<f64>() - actual).abs() < 1e-6, "{phases:?}");
    let loss = &result["recovery_point"];
    let (min, max) =
        (loss["actual_s_min"].as_f64().unwrap(), loss["actual_s_max"].as_f64().unwrap());
    assert!(least_s - 1.0 <= max && max < most_s && min <= max, "{least_s}..{most_s} s: {loss}");
    assert_eq!(
        (&result["markers"]["holes"], &result["markers"]["duplicates"]),
        (&0.into(), &0.into())
    );
    for probe in result["probes"].as_array().unwrap() {
        assert!((0.0..took_s).contains(&probe["first_green_s"].as_f64().unwrap()), "{probe}");
    }
}

/// Where a drill steps: while markers are written, that is before T0; and after T0.
const BEFORE: &str = "writing markers";
const AFTER: &str = "the target is cut off";

/// Backs up, and drills while the clock is set to `before` and `after`, in hours.
fn check_drill(name: &str, before: i64, after: i64) {
    let Some(stepped) = Stepped::new(name) else { return };
    stepped.set(0);
    let begun = Instant::now();
    stepped.run(&["backup"]).expect(0);
    let backed_up = Instant::now();
    let drill = ["drill", "run", "orders", "--disruption", "region-loss"];
    let ran = stepped.stepping(&drill, &[(BEFORE, before), (AFTER, after)]).expect(0);
    let (took_s, passed_s) = (backed_up.elapsed().as_secs_f64(), begun.elapsed().as_secs_f64());
    let result = stepped.run(&["drill", "show", "1", "--json"]).expect(0).json();
    // Markers are written for 30 s after the backup and before T0, and none of them comes back.
    check(&result, took_s, 30.0, passed_s);
    assert!(result["markers"]["lost"].as_u64().unwrap() > 20, "{result:#}\n{}", ran.stderr);
    stepped.run(&["evidence", "verify"]).expect(0);
    // It is proven, and proofs of the future are none; the clock goes right again.
    stepped.set(0);
    let bundle = stepped.shop.scratch.join("evidence.tar");
    stepped.run(&["evidence", "export", "-o", bundle.to_str().unwrap()]).expect(0);
    stepped.run(&["evidence", "verify", bundle.to_str().unwrap()]).expect(0);
    stepped.run(&["status"]).expect(0);
}

#[test]
fn an_hour_forth_and_back_changes_nothing_that_a_drill_measures() {
    check_drill("clock-forth", 1, 0);
}

#[test]
fn an_hour_back_and_forth_changes_nothing_that_a_drill_measures() {
    check_drill("clock-back", -1, 0);
}

/// Backs up, and recovers while the clock is stepped by so many hours at its first step.
fn check_recovery(name: &str, hours: i64) {
    let Some(stepped) = Stepped::new(name) else { return };
    stepped.set(0);
    let begun = Instant::now();
    stepped.run(&["backup"]).expect(0);
    let backed_up = Instant::now();
    let site = stepped.shop.scratch.join("site");
    let site = site.to_str().unwrap();
    let recover = ["recover", "orders", "--disruption", "region-loss", "--to", site, "--yes"];
    stepped.stepping(&recover, &[("T+", hours)]).expect(0);
    let (took_s, passed_s) = (backed_up.elapsed().as_secs_f64(), begun.elapsed().as_secs_f64());
    end_service(Path::new(site));
    check(&recovery(&stepped.shop.scratch.join(".muster")), took_s, 0.0, passed_s);
    stepped.run(&["evidence", "verify"]).expect(0);
}

/// The result of the only recovery, as the ledger keeps it.
fn recovery(state: &Path) -> Value {
    let state = State::open_read_only(state).unwrap().unwrap();
    match &*state.history(&["recovery-ended"]).unwrap() {
        [Logged { record: Record::RecoveryEnded(result), .. }] => {
            serde_json::to_value(result).unwrap()
        }
        others => panic!("{others:?}"),
    }
}

/// Ends what was recovered: it would go on for ever.
fn end_service(site: &Path) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains("demo-service") && words.contains(site.to_str().unwrap()) {
            let pid = entry.file_name().to_str().unwrap().parse().unwrap();
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        }
    }
}

#[test]
fn an_hour_forth_changes_nothing_that_a_recovery_measures() {
    check_recovery("clock-recovery-forth", 1);
}

#[test]
fn an_hour_back_changes_nothing_that_a_recovery_measures() {
    check_recovery("clock-recovery-back", -1);
}
